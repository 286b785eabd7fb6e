//! Types as JSON Schema, for models.
//!
//! Every property is listed, in order; those of optional types are left out of `required`. A type that refers to itself
//! is written once, under `$defs`, and referred to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use nexa_types::limits::DEPTH_MAX;

use crate::json::write::write_text;
use crate::module::{Module, RecordType, Type};

/// A longer schema helps no model; such a type is described as any value.
const SCHEMA_BYTES_MAX: usize = 256 << 10;

/// The JSON Schema of `module.types[ty]` as canonical text.
///
/// `{}`, any value, for an index that is not there and for a schema longer than 256 KiB; parts that nest deeper than 256
/// levels are any value too.
pub fn schema(module: &Module, ty: u32) -> String {
    let mut recursive = BTreeSet::new();
    find_recursive(module, ty, &mut Vec::new(), &mut BTreeSet::new(), &mut recursive);
    let mut writer = SchemaWriter { module, recursive, definitions: BTreeMap::new(), out: String::new(), depth: 0 };
    writer.ty(ty);
    while let Some(next) = writer.recursive.iter().copied().find(|ty| !writer.definitions.contains_key(ty)) {
        let outer = std::mem::take(&mut writer.out);
        writer.body(next);
        let definition = std::mem::replace(&mut writer.out, outer);
        writer.definitions.insert(next, definition);
    }
    let mut out = writer.out;
    if !writer.definitions.is_empty() && out.ends_with('}') {
        out.pop();
        out.push_str(if out == "{" { "\"$defs\":{" } else { ",\"$defs\":{" });
        for (index, (ty, definition)) in writer.definitions.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let _infallible = write!(out, "{comma}\"t{ty}\":{definition}");
        }
        out.push_str("}}");
    }
    if out.len() > SCHEMA_BYTES_MAX { "{}".to_owned() } else { out }
}

/// The numbers of the types that a type is made of.
pub(crate) fn parts(ty: &Type) -> Vec<u32> {
    let fields = |record: &RecordType| record.fields.iter().map(|field| field.ty).collect::<Vec<_>>();
    match ty {
        Type::Any | Type::Unit | Type::Str | Type::Int | Type::Float | Type::Bool | Type::Duration => Vec::new(),
        Type::List(part) | Type::Option(part) | Type::Semantic { base: part, .. } => vec![*part],
        Type::Dict(key, value) | Type::Result(key, value) => vec![*key, *value],
        Type::Tuple(parts) | Type::Union(parts) => parts.clone(),
        Type::Record(record) => fields(record),
        Type::Enum { variants, .. } => variants.iter().flat_map(fields).collect(),
    }
}

/// Finds the types that contain themselves, as far as 256 levels down.
fn find_recursive(
    module: &Module,
    ty: u32,
    path: &mut Vec<u32>,
    done: &mut BTreeSet<u32>,
    recursive: &mut BTreeSet<u32>,
) {
    if path.contains(&ty) {
        recursive.insert(ty);
    }
    if path.len() > DEPTH_MAX || !done.insert(ty) {
        return;
    }
    let Some(known) = module.types.get(ty as usize) else { return };
    path.push(ty);
    for part in parts(known) {
        find_recursive(module, part, path, done, recursive);
    }
    path.pop();
}

struct SchemaWriter<'m> {
    module: &'m Module,
    recursive: BTreeSet<u32>,
    definitions: BTreeMap<u32, String>,
    out: String,
    depth: usize,
}

impl SchemaWriter<'_> {
    fn ty(&mut self, ty: u32) {
        if self.recursive.contains(&ty) {
            let _infallible = write!(self.out, "{{\"$ref\":\"#/$defs/t{ty}\"}}");
        } else if self.depth > DEPTH_MAX || self.out.len() > SCHEMA_BYTES_MAX {
            self.out.push_str("{}");
        } else {
            self.depth += 1;
            self.body(ty);
            self.depth -= 1;
        }
    }

    fn body(&mut self, ty: u32) {
        let module = self.module;
        match module.types.get(ty as usize).unwrap_or(&Type::Any) {
            Type::Any => self.out.push_str("{}"),
            Type::Unit => self.out.push_str("{\"type\":\"null\"}"),
            Type::Str => self.out.push_str("{\"type\":\"string\"}"),
            Type::Int => self.out.push_str("{\"type\":\"integer\"}"),
            Type::Float => self.out.push_str("{\"type\":\"number\"}"),
            Type::Bool => self.out.push_str("{\"type\":\"boolean\"}"),
            Type::Duration => self.out.push_str("{\"type\":\"integer\",\"description\":\"milliseconds\"}"),
            Type::List(part) => self.wrap("{\"type\":\"array\",\"items\":", *part, "}"),
            Type::Dict(_, value) => self.wrap("{\"type\":\"object\",\"additionalProperties\":", *value, "}"),
            Type::Tuple(parts) => {
                self.out.push_str("{\"type\":\"array\",\"prefixItems\":[");
                self.list(parts);
                let len = parts.len();
                let _infallible = write!(self.out, "],\"minItems\":{len},\"maxItems\":{len}}}");
            }
            Type::Option(part) => self.wrap("{\"anyOf\":[", *part, ",{\"type\":\"null\"}]}"),
            Type::Result(ok, err) => {
                self.out.push_str("{\"anyOf\":[");
                for (index, (name, ty)) in [("ok", *ok), ("err", *err)].into_iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    let _infallible = write!(self.out, "{comma}{{\"type\":\"object\",\"properties\":{{\"{name}\":");
                    self.ty(ty);
                    let _infallible = write!(self.out, "}},\"required\":[\"{name}\"],\"additionalProperties\":false}}");
                }
                self.out.push_str("]}");
            }
            Type::Record(record) => self.object(record, None),
            Type::Enum { variants, .. } if variants.iter().all(|variant| variant.fields.is_empty()) => {
                self.out.push_str("{\"enum\":[");
                for (index, variant) in variants.iter().enumerate() {
                    if index > 0 {
                        self.out.push(',');
                    }
                    write_text(&mut self.out, &variant.name);
                }
                self.out.push_str("]}");
            }
            Type::Enum { variants, .. } => {
                self.out.push_str("{\"anyOf\":[");
                for (index, variant) in variants.iter().enumerate() {
                    if index > 0 {
                        self.out.push(',');
                    }
                    if variant.fields.is_empty() {
                        self.out.push_str("{\"const\":");
                        write_text(&mut self.out, &variant.name);
                        self.out.push('}');
                    } else {
                        self.object(variant, Some(&variant.name));
                    }
                }
                self.out.push_str("]}");
            }
            Type::Union(parts) => {
                self.out.push_str("{\"anyOf\":[");
                self.list(parts);
                self.out.push_str("]}");
            }
            Type::Semantic { base, condition, pattern } => {
                self.out.push_str("{\"allOf\":[");
                self.ty(*base);
                self.out.push_str("],\"description\":");
                write_text(&mut self.out, condition);
                if let Some(pattern) = pattern {
                    self.out.push_str(",\"pattern\":");
                    write_text(&mut self.out, pattern);
                }
                self.out.push('}');
            }
        }
    }

    fn wrap(&mut self, before: &str, part: u32, after: &str) {
        self.out.push_str(before);
        self.ty(part);
        self.out.push_str(after);
    }

    fn list(&mut self, parts: &[u32]) {
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            self.ty(*part);
        }
    }

    fn object(&mut self, record: &RecordType, tag: Option<&str>) {
        self.out.push_str("{\"type\":\"object\",\"properties\":{");
        let mut comma = "";
        if let Some(tag) = tag {
            self.out.push_str("\"tag\":{\"const\":");
            write_text(&mut self.out, tag);
            self.out.push('}');
            comma = ",";
        }
        for field in &record.fields {
            self.out.push_str(comma);
            comma = ",";
            write_text(&mut self.out, &field.name);
            self.out.push(':');
            if field.doc.is_empty() {
                self.ty(field.ty);
            } else {
                self.documented(field.ty, &field.doc);
            }
        }
        self.out.push_str("},\"required\":[");
        let is_required = |ty: u32| !matches!(self.module.types.get(ty as usize), Some(Type::Option(_)));
        let required = record.fields.iter().filter(|field| is_required(field.ty)).map(|field| field.name.as_str());
        let required: Vec<&str> = tag.map(|_| "tag").into_iter().chain(required).collect();
        for (index, name) in required.iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            write_text(&mut self.out, name);
        }
        self.out.push_str("],\"additionalProperties\":false}");
    }

    /// The schema of a type with a description in front of its other members.
    fn documented(&mut self, ty: u32, doc: &str) {
        let start = self.out.len();
        self.ty(ty);
        let plain = self.out.split_off(start);
        let members = plain.strip_prefix('{').unwrap_or("}");
        if members.contains("\"description\":") && !members.starts_with("\"type\"") || members.starts_with("\"$ref\"") {
            // The type has a description of its own, or is a reference, which allows no neighbours everywhere.
            self.out.push_str("{\"description\":");
            write_text(&mut self.out, doc);
            let _infallible = write!(self.out, ",\"allOf\":[{plain}]}}");
        } else {
            self.out.push_str("{\"description\":");
            write_text(&mut self.out, doc);
            if members != "}" {
                self.out.push(',');
            }
            self.out.push_str(members);
        }
    }
}
