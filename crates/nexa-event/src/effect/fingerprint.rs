//! The hash of a request, by which a replay shows that it asks for the same.

use super::{EffectBody, ModelRequest, Purpose, ToolRequest, Wanted};

/// A hash of a request, so that a replay can show that it asks for the same.
///
/// Every text goes in with its length and every list with its count, so different requests are never read as the same.
pub fn fingerprint(body: &EffectBody) -> [u8; 32] {
    let mut parts = Parts::new();
    match body {
        EffectBody::Model(request) => return model_fingerprint(request),
        EffectBody::Approval(request) => {
            parts.text("approval");
            parts.text(&request.question);
            parts.text(request.data.as_deref().unwrap_or(""));
        }
        EffectBody::Recall(request) => {
            parts.text("recall");
            parts.text(request.scope.as_str());
            match &request.what {
                Wanted::Key(key) => {
                    parts.text("key");
                    parts.text(key);
                }
                Wanted::Best { query, count } => {
                    parts.text("best");
                    parts.text(query);
                    parts.count(*count as usize);
                }
            }
        }
        EffectBody::Tool(request) => {
            parts.text("tool");
            parts.tool(request);
        }
        // Local effects have no record, and the record of a log effect holds the effect itself.
        EffectBody::Now
        | EffectBody::Random { .. }
        | EffectBody::Log(_)
        | EffectBody::Emit { .. }
        | EffectBody::Children { .. }
        | EffectBody::Sleep(_)
        | EffectBody::Remember(_)
        | EffectBody::Test(_)
        | EffectBody::Deadline(_)
        | EffectBody::Await(_)
        | EffectBody::Send { .. }
        | EffectBody::Receive { .. }
        | EffectBody::Cancel(_)
        | EffectBody::Timer(_)
        | EffectBody::Release(_) => parts.text("not outside"),
    }
    *parts.0.finalize().as_bytes()
}

/// The same hash of a request to a model. Requests of equal hashes ask for the same: whatever decides the answer is in it,
/// and neither who asks in which run nor how long it may take.
pub fn model_fingerprint(request: &ModelRequest) -> [u8; 32] {
    let mut parts = Parts::new();
    parts.text("model");
    parts.model(request);
    *parts.0.finalize().as_bytes()
}

/// A hash that is fed part by part.
struct Parts(blake3::Hasher);

impl Parts {
    fn new() -> Self {
        Self(blake3::Hasher::new_derive_key("nexa.v1 effect request"))
    }

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
        // An agent's own turn adds nothing, so that the prints in older logs still hold.
        match &request.purpose {
            Purpose::Agent => {}
            Purpose::Semantic { question } => {
                self.text("semantic");
                self.text(question);
            }
            Purpose::Intent => self.text("intent"),
            Purpose::Judge => self.text("judge"),
            Purpose::Reflect => self.text("reflect"),
        }
        // As with the purpose: what most requests have adds nothing.
        if request.cache {
            self.text("cache");
        }
    }

    fn tool(&mut self, request: &ToolRequest) {
        self.text(&request.tool);
        self.text(&request.source.to_string());
        self.text(&request.args);
        self.option(request.key.as_deref());
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

    use nexa_types::{Millis, Seq, Tokens};

    use super::*;
    use crate::effect::{
        Message, Risk, Role, Sampling, Source, ToolCall, ToolChoice, ToolEffect, ToolLimits, ToolOffer, ToolSource,
    };

    fn request() -> ModelRequest {
        let sampling =
            Sampling { temperature: 0.5, top_p: 1.0, max_tokens: Tokens(9), seed: None, stop: vec!["END".into()] };
        let call = |id: &str| ToolCall { id: id.into(), name: "find".into(), arguments: "{}".into() };
        ModelRequest {
            agent: "Helper".into(),
            purpose: Purpose::Agent,
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
            cache: false,
            memory: None,
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
        |it| it.cache = true,
        |it| {
            it.cache = true;
            it.purpose = Purpose::Intent;
        },
        |it| it.purpose = Purpose::Semantic { question: String::new() },
        |it| it.purpose = Purpose::Semantic { question: "intent".into() },
        |it| it.purpose = Purpose::Intent,
        |it| it.purpose = Purpose::Judge,
        |it| it.purpose = Purpose::Reflect,
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
    fn calls_of_tools_that_differ_have_other_fingerprints() {
        let call = ToolRequest {
            tool: "find".into(),
            source: ToolSource::Builtin { name: "x".into() },
            args: "{}".into(),
            risk: Risk::Medium,
            effect: ToolEffect::Write,
            idempotent: false,
            key: None,
            limits: ToolLimits::default(),
            timeout: Millis(1),
        };
        let changes: &[fn(&mut ToolRequest)] = &[
            |_| {},
            |it| it.tool.push('2'),
            |it| it.source = ToolSource::Builtin { name: "y".into() },
            |it| it.source = ToolSource::Mcp { server: "x".into(), name: "x".into() },
            |it| it.args = r#"{"q":1}"#.into(),
            |it| it.key = Some(String::new()),
            |it| it.key = Some("k".into()),
        ];
        let print = |change: &fn(&mut ToolRequest)| {
            let mut changed = call.clone();
            change(&mut changed);
            fingerprint(&EffectBody::Tool(Box::new(changed)))
        };
        assert_eq!(changes.iter().map(print).collect::<BTreeSet<_>>().len(), changes.len());
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
