//! A program that was put.

use minicbor::{Decode, Encode};
use nexa_event::fact::ClusterEvent;
use nexa_types::{BlobHash, GlobalSeq, ModuleHash, PrincipalId, TenantId, Timestamp};

use crate::fold::Seen;

/// A module under one of its names. The newest of a name is what the name means.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ProgramView {
    /// The module.
    #[n(0)]
    pub module: ModuleHash,
    /// The name that people see.
    #[n(1)]
    pub name: String,
    /// Whose it is.
    #[n(2)]
    pub tenant: TenantId,
    /// Who put it last.
    #[n(3)]
    pub principal: PrincipalId,
    /// The blob with the module's bytes.
    #[n(4)]
    pub blob: BlobHash,
    /// When it was put last.
    #[n(5)]
    pub put_at: Timestamp,
    /// The position of the newest fact in it; lists are ordered by it.
    #[n(6)]
    pub applied: GlobalSeq,
}

impl ProgramView {
    /// The view after one more fact of its tenant.
    pub(crate) fn apply(before: Option<Self>, event: &ClusterEvent, seen: &Seen<'_>) -> Option<Self> {
        let ClusterEvent::ProgramPut { module, blob, name } = event else { return before };
        match before {
            Some(view) if view.applied >= seen.position => Some(view),
            _ => Some(Self {
                module: *module,
                name: name.clone(),
                tenant: seen.envelope.header.tenant.clone(),
                principal: seen.envelope.header.principal.clone(),
                blob: *blob,
                put_at: seen.envelope.header.at,
                applied: seen.position,
            }),
        }
    }
}
