//! Model files.

use std::collections::BTreeMap;

use crate::calibrate::Signal;

/// The answer for a swing that is none of the model's classes, or that the model is not sure about.
pub const OTHER: &str = "other";

/// A trained classifier.
#[derive(Clone, Debug)]
pub struct Model {}

/// Why a model file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {}

/// What a model says about one swing.
pub(crate) struct Answer {
    pub(crate) stroke: String,
    pub(crate) confidence: f64,
    pub(crate) probabilities: BTreeMap<String, f64>,
}

impl Model {
    /// The model that ships with the product.
    #[must_use]
    pub fn builtin() -> &'static Self {
        static EMPTY: Model = Model {};
        &EMPTY
    }
    /// Reads a model file.
    ///
    /// # Errors
    /// Anything in the file that does not fit.
    pub fn from_bytes(_bytes: &[u8]) -> Result<Self, ModelError> {
        Ok(Self {})
    }
    pub fn name(&self) -> &str {
        "none"
    }
    pub fn sha256(&self) -> &str {
        ""
    }
    pub(crate) fn serves(&self, _signal: &Signal) -> bool {
        false
    }
    pub(crate) fn classify(&self, _signal: &Signal, _peak_ns: i64, _confidence_min: f64) -> Option<Answer> {
        None
    }
}
