//! A bounded memory of vectors before any embedder, by the hash of the text.
//!
//! Agents say the same things, and a page that leaves memory and comes back says what it said: each text is embedded once
//! as long as it is remembered. Twice in one call counts as once, too.
//!
//! Two generations: what is used enters the young one; when that is full, the old one is forgotten and the young one grows
//! old. So at most `2 × vectors_max` are held, and what is used goes on being held, for the price of two look-ups.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::{BoxFuture, FutureExt};
use nexa_ports::embedder::{EmbedCall, EmbedError, Embedded, Embedder, UnitVector};
use nexa_types::Spend;

/// Vectors of a generation unless it is said otherwise: 6 MB of 384 numbers each, 12 with both.
pub const VECTORS_MAX_DEFAULT: usize = 4_096;

/// An embedder before which vectors are remembered.
pub struct Remembering<E> {
    embedder: E,
    memory: Mutex<Memory>,
}

struct Memory {
    young: HashMap<Key, UnitVector>,
    old: HashMap<Key, UnitVector>,
    vectors_max: usize,
}

type Key = [u8; 32];

impl<E: Embedder> Remembering<E> {
    /// Remembers [`VECTORS_MAX_DEFAULT`] vectors or twice as many.
    pub fn new(embedder: E) -> Self {
        Self::up_to(embedder, VECTORS_MAX_DEFAULT)
    }

    /// Remembers so many vectors or twice as many, at least one.
    pub fn up_to(embedder: E, vectors_max: usize) -> Self {
        let vectors_max = vectors_max.max(1);
        Self { embedder, memory: Mutex::new(Memory { young: HashMap::new(), old: HashMap::new(), vectors_max }) }
    }

    /// Vectors that are remembered now.
    pub fn vectors(&self) -> usize {
        let memory = self.memory();
        memory.young.len() + memory.old.len()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no holder of this lock can panic")
    }

    async fn answer(&self, call: EmbedCall) -> Result<Embedded, EmbedError> {
        call.check()?;
        let keys: Vec<Key> = call.texts.iter().map(|text| *blake3::hash(text.as_bytes()).as_bytes()).collect();
        let mut known: Vec<Option<UnitVector>> = {
            let mut memory = self.memory();
            keys.iter().map(|key| memory.find(key)).collect()
        };
        let mut wanted: HashMap<Key, usize> = HashMap::new();
        let mut texts: Vec<Arc<str>> = Vec::new();
        for ((key, text), vector) in keys.iter().zip(&call.texts).zip(&known) {
            if vector.is_none() && !wanted.contains_key(key) {
                wanted.insert(*key, texts.len());
                texts.push(Arc::clone(text));
            }
        }
        if texts.is_empty() {
            let vectors = known.into_iter().flatten().collect();
            return Ok(Embedded { vectors, spend: Spend::default() });
        }
        let count = texts.len();
        let Embedded { vectors, spend } = self.embedder.embed(EmbedCall { texts, ..call }).await?;
        if vectors.len() != count {
            let message = format!("{} has sent {} vectors for {count} texts", self.embedder.model(), vectors.len());
            return Err(EmbedError::Invalid(message));
        }
        let mut memory = self.memory();
        for (key, vector) in keys.iter().zip(&mut known) {
            let kept = vector.get_or_insert_with(|| vectors[wanted[key]].clone());
            // Those that were known, too: the others may have pushed them out.
            memory.keep(*key, kept.clone());
        }
        Ok(Embedded { vectors: known.into_iter().flatten().collect(), spend })
    }
}

impl Memory {
    fn find(&mut self, key: &Key) -> Option<UnitVector> {
        if let Some(vector) = self.young.get(key) {
            return Some(vector.clone());
        }
        let vector = self.old.remove(key)?;
        self.keep(*key, vector.clone());
        Some(vector)
    }

    fn keep(&mut self, key: Key, vector: UnitVector) {
        if self.young.len() >= self.vectors_max && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, vector);
    }
}

impl<E: Embedder> Embedder for Remembering<E> {
    fn model(&self) -> &str {
        self.embedder.model()
    }

    fn dimension(&self) -> usize {
        self.embedder.dimension()
    }

    fn embed(&self, call: EmbedCall) -> BoxFuture<'_, Result<Embedded, EmbedError>> {
        self.answer(call).boxed()
    }
}
