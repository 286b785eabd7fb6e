//! What is known of a workload from the frames of its watch, one line an agent. Pure: frames in, lines and a table out.

use std::collections::BTreeMap;

use nexa_proto::v1;
use nexa_proto::v1::watch_event::Event;
use nexa_proto::v1::watch_frame::Frame;
use prost_types::Timestamp;

use crate::show::table::table;
use crate::show::words;

/// The most bytes of streamed text that wait for the end of their line.
const LINE_BYTES_MAX: usize = 160;

/// What is known of a workload.
#[derive(Debug, Default)]
pub struct Progress {
    agents: Vec<AgentLine>,
    /// Text that was streamed and not yet shown, by agent and effect.
    pieces: BTreeMap<(String, u64), Pieces>,
    /// How the workload ended, once it has.
    pub ended: Option<v1::WorkloadEnded>,
    /// Where the watch can go on.
    pub cursor: Vec<u8>,
}

#[derive(Debug, Default, Clone)]
struct AgentLine {
    id: String,
    name: String,
    state: v1::AgentState,
    waiting_for: v1::WaitingFor,
    spend: v1::Spend,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Pieces {
    attempt: u32,
    /// How much of the attempt's text was seen.
    seen: u64,
    line: String,
}

/// Something to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A line of an agent's streamed text.
    Text {
        /// The agent's name.
        agent: String,
        /// The line.
        text: String,
    },
    /// Something that happened.
    News {
        /// The agent's name, empty for the workload.
        agent: String,
        /// What.
        text: String,
    },
    /// A question to a person.
    Question(v1::ApprovalRequested),
}

impl Progress {
    /// Takes in a frame; gives back what is worth showing.
    pub fn take(&mut self, frame: &Frame) -> Vec<Line> {
        match frame {
            Frame::Snapshot(snapshot) => {
                for agent in &snapshot.agents {
                    self.take_agent(agent);
                }
                if !snapshot.cursor.is_empty() {
                    self.cursor.clone_from(&snapshot.cursor);
                }
                Vec::new()
            }
            Frame::Event(event) => self.take_event(event),
            Frame::Chunk(chunk) => self.take_chunk(chunk),
            Frame::Bookmark(bookmark) => {
                self.cursor.clone_from(&bookmark.cursor);
                Vec::new()
            }
            Frame::Lagged(lagged) => {
                vec![Line::News {
                    agent: String::new(),
                    text: format!("{} pieces of text were not shown", lagged.chunks),
                }]
            }
        }
    }

    fn take_agent(&mut self, agent: &v1::Agent) {
        let line = self.line(&agent.agent_id, &agent.name);
        line.state = agent.state();
        line.waiting_for = agent.waiting_for();
        line.started = agent.started_at;
        line.ended = agent.ended_at;
        line.spend = agent.spend.unwrap_or_default();
    }

    fn line(&mut self, id: &str, name: &str) -> &mut AgentLine {
        let at = self.agents.iter().position(|line| line.id == id).unwrap_or_else(|| {
            self.agents.push(AgentLine { id: id.to_owned(), name: name.to_owned(), ..AgentLine::default() });
            self.agents.len() - 1
        });
        &mut self.agents[at]
    }

    fn take_event(&mut self, event: &v1::WatchEvent) -> Vec<Line> {
        self.cursor.clone_from(&event.cursor);
        let Some(what) = &event.event else { return Vec::new() };
        if !event.agent_id.is_empty() {
            let line = self.line(&event.agent_id, &event.agent_name);
            line.state = event.agent_state();
            line.waiting_for = event.waiting_for();
            match what {
                Event::AgentStarted(_) => line.started = event.at,
                Event::AgentEnded(ended) => {
                    line.ended = event.at;
                    // With what its children used, as the lists of agents show it.
                    line.spend = ended.spend.unwrap_or_default();
                }
                Event::EffectEnded(ended) => {
                    let spend = ended.spend.unwrap_or_default();
                    line.spend.tokens_in += spend.tokens_in;
                    line.spend.tokens_out += spend.tokens_out;
                    line.spend.calls += spend.calls;
                }
                _ => {}
            }
        }
        let news = |text: String| Line::News { agent: event.agent_name.clone(), text };
        match what {
            Event::EffectEnded(ended) => {
                let mut lines = self.rest_of_text(&event.agent_id, &event.agent_name, ended.effect_seq);
                if !matches!(ended.result, Some(v1::effect_ended::Result::Model(_))) {
                    lines.push(news(words::event(what)));
                }
                lines
            }
            Event::ApprovalRequested(asked) => vec![Line::Question(asked.clone())],
            Event::EffectStarted(started) if started.attempt <= 1 => Vec::new(),
            Event::AgentStarted(_) => vec![news("started".to_owned())],
            Event::AgentEnded(ended) => match ended.outcome.as_ref().and_then(|outcome| outcome.result.as_ref()) {
                Some(v1::outcome::Result::Failure(_)) => vec![news(words::event(what))],
                _ => vec![news("succeeded".to_owned())],
            },
            Event::WorkloadEnded(ended) => {
                self.ended = Some(ended.clone());
                Vec::new()
            }
            // These explain how agents work together, and belong into the history.
            Event::AgentSpawned(_)
            | Event::EffectIntended(_)
            | Event::ChildrenSpawned(_)
            | Event::ChildEnded(_)
            | Event::TimerFired(_)
            | Event::WaitBegan(_)
            | Event::MessageSent(_)
            | Event::MailTaken(_)
            | Event::BranchesDetached(_)
            | Event::BranchesAdopted(_)
            | Event::Interrupted(_)
            | Event::CreditReceived(_)
            | Event::MemoryStored(_)
            | Event::WorkloadSubmitted(_) => Vec::new(),
            other => vec![news(words::event(other))],
        }
    }

    fn take_chunk(&mut self, chunk: &v1::WatchChunk) -> Vec<Line> {
        if chunk.kind() == v1::ChunkKind::Log {
            return vec![Line::News { agent: chunk.agent_name.clone(), text: chunk.text.clone() }];
        }
        let pieces = self.pieces.entry((chunk.agent_id.clone(), chunk.effect_seq)).or_default();
        if chunk.attempt > pieces.attempt {
            *pieces = Pieces { attempt: chunk.attempt, ..Pieces::default() };
        }
        // A piece of an old attempt, or one that was seen before a reconnect.
        if chunk.attempt < pieces.attempt || chunk.offset < pieces.seen {
            return Vec::new();
        }
        pieces.seen = chunk.offset + chunk.text.len() as u64;
        pieces.line += &chunk.text;
        let mut lines = Vec::new();
        while let Some(end) = line_end(&pieces.line) {
            let rest = pieces.line.split_off(end);
            let text = std::mem::replace(&mut pieces.line, rest.trim_start_matches(['\n', ' ']).to_owned());
            if !text.trim().is_empty() {
                lines.push(Line::Text { agent: chunk.agent_name.clone(), text: text.trim_end().to_owned() });
            }
        }
        lines
    }

    fn rest_of_text(&mut self, agent_id: &str, agent: &str, seq: u64) -> Vec<Line> {
        let text = self.pieces.remove(&(agent_id.to_owned(), seq)).map(|pieces| pieces.line).unwrap_or_default();
        if text.trim().is_empty() {
            return Vec::new();
        }
        vec![Line::Text { agent: agent.to_owned(), text: text.trim_end().to_owned() }]
    }

    /// The agents that have not ended, each with the end of what it is writing.
    pub fn at_work(&self) -> Vec<(String, String)> {
        self.agents
            .iter()
            .filter(|line| line.ended.is_none() && line.started.is_some())
            .map(|line| {
                let writing = self.pieces.iter().find(|((agent, _), _)| *agent == line.id);
                let state = words::agent_state(line.state, line.waiting_for);
                let text = writing.map_or(state, |(_, pieces)| pieces.line.clone());
                (line.name.clone(), text)
            })
            .collect()
    }

    /// One line an agent: name, state, tokens that it and its children read and wrote, time from start to end.
    pub fn table(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .agents
            .iter()
            .map(|line| {
                vec![
                    line.name.clone(),
                    words::agent_state(line.state, line.waiting_for),
                    words::tokens(Some(&line.spend)),
                    words::span_between(line.started.as_ref(), line.ended.as_ref()),
                ]
            })
            .collect();
        table(&["AGENT", "STATE", "TOKENS", "TIME"], &rows)
    }
}

/// Where the first line of a text ends, if it is whole: at a newline, or at the last space when it is long.
fn line_end(text: &str) -> Option<usize> {
    if let Some(end) = text.find('\n') {
        return Some(end + 1);
    }
    if text.len() <= LINE_BYTES_MAX {
        return None;
    }
    text.rfind(' ').map(|end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(attempt: u32, offset: u64, text: &str) -> Frame {
        Frame::Chunk(v1::WatchChunk {
            agent_id: "a-1".into(),
            agent_name: "Clarity".into(),
            effect_seq: 1,
            attempt,
            offset,
            kind: v1::ChunkKind::Text.into(),
            text: text.into(),
        })
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| if let Line::Text { text, .. } = line { text.as_str() } else { "?" }).collect()
    }

    #[test]
    fn pieces_become_lines_and_none_is_shown_twice() {
        let mut progress = Progress::default();
        assert!(progress.take(&chunk(1, 0, "It is ")).is_empty());
        assert_eq!(texts(&progress.take(&chunk(1, 6, "clear.\nVery"))), ["It is clear."]);
        assert!(progress.take(&chunk(1, 6, "clear.\nVery")).is_empty(), "seen before a reconnect");
        assert_eq!(texts(&progress.take(&chunk(1, 17, " clear.\n"))), ["Very clear."]);
    }

    #[test]
    fn a_second_attempt_starts_the_text_again() {
        let mut progress = Progress::default();
        assert!(progress.take(&chunk(1, 0, "It is cl")).is_empty());
        assert_eq!(texts(&progress.take(&chunk(2, 0, "All new.\n"))), ["All new."]);
        assert!(progress.take(&chunk(1, 8, "ear.\n")).is_empty());
    }

    #[test]
    fn a_long_line_is_broken_at_a_space() {
        let mut progress = Progress::default();
        let lines = progress.take(&chunk(1, 0, &"word ".repeat(60)));
        assert!(lines.len() == 1 && texts(&lines)[0].ends_with("word"));
    }
}
