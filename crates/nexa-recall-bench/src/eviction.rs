//! How often the pages that are needed are in memory, by policy.
//!
//! Turns are played in order. A question is asked at the first break after its last evidence, when it is fresh, and once more
//! at the end. What it needs does not depend on the policy, so the best that anybody could do is known: to let go of what is
//! needed again last (L. Belady, *A study of replacement algorithms*, 1966), and not to keep at all what is needed later than
//! everything else. It knows the future, and is here for comparison only.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use nexa_paging::{EvictionPolicy, HybridWeights, PagingConfig, RecallBudget};
use nexa_types::PageId;
use serde_json::{Map, Value, json};

use crate::locomo::Talk;
use crate::measure::{Returned, rounded};
use crate::replay::Replay;
use crate::vectors::Vectors;

/// Active pages that are measured.
const ACTIVE_PAGES: [usize; 3] = [4, 16, 64];
/// Pages that one recall makes active at most.
const ACTIVATED: [usize; 5] = [1, 2, 4, 8, 12];

/// What a policy made of all questions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    questions: usize,
    gold: usize,
    active: usize,
    faults: usize,
    returned: Returned,
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

    fn to_json(self) -> Value {
        let recall = self.returned.percent()[1];
        json!({ "hit_percent": rounded(self.hits()), "faults": rounded(self.faults()), "mean_recall": rounded(recall) })
    }
}

/// A step of the trace that a policy without knowledge of the future and one with it both go through.
enum Step {
    /// A page was sealed.
    Sealed(PageId),
    /// Pages are needed, of which some are kept afterwards; these have the evidence.
    Asked { needed: BTreeSet<PageId>, gold: Vec<PageId> },
}

/// Measures all policies; gives a page for people and one object.
pub(crate) fn run(talks: &[Talk], vectors: &Vectors) -> Result<(String, Value), String> {
    let mut page = String::new();
    let mut figures = Map::new();
    figures.insert("suite".to_owned(), json!("eviction"));
    figures.insert("has_vectors".to_owned(), json!(vectors.are_complete()));
    let policies = [
        ("lru", EvictionPolicy::Lru),
        ("lfu", EvictionPolicy::Lfu),
        ("relevance", EvictionPolicy::Relevance),
        ("hybrid", EvictionPolicy::Hybrid),
    ];
    let _ = writeln!(
        page,
        "Hits: evidence pages that are active when a question comes. Faults: pages read for a question.\n"
    );
    let _ = writeln!(page, "| active pages | a recall activates | policy | hits % | faults a question | mean recall |");
    let _ = writeln!(page, "|---|---|---|---|---|---|");
    for active in ACTIVE_PAGES {
        let mut of_active = Map::new();
        let most = [active];
        for activated in ACTIVATED.iter().filter(|activated| **activated < active).chain(&most) {
            let mut of_activated = Map::new();
            let base = PagingConfig { max_active_pages: active, activate_max: *activated, ..PagingConfig::default() };
            for (name, policy) in policies {
                let measured = played(talks, vectors, &PagingConfig { eviction_policy: policy, ..base.clone() })?;
                row(&mut page, &mut of_activated, [active, *activated], name, measured);
            }
            of_active.insert(format!("activates_{activated}"), Value::Object(of_activated));
        }
        let mut of_bound = Map::new();
        row(&mut page, &mut of_bound, [active, active], "belady", best(talks, vectors, active)?);
        of_active.extend(of_bound);
        figures.insert(format!("active_{active}"), Value::Object(of_active));
    }
    let _ = writeln!(
        page,
        "\nHybrid without one of its parts, 16 active pages:\n\n| without | hits % | faults a question |\n|---|---|---|"
    );
    let mut ablated = Map::new();
    for (name, weights) in ablations(HybridWeights::default()) {
        let config = PagingConfig { max_active_pages: 16, hybrid: weights, ..PagingConfig::default() };
        let measured = played(talks, vectors, &config)?;
        let _ = writeln!(page, "| {name} | {:.1} | {:.2} |", measured.hits(), measured.faults());
        ablated.insert(name.to_owned(), measured.to_json());
    }
    figures.insert("ablated_16".to_owned(), Value::Object(ablated));
    Ok((page, Value::Object(figures)))
}

fn row(page: &mut String, json: &mut Map<String, Value>, pages: [usize; 2], name: &str, measured: Figures) {
    let [active, activated] = pages;
    let recall = measured.returned.percent()[1];
    let (hits, faults) = (measured.hits(), measured.faults());
    let _ = writeln!(page, "| {active} | {activated} | {name} | {hits:.1} | {faults:.2} | {recall:.1} |");
    json.insert(name.to_owned(), measured.to_json());
}

/// The weights without each part in turn.
fn ablations(weights: HybridWeights) -> [(&'static str, HybridWeights); 6] {
    [
        ("nothing", weights),
        ("relevance", HybridWeights { relevance: 0.0, ..weights }),
        ("recency", HybridWeights { recency: 0.0, ..weights }),
        ("frequency", HybridWeights { frequency: 0.0, ..weights }),
        ("importance", HybridWeights { importance: 0.0, ..weights }),
        ("size", HybridWeights { size: 0.0, ..weights }),
    ]
}

/// Plays all conversations under a configuration.
pub(crate) fn played(talks: &[Talk], vectors: &Vectors, config: &PagingConfig) -> Result<Figures, String> {
    let mut figures = Figures::default();
    for talk in talks {
        add(&mut figures, talk, vectors, config)?;
    }
    Ok(figures)
}

fn add(figures: &mut Figures, talk: &Talk, vectors: &Vectors, config: &PagingConfig) -> Result<(), String> {
    asked_twice(talk, vectors, config, |replay, question| {
        let at = talk.messages.last().map(|message| message.at).unwrap_or_default();
        let answer = replay.ask(question, RecallBudget::default(), at)?;
        figures.questions += 1;
        figures.active += answer.active[0];
        figures.gold += answer.active[1];
        figures.faults += answer.faults;
        figures.returned.count(&answer.found, &question.gold, answer.tokens);
        Ok(())
    })
}

/// Plays a conversation and asks each question when it is fresh and at the end.
fn asked_twice<'d>(
    talk: &Talk,
    vectors: &'d Vectors,
    config: &PagingConfig,
    mut ask: impl FnMut(&mut Replay<'d>, &crate::locomo::Question) -> Result<(), String>,
) -> Result<(), String> {
    let mut before = 0;
    let mut replay = Replay::play(talk, config.clone(), vectors, |replay, said| {
        for question in &talk.questions {
            let last = question.gold.last().map_or(0, |seq| seq.0 as usize);
            if last > before && last <= said {
                ask(replay, question)?;
            }
        }
        before = said;
        Ok(())
    })?;
    talk.questions.iter().try_for_each(|question| ask(&mut replay, question))
}

/// What nobody can be better than, with so many active pages.
fn best(talks: &[Talk], vectors: &Vectors, active: usize) -> Result<Figures, String> {
    let mut figures = Figures::default();
    for talk in talks {
        let (steps, returned) = trace(talk, vectors, active)?;
        let belady = belady(&steps, active);
        figures.questions += belady.questions;
        figures.gold += belady.gold;
        figures.active += belady.active;
        figures.faults += belady.faults;
        figures.returned.add(&returned);
    }
    Ok(figures)
}

/// What happens to a conversation's pages, whatever the policy.
fn trace(talk: &Talk, vectors: &Vectors, active: usize) -> Result<(Vec<Step>, Returned), String> {
    let mut steps = Vec::new();
    let mut known = 0;
    let mut returned = Returned::default();
    let config = PagingConfig { max_active_pages: active, ..PagingConfig::default() };
    let at = talk.messages.last().map(|message| message.at).unwrap_or_default();
    asked_twice(talk, vectors, &config, |replay, question| {
        let sealed = replay.pager.table().pages().skip(known).map(|(page, _)| Step::Sealed(page)).collect::<Vec<_>>();
        known += sealed.len();
        steps.extend(sealed);
        let gold = replay.pages_of(&question.gold);
        let answer = replay.ask(question, RecallBudget::default(), at)?;
        // What a question needs are the pages of its messages; what is read only to be kept is a policy's own affair.
        steps.push(Step::Asked { needed: replay.pages_of(&answer.found).into_iter().collect(), gold });
        returned.count(&answer.found, &question.gold, answer.tokens);
        Ok(())
    })?;
    Ok((steps, returned))
}

fn belady(steps: &[Step], limit: usize) -> Figures {
    let mut figures = Figures::default();
    let mut active: BTreeSet<PageId> = BTreeSet::new();
    for (place, step) in steps.iter().enumerate() {
        match step {
            Step::Sealed(page) => {
                active.insert(*page);
            }
            Step::Asked { needed, gold } => {
                figures.questions += 1;
                figures.gold += gold.len();
                figures.active += gold.iter().filter(|page| active.contains(page)).count();
                figures.faults += needed.difference(&active).count();
                active.extend(needed);
            }
        }
        if active.len() > limit {
            let mut by_need: Vec<(usize, PageId)> =
                active.iter().map(|page| (next_need(&steps[place + 1..], page), *page)).collect();
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
    use super::*;

    #[test]
    fn the_bound_keeps_what_is_needed_next() {
        let page = |number| PageId::from_bytes([number; 16]);
        let asked = |number| Step::Asked { needed: [page(number)].into(), gold: vec![page(number)] };
        let sealed = |number| Step::Sealed(page(number));
        let steps = [sealed(1), sealed(2), sealed(3), asked(1), asked(3), asked(2), asked(1), asked(3)];
        assert_eq!(belady(&steps, 1).faults, 3, "1 stays, which is needed first and again");
        assert_eq!(belady(&steps, 2).faults, 1, "2 is read once and not kept, since nobody needs it again");
        assert_eq!(belady(&steps, 3).faults, 0);
    }
}
