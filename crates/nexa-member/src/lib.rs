//! Who is there, who leads, and what nodes say to each other.
//!
//! - [`link`]: how messages get from one node to another, once and in order, over connections that break.
//! - [`say`]: what nodes say about who is there and whose agents are whose.
//! - [`live`]: who wants to hear what agents elsewhere say, and what they say.
//! - [`detector`]: who is silent, dead, or cut off.
//! - [`floor`]: in which format a cluster of two releases writes.
//! - [`taken`]: whose word counts for a node, and what it has taken up by it.
//! - [`leader`]: what a leader decides: who owns what, how many may be born where, what moves.
//!
//! Pure: no clock, no dice, no I/O. The time and the dice are arguments, so that a simulation plays the very code that
//! runs.
//!
//! Not here: sending anything (nexa-cluster), and what makes any of it safe, which is the fence of the store.

pub mod detector;
pub mod floor;
pub mod leader;
pub mod link;
pub mod live;
pub mod say;
pub mod taken;
