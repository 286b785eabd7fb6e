//! Enums and structs: made, taken apart, read from JSON and written to it, asked of a model.

mod running;

use expect_test::{Expect, expect};
use nexa_lang::compile_text;
use nexa_lang::diagnostic::Colour;
use nexa_vm::value::Value;
use running::{Desk, both_ways, str};

const PROGRAM: &str = r##"
enum Verdict { accept, reject(reason: str), later(days: int, note: str?) }
enum Colour { red, green, accept }
struct Cursor { page: int, done: bool, hint: str? }
protocol Paged { page: int }

agent Judge(text: str) -> Verdict { prompt: "Judge it." }
agent Next(text: str) -> Cursor { prompt: "Where to go on?", repair: 1 }

fn why(v: Verdict) -> str {
    return match v {
        accept => "fine",
        reject(reason) if (reason == "") => "no reason",
        Verdict.reject(reason) => "no: #{reason}",
        later(d, none) => "in #{d}",
        later(d, note) => "in #{d}: #{note}"
    }
}
fn judged(n: int) -> Verdict {
    if (n > 9) { return accept }
    if (n > 5) { return later(days: n) }
    return reject("only #{n}")
}
flow enums() -> list[any] {
    let c: Colour = accept
    let v: Verdict = accept
    let all: list[Verdict] = [accept, reject("late"), later(2), later(note: "soon", days: 3), Verdict.reject("")]
    return [c, all, all.map(why), judged(3), judged(6) |> why, "late" |> reject, v == judged(10), v == judged(1),
        Colour.red == Colour.green, "#{judged(1)}", json.text({ v: v })]
}
flow given(v: Verdict = reject("left out")) -> str { return why(v) }
flow read(text: str) -> Verdict {
    let value = json.parse(text)
    let v: Verdict = value
    return v
}
flow asked(text: str) -> str { return text >> Judge |> why }

fn page_of(x: Paged) -> int => x.page
flow structs(text: str) -> list[any] {
    let c = Cursor { page: 1, done: false }
    c.page = c.page + 1
    let read: Cursor = json.parse(text)
    return [c, read, page_of(c), c == Cursor { done: false, page: 2 }, c == read]
}
flow next(text: str) -> int { return Next.run(text).page }
"##;

fn run(entry: &str, args: &[Value]) -> String {
    both_ways(|| Desk::program(PROGRAM), entry, args).0
}

#[test]
fn cases_are_made_compared_matched_and_written() {
    expect![[r#"["accept",["accept",{"tag":"reject","reason":"late"},{"tag":"later","days":2,"note":null},{"tag":"later","days":3,"note":"soon"},{"tag":"reject","reason":""}],["fine","no: late","in 2","in 3: soon","no reason"],{"tag":"reject","reason":"only 3"},"in 6",{"tag":"reject","reason":"late"},true,false,false,"{\"tag\":\"reject\",\"reason\":\"only 1\"}","{\"v\":\"accept\"}"]"#]].assert_eq(&run("enums", &[]));
    expect![[r#""no: left out""#]].assert_eq(&run("given", &[]));
}

#[test]
fn a_case_is_read_by_its_name_or_its_tag() {
    expect![[r#""accept""#]].assert_eq(&run("read", &[str("\"accept\"")]));
    expect![[r#"{"tag":"later","days":2,"note":null}"#]].assert_eq(&run("read", &[str(r#"{"tag":"later","days":2}"#)]));
    expect!["type_mismatch: $.reason: expected a text, found nothing; this field is required"]
        .assert_eq(&run("read", &[str(r#"{"tag":"reject"}"#)]));
    expect![[r#"type_mismatch: $: expected one of "accept", "reject", "later", found the text "maybe""#]]
        .assert_eq(&run("read", &[str("\"maybe\"")]));
}

#[test]
fn an_agent_answers_with_a_case() {
    let answers = [r#"{"tag":"reject","reason":"late"}"#];
    let (value, desk) = both_ways(|| Desk::program(PROGRAM).script("Judge", &answers), "asked", &[str("q")]);
    expect![[r#""no: late""#]].assert_eq(&value);
    expect![[r#"{"anyOf":[{"const":"accept"},{"type":"object","properties":{"tag":{"const":"reject"},"reason":{"type":"string"}},"required":["tag","reason"],"additionalProperties":false},{"type":"object","properties":{"tag":{"const":"later"},"days":{"type":"integer"},"note":{"anyOf":[{"type":"string"},{"type":"null"}]}},"required":["tag","days"],"additionalProperties":false}]}"#]].assert_eq(desk.requests[0].schema.as_deref().unwrap_or_default());
}

#[test]
fn a_struct_is_made_changed_and_read() {
    expect![[r#"[{"page":2,"done":false,"hint":null},{"page":2,"done":false,"hint":null},2,true,true]"#]]
        .assert_eq(&run("structs", &[str(r#"{"page":2,"done":false}"#)]));
    expect!["type_mismatch: $.done: expected true or false, found nothing; this field is required"]
        .assert_eq(&run("structs", &[str(r#"{"page":2}"#)]));
    let answers = ["{\"page\":\"x\"}", "{\"page\":7,\"done\":true}"];
    let (value, _) = both_ways(|| Desk::program(PROGRAM).script("Next", &answers), "next", &[str("q")]);
    assert_eq!(value, "7");
}

#[test]
fn a_loop_tests_after_its_body_and_ends_at_its_limit() {
    let program = r##"
flow count(until: int) -> str {
    let n = 0
    let seen: list[int] = []
    loop (max: 4) {
        n += 1
        if (n == 2) { continue }
        seen += [n]
        if (n == 9) { break }
    } until (n >= until)
    return "#{n} #{seen}"
}
flow nested() -> list[int] {
    let out: list[int] = []
    let i = 0
    loop (max: 9) {
        i += 1
        let j = 0
        loop (max: i) { j += 1; if (j == 3) { break }; out += [i * 10 + j] } until (j == i)
    } until (i == 3)
    return out
}
flow caught() -> str {
    try { loop (max: 2) { print("round") } until (false) } catch (e) { return e.code }
}
flow under_budget() -> int budget { calls: 3 } {
    let n = 0
    loop { n += 1 } until (n == 5)
    return n
}
"##;
    let run = |entry: &str, args: &[Value]| both_ways(|| Desk::program(program), entry, args).0;
    expect![[r#""3 [1,3]""#]].assert_eq(&run("count", &[Value::Int(3)]));
    expect![[r#""1 [1]""#]].assert_eq(&run("count", &[Value::Int(0)]));
    expect![[r#""2 [1]""#]].assert_eq(&run("count", &[Value::Int(2)]));
    expect!["loop_limit: the loop ran `max` rounds and its condition does not hold"]
        .assert_eq(&run("count", &[Value::Int(5)]));
    expect!["[11,21,22,31,32]"].assert_eq(&run("nested", &[]));
    expect![[r#""loop_limit""#]].assert_eq(&run("caught", &[]));
    expect!["5"].assert_eq(&run("under_budget", &[]));
}

/// The findings of a program, as people see them.
fn says(program: &str, expected: Expect) {
    expected.assert_eq(&compile_text("main.nx", program).render(Colour::Off));
}

#[test]
fn a_match_of_an_enum_says_what_it_leaves_out_and_what_is_never_reached() {
    says(
        "enum V { a, b(x: int), c }\nflow main(v: V) -> int {\n    let n = match v { a => 1, b(x) => x }\n    return match v {\n        a => n,\n        a => 2,\n        b(x) => x,\n        c => 4,\n        _ => 5\n    }\n}",
        expect![[r#"
            error[E0315]: this `match` leaves out `c`
             --> main.nx:3:13
              |
            3 |     let n = match v { a => 1, b(x) => x }
              |             ^^^^^
              |
              = help: add an arm for each, or `_ => …` for all that is left

            warning[W0316]: this arm is never reached
             --> main.nx:6:9
              |
            6 |         a => 2,
              |         ^
              |
              = help: an arm before it takes every `a`

            warning[W0316]: this arm is never reached
             --> main.nx:9:9
              |
            9 |         _ => 5
              |         ^
              |
              = help: the arms before it take every value"#]],
    );
}

#[test]
fn a_case_that_is_wrong_is_pointed_at() {
    says(
        "enum V { a, b(x: int) }\nenum W { a, z(tag: str), z }\nflow main(v: V) -> V {\n    let one = a\n    let two = b\n    let three = b(\"x\")\n    let four = V.c\n    let five = V.a()\n    let six = V\n    let seven: V = aa\n    return z(\"t\")\n}",
        expect![[r#"
            error[E0207]: `z` cannot hold a field `tag`, which holds the case's name in JSON
             --> main.nx:2:13
              |
            2 | enum W { a, z(tag: str), z }
              |             ^
              |
              = help: give the field another name

            error[E0207]: the case `z` is defined twice
             --> main.nx:2:26
              |
            2 | enum W { a, z(tag: str), z }
              |             -            ^
              |             |
              |             it is defined here first

            error[E0208]: `a` is a case of `V` and `W`
             --> main.nx:4:15
              |
            4 |     let one = a
              |               ^
              |
              = help: say which is meant: `V.a`

            error[E0304]: `b` holds `x`
             --> main.nx:5:15
              |
            5 |     let two = b
              |               ^
              |
              = help: write `b(…)`

            error[E0301]: `b` takes `int` for `x`, not `str`
             --> main.nx:6:19
              |
            6 |     let three = b("x")
              |                   ^^^ this is `str`
              |
              = help: `int(…)` reads a number from a text

            error[E0305]: `V` has no case `c`
             --> main.nx:7:18
              |
            7 |     let four = V.c
              |                  ^
              |
              = note: it has `a` and `b`

            error[E0304]: `a` holds nothing
             --> main.nx:8:16
              |
            8 |     let five = V.a()
              |                ^^^^^
              |
              = help: write `a` without parentheses

            error[E0208]: `V` is a type, not a value
             --> main.nx:9:15
              |
            9 |     let six = V
              |               ^
              |
              = help: name one of its cases: `V.a`

            error[E0208]: there is no `aa` here
              --> main.nx:10:20
               |
            10 |     let seven: V = aa
               |                    ^^
               |
               = help: did you mean `a`?

            error[E0301]: this returns `W`, but the result is `V`
              --> main.nx:11:12
               |
             3 | flow main(v: V) -> V {
               |                    - `V` is asked for here
            ...
            11 |     return z("t")
               |            ^^^^^^ this is `W`"#]],
    );
}

#[test]
fn a_record_does_not_become_a_struct_by_itself() {
    says(
        "struct Cursor { page: int }\nprotocol Paged { page: int }\nfn f(c: Cursor) -> int => c.page\nflow main(p: Paged) -> int {\n    let c: Cursor = { page: 1 }\n    let d = Cursor { page: 1, size: 2 }\n    return f(p) + f({ page: 2 }) + c.page + d.page\n}",
        expect![[r#"
            error[E0301]: the value is `{ page: int }`, but `Cursor` is written
             --> main.nx:5:21
              |
            5 |     let c: Cursor = { page: 1 }
              |            ------   ^^^^^^^^^^^ this is `{ page: int }`
              |            |
              |            `Cursor` is asked for here
              |
              = help: a struct is made by its name: `Cursor { … }`

            error[E0305]: `Cursor` has no field `size`
             --> main.nx:6:31
              |
            6 |     let d = Cursor { page: 1, size: 2 }
              |                               ^^^^
              |
              = note: it has `page`

            error[E0301]: `f` takes `Cursor` for `c`, not `Paged`
             --> main.nx:7:14
              |
            3 | fn f(c: Cursor) -> int => c.page
              |      - `Cursor` is asked for here
            ...
            7 |     return f(p) + f({ page: 2 }) + c.page + d.page
              |              ^ this is `Paged`
              |
              = help: a struct is made by its name: `Cursor { … }`

            error[E0301]: `f` takes `Cursor` for `c`, not `{ page: int }`
             --> main.nx:7:21
              |
            3 | fn f(c: Cursor) -> int => c.page
              |      - `Cursor` is asked for here
            ...
            7 |     return f(p) + f({ page: 2 }) + c.page + d.page
              |                     ^^^^^^^^^^^ this is `{ page: int }`
              |
              = help: a struct is made by its name: `Cursor { … }`"#]],
    );
}

#[test]
fn a_loop_is_bounded() {
    says(
        "flow main(n: int) -> int {\n    loop { n += 1 } until (n > 3)\n    loop (max: 0) { n += 1 } until (n)\n    loop (max: 2, timeout: 3s, most: 1) { n += 1 } until (\"done\" against n)\n    loop (max: 2) { n += 1 } until (false)\n    return n\n}",
        expect![[r#"
            error[E0601]: nothing bounds this loop
             --> main.nx:2:5
              |
            2 |     loop { n += 1 } until (n > 3)
              |     ^^^^
              |
              = help: write `loop (max: 10) { … }`, or give the flow a `budget { calls: … }`

            error[E0403]: `max` is 0, and may be 1 or more
             --> main.nx:3:16
              |
            3 |     loop (max: 0) { n += 1 } until (n)
              |                ^

            error[E0306]: a condition is a bool, and this is `int`
             --> main.nx:3:37
              |
            3 |     loop (max: 0) { n += 1 } until (n)
              |                                     ^
              |
              = help: compare it: `… != 0`

            error[E0304]: `loop` takes `max: …` and `timeout: …`
             --> main.nx:4:32
              |
            4 |     loop (max: 2, timeout: 3s, most: 1) { n += 1 } until ("done" against n)
              |                                ^^^^^^^
              |
              = help: write `loop (max: 10) { … } until (…)`

            error[E0507]: this is never reached
             --> main.nx:6:5
              |
            5 |     loop (max: 2) { n += 1 } until (false)
              |     -------------------------------------- the block ends here
            6 |     return n
              |     ^^^^^^^^
              |
              = help: remove it, or move it before the statement that ends the block"#]],
    );
}
