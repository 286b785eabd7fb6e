//! Whether whoever started this process is still there: seen by its standard input, which the system closes also for one that
//! was killed.

use std::io::Read;

use tokio::sync::oneshot;

/// Waits until standard input ends, if that is to end the process; else for ever. What comes there is not looked at.
///
/// A thread of its own reads, which the process does not wait for: a read that waits for input cannot be called back.
pub(crate) async fn ended(is_watched: bool) {
    if is_watched {
        let (tell, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 256];
            let mut input = std::io::stdin().lock();
            // An input that cannot be read is as good as closed.
            while input.read(&mut bytes).is_ok_and(|count| count > 0) {}
            // Nobody listens any more if the process ends for another reason.
            let _ = tell.send(());
        });
        // The thread ends by telling.
        if ended.await.is_ok() {
            return;
        }
    }
    std::future::pending().await
}
