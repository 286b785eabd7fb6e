//! Which program files a command means, and how one is replaced: as a whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The largest program file, in bytes.
pub const SOURCE_BYTES_MAX: u64 = nexa_types::limits::SOURCE_BYTES_MAX as u64;
/// How many program files one command takes from the folders it is given. More is an error that says so.
const FILES_MAX: usize = 10_000;
/// How deep folders are searched.
const FOLDER_DEPTH_MAX: usize = 64;

/// The files that these paths stand for: a file for itself, a folder for every program below it, nothing for the folder
/// `.`. Hidden folders and those called `target` or `node_modules` are passed over, and links are not followed.
pub fn programs(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let here = [PathBuf::from(".")];
    let paths = if paths.is_empty() { &here } else { paths };
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            search(path, 0, &mut found)?;
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn search(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::error(format!("cannot read the folder {}: {error}", folder.display()));
    let mut entries: Vec<fs::DirEntry> =
        fs::read_dir(folder).map_err(cannot)?.collect::<Result<_, _>>().map_err(cannot)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().map_err(cannot)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_passed_over = name.starts_with('.') || matches!(name.as_ref(), "target" | "node_modules");
        if kind.is_dir() && !is_passed_over && depth < FOLDER_DEPTH_MAX {
            search(&path, depth + 1, found)?;
        } else if kind.is_file() && path.extension().is_some_and(|end| end == "nx" || end == "nexa") {
            if found.len() == FILES_MAX {
                return Err(Failure::error(format!("there are more than {FILES_MAX} programs below these folders"))
                    .hint("name fewer folders at a time"));
            }
            let path = path.strip_prefix("./").map(Path::to_path_buf).unwrap_or(path);
            found.push(path);
        }
    }
    Ok(())
}

/// The bytes of a file or, for `-`, of standard input; refused if there are more than [`SOURCE_BYTES_MAX`].
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let cannot = |why: String| Failure::error(format!("cannot read {name}: {why}"));
    let mut bytes = Vec::new();
    let mut take = |from: &mut dyn Read| from.take(SOURCE_BYTES_MAX + 1).read_to_end(&mut bytes);
    let taken = if path == Path::new("-") {
        take(&mut io::stdin().lock())
    } else {
        fs::File::open(path).and_then(|mut file| take(&mut file))
    };
    taken.map_err(|error| cannot(error.to_string()))?;
    if bytes.len() as u64 > SOURCE_BYTES_MAX {
        return Err(cannot(format!("it has more than the {SOURCE_BYTES_MAX} bytes of a source file")));
    }
    Ok(bytes)
}

/// Replaces a file as a whole: the text is written beside it, made durable, and renamed over it. Where the path is a link,
/// the file it leads to is replaced.
pub fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::error(format!("cannot write {}: {error}", path.display()));
    let target = path.canonicalize().map_err(cannot)?;
    let folder = target.parent().unwrap_or(Path::new("/"));
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.{}.new", std::process::id()));
    let written = write_durably(&beside, text, &target).and_then(|()| fs::rename(&beside, &target));
    if let Err(error) = written {
        // What is left over is ours alone; that it cannot be removed is not worth a second message.
        let _ = fs::remove_file(&beside);
        return Err(cannot(error));
    }
    Ok(())
}

fn write_durably(beside: &Path, text: &str, target: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(beside)?;
    file.set_permissions(fs::metadata(target)?.permissions())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_the_programs_below_it() {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in
            [("b.nx", "b"), ("a/c.nexa", "c"), ("a/d.txt", "d"), ("target/e.nx", "e"), (".git/f.nx", "f")]
        {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        let found = programs(&[folder.path().to_path_buf(), PathBuf::from("named.txt")]).expect("files");
        assert_eq!(found, [folder.path().join("a/c.nexa"), folder.path().join("b.nx"), PathBuf::from("named.txt")]);
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_keeps_its_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.nx");
        fs::write(&file, "before").expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("permissions");
        let link = folder.path().join("link.nx");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        replace(&link, "after").expect("replaced");
        assert_eq!(fs::read_to_string(&file).expect("a file"), "after");
        assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2, "nothing is left beside it");
        let missing = replace(&folder.path().join("missing.nx"), "x").expect_err("there is none");
        assert!(missing.message.starts_with("cannot write "), "{missing}");
    }

    #[test]
    fn what_is_larger_than_a_source_file_may_be_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.nx");
        fs::File::create(&file).and_then(|file| file.set_len(SOURCE_BYTES_MAX + 1)).expect("a file");
        assert!(read(&file).is_err());
    }
}
