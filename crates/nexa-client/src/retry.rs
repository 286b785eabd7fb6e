//! Trying again, within a deadline and a budget.
//!
//! Every call of the surface is safe to repeat: queries change nothing, and commands carry a request id. A call is tried
//! again if the server is away, draining or overloaded. The server's own word on when to come back is kept, and a little
//! added by chance; without it the wait is taken by chance from one that doubles, so that callers who failed together do
//! not come back together.
//!
//! A client that knows several doors goes round them first: see [`doors`]. All of a round is one attempt.
//!
//! Bounds: [`Patience`] for one call, and [`Budget`] for all calls of a client, because a server that fails everybody must not
//! get twice the load for it. Then the last error stands. Each attempt that brings new work asks the [`throttle`] first,
//! unless an earlier one may have been accepted: then it asks what became of that.
//!
//! [`throttle`]: crate::throttle
//! [`doors`]: crate::doors

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nexa_types::Reason;
use tokio::time::{Instant, sleep};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::ClientError;
use crate::doors::{Turn, is_of_the_door};
use crate::throttle::{Fate, Throttle};

/// Calls that pay for one retry: in the long run no more than a fifth is added to what a client asks for.
pub const CALLS_PER_RETRY: u32 = 5;
/// Retries that a client may have saved up, and has from the start. Then: a call that fails is not tried again.
pub const RETRIES_SAVED_MAX: u32 = 100;

/// How long and how often to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The deadline of a call, all attempts together. Then: [`ClientError::Deadline`], or the last error.
    pub deadline: Duration,
    /// How often a call is sent to each door at most, and how often in a row a watch is opened there without a frame.
    pub attempts_max: u32,
    /// The longest wait before the second attempt; it doubles, and chance takes any part of it off.
    pub first_wait: Duration,
    /// The longest wait that doubling leads to. A server may ask for a longer one.
    pub wait_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            attempts_max: 6,
            first_wait: Duration::from_millis(100),
            wait_max: Duration::from_secs(5),
        }
    }
}

impl Patience {
    /// How long to wait after attempt `attempt` (from 1) failed.
    pub(crate) fn wait(&self, attempt: u32, error: &ClientError) -> Duration {
        // The low half of a fresh UUID is as random as this needs.
        self.wait_by(attempt, error, f64::from(Uuid::now_v7().as_u128() as u32) / f64::from(u32::MAX))
    }

    /// The same by a chance from 0 to 1.
    fn wait_by(&self, attempt: u32, error: &ClientError, chance: f64) -> Duration {
        if let Some(said) = error.refusal().and_then(|refusal| refusal.retry_after) {
            return said.mul_f64(1.0 + chance / 4.0);
        }
        let whole = self.first_wait.saturating_mul(1 << (attempt - 1).min(16)).min(self.wait_max);
        whole.mul_f64(chance)
    }
}

/// What a client and its clones may spend on retries: each call pays for a part of one.
#[derive(Debug)]
pub(crate) struct Budget {
    /// In calls.
    saved: AtomicU32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { saved: AtomicU32::new(Self::SAVED_MAX) }
    }
}

impl Budget {
    const SAVED_MAX: u32 = RETRIES_SAVED_MAX * CALLS_PER_RETRY;

    fn pay_in(&self) {
        let more = |saved: u32| (saved < Self::SAVED_MAX).then(|| saved + 1);
        // Full is full.
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether there is enough for one retry, which is spent then.
    fn spend(&self) -> bool {
        let less = |saved: u32| saved.checked_sub(CALLS_PER_RETRY);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// What an attempt is sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// What is left of the deadline.
    pub(crate) left: Duration,
    /// Earlier attempts of which nobody knows whether they did something.
    pub(crate) unsure: u32,
    /// Where to.
    pub(crate) door: usize,
}

/// Sends a call until it is answered, refused for good, out of time, or out of budget. One that brings new work comes with
/// the throttle.
pub(crate) async fn call<T, Fut>(
    patience: Patience,
    budget: &Budget,
    throttle: Option<&Throttle>,
    turn: &Turn,
    mut send: impl FnMut(Attempt) -> Fut,
) -> Result<T, ClientError>
where
    Fut: Future<Output = Result<Response<T>, Status>>,
{
    budget.pay_in();
    let end = Instant::now() + patience.deadline;
    let (mut attempt, mut unsure, mut left_doors) = (1, 0, 0);
    loop {
        let door = turn.current();
        let left = end.saturating_duration_since(Instant::now());
        let may_send = match throttle.filter(|_| unsure == 0) {
            None => Ok(None),
            Some(throttle) => match tokio::time::timeout(left, throttle.ask()).await {
                Ok(place) => place.map(Some),
                Err(_) => return Err(ClientError::Deadline),
            },
        };
        let left = end.saturating_duration_since(Instant::now());
        let error = match may_send {
            Err(held_back) => held_back,
            Ok(_place) => match tokio::time::timeout(left, send(Attempt { left, unsure, door })).await {
                Ok(answer) => {
                    let answer = answer.map_err(ClientError::from);
                    let fate = answer.as_ref().map_or_else(Fate::of, |_| Some(Fate::Accepted));
                    if let (Some(throttle), Some(fate)) = (throttle, fate) {
                        throttle.told(fate);
                    }
                    match answer {
                        Ok(response) => return Ok(response.into_inner()),
                        Err(error) => error,
                    }
                }
                Err(_) => {
                    // Whoever asks next had better not wait for the same one.
                    turn.move_on(door);
                    return Err(ClientError::Deadline);
                }
            },
        };
        if is_of_the_door(&error) {
            turn.move_on(door);
            left_doors += 1;
            if error.is_transient() && left_doors < turn.count() {
                unsure += u32::from(!did_nothing(&error));
                turn.note_again();
                continue;
            }
            left_doors = 0;
        }
        if !error.is_transient() || attempt >= patience.attempts_max {
            return Err(error);
        }
        let wait = patience.wait(attempt, &error);
        if Instant::now() + wait >= end || (was_answered(&error) && !budget.spend()) {
            return Err(error);
        }
        sleep(wait).await;
        attempt += 1;
        unsure += u32::from(!did_nothing(&error));
        turn.note_again();
    }
}

/// Whether a server has done work for the failure. Asking where nobody answers, or what is not sent, adds nothing to anybody's load, so that a
/// client outlasts a restart.
fn was_answered(error: &ClientError) -> bool {
    match error {
        ClientError::Transport { code, .. } => *code == Code::ResourceExhausted,
        ClientError::Lost { .. } | ClientError::HeldBack(_) => false,
        _ => true,
    }
}

/// Whether a call that failed so has certainly changed nothing.
fn did_nothing(error: &ClientError) -> bool {
    matches!(error.reason(), Some(Reason::Overloaded | Reason::Draining))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use nexa_proto::refusal::Refusal;
    use nexa_types::Reason;

    use super::*;

    /// Of a client with one door.
    fn turn() -> &'static Turn {
        static TURN: std::sync::OnceLock<Turn> = std::sync::OnceLock::new();
        TURN.get_or_init(|| Turn::new(1, 0))
    }

    async fn sent(patience: Patience, answers: &[Option<Reason>]) -> (u32, Result<(), ClientError>) {
        sent_by(&Budget::default(), patience, answers).await
    }

    async fn sent_by(
        budget: &Budget,
        patience: Patience,
        answers: &[Option<Reason>],
    ) -> (u32, Result<(), ClientError>) {
        let count = Cell::new(0);
        let result = call(patience, budget, None, turn(), |_| {
            let answer = answers.get(count.get() as usize).copied().unwrap_or(None);
            count.set(count.get() + 1);
            async move {
                match answer {
                    None => Ok(Response::new(())),
                    Some(reason) => Err(Refusal::new(reason, "no").into()),
                }
            }
        })
        .await;
        (count.get(), result)
    }

    #[tokio::test(start_paused = true)]
    async fn an_overloaded_server_is_asked_again() {
        let (count, result) = sent(Patience::default(), &[Some(Reason::Overloaded), Some(Reason::Draining)]).await;
        assert!(result.is_ok());
        assert_eq!(count, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_for_good_is_final() {
        let (count, result) = sent(Patience::default(), &[Some(Reason::NotFound)]).await;
        assert_eq!(result.expect_err("refused").reason(), Some(Reason::NotFound));
        assert_eq!(count, 1);
    }

    /// Which doors are asked, by what each of them says.
    async fn round(
        turn: &Turn,
        patience: Patience,
        says: impl Fn(usize) -> Option<Status>,
    ) -> (Vec<usize>, Result<(), ClientError>) {
        let (asked, budget) = (Cell::new(Vec::new()), Budget::default());
        let result = call(patience, &budget, None, turn, |attempt| {
            let mut all = asked.take();
            all.push(attempt.door);
            asked.set(all);
            let said = says(attempt.door);
            async move { said.map_or(Ok(Response::new(())), Err) }
        });
        let result = result.await;
        (asked.take(), result)
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_a_node_away_or_going_asks_the_next_one_at_once_and_stays_there() {
        let (turn, started) = (Turn::new(3, 0), Instant::now());
        let going = Refusal::new(Reason::Draining, "no").after(Duration::from_secs(9));
        let says = |door| match door {
            0 => Some(Status::from(going.clone())),
            1 => Some(Status::unavailable("nobody answers")),
            _ => None,
        };
        let (asked, result) = round(&turn, Patience::default(), says).await;
        result.expect("the third takes it");
        assert_eq!((asked, started.elapsed()), (vec![0, 1, 2], Duration::ZERO));
        assert_eq!(round(&turn, Patience::default(), says).await.0, [2], "the next call goes there first");
        assert_eq!(turn.sent_again(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_been_round_waits_and_goes_round_again_as_often_as_attempts_are_allowed() {
        let (turn, started) = (Turn::new(3, 1), Instant::now());
        let patience = Patience { attempts_max: 2, ..Patience::default() };
        let away = |_| Some(Status::unavailable("nobody answers"));
        let (asked, result) = round(&turn, patience, away).await;
        assert!(result.expect_err("all are away").is_unreachable());
        assert_eq!(asked, [1, 2, 0, 1, 2, 0]);
        assert!(started.elapsed() <= patience.first_wait);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_is_not_the_nodes_own_is_not_taken_elsewhere() {
        let turn = Turn::new(3, 0);
        let patience = Patience { attempts_max: 3, ..Patience::default() };
        let full = |_| Some(Status::from(Refusal::new(Reason::Overloaded, "no")));
        assert_eq!(round(&turn, patience, full).await.0, [0; 3]);
        let gone = |_| Some(Status::from(Refusal::new(Reason::NotFound, "no")));
        assert_eq!(round(&turn, patience, gone).await.0, [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_end() {
        let patience = Patience { attempts_max: 3, ..Patience::default() };
        let (count, result) = sent(patience, &[Some(Reason::StoreUnavailable); 9]).await;
        assert_eq!(result.expect_err("refused").reason(), Some(Reason::StoreUnavailable));
        assert_eq!(count, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_ends_with_the_deadline() {
        let started = Instant::now();
        let result: Result<(), _> = call(Patience::default(), &Budget::default(), None, turn(), |_| {
            std::future::pending::<Result<Response<()>, Status>>()
        })
        .await;
        assert_eq!(result.expect_err("no answer").reason(), Some(Reason::DeadlineExceeded));
        assert_eq!(started.elapsed(), Patience::default().deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_fails_everybody_gets_a_fifth_more_and_not_twice_the_load() {
        let (budget, calls) = (Budget::default(), 10_000);
        let mut sent = 0;
        for _ in 0..calls {
            let (count, result) = sent_by(&budget, Patience::default(), &[Some(Reason::Overloaded); 9]).await;
            assert_eq!(result.expect_err("refused").reason(), Some(Reason::Overloaded));
            sent += count;
        }
        let most = calls / CALLS_PER_RETRY + RETRIES_SAVED_MAX;
        assert!((most - 1..=most).contains(&(sent - calls)), "{} retries of {most}", sent - calls);
        let away = || Err::<Response<()>, _>(Status::unavailable("nobody answers"));
        let count = Cell::new(0);
        let result = call(Patience::default(), &budget, None, turn(), |_| {
            count.set(count.get() + 1);
            async move { away() }
        });
        assert!(result.await.is_err());
        assert_eq!(count.get(), Patience::default().attempts_max, "where nobody answers, asking is free");
        for _ in 0..CALLS_PER_RETRY * RETRIES_SAVED_MAX * 2 {
            assert!(sent_by(&budget, Patience::default(), &[]).await.1.is_ok());
        }
        assert_eq!(budget.saved.load(Ordering::Relaxed), Budget::SAVED_MAX, "saving has an end, too");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_says_of_how_many_before_it_nobody_knows_what_they_did() {
        let told = Cell::new(Vec::new());
        let answers = [Reason::Overloaded, Reason::StoreUnavailable, Reason::Draining];
        let mut next = answers.into_iter();
        let budget = Budget::default();
        let result = call(Patience::default(), &budget, None, turn(), |attempt| {
            let mut seen = told.take();
            seen.push(attempt.unsure);
            told.set(seen);
            let answer = next.next();
            async move { answer.map_or(Ok(Response::new(())), |reason| Err(Refusal::new(reason, "no").into())) }
        });
        result.await.expect("answered at last");
        assert_eq!(told.take(), [0, 0, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_told_to_come_back_after_the_deadline_gives_up_at_once() {
        let started = Instant::now();
        let answer = || Refusal::new(Reason::Overloaded, "no").after(Duration::from_secs(60));
        let result: Result<(), _> =
            call(Patience::default(), &Budget::default(), None, turn(), |_| async move { Err(answer().into()) }).await;
        assert_eq!(result.expect_err("refused").refusal().and_then(|it| it.retry_after), answer().retry_after);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    /// A throttle whose server has refused all of many.
    fn refused_by_all(throttle: &Throttle) {
        (0..1_000).for_each(|_| throttle.told(Fate::Refused(Some(Duration::from_millis(10)))));
    }

    #[tokio::test(start_paused = true)]
    async fn new_work_that_is_held_back_is_not_sent_and_costs_no_retries() {
        let (throttle, budget, sent) = (Throttle::default(), Budget::default(), Cell::new(0));
        refused_by_all(&throttle);
        let answered = |answer: Option<Reason>| {
            sent.set(sent.get() + 1);
            async move { answer.map_or(Ok(Response::new(())), |reason| Err(Refusal::new(reason, "no").into())) }
        };
        let twice = Patience { attempts_max: 2, ..Patience::default() };
        let mut held_back = 0;
        for _ in 0..1_000 {
            let asked = call(twice, &budget, Some(&throttle), turn(), |_| answered(Some(Reason::Overloaded)));
            let error = asked.await.expect_err("refused, by whomever");
            assert_eq!(error.reason(), Some(Reason::Overloaded));
            assert!(did_nothing(&error));
            held_back += i32::from(matches!(error, ClientError::HeldBack(_)));
            refused_by_all(&throttle);
        }
        assert!(held_back > 950 && sent.get() < 80, "{held_back} held back at last, {} sent", sent.get());
        let saved = budget.saved.load(Ordering::Relaxed);
        assert!(Budget::SAVED_MAX - saved <= sent.get() * CALLS_PER_RETRY, "who is held back pays nothing");
        tokio::time::advance(crate::throttle::WINDOW * 2).await;
        call(twice, &budget, Some(&throttle), turn(), |_| answered(None)).await.expect("there is room again");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_what_became_of_an_attempt_is_never_held_back() {
        for _ in 0..5 {
            let (throttle, budget, count) = (Throttle::default(), Budget::default(), Cell::new(0));
            let asked = call(Patience::default(), &budget, Some(&throttle), turn(), |attempt| {
                count.set(count.get() + 1);
                refused_by_all(&throttle);
                async move {
                    match attempt.unsure {
                        0 => Err(Refusal::new(Reason::StoreUnavailable, "no").into()),
                        _ => Ok(Response::new(())),
                    }
                }
            });
            asked.await.expect("answered");
            assert_eq!(count.get(), 2);
        }
    }

    #[test]
    fn the_server_says_when_to_come_back_and_chance_only_adds() {
        let patience = Patience::default();
        let said = |wait| ClientError::from(Status::from(Refusal::new(Reason::Overloaded, "no").after(wait)));
        let two = said(Duration::from_secs(2));
        assert_eq!(patience.wait_by(1, &two, 0.0), Duration::from_secs(2));
        assert_eq!(patience.wait_by(1, &two, 1.0), Duration::from_millis(2_500));
        assert!(
            patience.wait(1, &said(Duration::from_secs(20))) >= Duration::from_secs(20),
            "longer than its own longest"
        );
        let own = |attempt, chance| patience.wait_by(attempt, &ClientError::Deadline, chance);
        assert_eq!(
            [own(1, 0.0), own(1, 1.0), own(3, 1.0)],
            [Duration::ZERO, patience.first_wait, patience.first_wait * 4]
        );
        assert_eq!(own(30, 1.0), patience.wait_max);
    }
}
