//! A disk of its own: a file with ext4 on it, mounted over a loop device, that can be slow, full, or lose its power.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use std::time::{Duration, Instant};

use crate::cage::run;

/// How long whoever has used a disk may take to let it go.
const LET_GO_WITHIN: Duration = Duration::from_secs(10);
/// Takes the power from a mounted ext4: `EXT4_IOC_SHUTDOWN`, with a number that says what becomes of its journal. A call
/// like this is `unsafe` in Rust for the sake of one line; Perl is part of any Debian.
const CUT: &str = r#"
open(my $at, "<", $ARGV[0]) or die "$!"; my $how = pack("L", $ARGV[1]); ioctl($at, 0x8004587d, $how) or die "$!";
"#;

/// What a cut loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// What was not written, and what the journal had in memory.
    Journal,
    /// What was not written; the journal is flushed before.
    Rest,
}

/// A mounted disk.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    /// Where it is mounted.
    pub(crate) at: PathBuf,
}

impl Disk {
    /// Makes one of so many MiB and mounts it.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn make(folder: &Path, name: &str, mib: u64) -> Result<Self, String> {
        let (image, at) = (folder.join(format!("{name}.ext4")), folder.join(name));
        let failed = |error: std::io::Error| format!("the disk {}: {error}", image.display());
        std::fs::create_dir_all(&at).map_err(failed)?;
        std::fs::File::create(&image).and_then(|file| file.set_len(mib << 20)).map_err(failed)?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &image.to_string_lossy()])?;
        let disk = Self { image, at };
        disk.mount()?;
        Ok(disk)
    }

    /// Mounts it.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", &self.image.to_string_lossy(), &self.at.to_string_lossy()]).map(drop)
    }

    /// Takes it away.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn unmount(&self) -> Result<(), String> {
        run("umount", &[&self.at.to_string_lossy()]).map(drop)
    }

    /// Takes its power.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn cut(&self, lost: Lost) -> Result<(), String> {
        let how = match lost {
            Lost::Journal => "2",
            Lost::Rest => "1",
        };
        run("perl", &["-e", CUT, &self.at.to_string_lossy(), how]).map(drop)
    }

    /// Mounts it again after a cut, once nobody uses it any more.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) async fn remount(&self) -> Result<(), String> {
        let until = Instant::now() + LET_GO_WITHIN;
        while let Err(why) = self.unmount() {
            if Instant::now() > until {
                return Err(why);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.mount()
    }

    /// The number of its device, as control groups take it.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn device(&self) -> Result<String, String> {
        let number = std::fs::metadata(&self.at).map_err(|error| error.to_string())?.dev();
        Ok(format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)))
    }

    /// Fills it to the last byte, as another program would.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn fill(&self) -> Result<(), String> {
        let filler = self.at.join("filler");
        for bytes in [1_u64 << 20, 1 << 12] {
            loop {
                let from = std::fs::metadata(&filler).map_or(0, |about| about.len());
                let (offset, length) = (from.to_string(), bytes.to_string());
                if run("fallocate", &["-o", &offset, "-l", &length, &filler.to_string_lossy()]).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn give_back(&self) -> Result<(), String> {
        std::fs::remove_file(self.at.join("filler")).map_err(|error| format!("the filler cannot be removed: {error}"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still uses it keeps it until the end of all.
        let _ = run("umount", &["-l", &self.at.to_string_lossy()]);
        let _ = std::fs::remove_file(&self.image);
    }
}

/// Whether a file can be a disk here.
///
/// # Errors
/// Why not.
pub(crate) fn probe(folder: &Path) -> Result<(), String> {
    let disk = Disk::make(folder, "probe", 16)?;
    disk.cut(Lost::Journal)?;
    disk.unmount()?;
    disk.mount()
}
