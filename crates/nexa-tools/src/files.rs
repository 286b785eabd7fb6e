//! Files below a folder, for tools.
//!
//! Two walls: a path is compared with what is granted part by part, and then opened part by part, each below the one
//! before, and none if it is a link. So neither `..` nor a link leads anywhere else, also not from what is granted to
//! something beside it. Hard links are files like others: whoever can make one can read what it names.
//!
//! A file is written beside its place, under a name made of the call's key, and then put there at once: who reads it
//! sees the old text or the new one. What a node that ended left beside it is removed when the call is sent again.
//!
//! Nothing here waits for somebody else: a pipe is opened without waiting for its writer, and is no file.

use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt, OpenOptionsSyncExt};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};
use nexa_event::effect::ToolLimits;
use nexa_ports::tool::ToolError;
use nexa_types::EffectKey;
use serde_json::Value;

/// The most bytes of a file that is read or written, unless the limits of a tool say less.
pub const FILE_BYTES_MAX: u64 = 512 << 10;
/// The most names that a folder is listed with.
pub const ENTRIES_MAX: usize = 10_000;

/// The folder that a node gives its tools.
pub struct Files {
    root: Dir,
}

impl Files {
    /// Opens the folder.
    ///
    /// # Errors
    /// As the system says.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        Ok(Self { root: Dir::open_ambient_dir(folder, ambient_authority())? })
    }

    /// The text of a file as JSON.
    pub(crate) fn read(&self, path: &str, limits: &ToolLimits) -> Result<String, ToolError> {
        let most = limits.file_size.unwrap_or(FILE_BYTES_MAX).min(FILE_BYTES_MAX);
        let parts = granted(path, limits)?;
        let failed = |error: std::io::Error| ToolError::Failed(format!("`{path}` cannot be read: {error}"));
        let Some((name, above)) = parts.split_last() else {
            return Err(ToolError::Failed(format!("`{path}` is a folder")));
        };
        let folder = self.folder(above)?;
        let mut options = OpenOptions::new();
        options.read(true).follow(FollowSymlinks::No).nonblock(true);
        let file = folder.open_with(name, &options).map_err(|error| refused_link(&folder, name, &parts, error))?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(ToolError::Failed(format!("`{path}` is no file")));
        }
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > most {
            return Err(ToolError::Denied(format!("`{path}` has more than the {most} bytes that may be read")));
        }
        let text = String::from_utf8(bytes).map_err(|_| ToolError::Failed(format!("`{path}` is no UTF-8 text")))?;
        Ok(Value::String(text).to_string())
    }

    /// Makes a text all that a file holds. The folder of it is there already.
    pub(crate) fn write(
        &self,
        path: &str,
        text: &str,
        key: EffectKey,
        limits: &ToolLimits,
    ) -> Result<String, ToolError> {
        let most = limits.file_size.unwrap_or(FILE_BYTES_MAX).min(FILE_BYTES_MAX);
        let parts = granted(path, limits)?;
        if text.len() as u64 > most {
            let why = format!("`{path}` would have {} bytes, and {most} may be written", text.len());
            return Err(ToolError::Denied(why));
        }
        let Some((name, above)) = parts.split_last() else {
            return Err(ToolError::Failed(format!("`{path}` is a folder")));
        };
        let folder = self.folder(above)?;
        let failed = |error: std::io::Error| ToolError::Failed(format!("`{path}` cannot be written: {error}"));
        let known = match folder.symlink_metadata(name) {
            Ok(found) if found.is_symlink() => {
                return Err(ToolError::Denied(format!("`{path}` is a link, and none is followed")));
            }
            Ok(found) if !found.is_file() => return Err(ToolError::Failed(format!("`{path}` is no file"))),
            Ok(found) => Some(found.permissions()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let beside = format!(".nexa-{key}.part");
        match folder.remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let made = || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).follow(FollowSymlinks::No);
            let mut file = folder.open_with(&beside, &options)?;
            file.write_all(text.as_bytes())?;
            if let Some(permissions) = known {
                file.set_permissions(permissions)?;
            }
            file.sync_all()?;
            folder.rename(&beside, &folder, name)
        };
        made().map_err(|error| {
            // What cannot be removed either stays until the call is sent again.
            let _ = folder.remove_file(&beside);
            failed(error)
        })?;
        // The file is in its place; that it is there after a loss of power needs the folder to be written, too.
        let lost = |error: std::io::Error| ToolError::Lost(format!("`{path}` was written, and may not stay: {error}"));
        folder.open(".").and_then(|folder| folder.sync_all()).map_err(lost)?;
        Ok(Value::Null.to_string())
    }

    /// The names in a folder as a JSON list, in order; those of folders end with `/`.
    pub(crate) fn list(&self, path: &str, limits: &ToolLimits) -> Result<String, ToolError> {
        let folder = self.folder(&granted(path, limits)?)?;
        let failed = |error: std::io::Error| ToolError::Failed(format!("`{path}` cannot be listed: {error}"));
        let mut names = Vec::new();
        for entry in folder.entries().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            names.push(format!("{}{}", entry.file_name().to_string_lossy(), if is_folder { "/" } else { "" }));
            if names.len() > ENTRIES_MAX {
                return Err(ToolError::Denied(format!("`{path}` has more than {ENTRIES_MAX} entries")));
            }
        }
        names.sort_unstable();
        Ok(Value::from(names).to_string())
    }

    /// The folder at the end of these parts.
    fn folder(&self, parts: &[&str]) -> Result<Dir, ToolError> {
        let cannot = |error| ToolError::Failed(format!("the folder of the tools cannot be opened: {error}"));
        let mut folder = self.root.try_clone().map_err(cannot)?;
        for (place, part) in parts.iter().enumerate() {
            let next = folder.open_dir_nofollow(part);
            folder = next.map_err(|error| refused_link(&folder, part, &parts[..=place], error))?;
        }
        Ok(folder)
    }
}

/// The parts of a path, if it is granted or lies below what is.
fn granted<'p>(path: &'p str, limits: &ToolLimits) -> Result<Vec<&'p str>, ToolError> {
    let is_below = |wanted: &[&str], granted: &str| parts(granted).is_some_and(|granted| wanted.starts_with(&granted));
    let wanted = parts(path).filter(|wanted| limits.paths.iter().any(|granted| is_below(wanted, granted)));
    wanted.ok_or_else(|| {
        let granted = limits.paths.join(", ");
        ToolError::Denied(format!("`{path}` lies beyond what is granted: {granted}"))
    })
}

/// Why the last of these parts was not opened. The system says no more than that it is something else.
fn refused_link(folder: &Dir, part: &str, parts: &[&str], error: std::io::Error) -> ToolError {
    let path = parts.join("/");
    match folder.symlink_metadata(part) {
        Ok(found) if found.is_symlink() => ToolError::Denied(format!("`{path}` is a link, and none is followed")),
        _ => ToolError::Failed(format!("`{path}` cannot be opened: {error}")),
    }
}

/// The parts of a relative path; `None` if it leads up or starts at the root.
fn parts(path: &str) -> Option<Vec<&str>> {
    let is_plain = !path.starts_with('/') && !path.contains(['\\', '\0']);
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    (is_plain && !parts.contains(&"..")).then_some(parts)
}

#[cfg(test)]
mod tests {
    use nexa_types::{AgentId, RequestId, Seq, TenantId, WorkloadId};

    use super::*;

    fn limits(paths: &[&str], file_size: Option<u64>) -> ToolLimits {
        ToolLimits { paths: paths.iter().map(|path| (*path).to_owned()).collect(), file_size, ..ToolLimits::default() }
    }

    fn house() -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
        std::fs::create_dir_all(folder.path().join("notes/old")).expect("folders");
        std::fs::create_dir_all(folder.path().join("secrets")).expect("folders");
        write("notes/today.txt", "tea");
        write("secrets/key.txt", "hush");
        write("one.txt", "one");
        let files = Files::open(folder.path()).expect("it opens");
        (folder, files)
    }

    #[test]
    fn files_are_read_and_listed_below_what_is_granted() {
        let (_folder, files) = house();
        let notes = limits(&["notes/"], None);
        assert_eq!(files.read("notes/today.txt", &notes), Ok("\"tea\"".to_owned()));
        assert_eq!(files.read("./notes//today.txt", &notes), Ok("\"tea\"".to_owned()));
        assert_eq!(files.list("notes", &notes), Ok(r#"["old/","today.txt"]"#.to_owned()));
        assert_eq!(files.list("notes/old", &notes), Ok("[]".to_owned()));
        assert_eq!(files.read("one.txt", &limits(&["one.txt"], None)), Ok("\"one\"".to_owned()));
        assert!(matches!(files.read("notes/none.txt", &notes), Err(ToolError::Failed(_))));
    }

    #[test]
    fn nothing_leads_out_of_what_is_granted() {
        let (_folder, files) = house();
        let notes = limits(&["notes/"], None);
        for path in ["secrets/key.txt", "notes/../secrets/key.txt", "/etc/hostname", "", "notesy", "one.txt"] {
            assert!(matches!(files.read(path, &notes), Err(ToolError::Denied(_))), "{path}");
        }
        assert!(matches!(files.read("notes/today.txt", &limits(&[], None)), Err(ToolError::Denied(_))));
        assert!(matches!(files.read("notes/today.txt", &limits(&["../"], None)), Err(ToolError::Denied(_))));
    }

    #[cfg(unix)]
    #[test]
    fn no_link_is_followed_wherever_it_leads() {
        use std::os::unix::fs::symlink;
        let (folder, files) = house();
        let link = |target: &str, name: &str| symlink(target, folder.path().join(name)).expect("a link");
        link("../secrets/key.txt", "notes/near");
        link("/etc", "notes/far");
        link("today.txt", "notes/beside");
        link("one.txt", "alias.txt");
        link("secrets", "shown");
        let refused = |done: Result<String, ToolError>, path: &str| {
            let refused = ToolError::Denied(format!("`{path}` is a link, and none is followed"));
            assert_eq!(done, Err(refused));
        };
        let notes = limits(&["notes/"], None);
        refused(files.read("notes/near", &notes), "notes/near");
        refused(files.list("notes/far", &notes), "notes/far");
        refused(files.read("notes/far/hostname", &notes), "notes/far");
        refused(files.read("notes/beside", &notes), "notes/beside");
        // What is granted is the link and not the file or the folder beside it.
        refused(files.read("alias.txt", &limits(&["alias.txt"], None)), "alias.txt");
        refused(files.read("shown/key.txt", &limits(&["shown/"], None)), "shown");
        refused(files.list("shown", &limits(&["shown/"], None)), "shown");
        assert_eq!(files.list("notes", &notes), Ok(r#"["beside","far","near","old/","today.txt"]"#.to_owned()));
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_without_a_writer_keeps_nobody_waiting() {
        let (folder, files) = house();
        let pipe = folder.path().join("notes/pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is there");
        assert!(made.success());
        let read = files.read("notes/pipe", &limits(&["notes/"], None));
        assert_eq!(read, Err(ToolError::Failed("`notes/pipe` is no file".to_owned())));
        assert!(files.list("notes/pipe", &limits(&["notes/"], None)).is_err());
    }

    fn key(number: u64) -> EffectKey {
        let workload = WorkloadId::of(&TenantId::local(), RequestId::from_bytes([1; 16]));
        EffectKey::of(workload, AgentId::root(workload), Seq(number))
    }

    #[test]
    fn a_file_is_made_or_replaced_whole_and_nothing_stays_beside_it() {
        let (folder, files) = house();
        let notes = limits(&["notes/"], None);
        let done = Ok("null".to_owned());
        assert_eq!(files.write("notes/today.txt", "coffee", key(1), &notes), done);
        assert_eq!(files.write("notes/old/new.txt", "ä", key(2), &notes), done);
        assert_eq!(files.write("notes/old/new.txt", "", key(3), &notes), done);
        assert_eq!(files.read("notes/today.txt", &notes), Ok("\"coffee\"".to_owned()));
        assert_eq!(files.read("notes/old/new.txt", &notes), Ok("\"\"".to_owned()));
        assert_eq!(files.list("notes", &notes), Ok(r#"["old/","today.txt"]"#.to_owned()));
        // A node ended while it wrote, and the call is sent again.
        std::fs::write(folder.path().join(format!("notes/.nexa-{}.part", key(4))), "half").expect("a file");
        assert_eq!(files.write("notes/today.txt", "whole", key(4), &notes), done);
        assert_eq!(files.read("notes/today.txt", &notes), Ok("\"whole\"".to_owned()));
        assert_eq!(files.list("notes", &notes), Ok(r#"["old/","today.txt"]"#.to_owned()));
    }

    #[test]
    fn nothing_is_written_beyond_what_is_granted_or_in_the_place_of_something_else() {
        let (folder, files) = house();
        let notes = limits(&["notes/"], Some(3));
        for path in ["secrets/key.txt", "notes/../secrets/key.txt", "/tmp/x", "", "notesy", "one.txt"] {
            assert!(matches!(files.write(path, "x", key(1), &notes), Err(ToolError::Denied(_))), "{path}");
        }
        for path in ["notes", "notes/old", "notes/none/new.txt"] {
            assert!(matches!(files.write(path, "x", key(1), &notes), Err(ToolError::Failed(_))), "{path}");
        }
        assert!(matches!(files.write("notes/today.txt", "four", key(1), &notes), Err(ToolError::Denied(_))));
        assert_eq!(files.read("notes/today.txt", &notes), Ok("\"tea\"".to_owned()));
        assert_eq!(std::fs::read_to_string(folder.path().join("secrets/key.txt")).expect("a file"), "hush");
        assert_eq!(files.list("notes", &notes), Ok(r#"["old/","today.txt"]"#.to_owned()));
    }

    #[cfg(unix)]
    #[test]
    fn no_link_is_written_through_and_a_file_keeps_its_permissions() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let (folder, files) = house();
        let notes = limits(&["notes/"], None);
        symlink("../secrets/key.txt", folder.path().join("notes/near")).expect("a link");
        symlink("../secrets", folder.path().join("notes/far")).expect("a link");
        for path in ["notes/near", "notes/far/key.txt"] {
            assert!(matches!(files.write(path, "x", key(1), &notes), Err(ToolError::Denied(_))), "{path}");
        }
        assert_eq!(std::fs::read_to_string(folder.path().join("secrets/key.txt")).expect("a file"), "hush");
        let today = folder.path().join("notes/today.txt");
        std::fs::set_permissions(&today, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
        files.write("notes/today.txt", "x", key(1), &notes).expect("it is granted");
        assert_eq!(std::fs::metadata(&today).expect("a file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_beyond_its_bound_is_not_read() {
        let (_folder, files) = house();
        assert!(matches!(files.read("notes/today.txt", &limits(&["notes"], Some(2))), Err(ToolError::Denied(_))));
        assert_eq!(files.read("notes/today.txt", &limits(&["notes"], Some(3))), Ok("\"tea\"".to_owned()));
    }
}
