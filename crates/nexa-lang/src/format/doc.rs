//! The algebra of layouts: what may stand on one line, and where it may break.
//!
//! A [`Doc`] describes all layouts of a text at once; [`super::print`] chooses one. The operators are Wadler's (Philip
//! Wadler, *A prettier printer*, in *The Fun of Programming*, 2003): text, line, nest and group. Comments are an addition:
//! one that reaches to the end of its line forces whatever comes next onto a new one.

/// The layouts of a piece of program.
#[derive(Debug)]
pub(super) struct Doc {
    pub(super) kind: Kind,
    /// Whether it has a line end in every layout, so that the groups around it are broken.
    breaks: bool,
}

#[derive(Debug)]
pub(super) enum Kind {
    Nil,
    /// Printed as it is; it may have several lines.
    Text(Box<str>),
    /// A comment; `is_line` if it reaches to the end of its line.
    Comment {
        text: Box<str>,
        is_line: bool,
    },
    /// A blank, unless a line ends or begins here.
    Space,
    /// A line end in a broken group; in a flat one a blank, or nothing if it is `soft`.
    Line {
        soft: bool,
    },
    /// The beginning of a line; after an empty line if it is `blank`.
    Hard {
        blank: bool,
    },
    /// A comma right behind the last text, if the group is broken.
    TrailingComma,
    /// A comma, if the group is flat.
    FlatComma,
    Concat(Vec<Doc>),
    Indent(Box<Doc>),
    Group(Box<Doc>),
}

impl Doc {
    fn new(kind: Kind, breaks: bool) -> Self {
        Doc { kind, breaks }
    }

    pub(super) fn nil() -> Self {
        Doc::new(Kind::Nil, false)
    }

    pub(super) fn text(text: impl Into<Box<str>>) -> Self {
        Doc::new(Kind::Text(text.into()), false)
    }

    pub(super) fn comment(text: impl Into<Box<str>>, is_line: bool) -> Self {
        Doc::new(Kind::Comment { text: text.into(), is_line }, is_line)
    }

    pub(super) fn space() -> Self {
        Doc::new(Kind::Space, false)
    }

    pub(super) fn line() -> Self {
        Doc::new(Kind::Line { soft: false }, false)
    }

    pub(super) fn soft_line() -> Self {
        Doc::new(Kind::Line { soft: true }, false)
    }

    pub(super) fn hard(blank: bool) -> Self {
        Doc::new(Kind::Hard { blank }, true)
    }

    pub(super) fn trailing_comma() -> Self {
        Doc::new(Kind::TrailingComma, false)
    }

    pub(super) fn flat_comma() -> Self {
        Doc::new(Kind::FlatComma, false)
    }

    pub(super) fn concat(parts: Vec<Doc>) -> Self {
        let breaks = parts.iter().any(|part| part.breaks);
        Doc::new(Kind::Concat(parts), breaks)
    }

    pub(super) fn indent(self) -> Self {
        let breaks = self.breaks;
        Doc::new(Kind::Indent(Box::new(self)), breaks)
    }

    /// Indented if `indents`.
    pub(super) fn indent_if(self, indents: bool) -> Self {
        if indents { self.indent() } else { self }
    }

    /// On one line if it fits there and nothing in it forces a line end; else every line of it that is in no inner group
    /// is broken.
    pub(super) fn group(self) -> Self {
        let breaks = self.breaks;
        Doc::new(Kind::Group(Box::new(self)), breaks)
    }

    /// Broken in every layout.
    pub(super) fn broken(mut self) -> Self {
        self.breaks = true;
        self
    }

    /// Whether it has a line end in every layout.
    pub(super) fn breaks(&self) -> bool {
        self.breaks
    }
}
