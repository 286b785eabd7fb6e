//! Names of the earlier dialect: `null`, and `join(A, B).C(x)`. Each is one E0902 with the fix that writes it anew, where
//! nothing of the program has the name.

use super::Checker;
use crate::ast::Name;
use crate::diagnostic::{Code, Diagnostic, Edit};
use crate::source::Span;
use crate::{SyntaxKind, SyntaxNode};

impl Checker<'_> {
    /// What an unknown name was in the earlier dialect.
    pub(super) fn older_name(&self, name: &Name) -> Option<Diagnostic> {
        match name.text().as_str() {
            "null" => {
                let edit = Edit::replace(name.span(), "none");
                let older = self.finding(Code::E0902, name.span(), "`null` is an older form");
                Some(older.help("write `none`").fix("write `none`", vec![edit]))
            }
            "join" => {
                let (whole, anew) = joined(name)?;
                let older = self.finding(Code::E0902, whole, "`join(…).C(x)` is an older form");
                let help = "write `x |>> [A, B] &>> C`";
                Some(older.help(help).fix(help, vec![Edit::replace(whole, anew)]))
            }
            _ => None,
        }
    }
}

/// `join(A, B).C(x)` around the name, and how it is written today.
fn joined(name: &Name) -> Option<(Span, String)> {
    let step = |node: &SyntaxNode, kind: SyntaxKind| node.parent().filter(|parent| parent.kind() == kind);
    let name_ref = name.token().parent()?;
    let call = step(&name_ref, SyntaxKind::CallExpr)?;
    let field = step(&call, SyntaxKind::FieldExpr)?;
    let outer = step(&field, SyntaxKind::CallExpr)?;
    let args = |call: &SyntaxNode| {
        let list = call.children().find(|child| child.kind() == SyntaxKind::ArgList)?;
        Some(list.children().map(|arg| arg.text().to_string()).collect::<Vec<_>>())
    };
    let (branches, input) = (args(&call)?, args(&outer)?);
    let merger = field.children_with_tokens().filter_map(rowan::NodeOrToken::into_token);
    let merger = merger.filter(|token| token.kind() == SyntaxKind::Ident).last()?;
    let [input] = input.as_slice() else { return None };
    let whole = Span::from(outer.text_range());
    Some((whole, format!("{input} |>> [{}] &>> {}", branches.join(", "), merger.text())))
}
