//! Names of files: what each declares, and what each `use` brings in.

use std::collections::BTreeMap;

use super::Checker;
use crate::ast::{AstNode, Decl, Name, UseDecl};
use crate::diagnostic::Code;
use crate::source::{FileId, Span};
use crate::types::{NamedId, NamedKind, NamedType};

/// What a name of a file means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A protocol, struct, enum or semantic type.
    Type(NamedId),
    /// An agent, by number.
    Agent(usize),
    /// A tool, by number.
    Tool(usize),
    /// A flow or a `fn`, by number.
    Flow(usize),
    /// Another file, by its place: `use "f.nx" as t`.
    Module(usize),
    /// Declared with something that was reported; using it is silent.
    Reported,
}

/// A name of a file.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) item: Item,
    /// Where it is declared.
    pub(super) file: FileId,
    pub(super) span: Span,
    /// The `use` that brought it in, by its number in the file.
    import: Option<usize>,
}

/// A `use`, and whether anything of it was used.
#[derive(Clone, Debug)]
struct Import {
    /// What is reported as unused: a name, or the whole `use`.
    span: Span,
    name: Option<String>,
    used: bool,
}

/// The names of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    names: BTreeMap<String, Known>,
    imports: Vec<Import>,
}

impl Scope {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Known> {
        self.names.get(name)
    }
}

impl Checker<'_> {
    /// Enters every declaration of every file under its name.
    pub(super) fn collect_names(&mut self) {
        for (place, file) in self.files.iter().enumerate() {
            self.file = file.id;
            for decl in file.tree.declarations() {
                let item = self.declare(&decl);
                self.decorate(&decl, item);
                if let (Some(item), Some(name)) = (item, decl.name()) {
                    self.enter(place, &name, Known { item, file: file.id, span: name.span(), import: None });
                }
            }
        }
    }

    fn declare(&mut self, decl: &Decl) -> Option<Item> {
        match decl {
            Decl::UseDecl(_) | Decl::TestDecl(_) => None,
            Decl::ProtocolDecl(_) | Decl::StructDecl(_) | Decl::EnumDecl(_) => {
                let name = decl.name()?;
                let declared = Some((self.file, name.span()));
                let kind = match decl {
                    Decl::StructDecl(_) => NamedKind::Struct([].into()),
                    Decl::EnumDecl(_) => NamedKind::Enum(Vec::new()),
                    _ => NamedKind::Protocol([].into()),
                };
                Some(Item::Type(self.types.declare(NamedType { name: name.text().into(), kind, declared })))
            }
            Decl::TypeDecl(decl) => self.declare_semantic(decl),
            Decl::AgentDecl(agent) => self.declare_agent(agent).map(Item::Agent),
            Decl::ToolDecl(tool) => self.declare_tool(tool).map(Item::Tool),
            Decl::FlowDecl(_) | Decl::FnDecl(_) => self.declare_flow(decl).map(Item::Flow),
        }
    }

    fn enter(&mut self, place: usize, name: &Name, known: Known) {
        let text = name.text();
        if let Some(first) = self.scopes[place].names.get(&text) {
            let twice = self
                .finding(Code::E0207, name.span(), format!("`{text}` is defined twice"))
                .label_in(first.file, first.span, "it is defined here first")
                .help("give one of them another name");
            self.report(twice);
            return;
        }
        self.scopes[place].names.insert(text, known);
    }

    /// Brings in what each `use` names.
    pub(super) fn resolve_imports(&mut self) {
        // Only what files declare themselves is exported, so the names are taken before any import is entered.
        let exported: Vec<BTreeMap<String, Known>> = self.scopes.iter().map(|scope| scope.names.clone()).collect();
        for (place, file) in self.files.iter().enumerate() {
            self.file = file.id;
            for import in file.tree.uses() {
                self.resolve_import(place, &import, &exported);
            }
        }
    }

    fn resolve_import(&mut self, place: usize, import: &UseDecl, exported: &[BTreeMap<String, Known>]) {
        let path = import.path().and_then(|path| path.plain());
        let target = path.as_ref().and_then(|path| self.files[place].imports.get(path)).copied();
        let target = target.map(|file| self.place_of(file));
        if let Some(alias) = import.alias() {
            let item = target.map_or(Item::Reported, Item::Module);
            let import = self.import(place, alias.span(), Some(alias.text()));
            self.enter(place, &alias, Known { item, file: self.file, span: alias.span(), import: Some(import) });
        } else if let Some(names) = import.names() {
            for name in names {
                let text = name.text();
                let known = target.map(|target| exported[target].get(&text).filter(|_| !text.starts_with('_')));
                let known = match known {
                    Some(Some(known)) => known.clone(),
                    Some(None) => {
                        let path = path.clone().unwrap_or_default();
                        let what = if text.starts_with('_') {
                            "keeps to itself what starts with `_`:"
                        } else {
                            "does not declare"
                        };
                        let unknown = self.finding(Code::E0208, name.span(), format!("`{path}` {what} `{text}`"));
                        let known = target.into_iter().flat_map(|target| exported[target].keys().map(String::as_str));
                        let unknown = self.suggest(unknown, &text, known.filter(|name| !name.starts_with('_')));
                        self.report(unknown);
                        Known { item: Item::Reported, file: self.file, span: name.span(), import: None }
                    }
                    // The file itself could not be read, and that was said.
                    None => Known { item: Item::Reported, file: self.file, span: name.span(), import: None },
                };
                let import = self.import(place, name.span(), Some(text));
                self.enter_import(place, &name.text(), name.span(), Known { import: Some(import), ..known });
            }
        } else if let Some(target) = target {
            let span = import.path().map_or(import.span(), |path| path.span());
            let number = self.import(place, span, None);
            for (name, known) in exported[target].iter().filter(|(name, _)| !name.starts_with('_')) {
                self.enter_import(place, name, span, Known { import: Some(number), ..known.clone() });
            }
        }
    }

    fn import(&mut self, place: usize, span: Span, name: Option<String>) -> usize {
        let imports = &mut self.scopes[place].imports;
        imports.push(Import { span, name, used: false });
        imports.len() - 1
    }

    fn enter_import(&mut self, place: usize, name: &str, span: Span, known: Known) {
        match self.scopes[place].names.get(name) {
            None => {
                self.scopes[place].names.insert(name.to_owned(), known);
            }
            // The same thing may be brought in twice: two files that each use a third.
            Some(first) if (first.file, first.span) == (known.file, known.span) => {}
            Some(first) => {
                let twice = self
                    .finding(Code::E0207, span, format!("this brings in `{name}`, which is defined already"))
                    .label_in(first.file, first.span, "it is defined here first")
                    .help("import the file under a name of its own: `use \"…\" as name`");
                self.report(twice);
            }
        }
    }

    /// What a top-level name means in the current file.
    pub(super) fn item(&mut self, name: &str) -> Option<Known> {
        let place = self.place_of(self.file);
        let known = self.scopes[place].names.get(name)?.clone();
        if let Some(import) = known.import {
            self.scopes[place].imports[import].used = true;
        }
        Some(known)
    }

    /// What `module.name` means; reports a name that the file does not have.
    pub(super) fn item_of_module(&mut self, module: usize, name: &Name) -> Item {
        let text = name.text();
        let own = self.files[module].id;
        let known = self.scopes[module].names.get(&text).filter(|known| known.file == own && !text.starts_with('_'));
        if let Some(known) = known {
            return known.item;
        }
        let unknown =
            self.finding(Code::E0208, name.span(), format!("`{}` does not declare `{text}`", self.files[module].name));
        let known = self.scopes[module].names.iter().filter(|(_, known)| known.file == own);
        let unknown = self.suggest(unknown, &text, known.map(|(name, _)| name.as_str()));
        self.report(unknown);
        Item::Reported
    }

    /// W0212 for each `use` of which nothing is used.
    pub(super) fn report_unused_imports(&mut self) {
        for place in 0..self.files.len() {
            self.file = self.files[place].id;
            let unused: Vec<Import> =
                self.scopes[place].imports.iter().filter(|import| !import.used).cloned().collect();
            for import in unused {
                let what = import.name.map_or("nothing of this file".to_owned(), |name| format!("the import `{name}`"));
                let verb = if what.starts_with("nothing") { "is used" } else { "is not used" };
                let unused =
                    self.finding(Code::W0212, import.span, format!("{what} {verb}")).help("remove it from the `use`");
                self.report(unused);
            }
        }
    }
}
