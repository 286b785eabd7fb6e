//! Waiting until the clock really shows a moment.
//!
//! A clock that hides a step back of the wall clock stands still for a while, and a wait that was begun before ends while
//! it does. Whoever compares with the clock after such a wait, and waits no second time, would wait for ever.

use nexa_ports::clock::Clock;
use nexa_types::Timestamp;

/// Waits until `clock` shows `due` or later. Cancel-safe.
pub(crate) async fn until_shown(clock: &dyn Clock, due: Timestamp) {
    while clock.now() < due {
        clock.wait_until(due).await;
    }
}
