//! Everything that must pass before a change lands, in the order in which failures are cheapest.

use std::path::PathBuf;

use crate::process::{self, Outcome, binary, run_with, target_dir};
use crate::{setup, tidy};

/// How much to test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// What a save should wait for.
    Quick,
    /// What a change must pass.
    Full,
    /// What takes too long for that: tests that are marked `#[ignore]`, optimised.
    Slow,
    /// What needs Lance.
    Apart,
}

/// A package whose libraries take as long to build as all the rest together.
pub(crate) const APART: &str = "nexa-pages";
/// A server of S3 that its tests start, as a module of Go.
const MINIO: &str = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c";
/// All the others.
const OTHERS: [&str; 3] = ["--workspace", "--exclude", APART];

/// Packages whose ignored tests are slow ones. Elsewhere, ignored tests are parts of others, which start them.
const SLOW: &[&str] = &["nexa-battery", "nexa-model", "nexa-sched", "nexa-sim", "nexa-tests"];

/// Runs the tests of a tier.
pub(crate) fn run(tier: Tier) -> Outcome {
    if tier == Tier::Slow {
        let mut args = vec!["test", "--release", "--tests"];
        args.extend(SLOW.iter().flat_map(|package| ["--package", package]));
        args.extend(["--", "--ignored"]);
        // The whole program need not be optimised at once for tests, which doubles the time of a build.
        let lto = ("CARGO_PROFILE_RELEASE_LTO", "off");
        run_with("cargo", &["build", "--release", "--package", "nexa"], &[lto])?;
        let nexa = target_dir().join("release/nexa");
        return run_with("cargo", &args, &[lto, ("NEXA_BIN", &nexa.to_string_lossy())]);
    }
    if tier == Tier::Apart {
        return apart();
    }
    setup::install(setup::Scope::Tests)?;
    process::run("cargo", &["fmt", "--all", "--check"])?;
    tidy::run()?;
    if tier == Tier::Quick {
        return process::run(
            "cargo",
            &[&["test", "--quiet", "--profile", "fast"][..], &OTHERS, &["--exclude", "nexa-tests"]].concat(),
        );
    }
    process::run(
        "cargo",
        &[&["clippy", "--quiet", "--profile", "fast"][..], &OTHERS, &["--all-targets", "--", "-D", "warnings"]]
            .concat(),
    )?;
    // The binaries are built with the features of the tests, so that nothing is built twice: with a test beside them.
    let build = [&["build", "--quiet", "--profile", "fast"][..], &OTHERS].concat();
    let (nexa, next) = (binary("nexa"), binary("nexa-next"));
    // First what stands in for the next release, which is then replaced by this one. They differ in one crate only.
    let stand_in = ["--bin", "nexa", "--test", "rolling", "--features", "nexa/next-format"];
    process::run("cargo", &[&build[..], &stand_in].concat())?;
    std::fs::copy(&nexa, &next).map_err(|error| format!("copying {} failed: {error}", nexa.display()))?;
    process::run("cargo", &[&build[..], &["--all-targets"]].concat())?;
    let python = python()?;
    // Tests of the embedded model need its weights. Without them they say that they are skipped, and why.
    if let Err(error) = process::run(&nexa, &["models", "pull"]) {
        if std::env::var_os("CI").is_some() {
            return Err(error);
        }
        eprintln!("test: {error}; tests of the embedded model will be skipped");
    }
    let env = [
        ("NEXA_BIN", nexa.to_string_lossy().into_owned()),
        ("NEXA_NEXT_BIN", next.to_string_lossy().into_owned()),
        ("NEXA_TEST_PYTHON", python.to_string_lossy().into_owned()),
    ];
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    run_with("cargo", &[&["test", "--profile", "fast"][..], &OTHERS].concat(), &env)
}

/// Tests what keeps pages, the binary that has it, and agents that remember. The packages are the same each time, so that they
/// share features and nothing is built twice.
fn apart() -> Outcome {
    setup::install(setup::Scope::Tests)?;
    let built = ["--package", APART, "--package", "nexa", "--package", "nexa-tests", "--features", "nexa/s3"];
    let built = [&["--profile", "fast"][..], &built].concat();
    let tests = ["bucket", "contract", "kills", "model", "power", "memory", "remembering"]
        .map(|name| ["--test", name])
        .concat();
    let all = [&["--lib", "--bins", "--examples"][..], &built, &tests].concat();
    process::run("cargo", &[&["clippy", "--quiet"][..], &all, &["--", "-D", "warnings"]].concat())?;
    process::run("cargo", &[&["build", "--quiet"][..], &all].concat())?;
    let nexa = binary("nexa");
    let mut env = vec![("NEXA_BIN", nexa.to_string_lossy().into_owned()), ("NEXA_TEST_LANCE", "1".to_owned())];
    // Without it, tests of buckets say that they are skipped.
    match minio() {
        Ok(minio) => env.push(("NEXA_TEST_MINIO", minio.to_string_lossy().into_owned())),
        Err(error) if std::env::var_os("CI").is_some() => return Err(error),
        Err(error) => eprintln!("test: {error}; tests of buckets will be skipped"),
    }
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    run_with("cargo", &[&["test", "--lib"][..], &built, &tests].concat(), &env)
}

/// MinIO, in the target directory. Its build takes some minutes, once.
fn minio() -> Outcome<PathBuf> {
    let bin = target_dir().join("minio").join(MINIO.rsplit('@').next().unwrap_or_default());
    let bin = std::path::absolute(&bin).map_err(|error| format!("{}: {error}", bin.display()))?;
    let minio = bin.join("minio");
    if !minio.is_file() {
        run_with("go", &["install", MINIO], &[("GOBIN", &*bin.to_string_lossy()), ("GOFLAGS", "-mod=mod")])?;
    }
    Ok(minio)
}

/// A Python with the generated client's packages, in the target directory.
fn python() -> Outcome<PathBuf> {
    let venv = target_dir().join("python");
    let python = venv.join("bin/python");
    let requirements = "tests/python/requirements.txt";
    if !python.is_file() {
        process::run("python3", &["-m", "venv", &venv.to_string_lossy()])?;
    }
    process::run(&python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements])?;
    Ok(python)
}
