//! How programs are written: snapshots of each construct, and what holds for every program.

mod support;

use expect_test::{Expect, expect};
use nexa_lang::format::{FormatError, format};
use nexa_lang::{FileId, Source};

fn formatted(text: &str) -> String {
    let source = Source::from_text(FileId(0), "main.nx", text).expect("a test program is small");
    match format(&source) {
        Ok(text) => text,
        Err(FormatError::Syntax(_)) => panic!("{}", support::rendered(text)),
        Err(error) => panic!("{error}\n{text}"),
    }
}

/// Formats, and checks that formatting again changes nothing.
fn check(text: &str, expected: Expect) {
    let once = formatted(text);
    expected.assert_eq(&once);
    assert_eq!(formatted(&once), once, "formatting again changes nothing");
}

#[test]
fn the_program_with_every_construct() {
    check(
        include_str!("corpus/everything.nx"),
        expect![[r##"
        //! One program with every construct of the language.
        //! It is read, not run.
        use "shared/words.nx" { Claim, Source }
        use "shared/more.nx"
        use "shared/other.nx" as other

        type Mail = str @ "an address that letters reach" match r"^[^@\s]+@[^@\s]+$"
        type Either = int | list[str]? | (bool, float)
        type Step = fn(int, str) -> Option[other.Place]
        protocol Titled { title: str }
        protocol Note {
            /// One line.
            title: str
            tags: list[str]
            weight: float?
            extra: { at: duration, by: str?? }
        }
        struct Cursor { page: int, done: bool }
        enum Answer { yes, no(why: str, at: int), perhaps }

        fn total(xs: list[int]) -> int => xs.fold(0, fn(a, x) => a + x)
        fn sign(n: int) -> int {
            if (n < 0) {
                return -1
            } else if (n == 0) {
                return 0
            }
            return 1
        }

        /// Finds pages.
        /// Two lines of it.
        @deprecated("use pages2")
        tool pages(query: str, limit: int = 5) -> list[str] {
            source: mcp("docs", name: "find"), risk: "low", effect: "read"
            limits: { memory: 16MiB, cpu: 5s, hosts: ["docs.example"], paths: [] }
            timeout: 1_500ms
        }

        @id("writer")
        @allow(W0604)
        agent Writer(notes: str, audience: str = "team") -> Note
            uses pages, std.fs(paths: ["notes/"]), memory.tenant
            implements Titled
            requires notes.len() > 0
            requires "the notes are in one language"
            ensures result.tags.len() <= 5
        {
            role: "Editor"
            prompt: """
                Write for #{audience}.
                  Keep "quotes" and \#{braces}.
                """
            planner: react(max_steps: 6)
            model: ["local/small", "remote/large"], temperature: 0.2
            fallback: Reserve
            budget: { tokens: 20_000, cost: 0.05, time: 90s }
            stop: []
        }
        agent Reserve { prompt: "Try." }

        flow helper(n: int = 0xff) -> int budget { calls: 2 } schedule { priority: 200 } {
            return n % 0b101
        }

        flow main(topic: str) -> Note uses pages budget { cost: 0.50, time: 2m } {
            let (a, b) = (1, "two")
            let c: list[int] = [1, 2, 3]
            let d = { "k": 1, ["x" + "y"]: 2 }
            let e = {}
            let f = Cursor { page: 1, done: false }
            let agent = 1
            let merge = agent
            d["k"] = 3
            f.page += 1
            a -= 1
            while (a < 10 and not (b in ["x"])) {
                a += 1
                if (a == 5) {
                    continue
                } else {
                    break
                }
            }
            for each x in c {
                print("#{x}")
            }
            for each i, x in c {
                print("#{i}: #{"inner #{x}"}")
            }
            for (k, v) in d {
                print(k)
            }
            defer print("done")
            defer {
                print("really")
            }
            let tried = try pages(topic)
            try {
                pages(topic)?
            } catch (e) {
                print(e.code)
            }
            try (timeout: 30s) {
                helper()
            } catch (problem) {
                return fail("late")
            }
            let m = match tried {
                ok([first, _]) if (first == "x") => first
                ok(list) => list.join("\n")
                err({ code, message: text }) => "#{code}: #{text}"
                n: int => {
                    print("int")
                    "int"
                }
                -1 => "less"
                intent("asks for money") => { title: "money", tags: [] }
                other.Place(p) => return p
                _ => break
            }
            semantic_if "is polite" fast_match r"(?i)please" against topic {
                print("please")
            } else {
                print("no")
            }
            semantic_if (topic, "which kind?") { "letter" => print("a letter"), _ => return none }
            loop (max: 4, timeout: 10s) {
                a = a + 1
            } until ("the draft is done" against b)
            loop {
                a += 1
            } until (a > 3)
            let g = fork [left: Writer.run(topic), right: Reserve.run(topic)]
            let h = fork [Writer.run(topic), Reserve.run(topic)] merge vote(min_ok: 2)
            let child = spawn helper(1)
            spawn helper(2)
            pass 44 to child
            verify m satisfies Note
            verify "it is friendly" against m
            assert a > 1, "why"
            assert "it is friendly" against m
            let waited = await child
            let chain = Writer >> Reserve
            topic >> ([Writer, Reserve] &>> Writer)
            topic |>> [x: Writer, y: Reserve] merge best_of(by: fn(v) => v.score) |> text.upper
            topic || [Writer, Reserve]
            [1, 2] &>> Writer && Judge
            let r = topic ?> it == "x" => Writer(audience: _) : _
            let t = topic ?> { "is a greeting" => Writer, _ => Reserve }
            let u = none ?? topic ?? fail("nothing")
            let w = Writer.run(topic) fallback Reserve.run(topic) otherwise "none"
            let y = if (a > 1)
                "many"
            else if (a == 1)
                "one"
            else {
                let z = "none"
                z
            }
            let s = snapshot()
            let neg = -9223372036854775808 + 2e9 - 1.5e-3 * -a
            let lambda = fn((k, v), n: int) { return k }
            let nothing = ()
            return Writer.run(topic)?
        }
        test "a script" {
            script Writer => ["a", after(200ms, "b")]
            script semantic "is polite" => [false, true]
            assert main("x").title == "T" and inputs(Writer) == ["x"]
        }
    "##]],
    );
}

#[test]
fn comments_keep_their_neighbours() {
    check(
        r#"// first


/* head */ // second
use "a.nx" // behind the import
/// Documents.
@id("a") // behind the decorator
@allow(W0604) agent A(/* what */ x: str, // behind x
  y: int /* behind y */) // before the brace
{ // behind the brace
  prompt: "a", // behind the prompt
  // alone
  role: "b", temperature: 0.5 /* c */, top_p: 1.0

  // at the end
}
flow main(x: str) -> str { /* empty */ }
flow other(x: str) -> str { // behind
    let y = x // behind x
        // before the stage
        >> A // behind A
        >> A;; // twice
    let z = [ 1, // one
      2 /* two */, /* three */ 3 ]; /* after */ let w = f(
        // nothing but this
    )
    return y // last

    // very last
}
// end"#,
        expect![[r#"
            // first

            /* head */ // second
            use "a.nx" // behind the import
            /// Documents.
            @id("a") // behind the decorator
            @allow(W0604)
            agent A(
                /* what */ x: str, // behind x
                y: int, /* behind y */
            ) // before the brace
            { // behind the brace
                prompt: "a" // behind the prompt
                // alone
                role: "b", temperature: 0.5 /* c */, top_p: 1.0

                // at the end
            }
            flow main(x: str) -> str {
                /* empty */
            }
            flow other(x: str) -> str { // behind
                let y = x // behind x
                    // before the stage
                    >> A // behind A
                    >> A // twice
                let z = [
                    1, // one
                    2 /* two */,
                    /* three */ 3,
                ]
                /* after */ let w = f(
                    // nothing but this
                )
                return y // last

                // very last
            }
            // end
        "#]],
    );
}

#[test]
fn chains_of_more_than_three_stages_go_one_stage_a_line() {
    check(
        r#"flow main(x: str) -> str {
    let a = x >> A >> B >> C
    let b = x >> A >> B >> C |> text.upper
    let c = x |>> [a: A, b: B] merge vote(min_ok: 2) &>> M && J ?> it == "x" => A : B
    let d = x ?> { "is a greeting" => A, "is a very long description of what somebody may want" => B, _ => C }
    return some_long_name_of_a_flow(x, y) fallback some_other_name_of_a_flow(x, y) otherwise "nothing at all"
}"#,
        expect![[r#"
            flow main(x: str) -> str {
                let a = x >> A >> B >> C
                let b = x
                    >> A
                    >> B
                    >> C
                    |> text.upper
                let c = x
                    |>> [a: A, b: B] merge vote(min_ok: 2)
                    &>> M
                    && J
                    ?> it == "x" => A : B
                let d = x
                    ?> {
                        "is a greeting" => A
                        "is a very long description of what somebody may want" => B
                        _ => C
                    }
                return some_long_name_of_a_flow(x, y)
                    fallback some_other_name_of_a_flow(x, y)
                    otherwise "nothing at all"
            }
        "#]],
    );
}

#[test]
fn what_does_not_fit_is_broken_from_the_outside_in() {
    check(
        r#"use "shared/types.nx" { Claim, Source, Evidence, Statement, Witness, Verdict, Appeal, Judgement, Sentence }
agent Writer(notes: str, audience: str = "team", language: str = "English", tone: str = "friendly") -> Note uses search, pages { prompt: "x" }
agent Short(x: str) -> Note uses search, pages requires x.len() > 0 { prompt: "x" }
flow long(notes: str) -> Note uses search, pages, std.fs(paths: ["notes/", "drafts/", "letters/"]), std.http(hosts: ["docs.example"]) budget { cost: 0.50, time: 2m } { return notes >> Writer }
fn total(xs: list[int]) -> int => xs.filter(fn(x) => x > 1000).map(fn(x) => x * 2).fold(0, fn(sum, x) => sum + x)
flow main(x: str) -> str {
    let a = first_condition_of_many and second_condition_of_many or third_condition_of_many and fourth_condition
    let b = one_long_summand_in_a_row + two_long_summand_in_a_row - three_long_summand_in_a_row - four_long_summand
    let c = x ?? some_other_source_of_it(x) ?? yet_another_source_of_it(x) ?? fail("there is nothing at all to take it from")
    let d = { title: "a rather long title", points: ["one rather long point", "two rather long point"], score: 1.0 }
    let e = xs.fold(0, fn(sum, x) { let y = x * 2; return sum + y })
    emit({ title: "a rather long title", points: ["one rather long point", "two rather long point"], score: 1 })
    let f = match x { ok(v) => v, err(e) => "none" }
    let g = match some_function_with_a_long_name(x) { ok(value) => value.trim(), err(error) => "failed with #{error.code}" }
    if (first_condition_of_many and second_condition_of_many or third_condition_of_many and fourth_condition) { return "x" }
    let h = if (some_condition_that_is_long(x)) "the first of two long alternatives" else "the second of two long alternatives"
    let i = (1,)
    let j = if (a) { 1 } else { 2 }
    return """
  kept
    as it is #{ x  +  y }
  """
}"#,
        expect![[r#"
            use "shared/types.nx" {
                Claim,
                Source,
                Evidence,
                Statement,
                Witness,
                Verdict,
                Appeal,
                Judgement,
                Sentence,
            }
            agent Writer(
                notes: str,
                audience: str = "team",
                language: str = "English",
                tone: str = "friendly",
            ) -> Note uses search, pages { prompt: "x" }
            agent Short(x: str) -> Note
                uses search, pages
                requires x.len() > 0
            { prompt: "x" }
            flow long(notes: str) -> Note
                uses search,
                    pages,
                    std.fs(paths: ["notes/", "drafts/", "letters/"]),
                    std.http(hosts: ["docs.example"])
                budget { cost: 0.50, time: 2m }
            {
                return notes >> Writer
            }
            fn total(xs: list[int]) -> int =>
                xs.filter(fn(x) => x > 1000).map(fn(x) => x * 2).fold(0, fn(sum, x) => sum + x)
            flow main(x: str) -> str {
                let a = first_condition_of_many and second_condition_of_many
                    or third_condition_of_many and fourth_condition
                let b = one_long_summand_in_a_row
                    + two_long_summand_in_a_row -
                    three_long_summand_in_a_row -
                    four_long_summand
                let c = x
                    ?? some_other_source_of_it(x)
                    ?? yet_another_source_of_it(x)
                    ?? fail("there is nothing at all to take it from")
                let d = {
                    title: "a rather long title",
                    points: ["one rather long point", "two rather long point"],
                    score: 1.0,
                }
                let e = xs.fold(0, fn(sum, x) {
                    let y = x * 2
                    return sum + y
                })
                emit({
                    title: "a rather long title",
                    points: ["one rather long point", "two rather long point"],
                    score: 1,
                })
                let f = match x { ok(v) => v, err(e) => "none" }
                let g = match some_function_with_a_long_name(x) {
                    ok(value) => value.trim()
                    err(error) => "failed with #{error.code}"
                }
                if (
                    first_condition_of_many and second_condition_of_many
                        or third_condition_of_many and fourth_condition
                ) {
                    return "x"
                }
                let h = if (some_condition_that_is_long(x))
                    "the first of two long alternatives"
                else
                    "the second of two long alternatives"
                let i = (1,)
                let j = if (a) { 1 } else { 2 }
                return """
              kept
                as it is #{ x  +  y }
              """
            }
        "#]],
    );
}

#[test]
fn a_semicolon_stays_where_the_next_line_would_go_on() {
    check(
        "flow main(x: str) -> str {\n  let merge = fork [a(), b()]; merge(1)\n  assert x; against = 2\n  x = 1; otherwise(2); y = 3;\n  \
         match x { 1 => 2, otherwise => 3 }; return x? ?\n}\ntype T = str? ?\n;\nfn f(a: int) -> int => - -a",
        expect![[r#"
            flow main(x: str) -> str {
                let merge = fork [a(), b()];
                merge(1)
                assert x;
                against = 2
                x = 1;
                otherwise(2)
                y = 3
                match x { 1 => 2, otherwise => 3 }
                return x? ?
            }
            type T = str? ?
            fn f(a: int) -> int => --a
        "#]],
    );
}

#[test]
fn a_semicolon_stays_after_a_statement_whose_last_word_would_go_on_with_the_next() {
    check(
        "flow f(spawn: int) { let child = spawn ;helper(1); print(spawn + spawn); let n = 1 + spawn; print(n); }",
        expect![[r#"
            flow f(spawn: int) {
                let child = spawn;
                helper(1)
                print(spawn + spawn)
                let n = 1 + spawn;
                print(n)
            }
        "#]],
    );
}

#[test]
fn a_semicolon_stays_after_a_lone_word_that_would_begin_a_statement() {
    check(
        "flow f(assert: int, loop: int) { assert; print(1); loop; loop; print(2); }",
        expect![[r#"
        flow f(assert: int, loop: int) {
            assert;
            print(1)
            loop;
            loop;
            print(2)
        }
    "#]],
    );
}

#[test]
fn line_ends_are_made_equal_and_a_mark_at_the_beginning_is_dropped() {
    check(
        "\u{feff}flow main() {\r\n\r\n\r\n  let a = \"\"\"\r\n  x\r\n  \"\"\"\r\n}\r\n\r\n",
        expect![[r#"
        flow main() {
            let a = """
          x
          """
        }
    "#]],
    );
    check("", expect![[""]]);
    check(
        "\n\n  // only a comment  \n",
        expect![[r#"
        // only a comment
    "#]],
    );
}

#[test]
fn a_text_with_syntax_errors_is_refused_with_what_is_wrong() {
    let source = support::source("flow main( {\n}");
    let Err(FormatError::Syntax(found)) = format(&source) else { panic!("it was formatted") };
    assert_eq!(found.first().map(|finding| finding.code.name()), Some("E0201"));
}

#[test]
fn deep_and_long_programs_take_linear_time_and_little_stack() {
    for (open, close) in [("(", ")"), ("[", "]"), ("f(1, fn(x) { return ", " })"), ("{ a: ", " }"), ("if (a) { ", " }")]
    {
        let text = format!("flow main() {{ x = {}1{} }}", open.repeat(80), close.repeat(80));
        formatted(&formatted(&text));
    }
    for more in [" + 1", " >> A", ".a(1)", " ?? x", " and true"] {
        formatted(&format!("flow main() {{ x = y{} }}", more.repeat(240)));
    }
    let long = "flow main(x: str) -> str { let a = [1, 2, 3]; return f(x, a) }\n".repeat(2_000);
    assert_eq!(formatted(&long).lines().count(), 8_000);
}
