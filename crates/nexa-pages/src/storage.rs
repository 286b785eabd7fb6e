//! Where everything is: names, claims and parts, in a folder or in a bucket.
//!
//! ```text
//! pages.nexa                          how many shards there are; written once
//! shards/0007/claims/<number>         who writes the shard, and what counts in it; the highest number holds
//! shards/0007/parts/<name>.lance      Lance datasets
//! ```
//!
//! Of such a place it is asked that what was written is there when the write returns, that one of several who write a new name at
//! once is first and the others are told so, and that a list has all that was written before. `folder` and `bucket` see to
//! that, and give Lance the same store that claims are written by.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::stream::{StreamExt, TryStreamExt};
use lance::session::Session;
use lance_io::object_store::{ObjectStoreProvider, ObjectStoreRegistry};
use nexa_ports::pages::{PagesError, Shard, Shards};
use object_store::path::Path;
use object_store::{DynObjectStore, ObjectStoreExt as _, PutMode, PutOptions};

use crate::Settings;
use crate::folder;
use crate::trouble::Trouble;

/// What says how many shards there are.
const FORMAT_FILE: &str = "pages.nexa";
/// What is made for the first writer.
const SHARDS_FOLDER: &str = "shards";
const FORMAT: &str = "nexa pages 1, shards ";
/// No index of Lance is used, so nothing is in this cache.
const INDEX_CACHE_BYTES: usize = 1 << 20;

/// Where everything is.
pub(crate) struct Storage {
    opened: Opened,
    session: Arc<Session>,
}

/// A folder or a bucket.
pub(crate) struct Opened {
    pub(crate) store: Arc<DynObjectStore>,
    /// What all names in the store begin with.
    pub(crate) prefix: Path,
    /// The same as Lance names it, without a slash at the end.
    pub(crate) url: String,
    /// The one scheme that Lance is given, and its store for it.
    pub(crate) scheme: &'static str,
    pub(crate) provider: Arc<dyn ObjectStoreProvider>,
    /// On this machine's disk, which is listed and emptied without the detour of a store.
    pub(crate) folder: Option<PathBuf>,
}

/// What tells whether a shard is as it was when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    /// The number of the newest claim, 0 for none.
    pub(crate) claim: u64,
    /// The newest version of the part that is appended to.
    pub(crate) version: u64,
}

impl Storage {
    /// Opens a place, and makes it if it is not there.
    pub(crate) async fn open(at: &str, shards: Shards, settings: &Settings) -> Result<Self, PagesError> {
        let opened = match at.split_once("://") {
            None => folder::open(at, settings).await?,
            Some(("file" | folder::SCHEME, path)) => folder::open(path, settings).await?,
            #[cfg(feature = "s3")]
            Some((crate::bucket::SCHEME, _)) => crate::bucket::open(at, settings).await?,
            Some((scheme, _)) => return Err(PagesError::Refused(refusal(scheme))),
        };
        let registry = Arc::new(ObjectStoreRegistry::empty());
        registry.insert(opened.scheme, Arc::clone(&opened.provider));
        let session = Arc::new(Session::new(INDEX_CACHE_BYTES, settings.lance_cache_bytes, registry));
        let storage = Self { opened, session };
        storage.agree(shards, at).await?;
        Ok(storage)
    }

    /// The number of shards is written once, and is the same ever after.
    async fn agree(&self, shards: Shards, at: &str) -> Result<(), PagesError> {
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
            "{at} holds \"{there}\", which is not \"{}\": their number never changes",
            wanted.trim()
        )))
    }

    /// Whether any shard was ever written to.
    pub(crate) async fn has_shards(&self) -> Result<bool, Trouble> {
        Ok(!self.names(SHARDS_FOLDER).await?.is_empty())
    }

    /// The caches that every dataset shares.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session)
    }

    /// Where Lance finds a part.
    pub(crate) fn part_url(&self, shard: Shard, part: &str) -> String {
        format!("{}/{}", self.opened.url, part_of(shard, part))
    }

    /// The number of a shard's newest claim, and the newest version of a part.
    pub(crate) async fn stamp(&self, shard: Shard, open: Option<&str>) -> Result<Stamp, Trouble> {
        let versions = open.map(|part| format!("{}/_versions", part_of(shard, part)));
        let lists = self.lists(std::iter::once(claims_of(shard)).chain(versions).collect()).await?;
        let newest = |at: usize, number: fn(&str) -> Option<u64>| {
            lists.get(at).into_iter().flatten().filter_map(|name| number(name)).max().unwrap_or(0)
        };
        let (claim, version) = (newest(0, claim_number), newest(1, version_number));
        Ok(Stamp { claim, version })
    }

    /// The numbers of a shard's claims, the newest first.
    pub(crate) async fn claims(&self, shard: Shard) -> Result<Vec<u64>, Trouble> {
        let names = self.names(&claims_of(shard)).await?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| claim_number(name)).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(numbers)
    }

    /// Reads a claim; `None` if it is not there.
    pub(crate) async fn claim(&self, shard: Shard, number: u64) -> Result<Option<Vec<u8>>, Trouble> {
        self.get(&claim_of(shard, number)).await
    }

    /// Writes a claim unless there is one under its number; whether it did.
    pub(crate) async fn put_claim(&self, shard: Shard, number: u64, bytes: Vec<u8>) -> Result<bool, Trouble> {
        self.put(&claim_of(shard, number), bytes).await
    }

    /// Removes a claim, which must not be the newest.
    pub(crate) async fn remove_claim(&self, shard: Shard, number: u64) -> Result<(), Trouble> {
        let claim = claim_of(shard, number);
        match &self.opened.folder {
            Some(folder) => folder::remove_file(folder.join(claim)).await,
            None => gone_is_good(self.opened.store.delete(&self.path(&claim)).await),
        }
    }

    /// The names of all parts of a shard, whether they count or not.
    pub(crate) async fn parts(&self, shard: Shard) -> Result<Vec<String>, Trouble> {
        let names = self.names(&parts_of(shard)).await?;
        Ok(names.into_iter().filter_map(|name| Some(name.strip_suffix(".lance")?.to_owned())).collect())
    }

    /// Removes a part with all that is in it.
    pub(crate) async fn remove_part(&self, shard: Shard, part: &str) -> Result<(), Trouble> {
        let part = part_of(shard, part);
        if let Some(folder) = &self.opened.folder {
            return folder::remove_folder(folder.join(part)).await;
        }
        let all = self.opened.store.list(Some(&self.path(&part))).map_ok(|found| found.location).boxed();
        let mut removed = self.opened.store.delete_stream(all);
        while let Some(one) = removed.next().await {
            gone_is_good(one.map(drop))?;
        }
        Ok(())
    }

    /// What is directly in a folder, be it a file or a folder; nothing, if it is not there.
    async fn names(&self, at: &str) -> Result<Vec<String>, Trouble> {
        Ok(self.lists(vec![at.to_owned()]).await?.pop().unwrap_or_default())
    }

    /// The same of several folders at once.
    async fn lists(&self, at: Vec<String>) -> Result<Vec<Vec<String>>, Trouble> {
        if let Some(folder) = &self.opened.folder {
            return folder::lists(at.iter().map(|at| folder.join(at)).collect()).await;
        }
        futures::future::try_join_all(at.iter().map(|at| async {
            let found = self.opened.store.list_with_delimiter(Some(&self.path(at))).await.map_err(unreachable)?;
            let paths = found.objects.into_iter().map(|object| object.location).chain(found.common_prefixes);
            Ok(paths.filter_map(|path| path.filename().map(ToOwned::to_owned)).collect())
        }))
        .await
    }

    async fn put(&self, at: &str, bytes: Vec<u8>) -> Result<bool, Trouble> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.opened.store.put_opts(&self.path(at), bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(unreachable(error)),
        }
    }

    async fn get(&self, at: &str) -> Result<Option<Vec<u8>>, Trouble> {
        match self.opened.store.get(&self.path(at)).await {
            Ok(found) => Ok(Some(found.bytes().await.map_err(unreachable)?.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unreachable(error)),
        }
    }

    /// The store itself, for who damages what is in it.
    #[cfg(all(test, feature = "s3"))]
    pub(crate) fn store(&self) -> &DynObjectStore {
        &*self.opened.store
    }

    /// Everything that shards consist of.
    #[cfg(all(test, feature = "s3"))]
    pub(crate) async fn objects(&self) -> object_store::Result<Vec<Path>> {
        let mut all: Vec<Path> = self
            .opened
            .store
            .list(Some(&self.path(SHARDS_FOLDER)))
            .map_ok(|found| found.location)
            .try_collect()
            .await?;
        all.sort();
        Ok(all)
    }

    /// A name in the store.
    fn path(&self, at: &str) -> Path {
        at.split('/').fold(self.opened.prefix.clone(), |path, name| path.join(name))
    }
}

/// The time of day, in milliseconds; for the age of what nobody reads any more, and nothing else.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn refusal(scheme: &str) -> String {
    let takes = match (scheme, cfg!(feature = "s3")) {
        ("s3", false) => return "this build keeps pages in folders only; build it with the feature `s3`".to_owned(),
        (_, false) => "name a path, or a URL that begins with file://",
        (_, true) => "name a path, or a URL that begins with file:// or s3://",
    };
    format!("pages cannot be kept under \"{scheme}\"; {takes}")
}

fn claims_of(shard: Shard) -> String {
    format!("{SHARDS_FOLDER}/{:04}/claims", shard.0)
}

fn claim_of(shard: Shard, number: u64) -> String {
    format!("{}/{number:020}", claims_of(shard))
}

fn parts_of(shard: Shard) -> String {
    format!("{SHARDS_FOLDER}/{:04}/parts", shard.0)
}

fn part_of(shard: Shard, part: &str) -> String {
    format!("{}/{part}.lance", parts_of(shard))
}

fn claim_number(name: &str) -> Option<u64> {
    if name.len() == 20 { name.parse().ok() } else { None }
}

/// Lance names the manifest of a version so that the newest comes first in the order of names.
fn version_number(name: &str) -> Option<u64> {
    let number: u64 = name.strip_suffix(".manifest").filter(|digits| digits.len() == 20)?.parse().ok()?;
    Some(u64::MAX - number)
}

fn gone_is_good(result: object_store::Result<()>) -> Result<(), Trouble> {
    match result {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        result => result.map_err(unreachable),
    }
}

fn unreachable(error: object_store::Error) -> Trouble {
    Trouble::Unreachable(error.to_string())
}
