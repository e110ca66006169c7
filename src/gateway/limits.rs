//! Rates and counts at the edge.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use tokio::time::{Duration, Instant};

use super::error::ApiError;
use crate::accounts::Caller;

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
        Self::with_rate(f64::from(rate.max(1)), f64::from(burst.max(1)))
    }

    fn with_rate(rate: f64, burst: f64) -> Self {
        Self { rate, burst, tokens: burst, filled_at: Instant::now() }
    }

    /// True if nothing is missing.
    fn is_full(&self, now: Instant) -> bool {
        let elapsed_s = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens + elapsed_s * self.rate >= self.burst
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

/// Limits over all connections: of requests by address and by caller, of wrong secrets by address. Cheap to clone.
///
/// Only a caller who proved who they are has a limit of their own: by a name that anybody may write, a stranger could use up
/// somebody else's.
#[derive(Clone, Debug)]
pub struct CallerLimits(Arc<Limits>);

#[derive(Debug)]
struct Limits {
    requests_of_address: Buckets<IpAddr>,
    failures_of_address: Buckets<IpAddr>,
    requests_of_caller: Buckets<String>,
}

/// A bucket for each that lately did something.
#[derive(Debug)]
struct Buckets<K> {
    rate_per_s: f64,
    burst: f64,
    buckets: Mutex<HashMap<K, TokenBucket>>,
}

/// With more buckets than this, those that are full again are forgotten.
const BUCKETS_LIMIT: usize = 4096;

impl<K: Eq + Hash> Buckets<K> {
    fn new(rate_per_s: f64, burst: f64) -> Self {
        Self { rate_per_s, burst, buckets: Mutex::default() }
    }

    /// Takes `cost` from a bucket, unless it is in debt; then says how long that lasts.
    fn take(&self, whose: K, cost: f64) -> Result<(), Duration> {
        let now = Instant::now();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_LIMIT {
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        let bucket = buckets.entry(whose).or_insert_with(|| TokenBucket::with_rate(self.rate_per_s, self.burst));
        bucket.take(0.0, now);
        if let Some(due) = bucket.due() {
            return Err(due.saturating_duration_since(now));
        }
        bucket.take(cost, now);
        Ok(())
    }
}

impl CallerLimits {
    #[must_use]
    pub fn new(options: &super::Options) -> Self {
        let per_s = f64::from(options.requests_per_address_per_s);
        let failures = f64::from(options.failures_per_address_per_min);
        let of_caller = f64::from(options.requests_per_caller_per_s);
        Self(Arc::new(Limits {
            requests_of_address: Buckets::new(per_s, 4.0 * per_s),
            failures_of_address: Buckets::new(failures / 60.0, failures - 1.0),
            requests_of_caller: Buckets::new(of_caller, 4.0 * of_caller),
        }))
    }

    /// Counts a request of this address.
    ///
    /// # Errors
    /// 429 over the limit.
    pub(super) fn allows_request(&self, address: Option<IpAddr>) -> Result<(), ApiError> {
        let take = |address: IpAddr| self.0.requests_of_address.take(address.to_canonical(), 1.0);
        address.map_or(Ok(()), take).map_err(too_many_requests)
    }

    /// Counts a request of a caller who proved who they are, from wherever it comes.
    ///
    /// # Errors
    /// 429 over the limit.
    pub(super) fn allows_caller(&self, caller: &Caller) -> Result<(), ApiError> {
        match caller {
            Caller::Stranger | Caller::Operator => Ok(()),
            known => self.0.requests_of_caller.take(known.to_string(), 1.0).map_err(too_many_requests),
        }
    }

    /// A secret of this address may be looked at.
    ///
    /// # Errors
    /// 429 after too many wrong ones.
    pub(super) fn allows_attempt(&self, address: Option<IpAddr>) -> Result<(), ApiError> {
        let look = |address: IpAddr| self.0.failures_of_address.take(address.to_canonical(), 0.0);
        address.map_or(Ok(()), look).map_err(too_many_requests)
    }

    /// A secret of this address was wrong.
    pub(super) fn note_failure(&self, address: Option<IpAddr>) {
        if let Some(address) = address {
            // An address in debt already was told so.
            self.0.failures_of_address.take(address.to_canonical(), 1.0).unwrap_or_default();
        }
    }
}

fn too_many_requests(wait: Duration) -> ApiError {
    let mut error = ApiError::with_status(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "too many requests");
    error.retry_after_s = u32::try_from(wait.as_secs()).ok().map(|seconds| seconds + 1);
    error
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

    #[tokio::test(start_paused = true)]
    async fn a_caller_has_a_limit_of_their_own_and_a_stranger_none() {
        let options = super::super::Options { requests_per_caller_per_s: 1, ..super::super::Options::default() };
        let limits = CallerLimits::new(&options);
        let device = |code: &str| Caller::Device(code.parse().unwrap());
        for _ in 0..5 {
            assert!(limits.allows_caller(&device("busy")).is_ok(), "the burst, and one on credit");
        }
        let refused = limits.allows_caller(&device("busy")).unwrap_err();
        assert_eq!((refused.status, refused.retry_after_s), (StatusCode::TOO_MANY_REQUESTS, Some(2)));
        assert!(limits.allows_caller(&device("calm")).is_ok());
        for _ in 0..100 {
            assert!(limits.allows_caller(&Caller::Stranger).is_ok());
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(limits.allows_caller(&device("busy")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_guesses_is_refused_until_its_debt_is_paid() {
        let options = super::super::Options { failures_per_address_per_min: 3, ..super::super::Options::default() };
        let limits = CallerLimits::new(&options);
        let (guesser, other) = (Some("10.0.0.1".parse().unwrap()), Some("10.0.0.2".parse().unwrap()));
        for _ in 0..3 {
            assert!(limits.allows_attempt(guesser).is_ok());
            limits.note_failure(guesser);
        }
        let refused = limits.allows_attempt(guesser).unwrap_err();
        assert_eq!((refused.status, refused.retry_after_s), (StatusCode::TOO_MANY_REQUESTS, Some(21)));
        assert!(limits.allows_attempt(other).is_ok());
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(limits.allows_attempt(guesser).is_ok());
        for _ in 0..100 {
            assert!(limits.allows_attempt(other).is_ok(), "right secrets cost nothing");
        }
    }
}
