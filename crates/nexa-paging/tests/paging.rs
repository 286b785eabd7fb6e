//! What paging promises, one sentence a test.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod common;

use std::collections::BTreeMap;

use common::{Desk, vector};
use nexa_paging::{
    Access, ContextPager, EvictionPolicy, HybridWeights, LeaveReason, PagingConfig, PagingError, Query, RecallBudget,
    Residency,
};
use nexa_types::Timestamp;

const TALK: [&str; 12] = [
    "the red boat sails",
    "a boat needs wind",
    "green tea is hot",
    "tea with honey",
    "the train to Oslo",
    "rails and trains",
    "a cat sleeps",
    "cats hunt mice",
    "snow on the hill",
    "skiing downhill",
    "a violin plays",
    "music at night",
];

fn config(max_active_pages: usize) -> PagingConfig {
    PagingConfig { page_size: 2, max_active_pages, activate_max: 1, ..PagingConfig::default() }
}

fn told(max_active_pages: usize) -> Desk {
    let mut desk = Desk::new(config(max_active_pages));
    desk.tells(&TALK);
    desk
}

#[test]
fn relevant_pages_are_given_whether_they_were_active_or_not() {
    let mut desk = told(4);
    assert_eq!(desk.active(), [2, 3, 4, 5]);
    let recall = desk.asks("violin");
    assert_eq!(recall.pages[0].page, Some(desk.sealed[5]), "an active page is found, too");
    assert!(recall.turnover.hits.contains(&desk.sealed[5]) && recall.turnover.loads.is_empty());
    let recall = desk.asks("tea");
    assert_eq!(recall.pages[0].page, Some(desk.sealed[1]));
    assert_eq!(recall.turnover.loads[0].page, desk.sealed[1]);
}

#[test]
fn a_page_that_was_loaded_is_entered_as_active() {
    let mut desk = told(4);
    desk.asks("tea");
    let entry = desk.pager.table().get(desk.sealed[1]).unwrap();
    assert_eq!(entry.residency, Residency::Active);
    assert!(desk.asks("tea").turnover.loads.is_empty(), "the second time it is there");
    desk.checks();
}

#[test]
fn what_a_query_loads_does_not_leave_for_what_it_loads() {
    let config = PagingConfig { page_size: 2, max_active_pages: 3, ..PagingConfig::default() };
    let mut desk = Desk::new(config);
    desk.tells(&TALK);
    let recall = desk.asks("boat tea train cat");
    let wanted = recall.turnover.hits.iter().copied().chain(recall.turnover.loads.iter().map(|load| load.page));
    let wanted: Vec<_> = wanted.collect();
    for leave in &recall.turnover.leaves {
        assert!(!wanted.contains(&leave.page), "{leave:?}");
    }
    for load in &recall.turnover.loads {
        assert!(desk.is_active(load.page));
    }
    assert!(!recall.turnover.passing.is_empty(), "the newest two stay, so one place was free for three");
    desk.checks();
}

#[test]
fn a_hit_is_counted_and_is_the_last_use() {
    let mut desk = told(4);
    let page = desk.sealed[5];
    let before = desk.pager.page(page).unwrap();
    desk.asks("violin");
    let after = desk.pager.page(page).unwrap();
    assert_eq!(after.access_count, before.access_count + 1);
    assert!(after.last_accessed.turn > before.last_accessed.turn && after.last_accessed.at >= before.last_accessed.at);
    assert!(after.relevance_score > 0.5, "and what it had to do with the query is noted");
}

#[test]
fn the_threshold_holds_against_cosines_and_never_against_words() {
    let strict = PagingConfig { similarity_threshold: 1.0, ..config(4) };
    let mut desk = Desk::new(strict);
    desk.tells(&TALK);
    let found = desk.finds("tea");
    assert_eq!(found, ["tea with honey", "green tea is hot"], "pages with the word, and no others");
    let mut open = Desk::new(PagingConfig { similarity_threshold: -1.0, ..config(4) });
    open.tells(&TALK);
    assert_eq!(open.finds("tea").len(), TALK.len(), "without a threshold everything is near in some degree");
}

#[test]
fn a_page_leaves_memory_only_once_its_messages_are_in_the_log() {
    let mut desk = Desk::small(1);
    desk.tells(&TALK[..2]);
    desk.records = false;
    desk.says(TALK[2]);
    desk.says(TALK[3]);
    assert_eq!(desk.active(), [1], "the recorded page left for one that is not recorded");
    desk.says(TALK[4]);
    let refused = desk.try_says(TALK[5]).unwrap_err();
    assert!(matches!(refused, PagingError::NotRecorded { .. }), "{refused}");
    desk.checks();
    let recorded = desk.said.last().unwrap().seq;
    desk.pager.recorded(recorded);
    desk.says(TALK[5]);
    assert_eq!(desk.active(), [2], "given again, it is taken");
    desk.checks();
}

#[test]
fn when_a_page_was_used_survives_a_move() {
    let mut desk = told(4);
    desk.asks("cat");
    let before: Vec<_> = desk.pager.table().pages().map(|(page, entry)| (page, entry.clone())).collect();
    let active = desk.active();
    desk.moves(config(4));
    let after: Vec<_> = desk.pager.table().pages().map(|(page, entry)| (page, entry.clone())).collect();
    assert_eq!((before, active), (after, desk.active()));
    let used = desk.pager.page(desk.sealed[3]).unwrap();
    assert!(used.access_count == 1 && used.last_accessed.turn.0 > 0 && used.last_accessed.at.0 > 0);
}

#[test]
fn nothing_is_lost_where_few_pages_are_active() {
    for max in [1, 2, 3, 4, 16] {
        let mut desk = Desk::new(config(max));
        desk.tells(&TALK);
        for text in TALK {
            assert_eq!(desk.finds(text)[0], text, "{max} active pages");
            desk.checks();
        }
    }
}

#[test]
fn the_open_page_is_found_like_all_others() {
    let mut desk = Desk::small(4).by_words();
    desk.tells(&["old news", "older news", "the blue whale"]);
    let recall = desk.asks("whale");
    assert_eq!((recall.messages[0].page, recall.messages[0].seq), (None, desk.said[2].seq));
}

#[test]
fn a_message_is_found_by_its_words_before_it_has_a_vector() {
    let mut desk = told(4);
    desk.has_vectors = false;
    desk.says("the zeppelin lands");
    desk.has_vectors = true;
    assert_eq!(desk.finds("zeppelin")[0], "the zeppelin lands");
    assert_eq!(desk.pager.unembedded(9), [desk.said.last().unwrap().seq]);
}

#[test]
fn without_vectors_words_are_searched_and_that_is_said() {
    let mut desk = Desk::small(4).by_words();
    desk.tells(&TALK);
    let recall = desk.asks("honey");
    assert_eq!(recall.mode, Some(nexa_paging::Mode::Keywords));
    assert_eq!(recall.messages[0].seq, desk.said[3].seq);
    assert!(recall.messages.iter().all(|found| found.why.cosine.is_none()));
    assert!(desk.asks("unicorn").messages.is_empty(), "nothing has to do with it");
}

#[test]
fn what_is_found_says_where_it_is_from_and_why() {
    let mut desk = told(4);
    let recall = desk.asks("tea with honey");
    let found = &recall.messages[0];
    assert_eq!((found.page, found.seq), (Some(desk.sealed[1]), desk.said[3].seq));
    assert!(found.why.keywords > 0.99 && found.why.cosine.unwrap() > 0.9 && found.why.page > 0.9);
    assert!(found.score >= recall.messages[1].score && recall.messages[1].why.keywords < 0.99);
}

#[test]
fn a_budget_of_messages_and_tokens_is_kept() {
    let mut desk = told(4);
    let budget = |messages, tokens| RecallBudget { messages, tokens };
    assert_eq!(desk.asks_for("boat tea", Access::Recall, budget(3, None)).messages.len(), 3);
    let recall = desk.asks_for("boat tea", Access::Recall, budget(9, Some(10)));
    assert!(!recall.messages.is_empty() && recall.messages.iter().map(|found| found.tokens).sum::<u32>() <= 10);
    assert!(desk.asks_for("boat", Access::Recall, budget(0, None)).messages.is_empty());
}

#[test]
fn a_break_ends_a_page_and_a_page_never_crosses_it() {
    let mut desk = Desk::new(PagingConfig { page_size: 4, ..PagingConfig::default() });
    desk.breaks();
    desk.says("one");
    desk.breaks();
    desk.breaks();
    desk.tells(&["two", "three", "four", "five", "six"]);
    desk.breaks();
    let sizes: Vec<usize> = desk.sealed.iter().map(|page| desk.store[page].messages.len()).collect();
    assert_eq!(sizes, [1, 4, 1]);
}

#[test]
fn a_replay_makes_the_same_pages() {
    let (mut one, mut two) = (told(4), Desk::new(config(1)));
    two.tells(&TALK);
    assert_eq!(one.sealed, two.sealed);
    let messages = one.said.clone();
    for message in messages {
        assert_eq!(one.pager.add(message), Ok(Vec::new()), "what is known changes nothing");
    }
    assert_eq!(one.pager.table().len(), 6);
    let mut late = one.said[0].clone();
    late.seq = nexa_types::Version(2);
    assert!(matches!(one.pager.add(late), Err(PagingError::OutOfOrder { .. })));
}

#[test]
fn pinned_pages_stay_and_one_page_is_never_pinned() {
    let mut desk = Desk::small(3);
    desk.tells(&TALK[..4]);
    let pins = [desk.sealed[0], desk.sealed[1]];
    pins.iter().for_each(|page| desk.pager.pin(*page, true).unwrap());
    desk.tells(&TALK[4..]);
    for text in ["snow", "violin", "cat", "train"] {
        desk.asks(text);
        desk.checks();
        assert!(pins.iter().all(|page| desk.is_active(*page)), "{text}");
    }
    let third = desk.sealed[2];
    assert_eq!(desk.pager.pin(third, true), Err(PagingError::TooManyPins { pinned: 2 }));
    desk.pager.pin(pins[0], false).unwrap();
    assert_eq!(desk.pager.pin(third, true), Ok(()));
    let nowhere = nexa_types::PageId::from_bytes([9; 16]);
    assert_eq!(desk.pager.pin(nowhere, true), Err(PagingError::NoPage { page: nowhere }));
}

#[test]
fn the_newest_two_pages_stay_where_others_can_leave() {
    let mut desk = told(4);
    for text in ["boat", "tea", "train", "cat", "boat"] {
        desk.asks(text);
        assert!(desk.active().ends_with(&[4, 5]), "{:?}", desk.active());
    }
}

#[test]
fn what_a_scan_brings_in_leaves_first_and_drives_out_nothing_that_is_used() {
    let mut desk = Desk::new(PagingConfig { eviction_policy: EvictionPolicy::Lru, ..config(5) });
    desk.tells(&TALK);
    desk.asks("boat");
    desk.scans("tea");
    let scanned = desk.sealed[1];
    assert_eq!(desk.pager.table().get(scanned).unwrap().residency, Residency::Probation);
    desk.asks("train");
    assert_eq!((desk.left.last().unwrap().page, desk.left.last().unwrap().why), (scanned, LeaveReason::Probation));
    assert!(desk.is_active(desk.sealed[0]), "what was asked for is still there");
    desk.scans("tea");
    desk.asks("tea");
    assert_eq!(
        desk.pager.table().get(scanned).unwrap().residency,
        Residency::Active,
        "what is used is on probation no more"
    );
}

#[test]
fn a_page_that_comes_back_soon_counts_more() {
    let mut desk = Desk::new(PagingConfig { eviction_policy: EvictionPolicy::Lru, ..config(3) });
    desk.tells(&TALK);
    let recall = desk.asks("train");
    assert!(recall.turnover.loads[0].was_ghost, "it left when newer ones came");
    assert_eq!(desk.pager.table().get(desk.sealed[2]).unwrap().frequency, 2);
    assert_eq!(desk.pager.table().ghosts().len(), 3, "0, 1, and 3, which left for 2");
    let mut long = Desk::new(config(1));
    for number in 0..40 {
        long.says(&format!("message number {number}"));
    }
    assert_eq!(long.pager.table().ghosts().len(), 2);
    assert!(!long.asks("number 1").turnover.loads[0].was_ghost, "it left long ago");
}

#[test]
fn old_fame_fades() {
    let mut desk = told(4);
    let of = |desk: &Desk| desk.pager.table().get(desk.sealed[5]).unwrap().frequency;
    (0..20).for_each(|_| drop(desk.asks("violin")));
    let most = of(&desk);
    assert_eq!(most, 15);
    (0..70).for_each(|_| drop(desk.asks("skiing")));
    assert!(of(&desk) < most);
    assert!(desk.pager.page(desk.sealed[5]).unwrap().access_count >= 20, "for people, all are counted");
}

#[test]
fn a_page_that_cannot_be_read_drives_out_nothing() {
    let mut desk = told(3);
    let active = desk.active();
    let (recall, asked) = desk.plans("tea", Access::Recall, RecallBudget::default());
    assert!(!recall.turnover.leaves.is_empty());
    let query = Query { text: "tea", vector: asked.as_deref(), ..Query::default() };
    assert_eq!(desk.pager.carry_out(&recall, &query, &BTreeMap::new(), Timestamp(1)), Ok(Vec::new()));
    assert_eq!(desk.active(), active);
}

#[test]
fn a_decision_that_something_has_overtaken_is_not_carried_out() {
    let mut desk = told(3);
    let planned = desk.plans("tea", Access::Recall, RecallBudget::default());
    desk.tells(&["a new page", "of two messages"]);
    assert_eq!(desk.carries_out("tea", &planned), Err(PagingError::Stale));
    desk.checks();
}

#[test]
fn a_stored_page_with_other_messages_is_not_taken() {
    let mut desk = told(3);
    let page = desk.sealed[1];
    desk.store.get_mut(&page).unwrap().messages[0].text = "green tea is cold".to_owned();
    let planned = desk.plans("tea", Access::Recall, RecallBudget::default());
    assert_eq!(desk.carries_out("tea", &planned), Err(PagingError::OtherContent { page }));
    assert!(!desk.is_active(page));
}

#[test]
fn a_smaller_limit_holds_from_the_restart_on() {
    let mut desk = told(6);
    (0..4).for_each(|number| desk.pager.pin(desk.sealed[number], true).unwrap());
    desk.moves(config(2));
    desk.checks();
    assert_eq!(desk.active().len(), 2);
    assert!(desk.left.iter().all(|leave| leave.why == LeaveReason::SmallerLimit) && desk.left.len() == 4);
    assert!(desk.is_active(desk.sealed[3]), "of four pins one is left, the newest");
}

#[test]
fn a_restore_wants_the_pages_that_the_snapshot_knows() {
    let desk = told(3);
    let snapshot = desk.pager.snapshot();
    let pages = || desk.sealed.iter().map(|page| desk.store[page].clone()).collect::<Vec<_>>();
    let restored = |snapshot: &[u8], pages| ContextPager::restore(snapshot, config(3), pages, Vec::new());
    assert!(restored(&snapshot, pages()).is_ok());
    assert!(restored(&snapshot, pages()[1..].to_vec()).is_err());
    let mut swapped = pages();
    swapped.swap(0, 1);
    assert!(restored(&snapshot, swapped).is_err());
    for cut in 0..snapshot.len() {
        assert!(restored(&snapshot[..cut], pages()).is_err(), "{cut}");
    }
    let tail = vec![desk.said[0].clone()];
    assert!(ContextPager::restore(&snapshot, config(3), pages(), tail).is_err());
}

#[test]
fn vectors_of_another_model_are_refused() {
    let mut desk = told(3);
    let seq = desk.said[0].seq;
    assert!(matches!(desk.pager.embed(seq, &[1.0, 2.0]), Err(PagingError::OtherDimensions { found: 2, known: 24 })));
    assert_eq!(desk.pager.embed(seq, &[0.0; 24]), Err(PagingError::NoVector));
    let nowhere = nexa_types::Version(2);
    assert_eq!(desk.pager.embed(nowhere, &vector("x")), Err(PagingError::NoMessage { seq: nowhere }));
    let query = Query { text: "tea", vector: Some(&[1.0, 0.0]), ..Query::default() };
    let recall = desk.pager.load_relevant_pages(&query, RecallBudget::default());
    assert_eq!(recall.mode, Some(nexa_paging::Mode::Keywords), "a query of another model is searched by words");
}

#[test]
fn what_the_last_turns_are_about_stays_and_the_rest_leaves() {
    let hybrid = HybridWeights { relevance: 1.0, recency: 0.0, frequency: 0.0, importance: 0.0, size: 0.0 };
    let mut desk = Desk::new(PagingConfig { hybrid, ..config(5) });
    desk.tells(&TALK[..10]);
    desk.tells(&["green tea is hot", "tea with honey", "tea with honey", "green tea"]);
    assert!(desk.is_active(desk.sealed[1]), "of the five others, tea is what it is about: {:?}", desk.active());
    let mut by_words = Desk::new(PagingConfig { hybrid, ..config(5) }).by_words();
    by_words.tells(&TALK[..10]).tells(&["green tea is hot", "tea with honey", "tea with honey", "green tea"]);
    assert!(by_words.is_active(by_words.sealed[1]), "also by words: {:?}", by_words.active());
}

#[test]
fn a_date_that_is_named_helps_where_it_has_weight() {
    let mut config = config(8);
    config.rank.date = 0.5;
    let mut desk = Desk::new(config);
    desk.tells(&TALK);
    let recall = desk.asks("what was said on 14 November 2023");
    assert!(recall.messages[0].why.date > 0.9, "{:?}", recall.messages[0]);
}
