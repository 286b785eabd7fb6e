//! Patterns of `match`, `let` and `for`.

use super::{Expr, Name, StringExpr, TypeExpr, child, children, choice, name, names, nodes};

nodes! {
    /// `42`, `-1`, `"x"`, `true`, `none`, `250ms`.
    LiteralPat,
    /// `x`: binds, or is a variant without payload; the checker knows.
    NamePat,
    /// `_`.
    WildcardPat,
    /// `ok(p)`, `err(p)`, `Variant(p, q)`, `t.Variant(p)`.
    VariantPat,
    /// `{ f, g: p }`.
    RecordPat,
    /// `f` or `g: p`.
    FieldPat,
    /// `[a, b]`.
    ListPat,
    /// `(a, b)`.
    TuplePat,
    /// `n: Type`.
    TypedPat,
    /// `intent("…")`.
    IntentPat,
}

choice! {
    /// A pattern.
    Pattern {
        /// A literal.
        LiteralPat,
        /// A name.
        NamePat,
        /// `_`.
        WildcardPat,
        /// A variant with a payload.
        VariantPat,
        /// A record.
        RecordPat,
        /// A list.
        ListPat,
        /// A tuple.
        TuplePat,
        /// A name with a type.
        TypedPat,
        /// A question to a model.
        IntentPat,
    }
}

impl LiteralPat {
    /// The literal; a negative number is a [`super::PrefixExpr`].
    #[must_use]
    pub fn value(&self) -> Option<Expr> {
        child(&self.0)
    }
}

impl NamePat {
    /// The words of the path; more than one only for a variant such as `t.accept`.
    #[must_use]
    pub fn path(&self) -> Vec<Name> {
        names(&self.0).collect()
    }

    /// The last word of the path.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        names(&self.0).last()
    }
}

impl VariantPat {
    /// The words of the path.
    #[must_use]
    pub fn path(&self) -> Vec<Name> {
        names(&self.0).collect()
    }

    /// The last word of the path.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        names(&self.0).last()
    }

    /// The patterns of the payload.
    pub fn payload(&self) -> impl Iterator<Item = Pattern> + use<> {
        children(&self.0)
    }
}

impl RecordPat {
    /// The fields, in the order of the text.
    pub fn fields(&self) -> impl Iterator<Item = FieldPat> + use<> {
        children(&self.0)
    }
}

impl FieldPat {
    /// The field.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        name(&self.0)
    }

    /// The pattern after the colon; without one the field's name is bound.
    #[must_use]
    pub fn pattern(&self) -> Option<Pattern> {
        child(&self.0)
    }
}

impl ListPat {
    /// The patterns in order.
    pub fn items(&self) -> impl Iterator<Item = Pattern> + use<> {
        children(&self.0)
    }
}

impl TuplePat {
    /// The patterns in order.
    pub fn items(&self) -> impl Iterator<Item = Pattern> + use<> {
        children(&self.0)
    }
}

impl TypedPat {
    /// The bound name; nothing for `_: Type`.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        name(&self.0)
    }

    /// The type.
    #[must_use]
    pub fn ty(&self) -> Option<TypeExpr> {
        child(&self.0)
    }
}

impl IntentPat {
    /// The intent in words.
    #[must_use]
    pub fn question(&self) -> Option<StringExpr> {
        child(&self.0)
    }
}
