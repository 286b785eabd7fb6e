//! How often the pages that are needed are in memory, by policy.
//!
//! Turns are played in order. A question is asked at the first break after its last evidence, when it is fresh, and once more
//! at the end.

use std::fmt::Write as _;

use nexa_paging::{HybridWeights, PagingConfig, RecallBudget};
use serde_json::{Map, Value, json};

use crate::compare::Stage;
use crate::locomo::{Question, Talk};
use crate::replay::{Answer, Replay};
use crate::trace::{Figures, Step, Trace};
use crate::vectors::Vectors;

/// Active pages that are measured.
const ACTIVE_PAGES: [usize; 4] = [4, 8, 16, 64];

/// Measures all policies; gives a page for people and one object.
pub(crate) fn run(talks: &[Talk], vectors: &Vectors) -> Result<(String, Value), String> {
    let traces = talks.iter().map(|talk| trace(talk, vectors)).collect::<Result<Vec<_>, _>>()?;
    let play = |config: &PagingConfig| played_each(talks, vectors, config);
    let (base, names) = (PagingConfig::default(), talks.iter().map(|talk| talk.name.clone()).collect());
    let stage = Stage { base: base.clone(), sizes: &ACTIVE_PAGES, names, traces: &traces, play: &play };
    let all = Figures::sum(&played_each(talks, vectors, &base)?);
    let mut page = String::new();
    let _ = writeln!(
        page,
        "{} conversations, {} questions asked, each of which needs {:.1} pages on the mean. Mean recall: {:.1}, whatever the policy.\n",
        talks.len(),
        all.questions,
        all.needed as f64 / all.questions.max(1) as f64,
        all.mean_recall(),
    );
    let _ = writeln!(
        page,
        "Cells are hits % / faults a question / reads saved in percent of what *belady* saves. Hits: evidence pages that are active when a question \
         comes. Faults: pages read for a question. Saved: against nothing being active ever.\n"
    );
    let mut figures = Map::new();
    figures.insert("suite".to_owned(), json!("eviction"));
    figures.insert("has_vectors".to_owned(), json!(vectors.are_complete()));
    figures.extend(stage.compare(&mut page)?);
    let of_each = stage.by_conversation(&mut page, base.max_active_pages, base.activated())?;
    figures.insert("by_conversation".to_owned(), of_each);
    let _ = writeln!(page, "Hybrid without one of its parts, {} active pages:\n", base.max_active_pages);
    let _ = writeln!(page, "| without | hits % | faults a question |\n|---|---|---|");
    let mut ablated = Map::new();
    for (name, weights) in ablations(HybridWeights::default()) {
        let measured = played(talks, vectors, &PagingConfig { hybrid: weights, ..base.clone() })?;
        let _ = writeln!(page, "| {name} | {:.1} | {:.2} |", measured.hits(), measured.faults());
        ablated.insert(name.to_owned(), measured.to_json());
    }
    figures.insert("ablated_16".to_owned(), Value::Object(ablated));
    Ok((page, Value::Object(figures)))
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
    Ok(Figures::sum(&played_each(talks, vectors, config)?))
}

fn played_each(talks: &[Talk], vectors: &Vectors, config: &PagingConfig) -> Result<Vec<Figures>, String> {
    talks.iter().map(|talk| played_one(talk, vectors, config)).collect()
}

fn played_one(talk: &Talk, vectors: &Vectors, config: &PagingConfig) -> Result<Figures, String> {
    let mut figures = Figures::default();
    asked_twice(talk, vectors, config, |_, question, answer| {
        figures.questions += 1;
        figures.active += answer.active[0];
        figures.gold += answer.active[1];
        figures.needed += answer.needed.len();
        figures.faults += answer.faults;
        figures.returned.count(&answer.found, &question.gold, answer.tokens);
    })?;
    Ok(figures)
}

/// What happens to a conversation's pages, whatever the policy and however many are active.
fn trace(talk: &Talk, vectors: &Vectors) -> Result<Trace, String> {
    let mut trace = Trace::default();
    let mut known = 0;
    asked_twice(talk, vectors, &PagingConfig::default(), |replay, question, answer| {
        let sealed = replay.pager.table().pages().skip(known).map(|(page, _)| Step::Sealed(page));
        trace.steps.extend(sealed);
        known = replay.pager.table().len();
        // What is needed are the pages of the messages; what is read only to be kept is a policy's own affair.
        trace.steps.push(Step::Asked { needed: answer.needed, gold: replay.pages_of(&question.gold) });
        trace.returned.count(&answer.found, &question.gold, answer.tokens);
    })?;
    Ok(trace)
}

/// Plays a conversation and asks each question when it is fresh and at the end.
fn asked_twice<'d>(
    talk: &Talk,
    vectors: &'d Vectors,
    config: &PagingConfig,
    mut answered: impl FnMut(&Replay<'d>, &Question, Answer),
) -> Result<(), String> {
    let at = talk.messages.last().map(|message| message.at).unwrap_or_default();
    let mut ask = |replay: &mut Replay<'d>, question: &Question| -> Result<(), String> {
        let answer = replay.ask(question, RecallBudget::default(), at)?;
        answered(replay, question, answer);
        Ok(())
    };
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
