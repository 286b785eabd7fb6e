//! What the typed tree says about literals, texts, docs and the forms of statements.

use nexa_lang::{
    FileId, Source,
    ast::{self, AstNode, Body, Expr, ForBinding, LiteralValue, PipeOp, PipeTarget, Signature, Stmt, StringPart},
    parse,
};

fn file(text: &str) -> ast::SourceFile {
    let source = Source::from_text(FileId(0), "main.nx", text).expect("a test program is small");
    let parse = parse(&source);
    assert!(parse.diagnostics().is_empty(), "{:?}", parse.diagnostics());
    parse.tree()
}

fn find<N: AstNode>(text: &str) -> N {
    let program = format!("flow f() {{\n{text}\n}}");
    file(&program).syntax().descendants().find_map(N::cast).expect("the text holds such a node")
}

fn value(literal: &str) -> Option<LiteralValue> {
    find::<ast::LiteralExpr>(&format!("x = {literal}")).value()
}

#[test]
fn literals_have_their_values() {
    assert_eq!(value("1_000"), Some(LiteralValue::Int(1_000)));
    assert_eq!(value("0xff"), Some(LiteralValue::Int(255)));
    assert_eq!(value("1.5e-3"), Some(LiteralValue::Float(1.5e-3)));
    assert_eq!(value("2h"), Some(LiteralValue::Duration(7_200_000)));
    assert_eq!(value("8MiB"), Some(LiteralValue::Size(8 * 1024 * 1024)));
    assert_eq!(value("true"), Some(LiteralValue::Bool(true)));
    assert_eq!(value("none"), Some(LiteralValue::None));
    assert_eq!(value(r#"r"\d#{x}""#), Some(LiteralValue::Str(r"\d#{x}".to_owned())));
    assert_eq!(find::<ast::PrefixExpr>("x = -9223372036854775808").negative_int(), Some(i64::MIN));
}

#[test]
fn a_text_is_its_parts_with_escapes_decoded() {
    let text: ast::StringExpr = find(r#"x = "a\n\#{b} #{c}\u{1F600}""#);
    let parts: Vec<String> = text
        .parts()
        .into_iter()
        .map(|part| match part {
            StringPart::Text(text) => text,
            StringPart::Interpolation(inner) => {
                inner.expr().expect("it holds an expression").syntax().text().to_string()
            }
        })
        .collect();
    assert_eq!(parts, ["a\n#{b} ", "c", "\u{1F600}"]);
    assert_eq!(text.plain(), None);
    assert_eq!(find::<ast::StringExpr>("x = \"\"").plain().as_deref(), Some(""));
}

#[test]
fn a_text_block_loses_the_indentation_of_its_closing_quotes() {
    let text: ast::StringExpr = find("x = \"\"\"\n    one\n      \"two\"\n\n    three\n    \"\"\"");
    assert_eq!(text.plain().as_deref(), Some("one\n  \"two\"\n\nthree"));
    assert_eq!(find::<ast::StringExpr>("x = \"\"\"\r\n    one\r\n    \"\"\"").plain().as_deref(), Some("one"));
}

#[test]
fn names_are_compared_in_their_composed_form() {
    let composed: ast::NameRef = find("caf\u{e9}");
    let decomposed: ast::NameRef = find("cafe\u{301}");
    assert_eq!(composed.name().map(|name| name.text()), decomposed.name().map(|name| name.text()));
}

#[test]
fn docs_belong_to_what_follows_them() {
    let file = file(
        "//! The file.\n\n/// An agent.\n/// In two lines.\n// aside\n@id(\"a\")\nagent A { prompt: \"p\" }\nprotocol P {\n  /// A field.\n  a: str,\n  b: int\n}",
    );
    assert_eq!(file.docs().as_deref(), Some("The file."));
    let declarations: Vec<ast::Decl> = file.declarations().collect();
    assert_eq!(declarations[0].docs().as_deref(), Some("An agent.\nIn two lines."));
    let ast::Decl::ProtocolDecl(protocol) = &declarations[1] else { panic!("the second is a protocol") };
    assert_eq!(protocol.docs(), None);
    assert_eq!(protocol.fields().map(|field| field.docs()).collect::<Vec<_>>(), [Some("A field.".to_owned()), None]);
}

#[test]
fn a_signature_gives_its_clauses() {
    let file = file(
        "flow f(a: int, b: str = \"x\") -> str uses t, std.fs(paths: []) requires a > 0 ensures result.len() > 0 budget { calls: 2 } { }",
    );
    let Some(ast::Decl::FlowDecl(flow)) = file.declarations().next() else { panic!("it is a flow") };
    assert_eq!(flow.params().iter().map(|param| param.default().is_some()).collect::<Vec<_>>(), [false, true]);
    assert_eq!(flow.result().map(|ty| ty.syntax().text().to_string()).as_deref(), Some("str"));
    let grants: Vec<usize> = flow.grants().iter().map(|grant| grant.path().len()).collect();
    assert_eq!(grants, [1, 2]);
    assert_eq!((flow.requires().len(), flow.ensures().len()), (1, 1));
    assert_eq!(flow.budget().map(|budget| budget.fields().count()), Some(1));
}

#[test]
fn the_three_forms_of_for_are_told_apart() {
    assert!(matches!(find::<ast::ForStmt>("for each x in xs { }").binding(), Some(ForBinding::Item(_))));
    assert!(matches!(find::<ast::ForStmt>("for each i, x in xs { }").binding(), Some(ForBinding::IndexedItem(..))));
    assert!(matches!(find::<ast::ForStmt>("for (k, v) in xs { }").binding(), Some(ForBinding::Entry(..))));
}

#[test]
fn a_pipeline_gives_its_operator_branches_and_merge() {
    let fork: ast::PipeExpr = find("x |>> [A, b: B] merge vote(min_ok: 2)");
    assert_eq!(fork.op().map(|(op, _)| op), Some(PipeOp::Fork));
    let Some(PipeTarget::Branches(branches)) = fork.target() else { panic!("it forks") };
    assert_eq!(
        branches.branches().map(|branch| branch.name().map(|name| name.text())).collect::<Vec<_>>(),
        [None, Some("b".to_owned())]
    );
    assert_eq!(fork.merge().and_then(|merge| merge.strategy()).map(|name| name.text()).as_deref(), Some("vote"));
    let run: ast::PipeExpr = find("x >> A(n: 1)");
    assert!(matches!(run.target(), Some(PipeTarget::Stage(Expr::CallExpr(_)))));
}

#[test]
fn bodies_and_arms_say_what_they_are() {
    let choice: ast::IfExpr = find("x = if (a) b else { c }");
    assert!(matches!((choice.then_body(), choice.else_body()), (Some(Body::Expr(_)), Some(Body::Block(_)))));
    let arms = find::<ast::MatchExpr>("match a { ok(x) if (x > 1) => x\n _ => return }").arms();
    assert!(arms[0].guard().is_some() && matches!(arms[0].body(), Some(Body::Expr(_))));
    assert!(matches!(arms[1].body(), Some(Body::Stmt(Stmt::ReturnStmt(_)))));
    let table = find::<ast::BranchExpr>("a ?> { \"is late\" => A, _ => _ }").table().expect("it is a table");
    assert!(matches!(table[1].condition(), Some(Expr::PlaceholderExpr(_))));
    let short: ast::BranchExpr = find("a ?> it > 1 => A : B(1)");
    assert!(short.condition().is_some() && short.then_stage().is_some() && short.else_stage().is_some());
}

#[test]
fn a_try_takes_all_that_stands_to_its_right() {
    let Some(Expr::RescueExpr(rescue)) = find::<ast::TryExpr>("x = try a() otherwise b").operand() else {
        panic!("it holds the rescue")
    };
    assert!(rescue.left().is_some() && rescue.right().is_some());
}
