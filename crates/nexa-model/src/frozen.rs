//! A part of a state that is known by how it prints: real machines have no hash, but all that they are stands in their `Debug`.

use std::fmt::{self, Debug, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// A value that does not change any more, shared by all states that have it. Two are equal if they print the same.
#[derive(Clone)]
pub(crate) struct Frozen<T> {
    value: Arc<T>,
    print: u64,
}

impl<T: Debug> Frozen<T> {
    /// Of this value. Of what it prints nothing may depend on chance, as the order of a hash map does.
    pub(crate) fn new(value: T) -> Self {
        let mut print = Print(DefaultHasher::new());
        write!(print, "{value:?}").expect("a hasher takes everything");
        Self { print: print.0.finish(), value: Arc::new(value) }
    }
}

struct Print(DefaultHasher);

impl Write for Print {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl<T> Deref for Frozen<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Debug> Debug for Frozen<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(out)
    }
}

impl<T> PartialEq for Frozen<T> {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl<T> Eq for Frozen<T> {}

impl<T> PartialOrd for Frozen<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Frozen<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.print.cmp(&other.print)
    }
}

impl<T> Hash for Frozen<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.print);
    }
}
