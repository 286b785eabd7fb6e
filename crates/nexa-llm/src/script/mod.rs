//! Answers from a file, for tests and demonstrations: `script TARGET => turns`.
//!
//! ```text
//! // One turn is used for every request, a list one per request.
//! script Greeter => "Hello."
//! script Judge => [{ verdict: "keep", score: 7 }, after(200ms, true), fail("rate_limited")]
//! ```
//!
//! TARGET is an agent's name, or `semantic "question"`, `intent`, `judge`, `reflect` for questions that no agent asks: a
//! program's own, the choice of an intent, the built-in judge's, a critique. A turn is a text, a record, a number, a bool or a label; `fail("code")`;
//! `call(tool, { args })`, which asks for a tool that the agent is offered; `after(200ms, turn)`. A list *value* is written `[[…]]`. A text is the answer as it stands; any other value is
//! answered as JSON. No rule for an agent: `unscripted_call`; a list that is used up: `script_exhausted`.
//!
//! Which turn of a list a request gets depends on its effect key alone and on the order in which keys were first
//! seen ([`Seating`]): the same key asked again, as after a crash, gets the same turn and uses up no other.
//! Whoever must keep that promise over a restart keeps the seating, see [`ScriptedModel::resuming`].
//!
//! [`Script`] and [`Seating`] are pure; [`ScriptedModel`] is the port around them.

mod model;
mod parse;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use nexa_event::effect::{ModelRequest, Purpose};
use nexa_types::{EffectKey, RunCode};
use thiserror::Error;

pub use model::{JournalError, ScriptedModel};

/// The longest script, in bytes.
pub const SCRIPT_BYTES_MAX: usize = 4 << 20;

/// Rules by target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    rules: BTreeMap<String, Turns>,
}

/// What one target answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turns {
    /// The same turn for every request.
    Always(Turn),
    /// One turn a request.
    Each(Vec<Turn>),
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// How long it takes.
    pub after: Duration,
    /// What it is.
    pub say: Say,
}

/// What a turn answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// A text.
    Text(String),
    /// The wish that a tool be called.
    Call {
        /// The tool's name.
        tool: String,
        /// Its arguments: a JSON object as text.
        arguments: String,
    },
    /// An error.
    Fail(RunCode),
}

/// Why there is no turn.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Miss {
    /// The script has no rule.
    #[error("the script has no rule for `{target}`; add `script {target} => …`")]
    Unscripted {
        /// Who asked.
        target: String,
    },
    /// The list is used up.
    #[error("the script has {len} turns for `{target}` and this is request {request}; add one to its list")]
    Exhausted {
        /// Who asked.
        target: String,
        /// How many turns there are.
        len: usize,
        /// The number of the request, from 1; requests beyond the first too many share its number.
        request: usize,
    },
}

impl Miss {
    /// The code that the asking program sees.
    pub fn code(&self) -> RunCode {
        match self {
            Self::Unscripted { .. } => RunCode::UnscriptedCall,
            Self::Exhausted { .. } => RunCode::ScriptExhausted,
        }
    }
}

/// The target of a question of the program.
fn semantic(question: &str) -> String {
    // A seating is written down line by line.
    format!("semantic {question:?}")
}

/// Under which target a request is scripted.
pub fn target_of(request: &ModelRequest) -> String {
    match &request.purpose {
        Purpose::Agent => request.agent.clone(),
        Purpose::Semantic { question } => semantic(question),
        Purpose::Intent => "intent".to_owned(),
        Purpose::Judge => "judge".to_owned(),
        Purpose::Reflect => "reflect".to_owned(),
    }
}

/// What is wrong with a script, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ScriptError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// [`ScriptError`] for the first thing that cannot be read.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        parse::script(text)
    }

    /// The targets that have a rule, sorted.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.rules.keys().map(String::as_str)
    }

    /// The turn for a request: the `ordinal`th of its target, from 0.
    ///
    /// # Errors
    /// [`Miss`] if there is none.
    pub fn turn(&self, target: &str, ordinal: usize) -> Result<&Turn, Miss> {
        match self.rules.get(target) {
            None => Err(Miss::Unscripted { target: target.to_owned() }),
            Some(Turns::Always(turn)) => Ok(turn),
            Some(Turns::Each(turns)) => turns.get(ordinal).ok_or_else(|| Miss::Exhausted {
                target: target.to_owned(),
                len: turns.len(),
                request: ordinal + 1,
            }),
        }
    }

    /// The turn for the request with this effect key, seating it if it is new.
    ///
    /// # Errors
    /// [`Miss`] if there is none.
    pub fn next_turn(&self, seating: &mut Seating, target: &str, key: EffectKey) -> Result<&Turn, Miss> {
        let len = match self.rules.get(target) {
            Some(Turns::Each(turns)) => turns.len(),
            _ => 0,
        };
        self.turn(target, seating.seat(target, key, len).unwrap_or(len))
    }
}

/// Which request of a list has which number. Holds at most one seat for each turn of each list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seating {
    seats: BTreeMap<String, BTreeMap<EffectKey, usize>>,
}

impl Seating {
    /// The seat of a key, from 0: the one it has, or the next free one of `len`. `None` if all are taken.
    pub fn seat(&mut self, target: &str, key: EffectKey, len: usize) -> Option<usize> {
        let taken = self.seats.get(target).map_or(0, BTreeMap::len);
        if let Some(seat) = self.seat_of(target, key) {
            return Some(seat);
        }
        if taken >= len {
            return None;
        }
        self.seats.entry(target.to_owned()).or_default().insert(key, taken);
        Some(taken)
    }

    /// The seat that a key has already.
    pub fn seat_of(&self, target: &str, key: EffectKey) -> Option<usize> {
        self.seats.get(target)?.get(&key).copied()
    }
}
