//! `nexa test`: the tests of programs, one line each, and why those that failed did.

use nexa_harness::{Pace, Suite, report};
use nexa_lang::FileLoader;
use nexa_lang::diagnostic::{Colour, render, to_json};
use nexa_types::Outcome;
use serde_json::json;

use super::check::is_colored;
use super::submit::Folder;
use crate::args::{Color, Output, TestArgs};
use crate::failure::{Exit, Failure};
use crate::{files, program};

/// `nexa test`
pub fn test(args: &TestArgs, output: Output, color: Color) -> Result<(), Failure> {
    let colour = if is_colored(color) { Colour::On } else { Colour::Off };
    let filter = args.filter.clone().unwrap_or_default();
    let mut tests = Tests { filter, thorough: args.thorough, output, colour, ..Tests::default() };
    for file in files::programs(&args.files)? {
        let (folder, path) = program::project_of(&file)?;
        let name = file.strip_prefix("./").unwrap_or(&file).display().to_string();
        // Lines appear as they come: a long run is watched.
        tests.file(&name, &path, &Folder(folder)).iter().for_each(|line| println!("{line}"));
    }
    tests.end().iter().for_each(|line| println!("{line}"));
    if tests.failed + tests.broken > 0 { Err(Failure::told(Exit::Error)) } else { Ok(()) }
}

/// What is wanted, and what came of it so far.
struct Tests {
    /// Only tests whose name, or whose file's, has this in it.
    filter: String,
    /// Whether each test runs in all three ways.
    thorough: bool,
    output: Output,
    colour: Colour,
    /// What is told at the end.
    reports: Vec<String>,
    passed: usize,
    failed: usize,
    /// Files that cannot be compiled.
    broken: usize,
    left_out: usize,
}

impl Default for Tests {
    fn default() -> Self {
        Self {
            filter: String::new(),
            thorough: false,
            output: Output::Table,
            colour: Colour::Off,
            reports: Vec::new(),
            passed: 0,
            failed: 0,
            broken: 0,
            left_out: 0,
        }
    }
}

impl Tests {
    /// Runs the tests of a file; a line each. `name` is what people call it, `path` where the loader finds it.
    fn file(&mut self, name: &str, path: &str, loader: &dyn FileLoader) -> Vec<String> {
        let suite = match Suite::load(path, loader) {
            Ok(suite) => suite,
            Err(result) => {
                self.broken += 1;
                let errors = result.diagnostics.iter().filter(|finding| finding.is_error());
                return match self.output {
                    Output::Json => {
                        errors.map(|finding| to_json(finding, |file| result.sources.source(file))).collect()
                    }
                    Output::Table => {
                        let find = |file| result.sources.source(file);
                        self.reports.extend(errors.map(|finding| render(finding, find, self.colour)));
                        vec![format!("{} {name}: it does not compile", self.mark("ERROR ", 31))]
                    }
                };
            }
        };
        let mut lines = Vec::new();
        for test in suite.tests() {
            if !self.filter.is_empty() && !test.name.contains(&self.filter) && !name.contains(&self.filter) {
                self.left_out += 1;
                continue;
            }
            let run = if self.thorough { suite.prove(test) } else { Ok(suite.run(test, Pace::Full)) };
            let run = match run {
                Ok(run) => run,
                Err(differs) => {
                    self.failed += 1;
                    let what = format!("{} (this is a mistake of nexa and not of the program)", differs.what);
                    lines.push(match self.output {
                        Output::Json => {
                            json!({ "file": name, "test": test.name, "result": "differs", "message": what }).to_string()
                        }
                        Output::Table => format!("{} {name}: {}: {what}", self.mark("FAILED", 31), test.name),
                    });
                    continue;
                }
            };
            let shown = report::failure(&run, test, &suite.sources, self.colour);
            self.passed += usize::from(shown.is_none());
            self.failed += usize::from(shown.is_some());
            let place = report::place(&run, test, &suite.sources);
            // The file as it was named, not as the project knows it.
            let place = place.strip_prefix(path).map_or_else(|| place.clone(), |line| format!("{name}{line}"));
            let clock = run.clock.0;
            lines.push(match (self.output, &run.outcome) {
                (Output::Json, Outcome::Ok(_)) => {
                    json!({ "file": name, "test": test.name, "result": "ok", "clock_ms": clock }).to_string()
                }
                (Output::Json, Outcome::Err(failure)) => json!({
                    "file": name, "test": test.name, "result": "failed", "clock_ms": clock, "at": place,
                    "code": failure.code.as_str(), "message": failure.message,
                    "report": report::failure(&run, test, &suite.sources, Colour::Off),
                })
                .to_string(),
                (Output::Table, Outcome::Ok(_)) => format!("{} {name}: {}", self.mark("ok    ", 32), test.name),
                (Output::Table, Outcome::Err(_)) => format!("{} {place}: {}", self.mark("FAILED", 31), test.name),
            });
            if let (Output::Table, Some(shown)) = (self.output, shown) {
                self.reports.push(format!("{}: {}\n{shown}", name, test.name));
            }
        }
        lines
    }

    /// Why tests failed, and how many of all.
    fn end(&mut self) -> Vec<String> {
        let (passed, failed, broken, left_out) = (self.passed, self.failed, self.broken, self.left_out);
        if self.output == Output::Json {
            let sum = json!({ "passed": passed, "failed": failed, "files_with_errors": broken, "left_out": left_out });
            return vec![sum.to_string()];
        }
        let mut lines = Vec::new();
        for report in std::mem::take(&mut self.reports) {
            lines.extend([String::new(), report]);
        }
        let ran = passed + failed;
        if ran + broken > 0 {
            lines.push(String::new());
        }
        let count = |number: usize, what: &str| (number > 0).then(|| format!("{number} {what}"));
        let files = if broken == 1 { "file does not compile" } else { "files do not compile" };
        let parts = [
            count(passed, "passed"),
            count(failed, "failed"),
            count(broken, files),
            count(left_out, "left out by the filter"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        lines.push(if parts.is_empty() { "there are no tests".to_owned() } else { parts.join(", ") });
        lines
    }

    fn mark(&self, word: &str, colour: u8) -> String {
        match self.colour {
            Colour::On => format!("\x1b[{colour}m{word}\x1b[0m"),
            Colour::Off => word.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::{Expect, expect};

    use super::*;

    const NAMES: &str = r#"agent Namer { prompt: "Name some." }

flow main(q: str) -> list[str] { return (q >> Namer).split(" ") }

test "two names" {
    script Namer => after(20ms, "Ann Bob")
    assert main("x") == ["Ann", "Bob"] and clock() == 20ms
}

test "three names" {
    script Namer => "Ann Bob"
    let names = main("x")
    assert names.len() > 0 and names == ["Ann", "Bob", "Cid"], "all of them"
}

test "nobody answers" {
    main("x")
}
"#;

    fn checks(change: impl FnOnce(&mut Tests), files: &[(&str, &str)], expected: &Expect) -> Tests {
        let mut tests = Tests::default();
        change(&mut tests);
        let loader: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
        let mut lines: Vec<String> =
            files.iter().flat_map(|(name, _)| tests.file(&format!("dir/{name}"), name, &loader)).collect();
        lines.extend(tests.end());
        expected.assert_eq(&format!("{}\n", lines.join("\n")));
        tests
    }

    #[test]
    fn each_test_has_a_line_and_each_failure_its_reason() {
        checks(
            |_| {},
            &[("names.nx", NAMES)],
            &expect![[r#"
            ok     dir/names.nx: two names
            FAILED dir/names.nx:13: three names
            FAILED dir/names.nx:1: nobody answers

            dir/names.nx: three names
            error[assertion_failed]: all of them
              --> names.nx:13:32
               |
            13 |     assert names.len() > 0 and names == ["Ann", "Bob", "Cid"], "all of them"
               |                                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               |
               = note:  left: ["Ann","Bob"]
               = note: right: ["Ann","Bob","Cid"]
               = note: the left has 2 items and the right 3
               = note: calls in 0 ms: Namer("x")

            dir/names.nx: nobody answers
            error[unscripted_call]: `Namer` is asked, and nothing is scripted for it: write `script Namer => …`
             --> names.nx:1:1
              |
            1 | agent Namer { prompt: "Name some." }
              | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              |
              = note: calls in 0 ms: Namer("x")

            1 passed, 2 failed
        "#]],
        );
    }

    #[test]
    fn the_thorough_way_says_the_same() {
        checks(
            |tests| {
                tests.thorough = true;
                tests.filter = "two".to_owned();
            },
            &[("names.nx", NAMES)],
            &expect![[r#"
                ok     dir/names.nx: two names

                1 passed, 2 left out by the filter
            "#]],
        );
    }

    #[test]
    fn a_file_with_errors_counts_as_failed() {
        let tests = checks(
            |_| {},
            &[("bad.nx", "flow main() { 1 + \"a\" }\ntest \"x\" { main() }")],
            &expect![[r##"
            ERROR  dir/bad.nx: it does not compile

            error[E0307]: `+` does not work on `int` and `str`
             --> bad.nx:1:17
              |
            1 | flow main() { 1 + "a" }
              |               - ^ --- this is `str`
              |               |
              |               this is `int`
              |
              = help: join texts by interpolation: `"#{a}#{b}"`

            1 file does not compile
        "##]],
        );
        assert_eq!(tests.broken, 1);
    }

    #[test]
    fn programs_read_one_object_a_line() {
        checks(
            |tests| tests.output = Output::Json,
            &[("names.nx", NAMES)],
            &expect![[r#"
            {"file":"dir/names.nx","test":"two names","result":"ok","clock_ms":20}
            {"file":"dir/names.nx","test":"three names","result":"failed","clock_ms":0,"at":"dir/names.nx:13","code":"assertion_failed","message":"all of them: [\"Ann\",\"Bob\"] == [\"Ann\",\"Bob\",\"Cid\"]","report":"error[assertion_failed]: all of them\n  --> names.nx:13:32\n   |\n13 |     assert names.len() > 0 and names == [\"Ann\", \"Bob\", \"Cid\"], \"all of them\"\n   |                                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n   |\n   = note:  left: [\"Ann\",\"Bob\"]\n   = note: right: [\"Ann\",\"Bob\",\"Cid\"]\n   = note: the left has 2 items and the right 3\n   = note: calls in 0 ms: Namer(\"x\")"}
            {"file":"dir/names.nx","test":"nobody answers","result":"failed","clock_ms":0,"at":"dir/names.nx:1","code":"unscripted_call","message":"`Namer` is asked, and nothing is scripted for it: write `script Namer => …`","report":"error[unscripted_call]: `Namer` is asked, and nothing is scripted for it: write `script Namer => …`\n --> names.nx:1:1\n  |\n1 | agent Namer { prompt: \"Name some.\" }\n  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  |\n  = note: calls in 0 ms: Namer(\"x\")"}
            {"passed":1,"failed":2,"files_with_errors":0,"left_out":0}
        "#]],
        );
    }

    #[test]
    fn without_tests_that_is_said() {
        checks(
            |_| {},
            &[("empty.nx", "flow main() { }")],
            &expect![[r#"
            there are no tests
        "#]],
        );
    }
}
