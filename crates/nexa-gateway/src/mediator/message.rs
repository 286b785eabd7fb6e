//! Commands, queries and their replies, as types.
//!
//! Every message is a plain struct; [`Ask`] ties it to its answer, so that a caller in the same process gets exactly that
//! type back. Parts that may be large are shared, so that trying a command again copies nothing.

use std::sync::Arc;

use bytes::Bytes;
use nexa_event::fact::OnFailure;
use nexa_lang::AgentSpec;
use nexa_paging::FoundMessage;
use nexa_ports::view::{HistoryHit, Listed, Page};
use nexa_types::{
    AgentId, AgentState, Budget, EffectKey, GlobalSeq, ModuleHash, NodeId, RequestId, Seq, WorkloadId, WorkloadState,
};
use nexa_view::{AgentView, ApprovalView, ProgramView, WorkloadView};

use crate::fleet::{FormatsView, NodeView};

use super::memory::{ExportMemory, Forget, ListPages, MemoryStats, PagesListed, Rebuild, Recall, Recollected, Stats};
use super::operating::{Cordon, Drain, ListFormats, ListNodes, Migrate, RaiseFormat, Rebalance, WatchNodes};
use super::reply::{AgentSnapshot, Frames, Planned, ProgramInfo, ProgramPut, Submitted};

/// Something to do or to tell.
#[derive(Debug, Clone)]
pub enum Message {
    /// Changes something: once per request id, or until it is as it is to be.
    Command(Command),
    /// Changes nothing.
    Query(Query),
}

macro_rules! messages {
    ($($kind:ident { $($(#[$doc:meta])* $name:ident -> $reply:ident($answer:ty),)* })*) => {
        $(messages!(@kind $kind { $($(#[$doc])* $name,)* });)*

        /// What a message was answered with.
        #[derive(Debug)]
        pub enum Reply { $($(#[doc = concat!("To [`", stringify!($name), "`].")] $reply($answer),)*)* }

        $($(
            impl Ask for $name {
                type Answer = $answer;

                fn answer(reply: Reply) -> Option<Self::Answer> {
                    match reply { Reply::$reply(answer) => Some(answer), _ => None }
                }
            }
        )*)*

        impl Message {
            /// The message's name, for logs.
            pub fn name(&self) -> &'static str {
                match self { $($(Self::$kind($kind::$name(_)) => stringify!($name),)*)* }
            }
        }
    };
    (@kind Command { $($(#[$doc:meta])* $name:ident,)* }) => {
        /// Something to do.
        #[derive(Debug, Clone)]
        pub enum Command { $($(#[$doc])* $name($name),)* }
        $(impl From<$name> for Message {
            fn from(message: $name) -> Self { Self::Command(Command::$name(message)) }
        })*
    };
    (@kind Query { $($(#[$doc:meta])* $name:ident,)* }) => {
        /// Something to tell.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Query { $($(#[$doc])* $name($name),)* }
        $(impl From<$name> for Message {
            fn from(message: $name) -> Self { Self::Query(Query::$name(message)) }
        })*
    };
}

messages! {
    Command {
        /// Keep a program.
        PutProgram -> ProgramPut(ProgramPut),
        /// Run a workload.
        Submit -> Submitted(Submitted),
        /// End a workload.
        Cancel -> Cancelled(()),
        /// Give an agent a message.
        SendMessage -> Sent(()),
        /// Answer an approval.
        AnswerApproval -> Answered(()),
        /// Move an agent to another node.
        Migrate -> Migrated(NodeId),
        /// Keep new agents away from a node.
        Cordon -> Cordoned(()),
        /// Move every agent of a node away.
        Drain -> Draining(()),
        /// Even out the load of the nodes.
        Rebalance -> Rebalanced(()),
        /// Write a newer format.
        RaiseFormat -> FormatRaised(()),
        /// Forget what an agent remembers.
        Forget -> Forgotten(u64),
        /// Make pages again from the log.
        Rebuild -> Rebuilt(GlobalSeq),
    }
    Query {
        /// What a kept program offers.
        GetProgram -> Program(ProgramInfo),
        /// The kept programs.
        ListPrograms -> Programs(Listed<ProgramView>),
        /// What has become of a workload.
        GetWorkload -> Workload(WorkloadView),
        /// What of a workload runs when.
        GetPlan -> Plan(Planned),
        /// The workloads.
        ListWorkloads -> Workloads(Listed<WorkloadView>),
        /// A workload, as it goes on.
        WatchWorkload -> WorkloadFrames(Frames),
        /// What has become of an agent.
        GetAgent -> Agent(AgentView),
        /// The agents.
        ListAgents -> Agents(Listed<AgentView>),
        /// An agent, as it goes on.
        WatchAgent -> AgentFrames(Frames),
        /// The newest kept snapshot of an agent.
        Snapshot -> Snapshot(AgentSnapshot),
        /// The approvals that wait.
        ListApprovals -> Approvals(Listed<ApprovalView>),
        /// What was said and done, by words.
        SearchHistory -> History(Listed<HistoryHit>),
        /// The nodes.
        ListNodes -> Nodes(Vec<NodeView>),
        /// The nodes, as they change.
        WatchNodes -> NodeLists(Frames<Vec<NodeView>>),
        /// The formats of what is stored.
        ListFormats -> Formats(FormatsView),
        /// Messages that agents remember, by a query.
        Recall -> Recollected(Recollected),
        /// Pages of an agent.
        ListPages -> Pages(PagesListed),
        /// What an agent remembers, in numbers.
        MemoryStats -> MemoryStats(Stats),
        /// All that an agent remembers.
        ExportMemory -> Exported(Frames<Vec<FoundMessage>>),
    }
}

/// A message that knows the type of its answer.
pub trait Ask: Into<Message> {
    /// What it is answered with.
    type Answer;

    /// Takes the answer out of a reply; `None` if it is a reply to something else.
    fn answer(reply: Reply) -> Option<Self::Answer>;
}

impl Message {
    /// Whether it is answered with a stream that lasts as long as what it shows.
    pub fn is_watch(&self) -> bool {
        matches!(self, Self::Query(Query::WatchWorkload(_) | Query::WatchAgent(_) | Query::WatchNodes(_)))
    }

    /// Whether it is about the cluster and not about a tenant's work.
    pub fn is_for_operators(&self) -> bool {
        match self {
            Self::Command(command) => matches!(
                command,
                Command::Migrate(_)
                    | Command::Cordon(_)
                    | Command::Drain(_)
                    | Command::Rebalance(_)
                    | Command::RaiseFormat(_)
                    | Command::Rebuild(_)
            ),
            Self::Query(query) => {
                matches!(query, Query::ListNodes(_) | Query::WatchNodes(_) | Query::ListFormats(_))
            }
        }
    }

    /// The request id of a command that has one.
    pub fn request(&self) -> Option<RequestId> {
        match self {
            Self::Query(_) => None,
            Self::Command(command) => match command {
                Command::PutProgram(put) => Some(put.request),
                Command::Submit(submit) => Some(submit.request),
                Command::Cancel(cancel) => Some(cancel.request),
                Command::SendMessage(send) => Some(send.request),
                Command::AnswerApproval(answer) => Some(answer.request),
                Command::Migrate(_)
                | Command::Cordon(_)
                | Command::Drain(_)
                | Command::Rebalance(_)
                | Command::RaiseFormat(_)
                | Command::Forget(_)
                | Command::Rebuild(_) => None,
            },
        }
    }
}

/// A program as it comes in.
#[derive(Debug, Clone)]
pub enum ProgramText {
    /// A source text.
    Source {
        /// The file's name, for messages.
        name: String,
        /// The text.
        text: Arc<str>,
    },
    /// A compiled module.
    Module(Bytes),
}

/// Keep a program.
#[derive(Debug, Clone)]
pub struct PutProgram {
    /// The client's id for it.
    pub request: RequestId,
    /// The program.
    pub program: ProgramText,
    /// The name that people see; empty for the source's.
    pub name: String,
}

/// Run a workload.
#[derive(Debug, Clone)]
pub struct Submit {
    /// The client's id for it.
    pub request: RequestId,
    /// What to run.
    pub what: What,
    /// The name that people see; empty for the entry's.
    pub name: String,
    /// 0 to 255, higher first.
    pub priority: u8,
    /// Caps for all agents together.
    pub budget: Budget,
}

/// What a workload runs.
#[derive(Debug, Clone)]
pub enum What {
    /// A program that comes along.
    Program {
        /// The program.
        program: ProgramText,
        /// The flow or agent to start; empty for the only flow, or `main`.
        entry: String,
        /// Its arguments, a JSON object by parameter name; empty for `{}`.
        input: Arc<str>,
    },
    /// A kept program.
    Kept {
        /// Its module.
        module: ModuleHash,
        /// As above.
        entry: String,
        /// As above.
        input: Arc<str>,
    },
    /// Agents that are described in place.
    List {
        /// The agents.
        agents: Arc<[ListedAgent]>,
        /// What the failure of one means for the others.
        on_failure: OnFailure,
    },
}

/// One agent of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedAgent {
    /// What it is, as the compiler takes it.
    pub spec: AgentSpec,
    /// Its input as JSON; empty for `null`.
    pub input: String,
    /// The ids of those that must succeed first.
    pub after: Vec<String>,
}

/// End a workload.
#[derive(Debug, Clone)]
pub struct Cancel {
    /// The client's id for it.
    pub request: RequestId,
    /// Which.
    pub workload: WorkloadId,
    /// Why, for people.
    pub reason: String,
}

/// Give an agent a message.
#[derive(Debug, Clone)]
pub struct SendMessage {
    /// The client's id for it.
    pub request: RequestId,
    /// Whom.
    pub agent: AgentId,
    /// The value as JSON.
    pub value: Arc<str>,
}

/// Answer an approval.
#[derive(Debug, Clone)]
pub struct AnswerApproval {
    /// The client's id for it.
    pub request: RequestId,
    /// Which.
    pub approval: ApprovalId,
    /// Yes or no.
    pub approved: bool,
    /// Why, in the person's words.
    pub note: String,
}

/// Names an approval: the agent that asks, and the number of its effect. Reads and prints as `AGENT/NUMBER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApprovalId {
    /// The agent that asks.
    pub agent: AgentId,
    /// The number of its effect.
    pub seq: Seq,
}

impl std::fmt::Display for ApprovalId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.agent, self.seq)
    }
}

impl ApprovalId {
    /// Reads what was printed.
    pub fn parse(text: &str) -> Option<Self> {
        let (agent, seq) = text.split_once('/')?;
        Some(Self { agent: agent.parse().ok()?, seq: Seq(seq.parse().ok()?) })
    }

    /// The key of the effect.
    pub fn key(&self, workload: WorkloadId) -> EffectKey {
        EffectKey::of(workload, self.agent, self.seq)
    }
}

/// What a kept program offers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GetProgram {
    /// Which.
    pub module: ModuleHash,
}

/// The kept programs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPrograms {
    /// Not before the read model has seen this.
    pub min_seq: GlobalSeq,
    /// Which page.
    pub page: Page,
}

/// What has become of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GetWorkload {
    /// Which.
    pub workload: WorkloadId,
}

/// What of a workload runs when, if it began now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GetPlan {
    /// Which.
    pub workload: WorkloadId,
}

/// The workloads, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListWorkloads {
    /// Which page.
    pub page: Page,
    /// Only those in this state.
    pub state: Option<WorkloadState>,
    /// Not before the read model has seen this.
    pub min_seq: GlobalSeq,
}

/// A workload, as it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WatchWorkload {
    /// Which.
    pub workload: WorkloadId,
    /// From where.
    pub from: WatchFrom,
    /// Whether text is shown while it is written.
    pub chunks: bool,
}

/// Where a watch starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum WatchFrom {
    /// With how things stand.
    #[default]
    Snapshot,
    /// With the first fact.
    Start,
    /// With the first fact after this cursor.
    Cursor(Vec<u8>),
}

/// What has become of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GetAgent {
    /// Which.
    pub agent: AgentId,
}

/// The agents, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListAgents {
    /// Which page.
    pub page: Page,
    /// Only those of this workload.
    pub workload: Option<WorkloadId>,
    /// Only those in one of these states; empty for all.
    pub states: Vec<AgentState>,
    /// Not before the read model has seen this.
    pub min_seq: GlobalSeq,
}

/// An agent, as it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WatchAgent {
    /// Which.
    pub agent: AgentId,
    /// From where.
    pub from: WatchFrom,
    /// Whether text is shown while it is written.
    pub chunks: bool,
}

/// The newest kept snapshot of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// Which.
    pub agent: AgentId,
}

/// The approvals that wait, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListApprovals {
    /// Which page.
    pub page: Page,
    /// Only those of this workload.
    pub workload: Option<WorkloadId>,
    /// Not before the read model has seen this.
    pub min_seq: GlobalSeq,
}

/// What was said and done, by words, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchHistory {
    /// Which page.
    pub page: Page,
    /// All of these must be there.
    pub words: String,
    /// Only in this workload.
    pub workload: Option<WorkloadId>,
    /// Not before the read model has seen this.
    pub min_seq: GlobalSeq,
}
