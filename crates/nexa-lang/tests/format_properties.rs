//! What holds for the formatter on every program: on those of this repository, and on what remains of them after random
//! edits of their layout, comments and tokens.

use std::path::{Path, PathBuf};

use nexa_lang::format::{FormatError, format};
use nexa_lang::{FileId, FileLoader, LoadError, Source, compile, compile_text};
use proptest::prelude::*;

fn source(text: &str) -> Source {
    Source::from_text(FileId(0), "main.nx", text).expect("a test program is small")
}

/// Formats, and checks what holds for every text that can be formatted; gives nothing for one with syntax errors.
fn formatted(text: &str) -> Option<String> {
    match format(&source(text)) {
        Ok(once) => {
            let twice = format(&source(&once)).unwrap_or_else(|error| panic!("{error}\n{once}"));
            assert_eq!(once, twice, "formatting again changes nothing; the text was\n{text}");
            for line in once.lines().filter(|_| !once.contains("\"\"\"") && !once.contains("/*")) {
                assert_eq!(line, line.trim_end(), "a line ends in blanks");
            }
            Some(once)
        }
        Err(FormatError::Syntax(found)) => {
            assert!(!found.is_empty(), "a refusal says why");
            None
        }
        Err(error) => panic!("{error}\n{text}"),
    }
}

fn hash(text: &str) -> Option<nexa_types::ModuleHash> {
    compile_text("main.nx", text).module.map(|module| module.hash())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every program file of the repository.
fn files() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        for path in entries.filter(|path| !path.ends_with("target")) {
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "nx") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for part in ["crates", "examples", "docs", "tests"] {
        walk(&root().join(part), &mut found);
    }
    found.sort();
    found
}

struct Folder(PathBuf);

impl FileLoader for Folder {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        std::fs::read(self.0.join(path)).map_err(|_| LoadError::NotFound)
    }
}

/// A folder where one file has been formatted.
struct FormattedFolder(PathBuf);

impl FileLoader for FormattedFolder {
    fn load(&self, path: &str) -> Result<Vec<u8>, LoadError> {
        let bytes = Folder(self.0.clone()).load(path)?;
        let text = String::from_utf8(bytes).map_err(|_| LoadError::NotFound)?;
        Ok(format(&source(&text)).map_err(|_| LoadError::NotFound)?.into_bytes())
    }
}

#[test]
fn every_program_of_the_repository_can_be_formatted_and_keeps_its_hash() {
    let files = files();
    assert!(files.len() >= 8, "{files:?}");
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a file");
        assert!(formatted(&text).is_some(), "{} has syntax errors", path.display());
        let (folder, name) = (path.parent().expect("a folder"), path.file_name().expect("a name"));
        let name = name.to_str().expect("a plain name");
        let before = compile(name, &Folder(folder.to_path_buf())).module.map(|module| module.hash());
        let after = compile(name, &FormattedFolder(folder.to_path_buf())).module.map(|module| module.hash());
        assert_eq!(before, after, "{}", path.display());
    }
}

#[test]
fn the_examples_are_written_as_the_formatter_writes_them() {
    for path in files().iter().filter(|path| path.starts_with(root().join("examples"))) {
        let text = std::fs::read_to_string(path).expect("a file");
        assert_eq!(formatted(&text).as_deref(), Some(text.as_str()), "{}", path.display());
    }
}

/// The texts that random edits begin with.
fn seeds() -> Vec<String> {
    files().iter().map(|path| std::fs::read_to_string(path).expect("a file")).collect()
}

/// One edit at a place: somewhere between two characters that look like two tokens.
#[derive(Clone, Debug)]
enum Edit {
    Insert(&'static str),
    /// A gap of blanks becomes this.
    Gap(&'static str),
    /// A line is left out.
    DropLine,
    /// A token-like stretch is left out.
    DropWord,
    /// A word becomes this.
    Word(&'static str),
}

fn edit() -> impl Strategy<Value = Edit> {
    let inserts = [
        "\n",
        "\n\n\n",
        " ",
        "// note\n",
        " // note\n",
        "/* note */",
        "/* two\nlines */",
        ";",
        "; ",
        ",",
        "(",
        ")",
        "\n// own line\n",
        "/// doc\n",
        " ?",
        " ?? x",
        " - 1",
        " otherwise 1",
        "\n- 1",
        "!",
        "{",
        "}",
        "[",
        "]",
        "\r\n",
    ];
    let gaps =
        ["", " ", "\n", "\n\n\n", "\t", " // note\n", "\n// own line\n", " /* note */ ", "\n/* a */ /* b */\n", "\r\n"];
    let words =
        ["otherwise", "fallback", "merge", "against", "until", "match", "fn", "agent", "none", "1", "1.5", "_", "if"];
    prop_oneof![
        2 => proptest::sample::select(inserts.to_vec()).prop_map(Edit::Insert),
        4 => proptest::sample::select(gaps.to_vec()).prop_map(Edit::Gap),
        1 => Just(Edit::DropLine),
        1 => Just(Edit::DropWord),
        1 => proptest::sample::select(words.to_vec()).prop_map(Edit::Word),
    ]
}

fn apply(text: &mut String, at: usize, edit: &Edit) {
    let mut at = at % (text.len() + 1);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let is_blank = |c: char| c == ' ' || c == '\n' || c == '\t' || c == '\r';
    match edit {
        Edit::Insert(what) => text.insert_str(at, what),
        Edit::Gap(what) => {
            let Some(start) = text[at..].find(is_blank).map(|found| at + found) else { return };
            let end = text[start..].find(|c| !is_blank(c)).map_or(text.len(), |found| start + found);
            text.replace_range(start..end, what);
        }
        Edit::DropLine => {
            let start = text[..at].rfind('\n').map_or(0, |found| found + 1);
            let end = text[at..].find('\n').map_or(text.len(), |found| at + found + 1);
            text.replace_range(start..end, "");
        }
        Edit::DropWord | Edit::Word(_) => {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            let Some(start) = text[at..].find(is_part).map(|found| at + found) else { return };
            let end = text[start..].find(|c| !is_part(c)).map_or(text.len(), |found| start + found);
            text.replace_range(start..end, if let Edit::Word(word) = edit { word } else { "" });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn what_random_edits_leave_is_formatted_once_and_for_all(
        seed in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<usize>(), edit()), 1..6),
    ) {
        let seeds = seeds();
        let mut text = seeds[seed.index(seeds.len())].clone();
        for (at, edit) in &edits {
            apply(&mut text, *at, edit);
        }
        if let Some(after) = formatted(&text) && let Some(hash_before) = hash(&text) {
            prop_assert_eq!(Some(hash_before), hash(&after), "\n{}\n--- after ---\n{}", text, after);
        }
    }
}
