//! Rates and counts at the edge.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Duration, Instant};

/// A token bucket: `rate` tokens a second, `burst` at most. It may be overdrawn; [`TokenBucket::due`] says until when.
#[derive(Debug)]
pub(super) struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        let (rate, burst) = (f64::from(rate.max(1)), f64::from(burst.max(1)));
        Self { rate, burst, tokens: burst, filled_at: Instant::now() }
    }

    /// Takes `cost` tokens, below zero if need be.
    pub(super) fn take(&mut self, cost: f64, now: Instant) {
        let elapsed_s = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + elapsed_s * self.rate).min(self.burst) - cost;
        self.filled_at = now;
    }

    /// When the bucket is out of debt; `None` if it has none.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.tokens < 0.0).then(|| self.filled_at + Duration::from_secs_f64(-self.tokens / self.rate))
    }
}

/// Counts connections, in all and for each address.
#[derive(Debug)]
pub(super) struct Connections {
    limit: usize,
    per_address_limit: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Total,
    PerAddress,
}

impl Refusal {
    /// The reason in metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "connections",
            Self::PerAddress => "connections_per_address",
        }
    }
}

impl Connections {
    pub(super) fn new(limit: usize, per_address_limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, per_address_limit, counts: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // The counts are changed together or not at all; a panic elsewhere cannot leave them half-changed.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection; dropping it gives the place back.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, Refusal> {
        let address = address.to_canonical();
        let mut counts = self.lock();
        if counts.total >= self.limit {
            return Err(Refusal::Total);
        }
        let of_address = counts.by_address.entry(address).or_default();
        if *of_address >= self.per_address_limit {
            return Err(Refusal::PerAddress);
        }
        *of_address += 1;
        counts.total += 1;
        metrics::gauge!("volant_gateway_open_connections").set(counts.total as f64);
        Ok(Place { connections: Arc::clone(self), address })
    }
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.connections.lock();
        counts.total = counts.total.saturating_sub(1);
        metrics::gauge!("volant_gateway_open_connections").set(counts.total as f64);
        if let Some(of_address) = counts.by_address.get_mut(&self.address) {
            *of_address = of_address.saturating_sub(1);
            if *of_address == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_lends_and_says_when_it_is_paid_back() {
        let mut bucket = TokenBucket::new(10, 20);
        let start = Instant::now();
        bucket.take(20.0, start);
        assert_eq!(bucket.due(), None, "the burst");
        bucket.take(5.0, start);
        assert_eq!(bucket.due(), Some(start + Duration::from_millis(500)));
        bucket.take(0.0, start + Duration::from_millis(500));
        assert_eq!(bucket.due(), None);
        bucket.take(20.0, start + Duration::from_secs(60));
        assert_eq!(bucket.due(), None, "never more than the burst, never less");
    }

    #[test]
    fn places_are_counted_in_all_and_for_each_address() {
        let connections = Connections::new(3, 2);
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let first = connections.admit(a).unwrap();
        let _second = connections.admit(mapped).unwrap();
        assert_eq!(connections.admit(a).unwrap_err(), Refusal::PerAddress);
        let _third = connections.admit(b).unwrap();
        assert_eq!(connections.admit(b).unwrap_err(), Refusal::Total);
        drop(first);
        connections.admit(a).unwrap();
        assert_eq!(connections.lock().by_address.len(), 2);
    }
}
