//! Cuts a text into tokens.
//!
//! Lossless: every byte lies in exactly one token, whatever the text. What the language has no token for becomes
//! [`SyntaxKind::Unknown`] with a diagnostic; a text, comment or interpolation that is not closed ends where its line or
//! the file ends. Fixed tokens and words are logos' work; texts, comments and numbers are scanned by hand, because they
//! nest or need a message of their own.
//!
//! A text is several tokens: `StrOpen`, then `StrText` and interpolations (`InterpolationOpen` … tokens …
//! `InterpolationClose`) in turn, then `StrClose`. Contextual words are plain `Ident` here; the parser knows better.

pub(crate) mod numbers;
pub(crate) mod texts;

use logos::{Lexer, Logos};

use crate::{
    SyntaxKind,
    diagnostic::{Code, Diagnostic, SYNTAX_FINDINGS_MAX},
    source::{Source, Span},
};

/// How many interpolations may lie within each other. The next one is E0108 and read as plain text.
pub(crate) const INTERPOLATION_DEPTH_MAX: usize = 8;

/// One token; it begins where the one before ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: SyntaxKind,
    /// The byte after its last.
    pub(crate) end: u32,
}

/// The tokens of a text, and what is wrong with its characters.
pub(crate) struct Lexed {
    pub(crate) tokens: Vec<Token>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Cuts a text into tokens that cover it without a gap.
pub(crate) fn lex(source: &Source) -> Lexed {
    let lexed = Lexed { tokens: Vec::new(), diagnostics: Vec::new() };
    let raw = Lexeme::lexer(source.text());
    let mut scanner = Scanner { source, raw, position: 0, frames: Vec::new(), unknown_before: None, lexed };
    scanner.run();
    scanner.lexed
}

/// What logos sees: fixed tokens whole, and the beginnings of everything that is scanned by hand.
#[derive(Logos, Clone, Copy, Debug)]
enum Lexeme {
    #[regex(r"[ \t]+", |_| SyntaxKind::Whitespace)]
    #[regex(r"\r?\n", |_| SyntaxKind::Newline)]
    #[token("(", |_| SyntaxKind::ParenOpen)]
    #[token(")", |_| SyntaxKind::ParenClose)]
    #[token("[", |_| SyntaxKind::BracketOpen)]
    #[token("]", |_| SyntaxKind::BracketClose)]
    #[token("{", |_| SyntaxKind::BraceOpen)]
    #[token("}", |_| SyntaxKind::BraceClose)]
    #[token(",", |_| SyntaxKind::Comma)]
    #[token(";", |_| SyntaxKind::Semicolon)]
    #[token(":", |_| SyntaxKind::Colon)]
    #[token(".", |_| SyntaxKind::Dot)]
    #[token("@", |_| SyntaxKind::At)]
    #[token("=", |_| SyntaxKind::Equals)]
    #[token("+=", |_| SyntaxKind::PlusEquals)]
    #[token("-=", |_| SyntaxKind::MinusEquals)]
    #[token("=>", |_| SyntaxKind::FatArrow)]
    #[token("->", |_| SyntaxKind::ThinArrow)]
    #[token("?", |_| SyntaxKind::Question)]
    #[token("!", |_| SyntaxKind::Bang)]
    #[token("+", |_| SyntaxKind::Plus)]
    #[token("-", |_| SyntaxKind::Minus)]
    #[token("*", |_| SyntaxKind::Star)]
    #[token("/", |_| SyntaxKind::Slash)]
    #[token("%", |_| SyntaxKind::Percent)]
    #[token("==", |_| SyntaxKind::EqualsEquals)]
    #[token("!=", |_| SyntaxKind::BangEquals)]
    #[token("<", |_| SyntaxKind::Less)]
    #[token("<=", |_| SyntaxKind::LessEquals)]
    #[token(">", |_| SyntaxKind::Greater)]
    #[token(">=", |_| SyntaxKind::GreaterEquals)]
    #[token("|", |_| SyntaxKind::Bar)]
    #[token("??", |_| SyntaxKind::QuestionQuestion)]
    #[token(">>", |_| SyntaxKind::Pipe)]
    #[token("|>", |_| SyntaxKind::PipeCall)]
    #[token("|>>", |_| SyntaxKind::PipeFork)]
    #[token("||", |_| SyntaxKind::PipeDetach)]
    #[token("&>>", |_| SyntaxKind::PipeMerge)]
    #[token("&&", |_| SyntaxKind::PipeConsensus)]
    #[token("?>", |_| SyntaxKind::PipeBranch)]
    Fixed(SyntaxKind),
    #[regex("[A-Za-z_][A-Za-z0-9_]*")]
    Word,
    #[regex("[0-9]")]
    Number,
    #[token("//")]
    LineComment,
    #[token("/*")]
    BlockComment,
    #[token("\"")]
    Quote,
    #[token("\"\"\"")]
    BlockQuote,
    #[token("r\"")]
    RawQuote,
    #[token("r\"\"\"")]
    RawBlockQuote,
    #[regex(r"[^\x00-\x7F]")]
    Foreign,
}

/// What the scanner is inside of.
enum Frame {
    Text {
        is_block: bool,
        open: Span,
        /// The stretches of text so far; `None` is an interpolation between two.
        pieces: Vec<Option<Span>>,
    },
    Interpolation {
        open: Span,
        /// Braces opened inside and not closed yet.
        braces: u32,
    },
}

struct Scanner<'s> {
    source: &'s Source,
    raw: Lexer<'s, Lexeme>,
    position: u32,
    frames: Vec<Frame>,
    /// The end of the last character that has no place in the language.
    unknown_before: Option<u32>,
    lexed: Lexed,
}

impl Scanner<'_> {
    fn run(&mut self) {
        loop {
            let is_done = match self.frames.last() {
                Some(Frame::Text { is_block, .. }) => {
                    let is_block = *is_block;
                    self.text(is_block)
                }
                _ => self.plain(),
            };
            if is_done {
                break;
            }
        }
        match self.frames.last() {
            Some(Frame::Text { open, .. }) => self.report(Code::E0103, *open, "this text is not closed", "opened here"),
            Some(Frame::Interpolation { open, .. }) => {
                self.report(Code::E0108, *open, "this interpolation is not closed", "opened here")
            }
            None => {}
        }
    }

    /// Takes the next token outside of texts; `true` at the end of the file.
    fn plain(&mut self) -> bool {
        let Some(raw) = self.raw.next() else { return true };
        match raw {
            Ok(Lexeme::Fixed(kind)) => self.fixed(kind),
            Ok(Lexeme::Word) => self.word(),
            Ok(Lexeme::Number) => self.number(),
            Ok(Lexeme::LineComment) => self.line_comment(),
            Ok(Lexeme::BlockComment) => self.block_comment(),
            Ok(Lexeme::Quote) => self.open_text(false),
            Ok(Lexeme::BlockQuote) => self.open_text(true),
            Ok(Lexeme::RawQuote) => self.raw_text(false),
            Ok(Lexeme::RawBlockQuote) => self.raw_text(true),
            Ok(Lexeme::Foreign) if self.raw.slice().chars().all(unicode_ident::is_xid_start) => self.word(),
            // Editors put a byte order mark in front of a file; nobody sees it, so nobody should have to remove it.
            Ok(Lexeme::Foreign) if self.position == 0 && self.raw.slice() == "\u{feff}" => {
                self.push(SyntaxKind::Whitespace);
            }
            Ok(Lexeme::Foreign) | Err(()) => self.unknown(),
        }
        false
    }

    fn fixed(&mut self, kind: SyntaxKind) {
        match (kind, self.frames.last_mut()) {
            (SyntaxKind::BraceOpen, Some(Frame::Interpolation { braces, .. })) => *braces += 1,
            (SyntaxKind::BraceClose, Some(Frame::Interpolation { braces: 0, .. })) => {
                self.frames.pop();
                self.push(SyntaxKind::InterpolationClose);
                return;
            }
            (SyntaxKind::BraceClose, Some(Frame::Interpolation { braces, .. })) => *braces -= 1,
            (SyntaxKind::Newline, Some(Frame::Interpolation { open, .. })) => {
                let open = *open;
                if self.leave_line() {
                    self.report(Code::E0108, open, "this interpolation is not closed on its line", "opened here");
                }
            }
            _ => {}
        }
        self.push(kind);
    }

    /// Leaves every text that may not reach over a line end, and all that lies inside of it; `true` if there was one.
    fn leave_line(&mut self) -> bool {
        let outermost = self.frames.iter().position(|frame| matches!(frame, Frame::Text { is_block: false, .. }));
        if let Some(place) = outermost {
            self.frames.truncate(place);
        }
        outermost.is_some()
    }

    fn word(&mut self) {
        let rest = self.raw.remainder();
        let is_foreign = !self.raw.slice().is_ascii() || rest.bytes().next().is_some_and(|byte| !byte.is_ascii());
        if is_foreign {
            let more = rest.chars().take_while(|c| unicode_ident::is_xid_continue(*c)).map(char::len_utf8).sum();
            self.raw.bump(more);
        }
        let text = self.raw.slice();
        let kind =
            if text == "_" { SyntaxKind::Underscore } else { SyntaxKind::reserved(text).unwrap_or(SyntaxKind::Ident) };
        self.push(kind);
    }

    fn number(&mut self) {
        let start = self.raw.span().start;
        let length = numbers::length(&self.source.text()[start..]);
        self.raw.bump(length - self.raw.slice().len());
        let text = self.raw.slice();
        let (kind, error) = match numbers::read(text) {
            Ok(number) => (number.kind(), None),
            Err(error) => (if text.contains('.') { SyntaxKind::Float } else { SyntaxKind::Int }, Some(error)),
        };
        let span = self.push(kind);
        match error {
            Some(numbers::NumberError::OutOfRange) => {
                self.report(Code::E0111, span, "this number is out of range", "beyond a signed 64-bit integer");
            }
            Some(numbers::NumberError::Malformed(why)) => {
                let message = format!("`{text}` is not a number of the language");
                self.report(Code::E0109, span, &message, why);
            }
            None => {}
        }
    }

    fn line_comment(&mut self) {
        let rest = self.raw.remainder();
        let line = rest.split('\n').next().unwrap_or_default();
        let line = if line.len() < rest.len() { line.strip_suffix('\r').unwrap_or(line) } else { line };
        self.raw.bump(line.len());
        let kind = match line.as_bytes() {
            [b'/', b'/', ..] => SyntaxKind::LineComment,
            [b'/', ..] => SyntaxKind::DocComment,
            [b'!', ..] => SyntaxKind::FileDoc,
            _ => SyntaxKind::LineComment,
        };
        self.push(kind);
    }

    fn block_comment(&mut self) {
        let rest = self.raw.remainder().as_bytes();
        let mut depth = 1usize;
        let mut at = 0;
        while depth > 0 && at < rest.len() {
            match rest.get(at..at + 2) {
                Some(b"/*") => (depth, at) = (depth + 1, at + 2),
                Some(b"*/") => (depth, at) = (depth - 1, at + 2),
                _ => at += 1,
            }
        }
        self.raw.bump(at);
        let span = self.push(SyntaxKind::BlockComment);
        if depth > 0 {
            let open = Span::new(span.start, span.start + 2);
            self.report(Code::E0106, open, "this comment is not closed", "opened here");
        }
    }

    fn open_text(&mut self, is_block: bool) {
        let open = self.push(SyntaxKind::StrOpen);
        self.frames.push(Frame::Text { is_block, open, pieces: Vec::new() });
    }

    /// Takes the text up to the next quote, interpolation or line end, and that; `true` at the end of the file.
    fn text(&mut self, is_block: bool) -> bool {
        let rest = self.raw.remainder();
        let (length, stop) = texts::stretch(rest, is_block);
        if length > 0 {
            let piece = &rest[..length];
            self.raw.bump(length);
            let span = self.push(SyntaxKind::StrText);
            self.check_escapes(piece, span.start);
            if let Some(Frame::Text { pieces, .. }) = self.frames.last_mut() {
                pieces.push(Some(span));
            }
        }
        match stop {
            texts::Stop::Close => {
                self.raw.bump(if is_block { 3 } else { 1 });
                self.push(SyntaxKind::StrClose);
                if let Some(Frame::Text { is_block: true, pieces, .. }) = self.frames.pop() {
                    self.check_indentation(&pieces);
                }
            }
            texts::Stop::Interpolation => self.open_interpolation(),
            texts::Stop::LineEnd => {
                // Inside an interpolation, the quote was most likely meant to end the text around it.
                let around = self.frames.iter().rev().nth(1);
                match (around, self.frames.last()) {
                    (Some(Frame::Interpolation { open, .. }), _) => {
                        self.report(Code::E0108, *open, "this interpolation is not closed on its line", "opened here");
                    }
                    (_, Some(Frame::Text { open, .. })) => {
                        self.report(Code::E0103, *open, "this text is not closed on its line", "opened here")
                    }
                    _ => {}
                }
                self.leave_line();
            }
            texts::Stop::FileEnd => return true,
        }
        false
    }

    fn open_interpolation(&mut self) {
        self.raw.bump(2);
        let depth = self.frames.iter().filter(|frame| matches!(frame, Frame::Interpolation { .. })).count();
        if depth >= INTERPOLATION_DEPTH_MAX {
            let span = self.push(SyntaxKind::StrText);
            let message = format!("an interpolation may nest {INTERPOLATION_DEPTH_MAX} deep");
            return self.report(Code::E0108, span, &message, "one too deep; name the inner text with `let` first");
        }
        if let Some(Frame::Text { pieces, .. }) = self.frames.last_mut() {
            pieces.push(None);
        }
        let open = self.push(SyntaxKind::InterpolationOpen);
        self.frames.push(Frame::Interpolation { open, braces: 0 });
    }

    fn raw_text(&mut self, is_block: bool) {
        let open = Span::new(self.position, self.raw.span().end as u32);
        let rest = self.raw.remainder();
        let (length, is_closed) = texts::raw_length(rest, is_block);
        self.raw.bump(length);
        self.push(SyntaxKind::RawStr);
        if !is_closed {
            self.report(Code::E0103, open, "this raw text is not closed", "opened here");
        } else if is_block {
            let content = Span::new(open.end, self.position - 3);
            self.check_indentation(&[Some(content)]);
        }
    }

    fn unknown(&mut self) {
        let text = self.raw.slice().to_owned();
        let span = self.push(SyntaxKind::Unknown);
        // A second one on the same line is most often the other end of the same mistake.
        let is_same_line = self
            .unknown_before
            .is_some_and(|end| !self.source.text()[end as usize..span.start as usize].contains('\n'));
        self.unknown_before = Some(span.end);
        if is_same_line {
            return;
        }
        let show = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        let shown: String = text.chars().take(8).map(show).collect();
        let message = format!("`{shown}` has no place in the language");
        let hint = match text.as_str() {
            "'" => "texts stand in double quotes",
            "#" => "comments begin with `//`",
            "&" => "`and` joins conditions",
            "\r" => "a line ends with LF or CRLF",
            _ => "remove it, or put it into a text",
        };
        self.report(Code::E0110, span, &message, hint);
    }

    fn check_escapes(&mut self, piece: &str, start: u32) {
        if !piece.contains('\\') {
            return;
        }
        let mut errors = Vec::new();
        texts::unescape(piece, &mut String::new(), |range, error| errors.push((range, error)));
        for (range, error) in errors {
            let span = Span::new(start + range.start as u32, start + range.end as u32);
            match error {
                texts::EscapeError::Unknown => {
                    self.report(
                        Code::E0104,
                        span,
                        "this escape is not known",
                        "known are \\n \\r \\t \\0 \\\\ \\\" \\# \\u{…}",
                    );
                }
                texts::EscapeError::NotScalar => {
                    self.report(
                        Code::E0105,
                        span,
                        "this is no Unicode scalar value",
                        "from 0 to 10FFFF without D800 to DFFF",
                    );
                }
            }
        }
    }

    /// Reports the first line of a text block that begins left of its closing quotes; the others are the same mistake.
    fn check_indentation(&mut self, spans: &[Option<Span>]) {
        let text = self.source.text();
        let pieces: Vec<texts::Piece<'_>> = spans
            .iter()
            .map(|span| {
                span.map_or(texts::Piece::Gap, |span| texts::Piece::Text(&text[span.start as usize..span.end as usize]))
            })
            .collect();
        let Some((piece, range)) = texts::line_indented_too_little(&pieces) else { return };
        let start = spans.get(piece).copied().flatten().unwrap_or_default().start;
        let span = Span::new(start + range.start as u32, start + range.end as u32);
        self.report(
            Code::E0107,
            span,
            "this line begins left of the closing quotes",
            "indent it as far as the closing `\"\"\"`",
        );
    }

    fn push(&mut self, kind: SyntaxKind) -> Span {
        let span = Span::new(self.position, self.raw.span().end as u32);
        self.lexed.tokens.push(Token { kind, end: span.end });
        self.position = span.end;
        span
    }

    fn report(&mut self, code: Code, span: Span, message: &str, label: &str) {
        if self.lexed.diagnostics.len() < SYNTAX_FINDINGS_MAX {
            let diagnostic = Diagnostic::new(code, self.source.file(), span, message).primary_label(label);
            self.lexed.diagnostics.push(diagnostic);
        }
    }
}
