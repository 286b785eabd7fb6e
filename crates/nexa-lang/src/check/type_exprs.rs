//! Types as written, made into types as known.

use std::rc::Rc;

use super::Checker;
use super::modules::Item;
use crate::ast::{AstNode, Decl, EnumDecl, Field as FieldNode, Name, NamedType, TypeExpr};
use crate::diagnostic::Code;
use crate::source::Span;
use crate::types::{Field, NamedId, NamedKind, Ty, Variant};

/// Fields of one record.
pub(super) const FIELDS_MAX: usize = 1_024;

/// The built-in type names, for suggestions.
const BUILT_IN: &[&str] = &[
    "str", "int", "float", "bool", "unit", "duration", "list", "dict", "map", "Option", "Result", "stage", "any",
    "never", "Error", "Approval",
];

impl Checker<'_> {
    /// Fills in the fields of every protocol and struct, the cases of every enum, and what semantic types narrow.
    pub(super) fn define_types(&mut self) {
        let mut narrowing = Vec::new();
        // What a semantic type may stand for must be known before unions with it are written.
        for is_semantic in [true, false] {
            for (place, file) in self.files.iter().enumerate() {
                self.file = file.id;
                for decl in file.tree.declarations() {
                    if matches!(decl, Decl::TypeDecl(_)) == is_semantic
                        && let Some(id) = self.declared_type(place, &decl)
                        && let Some(kind) = self.kind_of(&decl)
                    {
                        if let Decl::TypeDecl(decl) = decl {
                            narrowing.push((file.id, id, decl));
                        }
                        self.types.define(id, kind);
                    }
                }
            }
        }
        for (file, id, decl) in &narrowing {
            self.file = *file;
            self.check_narrowed(*id, decl);
        }
        for (file, id, decl) in &narrowing {
            self.file = *file;
            self.check_base(*id, decl);
        }
    }

    /// The number of the type that a declaration declares; of two types of one name the first has one.
    fn declared_type(&self, place: usize, decl: &Decl) -> Option<NamedId> {
        let name = decl.name()?;
        match self.scopes[place].get(&name.text())?.item {
            Item::Type(id) if self.types.named(id).declared == Some((self.file, name.span())) => Some(id),
            _ => None,
        }
    }

    fn kind_of(&mut self, decl: &Decl) -> Option<NamedKind> {
        match decl {
            Decl::StructDecl(decl) => Some(NamedKind::Struct(self.fields(decl.fields()))),
            Decl::EnumDecl(decl) => Some(NamedKind::Enum(self.variants_of(decl))),
            Decl::ProtocolDecl(decl) => Some(NamedKind::Protocol(self.fields(decl.fields()))),
            Decl::TypeDecl(decl) => self.semantic_of(decl),
            _ => None,
        }
    }

    fn variants_of(&mut self, decl: &EnumDecl) -> Vec<Variant> {
        let mut variants: Vec<(Variant, Span)> = Vec::new();
        for node in decl.variants() {
            let Some(name) = node.name() else { continue };
            if variants.len() == FIELDS_MAX {
                let crowded = self.finding(Code::E1006, name.span(), format!("an enum has at most {FIELDS_MAX} cases"));
                self.report(crowded.help("put some of them into an enum of their own"));
                break;
            }
            let text: Rc<str> = name.text().into();
            if let Some((_, first)) = variants.iter().find(|((tag, _), _)| *tag == text) {
                let twice = self
                    .finding(Code::E0207, name.span(), format!("the case `{text}` is defined twice"))
                    .label(*first, "it is defined here first");
                self.report(twice);
                continue;
            }
            let fields = self.fields(node.fields());
            if fields.iter().any(|field| &*field.name == "tag") {
                let message = format!("`{text}` cannot hold a field `tag`, which holds the case's name in JSON");
                let taken = self.finding(Code::E0207, name.span(), message);
                self.report(taken.help("give the field another name"));
            }
            variants.push(((text, fields), name.span()));
        }
        variants.into_iter().map(|(variant, _)| variant).collect()
    }

    fn fields(&mut self, nodes: impl Iterator<Item = FieldNode>) -> Rc<[Field]> {
        let mut fields: Vec<(Field, Span)> = Vec::new();
        for node in nodes {
            let Some(name) = node.name() else { continue };
            if fields.len() == FIELDS_MAX {
                let crowded =
                    self.finding(Code::E1006, name.span(), format!("a record has at most {FIELDS_MAX} fields"));
                self.report(crowded.help("put some of them into a record of their own"));
                break;
            }
            let text: Rc<str> = name.text().into();
            if let Some((_, first)) = fields.iter().find(|(field, _)| field.name == text) {
                let twice = self
                    .finding(Code::E0207, name.span(), format!("the field `{text}` is defined twice"))
                    .label(*first, "it is defined here first");
                self.report(twice);
                continue;
            }
            let ty = node.ty().map_or(Ty::Broken, |ty| self.ty(&ty));
            fields.push((Field { name: text, ty, doc: node.docs().unwrap_or_default().into() }, name.span()));
        }
        fields.into_iter().map(|(field, _)| field).collect()
    }

    /// The type that is written.
    pub(super) fn ty(&mut self, node: &TypeExpr) -> Ty {
        self.depth += super::LEVEL;
        let ty = if self.depth > super::DEPTH_MAX { self.too_deep(node.span()) } else { self.ty_here(node) };
        self.depth -= super::LEVEL;
        ty
    }

    fn too_deep(&mut self, span: Span) -> Ty {
        let deep =
            self.finding(Code::E0210, span, "the type nests too deep").help("give parts of it names with `protocol`");
        self.report(deep);
        Ty::Broken
    }

    fn ty_here(&mut self, node: &TypeExpr) -> Ty {
        match node {
            TypeExpr::NamedType(named) => self.named_type(named),
            TypeExpr::OptionType(option) => Ty::option(option.inner().map_or(Ty::Broken, |inner| self.ty(&inner))),
            TypeExpr::TupleType(tuple) => {
                if let Some(inner) = tuple.grouped() {
                    return self.ty(&inner);
                }
                let items: Vec<Ty> = tuple.items().map(|item| self.ty(&item)).collect();
                if items.is_empty() { Ty::Unit } else { Ty::Tuple(items.into()) }
            }
            TypeExpr::RecordType(record) => Ty::Record(self.fields(record.fields())),
            TypeExpr::FnType(function) => {
                let params: Vec<Ty> = function.params().iter().map(|param| self.ty(param)).collect();
                let result = function.result().map_or(Ty::Unit, |result| self.ty(&result));
                Ty::Function(params.into(), Rc::new(result))
            }
            TypeExpr::UnionType(union) => {
                let alternatives: Vec<Ty> = union.alternatives().map(|ty| self.ty(&ty)).collect();
                alternatives.iter().fold(Ty::Never, |joined, ty| match (&joined, ty) {
                    // A written union is kept as written: `int | float` is not `float`.
                    (Ty::Int, Ty::Float) | (Ty::Float, Ty::Int) => Ty::Union([joined, ty.clone()].into()),
                    _ => self.types.join(&joined, ty),
                })
            }
            // The parser reads it in a declaration only, and there it is `semantics` that looks at it.
            TypeExpr::SemanticType(semantic) => semantic.base().map_or(Ty::Broken, |base| self.ty(&base)),
        }
    }

    fn named_type(&mut self, node: &NamedType) -> Ty {
        let path = node.path();
        let args: Vec<Ty> = node.args().iter().map(|arg| self.ty(arg)).collect();
        let ty = match path.as_slice() {
            [] => return Ty::Broken,
            [name] => self.type_of_name(name, &args),
            [module, name] => match self.item(&module.text()).map(|known| known.item) {
                Some(Item::Module(place)) => {
                    Some(self.item_of_module(place, name)).map(|item| self.type_of_item(item, name))
                }
                Some(Item::Reported) => Some(Ty::Broken),
                _ => None,
            },
            _ => None,
        };
        let count = match ty {
            Some(_) if args.is_empty() => return ty.unwrap_or(Ty::Broken),
            Some(Ty::List(_) | Ty::Handle(_) | Ty::Stream(_)) => 1..=1,
            Some(Ty::Dict(..) | Ty::Stage(..)) => 2..=2,
            Some(Ty::Result(..)) => 1..=2,
            Some(Ty::Option(_) | Ty::Any | Ty::Broken) if path.last().is_some_and(|name| name.text() == "Option") => {
                1..=1
            }
            Some(Ty::Broken) => return Ty::Broken,
            Some(_) => 0..=0,
            None => {
                let name: Vec<String> = path.iter().map(Name::text).collect();
                let name = name.join(".");
                let unknown = self.finding(Code::E0302, node.span(), format!("there is no type `{name}`"));
                let known: Vec<String> = self.scopes[self.place_of(self.file)].names().map(str::to_owned).collect();
                let unknown =
                    self.suggest(unknown, &name, BUILT_IN.iter().copied().chain(known.iter().map(String::as_str)));
                self.report(unknown);
                return Ty::Broken;
            }
        };
        if !count.contains(&args.len()) {
            let name = path.last().map(Name::text).unwrap_or_default();
            let wanted = match count.into_inner() {
                (0, 0) => "no type arguments".to_owned(),
                (1, 1) => "one type argument".to_owned(),
                (1, 2) => "one or two type arguments".to_owned(),
                (least, _) => format!("{least} type arguments"),
            };
            let wrong = self.finding(
                Code::E0303,
                node.span(),
                format!("`{name}` takes {wanted}, and {} stand here", args.len()),
            );
            self.report(wrong);
            return Ty::Broken;
        }
        ty.unwrap_or(Ty::Broken)
    }

    /// The type of a single name; nothing if there is none. Missing arguments are `any`, as in a bare `list`.
    fn type_of_name(&mut self, name: &Name, args: &[Ty]) -> Option<Ty> {
        let text = name.text();
        if let Some(known) = self.item(&text) {
            return Some(self.type_of_item(known.item, name));
        }
        let arg = |place: usize| args.get(place).cloned().unwrap_or(Ty::Any);
        Some(match text.as_str() {
            "str" => Ty::Str,
            "int" => Ty::Int,
            "float" => Ty::Float,
            "bool" => Ty::Bool,
            "unit" => Ty::Unit,
            "duration" => Ty::Duration,
            "any" => Ty::Any,
            "never" => Ty::Never,
            "list" => Ty::list(arg(0)),
            "Option" => Ty::option(arg(0)),
            "stage" => Ty::Stage(Rc::new(arg(0)), Rc::new(arg(1))),
            "Result" => match args.get(1) {
                Some(error) => Ty::Result(Rc::new(arg(0)), Rc::new(error.clone())),
                None => Ty::result(arg(0)),
            },
            "dict" | "map" => {
                let key = args.first().cloned().unwrap_or(Ty::Str);
                if !matches!(key, Ty::Str | Ty::Int | Ty::Bool | Ty::Broken) {
                    let message = format!("a dict cannot have keys of type `{}`", self.show(&key));
                    let bad = self.finding(Code::E0309, name.span(), message).help("keys are `str`, `int` or `bool`");
                    self.report(bad);
                }
                Ty::Dict(Rc::new(key), Rc::new(arg(1)))
            }
            "secret" => Ty::Secret,
            "snapshot" => Ty::Snapshot,
            "stream" => {
                let item = arg(0);
                if !matches!(item, Ty::Str | Ty::Any | Ty::Broken) {
                    self.report_not_available(name.span(), &format!("a stream of `{}`", self.show(&item)));
                }
                Ty::Stream(Rc::new(Ty::Str))
            }
            "handle" => Ty::Handle(Rc::new(arg(0))),
            _ => Ty::Named(self.types.built_in(&text)?),
        })
    }

    fn type_of_item(&mut self, item: Item, name: &Name) -> Ty {
        self.note_use(item, name.span());
        match item {
            Item::Type(id) => Ty::Named(id),
            Item::Reported => Ty::Broken,
            Item::Agent(_) | Item::Tool(_) | Item::Flow(_) | Item::Module(_) => {
                let what = match item {
                    Item::Agent(_) => "an agent",
                    Item::Tool(_) => "a tool",
                    Item::Flow(_) => "a flow",
                    _ => "a file",
                };
                let wrong = self.finding(Code::E0302, name.span(), format!("`{}` is {what}, not a type", name.text()));
                self.report(wrong);
                Ty::Broken
            }
        }
    }
}
