//! The open loop: arrival times are fixed before anything is sent, and latency counts from them.
//!
//! Whoever waits for one answer before sending the next measures a server's good moments only. Here a request that could
//! not leave in time is as late as whoever sent it would have found it. Without a rate everything is due at once, is sent
//! as fast as it is accepted, and counts from when it is sent.
//!
//! Bounds: [`IN_FLIGHT_MAX`] submissions under way at a rate, above which the next ones are late, which shows; and
//! [`AT_ONCE_IN_FLIGHT_MAX`] without one. A submission is tried again, under its one request id, for [`SUBMIT_PATIENCE`]: the
//! server may be overloaded, or killed at the moment. With [`Driver::gives_up`] one that the server has no room for is not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nexa_client::Client;
use nexa_types::Reason;
use tokio_util::sync::CancellationToken;

use crate::dice::Dice;
use crate::shape::Plan;

/// Submissions under way at once when they come at a rate.
pub const IN_FLIGHT_MAX: usize = 4_096;
/// Submissions under way at once when they come as fast as they are accepted.
pub const AT_ONCE_IN_FLIGHT_MAX: usize = 64;
/// How long one submission is tried.
pub const SUBMIT_PATIENCE: Duration = Duration::from_secs(180);
/// The wait after a failed try, unless the server names one.
const RETRY_WAIT: Duration = Duration::from_millis(100);
/// The longest wait that is believed.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(10);
/// What the dice are rolled for.
const ARRIVAL: u64 = 21;

/// When work arrives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// At once.
    AtOnce,
    /// So many a second, at even distances.
    Even(f64),
    /// So many a second on average, by chance, as callers arrive that know nothing of each other.
    Random(f64),
}

impl Arrivals {
    /// The time of each arrival, from the start.
    pub fn times(self, count: usize, seed: u64) -> Vec<Duration> {
        let mut dice = Dice::of(&[seed, ARRIVAL]);
        let mut at = 0.0;
        let mut next = |index: usize| match self {
            Self::AtOnce => 0.0,
            Self::Even(rate) => index as f64 / rate,
            Self::Random(rate) => {
                at += dice.exponential(1.0 / rate);
                at
            }
        };
        (0..count).map(|index| Duration::from_secs_f64(next(index))).collect()
    }
}

/// What became of one submission. Times count from the start of the load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Submitted {
    /// When it was to be sent.
    pub intended: Duration,
    /// When it was sent first.
    pub sent: Duration,
    /// When it was accepted, and as which workload.
    pub accepted: Option<(Duration, String)>,
    /// How long the server took each time to say that it had no room for it.
    pub refusals: Vec<Duration>,
    /// Why it was given up.
    pub error: Option<String>,
}

/// What became of all of them. Shared with whoever looks on.
#[derive(Debug, Default)]
pub struct Board {
    rows: Mutex<Vec<Submitted>>,
    over: AtomicUsize,
}

impl Board {
    fn note(&self, workload: usize, row: Submitted) {
        // Every change under this lock is complete before anything that could panic.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)[workload] = row;
        self.over.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were accepted or given up.
    pub fn over(&self) -> usize {
        self.over.load(Ordering::Relaxed)
    }

    /// A copy of all rows.
    pub fn rows(&self) -> Vec<Submitted> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Who submits what, and when.
#[derive(Clone)]
pub struct Driver {
    /// To whom, by tenant: each door in turn.
    pub clients: Arc<[Vec<Client>]>,
    /// What.
    pub plan: Arc<Plan>,
    /// The program that was put.
    pub module: Arc<str>,
    /// When.
    pub arrivals: Arrivals,
    /// Whether a submission that the server has no room for is not tried again.
    pub gives_up: bool,
    /// Whether a submission that fails is not tried again here: the clients know all doors, and have their own patience.
    pub leaves_it_to_clients: bool,
    /// Ends it early.
    pub stop: CancellationToken,
}

impl Driver {
    /// Submits everything. `start` is the moment from which times count.
    pub async fn submit_all(&self, start: Instant, board: Arc<Board>) {
        let count = self.plan.workloads();
        *board.rows.lock().unwrap_or_else(PoisonError::into_inner) = vec![Submitted::default(); count];
        let times: Arc<[Duration]> = self.arrivals.times(count, self.plan.profile.seed).into();
        let next = Arc::new(AtomicUsize::new(0));
        let mut workers = tokio::task::JoinSet::new();
        let in_flight = if self.arrivals == Arrivals::AtOnce { AT_ONCE_IN_FLIGHT_MAX } else { IN_FLIGHT_MAX };
        for _ in 0..in_flight.min(count) {
            let (driver, board, times, next) =
                (self.clone(), Arc::clone(&board), Arc::clone(&times), Arc::clone(&next));
            workers.spawn(async move {
                while let Some(intended) = {
                    let workload = next.fetch_add(1, Ordering::Relaxed);
                    times.get(workload).map(|intended| (workload, *intended))
                } {
                    let (workload, intended) = intended;
                    tokio::select! {
                        biased;
                        () = driver.stop.cancelled() => return,
                        () = tokio::time::sleep_until((start + intended).into()) => {}
                    }
                    let row = driver.submit(workload, intended, start).await;
                    board.note(workload, row);
                }
            });
        }
        workers.join_all().await;
    }

    async fn submit(&self, workload: usize, intended: Duration, start: Instant) -> Submitted {
        let request = self.plan.submission(workload, &self.module);
        let sent = start.elapsed();
        let intended = if self.arrivals == Arrivals::AtOnce { sent } else { intended };
        let mut row = Submitted { intended, sent, ..Submitted::default() };
        let doors = &self.clients[self.plan.tenant(workload)];
        let mut door = workload % doors.len();
        loop {
            let tried = Instant::now();
            let error = match doors[door].submit(request.clone()).await {
                Ok(answer) => {
                    row.accepted = Some((start.elapsed(), answer.workload_id));
                    return row;
                }
                Err(error) => error,
            };
            let is_refused = error.reason() == Some(Reason::Overloaded);
            // A node that is away, or going, is not the only one.
            let next_door = error.is_unreachable() || error.reason() == Some(Reason::Draining);
            if next_door {
                door = (door + 1) % doors.len();
            }
            if is_refused {
                row.refusals.push(tried.elapsed());
            }
            if is_refused && self.gives_up {
                return row;
            }
            let out_of_time = start.elapsed() > sent + SUBMIT_PATIENCE;
            // A deadline that passed may have been the server's end; the request id makes another try safe.
            let may_pass = error.is_transient() || error.reason() == Some(Reason::DeadlineExceeded);
            if self.leaves_it_to_clients || !may_pass || out_of_time || self.stop.is_cancelled() {
                row.error = Some(error.to_string());
                return row;
            }
            if next_door && door != workload % doors.len() {
                continue;
            }
            let told = error.refusal().and_then(|refusal| refusal.retry_after);
            tokio::time::sleep(told.unwrap_or(RETRY_WAIT).min(RETRY_WAIT_MAX)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_at_the_rate_and_again_at_the_same_times() {
        let random = Arrivals::Random(100.0).times(5_000, 1);
        assert_eq!(random, Arrivals::Random(100.0).times(5_000, 1));
        assert!(random.is_sorted() && (random[4_999].as_secs_f64() - 50.0).abs() < 3.0, "{:?}", random[4_999]);
        assert_eq!(Arrivals::Even(4.0).times(3, 1), [0, 250, 500].map(Duration::from_millis));
        assert_eq!(Arrivals::AtOnce.times(2, 1), [Duration::ZERO; 2]);
    }
}
