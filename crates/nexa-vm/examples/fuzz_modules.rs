//! Very many damaged modules and snapshots through decoder, verifier and machine:
//! `cargo xtask fuzz vm --cases 1000000 --seed 1`.
//!
//! Each case is one module and one snapshot, damaged byte by byte or instruction by instruction. What is accepted runs
//! for a few slices, through a snapshot after each. Nothing may panic, and what is allocated is counted against the
//! length of the input. The first case that breaks this ends the run with its number, which with the seed makes it again.

#![allow(clippy::unwrap_used, reason = "a fuzzer stops at what it did not expect")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut cases, mut seed, mut first) = (100_000u64, 1u64, 0u64);
    let mut args = std::env::args().skip(1);
    while let Some(option) = args.next() {
        let number = args.next().ok_or_else(|| format!("`{option}` wants a number"))?.parse()?;
        match option.as_str() {
            "--cases" => cases = number,
            "--seed" => seed = number,
            "--first" => first = number,
            _ => return Err(format!("`{option}` is none of --cases, --seed, --first").into()),
        }
    }
    let start = Instant::now();
    let good = common::damage::Good::new();
    let tallies = good.run(seed, first..first + cases, |name, case| {
        if case % 100_000 == 0 && case > first {
            eprintln!("{case} {name}s, {:.0} s", start.elapsed().as_secs_f64());
        }
    });
    for (name, tally) in ["modules", "snapshots"].iter().zip(tallies) {
        println!("{name}: {tally:?}");
    }
    println!("seed {seed}, cases {first} to {}, {:.0} s", first + cases - 1, start.elapsed().as_secs_f64());
    Ok(())
}
