//! Nodes that are killed: three `nexa serve` with a PostgreSQL and an etcd, as `nexa load --nodes 3` starts them, and agents
//! that have one question after another asked by a child, which a model answers after [`ANSWER_MS`].
//!
//! Every second kill (`kill -9`) is that of the node that leads, every other of one that does not. After each the node is
//! started again, and the agents are evened out over all three before the next.
//!
//! - `failover_p50_s`, `failover_p90_s`, `failover_max_s`: from the kill until every agent of the node has recorded on
//!   another that something is done: an answer to a request that was sent there, what its child gave, or its end. So one
//!   answer of the model is in it.
//! - `failover_adopted_p50_s`, `_p90_s`: until every agent of it has been taken over.
//! - `failover_follower_p90_s`, `failover_leader_p90_s`: the same as `failover_p90_s` for either kind of kill.
//! - `scheduler_failover_p50_s`, `_p90_s`, `_max_s`: from the kill of the node that leads until an agent that was submitted
//!   right after it has been placed and has recorded its start.
//!
//! All moments are those at which the facts were seen in the store by somebody who looks on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nexa_client::{Client, ClientError, Options, new_request_id};
use nexa_event::envelope::Fact;
use nexa_event::fact::AgentEvent;
use nexa_load::crew::{Common, Crew, Server};
use nexa_load::dice::LogNormal;
use nexa_load::endpoint::limits::KeyLimits;
use nexa_load::endpoint::profile::{Faults, Profile};
use nexa_load::endpoint::{Config, Endpoint};
use nexa_ports::store::{Rows, Store};
use nexa_postgres::{PostgresStore, Settings};
use nexa_proto::v1;
use nexa_types::{AgentId, GlobalSeq, NodeId, Reason, StreamId, Version, WorkloadId};

use crate::measure::{Error, Figures};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) agents: usize,
    pub(crate) kills: usize,
}

/// How long the model takes for each answer.
const ANSWER_MS: f64 = 300.0;
const NODES: usize = 3;
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Facts that are read at a time.
const FACTS: usize = 1_000;
/// Agents that move at a time to even them out.
const MOVES: usize = 16;
/// A kill after which it took longer is counted.
const LONG: Duration = Duration::from_secs(8);
/// A kill after which it took longer is shown with what its last agents did when.
const LATE: Duration = Duration::from_secs(2);
/// How many of those agents.
const LATE_SHOWN: usize = 3;
/// Facts of an agent that are shown where it does not go on, or late.
const FACTS_SHOWN: u64 = 6;
/// How much of each, in bytes.
const FACT_SHOWN_MAX: usize = 200;

const PROGRAM: &str = r##"
agent Worker { prompt: "Say something about it." }
flow work(name: str) -> int {
    let heard = 0
    let step = 0
    loop (max: 1000000) {
        let said = "#{name}, step #{step}" >> Worker
        heard += said.len()
        step += 1
    } until (step < 0)
    return heard
}
flow begin() -> int { return 1 }
"##;

/// What came of one kill; times from it on.
#[derive(Debug, Clone)]
pub(crate) struct Kill {
    node: String,
    led: bool,
    agents: usize,
    /// When the first and the last of its agents were taken over.
    adopted: [Duration; 2],
    /// When the first and the last of its agents had recorded a step.
    working: [Duration; 2],
    /// When a new agent had recorded its start.
    placed: Option<Duration>,
}

/// Measures it; gives what came of each kill.
pub(crate) async fn run(scale: Scale, nexa: &Path, figures: &mut Figures) -> Result<Vec<Kill>, Error> {
    let profile = Profile {
        seed: 1,
        latency_ms: LogNormal { median: ANSWER_MS, spread: 0.0 },
        answer_tokens: LogNormal { median: 16.0, spread: 0.0 },
        faults: Faults::default(),
    };
    let limits = KeyLimits::default();
    let endpoint =
        Endpoint::start(Config { profile, limits, tags: 0, answers_per_tag: 0, host: Ipv4Addr::LOCALHOST, port: 0 })
            .await?;
    // What a killed node had of the key's requests at once is the others' only two minutes later. So that it does not become
    // less with each kill, the key takes those of all kills.
    let concurrency = scale.agents * (scale.kills + 1);
    let grace = Duration::from_secs(5);
    let common = Common { endpoint: endpoint.url(), concurrency, limits, tokens: Vec::new(), grace };
    let server = Server::Own { exe: nexa.to_path_buf(), folder: None, nodes: NODES };
    let mut crew = Crew::gather(&server, common, &|said| eprintln!("{said}")).await?;
    let kills = tokio::select! {
        kills = kill_all(scale, &mut crew) => kills,
        // What was started ends with the crew.
        said = tokio::signal::ctrl_c() => Err(said.err().map_or("stopped before its end".into(), Error::from)),
    };
    crew.stop().await;
    let kills = kills?;
    tell(&kills, figures);
    Ok(kills)
}

async fn kill_all(scale: Scale, crew: &mut Crew) -> Result<Vec<Kill>, Error> {
    let url = crew.store().ok_or("the nodes have no store that can be looked at")?;
    let sight = Sight { store: PostgresStore::connect(Settings::new(url, NodeId::new("bench")?)).await? };
    let mut doors = Vec::new();
    for address in crew.addresses() {
        doors.push(Client::connect(address, Options::default()).await?);
    }
    let module = put(&doors[0]).await?;
    settle(&doors).await?;
    let mut agents = Vec::new();
    for number in 0..scale.agents {
        let input = serde_json::json!({ "name": format!("agent {number}") });
        let workload = submit(&doors[number % NODES], &module, "work", input.to_string()).await?;
        agents.push(AgentId::root(workload));
    }
    let mut kills: Vec<Kill> = Vec::new();
    for number in 0..scale.kills {
        let leader = settle(&doors).await?;
        sight.even_out(&doors[0], &agents).await?;
        let is_leader = |node: usize| name(node) == leader;
        // Of those that do not lead, each in turn.
        let others: Vec<usize> = (0..NODES).filter(|node| !is_leader(*node)).collect();
        let led = number % 2 == 0;
        let victim = match led {
            true => (0..NODES).find(|node| is_leader(*node)).ok_or("an unknown node leads")?,
            false => others[number / 2 % others.len()],
        };
        let kill = one_kill(crew, &sight, victim, led.then_some((&doors[others[0]], &*module))).await?;
        let Kill { node, agents, adopted, working, placed, .. } = &kill;
        eprintln!(
            "kill {}: {node}, {}, {agents} agents: taken over {:.2} to {:.2} s, working {:.2} to {:.2} s{}",
            number + 1,
            if led { "leading" } else { "not leading" },
            adopted[0].as_secs_f64(),
            adopted[1].as_secs_f64(),
            working[0].as_secs_f64(),
            working[1].as_secs_f64(),
            placed.map_or(String::new(), |placed| format!(", a new one placed {:.2} s", placed.as_secs_f64())),
        );
        kills.push(kill);
        crew.bring_back().await?;
        forgive(&doors[others[0]], &name(victim)).await?;
    }
    Ok(kills)
}

fn name(node: usize) -> String {
    format!("n{}", node + 1)
}

async fn put(door: &Client) -> Result<String, Error> {
    let source = v1::Source { name: "work.nx".to_owned(), text: PROGRAM.to_owned() };
    let request = v1::ProgramServicePutRequest {
        name: "work".to_owned(),
        program: Some(v1::program_service_put_request::Program::Source(source)),
        ..Default::default()
    };
    Ok(door.put_program(request).await?.program.unwrap_or_default().module_hash)
}

async fn submit(door: &Client, module: &str, entry: &str, input_json: String) -> Result<WorkloadId, Error> {
    let program = v1::workload_service_submit_request::Program::ModuleHash(module.to_owned());
    let request = v1::WorkloadServiceSubmitRequest {
        request_id: new_request_id(),
        program: Some(program),
        entry: entry.to_owned(),
        input_json,
        name: entry.to_owned(),
        priority: None,
        budget: None,
    };
    let begin = Instant::now();
    loop {
        match door.submit(request.clone()).await {
            Ok(answer) => return Ok(answer.workload_id.parse()?),
            // Under its request id it is stored once.
            Err(error) if error.is_transient() && begin.elapsed() < PATIENCE => tokio::time::sleep(LOOK_AGAIN).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Says that a node is to be given agents, however often it has crashed of late. The one that is asked may not know yet that it
/// is back.
async fn forgive(door: &Client, node: &str) -> Result<(), Error> {
    let begin = Instant::now();
    let is_unknown = |error: &ClientError| error.refusal().is_some_and(|refusal| refusal.reason == Reason::NotFound);
    let may_help = |error: &ClientError| error.is_transient() || is_unknown(error);
    loop {
        let request = v1::ClusterServiceCordonRequest { node: node.to_owned(), undo: true };
        match door.cordon(request).await {
            Ok(_) => return Ok(()),
            Err(error) if may_help(&error) && begin.elapsed() < PATIENCE => tokio::time::sleep(LOOK_AGAIN).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until every node is there, has been heard, and knows the same leader; gives its name.
async fn settle(doors: &[Client]) -> Result<String, Error> {
    let begin = Instant::now();
    loop {
        let mut leaders = BTreeSet::new();
        let mut is_settled = true;
        for door in doors {
            let Ok(listed) = door.nodes(v1::ClusterServiceListNodesRequest::default()).await else {
                is_settled = false;
                continue;
            };
            let ready = |node: &&v1::Node| node.state() == v1::NodeState::Ready && node.load.is_some();
            is_settled &= listed.nodes.iter().filter(ready).count() == NODES;
            let leading = listed.nodes.into_iter().filter(|node| node.is_leader);
            leaders.insert(leading.map(|node| (node.name, node.generation)).collect::<Vec<_>>());
        }
        if let (true, [leaders]) = (is_settled, &*leaders.into_iter().collect::<Vec<_>>())
            && let [(leader, _)] = &**leaders
        {
            return Ok(leader.clone());
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!("the nodes have not found together within {PATIENCE:?}").into());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Who looks on.
struct Sight {
    store: PostgresStore,
}

impl Sight {
    async fn agents_of(&self, node: &str) -> Result<BTreeSet<AgentId>, Error> {
        let rows = self.store.rows(Rows::Of(NodeId::new(node)?), None, usize::MAX >> 1).await?;
        Ok(rows.into_iter().filter(|row| !row.state.is_terminal()).map(|row| row.agent).collect())
    }

    /// Moves agents that live for long until every node has about its part of them.
    async fn even_out(&self, door: &Client, agents: &[AgentId]) -> Result<(), Error> {
        let least = agents.len() / NODES * 2 / 3;
        let begin = Instant::now();
        let mut refused = BTreeMap::<String, usize>::new();
        loop {
            let mut owned = vec![Vec::new(); NODES];
            for row in self.store.rows(Rows::Agents(agents.to_vec()), None, agents.len()).await? {
                if let Some(at) = (0..NODES).find(|node| row.node.as_ref().is_some_and(|id| id.as_str() == name(*node)))
                {
                    owned[at].push(row.agent);
                }
            }
            let counts: Vec<usize> = owned.iter().map(Vec::len).collect();
            if counts.iter().all(|count| *count >= least) {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!(
                    "the nodes have {counts:?} agents, which does not even out; moves were refused: {refused:?}"
                )
                .into());
            }
            let ends = |node: &usize| counts[*node];
            let (Some(few), Some(many)) = ((0..NODES).min_by_key(ends), (0..NODES).max_by_key(ends)) else { continue };
            let lot = ((counts[many] - counts[few]) / 2).clamp(1, MOVES);
            let moves = owned[many].iter().take(lot).map(|agent| {
                let request = v1::AgentServiceMigrateRequest { agent_id: agent.to_string(), node: name(few) };
                async move { door.migrate(request).await }
            });
            // One that is in the middle of something stays, and is tried again.
            for moved in futures::future::join_all(moves).await {
                if let Err(error) = moved {
                    *refused.entry(error.to_string()).or_default() += 1;
                }
            }
        }
    }

    /// What an agent did last, or about when it recorded a fact, for whoever wants to know why it does not go on, or late.
    async fn story(&self, agent: AgentId, from: Option<Version>) -> Result<String, Error> {
        let Some(row) = self.store.row(agent).await? else { return Ok(format!("{agent} is not there")) };
        let last = Version(row.version.0.saturating_sub(FACTS_SHOWN));
        let after = from.map_or(last, |from| Version(from.0.saturating_sub(FACTS_SHOWN / 2)));
        let mut facts = self.store.read(StreamId::Agent(agent), after, FACTS).await?;
        facts.truncate(FACTS_SHOWN as usize);
        let facts: Vec<String> = (facts.into_iter())
            .map(|recorded| {
                let (header, fact) = (recorded.envelope.header, recorded.envelope.fact);
                let mut said = format!("{fact:?}");
                said.truncate(said.floor_char_boundary(FACT_SHOWN_MAX));
                format!("{} {said}", header.at.0)
            })
            .collect();
        let node = row.node.map_or("nobody".to_owned(), |node| node.to_string());
        Ok(format!("{agent}, {node}'s, {:?}, epoch {}: {}", row.state, row.epoch, facts.join("; ")))
    }

    /// Reads facts until it has seen what it waits for.
    async fn until(
        &self,
        mut after: GlobalSeq,
        mut is_all: impl FnMut(StreamId, Version, AgentEvent) -> bool,
    ) -> Result<(), Error> {
        let mut head = self.store.head();
        loop {
            head.mark_unchanged();
            let news = self.store.scan(None, after, FACTS).await?;
            let is_last = news.len() < FACTS;
            for recorded in news {
                after = recorded.position;
                if let Fact::Agent(event) = recorded.envelope.fact
                    && is_all(recorded.envelope.header.stream, recorded.envelope.header.version, event)
                {
                    return Ok(());
                }
            }
            if is_last {
                head.changed().await?;
            }
        }
    }
}

/// How far an agent of the killed node is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Lost,
    Adopted,
    Working,
}

/// Kills a node; if it leads, has an agent born at the same time at another's door.
async fn one_kill(
    crew: &mut Crew,
    sight: &Sight,
    victim: usize,
    newborn: Option<(&Client, &str)>,
) -> Result<Kill, Error> {
    let node = name(victim);
    // Taken first, so that nobody ends unseen between the two.
    let after = *sight.store.head().borrow();
    let mut agents: BTreeMap<AgentId, Progress> =
        sight.agents_of(&node).await?.into_iter().map(|agent| (agent, Progress::Lost)).collect();
    let begin = Instant::now();
    crew.kill(victim).await?;

    let (mut adopted, mut working) = (Vec::new(), Vec::new());
    // Who worked last, and which of its facts that was.
    let mut latest: Vec<(AgentId, Version)> = Vec::new();
    let failing_over = sight.until(after, |stream, version, event| {
        let StreamId::Agent(agent) = stream else { return false };
        let Some(progress) = agents.get_mut(&agent) else { return false };
        match (&event, *progress) {
            (AgentEvent::TakenOver { .. }, Progress::Lost) => {
                *progress = Progress::Adopted;
                adopted.push(begin.elapsed());
            }
            (
                AgentEvent::EffectEnded { .. } | AgentEvent::ChildEnded { .. } | AgentEvent::Ended { .. },
                Progress::Adopted,
            ) => {
                *progress = Progress::Working;
                working.push(begin.elapsed());
                latest.push((agent, version));
            }
            // It had ended before the kill.
            (AgentEvent::Ended { .. }, Progress::Lost) => drop(agents.remove(&agent)),
            _ => {}
        }
        working.len() == agents.len()
    });
    let placing = async {
        let Some((door, module)) = newborn else { return Ok(None) };
        let workload = submit(door, module, "begin", String::new()).await?;
        let root = StreamId::Agent(AgentId::root(workload));
        let is_start = |stream, _, event: AgentEvent| stream == root && matches!(event, AgentEvent::Started { .. });
        sight.until(after, is_start).await?;
        Ok::<_, Error>(Some(begin.elapsed()))
    };
    let both = tokio::time::timeout(PATIENCE, async { tokio::try_join!(failing_over, placing) }).await;
    let Ok(both) = both else {
        let count = agents.len();
        let lost = agents.values().filter(|progress| **progress == Progress::Lost).count();
        let idle = agents.values().filter(|progress| **progress == Progress::Adopted).count();
        let one = agents.iter().find(|(_, progress)| **progress != Progress::Working);
        let one = match one {
            Some((agent, _)) => sight.story(*agent, None).await?,
            None => "the new agent has not begun".to_owned(),
        };
        return Err(format!(
            "{PATIENCE:?} after {node} was killed, {lost} of its {count} agents have not been taken over, and {idle} \
             have been and have not recorded a step; one of them: {one}"
        )
        .into());
    };
    let ((), placed) = both?;
    if working.last().is_some_and(|last| *last > LATE) {
        let moment = SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_sub(begin.elapsed());
        eprintln!("{node} was killed at {} ms; the last of its agents:", moment.as_millis());
        for (agent, version) in latest.iter().rev().take(LATE_SHOWN) {
            eprintln!("  {}", sight.story(*agent, Some(*version)).await?);
        }
    }
    let ends = |times: &[Duration]| [times.first().copied(), times.last().copied()].map(Option::unwrap_or_default);
    let (adopted, working) = (ends(&adopted), ends(&working));
    Ok(Kill { node, led: newborn.is_some(), agents: agents.len(), adopted, working, placed })
}

fn tell(kills: &[Kill], figures: &mut Figures) {
    let seconds = |of: &dyn Fn(&Kill) -> Option<Duration>| -> Vec<f64> {
        kills.iter().filter_map(of).map(|time| time.as_secs_f64()).collect()
    };
    let mut put = |name: &str, taken: Vec<f64>, parts: &[(&str, f64)]| {
        for (part, at) in parts {
            figures.count(&format!("{name}_{part}_s"), quantile(&taken, *at));
        }
    };
    let all = [("p50", 0.5), ("p90", 0.9), ("max", 1.0)];
    put("failover", seconds(&|kill| Some(kill.working[1])), &all);
    put("failover_adopted", seconds(&|kill| Some(kill.adopted[1])), &all[..2]);
    put("failover_follower", seconds(&|kill| (!kill.led).then_some(kill.working[1])), &all[1..2]);
    put("failover_leader", seconds(&|kill| kill.led.then_some(kill.working[1])), &all[1..2]);
    put("scheduler_failover", seconds(&|kill| kill.placed), &all);
    figures.count("failover_kills", kills.len() as f64);
    let long = kills.iter().filter(|kill| kill.working[1] > LONG).count();
    figures.count("failover_over_8_s", long as f64);
}

/// The smallest value that this part of all does not exceed.
fn quantile(taken: &[f64], part: f64) -> f64 {
    let mut taken = taken.to_vec();
    taken.sort_by(f64::total_cmp);
    let at = (taken.len() as f64 * part).ceil() as usize;
    taken.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

/// A picture of how long kills took, in steps of half a second.
pub(crate) fn histogram(kills: &[Kill]) -> String {
    let mut bins: BTreeMap<usize, [usize; 2]> = BTreeMap::new();
    for kill in kills {
        bins.entry((kill.working[1].as_secs_f64() * 2.0) as usize).or_default()[usize::from(kill.led)] += 1;
    }
    let (Some(first), Some(last)) = (bins.keys().next(), bins.keys().last()) else { return String::new() };
    let mut text = String::new();
    for bin in *first..=*last {
        let [others, leaders] = bins.get(&bin).copied().unwrap_or_default();
        let bar = format!("{}{}", "#".repeat(others), "L".repeat(leaders));
        // A string takes everything that is written to it.
        let _ = writeln!(text, "{:4.1} s  {bar}", bin as f64 / 2.0);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill(led: bool, ms: u64) -> Kill {
        let at = Duration::from_millis(ms);
        Kill { node: name(0), led, agents: 1, adopted: [at; 2], working: [at; 2], placed: led.then_some(at) }
    }

    #[test]
    fn of_thirty_kills_three_may_take_longer_than_the_ninetieth_percentile() {
        let taken: Vec<f64> = (1..=30).rev().map(f64::from).collect();
        assert_eq!([0.5, 0.9, 1.0].map(|part| quantile(&taken, part)), [15.0, 27.0, 30.0]);
        assert_eq!(quantile(&[], 0.9), 0.0);
    }

    #[test]
    fn kills_stand_in_their_half_second_leaders_behind() {
        let kills = [kill(true, 1_700), kill(false, 1_500), kill(false, 2_600)];
        assert_eq!(histogram(&kills), " 1.5 s  #L\n 2.0 s  \n 2.5 s  #\n");
    }
}
