//! Recording files and sets, brought into a data folder as sessions that the service analyses.
//!
//! Which recording became which session is noted by the sum of its samples, so that a run that was killed goes on and one that
//! is repeated takes only what is new. Values are stored as the file has them after its units: m/s² and °/s.

use schemas::frames::ClockKind;
use schemas::{DeviceCode, FrameColumns, SessionId, SessionStatus, Track};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Error;
use crate::clock::Clock;
use crate::recordings::{self, Recording, TIME_LIMIT_MS};
use crate::store::catalog::{
    Catalog, ImportedSession, Label, NewImport, NewSession, Relabel, Sealed, SessionKind, SessionRow, StoredFrames,
};
use crate::store::paths::Paths;
use crate::store::seal;

/// What the catalog calls files of recordings.
const SOURCE: &str = "recordings";

/// A recording to take.
#[derive(Clone, Debug)]
pub struct NewRecording {
    /// In the words of its source.
    pub name: String,
    /// Samples.
    pub track: Track,
    /// The openid of the player; `None`: nobody known.
    pub openid: Option<String>,
    /// The device that it shall belong to.
    pub device: DeviceCode,
    /// µs since 1970 UTC.
    pub started_at_us: i64,
    /// What the set says was played.
    pub labels: Vec<recordings::Label>,
}

/// What came of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TakenRecording {
    /// Its name.
    pub name: String,
    /// The session here; `None` in a dry run.
    pub session_id: Option<i64>,
    /// Frames.
    pub frames: usize,
    /// True if an earlier run took it.
    pub already: bool,
    /// True if an earlier run took it and its frames, which were given up for their age, came back now.
    #[serde(default)]
    pub brought_back: bool,
}

/// Pause between two recordings of which only the first has a time.
const BETWEEN_US: i64 = 60_000_000;

/// When recordings began that do not say it: one after the other, the first when it is told.
#[derive(Clone, Copy, Debug)]
pub struct Begins {
    next_us: i64,
    /// True if what recordings say themselves does not count.
    is_told: bool,
}

impl Begins {
    /// The first began at `first_us`, whatever it says itself.
    #[must_use]
    pub const fn told(first_us: i64) -> Self {
        Self { next_us: first_us, is_told: true }
    }

    /// The first began at `first_us` if it does not say it itself.
    #[must_use]
    pub const fn guessed(first_us: i64) -> Self {
        Self { next_us: first_us, is_told: false }
    }

    /// When this recording began, µs since 1970 UTC.
    pub fn of(&mut self, recording: &Recording) -> i64 {
        let began_us = recording.started_at_us.filter(|_| !self.is_told).unwrap_or(self.next_us);
        let latest = recording.track.iter().filter_map(|(_, samples)| samples.t_ns.last().copied()).max();
        self.next_us += latest.unwrap_or(0).max(0) / 1000 + BETWEEN_US;
        began_us
    }
}

/// Takes a recording; without a target it only says what it would do, by what the catalog `known` has. The caller sees to it
/// that nobody else takes recordings into the folder.
///
/// # Errors
/// See [`Error`].
pub async fn import_recording(
    recording: &NewRecording,
    target: Option<(&Catalog, &Paths)>,
    known: Option<&Catalog>,
    clock: &Clock,
) -> Result<TakenRecording, Error> {
    let frames = frames_of(&recording.track, recording.started_at_us);
    let mut taken = TakenRecording {
        name: recording.name.clone(),
        session_id: None,
        frames: frames.len(),
        already: false,
        brought_back: false,
    };
    let source_id = sum_of(&recording.track);
    let Some((catalog, paths)) = target else {
        if let Some(known) = known
            && let Some(number) = known.imported(SOURCE, "session", &source_id).await?
        {
            let session = known.session(SessionId(number)).await?.filter(|session| session.revision > 0);
            taken.already = session.as_ref().is_some_and(|session| session.frames_path.is_some());
            taken.brought_back = session.is_some_and(|session| session.frames_path.is_none());
        }
        return Ok(taken);
    };
    let now_us = clock.now_us();
    let import = NewImport { source: SOURCE, kind: "session", source_id: &source_id, now_us };
    let user_id = match &recording.openid {
        Some(openid) => Some(catalog.user_by_openid(openid, now_us).await?.user_id),
        None => None,
    };
    let new = NewSession {
        kind: SessionKind::Session,
        device_code: recording.device.clone(),
        group_code: recording.device.to_string(),
        claimed_id: None,
        user_id,
        status: SessionStatus::Stopped,
        started_at_us: recording.started_at_us,
    };
    let session = catalog.claim_session(import, SOURCE, None, &new).await?.session;
    taken.session_id = Some(session.session_id.get());
    let labels: Vec<Label> = recording.labels.iter().filter_map(|label| imported_label(label, now_us)).collect();
    if session.revision > 0 {
        if session.frames_path.is_none() {
            catalog.begin_bringing_back(session.session_id).await?;
            let sealed = seal_frames(paths, &session, &frames)?;
            let stored = StoredFrames { path: &sealed.path, bytes: sealed.bytes, sha256: &sealed.sha256 };
            catalog.bring_back(session.session_id, &stored, None, now_us).await?;
            metrics::counter!("volant_migration_taken_sessions_total", "from" => "recording").increment(1);
            taken.brought_back = true;
        }
        taken.already = !taken.brought_back;
        // Programs from before the labels took the recording alone.
        if !labels.is_empty() && catalog.labels(session.session_id).await?.is_empty() {
            let labels: Vec<Relabel> = labels.into_iter().map(Relabel::Put).collect();
            catalog.relabel(session.session_id, &labels).await?;
        }
        return Ok(taken);
    }
    catalog.device_seen(&recording.device, None, now_us).await?;
    let sealed = seal_frames(paths, &session, &frames)?;
    let span_ns = frames.t_ns.iter().max().copied().unwrap_or(0).max(0);
    let done = ImportedSession {
        source: SOURCE,
        source_id: &source_id,
        session_id: session.session_id,
        sealed: Some(&sealed),
        newest_frame: frames.len() as i64,
        status: SessionStatus::Analyzing,
        reason: None,
        ended_at_us: Some(session.started_at_us + span_ns / 1000),
        result: None,
        labels: &labels,
        now_us,
    };
    catalog.finish_import(&done).await?;
    metrics::counter!("volant_migration_taken_sessions_total", "from" => "recording").increment(1);
    Ok(taken)
}

/// `None` for one that points to where no recording reaches.
fn imported_label(label: &recordings::Label, now_us: i64) -> Option<Label> {
    let known = |ms: f64| (ms.abs() <= TIME_LIMIT_MS).then(|| (ms * 1e6).round() as i64);
    Some(Label {
        impact_ns: known(label.peak_ms)?,
        start_ns: known(label.start_ms),
        end_ns: known(label.end_ms),
        stroke: label.stroke.clone(),
        quality: label.quality.clone(),
        labelled_by: "import".to_owned(),
        labelled_at_us: now_us,
    })
}

/// The file of a session, of the revision that it has, of the first if it has none.
fn seal_frames(paths: &Paths, session: &SessionRow, frames: &FrameColumns) -> Result<Sealed, Error> {
    let SessionRow { session_id, started_at_us, .. } = *session;
    let sync_error_ns = 0;
    let metadata = [
        (seal::KEY_DEVICE_CODE.to_owned(), session.device_code.to_string()),
        (seal::KEY_SYNC_ERROR_NS.to_owned(), i64::to_string(&sync_error_ns)),
    ];
    let revision = u32::try_from(session.revision.max(1)).unwrap_or(1);
    let manifest =
        seal::write_frames_small(paths, session_id, started_at_us, revision, frames, |_| Some(1.0), &metadata)
            .map_err(|source| Error::Frames { session_id, source })?;
    Ok(Sealed {
        session_id,
        revision: i64::from(manifest.revision),
        rows: manifest.rows as i64,
        path: manifest.path.to_string(),
        bytes: manifest.bytes as i64,
        sha256: manifest.sha256,
        sync_error_ns,
    })
}

/// The samples in the order of time, as frames of a counter of milliseconds.
fn frames_of(track: &Track, started_at_us: i64) -> FrameColumns {
    let mut rows = Vec::with_capacity(track.len());
    for (role, samples) in track.iter() {
        rows.extend((0..samples.len()).map(|row| (samples.t_ns[row], role, row)));
    }
    rows.sort_by_key(|&(t_ns, role, _)| (t_ns, role.to_byte()));
    let mut frames = FrameColumns::with_capacity(rows.len());
    for (t_ns, role, row) in rows {
        let Some(samples) = track.get(role) else { continue };
        let values = [samples.acc[row], samples.gyro[row], samples.angle[row]];
        frames.push_decoded(i32::from(role.to_byte()), role, Some(t_ns.div_euclid(1_000_000)), values);
        if let (Some(t), Some(clock), Some(received)) =
            (frames.t_ns.last_mut(), frames.clock.last_mut(), frames.received_at_us.last_mut())
        {
            *t = t_ns;
            *clock = ClockKind::Counter as u8;
            *received = started_at_us + t_ns.div_euclid(1000);
        }
    }
    frames
}

/// SHA-256 of every sample, hex: the same recording under another name is the same recording.
fn sum_of(track: &Track) -> String {
    let mut hash = Sha256::new();
    for (role, samples) in track.iter() {
        hash.update([role.to_byte()]);
        for row in 0..samples.len() {
            hash.update(samples.t_ns[row].to_le_bytes());
            for value in [samples.acc[row], samples.gyro[row], samples.angle[row]].as_flattened() {
                hash.update(value.to_bits().to_le_bytes());
            }
        }
    }
    crate::export::hex(&hash.finalize())
}
