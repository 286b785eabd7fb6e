//! Each policy on a sequence that was worked by hand from its paper, and what holds for all of them.

use std::collections::BTreeSet;

use nexa_ports::dice::{Dice as _, SeededDice};

use super::*;

fn page(letter: char) -> PageId {
    PageId::from_bytes([letter as u8; 16])
}

fn word<'p>(pages: impl IntoIterator<Item = &'p PageId>) -> String {
    pages.into_iter().map(|page| page.as_bytes()[0] as char).collect()
}

/// Uses pages, each a letter.
fn uses<P: Replacement>(policy: &mut P, pages: &str) {
    pages.chars().for_each(|letter| policy.used(page(letter)));
}

#[test]
fn lru_lets_go_what_was_not_used_for_the_longest_time() {
    let mut lru = Lru::new(3);
    uses(&mut lru, "ABCAD");
    assert_eq!(word(&lru.pages), "CAD");
}

/// Pages with whether they were visited, as a star; the hand before the one that it looks at next.
fn queue(sieve: &Sieve) -> String {
    let shown = sieve.queue.iter().enumerate().map(|(place, (page, is_visited))| {
        let hand = if place == sieve.hand { ">" } else { "" };
        format!("{hand}{}{}", word([page]), if *is_visited { "*" } else { "" })
    });
    shown.collect()
}

#[test]
fn sieve_leaves_the_visited_where_they_are_and_goes_on_from_there() {
    let mut sieve = Sieve::new(7);
    let mut after = |pages| {
        uses(&mut sieve, pages);
        queue(&sieve)
    };
    assert_eq!(after("ABCDEFGABG"), ">A*B*CDEFG*");
    assert_eq!(after("H"), "AB>DEFG*H", "the hand passes A and B, which it finds visited, and lets C go");
    assert_eq!(after("AD"), "A*B>D*EFG*H", "a hit changes no order");
    assert_eq!(after("I"), "A*BD>FG*HI");
    assert_eq!(after("BJ"), "A*B*D>G*HIJ");
    assert_eq!(after("KLMN"), "A*B*DG>LMN", "what comes once is what leaves");
    assert_eq!(after("LMNO"), "AB>GLMNO", "from the newest the hand goes on with the oldest");
}

#[test]
fn sieve_goes_on_with_the_oldest_when_the_newest_has_left() {
    let mut sieve = Sieve::new(2);
    uses(&mut sieve, "ABAC");
    assert_eq!(queue(&sieve), ">AC", "B has left, and C is not where the hand goes on");
    uses(&mut sieve, "D");
    assert_eq!(queue(&sieve), ">CD");
}

/// The small queue, the main one, and the ghosts.
fn queues(policy: &S3Fifo) -> String {
    let of = |queue: &VecDeque<(PageId, u8)>| {
        queue.iter().map(|(page, uses)| format!("{}{uses}", word([page]))).collect::<String>()
    };
    format!("{} {} {}", of(&policy.small), of(&policy.main), word(&policy.ghosts))
}

#[test]
fn s3_fifo_moves_what_was_used_twice_and_knows_who_left_too_early() {
    let mut s3_fifo = S3Fifo::new(3);
    let mut after = |pages| {
        uses(&mut s3_fifo, pages);
        queues(&s3_fifo)
    };
    assert_eq!(after("AAABBBC"), "A2B2C0  ", "the small queue may have all while there is room");
    assert_eq!(after("D"), "D0 A0B0 C", "A and B are moved and count anew, C leaves");
    assert_eq!(after("C"), " A0B0C0 D", "C comes back as a ghost, and goes where A and B are");
    assert_eq!(after("AE"), "E0 C0A0 D", "A was used and goes round once more, B leaves without a trace");
    assert_eq!(after("B"), "B0 C0A0 DE");
    assert_eq!(after("BF"), "F0 C0A0 EB", "used once since it came is not enough, and ghosts are forgotten");
    assert_eq!(after("CCCCC"), "F0 C3A0 EB", "uses are counted to three");
}

/// T1, T2, B1, B2 and p.
fn lists(arc: &Arc) -> String {
    let lists = [&arc.once, &arc.often, &arc.once_ghosts, &arc.often_ghosts].map(word);
    format!("{} {}", lists.join("|"), arc.once_aim)
}

#[test]
fn arc_moves_its_aim_by_who_comes_back() {
    let mut arc = Arc::new(2);
    let mut after = |pages| {
        uses(&mut arc, pages);
        lists(&arc)
    };
    assert_eq!(after("AB"), "AB||| 0");
    assert_eq!(after("A"), "B|A|| 0", "case I: used again");
    assert_eq!(after("C"), "C|A|B| 0", "case IV, B");
    assert_eq!(after("B"), "C|B||A 1", "case II: those used once have left too early");
    assert_eq!(after("A"), "|BA|C| 0", "case III: those used more often have");
    assert_eq!(after("D"), "D|A|C|B 0", "case IV, B: nothing was used once, so of the others");
    assert_eq!(after("E"), "E|A|D|B 0", "case IV, A: the oldest id is forgotten");
    assert_eq!(after("E"), "|AE|D|B 0");
    assert_eq!(after("F"), "F|E|D|A 0", "case IV, B with all ids that there may be");
    let mut arc = Arc::new(2);
    uses(&mut arc, "ABC");
    assert_eq!(lists(&arc), "BC||| 0", "case IV, A without ids: A leaves without a trace");
}

#[test]
fn arc_moves_its_aim_by_the_share_of_the_lists() {
    let page = |letters: &str| letters.chars().map(self::page).collect::<VecDeque<_>>();
    let with = |once_ghosts, often_ghosts, once_aim| Arc {
        limit: 4,
        once_aim,
        once: page("AB"),
        often: page("CD"),
        once_ghosts: page(once_ghosts),
        often_ghosts: page(often_ghosts),
    };
    let aim = |mut arc: Arc, used| {
        uses(&mut arc, used);
        arc.once_aim
    };
    assert_eq!(aim(with("E", "FGH", 0.0), "E"), 3.0, "by |B2| / |B1|");
    assert_eq!(aim(with("E", "FGH", 2.0), "E"), 4.0, "never above what there is room for");
    assert_eq!(aim(with("EF", "G", 3.5), "G"), 1.5, "by |B1| / |B2|");
    assert_eq!(aim(with("EF", "G", 1.0), "G"), 0.0);
    // With as many as are aimed at, it depends on whose id came back.
    let mut arc = with("E", "FG", 3.0);
    uses(&mut arc, "F");
    assert_eq!(lists(&arc), "B|CDF|EA|G 2");
}

#[test]
fn a_scan_drives_out_what_is_used_often_from_lru_only() {
    let keeps = BASELINES.map(|(name, make)| {
        let mut policy = make(10);
        "ABABAB".chars().chain('C'..='Z').for_each(|letter| policy.used(page(letter)));
        let active = policy.active();
        (name, ['A', 'B'].map(|letter| active.contains(&page(letter))))
    });
    let [no, yes] = [[false; 2], [true; 2]];
    assert_eq!(keeps, [("lru", no), ("sieve", yes), ("s3-fifo", yes), ("arc", yes)]);
}

/// How many sequences are tried.
const SEEDS: u64 = 100;

/// Up to 24 letters, some far more often than others, and how many pages may be active.
fn sequence(seed: u64) -> (Vec<PageId>, usize) {
    let dice = SeededDice::new(seed);
    let below = |end: u64| dice.roll() % end;
    let (count, limit) = (1 + below(300), 1 + below(20));
    let letters = (0..count).map(|_| {
        let letters = 1 + below(24);
        page((b'A' + below(letters) as u8) as char)
    });
    (letters.collect(), limit as usize)
}

#[test]
fn no_more_are_active_than_may_be_and_a_hit_lets_nothing_go() {
    for seed in 0..SEEDS {
        let (pages, limit) = sequence(seed);
        for (name, make) in BASELINES {
            let [mut policy, mut twin] = [make(limit), make(limit)];
            for page in &pages {
                let before: BTreeSet<PageId> = policy.active().into_iter().collect();
                policy.used(*page);
                twin.used(*page);
                let listed = policy.active();
                let after: BTreeSet<PageId> = listed.iter().copied().collect();
                assert!(listed.len() == after.len() && after.len() <= limit, "seed {seed}, {name}: {listed:?}");
                assert!(after.contains(page), "seed {seed}, {name}: what is used is there");
                if before.contains(page) {
                    assert_eq!(before, after, "seed {seed}, {name}: a hit");
                } else {
                    let only_it_came = after.iter().all(|kept| kept == page || before.contains(kept));
                    assert!(
                        only_it_came && (before.len() == limit || after.len() > before.len()),
                        "seed {seed}, {name}"
                    );
                }
                assert_eq!(listed, twin.active(), "seed {seed}, {name}: the same uses");
            }
        }
    }
}

/// Section 3.1 of the paper on ARC, A.1 to A.5, as far as lists have lengths.
#[test]
fn arc_keeps_to_its_lengths() {
    for seed in 0..SEEDS {
        let (pages, limit) = sequence(seed);
        let mut arc = Arc::new(limit);
        for page in &pages {
            arc.used(*page);
            let all = [&arc.once, &arc.often, &arc.once_ghosts, &arc.often_ghosts];
            let [once, often, once_ghosts, often_ghosts] = all.map(VecDeque::len);
            let (active, ghosts) = (once + often, once_ghosts + often_ghosts);
            assert!(active <= limit && once + once_ghosts <= limit, "seed {seed}: {}", lists(&arc));
            assert!(active + ghosts <= 2 * limit, "seed {seed}: {}", lists(&arc));
            assert!(active == limit || ghosts == 0, "seed {seed}: {}", lists(&arc));
            assert!((0.0..=limit as f64).contains(&arc.once_aim), "seed {seed}: {}", lists(&arc));
            let distinct: BTreeSet<&PageId> = all.into_iter().flatten().collect();
            assert_eq!(distinct.len(), active + ghosts, "seed {seed}: {}", lists(&arc));
        }
    }
}

#[test]
fn s3_fifo_keeps_to_its_lengths() {
    for seed in 0..SEEDS {
        let (pages, limit) = sequence(seed);
        let mut s3_fifo = S3Fifo::new(limit);
        for page in &pages {
            s3_fifo.used(*page);
            let ghosts: BTreeSet<&PageId> = s3_fifo.ghosts.iter().collect();
            let are_sane = ghosts.len() == s3_fifo.ghosts.len() && ghosts.len() <= s3_fifo.main_max;
            assert!(are_sane, "seed {seed}: {}", queues(&s3_fifo));
            let is_both = s3_fifo.active().iter().any(|page| ghosts.contains(page));
            assert!(!is_both, "seed {seed}: {}", queues(&s3_fifo));
        }
    }
}
