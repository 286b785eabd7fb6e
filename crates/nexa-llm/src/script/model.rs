//! A script behind the model port.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Mutex;

use futures::future::{BoxFuture, FutureExt};
use nexa_event::effect::{Finish, ModelReply, ModelRequest};
use nexa_ports::model::{Chunks, LaneLimits, Model, ModelCall, ModelError};
use nexa_types::{EffectKey, RunCode, Spend, Tokens, UsdMicro};
use thiserror::Error;

use super::{Miss, Say, Script, Seating, Turn, target_of};
use crate::tools::{self, Called};

/// Calls at once; a script has no machine behind it that could be busy.
const SLOTS: usize = 256;

/// Answers from a script.
pub struct ScriptedModel {
    script: Script,
    seats: Mutex<Seats>,
}

struct Seats {
    seating: Seating,
    journal: Option<File>,
}

/// Why a seating cannot be taken up again.
#[derive(Debug, Error)]
#[error("cannot {doing} the script's seating at {path}")]
pub struct JournalError {
    doing: &'static str,
    path: String,
    #[source]
    source: io::Error,
}

impl ScriptedModel {
    /// Answers from the first turns on.
    pub fn new(script: Script) -> Self {
        Self { script, seats: Mutex::new(Seats { seating: Seating::default(), journal: None }) }
    }

    /// Goes on where an earlier process with the same journal was: keys seen there keep their turns.
    ///
    /// The journal has a line for each request that used up a turn of a list. It outlives the process but is not
    /// forced to the disk: a script is for tests, which do not pull plugs.
    ///
    /// # Errors
    /// [`JournalError`] if the file cannot be read or made.
    pub fn resuming(script: Script, journal: &Path) -> Result<Self, JournalError> {
        let failed = |doing| move |source| JournalError { doing, path: journal.display().to_string(), source };
        let file = File::options().read(true).append(true).create(true).open(journal).map_err(failed("open"))?;
        let mut seating = Seating::default();
        for line in BufReader::new(&file).lines() {
            let line = line.map_err(failed("read"))?;
            // A line cut short by a crash names no key; its request is seated again.
            if let Some((key, target)) =
                line.split_once(' ').and_then(|(key, target)| Some((key.parse().ok()?, target)))
            {
                // The list may have become shorter since.
                let _ = script.next_turn(&mut seating, target, key);
            }
        }
        Ok(Self { script, seats: Mutex::new(Seats { seating, journal: Some(file) }) })
    }

    fn turn(&self, target: &str, key: EffectKey) -> Result<Turn, ModelError> {
        let mut seats = self.seats.lock().expect("no holder of this lock can panic");
        let before = seats.seating.seat_of(target, key);
        let missed = |miss: Miss| ModelError::new(miss.code(), miss.to_string());
        let turn = self.script.next_turn(&mut seats.seating, target, key).map_err(missed)?.clone();
        let is_new = before.is_none() && seats.seating.seat_of(target, key).is_some();
        if let Some(journal) = seats.journal.as_mut().filter(|_| is_new) {
            journal.write_all(format!("\n{key} {target}\n").as_bytes()).map_err(|error| {
                ModelError::new(RunCode::Unavailable, format!("cannot write down which turn was used: {error}"))
            })?;
        }
        Ok(turn)
    }

    async fn answer(&self, call: ModelCall, chunks: &dyn Chunks) -> Result<ModelReply, ModelError> {
        let turn = self.turn(&target_of(&call.request), call.key)?;
        tokio::select! {
            biased;
            () = call.cancel.cancelled() => return Err(ModelError::new(RunCode::Cancelled, "the call was cancelled")),
            () = tokio::time::sleep(turn.after) => {}
            () = tokio::time::sleep(call.deadline) => {
                return Err(ModelError::new(RunCode::Timeout, "the scripted answer takes longer than the call may"));
            }
        }
        let (text, called) = match turn.say {
            Say::Fail(code) => return Err(ModelError::new(code, "the script says so")),
            Say::Text(text) => (text, Vec::new()),
            Say::Call { tool, arguments } => (String::new(), vec![Called { id: String::new(), name: tool, arguments }]),
        };
        let request = &call.request;
        let (tool_calls, finish) = tools::settle(request, call.key, called, Finish::Stop).map_err(|unfit| {
            let message = format!("the script {unfit}; correct its turn or what `{}` is offered", request.agent);
            ModelError::new(RunCode::OutputInvalid, message)
        })?;
        let mut offset = 0;
        for piece in text.split_inclusive(' ').filter(|_| request.stream) {
            chunks.piece(offset, piece);
            offset += piece.len() as u64;
        }
        let spend = Spend {
            tokens_in: count(tools::read_len(request)),
            tokens_out: count(tools::written_len(&text, &tool_calls)),
            cost: UsdMicro(0),
            calls: 1,
            steps: 0,
        };
        Ok(ModelReply { text, finish, model: named(request), spend, tokens_left_out: Tokens(0), tool_calls })
    }
}

/// A script has no tokenizer: four bytes count as a token.
fn count(bytes: usize) -> Tokens {
    Tokens(bytes.div_ceil(4) as u64)
}

fn named(request: &ModelRequest) -> String {
    if request.model.is_empty() { "script/script".to_owned() } else { request.model.clone() }
}

impl Model for ScriptedModel {
    fn ask<'a>(&'a self, call: ModelCall, chunks: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        self.answer(call, chunks).boxed()
    }

    fn limits(&self, _: &str) -> LaneLimits {
        LaneLimits::at_once(SLOTS)
    }

    fn lane(&self, _: &str) -> String {
        "script".to_owned()
    }
}
