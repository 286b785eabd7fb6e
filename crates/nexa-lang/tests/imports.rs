//! Programs of several files: selected names, aliases, whole files, and what each brings into view.

mod running;

use std::collections::BTreeMap;

use nexa_lang::diagnostic::Colour;
use nexa_lang::{CompileResult, compile};
use running::{Desk, str};

const LIBRARY: &str = r#"
protocol Claim { text: str, sure: bool }
agent Checker(claim: Claim) -> bool { prompt: "Is it so?" }
flow claim(text: str) -> Claim { return { text: text, sure: _is_sure(text) } }
flow _is_sure(text: str) -> bool { return not text.contains("maybe") }
"#;

fn program(main: &str) -> CompileResult {
    let files = BTreeMap::from([
        ("main.nx".to_owned(), main.as_bytes().to_vec()),
        ("shared/claims.nx".to_owned(), LIBRARY.as_bytes().to_vec()),
        (
            "other.nx".to_owned(),
            b"use \"shared/claims.nx\" { claim }\nflow twice(t: str) -> str { return claim(\"#{t}#{t}\").text }"
                .to_vec(),
        ),
    ]);
    compile("main.nx", &files)
}

fn codes(main: &str) -> Vec<&'static str> {
    program(main).diagnostics.iter().map(|finding| finding.code.name()).collect()
}

fn run(main: &str) -> String {
    let result = program(main);
    assert!(result.diagnostics.is_empty(), "{}", result.render(Colour::Off));
    Desk::module(result.module.expect("no finding")).script("Checker", &["true"]).run("main", &[str("maybe")])
}

#[test]
fn every_form_of_use_brings_its_names() {
    let expected = r#"{"text":"maybe","sure":false}"#;
    assert_eq!(run("use \"shared/claims.nx\"\nflow main(t: str) -> Claim { return claim(t) }"), expected);
    assert_eq!(
        run("use \"shared/claims.nx\" { Claim, claim }\nflow main(t: str) -> Claim { return claim(t) }"),
        expected
    );
    assert_eq!(run("use \"shared/claims.nx\" as c\nflow main(t: str) -> c.Claim { return c.claim(t) }"), expected);
    assert_eq!(
        run(
            "use \"shared/claims.nx\" as c\nflow main(t: str) -> bool { return c.Claim { text: t, sure: true } >> c.Checker }"
        ),
        "true"
    );
    assert_eq!(
        run(
            "use \"shared/claims.nx\" as c\nflow main(t: str) -> any { return t |> c.claim |>> [c.Checker, x_of] }\nflow x_of(c: any) -> bool { return c.sure }"
        ),
        r#"[{"ok":true},{"ok":false}]"#
    );
    assert_eq!(
        run("use \"other.nx\"\nuse \"shared/claims.nx\"\nflow main(t: str) -> str { return claim(twice(t)).text }"),
        "\"maybemaybe\""
    );
}

#[test]
fn what_is_not_there_or_not_used_is_said() {
    assert_eq!(codes("use \"shared/claims.nx\" { claims }\nflow main() { claims() }"), ["E0208"]);
    assert_eq!(
        codes("use \"shared/claims.nx\" { _is_sure }\nflow main() -> bool { return _is_sure(\"x\") }"),
        ["E0208"]
    );
    assert_eq!(codes("use \"shared/claims.nx\"\nflow main() -> bool { return _is_sure(\"x\") }"), ["E0208"]);
    assert_eq!(codes("use \"shared/claims.nx\" as c\nflow main() -> any { return c.claims(\"x\") }"), ["E0208"]);
    assert_eq!(
        codes("use \"shared/claims.nx\" { Claim, claim }\nflow main() -> any { return claim(\"x\") }"),
        ["W0212"]
    );
    assert_eq!(codes("use \"shared/claims.nx\"\nflow claim() -> int { return 1 }"), ["E0207"]);
    assert_eq!(codes("use \"gone.nx\" { a }\nflow main() -> any { return a(1) }"), ["E0206"]);
    assert_eq!(codes("use \"gone.nx\" as g\nflow main() -> g.T { return g.a(1) }"), ["E0206"]);
}

#[test]
fn a_module_does_not_depend_on_comments_or_blank_lines() {
    let module = |text: &str| program(text).module.expect("it compiles");
    let plain = module("flow main(t: str) -> str { return t }");
    let spaced = module("// why\n\n\nflow main(t: str) -> str {\n\n  /* how */ return t\n}");
    assert_eq!(plain.hash(), spaced.hash());
    assert_ne!(plain.debug, spaced.debug);
    assert_ne!(plain.hash(), module("flow main(t: str) -> str { return \"#{t}!\" }").hash());
}
