//! Every example is one and the same run, however often it is stopped, and whoever reads it again needs no model.
//!
//! Each example is driven here on the pure agent, without a node: with normal fuel, and with fuel 1, where an agent is
//! turned into bytes and back after every step. Then the real thing runs it, and its streams are replayed.

mod jobs;
mod node;
mod stage;
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nexa_agent::Agent;
use nexa_event::fact::AgentEvent;
use nexa_ports::store::AgentRow;
use nexa_tests::Desk;
use nexa_types::limits::SLICE_FUEL;
use nexa_types::{AgentId, Outcome, Timestamp};
use nexa_vm::vm::Program;

use crate::jobs::{JOBS, Job, compile, examples};
use crate::node::{kept, run_for_real};
use crate::stage::Stage;

impl Job {
    fn program(&self) -> Arc<Program> {
        Arc::new(Program::load(&compile(&self.path()).encode()).expect("a compiled module loads"))
    }
}

/// Makes an agent from its stream, with no model in reach.
fn replayed(id: AgentId, stream: &[(AgentEvent, Timestamp)], program: &Arc<Program>) -> Agent {
    let Some(((AgentEvent::Spawned(first), _), rest)) = stream.split_first() else {
        panic!("the stream of {id} does not begin with its birth");
    };
    let mut agent = Agent::born(id, first, Arc::clone(program)).expect("it is the right module");
    for (event, at) in rest {
        agent.replay(event, *at).unwrap_or_else(|error| panic!("{id}: {error}"));
    }
    agent
}

/// Files below a folder that end so.
fn files_below(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            files_below(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

#[test]
fn every_example_is_in_the_table() {
    let mut found = Vec::new();
    files_below(&examples(), "nx", &mut found);
    assert!(!found.is_empty());
    for file in found {
        let module = compile(&file);
        let is_program = module.entries.iter().any(|entry| entry.name == "main");
        let is_listed = JOBS.iter().any(|job| job.path() == file);
        assert!(
            !is_program || is_listed,
            "{} is not tested: give it an input and a script in the table of this file",
            file.display()
        );
    }
}

#[test]
fn an_agent_stopped_at_every_safepoint_leaves_the_same_trace() {
    for job in JOBS {
        let program = job.program();
        let whole = Stage::new(job, &program, SLICE_FUEL, false).play();
        let pieces = Stage::new(job, &program, 1, true).play();
        assert_eq!(pieces.told(), whole.told(), "`{}` differs", job.name);
        assert_eq!(pieces.trace(), whole.trace(), "`{}` differs in its bytes", job.name);
        assert_eq!(matches!(whole.outcome(), Outcome::Ok(_)), job.succeeds, "`{}`: {:?}", job.name, whole.outcome());
        for (id, seat) in &whole.seats {
            assert!(seat.agent.end().is_some(), "`{}`: {id} has not ended", job.name);
            assert_eq!(pieces.seats[id].agent.snapshot(), seat.agent.snapshot());
        }
        println!("{}: {} agents, stopped {} times: {}", job.file, whole.seats.len(), pieces.freezes_done, job.name);
    }
}

#[test]
fn a_stream_is_replayed_without_a_model() {
    for job in JOBS {
        let program = job.program();
        let stage = Stage::new(job, &program, SLICE_FUEL, false).play();
        for (id, seat) in &stage.seats {
            let again = replayed(*id, &seat.stream, &program);
            assert_eq!(again.snapshot(), seat.agent.snapshot(), "`{}`: {id}", job.name);
        }
    }
}

/// An outcome as `-o json` shows it: only what must not differ from run to run.
fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok(value) => nexa_vm::json::to_json(&nexa_vm::codec::decode(value).expect("an outcome has a value")),
        Outcome::Err(failure) => failure.code.to_string(),
    }
}

#[tokio::test]
async fn what_a_node_left_behind_is_replayed_without_a_model() {
    for job in JOBS {
        let desk = Desk::new();
        let outcome = run_for_real(job, &desk);
        let kept = kept(&desk.path("data")).await;
        let program = kept.programs.values().next().expect("the program was kept");
        let driven = Stage::new(job, program, SLICE_FUEL, false).play();
        assert_eq!(kept.rows.len(), driven.seats.len(), "`{}` has another number of agents", job.name);
        for row in &kept.rows {
            let stream = &kept.streams[&row.agent];
            let agent = replayed(row.agent, stream, program);
            let Some((AgentEvent::Ended { outcome, spend }, _)) = stream.last() else {
                panic!("`{}`: the last event of {} is not its end", job.name, row.agent);
            };
            let end = agent.end().expect("a replayed agent has ended too");
            assert_eq!((&end.outcome, &end.spend), (outcome, spend));
            assert_eq!((agent.state(), agent.version(), agent.due()), (row.state, row.version, row.due));
            if let Some((version, bytes)) = kept.snapshots.get(&row.agent) {
                let mut later = Agent::restore(bytes, agent.spawned(), Arc::clone(program))
                    .expect("a kept snapshot can be restored");
                assert_eq!(later.version(), *version);
                for (event, at) in &stream[version.0 as usize..] {
                    later.replay(event, *at).expect("what came after the snapshot follows from it");
                }
                assert_eq!(later.snapshot(), agent.snapshot(), "the snapshot leads elsewhere than the stream");
            }
        }
        let is_root = |row: &&AgentRow| matches!(&kept.streams[&row.agent][0].0, AgentEvent::Spawned(first) if first.parent.is_none());
        let root = kept.rows.iter().find(is_root).expect("one agent is the root").agent;
        let root = replayed(root, &kept.streams[&root], program);
        let real = root.end().expect("it has ended").outcome.clone();
        assert_eq!(shown(&real), shown(&driven.outcome()), "`{}` ends differently on a node: {outcome}", job.name);
    }
}
