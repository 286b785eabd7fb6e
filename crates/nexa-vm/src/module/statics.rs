//! What is known of functions before they run: the kinds of their arguments, and what a scheduler should expect.
//!
//! Both are tables beside the functions, of those only about which there is something to say.

use nexa_event::effect::Remembering;
use nexa_types::Millis;
use nexa_types::limits::{HEAP_BYTES_DEFAULT, HEAP_BYTES_MAX};

use super::{Function, Module};
use crate::value::{Stage, Value};
use crate::vm::ENTRY_CALLABLE;
use crate::wire::{Reader, WireError, Writer};

/// What is known of an argument.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    #[default]
    Any,
    /// It is an int.
    Int,
    /// It is a float.
    Float,
    /// It is a bool.
    Bool,
}

impl Kind {
    /// Whether a value is of this kind.
    #[must_use]
    pub fn holds(self, value: &Value) -> bool {
        match self {
            Kind::Any => true,
            Kind::Int => matches!(value, Value::Int(_)),
            Kind::Float => matches!(value, Value::Float(_)),
            Kind::Bool => matches!(value, Value::Bool(_)),
        }
    }

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Any => "any",
            Kind::Int => "int",
            Kind::Float => "float",
            Kind::Bool => "bool",
        }
    }
}

/// What a scheduler should expect of an agent, and what the agent may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// 0 to 255, higher first.
    pub priority: u8,
    /// How much it counts beside others, in merges and in shares.
    pub weight: f64,
    /// How long it is expected to take.
    pub estimate: Millis,
    /// Cores, in thousandths.
    pub cpu_milli: u32,
    /// Memory, in bytes; also the limit of its heap.
    pub memory_bytes: u64,
    /// Model requests that it has under way at a time.
    pub llm_slots: u32,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule {
            priority: 128,
            weight: 1.0,
            estimate: Millis(2_000),
            cpu_milli: 100,
            memory_bytes: HEAP_BYTES_DEFAULT,
            llm_slots: 1,
        }
    }
}

impl Module {
    /// How the conversation of a model request is remembered, if it is.
    #[must_use]
    pub fn memory_of(&self, request: u32) -> Option<Remembering> {
        let place = self.memories.binary_search_by_key(&request, |(number, _)| *number);
        place.ok().and_then(|place| self.memories.get(place)).map(|(_, memory)| *memory)
    }

    /// The schedule of a function, as written or by default.
    #[must_use]
    pub fn schedule_of(&self, function: u32) -> Schedule {
        let place = self.schedules.binary_search_by_key(&function, |(number, _)| *number);
        place.ok().and_then(|place| self.schedules.get(place)).map_or_else(Schedule::default, |(_, found)| *found)
    }

    /// The most bytes of values that a VM may hold that starts like this, see [`crate::Vm::start`].
    #[must_use]
    pub fn heap_limit(&self, entry: u32, args: &[Value]) -> u64 {
        let function =
            if entry == ENTRY_CALLABLE { args.first().and_then(|callee| self.runs(callee)) } else { Some(entry) };
        function.map_or(HEAP_BYTES_DEFAULT, |function| self.schedule_of(function).memory_bytes).min(HEAP_BYTES_MAX)
    }

    /// The function that a callable starts with.
    fn runs(&self, callee: &Value) -> Option<u32> {
        let mut callee = callee;
        loop {
            match callee {
                Value::Agent(agent) => return self.agents.get(*agent as usize).map(|agent| agent.function),
                Value::Closure(closure) => return Some(closure.function),
                Value::Stage(stage) => match &**stage {
                    Stage::Partial { callee: inner, .. } => callee = inner,
                    Stage::Chain(_) => return None,
                },
                _ => return None,
            }
        }
    }
}

pub(super) fn write_kinds(writer: &mut Writer, (function, kinds): &(u32, &[Kind])) {
    writer.u32(*function);
    writer.count(kinds.len());
    for kind in *kinds {
        writer.u8(match kind {
            Kind::Any => 0,
            Kind::Int => 1,
            Kind::Float => 2,
            Kind::Bool => 3,
        });
    }
}

pub(super) fn read_kinds(reader: &mut Reader<'_>) -> Result<(u32, Vec<Kind>), WireError> {
    let function = reader.u32()?;
    let kinds = reader.list(usize::from(u8::MAX), |reader| {
        Ok(match reader.u8()? {
            0 => Kind::Any,
            1 => Kind::Int,
            2 => Kind::Float,
            3 => Kind::Bool,
            _ => return Err(reader.bad("a kind")),
        })
    })?;
    if kinds.iter().all(|kind| *kind == Kind::Any) {
        return Err(reader.bad("kinds of which one is known"));
    }
    Ok((function, kinds))
}

/// Hands the kinds to their functions, which come in ascending order.
pub(super) fn put_kinds(functions: &mut [Function], kinds: Vec<(u32, Vec<Kind>)>) -> Result<(), WireError> {
    let bad = |what| Err(Reader::new(&[]).bad(what));
    let mut next = 0;
    for (number, kinds) in kinds {
        match functions.get_mut(number as usize) {
            Some(function) if number >= next => function.param_kinds = kinds,
            _ => return bad("functions in ascending order"),
        }
        next = number + 1;
    }
    Ok(())
}

pub(super) fn write_schedule(writer: &mut Writer, (function, schedule): &(u32, Schedule)) {
    writer.u32(*function);
    writer.u8(schedule.priority);
    writer.f64(schedule.weight);
    writer.u64(schedule.estimate.0);
    writer.u32(schedule.cpu_milli);
    writer.u64(schedule.memory_bytes);
    writer.u32(schedule.llm_slots);
}

pub(super) fn read_schedule(reader: &mut Reader<'_>) -> Result<(u32, Schedule), WireError> {
    let function = reader.u32()?;
    let schedule = Schedule {
        priority: reader.u8()?,
        weight: reader.f64()?,
        estimate: Millis(reader.u64()?),
        cpu_milli: reader.u32()?,
        memory_bytes: reader.u64()?,
        llm_slots: reader.u32()?,
    };
    Ok((function, schedule))
}
