//! The life of an agent as pure functions: no I/O, no clock, no dice.
//!
//! - [`Agent`]: one agent's state: identity, brain, ledger, meters. Begins with its first event ([`Agent::born`]).
//! - [`Agent::step`]: takes an [`Input`] and the moment it came, decides, and says in a [`Step`] what to store and do.
//! - [`Agent::replay`]: feeds stored events and checks that the same decisions follow from them.
//! - [`Agent::snapshot`], [`Agent::restore`]: the same state as bytes.
//! - [`Answers`]: earlier answers of models, for requests that may be answered by one.
//! - [`coordinator`]: the built-in brain of a submitted list of agents, as pure as a VM.
//!
//! Holds, checked with [`invariant!`] and by the tests:
//!   AG-1  an effect is started at most once per key, epoch and attempt
//!   AG-2  what is spent, reserved and set aside never exceeds what was granted, but by what a provider bills above the
//!         worst case that it was asked for; after such a bill nothing more is sent
//!   AG-3  replaying an agent's events gives the state it ended with, or an error that names the first difference
//!   AG-4  an agent ends once, and nothing follows the end
//!   AG-5  the brain accepts the answer to each of its requests
//!
//! Not here: storing and sending (nexa-runtime), choosing a node, running bytecode (nexa-vm).

mod advance;
mod agent;
mod answers;
mod brain;
mod children;
mod conversation;
pub mod coordinator;
mod describe;
mod detached;
mod dice;
mod ending;
mod ends;
mod handles;
pub mod invariant;
mod ledger;
mod mailbox;
mod meter;
mod replay;
mod settling;
mod shortage;
mod snapshot;
mod step;
mod turns;

pub use agent::{Agent, BirthError};
pub use answers::{ANSWER_BYTES_MAX, ANSWERS_BYTES_MAX, ANSWERS_MAX, AnswerKey, Answers};
pub use children::BRANCHES_BYTES_MAX;
pub use conversation::PagingCounts;
pub use describe::describe;
pub use ending::{CAUSES_MAX, FAILURE_DATA_BYTES_MAX, FAILURE_MESSAGE_BYTES_MAX};
pub use ends::GRACE;
pub use replay::{ReplayError, Replayed, SLICES_PER_DECISION_MAX};
pub use snapshot::{SnapshotError, snapshot_is_due};
pub use step::{
    BIRTHS_PER_STEP_MAX, ENDINGS_PER_APPEND_MAX, End, Input, OutsideEffect, STEP_BYTES_MAX, Step, WISHES_PER_STEP_MAX,
};
