//! Panics of nodes: a task that panics ends by itself, and whoever waits for it goes on, so that nobody else would notice.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use nexa_history::Violation;

/// What a panic is called among the properties.
const ID: &str = "PANIC";

thread_local! {
    /// Of the run that this thread plays, if it plays one.
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Plays something on this thread; gives also which panics there were, its own among them.
pub(super) fn watched<T>(play: impl FnOnce() -> T) -> (Option<T>, Vec<Violation>) {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !note(info) {
                before(info);
            }
        }));
    });
    SEEN.set(Some(Vec::new()));
    let played = panic::catch_unwind(AssertUnwindSafe(play)).ok();
    let seen = SEEN.take().unwrap_or_default();
    (played, seen.into_iter().map(|text| Violation { id: ID, text }).collect())
}

/// Whether it was one of a run.
fn note(info: &PanicHookInfo<'_>) -> bool {
    let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
    // A thread that ends has no place for it any more.
    let noted = SEEN.try_with(|seen| {
        let mut seen = seen.borrow_mut();
        seen.as_mut().map(|seen| seen.push(format!("{}{place}", said(info.payload())))).is_some()
    });
    noted.unwrap_or(false)
}

fn said(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("something panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_task_that_nobody_waits_for_is_noticed() {
        let (played, seen) = watched(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let task = tokio::spawn(async { panic!("a task of a node") });
                while !task.is_finished() {
                    tokio::task::yield_now().await;
                }
            });
            7
        });
        assert_eq!(played, Some(7));
        assert!(matches!(&seen[..], [it] if it.id == ID && it.text.starts_with("a task of a node at ")), "{seen:?}");
    }

    #[test]
    fn a_panic_of_the_run_itself_ends_it_and_what_comes_later_is_another_run() {
        let (played, seen) = watched(|| panic!("number {}", 1));
        assert_eq!((played, seen.len()), (None::<()>, 1));
        assert!(seen[0].text.starts_with("number 1 at "), "{seen:?}");
        assert_eq!(watched(|| ()).1, []);
    }
}
