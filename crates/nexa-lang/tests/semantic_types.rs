//! Semantic types: what becomes one and how, what a model is asked, and what is refused.

mod running;

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use nexa_lang::diagnostic::Colour;
use nexa_lang::{Options, compile_text, compile_with_costs};
use nexa_vm::value::Value;
use running::{Desk, both_ways, str};

/// Types that the programs below start with: three lines.
const TYPES: &str = "type Email = str @ \"a deliverable address\" match r\"^[^@\\s]+@[^@\\s]+$\"
type Work = Email @ \"an address at work\" match r\"@work\\.\"
type Calm = str @ \"it is polite\"\n";

fn with_types(program: &str) -> String {
    format!("{TYPES}{program}")
}

fn codes(program: &str) -> Vec<&'static str> {
    compile_text("main.nx", &with_types(program)).diagnostics.iter().map(|finding| finding.code.name()).collect()
}

/// The findings of a program, as people see them.
fn says(program: &str, expected: Expect) {
    expected.assert_eq(&compile_text("main.nx", program).render(Colour::Off));
}

/// What a program gives with these scripts, and what it asked.
fn gives(program: &str, scripts: &[(&str, &[&str])], args: &[Value]) -> (String, Vec<String>) {
    let make = || {
        let desk = Desk::program(&with_types(program));
        scripts.iter().fold(desk, |desk, (target, turns)| desk.script(target, turns))
    };
    let (outcome, desk) = both_ways(make, "main", args);
    (outcome, desk.asks)
}

#[test]
fn c41_a_check_gives_ok_or_err_and_a_pattern_asks_nobody() {
    let program = r##"flow main(s: str) -> str {
        return match Email.check(s) { ok(e) => "ok #{e.upper()}", err(e) => "#{e.code}: #{e.message}" }
    }"##;
    assert_eq!(gives(program, &[], &[str("a@b")]), (r#""ok A@B""#.into(), vec![]));
    let (value, asks) = gives(program, &[], &[str("x")]);
    expect![[r#""verify_failed: the value is no `Email`: $: expected text that matches `^[^@\\s]+@[^@\\s]+$` (a deliverable address), found the text \"x\"""#]].assert_eq(&value);
    assert!(asks.is_empty());
}

#[test]
fn without_a_pattern_a_model_says_whether_it_holds() {
    let program = r##"flow main(s: str) -> str {
        return match s >> Calm.check { ok(c) => "ok #{c}", err(e) => "#{e.code}: #{e.message}" }
    }"##;
    let table: &[(&[&str], &str)] = &[
        (&["true"], r#""ok Hello."#),
        (&["perhaps", "yes"], r#""ok Hello."#),
        (&["no"], r#""verify_failed: the value is no `Calm`: $: expected it is polite, found the text \"Hello.\""#),
        (&["?"], r#""semantic_failed: the model gave no answer that is a yes or no to: it is polite"#),
    ];
    for (turns, wanted) in table {
        let (outcome, asks) = gives(program, &[("semantic it is polite", turns)], &[str("Hello.")]);
        assert_eq!(outcome, format!("{wanted}\""), "{turns:?}");
        assert!(asks.iter().all(|ask| ask == "semantic it is polite") && !asks.is_empty(), "{asks:?}");
    }
}

#[test]
fn c41_a_plain_value_is_no_value_of_a_semantic_type() {
    says(
        "type Email = str @ \"an address\" match r\"@\"\nflow main(s: str) -> Email {\n    let e: Email = s\n    return e\n}",
        expect![[r#"
            error[E0311]: `str` becomes `Email` by a check only
             --> main.nx:3:20
              |
            3 |     let e: Email = s
              |            -----   ^ this is `str`
              |            |
              |            `Email` is asked for here
              |
              = help: `Email.check(…)` gives a Result, and `?` after it raises its error"#]],
    );
    says(
        "type Email = str @ \"an address\" match r\"@\"\nflow main() -> Email { return \"x\" }",
        expect![[r#"
            error[E0311]: this text is no `Email`
             --> main.nx:2:31
              |
            2 | flow main() -> Email { return "x" }
              |                -----          ^^^ this is `str`
              |                |
              |                `Email` is asked for here
              |
              = note: it does not match `@`"#]],
    );
    says(
        "type Calm = str @ \"it is polite\"\nprotocol Letter { text: Calm }\n\
        flow main(letters: list[{ text: str }]) -> list[Letter] { return letters }",
        expect![[r#"
            error[E0311]: `list[{ text: str }]` becomes `list[Letter]` by a check only
             --> main.nx:3:66
              |
            3 | flow main(letters: list[{ text: str }]) -> list[Letter] { return letters }
              |                                            ------------          ^^^^^^^ this is `list[{ text: str }]`
              |                                            |
              |                                            `list[Letter]` is asked for here
              |
              = note: only a model can say whether a value is `Calm`
              = help: `Calm.check(…)` gives a Result, and `?` after it raises its error"#]],
    );
    for (statements, expected) in [
        ("let e: Email = \"a@b\"; return e", vec![]),
        ("let e: Email? = \"a@b\"; return e", vec![]),
        ("let e: list[Email] = [\"a@b\", \"c@d\"]; return e", vec![]),
        ("let e: list[Email] = [\"a@b\", s]; return e", vec!["E0311"]),
        ("let e: dict[str, Email] = { \"a\": \"x\" }; return e", vec!["E0311"]),
        ("let e: Email = \"#{s}@b\"; return e", vec!["E0311"]),
        ("let e: Email = if (s == \"\") \"a@b\" else \"c@d\"; return e", vec![]),
        ("let e: Email = if (s == \"\") \"a@b\" else s; return e", vec!["E0311"]),
        ("let e: Email = 1; return e", vec!["E0301"]),
        ("let w: Work = \"a@work.org\"; let e: Email = w; let t: str = e; return t", vec![]),
        ("let w: Work = \"a@home.org\"; return w", vec!["E0311"]),
        ("let e: Email = \"a@work.org\"; let w: Work = e; return w", vec!["E0311"]),
        ("let c: Calm = \"Hello.\"; return c", vec!["E0311"]),
        ("let e: Email = \"a@b\"; e = s; return e", vec!["E0311"]),
        ("let e: Email = \"a@b\"; e += \"c\"; return e", vec!["E0311"]),
        ("let e: Email = \"a@b\"; e = \"c@d\"; return e", vec![]),
        ("return takes(s)", vec!["E0311"]),
        ("return s >> takes", vec!["E0311"]),
        ("return takes(Email.check(s)?)", vec![]),
        ("return Email.check(s, s)", vec!["E0304"]),
        ("return Email.check()", vec!["E0304"]),
        ("return Email.check(1)", vec!["E0301"]),
        ("return Email.chekc(s)", vec!["E0305"]),
        ("return Email(s)", vec!["E0208"]),
        ("return Email { a: 1 }", vec!["E0302"]),
        ("return Email", vec!["E0208"]),
        ("let e: Email? = \"a@b\"; let t: str? = e; let u: str | int = e ?? \"c@d\"; return [t, u]", vec![]),
        ("let m: Maybe = json.parse(s); let t: str? = m; let again: Maybe? = m; return t ?? again", vec![]),
        ("let o: Either = json.parse(s); let t: str | int = o; return t", vec![]),
        ("verify s satisfies Email; return s", vec![]),
        ("verify 1 satisfies Email; return s", vec!["E0301"]),
        ("let d: dict[Email, int] = {}; return d", vec!["E0309"]),
    ] {
        let found = codes(&format!(
            "type Maybe = str? @ \"m\"\ntype Either = str | int @ \"o\"\nflow takes(e: Email) -> str {{ return e }}\nflow main(s: str) -> any {{ {statements} }}"
        ));
        assert_eq!(found, expected, "{statements}");
    }
}

#[test]
fn the_fix_makes_the_program_compile() {
    let program = with_types("flow main(s: str) -> Email { let e: Email = s + \"@b\"; return e }");
    let finding = compile_text("main.nx", &program).diagnostics.remove(0);
    let mut fixed = program.clone();
    let mut edits = finding.fixes[0].edits.clone();
    edits.sort_by_key(|edit| std::cmp::Reverse(edit.span.start));
    for edit in edits {
        fixed.replace_range(edit.span.start as usize..edit.span.end as usize, &edit.text);
    }
    assert!(fixed.contains("let e: Email = Email.check(s + \"@b\")?;"), "{fixed}");
    assert!(compile_text("main.nx", &fixed).diagnostics.is_empty(), "{fixed}");
    let mut desk = Desk::program(&fixed);
    assert_eq!(desk.run("main", &[str("a")]), r#""a@b""#);
    assert!(desk.run("main", &[str("a@")]).starts_with("verify_failed"));
}

#[test]
fn what_can_be_done_with_the_base_can_be_done_with_it() {
    let program = r##"
        type Port = int @ "a port"
        type Names = list[str] @ "names of people"
        type Point = { x: int, y: int } @ "a place on the map"
        flow main() -> any {
            let e: Email = "a@b"
            let w: Work = "c@work.d"
            let p: Port = json.parse("80")
            let ns: Names = json.parse("[\"n\", \"m\"]")
            let q: Point = json.parse("{\"x\": 1, \"y\": 2}")
            let all: list[Email] = [e, w]
            let kept = all.filter(fn(one) => one.contains("work"))
            let total = 0
            for each n in ns { total += n.len() }
            return [e + "!", "#{w}", e == w, e == "a@b", e < w, e.len(), "@" in e, p + 1, p > 79, -p, ns.len(), ns[0], ns + ["o"],
                q.x + q.y, total, kept, all.sort(), e in all, math.max(p, 90), json.text(q),
                match e { "a@b" => 1, _ => 2 }, match ns { [first, _] => first, _ => "" }]
        }"##;
    let (value, asks) = gives(program, &[], &[]);
    expect![[r#"["a@b!","c@work.d",false,true,true,3,true,81,true,-80,2,"n",["n","m","o"],3,2,["c@work.d"],["a@b","c@work.d"],true,90,"{\"x\":1,\"y\":2}",1,"n"]"#]].assert_eq(&value);
    assert!(asks.is_empty());
}

#[test]
fn a_match_tells_what_a_pattern_tells() {
    let program = r#"flow main(v: any) -> str {
        return match v { w: Work => "work", e: Email => "email", s: str => "text", _ => "else" }
    }"#;
    for (value, wanted) in
        [(str("a@work.b"), "work"), (str("a@b"), "email"), (str("a"), "text"), (Value::Int(1), "else")]
    {
        assert_eq!(gives(program, &[], &[value]).0, format!("\"{wanted}\""));
    }
    assert_eq!(codes("flow main(v: any) -> str { return match v { c: Calm => \"calm\", _ => \"else\" } }"), ["E0311"]);
    let narrowed = "flow main(v: Email | int) -> str { return match v { e: Email => e, n: int => \"#{n}\" } }";
    assert_eq!(codes(narrowed), Vec::<&str>::new());
}

#[test]
fn what_comes_from_any_must_match_the_pattern() {
    let program = "flow main(t: str) -> Email { let e: Email = json.parse(t); return e }";
    assert_eq!(gives(program, &[], &[str("\"a@b\"")]).0, r#""a@b""#);
    let (value, _) = gives(program, &[], &[str("\"x\"")]);
    assert!(value.starts_with("type_mismatch: "), "{value}");
}

#[test]
fn verify_asks_about_every_part_that_no_pattern_decides() {
    let program = r#"
        protocol Letter { to: list[Email], text: Calm, more: Calm?, also: dict[str, Calm] }
        flow main(v: any) -> str { verify v satisfies Letter; return "fine" }"#;
    let letter = r#"{"to": ["a@b"], "text": "t", "more": "m", "also": {"p": "q"}}"#;
    let value = nexa_vm::json::from_json(letter).expect("JSON");
    let polite = "semantic it is polite";
    let (outcome, asks) = gives(program, &[(polite, &["true"])], std::slice::from_ref(&value));
    assert_eq!((outcome.as_str(), asks.len()), (r#""fine""#, 3));
    let (outcome, asks) = gives(program, &[(polite, &["true", "false"])], std::slice::from_ref(&value));
    let wanted = "verify_failed: the value is no `Letter`: $.more: expected it is polite, found the text \"m\"";
    assert_eq!((outcome.as_str(), asks.len()), (wanted, 2));
    let short = nexa_vm::json::from_json(r#"{"to": ["a"], "text": "t", "also": {}}"#).expect("JSON");
    let (outcome, asks) = gives(program, &[], &[short]);
    assert!(outcome.starts_with("verify_failed: the value is no `Letter`: ") && asks.is_empty(), "{outcome}");
}

#[test]
fn parts_are_found_in_what_json_is_read_as() {
    let program = r#"
        enum Reply { silence, words(text: Calm) }
        protocol Note { kind: int, body: Reply | { other: Calm } }
        flow main(t: str) -> str { verify json.parse(t) satisfies Note; return "fine" }"#;
    let polite = "semantic it is polite";
    for (text, asked) in [
        (r#"{"kind": 1, "body": {"tag": "words", "text": "a"}}"#, 1),
        (r#"{"kind": 1, "body": {"other": "b"}}"#, 1),
        (r#"{"kind": 1, "body": "silence"}"#, 0),
    ] {
        let (outcome, asks) = gives(program, &[(polite, &["true"])], &[str(text)]);
        assert_eq!((outcome.as_str(), asks.len()), (r#""fine""#, asked), "{text}");
    }
    let program = r##"
        type Point = { x: float, y: float } @ "a place on the map"
        flow main(t: str) -> str {
            return match Point.check(json.parse(t)) { ok(p) => "#{p.x + p.y}", err(e) => e.code }
        }"##;
    let place = "semantic a place on the map";
    assert_eq!(gives(program, &[(place, &["true"])], &[str(r#"{"x": 1, "y": 2}"#)]).0, r#""3.0""#);
    assert_eq!(gives(program, &[], &[str(r#"{"x": 1}"#)]).0, r#""verify_failed""#);
    assert_eq!(gives(program, &[], &[str("[]")]).0, r#""verify_failed""#);
}

#[test]
fn a_value_with_too_many_parts_to_ask_about_is_refused() {
    let program =
        "type Crowd = list[Calm] @ \"a crowd\"\nflow main(v: any) -> int { verify v satisfies Crowd; return 1 }";
    let crowd = |count: usize| Value::List(vec![str("x"); count].into());
    let scripts: &[(&str, &[&str])] = &[("semantic it is polite", &["true"]), ("semantic a crowd", &["true"])];
    assert_eq!(gives(program, scripts, &[crowd(63)]).1.len(), 64);
    let (outcome, asks) = gives(program, scripts, &[crowd(64)]);
    assert_eq!(outcome, "semantic_failed: a model would be asked about more than 64 parts of one value");
    assert!(asks.is_empty());
}

#[test]
fn an_answer_must_match_its_pattern_and_models_see_it() {
    let program =
        "agent A -> { to: Email } { prompt: \"Who?\", repair: 1 }\nflow main(q: str) -> str { return (q >> A).to }";
    let make = |turns: &'static [&'static str]| move || Desk::program(&with_types(program)).script("A", turns);
    let (outcome, desk) = both_ways(make(&[r#"{"to": "nobody"}"#, r#"{"to": "a@b"}"#]), "main", &[str("q")]);
    assert_eq!((outcome.as_str(), desk.calls.len(), desk.asks.len()), (r#""a@b""#, 2, 0));
    let system = &desk.requests[0].messages[0].text;
    assert!(system.contains(r#""description":"a deliverable address","pattern":"^[^@\\s]+@[^@\\s]+$""#), "{system}");
    let repair = &desk.requests[1].messages.last().expect("a message").text;
    assert!(repair.contains("$.to: expected text that matches"), "{repair}");
    let (outcome, _) = both_ways(make(&[r#"{"to": "nobody"}"#]), "main", &[str("q")]);
    assert!(outcome.starts_with("output_invalid: "), "{outcome}");
}

#[test]
fn validate_semantic_asks_about_each_condition_of_an_answer() {
    const ANSWERS: &[&str] = &[r#"{"to": "a@b", "text": "No!"}"#, r#"{"to": "a@b", "text": "No, thanks."}"#];
    let program = "agent A -> { to: Email, text: Calm } { prompt: \"Who?\", repair: 1, validate: \"semantic\" }\n\
        flow main(q: str) -> str { return (q >> A).text }";
    let (address, polite) = ("semantic a deliverable address", "semantic it is polite");
    let make = |words: &'static [&'static str], turns: &'static [&'static str]| {
        move || Desk::program(&with_types(program)).script("A", turns).script(address, &["true"]).script(polite, words)
    };
    let (outcome, desk) = both_ways(make(&["no", "yes"], ANSWERS), "main", &[str("q")]);
    assert_eq!((outcome.as_str(), desk.calls.len(), desk.asks.len()), (r#""No, thanks.""#, 2, 4));
    let repair = desk.requests.iter().filter_map(|request| request.messages.last());
    let repair = repair.map(|message| &message.text).find(|text| text.contains("Answer again")).expect("a repair turn");
    assert!(repair.contains("$.text: expected it is polite, found the text \"No!\""), "{repair}");
    let (outcome, desk) = both_ways(make(&["no", "no"], ANSWERS), "main", &[str("q")]);
    assert!(outcome.starts_with("output_invalid: the answer does not fit its type: $.text"), "{outcome}");
    assert_eq!((desk.calls.len(), desk.asks.len()), (2, 4));
    // Without the property the words are for the model that answers alone.
    let plain = with_types(&program.replace(", validate: \"semantic\"", ""));
    let (outcome, desk) = both_ways(|| Desk::program(&plain).script("A", &ANSWERS[..1]), "main", &[str("q")]);
    assert_eq!((outcome.as_str(), desk.asks.len()), (r#""No!""#, 0));
    assert_eq!(codes("agent A { validate: \"words\" }"), ["E0403"]);
}

#[test]
fn questions_of_semantic_types_are_counted() {
    let requests = |program: &str| {
        let files = BTreeMap::from([("main.nx".to_owned(), with_types(program).into_bytes())]);
        let (result, costs) = compile_with_costs("main.nx", &files, &Options::default());
        let costs = costs.unwrap_or_else(|| panic!("{}", result.render(Colour::Off)));
        let bounds = &costs.entries.iter().find(|(name, _)| name == "main").expect("main").1;
        format!("{}..{:?}", bounds.least.requests, bounds.most.as_ref().map(|most| most.requests).ok())
    };
    // A question takes up to five requests: two repairs, and two tries more while models are away.
    for (program, expected) in [
        ("flow main(s: str) -> any { return Email.check(s) }", "0..Some(0)"),
        ("flow main(s: str) -> any { return Calm.check(s) }", "0..Some(5)"),
        (
            "flow main(s: { a: Calm, b: Calm }) -> any { verify s satisfies { a: Calm, b: Calm }; return s }",
            "0..Some(10)",
        ),
        ("flow main(s: list[Calm]) -> any { verify s satisfies list[Calm]; return s }", "0..Some(320)"),
        (
            "agent A -> { a: Email, b: Calm } { retry: { max: 0 }, repair: 0 }\nflow main(s: str) -> any { return s >> A }",
            "1..Some(1)",
        ),
        (
            "agent A -> { a: Email, b: Calm } { retry: { max: 0 }, repair: 0, validate: \"semantic\" }\n\
            flow main(s: str) -> any { return s >> A }",
            "1..Some(11)",
        ),
    ] {
        assert_eq!(requests(program), expected, "{program}");
    }
}

#[test]
fn declarations_are_checked() {
    for (program, expected) in [
        ("type A = str @ \"x\" match r\"(\"", vec!["E0317"]),
        ("type A = int @ \"x\" match r\"1\"", vec!["E0301"]),
        ("type A = str @ \"x #{1}\"", vec!["E0404"]),
        ("type A = A @ \"x\"", vec!["E0302"]),
        ("type A = B @ \"x\"\ntype B = A @ \"y\"\nflow f(a: A | int) -> any { return a }", vec!["E0302"]),
        ("flow f() -> A { return \"a\" }\ntype A = str @ \"x\" match r\"(\"", vec!["E0317"]),
        ("fn f(s: str) -> any => A.check(s)\ntype A = int @ \"x\" match r\"1\"", vec!["E0301"]),
        ("protocol P { a: A | int }\ntype A = str @ \"x\"\nflow f(p: P) -> int { return p.a }", vec!["E0312"]),
        ("type A = B | int @ \"x\"\ntype B = str @ \"y\"\nflow f(a: A) -> int { return a }", vec!["E0312"]),
        ("type A = B @ \"x\"\ntype B = list[A] @ \"y\"", vec!["E0302"]),
        ("protocol P { a: A? }\ntype A = P @ \"x\"", vec![]),
        ("type A = secret @ \"x\"", vec!["E0416"]),
        ("type A = fn(int) -> int @ \"x\"", vec!["E0416"]),
        ("type A = gone @ \"x\"", vec!["E0302"]),
        ("type A = str", vec!["E0906"]),
        ("type A = str @ \"x\"\ntype A = str @ \"y\"", vec!["E0207"]),
        ("fn f(s: str) -> bool => Email.check(s).is_ok()", vec![]),
        ("fn f(s: str) -> bool => Calm.check(s).is_ok()", vec!["E0320"]),
        ("type P = { x: int } @ \"a place\"\nflow main(p: P) -> P { p.x = 2; return p }", vec!["E0311"]),
    ] {
        assert_eq!(codes(program), expected, "{program}");
    }
}

#[test]
fn types_that_narrow_each_other_many_times_are_refused_at_once() {
    // Declared from either end, and with a union that compares what is not known to end yet.
    let chain = |count: usize, backwards: bool| {
        let base = |place: usize| if place + 1 < count { format!("T{}", place + 1) } else { "str".to_owned() };
        let mut lines: Vec<String> =
            (0..count).map(|place| format!("type T{place} = {} @ \"c{place}\"", base(place))).collect();
        if backwards {
            lines.reverse();
        }
        lines.push("type Either = T0 | int @ \"e\"\nflow main(s: str) -> any { return T0.check(s) }".to_owned());
        compile_text("main.nx", &lines.join("\n"))
    };
    for backwards in [false, true] {
        let found = chain(20_000, backwards);
        assert!(found.has_errors() && found.diagnostics.iter().all(|one| one.code.name() == "E0210"));
        let found = chain(60, backwards);
        assert!(found.diagnostics.is_empty(), "{}", found.render(Colour::Off));
        nexa_vm::Program::load(&found.module.expect("no error, so a module").encode()).expect("a module that can run");
    }
}

#[test]
fn a_program_has_so_many_patterns_at_most() {
    let program = |count: usize| {
        let types = (0..count).map(|place| format!("type T{place} = str @ \"c\" match r\"^{place}$\""));
        let flows = (0..count).map(|place| format!("flow f{place}(s: str) -> any {{ return T{place}.check(s) }}"));
        let found = compile_text("main.nx", &types.chain(flows).collect::<Vec<_>>().join("\n"));
        found.diagnostics.iter().map(|one| one.message.clone()).collect::<Vec<_>>()
    };
    assert_eq!(program(256), Vec::<String>::new());
    assert_eq!(program(257), ["the program has 257 patterns of types, and may have 256"]);
}

#[test]
fn many_checks_fit_into_one_flow() {
    let checks = "let _ = Calm.check(s)\n".repeat(100);
    assert_eq!(codes(&format!("flow main(s: str) {{\n{checks}}}")), Vec::<&str>::new());
}

#[test]
fn a_type_of_another_file_is_the_same_type() {
    let files = BTreeMap::from([
        ("main.nx".to_owned(), b"use \"types.nx\" { Email }\nuse \"types.nx\" as t\nflow main(s: str) -> t.Email {\n    let e = Email.check(s)?\n    return t.Email.check(e)?\n}".to_vec()),
        ("types.nx".to_owned(), TYPES.as_bytes().to_vec()),
    ]);
    let result = nexa_lang::compile("main.nx", &files);
    assert!(!result.has_errors(), "{}", result.render(Colour::Off));
    let module = result.module.expect("no error, so a module");
    assert_eq!(Desk::module(module).run("main", &[str("a@b")]), r#""a@b""#);
}
