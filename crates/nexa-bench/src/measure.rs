//! Rounds of measuring, and the figures that come of them.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use serde_json::{Map, Number, Value};

/// What goes wrong in a bench: told, and the run ends.
pub(crate) type Error = Box<dyn std::error::Error>;

/// One thing that is measured: its key in the result, and what one round of it costs in the key's unit.
pub(crate) struct Subject<'a> {
    pub(crate) key: &'static str,
    pub(crate) round: Box<dyn FnMut() -> Result<f64, Error> + 'a>,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(key: &'static str, round: impl FnMut() -> Result<f64, Error> + 'a) -> Self {
        Self { key, round: Box::new(round) }
    }
}

/// Figures by their keys, in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Figures(Map<String, Value>);

impl Figures {
    /// Measures the subjects in turn, round by round, so that a noisy moment meets all of them. One round before the
    /// first warms up and does not count.
    pub(crate) fn measure(&mut self, rounds: usize, mut subjects: Vec<Subject<'_>>) -> Result<(), Error> {
        let mut taken: Vec<Vec<f64>> = vec![Vec::with_capacity(rounds); subjects.len()];
        for round in 0..=rounds {
            for (subject, taken) in subjects.iter_mut().zip(&mut taken) {
                let figure = (subject.round)()?;
                if round > 0 {
                    taken.push(figure);
                }
            }
        }
        for (subject, taken) in subjects.into_iter().zip(taken) {
            self.spread(subject.key, taken);
        }
        Ok(())
    }

    /// The median of what several rounds gave, and how far they lie apart.
    pub(crate) fn spread(&mut self, key: &str, mut taken: Vec<f64>) {
        taken.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (taken.first(), taken.last()) else { return };
        let (median, min, max) = (taken[taken.len() / 2], *min, *max);
        eprintln!("{key:24} {median:12.3}   ({min:.3} to {max:.3})");
        self.set(key.to_owned(), median);
        self.set(format!("{key}_min"), min);
        self.set(format!("{key}_max"), max);
    }

    /// A figure that cannot be had here, and why.
    pub(crate) fn absent(&mut self, key: &str, why: &str) {
        eprintln!("{key:24} {:>12}   ({why})", "-");
        self.0.insert(key.to_owned(), Value::Null);
    }

    /// A figure that was given before; 0 if none was.
    pub(crate) fn of(&self, key: &str) -> f64 {
        self.0.get(key).and_then(Value::as_f64).unwrap_or_default()
    }

    /// A figure that is counted and not timed.
    pub(crate) fn count(&mut self, key: &str, figure: f64) {
        eprintln!("{key:24} {figure:12.3}");
        self.set(key.to_owned(), figure);
    }

    fn set(&mut self, key: String, figure: f64) {
        // Three digits after the point: no clock here is better than that.
        let rounded = (figure * 1_000.0).round() / 1_000.0;
        self.0.insert(key, Number::from_f64(rounded).map_or(Value::Null, Value::Number));
    }

    pub(crate) fn to_json(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

/// What rounds gave, by the key of the figure that it becomes.
#[derive(Default)]
pub(crate) struct Rounds(BTreeMap<&'static str, Vec<f64>>);

impl Rounds {
    pub(crate) fn note(&mut self, key: &'static str, figure: f64) {
        self.0.entry(key).or_default().push(figure);
    }

    pub(crate) fn append(&mut self, later: Self) {
        for (key, taken) in later.0 {
            self.0.entry(key).or_default().extend(taken);
        }
    }

    pub(crate) fn take(&mut self, key: &str) -> Result<Vec<f64>, Error> {
        self.0.remove(key).ok_or_else(|| format!("`{key}` was not measured").into())
    }
}

/// How long something takes, in nanoseconds.
pub(crate) fn nanos<T>(work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    black_box(work());
    start.elapsed().as_nanos() as f64
}
