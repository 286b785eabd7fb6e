//! Stored formats, byte for byte as they were on their first day.
//!
//! A file here is never changed: a format that has to change gets a new version and a file of its own, and the old file
//! must still be read. `NEW_GOLDEN=1` writes the files that are missing.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use common::text;
use nexa_vm::module::Module;
use nexa_vm::value::{Closure, Dict, Key, Record, Shape, Stage, Value};
use nexa_vm::{Limits, Program, Stop, Vm, codec};

/// Compares with the file; returns what the file holds.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = path(name);
    let mut hex = String::new();
    for line in bytes.chunks(32) {
        line.iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
        hex.push('\n');
    }
    if !path.exists() && std::env::var_os("NEW_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &hex).unwrap();
    }
    let then = std::fs::read_to_string(&path).unwrap();
    assert_eq!(then, hex, "{name}: what is written now differs from what was written then");
    stored(name)
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The bytes of a golden file.
fn stored(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(path(name)).unwrap();
    let digits: Vec<u32> = text.chars().filter_map(|character| character.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// One value of every kind.
fn every_value() -> Value {
    let shape = |type_name: &str, tag: &str, fields: &[&str]| {
        Arc::new(Shape {
            type_name: type_name.to_owned(),
            tag: tag.to_owned(),
            fields: fields.iter().map(|field| (*field).to_owned()).collect(),
        })
    };
    let record = Record { shape: shape("", "", &["title", "score"]), values: vec![text("T"), Value::Float(0.1)] };
    let variant = Record { shape: shape("Verdict", "reject", &["reason"]), values: vec![text("late")] };
    let entries = [(Key::Str("k".into()), Value::None), (Key::Int(-1), Value::Unit), (Key::Bool(true), text(""))];
    let dict: Dict = entries.into_iter().collect();
    let closure = Value::Closure(Arc::new(Closure { function: 3, captures: vec![Value::Int(7)] }));
    let partial = Stage::Partial { callee: Value::Agent(2), args: vec![text("board")], open: 0 };
    Value::List(Arc::new(vec![
        Value::Bool(true),
        Value::Bool(false),
        Value::Int(i64::MIN),
        Value::Int(300),
        Value::Float(f64::NAN),
        Value::Duration(90_000),
        text("día"),
        Value::Tuple(Arc::new(vec![Value::Int(1), Value::Int(2)])),
        Value::Record(Arc::new(record)),
        Value::Variant(Arc::new(variant)),
        Value::Dict(Arc::new(dict)),
        Value::Ok(Arc::new(Value::Int(1))),
        Value::Err(Arc::new(Value::None)),
        closure.clone(),
        Value::Stage(Arc::new(Stage::Chain(vec![closure, Value::Stage(Arc::new(partial))]))),
    ]))
}

#[test]
fn values_are_written_and_read_as_on_the_first_day() {
    let value = every_value();
    let bytes = golden("value_1.hex", codec::encode(&value).as_bytes());
    let read = codec::decode_bytes(&bytes).unwrap();
    assert_eq!(codec::encode(&read).as_bytes(), bytes);
    // NaN differs from itself, everything else must be equal.
    assert_eq!(format!("{read:?}"), format!("{value:?}"));
}

#[test]
fn modules_are_written_and_read_as_on_the_first_day() {
    for case in common::programs::all() {
        let module = case.program.module();
        let encoded = module.encode();
        let (major, minor) = (encoded[4], encoded[5]);
        let bytes = golden(&format!("module_{major}_{minor}_{}.hex", case.name), &encoded);
        assert_eq!(Module::decode(&bytes).as_ref(), Ok(module), "{}", case.name);
        assert_eq!(Program::load(&bytes).unwrap().hash(), case.program.hash(), "{}", case.name);
    }
}

/// Programs whose values are charged otherwise than on the first day: what is written differs in the meter alone. Their
/// snapshots of the first day are still read.
const CHARGED_ANEW: &[&str] = &["iterate_dict_and_text"];

/// Where a slice ends is no part of the format: the files were written after 20 instructions, and what an instruction
/// costs has changed since. So the same place is looked for; a new file is written at the first.
const FUEL: u64 = 20;
const FUEL_MAX: u64 = 200;

#[test]
fn snapshots_are_written_and_read_as_on_the_first_day() {
    for case in common::programs::all() {
        let run = |fuel| {
            let args = case.args.clone();
            let mut vm = Vm::start(Arc::clone(&case.program), case.function, args, Limits::default()).unwrap();
            let stop = vm.run(fuel);
            (vm, stop)
        };
        let first_day = format!("snapshot_1_{}.hex", case.name);
        let mut files = vec![first_day.clone()];
        if CHARGED_ANEW.contains(&case.name) {
            files.push(format!("snapshot_1_charged_anew_{}.hex", case.name));
        }
        let latest = files.last().unwrap();
        let known = path(latest).exists().then(|| stored(latest));
        let found = (FUEL..FUEL_MAX).map(run).find(|(vm, _)| known.as_ref() == Some(&vm.snapshot()));
        let (vm, stop) = found.unwrap_or_else(|| run(FUEL));
        let written = golden(latest, &vm.snapshot());
        for bytes in [stored(&first_day), written] {
            let restored = Vm::restore(Arc::clone(&case.program), &bytes).unwrap();
            assert_eq!(restored.snapshot(), bytes, "{}", case.name);
            if let Stop::Effect(request) = &stop {
                assert_eq!(restored.pending().as_ref(), Some(request), "{}", case.name);
            }
        }
    }
}

/// C51, the second half.
#[test]
fn a_snapshot_of_another_module_is_refused_by_its_code() {
    let cases = common::programs::all();
    let vm = Vm::start(Arc::clone(&cases[0].program), cases[0].function, cases[0].args.clone(), Limits::default());
    let error = Vm::restore(Arc::clone(&cases[1].program), &vm.unwrap().snapshot()).unwrap_err();
    assert!(error.to_string().starts_with("E1008"), "{error}");
    let error = Vm::restore(Arc::clone(&cases[1].program), b"NXS").unwrap_err();
    assert!(error.to_string().starts_with("E1009"), "{error}");
}
