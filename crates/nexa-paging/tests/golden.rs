//! Stored bytes, kept for ever: whatever was written by an earlier build must be read by this one.
//!
//! A file in `golden/` is never changed; a new form gets a new file, which
//! `NEXA_GOLDEN=add cargo test -p nexa-paging --test golden` writes.

#![allow(clippy::unwrap_used, reason = "a test that unwraps says enough by failing")]

mod common;

use std::path::Path;

use common::Desk;
use nexa_paging::{ContextPager, MemoryPage, PagingConfig};

fn config() -> PagingConfig {
    PagingConfig { page_size: 2, max_active_pages: 3, ..PagingConfig::default() }
}

fn desk() -> Desk {
    let mut desk = Desk::new(config());
    desk.tells(&["green tea", "black tea", "a red boat"]);
    desk.breaks();
    desk.tells(&["snow", "a train to Oslo", "the violin", "rails"]);
    desk.pager.pin(desk.sealed[0], true).unwrap();
    desk.scans("boat");
    desk.asks("tea");
    desk.says("still open");
    desk
}

fn compare(name: &str, bytes: &[u8]) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/1-{name}.hex"));
    if std::env::var_os("NEXA_GOLDEN").is_some_and(|add| add == "add") && !path.exists() {
        std::fs::write(&path, format!("{hex}\n")).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(stored.trim(), hex, "{name}: what is stored may not change");
}

#[test]
fn a_snapshot_is_read_and_written_as_ever() {
    compare("snapshot", &desk().pager.snapshot());
}

#[test]
fn pages_are_read_and_written_as_ever() {
    let desk = desk();
    let page = desk.pager.page(desk.sealed[0]).unwrap();
    compare("messages", &page.body());
    compare("vectors", &page.vectors_body());
    let read = |body: &[u8], vectors: &[u8]| MemoryPage::from_stored(common::AGENT, body, vectors);
    let back = read(&page.body(), &page.vectors_body()).unwrap();
    assert_eq!((back.id, &back.messages, &back.vectors), (page.id, &page.messages, &page.vectors));
    assert_eq!(read(&page.body(), &[]).unwrap().vectors, [None, None], "vectors may come later");
    for cut in 0..page.body().len() {
        assert!(read(&page.body()[..cut], &[]).is_err(), "{cut}");
    }
    let mut newer = page.body();
    assert_eq!(newer[..3], [0xa2, 0, 1], "the format stands first");
    newer[2] = 2;
    assert!(read(&newer, &[]).is_err());
}

#[test]
fn a_reader_skips_fields_that_it_does_not_know() {
    let desk = desk();
    let mut snapshot = desk.pager.snapshot();
    assert_eq!(snapshot[0], 0xa5, "a map of five");
    snapshot[0] = 0xa6;
    snapshot.extend([0x18, 99, 0x61, b'x']);
    let pages = desk.sealed.iter().map(|page| desk.store[page].clone()).collect::<Vec<_>>();
    let (pager, _) = ContextPager::restore(&snapshot, config(), pages, desk.pager.open().to_vec()).unwrap();
    assert_eq!(pager.snapshot(), desk.pager.snapshot());
}

#[test]
fn a_snapshot_of_a_newer_build_says_so() {
    let mut snapshot = desk().pager.snapshot();
    assert_eq!(snapshot[..3], [0xa5, 0, 1], "the format stands first");
    snapshot[2] = 2;
    let error = ContextPager::restore(&snapshot, config(), Vec::new(), Vec::new()).unwrap_err();
    assert!(format!("{error:?}").contains("NewerFormat"), "{error:?}");
}
