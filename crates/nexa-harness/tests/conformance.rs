//! `docs/language/conformance.md` is complete: each number of the table has a program, or a test that says its number.
//!
//! That the programs do what they promise is checked in `pages.rs`. What is not built yet stands here with the reason, and
//! must leave this list with the program that shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The table goes from C01 to this one.
const LAST: u8 = 51;

/// Numbers without a program, and what is missing for one.
const NOT_YET: &[(u8, &str)] = &[
    (49, "graphs have nodes and their order, and neither ports nor edits yet"),
    (50, "`planner: tectonic(…)` is refused with E0411"),
];

/// Numbers that have a program on a page, and a part that no page can show: the tests that show it.
const TESTS: &[(u8, &str, &str)] = &[
    (44, "crates/nexa-agent/tests/agent/life.rs", "an_approval_gives_the_same_wherever_its_agent_waits_for_it"),
    (44, "crates/nexa-runtime/tests/runs.rs", "an_answered_approval_wakes_its_agent_also_from_dormancy"),
    (
        51,
        "crates/nexa-agent/tests/agent/tools.rs",
        "a_call_in_flight_at_a_crash_is_not_made_again_and_has_an_unknown_outcome",
    ),
    (51, "crates/nexa-vm/tests/golden.rs", "a_snapshot_of_another_module_is_refused_by_its_code"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `C07` at the start of a text, before a space.
fn number(text: &str) -> Option<u8> {
    let (number, _) = text.strip_prefix('C')?.split_once(' ')?;
    (number.len() == 2).then(|| number.parse().ok())?
}

/// The pages on which each number is the start of a program's title.
fn shown() -> BTreeMap<u8, BTreeSet<String>> {
    let mut found: BTreeMap<u8, BTreeSet<String>> = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("docs/language")).expect("the folder of the pages") {
        let path = entry.expect("a file of the folder").path();
        let Some(page) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".md")) else { continue };
        for line in read(&path).lines().filter(|line| line.starts_with("```nexa ")) {
            let title = line.split_once("title=\"").map_or("", |(_, title)| title);
            if let Some(number) = number(title) {
                found.entry(number).or_default().insert(page.to_owned());
            }
        }
    }
    found
}

/// The rows of the table: the number, and where it is shown.
fn rows() -> Vec<(u8, String)> {
    let page = read(&root().join("docs/language/conformance.md"));
    let rows = page.lines().filter_map(|line| {
        let row = line.strip_prefix("| ")?.strip_suffix(" |")?;
        Some((number(row)?, row.rsplit_once(" | ")?.1.to_owned()))
    });
    rows.collect()
}

#[test]
fn every_number_has_a_program_or_a_reason_why_not() {
    let shown = shown();
    let waiting: Vec<u8> = NOT_YET.iter().map(|(number, _)| *number).collect();
    let missing: Vec<u8> =
        (1..=LAST).filter(|number| !shown.contains_key(number) && !waiting.contains(number)).collect();
    assert!(missing.is_empty(), "no program's title begins with these numbers: {missing:?}");
    let there: Vec<u8> = waiting.into_iter().filter(|number| shown.contains_key(number)).collect();
    assert!(
        there.is_empty(),
        "{there:?} have programs now: take them from `NOT_YET`, and give them a row in the table"
    );
    let unknown: Vec<&u8> = shown.keys().filter(|number| !(1..=LAST).contains(*number)).collect();
    assert!(unknown.is_empty(), "the table has no such numbers: {unknown:?}");
}

#[test]
fn the_table_says_where_each_number_is_shown() {
    let shown = shown();
    let rows = rows();
    let numbers: Vec<u8> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(
        numbers,
        shown.keys().copied().collect::<Vec<u8>>(),
        "the rows are the numbers that are shown, in order"
    );
    for (number, row) in rows {
        let pages = shown[&number].iter().map(|page| format!("[{page}]({page}.md)"));
        let tests = TESTS.iter().filter(|(of, ..)| *of == number).map(|(_, file, _)| format!("`{file}`"));
        assert_eq!(row, pages.chain(tests).collect::<Vec<_>>().join(", "), "the row of C{number:02}");
    }
}

#[test]
fn tests_that_stand_in_the_table_exist_and_say_their_number() {
    for (number, file, name) in TESTS {
        let text = read(&root().join(file));
        let (before, _) =
            text.split_once(&format!("fn {name}()")).unwrap_or_else(|| panic!("{file} has no test {name}"));
        let said = before.rsplit("\n\n").next().is_some_and(|head| head.contains(&format!("/// C{number:02}")));
        assert!(said, "the words above {name} begin with C{number:02}");
    }
}
