//! A stopped agent as bytes, and back, on any node.
//!
//! `NXA1`, then CBOR of [`Frozen`], then the first 16 bytes of BLAKE3 over both. Equal agents make equal bytes. A
//! reader refuses a newer format; it needs the module and the first event of the stream, whose arguments and items are
//! not repeated: a list of thousands would be written again with every snapshot.

use std::sync::Arc;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use nexa_event::codec::{self, DecodeError};
use nexa_event::effect::{EffectBody, EffectRequest, Handle};
use nexa_event::fact::{self, Spawned};
use nexa_types::limits::SNAPSHOT_EVERY_EVENTS;
use nexa_types::{AgentId, Failure, Payload};
use nexa_vm::vm::{Program, Vm};

use crate::agent::{Agent, BirthError, Life, check_module};
use crate::brain::Brain;
use crate::coordinator::{Coordinator, Progress};
use crate::handles::Standing;
use crate::ledger::{Kind, Pending};

const MAGIC: [u8; 4] = *b"NXA1";
const CHECK_LEN: usize = 16;

/// The format that this build writes. It reads every lower one.
const FORMAT: u16 = 1;

/// An event is worth about so many bytes of a snapshot: reading and replaying it costs what writing those costs.
const SNAPSHOT_BYTES_PER_EVENT: u64 = 1 << 10;

/// Whether an agent is worth a new snapshot, so many events after its last one of so many bytes.
///
/// A snapshot of a coordinator grows with all that its children gave. Taken after a fixed number of events, the bytes of
/// all of them would grow with the square of the list; so they are at most a fixed number for each event, and the events
/// to replay after a restart are worth no more than the snapshot itself.
pub fn snapshot_is_due(events: u64, last_bytes: usize) -> bool {
    events >= SNAPSHOT_EVERY_EVENTS.max(last_bytes as u64 / SNAPSHOT_BYTES_PER_EVENT)
}

/// Why a snapshot cannot be used. The stream is the truth: replay it from the start instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// They are no snapshot, or were changed.
    #[error("the snapshot of the agent is damaged: {detail}")]
    Damaged {
        /// How it was noticed.
        detail: String,
    },
    /// A newer build wrote it.
    #[error("the snapshot has format {found}, this build reads up to {FORMAT}; upgrade this node first")]
    NewerFormat {
        /// The format of the bytes.
        found: u16,
    },
    /// The module is another one.
    #[error(transparent)]
    Module(#[from] BirthError),
}

/// Everything that an agent is.
#[derive(Debug, Encode, Decode)]
struct Frozen {
    #[n(0)]
    format: u16,
    #[n(1)]
    id: AgentId,
    /// As [`outline`] leaves it; earlier builds wrote it whole.
    #[n(2)]
    born: Spawned,
    #[n(3)]
    life: Life,
    #[n(4)]
    brain: FrozenBrain,
}

#[derive(Debug, Encode, Decode)]
enum FrozenBrain {
    /// The VM's own snapshot.
    #[n(0)]
    Vm(#[n(0)] ByteVec),
    #[n(1)]
    List(#[n(0)] Progress),
    #[n(2)]
    Broken(#[n(0)] Failure),
    #[n(3)]
    Gone,
}

impl Agent {
    /// The agent as bytes, as of [`Agent::version`]. Take it between steps, when everything decided is stored.
    pub fn snapshot(&self) -> Vec<u8> {
        let brain = match &self.brain {
            Brain::Vm(vm) => FrozenBrain::Vm(vm.snapshot().into()),
            Brain::List(list) => FrozenBrain::List(list.progress().clone()),
            Brain::Broken(failure) => FrozenBrain::Broken(failure.clone()),
            Brain::Gone => FrozenBrain::Gone,
        };
        let (born, life) = (outline(&self.born), self.life.clone());
        let mut bytes = MAGIC.to_vec();
        bytes.extend(codec::encode(&Frozen { format: FORMAT, id: self.id, born, life, brain }));
        let check = blake3::hash(&bytes);
        bytes.extend(&check.as_bytes()[..CHECK_LEN]);
        bytes
    }

    /// The agent that a snapshot was taken of, given the first event of its stream; later ones are then fed to
    /// [`Agent::replay`].
    ///
    /// # Errors
    /// [`SnapshotError`] for anything but an unchanged snapshot of an agent of this module that was born so.
    pub fn restore(bytes: &[u8], first: &Spawned, program: Arc<Program>) -> Result<Self, SnapshotError> {
        let damaged = |detail: &str| SnapshotError::Damaged { detail: detail.to_owned() };
        let end = bytes.len().checked_sub(CHECK_LEN).ok_or_else(|| damaged("it is too short"))?;
        let (content, check) = bytes.split_at(end);
        let body = content.strip_prefix(&MAGIC).ok_or_else(|| damaged("it does not begin as one"))?;
        if blake3::hash(content).as_bytes()[..CHECK_LEN] != *check {
            return Err(damaged("its checksum does not fit"));
        }
        thaw(body, first, program)
    }
}

/// A first event without what it hands over.
fn outline(born: &Spawned) -> Spawned {
    let program = match &born.program {
        fact::Program::Function { module, entry, .. } => {
            fact::Program::Function { module: *module, entry: *entry, args: Payload::new([].as_slice()) }
        }
        fact::Program::List { module, on_failure, .. } => {
            fact::Program::List { module: *module, items: Vec::new(), on_failure: *on_failure, turns: None }
        }
    };
    let Spawned { workload, name, parent, budget, deadline, seed, depth, priority, asks, program: _ } = born;
    Spawned {
        workload: *workload,
        name: name.clone(),
        parent: *parent,
        program,
        budget: *budget,
        deadline: *deadline,
        seed: *seed,
        depth: *depth,
        priority: *priority,
        asks: asks.clone(),
    }
}

fn thaw(body: &[u8], first: &Spawned, program: Arc<Program>) -> Result<Agent, SnapshotError> {
    // The format first, or a newer snapshot would only seem damaged.
    let found = first_number(body).map_err(damage)?;
    if found > FORMAT {
        return Err(SnapshotError::NewerFormat { found });
    }
    let Frozen { id, born, life, brain, .. } = codec::decode(body).map_err(damage)?;
    check_module(&born, &program)?;
    if outline(&born) != outline(first) {
        return Err(damage("it is of an agent that was born otherwise"));
    }
    let born = first.clone();
    let brain = match (brain, &born.program) {
        (FrozenBrain::Vm(bytes), fact::Program::Function { .. }) => {
            Brain::Vm(Box::new(Vm::restore(program, &bytes).map_err(damage)?))
        }
        (FrozenBrain::List(progress), fact::Program::List { items, on_failure, turns, .. }) => {
            let list = Coordinator::restore(items.clone(), *on_failure, turns.as_deref(), progress);
            Brain::List(Box::new(list.ok_or_else(|| damage("it is of another list"))?))
        }
        (FrozenBrain::Broken(failure), _) => Brain::Broken(failure),
        (FrozenBrain::Gone, _) => Brain::Gone,
        (FrozenBrain::Vm(_) | FrozenBrain::List(_), _) => return Err(damage("its brain is of another kind")),
    };
    let agent = Agent::assemble(id, born, brain, life);
    if agent.is_sound() { Ok(agent) } else { Err(damage("its parts contradict each other")) }
}

impl Agent {
    /// Whether what it waits for, its brain and its meters agree, and no counter is near its end, so that whatever
    /// comes next finds a state that some life could have led to.
    fn is_sound(&self) -> bool {
        const FAR: u64 = u64::MAX / 2;
        let life = &self.life;
        let counters = [life.version.0, life.epoch.0, life.adoptions, life.reissued.into(), self.born.depth.into()];
        let waits = match (&self.brain, &life.pending) {
            (Brain::Vm(vm), pending) => match (pending, vm.pending()) {
                (None, None) => true,
                (Some(pending), Some(request)) => self.fits(pending, &request) && !life.computing,
                _ => false,
            },
            (Brain::List(_) | Brain::Broken(_), pending) => pending.is_none(),
            (Brain::Gone, pending) => pending.is_none() && !life.computing,
        };
        let ended = (life.end.is_some() || life.concluded.is_some()) == matches!(self.brain, Brain::Gone);
        // It ends with the last of those that it waits for.
        let waits_detached = life.concluded.is_none() || (life.end.is_none() && life.families.has_detached());
        let far = |counter: u64| counter < FAR;
        let list = match &self.brain {
            Brain::List(list) => far(list.next().0),
            _ => true,
        };
        waits
            && ended
            && waits_detached
            && list
            && counters.into_iter().all(far)
            && life.families.are_sound()
            && life.mailbox.is_sound()
            && life.meter.is_sound()
    }

    fn fits(&self, pending: &Pending, request: &EffectRequest) -> bool {
        let life = &self.life;
        match (pending, &request.body) {
            (Pending::Outside(outside), body) => {
                let kind = match body {
                    EffectBody::Model(_) => Some(Kind::Model),
                    EffectBody::Approval(_) => Some(Kind::Approval),
                    EffectBody::Recall(_) => Some(Kind::Memory),
                    EffectBody::Tool(_) => Some(Kind::Tool),
                    _ => None,
                };
                let was_started = outside.attempt > 0 || outside.started.is_none();
                outside.seq == request.seq
                    && Some(outside.kind) == kind
                    && was_started
                    && outside.attempt < u32::MAX / 2
            }
            (Pending::Timer { seq, .. }, EffectBody::Sleep(_)) => *seq == request.seq,
            (Pending::Children { seq }, EffectBody::Children { branches, .. }) => {
                *seq == request.seq && self.life.families.has_unfinished_of(*seq, branches.len())
            }
            (Pending::Test { seq }, EffectBody::Test(_)) => *seq == request.seq,
            (Pending::Timer { seq, due }, EffectBody::Await(Handle { agent: None, seq: timer })) => {
                *seq == request.seq && life.timers.get(timer) == Some(due)
            }
            (Pending::Ending { seq, child }, EffectBody::Await(Handle { agent: Some(agent), seq: of })) => {
                let standing = life.families.standing(*child, *agent);
                *seq == request.seq && child == of && matches!(standing, Standing::Running(_) | Standing::Ending)
            }
            (Pending::Message { seq, .. }, EffectBody::Receive { .. }) => {
                *seq == request.seq && life.mailbox.is_empty()
            }
            (Pending::Room { seq, child }, EffectBody::Send { to: Handle { agent: Some(agent), seq: of }, .. }) => {
                let runs = matches!(life.families.standing(*child, *agent), Standing::Running(_));
                *seq == request.seq && child == of && runs && !life.families.has_room(*child)
            }
            (Pending::Budget { seq }, EffectBody::Model(_) | EffectBody::Children { .. }) => {
                *seq == request.seq && life.families.has_ending()
            }
            (
                Pending::Timer { .. }
                | Pending::Children { .. }
                | Pending::Ending { .. }
                | Pending::Message { .. }
                | Pending::Room { .. }
                | Pending::Test { .. }
                | Pending::Budget { .. },
                _,
            ) => false,
        }
    }
}

fn first_number(body: &[u8]) -> Result<u16, DecodeError> {
    let mut decoder = minicbor::Decoder::new(body);
    decoder.array()?;
    Ok(decoder.u16()?)
}

fn damage(detail: impl ToString) -> SnapshotError {
    SnapshotError::Damaged { detail: detail.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Outside;
    use crate::meter::Meter;
    use nexa_event::fact::Program as Runs;
    use nexa_types::{
        Budget, Epoch, Millis, ModuleHash, Payload, RunCode, Seq, Spend, Timestamp, Tokens, Version, WorkloadId,
    };

    /// Every field at another value than its default, so that none can change its place unnoticed.
    fn frozen() -> Frozen {
        let spend = |tokens| Spend { tokens_in: Tokens(tokens), tokens_out: Tokens(2), calls: 1, ..Spend::default() };
        let budget = Budget { tokens: Some(Tokens(500)), time: Some(Millis(9)), ..Budget::default() };
        let mut meter = Meter::new(budget);
        meter.reserve(&spend(100)).expect("it fits");
        meter.settle(&spend(100), Some(&spend(101)));
        meter.reserve(&spend(7)).expect("it fits");
        meter.set_aside(&Budget { tokens: Some(Tokens(30)), ..Budget::default() });
        let outside = Outside {
            seq: Seq(4),
            kind: Kind::Model,
            reserved: spend(7),
            attempt: 2,
            started: Some(Epoch(3)),
            since: Timestamp(1_001),
            expires: Some(Timestamp(1_002)),
        };
        let (module, args) = (ModuleHash::from_bytes([5; 32]), Payload::new([0x80].as_slice()));
        Frozen {
            format: FORMAT,
            id: AgentId::from_bytes([6; 16]),
            born: Spawned {
                workload: WorkloadId::from_bytes([7; 16]),
                name: "main".to_owned(),
                parent: None,
                program: Runs::Function { module, entry: 8, args },
                budget,
                deadline: Some(Timestamp(2_000)),
                seed: 9,
                depth: 10,
                priority: 11,
                asks: None,
            },
            life: Life {
                epoch: Epoch(3),
                version: Version(12),
                started: Some(Timestamp(1_000)),
                moment: Timestamp(1_001),
                computing: true,
                pending: Some(Pending::Outside(outside)),
                meter,
                waited: Millis(13),
                reissued: 1,
                quarantined: true,
                ..Life::default()
            },
            brain: FrozenBrain::Broken(Failure::new(RunCode::Failed, "golden")),
        }
    }

    #[test]
    fn golden_bytes_of_format_1() {
        let bytes = codec::encode(&frozen());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        expect_test::expect!["85015006060606060606060606060606060606895007070707070707070707070707070707646d61696ef682008358200505050505050505050505050505050505050505050505050505050505050505084180831901f4f6091907d0090a0b8b030c1903e81903e9f582008187040085070200010002031903e91903eaa085831901f4f60985186502000100840900010084181e00000084010000000d01f5820281830066676f6c64656e60"].assert_eq(&hex);
        let read: Frozen = codec::decode(&bytes).expect("this build reads what it writes");
        assert_eq!(codec::encode(&read), bytes);
        assert_eq!(read.life, frozen().life);
    }
}
