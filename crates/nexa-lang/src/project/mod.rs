//! A program as a scheduler sees it: which agents and tools its flows run, in which order.
//!
//! ```text
//! checked program ─► outline (one flow's steps) ─► module ─► tasks of an entry (nexa-vm) ─┐
//!                  └─► costs ──────────────────────────────────────────────────────────────┴─► nodes
//! ```
//!
//! Every program has a graph: code of which nothing can be told is one `transform`.
//!
//! Not here: ports and edges by name, layout and edits of the graph as people draw it.

mod nodes;
mod outline;

use nexa_vm::module::outline::Graph;

use crate::hir;

pub use nodes::{Node, nodes};

/// What a module carries for schedulers.
pub(crate) fn graph(program: &hir::Program) -> Graph {
    let model = |(number, agent): (u32, &hir::Agent)| {
        let model = agent.first_model();
        (!model.is_empty()).then(|| (number, model.to_owned()))
    };
    Graph {
        outlines: outline::outlines(program),
        pins: program.pins.clone(),
        models: (0u32..).zip(&program.agents).filter_map(model).collect(),
    }
}
