//! Draws from seeded generators.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::vector::V3;

/// A generator of its own for each purpose, so that changing one part of a specification leaves the others' draws.
pub(super) fn stream(seed: u64, purpose: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(purpose);
    rng
}

/// Standard normal values, two a Box-Muller draw.
pub(super) struct Normals {
    rng: ChaCha8Rng,
    spare: Option<f64>,
}

impl Normals {
    pub(super) fn new(rng: ChaCha8Rng) -> Self {
        Self { rng, spare: None }
    }

    pub(super) fn rng(&mut self) -> &mut ChaCha8Rng {
        &mut self.rng
    }

    pub(super) fn next(&mut self) -> f64 {
        if let Some(value) = self.spare.take() {
            return value;
        }
        let u: f64 = 1.0 - self.rng.random::<f64>();
        let angle = std::f64::consts::TAU * self.rng.random::<f64>();
        let radius = (-2.0 * u.ln()).sqrt();
        let (sin, cos) = angle.sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    pub(super) fn vector(&mut self, sd: f64) -> V3 {
        std::array::from_fn(|_| sd * self.next())
    }

    /// A factor around 1 that cannot be negative: exp(sd·n), n limited to ±2.5.
    pub(super) fn factor(&mut self, sd: f64) -> f64 {
        (sd * self.next().clamp(-2.5, 2.5)).exp()
    }
}
