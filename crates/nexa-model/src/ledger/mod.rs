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
//!   - what is in flight at a node: the table of its dispatcher, with all that goes on for agents that move
//!     (`nexa_runtime::flights`); whom a carried answer is offered to: `nexa_runtime::Address`; what a node takes up:
//!     `Given::is_meant_by`
//!
//! Modelled: the order of an actor, decide, reserve, record, act, with one append at a time; the store's log and the agent's
//! inbox with one message; letters between nodes, in any order; the outside world, which counts what it has done by key.
//!
//! With [`Bounds::moves`] the agent moves while it lives, as the runtime's `moving` has it: it leaves memory between two steps, its
//! row is changed, what it has in flight goes on where it was sent, and the answer is offered to whoever has the agent, until that
//! says that it is recorded. Of that, a change of the row of which nobody knows is not here (`nexa-runtime/tests/migration.rs`).
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
//! Not here: who is given an agent (see `ownership`).

mod actor;
mod mind;
mod moving;
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
    /// A carried answer is forgotten once it was offered.
    OfferOnce,
    /// Nobody hears that a node is gone that carried an answer.
    NoMourning,
    /// Who takes an agent up waits for the answer of a carrier that is known to be gone.
    AwaitTheDead,
    /// An owner that has not heard of its end takes the answer to what a later one has sent for its own.
    SettleUnknown,
    /// Who gives an agent away does not say what goes on for it.
    NoCarrier,
}

impl Plant {
    /// All of them, by the names that people type.
    pub const ALL: [(&'static str, Self); 9] = [
        ("send-first", Self::SendFirst),
        ("repeat", Self::Repeat),
        ("trust-doubt", Self::TrustDoubt),
        ("outrun", Self::Outrun),
        ("offer-once", Self::OfferOnce),
        ("no-mourning", Self::NoMourning),
        ("await-the-dead", Self::AwaitTheDead),
        ("settle-unknown", Self::SettleUnknown),
        ("no-carrier", Self::NoCarrier),
    ];

    /// Whether only who moves would miss it.
    #[must_use]
    pub fn is_of_moves(self) -> bool {
        matches!(self, Self::OfferOnce | Self::NoMourning | Self::AwaitTheDead | Self::SettleUnknown | Self::NoCarrier)
    }
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
    /// How often it is told to move. An agent that may move also waits for a message.
    pub moves: u8,
}

impl Bounds {
    /// Small enough for each test run.
    pub const SMALL: Self = Self { faults: 2, epochs: 3, is_idempotent: false, moves: 0 };
    /// For a longer look.
    pub const LARGE: Self = Self { faults: 3, epochs: 4, is_idempotent: false, moves: 0 };
    /// The same of an agent that moves, small enough for each test run.
    pub const MOVING_SMALL: Self = Self { faults: 1, epochs: 3, is_idempotent: false, moves: 1 };
    /// And for a longer look: one that moves twice.
    pub const MOVING_TWICE: Self = Self { faults: 1, epochs: 4, is_idempotent: false, moves: 2 };
    /// One for which two things go wrong.
    pub const MOVING_LARGE: Self = Self { faults: 2, epochs: 3, is_idempotent: false, moves: 1 };
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
    /// A process is told to give its agent to the next.
    Release(usize),
    /// A process offers the answer of a call that it carries.
    Offer(usize),
    /// A letter between processes arrives.
    Bring(usize),
    /// It gets lost.
    Drop(usize),
    /// A process hears that another is gone.
    Mourn(usize, usize),
}

impl Model for Ledger {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.bounds, self.plant)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(&self.bounds, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.act(self.plant, action);
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
            Property::always("P15: where nothing has gone wrong nothing is unknown", |_, world: &World| {
                world.faults > 0 || !world.is_unknown()
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
            Property::always("a message is recorded once, and not lost", |_, world: &World| {
                world.received() <= 1 && (world.received() == 1) == (world.mail == Some(false))
            }),
            Property::sometimes(
                "the answer of a call follows its agent, or none moves",
                |model: &Self, world: &World| model.bounds.moves == 0 || world.has("followed"),
            ),
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
