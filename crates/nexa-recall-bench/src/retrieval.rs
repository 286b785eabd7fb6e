//! What of the evidence a query finds: among the first 5 and 10 messages, pages and days, and within so many returned messages.
//!
//! Rows: words, vectors and both, each message by itself; the ranking that is shipped, with words only and with both; and
//! the same asked through the pager turn by turn with few active pages, which must find the same.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use nexa_paging::{MemoryMessage, Mode, PagingConfig, RankWeights, RecallBudget};
use nexa_types::{AgentId, PageId, Timestamp, Version};
use serde_json::{Map, Value, json};

use crate::locomo::{CATEGORIES, Talk};
use crate::measure::{Returned, Score, times};
use crate::replay::Replay;
use crate::vectors::Vectors;

/// Sizes of pages that are measured.
const PAGE_SIZES: [usize; 5] = [1, 2, 4, 8, 16];
/// Active pages that are measured.
const ACTIVE_PAGES: [usize; 3] = [4, 16, 64];
/// Returned messages that are measured.
const RETURNED: [usize; 3] = [20, 40, 80];

/// Messages of the largest agent that is measured: a thousand pages.
const LARGE_MESSAGES: usize = 8_192;

/// Each message by itself, words and vectors the same.
pub(crate) const PLAIN: RankWeights =
    RankWeights { keywords: 0.5, page: 0.0, conversation: 0.0, neighbours: 0.0, date: 0.0, speaker: 0.0 };

/// A way to rank.
struct Method {
    name: &'static str,
    mode: Mode,
    weights: RankWeights,
}

/// What a method found.
#[derive(Default)]
struct Row {
    messages: Score,
    pages: Score,
    days: Score,
    by_category: [Score; 5],
    returned: [Returned; 3],
    took: Vec<Duration>,
}

impl Row {
    fn to_json(&self) -> Value {
        let mut json = self.messages.to_json();
        let [p50, p99] = times(self.took.clone());
        if let Some(fields) = json.as_object_mut() {
            for (level, score) in [("page", self.pages), ("day", self.days)] {
                // Through the pager, messages are asked for.
                if score != Score::default() {
                    fields.insert(level.to_owned(), score.to_json());
                }
            }
            for (count, returned) in RETURNED.iter().zip(&self.returned) {
                fields.insert(format!("returned_{count}"), returned.to_json());
            }
            let categories = CATEGORIES.iter().zip(&self.by_category);
            let categories: Map<String, Value> =
                categories.map(|(name, score)| ((*name).to_owned(), score.to_json())).collect();
            fields.insert("by_category".to_owned(), Value::Object(categories));
            fields.insert("search_p50_ms".to_owned(), json!(p50));
            fields.insert("search_p99_ms".to_owned(), json!(p99));
        }
        json
    }
}

/// Measures everything; gives a page for people and one object.
pub(crate) fn run(talks: &[Talk], vectors: &Vectors) -> Result<(String, Value), String> {
    let shipped = RankWeights::default();
    let mut methods = vec![
        Method { name: "keyword", mode: Mode::Keywords, weights: PLAIN },
        Method { name: "keyword_shipped", mode: Mode::Keywords, weights: shipped },
    ];
    if vectors.are_complete() {
        methods.push(Method { name: "vector", mode: Mode::Vectors, weights: PLAIN });
        methods.push(Method { name: "hybrid_plain", mode: Mode::Hybrid, weights: PLAIN });
        methods.push(Method { name: "hybrid", mode: Mode::Hybrid, weights: shipped });
    }
    let mut page = String::new();
    let mut figures = Map::new();
    let questions: usize = talks.iter().map(|talk| talk.questions.len()).sum();
    let messages: usize = talks.iter().map(|talk| talk.messages.len()).sum();
    let days: usize = talks.iter().map(|talk| talk.breaks.len()).sum();
    figures.insert("suite".to_owned(), json!("retrieval"));
    figures.insert("conversations".to_owned(), json!(talks.len()));
    figures.insert("days".to_owned(), json!(days));
    figures.insert("turns".to_owned(), json!(messages));
    figures.insert("questions".to_owned(), json!(questions));
    figures.insert("has_vectors".to_owned(), json!(vectors.are_complete()));
    figures.insert("embedding_model".to_owned(), json!(vectors.model()));
    let _ = writeln!(page, "{} conversations, {days} days, {messages} messages, {questions} questions.\n", talks.len());

    let default_size = PagingConfig::default().page_size;
    let mut rows: Vec<(String, Row)> = Vec::new();
    for method in &methods {
        rows.push((method.name.to_owned(), ranked(talks, vectors, method, default_size)?));
    }
    for active in ACTIVE_PAGES {
        rows.push((format!("pager_{active}"), paged(talks, vectors, active)?));
    }
    let unbounded = paged(talks, vectors, messages.clamp(1, nexa_paging::ACTIVE_PAGES_MAX))?;
    let lost = rows.iter().filter(|(name, _)| name.starts_with("pager_")).map(|(_, row)| {
        let difference = |level: fn(&Row) -> [f64; 3]| level(&unbounded)[1] - level(row)[1];
        difference(|row| row.messages.at(1)).max(difference(|row| row.returned[1].percent()))
    });
    let lost = lost.fold(0.0, f64::max);
    figures.insert("lost_through_paging".to_owned(), json!(lost));
    rows.push(("pager_unbounded".to_owned(), unbounded));
    tables(&mut page, &rows, default_size);
    let _ = writeln!(page, "Points of recall lost through paging: {lost:.1}.\n");
    let all: Map<String, Value> = rows.iter().map(|(name, row)| (name.clone(), row.to_json())).collect();
    figures.insert("methods".to_owned(), Value::Object(all));

    let _ = writeln!(page, "By size of pages, any / mean recall / all:\n");
    let _ = writeln!(
        page,
        "| page size | method | page, k 5 | page, k 10 | message, k 5 | 40 messages |\n|---|---|---|---|---|---|"
    );
    let mut by_size = Map::new();
    for size in PAGE_SIZES {
        let mut of_size = Map::new();
        for method in &methods {
            let row = ranked(talks, vectors, method, size)?;
            let cells =
                [row.pages.cell(0), row.pages.cell(1), row.messages.cell(0), row.returned[1].cell()].join(" | ");
            let _ = writeln!(page, "| {size} | {} | {cells} |", method.name);
            of_size.insert(method.name.to_owned(), row.to_json());
        }
        by_size.insert(size.to_string(), Value::Object(of_size));
    }
    figures.insert("by_page_size".to_owned(), Value::Object(by_size));
    figures.insert("large_agent".to_owned(), large(&mut page, talks, vectors)?);
    Ok((page, Value::Object(figures)))
}

fn tables(page: &mut String, rows: &[(String, Row)], size: usize) {
    let _ = writeln!(page, "Cells are any@k / mean recall@k / all@k in percent; pages have {size} messages.\n");
    let _ = writeln!(
        page,
        "| method | message, k 5 | message, k 10 | MRR | page, k 5 | page, k 10 | day, k 5 | p50, p99 ms |"
    );
    let _ = writeln!(page, "|---|---|---|---|---|---|---|---|");
    for (name, row) in rows {
        let [p50, p99] = times(row.took.clone());
        let cells = [row.messages.cell(0), row.messages.cell(1), format!("{:.3}", row.messages.mrr())];
        let more = [row.pages.cell(0), row.pages.cell(1), row.days.cell(0)].join(" | ");
        let _ = writeln!(page, "| {name} | {} | {more} | {p50:.2}, {p99:.2} |", cells.join(" | "));
    }
    let _ = writeln!(
        page,
        "\n| at most N messages returned | 20 | 40 | 80 | messages, tokens of 40 |\n|---|---|---|---|---|"
    );
    for (name, row) in rows {
        let [messages, tokens] = row.returned[1].size();
        let cells = row.returned.map(|returned| returned.cell()).join(" | ");
        let _ = writeln!(page, "| {name} | {cells} | {messages:.1}, {tokens:.0} |");
    }
    let _ = writeln!(page, "\n| message, k 10 | {} |\n|---|---|---|---|---|---|", CATEGORIES.join(" | "));
    for (name, row) in rows {
        let _ = writeln!(page, "| {name} | {} |", row.by_category.map(|score| score.cell(1)).join(" | "));
    }
    let _ = writeln!(page);
}

fn config(page_size: usize, active: usize, weights: RankWeights) -> PagingConfig {
    let threshold = if weights == PLAIN { -1.0 } else { PagingConfig::default().similarity_threshold };
    PagingConfig {
        page_size,
        max_active_pages: active,
        similarity_threshold: threshold,
        rank: weights,
        ..PagingConfig::default()
    }
}

/// Ranks everything for each question, without a limit.
fn ranked(talks: &[Talk], vectors: &Vectors, method: &Method, page_size: usize) -> Result<Row, String> {
    let mut row = Row::default();
    for talk in talks {
        let config = config(page_size, PagingConfig::default().max_active_pages, method.weights);
        let replay = Replay::play(talk, config, vectors, |_, _| Ok(()))?;
        let day = |seq: Version| talk.breaks.iter().position(|end| seq.0 <= *end as u64);
        for question in &talk.questions {
            let query = replay.query(question, method.mode);
            let began = Instant::now();
            let found = replay.pager.rank(&query, usize::MAX);
            row.took.push(began.elapsed());
            let messages: Vec<Version> = found.messages.iter().map(|found| found.seq).collect();
            row.count(&messages, question);
            for (count, returned) in RETURNED.into_iter().zip(&mut row.returned) {
                let some = &found.messages[..count.min(messages.len())];
                let tokens = some.iter().map(|found| u64::from(found.tokens)).sum();
                returned.count(&messages[..some.len()], &question.gold, tokens);
            }
            let pages: Vec<PageId> = found.pages.iter().filter_map(|found| found.page).collect();
            row.pages.count(&pages, &replay.pages_of(&question.gold));
            let mut days: Vec<_> = question.gold.iter().map(|seq| day(*seq)).collect();
            days.dedup();
            let found: Vec<_> = found.conversations.iter().map(|(first, _)| day(*first)).collect();
            row.days.count(&found, &days);
        }
    }
    Ok(row)
}

/// Asks each question through the pager, page by page read and let go, with so many active pages.
fn paged(talks: &[Talk], vectors: &Vectors, active: usize) -> Result<Row, String> {
    let mut row = Row::default();
    for talk in talks {
        let config = config(PagingConfig::default().page_size, active, RankWeights::default());
        let mut replay = Replay::play(talk, config, vectors, |_, _| Ok(()))?;
        let at = talk.messages.last().map(|message| message.at).unwrap_or_default();
        for question in &talk.questions {
            for (count, returned) in RETURNED.into_iter().zip(&mut row.returned) {
                let budget = RecallBudget { messages: count, tokens: None };
                let answer = replay.ask(question, budget, at)?;
                returned.count(&answer.found, &question.gold, answer.tokens);
                if count == RETURNED[1] {
                    row.took.push(answer.took);
                    row.messages.count(&answer.found, &question.gold);
                    if let Some(score) = category(&mut row.by_category, question.category) {
                        score.count(&answer.found, &question.gold);
                    }
                }
            }
        }
    }
    Ok(row)
}

/// How long a search takes in an agent that has had all conversations, again and again, and what its memory weighs.
fn large(page: &mut String, talks: &[Talk], vectors: &Vectors) -> Result<Value, String> {
    let mut all = Talk {
        name: "all".to_owned(),
        agent: AgentId::from_bytes([0xff; 16]),
        messages: Vec::new(),
        breaks: Vec::new(),
        questions: Vec::new(),
    };
    for talk in talks.iter().cycle() {
        let before = all.messages.len();
        if before + talk.messages.len() > LARGE_MESSAGES {
            break;
        }
        let moved = talk.messages.iter().map(|message| {
            let seq = Version(message.seq.0 + before as u64);
            MemoryMessage { seq, ..message.clone() }
        });
        all.messages.extend(moved);
        all.breaks.extend(talk.breaks.iter().map(|end| end + before));
    }
    let config = PagingConfig { max_active_pages: 64, ..PagingConfig::default() };
    let mut replay = Replay::play(&all, config, vectors, |_, _| Ok(()))?;
    let mut took = Vec::new();
    for question in talks.iter().flat_map(|talk| &talk.questions) {
        took.push(replay.ask(question, RecallBudget::default(), Timestamp(0))?.took);
    }
    let [p50, p99] = times(took);
    let (messages, pages) = (replay.pager.index().len(), replay.pager.table().len());
    let bytes = replay.pager.index().bytes() / messages.max(1);
    let snapshot = replay.pager.snapshot().len() / pages.max(1);
    let _ = writeln!(
        page,
        "\nAn agent with {messages} messages in {pages} pages, 64 of them active: a search takes {p50:.2} ms (p50) and \
         {p99:.2} ms (p99), the index {bytes} bytes a message, a snapshot {snapshot} bytes a page."
    );
    Ok(json!({
        "messages": messages, "pages": pages, "search_p50_ms": p50, "search_p99_ms": p99,
        "index_bytes_a_message": bytes, "snapshot_bytes_a_page": snapshot,
    }))
}

impl Row {
    fn count(&mut self, messages: &[Version], question: &crate::locomo::Question) {
        self.messages.count(messages, &question.gold);
        if let Some(score) = category(&mut self.by_category, question.category) {
            score.count(messages, &question.gold);
        }
    }
}

fn category(all: &mut [Score; 5], category: u64) -> Option<&mut Score> {
    all.get_mut(usize::try_from(category).ok()?.checked_sub(1)?)
}
