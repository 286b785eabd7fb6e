//! Budgets of agents whose children were told to end: what those hold comes back, and nothing hangs on when.

use nexa_event::fact::{AgentEvent, WaitOn};
use nexa_types::Budget;

use crate::town::{Town, Turn, always, shown};

const AGENTS: &str = "
    agent A { prompt: \"P\", retry: { max: 0 } }
    agent B { prompt: \"P\", retry: { max: 0 } }
    agent C { prompt: \"P\", retry: { max: 0 } }";

/// A is late, B and C are quick.
fn town(flows: &str) -> Town {
    let town = Town::of(&format!("{AGENTS}{flows}")).script("A", &[Turn::Says("late", 50_000)]);
    town.script("B", &[Turn::Says("b", 10)]).script("C", &[Turn::Says("c", 10)])
}

fn calls(calls: u64) -> Budget {
    Budget { calls: Some(calls), ..Budget::default() }
}

#[test]
fn after_a_timeout_what_is_left_of_the_budget_is_there_for_the_handler() {
    let flows = "
        flow main() -> str budget { calls: 2 } {
            try (timeout: 1s) { return A.run(\"q\") } catch (e) { return \"#{e.code} then #{B.run(\"q\")}\" }
        }";
    let (result, town) = always(|| town(flows));
    assert_eq!(result, "\"timeout then b\"");
    expect_test::expect![[r#"
        0 spawned main
        0 started on n1 epoch 1
        0 children_spawned #2 A
        1000 scope_expired #1
        1000 children_cancelled 1
        1000 wait_began #3 for what ending children leave of the budget
        1000 child_ended #2.0 cancelled, used 1042 tokens in 1 calls
        1000 children_spawned #3 B
        1010 child_ended #3.0 ok, used 1 tokens in 1 calls
        1010 ended ok, used 1043 tokens in 2 calls
    "#]]
    .assert_eq(&town.story("main"));
}

#[test]
fn a_direct_request_after_a_timeout_waits_for_what_it_needs_too() {
    let flows = "
        flow main() -> str budget { calls: 2 } {
            try (timeout: 1s) { return A.run(\"q\") } catch (e) { }
            semantic_if \"c\" against \"x\" { return \"yes\" } else { return \"no\" }
        }";
    let (result, _) = always(|| town(flows).script("main", &[Turn::Says("true", 5)]));
    assert_eq!(result, "\"yes\"");
}

#[test]
fn what_a_child_used_before_it_was_told_to_end_is_gone() {
    let flows = "
        flow main() -> str budget { calls: 1 } {
            try (timeout: 1s) { return A.run(\"q\") } catch (e) { return B.run(\"q\") }
        }";
    let (result, town) = always(|| town(flows));
    assert_eq!(result, "budget_exceeded: the next model request may take 1 model requests and the budget has 0 left");
    assert_eq!(town.spend().calls, 1, "what was given up is billed");
}

#[test]
fn a_wait_for_the_budget_ends_with_the_time_around_it() {
    let flows = "
        flow slow(q: str) -> str { defer sleep(3s); return A.run(q) }
        flow main() -> str budget { calls: 4 } {
            try (timeout: 2s) {
                let h = spawn slow(\"q\")
                sleep(1s)
                h.cancel()
                return B.run(\"q\")
            } catch (e) { return \"#{e.code} at #{time.now()}\" }
        }";
    let (result, town) = always(|| town(flows));
    assert_eq!(result, "\"timeout at 2000\"");
    assert!(town.asks.iter().all(|(agent, _)| agent != "B"), "{}", town.story("main"));
    let (result, _) = always(|| self::town(flows).cancelled_at(1_500));
    assert_eq!(result, "cancelled: ann said so");
}

#[test]
fn children_that_hold_nothing_of_a_cap_are_not_waited_for() {
    let flows = "
        flow slow(q: str) -> str { defer sleep(3s); return A.run(q) }
        flow main() -> int {
            let h = spawn slow(\"q\")
            sleep(1s)
            h.cancel()
            let b = B.run(\"q\")
            return time.now()
        }";
    let (result, _) = always(|| town(flows));
    assert_eq!(result, "1010");
}

#[test]
fn what_the_others_of_a_first_did_not_use_comes_back() {
    let flows = "
        flow main() -> str budget { calls: 7 } {
            let a = fork [A.run(\"a\"), B.run(\"b\")] merge first
            let b = fork [A.run(\"c\"), B.run(\"d\")] merge first
            let c = fork [A.run(\"e\"), B.run(\"f\")] merge first
            return \"#{a} #{b} #{c} #{C.run(\"g\")}\"
        }";
    let (result, town) = always(|| town(flows));
    assert_eq!(result, "\"b b b c\"");
    assert_eq!(town.spend().calls, 7);
}

#[test]
fn a_child_beside_its_parent_gets_a_request_while_one_is_left() {
    let text = format!("{AGENTS} flow main() -> str {{ let h = spawn B.run(\"q\"); return await h }}");
    for (left, expected) in [(0, "budget_exceeded"), (1, "\"b\""), (3, "\"b\""), (4, "\"b\"")] {
        let (result, _) = always(|| Town::budgeted(&text, calls(left), None).script("B", &[Turn::Says("b", 10)]));
        assert_eq!(result.split(':').next(), Some(expected), "{left}");
    }
}

/// Whoever is told to end may end while its parent computes, and a replay hears of it before it computes.
#[test]
fn a_stop_for_want_of_budget_is_the_same_whenever_children_end() {
    let text = "
        flow child() -> int { sleep(1h); return 1 }
        flow main() -> str {
            defer { let n = 0; while (n < 100000) { n += 1 }; emit(\"end\") }
            let h = spawn child()
            h.cancel()
            for each i in range(0, 5) { semantic_if \"c\" against \"x\" { } else { } }
            return \"done\"
        }";
    let make = || Town::budgeted(text, calls(4), None).script("main", &[Turn::Says("true", 0)]);
    for dice in 0..20 {
        let mut town = make().shuffled(dice);
        let result = shown(&town.run());
        assert!(result.starts_with("budget_exceeded: "), "{result}");
        assert_eq!((town.emitted.len(), town.spend().calls), (1, 4), "{}", town.story("main"));
    }
}

/// What is short while the agent cleans up is caught there, message and all.
#[test]
fn a_shortage_in_a_deferred_block_is_the_same_whenever_children_end() {
    let text = "
        flow child() -> int { sleep(1h); return 1 }
        flow main() -> str {
            defer {
                let seen = \"asked\"
                try { semantic_if \"c\" against \"x\" { } else { } } catch (e) { seen = e.message }
                let n = 0
                while (n < 100000) { n += 1 }
                emit(seen)
            }
            let h = spawn child()
            for each i in range(0, 9) { semantic_if \"c\" against \"x\" { } else { } }
            return \"done\"
        }";
    let make = || Town::budgeted(text, calls(4), None).script("main", &[Turn::Says("true", 0)]);
    let mut emitted = Vec::new();
    for dice in 0..20 {
        let mut town = make().shuffled(dice);
        let result = shown(&town.run());
        assert!(result.starts_with("budget_exceeded: "), "{result}");
        emitted.push(town.emitted.join(" "));
    }
    emitted.dedup();
    assert_eq!(emitted.len(), 1, "{emitted:?}");
}

#[test]
fn the_grace_of_an_agent_that_stops_by_itself_runs_from_a_recorded_moment() {
    let counts = "defer { let n = 0; while (n < 100000) { n += 1 }; emit(\"end\") }";
    let short =
        format!("flow main() -> str {{ {counts}; semantic_if \"c\" against \"x\" {{ }} else {{ }}; return \"\" }}");
    let fills = "let s = \"0123456789abcdef\"; while (s != \"\") { s += s }";
    let full = format!("flow main() -> str {{ {counts}; defer emit(\"begun\"); {fills}; return \"\" }}");
    for (text, code) in [(&short, "budget_exceeded"), (&full, "out_of_memory")] {
        for millis in [0, 50, 1_000, 10_000] {
            let mut town = Town::budgeted(text, calls(0), None).taking(millis);
            let result = shown(&town.run());
            assert_eq!(result.split(':').next(), Some(code), "{millis}");
            let is_cut_short = town.stream("main").iter().any(|(event, _)| *event == AgentEvent::DeadlinePassed);
            assert_eq!(is_cut_short, !town.emitted.contains(&"\"end\"".to_owned()), "{}", town.story("main"));
            assert_eq!(is_cut_short, millis > 50, "{millis}");
        }
    }
}

/// Earlier builds recorded neither; what they wrote is read as it was meant.
#[test]
fn logs_in_which_nothing_waits_for_a_budget_and_no_stop_is_recorded_are_read_too() {
    let text = "
        flow main() -> str { defer emit(\"end\"); semantic_if \"c\" against \"x\" { } else { }; return \"done\" }";
    let mut short = Town::budgeted(text, calls(0), None);
    short.run();
    let mut stream = short.stream("main").to_vec();
    let before = stream.len();
    stream.retain(|(event, _)| !matches!(event, AgentEvent::Interrupted { .. }));
    assert_eq!(stream.len(), before - 1);
    assert_eq!(short.reads("main", &stream), Ok(()));

    let flows = "
        flow main() -> str budget { calls: 9 } {
            let a = fork [A.run(\"a\"), B.run(\"b\")] merge first
            return C.run(a)
        }";
    let mut first = town(flows);
    first.run();
    let mut stream = first.stream("main").to_vec();
    let waits = stream.iter().position(|(event, _)| matches!(event, AgentEvent::WaitBegan { on: WaitOn::Budget, .. }));
    // The child was born at once, with a share of what was left then.
    stream.truncate(waits.expect("it waits") + 3);
    stream.remove(waits.expect("it waits"));
    let ended = stream.remove(waits.expect("it waits"));
    assert!(matches!(ended.0, AgentEvent::ChildEnded { .. }), "{}", first.story("main"));
    let Some((AgentEvent::ChildrenSpawned { children, .. }, _)) = stream.last_mut() else { panic!("a birth") };
    assert_eq!(children[0].granted.calls, Some(7), "all but two that were used");
    assert!(first.reads("main", &stream).is_err(), "it would have waited, or had less");
    let Some((AgentEvent::ChildrenSpawned { children, .. }, _)) = stream.last_mut() else { panic!("a birth") };
    children[0].granted.calls = Some(4);
    stream.push(ended);
    assert_eq!(first.reads("main", &stream), Ok(()));
}
