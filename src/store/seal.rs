//! A session's frames become one sorted Parquet file.
use schemas::*;
#[derive(Debug, thiserror::Error)]
pub enum Error {}
pub struct Manifest {
    pub path: String,
    pub bytes: u64,
    pub sha256: String,
}
pub fn write_frames(
    _d: &super::paths::DataDir,
    _s: SessionId,
    _t: i64,
    _r: i64,
    _f: &FrameColumns,
    _u: impl Fn(u8) -> Option<f32>,
    _c: &DeviceCode,
) -> Result<Manifest, Error> {
    unimplemented!()
}
pub fn read_track(_d: &std::path::Path) -> Result<Track, Error> {
    unimplemented!()
}
