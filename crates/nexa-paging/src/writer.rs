//! Pages as a projection of the log: facts in, sealed pages out.
//!
//! In:  the facts of agents in the order of the log ([`Told`]).
//! Out: pages, as soon as nothing more can become part of them; and what is still open, for whoever searches meanwhile.
//!
//! An agent that remembers has in the intents of its model requests what it heard, and how many messages its conversation had
//! before. The messages are counted so from the agent's beginning, an answer behind what was asked, and each `page_size` of them
//! are a page; the end of the agent ends its last one. So the same pages, under the same ids, come out wherever somebody begins
//! to read: whoever begins within a page leaves that one out, and [`PageWriter::held`] says from where on to begin so that
//! none is missing.
//!
//! Holds:
//!   CP-6  pages are a function of the log: read from the beginning or from where it is [held](PageWriter::held), what is new
//!         since then is the same
//!
//! In memory: the open page of each agent that remembers and has not ended. A message that is longer than its share of a page's
//! bytes is cut; the log has all of it.

use std::collections::BTreeMap;

use nexa_event::effect::{Answer, Conversation, ConversationScope, ModelReply, Role};
use nexa_event::fact::{AgentEvent, EffectResult, Intent};
use nexa_types::{AgentId, GlobalSeq, Seq, TenantId, Timestamp, Version, WorkloadId};

use crate::message::MemoryMessage;
use crate::page::MemoryPage;

/// Messages of one fact have places of their own: that of the fact times this, and their number in it.
pub const MESSAGE_PLACES: u64 = 1 << 16;
/// Texts of one page, in bytes: half of what a store takes, which keeps them twice, less what stands around them.
const PAGE_TEXT_BYTES_MAX: usize = 448 << 10;
/// Bytes of one token, as plain text usually has.
const TOKEN_BYTES: usize = 4;

/// Where a message is in its agent's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceInLog {
    /// The fact.
    pub version: Version,
    /// Its number in the fact.
    pub number: u32,
}

impl PlaceInLog {
    /// The last one of a fact.
    #[must_use]
    pub fn last_of(version: Version) -> Self {
        Self { version, number: (MESSAGE_PLACES - 1) as u32 }
    }

    /// As one number, by which messages are in order.
    #[must_use]
    pub fn packed(self) -> Version {
        Version(self.version.0 * MESSAGE_PLACES + u64::from(self.number).min(MESSAGE_PLACES - 1))
    }

    /// What such a number says.
    #[must_use]
    pub fn of(packed: Version) -> Self {
        Self { version: Version(packed.0 / MESSAGE_PLACES), number: (packed.0 % MESSAGE_PLACES) as u32 }
    }
}

/// A fact of an agent's stream.
#[derive(Debug, Clone, Copy)]
pub struct Told<'f> {
    /// Its place in the log.
    pub position: GlobalSeq,
    /// Whose data it is.
    pub tenant: &'f TenantId,
    /// The agent's workload.
    pub workload: WorkloadId,
    /// The agent.
    pub agent: AgentId,
    /// Its place in the agent's stream.
    pub version: Version,
    /// When it was recorded.
    pub at: Timestamp,
    /// What happened.
    pub event: &'f AgentEvent,
}

/// A page to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct SealedPage {
    /// The fact that ended it.
    pub position: GlobalSeq,
    /// Whose data it is.
    pub tenant: TenantId,
    /// The agent's workload.
    pub workload: WorkloadId,
    /// The agent.
    pub agent: AgentId,
    /// Whose memory it is part of.
    pub scope: ConversationScope,
    /// Its messages.
    pub page: MemoryPage,
}

/// The conversation of one agent.
#[derive(Debug, Clone)]
struct Talk {
    tenant: TenantId,
    workload: WorkloadId,
    scope: ConversationScope,
    name: String,
    page_size: u32,
    open: Vec<MemoryMessage>,
    /// The page, by its number, that the open messages are part of.
    page: u32,
    /// A page that began before reading did, and is left out.
    left_out: Option<u32>,
    /// The answer that is waited for: its effect, its number in the conversation, and where it was asked.
    awaited: Option<(Seq, u32, GlobalSeq)>,
    /// The request from which on the open page can be made again.
    since: Option<GlobalSeq>,
}

/// Makes pages of facts.
#[derive(Debug, Clone, Default)]
pub struct PageWriter {
    talks: BTreeMap<AgentId, Talk>,
}

impl PageWriter {
    /// Takes the next fact; gives the pages that it ends.
    pub fn take(&mut self, told: &Told<'_>) -> Vec<SealedPage> {
        match told.event {
            AgentEvent::EffectIntended { seq, intent: Intent::Model { conversation: Some(of), .. }, .. } => {
                self.heard(told, *seq, of)
            }
            AgentEvent::EffectEnded { seq, result, .. } => self.answered(told, *seq, result),
            AgentEvent::Ended { .. } => {
                let talk = self.talks.remove(&told.agent);
                talk.and_then(|mut talk| talk.seal(told.agent, told.position)).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Leaves out what an agent has said up to a fact of its stream, as far as it is open: the page will have what is left of
    /// it. Told where the log tells it, so that whoever reads the log again leaves out the same.
    pub fn forget(&mut self, agent: AgentId, up_to: Version) {
        if let Some(talk) = self.talks.get_mut(&agent) {
            // `since` stays: whoever begins to read behind what is left out here would leave out the whole page.
            talk.open.retain(|message| PlaceInLog::of(message.seq).version > up_to);
        }
    }

    /// The position before the first fact that an open page of these agents is made of; `None` if there is none. Whoever
    /// begins there again misses nothing.
    #[must_use]
    pub fn held(&self, is_meant: impl Fn(AgentId) -> bool) -> Option<GlobalSeq> {
        let talks = self.talks.iter().filter(|(agent, _)| is_meant(**agent));
        let first = talks.filter_map(|(_, talk)| talk.since.into_iter().chain(talk.awaited.map(|it| it.2)).min()).min();
        first.map(|first| GlobalSeq(first.0.saturating_sub(1)))
    }

    /// What is open: of each agent that remembers, whose it is and its messages after its last page.
    pub fn open(&self) -> impl Iterator<Item = (AgentId, &TenantId, WorkloadId, ConversationScope, &[MemoryMessage])> {
        let talks = self.talks.iter().filter(|(_, talk)| !talk.open.is_empty());
        talks.map(|(agent, talk)| (*agent, &talk.tenant, talk.workload, talk.scope, talk.open.as_slice()))
    }

    fn heard(&mut self, told: &Told<'_>, seq: Seq, of: &Conversation) -> Vec<SealedPage> {
        let (agent, page_size) = (told.agent, of.page_size.max(1));
        let talk = self.talks.entry(agent).or_insert_with(|| Talk {
            tenant: told.tenant.clone(),
            workload: told.workload,
            scope: of.scope,
            name: of.name.clone(),
            page_size,
            open: Vec::new(),
            page: of.before / page_size,
            left_out: (!of.before.is_multiple_of(page_size)).then_some(of.before / page_size),
            awaited: None,
            since: None,
        });
        let mut sealed = Vec::new();
        if let Some((_, number, asked)) = talk.awaited.take() {
            // Nobody waits for that answer any more.
            let place = PlaceInLog { version: told.version, number: 0 };
            sealed.extend(talk.say(told, asked, number, place, (Role::Assistant, String::new(), "")));
        }
        for (number, heard) in (0..).zip(&of.heard) {
            let place = PlaceInLog { version: told.version, number };
            let said = (heard.role, String::new(), heard.text.as_str());
            sealed.extend(talk.say(told, told.position, of.before.saturating_add(number), place, said));
        }
        talk.awaited = Some((seq, of.before.saturating_add(of.heard.len() as u32), told.position));
        sealed
    }

    fn answered(&mut self, told: &Told<'_>, seq: Seq, result: &EffectResult) -> Vec<SealedPage> {
        let Some(talk) = self.talks.get_mut(&told.agent) else { return Vec::new() };
        let Some((_, number, asked)) = talk.awaited.filter(|(awaited, ..)| *awaited == seq) else { return Vec::new() };
        talk.awaited = None;
        let text = match result {
            EffectResult::Done(Answer::Model(reply)) => spoken(reply),
            // Its place stays empty.
            _ => "".into(),
        };
        let place = PlaceInLog { version: told.version, number: 0 };
        let said = (Role::Assistant, talk.name.clone(), &*text);
        talk.say(told, asked, number, place, said)
    }
}

/// What a reply says, the calls that it asks for included.
fn spoken(reply: &ModelReply) -> std::borrow::Cow<'_, str> {
    if reply.tool_calls.is_empty() {
        return reply.text.as_str().into();
    }
    let calls = reply.tool_calls.iter().map(|call| format!("{}({})", call.name, call.arguments));
    let all: Vec<String> = Some(reply.text.clone()).filter(|text| !text.is_empty()).into_iter().chain(calls).collect();
    all.join("\n").into()
}

impl Talk {
    /// One more message, the so many-th of the conversation, from a request at `asked`; gives the page that it ends or that
    /// ended before it.
    fn say(
        &mut self,
        told: &Told<'_>,
        asked: GlobalSeq,
        number: u32,
        place: PlaceInLog,
        (role, speaker, text): (Role, String, &str),
    ) -> Vec<SealedPage> {
        let page = number / self.page_size;
        let mut sealed = Vec::new();
        if page != self.page {
            sealed.extend(self.seal(told.agent, told.position));
            self.page = page;
        }
        if self.left_out == Some(page) {
            return sealed;
        }
        // Also if nothing was said: whoever begins to read behind it would leave this page out.
        self.since.get_or_insert(asked);
        if !text.is_empty() {
            let room = PAGE_TEXT_BYTES_MAX / self.page_size as usize;
            let text = text[..text.floor_char_boundary(room)].to_owned();
            let tokens = u32::try_from(text.len().div_ceil(TOKEN_BYTES)).unwrap_or(u32::MAX);
            self.open.push(MemoryMessage { seq: place.packed(), role, speaker, text, at: told.at, tokens });
        }
        // An answer that is waited for is the next one, and never of a page before.
        if (number + 1).is_multiple_of(self.page_size) {
            sealed.extend(self.seal(told.agent, told.position));
        }
        sealed
    }

    fn seal(&mut self, agent: AgentId, position: GlobalSeq) -> Option<SealedPage> {
        self.since = None;
        let messages = std::mem::take(&mut self.open);
        (!messages.is_empty()).then(|| SealedPage {
            position,
            tenant: self.tenant.clone(),
            workload: self.workload,
            agent,
            scope: self.scope,
            page: MemoryPage::new(agent, messages, Vec::new()),
        })
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
