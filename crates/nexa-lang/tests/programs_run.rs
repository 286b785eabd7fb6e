//! What programs do: values, control flow, errors and effects, each in one go and instruction by instruction.

mod running;

use expect_test::expect;
use nexa_event::effect::Source;
use nexa_types::Seq;
use nexa_vm::value::Value;
use running::{Desk, both_ways, str};

const EVERYTHING: &str = include_str!("programs/everything.nx");

fn run(entry: &str, args: &[Value]) -> String {
    both_ways(|| Desk::program(EVERYTHING), entry, args).0
}

#[test]
fn loops_break_continue_and_walk_in_order() {
    expect!["[1,4,9,16,1,2,15]"].assert_eq(&run("loops", &[Value::Int(9)]));
    expect!["144"].assert_eq(&run("fib", &[Value::Int(12)]));
}

#[test]
fn records_are_rebuilt_and_never_shared() {
    expect![[r#""30 home {\"pi\":3.14,\"two\":2.0} {\"x\":3,\"y\":2.0,\"name\":\"home\"} 2 one -2.0 3.5 3 2250""#]]
        .assert_eq(&run("records", &[]));
}

#[test]
fn choices_take_one_arm() {
    expect![[r#""3 yes true 1x 1 v3""#]].assert_eq(&run("choices", &[Value::Int(3), Value::Bool(true)]));
    expect![[r#""none NO false 1x 0 null""#]].assert_eq(&run("choices", &[Value::None, Value::Bool(false)]));
    expect![[r#""negative NO false 1x 0 v-4""#]].assert_eq(&run("choices", &[Value::Int(-4), Value::Bool(false)]));
}

#[test]
fn errors_are_values_or_caught() {
    expect![[r#""12 24""#]].assert_eq(&run("errors", &[str("12")]));
    expect![[r#""parse_failed 17""#]].assert_eq(&run("errors", &[str("x")]));
    expect![[r#""500 overflow: too large""#]].assert_eq(&run("errors", &[str("500")]));
}

#[test]
fn dynamic_values_are_checked_where_they_become_typed() {
    expect!["13"].assert_eq(&run("dynamic", &[str(r#"{ "n": 1, "xs": [2, 3], "flag": true }"#)]));
    expect![[r#"type_mismatch: $: expected a whole number, found the text "one""#]]
        .assert_eq(&run("dynamic", &[str(r#"{ "n": "one", "xs": [], "flag": true }"#)]));
}

#[test]
fn forks_of_every_form() {
    let make = || Desk::program(EVERYTHING).script("Say", &["s"]).script("Sum", &["sum"]).script("Judge", &["true"]);
    let (value, desk) = both_ways(make, "forks", &[str("q")]);
    expect![[r#""s 5 3 s 2 sum true s""#]].assert_eq(&value);
    expect![[r#"
        1 child Say
          1 ask Say [] q
        1 child Say
          1 ask Say [] q
        2 child Say
          1 ask Say [] q!
        2 child fib
        3 child Say
          1 ask Say [] q
        3 child Say
          1 ask Say [] q
        3 child forks.branch#1
        4 child Say
          1 ask Say [] q
        4 child Say
          1 ask Say [] q
        5 child Sum
          1 ask Sum [] ["s","s"]
        6 child Say
          1 ask Say [] q
        6 child Say
          1 ask Say [] q
        7 child Judge
          1 ask Judge [] [{"ok":"s"},{"ok":"s"}]
        8 child Say
          1 ask Say [] q
        8 child Say
          1 ask Say [] q
        9 child Say
          1 ask Say [] ## Say

        s

        ## Say_2

        s
        10 child Say
          1 ask Say [] q
        11 child Say
          1 ask Say [] s"#]]
    .assert_eq(&desk.trace.join("\n"));
}

#[test]
fn merges_of_every_form() {
    let make = || Desk::program(EVERYTHING).script("Say", &["s"]);
    let (value, desk) = both_ways(make, "merges", &[str("q")]);
    expect![[r#""2 [5,8,13] 4.166666666666667 s ccc [5,8,13,1] merge_failed""#]].assert_eq(&value);
    expect![[r#"
        1 child Say
          1 ask Say [] q
        1 child Say
          1 ask Say [] q!
        2 child fib
        2 child fib
        2 child fib
        3 child fib
        3 child merges.branch#1
        4 child Say
          1 ask Say [] q
        4 child Say
          1 ask Say [] q
        5 child merges.branch#2
        5 child merges.branch#3
        5 child merges.branch#4
        6 child merges.numbers#6
        6 child merges.branch#7
        6 child merges.fail#8
        7 child merges.fail#9
        7 child merges.fail#10"#]]
    .assert_eq(&desk.trace.join("\n"));
}

#[test]
fn effects_and_what_an_agent_is_asked() {
    let make = || {
        Desk::program(EVERYTHING)
            .script("Namer", &["no JSON", r#"{"x": 0, "y": 1, "name": "Roma"}"#])
            .decide(false, "Ada", "not yet")
    };
    let (value, desk) = both_ways(make, "world", &[str("q")]);
    expect![[r#""Ada: not yet""#]].assert_eq(&value);
    expect![[r#"
        2 sleep 10
        3 emit news: {"at":0}
        5 child Namer
          1 stream ask Namer [a/one] {"point":{"x":0,"y":1.0,"name":null},"language":"Latin"}
          2 stream ask Namer [a/one] The answer does not fit the JSON Schema:
        - the answer is not valid JSON at character 1: null expected; answer with the JSON value alone
        Answer again, with the whole corrected JSON and no other words.
        6 approve Keep Roma? {"x":0,"y":1.0,"name":"Roma"}"#]]
    .assert_eq(&desk.trace.join("\n"));
    let request = &desk.requests[1];
    let messages: Vec<String> = request
        .messages
        .iter()
        .map(|message| format!("{} ({:?}): {}", message.role.as_str(), message.source, message.text))
        .collect();
    expect![[r#"
        system (Program): Cartographer

        Name the point in Latin.

        Answer with JSON only, no other words. It must fit this JSON Schema:
        {"type":"object","properties":{"x":{"type":"integer"},"y":{"type":"number"},"name":{"anyOf":[{"type":"string"},{"type":"null"}]}},"required":["x","y"],"additionalProperties":false}
        ---
        user (Program): {"point":{"x":0,"y":1.0,"name":null},"language":"Latin"}
        ---
        assistant (Answer(Seq(1))): no JSON
        ---
        user (Derived): The answer does not fit the JSON Schema:
        - the answer is not valid JSON at character 1: null expected; answer with the JSON value alone
        Answer again, with the whole corrected JSON and no other words."#]].assert_eq(&messages.join("\n---\n"));
    expect![[r#"a/one Sampling { temperature: 0.5, top_p: 0.9, max_tokens: Tokens(64), seed: Some(7), stop: ["\n\n"] } Millis(20000)"#]].assert_eq(&format!("{} {:?} {:?}", request.model, request.sampling, request.timeout));
}

#[test]
fn main_runs_with_its_defaults() {
    let (value, desk) = both_ways(|| Desk::program(EVERYTHING), "main", &[]);
    assert_eq!(value, "\"hi\"");
    assert_eq!(desk.logs.len(), 1);
}

#[test]
fn code_is_as_short_as_it_reads() {
    let module = nexa_lang::compile_text(
        "main.nx",
        "flow sum(n: int) -> int {\n    let total = 0\n    let i = 0\n    while (i < n) {\n        if (n > 100) { break }\n        total = total + i * 2\n        i += 1\n    }\n    return total\n}",
    );
    expect![[r#"
        fn 0 sum: 1 arguments, 3 locals, 0 captures, 3 operands (int)
             0 Int 0
             1 StoreLocal 1
             2 Int 0
             3 StoreLocal 2
             4 LoopTick
             5 LoadLocal 2
             6 LoadLocal 0
             7 LtInt
             8 JumpIfNot -> 22
             9 Int 100
            10 LoadLocal 0
            11 LtInt
            12 JumpIfNot -> 14
            13 Jump -> 22
            14 LoadLocal 1
            15 LoadLocal 2
            16 Int 2
            17 MulInt
            18 AddInt
            19 StoreLocal 1
            20 IncLocal 2 1
            21 Jump -> 4
            22 LoadLocal 1
            23 Return
    "#]]
    .assert_eq(&module.module.expect("it compiles").dump());
}

#[test]
fn an_agents_loop_is_bytecode() {
    let module = nexa_lang::compile_text(
        "main.nx",
        "agent A(text: str) -> int { prompt: \"Count.\", retry: { max: 1 }, repair: 1 }",
    );
    expect![[r#"
        fn 0 A: 1 arguments, 11 locals, 0 captures, 7 operands
             0 Const "system"
             1 Const "Count."
             2 Const "\n\n"
             3 Const "Answer with JSON only, no other words. It must fit this JSON Schema:\n"
             4 Int 0
             5 CallStd 1 core.schema
             6 Concat 4
             7 Int 0
             8 NewRecord {role, text, from}
             9 Const "user"
            10 LoadLocal 0
            11 Concat 1
            12 Int 0
            13 NewRecord {role, text, from}
            14 NewList 2
            15 StoreLocal 1
            16 NoneValue
            17 StoreLocal 2
            18 Const ""
            19 NewList 1
            20 IterNew
            21 LoopTick
            22 IterNext -> 122
            23 StoreLocal 3
            24 LoadLocal 1
            25 StoreLocal 4
            26 Int 0
            27 StoreLocal 5
            28 Int 0
            29 StoreLocal 6
            30 LoopTick
            31 EnterTry -> 86
            32 LoadLocal 3
            33 LoadLocal 4
            34 LLMCall A
            35 StoreLocal 7
            36 Int 0
            37 LoadLocal 7
            38 GetField "text"
            39 CallStd 2 core.read_json
            40 StoreLocal 9
            41 LoadLocal 9
            42 CallStd 1 result.is_ok
            43 JumpIfNot -> 47
            44 LoadLocal 9
            45 Unwrap
            46 Return
            47 LoadLocal 9
            48 CallStd 1 result.error
            49 StoreLocal 10
            50 Const "output_invalid"
            51 Const "the answer does not fit its type: "
            52 LoadLocal 10
            53 Const "; "
            54 CallStd 2 list.join
            55 Concat 2
            56 CallStd 2 core.error
            57 StoreLocal 2
            58 Int 1
            59 LoadLocal 6
            60 LeInt
            61 JumpIfNot -> 64
            62 LeaveTry
            63 Jump -> 121
            64 IncLocal 6 1
            65 LoadLocal 4
            66 Const "assistant"
            67 LoadLocal 7
            68 GetField "text"
            69 LoadLocal 7
            70 GetField "from"
            71 NewRecord {role, text, from}
            72 Const "user"
            73 Const "The answer does not fit the JSON Schema:\n- "
            74 LoadLocal 10
            75 Const "\n- "
            76 CallStd 2 list.join
            77 Const "\nAnswer again, with the whole corrected JSON and no other words."
            78 Concat 3
            79 Int -1
            80 NewRecord {role, text, from}
            81 NewList 2
            82 Add
            83 StoreLocal 4
            84 LeaveTry
            85 Jump -> 120
            86 StoreLocal 8
            87 LoadLocal 8
            88 StoreLocal 2
            89 LoadLocal 8
            90 IsTransient
            91 JumpIfNot -> 104
            92 LoadLocal 5
            93 Int 1
            94 LtInt
            95 JumpIfNot -> 104
            96 Const 500ms
            97 NewList 1
            98 LoadLocal 5
            99 Index
           100 Sleep
           101 Pop
           102 IncLocal 5 1
           103 Jump -> 30
           104 LoadLocal 8
           105 IsTransient
           106 JumpIf -> 117
           107 LoadLocal 8
           108 GetField "code"
           109 Const "refused"
           110 Eq
           111 JumpIf -> 117
           112 LoadLocal 8
           113 GetField "code"
           114 Const "output_invalid"
           115 Eq
           116 JumpIfNot -> 118
           117 Jump -> 121
           118 LoadLocal 8
           119 Raise
           120 Jump -> 30
           121 Jump -> 21
           122 LoadLocal 2
           123 Raise
    "#]]
    .assert_eq(&module.module.expect("it compiles").dump());
}

#[test]
fn an_error_says_where_it_was_raised() {
    let program = "flow main() -> str {\n    return match inner() { ok(v) => v, err(e) => e.at }\n}\nflow inner() -> Result[str] {\n    return try\n        fail(\"no\")\n}";
    let (value, _) = both_ways(|| Desk::program(program), "main", &[]);
    assert_eq!(value, "\"main.nx:6\"");
}

#[test]
fn a_branch_whose_arguments_are_there_is_no_child_of_its_own() {
    let program = r##"
        agent A { prompt: "x" }
        agent B(topic: str, points: list[str], tone: str = "calm") { prompt: "x" }
        flow add(x: int, y: float) -> float { return x + y }
        flow none_left() -> str { return "done" }
        flow main(brief: { title: str }, n: int) -> any {
            let part = "the #{brief.title}"
            return fork [add(n, 2), none_left(), A.run("about #{part}"), B(brief.title, points: [part, "p"])]
        }
    "##;
    let brief = || {
        let shape = nexa_vm::value::Shape { fields: vec!["title".to_owned()], ..Default::default() };
        Value::Record(nexa_vm::value::Record { shape: shape.into(), values: vec![str("sea")] }.into())
    };
    let make = || Desk::program(program).script("A", &["a"]).script("B", &["b"]);
    let (value, desk) = both_ways(make, "main", &[brief(), Value::Int(1)]);
    expect![[r#"[{"ok":3.0},{"ok":"done"},{"ok":"a"},{"ok":"b"}]"#]].assert_eq(&value);
    expect![[r#"
        1 child add
        1 child none_left
        1 child A
          1 ask A [] about the sea
        1 child B
          1 ask B [] {"topic":"sea","points":["the sea","p"],"tone":"calm"}"#]]
    .assert_eq(&desk.trace.join("\n"));
}

#[test]
fn a_stage_with_its_other_arguments_is_the_child_itself() {
    let program = r##"
        agent A { prompt: "x" }
        agent B(topic: str, points: list[str]) { prompt: "x" }
        flow add(x: int, y: float) -> float { return x + y }
        flow main(q: str, p: str) -> any { return q |>> [A.run(), B(points: [p]), B(points: [p], topic: _)] }
        flow ints(n: int, y: float) -> any { return n |>> [add(y), add(1, _), add(y: 2)] }
    "##;
    let make = || Desk::program(program).script("A", &["a"]).script("B", &["b"]);
    let (value, desk) = both_ways(make, "main", &[str("q"), str("p")]);
    expect![[r#"[{"ok":"a"},{"ok":"b"},{"ok":"b"}]"#]].assert_eq(&value);
    expect![[r#"
        1 child A
          1 ask A [] q
        1 child B
          1 ask B [] {"topic":"q","points":["p"]}
        1 child B
          1 ask B [] {"topic":"q","points":["p"]}"#]]
    .assert_eq(&desk.trace.join("\n"));
    let (value, desk) = both_ways(make, "ints", &[Value::Int(3), Value::Float(0.5)]);
    expect![[r#"[{"ok":3.5},{"ok":4.0},{"ok":5.0}]"#]].assert_eq(&value);
    expect![[r#"
        1 child add
        1 child ints.add#1
        1 child add"#]]
    .assert_eq(&desk.trace.join("\n"));
}

#[test]
fn what_may_fail_in_an_argument_fails_its_branch_alone() {
    let program = r##"
        agent A { prompt: "x" }
        flow same(n: int) -> int { return n }
        flow main(name: str?, value: any) -> any {
            return fork [A.run(name?), A.run("b"), same(value), same(value.n), same(1 / 0)]
        }
    "##;
    let make = || Desk::program(program).script("A", &["a"]);
    let (value, _) = both_ways(make, "main", &[Value::None, str("text")]);
    let codes: Vec<&str> = value.split("\"code\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(codes, ["none_value", "type_mismatch", "type_mismatch", "div_zero"], "{value}");
    assert!(value.contains(r#"{"ok":"a"}"#), "{value}");
}

#[test]
fn a_fork_has_at_most_256_branches() {
    let program = |branches: usize| {
        let calls = vec!["same(n)"; branches].join(", ");
        format!(
            "flow same(n: int) -> int {{ return n }}\nflow main(n: int) -> any {{ return fork [{calls}] merge all }}"
        )
    };
    let (value, desk) = both_ways(|| Desk::program(&program(256)), "main", &[Value::Int(7)]);
    assert_eq!((value.matches('7').count(), desk.children.len()), (256, 256));
    let refused = nexa_lang::compile_text("main.nx", &program(257));
    let codes: Vec<&str> = refused.diagnostics.iter().map(|finding| finding.code.name()).collect();
    assert_eq!(codes.first(), Some(&"E0505"), "{codes:?}");
}

#[test]
fn a_merged_fork_stands_where_a_value_stands() {
    let program = r##"
        agent A { prompt: "x" }
        agent B { prompt: "x" }
        agent M(parts: list[str]) { prompt: "x" }
        flow chained() -> str { let p = A |>> [A, B] merge concat(sep: " "); return "q" >> p }
        flow on(q: str) -> str { return q |>> [a: A, b: B] merge all &>> M }
        flow nested(q: str) -> list[str] {
            return fork [
                q |>> [A, B] merge vote,
                q |>> [B, A] merge best_of(by: fn(v) => if (v == "b") 2.0 else 1.0)
            ] merge all
        }
        flow rescued(q: str) -> str {
            return fork [fail("no"), fail("none", code: "denied")] merge vote otherwise fn(e) => e.code
        }
    "##;
    let make = || Desk::program(program).script("A", &["a"]).script("B", &["b"]).script("M", &["m"]);
    expect![[r#""a b""#]].assert_eq(&both_ways(make, "chained", &[]).0);
    let (value, desk) = both_ways(make, "on", &[str("q")]);
    expect![[r#""m""#]].assert_eq(&value);
    assert_eq!(desk.inputs.last(), Some(&("M".to_owned(), r#"["a","b"]"#.to_owned())));
    expect![[r#"["a","b"]"#]].assert_eq(&both_ways(make, "nested", &[str("q")]).0);
    expect![[r#""merge_failed""#]].assert_eq(&both_ways(make, "rescued", &[str("q")]).0);
}

#[test]
fn a_repair_turn_says_where_its_texts_are_from() {
    let program = r#"
        protocol Score { value: int, why: str }
        agent Rater -> Score { prompt: "Rate it.", repair: 1 }
        flow main(t: str) -> int { return Rater.run(t).value }
    "#;
    let make = || Desk::program(program).script("Rater", &["seven", r#"{ "value": 7, "why": "clear" }"#]);
    let (value, desk) = both_ways(make, "main", &[str("a")]);
    assert_eq!(value, "7");
    let repair = &desk.requests[1].messages;
    assert_eq!(repair.len(), 4);
    assert_eq!((repair[2].text.as_str(), repair[2].source), ("seven", Source::Answer(Seq(1))));
    assert_eq!(repair[3].source, Source::Derived);
    assert!(repair[0].text.contains(r#""required":["value","why"]"#), "{}", repair[0].text);
}

#[test]
fn a_clone_is_made_of_the_agent_that_it_is_a_clone_of() {
    let made = nexa_lang::compile_text(
        "main.nx",
        "agent A { prompt: \"x\" }\nflow main() -> str { return A.clone(temperature: 0.0, name: \"B\").run(\"q\") }",
    );
    let dump = made.module.expect("it compiles").dump();
    let code: Vec<&str> =
        dump.lines().skip_while(|line| !line.starts_with("fn 0 main")).skip(1).take(5).map(str::trim).collect();
    expect![[r#"
        0 AgentCreate A
        1 AgentClone B
        2 Const "q"
        3 AgentRun 1
        4 Return"#]]
    .assert_eq(&code.join("\n"));
}
