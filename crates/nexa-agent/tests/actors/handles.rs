//! `spawn`, `await`, `pass`, `receive`, `timer`, `cancel`.

use crate::town::{Town, Turn, always, errors, shown};

/// The result of a program of flows, however it is run.
fn gives(text: &str) -> String {
    always(|| Town::of(text)).0
}

#[test]
fn messages_arrive_in_send_order() {
    let text = "
        flow minus() -> int { let a: int = receive(); let b: int = receive(timeout: 5s); return a - b }
        flow main() -> int { let h = spawn minus(); pass 44 to h; pass 2 to h; return await h }";
    let (result, town) = always(|| Town::of(text));
    assert_eq!(result, "42");
    assert_eq!(town.now.0, 0);
    expect_test::expect![[r#"
        0 spawned minus
        0 started on n1 epoch 1
        0 wait_began #1 for a message
        0 message_received 1 from its parent
        0 wait_began #2 for a message, due 5000
        0 message_received 2 from its parent
        0 ended ok
    "#]]
    .assert_eq(&town.story("minus"));
    assert_eq!(town.ends()["main"], "42");
}

#[test]
fn handles_are_awaited_in_any_order_and_twice() {
    let text = "
        flow late(n: int) -> int { sleep(n * 10ms); return n }
        flow main() -> list[int] {
            let a = spawn late(3); let b = spawn late(1); let c = spawn late(2)
            return [await c, await a, await c, await b, await a]
        }";
    // Multiplying puts the duration first in the language.
    let text = text.replace("n * 10ms", "10ms * n");
    let (result, town) = always(|| Town::of(&text));
    assert_eq!((result.as_str(), town.now.0), ("[2,3,2,1,3]", 30));
}

#[test]
fn an_error_of_a_child_is_raised_where_it_is_awaited_each_time() {
    let text = "
        flow bad() -> int { fail(\"no\", code: \"refused\") }
        flow main() -> str {
            let h = spawn bad()
            let first = try await h
            let second = (try await h).code()
            return \"#{first.code()} #{second}\"
        }";
    assert_eq!(gives(text), "\"refused refused\"");
}

#[test]
fn a_spawned_agent_is_a_child_like_any_other() {
    let text = "
        agent A { prompt: \"P\" }
        flow main() -> str { let h = spawn A.run(\"q\"); let i = spawn A(\"r\"); return \"#{await h} #{await i}\" }";
    let make = || Town::of(text).script("A", &[Turn::Says("hello", 20)]);
    let (result, town) = always(make);
    assert_eq!((result.as_str(), town.now.0, town.asks.len()), ("\"hello hello\"", 20, 2));
}

#[test]
fn a_timer_is_awaited_like_a_child_and_runs_from_where_it_was_made() {
    let text = "
        flow main() -> int {
            let t = timer(100ms)
            sleep(70ms)
            await t
            let between = time.now()
            await t
            await timer(0ms)
            return time.now() * 1000 + between
        }";
    let (result, town) = always(|| Town::of(text));
    assert_eq!((result.as_str(), town.now.0), ("100100", 100));
}

#[test]
fn a_message_that_does_not_come_is_a_timeout_and_one_of_another_type_a_mismatch() {
    let text = "
        flow child() -> str {
            let first = try receive(timeout: 50ms)
            let second = try number()
            let third: str = receive()
            return \"#{first.code()} #{second.code()} #{third}\"
        }
        flow number() -> int { let n: int = receive(); return n }
        flow main() -> str { let h = spawn child(); sleep(60ms); pass \"x\" to h; pass \"y\" to h; return await h }";
    assert_eq!(gives(text), "\"timeout type_mismatch y\"");
}

#[test]
fn what_a_call_spawned_ends_with_the_call() {
    let text = "
        flow forever() -> int { sleep(100d); return 1 }
        flow starts() -> handle[int] { let h = spawn forever(); return h }
        flow main() -> str { let h = starts(); return (try await h).code() ?? \"\" }";
    let (result, town) = always(|| Town::of(text));
    assert_eq!((result.as_str(), town.now.0), ("\"dead_handle\"", 0));
    assert_eq!(town.ends()["forever"], "cancelled: the call that started it has ended");
    // A call that ends with an error ends them too.
    let text = "
        flow forever() -> int { sleep(100d); return 1 }
        flow starts() -> int { spawn forever(); fail(\"no\") }
        flow main() -> str { let code = (try starts()).code(); sleep(1s); return code ?? \"\" }";
    let (result, town) = always(|| Town::of(text));
    assert_eq!((result.as_str(), town.now.0), ("\"failed\"", 1_000));
}

#[test]
fn a_cancelled_child_leaves_a_dead_handle() {
    let text = "
        flow forever() -> int { sleep(100d); return 1 }
        flow main() -> str {
            let h = spawn forever()
            sleep(5ms)
            h.cancel()
            h.cancel()
            let t = timer(1s)
            t.cancel()
            let waited = try await h
            let passed = try send(h)
            return \"#{waited.code()} #{passed.code()} #{(try await t).code()}\"
        }
        flow send(h: handle[int]) -> unit { pass 1 to h }";
    let (result, town) = always(|| Town::of(text));
    assert_eq!((result.as_str(), town.now.0), ("\"dead_handle dead_handle dead_handle\"", 5));
    assert_eq!(town.ends()["forever"], "cancelled: its parent cancelled it");
}

#[test]
fn a_full_mailbox_suspends_the_sender_and_every_message_arrives() {
    let text = "
        flow sum() -> int {
            sleep(10ms)
            let total = 0
            let n: int = receive()
            while (n > 0) { total += n; n = receive() }
            return total
        }
        flow main() -> int {
            let h = spawn sum()
            for each i in range(1, 2500) { pass i to h }
            pass 0 to h
            return await h
        }";
    let mut town = Town::of(text);
    assert_eq!(shown(&town.run()), format!("{}", 2499 * 2500 / 2));
    assert_eq!(town.outstanding_max, 1_024, "and not one more");
    let story = town.story("main");
    assert!(story.contains("wait_began #1026 for room at the child of #1"), "{story}");
    assert!(story.contains("credit_received #1.0 1024 taken"), "{story}");
}

#[test]
fn a_sender_that_waits_for_room_hears_that_the_child_has_ended() {
    let text = "
        flow lazy() -> int { sleep(10ms); return 1 }
        flow pours(h: handle[int]) -> unit { for each i in range(0, 2000) { pass i to h } }
        flow main() -> str { let h = spawn lazy(); return (try pours(h)).code() ?? \"\" }";
    let mut town = Town::of(text);
    assert_eq!(shown(&town.run()), "\"dead_handle\"");
}

#[test]
fn a_handle_is_of_no_use_to_another_agent() {
    let text = "
        flow child() -> int { let n: int = receive(); return n }
        flow waits(h: handle[int]) -> str { return (try await h).code() ?? \"\" }
        flow main() -> str { let h = spawn child(); let i = spawn waits(h); pass 1 to h; return await i }";
    assert_eq!(gives(text), "\"dead_handle\"");
}

#[test]
fn one_agent_holds_so_many_handles() {
    let text = "
        flow main() -> str {
            for each i in range(0, 1024) { timer(1s) }
            return (try more()).code() ?? \"\"
        }
        flow more() -> int { timer(1s); return 1 }";
    let mut town = Town::of(text);
    assert_eq!(shown(&town.run()), "\"failed\"");
}

#[test]
fn misuse_is_told_when_the_program_is_checked() {
    let codes = |body: &str| {
        errors(&format!(
            "agent A {{ prompt: \"P\" }}\nfn f() -> int => 1\nflow g() -> int {{ return 1 }}\nflow main() -> int {{ {body}\nreturn 1 }}"
        ))
    };
    assert_eq!(codes("spawn f()"), ["E0503"]);
    assert_eq!(codes("await 3"), ["E0301"]);
    assert_eq!(codes("pass 1 to 3"), ["E0301"]);
    assert_eq!(codes("let h = spawn g(); let s: str = await h"), ["E0301"]);
    assert_eq!(codes("let h: handle[str] = spawn g()"), ["E0301"]);
    assert_eq!(codes("let h: handle[int] = json.parse(\"1\")"), ["E0301"]);
    assert_eq!(codes("let h = spawn g(); h.stop()"), ["E0305"]);
    assert_eq!(errors("fn f() -> int { let h = spawn g(); return 1 }\nflow g() -> int { return 1 }"), ["E0320"]);
    assert_eq!(errors("agent A(h: handle[int]) { prompt: \"P\" }"), ["E0416"]);
}

#[test]
fn a_message_to_an_agent_is_a_turn_of_its_conversation_from_its_next_request_on() {
    let text = "
        agent A -> int { prompt: \"A number.\", repair: 2 }
        flow main() -> int {
            let h = spawn A(\"q\")
            sleep(5ms)
            pass \"hurry\" to h
            pass { by: 7 } to h
            sleep(10ms)
            pass \"now\" to h
            return await h
        }";
    let make = || Town::of(text).script("A", &[Turn::Says("soon", 10), Turn::Says("well", 10), Turn::Says("7", 10)]);
    let (result, town) = always(make);
    assert_eq!(result, "7");
    let later = |talk: &[String]| -> Vec<String> {
        let known = ["System", "Assistant"];
        talk.iter().filter(|said| !known.iter().any(|role| said.starts_with(role))).cloned().collect()
    };
    let shown: Vec<String> = town.talks.iter().map(|talk| later(talk).join(" | ")).collect();
    expect_test::expect![[r#"
        User: q
        User: q | User: The answer does not fit the JSON Schema:
        - the answer is not valid JSON at character 1: a value expected; answer with the JSON value alone
        Answer again, with the whole corrected JSON and no other words. | User: hurry | User: {"by":7}
        User: q | User: The answer does not fit the JSON Schema:
        - the answer is not valid JSON at character 1: a value expected; answer with the JSON value alone
        Answer again, with the whole corrected JSON and no other words. | User: hurry | User: {"by":7} | User: The answer does not fit the JSON Schema:
        - the answer is not valid JSON at character 1: a value expected; answer with the JSON value alone
        Answer again, with the whole corrected JSON and no other words. | User: now"#]].assert_eq(&shown.join("\n"));
}

/// What a call let go of is no longer kept; a replay hears of the next child's end before it computes that.
#[test]
fn whether_a_result_has_room_is_decided_once() {
    let text = "
        fn big(n: int) -> str { let s = \"0123456789abcdef\"; let i = 0; while (i < n) { s += s; i += 1 }; return s }
        flow a() -> str schedule { memory: 64MiB } { return big(19) }
        flow b() -> str schedule { memory: 64MiB } { let s = big(19); let go: int = receive(); return s }
        flow inner(last: handle[str]) -> int {
            let hs = [spawn a(), spawn a(), spawn a(), spawn a(), spawn a(), spawn a(), spawn a()]
            for each h in hs { await h }
            pass 1 to last
            return LAST
        }
        flow main() -> int schedule { memory: 64MiB } {
            let last = spawn b()
            let x = inner(last)
            let n = 0
            while (n < 12000) { n += 1 }
            return x + (await last).len()
        }";
    // Seven have 56 MiB together, and with an eighth it is more than the 64 that are kept.
    let run = |last: &str, dice| shown(&Town::of(&text.replace("LAST", last)).shuffled(dice).run());
    assert_eq!(run("0", 15_838), "8388608");
    let held = run("(await last).len()", 0);
    assert!(held.starts_with("failed: the results of children"), "{held}");
}
