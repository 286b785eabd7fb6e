//! Helpers of the syntax tests: parse, print the tree in few lines, render what was found.

#![allow(dead_code, reason = "each test file uses its own part")]

use nexa_lang::{Diagnostic, FileId, Parse, Source, SyntaxNode, diagnostic, parse};

pub(crate) fn source(text: &str) -> Source {
    Source::from_text(FileId(0), "main.nx", text).expect("a test program is small")
}

/// Parses, and checks on the way what holds for every text.
pub(crate) fn parsed(text: &str) -> Parse {
    let parse = parse(&source(text));
    assert_eq!(parse.print(), text, "the tree prints back to the text");
    parse
}

/// The codes of the findings, in order.
pub(crate) fn codes(text: &str) -> Vec<&'static str> {
    parsed(text).diagnostics().iter().map(|diagnostic| diagnostic.code.name()).collect()
}

/// The findings as people see them.
pub(crate) fn rendered(text: &str) -> String {
    let source = source(text);
    let show = |found: &Diagnostic| diagnostic::render(found, |_| Some(&source), diagnostic::Colour::Off);
    parsed(text).diagnostics().iter().map(show).collect::<Vec<_>>().join("\n\n")
}

/// The tree: a node a line, with its tokens behind it.
pub(crate) fn tree(text: &str) -> String {
    let mut out = String::new();
    write_node(&parsed(text).syntax(), 0, &mut out);
    out
}

/// The statements of `flow f() { … }` around this text, as trees.
pub(crate) fn statements(text: &str) -> String {
    let program = format!("flow f() {{\n{text}\n}}");
    let parse = parsed(&program);
    assert!(parse.diagnostics().is_empty(), "{}", rendered(&program));
    let block = parse.syntax().first_child().and_then(|flow| flow.last_child()).expect("the flow has a block");
    let mut out = String::new();
    for statement in block.children() {
        write_node(&statement, 0, &mut out);
    }
    out
}

/// One expression with all its grouping shown as brackets.
pub(crate) fn grouped(expression: &str) -> String {
    let program = format!("flow f() {{ x = {expression} }}");
    let parse = parsed(&program);
    assert!(parse.diagnostics().is_empty(), "{}", rendered(&program));
    let assignment = parse
        .syntax()
        .descendants()
        .find(|node| format!("{:?}", node.kind()) == "AssignStmt")
        .expect("there is an assignment");
    group(&assignment.last_child().expect("it has a value"))
}

fn group(node: &SyntaxNode) -> String {
    let mut parts = Vec::new();
    for element in node.children_with_tokens() {
        match element {
            rowan::NodeOrToken::Node(child) => parts.push(group(&child)),
            rowan::NodeOrToken::Token(token) if token.kind().is_trivia() => {}
            rowan::NodeOrToken::Token(token) => parts.push(token.text().to_owned()),
        }
    }
    match parts.as_slice() {
        [only] => only.clone(),
        _ if format!("{:?}", node.kind()).ends_with("Expr") => format!("({})", parts.join(" ")),
        _ => parts.join(" "),
    }
}

fn write_node(node: &SyntaxNode, depth: usize, out: &mut String) {
    let tokens: Vec<String> = node
        .children_with_tokens()
        .filter_map(rowan::NodeOrToken::into_token)
        .filter(|token| !token.kind().is_trivia())
        .map(|token| token.text().to_owned())
        .collect();
    out.push_str(&format!("{}{:?} {}", "  ".repeat(depth), node.kind(), tokens.join(" ")));
    while out.ends_with(' ') {
        out.pop();
    }
    out.push('\n');
    for child in node.children() {
        write_node(&child, depth + 1, out);
    }
}
