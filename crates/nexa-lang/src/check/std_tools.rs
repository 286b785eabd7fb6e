//! The tools of `std`, which a grant declares with its limits: `uses std.fs(paths: ["notes/"])`.

use std::rc::Rc;

use nexa_event::effect::{ToolEffect, ToolSource};

use super::Checker;
use super::declarations::{Param, Signature};
use super::tools::{ToolInfo, empty};
use crate::diagnostic::Code;
use crate::hir::{self, At, Const, ExprKind};
use crate::source::{FileId, Span};
use crate::types::Ty;

/// A tool of `std`: its first parameter is a path.
struct StdTool {
    name: &'static str,
    doc: &'static str,
    /// Names and meanings of the parameters, all of them texts.
    params: &'static [(&'static str, &'static str)],
    gives: Gives,
    source: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gives {
    Text,
    Names,
    /// It changes something.
    Nothing,
}

/// The part of `std` that has to do with files.
const FS: &[StdTool] = &[
    StdTool {
        name: "std.fs.read",
        doc: "Reads a text file.",
        params: &[("path", "The file, relative to the folder of the tools.")],
        gives: Gives::Text,
        source: "fs.read",
    },
    StdTool {
        name: "std.fs.list",
        doc: "Lists the names in a folder; those of folders end with `/`.",
        params: &[("path", "The folder, relative to the folder of the tools.")],
        gives: Gives::Names,
        source: "fs.list",
    },
    StdTool {
        name: "std.fs.write",
        doc: "Writes a text file, in place of the one that is there.",
        params: &[
            ("path", "The file, relative to the folder of the tools; its folder is there."),
            ("text", "All that the file will hold."),
        ],
        gives: Gives::Nothing,
        source: "fs.write",
    },
];

/// What the language has and this release has not.
pub(super) const LATER: &[&str] = &["std.http.get", "std.http.post"];

/// Whether `std` has this tool.
pub(super) fn is_known(name: &str) -> bool {
    FS.iter().any(|tool| tool.name == name)
}

/// The names of all tools of `std`.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FS.iter().map(|tool| tool.name)
}

/// Whether a path stays below the folder that it is relative to.
pub(super) fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with(['/', '\\'])
        && !path.contains(':')
        && path.split(['/', '\\']).all(|part| part != "..")
}

/// Whether a path is a granted one or lies below it.
fn is_below(path: &str, granted: &str) -> bool {
    fn parts(path: &str) -> impl Iterator<Item = &str> {
        path.split('/').filter(|part| !part.is_empty() && *part != ".")
    }
    let mut path = parts(path);
    parts(granted).all(|part| path.next() == Some(part))
}

impl Checker<'_> {
    /// The tools that `std.fs(paths: […])` stands for, declared once for each list of paths.
    pub(super) fn std_fs(&mut self, paths: &[String], file: FileId, span: Span) -> Vec<u32> {
        let mut numbers = Vec::new();
        for made in FS {
            let is_same = |tool: &ToolInfo| tool.checked.name == made.name && tool.checked.limits.paths == paths;
            let known = self.tools.iter().position(|tool| tool.decl.is_none() && is_same(tool));
            numbers.push(known.unwrap_or_else(|| self.std_tool_with(made, paths, file, span)) as u32);
        }
        numbers
    }

    fn std_tool_with(&mut self, made: &StdTool, paths: &[String], file: FileId, span: Span) -> usize {
        let result = match made.gives {
            Gives::Text => Ty::Str,
            Gives::Names => Ty::list(Ty::Str),
            Gives::Nothing => Ty::Unit,
        };
        let param = |(name, _): &(&str, &str)| Param { name: (*name).into(), ty: Ty::Str, span, default: None };
        let params = made.params.iter().map(param).collect();
        let signature = Signature { name: made.name.into(), file, span, params, result: Some((result.clone(), span)) };
        let mut checked = empty(made.name, At { file: file.0, start: span.start });
        checked.doc = made.doc.to_owned();
        checked.source = ToolSource::Builtin { name: made.source.to_owned() };
        let param = |(name, doc): &(&str, &str)| {
            let (name, doc) = ((*name).to_owned(), (*doc).to_owned());
            hir::ToolParam { name, doc, ty: Ty::Str, default: None }
        };
        checked.params = made.params.iter().map(param).collect();
        checked.result = result;
        // Of medium risk, as every tool that does not say so: who writes is asked about.
        let writes = made.gives == Gives::Nothing;
        checked.effect = if writes { ToolEffect::Write } else { ToolEffect::Read };
        checked.asks = writes;
        // The same text in the same place twice is as good as once.
        checked.idempotent = true;
        checked.limits.paths = paths.to_vec();
        self.tools.push(ToolInfo { decl: None, signature: Rc::new(signature), checked });
        self.tools.len() - 1
    }

    /// E0804 for a path that is written out and lies outside of what was granted.
    pub(super) fn check_path(&mut self, tool: usize, args: &[hir::Expr], span: Span) {
        let limits = &self.tools[tool].checked.limits.paths;
        let Some(ExprKind::Const(Const::Str(path))) = args.first().map(|arg| &arg.kind) else { return };
        if is_inside(path) && limits.iter().any(|granted| is_below(path, granted)) {
            return;
        }
        let granted = super::listed(limits.iter().map(String::as_str));
        let message = format!("`{path}` lies beyond the paths that are granted: {granted}");
        let beyond = self.finding(Code::E0804, span, message);
        self.report(beyond.help("add its folder to `std.fs(paths: […])`"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_below_a_folder_by_its_parts() {
        assert!(is_below("notes/a.txt", "notes/") && is_below("notes/a/b", "notes/a") && is_below("./notes", "notes"));
        assert!(!is_below("notes2/a", "notes") && !is_below("note", "notes") && !is_below("a/notes", "notes"));
        assert!(is_inside("notes/") && is_inside("a..b"));
        assert!(!is_inside("") && !is_inside("/etc") && !is_inside("a/../..") && !is_inside("C:\\x"));
    }
}
