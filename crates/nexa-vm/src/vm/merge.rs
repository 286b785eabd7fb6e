//! One value from the results of a fork's branches.

use std::sync::Arc;

use nexa_types::RunCode;
use nexa_types::limits::STRING_BYTES_MAX;

use super::Vm;
use super::heap::{LIST_BYTES, VALUE_BYTES, text_bytes};
use super::ops::{Flow, too_long};
use super::raise::Fault;
use crate::codec;
use crate::failure;
use crate::json::validate::describe;
use crate::json::{text_of, to_json};
use crate::op::MergeStrategy;
use crate::value::Value;

impl Vm {
    pub(super) fn merge(&mut self, strategy: u16) -> Result<Flow, Fault> {
        let Value::List(branches) = self.top()? else {
            return Err(Fault::mismatch(format!("expected the list of a fork, found {}", describe(self.top()?))));
        };
        let branches = Arc::clone(branches);
        self.charge(LIST_BYTES + VALUE_BYTES * branches.len() as u64)?;
        let failures =
            || branches.iter().filter_map(|branch| if let Value::Err(error) = branch { Some(&**error) } else { None });
        match MergeStrategy::from_number(strategy) {
            Some(MergeStrategy::All) => {
                if failures().next().is_some() {
                    return Err(merge_failed(branches.len(), failures().collect()));
                }
                let values = branches
                    .iter()
                    .map(|branch| if let Value::Ok(value) = branch { (**value).clone() } else { branch.clone() });
                let values = values.collect();
                self.replace(1, Value::List(Arc::new(values)))
            }
            Some(MergeStrategy::Sections) => {
                if failures().count() == branches.len() {
                    return Err(merge_failed(branches.len(), failures().collect()));
                }
                let names = match self.stack.as_slice() {
                    [.., Value::List(names), _] => Arc::clone(names),
                    _ => return Err(Fault::mismatch("the branches' names are no list")),
                };
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
                        Value::Err(error) => {
                            format!("failed: {}", failure::code_of(error).unwrap_or(RunCode::Failed))
                        }
                        Value::Ok(value) => text_of(value).map_err(too_long)?,
                        value => text_of(value).map_err(too_long)?,
                    };
                    let gap = if index > 0 { "\n\n" } else { "" };
                    out.push_str(&format!("{gap}## {name}\n\n{body}"));
                    if out.len() > STRING_BYTES_MAX {
                        return Err(too_long(crate::json::TooLong));
                    }
                }
                self.charge(text_bytes(out.len()))?;
                self.replace(2, Value::Str(out.into()))
            }
            None => Err(Fault::internal("a merge without a strategy")),
        }
    }
}

fn merge_failed(branches: usize, failures: Vec<&Value>) -> Fault {
    let message = format!("{} of {branches} branches failed", failures.len());
    let mut failure = nexa_types::Failure::new(RunCode::MergeFailed, message);
    let data = Value::List(Arc::new(failures.into_iter().cloned().collect()));
    failure.data = codec::try_encode(&data).ok();
    Fault::Failure(Box::new(failure))
}
