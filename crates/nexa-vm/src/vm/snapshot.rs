//! A stopped VM as bytes, and back.
//!
//! `NXS1`, a version, the module's hash, the number of the next effect; then sections, each a number, flags, a length,
//! the first eight bytes of the BLAKE3 of its bytes, and the bytes. A reader skips a section it does not know if the
//! section's first flag says that it may.
//!
//! The heap is a table of values without addresses: each is written after its parts and refers to them by number, so a
//! value that is shared stays shared, no cycle can be written down, and equal states give equal bytes. Texts of the
//! module's constants and its shapes are referred to by their index there.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use nexa_types::limits::{FRAMES_MAX, HEAP_BYTES_MAX, SNAPSHOT_BYTES_MAX, STACK_VALUES_MAX};
use nexa_types::{ModuleHash, Outcome, Payload, Seq, Timestamp};

use super::graph::{Graph, Nodes};
use super::heap::{DEPTH_ALLOWED, Heap};
use super::saved::Saved;
use super::{CHAIN, Catches, Closing, Frame, Handler, Program, State, Vm};
use crate::codec::{self};
use crate::failure;
use crate::value::{Stage, Value};
use crate::verify::UNREACHED;
use crate::wire::{Reader, WireError, Writer};

const MAGIC: [u8; 4] = *b"NXS1";
const VERSION: u8 = 1;

/// Section numbers; stored and never reused.
mod section {
    pub(super) const STATE: u8 = 1;
    pub(super) const HEAP: u8 = 2;
    pub(super) const STACK: u8 = 3;
    pub(super) const FRAMES: u8 = 4;
    pub(super) const HANDLERS: u8 = 5;
    /// Saved states and the agent's memory; absent if there never were any.
    pub(super) const SAVED: u8 = 6;
    /// What the machine ends with once what was deferred has run; absent unless it ends.
    pub(super) const CLOSING: u8 = 7;
}

/// In a section's flags: a reader that does not know the section skips it.
const OPTIONAL: u8 = 1;

/// Why a snapshot was not restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It was made with another module.
    #[error("E1008: the snapshot belongs to module {found}, not to {wanted}; load that module to restore it")]
    OtherModule {
        /// The module it was to be restored into.
        wanted: ModuleHash,
        /// The module it was made with.
        found: ModuleHash,
    },
    /// It is not what a VM wrote.
    #[error("E1009: the snapshot is damaged ({what}); restore an older one and replay the events after it")]
    Damaged {
        /// What is wrong with it.
        what: String,
    },
}

pub(super) fn damaged(what: impl Into<String>) -> SnapshotError {
    SnapshotError::Damaged { what: what.into() }
}

impl From<WireError> for SnapshotError {
    fn from(error: WireError) -> Self {
        damaged(error.to_string())
    }
}

impl Vm {
    /// The whole state as bytes. Equal states give equal bytes, whatever they went through.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut graph = Graph::new(&self.program);
        let mut stack = Writer::new();
        stack.count(self.stack.len());
        for value in &self.stack {
            graph.reference(&mut stack, value);
        }
        let saved = self.saved.write(&mut graph);
        let mut out = Writer::new();
        out.raw(&MAGIC);
        out.u8(VERSION);
        out.raw(self.program.hash().as_bytes());
        out.u64(self.next_seq.0);
        section(&mut out, section::STATE, &self.write_state());
        section(&mut out, section::HEAP, &graph.finish());
        section(&mut out, section::STACK, &stack);
        let mut frames = Writer::new();
        write_frames(&mut frames, &self.frames);
        section(&mut out, section::FRAMES, &frames);
        let mut handlers = Writer::new();
        write_handlers(&mut handlers, &self.handlers);
        section(&mut out, section::HANDLERS, &handlers);
        if let Some(saved) = saved {
            section(&mut out, section::SAVED, &saved);
        }
        if let Some(closing) = &self.closing {
            let mut body = Writer::new();
            body.u32(closing.floor);
            body.bytes(codec::encode(&failure::to_value(&closing.failure)).as_bytes());
            section(&mut out, section::CLOSING, &body);
        }
        out.bytes
    }

    fn write_state(&self) -> Writer {
        let mut state = Writer::new();
        state.u64(self.heap.limit);
        state.u64(self.heap.charged);
        state.u32(self.heap.depth_bound);
        match &self.state {
            State::Running => state.u8(0),
            State::Waiting => state.u8(1),
            State::Ended(Outcome::Ok(payload)) => {
                state.u8(2);
                state.bytes(payload.as_bytes());
            }
            State::Ended(Outcome::Err(failure)) => {
                state.u8(3);
                state.bytes(codec::encode(&failure::to_value(failure)).as_bytes());
            }
        }
        state
    }

    /// A VM that goes on exactly as the one that was stopped.
    ///
    /// # Errors
    /// [`SnapshotError::OtherModule`] (E1008) for a snapshot of another module, [`SnapshotError::Damaged`] (E1009) for
    /// bytes that no VM of this module wrote. Takes no more memory than the VM's own limit allows.
    pub fn restore(program: Arc<Program>, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let sections = Sections::read(&program, bytes)?;
        let (mut heap, state) = read_state(sections.get(section::STATE)?)?;
        let (nodes, depth) = Nodes::read(&program, sections.get(section::HEAP)?, heap.limit)?;
        heap.depth_bound = heap.depth_bound.max(depth);
        let mut reader = sections.get(section::STACK)?;
        let stack = reader.list(STACK_VALUES_MAX, |reader| nodes.reference(reader, &Cell::new(0), true))?;
        reader.end()?;
        let mut reader = sections.get(section::FRAMES)?;
        let frames = read_frames(&mut reader)?;
        reader.end()?;
        let mut reader = sections.get(section::HANDLERS)?;
        let handlers = read_handlers(&mut reader)?;
        reader.end()?;
        let saved = match sections.find(section::SAVED) {
            Some(reader) => Saved::read(reader, &nodes, heap.limit)?,
            None => Saved::default(),
        };
        let closing = match sections.find(section::CLOSING) {
            Some(mut reader) => {
                let floor = reader.u32()?;
                let value = codec::decode_bytes(reader.bytes()?).map_err(|_| damaged("what it ends with"))?;
                reader.end()?;
                if floor as usize > handlers.len() || matches!(state, State::Ended(_)) {
                    return Err(damaged("what it ends with"));
                }
                Some(Closing { failure: failure::from_value(&value), floor })
            }
            None => None,
        };
        drop(nodes);
        let vm = Self {
            program,
            stack,
            frames,
            handlers,
            closing,
            heap,
            saved,
            next_seq: sections.next_seq,
            state,
            fuel_left: 0,
        };
        vm.check_frames().ok_or_else(|| damaged("the frames do not fit the program"))?;
        vm.saved.fits(&vm).ok_or_else(|| damaged("a saved state does not fit the program"))?;
        if vm.state == State::Waiting && (vm.next_seq.0 < 2 || vm.pending().is_none()) {
            return Err(damaged("the pending effect cannot be asked for"));
        }
        Ok(vm)
    }

    /// Whether every frame stands at an instruction, with as many operands as the verifier found there.
    pub(super) fn check_frames(&self) -> Option<()> {
        if matches!(self.state, State::Ended(_)) {
            let is_empty = self.frames.is_empty() && self.stack.is_empty() && self.handlers.is_empty();
            return is_empty.then_some(());
        }
        let mut handlers = 0;
        let mut lowest = 0;
        for (index, frame) in self.frames.iter().enumerate() {
            let above = self.frames.get(index + 1);
            let end = above.map_or(self.stack.len(), |above| above.result as usize);
            let base = frame.base as usize;
            (frame.result as usize >= lowest && frame.result <= frame.base && frame.handlers as usize >= handlers)
                .then_some(())?;
            handlers = frame.handlers as usize;
            if frame.function == CHAIN {
                let Value::Stage(stage) = self.stack.get(base)? else { return None };
                let Stage::Chain(stages) = &**stage else { return None };
                let is_asking = above.is_none() && self.state == State::Waiting;
                let operands = if is_asking { 2 } else { usize::from(above.is_none()) };
                (frame.pc as usize <= stages.len() && end == base + 1 + operands).then_some(())?;
                lowest = base + 1;
                continue;
            }
            let code = self.program.functions.get(frame.function as usize)?;
            if code.captures > 0 {
                let Value::Closure(closure) = self.stack.get(frame.result as usize)? else { return None };
                let fits = closure.function == frame.function && closure.captures.len() == code.captures as usize;
                (fits && frame.result < frame.base).then_some(())?;
            }
            let height = *code.heights.get(frame.pc as usize)?;
            // A caller stands after its call, whose result is not there yet.
            let operands = usize::from(height).checked_sub(usize::from(above.is_some()))?;
            let floor = base + code.locals as usize;
            (height != UNREACHED && end == floor + operands).then_some(())?;
            lowest = floor;
        }
        for (index, handler) in self.handlers.iter().enumerate() {
            let frame = self.frames.get(handler.frame as usize)?;
            let code = self.program.functions.get(frame.function as usize)?;
            let height = *code.heights.get(handler.target as usize)?;
            let floor = frame.base as usize + code.locals as usize;
            let fits = height != UNREACHED
                && height > 0
                && handler.height as usize == floor + usize::from(height) - 1
                && handler.height as usize <= self.stack.len();
            let after = self.frames.get(handler.frame as usize + 1);
            let is_own = index >= frame.handlers as usize && after.is_none_or(|after| index < after.handlers as usize);
            (fits && is_own).then_some(())?;
        }
        (!self.frames.is_empty() && handlers <= self.handlers.len()).then_some(())
    }
}

pub(super) fn write_frames(out: &mut Writer, frames: &[Frame]) {
    out.count(frames.len());
    for frame in frames {
        out.u32(frame.function);
        out.u32(frame.pc);
        out.u32(frame.base);
        out.u32(frame.result);
        out.u32(frame.handlers);
        out.bool(frame.is_pure);
    }
}

pub(super) fn read_frames(reader: &mut Reader<'_>) -> Result<Vec<Frame>, WireError> {
    reader.list(FRAMES_MAX, |reader| {
        Ok(Frame {
            function: reader.u32()?,
            pc: reader.u32()?,
            base: reader.u32()?,
            result: reader.u32()?,
            handlers: reader.u32()?,
            is_pure: reader.bool()?,
        })
    })
}

pub(super) fn write_handlers(out: &mut Writer, handlers: &[Handler]) {
    out.count(handlers.len());
    for handler in handlers {
        out.u32(handler.frame);
        out.u32(handler.height);
        match handler.catches {
            Catches::Errors => out.u32(handler.target),
            Catches::All => out.u32(handler.target | CATCHES_ALL),
            Catches::Time { scope, due, fired } => {
                out.u32(handler.target | if fired { CATCHES_TIME | CATCHES_ALL } else { CATCHES_TIME });
                out.u64(scope.0);
                out.u64(due.0);
            }
        }
    }
}

/// In a handler's target, which has 24 bits: what it catches, unless that is errors. Both: a time that was over.
const CATCHES_ALL: u32 = 1 << 30;
const CATCHES_TIME: u32 = 1 << 31;

pub(super) fn read_handlers(reader: &mut Reader<'_>) -> Result<Vec<Handler>, WireError> {
    reader.list(STACK_VALUES_MAX, |reader| {
        let (frame, height, target) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let catches = match target & (CATCHES_ALL | CATCHES_TIME) {
            0 => Catches::Errors,
            CATCHES_ALL => Catches::All,
            both => Catches::Time {
                scope: Seq(reader.u64()?),
                due: Timestamp(reader.u64()?),
                fired: both & CATCHES_ALL != 0,
            },
        };
        Ok(Handler { frame, height, target: target & !(CATCHES_ALL | CATCHES_TIME), catches })
    })
}

fn section(out: &mut Writer, number: u8, body: &Writer) {
    out.u8(number);
    out.u8(0);
    out.count(body.bytes.len());
    out.raw(&checksum(&body.bytes));
    out.raw(&body.bytes);
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(bytes);
    std::array::from_fn(|index| hash.as_bytes()[index])
}

/// The sections of a snapshot whose header and checksums were right.
struct Sections<'b> {
    next_seq: Seq,
    bodies: BTreeMap<u8, &'b [u8]>,
}

impl<'b> Sections<'b> {
    fn read(program: &Program, bytes: &'b [u8]) -> Result<Self, SnapshotError> {
        if bytes.len() > SNAPSHOT_BYTES_MAX {
            return Err(damaged(format!("it is longer than {SNAPSHOT_BYTES_MAX} bytes")));
        }
        let mut reader = Reader::new(bytes);
        if reader.raw(4)? != MAGIC || reader.u8()? != VERSION {
            return Err(damaged("it does not start like a snapshot of this version"));
        }
        let found = ModuleHash::from_slice(reader.raw(32)?).ok_or_else(|| damaged("no module hash"))?;
        if found != program.hash() {
            return Err(SnapshotError::OtherModule { wanted: program.hash(), found });
        }
        let next_seq = Seq(reader.u64()?);
        if next_seq.0 == 0 || next_seq.0 > i64::MAX as u64 {
            return Err(damaged("the number of the next effect"));
        }
        let mut bodies = BTreeMap::new();
        while !reader.is_at_end() {
            let number = reader.u8()?;
            let flags = reader.u8()?;
            let len = reader.u64()?;
            let expected = reader.raw(8)?;
            let len = usize::try_from(len).map_err(|_| damaged("a section's length"))?;
            let body = reader.raw(len)?;
            if checksum(body) != expected {
                return Err(damaged(format!("the checksum of section {number}")));
            }
            let is_known = (section::STATE..=section::CLOSING).contains(&number);
            if !is_known && flags & OPTIONAL == 0 {
                return Err(damaged(format!("section {number} is unknown and not optional")));
            }
            if is_known && bodies.insert(number, body).is_some() {
                return Err(damaged(format!("section {number} stands twice")));
            }
        }
        Ok(Self { next_seq, bodies })
    }

    fn find(&self, number: u8) -> Option<Reader<'b>> {
        self.bodies.get(&number).map(|body| Reader::new(body))
    }

    fn get(&self, number: u8) -> Result<Reader<'b>, SnapshotError> {
        let body = self.bodies.get(&number).ok_or_else(|| damaged(format!("section {number} is missing")))?;
        Ok(Reader::new(body))
    }
}

fn read_state(mut reader: Reader<'_>) -> Result<(Heap, State), SnapshotError> {
    let limit = reader.u64()?;
    let charged = reader.u64()?;
    let depth_bound = reader.u32()?;
    if limit > HEAP_BYTES_MAX || charged > limit || depth_bound > DEPTH_ALLOWED * 2 {
        return Err(damaged("the heap's meter"));
    }
    let state = match reader.u8()? {
        0 => State::Running,
        1 => State::Waiting,
        2 => {
            let payload = Payload::new(reader.bytes()?);
            codec::decode(&payload).map_err(|_| damaged("the outcome's value"))?;
            State::Ended(Outcome::Ok(payload))
        }
        3 => {
            let value = codec::decode_bytes(reader.bytes()?).map_err(|_| damaged("the outcome's failure"))?;
            State::Ended(Outcome::Err(failure::from_value(&value)))
        }
        _ => return Err(damaged("the state")),
    };
    reader.end()?;
    Ok((Heap::restored(charged, limit, depth_bound), state))
}
