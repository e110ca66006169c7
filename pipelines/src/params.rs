//! Parameters of the pipeline.

/// Parameters of a pipeline, read from `pipelines/params/*.toml`.
#[derive(Clone, Debug)]
pub struct Params {}

/// Why a parameter file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ParamsError {}

impl Params {
    /// The parameters that ship with the product.
    #[must_use]
    pub fn builtin() -> &'static Self {
        unimplemented!()
    }
    /// Reads a parameter file.
    ///
    /// # Errors
    /// A key that is unknown or missing, a value out of range.
    pub fn from_toml(_text: &str) -> Result<Self, ParamsError> {
        unimplemented!()
    }
}
