//! What a node of `nexa serve` is told: the command line over the environment over `[cluster]` in `nexa.toml`.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use nexa_cli::args::{LogArgs, ServeArgs};
use nexa_cli::failure::Failure;
use nexa_types::NodeId;
use serde::Deserialize;

/// The name of a cluster that has none.
const CLUSTER_DEFAULT: &str = "nexa";
/// Agents that a node takes if nobody says how many.
const AGENTS_MAX_DEFAULT: u64 = 1_000_000;
/// Bytes of a file that holds the address of a store.
const STORE_FILE_BYTES_MAX: u64 = 4 << 10;
/// Labels of a node.
const LABELS_MAX: usize = 16;

/// `[cluster]` in `nexa.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterSettings {
    /// Its name.
    name: Option<String>,
    /// Where etcd is.
    #[serde(default)]
    etcd: Vec<String>,
    /// A file that holds the address of the store: no password stands in `nexa.toml`.
    store_file: Option<PathBuf>,
    /// The folder with certificates.
    certs: Option<PathBuf>,
    /// What may be asked of its nodes.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Agents that a node takes.
    agents_max: Option<NonZeroU64>,
}

impl ClusterSettings {
    /// The database, etcd and the name of the cluster whose log is meant; `None` if no database was named.
    pub(crate) fn log(&self, args: &LogArgs) -> Result<Option<(String, Vec<String>, String)>, Failure> {
        let kept = args.store_file.as_deref().or(self.store_file.as_deref());
        let store = match (&args.store, kept) {
            (Some(text), _) => text.clone(),
            (None, Some(kept)) => read_short(kept)?,
            (None, None) => return Ok(None),
        };
        let etcd = if args.etcd.is_empty() { self.etcd.clone() } else { args.etcd.clone() };
        if etcd.is_empty() {
            return Err(Failure::usage("a cluster's anchors are in etcd, and nobody said where that is")
                .hint("say it with --etcd HOST:PORT; a node by itself keeps its things in a folder: --data DIR"));
        }
        let name = args.cluster.clone().or_else(|| self.name.clone());
        Ok(Some((store, etcd, name.unwrap_or_else(|| CLUSTER_DEFAULT.to_owned()))))
    }

    /// The same with files as seen from elsewhere than `nexa.toml`.
    pub(super) fn below(mut self, folder: &Path) -> Self {
        let files = self.store_file.iter_mut().chain(self.certs.iter_mut());
        files.for_each(|file| *file = folder.join(&*file));
        self
    }
}

/// What a node is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServeSettings {
    /// Its name.
    pub(crate) name: NodeId,
    /// By itself, or one of a cluster.
    pub(crate) place: Place,
    /// What may be asked of it.
    pub(crate) labels: BTreeMap<String, String>,
    /// Agents that it takes.
    pub(crate) agents_max: u64,
}

/// By itself, or one of a cluster.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// By itself, on a folder.
    Alone(PathBuf),
    /// One of a cluster.
    Among(ClusterPlace),
}

/// Which cluster, and how to be one of it.
#[derive(PartialEq, Eq)]
pub(crate) struct ClusterPlace {
    /// Its name.
    pub(crate) name: String,
    /// The URL of its database, which may hold a password.
    pub(crate) store: String,
    /// Where etcd is.
    pub(crate) etcd: Vec<String>,
    /// The folder with certificates.
    pub(crate) certs: PathBuf,
}

impl std::fmt::Debug for ClusterPlace {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, store: _, etcd, certs } = self;
        out.debug_struct("ClusterPlace")
            .field("name", name)
            .field("etcd", etcd)
            .field("certs", certs)
            .finish_non_exhaustive()
    }
}

impl ServeSettings {
    /// What arguments and `nexa.toml` say together.
    pub(crate) fn of(args: &ServeArgs, file: &ClusterSettings) -> Result<Self, Failure> {
        let name = match &args.name {
            Some(name) => name.clone(),
            None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        let name = NodeId::new(&name).map_err(|error| {
            Failure::usage(format!("`{name}` cannot be the name of a node: {error}")).hint("give it one with --name")
        })?;
        let etcd = if args.etcd.is_empty() { file.etcd.clone() } else { args.etcd.clone() };
        let store = Self::store(args, file)?;
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| store.starts_with(scheme));
        let place = match (etcd.is_empty(), is_url) {
            (true, false) => Place::Alone(folder(store)?),
            (true, true) => {
                return Err(Failure::usage("a store that others reach, and no etcd by which nodes find each other")
                    .hint("say where it is with --etcd HOST:PORT; a node by itself keeps its things in a folder"));
            }
            (false, false) => {
                let wrong = format!("nodes of a cluster cannot share the folder {}", folder(store)?.display());
                return Err(Failure::usage(wrong)
                    .hint("use one database for all: NEXA_STORE=postgres://USER:PASSWORD@HOST/DATABASE"));
            }
            (false, true) => {
                let certs = args.certs.clone().or_else(|| file.certs.clone()).ok_or_else(|| {
                    Failure::usage("nodes speak to each other over mutual TLS, and no certificates are given")
                        .hint("make them with `nexa certs`, and say where they are with --certs DIR")
                })?;
                let name = args.cluster.clone().or_else(|| file.name.clone());
                let name = name.unwrap_or_else(|| CLUSTER_DEFAULT.to_owned());
                Place::Among(ClusterPlace { name, store, etcd, certs })
            }
        };
        let mut labels = file.labels.clone();
        for label in &args.labels {
            let (name, value) = label.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
                Failure::usage(format!("--label {label} is not of the form NAME=VALUE"))
                    .hint("for example --label zone=eu")
            })?;
            labels.insert(name.to_owned(), value.to_owned());
        }
        if labels.len() > LABELS_MAX {
            return Err(Failure::usage(format!("a node has at most {LABELS_MAX} labels, not {}", labels.len())));
        }
        let agents_max = args.agents_max.or(file.agents_max).map_or(AGENTS_MAX_DEFAULT, NonZeroU64::get);
        Ok(Self { name, place, labels, agents_max })
    }

    /// The URL or folder that the store was said to be.
    fn store(args: &ServeArgs, file: &ClusterSettings) -> Result<String, Failure> {
        let kept = args.store_file.as_deref().or(file.store_file.as_deref());
        match (&args.store, kept) {
            (Some(text), _) => Ok(text.clone()),
            (None, Some(kept)) => read_short(kept),
            (None, None) => Err(Failure::usage("nobody said where to keep things").hint(
                "a folder with --store DIR, or a database with NEXA_STORE=postgres://USER:PASSWORD@HOST/DATABASE",
            )),
        }
    }
}

fn folder(text: String) -> Result<PathBuf, Failure> {
    match text.split_once("://") {
        Some((scheme, _)) => Err(Failure::usage(format!("there is no store of the kind `{scheme}`"))
            .hint("a store is a folder, or postgres://USER:PASSWORD@HOST/DATABASE")),
        None => Ok(text.into()),
    }
}

/// The text of a file that holds one line.
fn read_short(file: &Path) -> Result<String, Failure> {
    use std::io::Read;
    let unreadable = |error| Failure::error(format!("cannot read the store's address in {}: {error}", file.display()));
    let mut text = String::new();
    let open = std::fs::File::open(file).map_err(unreadable)?;
    open.take(STORE_FILE_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    let text = text.trim();
    if text.is_empty() || text.contains('\n') {
        return Err(Failure::error(format!("{} does not hold the address of a store", file.display()))
            .hint("one line: postgres://USER:PASSWORD@HOST/DATABASE"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use nexa_cli::args::{Cli, Command};

    fn settings(args: &[&str], toml: &str) -> Result<ServeSettings, Failure> {
        let name: &[&str] = if args.contains(&"--name") { &[] } else { &["--name", "a"] };
        let all = ["nexa", "serve"].iter().chain(name).chain(args);
        let Command::Serve(args) = Cli::try_parse_from(all).expect("good arguments").command else {
            panic!("it is `serve`")
        };
        ServeSettings::of(&args, &toml::from_str(toml).expect("a good file"))
    }

    #[track_caller]
    fn refused(args: &[&str], toml: &str, why: &str) {
        let failure = settings(args, toml).expect_err(why);
        assert!(failure.to_string().contains(why), "{failure}");
    }

    #[test]
    fn a_node_is_by_itself_or_one_of_a_cluster() {
        let alone = settings(&["--store", "data"], "").expect("a folder will do");
        assert_eq!((alone.place, alone.agents_max), (Place::Alone("data".into()), AGENTS_MAX_DEFAULT));
        let toml = "name = \"orders\"\netcd = [\"e:1\"]\ncerts = \"pki\"\nlabels = { zone = \"eu\", disk = \"ssd\" }";
        let one = settings(&["--store", "postgres://db/x", "--etcd", "f:1,g:1", "--label", "zone=us"], toml);
        let one = one.expect("a database and etcd");
        let Place::Among(cluster) = &one.place else { panic!("it is one of several") };
        assert_eq!(
            (cluster.name.as_str(), cluster.etcd.len(), cluster.certs.as_path()),
            ("orders", 2, Path::new("pki"))
        );
        assert_eq!((one.labels["zone"].as_str(), one.labels["disk"].as_str()), ("us", "ssd"));
        assert!(!format!("{one:?}").contains("db/x"), "an address may hold a password");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_to_do() {
        refused(&[], "", "NEXA_STORE=postgres://");
        refused(&["--store", "data", "--etcd", "e:1"], "", "use one database for all");
        refused(&["--store", "postgres://db/x"], "", "--etcd HOST:PORT");
        refused(&["--store", "postgres://db/x", "--etcd", "e:1"], "", "`nexa certs`");
        refused(&["--store", "mysql://db/x"], "", "no store of the kind `mysql`");
        refused(&["--store", "data", "--label", "zone"], "", "--label zone=eu");
        refused(&["--store", "data", "--name", "a b"], "", "--name");
    }

    #[test]
    fn an_address_is_read_from_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("store");
        std::fs::write(&file, "postgres://db/x\n").expect("written");
        let args = ["--store-file", file.to_str().expect("a plain path"), "--etcd", "e:1", "--certs", "pki"];
        let read = settings(&args, "").expect("read").place;
        assert!(matches!(read, Place::Among(cluster) if cluster.store == "postgres://db/x"));
        std::fs::write(&file, "").expect("written");
        refused(&args, "", "does not hold the address");
    }
}
