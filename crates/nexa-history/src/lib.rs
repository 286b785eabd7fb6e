//! What happened in a run, and whether it may have.
//!
//! In:  what clients did and were told ([`Operation`]), what the log has ([`Logged`]), what somebody outside counted who
//!      is never killed ([`Sink`]), and what went wrong on purpose ([`Fault`]).
//! Out: [`Violation`]s, each by the id of the property that it breaks, and a few counts.
//!
//! | id | holds | checked by |
//! |---|---|---|
//! | P1 | the epochs of a stream never fall | [`streams::check`] |
//! | P2 | what was acknowledged exists, and has ended in the end | [`clients::kept`] |
//! | P3 | nothing is done twice; what is recorded as done was done, what is recorded as failed was not | [`effects::check`] |
//! | P4 | what comes after something starts after that has succeeded | [`edges::check`] |
//! | P5 | an agent, a workload and an effect end once, and nothing follows an end | [`streams::check`], [`effects::check`] |
//! | P21 | what clients are told fits one order of what they did, and nothing starts after an acknowledged cancel | [`clients::orderly`], [`clients::cancelled`] |
//! | ST-1 | the versions of a stream are 1..n | [`streams::check`] |
//! | AG-1 | an attempt of an effect is started once | [`effects::check`] |
//!
//! A history is written as one line of JSON each: [`json::lines`]. An operation without an answer is unknown, never failed.
//!
//! Not here: how any of it is come by, which differs between a simulation (`nexa-sim`), processes under faults
//! (`nexa-battery`) and a load (`nexa-load`).

pub mod clients;
pub mod edges;
pub mod effects;
pub mod json;
pub mod logged;
pub mod streams;

use std::collections::BTreeMap;

use nexa_types::{EffectKey, WorkloadId};

pub use logged::{End, Logged, What};

/// Something that must not happen, by the property that it breaks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Which property.
    pub id: &'static str,
    /// What was seen.
    pub text: String,
}

impl Violation {
    /// A property, and what was seen.
    pub fn new(id: &'static str, text: impl Into<String>) -> Self {
        Self { id, text: text.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.id, self.text)
    }
}

/// What a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// That a workload be run.
    Submit,
    /// That it end.
    Cancel,
    /// How it stands.
    Get,
}

impl Operation {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Cancel => "cancel",
            Self::Get => "get",
        }
    }
}

/// How a workload stands, as a client is told; later ones follow earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// There is no such workload.
    Absent,
    /// It has not ended.
    Live,
    /// It has: in this way, by a name.
    Ended(&'static str),
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It was done; a question has its answer.
    Ok(Option<Standing>),
    /// It was not done, and will not be.
    Fail,
    /// Nobody knows.
    Unknown,
}

/// One operation of a client. Times are microseconds on one clock.
#[derive(Debug, Clone)]
pub struct Call {
    /// What.
    pub operation: Operation,
    /// On which workload.
    pub workload: WorkloadId,
    /// When it was asked for first.
    pub invoked: u64,
    /// When the answer was there.
    pub returned: u64,
    /// What was said.
    pub told: Told,
}

/// What was done outside under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// What, in words.
    pub what: String,
    /// How often.
    pub times: u64,
}

/// What somebody outside has counted.
pub type Sink = BTreeMap<EffectKey, Done>;

/// Something that went wrong on purpose.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What kind.
    pub kind: String,
    /// To whom.
    pub victim: String,
    /// When it began, in milliseconds as the log has them.
    pub began: u64,
    /// When it was over.
    pub healed: u64,
}
