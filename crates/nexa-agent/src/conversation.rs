//! The conversation of an agent that remembers: what of it goes to the model, and what the log has of it.
//!
//! In:  a request with the whole conversation, and what the declaration says of memory.
//! Out: the request with as much as fits its window: what the system says, the first message, what the newest message is about,
//!      in order of time, and what was said last. And what is new in it, for the log.
//!
//! The choice is a function of the conversation alone, made with the intent; the log has it, so a replay takes what was chosen
//! then, and a request that is sent again is the same. Few active pages cost reads and never change the choice (CP-2), so the
//! pager is no part of the state: it is made anew where an agent comes into memory.
//!
//! Tokens are estimated, four bytes each: no tokenizer is known here, and which one counts depends on the model. What a tool
//! gave goes with its call, also beyond the window; a recalled call is told without its form, for providers refuse half of one.

use std::collections::{BTreeMap, BTreeSet};

use nexa_event::effect::{Conversation, Heard, Message, ModelRequest, Remembering, Role, Source};
use nexa_paging::{ContextPager, MemoryMessage, PagingConfig, Parts, Place, Query, RecallBudget, assemble};
use nexa_types::{AgentId, PageId, Timestamp, Tokens, Version};

use crate::agent::Agent;

/// Messages that are recalled at most.
const RECALLED_MAX: usize = 40;
/// What stands around a message, in tokens.
const FRAME_TOKENS: u64 = 8;

/// What paging has done for an agent since it came into memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PagingCounts {
    /// Requests for which something was recalled.
    pub recalls: u64,
    /// Pages that were needed and active.
    pub hits: u64,
    /// Pages that were needed and had to be read.
    pub faults: u64,
    /// Pages that left for others.
    pub evictions: u64,
}

/// The pages of a conversation, as far as it was read.
#[derive(Debug)]
pub(crate) struct Recollection {
    pager: ContextPager,
    /// The messages that it has, by their hashes.
    known: Vec<u64>,
    counts: PagingCounts,
}

impl Agent {
    /// Leaves in a request what is to be sent, and gives what the log has of it; nothing for an agent that forgets.
    pub(crate) fn converse(&mut self, request: &mut ModelRequest) -> Option<Conversation> {
        self.life.sent = None;
        let memory = request.memory?;
        let hashes: Vec<u64> = request.messages.iter().map(hash).collect();
        let known = self.life.heard.iter().zip(&hashes).take_while(|(before, now)| before == now).count();
        let is_heard =
            |message: &&Message| message.role != Role::System && !matches!(message.source, Source::Answer(_));
        let heard = request.messages[known..].iter().filter(is_heard);
        let heard: Vec<Heard> = heard.map(|message| Heard { role: message.role, text: message.text.clone() }).collect();
        let count = request.messages.len() as u32;
        let recorded = self.foretold_sent.take().filter(|sent| sent.iter().flatten().all(|place| *place < count));
        let sent = match recorded {
            Some(sent) => sent,
            None => self.choose(&request.messages, &hashes, &memory),
        };
        self.life.heard = hashes;
        self.life.sent.clone_from(&sent);
        self.keep_sent(request);
        let (name, page_size, before) = (request.agent.clone(), memory.page_size, self.life.said);
        // One more for the answer.
        self.life.said = before.saturating_add(heard.len() as u32 + 1);
        Some(Conversation { scope: memory.scope, name, page_size, heard, sent, before })
    }

    /// Leaves in a request what was chosen with its intent.
    pub(crate) fn keep_sent(&self, request: &mut ModelRequest) {
        let (Some(sent), true) = (&self.life.sent, request.memory.is_some()) else { return };
        let count = request.messages.len();
        let is_tail = |nth: usize| sent[nth] as usize + (sent.len() - nth) == count;
        let tail = (0..sent.len()).find(|nth| is_tail(*nth)).unwrap_or(sent.len());
        let whole = std::mem::take(&mut request.messages);
        let chosen = sent.iter().enumerate().filter_map(|(nth, place)| {
            let message = whole.get(*place as usize)?;
            if nth >= tail { Some(message.clone()) } else { told(message) }
        });
        request.messages = chosen.collect();
    }

    /// What paging has done since the agent came into memory.
    pub fn paging(&self) -> PagingCounts {
        self.recollection.as_ref().map(|of| of.counts).unwrap_or_default()
    }

    /// The places of the messages that fit, if not all do.
    fn choose(&mut self, messages: &[Message], hashes: &[u64], memory: &Remembering) -> Option<Vec<u32>> {
        let all = messages.iter().fold(0, |sum, message| sum + tokens(message));
        let system = messages.iter().take_while(|message| message.role == Role::System).count();
        if all <= memory.window.0 || messages.len() < system + 2 {
            return None;
        }
        let is_known = |of: &Recollection| hashes.starts_with(&of.known);
        let mut recollection = match self.recollection.take_if(|of| is_known(of)) {
            Some(of) => of,
            None => Box::new(Recollection::new(self.id, memory, self.paging())?),
        };
        let sent = recollection.choose(messages, hashes, system, memory.window);
        self.recollection = Some(recollection);
        Some(sent.unwrap_or_else(|| least(messages, system)))
    }
}

/// What the system says and what was said last, when nothing else fits.
fn least(messages: &[Message], system: usize) -> Vec<u32> {
    let tail = with_call(messages, messages.len() - 1);
    (0..system.min(tail)).chain(tail..messages.len()).map(|place| place as u32).collect()
}

/// The place from which on everything is sent: what tools gave goes with the calls.
fn with_call(messages: &[Message], mut first: usize) -> usize {
    while first > 0 && messages[first].role == Role::Tool {
        first -= 1;
    }
    first
}

/// A message that stands by itself: a call without its form, and what a tool gave as something that was said.
fn told(message: &Message) -> Option<Message> {
    let role = if message.role == Role::Tool { Role::User } else { message.role };
    (!message.text.is_empty()).then(|| Message::new(role, message.text.as_str(), message.source))
}

impl Recollection {
    fn new(agent: AgentId, memory: &Remembering, counts: PagingCounts) -> Option<Self> {
        // A verified module has no other settings.
        let pager = ContextPager::new(agent, PagingConfig::declared(memory)).ok()?;
        Some(Self { pager, known: Vec::new(), counts })
    }

    fn choose(&mut self, messages: &[Message], hashes: &[u64], system: usize, window: Tokens) -> Option<Vec<u32>> {
        let of = |place: usize| remembered(place, &messages[place]);
        self.pager.recorded(Version(messages.len() as u64));
        for place in self.known.len()..messages.len() {
            // The newest is asked about and is found by nobody; what the system says is always there.
            if place >= system && place + 1 < messages.len() {
                self.pager.add(of(place)).ok()?;
            }
        }
        self.known = hashes[..messages.len() - 1].to_vec();
        let asked = messages[system..].iter().rev().find(|message| message.role == Role::User);
        let text = asked.map_or("", |message| message.text.as_str());
        let query = Query { text, ..Query::default() };
        let recall =
            self.pager.load_relevant_pages(&query, RecallBudget { messages: RECALLED_MAX, tokens: Some(window.0) });
        let read = recall.reads.iter().filter_map(|page| {
            let entry = self.pager.table().get(*page)?;
            Some((*page, (entry.first.0..=entry.last.0).map(|seq| of(seq as usize - 1)).collect()))
        });
        let read: BTreeMap<PageId, Vec<MemoryMessage>> = read.collect();
        let needed: BTreeSet<PageId> = recall.messages.iter().filter_map(|found| found.page).collect();
        let left = self.pager.carry_out(&recall, &query, &read, Timestamp(0)).ok()?;
        self.counts.recalls += 1;
        self.counts.faults += read.len() as u64;
        self.counts.hits += needed.len().saturating_sub(read.len()) as u64;
        self.counts.evictions += left.len() as u64;
        let all: Vec<MemoryMessage> = (0..messages.len()).map(of).collect();
        let recalled: Vec<_> =
            recall.messages.into_iter().map(|found| (found.clone(), all[found.seq.0 as usize - 1].clone())).collect();
        let parts = Parts {
            system: &all[..system],
            pinned: &all[system..=system],
            recalled: &recalled,
            recent: &all[system..],
        };
        let context = assemble(&parts, window, &|message| Tokens(u64::from(message.tokens))).ok()?;
        let place = |seq: Version| seq.0 as usize - 1;
        let recent = context.messages.iter().find(|placed| placed.place == Place::Recent);
        let tail = with_call(messages, place(recent?.message.seq));
        let before = context.messages.iter().map(|placed| place(placed.message.seq)).filter(|at| *at < tail);
        let mut sent: Vec<u32> = before.chain(tail..messages.len()).map(|place| place as u32).collect();
        sent.sort_unstable();
        Some(sent)
    }
}

/// A message as memory keeps it, by its place in the conversation.
fn remembered(place: usize, message: &Message) -> MemoryMessage {
    MemoryMessage {
        seq: Version(place as u64 + 1),
        role: message.role,
        speaker: String::new(),
        text: message.text.clone(),
        at: Timestamp(0),
        tokens: u32::try_from(tokens(message)).unwrap_or(u32::MAX),
    }
}

fn tokens(message: &Message) -> u64 {
    let calls: usize = message.tool_calls.iter().map(|call| call.name.len() + call.arguments.len()).sum();
    ((message.text.len() + calls) as u64).div_ceil(4) + FRAME_TOKENS
}

/// Tells a message from others of its conversation.
fn hash(message: &Message) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("nexa.v1 message of a conversation");
    let mut part = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    part(message.role.as_str());
    part(&message.text);
    part(message.tool_call_id.as_deref().unwrap_or_default());
    message.tool_calls.iter().for_each(|call| part(&call.id));
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
