//! `docs/language/diagnostics.md`: each program leads to its code, first and alone, and prints what stands below it.
//!
//! `UPDATE_EXPECT=1 cargo test -p nexa-lang --test diagnostics_page` writes what the programs print today.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use expect_test::expect;
use nexa_lang::diagnostic::Colour;
use nexa_lang::{Code, CompileResult, FileLoader, LoadError, compile, explain};

/// Codes that no program on the page leads to. The list may only become shorter.
#[rustfmt::skip]
const WITHOUT_EXAMPLE: &[&str] = &[
    // What no page can hold: bytes that are no text, and a file that is too large. See the tests below.
    "E0101", "E0102",
    // The graph view.
    "N0701", "E0702", "E0703", "E0704", "E0705", "W0706",
    // Modules and snapshots: found in bytes, not in programs.
    "E1001", "E1002", "E1003", "E1004", "E1005", "E1006", "E1007", "E1008", "E1009",
];

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/language/diagnostics.md")
}

struct Files(BTreeMap<String, String>);

impl FileLoader for Files {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        self.0.get(path).map(|text| text.as_bytes().to_vec()).ok_or(LoadError::NotFound)
    }
}

/// A program of the page, and what should be printed.
struct Example {
    code: String,
    files: Files,
    /// Whether it is to be run, and so needs something that can be.
    runs: bool,
    /// The lines of the page between the fences of the output.
    output: std::ops::Range<usize>,
}

impl Example {
    fn compiled(&self) -> CompileResult {
        let result = compile("main.nx", &self.files);
        if self.runs { result.with_main() } else { result }
    }
}

fn examples(lines: &[&str]) -> Vec<Example> {
    let mut examples = Vec::new();
    let mut code = String::new();
    let mut files = BTreeMap::new();
    let mut runs = false;
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        at += 1;
        if let Some(head) = line.strip_prefix("### ") {
            code = head.split(':').next().unwrap_or_default().to_owned();
            files = BTreeMap::new();
        }
        let Some(info) = line.strip_prefix("```") else { continue };
        let start = at;
        while lines.get(at).is_some_and(|line| *line != "```") {
            at += 1;
        }
        let body = lines[start..at].iter().flat_map(|line| [line, "\n"]).collect::<String>();
        match info {
            "nexa" | "nexa run" => {
                runs = info == "nexa run";
                files.insert("main.nx".to_owned(), body);
            }
            "text" => examples.push(Example {
                code: code.clone(),
                files: Files(std::mem::take(&mut files)),
                runs,
                output: start..at,
            }),
            other => {
                let name = other.strip_prefix("nexa file=\"").and_then(|rest| rest.strip_suffix('"'));
                files.insert(name.expect("a fence of the page").to_owned(), body);
            }
        }
        at += 1;
    }
    examples
}

#[test]
fn each_program_of_the_page_prints_what_stands_below_it() {
    let text = std::fs::read_to_string(page()).expect("the page");
    let lines: Vec<&str> = text.lines().collect();
    let examples = examples(&lines);
    let mut out = String::new();
    let mut at = 0;
    let mut wrong = Vec::new();
    for example in &examples {
        let result = example.compiled();
        let found: Vec<&str> = result.diagnostics.iter().map(|finding| finding.code.name()).collect();
        if found != [example.code.as_str()] {
            wrong.push(format!("{}: {found:?}\n{}", example.code, result.render(Colour::Off)));
        }
        for line in &lines[at..example.output.start] {
            out += line;
            out.push('\n');
        }
        for line in result.render(Colour::Off).lines() {
            out += line.trim_end();
            out.push('\n');
        }
        at = example.output.end;
    }
    for line in &lines[at..] {
        out += line;
        out.push('\n');
    }
    assert!(wrong.is_empty(), "one mistake gives one finding:\n{}", wrong.join("\n\n"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(page(), &out).expect("the page can be written");
    } else {
        for (place, (old, new)) in lines.iter().zip(out.lines()).enumerate() {
            assert_eq!(*old, new, "line {} of the page", place + 1);
        }
        assert_eq!(lines.len(), out.lines().count());
    }
}

#[test]
fn every_code_has_an_example_but_for_those_that_are_known_to_have_none() {
    let text = std::fs::read_to_string(page()).expect("the page");
    let lines: Vec<&str> = text.lines().collect();
    let examples = examples(&lines);
    let missing: BTreeSet<&str> = Code::ALL
        .iter()
        .map(|code| code.name())
        .filter(|code| !examples.iter().any(|example| example.code == *code))
        .collect();
    assert_eq!(missing, WITHOUT_EXAMPLE.iter().copied().collect());
}

#[test]
fn the_page_has_the_meanings_of_the_table_and_can_be_asked_for_each() {
    let text = std::fs::read_to_string(page()).expect("the page");
    for line in text.lines().filter_map(|line| line.strip_prefix("### ")) {
        let (code, meaning) = line.split_once(": ").expect("a code and its meaning");
        let code = Code::named(code).expect("a code of the table");
        assert_eq!(code.meaning(), meaning);
        let section = explain::section(code).expect("the page explains it");
        assert!(section.contains("```nexa") && !section.contains("\n### "), "{section}");
    }
    assert!(explain::section(Code::E1009).is_none());
}

/// What is printed for a program of one file with these bytes.
fn said_of(bytes: Vec<u8>) -> String {
    let files = BTreeMap::from([("main.nx".to_owned(), bytes)]);
    let result = compile("main.nx", &files);
    assert!(result.module.is_none());
    result.render(Colour::Off)
}

#[test]
fn a_file_that_is_no_text_is_one_error() {
    expect![[r#"
        error[E0101]: `main.nx` is not UTF-8: byte 11 is 0xff
        --> main.nx
         = help: save the file in the encoding UTF-8"#]]
    .assert_eq(&said_of(b"// a note: \xff\nflow main() -> int { return }".to_vec()));
}

#[test]
fn a_file_that_is_too_large_is_one_error() {
    expect![[r#"
        error[E0102]: `main.nx` has 4194305 bytes; a source file may have 4194304
        --> main.nx
         = help: split the program into several files joined by `use`"#]]
    .assert_eq(&said_of(vec![b' '; nexa_lang::source::SOURCE_BYTES_MAX + 1]));
}

#[test]
fn a_retired_code_leads_to_the_one_that_took_its_place() {
    assert_eq!(explain::successor("w0901"), Some(Code::E0901));
    assert_eq!(explain::successor("W0415"), Some(Code::E0902));
    assert_eq!(explain::successor("E0501"), None);
    assert!(["W0901", "W0902", "W0415"].iter().all(|code| Code::named(code).is_none()));
}
