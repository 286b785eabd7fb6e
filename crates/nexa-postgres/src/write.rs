//! What a batch asks of the server: the rows that it is judged by, and then to be stored if they are still so.

use std::collections::BTreeMap;

use nexa_ports::store::StoreError;
use nexa_types::{AgentId, Epoch, NodeId, WorkloadId};
use sqlx::{PgConnection, Row};

use crate::batch::{Agent, Batch, Stream, Wanted};
use crate::column::{count, counter, damaged, link, moment, owner};
use crate::row::Body;
use crate::trouble::Fault;

/// A batch that knows the rows that are wanted, of one moment.
pub(crate) async fn read_rows(connection: &mut PgConnection, wanted: &Wanted) -> Result<Batch, Fault> {
    let agents: Vec<&[u8]> = wanted.agents.iter().map(|agent| agent.as_bytes().as_slice()).collect();
    let streams: Vec<&[u8]> = wanted.streams.iter().map(Vec::as_slice).collect();
    let rows = sqlx::query(
        "SELECT true, agent, version, link, workload, epoch, node, ended, cancelled FROM agents WHERE agent = ANY($1)
         UNION ALL
         SELECT false, stream, version, link, NULL, 0, NULL, ended, cancelled FROM streams WHERE stream = ANY($2)",
    )
    .bind(agents)
    .bind(streams)
    .fetch_all(connection)
    .await?;
    let mut batch = Batch::default();
    for row in rows {
        let key: &[u8] = row.try_get(1)?;
        let version = counter(row.try_get(2)?)?;
        let link = link(row.try_get(3)?)?;
        let ended: bool = row.try_get(7)?;
        if row.try_get(0)? {
            let bad = |what: &str| damaged("an agent's row", what);
            let workload: Option<&[u8]> = row.try_get(4)?;
            let agent = Agent {
                version,
                link,
                workload: workload.and_then(WorkloadId::from_slice).ok_or_else(|| bad("its workload"))?,
                epoch: Epoch(counter(row.try_get(5)?)?),
                ended,
                node: owner(row.try_get(6)?),
                read: Some(version),
                relied: false,
                told: None,
                born: None,
            };
            batch.agents.insert(AgentId::from_slice(key).ok_or_else(|| bad("its id"))?, agent);
        } else {
            let cancelled = row.try_get(8)?;
            let stream = Stream { version, link, cancelled, ended, read: (version, ended), relied: false };
            batch.streams.insert(key.to_owned(), stream);
        }
    }
    Ok(batch)
}

/// Where a stored batch stands in the reading order, and whose the agents are that it posts to.
pub(crate) struct Stored {
    /// The position before its first fact.
    pub(crate) base: u64,
    pub(crate) owners: BTreeMap<AgentId, Option<NodeId>>,
}

/// The columns of all that changes, one array each.
#[derive(Default)]
struct Columns<'a> {
    s_key: Vec<&'a [u8]>,
    s_version: Vec<i64>,
    s_cancelled: Vec<bool>,
    s_ended: Vec<bool>,
    s_to: Vec<i64>,
    s_link: Vec<&'a [u8]>,
    s_ends: Vec<bool>,
    a_id: Vec<&'a [u8]>,
    a_epoch: Vec<i64>,
    a_version: Vec<i64>,
    a_to: Vec<i64>,
    a_link: Vec<&'a [u8]>,
    a_told: Vec<bool>,
    a_state: Vec<Option<&'static str>>,
    a_due: Vec<Option<i64>>,
    a_ends: Vec<bool>,
    t_id: Vec<&'a [u8]>,
    k_tenant: Vec<&'a str>,
    k_hash: Vec<&'a [u8]>,
    k_bytes: Vec<&'a [u8]>,
    b_id: Vec<&'a [u8]>,
    b_workload: Vec<&'a [u8]>,
    b_tenant: Vec<&'a str>,
    b_principal: Vec<&'a str>,
    b_node: Vec<Option<&'a str>>,
    b_epoch: Vec<i64>,
    b_version: Vec<i64>,
    b_link: Vec<&'a [u8]>,
    b_state: Vec<&'static str>,
    b_ended: Vec<bool>,
    b_due: Vec<Option<i64>>,
    b_priority: Vec<i16>,
    b_asks: Vec<Option<&'a [u8]>>,
    p_agent: Vec<&'a [u8]>,
    p_sure: Vec<bool>,
    p_input: Vec<&'a [u8]>,
    p_body: Vec<&'a [u8]>,
    p_at: Vec<i64>,
    p_principal: Vec<&'a str>,
    x_agent: Vec<&'a [u8]>,
    x_input: Vec<&'a [u8]>,
    x_at: Vec<i64>,
    x_principal: Vec<&'a str>,
    e_last: Vec<i64>,
    e_stream: Vec<&'a [u8]>,
    e_version: Vec<i64>,
    e_workload: Vec<Option<&'a [u8]>>,
    e_header: Vec<&'a [u8]>,
    e_payload: Vec<Option<&'a [u8]>>,
    e_tenant: Vec<Option<&'a str>>,
    e_blob: Vec<Option<&'a [u8]>>,
    e_links: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a Batch) -> Self {
        let mut columns = Self::default();
        for (key, row) in batch.streams.iter().filter(|(_, row)| row.relied) {
            columns.stream(key, row);
        }
        for (id, row) in batch.agents.iter().filter(|(_, row)| row.relied) {
            match row.read {
                Some(read) => columns.owned(id, row, read),
                None => columns.birth(id, row),
            }
        }
        columns.t_id = batch.targets.iter().map(|agent| agent.as_bytes().as_slice()).collect();
        columns.inboxes(batch);
        columns.events(batch);
        columns
    }

    fn stream(&mut self, key: &'a [u8], row: &'a Stream) {
        let (version, ended) = row.read;
        self.s_key.push(key);
        self.s_version.push(count(version));
        self.s_cancelled.push(row.cancelled);
        self.s_ended.push(ended);
        self.s_to.push(count(row.version));
        self.s_link.push(&row.link.0);
        self.s_ends.push(row.ended);
    }

    fn owned(&mut self, id: &'a AgentId, row: &'a Agent, read: u64) {
        self.a_id.push(id.as_bytes());
        self.a_epoch.push(count(row.epoch.0));
        self.a_version.push(count(read));
        self.a_to.push(count(row.version));
        self.a_link.push(&row.link.0);
        self.a_told.push(row.told.is_some());
        self.a_state.push(row.told.map(|(state, _)| state.word()));
        self.a_due.push(row.told.and_then(|(_, due)| due).map(moment));
        self.a_ends.push(row.ended);
    }

    fn birth(&mut self, id: &'a AgentId, row: &'a Agent) {
        let (Some(born), Some((state, due))) = (&row.born, row.told) else { return };
        self.b_id.push(id.as_bytes());
        self.b_workload.push(row.workload.as_bytes());
        self.b_tenant.push(born.stamp.tenant.as_str());
        self.b_principal.push(born.stamp.principal.as_str());
        self.b_node.push(row.node.as_ref().map(|node| node.as_str()));
        self.b_epoch.push(count(row.epoch.0));
        self.b_version.push(count(row.version));
        self.b_link.push(&row.link.0);
        self.b_state.push(state.word());
        self.b_ended.push(row.ended);
        self.b_due.push(due.map(moment));
        self.b_priority.push(i16::from(born.priority));
        self.b_asks.push(born.asks.as_deref());
    }

    fn inboxes(&mut self, batch: &'a Batch) {
        for post in &batch.posts {
            self.p_agent.push(post.agent.as_bytes());
            self.p_sure.push(post.sure);
            self.p_input.push(post.input.as_bytes());
            self.p_body.push(&post.body);
            self.p_at.push(moment(post.stamp.at));
            self.p_principal.push(post.stamp.principal.as_str());
        }
        for ((agent, input), stamp) in &batch.takes {
            self.x_agent.push(agent.as_bytes());
            self.x_input.push(input.as_bytes());
            self.x_at.push(moment(stamp.at));
            self.x_principal.push(stamp.principal.as_str());
        }
    }

    fn events(&mut self, batch: &'a Batch) {
        let mut last = 0;
        for event in &batch.events {
            last += event.facts() as i64;
            self.e_last.push(last);
            self.e_stream.push(&event.stream);
            self.e_version.push(count(event.version));
            self.e_workload.push(event.workload.as_ref().map(|id| id.as_bytes().as_slice()));
            self.e_header.push(&event.header);
            self.e_links.push(&event.links);
            match &event.payload {
                Body::Inline(bytes) => {
                    self.e_payload.push(Some(bytes));
                    self.e_tenant.push(None);
                    self.e_blob.push(None);
                }
                Body::Blob(tenant, hash, bytes) => {
                    self.e_payload.push(None);
                    self.e_tenant.push(Some(tenant));
                    self.e_blob.push(Some(hash));
                    self.k_tenant.push(tenant);
                    self.k_hash.push(hash);
                    self.k_bytes.push(bytes);
                }
            }
        }
    }
}

/// Stores a batch; `None` if what it was judged by has changed meanwhile, and then nothing of it is stored.
///
/// The answer has been drained to the server's last word, which comes after the commit.
pub(crate) async fn store(connection: &mut PgConnection, batch: &Batch) -> Result<Option<Stored>, Fault> {
    let c = Columns::of(batch);
    let row = sqlx::query(
        "SELECT base, owners FROM append_batch_3($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
         $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38,
         $39, $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50, $51, $52)",
    )
    .bind(c.s_key)
    .bind(c.s_version)
    .bind(c.s_cancelled)
    .bind(c.s_ended)
    .bind(c.s_to)
    .bind(c.s_link)
    .bind(c.s_ends)
    .bind(c.a_id)
    .bind(c.a_epoch)
    .bind(c.a_version)
    .bind(c.a_to)
    .bind(c.a_link)
    .bind(c.a_told)
    .bind(c.a_state)
    .bind(c.a_due)
    .bind(c.a_ends)
    .bind(c.t_id)
    .bind(c.k_tenant)
    .bind(c.k_hash)
    .bind(c.k_bytes)
    .bind(c.b_id)
    .bind(c.b_workload)
    .bind(c.b_tenant)
    .bind(c.b_principal)
    .bind(c.b_node)
    .bind(c.b_epoch)
    .bind(c.b_version)
    .bind(c.b_link)
    .bind(c.b_state)
    .bind(c.b_ended)
    .bind(c.b_due)
    .bind(c.b_priority)
    .bind(c.b_asks)
    .bind(c.p_agent)
    .bind(c.p_sure)
    .bind(c.p_input)
    .bind(c.p_body)
    .bind(c.p_at)
    .bind(c.p_principal)
    .bind(c.x_agent)
    .bind(c.x_input)
    .bind(c.x_at)
    .bind(c.x_principal)
    .bind(c.e_last)
    .bind(c.e_stream)
    .bind(c.e_version)
    .bind(c.e_workload)
    .bind(c.e_header)
    .bind(c.e_payload)
    .bind(c.e_tenant)
    .bind(c.e_blob)
    .bind(c.e_links)
    .fetch_one(connection)
    .await?;
    let Some(base) = row.try_get::<Option<i64>, _>(0)? else { return Ok(None) };
    let owners: Vec<Option<String>> = row.try_get(1)?;
    if owners.len() != batch.targets.len() {
        return Err(
            StoreError::Ambiguous { detail: "the server answered for other agents than it was asked".into() }.into()
        );
    }
    let owners = batch.targets.iter().copied().zip(owners.into_iter().map(owner)).collect();
    Ok(Some(Stored { base: counter(base)?, owners }))
}
