//! What a VM's values take, approximately and repeatably.
//!
//! Everything that allocates charges first. The meter only grows, until it passes the limit; then the values that can
//! be reached from the stack are counted afresh. What it counts depends on nothing but the state, so a restored VM runs
//! out of memory at the same instruction as the stopped one would have.
//!
//! The same pass guards the nesting of values: reading, comparing and freeing a value recurse, so no value may nest
//! without bound. A cheap upper bound of the depth is kept, and measured when it reaches [`DEPTH_BOUND_MAX`].

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use nexa_types::limits::DEPTH_MAX;

use crate::value::{SEARCHED_MAX, Stage, Value};

/// A value in a list.
pub(crate) const VALUE_BYTES: u64 = size_of::<Value>() as u64;
/// An empty list, record, dict or closure, its shared pointer's counters included.
pub(crate) const LIST_BYTES: u64 = 48;
/// What a large dict takes besides, for each key that it finds quickly.
pub(crate) const PLACE_BYTES: u64 = 40;
/// The depth bound that makes the heap measure how deep its values really nest.
const DEPTH_BOUND_MAX: u32 = 2 * DEPTH_MAX as u32;
/// How deep values may really nest: what an answer may bring, wrapped a few times.
pub(crate) const DEPTH_ALLOWED: u32 = DEPTH_MAX as u32 + 64;
/// What a standard function reads from text may nest so deeply.
const RESULT_DEPTH_MAX: u32 = 132;
/// How far a new part is looked into before its depth is taken to be unknown.
const PROBE_NODES: u32 = 32;

/// A text of so many bytes.
pub(crate) const fn text_bytes(len: usize) -> u64 {
    16 + len as u64
}

/// How many bytes an instruction reads or makes for as much fuel as a plain instruction takes. From measurements on one
/// core (`cargo run --release -p nexa-vm --example vm_work`): a unit of what takes longest for its size, which is making
/// many small texts and reading JSON, takes about as long as four plain instructions.
pub(crate) const FUEL_BYTES: u64 = 32;

/// What an operation asks before it allocates, and tells what it reads.
pub(crate) trait Meter {
    /// Takes bytes before they are allocated.
    fn charge(&mut self, bytes: u64) -> Result<(), Exhausted>;

    /// Notes work that allocates nothing, in bytes that were looked at.
    fn read(&mut self, bytes: u64);
}

/// The meter passed its limit. Whoever sees it charges again after a count, or gives up with `out_of_memory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted;

/// The meter of one VM.
#[derive(Debug, Clone)]
pub(crate) struct Heap {
    /// Bytes charged since the last count, and what that count found.
    pub(crate) charged: u64,
    /// The most bytes.
    pub(crate) limit: u64,
    /// No value nests deeper than this.
    pub(crate) depth_bound: u32,
    /// Bytes that were read or made and did not take fuel yet. No part of a snapshot: it only says where a slice ends.
    work: u64,
}

impl Meter for Heap {
    fn charge(&mut self, bytes: u64) -> Result<(), Exhausted> {
        let charged = self.charged.saturating_add(bytes);
        if charged > self.limit {
            return Err(Exhausted);
        }
        self.charged = charged;
        self.work = self.work.saturating_add(bytes);
        Ok(())
    }

    fn read(&mut self, bytes: u64) {
        self.work = self.work.saturating_add(bytes);
    }
}

impl Heap {
    pub(crate) fn new(limit: u64) -> Self {
        Self::restored(0, limit, 0)
    }

    pub(crate) fn restored(charged: u64, limit: u64, depth_bound: u32) -> Self {
        Self { charged, limit, depth_bound, work: 0 }
    }

    /// The fuel for what was read and made since the last time.
    #[inline]
    pub(crate) fn take_fuel(&mut self) -> i64 {
        if self.work < FUEL_BYTES {
            return 0;
        }
        let fuel = self.work / FUEL_BYTES;
        self.work %= FUEL_BYTES;
        i64::try_from(fuel).unwrap_or(i64::MAX)
    }

    /// Notes that `part` was put into another value. `false` once the bound is reached: measure, then go on.
    pub(crate) fn nest(&mut self, part: &Value) -> bool {
        if is_flat(part) {
            self.depth_bound = self.depth_bound.max(1);
            return true;
        }
        let mut budget = PROBE_NODES;
        match probe(part, &mut budget) {
            Some(depth) => self.depth_bound = self.depth_bound.max(depth + 1),
            None => self.depth_bound += 1,
        }
        self.depth_bound < DEPTH_BOUND_MAX
    }

    /// Notes the result of a standard function, whose parts are its arguments' or new ones of at most 128 levels.
    pub(crate) fn note_result(&mut self, result: &Value) -> bool {
        if is_flat(result) {
            return true;
        }
        let mut budget = PROBE_NODES;
        match probe(result, &mut budget) {
            Some(depth) => self.depth_bound = self.depth_bound.max(depth),
            None => self.depth_bound = (self.depth_bound + 2).max(RESULT_DEPTH_MAX),
        }
        self.depth_bound < DEPTH_BOUND_MAX
    }

    /// Counts afresh what can be reached; `fixed` bytes are taken by what holds the roots. `wanted` more bytes must fit
    /// with an eighth to spare, so that counting stays cheap against allocating; no value may nest deeper than
    /// [`DEPTH_ALLOWED`].
    pub(crate) fn count<'v>(
        &mut self,
        roots: impl IntoIterator<Item = &'v Value>,
        fixed: u64,
        wanted: u64,
    ) -> Result<(), CountError> {
        let mut counter = Counter { bytes: fixed, ..Counter::default() };
        let mut depth = 0;
        for root in roots {
            depth = depth.max(counter.value(root));
        }
        self.charged = counter.bytes;
        self.depth_bound = depth;
        self.read(counter.values.saturating_mul(VALUE_BYTES));
        if depth > DEPTH_ALLOWED {
            return Err(CountError::TooDeep);
        }
        let room = self.limit - self.limit / 8;
        if self.charged.saturating_add(wanted) > room { Err(CountError::TooMuch) } else { Ok(()) }
    }
}

/// Why a VM may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CountError {
    TooMuch,
    TooDeep,
}

/// Whether a value has no parts that are values.
pub(crate) fn is_flat(value: &Value) -> bool {
    matches!(
        value,
        Value::Unit
            | Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Float(_)
            | Value::Duration(_)
            | Value::Str(_)
            | Value::Agent(_)
            | Value::Secret(_)
            | Value::Saved(_)
    )
}

/// The values that a value consists of.
pub(crate) fn for_each_part<'v>(value: &'v Value, mut visit: impl FnMut(&'v Value)) {
    match value {
        Value::List(values) | Value::Tuple(values) => values.iter().for_each(visit),
        Value::Record(record) | Value::Variant(record) => record.values.iter().for_each(visit),
        Value::Dict(dict) => dict.entries().iter().for_each(|(_, value)| visit(value)),
        Value::Ok(inner) | Value::Err(inner) => visit(inner),
        Value::Closure(closure) => closure.captures.iter().for_each(visit),
        Value::Stage(stage) => match &**stage {
            Stage::Partial { callee, args, .. } => {
                visit(callee);
                args.iter().for_each(visit);
            }
            Stage::Chain(stages) => stages.iter().for_each(visit),
        },
        Value::Iterator(iterator) => visit(&iterator.over),
        _ => {}
    }
}

/// How deep a small value nests; `None` if it has too many parts to say quickly.
fn probe(value: &Value, budget: &mut u32) -> Option<u32> {
    if is_flat(value) {
        return Some(0);
    }
    let mut deepest = Some(0);
    for_each_part(value, |part| {
        if let Some(depth) = deepest {
            *budget = budget.saturating_sub(1);
            deepest = if *budget == 0 { None } else { probe(part, budget).map(|inner| depth.max(inner)) };
        }
    });
    deepest.map(|depth| depth + 1)
}

/// The address behind a shared pointer, if the value has one and others may share it.
pub(crate) fn shared_address(value: &Value) -> Option<usize> {
    fn address<T: ?Sized>(pointer: &Arc<T>) -> Option<usize> {
        (Arc::strong_count(pointer) > 1).then(|| Arc::as_ptr(pointer).cast::<u8>() as usize)
    }
    match value {
        Value::Str(text) | Value::Secret(text) => text.shared_address(),
        Value::List(values) | Value::Tuple(values) => address(values),
        Value::Record(record) | Value::Variant(record) => address(record),
        Value::Dict(dict) => address(dict),
        Value::Ok(inner) | Value::Err(inner) => address(inner),
        Value::Closure(closure) => address(closure),
        Value::Stage(stage) => address(stage),
        Value::Iterator(iterator) => address(iterator),
        _ => None,
    }
}

/// What one value takes, its parts and shape not included.
pub(crate) fn own_bytes(value: &Value) -> u64 {
    let values = |count: usize| LIST_BYTES + VALUE_BYTES * count as u64;
    match value {
        Value::Str(text) | Value::Secret(text) => text_bytes(text.len()),
        Value::List(list) | Value::Tuple(list) => values(list.len()),
        Value::Record(record) | Value::Variant(record) => values(record.values.len()),
        Value::Dict(dict) => {
            let len = dict.len() as u64;
            let places = if dict.len() > SEARCHED_MAX { PLACE_BYTES * len } else { 0 };
            LIST_BYTES + 2 * VALUE_BYTES * len + dict.key_bytes() + places
        }
        Value::Ok(_) | Value::Err(_) => values(1),
        Value::Closure(closure) => values(closure.captures.len()),
        Value::Stage(stage) => match &**stage {
            Stage::Partial { args, .. } => values(args.len() + 1),
            Stage::Chain(stages) => values(stages.len()),
        },
        Value::Iterator(_) => values(1),
        _ => 0,
    }
}

/// What a value takes with everything in it, parts that are shared counted once; and how deep it nests.
pub(crate) fn measure(value: &Value) -> (u64, u32) {
    let mut counter = Counter::default();
    let depth = counter.value(value);
    (counter.bytes, depth)
}

/// A map from addresses. Only looked up, never iterated, so its order cannot show.
pub(crate) type AddressMap<T> = HashMap<usize, T, BuildHasherDefault<AddressHasher>>;

/// Addresses need no protection against chosen collisions: the allocator chooses them.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }

    fn write_usize(&mut self, address: usize) {
        let mixed = (address as u64 >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ mixed >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Default)]
struct Counter {
    bytes: u64,
    /// How many were looked at.
    values: u64,
    depths: AddressMap<u32>,
}

impl Counter {
    /// Adds the value's bytes and returns how deep it nests.
    fn value(&mut self, value: &Value) -> u32 {
        self.values += 1;
        let own = own_bytes(value);
        if own == 0 {
            return 0;
        }
        let address = shared_address(value);
        if let Some(depth) = address.and_then(|address| self.depths.get(&address)) {
            return *depth;
        }
        self.bytes = self.bytes.saturating_add(own);
        let mut depth = 0;
        for_each_part(value, |part| depth = depth.max(self.value(part) + 1));
        if let Some(address) = address {
            self.depths.insert(address, depth);
        }
        depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_shared_counts_once() {
        let text = Value::Str("x".repeat(1000).as_str().into());
        let twice = Value::List(Arc::new(vec![text.clone(), text]));
        assert!(measure(&twice).0 < 1200);
    }

    #[test]
    fn a_value_that_doubles_itself_sixty_times_is_counted_at_once() {
        let mut value = Value::Int(1);
        for _ in 0..60 {
            value = Value::List(Arc::new(vec![value.clone(), value]));
        }
        assert_eq!(measure(&value), (60 * (LIST_BYTES + 2 * VALUE_BYTES), 60));
    }

    #[test]
    fn nesting_one_level_at_a_time_is_stopped_before_it_is_deep() {
        let mut heap = Heap::new(1 << 20);
        let mut value = Value::Int(1);
        for level in 0.. {
            assert!(level < 2000, "nobody stopped it");
            if !heap.nest(&value) && heap.count([&value], 0, 0).is_err() {
                break;
            }
            value = Value::Ok(Arc::new(value));
        }
    }
}
