//! Agents that move between two nodes while they work. The nodes are in one process, each with its own connections to one
//! PostgreSQL and linked over loopback with TLS; who is there is kept in the process. Each agent holds a state of 64 KiB.
//!
//! - `migration_pause_p50_ms`, `_p99_ms`, `_max_ms`: agents that ask a model, which answers at once, as fast as they can. From
//!   the last request that an agent sends from the one node to its first from the other: so its last step there and its
//!   first one here are in it. `migration_step_p50_ms` is the time between two requests where it does not move.
//! - `migration_in_flight_p50_ms`, `_p99_ms`, `_max_ms`: agents that wait for an answer of a model. From the command until
//!   the agent's new node has recorded that it has it. `carried_answer_p50_ms`: from the answer, which comes to the old
//!   node, to the agent's next request from the new one.
//! - `migration_snapshot_kib`: what the store keeps of such an agent.
//!
//! Afterwards every agent ends, and gives what it has held; and no request was sent twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use nexa_cluster::certs::Authority;
use nexa_cluster::link::{LinkConfig, TonicPeers};
use nexa_cluster::{Cluster, ClusterConfig, ClusterPorts, Heart, Relay};
use nexa_event::effect::{Finish, ModelReply};
use nexa_event::envelope::Fact;
use nexa_event::fact::AgentEvent;
use nexa_member::leader::Limits;
use nexa_ports::clock::{Clock, SystemClock};
use nexa_ports::dice::SystemDice;
use nexa_ports::formats::{Formats, Writing};
use nexa_ports::membership::NodeCard;
use nexa_ports::membership::local::LocalCluster;
use nexa_ports::model::{Chunks, LaneLimits, Model, ModelCall, ModelError};
use nexa_ports::neighbours::Neighbours;
use nexa_postgres::{PostgresStore, Settings};
use nexa_runtime::fence::Leased;
use nexa_runtime::{Node, NodeConfig};
use nexa_testkit::postgres::Server;
use nexa_types::{AgentId, NodeId, Spend, StreamId, Tokens, WorkloadId};
use nexa_vm::value::Value;
use tokio::sync::watch;

use crate::core::node::{Ground, Running, block_on};
use crate::measure::{Error, Figures};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Agents that move, one after another.
    pub(crate) agents: usize,
    /// Migrations of agents that step, and of agents that wait.
    pub(crate) moves: usize,
}

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// What an agent holds: this many texts, each different.
const TEXTS: usize = 1_024;
/// Requests of an agent between two migrations of it.
const STEPS_BETWEEN: usize = 3;
const NAMES: [&str; 2] = ["a", "b"];

/// Holds its texts for as long as the model says that it goes on.
const PROGRAM: &str = r##"
flow main(count: int, word: str) -> str {
    let kept: list[str] = []
    for each number in range(0, count) { kept = kept.push("#{word} #{number}") }
    let steps = 0
    let ends = false
    loop (max: 1000000) {
        semantic_if "it goes on" against "step #{steps}" { steps += 1 } else { ends = true }
    } until (ends)
    let told = ""
    for each text in kept { told = "#{told}#{text};" }
    return told
}
"##;
/// With a number after it, what makes 64 KiB of so many texts.
const WORD: &str = "what an agent remembers of its work, a line of it at a time";

fn told() -> String {
    (0..TEXTS).map(|number| format!("{WORD} {number};")).collect()
}

/// Measures it.
pub(crate) fn run(scale: Scale, server: &Server, figures: &mut Figures) -> Result<(), Error> {
    block_on(async {
        let town = Town::start(server).await?;
        let agents = town.submit(scale.agents).await?;
        let stepping = town.steps(&agents, scale.moves).await?;
        let kept = town.nodes[0].running.ground.store.snapshot(agents[0].1).await?;
        let (_, kept) = kept.ok_or("an agent that has moved has no snapshot")?;
        let kept = kept.len();
        if kept < 64 << 10 {
            return Err(format!("an agent's snapshot has {kept} bytes, which is less than 64 KiB").into());
        }
        let (waiting, answers) = town.waits(&agents, scale.moves).await?;
        town.end(&agents).await?;

        for (name, taken) in [("migration_pause", stepping.pauses), ("migration_in_flight", waiting)] {
            let [p50, p99, max] = percentiles(taken);
            figures.count(&format!("{name}_p50_ms"), p50);
            figures.count(&format!("{name}_p99_ms"), p99);
            figures.count(&format!("{name}_max_ms"), max);
        }
        figures.count("migration_step_p50_ms", percentiles(stepping.between)[0]);
        figures.count("carried_answer_p50_ms", percentiles(answers)[0]);
        figures.count("migration_snapshot_kib", kept as f64 / 1024.0);
        figures.count("migrations", 2.0 * scale.moves as f64);
        Ok(())
    })
}

/// Two nodes and what is between them.
struct Town {
    nodes: Vec<Neighbour>,
    talks: Talks,
}

struct Neighbour {
    running: Running,
    cluster: Cluster,
    relay: Arc<Relay>,
    /// Its links end with it.
    _peers: Arc<TonicPeers>,
}

type Mover = (WorkloadId, AgentId);

impl Town {
    async fn start(server: &Server) -> Result<Self, Error> {
        let clock = Arc::new(SystemClock::default());
        let authority = Authority::throwaway(clock.now())?;
        let service = LocalCluster::new(clock.clone());
        let (url, talks) = (server.database(), Talks::new());
        let mut nodes = Vec::new();
        for (at, name) in NAMES.into_iter().enumerate() {
            let id = NodeId::new(name)?;
            let store = Arc::new(PostgresStore::connect(Settings::new(&*url, id.clone())).await?);
            let mut ground = Ground::on(store.clone(), store.clone())?;
            (ground.name, ground.is_alone) = (id.clone(), false);
            let relay = Relay::new();
            let link = LinkConfig {
                cluster: "bench".into(),
                node: id.clone(),
                identity: authority.issue(&id, &[], clock.now(), 1)?,
                listen: ([127, 0, 0, 1], 0).into(),
                threads: 1,
                clock: clock.clone(),
                dice: Arc::new(SystemDice),
                on_undelivered: None,
            };
            let peers = Arc::new(TonicPeers::start(link, &relay)?);
            let card = NodeCard {
                id: id.clone(),
                door: String::new(),
                link: peers.local_addr().to_string(),
                labels: BTreeMap::new(),
                cpu_milli: 2_000,
                memory_bytes: 8 << 30,
                agents_max: 10_000,
                build: String::new(),
                formats: (1, 1),
            };
            let membership = service.member();
            membership.join(card.clone()).await?;
            let mut ports = ground.ports(Arc::new(Talker { at, talks: talks.clone() }));
            ports.neighbours = relay.clone();
            ports.fence = Arc::new(Leased(membership.clone()));
            let node = Node::start(NodeConfig { others: true, ..NodeConfig::new(id) }, ports).await?;
            let ports = ClusterPorts {
                host: Arc::new(node.clone()),
                relay: relay.clone(),
                store: store.clone(),
                leadership: store,
                membership,
                peers: peers.clone(),
                clock: clock.clone(),
                dice: Arc::new(SystemDice),
                writing: Writing::oldest(Formats::THIS_BUILD),
            };
            let config = ClusterConfig { card, may_lead: true, limits: Limits::default(), heart: Heart::Thread };
            let cluster = Cluster::start(config, ports).await?;
            nodes.push(Neighbour { running: Running { ground, node }, cluster, relay, _peers: peers });
        }
        Ok(Self { nodes, talks })
    }

    /// Agents that step by now.
    async fn submit(&self, count: usize) -> Result<Vec<Mover>, Error> {
        let Neighbour { running, relay, .. } = &self.nodes[0];
        let put = running.put(PROGRAM).await?;
        let args = |_| vec![Value::Int(TEXTS as i64), Value::Str(WORD.into())];
        let roots = running.submit(&put, "main", count, args).await?;
        relay.unplaced(&roots);
        let rows = nexa_ports::store::Rows::Agents(roots);
        let rows = running.ground.store.rows(rows, None, count).await?;
        let movers: Vec<Mover> = rows.into_iter().map(|row| (row.workload, row.agent)).collect();
        for (workload, _) in &movers {
            self.talks.until("an agent begins", |talks| talks.asked(workload) > STEPS_BETWEEN).await?;
        }
        Ok(movers)
    }

    /// Has agents move that step meanwhile.
    async fn steps(&self, agents: &[Mover], moves: usize) -> Result<Stepped, Error> {
        self.talks.0.send_modify(|talks| talks.stepped = Stepped::default());
        for (workload, agent) in agents.iter().cycle().take(moves) {
            let Talk { at, asked, .. } = self.talks.of(workload)?;
            self.nodes[0].cluster.migrate(*agent, Some(NodeId::new(NAMES[1 - at])?)).await?;
            self.talks.until("an agent that has moved to step", |talks| talks.is_at(workload, 1 - at)).await?;
            let more = asked + STEPS_BETWEEN;
            self.talks.until("an agent to step on", |talks| talks.asked(workload) > more).await?;
        }
        Ok(std::mem::take(&mut self.talks.take().stepped))
    }

    /// Has agents move that wait for an answer meanwhile: how long that took, and how long the answer took to the agent.
    async fn waits(&self, agents: &[Mover], moves: usize) -> Result<(Vec<f64>, Vec<f64>), Error> {
        let (mut taken, mut answers) = (Vec::new(), Vec::new());
        self.talks.0.send_modify(|talks| talks.holds = true);
        for (workload, agent) in agents.iter().cycle().take(moves) {
            self.talks.until("a request", |talks| talks.waits(workload)).await?;
            let Talk { at, .. } = self.talks.of(workload)?;
            let store = &self.nodes[1 - at].running.ground.store;
            let Some(row) = store.row(*agent).await? else { return Err("an agent is gone".into()) };
            let begin = Instant::now();
            let moved = async {
                let mut head = store.head();
                loop {
                    head.mark_unchanged();
                    let news = store.read(StreamId::Agent(*agent), row.version, 64).await?;
                    if news.iter().any(|fact| is_takeover(&fact.envelope.fact)) {
                        return Ok::<_, Error>(begin.elapsed());
                    }
                    head.changed().await?;
                }
            };
            let to = NodeId::new(NAMES[1 - at])?;
            let (moved, commanded) =
                tokio::join!(tokio::time::timeout(PATIENCE, moved), self.nodes[0].cluster.migrate(*agent, Some(to)));
            commanded?;
            taken.push(moved??.as_secs_f64() * 1e3);
            let begin = Instant::now();
            self.talks.answer(workload);
            self.talks.until("an answer to follow its agent", |talks| talks.is_at(workload, 1 - at)).await?;
            answers.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        self.talks.0.send_modify(|talks| talks.holds = false);
        Ok((taken, answers))
    }

    /// Lets all agents end, and looks at what each gives.
    async fn end(&self, agents: &[Mover]) -> Result<(), Error> {
        self.talks.0.send_modify(|talks| talks.is_over = true);
        let running = &self.nodes[0].running;
        tokio::time::timeout(PATIENCE, running.all_ended()).await??;
        let told = Value::Str(told().into());
        for (_, agent) in agents {
            if running.result(*agent).await? != told {
                return Err("an agent that has moved gives something else than it has held".into());
            }
        }
        let again: u64 = self.nodes.iter().map(|node| node.running.node.stats().reissued_model_calls).sum();
        if again > 0 {
            return Err(format!("{again} requests were sent again").into());
        }
        Ok(())
    }
}

fn is_takeover(fact: &Fact) -> bool {
    matches!(fact, Fact::Agent(AgentEvent::TakenOver { carried: Some(_), .. }))
}

/// The median, the 99th percentile and the largest.
fn percentiles(mut taken: Vec<f64>) -> [f64; 3] {
    taken.sort_by(f64::total_cmp);
    let at = |part: f64| taken.get((taken.len() as f64 * part) as usize).copied().unwrap_or_default();
    [at(0.5), at(0.99), taken.last().copied().unwrap_or_default()]
}

/// What the models of both nodes have heard.
#[derive(Clone)]
struct Talks(Arc<watch::Sender<Heard>>);

#[derive(Default)]
struct Heard {
    talks: HashMap<WorkloadId, Talk>,
    stepped: Stepped,
    /// No request is answered but those that are told to be.
    holds: bool,
    is_over: bool,
}

/// One agent's.
#[derive(Debug, Clone, Copy)]
struct Talk {
    /// Where its last request came from.
    at: usize,
    last: Instant,
    asked: usize,
    /// Up to which request it may be answered.
    may: usize,
}

/// Times between two requests of an agent in milliseconds, those from two nodes and those from one.
#[derive(Default)]
struct Stepped {
    pauses: Vec<f64>,
    between: Vec<f64>,
}

impl Heard {
    fn asked(&self, workload: &WorkloadId) -> usize {
        self.talks.get(workload).map_or(0, |talk| talk.asked)
    }

    fn is_at(&self, workload: &WorkloadId, at: usize) -> bool {
        self.talks.get(workload).is_some_and(|talk| talk.at == at)
    }

    fn waits(&self, workload: &WorkloadId) -> bool {
        self.talks.get(workload).is_some_and(|talk| talk.asked > talk.may)
    }

    fn note(&mut self, workload: WorkloadId, at: usize) -> usize {
        let last = Instant::now();
        let Some(talk) = self.talks.get_mut(&workload) else {
            self.talks.insert(workload, Talk { at, last, asked: 1, may: 0 });
            return 1;
        };
        let took = (last - talk.last).as_secs_f64() * 1e3;
        let side = if talk.at == at { &mut self.stepped.between } else { &mut self.stepped.pauses };
        side.push(took);
        if !self.holds {
            talk.may = talk.asked + 1;
        }
        *talk = Talk { at, last, asked: talk.asked + 1, ..*talk };
        talk.asked
    }
}

impl Talks {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn of(&self, workload: &WorkloadId) -> Result<Talk, Error> {
        self.0.borrow().talks.get(workload).copied().ok_or_else(|| "an agent has not asked".into())
    }

    fn take(&self) -> Heard {
        let mut taken = Heard::default();
        self.0.send_modify(|heard| taken.stepped = std::mem::take(&mut heard.stepped));
        taken
    }

    fn answer(&self, workload: &WorkloadId) {
        self.0.send_modify(|heard| {
            if let Some(talk) = heard.talks.get_mut(workload) {
                talk.may = talk.asked;
            }
        });
    }

    async fn until(&self, what: &str, is_so: impl FnMut(&Heard) -> bool) -> Result<(), Error> {
        let mut heard = self.0.subscribe();
        let is_so = tokio::time::timeout(PATIENCE, heard.wait_for(is_so)).await;
        is_so.map_err(|_| format!("waited for {what} for {PATIENCE:?}"))??;
        Ok(())
    }
}

/// The model of one node.
struct Talker {
    at: usize,
    talks: Talks,
}

impl Model for Talker {
    fn ask<'a>(&'a self, call: ModelCall, _: &'a dyn Chunks) -> BoxFuture<'a, Result<ModelReply, ModelError>> {
        let mut number = 0;
        self.talks.0.send_modify(|heard| number = heard.note(call.workload, self.at));
        Box::pin(async move {
            let mut heard = self.talks.0.subscribe();
            let may =
                |heard: &Heard| !heard.holds || heard.talks.get(&call.workload).is_some_and(|talk| talk.may >= number);
            let goes_on = heard.wait_for(may).await.is_ok_and(|heard| !heard.is_over);
            Ok(ModelReply {
                text: goes_on.to_string(),
                finish: Finish::Stop,
                model: "bench/talker".to_owned(),
                spend: Spend { tokens_in: Tokens(40), tokens_out: Tokens(1), calls: 1, ..Spend::default() },
                tokens_left_out: Tokens(0),
                tool_calls: Vec::new(),
            })
        })
    }

    fn limits(&self, _: &str) -> LaneLimits {
        LaneLimits::at_once(1_000)
    }

    fn lane(&self, _: &str) -> String {
        String::new()
    }
}
