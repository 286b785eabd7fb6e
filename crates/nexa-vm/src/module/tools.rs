//! Tools, who may call them, and what models are offered: tables beside the functions.

use nexa_event::effect::{Risk, ToolChoice, ToolEffect, ToolLimits, ToolSource};
use nexa_types::Millis;

use super::encode::{list, max};
use crate::wire::{Reader, WireError, Writer};

/// A declared tool. [`crate::op::Op::ToolCall`] takes one argument a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Who provides it; looked up by the node that loads the module.
    pub source: ToolSource,
    /// The function around its call, which asks for approval and checks what comes back: it may call the tool without a
    /// grant, and whoever calls it needs one.
    pub function: u32,
    /// The names of its parameters.
    pub params: Vec<String>,
    /// How much harm it can do.
    pub risk: Risk,
    /// Whether it changes anything outside.
    pub effect: ToolEffect,
    /// Whether a call may be sent again when its owner was lost.
    pub idempotent: bool,
    /// The parameter that is the business key.
    pub key: Option<u32>,
    /// What it may reach and use.
    pub limits: ToolLimits,
    /// It must answer within this.
    pub timeout: Millis,
}

/// The tools that a function may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The function.
    pub function: u32,
    /// Indices into [`super::Module::tools`].
    pub tools: Vec<u32>,
}

/// The tools that a model request offers to the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The request, an index into [`super::Module::requests`].
    pub request: u32,
    /// Whether the model is to call them.
    pub choice: ToolChoice,
    /// The tools.
    pub tools: Vec<OfferedTool>,
}

/// A tool, or a flow, as a model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedTool {
    /// What the model calls it.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The record type of its arguments.
    pub args: u32,
}

pub(super) fn write_tool(writer: &mut Writer, tool: &Tool) {
    writer.str(&tool.name);
    let (kind, first, second) = match &tool.source {
        ToolSource::Builtin { name } => (0, name.as_str(), ""),
        ToolSource::Mcp { server, name } => (1, server.as_str(), name.as_str()),
        ToolSource::Wasm { module, export } => (2, module.as_str(), export.as_str()),
    };
    writer.u8(kind);
    writer.str(first);
    writer.str(second);
    writer.u32(tool.function);
    list(writer, &tool.params, |writer, name| writer.str(name));
    writer.u8(tool.risk as u8);
    writer.u8(tool.effect as u8);
    writer.bool(tool.idempotent);
    writer.option(tool.key, Writer::u32);
    let ToolLimits { memory, cpu, file_size, hosts, paths } = &tool.limits;
    writer.option(*memory, Writer::u64);
    writer.option(*cpu, |writer, cpu| writer.u64(cpu.0));
    writer.option(*file_size, Writer::u64);
    list(writer, hosts, |writer, host| writer.str(host));
    list(writer, paths, |writer, path| writer.str(path));
    writer.u64(tool.timeout.0);
}

pub(super) fn write_grant(writer: &mut Writer, grant: &Grant) {
    writer.u32(grant.function);
    list(writer, &grant.tools, |writer, tool| writer.u32(*tool));
}

pub(super) fn write_offer(writer: &mut Writer, offer: &Offer) {
    writer.u32(offer.request);
    writer.u8(match offer.choice {
        ToolChoice::Auto => 0,
        ToolChoice::Required => 1,
        ToolChoice::None => 2,
    });
    list(writer, &offer.tools, |writer, tool| {
        writer.str(&tool.name);
        writer.str(&tool.description);
        writer.u32(tool.args);
    });
}

pub(super) fn read_tool(reader: &mut Reader<'_>) -> Result<Tool, WireError> {
    let name = reader.string()?;
    let source = match (reader.u8()?, reader.string()?, reader.string()?) {
        (0, name, rest) if rest.is_empty() => ToolSource::Builtin { name },
        (1, server, name) => ToolSource::Mcp { server, name },
        (2, module, export) => ToolSource::Wasm { module, export },
        _ => return Err(reader.bad("a tool's source")),
    };
    let function = reader.u32()?;
    let params = reader.list(max::PARTS, Reader::string)?;
    let risk = usize::from(reader.u8()?);
    let risk = *Risk::ALL.get(risk).ok_or_else(|| reader.bad("a tool's risk"))?;
    let effect = usize::from(reader.u8()?);
    let effect = *ToolEffect::ALL.get(effect).ok_or_else(|| reader.bad("a tool's effect"))?;
    Ok(Tool {
        name,
        source,
        function,
        params,
        risk,
        effect,
        idempotent: reader.bool()?,
        key: reader.option(Reader::u32)?,
        limits: ToolLimits {
            memory: reader.option(Reader::u64)?,
            cpu: reader.option(|reader| reader.u64().map(Millis))?,
            file_size: reader.option(Reader::u64)?,
            hosts: reader.list(max::PARTS, Reader::string)?,
            paths: reader.list(max::PARTS, Reader::string)?,
        },
        timeout: Millis(reader.u64()?),
    })
}

pub(super) fn read_grant(reader: &mut Reader<'_>) -> Result<Grant, WireError> {
    Ok(Grant { function: reader.u32()?, tools: reader.list(max::GRANTED, Reader::u32)? })
}

pub(super) fn read_offer(reader: &mut Reader<'_>) -> Result<Offer, WireError> {
    let request = reader.u32()?;
    let choice = match reader.u8()? {
        0 => ToolChoice::Auto,
        1 => ToolChoice::Required,
        2 => ToolChoice::None,
        _ => return Err(reader.bad("whether tools are called")),
    };
    let tools = reader.list(max::GRANTED, |reader| {
        Ok(OfferedTool { name: reader.string()?, description: reader.string()?, args: reader.u32()? })
    })?;
    Ok(Offer { request, choice, tools })
}
