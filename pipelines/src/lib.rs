//! The pipelines: samples in, swings, strokes, kinetic chain and data quality out.
//!
//! Pure and synchronous: no I/O, no clock, no randomness that is not seeded by an argument; the same input gives the same
//! output bit for bit, whatever the number of threads.

mod adapt;
mod advice;
mod alignment;
mod analysis;
pub mod calibrate;
#[cfg(test)]
mod chains;
mod correlate;
mod curriculum;
mod definition;
mod doctor;
mod drills;
mod evaluate;
mod evaluation;
mod features;
mod figures;
mod filter;
mod history;
mod issues;
mod kinetics;
#[cfg(test)]
mod laws;
mod levels;
mod linear;
mod live;
mod load;
mod model;
mod mounting;
mod orientation;
mod params;
mod peak;
mod pipeline;
mod reliability;
mod report;
mod rocket;
mod segment;
mod smooth;
pub mod synth;
#[cfg(test)]
mod tests;
mod train;
mod trend;
mod wide;

pub use adapt::{ADAPT_SWINGS_MAX, AdaptError, adapt};
pub use advice::{Advice, AdviceError, EVIDENCE_STROKES_MAX, Evidence, Rules};
pub use alignment::{Alignment, CALIBRATED_S, ClockFix, ClockRun, align};
pub use analysis::{
    Analysis, Drill, Issue, IssueCode, PhaseDelay, Provenance, RangeOfMotion, Scores, SensorQuality, SessionFigures,
    Severity, Stroke,
};
pub use curriculum::{GeneratedRecording, generated_player, generated_swings};
pub use definition::{Pipeline, PipelineError, Stage};
pub use doctor::{Finding, diagnose};
pub use evaluate::{EvaluateOptions, Judge, evaluate};
pub use evaluation::{
    Alone, ClassFigures, Classification, Evaluation, Idle, LevelFigures, MountingFigures, PlayerFigures, Proposals,
    Segmentation, merge,
};
pub use features::{Mirror, WindowSpec};
pub use figures::{FIGURES, Figure, Per, figure, names as figure_names, page as figures_page};
pub use history::{HISTORY_STROKES_MIN, History, compare};
pub use levels::{ClassLevels, LEVELS, class_levels};
pub use live::{Live, LiveEvent, LiveSample, LiveSession, LiveStroke, LiveSwing};
pub use model::{
    BUILTIN_CARD, BUILTIN_MODEL, Figures, GateHeader, HeadHeader, LevelAnswer, MODEL_FORMAT_VERSION, Model, ModelError,
    ModelHeader, OTHER, Training,
};
pub use params::{CalibrateParams, ClassifyParams, KineticsParams, Params, ParamsError, ReportParams, SegmentParams};
pub use pipeline::{PIPELINE, analyze};
pub use reliability::ReliabilityBin;
pub use report::{ADVICE, advice_text};
pub use segment::{CalibratedSample, LATENCY_S, Segmenter, SensorKind, Swing};
pub use train::{
    Example, LabelledTrack, Mark, MarkQuality, TrainError, TrainOptions, examples, marked_examples, train,
};
