//! Pages in a bucket: on S3, or on a store that speaks it.
//!
//! A store acknowledges what is durable, so nothing is synced here. The rest must be true of it: that a name which is taken is
//! refused (`If-None-Match: *`), also to those who ask at the same time, because a claim is nothing else. Stores are known
//! that do not keep to it and say nothing. So whoever opens a bucket first proves it, on a name of its own, and refuses a store
//! that lets two write it.
//!
//! **A refusal may be one's own doing.** If the answer to a put is lost, or is an error that came too late, the client asks
//! again, and is told that the name is taken: by what it wrote itself. Lance would then write the same rows a second time,
//! and a claim that holds would be given up. So after a refusal it is read who was there: the same bytes are one's own, for
//! claims and manifests name what is unique.
//!
//! Credentials, region and endpoint are what the environment says, by the names that AWS gives them. Lance is given this same
//! store: it brings one of its own, with a client and a chain of credentials beside these, which is not built in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use lance_io::object_store::{
    DEFAULT_CLOUD_IO_PARALLELISM, DEFAULT_DOWNLOAD_RETRY_COUNT, ObjectStore as LanceStore, ObjectStoreParams,
    ObjectStoreProvider,
};
use nexa_ports::pages::PagesError;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::path::Path;
use object_store::{
    CopyOptions, DynObjectStore, Error, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    RetryConfig,
};
use url::Url;

use crate::Settings;
use crate::storage::Opened;
use crate::trouble::SHORT;

/// The scheme of a bucket's URL. Lance writes a manifest under it only where none is.
pub(crate) const SCHEME: &str = "s3";
/// How a bucket's name ends whose lists are in no order, and Lance reads the newest version off their beginning.
const UNORDERED: &str = "--x-s3";
/// How often the client asks again after a refused connection or an error of the server, before whoever writes is told. A
/// request takes at most 30 s, and a connection 5.
const RETRIES_MAX: usize = 5;
/// No asking again after this.
const RETRY_WITHIN: Duration = Duration::from_secs(10);
/// How often a new name is written that is refused and not there: S3 answers so when two write it at once.
const CREATES_MAX: usize = 4;
/// Who write the same name at once while a store is proved.
const PROVERS: u8 = 4;
/// Where it is proved.
const PROOFS_FOLDER: &str = "proofs";

/// How a bucket is reached, by the names that the environment has for it: `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID` and others.
/// What is not said here the environment says.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Access(BTreeMap<String, String>);

impl Access {
    /// One of names and values.
    #[must_use]
    pub fn of(said: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(said.into_iter().collect())
    }
}

/// Its values are secrets.
impl fmt::Debug for Access {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.0.keys()).finish()
    }
}

/// Opens a bucket that is there.
pub(crate) async fn open(at: &str, settings: &Settings) -> Result<Opened, PagesError> {
    let refused = |what: &dyn fmt::Display| PagesError::Refused(format!("{at}: {what}"));
    let url = Url::parse(at).map_err(|error| refused(&error))?;
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty()).ok_or_else(|| refused(&"it names no bucket"))?;
    if !url.username().is_empty() || url.password().is_some() {
        // Not with the URL, which would be in a log.
        return Err(PagesError::Refused("credentials of a bucket belong into the environment, not the URL".to_owned()));
    }
    if url.port().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(refused(&"it is more than s3://bucket/prefix; what else is to be said, the environment says"));
    }
    if bucket.ends_with(UNORDERED) {
        return Err(refused(&"a directory bucket lists in no order; name a general purpose one"));
    }
    let prefix = Path::from_url_path(url.path()).map_err(|error| refused(&error))?;
    // Which cryptography a process takes is decided once; it may have been before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_WITHIN, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::from_env();
    for (name, value) in &settings.access.0 {
        let name: AmazonS3ConfigKey = name.to_ascii_lowercase().parse().map_err(|error: Error| refused(&error))?;
        builder = builder.with_config(name, value);
    }
    let builder = builder.with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch).with_retry(retry);
    let client = builder.build().map_err(|error| refused(&error))?;
    prove(&client, &prefix).await.map_err(|trouble| match trouble {
        Unproved::Careless => refused(&Unproved::Careless),
        other => PagesError::Unavailable(format!("{at}: {other}")),
    })?;
    let store: Arc<DynObjectStore> = Arc::new(Settled(Arc::new(client)));
    Ok(Opened {
        provider: Arc::new(Same(Arc::clone(&store))),
        store,
        prefix,
        url: url.as_str().trim_end_matches('/').to_owned(),
        scheme: SCHEME,
        folder: None,
    })
}

/// Why it is not known that a store keeps a name to its first writer.
#[derive(Debug, thiserror::Error)]
enum Unproved {
    #[error(
        "the store does not keep a new name to whoever writes it first (If-None-Match: *), so that two could own a shard"
    )]
    Careless,
    #[error("{0}")]
    Unknown(#[from] Error),
}

/// Proves that a name is kept to its first writer: among some who write it at once, and against one who comes later.
async fn prove(store: &DynObjectStore, prefix: &Path) -> Result<(), Unproved> {
    let mut unique = [0; 16];
    // Without chance the name may be taken, and then nobody is the first: that proves the same.
    let _ = getrandom::fill(&mut unique);
    let name = format!("{:032x}", u128::from_le_bytes(unique));
    let path = prefix.clone().join(PROOFS_FOLDER).join(name.as_str());
    let put = async |writer: u8| {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match store.put_opts(&path, vec![writer].into(), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(Error::NotImplemented { .. }) => Err(Unproved::Careless),
            Err(error) => Err(Unproved::Unknown(error)),
        }
    };
    let written = futures::future::try_join_all((0..PROVERS).map(&put)).await?;
    let first = store.get(&path).await?.bytes().await?;
    let was_later = put(PROVERS).await?;
    let still = store.get(&path).await?.bytes().await?;
    store.delete(&path).await?;
    let writers: Vec<u8> = (0..PROVERS).filter(|writer| written.get(usize::from(*writer)) == Some(&true)).collect();
    // Nobody may have been told that it was the first, if an answer was lost; two must not.
    let is_kept = writers.is_empty() || writers == *first;
    if is_kept && !was_later && still == first { Ok(()) } else { Err(Unproved::Careless) }
}

/// Gives Lance the store that claims are written by.
#[derive(Debug)]
struct Same(Arc<DynObjectStore>);

#[async_trait::async_trait]
impl ObjectStoreProvider for Same {
    async fn new_store(&self, base: Url, params: &ObjectStoreParams) -> lance::Result<LanceStore> {
        let (store, is_ordered) = (Arc::clone(&self.0), true);
        let (at_once, retries) = (DEFAULT_CLOUD_IO_PARALLELISM, DEFAULT_DOWNLOAD_RETRY_COUNT);
        Ok(LanceStore::new(store, base, params.block_size, None, false, is_ordered, at_once, retries, None))
    }
}

/// A store whose refusals are true: a name that is refused is another's.
#[derive(Debug)]
struct Settled(Arc<DynObjectStore>);

impl Settled {
    /// Writes a name that nobody has.
    async fn create(&self, at: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        let mut tries = 1;
        loop {
            let refused = match self.0.put_opts(at, payload.clone(), options.clone()).await {
                Err(refused @ Error::AlreadyExists { .. }) => refused,
                other => return other,
            };
            let there = match self.0.get(at).await {
                // Who was at it at the same time did not write it either.
                Err(Error::NotFound { .. }) if tries < CREATES_MAX => {
                    tries += 1;
                    continue;
                }
                Err(Error::NotFound { .. }) => return Err(Error::Generic { store: "S3", source: refused.into() }),
                Err(error) => return Err(error),
                Ok(there) => there,
            };
            let (e_tag, version) = (there.meta.e_tag.clone(), there.meta.version.clone());
            let is_ours = there.bytes().await? == bytes_of(&payload);
            return if is_ours {
                Ok(PutResult { e_tag, version, extensions: Default::default() })
            } else {
                Err(refused)
            };
        }
    }

    /// Why something could not be read: if it is shorter than it was, then because of that.
    async fn explained(&self, at: &Path, end: u64, error: Error) -> Error {
        match self.0.head(at).await {
            Ok(there) if there.size < end => Error::Generic { store: SHORT, source: error.into() },
            _ => error,
        }
    }
}

/// How many bytes there must be for a range to be read.
fn end_of(range: &GetRange) -> u64 {
    match range {
        GetRange::Bounded(range) => range.end,
        GetRange::Offset(start) => start.saturating_add(1),
        GetRange::Suffix(count) => *count,
    }
}

fn bytes_of(payload: &PutPayload) -> Vec<u8> {
    payload.iter().flat_map(|bytes| bytes.iter().copied()).collect()
}

impl fmt::Display for Settled {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Settled {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        match options.mode {
            PutMode::Create => self.create(at, payload, options).await,
            _ => self.0.put_opts(at, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let end = options.range.as_ref().map(end_of);
        match (self.0.get_opts(at, options).await, end) {
            (Err(error @ Error::Generic { .. }), Some(end)) => Err(self.explained(at, end, error).await),
            (result, _) => result,
        }
    }

    fn delete_stream(
        &self,
        all: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.0.delete_stream(all)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.0.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    /// A store in memory with a fault.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Fault {
        /// It overwrites.
        Careless,
        /// It cannot do what is asked.
        Unable,
        /// Its answers to those who come first are lost, and they ask again.
        Answers,
        /// It refuses the first who asks, although nobody was there.
        Hesitates,
    }

    #[derive(Debug)]
    struct Faulty {
        inner: InMemory,
        fault: Fault,
        asked: std::sync::atomic::AtomicUsize,
    }

    impl fmt::Display for Faulty {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(out, "{:?}", self.fault)
        }
    }

    fn taken(at: &Path) -> Error {
        Error::AlreadyExists { path: at.to_string(), source: "it is taken".into() }
    }

    #[async_trait::async_trait]
    impl ObjectStore for Faulty {
        async fn put_opts(&self, at: &Path, payload: PutPayload, asked: PutOptions) -> object_store::Result<PutResult> {
            let is_first = self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
            match self.fault {
                Fault::Careless => self.inner.put_opts(at, payload, PutOptions::default()).await,
                Fault::Unable => {
                    let (operation, implementer) = ("put".to_owned(), "a test".to_owned());
                    Err(Error::NotImplemented { operation, implementer })
                }
                Fault::Answers => self.inner.put_opts(at, payload, asked).await.and_then(|_| Err(taken(at))),
                Fault::Hesitates if is_first => Err(taken(at)),
                Fault::Hesitates => self.inner.put_opts(at, payload, asked).await,
            }
        }

        async fn put_multipart_opts(
            &self,
            at: &Path,
            options: PutMultipartOptions,
        ) -> object_store::Result<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(at, options).await
        }

        async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
            self.inner.get_opts(at, options).await
        }

        fn delete_stream(
            &self,
            all: BoxStream<'static, object_store::Result<Path>>,
        ) -> BoxStream<'static, object_store::Result<Path>> {
            self.inner.delete_stream(all)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
            self.inner.copy_opts(from, to, options).await
        }
    }

    fn faulty(fault: Fault) -> Arc<Faulty> {
        Arc::new(Faulty { inner: InMemory::new(), fault, asked: Default::default() })
    }

    async fn create(store: Arc<DynObjectStore>, bytes: &'static [u8]) -> object_store::Result<PutResult> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        Settled(store).put_opts(&Path::from("claim"), bytes.into(), options).await
    }

    #[tokio::test]
    async fn a_store_is_taken_only_if_it_keeps_a_name_to_its_first_writer() {
        let good = InMemory::new();
        assert!(prove(&good, &Path::from("pages")).await.is_ok());
        let left = good.list_with_delimiter(None).await.expect("listed");
        assert!(left.objects.is_empty() && left.common_prefixes.is_empty(), "a proof leaves nothing: {left:?}");
        for fault in [Fault::Careless, Fault::Unable] {
            let proved = prove(&*faulty(fault), &Path::from("pages")).await;
            assert!(matches!(proved, Err(Unproved::Careless)), "{fault:?}: {proved:?}");
        }
        let proved = prove(&*faulty(Fault::Answers), &Path::from("pages")).await;
        assert!(proved.is_ok(), "one that loses answers keeps its names: {proved:?}");
    }

    /// Else a claim that holds is given up, and its part is removed; and Lance adds the same rows again.
    #[tokio::test]
    async fn who_is_refused_by_what_it_wrote_itself_wrote_it() {
        let store = faulty(Fault::Answers);
        create(Arc::clone(&store) as _, b"ours").await.expect("it is there");
        let again = create(Arc::clone(&store) as _, b"another's").await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
        let there = store.get(&Path::from("claim")).await.expect("it is there").bytes().await.expect("read");
        assert_eq!(there, "ours");
    }

    /// S3 says 409 to both of two who write a name at once, and then neither may have written it.
    #[tokio::test]
    async fn who_is_refused_by_nobody_tries_again() {
        let store = faulty(Fault::Hesitates);
        create(Arc::clone(&store) as _, b"ours").await.expect("it is there");
        let again = create(store, b"another's").await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
    }

    #[tokio::test]
    async fn a_url_of_a_bucket_names_a_bucket_and_a_prefix_and_nothing_else() {
        let more = ["s3://", "s3:///prefix", "s3://key:secret@bucket/x", "s3://bucket?x=1", "s3://bucket:9000/x"];
        for at in more.into_iter().chain(["s3://bucket/#x", "s3://fast--use1-az4--x-s3/pages"]) {
            let refused = open(at, &Settings::default()).await.map(drop);
            let Err(PagesError::Refused(why)) = refused else { panic!("{at}: {refused:?}") };
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
