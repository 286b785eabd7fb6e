//! Reads tokens into a lossless tree. It never fails: what it cannot read becomes an error node, and it goes on.
//!
//! Hand-written recursive descent; operators by binding power ([`expressions`]). Newlines are trivia, but each token
//! knows whether one came before it, and inside blocks that can end a statement ([`statements`]).
//!
//! Holds, for every text:
//!   P-1  the tree prints back to the text
//!   P-2  every token is looked at a bounded number of times, so the work is linear
//!   P-3  the tree is at most [`NESTING_MAX`] levels and [`DEPTH_MAX`] operators deep, so no reader overflows its stack
//!   P-4  one mistake gives one error: follow-ups within a statement are dropped
//!
//! [`cursor`] walks the tokens and builds the tree, [`recovery`] reports and skips, [`legacy`] knows the forms that are no
//! longer written; the rest is grammar.

mod cursor;
mod declarations;
mod expressions;
mod legacy;
mod operands;
mod operators;
mod patterns;
mod recovery;
mod statements;
mod types;

use cursor::Parser;

use crate::{SyntaxKind, lexer, source::Source, syntax::Parse};

/// How deep blocks, brackets and prefix operators may nest. Deeper is E0210.
pub(crate) const NESTING_MAX: u32 = 256;
/// How deep the tree may be when chains of operators are counted too, which lean to the left. Deeper is E0210.
pub(crate) const DEPTH_MAX: u32 = 512;

/// Reads a file. The result always has a tree of the whole text; what is wrong with it is in the diagnostics.
#[must_use]
pub fn parse(source: &Source) -> Parse {
    let lexed = lexer::lex(source);
    let mut parser = Parser::new(source, lexed);
    parser.start(SyntaxKind::SourceFile);
    parser.file();
    parser.finish_file()
}
