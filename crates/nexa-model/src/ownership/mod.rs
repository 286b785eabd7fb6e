//! Who owns an agent: leases, an election, the leader's placing, rights of nodes, and the store's fence.
//!
//! Real, the very code that runs:
//!   - what a leader decides: `nexa_member::leader::Leader`, all of it, with its clocks
//!   - whose word counts for a node: `nexa_member::taken::Taken`; what it takes up: `nexa_runtime::Given::is_meant_by`
//!   - the rights that a node holds, and which rows they cover: `nexa_runtime::Rights`, `Epoch::covers`
//!   - whether a node that read an agent may act by what it read: `nexa_runtime::resume::is_outrun`
//!   - what follows from a refused append: `nexa_runtime::resume::After`
//!   - whether an effect may be sent: `nexa_runtime::fence::may_send`
//!   - what the store accepts: `Guard::admits`, `Place::judge`, `leadership::admits`, which every adapter asks
//!
//! Modelled: the membership service by its promises (MB-1..6); the network, on which a request to the store and an order to a
//! node come late, get lost, or are carried out while their answer gets lost; processes that stand still, are cut off from the
//! service, die, and are started anew under their name while the earlier one may still stand there. Time goes by half seconds.
//!
//! An agent is what matters of it here: its owner records that it takes over and that an effect is started, in one append, then
//! sends the effect. What reads rows is answered at once, and a leader's check with it.
//!
//! Within a half second everything comes in any order; whatever takes longer is trouble. Trouble is bounded by
//! [`Bounds::faults`] and ends at [`Bounds::calm_at`], so that at [`Bounds::ends_at`] everything must be in order.
//!
//! Not here: cancels, moves for balance, and what the ledger makes of an effect that was sent (see `ledger`).

mod process;
mod world;

use nexa_types::{Millis, Timestamp};
use stateright::{Model, Property};

pub use self::world::World;

/// How long time stands between two looks.
pub const STEP: Millis = Millis(500);
/// A lease ends so long after it was renewed last.
const TERM: Millis = Millis(1_500);
/// And counts so much shorter for its holder, as with etcd.
const MARGIN: Millis = Millis(500);

/// What of the code is left out, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// The store takes an append under any epoch.
    StoreFence,
    /// The store takes the word of a leader of earlier.
    LeaderFence,
    /// A node sends whether its lease counts or not.
    LeaseFence,
    /// An effect is sent before its start is recorded.
    SendFirst,
    /// Leases end for others while they count for their holders.
    EarlyEnd,
    /// A node believes every row that has its name.
    AnyRow,
    /// A node acts by the right of whoever took the agent over while it read.
    Outrun,
    /// A leader gives away what it read of a node that is gone by its list, and does not ask whether a new run of it is there.
    OldNews,
}

impl Plant {
    /// All of them, by the names that people type.
    pub const ALL: [(&'static str, Self); 8] = [
        ("store-fence", Self::StoreFence),
        ("leader-fence", Self::LeaderFence),
        ("lease-fence", Self::LeaseFence),
        ("send-first", Self::SendFirst),
        ("early-end", Self::EarlyEnd),
        ("any-row", Self::AnyRow),
        ("outrun", Self::Outrun),
        ("old-news", Self::OldNews),
    ];
}

/// How large a world.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Nodes.
    pub nodes: usize,
    /// Processes that are started in place of others.
    pub restarts: usize,
    /// How often anything goes wrong.
    pub faults: u8,
    /// From then on nothing does.
    pub calm_at: Timestamp,
    /// When all must be in order.
    pub ends_at: Timestamp,
}

impl Bounds {
    /// Small enough for each test run.
    pub const SMALL: Self =
        Self { nodes: 2, restarts: 1, faults: 1, calm_at: Timestamp(2_500), ends_at: Timestamp(9_500) };
    /// For a longer look.
    pub const LARGE: Self =
        Self { nodes: 2, restarts: 1, faults: 2, calm_at: Timestamp(3_000), ends_at: Timestamp(10_000) };
}

/// The model.
#[derive(Debug, Clone, Copy)]
pub struct Ownership {
    /// How large.
    pub bounds: Bounds,
    /// With what left out.
    pub plant: Option<Plant>,
}

/// What may happen next. Processes by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Half a second passes.
    Tick,
    /// A request or an answer arrives, by its place among those under way.
    Deliver(usize),
    /// It gets lost.
    Lose(usize),
    /// Time goes on without it.
    Delay(usize),
    /// A request is carried out, and its answer gets lost.
    Blind(usize),
    /// A process hears from the service who is there and who leads.
    Learn(usize),
    /// The service has somebody lead.
    Elect(usize),
    /// A process does what is next for its agent.
    Act(usize),
    /// A process stands still.
    Pause(usize),
    /// It goes on.
    Resume(usize),
    /// The service does not hear it any more, nor it the service.
    Cut(usize),
    /// They hear each other again.
    Heal(usize),
    /// A process dies.
    Crash(usize),
    /// Others have found that it is dead, and end its lease.
    EndLease(usize),
    /// A process is started under the name of this node.
    Start(usize),
}

impl Model for Ownership {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.bounds)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(&self.bounds, self.plant, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.act(&self.bounds, self.plant, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("ST-2: no record below the highest epoch is accepted", |_, world: &World| {
                !world.has("stale record")
            }),
            Property::always("records of one epoch are of one process", |_, world: &World| {
                !world.has("two of one epoch")
            }),
            Property::always(
                "AG-1: an effect is not started under an epoch after it was under a later one",
                |_, world: &World| !world.has("started late"),
            ),
            Property::always("RT-1: nothing is sent before the store has accepted its start", |_, world: &World| {
                !world.has("sent unrecorded")
            }),
            Property::always(
                "without a lease only what was accepted within the last second is sent",
                |_, world: &World| !world.has("sent without lease"),
            ),
            Property::always("while its lease counts nobody else has what it sends", |_, world: &World| {
                !world.has("sent beside the owner")
            }),
            Property::always("the same of a run in place of another", |_, world: &World| {
                !(world.has("sent beside by a new run") || world.has("taken from a new run"))
            }),
            Property::always("LD-1: an earlier leader changes nothing", |_, world: &World| {
                !world.has("earlier leader")
            }),
            Property::always("LE-3: nothing is taken from who is there", |_, world: &World| {
                !world.has("taken from the living")
            }),
            Property::always(
                "LE-6: once faults stop, the agent has an owner that knows it",
                |model: &Self, world: &World| world.is_settled(&model.bounds),
            ),
            Property::sometimes("the agent is taken over and goes on elsewhere", |_, world: &World| world.has_moved()),
            Property::sometimes("a stale append is refused", |_, world: &World| world.has("refused: stale")),
            Property::sometimes("an earlier leader is refused", |_, world: &World| world.has("refused: leader")),
            Property::sometimes("a start whose lease is over is sent by the store's word", |_, world: &World| {
                world.has("sent by ticket")
            }),
            Property::sometimes("an effect is held back for want of a lease", |_, world: &World| {
                world.has("held back")
            }),
        ]
    }
}
