//! A desk at which agents are run by hand: it keeps their streams and inboxes as a store would, sends what they wish
//! for, and after every step checks what must hold after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use expect_test::Expect;
use nexa_agent::{Agent, Input, OutsideEffect, Step, describe};
use nexa_event::effect::{Answer, Decision, EffectBody, Finish, ModelReply};
use nexa_event::fact::{self, AgentEvent, EffectResult, ListItem, OnFailure, Spawned};
use nexa_types::limits::SLICE_FUEL;
use nexa_types::{
    AgentId, AgentState, Budget, EffectKey, Epoch, Failure, InputId, Millis, NodeId, Outcome, RequestId, RunCode, Seq,
    Spend, Timestamp, Tokens, WorkloadId,
};
use nexa_vm::codec;
use nexa_vm::value::Value;
use nexa_vm::vm::Program;

use crate::program::{Act, program, text_of};

pub(crate) const NOON: Timestamp = Timestamp(1_000_000);

/// One agent and all that a store and its dispatchers know about it.
pub(crate) struct Seat {
    pub(crate) agent: Agent,
    pub(crate) stream: Vec<(AgentEvent, Timestamp)>,
    pub(crate) inbox: Vec<(InputId, fact::Input)>,
    posted: BTreeSet<InputId>,
    /// Sent, and not answered yet.
    pub(crate) flying: Vec<OutsideEffect>,
    /// Answered before, to be answered again.
    pub(crate) answered: Vec<OutsideEffect>,
    sent: BTreeSet<(EffectKey, Epoch, u32)>,
    keys: BTreeMap<Seq, EffectKey>,
    pub(crate) row_epoch: Epoch,
    pub(crate) more: bool,
    pub(crate) due: Option<Timestamp>,
    pub(crate) frozen: Option<(usize, Vec<u8>)>,
}

pub(crate) struct Desk {
    program: Arc<Program>,
    pub(crate) seats: BTreeMap<AgentId, Seat>,
    pub(crate) root: AgentId,
    pub(crate) now: Timestamp,
    pub(crate) fuel: u64,
    /// Whether a sending slot is free at once.
    pub(crate) slots: bool,
    told: String,
}

pub(crate) fn tokens(count: u64) -> Budget {
    Budget { tokens: Some(Tokens(count)), ..Budget::default() }
}

pub(crate) fn calls(count: u64) -> Budget {
    Budget { calls: Some(count), ..Budget::default() }
}

pub(crate) fn bill(tokens_in: u64, tokens_out: u64) -> Spend {
    Spend { tokens_in: Tokens(tokens_in), tokens_out: Tokens(tokens_out), calls: 1, ..Spend::default() }
}

pub(crate) fn workload() -> WorkloadId {
    WorkloadId::from_bytes([1; 16])
}

pub(crate) fn spawned(program: fact::Program) -> Spawned {
    Spawned {
        workload: workload(),
        name: "main".to_owned(),
        parent: None,
        program,
        budget: Budget::default(),
        deadline: None,
        seed: 42,
        depth: 0,
        priority: 100,
        asks: None,
    }
}

fn node() -> NodeId {
    NodeId::new("n1").expect("a good name")
}

impl Desk {
    /// A root agent that does these things, under these circumstances.
    pub(crate) fn with(functions: &[Vec<Act>], change: impl FnOnce(&mut Spawned)) -> Self {
        let program = program(functions);
        let args = text_of(&[]);
        let mut first = spawned(fact::Program::Function { module: program.hash(), entry: 0, args });
        change(&mut first);
        Self::seated(program, first)
    }

    pub(crate) fn agent(acts: &[Act]) -> Self {
        Self::with(&[acts.to_vec()], |_| {})
    }

    /// An agent that runs a function of a compiled program.
    pub(crate) fn of_source(source: &str, entry: &str, args: &[&str]) -> Self {
        let compiled = nexa_lang::compile_text("main.nx", source);
        let told = compiled.render(nexa_lang::diagnostic::Colour::Off);
        let module = compiled.module.expect(&told);
        let entry = module.entries.iter().find(|one| one.name == entry).expect("an entry of the program").function;
        let program = Arc::new(Program::new(module).expect("the verifier accepts it"));
        let first = spawned(fact::Program::Function { module: program.hash(), entry, args: text_of(args) });
        Self::seated(program, first)
    }

    pub(crate) fn list(items: Vec<ListItem>, on_failure: OnFailure, budget: Budget) -> Self {
        Self::list_of(&[vec![Act::Argument]], items, on_failure, budget)
    }

    /// A list of agents that do these things; each item runs the function that it names.
    pub(crate) fn list_of(functions: &[Vec<Act>], items: Vec<ListItem>, on_failure: OnFailure, budget: Budget) -> Self {
        Self::list_in_turn(functions, items, on_failure, budget, None)
    }

    /// The same with a turn for each item.
    pub(crate) fn list_in_turn(
        functions: &[Vec<Act>],
        items: Vec<ListItem>,
        on_failure: OnFailure,
        budget: Budget,
        turns: Option<Vec<u32>>,
    ) -> Self {
        let program = program(functions);
        let mut first = spawned(fact::Program::List { module: program.hash(), items, on_failure, turns });
        first.budget = budget;
        Self::seated(program, first)
    }

    fn seated(program: Arc<Program>, first: Spawned) -> Self {
        let root = AgentId::root(workload());
        let mut desk = Self {
            program,
            seats: BTreeMap::new(),
            root,
            now: NOON,
            fuel: SLICE_FUEL,
            slots: true,
            told: String::new(),
        };
        desk.seat(root, first);
        desk
    }

    fn seat(&mut self, id: AgentId, first: Spawned) {
        let agent = Agent::born(id, &first, Arc::clone(&self.program)).expect("the module is the right one");
        let seat = Seat {
            due: agent.due(),
            agent,
            stream: vec![(AgentEvent::Spawned(first), self.now)],
            inbox: Vec::new(),
            posted: BTreeSet::new(),
            flying: Vec::new(),
            answered: Vec::new(),
            sent: BTreeSet::new(),
            keys: BTreeMap::new(),
            row_epoch: Epoch(1),
            more: false,
            frozen: None,
        };
        assert!(self.seats.insert(id, seat).is_none(), "an agent is born twice");
    }

    pub(crate) fn root(&self) -> &Seat {
        &self.seats[&self.root]
    }

    pub(crate) fn child(&self, seq: u64, branch: u32) -> AgentId {
        AgentId::child(self.root, Seq(seq), branch)
    }

    /// How the root ended.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.root().agent.end().map(|end| end.outcome.clone())
    }

    /// Steps an agent, stores what it says, sends what it may send.
    pub(crate) fn step(&mut self, id: AgentId, input: Input) -> Step {
        let seat = self.seats.get_mut(&id).expect("the agent exists");
        let had_ended = seat.agent.end().is_some();
        let step = seat.agent.step(input, self.now, self.fuel);
        assert!(!had_ended || step.facts.is_empty(), "something follows the end");
        let mut facts = step.facts.clone();
        let mut tell = Vec::new();
        if self.slots
            && let Some(wish) = &step.wish
        {
            let event = seat.agent.start_effect(wish.seq).expect("it is wished for");
            facts.push(event);
            seat.flying.push(wish.clone());
        }
        for event in &facts {
            if let AgentEvent::EffectStarted { seq, attempt, epoch } = event {
                let fresh = seat.sent.insert((seat.agent.effect_key(*seq), *epoch, *attempt));
                assert!(fresh, "AG-1: started twice");
            }
            tell.push(describe(event));
        }
        if let Some(wish) = &step.wish {
            assert_eq!(*seat.keys.entry(wish.seq).or_insert(wish.key), wish.key, "a key has changed");
            if !self.slots {
                tell.push(format!("  wishes for a slot #{} attempt {}", wish.seq, wish.attempt));
            }
        }
        tell.extend(step.logs.iter().map(|line| format!("  logs {line}")));
        tell.extend(step.abandoned.iter().map(|_| "  abandons a request".to_owned()));
        tell.extend(step.posts.iter().map(|(_, _, input)| match input {
            fact::Input::Cancel { .. } => "  posts a cancel to a child".to_owned(),
            other => {
                format!("  posts {}", if matches!(other, fact::Input::ChildEnded { .. }) { "its end" } else { "?" })
            }
        }));
        seat.flying.retain(|effect| !step.abandoned.contains(&effect.key));
        seat.stream.extend(facts.into_iter().map(|event| (event, self.now)));
        seat.inbox.retain(|(id, _)| !step.takes.contains(id));
        seat.more = step.more;
        seat.due = step.due;
        for line in tell {
            self.told += &if id == self.root { format!("{line}\n") } else { format!("    [child] {line}\n") };
        }
        for (child, first) in &step.births {
            self.seat(*child, first.clone());
        }
        for (to, input_id, input) in &step.posts {
            self.post(*to, *input_id, input.clone());
        }
        self.check(id);
        step
    }

    pub(crate) fn post(&mut self, to: AgentId, id: InputId, input: fact::Input) {
        let seat = self.seats.get_mut(&to).expect("posts go to agents that exist");
        if seat.agent.end().is_none() && seat.posted.insert(id) {
            seat.inbox.push((id, input));
        }
    }

    /// What must hold after every step.
    fn check(&self, id: AgentId) {
        let seat = &self.seats[&id];
        let ends = seat.stream.iter().filter(|(event, _)| matches!(event, AgentEvent::Ended { .. })).count();
        assert_eq!(ends, usize::from(seat.agent.end().is_some()), "AG-4: an agent ends once");
        assert_eq!(seat.agent.version().0 as usize, seat.stream.len());
        let AgentEvent::Spawned(first) = &seat.stream[0].0 else { panic!("a stream begins with the birth") };
        let mut twin = Agent::born(id, first, Arc::clone(&self.program)).expect("it was born before");
        for (event, at) in &seat.stream[1..] {
            twin.replay(event, *at).expect("AG-3: a replay decides the same");
        }
        if seat.more || seat.agent.state() == AgentState::Quarantined {
            // It was perhaps stopped in mid-slice, and a replay does not know where.
            return;
        }
        let frozen = seat.agent.snapshot();
        assert_eq!(twin.snapshot(), frozen, "AG-3: a replay gives the same state");
        let thawed = Agent::restore(&frozen, first, Arc::clone(&self.program)).expect("a snapshot can be restored");
        assert_eq!(thawed.snapshot(), frozen, "a restored agent is the same");
        assert_eq!((twin.state(), twin.due()), (seat.agent.state(), seat.agent.due()));
    }

    /// Forgets the agent and reads it again from snapshot and stream, as another process would.
    pub(crate) fn read_again(&mut self, id: AgentId) {
        let seat = self.seats.get_mut(&id).expect("the agent exists");
        let AgentEvent::Spawned(first) = &seat.stream[0].0 else { panic!("a stream begins with the birth") };
        let (from, mut agent) = match &seat.frozen {
            Some((version, bytes)) => {
                (*version, Agent::restore(bytes, first, Arc::clone(&self.program)).expect("a snapshot can be restored"))
            }
            None => (1, Agent::born(id, first, Arc::clone(&self.program)).expect("it was born before")),
        };
        for (event, at) in &seat.stream[from..] {
            agent.replay(event, *at).expect("AG-3: a replay decides the same");
        }
        seat.agent = agent;
    }

    pub(crate) fn freeze(&mut self, id: AgentId) {
        let seat = self.seats.get_mut(&id).expect("the agent exists");
        seat.frozen = Some((seat.stream.len(), seat.agent.snapshot()));
    }

    // What happens to an agent.

    pub(crate) fn start(&mut self, id: AgentId) -> Step {
        let epoch = self.seats[&id].row_epoch;
        self.step(id, Input::Start { node: node(), epoch })
    }

    pub(crate) fn starts(&mut self) -> &mut Self {
        self.start(self.root);
        self
    }

    pub(crate) fn take_over(&mut self, id: AgentId) -> Step {
        self.read_again(id);
        let seat = self.seats.get_mut(&id).expect("the agent exists");
        seat.row_epoch = seat.row_epoch.next();
        let late = std::mem::take(&mut seat.flying);
        seat.answered.extend(late);
        let epoch = seat.row_epoch;
        self.step(id, Input::TakeOver { node: node(), epoch, carried: None })
    }

    /// Moves it to another node, while the one that it leaves waits for what is in flight.
    pub(crate) fn migrate(&mut self, id: AgentId) -> Step {
        self.read_again(id);
        let seat = self.seats.get_mut(&id).expect("the agent exists");
        seat.row_epoch = seat.row_epoch.next();
        let epoch = seat.row_epoch;
        self.step(id, Input::TakeOver { node: node(), epoch, carried: Some(NodeId::new("n0").expect("a name")) })
    }

    /// The node is gone that waits for what was in flight when the agent moved.
    pub(crate) fn lose_carrier(&mut self, id: AgentId) {
        let seat = self.seats.get_mut(&id).expect("the agent exists");
        let epoch = seat.agent.epoch();
        if seat.agent.sent().is_some_and(|(_, _, started)| started < epoch) {
            let late = std::mem::take(&mut seat.flying);
            seat.answered.extend(late);
            self.step(id, Input::TakeOver { node: node(), epoch, carried: None });
        }
    }

    pub(crate) fn taken_over(&mut self) -> &mut Self {
        self.take_over(self.root);
        self
    }

    /// Slice after slice, until it wants something or has ended.
    pub(crate) fn computes(&mut self) -> &mut Self {
        while self.root().more {
            self.go_on();
        }
        self
    }

    pub(crate) fn go_on(&mut self) -> &mut Self {
        self.step(self.root, Input::Continue);
        self
    }

    pub(crate) fn reply(text: &str, spend: Spend) -> EffectResult {
        let (text, model) = (text.to_owned(), "test/model".to_owned());
        let (tokens_left_out, tool_calls) = (Tokens(0), Vec::new());
        EffectResult::Done(Answer::Model(ModelReply {
            text,
            finish: Finish::Stop,
            model,
            spend,
            tokens_left_out,
            tool_calls,
        }))
    }

    /// What a tool gives.
    pub(crate) fn value(text: &str) -> EffectResult {
        EffectResult::Done(Answer::Value(codec::encode(&Value::Str(text.into()))))
    }

    pub(crate) fn tool_gives(&mut self, text: &str) -> &mut Self {
        let effect = self.root().flying.last().expect("a call is in flight").clone();
        self.answer(self.root, &effect, Self::value(text), Spend::default());
        self
    }

    pub(crate) fn answer(&mut self, id: AgentId, effect: &OutsideEffect, result: EffectResult, spend: Spend) -> Step {
        let seat = self.seats.get_mut(&id).expect("the agent exists");
        // Whoever waits for it keeps the answer until it is recorded, which one in quarantine does not.
        if seat.agent.state() != AgentState::Quarantined {
            seat.flying.retain(|other| other != effect);
            seat.answered.push(effect.clone());
        }
        self.step(id, Input::EffectEnded { seq: effect.seq, attempt: effect.attempt, result, spend })
    }

    pub(crate) fn model_says(&mut self, text: &str) -> &mut Self {
        let effect = self.root().flying.last().expect("a request is in flight").clone();
        self.answer(self.root, &effect, Self::reply(text, bill(1, 2)), bill(1, 2));
        self
    }

    pub(crate) fn model_fails(&mut self, code: RunCode) -> &mut Self {
        let effect = self.root().flying.last().expect("a request is in flight").clone();
        self.answer(self.root, &effect, EffectResult::Failed(Failure::new(code, "no")), Spend::default());
        self
    }

    /// An answer to an attempt that was lost or beaten.
    pub(crate) fn late_answer(&mut self, attempt: u32, text: &str) -> &mut Self {
        let late = self.root().answered.iter().find(|effect| effect.attempt == attempt);
        let late = late.expect("that attempt was sent").clone();
        self.answer(self.root, &late, Self::reply(text, bill(1, 2)), bill(1, 2));
        self
    }

    /// A dispatcher answers while nobody may run the agent: it changes nothing.
    pub(crate) fn late_answer_is_dropped(&mut self) {
        let effect = self.root().flying.last().expect("a request is in flight").clone();
        let step = self.answer(self.root, &effect, Self::reply("lost", bill(1, 1)), bill(1, 1));
        assert!(step.facts.is_empty());
    }

    pub(crate) fn person_says(&mut self, id: AgentId, seq: Seq, approved: bool) {
        let key = self.seats[&id].agent.effect_key(seq);
        let decision = Decision { approved, by: "ann".to_owned(), note: String::new() };
        let result = EffectResult::Done(Answer::Approval(decision));
        self.post(id, InputId::answer(key), fact::Input::Answered { seq, key, result });
        self.read_inbox(id);
    }

    pub(crate) fn message(&mut self, id: AgentId, number: u8) {
        let request = RequestId::from_bytes([number; 16]);
        let input = fact::Input::Message { from: "ann".to_owned(), value: text_of(&["hello"]) };
        self.post(id, InputId::message(id, request), input);
    }

    /// Hands over the oldest entry of an inbox.
    pub(crate) fn read_inbox(&mut self, id: AgentId) {
        if let Some((entry, input)) = self.seats[&id].inbox.first().cloned() {
            self.step(id, Input::Inbox(entry, input));
        }
    }

    pub(crate) fn child_ends(&mut self, seq: u64, branch: u32, outcome: Outcome, spend: Spend) -> &mut Self {
        let child = self.child(seq, branch);
        let input = fact::Input::ChildEnded { seq: Seq(seq), branch, outcome, spend, handed_over: None };
        self.post(self.root, InputId::child_ended(child), input);
        self.read_inbox(self.root);
        self
    }

    /// As the store does it: every epoch grows, and every inbox has the cancel.
    pub(crate) fn cancel_workload(&mut self) {
        for id in self.seats.keys().copied().collect::<Vec<_>>() {
            let seat = self.seats.get_mut(&id).expect("the agent exists");
            seat.row_epoch = seat.row_epoch.next();
            let input = fact::Input::Cancel { reason: "ann said so".to_owned(), epoch: seat.row_epoch };
            self.post(id, InputId::cancel(id), input);
        }
    }

    pub(crate) fn cancelled(&mut self) -> &mut Self {
        self.cancel_workload();
        self.read_inbox(self.root);
        self
    }

    pub(crate) fn passes(&mut self, millis: u64) -> &mut Self {
        self.now = self.now.after(Millis(millis));
        if self.root().due.is_some_and(|due| due <= self.now) {
            self.step(self.root, Input::Due);
        }
        self
    }

    pub(crate) fn grant_slot(&mut self, id: AgentId) {
        let now = self.now;
        let seat = self.seats.get_mut(&id).expect("the agent exists");
        let Some(wish) = seat.agent.wish(now) else { return };
        let event = seat.agent.start_effect(wish.seq).expect("it is wished for");
        assert_eq!(seat.agent.start_effect(wish.seq), None, "AG-1: one ticket a wish");
        let AgentEvent::EffectStarted { seq, attempt, epoch } = &event else { panic!("no ticket") };
        assert!(seat.sent.insert((wish.key, *epoch, *attempt)), "AG-1: #{seq} started twice");
        self.told += &format!("{}\n", describe(&event));
        seat.stream.push((event, now));
        seat.flying.push(wish);
        self.check(id);
    }

    /// What was told since the last time, and the state that it led to.
    pub(crate) fn expect(&mut self, expected: Expect) -> &mut Self {
        let told = std::mem::take(&mut self.told);
        let seat = self.root();
        let due = seat.due.map_or_else(String::new, |due| format!(", due in {}", due.since(self.now)));
        expected.assert_eq(&format!("{told}=> {}{due}\n", seat.agent.state()));
        self
    }

    /// Runs everything to its end, answering whatever is asked. The answer depends on the key alone.
    pub(crate) fn run_to_the_end(&mut self) {
        self.slots = true;
        for _ in 0..10_000 {
            let Some((id, act)) = self.seats.iter().find_map(|(id, seat)| Some((*id, next_act(seat)?))) else { return };
            match act {
                Next::Start => drop(self.start(id)),
                Next::Inbox => self.read_inbox(id),
                Next::More => drop(self.step(id, Input::Continue)),
                Next::Slot => self.grant_slot(id),
                Next::Answer(effect) => drop(self.answer_by_key(id, &effect)),
                Next::Approve(seq) => self.person_says(id, seq, true),
                Next::Wait(due) => {
                    self.now = self.now.max(due);
                    self.step(id, Input::Due);
                }
            }
        }
        panic!("it does not end");
    }

    /// An answer that any attempt would get, at a cost within its reserve.
    pub(crate) fn answer_by_key(&mut self, id: AgentId, effect: &OutsideEffect) -> Step {
        let byte = effect.key.as_bytes()[0];
        let request = match &effect.body {
            EffectBody::Model(request) => request,
            EffectBody::Tool(_) => {
                return self.answer(id, effect, Self::value(&format!("{byte:02x}")), Spend::default());
            }
            _ => panic!("only models and tools have slots"),
        };
        let used = bill(1, request.sampling.max_tokens.0.min(u64::from(byte)));
        if byte.is_multiple_of(8) {
            let failure = Failure::new(RunCode::Refused, "not that");
            return self.answer(id, effect, EffectResult::Failed(failure), used);
        }
        self.answer(id, effect, Self::reply(&format!("{byte:02x}"), used), used)
    }
}

enum Next {
    Start,
    Inbox,
    More,
    Slot,
    Answer(OutsideEffect),
    Approve(Seq),
    Wait(Timestamp),
}

/// What would bring an agent further, if it has not ended and waits for nobody else here.
fn next_act(seat: &Seat) -> Option<Next> {
    let state = seat.agent.state();
    if state.is_terminal() {
        return None;
    }
    if !seat.inbox.is_empty() {
        return Some(Next::Inbox);
    }
    if state == AgentState::Placed {
        return Some(Next::Start);
    }
    if seat.more || seat.agent.is_computing() {
        return Some(Next::More);
    }
    if seat.agent.wish(NOON).is_some() {
        return Some(Next::Slot);
    }
    if let Some(effect) = seat.flying.last() {
        return Some(Next::Answer(effect.clone()));
    }
    let asked = seat.stream.iter().rev().find_map(|(event, _)| match event {
        AgentEvent::EffectIntended { seq, .. } => Some(*seq),
        _ => None,
    });
    match state {
        AgentState::Waiting(nexa_types::Waiting::Approval) => asked.map(Next::Approve),
        AgentState::Waiting(nexa_types::Waiting::Timer) => seat.due.map(Next::Wait),
        _ => None,
    }
}
