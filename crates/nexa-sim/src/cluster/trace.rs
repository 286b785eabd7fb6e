//! What happened, in order: one line each with its virtual time, folded into one hash. Two runs of a seed are the same run if
//! their hashes are equal.

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use nexa_history::Violation;
use nexa_ports::clock::Clock;
use nexa_types::Timestamp;

use super::process::{BEGIN, VirtualClock, lock};

/// Violations that are kept of one run; further ones are only more of the same.
const VIOLATIONS_MAX: usize = 16;

#[derive(Default)]
struct Kept {
    hasher: blake3::Hasher,
    lines: Vec<String>,
    facts: u64,
    violations: Vec<Violation>,
}

/// What is noted of one run.
pub(super) struct Trace {
    clock: Arc<VirtualClock>,
    /// Whether lines are kept for people, and not only hashed.
    keeps_lines: bool,
    kept: Mutex<Kept>,
}

impl Trace {
    pub(super) fn new(clock: Arc<VirtualClock>, keeps_lines: bool) -> Arc<Self> {
        Arc::new(Self { clock, keeps_lines, kept: Mutex::default() })
    }

    /// Something has happened now.
    pub(super) fn note(&self, what: &str, line: impl std::fmt::Display) {
        self.write(what, &line.to_string(), &[]);
    }

    /// A fact was stored now.
    pub(super) fn fact(&self, line: &str, bytes: &[u8]) {
        lock(&self.kept).facts += 1;
        self.write("fact", line, bytes);
    }

    fn write(&self, what: &str, line: &str, bytes: &[u8]) {
        let at = shown(self.clock.now());
        let mut kept = lock(&self.kept);
        let mut text = String::with_capacity(line.len() + 32);
        let _ = write!(text, "{at} {what:8} {line}");
        kept.hasher.update(text.as_bytes());
        kept.hasher.update(&(bytes.len() as u64).to_le_bytes());
        kept.hasher.update(bytes);
        if self.keeps_lines {
            kept.lines.push(text);
        }
    }

    /// A property is broken.
    pub(super) fn violated(&self, id: &'static str, text: String) {
        self.note("VIOLATED", format_args!("{id}: {text}"));
        let mut kept = lock(&self.kept);
        if kept.violations.len() < VIOLATIONS_MAX {
            kept.violations.push(Violation { id, text });
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        lock(&self.kept).violations.is_empty()
    }

    /// The hash, how many facts there were, the lines and the violations.
    pub(super) fn finish(&self) -> (String, u64, Vec<String>, Vec<Violation>) {
        let mut kept = lock(&self.kept);
        let (lines, violations) = (std::mem::take(&mut kept.lines), std::mem::take(&mut kept.violations));
        (kept.hasher.finalize().to_hex().to_string(), kept.facts, lines, violations)
    }
}

/// A moment as seconds since the beginning.
pub(super) fn shown(at: Timestamp) -> String {
    let ms = at.since(BEGIN).0;
    format!("{:4}.{:03}", ms / 1_000, ms % 1_000)
}
