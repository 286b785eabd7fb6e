//! Where everything runs: networks, processes and mounts of its own, which end with this process however it ends.
//!
//! The command starts itself again below `unshare`, with a small shell as the first process, which reaps whatever loses its
//! parent. When that is gone, the system kills all that is left, and namespaces, bridges, mounts and loop devices go with
//! it. Folders and control groups do not: a run first removes those of earlier ones, known by [`PREFIX`] and by a lock that
//! nobody holds any more.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use crate::net;

/// How everything is called that outlives a process.
pub(crate) const PREFIX: &str = "nexa-battery-";
/// Set in the process inside.
const INSIDE: &str = "NEXA_BATTERY_INSIDE";
/// Where named network namespaces lie.
pub(crate) const NAMESPACES: &str = "/run/netns";
/// Control groups that slow a disk down.
pub(crate) const BLKIO: &str = "/sys/fs/cgroup/blkio";
/// Control groups that have threads stand still.
pub(crate) const FREEZER: &str = "/sys/fs/cgroup/freezer";

/// The first process inside: it reaps, and ends with what it runs.
const FIRST: &str = r#"mount -t tmpfs none /run/netns && ip link set lo up && "$@"; exit $?"#;

/// Whether this is the process inside.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Goes inside with the same command. Returns only to say why not.
pub(crate) fn enter() -> String {
    if !rustix::process::geteuid().is_root() {
        return "network namespaces and mounts want root".to_owned();
    }
    if let Err(error) = std::fs::create_dir_all(NAMESPACES) {
        return format!("{NAMESPACES} cannot be made: {error}");
    }
    let Ok(exe) = std::env::current_exe() else { return "this program cannot be found".to_owned() };
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-c", FIRST]);
    command.arg("first").arg(exe).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    format!("`unshare` cannot be started: {}", command.exec())
}

/// The folder of this run, held by a lock for as long as the value lives.
pub(crate) struct Folder {
    /// Where it is.
    pub(crate) path: PathBuf,
    keep: bool,
    /// None for one that is to stay.
    _lock: Option<File>,
}

impl Folder {
    /// Removes what earlier runs have left, and makes a new one below this folder.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn make(below: &Path, keep: bool) -> Result<Self, String> {
        remove_left(below);
        let path = below.join(format!("{PREFIX}{}", nexa_client::new_request_id()));
        let made = || -> std::io::Result<Option<File>> {
            std::fs::create_dir_all(&path)?;
            if keep {
                return Ok(None);
            }
            let lock = File::create(path.join("lock"))?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            Ok(Some(lock))
        };
        let lock = made().map_err(|error| format!("{} cannot be made: {error}", path.display()))?;
        Ok(Self { path, keep, _lock: lock })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed now is removed by the next run.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes folders that nobody holds, and control groups without processes.
fn remove_left(below: &Path) {
    let ours = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)).map(|it| it.path()).collect()
    };
    for group in [BLKIO, FREEZER].iter().flat_map(|folder| ours(Path::new(folder))) {
        // One that is in use stays.
        let _ = std::fs::remove_dir(group);
    }
    for folder in ours(below) {
        // One that is asked to stay has no lock.
        let Ok(lock) = File::open(folder.join("lock")) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// What there is on this machine, tried out.
#[derive(Debug, Clone)]
pub(crate) struct Probed {
    /// Packets can be dropped, refused and lost.
    pub(crate) nft: Result<(), String>,
    /// A file can be a disk.
    pub(crate) disks: Result<(), String>,
    /// A disk can be slowed down.
    pub(crate) throttle: Result<(), String>,
    /// Single threads can be made to stand still.
    pub(crate) freezer: Result<(), String>,
}

impl Probed {
    /// Tries everything out.
    pub(crate) fn now(folder: &Path) -> Self {
        let there = |path: &str| match Path::new(path).exists() {
            true => Ok(()),
            false => Err(format!("{path} is not there")),
        };
        Self {
            nft: net::probe(),
            disks: crate::disk::probe(folder),
            throttle: there(&format!("{BLKIO}/blkio.throttle.write_iops_device")),
            freezer: there(&format!("{FREEZER}/tasks")),
        }
    }
}

/// Runs a command to its end.
///
/// # Errors
/// What it said if it did not end well.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let shown = || format!("`{program} {}`", args.join(" "));
    let output = Command::new(program).args(args).output().map_err(|error| format!("{}: {error}", shown()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{} ended with {}: {}", shown(), output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
