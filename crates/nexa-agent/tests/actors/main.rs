//! Programs with children that run beside them: handles, messages, ends.

mod budgets;
mod detached;
mod forks;
mod handles;
mod scopes;
mod town;
