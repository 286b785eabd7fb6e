//! Properties of rebalancing, spreading, placing and learning, over many small worlds that are drawn by a seed.

mod estimate;
mod gang;
mod place;
mod rebalance;
mod spread;
mod world;
