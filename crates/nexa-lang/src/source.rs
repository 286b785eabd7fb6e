//! The text of one file, and where its lines begin.
//!
//! Offsets are bytes. Lines and columns are 1-based; a column counts Unicode scalar values. LF and CRLF end a line.
//! Holds: a [`Source`] is valid UTF-8 of at most [`SOURCE_BYTES_MAX`] bytes, so every offset fits in 32 bits.

use crate::diagnostic::{Code, Diagnostic};

/// The largest file the language accepts, in bytes. A larger one is refused with E0102.
pub const SOURCE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The number of a file within one compilation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// A range of bytes in one file, end excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Span {
    /// The range from `start` up to `end`.
    #[must_use]
    pub fn new(start: u32, end: u32) -> Self {
        Span { start, end: end.max(start) }
    }

    /// The smallest range that holds both.
    #[must_use]
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

impl From<rowan::TextRange> for Span {
    fn from(range: rowan::TextRange) -> Self {
        Span { start: range.start().into(), end: range.end().into() }
    }
}

/// A place as a person reads it; both numbers begin at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineColumn {
    /// The line.
    pub line: u32,
    /// The column, in Unicode scalar values.
    pub column: u32,
}

/// One file's name and text.
#[derive(Clone, Debug)]
pub struct Source {
    file: FileId,
    name: String,
    text: String,
    line_starts: Vec<u32>,
}

impl Source {
    /// Takes the bytes of a file.
    ///
    /// # Errors
    /// E0102 for more than [`SOURCE_BYTES_MAX`] bytes; E0101 for bytes that are not UTF-8, naming the first one.
    pub fn from_bytes(file: FileId, name: impl Into<String>, bytes: Vec<u8>) -> Result<Self, Box<Diagnostic>> {
        let name = name.into();
        if bytes.len() > SOURCE_BYTES_MAX {
            let message = format!("`{name}` has {} bytes; a source file may have {SOURCE_BYTES_MAX}", bytes.len());
            return Err(Box::new(
                Diagnostic::new(Code::E0102, file, Span::default(), message)
                    .help("split the program into several files joined by `use`"),
            ));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Source::index(file, name, text)),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let byte = error.as_bytes().get(at).copied().unwrap_or_default();
                let message = format!("`{name}` is not UTF-8: byte {at} is 0x{byte:02x}");
                Err(Box::new(
                    Diagnostic::new(Code::E0101, file, Span::default(), message)
                        .help("save the file in the encoding UTF-8"),
                ))
            }
        }
    }

    /// Takes a text, as [`Source::from_bytes`] does.
    ///
    /// # Errors
    /// E0102 for more than [`SOURCE_BYTES_MAX`] bytes.
    pub fn from_text(file: FileId, name: impl Into<String>, text: &str) -> Result<Self, Box<Diagnostic>> {
        Source::from_bytes(file, name, text.as_bytes().to_vec())
    }

    /// A file without text under this name: what a renderer shows for a file that could not be read.
    #[must_use]
    pub fn empty(file: FileId, name: impl Into<String>) -> Self {
        Source::index(file, name.into(), String::new())
    }

    fn index(file: FileId, name: String, text: String) -> Self {
        let line_ends = text.bytes().zip(1u32..).filter(|(byte, _)| *byte == b'\n').map(|(_, next)| next);
        let line_starts = std::iter::once(0).chain(line_ends).collect();
        Source { file, name, text, line_starts }
    }

    /// The number of this file.
    #[must_use]
    pub fn file(&self) -> FileId {
        self.file
    }

    /// The name as it is shown, usually the path.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many lines there are; an empty file has one.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.line_starts.len()
    }

    /// The line and column of a byte offset. An offset past the end is read as the end, one inside a character as its start.
    #[must_use]
    pub fn line_column(&self, offset: u32) -> LineColumn {
        let mut end = (offset as usize).min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let line = self.line_starts.partition_point(|start| *start as usize <= end).max(1);
        let start = self.line_starts[line - 1] as usize;
        let column = self.text[start..end].chars().count() + 1;
        LineColumn { line: line as u32, column: column as u32 }
    }
}
