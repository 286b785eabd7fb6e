//! Running other programs, with errors that say which one and how it ended.
//!
//! They see nothing of what `cargo` told this one about itself. A build script may ask to be run again when such a variable
//! changes (that of ring does), so with them every build from here and every build by hand would undo each other's.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What went wrong, for a person.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// The project's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the project").to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where this build's executables of profile `fast` are.
pub(crate) fn binary(name: &str) -> PathBuf {
    target_dir().join("fast").join(name)
}

/// Whether a program is on the path.
pub(crate) fn is_on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Runs a program in the project's root with its output shown; an error unless it succeeds.
pub(crate) fn run(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Outcome {
    run_with(program, args, &[])
}

/// As [`run`], with variables added to the environment.
pub(crate) fn run_with(program: impl AsRef<std::ffi::OsStr>, args: &[&str], env: &[(&str, &str)]) -> Outcome {
    let program = program.as_ref();
    let shown = format!("{} {}", Path::new(program).file_name().unwrap_or(program).to_string_lossy(), args.join(" "));
    eprintln!("$ {shown}");
    let started = Instant::now();
    let status = command(program)
        .args(args)
        .envs(env.iter().copied())
        .current_dir(root())
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("cannot start `{shown}`: {error}"))?;
    if status.success() {
        let seconds = started.elapsed().as_secs_f64();
        if seconds > 5.0 {
            eprintln!("  took {seconds:.0} s");
        }
        Ok(())
    } else {
        Err(format!("`{shown}` ended with {status}"))
    }
}

/// Whether a program succeeds, its output hidden.
pub(crate) fn succeeds(program: &str, args: &[&str]) -> bool {
    command(program.as_ref())
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A command in the environment of whoever started `cargo xtask`.
pub(crate) fn command(program: &std::ffi::OsStr) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_told_by_cargo) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether `cargo run` sets a variable for the program that it runs, or cargo for a build script. Not those that a person sets
/// for cargo, as `CARGO_HOME`, `CARGO_TARGET_DIR` and `CARGO_PROFILE_…`.
fn is_told_by_cargo(name: &str) -> bool {
    const NAMES: [&str; 5] = ["CARGO", "CARGO_PRIMARY_PACKAGE", "CARGO_TARGET_TMPDIR", "CARGO_SBOM_PATH", "OUT_DIR"];
    const BEGINNINGS: [&str; 6] =
        ["CARGO_BIN_", "CARGO_CFG_", "CARGO_CRATE_", "CARGO_FEATURE_", "CARGO_MANIFEST_", "CARGO_PKG_"];
    NAMES.contains(&name) || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_do_not_see_what_cargo_told_this_one_and_all_else() {
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "cargo runs this test, and tells it where it is");
        let out = command("env".as_ref()).output().expect("there is `env`");
        let seen = String::from_utf8_lossy(&out.stdout);
        let names = || seen.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
        assert_eq!(names().filter(|name| is_told_by_cargo(name)).collect::<Vec<_>>(), Vec::<&str>::new());
        assert!(names().any(|name| name == "PATH"), "{seen}");
    }

    #[test]
    fn what_a_person_sets_for_cargo_stays() {
        for name in
            ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_PROFILE_RELEASE_LTO", "CARGO_INCREMENTAL", "CARGO_BUILD_JOBS"]
        {
            assert!(!is_told_by_cargo(name), "{name}");
        }
        for name in ["CARGO", "CARGO_PKG_NAME", "CARGO_MANIFEST_LINKS", "CARGO_BIN_NAME", "CARGO_CRATE_NAME", "OUT_DIR"]
        {
            assert!(is_told_by_cargo(name), "{name}");
        }
    }
}
