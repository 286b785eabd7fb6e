//! The network: a BERT encoder, over the pieces of several texts at once.
//!
//! Texts stand one after the other in one matrix, so nothing is padded and nothing masked: products take all rows alike,
//! and attention looks at one text at a time. A text's vector is the mean of its rows.
//!
//! Not here: threads (`engine`), what the pieces mean (`pieces`).

use std::io::{Read, Seek};

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Result, Tensor, bail};

use super::attention::{self, HEAD_WIDTH, attend, gelu};
use super::product::{self, Matrix};

/// Pieces of a text that count: with more, this network was not taught.
pub(super) const PIECES_MAX: usize = 256;
/// Rows that go through a mixer together: its inner rows are four times as wide, and should stay near the processor.
const MIXER_ROWS: usize = 96;
/// Keeps a division from being one by zero.
const NORM_EPSILON: f32 = 1e-12;

/// The weights and the sizes that belong to them.
pub(super) struct Encoder {
    words: Table,
    /// What is added at each position.
    positions: Vec<f32>,
    norm: Norm,
    blocks: Vec<Block>,
    width: usize,
}

struct Block {
    /// Queries, scaled, then keys, then values.
    attention_in: Matrix,
    attention_out: Matrix,
    attention_norm: Norm,
    mixer_in: Matrix,
    mixer_out: Matrix,
    mixer_norm: Norm,
}

/// Makes rows that have mean zero and variance one, weighted and moved.
struct Norm {
    weights: Vec<f32>,
    bias: Vec<f32>,
}

/// Rows of 16-bit numbers, each with its scale: half of what it takes in full, and as good.
struct Table {
    levels: Vec<i16>,
    scales: Vec<f32>,
}

impl Encoder {
    pub(super) fn read(content: &Content, reader: &mut (impl Read + Seek)) -> Result<Self> {
        let number = |key: &str| -> Result<usize> {
            match content.metadata.get(key) {
                Some(value) => Ok(value.to_u64()? as usize),
                None => bail!("the file says nothing about `{key}`"),
            }
        };
        match content.metadata.get("general.architecture").map(|value| value.to_string()) {
            Some(Ok(name)) if name == "bert" => {}
            other => bail!("the architecture is {other:?} and not bert"),
        }
        let mut tensor =
            |name: &str| -> Result<Tensor> { content.tensor(reader, name, &Device::Cpu)?.dequantize(&Device::Cpu) };
        let words = tensor("token_embd.weight")?;
        let (_, width) = words.dims2()?;
        let heads = number("bert.attention.head_count")?;
        if width == 0 || width != heads * HEAD_WIDTH {
            bail!("{width} numbers in {heads} heads are not {HEAD_WIDTH} each");
        }
        let words = Table::new(&words.flatten_all()?.to_vec1::<f32>()?, width);
        let (positions, kinds) = (tensor("position_embd.weight")?, tensor("token_types.weight")?);
        if positions.dims2()?.0 < PIECES_MAX {
            bail!("the file has {} positions, fewer than {PIECES_MAX}", positions.dims2()?.0);
        }
        // All pieces are of the first kind: there is no second text beside them.
        let positions = positions.narrow(0, 0, PIECES_MAX)?.broadcast_add(&kinds.narrow(0, 0, 1)?)?;
        let positions = positions.flatten_all()?.to_vec1::<f32>()?;
        let norm = Norm::read(&mut tensor, "token_embd_norm", width)?;
        let mut blocks = Vec::new();
        for block in 0..number("bert.block_count")? {
            blocks.push(Block::read(&mut tensor, block, width)?);
        }
        Ok(Self { words, positions, norm, blocks, width })
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// How many pieces it knows.
    pub(super) fn pieces(&self) -> usize {
        self.words.scales.len()
    }

    /// The mean row of each text, in order. No text is empty, and none has a piece that the network does not know.
    pub(super) fn encode(&self, texts: &[&[u32]]) -> Vec<Vec<f32>> {
        let width = self.width;
        let mut state = self.embed(texts);
        let (mut rows, mut results, mut attended) = (product::Scratch::default(), Vec::new(), vec![0.0; state.len()]);
        let (mut heads, mut inner) = (attention::Scratch::default(), Vec::new());
        for block in &self.blocks {
            block.attention_in.times(&state, &mut rows, &mut results);
            let (mut from, mut to) = (results.as_slice(), attended.as_mut_slice());
            for text in texts {
                let (now, later) = from.split_at(3 * width * text.len());
                let (into, rest) = to.split_at_mut(width * text.len());
                attend(now, width, &mut heads, into);
                (from, to) = (later, rest);
            }
            block.attention_out.times(&attended, &mut rows, &mut results);
            block.attention_norm.add(&mut state, &results);
            for state in state.chunks_mut(MIXER_ROWS * width) {
                block.mixer_in.times(state, &mut rows, &mut inner);
                gelu(&mut inner);
                block.mixer_out.times(&inner, &mut rows, &mut results);
                block.mixer_norm.add(state, &results);
            }
        }
        let mut state = state.as_slice();
        let mut means = Vec::with_capacity(texts.len());
        for text in texts {
            let (rows, later) = state.split_at(width * text.len());
            let mut mean = vec![0.0; width];
            for row in rows.chunks_exact(width) {
                mean.iter_mut().zip(row).for_each(|(mean, number)| *mean += number / text.len() as f32);
            }
            means.push(mean);
            state = later;
        }
        means
    }

    fn embed(&self, texts: &[&[u32]]) -> Vec<f32> {
        let width = self.width;
        let mut state = Vec::with_capacity(texts.iter().map(|text| text.len()).sum::<usize>() * width);
        for text in texts {
            for (piece, position) in text.iter().zip(self.positions.chunks_exact(width)) {
                let scale = self.words.scales[*piece as usize];
                let levels = &self.words.levels[*piece as usize * width..][..width];
                state.extend(levels.iter().zip(position).map(|(level, added)| f32::from(*level) * scale + added));
            }
        }
        state.chunks_exact_mut(width).for_each(|row| self.norm.apply(row));
        state
    }
}

impl Block {
    fn read(tensor: &mut impl FnMut(&str) -> Result<Tensor>, block: usize, width: usize) -> Result<Self> {
        let mut part = |name: &str| -> Result<(Tensor, Tensor)> {
            let (weights, bias) = (format!("blk.{block}.{name}.weight"), format!("blk.{block}.{name}.bias"));
            Ok((tensor(&weights)?, tensor(&bias)?))
        };
        let [queries, keys, values] = [part("attn_q")?, part("attn_k")?, part("attn_v")?];
        // The scale of scores goes into the queries' weights.
        let scale = 1.0 / (HEAD_WIDTH as f32).sqrt();
        let attention_in = [(&queries, scale), (&keys, 1.0), (&values, 1.0)];
        let attention_in = attention_in.map(|((weights, bias), factor)| (weights, bias, factor));
        let mut single = |name: &str| -> Result<Matrix> {
            let (weights, bias) = part(name)?;
            Matrix::stack(&[(&weights, &bias, 1.0)])
        };
        let (attention_out, mixer_in, mixer_out) = (single("attn_output")?, single("ffn_up")?, single("ffn_down")?);
        let mixer_width = mixer_in.outputs();
        Ok(Self {
            attention_in: sized(Matrix::stack(&attention_in)?, width, 3 * width)?,
            attention_out: sized(attention_out, width, width)?,
            mixer_in: sized(mixer_in, width, mixer_width)?,
            mixer_out: sized(mixer_out, mixer_width, width)?,
            attention_norm: Norm::read(tensor, &format!("blk.{block}.attn_output_norm"), width)?,
            mixer_norm: Norm::read(tensor, &format!("blk.{block}.layer_output_norm"), width)?,
        })
    }
}

impl Norm {
    fn read(tensor: &mut impl FnMut(&str) -> Result<Tensor>, name: &str, width: usize) -> Result<Self> {
        let mut numbers = |kind: &str| -> Result<Vec<f32>> {
            let numbers = tensor(&format!("{name}.{kind}"))?.flatten_all()?.to_vec1::<f32>()?;
            if numbers.len() == width { Ok(numbers) } else { bail!("{} numbers for {width} in {name}", numbers.len()) }
        };
        Ok(Self { weights: numbers("weight")?, bias: numbers("bias")? })
    }

    /// Adds rows to others and norms these.
    fn add(&self, state: &mut [f32], more: &[f32]) {
        let width = self.weights.len();
        for (row, more) in state.chunks_exact_mut(width).zip(more.chunks_exact(width)) {
            row.iter_mut().zip(more).for_each(|(number, more)| *number += more);
            self.apply(row);
        }
    }

    fn apply(&self, row: &mut [f32]) {
        let mean = sum(row, |number| number) / row.len() as f32;
        let variance = sum(row, |number| (number - mean) * (number - mean)) / row.len() as f32;
        let scale = 1.0 / (variance + NORM_EPSILON).sqrt();
        for ((number, weight), bias) in row.iter_mut().zip(&self.weights).zip(&self.bias) {
            *number = (*number - mean) * scale * weight + bias;
        }
    }
}

impl Table {
    fn new(numbers: &[f32], width: usize) -> Self {
        let (mut levels, mut scales) = (Vec::with_capacity(numbers.len()), Vec::with_capacity(numbers.len() / width));
        for row in numbers.chunks_exact(width) {
            let largest = row.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
            let scale = largest / f32::from(i16::MAX);
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            levels.extend(row.iter().map(|number| (number * inverse).round() as i16));
            scales.push(scale);
        }
        Self { levels, scales }
    }
}

/// Summed in lanes, because the processor has lanes and addition in one order would use one of them.
fn sum(row: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let (lanes, rest) = row.as_chunks::<32>();
    let mut sums = [0.0_f32; 32];
    for lane in lanes {
        sums.iter_mut().zip(lane).for_each(|(sum, number)| *sum += of(*number));
    }
    sums.iter().sum::<f32>() + rest.iter().map(|number| of(*number)).sum::<f32>()
}

/// Checked once here, so that no product meets a row that does not fit.
fn sized(matrix: Matrix, inputs: usize, outputs: usize) -> Result<Matrix> {
    if (matrix.inputs(), matrix.outputs()) != (inputs, outputs) {
        bail!("a matrix makes {} of {} numbers, not {outputs} of {inputs}", matrix.outputs(), matrix.inputs());
    }
    Ok(matrix)
}
