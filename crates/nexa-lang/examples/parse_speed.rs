//! How fast a program of 100 agents is read: lexer, parser and tree, without the checker.
//!
//! `cargo run --release -p nexa-lang --example parse_speed`

use std::{fmt::Write as _, time::Instant};

use nexa_lang::{FileId, Source, parse};

const AGENTS: usize = 100;
const ROUNDS: usize = 200;

fn main() {
    let text = program();
    let source = Source::from_text(FileId(0), "speed.nx", &text).expect("the program is far below the limit");
    let mut times: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            let result = parse(&source);
            assert!(result.diagnostics().is_empty(), "the program has no mistakes");
            start.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    let steps = parse(&source).steps();
    println!(
        "{AGENTS} agents, {} lines, {} bytes, {steps} parser steps: median {} µs, best {} µs, worst {} µs of {ROUNDS}",
        source.lines(),
        text.len(),
        times[ROUNDS / 2],
        times[0],
        times[ROUNDS - 1],
    );
}

/// A program of agents and flows, about fifteen lines for each agent.
fn program() -> String {
    let mut text = String::from("protocol Report { title: str, points: list[str], score: int }\n");
    for n in 0..AGENTS {
        let _ = write!(
            text,
            r##"
/// Reads chapter {n} for one kind of reader.
agent Reader{n}(text: str, audience: str = "team") -> Report {{
    role: "Editor"
    prompt: "Condense chapter {n} for #{{audience}} in at most three points."
    temperature: 0.2, max_tokens: 800
    budget: {{ tokens: 20_000, cost: 0.05, time: 90s, calls: 12 }}
}}
flow read{n}(text: str) -> Report {{
    let parts = text |>> [Reader{n}, Reader{n}(audience: "board")]
    for each i, part in parts {{ print("#{{i}}: #{{part}}") }}
    let safe = Reader{n}(text, audience: "press") otherwise {{ title: "none", points: [], score: 0 }}
    if (safe.score > 3 and safe.points.len() >= 1) {{ return safe }}
    return text >> Reader{n}(audience: "all")
}}
"##
        );
    }
    text
}
