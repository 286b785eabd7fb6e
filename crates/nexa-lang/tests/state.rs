//! What a program keeps: saved states that it goes back to, the agent's memory, and secrets.

mod running;

use expect_test::{Expect, expect};
use nexa_lang::compile_text;
use nexa_lang::diagnostic::Colour;
use nexa_vm::value::Value;
use running::{Desk, both_ways, str, with_common};

/// What a flow `main` gives, run whole and instruction by instruction.
fn gives(program: &str, expected: &str) {
    assert_eq!(both_ways(|| Desk::program(program), "main", &[]).0, expected, "{program}");
}

fn codes(program: &str) -> Vec<&'static str> {
    with_common(program)
        .diagnostics
        .iter()
        .filter(|finding| !finding.message.starts_with("nothing of this file"))
        .map(|finding| finding.code.name())
        .collect()
}

fn says(program: &str, expected: Expect) {
    expected.assert_eq(&compile_text("main.nx", program).render(Colour::Off));
}

#[test]
fn c10_restore_rewinds_locals_and_not_effects() {
    let program = r##"
        flow main() -> str {
            let s = snapshot()
            let g = A.run("guess")
            if (g != "7" and s.tries < 3) { restore(s) }
            return "#{g} after #{s.tries}"
        }"##;
    let (value, desk) = both_ways(|| Desk::common(program).script("A", &["3", "5", "7"]), "main", &[]);
    assert_eq!(value, "\"7 after 2\"");
    expect![[r#"
        1 child A
          1 ask A [] guess
        2 child A
          1 ask A [] guess
        3 child A
          1 ask A [] guess"#]]
    .assert_eq(&desk.trace.join("\n"));
}

#[test]
fn locals_and_memory_are_put_back_and_what_was_emitted_is_not() {
    let program = r##"
        flow main() -> any {
            let seen: list[int] = []
            memory.store("n", 0)
            let s = snapshot()
            seen += [s.tries]
            memory.store("n", s.tries + 10)
            memory.store("extra #{s.tries}", true)
            emit(s.tries)
            if (s.tries < 2) { restore(s) }
            return [seen, memory.load("n"), memory.load("extra 0"), memory.load("extra 2")]
        }"##;
    let (value, desk) = both_ways(|| Desk::program(program), "main", &[]);
    assert_eq!(value, "[[2],12,null,true]");
    assert_eq!(desk.emitted, ["main: 0", "main: 1", "main: 2"]);
}

#[test]
fn a_snapshot_can_be_restored_from_deeper_calls_loops_handlers_and_defers() {
    // In each, `again` is the way back, and what is counted shows how often the body ran.
    gives(
        r#"
        flow deeper(s: snapshot, depth: int) -> int {
            if (depth == 0 and s.tries < 2) { restore(s) }
            if (depth == 0) { return s.tries }
            return deeper(s, depth - 1)
        }
        flow main() -> int { let s = snapshot(); return 100 + deeper(s, 20) }"#,
        "102",
    );
    gives(
        r#"
        flow main() -> any {
            let out: list[int] = []
            for each x in [1, 2, 3] {
                let s = snapshot()
                out += [x * 10 + s.tries]
                for each y in [7, 8] { if (s.tries < x and y == 8) { restore(s) } }
            }
            return out
        }"#,
        "[11,22,33]",
    );
    gives(
        r#"
        flow main() -> any {
            let log: list[str] = []
            let s = snapshot()
            try {
                defer { log += ["cleaned"] }
                log += ["body"]
                if (s.tries < 2) { restore(s) }
                fail("out")
            } catch (e) {
                log += [e.message]
                if (s.tries < 3) { restore(s) }
            }
            return [log, s.tries]
        }"#,
        // What was registered after the snapshot is gone with it: the block is not left, it was never entered.
        r#"[["body","cleaned","out"],3]"#,
    );
    gives(
        r#"
        flow main() -> any {
            try {
                let s = snapshot()
                if (s.tries < 4) { restore(s) }
                fail("after #{s.tries}")
            } catch (e) { return e.message }
        }"#,
        "\"after 4\"",
    );
    gives(
        r#"
        flow main() -> any {
            let s = snapshot()
            let xs = [1, 2].map(fn(x) => again(s, x))
            return [xs, s.tries]
        }
        flow again(s: snapshot, x: int) -> int {
            if (x == 2 and s.tries < 3) { restore(s) }
            return x
        }"#,
        "[[1,2],3]",
    );
}

#[test]
fn the_seventeenth_restore_is_an_error_of_its_own() {
    gives(
        r#"
        flow main() -> any {
            let s = snapshot()
            let code = try { restore(s) } catch (e) { e.code }
            return [code, s.tries]
        }"#
        .replace(
            "let code = try { restore(s) } catch (e) { e.code }",
            "let code = \"none\"\n try { restore(s) } catch (e) { code = e.code }",
        )
        .as_str(),
        r#"["restore_limit",16]"#,
    );
}

#[test]
fn nested_snapshots_count_apart_and_starting_over_forgets_the_inner_one() {
    gives(
        r#"
        flow main() -> any {
            let outer = snapshot()
            let inner = snapshot()
            if (inner.tries < 3) { restore(inner) }
            if (outer.tries < 2) { restore(outer) }
            return [outer.tries, inner.tries]
        }"#,
        "[2,3]",
    );
}

#[test]
fn a_snapshot_of_a_call_that_ended_is_a_dead_handle() {
    let program = r#"
        flow make() -> snapshot { return snapshot() }
        flow fails() -> snapshot { let s = snapshot(); fail("gone with #{s.tries}") }
        flow main() -> any {
            let s = make()
            let codes: list[str] = []
            try { restore(s) } catch (e) { codes += [e.code] }
            try { print(s.tries) } catch (e) { codes += [e.code] }
            return codes
        }
        flow replaced() -> any {
            // Another call of the same flow is another call.
            let first = make()
            let second = make()
            try { restore(first) } catch (e) { return e.code }
        }
        flow from_a_branch() -> any {
            let s = snapshot()
            let r = fork [s.tries, 2]
            return r
        }"#;
    let run = |entry: &str| both_ways(|| Desk::program(program), entry, &[]).0;
    assert_eq!(run("main"), r#"["dead_handle","dead_handle"]"#);
    assert_eq!(run("replaced"), "\"dead_handle\"");
    assert!(
        run("from_a_branch").starts_with("dead_handle: a snapshot belongs to the agent"),
        "{}",
        run("from_a_branch")
    );
}

#[test]
fn a_loop_may_save_for_ever_and_only_so_many_states_can_be_held() {
    gives(
        r#"
        flow main() -> any {
            let n = 0
            for each x in range(0, 1000) { let s = snapshot(); n += 1; if (s.tries < 1) { restore(s) } }
            return n
        }"#,
        "1000",
    );
    gives(
        r#"
        flow main() -> any {
            let held: list[snapshot] = []
            try {
                for each x in range(0, 1000) { held += [snapshot()] }
            } catch (e) { return [held.len(), e.code] }
        }"#,
        r#"[64,"restore_limit"]"#,
    );
}

#[test]
fn saved_states_share_values_and_are_charged_to_the_heap() {
    // Sixty states that hold one text of a mebibyte take one mebibyte; sixty texts of their own do not fit.
    gives(
        r#"
        flow main() -> any {
            let big = "x"
            for each i in range(0, 20) { big = big + big }
            let held: list[snapshot] = []
            for each i in range(0, 60) { held += [snapshot()] }
            return [big.len(), held.len()]
        }"#,
        "[1048576,60]",
    );
    let program = r#"
        flow main() -> any {
            let big = "x"
            for each i in range(0, 20) { big = big + big }
            let held: list[snapshot] = []
            for each i in range(0, 60) { big = big.slice(1, 2000000) + "y"; held += [snapshot()] }
            return held.len()
        }"#;
    let outcome = Desk::program(program).run("main", &[]);
    assert!(outcome.starts_with("out_of_memory"), "{outcome}");
}

#[test]
fn the_memory_of_an_agent_keeps_values_finds_texts_and_is_its_own() {
    let program = r##"
        flow child() -> any { return memory.load("who") }
        flow main() -> any {
            memory.store("who", "Ada")
            memory.store("list", { a: [true] })
            memory.store("gone", 1)
            memory.store("gone", none)
            let seen = fork [child(), child()]
            return [memory.load("who"), memory.load("list"), memory.load("gone"), memory.load("never"), seen[0]?, child()]
        }
        flow recall(query: str, k: int) -> any {
            for each i, text in ["green tea", "black tea", "mint tea from a garden", "coffee", "tea tea tea"] {
                memory.store("k#{i}", text)
            }
            memory.store("a", { drink: "tea", n: 1 })
            return memory.recall(query, k: k).map(fn(hit) => "#{hit.key}=#{hit.text}")
        }
        flow ties() -> list[str] {
            for each key in ["z", "m", "a"] { memory.store(key, "same words") }
            let hits = memory.recall("words")
            assert_same(hits[0].score, hits[2].score)
            return hits.map(fn(hit) => hit.key)
        }
        fn assert_same(a: float, b: float) -> bool => a == b
        "##;
    let run = |entry: &str, args: &[Value]| both_ways(|| Desk::program(program), entry, args).0;
    assert_eq!(run("main", &[]), r#"["Ada",{"a":[true]},null,null,null,"Ada"]"#);
    assert_eq!(run("recall", &[str("TEA"), Value::Int(3)]), r#"["k4=tea tea tea","k0=green tea","k1=black tea"]"#);
    assert_eq!(run("recall", &[str("garden?"), Value::Int(9)]), r#"["k2=mint tea from a garden"]"#);
    assert_eq!(run("recall", &[str("drink n"), Value::Int(9)]), r#"["a={\"drink\":\"tea\",\"n\":1}"]"#);
    assert_eq!(run("recall", &[str("tea"), Value::Int(-1)]), "[]");
    assert_eq!(run("recall", &[str("wine"), Value::Int(5)]), "[]");
    assert_eq!(run("ties", &[]), r#"["a","m","z"]"#);
}

#[test]
fn the_memory_of_an_agent_has_an_end() {
    gives(
        r##"
        flow main() -> any {
            try {
                for each i in range(0, 2000) { memory.store("k#{i}", i) }
            } catch (e) {
                memory.store("k7", "still replaced")
                return [e.code, e.message, memory.load("k1023"), memory.load("k1024"), memory.load("k7")]
            }
        }"##,
        r#"["failed","the agent's memory holds 1024 keys already; store `none` to forget one",1023,null,"still replaced"]"#,
    );
    gives(
        r#"
        flow main() -> any {
            let key = "k"
            for each i in range(0, 9) { key = key + key }
            try { memory.store(key, 1) } catch (e) { return e.message }
        }"#,
        r#""a key of 512 bytes; a memory takes up to 256""#,
    );
}

#[test]
fn a_secret_is_a_handle_that_can_be_passed_on_and_compared() {
    gives(
        r#"
        flow pick(first: bool) -> secret { return if (first) secret("ONE") else secret("TWO") }
        flow main() -> any {
            let keys: dict[str, secret] = { "a": pick(true), "b": pick(false) }
            let branches = fork [pick(true), pick(false)]
            return [keys["a"] == secret("ONE"), keys["a"] == keys["b"], branches[1]? == keys["b"]]
        }"#,
        "[true,false,true]",
    );
}

#[test]
fn a_secret_hidden_behind_any_ends_the_run_where_it_would_leave() {
    let leaks = |statement: &str| {
        let program = format!(
            r##"
            agent A {{ prompt: "Hello." }}
            flow main() -> any {{
                let hidden: any = {{ key: secret("API") }}
                try {{ {statement} }} catch (e) {{ return "caught" }}
                return "went on"
            }}"##
        );
        both_ways(|| Desk::program(&program).script("A", &["x"]), "main", &[]).0
    };
    for statement in [
        "emit(hidden)",
        "print(hidden)",
        "print(\"#{hidden}\")",
        "print(json.text(hidden))",
        "print(str(hidden))",
        "print([hidden].join(\",\"))",
        "memory.store(\"k\", hidden)",
        "approve(\"may I?\", data: hidden, timeout: 1s)",
        "A.run(hidden)",
    ] {
        let outcome = leaks(statement);
        assert!(outcome.starts_with("secret_leak: "), "{statement}: {outcome}");
    }
}

#[test]
fn c12_a_secret_in_a_prompt_is_one_error_at_the_secret() {
    says(
        "agent Leaky { prompt: \"Key #{secret(\"API\")}\" }\nflow main() -> str { return Leaky.run(\"x\") }",
        expect![[r#"
            error[E0802]: a secret flows into a prompt
             --> main.nx:1:30
              |
            1 | agent Leaky { prompt: "Key #{secret("API")}" }
              |                              ^^^^^^^^^^^^^
              |
              = help: hand it to a tool that the agent may call; a model must not see it"#]],
    );
}

#[test]
fn where_a_secret_must_not_go_is_known_before_the_program_runs() {
    let with = |statement: &str| {
        codes(&format!("agent P(input: any) {{ prompt: \"p\" }}\nflow f() -> any {{ {statement}\n return none }}"))
    };
    for (statement, code) in [
        ("emit(secret(\"K\"))", "E0803"),
        ("emit([secret(\"K\")], channel: \"c\")", "E0803"),
        ("print({ key: secret(\"K\") })", "E0803"),
        ("memory.store(\"k\", secret(\"K\"))", "E0803"),
        ("approve(\"?\", data: secret(\"K\"), timeout: 1s)", "E0803"),
        ("let t = \"#{secret(\"K\")}\"; print(t)", "E0301"),
        ("print(\"#{secret(\"K\")}\")", "E0803"),
        ("emit([\"#{secret(\"K\")}\"])", "E0803"),
        ("memory.store(\"#{secret(\"K\")}\", 1)", "E0803"),
        ("if (1 > 2) { fail(\"the key is #{secret(\"K\")}\") }", "E0803"),
        ("print(P.run(\"#{secret(\"K\")}\"))", "E0301"),
        ("let t = json.text(secret(\"K\")); f2(t)", "E0301"),
        ("print(str(secret(\"K\")))", "E0803"),
        ("P.run(secret(\"K\"))", "E0802"),
        ("secret(\"K\") >> P", "E0802"),
        ("let k: str = secret(\"K\"); print(k)", "E0301"),
        ("let k = \"K\"; let s = secret(k); f2(s)", "E0404"),
        ("let s = secret(\"\"); f2(s)", "E0403"),
        ("let a: any = 1; let s: secret = a; f2(s)", "E0301"),
        ("memory.store(\"k\", 1, scope: \"team\")", "E0412"),
        ("memory.load(\"k\", scope: \"#{1}\")", "E0412"),
        ("let s = snapshot(); print(\"#{s}\")", "E0301"),
        ("let s = snapshot(); print(s.count)", "E0305"),
        ("memory.remember(1)", "E0305"),
        ("restore(none)", "E0301"),
    ] {
        let statement_codes = with(&format!("{statement}\n"));
        assert_eq!(
            statement_codes.iter().filter(|found| **found != "E0208").collect::<Vec<_>>(),
            [&code],
            "{statement}"
        );
    }
    assert_eq!(codes("agent A2(key: secret) { prompt: \"p\" }"), ["E0802"]);
    assert_eq!(codes("agent A2 -> secret { prompt: \"p\" }"), ["E0416"]);
    assert_eq!(codes("fn f() -> secret => secret(\"K\")"), ["E0320"]);
    assert_eq!(codes("fn f() -> int { memory.store(\"k\", 1); return 1 }"), ["E0320"]);
    assert_eq!(codes("fn f() -> int { let s = snapshot(); return s.tries }"), ["E0320"]);
}

#[test]
fn c45_a_stream_has_the_text_of_a_run_in_the_same_chunks_each_time() {
    let program = r##"
        flow streamed(x: str) -> any {
            let whole = A.run(x)
            let parts: list[str] = []
            for each i, part in A.stream(x) { parts += ["#{i}:#{part}"] }
            let again = (x >> A.stream).collect()
            emit(A.stream(x), channel: "words")
            return [parts, [again.join("") == whole]]
        }"##;
    let make = || Desk::common(program).script("A", &["Once upon\n a  time, été. "]);
    let (value, desk) = both_ways(make, "streamed", &[str("q")]);
    assert_eq!(value, r#"[["0:Once ","1:upon\n ","2:a  ","3:time, ","4:été. "],[true]]"#);
    assert_eq!(desk.emitted, [r#"words: "Once upon\n a  time, été. ""#]);
    let streamed: Vec<bool> = desk.requests.iter().map(|request| request.stream).collect();
    assert_eq!(streamed, [false, true, true, true], "A itself stays as it is");
    assert_eq!(
        codes("flow f(t: str) -> any { return J.stream([t]) }"),
        ["E0301"],
        "what is no text cannot be streamed"
    );
    assert_eq!(codes("flow f(t: str) -> any { return \"#{A.stream(t).len()}\" }"), ["E0305"]);
}

#[test]
fn c45_a_clone_is_another_agent_and_the_first_one_stays_as_it_is() {
    let program = r##"
        agent Cold { prompt: "Cold.", temperature: 0.1, model: "a/one" }
        flow main() -> any {
            let b = Cold.clone(name: "Twin", temperature: 0.0)
            let results = [
                Cold.run("1"), b.run("2"), "3" >> b, "4" >> Cold.clone(model: ["x/two", "x/three"], max_tokens: 7),
                Cold.clone(name: "Twin").clone(temperature: 2.0).run("5"), Cold.clone(prompt: "Other.")("6"), Cold.run("7"),
            ]
            return results
        }"##;
    let (value, desk) = both_ways(|| Desk::common(program).script("Cold", &["c"]).script("Twin", &["t"]), "main", &[]);
    assert_eq!(value, r#"["c","t","t","c","t","c","c"]"#);
    let asked: Vec<String> = desk
        .requests
        .iter()
        .map(|request| {
            let sampling = &request.sampling;
            let system = &request.messages[0].text;
            format!("{} {} {} {} {system}", request.agent, request.model, sampling.temperature, sampling.max_tokens)
        })
        .collect();
    assert_eq!(
        asked,
        [
            "Cold a/one 0.1 1024 Cold.",
            "Twin a/one 0 1024 Cold.",
            "Twin a/one 0 1024 Cold.",
            "Cold x/two 0.1 7 Cold.",
            "Twin a/one 2 1024 Cold.",
            "Cold a/one 0.1 1024 Other.",
            "Cold a/one 0.1 1024 Cold.",
        ]
    );
    for (arguments, code) in [
        ("temperature: 3.0", "E0403"),
        ("t: 1", "E0401"),
        ("temperature: 1.0, temperature: 0.5", "E0402"),
        ("0.5", "E0304"),
        ("temperature: 1.0 + 0.5", "E0404"),
        ("name: \"\"", "E0403"),
        ("model: \"small\"", "E0405"),
    ] {
        let found = codes(&format!("flow f(n: float) -> str {{ return A.clone({arguments}).run(\"x\") }}"));
        let found: Vec<_> = found.into_iter().filter(|found| *found != "E0208").collect();
        assert_eq!(found, [code], "{arguments}");
    }
}

#[test]
fn a_fallback_answers_when_all_models_have_failed() {
    let program = r##"
        agent Grand(q: str, n: int) -> int { prompt: "Grand.", model: ["a/one", "a/two"], retry: { max: 0 }, fallback: Plain }
        agent Plain(q: str, n: int) -> int { prompt: "Plain.", repair: 0, retry: { max: 0 } }
        flow ask(n: int) -> int { return Grand.run("q", n) }
        flow code(n: int) -> str? { return (try Grand.run("q", n)).code() }
    "##;
    let run = |grand: &[&str], plain: &[&str], entry: &str| {
        let make = || Desk::program(program).script("Grand", grand).script("Plain", plain);
        let (value, desk) = both_ways(make, entry, &[Value::Int(1)]);
        (value, desk.calls.join(" "))
    };
    let all = |calls: &str| calls.to_owned();
    assert_eq!(run(&["5"], &["6"], "ask"), ("5".into(), all("Grand")));
    assert_eq!(run(&["fail:unavailable"], &["6"], "ask"), ("6".into(), all("Grand Grand Plain")));
    assert_eq!(run(&["fail:refused", "7"], &["6"], "ask"), ("7".into(), all("Grand Grand")));
    assert_eq!(
        run(&["fail:refused"], &["no number"], "code"),
        (r#""output_invalid""#.into(), all("Grand Grand Plain"))
    );
    // What no other model would mend is no reason for another agent either.
    assert_eq!(run(&["fail:budget_exceeded"], &["6"], "code"), (r#""budget_exceeded""#.into(), all("Grand")));
    let with = |second: &str| codes(&format!("agent X(q: str) {{ prompt: \"x\", fallback: Y }}\n{second}"));
    assert_eq!(with("agent Y(other: str) { prompt: \"y\" }"), [""; 0]);
    assert_eq!(with("agent Y(q: int) { prompt: \"y\" }"), ["E0410"]);
    assert_eq!(with("agent Y(q: str) -> int { prompt: \"y\" }"), ["E0410"]);
    assert_eq!(with("agent Y(q: str) { prompt: \"y\", fallback: X }"), ["E0410"]);
    assert_eq!(with("flow Y(q: str) -> str { return q }"), ["E0410"]);
    assert_eq!(with("agent Y(q: str) { prompt: \"y\", fallback: Y }"), ["E0410"]);
}

#[test]
fn c43_siblings_share_the_memory_of_their_workload_and_not_their_own() {
    let program = r##"
        flow writes() -> str {
            memory.store("own", 1)
            memory.store("shared", { by: "writes" }, scope: "workload")
            return "done"
        }
        flow reads() -> any { return [memory.load("own"), memory.load("shared", scope: "workload")] }
        flow main() -> any { let first = writes >> reads_after; return fork [writes(), reads()] }
        flow reads_after(x: str) -> any { return reads() }
        flow ties() -> any {
            for each key in ["b", "c", "a"] { memory.store(key, "tea", scope: "workload") }
            memory.store("d", "tea", scope: "workload")
            memory.store("d", none, scope: "workload")
            return memory.recall("tea", k: 2, scope: "workload").map(fn(hit) => hit.key)
        }
        flow tenants() -> any uses memory.tenant {
            memory.store("who", "Ada", scope: "tenant")
            memory.store("who", "Bob", scope: "workload")
            return [memory.load("who", scope: "tenant"), memory.load("who", scope: "workload"), memory.load("who")]
        }
        flow too_large() -> any {
            let big = "x"
            for each i in range(0, 17) { big = big + big }
            try { memory.store("k", big, scope: "workload") } catch (e) { return e.message }
        }
        flow leaks() -> any {
            let hidden: any = { key: secret("API") }
            memory.store("k", hidden, scope: "workload")
            return none
        }"##
    .replace("let first = writes >> reads_after; ", "");
    let run = |entry: &str| both_ways(|| Desk::program(&program), entry, &[]).0;
    assert_eq!(run("main"), r#"[{"ok":"done"},{"ok":[null,{"by":"writes"}]}]"#);
    assert_eq!(run("ties"), r#"["a","b"]"#);
    assert_eq!(run("tenants"), r#"["Ada","Bob",null]"#);
    assert_eq!(run("too_large"), "\"a value of 131077 bytes; this memory takes up to 65536\"");
    assert!(run("leaks").starts_with("secret_leak: "));
    assert_eq!(codes("flow f() -> any { return memory.load(\"k\", scope: \"tenant\") }"), ["E0807"]);
    assert_eq!(codes("flow f() { memory.store(\"k\", 1, scope: \"tenant\") }"), ["E0807"]);
    assert_eq!(
        codes("flow g() uses memory.tenant { f() }\nflow f() { memory.store(\"k\", 1, scope: \"tenant\") }"),
        ["E0807"],
        "a flow has grants of its own"
    );
}
