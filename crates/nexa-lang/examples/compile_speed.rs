//! How long a program of 100 agents takes from its text to a verified module, in this process.
//!
//! `cargo run --release -p nexa-lang --example compile_speed` prints the median of many runs and of each stage.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use nexa_lang::{SourceSet, check, compile};
use nexa_vm::verify::verify;

const AGENTS: usize = 100;
const RUNS: usize = 201;

/// About 15 lines an agent: the agent with its protocol, and a flow that calls it in several ways.
fn program() -> String {
    let mut text = String::new();
    for number in 0..AGENTS {
        let _infallible = write!(
            text,
            r##"
/// What agent {number} finds.
protocol Finding{number} {{ title: str, points: list[str], score: float? }}
/// Reads notes for readers of kind {number}.
agent Reader{number}(notes: str, audience: str = "team") -> Finding{number} {{
    role: "Editor", prompt: "Condense the notes for #{{audience}}, kind {number}."
    model: ["local/small", "remote/large"], temperature: 0.2, max_tokens: 800
}}
flow read{number}(topics: list[str]) -> str {{
    let points: list[str] = []
    for each i, topic in topics {{
        if (i > 10 or topic.len() == 0) {{ break }}
        points += (Reader{number}.run("#{{i}}: #{{topic}}") otherwise Finding{number} {{ title: "none", points: [] }}).points
    }}
    return points.join("\n")
}}
"##
        );
    }
    text.push_str("flow main(q: str) -> str {\n    return q");
    text.push_str("\n}\n");
    text
}

fn median(mut run: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS).map(|_| run()).collect();
    times.sort_unstable();
    times[RUNS / 2]
}

fn main() {
    let text = program();
    let files = BTreeMap::from([("main.nx".to_owned(), text.clone().into_bytes())]);
    let timed = |work: &dyn Fn()| {
        median(|| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
    };
    let module = compile("main.nx", &files).module.expect("the program is right");
    let parsed = timed(&|| drop(SourceSet::load("main.nx", &files)));
    let checked = timed(&|| drop(check("main.nx", &files)));
    let compiled = timed(&|| drop(compile("main.nx", &files)));
    let verified = timed(&|| drop(verify(&module)));
    let whole = timed(&|| drop(verify(&compile("main.nx", &files).module.expect("the program is right"))));
    println!(
        "{AGENTS} agents, {} lines, {} bytes; module of {} bytes",
        text.lines().count(),
        text.len(),
        module.encode().len()
    );
    println!(
        "parse {parsed:?}, check {:?}, compile {:?}, verify {verified:?}",
        checked.saturating_sub(parsed),
        compiled.saturating_sub(checked)
    );
    println!("text to verified module: {whole:?}");
}
