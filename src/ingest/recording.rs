//! The frames of one session while it is open, and for a short while after.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use pipelines::calibrate;
use rayon::prelude::*;
use schemas::{
    ClockKind, DeviceCode, FrameColumns, FrameFlags, SensorRole, SensorTrack, SessionId, SessionStatus, Track,
};
use tokio::sync::Notify;

use super::Packet;
use super::clock::{SENSORS, SessionClock};
use super::common_clock::CommonClock;
use crate::store::catalog::{SessionKind, SessionRow};
use crate::store::seal;

/// Rows of one live batch; a full one is built once and kept.
const LIVE_BATCH_ROWS: usize = 16_384;
/// Packets remembered for recognising repeats: over an hour of a four-sensor device.
const SEEN_LIMIT: usize = 65_536;
/// Samples of a sensor after which its acceleration unit is decided for the live view.
const UNIT_SAMPLES: usize = 500;

/// A recording. Shared by the sockets that write it, the log that settles it and the queries that read it.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) session_id: SessionId,
    pub(super) device: DeviceCode,
    pub(super) kind: SessionKind,
    /// Of a collection: the session id that the device claimed.
    pub(super) claimed: Option<String>,
    pub(super) started_at_us: i64,
    state: Mutex<State>,
    /// Rows whose fate the log has told, from the first.
    settled_rows: AtomicUsize,
    /// Wall clock of the newest packet, µs; 0 before the first.
    last_packet_us: AtomicI64,
    /// Told whenever `settled_rows` moves.
    settled: Notify,
    /// Held while the session's file is written: a second seal waits and then finds nothing left to do.
    pub(super) sealing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) status: SessionStatus,
    /// When it ceased to accept frames, as far as this process knows.
    pub(super) ended_at_us: Option<i64>,
    pub(super) frames: Arc<FrameColumns>,
    /// Rows that the log refused: in no table, in no file.
    void: Vec<Range<usize>>,
    clock: SessionClock,
    /// What the last seal found, and of how many rows.
    common: Option<(usize, CommonClock)>,
    /// Content hash to the row after the packet's last.
    seen: HashMap<u64, usize>,
    seen_order: VecDeque<u64>,
    /// Rows in the sealed file, and its revision.
    pub(super) sealed_rows: usize,
    pub(super) revision: i64,
    live: Vec<RecordBatch>,
    live_rows: usize,
    acc_to_mps2: [Option<f32>; SENSORS],
    /// Frames taken of each sensor, by its byte.
    pub(super) frames_by_sensor: [usize; SENSORS],
    losses: [LossMeter; SENSORS],
    /// Closed: takes nothing more, not even late frames.
    pub(super) closed: bool,
}

/// What `State::take` made of a packet.
pub(super) enum Taken {
    /// New rows, numbered from here.
    Rows(Range<usize>),
    /// A repeat of a packet whose last row is before this.
    Repeat { end_row: usize },
}

impl Recording {
    /// An empty recording of this session; what the log holds of it comes by [`State::restore`].
    pub(super) fn new(session: &SessionRow) -> Self {
        Self {
            session_id: session.session_id,
            device: session.device_code.clone(),
            kind: session.kind,
            claimed: session.claimed_id.clone(),
            started_at_us: session.started_at_us,
            state: Mutex::new(State {
                status: session.status,
                ended_at_us: None,
                frames: Arc::default(),
                void: Vec::new(),
                clock: SessionClock::new(session.started_at_us),
                common: None,
                seen: HashMap::new(),
                seen_order: VecDeque::new(),
                sealed_rows: session.sealed_rows as usize,
                revision: session.revision,
                live: Vec::new(),
                live_rows: 0,
                acc_to_mps2: [None; SENSORS],
                frames_by_sensor: [0; SENSORS],
                losses: Default::default(),
                closed: false,
            }),
            settled_rows: AtomicUsize::new(0),
            last_packet_us: AtomicI64::new(0),
            settled: Notify::new(),
            sealing: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the newest packet came, µs since 1970 UTC.
    pub(super) fn last_packet_us(&self) -> Option<i64> {
        Some(self.last_packet_us.load(Ordering::Relaxed)).filter(|&at_us| at_us != 0)
    }

    pub(super) fn note_packet(&self, received_at_us: i64) {
        self.last_packet_us.store(received_at_us, Ordering::Relaxed);
    }

    /// The log has told the fate of these rows. Called in log order.
    pub(super) fn settle(&self, rows: Range<usize>, kept: bool) {
        if !kept {
            let mut state = self.lock();
            state.forget(&rows);
            state.void.push(rows.clone());
        }
        self.settled_rows.fetch_max(rows.end, Ordering::Release);
        self.settled.notify_waiters();
    }

    /// Rows whose fate is known.
    pub(super) fn settled_rows(&self) -> usize {
        self.settled_rows.load(Ordering::Acquire)
    }

    /// Waits until the fate of all rows before `end_row` is known; false if the log refused the last of them.
    pub(super) async fn wait_settled(&self, end_row: usize) -> bool {
        loop {
            let told = self.settled.notified();
            tokio::pin!(told);
            // Enabled before the check, so that a settlement between check and wait is not missed.
            told.as_mut().enable();
            if self.settled_rows() >= end_row {
                return end_row == 0 || !self.lock().is_void(end_row - 1);
            }
            told.await;
        }
    }

    /// Rows from `from` on that are on disk, and the row to go on with; `None` if there are none.
    pub(super) fn rows_since(&self, from: usize, limit: usize) -> Option<(FrameColumns, usize)> {
        let until = self.settled_rows().min(from.saturating_add(limit));
        let state = self.lock();
        let rows = (from..until).filter(|&row| !state.is_void(row));
        (until > from).then(|| (state.frames.gather(rows), until))
    }

    /// The rows that are on disk, as batches of the `frames` schema, while no file of the session is sealed.
    ///
    /// `None` from the first seal on: the file answers then, and late rows show with its next revision, a second later.
    pub(super) fn live_batches(&self) -> Option<Vec<RecordBatch>> {
        let mut state = self.lock();
        // One full batch at a time, giving the lock back in between, so that a query never holds up a socket for long.
        loop {
            let settled_rows = self.settled_rows();
            if state.live_rows + LIVE_BATCH_ROWS > settled_rows || state.revision > 0 {
                break;
            }
            let rows = state.live_rows..state.live_rows + LIVE_BATCH_ROWS;
            let batch = state.batch(self.session_id, rows.clone());
            state.live.push(batch);
            state.live_rows = rows.end;
            drop(state);
            state = self.lock();
        }
        if state.revision > 0 {
            return None;
        }
        let mut batches = state.live.clone();
        let tail = state.live_rows..self.settled_rows();
        if !tail.is_empty() {
            let batch = state.batch(self.session_id, tail);
            batches.push(batch);
        }
        Some(batches)
    }
}

/// Counts the frames of one sensor that never came, by the holes in its times. The firmware drops whole blocks, so a hole
/// is many frames; a step that is merely late is none.
#[derive(Debug, Default)]
struct LossMeter {
    last_ns: Option<i64>,
    /// The usual step between frames, ns: a running mean of steps that are no holes.
    step_ns: f64,
    steps: u32,
    lost: u64,
}

impl LossMeter {
    /// Steps before the usual one is known.
    const LEARNING: u32 = 20;

    fn note(&mut self, t_ns: i64) {
        let Some(last_ns) = self.last_ns.replace(t_ns) else { return };
        let step_ns = (t_ns - last_ns) as f64;
        if step_ns <= 0.0 {
            return;
        }
        if self.steps >= Self::LEARNING && step_ns > 2.5 * self.step_ns {
            self.lost += (step_ns / self.step_ns).round() as u64 - 1;
        } else {
            self.steps += 1;
            self.step_ns += (step_ns - self.step_ns) / f64::from(self.steps.min(200));
        }
    }
}

/// Uploads that name a session are taken as late ones for so long after its end.
const LATE_UPLOADS_US: i64 = 60_000_000;

impl State {
    /// Frames that were measured and never came, as far as the holes in their times tell.
    pub(super) fn lost_frames(&self) -> u64 {
        self.losses.iter().map(|losses| losses.lost).sum()
    }

    /// True for a little while after the end.
    pub(super) fn ended_lately(&self, now_us: i64) -> bool {
        self.ended_at_us.is_some_and(|ended_at_us| now_us - ended_at_us < LATE_UPLOADS_US)
    }

    /// True if the packet can be taken; one that was taken before needs no room.
    pub(super) fn has_room_for(&self, packet: &Packet, limit_frames: usize) -> bool {
        self.frames.len() + packet.frames.len() <= limit_frames
            || packet.content_hash.is_some_and(|hash| self.seen.contains_key(&hash))
    }

    /// Numbers a packet's frames, reads their clock and adds them; `frames` comes back as the log must keep it.
    pub(super) fn take(&mut self, frames: &mut FrameColumns, content_hash: Option<u64>, received_at_us: i64) -> Taken {
        if let Some(&end_row) = content_hash.and_then(|hash| self.seen.get(&hash)) {
            return Taken::Repeat { end_row };
        }
        let first_row = self.frames.len();
        let late = self.revision > 0;
        for index in 0..frames.len() {
            frames.received_at_us[index] = received_at_us;
            if late {
                frames.flags[index] |= FrameFlags::LATE;
            }
        }
        self.read_clock(first_row, frames);
        Arc::make_mut(&mut self.frames).extend_from(frames);
        let rows = first_row..self.frames.len();
        self.remember(content_hash, rows.end);
        Taken::Rows(rows)
    }

    /// Adds frames that the log gave back after a restart.
    pub(super) fn restore(&mut self, mut frames: FrameColumns, content_hash: Option<u64>) -> Range<usize> {
        let first_row = self.frames.len();
        self.read_clock(first_row, &mut frames);
        Arc::make_mut(&mut self.frames).extend_from(&frames);
        let rows = first_row..self.frames.len();
        self.remember(content_hash, rows.end);
        rows
    }

    fn read_clock(&mut self, first_row: usize, frames: &mut FrameColumns) {
        for index in 0..frames.len() {
            let (t_ns, kind) = self.clock.decode(
                first_row + index,
                frames.sensor[index],
                frames.device_time_raw[index],
                frames.received_at_us[index],
            );
            if let Some(frames) = self.frames_by_sensor.get_mut(usize::from(frames.sensor[index])) {
                *frames += 1;
            }
            // A frame without a time of its own says nothing of holes between times.
            if kind != ClockKind::Arrival
                && let Some(losses) = self.losses.get_mut(usize::from(frames.sensor[index]))
            {
                losses.note(t_ns);
            }
            frames.t_ns[index] = t_ns;
            frames.clock[index] = kind as u8;
        }
    }

    fn remember(&mut self, content_hash: Option<u64>, end_row: usize) {
        let Some(hash) = content_hash else { return };
        if self.seen_order.len() == SEEN_LIMIT
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.seen.insert(hash, end_row);
        self.seen_order.push_back(hash);
    }

    /// Forgets the packets that end in these rows, so that sending them again stores them.
    fn forget(&mut self, rows: &Range<usize>) {
        let Self { seen, seen_order, .. } = self;
        seen_order.retain(|hash| match seen.get(hash) {
            Some(end_row) if rows.contains(&(end_row - 1)) => {
                seen.remove(hash);
                false
            }
            _ => true,
        });
    }

    fn is_void(&self, row: usize) -> bool {
        self.void.iter().any(|rows| rows.contains(&row))
    }

    fn batch(&mut self, session_id: SessionId, rows: Range<usize>) -> RecordBatch {
        for sensor in 0..SENSORS as u8 {
            let decided = &mut self.acc_to_mps2[usize::from(sensor)];
            if decided.is_none() {
                let samples: Vec<[f32; 3]> = (0..rows.end)
                    .filter(|&row| self.frames.sensor[row] == sensor)
                    .map(|row| self.frames.acc[row])
                    .take(UNIT_SAMPLES)
                    .collect();
                if samples.len() == UNIT_SAMPLES {
                    *decided = calibrate::acc_to_mps2(&samples);
                }
            }
        }
        let order: Vec<usize> = rows.filter(|&row| !self.is_void(row)).collect();
        self.frames
            .to_batch(session_id, 0, &order, |sensor| self.acc_to_mps2.get(usize::from(sensor)).copied().flatten())
    }

    /// What the recording holds now, to be looked at without its lock.
    pub(super) fn snapshot(&self) -> Snapshot {
        let common =
            self.common.as_ref().filter(|(rows, _)| *rows == self.frames.len()).map(|(_, common)| common.clone());
        Snapshot { frames: Arc::clone(&self.frames), void: self.void.clone(), clock: self.clock.clone(), common }
    }

    /// True if the sealed file answers for every row that was taken.
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed_rows >= self.frames.len()
    }

    /// Number of rows without those that the log refused.
    pub(super) fn kept_rows(&self) -> usize {
        self.frames.len() - self.void.iter().map(ExactSizeIterator::len).sum::<usize>()
    }

    /// Notes that what was kept of the first `taken_rows` rows is in the sealed file.
    pub(super) fn sealed(&mut self, revision: i64, taken_rows: usize, common: CommonClock) {
        self.common = Some((taken_rows, common));
        self.revision = revision;
        self.sealed_rows = taken_rows;
        self.live.clear();
        self.live.shrink_to_fit();
        self.live_rows = 0;
    }
}

/// The rows of a recording at one moment, with the times that were decoded.
pub(super) struct Snapshot {
    frames: Arc<FrameColumns>,
    void: Vec<Range<usize>>,
    clock: SessionClock,
    common: Option<CommonClock>,
}

impl Snapshot {
    /// The frames as they are sealed and analysed: on one clock, units decided, without the rows that the log refused. (The
    /// recording itself keeps the refused ones in their place: its row numbers are those of the clock, of repeats and of
    /// what is settled.)
    pub(super) fn finish(self) -> FinishedRecording {
        let Self { mut frames, void, clock, common } = self;
        let is_void = |row: usize| void.iter().any(|rows| rows.contains(&row));
        let (common, acc_to_mps2) = rayon::join(
            || common.unwrap_or_else(|| CommonClock::of(&frames, &clock, is_void)),
            || units(&frames, is_void),
        );
        let taken_rows = frames.len();
        if !common.is_decoded() {
            common.apply(Arc::make_mut(&mut frames));
        }
        if !void.is_empty() {
            frames = Arc::new(frames.gather((0..taken_rows).filter(|&row| !is_void(row))));
        }
        FinishedRecording { frames, acc_to_mps2, clock: common, taken_rows }
    }
}

/// A recording's columns as they are sealed and analysed.
#[derive(Clone, Debug)]
pub struct FinishedRecording {
    /// With times since session start, on one clock.
    pub frames: Arc<FrameColumns>,
    acc_to_mps2: [Option<f32>; SENSORS],
    pub(super) clock: CommonClock,
    /// Rows of the recording that this answers for, those that the log refused included.
    pub taken_rows: usize,
}

impl FinishedRecording {
    /// The factor that turns a sensor's `acc` into m/s², by sensor byte; `None`: not decided.
    #[must_use]
    pub fn acc_to_mps2(&self, sensor: u8) -> Option<f32> {
        self.acc_to_mps2.get(usize::from(sensor)).copied().flatten()
    }

    /// Estimated error between the clocks of different sensors, ns.
    #[must_use]
    pub fn sync_error_ns(&self) -> i64 {
        self.clock.sync_error_ns()
    }

    /// What its sealed file says about it.
    #[must_use]
    pub fn metadata(&self, device: &DeviceCode) -> Vec<(String, String)> {
        let mut metadata = vec![
            (seal::KEY_SYNC_ERROR_NS.to_owned(), self.sync_error_ns().to_string()),
            (seal::KEY_DEVICE_CODE.to_owned(), device.to_string()),
        ];
        let errors_ns: BTreeMap<String, i64> = SensorRole::CHAIN
            .into_iter()
            .filter_map(|role| Some((role.to_string(), self.clock.error_ns(role.to_byte())?)))
            .collect();
        metadata.push((seal::KEY_CLOCK_ERRORS_NS.to_owned(), serde_json::to_string(&errors_ns).unwrap_or_default()));
        if !self.clock.notes.is_empty() {
            // Plain numbers and names: it cannot fail.
            let clocks = serde_json::to_string(&self.clock.notes).unwrap_or_default();
            metadata.push((seal::KEY_CLOCKS.to_owned(), clocks));
        }
        metadata
    }

    /// The samples of each sensor in time order, as the pipelines read them.
    #[must_use]
    pub fn track(&self) -> Track {
        track_of(&self.frames, &self.clock)
    }
}

/// Reads clocks and units of a session's frames, which are all there and in arrival order with `received_at_us` filled,
/// exactly as those of a live session are read.
#[must_use]
pub fn finish_recording(session: &SessionRow, frames: FrameColumns) -> FinishedRecording {
    let recording = Recording::new(session);
    let snapshot = {
        let mut state = recording.lock();
        state.restore(frames, None);
        state.snapshot()
    };
    drop(recording);
    snapshot.finish()
}

/// The acceleration unit of each sensor, by sensor byte, from all its samples that are kept.
fn units(frames: &FrameColumns, is_void: impl Fn(usize) -> bool) -> [Option<f32>; SENSORS] {
    std::array::from_fn(|sensor| {
        let is_of = |&(row, (&of, _)): &(usize, (&u8, &[f32; 3]))| usize::from(of) == sensor && !is_void(row);
        let samples: Vec<[f32; 3]> =
            frames.sensor.iter().zip(&frames.acc).enumerate().filter(is_of).map(|(_, (_, &acc))| acc).collect();
        if samples.is_empty() { None } else { calibrate::acc_to_mps2(&samples) }
    })
}

fn track_of(frames: &FrameColumns, clock: &CommonClock) -> Track {
    let of_role = |role: SensorRole| -> SensorTrack {
        let sensor = role.to_byte();
        let mut rows: Vec<usize> = (0..frames.len()).filter(|&row| frames.sensor[row] == sensor).collect();
        if !rows.is_sorted_by_key(|&row| frames.t_ns[row]) {
            rows.sort_by_key(|&row| (frames.t_ns[row], row));
        }
        let mut samples = SensorTrack {
            t_ns: rows.iter().map(|&row| frames.t_ns[row]).collect(),
            acc: rows.iter().map(|&row| frames.acc[row]).collect(),
            gyro: rows.iter().map(|&row| frames.gyro[row]).collect(),
            angle: rows.iter().map(|&row| frames.angle[row]).collect(),
            clock_error_ns: clock.error_ns(sensor),
            untimed: 0,
        };
        let untimed: Vec<bool> = rows.iter().map(|&row| frames.is_untimed(row)).collect();
        samples.leave_out(&untimed);
        samples
    };
    let sensors: Vec<SensorTrack> = SensorRole::CHAIN.par_iter().map(|&role| of_role(role)).collect();
    let mut track = Track { sync_error_ns: clock.sync_error_ns(), clocks: clock.notes.clone(), ..Track::default() };
    for (role, samples) in SensorRole::CHAIN.into_iter().zip(sensors).filter(|(_, samples)| !samples.is_empty()) {
        if let Some(place) = track.get_or_insert(role) {
            *place = samples;
        }
    }
    track
}

#[cfg(test)]
mod tests {
    use schemas::SessionStatus;

    use super::*;

    fn recording() -> Recording {
        Recording::new(&SessionRow {
            session_id: SessionId(1),
            kind: SessionKind::Session,
            device_code: "2025001".parse().unwrap(),
            group_code: "2025001".to_owned(),
            claimed_id: None,
            user_id: None,
            status: SessionStatus::Collecting,
            reason: None,
            started_at_us: 0,
            ended_at_us: None,
            changed_at_us: 0,
            revision: 0,
            sealed_rows: 0,
            frames_path: None,
            frames_bytes: None,
            sync_error_ns: None,
            closed: false,
        })
    }

    fn packet(first_ms: i64) -> FrameColumns {
        let mut frames = FrameColumns::default();
        for row in 0..10 {
            frames.push_decoded(1, schemas::SensorRole::Waist, Some(first_ms + 5 * row), [[1.0; 3]; 3]);
        }
        frames
    }

    fn take(recording: &Recording, first_ms: i64) -> Range<usize> {
        match recording.lock().take(&mut packet(first_ms), Some(first_ms as u64), 1_000_000) {
            Taken::Rows(rows) => rows,
            Taken::Repeat { .. } => panic!("taken before"),
        }
    }

    #[test]
    fn holes_count_as_lost_frames_and_late_ones_do_not() {
        let mut losses = LossMeter::default();
        let step_ns = 5_000_000;
        for number in (0..1000).filter(|number| !(300..330).contains(number) && *number != 500) {
            let late_ns = if number % 50 == 7 { 2_000_000 } else { 0 };
            losses.note(number * step_ns + late_ns);
        }
        // A single missing frame is within what a busy device does.
        assert_eq!(losses.lost, 30);
    }

    #[test]
    fn frames_without_a_time_make_no_hole() {
        let recording = recording();
        for number in 0..20 {
            let mut frames = packet(50 * number);
            frames.push_decoded(1, SensorRole::Waist, None, [[1.0; 3]; 3]);
            // Each packet arrives 200 ms after it was measured.
            let taken = recording.lock().take(&mut frames, None, (50 * number + 250) * 1000);
            assert!(matches!(taken, Taken::Rows(_)));
        }
        assert_eq!(recording.lock().lost_frames(), 0);
        let late = recording.lock().take(&mut packet(50 * 24), None, 50 * 24 * 1000);
        assert!(matches!(late, Taken::Rows(_)));
        assert_eq!(recording.lock().lost_frames(), 40);
    }

    #[test]
    fn rows_that_the_log_refused_are_in_no_table_and_shift_nothing() {
        let recording = recording();
        for (first_ms, kept) in [(1000, true), (2000, false), (3000, true)] {
            let rows = take(&recording, first_ms);
            recording.settle(rows, kept);
        }
        let finished = recording.lock().snapshot().finish();
        let times = &finished.frames.device_time_raw;
        assert_eq!((times.len(), times[0], times[10], finished.taken_rows), (20, 1000, 3000, 30));
        // That file could not be written; what comes now is not settled before the log says so.
        let rows = take(&recording, 2000);
        assert_eq!(rows, 30..40);
        assert_eq!(recording.settled_rows(), 30);
        let live =
            |recording: &Recording| recording.live_batches().map(|live| live.iter().map(RecordBatch::num_rows).sum());
        assert_eq!(live(&recording), Some(20));
        recording.settle(rows, true);
        assert_eq!(live(&recording), Some(30));

        let finished = recording.lock().snapshot().finish();
        assert_eq!((finished.frames.len(), finished.taken_rows), (30, 40));
        recording.lock().sealed(1, finished.taken_rows, finished.clock);
        let state = recording.lock();
        assert_eq!((state.kept_rows(), state.frames.len()), (30, state.sealed_rows));
    }

    #[test]
    fn a_sealed_file_reads_as_what_was_in_memory() {
        // Two sensors that take turns; the calibration of the second is 40 ms old.
        let recording = recording();
        let mut frames = FrameColumns::default();
        for tick in 0..3000 {
            for (sensor, role, behind_ms) in
                [(1, schemas::SensorRole::Waist, 0), (2, schemas::SensorRole::Shoulder, 40)]
            {
                let stamp_ms = 1_758_959_100_000 + 10 * tick + 5 * (i64::from(sensor) - 1) - behind_ms;
                // Of the first a few come without a time.
                let stamp_ms = (sensor == 2 || tick % 100 != 7).then_some(stamp_ms);
                frames.push_decoded(sensor, role, stamp_ms, [[1.0; 3]; 3]);
            }
        }
        recording.lock().take(&mut frames, None, 1_758_959_100_000_000);
        let first = recording.lock().snapshot().finish();
        let track = first.track();
        assert_eq!(track.clocks.len(), 1, "{:?}", track.clocks);
        let waist = track.get(SensorRole::Waist).unwrap();
        assert_eq!((waist.len(), waist.untimed), (2970, 30));

        let folder = tempfile::tempdir().unwrap();
        let paths = crate::store::paths::Paths::new(folder.path());
        let metadata = first.metadata(&recording.device);
        let unit = |sensor| first.acc_to_mps2(sensor);
        let written = seal::write_frames(&paths, SessionId(1), 0, 1, &first.frames, unit, &metadata).unwrap();
        let file = crate::store::pack::locate(&paths, written.path).unwrap();
        assert_eq!(seal::read_track(&file).unwrap(), track);
        // The analysis looks again, by what the seal kept.
        recording.lock().sealed(1, first.taken_rows, first.clock);
        assert_eq!(recording.lock().snapshot().finish().track(), track);
    }
}
