//! What a leader makes of the rows that it has read: who needs an owner, who is to move, whom a node may lack.

use std::collections::BTreeSet;
use std::sync::Arc;

use nexa_event::asks::Asks;
use nexa_types::planted::{Bug, planted};
use nexa_types::{AgentId, NodeId, Timestamp};

use super::{Aim, Held, Limits, Order, Output, PAGE, Queue, Refused, Row, Term, Wish};

impl Term {
    /// An agent needs an owner.
    pub(super) fn wish(&mut self, limits: &Limits, row: &Row) {
        if row.may_run() && !self.is_under_way(row.agent) {
            let asks = row.asks().cloned().map(Arc::new);
            let Row { agent, epoch, priority, workload, .. } = *row;
            let wish = Wish { agent, from: epoch, priority, workload, asks };
            let takes = |node: &NodeId| self.nodes.takes(limits, node, wish.asks.as_deref());
            let has_places = || self.nodes.room_of_all(limits) >= Queue::places(&wish);
            let is_taken = || self.nodes.seats.keys().any(takes) && has_places();
            if self.queue.keeps(&wish, limits.queue_max) || is_taken() {
                self.queue.add(wish);
            }
        }
    }

    /// Whether the store is asked for an owner of it just now.
    fn is_under_way(&self, agent: AgentId) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.agents.contains(&agent))
    }

    /// A node has said what it lacks of what it was asked about, or did not answer.
    pub(super) fn checked(&mut self, limits: &Limits, node: &NodeId, missing: Option<Vec<AgentId>>, now: Timestamp) {
        let rows = self.checking.remove(node).unwrap_or_default();
        self.reads.checked(limits, node, missing.is_some(), now);
        let Some(missing) = missing.filter(|_| !planted(Bug::PatrolSkipped)) else { return };
        let missing: BTreeSet<AgentId> = missing.into_iter().collect();
        // Who is under way may be refused an owner, for the very right that its node does not know of. So it is asked about
        // once more, and not left for the patrol.
        let (under_way, rows): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| self.is_under_way(row.agent));
        if under_way.iter().any(|row| missing.contains(&row.agent)) {
            self.absent.put_off(node, now);
        }
        let lost = self.absent.lacks(node, rows.iter().map(|row| (row.agent, row.epoch)), &missing, now);
        rows.iter().filter(|row| lost.contains(&row.agent)).for_each(|row| self.wish(limits, row));
    }

    /// A page was read.
    pub(super) fn rows(
        &mut self,
        limits: &Limits,
        aim: &Aim,
        rows: Vec<Row>,
        now: Timestamp,
        dice: u64,
        out: &mut Vec<Output>,
    ) {
        let mut found = 0;
        match aim {
            Aim::Gone(node) => {
                for row in rows.iter().filter(|row| row.node.as_ref() == Some(node) && row.may_run()) {
                    // Whom no node suits waits in the queue, or is found by the next round through all agents.
                    found += usize::from(self.nodes.has(row.asks()));
                    self.wish(limits, row);
                }
                if let Some((_, had_agents)) = self.lost.get_mut(node) {
                    *had_agents |= found > 0;
                }
            }
            Aim::Unplaced => {
                rows.iter().filter(|row| row.node.is_none()).for_each(|row| self.wish(limits, row));
                if rows.len() < PAGE {
                    self.queue.looked();
                }
            }
            Aim::Orphans => {
                for row in &rows {
                    match &row.node {
                        None => self.wish(limits, row),
                        Some(node) if !self.nodes.seats.contains_key(node) && row.may_run() => {
                            self.lose(node.clone(), now);
                        }
                        Some(_) => {}
                    }
                }
            }
            Aim::Check(node) => self.check(node, &rows, out),
            Aim::Drain(node) => {
                for (turn, row) in (0u64..).zip(rows.iter().filter(|row| row.may_run())) {
                    let (agent, from, asks) = (row.agent, node.clone(), row.asks());
                    let order = Order { agent, from, to: None, asks, command: None };
                    let moved = self.migrate(limits, order, now, dice.wrapping_add(turn), out);
                    match moved {
                        Err(Refused::Lacks) => self.keep(node, row.asks()),
                        _ => found += 1,
                    }
                    if moved == Err(Refused::NoRoom) && row.asks().is_none() {
                        break;
                    }
                }
            }
            Aim::Balance(node) => {
                if let Some(balance) = &mut self.balance {
                    balance.page(node, &rows);
                }
            }
        }
        let is_clean = self.reads.looked(limits, aim, &rows, found, now);
        if let (Aim::Gone(node), true) = (aim, is_clean)
            && let Some((since, true)) = self.lost.remove(node)
        {
            out.push(Output::FailedOver { node: node.clone(), took: now.since(since) });
        }
        if let (Aim::Drain(node), true) = (aim, rows.len() < PAGE)
            && let Some(seat) = self.nodes.seats.get_mut(node)
        {
            let kept = std::mem::take(&mut seat.kept);
            seat.is_drained = is_clean && kept == 0;
            let asks = std::mem::take(&mut seat.kept_asks);
            if std::mem::replace(&mut seat.kept_told, kept) != kept
                && let Some(asks) = asks
            {
                out.push(Output::Kept { node: node.clone(), agents: kept, asks });
            }
        }
    }

    /// An agent stays on a node that is to be left, for what it asks for.
    fn keep(&mut self, node: &NodeId, asks: Option<&Asks>) {
        if let Some(seat) = self.nodes.seats.get_mut(node) {
            seat.kept += 1;
            seat.kept_asks = seat.kept_asks.take().or_else(|| asks.cloned());
        }
    }

    /// Asks a node which of these it lacks; not of those that it is just being told of.
    fn check(&mut self, node: &NodeId, rows: &[Row], out: &mut Vec<Output>) {
        let Some(seat) = self.nodes.seats.get(node).filter(|_| !rows.is_empty()) else { return };
        let told = self.told.on_their_way(node);
        let is_settled = |row: &&Row| !told.contains(&row.agent) && !self.moves.is_moving(row.agent);
        let asked: Vec<Row> = rows.iter().filter(|row| row.may_run()).filter(is_settled).cloned().collect();
        let held = |row: &Row| Held { agent: row.agent, epoch: row.epoch, is_cancelled: row.is_cancelled };
        let agents = asked.iter().map(held).collect();
        out.push(Output::Check { node: node.clone(), generation: seat.facts.generation, leader: self.epoch, agents });
        self.checking.insert(node.clone(), asked);
    }
}
