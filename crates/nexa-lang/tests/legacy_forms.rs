//! Forms of the earlier dialect and constructs that are refused: one error each, with the fix that writes it anew.

use nexa_lang::fix::migrate;
use nexa_lang::format::format;
use nexa_lang::{FileId, Source, compile_text};

fn source(text: &str) -> Source {
    Source::from_text(FileId(0), "main.nx", text).expect("a test program is small")
}

fn found(text: &str) -> Vec<&'static str> {
    compile_text("main.nx", text).diagnostics.iter().map(|finding| finding.code.name()).collect()
}

const AGENTS: &str =
    "agent A(x: any) { prompt: \"a\" }\nagent B(x: any) { prompt: \"b\" }\nagent M(xs: list[str]) { prompt: \"m\" }\n";

/// A form, the code it gets, and what its fix makes of it.
const IN_A_FLOW: &[(&str, &str, &str)] = &[
    ("return 0 ?? A : B", "E0901", "return 0 ?> truthy(it) => A : B"),
    ("return \"x\" >> (1 ?? A : B)", "E0901", "return \"x\" >> (1 ?> truthy(it) => A : B)"),
    ("return 1 + (x ?? A : B)", "E0901", "return 1 + (x ?> truthy(it) => A : B)"),
    (
        "return x ?? { \"it is a greeting\" => A }",
        "E0901",
        "return x ?> { \"it is a greeting\" => A, _ => fail(\"no_match\") }",
    ),
    ("return x ?? { \"it is a greeting\" => A, _ => B }", "E0901", "return x ?> { \"it is a greeting\" => A, _ => B }"),
    ("return join(A, B).M(x)", "E0902", "return x |>> [A, B] &>> M"),
    ("return fork [a = A.run(x), b = B.run(x)].a", "E0902", "return fork [a: A.run(x), b: B.run(x)].a"),
    ("return A(x = x)", "E0902", "return A(x: x)"),
    (
        "semantic_if \"c\" fast_match: \"(?i)refund\" against x { return \"y\" }",
        "E0902",
        "semantic_if \"c\" fast_match r\"(?i)refund\" against x { return \"y\" }",
    ),
    ("reflect \"is it good?\";", "E0902", "reflect(\"is it good?\");"),
    (
        "let s = snapshot(); restore(s) if x == \"7\"; return x",
        "E0902",
        "let s = snapshot(); if (x == \"7\") { restore(s) }; return x",
    ),
    ("let m = receive(): str", "E0902", "let m: str = receive()"),
    ("return null", "E0902", "return none"),
    (
        "autoloop max_steps: 4, exit_when: \"it is done\", timeout: 10s { x = A.run(x) }",
        "E0902",
        "loop (max: 4, timeout: 10s) { x = A.run(x) } until (\"it is done\")",
    ),
    (
        "try_agent { x = A.run(x) } catch_correction(e) { print(e.code) }",
        "E0902",
        "try { x = A.run(x) } catch(e) { print(e.code) }",
    ),
];

#[test]
fn each_older_form_is_one_error_with_a_fix_that_writes_it_anew() {
    for (old, code, new) in IN_A_FLOW {
        let program = |line: &str| format!("{AGENTS}flow main(x: any) -> any {{\n    {line}\n}}\n");
        let codes = found(&program(old));
        assert_eq!(codes, [*code], "{old}");
        assert_eq!(migrate(&source(&program(old))), program(new), "{old}");
        assert!(!found(&program(new)).iter().any(|code| code.starts_with("E09") && *code != "E0906"), "{new}");
    }
}

/// The same for whole files; what the fix makes is given as the formatter writes it.
const FILES: &[(&str, &str, &str)] = &[
    ("include \"f.nx\";", "E0902", "use \"f.nx\"\n"),
    ("use config Default;\nflow main() -> int { return 1 }", "E0902", "flow main() -> int {\n    return 1\n}\n"),
    ("agent A uses \"a.md\" { prompt: \"x\" }", "E0902", "agent A { skills: [\"a.md\"], prompt: \"x\" }\n"),
    (
        "@limit(tokens: 50)\n@timeout(30)\n@retry(3)\n@temperature(0.2)\nagent A { prompt: \"x\" }",
        "E0902",
        "agent A { temperature: 0.2, retry: { max: 3 }, timeout: 30s, budget: { tokens: 50 }, prompt: \"x\" }\n",
    ),
    ("agent A { model: [\"a/b\", fallback: \"c/d\"] }", "E0902", "agent A { model: [\"a/b\", \"c/d\"] }\n"),
    (
        "protocol P { a: str }\nagent A { output_schema: P, prompt: \"x\" }",
        "E0902",
        "protocol P { a: str }\nagent A -> P { prompt: \"x\" }\n",
    ),
    (
        "protocol P { a: str }\nagent A implements P { prompt: \"x\" }",
        "E0902",
        "protocol P { a: str }\nagent A -> P { prompt: \"x\" }\n",
    ),
    (
        "agent A { prompt: \"x\", context { source: \"fresh\" } }",
        "E0902",
        "agent A { prompt: \"x\", context: { source: \"fresh\" } }\n",
    ),
    ("agent A { max_history_turns: 6 }", "E0902", "agent A { memory: {} }\n"),
    ("agent A { experience: \"e.md\" }", "E0902", "agent A { memory: { seed: \"e.md\" } }\n"),
    ("agent A { memory: \"session\" }", "E0902", "agent A { memory: { scope: \"agent\" } }\n"),
    ("agent A { memory: \"persistent\" }", "E0902", "agent A { memory: { scope: \"tenant\" } }\n"),
    ("agent A { tool_call_strategy: \"none\" }", "E0902", "agent A { tool_choice: \"none\" }\n"),
    ("agent A { timeout: 30 }", "E0902", "agent A { timeout: 30s }\n"),
    (
        "tool find { description: \"Finds.\", parameters: {\"q\": \"string\", \"n\": \"integer\"}, mcp: \"docs\" }",
        "E0902",
        "tool find(q: str, n: int) -> any { description: \"Finds.\", source: mcp(\"docs\", name: \"find\") }\n",
    ),
    (
        "@tool(risk_level: \"low\") fn f(n: int) -> int { return n }",
        "E0902",
        "flow f(n: int) -> int {\n    return n\n}\n",
    ),
    ("protocol P { a: \"string\", b: \"list[int]\" }", "E0902", "protocol P { a: str, b: list[int] }\n"),
];

#[test]
fn files_of_the_earlier_dialect_are_written_anew() {
    for (old, code, new) in FILES {
        let codes = found(old);
        assert!(codes.contains(code), "{old}: {codes:?}");
        let older: Vec<_> = codes.iter().filter(|code| code.starts_with("E02") || code.starts_with("E01")).collect();
        assert!(older.is_empty(), "{old}: {codes:?}");
        let migrated = source(&migrate(&source(old)));
        assert_eq!(format(&migrated).expect("it has no syntax errors"), *new, "{old}");
    }
}

#[test]
fn older_forms_stay_as_they_are_without_being_asked_for() {
    let forms = IN_A_FLOW.iter().map(|(old, ..)| format!("flow main(x: any) -> any {{\n    {old}\n}}\n"));
    for text in forms.chain(FILES.iter().map(|(old, ..)| (*old).to_owned())) {
        let once = format(&source(&text)).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(format(&source(&once)).as_deref(), Ok(once.as_str()), "{text}");
        assert!(found(&once).iter().any(|code| matches!(*code, "E0901" | "E0902")), "{once}");
    }
}

#[test]
fn what_is_refused_is_one_error_and_the_rest_is_still_checked() {
    for (text, expected) in [
        // Embedded code, a shell and a server in one file.
        ("python! \"\"\"x\"\"\"\nflow main() { std.shell.run(\"ls\") }\nserver 80 {}", vec!["E0903", "E0904", "E0905"]),
        (
            "flow main() {\n python! \"\"\"x\"\"\"\n std.shell.run(\"ls\")\n}\nserver 80 {}",
            vec!["E0903", "E0904", "E0905"],
        ),
        ("server 80 { get \"/\" => { x } }\nflow main() -> int { return \"x\" }", vec!["E0301", "E0905"]),
        ("job nightly { at: \"1:00\" }\ndb main { }\nkv cache { }\nauth users { }", vec!["E0905"; 4]),
        ("tool t(x: str) -> str { python: \"p.py\" }", vec!["E0903"]),
        ("agent A uses mcp: \"http://x\" { prompt: \"x\" }", vec!["E0906"]),
        ("flow main() -> str { return template\"\"\"hello #{x}\"\"\" }", vec!["E0906"]),
        ("flow main() -> str {\n img \"a.png\"\n return 1\n}", vec!["E0906"]),
        (
            "trait Walks { fn walk() }\nimpl Walks for Dog { fn walk() { } }\nflow main() -> int { return \"x\" }",
            vec!["E0301", "E0906", "E0906"],
        ),
        ("agent A { prompt: \"x\", on_start: \"y\" }", vec!["E0906"]),
        ("flow main() { with_context(\"a\") { print(\"x\") } }", vec!["E0906"]),
        ("flow main() { unharnessed { print(\"x\") } }", vec!["E0906"]),
        ("use \"old.nxs\"", vec!["E0906"]),
    ] {
        let mut codes = found(text);
        codes.sort_unstable();
        codes.retain(|code| !matches!(*code, "E0206"));
        assert_eq!(
            codes,
            expected,
            "{text}\n{}",
            compile_text("main.nx", text).render(nexa_lang::diagnostic::Colour::Off)
        );
        let result = compile_text("main.nx", text);
        for finding in result.diagnostics.iter().filter(|finding| finding.code.is_about_refused_forms()) {
            assert!(!finding.helps.is_empty(), "{finding:?} names what takes its place");
        }
    }
}

#[test]
fn words_of_the_earlier_dialect_are_names_where_they_can_be() {
    for line in [
        "let reflect = 1; return reflect",
        "let autoloop = 1; return autoloop + 1",
        "let null = 1; return null",
        "let img = 1; let hook = img; return hook",
        "let template = \"x\"; return template",
        "let server = 1; let job = server; return job",
        "let unharnessed = 1; return unharnessed",
    ] {
        let text = format!("flow main() -> any {{ {line} }}");
        assert!(!found(&text).iter().any(|code| code.starts_with('E')), "{line}: {:?}", found(&text));
    }
}
