//! Who is there and who leads: one linearizable reading of all members' keys, again and again.
//!
//! A watch can miss changes, repeat them, and end without a word; so it only says that it is time to read. The list is read at once
//! when the watch begins and on each of its messages, errors included, when this node has written something itself, and every
//! [`LIST_EVERY`] in any case. Hints that come together are one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{GetOptions, KeyValue, WatchOptions};
use minicbor::{Decode, Encode};
use nexa_ports::membership::{Generation, Leader, Member, Members, NodeCard};
use nexa_types::{Epoch, NodeId};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::lease::SET_BACK;
use crate::pool::{BACKOFF_MAX, Backoff, CallError};
use crate::{Core, LIST_EVERY, election, now};

/// After a hint, so long is waited for more of them.
const GATHER: Duration = Duration::from_millis(10);
/// Bytes of a list at most: some thousands of nodes.
const LIST_BYTES_MAX: usize = 32 << 20;

/// The names of this cluster's keys.
pub(crate) struct Keys {
    root: String,
}

const NODES: &str = "nodes/";
const LEADER: &str = "leader";

impl Keys {
    pub(crate) fn new(cluster: &str) -> Self {
        Self { root: format!("/nexa/{cluster}/") }
    }

    /// What every key of a member begins with.
    pub(crate) fn members(&self) -> String {
        format!("{}members/", self.root)
    }

    pub(crate) fn node(&self, node: &NodeId) -> String {
        format!("{}{NODES}{node}", self.members())
    }

    pub(crate) fn leader(&self) -> String {
        format!("{}{LEADER}", self.members())
    }

    pub(crate) fn anchors(&self, name: &str) -> String {
        format!("{}anchors/{name}", self.root)
    }

    pub(crate) fn setting(&self, name: &str) -> String {
        format!("{}settings/{name}", self.root)
    }
}

/// What stands in the leader's key.
#[derive(Encode, Decode)]
struct Led {
    #[n(0)]
    node: NodeId,
    #[n(1)]
    generation: Generation,
}

pub(crate) fn encode_leader(node: &NodeId, generation: Generation) -> Vec<u8> {
    minicbor::to_vec(Led { node: node.clone(), generation }).expect("writing to a vector cannot fail")
}

/// A key with its value, as it was read.
struct Entry<'a> {
    key: &'a [u8],
    value: &'a [u8],
    created: u64,
}

impl<'a> From<&'a KeyValue> for Entry<'a> {
    fn from(kv: &'a KeyValue) -> Self {
        Self { key: kv.key(), value: kv.value(), created: u64::try_from(kv.create_revision()).unwrap_or(0) }
    }
}

/// The list that these keys make. What cannot be read is left out and named.
fn members<'a>(keys: &Keys, revision: u64, entries: impl IntoIterator<Item = Entry<'a>>) -> (Members, Vec<String>) {
    let root = keys.members();
    let (mut nodes, mut led, mut unread) = (BTreeMap::new(), None, Vec::new());
    for entry in entries {
        let name = entry.key.strip_prefix(root.as_bytes()).and_then(|name| std::str::from_utf8(name).ok());
        let card = |name: &str| {
            let card: NodeCard = minicbor::decode(entry.value).ok()?;
            (card.id.as_str() == name).then_some(card)
        };
        let was_read = match name {
            Some(LEADER) => {
                led = minicbor::decode::<Led>(entry.value).ok().map(|led| (led, Epoch(entry.created)));
                led.is_some()
            }
            Some(name) => match name.strip_prefix(NODES).and_then(card) {
                Some(card) => {
                    let member = Member { card, generation: Generation(entry.created) };
                    nodes.insert(member.card.id.clone(), member);
                    true
                }
                None => false,
            },
            None => false,
        };
        if !was_read {
            unread.push(String::from_utf8_lossy(entry.key).into_owned());
        }
    }
    // Both keys of a leader have the same lease, so one without the other is not ours.
    let stands = |led: &Led| nodes.get(&led.node).is_some_and(|member: &Member| member.generation == led.generation);
    let leader = led.filter(|(led, _)| stands(led)).map(|(led, epoch)| Leader {
        node: led.node,
        generation: led.generation,
        epoch,
    });
    (Members { revision, nodes, leader }, unread)
}

impl Core {
    async fn list(&self) -> Result<Members, CallError> {
        let prefix = self.keys.members();
        let found = self
            .pool
            .call(|client| async move {
                let mut kv = client.kv_client().max_decoding_message_size(LIST_BYTES_MAX);
                kv.get(prefix, Some(GetOptions::new().with_prefix())).await
            })
            .await?;
        let revision = found.header().map_or(0, |header| u64::try_from(header.revision()).unwrap_or(0));
        let (members, unread) = members(&self.keys, revision, found.kvs().iter().map(Entry::from));
        if !unread.is_empty() {
            warn!(keys = ?unread, "keys of members that cannot be read are left out");
        }
        Ok(members)
    }

    /// Shows a list to everybody, if it is newer and says something else; what it says about this node holds at once.
    fn show(&self, members: &Members) {
        let known = self.members.borrow().clone();
        if members.revision < known.revision {
            error!(revision = members.revision, known = known.revision, "the list is not used: {SET_BACK}");
            return;
        }
        self.listed_at.store(now().0, Ordering::Release);
        if known.revision == 0 || known.nodes != members.nodes || known.leader != members.leader {
            let names = members.nodes.keys().map(NodeId::as_str).collect::<Vec<_>>().join(" ");
            let leader = members.leader.as_ref().map_or("-", |leader| leader.node.as_str());
            info!(revision = members.revision, nodes = names, leader, "the list of members has changed");
            self.members.send_replace(Arc::new(members.clone()));
        }
        let own = self.own().as_ref().map(|own| (own.node.clone(), own.generation));
        if let Some((node, generation)) = own
            && members.revision >= generation.0
            && members.nodes.get(&node).is_none_or(|member| member.generation != generation)
        {
            self.lose(generation);
        }
    }

    /// Does what follows for this node; gives whether something was written.
    async fn take_part(&self, members: &Members) -> Result<bool, CallError> {
        let own = self.own().clone();
        let run = own.as_ref().map(|own| (&own.node, own.generation));
        let wants = *self.wants_to_lead.borrow();
        let (Some(own), Some(step)) = (&own, election::step(members, run, wants)) else {
            return Ok(false);
        };
        let txn = election::write(step, &self.keys, own);
        let done = self.pool.call(|client| async move { client.kv_client().txn(txn).await }).await?.succeeded();
        debug!(node = %own.node, generation = %own.generation, ?step, done, "took part in the election");
        Ok(true)
    }
}

/// Reads the list whenever there is a reason to, for ever.
pub(crate) async fn read(core: Arc<Core>) {
    let mut backoff = Backoff::default();
    let mut has_written = false;
    loop {
        let outcome = match core.list().await {
            Ok(members) => {
                core.show(&members);
                core.take_part(&members).await
            }
            Err(failed) => Err(failed),
        };
        match outcome {
            // What was written shows in the next list. If it does not, somebody else has to change something first.
            Ok(true) if !has_written => has_written = true,
            Ok(_) => {
                has_written = false;
                backoff.reset();
                let _ = timeout(LIST_EVERY, core.hint.notified()).await;
                sleep(GATHER).await;
            }
            Err(failed) => {
                has_written = false;
                let wait = backoff.next(BACKOFF_MAX, &core.dice);
                warn!(error = %failed, ?wait, "the list of members could not be read");
                // A renewal that was answered, or a watch that began, is a hint that etcd is back.
                let _ = timeout(wait, core.hint.notified()).await;
            }
        }
    }
}

/// Watches the keys of members for hints, for ever.
pub(crate) async fn follow(core: Arc<Core>) {
    let mut backoff = Backoff::default();
    loop {
        let mut moved = core.pool.moved();
        let prefix = core.keys.members();
        let options = WatchOptions::new().with_prefix();
        let opened = core.pool.call(|client| async move { client.watch_client().watch(prefix, Some(options)).await });
        match opened.await {
            Ok(mut stream) => loop {
                let message = tokio::select! {
                    message = stream.message() => message,
                    // The connection was given up for the others' sake: this one may be silent for ever.
                    _ = moved.changed() => break,
                };
                core.hint.notify_one();
                match message {
                    Ok(Some(message)) if !message.canceled() => backoff.reset(),
                    Ok(Some(message)) => {
                        info!(
                            reason = message.cancel_reason(),
                            compacted = message.compact_revision(),
                            "etcd ended the watch"
                        );
                        break;
                    }
                    Ok(None) => break,
                    Err(error) => {
                        debug!(%error, "the watch has ended");
                        break;
                    }
                }
            },
            Err(failed) => debug!(error = %failed, "the watch cannot begin"),
        }
        core.hint.notify_one();
        sleep(backoff.next(BACKOFF_MAX, &core.dice)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(name: &str) -> Vec<u8> {
        let card = NodeCard {
            id: name.parse().expect("a node's name"),
            door: "door".into(),
            link: "link".into(),
            labels: BTreeMap::new(),
            cpu_milli: 1,
            memory_bytes: 2,
            agents_max: 3,
            build: "test".into(),
            formats: (1, 1),
        };
        minicbor::to_vec(card).expect("writing to a vector cannot fail")
    }

    fn read(entries: &[(&str, Vec<u8>, u64)]) -> (Members, Vec<String>) {
        let entries =
            entries.iter().map(|(key, value, created)| Entry { key: key.as_bytes(), value, created: *created });
        members(&Keys::new("c"), 9, entries)
    }

    #[test]
    fn a_leader_is_one_of_those_who_are_there() {
        let leader = |generation| encode_leader(&"a".parse().expect("a name"), Generation(generation));
        let a = ("/nexa/c/members/nodes/a", card("a"), 4);
        let (found, unread) = read(&[("/nexa/c/members/leader", leader(4), 7), a.clone()]);
        let led = found.leader.expect("it leads");
        assert_eq!((led.node.as_str(), led.generation, led.epoch), ("a", Generation(4), Epoch(7)));
        assert!(unread.is_empty() && found.revision == 9);
        // What an earlier run, or nobody, left behind leads nobody.
        assert_eq!(read(&[("/nexa/c/members/leader", leader(3), 7), a]).0.leader, None);
        assert_eq!(read(&[("/nexa/c/members/leader", leader(4), 7)]).0.leader, None);
    }

    #[test]
    fn what_cannot_be_read_is_left_out_and_named() {
        let (found, unread) = read(&[
            ("/nexa/c/members/leader", b"x".to_vec(), 1),
            ("/nexa/c/members/nodes/a", card("a"), 2),
            ("/nexa/c/members/nodes/b", card("a"), 3),
            ("/nexa/c/members/nodes/c", vec![0xFF; 9], 4),
            ("/nexa/c/members/other", Vec::new(), 5),
            ("/elsewhere", Vec::new(), 6),
        ]);
        assert_eq!(found.nodes.keys().map(NodeId::as_str).collect::<Vec<_>>(), ["a"]);
        assert_eq!(found.leader, None);
        assert_eq!(unread.len(), 5, "{unread:?}");
    }
}
