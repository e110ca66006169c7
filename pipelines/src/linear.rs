//! Linear heads by one Cholesky factorisation each: ridge regression and discriminant analysis.
//!
//! Sums run in one order whatever the number of threads: threads share rows of a result, never a sum.

use std::ops::Mul;

use ndarray::{Array1, Array2, Axis};
use rayon::prelude::*;

/// A head: scores = weights · features + offsets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Linear {
    /// Classes by features.
    pub(crate) weights: Array2<f32>,
    pub(crate) offsets: Vec<f32>,
}

impl Linear {
    /// One score a class.
    pub(crate) fn scores(&self, features: &[f32]) -> Vec<f64> {
        self.weights
            .axis_iter(Axis(0))
            .zip(&self.offsets)
            .map(|(row, offset)| match row.as_slice() {
                Some(weights) => dot(weights, features) + f64::from(*offset),
                None => dot(&row.to_vec(), features) + f64::from(*offset),
            })
            .collect()
    }
}

/// Mean and scale of features, so that every feature counts alike.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Normaliser {
    pub(crate) mean: Vec<f32>,
    /// Standard deviation; 1 where a feature never varies.
    pub(crate) scale: Vec<f32>,
}

impl Normaliser {
    /// From rows of features with their weights.
    pub(crate) fn fit(rows: &[Vec<f32>], weights: &[f64]) -> Self {
        let width = rows.first().map_or(0, Vec::len);
        let total: f64 = weights.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let mut mean = vec![0.0_f64; width];
        let mut square = vec![0.0_f64; width];
        for (row, weight) in rows.iter().zip(weights) {
            for (j, &value) in row.iter().enumerate() {
                mean[j] += weight * f64::from(value) / total;
            }
        }
        for (row, weight) in rows.iter().zip(weights) {
            for (j, &value) in row.iter().enumerate() {
                square[j] += weight * (f64::from(value) - mean[j]).powi(2) / total;
            }
        }
        let scale = square.iter().map(|s| if s.sqrt() > 1e-6 { s.sqrt() as f32 } else { 1.0 }).collect();
        Self { mean: mean.into_iter().map(|m| m as f32).collect(), scale }
    }

    pub(crate) fn apply(&self, features: &mut [f32]) {
        for ((value, mean), scale) in features.iter_mut().zip(&self.mean).zip(&self.scale) {
            // A feature far outside everything seen in training must not decide alone.
            *value = ((*value - mean) / scale).clamp(-8.0, 8.0);
        }
    }
}

/// Ridge regression of ±1 for each class, weighted, with offsets. Features must be normalised.
///
/// `None` if the system cannot be solved, which a positive `penalty` excludes for finite features.
pub(crate) fn ridge(
    rows: &[Vec<f32>],
    classes: &[usize],
    weights: &[f64],
    class_count: usize,
    penalty: f64,
) -> Option<Linear> {
    let (n, width) = (rows.len(), rows.first()?.len());
    let total: f64 = weights.iter().sum();
    let mut target_mean = vec![0.0; class_count];
    let target = |i: usize, class: usize| if classes[i] == class { 1.0 } else { -1.0 };
    for (class, mean) in target_mean.iter_mut().enumerate() {
        *mean = (0..n).map(|i| weights[i] * target(i, class)).sum::<f64>() / total;
    }
    let mut mean = vec![0.0_f64; width];
    for (row, weight) in rows.iter().zip(weights) {
        for (j, &value) in row.iter().enumerate() {
            mean[j] += weight * f64::from(value) / total;
        }
    }
    // Rows scaled by the root of their weight, so that both forms below are plain least squares.
    let scaled = Array2::from_shape_fn((n, width), |(i, j)| (f64::from(rows[i][j]) - mean[j]) * weights[i].sqrt());
    let targets = Array2::from_shape_fn((n, class_count), |(i, c)| (target(i, c) - target_mean[c]) * weights[i].sqrt());
    let solution: Array2<f64> = if n <= width {
        let mut kernel = gram(&scaled);
        kernel.diag_mut().iter_mut().for_each(|d| *d += penalty);
        let dual = Cholesky::of(kernel)?.solve(&targets);
        product_of_transposed(&scaled, &dual)
    } else {
        let transposed = scaled.t().as_standard_layout().into_owned();
        let mut moment = gram(&transposed);
        moment.diag_mut().iter_mut().for_each(|d| *d += penalty);
        Cholesky::of(moment)?.solve(&product_of_transposed(&scaled, &targets))
    };
    let weights = Array2::from_shape_fn((class_count, width), |(c, j)| solution[[j, c]] as f32);
    let offsets = (0..class_count)
        .map(|c| (target_mean[c] - (0..width).map(|j| mean[j] * solution[[j, c]]).sum::<f64>()) as f32)
        .collect();
    Some(Linear { weights, offsets })
}

/// Linear discriminant analysis with the pooled covariance shrunk towards its mean variance by `shrinkage` (0 to 1);
/// every class is equally likely beforehand. Scores are log posteriors up to a constant.
pub(crate) fn discriminant(
    rows: &[Vec<f32>],
    classes: &[usize],
    weights: &[f64],
    class_count: usize,
    shrinkage: f64,
) -> Option<Linear> {
    let (n, width) = (rows.len(), rows.first()?.len());
    let mut means = Array2::<f64>::zeros((class_count, width));
    let mut mass = vec![0.0_f64; class_count];
    for i in 0..n {
        mass[classes[i]] += weights[i];
        for j in 0..width {
            means[[classes[i], j]] += weights[i] * f64::from(rows[i][j]);
        }
    }
    for (class, mass) in mass.iter().enumerate() {
        if *mass > 0.0 {
            means.row_mut(class).mapv_inplace(|v| v / mass);
        }
    }
    let total: f64 = weights.iter().sum();
    let centred = Array2::from_shape_fn((width, n), |(j, i)| {
        (f64::from(rows[i][j]) - means[[classes[i], j]]) * (weights[i] / total).sqrt()
    });
    let mut covariance = gram(&centred);
    let level = covariance.diag().sum() / width as f64;
    covariance.mapv_inplace(|v| v * (1.0 - shrinkage));
    covariance.diag_mut().iter_mut().for_each(|d| *d += shrinkage * level + 1e-6);
    let directions = Cholesky::of(covariance)?.solve(&means.t().to_owned());
    let weights = Array2::from_shape_fn((class_count, width), |(c, j)| directions[[j, c]] as f32);
    let offsets = (0..class_count)
        .map(|c| (-0.5 * (0..width).map(|j| means[[c, j]] * directions[[j, c]]).sum::<f64>()) as f32)
        .collect();
    Some(Linear { weights, offsets })
}

/// A · Aᵀ, for a matrix of many short or few long rows.
fn gram(a: &Array2<f64>) -> Array2<f64> {
    // Blocks of rows that stay in the second-level cache while the others pass by.
    const BLOCK: usize = 16;
    let n = a.nrows();
    let width = a.ncols();
    let flat = a.as_slice().map_or_else(|| a.iter().copied().collect::<Vec<f64>>(), <[f64]>::to_vec);
    let row = |i: usize| &flat[i * width..(i + 1) * width];
    let blocks: Vec<Vec<f64>> = (0..n.div_ceil(BLOCK))
        .into_par_iter()
        .map(|block| {
            let from = block * BLOCK;
            let to = (from + BLOCK).min(n);
            let mut out = vec![0.0; (to - from) * n];
            for j in 0..to {
                let other = row(j);
                for i in from.max(j)..to {
                    out[(i - from) * n + j] = dot(row(i), other);
                }
            }
            out
        })
        .collect();
    let mut result = Array2::zeros((n, n));
    for (block, values) in blocks.iter().enumerate() {
        for (offset, row) in values.chunks_exact(n).enumerate() {
            let i = block * BLOCK + offset;
            for j in 0..=i {
                result[[i, j]] = row[j];
                result[[j, i]] = row[j];
            }
        }
    }
    result
}

/// Scalar product. Eight running sums, so that the additions do not wait for each other; always the same eight.
pub(crate) fn dot<T: Copy + Mul<Output: Into<f64>>>(a: &[T], b: &[T]) -> f64 {
    let n = a.len().min(b.len());
    let (chunks_a, chunks_b) = (a[..n].chunks_exact(8), b[..n].chunks_exact(8));
    let mut sums = [0.0_f64; 8];
    let rest: f64 = chunks_a.remainder().iter().zip(chunks_b.remainder()).map(|(x, y)| (*x * *y).into()).sum();
    for (x, y) in chunks_a.zip(chunks_b) {
        for lane in 0..8 {
            sums[lane] += (x[lane] * y[lane]).into();
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Aᵀ · B for a tall A and a narrow B.
fn product_of_transposed(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
    let mut out = Array2::zeros((a.ncols(), b.ncols()));
    for (row_a, row_b) in a.axis_iter(Axis(0)).zip(b.axis_iter(Axis(0))) {
        for (mut cells, x) in out.axis_iter_mut(Axis(0)).zip(row_a) {
            cells.scaled_add(*x, &row_b);
        }
    }
    out
}

/// The lower factor L of L · Lᵀ.
struct Cholesky(Array2<f64>);

impl Cholesky {
    /// `None` if the matrix is not positive definite.
    fn of(mut matrix: Array2<f64>) -> Option<Self> {
        let n = matrix.nrows();
        for j in 0..n {
            let (done, mut rest) = matrix.view_mut().split_at(Axis(0), j + 1);
            let pivot_row = done.row(j);
            let pivot_row = pivot_row.as_slice()?;
            let diagonal = pivot_row[j] - dot(&pivot_row[..j], &pivot_row[..j]);
            if !(diagonal > 0.0 && diagonal.is_finite()) {
                return None;
            }
            let root = diagonal.sqrt();
            let head = &pivot_row[..j];
            let update = |mut row: ndarray::ArrayViewMut1<'_, f64>| {
                if let Some(row) = row.as_slice_mut() {
                    row[j] = (row[j] - dot(&row[..j], head)) / root;
                }
            };
            // A thread per row is not worth it for small systems.
            if n > 256 {
                rest.axis_iter_mut(Axis(0)).into_par_iter().with_min_len(64).for_each(update);
            } else {
                rest.axis_iter_mut(Axis(0)).for_each(update);
            }
            matrix[[j, j]] = root;
        }
        Some(Self(matrix))
    }

    fn solve(&self, right: &Array2<f64>) -> Array2<f64> {
        let factor = &self.0;
        let n = factor.nrows();
        let mut out = right.clone();
        for mut column in out.axis_iter_mut(Axis(1)) {
            let mut x: Array1<f64> = column.to_owned();
            for i in 0..n {
                let sum: f64 = (0..i).map(|k| factor[[i, k]] * x[k]).sum();
                x[i] = (x[i] - sum) / factor[[i, i]];
            }
            for i in (0..n).rev() {
                let sum: f64 = (i + 1..n).map(|k| factor[[k, i]] * x[k]).sum();
                x[i] = (x[i] - sum) / factor[[i, i]];
            }
            column.assign(&x);
        }
        out
    }
}

/// Probabilities from scores at a temperature.
pub(crate) fn softmax(scores: &[f64], temperature: f64) -> Vec<f64> {
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scores.iter().map(|s| ((s - top) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_clouds() -> (Vec<Vec<f32>>, Vec<usize>, Vec<f64>) {
        let mut rows = Vec::new();
        let mut classes = Vec::new();
        for i in 0..60_usize {
            let class = i % 3;
            let wobble = ((i * 37 % 17) as f32 - 8.0) / 10.0;
            let other = ((i * 23 % 13) as f32 - 6.0) / 10.0;
            rows.push(vec![class as f32 * 3.0 + wobble, if class == 1 { 3.0 } else { 0.0 } + other, wobble * other]);
            classes.push(class);
        }
        let weights = vec![1.0; rows.len()];
        (rows, classes, weights)
    }

    fn best(scores: &[f64]) -> usize {
        (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap()
    }

    #[test]
    fn both_heads_tell_clouds_apart() {
        let (rows, classes, weights) = three_clouds();
        for head in [ridge(&rows, &classes, &weights, 3, 0.1), discriminant(&rows, &classes, &weights, 3, 0.1)] {
            let head = head.unwrap();
            for (row, &class) in rows.iter().zip(&classes) {
                assert_eq!(best(&head.scores(row)), class);
            }
        }
    }

    #[test]
    fn the_two_forms_of_ridge_agree() {
        let (rows, classes, weights) = three_clouds();
        // Three features, sixty rows: primal. Repeat the features until there are more of them than rows: dual. The
        // repeated weights add up, at a penalty scaled by the number of copies.
        let wide: Vec<Vec<f32>> = rows.iter().map(|row| row.repeat(30)).collect();
        let primal = ridge(&rows, &classes, &weights, 3, 0.5).unwrap();
        let dual = ridge(&wide, &classes, &weights, 3, 15.0).unwrap();
        for (row, wide) in rows.iter().zip(&wide) {
            for (a, b) in primal.scores(row).iter().zip(dual.scores(wide)) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
        }
    }

    #[test]
    fn weight_two_is_the_same_as_twice() {
        let (mut rows, mut classes, mut weights) = three_clouds();
        weights[5] = 2.0;
        let weighted = ridge(&rows, &classes, &weights, 3, 0.1).unwrap();
        weights[5] = 1.0;
        rows.push(rows[5].clone());
        classes.push(classes[5]);
        weights.push(1.0);
        let doubled = ridge(&rows, &classes, &weights, 3, 0.1).unwrap();
        for (a, b) in weighted.weights.iter().zip(&doubled.weights) {
            assert!((a - b).abs() < 1e-6);
        }
    }
}
