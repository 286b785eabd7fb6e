//! A run by the real thing, and what it leaves in its data folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, ClusterEvent, WorkloadEvent};
use nexa_ports::store::{AgentRow, Rows, Store};
use nexa_store::SqliteStore;
use nexa_tests::{Desk, Process};
use nexa_types::{AgentId, BlobHash, GlobalSeq, ModuleHash, StreamId, TenantId, Timestamp, Version};
use nexa_vm::vm::Program;

use crate::jobs::Job;

/// Runs a job with the binary, answers its questions, and gives its value.
pub(crate) fn run_for_real(job: &Job, desk: &Desk) -> serde_json::Value {
    let script = desk.write("script.nx", job.script);
    let file = job.path();
    let data = desk.path("data");
    let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let (file, script, data_text) = (text(&file), text(&script), text(&data));
    let args = ["run", &file, "--script", &script, "--input", job.input, "--data", &data_text, "-o", "json"];
    let mut process = Process::start(desk.nexa(&args));
    loop {
        let line = process.wait_for_line(|line| line.contains("approval_requested") || line.contains("\"end\""));
        let frame: serde_json::Value = serde_json::from_str(&line).expect("every line is JSON");
        if frame["frame"] == "end" {
            let status = process.wait();
            assert_eq!(status.success(), job.succeeds, "`{}`: {}", job.name, process.rest_of_err());
            return frame["workload"]["outcome"].clone();
        }
        if frame["event"] == "approval_requested" {
            let server = format!("unix:{}", data.join("nexa.sock").display());
            let id = frame["approval_id"].as_str().expect("a question has an id");
            let decision = job.decision();
            let mut args = vec!["approve", id, "--server", &server, "--note", &decision.note];
            args.extend(["--deny"].iter().filter(|_| !decision.approved));
            desk.run(&args).good();
        }
    }
}

/// What a data folder holds.
pub(crate) struct Kept {
    pub(crate) rows: Vec<AgentRow>,
    pub(crate) streams: BTreeMap<AgentId, Vec<(AgentEvent, Timestamp)>>,
    pub(crate) snapshots: BTreeMap<AgentId, (Version, Vec<u8>)>,
    pub(crate) programs: BTreeMap<ModuleHash, Arc<Program>>,
}

/// Reads all that a node left behind, as a node that knows nothing else would.
pub(crate) async fn kept(data: &Path) -> Kept {
    let store = SqliteStore::open(data, nexa_store::Options::default()).expect("the data can be opened");
    let mut blobs: BTreeMap<ModuleHash, BlobHash> = BTreeMap::new();
    let mut workloads = Vec::new();
    let mut after = GlobalSeq(0);
    loop {
        let facts = store.scan(None, after, 500).await.expect("the log can be read");
        let Some(last) = facts.last() else { break };
        after = last.position;
        for fact in facts {
            match (fact.envelope.fact, fact.envelope.header.stream) {
                (Fact::Cluster(ClusterEvent::ProgramPut { module, blob, .. }), _) => drop(blobs.insert(module, blob)),
                (Fact::Workload(WorkloadEvent::Submitted { .. }), StreamId::Workload(id)) => workloads.push(id),
                _ => {}
            }
        }
    }
    let mut kept =
        Kept { rows: Vec::new(), streams: BTreeMap::new(), snapshots: BTreeMap::new(), programs: BTreeMap::new() };
    for (module, blob) in blobs {
        let bytes = store.blob(TenantId::local(), blob).await.expect("blobs can be read").expect("the blob is there");
        kept.programs.insert(module, Arc::new(Program::load(&bytes).expect("a stored module loads")));
    }
    for workload in workloads {
        kept.rows.extend(store.rows(Rows::Workload(workload), None, 10_000).await.expect("rows can be read"));
    }
    for row in &kept.rows {
        let facts = store.read(StreamId::Agent(row.agent), Version(0), 100_000).await.expect("streams can be read");
        let events = facts.into_iter().map(|fact| match fact.envelope.fact {
            Fact::Agent(event) => (event, fact.envelope.header.at),
            other => panic!("{other:?} in the stream of an agent"),
        });
        kept.streams.insert(row.agent, events.collect());
        if let Some(snapshot) = store.snapshot(row.agent).await.expect("snapshots can be read") {
            kept.snapshots.insert(row.agent, snapshot);
        }
    }
    kept
}
