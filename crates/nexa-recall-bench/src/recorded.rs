//! A conversation that an agent had, as `nexa memory export AGENT -o json` prints it, and what its node asked for in it.
//!
//! In:  the lines of an export, each one message.
//! Out: how often the pages that were needed were in memory, by policy.
//!
//! It is played as a node pages it: by words, with neither speakers nor days, the newest message asked about and not found. A node asks
//! once for each request to the model, from when the conversation has outgrown its window, with what a person said last
//! ([`Asking::Person`]). An agent that works with tools hears one person once and tools for hours, so its query stays; what it
//! would be if each new message were the query, a tool's answer too, is measured beside it ([`Asking::Newest`]).
//!
//! An export says neither what the system says nor in which window the agent was shown it: the one is missing, the other is given
//! (`--window`). It tells a call of a tool as a line of text, which a node does not search; it is left out as one.
//!
//! What evidence would be is unknown, so a hit is any page that was needed and active.

use std::fmt::Write as _;
use std::path::Path;

use nexa_event::effect::{Remembering, Role};
use nexa_paging::{MemoryMessage, PagingConfig, RecallBudget};
use nexa_types::{AgentId, Timestamp, Tokens, Version};
use serde_json::{Map, Value, json};

use crate::compare::Stage;
use crate::locomo::Question;
use crate::measure::rounded;
use crate::replay::{Answer, Replay};
use crate::trace::{Figures, Step, Trace};
use crate::vectors::Vectors;

/// Active pages that are measured.
const ACTIVE_PAGES: [usize; 3] = [4, 8, 16];
/// What stands around a message, in tokens, as a node counts.
const FRAME_TOKENS: usize = 8;
/// Bytes of a token.
const TOKEN_BYTES: usize = 4;

/// The messages that an agent heard and said.
pub(crate) struct Recording {
    agent: AgentId,
    messages: Vec<MemoryMessage>,
}

/// With what a node asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// What a person said last.
    Person,
    /// What somebody else than the agent said last.
    Newest,
}

/// A request to the model.
#[derive(Debug, PartialEq)]
struct Call<'r> {
    /// How many messages may be found.
    known: usize,
    query: &'r str,
}

/// Measures all policies on a recorded conversation; writes a page for people and gives one object.
pub(crate) fn run(recording: &Recording, window: Option<Tokens>, page: &mut String) -> Result<Value, String> {
    let window = window.unwrap_or(Remembering::default().window);
    let _ = writeln!(
        page,
        "A recorded conversation of {} messages, window {} tokens.\n",
        recording.messages.len(),
        window.0
    );
    let _ = writeln!(
        page,
        "Cells are hits % / faults a question / reads saved in percent of what *belady* saves. Hits: pages that are needed and \
         active when a question comes.\n"
    );
    let mut figures = Map::new();
    figures.insert("messages".to_owned(), json!(recording.messages.len()));
    figures.insert("window".to_owned(), json!(window.0));
    for (key, asks, asking) in [
        ("person", "what a person said last, as a node does", Asking::Person),
        ("newest", "the newest message", Asking::Newest),
    ] {
        let calls = recording.calls(asking, window);
        if calls.is_empty() {
            return Err(format!(
                "the recorded conversation never outgrows {} tokens; try a smaller --window",
                window.0
            ));
        }
        let budget = RecallBudget { tokens: Some(window.0), ..RecallBudget::default() };
        let traces = [recording.trace(&calls, budget)?];
        let play = |config: &PagingConfig| recording.played(&calls, budget, config).map(|figures| vec![figures]);
        let names = vec![recording.agent.to_string()];
        let stage = Stage { base: base(), sizes: &ACTIVE_PAGES, names, traces: &traces, play: &play };
        let needed = recording.played(&calls, budget, &base())?.needed as f64 / calls.len() as f64;
        let _ = writeln!(
            page,
            "Asked with {asks}: {} questions, each of which needs {needed:.1} pages on the mean.\n",
            calls.len()
        );
        let mut of_asking = stage.compare(page)?;
        of_asking.insert("questions".to_owned(), json!(calls.len()));
        of_asking.insert("needed".to_owned(), json!(rounded(needed)));
        figures.insert(key.to_owned(), Value::Object(of_asking));
    }
    Ok(Value::Object(figures))
}

/// As a declaration that sets nothing.
fn base() -> PagingConfig {
    PagingConfig::declared(&Remembering::default())
}

/// Reads an export.
///
/// # Errors
/// In words, for another form, and for messages of several agents or out of order.
pub(crate) fn read(path: &Path) -> Result<Recording, String> {
    let failed = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    parsed(&text).map_err(|why| failed(&why))
}

fn parsed(text: &str) -> Result<Recording, String> {
    let mut lines: Vec<(AgentId, (u64, u64), Role, String)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = parsed_line(line).map_err(|why| format!("line {number}: {why}"))?;
        if let Some((agent, place, ..)) = lines.last() {
            if *agent != line.0 {
                return Err(format!("line {number}: it is of {}, and those before are of {agent}", line.0));
            }
            if *place >= line.1 {
                return Err(format!("line {number}: it is out of order"));
            }
        }
        lines.push(line);
    }
    let agent = lines.first().ok_or("there is no message in it; print it by `nexa memory export AGENT -o json`")?.0;
    let roles: Vec<Role> = lines.iter().map(|line| line.2).collect();
    let messages = (0..).zip(lines).map(|(place, (.., role, text))| {
        let tokens = (text.len().div_ceil(TOKEN_BYTES) + FRAME_TOKENS) as u32;
        let is_answered = role == Role::Assistant && roles.get(place + 1) == Some(&Role::Tool);
        let text = if is_answered { without_calls(&text).to_owned() } else { text };
        let seq = Version(place as u64 + 1);
        MemoryMessage { seq, role, speaker: String::new(), text, at: Timestamp(0), tokens }
    });
    Ok(Recording { agent, messages: messages.collect() })
}

fn parsed_line(line: &str) -> Result<(AgentId, (u64, u64), Role, String), String> {
    let json: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let word = |field: &str| json[field].as_str().ok_or_else(|| format!("it has no `{field}`"));
    let number = |field: &str| json[field].as_u64().ok_or_else(|| format!("it has no `{field}`"));
    let agent = word("agent_id")?.parse::<AgentId>().map_err(|error| error.to_string())?;
    let role = word("role")?;
    let roles = [Role::System, Role::User, Role::Assistant, Role::Tool];
    let role =
        roles.into_iter().find(|known| known.as_str() == role).ok_or_else(|| format!("there is no role `{role}`"))?;
    Ok((agent, (number("version")?, number("number")?), role, word("text")?.to_owned()))
}

/// What an answer says before it calls tools, which an export tells in lines like `name({"x":1})`.
fn without_calls(text: &str) -> &str {
    let mut said = text;
    while !said.is_empty() {
        let (before, line) = said.rsplit_once('\n').unwrap_or(("", said));
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        if !line.split_once('(').is_some_and(|(name, rest)| is_name(name) && rest.ends_with(')')) {
            break;
        }
        said = before;
    }
    said
}

impl Recording {
    /// The requests to the model for which something is looked for.
    fn calls(&self, asking: Asking, window: Tokens) -> Vec<Call<'_>> {
        let mut tokens = 0;
        let mut calls = Vec::new();
        for (place, message) in self.messages.iter().enumerate() {
            let before = &self.messages[..place];
            let is_query = |other: &&MemoryMessage| match asking {
                Asking::Person => other.role == Role::User,
                Asking::Newest => other.role != Role::Assistant,
            };
            if message.role == Role::Assistant && tokens > window.0 && place >= 2 {
                let query = before.iter().rev().find(is_query).map_or("", |query| query.text.as_str());
                calls.push(Call { known: place - 1, query });
            }
            tokens += u64::from(message.tokens);
        }
        calls
    }

    /// Plays the conversation and asks at each request to the model.
    fn asked(
        &self,
        calls: &[Call<'_>],
        budget: RecallBudget,
        config: &PagingConfig,
        mut answered: impl FnMut(&Replay<'_>, Answer),
    ) -> Result<(), String> {
        let nothing = Vectors::default();
        let mut replay = Replay::new(self.agent, config.clone(), &nothing)?;
        let mut said = 0;
        for call in calls {
            for message in &self.messages[said..call.known] {
                replay.say(message).map_err(|error| error.to_string())?;
            }
            said = call.known;
            let question = Question { text: call.query.to_owned(), gold: Vec::new(), category: 0 };
            let answer = replay.ask(&question, budget, Timestamp(0))?;
            answered(&replay, answer);
        }
        Ok(())
    }

    fn played(&self, calls: &[Call<'_>], budget: RecallBudget, config: &PagingConfig) -> Result<Figures, String> {
        let mut figures = Figures::default();
        self.asked(calls, budget, config, |_, answer| {
            figures.questions += 1;
            figures.needed += answer.needed.len();
            figures.faults += answer.faults;
            figures.gold += answer.needed.len();
            figures.active += answer.needed.len() - answer.faults;
        })?;
        Ok(figures)
    }

    fn trace(&self, calls: &[Call<'_>], budget: RecallBudget) -> Result<Trace, String> {
        let mut trace = Trace::default();
        let mut known = 0;
        self.asked(calls, budget, &base(), |replay, answer| {
            let sealed = replay.pager.table().pages().skip(known).map(|(page, _)| Step::Sealed(page));
            trace.steps.extend(sealed);
            known = replay.pager.table().len();
            trace.steps.push(Step::Asked { gold: answer.needed.clone(), needed: answer.needed });
        })?;
        Ok(trace)
    }
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod tests;
