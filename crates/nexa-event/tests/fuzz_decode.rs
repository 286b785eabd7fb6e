//! Hostile bytes: any input gives a value or an error, never a panic, and never more than a bounded depth.

use bolero::check;
use nexa_event::codec::{DecodeError, NESTING_MAX, decode, encode, items};
use nexa_event::envelope::{self, Fact, Header, Link};
use nexa_event::fact::{AgentEvent, Input};
use nexa_event::inbox;
use nexa_types::{Failure, Outcome, RunCode, Spend};
use proptest::prelude::*;

fn golden() -> Vec<Vec<u8>> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("the directory is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let bytes = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).expect("a file");
        let digits = text.trim().as_bytes();
        digits
            .chunks_exact(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex digits"))
            .collect()
    };
    files.iter().map(bytes).collect()
}

/// Decodes as everything that is stored, and checks that what was read is written and read the same again.
fn decode_all(bytes: &[u8]) {
    if let Ok(fact) = decode::<Fact>(bytes) {
        assert_eq!(decode::<Fact>(&encode(&fact)).as_ref(), Ok(&fact));
    }
    if let Ok(input) = decode::<Input>(bytes) {
        assert_eq!(decode::<Input>(&encode(&input)).as_ref(), Ok(&input));
    }
    if let Ok((input, trace)) = inbox::decode(bytes) {
        assert_eq!(inbox::decode(&inbox::encode(&input, trace.as_ref())).as_ref(), Ok(&(input, trace)));
    }
    if let Ok(header) = decode::<Header>(bytes) {
        assert_eq!(decode::<Header>(&encode(&header)).as_ref(), Ok(&header));
    }
    for count in [0, 1, 3] {
        if let Ok(items) = items(bytes, count) {
            assert_eq!((items.len(), items.concat()), (count, bytes.to_vec()));
        }
    }
    let half = bytes.len() / 2;
    let _ = envelope::open_unchained(&bytes[..half], &bytes[half..]);
}

#[test]
fn fuzz_decode() {
    check!().with_iterations(20_000).with_max_len(512).for_each(decode_all);
}

#[test]
fn values_one_after_another_are_cut_where_each_ends() {
    let golden = golden();
    for three in golden.windows(3) {
        let together = three.concat();
        assert_eq!(items(&together, 3), Ok(three.iter().map(Vec::as_slice).collect()));
        assert_eq!(items(&together, 2), Err(DecodeError::TrailingBytes { extra: three[2].len() }));
        assert!(matches!(items(&together, 4), Err(DecodeError::Malformed { .. })));
        assert!(items(&together[..together.len() - 1], 3).is_err());
    }
}

#[test]
fn every_golden_file_cut_or_flipped_anywhere_is_refused_or_read() {
    for bytes in golden() {
        decode_all(&bytes);
        for end in 0..bytes.len() {
            decode_all(&bytes[..end]);
            assert!(decode::<Fact>(&bytes[..end]).is_err() || end == bytes.len(), "a cut value is no value");
        }
        for at in 0..bytes.len() {
            for flip in [0x01, 0x20, 0x80, 0xff] {
                let mut bad = bytes.clone();
                bad[at] ^= flip;
                decode_all(&bad);
            }
        }
    }
}

proptest! {
    #[test]
    fn bytes_after_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        decode_all(&bytes);
    }

    #[test]
    fn pieces_of_real_facts_in_any_order_never_panic(
        pieces in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..40usize), 1..8)
    ) {
        let golden = golden();
        let mut bytes = Vec::new();
        for (file, at, len) in pieces {
            let file = file.get(&golden);
            let at = at.index(file.len());
            bytes.extend_from_slice(&file[at..(at + len).min(file.len())]);
        }
        decode_all(&bytes);
    }

    #[test]
    fn a_chained_fact_opens_only_with_its_own_bytes(at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let files = golden();
        let (header, payload) = (&files[0], files.last().expect("there are files"));
        let link = Link::START.next(header, payload);
        let mut bad = payload.clone();
        bad[at.index(payload.len())] ^= flip;
        prop_assert_eq!(envelope::open(Link::START, header, &bad, link), Err(DecodeError::ChainBroken));
    }
}

/// A value in so many containers, each opened by `open` and closed by `close`.
fn nested(depth: usize, open: &[u8], close: &[u8]) -> Vec<u8> {
    let mut bytes = open.repeat(depth);
    bytes.push(0xf6);
    bytes.extend(close.repeat(depth));
    bytes
}

#[test]
fn deep_nesting_is_refused_before_it_can_exhaust_the_stack() {
    for (open, close) in [(&[0x81][..], &[][..]), (&[0x9f], &[0xff]), (&[0xa1, 0x00], &[]), (&[0xbf, 0x00], &[0xff])] {
        for depth in [NESTING_MAX + 1, 100_000, 3_000_000] {
            assert_eq!(decode::<Fact>(&nested(depth, open, close)), Err(DecodeError::TooDeep), "{open:x?} × {depth}");
        }
        let refused = decode::<Fact>(&nested(NESTING_MAX, open, close));
        assert!(matches!(refused, Err(DecodeError::Malformed { .. })), "{refused:?}");
    }
    // Tags nest without a container; they are no recursion for the reader.
    let tagged = [vec![0xc1; 1_000_000], vec![0xf6]].concat();
    assert!(decode::<Fact>(&tagged).is_err());
}

#[test]
fn announced_lengths_are_not_trusted() {
    for head in [0x5b, 0x7b, 0x9b, 0xbb] {
        let bytes = [&[head][..], &[0xff; 8]].concat();
        assert!(decode::<Fact>(&bytes).is_err());
        assert!(decode::<Input>(&[&[0x82, 0x00, 0x81], &bytes[..]].concat()).is_err());
    }
}

/// The end of an agent with so many failures that led to it.
fn ended_by(causes: usize) -> Fact {
    let mut failure = Failure::new(RunCode::Failed, "the first");
    for _ in 0..causes {
        let cause = Some(Box::new(failure));
        failure = Failure { cause, ..Failure::new(RunCode::Failed, "a later one") };
    }
    Fact::Agent(AgentEvent::Ended { outcome: Outcome::Err(failure), spend: Spend::default() })
}

#[test]
fn the_deepest_failure_that_is_read_needs_no_large_stack() {
    let bytes = |causes| encode(&ended_by(causes));
    let deepest = (0..NESTING_MAX).rev().find(|causes| decode::<Fact>(&bytes(*causes)).is_ok());
    let deepest = deepest.expect("a failure without a cause is read");
    assert!(deepest > NESTING_MAX - 12, "a fact takes up little of the nesting for itself: {deepest}");
    let reading = std::thread::Builder::new().stack_size(1_280 << 10).spawn(move || decode::<Fact>(&bytes(deepest)));
    assert_eq!(reading.expect("a thread").join().expect("it does not panic"), Ok(ended_by(deepest)));
}
