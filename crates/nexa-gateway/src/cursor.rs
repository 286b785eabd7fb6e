//! Cursors: opaque to clients, checked when they come back.
//!
//! A cursor is `format:1 origin:8 position:8 checksum:4`. The origin is a hash of where the watched thing begins in this
//! store (its id, the position and the moment of its first fact), so a cursor of another store, or of another workload,
//! is refused and never read as a wrong place.
//!
//! The checksum is no secret: what a caller may see is decided by the tenant, never by a cursor.

use nexa_proto::refusal::Refusal;
use nexa_types::{GlobalSeq, Reason, Timestamp};

const FORMAT: u8 = 1;
const ORIGIN_LEN: usize = 8;
const CHECK_LEN: usize = 4;

/// Where a watched thing begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin([u8; ORIGIN_LEN]);

impl Origin {
    /// The origin of a watch.
    pub fn of_watch(id: &[u8], first: GlobalSeq, at: Timestamp) -> Self {
        Self::of("nexa.v1 cursor origin", &[id, &first.0.to_le_bytes(), &at.0.to_le_bytes()])
    }

    fn of(domain: &'static str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(domain);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut bytes = [0; ORIGIN_LEN];
        hasher.finalize_xof().fill(&mut bytes);
        Self(bytes)
    }

    fn seal(self, key: &[u8]) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend(self.0);
        bytes.extend(key);
        let check = check(&bytes);
        bytes.extend(check);
        bytes
    }

    fn open(self, bytes: &[u8]) -> Option<&[u8]> {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_LEN)?)?;
        let key = body.strip_prefix(&[FORMAT])?.strip_prefix(&self.0)?;
        (check(body) == sum).then_some(key)
    }

    /// The cursor of a position.
    pub fn cursor(self, position: GlobalSeq) -> Vec<u8> {
        self.seal(&position.0.to_be_bytes())
    }

    /// The position of a cursor.
    ///
    /// # Errors
    /// CURSOR_INVALID unless [`Origin::cursor`] of the same origin made it.
    pub fn position(self, cursor: &[u8]) -> Result<GlobalSeq, Refusal> {
        let position = self.open(cursor).and_then(|key| key.try_into().ok()).map(u64::from_be_bytes);
        position.map(GlobalSeq).ok_or_else(|| invalid("cursor", "watch again without a cursor"))
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut sum = [0; CHECK_LEN];
    blake3::Hasher::new_derive_key("nexa.v1 cursor checksum").update(bytes).finalize_xof().fill(&mut sum);
    sum
}

/// The refusal of a cursor that was not made here, for this.
pub(crate) fn invalid(what: &str, hint: &str) -> Refusal {
    Refusal::new(Reason::CursorInvalid, format!("the {what} was not made by this store, or not for this")).hint(hint)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HERE: (u64, u64) = (7, 1_000);

    fn origin(id: &[u8], (first, at): (u64, u64)) -> Origin {
        Origin::of_watch(id, GlobalSeq(first), Timestamp(at))
    }

    #[test]
    fn a_cursor_of_another_store_or_workload_is_refused() {
        let cursor = origin(b"w", HERE).cursor(GlobalSeq(42));
        assert_eq!(origin(b"w", HERE).position(&cursor), Ok(GlobalSeq(42)));
        for other in [origin(b"v", HERE), origin(b"w", (8, 1_000)), origin(b"w", (7, 1_001))] {
            assert_eq!(other.position(&cursor).map_err(|refusal| refusal.reason), Err(Reason::CursorInvalid));
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(origin(b"w", HERE).position(&bytes).is_err());
        }

        #[test]
        fn a_changed_byte_is_noticed(position: u64, at in 0usize..21, flip in 1u8..) {
            let mut cursor = origin(b"w", HERE).cursor(GlobalSeq(position));
            cursor[at] ^= flip;
            prop_assert!(origin(b"w", HERE).position(&cursor).is_err());
        }
    }
}
