//! What agents remember, on this node: here it is chosen where pages are kept.
//!
//! A build with the feature `lance` keeps them on disk: a node by itself in its data folder, one of a cluster where `[pages]` in
//! nexa.toml says; with the feature `s3` that may be a bucket. Otherwise they are in memory, and a restart makes them again from the log, as soon as somebody asks or an
//! agent remembers. Each node of a cluster has all of them, for each follows the log by itself; what is forgotten is told by the
//! log as well.

use std::path::Path;
use std::sync::Arc;

use nexa_cli::failure::Failure;
use nexa_ports::formats::Writing;
use nexa_ports::pages::{MemoryPages, PageStore, Shards};
use nexa_remember::{Outside, Remembrance};
use nexa_runtime::Ports;
use nexa_types::NodeId;

use crate::config::Project;
use crate::wiring;

/// Parts of all pages: as many for ever as a store was made with.
const SHARDS: Shards = Shards::new(16).expect("it is within what there can be");
/// The folder of pages in the data folder of a node by itself.
const FOLDER: &str = "pages";

/// Whose pages are kept.
pub(crate) struct Of<'a> {
    /// The node.
    pub(crate) node: &'a NodeId,
    /// Its data folder, if it has one.
    pub(crate) data: Option<&'a Path>,
    /// Where embedded models are.
    pub(crate) models: Option<&'a Path>,
}

/// Begins to keep what agents remember.
pub(crate) async fn start(
    of: Of<'_>,
    project: &Project,
    ports: &Ports,
    writing: &Writing,
) -> Result<Remembrance, Failure> {
    let named = project.pages.of(of.node);
    let own = || of.data.map(|data| data.join(FOLDER).to_string_lossy().into_owned());
    let kept = match named.or_else(own) {
        Some(at) => stored(&at, project).await?,
        None => Kept { pages: Arc::new(MemoryPages::new(SHARDS)), has_some: false },
    };
    let remembrance = Remembrance::start(Outside {
        store: Arc::clone(&ports.store),
        pages: kept.pages,
        embedder: wiring::embedder(project, of.models)?,
        clock: Arc::clone(&ports.clock),
        writing: writing.clone(),
    });
    if kept.has_some {
        // So that whoever asks first does not wait for what was said since.
        remembrance.follow();
    }
    Ok(remembrance)
}

struct Kept {
    pages: Arc<dyn PageStore>,
    /// Whether they were written to before.
    has_some: bool,
}

#[cfg(feature = "lance")]
async fn stored(at: &str, _: &Project) -> Result<Kept, Failure> {
    let failure = |error: nexa_ports::pages::PagesError| {
        let hint = match (at.starts_with("s3://"), cfg!(feature = "s3")) {
            (false, _) => "they are made from the log: the folder may be moved away, and another is filled",
            (true, true) => "AWS_ENDPOINT_URL, AWS_REGION and credentials are what the environment of the node says",
            (true, false) => "name a folder, or build nexa with `--features s3`",
        };
        Failure::error(format!("pages of what agents remember cannot be kept in {at}: {error}")).hint(hint)
    };
    let pages = nexa_pages::LancePages::open(at, SHARDS, nexa_pages::Settings::default()).await.map_err(failure)?;
    Ok(Kept { has_some: pages.has_some().await.map_err(failure)?, pages: Arc::new(pages) })
}

#[cfg(not(feature = "lance"))]
async fn stored(_: &str, project: &Project) -> Result<Kept, Failure> {
    if project.pages.folder.is_some() {
        return Err(Failure::error("`folder` under `[pages]` in nexa.toml: this build keeps pages in memory only")
            .hint("leave it out, or build nexa with `--features lance`, for s3:// with `--features s3`"));
    }
    Ok(Kept { pages: Arc::new(MemoryPages::new(SHARDS)), has_some: false })
}
