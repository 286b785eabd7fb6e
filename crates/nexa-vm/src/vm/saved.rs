//! States that a program saves and goes back to, and the memory of its agent.
//!
//! `snapshot()` clones the stack, the frames, the handlers and the memory; the values in them stay shared, and the
//! heap is charged for what the clone itself takes. `restore(s)` puts all of it back. Not put back: the number of the
//! next effect, what a saved state counts, and the charges of the heap's meter.
//!
//! Calls that are gone back out of have ended: what they started is let go of first (R7), by the effect that does so at the
//! end of any call. What a program has deferred in them does not run; it is as if they had never been.
//!
//! A state belongs to the call that saved it. When that call ends, by returning or by an error on its way out, nobody
//! may go back into it any more: its handle is dead. Going back to a state forgets all that were saved after it, which
//! nothing that is left can name. States that no handle can reach are forgotten when room is needed.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nexa_event::effect::EffectBody;
use nexa_types::limits::{
    HEAP_BYTES_MAX, MEMORY_ENTRIES_MAX, MEMORY_KEY_BYTES_MAX, RESTORES_MAX, SAVED_STATES_MAX, STACK_VALUES_MAX,
};
use nexa_types::{RunCode, Seq};

use super::code::Instr;
use super::graph::{Graph, Nodes};
use super::heap::{AddressMap, Meter as _, VALUE_BYTES, for_each_part, is_flat, measure, shared_address, text_bytes};
use super::ops::{Flow, no_text};
use super::raise::Fault;
use super::snapshot::{SnapshotError, damaged, read_frames, read_handlers, write_frames, write_handlers};
use super::{CHAIN, Catches, Frame, Handler, State as VmState, Vm};
use crate::json::text_of;
use crate::json::validate::describe;
use crate::op::{Op, Word};
use crate::recall;
use crate::value::{Text, Value};
use crate::wire::{Reader, Writer};

/// What a saved state takes besides its stack, its frames and its handlers.
const STATE_BYTES: u64 = 128;
/// What an entry of a memory takes besides its key's text and its value.
const ENTRY_BYTES: u64 = 64 + VALUE_BYTES;

/// Each word of a text is written anew and looked up to be ranked, which takes so often as long as reading it.
const RECALL_READS: u64 = 4;

/// The memory of one agent, by key.
type Memory = BTreeMap<Text, Value>;

/// All saved states of one VM, the oldest first, and the agent's memory.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Saved {
    states: Vec<State>,
    /// How many were ever saved.
    count: u64,
    memory: Memory,
}

/// A state that can be gone back to.
#[derive(Debug, Clone, PartialEq)]
struct State {
    number: u64,
    /// How often it was gone back to.
    tries: u32,
    stack: Vec<Value>,
    /// The innermost one saved it, and goes on after that.
    frames: Vec<Frame>,
    handlers: Vec<Handler>,
    memory: Memory,
}

impl State {
    fn bytes(&self) -> u64 {
        let parts = self.stack.len() as u64 * VALUE_BYTES
            + (self.frames.len() * size_of::<Frame>() + self.handlers.len() * size_of::<Handler>()) as u64;
        STATE_BYTES + parts + memory_bytes(&self.memory)
    }
}

fn memory_bytes(memory: &Memory) -> u64 {
    memory.keys().map(|key| ENTRY_BYTES + text_bytes(key.len())).sum()
}

impl Saved {
    /// Forgets the states of calls that have ended: there are only so many frames now.
    #[inline]
    pub(super) fn keep(&mut self, frames: usize) {
        if !self.states.is_empty() {
            self.forget_above(frames);
        }
    }

    #[cold]
    fn forget_above(&mut self, frames: usize) {
        // A call that is nested deeper saved later, so the newest states are those of the deepest calls.
        while self.states.last().is_some_and(|state| state.frames.len() > frames) {
            self.states.pop();
        }
    }

    /// The values that are held here.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        let states = self.states.iter().flat_map(|state| state.stack.iter().chain(state.memory.values()));
        self.memory.values().chain(states)
    }

    /// What holds the values.
    pub(super) fn bytes(&self) -> u64 {
        memory_bytes(&self.memory) + self.states.iter().map(State::bytes).sum::<u64>()
    }

    fn find(&self, handle: &Value) -> Result<usize, Fault> {
        let Value::Saved(number) = handle else {
            return Err(Fault::mismatch(format!("{} is no snapshot", describe(handle))));
        };
        let place = self.states.binary_search_by_key(number, |state| state.number);
        place.map_err(|_| {
            let why = "the call that made this snapshot has ended, or a snapshot before it was restored";
            Fault::new(RunCode::DeadHandle, why)
        })
    }

    pub(super) fn write(&self, graph: &mut Graph<'_>) -> Option<Writer> {
        if *self == Self::default() {
            return None;
        }
        let mut out = Writer::new();
        out.u64(self.count);
        write_memory(&mut out, graph, &self.memory);
        out.count(self.states.len());
        for state in &self.states {
            out.u64(state.number);
            out.u32(state.tries);
            out.count(state.stack.len());
            for value in &state.stack {
                graph.reference(&mut out, value);
            }
            write_frames(&mut out, &state.frames);
            write_handlers(&mut out, &state.handlers);
            write_memory(&mut out, graph, &state.memory);
        }
        Some(out)
    }

    pub(super) fn read(mut reader: Reader<'_>, nodes: &Nodes<'_>, limit: u64) -> Result<Self, SnapshotError> {
        let count = reader.u64()?;
        let memory = read_memory(&mut reader, nodes)?;
        // All stacks together take no more than the heap may; the meter was charged for them.
        let mut room = usize::try_from(limit.saturating_mul(2) / VALUE_BYTES).unwrap_or(usize::MAX);
        let mut states = Vec::new();
        let mut before = 0;
        for _ in 0..reader.count(SAVED_STATES_MAX)? {
            let number = reader.u64()?;
            let tries = reader.u32()?;
            if number <= before || number > count || tries > RESTORES_MAX {
                return Err(damaged("the number of a saved state"));
            }
            before = number;
            let most = STACK_VALUES_MAX.min(room);
            let stack = reader.list(most, |reader| nodes.reference(reader, &Cell::new(0), true))?;
            room -= stack.len();
            let frames = read_frames(&mut reader)?;
            let handlers = read_handlers(&mut reader)?;
            let memory = read_memory(&mut reader, nodes)?;
            states.push(State { number, tries, stack, frames, handlers, memory });
        }
        reader.end()?;
        Ok(Self { states, count, memory })
    }

    /// Whether the VM could have saved these states.
    pub(super) fn fits(&self, vm: &Vm) -> Option<()> {
        if matches!(vm.state, VmState::Ended(_)) {
            return (*self == Self::default()).then_some(());
        }
        let mut depth = 0;
        for state in &self.states {
            let saving = state.frames.last().filter(|frame| frame.function != CHAIN)?;
            let code = &vm.program.module().functions.get(saving.function as usize)?.code;
            let before = Word::read(code, (saving.pc as usize).checked_sub(1)?)?;
            let is_after_saving = before.op == Op::Snapshot && state.stack.last() == Some(&Value::Saved(state.number));
            (is_after_saving && depth <= state.frames.len() && state.frames.len() <= vm.frames.len()).then_some(())?;
            depth = state.frames.len();
            // A machine that stood there would have to be whole.
            let standing = Vm {
                program: Arc::clone(&vm.program),
                stack: state.stack.clone(),
                frames: state.frames.clone(),
                handlers: state.handlers.clone(),
                closing: None,
                heap: vm.heap.clone(),
                saved: Self::default(),
                next_seq: vm.next_seq,
                state: VmState::Running,
                fuel_left: 0,
            };
            standing.check_frames()?;
        }
        Some(())
    }
}

fn write_memory(out: &mut Writer, graph: &mut Graph<'_>, memory: &Memory) {
    out.count(memory.len());
    for (key, value) in memory {
        out.str(key);
        graph.reference(out, value);
    }
}

fn read_memory(reader: &mut Reader<'_>, nodes: &Nodes<'_>) -> Result<Memory, SnapshotError> {
    let entries = reader.list(MEMORY_ENTRIES_MAX, |reader| {
        let key = reader.str()?;
        if key.len() > MEMORY_KEY_BYTES_MAX {
            return Err(reader.bad("a key of the agent's memory"));
        }
        Ok((key.into(), nodes.reference(reader, &Cell::new(0), false)?))
    })?;
    if entries.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        return Err(damaged("the order of the agent's memory"));
    }
    if entries.iter().any(|(_, value)| *value == Value::None || hidden(value).is_some()) {
        return Err(damaged("a value that no memory keeps"));
    }
    Ok(entries.into_iter().collect())
}

impl Vm {
    /// Saves the state as it will be after this instruction, and pushes its handle.
    pub(super) fn save(&mut self) -> Result<Flow, Fault> {
        if self.saved.states.len() >= SAVED_STATES_MAX {
            self.forget_unreachable();
        }
        if self.saved.states.len() >= SAVED_STATES_MAX {
            let message = format!("{SAVED_STATES_MAX} snapshots are held already; let go of the older ones");
            return Err(Fault::new(RunCode::RestoreLimit, message));
        }
        let number = self.saved.count + 1;
        let mut state = State {
            number,
            tries: 0,
            stack: self.stack.clone(),
            frames: self.frames.clone(),
            handlers: self.handlers.clone(),
            memory: self.saved.memory.clone(),
        };
        self.charge(state.bytes() + VALUE_BYTES)?;
        state.stack.push(Value::Saved(number));
        if let Some(frame) = state.frames.last_mut() {
            frame.pc += 1;
            // In a loop, `let s = snapshot()` would save the handle of the round before with it, and that one the one
            // before, so that none could ever be forgotten. The next instruction stores there without looking.
            let code = self.program.functions.get(frame.function as usize);
            let next = code.and_then(|code| code.instrs.get(frame.pc as usize));
            if let Some(Instr::Store(slot)) = next
                && let Some(place) = state.stack.get_mut((frame.base + slot) as usize)
            {
                *place = Value::Unit;
            }
        }
        self.saved.count = number;
        self.saved.states.push(state);
        self.replace(0, Value::Saved(number))
    }

    /// Goes back to the state whose handle is on top. The calls that are under way since then end with that, and what
    /// they started is let go of first, which is an effect.
    pub(super) fn go_back(&mut self) -> Result<Flow, Fault> {
        let place = self.saved.find(self.top()?)?;
        if self.closing.is_some() {
            return Err(Fault::new(RunCode::DeadHandle, "an agent that ends cannot go back to a snapshot"));
        }
        if self.saved.states[place].tries >= RESTORES_MAX {
            let message = format!("this snapshot was restored {RESTORES_MAX} times, which is all that is allowed");
            return Err(Fault::new(RunCode::RestoreLimit, message));
        }
        match self.started_since(place) {
            Some(from) => Ok(Flow::Effect(Box::new(EffectBody::Release(from)))),
            None => self.go_back_to(place),
        }
    }

    /// What was started is let go of.
    pub(super) fn gone_back(&mut self) -> Result<Flow, Fault> {
        let place = self.saved.find(self.top()?)?;
        self.go_back_to(place)
    }

    /// The first effect of the calls that are under way since the state whose handle is on top was saved, if they hold
    /// anything that they started.
    pub(super) fn to_let_go_of(&self) -> Option<Seq> {
        self.started_since(self.saved.find(self.stack.last()?).ok()?)
    }

    fn started_since(&self, place: usize) -> Option<Seq> {
        let depth = self.saved.states.get(place)?.frames.len();
        let later = self.handlers.iter().filter(|handler| handler.frame as usize >= depth);
        later.filter_map(|handler| self.released_by(handler)).min()
    }

    /// If all that a handler does is to let go of what its call has started: since which effect. The compiler writes
    /// `StoreLocal error; LoadLocal first; Release` there, and no program can.
    fn released_by(&self, handler: &Handler) -> Option<Seq> {
        let frame = self.frames.get(handler.frame as usize).filter(|_| handler.catches == Catches::All)?;
        let code = &self.program.module().functions.get(frame.function as usize)?.code;
        let mut at = handler.target as usize;
        let mut next = || {
            let word = Word::read(code, at)?;
            at += word.len;
            Some(word)
        };
        let [store, load, release] = [next()?, next()?, next()?];
        if [store.op, load.op, release.op] != [Op::StoreLocal, Op::LoadLocal, Op::Release] {
            return None;
        }
        match self.stack.get(frame.base as usize + load.a as usize)? {
            Value::Int(first) => Some(Seq(u64::try_from(*first).ok()?)),
            _ => None,
        }
    }

    fn go_back_to(&mut self, place: usize) -> Result<Flow, Fault> {
        let state = self.saved.states.get_mut(place).ok_or_else(|| Fault::internal("no such saved state"))?;
        state.tries += 1;
        self.heap.read(state.bytes());
        self.stack.clone_from(&state.stack);
        self.frames.clone_from(&state.frames);
        self.handlers.clone_from(&state.handlers);
        self.saved.memory = state.memory.clone();
        self.saved.states.truncate(place + 1);
        Ok(Flow::Frame)
    }

    /// How often the state whose handle is on top was gone back to.
    pub(super) fn tries(&mut self) -> Result<Flow, Fault> {
        let place = self.saved.find(self.top()?)?;
        let tries = self.saved.states[place].tries;
        self.replace(1, Value::Int(i64::from(tries)))
    }

    /// Lets go of states that no handle on the stack, or in a state that is left, names.
    pub(super) fn forget_unreachable(&mut self) {
        if self.saved.states.is_empty() {
            return;
        }
        let mut reached = Reached::default();
        reached.all(&self.stack);
        // A state knows no later ones, so one pass from the newest to the oldest meets all.
        for state in self.saved.states.iter().rev() {
            if reached.numbers.contains(&state.number) {
                reached.all(&state.stack);
            }
        }
        self.saved.states.retain(|state| reached.numbers.contains(&state.number));
    }

    /// `… key value → … ()` in the agent's own memory.
    pub(super) fn store_own(&mut self) -> Result<Flow, Fault> {
        let (key, value) = match self.two()? {
            (Value::Str(key), value) => (key.clone(), value.clone()),
            _ => return Err(Fault::mismatch("the key of a memory must be a text")),
        };
        self.heap.read(keepable(&key, &value)?);
        if value == Value::None {
            self.saved.memory.remove(&key);
            return self.replace(2, Value::Unit);
        }
        if !self.saved.memory.contains_key(&key) {
            if self.saved.memory.len() >= MEMORY_ENTRIES_MAX {
                let message =
                    format!("the agent's memory holds {MEMORY_ENTRIES_MAX} keys already; store `none` to forget one");
                return Err(Fault::new(RunCode::Failed, message));
            }
            self.charge(ENTRY_BYTES + text_bytes(key.len()))?;
        }
        self.saved.memory.insert(key, value);
        self.replace(2, Value::Unit)
    }

    /// `… key → … value` of the agent's own memory.
    pub(super) fn load_own(&mut self) -> Result<Flow, Fault> {
        let found = match self.top()? {
            Value::Str(key) => self.saved.memory.get(key).cloned().unwrap_or(Value::None),
            _ => return Err(Fault::mismatch("the key of a memory must be a text")),
        };
        self.replace(1, found)
    }

    /// `… query k → … list[Hit]` from the agent's own memory.
    pub(super) fn recall_own(&mut self) -> Result<Flow, Fault> {
        let (query, count) = match self.two()? {
            (Value::Str(query), Value::Int(count)) => (query.clone(), recall::hits_wanted(*count)),
            _ => return Err(Fault::mismatch("a recall takes a text and a number")),
        };
        // Values that share parts with each other have far longer texts than they take room.
        let mut room = HEAP_BYTES_MAX;
        let texts = self.saved.memory.iter().map(|(key, value)| {
            let text = text_of(value).map_err(no_text)?;
            room = room.checked_sub(text.len() as u64).ok_or_else(|| {
                let message = format!("the texts of the agent's memory take more than {HEAP_BYTES_MAX} bytes");
                Fault::new(RunCode::OutOfMemory, message)
            })?;
            Ok((&**key, text))
        });
        let texts = texts.collect::<Result<Vec<_>, Fault>>()?;
        self.heap.read((HEAP_BYTES_MAX - room) * RECALL_READS + query.len() as u64);
        let hits = recall::rank(&query, texts.iter().map(|(key, text)| (*key, text.as_str())), count);
        let found = recall::hits_value(&hits);
        drop(texts);
        let (bytes, _) = measure(&found);
        self.charge(bytes)?;
        self.heap.depth_bound = self.heap.depth_bound.max(2);
        self.replace(2, found)
    }
}

/// Refuses what no memory keeps: a key that is too long, and values that must not leave or mean nothing later. Gives
/// the bytes that were looked at.
pub(super) fn keepable(key: &str, value: &Value) -> Result<u64, Fault> {
    if key.len() > MEMORY_KEY_BYTES_MAX {
        let message = format!("a key of {} bytes; a memory takes up to {MEMORY_KEY_BYTES_MAX}", key.len());
        return Err(Fault::new(RunCode::Failed, message));
    }
    let mut looked = 0;
    match look(value, &mut AddressMap::default(), &mut looked) {
        None => Ok(looked * VALUE_BYTES),
        Some(Hidden::Secret) => Err(Fault::new(RunCode::SecretLeak, "a secret was about to be stored in a memory")),
        Some(Hidden::Saved) => Err(Fault::new(RunCode::DeadHandle, "a snapshot cannot be stored in a memory")),
    }
}

/// What may be hidden in a value and keeps it from leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hidden {
    Secret,
    Saved,
}

/// What is hidden in a value, parts of it included.
pub(super) fn hidden(value: &Value) -> Option<Hidden> {
    look(value, &mut AddressMap::default(), &mut 0)
}

fn look(value: &Value, seen: &mut AddressMap<()>, looked: &mut u64) -> Option<Hidden> {
    *looked += 1;
    match value {
        Value::Secret(_) => return Some(Hidden::Secret),
        Value::Saved(_) => return Some(Hidden::Saved),
        value if is_flat(value) => return None,
        _ => {}
    }
    if let Some(address) = shared_address(value)
        && seen.insert(address, ()).is_some()
    {
        return None;
    }
    let mut found = None;
    for_each_part(value, |part| found = found.or_else(|| look(part, seen, looked)));
    found
}

/// The saved states that values name.
#[derive(Default)]
struct Reached {
    numbers: BTreeSet<u64>,
    seen: AddressMap<()>,
}

impl Reached {
    fn all(&mut self, values: &[Value]) {
        values.iter().for_each(|value| self.one(value));
    }

    fn one(&mut self, value: &Value) {
        if let Value::Saved(number) = value {
            self.numbers.insert(*number);
        }
        if is_flat(value) || shared_address(value).is_some_and(|address| self.seen.insert(address, ()).is_some()) {
            return;
        }
        for_each_part(value, |part| self.one(part));
    }
}
