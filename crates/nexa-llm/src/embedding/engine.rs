//! Texts to vectors, on all cores.
//!
//! In:  texts, already within the limits of the port.
//! Out: a vector of length one for each, in order, and how many pieces were read for them.
//!
//! Texts are sorted by length and put into groups of about as many pieces; a group is computed by one thread from the
//! words to the means, so threads meet only at the end. A group holds no more than [`GROUP_PIECES_MAX`] pieces.
//!
//! Memory: the weights, 45 MB; the words of the tokenizer, some 10 MB; while it computes, 4 MB for each thread.
//!
//! Not here: queues and clocks (`worker`), where the weights come from ([`crate::embedded::weights`]).

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use candle_core::quantized::gguf_file::Content;
use nexa_ports::embedder::UnitVector;
use rayon::prelude::*;
use thiserror::Error;

use super::encoder::{Encoder, PIECES_MAX};
use super::pieces::{Pieces, PiecesError};

/// Pieces of a group: as many as the longest text has, and enough that reading the weights once for them costs nothing.
pub(super) const GROUP_PIECES_MAX: usize = PIECES_MAX;
/// Fewer pieces are not worth another thread.
const GROUP_PIECES_MIN: usize = 24;

/// Why weights cannot be used, although the file is the right one.
#[derive(Debug, Error)]
pub(super) enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the weights at {path}")]
    Read {
        /// Where they are.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the weights at {path} are damaged or of another kind")]
    Damaged {
        /// Where they are.
        path: String,
        /// What the reader says.
        #[source]
        source: candle_core::Error,
    },
    /// Its words are of another kind.
    #[error("the weights at {path} speak another language")]
    Pieces {
        /// Where they are.
        path: String,
        /// What is wrong.
        #[source]
        source: PiecesError,
    },
}

/// The model, ready to make vectors.
pub(super) struct Engine {
    encoder: Encoder,
    pieces: Pieces,
}

impl Engine {
    pub(super) fn load(path: &Path) -> Result<Self, LoadError> {
        let shown = path.display().to_string();
        let file = File::open(path).map_err(|source| LoadError::Read { path: shown.clone(), source })?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let damaged = |source| LoadError::Damaged { path: shown.clone(), source };
        let content = Content::read(&mut reader).map_err(damaged)?;
        let pieces = Pieces::read(&content).map_err(|source| LoadError::Pieces { path: shown.clone(), source })?;
        let encoder = Encoder::read(&content, &mut reader).map_err(damaged)?;
        if pieces.len() != encoder.pieces() {
            let what = format!("{} words for a table of {}", pieces.len(), encoder.pieces());
            return Err(damaged(candle_core::Error::Msg(what)));
        }
        Ok(Self { encoder, pieces })
    }

    pub(super) fn dimension(&self) -> usize {
        self.encoder.width()
    }

    /// The pieces of a text, as many as count.
    pub(super) fn pieces(&self, text: &str) -> Vec<u32> {
        self.pieces.of(text, PIECES_MAX)
    }

    /// The vectors of texts in pieces; `None` for one whose numbers have no direction, which right weights never give.
    pub(super) fn vectors(&self, texts: &[Vec<u32>]) -> Vec<Option<UnitVector>> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_unstable_by_key(|text| (std::cmp::Reverse(texts[*text].len()), *text));
        let total: usize = texts.iter().map(Vec::len).sum();
        let room = total.div_ceil(rayon::current_num_threads()).clamp(GROUP_PIECES_MIN, GROUP_PIECES_MAX);
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut len = room;
        for text in order {
            let more = texts[text].len();
            if len + more > room {
                groups.push(Vec::new());
                len = 0;
            }
            len += more;
            groups.last_mut().expect("the first text opens a group").push(text);
        }
        let made: Vec<(usize, Option<UnitVector>)> = groups
            .into_par_iter()
            .flat_map_iter(|group| {
                let pieces: Vec<&[u32]> = group.iter().map(|text| texts[*text].as_slice()).collect();
                let means = self.encoder.encode(&pieces);
                group.into_iter().zip(means.into_iter().map(UnitVector::towards))
            })
            .collect();
        let mut vectors = vec![None; texts.len()];
        for (text, vector) in made {
            vectors[text] = vector;
        }
        vectors
    }
}
