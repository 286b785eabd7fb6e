//! A thread with a runtime of its own, for what must go on while the workers of the node are busy.

use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The stack of the thread. What runs there does not recurse.
const STACK_BYTES: usize = 512 << 10;

/// A running thread. Dropping it leaves it running until the process ends.
pub(crate) struct Thread {
    handle: Handle,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Thread {
    pub(crate) fn start(name: &str) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let work = move || {
            runtime.block_on(async {
                if stopped.await.is_err() {
                    // Dropped and not stopped: whoever has the handle goes on.
                    std::future::pending::<()>().await;
                }
            });
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work)?;
        Ok(Self { handle, stop, thread })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends its tasks where they stand.
    pub(crate) fn stop(self) {
        // Gone already is as good, and a panic in there was reported when it happened.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}
