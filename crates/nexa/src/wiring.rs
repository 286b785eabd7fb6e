//! Which adapter stands behind which port.
//!
//! ```text
//! store, views, memories ─ SQLite in the data folder      model ─ script │ embedded + endpoints, by name
//! clock, dice  ─ the operating system           doors ─ the mediator over gRPC
//! tools        ─ those that come with the node
//! ```

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nexa_cli::args::ModelArgs;
use nexa_cli::failure::Failure;
use nexa_gateway::admission::{Admission, AdmitLimits};
use nexa_gateway::doors::{DoorConfig, Gateway, Listen};
use nexa_gateway::fleet::Lone;
use nexa_gateway::handlers::Handlers;
use nexa_gateway::host::Host;
use nexa_gateway::mediator::{Mediator, Tokens};
use nexa_llm::embedded::{EmbeddedModel, ModelStore, processor_note};
use nexa_llm::openai::{ApiKey, Endpoint, EndpointConfig};
use nexa_llm::router::Router;
use nexa_llm::script::{Script, ScriptedModel};
use nexa_ports::clock::{Clock, SystemClock};
use nexa_ports::dice::{Dice, SystemDice};
use nexa_runtime::{Node, NodeConfig, Ports};
use nexa_store::SqliteStore;
use nexa_telemetry::Probes;
use nexa_tools::Builtins;
use nexa_types::NodeId;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::STACK_BYTES;
use crate::chain;
use crate::config::{self, Project};

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
    node: Node,
    store: Arc<SqliteStore>,
    shutdown: CancellationToken,
    door: JoinHandle<Result<(), tonic::transport::Error>>,
    /// Gone after the door.
    _porch: Porch,
}

/// Threads of their own for the doors. However many come and are refused, they take no turns from the agents: beside
/// those who ask, an agent would wait for as many others at every step as there are calls.
struct Porch(Option<Runtime>);

impl Porch {
    fn build() -> Result<Self, Failure> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = (processors / PROCESSORS_PER_DOOR_THREAD).max(1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("nexa-door")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| Failure::error(format!("the doors get no threads: {error}")))?;
        Ok(Self(Some(runtime)))
    }

    fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.as_ref().expect("it is taken only when this is dropped").spawn(work)
    }
}

impl Drop for Porch {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Its tasks may hold the store: they are dropped, and nobody waits for them here.
            runtime.shutdown_background();
        }
    }
}

/// Opens the data folder, starts a node on it, and opens a door: to everybody who can reach it, or to who shows one of the
/// tokens.
pub(crate) async fn wire(
    data: &Path,
    project: &Project,
    args: &ModelArgs,
    tokens: Option<Tokens>,
    listen: &Listen,
) -> Result<Wired, Failure> {
    let store =
        SqliteStore::open(data, nexa_store::Options::default()).map_err(|error| Failure::error(chain(&error)))?;
    let store = Arc::new(store);
    let model = router(data, project, args)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let dice: Arc<dyn Dice> = Arc::new(SystemDice);
    let ports = Ports {
        store: Arc::clone(&store) as _,
        memories: Arc::clone(&store) as _,
        model: Arc::new(model),
        tools: Arc::new(tools(project, &clock)?),
        clock: Arc::clone(&clock),
        dice: Arc::clone(&dice),
        neighbours: Arc::new(nexa_ports::neighbours::Alone),
        fence: Arc::new(nexa_runtime::fence::Always),
    };
    let name = NodeId::new("local").expect("the name is a constant that is a name");
    let (tenant_weights, memory_max) = (project.weights()?, project.node.memory_max());
    let scheduler = project.scheduler()?;
    let config = NodeConfig { scheduler, tenant_weights, memory_max, ..NodeConfig::new(name) };
    let node = Node::start(config, ports).await.map_err(|error| Failure::error(chain(&error)))?;
    let host: Arc<dyn Host> = Arc::new(node.clone());
    let address = Arc::new(OnceLock::new());
    let fleet = Lone::new(Arc::clone(&host), Arc::clone(&clock), Arc::clone(&address));
    let handlers =
        Handlers::new(Arc::clone(&store) as _, Arc::clone(&store) as _, Arc::clone(&host), Arc::clone(&clock))
            .fleet(Arc::new(fleet));
    let admission = Admission::new(host, AdmitLimits::default(), Arc::clone(&clock), Arc::clone(&dice));
    let closing = handlers.closing().clone();
    let mut mediator = Mediator::builder(handlers.into_end(), clock, dice).admission(admission);
    if let Some(tokens) = tokens {
        mediator = mediator.tokens(Arc::new(tokens));
    }
    let mediator = mediator.build();
    let shutdown = CancellationToken::new();
    let config = DoorConfig { grace: GRACE, ..DoorConfig::default() };
    let porch = Porch::build()?;
    let (gateway, listen, stop) = (Gateway::new(mediator, closing), listen.clone(), shutdown.clone());
    let served = porch.spawn(async move { gateway.serve(&listen, config, stop).await });
    let served = served.await.map_err(|error| Failure::error(chain(&error)))?;
    let served = served.map_err(|error| Failure::error(chain(&error)))?;
    address.get_or_init(|| served.address.clone());
    Ok(Wired { address: served.address, node, store, shutdown, door: served.done, _porch: porch })
}

impl Wired {
    /// What monitors may ask. They hold on to the node: close their door after `stop`, and before the process ends.
    pub(crate) fn probes(&self) -> Probes {
        let (node, store) = (self.node.clone(), Arc::clone(&self.store));
        Probes {
            stats: Box::new(move || node.stats()),
            store_trouble: Box::new(move || store.trouble().map(|trouble| chain(&trouble))),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// Waits until the node cannot go on; gives what to tell the user.
    pub(crate) async fn failed(&self) -> Failure {
        self.node.failed().await;
        Failure::error("the node cannot go on: one of its services failed too often; the log says which and why")
            .hint("nothing that was recorded is lost: give the same command again")
    }

    /// Closes the door, lets what is in flight end, and stops the node. Whatever does not end in time goes on at the next
    /// start.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.node.drain(GRACE).await;
        // A door that fails while it closes is closed.
        let _ = self.door.await;
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

/// The models by provider.
fn router(data: &Path, project: &Project, args: &ModelArgs) -> Result<Router, Failure> {
    let default = project.model.clone().unwrap_or_else(|| config::MODEL_DEFAULT.to_owned());
    let local = [config::PROVIDER_LOCAL.to_owned()];
    nexa_runtime::genai::know(project.providers.keys().cloned().chain(local), &default);
    if let Some(file) = &args.script {
        return Ok(Router::new(default).scripted(Arc::new(script(data, file)?)));
    }
    let embedded = EmbeddedModel::new(ModelStore::new(config::models_folder(args.models_dir.as_deref())?));
    let mut router = Router::new(default.clone()).with(config::PROVIDER_LOCAL, Arc::new(embedded));
    for (name, provider) in &project.providers {
        let variable = config::key_variable(name, provider);
        let key = std::env::var(&variable).ok().filter(|key| !key.is_empty());
        let endpoint = Endpoint::new(EndpointConfig {
            provider: name.clone(),
            base_url: provider.url.clone(),
            key: key.map(|key| (ApiKey::new(key), format!("the variable {variable}"))),
            limits: provider.limits(),
            price: provider.price(),
        });
        router = router.with(name.clone(), Arc::new(endpoint.map_err(|error| Failure::error(chain(&error)))?));
    }
    let is_local = default.split_once('/').is_some_and(|(provider, _)| provider == config::PROVIDER_LOCAL);
    if let Some(note) = processor_note().filter(|_| is_local) {
        tracing::warn!("{note}");
    }
    Ok(router)
}

fn script(data: &Path, file: &Path) -> Result<ScriptedModel, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::error(format!("cannot read the script {}: {error}", file.display())))?;
    let script = Script::parse(&text).map_err(|error| Failure::error(format!("{}: {error}", file.display())))?;
    let journal = data.join(SCRIPT_JOURNAL);
    ScriptedModel::resuming(script, &journal).map_err(|error| Failure::error(chain(&error)))
}
