//! The pipelines: samples in, swings, strokes, kinetic chain and data quality out.
//!
//! Pure and synchronous: no I/O, no clock, no randomness that is not seeded by an argument; the same input gives the same
//! output bit for bit, whatever the number of threads.

mod analysis;
pub mod calibrate;
mod filter;
mod kinetics;
mod model;
mod params;
mod pipeline;
mod report;
mod segment;
pub mod synth;

pub use analysis::{
    Analysis, Issue, IssueCode, PhaseDelay, Provenance, RangeOfMotion, Scores, SensorQuality, SessionFigures, Severity,
    Stroke,
};
pub use model::{Model, ModelError, OTHER};
pub use params::{CalibrateParams, ClassifyParams, KineticsParams, Params, ParamsError, ReportParams, SegmentParams};
pub use pipeline::{PIPELINE, analyze};
pub use report::{ADVICE, advice_text};
