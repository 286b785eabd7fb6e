//! The memories of workloads and tenants, as the facts leave them.
//!
//! A memory keeps the entries that were stored last, at most [`MEMORY_ENTRIES_MAX`]: one more forgets the one stored
//! longest ago. A workload's memory is forgotten when the workload has ended. What is kept under one tenant is never
//! looked for under another.

use std::collections::BTreeMap;

use nexa_event::effect::{MemoryScope, Remembered};
use nexa_types::limits::MEMORY_ENTRIES_MAX;
use nexa_types::{GlobalSeq, Payload, TenantId, WorkloadId};

/// Whose memory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemoryPlace {
    /// The tenant.
    pub tenant: TenantId,
    /// The workload, or `None` for what is the tenant's from run to run.
    pub workload: Option<WorkloadId>,
}

impl MemoryPlace {
    /// The memory of this scope for somebody of a workload.
    pub fn of(scope: MemoryScope, tenant: TenantId, workload: WorkloadId) -> Self {
        let workload = match scope {
            MemoryScope::Workload => Some(workload),
            MemoryScope::Tenant => None,
        };
        Self { tenant, workload }
    }
}

/// One more entry of a memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryEntry {
    /// Whose memory.
    pub place: MemoryPlace,
    /// Its key.
    pub key: String,
    /// Its value; `None` forgets the key.
    pub value: Option<Payload>,
    /// The position of the fact that says so.
    pub position: GlobalSeq,
}

impl MemoryEntry {
    /// The entry of a fact.
    pub fn new(entry: &Remembered, tenant: TenantId, workload: WorkloadId, position: GlobalSeq) -> Self {
        let place = MemoryPlace::of(entry.scope, tenant, workload);
        Self { place, key: entry.key.clone(), value: entry.value.clone(), position }
    }
}

/// All memories, in memory: the twin of a store's tables, and what a harness keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryBook {
    memories: BTreeMap<MemoryPlace, BTreeMap<String, (GlobalSeq, Payload)>>,
}

impl MemoryBook {
    /// Takes one more entry over.
    pub fn keep(&mut self, entry: MemoryEntry) {
        let memory = self.memories.entry(entry.place).or_default();
        match entry.value {
            None => drop(memory.remove(&entry.key)),
            Some(value) => {
                memory.insert(entry.key, (entry.position, value));
                if memory.len() > MEMORY_ENTRIES_MAX
                    && let Some(oldest) = memory.iter().min_by_key(|(_, (position, _))| *position)
                {
                    let oldest = oldest.0.clone();
                    memory.remove(&oldest);
                }
            }
        }
    }

    /// Forgets all of a memory.
    pub fn forget(&mut self, place: &MemoryPlace) {
        self.memories.remove(place);
    }

    /// Every entry of every memory, in the order of their places and keys.
    pub fn all(&self) -> impl Iterator<Item = (&MemoryPlace, &str, &Payload)> {
        self.memories
            .iter()
            .flat_map(|(place, memory)| memory.iter().map(move |(key, (_, value))| (place, key.as_str(), value)))
    }

    /// The entries of a memory, by key.
    pub fn entries(&self, place: &MemoryPlace) -> impl Iterator<Item = (&str, &Payload)> {
        let memory = self.memories.get(place).into_iter().flatten();
        memory.map(|(key, (_, value))| (key.as_str(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(position: u64, key: &str, value: Option<&str>) -> MemoryEntry {
        let place = MemoryPlace { tenant: TenantId::local(), workload: None };
        let value = value.map(|text| Payload::new(text.as_bytes()));
        MemoryEntry { place, key: key.to_owned(), value, position: GlobalSeq(position) }
    }

    #[test]
    fn a_full_memory_forgets_what_was_stored_longest_ago() {
        let mut book = MemoryBook::default();
        for number in 0..MEMORY_ENTRIES_MAX as u64 {
            book.keep(entry(number, &format!("k{number:04}"), Some("v")));
        }
        book.keep(entry(5_000, "k0000", Some("again")));
        book.keep(entry(5_001, "new", Some("v")));
        let place = MemoryPlace { tenant: TenantId::local(), workload: None };
        let keys: Vec<&str> = book.entries(&place).map(|(key, _)| key).collect();
        assert_eq!(keys.len(), MEMORY_ENTRIES_MAX);
        assert!(keys.contains(&"k0000") && !keys.contains(&"k0001") && keys.contains(&"new"));
        book.keep(entry(5_002, "new", None));
        assert!(book.entries(&place).all(|(key, _)| key != "new"));
        let other = MemoryPlace { tenant: TenantId::new("another").expect("a tenant"), workload: None };
        assert_eq!(book.entries(&other).count(), 0, "another tenant's memory is another one");
    }
}
