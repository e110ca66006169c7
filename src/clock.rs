//! The wall clock as an argument: rooms that need the time take a [`Clock`], so that tests can set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A source of wall-clock time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The clock of the machine.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`Clock::set_us`] moves it, for tests.
    #[must_use]
    pub fn manual(now_us: i64) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(now_us))))
    }

    /// Now, µs since 1970 UTC.
    #[must_use]
    pub fn now_us(&self) -> i64 {
        match &self.0 {
            Source::System => system_now_us(),
            Source::Manual(now_us) => now_us.load(Ordering::Relaxed),
        }
    }

    /// Moves a manual clock.
    ///
    /// # Panics
    /// On the system clock: only tests that made a manual clock may set it.
    pub fn set_us(&self, now_us: i64) {
        match &self.0 {
            Source::System => unreachable!("the system clock cannot be set"),
            Source::Manual(clock) => clock.store(now_us, Ordering::Relaxed),
        }
    }
}

/// The one place that reads the machine's clock.
#[expect(clippy::disallowed_methods, reason = "this is the injected clock's own source")]
fn system_now_us() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}
