//! The judgement of a load: what came out beside what must have, what was sent beside what is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use nexa_proto::v1;

use super::{Course, Load, Outcome};
use crate::LoadError;
use crate::drive::Submitted;
use crate::figures::{Figures, Times, rounded};
use crate::observe::{self, Seen};
use crate::sample::{self, Sample};
use crate::shape::Shape;
use crate::shares;

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
                None => {
                    observe::whole(&self.clients[self.plan.tenant(workload)], id).await?.value_json.unwrap_or_default()
                }
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

        let id_of = |workload: usize| {
            let id = rows.get(workload).and_then(|row| row.accepted.as_ref()).map(|(_, id)| id.clone());
            id.map(|id| (self.plan.tenant(workload), id))
        };
        let again = self.endpoint.sent_again();
        let mut suspects: Vec<(usize, String)> = again
            .iter()
            .filter_map(|(_, key)| key.tag)
            .filter_map(|tag| id_of(self.plan.workload_of_tag(tag as usize)))
            .collect();
        if let Some(kill) = &course.killed {
            // What had ended before was not in flight.
            let before: BTreeSet<&String> =
                course.seen.iter().filter(|(_, seen)| self.ended_before(seen, kill.at)).map(|(id, _)| id).collect();
            suspects.extend((0..rows.len()).filter_map(id_of).filter(|(_, id)| !before.contains(id)));
        }
        suspects.sort_unstable();
        suspects.dedup();
        suspects.retain(|(_, id)| course.seen.get(id).is_some_and(Seen::has_ended));
        let mut unexplained: u64 = again.iter().map(|(_, key)| u64::from(key.sent - 1)).sum();
        let killed = course.killed.as_ref().and_then(|kill| Some((kill.what.node.clone()?, self.began + kill.at)));
        let mut failovers = Times::default();
        for (tenant, client) in self.clients.iter().enumerate() {
            let of_tenant = suspects.iter().filter(|(of, _)| *of == tenant).map(|(_, id)| id.clone()).collect();
            let histories = observe::histories(client, of_tenant, killed.clone()).await?;
            for resumed in histories.iter().flat_map(|history| &history.resumed) {
                let killed_at = killed.as_ref().map_or(self.began, |(_, at)| *at);
                failovers.add(resumed.duration_since(killed_at).unwrap_or_default());
            }
            for effect in histories.into_iter().flat_map(|history| history.attempts) {
                let again = u64::from(self.endpoint.key(&effect.key).sent.saturating_sub(1));
                let recorded = u64::from(effect.attempts.saturating_sub(1));
                figures.reissued_model_calls += recorded;
                unexplained -= again.min(recorded).min(unexplained);
            }
        }
        figures.repeated_effects = unexplained;
        figures.failed_over = failovers.len();
        let seconds = |share| failovers.ms(share).map(|ms| rounded(ms / 1e3));
        (figures.failover_p50_s, figures.failover_p90_s) = (seconds(0.5), seconds(0.9));
        figures.failover_max_s = seconds(1.0);
        Ok(())
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

    fn since_start(&self, at: SystemTime) -> Duration {
        at.duration_since(self.began).unwrap_or_default()
    }
}
