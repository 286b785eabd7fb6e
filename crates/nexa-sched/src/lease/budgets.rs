//! The budgets that a leader splits, by provider.

use std::collections::BTreeMap;

use super::{PROVIDERS_MAX, Sizes};
use crate::ProviderBudget;

/// Why budgets were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BudgetsError {
    /// Too many of them.
    #[error("{found} providers have a budget, and at most {PROVIDERS_MAX} may; join some of them under one name")]
    TooMany {
        /// So many.
        found: usize,
    },
    /// Two of one name.
    #[error("the provider `{provider}` has two budgets; keep one of them")]
    Twice {
        /// Of which name.
        provider: String,
    },
}

/// The budgets of a cluster. A provider that is not among them has none, and nobody gets a slice of it; one without
/// limits is there with [`ProviderBudget::unlimited`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Budgets(BTreeMap<String, Sizes>);

impl Budgets {
    /// Checks them.
    ///
    /// # Errors
    /// [`BudgetsError`] for more than [`PROVIDERS_MAX`], or two of one name.
    pub fn new(budgets: &[ProviderBudget]) -> Result<Self, BudgetsError> {
        if budgets.len() > PROVIDERS_MAX {
            return Err(BudgetsError::TooMany { found: budgets.len() });
        }
        let mut all = BTreeMap::new();
        for budget in budgets {
            if all.insert(budget.provider.clone(), Sizes::from(budget)).is_some() {
                return Err(BudgetsError::Twice { provider: budget.provider.clone() });
            }
        }
        Ok(Self(all))
    }

    pub(super) fn of(&self, provider: &str) -> Sizes {
        self.0.get(provider).copied().unwrap_or(Sizes::NONE)
    }

    pub(super) fn has(&self, provider: &str) -> bool {
        self.0.contains_key(provider)
    }

    pub(super) fn providers(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_has_one_budget() {
        let named = |name: &str| ProviderBudget::unlimited(name);
        assert_eq!(Budgets::new(&[named("a"), named("b")]).map(|all| all.providers().count()), Ok(2));
        let twice = Budgets::new(&[named("a"), named("b"), named("a")]);
        assert_eq!(twice, Err(BudgetsError::Twice { provider: "a".to_owned() }));
        let many: Vec<_> = (0..=PROVIDERS_MAX).map(|n| named(&n.to_string())).collect();
        assert_eq!(Budgets::new(&many), Err(BudgetsError::TooMany { found: PROVIDERS_MAX + 1 }));
    }
}
