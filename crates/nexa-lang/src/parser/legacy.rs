//! Forms of the language's earlier dialect: each is one E0901 or E0902 with the fix that writes it anew, and nothing
//! else. No form has a meaning: what it was is in the tree as [`SyntaxKind::Error`] or as the form that replaced it, and a
//! program with one yields no module.
//!
//! Recognised only where the text could mean nothing else, so that no program of today's language is read as an old one.

use rowan::Checkpoint;

use super::cursor::{Mode, Parser};
use crate::{
    SyntaxKind,
    diagnostic::{Code, Edit},
    lexer::texts,
    source::Span,
};

/// Decorators that became properties, and the properties.
const DECORATORS: [(&str, &str); 4] =
    [("limit", "budget"), ("timeout", "timeout"), ("retry", "retry"), ("temperature", "temperature")];

/// What a declaration has told so far that a fix may need.
#[derive(Default)]
pub(super) struct Declared {
    /// The decorators: name, whole, arguments.
    decorators: Vec<(Span, Span, Option<Span>)>,
    /// The properties: name, value.
    properties: Vec<(Span, Span)>,
    /// Where the signature ends that a result type can follow.
    pub(super) signature_end: u32,
    /// Whether there is a result type.
    pub(super) has_result: bool,
    /// The brace that opens the properties.
    pub(super) brace: Option<Span>,
    /// The `uses "f.md"` clause, and its text.
    skills: Option<(Span, Span)>,
    /// The `implements` of a declaration without a result type.
    implements: Option<Span>,
}

impl<'s> Parser<'s> {
    pub(super) fn slice(&self, span: Span) -> &'s str {
        self.source.text().get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// Reports an older form: E0902, or nothing if the statement has an error already.
    fn older(&mut self, span: Span, old: &str, new: &str, edits: Vec<Edit>) {
        self.report(Code::E0902, span, format!("{old} is an older form"), |diagnostic| {
            let diagnostic = diagnostic.help(format!("write {new}"));
            if edits.is_empty() { diagnostic } else { diagnostic.fix(format!("write {new}"), edits) }
        });
    }

    /// From a place up to the last token taken.
    fn since(&self, start: u32) -> Span {
        Span::new(start, self.previous_span().end)
    }

    /// `x ?? T : F`, from the colon on. A colon cannot follow `??` otherwise.
    pub(super) fn older_branch(&mut self, place: Checkpoint, start: u32, operator: Span, is_operand: bool) {
        if !self.wrap() {
            return;
        }
        self.start_at(place, SyntaxKind::Error);
        self.bump();
        self.stage();
        let whole = self.since(start);
        let mut edits = vec![Edit::replace(operator, "?> truthy(it) =>")];
        if is_operand {
            edits.insert(0, Edit::replace(Span::new(start, start), "("));
            edits.push(Edit::replace(Span::new(whole.end, whole.end), ")"));
        }
        self.report(Code::E0901, whole, "`a ?? b : c` is the older form of a branch", |diagnostic| {
            diagnostic
                .note("`??` gives a substitute for `none`, and nothing else")
                .help("write `a ?> truthy(it) => b : c`")
                .fix("write it with `?>`", edits)
        });
        self.finish();
    }

    /// Whether a table of branches begins so many tokens ahead: `{ "c" => …`.
    pub(super) fn at_older_table(&self, ahead: usize) -> bool {
        let is_arm = |at: usize| {
            self.nth(at) == SyntaxKind::StrOpen
                && self.nth(at + 1) == SyntaxKind::StrText
                && self.nth(at + 2) == SyntaxKind::StrClose
                && self.nth(at + 3) == SyntaxKind::FatArrow
        };
        self.nth(ahead) == SyntaxKind::BraceOpen && is_arm(ahead + 1)
    }

    /// `x ?? { "c" => a }`, from the brace on.
    pub(super) fn older_table(&mut self, start: u32, operator: Span) {
        let opener = self.span();
        self.arm_list(Parser::table_arm);
        let close = self.previous_span();
        let inside = self.slice(Span::new(opener.end, close.start));
        let has_rest = inside.contains("_ =>") || inside.contains("_=>");
        let mut edits = vec![Edit::replace(operator, "?>")];
        if !has_rest {
            let end = opener.end + inside.trim_end().len() as u32;
            edits.push(Edit::replace(Span::new(end, end), ", _ => fail(\"no_match\")"));
        }
        let whole = self.since(start);
        self.report(Code::E0901, whole, "`a ?? { … }` is the older form of a branch", |diagnostic| {
            diagnostic
                .note("`??` gives a substitute for `none`, and nothing else")
                .help("write `a ?> { …, _ => fail(\"no_match\") }`")
                .fix("write it with `?>`", edits)
        });
    }

    /// `k = v` for `k: v`, at the name.
    pub(super) fn older_name(&mut self, what: &str) {
        let name = self.span();
        self.bump();
        let equals = self.span();
        let edit = Edit::replace(Span::new(name.end, equals.end), ":");
        let shown = self.slice(name);
        self.older(equals, &format!("`=` {what}"), &format!("`{shown}: …`"), vec![edit]);
        self.bump();
    }

    /// The statements that begin with a word of the earlier dialect; `false` if none does here.
    pub(super) fn older_statement(&mut self) -> bool {
        match (self.text(0), self.nth(1)) {
            ("reflect", SyntaxKind::StrOpen) => self.older_reflect(),
            ("restore", SyntaxKind::ParenOpen) => self.maybe_older_restore(),
            ("try_agent", SyntaxKind::BraceOpen) => self.older_try(),
            ("autoloop", SyntaxKind::Ident) if self.nth(2) == SyntaxKind::Colon => self.older_loop(),
            _ => return false,
        }
        true
    }

    /// `reflect "q"`.
    fn older_reflect(&mut self) {
        let word = self.span();
        self.start(SyntaxKind::Error);
        self.bump();
        let text = self.span();
        self.expect_string();
        let whole = self.since(word.start);
        let edits = vec![
            Edit::replace(Span::new(word.end, text.start), "("),
            Edit::replace(Span::new(whole.end, whole.end), ")"),
        ];
        self.older(whole, "`reflect` with a bare question", "`reflect(\"…\")`", edits);
        self.finish();
    }

    /// `restore(s)`, or `restore(s) if c`.
    fn maybe_older_restore(&mut self) {
        let place = self.checkpoint();
        let start = self.span().start;
        self.expr();
        if !self.at(SyntaxKind::IfKw) || self.follows_newline() {
            self.start_at(place, SyntaxKind::ExprStmt);
            return self.finish();
        }
        let call = self.since(start);
        self.start_at(place, SyntaxKind::Error);
        self.bump();
        let condition = self.span().start;
        self.expr();
        let condition = self.slice(self.since(condition));
        let anew = format!("if ({condition}) {{ {} }}", self.slice(call));
        let whole = self.since(start);
        self.older(whole, "a condition behind `restore`", "`if (c) { restore(s) }`", vec![Edit::replace(whole, anew)]);
        self.finish();
    }

    /// `try_agent { … } catch_correction (e) { … }`.
    fn older_try(&mut self) {
        let word = self.span();
        self.start(SyntaxKind::Error);
        self.bump();
        let mut edits = vec![Edit::replace(word, "try")];
        self.block();
        if self.at_word("catch_correction") || self.at(SyntaxKind::CatchKw) {
            edits.push(Edit::replace(self.span(), "catch"));
            self.bump();
            let opener = self.span();
            if self.expect(SyntaxKind::ParenOpen) {
                self.name("the name of the error");
                self.close_or_skip(SyntaxKind::ParenClose, opener);
            }
            self.block();
        }
        self.older(word, "`try_agent`", "`try { … } catch (e) { … }`", edits);
        self.finish();
    }

    /// `autoloop max_steps: n, exit_when: "c", timeout: t { … }`.
    fn older_loop(&mut self) {
        let word = self.span();
        self.start(SyntaxKind::Error);
        self.bump();
        let mut options = Vec::new();
        let mut until = None;
        self.within(super::statements::HEAD, |parser| {
            while parser.at(SyntaxKind::Ident) && parser.nth(1) == SyntaxKind::Colon {
                let name = parser.text(0);
                parser.bump();
                parser.bump();
                let start = parser.span().start;
                parser.expr();
                let value = parser.slice(parser.since(start));
                match name {
                    "exit_when" => until = Some(value),
                    "max_steps" => options.push(format!("max: {value}")),
                    name => options.push(format!("{name}: {value}")),
                }
                parser.eat(SyntaxKind::Comma);
            }
        });
        let head = self.since(word.start);
        self.block();
        let end = self.previous_span().end;
        let until = until.unwrap_or("false");
        let edits = vec![
            Edit::replace(head, format!("loop ({})", options.join(", "))),
            Edit::replace(Span::new(end, end), format!(" until ({until})")),
        ];
        self.older(word, "`autoloop`", "`loop (max: n) { … } until (\"c\")`", edits);
        self.finish();
    }

    /// `let x = receive(): T`, at the colon.
    pub(super) fn older_receive(&mut self, pattern: Span, value: Span) {
        if !self.at(SyntaxKind::Colon) || !self.slice(value).starts_with("receive(") {
            return;
        }
        self.start(SyntaxKind::Error);
        let colon = self.span();
        self.bump();
        let start = self.span().start;
        self.ty();
        let ty = self.slice(self.since(start));
        let edits = vec![
            Edit::replace(Span::new(pattern.end, pattern.end), format!(": {ty}")),
            Edit::replace(Span::new(value.end, self.since(start).end), ""),
        ];
        self.older(colon, "a type behind `receive()`", "`let x: T = receive()`", edits);
        self.finish();
    }

    /// `fast_match: "re"`, at the colon.
    pub(super) fn older_pattern(&mut self) {
        let colon = self.span();
        self.start(SyntaxKind::Error);
        self.bump();
        self.finish();
        if !self.at(SyntaxKind::StrOpen) || self.nth(2) != SyntaxKind::StrClose {
            return self.older(colon, "`:` after `fast_match`", "`fast_match r\"…\"`", Vec::new());
        }
        let start = self.span().start;
        let before = colon.start;
        let mut pattern = String::new();
        texts::unescape(self.text(1), &mut pattern, |_, _| {});
        let is_raw = !pattern.contains('"');
        self.expr();
        let text = self.since(start);
        let edits = if is_raw {
            vec![Edit::replace(Span::new(before, text.end), format!(" r\"{pattern}\""))]
        } else {
            vec![Edit::replace(colon, "")]
        };
        self.older(colon, "`:` after `fast_match`", "`fast_match r\"…\"`", edits);
    }

    /// `"T"` where a type is expected.
    pub(super) fn older_type(&mut self) {
        let start = self.span().start;
        let name = self.text(1);
        self.start(SyntaxKind::Error);
        self.expect_string();
        let whole = self.since(start);
        let ty = today_type(name);
        self.older(whole, "a type in quotes", &format!("`{ty}`"), vec![Edit::replace(whole, ty)]);
        self.finish();
    }

    /// `include "f.nx"` and `use config X`; `false` if neither stands here.
    pub(super) fn older_import(&mut self) -> bool {
        let word = self.span();
        let is_include = self.at_word("include") && self.nth(1) == SyntaxKind::StrOpen;
        let is_config = self.at_word("use") && self.text(1) == "config" && self.nth(2) == SyntaxKind::Ident;
        if !is_include && !is_config {
            return false;
        }
        self.start(SyntaxKind::Error);
        self.bump();
        if is_include {
            self.expect_string();
            self.older(word, "`include`", "`use \"f.nx\"`", vec![Edit::replace(word, "use")]);
        } else {
            self.bump();
            self.bump();
            let whole = self.since(word.start);
            let end = if self.at(SyntaxKind::Semicolon) { self.span().end } else { whole.end };
            let edits = vec![Edit::replace(Span::new(word.start, end), "")];
            self.older(whole, "`use config`", "nothing: settings stand in `nexa.toml`", edits);
        }
        self.finish();
        true
    }

    // Declarations. What they say is collected while they are read; a fix may touch several places of one.

    pub(super) fn tell_decorator(&mut self, whole: Span, name: Span, args: Option<Span>) {
        self.declared.decorators.push((name, whole, args));
    }

    pub(super) fn tell_property(&mut self, name: Span, value: Span) {
        self.declared.properties.push((name, value));
        let (text, shown) = (self.slice(name), self.slice(value));
        let whole = Span::new(name.start, value.end);
        let anew = match text {
            "max_history_turns" => "memory: {}".to_owned(),
            "experience" => format!("memory: {{ seed: {shown} }}"),
            "tool_call_strategy" => format!("tool_choice: {shown}"),
            "memory" if shown == "\"session\"" => "memory: { scope: \"agent\" }".to_owned(),
            "memory" if shown == "\"persistent\"" => "memory: { scope: \"tenant\" }".to_owned(),
            "python" => {
                return self.report(Code::E0903, name, "a tool in Python is refused", |diagnostic| {
                    diagnostic.help(super::recovery::SANDBOXED)
                });
            }
            "hooks" | "on_start" | "on_end" | "on_error" | "before_call" | "after_call" => {
                return self.report(Code::E0906, name, format!("the hook `{text}` is not supported"), |diagnostic| {
                    diagnostic
                        .help("call what it does in a flow around the agent, or say it with `requires` and `ensures`")
                });
            }
            "output_schema" | "output_format" => {
                let end = self.declared.signature_end;
                let mut edits = vec![Edit::replace(self.with_separator(whole), "")];
                if !self.declared.has_result {
                    let ty = shown.trim_matches('"');
                    edits.insert(0, Edit::replace(Span::new(end, end), format!(" -> {ty}")));
                }
                return self.older(name, &format!("`{text}`"), "the result type behind `->`", edits);
            }
            _ => return,
        };
        self.older(name, &format!("`{text}`"), &format!("`{anew}`"), vec![Edit::replace(whole, anew)]);
    }

    /// A property and the separator behind it.
    fn with_separator(&self, whole: Span) -> Span {
        let is_separated = matches!(self.current(), SyntaxKind::Comma | SyntaxKind::Semicolon);
        if is_separated { whole.to(self.span()) } else { whole }
    }

    /// `context { … }` without its colon, at the brace.
    pub(super) fn older_context(&mut self, name: Span) -> bool {
        if !self.at(SyntaxKind::BraceOpen) || self.slice(name) != "context" {
            return false;
        }
        let edit = Edit::replace(Span::new(name.end, name.end), ":");
        self.older(name, "`context { … }`", "`context: { … }`", vec![edit]);
        self.record_or_dict();
        true
    }

    /// `["a/b", fallback: "c/d"]`, at the word.
    pub(super) fn older_fallback(&mut self) {
        let word = self.span();
        self.start(SyntaxKind::Error);
        self.bump();
        self.bump();
        self.finish();
        let edit = Edit::replace(Span::new(word.start, self.span().start), "");
        self.older(word, "`fallback:` in a list of models", "a list of two models", vec![edit]);
    }

    /// `uses "f.md"`, at the text: files are skills.
    pub(super) fn older_skills(&mut self) {
        let clause = self.previous_span().start;
        let start = self.span().start;
        self.start(SyntaxKind::Error);
        self.expect_string();
        while self.at(SyntaxKind::Comma) && self.nth(1) == SyntaxKind::StrOpen {
            self.bump();
            self.expect_string();
        }
        self.finish();
        let files = self.since(start);
        self.declared.skills = Some((Span::new(clause, self.span().start), files));
    }

    /// `uses mcp: "url"`, which is refused: its tools are not known here.
    pub(super) fn older_server(&mut self) {
        let start = self.span().start;
        self.start(SyntaxKind::Error);
        self.bump();
        self.bump();
        let url = self.span().start;
        self.expect_string();
        let url = self.slice(self.since(url));
        let whole = self.since(start);
        self.finish();
        self.report(Code::E0906, whole, "a tool server in `uses` is not supported", |diagnostic| {
            diagnostic.note("a program says which tools it uses, and what they take and give").help(format!(
                "declare each tool: `tool NAME(query: str) -> str {{ source: mcp({url}, name: \"…\") }}`, and grant it: `uses NAME`"
            ))
        });
    }

    /// What the whole of a declaration shows to be old.
    pub(super) fn end_declaration(&mut self, kind: SyntaxKind, head: Span, name: Span) {
        let declared = std::mem::take(&mut self.declared);
        if let Some((clause, files)) = declared.skills {
            let mut edits = vec![Edit::replace(clause, "")];
            if let Some(brace) = declared.brace {
                let text = format!(" skills: [{}],", self.slice(files));
                edits.push(Edit::replace(Span::new(brace.end, brace.end), text));
            }
            self.older(files, "a file in `uses`", "`skills: [\"…\"]`", edits);
        }
        if let Some(word) = declared.implements.filter(|_| !declared.has_result && kind == SyntaxKind::AgentDecl) {
            self.older(word, "`implements` without a result type", "`-> P`", vec![Edit::replace(word, "->")]);
        }
        for (name, whole, args) in &declared.decorators {
            let text = self.slice(*name);
            let property = DECORATORS.iter().find(|(old, _)| *old == text).map(|(_, property)| *property);
            if kind == SyntaxKind::FnDecl && text == "tool" {
                let edits = vec![Edit::replace(Span::new(whole.start, head.start), ""), Edit::replace(head, "flow")];
                self.older(*whole, "`@tool` before a `fn`", "a `flow`, which agents can use as a tool", edits);
            } else if let (Some(property), SyntaxKind::AgentDecl, Some(brace)) = (property, kind, declared.brace) {
                let value = args.map_or("", |args| self.slice(args));
                let value = setting(property, value.trim_start_matches('(').trim_end_matches(')').trim());
                let end = self.after_blanks(whole.end);
                let edits = vec![
                    Edit::replace(Span::new(whole.start, end), ""),
                    Edit::replace(Span::new(brace.end, brace.end), format!(" {property}: {value},")),
                ];
                self.older(*whole, &format!("`@{text}`"), &format!("the property `{property}: {value}`"), edits);
            }
        }
        if kind == SyntaxKind::ToolDecl && declared.signature_end == name.end && declared.brace.is_some() {
            self.older_tool(name, &declared);
        }
    }

    fn after_blanks(&self, at: u32) -> u32 {
        let rest = self.source.text().get(at as usize..).unwrap_or_default();
        at + (rest.len() - rest.trim_start().len()) as u32
    }

    /// `tool T { description: …, parameters: { "k": "type" }, mcp: "…" }`.
    fn older_tool(&mut self, name: Span, declared: &Declared) {
        let tool = self.slice(name);
        let mut params = String::new();
        let mut settings = Vec::new();
        for (property, value) in &declared.properties {
            let value = self.slice(*value);
            match self.slice(*property) {
                "parameters" => params = parameters(value),
                "mcp" => settings.push(format!("source: mcp({value}, name: \"{tool}\")")),
                other => settings.push(format!("{other}: {value}")),
            }
        }
        let settings = settings.join(", ");
        let whole = self.since(name.start);
        let edit = Edit::replace(whole, format!("{tool}({params}) -> any {{ {settings} }}"));
        self.older(name, "a tool without parameters in parentheses", "a tool with types", vec![edit]);
    }

    pub(super) fn tell_implements(&mut self, word: Span) {
        self.declared.implements = Some(word);
    }

    /// A list of items in brackets in which `k = v` is told.
    pub(super) fn at_older_name(&self) -> bool {
        self.at(SyntaxKind::Ident) && self.nth(1) == SyntaxKind::Equals
    }

    /// `template"""…"""` or `img"…"`.
    pub(super) fn tagged_text(&mut self) {
        if let Some(refused) = self.refused() {
            self.report(refused.code, self.span(), refused.message, |diagnostic| diagnostic.help(refused.help));
        }
        self.start(SyntaxKind::Error);
        self.bump();
        self.expect_string();
        self.finish();
    }

    /// Takes a construct that is refused, with its block, as one error.
    pub(super) fn refused_statement(&mut self) -> bool {
        let Some(refused) = self.refused_construct() else { return false };
        self.report(refused.code, self.span(), refused.message, |diagnostic| diagnostic.help(refused.help));
        self.start(SyntaxKind::Error);
        self.bump();
        self.within(Mode { lines: true, braces: false }, |parser| {
            while !parser.at(SyntaxKind::BraceOpen)
                && !parser.follows_newline()
                && !matches!(parser.current(), SyntaxKind::Semicolon | SyntaxKind::BraceClose | SyntaxKind::EndOfFile)
            {
                parser.bump();
            }
        });
        if self.at(SyntaxKind::BraceOpen) && !self.follows_newline() {
            self.block();
        }
        self.finish();
        true
    }
}

/// What a type of the earlier dialect is called today.
fn today_type(name: &str) -> &str {
    match name.trim() {
        "string" | "text" => "str",
        "integer" => "int",
        "number" => "float",
        "boolean" => "bool",
        "array" => "list[any]",
        "object" => "any",
        other => other,
    }
}

/// The parameters that `{ "k": "type" }` stands for.
fn parameters(record: &str) -> String {
    let inside = record.trim().trim_start_matches('{').trim_end_matches('}');
    let entries = inside.split(',').filter_map(|entry| entry.split_once(':'));
    let unquoted = |text: &str| text.trim().trim_matches('"').to_owned();
    let params = entries.map(|(name, ty)| format!("{}: {}", unquoted(name), today_type(&unquoted(ty))));
    params.collect::<Vec<_>>().join(", ")
}

/// The value of a property that was a decorator's arguments.
fn setting(property: &str, args: &str) -> String {
    let is_number = !args.is_empty() && args.bytes().all(|byte| byte.is_ascii_digit());
    let args = args.replace(" = ", ": ").replace('=', ": ");
    match property {
        "budget" => format!("{{ {args} }}"),
        "retry" if is_number => format!("{{ max: {args} }}"),
        "retry" if args.contains(':') => format!("{{ {args} }}"),
        "timeout" if is_number => format!("{args}s"),
        _ => args,
    }
}
