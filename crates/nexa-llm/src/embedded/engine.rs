//! Writes one answer: prompt in, pieces of text out.
//!
//! In:  a request, a seed, and a `Listener` that takes the pieces and may say stop at every token.
//! Out: the answer with what it cost, or why there is none.
//!
//! Holds:
//!   EN-1  an answer never has more tokens than `max_tokens`, nor a conversation more than the window
//!   EN-2  with a schema, what is written fits it, even if the tokens run out: then the shortest end is written
//!   EN-3  same weights, request and seed: same answer
//!
//! Not here: threads, queues and clocks (`worker`), where the weights come from (`weights`, `pull`).

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use candle_core::quantized::gguf_file::Content;
use nexa_event::effect::{Finish, ModelReply, ModelRequest};
use nexa_ports::model::ModelError;
use nexa_types::{RunCode, Spend, Tokens, UsdMicro};
use thiserror::Error;

use super::llama::{Cache, Llama};
use super::sampler::Sampler;
use super::spool::Spool;
use super::vocabulary::{Prompt, Vocabulary, VocabularyError};
use crate::constrain::{Grammar, Limits, State};

/// The most tokens of a conversation, answer included; a file may allow less.
pub const CONTEXT_TOKENS_MAX: usize = 4096;
/// Prompt tokens read between two looks at deadline and cancellation.
const PREFILL_TOKENS: usize = 128;
/// Tokens kept free for the end of a document: its parts may need a token more than the whole does.
const CLOSING_SLACK: usize = 4;
/// Room for the prompt that an answer may not take.
const PROMPT_TOKENS_MIN: usize = 256;

/// Why weights cannot be used, although the file is the right one.
#[derive(Debug, Error)]
pub enum LoadError {
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
    /// Its tokenizer is another.
    #[error("the weights at {path} speak another language")]
    Vocabulary {
        /// Where they are.
        path: String,
        /// What is wrong.
        #[source]
        source: VocabularyError,
    },
}

/// Who listens to an answer while it is written.
pub(super) trait Listener {
    /// Looked at before each token: an error ends the answer.
    fn go_on(&self) -> Result<(), ModelError>;
    /// The next piece of text.
    fn piece(&mut self, offset: usize, text: &str);
}

/// The model, ready to answer.
pub(super) struct Engine {
    llama: Llama,
    vocabulary: Vocabulary,
    /// `provider/name`, as it stands in answers.
    name: String,
}

impl Engine {
    pub(super) fn load(path: &Path, name: &str) -> Result<Self, LoadError> {
        let shown = path.display().to_string();
        let file = File::open(path).map_err(|source| LoadError::Read { path: shown.clone(), source })?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let damaged = |source| LoadError::Damaged { path: shown.clone(), source };
        let content = Content::read(&mut reader).map_err(damaged)?;
        let vocabulary = Vocabulary::read(&content.metadata)
            .map_err(|source| LoadError::Vocabulary { path: shown.clone(), source })?;
        let llama = Llama::read(&content, &mut reader, CONTEXT_TOKENS_MAX).map_err(damaged)?;
        Ok(Self { llama, vocabulary, name: name.to_owned() })
    }

    /// Answers a request.
    pub(super) fn answer(
        &self,
        request: &ModelRequest,
        seed: u64,
        listener: &mut dyn Listener,
    ) -> Result<ModelReply, ModelError> {
        let grammar = request.schema.as_deref().map(read_schema).transpose()?;
        let wanted = usize::try_from(request.sampling.max_tokens.0).unwrap_or(usize::MAX);
        let window = self.llama.context();
        let output_max = wanted.min(window - PROMPT_TOKENS_MIN.min(window / 2));
        if let Some(grammar) = &grammar {
            let least = self.closing_len(grammar, &grammar.start()) + CLOSING_SLACK;
            if least > output_max {
                return Err(ModelError::new(
                    RunCode::Refused,
                    format!(
                        "the shortest answer that fits the schema may need {least} tokens, but at most {output_max} \
                         are allowed; raise `max_tokens`"
                    ),
                ));
            }
        }
        let prompt = self.prompt(request, window - output_max)?;
        let mut writing = Writing {
            engine: self,
            cache: self.llama.cache(prompt.tokens.len() + output_max),
            sampler: Sampler::new(request.sampling.temperature, request.sampling.top_p, seed),
            spool: Spool::new(if grammar.is_some() { &[] } else { &request.sampling.stop }),
            scores: Vec::new(),
            written: Vec::new(),
            output_max,
            listener,
        };
        writing.read(&prompt.tokens)?;
        let finish = match &grammar {
            Some(grammar) => writing.document(grammar)?,
            None => writing.text()?,
        };
        let Writing { mut spool, listener, written, .. } = writing;
        if let Some((offset, text)) = spool.last_piece() {
            listener.piece(offset, text);
        }
        Ok(ModelReply {
            text: spool.into_text(),
            finish,
            model: self.name.clone(),
            spend: Spend {
                tokens_in: Tokens(prompt.tokens.len() as u64),
                tokens_out: Tokens(written.len() as u64),
                cost: UsdMicro(0),
                calls: 1,
                steps: 0,
            },
            tokens_left_out: Tokens(prompt.left_out as u64),
            tool_calls: Vec::new(),
        })
    }

    fn prompt(&self, request: &ModelRequest, room: usize) -> Result<Prompt, ModelError> {
        let conversation = self.vocabulary.conversation(&request.messages);
        let len = conversation.len();
        let mark = |count: usize| self.vocabulary.encode(&format!("\n[… {count} tokens left out …]\n"));
        let prompt = conversation.fit(room, mark).ok_or_else(|| {
            ModelError::new(
                RunCode::Refused,
                format!(
                    "the conversation has {len} tokens and the embedded model has room for {room} beside its answer, \
                     which even leaving out the middle of messages does not reach; shorten the prompt or lower `max_tokens`"
                ),
            )
        })?;
        if prompt.left_out > 0 {
            tracing::warn!(
                agent = %request.agent,
                tokens = len,
                room,
                left_out = prompt.left_out,
                "prompt too long for the embedded model, middle of the longest message left out"
            );
        }
        Ok(prompt)
    }

    fn closing_len(&self, grammar: &Grammar, state: &State) -> usize {
        self.vocabulary.encode(&String::from_utf8_lossy(&grammar.closing(state))).len()
    }
}

/// An answer that is being written.
struct Writing<'e> {
    engine: &'e Engine,
    cache: Cache,
    sampler: Sampler,
    spool: Spool,
    /// How well each token would come next.
    scores: Vec<f32>,
    written: Vec<u32>,
    output_max: usize,
    listener: &'e mut dyn Listener,
}

impl Writing<'_> {
    /// Reads tokens, in chunks that end well within a deadline's patience.
    fn read(&mut self, tokens: &[u32]) -> Result<(), ModelError> {
        for chunk in tokens.chunks(PREFILL_TOKENS) {
            self.listener.go_on()?;
            self.scores = self.engine.llama.read_on(&mut self.cache, chunk).map_err(broken)?;
        }
        Ok(())
    }

    /// Free text, until the model ends it, a stop text comes, or the tokens run out.
    fn text(&mut self) -> Result<Finish, ModelError> {
        let vocabulary = &self.engine.vocabulary;
        while self.written.len() < self.output_max {
            let is_writable = |token| vocabulary.is_end(token) || vocabulary.bytes(token).is_some();
            let Some(token) = self.sampler.choose(&mut self.scores, &self.written, is_writable) else {
                return Ok(Finish::Stop);
            };
            if vocabulary.is_end(token) {
                return Ok(Finish::Stop);
            }
            self.written.push(token);
            if self.write(vocabulary.bytes(token).unwrap_or_default()) {
                return Ok(Finish::Stop);
            }
            if self.written.len() < self.output_max {
                self.read(&[token])?;
            }
        }
        Ok(Finish::Length)
    }

    /// A document that fits a schema.
    fn document(&mut self, grammar: &Grammar) -> Result<Finish, ModelError> {
        let vocabulary = &self.engine.vocabulary;
        let mut state = grammar.start();
        loop {
            // What has only one way on is written without asking, and read by the model in one go.
            // A space at its end is left to the model, whose tokens begin with their space.
            let whole = grammar.forced(&state);
            let forced = whole.trim_ascii_end();
            if !forced.is_empty() {
                let tokens = vocabulary.encode(&String::from_utf8_lossy(forced));
                let is_room_left = self.written.len() + tokens.len() < self.output_max;
                let after = grammar.feed(state, forced).filter(|_| is_room_left);
                let Some(after) = after else { return Ok(self.close(grammar, &state)) };
                state = after;
                self.written.extend(&tokens);
                self.write(forced);
                if grammar.is_complete(&state) {
                    return Ok(Finish::Stop);
                }
                self.read(&tokens)?;
            }
            let left = self.output_max.saturating_sub(self.written.len() + 1);
            let engine = self.engine;
            let fits_the_rest = |after: &State| {
                let closing = grammar.closing(after);
                // A token has a byte at least, so most of the time counting bytes is enough.
                closing.len() + CLOSING_SLACK <= left || engine.closing_len(grammar, after) + CLOSING_SLACK <= left
            };
            let may_end = grammar.is_complete(&state);
            let is_allowed = |token| match vocabulary.bytes(token) {
                Some(bytes) => grammar.feed(state, bytes).is_some_and(|after| fits_the_rest(&after)),
                None => may_end && vocabulary.is_end(token),
            };
            let Some(token) = self.sampler.choose(&mut self.scores, &self.written, is_allowed) else {
                return Ok(self.close(grammar, &state));
            };
            let Some(bytes) = vocabulary.bytes(token) else { return Ok(Finish::Stop) };
            let Some(after) = grammar.feed(state, bytes) else { return Ok(self.close(grammar, &state)) };
            state = after;
            self.written.push(token);
            self.write(bytes);
            if grammar.is_complete(&state) && (0..=255).all(|byte| grammar.step(state, byte).is_none()) {
                return Ok(Finish::Stop);
            }
            self.read(&[token])?;
        }
    }

    /// Writes the shortest end of a document.
    fn close(&mut self, grammar: &Grammar, state: &State) -> Finish {
        let closing = grammar.closing(state);
        let tokens = self.engine.vocabulary.encode(&String::from_utf8_lossy(&closing));
        self.written.extend(&tokens);
        self.write(&closing);
        if closing.is_empty() { Finish::Stop } else { Finish::Length }
    }

    /// Adds bytes to the answer; `true` if a stop text has come.
    fn write(&mut self, bytes: &[u8]) -> bool {
        let is_stopped = self.spool.push(bytes);
        if let Some((offset, text)) = self.spool.piece() {
            self.listener.piece(offset, text);
        }
        is_stopped
    }
}

fn read_schema(text: &str) -> Result<Grammar, ModelError> {
    Grammar::from_schema(text, Limits::default()).map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        ModelError::new(RunCode::Refused, format!("{error}{source}; use another model or a simpler protocol"))
    })
}

/// The network only fails for sizes that do not match, which loading has checked, or for want of memory.
fn broken(error: candle_core::Error) -> ModelError {
    ModelError::new(RunCode::Unavailable, format!("the embedded model failed: {error}; see the log and report this"))
}
