//! Starts of the `nexa` binary: one of a program without a model, and ones whose agent lets the embedded model write.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value as Json, json};

use super::memory::{figure, in_own_process};
use crate::measure::{Error, Rounds, nanos};

/// How often a run is tried that took no longer than a shorter one.
const TRIES: usize = 5;

/// As `examples/hello`: a flow, no agent.
const HELLO: &str = r##"
flow main(name: str = "world", text: str = "an agent is a flow that asks") -> str {
    let lengths: dict[str, int] = {}
    for each word in text.words() { lengths[word] = word.len() }
    return "#{name}: #{lengths.len()} different words"
}
"##;

/// Measures one start to exit, on a data folder that is not there yet.
pub(crate) fn start(nexa: &Path, folder: &Path, rounds: &mut Rounds) -> Result<(), Error> {
    let (file, data) = (folder.join("hello.nx"), folder.join("data"));
    fs::write(&file, HELLO)?;
    let (nexa, file, data) = (nexa.to_string_lossy(), file.to_string_lossy(), data.to_string_lossy());
    let answer = in_own_process(&["start", &nexa, "run", &file, "--data", &data])?;
    rounds.note("start_to_exit_ms", figure(&answer, "ms")?);
    rounds.note("start_peak_mib", figure(&answer, "kib")? / 1024.0);
    Ok(())
}

/// Runs a command and says how long it took and what it weighed at most. In a process of its own: the system keeps one
/// peak for all children, and counts what the parent weighed when it started them.
pub(crate) fn start_part(command: &[&str]) -> Result<Json, Error> {
    let [program, args @ ..] = command else { return Err("no command".into()) };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut done = None;
    let nanos = nanos(|| done = Some(command.output()));
    let done = done.ok_or("nothing was run")??;
    if !done.status.success() {
        return Err(format!("`{program}` ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr)).into());
    }
    Ok(json!({ "ms": nanos / 1e6, "kib": getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss() }))
}

/// How fast the embedded model writes: by how much longer a long answer takes than a short one, so that the start, the
/// load of the weights and the reading of the prompt fall out. `Err` says why it cannot be measured.
pub(crate) fn embedded(
    nexa: &Path,
    folder: &Path,
    written: u64,
    count: usize,
    rounds: &mut Rounds,
) -> Result<Result<(), String>, Error> {
    let listed = Command::new(nexa).args(["models", "list", "-o", "json"]).stdin(Stdio::null()).output()?;
    let is_there = |line: &str| line.contains("local/smollm2") && line.contains("\"is_there\":true");
    if !String::from_utf8_lossy(&listed.stdout).lines().any(is_there) {
        return Ok(Err("the weights are not here; fetch them: nexa models pull".to_owned()));
    }
    for _ in 0..count {
        rounds.note("embedded_tokens_per_s", written_per_s(nexa, folder, written)?);
    }
    Ok(Ok(()))
}

fn written_per_s(nexa: &Path, folder: &Path, written: u64) -> Result<f64, Error> {
    let few = written / 4;
    for _ in 0..TRIES {
        let long = write(nexa, folder, written)?;
        let short = write(nexa, folder, few)?;
        if long > short {
            return Ok((written - few) as f64 / (long - short));
        }
    }
    Err(format!("the machine is so busy that {written} tokens take no longer than {few}; measure when it is quiet")
        .into())
}

/// The seconds of one run.
fn write(nexa: &Path, folder: &Path, tokens: u64) -> Result<f64, Error> {
    let folder = super::fresh(folder)?;
    let (file, data) = (folder.join("write.nx"), folder.join("data"));
    fs::write(&file, writer(tokens))?;
    let (nexa, file, data) = (nexa.to_string_lossy(), file.to_string_lossy(), data.to_string_lossy());
    Ok(figure(&in_own_process(&["start", &nexa, "run", &file, "--data", &data])?, "ms")? / 1e3)
}

/// A program whose agent writes until it may not go on.
fn writer(tokens: u64) -> String {
    format!(
        r#"
agent Writer(topic: str) {{ prompt: "Tell a long story about the topic, with every detail.", temperature: 0.0, max_tokens: {tokens} }}
flow main() -> str {{ return Writer.run("a lighthouse") }}
"#
    )
}
