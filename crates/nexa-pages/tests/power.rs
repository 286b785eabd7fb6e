//! Power cuts: the store lies on a disk of its own, ext4 in a file, which loses what was not synced. Needs root.

#![cfg(target_os = "linux")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nexa_pages::Settings;
use support::{Worker, judge, works_until_it_is_killed};
use tempfile::TempDir;

/// Cuts of one run of the test; `NEXA_PAGES_CUTS` says another number.
const CUTS: u64 = 6;
/// MiB of the disk.
const DISK_MIB: u64 = 512;
/// How long whoever used the disk may take to let it go.
const LET_GO_WITHIN: Duration = Duration::from_secs(10);
/// `EXT4_IOC_SHUTDOWN`, with 2 for a journal that is lost and 1 for one that is flushed before.
const CUT: &str = r#"
open(my $at, "<", $ARGV[0]) or die "$!"; my $how = pack("L", $ARGV[1]); ioctl($at, 0x8004587d, $how) or die "$!";
"#;

struct Disk {
    image: PathBuf,
    at: PathBuf,
    _folder: TempDir,
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let ended = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    if ended.status.success() { Ok(()) } else { Err(format!("{program} {}: {}", args.join(" "), said.trim())) }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path")
}

impl Disk {
    fn make() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (image, at) = (folder.path().join("disk.ext4"), folder.path().join("disk"));
        let failed = |error: std::io::Error| error.to_string();
        std::fs::create_dir_all(&at).map_err(failed)?;
        std::fs::File::create(&image).and_then(|file| file.set_len(DISK_MIB << 20)).map_err(failed)?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", text(&image)])?;
        run("mount", &["-o", "loop", text(&image), text(&at)])?;
        let disk = Self { image, at, _folder: folder };
        disk.cut(2)?;
        disk.remount()?;
        Ok(disk)
    }

    fn cut(&self, how: u32) -> Result<(), String> {
        run("perl", &["-e", CUT, text(&self.at), &how.to_string()])
    }

    fn remount(&self) -> Result<(), String> {
        let until = Instant::now() + LET_GO_WITHIN;
        while let Err(why) = run("umount", &[text(&self.at)]) {
            if Instant::now() > until {
                return Err(why);
            }
            std::thread::yield_now();
        }
        run("mount", &["-o", "loop", text(&self.image), text(&self.at)])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", text(&self.at)]);
    }
}

#[test]
#[ignore = "a process that the other tests start and kill"]
fn helper_works_until_it_is_killed() {
    works_until_it_is_killed();
}

/// A cut in the midst of work; what is left is judged.
async fn cut(disk: &Disk, cut: u64, fsync: bool) -> Result<(), String> {
    let folder = disk.at.join("pages");
    let mut worker = Worker::start("helper_works_until_it_is_killed", text(&folder), 2 * cut + 1, fsync, &[]);
    assert!(worker.acks(4 + (cut as usize * 3) % 13), "it works until the cut");
    disk.cut(if cut.is_multiple_of(2) { 2 } else { 1 })?;
    // What it says from here on, it says of writes that were over before the cut, or must not say.
    let acked = worker.kill();
    disk.remount()?;
    judge(text(&folder), Settings::default(), &acked, 2 * cut + 2).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_power_cut_is_there_after_it() {
    let disk = match Disk::make() {
        Ok(disk) => disk,
        Err(why) => return eprintln!("SKIPPED, no disk can be made here: {why}"),
    };
    let cuts = std::env::var("NEXA_PAGES_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(CUTS);
    for number in 0..cuts {
        assert_eq!(cut(&disk, number, true).await, Ok(()), "cut {number}");
    }
    println!("{cuts} cuts");
}

/// The test above would see it if nothing were synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_fsync_a_power_cut_loses_what_was_acknowledged() {
    let disk = match Disk::make() {
        Ok(disk) => disk,
        Err(why) => return eprintln!("SKIPPED, no disk can be made here: {why}"),
    };
    let lost = cut(&disk, 0, false).await;
    assert!(lost.is_err(), "what was not synced survived a power cut");
    println!("lost, as it must be: {lost:?}");
}
