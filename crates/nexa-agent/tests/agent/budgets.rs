//! Random trees of agents with caps, kept like the books of a shop: from the streams alone, entry by entry.

use std::collections::BTreeMap;

use nexa_event::effect::ChildSpec;
use nexa_event::fact::{AgentEvent, Intent};
use nexa_types::{AgentId, Budget, Outcome, RunCode, Seq, Spend, Tokens};
use proptest::prelude::*;

use crate::desk::{Desk, Seat, calls, tokens};
use crate::program::Act;

/// What is counted here: tokens and requests.
type Count = [u64; 2];

fn caps(budget: &Budget) -> [Option<u64>; 2] {
    [budget.tokens.map(|cap| cap.0), budget.calls]
}

fn count(spend: &Spend) -> Count {
    [spend.tokens().0, spend.calls]
}

/// One agent's books.
#[derive(Default)]
struct Books {
    spent: Count,
    reserved: BTreeMap<Seq, Count>,
    /// By child, what it was granted.
    set_aside: BTreeMap<(Seq, u32), Budget>,
    own: Count,
}

impl Books {
    fn used(&self) -> Count {
        let reserved = self.reserved.values().copied();
        let set_aside = self.set_aside.values().map(|budget| caps(budget).map(|cap| cap.unwrap_or(0)));
        reserved.chain(set_aside).fold(self.spent, add)
    }

    /// A child gets its own caps, or its share of what is left where that is less.
    fn grants(&self, budget: &Budget, spec: &ChildSpec, shares: u64) -> [Option<u64>; 2] {
        let (used, own) = (self.used(), caps(&spec.budget));
        let mut granted = caps(budget);
        for (at, cap) in granted.iter_mut().enumerate() {
            let share = cap.map(|cap| cap.saturating_sub(used[at]) / shares);
            *cap = [share, own[at]].into_iter().flatten().min();
        }
        granted
    }

    fn pay(&mut self, spend: &Spend, is_own: bool) {
        self.spent = add(self.spent, count(spend));
        if is_own {
            self.own = add(self.own, count(spend));
        }
    }
}

fn add(a: Count, b: Count) -> Count {
    [a[0] + b[0], a[1] + b[1]]
}

/// Reads an agent's stream and gives what it itself was billed for; `None` while it has not ended.
fn audited(seat: &Seat) -> Option<(Count, bool)> {
    let budget = seat.agent.spawned().budget;
    let mut books = Books::default();
    let mut told = None;
    for (event, _) in &seat.stream {
        match event {
            AgentEvent::EffectIntended { seq, intent: Intent::Model { reserved, .. }, .. } => {
                books.reserved.insert(*seq, count(reserved));
            }
            AgentEvent::EffectEnded { seq, spend, .. } => {
                books.reserved.remove(seq);
                books.pay(spend, true);
            }
            AgentEvent::ChildrenSpawned { seq, children, .. } => {
                for (branch, child) in (0..).zip(children) {
                    // The rest is shared before any of them has its part.
                    let wanted = books.grants(&budget, &child.spec, children.len() as u64);
                    assert_eq!(caps(&child.granted), wanted, "the grant of #{}.{branch}", seq.0);
                }
                for (branch, child) in (0..).zip(children) {
                    books.set_aside.insert((*seq, branch), child.granted);
                }
            }
            AgentEvent::ChildEnded { seq, branch, spend, .. } => {
                let granted = books.set_aside.remove(&(*seq, *branch)).expect("it was born and ends once");
                for (used, cap) in count(spend).into_iter().zip(caps(&granted)) {
                    assert!(cap.is_none_or(|cap| used <= cap), "a child used {used} of {cap:?}");
                }
                books.pay(spend, false);
            }
            AgentEvent::Ended { spend, .. } => told = Some(*spend),
            _ => {}
        }
        for (used, cap) in books.used().into_iter().zip(caps(&budget)) {
            assert!(cap.is_none_or(|cap| used <= cap), "{used} of {cap:?} after {event:?}");
        }
    }
    let told = count(&told?);
    // A request that was given up is billed at its worst case, if it was sent at all.
    let given_up = books.reserved.values().copied().fold([0; 2], add);
    let billed = add(books.spent, given_up);
    assert!(told == books.spent || told == billed, "it says {told:?} and has {:?}, {given_up:?}", books.spent);
    let late = [told[0] - books.spent[0], told[1] - books.spent[1]];
    Some((add(books.own, late), books.set_aside.is_empty()))
}

/// All books at once: what the root says that was used is what all of them were billed for, child by child.
fn audit(desk: &Desk) {
    let found: Vec<(Count, bool)> = desk.seats.values().map(|seat| audited(seat).expect("it ended")).collect();
    let all = found.iter().map(|(own, _)| *own).fold([0; 2], add);
    let told = count(&desk.root().agent.end().expect("it ended").spend);
    if found.iter().all(|(_, waited)| *waited) {
        assert_eq!(told, all, "the sum of all bills");
    } else {
        // What an agent uses after its parent has ended stands in its own books only.
        assert!(told[0] <= all[0] && told[1] <= all[1], "{told:?} of {all:?}");
    }
}

fn any_caps() -> impl Strategy<Value = Budget> {
    let open = || Just(Budget::default());
    prop_oneof![3 => open(), 2 => (0..6u64).prop_map(calls), 2 => (0..600u64).prop_map(tokens)]
}

/// An act of a function that runs functions with a higher number, each with caps of its own or none.
fn any_act(function: u32) -> BoxedStrategy<Act> {
    let ask = prop_oneof![(1..120u16).prop_map(Act::Ask), (1..120u16).prop_map(Act::TryAsk)];
    if function == 3 {
        return prop_oneof![4 => ask, 1 => Just(Act::Fail)].boxed();
    }
    let child = || (function + 1..4, any_caps());
    let run = (child(), any::<bool>()).prop_map(|((function, budget), tries)| Act::Run { function, budget, tries });
    let fork = prop::collection::vec(child(), 2..4).prop_map(Act::ForkCapped);
    prop_oneof![3 => ask, 3 => run, 2 => fork, 1 => Just(Act::Fail)].boxed()
}

fn any_tree() -> impl Strategy<Value = Vec<Vec<Act>>> {
    (0..4u32).map(|function| prop::collection::vec(any_act(function), 1..4)).collect::<Vec<_>>()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_books_of_every_tree_are_right(
        functions in any_tree(),
        budget in any_caps(),
        fuel in prop::sample::select(vec![1, 10_000]),
        cancel_after in prop::option::weighted(0.3, 0..12usize),
    ) {
        let mut desk = Desk::with(&functions, |born| born.budget = budget);
        desk.fuel = fuel;
        desk.starts();
        if let Some(answers) = cancel_after {
            for _ in 0..answers {
                let next = desk.seats.iter().find_map(|(id, seat)| Some((*id, seat.flying.first()?.clone())));
                let Some((id, effect)) = next else { break };
                desk.answer_by_key(id, &effect);
            }
            desk.cancel_workload();
        }
        desk.run_to_the_end();
        audit(&desk);
    }
}

/// `main` has two requests and calls `f1`, which has caps of its own or none, so often, catching what it raises.
fn tries(own: Budget, times: usize, inner: Vec<Act>) -> Desk {
    let calls_it = Act::Run { function: 1, budget: own, tries: true };
    let mut desk = Desk::with(&[vec![calls_it; times], inner], |born| born.budget = calls(2));
    desk.run_to_the_end();
    audit(&desk);
    desk
}

fn code(desk: &Desk) -> Option<RunCode> {
    match desk.outcome()? {
        Outcome::Ok(_) => None,
        Outcome::Err(failure) => Some(failure.code),
    }
}

#[test]
fn what_a_parent_has_no_more_of_ends_the_parent_and_it_cannot_catch_that() {
    let desk = tries(Budget::default(), 3, vec![Act::Ask(10)]);
    assert_eq!(code(&desk), Some(RunCode::BudgetExceeded));
    assert_eq!(desk.root().agent.spend().calls, 2);
}

#[test]
fn what_a_child_may_not_use_by_itself_is_caught_by_its_caller() {
    let desk = tries(calls(1), 1, vec![Act::Ask(10), Act::Ask(10)]);
    assert_eq!(code(&desk), None);
}

#[test]
fn a_shortage_ends_everyone_up_to_the_one_whose_budget_it_is() {
    let run = |function, budget, tries| Act::Run { function, budget, tries };
    let functions = [
        vec![run(1, calls(1), true), Act::Ask(10)],
        vec![run(2, Budget::default(), true), Act::Emit],
        vec![run(3, Budget::default(), true), Act::Emit],
        vec![Act::Ask(10), Act::Ask(10)],
    ];
    let mut desk = Desk::with(&functions, |_| {});
    desk.run_to_the_end();
    audit(&desk);
    assert_eq!(code(&desk), None, "its own caller catches it and goes on");
    assert_eq!(desk.root().agent.spend().calls, 2);
    let ended: Vec<AgentId> = desk.seats.iter().filter(|(_, seat)| failed(seat)).map(|(id, _)| *id).collect();
    assert_eq!(ended.len(), 3, "the child with the cap and the two below it");
}

fn failed(seat: &Seat) -> bool {
    matches!(seat.agent.end().map(|end| &end.outcome), Some(Outcome::Err(failure)) if failure.code == RunCode::BudgetExceeded)
}

#[test]
fn an_error_that_was_only_passed_on_is_an_ordinary_one() {
    let run = |function, budget, tries| Act::Run { function, budget, tries };
    // The cap is that of `f2`; `f1` does not catch, and what it raises is not its own shortage.
    let functions =
        [vec![run(1, Budget::default(), true)], vec![run(2, calls(1), false)], vec![Act::Ask(10), Act::Ask(10)]];
    let mut desk = Desk::with(&functions, |born| born.budget = Budget { tokens: Some(Tokens(9_000)), ..calls(9) });
    desk.run_to_the_end();
    audit(&desk);
    assert_eq!(code(&desk), None);
}
