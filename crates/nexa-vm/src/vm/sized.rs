//! Operations whose result may be of any size: calls of standard functions, joined texts, and conversions.
//!
//! Where the heap seems full, they count what is alive and try once more; only then is it full.

use std::sync::Arc;

use nexa_types::RunCode;
use nexa_types::limits::STRING_BYTES_MAX;

use super::Vm;
use super::heap::text_bytes;
use super::ops::{Flow, no_text};
use super::raise::Fault;
use crate::json::text_of;
use crate::json::validate::validate_within;
use crate::stdlib;
use crate::value::{GROWING_MIN, Text, Value};

impl Vm {
    pub(super) fn call_std(&mut self, count: usize, number: u16) -> Result<Flow, Fault> {
        let from = self.stack.len().checked_sub(count).ok_or_else(|| Fault::internal("operands are missing"))?;
        let loan = if count > 0 { self.lend(from) } else { None };
        match self.standard(from, number) {
            Ok((result, depth)) => {
                let is_shallow = match depth {
                    stdlib::Depth::Unknown => self.heap.note_result(&result),
                    stdlib::Depth::Known => true,
                    stdlib::Depth::Reached => false,
                };
                self.replace(count, result)?;
                if !is_shallow {
                    self.recount(0)?;
                }
                Ok(Flow::Next)
            }
            Err(fault) => {
                if let Some(loan) = loan {
                    self.give_back(loan);
                }
                Err(fault)
            }
        }
    }

    /// Calls a standard function with the operands from a place on.
    fn standard(&mut self, from: usize, number: u16) -> Result<(Value, stdlib::Depth), Fault> {
        let mut is_counted = false;
        loop {
            let program = &self.program;
            let mut context = stdlib::Context::new(program.module(), &mut self.heap);
            match stdlib::call(&mut context, number, &mut self.stack[from..]) {
                Ok(result) => return Ok((result, context.depth)),
                Err(stdlib::StdFault::Failure(failure)) => return Err(Fault::Failure(failure)),
                // Its operands are still on the stack and it has done nothing yet that shows: count, and call again.
                Err(stdlib::StdFault::Exhausted) if !is_counted => {
                    is_counted = true;
                    self.recount(0)?;
                }
                Err(stdlib::StdFault::Exhausted) => {
                    let limit = self.heap.limit;
                    let message = format!(
                        "the agent's values take more than {limit} bytes; keep less, or raise `schedule.memory`"
                    );
                    return Err(Fault::new(RunCode::OutOfMemory, message));
                }
            }
        }
    }

    pub(super) fn concat(&mut self, count: usize) -> Result<Flow, Fault> {
        let from = self.stack.len().checked_sub(count).ok_or_else(|| Fault::internal("operands are missing"))?;
        // A long text that is about to be overwritten is made longer where it is.
        let loan = match self.stack.get(from) {
            Some(Value::Str(text)) if text.len() >= GROWING_MIN => self.lend(from),
            _ => None,
        };
        let is_own = match self.stack.get_mut(from) {
            Some(Value::Str(text)) => text.len() >= GROWING_MIN && text.is_own(),
            _ => false,
        };
        match self.concatenated(from, is_own) {
            Ok(text) => self.replace(count, Value::Str(text)),
            Err(fault) => {
                if let Some(loan) = loan {
                    self.give_back(loan);
                }
                Err(fault)
            }
        }
    }

    /// The texts of the operands from a place on. The first one is a text that may be changed if `is_own`.
    fn concatenated(&mut self, from: usize, is_own: bool) -> Result<Text, Fault> {
        let kept = usize::from(is_own);
        let mut len: usize = self.stack[from..from + kept]
            .iter()
            .map(|text| if let Value::Str(text) = text { text.len() } else { 0 })
            .sum();
        let mut out = String::new();
        for value in &self.stack[from + kept..] {
            let before = out.len();
            match value {
                Value::Str(text) => out.push_str(text),
                other => out.push_str(&text_of(other).map_err(no_text)?),
            }
            len += out.len() - before;
            if len > STRING_BYTES_MAX {
                return Err(no_text(crate::json::NoText::TooLong));
            }
        }
        self.charge(if is_own { out.len() as u64 } else { text_bytes(out.len()) })?;
        if is_own && let Some(Value::Str(first)) = self.stack.get_mut(from).map(std::mem::take) {
            return Ok(first.append(&out));
        }
        Ok(out.into())
    }

    pub(super) fn check_type(&mut self, ty: u32) -> Result<Flow, Fault> {
        let mut is_counted = false;
        loop {
            let program = Arc::clone(&self.program);
            let Some(value) = self.stack.last() else { return Err(Fault::internal("an operand is missing")) };
            let heap = &mut self.heap;
            match validate_within(program.module(), ty, value, heap) {
                Ok(Ok(value)) => return self.replace(1, value),
                Ok(Err(violations)) => {
                    let words: Vec<String> = violations.iter().take(5).map(ToString::to_string).collect();
                    return Err(Fault::mismatch(words.join("; ")));
                }
                Err(_) if is_counted => {
                    return Err(Fault::new(
                        RunCode::OutOfMemory,
                        "the converted value takes more memory than there is",
                    ));
                }
                Err(_) => {
                    is_counted = true;
                    self.recount(0)?;
                }
            }
        }
    }
}
