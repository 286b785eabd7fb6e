//! Whether a message makes sense by itself: sizes, counts and characters. What needs the store or a program to judge is
//! judged by the handlers.
//!
//! Every wrong field is named, not only the first.

use nexa_proto::refusal::{Refusal, Violation};
use nexa_types::Reason;
use nexa_types::limits::{INPUT_BYTES_MAX, LIST_AGENTS_MAX, MODULE_BYTES_MAX, SOURCE_BYTES_MAX};

use super::{Layer, around, go_on};
use crate::mediator::{Command, Message, ProgramText, Query, What, order};

/// The name of a workload or program, in characters.
const NAME_CHARS_MAX: usize = 128;
/// The reason of a cancel, in characters.
const REASON_CHARS_MAX: usize = 1_024;
/// The note of an answer, in characters.
const NOTE_CHARS_MAX: usize = 4_096;
/// The words of a search, in bytes.
const QUERY_BYTES_MAX: usize = 1_024;
/// The query of a recall, in bytes.
const RECALL_QUERY_BYTES_MAX: usize = nexa_ports::pages::QUERY_BYTES_MAX;

pub(in crate::mediator) fn validate() -> Layer {
    around(
        order::VALIDATE,
        "validate",
        |_| true,
        |call, next| async move {
            let mut wrong = Wrong::default();
            wrong.message(&call.message);
            wrong.verdict()?;
            go_on(next, call).await
        },
    )
}

#[derive(Default)]
struct Wrong(Vec<Violation>);

impl Wrong {
    fn verdict(self) -> Result<(), Refusal> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let mut refusal = Refusal::new(Reason::InvalidArgument, format!("{}: {}", first.field, first.description));
        refusal.violations = self.0;
        Err(refusal)
    }

    fn say(&mut self, field: &str, description: String) {
        self.0.push(Violation { field: field.to_owned(), description });
    }

    fn message(&mut self, message: &Message) {
        match message {
            Message::Command(Command::PutProgram(put)) => {
                self.name("name", &put.name);
                self.program(&put.program);
            }
            Message::Command(Command::Submit(submit)) => {
                self.name("name", &submit.name);
                self.what(&submit.what);
            }
            Message::Command(Command::Cancel(cancel)) => self.text("reason", &cancel.reason, REASON_CHARS_MAX),
            Message::Command(Command::SendMessage(send)) => self.json("value_json", &send.value),
            Message::Command(Command::AnswerApproval(answer)) => self.text("note", &answer.note, NOTE_CHARS_MAX),
            Message::Query(Query::SearchHistory(search)) => {
                self.bytes("query", search.words.len(), QUERY_BYTES_MAX);
                if search.words.trim().is_empty() {
                    self.say("query", "has no words".to_owned());
                }
            }
            Message::Query(Query::Recall(recall)) => {
                self.bytes("query", recall.query.len(), RECALL_QUERY_BYTES_MAX);
                if recall.query.trim().is_empty() {
                    self.say("query", "has no words".to_owned());
                }
            }
            Message::Command(
                Command::Migrate(_)
                | Command::Cordon(_)
                | Command::Drain(_)
                | Command::Rebalance(_)
                | Command::RaiseFormat(_)
                | Command::Forget(_)
                | Command::Rebuild(_),
            )
            | Message::Query(
                Query::GetProgram(_)
                | Query::ListPrograms(_)
                | Query::GetWorkload(_)
                | Query::GetPlan(_)
                | Query::ListWorkloads(_)
                | Query::WatchWorkload(_)
                | Query::GetAgent(_)
                | Query::ListAgents(_)
                | Query::WatchAgent(_)
                | Query::Snapshot(_)
                | Query::ListApprovals(_)
                | Query::ListNodes(_)
                | Query::WatchNodes(_)
                | Query::ListFormats(_)
                | Query::ListPages(_)
                | Query::MemoryStats(_)
                | Query::ExportMemory(_),
            ) => {}
        }
    }

    fn what(&mut self, what: &What) {
        match what {
            What::Program { program, input, .. } => {
                self.program(program);
                self.json("input_json", input);
            }
            What::Kept { input, .. } => self.json("input_json", input),
            What::List { agents, .. } => {
                if agents.is_empty() {
                    self.say("agent_list.agents", "is empty".to_owned());
                }
                if agents.len() > LIST_AGENTS_MAX {
                    let told = format!("has {} agents, more than {LIST_AGENTS_MAX}", agents.len());
                    self.say("agent_list.agents", told);
                }
            }
        }
    }

    fn program(&mut self, program: &ProgramText) {
        match program {
            ProgramText::Source { name, text } => {
                self.name("source.name", name);
                self.bytes("source.text", text.len(), SOURCE_BYTES_MAX);
            }
            ProgramText::Module(bytes) => self.bytes("module", bytes.len(), MODULE_BYTES_MAX),
        }
    }

    /// Only the size; whether it is JSON, and of the right type, shows when it is read against a type.
    fn json(&mut self, field: &str, text: &str) {
        self.bytes(field, text.len(), INPUT_BYTES_MAX);
    }

    fn bytes(&mut self, field: &str, len: usize, max: usize) {
        if len > max {
            self.say(field, format!("has {len} bytes, more than {max}"));
        }
    }

    fn name(&mut self, field: &str, name: &str) {
        self.text(field, name, NAME_CHARS_MAX);
        if name.chars().any(char::is_control) {
            self.say(field, "has a control character".to_owned());
        }
    }

    fn text(&mut self, field: &str, text: &str, max: usize) {
        let chars = text.chars().count();
        if chars > max {
            self.say(field, format!("has {chars} characters, more than {max}"));
        }
    }
}
