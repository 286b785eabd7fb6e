//! The file and its declarations.
//!
//! Clauses are nodes of their own, so that a header may lack any of them and the rest is still read.

use super::{
    AstNode, Block, Expr, Name, Pattern, RecordExpr, StringExpr, TypeExpr, child, children, choice, doc_line, docs,
    name, names, nodes, nth_child, token,
};
use crate::{
    SyntaxKind,
    syntax::{SyntaxNode, SyntaxToken},
};

nodes! {
    /// A whole file.
    SourceFile,
    /// `use "f.nx"`, `use "f.nx" { A, B }`, `use "f.nx" as t`.
    UseDecl,
    /// `{ A, B }` of a `use`.
    UseList,
    /// One imported name.
    UseName,
    /// `type Email = str @ "…" match r"…"`, or an alias.
    TypeDecl,
    /// `protocol P { a: T }`.
    ProtocolDecl,
    /// `struct S { a: T }`.
    StructDecl,
    /// `{ a: T, b: U }` of a protocol, a struct, a variant or a record type.
    FieldList,
    /// `a: T`.
    Field,
    /// `enum E { a, b(x: T) }`.
    EnumDecl,
    /// The variants of an enum.
    VariantList,
    /// `a` or `b(x: T)`.
    Variant,
    /// `fn f(a: T) -> U => e` or with a block.
    FnDecl,
    /// `tool t(a: T) -> U { source: … }`.
    ToolDecl,
    /// `agent A(a: T) -> U uses … { role: … }`.
    AgentDecl,
    /// `flow f(a: T) -> U { … }`.
    FlowDecl,
    /// `test "…" { … }`.
    TestDecl,
    /// `@id("…")`.
    Decorator,
    /// `(a: T, b: U = e)`.
    ParamList,
    /// `a: T = e`; the type and the default may be missing.
    Param,
    /// `-> T`.
    ResultType,
    /// `uses a, std.fs(paths: […])`.
    UsesClause,
    /// One grant of a `uses`.
    Grant,
    /// `implements P`.
    ImplementsClause,
    /// `requires e`.
    RequiresClause,
    /// `ensures e`.
    EnsuresClause,
    /// `budget { … }` of a flow.
    BudgetClause,
    /// `schedule { … }` of a flow.
    ScheduleClause,
    /// The `{ … }` of an agent or a tool.
    PropertyList,
    /// `role: "…"`.
    Property,
}

choice! {
    /// A top-level declaration.
    Decl {
        /// `use`
        UseDecl,
        /// `type`
        TypeDecl,
        /// `protocol`
        ProtocolDecl,
        /// `struct`
        StructDecl,
        /// `enum`
        EnumDecl,
        /// `fn`
        FnDecl,
        /// `tool`
        ToolDecl,
        /// `agent`
        AgentDecl,
        /// `flow`
        FlowDecl,
        /// `test`
        TestDecl,
    }
}

impl Decl {
    /// The declared name; `use` and `test` have none.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        match self {
            Decl::UseDecl(_) | Decl::TestDecl(_) => None,
            _ => name(self.syntax()),
        }
    }

    /// The word it is declared with: `agent`, `flow`, …
    #[must_use]
    pub fn keyword(&self) -> &'static str {
        match self {
            Decl::UseDecl(_) => "use",
            Decl::TypeDecl(_) => "type",
            Decl::ProtocolDecl(_) => "protocol",
            Decl::StructDecl(_) => "struct",
            Decl::EnumDecl(_) => "enum",
            Decl::FnDecl(_) => "fn",
            Decl::ToolDecl(_) => "tool",
            Decl::AgentDecl(_) => "agent",
            Decl::FlowDecl(_) => "flow",
            Decl::TestDecl(_) => "test",
        }
    }

    /// The doc comment before it.
    #[must_use]
    pub fn docs(&self) -> Option<String> {
        docs(self.syntax())
    }

    /// Its decorators, in the order of the text.
    pub fn decorators(&self) -> impl Iterator<Item = Decorator> + use<> {
        children(self.syntax())
    }
}

impl SourceFile {
    pub(crate) fn of_root(root: SyntaxNode) -> Self {
        SourceFile(root)
    }

    /// All declarations, in the order of the text.
    pub fn declarations(&self) -> impl Iterator<Item = Decl> + use<> {
        children(&self.0)
    }

    /// The `use` declarations.
    pub fn uses(&self) -> impl Iterator<Item = UseDecl> + use<> {
        children(&self.0)
    }

    /// The `//!` lines, joined.
    #[must_use]
    pub fn docs(&self) -> Option<String> {
        let tokens = self.0.children_with_tokens().filter_map(rowan::NodeOrToken::into_token);
        let lines: Vec<String> =
            tokens.filter(|token| token.kind() == SyntaxKind::FileDoc).map(|token| doc_line(&token)).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

impl UseDecl {
    /// The path as written.
    #[must_use]
    pub fn path(&self) -> Option<StringExpr> {
        child(&self.0)
    }

    /// The imported names; nothing if the whole file is imported.
    #[must_use]
    pub fn names(&self) -> Option<Vec<Name>> {
        child::<UseList>(&self.0).map(|list| children::<UseName>(&list.0).filter_map(|entry| name(&entry.0)).collect())
    }

    /// The name after `as`.
    #[must_use]
    pub fn alias(&self) -> Option<Name> {
        name(&self.0)
    }
}

impl TypeDecl {
    /// The declared name.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        name(&self.0)
    }

    /// What stands after `=`; a semantic type is [`TypeExpr::SemanticType`].
    #[must_use]
    pub fn definition(&self) -> Option<TypeExpr> {
        child(&self.0)
    }
}

macro_rules! record_declaration {
    ($name:ident) => {
        impl $name {
            /// The declared name.
            #[must_use]
            pub fn name(&self) -> Option<Name> {
                name(&self.0)
            }

            /// The fields, in the order of the text.
            pub fn fields(&self) -> impl Iterator<Item = Field> + use<> {
                child::<FieldList>(&self.0).into_iter().flat_map(|list| children(&list.0))
            }

            /// The doc comment before it.
            #[must_use]
            pub fn docs(&self) -> Option<String> {
                docs(&self.0)
            }
        }
    };
}

record_declaration!(ProtocolDecl);
record_declaration!(StructDecl);
record_declaration!(Variant);

impl Field {
    /// The name of the field.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        name(&self.0)
    }

    /// Its type.
    #[must_use]
    pub fn ty(&self) -> Option<TypeExpr> {
        child(&self.0)
    }

    /// The doc comment before it, which models are shown as its description.
    #[must_use]
    pub fn docs(&self) -> Option<String> {
        docs(&self.0)
    }
}

impl EnumDecl {
    /// The declared name.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        name(&self.0)
    }

    /// The variants, in the order of the text.
    pub fn variants(&self) -> impl Iterator<Item = Variant> + use<> {
        child::<VariantList>(&self.0).into_iter().flat_map(|list| children(&list.0))
    }
}

/// What `fn`, `tool`, `agent` and `flow` have in common before their body.
pub trait Signature: AstNode {
    /// The declared name.
    fn name(&self) -> Option<Name> {
        name(self.syntax())
    }

    /// The parameter list; an agent may be written without one.
    fn param_list(&self) -> Option<ParamList> {
        child(self.syntax())
    }

    /// The parameters, in the order of the text.
    fn params(&self) -> Vec<Param> {
        self.param_list().map(|list| list.params().collect()).unwrap_or_default()
    }

    /// The type after `->`.
    fn result(&self) -> Option<TypeExpr> {
        child::<ResultType>(self.syntax()).and_then(|result| child(&result.0))
    }

    /// The doc comment before it.
    fn docs(&self) -> Option<String> {
        docs(self.syntax())
    }

    /// Its decorators.
    fn decorators(&self) -> Vec<Decorator> {
        children(self.syntax()).collect()
    }

    /// The grants of its `uses` clauses.
    fn grants(&self) -> Vec<Grant> {
        children::<UsesClause>(self.syntax()).flat_map(|clause| children::<Grant>(&clause.0)).collect()
    }

    /// The types of its `implements` clauses.
    fn implemented(&self) -> Vec<TypeExpr> {
        children::<ImplementsClause>(self.syntax()).filter_map(|clause| child(&clause.0)).collect()
    }

    /// The conditions of its `requires` clauses.
    fn requires(&self) -> Vec<Expr> {
        children::<RequiresClause>(self.syntax()).filter_map(|clause| child(&clause.0)).collect()
    }

    /// The conditions of its `ensures` clauses.
    fn ensures(&self) -> Vec<Expr> {
        children::<EnsuresClause>(self.syntax()).filter_map(|clause| child(&clause.0)).collect()
    }
}

impl Signature for FnDecl {}
impl Signature for ToolDecl {}
impl Signature for AgentDecl {}
impl Signature for FlowDecl {}

impl FnDecl {
    /// The expression after `=>`.
    #[must_use]
    pub fn expression(&self) -> Option<Expr> {
        child(&self.0)
    }

    /// The block, if it has one instead.
    #[must_use]
    pub fn body(&self) -> Option<Block> {
        child(&self.0)
    }
}

impl ToolDecl {
    /// Its properties, in the order of the text.
    pub fn properties(&self) -> impl Iterator<Item = Property> + use<> {
        child::<PropertyList>(&self.0).into_iter().flat_map(|list| children(&list.0))
    }
}

impl AgentDecl {
    /// Its properties, in the order of the text.
    pub fn properties(&self) -> impl Iterator<Item = Property> + use<> {
        child::<PropertyList>(&self.0).into_iter().flat_map(|list| children(&list.0))
    }
}

impl FlowDecl {
    /// The block.
    #[must_use]
    pub fn body(&self) -> Option<Block> {
        child(&self.0)
    }

    /// The record of its `budget` clause.
    #[must_use]
    pub fn budget(&self) -> Option<RecordExpr> {
        child::<BudgetClause>(&self.0).and_then(|clause| child(&clause.0))
    }

    /// The record of its `schedule` clause.
    #[must_use]
    pub fn schedule(&self) -> Option<RecordExpr> {
        child::<ScheduleClause>(&self.0).and_then(|clause| child(&clause.0))
    }
}

impl TestDecl {
    /// The name of the test.
    #[must_use]
    pub fn title(&self) -> Option<StringExpr> {
        child(&self.0)
    }

    /// The block.
    #[must_use]
    pub fn body(&self) -> Option<Block> {
        child(&self.0)
    }
}

impl Decorator {
    /// The name after `@`.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        name(&self.0)
    }

    /// Its arguments.
    #[must_use]
    pub fn args(&self) -> Vec<super::Arg> {
        child::<super::ArgList>(&self.0).map(|list| list.args().collect()).unwrap_or_default()
    }
}

impl ParamList {
    /// The parameters, in the order of the text.
    pub fn params(&self) -> impl Iterator<Item = Param> + use<> {
        children(&self.0)
    }
}

impl Param {
    /// The name of a declared parameter, or of a lambda's parameter that is a plain name.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        name(&self.0)
    }

    /// The pattern of a lambda's parameter that is not a plain name, such as `(a, b)`.
    #[must_use]
    pub fn pattern(&self) -> Option<Pattern> {
        child(&self.0)
    }

    /// Its type.
    #[must_use]
    pub fn ty(&self) -> Option<TypeExpr> {
        child(&self.0)
    }

    /// The value it has when a call leaves it out.
    #[must_use]
    pub fn default(&self) -> Option<Expr> {
        child(&self.0)
    }

    /// The doc comment before it.
    #[must_use]
    pub fn docs(&self) -> Option<String> {
        docs(&self.0)
    }
}

impl Grant {
    /// The words of the path: `std`, `fs` for `std.fs(…)`.
    #[must_use]
    pub fn path(&self) -> Vec<Name> {
        names(&self.0).collect()
    }

    /// The limits given with it.
    #[must_use]
    pub fn args(&self) -> Vec<super::Arg> {
        child::<super::ArgList>(&self.0).map(|list| list.args().collect()).unwrap_or_default()
    }
}

impl Property {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        name(&self.0)
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> Option<Expr> {
        nth_child(&self.0, 0)
    }

    /// The colon between them.
    #[must_use]
    pub fn colon(&self) -> Option<SyntaxToken> {
        token(&self.0, SyntaxKind::Colon)
    }
}
