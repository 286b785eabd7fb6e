//! What a VM asks for.
//!
//! Effects come in three classes, and the class decides what is recorded:
//!   *local*    computed in the step from the recorded input's time and the agent's seed; no record of its own
//!   *log*      the appended event is the effect; carried out from the store's own tables
//!   *outside*  goes through the ledger: intent → started → done | failed without effect | unknown
//!
//! A request is not stored. The VM is deterministic, so a replay makes the same request again, and the
//! [`fingerprint`] in the ledger's intent proves that it is the same.

use minicbor::{CborLen, Decode, Encode};
use nexa_types::{Budget, Millis, Payload, Seq, Spend, Timestamp, Tokens};

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
}

impl EffectBody {
    /// The class that decides how it is recorded.
    pub fn class(&self) -> EffectClass {
        match self {
            Self::Now | Self::Random { .. } | Self::Log(_) => EffectClass::Local,
            Self::Emit { .. } | Self::Children { .. } | Self::Sleep(_) => EffectClass::Log,
            Self::Model(_) | Self::Approval(_) => EffectClass::Outside,
        }
    }
}

/// What a VM does while its children run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(index_only)]
pub enum Join {
    /// Waits until all have ended; the answer is one outcome a branch.
    #[n(0)]
    All,
    /// Goes on at once; each ending arrives as an input of its own. Used by the list coordinator.
    #[n(1)]
    None,
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

/// A request to a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRequest {
    /// The agent that asks, as declared; scripts answer by it.
    pub agent: String,
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
    /// What it used, `calls` being 1.
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
}

/// A hash of a request, so that a replay can show that it asks for the same.
///
/// Every text goes in with its length and every list with its count, so different requests are never read as the same.
pub fn fingerprint(body: &EffectBody) -> [u8; 32] {
    let mut parts = Parts(blake3::Hasher::new_derive_key("nexa.v1 effect request"));
    match body {
        EffectBody::Model(request) => {
            parts.text("model");
            parts.model(request);
        }
        EffectBody::Approval(request) => {
            parts.text("approval");
            parts.text(&request.question);
            parts.text(request.data.as_deref().unwrap_or(""));
        }
        // Local effects have no record, and the record of a log effect holds the effect itself.
        EffectBody::Now
        | EffectBody::Random { .. }
        | EffectBody::Log(_)
        | EffectBody::Emit { .. }
        | EffectBody::Children { .. }
        | EffectBody::Sleep(_) => parts.text("not outside"),
    }
    *parts.0.finalize().as_bytes()
}

/// A hash that is fed part by part.
struct Parts(blake3::Hasher);

impl Parts {
    fn model(&mut self, request: &ModelRequest) {
        self.text(&request.agent);
        self.text(&request.model);
        self.count(request.messages.len());
        for message in &request.messages {
            self.text(message.role.as_str());
            self.text(&message.text);
            self.count(message.tool_calls.len());
            for call in &message.tool_calls {
                self.text(&call.id);
                self.text(&call.name);
                self.text(&call.arguments);
            }
            self.option(message.tool_call_id.as_deref());
        }
        self.option(request.schema.as_deref());
        self.count(request.tools.len());
        for tool in &request.tools {
            self.text(&tool.name);
            self.text(&tool.description);
            self.text(&tool.schema);
        }
        self.text(request.tool_choice.as_str());
        let sampling = &request.sampling;
        self.text(&format!(
            "{:016x} {:016x} {} {:?} {:?}",
            sampling.temperature.to_bits(),
            sampling.top_p.to_bits(),
            sampling.max_tokens,
            sampling.seed,
            sampling.stop
        ));
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text.as_bytes());
    }

    /// A text that may be absent: a list of none or one.
    fn option(&mut self, text: Option<&str>) {
        self.count(text.iter().len());
        text.into_iter().for_each(|text| self.text(text));
    }

    fn count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn request() -> ModelRequest {
        let sampling =
            Sampling { temperature: 0.5, top_p: 1.0, max_tokens: Tokens(9), seed: None, stop: vec!["END".into()] };
        let call = |id: &str| ToolCall { id: id.into(), name: "find".into(), arguments: "{}".into() };
        ModelRequest {
            agent: "Helper".into(),
            model: "acme/large".into(),
            messages: vec![
                Message::new(Role::User, "cats?", Source::Program),
                Message::calling("", Source::Answer(Seq(1)), vec![call("a"), call("b")]),
                Message::returned("a", "purring", Source::Answer(Seq(2))),
            ],
            schema: None,
            tools: vec![ToolOffer { name: "find".into(), description: "Finds.".into(), schema: "{}".into() }],
            tool_choice: ToolChoice::Auto,
            sampling,
            stream: true,
            timeout: Millis(1_000),
        }
    }

    /// Each changes what is asked, some by only moving a text to where it means something else.
    const CHANGES: &[fn(&mut ModelRequest)] = &[
        |_| {},
        |it| it.agent.push('s'),
        |it| it.model.clear(),
        |it| it.messages[0].text.clear(),
        |it| it.messages[0].role = Role::System,
        |it| it.messages.truncate(2),
        |it| it.messages.truncate(1),
        |it| it.messages[1].tool_calls.truncate(1),
        |it| it.messages[1].tool_calls.swap(0, 1),
        |it| it.messages[1].tool_calls[0].id.push('2'),
        |it| it.messages[1].tool_calls[0].name.push('2'),
        |it| it.messages[1].tool_calls[0].arguments = r#"{"q":1}"#.into(),
        |it| {
            let moved = std::mem::take(&mut it.messages[1].tool_calls);
            it.messages[0].tool_calls = moved;
        },
        |it| it.messages[2].tool_call_id = None,
        |it| it.messages[2].tool_call_id = Some(String::new()),
        |it| it.messages[2].tool_call_id = Some("b".into()),
        |it| it.schema = Some(String::new()),
        |it| it.schema = Some("{}".into()),
        |it| it.tools.clear(),
        |it| it.tools.push(it.tools[0].clone()),
        |it| it.tools[0].name.push('2'),
        |it| it.tools[0].description.clear(),
        |it| it.tools[0].schema = r#"{"type":"object"}"#.into(),
        |it| {
            // The same letters in the same order, cut elsewhere.
            it.tools[0].name = "findFinds.".into();
            it.tools[0].description.clear();
        },
        |it| it.tool_choice = ToolChoice::Required,
        |it| it.tool_choice = ToolChoice::None,
        |it| it.sampling.temperature = 0.6,
        |it| it.sampling.stop.clear(),
    ];

    #[test]
    fn requests_that_ask_for_something_else_have_other_fingerprints() {
        let prints: BTreeSet<[u8; 32]> = CHANGES
            .iter()
            .map(|change| {
                let mut changed = request();
                change(&mut changed);
                fingerprint(&EffectBody::Model(Box::new(changed)))
            })
            .collect();
        assert_eq!(prints.len(), CHANGES.len());
    }

    #[test]
    fn a_request_has_tools_if_it_offers_some_or_tells_of_calls() {
        let has = |change: fn(&mut ModelRequest)| {
            let mut changed = request();
            change(&mut changed);
            changed.has_tools()
        };
        assert!(has(|_| {}));
        assert!(has(|it| it.messages.clear()));
        assert!(has(|it| it.tools.clear()));
        assert!(!has(|it| {
            it.tools.clear();
            it.messages.truncate(1);
        }));
    }
}
