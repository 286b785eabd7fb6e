//! The network: a Llama with 8-bit weights on the processor.
//!
//! In:  token ids and the cache of what came before them.
//! Out: one number for each token of the vocabulary: how well it would come next.
//!
//! A [`Llama`] is shared and never changes; each answer has a [`Cache`] of its own, so nothing leaks from one
//! to the next. Keys and values lie in rows with room for as long as the answer may become, and attention reads
//! them in place. A token's numbers do not depend on how many cores had time for it.

use std::io::{Read, Seek};

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::matrix::Matrix;

/// The weights and the sizes that belong to them.
pub(super) struct Llama {
    embedding: Matrix,
    blocks: Vec<Block>,
    last_norm: Vec<f32>,
    /// Scores of tokens; `None` if the embedding serves for them too.
    output: Option<Matrix>,
    shape: Shape,
    /// For each position and each pair of a head's numbers: cosine and sine of its angle.
    angles: Vec<(f32, f32)>,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    width: usize,
    heads: usize,
    kv_heads: usize,
    head_width: usize,
    norm_epsilon: f32,
    context: usize,
}

struct Block {
    attention_norm: Vec<f32>,
    /// Queries, keys and values.
    attention_in: Matrix,
    attention_out: Matrix,
    mixer_norm: Vec<f32>,
    /// Gate and contents.
    mixer_in: Matrix,
    mixer_out: Matrix,
}

/// What the network remembers of one conversation.
pub(super) struct Cache {
    blocks: Vec<Memory>,
    len: usize,
    room: usize,
}

/// What one block remembers.
struct Memory {
    keys: Rows,
    values: Rows,
}

/// For each head, one row of numbers for each token.
struct Rows {
    heads: Vec<Vec<f32>>,
}

impl Llama {
    /// Reads the weights; `context_max` caps the window that the file allows.
    pub(super) fn read(content: &Content, reader: &mut (impl Read + Seek), context_max: usize) -> Result<Self> {
        let number = |key: &str| -> Result<usize> {
            match content.metadata.get(key) {
                Some(value) => Ok(value.to_u64()? as usize),
                None => candle_core::bail!("the file says nothing about `{key}`"),
            }
        };
        let float = |key: &str| content.metadata.get(key).and_then(|value| Value::to_f32(value).ok());
        match content.metadata.get("general.architecture").map(Value::to_string) {
            Some(Ok(name)) if name == "llama" => {}
            other => candle_core::bail!("the architecture is {other:?} and not llama"),
        }
        let width = number("llama.embedding_length")?;
        let heads = number("llama.attention.head_count")?;
        let kv_heads = number("llama.attention.head_count_kv")?;
        if heads == 0 || kv_heads == 0 || heads % kv_heads != 0 || width == 0 || width % (2 * heads) != 0 {
            candle_core::bail!("{width} numbers do not divide into {heads} heads in {kv_heads} groups");
        }
        let shape = Shape {
            width,
            heads,
            kv_heads,
            head_width: width / heads,
            norm_epsilon: float("llama.attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
            context: number("llama.context_length")?.min(context_max),
        };
        let kv_width = kv_heads * shape.head_width;
        let mut tensor = |name: &str| content.tensor(reader, name, &Device::Cpu);
        let embedding = sized(Matrix::stack(&[tensor("token_embd.weight")?])?, width, None)?;
        let output = match content.tensor_infos.contains_key("output.weight") {
            true => Some(sized(Matrix::stack(&[tensor("output.weight")?])?, width, Some(embedding.outputs()))?),
            false => None,
        };
        let last_norm = norm(tensor("output_norm.weight")?, width)?;
        let mut blocks = Vec::new();
        for index in 0..number("llama.block_count")? {
            let mut part = |name: &str| tensor(&format!("blk.{index}.{name}.weight"));
            let attention_in = Matrix::stack(&[part("attn_q")?, part("attn_k")?, part("attn_v")?])?;
            let mixer_in = Matrix::stack(&[part("ffn_gate")?, part("ffn_up")?])?;
            let mixer_width = mixer_in.outputs() / 2;
            blocks.push(Block {
                attention_norm: norm(part("attn_norm")?, width)?,
                attention_in: sized(attention_in, width, Some(width + 2 * kv_width))?,
                attention_out: sized(Matrix::stack(&[part("attn_output")?])?, width, Some(width))?,
                mixer_norm: norm(part("ffn_norm")?, width)?,
                mixer_in: sized(mixer_in, width, Some(2 * mixer_width))?,
                mixer_out: sized(Matrix::stack(&[part("ffn_down")?])?, mixer_width, Some(width))?,
            });
        }
        let angles = angles(shape, float("llama.rope.freq_base").unwrap_or(10_000.0));
        Ok(Self { embedding, blocks, last_norm, output, shape, angles })
    }

    /// How many tokens a conversation may have.
    pub(super) fn context(&self) -> usize {
        self.shape.context
    }

    /// An empty memory with room for so many tokens, at most [`Llama::context`].
    pub(super) fn cache(&self, room: usize) -> Cache {
        let room = room.min(self.shape.context);
        let Shape { kv_heads, head_width, .. } = self.shape;
        let rows = || Rows { heads: vec![vec![0.0; room * head_width]; kv_heads] };
        let blocks = self.blocks.iter().map(|_| Memory { keys: rows(), values: rows() }).collect();
        Cache { blocks, len: 0, room }
    }

    /// Reads tokens into the memory and scores what may follow the last of them.
    pub(super) fn read_on(&self, cache: &mut Cache, tokens: &[u32]) -> Result<Vec<f32>> {
        if tokens.is_empty() || cache.len + tokens.len() > cache.room {
            candle_core::bail!("{} tokens do not fit after {} of {}", tokens.len(), cache.len, cache.room);
        }
        let mut state = Vec::with_capacity(tokens.len() * self.shape.width);
        for token in tokens {
            match self.embedding.row(*token as usize) {
                Some(row) => state.extend(row),
                None => candle_core::bail!("there is no token {token}"),
            }
        }
        for (block, memory) in self.blocks.iter().zip(&mut cache.blocks) {
            let seen = self.attend(block, memory, &self.norm(&state, &block.attention_norm), cache.len)?;
            add(&mut state, &block.attention_out.times(&seen));
            let mixed = block.mixer_in.times(&self.norm(&state, &block.mixer_norm));
            add(&mut state, &block.mixer_out.times(&gated(&mixed, block.mixer_in.outputs())));
        }
        cache.len += tokens.len();
        let last = self.norm(&state[(tokens.len() - 1) * self.shape.width..], &self.last_norm);
        Ok(self.output.as_ref().unwrap_or(&self.embedding).times(&last))
    }

    /// Rows with a mean square of one, weighted.
    fn norm(&self, rows: &[f32], weights: &[f32]) -> Vec<f32> {
        let mut normed = Vec::with_capacity(rows.len());
        for row in rows.chunks_exact(self.shape.width) {
            let scale = 1.0 / (dot(row, row) / row.len() as f32 + self.shape.norm_epsilon).sqrt();
            normed.extend(row.iter().zip(weights).map(|(number, weight)| number * scale * weight));
        }
        normed
    }

    fn attend(&self, block: &Block, memory: &mut Memory, state: &[f32], position: usize) -> Result<Vec<f32>> {
        let Shape { width, heads, kv_heads, head_width, .. } = self.shape;
        let kv_width = kv_heads * head_width;
        let mut rows = block.attention_in.times(state);
        let scale = 1.0 / (head_width as f32).sqrt();
        let mut queries = Vec::with_capacity(state.len());
        for (index, row) in rows.chunks_exact_mut(width + 2 * kv_width).enumerate() {
            let (query, rest) = row.split_at_mut(width);
            let (key, value) = rest.split_at_mut(kv_width);
            self.turn(query, position + index, scale);
            self.turn(key, position + index, 1.0);
            memory.keys.write(position + index, key, head_width);
            memory.values.write(position + index, value, head_width);
            queries.extend_from_slice(query);
        }
        if queries.len() == width {
            return Ok(attend_one(&queries, memory, position + 1, head_width, heads / kv_heads));
        }
        self.attend_many(queries, memory, position)
    }

    /// Attention of several tokens, none of which sees a later one.
    fn attend_many(&self, queries: Vec<f32>, memory: &Memory, position: usize) -> Result<Vec<f32>> {
        let Shape { width, heads, kv_heads, head_width, .. } = self.shape;
        let (group, count) = (heads / kv_heads, queries.len() / width);
        let so_far = position + count;
        let tensor = |rows: &Rows| {
            Tensor::from_vec(rows.first(so_far, head_width), (kv_heads, so_far, head_width), &Device::Cpu)
        };
        // Heads that share keys and values stand below each other, so one product serves all of them.
        let queries =
            Tensor::from_vec(queries, (count, kv_heads, group, head_width), &Device::Cpu)?.permute((1, 2, 0, 3))?;
        let queries = queries.reshape((kv_heads, group * count, head_width))?;
        let mut scores = queries.matmul(&tensor(&memory.keys)?.t()?)?.flatten_all()?.to_vec1::<f32>()?;
        scores.par_chunks_mut(so_far).enumerate().for_each(|(row, scores)| {
            let (seen, later) = scores.split_at_mut(position + row % count + 1);
            softmax(seen.iter_mut());
            later.fill(0.0);
        });
        let weights = Tensor::from_vec(scores, (kv_heads, group * count, so_far), &Device::Cpu)?;
        let attended = weights.matmul(&tensor(&memory.values)?)?.reshape((kv_heads, group, count, head_width))?;
        attended.permute((2, 0, 1, 3))?.flatten_all()?.to_vec1()
    }

    /// Turns each pair of neighbouring numbers by an angle that grows with the position, and scales it.
    fn turn(&self, row: &mut [f32], position: usize, scale: f32) {
        let head_width = self.shape.head_width;
        let angles = &self.angles[position * head_width / 2..][..head_width / 2];
        for head in row.chunks_exact_mut(head_width) {
            for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(angles) {
                let (a, b) = (pair[0] * scale, pair[1] * scale);
                pair[0] = a * cos - b * sin;
                pair[1] = a * sin + b * cos;
            }
        }
    }
}

impl Rows {
    /// Takes a token's row, which holds all heads one after another.
    fn write(&mut self, position: usize, row: &[f32], head_width: usize) {
        for (head, part) in self.heads.iter_mut().zip(row.chunks_exact(head_width)) {
            head[position * head_width..][..head_width].copy_from_slice(part);
        }
    }

    /// The rows of the first tokens, head by head.
    fn first(&self, tokens: usize, head_width: usize) -> Vec<f32> {
        self.heads.iter().flat_map(|head| &head[..tokens * head_width]).copied().collect()
    }
}

/// Attention of one token: a walk over the rows, as fast as memory gives them.
fn attend_one(query: &[f32], memory: &Memory, so_far: usize, head_width: usize, group: usize) -> Vec<f32> {
    let mut attended = vec![0.0; query.len()];
    let group_width = group * head_width;
    let heads = memory.keys.heads.iter().zip(&memory.values.heads);
    let groups = query.chunks_exact(group_width).zip(attended.chunks_exact_mut(group_width));
    let mut scores = vec![0.0; so_far * group];
    for ((keys, values), (queries, outs)) in heads.zip(groups) {
        for (key, scores) in keys.chunks_exact(head_width).zip(scores.chunks_exact_mut(group)) {
            for (query, score) in queries.chunks_exact(head_width).zip(scores) {
                *score = dot(query, key);
            }
        }
        for member in 0..group {
            softmax(scores.iter_mut().skip(member).step_by(group));
        }
        for (value, weights) in values.chunks_exact(head_width).zip(scores.chunks_exact(group)) {
            for (out, weight) in outs.chunks_exact_mut(head_width).zip(weights) {
                for (out, value) in out.iter_mut().zip(value) {
                    *out += weight * value;
                }
            }
        }
    }
    attended
}

/// Makes scores into weights that sum to one.
fn softmax<'s>(scores: impl Iterator<Item = &'s mut f32>) {
    let mut scores: Vec<&mut f32> = scores.collect();
    let top = scores.iter().fold(f32::NEG_INFINITY, |top, score| top.max(**score));
    let mut sum = 0.0;
    for score in &mut scores {
        **score = (**score - top).exp();
        sum += **score;
    }
    for score in scores {
        *score /= sum;
    }
}

/// The first half of each row decides how much of the second comes through.
fn gated(rows: &[f32], row_width: usize) -> Vec<f32> {
    let mut through = Vec::with_capacity(rows.len() / 2);
    for row in rows.chunks_exact(row_width) {
        let (gates, contents) = row.split_at(row_width / 2);
        through.extend(gates.iter().zip(contents).map(|(gate, content)| gate / (1.0 + (-gate).exp()) * content));
    }
    through
}

fn add(state: &mut [f32], more: &[f32]) {
    for (number, more) in state.iter_mut().zip(more) {
        *number += more;
    }
}

/// Summed in lanes, because the processor has lanes and addition in one order would use one of them.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 32;
    let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_lanes.remainder().iter().zip(b_lanes.remainder()).map(|(a, b)| a * b).sum();
    let mut sums = [0.0_f32; LANES];
    for (a, b) in a_lanes.zip(b_lanes) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn norm(tensor: candle_core::quantized::QTensor, width: usize) -> Result<Vec<f32>> {
    let weights = tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    if weights.len() == width {
        Ok(weights)
    } else {
        candle_core::bail!("{} weights for {width} numbers", weights.len())
    }
}

/// Checked once here, so that no product meets a row that does not fit.
fn sized(matrix: Matrix, inputs: usize, outputs: Option<usize>) -> Result<Matrix> {
    if matrix.inputs() != inputs || outputs.is_some_and(|outputs| outputs != matrix.outputs()) {
        candle_core::bail!(
            "a matrix makes {} of {} numbers where {outputs:?} of {inputs} fit",
            matrix.outputs(),
            matrix.inputs()
        );
    }
    Ok(matrix)
}

fn angles(shape: Shape, base: f32) -> Vec<(f32, f32)> {
    let pairs = shape.head_width / 2;
    let speeds: Vec<f32> = (0..pairs).map(|pair| base.powf(-((2 * pair) as f32) / shape.head_width as f32)).collect();
    (0..shape.context)
        .flat_map(|position| speeds.iter().map(move |speed| position as f32 * speed).collect::<Vec<_>>())
        .map(|angle| (angle.cos(), angle.sin()))
        .collect()
}
