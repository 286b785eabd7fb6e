//! What holds whatever an agent goes through.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod common;

use common::Desk;
use nexa_paging::{Access, EvictionPolicy, PagingConfig, RecallBudget};
use proptest::prelude::*;

const WORDS: [&str; 16] = [
    "boat", "wind", "tea", "honey", "train", "Oslo", "cat", "mouse", "snow", "hill", "violin", "night", "garden",
    "paper", "river", "stone",
];

#[derive(Debug, Clone)]
enum Happens {
    Said(Vec<u8>),
    Broke,
    Asked(Vec<u8>, usize),
    Scanned(Vec<u8>),
    Pinned(usize, bool),
    Moved,
    VectorsCame(bool),
}

fn text(words: &[u8]) -> String {
    words.iter().map(|word| WORDS[usize::from(*word) % WORDS.len()]).collect::<Vec<_>>().join(" ")
}

fn words() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u8..16, 1..6)
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        8 => words().prop_map(Happens::Said),
        1 => Just(Happens::Broke),
        4 => (words(), 1usize..20).prop_map(|(words, count)| Happens::Asked(words, count)),
        1 => words().prop_map(Happens::Scanned),
        1 => (0usize..20, any::<bool>()).prop_map(|(page, is_pinned)| Happens::Pinned(page, is_pinned)),
        1 => Just(Happens::Moved),
        1 => any::<bool>().prop_map(Happens::VectorsCame),
    ]
}

fn configs() -> impl Strategy<Value = PagingConfig> {
    let policy = prop_oneof![
        Just(EvictionPolicy::Lru),
        Just(EvictionPolicy::Lfu),
        Just(EvictionPolicy::Relevance),
        Just(EvictionPolicy::Hybrid)
    ];
    (1usize..9, 1usize..9, policy, 0usize..4).prop_map(
        |(page_size, max_active_pages, eviction_policy, activate_max)| PagingConfig {
            page_size,
            max_active_pages,
            eviction_policy,
            activate_max,
            ..PagingConfig::default()
        },
    )
}

/// What a step let be seen.
fn does(desk: &mut Desk, what: &Happens) -> String {
    match what {
        Happens::Said(words) => {
            desk.says(&text(words));
        }
        Happens::Broke => desk.breaks(),
        Happens::Asked(words, messages) => {
            let budget = RecallBudget { messages: *messages, tokens: None };
            return format!("{:?}", desk.asks_for(&text(words), Access::Recall, budget));
        }
        Happens::Scanned(words) => return format!("{:?}", desk.scans(&text(words))),
        Happens::Pinned(page, is_pinned) => {
            if let Some(page) = desk.sealed.get(*page).copied() {
                let _ = desk.pager.pin(page, *is_pinned);
            }
        }
        Happens::Moved => {}
        Happens::VectorsCame(has) => desk.has_vectors = *has,
    }
    String::new()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// CP-1 and CP-3, after each step.
    #[test]
    fn no_more_pages_are_active_than_may_be(config in configs(), all in prop::collection::vec(happens(), 1..80)) {
        let mut desk = Desk::new(config);
        for what in &all {
            does(&mut desk, what);
            desk.checks();
        }
    }

    /// CP-2: the same messages with the same scores, however few pages are active. What decides is what was said, so pins and
    /// pages that come and go change nothing. The desk checks that each text can be had.
    #[test]
    fn paging_costs_nothing(
        page_size in 1usize..9,
        all in prop::collection::vec(happens(), 1..80),
    ) {
        let desk = |max_active_pages| Desk::new(PagingConfig { page_size, max_active_pages, ..PagingConfig::default() });
        let mut desks = [1, 4, 16, 64, 4_096].map(desk);
        for what in &all {
            match what {
                Happens::Asked(words, messages) => {
                    let budget = RecallBudget { messages: *messages, tokens: None };
                    let found = desks.each_mut().map(|desk| {
                        desk.asks_for(&text(words), Access::Recall, budget).messages
                    });
                    for other in &found[1..] {
                        prop_assert_eq!(other, &found[0]);
                    }
                }
                what => desks.iter_mut().for_each(|desk| drop(does(desk, what))),
            }
        }
        // Whatever was said is found by its words.
        for number in 0..desks[0].said.len() {
            let said = desks[0].said[number].clone();
            for desk in &mut desks {
                let all = RecallBudget { messages: 1_000, tokens: None };
                let found = desk.asks_for(&said.text, Access::Recall, all).messages;
                prop_assert!(found.iter().any(|found| found.seq == said.seq), "{}", said.text);
            }
        }
    }

    /// CP-4: an agent that moves between any two steps decides as one that stays.
    #[test]
    fn a_move_changes_no_decision(config in configs(), all in prop::collection::vec(happens(), 1..60)) {
        let (mut stays, mut moves) = (Desk::new(config.clone()), Desk::new(config.clone()));
        // Vectors of a message that come after its page was stored are the store's affair; here all come at once.
        for what in all.iter().filter(|what| !matches!(what, Happens::VectorsCame(_))) {
            prop_assert_eq!(does(&mut stays, what), does(&mut moves, what));
            if matches!(what, Happens::Moved) {
                moves.moves(config.clone());
            }
            prop_assert_eq!(stays.pager.snapshot(), moves.pager.snapshot());
            prop_assert_eq!(&stays.left, &moves.left);
        }
    }

    /// The table against one that is as simple as can be: a list of active pages, the last used last.
    #[test]
    fn lru_is_what_a_list_does(
        page_size in 1usize..5,
        max in 3usize..9,
        all in prop::collection::vec(happens(), 1..80),
    ) {
        let eviction_policy = EvictionPolicy::Lru;
        let mut desk = Desk::new(PagingConfig { page_size, max_active_pages: max, eviction_policy, ..PagingConfig::default() });
        // Pages as numbers, the one that leaves next first. All that one query touches is touched at once, so among these the
        // lower id leaves first.
        let mut list: Vec<(u64, nexa_types::PageId)> = Vec::new();
        for what in all.iter().filter(|what| matches!(what, Happens::Said(_) | Happens::Broke | Happens::Asked(..))) {
            let before = desk.sealed.len();
            let turn = desk.pager.table().turn().0 + 1;
            if let Happens::Asked(words, _) = what {
                let recall = desk.asks(&text(words));
                let newest: Vec<_> = desk.sealed.iter().rev().take(2).copied().collect();
                let coming = recall.turnover.loads.iter().map(|load| load.page);
                let coming = coming.chain(recall.turnover.passing.iter().copied());
                let wanted: Vec<_> = recall.turnover.hits.iter().copied().chain(coming).collect();
                list.iter_mut().filter(|(_, page)| wanted.contains(page)).for_each(|(last, _)| *last = turn);
                for page in &wanted {
                    if list.iter().any(|(_, active)| active == page) {
                        continue;
                    }
                    if list.len() == max {
                        list.sort_unstable();
                        let victim = list.iter().position(|(_, page)| !wanted.contains(page) && !newest.contains(page));
                        match victim {
                            Some(place) => drop(list.remove(place)),
                            None => continue,
                        }
                    }
                    list.push((turn, *page));
                }
            } else {
                does(&mut desk, what);
            }
            for page in desk.sealed[before..].iter().copied() {
                let newest: Vec<_> = desk.sealed.iter().rev().take(2).copied().collect();
                if list.len() == max {
                    list.sort_unstable();
                    let place = list.iter().position(|(_, page)| !newest.contains(page)).unwrap();
                    list.remove(place);
                }
                // A break seals before its turn is counted, a message after.
                let turn = desk.pager.table().get(page).unwrap().last_accessed.turn.0;
                list.push((turn, page));
            }
            let mut expected: Vec<_> = list.iter().map(|(_, page)| *page).collect();
            expected.sort_unstable();
            let active: Vec<_> = desk.pager.table().active().map(|(page, _)| page).collect();
            prop_assert_eq!(active, expected);
        }
    }
}
