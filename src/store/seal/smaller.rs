//! A sealed file again in its small form, once nobody waits for it.
//!
//! The small form has the values of the first one, row group by row group, and its metadata; it says whose place it took
//! ([`KEY_SEALED_SHA256`]). The catalog learns its sum afterwards: after a crash in between the file is known by that key, and asking
//! again finds it.

use super::{About, Effort, Error, Manifest, Paths, Table, TableFile, TablePath, Terms, pack, publish};
use super::{acc_factors, describe, frames_schema, metadata, open_table, read_frames, value_of, write};

/// Metadata key of the SHA-256 that a session's file had before its small form took its place.
pub const KEY_SEALED_SHA256: &str = "volant.sealed_sha256";

/// The SHA-256 of the file that this small form replaced; `None` if it is none.
///
/// # Errors
/// As [`super::read_frames`].
pub fn sealed_sha256(file: &TableFile) -> Result<Option<String>, Error> {
    publish::contained(file.path(), || {
        let reader = open_table(file, Table::Frames, &frames_schema())?;
        Ok(value_of(reader.metadata(), KEY_SEALED_SHA256).map(str::to_owned))
    })
}

/// Writes a sealed file, which has this SHA-256, again in its small form; gives what is there then. `None` if `go_on` said no,
/// and the file is as it was. One that is small already stays, and one that would not become smaller, or lies in a pack. Blocks, on the
/// current rayon pool, and holds the frames in memory, 75 bytes each.
///
/// # Errors
/// As [`super::write_frames`] and [`super::read_frames`]; [`Error::Changed`] if another file is there.
pub fn make_smaller(
    paths: &Paths,
    path: TablePath,
    sha256: &str,
    go_on: &(dyn Fn() -> bool + Sync),
) -> Result<Option<Manifest>, Error> {
    let file = pack::locate(paths, path)?;
    let sealed = sealed_sha256(&file)?;
    let found = publish::contained(file.path(), || describe(&file, path))?;
    let there = Manifest {
        path,
        rows: found.rows,
        bytes: found.bytes,
        sha256: found.sha256,
        revision: found.revision,
        t_min_ns: None,
        t_max_ns: None,
    };
    if there.sha256 != sha256 && sealed.as_deref() != Some(sha256) {
        return Err(Error::Changed { path: file.path().to_owned() });
    }
    if sealed.is_some() || file.is_packed() {
        return Ok(Some(there));
    }
    match write_again(paths, path, &file, found.started_at_us, there, go_on) {
        Err(_) if !go_on() => Ok(None),
        written => written.map(Some),
    }
}

fn write_again(
    paths: &Paths,
    path: TablePath,
    file: &TableFile,
    started_at_us: i64,
    there: Manifest,
    go_on: &(dyn Fn() -> bool + Sync),
) -> Result<Manifest, Error> {
    let (frames, factors) = (read_frames(file)?, acc_factors(file)?);
    let mut metadata = metadata(file)?;
    metadata.push((KEY_SEALED_SHA256.to_owned(), there.sha256.clone()));
    let about = About { session_id: path.session_id(), started_at_us, revision: there.revision, metadata: &metadata };
    let factor = |sensor: u8| factors.get(&sensor).copied().flatten();
    let terms = Terms { effort: Effort::Small, go_on, undoes_packs: false };
    let written = write(paths, &about, &frames, factor, &terms)?;
    if written.unpublished.bytes()? >= there.bytes {
        return Ok(there);
    }
    match written.publish(Some(file)) {
        // Packed meanwhile, and the pack has it as it was.
        Err(Error::Changed { .. }) => Ok(there),
        published => published,
    }
}
