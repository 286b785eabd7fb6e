//! Trying again, within a deadline.
//!
//! Every call of the surface is safe to repeat: queries change nothing, and commands carry a request id. A call is tried
//! again if the server is away, draining or overloaded; the server's own word on when to come back is honoured. Bounds:
//! [`Patience`]; then the last error stands.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::{Response, Status};
use uuid::Uuid;

use crate::ClientError;

/// How long and how often to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The deadline of a call, all attempts together. Then: [`ClientError::Deadline`], or the last error.
    pub deadline: Duration,
    /// How often a call is sent at most, and how often in a row a watch is opened without a frame.
    pub attempts_max: u32,
    /// The wait before the second attempt; it doubles, and up to half of it is taken off by chance.
    pub first_wait: Duration,
    /// The longest wait.
    pub wait_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            attempts_max: 6,
            first_wait: Duration::from_millis(50),
            wait_max: Duration::from_secs(5),
        }
    }
}

impl Patience {
    /// How long to wait after attempt `attempt` (from 1) failed. What the server says counts, up to the longest wait.
    pub(crate) fn wait(&self, attempt: u32, error: &ClientError) -> Duration {
        if let Some(said) = error.refusal().and_then(|refusal| refusal.retry_after) {
            return said.min(self.wait_max);
        }
        let whole = self.first_wait.saturating_mul(1 << (attempt - 1).min(16)).min(self.wait_max);
        // The low half of a fresh UUID is as random as this needs.
        let chance = (Uuid::now_v7().as_u128() as u32) as f64 / f64::from(u32::MAX);
        whole - whole.mul_f64(chance / 2.0)
    }
}

/// Sends a call until it is answered, refused for good, or out of time. `send` gets what is left of the deadline.
pub(crate) async fn call<T, Fut>(patience: Patience, mut send: impl FnMut(Duration) -> Fut) -> Result<T, ClientError>
where
    Fut: Future<Output = Result<Response<T>, Status>>,
{
    let end = Instant::now() + patience.deadline;
    let mut attempt = 1;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let error = match tokio::time::timeout(left, send(left)).await {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => ClientError::from(status),
            Err(_) => return Err(ClientError::Deadline),
        };
        let wait = patience.wait(attempt, &error);
        if !error.is_transient() || attempt >= patience.attempts_max || Instant::now() + wait >= end {
            return Err(error);
        }
        sleep(wait).await;
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use nexa_proto::refusal::Refusal;
    use nexa_types::Reason;

    use super::*;

    async fn sent(patience: Patience, answers: &[Option<Reason>]) -> (u32, Result<(), ClientError>) {
        let count = Cell::new(0);
        let result = call(patience, |_| {
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
        let result: Result<(), _> =
            call(Patience::default(), |_| std::future::pending::<Result<Response<()>, Status>>()).await;
        assert_eq!(result.expect_err("no answer").reason(), Some(Reason::DeadlineExceeded));
        assert_eq!(started.elapsed(), Patience::default().deadline);
    }

    #[test]
    fn the_server_says_when_to_come_back() {
        let patience = Patience::default();
        let said = |wait| ClientError::from(Status::from(Refusal::new(Reason::Overloaded, "no").after(wait)));
        assert_eq!(patience.wait(1, &said(Duration::from_secs(2))), Duration::from_secs(2));
        assert_eq!(patience.wait(1, &said(Duration::from_secs(200))), patience.wait_max);
        let own = patience.wait(3, &ClientError::Deadline);
        assert!(own >= patience.first_wait * 2 && own <= patience.first_wait * 4, "{own:?}");
    }
}
