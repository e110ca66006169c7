//! The recordings that are open, by session and by device; taking packets, sealing, going on after a restart.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::RecordBatch;
use schemas::{DeviceCode, FrameColumns, SessionId, SessionStatus, Track};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::clock::SENSORS;
use super::recording::{FinishedRecording, Recording, Taken};
use super::{Accepted, Durable, Error, Event, Packet};
use crate::clock::Clock;
use crate::store::catalog::{Catalog, NewSession, Sealed, SessionKind, SessionRow};
use crate::store::{paths::Paths, seal, wal};

/// Limits of the ingest room.
#[derive(Clone, Debug)]
pub struct Options {
    /// A session that holds so many frames takes no more; its device is told to stop. 6 million are two hours of four
    /// sensors at 200 Hz, 450 MB in memory.
    pub session_limit_frames: usize,
    /// So much of the disk stays free for frames: what can wait is not written then.
    pub min_free_bytes: u64,
}

/// Events that wait for the sessions room at most; it looks at all recordings each second anyway, so a full queue costs
/// latency only.
pub const EVENT_QUEUE_LIMIT: usize = 1024;

/// Seals that wait to be looked at beforehand at most; each keeps its frames in memory, and one that is left out is looked at
/// when it is done.
pub const SEALING_QUEUE_LIMIT: usize = 2;

/// What a file is being written of.
#[derive(Clone, Debug)]
pub struct Sealing {
    pub session_id: SessionId,
    /// That the file will have if its seal succeeds.
    pub revision: i64,
    pub finished: Arc<FinishedRecording>,
}

/// The ingest room. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Options,
    clock: Clock,
    log: wal::Handle,
    catalog: Catalog,
    paths: Paths,
    events: mpsc::Sender<Event>,
    sealing: mpsc::Sender<Sealing>,
    registry: RwLock<Registry>,
    /// Held while a collection is made, so that two packets of one device do not make two.
    making_collection: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Registry {
    recordings: HashMap<SessionId, Arc<Recording>>,
    /// The recording that frames of a device without a session go to.
    by_device: HashMap<DeviceCode, SessionId>,
    /// The collection that a device's uploads under an id of its own go to.
    by_claim: HashMap<(DeviceCode, String), SessionId>,
}

impl Registry {
    /// Frames find the recording from now on, if it takes any.
    fn admit(&mut self, recording: Arc<Recording>, status: SessionStatus) {
        let session = recording.session_id;
        if status.accepts_frames() {
            match &recording.claimed {
                Some(claimed) => drop(self.by_claim.insert((recording.device.clone(), claimed.clone()), session)),
                None => drop(self.by_device.insert(recording.device.clone(), session)),
            }
        }
        self.recordings.insert(session, recording);
    }

    /// Frames that do not name the session itself no longer go to it.
    fn retire(&mut self, recording: &Recording) {
        let session = recording.session_id;
        match &recording.claimed {
            Some(claimed) => {
                let key = (recording.device.clone(), claimed.clone());
                if self.by_claim.get(&key) == Some(&session) {
                    self.by_claim.remove(&key);
                }
            }
            None if self.by_device.get(&recording.device) == Some(&session) => {
                self.by_device.remove(&recording.device);
            }
            None => {}
        }
    }
}

/// What an open session looks like from outside, for SQL, timeouts and the dashboard.
#[derive(Clone, Debug)]
pub struct Live {
    pub session_id: SessionId,
    pub device: DeviceCode,
    /// True for frames that the device sent of its own accord.
    pub is_collection: bool,
    pub started_at_us: i64,
    pub status: SessionStatus,
    /// Frames taken, sealed or not.
    pub frames: usize,
    /// True if the sealed file holds every frame that was taken.
    pub is_sealed: bool,
    pub revision: i64,
    pub last_packet_us: Option<i64>,
    /// Frames taken of each place of the chain.
    pub frames_by_sensor: Vec<(schemas::SensorRole, usize)>,
    /// Frames that were measured and never came, as far as the holes in their times tell.
    pub lost_frames: u64,
}

impl Handle {
    pub fn new(
        options: Options,
        clock: Clock,
        log: wal::Handle,
        catalog: Catalog,
        paths: Paths,
        events: mpsc::Sender<Event>,
        sealing: mpsc::Sender<Sealing>,
    ) -> Self {
        Self(Arc::new(Inner {
            options,
            clock,
            log,
            catalog,
            paths,
            events,
            sealing,
            registry: RwLock::default(),
            making_collection: tokio::sync::Mutex::new(()),
        }))
    }

    /// Takes a packet of a device. Waits only for room in the log's queue (that wait is the back-pressure).
    ///
    /// # Errors
    /// See [`Error`]; nothing of a refused packet is kept.
    pub async fn append(&self, device: &DeviceCode, packet: Packet) -> Result<Accepted, Error> {
        let recording = self.recording_for(device, packet.claimed_session.as_deref()).await?;
        self.append_to(recording, device, packet).await
    }

    /// Takes a packet that a device uploaded by HTTP. It is never refused for the session it names: the sketches claim
    /// constant and invented numbers, which are none of ours. It goes to that session only if it is this device's own and
    /// takes frames; else to the device's live session; else to a collection for just this device and claimed id. One that is
    /// full is passed over.
    ///
    /// # Errors
    /// See [`Error`]; nothing of a refused packet is kept.
    pub async fn append_upload(&self, device: &DeviceCode, packet: Packet) -> Result<Accepted, Error> {
        loop {
            let recording = self.recording_for_upload(device, &packet).await?;
            let session_id = recording.session_id;
            match self.append_to(recording, device, packet.clone()).await {
                // It was closed between the choice and the append: the next choice is another one.
                Err(Error::NotActive { .. }) if self.get(session_id).is_none() => {}
                outcome => return outcome,
            }
        }
    }

    async fn append_to(
        &self,
        recording: Arc<Recording>,
        device: &DeviceCode,
        mut packet: Packet,
    ) -> Result<Accepted, Error> {
        let session_id = recording.session_id;
        let frames = packet.frames.len();
        let log_failed = |source| Error::Log { session_id, source: Arc::new(source) };
        let permit = self.0.log.reserve(frames).await.map_err(log_failed)?;

        let (settled, on_disk) = oneshot::channel();
        let (rows, late) = {
            let mut state = recording.lock();
            if state.closed {
                return Err(Error::NotActive { session_id, status: state.status });
            }
            let limit_frames = self.0.options.session_limit_frames;
            if !state.has_room_for(&packet, limit_frames) {
                drop(state);
                self.tell(Event::Full { session_id });
                return Err(Error::Full { session_id, limit_frames });
            }
            let rows = match state.take(&mut packet.frames, packet.content_hash, packet.received_at_us) {
                Taken::Rows(rows) => rows,
                Taken::Repeat { end_row } => {
                    drop(state);
                    metrics::counter!("volant_ingest_duplicate_packets_total").increment(1);
                    let durable = wait_for_first(recording, end_row);
                    return Ok(Accepted { session_id, duplicate: true, end_row, durable });
                }
            };
            let record = wal::WalRecord {
                session_id,
                first_seq: rows.start as i64,
                content_hash: packet.content_hash.unwrap_or(0),
                packet_ms: packet.packet_ms.unwrap_or(i64::MIN),
                frames: packet.frames,
            };
            let (settled_rows, settling) = (rows.clone(), Arc::clone(&recording));
            // Under the lock, so that the order of the log is the order of the rows.
            let appended = self.0.log.append_then(permit, &record, move |result| {
                settling.settle(settled_rows, result.is_ok());
                // The socket may be gone; the rows are settled all the same.
                drop(settled.send(result));
            });
            if let Err(source) = appended {
                drop(state);
                recording.settle(rows, false);
                return Err(log_failed(source));
            }
            (rows, state.revision > 0)
        };
        recording.note_packet(packet.received_at_us);
        metrics::counter!("volant_ingest_frames_total").increment(frames as u64);
        if rows.start == 0 {
            self.tell(Event::FirstFrames { session_id, device: device.clone() });
        } else if late {
            self.tell(Event::LateFrames { session_id });
        }
        let durable = async move {
            match on_disk.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(source)) => Err(Error::Log { session_id, source }),
                Err(_) => Err(Error::LogEnded { session_id }),
            }
        };
        Ok(Accepted { session_id, duplicate: false, end_row: rows.end, durable: Box::pin(durable) })
    }

    fn tell(&self, event: Event) {
        if self.0.events.try_send(event).is_err() {
            metrics::counter!("volant_ingest_delayed_events_total").increment(1);
        }
    }

    /// The recording that a packet belongs to.
    async fn recording_for(&self, device: &DeviceCode, claimed: Option<&str>) -> Result<Arc<Recording>, Error> {
        let Some(claimed) = claimed else {
            return match self.live_of(device) {
                Some(recording) => Ok(recording),
                None => self.collection_of(device, None, |_| true).await,
            };
        };
        let unknown = || Error::UnknownSession { claimed: claimed.chars().take(64).collect() };
        let session_id: SessionId = claimed.parse().map_err(|_| unknown())?;
        if let Some(recording) = self.get(session_id) {
            return if recording.device == *device { Ok(recording) } else { Err(Error::ForeignSession { session_id }) };
        }
        match self.0.catalog.session(session_id).await? {
            None => Err(unknown()),
            Some(session) if session.device_code != *device => Err(Error::ForeignSession { session_id }),
            Some(session) => Err(Error::NotActive { session_id, status: session.status }),
        }
    }

    async fn recording_for_upload(&self, device: &DeviceCode, packet: &Packet) -> Result<Arc<Recording>, Error> {
        let claimed = packet.claimed_session.as_deref();
        let has_room =
            |recording: &Recording| recording.lock().has_room_for(packet, self.0.options.session_limit_frames);
        if let Some(named) = claimed.and_then(|claimed| self.get(claimed.parse().ok()?))
            && named.device == *device
            && named.kind == SessionKind::Session
        {
            // A sketch whose constant id happens to be an old number of this device must not go on with it for ever.
            let state = named.lock();
            let takes = state.status.accepts_frames() || state.ended_lately(self.0.clock.now_us());
            drop(state);
            if takes && has_room(&named) {
                return Ok(named);
            }
        }
        match self.live_of(device) {
            Some(live) if (claimed.is_none() || live.kind == SessionKind::Session) && has_room(&live) => Ok(live),
            _ => self.collection_of(device, claimed, has_room).await,
        }
    }

    pub(super) fn get(&self, session: SessionId) -> Option<Arc<Recording>> {
        self.read().recordings.get(&session).cloned()
    }

    fn live_of(&self, device: &DeviceCode) -> Option<Arc<Recording>> {
        let registry = self.read();
        registry.recordings.get(registry.by_device.get(device)?).cloned()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Registry> {
        self.0.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Registry> {
        self.0.registry.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open collection of what a device sends under an id of its own.
    #[must_use]
    pub fn open_collection(&self, device: &DeviceCode, claimed: &str) -> Option<SessionId> {
        self.read().by_claim.get(&(device.clone(), claimed.to_owned())).copied()
    }

    /// The devices with an open collection under an id of their own.
    #[must_use]
    pub fn devices_with_open_collection(&self, claimed: &str) -> Vec<DeviceCode> {
        let registry = self.read();
        let mut devices: Vec<DeviceCode> =
            registry.by_claim.keys().filter(|(_, of)| of == claimed).map(|(device, _)| device.clone()).collect();
        devices.sort();
        devices
    }

    /// The collection of a device that sends without a session, or under an id that is none of ours, made if absent: its
    /// frames are kept and can be found. An open one that is not `usable` is left to end by itself.
    async fn collection_of(
        &self,
        device: &DeviceCode,
        claimed: Option<&str>,
        usable: impl Fn(&Recording) -> bool,
    ) -> Result<Arc<Recording>, Error> {
        let _making = self.0.making_collection.lock().await;
        let open = match claimed {
            None => self.live_of(device),
            Some(claimed) => self.open_collection(device, claimed).and_then(|session| self.get(session)),
        };
        match open {
            Some(recording) if usable(&recording) => return Ok(recording),
            Some(recording) => self.tell(Event::Full { session_id: recording.session_id }),
            None => {}
        }
        let new = NewSession {
            kind: SessionKind::Collection,
            device_code: device.clone(),
            group_code: device.to_string(),
            claimed_id: claimed.map(str::to_owned),
            user_id: None,
            status: SessionStatus::Collecting,
            started_at_us: self.0.clock.now_us(),
        };
        let session = self.0.catalog.insert_session(&new).await?;
        info!(session.id = %session.session_id, device.id = %device,
            "device {device} sends frames without a session: collected as session {}", session.session_id);
        Ok(self.open(&session))
    }

    /// Opens the recording of a session; frames of its device that name no session go there from now on.
    pub fn open_session(&self, session: &SessionRow) {
        self.open(session);
    }

    fn open(&self, session: &SessionRow) -> Arc<Recording> {
        let recording = Arc::new(Recording::new(session));
        self.write().admit(Arc::clone(&recording), session.status);
        recording
    }

    /// Notes the state of a session. From `analyzing` on, frames that name no session no longer go to it; frames that
    /// name it are still taken, as late ones, until [`Handle::close`].
    pub fn set_status(&self, session: SessionId, status: SessionStatus) {
        let Some(recording) = self.get(session) else { return };
        {
            let mut state = recording.lock();
            if state.status.accepts_frames() && !status.accepts_frames() {
                state.ended_at_us = Some(self.0.clock.now_us());
            }
            state.status = status;
        }
        if !status.accepts_frames() {
            self.write().retire(&recording);
        }
    }

    /// Writes what the session holds to its sealed file and commits that together with the job of analysing it.
    ///
    /// Idempotent: sealing again without new frames changes nothing. `None` if the session holds no frames.
    pub async fn seal(&self, session: SessionId) -> Result<Option<Sealed>, Error> {
        let Some(recording) = self.get(session) else { return Ok(None) };
        let _sealing = recording.sealing.lock().await;
        let (snapshot, revision) = loop {
            let taken = recording.lock().frames.len();
            recording.wait_settled(taken).await;
            let state = recording.lock();
            if state.is_sealed() {
                return Ok(None);
            }
            // Appends that came in between are settled soon.
            if recording.settled_rows() >= state.frames.len() {
                break (state.snapshot(), state.revision + 1);
            }
        };
        let broke = |_| Error::Broke { session_id: session };
        let finished = tokio::task::spawn_blocking(|| snapshot.finish()).await.map_err(broke)?;
        let (rows, taken_rows) = (finished.frames.len(), finished.taken_rows);
        if rows == 0 {
            // The log refused everything: there is no file to write.
            recording.lock().sealed(revision - 1, taken_rows, finished.clock);
            return Ok(None);
        }
        let finished = Arc::new(finished);
        // Whoever analyses it may begin while the file is written.
        drop(self.0.sealing.try_send(Sealing { session_id: session, revision, finished: Arc::clone(&finished) }));
        let (paths, started_at_us) = (self.0.paths.clone(), recording.started_at_us);
        let common = finished.clock.clone();
        let metadata = finished.metadata(&recording.device);
        let manifest = tokio::task::spawn_blocking(move || {
            let unit = |sensor: u8| finished.acc_to_mps2(sensor);
            seal::write_frames(&paths, session, started_at_us, revision as u32, &finished.frames, unit, &metadata)
        })
        .await
        .map_err(broke)?
        .map_err(|source| Error::Seal { session_id: session, source })?;
        let sealed = Sealed {
            session_id: session,
            revision,
            rows: rows as i64,
            path: manifest.path.to_string(),
            bytes: manifest.bytes as i64,
            sha256: manifest.sha256,
            sync_error_ns: common.sync_error_ns(),
        };
        self.0.catalog.commit_seal(&sealed, self.0.clock.now_us()).await?;
        recording.lock().sealed(revision, taken_rows, common);
        Ok(Some(sealed))
    }

    pub(super) fn options(&self) -> &Options {
        &self.0.options
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.0.catalog
    }

    pub(super) fn paths(&self) -> &Paths {
        &self.0.paths
    }

    /// Ends a recording: nothing more is taken, the log may forget it, the memory is given back.
    ///
    /// False, and nothing happens, while the recording holds rows that are not sealed: a packet may come between the
    /// caller's look and this.
    pub async fn close(&self, session: SessionId) -> Result<bool, Error> {
        if let Some(recording) = self.get(session) {
            let mut state = recording.lock();
            if !state.is_sealed() {
                return Ok(false);
            }
            state.closed = true;
        }
        self.0.catalog.close_session(session).await?;
        let mut registry = self.write();
        if let Some(recording) = registry.recordings.remove(&session) {
            registry.retire(&recording);
        }
        drop(registry);
        self.0.log.release(session);
        Ok(true)
    }

    /// How many rows of the recording the sealed file of this revision answers for; `None` if that is not the newest one, or
    /// the recording is not in memory. No two seals of a revision answer for the same rows with other values.
    #[must_use]
    pub fn sealed_rows(&self, session: SessionId, revision: i64) -> Option<usize> {
        let recording = self.get(session)?;
        let state = recording.lock();
        (state.revision == revision).then_some(state.sealed_rows)
    }

    /// The samples of a session while it is in memory, as the pipelines read them.
    #[must_use]
    pub fn track(&self, session: SessionId, revision: i64) -> Option<Track> {
        let recording = self.get(session)?;
        let snapshot = {
            let state = recording.lock();
            if state.revision != revision || state.sealed_rows != state.frames.len() {
                return None;
            }
            state.snapshot()
        };
        Some(snapshot.finish().track())
    }

    /// The samples that an open session holds, as the pipelines read them.
    #[must_use]
    pub fn live_track(&self, session: SessionId) -> Option<Track> {
        let snapshot = self.get(session)?.lock().snapshot();
        Some(snapshot.finish().track())
    }

    /// The rows of an open session from `from` on, as far as they are on disk, `limit` at most, and the row to go on with.
    #[must_use]
    pub fn rows_since(&self, session: SessionId, from: usize, limit: usize) -> Option<(FrameColumns, usize)> {
        self.get(session)?.rows_since(from, limit)
    }

    /// Waits until no file is being written, at shutdown: a rename must not come after the folder's lock is given up.
    pub async fn finish_seals(&self) {
        let recordings: Vec<_> = self.read().recordings.values().cloned().collect();
        for recording in recordings {
            drop(recording.sealing.lock().await);
        }
    }

    /// Why the log takes no frames at the moment; `None` while it does. The disk is asked.
    pub async fn log_failure(&self, room: wal::Room) -> Option<Arc<wal::Error>> {
        match self.0.log.probe(room).await {
            wal::Health::Good => None,
            wal::Health::Failing(error) | wal::Health::Poisoned(error) => Some(error),
        }
    }

    /// One open session.
    #[must_use]
    pub fn live(&self, session: SessionId) -> Option<Live> {
        self.get(session).map(|recording| live_view(&recording))
    }

    /// Every open session, by number.
    #[must_use]
    pub fn all_live(&self) -> Vec<Live> {
        let recordings: Vec<_> = self.read().recordings.values().cloned().collect();
        let mut live: Vec<Live> = recordings.iter().map(|recording| live_view(recording)).collect();
        live.sort_by_key(|live| live.session_id);
        live
    }

    /// True if there is none to ask for with [`Handle::unsealed`].
    #[must_use]
    pub fn has_no_recording(&self) -> bool {
        self.read().recordings.is_empty()
    }

    /// The rows of every session that no sealed file answers for, as far as they are on disk.
    ///
    /// A session that is in this answer was not sealed when its rows were read. Whoever lists the sealed files after
    /// this call and leaves these sessions out has each frame exactly once.
    #[must_use]
    pub fn unsealed(&self) -> Vec<(SessionId, i64, Vec<RecordBatch>)> {
        let recordings: Vec<_> = self.read().recordings.values().cloned().collect();
        recordings
            .iter()
            .filter_map(|recording| Some((recording.session_id, recording.started_at_us, recording.live_batches()?)))
            .collect()
    }
}

fn live_view(recording: &Recording) -> Live {
    let state = recording.lock();
    Live {
        session_id: recording.session_id,
        device: recording.device.clone(),
        is_collection: recording.kind == SessionKind::Collection,
        started_at_us: recording.started_at_us,
        status: state.status,
        frames: state.kept_rows(),
        is_sealed: state.is_sealed(),
        revision: state.revision,
        last_packet_us: recording.last_packet_us(),
        frames_by_sensor: (0..SENSORS)
            .map(|byte| (schemas::SensorRole::from_wire_id(byte as i64), state.frames_by_sensor[byte]))
            .filter(|&(_, frames)| frames > 0)
            .collect(),
        lost_frames: state.lost_frames(),
    }
}

/// A repeat is on disk when its first is.
fn wait_for_first(recording: Arc<Recording>, end_row: usize) -> Durable {
    Box::pin(async move {
        let session_id = recording.session_id;
        if recording.wait_settled(end_row).await { Ok(()) } else { Err(Error::LogEnded { session_id }) }
    })
}

/// Recordings as they are rebuilt from the log, before anybody is served.
#[derive(Debug, Default)]
pub struct Recovery {
    unclosed: HashMap<SessionId, Arc<Recording>>,
    newest: Option<SessionId>,
    /// In the order of their numbers: a start that ends half-way leaves only higher numbers to the next.
    lost: BTreeMap<SessionId, Vec<wal::WalRecord>>,
    released: Vec<SessionId>,
}

impl Recovery {
    /// Prepares for the sessions that the catalog has as not closed. `newest` is its highest session number: a record
    /// above it belongs to a session that the catalog has lost.
    #[must_use]
    pub fn new(unclosed: &[SessionRow], newest: Option<SessionId>) -> Self {
        let unclosed = unclosed
            .iter()
            .map(|row| {
                let recording = Recording::new(row);
                (row.session_id, Arc::new(recording))
            })
            .collect();
        Self { unclosed, newest, ..Self::default() }
    }

    /// Takes a record that the log gave back.
    pub fn replay(&mut self, record: wal::WalRecord) {
        let session_id = record.session_id;
        if let Some(recording) = self.unclosed.get(&session_id) {
            restore(recording, record);
        } else if self.newest.is_some_and(|newest| session_id <= newest) {
            if self.released.last() != Some(&session_id) {
                self.released.push(session_id);
            }
        } else {
            self.lost.entry(session_id).or_default().push(record);
        }
    }

    /// The rows of every recording that was not sealed, as [`Handle::unsealed`] gives them, for a reader that does not go
    /// on with the recordings.
    #[must_use]
    pub fn unsealed(&self) -> Vec<(SessionId, i64, Vec<RecordBatch>)> {
        self.unclosed
            .values()
            .filter_map(|recording| Some((recording.session_id, recording.started_at_us, recording.live_batches()?)))
            .collect()
    }
}

fn restore(recording: &Recording, record: wal::WalRecord) {
    let received_at_us = record.frames.received_at_us.last().copied();
    let hash = Some(record.content_hash).filter(|&hash| hash != 0);
    let rows = recording.lock().restore(record.frames, hash);
    if let Some(received_at_us) = received_at_us {
        recording.note_packet(received_at_us);
    }
    recording.settle(rows, true);
}

impl Handle {
    /// Takes over what was rebuilt from the log. Returns the sessions that are not closed.
    pub async fn adopt(&self, recovery: Recovery) -> Result<Vec<SessionRow>, Error> {
        let Recovery { mut unclosed, newest, lost, mut released } = recovery;
        let paths = self.0.paths.clone();
        let found =
            tokio::task::spawn_blocking(move || seal::found_above(&paths, newest.unwrap_or(SessionId(0)))).await;
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "sealed files that the catalog lost cannot be looked for"
                );
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        // By number, also between files and log: a start that ends half-way leaves only higher numbers to the next.
        let mut strays: BTreeMap<SessionId, (Option<seal::Found>, Vec<wal::WalRecord>)> =
            lost.into_iter().map(|(session, records)| (session, (None, records))).collect();
        for file in found {
            let session_id = file.path.session_id();
            strays.entry(session_id).or_default().0 = Some(file);
        }
        for (session_id, (file, records)) in strays {
            match self.adopt_stray(session_id, file, records).await? {
                Some(recording) => drop(unclosed.insert(session_id, Arc::new(recording))),
                None => released.push(session_id),
            }
        }
        let rows = self.0.catalog.unclosed_sessions().await?;
        {
            let mut registry = self.write();
            for row in &rows {
                if let Some(recording) = unclosed.remove(&row.session_id) {
                    registry.admit(recording, row.status);
                }
            }
        }
        released.sort_unstable();
        released.dedup();
        for session in released {
            self.0.log.release(session);
        }
        Ok(rows)
    }

    /// Makes the session that the catalog has lost again, from its sealed file, its frames in the log, or both. `None` if
    /// the file holds everything.
    async fn adopt_stray(
        &self,
        session_id: SessionId,
        file: Option<seal::Found>,
        records: Vec<wal::WalRecord>,
    ) -> Result<Option<Recording>, Error> {
        let now_us = self.0.clock.now_us();
        let lost = || format!("lost-{session_id}").parse::<DeviceCode>().expect("letters, digits and a hyphen");
        let new = |device_code: DeviceCode, started_at_us| NewSession {
            kind: SessionKind::Collection,
            group_code: device_code.to_string(),
            claimed_id: None,
            device_code,
            user_id: None,
            status: SessionStatus::Stopping,
            started_at_us,
        };
        let logged: usize = records.iter().map(|record| record.frames.len()).sum();
        if let Some(file) = file {
            let device_code = file.device_code.and_then(|code| code.parse().ok()).unwrap_or_else(lost);
            let sealed = Sealed {
                session_id,
                revision: i64::from(file.revision),
                rows: file.rows as i64,
                path: file.path.to_string(),
                bytes: file.bytes as i64,
                sha256: file.sha256,
                sync_error_ns: file.sync_error_ns,
            };
            // The log holds all of a session until it is closed, and then everything is in the file; of a closed session
            // it may still hold a part.
            let is_whole = logged as u64 <= file.rows;
            warn!(session.id = %session_id, "session {session_id}, which the catalog has lost, is known again by its file");
            let new = new(device_code, file.started_at_us);
            self.0.catalog.insert_found_session(&new, &sealed, is_whole, now_us).await?;
            if is_whole {
                return Ok(None);
            }
        } else {
            let first_us = records.first().and_then(|record| record.frames.received_at_us.first().copied());
            warn!(session.id = %session_id, "the log holds frames of session {session_id}, which the catalog has lost: kept");
            self.0.catalog.insert_lost_session(session_id, &new(lost(), first_us.unwrap_or(now_us))).await?;
        }
        let Some(row) = self.0.catalog.session(session_id).await? else { return Ok(None) };
        let recording = Recording::new(&row);
        for record in records {
            restore(&recording, record);
        }
        Ok(Some(recording))
    }
}
