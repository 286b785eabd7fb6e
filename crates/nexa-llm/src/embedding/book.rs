//! The same network by the book, in floating point and one text at a time: what `encoder` is held against, in tests and
//! where it is measured.

use std::collections::HashMap;

use candle_core::{D, Result, Tensor};

/// The mean of a text's rows, from tensors by their published names.
pub(crate) fn mean(tensors: &HashMap<String, Tensor>, heads: usize, pieces: &[u32]) -> Result<Vec<f32>> {
    let get = |name: &str| &tensors[name];
    let linear = |state: &Tensor, name: &str| -> Result<Tensor> {
        state.matmul(&get(&format!("{name}.weight")).t()?)?.broadcast_add(get(&format!("{name}.bias")))
    };
    let norm = |state: Tensor, name: &str| -> Result<Tensor> {
        let state = state.broadcast_sub(&state.mean_keepdim(D::Minus1)?)?;
        let scale = (state.sqr()?.mean_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
        let state = state.broadcast_div(&scale)?.broadcast_mul(get(&format!("{name}.weight")))?;
        state.broadcast_add(get(&format!("{name}.bias")))
    };
    let words = get("embeddings.word_embeddings.weight");
    let (count, width) = (pieces.len(), words.dim(1)?);
    let ids = Tensor::from_slice(pieces, count, words.device())?;
    let mut state = words.index_select(&ids, 0)?;
    state = (state + get("embeddings.position_embeddings.weight").narrow(0, 0, count)?)?;
    state = state.broadcast_add(&get("embeddings.token_type_embeddings.weight").narrow(0, 0, 1)?)?;
    state = norm(state, "embeddings.LayerNorm")?;
    for block in (0..).map(|block| format!("encoder.layer.{block}")) {
        if !tensors.contains_key(&format!("{block}.output.dense.weight")) {
            break;
        }
        let part = |part: &str| -> Result<Tensor> {
            let rows = linear(&state, &format!("{block}.attention.self.{part}"))?;
            rows.reshape((count, heads, width / heads))?.transpose(0, 1)?.contiguous()
        };
        let (queries, keys, values) = (part("query")?, part("key")?, part("value")?);
        let scores = (queries.matmul(&keys.t()?)? / ((width / heads) as f64).sqrt())?;
        let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
        let attended = weights.matmul(&values)?.transpose(0, 1)?.reshape((count, width))?;
        let attended = linear(&attended, &format!("{block}.attention.output.dense"))?;
        state = norm((state + attended)?, &format!("{block}.attention.output.LayerNorm"))?;
        let inner = linear(&state, &format!("{block}.intermediate.dense"))?.gelu_erf()?;
        let mixed = linear(&inner, &format!("{block}.output.dense"))?;
        state = norm((state + mixed)?, &format!("{block}.output.LayerNorm"))?;
    }
    state.mean(0)?.to_vec1()
}
