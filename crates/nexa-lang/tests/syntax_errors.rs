//! What the parser says about programs that are wrong, and that it reads on.

mod support;

use expect_test::{Expect, expect};
use nexa_lang::{Code, FileId, Source, ast, diagnostic};
use support::{codes, parsed, rendered};

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&rendered(text));
}

fn in_flow(statement: &str) -> String {
    format!("flow f() {{\n    {statement}\n    fine()\n}}\n")
}

#[test]
fn findings_point_at_the_mistake_and_say_what_to_do() {
    check(
        "agent A { promt \"x\" }",
        expect![[r#"
        error[E0201]: expected `:`, found a text
         --> main.nx:1:17
          |
        1 | agent A { promt "x" }
          |                 ^ expected `:`"#]],
    );
    check(
        &in_flow("let x = 1 let y = 2"),
        expect![[r#"
        error[E0204]: two statements stand on one line
         --> main.nx:2:15
          |
        2 |     let x = 1 let y = 2
          |               ^^^ a second statement begins here
          |
          = help: put `;` or a new line between them"#]],
    );
    check(
        &in_flow("let match = 1"),
        expect![[r#"
        error[E0209]: `match` is a reserved word and cannot be a name
         --> main.nx:2:9
          |
        2 |     let match = 1
          |         ^^^^^"#]],
    );
    check(
        &in_flow("f(a, b"),
        expect![[r#"
        error[E0202]: `(` is not closed
         --> main.nx:2:6
          |
        2 |     f(a, b
          |      ^ opened here
        3 |     fine()
          |     ---- `)` expected before `fine`"#]],
    );
    check(
        &in_flow("f(a b)"),
        expect![[r#"
        error[E0201]: expected `,` or `)`, found `b`
         --> main.nx:2:9
          |
        2 |     f(a b)
          |         ^ expected `,` or `)`"#]],
    );
    check(
        &in_flow("a < b < c"),
        expect![[r#"
        error[E0211]: comparisons cannot be chained
         --> main.nx:2:11
          |
        2 |     a < b < c
          |       -   ^
          |       |
          |       the first comparison
          |
          = help: join two comparisons with `and`"#]],
    );
    check(&in_flow("let x = "), expect![""]);
    check(
        &in_flow("for x in xs { y() }"),
        expect![[r#"
        error[E0201]: expected `each` or `(`, found `x`
         --> main.nx:2:9
          |
        2 |     for x in xs { y() }
          |         ^
          |
          = help: write `for each x in xs` or `for (k, v) in m`"#]],
    );
    check(
        "agnet A { }\nflow f() { }",
        expect![[r#"
        error[E0203]: expected a declaration, found `agnet`
         --> main.nx:1:1
          |
        1 | agnet A { }
          | ^^^^^
          |
          = help: did you mean `agent`?"#]],
    );
    check(
        "flow f() {\n    g()\nflow h() { }\n",
        expect![[r#"
        error[E0202]: `{` is not closed
         --> main.nx:1:10
          |
        1 | flow f() {
          |          ^ opened here
        2 |     g()
        3 | flow h() { }
          | ---- `}` expected before `flow`"#]],
    );
}

#[test]
fn findings_about_characters_name_the_character_and_the_remedy() {
    check(
        &in_flow("print(\"never closed)"),
        expect![[r#"
        error[E0103]: this text is not closed on its line
         --> main.nx:2:11
          |
        2 |     print("never closed)
          |           ^ opened here"#]],
    );
    check(
        &in_flow("print(\"a\\q #{b\")"),
        expect![[r#"
        error[E0104]: this escape is not known
         --> main.nx:2:13
          |
        2 |     print("a\q #{b")
          |             ^^ known are \n \r \t \0 \\ \" \# \u{…}

        error[E0108]: this interpolation is not closed on its line
         --> main.nx:2:16
          |
        2 |     print("a\q #{b")
          |                ^^ opened here"#]],
    );
    check(
        &in_flow("let x = 12monkeys + 9223372036854775808"),
        expect![[r#"
        error[E0109]: `12monkeys` is not a number of the language
         --> main.nx:2:13
          |
        2 |     let x = 12monkeys + 9223372036854775808
          |             ^^^^^^^^^ suffixes are ms s m h d, and KiB MiB GiB"#]],
    );
    check(
        &in_flow("let é = 'a'"),
        expect![[r#"
        error[E0110]: `'` has no place in the language
         --> main.nx:2:13
          |
        2 |     let é = 'a'
          |             ^ texts stand in double quotes"#]],
    );
    check(
        "flow f() {\n    x = \"\"\"\n        a\n      b\n        \"\"\"\n}",
        expect![[r#"
        error[E0107]: this line begins left of the closing quotes
         --> main.nx:4:1
          |
        4 |       b
          | ^^^^^^^ indent it as far as the closing `"""`"#]],
    );
    check(
        "flow f() { } /* open\nflow g() { }",
        expect![[r#"
        error[E0106]: this comment is not closed
         --> main.nx:1:14
          |
        1 | flow f() { } /* open
          |              ^^ opened here"#]],
    );
}

#[test]
fn every_lexical_mistake_has_its_code() {
    let cases = [
        ("x = \"a", "E0103"),
        ("x = \"\"\"a", "E0103"),
        ("x = r\"a", "E0103"),
        ("x = \"\\q\"", "E0104"),
        ("x = \"\\u{D800}\"", "E0105"),
        ("x = 1 /* a", "E0106"),
        ("x = \"\"\"\n  a\n    \"\"\"", "E0107"),
        ("x = \"a #{b", "E0108"),
        ("x = 1abc", "E0109"),
        ("x = 1 $ 2", "E0110"),
        ("x = 99999999999999999999", "E0111"),
        ("x = 9223372036854775808", "E0111"),
    ];
    for (statement, code) in cases {
        let program = format!("flow f() {{ {statement}\n}}");
        assert_eq!(codes(&program), [code], "{statement}");
    }
    assert!(codes("flow f() { x = -9223372036854775808 }").is_empty());
}

#[test]
fn interpolations_nest_eight_deep_and_no_deeper() {
    let nested = |depth: usize| format!("flow f() {{ x = {}1{} }}", "\"#{".repeat(depth), "}\"".repeat(depth));
    assert!(codes(&nested(8)).is_empty());
    assert!(codes(&nested(9)).contains(&"E0108"));
}

#[test]
fn one_mistake_gives_one_error_and_the_next_statement_its_own() {
    assert_eq!(codes(&in_flow("f(]; g(+); h(()")).len(), 3);
    assert_eq!(codes(&in_flow("let = = = 3")), ["E0201"]);
    assert_eq!(codes(&in_flow(") ] => ,")), ["E0201"]);
    assert_eq!(codes(&in_flow("a b c d")), ["E0204", "E0204", "E0204"]);
    assert_eq!(codes("}}}} ] )\n"), ["E0203"]);
    assert_eq!(codes("flow f() { if (a) { while (b) { c(["), ["E0202"]);
}

#[test]
fn what_stands_after_a_mistake_is_read() {
    let text = "agent A { role: , prompt: \"p\"\n  model \"m\"\n  retry: 2 }\nnonsense here\nflow f( -> str { return }\nflow g() { x( ; y() }\nprotocol P { a int, b: str }\n";
    let parse = parsed(text);
    let names: Vec<String> =
        parse.tree().declarations().filter_map(|decl| decl.name()).map(|name| name.text()).collect();
    assert_eq!(names, ["A", "f", "g", "P"]);
    let Some(ast::Decl::AgentDecl(agent)) = parse.tree().declarations().next() else { panic!("the first is an agent") };
    let properties: Vec<String> =
        agent.properties().filter_map(|property| property.name()).map(|name| name.text()).collect();
    assert_eq!(properties, ["role", "prompt", "model", "retry"]);
    assert_eq!(
        parse.diagnostics().iter().map(|found| found.code.name()).collect::<Vec<_>>(),
        ["E0201", "E0201", "E0203", "E0201", "E0202", "E0201"]
    );
}

#[test]
fn constructs_that_are_refused_on_purpose_say_so() {
    assert_eq!(codes(&in_flow("python! \"\"\"x\"\"\"")), ["E0903"]);
    assert_eq!(codes("server 80 { get: 1 }\npython! \"x\"\nflow f() { }"), ["E0905", "E0903"]);
    check(
        "db main { }\nflow f() { }",
        expect![[r#"
        error[E0905]: a `db` block is refused
         --> main.nx:1:1
          |
        1 | db main { }
          | ^^
          |
          = help: servers, stores and queues run beside a program, which uses them as tools"#]],
    );
    assert!(codes("flow f() { let python = 1; let server = !python; kv(db) }").is_empty());
}

#[test]
fn a_forgotten_comma_and_a_forgotten_bracket_are_told_apart() {
    check(
        &in_flow("x = [1,\n    2\n    3]"),
        expect![[r#"
        error[E0201]: expected `,` or `]`, found `3`
         --> main.nx:4:5
          |
        4 |     3]
          |     ^ expected `,` or `]`"#]],
    );
    check(
        &in_flow("x = { a: 1\n    b: 2 }"),
        expect![[r#"
        error[E0201]: expected `,` or `}`, found `b`
         --> main.nx:3:5
          |
        3 |     b: 2 }
          |     ^ expected `,` or `}`"#]],
    );
    check(
        &in_flow("if x > 1 { y() } else { z() }"),
        expect![[r#"
        error[E0201]: expected `(`, found `x`
         --> main.nx:2:8
          |
        2 |     if x > 1 { y() } else { z() }
          |        ^ expected `(`
          |
          = help: a condition stands in parentheses"#]],
    );
}

#[test]
fn a_broken_header_is_one_mistake() {
    assert_eq!(codes("flow f() return 1 }\nflow g() { }"), ["E0201"]);
    assert_eq!(codes("fn f(x) = x + 1\nflow g() { }"), ["E0201"]);
    assert_eq!(codes("use foo\nflow g { }"), ["E0201", "E0201"]);
}

#[test]
fn files_that_are_not_text_or_too_large_are_refused() {
    let refused = Source::from_bytes(FileId(0), "a.nx", b"ok \xff".to_vec()).expect_err("0xff is not UTF-8");
    assert_eq!((refused.code, refused.message.as_str()), (Code::E0101, "`a.nx` is not UTF-8: byte 3 is 0xff"));
    let large = Source::from_bytes(FileId(0), "a.nx", vec![b' '; 4 * 1024 * 1024 + 1]).expect_err("one byte too many");
    assert_eq!(large.code, Code::E0102);
    assert!(Source::from_bytes(FileId(0), "a.nx", vec![b' '; 4 * 1024 * 1024]).is_ok());
}

#[test]
fn json_has_one_object_a_line_with_bytes_lines_and_columns() {
    let text = "flow f() {\n    let é = \"ä\" let x = 1\n}";
    let source = support::source(text);
    let lines: Vec<String> =
        parsed(text).diagnostics().iter().map(|found| diagnostic::to_json(found, |_| Some(&source))).collect();
    expect![[r#"{"code":"E0204","severity":"error","message":"two statements stand on one line","file":"main.nx","start":29,"end":32,"line":2,"column":17,"labels":[{"file":"main.nx","start":29,"end":32,"line":2,"column":17,"message":"a second statement begins here"}],"notes":["put `;` or a new line between them"],"fixes":[{"title":"insert `;`","edits":[{"start":28,"end":28,"text":";"}]}]}"#]].assert_eq(&lines.join("\n"));
}

#[test]
fn every_code_has_a_meaning_and_a_severity() {
    assert_eq!(Code::ALL.len(), 108);
    for code in Code::ALL {
        assert_eq!(Code::named(code.name()), Some(*code));
        assert!(!code.meaning().is_empty());
    }
}
