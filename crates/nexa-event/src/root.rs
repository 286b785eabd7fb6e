//! What stands for a whole log: a root over its streams up to a position, and the anchors that remember it elsewhere.
//!
//! Each stream has a chain of its own, which shows that one of its facts was changed. It does not show that its newest facts
//! are gone, that a whole stream is, or that another history stands in its place. The root does: it is folded over the links of
//! all streams in reading order,
//!
//! `root(n) = BLAKE3(root(n - 1) ‖ link of the fact at position n)`,
//!
//! from a constant on. A link covers its stream, its version and everything before it in the stream, so the root at a position
//! fixes the head of each stream there, and their order among each other. This is linear linking (Haber & Stornetta, "How to
//! time-stamp a digital document", 1991, §5.1).
//!
//! A sum over the set of heads (`LtHash`: Bellare & Micciancio 1997; Lewi, Kim, Maykov & Weis 2019) would say the same of the
//! heads and nothing of their order, with a state of 2 KiB in the place of 32 bytes and two expansions to it a fact in the place of
//! one compression. Its merit, that parts may be summed in any order, is of no use where there is one reading order.
//!
//! Holds:
//!   RO-1  the root is a function of the log up to its position, however the fold was cut into pieces
//!   RO-2  logs that differ anywhere up to a position differ in their roots there
//!   RO-3  an anchor names the one before it by its hash

use minicbor::{Decode, Encode};
use nexa_types::{GlobalSeq, Timestamp, Version};

use crate::codec;
use crate::envelope::Link;

/// Sets roots and anchors apart from all other hashes.
const ROOT_CONTEXT: &str = "nexa.v1 log root";
const ANCHOR_CONTEXT: &str = "nexa.v1 log anchor";

/// A log up to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Root {
    /// The position of the newest fact that it covers; 0 for none. Positions are dense, so it is also the number of facts.
    #[n(0)]
    pub position: GlobalSeq,
    /// Streams that have begun by then.
    #[n(1)]
    pub streams: u64,
    /// All of it in 32 bytes.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// The link of the fact at the position.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub link: [u8; 32],
}

impl Root {
    /// Of a log without facts.
    #[must_use]
    pub fn start() -> Self {
        Self { position: GlobalSeq(0), streams: 0, hash: blake3::derive_key(ROOT_CONTEXT, &[]), link: Link::START.0 }
    }

    /// With the fact at the next position: its version in its stream, and its link.
    #[must_use]
    pub fn next(self, version: Version, link: Link) -> Self {
        let mut both = [0; 64];
        both[..32].copy_from_slice(&self.hash);
        both[32..].copy_from_slice(&link.0);
        Self {
            position: GlobalSeq(self.position.0 + 1),
            streams: self.streams + u64::from(version == Version(1)),
            hash: *blake3::hash(&both).as_bytes(),
            link: link.0,
        }
    }
}

/// A root that is remembered outside the log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Anchor {
    /// Counts from 1.
    #[n(0)]
    pub number: u64,
    /// The id of the log.
    #[n(1)]
    pub log: String,
    /// What it remembers.
    #[n(2)]
    pub root: Root,
    /// The hash of the anchor before it; zeros for the first.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub before: [u8; 32],
    /// When it was made.
    #[n(4)]
    pub at: Timestamp,
    /// Why the log was taken as it is, though it is not what the anchor before says: a person's words.
    #[n(5)]
    pub accepted: Option<String>,
}

impl Anchor {
    /// The one after another, or the first.
    #[must_use]
    pub fn after(before: Option<&Self>, log: String, root: Root, at: Timestamp) -> Self {
        let (number, hash) = before.map_or((0, [0; 32]), |before| (before.number, before.hash()));
        Self { number: number + 1, log, root, before: hash, at, accepted: None }
    }

    /// The same, taken for right by a person who says why.
    #[must_use]
    pub fn accepting(self, why: String) -> Self {
        Self { accepted: Some(why), ..self }
    }

    /// What the next one calls it by.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        blake3::derive_key(ANCHOR_CONTEXT, &codec::encode(self))
    }
}

/// An anchor does not follow the one that stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("anchor {number} does not follow the one before it: anchors were changed or taken away")]
pub struct Unchained {
    /// The number that it says it has.
    pub number: u64,
}

/// Checks that anchors, oldest first, follow each other. The oldest may be any: earlier ones are not kept for ever.
///
/// # Errors
/// [`Unchained`] with the first that does not.
pub fn check_chain(anchors: &[Anchor]) -> Result<(), Unchained> {
    let wrong = anchors.windows(2).find(|pair| {
        pair[1].number != pair[0].number.wrapping_add(1)
            || pair[1].before != pair[0].hash()
            || pair[1].accepted.is_none() && pair[1].root.position <= pair[0].root.position
    });
    wrong.map_or(Ok(()), |pair| Err(Unchained { number: pair[1].number }))
}

/// Those that the log as it is must agree with: from the newest on that a person has accepted.
#[must_use]
pub fn in_force(anchors: &[Anchor]) -> &[Anchor] {
    let from = anchors.iter().rposition(|anchor| anchor.accepted.is_some()).unwrap_or(0);
    &anchors[from..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(log: &[(u64, [u8; 32])]) -> Root {
        log.iter().fold(Root::start(), |root, (version, link)| root.next(Version(*version), Link(*link)))
    }

    fn logs() -> impl Strategy<Value = Vec<(u64, [u8; 32])>> {
        proptest::collection::vec((1_u64..4, any::<[u8; 32]>()), 1..40)
    }

    fn chain(roots: &[(u64, Option<&str>)]) -> Vec<Anchor> {
        let mut anchors: Vec<Anchor> = Vec::new();
        for (position, accepted) in roots {
            let root = Root { position: GlobalSeq(*position), ..Root::start() };
            let next = Anchor::after(anchors.last(), "log".to_owned(), root, Timestamp(*position));
            anchors.push(match accepted {
                Some(why) => next.accepting((*why).to_owned()),
                None => next,
            });
        }
        anchors
    }

    proptest! {
        #[test]
        fn a_root_counts_facts_and_streams(log in logs()) {
            let root = folded(&log);
            prop_assert_eq!(root.position.0, log.len() as u64);
            prop_assert_eq!(root.streams, log.iter().filter(|(version, _)| *version == 1).count() as u64);
            prop_assert_eq!(Some(root.link), log.last().map(|(_, link)| *link));
        }

        #[test]
        fn whatever_is_changed_taken_away_put_in_or_swapped_changes_the_root(
            log in logs(), at in any::<proptest::sample::Index>(), bit in 0_usize..256, link in any::<[u8; 32]>()
        ) {
            let at = at.index(log.len());
            let was = folded(&log);
            let differs = |other: &[(u64, [u8; 32])]| folded(other).hash != was.hash;
            let mut changed = log.clone();
            changed[at].1[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(differs(&changed));
            let mut shorter = log.clone();
            shorter.remove(at);
            prop_assert!(differs(&shorter));
            let mut longer = log.clone();
            longer.insert(at, (2, link));
            prop_assert!(differs(&longer));
            let mut swapped = log.clone();
            swapped.swap(at, 0);
            prop_assert_eq!(differs(&swapped), swapped[0].1 != log[0].1);
        }

        #[test]
        fn a_root_is_read_as_it_was_written(log in logs()) {
            let root = folded(&log);
            prop_assert_eq!(codec::decode::<Root>(&codec::encode(&root)), Ok(root));
        }

        #[test]
        fn an_anchor_that_was_changed_no_longer_fits_the_next(at in 0_usize..3, by in 1_u64..9) {
            let mut anchors = chain(&[(1, None), (4, None), (9, None), (12, None)]);
            prop_assert_eq!(check_chain(&anchors), Ok(()));
            anchors[at].at.0 += by;
            prop_assert_eq!(check_chain(&anchors), Err(Unchained { number: anchors[at + 1].number }));
        }
    }

    /// What is kept outside outlives builds: neither how a root is folded nor how an anchor is hashed may change.
    #[test]
    fn roots_and_anchors_are_the_same_in_every_build() {
        let root = folded(&[(1, [1; 32]), (1, [2; 32]), (2, [3; 32])]);
        let anchor = Anchor::after(None, "log".to_owned(), root, Timestamp(7));
        let next = Anchor::after(Some(&anchor), "log".to_owned(), root, Timestamp(8)).accepting("why".to_owned());
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&root.hash), "226b542a82c64978293283faf9f9e961c3a4d67eec3f3f477defcc5c4337d691");
        assert_eq!(hex(&next.hash()), "78c42c94c355d8acddea45d9f6fb5c80c74111e090dbeac08e12bb1ae27dc17a");
        assert_eq!(codec::decode::<Anchor>(&codec::encode(&next)), Ok(next));
    }

    #[test]
    fn anchors_move_forward_unless_a_person_takes_less() {
        assert_eq!(check_chain(&chain(&[(4, None), (4, None)])), Err(Unchained { number: 2 }));
        let accepted = chain(&[(4, None), (2, Some("the disk broke")), (7, None)]);
        assert_eq!(check_chain(&accepted), Ok(()));
        assert_eq!(in_force(&accepted), &accepted[1..]);
        assert_eq!(in_force(&accepted[..1]), &accepted[..1]);
        assert_eq!(in_force(&[]), &[]);
        let gap = [accepted[0].clone(), accepted[2].clone()];
        assert_eq!(check_chain(&gap), Err(Unchained { number: 3 }));
    }
}
