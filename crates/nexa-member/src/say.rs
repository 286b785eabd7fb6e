//! What nodes say to each other about who is there and whose agents are whose.
//!
//! Bodies of messages, in CBOR. A field that came later is optional, and one that is not known is skipped, so nodes of two
//! builds understand each other. Lists are bounded: what is longer is not read ([`read`]).

use minicbor::{Decode, Encode};
use nexa_event::asks::Asks;
use nexa_event::envelope::TraceContext;
use nexa_types::{AgentId, EffectKey, Epoch, Generation, Millis, NodeId, PrincipalId, Timestamp};

/// Agents in one message. A sender splits what is more.
pub const AGENTS_MAX: usize = 512;
/// Suspects in one heartbeat. Of more, the first by name are told.
pub const SUSPECTS_MAX: usize = 64;
/// Bytes of one message.
pub const BYTES_MAX: usize = 256 << 10;

/// How much a node has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Load {
    /// Agents that are its own, live and dormant.
    #[n(0)]
    pub agents: u64,
    /// Of these, in memory.
    #[n(1)]
    pub live: u64,
    /// Of these, computing or waiting for a model or a tool.
    #[n(2)]
    pub at_work: u64,
    /// Agents that wait for a thread to compute.
    #[n(3)]
    pub run_queue: u64,
    /// Model calls under way.
    #[n(4)]
    pub model_calls: u64,
    /// The part of its processors in use, in millionths.
    #[n(5)]
    pub cpu: u64,
    /// The part of its memory in use, in millionths.
    #[n(6)]
    pub memory: u64,
    /// How late its runtime is.
    #[n(7)]
    pub lag: Millis,
    /// Answers that no agent has recorded yet.
    #[n(8)]
    pub unrecorded: u64,
    /// Whether it is on its way out.
    #[n(9)]
    pub is_draining: bool,
    /// Births that were asked of it since it began, whether it had room for them or not. Builds that do not count them do
    /// not say.
    #[n(10)]
    pub births: Option<u64>,
}

/// How many agents a run of a node has taken up by the word of one leader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Adopted {
    /// The leader's epoch.
    #[n(0)]
    pub leader: Epoch,
    /// How many agents, each message counted once.
    #[n(1)]
    pub agents: u64,
}

/// Up to how many agents of its own a node may let agents be born on itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Slice {
    /// The epoch of the leader that says so; a lower one than heard before says nothing.
    #[n(0)]
    pub leader: Epoch,
    /// Agents of the node, those counted that it has already. Stays until the next word.
    #[n(1)]
    pub level: u64,
}

/// A sign of life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Heartbeat {
    /// How much the sender has to do.
    #[n(0)]
    pub load: Load,
    /// For how long its own lease still counts.
    #[n(1)]
    pub lease_left: Millis,
    /// Whom the sender has not heard for too long.
    #[n(2)]
    pub suspects: Vec<(NodeId, Generation)>,
    /// Whether it takes itself for cut off.
    #[n(3)]
    pub is_lonely: bool,
    /// What it has taken up by the word of the leader that it knows.
    #[n(4)]
    pub adopted: Adopted,
    /// The receiver's slice, if the sender leads.
    #[n(5)]
    pub slice: Option<Slice>,
    /// The format of stored bytes that the sender writes; see [`crate::floor`]. Builds that know only one do not say.
    #[n(6)]
    pub format: Option<u16>,
}

/// That somebody should look.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Hint {
    /// These agents of the receiver have something to do.
    #[n(0)]
    Wake(#[n(0)] Vec<AgentId>),
    /// Agents were born without an owner: whoever leads should look for them.
    #[n(1)]
    Unplaced,
}

/// An agent's right as a row has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Held {
    /// The agent.
    #[n(0)]
    pub agent: AgentId,
    /// The row's epoch.
    #[n(1)]
    pub epoch: Epoch,
    /// Whether its workload was cancelled, which has raised the epoch by one.
    #[n(2)]
    pub is_cancelled: bool,
}

/// What a leader wants of a node. Each is answered by a [`Done`], or refused by one who knows a later leader.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Order {
    /// These agents are the receiver's. Repeated until it is answered; the second time changes nothing.
    #[n(0)]
    Placed {
        /// The leader's epoch.
        #[n(0)]
        leader: Epoch,
        /// Tells repetitions from news.
        #[n(1)]
        number: u64,
        /// Agents, each with the epoch under which the receiver owns it.
        #[n(2)]
        agents: Vec<(AgentId, Epoch)>,
        /// For which run of the receiver it is meant.
        #[n(3)]
        run: Generation,
        /// What the agents' next turns are to be linked with.
        #[n(4)]
        trace: Option<TraceContext>,
    },
    /// By their rows these agents are the receiver's: which of them does it not hold?
    #[n(1)]
    Check {
        /// The leader's epoch.
        #[n(0)]
        leader: Epoch,
        /// The agents as their rows were read.
        #[n(1)]
        agents: Vec<Held>,
        /// For which run of the receiver it is meant.
        #[n(2)]
        run: Generation,
    },
    /// This agent of the receiver is to move.
    #[n(2)]
    Release {
        /// The leader's epoch.
        #[n(0)]
        leader: Epoch,
        /// The agent.
        #[n(1)]
        agent: AgentId,
        /// Where it goes.
        #[n(2)]
        to: NodeId,
        /// For which run of the receiver it is meant.
        #[n(3)]
        run: Generation,
    },
}

impl Order {
    /// Whose order it is.
    #[must_use]
    pub fn leader(&self) -> Epoch {
        match self {
            Self::Placed { leader, .. } | Self::Check { leader, .. } | Self::Release { leader, .. } => *leader,
        }
    }

    /// For which run of the receiver it is meant; any other refuses it.
    #[must_use]
    pub fn run(&self) -> Generation {
        match self {
            Self::Placed { run, .. } | Self::Check { run, .. } | Self::Release { run, .. } => *run,
        }
    }
}

/// What became of an [`Order`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Done {
    /// The agents are taken up, now or from before.
    #[n(0)]
    Adopted,
    /// These are not held under the epoch asked about.
    #[n(1)]
    Missing(#[n(0)] Vec<AgentId>),
    /// The agent is the other node's.
    #[n(2)]
    Released,
}

/// Who goes on with an effect of an agent that has moved.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Carrier {
    /// The node that sent it.
    #[n(0)]
    pub node: NodeId,
    /// The effect's key.
    #[n(1)]
    pub key: EffectKey,
    /// Which sending.
    #[n(2)]
    pub attempt: u32,
    /// Nobody waits for the answer after this.
    #[n(3)]
    pub deadline: Timestamp,
    /// Which run of the node, if the sender knows.
    #[n(4)]
    pub run: Option<Generation>,
}

/// An agent that has moved to the receiver. Said by who had it, until it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Moved {
    /// The agent.
    #[n(0)]
    pub agent: AgentId,
    /// The receiver's right.
    #[n(1)]
    pub epoch: Epoch,
    /// Who goes on with what it has in flight.
    #[n(2)]
    pub carrier: Option<Carrier>,
    /// For which run of the receiver it is meant.
    #[n(3)]
    pub run: Generation,
    /// Its last turn where it comes from.
    #[n(4)]
    pub trace: Option<TraceContext>,
}

/// What a person wants of whoever leads.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// A node takes nothing new, or does again.
    #[n(0)]
    Cordon {
        /// The node.
        #[n(0)]
        node: NodeId,
        /// Whether it takes nothing new.
        #[n(1)]
        on: bool,
    },
    /// A node takes nothing new, and what it has moves away.
    #[n(1)]
    Drain {
        /// The node.
        #[n(0)]
        node: NodeId,
    },
    /// An agent moves.
    #[n(2)]
    Migrate {
        /// The agent.
        #[n(0)]
        agent: AgentId,
        /// Its owner by its row.
        #[n(1)]
        from: NodeId,
        /// Where it goes; the leader chooses if nobody says.
        #[n(2)]
        to: Option<NodeId>,
        /// What it asks of its node by its row, if anything.
        #[n(3)]
        asks: Option<Asks>,
    },
    /// Agents move from nodes with more than their share to those with less.
    #[n(3)]
    Rebalance,
    /// A newer format of stored bytes is announced, and then written; see [`crate::floor`].
    #[n(4)]
    RaiseFormat {
        /// Which.
        #[n(0)]
        format: u16,
        /// Who wants it.
        #[n(1)]
        by: PrincipalId,
    },
}

/// What became of a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Answered {
    /// Why it is not carried out, if it is not.
    #[n(0)]
    pub refused: Option<Refused>,
}

/// Why a command is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Refused {
    /// This node does not lead, or does not yet.
    #[n(0)]
    #[error("this node does not lead; ask again in a moment")]
    NotLeading,
    /// There is no such node.
    #[n(1)]
    #[error("there is no such node in the cluster; see `nexa nodes`")]
    NoSuchNode,
    /// The node takes nothing new.
    #[n(2)]
    #[error("the node takes no agents now: it is cordoned, draining, silent or full")]
    NotOpen,
    /// No node takes it.
    #[n(3)]
    #[error("no other node takes the agent now: each is cordoned, draining, silent or full")]
    NoRoom,
    /// The agent is on its way already, or as many as may leave its node.
    #[n(4)]
    #[error("as many agents as may move at a time do so already, or this one does; try again in a moment")]
    Busy,
    /// It was tried and failed.
    #[n(5)]
    #[error("it was tried and did not work; see the log of the node that leads")]
    Failed,
    /// No other node, or not the one that is wanted, has what the agent asks for.
    #[n(6)]
    #[error("the node lacks what the agent asks for by its labels or needs, or no other node has it")]
    Lacks,
    /// A node does not read the format that is to be written.
    #[n(7)]
    #[error("node {node} reads formats up to {newest}")]
    Unread {
        /// The node.
        #[n(0)]
        node: NodeId,
        /// The newest format that it reads.
        #[n(1)]
        newest: u16,
    },
}

/// The bytes of a message.
pub fn write<T: Encode<()>>(message: &T) -> Vec<u8> {
    minicbor::to_vec(message).expect("writing into memory does not fail")
}

/// A message from its bytes.
///
/// # Errors
/// What is wrong with them, for a log line.
pub fn read<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, String> {
    if bytes.len() > BYTES_MAX {
        return Err(format!("a message of {} bytes, more than the {BYTES_MAX} that fit", bytes.len()));
    }
    minicbor::decode(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(n: u8) -> AgentId {
        AgentId::from_slice(&[n; 16]).expect("sixteen bytes")
    }

    #[test]
    fn what_is_written_is_read() {
        let node: NodeId = "a".parse().expect("a name");
        let orders = [
            Order::Placed {
                leader: Epoch(7),
                number: 3,
                agents: vec![(agent(1), Epoch(2))],
                run: Generation(5),
                trace: None,
            },
            Order::Check {
                leader: Epoch(7),
                agents: vec![Held { agent: agent(1), epoch: Epoch(2), is_cancelled: true }],
                run: Generation(5),
            },
            Order::Release { leader: Epoch(7), agent: agent(1), to: node.clone(), run: Generation(5) },
        ];
        for order in orders {
            assert_eq!(read(&write(&order)), Ok(order));
        }
        let beat = Heartbeat {
            load: Load { agents: 5, ..Load::default() },
            suspects: vec![(node, Generation(4))],
            slice: Some(Slice { leader: Epoch(7), level: 9 }),
            format: Some(2),
            ..Heartbeat::default()
        };
        assert_eq!(read(&write(&beat)), Ok(beat));
        let raise = Command::RaiseFormat { format: 2, by: PrincipalId::local() };
        assert_eq!(read(&write(&raise)), Ok(raise));
        let answered = Answered { refused: Some(Refused::Unread { node: "a".parse().expect("a name"), newest: 1 }) };
        assert_eq!(read(&write(&answered)), Ok(answered));
    }

    fn trace() -> TraceContext {
        TraceContext { trace: [0xAB; 16], span: [0xCD; 8] }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Bytes of messages with and without what came later. They never change: what is new is a new line.
    #[test]
    fn messages_of_builds_without_traces_are_read_and_written_as_they_were() {
        let placed = |trace| Order::Placed {
            leader: Epoch(7),
            number: 3,
            agents: vec![(agent(1), Epoch(2))],
            run: Generation(5),
            trace,
        };
        let carrier = Carrier {
            node: "a".parse().expect("a name"),
            key: EffectKey::from_bytes([9; 32]),
            attempt: 1,
            deadline: Timestamp(6),
            run: None,
        };
        let moved = |trace| Moved {
            agent: agent(1),
            epoch: Epoch(2),
            carrier: Some(carrier.clone()),
            run: Generation(5),
            trace,
        };
        let orders = [
            (placed(None), "8200840703818250010101010101010101010101010101010205"),
            (
                placed(Some(trace())),
                "82008507038182500101010101010101010101010101010102058250abababababababababababababababab48cdcdcdcdcdcdcdcd",
            ),
        ];
        for (order, golden) in orders {
            assert_eq!(hex(&write(&order)), golden);
            assert_eq!(read(&write(&order)), Ok(order));
        }
        let moves = [
            (
                moved(None),
                "8450010101010101010101010101010101010284616158200909090909090909090909090909090909090909090909090909090909090909010605",
            ),
            (
                moved(Some(trace())),
                "85500101010101010101010101010101010102846161582009090909090909090909090909090909090909090909090909090909090909090106058250abababababababababababababababab48cdcdcdcdcdcdcdcd",
            ),
        ];
        for (moved, golden) in moves {
            assert_eq!(hex(&write(&moved)), golden);
            assert_eq!(read(&write(&moved)), Ok(moved));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert!(read::<Order>(b"").is_err());
        assert!(read::<Order>(&[0xff; 64]).is_err());
        assert!(read::<Hint>(&vec![0; BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn the_longest_messages_fit() {
        let agents = vec![(agent(255), Epoch(u64::MAX)); AGENTS_MAX];
        assert!(
            write(&Order::Placed {
                leader: Epoch(u64::MAX),
                number: u64::MAX,
                agents,
                run: Generation(u64::MAX),
                trace: Some(trace())
            })
            .len()
                <= BYTES_MAX
        );
    }
}
