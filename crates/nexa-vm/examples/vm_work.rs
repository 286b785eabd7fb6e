//! How long a slice takes that is made of one operation: `cargo run --release -p nexa-vm --example vm_work`.
//!
//! Each line is an operation on a value of some size, again and again: how often it was done in a slice of 10,000, what
//! the median slice and the longest took, and what that is for a unit of fuel. `FUEL_BYTES` comes from here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexa_vm::module::build::{Assembler, ModuleBuilder};
use nexa_vm::op::Op;
use nexa_vm::value::{Dict, Key, Value};
use nexa_vm::{Limits, Program, Stop, Vm, codec, json};

const SLICE: u64 = 10_000;
const SLICES: usize = 15;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text = |text: &str| Value::Str(text.into());
    let words = text(&"ab cd ef gh ij kl\n".repeat(15_000));
    let short = text(&"lorem ipsum dolor\n".repeat(60));
    let ints = list((0..20_000).map(|number| Value::Int(number * 7_919 % 20_000)));
    let texts = list((0..5_000).map(|number| text(&format!("a text that begins like all others, number {number}"))));
    let record = |number: i64| format!(r#"{{"name":"n{number}","points":[1,2.5,true,null],"text":"a line\nof text"}}"#);
    let parsed = format!("[{}]", (0..3_000).map(record).collect::<Vec<_>>().join(","));
    let tree = json::from_json(&parsed)?;
    let dict: Dict =
        (0..5_000).map(|number| (Key::Str(format!("key {number}").as_str().into()), Value::Unit)).collect();
    let dict = Value::Dict(Arc::new(dict));
    let again = codec::decode(&codec::encode(&tree))?;

    println!("{:32} {:>9} {:>11} {:>11} {:>8}", "operation", "in a slice", "median", "longest", "a unit");
    for (name, args) in [
        ("text.len", vec![short.clone()]),
        ("text.words", vec![short.clone()]),
        ("json.parse", vec![text(&record(1))]),
        ("text.len", vec![words.clone()]),
        ("text.upper", vec![words.clone()]),
        ("text.words", vec![words.clone()]),
        ("text.split", vec![words.clone(), text("")]),
        ("text.replace", vec![words.clone(), text("c"), text("dd")]),
        ("text.contains", vec![words.clone(), text("abc")]),
        ("text.slice", vec![words.clone(), Value::Int(200_000), Value::Int(200_010)]),
        ("hash.sha256", vec![words.clone()]),
        ("hash.crc32", vec![words.clone()]),
        ("regex.test", vec![text("x+y"), short.clone()]),
        ("regex.all", vec![text(r"\w+"), words.clone()]),
        ("regex.replace", vec![text("c(.)"), words.clone(), text("$1")]),
        ("json.parse", vec![text(&parsed)]),
        ("json.text", vec![tree.clone()]),
        ("list.sort", vec![ints.clone()]),
        ("list.sort", vec![texts.clone()]),
        ("list.unique", vec![texts.clone()]),
        ("list.contains", vec![texts.clone(), Value::Int(1)]),
        ("list.join", vec![texts.clone(), text(", ")]),
        ("list.reverse", vec![texts.clone()]),
        ("list.push", vec![texts.clone(), Value::Int(1)]),
        ("list.sum", vec![ints]),
        ("dict.set", vec![dict.clone(), text("key 7"), Value::Int(1)]),
        ("dict.remove", vec![dict.clone(), text("key 7")]),
        ("dict.items", vec![dict]),
    ] {
        let count = args.len();
        let size = args.iter().map(|value| json::to_json(value).len()).max().unwrap_or(0);
        show(
            &format!("{name} of {size}"),
            &program(count, |code| {
                code.std(name, count as u8);
            })?,
            args,
        )?;
    }
    show(
        "== of trees",
        &program(2, |code| {
            code.op(Op::Eq);
        })?,
        vec![tree.clone(), again],
    )?;
    show(
        "concat",
        &program(2, |code| {
            code.a(Op::Concat, 2);
        })?,
        vec![words.clone(), short],
    )?;
    show(
        "emit",
        &program(1, |code| {
            code.op(Op::NoneValue).op(Op::Emit);
        })?,
        vec![tree],
    )?;
    show(
        "plain loop",
        &program(1, |code| {
            code.int(1).op(Op::AddInt);
        })?,
        vec![Value::Int(1)],
    )?;

    for pattern in [r"x+y", r"[\w.]+@[\w.]+\.[a-z]{2,}", r"(\w+\s){1,12}", r"(\d{1,3}\.){3}\d{1,3}|\p{Greek}{2,40}"] {
        let start = Instant::now();
        let _compiled = nexa_vm::stdlib::Pattern::new(pattern)?;
        println!("compile {pattern}: {:?}", start.elapsed());
    }
    Ok(())
}

fn list(values: impl Iterator<Item = Value>) -> Value {
    Value::List(Arc::new(values.collect()))
}

/// An endless loop that does an operation on its arguments and counts how often.
fn program(args: usize, operation: impl FnOnce(&mut Assembler)) -> Result<Arc<Program>, Box<dyn std::error::Error>> {
    let mut module = ModuleBuilder::new();
    let mut code = Assembler::new("main", args as u8);
    let rounds = code.local();
    code.int(0).a(Op::StoreLocal, rounds);
    let start = code.loop_start();
    (0..args).for_each(|local| {
        code.a(Op::LoadLocal, local as u32);
    });
    operation(&mut code);
    code.op(Op::Pop).ab(Op::IncLocal, rounds as u8, 1).jump(Op::Jump, start);
    module.add(code);
    Ok(Arc::new(Program::new(module.finish()?)?))
}

fn show(name: &str, program: &Arc<Program>, args: Vec<Value>) -> Result<(), Box<dyn std::error::Error>> {
    let mut vm = Vm::start(Arc::clone(program), 0, args, Limits { heap: 64 << 20 })?;
    let mut times: Vec<Duration> = Vec::new();
    let mut effects = 0u32;
    while times.len() < SLICES {
        let start = Instant::now();
        let mut fuel = SLICE;
        while fuel > 0 {
            match vm.run(fuel) {
                Stop::OutOfFuel => fuel = 0,
                Stop::Effect(request) => {
                    effects += 1;
                    fuel = vm.fuel_left();
                    vm.resume(request.seq, Ok(nexa_event::effect::Answer::Done))?;
                }
                Stop::Ended(outcome) => return Err(format!("{name} ended: {outcome:?}").into()),
            }
        }
        times.push(start.elapsed());
    }
    times.sort();
    let (median, longest) = (times[SLICES / 2], times[SLICES - 1]);
    let unit = median.as_nanos() as f64 / SLICE as f64;
    println!("{name:32} {effects:9} {median:>11.1?} {longest:>11.1?} {unit:>5.1} ns");
    Ok(())
}
