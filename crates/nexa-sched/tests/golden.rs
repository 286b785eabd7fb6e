//! Stored bytes, kept for ever: whatever was written by an earlier build must be read by this one.
//!
//! A file in `golden/` is never changed; a new form gets a new file, which
//! `NEXA_GOLDEN=add cargo test -p nexa-sched --test golden` writes.

use std::path::Path;

use nexa_event::codec::{decode, encode};
use nexa_sched::lease::{Generation, HolderId, LeaderEpoch, NO_LIMIT, Sizes, SliceRecord};
use nexa_types::NodeId;

fn holder() -> HolderId {
    HolderId { node: NodeId::new("node-1").expect("a good name"), generation: Generation(3) }
}

#[test]
fn recorded_slices_are_read_and_written_as_ever() {
    let limited = Sizes::new(500, 90_000, 12_000, 16);
    let some = Sizes::new(500, NO_LIMIT, NO_LIMIT, 16);
    let all = [
        ("limited", limited, NO_LIMIT),
        ("some", some, NO_LIMIT),
        ("none", Sizes::NONE, NO_LIMIT),
        ("paced", some, 640),
    ];
    for (name, size, pace) in all {
        let record = SliceRecord::new("openai:team-key", &holder(), LeaderEpoch(7), 12, (&size, pace));
        assert_eq!((record.size(), record.pace(), record.holder()), (size, pace, holder()));
        let bytes = encode(&record);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/1-slice-{name}.hex"));
        if std::env::var_os("NEXA_GOLDEN").is_some_and(|add| add == "add") && !path.exists() {
            std::fs::write(&path, format!("{hex}\n")).expect("the folder is there");
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(stored.trim(), hex, "{name}: what is stored may not change");
        assert_eq!(decode::<SliceRecord>(&bytes), Ok(record));
    }
}

#[test]
fn a_reader_skips_fields_that_it_does_not_know() {
    let record = SliceRecord::new("p", &holder(), LeaderEpoch(7), 12, (&Sizes::new(1, 2, 3, 4), 5));
    let mut bytes = encode(&record);
    assert_eq!(bytes[0], 0xaa, "a map of ten");
    bytes[0] = 0xab;
    bytes.extend([0x18, 99, 0x61, b'x']);
    assert_eq!(decode::<SliceRecord>(&bytes), Ok(record));
}
