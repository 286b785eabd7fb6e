//! Ids. Random ones are made at the edge and passed in; derived ones are computed here, so that a replay finds them again.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};

/// A text that was meant to be an id and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: expected {expected}")]
pub struct IdError {
    /// What the text was read as.
    pub kind: &'static str,
    /// What it should look like.
    pub expected: &'static str,
    /// The text itself, shortened to 80 characters.
    pub text: String,
}

impl IdError {
    fn new(kind: &'static str, expected: &'static str, text: &str) -> Self {
        Self { kind, expected, text: text.chars().take(80).collect() }
    }
}

fn write_hex(bytes: &[u8], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

fn read_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = (pair[0] as char).to_digit(16)?;
        let low = (pair[1] as char).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(bytes)
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $prefix:literal, $kind:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(n(0), with = "minicbor::bytes")] [u8; $len]);

        impl $name {
            /// The id with exactly these bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The id's bytes, as stored.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Reads stored bytes; `None` unless there are exactly as many as the id has.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str($prefix)?;
                write_hex(&self.0, out)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, out)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix($prefix)
                    .and_then(read_hex)
                    .map(Self)
                    .ok_or_else(|| IdError::new($kind, $expected, text))
            }
        }
    };
}

bytes_id!(
    /// One submitted workload. Derived from the request, see [`WorkloadId::of`].
    WorkloadId, 16, "w-", "workload id", "`w-` and 32 hex digits"
);
bytes_id!(
    /// One agent, that is, one VM instance. Derived: see [`AgentId::root`] and [`AgentId::child`].
    AgentId, 16, "a-", "agent id", "`a-` and 32 hex digits"
);
bytes_id!(
    /// One effect of one agent, the same after a restart, a move or a failover. See [`EffectKey::of`].
    EffectKey, 32, "e-", "effect key", "`e-` and 64 hex digits"
);
bytes_id!(
    /// One input of an agent. A second input with the same id is the same input.
    InputId, 16, "i-", "input id", "`i-` and 32 hex digits"
);
bytes_id!(
    /// BLAKE3-256 over a module's sections but the debug one.
    ModuleHash, 32, "m-", "module hash", "`m-` and 64 hex digits"
);
bytes_id!(
    /// BLAKE3-256 over a blob's bytes.
    BlobHash, 32, "b-", "blob hash", "`b-` and 64 hex digits"
);
bytes_id!(
    /// One page of an agent's memory. Derived, so that a replay makes the same: see [`PageId::of`].
    PageId, 16, "p-", "page id", "`p-` and 32 hex digits"
);
bytes_id!(
    /// What a client sends so that asking twice does not do it twice.
    RequestId, 16, "r-", "request id", "`r-` and 32 hex digits"
);

/// The first bytes of a keyed hash over parts; the length before each part keeps them apart.
fn derive<const N: usize>(domain: &'static str, parts: &[&[u8]]) -> [u8; N] {
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut bytes = [0; N];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

impl WorkloadId {
    /// The workload that a tenant's request makes. The same request makes the same workload, however often it is sent.
    pub fn of(tenant: &TenantId, request: RequestId) -> Self {
        Self(derive("nexa.v1 workload", &[tenant.as_str().as_bytes(), request.as_bytes()]))
    }
}

impl AgentId {
    /// The root agent of a workload.
    pub fn root(workload: WorkloadId) -> Self {
        Self(derive("nexa.v1 root agent", &[workload.as_bytes()]))
    }

    /// The child that `parent` started with its effect `seq`; `branch` is the index in a fork, 0 for spawn and run.
    pub fn child(parent: AgentId, seq: Seq, branch: u32) -> Self {
        Self(derive("nexa.v1 child agent", &[parent.as_bytes(), &seq.0.to_le_bytes(), &branch.to_le_bytes()]))
    }
}

impl EffectKey {
    /// The key of effect `seq` of `agent`. Epoch and attempt are fields beside it and never part of it.
    pub fn of(workload: WorkloadId, agent: AgentId, seq: Seq) -> Self {
        Self(derive("nexa.v1 effect", &[workload.as_bytes(), agent.as_bytes(), &seq.0.to_le_bytes()]))
    }
}

impl PageId {
    /// The page of `agent` with the messages from `first` to `last` of its stream; `content` is a hash of what they say.
    pub fn of(agent: AgentId, first: Version, last: Version, content: &[u8; 32]) -> Self {
        let (first, last) = (first.0.to_le_bytes(), last.0.to_le_bytes());
        Self(derive("nexa.v1 page", &[agent.as_bytes(), &first, &last, content]))
    }
}

impl InputId {
    /// The one input that tells `parent` how its child ended.
    pub fn child_ended(child: AgentId) -> Self {
        Self(derive("nexa.v1 input child ended", &[child.as_bytes()]))
    }

    /// The one input that answers an effect from outside the owner, as a person does with an approval.
    pub fn answer(effect: EffectKey) -> Self {
        Self(derive("nexa.v1 input answer", &[effect.as_bytes()]))
    }

    /// The one input that cancels an agent together with its workload.
    pub fn cancel(agent: AgentId) -> Self {
        Self(derive("nexa.v1 input cancel", &[agent.as_bytes()]))
    }

    /// A message that a client sends with a request id.
    pub fn message(agent: AgentId, request: RequestId) -> Self {
        Self(derive("nexa.v1 input message", &[agent.as_bytes(), request.as_bytes()]))
    }

    /// A message that a parent passes to its child; `number` counts them.
    pub fn passed(child: AgentId, number: u64) -> Self {
        Self(derive("nexa.v1 input passed", &[child.as_bytes(), &number.to_le_bytes()]))
    }

    /// The branches that one effect of an agent detached, on their way to the root.
    pub fn detached(agent: AgentId, seq: Seq) -> Self {
        Self(derive("nexa.v1 input detached", &[agent.as_bytes(), &seq.0.to_le_bytes()]))
    }

    /// A child's note to its parent that it has taken so many messages.
    pub fn credit(child: AgentId, taken: u64) -> Self {
        Self(derive("nexa.v1 input credit", &[child.as_bytes(), &taken.to_le_bytes()]))
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub u64);

        impl $name {
            /// The one after this. Counters grow by one at a time and cannot reach 2⁶⁴.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, out)
            }
        }
    };
}

counter!(
    /// The right to append to an agent's stream. Grows at each placement and at a cancel.
    Epoch
);
impl Epoch {
    /// Whether whoever was given this right still has the agent whose row says `row`: under the same epoch, or under the
    /// one that a cancel has raised.
    #[must_use]
    pub const fn covers(self, row: Self, is_cancelled: bool) -> bool {
        row.0 == self.0 || (is_cancelled && row.0 == self.next().0)
    }
}

counter!(
    /// Which run of a node it is: a restart makes a greater one.
    Generation
);
counter!(
    /// How many events a stream has. The first event makes version 1.
    Version
);
counter!(
    /// The number of an effect within its agent, from 1; `restore` in code never puts it back.
    Seq
);
counter!(
    /// A position in the store's arrival order over all streams. Local to one store; clients see [`Cursor`].
    GlobalSeq
);

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                encoder: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                encoder.str(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::new(decoder.str()?).map_err(minicbor::decode::Error::custom)
            }
        }

        impl $name {
            /// Checks and keeps a name: 1 to the stated number of letters, digits, `.`, `_`, `-`, `:`, `@` or `/`.
            ///
            /// # Errors
            /// [`IdError`] for an empty or longer name or another character.
            pub fn new(name: &str) -> Result<Self, IdError> {
                let good = |c: char| c.is_ascii_alphanumeric() || "._-:@/".contains(c);
                if name.is_empty() || name.len() > $max || !name.chars().all(good) {
                    return Err(IdError::new($kind, concat!("1 to ", $max, " letters, digits, `.`, `_`, `-`, `:`, `@` or `/`"), name));
                }
                Ok(Self(name.into()))
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
    };
}

name_id!(
    /// Whose data this is. Nothing crosses from one tenant to another without a grant.
    TenantId, "tenant", 64
);
name_id!(
    /// Who asked: a user, a service or an agent.
    PrincipalId, "principal", 128
);
name_id!(
    /// One node: one `nexa` process that runs agents.
    NodeId, "node", 64
);

impl TenantId {
    /// The tenant of a laptop that nobody else uses.
    pub fn local() -> Self {
        Self("local".into())
    }
}

impl PrincipalId {
    /// The person in front of a laptop.
    pub fn local() -> Self {
        Self("local".into())
    }
}

/// Which stream. The inbox is not one of these: it is a set beside the agent's stream, unique by input id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum StreamId {
    /// What an agent did; written by its owner with epoch and version.
    #[n(0)]
    Agent(#[n(0)] AgentId),
    /// What became of a workload; written with a version only.
    #[n(1)]
    Workload(#[n(0)] WorkloadId),
    /// What concerns a whole tenant on the cluster, such as the programs it put.
    #[n(2)]
    Cluster(#[n(0)] TenantId),
}

impl StreamId {
    /// Streams are spread over this many partitions by id from their first event, so that a store may be split later.
    pub const PARTITIONS: u16 = 1024;

    /// The partition that this stream is in.
    pub fn partition(&self) -> u16 {
        let bytes: [u8; 2] = derive("nexa.v1 partition", &[self.parts().1]);
        u16::from_le_bytes(bytes) % Self::PARTITIONS
    }

    /// What stores keep it under: one letter for its kind, then the bytes of its id.
    pub fn key(&self) -> Vec<u8> {
        let (kind, id) = self.parts();
        let mut key = Vec::with_capacity(1 + id.len());
        key.push(kind);
        key.extend_from_slice(id);
        key
    }

    fn parts(&self) -> (u8, &[u8]) {
        match self {
            Self::Agent(id) => (b'a', id.as_bytes()),
            Self::Workload(id) => (b'w', id.as_bytes()),
            Self::Cluster(tenant) => (b'c', tenant.as_str().as_bytes()),
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => write!(out, "agent/{id}"),
            Self::Workload(id) => write!(out, "workload/{id}"),
            Self::Cluster(tenant) => write!(out, "cluster/{tenant}"),
        }
    }
}

/// Where a watch goes on. Opaque to clients, who hand it back as they got it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Cursor {
    /// The last position seen in the store's arrival order.
    #[n(0)]
    pub seen: GlobalSeq,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_what_it_prints() {
        let id = AgentId::root(WorkloadId::from_bytes([7; 16]));
        assert_eq!(id.to_string().parse::<AgentId>(), Ok(id));
        assert!("a-12".parse::<AgentId>().is_err());
        assert!(id.to_string().parse::<WorkloadId>().is_err());
    }

    #[test]
    fn derived_ids_never_change() {
        let workload = WorkloadId::from_bytes([1; 16]);
        let root = AgentId::root(workload);
        let child = AgentId::child(root, Seq(1), 2);
        let key = EffectKey::of(workload, child, Seq(3));
        expect_test::expect![[r#"
            a-18bcfd157c4ad668392e8270a2fbf99e
            a-0b971bc9e98047430e795a9936b68fb2
            e-cd0ebcec4fafea01b923429a06c49184beefd91e696635bd405d28ecc3769f40
            i-4ac71be0df53b931de5e94e0b9cb9fc0
        "#]]
        .assert_eq(&format!("{root}\n{child}\n{key}\n{}\n", InputId::child_ended(child)));
    }

    #[test]
    fn keys_and_partitions_of_streams_never_change() {
        let workload = WorkloadId::from_bytes([1; 16]);
        let agent = AgentId::from_bytes([2; 16]);
        let tenant = TenantId::new("acme").expect("a good name");
        let streams = [StreamId::Agent(agent), StreamId::Workload(workload), StreamId::Cluster(tenant)];
        let keys = [[b"a", [2; 16].as_slice()].concat(), [b"w", [1; 16].as_slice()].concat(), b"cacme".to_vec()];
        assert_eq!(streams.each_ref().map(StreamId::key), keys, "stores keep them");
        assert_eq!(streams.each_ref().map(StreamId::partition), [533, 763, 115]);
    }

    #[test]
    fn siblings_and_generations_have_ids_of_their_own() {
        let root = AgentId::root(WorkloadId::from_bytes([1; 16]));
        let mut seen = std::collections::BTreeSet::new();
        for seq in 1..50 {
            for branch in 0..50 {
                assert!(seen.insert(AgentId::child(root, Seq(seq), branch)));
            }
        }
    }

    #[test]
    fn a_name_with_a_space_or_a_newline_is_refused() {
        assert!(TenantId::new("team a").is_err());
        assert!(TenantId::new("team\n").is_err());
        assert!(TenantId::new("").is_err());
        assert!(TenantId::new("team-a").is_ok());
    }
}
