//! Hostile texts: whatever comes in, the parser ends soon, on a small stack, with a tree of the whole text.

mod support;

use proptest::{prelude::*, sample};
use support::{codes, parsed};

const PROGRAMS: [&str; 2] = [include_str!("corpus/review.nx"), include_str!("corpus/everything.nx")];

/// More looks at one byte than any program needs: expressions look at a token once for each level of operators.
const STEPS_PER_BYTE_MAX: u64 = 60;

fn holds(text: &str) {
    let parse = parsed(text);
    let bound = STEPS_PER_BYTE_MAX * (text.len() as u64 + 16);
    assert!(parse.steps() <= bound, "{} steps for {} bytes", parse.steps(), text.len());
    for declaration in parse.tree().declarations() {
        let _ = (declaration.name(), declaration.docs());
    }
    let source = support::source(text);
    for found in parse.diagnostics().iter().take(3) {
        nexa_lang::diagnostic::render(found, |_| Some(&source), nexa_lang::diagnostic::Colour::Off);
        nexa_lang::diagnostic::to_json(found, |_| Some(&source));
    }
}

#[test]
fn ten_thousand_brackets_of_every_kind_do_not_overflow_the_stack() {
    for unit in [
        "(",
        "[",
        "{",
        "\"#{",
        "f(",
        "a[",
        "-",
        "!",
        "not ",
        "await ",
        "try ",
        "fn(x) => ",
        "if (a) ",
        "if (a) {} else ",
        "a ?? ",
        "match a { _ => ",
    ] {
        holds(&format!("flow f() {{ x = {}", unit.repeat(10_000)));
        holds(&format!("flow f() {{ {}", unit.repeat(10_000)));
    }
    for unit in ["list[", "(", "fn(", "{ a: ", "a | "] {
        holds(&format!("type T = {}", unit.repeat(10_000)));
    }
    for unit in ["[", "(", "ok(", "{ a: "] {
        holds(&format!("flow f() {{ let {} = 1 }}", unit.repeat(10_000)));
        holds(&format!("flow f() {{ match a {{ {}", unit.repeat(10_000)));
    }
}

#[test]
fn a_large_file_of_nothing_but_mistakes_gives_a_bounded_list() {
    for unit in ["$\n", ") ", "\"\n", "\\", "1x\n", "}\n", "a b "] {
        let text = format!("flow f() {{ {}", unit.repeat(5_000));
        let found = parsed(&text).diagnostics().len();
        assert!((1..=nexa_lang::diagnostic::SYNTAX_FINDINGS_MAX).contains(&found), "{found} findings for {unit:?}");
    }
}

#[test]
fn long_chains_are_refused_before_the_tree_gets_too_deep() {
    for unit in [" + a", ".a", "(a)", "[0]", "?", " >> A", " ?> c => A : B", " otherwise a", " and a", " - -a", " { }"]
    {
        holds(&format!("flow f() {{ x = a{} }}", unit.repeat(10_000)));
    }
    holds(&format!("type T = a{}", "?".repeat(10_000)));
    holds(&format!("type T = a{}", ".b".repeat(10_000)));
    let sum = |terms: usize| format!("flow f() {{ x = a{} }}", " + a".repeat(terms));
    assert!(codes(&sum(500)).is_empty());
    assert_eq!(codes(&sum(600)), ["E0210"]);
    let nested = |depth: usize| format!("flow f() {{ x = {}a{} }}", "(".repeat(depth), ")".repeat(depth));
    assert!(codes(&nested(250)).is_empty());
    assert_eq!(codes(&nested(260)), ["E0210"]);
}

#[test]
fn chains_within_chains_stay_as_shallow_as_one() {
    let mut text = "a".to_owned();
    for _ in 0..40 {
        text = format!("({text}){}", " + a".repeat(100));
    }
    holds(&format!("flow f() {{ x = {text} }}"));
}

#[test]
fn everything_may_stay_open_at_the_end() {
    for program in PROGRAMS {
        // A step that shares no factor with the lines' length meets every kind of token somewhere in its middle.
        for (end, _) in program.char_indices().step_by(5) {
            holds(&program[..end]);
        }
    }
}

#[test]
fn the_work_grows_with_the_text_and_not_faster() {
    let program = include_str!("corpus/everything.nx")
        .lines()
        .filter(|line| !line.contains("//!"))
        .collect::<Vec<_>>()
        .join("\n");
    let steps = |times: usize| parsed(&program.repeat(times)).steps();
    let (once, many) = (steps(4), steps(64));
    assert!(many <= once * 17, "16 times the text took {many} steps instead of about {}", once * 16);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_text_prints_back(text in any::<String>()) {
        holds(&text);
    }

    #[test]
    fn any_row_of_tokens_prints_back(words in prop::collection::vec(sample::select(TOKENS), 0..80), gaps in prop::collection::vec(sample::select(&["", " ", "\n", "\r\n"][..]), 80)) {
        let text: String = words.iter().zip(&gaps).flat_map(|(word, gap)| [*word, *gap]).collect();
        holds(&text);
        holds(&format!("flow f() {{ {text} }}"));
    }

    #[test]
    fn a_damaged_program_prints_back(program in sample::select(&PROGRAMS[..]), from in any::<sample::Index>(), to in any::<sample::Index>(), word in sample::select(TOKENS), doubles in any::<bool>()) {
        let bounds: Vec<usize> = program.char_indices().map(|(at, _)| at).collect();
        let (a, b) = (bounds[from.index(bounds.len())], bounds[to.index(bounds.len())]);
        let (a, b) = (a.min(b), a.max(b));
        let middle = if doubles { &program[a..b] } else { "" };
        holds(&format!("{}{word}{middle}{}", &program[..a], &program[if doubles { a } else { b }..]));
    }
}

const TOKENS: &[&str] = &[
    "agent",
    "tool",
    "protocol",
    "enum",
    "type",
    "flow",
    "test",
    "use",
    "fn",
    "let",
    "if",
    "else",
    "while",
    "for",
    "each",
    "in",
    "match",
    "try",
    "catch",
    "return",
    "break",
    "defer",
    "await",
    "spawn",
    "fork",
    "merge",
    "loop",
    "until",
    "semantic_if",
    "against",
    "pass",
    "to",
    "verify",
    "assert",
    "script",
    "otherwise",
    "fallback",
    "uses",
    "requires",
    "budget",
    "as",
    "x",
    "T",
    "_",
    "1",
    "2.5",
    "30s",
    "\"a\"",
    "\"",
    "\"\"\"",
    "r\"",
    "#{",
    "}",
    "{",
    "(",
    ")",
    "[",
    "]",
    ",",
    ";",
    ":",
    ".",
    "@",
    "=",
    "+=",
    "=>",
    "->",
    "?",
    "!",
    "+",
    "-",
    "*",
    "/",
    "==",
    "<",
    "|",
    "??",
    ">>",
    "|>",
    "|>>",
    "||",
    "&>>",
    "&&",
    "?>",
    "//",
    "/*",
    "*/",
    "///",
    "é",
    "\u{feff}",
    "$",
    "\\",
    "'",
    "true",
    "none",
    "not",
    "and",
];
