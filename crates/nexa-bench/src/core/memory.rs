//! What agents weigh: live ones, and ones that live in the store only. Each is measured in a process of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use nexa_event::envelope::Fact;
use nexa_event::fact::{AgentEvent, Program};
use nexa_ports::store::{Append, Guard, RowChange};
use nexa_types::{AgentState, Epoch, ModuleHash, StreamId, Version, Waiting};
use nexa_vm::codec;
use nexa_vm::value::Value;
use serde_json::{Value as Json, json};

use super::model::Silent;
use super::node::{Ground, block_on};
use crate::measure::{Error, Rounds};

/// An agent that asks once.
const PROGRAM: &str = r#"agent Reader(notes: str) { prompt: "Condense the notes.", model: "bench/silent" }"#;
/// What each has been told.
const HISTORY_BYTES: usize = 2_048;
/// Agents that are put to sleep in one call.
const ASLEEP_AT_ONCE: usize = 256;

/// Measures so many live agents once.
pub(crate) fn live_agents(folder: &Path, count: usize, rounds: &mut Rounds) -> Result<(), Error> {
    let answer = in_own_process(&["live", &count.to_string(), &folder.to_string_lossy()])?;
    for key in ["live_agents", "live_agents_start_s", "live_agent_kib", "total_pss_mib"] {
        rounds.note(key, figure(&answer, key)?);
    }
    Ok(())
}

/// See [`live_agents`]; runs in its own process.
pub(crate) fn live_part(count: usize, folder: &Path) -> Result<Json, Error> {
    block_on(async {
        let model = Arc::new(Silent::default());
        let running = Ground::open(folder)?.start(model.clone()).await?;
        let put = running.put(PROGRAM).await?;
        let before = share_kib()?;
        let begin = Instant::now();
        let roots = running.submit(&put, "Reader", count, |number| vec![Value::Str(history(number).into())]).await?;
        running.wake(&roots)?;
        drop(roots);
        model.was_asked(count).await?;
        let took = begin.elapsed().as_secs_f64();
        running.all_seen().await?;
        let live = running.node.stats().live_agents;
        if live != count {
            return Err(format!("{live} agents are in memory, not {count}").into());
        }
        let after = share_kib()?;
        Ok(json!({
            "live_agents": live,
            "live_agents_start_s": took,
            "live_agent_kib": (after - before) / count as f64,
            "total_pss_mib": after / 1024.0,
        }))
    })
}

/// A text that no other agent has.
fn history(number: usize) -> String {
    let mut text = format!("notes of agent {number}: ");
    while text.len() < HISTORY_BYTES {
        text.push_str("the quick brown fox jumps over the lazy dog. ");
    }
    text.truncate(HISTORY_BYTES);
    text
}

/// Measures what so many more dormant agents add to a node.
pub(crate) fn dormant_agents(folder: &Path, count: usize, rounds: &mut Rounds) -> Result<(), Error> {
    let mut weights = Vec::new();
    // In both, more than fills the store's caches: what they hold is no agent's.
    let least = count * 4 / 5;
    for known in [least, least + count] {
        let folder = folder.join(known.to_string());
        fs::create_dir(&folder)?;
        put_to_sleep(&folder, known)?;
        let answer = in_own_process(&["dormant", &known.to_string(), &folder.to_string_lossy()])?;
        weights.push(figure(&answer, "kib")? * 1024.0);
    }
    rounds.note("dormant_agent_bytes", (weights[1] - weights[0]) / count as f64);
    Ok(())
}

/// Stores agents that have begun and wait for a message.
fn put_to_sleep(folder: &Path, count: usize) -> Result<(), Error> {
    block_on(async {
        let ground = Ground::open(folder)?;
        for first in (0..count).step_by(ASLEEP_AT_ONCE) {
            let mut births = Vec::new();
            let mut starts = Vec::new();
            for number in first..count.min(first + ASLEEP_AT_ONCE) {
                // Nobody loads it: a dormant agent is its row.
                let args = codec::encode(&Value::Unit);
                let program = Program::Function { module: ModuleHash::from_bytes([0; 32]), entry: 0, args };
                let birth = ground.submission(number, program);
                let agent = birth.births[0].agent;
                births.push(birth);
                let started = AgentEvent::Started { node: ground.name.clone(), epoch: Epoch(1) };
                starts.push(Append {
                    stream: StreamId::Agent(agent),
                    guard: Guard::Owner(Epoch(1)),
                    expected: Version(1),
                    stamp: ground.stamp(),
                    facts: vec![Fact::Agent(started)],
                    row: Some(RowChange { state: AgentState::Waiting(Waiting::Message), due: None }),
                    takes: vec![],
                    posts: vec![],
                    births: vec![],
                    also: None,
                });
            }
            for batch in [births, starts] {
                for answer in ground.store.append(batch).await {
                    answer?;
                }
            }
        }
        Ok(())
    })
}

/// What a node weighs that knows so many dormant agents; runs in its own process.
pub(crate) fn dormant_part(count: usize, folder: &Path) -> Result<Json, Error> {
    block_on(async {
        let running = Ground::open(folder)?.start(Arc::new(Silent::default())).await?;
        running.all_seen().await?;
        let known = running.node.stats().dormant_agents;
        if known != count {
            return Err(format!("the node knows {known} dormant agents, not {count}").into());
        }
        Ok(json!({ "kib": share_kib()? }))
    })
}

/// Runs a part of the suite in a process of its own and gives the last line that it says.
pub(crate) fn in_own_process(words: &[&str]) -> Result<Json, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    let done = command.arg("part").args(words).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !done.status.success() {
        return Err(format!("`nexa-bench part {}` ended with {}", words.join(" "), done.status).into());
    }
    let said = String::from_utf8(done.stdout)?;
    Ok(serde_json::from_str(said.lines().last().unwrap_or_default())?)
}

/// A number of an answer.
pub(crate) fn figure(answer: &Json, key: &str) -> Result<f64, Error> {
    answer[key].as_f64().ok_or_else(|| format!("no `{key}` in {answer}").into())
}

/// This process's share of the memory: its own pages, and of those that it shares its part.
fn share_kib() -> Result<f64, Error> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)).ok_or("smaps_rollup has no line `Pss:`")?;
    Ok(kib.parse()?)
}
