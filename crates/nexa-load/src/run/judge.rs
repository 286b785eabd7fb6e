//! The judgement of a load: what came out beside what must have, what was sent beside what is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use futures::{StreamExt, stream};
use nexa_history::{Call, Fault, Logged, Operation, Told};
use nexa_proto::v1;
use nexa_types::Timestamp;

use super::{Course, Load, Outcome};
use crate::LoadError;
use crate::drive::Submitted;
use crate::figures::{Figures, Times, rounded};
use crate::history::{self, Record};
use crate::observe::{self, Seen};
use crate::sample::{self, Sample};
use crate::shape::Shape;
use crate::shares;

/// Histories that are read at once; a server lets more than a thousand watches wait.
const AT_ONCE: usize = 32;

/// What is known of a workload.
#[derive(Default)]
struct History {
    facts: Vec<Logged>,
    calls: Vec<Call>,
}

impl Load {
    /// Compares what came out with what must have.
    pub(super) async fn judge(
        &self,
        rows: &[Submitted],
        course: &Course,
        samples: Vec<Sample>,
    ) -> Result<Outcome, LoadError> {
        let mut figures = Figures {
            agents: self.plan.agents,
            shape: self.plan.shape.name().to_owned(),
            seed: self.plan.profile.seed,
            ..Figures::default()
        };
        let (mut lives, mut runs) = (Vec::new(), Times::default());
        for (workload, row) in rows.iter().enumerate() {
            figures.refused += row.refusals.len() as u64;
            let Some((_, id)) = &row.accepted else {
                if self.settings.gives_up && row.error.is_none() && !row.refusals.is_empty() {
                    continue;
                }
                figures.not_accepted += 1;
                let why = row.error.clone().unwrap_or_else(|| "it was not sent before the end".to_owned());
                figures.first_failure.get_or_insert(format!("submitting: {why}"));
                continue;
            };
            figures.workloads += 1;
            let seen = course.seen.get(id).cloned().unwrap_or_default();
            if let Some(ended) = seen.ended_at.map(|at| self.since_start(at)) {
                lives.push((seen.submitted_at.map(|at| self.since_start(at)).unwrap_or_default(), ended));
                runs.add(ended.saturating_sub(row.intended));
            }
            if seen.state != v1::WorkloadState::Succeeded {
                figures.lost += 1;
                let why = seen.failure.unwrap_or_else(|| format!("it is {}", seen.state.as_str_name()));
                figures.first_failure.get_or_insert(format!("{id}: {why}"));
                continue;
            }
            let value = match seen.value_json {
                Some(value) => value,
                None => self.ask(workload, id).await?.value_json.unwrap_or_default(),
            };
            if !self.plan.is_right(workload, &value) {
                figures.wrong += 1;
                let shown: String = value.chars().take(200).collect();
                figures.first_failure.get_or_insert(format!("{id}: another output than it should have: {shown}"));
            }
        }
        self.count_effects(rows, course, &mut figures).await?;
        let first_steps = self.count_starts(rows, &mut figures).await?;
        let lead = self.start.saturating_duration_since(self.endpoint.started());
        let all_there = rows.iter().filter_map(|row| row.accepted.as_ref()).map(|(at, _)| *at).max();
        let all_there = lead + all_there.unwrap_or_default();
        let shared = shares::shared(&self.endpoint.admissions(), &self.plan, self.settings.limits, all_there);
        (figures.budget_used, figures.jain_index) = (shared.budget_used, shared.jain_index);

        let accepted = |row: &Submitted| row.accepted.as_ref().map(|(at, _)| at.saturating_sub(row.intended));
        let submits: Times = rows.iter().filter_map(accepted).collect();
        figures.refusal_p99_ms = rows.iter().flat_map(|row| row.refusals.iter().copied()).collect::<Times>().ms(0.99);
        figures.submit_p50_ms = submits.ms(0.5).unwrap_or_default();
        figures.submit_p99_ms = submits.ms(0.99).unwrap_or_default();
        (figures.run_p50_ms, figures.run_p99_ms) = (runs.ms(0.5), runs.ms(0.99));
        let first_sent = rows.iter().map(|row| row.sent).min().unwrap_or_default();
        let last_end = lives.iter().map(|(_, ended)| *ended).max().unwrap_or_else(|| self.start.elapsed());
        let wall = last_end.saturating_sub(first_sent).as_secs_f64();
        figures.wall_s = rounded(wall);
        figures.steps_per_s = rounded(figures.steps as f64 / wall.max(1e-3));
        figures.total_pss_mib = samples.iter().map(|sample| sample.pss_mib).reduce(f64::max).map(rounded);
        figures.memory_slope_mib_per_min = sample::slope_mib_per_min(&samples).map(rounded);
        figures.node_cpu_s = samples.last().map(|sample| rounded(sample.cpu_s));
        if let Some(kill) = &course.killed {
            figures.kills = 1;
            // By recorded times, where what ends is a workload; otherwise from the sample that led to it.
            let ended = course.seen.values().filter(|seen| self.ended_before(seen, kill.at)).count();
            figures.ended_at_kill = Some(rounded(match self.plan.shape {
                Shape::Independent | Shape::Pipelines => ended as f64 / self.plan.workloads() as f64,
                Shape::Layers | Shape::Sleepers => kill.share,
            }));
            figures.restart_s = kill.what.restart.map(|restart| rounded(restart.as_secs_f64()));
            figures.killed_node.clone_from(&kill.what.node);
        }
        let most = course.placements.iter().max_by_key(|(_, nodes)| nodes.values().sum::<u64>());
        figures.placement = most.map(|(_, nodes)| nodes.clone()).unwrap_or_default();
        let answers = self.endpoint.answers_by_second().into_iter().skip(lead.as_secs() as usize).collect();
        let killed = course.killed.as_ref().map(|kill| kill.at);
        let placements = course.placements.clone();
        Ok(Outcome { figures, samples, lives, answers, first_steps, runs, killed, placements })
    }

    /// What was sent, how often, and whether that is what is recorded.
    async fn count_effects(&self, rows: &[Submitted], course: &Course, figures: &mut Figures) -> Result<(), LoadError> {
        let totals = self.endpoint.totals();
        figures.model_requests = totals.requests;
        figures.in_flight_peak = totals.in_flight_peak;
        figures.faults = totals.faults;
        figures.rate_limited_share = totals.rate_limited as f64 / totals.requests.max(1) as f64;
        // When everything has ended, every effect that was sent is recorded as ended.
        figures.steps = if figures.lost == 0 { totals.keys } else { totals.answered };

        let id_of = |workload: usize| Some(&rows.get(workload)?.accepted.as_ref()?.1);
        let again = self.endpoint.sent_again();
        let mut wanted: BTreeSet<usize> =
            again.iter().filter_map(|(_, key)| key.tag).map(|tag| self.plan.workload_of_tag(tag as usize)).collect();
        if let Some(kill) = &course.killed {
            // What had ended before was not in flight.
            let before = |id: &String| course.seen.get(id).is_some_and(|seen| self.ended_before(seen, kill.at));
            wanted.extend((0..rows.len()).filter(|workload| id_of(*workload).is_some_and(|id| !before(id))));
        }
        if self.settings.history.is_some() {
            wanted.extend(0..rows.len());
        }
        let ended = |id: &String| course.seen.get(id).is_some_and(Seen::has_ended);
        let readable = wanted.into_iter().filter(|workload| id_of(*workload).is_some_and(ended));
        let mut histories =
            stream::iter(readable).map(|workload| self.history(workload, rows)).buffer_unordered(AT_ONCE);

        let mut record = self.settings.history.as_deref().map(Record::create).transpose()?;
        let mut unexplained: u64 = again.iter().map(|(_, key)| u64::from(key.sent - 1)).sum();
        let killed = course.killed.as_ref().and_then(|kill| Some((kill.what.node.as_ref()?, self.timestamp(kill.at))));
        let mut failovers = Times::default();
        while let Some(history) = histories.next().await {
            let History { facts, calls } = history?;
            figures.histories += 1;
            for violation in history::check(&facts, &calls, &|key| self.endpoint.key(&key.to_string()).sent) {
                figures.violations += 1;
                figures.first_failure.get_or_insert(violation.to_string());
            }
            if let Some(record) = &mut record {
                record.add(&calls, &[], &facts)?;
            }
            if let Some((node, at)) = &killed {
                let resumed = history::resumed(&facts, node, *at).into_iter();
                resumed.for_each(|resumed| failovers.add(Duration::from_millis(resumed.0.saturating_sub(at.0))));
            }
            for (key, attempts) in history::attempts(&facts) {
                let again = u64::from(self.endpoint.key(&key.to_string()).sent.saturating_sub(1));
                let recorded = u64::from(attempts.saturating_sub(1));
                figures.reissued_model_calls += recorded;
                unexplained -= again.min(recorded).min(unexplained);
            }
        }
        if let (Some(record), Some(kill)) = (&mut record, &course.killed) {
            let victim = kill.what.node.clone().unwrap_or_else(|| "the node".to_owned());
            let began = self.timestamp(kill.at).0;
            let healed = began + kill.what.restart.map_or(0, |restart| restart.as_millis() as u64);
            record.add(&[], &[Fault { kind: "kill".to_owned(), victim, began, healed }], &[])?;
        }
        figures.repeated_effects = unexplained;
        figures.failed_over = failovers.len();
        let seconds = |share| failovers.ms(share).map(|ms| rounded(ms / 1e3));
        (figures.failover_p50_s, figures.failover_p90_s) = (seconds(0.5), seconds(0.9));
        figures.failover_max_s = seconds(1.0);
        Ok(())
    }

    /// The history of a workload that was accepted and has ended, and what clients asked about it.
    async fn history(&self, workload: usize, rows: &[Submitted]) -> Result<History, LoadError> {
        let row = &rows[workload];
        let Some((at, id)) = &row.accepted else { return Ok(History::default()) };
        let Ok(parsed) = id.parse() else { return Ok(History::default()) };
        let client = &self.clients[self.plan.tenant(workload)];
        let facts = history::read(client, parsed, self.plan.items(workload)).await?;
        let (invoked, returned) = (row.sent.as_micros() as u64, at.as_micros() as u64);
        let submit = Call { operation: Operation::Submit, workload: parsed, invoked, returned, told: Told::Ok(None) };
        let mut calls = vec![submit];
        calls.extend(self.asked_about(parsed));
        Ok(History { facts, calls })
    }

    /// When the first step of each workload was, and of the last one.
    async fn count_starts(&self, rows: &[Submitted], figures: &mut Figures) -> Result<Times, LoadError> {
        let mut first: Vec<Option<Duration>> = vec![None; rows.len()];
        let (mut last, mut begun) = (Duration::ZERO, 0);
        let mut note = |workload: usize, at: Duration| {
            (last, begun) = (last.max(at), begun + 1);
            if let Some(first) = first.get_mut(workload) {
                *first = Some(first.map_or(at, |known| known.min(at)));
            }
        };
        let expected = if self.plan.shape == Shape::Sleepers {
            let ids: BTreeMap<&str, usize> = (0..)
                .zip(rows)
                .filter_map(|(workload, row)| row.accepted.as_ref().map(|(_, id)| (id.as_str(), workload)))
                .collect();
            for client in self.clients.iter() {
                for (id, at) in observe::starts(client).await? {
                    if let Some(workload) = ids.get(id.as_str()) {
                        note(*workload, self.since_start(at));
                    }
                }
            }
            self.plan.agents
        } else {
            let lead = self.start.saturating_duration_since(self.endpoint.started());
            for tag in 0..self.plan.tags() {
                if let Some(at) = self.endpoint.first_of_tag(tag) {
                    note(self.plan.workload_of_tag(tag), at.saturating_sub(lead));
                }
            }
            self.plan.tags()
        };
        let first_sent = rows.iter().map(|row| row.sent).min().unwrap_or_default();
        if begun == expected {
            figures.all_running_s = Some(rounded(last.saturating_sub(first_sent).as_secs_f64()));
        }
        let pairs = first.iter().zip(rows).filter_map(|(first, row)| Some((*first)?.saturating_sub(row.intended)));
        let times: Times = pairs.collect();
        figures.submit_to_first_step_p99_ms = times.ms(0.99);
        Ok(times)
    }

    fn ended_before(&self, seen: &Seen, at: Duration) -> bool {
        seen.ended_at.is_some_and(|ended| self.since_start(ended) < at)
    }

    /// A moment of the load as the log has it.
    fn timestamp(&self, at: Duration) -> Timestamp {
        let since = (self.began + at).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(since.as_millis() as u64)
    }

    fn since_start(&self, at: SystemTime) -> Duration {
        at.duration_since(self.began).unwrap_or_default()
    }
}
