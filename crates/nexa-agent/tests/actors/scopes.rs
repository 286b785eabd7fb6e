//! Blocks that have so much time, and what is deferred when an agent is ended from outside.

use nexa_types::{Budget, Timestamp};

use crate::town::{Town, Turn, always, shown};

const DEFERS: &str = "
    agent A { prompt: \"P\", retry: { max: 0 } }
    flow main() -> str {
        defer emit(1)
        defer emit(2)
        defer { emit(3); sleep(1s); emit(\"three\") }
        BODY
        return \"done\"
    }";

fn defers(body: &str) -> String {
    DEFERS.replace("BODY", body)
}

#[test]
fn what_is_deferred_runs_last_first_with_an_error_and_with_a_cancel() {
    let failing = defers("if (1 == 1) { fail(\"no\") }");
    let (result, town) = always(|| Town::of(&failing));
    assert_eq!((result.as_str(), town.now.0), ("failed: no", 1_000));
    assert_eq!(town.emitted, ["3", "\"three\"", "2", "1"]);
    for body in ["sleep(1h)", "let m: int = receive()", "let x = A.run(\"q\")", "approve(\"?\", timeout: 1h)"] {
        let text = defers(body);
        let (result, town) = always(|| Town::of(&text).script("A", &[Turn::Says("late", 3_600_000)]).cancelled_at(10));
        assert_eq!((result.as_str(), town.now.0), ("cancelled: ann said so", 1_010), "{body}");
        assert_eq!(town.emitted, ["3", "\"three\"", "2", "1"], "{body}");
    }
}

#[test]
fn an_agent_that_computes_when_it_is_cancelled_stops_at_its_next_effect() {
    let text = defers("let n = 0; while (n < 100000) { n += 1 }; emit(n); sleep(1h)");
    // Slice by slice the cancel comes while it counts.
    let mut town = Town::of(&text).stepping().shuffled(3).cancelled_at(0);
    assert_eq!(shown(&town.run()), "cancelled: ann said so");
    let mut told = town.story("main");
    told.retain(|letter| letter != '"');
    assert!(town.emitted.is_empty() || town.emitted == ["3", "\"three\"", "2", "1"], "{told}");
}

#[test]
fn deferred_blocks_have_five_seconds_together() {
    let text = "
        flow main() -> int {
            defer emit(\"never\")
            defer { emit(\"begun\"); sleep(3s) }
            defer sleep(3s)
            sleep(1h)
            return 1
        }";
    let (result, town) = always(|| Town::of(text).cancelled_at(100));
    assert_eq!((result.as_str(), town.now.0), ("cancelled: ann said so", 5_100));
    assert_eq!(town.emitted, ["\"begun\""]);
}

#[test]
fn nothing_inside_catches_a_cancel_and_what_fails_in_a_deferred_block_stops_no_other() {
    let text = "
        flow main() -> int {
            try {
                defer emit(\"outer\")
                try {
                    defer { fail(\"in a deferred block\") }
                    defer { try { fail(\"caught\") } catch (e) { emit(e.message) } }
                    sleep(1h)
                } catch (e) { emit(\"wrong: #{e.code}\") }
            } catch (e) { emit(\"wrong too: #{e.code}\") }
            sleep(1h)
            return 1
        }";
    let (result, town) = always(|| Town::of(text).cancelled_at(7));
    assert_eq!((result.as_str(), town.now.0), ("cancelled: ann said so", 7));
    assert_eq!(town.emitted, ["\"caught\"", "\"outer\""]);
}

#[test]
fn children_are_cancelled_first_and_none_is_started_any_more() {
    let text = "
        flow child() -> int { defer emit(\"child\"); sleep(1h); return 1 }
        flow helper() -> int { return 1 }
        flow main() -> str {
            defer { let more = try spawned(); emit(more.code()) }
            let h = spawn child()
            sleep(1s)
            return \"#{await h}\"
        }
        flow spawned() -> int { let h = spawn helper(); return await h }";
    let (result, town) = always(|| Town::of(text).cancelled_at(500));
    assert_eq!((result.as_str(), town.now.0), ("cancelled: ann said so", 500));
    let mut emitted = town.emitted.clone();
    emitted.sort();
    assert_eq!(emitted, ["\"child\"", "\"unavailable\""]);
}

#[test]
fn an_end_by_budget_or_deadline_runs_what_is_deferred_too() {
    let text = defers("let x = A.run(\"q\")");
    let asked = "agent A { prompt: \"P\" } flow main() -> str { defer emit(1); let f = fork [A.run(\"a\"), A.run(\"b\")]; return \"x\" }";
    let budget = Budget { calls: Some(1), ..Budget::default() };
    let (result, town) = always(|| Town::budgeted(asked, budget, None).script("A", &[Turn::Says("x", 5)]));
    assert_eq!((result.as_str(), town.emitted.len()), ("\"x\"", 1), "each branch has half of one call, which is none");
    let late = || Town::budgeted(&text, Budget::default(), Some(Timestamp(50))).script("A", &[Turn::Says("x", 100)]);
    let (result, town) = always(late);
    assert_eq!(result, "timeout: the deadline passed before the agent ended");
    assert_eq!((town.now.0, town.emitted.len()), (1_050, 4));
    assert_eq!(town.spend().calls, 1, "a request that is given up is billed");
}

#[test]
fn a_block_that_takes_too_long_ends_with_timeout() {
    let text = "
        agent A { prompt: \"P\" }
        flow main() -> str {
            let seen = \"\"
            try (timeout: 1s) {
                defer { emit(\"deferred\") }
                seen = \"began\"
                seen = A.run(\"q\")
            } catch (e) { seen = \"#{seen} #{e.code} #{time.now()}\" }
            sleep(1s)
            return seen
        }";
    let (result, town) = always(|| Town::of(text).script("A", &[Turn::Says("late", 5_000)]));
    assert_eq!((result.as_str(), town.now.0), ("\"began timeout 1000\"", 2_000));
    assert_eq!((town.emitted.len(), town.spend().calls), (1, 1), "what was given up is billed");
    let (result, town) = always(|| Town::of(text).script("A", &[Turn::Says("in time", 999)]));
    assert_eq!((result.as_str(), town.now.0), ("\"in time\"", 1_999));
}

#[test]
fn of_nested_times_the_smaller_one_wins() {
    let text = "
        flow main() -> str {
            let seen = \"\"
            try (timeout: OUTER) {
                try (timeout: INNER) { sleep(1h) } catch (e) { seen += \"inner #{e.code} #{time.now()} \" }
                sleep(1h)
            } catch (e) { seen += \"outer #{e.code} #{time.now()}\" }
            return seen
        }";
    let run = |outer: &str, inner: &str| {
        let text = text.replace("OUTER", outer).replace("INNER", inner);
        always(|| Town::of(&text)).0
    };
    assert_eq!(run("2s", "1s"), "\"inner timeout 1000 outer timeout 2000\"");
    assert_eq!(run("1s", "2s"), "\"outer timeout 1000\"");
    assert_eq!(run("1s", "1s"), "\"outer timeout 1000\"");
}

#[test]
fn a_called_flows_time_and_errors_pass_through_a_timed_block() {
    let text = "
        flow slow() -> int { try (timeout: 1h) { defer emit(\"slow\"); sleep(1d) } catch (e) { emit(\"wrong\") }; return 1 }
        flow main() -> str {
            let a = try bad()
            let b = try timed()
            return \"#{a.code()} #{b.code()} #{time.now()}\"
        }
        flow bad() -> int { try (timeout: 1s) { fail(\"x\", code: \"refused\") } catch (e) { fail(e.message, code: e.code) } }
        flow timed() -> int { loop (max: 3, timeout: 2s) { slow() } until (false) }";
    let (result, town) = always(|| Town::of(text));
    assert_eq!((result.as_str(), town.now.0), ("\"refused timeout 2000\"", 2_000));
    assert_eq!(town.emitted, ["\"slow\""]);
}

#[test]
fn time_that_people_take_does_not_count() {
    let text = "
        flow main() -> str {
            try (timeout: 1s) {
                let d = approve(\"ok?\", timeout: 1h)
                sleep(900ms)
                emit(time.now())
                sleep(200ms)
            } catch (e) { return \"#{e.code} #{time.now()}\" }
            return \"in time\"
        }";
    let (result, town) = always(|| Town::of(text).decide(true, 60_000));
    assert_eq!((result.as_str(), town.emitted.as_slice()), ("\"timeout 61000\"", ["60900".to_owned()].as_slice()));
}

#[test]
fn children_of_a_call_that_runs_out_of_time_are_cancelled() {
    let text = "
        flow forever() -> int { sleep(100d); return 1 }
        flow waits() -> int { let h = spawn forever(); return await h }
        flow main() -> str {
            let f = try timed()
            return \"#{f.code()} #{time.now()}\"
        }
        flow timed() -> int {
            try (timeout: 1s) { let x = waits() } catch (e) { emit(e.code) }
            try (timeout: 1s) { let y = fork [waits(), forever()] } catch (e) { fail(e.message, code: e.code) }
            return 1
        }";
    let (result, town) = always(|| Town::of(text));
    assert_eq!((result.as_str(), town.now.0), ("\"timeout 2000\"", 2_000));
}

#[test]
fn a_loop_with_a_time_ends_with_timeout() {
    let text = "
        flow main() -> str {
            let n = 0
            let r = try counts()
            return \"#{r.code()} #{time.now()}\"
        }
        flow counts() -> int {
            let n = 0
            loop (max: 100, timeout: 1s) { n += 1; sleep(300ms) } until (n == 50)
            return n
        }";
    let (result, _) = always(|| Town::of(text));
    assert_eq!(result, "\"timeout 1000\"");
}

#[test]
fn what_is_deferred_in_a_block_that_takes_too_long_has_five_seconds() {
    let text = "
        agent A { prompt: \"P\" }
        agent Release { prompt: \"P\" }
        flow work() -> str { defer { let r = Release.run(\"deep\") }; return A.run(\"q\") }
        flow main() -> str {
            try (timeout: 1s) {
                defer { let r = Release.run(\"near\"); emit(\"released #{time.now()}\") }
                return work()
            } catch (e) { return \"#{e.code} #{time.now()}\" }
        }";
    let town = |after| {
        let town = Town::of(text).script("A", &[Turn::Says("late", 50_000)]);
        town.script("Release", &[Turn::Says("ok", after)])
    };
    let (result, released) = always(|| town(100));
    assert_eq!(
        (result.as_str(), released.emitted.as_slice()),
        ("\"timeout 1200\"", ["\"released 1200\"".to_owned()].as_slice())
    );
    // Both have the five seconds together. Then no wait begins any more, and all else still runs.
    let (result, cut) = always(|| town(4_000));
    assert_eq!((result.as_str(), cut.emitted.len()), ("\"timeout 6000\"", 0));
    assert_eq!(cut.asks.iter().filter(|(agent, _)| agent == "Release").count(), 2);
    let (result, cut) = always(|| town(6_000));
    assert_eq!((result.as_str(), cut.emitted.len()), ("\"timeout 6000\"", 0));
}

#[test]
fn a_block_around_one_that_cleans_up_waits_for_that() {
    let text = "
        flow main() -> str {
            let seen = \"\"
            try (timeout: 1500ms) {
                defer { sleep(LAST); emit(time.now()) }
                try (timeout: 1s) {
                    defer { sleep(FIRST); emit(time.now()) }
                    sleep(1h)
                } catch (e) { seen = \"inner #{time.now()}\" }
                sleep(1h)
            } catch (e) { return \"#{seen} outer #{time.now()}\" }
            return seen
        }";
    let run = |first: &str, last: &str| {
        let text = text.replace("FIRST", first).replace("LAST", last);
        let (result, town) = always(|| Town::of(&text));
        format!("{result} {}", town.emitted.join(" "))
    };
    assert_eq!(run("100ms", "100ms"), "\"inner 1100 outer 1600\" 1100 1600");
    assert_eq!(run("2s", "4s"), "\"inner 3000 outer 7000\" 3000 7000");
    // What the inner one took of the five seconds too long, the outer one does not have.
    assert_eq!(run("1h", "1s"), "\" outer 6000\" ");
}

#[test]
fn children_of_a_call_whose_grace_is_over_are_cancelled_all_the_same() {
    let text = "
        flow forever() -> int { sleep(100d); return 1 }
        flow waits() -> int { defer sleep(1h); let h = spawn forever(); return await h }
        flow main() -> str {
            try (timeout: 1s) { let x = waits() } catch (e) { emit(e.code) }
            sleep(1s)
            return \"#{time.now()}\"
        }";
    let (result, town) = always(|| Town::of(text));
    assert_eq!((result.as_str(), town.now.0), ("\"7000\"", 7_000));
    assert_eq!(town.ends()["forever"], "cancelled: the call that started it has ended");
}
