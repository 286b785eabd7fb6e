//! The language's documentation is its conformance suite: every program of `docs/language/*.md` does what its page says.
//!
//! How a page is written stands in `docs/language/README.md`. With `UPDATE_EXPECT=1` the expectations are rewritten to
//! what the programs do now.

mod page;

use std::path::PathBuf;

use page::Page;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/language")
}

/// Each page is a test of its own, so that they run side by side and a failure names its page.
macro_rules! pages {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            Page::read(&folder().join(concat!(stringify!($name), ".md"))).check();
        })*

        const LISTED: &[&str] = &[$(stringify!($name)),*];
    };
}

pages! {
    agents
    concurrency
    contracts
    costs
    errors
    evaluation
    forks
    imports
    judges
    library
    loops
    memory
    pipelines
    questions
    refused
    syntax
    tests
    tools
    types
    values
}

#[test]
fn every_page_is_checked() {
    let found = std::fs::read_dir(folder()).expect("the folder of the pages");
    let found =
        found.map(|entry| entry.expect("a file of the folder").file_name().into_string().expect("a plain name"));
    // The diagnostics have programs that do not compile, and `nexa-lang` checks what they print; the table of the
    // conformance has none, and `conformance.rs` checks it.
    let mut pages: Vec<String> = found
        .filter_map(|name| name.strip_suffix(".md").map(str::to_owned))
        .filter(|name| !matches!(name.as_str(), "README" | "conformance" | "diagnostics"))
        .collect();
    pages.sort();
    let mut listed = LISTED.to_vec();
    listed.sort_unstable();
    assert_eq!(pages, listed, "every page of docs/language is in the list of this file");
}
