//! A town of agents: runs a program with all its children, each as an agent of its own with a stream and an inbox, in
//! an order that a number chooses, under a clock that moves when nobody has anything to do.
//!
//! After every step the agent is made again from its stream and must be the same; with [`Town::forgetful`] it goes on
//! as what was read again, as after a crash at every append.

#![allow(dead_code, reason = "tests to come use the rest")]

use std::collections::BTreeMap;
use std::sync::Arc;

use nexa_agent::{Agent, Input, OutsideEffect, Step, describe};
use nexa_event::effect::{Answer, Decision, EffectBody, Finish, ModelReply};
use nexa_event::fact::{self, AgentEvent, EffectResult, Spawned};
use nexa_lang::diagnostic::Colour;
use nexa_types::{
    AgentId, AgentState, Budget, Epoch, Failure, InputId, Millis, NodeId, Outcome, Payload, RunCode, Spend, Timestamp,
    Tokens, Waiting, WorkloadId,
};
use nexa_vm::codec;
use nexa_vm::value::Value;
use nexa_vm::vm::Program;

const STEPS_MAX: usize = 200_000;

struct House {
    agent: Agent,
    first: Spawned,
    stream: Vec<(AgentEvent, Timestamp)>,
    inbox: Vec<(InputId, fact::Input)>,
    seen: Vec<InputId>,
    flying: Vec<(OutsideEffect, Timestamp)>,
    row_epoch: Epoch,
    more: bool,
    born: usize,
}

/// What a model does when it is asked.
#[derive(Clone)]
pub(crate) enum Turn {
    Says(&'static str, u64),
    Fails(RunCode, u64),
}

pub(crate) struct Town {
    program: Arc<Program>,
    houses: BTreeMap<AgentId, House>,
    root: AgentId,
    pub(crate) now: Timestamp,
    fuel: u64,
    forgets: bool,
    /// Messages that have come are taken in together.
    hears_all: bool,
    /// Chooses who is next.
    dice: u64,
    scripts: BTreeMap<&'static str, Vec<Turn>>,
    decisions: Vec<(bool, u64)>,
    asked: BTreeMap<AgentId, Timestamp>,
    /// What models were asked: agent, last message.
    pub(crate) asks: Vec<(String, String)>,
    pub(crate) emitted: Vec<String>,
    /// The whole conversation of each request.
    pub(crate) talks: Vec<Vec<String>>,
    pub(crate) logs: Vec<String>,
    /// Cancels the workload at this moment.
    cancel_at: Option<Timestamp>,
    /// How much time each slice takes that follows on another.
    slice_millis: u64,
    pub(crate) steps: usize,
    /// The most unread messages that any agent had, in its inbox and its mailbox.
    pub(crate) outstanding_max: usize,
}

pub(crate) fn compile(text: &str) -> Arc<Program> {
    let result = nexa_lang::compile_text("main.nx", text);
    assert!(!result.has_errors(), "{}", result.render(Colour::Off));
    let module = result.module.expect("no error, so a module");
    Arc::new(Program::load(&module.encode()).unwrap_or_else(|error| panic!("{error:?}\n{}", module.dump())))
}

pub(crate) fn errors(text: &str) -> Vec<String> {
    let result = nexa_lang::compile_text("main.nx", text);
    result.diagnostics.iter().filter(|found| found.is_error()).map(|found| format!("{:?}", found.code)).collect()
}

fn node() -> NodeId {
    NodeId::new("n1").expect("a good name")
}

impl Town {
    pub(crate) fn of(text: &str) -> Self {
        Self::budgeted(text, Budget::default(), None)
    }

    pub(crate) fn budgeted(text: &str, budget: Budget, deadline: Option<Timestamp>) -> Self {
        let program = compile(text);
        let entry = program.module().entries.iter().find(|entry| entry.name == "main").expect("a main");
        let first = Spawned {
            workload: WorkloadId::from_bytes([1; 16]),
            name: "main".to_owned(),
            parent: None,
            program: fact::Program::Function {
                module: program.hash(),
                entry: entry.function,
                args: codec::encode(&Value::List(Arc::new(Vec::new()))),
            },
            budget: budget.tighter(entry.budget),
            deadline,
            seed: 42,
            depth: 0,
            priority: 100,
            asks: None,
        };
        let root = AgentId::root(first.workload);
        let mut town = Self {
            program,
            houses: BTreeMap::new(),
            root,
            now: Timestamp(0),
            fuel: 10_000,
            forgets: false,
            hears_all: false,
            dice: 0,
            scripts: BTreeMap::new(),
            decisions: Vec::new(),
            asked: BTreeMap::new(),
            asks: Vec::new(),
            talks: Vec::new(),
            emitted: Vec::new(),
            logs: Vec::new(),
            cancel_at: None,
            slice_millis: 0,
            steps: 0,
            outstanding_max: 0,
        };
        town.bear(root, first);
        town
    }

    pub(crate) fn script(mut self, agent: &'static str, turns: &[Turn]) -> Self {
        self.scripts.insert(agent, turns.to_vec());
        self
    }

    pub(crate) fn decide(mut self, approved: bool, after: u64) -> Self {
        self.decisions.push((approved, after));
        self
    }

    pub(crate) fn cancelled_at(mut self, millis: u64) -> Self {
        self.cancel_at = Some(Timestamp(millis));
        self
    }

    /// Every instruction ends a slice.
    pub(crate) fn stepping(mut self) -> Self {
        self.fuel = 1;
        self
    }

    /// Whoever has recorded something is read again from its stream before its next step. What was only computed since
    /// would have to be computed again; with slices of one instruction that would never get anywhere.
    pub(crate) fn forgetful(mut self) -> Self {
        self.forgets = true;
        self
    }

    /// Messages that have come are taken in together, as a node does it.
    pub(crate) fn hearing_all(mut self) -> Self {
        self.hears_all = true;
        self
    }

    /// Computing takes time: so much for each further slice.
    pub(crate) fn taking(mut self, millis: u64) -> Self {
        self.slice_millis = millis;
        self
    }

    /// Others are next.
    pub(crate) fn shuffled(mut self, dice: u64) -> Self {
        self.dice = dice;
        self
    }

    fn bear(&mut self, id: AgentId, first: Spawned) {
        let agent = Agent::born(id, &first, Arc::clone(&self.program)).expect("the module is right");
        let house = House {
            agent,
            stream: vec![(AgentEvent::Spawned(first.clone()), self.now)],
            first,
            inbox: Vec::new(),
            seen: Vec::new(),
            flying: Vec::new(),
            row_epoch: Epoch(1),
            more: false,
            born: self.houses.len(),
        };
        assert!(self.houses.insert(id, house).is_none(), "born twice");
    }

    fn post(&mut self, to: AgentId, id: InputId, input: fact::Input) {
        let house = self.houses.get_mut(&to).expect("posts go to agents that exist");
        if house.agent.end().is_none() && !house.seen.contains(&id) {
            house.seen.push(id);
            house.inbox.push((id, input));
            self.outstanding_max = self.outstanding_max.max(house.inbox.len());
        }
    }

    fn step(&mut self, id: AgentId, input: Input) {
        self.steps += 1;
        let house = self.houses.get_mut(&id).expect("the agent exists");
        if let Input::EffectEnded { seq, .. } = &input {
            house.flying.retain(|(effect, _)| effect.seq != *seq);
        }
        let mut inputs = vec![input];
        if self.hears_all && matches!(&inputs[0], Input::Inbox(_, input) if is_mail(input)) {
            let others = house.inbox[1..].iter().take_while(|(_, input)| is_mail(input)).cloned();
            inputs.extend(others.map(|(id, input)| Input::Inbox(id, input)));
        }
        let Step { facts, births, posts, takes, wish, logs, abandoned, more, .. } =
            house.agent.step_all(inputs, self.now, self.fuel);
        let mut facts = facts;
        if let Some(wish) = wish {
            facts.push(house.agent.start_effect(wish.seq).expect("it is wished for"));
            let EffectBody::Model(request) = &wish.body else { panic!("a model request") };
            let last = request.messages.last().map(|message| message.text.clone()).unwrap_or_default();
            self.asks.push((request.agent.clone(), last));
            let said = request.messages.iter().map(|message| format!("{:?}: {}", message.role, message.text));
            self.talks.push(said.collect());
            house.flying.push((wish, self.now));
        }
        house.flying.retain(|(effect, _)| !abandoned.contains(&effect.key));
        for fact in &facts {
            if let AgentEvent::Emitted { value, .. } = fact {
                self.emitted.push(nexa_vm::json::to_json(&codec::decode(value).expect("a value")));
            }
            if let AgentEvent::EffectIntended { intent: fact::Intent::Approval(_), .. } = fact {
                self.asked.insert(id, self.now);
            }
        }
        let has_recorded = !facts.is_empty();
        house.stream.extend(facts.into_iter().map(|fact| (fact, self.now)));
        house.inbox.retain(|(entry, _)| !takes.contains(entry));
        house.more = more;
        if house.agent.end().is_some() {
            house.inbox.clear();
        }
        self.logs.extend(logs);
        for (child, first) in births {
            self.bear(child, first);
        }
        for (to, input_id, input) in posts {
            self.post(to, input_id, input);
        }
        self.check(id, has_recorded);
    }

    /// AG-3: the stream makes the same agent.
    fn check(&mut self, id: AgentId, has_recorded: bool) {
        let house = self.houses.get_mut(&id).expect("the agent exists");
        assert_eq!(house.agent.version().0 as usize, house.stream.len());
        if house.stream.len() > 600 && !house.stream.len().is_multiple_of(97) && house.agent.end().is_none() {
            return;
        }
        let mut twin = Agent::born(id, &house.first, Arc::clone(&self.program)).expect("it was born before");
        for (event, at) in &house.stream[1..] {
            twin.replay(event, *at).unwrap_or_else(|error| panic!("{error}\n{}", story(&house.stream)));
        }
        if !house.more {
            let frozen = house.agent.snapshot();
            assert_eq!(twin.snapshot(), frozen, "a replay gives the same state\n{}", story(&house.stream));
            let thawed = Agent::restore(&frozen, &house.first, Arc::clone(&self.program))
                .unwrap_or_else(|error| panic!("{error}\n{}", story(&house.stream)));
            assert_eq!(thawed.snapshot(), frozen);
        }
        if self.forgets && has_recorded {
            house.agent = twin;
            house.more = house.agent.is_computing();
        }
    }

    /// Runs until everybody has ended; gives how the root did.
    pub(crate) fn run(&mut self) -> Outcome {
        loop {
            assert!(self.steps < STEPS_MAX, "it does not end");
            if self.cancel_at.is_some_and(|at| at <= self.now) {
                self.cancel_at = None;
                self.cancel();
            }
            let mut ready: Vec<(usize, AgentId, Input)> = Vec::new();
            for (id, house) in &self.houses {
                ready.extend(self.next(house).map(|input| (house.born, *id, input)));
            }
            ready.sort_by_key(|(born, ..)| *born);
            if !ready.is_empty() {
                let place = if self.dice == 0 { 0 } else { self.roll() as usize % ready.len() };
                let (_, id, input) = ready.swap_remove(place);
                if matches!(input, Input::Continue) {
                    self.now = self.now.after(Millis(self.slice_millis));
                }
                self.step(id, input);
                continue;
            }
            let moments =
                self.houses.iter().filter(|(_, house)| house.agent.end().is_none()).flat_map(|(id, house)| {
                    let answers = house.flying.iter().map(|(effect, sent)| sent.after(Millis(self.turn(effect).1)));
                    let person = self.person(*id, house).map(|(_, at)| at);
                    answers.chain(house.agent.due()).chain(person)
                });
            match moments.chain(self.cancel_at).min() {
                Some(next) => self.now = self.now.max(next),
                None => break,
            }
        }
        for (id, house) in &self.houses {
            assert!(
                house.agent.end().is_some(),
                "{id} waits for ever: {:?}\n{}",
                house.agent.state(),
                story(&house.stream)
            );
            let ends = house.stream.iter().filter(|(event, _)| matches!(event, AgentEvent::Ended { .. })).count();
            assert_eq!(ends, 1, "AG-4");
        }
        self.houses[&self.root].agent.end().expect("it has ended").outcome.clone()
    }

    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice
    }

    fn turn(&self, effect: &OutsideEffect) -> (Result<String, RunCode>, u64) {
        let EffectBody::Model(request) = &effect.body else { panic!("a model request") };
        let before = effect.seq.0 as usize;
        let turns =
            self.scripts.get(request.agent.as_str()).unwrap_or_else(|| panic!("a script for {}", request.agent));
        let turn = if turns.len() == 1 { &turns[0] } else { &turns[(before - 1).min(turns.len() - 1)] };
        match turn {
            Turn::Says(text, after) => (Ok((*text).to_owned()), *after),
            Turn::Fails(code, after) => (Err(*code), *after),
        }
    }

    fn person(&self, id: AgentId, house: &House) -> Option<(bool, Timestamp)> {
        let asked = self.asked.get(&id)?;
        let (approved, after) = self.decisions.first()?;
        (house.agent.state() == AgentState::Waiting(Waiting::Approval))
            .then_some((*approved, asked.after(Millis(*after))))
    }

    fn next(&self, house: &House) -> Option<Input> {
        if house.agent.end().is_some() {
            return None;
        }
        let cancel = house.inbox.iter().find(|(_, input)| matches!(input, fact::Input::Cancel { .. }));
        if let Some((id, input)) = cancel {
            return Some(Input::Inbox(*id, input.clone()));
        }
        if house.agent.state() == AgentState::Placed {
            return Some(Input::Start { node: node(), epoch: house.row_epoch });
        }
        if let Some((id, input)) = house.inbox.first() {
            return Some(Input::Inbox(*id, input.clone()));
        }
        if let Some((approved, at)) = self.person(house.agent.id(), house)
            && at <= self.now
        {
            let seq = house.stream.iter().rev().find_map(|(event, _)| match event {
                AgentEvent::EffectIntended { seq, .. } => Some(*seq),
                _ => None,
            })?;
            let key = house.agent.effect_key(seq);
            let decision = Decision { approved, by: "ann".to_owned(), note: String::new() };
            let result = EffectResult::Done(Answer::Approval(decision));
            return Some(Input::Inbox(InputId::answer(key), fact::Input::Answered { seq, key, result }));
        }
        for (effect, sent) in &house.flying {
            let (turn, after) = self.turn(effect);
            if sent.after(Millis(after)) <= self.now {
                let used = Spend { tokens_out: Tokens(1), calls: 1, ..Spend::default() };
                let result = match turn {
                    Ok(text) => EffectResult::Done(Answer::Model(ModelReply {
                        text,
                        finish: Finish::Stop,
                        model: "test/model".to_owned(),
                        spend: used,
                        tokens_left_out: Tokens(0),
                        tool_calls: Vec::new(),
                    })),
                    Err(code) => EffectResult::Failed(Failure::new(code, "as scripted")),
                };
                let waits = house.agent.in_flight(self.now).is_some_and(|flying| flying.seq == effect.seq);
                if waits {
                    let (seq, attempt) = (effect.seq, effect.attempt);
                    return Some(Input::EffectEnded { seq, attempt, result, spend: used });
                }
            }
        }
        if house.agent.due().is_some_and(|due| due <= self.now) {
            return Some(Input::Due);
        }
        (house.more || house.agent.is_computing()).then_some(Input::Continue)
    }

    fn cancel(&mut self) {
        for id in self.houses.keys().copied().collect::<Vec<_>>() {
            let house = self.houses.get_mut(&id).expect("the agent exists");
            house.row_epoch = house.row_epoch.next();
            let input = fact::Input::Cancel { reason: "ann said so".to_owned(), epoch: house.row_epoch };
            self.post(id, InputId::cancel(id), input);
        }
    }

    /// The stream of the agent of a name, a line an event.
    pub(crate) fn story(&self, name: &str) -> String {
        let house = self.houses.values().find(|house| house.first.name == name).expect("there is such an agent");
        story(&house.stream)
    }

    /// The events of the agent of a name.
    pub(crate) fn stream(&self, name: &str) -> &[(AgentEvent, Timestamp)] {
        let house = self.houses.values().find(|house| house.first.name == name).expect("there is such an agent");
        &house.stream
    }

    /// Whether the agent of a name can be made from such a stream; what is wrong with it otherwise.
    pub(crate) fn reads(&self, name: &str, stream: &[(AgentEvent, Timestamp)]) -> Result<(), String> {
        let (id, house) =
            self.houses.iter().find(|(_, house)| house.first.name == name).expect("there is such an agent");
        let mut agent = Agent::born(*id, &house.first, Arc::clone(&self.program)).expect("it was born before");
        let mut events = stream[1..].iter();
        events.try_for_each(|(event, at)| agent.replay(event, *at).map_err(|error| error.to_string()))
    }

    pub(crate) fn ends(&self) -> BTreeMap<String, String> {
        self.houses
            .values()
            .map(|house| {
                let end = house.agent.end().expect("it has ended");
                (house.first.name.clone(), shown(&end.outcome))
            })
            .collect()
    }

    pub(crate) fn spend(&self) -> Spend {
        self.houses[&self.root].agent.end().expect("it has ended").spend
    }
}

fn is_mail(input: &fact::Input) -> bool {
    use fact::Input::{Credit, Message, Passed};
    matches!(input, Credit { .. } | Message { .. } | Passed { .. })
}

fn story(stream: &[(AgentEvent, Timestamp)]) -> String {
    stream.iter().map(|(event, at)| format!("{} {}\n", at.0, describe(event))).collect()
}

pub(crate) fn shown(outcome: &Outcome) -> String {
    let json = |payload: &Payload| nexa_vm::json::to_json(&codec::decode(payload).expect("an encoded result"));
    match outcome {
        Outcome::Ok(payload) => json(payload),
        Outcome::Err(failure) => format!("{}: {}", failure.code, failure.message),
    }
}

/// Runs a program in one go, slice by slice, as after a crash at every append, with messages taken in together, and in
/// other orders: its result is the same each time. Gives the result and the first run.
pub(crate) fn always(make: impl Fn() -> Town) -> (String, Town) {
    let mut town = make();
    let result = shown(&town.run());
    let ways = [
        ("slice by slice", make().stepping()),
        ("forgetful", make().forgetful()),
        ("hearing all", make().hearing_all()),
        ("hearing all, forgetful", make().hearing_all().forgetful()),
    ];
    for (way, mut other) in ways {
        assert_eq!(shown(&other.run()), result, "{way}");
        assert_eq!((other.now, &other.emitted), (town.now, &town.emitted), "{way}");
    }
    for dice in 1..6 {
        let mut other = make().shuffled(dice * 7919).stepping();
        other.hears_all = dice % 2 == 0;
        assert_eq!(shown(&other.run()), result, "order {dice}");
    }
    (result, town)
}
