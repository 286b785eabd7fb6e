//! Tells who is silent, who is dead, and who is cut off.
//!
//! In:  the members, heartbeats, refused dials, and a look at the time every [`BEAT`].
//! Out: a [`Look`]: whom to suspect, whose lease to end, and whether this node itself is the lonely one.
//!
//! Nothing here makes anything safe: whoever is wrongly taken for dead is refused by the store. So it may be quick:
//!
//! - *Suspect* is who was not heard for [`MISSED_MAX`] beats. A suspect gets no new agents; that is all.
//! - *Dead* is a suspect whose process refuses to be dialled and whom somebody else suspects too (of two nodes, the
//!   other alone). With a refused dial [`MISSED_REFUSED_MAX`] beats of silence are enough to suspect. Who leads ends a
//!   dead node's lease; the lease of a dead leader is ended by whoever finds it dead.
//! - Silence without a refused dial is left to the lease, which ends by itself.
//! - *Lonely* is a node that hears nobody and whose own lease is not renewed: then it is the one that is cut off. It takes
//!   nothing new and accuses nobody.
//!
//! The sick must not accuse the healthy: time during which this node did not look counts as silence of nobody, and limits
//! widen by twice the lag of its own runtime within the last [`LAG_REMEMBERED`], up to [`WIDEN_MAX`].
//!
//! Up to [`EVERYBODY_MAX`] nodes everyone sends to everyone; beyond, each to the [`RING`] next by name, in a ring (Orleans
//! probes so), and to the leader; a leader to all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use nexa_types::planted::{Bug, planted};
use nexa_types::{Generation, Millis, NodeId, Timestamp};

use crate::say::SUSPECTS_MAX;

/// Between two heartbeats, and two looks.
pub const BEAT: Millis = Millis(100);
/// Beats without a sign that make a suspect.
pub const MISSED_MAX: u64 = 10;
/// The same for a peer that refuses to be dialled.
pub const MISSED_REFUSED_MAX: u64 = 3;
/// The most that limits widen for this node's own lag.
pub const WIDEN_MAX: Millis = Millis(5_000);
/// For how long a lag widens limits.
pub const LAG_REMEMBERED: Millis = Millis(5_000);
/// How long a node hears nobody, and its lease is not renewed, before it takes itself for cut off.
pub const LONELY_AFTER: (Millis, Millis) = (Millis(1_000), Millis(1_500));
/// Up to so many nodes everyone sends to everyone.
pub const EVERYBODY_MAX: usize = 12;
/// Beyond, to so many.
pub const RING: usize = 10;
/// A node that crashes so often within [`CRASHES_WITHIN`] is given nothing for [`REST`].
pub const CRASHES_MAX: usize = 3;
/// See [`CRASHES_MAX`].
pub const CRASHES_WITHIN: Millis = Millis(300_000);
/// See [`CRASHES_MAX`].
pub const REST: Millis = Millis(300_000);

/// What a look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Whom this node has not heard for too long.
    pub suspects: BTreeSet<(NodeId, Generation)>,
    /// Whose leases this node should end.
    pub dead: Vec<(NodeId, Generation)>,
    /// Whether this node is the one that is cut off.
    pub is_lonely: bool,
}

/// One node's view of the others.
#[derive(Debug, Clone)]
pub struct Detector {
    me: NodeId,
    members: BTreeMap<NodeId, Generation>,
    leader: Option<NodeId>,
    peers: BTreeMap<NodeId, Peer>,
    looked_at: Timestamp,
    lags: VecDeque<(Timestamp, Millis)>,
    heard_anybody_at: Timestamp,
}

#[derive(Debug, Clone)]
struct Peer {
    generation: Generation,
    heard_at: Timestamp,
    /// Whether its heartbeats come here at all.
    sends_here: bool,
    is_refused: bool,
    is_lonely: bool,
    suspects: BTreeSet<(NodeId, Generation)>,
}

/// To whom a node sends heartbeats.
#[must_use]
pub fn targets(members: &BTreeMap<NodeId, Generation>, from: &NodeId, leader: Option<&NodeId>) -> BTreeSet<NodeId> {
    let others = || members.keys().filter(|node| *node != from);
    if members.len() <= EVERYBODY_MAX || leader == Some(from) {
        return others().cloned().collect();
    }
    let after = others().filter(|node| *node > from);
    let ring = after.chain(others().filter(|node| *node < from)).take(RING);
    ring.chain(others().filter(|node| Some(*node) == leader)).cloned().collect()
}

impl Detector {
    /// A node's view before it knows anybody.
    #[must_use]
    pub fn new(me: NodeId, now: Timestamp) -> Self {
        Self {
            me,
            members: BTreeMap::new(),
            leader: None,
            peers: BTreeMap::new(),
            looked_at: now,
            lags: VecDeque::new(),
            heard_anybody_at: now,
        }
    }

    /// Who is there, this node included, and who leads. Who came newly has its time to be heard from now on.
    pub fn members(&mut self, members: BTreeMap<NodeId, Generation>, leader: Option<NodeId>, now: Timestamp) {
        self.peers.retain(|node, peer| members.get(node) == Some(&peer.generation));
        if self.peers.is_empty() {
            self.heard_anybody_at = now;
        }
        for (node, generation) in members.iter().filter(|(node, _)| **node != self.me) {
            let sends_here = targets(&members, node, leader.as_ref()).contains(&self.me);
            let peer = self.peers.entry(node.clone()).or_insert_with(|| Peer {
                generation: *generation,
                heard_at: now,
                sends_here,
                is_refused: false,
                is_lonely: false,
                suspects: BTreeSet::new(),
            });
            if sends_here && !peer.sends_here {
                peer.heard_at = now;
            }
            peer.sends_here = sends_here;
        }
        (self.members, self.leader) = (members, leader);
    }

    /// A heartbeat came. One of a run that is no member says nothing.
    pub fn heard(
        &mut self,
        from: &NodeId,
        generation: Generation,
        suspects: impl IntoIterator<Item = (NodeId, Generation)>,
        is_lonely: bool,
        now: Timestamp,
    ) {
        let Some(peer) = self.peers.get_mut(from).filter(|peer| peer.generation == generation) else { return };
        peer.heard_at = peer.heard_at.max(now);
        peer.is_refused = false;
        peer.is_lonely = is_lonely;
        peer.suspects = suspects.into_iter().take(SUSPECTS_MAX).collect();
        self.heard_anybody_at = self.heard_anybody_at.max(now);
    }

    /// Whether the last dial of a peer was refused.
    pub fn dialled(&mut self, peer: &NodeId, is_refused: bool) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.is_refused = is_refused;
        }
    }

    /// To whom this node sends heartbeats.
    #[must_use]
    pub fn targets(&self) -> BTreeSet<NodeId> {
        targets(&self.members, &self.me, self.leader.as_ref())
    }

    /// Looks at the time. `lag` is how late this node's runtime is, `renewed_at` when its lease was last renewed.
    pub fn look(&mut self, now: Timestamp, lag: Millis, renewed_at: Timestamp) -> Look {
        let missed = (now.since(self.looked_at)) - BEAT;
        if missed > BEAT {
            // Nobody was listened to for so long.
            for peer in self.peers.values_mut() {
                peer.heard_at = peer.heard_at.after(missed).min(now);
            }
            self.heard_anybody_at = self.heard_anybody_at.after(missed).min(now);
        }
        self.looked_at = now;
        let widen = self.widen(now, lag);

        let is_lonely = !self.peers.is_empty()
            && now.since(self.heard_anybody_at) >= LONELY_AFTER.0 + widen
            && now.since(renewed_at) >= LONELY_AFTER.1 + widen;
        let suspects: BTreeSet<(NodeId, Generation)> = (self.peers.iter())
            .filter(|(_, peer)| {
                let missed = if peer.is_refused { MISSED_REFUSED_MAX } else { MISSED_MAX };
                peer.sends_here && now.since(peer.heard_at) >= Millis(BEAT.0 * missed) + widen
            })
            .map(|(node, peer)| (node.clone(), peer.generation))
            .collect();
        let dead = if is_lonely {
            Vec::new()
        } else {
            suspects.iter().filter(|it| self.is_dead(it, &suspects)).cloned().collect()
        };
        Look { suspects, dead, is_lonely }
    }

    fn is_dead(&self, suspect: &(NodeId, Generation), suspects: &BTreeSet<(NodeId, Generation)>) -> bool {
        let is_mine_to_say = self.leader.as_ref() == Some(&self.me) || self.leader.as_ref() == Some(&suspect.0);
        let is_refused = self.peers.get(&suspect.0).is_some_and(|peer| peer.is_refused);
        let somebody_else = || {
            self.peers.iter().any(|(node, peer)| {
                let counts = !peer.is_lonely && !suspects.contains(&(node.clone(), peer.generation));
                counts && peer.suspects.contains(suspect)
            })
        };
        is_mine_to_say && (is_refused || planted(Bug::SilenceIsDeath)) && (self.members.len() <= 2 || somebody_else())
    }

    /// How much longer to wait, because this node itself is late.
    fn widen(&mut self, now: Timestamp, lag: Millis) -> Millis {
        self.lags.retain(|(at, _)| now.since(*at) < LAG_REMEMBERED);
        // Only what no later one outdoes is kept, and less than a beat is no lag.
        while self.lags.back().is_some_and(|(_, before)| *before <= lag) {
            self.lags.pop_back();
        }
        if lag > BEAT {
            self.lags.push_back((now, lag));
        }
        let worst = self.lags.front().map_or(Millis(0), |(_, lag)| *lag);
        Millis(worst.0.saturating_mul(2)).min(WIDEN_MAX)
    }
}

/// Which nodes crashed of late. A run that said that it was leaving has not crashed.
#[derive(Debug, Clone, Default)]
pub struct Crashes {
    runs: BTreeMap<NodeId, Generation>,
    /// The last of each node, at most [`CRASHES_MAX`].
    at: BTreeMap<NodeId, VecDeque<Timestamp>>,
}

impl Crashes {
    /// Notes who is there. Runs that were there before and are no more have ended; `has_left` says which of them had said
    /// that they would. Gives the nodes of those that crashed, if it was once too often.
    pub fn members(
        &mut self,
        members: BTreeMap<NodeId, Generation>,
        has_left: impl Fn(&NodeId, Generation) -> bool,
        now: Timestamp,
    ) -> Vec<NodeId> {
        let mut too_often = Vec::new();
        let before = std::mem::replace(&mut self.runs, members);
        for (node, generation) in before {
            if self.runs.get(&node) == Some(&generation) || has_left(&node, generation) {
                continue;
            }
            let at = self.at.entry(node.clone()).or_default();
            at.push_back(now);
            at.retain(|at| now.since(*at) < CRASHES_WITHIN);
            if at.len() >= CRASHES_MAX {
                at.drain(..at.len() - CRASHES_MAX);
                too_often.push(node);
            }
        }
        self.at.retain(|_, at| at.back().is_some_and(|last| now.since(*last) < CRASHES_WITHIN));
        too_often
    }
}

#[cfg(test)]
#[path = "detector_tests.rs"]
mod tests;
