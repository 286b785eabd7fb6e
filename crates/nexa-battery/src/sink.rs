//! Who counts from outside what was done, and is never killed.
//!
//! The tool of the load writes a file for each call. A node writes it beside its place, under a name with the call's key,
//! and moves it there in one step; whoever watches the folder sees each move, with both names. So every effect is counted
//! by its key, however often and by whomever it is done, and whatever becomes of who did it.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nexa_history::Done;
use nexa_types::EffectKey;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// The folder below that of the tools.
pub(crate) const MARKS: &str = "marks";
/// Bytes of events that are read at once.
const BUFFER_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
struct Counted {
    done: nexa_history::Sink,
    /// Files that came to their place from nowhere, or events that were lost: then nothing can be said.
    trouble: Option<String>,
}

/// A watched folder.
pub(crate) struct Sink {
    folder: PathBuf,
    counted: Arc<Mutex<Counted>>,
    watcher: Option<JoinHandle<()>>,
}

impl Sink {
    /// Makes the folder of the tools and watches it.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn watch(tools: &Path) -> Result<Self, String> {
        let folder = tools.join(MARKS);
        let failed = |error: std::io::Error| format!("{} cannot be watched: {error}", folder.display());
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let events = inotify::init(CreateFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let moves = WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        inotify::add_watch(&events, &folder, moves).map_err(|error| failed(error.into()))?;
        let counted = Arc::<Mutex<Counted>>::default();
        let shared = Arc::clone(&counted);
        let watcher = std::thread::spawn(move || {
            let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
            let mut reader = Reader::new(&events, &mut buffer);
            let mut leaving = BTreeMap::new();
            while let Ok(event) = reader.next() {
                let (flags, cookie) = (event.events(), event.cookie());
                let name = event.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if flags.contains(ReadFlags::IGNORED) {
                    return;
                }
                let mut counted = lock(&shared);
                if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                    counted.trouble = Some("the system has dropped events of the folder".to_owned());
                } else if flags.contains(ReadFlags::MOVED_FROM) {
                    leaving.insert(cookie, name);
                } else if flags.contains(ReadFlags::MOVED_TO) {
                    let key = leaving.remove(&cookie).and_then(|beside| key_of(&beside));
                    match key {
                        Some(key) => counted.done.entry(key).or_insert(Done { what: name, times: 0 }).times += 1,
                        None => counted.trouble = Some(format!("`{name}` has come from nowhere")),
                    }
                }
            }
        });
        Ok(Self { folder, counted, watcher: Some(watcher) })
    }

    /// What was done so far.
    ///
    /// # Errors
    /// Why it cannot be known.
    pub(crate) fn done(&self) -> Result<nexa_history::Sink, String> {
        let counted = lock(&self.counted);
        match &counted.trouble {
            None => Ok(counted.done.clone()),
            Some(trouble) => Err(trouble.clone()),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Which ends the watch, and with it the thread.
        let gone = std::fs::remove_dir_all(&self.folder).is_ok();
        if let Some(watcher) = self.watcher.take().filter(|_| gone) {
            let _ = watcher.join();
        }
    }
}

fn lock(counted: &Mutex<Counted>) -> MutexGuard<'_, Counted> {
    // Every change under this lock is complete before anything that could panic.
    counted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The key in the name that a file has before it is in its place.
fn key_of(beside: &str) -> Option<EffectKey> {
    beside.strip_prefix(".nexa-")?.strip_suffix(".part")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use nexa_types::{AgentId, Seq, WorkloadId};

    use super::*;

    #[test]
    fn each_move_is_counted_by_the_key_in_its_name() {
        let workload = WorkloadId::from_bytes([1; 16]);
        let key = EffectKey::of(workload, AgentId::root(workload), Seq(1));
        let tools = std::env::temp_dir().join(format!("nexa-battery-sink-{}", std::process::id()));
        let sink = Sink::watch(&tools).expect("a folder");
        for _ in 0..2 {
            let beside = tools.join(MARKS).join(format!(".nexa-{key}.part"));
            std::fs::write(&beside, "x").expect("written");
            std::fs::rename(beside, tools.join(MARKS).join("a")).expect("moved");
        }
        let seen = || sink.done().expect("nothing was lost").get(&key).map_or(0, |done| done.times);
        while seen() < 2 {
            std::thread::yield_now();
        }
        assert_eq!(seen(), 2);
        drop(sink);
        std::fs::remove_dir_all(tools).expect("it is ours");
    }
}
