//! The loop. What integer loops and calls are made of is here; everything else is in `ops`.
//!
//! Fuel is counted as instructions, a fused step as one, and one more for each `FUEL_BYTES` that an instruction reads or
//! makes. It is looked at only where a backward jump lands, where a call starts, and before what may take long for its
//! operands' size. Code between those is straight, so its length is bounded by the function's. The instruction that uses
//! up the fuel may use more than there is; how much one can use is bounded by the heap, and by bounds of their own for
//! what looks at shared parts again and again.
//!
//! Nothing that a program can see depends on fuel, only where a slice ends. So what an instruction costs is what it did:
//! a list that is changed in place costs less than one that is copied, and which of the two happens is part of the state.

use super::arithmetic::{canonical, div_zero, overflow, quotient, remainder, undefined};
use super::call::Round;
use super::code::Instr;
use super::ops::Flow;
use super::raise::Fault;
use super::{CHAIN, Stop, Vm};
use crate::op::Op;
use crate::value::Value;

impl Vm {
    /// Runs until there is something to say.
    pub(super) fn execute(&mut self, fuel: u64) -> Stop {
        let program = std::sync::Arc::clone(&self.program);
        // What an answer or an error brought is paid now. One instruction at least is run.
        let mut fuel = i64::try_from(fuel).unwrap_or(i64::MAX).saturating_sub(self.heap.take_fuel()).max(1);

        'frame: loop {
            let (function, base, mut pc) = match self.frames.last() {
                Some(frame) => (frame.function, frame.base as usize, frame.pc as usize),
                None => return self.trap("no frame is left"),
            };
            if function == CHAIN {
                match self.chain_round() {
                    Round::Go => continue 'frame,
                    Round::Stop(stop) => {
                        self.fuel_left = fuel;
                        return stop;
                    }
                }
            }
            let Some(code) = program.functions.get(function as usize) else { return self.trap("no such function") };
            let instrs = code.instrs.as_slice();

            // Leaves the frame's place in the frame, then raises.
            macro_rules! raise {
                ($fault:expr) => {{
                    let fault = $fault;
                    self.keep_place(pc);
                    match self.raise(fault) {
                        Ok(()) => continue 'frame,
                        Err(stop) => return stop,
                    }
                }};
            }
            // Two ints give way to one. They are read where they are, see `drop_top`.
            macro_rules! int_binary {
                ($op:ident, $apply:expr) => {{
                    let result = match self.stack.as_mut_slice() {
                        [.., Value::Int(x), Value::Int(y)] => match $apply(*x, *y) {
                            Some(result) => {
                                *x = result;
                                Ok(())
                            }
                            None => Err(overflow()),
                        },
                        [.., x, y] => Err(undefined(Op::$op, x, y)),
                        _ => Err(missing()),
                    };
                    if let Err(fault) = result {
                        raise!(fault);
                    }
                    self.drop_top(1);
                    pc += 1;
                }};
            }
            macro_rules! float_binary {
                ($op:ident, $apply:expr) => {{
                    let result = match self.stack.as_slice() {
                        [.., Value::Float(x), Value::Float(y)] => Ok($apply(*x, *y)),
                        [.., x, y] => Err(undefined(Op::$op, x, y)),
                        _ => Err(missing()),
                    };
                    match result {
                        Ok(result) => {
                            drop(self.stack.pop());
                            if let Some(place) = self.stack.last_mut() {
                                *place = result;
                            }
                        }
                        Err(fault) => raise!(fault),
                    }
                    pc += 1;
                }};
            }
            macro_rules! int_test {
                ($op:ident, $test:expr) => {{
                    let result = match self.stack.as_slice() {
                        [.., Value::Int(x), Value::Int(y)] => Ok($test(x, y)),
                        [.., x, y] => Err(undefined(Op::$op, x, y)),
                        _ => Err(missing()),
                    };
                    match result {
                        Ok(holds) => {
                            self.drop_top(1);
                            if let Some(place) = self.stack.last_mut() {
                                *place = Value::Bool(holds);
                            }
                        }
                        Err(fault) => raise!(fault),
                    }
                    pc += 1;
                }};
            }
            // A test and the `JumpIfNot` after it; `$at` words before that jump.
            macro_rules! jump_unless {
                ($holds:expr, $at:expr) => {{
                    if $holds {
                        pc += $at + 1;
                    } else if let Some(Instr::JumpIfNot(target)) = instrs.get(pc + $at) {
                        pc = *target as usize;
                    } else {
                        return self.trap("a fused test without its jump");
                    }
                }};
            }
            macro_rules! test_jump {
                ($op:ident, $test:expr) => {{
                    let result = match self.stack.as_slice() {
                        [.., Value::Int(x), Value::Int(y)] => Ok($test(x, y)),
                        [.., x, y] => Err(undefined(Op::$op, x, y)),
                        _ => Err(missing()),
                    };
                    match result {
                        Ok(holds) => {
                            self.drop_top(2);
                            jump_unless!(holds, 1)
                        }
                        Err(fault) => raise!(fault),
                    }
                }};
            }
            macro_rules! local {
                ($slot:expr) => {
                    match self.stack.get(base + $slot as usize) {
                        Some(value) => value,
                        None => return self.trap("a local is missing"),
                    }
                };
            }
            macro_rules! locals_jump {
                ($op:ident, $x:expr, $y:expr, $test:expr) => {{
                    match (local!($x), local!($y)) {
                        (Value::Int(x), Value::Int(y)) => jump_unless!($test(x, y), 3),
                        (x, y) => {
                            let fault = undefined(Op::$op, x, y);
                            raise!(fault)
                        }
                    }
                }};
            }
            macro_rules! local_int_jump {
                ($op:ident, $x:expr, $n:expr, $test:expr) => {{
                    match local!($x) {
                        Value::Int(x) => jump_unless!($test(x, &i64::from($n)), 3),
                        x => {
                            let fault = undefined(Op::$op, x, &Value::Int(i64::from($n)));
                            raise!(fault)
                        }
                    }
                }};
            }

            // A local and a local, or a number, give a new operand.
            macro_rules! push_math {
                ($op:ident, $x:expr, $y:expr, $apply:expr) => {{
                    let result = match (local!($x), $y) {
                        (Value::Int(x), Value::Int(y)) => match $apply(*x, *y) {
                            Some(result) => Ok(result),
                            None => Err(overflow()),
                        },
                        (x, y) => Err(undefined(Op::$op, x, y)),
                    };
                    match result {
                        Ok(result) => self.push_int(result),
                        Err(fault) => raise!(fault),
                    }
                    pc += 3;
                }};
            }
            // The top operand and a number.
            macro_rules! top_math {
                ($op:ident, $y:expr, $apply:expr, $failed:expr) => {{
                    let y: i64 = $y;
                    let result = match self.stack.last_mut() {
                        Some(Value::Int(x)) => match $apply(*x, y) {
                            Some(result) => {
                                *x = result;
                                Ok(())
                            }
                            None => Err($failed),
                        },
                        Some(x) => Err(undefined(Op::$op, x, &Value::Int(y))),
                        None => Err(missing()),
                    };
                    if let Err(fault) = result {
                        raise!(fault);
                    }
                    pc += 2;
                }};
            }
            // The top operand and a local.
            macro_rules! local_math {
                ($op:ident, $y:expr, $apply:expr) => {{
                    match local!($y) {
                        Value::Int(y) => top_math!($op, *y, $apply, overflow()),
                        y => {
                            let fault = undefined(Op::$op, self.stack.last().unwrap_or(&Value::Unit), y);
                            raise!(fault)
                        }
                    }
                }};
            }
            // Two operands give way to a new value of a local.
            macro_rules! math_store {
                ($op:ident, $slot:expr, $apply:expr) => {{
                    let result = match self.stack.as_slice() {
                        [.., Value::Int(x), Value::Int(y)] => match $apply(*x, *y) {
                            Some(result) => Ok(result),
                            None => Err(overflow()),
                        },
                        [.., x, y] => Err(undefined(Op::$op, x, y)),
                        _ => Err(missing()),
                    };
                    if result.is_ok() {
                        self.drop_top(2);
                    }
                    match (result, self.stack.get_mut(base + usize::from($slot))) {
                        (Ok(result), Some(Value::Int(place))) => *place = result,
                        (Ok(result), Some(place)) => *place = Value::Int(result),
                        (Ok(_), None) => return self.trap("a local is missing"),
                        (Err(fault), _) => raise!(fault),
                    }
                    pc += 2;
                }};
            }

            macro_rules! increment {
                ($slot:expr, $by:expr) => {{
                    let result = match self.stack.get_mut(base + usize::from($slot)) {
                        Some(Value::Int(number)) => match number.checked_add(i64::from($by)) {
                            Some(sum) => {
                                *number = sum;
                                Ok(())
                            }
                            None => Err(overflow()),
                        },
                        Some(other) => Err(undefined(Op::IncLocal, other, &Value::Int(i64::from($by)))),
                        None => Err(missing()),
                    };
                    if let Err(fault) = result {
                        raise!(fault);
                    }
                }};
            }
            // A jump to a `LoopTick`, which stops there when the fuel is used up and else goes on after it.
            macro_rules! loop_jump {
                ($target:expr) => {{
                    let target = $target as usize;
                    if fuel < 0 {
                        self.keep_place(target);
                        return Stop::OutOfFuel;
                    }
                    pc = target + 1;
                }};
            }

            loop {
                let Some(&instr) = instrs.get(pc) else { return self.trap("the code ends without a return") };
                fuel -= 1;
                match instr {
                    Instr::Load(slot) => {
                        // An int needs no look at what else a clone might have to do.
                        match local!(slot) {
                            Value::Int(number) => {
                                let number = *number;
                                self.push_int(number);
                            }
                            other => {
                                let value = other.clone();
                                self.stack.push(value);
                            }
                        }
                        pc += 1;
                    }
                    Instr::Store(slot) => {
                        if let Some(Value::Int(number)) = self.stack.last() {
                            let number = *number;
                            self.drop_top(1);
                            match self.stack.get_mut(base + slot as usize) {
                                Some(Value::Int(place)) => *place = number,
                                Some(place) => *place = Value::Int(number),
                                None => return self.trap("a local is missing"),
                            }
                        } else {
                            match (self.stack.pop(), self.stack.get_mut(base + slot as usize)) {
                                (Some(value), Some(place)) => *place = value,
                                _ => return self.trap("a local is missing"),
                            }
                        }
                        pc += 1;
                    }
                    Instr::Int(number) => {
                        self.push_int(i64::from(number));
                        pc += 1;
                    }
                    Instr::LoadLoadAdd(x, y) => push_math!(AddInt, x, local!(y), i64::checked_add),
                    Instr::LoadLoadSub(x, y) => push_math!(SubInt, x, local!(y), i64::checked_sub),
                    Instr::LoadLoadMul(x, y) => push_math!(MulInt, x, local!(y), i64::checked_mul),
                    Instr::LoadIntAdd(x, n) => push_math!(AddInt, x, &Value::Int(i64::from(n)), i64::checked_add),
                    Instr::LoadIntMul(x, n) => push_math!(MulInt, x, &Value::Int(i64::from(n)), i64::checked_mul),
                    Instr::LoadAdd(y) => local_math!(AddInt, y, i64::checked_add),
                    Instr::LoadSub(y) => local_math!(SubInt, y, i64::checked_sub),
                    Instr::LoadMul(y) => local_math!(MulInt, y, i64::checked_mul),
                    Instr::IntAdd(y) => top_math!(AddInt, i64::from(y), i64::checked_add, overflow()),
                    Instr::IntMul(y) => top_math!(MulInt, i64::from(y), i64::checked_mul, overflow()),
                    Instr::IntDiv(y) => {
                        top_math!(DivInt, i64::from(y), quotient, if y == 0 { div_zero() } else { overflow() });
                    }
                    Instr::IntRem(y) => {
                        top_math!(RemInt, i64::from(y), remainder, if y == 0 { div_zero() } else { overflow() });
                    }
                    Instr::AddStore(slot) => math_store!(AddInt, slot, i64::checked_add),
                    Instr::SubStore(slot) => math_store!(SubInt, slot, i64::checked_sub),
                    Instr::LoadLoadLtJump(x, y) => locals_jump!(LtInt, x, y, i64::lt),
                    Instr::LoadLoadLeJump(x, y) => locals_jump!(LeInt, x, y, i64::le),
                    Instr::LoadIntLtJump(x, number) => local_int_jump!(LtInt, x, number, i64::lt),
                    Instr::LoadIntLeJump(x, number) => local_int_jump!(LeInt, x, number, i64::le),
                    Instr::LoadIntEqJump(x, number) => local_int_jump!(EqInt, x, number, i64::eq),
                    Instr::LtJump => test_jump!(LtInt, i64::lt),
                    Instr::LeJump => test_jump!(LeInt, i64::le),
                    Instr::EqJump => test_jump!(EqInt, i64::eq),
                    Instr::AddInt => int_binary!(AddInt, i64::checked_add),
                    Instr::SubInt => int_binary!(SubInt, i64::checked_sub),
                    Instr::MulInt => int_binary!(MulInt, i64::checked_mul),
                    Instr::LtInt => int_test!(LtInt, i64::lt),
                    Instr::LeInt => int_test!(LeInt, i64::le),
                    Instr::EqInt => int_test!(EqInt, i64::eq),
                    Instr::Inc(slot, by) => {
                        increment!(slot, by);
                        pc += 1;
                    }
                    Instr::IncLoopJump(slot, by) => {
                        increment!(slot, by);
                        match instrs.get(pc + 1) {
                            Some(Instr::LoopJump(target)) => loop_jump!(*target),
                            _ => return self.trap("a fused step without its jump"),
                        }
                    }
                    Instr::LoopJump(target) => loop_jump!(target),
                    Instr::LoopTick => {
                        if fuel < 0 {
                            self.keep_place(pc);
                            return Stop::OutOfFuel;
                        }
                        pc += 1;
                    }
                    Instr::Jump(target) => pc = target as usize,
                    Instr::JumpIf(target) | Instr::JumpIfNot(target) => match self.stack.pop() {
                        Some(Value::Bool(holds)) => {
                            let jumps = holds == matches!(instr, Instr::JumpIf(_));
                            pc = if jumps { target as usize } else { pc + 1 };
                        }
                        Some(other) => {
                            let found = crate::json::validate::describe(&other);
                            raise!(Fault::mismatch(format!("a condition must be a bool, found {found}")))
                        }
                        None => return self.trap("an operand is missing"),
                    },
                    Instr::Call(argc, function) => {
                        if fuel < 0 {
                            self.keep_place(pc);
                            return Stop::OutOfFuel;
                        }
                        // The caller goes on after the call; an error in making it is the caller's at the call.
                        self.keep_place(pc + 1);
                        let argc = usize::from(argc);
                        if matches!(instrs.get(pc + 1), Some(Instr::Store(_))) {
                            self.lend_argument(pc, argc);
                        }
                        let result = self.stack.len().wrapping_sub(argc);
                        if let Err(fault) = self.enter(u32::from(function), argc, result) {
                            raise!(fault);
                        }
                        continue 'frame;
                    }
                    Instr::Return => {
                        let Some(value) = self.stack.pop() else { return self.trap("a result is missing") };
                        match self.leave(value) {
                            Some(stop) => return stop,
                            None => continue 'frame,
                        }
                    }
                    Instr::Const(index) => {
                        match program.constants.get(index as usize) {
                            Some(value) => self.stack.push(value.clone()),
                            None => return self.trap("a constant is missing"),
                        }
                        pc += 1;
                    }
                    Instr::True => {
                        self.stack.push(Value::Bool(true));
                        pc += 1;
                    }
                    Instr::False => {
                        self.stack.push(Value::Bool(false));
                        pc += 1;
                    }
                    Instr::NoneValue => {
                        self.stack.push(Value::None);
                        pc += 1;
                    }
                    Instr::Pop => {
                        drop(self.stack.pop());
                        pc += 1;
                    }
                    Instr::Dup => {
                        match self.stack.last().cloned() {
                            Some(value) => self.stack.push(value),
                            None => return self.trap("an operand is missing"),
                        }
                        pc += 1;
                    }
                    Instr::Not => {
                        let fault = match self.stack.last_mut() {
                            Some(Value::Bool(value)) => {
                                *value = !*value;
                                None
                            }
                            Some(other) => {
                                Some(Fault::mismatch(format!("{} is no bool", crate::json::validate::describe(other))))
                            }
                            None => Some(missing()),
                        };
                        if let Some(fault) = fault {
                            raise!(fault);
                        }
                        pc += 1;
                    }
                    Instr::AddFloat => float_binary!(AddFloat, |a: f64, b: f64| canonical(a + b)),
                    Instr::SubFloat => float_binary!(SubFloat, |a: f64, b: f64| canonical(a - b)),
                    Instr::MulFloat => float_binary!(MulFloat, |a: f64, b: f64| canonical(a * b)),
                    Instr::LtFloat => float_binary!(LtFloat, |a: f64, b: f64| Value::Bool(a < b)),
                    Instr::LeFloat => float_binary!(LeFloat, |a: f64, b: f64| Value::Bool(a <= b)),
                    Instr::IterNext(_) | Instr::Other(..) | Instr::OtherAb(..) | Instr::Inside => {
                        if fuel < 0 && instr.is_safepoint() {
                            self.keep_place(pc);
                            return Stop::OutOfFuel;
                        }
                        self.keep_place(pc);
                        let flow = self.slow(instr);
                        fuel = fuel.saturating_sub(self.heap.take_fuel());
                        match flow {
                            Ok(Flow::Next) => pc += 1,
                            Ok(Flow::Jump(target)) => pc = target as usize,
                            Ok(Flow::Frame) => continue 'frame,
                            Ok(Flow::Effect(body)) => {
                                self.fuel_left = fuel;
                                return self.wait_for(*body);
                            }
                            Err(fault) => raise!(fault),
                        }
                    }
                }
            }
        }
    }

    #[inline]
    fn keep_place(&mut self, pc: usize) {
        if let Some(frame) = self.frames.last_mut() {
            frame.pc = pc as u32;
        }
    }
}

#[cold]
fn missing() -> Fault {
    Fault::internal("an operand is missing")
}
