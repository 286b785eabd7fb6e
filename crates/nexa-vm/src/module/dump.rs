//! A module as text, for people and for tests of the compiler.

use std::fmt::Write as _;

use super::{Constant, Function, Grant, Module};
use crate::op::{Form, Op, Word};
use crate::stdlib;

impl Module {
    /// The tools, then the functions with their instructions, one a line, operands spelt out.
    pub fn dump(&self) -> String {
        let mut out = String::new();
        for tool in &self.tools {
            let (risk, effect) = (tool.risk.as_str(), tool.effect.as_str());
            let _infallible = writeln!(
                out,
                "tool {}({}): {}, risk {risk}, effect {effect}, within {} ms",
                tool.name,
                tool.params.join(", "),
                tool.source,
                tool.timeout
            );
        }
        for grant in &self.grants {
            let _infallible = writeln!(out, "grant {}: {}", self.function_name(grant.function), self.tool_names(grant));
        }
        for offer in &self.offers {
            let names: Vec<&str> = offer.tools.iter().map(|tool| tool.name.as_str()).collect();
            let request = self.requests.get(offer.request as usize).map_or("?", |request| &request.agent);
            let _infallible = writeln!(out, "offer {request} {}: {}", offer.choice.as_str(), names.join(", "));
        }
        for request in &self.cached {
            let agent = self.requests.get(*request as usize).map_or("?", |request| &request.agent);
            let _infallible = writeln!(out, "cache {agent}");
        }
        for (request, memory) in &self.memories {
            let agent = self.requests.get(*request as usize).map_or("?", |request| &request.agent);
            let (scope, evict) = (memory.scope.as_str(), memory.evict.as_str());
            let _infallible = writeln!(
                out,
                "memory {agent}: {scope}, window {}, {} pages of {}, threshold {}, {evict}",
                memory.window, memory.max_pages, memory.page_size, memory.threshold
            );
        }
        if !out.is_empty() {
            out.push('\n');
        }
        for (index, function) in self.functions.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            self.dump_function(&mut out, index, function);
        }
        out
    }

    fn function_name(&self, function: u32) -> &str {
        self.functions.get(function as usize).map_or("?", |function| &function.name)
    }

    fn tool_names(&self, grant: &Grant) -> String {
        let name = |tool: &u32| self.tools.get(*tool as usize).map_or("?", |tool| &tool.name);
        grant.tools.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    fn dump_function(&self, out: &mut String, index: usize, function: &Function) {
        let Function { name, arity, locals, captures, stack, param_kinds, .. } = function;
        let mut mark = match (function.pure_, function.test) {
            (true, _) => " pure",
            (false, true) => " test",
            (false, false) => "",
        }
        .to_owned();
        if !param_kinds.is_empty() {
            let kinds: Vec<&str> = param_kinds.iter().map(|kind| kind.name()).collect();
            mark.push_str(&format!(" ({})", kinds.join(", ")));
        }
        // Writing to a String cannot fail.
        let _infallible = writeln!(
            out,
            "fn {index} {name}: {arity} arguments, {locals} locals, {captures} captures, {stack} operands{mark}"
        );
        let mut at = 0;
        while at < function.code.len() {
            match Word::read(&function.code, at) {
                Some(word) => {
                    let _infallible = writeln!(out, "  {at:4} {}", self.instruction(&word));
                    at += word.len;
                }
                None => {
                    let _infallible = writeln!(out, "  {at:4} ?{:08x}", function.code[at]);
                    at += 1;
                }
            }
        }
    }

    fn instruction(&self, word: &Word) -> String {
        let name = word.op.name();
        let missing = || "?".to_owned();
        let index = usize::try_from(word.a).unwrap_or(usize::MAX);
        match word.op.form() {
            Form::None => name.to_owned(),
            Form::A if word.op == Op::Int => format!("{name} {}", word.signed_a()),
            Form::A => format!("{name} {}", word.a),
            Form::Jump => format!("{name} -> {}", word.a),
            Form::Const => {
                let constant = self.constants.get(index).map_or_else(missing, |constant| match constant {
                    Constant::Str(text) => format!("{text:?}"),
                    Constant::Int(number) => number.to_string(),
                    Constant::Float(number) => format!("{number:?}"),
                    Constant::Duration(millis) => format!("{millis}ms"),
                });
                format!("{name} {constant}")
            }
            Form::Type => format!("{name} type {}", word.a),
            Form::Shape => {
                let shape = self.shapes.get(index).map_or_else(missing, |shape| {
                    let dot = if shape.tag.is_empty() { "" } else { "." };
                    format!("{}{dot}{}{{{}}}", shape.type_name, shape.tag, shape.fields.join(", "))
                });
                format!("{name} {shape}")
            }
            Form::Agent => format!("{name} {}", self.agents.get(index).map_or("?", |agent| &agent.name)),
            Form::Request => format!("{name} {}", self.requests.get(index).map_or("?", |request| &request.agent)),
            Form::CountFunction => {
                let callee = self.functions.get(usize::from(word.b)).map_or("?", |function| &function.name);
                format!("{name} {} {callee}", word.count)
            }
            Form::CountStd => {
                format!("{name} {} {}", word.count, stdlib::by_number(word.b).map_or("?", |function| function.name))
            }
            Form::CountTool => {
                let tool = self.tools.get(usize::from(word.b)).map_or("?", |tool| &tool.name);
                format!("{name} {} {tool}", word.count)
            }
            Form::CountFlags => format!("{name} {} {}", word.count, word.b as i16),
        }
    }
}
