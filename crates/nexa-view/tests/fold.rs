//! A run as people see it, fact by fact.

use std::collections::BTreeMap;
use std::convert::Infallible;

use expect_test::{Expect, expect};
use nexa_event::effect::{
    Answer, ApprovalRequest, ChildSpec, Decision, Finish, Join, MemoryScope, ModelReply, Remembered,
};
use nexa_event::envelope::{Envelope, FORMAT, Fact, Header};
use nexa_event::fact::{
    AgentEvent, ChildBorn, ClusterEvent, EffectResult, Intent, OnFailure, Parent, Program, Spawned, WorkloadEvent,
};
use nexa_types::{
    AgentId, BlobHash, Budget, EffectKey, Epoch, Failure, GlobalSeq, Millis, ModuleHash, NodeId, Outcome, Payload,
    PrincipalId, RequestId, RunCode, Seq, Spend, StreamId, TenantId, Timestamp, Tokens, Version, WorkloadId,
};
use nexa_view::{Closing, HistoryLine, Key, MemoryBook, MemoryEntry, MemoryPlace, Seen, Shelf, View, fold};

/// Tells facts to the fold and shows what came of them.
#[derive(Default)]
struct Desk {
    views: BTreeMap<Key, View>,
    lines: Vec<HistoryLine>,
    memories: MemoryBook,
    facts: Vec<(GlobalSeq, Envelope)>,
    versions: BTreeMap<StreamId, u64>,
}

impl Shelf for Desk {
    type Error = Infallible;

    fn load(&mut self, key: &Key) -> Result<Option<View>, Infallible> {
        Ok(self.views.get(key).cloned())
    }

    fn save(&mut self, view: View) -> Result<(), Infallible> {
        self.views.insert(view.key(), view);
        Ok(())
    }

    fn save_line(&mut self, line: HistoryLine) -> Result<(), Infallible> {
        if !self.lines.iter().any(|known| known.position == line.position) {
            self.lines.push(line);
        }
        Ok(())
    }

    fn keep_memory(&mut self, entry: MemoryEntry) -> Result<(), Infallible> {
        self.memories.keep(entry);
        Ok(())
    }

    fn forget_memory(&mut self, place: &MemoryPlace) -> Result<(), Infallible> {
        self.memories.forget(place);
        Ok(())
    }
}

const ROOT_BRANCHES: u32 = 2;

fn workload() -> WorkloadId {
    WorkloadId::from_bytes([1; 16])
}

fn root() -> AgentId {
    AgentId::root(workload())
}

fn child(branch: u32) -> AgentId {
    AgentId::child(root(), Seq(1), branch)
}

fn node() -> NodeId {
    NodeId::new("n1").expect("a good name")
}

fn spend(tokens: u64) -> Spend {
    Spend { tokens_in: Tokens(tokens), calls: 1, ..Spend::default() }
}

impl Desk {
    fn tell(&mut self, stream: StreamId, fact: Fact, epoch: u64) {
        let version = self.versions.entry(stream.clone()).or_insert(0);
        *version += 1;
        let position = GlobalSeq(self.facts.len() as u64 + 1);
        let header = Header {
            format: FORMAT,
            version: Version(*version),
            at: Timestamp(1_000 * position.0),
            tenant: TenantId::local(),
            principal: PrincipalId::local(),
            epoch: matches!(stream, StreamId::Agent(_)).then_some(Epoch(epoch)),
            trace: None,
            stream,
        };
        self.facts.push((position, Envelope { header, fact }));
        self.fold_from(self.facts.len() - 1);
    }

    fn fold_from(&mut self, first: usize) {
        for (position, envelope) in self.facts.clone().into_iter().skip(first) {
            let workload = (!matches!(envelope.header.stream, StreamId::Cluster(_))).then_some(workload());
            match fold(self, &Seen { position, workload, envelope: &envelope }) {
                Ok(()) => {}
                Err(never) => match never {},
            }
        }
    }

    fn agent(&mut self, agent: AgentId, event: AgentEvent) {
        self.tell(StreamId::Agent(agent), Fact::Agent(event), 1);
    }

    fn workload(&mut self, event: WorkloadEvent) {
        self.tell(StreamId::Workload(workload()), Fact::Workload(event), 1);
    }

    fn submitted(&mut self) {
        let (request, request_hash) = (RequestId::from_bytes([1; 16]), [0; 32]);
        let (name, root, budget) = ("review".into(), root(), Budget::default());
        self.workload(WorkloadEvent::Submitted { request, request_hash, name, root, budget, priority: 100 });
    }

    fn spawned(&mut self, agent: AgentId, name: &str, parent: Option<Parent>) {
        let module = ModuleHash::from_bytes([7; 32]);
        let program = Program::Function { module, entry: 0, args: Payload::new([0x80]) };
        self.agent(agent, born(name, parent, program));
    }

    fn started(&mut self, agent: AgentId) {
        self.agent(agent, AgentEvent::Started { node: node(), epoch: Epoch(1) });
    }

    fn intended(&mut self, agent: AgentId, seq: u64, intent: Intent) {
        self.agent(agent, AgentEvent::EffectIntended { seq: Seq(seq), intent, fingerprint: [0; 32] });
        self.agent(agent, AgentEvent::EffectStarted { seq: Seq(seq), attempt: 1, epoch: Epoch(1) });
    }

    fn ended(&mut self, agent: AgentId, outcome: Outcome, tokens: u64) {
        self.agent(agent, AgentEvent::Ended { outcome, spend: spend(tokens) });
    }

    fn children(&mut self, join: Join) {
        let spec = ChildSpec {
            name: "Reviewer".into(),
            entry: 1,
            args: Payload::new([0x80]),
            budget: Budget::default(),
            timeout: None,
            asks: None,
        };
        let born = |branch| ChildBorn { agent: child(branch), spec: spec.clone(), granted: Budget::default() };
        let children = (0..ROOT_BRANCHES).map(born).collect();
        self.agent(root(), AgentEvent::ChildrenSpawned { seq: Seq(1), join, children });
    }

    fn child_ended(&mut self, branch: u32, outcome: Outcome) {
        self.agent(
            root(),
            AgentEvent::ChildEnded { seq: Seq(1), branch, outcome, spend: spend(10), handed_over: None },
        );
    }

    /// One line a view.
    fn shows(&self, expected: Expect) {
        let mut text = String::new();
        for view in self.views.values() {
            let line = match view {
                View::Workload(view) => format!(
                    "workload {} {} {} tokens, {} of {} agents ended{}",
                    view.name,
                    view.state,
                    view.spend.tokens(),
                    view.agents_ended,
                    view.agents,
                    if view.cancel_requested { ", cancel requested" } else { "" }
                ),
                View::Agent(view) => format!(
                    "agent {} {} v{} {} tokens{}{}",
                    view.name,
                    view.state,
                    view.version,
                    view.spend.tokens(),
                    view.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default(),
                    view.last_failure.as_ref().map(|text| format!(", last failure {text}")).unwrap_or_default(),
                ),
                View::Approval(view) => format!(
                    "approval {:?} of {} until {:?}: {}",
                    view.question,
                    view.agent_name,
                    view.expires_at.map(|at| at.0),
                    match view.closed.as_ref().map(|closed| &closed.how) {
                        None => "waits".to_owned(),
                        Some(Closing::Decided(decision)) => format!("decided {}", decision.approved),
                        Some(Closing::Failed(failure)) => format!("failed {failure}"),
                        Some(Closing::Withdrawn) => "withdrawn".to_owned(),
                    }
                ),
                View::Program(view) => format!("program {} at {}", view.name, view.put_at.0),
            };
            text.push_str(&line);
            text.push('\n');
        }
        expected.assert_eq(&text);
    }

    /// Folds all facts again, on top of what is there and from nothing; both must change nothing.
    fn folds_again_to_the_same(mut self) {
        let (views, lines) = (self.views.clone(), self.lines.clone());
        self.fold_from(0);
        assert_eq!((&self.views, &self.lines), (&views, &lines), "a fact that was seen changes nothing");
        self.views.clear();
        self.lines.clear();
        self.fold_from(0);
        assert_eq!((&self.views, &self.lines), (&views, &lines), "the same facts give the same views");
    }
}

fn born(name: &str, parent: Option<Parent>, program: Program) -> AgentEvent {
    AgentEvent::Spawned(Spawned {
        workload: workload(),
        name: name.into(),
        parent,
        program,
        budget: Budget::default(),
        deadline: None,
        seed: 1,
        depth: 0,
        priority: 100,
        asks: None,
    })
}

fn model() -> Intent {
    Intent::Model { model: String::new(), sources: vec![], reserved: Spend::default(), conversation: None }
}

fn question() -> Intent {
    Intent::Approval(ApprovalRequest { question: "Send it?".into(), data: None, timeout: Some(Millis(500)) })
}

fn replied(seq: u64) -> AgentEvent {
    let reply = ModelReply {
        text: "All is well.".into(),
        finish: Finish::Stop,
        model: "embedded/smol".into(),
        spend: spend(5),
        tokens_left_out: Tokens(0),
        tool_calls: Vec::new(),
    };
    AgentEvent::EffectEnded { seq: Seq(seq), result: EffectResult::Done(Answer::Model(reply)), spend: spend(5) }
}

fn value() -> Outcome {
    Outcome::Ok(Payload::new([0xf6]))
}

#[test]
fn a_fork_is_seen_from_submission_to_end() {
    let mut desk = Desk::default();
    desk.submitted();
    desk.spawned(root(), "main", None);
    desk.shows(expect![[r#"
        workload review submitted 0 tokens, 0 of 1 agents ended
        agent main placed v1 0 tokens
    "#]]);
    desk.started(root());
    desk.children(Join::All);
    for branch in 0..ROOT_BRANCHES {
        desk.spawned(child(branch), "Reviewer", Some(Parent { agent: root(), seq: Seq(1), branch }));
    }
    desk.started(child(0));
    desk.intended(child(0), 1, model());
    desk.shows(expect![[r#"
        workload review running 0 tokens, 0 of 3 agents ended
        agent main waiting(children) v3 0 tokens on n1
        agent Reviewer placed v1 0 tokens
        agent Reviewer waiting(model) v4 0 tokens on n1
    "#]]);
    desk.agent(child(0), replied(1));
    desk.ended(child(0), value(), 5);
    desk.child_ended(0, value());
    desk.child_ended(1, Outcome::Err(Failure::new(RunCode::Timeout, "too slow")));
    desk.shows(expect![[r#"
        workload review running 5 tokens, 1 of 3 agents ended
        agent main running v5 0 tokens on n1, last failure timeout: too slow
        agent Reviewer placed v1 0 tokens
        agent Reviewer succeeded v6 5 tokens on n1
    "#]]);
    desk.ended(root(), value(), 20);
    desk.workload(WorkloadEvent::Ended { outcome: value(), spend: spend(20) });
    desk.shows(expect![[r#"
        workload review succeeded 20 tokens, 2 of 3 agents ended
        agent main succeeded v6 20 tokens on n1, last failure timeout: too slow
        agent Reviewer placed v1 0 tokens
        agent Reviewer succeeded v6 5 tokens on n1
    "#]]);
    let lines: Vec<String> =
        desk.lines.iter().map(|line| format!("{} {}: {}\n", line.position, line.kind, line.text)).collect();
    expect![[r#"
        1 workload_submitted: review
        2 agent_spawned: main
        5 agent_spawned: Reviewer
        6 agent_spawned: Reviewer
        10 model_replied: All is well.
    "#]]
    .assert_eq(&lines.concat());
    desk.folds_again_to_the_same();
}

#[test]
fn a_question_is_pending_until_it_is_answered_or_its_agent_ends() {
    let mut desk = Desk::default();
    desk.submitted();
    desk.spawned(root(), "main", None);
    desk.started(root());
    desk.intended(root(), 1, question());
    desk.shows(expect![[r#"
        workload review running 0 tokens, 0 of 1 agents ended
        agent main waiting(approval) v4 0 tokens on n1
        approval "Send it?" of main until Some(4500): waits
    "#]]);
    let decision = Decision { approved: true, by: "ada".into(), note: String::new() };
    let result = EffectResult::Done(Answer::Approval(decision));
    desk.agent(root(), AgentEvent::EffectEnded { seq: Seq(1), result, spend: Spend::default() });
    desk.intended(root(), 2, question());
    let failure = Failure::new(RunCode::ApprovalTimeout, "nobody answered");
    let result = EffectResult::Failed(failure);
    desk.agent(root(), AgentEvent::EffectEnded { seq: Seq(2), result, spend: Spend::default() });
    desk.intended(root(), 3, question());
    desk.workload(WorkloadEvent::CancelRequested { reason: "enough".into() });
    desk.agent(root(), AgentEvent::CancelReceived { reason: "enough".into() });
    desk.ended(root(), Outcome::Err(Failure::new(RunCode::Cancelled, "enough")), 0);
    let closed = |seq| match desk.views.get(&Key::Approval(EffectKey::of(workload(), root(), Seq(seq)))) {
        Some(View::Approval(view)) => view.closed.as_ref().map(|closed| closed.how.clone()),
        _ => None,
    };
    assert!(matches!(closed(1), Some(Closing::Decided(decision)) if decision.approved));
    assert!(matches!(closed(2), Some(Closing::Failed(_))));
    assert_eq!(closed(3), Some(Closing::Withdrawn));
    let cancelled = Outcome::Err(Failure::new(RunCode::Cancelled, "enough"));
    desk.workload(WorkloadEvent::Ended { outcome: cancelled, spend: Spend::default() });
    match &desk.views[&Key::Workload(workload())] {
        View::Workload(view) => {
            expect!["cancelled, asked true"].assert_eq(&format!("{}, asked {}", view.state, view.cancel_requested))
        }
        other => panic!("{other:?}"),
    }
    desk.folds_again_to_the_same();
}

#[test]
fn a_first_is_waited_for_until_the_others_are_ended() {
    let mut desk = Desk::default();
    desk.submitted();
    desk.spawned(root(), "main", None);
    desk.started(root());
    desk.children(Join::FirstOk(1));
    desk.shows(expect![[r#"
        workload review running 0 tokens, 0 of 1 agents ended
        agent main waiting(children) v3 0 tokens on n1
    "#]]);
    desk.child_ended(1, value());
    desk.agent(root(), AgentEvent::ChildrenCancelled { children: vec![child(0)] });
    desk.shows(expect![[r#"
        workload review running 0 tokens, 0 of 1 agents ended
        agent main running v5 0 tokens on n1
    "#]]);
    desk.folds_again_to_the_same();
}

#[test]
fn a_root_that_has_concluded_waits_for_detached_branches_and_shows_their_failures() {
    let mut desk = Desk::default();
    desk.submitted();
    desk.spawned(root(), "main", None);
    desk.started(root());
    desk.children(Join::Detached);
    desk.shows(expect![[r#"
        workload review running 0 tokens, 0 of 1 agents ended
        agent main running v3 0 tokens on n1
    "#]]);
    desk.agent(root(), AgentEvent::Concluded { outcome: value() });
    desk.child_ended(1, value());
    desk.shows(expect![[r#"
        workload review running 0 tokens, 0 of 1 agents ended
        agent main waiting(children) v5 0 tokens on n1
    "#]]);
    let failure = Failure::new(RunCode::Refused, "not this");
    desk.child_ended(0, Outcome::Err(failure.clone()));
    desk.agent(root(), AgentEvent::DetachedFailed { name: "Reviewer".into(), agent: Some(child(0)), failure });
    desk.ended(root(), value(), 20);
    desk.shows(expect![[r#"
        workload review running 0 tokens, 1 of 1 agents ended
        agent main succeeded v8 20 tokens on n1, last failure refused: not this
    "#]]);
    let failed = desk.lines.iter().filter(|line| line.kind == "detached_failed").map(|line| line.text.clone());
    assert_eq!(failed.collect::<Vec<_>>(), ["Reviewer: refused: not this"]);
    desk.folds_again_to_the_same();
}

#[test]
fn a_coordinator_waits_for_children_whenever_it_waits() {
    let mut desk = Desk::default();
    desk.submitted();
    let module = ModuleHash::from_bytes([7; 32]);
    desk.agent(
        root(),
        born("list", None, Program::List { module, items: vec![], on_failure: OnFailure::FailFast, turns: None }),
    );
    desk.started(root());
    desk.children(Join::None);
    desk.child_ended(0, value());
    desk.shows(expect![[r#"
        workload review running 0 tokens, 0 of 1 agents ended
        agent list waiting(children) v4 0 tokens on n1
    "#]]);
    desk.folds_again_to_the_same();
}

#[test]
fn timers_quarantine_and_takeover_are_seen() {
    let mut desk = Desk::default();
    desk.submitted();
    let stream = StreamId::Agent(root());
    let module = ModuleHash::from_bytes([7; 32]);
    let program = Program::Function { module, entry: 0, args: Payload::new([0x80]) };
    desk.tell(stream.clone(), Fact::Agent(born("main", None, program)), 0);
    desk.shows(expect![[r#"
        workload review submitted 0 tokens, 0 of 1 agents ended
        agent main ready v1 0 tokens
    "#]]);
    desk.started(root());
    desk.agent(root(), AgentEvent::TimerSet { seq: Seq(1), due: Timestamp(9) });
    desk.agent(root(), AgentEvent::Quarantined { reason: "it ended two nodes".into() });
    desk.shows(expect![[r#"
        workload review running 0 tokens, 0 of 1 agents ended
        agent main quarantined v4 0 tokens on n1
    "#]]);
    let n2 = NodeId::new("n2").expect("a good name");
    desk.tell(stream, Fact::Agent(AgentEvent::TakenOver { node: n2, epoch: Epoch(2), carried: None }), 2);
    desk.shows(expect![[r#"
        workload review running 0 tokens, 0 of 1 agents ended
        agent main waiting(timer) v5 0 tokens on n2
    "#]]);
    desk.agent(root(), AgentEvent::TimerFired { seq: Seq(1) });
    desk.shows(expect![[r#"
        workload review running 0 tokens, 0 of 1 agents ended
        agent main running v6 0 tokens on n2
    "#]]);
    desk.folds_again_to_the_same();
}

#[test]
fn what_is_stored_after_a_workload_has_ended_does_not_come_back_into_its_memory() {
    let mut desk = Desk::default();
    desk.submitted();
    desk.spawned(root(), "main", None);
    desk.started(root());
    let store = |key: &str, scope| AgentEvent::MemoryStored {
        seq: Seq(1),
        entry: Remembered { scope, key: key.into(), value: Some(Payload::new([0x01])) },
    };
    desk.agent(root(), store("before", MemoryScope::Workload));
    assert_eq!(desk.memories.all().count(), 1);
    desk.workload(WorkloadEvent::Ended { outcome: value(), spend: spend(0) });
    // It was told to end, and has something deferred.
    desk.agent(root(), store("after", MemoryScope::Workload));
    assert_eq!(desk.memories.all().count(), 0, "a workload that has ended has no memory");
    desk.agent(root(), store("after", MemoryScope::Tenant));
    assert_eq!(desk.memories.all().count(), 1, "the tenant's memory goes on");
    desk.folds_again_to_the_same();
}

#[test]
fn history_says_who_had_an_agent_forgotten_and_no_view_changes() {
    let mut desk = Desk::default();
    let forgotten = ClusterEvent::AgentForgotten { agent: root(), up_to: Version(7) };
    desk.tell(StreamId::Cluster(TenantId::local()), Fact::Cluster(forgotten), 0);
    assert!(desk.views.is_empty());
    let [line] = &desk.lines[..] else { panic!("{:?}", desk.lines) };
    assert_eq!((line.kind.as_str(), line.agent, line.workload), ("agent_forgotten", Some(root()), None));
    assert_eq!(line.text, format!("{} is forgotten, as local asked", root()));
    desk.folds_again_to_the_same();
}

#[test]
fn a_program_has_one_entry_a_name() {
    let mut desk = Desk::default();
    let put = |name: &str, byte| {
        let (module, blob) = (ModuleHash::from_bytes([byte; 32]), BlobHash::from_bytes([byte; 32]));
        Fact::Cluster(ClusterEvent::ProgramPut { module, blob, name: name.into() })
    };
    for (name, byte) in [("review", 1), ("review", 2), ("other", 1), ("review", 1)] {
        desk.tell(StreamId::Cluster(TenantId::local()), put(name, byte), 0);
    }
    desk.shows(expect![[r#"
        program other at 3000
        program review at 4000
        program review at 2000
    "#]]);
    desk.folds_again_to_the_same();
}
