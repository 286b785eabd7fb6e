//! Several doors of one cluster: a client keeps to one of them, and goes on to the next when its node is away or going.
//!
//! Every node of a cluster takes any call, so that whose node is restarted has somebody else to ask at once. A call that was
//! refused by a node that is going, or lost with its connection, is sent to the next door without waiting; only who has been
//! round all of them waits, as [`retry`] says. All clones of a client change doors together, and stay where they are when the
//! first door is back: nobody runs to and fro between nodes that come and go.
//!
//! Bound: [`DOORS_MAX`] addresses; more are refused.
//!
//! [`retry`]: crate::retry

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use nexa_types::Reason;
use tonic::Code;

use crate::way::Way;
use crate::{Address, ClientError};

/// Addresses that a client takes.
pub const DOORS_MAX: usize = 64;

/// Which of several doors a client and its clones ask, and how often they asked again.
#[derive(Debug)]
pub(crate) struct Turn {
    count: usize,
    current: AtomicUsize,
    sent_again: AtomicU64,
}

impl Turn {
    pub(crate) fn new(count: usize, current: usize) -> Self {
        Self { count: count.max(1), current: AtomicUsize::new(current), sent_again: AtomicU64::new(0) }
    }

    /// How many doors there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Where to ask.
    pub(crate) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Asks elsewhere from here on, unless somebody has moved on from this door already.
    pub(crate) fn move_on(&self, from: usize) {
        let next = (from + 1) % self.count;
        // Whoever lost the race finds another door than the one that failed, which is what was wanted.
        let _ = self.current.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Counts a message that is sent once more.
    pub(crate) fn note_again(&self) {
        self.sent_again.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sent_again(&self) -> u64 {
        self.sent_again.load(Ordering::Relaxed)
    }
}

/// Whether the failure is the node's and not the cluster's, so that another door may do better at once.
pub(crate) fn is_of_the_door(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(refusal) => refusal.reason == Reason::Draining,
        ClientError::Transport { code, .. } => *code == Code::Unavailable,
        ClientError::Lost { .. } | ClientError::Deadline | ClientError::Connect { .. } => true,
        ClientError::Address { .. }
        | ClientError::NoAuthority { .. }
        | ClientError::Token
        | ClientError::TooLong { .. }
        | ClientError::HeldBack(_) => false,
    }
}

/// The addresses in a text with commas between them.
pub(crate) fn addresses(text: &str) -> Result<Vec<Address>, ClientError> {
    let all: Vec<Address> = text.split(',').map(|one| one.trim().parse()).collect::<Result<_, _>>()?;
    match all.len() {
        0..=DOORS_MAX => Ok(all),
        many => Err(ClientError::Address {
            address: format!("{}, …", all[0]),
            why: format!("these are {many} addresses, more than the {DOORS_MAX} that a client takes"),
        }),
    }
}

/// A connection to each, and the first that answered.
pub(crate) async fn connect(addresses: &[Address], authority: Option<&str>) -> Result<(Vec<Way>, usize), ClientError> {
    let mut failure = None;
    for (first, address) in addresses.iter().enumerate() {
        let way = match address.connect(authority).await {
            Ok(channel) => Way::from(channel),
            Err(error) => {
                failure.get_or_insert(error);
                continue;
            }
        };
        let others = addresses.iter().map(|address| address.connect_later(authority).map(Way::from));
        let mut ways = others.collect::<Result<Vec<Way>, _>>()?;
        ways[first] = way;
        return Ok((ways, first));
    }
    let failure =
        failure.unwrap_or_else(|| ClientError::Address { address: String::new(), why: "there is none".to_owned() });
    match failure {
        ClientError::Connect { source, .. } if addresses.len() > 1 => {
            let all: Vec<String> = addresses.iter().map(Address::to_string).collect();
            Err(ClientError::Connect { address: all.join(","), source })
        }
        failure => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_addresses_is_read_and_has_a_bound() {
        let read = |text: &str| addresses(text).map(|all| all.iter().map(Address::to_string).collect::<Vec<_>>());
        assert_eq!(read("a:1").expect("one"), ["http://a:1"]);
        assert_eq!(read("http://a:1, b:2,unix:/c").expect("three"), ["http://a:1", "http://b:2", "unix:/c"]);
        for wrong in ["", "a:1,", ",a:1", "a:1 b:2"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let many = vec!["a:1"; DOORS_MAX + 1].join(",");
        assert!(read(&many).expect_err("too many").to_string().contains("64 that a client takes"));
    }

    #[test]
    fn who_fails_beside_others_moves_on_once_for_all_of_them() {
        let turn = Turn::new(3, 1);
        (0..5).for_each(|_| turn.move_on(1));
        assert_eq!(turn.current(), 2);
        turn.move_on(2);
        assert_eq!(turn.current(), 0);
        let alone = Turn::new(1, 0);
        alone.move_on(0);
        assert_eq!(alone.current(), 0);
    }
}
