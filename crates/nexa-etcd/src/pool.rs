//! One connection to one of etcd's endpoints at a time, and the next one when it does not answer.
//!
//! A connection on which a call got no answer, or broke, is given up as a whole: what comes next goes to the next endpoint over
//! a new one, also if there is only one endpoint. A connection whose packets are lost would otherwise come back only when the
//! system sends them again, which may be long after the network is well.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use nexa_ports::dice::Dice;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use crate::{ANSWER_WITHIN, ConnectError, Settings};

/// The first wait after a failure is up to so long; each further one up to twice the one before.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// No wait is longer.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Why a call has no result.
#[derive(Debug)]
pub(crate) enum CallError {
    /// No answer within [`ANSWER_WITHIN`].
    Silent { endpoint: String },
    /// The connection failed, or etcd refused.
    Failed { endpoint: String, error: Error },
}

impl std::fmt::Display for CallError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent { endpoint } => {
                write!(out, "{endpoint} gave no answer within {} ms", ANSWER_WITHIN.as_millis())
            }
            Self::Failed { endpoint, error: Error::GRpcStatus(status) } => {
                write!(out, "{endpoint}: {:?}: {}", status.code(), status.message())
            }
            Self::Failed { endpoint, error } => write!(out, "{endpoint}: {error}"),
        }
    }
}

impl CallError {
    /// Whether etcd itself said this, so that no other endpoint would say anything else.
    pub(crate) fn is_an_answer(&self) -> bool {
        match self {
            Self::Silent { .. } => false,
            Self::Failed { error: Error::GRpcStatus(status), .. } => !matches!(
                status.code(),
                Code::Unavailable
                    | Code::Unknown
                    | Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Internal
                    | Code::Aborted
            ),
            Self::Failed { error, .. } => matches!(error, Error::LeaseKeepAliveError(_)),
        }
    }

    /// Whether there is no such lease: it has ended, or was ended.
    pub(crate) fn is_no_such_lease(&self) -> bool {
        match self {
            // The client says so when the time that is left is not more than 0.
            Self::Failed { error: Error::LeaseKeepAliveError(_), .. } => true,
            Self::Failed { error: Error::GRpcStatus(status), .. } => status.code() == Code::NotFound,
            _ => false,
        }
    }
}

/// Waits that grow with each failure and are drawn by dice, so that nodes that lost etcd together do not come back together.
#[derive(Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure: anything up to the bound that has grown so far ("full jitter").
    pub(crate) fn next(&mut self, max: Duration, dice: &dyn Dice) -> Duration {
        let bound = BACKOFF_MIN.saturating_mul(1 << self.failures.min(8)).min(max);
        self.failures = self.failures.saturating_add(1);
        let millis = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(dice.roll() % millis.saturating_add(1))
    }
}

/// The endpoints, and the connection to one of them.
pub(crate) struct Pool {
    endpoints: Vec<String>,
    options: ConnectOptions,
    /// The same without user and password.
    anonymous: ConnectOptions,
    current: Mutex<Current>,
    /// Grows each time that a connection is given up.
    moved: watch::Sender<u64>,
}

#[derive(Default)]
struct Current {
    at: usize,
    serial: u64,
    client: Option<Client>,
}

impl Pool {
    pub(crate) fn new(settings: &Settings) -> Result<Self, ConnectError> {
        if settings.endpoints.is_empty() {
            return Err(ConnectError::NoEndpoint);
        }
        // With a leader that the endpoint knows of: one that is cut off from the others refuses at once.
        let mut options = ConnectOptions::new().with_connect_timeout(ANSWER_WITHIN).with_require_leader(true);
        if let Some(tls) = &settings.tls {
            let mut trust = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
            if let Some((certificate, key)) = &tls.identity {
                trust = trust.identity(Identity::from_pem(certificate, key));
            }
            if let Some(domain) = &tls.domain {
                trust = trust.domain_name(domain);
            }
            options = options.with_tls(trust);
        }
        let anonymous = options.clone();
        if let Some((user, password)) = &settings.user {
            options = options.with_user(user, password).with_auto_token_refresh(true);
        }
        let endpoints = settings.endpoints.clone();
        Ok(Self { endpoints, options, anonymous, current: Mutex::default(), moved: watch::Sender::new(0) })
    }

    /// Whether every endpoint can be one. Needs a runtime, asks nobody.
    pub(crate) async fn check(&self) -> Result<(), ConnectError> {
        for endpoint in &self.endpoints {
            // Without a user, for whom the client would ask etcd.
            let made = Client::connect([endpoint], Some(self.anonymous.clone())).await;
            made.map_err(|source| ConnectError::BadEndpoint { endpoint: endpoint.clone(), source })?;
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Changes when a connection is given up.
    pub(crate) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().expect("no holder of this lock can panic")
    }

    /// Makes one call, once.
    pub(crate) async fn call<T, F>(&self, op: impl FnOnce(Client) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (serial, endpoint, client) = {
            let current = self.current();
            (current.serial, self.endpoints[current.at].clone(), current.client.clone())
        };
        // In a box: calls of the generated client are futures of many kilobytes.
        let attempt = async {
            let client = match client {
                Some(client) => client,
                None => {
                    let client = Client::connect([&endpoint], Some(self.options.clone())).await?;
                    let mut current = self.current();
                    if current.serial == serial {
                        current.client = Some(client.clone());
                    }
                    client
                }
            };
            op(client).await
        };
        let failed = match timeout(ANSWER_WITHIN, Box::pin(attempt)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => CallError::Failed { endpoint, error },
            Err(_) => CallError::Silent { endpoint },
        };
        if !failed.is_an_answer() {
            self.give_up(serial);
        }
        Err(failed)
    }

    /// Gives up this connection, if it is still the current one.
    fn give_up(&self, serial: u64) {
        let mut current = self.current();
        if current.serial == serial {
            *current = Current { at: (current.at + 1) % self.endpoints.len(), serial: serial + 1, client: None };
            drop(current);
            self.moved.send_replace(serial + 1);
        }
    }

    /// Makes a call until there is an answer, or until `deadline`. For what may be done twice.
    pub(crate) async fn insist<T, F>(
        &self,
        deadline: Instant,
        dice: &dyn Dice,
        op: impl Fn(Client) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut backoff = Backoff::default();
        loop {
            let failed = match self.call(&op).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let wait = backoff.next(BACKOFF_MAX, dice);
            if failed.is_an_answer() || Instant::now() + wait >= deadline {
                return Err(failed);
            }
            sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use nexa_ports::dice::SeededDice;

    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_begin_anew_after_a_success() {
        let dice = SeededDice::new(7);
        let mut backoff = Backoff::default();
        for failures in 0..200u32 {
            let bound = (BACKOFF_MIN * 2u32.pow(failures.min(10))).min(BACKOFF_MAX);
            assert!(backoff.next(BACKOFF_MAX, &dice) <= bound);
        }
        let waits: Vec<Duration> = (0..100).map(|_| backoff.next(BACKOFF_MAX, &dice)).collect();
        assert!(waits.iter().any(|wait| *wait > BACKOFF_MAX / 2), "the bound is reached");
        assert!(waits.iter().any(|wait| *wait < BACKOFF_MAX / 2), "and they are drawn, not all the same");
        backoff.reset();
        assert!(backoff.next(BACKOFF_MAX, &dice) <= BACKOFF_MIN);
    }

    #[test]
    fn only_what_etcd_itself_says_is_an_answer() {
        let of = |error| CallError::Failed { endpoint: "e".into(), error };
        let status = |code| of(Error::GRpcStatus(tonic::Status::new(code, "text")));
        assert!(status(Code::NotFound).is_an_answer() && status(Code::NotFound).is_no_such_lease());
        assert!(of(Error::LeaseKeepAliveError("lease not found".into())).is_no_such_lease());
        for code in [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::DeadlineExceeded] {
            assert!(!status(code).is_an_answer() && !status(code).is_no_such_lease(), "{code:?}");
        }
        let silent = CallError::Silent { endpoint: "e:1".into() };
        assert!(!silent.is_an_answer());
        assert_eq!(silent.to_string(), "e:1 gave no answer within 800 ms");
    }
}
