//! Pages in a folder, and how bytes reach the disk.
//!
//! Lance never calls fsync, and its own provider for local files leaves that as it is. So the scheme `file-object-store`
//! gets a provider of ours, whose store makes every file and its folder durable before a write returns. It has to be this
//! scheme: for one that it does not know, Lance takes a commit handler that overwrites what another writer committed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lance_io::object_store::providers::local::FileStoreProvider;
use lance_io::object_store::{ObjectStore as LanceStore, ObjectStoreParams, ObjectStoreProvider};
use nexa_ports::pages::PagesError;
use object_store::local::LocalFileSystem;
use url::Url;

use crate::Settings;
use crate::storage::Opened;
use crate::trouble::Trouble;

/// What Lance calls a folder all of whose files go through a store.
pub(crate) const SCHEME: &str = "file-object-store";

/// Opens a folder, and makes it if it is not there.
pub(crate) async fn open(at: &str, settings: &Settings) -> Result<Opened, PagesError> {
    if at.is_empty() {
        return Err(PagesError::Refused("no folder was named for pages".to_owned()));
    }
    let root = PathBuf::from(at);
    let unavailable = |error: &dyn std::fmt::Display| PagesError::Unavailable(format!("{at}: {error}"));
    let made = tokio::task::spawn_blocking(move || make_folder(&root)).await;
    let root = made.map_err(|error| unavailable(&error))?.map_err(|error| unavailable(&error))?;
    let url = Url::from_directory_path(&root).map_err(|()| unavailable(&"it is no absolute path"))?;
    let url = url.as_str().replacen("file", SCHEME, 1).trim_end_matches('/').to_owned();
    let files = LocalFileSystem::new_with_prefix(&root).map_err(|error| unavailable(&error))?;
    Ok(Opened {
        store: Arc::new(files.with_fsync(settings.fsync)),
        prefix: object_store::path::Path::default(),
        url,
        scheme: SCHEME,
        provider: Arc::new(Durable { fsync: settings.fsync }),
        folder: Some(root),
    })
}

/// A store of files that are on the disk once they are written.
#[derive(Debug)]
struct Durable {
    fsync: bool,
}

#[async_trait::async_trait]
impl ObjectStoreProvider for Durable {
    async fn new_store(&self, base: Url, params: &ObjectStoreParams) -> lance::Result<LanceStore> {
        let mut store = FileStoreProvider.new_store(base, params).await?;
        store.inner = Arc::new(LocalFileSystem::new().with_fsync(self.fsync));
        Ok(store)
    }

    fn calculate_object_store_prefix(
        &self,
        url: &Url,
        options: Option<&HashMap<String, String>>,
    ) -> lance::Result<String> {
        FileStoreProvider.calculate_object_store_prefix(url, options)
    }

    fn extract_path(&self, url: &Url) -> lance::Result<object_store::path::Path> {
        FileStoreProvider.extract_path(url)
    }
}

/// Makes the folder, and syncs those that are above it for as long as they are new.
fn make_folder(root: &Path) -> std::io::Result<PathBuf> {
    let mut missing: Vec<&Path> =
        root.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    while let Some(path) = missing.pop() {
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
            std::fs::File::open(above)?.sync_all()?;
        }
    }
    root.canonicalize()
}

/// What is directly in each of some folders; nothing, if it is not there.
pub(crate) async fn lists(folders: Vec<PathBuf>) -> Result<Vec<Vec<String>>, Trouble> {
    blocking(move || folders.into_iter().map(|folder| names(&folder)).collect()).await
}

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Removes a file, if it is there.
pub(crate) async fn remove_file(path: PathBuf) -> Result<(), Trouble> {
    blocking(move || gone_is_good(std::fs::remove_file(path))).await
}

/// Removes a folder with all that is in it, if it is there.
pub(crate) async fn remove_folder(path: PathBuf) -> Result<(), Trouble> {
    blocking(move || gone_is_good(std::fs::remove_dir_all(path))).await
}

fn gone_is_good(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, Trouble> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| Trouble::Unreachable(error.to_string())),
        Err(error) => Err(Trouble::Unreachable(error.to_string())),
    }
}
