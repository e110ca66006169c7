//! The pipelines: samples in, swings, strokes, kinetic chain and data quality out.
//!
//! Pure and synchronous: no I/O, no clock, no randomness that is not seeded by an argument; the same input gives the same
//! output bit for bit, whatever the number of threads.

mod analysis;
pub mod calibrate;
mod model;
mod params;
pub mod synth;

pub use analysis::{
    Analysis, Issue, IssueCode, PhaseDelay, Provenance, RangeOfMotion, Scores, SensorQuality, SessionFigures, Severity,
    Stroke,
};
pub use model::{Model, ModelError};
pub use params::{Params, ParamsError};

/// Analyses a recording. Uses the rayon pool that it is called in.
#[must_use]
pub fn analyze(_track: &schemas::Track, _params: &Params, _model: Option<&Model>) -> Analysis {
    unimplemented!()
}
