//! A matrix of 16-bit numbers, and its product with rows of ordinary ones.
//!
//! Each row of weights, and each row that comes in, has one scale, and numbers of up to 15 bits below it. How many
//! levels an incoming row may have is computed from the weights, so that no sum can leave 32 bits (PR-1): then
//! products are whole numbers and exact, and only the two roundings before them are not. Two such numbers take one
//! instruction where floating point takes two, and lose a hundredth of what 8 bits would.
//!
//! Weights lie in panels of [`PANEL`] outputs, in the order in which the innermost loop reads them. That loop takes
//! [`ROWS`] rows at a time: as many sums as the processor has registers for.

use candle_core::{Result, Tensor, bail};

/// Outputs that are computed side by side: two registers of eight sums.
pub(super) const PANEL: usize = 16;
/// Rows that share a walk over a panel.
const ROWS: usize = 6;
/// The levels of weights on each side of zero. Twelve bits are enough: more would be taken from the rows' share.
const WEIGHT_LEVELS: f32 = 2_047.0;
/// Added to a small number and looked at as bits, this leaves the nearest whole number in the low ones.
const ROUNDER: f32 = 12_582_912.0;

/// Eight outputs' weights of two neighbouring inputs. Kept as the register that they are read into: as an array they would
/// take a way through memory each time.
#[cfg(target_arch = "x86_64")]
type Lanes = std::arch::x86_64::__m256i;
#[cfg(not(target_arch = "x86_64"))]
type Lanes = [i16; 16];

/// One row of weights and one number to add for each output.
pub(super) struct Matrix {
    /// For each panel, for each pair of inputs, its two halves.
    lanes: Vec<[Lanes; 2]>,
    scales: Vec<f32>,
    bias: Vec<f32>,
    inputs: usize,
    /// The levels of incoming rows on each side of zero.
    levels: f32,
}

/// Rows as a product takes them; kept between products for its memory.
#[derive(Default)]
pub(super) struct Scratch {
    /// For each tile of rows, for each pair of inputs, the pair of each row.
    pairs: Vec<[i32; ROWS]>,
    scales: Vec<[f32; ROWS]>,
    /// Of one row.
    levels: Vec<u16>,
}

/// Some outputs.
struct Panel<'a> {
    lanes: &'a [[Lanes; 2]],
    scales: [f32; PANEL],
    bias: [f32; PANEL],
}

/// What a tile gives with a panel: one row for each row of it.
type Product = [[f32; PANEL]; ROWS];

impl Matrix {
    /// Puts matrices with equally many inputs below each other, each with what is added to its outputs and a factor for both.
    pub(super) fn stack(parts: &[(&Tensor, &Tensor, f32)]) -> Result<Self> {
        let (mut rows, mut bias, mut inputs) = (Vec::new(), Vec::new(), 0);
        for (weights, added, factor) in parts {
            let (outputs, columns) = weights.dims2()?;
            if columns == 0 || columns % 2 != 0 || outputs % PANEL != 0 || (inputs != 0 && inputs != columns) {
                bail!("a matrix of {outputs} by {columns} numbers does not fit beside one with {inputs} columns");
            }
            if added.dims1()? != outputs {
                bail!("{} numbers are to be added to {outputs}", added.dims1()?);
            }
            inputs = columns;
            let scaled = |tensor: &Tensor| -> Result<Vec<f32>> {
                Ok(tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().map(|number| number * factor).collect())
            };
            rows.extend(scaled(weights)?);
            bias.extend(scaled(added)?);
        }
        Ok(Self::pack(&rows, bias, inputs))
    }

    fn pack(rows: &[f32], bias: Vec<f32>, inputs: usize) -> Self {
        let outputs = bias.len();
        let mut lanes = vec![[[0_i16; 16]; 2]; outputs / PANEL * (inputs / 2)];
        let (mut scales, mut sum_max) = (Vec::with_capacity(outputs), 1_i64);
        for (output, row) in rows.chunks_exact(inputs).enumerate() {
            let scale = largest(row) / WEIGHT_LEVELS;
            let mut sum = 0;
            for (input, weight) in row.iter().enumerate() {
                let level = if scale == 0.0 { 0 } else { (weight / scale).round() as i16 };
                let (place, lane) = (output % PANEL, (output / PANEL) * (inputs / 2) + input / 2);
                lanes[lane][place / 8][place % 8 * 2 + input % 2] = level;
                sum += i64::from(level.unsigned_abs());
            }
            sum_max = sum_max.max(sum);
            scales.push(scale);
        }
        // PR-1: whatever the row, the sum of its products stays below 2³¹.
        let levels = (i64::from(i32::MAX) / sum_max).min(i64::from(i16::MAX)) as f32;
        let lanes = lanes.into_iter().map(|lanes| lanes.map(pulp::cast)).collect();
        Self { lanes, scales, bias, inputs, levels }
    }

    pub(super) fn outputs(&self) -> usize {
        self.bias.len()
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    /// For each row of `inputs` numbers, a row of `outputs` numbers, in the place of what `results` held.
    pub(super) fn times(&self, rows: &[f32], scratch: &mut Scratch, results: &mut Vec<f32>) {
        self.quantize(rows, scratch);
        let (count, outputs, pairs) = (rows.len() / self.inputs, self.outputs(), self.inputs / 2);
        results.clear();
        results.resize(count * outputs, 0.0);
        let kernel = Kernel::best();
        for (panel, lanes) in self.lanes.chunks_exact(pairs).enumerate() {
            let first = panel * PANEL;
            let part = |all: &[f32]| -> [f32; PANEL] { *all[first..].first_chunk().expect("panels are whole") };
            let panel = Panel { lanes, scales: part(&self.scales), bias: part(&self.bias) };
            let tiles = scratch.pairs.chunks_exact(pairs).zip(&scratch.scales);
            for ((tile, row_scales), results) in tiles.zip(results.chunks_mut(ROWS * outputs)) {
                let made = kernel.product(tile, row_scales, &panel);
                for (row, made) in results.chunks_mut(outputs).zip(&made) {
                    row[first..first + PANEL].copy_from_slice(made);
                }
            }
        }
    }

    /// Rounds rows to levels. The last tile is filled up with rows of zeros.
    fn quantize(&self, rows: &[f32], scratch: &mut Scratch) {
        let (count, pairs) = (rows.len() / self.inputs, self.inputs / 2);
        let tiles = count.div_ceil(ROWS);
        scratch.pairs.clear();
        scratch.pairs.resize(tiles * pairs, [0; ROWS]);
        scratch.scales.clear();
        scratch.scales.resize(tiles, [0.0; ROWS]);
        for (place, row) in rows.chunks_exact(self.inputs).enumerate() {
            let (tile, place) = (place / ROWS, place % ROWS);
            let largest = largest(row);
            let (scale, inverse) =
                if largest > 0.0 { (largest / self.levels, self.levels / largest) } else { (0.0, 0.0) };
            scratch.scales[tile][place] = scale;
            scratch.levels.clear();
            scratch.levels.extend(row.iter().map(|number| (number * inverse + ROUNDER).to_bits() as u16));
            let (levels, _) = scratch.levels.as_chunks::<2>();
            for ([even, odd], pairs) in levels.iter().zip(&mut scratch.pairs[tile * pairs..(tile + 1) * pairs]) {
                pairs[place] = (u32::from(*even) | u32::from(*odd) << 16) as i32;
            }
        }
    }
}

fn largest(row: &[f32]) -> f32 {
    let (lanes, rest) = row.as_chunks::<16>();
    let mut largest = [0.0_f32; 16];
    for lane in lanes {
        for (largest, number) in largest.iter_mut().zip(lane) {
            *largest = if number.abs() > *largest { number.abs() } else { *largest };
        }
    }
    rest.iter().copied().chain(largest).fold(0.0, |largest, number| largest.max(number.abs()))
}

/// How the innermost loop is done on this processor.
#[derive(Clone, Copy)]
enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    Plain,
}

impl Kernel {
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            return Self::Avx2(simd);
        }
        Self::Plain
    }

    /// What a tile gives with a panel.
    #[inline(always)]
    fn product(self, tile: &[[i32; ROWS]], row_scales: &[f32; ROWS], panel: &Panel<'_>) -> Product {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(Avx2 { simd, tile, row_scales, panel }),
            Self::Plain => plain(tile, row_scales, panel),
        }
    }
}

#[cfg(target_arch = "x86_64")]
struct Avx2<'a> {
    simd: pulp::x86::V3,
    tile: &'a [[i32; ROWS]],
    row_scales: &'a [f32; ROWS],
    panel: &'a Panel<'a>,
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for Avx2<'_> {
    type Output = Product;

    #[inline(always)]
    fn call(self) -> Product {
        let (avx, avx2) = (self.simd.avx, self.simd.avx2);
        let mut sums = [[avx._mm256_setzero_si256(); 2]; ROWS];
        for (pairs, [left, right]) in self.tile.iter().zip(self.panel.lanes) {
            for row in 0..ROWS {
                let pair = avx._mm256_set1_epi32(pairs[row]);
                let [sum_left, sum_right] = &mut sums[row];
                *sum_left = avx2._mm256_add_epi32(*sum_left, avx2._mm256_madd_epi16(pair, *left));
                *sum_right = avx2._mm256_add_epi32(*sum_right, avx2._mm256_madd_epi16(pair, *right));
            }
        }
        let halves = |numbers: [f32; PANEL]| -> [std::arch::x86_64::__m256; 2] { pulp::cast(numbers) };
        let (scales, bias) = (halves(self.panel.scales), halves(self.panel.bias));
        std::array::from_fn(|row| {
            let row_scale = avx._mm256_set1_ps(self.row_scales[row]);
            let half = |half: usize| {
                let scale = avx._mm256_mul_ps(row_scale, scales[half]);
                avx._mm256_add_ps(avx._mm256_mul_ps(avx._mm256_cvtepi32_ps(sums[row][half]), scale), bias[half])
            };
            pulp::cast([half(0), half(1)])
        })
    }
}

/// The same without instructions of its own.
fn plain(tile: &[[i32; ROWS]], row_scales: &[f32; ROWS], panel: &Panel<'_>) -> Product {
    let mut sums = [[0_i32; PANEL]; ROWS];
    for (pairs, lanes) in tile.iter().zip(panel.lanes) {
        let lanes: [[i16; 16]; 2] = lanes.map(pulp::cast);
        for (sums, pair) in sums.iter_mut().zip(pairs) {
            let (even, odd) = (*pair as i16, (*pair >> 16) as i16);
            let weights = lanes.iter().flat_map(|lanes| lanes.as_chunks::<2>().0);
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum += i32::from(even) * i32::from(weights[0]) + i32::from(odd) * i32::from(weights[1]);
            }
        }
    }
    std::array::from_fn(|row| {
        std::array::from_fn(|at| sums[row][at] as f32 * (row_scales[row] * panel.scales[at]) + panel.bias[at])
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;

    fn numbers(len: usize, step: usize, salt: usize) -> Vec<f32> {
        (0..len).map(|index| ((index * step + salt) % 17) as f32 / 8.0 - 1.0).collect()
    }

    fn matrix(rows: &[f32], bias: &[f32], inputs: usize) -> Matrix {
        let tensor = |numbers: &[f32], shape: &[usize]| Tensor::from_slice(numbers, shape, &Device::Cpu).expect("fits");
        let weights = tensor(rows, &[bias.len(), inputs]);
        Matrix::stack(&[(&weights, &tensor(bias, &[bias.len()]), 1.0)]).expect("fits")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_product_is_what_it_should_be_but_for_rounding(
            panels in 1..4_usize, count in 0..20_usize, pairs in 1..60_usize, salt in 0..100_usize, large in 0..6_i32,
        ) {
            let (inputs, outputs) = (2 * pairs, PANEL * panels);
            let (weights, bias) = (numbers(inputs * outputs, 5, salt), numbers(outputs, 3, salt));
            let large = 10_f32.powi(large);
            let rows: Vec<f32> = numbers(inputs * count, 7, salt).into_iter().map(|number| number * large).collect();
            let mut results = vec![7.0; 3];
            matrix(&weights, &bias, inputs).times(&rows, &mut Scratch::default(), &mut results);
            prop_assert_eq!(results.len(), count * outputs);
            for (row, results) in rows.chunks(inputs).zip(results.chunks(outputs)) {
                for ((weights, bias), result) in weights.chunks(inputs).zip(&bias).zip(results) {
                    let exact: f32 = row.iter().zip(weights).map(|(a, b)| a * b).sum::<f32>() + bias;
                    prop_assert!((exact - result).abs() < 1e-3 * inputs as f32 * large, "{} {}", exact, result);
                }
            }
        }

        #[test]
        fn every_processor_computes_the_same(salt in 0..1_000_usize, pairs in 1..50_usize) {
            let tile: Vec<[i32; ROWS]> =
                (0..pairs).map(|pair| std::array::from_fn(|row| ((pair * 6 + row) * 2_654_435_761 + salt) as i32)).collect();
            let weight = |pair: usize, half: usize, lane: usize| ((pair * 31 + half * 17 + lane * salt) % 4_095) as i16 - 2_047;
            let lane = |pair: usize, half: usize| -> Lanes {
                pulp::cast(std::array::from_fn::<i16, 16, _>(|lane| weight(pair, half, lane)))
            };
            let panel: Vec<[Lanes; 2]> = (0..pairs).map(|pair| [lane(pair, 0), lane(pair, 1)]).collect();
            // Levels as small as the weights' sums demand of a row.
            let tile: Vec<[i32; ROWS]> = tile.into_iter().map(|pairs| pairs.map(|pair| pair & 0x0FFF_0FFF)).collect();
            let row_scales = std::array::from_fn(|row| 0.1 + row as f32);
            let some = |step: usize| std::array::from_fn(|at| ((at * step + salt) % 7) as f32 / 3.0 - 1.0);
            let panel = Panel { lanes: &panel, scales: some(3), bias: some(5) };
            prop_assert_eq!(Kernel::best().product(&tile, &row_scales, &panel), plain(&tile, &row_scales, &panel));
        }
    }

    #[test]
    fn no_sum_leaves_its_bits_even_if_all_add_up() {
        let inputs = 3_072;
        let weights = vec![1.0; inputs * PANEL];
        let matrix = matrix(&weights, &[0.5; PANEL], inputs);
        let mut results = Vec::new();
        for sign in [1.0, -1.0] {
            matrix.times(&vec![sign * 3.0; inputs], &mut Scratch::default(), &mut results);
            let exact = sign * 3.0 * inputs as f32 + 0.5;
            assert!(results.iter().all(|result| (result - exact).abs() < exact.abs() * 1e-3), "{results:?}");
        }
        matrix.times(&vec![0.0; inputs], &mut Scratch::default(), &mut results);
        assert_eq!(results, vec![0.5; PANEL]);
    }
}
