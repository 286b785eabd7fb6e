//! What happened, by stream.
//!
//! An agent's stream alternates: an input is recorded ([`AgentEvent::is_input`]), and with it, in the same append,
//! what the agent decided because of it. A replay feeds the inputs and must arrive at the same decisions.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use nexa_types::{
    AgentId, Budget, EffectKey, Epoch, Failure, InputId, Millis, ModuleHash, NodeId, Outcome, Payload, RequestId,
    RunCode, Seq, Spend, Timestamp, Version, WorkloadId,
};

use crate::asks::Asks;
use crate::effect::{
    Answer, ApprovalRequest, ChildSpec, Conversation, Join, RecallRequest, Remembered, Risk, Source, ToolEffect,
};

/// What an agent runs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Program {
    /// A function of a module with its arguments, an encoded list.
    #[n(0)]
    Function {
        /// The module.
        #[n(0)]
        module: ModuleHash,
        /// The function's index.
        #[n(1)]
        entry: u32,
        /// The arguments.
        #[n(2)]
        args: Payload,
    },
    /// The built-in coordinator of a submitted list of agents.
    #[n(1)]
    List {
        /// The module that the list was compiled to.
        #[n(0)]
        module: ModuleHash,
        /// The agents, in submission order.
        #[n(1)]
        items: Vec<ListItem>,
        /// What a failure means for the others.
        #[n(2)]
        on_failure: OnFailure,
        /// For each agent its turn: of those that may start, the one whose turn is least is first. Without it they start
        /// as submitted.
        #[n(3)]
        turns: Option<Vec<u32>>,
    },
}

impl Program {
    /// The module that the agent needs.
    pub fn module(&self) -> ModuleHash {
        match self {
            Self::Function { module, .. } | Self::List { module, .. } => *module,
        }
    }
}

/// One agent of a submitted list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ListItem {
    /// The client's name for it, unique in the list.
    #[n(0)]
    pub id: String,
    /// The function that runs it. It takes one argument: the item's input, or, with dependencies, a record
    /// `{ input, results }` where `results` has the value of each dependency by its id.
    #[n(1)]
    pub entry: u32,
    /// The input, an encoded value.
    #[n(2)]
    pub input: Payload,
    /// Indices of the items that must succeed first.
    #[n(3)]
    pub after: Vec<u32>,
    /// Caps of its own.
    #[n(4)]
    pub budget: Budget,
    /// The whole call must end within this.
    #[n(5)]
    pub timeout: Option<Millis>,
    /// What was said of it for scheduling, if anything was.
    #[n(6)]
    pub schedule: Option<ItemSchedule>,
}

/// What a client says of an agent of a list for scheduling. What it does not say is as usual.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct ItemSchedule {
    /// 0 to 255, higher first.
    #[n(0)]
    pub priority: Option<u8>,
    /// How long it is expected to take.
    #[n(1)]
    pub estimate: Option<Millis>,
    /// Its share beside others, in thousandths.
    #[n(2)]
    pub weight_milli: Option<u32>,
    /// Members of one gang start together, or none of them does.
    #[n(3)]
    pub gang: Option<String>,
    /// Cores, in thousandths.
    #[n(4)]
    pub cpu_milli: Option<u32>,
    /// Memory, in bytes.
    #[n(5)]
    pub memory_bytes: Option<u64>,
    /// Model requests that it has under way at a time.
    #[n(6)]
    pub llm_slots: Option<u32>,
    /// Labels that its node must have.
    #[n(7)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// What the failure of one agent of a list means for the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum OnFailure {
    /// Cancel what runs and end as failed.
    #[default]
    #[n(0)]
    FailFast,
    /// Leave out what depends on it, run the rest, end as failed.
    #[n(1)]
    SkipDependents,
    /// Run everything; dependents see the failure in place of a value; end as succeeded.
    #[n(2)]
    Continue,
}

/// The parent of an agent and which of its effects started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Parent {
    /// The parent.
    #[n(0)]
    pub agent: AgentId,
    /// Its effect.
    #[n(1)]
    pub seq: Seq,
    /// Which branch of it.
    #[n(2)]
    pub branch: u32,
}

/// The first event of every agent: all that is needed to run it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Spawned {
    /// The workload that it belongs to.
    #[n(0)]
    pub workload: WorkloadId,
    /// The name that people see.
    #[n(1)]
    pub name: String,
    /// Who started it; `None` for a root.
    #[n(2)]
    pub parent: Option<Parent>,
    /// What it runs.
    #[n(3)]
    pub program: Program,
    /// Its share of the parent's budget, already the tighter of both.
    #[n(4)]
    pub budget: Budget,
    /// It must have ended by then.
    #[n(5)]
    pub deadline: Option<Timestamp>,
    /// The seed of its dice.
    #[n(6)]
    pub seed: u64,
    /// How many agents are above it.
    #[n(7)]
    pub depth: u32,
    /// 0 to 255, higher first.
    #[n(8)]
    pub priority: u8,
    /// What it asks of its node, if anything.
    #[n(9)]
    pub asks: Option<Asks>,
}

/// A fact in an agent's stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum AgentEvent {
    /// Input: it exists. Written by its parent, or by the command that accepted the workload.
    #[n(0)]
    Spawned(#[n(0)] Spawned),
    /// Input: an owner began to run it for the first time.
    #[n(1)]
    Started {
        /// Where.
        #[n(0)]
        node: NodeId,
        /// Under which epoch.
        #[n(1)]
        epoch: Epoch,
    },
    /// Decision: an outside effect is wanted.
    #[n(2)]
    EffectIntended {
        /// Its number.
        #[n(0)]
        seq: Seq,
        /// What it is.
        #[n(1)]
        intent: Intent,
        /// Hash of the request, see [`crate::effect::fingerprint`].
        #[n(2)]
        fingerprint: [u8; 32],
    },
    /// Decision: the ticket to send it. Recorded before it is sent.
    #[n(3)]
    EffectStarted {
        /// Its number.
        #[n(0)]
        seq: Seq,
        /// 1 for the first sending.
        #[n(1)]
        attempt: u32,
        /// Under which epoch.
        #[n(2)]
        epoch: Epoch,
    },
    /// Input: how an outside effect ended.
    #[n(4)]
    EffectEnded {
        /// Its number.
        #[n(0)]
        seq: Seq,
        /// How.
        #[n(1)]
        result: EffectResult,
        /// What all attempts since the last record used.
        #[n(2)]
        spend: Spend,
    },
    /// Decision: children exist. Their first events are in the same append.
    #[n(5)]
    ChildrenSpawned {
        /// Its number.
        #[n(0)]
        seq: Seq,
        /// Whether the agent waits for them.
        #[n(1)]
        join: Join,
        /// The children, in branch order, with the budget that was set aside for each.
        #[n(2)]
        children: Vec<ChildBorn>,
    },
    /// Input: a child ended.
    #[n(6)]
    ChildEnded {
        /// The effect that started it.
        #[n(0)]
        seq: Seq,
        /// Which branch.
        #[n(1)]
        branch: u32,
        /// How it ended; a failure if its result has no room beside those that handles are held of.
        #[n(2)]
        outcome: Outcome,
        /// What it and its children used.
        #[n(3)]
        spend: Spend,
        /// What detached branches of it may use of its grant, if any was detached and has caps.
        #[n(4)]
        handed_over: Option<Budget>,
    },
    /// Decision: wait until then.
    #[n(7)]
    TimerSet {
        /// Its number.
        #[n(0)]
        seq: Seq,
        /// The moment.
        #[n(1)]
        due: Timestamp,
    },
    /// Input: the moment has come.
    #[n(8)]
    TimerFired {
        /// The timer's number.
        #[n(0)]
        seq: Seq,
    },
    /// Decision: something for the client.
    #[n(9)]
    Emitted {
        /// Its number.
        #[n(0)]
        seq: Seq,
        /// The channel.
        #[n(1)]
        channel: String,
        /// The value.
        #[n(2)]
        value: Payload,
    },
    /// Input: a message for it.
    #[n(10)]
    MessageReceived {
        /// The message's id.
        #[n(0)]
        input: InputId,
        /// Who sent it.
        #[n(1)]
        from: String,
        /// The value.
        #[n(2)]
        value: Payload,
        /// Which of its parent's messages it is, from 1; nothing for one from outside.
        #[n(3)]
        number: Option<u64>,
    },
    /// Input: its workload was cancelled, or its parent cancelled it.
    #[n(11)]
    CancelReceived {
        /// Who did, and why.
        #[n(0)]
        reason: String,
    },
    /// Input: its deadline passed.
    #[n(12)]
    DeadlinePassed,
    /// Decision: cancel these children; the cancels are inbox entries of the same append.
    #[n(13)]
    ChildrenCancelled {
        /// Which.
        #[n(0)]
        children: Vec<AgentId>,
    },
    /// Decision: the end, and the last event of the stream.
    #[n(14)]
    Ended {
        /// How.
        #[n(0)]
        outcome: Outcome,
        /// What it and its children used.
        #[n(1)]
        spend: Spend,
    },
    /// Input: nobody runs it any more until a person says so.
    #[n(15)]
    Quarantined {
        /// Why.
        #[n(0)]
        reason: String,
    },
    /// Decision: something is kept in a memory beyond the agent.
    #[n(26)]
    MemoryStored {
        /// Its number.
        #[n(0)]
        seq: Seq,
        /// What is kept, and where.
        #[n(1)]
        entry: Remembered,
    },
    /// Input: a new owner took it over and looked at its effects in flight; or its owner looked at them again, because
    /// the node that carried them is gone.
    #[n(16)]
    TakenOver {
        /// Where.
        #[n(0)]
        node: NodeId,
        /// Under which epoch.
        #[n(1)]
        epoch: Epoch,
        /// The node that sent what is in flight and hands the answer over, so that it is not sent again.
        #[n(2)]
        carried: Option<NodeId>,
    },
    /// Decision: a tool call was in flight when its owner was lost, must not be sent again, and counts as ended with an
    /// unknown outcome.
    #[n(17)]
    EffectLost {
        /// Its number.
        #[n(0)]
        seq: Seq,
    },
    /// Decision: it goes no further before something that it started ends, a message comes, or there is room for one, in
    /// a mailbox or in its budget.
    #[n(18)]
    WaitBegan {
        /// The number of the wait.
        #[n(0)]
        seq: Seq,
        /// What it waits for.
        #[n(1)]
        on: WaitOn,
        /// When it ends by itself.
        #[n(2)]
        due: Option<Timestamp>,
    },
    /// Input: the time of a block is over.
    #[n(19)]
    ScopeExpired {
        /// The effect that began it.
        #[n(0)]
        seq: Seq,
    },
    /// Decision: it goes no further but runs what was deferred, and ends. It was to end while it computed, and does so
    /// instead of making this effect; or there is a `code`.
    #[n(22)]
    Interrupted {
        /// The effect's number.
        #[n(0)]
        seq: Seq,
        /// Why, if nobody told it to: this effect does not fit its budget, or it failed in a way that nothing catches, and
        /// this effect is the first one that was deferred.
        #[n(1)]
        code: Option<RunCode>,
    },
    /// Decision: a message for a child. The message itself is an inbox entry of the same append.
    #[n(20)]
    MessageSent {
        /// Its number.
        #[n(0)]
        seq: Seq,
        /// The child.
        #[n(1)]
        to: AgentId,
        /// Which message to this child it is, from 1.
        #[n(2)]
        number: u64,
    },
    /// Decision: it has taken messages from outside. Those of its parent need no record, as nothing hangs on when they
    /// were taken.
    #[n(21)]
    MailTaken {
        /// The number of the taking.
        #[n(0)]
        seq: Seq,
        /// How many.
        #[n(1)]
        count: u32,
    },
    /// Decision: branches go on without it. Their way to the root of the workload is an inbox entry of the same append.
    #[n(23)]
    Detached {
        /// Its number.
        #[n(0)]
        seq: Seq,
        /// What people call the branches.
        #[n(1)]
        branches: Vec<String>,
    },
    /// Input, of a root: an agent of its workload has detached branches.
    #[n(24)]
    Adopted {
        /// The agent.
        #[n(0)]
        from: AgentId,
        /// How many agents are above the branches.
        #[n(1)]
        depth: u32,
        /// The branches.
        #[n(2)]
        branches: Vec<ChildSpec>,
    },
    /// Decision, of a root: its program has ended. It ends itself with this when all detached branches have.
    #[n(28)]
    Concluded {
        /// How.
        #[n(0)]
        outcome: Outcome,
    },
    /// Decision, of a root: a detached branch has failed, and nobody waits for it who could see that.
    #[n(29)]
    DetachedFailed {
        /// What people call the branch.
        #[n(0)]
        name: String,
        /// Which agent it was, if it was started.
        #[n(1)]
        agent: Option<AgentId>,
        /// Why.
        #[n(2)]
        failure: Failure,
    },
    /// Input: a child has taken messages, so there is room for more.
    #[n(25)]
    CreditReceived {
        /// The effect that started the child.
        #[n(0)]
        seq: Seq,
        /// Which branch of it.
        #[n(1)]
        branch: u32,
        /// How many it has taken in its whole life.
        #[n(2)]
        taken: u64,
    },
}

impl AgentEvent {
    /// Whether it came from outside the agent. All others follow from the inputs before them.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Spawned(_)
            | Self::Started { .. }
            | Self::EffectEnded { .. }
            | Self::ChildEnded { .. }
            | Self::TimerFired { .. }
            | Self::MessageReceived { .. }
            | Self::CancelReceived { .. }
            | Self::DeadlinePassed
            | Self::Quarantined { .. }
            | Self::TakenOver { .. }
            | Self::CreditReceived { .. }
            | Self::Adopted { .. }
            | Self::ScopeExpired { .. } => true,
            Self::EffectIntended { .. }
            | Self::EffectStarted { .. }
            | Self::ChildrenSpawned { .. }
            | Self::TimerSet { .. }
            | Self::Emitted { .. }
            | Self::MemoryStored { .. }
            | Self::ChildrenCancelled { .. }
            | Self::Ended { .. }
            | Self::EffectLost { .. }
            | Self::WaitBegan { .. }
            | Self::MessageSent { .. }
            | Self::MailTaken { .. }
            | Self::Detached { .. }
            | Self::Concluded { .. }
            | Self::DetachedFailed { .. }
            | Self::Interrupted { .. } => false,
        }
    }
}

/// What an agent waits for that is no effect of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum WaitOn {
    /// The end of the child that this effect started.
    #[n(0)]
    Child(#[n(0)] Seq),
    /// A moment.
    #[n(1)]
    Timer,
    /// A message.
    #[n(2)]
    Message,
    /// Room for a message in the mailbox of the child that this effect started.
    #[n(3)]
    Room(#[n(0)] Seq),
    /// What children that were told to end have left of their shares.
    #[n(4)]
    Budget,
}

/// What kind of outside effect, with as much as people and dispatchers must know without the VM.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Intent {
    /// A model request, as the sources that it was assembled from.
    #[n(0)]
    Model {
        /// `provider/name`, or empty for the default.
        #[n(0)]
        model: String,
        /// One a message.
        #[n(1)]
        sources: Vec<Source>,
        /// The most that it may use; reserved until the answer.
        #[n(2)]
        reserved: Spend,
        /// What was heard and sent, of an agent that remembers. Builds that do not know of memory pass over it.
        #[n(3)]
        conversation: Option<Conversation>,
    },
    /// A question to a person.
    #[n(1)]
    Approval(#[n(0)] ApprovalRequest),
    /// A call of a tool.
    #[n(2)]
    Tool {
        /// The tool, as the program calls it.
        #[n(0)]
        tool: String,
        /// Who provides it, for people.
        #[n(1)]
        source: String,
        /// The beginning of the arguments' JSON text, at most [`TOOL_PREVIEW_BYTES_MAX`]; the fingerprint covers all.
        #[n(2)]
        preview: String,
        /// How much harm it can do.
        #[n(3)]
        risk: Risk,
        /// Whether it changes anything outside.
        #[n(4)]
        effect: ToolEffect,
        /// The business key that goes along.
        #[n(5)]
        key: Option<String>,
    },
    /// A look into a memory beyond the agent.
    #[n(4)]
    Recall(#[n(0)] RecallRequest),
}

/// The most bytes of a tool call's arguments that its intent shows.
pub const TOOL_PREVIEW_BYTES_MAX: usize = 1 << 10;

/// How an outside effect ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum EffectResult {
    /// It worked.
    #[n(0)]
    Done(#[n(0)] Answer),
    /// It failed, and provably changed nothing outside, or failing is its answer.
    #[n(1)]
    Failed(#[n(0)] Failure),
    /// It was started and nobody can say how it ended.
    #[n(2)]
    Unknown(#[n(0)] Failure),
}

/// A child that was started.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ChildBorn {
    /// Its id.
    #[n(0)]
    pub agent: AgentId,
    /// What was asked for.
    #[n(1)]
    pub spec: ChildSpec,
    /// What was set aside for it; given back, less what it used, when it ends.
    #[n(2)]
    pub granted: Budget,
}

/// A fact in a workload's stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum WorkloadEvent {
    /// A client asked for it, and it is durable.
    #[n(0)]
    Submitted {
        /// The client's id for the request.
        #[n(0)]
        request: RequestId,
        /// BLAKE3 over the canonical request, so that the id cannot be used for something else.
        #[n(1)]
        request_hash: [u8; 32],
        /// The name that people see.
        #[n(2)]
        name: String,
        /// The root agent.
        #[n(3)]
        root: AgentId,
        /// Its caps.
        #[n(4)]
        budget: Budget,
        /// 0 to 255, higher first.
        #[n(5)]
        priority: u8,
    },
    /// Somebody wants it to end. Written in the transaction that raises the epochs of its agents.
    #[n(1)]
    CancelRequested {
        /// Why.
        #[n(0)]
        reason: String,
    },
    /// Its root agent ended.
    #[n(2)]
    Ended {
        /// How.
        #[n(0)]
        outcome: Outcome,
        /// What all its agents used.
        #[n(1)]
        spend: Spend,
    },
}

/// A fact in a tenant's cluster stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ClusterEvent {
    /// A program was put; the module's bytes are a blob with the same hash.
    #[n(0)]
    ProgramPut {
        /// The module.
        #[n(0)]
        module: ModuleHash,
        /// The blob that holds the module's bytes, debug section and all.
        #[n(1)]
        blob: nexa_types::BlobHash,
        /// The name that people see; the newest one of a name is what the name means.
        #[n(2)]
        name: String,
    },
    /// Somebody wants an agent's conversations not to be remembered, as far as they had come. Here and not in the agent's
    /// stream, because that belongs to its owner and nothing follows its end. Since format 2.
    #[n(1)]
    AgentForgotten {
        /// Whose.
        #[n(0)]
        agent: AgentId,
        /// The last fact of its stream that counts; what it says later is remembered.
        #[n(1)]
        up_to: Version,
    },
}

/// Something that waits for an agent, put there by anybody, taken by its owner's append.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Input {
    /// A child ended.
    #[n(0)]
    ChildEnded {
        /// The effect that started it.
        #[n(0)]
        seq: Seq,
        /// Which branch.
        #[n(1)]
        branch: u32,
        /// How it ended.
        #[n(2)]
        outcome: Outcome,
        /// What it and its children used.
        #[n(3)]
        spend: Spend,
        /// What detached branches of it may use of its grant, if any was detached and has caps.
        #[n(4)]
        handed_over: Option<Budget>,
    },
    /// A person answered an approval.
    #[n(1)]
    Answered {
        /// The effect.
        #[n(0)]
        seq: Seq,
        /// Its key, checked against the ledger.
        #[n(1)]
        key: EffectKey,
        /// How it ended.
        #[n(2)]
        result: EffectResult,
    },
    /// A message.
    #[n(2)]
    Message {
        /// Who sent it.
        #[n(0)]
        from: String,
        /// The value.
        #[n(1)]
        value: Payload,
    },
    /// It must end. Carries the raised epoch, under which only the clean-up may be appended.
    #[n(3)]
    Cancel {
        /// Who did, and why.
        #[n(0)]
        reason: String,
        /// The agent's epoch after the cancel.
        #[n(1)]
        epoch: Epoch,
    },
    /// A message from its parent.
    #[n(4)]
    Passed {
        /// Which of its parent's messages it is, from 1. They come in this order.
        #[n(0)]
        number: u64,
        /// The value.
        #[n(1)]
        value: Payload,
    },
    /// An agent of the workload has detached branches: the root starts them.
    #[n(6)]
    Detached {
        /// The agent.
        #[n(0)]
        from: AgentId,
        /// How many agents are above the branches.
        #[n(1)]
        depth: u32,
        /// The branches.
        #[n(2)]
        branches: Vec<ChildSpec>,
    },
    /// A child has taken messages, so there is room for more.
    #[n(5)]
    Credit {
        /// The effect that started the child.
        #[n(0)]
        seq: Seq,
        /// Which branch of it.
        #[n(1)]
        branch: u32,
        /// How many it has taken in its whole life.
        #[n(2)]
        taken: u64,
    },
}
