//! What came of the scenes: as JSON for programs, as a table for people, and all of it in one sum.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::play::{Played, Verdict};
use crate::scene;

/// The most of effects that may have an unknown end, as a share of those that were sent.
pub(crate) const UNKNOWN_MAX: f64 = 0.005;

/// One word for it.
pub(crate) fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Skipped(_) => "SKIP",
        Verdict::Broken(_) => "BROKEN",
        Verdict::Played(played) if played.violations.is_empty() && unknown_share(played) <= UNKNOWN_MAX => "PASS",
        Verdict::Played(_) => "FAIL",
    }
}

/// Unknown ends, as a share of all effects that were sent.
pub(crate) fn unknown_share(played: &Played) -> f64 {
    share(played.effects.unknown, played.effects.tools + played.effects.models)
}

fn share(part: u64, of: u64) -> f64 {
    part as f64 / of.max(1) as f64
}

/// One scene for programs.
pub(crate) fn json(name: &str, verdict: &Verdict) -> Value {
    let mut value = json!({ "scene": name, "verdict": word(verdict) });
    match verdict {
        Verdict::Skipped(why) | Verdict::Broken(why) => value["why"] = json!(why),
        Verdict::Played(played) => {
            let more = json!({
                "violations": played.violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "operations": played.operations, "refusals": played.refusals, "faults": played.faults,
                "faults_wanted": played.wanted, "faults_hit": played.hit,
                "in_flight_at_faults": played.in_flight, "acknowledged": played.acknowledged, "facts": played.facts,
                "tool_calls": played.effects.tools, "model_requests": played.effects.models,
                "model_requests_reissued": played.effects.reissued, "tool_calls_reissued": played.effects.repeated,
                "unknown": played.effects.unknown, "unknown_share": unknown_share(played),
                "placed_ms": played.placed_ms, "settled_ms": played.settled_ms,
                "lease_lost": played.lease_lost, "store_failed": played.store_failed, "restarted": played.restarted,
                "seconds": played.seconds,
            });
            if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
                value.extend(more);
            }
        }
    }
    value
}

/// What happened to whom, for people: `kill -9` by role, power cuts by whose data it was.
fn kind_of(fault: &str) -> &'static str {
    let victim = fault.rsplit(' ').next().unwrap_or_default();
    match (fault.split([' ', ',']).next(), victim.chars().next()) {
        (Some("kill"), Some('n')) => "kills of nodes",
        (Some("kill"), Some('e')) => "kills of etcd",
        (Some("kill"), Some('p')) => "kills of PostgreSQL",
        (Some("power"), Some('n')) => "power cuts of SQLite",
        (Some("power"), Some('p')) => "power cuts of PostgreSQL",
        _ => "others",
    }
}

/// All scenes together.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    verdicts: BTreeMap<&'static str, usize>,
    /// Scenes that were not played, or not to their end, and why.
    less: Vec<String>,
    failed: Vec<String>,
    faults: BTreeMap<&'static str, usize>,
    hit: usize,
    in_flight: usize,
    acknowledged: usize,
    facts: usize,
    tools: u64,
    models: u64,
    unknown: u64,
    reissued: u64,
    /// What must not happen, by its property.
    broken: BTreeMap<&'static str, usize>,
    /// After which scene's fault something new took longest to end at every door.
    slowest: Option<(u64, String)>,
    seconds: f64,
}

impl Sum {
    /// Of these, which took so long.
    pub(crate) fn of(verdicts: &[(String, Verdict)], seconds: f64) -> Self {
        let mut sum = Self { seconds, ..Self::default() };
        for (name, verdict) in verdicts {
            let word = word(verdict);
            *sum.verdicts.entry(word).or_default() += 1;
            match verdict {
                Verdict::Skipped(why) => sum.less.push(format!("{name}: {}", first_line(why))),
                Verdict::Broken(why) => sum.failed.push(format!("{name}: {}", first_line(why))),
                Verdict::Played(played) => sum.add(name, played),
            }
            if word == "FAIL" {
                sum.failed.push(name.clone());
            }
        }
        sum
    }

    fn add(&mut self, name: &str, played: &Played) {
        let done: usize = played.faults.values().sum();
        if done < played.wanted as usize {
            self.less.push(format!("{name}: {done} of {} faults, as the time was over", played.wanted));
        }
        for (fault, times) in &played.faults {
            *self.faults.entry(kind_of(fault)).or_default() += times;
        }
        for (id, times) in &played.broken {
            *self.broken.entry(*id).or_default() += times;
        }
        (self.hit, self.in_flight) = (self.hit + played.hit, self.in_flight + played.in_flight);
        (self.acknowledged, self.facts) = (self.acknowledged + played.acknowledged, self.facts + played.facts);
        let effects = played.effects;
        (self.tools, self.models) = (self.tools + effects.tools, self.models + effects.models);
        (self.unknown, self.reissued) =
            (self.unknown + effects.unknown, self.reissued + effects.reissued + effects.repeated);
        if let Some(worst) =
            played.placed_ms.iter().max().filter(|ms| self.slowest.as_ref().is_none_or(|it| it.0 < **ms))
        {
            self.slowest = Some((*worst, name.to_owned()));
        }
    }

    /// Whether something was played, and nothing failed.
    pub(crate) fn is_good(&self) -> bool {
        self.failed.is_empty() && self.verdicts.contains_key("PASS")
    }

    fn times(&self, verdict: &str) -> usize {
        self.verdicts.get(verdict).copied().unwrap_or_default()
    }

    fn broken(&self, id: &str) -> usize {
        self.broken.get(id).copied().unwrap_or_default()
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "passed": self.times("PASS"), "failed": self.failed, "skipped_or_cut_short": self.less,
            "faults": self.faults, "faults_hit": self.hit, "in_flight_at_faults": self.in_flight,
            "acknowledged": self.acknowledged, "lost": self.broken("P2"), "done_wrongly": self.broken("P3"),
            "broken": self.broken, "facts": self.facts, "tool_calls": self.tools, "model_requests": self.models,
            "reissued": self.reissued, "unknown": self.unknown,
            "unknown_share_of_sent": share(self.unknown, self.tools + self.models),
            "unknown_share_of_in_flight": share(self.unknown, self.in_flight as u64),
            "slowest_placing_ms": self.slowest.as_ref().map(|it| it.0),
            "slowest_placing_in": self.slowest.as_ref().map(|it| &it.1),
            "seconds": self.seconds,
        })
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let percent = |part: u64, of: u64| format!("{:.2} %", share(part, of) * 100.0);
        let faults: Vec<String> = self.faults.iter().map(|(kind, times)| format!("{times} {kind}")).collect();
        let sent = self.tools + self.models;
        let mut lines = vec![
            format!(
                "scenes           {} passed, {} failed, {} skipped",
                self.times("PASS"),
                self.failed.len(),
                self.times("SKIP")
            ),
            format!("faults           {}; {} of all hit something in flight", faults.join(", "), self.hit),
            format!(
                "acknowledged     {} workloads, {} of them lost or not as they should be",
                self.acknowledged,
                self.broken("P2")
            ),
            format!(
                "effects          {} calls of tools, {} of models; {} done wrongly",
                self.tools,
                self.models,
                self.broken("P3")
            ),
            format!(
                "unknown          {}: {} of those in flight at a fault, {} of all",
                self.unknown,
                percent(self.unknown, self.in_flight as u64),
                percent(self.unknown, sent)
            ),
        ];
        if let Some((ms, name)) = &self.slowest {
            lines.push(format!("slowest placing  {:.1} s after a heal, in {name}", *ms as f64 / 1e3));
        }
        lines.push(format!("time             {:.0} s", self.seconds));
        lines.extend(self.less.iter().map(|less| format!("less             {less}")));
        lines.extend(self.failed.iter().map(|failed| format!("FAILED           {failed}")));
        lines.join("\n")
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// All of them for people.
pub(crate) fn table(verdicts: &[(String, Verdict)]) -> String {
    let mut text = String::from(
        "| scene | verdict | acknowledged | faults (hit) | in flight | tools, models | unknown | reissued | placing again, worst | settled |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (name, verdict) in verdicts {
        // A string takes everything that is written to it.
        let _ = match verdict {
            Verdict::Skipped(why) | Verdict::Broken(why) => {
                writeln!(text, "| {name} | {}: {} | | | | | | | | |", word(verdict), first_line(why))
            }
            Verdict::Played(played) => {
                let faults: usize = played.faults.values().sum();
                let placed =
                    played.placed_ms.iter().max().map_or_else(String::new, |ms| format!("{:.1} s", *ms as f64 / 1e3));
                let effects = played.effects;
                writeln!(
                    text,
                    "| {name} | {} | {} | {faults} ({}) | {} | {}, {} | {} | {} | {placed} | {:.1} s |",
                    word(verdict),
                    played.acknowledged,
                    played.hit,
                    played.in_flight,
                    effects.tools,
                    effects.models,
                    effects.unknown,
                    effects.reissued + effects.repeated,
                    played.settled_ms as f64 / 1e3,
                )
            }
        };
    }
    text
}

/// Why a scene is left out for which there is no time.
pub(crate) fn no_time(scene: &scene::Scene, left: std::time::Duration) -> String {
    format!("no time: {} s are left, and `{}` takes up to a minute", left.as_secs(), scene.name)
}

#[cfg(test)]
mod tests {
    use nexa_history::Violation;

    use super::*;

    fn played(faults: &[(&str, usize)], wanted: u32) -> Played {
        let faults = faults.iter().map(|(fault, times)| ((*fault).to_owned(), *times)).collect();
        Played { faults, wanted, placed_ms: vec![300, 900, 100], in_flight: 200, ..Played::default() }
    }

    #[test]
    fn a_sum_counts_faults_by_their_kinds_and_says_what_was_cut_short() {
        let mut row = played(&[("kill n1", 3), ("kill e2", 2), ("kill pg", 1), ("power cut pg", 4)], 300);
        row.effects.unknown = 1;
        let sum = Sum::of(&[("kills".to_owned(), Verdict::Played(Box::new(row)))], 9.0);
        let faults =
            [("kills of PostgreSQL", 1), ("kills of etcd", 2), ("kills of nodes", 3), ("power cuts of PostgreSQL", 4)];
        assert_eq!(sum.faults, faults.into());
        let json = sum.json();
        assert_eq!((&json["slowest_placing_ms"], &json["unknown_share_of_in_flight"]), (&json!(900), &json!(0.005)));
        let text = sum.text();
        assert!(text.contains("kills: 10 of 300 faults, as the time was over"), "{text}");
    }

    #[test]
    fn a_run_in_which_nothing_was_played_is_not_good_nor_one_with_a_loss() {
        let skipped = ("a".to_owned(), Verdict::Skipped("no `nft`".to_owned()));
        assert!(!Sum::of(std::slice::from_ref(&skipped), 1.0).is_good());
        let good = ("b".to_owned(), Verdict::Played(Box::default()));
        assert!(Sum::of(&[skipped.clone(), good.clone()], 1.0).is_good());
        let lost = Played {
            violations: vec![Violation::new("P2", "it is not there")],
            broken: [("P2", 7)].into(),
            ..Played::default()
        };
        let sum = Sum::of(&[skipped, good, ("c".to_owned(), Verdict::Played(Box::new(lost)))], 1.0);
        assert!(!sum.is_good() && sum.json()["lost"] == 7, "{}", sum.text());
    }
}
