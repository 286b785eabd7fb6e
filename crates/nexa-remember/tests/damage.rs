//! Shards that are damaged, and processes that come after others: pages are made again from the log, and one process writes.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod desk;

use std::sync::Arc;

use desk::{Desk, Talker};
use nexa_event::effect::ConversationScope;
use nexa_ports::clock::SimClock;
use nexa_ports::pages::{PageStore, PagesError, Scope, Shards};
use nexa_remember::{Asked, RememberError, Remembrance};
use nexa_types::{Epoch, Timestamp};

/// Somebody who has said enough for two pages, in a shard that none of the others has.
async fn talker(desk: &Desk, others: &[&Talker]) -> Talker {
    let shards: Shards = desk.pages.shards();
    for workload in 1..200 {
        let agent = nexa_types::AgentId::root(nexa_types::WorkloadId::from_bytes([workload; 16]));
        if others.iter().all(|other| shards.of(other.agent) != shards.of(agent)) {
            let mut who = desk.born("t", workload, ConversationScope::Agent).await;
            for nth in 0..4 {
                desk.turn(&mut who, &format!("question {nth}"), &format!("answer {nth}")).await;
            }
            return who;
        }
    }
    panic!("some agent has to be of another shard");
}

async fn asked(remembrance: &Remembrance, who: &Talker) -> Result<String, RememberError> {
    let scope = Scope::Agent(who.tenant.clone(), who.agent);
    let asked = Asked { scope, query: "answer 1".to_owned(), messages: 1, tokens: None };
    remembrance.recall(asked).await.map(|recalled| recalled.messages[0].message.text.clone())
}

/// Asks until the shard is read again, which one question has to find out.
async fn asked_until_read(remembrance: &Remembrance, who: &Talker) -> String {
    for _ in 0..1_000 {
        match asked(remembrance, who).await {
            Ok(found) => return found,
            Err(RememberError::Pages(PagesError::Damaged { .. })) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the shard stays damaged");
}

#[tokio::test]
async fn a_shard_that_is_damaged_while_it_is_used_is_written_again_and_the_others_are_left_alone() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    let broken = talker(&desk, &[]).await;
    let other = talker(&desk, &[&broken]).await;
    assert_eq!(asked(&remembrance, &other).await, Ok("answer 1".to_owned()));
    desk.until_stored(&remembrance, 4).await;

    desk.pages.break_shard_of(broken.agent);
    assert_eq!(asked_until_read(&remembrance, &broken).await, "answer 1");
    desk.until_stored(&remembrance, 6).await;
    assert_eq!(asked(&remembrance, &other).await, Ok("answer 1".to_owned()));
    let standing = remembrance.standing();
    assert_eq!((standing.emptied, standing.sealed, standing.rows), (1, 6, 6), "two pages were made and stored again");
    remembrance.stop(std::time::Duration::from_secs(5)).await;

    let again = desk.start(None);
    assert_eq!(asked(&again, &broken).await, Ok("answer 1".to_owned()));
    assert_eq!(again.standing().sealed, 0, "what was written again is there");
}

#[tokio::test]
async fn a_shard_that_is_damaged_at_a_start_is_written_again() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    let broken = talker(&desk, &[]).await;
    assert_eq!(asked(&remembrance, &broken).await, Ok("answer 1".to_owned()));
    desk.until_stored(&remembrance, 2).await;
    remembrance.stop(std::time::Duration::from_secs(5)).await;

    desk.pages.break_shard_of(broken.agent);
    let again = desk.start(None);
    assert_eq!(asked(&again, &broken).await, Ok("answer 1".to_owned()));
    desk.until_stored(&again, 2).await;
    assert_eq!((again.standing().emptied, again.standing().rows), (1, 2));
}

#[tokio::test]
async fn pages_of_facts_that_the_log_does_not_have_are_made_anew() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    let who = talker(&desk, &[]).await;
    assert_eq!(asked(&remembrance, &who).await, Ok("answer 1".to_owned()));
    desk.until_stored(&remembrance, 2).await;
    remembrance.stop(std::time::Duration::from_secs(5)).await;

    // An older copy of the log was put back, in which somebody has said less.
    let older = Desk { store: Arc::default(), ..desk.same() };
    let mut same = older.born("t", 1, ConversationScope::Agent).await;
    older.turn(&mut same, "question 0", "answer 0").await;
    let again = older.start(None);
    assert_eq!(asked(&again, &same).await, Ok("answer 0".to_owned()));
    let (pages, _) = again.pages(&same.tenant, same.agent, nexa_types::Version(0), 9).await.unwrap();
    assert_eq!(pages.iter().map(|page| page.messages).sum::<u32>(), 2);
}

#[tokio::test]
async fn a_process_writes_after_one_before_it_also_if_the_clock_has_gone_back() {
    let desk = Desk::new();
    let earlier = desk.start(None);
    let who = talker(&desk, &[]).await;
    assert_eq!(asked(&earlier, &who).await, Ok("answer 1".to_owned()));

    let later = Desk { clock: Arc::new(SimClock::new(Timestamp(1))), ..desk.same() };
    let remembrance = later.start(None);
    assert_eq!(asked(&remembrance, &who).await, Ok("answer 1".to_owned()));
    later.until_stored(&remembrance, 2).await;
    let shard = desk.pages.shards().of(who.agent);
    let fenced = desk.pages.take_over(shard, Epoch(1_000)).await;
    assert_eq!(fenced, Err(PagesError::Fenced { given: Epoch(1_000), current: Epoch(1_001) }));
    assert_eq!(remembrance.standing().failures, 0);
}

#[tokio::test]
async fn a_store_is_not_touched_before_anybody_remembers_or_asks() {
    let desk = Desk::new();
    let remembrance = desk.start(None);
    tokio::task::yield_now().await;
    let shard = desk.pages.shards().all().next().unwrap();
    assert_eq!(desk.pages.take_over(shard, Epoch(1)).await.map(|applied| applied.0), Ok(0), "nobody has taken it over");
    remembrance.stop(std::time::Duration::from_secs(5)).await;
}
