//! What a VM asks for.
//!
//! Effects come in classes, and the class decides what is recorded:
//!   *local*    computed in the step from the recorded input's time and the agent's seed; no record of its own
//!   *log*      the appended event is the effect; carried out from the store's own tables
//!   *outside*  goes through the ledger: intent → started → done | failed without effect | unknown
//!   *test*     answered by a test harness; exists in test builds only
//!
//! A request is not stored. The VM is deterministic, so a replay makes the same request again, and the
//! [`fingerprint`] in the ledger's intent proves that it is the same.

mod fingerprint;
mod remembering;
mod search;
mod tool;

pub use fingerprint::{fingerprint, model_fingerprint};
use minicbor::{CborLen, Decode, Encode};
use nexa_types::{AgentId, Budget, Millis, Payload, Seq, Spend, Timestamp, Tokens};

use crate::asks::Asks;
pub use remembering::{
    Conversation, ConversationScope, EvictionPolicy, Heard, MAX_PAGES_MAX, PAGE_SIZE_MAX, Remembering, WINDOW_MAX,
    WINDOW_MIN,
};
pub use search::{
    ActionStatistics, ScoreWeights, SearchReply, SearchRequest, SearchSettings, SearchStatistics, Simulation,
};
pub use tool::{Risk, ToolEffect, ToolLimits, ToolRequest, ToolSource};

/// One effect that a VM yielded and now waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectRequest {
    /// Its number in the VM, from 1.
    pub seq: Seq,
    /// What is asked for.
    pub body: EffectBody,
}

/// The class of an effect, see the module's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectClass {
    /// Answered within the step.
    Local,
    /// The event is the effect.
    Log,
    /// Somebody outside does it.
    Outside,
    /// A test harness answers at once; the answer is recorded as an input, without an intent.
    Test,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum EffectBody {
    /// The time of the input that is being handled.
    Now,
    /// A number from `low` to `high - 1`, from the agent's seed and this effect's number.
    Random {
        /// The least possible number.
        low: i64,
        /// One above the greatest possible number.
        high: i64,
    },
    /// A line for whoever watches the agent live.
    Log(String),
    /// Something for the client, on a named channel.
    Emit {
        /// The channel; `main` unless the program says otherwise.
        channel: String,
        /// The value.
        value: Payload,
    },
    /// Run these children and wait for all of them, or start them and go on.
    Children {
        /// One child a branch, in declaration order; 1 for a plain call, at most `BRANCHES_MAX`.
        branches: Vec<ChildSpec>,
        /// What the VM does meanwhile.
        join: Join,
    },
    /// Wait for so long.
    Sleep(Millis),
    /// Ask a model.
    Model(Box<ModelRequest>),
    /// Ask a person.
    Approval(ApprovalRequest),
    /// Keep something in a memory beyond the agent.
    Remember(Remembered),
    /// Look into a memory beyond the agent.
    Recall(RecallRequest),
    /// Call a tool.
    Tool(Box<ToolRequest>),
    /// Ask the test that the program runs in. Only a test harness answers; no program that a node runs can ask.
    Test(TestRequest),
    /// When the time of a scope that begins here is over.
    Deadline(Millis),
    /// Wait for how a child ended, or for a timer. Any number of times.
    Await(Handle),
    /// A message for a child that runs; waits while its mailbox is full.
    Send {
        /// The child.
        to: Handle,
        /// The message.
        value: Payload,
    },
    /// Wait for the next message.
    Receive {
        /// Not longer than this.
        timeout: Option<Millis>,
    },
    /// End a child that runs, or forget a timer.
    Cancel(Handle),
    /// A moment that can be waited for later.
    Timer(Millis),
    /// What was started with this number or a later one belongs to a call that has ended: end what runs, forget the rest.
    Release(Seq),
}

/// What a program holds of something that it started: a child, or a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    /// The child; nothing for a timer.
    pub agent: Option<AgentId>,
    /// The effect that started it.
    pub seq: Seq,
}

impl EffectBody {
    /// The class that decides how it is recorded.
    pub fn class(&self) -> EffectClass {
        match self {
            Self::Now | Self::Random { .. } | Self::Log(_) | Self::Timer(_) | Self::Deadline(_) => EffectClass::Local,
            Self::Emit { .. }
            | Self::Children { .. }
            | Self::Sleep(_)
            | Self::Remember(_)
            | Self::Await(_)
            | Self::Send { .. }
            | Self::Receive { .. }
            | Self::Cancel(_)
            | Self::Release(_) => EffectClass::Log,
            Self::Model(_) | Self::Approval(_) | Self::Recall(_) | Self::Tool(_) => EffectClass::Outside,
            Self::Test(_) => EffectClass::Test,
        }
    }
}

/// What a VM does while its children run. Stored as its number, and `FirstOk` as an array of its number and the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Waits until all have ended; the answer is one outcome a branch. Number 0.
    All,
    /// Goes on at once; each ending arrives as an input of its own. Used by the list coordinator. Number 1.
    None,
    /// Goes on at once with a handle. The ending is kept until the call that started the child has ended. Number 2.
    Handle,
    /// Waits until so many have ended ok, or so few are left that so many no longer can, and ends the others. Number 3.
    /// The answer is the value of the first that ended ok, or else the outcomes of those that have ended, in the order
    /// of the branches.
    FirstOk(u16),
    /// Goes on at once and never hears of them: they belong to the root of the workload. Number 4.
    Detached,
}

impl Join {
    const FIRST_OK: u8 = 3;

    fn number(self) -> u8 {
        match self {
            Self::All => 0,
            Self::None => 1,
            Self::Handle => 2,
            Self::FirstOk(_) => Self::FIRST_OK,
            Self::Detached => 4,
        }
    }
}

impl<C> Encode<C> for Join {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            Self::FirstOk(wanted) => e.array(2)?.u8(self.number())?.u16(*wanted)?.ok(),
            _ => e.u8(self.number())?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Join {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let unknown = |number: u8| minicbor::decode::Error::unknown_variant(i64::from(number));
        if d.datatype()? == minicbor::data::Type::Array {
            return match (d.array()?, d.u8()?) {
                (Some(2), Self::FIRST_OK) => Ok(Self::FirstOk(d.u16()?)),
                (_, number) => Err(unknown(number)),
            };
        }
        match d.u8()? {
            0 => Ok(Self::All),
            1 => Ok(Self::None),
            2 => Ok(Self::Handle),
            4 => Ok(Self::Detached),
            number => Err(unknown(number)),
        }
    }
}

impl<C> CborLen<C> for Join {
    fn cbor_len(&self, ctx: &mut C) -> usize {
        match self {
            Self::FirstOk(wanted) => 1 + self.number().cbor_len(ctx) + wanted.cbor_len(ctx),
            _ => self.number().cbor_len(ctx),
        }
    }
}

/// A child to start.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ChildSpec {
    /// The name that people see: the agent's, the flow's, or the branch's.
    #[n(0)]
    pub name: String,
    /// The function of the same module that the child runs.
    #[n(1)]
    pub entry: u32,
    /// Its arguments, an encoded list.
    #[n(2)]
    pub args: Payload,
    /// Caps of its own, before the parent's rest is applied.
    #[n(3)]
    pub budget: Budget,
    /// The whole call must end within this.
    #[n(4)]
    pub timeout: Option<Millis>,
    /// What it asks of its node, if anything.
    #[n(5)]
    pub asks: Option<Asks>,
}

/// Who wrote a message of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(index_only)]
pub enum Role {
    /// The program: role, prompt, schema.
    #[n(0)]
    System,
    /// The caller: the input, a repair turn, a passed message.
    #[n(1)]
    User,
    /// The model.
    #[n(2)]
    Assistant,
    /// A tool's result.
    #[n(3)]
    Tool,
}

impl Role {
    /// The role's name on the wire of every provider.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// Where the text of a message comes from. The log holds no text twice: an intent records these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Source {
    /// The module and the agent's arguments, both known from the agent's first event.
    #[n(0)]
    Program,
    /// The recorded answer of this agent's effect.
    #[n(1)]
    Answer(#[n(0)] Seq),
    /// Made by the VM from what came before, such as a list of violations.
    #[n(2)]
    Derived,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who wrote it.
    pub role: Role,
    /// What it says; for [`Role::Tool`] what the tool gave.
    pub text: String,
    /// Where the text comes from.
    pub source: Source,
    /// The tools that it asks for, of [`Role::Assistant`] only.
    pub tool_calls: Vec<ToolCall>,
    /// The call that it is the result of, by its id, of [`Role::Tool`] only.
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message that has nothing to do with tools.
    pub fn new(role: Role, text: impl Into<String>, source: Source) -> Self {
        Self { role, text: text.into(), source, tool_calls: Vec::new(), tool_call_id: None }
    }

    /// The model's answer with the calls that it asked for, as it goes back to the model.
    pub fn calling(text: impl Into<String>, source: Source, tool_calls: Vec<ToolCall>) -> Self {
        Self { tool_calls, ..Self::new(Role::Assistant, text, source) }
    }

    /// What came of a call.
    pub fn returned(tool_call_id: impl Into<String>, text: impl Into<String>, source: Source) -> Self {
        Self { tool_call_id: Some(tool_call_id.into()), ..Self::new(Role::Tool, text, source) }
    }
}

/// The most calls in one answer; an answer with more is no answer.
pub const TOOL_CALLS_MAX: usize = 64;
/// The most bytes of ids, names and arguments of all calls in one answer; an answer with more is no answer.
pub const TOOL_CALLS_BYTES_MAX: usize = 1 << 20;

/// A tool that a model may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOffer {
    /// What the model calls it. Endpoints take letters, digits, `_` and `-`, at most 64 of them.
    pub name: String,
    /// What it does, for the model to read.
    pub description: String,
    /// The JSON Schema of its arguments, an object, as canonical JSON text.
    pub schema: String,
}

/// Whether a model calls the tools that it is offered. Means nothing without an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// As it likes.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// None, although it may have called some before.
    None,
}

impl ToolChoice {
    /// The choice's name on the wire of every provider.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Required => "required",
            Self::None => "none",
        }
    }
}

/// A model's wish that a tool be called. Nothing has been checked but its form: whoever carries it out checks the grant
/// and the schema of the arguments.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ToolCall {
    /// Tells it from the other calls of its conversation; its result is sent back under this id.
    #[n(0)]
    pub id: String,
    /// The name of an offered tool.
    #[n(1)]
    pub name: String,
    /// The arguments: a JSON object without spaces between its parts, fields in the model's order.
    #[n(2)]
    pub arguments: String,
}

/// How a model is asked to choose its words.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 to 2.
    pub temperature: f64,
    /// 0 to 1.
    pub top_p: f64,
    /// The most tokens that it may write.
    pub max_tokens: Tokens,
    /// Makes the choice repeatable where the provider can.
    pub seed: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
}

/// What a model is asked for. Scripts and tests answer by it; adapters send every request alike.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Purpose {
    /// An agent's own turn.
    #[default]
    Agent,
    /// Whether something said in words holds, or which of some labels fits: `semantic_if`, a word as a condition.
    Semantic {
        /// The question, as written.
        question: String,
    },
    /// Which of several intents a value has.
    Intent,
    /// What the built-in judge says of the branches of a fork.
    Judge,
    /// What can be said against a value.
    Reflect,
}

/// A request to a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRequest {
    /// The agent that asks, as declared; scripts answer an agent's own turns by it. The flow's name if no agent asks.
    pub agent: String,
    /// What is asked for.
    pub purpose: Purpose,
    /// `provider/name`, or empty for the project's default.
    pub model: String,
    /// The conversation so far, the system message first.
    pub messages: Vec<Message>,
    /// The JSON Schema that the answer must fit, as canonical JSON text.
    pub schema: Option<String>,
    /// The tools that it may ask for; names differ.
    pub tools: Vec<ToolOffer>,
    /// Whether it should.
    pub tool_choice: ToolChoice,
    /// How to choose words.
    pub sampling: Sampling,
    /// Whether pieces are wanted as they come.
    pub stream: bool,
    /// Whether an earlier answer to the same request will do.
    pub cache: bool,
    /// How the conversation is remembered, if it is: then what is sent is a part of the messages that fits.
    pub memory: Option<Remembering>,
    /// The whole request must be answered within this.
    pub timeout: Millis,
}

impl ModelRequest {
    /// Whether tools are offered, or were called in the conversation so far.
    pub fn has_tools(&self) -> bool {
        let is_about_tools = |message: &Message| !message.tool_calls.is_empty() || message.tool_call_id.is_some();
        !self.tools.is_empty() || self.messages.iter().any(is_about_tools)
    }
}

/// Why a model stopped writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(index_only)]
pub enum Finish {
    /// It was done.
    #[n(0)]
    Stop,
    /// It reached `max_tokens` or the model's window.
    #[n(1)]
    Length,
    /// It asks for tools.
    #[n(2)]
    ToolCalls,
    /// The provider cut it off for its content.
    #[n(3)]
    Filtered,
}

/// A model's answer, as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ModelReply {
    /// What it wrote.
    #[n(0)]
    pub text: String,
    /// Why it stopped.
    #[n(1)]
    pub finish: Finish,
    /// `provider/name` of the model that answered.
    #[n(2)]
    pub model: String,
    /// What it used, `calls` being 1; nothing if it is an earlier answer.
    #[n(3)]
    pub spend: Spend,
    /// Tokens of the request that did not fit into the model's window and were left out.
    #[n(4)]
    pub tokens_left_out: Tokens,
    /// The tools that it asks for, in its order; at most [`TOOL_CALLS_MAX`]. Absent in the bytes if there are none.
    #[n(5)]
    #[cbor(skip_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// A question to a person.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ApprovalRequest {
    /// What is asked.
    #[n(0)]
    pub question: String,
    /// What it is about, as canonical JSON text; shown whole.
    #[n(1)]
    pub data: Option<String>,
    /// After this it counts as unanswered.
    #[n(2)]
    pub timeout: Option<Millis>,
}

/// A person's answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Decision {
    /// Yes or no.
    #[n(0)]
    pub approved: bool,
    /// Who said so.
    #[n(1)]
    pub by: String,
    /// Why, in their words; may be empty.
    #[n(2)]
    pub note: String,
}

/// What a test asks of its harness. The numbers are stored in test builds and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum TestCall {
    /// `script TARGET => turns`: kind of target, its name or question, turns.
    Script = 0,
    /// `calls()`: the agents and tools in the order in which they started.
    Calls = 1,
    /// `inputs(A)`: the first arguments of the calls of an agent or tool, by its name.
    Inputs = 2,
    /// `asks()`: the questions that models were asked about values, in order.
    Asks = 3,
    /// `models(A)`: the models that an agent's requests named, by its name.
    Models = 4,
    /// `events()`: what was told to the client.
    Events = 5,
    /// `clock()`: how much virtual time has passed.
    Clock = 6,
}

impl TestCall {
    /// Every call, by number.
    pub const ALL: [Self; 7] =
        [Self::Script, Self::Calls, Self::Inputs, Self::Asks, Self::Models, Self::Events, Self::Clock];

    /// The call with this number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// How many arguments it takes.
    pub const fn arity(self) -> u8 {
        match self {
            Self::Script => 3,
            Self::Inputs | Self::Models => 1,
            Self::Calls | Self::Asks | Self::Events | Self::Clock => 0,
        }
    }
}

/// A question of a test to its harness.
#[derive(Debug, Clone, PartialEq)]
pub struct TestRequest {
    /// What is asked.
    pub call: TestCall,
    /// Its arguments, an encoded list.
    pub args: Payload,
}

/// A memory beyond one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(index_only)]
pub enum MemoryScope {
    /// One run's, with all its children; forgotten when the run has ended.
    #[n(0)]
    Workload,
    /// The tenant's, from run to run.
    #[n(1)]
    Tenant,
}

impl MemoryScope {
    /// The scope's name in a program.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Tenant => "tenant",
        }
    }
}

/// An entry of a memory.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Remembered {
    /// Whose memory.
    #[n(0)]
    pub scope: MemoryScope,
    /// Its key.
    #[n(1)]
    pub key: String,
    /// Its value, encoded; `None` forgets the key.
    #[n(2)]
    pub value: Option<Payload>,
}

/// A look into a memory.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RecallRequest {
    /// Whose memory.
    #[n(0)]
    pub scope: MemoryScope,
    /// What is looked for.
    #[n(1)]
    pub what: Wanted,
}

/// What is looked for in a memory.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Wanted {
    /// The value of a key.
    #[n(0)]
    Key(#[n(0)] String),
    /// The best texts for a query.
    #[n(1)]
    Best {
        /// The query.
        #[n(0)]
        query: String,
        /// How many at most.
        #[n(1)]
        count: u32,
    },
}

/// What comes back for an effect that worked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// Nothing but that it happened: log, emit, sleep.
    #[n(0)]
    Done,
    /// A moment.
    #[n(1)]
    Now(#[n(0)] Timestamp),
    /// A number.
    #[n(2)]
    Random(#[n(0)] i64),
    /// One outcome a branch, in declaration order.
    #[n(3)]
    Children(#[n(0)] Vec<nexa_types::Outcome>),
    /// A model's answer.
    #[n(4)]
    Model(#[n(0)] ModelReply),
    /// A person's answer.
    #[n(5)]
    Approval(#[n(0)] Decision),
    /// What a memory has, an encoded value: the key's, or a list of hits.
    #[n(10)]
    Memory(#[n(0)] Option<Payload>),
    /// An encoded value: what a tool gave.
    #[n(6)]
    Value(#[n(0)] Payload),
    /// A harness's answer to its test, an encoded value.
    #[n(11)]
    Tested(#[n(0)] Payload),
    /// A child that runs on by itself.
    #[n(7)]
    Started(#[n(0)] AgentId),
    /// A message.
    #[n(8)]
    Message(#[n(0)] Payload),
}
