//! Where the parser is in the tokens, and the tree it has built so far.

use std::cell::Cell;

use rowan::{Checkpoint, GreenNodeBuilder, Language};

use crate::{
    SyntaxKind,
    diagnostic::Diagnostic,
    lexer::{Lexed, Token},
    source::{Source, Span},
    syntax::{NexaLanguage, Parse},
};

/// A token that has a meaning.
#[derive(Clone, Copy)]
struct Word {
    kind: SyntaxKind,
    /// Its place among all tokens.
    index: u32,
    span: Span,
    follows_newline: bool,
}

pub(super) struct Parser<'s> {
    pub(super) source: &'s Source,
    tokens: Vec<Token>,
    words: Vec<Word>,
    /// The next word.
    at: usize,
    /// The tokens that are already in the tree.
    built: usize,
    builder: GreenNodeBuilder<'static>,
    steps: Cell<u64>,
    /// Lexical diagnostics first; `lexical` are their places in order.
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) lexical: Vec<u32>,
    pub(super) statement_start: u32,
    pub(super) has_reported: bool,
    /// Where the last mistake was reported.
    pub(super) last_report: Option<u32>,
    /// Where a bracket was last found open.
    pub(super) unclosed_at: Option<usize>,
    pub(super) mode: Mode,
    /// What the declaration has said that is being read.
    pub(super) declared: super::legacy::Declared,
    depth: u32,
    deepest: u32,
}

/// How newlines and braces are read here.
#[derive(Clone, Copy)]
pub(super) struct Mode {
    /// Whether a newline can end the statement: no bracket of it is open.
    pub(super) lines: bool,
    /// Whether `{` after an expression belongs to it: not in the head of a `for` or `match`.
    pub(super) braces: bool,
}

impl Mode {
    pub(super) const STATEMENT: Mode = Mode { lines: true, braces: true };
    pub(super) const BRACKET: Mode = Mode { lines: false, braces: true };
}

impl<'s> Parser<'s> {
    pub(super) fn new(source: &'s Source, lexed: Lexed) -> Self {
        let mut words = Vec::with_capacity(lexed.tokens.len() / 2 + 1);
        let mut start = 0;
        let mut follows_newline = true;
        for (index, token) in (0u32..).zip(&lexed.tokens) {
            let span = Span::new(start, token.end);
            start = token.end;
            match token.kind {
                SyntaxKind::Newline => follows_newline = true,
                SyntaxKind::BlockComment => {
                    follows_newline |= source.text()[span.start as usize..span.end as usize].contains('\n');
                }
                // An unknown character is reported already; the parser reads on as if it were not there.
                kind if kind.is_trivia() || kind == SyntaxKind::Unknown => {}
                kind => {
                    words.push(Word { kind, index, span, follows_newline });
                    follows_newline = false;
                }
            }
        }
        let mut lexical: Vec<u32> = lexed.diagnostics.iter().map(|diagnostic| diagnostic.span.start).collect();
        lexical.sort_unstable();
        Parser {
            source,
            tokens: lexed.tokens,
            words,
            at: 0,
            built: 0,
            builder: GreenNodeBuilder::new(),
            steps: Cell::new(0),
            diagnostics: lexed.diagnostics,
            lexical,
            statement_start: 0,
            has_reported: false,
            last_report: None,
            unclosed_at: None,
            mode: Mode::STATEMENT,
            declared: super::legacy::Declared::default(),
            depth: 0,
            deepest: 0,
        }
    }

    /// Ends the root with all trivia that is left.
    pub(super) fn finish_file(mut self) -> Parse {
        while self.current() != SyntaxKind::EndOfFile {
            self.bump();
        }
        self.build_up_to(self.tokens.len());
        self.builder.finish_node();
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.span);
        Parse {
            green: self.builder.finish(),
            file: self.source.file(),
            diagnostics: self.diagnostics,
            steps: self.steps.get(),
        }
    }

    // Looking.

    fn word(&self, ahead: usize) -> Option<&Word> {
        self.steps.set(self.steps.get() + 1);
        self.words.get(self.at + ahead)
    }

    pub(super) fn nth(&self, ahead: usize) -> SyntaxKind {
        self.word(ahead).map_or(SyntaxKind::EndOfFile, |word| word.kind)
    }

    pub(super) fn current(&self) -> SyntaxKind {
        self.nth(0)
    }

    pub(super) fn at(&self, kind: SyntaxKind) -> bool {
        self.current() == kind
    }

    pub(super) fn text(&self, ahead: usize) -> &'s str {
        self.word(ahead).map_or("", |word| &self.source.text()[word.span.start as usize..word.span.end as usize])
    }

    /// Whether the current token is a name that reads like this.
    pub(super) fn at_word(&self, text: &str) -> bool {
        self.at(SyntaxKind::Ident) && self.text(0) == text
    }

    pub(super) fn follows_newline(&self) -> bool {
        self.word(0).is_none_or(|word| word.follows_newline)
    }

    pub(super) fn span(&self) -> Span {
        let end = self.source.text().len() as u32;
        self.word(0).map_or(Span::new(end, end), |word| word.span)
    }

    pub(super) fn nth_span(&self, ahead: usize) -> Span {
        self.word(ahead).map_or_else(|| self.span(), |word| word.span)
    }

    fn previous(&self) -> Option<&Word> {
        self.at.checked_sub(1).and_then(|at| self.words.get(at))
    }

    pub(super) fn previous_kind(&self) -> SyntaxKind {
        self.previous().map_or(SyntaxKind::EndOfFile, |word| word.kind)
    }

    pub(super) fn previous_span(&self) -> Span {
        self.previous().map_or(Span::default(), |word| word.span)
    }

    /// A number that grows with every token taken.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    // Building.

    /// Takes the current token into the tree.
    pub(super) fn bump(&mut self) {
        self.bump_as(self.nth(0));
    }

    /// Takes the current token under another kind: a contextual word where it has its meaning.
    pub(super) fn bump_as(&mut self, kind: SyntaxKind) {
        let Some(word) = self.words.get(self.at).copied() else { return };
        self.build_up_to(word.index as usize);
        let text = &self.source.text()[word.span.start as usize..word.span.end as usize];
        self.builder.token(NexaLanguage::kind_to_raw(kind), text);
        self.built = word.index as usize + 1;
        self.at += 1;
    }

    pub(super) fn eat(&mut self, kind: SyntaxKind) -> bool {
        let is_there = self.at(kind);
        if is_there {
            self.bump();
        }
        is_there
    }

    /// Takes a contextual word, if it stands here.
    pub(super) fn eat_word(&mut self, text: &str, kind: SyntaxKind) -> bool {
        let is_there = self.at_word(text);
        if is_there {
            self.bump_as(kind);
        }
        is_there
    }

    /// Opens a node before the current token; blanks and comments stay outside of it.
    pub(super) fn start(&mut self, kind: SyntaxKind) {
        if self.at > 0 || self.built > 0 || kind != SyntaxKind::SourceFile {
            self.build_trivia();
        }
        self.builder.start_node(NexaLanguage::kind_to_raw(kind));
    }

    pub(super) fn finish(&mut self) {
        self.builder.finish_node();
    }

    /// Marks this place, so that a node can be opened here later.
    pub(super) fn checkpoint(&mut self) -> Checkpoint {
        self.build_trivia();
        self.builder.checkpoint()
    }

    /// Opens a node at an earlier place, around all that was read since.
    pub(super) fn start_at(&mut self, place: Checkpoint, kind: SyntaxKind) {
        self.builder.start_node_at(place, NexaLanguage::kind_to_raw(kind));
    }

    fn build_trivia(&mut self) {
        let next = self.words.get(self.at).map_or(self.tokens.len(), |word| word.index as usize);
        self.build_up_to(next);
    }

    fn build_up_to(&mut self, end: usize) {
        let mut start = self.built.checked_sub(1).and_then(|index| self.tokens.get(index)).map_or(0, |token| token.end);
        for token in self.tokens.get(self.built..end).unwrap_or_default() {
            let text = &self.source.text()[start as usize..token.end as usize];
            self.builder.token(NexaLanguage::kind_to_raw(token.kind), text);
            start = token.end;
        }
        self.built = self.built.max(end);
    }

    // Modes and depth.

    /// Reads something under another mode.
    pub(super) fn within<T>(&mut self, mode: Mode, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.mode, mode);
        let result = read(self);
        self.mode = outer;
        result
    }

    /// Goes one level deeper, if the limit allows; else reports E0210, skips what nests there, and gives `false`.
    pub(super) fn enter(&mut self) -> bool {
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        if self.depth <= super::NESTING_MAX {
            return true;
        }
        self.too_deep();
        self.depth -= 1;
        false
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Begins to measure how deep the tree gets from here; give the result to [`Parser::end_measure`].
    pub(super) fn begin_measure(&mut self) -> u32 {
        std::mem::replace(&mut self.deepest, self.depth)
    }

    pub(super) fn end_measure(&mut self, outer: u32) {
        self.deepest = self.deepest.max(outer);
    }

    /// Puts one more node around what was measured; reports E0210 and gives `false` if that is one too many.
    pub(super) fn wrap(&mut self) -> bool {
        self.deepest += 1;
        if self.deepest <= super::DEPTH_MAX {
            return true;
        }
        self.too_deep();
        false
    }
}
