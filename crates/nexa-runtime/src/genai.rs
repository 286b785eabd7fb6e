//! What is seen of agents at work: spans and histograms under the names of the GenAI semantic conventions.
//!
//! The names are those of `open-telemetry/semantic-conventions-genai`, `model/gen-ai/spans.yaml` at commit 002c8a6ea1c8
//! and `metrics.yaml` at 004902b8cb70, all of them still "development" there. A test compares this file with the list in
//! `tests/genai-names.txt`; when the conventions move, both move.
//!
//! One span a turn (`invoke_agent`), one a call of a model (`chat`), one a call of a tool (`execute_tool`); none a message
//! or a step. A turn is a trace of its own: what led to it, as the turn that spawned the agent, the one before (here or on
//! the node that the agent comes from), the leader's order, or the turns of others whose messages it takes, is a link and no
//! parent, because an agent may work for days.
//! A call is a child of the turn that sent it.
//!
//! Spans are those of `tracing`; who exports them decides whether they exist at all. Histograms go to whatever recorder
//! the process has installed before its first node. What was said to and by models is in no span unless
//! [`show_content`] was called.
//!
//! Labels of metrics are from closed sets: the providers named to [`know`], at most [`MODELS_MAX`] models of theirs, and
//! codes of errors. Never a tenant, an agent, a workload.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use metrics::{Histogram, histogram};
use nexa_event::effect::{Finish, ModelReply, ModelRequest, Role};
use nexa_event::envelope::TraceContext;
use nexa_event::fact::EffectResult;
use nexa_ports::model::ModelError;
use nexa_types::{AgentId, NodeId, RunCode, WorkloadId};
use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::dispatch::models::Work;
use crate::trace::{Links, context_of, link};

/// The target of every span in here: who exports spans wants these and no others.
pub const TARGET: &str = "nexa::genai";
/// Names of models that are told apart in metrics. Further ones are `other`.
pub const MODELS_MAX: usize = 64;
/// The longest such name.
const MODEL_NAME_BYTES_MAX: usize = 128;
/// The most bytes of one side of a conversation in a span. The rest is cut.
pub const CONTENT_BYTES_MAX: usize = 32 << 10;

/// Attributes.
pub mod attribute {
    /// What is done: one of [`super::operation`].
    pub const OPERATION_NAME: &str = "gen_ai.operation.name";
    /// The provider as configured.
    pub const PROVIDER_NAME: &str = "gen_ai.provider.name";
    /// The model that was asked for.
    pub const REQUEST_MODEL: &str = "gen_ai.request.model";
    /// Whether pieces were wanted as they come.
    pub const REQUEST_STREAM: &str = "gen_ai.request.stream";
    /// The most tokens of the answer.
    pub const REQUEST_MAX_TOKENS: &str = "gen_ai.request.max_tokens";
    /// How the model chose words.
    pub const REQUEST_TEMPERATURE: &str = "gen_ai.request.temperature";
    /// The model that answered.
    pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
    /// Why it stopped.
    pub const RESPONSE_FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
    /// Seconds until the first piece.
    pub const RESPONSE_TIME_TO_FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
    /// Tokens read.
    pub const USAGE_INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
    /// Tokens written.
    pub const USAGE_OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
    /// The agent.
    pub const AGENT_ID: &str = "gen_ai.agent.id";
    /// Its name in the program.
    pub const AGENT_NAME: &str = "gen_ai.agent.name";
    /// Whose conversation it is: an agent has one, its own.
    pub const CONVERSATION_ID: &str = "gen_ai.conversation.id";
    /// The tool.
    pub const TOOL_NAME: &str = "gen_ai.tool.name";
    /// Which of its calls.
    pub const TOOL_CALL_ID: &str = "gen_ai.tool.call.id";
    /// What was said to the model. Only if asked for.
    pub const INPUT_MESSAGES: &str = "gen_ai.input.messages";
    /// What it said. Only if asked for.
    pub const OUTPUT_MESSAGES: &str = "gen_ai.output.messages";
    /// Whether tokens were read or written. Of metrics.
    pub const TOKEN_TYPE: &str = "gen_ai.token.type";
    /// The code of a failure.
    pub const ERROR_TYPE: &str = "error.type";

    /// Every name in here that the conventions know.
    pub const ALL: &[&str] = &[
        OPERATION_NAME,
        PROVIDER_NAME,
        REQUEST_MODEL,
        REQUEST_STREAM,
        REQUEST_MAX_TOKENS,
        REQUEST_TEMPERATURE,
        RESPONSE_MODEL,
        RESPONSE_FINISH_REASONS,
        RESPONSE_TIME_TO_FIRST_CHUNK,
        USAGE_INPUT_TOKENS,
        USAGE_OUTPUT_TOKENS,
        AGENT_ID,
        AGENT_NAME,
        CONVERSATION_ID,
        TOOL_NAME,
        TOOL_CALL_ID,
        INPUT_MESSAGES,
        OUTPUT_MESSAGES,
        TOKEN_TYPE,
        ERROR_TYPE,
    ];

    /// The workload. Ours.
    pub const WORKLOAD_ID: &str = "nexa.workload.id";
    /// Which sending of an effect. Ours.
    pub const ATTEMPT: &str = "nexa.attempt";
    /// Whether an earlier answer did. Ours.
    pub const REUSED: &str = "nexa.reused";
    /// What led here, as a `traceparent`; the exporter makes a link of it. Ours.
    pub const LINK: &str = "nexa.link";
    /// The node on which it is done. Ours.
    pub const NODE_ID: &str = "nexa.node.id";
    /// The node that agents are told to, or go to. Ours.
    pub const TO_NODE_ID: &str = "nexa.to_node.id";
    /// How many agents. Ours.
    pub const AGENTS: &str = "nexa.agents";
    /// How a call came.
    pub const RPC_SYSTEM: &str = "rpc.system";
    /// What it asked for.
    pub const RPC_METHOD: &str = "rpc.method";
}

/// What is done.
pub mod operation {
    /// An agent takes a turn.
    pub const INVOKE_AGENT: &str = "invoke_agent";
    /// A model is asked.
    pub const CHAT: &str = "chat";
    /// A tool is called.
    pub const EXECUTE_TOOL: &str = "execute_tool";
}

/// Metrics, in the form that Prometheus gives their names.
pub mod metric {
    /// `gen_ai.client.token.usage`
    pub const TOKEN_USAGE: &str = "gen_ai_client_token_usage";
    /// `gen_ai.client.operation.duration`
    pub const OPERATION_DURATION: &str = "gen_ai_client_operation_duration_seconds";
    /// `gen_ai.client.operation.time_to_first_chunk`
    pub const TIME_TO_FIRST_CHUNK: &str = "gen_ai_client_operation_time_to_first_chunk_seconds";
    /// `gen_ai.execute_tool.duration`
    pub const TOOL_DURATION: &str = "gen_ai_execute_tool_duration_seconds";
    /// What deciding one step took. Ours.
    pub const STEP: &str = "nexa_step_seconds";
}

/// What labels say of everything that is in no closed set.
const OTHER: &str = "other";

/// Which providers and models have names in metrics. One for the process, as the recorder is.
#[derive(Debug, Default)]
struct Known {
    providers: BTreeSet<String>,
    default_model: String,
    /// Met so far, with their provider.
    models: Mutex<BTreeSet<Arc<str>>>,
}

static KNOWN: OnceLock<Known> = OnceLock::new();
static SHOWS_CONTENT: AtomicBool = AtomicBool::new(false);

/// Names the providers that may be labels, and the model of requests that name none. The first call counts.
pub fn know(providers: impl IntoIterator<Item = String>, default_model: &str) {
    let known = Known {
        providers: providers.into_iter().collect(),
        default_model: default_model.to_owned(),
        models: Mutex::default(),
    };
    // A second wiring in one process keeps what the first one said.
    let _ = KNOWN.set(known);
}

/// From now on spans hold what was said to and by models, up to [`CONTENT_BYTES_MAX`] a side.
pub fn show_content() {
    SHOWS_CONTENT.store(true, Ordering::Relaxed);
}

/// Who works.
pub(crate) struct Who<'a> {
    pub(crate) agent: AgentId,
    pub(crate) name: &'a str,
    pub(crate) workload: WorkloadId,
    /// Where.
    pub(crate) node: &'a NodeId,
}

/// One turn of an agent; seen from the first thing that it has to do.
#[derive(Default)]
pub(crate) struct Turn {
    span: Option<Span>,
    /// What it is linked to.
    linked: Links,
}

impl Turn {
    /// Its span. `led` is what led to it beside the turn before, which is `earlier` and is replaced by this one.
    pub(crate) fn span(
        &mut self,
        who: &Who<'_>,
        led: impl IntoIterator<Item = TraceContext>,
        earlier: &mut Option<TraceContext>,
    ) -> Span {
        if let Some(span) = &self.span {
            return span.clone();
        }
        let span = info_span!(
            target: TARGET,
            parent: None,
            operation::INVOKE_AGENT,
            otel.name = format!("{} {}", operation::INVOKE_AGENT, who.name),
            otel.kind = "internal",
            { attribute::OPERATION_NAME } = operation::INVOKE_AGENT,
            { attribute::AGENT_NAME } = who.name,
            { attribute::AGENT_ID } = display(who.agent),
            { attribute::CONVERSATION_ID } = display(who.agent),
            { attribute::WORKLOAD_ID } = display(who.workload),
            { attribute::NODE_ID } = display(who.node),
            { attribute::ERROR_TYPE } = Empty,
            { attribute::LINK } = Empty,
        );
        if !span.is_disabled() {
            link(&span, &mut self.linked, led.into_iter().chain(*earlier));
            *earlier = context_of(&span);
        }
        self.span.insert(span).clone()
    }

    /// It has heard of this, too, which is forgotten here.
    pub(crate) fn follows(&mut self, heard: &mut Links) {
        let heard = heard.take();
        if let Some(span) = self.span.as_ref().filter(|span| !span.is_disabled()) {
            link(span, &mut self.linked, heard);
        }
    }
}

/// The agent whose turn it is has failed.
pub(crate) fn turn_failed(code: RunCode) {
    Span::current().record(attribute::ERROR_TYPE, code.as_str());
}

/// One sending of an effect. Clones are the same sending.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) span: Span,
    began: Instant,
    labels: Option<Labels>,
}

#[derive(Debug, Clone)]
struct Labels {
    provider: Arc<str>,
    model: Arc<str>,
}

impl Effect {
    /// One that nobody sees.
    pub(crate) fn unseen() -> Self {
        Self { span: Span::none(), began: Instant::now(), labels: None }
    }

    /// An effect that is sent now, in the turn whose span this is called in.
    pub(crate) fn open(who: &Who<'_>, attempt: u32, call: impl std::fmt::Display, work: &Work) -> Self {
        match work {
            Work::Model(request) => {
                let (provider, model) = resolve(&request.model);
                let span = chat_span(who, attempt, provider, model, request);
                Self { span, began: Instant::now(), labels: Some(labels(provider, model)) }
            }
            Work::Tool(request) => {
                let span = info_span!(
                        target: TARGET,
                        operation::EXECUTE_TOOL,
                        otel.name = format!("{} {}", operation::EXECUTE_TOOL, request.tool),
                        otel.kind = "internal",
                        { attribute::OPERATION_NAME } = operation::EXECUTE_TOOL,
                        { attribute::TOOL_NAME } = request.tool.as_str(),
                        { attribute::TOOL_CALL_ID } = display(call),
                        { attribute::AGENT_NAME } = who.name,
                        { attribute::AGENT_ID } = display(who.agent),
                        { attribute::CONVERSATION_ID } = display(who.agent),
                        { attribute::WORKLOAD_ID } = display(who.workload),
                { attribute::NODE_ID } = display(who.node),
                        { attribute::ATTEMPT } = attempt,
                        { attribute::ERROR_TYPE } = Empty,
                        otel.status_code = Empty,
                    );
                Self { span, began: Instant::now(), labels: None }
            }
        }
    }

    /// A piece of the answer has come.
    pub(crate) fn piece(&self, offset: u64, text: &str) {
        let Some(labels) = self.labels.as_ref().filter(|_| offset == 0 && !text.is_empty()) else { return };
        let took = self.began.elapsed().as_secs_f64();
        self.span.record(attribute::RESPONSE_TIME_TO_FIRST_CHUNK, took);
        labels.histogram(metric::TIME_TO_FIRST_CHUNK).record(took);
    }

    /// The model has answered, or not.
    pub(crate) fn answered(&self, asked: &Result<ModelReply, ModelError>) {
        let Some(labels) = &self.labels else { return };
        let took = self.began.elapsed().as_secs_f64();
        match asked {
            Ok(reply) => {
                self.replied(reply);
                labels.histogram(metric::OPERATION_DURATION).record(took);
                for (kind, tokens) in [("input", reply.spend.tokens_in.0), ("output", reply.spend.tokens_out.0)] {
                    labels.tokens(kind).record(tokens as f64);
                }
            }
            Err(error) => {
                let code = error.code.as_str();
                self.span.record(attribute::ERROR_TYPE, code);
                self.span.record("otel.status_code", "ERROR");
                labels.failures(code).record(took);
            }
        }
    }

    /// Nothing was sent, and nothing will be.
    pub(crate) fn held_back(&self, code: RunCode) {
        self.span.record(attribute::ERROR_TYPE, code.as_str());
        self.span.record("otel.status_code", "ERROR");
    }

    /// An earlier answer did.
    pub(crate) fn reused(&self, reply: &ModelReply) {
        self.span.record(attribute::REUSED, true);
        self.replied(reply);
    }

    fn replied(&self, reply: &ModelReply) {
        if self.span.is_disabled() {
            return;
        }
        let span = &self.span;
        span.record(
            attribute::RESPONSE_MODEL,
            reply.model.split_once('/').map_or(reply.model.as_str(), |(_, name)| name),
        );
        span.record(attribute::RESPONSE_FINISH_REASONS, finish(reply.finish));
        span.record(attribute::USAGE_INPUT_TOKENS, reply.spend.tokens_in.0);
        span.record(attribute::USAGE_OUTPUT_TOKENS, reply.spend.tokens_out.0);
        if SHOWS_CONTENT.load(Ordering::Relaxed) {
            let mut said = String::new();
            say(&mut said, "assistant", &reply.text);
            span.record(attribute::OUTPUT_MESSAGES, format!("[{said}]"));
        }
    }

    /// The tool has ended.
    pub(crate) fn ended(&self, result: &EffectResult) {
        let took = self.began.elapsed().as_secs_f64();
        match result {
            EffectResult::Done(_) => histogram!(metric::TOOL_DURATION).record(took),
            EffectResult::Failed(failure) | EffectResult::Unknown(failure) => {
                let code = failure.code.as_str();
                self.span.record(attribute::ERROR_TYPE, code);
                self.span.record("otel.status_code", "ERROR");
                histogram!(metric::TOOL_DURATION, "error_type" => code).record(took);
            }
        }
    }
}

fn chat_span(who: &Who<'_>, attempt: u32, provider: &str, model: &str, request: &ModelRequest) -> Span {
    let span = info_span!(
        target: TARGET,
        operation::CHAT,
        otel.name = format!("{} {model}", operation::CHAT),
        otel.kind = "client",
        otel.status_code = Empty,
        { attribute::OPERATION_NAME } = operation::CHAT,
        { attribute::PROVIDER_NAME } = provider,
        { attribute::REQUEST_MODEL } = model,
        { attribute::REQUEST_STREAM } = request.stream,
        { attribute::REQUEST_MAX_TOKENS } = request.sampling.max_tokens.0,
        { attribute::REQUEST_TEMPERATURE } = request.sampling.temperature,
        { attribute::AGENT_NAME } = who.name,
        { attribute::AGENT_ID } = display(who.agent),
        { attribute::CONVERSATION_ID } = display(who.agent),
        { attribute::WORKLOAD_ID } = display(who.workload),
            { attribute::NODE_ID } = display(who.node),
        { attribute::ATTEMPT } = attempt,
        { attribute::REUSED } = Empty,
        { attribute::RESPONSE_MODEL } = Empty,
        { attribute::RESPONSE_FINISH_REASONS } = Empty,
        { attribute::RESPONSE_TIME_TO_FIRST_CHUNK } = Empty,
        { attribute::USAGE_INPUT_TOKENS } = Empty,
        { attribute::USAGE_OUTPUT_TOKENS } = Empty,
        { attribute::INPUT_MESSAGES } = Empty,
        { attribute::OUTPUT_MESSAGES } = Empty,
        { attribute::ERROR_TYPE } = Empty,
    );
    if !span.is_disabled() && SHOWS_CONTENT.load(Ordering::Relaxed) {
        let mut said = String::new();
        for message in &request.messages {
            let role = match message.role {
                Role::System => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
                Role::Tool => "tool",
            };
            say(&mut said, role, &message.text);
        }
        span.record(attribute::INPUT_MESSAGES, format!("[{said}]"));
    }
    span
}

/// Adds a message to a list of them, as the conventions' JSON, while there is room.
fn say(said: &mut String, role: &str, text: &str) {
    let room = CONTENT_BYTES_MAX.saturating_sub(said.len());
    if room == 0 {
        return;
    }
    let text = &text[..text.floor_char_boundary(room)];
    let comma = if said.is_empty() { "" } else { "," };
    let text = serde_json::Value::from(text);
    // Writing to a string cannot fail.
    let _ = write!(said, r#"{comma}{{"role":"{role}","parts":[{{"type":"text","content":{text}}}]}}"#);
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
        Finish::Filtered => "content_filter",
    }
}

/// Provider and model of a name as programs write it; an empty one is the default.
fn resolve(name: &str) -> (&str, &str) {
    let name = match (name, KNOWN.get()) {
        ("", Some(known)) => known.default_model.as_str(),
        (name, _) => name,
    };
    name.split_once('/').unwrap_or((OTHER, name))
}

/// What may be said of a model in a label.
fn labels(provider: &str, model: &str) -> Labels {
    static OTHERS: LazyLock<Arc<str>> = LazyLock::new(|| OTHER.into());
    let other = || OTHERS.clone();
    let Some(known) = KNOWN.get().filter(|known| known.providers.contains(provider)) else {
        return Labels { provider: other(), model: other() };
    };
    let mut models = known.models.lock().unwrap_or_else(PoisonError::into_inner);
    let model = match models.get(model) {
        Some(model) => model.clone(),
        None if models.len() < MODELS_MAX && model.len() <= MODEL_NAME_BYTES_MAX => {
            let model: Arc<str> = model.into();
            models.insert(model.clone());
            model
        }
        None => other(),
    };
    Labels { provider: provider.into(), model }
}

impl Labels {
    fn three(&self) -> [metrics::Label; 3] {
        [
            metrics::Label::from_static_parts("gen_ai_operation_name", operation::CHAT),
            metrics::Label::new("gen_ai_provider_name", self.provider.clone()),
            metrics::Label::new("gen_ai_request_model", self.model.clone()),
        ]
    }

    fn histogram(&self, name: &'static str) -> Histogram {
        histogram!(name, self.three().to_vec())
    }

    fn tokens(&self, kind: &'static str) -> Histogram {
        let mut labels = self.three().to_vec();
        labels.push(metrics::Label::from_static_parts("gen_ai_token_type", kind));
        histogram!(metric::TOKEN_USAGE, labels)
    }

    fn failures(&self, code: &'static str) -> Histogram {
        let mut labels = self.three().to_vec();
        labels.push(metrics::Label::from_static_parts("error_type", code));
        histogram!(metric::OPERATION_DURATION, labels)
    }
}

/// Takes the time of one decision.
pub(crate) fn step<T>(decide: impl FnOnce() -> T) -> T {
    static STEP: LazyLock<Histogram> = LazyLock::new(|| histogram!(metric::STEP));
    let began = Instant::now();
    let decided = decide();
    STEP.record(began.elapsed().as_secs_f64());
    decided
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_of_the_conventions() {
        let listed = include_str!("../tests/genai-names.txt");
        let known: BTreeSet<&str> = listed.lines().filter(|line| !line.starts_with('#')).collect();
        for name in attribute::ALL {
            assert!(known.contains(name), "{name} is not in the list");
        }
        for name in [operation::CHAT, operation::EXECUTE_TOOL, operation::INVOKE_AGENT] {
            assert!(known.contains(name), "{name} is not in the list");
        }
        for name in
            [metric::TOKEN_USAGE, metric::OPERATION_DURATION, metric::TIME_TO_FIRST_CHUNK, metric::TOOL_DURATION]
        {
            let found = known.iter().any(|known| {
                let plain = known.replace('.', "_");
                plain == name || format!("{plain}_seconds") == name
            });
            assert!(found, "{name} is not in the list");
        }
        let source = include_str!("genai.rs");
        for line in
            source.lines().filter(|line| line.trim_start().starts_with("pub const") && line.contains("\"gen_ai."))
        {
            let name = line.split('"').nth(1).unwrap();
            assert!(attribute::ALL.contains(&name), "{name} is not checked");
        }
    }

    #[test]
    fn only_what_is_configured_has_a_name_and_only_so_many_models() {
        know(["sim".to_owned()], "sim/usual");
        assert_eq!(resolve(""), ("sim", "usual"));
        assert_eq!(resolve("a/b/c"), ("a", "b/c"));
        let told = |name: &str| {
            let (provider, model) = resolve(name);
            let labels = labels(provider, model);
            format!("{} {}", labels.provider, labels.model)
        };
        assert_eq!(told("sim/x"), "sim x");
        assert_eq!(told("secret/x"), "other other");
        assert_eq!(told("no-slash"), "other other");
        assert_eq!(told(&format!("sim/{}", "x".repeat(MODEL_NAME_BYTES_MAX + 1))), "sim other");
        for number in 0..2 * MODELS_MAX {
            told(&format!("sim/{number}"));
        }
        assert_eq!(told("sim/new"), "sim other");
        assert_eq!(told("sim/x"), "sim x", "who was met stays known");
        assert_eq!(KNOWN.get().unwrap().models.lock().unwrap().len(), MODELS_MAX);
    }

    #[test]
    fn a_conversation_is_cut_at_its_bound_and_stays_json() {
        let mut said = String::new();
        say(&mut said, "user", "a \"b\"\n");
        assert_eq!(said, r#"{"role":"user","parts":[{"type":"text","content":"a \"b\"\n"}]}"#);
        for _ in 0..4 {
            say(&mut said, "user", &"é".repeat(CONTENT_BYTES_MAX));
        }
        assert!(said.len() < CONTENT_BYTES_MAX + 1_000, "{}", said.len());
        assert!(serde_json::from_str::<serde_json::Value>(&format!("[{said}]")).is_ok());
    }
}
