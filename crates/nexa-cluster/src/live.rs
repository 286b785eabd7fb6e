//! Live text of agents on other nodes, around the messages of `nexa_member::live`.
//!
//! ```text
//! watches ─► hub: who listens ─► Wanted ─► the other nodes' hubs: pieces of these too ─► Pieces ─► hub ─► watches
//! ```
//!
//! One task a node. Queue: pieces that wait for the links, as many as the hub keeps; a further one is dropped, and so is what
//! a link has no room for. Nothing is tried again, since the recorded answer follows.

use std::sync::Arc;

use nexa_member::live::{Announcer, Live, PIECES_MAX, Piece, messages};
use nexa_member::say;
use nexa_runtime::{LiveHub, LiveKind, LivePiece};
use nexa_types::{Generation, NodeId, WorkloadId};
use tracing::debug;

use crate::inner::{Inner, lock};
use crate::peers::{Class, Service};

/// Tells the others what is listened to here, and what they listen to, until the node stops.
pub(crate) async fn run(inner: Arc<Inner>, hub: LiveHub) {
    let Some(mut said_here) = hub.connect() else { return };
    let (mut announcer, mut has_changed) = (Announcer::default(), true);
    loop {
        let now = inner.clock.now();
        lock(&inner.live).expire(now);
        wanted_elsewhere(&inner, &hub);
        if let Some(wanted) = announcer.say(hub.wanted(), now) {
            has_changed = false;
            tell_all(&inner, &wanted);
        }
        let due = announcer.due(has_changed, now);
        tokio::select! {
            biased;
            () = hub.changed() => has_changed = true,
            () = inner.clock.wait_until(due) => has_changed = false,
            pieces = said_here.next(PIECES_MAX) => forward(&inner, pieces),
            () = inner.stop.cancelled() => return,
        }
    }
}

/// Has the hub keep pieces of what others listen to, and of nothing else.
fn wanted_elsewhere(inner: &Inner, hub: &LiveHub) {
    hub.forward(lock(&inner.live).all());
}

fn tell_all(inner: &Inner, message: &Live) {
    let body = bytes::Bytes::from(say::write(message));
    let members = inner.membership.members().borrow().clone();
    for node in members.nodes.keys().filter(|node| **node != inner.me) {
        tell(inner, node, body.clone());
    }
}

fn tell(inner: &Inner, node: &NodeId, body: bytes::Bytes) {
    if let Err(error) = inner.peers.tell(node, Class::Bulk, Service::Live, body) {
        debug!(%node, %error, "live text, or who wants it, was not sent");
    }
}

fn forward(inner: &Inner, pieces: Vec<(WorkloadId, LivePiece)>) {
    let pieces: Vec<Piece> = pieces.into_iter().map(|(workload, piece)| outward(workload, piece)).collect();
    let shares = lock(&inner.live).share(&pieces);
    for (node, pieces) in shares {
        for message in messages(pieces) {
            tell(inner, &node, say::write(&message).into());
        }
    }
}

/// What another node says about live text.
pub(crate) fn told(inner: &Inner, from: &NodeId, generation: Generation, body: &[u8]) -> Result<(), String> {
    let Some(hub) = inner.host.live() else { return Ok(()) };
    match say::read(body)? {
        Live::Wanted(workloads) => {
            lock(&inner.live).wanted(from, generation, workloads, inner.clock.now());
            wanted_elsewhere(inner, &hub);
        }
        Live::Pieces(pieces) => {
            for piece in pieces {
                let (workload, piece) = inward(piece);
                hub.heard(workload, piece);
            }
        }
    }
    Ok(())
}

fn outward(workload: WorkloadId, piece: LivePiece) -> Piece {
    let LivePiece { agent, name, seq, attempt, offset, kind, text } = piece;
    let is_log = kind == LiveKind::Log;
    Piece { workload, agent, name: name.to_string(), seq, attempt, offset, is_log, text: text.to_string() }
}

fn inward(piece: Piece) -> (WorkloadId, LivePiece) {
    let Piece { workload, agent, name, seq, attempt, offset, is_log, text } = piece;
    let kind = if is_log { LiveKind::Log } else { LiveKind::Text };
    (workload, LivePiece { agent, name: name.into(), seq, attempt, offset, kind, text: text.into() })
}
