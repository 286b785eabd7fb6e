//! The folder that everything is in, and how bytes reach the disk.
//!
//! ```text
//! pages.nexa                          how many shards there are; written once
//! shards/0007/claims/<number>         who writes the shard, and what counts in it; the highest number holds
//! shards/0007/parts/<name>.lance      Lance datasets
//! ```
//!
//! Lance never calls fsync, and its own provider for local files leaves that as it is. So the scheme `file-object-store`
//! gets a provider of ours, whose store makes every file and its folder durable before a write returns. It has to be this
//! scheme: for one that it does not know, Lance takes a commit handler that overwrites what another writer committed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use lance::session::Session;
use lance_io::object_store::providers::local::FileStoreProvider;
use lance_io::object_store::{ObjectStore as LanceStore, ObjectStoreParams, ObjectStoreProvider, ObjectStoreRegistry};
use nexa_ports::pages::{PagesError, Shard, Shards};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions};
use url::Url;

use crate::Settings;
use crate::trouble::Trouble;

/// The one scheme that pages are kept under.
const SCHEME: &str = "file-object-store";
/// What says how many shards there are.
const FORMAT_FILE: &str = "pages.nexa";
/// What is made for the first writer.
const SHARDS_FOLDER: &str = "shards";
const FORMAT: &str = "nexa pages 1, shards ";
/// No index of Lance is used, so nothing is in this cache.
const INDEX_CACHE_BYTES: usize = 1 << 20;

/// Where everything is.
pub(crate) struct Folder {
    root: PathBuf,
    url: String,
    files: LocalFileSystem,
    session: Arc<Session>,
}

/// What tells whether a shard is as it was when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    /// The number of the newest claim, 0 for none.
    pub(crate) claim: u64,
    /// The newest version of the part that is appended to.
    pub(crate) version: u64,
}

impl Folder {
    /// Opens the folder, and makes it if it is not there.
    pub(crate) async fn open(at: &str, shards: Shards, settings: &Settings) -> Result<Self, PagesError> {
        let root = path_of(at)?;
        let unavailable =
            |error: &dyn std::fmt::Display| PagesError::Unavailable(format!("{}: {error}", root.display()));
        let made = root.clone();
        let made = tokio::task::spawn_blocking(move || make_folder(&made)).await;
        let root = made.map_err(|error| unavailable(&error))?.map_err(|error| unavailable(&error))?;
        let url = Url::from_directory_path(&root).map_err(|()| unavailable(&"it is no absolute path"))?;
        let url = url.as_str().replacen("file", SCHEME, 1).trim_end_matches('/').to_owned();
        let files = LocalFileSystem::new_with_prefix(&root).map_err(|error| unavailable(&error))?;
        let registry = Arc::new(ObjectStoreRegistry::empty());
        registry.insert(SCHEME, Arc::new(Durable { fsync: settings.fsync }));
        let session = Arc::new(Session::new(INDEX_CACHE_BYTES, settings.lance_cache_bytes, registry));
        let folder = Self { files: files.with_fsync(settings.fsync), root, url, session };
        folder.agree(shards).await?;
        Ok(folder)
    }

    /// The number of shards is written once, and is the same ever after.
    async fn agree(&self, shards: Shards) -> Result<(), PagesError> {
        let unavailable = |trouble: Trouble| PagesError::Unavailable(format!("{FORMAT_FILE}: {trouble}"));
        let wanted = format!("{FORMAT}{}\n", shards.count());
        self.put(FORMAT_FILE, wanted.clone().into_bytes()).await.map_err(unavailable)?;
        let there = self.get(FORMAT_FILE).await.map_err(unavailable)?.unwrap_or_default();
        if there == wanted.as_bytes() {
            return Ok(());
        }
        let there = String::from_utf8_lossy(&there);
        let there = there.trim();
        Err(PagesError::Refused(format!(
            "{} holds \"{there}\", which is not \"{}\": their number never changes",
            self.root.display(),
            wanted.trim()
        )))
    }

    /// Whether any shard was ever written to.
    pub(crate) fn has_shards(&self) -> bool {
        self.root.join(SHARDS_FOLDER).is_dir()
    }

    /// The caches that every dataset shares.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session)
    }

    /// Where Lance finds a part.
    pub(crate) fn part_url(&self, shard: Shard, part: &str) -> String {
        format!("{}/{}/{part}.lance", self.url, parts_of(shard))
    }

    /// The numbers of a shard's claims, and the newest version of a part.
    pub(crate) async fn stamp(&self, shard: Shard, open: Option<&str>) -> Result<Stamp, Trouble> {
        let claims = self.root.join(claims_of(shard));
        let versions = open.map(|part| self.root.join(parts_of(shard)).join(format!("{part}.lance/_versions")));
        blocking(move || {
            let claim = names(&claims)?.iter().filter_map(|name| claim_number(name)).max().unwrap_or(0);
            let version = match versions {
                Some(versions) => names(&versions)?.iter().filter_map(|name| version_number(name)).max().unwrap_or(0),
                None => 0,
            };
            Ok(Stamp { claim, version })
        })
        .await
    }

    /// The numbers of a shard's claims, the newest first.
    pub(crate) async fn claims(&self, shard: Shard) -> Result<Vec<u64>, Trouble> {
        let claims = self.root.join(claims_of(shard));
        blocking(move || {
            let mut numbers: Vec<u64> = names(&claims)?.iter().filter_map(|name| claim_number(name)).collect();
            numbers.sort_unstable_by(|a, b| b.cmp(a));
            Ok(numbers)
        })
        .await
    }

    /// Reads a claim; `None` if it is not there.
    pub(crate) async fn claim(&self, shard: Shard, number: u64) -> Result<Option<Vec<u8>>, Trouble> {
        self.get(&format!("{}/{number:020}", claims_of(shard))).await
    }

    /// Writes a claim unless there is one under its number; whether it did.
    pub(crate) async fn put_claim(&self, shard: Shard, number: u64, bytes: Vec<u8>) -> Result<bool, Trouble> {
        self.put(&format!("{}/{number:020}", claims_of(shard)), bytes).await
    }

    /// Removes a claim, which must not be the newest.
    pub(crate) async fn remove_claim(&self, shard: Shard, number: u64) -> Result<(), Trouble> {
        let claim = self.root.join(claims_of(shard)).join(format!("{number:020}"));
        blocking(move || gone_is_good(std::fs::remove_file(claim))).await
    }

    /// The names of all parts of a shard, whether they count or not.
    pub(crate) async fn parts(&self, shard: Shard) -> Result<Vec<String>, Trouble> {
        let parts = self.root.join(parts_of(shard));
        blocking(move || {
            Ok(names(&parts)?.into_iter().filter_map(|name| Some(name.strip_suffix(".lance")?.to_owned())).collect())
        })
        .await
    }

    /// Removes a part with all that is in it.
    pub(crate) async fn remove_part(&self, shard: Shard, part: &str) -> Result<(), Trouble> {
        let part = self.root.join(parts_of(shard)).join(format!("{part}.lance"));
        blocking(move || gone_is_good(std::fs::remove_dir_all(part))).await
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) -> Result<bool, Trouble> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.files.put_opts(&path.into(), bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(Trouble::Unreachable(error.to_string())),
        }
    }

    async fn get(&self, path: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let unreachable = |error: object_store::Error| Trouble::Unreachable(error.to_string());
        match self.files.get(&path.into()).await {
            Ok(found) => Ok(Some(found.bytes().await.map_err(unreachable)?.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unreachable(error)),
        }
    }
}

/// The time of day, in milliseconds; for the age of what nobody reads any more, and nothing else.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
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

/// A path, or a URL of one; any other scheme is refused.
fn path_of(at: &str) -> Result<PathBuf, PagesError> {
    let path = match at.split_once("://") {
        None => at,
        Some(("file" | SCHEME, path)) => path,
        Some((scheme, _)) => {
            return Err(PagesError::Refused(format!(
                "pages are kept in a folder, and \"{scheme}\" is none; name a path, or a URL that begins with file://"
            )));
        }
    };
    if path.is_empty() {
        return Err(PagesError::Refused("no folder was named for pages".to_owned()));
    }
    Ok(PathBuf::from(path))
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

fn claims_of(shard: Shard) -> String {
    format!("{SHARDS_FOLDER}/{:04}/claims", shard.0)
}

fn parts_of(shard: Shard) -> String {
    format!("{SHARDS_FOLDER}/{:04}/parts", shard.0)
}

fn claim_number(name: &str) -> Option<u64> {
    if name.len() == 20 { name.parse().ok() } else { None }
}

/// Lance names the manifest of a version so that the newest comes first in the order of names.
fn version_number(name: &str) -> Option<u64> {
    let number: u64 = name.strip_suffix(".manifest").filter(|digits| digits.len() == 20)?.parse().ok()?;
    Some(u64::MAX - number)
}

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
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
