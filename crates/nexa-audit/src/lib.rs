//! Evidence that a log is whole.
//!
//! ```text
//! log ─► root, folded with the read models ─► Keeper, each second ─► anchors: etcd │ a file beside the data folder
//!  │                                                                   │
//!  └──────────── check at the start, `nexa audit verify` ◄─────────────┘
//! ```
//!
//! - [`check`](mod@check): whether the log is still the one that was anchored. Reads what came since, and no more.
//! - [`keeper`]: writes an anchor each second in which the log has grown, and looks whether the newest one still holds.
//! - [`verify`](mod@verify): reads everything, and names the first fact that is not what was appended.
//!
//! What it shows, that the chains of the streams do not: newest facts that are gone, as after an older copy was put back or a
//! standby was promoted that lacked them; a stream that is gone as a whole; facts of several streams that changed places;
//! another history in the place of this one.
//!
//! What it does not show: a log that was changed together with its anchors. Who keeps them apart, by two machines and two
//! passwords, has what they are for. Facts that came after the newest anchor, at most about a second of them, are covered by
//! the chains of their streams alone.
//!
//! Not here: how the root is folded (nexa-store, nexa-postgres), where anchors lie (nexa-store for files, nexa-etcd).

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing"))]

pub mod check;
pub mod keeper;
pub mod verify;

pub use check::{Broken, check};
pub use keeper::{KeepError, Keeper};
pub use verify::{Verified, verify};

#[cfg(test)]
mod fake;
