//! `test "…" { … }`: the body of a test, what it scripts, and what it asks about the run.
//!
//! A test is a function that only test builds keep. Each `script` becomes one question to the harness that runs the
//! test, and so does each helper. Turns travel as plain values, see [`Checker::turns`]; the harness reads them.

use std::collections::BTreeMap;

use nexa_event::effect::TestCall;

use super::Checker;
use super::modules::Item;
use super::places::Place;
use super::scope::{Frame, FrameKind};
use super::std_tools;
use crate::ast::{self, AstNode, Decl, Name};
use crate::diagnostic::Code;
use crate::hir::{self, Const, Expr, ExprKind, Stmt, StmtKind};
use crate::source::Span;
use crate::types::Ty;

/// The helpers of a test, what they ask, and what they give.
const HELPERS: &[(&str, TestCall)] = &[
    ("calls", TestCall::Calls),
    ("inputs", TestCall::Inputs),
    ("asks", TestCall::Asks),
    ("models", TestCall::Models),
    ("events", TestCall::Events),
    ("clock", TestCall::Clock),
];

/// Targets of a `script` that are no declarations: the kind of request that they answer.
const WORDS: &[&str] = &["intent", "judge", "approve", "reflect"];

/// The helper of a test with this name.
pub(super) fn helper(name: &str) -> Option<TestCall> {
    HELPERS.iter().find(|(known, _)| *known == name).map(|(_, call)| *call)
}

impl Checker<'_> {
    /// Checks the tests of every file; each becomes a function.
    pub(super) fn check_tests(&mut self) -> Vec<hir::TestEntry> {
        let mut tests = Vec::new();
        for file in self.files {
            self.file = file.id;
            let mut names: BTreeMap<String, Span> = BTreeMap::new();
            for decl in file.tree.declarations() {
                let Decl::TestDecl(node) = decl else { continue };
                let (Some(title), Some(body)) = (node.title(), node.body()) else { continue };
                let Some(name) = title.plain() else {
                    let open = self.finding(Code::E0404, title.span(), "the name of a test is a plain text");
                    self.report(open.help("write it without `#{…}`"));
                    continue;
                };
                if let Some(first) = names.get(&name) {
                    let twice = self.finding(Code::E0207, title.span(), format!("two tests are called \"{name}\""));
                    self.report(twice.label(*first, "this is the first").help("give one of them another name"));
                } else {
                    names.insert(name.clone(), title.span());
                }
                let function = self.check_test(&name, &node, &body);
                tests.push(hir::TestEntry { name, function, at: self.at(&node) });
            }
        }
        tests
    }

    fn check_test(&mut self, name: &str, node: &ast::TestDecl, body: &ast::Block) -> u32 {
        self.in_test = true;
        // Scripted models cost nothing, so loops that ask them need no bound here.
        let bounded = std::mem::replace(&mut self.has_budget, true);
        self.frames.push(Frame::new(format!("test \"{name}\""), FrameKind::Flow, Some((Ty::Unit, body.span()))));
        let (body, _) = self.block(body);
        let frame = self.frames.pop();
        self.has_budget = bounded;
        self.in_test = false;
        let number = self.functions.len() as u32;
        self.functions.push(hir::Function {
            name: format!("test \"{name}\""),
            locals: frame.map_or(0, |frame| frame.locals),
            body,
            is_test: true,
            at: self.at(node),
            ..hir::Function::default()
        });
        number
    }

    /// `script TARGET => turns`
    pub(super) fn script_statement(&mut self, node: &ast::ScriptStmt, out: &mut Vec<Stmt>) -> bool {
        let at = self.at(node);
        if !self.in_test {
            let word = Span::new(at.start, at.start + "script".len() as u32);
            let lost = self.finding(Code::E0201, word, "`script` stands outside of a test");
            self.report(lost.help("put it into a `test \"…\" { … }`"));
            return false;
        }
        let target = self.target(node);
        let turns = node.turns().map(|turns| self.turns(&turns));
        if let (Some((kind, name)), Some(turns)) = (target, turns) {
            let args = vec![Expr::text(kind, at), Expr::text(&name, at), turns];
            let value = Expr::new(ExprKind::TestCall(TestCall::Script, args), Ty::Unit, at);
            out.push(Stmt { kind: StmtKind::Expr(value), at });
        }
        false
    }

    /// Whose requests a `script` answers: the kind, and a name or question.
    fn target(&mut self, node: &ast::ScriptStmt) -> Option<(&'static str, String)> {
        let path = node.target();
        if let [module, name] = path.as_slice() {
            let Some(Item::Module(place)) = self.item(&module.text()).map(|known| known.item) else {
                let wrong = self.finding(Code::E0208, module.span(), format!("`{}` is no file here", module.text()));
                self.report(wrong.help("import it under this name: `use \"…\" as name`"));
                return None;
            };
            let item = self.item_of_module(place, name);
            return self.scriptable(item, name);
        }
        if path.len() > 2 {
            let name = path.iter().map(Name::text).collect::<Vec<_>>().join(".");
            if std_tools::is_known(&name) {
                return Some(("tool", name));
            }
            let wrong = self.finding(Code::E0208, node.span(), format!("`{name}` is no tool of the language"));
            let wrong = self.suggest(wrong, &name, std_tools::names());
            self.report(wrong.help("a `script` names an agent or a tool"));
            return None;
        }
        let name = path.into_iter().next()?;
        let text = name.text();
        if let Some(question) = node.question() {
            let Some(plain) = question.plain() else {
                let open = self.finding(Code::E0404, question.span(), "a scripted question is a plain text");
                self.report(open.help("write it without `#{…}`, exactly as the program has it"));
                return None;
            };
            if text != "semantic" {
                let message = format!("`script {text}` takes no question");
                let wrong = self.finding(Code::E0201, question.span(), message);
                let wrong = self.suggest(wrong, &text, ["semantic"]);
                self.report(wrong.help(format!("write `script {text} => …`, or `script semantic \"…\" => …`")));
                return None;
            }
            return Some(("semantic", plain));
        }
        if let Some(known) = self.item(&text) {
            return self.scriptable(known.item, &name);
        }
        match WORDS.iter().find(|word| **word == text) {
            Some(word) => Some((word, String::new())),
            None if self.is_clone(&text) => Some(("agent", text)),
            None if text == "semantic" => {
                let lacks = self.finding(Code::E0201, name.span(), "`script semantic` needs the question");
                self.report(lacks.help("write `script semantic \"is it polite\" => …`"));
                None
            }
            None => {
                self.unknown_name(&name);
                None
            }
        }
    }

    /// Whether an agent that is a clone was given this name, in a flow or further up in the test.
    fn is_clone(&self, name: &str) -> bool {
        self.agents.iter().any(|agent| agent.checked.name == name)
    }

    /// The kind and the declared name of something that calls can be counted of.
    fn scriptable(&mut self, item: Item, name: &Name) -> Option<(&'static str, String)> {
        match item {
            Item::Agent(number) => Some(("agent", self.agents[number].signature.name.to_string())),
            Item::Tool(number) => Some(("tool", self.tools[number].signature.name.to_string())),
            Item::Reported => None,
            _ => {
                let message = format!("`{}` is neither an agent nor a tool", name.text());
                let wrong = self.finding(Code::E0208, name.span(), message);
                self.report(wrong.help("flows and functions run as they are; script what they call"));
                None
            }
        }
    }

    /// Turns as a value: `["every", turn]`, `["each", [turn, …]]`, or `["given", value]` if only the run knows whether
    /// it is a list. A turn is `["say", value]`, `["fail", code]`, `["after", duration, turn]`,
    /// `["call", [[tool, arguments], …]]` or `["decide", approved, by, note]`.
    fn turns(&mut self, node: &ast::Expr) -> Expr {
        let at = self.at(node);
        if let ast::Expr::ListExpr(list) = node {
            let turns = list.items().map(|item| self.turn(&item)).collect();
            return tagged("each", vec![any_list(turns, at)], at);
        }
        if self.special(node).is_some() {
            let turn = self.turn(node);
            return tagged("every", vec![turn], at);
        }
        let value = self.expr(node, None);
        match &value.ty {
            Ty::List(_) | Ty::Any => tagged("given", vec![value], at),
            _ => tagged("every", vec![tagged("say", vec![value], at)], at),
        }
    }

    fn turn(&mut self, node: &ast::Expr) -> Expr {
        let at = self.at(node);
        if let ast::Expr::ListExpr(list) = node {
            let calls: Vec<ast::CallExpr> =
                list.items().filter_map(|item| self.special(&item)).filter(|call| word_of(call) == "call").collect();
            if !calls.is_empty() && calls.len() == list.items().count() {
                let calls = calls.iter().map(|call| self.tool_call(call)).collect();
                return tagged("call", vec![any_list(calls, at)], at);
            }
        }
        let Some(call) = self.special(node) else {
            let value = self.expr(node, None);
            return tagged("say", vec![value], at);
        };
        let args = call.args();
        let positional = |place: usize| args.get(place).filter(|arg| arg.name().is_none()).and_then(ast::Arg::value);
        match (word_of(&call).as_str(), args.len()) {
            ("fail", 1) => match positional(0) {
                Some(code) => {
                    let span = code.span();
                    let code = self.expect(&code, &Ty::Str, Place::Argument("code", "fail", None));
                    self.check_code(&code, span);
                    tagged("fail", vec![code], at)
                }
                None => self.bad_turn(node.span(), "`fail(\"code\")`"),
            },
            ("after", 2) => match (positional(0), positional(1)) {
                (Some(span), Some(turn)) => {
                    let span = self.expect(&span, &Ty::Duration, Place::Argument("delay", "after", None));
                    let turn = self.turn(&turn);
                    tagged("after", vec![span, turn], at)
                }
                _ => self.bad_turn(node.span(), "`after(200ms, turn)`"),
            },
            ("call", _) => {
                let call = self.tool_call(&call);
                tagged("call", vec![any_list(vec![call], at)], at)
            }
            ("fail", _) => self.bad_turn(node.span(), "`fail(\"code\")`"),
            ("after", _) => self.bad_turn(node.span(), "`after(200ms, turn)`"),
            (word, _) => self.scripted_decision(word == "approved", &call),
        }
    }

    /// `call(tool, { arguments })`
    fn tool_call(&mut self, node: &ast::CallExpr) -> Expr {
        let at = self.at(node);
        let args = node.args();
        let [tool, given @ ..] = args.as_slice() else { return self.bad_turn(node.span(), "`call(tool, { … })`") };
        let Some(tool) = tool.value() else { return self.broken(node.span()) };
        let name: String = tool.syntax().text().to_string().split_whitespace().collect();
        let name = super::grants::wire_name(&name);
        // Marks an import as used. A tool that is not declared may be asked for: models do that.
        self.static_item(&tool);
        let arguments = match given {
            [] => Expr::new(ExprKind::Dict(Vec::new()), Ty::Any, at),
            [one] => match one.value() {
                Some(value) => self.expr(&value, None),
                None => self.broken(node.span()),
            },
            _ => return self.bad_turn(node.span(), "`call(tool, { … })`"),
        };
        any_list(vec![Expr::text(&name, at), arguments], at)
    }

    /// `approved(by: …, note: …)`, `denied(…)`
    fn scripted_decision(&mut self, approved: bool, node: &ast::CallExpr) -> Expr {
        let at = self.at(node);
        let (mut by, mut note) = (Expr::text("", at), Expr::text("", at));
        for (place, arg) in node.args().iter().enumerate() {
            let Some(value) = arg.value() else { continue };
            let name =
                arg.name().map_or(["by", "note"].get(place).copied().unwrap_or_default().to_owned(), |n| n.text());
            let (slot, label) = match name.as_str() {
                "by" => (&mut by, "by"),
                "note" => (&mut note, "note"),
                _ => return self.bad_turn(node.span(), "`approved(by: \"…\", note: \"…\")`"),
            };
            *slot = self.expect(&value, &Ty::Str, Place::Argument(label, "the decision", None));
        }
        tagged("decide", vec![Expr::constant(Const::Bool(approved), at), by, note], at)
    }

    /// A call that means a turn and not what it means elsewhere.
    fn special(&self, node: &ast::Expr) -> Option<ast::CallExpr> {
        let ast::Expr::CallExpr(call) = node else { return None };
        let word = word_of(call);
        let is_turn = matches!(word.as_str(), "fail" | "call" | "after" | "approved" | "denied");
        (is_turn && !self.is_variable(&word)).then(|| call.clone())
    }

    fn bad_turn(&mut self, span: Span, form: &str) -> Expr {
        let wrong = self.finding(Code::E0304, span, format!("this turn is written {form}"));
        self.refuse(wrong)
    }

    /// `calls()`, `inputs(A)` and their like.
    pub(super) fn test_helper(&mut self, call: TestCall, name: &Name, args: &[ast::Arg], span: Span) -> Expr {
        let at = self.at_span(span);
        let word = name.text();
        let wanted = usize::from(call.arity());
        if args.len() != wanted {
            self.look_at(args);
            let form =
                if wanted == 0 { format!("`{word}()`") } else { format!("`{word}(A)` with the name of an agent") };
            let wrong = self.finding(Code::E0304, span, format!("this helper is written {form}"));
            return self.refuse(wrong);
        }
        let mut values = Vec::new();
        for value in args.iter().filter_map(ast::Arg::value) {
            if let ast::Expr::NameRef(reference) = &value
                && let Some(name) = reference.name().map(|name| name.text())
                && self.item(&name).is_none()
                && self.is_clone(&name)
            {
                values.push(Expr::text(&name, at));
                continue;
            }
            let written: String = value.syntax().text().to_string().split_whitespace().collect();
            if std_tools::is_known(&written) {
                values.push(Expr::text(&written, at));
                continue;
            }
            if let Some(unknown) = self.unknown_item(&value) {
                return unknown;
            }
            let Some((item, named)) = self.static_item(&value) else {
                let wrong =
                    self.finding(Code::E0208, value.span(), format!("`{word}` takes the name of an agent or tool"));
                return self.refuse(wrong);
            };
            let Some((_, declared)) = self.scriptable(item, &named) else { return self.broken(span) };
            values.push(Expr::text(&declared, at));
        }
        let ty = match call {
            TestCall::Script => Ty::Unit,
            TestCall::Calls | TestCall::Asks | TestCall::Models => Ty::list(Ty::Str),
            TestCall::Inputs | TestCall::Events => Ty::list(Ty::Any),
            TestCall::Clock => Ty::Duration,
        };
        Expr::new(ExprKind::TestCall(call, values), ty, at)
    }
}

fn word_of(call: &ast::CallExpr) -> String {
    match call.callee() {
        Some(ast::Expr::NameRef(reference)) => reference.name().map(|name| name.text()).unwrap_or_default(),
        _ => String::new(),
    }
}

fn any_list(items: Vec<Expr>, at: hir::At) -> Expr {
    Expr::new(ExprKind::List(items), Ty::list(Ty::Any), at)
}

/// A list that says what the rest of it means.
fn tagged(tag: &str, rest: Vec<Expr>, at: hir::At) -> Expr {
    any_list(std::iter::once(Expr::text(tag, at)).chain(rest).collect(), at)
}
