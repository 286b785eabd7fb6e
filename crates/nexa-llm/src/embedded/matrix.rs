//! A matrix of 8-bit numbers, and its product with rows of ordinary ones.
//!
//! The dot products are candle's; the loop around them is not. Candle's own loop keeps one spinning thread on
//! each core and waits at every product until each of them has answered, also when it had nothing to do. On a
//! machine with other work that made a token 28 times slower (3 a second instead of 85, two cores, load 4).
//! Here the calling thread does the work and rayon's threads take parts of it off it if they have time.

use candle_core::quantized::k_quants::BlockQ8_0;
use candle_core::quantized::{GgmlType, QTensor};
use candle_core::{Device, Result};
use rayon::prelude::*;

/// Numbers that share a scale.
const BLOCK: usize = BlockQ8_0::BLCK_SIZE;
/// A product of one row with fewer weights is done before another thread has woken up.
const WEIGHTS_TO_SHARE: usize = 800_000;
/// Results of one row that are computed in one go: less is not worth handing over.
const OUTPUTS_A_TASK: usize = 96;
/// Rows that share a walk over the weights.
const ROWS_A_TASK: usize = 16;

/// One row of weights for each result.
pub(super) struct Matrix {
    blocks: Vec<BlockQ8_0>,
    inputs: usize,
    outputs: usize,
}

impl Matrix {
    /// Puts matrices with equally many inputs below each other, so that one product serves all of them.
    pub(super) fn stack(tensors: &[QTensor]) -> Result<Self> {
        let (mut blocks, mut inputs, mut outputs) = (Vec::new(), 0, 0);
        for tensor in tensors {
            let (rows, columns) = tensor.shape().dims2()?;
            if columns == 0 || columns % BLOCK != 0 || (inputs != 0 && inputs != columns) {
                candle_core::bail!(
                    "a matrix of {rows} by {columns} numbers does not fit below one with {inputs} columns"
                );
            }
            let numbers = tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
            let start = blocks.len();
            blocks.resize(start + numbers.len() / BLOCK, BlockQ8_0::zeros());
            BlockQ8_0::from_float(&numbers, &mut blocks[start..]);
            (inputs, outputs) = (columns, outputs + rows);
        }
        Ok(Self { blocks, inputs, outputs })
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    /// One row of weights as ordinary numbers, if there is such a row.
    pub(super) fn row(&self, index: usize) -> Option<Vec<f32>> {
        let mut numbers = vec![0.0; self.inputs];
        let width = self.inputs / BLOCK;
        BlockQ8_0::to_float(self.blocks.get(index * width..(index + 1) * width)?, &mut numbers);
        Some(numbers)
    }

    /// For each row of `inputs` numbers, a row of `outputs` numbers.
    pub(super) fn times(&self, rows: &[f32]) -> Vec<f32> {
        let width = self.inputs / BLOCK;
        let count = rows.len() / self.inputs;
        let mut quantized = vec![BlockQ8_0::zeros(); count * width];
        BlockQ8_0::from_float(&rows[..count * self.inputs], &mut quantized);
        let mut results = vec![0.0; count * self.outputs];
        if count == 1 && self.inputs * self.outputs < WEIGHTS_TO_SHARE {
            self.some(0, &quantized, &mut results, self.outputs);
        } else if count == 1 {
            results.par_chunks_mut(OUTPUTS_A_TASK).enumerate().for_each(|(task, results)| {
                self.some(task * OUTPUTS_A_TASK, &quantized, results, self.outputs);
            });
        } else {
            results
                .par_chunks_mut(ROWS_A_TASK * self.outputs)
                .zip(quantized.par_chunks(ROWS_A_TASK * width))
                .for_each(|(results, rows)| self.some(0, rows, results, self.outputs));
        }
        results
    }

    /// The results from one output on, for some rows; `stride` apart. A single row may have fewer of them.
    fn some(&self, first: usize, rows: &[BlockQ8_0], results: &mut [f32], stride: usize) {
        let width = self.inputs / BLOCK;
        let outputs = results.len().min(stride);
        let weights = &self.blocks[first * width..];
        let at = |output: usize| &weights[output * width..(output + 1) * width];
        for output in (0..outputs).step_by(4) {
            for (row, results) in rows.chunks_exact(width).zip(results.chunks_mut(stride)) {
                if output + 4 <= outputs {
                    let (a, b, c, d) = (at(output), at(output + 1), at(output + 2), at(output + 3));
                    let (a, b, c, d) = BlockQ8_0::vec_dot_4(self.inputs, a, b, c, d, row);
                    results[output..output + 4].copy_from_slice(&[a, b, c, d]);
                } else {
                    for (output, result) in results.iter_mut().enumerate().take(outputs).skip(output) {
                        *result = BlockQ8_0::vec_dot(self.inputs, at(output), row);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;
    use candle_core::quantized::GgmlDType;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_product_is_what_it_should_be_but_for_rounding(
            upper in 1..130_usize, lower in 1..9_usize, count in 1..40_usize, blocks in 1..4_usize, salt in 0..100_usize,
        ) {
            let inputs = blocks * BLOCK;
            let numbers = |len: usize, step: usize| -> Vec<f32> {
                (0..len).map(|index| ((index * step + salt) % 17) as f32 / 8.0 - 1.0).collect()
            };
            let (high, low, rows) = (numbers(upper * inputs, 5), numbers(lower * inputs, 3), numbers(count * inputs, 7));
            let tensor = |numbers: &[f32]| {
                let tensor = Tensor::from_slice(numbers, (numbers.len() / inputs, inputs), &Device::Cpu).expect("it fits");
                QTensor::quantize(&tensor, GgmlDType::Q8_0).expect("it fits")
            };
            let matrix = Matrix::stack(&[tensor(&high), tensor(&low)]).expect("equal columns");
            let all = [high, low].concat();
            let results = matrix.times(&rows);
            prop_assert_eq!(results.len(), count * (upper + lower));
            for (row, results) in rows.chunks(inputs).zip(results.chunks(upper + lower)) {
                for (weights, result) in all.chunks(inputs).zip(results) {
                    let exact: f32 = row.iter().zip(weights).map(|(a, b)| a * b).sum();
                    prop_assert!((exact - result).abs() < 0.02 * inputs as f32, "{} {}", exact, result);
                }
            }
        }
    }
}
