//! Texts: where a stretch of one ends, what its escapes mean, and how a text block is laid out.
//!
//! A text block drops a line end right after its opening quotes; if its closing quotes stand alone on their line, their
//! indentation is taken from every line that is not blank, and the line end before them is dropped. Line ends inside a
//! block are read as `\n`, however the file writes them.

use std::ops::Range;

/// What ends a stretch of plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Close,
    Interpolation,
    LineEnd,
    FileEnd,
}

/// How many bytes of plain text `rest` begins with, and what comes then.
pub(crate) fn stretch(rest: &str, is_block: bool) -> (usize, Stop) {
    let bytes = rest.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => {
                // The escaped character is part of the text, whatever it is; only a line end may still end it.
                at += 1;
                let is_line_end = matches!(bytes.get(at), Some(b'\n' | b'\r'));
                if !is_line_end {
                    at += rest[at..].chars().next().map_or(0, char::len_utf8);
                }
            }
            b'"' if !is_block || bytes[at..].starts_with(b"\"\"\"") => return (at, Stop::Close),
            b'#' if bytes.get(at + 1) == Some(&b'{') => return (at, Stop::Interpolation),
            b'\n' if !is_block => return (at, Stop::LineEnd),
            b'\r' if !is_block && bytes.get(at + 1) == Some(&b'\n') => return (at, Stop::LineEnd),
            _ => at += 1,
        }
    }
    (bytes.len(), Stop::FileEnd)
}

/// How many bytes a raw text has after its opening quotes, closing quotes included, and whether it has those.
pub(crate) fn raw_length(rest: &str, is_block: bool) -> (usize, bool) {
    if is_block {
        return rest.find("\"\"\"").map_or((rest.len(), false), |at| (at + 3, true));
    }
    match rest.find(['"', '\n']) {
        Some(at) if rest[at..].starts_with('"') => (at + 1, true),
        Some(at) => (rest[..at].strip_suffix('\r').map_or(at, str::len), false),
        None => (rest.len(), false),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EscapeError {
    Unknown,
    NotScalar,
}

/// Appends a text with its escapes decoded. A wrong escape is reported with its range and appended as it is written.
pub(crate) fn unescape(raw: &str, out: &mut String, mut on_error: impl FnMut(Range<usize>, EscapeError)) {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = &rest[at..];
        let start = raw.len() - escape.len();
        let (length, decoded) = escaped(escape);
        match decoded {
            Ok(c) => out.push(c),
            Err(error) => {
                out.push_str(&escape[..length]);
                on_error(start..start + length, error);
            }
        }
        rest = &escape[length..];
    }
    out.push_str(rest);
}

/// The length of the escape that `text` begins with, and the character it stands for.
fn escaped(text: &str) -> (usize, Result<char, EscapeError>) {
    // A backslash at the very end stands before a missing closing quote, which is reported on its own.
    let Some(letter) = text.chars().nth(1) else { return (1, Ok('\\')) };
    let length = 1 + letter.len_utf8();
    let plain = match letter {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        '0' => '\0',
        '\\' => '\\',
        '"' => '"',
        '#' => '#',
        'u' => return scalar(text),
        _ => return (length, Err(EscapeError::Unknown)),
    };
    (length, Ok(plain))
}

fn scalar(text: &str) -> (usize, Result<char, EscapeError>) {
    let Some(digits) = text.strip_prefix("\\u{") else { return (2, Err(EscapeError::Unknown)) };
    let count = digits.bytes().take_while(u8::is_ascii_hexdigit).count();
    if !digits[count..].starts_with('}') {
        return (3 + count, Err(EscapeError::Unknown));
    }
    let value = u32::from_str_radix(&digits[..count], 16).ok().and_then(char::from_u32);
    (3 + count + 1, value.ok_or(EscapeError::NotScalar))
}

/// A stretch of text as it is written, or the place of an interpolation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Piece<'t> {
    Text(&'t str),
    Gap,
}

/// The text of each piece, escapes decoded and layout removed; a gap gives an empty text.
pub(crate) fn decode(pieces: &[Piece<'_>], is_block: bool) -> Vec<String> {
    if is_block {
        return lay_out(pieces, |raw, out| unescape(raw, out, |_, _| {}));
    }
    let decode_piece = |piece: &Piece<'_>| {
        let mut out = String::new();
        if let Piece::Text(raw) = piece {
            unescape(raw, &mut out, |_, _| {});
        }
        out
    };
    pieces.iter().map(decode_piece).collect()
}

/// The value of a raw text, given with its `r` and quotes.
pub(crate) fn decode_raw(token: &str) -> String {
    if let Some(content) = token.strip_prefix("r\"\"\"") {
        let content = content.strip_suffix("\"\"\"").unwrap_or(content);
        return lay_out(&[Piece::Text(content)], |raw, out| out.push_str(raw)).concat();
    }
    let content = token.strip_prefix("r\"").unwrap_or(token);
    content.strip_suffix('"').unwrap_or(content).to_owned()
}

/// The piece and the range of the first line of a block that begins left of its closing quotes.
pub(crate) fn line_indented_too_little(pieces: &[Piece<'_>]) -> Option<(usize, Range<usize>)> {
    let block = Layout::of(pieces);
    let short = block.lines.iter().find(|line| line.is_indentable() && !line.body.starts_with(block.indentation))?;
    Some((short.piece, short.offset..short.offset + short.body.len()))
}

fn lay_out(pieces: &[Piece<'_>], decode: impl Fn(&str, &mut String)) -> Vec<String> {
    let block = Layout::of(pieces);
    let mut out = vec![String::new(); pieces.len()];
    for line in &block.lines {
        let body = if line.is_indentable() { without_indentation(line.body, block.indentation) } else { line.body };
        decode(body, &mut out[line.piece]);
        if line.has_end {
            out[line.piece].push('\n');
        }
    }
    out
}

fn without_indentation<'t>(body: &'t str, indentation: &str) -> &'t str {
    let common = body.bytes().zip(indentation.bytes()).take_while(|(left, right)| left == right).count();
    // Indentation is blanks and tabs, so the cut is never inside a character.
    &body[common..]
}

/// A part of a line that lies in one piece.
struct Line<'t> {
    piece: usize,
    offset: usize,
    body: &'t str,
    has_end: bool,
    begins_line: bool,
    is_blank: bool,
}

impl Line<'_> {
    fn is_indentable(&self) -> bool {
        self.begins_line && !self.is_blank
    }
}

struct Layout<'t> {
    indentation: &'t str,
    lines: Vec<Line<'t>>,
}

impl<'t> Layout<'t> {
    fn of(pieces: &[Piece<'t>]) -> Self {
        let mut lines = Vec::new();
        let mut begins_line = false;
        for (piece, content) in pieces.iter().enumerate() {
            let Piece::Text(text) = content else {
                begins_line = false;
                continue;
            };
            let mut offset = 0;
            for part in text.split_inclusive('\n') {
                let ended = part.strip_suffix('\n').map(|body| body.strip_suffix('\r').unwrap_or(body));
                let body = ended.unwrap_or(part);
                let is_blank = ended.is_some() && body.trim().is_empty();
                lines.push(Line { piece, offset, body, has_end: ended.is_some(), begins_line, is_blank });
                begins_line = ended.is_some();
                offset += part.len();
            }
        }
        let has_newline_after_opener =
            lines.first().is_some_and(|line| line.piece == 0 && line.has_end && line.body.is_empty());
        let ends_in_text = matches!(pieces.last(), Some(Piece::Text(_)));
        let mut indentation = "";
        if ends_in_text && begins_line {
            // The closing quotes stand at the very start of their line.
            end_last_line(&mut lines);
        } else if ends_in_text
            && lines
                .last()
                .is_some_and(|line| line.begins_line && line.body.bytes().all(|byte| matches!(byte, b' ' | b'\t')))
        {
            indentation = lines.pop().map_or("", |line| line.body);
            end_last_line(&mut lines);
        }
        if has_newline_after_opener {
            lines.remove(0);
        }
        Layout { indentation, lines }
    }
}

fn end_last_line(lines: &mut [Line<'_>]) {
    if let Some(last) = lines.last_mut() {
        last.has_end = false;
    }
}

#[cfg(test)]
mod tests {
    use super::{EscapeError, Piece, decode, decode_raw, line_indented_too_little, unescape};

    fn block(text: &str) -> String {
        decode(&[Piece::Text(text)], true).concat()
    }

    #[test]
    fn escapes_are_decoded_and_wrong_ones_reported() {
        let mut out = String::new();
        let mut errors = Vec::new();
        unescape(r#"a\n\t\\\"\#{\u{1F600}\q\u{D800}\u{}"#, &mut out, |range, error| errors.push((range, error)));
        assert_eq!(out, "a\n\t\\\"#{\u{1F600}\\q\\u{D800}\\u{}");
        assert_eq!(
            errors.iter().map(|(_, error)| *error).collect::<Vec<_>>(),
            [EscapeError::Unknown, EscapeError::NotScalar, EscapeError::NotScalar]
        );
    }

    #[test]
    fn a_block_loses_its_frame_and_keeps_its_lines() {
        assert_eq!(block("\n    one\n      two\n\n    three\n    "), "one\n  two\n\nthree");
        assert_eq!(block("\r\n  one\r\n  two\r\n  "), "one\ntwo");
        assert_eq!(block("one"), "one");
        assert_eq!(block("one\n  two"), "one\n  two");
        assert_eq!(block("\n"), "");
        assert_eq!(block("\n  "), "");
        assert_eq!(block(""), "");
        assert_eq!(block("\n\n"), "");
        assert_eq!(block("\n\n\n"), "\n");
    }

    #[test]
    fn an_interpolation_at_the_start_of_a_line_is_indented_like_text() {
        let pieces = [Piece::Text("\n    "), Piece::Gap, Piece::Text(" and\n    "), Piece::Gap, Piece::Text("\n    ")];
        assert_eq!(decode(&pieces, true), ["", "", " and\n", "", ""]);
    }

    #[test]
    fn a_line_left_of_the_closing_quotes_is_found() {
        assert_eq!(line_indented_too_little(&[Piece::Text("\n    one\n  two\n    ")]), Some((0, 9..14)));
        assert_eq!(line_indented_too_little(&[Piece::Text("\n    one\n\n    ")]), None);
    }

    #[test]
    fn raw_texts_keep_their_backslashes() {
        assert_eq!(decode_raw(r#"r"a\d#{x}""#), r"a\d#{x}");
        assert_eq!(decode_raw("r\"\"\"\n  a\\n\n  \"\"\""), "a\\n");
        assert_eq!(decode_raw("r\""), "");
    }
}
