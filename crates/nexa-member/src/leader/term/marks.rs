//! What is to be done with nodes: written to the store, one write a node at a time.

use nexa_types::{NodeId, Timestamp, Version};

use super::{MARKS_MAX, Mark, Marking, Refused, Term};

impl Term {
    /// Somebody wants it so.
    pub(super) fn mark(&mut self, number: u64, node: NodeId, mark: Mark) -> Option<Refused> {
        if !self.nodes.seats.contains_key(&node) && self.nodes.mark(&node).0.0 == 0 {
            return Some(Refused::NoSuchNode);
        }
        if self.markings.len() >= MARKS_MAX {
            return Some(Refused::Busy);
        }
        self.markings.push(Marking { node, mark, command: Some(number), is_sent: false });
        None
    }

    /// What became of a mark.
    pub(super) fn marked(&mut self, node: &NodeId, version: Option<Version>, now: Timestamp) {
        let Some(at) = self.markings.iter().position(|it| it.is_sent && it.node == *node) else { return };
        let Marking { mark, command, .. } = self.markings.remove(at);
        let answer = match version {
            Some(version) => {
                self.nodes.set_mark(node, version, mark);
                Ok(())
            }
            None => {
                // Somebody else may have written it: read what it says.
                self.ask_at = Some(now);
                Err(Refused::Failed)
            }
        };
        self.answers.extend(command.map(|number| (number, answer)));
    }
}
