//! Whether probabilities come true.

use serde::{Deserialize, Serialize};

/// Bins of a reliability diagram.
const BINS: usize = 10;

/// Answers of about the same confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Confidences from this, 0 to 1, the bin's upper end not included (in the last bin it is).
    pub from: f64,
    /// Upper end.
    pub to: f64,
    /// Answers.
    pub examples: usize,
    /// Their mean confidence; 0 without answers.
    pub confidence: f64,
    /// Share of them that was right; 0 without answers.
    pub accuracy: f64,
}

/// The reliability diagram of answers, each with whether it was right and its probability: ten bins of equal width.
pub(crate) fn reliability(answers: impl Iterator<Item = (bool, f64)>) -> Vec<ReliabilityBin> {
    let mut sums = [(0_usize, 0.0_f64, 0_usize); BINS];
    for (right, confidence) in answers {
        let bin = ((confidence * BINS as f64) as usize).min(BINS - 1);
        sums[bin].0 += 1;
        sums[bin].1 += confidence;
        sums[bin].2 += usize::from(right);
    }
    sums.iter()
        .enumerate()
        .map(|(bin, &(examples, confidence, right))| {
            let count = examples.max(1) as f64;
            ReliabilityBin {
                from: bin as f64 / BINS as f64,
                to: (bin + 1) as f64 / BINS as f64,
                examples,
                confidence: confidence / count,
                accuracy: right as f64 / count,
            }
        })
        .collect()
}

/// Expected calibration error of a diagram: the mean distance of confidence and accuracy over answers.
pub(crate) fn expected_error(bins: &[ReliabilityBin]) -> f64 {
    let examples: usize = bins.iter().map(|bin| bin.examples).sum();
    let sum: f64 = bins.iter().map(|bin| bin.examples as f64 * (bin.confidence - bin.accuracy).abs()).sum();
    sum / examples.max(1) as f64
}

/// Expected calibration error of answers.
pub(crate) fn calibration_error(answers: impl Iterator<Item = (bool, f64)>) -> f64 {
    expected_error(&reliability(answers))
}

/// Several diagrams as one.
pub(crate) fn merged(diagrams: &[&[ReliabilityBin]]) -> Vec<ReliabilityBin> {
    let mut bins = reliability(std::iter::empty());
    for (i, bin) in bins.iter_mut().enumerate() {
        let there: Vec<&ReliabilityBin> = diagrams.iter().filter_map(|diagram| diagram.get(i)).collect();
        bin.examples = there.iter().map(|one| one.examples).sum();
        let mean = |of: fn(&ReliabilityBin) -> f64| {
            there.iter().map(|one| of(one) * one.examples as f64).sum::<f64>() / bin.examples.max(1) as f64
        };
        (bin.confidence, bin.accuracy) = (mean(|one| one.confidence), mean(|one| one.accuracy));
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_what_confidence_and_accuracy_differ_by() {
        // Ten answers at 0.85, seven right: 0.15 off; ten at 1, all right.
        let answers: Vec<(bool, f64)> = (0..10).map(|i| (i < 7, 0.85)).chain((0..10).map(|_| (true, 1.0))).collect();
        let bins = reliability(answers.iter().copied());
        assert_eq!((bins[8].examples, bins[9].examples), (10, 10));
        assert!((bins[8].accuracy - 0.7).abs() < 1e-12 && (bins[8].confidence - 0.85).abs() < 1e-12);
        assert!((expected_error(&bins) - 0.075).abs() < 1e-12);
        let twice = merged(&[&bins, &bins]);
        assert_eq!(twice[8].examples, 20);
        assert!((expected_error(&twice) - 0.075).abs() < 1e-12);
        assert!(calibration_error(std::iter::empty()).abs() < 1e-12);
    }
}
