//! Which of Parquet's encodings makes a column of measured values smaller: whole values in a dictionary, or their bytes
//! split by weight.
//!
//! A converter of 16 bits gives the same few thousand values over and over: a dictionary stores each once and a number of 13
//! bits or so for every sample. Values that hardly repeat (a filter computed them) would fill the dictionary for nothing;
//! of those only the bytes of the exponent repeat, which splitting brings together. Which of the two is smaller differs from
//! column to column, and is known before anything is encoded.

/// Bits of the table that counts different values: for [`super::ROW_GROUP_ROWS`] values an eighth of them is set at most, and
/// the count is right to less than a percent.
const TABLE_BITS: u32 = 20;
/// The distribution of bytes is taken from about so many values.
const SAMPLED: usize = 1 << 14;

/// True if a dictionary is expected to be the smaller of the two.
pub(super) fn repeats(values: &[f32]) -> bool {
    dictionary_bytes(values) < split_bytes(values)
}

/// Bytes a value under a dictionary: a number of so many bits, and the share of the dictionary itself.
fn dictionary_bytes(values: &[f32]) -> f64 {
    let different = distinct(values);
    different.max(1.0).log2().ceil() / 8.0 + 4.0 * different / (values.len().max(1) as f64)
}

/// How many different values there are, about: linear counting (Whang, Vander-Zanden and Taylor 1990, ACM Transactions on
/// Database Systems 15, 208).
fn distinct(values: &[f32]) -> f64 {
    let mut table = vec![0_u64; 1 << (TABLE_BITS - 6)];
    for value in values {
        let place = mixed(value.to_bits()) >> (32 - TABLE_BITS);
        if let Some(word) = table.get_mut((place >> 6) as usize) {
            *word |= 1 << (place & 63);
        }
    }
    let set: u32 = table.iter().map(|word| word.count_ones()).sum();
    let places = f64::from(1_u32 << TABLE_BITS);
    // A full table has no answer; a row group is too small to fill it.
    let free = (places - f64::from(set)).max(1.0);
    places * (places / free).ln()
}

/// Spreads bits as if by chance, which the count builds on: the finalizer of MurmurHash3. After a single product the values
/// of a grid still lie in some order.
fn mixed(mut bits: u32) -> u32 {
    bits = (bits ^ bits >> 16).wrapping_mul(0x85EB_CA6B);
    bits = (bits ^ bits >> 13).wrapping_mul(0xC2B2_AE35);
    bits ^ bits >> 16
}

/// Bytes a value when each of its four bytes is coded as often as it comes: the entropy of each, zeroth order.
fn split_bytes(values: &[f32]) -> f64 {
    let mut counts = [[0_u32; 256]; 4];
    let mut sampled = 0_u32;
    for value in values.iter().step_by((values.len() / SAMPLED).max(1)) {
        sampled += 1;
        for (of_byte, byte) in counts.iter_mut().zip(value.to_le_bytes()) {
            if let Some(count) = of_byte.get_mut(usize::from(byte)) {
                *count += 1;
            }
        }
    }
    let share = |count: &u32| f64::from(*count) / f64::from(sampled.max(1));
    let bits: f64 =
        counts.iter().flatten().filter(|&&count| count > 0).map(|count| -share(count) * share(count).log2()).sum();
    bits / 8.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look drawn at random, of about a bell's shape, with this standard deviation.
    fn bell(count: usize, deviation: f64) -> impl Iterator<Item = f64> {
        let mut state = 7_u64;
        (0..count).map(move |_| {
            let sum: f64 = (0..12)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 11) as f64 / (1_u64 << 53) as f64
                })
                .sum();
            (sum - 6.0) * deviation
        })
    }

    #[test]
    fn different_values_are_counted() {
        for different in [1_usize, 2, 300, 20_000, super::super::ROW_GROUP_ROWS] {
            let values: Vec<f32> =
                (0..super::super::ROW_GROUP_ROWS).map(|at| ((at % different) as f64 * 0.061) as f32).collect();
            let counted = distinct(&values);
            let error = (counted - different as f64).abs() / different as f64;
            assert!(error < 0.01, "{different} values counted as {counted:.0}");
        }
    }

    #[test]
    fn a_converter_s_steps_get_a_dictionary_and_computed_values_do_not() {
        let steps: Vec<f32> =
            bell(100_000, 300.0).map(|value| (value.round() * 9.806_65 * 16.0 / 32_768.0) as f32).collect();
        assert!(repeats(&steps));
        let computed: Vec<f32> = bell(100_000, 300.0).map(|value| value as f32).collect();
        assert!(!repeats(&computed));
        let few: Vec<f32> = computed.iter().copied().take(20).collect();
        assert!(!repeats(&few));
        assert!(!repeats(&[]));
    }
}
