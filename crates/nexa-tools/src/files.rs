//! Files below a folder, for tools.
//!
//! Two walls: a path is compared with the granted folders part by part, and then opened relative to the granted folder's
//! own handle, which follows no link out of it. So neither `..` nor a symbolic link leads anywhere else.

use std::io::Read;
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use nexa_event::effect::ToolLimits;
use nexa_ports::tool::ToolError;
use serde_json::Value;

/// The most bytes of a file, unless the limits of a tool say less.
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
        let (folder, rest) = self.granted(path, limits)?;
        let failed = |error: std::io::Error| ToolError::Failed(format!("`{path}` cannot be read: {error}"));
        let rest = rest.ok_or_else(|| ToolError::Failed(format!("`{path}` is a folder")))?;
        let file = folder.open(rest).map_err(failed)?;
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

    /// The names in a folder as a JSON list, in order; those of folders end with `/`.
    pub(crate) fn list(&self, path: &str, limits: &ToolLimits) -> Result<String, ToolError> {
        let (folder, rest) = self.granted(path, limits)?;
        let failed = |error: std::io::Error| ToolError::Failed(format!("`{path}` cannot be listed: {error}"));
        let folder = match rest {
            Some(rest) => folder.open_dir(rest).map_err(failed)?,
            None => folder,
        };
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

    /// The granted folder that a path lies in, and what of the path is left.
    fn granted(&self, path: &str, limits: &ToolLimits) -> Result<(Dir, Option<String>), ToolError> {
        let denied = || {
            let granted = limits.paths.join(", ");
            ToolError::Denied(format!("`{path}` lies beyond what is granted: {granted}"))
        };
        let wanted = parts(path).ok_or_else(denied)?;
        for granted in &limits.paths {
            let Some(folder) = parts(granted) else { continue };
            let Some(rest) = wanted.strip_prefix(folder.as_slice()) else { continue };
            let failed = |error: std::io::Error| ToolError::Failed(format!("`{granted}` cannot be opened: {error}"));
            // A grant may be of one file: then its folder is opened and the name is all that may follow.
            if rest.is_empty()
                && let Some((name, above)) = folder.split_last()
                && self.root.metadata(folder.join("/")).is_ok_and(|found| found.is_file())
            {
                let above = if above.is_empty() { ".".to_owned() } else { above.join("/") };
                return Ok((self.root.open_dir(above).map_err(failed)?, Some((*name).to_owned())));
            }
            let opened = if folder.is_empty() { self.root.try_clone() } else { self.root.open_dir(folder.join("/")) };
            return Ok((opened.map_err(failed)?, (!rest.is_empty()).then(|| rest.join("/"))));
        }
        Err(denied())
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
        let (folder, files) = house();
        let notes = limits(&["notes/"], None);
        for path in ["secrets/key.txt", "notes/../secrets/key.txt", "/etc/hostname", "", "notesy", "one.txt"] {
            assert!(matches!(files.read(path, &notes), Err(ToolError::Denied(_))), "{path}");
        }
        assert!(matches!(files.read("notes/today.txt", &limits(&[], None)), Err(ToolError::Denied(_))));
        assert!(matches!(files.read("notes/today.txt", &limits(&["../"], None)), Err(ToolError::Denied(_))));
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            symlink("../secrets/key.txt", folder.path().join("notes/near")).expect("a link");
            symlink("/etc", folder.path().join("notes/far")).expect("a link");
            assert!(matches!(files.read("notes/near", &notes), Err(ToolError::Failed(_))));
            assert!(matches!(files.list("notes/far", &notes), Err(ToolError::Failed(_))));
        }
        let _kept = folder;
    }

    #[test]
    fn a_file_beyond_its_bound_is_not_read() {
        let (_folder, files) = house();
        assert!(matches!(files.read("notes/today.txt", &limits(&["notes"], Some(2))), Err(ToolError::Denied(_))));
        assert_eq!(files.read("notes/today.txt", &limits(&["notes"], Some(3))), Ok("\"tea\"".to_owned()));
    }
}
