//! Types as they are written.

use super::{Field, FieldList, Name, StringExpr, child, children, choice, names, nodes};
use crate::SyntaxKind;

nodes! {
    /// `str`, `list[T]`, `t.Claim`.
    NamedType,
    /// `[T, U]` after a named type.
    TypeArgs,
    /// `T?`.
    OptionType,
    /// `(T, U)`.
    TupleType,
    /// `{ a: T }`.
    RecordType,
    /// `fn(T) -> U`.
    FnType,
    /// `A | B`.
    UnionType,
    /// `str @ "…" match r"…"`.
    SemanticType,
}

choice! {
    /// A type.
    TypeExpr {
        /// A name, perhaps with arguments.
        NamedType,
        /// An optional type.
        OptionType,
        /// A tuple.
        TupleType,
        /// A record.
        RecordType,
        /// A function.
        FnType,
        /// A union.
        UnionType,
        /// A semantic type; only in a `type` declaration.
        SemanticType,
    }
}

impl NamedType {
    /// The words of the path; more than one for a name of an imported file.
    #[must_use]
    pub fn path(&self) -> Vec<Name> {
        names(&self.0).collect()
    }

    /// The last word of the path.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        names(&self.0).last()
    }

    /// The types in brackets.
    #[must_use]
    pub fn args(&self) -> Vec<TypeExpr> {
        child::<TypeArgs>(&self.0).map(|args| children(&args.0).collect()).unwrap_or_default()
    }
}

impl OptionType {
    /// The type that may be absent.
    #[must_use]
    pub fn inner(&self) -> Option<TypeExpr> {
        child(&self.0)
    }
}

impl TupleType {
    /// The types in order; none for `()`.
    pub fn items(&self) -> impl Iterator<Item = TypeExpr> + use<> {
        children(&self.0)
    }

    /// The type in parentheses that only group: `(int | str)?`.
    #[must_use]
    pub fn grouped(&self) -> Option<TypeExpr> {
        let has_comma = self.0.children_with_tokens().any(|part| part.kind() == SyntaxKind::Comma);
        let mut items = self.items();
        items.next().filter(|_| !has_comma)
    }
}

impl RecordType {
    /// The fields in order.
    pub fn fields(&self) -> impl Iterator<Item = Field> + use<> {
        child::<FieldList>(&self.0).into_iter().flat_map(|list| children(super::AstNode::syntax(&list)))
    }
}

impl FnType {
    /// The types of the parameters.
    #[must_use]
    pub fn params(&self) -> Vec<TypeExpr> {
        child::<TupleType>(&self.0).map(|tuple| tuple.items().collect()).unwrap_or_default()
    }

    /// The type of the result.
    #[must_use]
    pub fn result(&self) -> Option<TypeExpr> {
        child::<super::ResultType>(&self.0).and_then(|result| child(super::AstNode::syntax(&result)))
    }
}

impl UnionType {
    /// The alternatives in order.
    pub fn alternatives(&self) -> impl Iterator<Item = TypeExpr> + use<> {
        children(&self.0)
    }
}

impl SemanticType {
    /// The type it narrows.
    #[must_use]
    pub fn base(&self) -> Option<TypeExpr> {
        child(&self.0)
    }

    /// The condition in words.
    #[must_use]
    pub fn condition(&self) -> Option<StringExpr> {
        child(&self.0)
    }

    /// The regular expression after `match`, as a raw or plain text.
    #[must_use]
    pub fn pattern(&self) -> Option<super::Expr> {
        super::child_after(&self.0, crate::SyntaxKind::MatchKw)
    }
}
