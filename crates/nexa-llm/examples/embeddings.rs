//! Measures the embedded model for vectors, beside one product of the same shapes in floating point:
//! `cargo run --profile fast -p nexa-llm --example embeddings -- MODELS_DIR PUBLISHED_DIR [TEXTS]`.
//!
//! `PUBLISHED_DIR` has `model.safetensors` and `tokenizer.json` as they are published; `TEXTS` has a text on each line, and
//! each vector of it is held against that of the network by the book.

#[path = "../src/embedding/book.rs"]
mod book;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor, safetensors};
use nexa_llm::embedded::ModelStore;
use nexa_llm::embedded::pull::Source;
use nexa_llm::embedding::EmbeddingModel;
use nexa_ports::dice::{Dice, SeededDice};
use nexa_ports::embedder::{EmbedCall, Embedder, UnitVector, Urgency};
use nexa_types::TenantId;
use tokenizers::{Tokenizer, TruncationParams};
use tokio_util::sync::CancellationToken;

/// Pieces of a page of eight messages.
const PAGE_PIECES: usize = 211;
const HEADS: usize = 12;
const WORDS: &str = "the of and to in is was for on that by with as at from his it an were which are this also be had or \
    first their after its one but who they have her she not two been other when all during there into most some new time \
    between only three years up no over made such used may later where than then out city state school house work day";

fn call(texts: Vec<Arc<str>>, urgency: Urgency) -> EmbedCall {
    let (tenant, deadline, cancel) = (TenantId::local(), Duration::from_secs(600), CancellationToken::new());
    EmbedCall { texts, tenant, urgency, deadline, cancel }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(PathBuf::from);
    let (Some(models), Some(published)) = (args.next(), args.next()) else { return Err("two folders, please".into()) };
    let store = ModelStore::embedding(models);
    store.pull(&Source::File(published.clone()), |_| {}).await?;
    let model = EmbeddingModel::new(store);
    let began = Instant::now();
    let texts =
        ["The new movie is awesome", "The new movie is so great", "The cat sits outside", "A man is playing guitar"];
    let vectors = model.embed(call(texts.map(Arc::from).to_vec(), Urgency::Query)).await?.vectors;
    println!("first call, weights checked and read: {:?}", began.elapsed());
    println!("cosines {:.4} {:.4}, known .894 .036", vectors[0].cosine(&vectors[1]), vectors[2].cosine(&vectors[3]));
    memory("loaded");

    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let dice = SeededDice::new(1);
    let page = |pieces: usize| -> Arc<str> {
        let words: Vec<&str> = (0..pieces - 2).map(|_| words[dice.roll() as usize % words.len()]).collect();
        words.join(" ").into()
    };
    let (mut rates, mut work) = (Vec::new(), 0.0);
    for _ in 0..5 {
        let pages: Vec<Arc<str>> = (0..96).map(|_| page(PAGE_PIECES)).collect();
        let (began, worked) = (Instant::now(), processor_s());
        let made = model.embed(call(pages, Urgency::Background)).await?;
        assert_eq!(made.spend.tokens_in.0, 96 * PAGE_PIECES as u64);
        rates.push(96.0 / began.elapsed().as_secs_f64());
        work += (processor_s() - worked) / 96.0;
    }
    let (floor, floor_work) = floor()?;
    println!("pages of {PAGE_PIECES} pieces a second: {rates:.1?}; f32 products alone: {floor:.1}");
    println!("processor time of a page: {:.1} ms; of f32 products alone: {:.1} ms", work / 5.0 * 1e3, floor_work * 1e3);
    for pieces in [8, 16, 32] {
        let mut times = Vec::new();
        for _ in 0..200 {
            let query = page(pieces);
            let began = Instant::now();
            model.embed(call(vec![query], Urgency::Query)).await?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        println!("a query of {pieces} pieces: p50 {:.2} ms, p99 {:.2} ms", times[100], times[197]);
    }
    memory("after work");
    if let Some(texts) = args.next() {
        against_the_book(&model, &published, &std::fs::read_to_string(texts)?).await?;
    }
    Ok(())
}

/// Pages a second if there were nothing but the products of all matrices, 32 pages at a time, and processor time of a page.
fn floor() -> candle_core::Result<(f64, f64)> {
    const PAGES: usize = 32;
    const TIMES: usize = 3;
    let rows = PAGES * PAGE_PIECES;
    let tensor = |rows: usize, columns: usize| Tensor::rand(-1.0_f32, 1.0, (rows, columns), &Device::Cpu);
    let (narrow, wide) = (tensor(rows, 384)?, tensor(rows, 1_536)?);
    let shapes = [(&narrow, 1_152), (&narrow, 384), (&narrow, 1_536), (&wide, 384)];
    let mut matrices = Vec::new();
    for (rows, outputs) in shapes {
        matrices.push((rows, tensor(rows.dim(1)?, outputs)?));
    }
    let (mut best, worked) = (f64::INFINITY, processor_s());
    for _ in 0..TIMES {
        let began = Instant::now();
        for (rows, matrix) in &matrices {
            rows.matmul(matrix)?;
        }
        best = best.min(began.elapsed().as_secs_f64());
    }
    let work = (processor_s() - worked) / (TIMES * PAGES) as f64;
    Ok((PAGES as f64 / (6.0 * best), 6.0 * work))
}

/// Processor time of this process so far: where others compute beside it, it says more than the clock.
fn processor_s() -> f64 {
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks: f64 = after.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    ticks / TICKS_A_SECOND
}

async fn against_the_book(
    model: &EmbeddingModel,
    published: &std::path::Path,
    texts: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let tensors = safetensors::load(published.join("model.safetensors"), &Device::Cpu)?;
    let mut tokenizer = Tokenizer::from_file(published.join("tokenizer.json")).map_err(|error| error.to_string())?;
    tokenizer.with_padding(None);
    let truncation = TruncationParams { max_length: 256, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(|error| error.to_string())?;
    let mut cosines = Vec::new();
    let lines: Vec<&str> = texts.lines().filter(|line| !line.is_empty()).collect();
    for lines in lines.chunks(64) {
        let made = model.embed(call(lines.iter().map(|line| Arc::from(*line)).collect(), Urgency::Background)).await?;
        for (line, vector) in lines.iter().zip(made.vectors) {
            let pieces = tokenizer.encode(*line, true).map_err(|error| error.to_string())?;
            let exact = book::mean(&tensors, HEADS, pieces.get_ids())?;
            let exact = UnitVector::towards(exact).ok_or("no direction")?;
            cosines.push(vector.cosine(&exact));
        }
    }
    cosines.sort_by(f32::total_cmp);
    let mean = cosines.iter().map(|cosine| f64::from(*cosine)).sum::<f64>() / cosines.len() as f64;
    println!("against the book, {} texts: least cosine {:.6}, mean {mean:.6}", cosines.len(), cosines[0]);
    Ok(())
}

fn memory(when: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |key: &str| status.lines().find(|line| line.starts_with(key)).unwrap_or("?").to_owned();
    println!("memory, {when}: {} {}", of("VmRSS"), of("VmHWM"));
}
