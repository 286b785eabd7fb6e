//! Damaged modules and snapshots, made from a number: the same number makes the same damage.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use allocation_counter::measure;
use nexa_event::effect::{Answer, EffectBody};
use nexa_types::{Failure, Outcome, RunCode};
use nexa_vm::module::Module;
use nexa_vm::op::{Form, Op, word_a, word_ab};
use nexa_vm::value::Value;
use nexa_vm::{Limits, Program, Stop, Vm};

/// Bytes that may be held at once while a module is read and verified, or a snapshot restored: a few kibibytes for the
/// machine itself, and so much for each byte.
const HELD_FREE: u64 = 64 << 10;
const HELD_PER_BYTE: u64 = 512;
/// Bytes that may be allocated in all for it. What is copied again and again shows here.
const ALLOCATED_FREE: u64 = 256 << 10;
const ALLOCATED_PER_BYTE: u64 = 4_096;
/// The heap of a machine that runs, and what may be held by it: values, their copies while one is changed, a snapshot.
const HEAP: u64 = 1 << 20;
const RUN_HELD: u64 = 16 * HEAP;
/// Bytes that a slice of [`FUEL`] instructions may allocate in all. One instruction may copy the whole heap.
const FUEL: u64 = 200;
const SLICES: u32 = 4;
const RUN_ALLOCATED: u64 = FUEL * SLICES as u64 * 4 * HEAP;
/// The most functions of a module that are run.
const FUNCTIONS: usize = 3;

/// What came of many cases.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How many there were.
    pub(crate) cases: u64,
    /// Refused by the decoder, the verifier or the restore.
    pub(crate) refused: u64,
    /// Accepted, and run.
    pub(crate) accepted: u64,
    /// Runs that ended within their slices.
    pub(crate) ended: u64,
    /// Runs that asked for an effect at least once.
    pub(crate) asked: u64,
    /// The most bytes that were held for one byte of a refused or accepted input, beyond what is free.
    pub(crate) held_per_byte: u64,
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn new(seed: u64, case: u64) -> Self {
        let mut dice = Self(seed ^ case.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    /// Mostly small, at times at the edge of something.
    fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => [0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x1_0000, 0xFF_FFFF, u64::from(u32::MAX), u64::MAX][self.below(9)],
            1 => self.next() & 0xFFFF,
            _ => self.next() & 0xF,
        }
    }
}

/// Runs one case.
type One = fn(&Good, &mut Dice, &mut Tally);

/// Good modules and snapshots, to be damaged.
pub(crate) struct Good {
    modules: Vec<(Module, Vec<u8>)>,
    snapshots: Vec<(Arc<Program>, Vec<u8>)>,
}

impl Good {
    /// What the programs of the tests make, snapshots at several places of each.
    pub(crate) fn new() -> Self {
        let mut good = Self { modules: Vec::new(), snapshots: Vec::new() };
        for case in super::programs::all() {
            let module = case.program.module().clone();
            let bytes = module.encode();
            good.modules.push((module, bytes));
            for fuel in [1, 30, 200] {
                let started = Vm::start(Arc::clone(&case.program), case.function, case.args.clone(), Limits::default());
                let mut vm = started.unwrap();
                vm.run(fuel);
                good.snapshots.push((Arc::clone(&case.program), vm.snapshot()));
            }
        }
        good
    }

    /// Runs the cases with these numbers, each a module and a snapshot.
    ///
    /// # Panics
    /// With the seed and the number of the first case that panics, takes too much, or is accepted and then not what it
    /// was accepted as.
    pub(crate) fn run(&self, seed: u64, cases: std::ops::Range<u64>, mut told: impl FnMut(&str, u64)) -> [Tally; 2] {
        let mut tallies = [Tally::default(); 2];
        let kinds: [(&str, One); 2] = [("module", Self::module), ("snapshot", Self::snapshot)];
        for ((name, one), tally) in kinds.into_iter().zip(&mut tallies) {
            for case in cases.clone() {
                told(name, case);
                let run = || one(self, &mut Dice::new(seed, case), tally);
                if catch_unwind(AssertUnwindSafe(run)).is_err() {
                    panic!("{name} {case} of seed {seed}: see above; run it again with --first {case} --cases 1");
                }
                tally.cases += 1;
            }
        }
        tallies
    }

    fn module(&self, dice: &mut Dice, tally: &mut Tally) {
        let (module, bytes) = &self.modules[dice.below(self.modules.len())];
        let bytes = if dice.below(3) == 0 {
            let other = &self.modules[dice.below(self.modules.len())].1;
            damaged(bytes, other, dice)
        } else {
            let mut module = module.clone();
            for _ in 0..=dice.below(4) / 2 * dice.below(3) {
                change(&mut module, dice);
            }
            module.encode()
        };
        let mut loaded = None;
        bounded(tally, bytes.len(), || loaded = Program::load(&bytes).ok());
        let Some(program) = loaded else {
            tally.refused += 1;
            return;
        };
        tally.accepted += 1;
        assert_eq!(
            &Module::decode(&program.module().encode()).unwrap(),
            program.module(),
            "it is read as it is written"
        );
        let program = Arc::new(program);
        for function in 0..program.module().functions.len().min(FUNCTIONS) {
            let arity = program.module().functions[function].arity;
            let args = (0..arity).map(|place| argument(place, dice)).collect();
            if let Ok(vm) = Vm::start(Arc::clone(&program), function as u32, args, Limits { heap: HEAP }) {
                go_on(&program, vm, dice, tally);
            }
        }
    }

    fn snapshot(&self, dice: &mut Dice, tally: &mut Tally) {
        let (program, good) = &self.snapshots[dice.below(self.snapshots.len())];
        let other = &self.snapshots[dice.below(self.snapshots.len())].1;
        let mut bytes = damaged(good, other, dice);
        if dice.below(8) > 0 {
            mend_checksums(&mut bytes);
        }
        let mut restored = None;
        bounded(tally, bytes.len(), || restored = Vm::restore(Arc::clone(program), &bytes).ok());
        match restored {
            Some(vm) => {
                tally.accepted += 1;
                go_on(program, vm, dice, tally);
            }
            None => tally.refused += 1,
        }
    }
}

/// Does something with an input, and counts what it allocates against the input's length.
fn bounded(tally: &mut Tally, len: usize, work: impl FnOnce()) {
    let used = measure(work);
    let len = len as u64;
    assert!(used.bytes_max <= HELD_FREE + HELD_PER_BYTE * len, "{len} bytes made it hold {}", used.bytes_max);
    let allocated = ALLOCATED_FREE + ALLOCATED_PER_BYTE * len;
    assert!(used.bytes_total <= allocated, "{len} bytes made it allocate {}", used.bytes_total);
    tally.held_per_byte = tally.held_per_byte.max(used.bytes_max.saturating_sub(HELD_FREE) / len.max(1));
}

/// Runs a few slices, with a snapshot and a restore after each, and answers what is asked.
fn go_on(program: &Arc<Program>, mut vm: Vm, dice: &mut Dice, tally: &mut Tally) {
    let mut has_asked = false;
    let used = measure(|| {
        for _ in 0..SLICES {
            match vm.run(FUEL) {
                Stop::Ended(_) => {
                    tally.ended += 1;
                    break;
                }
                Stop::OutOfFuel => {}
                Stop::Effect(request) => {
                    has_asked = true;
                    let answer = match &request.body {
                        EffectBody::Children { branches, .. } if dice.below(2) == 0 => {
                            let failed = Outcome::Err(Failure::new(RunCode::Refused, "not here"));
                            Ok(Answer::Children(vec![failed; branches.len()]))
                        }
                        EffectBody::Now => Ok(Answer::Now(nexa_types::Timestamp(dice.next()))),
                        EffectBody::Log(_) | EffectBody::Emit { .. } | EffectBody::Sleep(_) => Ok(Answer::Done),
                        _ => Err(Failure::new(RunCode::Refused, "not here")),
                    };
                    if vm.resume(request.seq, answer).is_err() {
                        let _ended = vm.resume(request.seq, Err(Failure::new(RunCode::Refused, "not here")));
                    }
                }
            }
            let bytes = vm.snapshot();
            let restored = Vm::restore(Arc::clone(program), &bytes).unwrap();
            assert_eq!(restored.snapshot(), bytes, "a restored machine has another snapshot");
            vm = restored;
        }
    });
    tally.asked += u64::from(has_asked);
    assert!(used.bytes_max <= RUN_HELD, "a machine of {HEAP} bytes held {}", used.bytes_max);
    assert!(used.bytes_total <= RUN_ALLOCATED, "a few slices allocated {}", used.bytes_total);
}

fn argument(place: u8, dice: &mut Dice) -> Value {
    match dice.below(6) {
        0 => Value::Int(dice.number() as i64),
        1 => Value::Float(f64::from(place)),
        2 => Value::Str("text".into()),
        3 => Value::List(Arc::new(vec![Value::Int(1), Value::Str("a".into())])),
        4 => Value::Bool(true),
        _ => Value::Int(i64::from(place)),
    }
}

/// Bytes with some changed, put in, taken out, or replaced by some of another.
fn damaged(good: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=dice.below(4) / 2 * dice.below(3) {
        let at = dice.below(bytes.len());
        match dice.below(8) {
            0 => bytes.insert(at, dice.number() as u8),
            1 => {
                bytes.remove(at);
            }
            2 => bytes.truncate(at + 1),
            3 => {
                let from = dice.below(other.len());
                let len = dice.below(64).min(other.len() - from).min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&other[from..from + len]);
            }
            4 => bytes[at] ^= 1 << dice.below(8),
            5 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][dice.below(5)],
            6 => bytes[at] = bytes[at].wrapping_add(1),
            _ => bytes[at] = dice.next() as u8,
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// One change to a module that keeps its form.
fn change(module: &mut Module, dice: &mut Dice) {
    if module.functions.is_empty() {
        return;
    }
    let which = dice.below(module.functions.len());
    let functions = module.functions.len();
    let function = &mut module.functions[which];
    let at = dice.below(function.code.len());
    match dice.below(12) {
        0 => function.locals = dice.number() as u16,
        1 => function.stack = dice.number() as u16,
        2 => function.arity = dice.number() as u8,
        3 => function.pure_ = !function.pure_,
        4 if !function.code.is_empty() => {
            function.code.remove(at);
        }
        5 if !module.agents.is_empty() => {
            let agent = dice.below(module.agents.len());
            module.agents[agent].function = dice.below(functions + 1) as u32;
        }
        6 => function.captures = dice.number() as u8,
        7 if !function.code.is_empty() => function.code[at] ^= 1 << dice.below(32),
        _ => {
            let op = Op::ALL[dice.below(Op::ALL.len())];
            let word = match op.form() {
                Form::Jump => word_a(op, dice.below(function.code.len() + 1) as u32),
                form if form.has_count() => word_ab(op, dice.number() as u8, (dice.next() % 90) as u16),
                _ => word_a(op, dice.number() as u32),
            };
            if dice.below(2) == 0 && !function.code.is_empty() {
                function.code[at] = word;
            } else {
                function.code.insert(at, word);
                function.stack = function.stack.saturating_add(2).min(64);
            }
        }
    }
}

/// Makes every section's checksum right again, so that the damage gets past the first gate.
pub(crate) fn mend_checksums(bytes: &mut [u8]) {
    let mut at = 4 + 1 + 32 + 1;
    while at + 11 < bytes.len() {
        let (mut len, mut shift) = (0usize, 0);
        let mut body = at + 2;
        while let Some(byte) = bytes.get(body) {
            len |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            body += 1;
            if byte & 0x80 == 0 || shift > 28 {
                break;
            }
        }
        let Some(content) = bytes.get(body + 8..body + 8 + len) else { return };
        let hash = blake3::hash(content);
        bytes[body..body + 8].copy_from_slice(&hash.as_bytes()[..8]);
        at = body + 8 + len;
    }
}
