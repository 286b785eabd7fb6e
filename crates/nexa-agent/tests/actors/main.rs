//! Programs with children that run beside them: handles, messages, ends.

mod forks;
mod handles;
mod scopes;
mod town;
