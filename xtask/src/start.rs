//! Which functions a start uses, for the linker to put side by side.
//!
//! The system maps the sixteen pages around each that is touched. A start runs five megabytes of functions; scattered over
//! the program they have it map eighteen. `crates/nexa/start.order` names them, `crates/nexa/build.rs` hands the names to
//! the linker, and this writes them anew: names of functions carry hashes of what their crate depends on, so the list
//! ages with each new version of a dependency. A name that no longer exists is ignored; `cargo xtask bench core` says how many
//! do, and `start_peak_mib` what that costs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{self, Outcome, is_on_path, root, target_dir};

/// Where the names are.
const LIST: &str = "crates/nexa/start.order";
/// What is started: as little as can be.
const PROGRAM: &str = "flow main(n: int) -> int { return n + 1 }\n";
/// The first makes its data, the second finds them.
const RUNS: usize = 2;

/// Builds for release, runs what it built under callgrind, and writes the names of what ran.
pub(crate) fn order() -> Outcome {
    if !is_on_path("valgrind") || !is_on_path("nm") {
        return Err("needs valgrind and nm to see which functions run: apt-get install valgrind binutils".to_owned());
    }
    process::run("cargo", &["build", "--quiet", "--release", "--package", "nexa"])?;
    let nexa = target_dir().join("release").join("nexa");
    let folder = target_dir().join("start-order");
    let failed = |doing: &str, error: std::io::Error| format!("cannot {doing}: {error}");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(|error| failed("empty the folder of the last time", error))?;
    }
    std::fs::create_dir_all(&folder).map_err(|error| failed("make a folder", error))?;
    let (program, data) = (folder.join("start.nx"), folder.join("data"));
    std::fs::write(&program, PROGRAM).map_err(|error| failed("write the program", error))?;
    let mut ran = BTreeSet::new();
    for run in 0..RUNS {
        let profile = folder.join(format!("{run}.callgrind"));
        let out = format!("--callgrind-out-file={}", profile.display());
        let [nexa, program, data] = [&nexa, &program, &data].map(|path| path.to_string_lossy());
        let words = ["--tool=callgrind", "--demangle=no", "-q", &out, &nexa, "run", &program, "--input", "1"];
        process::run("valgrind", &[&words[..], &["--data", &data]].concat())?;
        let profile = std::fs::read_to_string(&profile).map_err(|error| failed("read what callgrind saw", error))?;
        ran.extend(profile.lines().filter_map(function).map(str::to_owned));
    }
    let own = defined(&nexa)?;
    let mut names: Vec<&str> = ran.intersection(&own).map(String::as_str).collect();
    names.sort_unstable();
    let mut text = names.join("\n");
    text.push('\n');
    let list = root().join(LIST);
    std::fs::write(&list, text).map_err(|error| failed("write the list", error))?;
    println!("{} functions run in a start: {}", names.len(), list.display());
    Ok(())
}

/// The name that a line of callgrind's gives to a function: `fn=(7) name` where it is described, `cfn=(7) name` where it
/// is called, `name'2` where it calls itself.
fn function(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("fn=(").or_else(|| line.strip_prefix("cfn=("))?;
    let (_, name) = rest.split_once(") ")?;
    Some(name.split_once('\'').map_or(name, |(name, _)| name))
}

/// How many of the functions that are named a program has, and how many are named: fewer over time.
pub(crate) fn found(program: &Path) -> Outcome<(usize, usize)> {
    let list = root().join(LIST);
    let names = std::fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let own = defined(program)?;
    Ok((names.lines().filter(|name| own.contains(*name)).count(), names.lines().count()))
}

/// The functions that a program brings itself.
fn defined(program: &Path) -> Outcome<BTreeSet<String>> {
    let mut nm = Command::new("nm");
    nm.arg("--defined-only").arg(program).stdin(Stdio::null());
    let out = nm.output().map_err(|error| format!("cannot start nm: {error}"))?;
    if !out.status.success() {
        return Err(format!("nm ended with {}", out.status));
    }
    let name = |line: &str| line.split_whitespace().nth(2).map(str::to_owned);
    Ok(String::from_utf8_lossy(&out.stdout).lines().filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    use super::function;

    #[test]
    fn names_are_read_where_functions_run_or_are_called() {
        let read =
            ["fn=(1) _ZN4core3fmtE", "cfn=(12) sqlite3_open'2", "fn=(1)", "fl=(3) store.c", "25 1 4"].map(function);
        assert_eq!(read, [Some("_ZN4core3fmtE"), Some("sqlite3_open"), None, None, None]);
    }
}
