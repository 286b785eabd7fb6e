//! `regex.*`: patterns that match in linear time.

use std::cell::RefCell;
use std::collections::VecDeque;

use nexa_types::RunCode;
use regex::{Regex, RegexBuilder};

use super::{Context, StdFault, fail, str_arg};
use crate::value::Value;
use crate::vm::heap::{LIST_BYTES, VALUE_BYTES, text_bytes};

/// A compiled pattern takes at most so many bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Compiled patterns that are kept.
const KEPT_MAX: usize = 8;

/// What compiling a pattern counts as, in bytes that are looked at: a third of a slice.
const PATTERN_WORK: u64 = 96 << 10;

/// Compiles a pattern, or says in one line what is wrong with it.
pub(crate) fn compile_regex(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).nest_limit(64).build().map_err(|error| {
        let text = error.to_string();
        text.lines().last().unwrap_or("not a pattern").trim_start_matches("error: ").to_owned()
    })
}

/// The same as [`compile_regex`] for a pattern that is likely to be matched again: programs match one pattern with many
/// texts. The patterns that were used last are kept, [`KEPT_MAX`] a thread; more push out the one that waited longest.
pub(crate) fn known_regex(pattern: &str) -> Result<Regex, String> {
    thread_local! {
        static KEPT: RefCell<VecDeque<Regex>> = const { RefCell::new(VecDeque::new()) };
    }
    KEPT.with_borrow_mut(|kept| {
        let known = kept.iter().position(|regex| regex.as_str() == pattern).and_then(|place| kept.remove(place));
        let regex = match known {
            Some(regex) => regex,
            None => compile_regex(pattern)?,
        };
        kept.push_front(regex.clone());
        kept.truncate(KEPT_MAX);
        Ok(regex)
    })
}

/// A pattern that was compiled, for whoever matches it more than once.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// One line about what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, String> {
        compile_regex(pattern).map(Pattern)
    }

    /// Whether it is found in a text.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// Whether a pattern can be compiled; otherwise one line about what is wrong with it.
///
/// # Errors
/// The line.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    compile_regex(pattern).map(|_| ())
}

fn pattern_arg(context: &mut Context<'_>, args: &[Value]) -> Result<Regex, StdFault> {
    let pattern = str_arg(args, 0)?;
    context.read(PATTERN_WORK);
    known_regex(pattern).map_err(|error| fail(RunCode::ParseFailed, format!("not a valid pattern: {error}")))
}

pub(super) fn test(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    Ok(Value::Bool(pattern_arg(context, args)?.is_match(str_arg(args, 1)?)))
}

pub(super) fn find(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let text = str_arg(args, 1)?;
    match pattern_arg(context, args)?.find(text) {
        Some(found) => context.text(found.as_str()),
        None => Ok(Value::None),
    }
}

pub(super) fn all(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let text = str_arg(args, 1)?;
    context.charge(LIST_BYTES)?;
    let mut found = Vec::new();
    for part in pattern_arg(context, args)?.find_iter(text) {
        context.charge(2 * VALUE_BYTES + text_bytes(part.len()))?;
        found.push(Value::Str(part.as_str().into()));
    }
    Ok(Value::List(std::sync::Arc::new(found)))
}

/// Every match; `$1` or `${name}` in the replacement stand for groups.
pub(super) fn replace(context: &mut Context<'_>, args: &[Value]) -> Result<Value, StdFault> {
    let (text, with) = (str_arg(args, 1)?, str_arg(args, 2)?);
    let pattern = pattern_arg(context, args)?;
    let mut out = String::new();
    let mut end = 0;
    for captures in pattern.captures_iter(text) {
        // Group 0, the whole match, is always there.
        let Some(whole) = captures.get(0) else { continue };
        let before = out.len();
        out.push_str(&text[end..whole.start()]);
        captures.expand(with, &mut out);
        end = whole.end();
        context.charge((out.len() - before) as u64)?;
    }
    out.push_str(&text[end..]);
    context.text(out)
}
