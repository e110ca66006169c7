//! Strokes and results as Parquet.
#[derive(Debug, thiserror::Error)]
pub enum Error {}
use super::catalog::*;
pub fn write(
    _d: &super::paths::DataDir,
    _r: &SessionRow,
    _a: schemas::AnalysisId,
    _c: i64,
    _x: &pipelines::Analysis,
) -> Result<(StoredFile, StoredFile), Error> {
    unimplemented!()
}
