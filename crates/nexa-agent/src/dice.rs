//! Numbers that look like chance and are the same in every replay.

use nexa_types::AgentId;

/// The seed of a child's dice.
pub(crate) fn seed_of_child(seed: u64, child: AgentId) -> u64 {
    draw("nexa.v1 seed of child", seed, child.as_bytes())
}

/// A repeatable number from a seed and what it is for.
pub(crate) fn draw(domain: &'static str, seed: u64, what_for: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    hasher.update(&seed.to_le_bytes()).update(what_for).finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
