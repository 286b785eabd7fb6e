//! How long a program of 100 agents takes from its text to a verified module, in this process.
//!
//! `cargo run --release -p nexa-lang --example compile_speed` prints the median and the best of many runs, stage by stage.

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

/// The median and the best: on a busy machine the best says more.
fn times(work: &dyn Fn()) -> (Duration, Duration) {
    let run = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..RUNS).map(run).collect();
    times.sort_unstable();
    (times[RUNS / 2], times[0])
}

fn main() {
    let text = program();
    let files = BTreeMap::from([("main.nx".to_owned(), text.clone().into_bytes())]);
    let module = compile("main.nx", &files).module.expect("the program is right");
    println!(
        "{AGENTS} agents, {} lines, {} bytes; module of {} bytes",
        text.lines().count(),
        text.len(),
        module.encode().len()
    );
    let stages: [(&str, &dyn Fn()); 5] = [
        ("text to tree", &|| drop(SourceSet::load("main.nx", &files))),
        ("text to checked program", &|| drop(check("main.nx", &files))),
        ("text to module", &|| drop(compile("main.nx", &files))),
        ("module to verified module", &|| drop(verify(&module))),
        ("text to verified module", &|| {
            drop(verify(&compile("main.nx", &files).module.expect("the program is right")))
        }),
    ];
    for (stage, work) in stages {
        let (median, best) = times(work);
        println!("{stage:26} median {:5} µs, best {:5} µs of {RUNS}", median.as_micros(), best.as_micros());
    }
}
