//! Effects: requests read off the stack, and answers put in their operands' place.

use std::sync::{Arc, LazyLock};

use nexa_event::effect::{
    self, Answer, ApprovalRequest, ChildSpec, EffectBody, Finish, Handle, Join, Message, ModelReply, ModelRequest,
    Purpose, RecallRequest, Remembered, Role, Sampling, Source, TestCall, TestRequest, ToolCall, ToolChoice, ToolOffer,
    ToolRequest, Wanted,
};
use nexa_types::limits::MEMORY_VALUE_BYTES_MAX;
use nexa_types::{AgentId, Budget, Failure, Millis, Outcome, Payload, RunCode, Seq};

use super::call::merge_arguments;
use super::heap::is_flat;
use super::merge::too_few;
use super::ops::no_text;
use super::question::Question;
use super::raise::Fault;
use super::reuse::is_same;
use super::saved::{Hidden, hidden, keepable};
use super::{CHAIN, Catches, ENTRY_CALLABLE, ResumeError, State, Vm};
use crate::codec;
use crate::failure::{self, field, text as text_field};
use crate::json::validate::describe;
use crate::json::{schema, text_of, try_to_json};
use crate::op::{Asking, ForkMode, MemoryScope, Op, Word};
use crate::value::{Record, Shape, Stage, Value};

/// The channel of `emit` when the program names none.
const MAIN_CHANNEL: &str = "main";

fn shape(type_name: &str, tag: &str, fields: &[&str]) -> Arc<Shape> {
    Arc::new(Shape {
        type_name: type_name.to_owned(),
        tag: tag.to_owned(),
        fields: fields.iter().map(|field| (*field).to_owned()).collect(),
    })
}

static REPLY: LazyLock<Arc<Shape>> =
    LazyLock::new(|| shape("", "", &["text", "finish", "from", "tokens_in", "tokens_out", "calls"]));
static CALL: LazyLock<Arc<Shape>> = LazyLock::new(|| shape("", "", &["id", "name", "arguments"]));
static APPROVED: LazyLock<Arc<Shape>> = LazyLock::new(|| shape("Approval", "approved", &["by", "note"]));
static DENIED: LazyLock<Arc<Shape>> = LazyLock::new(|| shape("Approval", "denied", &["by", "note"]));
/// What a program holds of something that it started. No text and no model can make one.
static HANDLE: LazyLock<Arc<Shape>> = LazyLock::new(|| shape("$handle", "", &["agent", "seq"]));
static MESSAGE: LazyLock<Arc<Shape>> = LazyLock::new(|| shape("", "", &["role", "text", "from"]));

/// The shape of a message of a conversation: `{ role, text, from }`.
pub(crate) fn message_shape() -> Arc<Shape> {
    Arc::clone(&MESSAGE)
}

/// How many operands an effect's instruction pops; `None` if it is no effect.
pub(super) fn operands(word: &Word) -> Option<usize> {
    Some(match word.op {
        Op::AgentRun | Op::CallValue | Op::Spawn => word.a as usize + 1,
        Op::Fork => word.fork_mode()?.operands(word.branches()),
        Op::LLMCall | Op::LLMStream | Op::Emit | Op::Random | Op::Send => 2,
        Op::Approve | Op::SemanticIf => 3,
        Op::Classify => 4,
        Op::MemStore | Op::MemRecall if word.a != MemoryScope::Agent as u64 => 2,
        Op::MemLoad if word.a != MemoryScope::Agent as u64 => 1,
        Op::Sleep | Op::Log | Op::EnterTimed | Op::Await | Op::Receive | Op::Cancel | Op::Timer | Op::Release => 1,
        // Only if there is something to let go of first.
        Op::Restore => 1,
        Op::Now => 0,
        Op::TestCall | Op::ToolCall => usize::from(word.count),
        _ => return None,
    })
}

impl Vm {
    /// The effect that the innermost frame stands at, and how many operands it has.
    fn effect_at(&self) -> Result<(Word, usize), Fault> {
        let frame = self.frames.last().ok_or_else(|| Fault::internal("an effect without a frame"))?;
        if frame.function == CHAIN {
            // A stage of a chain that is an agent: the stage and its argument are on top.
            return Ok((Word { op: Op::CallValue, a: 1, count: 0, b: 0, len: 1 }, 2));
        }
        let code = self.program.module().functions.get(frame.function as usize);
        let code = code.map_or(&[][..], |function| function.code.as_slice());
        // The machine stands at the second of two words if there is a `Wide`.
        let at = frame.pc as usize;
        let is_wide = at > 0 && code.get(at - 1).is_some_and(|word| *word as u8 == Op::Wide as u8);
        let word = Word::read(code, if is_wide { at - 1 } else { at });
        let word = word.ok_or_else(|| Fault::internal("an effect without an instruction"))?;
        let count = operands(&word).ok_or_else(|| Fault::internal("an instruction that is no effect"))?;
        Ok((word, count))
    }

    /// What the effect asks for. The operands stay where they are.
    pub(super) fn effect_body(&self) -> Result<EffectBody, Fault> {
        let (word, count) = self.effect_at()?;
        let from = self.stack.len().checked_sub(count).ok_or_else(|| Fault::internal("an effect without operands"))?;
        let operands = &self.stack[from..];
        Ok(match (word.op, operands) {
            (Op::Now, _) => EffectBody::Now,
            (Op::Random, [Value::Int(low), Value::Int(high)]) if low < high => {
                EffectBody::Random { low: *low, high: *high }
            }
            (Op::Random, [Value::Int(low), Value::Int(high)]) => {
                return Err(Fault::new(RunCode::Index, format!("no number is at least {low} and below {high}")));
            }
            (Op::Log, [value]) => EffectBody::Log(text_of(value).map_err(no_text)?),
            (Op::Emit, [value, Value::Str(channel)]) => {
                EffectBody::Emit { channel: channel.as_ref().to_owned(), value: without_secret(value)? }
            }
            (Op::Emit, [value, Value::None]) => {
                EffectBody::Emit { channel: MAIN_CHANNEL.to_owned(), value: without_secret(value)? }
            }
            (Op::MemStore, [Value::Str(key), value]) => {
                let _looked = keepable(key, value)?;
                let kept = if *value == Value::None { None } else { Some(encode(value)?) };
                let len = kept.as_ref().map_or(0, Payload::len);
                if len > MEMORY_VALUE_BYTES_MAX {
                    let message = format!("a value of {len} bytes; this memory takes up to {MEMORY_VALUE_BYTES_MAX}");
                    return Err(Fault::new(RunCode::Failed, message));
                }
                EffectBody::Remember(Remembered {
                    scope: outer_scope(&word)?,
                    key: key.as_ref().to_owned(),
                    value: kept,
                })
            }
            (Op::MemLoad, [Value::Str(key)]) => {
                let what = Wanted::Key(key.as_ref().to_owned());
                EffectBody::Recall(RecallRequest { scope: outer_scope(&word)?, what })
            }
            (Op::MemRecall, [Value::Str(query), Value::Int(count)]) => {
                let count = crate::recall::hits_wanted(*count) as u32;
                let what = Wanted::Best { query: query.as_ref().to_owned(), count };
                EffectBody::Recall(RecallRequest { scope: outer_scope(&word)?, what })
            }
            (Op::Sleep, [Value::Duration(millis)]) => EffectBody::Sleep(span(*millis)),
            (Op::Approve, [Value::Str(question), data, timeout]) => {
                let data = match data {
                    Value::None => None,
                    data => Some(try_to_json(data).map_err(no_text)?),
                };
                let timeout = match timeout {
                    Value::None => None,
                    Value::Duration(millis) => Some(span(*millis)),
                    other => return Err(unfit("a timeout", other)),
                };
                EffectBody::Approval(ApprovalRequest { question: question.as_ref().to_owned(), data, timeout })
            }
            (Op::LLMCall | Op::LLMStream, [model, Value::List(messages)]) => {
                EffectBody::Model(Box::new(self.model_request(&word, model, messages)?))
            }
            (Op::SemanticIf, [question, subject, rejected]) => {
                let question = Question { asking: asking(&word)?, question, subject, labels: None, rejected };
                EffectBody::Model(Box::new(self.question_request(&question)?))
            }
            (Op::Classify, [question, subject, labels, rejected]) => {
                let question = Question { asking: asking(&word)?, question, subject, labels: Some(labels), rejected };
                EffectBody::Model(Box::new(self.question_request(&question)?))
            }
            (Op::AgentRun | Op::CallValue, [callee, args @ ..]) => EffectBody::Children {
                branches: vec![self.child(callee, args.to_vec(), &mut Encoded::default())?],
                join: Join::All,
            },
            (Op::ToolCall, args) => EffectBody::Tool(Box::new(self.tool_request(&word, args)?)),
            (Op::Fork, operands) => {
                let mode = fork_mode(&word)?;
                let (input, rest) = operands.split_at(usize::from(mode.has_input));
                let (branches, timeout) = rest.split_at(word.branches());
                let timeout = match timeout {
                    [] => None,
                    [Value::Duration(millis)] => Some(span(*millis)),
                    [other, ..] => return Err(unfit("a timeout", other)),
                };
                let mut encoded = Encoded::default();
                let start = |branch: &Value| {
                    let child = self.child(branch, input.to_vec(), &mut encoded)?;
                    let tighter = child.timeout.into_iter().chain(timeout).min();
                    Ok(ChildSpec { timeout: tighter, ..child })
                };
                let branches = branches.iter().map(start).collect::<Result<_, Fault>>()?;
                let join =
                    if mode.is_detached { Join::Detached } else { mode.first_ok.map_or(Join::All, Join::FirstOk) };
                EffectBody::Children { branches, join }
            }
            (Op::TestCall, args) => {
                let call = TestCall::from_number(word.b).ok_or_else(|| Fault::internal("no such call of a test"))?;
                EffectBody::Test(TestRequest { call, args: encode(&Value::List(Arc::new(args.to_vec())))? })
            }
            (Op::Spawn, [callee, args @ ..]) => EffectBody::Children {
                branches: vec![self.child(callee, args.to_vec(), &mut Encoded::default())?],
                join: Join::Handle,
            },
            (Op::EnterTimed, [Value::Duration(millis)]) => EffectBody::Deadline(span(*millis)),
            (Op::Await, [handle]) => EffectBody::Await(handle_of(handle)?),
            (Op::Send, [value, handle]) => EffectBody::Send { to: handle_of(handle)?, value: encode(value)? },
            (Op::Receive, [Value::None]) => EffectBody::Receive { timeout: None },
            (Op::Receive, [Value::Duration(millis)]) => EffectBody::Receive { timeout: Some(span(*millis)) },
            (Op::Cancel, [handle]) => EffectBody::Cancel(handle_of(handle)?),
            (Op::Timer, [Value::Duration(millis)]) => EffectBody::Timer(span(*millis)),
            (Op::Restore, [_]) => match self.to_let_go_of() {
                Some(from) => EffectBody::Release(from),
                None => return Err(Fault::internal("nothing to let go of")),
            },
            (Op::Release, [Value::Int(from)]) => EffectBody::Release(Seq(u64::try_from(*from).unwrap_or(0))),
            (op, operands) => {
                let found: Vec<String> = operands.iter().map(describe).collect();
                return Err(Fault::mismatch(format!("{} got {}", op.name(), found.join(", "))));
            }
        })
    }

    fn model_request(&self, word: &Word, model: &Value, messages: &[Value]) -> Result<ModelRequest, Fault> {
        let module = self.program.module();
        let spec = module.requests.get(word.a as usize).ok_or_else(|| Fault::internal("no such model request"))?;
        let model = match model {
            Value::Str(model) => model.as_ref().to_owned(),
            Value::None => String::new(),
            other => return Err(unfit("the name of a model", other)),
        };
        let (tools, tool_choice) = self.offered(word.a as u32);
        Ok(ModelRequest {
            agent: spec.agent.clone(),
            purpose: Purpose::Agent,
            model,
            messages: messages.iter().map(|value| self.message(value)).collect::<Result<_, _>>()?,
            schema: spec.answer.map(|ty| schema(module, ty)),
            tools,
            tool_choice,
            sampling: Sampling {
                temperature: spec.temperature,
                top_p: spec.top_p,
                max_tokens: spec.max_tokens,
                seed: spec.seed,
                stop: spec.stop.clone(),
            },
            stream: word.op == Op::LLMStream,
            cache: module.cached.binary_search(&(word.a as u32)).is_ok(),
            memory: module.memory_of(word.a as u32),
            timeout: spec.timeout,
        })
    }

    /// What a model request offers.
    fn offered(&self, request: u32) -> (Vec<ToolOffer>, ToolChoice) {
        let module = self.program.module();
        let Ok(at) = module.offers.binary_search_by_key(&request, |offer| offer.request) else {
            return (Vec::new(), ToolChoice::Auto);
        };
        let offer = &module.offers[at];
        let tools = offer.tools.iter().map(|tool| ToolOffer {
            name: tool.name.clone(),
            description: tool.description.clone(),
            schema: schema(module, tool.args),
        });
        (tools.collect(), offer.choice)
    }

    fn tool_request(&self, word: &Word, args: &[Value]) -> Result<ToolRequest, Fault> {
        let module = self.program.module();
        let tool = module.tools.get(usize::from(word.b)).ok_or_else(|| Fault::internal("no such tool"))?;
        let shape = Shape { fields: tool.params.clone(), ..Shape::default() };
        let record = Value::Record(Arc::new(Record { shape: Arc::new(shape), values: args.to_vec() }));
        let key = match tool.key.and_then(|key| args.get(key as usize)) {
            None | Some(Value::None) => None,
            Some(value) => Some(text_of(value).map_err(no_text)?),
        };
        Ok(ToolRequest {
            tool: tool.name.clone(),
            source: tool.source.clone(),
            args: try_to_json(&record).map_err(no_text)?,
            risk: tool.risk,
            effect: tool.effect,
            idempotent: tool.idempotent,
            key,
            limits: tool.limits.clone(),
            timeout: tool.timeout,
        })
    }

    fn message(&self, value: &Value) -> Result<Message, Fault> {
        let role = match field(value, "role").and_then(text_field) {
            Some("system") => Role::System,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("tool") => Role::Tool,
            _ => return Err(unfit("a message with the role system, user, assistant or tool", value)),
        };
        let source = match field(value, "from") {
            Some(Value::Int(0)) => Source::Program,
            Some(Value::Int(-1)) => Source::Derived,
            Some(Value::Int(seq)) if *seq > 0 && (*seq as u64) < self.next_seq.0 => Source::Answer(Seq(*seq as u64)),
            _ => return Err(unfit("a message that says where its text is from", value)),
        };
        let text = field(value, "text").and_then(text_field).ok_or_else(|| unfit("a message with a text", value))?;
        let mut message = Message::new(role, text, source);
        if let Some(Value::List(calls)) = field(value, "calls") {
            let of = |call: &Value, name| field(call, name).and_then(text_field).map(str::to_owned);
            let call = |call: &Value| {
                let (id, name, arguments) = (of(call, "id")?, of(call, "name")?, of(call, "arguments")?);
                Some(ToolCall { id, name, arguments })
            };
            let calls: Option<Vec<ToolCall>> = calls.iter().map(call).collect();
            message.tool_calls = calls.ok_or_else(|| unfit("a message with calls of tools", value))?;
        }
        message.tool_call_id = field(value, "call").and_then(text_field).map(str::to_owned);
        Ok(message)
    }

    /// What starts a callable as a child. An agent starts as its function; a function without captures as itself; any
    /// other callable as [`ENTRY_CALLABLE`].
    fn child(&self, callee: &Value, args: Vec<Value>, encoded: &mut Encoded) -> Result<ChildSpec, Fault> {
        let module = self.program.module();
        let mut callee = callee.clone();
        let mut args = args;
        while let Value::Stage(stage) = &callee {
            let Stage::Partial { callee: inner, args: placed, open } = &**stage else { break };
            args = merge_arguments(placed, *open, std::mem::take(&mut args))?;
            callee = inner.clone();
        }
        let name = self.name_of(&callee);
        let mut plain = |name, entry, args, budget, timeout| {
            Ok(ChildSpec { name, entry, args: encoded.arguments(args)?, budget, timeout, asks: None })
        };
        let check = |wanted: usize, found: usize| {
            if wanted == found {
                Ok(())
            } else {
                Err(Fault::mismatch(format!("`{name}` takes {wanted} arguments and got {found}")))
            }
        };
        match &callee {
            Value::Agent(index) => {
                let agent =
                    module.agents.get(*index as usize).ok_or_else(|| Fault::mismatch("an agent of another program"))?;
                check(agent.params.len(), args.len())?;
                plain(name, agent.function, args, agent.budget, agent.timeout)
            }
            Value::Closure(closure) => {
                let function = module.functions.get(closure.function as usize);
                let function = function.ok_or_else(|| Fault::mismatch("a function of another program"))?;
                check(usize::from(function.arity), args.len())?;
                if closure.captures.is_empty() {
                    plain(name, closure.function, args, Budget::default(), None)
                } else {
                    args.insert(0, callee);
                    plain(name, ENTRY_CALLABLE, args, Budget::default(), None)
                }
            }
            Value::Stage(_) => {
                check(1, args.len())?;
                args.insert(0, callee);
                plain(name, ENTRY_CALLABLE, args, Budget::default(), None)
            }
            other => Err(Fault::mismatch(format!("{} cannot be run as an agent", describe(other)))),
        }
    }

    /// The name that people see: the callee's; for a chain, its stages' names joined.
    fn name_of(&self, callee: &Value) -> String {
        let module = self.program.module();
        match callee {
            Value::Agent(index) => module.agents.get(*index as usize).map(|agent| agent.name.clone()),
            Value::Closure(closure) => module.functions.get(closure.function as usize).map(|f| f.name.clone()),
            Value::Stage(stage) => match &**stage {
                Stage::Partial { callee, .. } => Some(self.name_of(callee)),
                Stage::Chain(stages) => {
                    let names: Vec<String> = stages.iter().take(8).map(|stage| self.name_of(stage)).collect();
                    Some(names.join(" >> "))
                }
            },
            _ => None,
        }
        .unwrap_or_else(|| "?".to_owned())
    }

    /// Puts an answer in the place of the pending effect's operands, or raises its failure there.
    pub(super) fn take_answer(&mut self, seq: Seq, answer: Result<Answer, Failure>) -> Result<(), ResumeError> {
        let wrong = |why| ResumeError::WrongAnswer { seq, why };
        let (word, count) = self.effect_at().map_err(|_| ResumeError::NothingPending { seq })?;
        let result = match answer {
            Err(failure) => Err(Fault::Failure(Box::new(failure))),
            Ok(Answer::Now(due)) if word.op == Op::EnterTimed => {
                self.state = State::Running;
                let keep = self.stack.len().saturating_sub(count);
                self.stack.truncate(keep);
                let entered = self.handle(word.a as u32, Catches::Time { scope: seq, due, fired: false });
                if let Some(frame) = self.frames.last_mut() {
                    frame.pc += 1;
                }
                return entered.map(|_| ()).map_err(|_| wrong("no frame is left"));
            }
            Ok(Answer::Done) if word.op == Op::Restore => {
                self.state = State::Running;
                if let Err(fault) = self.gone_back() {
                    let _ended = self.raise(fault);
                }
                return Ok(());
            }
            Ok(answer) => self.answer_value(&word, count, seq, answer).map_err(wrong)?,
        };
        self.state = State::Running;
        let keep = self.stack.len().saturating_sub(count);
        let result = result.and_then(|value| {
            self.stack.truncate(keep);
            self.push_new(value)
        });
        match result {
            Ok(()) => {
                if let Some(frame) = self.frames.last_mut()
                    && frame.function != CHAIN
                {
                    frame.pc += 1;
                }
            }
            Err(fault) => {
                // Either a handler goes on, or the VM has ended; `run` says which.
                let _ended = self.raise(fault);
            }
        }
        Ok(())
    }

    /// The value of an answer; the outer error says that it does not fit, the inner one is the child's own.
    fn answer_value(
        &self,
        word: &Word,
        count: usize,
        seq: Seq,
        answer: Answer,
    ) -> Result<Result<Value, Fault>, &'static str> {
        Ok(match (word.op, answer) {
            (
                Op::Log | Op::Emit | Op::Sleep | Op::Send | Op::Cancel | Op::Release | Op::Await | Op::MemStore,
                Answer::Done,
            ) => Ok(Value::Unit),
            (Op::Timer, Answer::Done) => Ok(handle_value(None, seq)),
            (Op::Spawn, Answer::Started(agent)) => Ok(handle_value(Some(agent), seq)),
            (Op::Receive, Answer::Message(payload)) => Ok(decode(&payload)?),
            (Op::MemLoad, Answer::Memory(None)) => Ok(Value::None),
            (Op::MemLoad, Answer::Memory(Some(payload))) => Ok(remembered(&payload)?),
            (Op::MemRecall, Answer::Memory(Some(payload))) => match remembered(&payload)? {
                hits @ Value::List(_) => Ok(hits),
                _ => return Err("a recall gives a list"),
            },
            (Op::Now, Answer::Now(time)) => Ok(Value::Int(i64::try_from(time.0).unwrap_or(i64::MAX))),
            (Op::Random, Answer::Random(number)) => {
                let from = self.stack.len().saturating_sub(count);
                match &self.stack[from..] {
                    [Value::Int(low), Value::Int(high)] if (*low..*high).contains(&number) => Ok(Value::Int(number)),
                    _ => return Err("the number is outside the range that was asked for"),
                }
            }
            (Op::LLMCall | Op::LLMStream | Op::SemanticIf | Op::Classify, Answer::Model(reply)) => {
                Ok(reply_value(&reply, seq))
            }
            (Op::ToolCall, Answer::Value(payload)) => {
                Ok(codec::decode(&payload).map_err(|_| "a tool's value cannot be decoded")?)
            }
            (Op::Approve, Answer::Approval(decision)) => {
                let shape = if decision.approved { &*APPROVED } else { &*DENIED };
                let values = vec![Value::Str(decision.by.as_str().into()), Value::Str(decision.note.as_str().into())];
                Ok(Value::Variant(Arc::new(Record { shape: Arc::clone(shape), values })))
            }
            (Op::AgentRun | Op::CallValue | Op::Await, Answer::Children(outcomes)) => {
                match <[Outcome; 1]>::try_from(outcomes) {
                    Ok([Outcome::Ok(payload)]) => Ok(decode(&payload)?),
                    // What nobody can catch ended the child; here it is an error like others.
                    Ok([Outcome::Err(failure)]) => Err(Fault::Raised(failure::to_value(&failure))),
                    Err(_) => return Err("one child was started"),
                }
            }
            (Op::Fork, Answer::Done) if word.fork_mode().is_some_and(|mode| mode.is_detached) => Ok(Value::Unit),
            (Op::Fork, _) if word.fork_mode().is_some_and(|mode| mode.is_detached) => {
                return Err("it answers another kind of effect");
            }
            (Op::Fork, answer) => match (word.fork_mode().and_then(|mode| mode.first_ok), answer) {
                (None, Answer::Children(outcomes)) if outcomes.len() == word.branches() => {
                    Ok(Value::List(Arc::new(results(&outcomes)?)))
                }
                (None, Answer::Children(_)) => return Err("there is not one outcome for each branch"),
                (Some(_), Answer::Value(payload)) => Ok(decode(&payload)?),
                (Some(wanted), Answer::Children(outcomes)) => {
                    let count =
                        |is_ok| outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Ok(_)) == is_ok).count();
                    let (ok, failed) = (count(true), count(false));
                    if ok >= usize::from(wanted) || failed == 0 || outcomes.len() > word.branches() {
                        return Err("enough branches have ended ok");
                    }
                    Err(too_few(&results(&outcomes)?, word.branches(), usize::from(wanted)))
                }
                _ => return Err("it answers another kind of effect"),
            },
            (Op::TestCall, Answer::Tested(payload)) => Ok(decode(&payload)?),
            _ => return Err("it answers another kind of effect"),
        })
    }
}

/// How a fork runs its branches; the verifier lets no other flags through.
fn fork_mode(word: &Word) -> Result<ForkMode, Fault> {
    word.fork_mode().ok_or_else(|| Fault::internal("a fork without a mode"))
}

/// The results of branches as a program sees them.
fn results(outcomes: &[Outcome]) -> Result<Vec<Value>, &'static str> {
    let result = |outcome: &Outcome| {
        Ok(match outcome {
            Outcome::Ok(payload) => Value::Ok(Arc::new(decode(payload)?)),
            Outcome::Err(failure) => Value::Err(Arc::new(failure::to_value(failure))),
        })
    };
    outcomes.iter().map(result).collect()
}

/// What a question is for; the verifier lets no other operand through.
fn asking(word: &Word) -> Result<Asking, Fault> {
    Asking::from_number(word.a).ok_or_else(|| Fault::internal("a question without a purpose"))
}

fn reply_value(reply: &ModelReply, seq: Seq) -> Value {
    let finish = match reply.finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
        Finish::Filtered => "filtered",
    };
    let count = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    Value::Record(Arc::new(Record {
        shape: Arc::clone(&REPLY),
        values: vec![
            Value::Str(reply.text.as_str().into()),
            Value::Str(finish.into()),
            count(seq.0),
            count(reply.spend.tokens_in.0),
            count(reply.spend.tokens_out.0),
            Value::List(Arc::new(reply.tool_calls.iter().map(call_value).collect())),
        ],
    }))
}

fn handle_value(agent: Option<AgentId>, seq: Seq) -> Value {
    let agent = agent.map(|agent| agent.to_string()).unwrap_or_default();
    let seq = Value::Int(i64::try_from(seq.0).unwrap_or(i64::MAX));
    Value::Record(Arc::new(Record { shape: Arc::clone(&HANDLE), values: vec![Value::Str(agent.as_str().into()), seq] }))
}

fn handle_of(value: &Value) -> Result<Handle, Fault> {
    let unfit = || unfit("a handle", value);
    let Value::Record(record) = value else { return Err(unfit()) };
    match record.values.as_slice() {
        [Value::Str(agent), Value::Int(seq)] if record.shape == *HANDLE => {
            let agent = match &**agent {
                "" => None,
                agent => Some(agent.parse().map_err(|_| unfit())?),
            };
            Ok(Handle { agent, seq: Seq(u64::try_from(*seq).map_err(|_| unfit())?) })
        }
        _ => Err(unfit()),
    }
}

/// The arguments that were encoded last. Branches with the same ones share one payload.
#[derive(Default)]
struct Encoded {
    args: Arc<Vec<Value>>,
    payload: Option<Payload>,
}

impl Encoded {
    fn arguments(&mut self, args: Vec<Value>) -> Result<Payload, Fault> {
        let is_same = |(x, y)| is_same(x, y) || is_flat(x) && x == y;
        if let Some(payload) = &self.payload
            && args.len() == self.args.len()
            && args.iter().zip(self.args.iter()).all(is_same)
        {
            return Ok(payload.clone());
        }
        self.args = Arc::new(args);
        let payload = encode(&Value::List(Arc::clone(&self.args)))?;
        self.payload = Some(payload.clone());
        Ok(payload)
    }
}

fn call_value(call: &ToolCall) -> Value {
    let values = [&call.id, &call.name, &call.arguments].map(|text| Value::Str(text.as_str().into())).to_vec();
    Value::Record(Arc::new(Record { shape: Arc::clone(&CALL), values }))
}

/// About how many bytes were written to say what an effect asks for.
pub(super) fn effect_bytes(body: &EffectBody) -> u64 {
    let len = match body {
        EffectBody::Log(line) => line.len(),
        EffectBody::Emit { value, .. } | EffectBody::Send { value, .. } => value.len(),
        EffectBody::Remember(entry) => entry.value.as_ref().map_or(0, Payload::len),
        EffectBody::Children { branches, .. } => branches.iter().map(|branch| branch.args.len()).sum(),
        EffectBody::Model(request) => request.messages.iter().map(|message| message.text.len()).sum(),
        EffectBody::Approval(request) => request.data.as_ref().map_or(0, String::len),
        EffectBody::Tool(request) => request.args.len(),
        EffectBody::Test(request) => request.args.len(),
        _ => 0,
    };
    len as u64
}

fn encode(value: &Value) -> Result<Payload, Fault> {
    codec::try_encode(value).map_err(|error| Fault::new(error.code(), error.to_string()))
}

/// A value for people to see.
fn without_secret(value: &Value) -> Result<Payload, Fault> {
    if hidden(value) == Some(Hidden::Secret) {
        return Err(Fault::new(RunCode::SecretLeak, "a secret was about to be emitted"));
    }
    encode(value)
}

fn decode(payload: &Payload) -> Result<Value, &'static str> {
    codec::decode(payload).map_err(|_| "its value cannot be decoded")
}

fn remembered(payload: &Payload) -> Result<Value, &'static str> {
    codec::decode(payload).map_err(|_| "what a memory has cannot be decoded")
}

fn outer_scope(word: &Word) -> Result<effect::MemoryScope, Fault> {
    match MemoryScope::from_number(word.a) {
        Some(MemoryScope::Workload) => Ok(effect::MemoryScope::Workload),
        Some(MemoryScope::Tenant) => Ok(effect::MemoryScope::Tenant),
        _ => Err(Fault::internal("a memory that is nobody's")),
    }
}

pub(super) fn unfit(wanted: &str, found: &Value) -> Fault {
    Fault::mismatch(format!("expected {wanted}, found {}", describe(found)))
}

/// A span of time; the past counts as now.
fn span(millis: i64) -> Millis {
    Millis(u64::try_from(millis).unwrap_or(0))
}
