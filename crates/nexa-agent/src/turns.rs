//! Messages to an agent that asks a model: each becomes a user turn before its next request, and stays in the
//! conversation.
//!
//! The program of such an agent keeps the conversation without them. Where they stand in it is kept here, and they are put
//! there whenever the agent asks, also when its request is sent again by another owner. A conversation that begins again,
//! with another model, has them at its end. What a request takes is decided with its intent, which is recorded, so a
//! replay takes the same.
//!
//! Bounded by [`TURNS_MAX`] and [`TURNS_BYTES_MAX`]: what is beyond them stays unread, so its sender waits, and what comes
//! from outside then is not delivered, see [`crate::mailbox`]. What comes after the last request is never read.

use minicbor::{Decode, Encode};
use nexa_event::effect::{Message, ModelRequest, Purpose, Role, Source};
use nexa_event::fact::AgentEvent;
use nexa_types::limits::MAILBOX_MESSAGES_MAX;
use nexa_types::{Payload, Seq};
use nexa_vm::{codec, json};

use crate::agent::Agent;
use crate::mailbox::Mailbox;
use crate::step::Draft;

/// Messages that one conversation takes in.
const TURNS_MAX: usize = MAILBOX_MESSAGES_MAX;
/// Bytes of all of them, but for the last one, which always fits.
const TURNS_BYTES_MAX: usize = 4 << 20;

/// A message, and how many others the conversation had when it came.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Turn {
    #[n(0)]
    after: u32,
    #[n(1)]
    text: String,
}

/// The messages that have become turns, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct Turns(#[n(0)] Vec<Turn>);

impl Turns {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has_room(&self) -> bool {
        self.0.len() < TURNS_MAX && self.0.iter().map(|turn| turn.text.len()).sum::<usize>() < TURNS_BYTES_MAX
    }

    /// Puts them where they belong in the conversation.
    pub(crate) fn join(&self, request: &mut ModelRequest) {
        if self.0.is_empty() || request.purpose != Purpose::Agent {
            return;
        }
        let mut turns = self.0.iter().peekable();
        let own = std::mem::take(&mut request.messages);
        for (place, message) in own.into_iter().enumerate() {
            // Between a call and what it gave nothing may stand.
            while message.role != Role::Tool
                && let Some(turn) = turns.next_if(|turn| turn.after as usize <= place)
            {
                request.messages.push(turn.message());
            }
            request.messages.push(message);
        }
        request.messages.extend(turns.map(Turn::message));
    }
}

impl Turn {
    fn message(&self) -> Message {
        Message::new(Role::User, self.text.as_str(), Source::Derived)
    }
}

/// What was unread, as it is once a request has taken it.
pub(crate) struct Unread {
    turns: Turns,
    rest: Mailbox,
    from_outside: u32,
}

impl Agent {
    /// Puts the turns where they belong in a request, those too that it takes if it is made: gives what it takes.
    pub(crate) fn join_turns(&self, request: &mut ModelRequest) -> Option<Unread> {
        let unread = self.unread_for(request);
        let turns = unread.as_ref().map_or(&self.life.turns, |unread| &unread.turns);
        turns.join(request);
        unread
    }

    fn unread_for(&self, request: &ModelRequest) -> Option<Unread> {
        if request.purpose != Purpose::Agent || self.life.mailbox.is_empty() {
            return None;
        }
        let (mut turns, mut rest, mut from_outside) = (self.life.turns.clone(), self.life.mailbox.clone(), 0);
        while turns.has_room()
            && let Some((value, is_from_outside)) = rest.take()
        {
            from_outside += u32::from(is_from_outside);
            turns.0.push(Turn { after: request.messages.len() as u32, text: text_of(&value) });
        }
        Some(Unread { turns, rest, from_outside })
    }

    /// What was unread is part of the conversation that this request goes on with.
    pub(crate) fn take_turns(&mut self, seq: Seq, unread: Option<Unread>, draft: &mut Draft) {
        let Some(Unread { turns, rest, from_outside }) = unread else { return };
        self.life.turns = turns;
        self.life.mailbox = rest;
        if from_outside > 0 {
            draft.facts.push(AgentEvent::MailTaken { seq, count: from_outside });
        }
    }
}

/// A text as it is, anything else as canonical JSON.
fn text_of(value: &Payload) -> String {
    let text = codec::decode(value).map_err(|error| error.to_string());
    let text = text.and_then(|value| json::text_of(&value).map_err(|error| error.to_string()));
    text.unwrap_or_else(|why| format!("(a message that cannot be shown: {why})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexa_event::effect::{Sampling, ToolCall, ToolChoice};
    use nexa_types::{Millis, Tokens};

    fn request(messages: Vec<Message>) -> ModelRequest {
        ModelRequest {
            agent: "A".to_owned(),
            purpose: Purpose::Agent,
            model: String::new(),
            messages,
            schema: None,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            sampling: Sampling { temperature: 0.0, top_p: 1.0, max_tokens: Tokens(9), seed: None, stop: Vec::new() },
            stream: false,
            cache: false,
            memory: None,
            timeout: Millis(1),
        }
    }

    fn joined(turns: &[(u32, &str)], own: Vec<Message>) -> String {
        let turns = turns.iter().map(|(after, text)| Turn { after: *after, text: (*text).to_owned() }).collect();
        let mut request = request(own);
        Turns(turns).join(&mut request);
        request.messages.iter().map(|message| message.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn said(role: Role, text: &str) -> Message {
        Message::new(role, text, Source::Program)
    }

    #[test]
    fn they_stand_where_they_came() {
        let own =
            || vec![said(Role::System, "s"), said(Role::User, "u"), said(Role::Assistant, "a"), said(Role::User, "r")];
        assert_eq!(joined(&[(2, "m")], own()), "s u m a r");
        assert_eq!(joined(&[(2, "m"), (2, "n"), (4, "o")], own()), "s u m n a r o");
        assert_eq!(joined(&[], own()), "s u a r");
    }

    #[test]
    fn a_conversation_that_begins_again_has_them_at_its_end() {
        assert_eq!(joined(&[(4, "m")], vec![said(Role::System, "s"), said(Role::User, "u")]), "s u m");
    }

    #[test]
    fn nothing_stands_between_a_call_and_what_it_gave() {
        let call = |id: &str| ToolCall { id: id.to_owned(), name: "find".to_owned(), arguments: "{}".to_owned() };
        let calling = Message::calling("c", Source::Program, vec![call("1"), call("2")]);
        let gave = |id: &str| Message::returned(id, format!("t{id}"), Source::Program);
        let own = vec![said(Role::User, "u"), calling, gave("1"), gave("2"), said(Role::Assistant, "a")];
        assert_eq!(joined(&[(2, "m"), (3, "n")], own), "u c t1 t2 m n a");
    }

    #[test]
    fn other_questions_of_the_agent_are_no_part_of_its_conversation() {
        let mut request = ModelRequest { purpose: Purpose::Intent, ..request(vec![said(Role::User, "u")]) };
        Turns(vec![Turn { after: 1, text: "m".to_owned() }]).join(&mut request);
        assert_eq!(request.messages.len(), 1);
    }
}
