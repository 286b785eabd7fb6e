//! What a compiler does not check.
//!
//! - every path and crate that ARCHITECTURE.md and CONTRIBUTING.md name exists, and every crate is named
//! - the files that ARCHITECTURE.md lists as one request's path are shorter than 500 lines
//! - a crate depends only on its own layer or lower ones
//! - actors are not messaged past admission outside `nexa-runtime`

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::process::{Outcome, root};

/// The layers of ARCHITECTURE.md, lowest first. Within a layer, the words before: a crate may use an earlier one.
const LAYERS: &[&[&str]] = &[
    &["nexa-types", "nexa-event", "nexa-proto"],
    &[
        "nexa-vm",
        "nexa-lang",
        "nexa-sched",
        "nexa-member",
        "nexa-paging",
        "nexa-agent",
        "nexa-view",
        "nexa-history",
        "nexa-harness",
    ],
    &["nexa-ports"],
    &["nexa-store", "nexa-postgres", "nexa-etcd", "nexa-llm", "nexa-tools", "nexa-pages"],
    &["nexa-audit", "nexa-remember", "nexa-runtime", "nexa-cluster"],
    &["nexa-gateway", "nexa-client", "nexa-load", "nexa-telemetry", "nexa-cli"],
    &["nexa"],
];

/// The most lines of a file on the newcomer's walk.
const WALK_LINES_MAX: usize = 500;

/// Runs every check; an error lists all that was found.
pub(crate) fn run() -> Outcome {
    let root = root();
    let mut found = Vec::new();
    documents(&root, &mut found);
    layers(&root, &mut found);
    admission(&root, &mut found);
    if found.is_empty() { Ok(()) } else { Err(format!("tidy found {} things:\n  {}", found.len(), found.join("\n  "))) }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Words in backquotes that look like paths or crates must be ones.
fn documents(root: &Path, found: &mut Vec<String>) {
    for name in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"] {
        let text = read(&root.join(name));
        if text.is_empty() {
            found.push(format!("{name} is missing"));
        }
        for (number, line) in text.lines().enumerate() {
            for word in line.split('`').skip(1).step_by(2) {
                let is_path = word.contains('/')
                    && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
                    && !word.starts_with('/');
                let is_crate = word.starts_with("nexa-") && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
                if is_path && !root.join(word).exists() && !is_planned(line) {
                    found.push(format!("{name}:{}: `{word}` does not exist", number + 1));
                }
                if is_crate && !root.join("crates").join(word).is_dir() && !is_planned(line) {
                    found.push(format!("{name}:{}: there is no crate `{word}`", number + 1));
                }
            }
        }
    }
    let architecture = read(&root.join("ARCHITECTURE.md"));
    for dir in crates(root) {
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !architecture.contains(&format!("`{name}`")) {
            found.push(format!("ARCHITECTURE.md does not name the crate `{name}`"));
        }
    }
    walk(root, &architecture, found);
}

/// A line may name what is absent if it says so.
fn is_planned(line: &str) -> bool {
    line.contains("not yet") || line.contains("absent") || line.contains("e.g.")
}

/// The numbered list under the heading that starts with "One request".
fn walk(root: &Path, architecture: &str, found: &mut Vec<String>) {
    let section = architecture.split("\n## ").find(|section| section.starts_with("One request")).unwrap_or_default();
    let files: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        .filter_map(|line| line.split('`').nth(1))
        .collect();
    if files.len() != 10 {
        found.push(format!("ARCHITECTURE.md: \"One request\" lists {} files, not ten", files.len()));
    }
    for file in files {
        let lines = read(&root.join(file)).lines().count();
        if lines == 0 || lines >= WALK_LINES_MAX {
            found.push(format!("{file}, on the newcomer's walk, has {lines} lines"));
        }
    }
}

fn crates(root: &Path) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = fs::read_dir(root.join("crates"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
        .unwrap_or_default();
    dirs.sort();
    dirs
}

/// Dependencies (not those of tests) point down, or to an earlier crate of the same layer.
fn layers(root: &Path, found: &mut Vec<String>) {
    let mut rank = BTreeMap::new();
    for (layer, names) in LAYERS.iter().enumerate() {
        for (place, name) in names.iter().enumerate() {
            rank.insert(*name, (layer, place));
        }
    }
    for dir in crates(root) {
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(&own) = rank.get(name.as_str()) else {
            if !["nexa-testkit", "nexa-battery", "nexa-bench", "nexa-model", "nexa-recall-bench", "nexa-sim"]
                .contains(&name.as_str())
            {
                found.push(format!("crate `{name}` has no layer; add it to LAYERS in xtask/src/tidy.rs"));
            }
            continue;
        };
        let manifest = read(&dir.join("Cargo.toml"));
        let dependencies = manifest.split("\n[").find(|part| part.starts_with("dependencies]")).unwrap_or_default();
        for line in dependencies.lines() {
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if rank.get(dependency).is_some_and(|other| *other >= own) {
                found.push(format!("`{name}` depends on `{dependency}`, which is not below it"));
            }
            if own.0 <= 1 && ["tokio", "reqwest", "rusqlite", "ractor"].contains(&dependency) {
                found.push(format!("`{name}` is below the pure line and depends on `{dependency}`"));
            }
        }
    }
}

/// ractor's mailboxes are unbounded: only the crate that bounds them may push into one, and the one that measures what the
/// bound costs.
fn admission(root: &Path, found: &mut Vec<String>) {
    for dir in
        crates(root).into_iter().filter(|dir| !["nexa-runtime", "nexa-bench"].iter().any(|name| dir.ends_with(name)))
    {
        let manifest = read(&dir.join("Cargo.toml"));
        if manifest.lines().any(|line| line.starts_with("ractor")) {
            found.push(format!("{} depends on ractor; only nexa-runtime and nexa-bench may", dir.display()));
        }
    }
}
