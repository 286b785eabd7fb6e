//! One mistake, one error: what is said of the examples when one token of them is wrong. What is left over are mistakes that
//! make a type or the extent of a block another one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use nexa_lang::diagnostic::Colour;
use nexa_lang::{CompileResult, FileId, Source, SyntaxKind, compile, parse};

/// The programs: the examples that stand alone, and one with every construct.
fn programs() -> Vec<(String, String)> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let examples = ["approval", "batch", "chat", "critic", "debate", "hello", "router", "tools"];
    let mut paths: Vec<PathBuf> =
        examples.iter().map(|name| own.join(format!("../../examples/{name}/{name}.nx"))).collect();
    paths.push(own.join("tests/programs/everything.nx"));
    let read = |path: PathBuf| {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).expect("a program"))
    };
    paths.into_iter().map(read).collect()
}

/// A token with where it stands.
struct Token {
    kind: SyntaxKind,
    from: usize,
    to: usize,
}

fn tokens(text: &str) -> Vec<Token> {
    let source = Source::from_text(FileId(0), "main.nx", text).expect("a program");
    let tokens = parse(&source).syntax().descendants_with_tokens().filter_map(|element| element.into_token());
    tokens
        .filter(|token| !token.kind().is_trivia())
        .map(|token| {
            let range = token.text_range();
            Token { kind: token.kind(), from: range.start().into(), to: range.end().into() }
        })
        .collect()
}

fn compiled(text: &str) -> CompileResult {
    let files = BTreeMap::from([("main.nx".to_owned(), text.as_bytes().to_vec())]);
    compile("main.nx", &files)
}

/// A text with a piece of it replaced.
fn with(text: &str, from: usize, to: usize, by: &str) -> String {
    format!("{}{by}{}", &text[..from], &text[to..])
}

/// A kind of mistake, which share of those that are found leads to one error, in percent, and the most errors of one.
const KINDS: &[(&str, usize, usize)] =
    &[("misspelt name", 97, 3), ("missing token", 91, 6), ("token twice", 91, 6), ("text for an int", 94, 10)];

/// How many errors the mistakes of a kind lead to.
#[derive(Default)]
struct Tally {
    /// Mistakes by their number of errors.
    counts: BTreeMap<usize, usize>,
    /// Of the one with the most errors, what it is and what is said.
    worst: (usize, String),
}

impl Tally {
    fn count(&mut self, program: &str, text: &str, at: usize, mistake: &str) {
        let result = compiled(text);
        let errors: Vec<_> = result.diagnostics.iter().filter(|finding| finding.is_error()).collect();
        *self.counts.entry(errors.len()).or_default() += 1;
        if errors.len() > self.worst.0 {
            let line = text[..at].matches('\n').count() + 1;
            let mut told = format!("{program}:{line}: {mistake}\n");
            for finding in &errors {
                let _ = writeln!(told, "    {}: {}", finding.code, finding.message);
            }
            self.worst = (errors.len(), told);
        }
    }

    /// Of those that are found, how many of a hundred are one error.
    fn share(&self) -> usize {
        let found: usize = self.counts.iter().filter(|(errors, _)| **errors > 0).map(|(_, count)| count).sum();
        self.counts.get(&1).map_or(0, |count| count * 100 / found)
    }
}

#[test]
fn one_mistake_is_one_error() {
    let mut tallies: Vec<Tally> = KINDS.iter().map(|_| Tally::default()).collect();
    for (name, text) in programs() {
        assert!(!compiled(&text).has_errors(), "{}", compiled(&text).render(Colour::Off));
        for (place, Token { kind, from, to }) in tokens(&text).into_iter().enumerate() {
            let own = &text[from..to];
            if kind == SyntaxKind::Ident && own.len() > 2 {
                tallies[0].count(&name, &with(&text, to, to, "x"), from, &format!("`{own}x`"));
            }
            // Each third token is enough of them.
            if place % 3 == 0 {
                tallies[1].count(&name, &with(&text, from, to, ""), from, &format!("no `{own}`"));
                tallies[2].count(&name, &with(&text, to, to, &format!(" {own}")), from, &format!("`{own}` twice"));
            }
            if kind == SyntaxKind::Int {
                tallies[3].count(&name, &with(&text, from, to, "\"text\""), from, &format!("a text for `{own}`"));
            }
        }
    }
    let mut wrong = String::new();
    for ((kind, share, most), tally) in KINDS.iter().zip(&tallies) {
        println!("{kind}: {}% are one error, {:?}", tally.share(), tally.counts);
        if tally.share() < *share || tally.worst.0 > *most {
            let _ = writeln!(wrong, "{kind}: {}% {:?}\n{}", tally.share(), tally.counts, tally.worst.1);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn an_unknown_name_is_told_once_and_how_often_it_is_met() {
    let result = compiled("flow main(n: int) -> int {\n    let a = cuont + n\n    return cuont + a + cuont\n}\n");
    let told: Vec<_> = result.diagnostics.iter().map(|found| (found.message.as_str(), found.notes.clone())).collect();
    assert_eq!(told, [("there is no `cuont` here", vec!["it is met 2 times more in this file".to_owned()])]);
}

#[test]
fn an_arrow_without_a_type_is_no_record_type() {
    for program in [
        "flow main(n: int) -> {\n    let a = n + 1\n    return a\n}\n",
        "agent A(x: str) -> {\n    prompt: \"a\"\n    temperature: 0.5\n}\n",
    ] {
        let found: Vec<String> = compiled(program).diagnostics.iter().map(|found| found.message.clone()).collect();
        assert_eq!(found, ["expected a type, found `{`"], "{program}");
    }
    assert!(!compiled("flow main() -> { a: int } {\n    return { a: 1 }\n}\n").has_errors());
}
