//! What a node keeps things in: one store behind its ports.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use nexa_cli::failure::Failure;
use nexa_event::envelope::FORMAT;
use nexa_ports::audit::Audit;
use nexa_ports::formats::{Formats, Writing};
use nexa_ports::leadership::Leadership;
use nexa_ports::memories::Memories;
use nexa_ports::store::Store;
use nexa_ports::view::Views;
use nexa_postgres::{PostgresStore, Settings};
use nexa_store::SqliteStore;
use nexa_types::NodeId;

use crate::chain;

#[cfg(all(feature = "next-format", not(debug_assertions)))]
compile_error!("`next-format` stands in for a later release in tests; what it writes no release reads");

/// The formats of stored bytes that this binary reads, and writes if an operator wants it.
const FORMATS: Formats = match cfg!(feature = "next-format") {
    true => Formats { newest: Formats::THIS_BUILD.newest + 1, ..Formats::THIS_BUILD },
    false => Formats::THIS_BUILD,
};

/// A store, by its ports. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) views: Arc<dyn Views>,
    pub(crate) memories: Arc<dyn Memories>,
    pub(crate) leadership: Arc<dyn Leadership>,
    pub(crate) audit: Arc<dyn Audit>,
    /// What it reads, and in which format it writes.
    pub(crate) writing: Writing,
    /// Why it takes no writes, if it takes none.
    pub(crate) trouble: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    /// Waits until it takes none ever again, and gives why: then the process has to be started anew.
    pub(crate) broken: Arc<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>,
}

impl Backend {
    /// SQLite in a folder, for one process.
    pub(crate) fn sqlite(data: &Path) -> Result<Self, Failure> {
        let store = SqliteStore::open(data, nexa_store::Options::default());
        let store = Arc::new(store.map_err(|error| Failure::error(chain(&error)))?);
        let (troubled, watched) = (Arc::clone(&store), Arc::clone(&store));
        Ok(Self {
            store: Arc::clone(&store) as _,
            views: Arc::clone(&store) as _,
            memories: Arc::clone(&store) as _,
            leadership: Arc::clone(&store) as _,
            audit: store,
            // Nobody else writes to the file, and it is in the only format that this store knows.
            writing: Writing::oldest(Formats { oldest: FORMAT, newest: FORMAT }),
            trouble: Arc::new(move || troubled.trouble().map(|trouble| chain(&trouble))),
            broken: Arc::new(move || -> BoxFuture<'static, String> { Box::pin(watched.broken()) }),
        })
    }

    /// PostgreSQL, for all nodes of a cluster. Its tasks run on the threads of this runtime.
    pub(crate) async fn postgres(url: &str, node: &NodeId) -> Result<Self, Failure> {
        let writing = Writing::oldest(FORMATS);
        let settings = Settings { writing: writing.clone(), ..Settings::new(url, node.clone()) };
        let store = PostgresStore::connect(settings).await;
        let store = Arc::new(store.map_err(|error| Failure::error(chain(&error)))?);
        let troubled = Arc::clone(&store);
        Ok(Self {
            store: Arc::clone(&store) as _,
            views: Arc::clone(&store) as _,
            memories: Arc::clone(&store) as _,
            leadership: Arc::clone(&store) as _,
            audit: store,
            writing,
            trouble: Arc::new(move || troubled.trouble().map(|trouble| chain(&trouble))),
            // Its disk is another process's: whatever becomes of that, a connection can be made again.
            broken: Arc::new(|| -> BoxFuture<'static, String> { Box::pin(pending()) }),
        })
    }
}
