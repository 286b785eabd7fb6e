//! What the providers of models take from the whole cluster, as a resource beside cores and memory.

/// What one provider takes at once and in a minute, by its key: all nodes together. `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProviderBudget {
    /// The name that needs and slices go by: a provider and the key with which it is asked.
    pub provider: String,
    /// Requests begun in a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens that models read in a minute.
    pub input_tokens_per_minute: Option<u64>,
    /// Tokens that models write in a minute.
    pub output_tokens_per_minute: Option<u64>,
    /// Requests in flight at once.
    pub concurrency: Option<u64>,
}

impl ProviderBudget {
    /// A provider without any limit.
    #[must_use]
    pub fn unlimited(provider: impl Into<String>) -> Self {
        Self { provider: provider.into(), ..Self::default() }
    }
}
