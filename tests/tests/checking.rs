//! `nexa check`, `nexa fmt` and `nexa explain` as processes: what stands on standard output, and the exit codes.

use std::fs::File;
use std::process::Stdio;

use expect_test::{Expect, expect};
use nexa_tests::{Desk, Finished, finish};
use serde_json::Value;

const GOOD: &str = "agent Editor(text: str) {\n    prompt: \"Correct the text.\"\n}\n\nflow main(text: str) -> str {\n    return text >> Editor\n}\n";
const WRONG: &str = "flow main(text: str) -> int {\n    return txet\n}\n";
const LOOSE: &str = "flow main(text: str) -> int {\n    let count: int = json.parse(text)\n    return count\n}\n";
const UNTIDY: &str = "flow main(text:str)->str{return text}\n";

/// Runs `nexa ARGS` with programs on a desk, each named by its path.
struct Checked {
    desk: Desk,
}

impl Checked {
    fn with(files: &[(&str, &str)]) -> Self {
        let desk = Desk::new();
        for (name, text) in files {
            desk.write(name, text);
        }
        Self { desk }
    }

    /// Words that begin with `@` are files on the desk.
    fn run(&self, args: &str) -> Finished {
        self.desk.run(&self.args(args).iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn args(&self, args: &str) -> Vec<String> {
        let path = |name: &str| self.desk.path(name).to_str().expect("a plain path").to_owned();
        args.split_whitespace().map(|word| word.strip_prefix('@').map_or_else(|| word.to_owned(), path)).collect()
    }

    /// The same with a text on standard input.
    fn run_on(&self, args: &str, text: &str) -> Finished {
        let input = self.desk.write("input", text);
        let args = self.args(args);
        let mut command = self.desk.nexa(&args.iter().map(String::as_str).collect::<Vec<_>>());
        command.stdin(Stdio::from(File::open(input).expect("the input was written")));
        finish(command)
    }

    /// The exit code and both outputs, with `DESK` for the folder.
    fn told(&self, args: &str) -> String {
        self.shown(self.run(args))
    }

    fn shown(&self, finished: Finished) -> String {
        let code = finished.status.code().expect("the process ends by itself");
        let folder = format!("{}/", self.desk.path("").display().to_string().trim_end_matches('/'));
        let text = format!("exit {code}\n--- out\n{}--- err\n{}", finished.out, finished.err);
        text.replace(&folder, "DESK/")
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.desk.path(name)).expect("the file is there")
    }
}

fn says(files: &[(&str, &str)], args: &str, expected: Expect) {
    expected.assert_eq(&Checked::with(files).told(args));
}

/// Each line of standard output as an object.
fn objects(finished: &Finished) -> Vec<Value> {
    finished.out.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

#[test]
fn a_good_program_ends_with_0() {
    says(
        &[("main.nx", GOOD)],
        "check @main.nx",
        expect![[r#"
        exit 0
        --- out
        --- err
        the program is good
    "#]],
    );
    says(
        &[("main.nx", GOOD)],
        "check -o json @main.nx",
        expect![[r#"
        exit 0
        --- out
        {"good":1}
        --- err
    "#]],
    );
}

#[test]
fn a_program_with_errors_ends_with_1() {
    says(
        &[("main.nx", WRONG)],
        "check @main.nx",
        expect![[r#"
        exit 1
        --- out
        error[E0208]: there is no `txet` here
         --> main.nx:2:12
          |
        2 |     return txet
          |            ^^^^
          |
          = help: did you mean `text`?

        --- err
    "#]],
    );
    says(
        &[("main.nx", WRONG)],
        "check --json @main.nx",
        expect![[r#"
        exit 1
        --- out
        {"code":"E0208","severity":"error","message":"there is no `txet` here","file":"main.nx","start":41,"end":45,"line":2,"column":12,"labels":[],"notes":["did you mean `text`?"],"fixes":[]}
        --- err
    "#]],
    );
}

#[test]
fn a_diagnostic_for_programs_has_every_key() {
    let finished = Checked::with(&[("main.nx", "flow main(x: int) -> int {\n    return x ?? 1 : 2\n}\n")])
        .run("check --json @main.nx");
    let first = objects(&finished).remove(0);
    let keys = ["code", "severity", "message", "file", "start", "end", "line", "column", "labels", "notes", "fixes"];
    let missing: Vec<&str> = keys.into_iter().filter(|key| first.get(key).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?} missing in {first}");
    assert_eq!(first["code"], "E0901");
    let edit = &first["fixes"][0]["edits"][0];
    assert!(edit["start"].is_u64() && edit["end"].is_u64() && edit["text"].is_string(), "{first}");
}

#[test]
fn warnings_alone_end_with_0() {
    says(
        &[("main.nx", "flow main() -> int {\n    let unused = 1\n    return 2\n}\n")],
        "check @main.nx",
        expect![[r#"
        exit 0
        --- out
        warning[W0212]: `unused` is not used
         --> main.nx:2:9
          |
        2 |     let unused = 1
          |         ^^^^^^
          |
          = help: remove it, or call it `_unused`

        --- err
        the program is good
    "#]],
    );
}

#[test]
fn strictly_a_value_of_any_type_is_an_error() {
    let loose = Checked::with(&[("main.nx", LOOSE)]);
    assert_eq!(loose.run("check @main.nx").good(), "");
    expect![[r#"
        exit 1
        --- out
        error[E0301]: the value is `any`, but `int` is written
         --> main.nx:2:22
          |
        2 |     let count: int = json.parse(text)
          |                ---   ^^^^^^^^^^^^^^^^ this is `any`
          |                |
          |                `int` is asked for here
          |
          = note: `--strict` asks for types that are known before the program runs
          = help: ask what it is: `match x { n: int => …, _ => … }`

        --- err
    "#]]
    .assert_eq(&loose.told("check --strict @main.nx"));
}

#[test]
fn costs_have_the_prices_of_the_project() {
    let project = "[providers.acme]\nurl = \"https://models.acme.example/v1\"\nusd_per_million_in = 1.0\nusd_per_million_out = 4.0\n";
    let program = "agent A(x: str) {\n    prompt: \"a\", model: \"acme/small\", max_tokens: 1000, retry: { max: 0 }\n}\n\nflow main(x: str) -> str {\n    return x >> A >> A\n}\n";
    says(
        &[("main.nx", program)],
        "check --cost @main.nx",
        expect![[r#"
        exit 0
        --- out
        main: at least 2 requests; at most 6 requests and 42000 tokens
        A: at least 1 request; at most 3 requests and 21000 tokens
        --- err
        the program is good
    "#]],
    );
    says(
        &[("main.nx", program), ("nexa.toml", project)],
        "check --cost @main.nx",
        expect![[r#"
        exit 0
        --- out
        main: at least 2 requests; at most 6 requests, 42000 tokens and $0.06
        A: at least 1 request; at most 3 requests, 21000 tokens and $0.03
        --- err
        the program is good
    "#]],
    );
    says(
        &[("main.nx", program), ("nexa.toml", project)],
        "check --cost -o json @main.nx",
        expect![[r#"
        exit 0
        --- out
        {"entry":"main","requests_min":2,"requests_max":6,"tokens_max":42000,"cost_usd_micro_max":60000,"unknown":null}
        {"entry":"A","requests_min":1,"requests_max":3,"tokens_max":21000,"cost_usd_micro_max":30000,"unknown":null}
        {"good":1}
        --- err
    "#]],
    );
    let poor = program.replace("-> str {", "-> str budget { cost: 0.003 } {");
    says(
        &[("main.nx", &poor), ("nexa.toml", project)],
        "check @main.nx",
        expect![[r#"
        exit 1
        --- out
        error[E0603]: `main` has $0.003, and one of its requests reserves $0.004 for its answer
         --> main.nx:5:33
          |
        5 | flow main(x: str) -> str budget { cost: 0.003 } {
          |                                 ^^^^^^^^^^^^^^^
          |
          = help: allow more, or give the agent a smaller `max_tokens` or a cheaper model

        --- err
    "#]],
    );
    says(
        &[("main.nx", program), ("nexa.toml", "modle = \"x/y\"\n")],
        "check @main.nx",
        expect![[r#"
            exit 1
            --- out
            --- err
            error: cannot read DESK/nexa.toml: TOML parse error at line 1, column 1
              |
            1 | modle = "x/y"
              | ^^^^^
            unknown field `modle`, expected one of `model`, `providers`, `embedding`, `pages`, `node`, `scheduler`, `tenants`, `tools`, `cluster`

        "#]],
    );
}

#[test]
fn a_command_line_that_is_wrong_ends_with_2_and_a_file_that_is_not_there_with_1() {
    assert_eq!(Checked::with(&[]).run("check --nonsense").status.code(), Some(2));
    assert_eq!(Checked::with(&[]).run("fmt --nonsense").status.code(), Some(2));
    says(
        &[],
        "check @gone.nx",
        expect![[r#"
        exit 1
        --- out
        --- err
        error: cannot read DESK/gone.nx: No such file or directory (os error 2)
        help: check the path of the program
    "#]],
    );
    says(
        &[],
        "fmt @gone.nx",
        expect![[r#"
        exit 1
        --- out
        --- err
        error: cannot read DESK/gone.nx: No such file or directory (os error 2)
    "#]],
    );
}

#[test]
fn fixes_are_made_and_told() {
    let program = "agent A(x: int) {\n    prompt: \"a\"\n}\n\nflow main(x: int) -> str {\n    return x ?? A : A\n}\n";
    let legacy = Checked::with(&[("main.nx", program)]);
    expect![[r#"
        exit 0
        --- out
        fixed[E0901]: main.nx:6:12: write it with `?>`
        --- err
        the program is good
    "#]]
    .assert_eq(&legacy.told("check --fix @main.nx"));
    assert_eq!(legacy.text("main.nx"), program.replace("x ?? A : A", "x ?> truthy(it) => A : A"));
}

#[test]
fn programs_are_written_anew_once() {
    let untidy = Checked::with(&[("main.nx", UNTIDY), ("good.nx", GOOD)]);
    expect![[r#"
        exit 1
        --- out
        DESK/main.nx
        --- err
        1 of 2 files would be written anew
    "#]]
    .assert_eq(&untidy.told("fmt --check @main.nx @good.nx"));
    assert_eq!(untidy.text("main.nx"), UNTIDY);
    expect![[r#"
        exit 1
        --- out
        {"file":"DESK/main.nx","changed":false}
        --- err
        1 of 2 files would be written anew
    "#]]
    .assert_eq(&untidy.told("fmt --check -o json @main.nx @good.nx"));
    expect![[r#"
        exit 0
        --- out
        DESK/main.nx
        --- err
        1 of 2 files written anew
    "#]]
    .assert_eq(&untidy.told("fmt @main.nx @good.nx"));
    assert_eq!(untidy.text("main.nx"), "flow main(text: str) -> str {\n    return text\n}\n");
    assert_eq!(untidy.run("fmt --check @main.nx @good.nx").status.code(), Some(0));
}

#[test]
fn a_text_with_syntax_errors_is_left_as_it_is() {
    let broken = Checked::with(&[("main.nx", "flow main( {\n")]);
    expect![[r#"
        exit 1
        --- out
        --- err
        error[E0201]: expected the name of a parameter, found `{`
         --> DESK/main.nx:1:12
          |
        1 | flow main( {
          |            ^ expected the name of a parameter

        error: DESK/main.nx is left as it is: it has syntax errors
        0 of 1 file written anew, 1 file left as it is for errors
    "#]]
    .assert_eq(&broken.told("fmt @main.nx"));
    let finished = broken.run("fmt -o json @main.nx");
    assert_eq!(finished.status.code(), Some(1));
    assert!(objects(&finished).iter().all(|found| found["code"].is_string()), "{}", finished.out);
    assert_eq!(broken.text("main.nx"), "flow main( {\n");
}

#[test]
fn standard_input_is_formatted_to_standard_output() {
    let desk = Checked::with(&[]);
    let formatted = desk.run_on("fmt -", UNTIDY);
    assert_eq!(formatted.good(), "flow main(text: str) -> str {\n    return text\n}\n");
    assert_eq!(desk.run_on("fmt --check -", UNTIDY).status.code(), Some(1));
    assert_eq!(desk.run_on("fmt --check -", GOOD).status.code(), Some(0));
    assert_eq!(desk.run_on("fmt -", "flow main( {").status.code(), Some(1));
    assert_eq!(desk.run_on("fmt - other.nx", UNTIDY).status.code(), Some(2));
}

#[test]
fn a_code_is_explained_and_an_unknown_one_ends_with_2() {
    says(
        &[],
        "explain E0803",
        expect![[r#"
        exit 0
        --- out
        E0803: a secret flows out of the program

        What is emitted, stored, logged or asked of a person is seen by others and recorded. Hand secrets to tools, which resolve
        them in their sandbox.

        ```nexa
        flow main(x: str) -> str {
            print("the key is #{secret("API")}")
            return x
        }
        ```

        ```text
        error[E0803]: a secret flows into the log
         --> main.nx:2:25
          |
        2 |     print("the key is #{secret("API")}")
          |                         ^^^^^^^^^^^^^
          |
          = help: a secret can be handed to a tool, and to nothing else
        ```
        --- err
    "#]],
    );
    says(
        &[],
        "explain W0901",
        expect![[r#"
        exit 2
        --- out
        --- err
        error: there is no code `W0901`
        help: E0901 took its place: `nexa explain E0901`
    "#]],
    );
    says(
        &[],
        "explain E9999",
        expect![[r#"
        exit 2
        --- out
        --- err
        error: there is no code `E9999`
        help: `nexa explain` lists them all
    "#]],
    );
    let explained = objects(&Checked::with(&[]).run("explain -o json e0501")).remove(0);
    assert_eq!(explained["code"], "E0501");
    assert!(explained["text"].as_str().is_some_and(|text| text.contains("```nexa")), "{explained}");
}

#[test]
fn all_codes_are_listed() {
    let listed = Checked::with(&[]).run("explain").good();
    let found = objects(&Checked::with(&[]).run("explain -o json"));
    assert_eq!(listed.lines().count(), found.len());
    assert!(found.len() > 100 && listed.lines().any(|line| line.starts_with("E0501  ")), "{listed}");
}
