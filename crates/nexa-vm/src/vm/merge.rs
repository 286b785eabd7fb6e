//! One value from the results of a fork's branches.
//!
//! In:  the branches' results in declaration order, and the strategy's options.
//! Out: one value, or `merge_failed` with every branch's error as its data.

use std::collections::BTreeMap;
use std::sync::Arc;

use nexa_types::limits::STRING_BYTES_MAX;
use nexa_types::{Failure, RunCode};

use super::Vm;
use super::arithmetic::canonical;
use super::equal::Work;
use super::heap::{LIST_BYTES, Meter as _, VALUE_BYTES, text_bytes};
use super::ops::{Flow, no_text, too_much_work};
use super::raise::Fault;
use crate::codec;
use crate::failure;
use crate::json::validate::describe;
use crate::json::{NoText, text_of, to_json};
use crate::op::MergeStrategy;
use crate::value::Value;

impl Vm {
    pub(super) fn merge(&mut self, strategy: u16) -> Result<Flow, Fault> {
        let strategy = MergeStrategy::from_number(strategy);
        let strategy = strategy.ok_or_else(|| Fault::internal("a merge without a strategy"))?;
        let count = strategy.operands();
        let from = self.stack.len().checked_sub(count).ok_or_else(|| Fault::internal("an operand is missing"))?;
        let operands = self.stack[from..].to_vec();
        let merged = self.merged(strategy, &operands);
        if let Err(Fault::Failure(failure)) = &merged {
            // The errors of all branches were written out.
            self.heap.read(failure.data.as_ref().map_or(0, |data| data.len() as u64));
        }
        self.replace(count, merged?)
    }

    fn merged(&mut self, strategy: MergeStrategy, operands: &[Value]) -> Result<Value, Fault> {
        if let Some(Value::List(branches)) = operands.iter().rev().find(|value| matches!(value, Value::List(_))) {
            self.heap.read(VALUE_BYTES * branches.len() as u64);
        }
        Ok(match (strategy, operands) {
            (MergeStrategy::All, [Value::List(branches)]) => {
                if failures(branches).next().is_some() {
                    return Err(too_few(branches, branches.len(), branches.len()));
                }
                self.ok_values(branches)?
            }
            (MergeStrategy::Sections, [Value::List(names), Value::List(branches)]) => {
                need(branches, 1)?;
                self.sections(names, branches)?
            }
            (MergeStrategy::AtLeast, [Value::List(branches), Value::Int(min_ok)]) => {
                need(branches, *min_ok)?;
                self.ok_values(branches)?
            }
            (MergeStrategy::Concat, [Value::List(branches), Value::Str(separator), Value::Int(min_ok)]) => {
                need(branches, *min_ok)?;
                self.joined(branches, separator)?
            }
            (MergeStrategy::Vote | MergeStrategy::VoteWithoutTie, [Value::List(branches), Value::Int(min_ok)]) => {
                need(branches, *min_ok)?;
                self.voted(branches, strategy == MergeStrategy::Vote)?
            }
            (MergeStrategy::WeightedAverage, [Value::List(branches), Value::List(weights), Value::Int(min_ok)]) => {
                need(branches, *min_ok)?;
                weighted_average(branches, weights)?
            }
            (_, operands) => {
                let found: Vec<String> = operands.iter().map(describe).collect();
                return Err(Fault::mismatch(format!(
                    "expected the list of a fork and how to merge it, found {}",
                    found.join(", ")
                )));
            }
        })
    }

    fn ok_values(&mut self, branches: &[Value]) -> Result<Value, Fault> {
        self.charge(LIST_BYTES + VALUE_BYTES * branches.len() as u64)?;
        Ok(Value::List(Arc::new(ok(branches).map(|(_, value)| value.clone()).collect())))
    }

    fn sections(&mut self, names: &[Value], branches: &[Value]) -> Result<Value, Fault> {
        let mut out = String::new();
        for (index, branch) in branches.iter().enumerate() {
            let name = names.get(index).map_or_else(
                || format!("Branch {}", index + 1),
                |name| match name {
                    Value::Str(name) => name.as_ref().to_owned(),
                    other => to_json(other),
                },
            );
            let body = match branch {
                Value::Err(error) => format!("failed: {}", failure::code_of(error).unwrap_or(RunCode::Failed)),
                Value::Ok(value) => text_of(value).map_err(no_text)?,
                value => text_of(value).map_err(no_text)?,
            };
            let gap = if index > 0 { "\n\n" } else { "" };
            out.push_str(&format!("{gap}## {name}\n\n{body}"));
            if out.len() > STRING_BYTES_MAX {
                return Err(no_text(NoText::TooLong));
            }
        }
        self.charge(text_bytes(out.len()))?;
        Ok(Value::Str(out.into()))
    }

    /// Texts with a separator between them, or lists one after the other.
    fn joined(&mut self, branches: &[Value], separator: &str) -> Result<Value, Fault> {
        let is_text = ok(branches).all(|(_, value)| matches!(value, Value::Str(_)));
        if is_text {
            let texts: Vec<&str> = ok(branches).filter_map(|(_, value)| failure::text(value)).collect();
            let gaps = separator.len().saturating_mul(texts.len().saturating_sub(1));
            let len = texts.iter().map(|text| text.len()).fold(gaps, usize::saturating_add);
            if len > STRING_BYTES_MAX {
                return Err(no_text(NoText::TooLong));
            }
            self.charge(text_bytes(len))?;
            return Ok(Value::Str(texts.join(separator).into()));
        }
        let mut lists: Vec<&[Value]> = Vec::new();
        for (_, value) in ok(branches) {
            match value {
                Value::List(list) => lists.push(list),
                other => {
                    let found = describe(other);
                    return Err(Fault::mismatch(format!("only texts, or only lists, can be joined; found {found}")));
                }
            }
        }
        let len: usize = lists.iter().map(|list| list.len()).sum();
        self.charge(LIST_BYTES + VALUE_BYTES * len as u64)?;
        Ok(Value::List(Arc::new(lists.concat())))
    }

    fn voted(&mut self, branches: &[Value], may_tie: bool) -> Result<Value, Fault> {
        // The texts are compared as copies, which take room while this lasts.
        let texts = ok(branches).filter_map(|(_, value)| failure::text(value));
        let room = texts.fold(0, |room: u64, text| room.saturating_add(text_bytes(text.len())));
        self.charge(room)?;
        let mut work = Work::new();
        let candidates = count_votes(branches, &mut work)?;
        self.heap.read(work.bytes());
        let most = candidates.iter().map(|(_, votes)| *votes).max().unwrap_or_default();
        let mut winners = candidates.iter().filter(|(_, votes)| *votes == most).map(|(value, _)| *value);
        let (first, second) = (winners.next(), winners.next());
        match first {
            Some(winner) if may_tie || second.is_none() => Ok(winner.clone()),
            _ => Err(merge_failed(branches, format!("the vote is a tie: several values have {most} each"))),
        }
    }
}

/// The ok values, each with the number of its branch. What is no result never failed.
fn ok(branches: &[Value]) -> impl Iterator<Item = (usize, &Value)> {
    branches.iter().enumerate().filter_map(|(index, branch)| match branch {
        Value::Ok(value) => Some((index, &**value)),
        Value::Err(_) => None,
        value => Some((index, value)),
    })
}

fn failures(branches: &[Value]) -> impl Iterator<Item = &Value> {
    branches.iter().filter_map(|branch| if let Value::Err(error) = branch { Some(&**error) } else { None })
}

/// Fails unless at least so many branches, and at least one, are ok.
fn need(branches: &[Value], min_ok: i64) -> Result<(), Fault> {
    let min_ok = usize::try_from(min_ok).unwrap_or_default().max(1);
    if ok(branches).count() < min_ok { Err(too_few(branches, branches.len(), min_ok)) } else { Ok(()) }
}

/// So few of `count` branches are ok that the merge fails; `branches` are the results that are known.
pub(super) fn too_few(branches: &[Value], count: usize, min_ok: usize) -> Fault {
    let failed = failures(branches).count();
    merge_failed(branches, format!("{failed} of {count} branches failed, and at least {min_ok} must succeed"))
}

/// The failure of a merge. Its data is the list of all branches' errors.
fn merge_failed(branches: &[Value], message: String) -> Fault {
    let mut failure = Failure::new(RunCode::MergeFailed, message);
    let data = Value::List(Arc::new(failures(branches).cloned().collect()));
    failure.data = codec::try_encode(&data).ok();
    Fault::Failure(Box::new(failure))
}

/// The values that differ, in the order in which they are first there, each with how often it is there.
fn count_votes<'b>(branches: &'b [Value], work: &mut Work) -> Result<Vec<(&'b Value, usize)>, Fault> {
    let mut candidates: Vec<(&'b Value, usize)> = Vec::new();
    let mut texts: BTreeMap<String, usize> = BTreeMap::new();
    for (_, value) in ok(branches) {
        let known = match value {
            Value::Str(text) => {
                let next = candidates.len();
                let place = *texts.entry(plain_words(text)).or_insert(next);
                (place < next).then_some(place)
            }
            value => {
                let mut found = None;
                for (place, (other, _)) in candidates.iter().enumerate() {
                    if work.equal(value, other).map_err(too_much_work)? {
                        found = Some(place);
                        break;
                    }
                }
                found
            }
        };
        match known.and_then(|place| candidates.get_mut(place)) {
            Some((_, votes)) => *votes += 1,
            None => candidates.push((value, 1)),
        }
    }
    Ok(candidates)
}

/// A text as votes are compared: trimmed, in lower case, with one space where there are several.
fn plain_words(text: &str) -> String {
    text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// `Σ weight·value / Σ weight` over the ok branches, summed in declaration order.
fn weighted_average(branches: &[Value], weights: &[Value]) -> Result<Value, Fault> {
    if weights.len() != branches.len() {
        return Err(Fault::mismatch(format!("there are {} weights for {} branches", weights.len(), branches.len())));
    }
    let (mut total, mut weight_sum) = (0.0, 0.0);
    for (index, value) in ok(branches) {
        let weight = number(&weights[index])?;
        total += weight * number(value)?;
        weight_sum += weight;
    }
    if weight_sum == 0.0 {
        return Err(merge_failed(branches, "the weights of the branches that did not fail add up to 0".to_owned()));
    }
    Ok(canonical(total / weight_sum))
}

fn number(value: &Value) -> Result<f64, Fault> {
    match value {
        Value::Int(int) => Ok(*int as f64),
        Value::Float(float) => Ok(*float),
        other => Err(Fault::mismatch(format!("an average is of numbers; found {}", describe(other)))),
    }
}
