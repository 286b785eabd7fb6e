//! Writes a program in the one way that programs are written: `format(source)` gives its text, or says why not.
//!
//! ```text
//! text ─► tree ─┬─► layout ─► document ─► print ─► text ─► the same tree? ─► done
//!               └─► comments ──┘
//! ```
//!
//! Four blanks a level, 100 columns, one statement a line, a chain of more than three stages one stage a line, a comma
//! after the last of a list over several lines, at most one empty line, no needless `;`. What the author chose is kept
//! where it says something: empty lines, fields and arms on one line if they began there and fit, and settings of an agent
//! that share a line.
//!
//! Holds:
//!   FM-1  `format(format(x)) == format(x)`
//!   FM-2  the tokens and comments are the same in the same order, but for commas and semicolons
//!   FM-3  the nodes of the tree are the same, so the module has the same hash
//!   FM-4  a text with syntax errors is refused, never guessed at; older forms and refused constructs are kept as they are
//!
//! FM-2 and FM-3 are checked on every text before it is handed out ([`check`]): a fault of the formatter becomes an error,
//! never a changed program. Texts and text blocks are kept byte for byte, interpolations included; only their line ends are
//! written as the file's.
//!
//! [`doc`] and [`print`] are the algebra and its printer, [`comments`] says what belongs where, and the rest is how each
//! construct looks: [`layout`] (tokens and blanks), [`lists`], [`declarations`], [`statements`], [`expressions`].

mod check;
mod comments;
mod declarations;
mod doc;
mod expressions;
mod layout;
mod lists;
mod print;
mod statements;

use crate::diagnostic::Diagnostic;
use crate::parser::parse;
use crate::source::Source;
use crate::syntax::Parse;

/// Why a text was not formatted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It has syntax errors, which come along.
    #[error("the program has syntax errors")]
    Syntax(Vec<Diagnostic>),
    /// The formatter would have changed the program. A fault of the formatter's: the text stays as it is.
    #[error("formatting would change the program at line {line}; the text is left as it is")]
    WouldChange {
        /// The line of the program where it would.
        line: u32,
    },
}

/// The text of a program as programs are written.
///
/// # Errors
/// [`FormatError::Syntax`] if it has syntax errors. Older forms and refused constructs are none: they are kept.
pub fn format(source: &Source) -> Result<String, FormatError> {
    let parse = parse(source);
    let errors = syntax_errors(&parse);
    if !errors.is_empty() {
        return Err(FormatError::Syntax(errors));
    }
    let text = print::print(&layout::document(&parse.syntax()));
    check::same_program(source, &parse, &text)?;
    Ok(text)
}

/// The findings that keep a text from being read. A construct that is recognised and refused is not among them.
pub(crate) fn syntax_errors(parse: &Parse) -> Vec<Diagnostic> {
    let is_unreadable = |finding: &&Diagnostic| finding.is_error() && !finding.code.is_about_refused_forms();
    parse.diagnostics().iter().filter(is_unreadable).cloned().collect()
}
