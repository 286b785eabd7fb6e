//! The command line: what can be typed, what is shown, and the commands that talk to a server.
//!
//! - [`args`]: what can be typed.
//! - [`commands`]: the commands that talk to a server.
//! - [`files`]: which files a command means, and how one is replaced.
//! - [`nodes`]: the nodes that a plan is made for.
//! - [`program`]: from files to a module and its input.
//! - [`progress`], [`show`]: from frames and messages to lines and tables; pure.
//! - [`screen`]: progress on standard error.
//! - [`failure`]: how a command fails, with its exit code.
//!
//! Not here: the commands that need a node (`dev`, `run`, `models`, `audit`, `doctor`); the `nexa` binary wires those.

pub mod args;
pub mod commands;
pub mod failure;
pub mod files;
pub mod nodes;
pub mod program;
pub mod progress;
pub mod screen;
pub mod show;
