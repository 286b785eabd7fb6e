//! What nodes say to each other about slices.

use minicbor::{Decode, Encode};
use nexa_sched::lease::{Notice, Report, TENANTS_TOLD_MAX, WaitingTenants};

/// Bytes of one message; a longer one is not read.
pub(crate) const BYTES_MAX: usize = 256 << 10;
/// Tenants in one message, over all providers.
const TENANTS_MAX: usize = 2_048;

/// One message, in CBOR. Fields that are not known are skipped.
#[derive(Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Letter {
    /// From the leader.
    #[n(0)]
    pub(crate) notices: Option<Vec<Notice>>,
    /// From the leader: what waits elsewhere of the receiver's tenants, by provider.
    #[n(1)]
    pub(crate) elsewhere: Option<Vec<(String, WaitingTenants)>>,
    /// To the leader.
    #[n(2)]
    pub(crate) report: Option<Report>,
    /// To the leader: what waits here, by provider and tenant.
    #[n(3)]
    pub(crate) tenants: Option<Vec<(String, WaitingTenants)>>,
    /// To the leader: that this cannot wait for its next look.
    #[n(4)]
    pub(crate) is_urgent: Option<bool>,
}

impl Letter {
    pub(crate) fn write(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing into memory does not fail")
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > BYTES_MAX {
            return Err(format!("a message of {} bytes, more than the {BYTES_MAX} that fit", bytes.len()));
        }
        minicbor::decode(bytes).map_err(|error| error.to_string())
    }
}

/// As many tenants of each provider as fit into one message; they are sorted by how much waits of each.
pub(crate) fn fitting(mut tenants: Vec<(String, WaitingTenants)>) -> Vec<(String, WaitingTenants)> {
    let most = TENANTS_TOLD_MAX.min(TENANTS_MAX / tenants.len().max(1));
    tenants.iter_mut().for_each(|(_, tenants)| tenants.truncate(most));
    tenants
}

#[cfg(test)]
mod tests {
    use nexa_sched::lease::{Generation, HolderId, LeaderEpoch, NO_LIMIT, PROVIDERS_MAX, Pause, ProviderReport, Sizes};
    use nexa_types::{Millis, NodeId, TenantId};

    use super::*;

    fn holder() -> HolderId {
        HolderId { node: NodeId::new(&"n".repeat(64)).unwrap(), generation: Generation(u64::MAX) }
    }

    #[test]
    fn the_largest_message_fits_and_is_read_as_it_was_written() {
        let tenants: WaitingTenants =
            (0..TENANTS_TOLD_MAX).map(|n| (TenantId::new(&format!("{n:064}")).unwrap(), u64::MAX)).collect();
        let tenants: Vec<_> = (0..PROVIDERS_MAX).map(|n| (format!("{n:064}"), tenants.clone())).collect();
        let sizes = Sizes::new(NO_LIMIT, NO_LIMIT, NO_LIMIT, NO_LIMIT);
        let of = (0..PROVIDERS_MAX).map(|n| ProviderReport {
            provider: format!("{n:064}"),
            epoch: LeaderEpoch(u64::MAX),
            version: u64::MAX,
            pause_heard: u64::MAX,
            kept: sizes,
            wanted: sizes,
            least: sizes,
            weight: u64::MAX,
            pause: Some(Pause { number: u64::MAX, left: Millis(300_000) }),
        });
        let report = Some(Report { holder: holder(), number: u64::MAX, of: of.collect() });
        let notice = Notice {
            holder: holder(),
            epoch: LeaderEpoch(1),
            version: 2,
            provider: "acme".to_owned(),
            size: sizes,
            pause: None,
            pace: Some(u64::MAX),
        };
        let letter = Letter { report, tenants: Some(fitting(tenants)), ..Letter::default() };
        assert_eq!(Letter::read(&letter.write()), Ok(letter));
        let letter = Letter { notices: Some(vec![notice]), ..Letter::default() };
        assert_eq!(Letter::read(&letter.write()), Ok(letter));
        assert!(Letter::read(&[0xFF]).is_err());
        assert!(Letter::read(&vec![0xA0; BYTES_MAX + 1]).is_err());
    }
}
