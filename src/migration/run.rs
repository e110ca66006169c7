//! The import itself: kind by kind, row by row, each taken in one commit.

use std::collections::{HashMap, HashSet};

use pipelines::{PhaseDelay, RangeOfMotion};
use schemas::{DeviceCode, FrameColumns, SessionId, SessionStatus, UserId};

use super::source::{Source, Texts};
use super::{Error, Note, Options, Progress, Reason, Renumbered, Report, Tally, figures, frames};
use crate::clock::Clock;
use crate::ingest;
use crate::store::catalog::{
    Catalog, ImportedResult, ImportedSession, ImportedUser, NewImport, NewSession, Sealed, SessionKind, SessionRow,
    ShownResult, StoredFile,
};
use crate::store::paths::Paths;
use crate::store::results::{ResultRow, write_results, write_strokes};
use crate::store::seal::{self, Manifest};

/// The longest openid that a client may send, as `accounts` has it.
const OPENID_LIMIT_BYTES: usize = 128;
/// Renumbered sessions that a report names.
const RENUMBERED_LIMIT: usize = 10_000;

/// Where to; `None` to look only.
pub(super) type Target = Option<(Catalog, Paths)>;

/// Imports what is new in the source. The caller holds the data folder's lock.
///
/// # Errors
/// See [`Error`]; what was taken before stays, and the next run goes on.
pub async fn import(
    options: &Options,
    target: Target,
    clock: &Clock,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report, Error> {
    let source = Source::open(options).await?;
    let mut run = Run {
        report: Report { dry_run: target.is_none(), source: source.name.clone(), ..Report::default() },
        done: Progress { frames: 0, frames_total: 0, sessions: 0 },
        source,
        target,
        clock,
        options,
        progress,
        users: HashMap::new(),
        erased: HashSet::new(),
    };
    let outcome = run.all().await;
    run.source.close().await;
    outcome.map(|()| run.report)
}

struct Run<'a> {
    source: Source,
    target: Target,
    clock: &'a Clock,
    options: &'a Options,
    progress: &'a mut (dyn FnMut(Progress) + Send),
    report: Report,
    done: Progress,
    /// WeChat-user number to our user, of those taken.
    users: HashMap<i64, UserId>,
    /// WeChat-user numbers of those who were taken once and have been erased here since.
    erased: HashSet<i64>,
}

/// What the frames of one session came to.
#[derive(Default)]
struct Read {
    columns: FrameColumns,
    first_us: Option<i64>,
    last_us: Option<i64>,
}

/// One row of the results table.
struct StoredFigures {
    phase_delay: Option<String>,
    energy_ratio: Option<String>,
    rom_data: Option<String>,
    analyzed_at_us: Option<i64>,
}

impl Run<'_> {
    fn import<'b>(&self, source: &'b str, kind: &'static str, source_id: &'b str) -> NewImport<'b> {
        NewImport { source, kind, source_id, now_us: self.clock.now_us() }
    }

    /// What an earlier run made of a row.
    async fn known(&self, kind: &str, source_id: &str) -> Result<Option<i64>, Error> {
        match &self.target {
            Some((catalog, _)) => Ok(catalog.imported(&self.source.name, kind, source_id).await?),
            None => Ok(None),
        }
    }

    async fn all(&mut self) -> Result<(), Error> {
        let count = "SELECT CAST(count(*) AS TEXT) FROM wxapp_sensordata";
        self.done.frames_total = self.source.one("the number of frames", count).await?.unsigned_abs();
        if let Some((catalog, _)) = &self.target {
            let users = "SELECT CAST(max(coalesce((SELECT max(id) FROM wxapp_wxuser), 0), \
                         coalesce((SELECT max(user_id) FROM wxapp_wxuser), 0)) AS TEXT)";
            let sessions = "SELECT CAST(coalesce(max(id), 0) AS TEXT) FROM wxapp_datacollectionsession";
            let newest_user = self.source.one("the newest user", users).await?;
            let newest_session = self.source.one("the newest session", sessions).await?;
            let reserve = self.options.reserve;
            catalog
                .reserve_numbers(newest_user.saturating_add(reserve), newest_session.saturating_add(reserve))
                .await?;
        }
        self.users().await?;
        self.bindings().await?;
        self.groups().await?;
        self.sessions().await?;
        self.strays().await?;
        self.entries().await
    }

    async fn users(&mut self) -> Result<(), Error> {
        let mut after = 0;
        loop {
            let rows = self
                .source
                .page(
                    "users",
                    "SELECT CAST(id AS TEXT), CAST(openid AS TEXT), CAST(user_id AS TEXT) FROM wxapp_wxuser \
                     WHERE id > ? ORDER BY id LIMIT 500",
                    after,
                )
                .await?;
            let Some(last) = rows.last().and_then(|row| row.number(0)) else { return Ok(()) };
            after = last;
            for row in &rows {
                self.user(row).await?;
            }
        }
    }

    async fn user(&mut self, row: &Texts) -> Result<(), Error> {
        self.report.users.found += 1;
        let (Some(number), openid) = (row.number(0), row.text(1).unwrap_or_default()) else { return Ok(()) };
        let visible = openid.bytes().all(|byte| byte.is_ascii_graphic());
        if openid.is_empty() || openid.len() > OPENID_LIMIT_BYTES || !visible {
            self.report.users.leave_out(Reason::BadOpenid);
            return Ok(());
        }
        let id = number.to_string();
        if let Some(user) = self.known("user", &id).await?.map(UserId) {
            if let Some((catalog, _)) = &self.target
                && catalog.is_erased(user).await?
            {
                self.erased.insert(number);
                self.report.users.leave_out(Reason::Erased);
                return Ok(());
            }
            self.users.insert(number, user);
            self.report.users.already += 1;
            return Ok(());
        }
        let mut user_id = UserId(number);
        if let Some((catalog, _)) = &self.target {
            let now_us = self.clock.now_us();
            let user = ImportedUser {
                openid: &openid,
                wx_user_id: number,
                framework_user_id: row.number(2),
                created_at_us: now_us,
            };
            user_id = catalog.import_user(self.import(&self.source.name, "user", &id), &user).await?;
            if let Some(framework) = row.number(2)
                && catalog.find_user_by_number(framework).await?.is_none_or(|found| found.user_id != user_id)
            {
                self.report.note(Note::NumberTaken, 1);
            }
        }
        self.users.insert(number, user_id);
        self.report.users.taken += 1;
        Ok(())
    }

    fn is_of_erased(&self, user: Option<i64>) -> bool {
        user.is_some_and(|number| self.erased.contains(&number))
    }

    async fn bindings(&mut self) -> Result<(), Error> {
        let mut after = 0;
        let mut seen = HashSet::new();
        loop {
            let rows = self
                .source
                .page(
                    "bindings",
                    "SELECT CAST(id AS TEXT), CAST(wx_user_id AS TEXT), CAST(device_code AS TEXT), \
                     CAST(bind_time AS TEXT) FROM wxapp_devicebind WHERE id > ? ORDER BY id LIMIT 500",
                    after,
                )
                .await?;
            let Some(last) = rows.last().and_then(|row| row.number(0)) else { return Ok(()) };
            after = last;
            for row in &rows {
                self.report.bindings.found += 1;
                let Some(&user) = row.number(1).and_then(|number| self.users.get(&number)) else {
                    let erased = self.is_of_erased(row.number(1));
                    self.report.bindings.leave_out(if erased { Reason::Erased } else { Reason::UserNotTaken });
                    continue;
                };
                let Some(device) = row.text(2).and_then(|code| code.parse::<DeviceCode>().ok()) else {
                    self.report.bindings.leave_out(Reason::BadDeviceCode);
                    continue;
                };
                if !seen.insert((user, device.clone())) {
                    self.report.bindings.leave_out(Reason::Duplicate);
                    continue;
                }
                let id = row.text(0).unwrap_or_default();
                if self.known("binding", &id).await?.is_some() {
                    self.report.bindings.already += 1;
                    continue;
                }
                if let Some((catalog, _)) = &self.target {
                    let at_us = row.time_us(3).unwrap_or_else(|| self.clock.now_us());
                    let import = self.import(&self.source.name, "binding", &id);
                    catalog.import_binding(import, user, &device, at_us).await?;
                }
                self.report.bindings.taken += 1;
            }
        }
    }

    async fn groups(&mut self) -> Result<(), Error> {
        let rows = self
            .source
            .all(
                "groups",
                "SELECT CAST(id AS TEXT), CAST(group_code AS TEXT), CAST(created_time AS TEXT) FROM wxapp_devicegroup \
                 ORDER BY id",
            )
            .await?;
        for row in &rows {
            self.report.groups.found += 1;
            let (id, code) = (row.text(0).unwrap_or_default(), row.text(1).unwrap_or_default());
            if code.is_empty() {
                self.report.groups.leave_out(Reason::BadDeviceCode);
                continue;
            }
            if self.known("group", &id).await?.is_some() {
                self.report.groups.already += 1;
                continue;
            }
            if let Some((catalog, _)) = &self.target {
                let at_us = row.time_us(2).unwrap_or_else(|| self.clock.now_us());
                let device = code.parse().ok();
                let import = self.import(&self.source.name, "group", &id);
                catalog.import_group(import, &code, device.as_ref(), at_us).await?;
            }
            self.report.groups.taken += 1;
        }
        Ok(())
    }

    async fn sessions(&mut self) -> Result<(), Error> {
        let mut after = 0;
        loop {
            let rows = self
                .source
                .page(
                    "sessions",
                    "SELECT CAST(s.id AS TEXT), CAST(g.group_code AS TEXT), CAST(s.user_id AS TEXT), \
                     CAST(s.start_time AS TEXT), CAST(s.end_time AS TEXT), CAST(s.status AS TEXT), \
                     CAST(r.phase_delay AS TEXT), CAST(r.energy_ratio AS TEXT), CAST(r.rom_data AS TEXT), \
                     CAST(r.analysis_time AS TEXT), CAST(r.id AS TEXT) FROM wxapp_datacollectionsession s \
                     LEFT JOIN wxapp_devicegroup g ON g.id = s.device_group_id \
                     LEFT JOIN wxapp_analysisresult r ON r.session_id = s.id WHERE s.id > ? ORDER BY s.id LIMIT 200",
                    after,
                )
                .await?;
            let Some(last) = rows.last().and_then(|row| row.number(0)) else { return Ok(()) };
            after = last;
            for row in &rows {
                self.session(row).await?;
                self.done.sessions += 1;
                (self.progress)(self.done);
            }
        }
    }

    async fn session(&mut self, row: &Texts) -> Result<(), Error> {
        self.report.sessions.found += 1;
        let Some(old) = row.number(0) else { return Ok(()) };
        let numbers = self.source.frames_of_session(old).await?;
        let frames_found = numbers.len() as u64;
        self.report.frames.found += frames_found;
        let has_result = row.text(10).is_some();
        self.report.results.found += u64::from(has_result);
        let status = row.text(5).and_then(|status| SessionStatus::from_name(&status));
        let erased = self.is_of_erased(row.number(2));
        let (Some(status), Some(started_at_us), false) = (status, row.time_us(3), erased) else {
            let (reason, of_its_rows) = match status {
                _ if erased => (Reason::Erased, Reason::Erased),
                None => (Reason::BadStatus, Reason::SessionNotTaken),
                Some(_) => (Reason::BadTime, Reason::SessionNotTaken),
            };
            self.report.sessions.leave_out(reason);
            let not_taken = |tally: &mut Tally, count| {
                if count > 0 {
                    *tally.left_out.entry(of_its_rows).or_default() += count;
                }
            };
            not_taken(&mut self.report.frames, frames_found);
            not_taken(&mut self.report.results, u64::from(has_result));
            self.look_past(frames_found);
            return Ok(());
        };
        let user_id = row.number(2).and_then(|number| self.users.get(&number)).copied();
        let group_code = row.text(1).unwrap_or_default();
        let device = match group_code.parse::<DeviceCode>() {
            Ok(device) => device,
            Err(_) => self.device_of(&numbers, old).await?,
        };
        let new = NewSession {
            kind: SessionKind::Session,
            device_code: device.clone(),
            group_code: if group_code.is_empty() { device.to_string() } else { group_code.clone() },
            claimed_id: None,
            user_id,
            status: SessionStatus::Stopped,
            started_at_us,
        };
        let id = old.to_string();
        let wanted = Some(SessionId(old)).filter(|_| old > 0);
        let session = self.claim("session", &id, wanted, &new).await?;
        if session.is_new {
            self.report.sessions.taken += 1;
            self.report.note(Note::WithoutOwner, u64::from(user_id.is_none()));
            self.report.note(Note::DeviceGuessed, u64::from(device.as_str() != group_code));
            let open = matches!(
                status,
                SessionStatus::Calibrating
                    | SessionStatus::Collecting
                    | SessionStatus::Stopping
                    | SessionStatus::Analyzing
            );
            self.report.note(Note::LeftOpen, u64::from(open));
        } else {
            self.report.sessions.already += 1;
        }
        let renumbered = session.row.session_id.get() != old;
        if renumbered && self.report.renumbered.len() < RENUMBERED_LIMIT {
            self.report.renumbered.push(Renumbered { old, new: session.row.session_id });
        }
        let stored = has_result.then(|| StoredFigures {
            phase_delay: row.text(6),
            energy_ratio: row.text(7),
            rom_data: row.text(8),
            analyzed_at_us: row.time_us(9),
        });
        self.fill(&session.row, ("session", &id), &numbers, row.time_us(4), stored).await
    }

    /// The device of a session whose group code can be none: that of its first frame, or one made of its number.
    async fn device_of(&self, numbers: &[i64], old: i64) -> Result<DeviceCode, Error> {
        let first = self.source.frames(numbers.get(..1).unwrap_or_default()).await?;
        let named = first.first().and_then(|row| row.text(1)).and_then(|code| code.parse().ok());
        Ok(named.unwrap_or_else(|| format!("session-{old}").parse().expect("a number makes a device code")))
    }

    async fn claim(
        &self,
        kind: &'static str,
        id: &str,
        wanted: Option<SessionId>,
        new: &NewSession,
    ) -> Result<Claimed, Error> {
        if let Some((catalog, _)) = &self.target {
            let claim = catalog.claim_session(self.import(&self.source.name, kind, id), "django", wanted, new).await?;
            return Ok(Claimed { row: claim.session, is_new: claim.is_new });
        }
        let row = SessionRow {
            session_id: wanted.unwrap_or(SessionId(0)),
            kind: new.kind,
            device_code: new.device_code.clone(),
            group_code: new.group_code.clone(),
            claimed_id: new.claimed_id.clone(),
            user_id: new.user_id,
            status: new.status,
            reason: None,
            started_at_us: new.started_at_us,
            ended_at_us: None,
            changed_at_us: 0,
            revision: 0,
            sealed_rows: 0,
            frames_path: None,
            frames_bytes: None,
            sync_error_ns: None,
            closed: true,
        };
        Ok(Claimed { row, is_new: true })
    }

    fn look_past(&mut self, frames: u64) {
        self.done.frames += frames;
        (self.progress)(self.done);
    }

    /// Frames and figures of a claimed session.
    async fn fill(
        &mut self,
        session: &SessionRow,
        (kind, id): (&'static str, &str),
        numbers: &[i64],
        ended_at_us: Option<i64>,
        stored: Option<StoredFigures>,
    ) -> Result<(), Error> {
        // A collection's progress must not be taken for that of a session with the same id: ids differ by their shape.
        let newest = numbers.last().copied().unwrap_or(0);
        let read_to = self.known("frames", id).await?;
        let result_known = self.known("result", id).await?.is_some();
        if read_to.is_some_and(|read_to| read_to >= newest) && (result_known || stored.is_none()) {
            self.report.frames.already += numbers.len() as u64;
            self.report.results.already += u64::from(stored.is_some());
            self.look_past(numbers.len() as u64);
            return Ok(());
        }
        let has_new_frames = newest > read_to.unwrap_or(0);
        let mut read = Read::default();
        if has_new_frames {
            read = self.read(numbers, read_to.unwrap_or(0)).await?;
        } else {
            self.report.frames.already += numbers.len() as u64;
            self.look_past(numbers.len() as u64);
        }
        let result = match &stored {
            Some(stored) if !result_known => self.result(session, stored).await?,
            Some(_) => {
                self.report.results.already += 1;
                None
            }
            None => None,
        };
        let Some((catalog, paths)) = &self.target else { return Ok(()) };
        let (first_us, last_us) = (read.first_us, read.last_us);
        let sealed = if read.columns.is_empty() { None } else { Some(seal(paths, session, read.columns)?) };
        for seen_us in [first_us, last_us].into_iter().flatten() {
            catalog.device_seen(&session.device_code, None, seen_us).await?;
        }
        let (status, reason) = match (&sealed, session.revision > 0, &result) {
            (Some(_), ..) => (SessionStatus::Analyzing, None),
            // Only figures are new: what is known of the frames stays.
            (None, true, _) => (session.status, session.reason.as_deref()),
            (None, false, Some(result)) if result.shown.is_some() => (SessionStatus::Completed, None),
            (None, false, _) => (SessionStatus::Stopped, Some("the old system had no frames of it")),
        };
        let done = ImportedSession {
            source: &self.source.name,
            source_id: id,
            session_id: session.session_id,
            sealed: sealed.as_ref(),
            newest_frame: newest.max(read_to.unwrap_or(0)),
            status,
            reason,
            ended_at_us: ended_at_us.or(last_us).or(session.ended_at_us).or(Some(session.started_at_us)),
            result: result.as_ref(),
            labels: &[],
            now_us: self.clock.now_us(),
        };
        catalog.finish_import(&done).await?;
        tracing::debug!(session.id = %session.session_id, "{kind} {id} is session {}", session.session_id);
        Ok(())
    }

    /// The frames with these numbers; those up to `read_to` were counted by an earlier run.
    async fn read(&mut self, numbers: &[i64], read_to: i64) -> Result<Read, Error> {
        let mut read = Read::default();
        for page in Source::pages(numbers) {
            let rows = self.source.frames(page).await?;
            let mut notes = HashMap::new();
            for row in &rows {
                let is_new = row.number_of_frame() > read_to;
                let taken = take(row, &mut read, self.options.frames_limit);
                match (taken, is_new) {
                    (Ok(note), true) => {
                        self.report.frames.taken += 1;
                        if let Some(note) = note {
                            *notes.entry(note).or_default() += 1;
                        }
                    }
                    (Err(reason), true) => self.report.frames.leave_out(reason),
                    (_, false) => self.report.frames.already += 1,
                }
            }
            for (note, count) in notes {
                self.report.note(note, count);
            }
            self.look_past(page.len() as u64);
        }
        Ok(read)
    }

    /// The old system's figures, stored beside and, until ours are there, published.
    async fn result(&mut self, session: &SessionRow, stored: &StoredFigures) -> Result<Option<ImportedResult>, Error> {
        let figures =
            figures::read(stored.phase_delay.as_deref(), stored.energy_ratio.as_deref(), stored.rom_data.as_deref());
        match &figures {
            Some(figures) => {
                self.report.results.taken += 1;
                self.report.note(Note::ConstantsAsResults, u64::from(!figures.constants.is_empty()));
            }
            None => self.report.results.leave_out(Reason::BadFigures),
        }
        let Some((catalog, paths)) = &self.target else { return Ok(None) };
        let mut result = ImportedResult {
            phase_delay: stored.phase_delay.clone(),
            energy_ratio: stored.energy_ratio.clone(),
            rom_data: stored.rom_data.clone(),
            analyzed_at_us: stored.analyzed_at_us,
            constants: String::new(),
            shown: None,
        };
        let Some(figures) = figures else { return Ok(Some(result)) };
        result.constants = figures.constants.join(" ");
        if catalog.result(session.session_id).await?.is_none() {
            let now_us = self.clock.now_us();
            let analysis_id = catalog.imported_analysis(session.session_id, now_us).await?;
            let session_id = session.session_id;
            let encoded = |source| Error::Encode { session_id, source };
            let failed = |source| Error::Result { session_id, source };
            let analysis = &figures.analysis;
            let PhaseDelay { waist_to_shoulder, shoulder_to_wrist, .. } = analysis.session.phase_delay;
            let RangeOfMotion { waist, shoulder, wrist } = analysis.session.rom_data;
            let row = ResultRow {
                session_id: session_id.get(),
                analysis_id: analysis_id.get(),
                device_code: session.device_code.to_string(),
                user_id: session.user_id.map(UserId::get),
                created_at_us: stored.analyzed_at_us.unwrap_or(now_us),
                pipeline: analysis.provenance.pipeline.clone(),
                phase_delay_waist_to_shoulder_s: waist_to_shoulder,
                phase_delay_shoulder_to_wrist_s: shoulder_to_wrist,
                energy_ratio: analysis.session.energy_ratio,
                rom_waist_deg: waist,
                rom_shoulder_deg: shoulder,
                rom_wrist_deg: wrist,
                session: serde_json::to_string(&analysis.session).map_err(encoded)?,
                issues: serde_json::to_string(&analysis.issues).map_err(encoded)?,
                ..ResultRow::default()
            };
            let strokes = write_strokes(paths, session_id, session.started_at_us, &[]).map_err(failed)?;
            let results = write_results(paths, session_id, session.started_at_us, &[row]).map_err(failed)?;
            result.shown = Some(ShownResult {
                analysis_id,
                analysis: serde_json::to_string(analysis).map_err(encoded)?,
                strokes_file: file(&strokes),
                result_file: file(&results),
            });
        }
        Ok(Some(result))
    }

    /// Frames that belong to no session: a collection for each device and day (UTC).
    async fn strays(&mut self) -> Result<(), Error> {
        for stray in self.source.strays().await? {
            let (code, day) = (stray.text(0), stray.text(1));
            let found = stray.number(2).unwrap_or(0).unsigned_abs();
            let device = code.as_deref().and_then(|code| code.parse::<DeviceCode>().ok());
            let started_at_us = day.as_deref().and_then(|day| super::source::time_us(&format!("{day} 00:00:00")));
            let (Some(device), Some(day_us)) = (device.clone(), started_at_us) else {
                self.report.frames.found += found;
                let reason = if device.is_none() { Reason::BadDeviceCode } else { Reason::BadTime };
                *self.report.frames.left_out.entry(reason).or_default() += found;
                self.look_past(found);
                continue;
            };
            let numbers = self.source.stray_frames(code.as_deref(), day.as_deref()).await?;
            self.report.frames.found += numbers.len() as u64;
            let first = self.source.frames(numbers.get(..1).unwrap_or_default()).await?;
            let id = format!("{device}/{}", day.unwrap_or_default());
            let new = NewSession {
                kind: SessionKind::Collection,
                group_code: device.to_string(),
                claimed_id: Some(format!("import/{id}")),
                device_code: device,
                user_id: None,
                status: SessionStatus::Stopped,
                started_at_us: first.first().and_then(|row| row.time_us(4)).unwrap_or(day_us),
            };
            let collection = self.claim("collection", &id, None, &new).await?;
            if collection.is_new {
                self.report.collections += 1;
                self.report.note(Note::FramesWithoutSession, numbers.len() as u64);
            }
            self.fill(&collection.row, ("collection", &id), &numbers, None, None).await?;
        }
        Ok(())
    }

    async fn entries(&mut self) -> Result<(), Error> {
        let mut after = 0;
        loop {
            let rows = self.source.entries(after).await?;
            let Some(last) = rows.last().and_then(|row| row.number(0)) else { return Ok(()) };
            after = last;
            for row in &rows {
                self.report.form_entries.found += 1;
                let (Some(kind), Some(content)) = (row.number(1), row.text(2)) else {
                    self.report.form_entries.leave_out(Reason::BadValues);
                    continue;
                };
                let id = row.text(0).unwrap_or_default();
                if self.known("entry", &id).await?.is_some() {
                    self.report.form_entries.already += 1;
                    continue;
                }
                if let Some((catalog, _)) = &self.target {
                    let at_us = row.time_us(3).unwrap_or_else(|| self.clock.now_us());
                    let import = self.import(&self.source.name, "entry", &id);
                    catalog.import_entry(import, &format!("send_data{kind}"), &content, at_us).await?;
                }
                self.report.form_entries.taken += 1;
            }
        }
    }
}

struct Claimed {
    row: SessionRow,
    is_new: bool,
}

/// Adds one row of sensor data.
fn take(row: &Texts, read: &mut Read, limit: usize) -> Result<Option<Note>, Reason> {
    if read.columns.len() >= limit {
        return Err(Reason::OverLimit);
    }
    let received_at_us = row.time_us(4).ok_or(Reason::BadTime)?;
    let sensor_type = row.text(2).unwrap_or_default();
    let data = row.text(3).ok_or(Reason::BadJson)?;
    let note = frames::push(&mut read.columns, &sensor_type, &data, row.text(5).as_deref(), received_at_us)?;
    read.first_us = Some(read.first_us.map_or(received_at_us, |first| first.min(received_at_us)));
    read.last_us = Some(read.last_us.map_or(received_at_us, |last| last.max(received_at_us)));
    Ok(note)
}

/// Seals the next revision. A file that a killed run left without a commit is written again, with the same bytes.
fn seal(paths: &Paths, session: &SessionRow, columns: FrameColumns) -> Result<Sealed, Error> {
    let finished = ingest::finish_recording(session, columns);
    let revision = session.revision + 1;
    let metadata = finished.metadata(&session.device_code);
    let manifest = seal::write_frames_small(
        paths,
        session.session_id,
        session.started_at_us,
        u32::try_from(revision).unwrap_or(u32::MAX),
        &finished.frames,
        |sensor| finished.acc_to_mps2(sensor),
        &metadata,
    )
    .map_err(|source| Error::Frames { session_id: session.session_id, source })?;
    Ok(Sealed {
        session_id: session.session_id,
        revision,
        rows: manifest.rows as i64,
        path: manifest.path.to_string(),
        bytes: manifest.bytes as i64,
        sha256: manifest.sha256,
        sync_error_ns: finished.sync_error_ns(),
    })
}

fn file(manifest: &Manifest) -> StoredFile {
    StoredFile { path: manifest.path.to_string(), bytes: manifest.bytes as i64 }
}
