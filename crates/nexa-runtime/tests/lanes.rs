//! A node keeps to what a provider takes, and leaves one alone that is away.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod support;

use std::sync::{Arc, Mutex};

use nexa_ports::model::{LaneLimits, ModelError};
use nexa_types::*;

use support::model::FakeModel;
use support::{Desk, config, program, soon, until};

/// Moves time on while something is waited for; looks at the world before each step.
async fn meanwhile<T>(desk: &Desk, wish: impl Future<Output = T>, mut look: impl FnMut()) -> T {
    let time = async {
        loop {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            look();
            desk.sim.as_ref().unwrap().advance(Millis(100));
        }
    };
    tokio::select! {
        done = soon("the end", wish) => done,
        () = time => unreachable!("time goes on"),
    }
}

#[tokio::test]
async fn forty_agents_keep_to_the_requests_of_a_minute_and_nobody_is_lost() {
    let limits = LaneLimits { requests_per_minute: Some(60), ..LaneLimits::at_once(100) };
    let desk = Desk::with_still_clock(FakeModel::limited(limits, |prompt| Ok(format!("<{prompt}>"))));
    let node = desk.start(config("n1")).await;
    let begin = desk.clock.now();
    let workload = desk.run(&node, 1, &program::fork(40)).await;
    let text = meanwhile(&desk, desk.text(workload), || {
        let most = 1 + desk.clock.now().since(begin).0 / 1_000;
        assert!(desk.model.asked_count() as u64 <= most, "{} of {most}", desk.model.asked_count());
    });
    assert!(text.await.contains("<branch 39>"));
    let stats = node.stats();
    assert_eq!((stats.model_calls, stats.model_waits, stats.model_calls_rate_limited), (41, 41, 0));
    // The second waited for a second, the third for two, and so on; the last call of all came alone.
    assert!(stats.model_waits_ms >= (1..40).map(|n| n * 1_000).sum(), "{stats:?}");
}

#[tokio::test]
async fn an_endpoint_that_is_away_is_asked_seldom_and_its_agents_hear_of_it() {
    let away = |_: &str| Err(ModelError::new(RunCode::Unavailable, "connection refused"));
    let desk = Desk::with_still_clock(FakeModel::with(1, away));
    let node = desk.start(config("n1")).await;
    desk.model.hold(true);
    let mut workloads = Vec::new();
    for number in 1..=30 {
        workloads.push(desk.run(&node, number, &program::one_call()).await);
    }
    // Whoever came later would be one that tries, if time had gone on by then.
    until("all to wait", || node.stats().model_calls_waiting == 29).await;
    desk.model.hold(false);
    let mut told = 0;
    for workload in workloads {
        let failure = meanwhile(&desk, desk.failure(workload), || ()).await;
        assert_eq!(failure.code, RunCode::Unavailable);
        told += u64::from(failure.message.contains("circuit breaker"));
    }
    let stats = node.stats();
    assert_eq!((stats.model_calls_held_back, stats.model_breakers_open), (told, 1));
    assert_eq!(stats.model_calls + told, 30);
    assert!(stats.model_calls <= 12, "five calls, and one a pause: {stats:?}");
}

#[tokio::test]
async fn agents_that_are_declared_urgent_go_first_and_the_others_after_them() {
    let text = r#"
        agent Usual(x: str) -> str { prompt: "usual" }
        agent Late(x: str) -> str { prompt: "late", schedule: { priority: 10 } }
        agent Urgent(x: str) -> str { prompt: "urgent", schedule: { priority: 200 } }
        flow main() -> list[str] { return "x" |>> [Late, Usual, Urgent] merge all }
    "#;
    let team = nexa_lang::compile_text("team.nx", text).module.expect("the program is right");
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let desk = Desk::with_still_clock(FakeModel::asked_for(1, move |request| {
        seen.lock().unwrap().push(request.messages[0].text.clone());
        Ok("done".into())
    }));
    let node = desk.start(config("n1")).await;
    desk.model.hold(true);
    let first = desk.run(&node, 1, &program::one_call()).await;
    until("the only slot to be taken", || node.stats().model_calls_in_flight == 1).await;
    let team = desk.run(&node, 2, &team).await;
    until("the team to wait", || node.stats().model_calls_waiting == 3).await;
    desk.model.hold(false);
    desk.text(first).await;
    assert_eq!(desk.outcome(team).await.failure().map(|failure| failure.code), None);
    assert_eq!(order.lock().unwrap()[1..], ["urgent", "usual", "late"]);
}
