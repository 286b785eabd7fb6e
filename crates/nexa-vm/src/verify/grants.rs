//! V10: a tool is called only where it was granted.
//!
//! A grant stands for a function. Two ways lead to a tool: the call itself, and the function around it, which asks for
//! approval. The function around a tool may call that tool, and may stand as a value only where the tool is granted, so
//! whoever passes such a value on passes on what it was granted itself.

use std::collections::{BTreeMap, BTreeSet};

use super::VerifyError;
use super::flow::range_error;
use crate::module::{Module, Type, max};
use crate::op::{Op, Word};

pub(super) fn check(module: &Module) -> Result<(), VerifyError> {
    let wrappers = tools(module)?;
    let grants = granted(module)?;
    offers(module)?;
    if module.tools.is_empty() {
        // An instruction that names a tool is refused for its operand.
        return Ok(());
    }
    for (index, function) in module.functions.iter().enumerate() {
        let index = index as u32;
        let mut at = 0;
        while let Some(word) = Word::read(&function.code, at) {
            let called: &[u32] = match word.op {
                Op::ToolCall => &[u32::from(word.b)],
                Op::Call | Op::TailCall | Op::Closure => wrappers.get(&u32::from(word.b)).map_or(&[], Vec::as_slice),
                _ => &[],
            };
            let may = |tool: &u32| {
                let is_own = word.op == Op::ToolCall && wrappers.get(&index).is_some_and(|own| own.contains(tool));
                is_own || grants.get(&index).is_some_and(|granted| granted.contains(tool))
            };
            if let Some(tool) = called.iter().find(|tool| !may(tool)) {
                let name = module.tools.get(*tool as usize).map_or("?", |tool| &tool.name);
                let what = format!("the tool `{name}` is called and was not granted");
                return Err(VerifyError { code: "E1004", what, function: function.name.clone(), at: Some(at) });
            }
            at += word.len;
        }
    }
    Ok(())
}

/// The tools by the function around them.
fn tools(module: &Module) -> Result<BTreeMap<u32, Vec<u32>>, VerifyError> {
    if module.tools.len() > max::TOOLS {
        let what = format!("the module has {} tools, more than {}", module.tools.len(), max::TOOLS);
        return Err(VerifyError::new("E1006", what));
    }
    let mut wrappers: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (number, tool) in module.tools.iter().enumerate() {
        let name = &tool.name;
        let takes = module.functions.get(tool.function as usize).filter(|function| function.captures == 0);
        if takes.is_none_or(|function| usize::from(function.arity) != tool.params.len()) {
            return Err(range_error(format!("the tool `{name}` has no function that takes its parameters")));
        }
        if tool.params.len() > usize::from(u8::MAX) {
            return Err(range_error(format!("the tool `{name}` has more than 255 parameters")));
        }
        if tool.params.iter().collect::<BTreeSet<_>>().len() != tool.params.len() {
            return Err(range_error(format!("the tool `{name}` has two parameters of one name")));
        }
        if tool.key.is_some_and(|key| key as usize >= tool.params.len()) {
            return Err(range_error(format!("the key of the tool `{name}` is none of its parameters")));
        }
        wrappers.entry(tool.function).or_default().push(number as u32);
    }
    Ok(wrappers)
}

fn granted(module: &Module) -> Result<BTreeMap<u32, BTreeSet<u32>>, VerifyError> {
    let mut grants = BTreeMap::new();
    let mut last = None;
    for grant in &module.grants {
        let is_known = (grant.function as usize) < module.functions.len()
            && grant.tools.iter().all(|tool| (*tool as usize) < module.tools.len());
        if !is_known || grant.tools.len() > max::GRANTED || last >= Some(grant.function) {
            return Err(range_error(format!("the grants of function {} are out of range or order", grant.function)));
        }
        last = Some(grant.function);
        grants.insert(grant.function, grant.tools.iter().copied().collect());
    }
    Ok(grants)
}

fn offers(module: &Module) -> Result<(), VerifyError> {
    let mut last = None;
    for offer in &module.offers {
        let names: BTreeSet<&str> = offer.tools.iter().map(|tool| tool.name.as_str()).collect();
        let is_record = |args: u32| matches!(module.types.get(args as usize), Some(Type::Record(_)));
        let is_right = (offer.request as usize) < module.requests.len()
            && last < Some(offer.request)
            && offer.tools.len() <= max::GRANTED
            && names.len() == offer.tools.len()
            && offer.tools.iter().all(|tool| is_record(tool.args));
        if !is_right {
            return Err(range_error(format!("the offer of model request {} is not valid", offer.request)));
        }
        last = Some(offer.request);
    }
    Ok(())
}
