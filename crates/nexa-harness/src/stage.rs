//! One workload on a stage: its agents, the queue of what will happen to them, and the time.
//!
//! Nothing takes time but what says so: a turn with `after`, a `sleep`, a deadline. Two things that are due at the same
//! moment happen in the order in which they came into the queue. An agent that was woken computes until it waits, in
//! however many slices, and only then goes what it wants into the queue: births, messages to others, its deadline, its
//! own request. So the order is the same whatever the fuel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nexa_agent::{Agent, AnswerKey, Answers, Input, OutsideEffect, Step, describe};
use nexa_event::effect::{Answer, EffectBody, ModelRequest, Purpose, ToolEffect, ToolRequest};
use nexa_event::fact::{self, AgentEvent, EffectResult, Intent, Program as Runs, Spawned};
use nexa_types::limits::SLICE_FUEL;
use nexa_types::{
    AgentId, AgentState, Budget, Epoch, Failure, GlobalSeq, InputId, Millis, NodeId, Outcome, RequestId, RunCode, Seq,
    Spend, TenantId, Timestamp, WorkloadId,
};
use nexa_view::{MemoryBook, MemoryEntry, MemoryPlace};
use nexa_vm::recall::look_up;
use nexa_vm::value::Value;
use nexa_vm::vm::Program;
use nexa_vm::{codec, json};

use crate::script::{Script, Target, decision_result, model_result, tool_result};
use crate::seen::{Call, Seen};

/// The most steps of one run at full pace; a stopping one may take [`Pace::Stopping`]'s factor more. A test that needs
/// more does not end.
pub const STEPS_MAX: u64 = 100_000;
/// At fuel 1 a slice is an instruction, so a run takes many more steps.
const STOPPING_FACTOR: u64 = 100;

/// How a run is cut into slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Slices as a node has them.
    Full,
    /// Every safepoint ends a slice, and after every step the agent becomes bytes and is made of them again.
    Stopping,
}

/// One agent.
struct Seat {
    agent: Agent,
    name: String,
    stream: Vec<(AgentEvent, Timestamp)>,
    logs: Vec<String>,
    posted: BTreeSet<InputId>,
    /// The deadline that is in the queue.
    armed: Option<Timestamp>,
}

/// What happens next to an agent.
enum Event {
    Wake(Box<Input>),
    /// A model's answer to a request that may be answered by it again.
    Answered(Box<(AnswerKey, Input)>),
    /// The deadline that was armed for now.
    Due,
    /// The question of a test, answered when its turn comes.
    Asked(Seq),
}

fn wake(input: Input) -> Event {
    Event::Wake(Box::new(input))
}

/// A workload that is being run.
pub struct Stage {
    program: Arc<Program>,
    pace: Pace,
    seats: BTreeMap<AgentId, Seat>,
    births: Vec<AgentId>,
    queue: BTreeMap<(Timestamp, u64), (AgentId, Event)>,
    arrived: u64,
    now: Timestamp,
    steps: u64,
    script: Script,
    seen: Seen,
    memories: MemoryBook,
    answers: Answers,
    /// How many entries were stored, which is their order.
    stored: u64,
}

/// A run that is over.
pub struct Run {
    /// How the root ended, or that it never would have.
    pub outcome: Outcome,
    /// How much virtual time had passed when the root ended.
    pub clock: Millis,
    /// What was seen.
    pub seen: Seen,
    /// How many steps all agents took.
    pub steps: u64,
    program: Arc<Program>,
    seats: BTreeMap<AgentId, Seat>,
    births: Vec<AgentId>,
}

impl Stage {
    /// A workload whose root runs a function of a program with these arguments.
    pub fn new(program: Arc<Program>, name: &str, entry: u32, args: Vec<Value>, pace: Pace) -> Self {
        let workload = WorkloadId::of(&TenantId::local(), RequestId::from_bytes([1; 16]));
        let args = codec::encode(&Value::List(Arc::new(args)));
        let first = Spawned {
            workload,
            name: name.to_owned(),
            parent: None,
            program: Runs::Function { module: program.hash(), entry, args },
            budget: Budget::default(),
            deadline: None,
            seed: 1,
            depth: 0,
            priority: 128,
            asks: None,
        };
        let mut stage = Self {
            program,
            pace,
            seats: BTreeMap::new(),
            births: Vec::new(),
            queue: BTreeMap::new(),
            arrived: 0,
            now: Timestamp(0),
            steps: 0,
            script: Script::default(),
            seen: Seen::default(),
            memories: MemoryBook::default(),
            answers: Answers::default(),
            stored: 0,
        };
        stage.seat(AgentId::root(workload), first);
        stage
    }

    /// With rules that hold before the test sets its own.
    #[must_use]
    pub fn with_script(mut self, script: Script) -> Self {
        self.script = script;
        self
    }

    fn seat(&mut self, id: AgentId, first: Spawned) {
        let agent = match Agent::born(id, &first, Arc::clone(&self.program)) {
            Ok(agent) => agent,
            // All agents of a workload run the module of its root, which this program is.
            Err(_) => return,
        };
        let name = first.name.clone();
        let stream = vec![(AgentEvent::Spawned(first), self.now)];
        let seat = Seat { agent, name, stream, logs: Vec::new(), posted: BTreeSet::new(), armed: None };
        self.seats.insert(id, seat);
        self.births.push(id);
        let node = NodeId::new("harness").expect("a plain word is a node's name");
        self.push(self.now, id, wake(Input::Start { node, epoch: Epoch(1) }));
    }

    fn push(&mut self, due: Timestamp, id: AgentId, event: Event) {
        self.arrived += 1;
        self.queue.insert((due, self.arrived), (id, event));
    }

    /// Runs everything that will ever happen.
    pub fn play(mut self) -> Run {
        let root = self.births.first().copied();
        let mut ended_at = None;
        let most = if self.pace == Pace::Full { STEPS_MAX } else { STEPS_MAX * STOPPING_FACTOR };
        while let Some(((due, _), (id, event))) = self.queue.pop_first() {
            let Some(seat) = self.seats.get_mut(&id).filter(|seat| seat.agent.end().is_none()) else { continue };
            let input = match event {
                Event::Wake(input) => *input,
                Event::Answered(answered) => {
                    let (key, input) = *answered;
                    if let Input::EffectEnded { result: EffectResult::Done(Answer::Model(reply)), .. } = &input {
                        self.answers.keep(key, reply);
                    }
                    input
                }
                Event::Due if seat.armed == Some(due) => {
                    seat.armed = None;
                    Input::Due
                }
                Event::Due => continue,
                Event::Asked(seq) => match seat.agent.test_request().filter(|(asked, _)| *asked == seq) {
                    Some((_, request)) => {
                        let now = self.now.max(due);
                        let result = match self.seen.answer(&request, &mut self.script, now) {
                            Ok(payload) => EffectResult::Done(Answer::Tested(payload)),
                            Err(failure) => EffectResult::Failed(failure),
                        };
                        Input::EffectEnded { seq, attempt: 0, result, spend: Spend::default() }
                    }
                    None => continue,
                },
            };
            self.now = self.now.max(due);
            if !self.wake(id, input, most) {
                break;
            }
            if Some(id) == root && self.seats.get(&id).is_some_and(|seat| seat.agent.end().is_some()) {
                ended_at = Some(self.now);
            }
        }
        let end = root.and_then(|root| self.seats.get(&root)?.agent.end().cloned());
        let outcome = end.map_or_else(|| Outcome::Err(self.unended(most)), |end| end.outcome);
        let Self { program, seats, births, steps, seen, now, .. } = self;
        Run { outcome, clock: Millis(ended_at.unwrap_or(now).0), seen, steps, program, seats, births }
    }

    /// Why the root has not ended though nothing will ever happen.
    fn unended(&self, most: u64) -> Failure {
        if self.steps >= most {
            let message = format!("the test takes more than {most} steps and seems not to end");
            return Failure::new(RunCode::Timeout, message);
        }
        let waits = self.seats.values().filter(|seat| seat.agent.end().is_none());
        let told = |seat: &Seat| match seat.agent.state() {
            AgentState::Waiting(what) => format!("`{}` waits ({what})", seat.name),
            state => format!("`{}` is {state}", seat.name),
        };
        let waits: Vec<String> = waits.map(told).collect();
        let message = format!("nothing more will happen, and the test has not ended: {}", waits.join(", "));
        Failure::new(RunCode::Timeout, message)
    }

    /// Gives an agent an input and lets it compute until it waits. False if the run has taken too many steps.
    fn wake(&mut self, id: AgentId, input: Input, most: u64) -> bool {
        let fuel = if self.pace == Pace::Full { SLICE_FUEL } else { 1 };
        let (mut births, mut posts, mut facts) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = Some(input);
        let Some(seat) = self.seats.get_mut(&id) else { return true };
        while let Some(input) = next.take() {
            self.steps += 1;
            if self.steps >= most {
                return false;
            }
            let step = seat.agent.step(input, self.now, fuel);
            let Step { facts: more_facts, births: more_births, posts: more_posts, logs, more, .. } = step;
            facts.extend(more_facts);
            births.extend(more_births);
            posts.extend(more_posts);
            self.seen.printed.extend(logs.iter().map(|line| (seat.name.clone(), line.clone())));
            seat.logs.extend(logs);
            next = more.then_some(Input::Continue);
            if self.pace == Pace::Stopping {
                seat.freeze(&self.program);
            }
        }
        seat.stream.extend(facts.iter().map(|event| (event.clone(), self.now)));
        for (child, first) in births {
            self.seat(child, first);
        }
        for (to, entry, input) in posts {
            self.post(to, entry, input);
        }
        self.arm(id);
        for fact in &facts {
            self.note(id, fact);
        }
        self.send(id);
        true
    }

    fn post(&mut self, to: AgentId, entry: InputId, input: fact::Input) {
        let Some(seat) = self.seats.get_mut(&to) else { return };
        if seat.agent.end().is_none() && seat.posted.insert(entry) {
            self.push(self.now, to, wake(Input::Inbox(entry, input)));
        }
    }

    fn arm(&mut self, id: AgentId) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        let due = seat.agent.due();
        if due != seat.armed {
            seat.armed = due;
            if let Some(due) = due {
                self.push(due.max(self.now), id, Event::Due);
                // What is overdue is due now.
                if let Some(seat) = self.seats.get_mut(&id) {
                    seat.armed = Some(due.max(self.now));
                }
            }
        }
    }

    /// What a fact means for the world around the agent.
    fn note(&mut self, id: AgentId, fact: &AgentEvent) {
        let Some(seat) = self.seats.get(&id) else { return };
        match fact {
            AgentEvent::Started { .. } => self.seen.calls.extend(called(seat.agent.spawned(), &self.program)),
            AgentEvent::Emitted { channel, value, .. } => self.seen.emitted(&seat.name, channel, value),
            AgentEvent::DetachedFailed { name, failure, .. } => self.seen.detached_failed(name, failure),
            AgentEvent::MemoryStored { entry, .. } => {
                self.stored += 1;
                let (tenant, workload) = (TenantId::local(), seat.agent.spawned().workload);
                self.memories.keep(MemoryEntry::new(entry, tenant, workload, GlobalSeq(self.stored)));
            }
            AgentEvent::EffectIntended { seq, intent: Intent::Approval(_), .. } => {
                let (seq, key) = (*seq, seat.agent.effect_key(*seq));
                let (delay, turn) = self.turn(&Target::new("approve", ""));
                let answered = fact::Input::Answered { seq, key, result: decision_result(turn) };
                self.push(self.now.after(delay), id, wake(Input::Inbox(InputId::answer(key), answered)));
            }
            _ => {}
        }
    }

    /// Sends what the agent waits to send, and queues the answer.
    fn send(&mut self, id: AgentId) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        if let Some((seq, attempt, request)) = seat.agent.recall() {
            let place = MemoryPlace::of(request.scope, TenantId::local(), seat.agent.spawned().workload);
            let answer = look_up(&request.what, self.memories.entries(&place));
            let result = EffectResult::Done(Answer::Memory(answer));
            let input = Input::EffectEnded { seq, attempt, result, spend: Spend::default() };
            return self.push(self.now, id, wake(input));
        }
        if let Some((seq, _)) = seat.agent.test_request() {
            return self.push(self.now, id, Event::Asked(seq));
        }
        let Some(wish) = seat.agent.wish(self.now) else { return };
        let Some(ticket) = seat.agent.start_effect(wish.seq) else { return };
        seat.stream.push((ticket, self.now));
        if self.pace == Pace::Stopping {
            seat.freeze(&self.program);
        }
        let request = match &wish.body {
            EffectBody::Model(request) => request,
            EffectBody::Tool(request) => return self.call_tool(id, &wish, request),
            _ => return,
        };
        let key = AnswerKey::of(&TenantId::local(), request);
        if let Some(reply) = key.as_ref().and_then(|key| self.answers.find(key)) {
            let (result, spend) = (EffectResult::Done(Answer::Model(reply)), Spend::default());
            let input = Input::EffectEnded { seq: wish.seq, attempt: wish.attempt, result, spend };
            return self.push(self.now, id, wake(input));
        }
        self.seen.models.push((request.agent.clone(), request.model.clone()));
        if let Purpose::Semantic { question } = &request.purpose {
            self.seen.asks.push(question.clone());
        }
        let (delay, turn) = self.turn(&target_of(request));
        let due = self.now.after(delay);
        let (due, (result, spend)) = if due > wish.deadline {
            let failure = Failure::new(RunCode::Timeout, "the model did not answer in time");
            (wish.deadline, (EffectResult::Failed(failure), Spend { calls: 1, ..Spend::default() }))
        } else {
            (due, model_result(turn, request, wish.seq.0))
        };
        let input = Input::EffectEnded { seq: wish.seq, attempt: wish.attempt, result, spend };
        let answered = match key {
            Some(key) => Event::Answered(Box::new((key, input))),
            None => wake(input),
        };
        self.push(due, id, answered);
    }

    /// Calls a tool by its script. One that does not answer in time may have done its work.
    fn call_tool(&mut self, id: AgentId, wish: &OutsideEffect, request: &ToolRequest) {
        self.seen.calls.push(Call { name: request.tool.clone(), input: first_argument(request) });
        let (delay, turn) = self.turn(&Target::new("tool", &request.tool));
        let due = self.now.after(delay);
        let (due, result) = if due > wish.deadline {
            let failure = |code| Failure::new(code, "the tool did not answer in time");
            let result = match request.effect {
                ToolEffect::Write => EffectResult::Unknown(failure(RunCode::OutcomeUnknown)),
                ToolEffect::None | ToolEffect::Read => EffectResult::Failed(failure(RunCode::Timeout)),
            };
            (wish.deadline, result)
        } else {
            (due, tool_result(turn))
        };
        let input = Input::EffectEnded { seq: wish.seq, attempt: wish.attempt, result, spend: Spend::default() };
        self.push(due, id, wake(input));
    }

    /// The next turn for a target, or the failure that stands for it, and how long it takes.
    fn turn(&mut self, target: &Target) -> (Millis, Result<crate::script::Turn, Failure>) {
        match self.script.next(target) {
            Ok((delay, turn)) => (delay, Ok(turn)),
            Err(failure) => (Millis(0), Err(failure)),
        }
    }
}

impl Seat {
    /// Goes on as another agent that is made of this one's bytes.
    fn freeze(&mut self, program: &Arc<Program>) {
        let bytes = self.agent.snapshot();
        self.agent =
            Agent::restore(&bytes, self.agent.spawned(), Arc::clone(program)).expect("what an agent wrote can be read");
        assert_eq!(self.agent.snapshot(), bytes, "equal agents make equal bytes");
    }
}

/// The first argument of a call, `()` if it has none.
fn first_argument(request: &ToolRequest) -> Value {
    match json::from_json(&request.args) {
        Ok(Value::Dict(args)) => args.entries().first().map_or(Value::Unit, |(_, value)| value.clone()),
        _ => Value::Unit,
    }
}

/// Who is asked by a model request.
fn target_of(request: &ModelRequest) -> Target {
    match &request.purpose {
        Purpose::Agent => Target::new("agent", &request.agent),
        Purpose::Semantic { question } => Target::new("semantic", question),
        Purpose::Intent => Target::new("intent", ""),
        Purpose::Judge => Target::new("judge", ""),
        Purpose::Reflect => Target::new("reflect", ""),
    }
}

/// The call that an agent's start is, if it is a declared agent: flows that run apart are agents too, but ask nothing
/// of a model by themselves.
fn called(first: &Spawned, program: &Program) -> Option<Call> {
    let Runs::Function { entry, args, .. } = &first.program else { return None };
    let module = program.module();
    let agent = module.agents.iter().find(|agent| agent.function == *entry)?;
    if !module.requests.iter().any(|request| request.agent == agent.name) {
        return None;
    }
    let input = match codec::decode(args) {
        Ok(Value::List(args)) => args.first().cloned(),
        _ => None,
    };
    Some(Call { name: agent.name.clone(), input: input.unwrap_or(Value::Unit) })
}

impl Run {
    /// All that happened, a line an event, agents in the order of their births.
    pub fn told(&self) -> String {
        let mut told = String::new();
        for (number, id) in self.births.iter().enumerate() {
            let Some(seat) = self.seats.get(id) else { continue };
            for (event, at) in &seat.stream {
                told += &format!("{number} {} {} ms: {}\n", seat.name, at.0, describe(event));
            }
            seat.logs.iter().for_each(|line| told += &format!("{number} {} logs {line}\n", seat.name));
        }
        told
    }

    /// The bytes of every fact and of every agent's last state.
    pub(crate) fn trace(&self) -> Vec<(AgentId, Vec<u8>, Vec<u8>)> {
        let trace = |id: &AgentId| {
            let seat = &self.seats[id];
            let facts = seat.stream.iter().flat_map(|(event, _)| nexa_event::codec::encode(event)).collect();
            (*id, facts, seat.agent.snapshot())
        };
        self.births.iter().map(trace).collect()
    }

    /// Makes every agent again from its recorded stream, with nobody to ask.
    ///
    /// # Errors
    /// The first agent that becomes another, and where.
    pub fn replay(&self) -> Result<(), String> {
        for id in &self.births {
            let seat = &self.seats[id];
            let told = |why: String| format!("the replay of `{}` differs: {why}", seat.name);
            let Some(((AgentEvent::Spawned(first), _), rest)) = seat.stream.split_first() else {
                return Err(told("its stream does not begin with its birth".to_owned()));
            };
            let twin = Agent::born(*id, first, Arc::clone(&self.program));
            let mut twin = twin.map_err(|error| told(error.to_string()))?;
            for (event, at) in rest {
                twin.replay(event, *at).map_err(|error| told(error.to_string()))?;
            }
            if twin.end() != seat.agent.end() || twin.version() != seat.agent.version() {
                return Err(told(format!("it ends with {:?} instead of {:?}", twin.end(), seat.agent.end())));
            }
            if seat.agent.end().is_some() && twin.snapshot() != seat.agent.snapshot() {
                return Err(told("its last state is another one".to_owned()));
            }
        }
        Ok(())
    }
}
