//! Text to tokens and back, as the weights' own file says.
//!
//! The tokenizer (byte-level pairs) and the form of a conversation stand in the file's metadata. Only the forms that
//! are known here are accepted; another file is refused instead of being read wrongly.
//!
//! Text never turns into a token with a meaning of its own: whoever writes `<|im_end|>` into a document
//! gets those ten characters, not the end of a message.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;
use nexa_event::effect::Message;
use thiserror::Error;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

/// Why a file's tokenizer cannot be used.
#[derive(Debug, Error)]
pub enum VocabularyError {
    /// A key is missing or of the wrong kind.
    #[error("the weights' file says nothing usable about `{0}`")]
    Missing(&'static str),
    /// Another kind of tokenizer.
    #[error("the weights' tokenizer is `{0}`, and only the byte-level one of SmolLM2 is known")]
    OtherTokenizer(String),
    /// Another form of conversation.
    #[error("the weights' chat template is not the one of SmolLM2, so a conversation cannot be put to it")]
    OtherTemplate,
    /// The pairs and tokens do not belong together.
    #[error("the weights' tokenizer cannot be built")]
    Unbuildable(#[source] tokenizers::Error),
}

/// The tokenizer and the form of a conversation.
pub(super) struct Vocabulary {
    tokenizer: Tokenizer,
    /// The bytes of each token; none for a token with a meaning of its own.
    bytes: Vec<Option<Box<[u8]>>>,
    start: u32,
    end: u32,
    end_of_text: Option<u32>,
    default_system: Option<String>,
}

const START: &str = "<|im_start|>";
const END: &str = "<|im_end|>";

impl Vocabulary {
    pub(super) fn read(metadata: &HashMap<String, Value>) -> Result<Self, VocabularyError> {
        let text = |key: &'static str| match metadata.get(key) {
            Some(Value::String(text)) => Ok(text.as_str()),
            _ => Err(VocabularyError::Missing(key)),
        };
        let list = |key: &'static str| match metadata.get(key) {
            Some(Value::Array(values)) => Ok(values),
            _ => Err(VocabularyError::Missing(key)),
        };
        let kind = (text("tokenizer.ggml.model")?, text("tokenizer.ggml.pre")?);
        if kind != ("gpt2", "smollm") {
            return Err(VocabularyError::OtherTokenizer(format!("{}/{}", kind.0, kind.1)));
        }
        let template = text("tokenizer.chat_template")?;
        check_template(template)?;

        let tokens: Vec<&String> =
            list("tokenizer.ggml.tokens")?.iter().filter_map(|token| token.to_string().ok()).collect();
        let kinds = list("tokenizer.ggml.token_type")?;
        if tokens.is_empty() || tokens.len() != kinds.len() {
            return Err(VocabularyError::Missing("tokenizer.ggml.tokens"));
        }
        let merges = list("tokenizer.ggml.merges")?
            .iter()
            .map(|merge| {
                let (left, right) = merge.to_string().ok()?.split_once(' ')?;
                Some((left.to_owned(), right.to_owned()))
            })
            .collect::<Option<Vec<_>>>()
            .ok_or(VocabularyError::Missing("tokenizer.ggml.merges"))?;
        let byte_of = byte_of_letter();
        const NORMAL: i32 = 1;
        let bytes = tokens
            .iter()
            .zip(kinds)
            .map(|(token, kind)| match kind.to_i32() {
                Ok(NORMAL) => token.chars().map(|letter| byte_of.get(&letter).copied()).collect(),
                _ => None,
            })
            .collect();
        let vocab: Vocab = (0..).zip(&tokens).map(|(id, token)| ((*token).clone(), id)).collect();
        let id = |name: &str| vocab.get(name).copied();
        let start = id(START).ok_or(VocabularyError::OtherTemplate)?;
        let end = id(END).ok_or(VocabularyError::OtherTemplate)?;
        let end_of_text = id("<|endoftext|>");

        let bpe = BPE::builder().vocab_and_merges(vocab, merges).build().map_err(VocabularyError::Unbuildable)?;
        let mut tokenizer = Tokenizer::new(bpe);
        let steps: Vec<PreTokenizerWrapper> = vec![Digits::new(true).into(), ByteLevel::new(false, true, true).into()];
        tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::from(Sequence::new(steps))));
        Ok(Self { tokenizer, bytes, start, end, end_of_text, default_system: default_system(template) })
    }

    /// The tokens of a text.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let encoding = self.tokenizer.encode_fast(text, false).expect("byte pairs without dropout cannot fail on text");
        encoding.get_ids().to_vec()
    }

    /// The bytes of a token, which may be part of a character; none for one with a meaning of its own.
    pub(super) fn bytes(&self, token: u32) -> Option<&[u8]> {
        self.bytes.get(token as usize)?.as_deref()
    }

    /// Whether a token ends an answer.
    pub(super) fn is_end(&self, token: u32) -> bool {
        token == self.end || Some(token) == self.end_of_text
    }

    /// The tokens of each message, and those that invite the answer.
    pub(super) fn conversation(&self, messages: &[Message]) -> Conversation {
        let starts_with_system = messages.first().is_some_and(|message| message.role.as_str() == "system");
        let default = self.default_system.as_deref().filter(|_| !starts_with_system).map(|text| ("system", text));
        let said = messages.iter().map(|message| (message.role.as_str(), message.text.as_str()));
        let turns = default
            .into_iter()
            .chain(said)
            .map(|(role, text)| Turn {
                opening: self.opening(role),
                is_system: role == "system",
                text: self.encode(text),
                closing: std::iter::once(self.end).chain(self.encode("\n")).collect(),
            })
            .collect();
        Conversation { turns, invitation: self.opening("assistant") }
    }

    fn opening(&self, role: &str) -> Vec<u32> {
        std::iter::once(self.start).chain(self.encode(&format!("{role}\n"))).collect()
    }
}

/// A conversation in tokens.
pub(super) struct Conversation {
    turns: Vec<Turn>,
    invitation: Vec<u32>,
}

struct Turn {
    opening: Vec<u32>,
    is_system: bool,
    text: Vec<u32>,
    closing: Vec<u32>,
}

/// A conversation that fits, and how much of it was left out for that.
pub(super) struct Prompt {
    pub(super) tokens: Vec<u32>,
    pub(super) left_out: usize,
}

impl Conversation {
    pub(super) fn len(&self) -> usize {
        let turn = |turn: &Turn| turn.opening.len() + turn.text.len() + turn.closing.len();
        self.turns.iter().map(turn).sum::<usize>() + self.invitation.len()
    }

    /// Cuts the middle out of the longest message, and of the next if that is not enough, never out of a
    /// system message; a visible mark stands where something is missing. `None` if even that does not fit.
    pub(super) fn fit(mut self, room: usize, mark: impl Fn(usize) -> Vec<u32>) -> Option<Prompt> {
        let whole = self.len();
        let mut left_out = 0;
        let mut cut = vec![false; self.turns.len()];
        while self.len() > room {
            let excess = self.len() - room;
            let candidates = self.turns.iter_mut().zip(&mut cut).filter(|(turn, cut)| !turn.is_system && !**cut);
            let (turn, cut) = candidates.max_by_key(|(turn, _)| turn.text.len())?;
            *cut = true;
            // The mark's own length depends on the number in it, but never by more than its longest form.
            let mark_len = mark(whole).len();
            let removed = (excess + mark_len).min(turn.text.len());
            if removed <= mark_len {
                return None;
            }
            let kept = turn.text.len() - removed;
            let (head, tail) = (kept.div_ceil(2), kept / 2);
            let rest = turn.text.split_off(turn.text.len() - tail);
            turn.text.truncate(head);
            turn.text.extend(mark(removed));
            turn.text.extend(rest);
            left_out += removed;
        }
        let turns = self.turns.into_iter().flat_map(|turn| [turn.opening, turn.text, turn.closing]);
        Some(Prompt { tokens: turns.chain([self.invitation]).flatten().collect(), left_out })
    }
}

/// Accepts the one form that is known: each message between two marks, then the assistant's opening.
fn check_template(template: &str) -> Result<(), VocabularyError> {
    let dense: String = template.chars().filter(|letter| !letter.is_whitespace()).collect();
    let newline = r"'\n'";
    let message = format!("'{START}'+message['role']+{newline}+message['content']+'{END}'+{newline}");
    // The file may hold the newline itself or its escape; both read the same in a template.
    let plain = message.replace(r"\n", "");
    let is_known = [&message, &plain].iter().any(|form| dense.contains(form.as_str()))
        && dense.contains("add_generation_prompt")
        && dense.contains(&format!("{START}assistant"));
    if is_known { Ok(()) } else { Err(VocabularyError::OtherTemplate) }
}

/// What the model was taught to be told when nobody tells it anything.
fn default_system(template: &str) -> Option<String> {
    let (_, rest) = template.split_once(&format!("{START}system"))?;
    let (text, _) = rest.split_once(END)?;
    Some(text.trim_start_matches(r"\n").trim().to_owned())
}

/// The letters that stand for bytes in a byte-level vocabulary: printable Latin-1 for itself, the rest from U+0100 on.
fn byte_of_letter() -> HashMap<char, u8> {
    let is_printable = |byte: u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let hidden = (0..=255_u8).filter(|byte| !is_printable(*byte)).zip(0x100_u32..);
    let plain = (0..=255_u8).filter(|byte| is_printable(*byte)).map(|byte| (char::from(byte), byte));
    plain.chain(hidden.filter_map(|(byte, code)| Some((char::from_u32(code)?, byte)))).collect()
}
