//! Whose requests wait where, so that a tenant with agents on several nodes has one share and not several.
//!
//! Each holder says how many requests of which tenants wait with it; the leader keeps the last word of each, and tells each
//! how many of its tenants' requests wait with the others. A holder then counts a tenant's weight by the part that waits with
//! it: the parts of a tenant add up to its weight. What is old or lost makes shares less fair for a while, and nothing else.

use std::collections::BTreeMap;

use nexa_types::{Millis, TenantId, Timestamp};

use super::{HolderId, PROVIDERS_MAX};

/// Tenants of one provider that a holder tells of: those of whom most waits. The others' weights count whole.
pub const TENANTS_TOLD_MAX: usize = 256;
/// What a holder has said counts for so long.
const HEARD_LATELY: Millis = Millis(10_000);

/// How many requests of each tenant wait for one provider.
pub type WaitingTenants = Vec<(TenantId, u64)>;

/// What all holders have said of late. Kept by the leader: a word a provider and holder, for as long as it is fresh.
#[derive(Debug, Default)]
pub struct WaitingWhere {
    of: BTreeMap<String, BTreeMap<HolderId, Word>>,
}

#[derive(Debug)]
struct Word {
    heard: Timestamp,
    tenants: BTreeMap<TenantId, u64>,
}

impl WaitingWhere {
    /// Takes what a holder says of its providers, in place of what it said before. Providers above [`PROVIDERS_MAX`] and
    /// tenants above [`TENANTS_TOLD_MAX`] are left aside.
    pub fn hear(&mut self, holder: &HolderId, said: &[(String, WaitingTenants)], now: Timestamp) {
        self.of.retain(|_, words| {
            words.retain(|_, word| now.since(word.heard) < HEARD_LATELY);
            !words.is_empty()
        });
        for (provider, tenants) in said.iter().take(PROVIDERS_MAX) {
            if self.of.len() < PROVIDERS_MAX || self.of.contains_key(provider) {
                let tenants = tenants.iter().take(TENANTS_TOLD_MAX).cloned().collect();
                self.of.entry(provider.clone()).or_default().insert(holder.clone(), Word { heard: now, tenants });
            }
        }
    }

    /// For each provider that the holder has told of: what of its tenants waits with others. A tenant that is with it alone
    /// is named with 0.
    #[must_use]
    pub fn elsewhere(&self, holder: &HolderId, now: Timestamp) -> Vec<(String, WaitingTenants)> {
        let mut told = Vec::new();
        for (provider, words) in &self.of {
            let Some(mine) = words.get(holder) else { continue };
            let others = words.iter().filter(|(of, word)| *of != holder && now.since(word.heard) < HEARD_LATELY);
            let others: Vec<&Word> = others.map(|(_, word)| word).collect();
            let waits = |tenant: &TenantId| {
                let counts = others.iter().filter_map(|word| word.tenants.get(tenant));
                counts.fold(0u64, |sum, count| sum.saturating_add(*count))
            };
            let tenants = mine.tenants.keys().map(|tenant| (tenant.clone(), waits(tenant))).collect();
            told.push((provider.clone(), tenants));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use nexa_types::{Generation, NodeId};

    use super::*;

    fn holder(node: &str) -> HolderId {
        HolderId { node: NodeId::new(node).expect("a name"), generation: Generation(1) }
    }

    fn waiting(tenants: &[(&str, u64)]) -> Vec<(String, WaitingTenants)> {
        let tenants = tenants.iter().map(|(name, count)| (TenantId::new(name).expect("a name"), *count)).collect();
        vec![("acme".to_owned(), tenants)]
    }

    #[test]
    fn each_hears_what_of_its_tenants_waits_with_the_others_of_late() {
        let mut all = WaitingWhere::default();
        all.hear(&holder("a"), &waiting(&[("x", 3), ("y", 1)]), Timestamp(0));
        all.hear(&holder("b"), &waiting(&[("x", 5), ("z", 2)]), Timestamp(4_000));
        all.hear(&holder("c"), &waiting(&[("x", 7)]), Timestamp(5_000));
        assert_eq!(all.elsewhere(&holder("a"), Timestamp(5_000)), waiting(&[("x", 12), ("y", 0)]));
        assert_eq!(all.elsewhere(&holder("b"), Timestamp(5_000)), waiting(&[("x", 10), ("z", 0)]));
        assert_eq!(all.elsewhere(&holder("d"), Timestamp(5_000)), vec![]);
        all.hear(&holder("b"), &waiting(&[("x", 1)]), Timestamp(12_000));
        assert_eq!(all.elsewhere(&holder("b"), Timestamp(12_000)), waiting(&[("x", 7)]), "the first word is too old");
        assert_eq!(all.elsewhere(&holder("c"), Timestamp(13_000)), waiting(&[("x", 1)]));
    }

    #[test]
    fn more_than_is_told_of_is_left_aside() {
        let mut all = WaitingWhere::default();
        let many: Vec<(String, u64)> = (0..TENANTS_TOLD_MAX as u64 + 9).map(|n| (format!("t{n:03}"), 1)).collect();
        let many: Vec<(&str, u64)> = many.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        all.hear(&holder("a"), &waiting(&many), Timestamp(0));
        assert_eq!(all.elsewhere(&holder("a"), Timestamp(1))[0].1.len(), TENANTS_TOLD_MAX);
        for n in 0..=PROVIDERS_MAX {
            all.hear(&holder("b"), &[(format!("p{n}"), Vec::new())], Timestamp(1));
        }
        assert_eq!(all.elsewhere(&holder("b"), Timestamp(1)).len(), PROVIDERS_MAX - 1);
    }
}
