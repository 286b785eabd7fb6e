//! Vectors of all texts of the data, kept in a file from run to run.
//!
//! The file: a line `nexa vectors 1 DIMENSIONS MODEL`, then for each text its BLAKE3 hash and as many numbers as there are
//! dimensions, four bytes each, the lowest first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nexa_paging::vector_text;

use crate::locomo::Talk;

/// Vectors by the hashes of their texts.
#[derive(Default)]
pub(crate) struct Vectors {
    known: BTreeMap<[u8; 32], Vec<f32>>,
    is_complete: bool,
}

impl Vectors {
    /// Reads what is kept. Vectors of texts that are not there are absent, and so are the figures that need them.
    ///
    /// # Errors
    /// In words, for a file of another form.
    pub(crate) fn open(path: Option<&Path>, talks: &[Talk]) -> Result<Self, String> {
        let mut vectors = Self::default();
        if let Some(path) = path.filter(|path| path.is_file()) {
            let bytes = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            vectors.known = read(&bytes).ok_or_else(|| format!("{} is no file of vectors", path.display()))?;
        }
        let missing: BTreeSet<String> =
            texts(talks).filter(|text| !vectors.known.contains_key(blake3::hash(text.as_bytes()).as_bytes())).collect();
        vectors.is_complete = missing.is_empty();
        if !vectors.is_complete {
            eprintln!(
                "{} texts have no vectors: figures of vectors are absent, words only are measured",
                missing.len()
            );
        }
        Ok(vectors)
    }

    /// Whether every text has one.
    pub(crate) fn are_complete(&self) -> bool {
        self.is_complete
    }

    /// The vector of a text.
    pub(crate) fn of(&self, text: &str) -> Option<&[f32]> {
        self.known.get(blake3::hash(text.as_bytes()).as_bytes()).filter(|_| self.is_complete).map(Vec::as_slice)
    }
}

/// All texts that need vectors: messages and questions.
fn texts(talks: &[Talk]) -> impl Iterator<Item = String> {
    talks.iter().flat_map(|talk| {
        let messages = talk.messages.iter().map(vector_text);
        messages.chain(talk.questions.iter().map(|question| question.text.clone()))
    })
}

fn read(bytes: &[u8]) -> Option<BTreeMap<[u8; 32], Vec<f32>>> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let mut head = std::str::from_utf8(&bytes[..end]).ok()?.strip_prefix("nexa vectors 1 ")?.split(' ');
    let dimensions: usize = head.next()?.parse().ok().filter(|dimensions| *dimensions > 0)?;
    let records = bytes[end + 1..].chunks_exact(32 + dimensions * 4);
    records.remainder().is_empty().then_some(())?;
    let numbers = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).filter_map(|four| four.try_into().ok()).map(f32::from_le_bytes).collect()
    };
    records.map(|record| Some((record[..32].try_into().ok()?, numbers(&record[32..])))).collect()
}
