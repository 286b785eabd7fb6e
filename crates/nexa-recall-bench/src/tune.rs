//! Chooses weights with one conversation left out in turn: what is chosen on the others is measured on it. So the figures say
//! what to expect of conversations that nobody has tuned for.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use nexa_paging::{HybridWeights, Mode, PagingConfig, RankWeights};
use nexa_types::Version;
use serde_json::{Value, json};

use crate::eviction;
use crate::locomo::Talk;
use crate::measure::{Returned, Score, rounded};
use crate::replay::Replay;
use crate::vectors::Vectors;

/// Values that weights of the ranking may take: round ones, so that little can be fitted.
const RANK_STEPS: [(&str, &[f64]); 6] = [
    ("keywords", &[0.4, 0.5, 0.6]),
    ("page", &[0.0, 0.25, 0.5, 0.75, 1.0]),
    ("conversation", &[0.0, 0.1, 0.25, 0.5]),
    ("neighbours", &[0.0, 0.1, 0.2, 0.3]),
    ("date", &[0.0, 0.1, 0.2]),
    ("speaker", &[0.0, 0.1, 0.2]),
];
const EVICTION_STEPS: [f64; 5] = [0.0, 0.15, 0.3, 0.45, 0.6];
/// Times that each weight is looked at anew.
const ROUNDS: usize = 2;

/// Chooses the weights of the ranking and of eviction.
pub(crate) fn run(talks: &[Talk], vectors: &Vectors) -> Result<(String, Value), String> {
    let mut page = String::new();
    let mut played = Vec::new();
    for talk in talks {
        played.push(Replay::play(talk, PagingConfig::default(), vectors, |_, _| Ok(()))?);
    }
    let mut known: BTreeMap<(usize, String), [f64; 4]> = BTreeMap::new();
    let mut scored = |which: &[usize], weights: &[f64]| -> [f64; 4] {
        let mut sum = [0.0; 4];
        for talk in which {
            let of_talk = known
                .entry((*talk, format!("{weights:?}")))
                .or_insert_with(|| quality(&talks[*talk], &mut played[*talk], &rank_weights(weights)));
            sum.iter_mut().zip(*of_talk).for_each(|(sum, part)| *sum += part);
        }
        sum
    };
    let default = RankWeights::default();
    let start =
        [default.keywords, default.page, default.conversation, default.neighbours, default.date, default.speaker];
    let steps: Vec<&[f64]> = RANK_STEPS.iter().map(|(_, steps)| *steps).collect();
    let all: Vec<usize> = (0..talks.len()).collect();
    let names: Vec<&str> = RANK_STEPS.iter().map(|(name, _)| *name).collect();
    let _ = writeln!(page, "Weights of the ranking ({}):\n", names.join(", "));
    let asked = |which: &[usize]| which.iter().map(|talk| talks[*talk].questions.len() as f64).sum::<f64>();
    let mut held_out = [0.0; 4];
    for left_out in &all {
        let others: Vec<usize> = all.iter().copied().filter(|talk| talk != left_out).collect();
        let chosen = climbed(&start, &steps, |weights| scored(&others, weights).iter().sum());
        let on_it = scored(&[*left_out], &chosen);
        held_out.iter_mut().zip(on_it).for_each(|(sum, part)| *sum += part);
        let own = on_it.map(|part| rounded(100.0 * part / asked(&[*left_out])));
        let _ = writeln!(page, "- without {}: {chosen:?}, on it {own:?}", talks[*left_out].name);
    }
    let percent = |sums: [f64; 4]| sums.map(|sum| rounded(100.0 * sum / asked(&all)));
    let chosen = climbed(&start, &steps, |weights| scored(&all, weights).iter().sum());
    let [held, tuned, shipped] = [held_out, scored(&all, &chosen), scored(&all, &start)].map(percent);
    let _ = writeln!(page, "- on all: {chosen:?}\n\nmessage any@5, any@10, mean recall and all of 40 returned:\n");
    let _ = writeln!(
        page,
        "- each on the conversation that was left out: {held:?}\n- chosen and measured on all: {tuned:?}"
    );
    let _ = writeln!(page, "- shipped: {shipped:?}\n");
    for (place, (name, steps)) in RANK_STEPS.iter().enumerate() {
        for step in *steps {
            let mut weights = start;
            weights[place] = *step;
            let _ = writeln!(page, "  {name} {step}: {:?}", percent(scored(&all, &weights)));
        }
    }
    let evicted = eviction_weights(&mut page, talks, vectors)?;
    let json = json!({ "suite": "tune", "left_out": held, "tuned": tuned, "shipped": shipped, "weights": chosen, "eviction": evicted });
    Ok((page, json))
}

fn rank_weights(weights: &[f64]) -> RankWeights {
    match *weights {
        [keywords, page, conversation, neighbours, date, speaker] => {
            RankWeights { keywords, page, conversation, neighbours, date, speaker }
        }
        _ => RankWeights::default(),
    }
}

/// Sums over a conversation's questions: any@5, any@10, mean recall and all of 40 returned messages.
fn quality(talk: &Talk, replay: &mut Replay<'_>, weights: &RankWeights) -> [f64; 4] {
    if let Err(error) = replay.pager.set_rank(*weights) {
        eprintln!("tune: {error}");
        return [0.0; 4];
    }
    let (mut score, mut returned) = (Score::default(), Returned::default());
    for question in &talk.questions {
        let found = replay.pager.rank(&replay.query(question, Mode::Hybrid), 40);
        let messages: Vec<Version> = found.messages.iter().map(|found| found.seq).collect();
        score.count(&messages, &question.gold);
        returned.count(&messages, &question.gold, 0);
    }
    let count = talk.questions.len() as f64 / 100.0;
    [score.at(0)[0], score.at(1)[0], returned.percent()[1], returned.percent()[2]].map(|percent| percent * count)
}

/// Changes one weight after the other to the best of its values, as long as that is better.
fn climbed(start: &[f64], steps: &[&[f64]], mut score: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    let mut best = start.to_vec();
    let mut best_score = score(&best);
    for _ in 0..ROUNDS {
        for (place, values) in steps.iter().enumerate() {
            for value in *values {
                let mut other = best.clone();
                other[place] = *value;
                let other_score = score(&other);
                if other_score > best_score + 1e-9 {
                    (best, best_score) = (other, other_score);
                }
            }
        }
    }
    best
}

/// Weights of eviction: faults a question with 4 and 16 active pages.
fn eviction_weights(page: &mut String, talks: &[Talk], vectors: &Vectors) -> Result<Value, String> {
    let mut known: BTreeMap<(usize, String), f64> = BTreeMap::new();
    let mut failed = None;
    let mut faults = |which: &[usize], weights: &[f64]| -> f64 {
        let mut sum = 0.0;
        for talk in which {
            let cost = known.entry((*talk, format!("{weights:?}"))).or_insert_with(|| {
                let of_active = |active| {
                    let hybrid = hybrid_weights(weights);
                    let config = PagingConfig { max_active_pages: active, hybrid, ..PagingConfig::default() };
                    eviction::played(&talks[*talk..=*talk], vectors, &config).map(|figures| figures.faults())
                };
                let cost = of_active(4).and_then(|few| Ok(few + of_active(16)?));
                cost.unwrap_or_else(|error| {
                    failed = Some(error);
                    f64::MAX
                })
            });
            sum += *cost;
        }
        sum / which.len().max(1) as f64
    };
    let default = HybridWeights::default();
    let start = [default.relevance, default.recency, default.frequency, default.importance, default.size];
    let steps: Vec<&[f64]> = vec![&EVICTION_STEPS; start.len()];
    let all: Vec<usize> = (0..talks.len()).collect();
    let _ = writeln!(page, "Weights of eviction (relevance, recency, frequency, importance, size):\n");
    let mut held_out = 0.0;
    for left_out in &all {
        let others: Vec<usize> = all.iter().copied().filter(|talk| talk != left_out).collect();
        let chosen = climbed(&start, &steps, |weights| -faults(&others, weights));
        let own = faults(&[*left_out], &chosen);
        held_out += own / all.len() as f64;
        let _ = writeln!(page, "- without {}: {chosen:?}, on it {own:.2}", talks[*left_out].name);
    }
    let chosen = climbed(&start, &steps, |weights| -faults(&all, weights));
    let (tuned, shipped) = (faults(&all, &chosen), faults(&all, &start));
    let _ = writeln!(page, "- on all: {chosen:?}\n\nfaults a question with 4 and with 16 active pages, added:\n");
    let _ = writeln!(page, "- left out {held_out:.2}, chosen and measured on all {tuned:.2}, shipped {shipped:.2}");
    match failed {
        Some(error) => Err(error),
        None => Ok(
            json!({ "left_out": rounded(held_out), "tuned": rounded(tuned), "shipped": rounded(shipped), "weights": chosen }),
        ),
    }
}

fn hybrid_weights(weights: &[f64]) -> HybridWeights {
    match *weights {
        [relevance, recency, frequency, importance, size] => {
            HybridWeights { relevance, recency, frequency, importance, size }
        }
        _ => HybridWeights::default(),
    }
}
