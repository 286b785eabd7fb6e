//! Programs with children that run beside them: handles, messages, ends.

mod handles;
mod scopes;
mod town;
