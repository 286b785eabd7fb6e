//! What happens to a conversation's pages whatever the policy, and what policies make of it.
//!
//! In:  pages that are sealed, and pages that are needed ([`Step`]), in order.
//! Out: how many of them had to be read ([`Figures`]), under a policy that knows what was ([`kept_by`]) and under one that knows what
//!      will be ([`belady`]).
//!
//! What a question needs does not depend on the policy (CP-2), so the best that anybody could do is known: to let go of what is
//! needed again last (L. Belady, *A study of replacement algorithms for a virtual-storage computer*, 1966), and not to keep at all
//! what is needed later than everything else. It is here for comparison only.

use std::collections::BTreeSet;

use nexa_types::PageId;
use serde_json::{Value, json};

use crate::baselines::Replacement;
use crate::measure::{Returned, rounded};

/// A step of a conversation, as far as its pages go.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// A page was sealed. It is active without being read.
    Sealed(PageId),
    /// Pages are needed, each once, that with the best message first; these have the evidence.
    Asked { needed: Vec<PageId>, gold: Vec<PageId> },
}

/// All steps of one conversation, and what was found in it.
#[derive(Default)]
pub(crate) struct Trace {
    pub steps: Vec<Step>,
    pub returned: Returned,
}

/// What a policy made of all questions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    pub questions: usize,
    /// Pages with evidence, and how many of them were active when they were needed.
    pub gold: usize,
    pub active: usize,
    /// Pages that were needed, and how many of them had to be read.
    pub needed: usize,
    pub faults: usize,
    pub returned: Returned,
}

impl Figures {
    /// How many pages a question had to read.
    pub(crate) fn faults(&self) -> f64 {
        self.faults as f64 / self.questions.max(1) as f64
    }

    /// Of the pages with evidence, how many were active, in percent.
    pub(crate) fn hits(&self) -> f64 {
        100.0 * self.active as f64 / self.gold.max(1) as f64
    }

    /// Of the reads that the best would save against nothing being active ever, how many were saved, in percent.
    pub(crate) fn saved(&self, best: &Self) -> f64 {
        let saved = |of: &Self| of.needed.saturating_sub(of.faults) as f64;
        100.0 * saved(self) / saved(best).max(1.0)
    }

    pub(crate) fn mean_recall(&self) -> f64 {
        self.returned.percent()[1]
    }

    /// As if both had been measured together.
    pub(crate) fn add(&mut self, other: &Self) {
        self.questions += other.questions;
        self.gold += other.gold;
        self.active += other.active;
        self.needed += other.needed;
        self.faults += other.faults;
        self.returned.add(&other.returned);
    }

    pub(crate) fn sum<'f>(all: impl IntoIterator<Item = &'f Self>) -> Self {
        let mut sum = Self::default();
        all.into_iter().for_each(|figures| sum.add(figures));
        sum
    }

    pub(crate) fn to_json(self) -> Value {
        let mut json = json!({ "hit_percent": rounded(self.hits()), "faults": rounded(self.faults()) });
        if !self.returned.is_empty() {
            json["mean_recall"] = json!(rounded(self.mean_recall()));
        }
        json
    }

    /// A question comes while these pages are active.
    fn ask(&mut self, needed: &[PageId], gold: &[PageId], is_active: impl Fn(&PageId) -> bool) {
        self.questions += 1;
        self.gold += gold.len();
        self.active += gold.iter().filter(|page| is_active(page)).count();
        self.needed += needed.len();
        self.faults += needed.iter().filter(|page| !is_active(page)).count();
    }
}

/// What a policy makes of a trace, if a question makes so many pages active at most: the best of those that it needs. The others
/// are read and not kept, and the policy hears nothing of them; so it is in the pager.
pub(crate) fn kept_by(policy: &mut dyn Replacement, trace: &Trace, activated: usize) -> Figures {
    let mut figures = Figures { returned: trace.returned, ..Figures::default() };
    for step in &trace.steps {
        match step {
            Step::Sealed(page) => policy.used(*page),
            Step::Asked { needed, gold } => {
                let active: BTreeSet<PageId> = policy.active().into_iter().collect();
                figures.ask(needed, gold, |page| active.contains(page));
                let wanted = &needed[..needed.len().min(activated)];
                let (hits, read): (Vec<PageId>, Vec<PageId>) = wanted.iter().partition(|page| active.contains(*page));
                // What is active comes first, so that nothing of a question drives out what the question needs as well; and the best
                // page last, so that it is the one that was used last.
                hits.iter().rev().chain(read.iter().rev()).for_each(|page| policy.used(*page));
            }
        }
    }
    figures
}

/// What nobody can be better than, with so many active pages.
pub(crate) fn belady(trace: &Trace, limit: usize) -> Figures {
    let mut figures = Figures { returned: trace.returned, ..Figures::default() };
    let mut active: BTreeSet<PageId> = BTreeSet::new();
    for (place, step) in trace.steps.iter().enumerate() {
        match step {
            Step::Sealed(page) => {
                active.insert(*page);
            }
            Step::Asked { needed, gold } => {
                figures.ask(needed, gold, |page| active.contains(page));
                active.extend(needed);
            }
        }
        if active.len() > limit {
            let next = |page: &PageId| (next_need(&trace.steps[place + 1..], page), *page);
            let mut by_need: Vec<(usize, PageId)> = active.iter().map(next).collect();
            by_need.sort_unstable();
            active = by_need.into_iter().take(limit).map(|(_, page)| page).collect();
        }
    }
    figures
}

fn next_need(steps: &[Step], page: &PageId) -> usize {
    let needs = |step: &Step| matches!(step, Step::Asked { needed, .. } if needed.contains(page));
    steps.iter().position(needs).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use nexa_ports::dice::{Dice as _, SeededDice};

    use super::*;
    use crate::baselines::BASELINES;

    fn page(number: u8) -> PageId {
        PageId::from_bytes([number; 16])
    }

    fn asked(numbers: &[u8]) -> Step {
        let needed: Vec<PageId> = numbers.iter().copied().map(page).collect();
        Step::Asked { gold: needed.clone(), needed }
    }

    fn trace(steps: Vec<Step>) -> Trace {
        Trace { steps, ..Trace::default() }
    }

    #[test]
    fn the_bound_keeps_what_is_needed_next() {
        let sealed = |number| Step::Sealed(page(number));
        let asked = |number| asked(&[number]);
        let steps = vec![sealed(1), sealed(2), sealed(3), asked(1), asked(3), asked(2), asked(1), asked(3)];
        let trace = trace(steps);
        assert_eq!(belady(&trace, 1).faults, 3, "1 stays, which is needed first and again");
        assert_eq!(belady(&trace, 2).faults, 1, "2 is read once and not kept, since nobody needs it again");
        assert_eq!(belady(&trace, 3).faults, 0);
    }

    #[test]
    fn a_question_hits_what_was_active_when_it_came_and_keeps_its_best() {
        let sealed = (1..=4).map(|number| Step::Sealed(page(number)));
        let steps: Vec<Step> = sealed.chain([asked(&[1, 4, 2]), asked(&[1]), asked(&[2]), asked(&[4])]).collect();
        let lru = |activated| kept_by(&mut *(BASELINES[0].1)(2), &trace(steps.clone()), activated);
        // 3 and 4 are active. The question hits 4 and reads 1 and 2, of which 1 stays as the best, beside 2.
        let all = lru(3);
        assert_eq!((all.questions, all.needed, all.faults, all.active), (4, 6, 3, 3));
        // Only 1 becomes active, beside 4; then 2 comes for 4, and 4 for 1.
        let one = lru(1);
        assert_eq!((one.needed, one.faults), (6, 4));
        let best = belady(&trace(steps.clone()), 2);
        assert_eq!((best.faults, all.saved(&best), one.saved(&best)), (2, 75.0, 50.0));
    }

    /// Pages come and are needed, most of them soon after.
    fn random(seed: u64) -> Trace {
        let dice = SeededDice::new(seed);
        let below = |end: usize| dice.roll() as usize % end;
        let mut sealed = 0;
        let steps = (0..20 + below(100)).map(|_| {
            if sealed == 0 || (sealed < 40 && below(3) == 0) {
                sealed += 1;
                return Step::Sealed(page(sealed));
            }
            let oldest = below(sealed as usize);
            let needed: BTreeSet<u8> =
                (0..1 + below(6)).map(|_| (1 + oldest + below(sealed as usize - oldest)) as u8).collect();
            asked(&needed.into_iter().collect::<Vec<_>>())
        });
        trace(steps.collect())
    }

    #[test]
    fn nobody_reads_less_than_the_bound_and_it_reads_less_the_more_is_kept() {
        for seed in 0..30 {
            let trace = random(seed);
            let bounds: Vec<Figures> = (1..12).map(|limit| belady(&trace, limit)).collect();
            assert!(bounds.windows(2).all(|two| two[0].faults >= two[1].faults), "seed {seed}");
            for (limit, best) in (1..).zip(&bounds) {
                for (name, make) in BASELINES {
                    for activated in [1, limit] {
                        let kept = kept_by(&mut *make(limit), &trace, activated);
                        assert_eq!((kept.questions, kept.needed), (best.questions, best.needed), "seed {seed}");
                        assert!(
                            kept.faults >= best.faults,
                            "seed {seed}, {name}, {limit}: {} and {}",
                            kept.faults,
                            best.faults
                        );
                        let again = kept_by(&mut *make(limit), &trace, activated);
                        assert_eq!((kept.faults, kept.active), (again.faults, again.active), "seed {seed}, {name}");
                    }
                }
            }
        }
    }
}
