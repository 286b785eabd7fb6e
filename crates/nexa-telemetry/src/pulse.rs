//! Whether the node's runtime still turns: a task that does nothing is spawned there, and must run before long.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A runtime that does not run a task within this is not well.
pub(crate) const WELL_WITHIN: Duration = Duration::from_secs(2);

/// Whether a runtime runs a task within a time. Asked from another runtime.
pub(crate) async fn turns(watched: &Handle, within: Duration) -> bool {
    let (ran, heard) = oneshot::channel();
    watched.spawn(async move {
        // Nobody waits any more if it took too long.
        let _ = ran.send(());
    });
    tokio::time::timeout(within, heard).await.is_ok_and(|heard| heard.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_runtime_whose_only_worker_is_blocked_is_not_well_until_it_is_free() {
        let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        assert!(turns(other.handle(), WELL_WITHIN).await);
        let (free, blocked) = std::sync::mpsc::channel::<()>();
        let (entered, is_blocked) = oneshot::channel();
        other.spawn(async move {
            let _ = entered.send(());
            let _ = blocked.recv();
        });
        is_blocked.await.unwrap();
        assert!(!turns(other.handle(), Duration::from_millis(20)).await);
        free.send(()).unwrap();
        assert!(turns(other.handle(), WELL_WITHIN).await);
        other.shutdown_background();
    }
}
