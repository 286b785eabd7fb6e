//! Running other programs, with errors that say which one and how it ended.

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
    let status = Command::new(program)
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
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
