//! Model files.

/// A trained classifier.
#[derive(Clone, Debug)]
pub struct Model {}

/// Why a model file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {}

impl Model {
    /// The model that ships with the product.
    #[must_use]
    pub fn builtin() -> &'static Self {
        unimplemented!()
    }
    /// Reads a model file.
    ///
    /// # Errors
    /// Anything in the file that does not fit.
    pub fn from_bytes(_bytes: &[u8]) -> Result<Self, ModelError> {
        unimplemented!()
    }
}
