//! Commands once more, if the store was away or did not say whether it stored.
//!
//! Safe because a command carries a request id, and its handler looks first whether it was carried out before; one without
//! says how things are to be.
//! Bound: `attempts_max`; then the last refusal stands, with a hint when to come back.

use std::sync::Arc;
use std::time::Duration;

use nexa_ports::clock::Clock;
use nexa_ports::dice::Dice;
use nexa_types::{Millis, Reason};

use super::{Layer, around, go_on};
use crate::mediator::{Limits, Message, order};

/// What a client is told to wait when the store is still away.
const COME_BACK_AFTER: Duration = Duration::from_secs(1);

pub(in crate::mediator) fn retry(limits: &Limits, clock: Arc<dyn Clock>, dice: Arc<dyn Dice>) -> Layer {
    let (attempts_max, wait) = (limits.attempts_max, limits.retry_wait);
    let can_handle = |message: &Message| matches!(message, Message::Command(_));
    around(order::RETRY, "retry", can_handle, move |call, next| {
        let (clock, dice) = (clock.clone(), dice.clone());
        async move {
            let mut attempt = 1;
            loop {
                let refusal = match go_on(next.clone(), call.clone()).await {
                    Err(refusal) if refusal.reason == Reason::StoreUnavailable => refusal,
                    settled => return settled,
                };
                if attempt >= attempts_max {
                    return Err(refusal.after(COME_BACK_AFTER));
                }
                let wait = jittered(wait, attempt, dice.roll());
                tracing::debug!(attempt, ?wait, %refusal, "trying a command again");
                clock.wait_until(clock.now().after(Millis(wait.as_millis() as u64))).await;
                attempt += 1;
            }
        }
    })
}

/// The wait doubles with each attempt; the dice take off up to half of it, so that callers do not come back together.
fn jittered(first: Duration, attempt: u32, roll: u64) -> Duration {
    let whole = first.saturating_mul(1 << (attempt - 1).min(10));
    whole - whole.mul_f64((roll as f64 / u64::MAX as f64) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_lose_at_most_half() {
        let first = Duration::from_millis(100);
        assert_eq!(jittered(first, 1, 0), first);
        assert_eq!(jittered(first, 3, 0), first * 4);
        assert_eq!(jittered(first, 1, u64::MAX), first / 2);
        assert_eq!(jittered(first, 100, 0), first * 1024, "and stop doubling");
    }
}
