//! Units, gravity, rate: from raw samples to calibrated ones.

/// The factor that turns the samples' acceleration into m/s²: 1 (they are m/s²) or 9.80665 (they are g), decided from
/// the resting magnitude; `None` if it is near neither.
#[must_use]
pub fn acc_to_mps2(_acc: &[[f32; 3]]) -> Option<f32> {
    unimplemented!()
}
