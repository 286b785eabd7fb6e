//! The suite `language`: how long a program takes to compile, how fast it runs, and what a machine weighs.
//!
//! `_ms`, `_us` and `_ns` are times; `parse_mb_per_s` is megabytes (10⁶ bytes) of text into a tree a second;
//! `idle_vm_bytes` is what one waiting machine adds to the memory of a process that holds ten thousand of them.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nexa_lang::{FileId, Source, compile_text, parse};
use nexa_vm::value::Value;
use nexa_vm::verify::verify;
use nexa_vm::{Stop, Vm};

use crate::measure::{Error, Figures, Subject, nanos};
use crate::peers::{KotoPeer, LuaPeer, Peer, RhaiPeer};
use crate::programs::{self, Machine};

const ROUNDS: usize = 15;
const LOOP_ROUNDS: i64 = 500_000;
const FIB_PLACE: i64 = 27;
/// Runs of what takes microseconds, in one round.
const REPEATS: usize = 50;
const IDLE_MACHINES: usize = 10_000;

/// Runs the suite. `nexa` is the binary whose `check` is timed as a process.
pub(crate) fn run(nexa: &Path) -> Result<Figures, Error> {
    let mut figures = Figures::default();
    // Before anything else has warmed the allocator or grown the heap.
    idle(&mut figures)?;
    compiler(&mut figures, nexa)?;
    machine(&mut figures)?;
    snapshots(&mut figures)?;
    Ok(figures)
}

fn compiler(figures: &mut Figures, nexa: &Path) -> Result<(), Error> {
    let hundred = programs::agents(100);
    let long = programs::agents(10_000 / 15 + 1);
    let lines = long.lines().count();
    if lines < 10_000 {
        return Err(format!("the long program has only {lines} lines").into());
    }
    let source = Source::from_text(FileId(0), "long.nx", &long).map_err(|error| format!("{error:?}"))?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("hundred.nx");
    fs::write(&file, &hundred)?;
    figures.count("compile_10k_lines_cold_ms", timed_compile(&long)?);
    figures.measure(
        ROUNDS,
        vec![
            Subject::new("compile_100_agents_ms", || timed_compile(&hundred)),
            Subject::new("check_process_ms", || check_process(nexa, &file)),
            Subject::new("compile_10k_lines_ms", || timed_compile(&long)),
            Subject::new("parse_mb_per_s", || {
                let nanos = nanos(|| parse(&source));
                Ok(long.len() as f64 / 1e6 / (nanos / 1e9))
            }),
        ],
    )
}

/// From text to a verified module, in milliseconds.
fn timed_compile(text: &str) -> Result<f64, Error> {
    let mut verified = false;
    let nanos = nanos(|| {
        let module = compile_text("program.nx", text).module;
        verified = module.as_ref().is_some_and(|module| verify(module).is_ok());
        module
    });
    if verified { Ok(nanos / 1e6) } else { Err("the program does not compile".into()) }
}

/// `nexa check` from start to exit, in milliseconds.
fn check_process(nexa: &Path, file: &Path) -> Result<f64, Error> {
    let mut command = Command::new(nexa);
    command.arg("check").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut status = None;
    let nanos = nanos(|| status = command.status().ok());
    match status {
        Some(status) if status.success() => Ok(nanos / 1e6),
        Some(status) => Err(format!("`nexa check` ended with {status}").into()),
        None => Err(format!("`{}` cannot be started", nexa.display()).into()),
    }
}

fn machine(figures: &mut Figures) -> Result<(), Error> {
    let mut nexa = Machine::new()?;
    let (mut koto, mut rhai, mut lua) = (KotoPeer::new()?, RhaiPeer::new()?, LuaPeer::new()?);
    let (sum, number) = (nexa.spin(LOOP_ROUNDS)?, nexa.fib(FIB_PLACE)?);
    figures.measure(
        ROUNDS,
        vec![
            Subject::new("vm_loop_ns", || spin(&mut nexa, sum)),
            Subject::new("koto_loop_ns", || spin(&mut koto, sum)),
            Subject::new("rhai_loop_ns", || spin(&mut rhai, sum)),
            Subject::new("lua_loop_ns", || spin(&mut lua, sum)),
        ],
    )?;
    figures.measure(
        ROUNDS,
        vec![
            Subject::new("vm_fib27_ms", || fib(&mut nexa, number)),
            Subject::new("koto_fib27_ms", || fib(&mut koto, number)),
            Subject::new("rhai_fib27_ms", || fib(&mut rhai, number)),
            Subject::new("lua_fib27_ms", || fib(&mut lua, number)),
        ],
    )
}

/// Nanoseconds of one time around the loop.
fn spin(peer: &mut dyn Peer, wanted: i64) -> Result<f64, Error> {
    let mut value = Ok(0);
    let nanos = nanos(|| value = peer.spin(LOOP_ROUNDS));
    if value? == wanted { Ok(nanos / LOOP_ROUNDS as f64) } else { Err("the loops differ".into()) }
}

/// Milliseconds of one call.
fn fib(peer: &mut dyn Peer, wanted: i64) -> Result<f64, Error> {
    let mut value = Ok(0);
    let nanos = nanos(|| value = peer.fib(FIB_PLACE));
    if value? == wanted { Ok(nanos / 1e6) } else { Err("the numbers of Fibonacci differ".into()) }
}

fn snapshots(figures: &mut Figures) -> Result<(), Error> {
    let machine = Machine::new()?;
    let vm = waiting(&machine, programs::payload())?;
    let bytes = vm.snapshot();
    figures.count("snapshot_bytes", bytes.len() as f64);
    figures.measure(
        ROUNDS,
        vec![
            Subject::new("snapshot_64k_us", || {
                Ok(nanos(|| (0..REPEATS).for_each(|_| drop(black_box(vm.snapshot())))) / 1e3 / REPEATS as f64)
            }),
            Subject::new("restore_64k_us", || {
                let restore = || Vm::restore(Arc::clone(machine.program()), black_box(&bytes));
                restore()?;
                Ok(nanos(|| (0..REPEATS).for_each(|_| drop(black_box(restore())))) / 1e3 / REPEATS as f64)
            }),
        ],
    )
}

/// A machine that waits for an effect and holds a value.
fn waiting(machine: &Machine, kept: Value) -> Result<Vm, Error> {
    let mut vm = machine.start("hold", vec![kept])?;
    match vm.run(10_000) {
        Stop::Effect(_) => Ok(vm),
        other => Err(format!("it should wait, and came to {other:?}").into()),
    }
}

fn idle(figures: &mut Figures) -> Result<(), Error> {
    let machine = Machine::new()?;
    let mut vms = Vec::with_capacity(IDLE_MACHINES);
    vms.push(waiting(&machine, Value::Unit)?);
    let before = private_bytes()?;
    for _ in 1..IDLE_MACHINES {
        vms.push(waiting(&machine, Value::Unit)?);
    }
    let after = private_bytes()?;
    figures.count("idle_vm_bytes", after.saturating_sub(before) as f64 / (IDLE_MACHINES - 1) as f64);
    drop(vms);
    Ok(())
}

/// Memory that this process alone holds.
fn private_bytes() -> Result<u64, Error> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let kib = |name: &str| {
        let line = rollup.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Ok(kib("Private_Dirty:").ok_or("smaps_rollup does not say how much memory is private")? * 1024)
}
