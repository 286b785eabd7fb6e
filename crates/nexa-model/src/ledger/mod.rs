//! What is done outside: intent, started, done, failed without effect or unknown; with a death at every step.
//!
//! Real, the very code that runs:
//!   - the agent itself: `nexa_agent::Agent` with its ledger, on a program that the compiler has compiled; steps, tickets,
//!     replays and snapshots
//!   - what an agent that was read hears first, whether it was outrun, whether a start is its own and unsent:
//!     `nexa_runtime::resume`
//!   - what follows from a refused append, and from one in doubt: `nexa_runtime::resume::{After, after_doubt}`
//!   - rights: `nexa_runtime::Rights`; what the store accepts: `Guard::admits`, `Place::judge`
//!
//! Modelled: the order of an actor, decide, reserve, record, act, with one append at a time; the store's log; what is in flight at
//! a process, by the rule that an attempt is sent once; the outside world, which counts what it has done by key.
//!
//! Leases are left out on purpose: an owner may be replaced at any moment and send at any later one. What holds here holds by the
//! store and the ledger alone.
//!
//! Trouble is bounded by [`Bounds::faults`]: a process or an actor dies, an agent is given away while its owner lives, a request to
//! the store gets lost or its answer does, a call's answer is lost, the fence holds a sending back.
//!
//! The store's fence by epoch is not needed for what holds here, nor is the rule by which an unsent start is known: an append must
//! also fit the version, and a takeover gives up what was unsent. So neither is among the planted faults; see `ownership`.
//!
//! Not here: who is given an agent (see `ownership`), and calls that go on elsewhere (see `migration`).

mod mind;
mod world;

use stateright::{Model, Property};

pub use self::world::World;

/// What of the code is left out, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// An effect is sent when it is decided, before its start is recorded.
    SendFirst,
    /// A new owner makes a call again that may not be made twice.
    Repeat,
    /// An append in doubt is acted on without a look.
    TrustDoubt,
    /// An agent acts by the right of whoever took it over while it was read.
    Outrun,
}

impl Plant {
    /// All of them, by the names that people type.
    pub const ALL: [(&'static str, Self); 4] = [
        ("send-first", Self::SendFirst),
        ("repeat", Self::Repeat),
        ("trust-doubt", Self::TrustDoubt),
        ("outrun", Self::Outrun),
    ];
}

/// How large a world.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How often anything goes wrong.
    pub faults: u8,
    /// How often the agent may be given to somebody.
    pub epochs: u64,
    /// Whether its tool may be called twice under the same key.
    pub is_idempotent: bool,
}

impl Bounds {
    /// Small enough for each test run.
    pub const SMALL: Self = Self { faults: 2, epochs: 3, is_idempotent: false };
    /// For a longer look.
    pub const LARGE: Self = Self { faults: 3, epochs: 4, is_idempotent: false };
}

/// The model.
#[derive(Debug, Clone, Copy)]
pub struct Ledger {
    /// How large.
    pub bounds: Bounds,
    /// With what left out.
    pub plant: Option<Plant>,
}

/// What may happen next. Processes, requests and calls by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The agent is given to a process, which is told; one that is dead is started anew.
    Place(usize),
    /// A process does what is next for its agent, and finds a sending slot free.
    Act(usize),
    /// The same where no slot is free.
    ActWithoutSlot(usize),
    /// The same where the fence does not let it send.
    ActHeldBack(usize),
    /// The store carries a request out; whoever waits for it has its answer.
    Store(usize),
    /// The same, and the answer gets lost.
    StoreBlind(usize),
    /// A request gets lost.
    Lose(usize),
    /// The outside world does what a call asks for.
    Do(usize),
    /// It refuses, and has done nothing.
    Refuse(usize),
    /// A call's answer comes.
    Answer(usize),
    /// A call's answer gets lost; its adapter says that nobody knows.
    LoseAnswer(usize),
    /// An actor dies; what is in flight at its process goes on.
    Panic(usize),
    /// A process dies.
    Crash(usize),
}

impl Model for Ledger {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(&self.bounds, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.act(&self.bounds, self.plant, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what is not idempotent is done at most once for a key", |model: &Self, world: &World| {
                model.bounds.is_idempotent || world.most_done() <= 1
            }),
            Property::always(
                "what was done is done or unknown, and never failed without effect",
                |_, world: &World| !world.says_failed_of_what_was_done(),
            ),
            Property::always("what is said to be done was done", |_, world: &World| !world.says_done_of_what_was_not()),
            Property::always("nothing that is unknown is started again", |_, world: &World| {
                !world.has_retried_unknown()
            }),
            Property::always("AG-1: nothing is started twice under a key, epoch and attempt", |_, world: &World| {
                !world.has_started_twice()
            }),
            Property::always("RT-1: nothing is sent before the store has accepted its start", |_, world: &World| {
                !world.has("sent unrecorded")
            }),
            Property::always("AG-3: what is stored can be read and gone on with", |_, world: &World| {
                !world.has("cannot be read")
            }),
            Property::always("at rest the agent has ended, or has no process", |_, world: &World| !world.is_stuck()),
            Property::sometimes("all is done", |_, world: &World| world.has_ended() && world.most_done() == 1),
            Property::sometimes("a call is unknown and was done", |_, world: &World| {
                world.is_unknown() && world.most_done() > 0
            }),
            Property::sometimes("a call is unknown and was not done", |_, world: &World| {
                world.is_unknown() && world.most_done() == 0 && world.has_ended()
            }),
            Property::sometimes("an owner sends after the next one took over", |_, world: &World| {
                world.has("sent late")
            }),
            Property::sometimes("an append in doubt is found stored", |_, world: &World| world.has("found stored")),
        ]
    }
}
