//! What agents remember, on this node: here it is chosen where pages are kept.
//!
//! At present in memory: a restart makes them again from the log, as soon as somebody asks or an agent remembers. Each node of a
//! cluster has all of them, for each follows the log by itself; what is forgotten is told by the log as well. A store on disk goes in the place of [`MemoryPages`].

use std::path::Path;
use std::sync::Arc;

use nexa_cli::failure::Failure;
use nexa_ports::formats::Writing;
use nexa_ports::pages::{MemoryPages, PageStore, Shards};
use nexa_remember::{Outside, Remembrance};
use nexa_runtime::Ports;

use crate::config::Project;
use crate::wiring;

/// Parts of all pages: as many for ever as a store was made with.
const SHARDS: Shards = Shards::new(64).expect("it is within what there can be");

/// Begins to keep what agents remember.
pub(crate) fn start(
    project: &Project,
    models: Option<&Path>,
    ports: &Ports,
    writing: &Writing,
) -> Result<Remembrance, Failure> {
    Ok(Remembrance::start(Outside {
        store: Arc::clone(&ports.store),
        pages: pages(),
        embedder: wiring::embedder(project, models)?,
        clock: Arc::clone(&ports.clock),
        writing: writing.clone(),
    }))
}

/// Where pages are kept.
fn pages() -> Arc<dyn PageStore> {
    Arc::new(MemoryPages::new(SHARDS))
}
