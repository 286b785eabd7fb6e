//! Rows as a task's latest batches left them, so that the next batch need not read them.
//!
//! What is remembered is only a guess. The server compares it in any case, and what has changed is then read; nobody is refused
//! by it either. What somebody bears or begins is taken for new in the same way, so that a submission is one message to the
//! server and not two.
//!
//! Bound: `ROWS_KNOWN_MAX` rows; beyond that all are forgotten.

use std::collections::BTreeMap;

use nexa_types::AgentId;

use crate::batch::{Agent, Batch, Stream, Wanted};

/// Rows that a task remembers; beyond that it forgets all of them.
const ROWS_KNOWN_MAX: usize = 32_768;

/// Rows that are remembered.
#[derive(Default)]
pub(crate) struct Known {
    agents: BTreeMap<AgentId, Agent>,
    streams: BTreeMap<Vec<u8>, Stream>,
}

impl Known {
    /// A batch with the rows that are wanted, if all of them are known or taken for new.
    pub(crate) fn batch(&self, wanted: &Wanted) -> Option<Batch> {
        let mut batch = Batch::default();
        for agent in &wanted.agents {
            match self.agents.get(agent) {
                Some(row) => {
                    batch.agents.insert(*agent, row.clone());
                }
                None if wanted.born.contains(agent) => {}
                None => return None,
            }
        }
        for stream in &wanted.streams {
            match self.streams.get(stream) {
                Some(row) => {
                    batch.streams.insert(stream.clone(), row.clone());
                }
                None if wanted.begun.contains(stream) => {}
                None => return None,
            }
        }
        Some(batch)
    }

    pub(crate) fn forget(&mut self, wanted: &Wanted) {
        for agent in &wanted.agents {
            self.agents.remove(agent);
        }
        for stream in &wanted.streams {
            self.streams.remove(stream);
        }
    }

    /// Takes over what a batch has stored, and gives up what has ended.
    pub(crate) fn keep(&mut self, batch: Batch) {
        if self.agents.len() + self.streams.len() > ROWS_KNOWN_MAX {
            (self.agents, self.streams) = Default::default();
        }
        for (agent, row) in batch.agents.into_iter().filter(|(_, row)| row.relied) {
            if row.ended {
                self.agents.remove(&agent);
                continue;
            }
            let row = Agent { read: Some(row.version), relied: false, told: None, born: None, ..row };
            self.agents.insert(agent, row);
        }
        for (stream, row) in batch.streams.into_iter().filter(|(_, row)| row.relied) {
            if row.ended {
                self.streams.remove(&stream);
                continue;
            }
            let row = Stream { read: (row.version, false), relied: false, ..row };
            self.streams.insert(stream, row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(agent: u8, stream: u8) -> Wanted {
        Wanted { agents: [id(agent)].into(), streams: [vec![b'w', stream]].into(), ..Wanted::default() }
    }

    fn id(byte: u8) -> AgentId {
        AgentId::from_bytes([byte; 16])
    }

    #[test]
    fn what_is_begun_is_taken_for_new_and_the_rest_must_be_known() {
        let mut known = Known::default();
        assert!(known.batch(&wanted(1, 1)).is_none(), "nothing is known of either");
        let begins = Wanted { born: [id(1)].into(), begun: [vec![b'w', 1]].into(), ..wanted(1, 1) };
        let batch = known.batch(&begins).expect("all of it is new");
        assert!(batch.agents.is_empty() && batch.streams.is_empty());

        let stream = Stream { version: 2, relied: true, ..Stream::default() };
        known.keep(Batch { streams: [(vec![b'w', 1], stream)].into(), ..Batch::default() });
        let streams = Wanted { agents: [].into(), ..wanted(1, 1) };
        let mut batch = known.batch(&streams).expect("it is known");
        let kept = batch.streams.remove([b'w', 1].as_slice()).expect("it is what was asked for");
        assert_eq!((kept.version, kept.read, kept.relied), (2, (2, false), false));
        assert!(known.batch(&wanted(1, 1)).is_none(), "of the agent nothing is known");

        let ended = Stream { version: 3, relied: true, ended: true, ..kept };
        known.keep(Batch { streams: [(vec![b'w', 1], ended)].into(), ..Batch::default() });
        assert!(known.batch(&streams).is_none(), "what has ended is read, should anybody want it");
    }

    #[test]
    fn what_was_no_good_is_forgotten() {
        let mut known = Known::default();
        let stream = Stream { version: 1, relied: true, ..Stream::default() };
        known.keep(Batch { streams: [(vec![b'w', 1], stream)].into(), ..Batch::default() });
        let streams = Wanted { agents: [].into(), ..wanted(1, 1) };
        known.forget(&streams);
        assert!(known.batch(&streams).is_none());
    }
}
