//! Settings: the command line over the environment over the project's `nexa.toml` over defaults.

pub(crate) mod cluster;
mod embedding;
mod pages;

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

use nexa_cli::args::ModelArgs;
use nexa_cli::failure::Failure;
use nexa_lang::{Price, Prices};
use nexa_ports::model::LaneLimits;
use nexa_sched::{LoadBalanceStrategy, SchedulerConfig};
use nexa_types::{Millis, TenantId, UsdMicro};
use serde::Deserialize;

use cluster::ClusterSettings;
pub(crate) use embedding::Embedding;
use embedding::EmbeddingSettings;
use pages::PageSettings;

/// The model of agents that name none.
pub(crate) const MODEL_DEFAULT: &str = "local/smollm2-135m-instruct";
/// The provider whose models run in this process.
pub(crate) const PROVIDER_LOCAL: &str = "local";
/// Requests at once to an endpoint that says nothing else.
const SLOTS_DEFAULT: usize = 16;
/// How much more than the least of them one tenant may weigh. Beyond it the others would hardly have a turn.
const WEIGHT_MAX: u32 = 1_000;
/// The most that a time slice may be, in milliseconds: nobody is heard by an agent that computes before its slice is over.
const TIME_SLICE_MAX_MS: u64 = 1_000;

/// A project's `nexa.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Project {
    /// The model of agents that name none, as `provider/name`.
    pub(crate) model: Option<String>,
    /// Endpoints by provider.
    #[serde(default)]
    pub(crate) providers: BTreeMap<String, Provider>,
    /// What makes vectors of texts.
    #[serde(default)]
    embedding: EmbeddingSettings,
    /// Where pages of what agents remember are kept.
    #[serde(default)]
    pub(crate) pages: PageSettings,
    /// What the process may take.
    #[serde(default)]
    pub(crate) node: NodeSettings,
    /// Who is next, and for how long.
    #[serde(default)]
    scheduler: SchedulerSettings,
    /// What is said of tenants.
    #[serde(default)]
    tenants: BTreeMap<String, TenantSettings>,
    /// What tools may reach.
    #[serde(default)]
    pub(crate) tools: ToolSettings,
    /// The cluster that its nodes are of.
    #[serde(default)]
    pub(crate) cluster: ClusterSettings,
}

/// What the process of a node may take.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeSettings {
    /// Resident memory that it tries to stay below, in MiB; without it agents stay in memory until they have been idle.
    pub(crate) memory_mib: Option<NonZeroU64>,
}

impl NodeSettings {
    /// The same in bytes.
    pub(crate) fn memory_max(&self) -> Option<u64> {
        self.memory_mib.map(|mib| mib.get().saturating_mul(1 << 20))
    }
}

/// Who is next, and for how long.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SchedulerSettings {
    /// Agents at work at the same time; further ones begin later.
    max_concurrent_agents: Option<NonZeroUsize>,
    /// Into how many levels the 256 priorities fall.
    priority_levels: Option<NonZeroU8>,
    /// How long an agent computes before another has its turn, in milliseconds.
    time_slice_ms: Option<NonZeroU64>,
    /// Who is next.
    strategy: Option<String>,
}

/// Strategies by the names that they have in `nexa.toml`.
const STRATEGIES: [(&str, LoadBalanceStrategy); 5] = [
    ("adaptive", LoadBalanceStrategy::Adaptive),
    ("round-robin", LoadBalanceStrategy::RoundRobin),
    ("least-loaded", LoadBalanceStrategy::LeastLoaded),
    ("weighted-fair", LoadBalanceStrategy::WeightedFair),
    ("priority", LoadBalanceStrategy::PriorityBased),
];

/// What is said of one tenant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantSettings {
    /// Its share of what is scarce, beside 1 for a tenant that is not named.
    weight: Option<u32>,
}

/// What the tools of a project may reach. What stands right here is the local tenant's, whose is whatever a node without
/// tokens runs; another tenant has what its own table says, and without one nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolSettings {
    /// The folder below which they may see files, relative to `nexa.toml`; without it they see none.
    files: Option<PathBuf>,
    /// Whether they may write there, too.
    #[serde(default)]
    write: bool,
    /// What those of a tenant may reach.
    #[serde(default)]
    tenants: BTreeMap<String, TenantTools>,
}

/// What the tools of one tenant may reach.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantTools {
    files: PathBuf,
    #[serde(default)]
    write: bool,
}

/// The folder of a tenant's tools.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Folder<'a> {
    pub(crate) path: &'a Path,
    pub(crate) write: bool,
}

impl std::fmt::Display for Folder<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}{}", self.path.display(), if self.write { ", to write" } else { "" })
    }
}

impl ToolSettings {
    /// The folder of each tenant that has one.
    pub(crate) fn folders(&self) -> Result<BTreeMap<TenantId, Folder<'_>>, Failure> {
        let mut folders: BTreeMap<TenantId, Folder<'_>> = BTreeMap::new();
        for (name, tools) in &self.tenants {
            let tenant = TenantId::new(name)
                .map_err(|error| Failure::error(format!("[tools.tenants.{name:?}] in nexa.toml: {error}")))?;
            folders.insert(tenant, Folder { path: &tools.files, write: tools.write });
        }
        if self.write && self.files.is_none() {
            return Err(Failure::error("`write` under `[tools]` in nexa.toml means nothing without `files`")
                .hint("name the folder that the local tenant's tools may write to"));
        }
        if let Some(files) = &self.files
            && folders.insert(TenantId::local(), Folder { path: files, write: self.write }).is_some()
        {
            let twice = "nexa.toml names two folders for the tools of the local tenant";
            return Err(Failure::error(twice)
                .hint("`files` under `[tools]` is that of the local tenant: leave it or `[tools.tenants.local]` out"));
        }
        Ok(folders)
    }

    /// The same with folders as seen from elsewhere than `nexa.toml`.
    fn below(mut self, folder: &Path) -> Self {
        let folders = self.files.iter_mut().chain(self.tenants.values_mut().map(|tools| &mut tools.files));
        folders.for_each(|files| *files = folder.join(&*files));
        self
    }
}

/// An OpenAI-compatible endpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Provider {
    /// The URL up to and with the version.
    pub(crate) url: String,
    /// The variable that holds the key; `PROVIDER_API_KEY` if not set.
    pub(crate) key_env: Option<String>,
    /// Requests at once.
    pub(crate) concurrency: Option<NonZeroUsize>,
    /// Requests a minute; without it, as many as there are.
    pub(crate) requests_per_minute: Option<NonZeroU64>,
    /// Tokens a minute that its models read; without it, as many as there are.
    pub(crate) input_tokens_per_minute: Option<NonZeroU64>,
    /// Tokens a minute that its models write; without it, as many as there are.
    pub(crate) output_tokens_per_minute: Option<NonZeroU64>,
    /// US dollars for a million tokens read.
    #[serde(default)]
    pub(crate) usd_per_million_in: f64,
    /// US dollars for a million tokens written.
    #[serde(default)]
    pub(crate) usd_per_million_out: f64,
}

impl Provider {
    /// What the endpoint takes at once and in a minute.
    pub(crate) fn limits(&self) -> LaneLimits {
        LaneLimits {
            concurrency: self.concurrency.map_or(SLOTS_DEFAULT, NonZeroUsize::get),
            requests_per_minute: self.requests_per_minute.map(NonZeroU64::get),
            input_tokens_per_minute: self.input_tokens_per_minute.map(NonZeroU64::get),
            output_tokens_per_minute: self.output_tokens_per_minute.map(NonZeroU64::get),
        }
    }

    /// The price of a million tokens read and written.
    pub(crate) fn price(&self) -> (UsdMicro, UsdMicro) {
        let micro = |usd: f64| UsdMicro((usd.max(0.0) * 1e6).round() as u64);
        (micro(self.usd_per_million_in), micro(self.usd_per_million_out))
    }
}

impl Project {
    /// The project that a folder belongs to: the nearest `nexa.toml` in it or above it, or an empty one.
    pub(crate) fn find(folder: &Path) -> Result<Self, Failure> {
        let Some(file) = folder.ancestors().map(|folder| folder.join("nexa.toml")).find(|file| file.is_file()) else {
            return Ok(Self::default());
        };
        let wrong = |why: String| Failure::error(format!("cannot read {}: {why}", file.display()));
        let text = std::fs::read_to_string(&file).map_err(|error| wrong(error.to_string()))?;
        let mut project: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if let Some(folder) = file.parent() {
            project.tools = project.tools.below(folder);
            project.cluster = project.cluster.below(folder);
            project.pages = project.pages.below(folder);
        }
        Ok(project)
    }

    /// The weight of each tenant that has one.
    pub(crate) fn weights(&self) -> Result<BTreeMap<TenantId, u32>, Failure> {
        let mut weights = BTreeMap::new();
        for (name, settings) in &self.tenants {
            let tenant = TenantId::new(name)
                .map_err(|error| Failure::error(format!("[tenants.{name:?}] in nexa.toml: {error}")))?;
            let Some(weight) = settings.weight else { continue };
            if !(1..=WEIGHT_MAX).contains(&weight) {
                let wrong =
                    format!("the weight of the tenant `{name}` in nexa.toml is {weight}, not 1 to {WEIGHT_MAX}");
                return Err(Failure::error(wrong)
                    .hint("a tenant that is not named weighs 1; one of weight 2 has twice its share"));
            }
            weights.insert(tenant, weight);
        }
        Ok(weights)
    }

    /// What the project says of scheduling, over the defaults.
    pub(crate) fn scheduler(&self) -> Result<SchedulerConfig, Failure> {
        let SchedulerSettings { max_concurrent_agents, priority_levels, time_slice_ms, strategy } = &self.scheduler;
        let mut config = SchedulerConfig::default();
        if let Some(max) = max_concurrent_agents {
            config.max_concurrent_agents = max.get();
        }
        if let Some(levels) = priority_levels {
            config.priority_levels = levels.get();
        }
        if let Some(slice) = time_slice_ms {
            if slice.get() > TIME_SLICE_MAX_MS {
                let wrong = format!(
                    "`time_slice_ms` under `[scheduler]` in nexa.toml is {slice}, not 1 to {TIME_SLICE_MAX_MS}"
                );
                return Err(
                    Failure::error(wrong).hint("an agent that computes hears of nothing before its slice is over")
                );
            }
            config.time_slice = Millis(slice.get());
        }
        if let Some(name) = strategy {
            let known = STRATEGIES.iter().find(|(known, _)| known == name);
            config.load_balance_strategy = known.map(|(_, strategy)| *strategy).ok_or_else(|| {
                let known = STRATEGIES.map(|(known, _)| format!("\"{known}\"")).join(", ");
                Failure::error(format!("`strategy` under `[scheduler]` in nexa.toml is \"{name}\", not one of {known}"))
                    .hint("\"adaptive\" is what is used without it")
            })?;
        }
        Ok(config)
    }

    /// What makes vectors of texts.
    pub(crate) fn embedding(&self) -> Result<Embedding<'_>, Failure> {
        self.embedding.choose(&self.providers)
    }

    /// What models cost: those of each provider with a price, and the default model. The models of this process cost
    /// nothing; a project that names no price is told nothing of money.
    pub(crate) fn prices(&self) -> Prices {
        let of_provider = |provider: &str| match self.providers.get(provider).map(Provider::price) {
            Some((UsdMicro(0), UsdMicro(0))) => None,
            Some((input, output)) => Some(Price { input, output, window: None }),
            None if provider == PROVIDER_LOCAL => Some(Price::default()),
            None => None,
        };
        let mut prices = Prices::new();
        for provider in self.providers.keys() {
            prices.extend(of_provider(provider).map(|price| (format!("{provider}/"), price)));
        }
        if !prices.is_empty() {
            let default = self.model.as_deref().unwrap_or(MODEL_DEFAULT);
            let default = default.split_once('/').and_then(|(provider, _)| of_provider(provider));
            prices.extend(default.map(|price| (String::new(), price)));
            prices.insert(format!("{PROVIDER_LOCAL}/"), Price::default());
        }
        prices
    }

    /// The same with what the command line says.
    pub(crate) fn with(mut self, args: &ModelArgs) -> Result<Self, Failure> {
        if args.model.is_some() {
            self.model.clone_from(&args.model);
        }
        for endpoint in &args.endpoint {
            let (provider, url) = endpoint
                .split_once('=')
                .filter(|(provider, url)| !provider.is_empty() && !provider.contains('/') && !url.is_empty())
                .ok_or_else(|| {
                    Failure::usage(format!("--endpoint {endpoint} is not of the form PROVIDER=URL"))
                        .hint("for example --endpoint acme=https://models.acme.example/v1")
                })?;
            if provider == PROVIDER_LOCAL {
                return Err(Failure::usage("the provider `local` is this machine; give the endpoint another name"));
            }
            let known = self.providers.remove(provider);
            let url = url.to_owned();
            let provider_config = match known {
                Some(known) => Provider { url, ..known },
                None => Provider {
                    url,
                    key_env: None,
                    concurrency: None,
                    requests_per_minute: None,
                    input_tokens_per_minute: None,
                    output_tokens_per_minute: None,
                    usd_per_million_in: 0.0,
                    usd_per_million_out: 0.0,
                },
            };
            self.providers.insert(provider.to_owned(), provider_config);
        }
        Ok(self)
    }
}

/// The variable that holds a provider's key.
pub(crate) fn key_variable(provider: &str, config: &Provider) -> String {
    config.key_env.clone().unwrap_or_else(|| {
        let name: String =
            provider.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        format!("{name}_API_KEY")
    })
}

/// The user's folder for what programs keep: `$XDG_DATA_HOME/nexa`, or `~/.local/share/nexa`.
fn user_folder() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .map(|folder| folder.join("nexa"))
        .ok_or_else(|| Failure::error("neither HOME nor XDG_DATA_HOME is set").hint("say where data goes with --data"))
}

/// Where a node keeps its data.
pub(crate) fn data_folder(given: Option<&Path>) -> Result<PathBuf, Failure> {
    match given {
        Some(folder) => Ok(folder.to_path_buf()),
        None => user_folder().map(|folder| folder.join("data")),
    }
}

/// Where weights are.
pub(crate) fn models_folder(given: Option<&Path>) -> Result<PathBuf, Failure> {
    match given {
        Some(folder) => Ok(folder.to_path_buf()),
        None => user_folder().map(|folder| folder.join("models")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_the_file() {
        let project: Project = toml::from_str(
            "model = \"acme/small\"\n[providers.acme]\nurl = \"https://old.example/v1\"\nconcurrency = 3\n",
        )
        .expect("the file is right");
        let args = ModelArgs {
            model: Some("acme/large".into()),
            endpoint: vec!["acme=https://new.example/v1".into()],
            ..ModelArgs::default()
        };
        let project = project.with(&args).expect("the arguments are right");
        assert_eq!(project.model.as_deref(), Some("acme/large"));
        assert_eq!(project.providers["acme"].url, "https://new.example/v1");
        assert_eq!(project.providers["acme"].limits(), LaneLimits::at_once(3));
    }

    #[test]
    fn models_cost_what_their_provider_says() {
        let prices = |text: &str| toml::from_str::<Project>(text).expect("the file is right").prices();
        let acme =
            "[providers.acme]\nurl = \"https://x.example/v1\"\nusd_per_million_in = 0.5\nusd_per_million_out = 1.25\n";
        let paid = Price { input: UsdMicro(500_000), output: UsdMicro(1_250_000), window: None };
        let (free, all) = (Price::default(), |name: &str| name.to_owned());
        assert_eq!(prices(acme), Prices::from([(all(""), free), (all("acme/"), paid), (all("local/"), free)]));
        let default = format!("model = \"acme/small\"\n{acme}");
        assert_eq!(prices(&default), Prices::from([(all(""), paid), (all("acme/"), paid), (all("local/"), free)]));
        let other = format!("model = \"other/small\"\n{acme}");
        assert_eq!(prices(&other), Prices::from([(all("acme/"), paid), (all("local/"), free)]));
        assert_eq!(prices("[providers.acme]\nurl = \"https://x.example/v1\"\n"), Prices::new());
    }

    #[test]
    fn an_endpoint_has_budgets_and_none_of_them_is_nothing() {
        let read = |text: &str| toml::from_str::<Provider>(&format!("url = \"https://x.example/v1\"\n{text}"));
        let limits = |text: &str| read(text).map(|provider| provider.limits()).map_err(|error| error.to_string());
        assert_eq!(limits(""), Ok(LaneLimits::at_once(SLOTS_DEFAULT)));
        let text = "requests_per_minute = 60\ninput_tokens_per_minute = 30_000\noutput_tokens_per_minute = 8_000";
        let budgets = LaneLimits {
            requests_per_minute: Some(60),
            input_tokens_per_minute: Some(30_000),
            output_tokens_per_minute: Some(8_000),
            ..LaneLimits::at_once(SLOTS_DEFAULT)
        };
        assert_eq!(limits(text), Ok(budgets));
        for name in ["concurrency", "requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute"] {
            for wrong in ["0", "-1", "1.5"] {
                let said = limits(&format!("{name} = {wrong}")).expect_err("nothing, or nonsense");
                assert!(said.contains(name), "{said}");
            }
        }
    }

    #[test]
    fn a_tenant_has_a_weight_within_bounds() {
        let weights = |text: &str| toml::from_str::<Project>(text).expect("the file is right").weights();
        let team = TenantId::new("team-a").expect("a name");
        assert_eq!(weights("[tenants.team-a]\nweight = 3\n[tenants.team-b]\n").ok(), Some(BTreeMap::from([(team, 3)])));
        assert!(weights("[tenants.team-a]\nweight = 0").is_err());
        assert!(weights("[tenants.team-a]\nweight = 1001").is_err());
        assert!(weights("[tenants.\"team a\"]\nweight = 2").is_err());
        assert!(toml::from_str::<Project>("[tenants.a]\nwieght = 2").is_err());
    }

    #[test]
    fn scheduling_is_what_is_written_or_usual() {
        let read = |text: &str| -> Result<SchedulerConfig, String> {
            let project = toml::from_str::<Project>(text).map_err(|error| error.message().to_owned())?;
            project.scheduler().map_err(|failure| failure.to_string())
        };
        assert_eq!(read(""), Ok(SchedulerConfig::default()));
        let all = "[scheduler]\nmax_concurrent_agents = 50\npriority_levels = 3\ntime_slice_ms = 5\nstrategy = \"weighted-fair\"";
        let expected = SchedulerConfig {
            max_concurrent_agents: 50,
            priority_levels: 3,
            time_slice: Millis(5),
            load_balance_strategy: LoadBalanceStrategy::WeightedFair,
        };
        assert_eq!(read(all), Ok(expected));
        for (name, strategy) in STRATEGIES {
            let config = read(&format!("[scheduler]\nstrategy = \"{name}\"")).expect("it is known");
            assert_eq!(config.load_balance_strategy, strategy);
        }
        let told = read("[scheduler]\nstrategy = \"fair\"").expect_err("there is no such strategy");
        assert!(told.contains("\"weighted-fair\""), "{told}");
        for wrong in [
            "max_concurrent_agents = 0",
            "priority_levels = 0",
            "priority_levels = 256",
            "time_slice_ms = 0",
            "time_slice_ms = 1001",
            "stratgy = \"adaptive\"",
        ] {
            assert!(read(&format!("[scheduler]\n{wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_is_some_or_unlimited_and_never_none() {
        let read = |text: &str| toml::from_str::<Project>(text).map(|project| project.node.memory_max());
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("[node]\nmemory_mib = 512"), Ok(Some(512 << 20)));
        assert!(read("[node]\nmemory_mib = 0").is_err());
        assert!(read("[node]\nmemory = 512").is_err());
    }

    #[test]
    fn a_misspelt_setting_is_an_error() {
        assert!(toml::from_str::<Project>("modle = \"x/y\"").is_err());
    }

    #[test]
    fn a_folder_of_tools_is_one_tenants() {
        let read =
            |text: &str| toml::from_str::<Project>(text).expect("the file is right").tools.below(Path::new("/p"));
        let shown = |settings: &ToolSettings| -> Result<Vec<String>, String> {
            let folders = settings.folders().map_err(|failure| failure.to_string())?;
            Ok(folders.iter().map(|(tenant, folder)| format!("{tenant} {folder}")).collect())
        };
        assert_eq!(shown(&read("")), Ok(vec![]));
        assert_eq!(shown(&read("[tools]\nfiles = \"notes\"")), Ok(vec!["local /p/notes".to_owned()]));
        let two = read("[tools]\nfiles = \".\"\n[tools.tenants.team-a]\nfiles = \"/srv/a\"");
        assert_eq!(shown(&two), Ok(vec!["local /p/.".to_owned(), "team-a /srv/a".to_owned()]));
        assert!(shown(&read("[tools]\nfiles = \".\"\n[tools.tenants.local]\nfiles = \"x\"")).is_err());
        let written = read("[tools]\nfiles = \"notes\"\nwrite = true");
        assert_eq!(shown(&written), Ok(vec!["local /p/notes, to write".to_owned()]));
        assert!(shown(&read("[tools]\nwrite = true")).is_err());
        assert!(shown(&read("[tools.tenants.\"team a\"]\nfiles = \"x\"")).is_err());
        assert!(toml::from_str::<Project>("[tools.tenants.a]\nfile = \"x\"").is_err());
    }

    #[test]
    fn a_key_is_looked_for_under_the_providers_name() {
        let provider: Provider = toml::from_str("url = \"https://x.example/v1\"").expect("the file is right");
        assert_eq!(key_variable("my-acme", &provider), "MY_ACME_API_KEY");
    }
}
