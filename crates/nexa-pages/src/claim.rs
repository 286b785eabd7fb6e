//! A claim: who writes a shard, and which versions of which datasets count in it.
//!
//! Claims are numbered, and one is written only where none is under its number; the highest holds. So there is one order of
//! take-overs, deletions and compactions, and it fences (PG-3): the claim that takes a shard over names the version of the
//! part that was appended to until then, and whatever an earlier writer commits to it afterwards is in a later version, which
//! nobody reads. It cannot write a claim of its own either: the number after the one it knows is taken.

use minicbor::{Decode, Encode};
use nexa_types::{AgentId, Epoch, GlobalSeq, Version};

use crate::rows::Key;

/// Begins each claim; the last byte is the format.
const MAGIC: &[u8; 8] = b"nexapgc1";
/// Begins one with [`Claim::gone_up_to`], which must not be passed over.
const MAGIC_2: &[u8; 8] = b"nexapgc2";
const HASH_BYTES: usize = 32;

/// A version of a dataset that never changes again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Sealed {
    /// The name of the part.
    #[n(0)]
    pub(crate) part: String,
    /// Which version of it counts.
    #[n(1)]
    pub(crate) version: u64,
    /// How many rows it has.
    #[n(2)]
    pub(crate) rows: u64,
}

/// A part that does not count any more, and is there for those who still read it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Retired {
    /// The name of the part.
    #[n(0)]
    pub(crate) part: String,
    /// Since when, in milliseconds.
    #[n(1)]
    pub(crate) at_ms: u64,
}

/// An agent whose pages are gone for good, up to those that begin at a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct GoneUpTo {
    /// The agent.
    #[n(0)]
    pub(crate) agent: AgentId,
    /// The message.
    #[n(1)]
    pub(crate) up_to: Version,
}

/// What counts in a shard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub(crate) struct Claim {
    /// Its place in the order of claims, from 1 on; 0 is that of a shard that nobody ever took.
    #[n(0)]
    pub(crate) number: u64,
    /// Whose it is.
    #[n(1)]
    pub(crate) epoch: Epoch,
    /// Up to where the shard was applied when this was written.
    #[n(2)]
    pub(crate) applied: GlobalSeq,
    /// What counts, oldest first.
    #[n(3)]
    pub(crate) sealed: Vec<Sealed>,
    /// The part that is appended to under this claim; the newest version of it counts.
    #[n(4)]
    pub(crate) open: String,
    /// Agents all of whose pages are gone for good, sorted.
    #[n(5)]
    pub(crate) gone: Vec<AgentId>,
    /// What does not count any more.
    #[n(6)]
    pub(crate) retired: Vec<Retired>,
    /// Agents some of whose pages are gone for good, sorted. Since format 2.
    #[n(7)]
    pub(crate) gone_up_to: Option<Vec<GoneUpTo>>,
}

impl Claim {
    /// As it is stored.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = if self.gone_up_to.is_some() { MAGIC_2 } else { MAGIC }.to_vec();
        minicbor::encode(self, &mut bytes).expect("writing to memory cannot fail");
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    /// What was stored under a number; the text says what is wrong with it.
    pub(crate) fn decode(bytes: &[u8], number: u64) -> Result<Self, String> {
        let damaged = |what: &str| format!("claim {number} {what}");
        let body = bytes.len().checked_sub(HASH_BYTES).ok_or_else(|| damaged("is too short"))?;
        let (body, hash) = bytes.split_at(body);
        if blake3::hash(body).as_bytes() != hash {
            return Err(damaged("has another checksum than was written"));
        }
        let body = body.strip_prefix(MAGIC).or_else(|| body.strip_prefix(MAGIC_2));
        let body = body.ok_or_else(|| damaged("is of a format that this version cannot read"))?;
        let claim: Self = minicbor::decode(body).map_err(|error| damaged(&error.to_string()))?;
        if claim.number == number { Ok(claim) } else { Err(damaged("is another one's")) }
    }

    /// Up to which message an agent's pages are gone for good, if some are.
    pub(crate) fn gone_up_to(&self, agent: AgentId) -> Option<Version> {
        if self.gone.binary_search(&agent).is_ok() {
            return Some(Version(u64::MAX));
        }
        let some = self.gone_up_to.as_deref().unwrap_or_default();
        some.binary_search_by_key(&agent, |gone| gone.agent).ok().map(|at| some[at].up_to)
    }

    /// Whether a page is gone for good.
    pub(crate) fn is_gone(&self, agent: AgentId, first: Version) -> bool {
        self.gone_up_to(agent).is_some_and(|up_to| first <= up_to)
    }

    /// The same of what is known of a row.
    pub(crate) fn has_deleted(&self, key: &Key) -> bool {
        self.is_gone(key.agent, key.first)
    }

    /// An agent's pages are gone from here on, up to those that begin at a message.
    pub(crate) fn delete_up_to(&mut self, agent: AgentId, up_to: Version) {
        let some = self.gone_up_to.get_or_insert_default();
        match some.binary_search_by_key(&agent, |gone| gone.agent) {
            Ok(at) => some[at].up_to = up_to.max(some[at].up_to),
            Err(at) => some.insert(at, GoneUpTo { agent, up_to }),
        }
    }

    /// A name for a part that a claim of the next number will have. The number comes first: once there is a claim of that
    /// number or a later one which does not know the part, nobody ever will.
    pub(crate) fn part_name(number: u64, epoch: Epoch) -> String {
        let mut unique = [0; 8];
        // Without chance the name may have been given before, and then the part cannot be made: nothing worse.
        let _ = getrandom::fill(&mut unique);
        format!("{number:020}-{epoch}-{:016x}", u64::from_le_bytes(unique))
    }

    /// The number in a part's name.
    pub(crate) fn number_in(part: &str) -> Option<u64> {
        part.split('-').next()?.parse().ok()
    }

    /// Whether it says anything of a part.
    pub(crate) fn knows(&self, part: &str) -> bool {
        self.open == part
            || self.sealed.iter().any(|sealed| sealed.part == part)
            || self.retired.iter().any(|retired| retired.part == part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim {
            number: 7,
            epoch: Epoch(3),
            applied: GlobalSeq(99),
            sealed: vec![Sealed { part: Claim::part_name(4, Epoch(2)), version: 12, rows: 5 }],
            open: Claim::part_name(7, Epoch(3)),
            gone: vec![AgentId::from_bytes([1; 16]), AgentId::from_bytes([2; 16])],
            retired: vec![Retired { part: Claim::part_name(1, Epoch(1)), at_ms: 5 }],
            gone_up_to: None,
        }
    }

    #[test]
    fn a_claim_is_read_as_it_was_written() {
        let claim = claim();
        assert_eq!(Claim::decode(&claim.encode(), 7), Ok(claim.clone()));
        assert_eq!(Claim::number_in(&claim.open), Some(7));
    }

    #[test]
    fn agents_are_gone_as_far_as_they_were_deleted_and_builds_of_format_1_do_not_pass_over_it() {
        let (mut claim, some) = (claim(), AgentId::from_bytes([9; 16]));
        for (agent, up_to) in [(some, 7), (AgentId::from_bytes([3; 16]), 1), (some, 5)] {
            claim.delete_up_to(agent, Version(up_to));
        }
        let is_gone = |first| claim.is_gone(some, Version(first));
        assert_eq!([1, 7, 8].map(is_gone), [true, true, false], "it never goes back");
        assert!(claim.is_gone(AgentId::from_bytes([1; 16]), Version(99)), "all of another's");
        assert!(claim.encode().starts_with(MAGIC_2));
        assert_eq!(Claim::decode(&claim.encode(), 7), Ok(claim));
    }

    /// What a version of this stored is read by all later ones.
    #[test]
    fn a_claim_of_format_1_is_read() {
        let golden =
            "6e6578617067633187070318638183646f6e6c790c05646f70656e8150010101010101010101010101010101018182636f6c6405";
        let mut bytes: Vec<u8> =
            (0..golden.len() / 2).map(|at| u8::from_str_radix(&golden[2 * at..2 * at + 2], 16).expect("hex")).collect();
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        let expected = Claim {
            sealed: vec![Sealed { part: "only".to_owned(), version: 12, rows: 5 }],
            open: "open".to_owned(),
            gone: vec![AgentId::from_bytes([1; 16])],
            retired: vec![Retired { part: "old".to_owned(), at_ms: 5 }],
            ..claim()
        };
        assert_eq!(Claim::decode(&bytes, 7), Ok(expected));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unnoticed() {
        let bytes = claim().encode();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Claim::decode(&bad, 7).is_err(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(Claim::decode(&bytes[..end], 7).is_err(), "cut at {end}");
        }
        assert!(Claim::decode(&bytes, 8).is_err(), "another one's number");
    }
}
