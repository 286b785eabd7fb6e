//! Makes weights as they are used here out of weights as they are published: one `.gguf` file for each model.
//!
//! | published | stored |
//! |---|---|
//! | SmolLM2: 4 bits a number | 8 bits, because there is no fast kernel for 4 |
//! | MiniLM: 32 bits in one file, the tokenizer in another | the table of words with 16 bits, the rest with 32, the words with them |
//!
//! Same sources, same bytes: tensors and metadata are sorted by name.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufReader, Seek, Write};
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor, bail, safetensors};
use serde::Deserialize;

use super::pull::{Progress, PullError, failed};
use super::weights::Form;

/// What the file format calls "mostly 8 bits".
const FILE_TYPE_Q8_0: u32 = 7;
/// What it calls "all 32 bits"; that of the table of words differs, which no reader minds.
const FILE_TYPE_F32: u32 = 0;

/// Weights in memory, as they will be stored.
pub(super) struct Converted {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, QTensor)>,
}

/// Reads the sources of a model, which were checked.
pub(super) fn convert(form: Form, sources: &[PathBuf], progress: &dyn Fn(Progress)) -> Result<Converted, PullError> {
    let mut converted = match (form, sources) {
        (Form::Language, [gguf]) => language(gguf, progress)?,
        (Form::Embedding { heads, .. }, [weights, tokenizer]) => embedding(heads, weights, tokenizer, progress)?,
        (form, sources) => unreachable!("a recipe of form {form:?} has {} sources", sources.len()),
    };
    converted.metadata.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(converted)
}

fn language(gguf: &Path, progress: &dyn Fn(Progress)) -> Result<Converted, PullError> {
    let file = File::open(gguf).map_err(|source| failed("read", gguf, source))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let content = Content::read(&mut reader).map_err(PullError::Convert)?;
    let mut names: Vec<&String> = content.tensor_infos.keys().collect();
    names.sort();
    let of = names.len();
    let mut tensors = Vec::with_capacity(of);
    for name in names {
        let tensor =
            content.tensor(&mut reader, name, &Device::Cpu).and_then(eight_bits).map_err(PullError::Convert)?;
        tensors.push((name.clone(), tensor));
        progress(Progress::Converting { tensors: tensors.len(), of });
    }
    let mut metadata: Vec<(String, Value)> = content.metadata.into_iter().collect();
    metadata.retain(|(key, _)| key != "general.file_type");
    metadata.push(("general.file_type".to_owned(), Value::U32(FILE_TYPE_Q8_0)));
    Ok(Converted { metadata, tensors })
}

fn eight_bits(tensor: QTensor) -> candle_core::Result<QTensor> {
    match tensor.dtype() {
        GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 | GgmlDType::Q8_0 => Ok(tensor),
        _ => QTensor::quantize(&tensor.dequantize(&Device::Cpu)?, GgmlDType::Q8_0),
    }
}

/// What is needed of a published tokenizer.
#[derive(Deserialize)]
struct Tokenizer {
    model: WordPiece,
}

#[derive(Deserialize)]
struct WordPiece {
    vocab: HashMap<String, u32>,
}

fn embedding(
    heads: u32,
    weights: &Path,
    tokenizer: &Path,
    progress: &dyn Fn(Progress),
) -> Result<Converted, PullError> {
    let text = fs::read(tokenizer).map_err(|source| failed("read", tokenizer, source))?;
    let read: Tokenizer =
        serde_json::from_slice(&text).map_err(|error| failed("read", tokenizer, std::io::Error::from(error)))?;
    let published = safetensors::load(weights, &Device::Cpu).map_err(PullError::Convert)?;
    encoder(heads, read.model.vocab, &published, progress).map_err(PullError::Convert)
}

/// Tensors of an encoder by the names that the format has for them.
fn encoder(
    heads: u32,
    vocabulary: HashMap<String, u32>,
    published: &HashMap<String, Tensor>,
    progress: &dyn Fn(Progress),
) -> candle_core::Result<Converted> {
    let mut words: Vec<(u32, String)> = vocabulary.into_iter().map(|(word, id)| (id, word)).collect();
    words.sort_unstable();
    if words.iter().zip(0..).any(|((id, _), place)| *id != place) {
        bail!("the tokenizer's words are not numbered without gaps");
    }
    let mut names: Vec<(String, String)> =
        published.keys().filter_map(|name| Some((stored_name(name)?, name.clone()))).collect();
    names.sort();
    let blocks = names.iter().filter(|(name, _)| name.ends_with(".attn_q.weight")).count();
    let of = names.len();
    let mut tensors = Vec::with_capacity(of);
    for (name, published_name) in names {
        let tensor = &published[&published_name];
        let dtype = if name == WORDS { GgmlDType::F16 } else { GgmlDType::F32 };
        tensors.push((name, QTensor::quantize(&tensor.to_dtype(candle_core::DType::F32)?, dtype)?));
        progress(Progress::Converting { tensors: tensors.len(), of });
    }
    let words = words.into_iter().map(|(_, word)| Value::String(word)).collect();
    let metadata = vec![
        ("general.architecture".to_owned(), Value::String("bert".to_owned())),
        ("general.file_type".to_owned(), Value::U32(FILE_TYPE_F32)),
        ("tokenizer.ggml.model".to_owned(), Value::String("bert".to_owned())),
        ("tokenizer.ggml.tokens".to_owned(), Value::Array(words)),
        ("bert.attention.head_count".to_owned(), Value::U32(heads)),
        ("bert.block_count".to_owned(), Value::U32(blocks as u32)),
    ];
    Ok(Converted { metadata, tensors })
}

/// The table of words.
const WORDS: &str = "token_embd.weight";

/// What a published tensor is called in the format; `None` for those of no use here.
fn stored_name(published: &str) -> Option<String> {
    let (rest, kind) = published.rsplit_once('.')?;
    let name = match rest {
        "embeddings.word_embeddings" => "token_embd".to_owned(),
        "embeddings.position_embeddings" => "position_embd".to_owned(),
        "embeddings.token_type_embeddings" => "token_types".to_owned(),
        "embeddings.LayerNorm" => "token_embd_norm".to_owned(),
        _ => {
            let (block, part) = rest.strip_prefix("encoder.layer.")?.split_once('.')?;
            let part = match part {
                "attention.self.query" => "attn_q",
                "attention.self.key" => "attn_k",
                "attention.self.value" => "attn_v",
                "attention.output.dense" => "attn_output",
                "attention.output.LayerNorm" => "attn_output_norm",
                "intermediate.dense" => "ffn_up",
                "output.dense" => "ffn_down",
                "output.LayerNorm" => "layer_output_norm",
                _ => return None,
            };
            format!("blk.{block}.{part}")
        }
    };
    matches!(kind, "weight" | "bias").then(|| format!("{name}.{kind}"))
}

impl Converted {
    pub(super) fn write(&self, output: &mut (impl Write + Seek)) -> candle_core::Result<()> {
        let metadata: Vec<(&str, &Value)> = self.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let tensors: Vec<(&str, &QTensor)> =
            self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        gguf_file::write(output, &metadata, &tensors)
    }
}
