//! Which adapter stands behind which port.
//!
//! ```text
//! store, views, memories ─ SQLite in the data folder │ PostgreSQL      model ─ script │ embedded + endpoints, by name
//! clock, dice  ─ the operating system           doors ─ the mediator over gRPC
//! tools        ─ those that come with the node  neighbours ─ none │ the cluster
//! ```
//!
//! [`wire`] makes a node without others; one among others is put together of the same parts in [`crate::cluster`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nexa_cli::args::ModelArgs;
use nexa_cli::failure::{Exit, Failure};
use nexa_gateway::admission::{Admission, AdmitLimits};
use nexa_gateway::doors::{Bound, Cover, DoorConfig, Gateway, Listen, Served};
use nexa_gateway::fleet::{Fleet, Lone};
use nexa_gateway::handlers::Handlers;
use nexa_gateway::host::Host;
use nexa_gateway::mediator::{Mediator, Tokens};
use nexa_llm::embedded::{EmbeddedModel, ModelStore, processor_note};
use nexa_llm::embedding::{EmbeddingModel, Remembering};
use nexa_llm::openai::embeddings::EmbeddingEndpoint;
use nexa_llm::openai::{ApiKey, Endpoint, EndpointConfig};
use nexa_llm::router::Router;
use nexa_llm::script::{Script, ScriptedModel};
use nexa_ports::clock::{Clock, SystemClock};
use nexa_ports::dice::SystemDice;
use nexa_ports::embedder::Embedder;
use nexa_ports::model::Model;
use nexa_ports::neighbours::{Alone, Neighbours};
use nexa_remember::Remembrance;
use nexa_runtime::fence::Always;
use nexa_runtime::{Node, NodeConfig, Ports};
use nexa_telemetry::Probes;
use nexa_tools::Builtins;
use nexa_types::NodeId;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::STACK_BYTES;
use crate::anchoring::Anchoring;
use crate::backend::Backend;
use crate::chain;
use crate::config::{self, Embedding, Project, Provider};
use crate::remembering;

/// A script's memory of which turns it used, in the data folder.
const SCRIPT_JOURNAL: &str = "script.journal";

/// How long calls, watches and model calls under way have to end when a node stops.
const GRACE: Duration = Duration::from_secs(5);
/// Processors for each thread that answers calls.
const PROCESSORS_PER_DOOR_THREAD: usize = 4;

/// A node with everything behind it and a door before it.
pub(crate) struct Wired {
    /// How to reach it, as `--server` takes it.
    pub(crate) address: String,
    /// Its door, for who is in the same process.
    pub(crate) beside: Routes,
    node: Node,
    backend: Backend,
    /// Ended after the node.
    anchoring: Option<Anchoring>,
    remembrance: Remembrance,
    closing: CancellationToken,
    shutdown: CancellationToken,
    door: JoinHandle<Result<(), tonic::transport::Error>>,
    /// Gone after the door.
    _porch: Arc<Porch>,
}

/// Threads of their own for the doors. However many come and are refused, they take no turns from the agents: beside
/// those who ask, an agent would wait for as many others at every step as there are calls.
pub(crate) struct Porch {
    threads: Handle,
    own: Option<Runtime>,
}

impl Porch {
    /// As many threads as there is use for.
    pub(crate) fn build() -> Result<Self, Failure> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = (processors / PROCESSORS_PER_DOOR_THREAD).max(1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("nexa-door")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| Failure::error(format!("the doors get no threads: {error}")))?;
        Ok(Self { threads: runtime.handle().clone(), own: Some(runtime) })
    }

    /// The caller's threads, for the door of a node that a command has for itself. Hardly anybody else comes, and each way
    /// to another thread and back would be a good part of a short run.
    pub(crate) fn shared() -> Self {
        Self { threads: Handle::current(), own: None }
    }

    /// Whether strangers come, who have to be told what there is to ask for.
    fn is_public(&self) -> bool {
        self.own.is_some()
    }
}

impl Drop for Porch {
    fn drop(&mut self) {
        if let Some(runtime) = self.own.take() {
            // Its tasks may hold the store: they are dropped, and nobody waits for them here.
            runtime.shutdown_background();
        }
    }
}

/// Which node it is, and who may come in; without tokens whoever reaches the door.
pub(crate) struct Who {
    pub(crate) name: NodeId,
    pub(crate) tokens: Option<Tokens>,
}

impl Who {
    /// The one node of a laptop.
    pub(crate) fn local(tokens: Option<Tokens>) -> Self {
        Self { name: NodeId::new("local").expect("the name is a constant that is a name"), tokens }
    }
}

/// Opens the data folder, starts a node on it, and opens its door: to everybody who can reach it, or to who shows one of the
/// tokens.
pub(crate) async fn wire(
    data: &Path,
    project: &Project,
    args: &ModelArgs,
    who: Who,
    (listen, cover): (&Listen, &Cover),
    porch: Porch,
) -> Result<Wired, Failure> {
    let Who { name, tokens } = who;
    let backend = Backend::sqlite(data)?;
    let ports = ports(&backend, project, Arc::new(router(Some(data), project, args)?))?;
    // Before anything is done with it.
    let anchoring = Anchoring::beside(data, Arc::clone(&backend.audit), Arc::clone(&ports.clock)).await?;
    let node_name = name.clone();
    let node = start(node_config(name, project)?, ports.clone()).await?;
    let bound = listen.bind_behind(cover).await.map_err(|error| Failure::error(chain(&error)))?;
    let fleet = Lone::new(Arc::new(node.clone()), bound.address());
    let of = remembering::Of { node: &node_name, data: Some(data), models: args.models_dir.as_deref() };
    let remembrance = remembering::start(of, project, &ports, &backend.writing).await?;
    let before = Before { tokens: tokens.map(Arc::new), fleet: Arc::new(fleet), neighbours: None, remembrance };
    let wired = open(node, backend, &ports, before, bound, Arc::new(porch)).await?;
    Ok(Wired { anchoring: Some(anchoring), ..wired })
}

/// What stands before a node.
pub(crate) struct Before {
    /// Who may come in; `None` for whoever reaches the door.
    pub(crate) tokens: Option<Arc<Tokens>>,
    /// The nodes that operators see.
    pub(crate) fleet: Arc<dyn Fleet>,
    /// The other nodes, if it is one among others.
    pub(crate) neighbours: Option<Arc<dyn Neighbours>>,
    /// What agents remember.
    pub(crate) remembrance: Remembrance,
}

/// What a node without others has to do with the outside.
pub(crate) fn ports(backend: &Backend, project: &Project, model: Arc<dyn Model>) -> Result<Ports, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    Ok(Ports {
        store: Arc::clone(&backend.store),
        memories: Arc::clone(&backend.memories),
        model,
        tools: Arc::new(tools(project, &clock)?),
        clock,
        dice: Arc::new(SystemDice),
        neighbours: Arc::new(Alone),
        fence: Arc::new(Always),
    })
}

/// The settings of a node by a project.
pub(crate) fn node_config(name: NodeId, project: &Project) -> Result<NodeConfig, Failure> {
    let (tenant_weights, memory_max) = (project.weights()?, project.node.memory_max());
    Ok(NodeConfig { scheduler: project.scheduler()?, tenant_weights, memory_max, ..NodeConfig::new(name) })
}

/// Starts a node.
pub(crate) async fn start(config: NodeConfig, ports: Ports) -> Result<Node, Failure> {
    Node::start(config, ports).await.map_err(|error| Failure::error(chain(&error)))
}

/// Opens the door before a node.
pub(crate) async fn open(
    node: Node,
    backend: Backend,
    ports: &Ports,
    before: Before,
    bound: Bound,
    porch: Arc<Porch>,
) -> Result<Wired, Failure> {
    let Before { tokens, fleet, neighbours, remembrance } = before;
    let host: Arc<dyn Host> = Arc::new(node.clone());
    let (clock, dice) = (&ports.clock, &ports.dice);
    let (store, views) = (Arc::clone(&backend.store), Arc::clone(&backend.views));
    let handlers = Handlers::new(store, views, Arc::clone(&host), Arc::clone(clock)).fleet(fleet);
    let mut handlers = handlers.remembering(remembrance.clone());
    if let Some(neighbours) = neighbours {
        handlers = handlers.among(neighbours);
    }
    let admission = Admission::new(host, AdmitLimits::default(), Arc::clone(clock), Arc::clone(dice));
    let closing = handlers.closing().clone();
    let mut mediator = Mediator::builder(handlers.into_end(), Arc::clone(clock), Arc::clone(dice)).admission(admission);
    if let Some(tokens) = tokens {
        mediator = mediator.tokens(tokens);
    }
    let mediator = mediator.build();
    let shutdown = CancellationToken::new();
    let config = DoorConfig { grace: GRACE, reflection: porch.is_public(), ..DoorConfig::default() };
    let (gateway, stop) = (Gateway::new(mediator, closing.clone()), shutdown.clone());
    let served = porch.threads.spawn(async move { gateway.serve_at(bound, config, stop).await });
    let served = served.await.map_err(|error| Failure::error(chain(&error)))?;
    let Served { address, beside, done: door } = served;
    let anchoring = None;
    Ok(Wired { address, beside, node, backend, anchoring, remembrance, closing, shutdown, door, _porch: porch })
}

impl Wired {
    /// What monitors may ask. They hold on to the node: close their door after `stop`, and before the process ends.
    pub(crate) fn probes(&self) -> Probes {
        let (node, trouble) = (self.node.clone(), Arc::clone(&self.backend.trouble));
        let remembrance = self.remembrance.clone();
        Probes {
            name: None,
            cluster: None,
            stats: Box::new(move || node.stats()),
            remembering: Box::new(move || remembrance.standing()),
            store_trouble: Box::new(move || trouble()),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// Waits until the node cannot go on; gives what to tell the user.
    pub(crate) async fn failed(&self) -> Failure {
        let broken = async {
            match &self.anchoring {
                Some(anchoring) => anchoring.broken().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.node.failed() => {}
            failure = broken => return failure,
            why = (self.backend.broken)() => {
                let message = format!("the store takes no more writes: {why}");
                let failure = Failure { exit: Exit::StoreFailed, ..Failure::error(message) };
                return failure.hint("what was acknowledged is kept: see to the disk, then start the node again");
            }
        }
        Failure::error("the node cannot go on: one of its services failed too often; the log says which and why")
            .hint("nothing that was recorded is lost: give the same command again")
    }

    /// Takes no new work from here on, and says so; looking, cancelling and answering go on.
    pub(crate) fn close_to_work(&self) {
        self.closing.cancel();
    }

    /// Closes the door, lets what is in flight end, and stops the node. Whatever does not end in time goes on at the next
    /// start.
    pub(crate) async fn stop(self) {
        self.stop_within(GRACE).await;
    }

    /// The same with another time for what is in flight.
    pub(crate) async fn stop_within(self, grace: Duration) {
        self.shutdown.cancel();
        self.node.drain(grace).await;
        // A door that fails while it closes is closed.
        let _ = self.door.await;
        self.remembrance.stop(grace).await;
        if let Some(anchoring) = self.anchoring {
            anchoring.stop().await;
        }
    }
}

/// The tools that come with the node, with files for each tenant below the folder that the project names for it.
fn tools(project: &Project, clock: &Arc<dyn Clock>) -> Result<Builtins, Failure> {
    let mut builtins = Builtins::new(Arc::clone(clock));
    for (tenant, folder) in project.tools.folders()? {
        builtins = builtins.with_files(tenant.clone(), folder.path).map_err(|error| {
            Failure::error(format!("cannot open {}, the folder of the tools: {error}", folder.path.display()))
                .hint("make the folder, or change `files` under `[tools]` in nexa.toml")
        })?;
        if folder.write {
            builtins = builtins.with_writer(tenant);
        }
    }
    Ok(builtins)
}

/// The models by provider. A script remembers in the data folder which turns it used; without one it begins anew.
pub(crate) fn router(data: Option<&Path>, project: &Project, args: &ModelArgs) -> Result<Router, Failure> {
    let default = project.model.clone().unwrap_or_else(|| config::MODEL_DEFAULT.to_owned());
    let local = [config::PROVIDER_LOCAL.to_owned()];
    nexa_runtime::genai::know(project.providers.keys().cloned().chain(local), &default);
    if let Some(file) = &args.script {
        return Ok(Router::new(default).scripted(Arc::new(script(data, file)?)));
    }
    let embedded = EmbeddedModel::new(ModelStore::new(config::models_folder(args.models_dir.as_deref())?));
    let mut router = Router::new(default.clone()).with(config::PROVIDER_LOCAL, Arc::new(embedded));
    for (name, provider) in &project.providers {
        let endpoint = Endpoint::new(endpoint_config(name, provider));
        router = router.with(name.clone(), Arc::new(endpoint.map_err(|error| Failure::error(chain(&error)))?));
    }
    let is_local = default.split_once('/').is_some_and(|(provider, _)| provider == config::PROVIDER_LOCAL);
    if let Some(note) = processor_note().filter(|_| is_local) {
        tracing::warn!("{note}");
    }
    Ok(router)
}

fn endpoint_config(name: &str, provider: &Provider) -> EndpointConfig {
    let variable = config::key_variable(name, provider);
    let key = std::env::var(&variable).ok().filter(|key| !key.is_empty());
    EndpointConfig {
        provider: name.to_owned(),
        base_url: provider.url.clone(),
        key: key.map(|key| (ApiKey::new(key), format!("the variable {variable}"))),
        limits: provider.limits(),
        price: provider.price(),
    }
}

/// What makes vectors of texts, behind a memory of them; `None` where a project wants none. Weights that are not there are
/// missed by the first call, which says so once.
pub(crate) fn embedder(project: &Project, models: Option<&Path>) -> Result<Option<Arc<dyn Embedder>>, Failure> {
    Ok(match project.embedding()? {
        Embedding::None => None,
        Embedding::Local => {
            let store = ModelStore::embedding(config::models_folder(models)?);
            Some(Arc::new(Remembering::new(EmbeddingModel::new(store))))
        }
        Embedding::Endpoint { name, provider, config } => {
            let endpoint = EmbeddingEndpoint::new(endpoint_config(name, provider), config);
            Some(Arc::new(Remembering::new(endpoint.map_err(|error| Failure::error(chain(&error)))?)))
        }
    })
}

fn script(data: Option<&Path>, file: &Path) -> Result<ScriptedModel, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::error(format!("cannot read the script {}: {error}", file.display())))?;
    let script = Script::parse(&text).map_err(|error| Failure::error(format!("{}: {error}", file.display())))?;
    let Some(data) = data else { return Ok(ScriptedModel::new(script)) };
    let journal = data.join(SCRIPT_JOURNAL);
    ScriptedModel::resuming(script, &journal).map_err(|error| Failure::error(chain(&error)))
}
