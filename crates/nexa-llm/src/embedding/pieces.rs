//! Text to word pieces, as BERT reads them: lower case, without accents, the longest known pieces first.
//!
//! Text never turns into a piece with a meaning of its own: whoever writes `[SEP]` into a document gets those five
//! characters, not the end of a text.

use candle_core::quantized::gguf_file::{Content, Value};
use thiserror::Error;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

/// Bytes of a text that are looked at. Pieces to fill the network's window take some 1,500; a text that needs more of it
/// is none that words are found in.
pub(super) const READ_BYTES_MAX: usize = 16 << 10;

/// Why a file's words cannot be used.
#[derive(Debug, Error)]
pub(super) enum PiecesError {
    /// They are missing, or of another kind of tokenizer.
    #[error("the weights' file says nothing usable about `{0}`")]
    Missing(&'static str),
    /// The words do not make a tokenizer.
    #[error("the weights' words make no tokenizer: {0}")]
    Unbuildable(String),
}

/// The word pieces of a network.
pub(super) struct Pieces {
    tokenizer: Tokenizer,
    start: u32,
    end: u32,
    len: usize,
}

impl Pieces {
    pub(super) fn read(content: &Content) -> Result<Self, PiecesError> {
        const MODEL: &str = "tokenizer.ggml.model";
        const TOKENS: &str = "tokenizer.ggml.tokens";
        match content.metadata.get(MODEL) {
            Some(Value::String(model)) if model == "bert" => {}
            _ => return Err(PiecesError::Missing(MODEL)),
        }
        let Some(Value::Array(words)) = content.metadata.get(TOKENS) else {
            return Err(PiecesError::Missing(TOKENS));
        };
        let words = words.iter().map(|word| word.to_string().cloned());
        let words: Vec<String> = words.collect::<Result<_, _>>().map_err(|_| PiecesError::Missing(TOKENS))?;
        let id = |word: &str| words.iter().position(|known| known == word).map(|id| id as u32);
        let special = |word| id(word).ok_or(PiecesError::Missing(TOKENS));
        let (start, end, _) = (special("[CLS]")?, special("[SEP]")?, special("[UNK]")?);
        let len = words.len();
        let model = WordPiece::builder()
            .vocab(words.into_iter().zip(0..).collect::<Vocab>())
            .build()
            .map_err(|error| PiecesError::Unbuildable(error.to_string()))?;
        let mut tokenizer = Tokenizer::new(model);
        let unbuildable = |error: tokenizers::Error| PiecesError::Unbuildable(error.to_string());
        tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, None, true))).map_err(unbuildable)?;
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        Ok(Self { tokenizer, start, end, len })
    }

    /// How many different pieces there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The pieces of a text between the two marks around it, at most `max` with these; what is beyond is not read.
    pub(super) fn of(&self, text: &str, max: usize) -> Vec<u32> {
        let text = &text[..text.floor_char_boundary(READ_BYTES_MAX)];
        let mut pieces = vec![self.start];
        // Pieces cannot fail on text: a word that is not known is the piece for that.
        if let Ok(encoding) = self.tokenizer.encode_fast(text, false) {
            pieces.extend(encoding.get_ids().iter().take(max.saturating_sub(2)));
        }
        pieces.push(self.end);
        pieces
    }
}
