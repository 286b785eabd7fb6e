//! What an outcome may carry out of its agent. It is stored three times, in the agent's stream, the workload's and the
//! parent's inbox, and read by people, so a failure is told in full only as far as its own text and data are short.
//! Values need no bound here: the machine encodes none longer than `VALUE_BYTES_MAX`.

use nexa_types::{Failure, Outcome};

/// Data of a failure and of all its causes together, in bytes. What does not fit any more is left out, and the message
/// says so.
pub const FAILURE_DATA_BYTES_MAX: usize = 1 << 20;
/// Causes below a failure. Further ones, which are the oldest, are left out.
pub const CAUSES_MAX: usize = 16;
/// The message of a failure and of each cause, in bytes. The rest is cut off.
pub const FAILURE_MESSAGE_BYTES_MAX: usize = 64 << 10;

/// The outcome as it is recorded.
pub(crate) fn fitted(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Ok(value) => Outcome::Ok(value),
        Outcome::Err(mut failure) => {
            fit(&mut failure);
            Outcome::Err(failure)
        }
    }
}

fn fit(failure: &mut Failure) {
    let mut room = FAILURE_DATA_BYTES_MAX;
    let mut causes = 0;
    let mut next = Some(failure);
    while let Some(at) = next {
        cut(&mut at.message);
        match at.data.as_ref().map_or(0, |data| data.len()) {
            len if len <= room => room -= len,
            len => {
                at.data = None;
                at.message.push_str(&format!(" (its data of {len} bytes is left out)"));
            }
        }
        if causes == CAUSES_MAX {
            at.cause = None;
        }
        causes += 1;
        next = at.cause.as_deref_mut();
    }
}

fn cut(message: &mut String) {
    if message.len() > FAILURE_MESSAGE_BYTES_MAX {
        let end = (0..=FAILURE_MESSAGE_BYTES_MAX).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexa_types::{Payload, RunCode};

    fn with_data(len: usize) -> Failure {
        Failure { data: Some(Payload::new(vec![0; len])), ..Failure::new(RunCode::Failed, "no") }
    }

    fn chain(failure: &Failure) -> Vec<&Failure> {
        std::iter::successors(Some(failure), |at| at.cause.as_deref()).collect()
    }

    #[test]
    fn what_is_short_stays_as_it_is() {
        let mut failure = with_data(FAILURE_DATA_BYTES_MAX);
        failure.cause = Some(Box::new(with_data(0)));
        let mut fitting = failure.clone();
        fit(&mut fitting);
        assert_eq!(fitting, failure);
    }

    #[test]
    fn data_and_causes_and_messages_beyond_their_bounds_are_left_out_and_said() {
        let mut failure = with_data(1);
        for _ in 0..40 {
            failure = Failure { cause: Some(Box::new(failure)), ..with_data(100 << 10) };
        }
        failure.message = "é".repeat(FAILURE_MESSAGE_BYTES_MAX);
        fit(&mut failure);
        let kept = chain(&failure);
        assert_eq!(kept.len(), 1 + CAUSES_MAX);
        assert_eq!(kept.iter().filter(|at| at.data.is_some()).count(), 10);
        assert_eq!(kept[10].message, "no (its data of 102400 bytes is left out)");
        assert_eq!(failure.message.len(), FAILURE_MESSAGE_BYTES_MAX + "…".len());
    }
}
