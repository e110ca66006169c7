//! Typed paths.
#[derive(Clone, Debug)]
pub struct DataDir(std::path::PathBuf);
impl DataDir {
    pub fn root(&self) -> &std::path::Path {
        &self.0
    }
}
