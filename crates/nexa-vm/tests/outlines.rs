//! Outlines and the task graphs that they make: whatever a module says, a graph has an end, no circle, and names that are
//! given once.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use expect_test::expect;
use nexa_types::Budget;
use nexa_vm::Program;
use nexa_vm::module::outline::{Act, Graph, Outline, Step};
use nexa_vm::module::tasks::TASKS_MAX;
use nexa_vm::module::{Entry, Module};
use proptest::prelude::*;

fn outlined() -> Module {
    let case = common::programs::all().into_iter().find(|case| case.name == "outlined").unwrap();
    case.program.module().clone()
}

fn shown(module: &Module, entry: &Entry) -> String {
    let tasks = module.tasks(entry);
    let line = |task: &nexa_vm::module::tasks::Task| {
        let deps: Vec<&str> = task.deps.iter().map(|dep| tasks[*dep as usize].id.as_str()).collect();
        format!(
            "{} {} {:?} {} ms after {}\n",
            task.kind.as_str(),
            task.id,
            task.rounds,
            task.estimate(),
            deps.join(", ")
        )
    };
    tasks.iter().map(line).collect()
}

#[test]
fn the_tasks_of_an_entry_have_names_and_come_after_each_other() {
    let module = outlined();
    expect![[r#"
        condition all/condition#1 Some(1) 2000 ms after 
        fork all/fork#1 Some(1) 0 ms after all/condition#1
        agent all/A Some(4) 8000 ms after all/fork#1
        agent all/second None 2000 ms after all/fork#1
        merge all/merge#1 Some(1) 0 ms after all/A, all/second
        transform all/all Some(1) 2000 ms after all/merge#1
        transform all/transform#1 Some(1) 0 ms after all/all
    "#]]
    .assert_eq(&shown(&module, &module.entries[0]));
    expect![[r#"
        agent second Some(1) 2000 ms after 
    "#]]
    .assert_eq(&shown(&module, &module.entries[1]));
}

#[test]
fn a_module_that_tells_nothing_is_one_task() {
    let module = Module { graph: Graph::default(), ..outlined() };
    expect![[r#"
        transform main/transform#1 Some(1) 2000 ms after 
    "#]]
    .assert_eq(&shown(&module, &module.entries[0]));
}

#[test]
fn what_a_scheduler_is_told_changes_no_hash() {
    let told = outlined();
    let silent = Module { graph: Graph::default(), ..told.clone() };
    assert_eq!(told.hash(), silent.hash());
    assert_eq!(Program::load(&told.encode()).unwrap().hash(), Program::load(&silent.encode()).unwrap().hash());
    assert_eq!((told.encode()[5], silent.encode()[5]), (2, 0), "an older loader refuses what it cannot read");
}

#[test]
fn outlines_of_what_is_not_there_are_refused() {
    let good = outlined();
    let with = |change: &dyn Fn(&mut Graph)| {
        let mut module = good.clone();
        change(&mut module.graph);
        Module::decode(&module.encode()).is_err()
    };
    assert!(!with(&|_| {}));
    assert!(with(&|graph| graph.outlines[0].steps[2].act = Act::Agent(99)));
    assert!(with(&|graph| graph.outlines[0].steps[2].act = Act::Tool(0)));
    assert!(with(&|graph| graph.outlines[0].steps[2].act = Act::Flow(99)));
    assert!(with(&|graph| graph.outlines[0].steps[2].after = vec![2]));
    assert!(with(&|graph| graph.outlines[0].steps[4].after = vec![3, 2]));
    assert!(with(&|graph| graph.outlines[0].ends = vec![7]));
    assert!(with(&|graph| graph.outlines[0].function = 99));
    assert!(with(&|graph| graph.outlines.push(graph.outlines[0].clone())));
    assert!(with(&|graph| graph.pins.swap(0, 1)));
    assert!(with(&|graph| graph.models[0].0 = 99));
    assert!(with(&|graph| graph.models[0].1.clear()));
}

/// Flows that each call the two behind them: told in whole, that would be a number with a hundred digits.
#[test]
fn flows_that_call_each_other_again_and_again_end() {
    let mut module = outlined();
    let functions = 300;
    let template = module.functions[0].clone();
    module.functions.resize(functions, template);
    let step = |function: usize, after: Vec<u32>| Step { act: Act::Flow(function as u32), after, rounds: Some(2) };
    let outline = |function: usize| {
        let next = |by: usize| (function + by) % functions;
        let agent = Step { act: Act::Agent(0), after: vec![], rounds: None };
        let steps = vec![agent, step(next(1), vec![0]), step(next(2), vec![0]), step(next(1), vec![1, 2])];
        Outline { function: function as u32, steps, ends: vec![1, 3] }
    };
    module.graph.outlines = (0..functions).map(outline).collect();
    module.entries[0].function = 0;
    common::check_tasks(&module);
    assert!(module.tasks(&module.entries[0]).len() > TASKS_MAX / 2);
}

fn any_graph(functions: u32, agents: u32) -> impl Strategy<Value = Graph> {
    let act = prop_oneof![
        (0..agents).prop_map(Act::Agent),
        (0..functions).prop_map(Act::Flow),
        (0..3_u32).prop_map(Act::Condition),
        Just(Act::Fork),
        Just(Act::Merge),
        Just(Act::Transform),
    ];
    let step = (act, proptest::collection::vec(any::<prop::sample::Index>(), 0..4), proptest::option::of(any::<u64>()));
    let outline =
        (proptest::collection::vec(step, 0..12), proptest::collection::vec(any::<prop::sample::Index>(), 0..3));
    proptest::collection::btree_map(0..functions, outline, 0..functions as usize).prop_map(|outlines| {
        let places = |picked: Vec<prop::sample::Index>, below: usize| {
            let places = picked.iter().filter(|_| below > 0).map(|place| place.index(below) as u32);
            places.collect::<std::collections::BTreeSet<u32>>().into_iter().collect::<Vec<u32>>()
        };
        let outline = |(function, (steps, ends)): (u32, (Vec<_>, _))| {
            let len = steps.len();
            let step = |(place, (act, after, rounds))| Step { act, after: places(after, place), rounds };
            Outline { function, steps: steps.into_iter().enumerate().map(step).collect(), ends: places(ends, len) }
        };
        Graph { outlines: outlines.into_iter().map(outline).collect(), ..Graph::default() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn any_outlines_make_a_graph_with_an_end(graph in any_graph(8, 2)) {
        let mut module = outlined();
        let template = module.functions[0].clone();
        module.functions.resize(8, template);
        module.graph = graph;
        module.entries = (0..8).map(|function| Entry {
            name: format!("f{function}"),
            is_agent: false,
            function,
            params: Vec::new(),
            result: 0,
            budget: Budget::default(),
        }).collect();
        common::check_tasks(&module);
        let read = Module::decode(&module.encode()).unwrap();
        prop_assert_eq!(read.graph, module.graph);
    }
}
