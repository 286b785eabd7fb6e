//! Why a test failed, in the form of a diagnostic: what, where, both sides of a comparison and where they part, and
//! what had been called by then.

use nexa_lang::ast::{AssertStmt, AstNode, Decl};
use nexa_lang::diagnostic::{Colour, Shown, show};
use nexa_lang::hir::TestEntry;
use nexa_lang::source::{Source, Span};
use nexa_lang::{SourceSet, SyntaxNode, asserted_parts};
use nexa_types::{Failure, Outcome, RunCode};
use nexa_vm::codec;
use nexa_vm::json::to_json;
use nexa_vm::value::Value;

use crate::stage::Run;

/// Calls that are listed; of more, the first ones and their number.
const CALLS_SHOWN_MAX: usize = 12;
/// Lines that a program printed.
const LINES_SHOWN_MAX: usize = 20;
/// Characters of a value in a list of calls.
const INPUT_CHARS_MAX: usize = 40;
/// Characters of a side of a comparison.
const SIDE_CHARS_MAX: usize = 2_000;

/// A failed test for people, several lines; `None` if it passed.
pub fn failure(run: &Run, test: &TestEntry, sources: &SourceSet, colour: Colour) -> Option<String> {
    let Outcome::Err(failure) = &run.outcome else { return None };
    let found = Found::of(failure, sources);
    let place = found.place.or_else(|| test_place(test, sources));
    let sides = found.sides;
    let mut notes = Vec::new();
    if let Some((left, right)) = &sides {
        notes.push(format!(" left: {}", cut(&to_json(left), SIDE_CHARS_MAX)));
        notes.push(format!("right: {}", cut(&to_json(right), SIDE_CHARS_MAX)));
        notes.extend(first_difference(left, right));
    }
    let mut cause = failure.cause.as_deref();
    while let Some(inner) = cause {
        notes.push(format!("caused by {}: {}{}", inner.code, inner.message, at(inner)));
        cause = inner.cause.as_deref();
    }
    notes.push(calls(run));
    notes.extend(printed(run));
    let message = match (&failure.code, &sides) {
        // The message has both sides, which the notes show better; what stands before them is the reason.
        (RunCode::AssertionFailed, Some(_)) => reason(failure, sources, test),
        _ => failure.message.clone(),
    };
    let shown = Shown { id: failure.code.as_str(), message: &message, place, notes: &notes, helps: &[] };
    Some(show(&shown, colour))
}

/// Where a failed test stands, as `file:line`; the test's own line if the failure says none.
pub fn place(run: &Run, test: &TestEntry, sources: &SourceSet) -> String {
    let failure = match &run.outcome {
        Outcome::Err(failure) => Some(failure),
        Outcome::Ok(_) => None,
    };
    let place = failure.and_then(|failure| Found::of(failure, sources).place).or_else(|| test_place(test, sources));
    place
        .map_or_else(String::new, |(source, span)| format!("{}:{}", source.name(), source.line_column(span.start).line))
}

fn test_place<'s>(test: &TestEntry, sources: &'s SourceSet) -> Option<(&'s Source, Span)> {
    let file = sources.files().iter().find(|file| file.source.file().0 == test.at.file)?;
    let decl = file.parse.tree().declarations().find(|decl| decl.span().start == test.at.start)?;
    let Decl::TestDecl(node) = decl else { return None };
    Some((&file.source, node.title().map_or(node.span(), |title| title.span())))
}

/// Where a failure came up, and the sides of the comparison that it is about.
#[derive(Default)]
struct Found<'s> {
    place: Option<(&'s Source, Span)>,
    sides: Option<(Value, Value)>,
}

impl<'s> Found<'s> {
    fn of(failure: &Failure, sources: &'s SourceSet) -> Self {
        let Some((name, line)) = failure.at.rsplit_once(':') else { return Self::default() };
        let (Ok(line), Some(file)) =
            (line.parse::<u32>(), sources.files().iter().find(|file| file.source.name() == name))
        else {
            return Self::default();
        };
        let data = failure.data.as_ref().and_then(|data| codec::decode(data).ok());
        let field = |name: &str| data.as_ref().and_then(|data| field(data, name));
        if failure.code == RunCode::AssertionFailed
            && let Some(Value::Int(part)) = field("part")
            && let Some(span) = assertion(file.parse.tree().syntax(), &file.source, line, part as usize)
        {
            let sides = field("left").zip(field("right"));
            return Self { place: Some((&file.source, span)), sides };
        }
        Self { place: line_span(&file.source, line).map(|span| (&file.source, span)), sides: None }
    }
}

fn field(value: &Value, name: &str) -> Option<Value> {
    let Value::Record(record) = value else { return None };
    let place = record.shape.fields.iter().position(|field| field == name)?;
    record.values.get(place).cloned()
}

/// The conjunct with this number of an `assert`, if it stands in this line.
fn assertion(tree: &SyntaxNode, source: &Source, line: u32, part: usize) -> Option<Span> {
    tree.descendants().filter_map(AssertStmt::cast).find_map(|node| {
        let span = asserted_parts(&node).get(part)?.span();
        (source.line_column(span.start).line == line).then_some(span)
    })
}

/// A line without the spaces around it.
fn line_span(source: &Source, line: u32) -> Option<Span> {
    let mut start = 0;
    for (number, text) in (1..).zip(source.text().split_inclusive('\n')) {
        if number == line {
            let inner = text.trim();
            let from = start + (text.len() - text.trim_start().len()) as u32;
            return Some(Span::new(from, from + inner.len() as u32));
        }
        start += text.len() as u32;
    }
    None
}

/// What the test says about the assertion, or what it asserts.
fn reason(failure: &Failure, sources: &SourceSet, test: &TestEntry) -> String {
    let said = failure.message.split(": ").next().unwrap_or_default();
    let text = Found::of(failure, sources).place.or_else(|| test_place(test, sources));
    let text = text.and_then(|(source, span)| source.text().get(span.start as usize..span.end as usize));
    match (said, text) {
        ("the assertion does not hold", Some(text)) if !text.contains('\n') => format!("this does not hold: {text}"),
        (said, _) => said.to_owned(),
    }
}

fn at(failure: &Failure) -> String {
    if failure.at.is_empty() { String::new() } else { format!(" (at {})", failure.at) }
}

/// Where two values part first, if that is not at their roots.
fn first_difference(left: &Value, right: &Value) -> Option<String> {
    let mut path = String::from("$");
    let (mut left, mut right) = (left.clone(), right.clone());
    loop {
        let next = match (&left, &right) {
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
                if a.len() != b.len() && a.iter().zip(b.iter()).all(|(a, b)| to_json(a) == to_json(b)) {
                    let whose = if path == "$" { String::new() } else { format!("at {path} ") };
                    return Some(format!("{whose}the left has {} items and the right {}", a.len(), b.len()));
                }
                let place = a.iter().zip(b.iter()).position(|(a, b)| to_json(a) != to_json(b));
                place.map(|place| (format!("[{place}]"), a[place].clone(), b[place].clone()))
            }
            (Value::Record(a), Value::Record(b)) | (Value::Variant(a), Value::Variant(b)) if a.shape == b.shape => {
                let place = a.values.iter().zip(&b.values).position(|(a, b)| to_json(a) != to_json(b));
                place.map(|place| {
                    (format!(".{}", a.shape.fields[place]), a.values[place].clone(), b.values[place].clone())
                })
            }
            (Value::Ok(a), Value::Ok(b)) | (Value::Err(a), Value::Err(b)) => {
                Some((String::new(), a.as_ref().clone(), b.as_ref().clone()))
            }
            _ => None,
        };
        let Some((step, a, b)) = next else { break };
        path += &step;
        (left, right) = (a, b);
    }
    if path == "$" {
        return None;
    }
    let side = |side: &Value| cut(&to_json(side), SIDE_CHARS_MAX);
    Some(format!("they differ at {path}: {} and {}", side(&left), side(&right)))
}

fn calls(run: &Run) -> String {
    let calls = &run.seen.calls;
    let clock = run.clock;
    if calls.is_empty() {
        return format!("nothing was called in {} ms", clock.0);
    }
    let shown = calls.iter().take(CALLS_SHOWN_MAX).map(|call| match &call.input {
        Value::Unit => format!("{}()", call.name),
        input => format!("{}({})", call.name, cut(&to_json(input), INPUT_CHARS_MAX)),
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = calls.len().saturating_sub(CALLS_SHOWN_MAX);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("calls in {} ms: {shown}{more}", clock.0)
}

/// What the program printed on the way: the last lines, since those are nearest to the failure.
fn printed(run: &Run) -> Option<String> {
    let lines = &run.seen.printed;
    let left_out = lines.len().saturating_sub(LINES_SHOWN_MAX);
    let shown = lines.iter().skip(left_out).map(|(by, line)| format!("\n{by}: {}", cut(line, SIDE_CHARS_MAX)));
    let left_out = if left_out == 0 { String::new() } else { format!(" ({left_out} lines before these)") };
    (!lines.is_empty()).then(|| format!("printed{left_out}:{}", shown.collect::<String>()))
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}
