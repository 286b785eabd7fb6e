//! A driven run: all agents of it on one stage, each the pure [`Agent`], and everybody who answers them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use nexa_agent::{Agent, Input, OutsideEffect, Step, describe};
use nexa_event::codec;
use nexa_event::effect::Answer;
use nexa_event::fact::{self, AgentEvent, EffectResult, Intent, Spawned};
use nexa_types::{
    AgentId, AgentState, Epoch, InputId, Millis, NodeId, Outcome, RequestId, Seq, Spend, TenantId, Timestamp, Waiting,
    WorkloadId,
};
use nexa_vm::vm::Program;

use crate::jobs::Job;
use crate::world::World;

/// Steps that no example needs.
pub(crate) const STEPS_MAX: usize = 1_000_000;
/// When the driven runs begin.
pub(crate) const DAWN: Timestamp = Timestamp(1_800_000_000_000);

/// One agent of a driven run.
pub(crate) struct Seat {
    pub(crate) agent: Agent,
    pub(crate) stream: Vec<(AgentEvent, Timestamp)>,
    pub(crate) logs: Vec<String>,
    pub(crate) inbox: VecDeque<(InputId, fact::Input)>,
    pub(crate) flying: Option<OutsideEffect>,
    pub(crate) due: Option<Timestamp>,
    pub(crate) more: bool,
}

/// All agents of a driven run, and everybody who answers them. Time passes with every input and in no other way.
pub(crate) struct Stage<'j> {
    pub(crate) job: &'j Job,
    pub(crate) program: Arc<Program>,
    world: World,
    pub(crate) fuel: u64,
    /// Whether an agent becomes bytes and is made of them again after every step.
    pub(crate) freezes: bool,
    pub(crate) freezes_done: usize,
    pub(crate) now: Timestamp,
    pub(crate) seats: BTreeMap<AgentId, Seat>,
    pub(crate) births: Vec<AgentId>,
}

/// What brings a run further.
pub(crate) enum Act {
    GoOn,
    Begin,
    Read,
    Answer,
    Recall,
    Decide(Seq),
    Wait(Timestamp),
}

impl<'j> Stage<'j> {
    pub(crate) fn new(job: &'j Job, program: &Arc<Program>, fuel: u64, freezes: bool) -> Self {
        let workload = WorkloadId::of(&TenantId::local(), RequestId::from_bytes([1; 16]));
        let mut stage = Self {
            job,
            program: Arc::clone(program),
            world: World::new(job.script(), job.path().parent().expect("a file lies in a folder")),
            fuel,
            freezes,
            freezes_done: 0,
            now: DAWN,
            seats: BTreeMap::new(),
            births: Vec::new(),
        };
        stage.seat(AgentId::root(workload), job.birth(program, workload));
        stage
    }

    fn seat(&mut self, id: AgentId, first: Spawned) {
        let agent = Agent::born(id, &first, Arc::clone(&self.program)).expect("it is the right module");
        let stream = vec![(AgentEvent::Spawned(first), self.now)];
        let inbox = VecDeque::new();
        let seat = Seat { agent, stream, logs: Vec::new(), inbox, flying: None, due: None, more: false };
        assert!(self.seats.insert(id, seat).is_none(), "{id} is born twice");
        self.births.push(id);
    }

    /// Runs all agents to their ends.
    pub(crate) fn play(mut self) -> Self {
        for _ in 0..STEPS_MAX {
            let Some((id, act)) = self.next() else { return self };
            if !matches!(act, Act::GoOn) {
                self.now = self.now.after(Millis(1));
            }
            let input = match act {
                Act::GoOn => Input::Continue,
                Act::Begin => Input::Start { node: NodeId::new("stage").expect("a name"), epoch: Epoch(1) },
                Act::Read => {
                    let (entry, input) = self.at(id).inbox.pop_front().expect("the inbox has an entry");
                    Input::Inbox(entry, input)
                }
                Act::Answer => self.answer(id),
                Act::Recall => self.recall(id),
                Act::Decide(seq) => {
                    let key = self.at(id).agent.effect_key(seq);
                    let result = EffectResult::Done(Answer::Approval(self.job.decision()));
                    Input::Inbox(InputId::answer(key), fact::Input::Answered { seq, key, result })
                }
                Act::Wait(due) => {
                    self.now = self.now.max(due);
                    Input::Due
                }
            };
            self.step(id, input);
        }
        panic!("`{}` does not end", self.job.name);
    }

    fn at(&mut self, id: AgentId) -> &mut Seat {
        self.seats.get_mut(&id).expect("the agent was born")
    }

    /// Who computes goes on first, so that the order of all else is the same whatever the fuel.
    fn next(&self) -> Option<(AgentId, Act)> {
        let computing = self.seats.iter().find(|(_, seat)| seat.more).map(|(id, _)| (*id, Act::GoOn));
        computing.or_else(|| self.seats.iter().find_map(|(id, seat)| Some((*id, seat.next()?))))
    }

    fn step(&mut self, id: AgentId, input: Input) {
        let (now, fuel) = (self.now, self.fuel);
        let seat = self.at(id);
        let workload = seat.agent.spawned().workload;
        let Step { facts, births, posts, wish, logs, ended, due, more, .. } = seat.agent.step(input, now, fuel);
        let stored: Vec<AgentEvent> =
            facts.iter().filter(|event| matches!(event, AgentEvent::MemoryStored { .. })).cloned().collect();
        seat.stream.extend(facts.into_iter().map(|event| (event, now)));
        seat.logs.extend(logs);
        (seat.due, seat.more) = (due, more);
        assert_eq!(ended.is_some(), seat.agent.end().is_some(), "`ended` is said with the step that ends");
        self.freeze(id);
        for event in &stored {
            if let AgentEvent::MemoryStored { entry, .. } = event {
                self.world.keep(entry, workload);
            }
        }
        for (child, first) in births {
            self.seat(child, first);
        }
        for (to, entry, input) in posts {
            self.at(to).inbox.push_back((entry, input));
        }
        if let Some(wish) = wish {
            let seat = self.at(id);
            let ticket = seat.agent.start_effect(wish.seq).expect("what is wished for can be started");
            seat.stream.push((ticket, now));
            seat.flying = Some(wish);
            self.freeze(id);
        }
    }

    /// Stops the agent, and goes on with another one made of its bytes.
    fn freeze(&mut self, id: AgentId) {
        if !self.freezes {
            return;
        }
        let program = Arc::clone(&self.program);
        self.freezes_done += 1;
        let seat = self.at(id);
        let bytes = seat.agent.snapshot();
        seat.agent = Agent::restore(&bytes, seat.agent.spawned(), program).expect("what was just written can be read");
        assert_eq!(seat.agent.snapshot(), bytes, "equal agents make equal bytes");
    }

    /// What comes back for the request in flight.
    fn answer(&mut self, id: AgentId) -> Input {
        let seat = self.at(id);
        let workload = seat.agent.spawned().workload;
        let effect = seat.flying.take().expect("a request is in flight");
        let (seq, attempt) = (effect.seq, effect.attempt);
        let (result, spend) = self.world.answer(id, workload, effect);
        Input::EffectEnded { seq, attempt, result, spend }
    }

    /// What an agent finds that looks into a memory.
    fn recall(&mut self, id: AgentId) -> Input {
        let agent = &self.at(id).agent;
        let (seq, attempt, request) = agent.recall().expect("it looks into a memory");
        let workload = agent.spawned().workload;
        let result = self.world.recall(&request, workload);
        Input::EffectEnded { seq, attempt, result, spend: Spend::default() }
    }

    /// All facts of all agents as bytes, in order of birth, and what they logged.
    pub(crate) fn trace(&self) -> Vec<(AgentId, Vec<u8>, Vec<String>)> {
        let trace = |id: &AgentId| {
            let seat = &self.seats[id];
            let bytes = seat.stream.iter().flat_map(|(event, _)| codec::encode(event)).collect();
            (*id, bytes, seat.logs.clone())
        };
        self.births.iter().map(trace).collect()
    }

    /// The same for people, shown when traces differ.
    pub(crate) fn told(&self) -> String {
        let line = |id, (event, at): &(AgentEvent, Timestamp)| format!("{id} {} {}\n", at.0, describe(event));
        self.births.iter().flat_map(|id| self.seats[id].stream.iter().map(move |entry| line(id, entry))).collect()
    }

    pub(crate) fn outcome(&self) -> Outcome {
        self.seats[&self.births[0]].agent.end().expect("the run has ended").outcome.clone()
    }
}

impl Seat {
    fn next(&self) -> Option<Act> {
        let state = self.agent.state();
        if state.is_terminal() {
            return None;
        }
        if !self.inbox.is_empty() {
            return Some(Act::Read);
        }
        if state == AgentState::Placed {
            return Some(Act::Begin);
        }
        if self.flying.is_some() {
            return Some(Act::Answer);
        }
        if self.agent.recall().is_some() {
            return Some(Act::Recall);
        }
        match state {
            AgentState::Waiting(Waiting::Approval) => self.asked().map(Act::Decide),
            AgentState::Waiting(Waiting::Timer) => self.due.map(Act::Wait),
            _ => None,
        }
    }

    fn asked(&self) -> Option<Seq> {
        self.stream.iter().rev().find_map(|(event, _)| match event {
            AgentEvent::EffectIntended { seq, intent: Intent::Approval(_), .. } => Some(*seq),
            _ => None,
        })
    }
}
