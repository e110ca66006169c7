//! Tracing and metrics set-up. What is logged and counted, and under which names, is `docs/telemetry.md`.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Buckets of every histogram in seconds: from a fast disk sync to a slow request.
const SECONDS_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// The process has one recorder, whatever number of services tests start in it.
static METRICS: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Starts logging to stderr. `filter` is a `tracing` filter such as `info` or `volant=debug`; a bad one falls back to
/// `info`. Does nothing if logging has been started.
pub fn init_logs(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    // A second start in the same process (tests) keeps the first subscriber.
    let started = match format {
        LogFormat::Text => {
            registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false)).try_init()
        }
        LogFormat::Json => {
            registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()
        }
    };
    drop(started);
}

/// Starts counting. Does nothing if counting has been started.
pub fn init_metrics() {
    METRICS.get_or_init(|| {
        PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
            .ok()?
            .install_recorder()
            .ok()
    });
}

/// How often [`upkeep`] is due.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Folds the samples of histograms into their buckets. Until then every sample takes 8 bytes, and nothing else drains
/// them in a service whose metrics nobody reads.
pub fn upkeep() {
    if let Some(metrics) = METRICS.get().and_then(Option::as_ref) {
        metrics.run_upkeep();
    }
}

/// The counters in Prometheus' text form; empty before [`init_metrics`].
#[must_use]
pub fn render() -> String {
    METRICS.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
}
