//! Policies side by side: those of the pager, which is played with each, those of the literature on the trace of the same
//! conversations, and the best that anybody could do.
//!
//! The two ways differ by more than the policy: in the pager the newest two pages stay whatever comes, and pages that are used
//! together are of the same age. So LRU is measured in both, and says how much that is.

use std::fmt::Write as _;

use nexa_paging::{EvictionPolicy, PagingConfig};
use serde_json::{Map, Value, json};

use crate::baselines::BASELINES;
use crate::measure::rounded;
use crate::trace::{Figures, Trace, belady, kept_by};

/// Pages that one recall makes active at most. As many as may be active are measured, too.
const ACTIVATED: [usize; 5] = [1, 2, 4, 8, 12];

/// Plays all conversations under a configuration; gives what came of each.
pub(crate) type Play<'p> = &'p dyn Fn(&PagingConfig) -> Result<Vec<Figures>, String>;

/// What policies are measured on.
pub(crate) struct Stage<'s> {
    /// How conversations are paged, the policy and how many pages are active aside.
    pub base: PagingConfig,
    /// How many pages are active.
    pub sizes: &'s [usize],
    /// The names of the conversations.
    pub names: Vec<String>,
    /// Their traces.
    pub traces: &'s [Trace],
    /// Through the pager.
    pub play: Play<'s>,
}

/// A policy, and what it made of each conversation.
struct Row {
    policy: &'static str,
    /// As the JSON object has it.
    key: String,
    way: &'static str,
    figures: Vec<Figures>,
}

impl Stage<'_> {
    /// Measures everything; writes tables for people and gives one object.
    pub(crate) fn compare(&self, page: &mut String) -> Result<Map<String, Value>, String> {
        let mut figures = Map::new();
        for active in self.sizes {
            let mut counts: Vec<usize> = ACTIVATED.into_iter().filter(|activated| activated < active).collect();
            counts.push(*active);
            let best: Vec<Figures> = self.traces.iter().map(|trace| belady(trace, *active)).collect();
            let bound = Figures::sum(&best);
            let columns = counts.iter().map(|activated| self.rows(*active, *activated));
            let columns: Vec<Vec<Row>> = columns.collect::<Result<_, _>>()?;
            let all_rows = || columns.iter().flatten().map(|row| Figures::sum(&row.figures));
            if let Some(other) = all_rows().find(|row| (row.mean_recall() - bound.mean_recall()).abs() > 1e-9) {
                let (found, meant) = (other.mean_recall(), bound.mean_recall());
                return Err(format!("a policy finds {found:.1} % of the evidence and another {meant:.1} %"));
            }
            table(page, *active, &counts, &columns, &bound);
            let mut of_active = Map::new();
            for (activated, rows) in counts.iter().zip(&columns) {
                let of_activated = rows.iter().map(|row| (row.key.clone(), with_saved(&row.figures, &bound)));
                of_active.insert(format!("activates_{activated}"), Value::Object(of_activated.collect()));
            }
            of_active.insert("belady".to_owned(), with_saved(&best, &bound));
            figures.insert(format!("active_{active}"), Value::Object(of_active));
        }
        Ok(figures)
    }

    fn rows(&self, active: usize, activated: usize) -> Result<Vec<Row>, String> {
        let config = PagingConfig { max_active_pages: active, activate_max: activated, ..self.base.clone() };
        let mut rows = Vec::new();
        for policy in EvictionPolicy::ALL {
            let figures = (self.play)(&PagingConfig { eviction_policy: policy, ..config.clone() })?;
            rows.push(Row { policy: policy.as_str(), key: policy.as_str().to_owned(), way: "pager", figures });
        }
        for (policy, make) in BASELINES {
            let kept = self.traces.iter().map(|trace| kept_by(&mut *make(active), trace, activated));
            let key = format!("trace_{}", policy.replace('-', "_"));
            rows.push(Row { policy, key, way: "trace", figures: kept.collect() });
        }
        Ok(rows)
    }

    /// Faults a question in each conversation, for one size and number of pages that a recall activates.
    pub(crate) fn by_conversation(&self, page: &mut String, active: usize, activated: usize) -> Result<Value, String> {
        let mut rows = self.rows(active, activated)?;
        let figures = self.traces.iter().map(|trace| belady(trace, active)).collect();
        rows.push(Row { policy: "belady", key: "belady".to_owned(), way: "trace", figures });
        let _ = writeln!(
            page,
            "Faults a question by conversation, {active} active pages, a recall activates {activated}:\n"
        );
        let _ = writeln!(page, "| policy | measured by | {} |", self.names.join(" | "));
        let _ = writeln!(page, "|---|---{}|", "|---".repeat(self.names.len()));
        let mut json = Map::new();
        for row in rows {
            let faults: Vec<f64> = row.figures.iter().map(Figures::faults).collect();
            let cells: Vec<String> = faults.iter().map(|faults| format!("{faults:.2}")).collect();
            let _ = writeln!(page, "| {} | {} | {} |", row.policy, row.way, cells.join(" | "));
            json.insert(row.key, json!(faults.into_iter().map(rounded).collect::<Vec<_>>()));
        }
        page.push('\n');
        Ok(Value::Object(json))
    }
}

fn table(page: &mut String, active: usize, counts: &[usize], columns: &[Vec<Row>], bound: &Figures) {
    let all: Vec<String> = counts.iter().map(usize::to_string).collect();
    let _ = writeln!(page, "{active} active pages, of which a recall activates at most\n");
    let _ = writeln!(page, "| policy | measured by | {} |", all.join(" | "));
    let _ = writeln!(page, "|---|---{}|", "|---".repeat(counts.len()));
    for (nth, first) in columns.first().into_iter().flatten().enumerate() {
        let cells: Vec<String> = columns.iter().map(|rows| cell(&Figures::sum(&rows[nth].figures), bound)).collect();
        let _ = writeln!(page, "| {} | {} | {} |", first.policy, first.way, cells.join(" | "));
    }
    // It chooses by itself what it keeps, and is the same for all.
    let none = "– | ".repeat(counts.len() - 1);
    let _ = writeln!(page, "| belady | trace | {none}{} |\n", cell(bound, bound));
}

fn cell(figures: &Figures, bound: &Figures) -> String {
    format!("{:.1} / {:.2} / {:.0}", figures.hits(), figures.faults(), figures.saved(bound))
}

fn with_saved(figures: &[Figures], bound: &Figures) -> Value {
    let sum = Figures::sum(figures);
    let mut json = sum.to_json();
    json["saved_percent"] = json!(rounded(sum.saved(bound)));
    json
}
