//! An agent's life, told and tortured. `desk` is the only module that touches the API.

mod budgets;
mod desk;
mod formats;
mod life;
mod list_orders;
mod lists;
mod memory;
mod program;
mod properties;
mod tools;
mod trees;
