//! Plays numbers on several threads, and gives what came of each in their order.
//!
//! Every job takes the next number as soon as it is done with one. What is done before its turn waits; a job that is
//! [`AHEAD_MAX`] numbers ahead of the first that is missing waits too, so that one long run does not fill the memory.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

/// How many numbers jobs may be ahead of the first whose result is missing.
const AHEAD_MAX: u64 = 1_024;

struct Turns {
    next: u64,
    /// The first whose result was not handed over yet.
    missing: u64,
    end: u64,
}

struct Desk<'a> {
    turns: Mutex<Turns>,
    moved: Condvar,
    stop: &'a AtomicBool,
}

impl Desk<'_> {
    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next number, once it may be played; none if all are, or nobody wants more.
    fn take(&self) -> Option<u64> {
        let mut turns = self.lock();
        loop {
            if turns.next >= turns.end || self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if turns.next < turns.missing.saturating_add(AHEAD_MAX) {
                turns.next += 1;
                return Some(turns.next - 1);
            }
            turns = self.moved.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn handed_over(&self, number: u64) {
        self.lock().missing = number + 1;
        self.moved.notify_all();
    }

    fn end(&self) {
        let mut turns = self.lock();
        turns.end = turns.next;
        self.moved.notify_all();
    }
}

/// Plays the numbers on so many threads, and hands over what came of each, in order, until `take` breaks. Once `stop` is set no
/// further number is begun; those that were are handed over still.
pub(crate) fn in_order<T: Send>(
    numbers: Range<u64>,
    jobs: usize,
    stop: &AtomicBool,
    play: impl Fn(u64) -> T + Sync,
    mut take: impl FnMut(u64, T) -> ControlFlow<()>,
) {
    let mut first = numbers.start;
    let turns = Turns { next: first, missing: first, end: numbers.end };
    let desk = Desk { turns: Mutex::new(turns), moved: Condvar::new(), stop };
    let (done, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (desk, play, done) = (&desk, &play, done.clone());
            scope.spawn(move || {
                while let Some(number) = desk.take() {
                    if done.send((number, play(number))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let mut early = BTreeMap::new();
        'all: for (number, result) in &results {
            early.insert(number, result);
            while let Some(result) = early.remove(&first) {
                if take(first, result).is_break() {
                    break 'all;
                }
                desk.handed_over(first);
                first += 1;
            }
        }
        desk.end();
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    static GO: AtomicBool = AtomicBool::new(false);

    fn played(numbers: Range<u64>, jobs: usize, play: impl Fn(u64) -> u64 + Sync) -> Vec<(u64, u64)> {
        let mut got = Vec::new();
        in_order(numbers, jobs, &GO, play, |number, result| {
            got.push((number, result));
            ControlFlow::Continue(())
        });
        got
    }

    #[test]
    fn results_come_in_order_however_many_jobs_there_are() {
        let expected: Vec<(u64, u64)> = (3..3_000).map(|number| (number, number * 2)).collect();
        for jobs in [0, 1, 2, 7] {
            assert_eq!(played(3..3_000, jobs, |number| number * 2), expected, "{jobs} jobs");
        }
        assert_eq!(played(5..5, 2, |number| number), []);
    }

    #[test]
    fn jobs_play_at_the_same_time() {
        // Each waits for the other, so one after the other would never end.
        let both = Barrier::new(2);
        let got = played(0..2, 2, |number| {
            both.wait();
            number
        });
        assert_eq!(got, [(0, 0), (1, 1)]);
    }

    #[test]
    fn nobody_runs_far_ahead_of_a_long_run() {
        let (highest, done) = (Mutex::new(0), Condvar::new());
        let got = played(0..AHEAD_MAX * 3, 2, |number| {
            if number == 0 {
                // Until the other job has played all that it may.
                let highest = highest.lock().unwrap();
                drop(done.wait_while(highest, |highest| *highest < AHEAD_MAX - 1).unwrap());
            } else {
                let mut highest = highest.lock().unwrap();
                *highest = number.max(*highest);
                done.notify_all();
            }
            *highest.lock().unwrap()
        });
        assert_eq!(got.len() as u64, AHEAD_MAX * 3);
        assert_eq!(got[0].1, AHEAD_MAX - 1);
    }

    #[test]
    fn who_stops_gets_what_was_begun_and_who_breaks_gets_no_more() {
        let (stop, mut got) = (AtomicBool::new(false), Vec::new());
        in_order(
            0..u64::MAX,
            2,
            &stop,
            |number| number,
            |number, _| {
                got.push(number);
                stop.store(number >= 10, Ordering::Relaxed);
                ControlFlow::Continue(())
            },
        );
        assert!(got.len() >= 11 && got.iter().copied().eq(0..got.len() as u64), "{got:?}");
        got.clear();
        in_order(
            0..u64::MAX,
            2,
            &GO,
            |number| number,
            |number, _| {
                got.push(number);
                if number == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        assert_eq!(got, [0, 1, 2, 3, 4]);
    }
}
