//! What a node keeps things in: one store behind its ports.

use std::path::Path;
use std::sync::Arc;

use nexa_cli::failure::Failure;
use nexa_ports::leadership::Leadership;
use nexa_ports::memories::Memories;
use nexa_ports::store::Store;
use nexa_ports::view::Views;
use nexa_postgres::{PostgresStore, Settings};
use nexa_store::SqliteStore;
use nexa_types::NodeId;

use crate::chain;

/// A store, by its ports. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) views: Arc<dyn Views>,
    pub(crate) memories: Arc<dyn Memories>,
    pub(crate) leadership: Arc<dyn Leadership>,
    /// Why it takes no writes, if it takes none.
    pub(crate) trouble: Arc<dyn Fn() -> Option<String> + Send + Sync>,
}

impl Backend {
    /// SQLite in a folder, for one process.
    pub(crate) fn sqlite(data: &Path) -> Result<Self, Failure> {
        let store = SqliteStore::open(data, nexa_store::Options::default());
        let store = Arc::new(store.map_err(|error| Failure::error(chain(&error)))?);
        let troubled = Arc::clone(&store);
        Ok(Self {
            store: Arc::clone(&store) as _,
            views: Arc::clone(&store) as _,
            memories: Arc::clone(&store) as _,
            leadership: store,
            trouble: Arc::new(move || troubled.trouble().map(|trouble| chain(&trouble))),
        })
    }

    /// PostgreSQL, for all nodes of a cluster. Its tasks run on the threads of this runtime.
    pub(crate) async fn postgres(url: &str, node: &NodeId) -> Result<Self, Failure> {
        let store = PostgresStore::connect(Settings::new(url, node.clone())).await;
        let store = Arc::new(store.map_err(|error| Failure::error(chain(&error)))?);
        let troubled = Arc::clone(&store);
        Ok(Self {
            store: Arc::clone(&store) as _,
            views: Arc::clone(&store) as _,
            memories: Arc::clone(&store) as _,
            leadership: store,
            trouble: Arc::new(move || troubled.trouble().map(|trouble| chain(&trouble))),
        })
    }
}
