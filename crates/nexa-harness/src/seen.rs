//! What a test can ask about its run: who was called with what, which models were named, what the client was told.

use std::sync::Arc;

use nexa_event::effect::{TestCall, TestRequest};
use nexa_types::{Failure, Payload, RunCode, Timestamp};
use nexa_vm::codec;
use nexa_vm::value::{Record, Shape, Value};

use crate::script::Script;

/// A call of an agent or tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Whose.
    pub name: String,
    /// Its first argument; `()` if it has none.
    pub input: Value,
}

/// Something that the client was told.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    kind: &'static str,
    agent: String,
    channel: String,
    value: Value,
}

/// What was seen so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Agents and tools in the order in which they started.
    pub calls: Vec<Call>,
    /// Questions that models were asked about values.
    pub asks: Vec<String>,
    /// For each request of an agent to a model: the agent, and the model that it named.
    pub models: Vec<(String, String)>,
    /// What was printed, and by whom.
    pub printed: Vec<(String, String)>,
    told: Vec<Told>,
}

impl Seen {
    /// Notes what an agent sent to the client.
    pub(crate) fn emitted(&mut self, agent: &str, channel: &str, value: &Payload) {
        let value = codec::decode(value).unwrap_or(Value::None);
        self.told.push(Told { kind: "emitted", agent: agent.to_owned(), channel: channel.to_owned(), value });
    }

    /// Notes that a detached branch failed.
    pub(crate) fn detached_failed(&mut self, name: &str, failure: &Failure) {
        let value = nexa_vm::failure::to_value(failure);
        let (agent, channel) = (name.to_owned(), String::new());
        self.told.push(Told { kind: "detached_failed", agent, channel, value });
    }

    /// The answer to what a test asks at a moment.
    pub(crate) fn answer(
        &self,
        request: &TestRequest,
        script: &mut Script,
        now: Timestamp,
    ) -> Result<Payload, Failure> {
        let args = match codec::decode(&request.args) {
            Ok(Value::List(args)) => args,
            _ => return Err(Failure::new(RunCode::Failed, "the arguments of a test's helper are damaged")),
        };
        let name = match args.first() {
            Some(Value::Str(name)) => name,
            _ => "",
        };
        let value = match request.call {
            TestCall::Script => {
                script.set_from(&args)?;
                Value::Unit
            }
            TestCall::Calls => texts(self.calls.iter().map(|call| call.name.as_str())),
            TestCall::Inputs => {
                list(self.calls.iter().filter(|call| call.name == name).map(|call| call.input.clone()).collect())
            }
            TestCall::Asks => texts(self.asks.iter().map(String::as_str)),
            TestCall::Models => {
                texts(self.models.iter().filter(|(agent, _)| agent == name).map(|(_, model)| model.as_str()))
            }
            TestCall::Events => list(self.told.iter().map(Told::value).collect()),
            TestCall::Clock => Value::Duration(i64::try_from(now.0).unwrap_or(i64::MAX)),
        };
        codec::try_encode(&value).map_err(|error| Failure::new(RunCode::OutOfMemory, error.to_string()))
    }
}

impl Told {
    /// `{ kind, agent, channel, value }`
    fn value(&self) -> Value {
        let fields = ["kind", "agent", "channel", "value"].map(str::to_owned).to_vec();
        let shape = Arc::new(Shape { type_name: String::new(), tag: String::new(), fields });
        let values = vec![text(self.kind), text(&self.agent), text(&self.channel), self.value.clone()];
        Value::Record(Arc::new(Record { shape, values }))
    }
}

fn text(text: &str) -> Value {
    Value::Str(text.into())
}

fn texts<'t>(items: impl Iterator<Item = &'t str>) -> Value {
    list(items.map(text).collect())
}

fn list(items: Vec<Value>) -> Value {
    Value::List(Arc::new(items))
}
