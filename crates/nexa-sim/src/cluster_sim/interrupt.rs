//! What Ctrl-C does: the first ends the command with what there is by then, the second at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, process, thread};

/// What a shell says of a program that an interrupt has ended.
const INTERRUPTED: i32 = 130;

static STOP: AtomicBool = AtomicBool::new(false);
static WAS: AtomicBool = AtomicBool::new(false);

/// Listens from now on; gives what an interrupt sets.
pub(super) fn watch() -> io::Result<&'static AtomicBool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    thread::Builder::new().name("nexa-sim-interrupt".into()).spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            WAS.store(true, Ordering::Relaxed);
            STOP.store(true, Ordering::Relaxed);
            eprintln!("\nends with the seeds in hand; a second interrupt ends it at once");
            if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
                process::exit(INTERRUPTED);
            }
        }
    })?;
    Ok(&STOP)
}

/// Whether somebody has interrupted.
pub(super) fn was() -> bool {
    WAS.load(Ordering::Relaxed)
}
