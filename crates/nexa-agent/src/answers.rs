//! Earlier answers of models, for agents that say `cache: "exact"`.
//!
//! An answer is found again by who asked (the tenant) and by the whole request that decides it, as a hash. It is handed
//! out as an answer that cost nothing. Only whole answers are kept: none that failed, was cut off, or left a part of its
//! request out.
//!
//! Bounds: [`ANSWERS_MAX`] answers and [`ANSWERS_BYTES_MAX`] of them in all, [`ANSWER_BYTES_MAX`] one; what was not used
//! for longest goes first. Losing all of it loses nothing but money.

use std::collections::BTreeMap;

use nexa_event::effect::{Finish, ModelReply, ModelRequest, model_fingerprint};
use nexa_types::{Spend, TenantId, Tokens};

/// The most answers.
pub const ANSWERS_MAX: usize = 4_096;
/// The most bytes of all answers.
pub const ANSWERS_BYTES_MAX: usize = 64 << 20;
/// The most bytes of one answer; a longer one is not kept.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What an answer takes beside its texts.
const OVERHEAD_BYTES: usize = 512;

/// By what an answer is found again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AnswerKey {
    tenant: TenantId,
    print: [u8; 32],
}

impl AnswerKey {
    /// The key of a request; nothing if it wants an answer of its own.
    pub fn of(tenant: &TenantId, request: &ModelRequest) -> Option<Self> {
        request.cache.then(|| Self { tenant: tenant.clone(), print: model_fingerprint(request) })
    }
}

#[derive(Debug)]
struct Kept {
    reply: ModelReply,
    bytes: usize,
    used: u64,
}

/// The answers that are kept.
#[derive(Debug, Default)]
pub struct Answers {
    kept: BTreeMap<AnswerKey, Kept>,
    /// The keys by when they were last used.
    by_use: BTreeMap<u64, AnswerKey>,
    bytes: usize,
    uses: u64,
}

impl Answers {
    /// The earlier answer to a request, as one that cost nothing.
    pub fn find(&mut self, key: &AnswerKey) -> Option<ModelReply> {
        let kept = self.kept.get_mut(key)?;
        self.uses += 1;
        self.by_use.remove(&kept.used);
        kept.used = self.uses;
        self.by_use.insert(self.uses, key.clone());
        Some(kept.reply.clone())
    }

    /// Keeps an answer if it is a whole one. The latest to a request is the one that is found.
    pub fn keep(&mut self, key: AnswerKey, reply: &ModelReply) {
        let is_whole = matches!(reply.finish, Finish::Stop | Finish::ToolCalls) && reply.tokens_left_out == Tokens(0);
        let bytes = bytes_of(reply);
        if !is_whole || bytes > ANSWER_BYTES_MAX {
            return;
        }
        self.forget(&key);
        while self.kept.len() >= ANSWERS_MAX || self.bytes + bytes > ANSWERS_BYTES_MAX {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.forget(&oldest);
        }
        self.uses += 1;
        self.bytes += bytes;
        self.by_use.insert(self.uses, key.clone());
        let reply = ModelReply { spend: Spend::default(), ..reply.clone() };
        self.kept.insert(key, Kept { reply, bytes, used: self.uses });
    }

    fn forget(&mut self, key: &AnswerKey) {
        if let Some(Kept { bytes, used, .. }) = self.kept.remove(key) {
            self.by_use.remove(&used);
            self.bytes -= bytes;
        }
    }
}

fn bytes_of(reply: &ModelReply) -> usize {
    let calls = reply.tool_calls.iter().map(|call| call.id.len() + call.name.len() + call.arguments.len());
    OVERHEAD_BYTES + reply.text.len() + reply.model.len() + calls.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(tenant: &str, print: u32) -> AnswerKey {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&print.to_le_bytes());
        AnswerKey { tenant: TenantId::new(tenant).expect("a plain name"), print: bytes }
    }

    fn reply(text: &str) -> ModelReply {
        ModelReply {
            text: text.to_owned(),
            finish: Finish::Stop,
            model: "a/b".to_owned(),
            spend: Spend { calls: 1, tokens_out: Tokens(7), ..Spend::default() },
            tokens_left_out: Tokens(0),
            tool_calls: Vec::new(),
        }
    }

    #[test]
    fn an_answer_is_found_by_its_own_tenant_and_costs_nothing() {
        let mut answers = Answers::default();
        answers.keep(key("one", 1), &reply("x"));
        assert_eq!(answers.find(&key("one", 1)), Some(ModelReply { spend: Spend::default(), ..reply("x") }));
        assert_eq!(answers.find(&key("two", 1)), None);
        assert_eq!(answers.find(&key("one", 2)), None);
        answers.keep(key("one", 1), &reply("y"));
        assert_eq!(answers.find(&key("one", 1)).map(|reply| reply.text), Some("y".to_owned()));
    }

    #[test]
    fn what_is_no_whole_answer_is_not_kept() {
        let mut answers = Answers::default();
        for poor in [
            ModelReply { finish: Finish::Length, ..reply("x") },
            ModelReply { finish: Finish::Filtered, ..reply("x") },
            ModelReply { tokens_left_out: Tokens(1), ..reply("x") },
            reply(&"x".repeat(ANSWER_BYTES_MAX)),
        ] {
            answers.keep(key("one", 1), &poor);
            assert_eq!(answers.find(&key("one", 1)), None);
        }
        answers.keep(key("one", 1), &ModelReply { finish: Finish::ToolCalls, ..reply("x") });
        assert!(answers.find(&key("one", 1)).is_some());
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut answers = Answers::default();
        (0..ANSWERS_MAX as u32).for_each(|print| answers.keep(key("one", print), &reply("x")));
        assert!(answers.find(&key("one", 0)).is_some());
        answers.keep(key("two", 0), &reply("x"));
        assert_eq!(answers.find(&key("one", 1)), None);
        assert!(answers.find(&key("one", 0)).is_some() && answers.find(&key("two", 0)).is_some());
    }

    proptest! {
        #[test]
        fn the_bounds_and_the_sums_hold_whatever_is_kept(sizes in prop::collection::vec((0u32..80, 0usize..1_300_000), 0..200)) {
            let mut answers = Answers::default();
            for (print, size) in sizes {
                answers.keep(key("one", print), &reply(&"x".repeat(size)));
                answers.find(&key("one", print / 2));
                prop_assert!(answers.bytes <= ANSWERS_BYTES_MAX && answers.kept.len() <= ANSWERS_MAX);
                prop_assert_eq!(answers.bytes, answers.kept.values().map(|kept| kept.bytes).sum::<usize>());
                prop_assert_eq!(answers.by_use.len(), answers.kept.len());
                prop_assert!(answers.by_use.iter().all(|(used, key)| answers.kept[key].used == *used));
            }
        }
    }
}
