//! Randomness as an argument: rooms that make secrets or spread their retries take an [`Entropy`], so that tests can seed
//! it.

use std::sync::{Arc, Mutex, PoisonError};

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;

/// A source of random bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Entropy(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Seeded(Arc<Mutex<ChaCha20Rng>>),
}

impl Entropy {
    /// The operating system's, fit for secrets.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// The same bytes for the same seed, for tests.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(ChaCha20Rng::seed_from_u64(seed)))))
    }

    /// Random bytes.
    ///
    /// # Panics
    /// If the operating system has no randomness to give, which it always has once it has started.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &self.0 {
            Source::System => getrandom::fill(&mut bytes).expect("a started system has randomness"),
            Source::Seeded(random) => random.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes),
        }
        bytes
    }

    /// A number from 0 up to, and without, 1.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        // 53 bits are what a float between 1/2 and 1 can tell apart.
        (u64::from_le_bytes(self.bytes()) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
