//! Programs that nest or repeat without end: an error or a module, and never more stack than a test thread has.

use nexa_lang::{compile, compile_text};
use std::collections::BTreeMap;

fn codes(program: &str) -> Vec<&'static str> {
    let result = compile_text("main.nx", program);
    if let Some(module) = &result.module {
        nexa_vm::verify::verify(module).expect("a module that comes out is valid");
    }
    let mut codes: Vec<&str> = result.diagnostics.iter().map(|finding| finding.code.name()).collect();
    codes.dedup();
    codes
}

fn flow(value: &str) -> String {
    format!("agent A {{ prompt: \"x\" }}\nflow main(x: any) -> any {{ return {value} }}")
}

#[test]
fn whatever_nests_is_compiled_or_refused() {
    for depth in [10, 60, 120, 190, 220, 250, 300, 1_000, 5_000] {
        for (open, middle, close) in [
            ("(", "1", ")"),
            ("[", "1", "]"),
            ("{ a: ", "1", " }"),
            ("fn() => ", "1", ""),
            ("not ", "true", ""),
            ("try ", "1", ""),
            ("if (true) { ", "1", " } else { 2 }"),
            ("if (true) 1 else ", "2", ""),
            ("match x { _ => ", "1", " }"),
            ("str(", "1", ")"),
            ("\"#{", "1", "}\""),
            ("fork [1, ", "2", "]"),
            ("fork [1, ", "2", "] merge all"),
            ("fork [1, 2] merge best_of(by: fn(v) => ", "1.0", ")"),
            ("x ?? ", "1", ""),
            ("(A >> ", "A", ")"),
        ] {
            let program = flow(&format!("{}{middle}{}", open.repeat(depth), close.repeat(depth)));
            let codes = codes(&program);
            let is_refused = codes.iter().any(|code| matches!(*code, "E0210" | "E0108" | "E0202" | "E1006" | "E0201"));
            assert!(
                depth > 150 || codes.iter().all(|code| code.starts_with('W')) || is_refused,
                "{open} {depth}: {codes:?}"
            );
        }
    }
}

#[test]
fn long_chains_of_operators_are_compiled_or_refused() {
    for length in [50, 150, 400, 5_000, 50_000] {
        for (first, more) in
            [("1", " + 1"), ("\"q\"", " >> A"), ("x", "[0]"), ("x", ".a"), ("true", " and true"), ("x", " ?? x")]
        {
            let codes = codes(&flow(&format!("{first}{}", more.repeat(length))));
            assert!(length > 150 || codes.is_empty(), "{more} {length}: {codes:?}");
        }
    }
}

#[test]
fn a_chain_may_have_256_stages() {
    for stage in [" >> A", " |> text.upper", " |>> [A, A]"] {
        assert_eq!(codes(&flow(&format!("\"q\"{}", stage.repeat(256)))), Vec::<&str>::new(), "{stage}");
        assert_eq!(codes(&flow(&format!("\"q\"{}", stage.repeat(270)))), ["E0210"], "{stage}");
    }
}

#[test]
fn types_blocks_and_inferred_flows_do_not_nest_without_end() {
    for depth in [100, 1_000, 20_000] {
        codes(&format!("flow main(x: {}int{}) {{ }}", "list[".repeat(depth), "]".repeat(depth)));
        codes(&format!("flow main() {{ {} {} }}", "{ ".repeat(depth), "} ".repeat(depth)));
        codes(&format!("flow main(x: int) {{ {} }}", "if (x > 1) { ".repeat(depth) + &"} ".repeat(depth)));
    }
    let mut chain: String =
        (0..2_000).map(|number| format!("flow f{number}() {{ return f{}() }}\n", number + 1)).collect();
    chain.push_str("flow f2000() { return 1 }");
    assert_eq!(codes(&chain), ["E0313"]);
}

#[test]
fn more_variables_than_a_function_may_have_are_refused() {
    let lets: String = (0..300).map(|number| format!("let v{number} = {number}\n")).collect();
    let uses: Vec<String> = (0..300).map(|number| format!("v{number}")).collect();
    assert_eq!(codes(&format!("flow main() -> any {{\n{lets}\nreturn [{}]\n}}", uses.join(", "))), ["E1006"]);
}

#[test]
fn files_that_import_each_other_in_a_circle_are_reported_once() {
    let files = BTreeMap::from([
        ("main.nx".to_owned(), b"use \"a.nx\" { f }\nflow main() -> int { return f() }".to_vec()),
        ("a.nx".to_owned(), b"use \"main.nx\" { main }\nflow f() -> int { return main() }".to_vec()),
    ]);
    let result = compile("main.nx", &files);
    let codes: Vec<&str> = result.diagnostics.iter().map(|finding| finding.code.name()).collect();
    assert_eq!(codes, ["E0205"]);
}

#[test]
fn what_the_machine_has_no_room_for_is_refused_with_a_place() {
    let long_list = format!("flow main() -> list[int] {{ return [{}] }}", "1, ".repeat(5_000));
    assert_eq!(codes(&long_list), ["E1006"]);
    let long_flow = format!("flow main(x: int) {{ {} }}", "print(x); ".repeat(40_000));
    assert_eq!(codes(&long_flow), ["E1006"]);
    let long_text = format!("flow main() -> str {{ return \"{}\" }}", "x".repeat(2_000_000));
    assert_eq!(codes(&long_text), ["E1006"]);
    let many_branches =
        format!("agent A {{ prompt: \"x\" }} flow main(q: str) -> any {{ return q |>> [{}] }}", "A, ".repeat(257));
    assert_eq!(codes(&many_branches), ["E0505"]);
}

#[test]
fn what_is_long_takes_no_more_than_linear_work() {
    let number = 12_000;
    let all = |line: &dyn Fn(usize) -> String| (0..number).map(line).collect::<String>();
    let unknown =
        format!("{}flow main() {{ {} }}", all(&|n| format!("flow f{n}() {{ }}\n")), all(&|n| format!("g{n}()\n")));
    assert_eq!(codes(&unknown), ["E0208"]);
    let inferred = all(&|n| format!("flow f{n}(n: int) {{ return n }}\n"));
    assert_eq!(codes(&inferred), Vec::<&str>::new());
    let fields = format!("protocol P {{ {} }}", all(&|n| format!("a{n}: int\n")));
    assert_eq!(codes(&fields), ["E1006"]);
    let literal = format!("flow main() -> any {{ return {{ {} }} }}", all(&|n| format!("a{n}: 1,")));
    assert_eq!(codes(&literal), ["E1006"]);
    let params = format!("flow main({}) {{ }}", all(&|n| format!("a{n}: int,")));
    assert_eq!(codes(&params), ["E1006"]);
    let properties = format!("agent A {{ {} }}", all(&|n| format!("a{n}: 1\n")));
    assert_eq!(codes(&properties), ["E0401"]);
    let broken = all(&|n| format!("flow f{n}(n: int {{ return x }}\n"));
    assert_eq!(codes(&broken), ["E0201"]);
    // Two protocols that contain themselves twice are compared once, not 2^depth times.
    let recursive =
        "protocol A { l: A?, r: A?, v: int } protocol B { l: B?, r: B?, v: int }\nflow main(a: A) -> B { return a }";
    assert_eq!(codes(recursive), Vec::<&str>::new());
}
