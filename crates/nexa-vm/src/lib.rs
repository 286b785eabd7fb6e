//! The Nexa virtual machine: bytecode in, effects out, nothing else.
//!
//! - [`op`] and [`module`]: what a compiled program is; the compiler in `nexa-lang` writes it.
//! - [`verify`]: one linear pass that a module must survive before a single instruction runs.
//! - [`vm`]: the step machine. It runs until it wants an effect, has used its fuel, has ended, or has failed.
//!   A stopped VM becomes bytes with [`Vm::snapshot`] and goes on from them, on any node, with [`Vm::restore`].
//! - [`value`], [`codec`], [`json`], [`failure`]: values and errors, and how they travel.
//! - [`stdlib`]: the pure functions that `CallStd` names; [`recall`]: finding texts in a memory.
//!
//! Holds:
//!   VM-1  a run is a function of the module's hash, the arguments and the ordered answers to its effects
//!   VM-2  equal states make equal snapshots; a restored VM goes on exactly as the stopped one would have
//!   VM-3  a verified module cannot make the machine panic, jump astray or grow past its limits
//!
//! Not here: doing effects (nexa-runtime), recording them (nexa-agent), making modules (nexa-lang).

pub mod codec;
pub mod failure;
pub mod json;
pub mod module;
pub mod op;
pub mod recall;
pub mod stdlib;
pub mod value;
pub mod verify;
pub mod vm;
mod wire;

pub use vm::{ENTRY_CALLABLE, Limits, Program, ResumeError, SnapshotError, StartError, Stop, Vm};
pub use wire::WireError;
