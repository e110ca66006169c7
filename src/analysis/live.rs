//! Strokes while they are played: to the player of the session and to the admins, within half a second of the swing.
//!
//! Every open session's frames that are on disk go to a [`pipelines::LiveSession`], a few at a time. What it says is told
//! once; when the session has its result, the differences are told too. Nothing here is stored, and nothing waits for it:
//! a restart in the middle of a session begins anew with what memory holds.

use std::collections::HashMap;
use std::time::Duration;

use pipelines::{Analysis, LiveEvent as Heard, LiveSample, LiveSession, LiveStroke, Stage};
use schemas::{DeviceCode, FrameColumns, SensorRole, SensorTrack, SessionId, SessionStatus, UserId};
use tokio::sync::watch;
use tracing::warn;

use super::worker::pipeline_for;
use super::{Error, Known, Options, Registry};
use crate::clock::Clock;
use crate::hub::{self, LiveEvent, LiveMessage, LiveSwing, Revision};
use crate::ingest;
use crate::store::catalog::Catalog;

/// How often new frames are looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Frames of a session that are taken at a look; a session that was left behind catches up in steps.
const ROWS_LIMIT: usize = 20_000;
/// A session that ended and has no result after so long is forgotten, µs.
const RESULT_PATIENCE_US: i64 = 300_000_000;
/// Swings that are remembered of a session, to say what became of them; those after it are told and not compared.
const TOLD_LIMIT: usize = 20_000;
/// Impacts nearer than this are one swing, ms.
const SAME_SWING_MS: f64 = 100.0;
/// The clock of a session moves by no more when it is read anew, ms: swings are further apart.
const LARGEST_SHIFT_MS: f64 = 400.0;
/// A probability of the name that moved by no more is unchanged: what was played later says more of a drill's first strokes.
const SAME_CONFIDENCE: f64 = 0.1;
/// Times that moved by no more are unchanged, ms: the clock is fitted anew when the session is sealed.
const SAME_TIME_MS: f64 = 25.0;

/// The part that runs by itself.
#[derive(Debug)]
pub struct LiveService {
    clock: Clock,
    catalog: Catalog,
    ingest: ingest::Handle,
    hub: hub::Handle,
    registry: Registry,
    usual: Known,
    watched: HashMap<SessionId, Watched>,
}

#[derive(Debug)]
struct Watched {
    device: DeviceCode,
    user: Option<UserId>,
    /// Those that the pipeline looks at.
    sensors: Vec<SensorRole>,
    next_row: usize,
    session: LiveSession,
    told: Vec<LiveSwing>,
    /// When it took its last frame.
    ended_at_us: Option<i64>,
}

impl LiveService {
    /// Listens with the pipeline that analyses new sessions.
    pub fn new(
        options: &Options,
        clock: Clock,
        catalog: Catalog,
        ingest: ingest::Handle,
        hub: hub::Handle,
    ) -> Result<Self, Error> {
        let registry = Registry::new(options.folder.clone());
        let usual = super::worker::usual(&registry, &options.pipeline)?;
        Ok(Self { clock, catalog, ingest, hub, registry, usual, watched: HashMap::new() })
    }

    /// Runs until `shutdown` turns true.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut due = tokio::time::interval(LOOK_INTERVAL);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = crate::shutdown::requested(&mut shutdown) => return,
                _ = due.tick() => {
                    if let Err(error) = self.look().await {
                        warn!(error = &error as &dyn std::error::Error, "live strokes could not be looked for");
                    }
                }
            }
        }
    }

    async fn look(&mut self) -> Result<(), Error> {
        let open: HashMap<SessionId, ingest::Live> =
            self.ingest.all_live().into_iter().map(|live| (live.session_id, live)).collect();
        for live in open.values() {
            let is_new = live.status.accepts_frames() && !live.is_collection;
            if is_new && !self.watched.contains_key(&live.session_id) {
                let user = self.catalog.session(live.session_id).await?.and_then(|row| row.user_id);
                let by = pipeline_for(&self.catalog, &self.registry, user, &self.usual).await?;
                let runs = |stage| by.pipeline.stages.contains(&stage);
                let model = by.model.as_ref().filter(|_| runs(Stage::Classify));
                let watched = Watched {
                    device: live.device.clone(),
                    user,
                    sensors: if runs(Stage::Segment) { by.pipeline.sensors.clone() } else { Vec::new() },
                    next_row: 0,
                    session: LiveSession::new(&by.pipeline.params, model),
                    told: Vec::new(),
                    ended_at_us: None,
                };
                self.watched.insert(live.session_id, watched);
            }
        }
        let mut sessions: Vec<SessionId> = self.watched.keys().copied().collect();
        sessions.sort_unstable();
        for session in sessions {
            let Some(watched) = self.watched.remove(&session) else { continue };
            let records = open.get(&session).is_some_and(|live| live.status.accepts_frames());
            let watched =
                if watched.ended_at_us.is_none() { self.listen(session, watched, records).await } else { watched };
            let settled = match self.settle(session, &watched).await {
                Ok(settled) => settled,
                // Asked again at the next look; the other sessions are not held up.
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "the result of session {session} cannot be compared"
                    );
                    false
                }
            };
            if !settled {
                self.watched.insert(session, watched);
            }
        }
        Ok(())
    }

    /// Hears the frames that are new, off the async threads.
    async fn listen(&self, session: SessionId, mut watched: Watched, records: bool) -> Watched {
        let ingest = self.ingest.clone();
        let (device, user) = (watched.device.clone(), watched.user);
        let next_row = watched.next_row;
        let heard = tokio::task::spawn_blocking(move || {
            let mut heard = Vec::new();
            let mut caught_up = true;
            if let Some((frames, next_row)) = ingest.rows_since(session, watched.next_row, ROWS_LIMIT) {
                caught_up = next_row - watched.next_row < ROWS_LIMIT;
                watched.next_row = next_row;
                for (role, samples) in by_sensor(&frames, &watched.sensors) {
                    heard.extend(watched.session.push(role, &samples));
                }
            }
            let ended = !records && caught_up;
            if ended {
                heard.extend(watched.session.finish());
            }
            (watched, heard, ended)
        });
        let Ok((mut watched, heard, ended)) = heard.await else {
            // The listener broke over these frames: the session goes on without live strokes.
            warn!(session.id = %session, "live strokes of session {session} broke off");
            let session = LiveSession::new(&self.usual.pipeline.params, None);
            let now_us = self.clock.now_us();
            let sensors = Vec::new();
            return Watched { device, user, sensors, next_row, session, told: Vec::new(), ended_at_us: Some(now_us) };
        };
        for event in heard {
            if let Heard::Stroke(stroke) = event {
                let swing = told(stroke);
                self.tell(session, &watched, LiveEvent::Swing(swing.clone()));
                metrics::counter!("volant_analysis_live_strokes_total").increment(1);
                if watched.told.len() < TOLD_LIMIT {
                    watched.told.push(swing);
                }
            }
        }
        watched.ended_at_us = ended.then(|| self.clock.now_us());
        watched
    }

    /// Says how the result differs from what was told; true if there is nothing more to wait for.
    async fn settle(&self, session: SessionId, watched: &Watched) -> Result<bool, Error> {
        let Some(ended_at_us) = watched.ended_at_us else { return Ok(false) };
        if let Some(row) = self.catalog.result(session).await? {
            if let Ok(analysis) = serde_json::from_str::<Analysis>(&row.analysis) {
                self.tell(session, watched, LiveEvent::Final(revise(&watched.told, &analysis)));
            }
            return Ok(true);
        }
        let gone = self.catalog.session(session).await?.is_none_or(|row| row.status == SessionStatus::Stopped);
        Ok(gone || self.clock.now_us() - ended_at_us > RESULT_PATIENCE_US)
    }

    fn tell(&self, session_id: SessionId, watched: &Watched, event: LiveEvent) {
        let message =
            LiveMessage { session_id, device_code: watched.device.clone(), event, at_us: self.clock.now_us() };
        self.hub.send_live(watched.user, message);
    }
}

/// The samples of each sensor, by time.
fn by_sensor(frames: &FrameColumns, sensors: &[SensorRole]) -> Vec<(SensorRole, Vec<LiveSample>)> {
    sensors
        .iter()
        .map(|&role| {
            let rows: Vec<usize> = (0..frames.len()).filter(|&row| frames.role(row) == role).collect();
            // As in the result; of these rows, because nobody knows how many will come.
            let untimed = rows.iter().filter(|&&row| frames.is_untimed(row)).count();
            let leaves_out = SensorTrack::leaves_out(untimed, rows.len());
            let kept = rows.into_iter().filter(|&row| !(leaves_out && frames.is_untimed(row)));
            let sample = |row| LiveSample { t_ns: frames.t_ns[row], acc: frames.acc[row], gyro: frames.gyro[row] };
            let mut samples: Vec<LiveSample> = kept.map(sample).collect();
            samples.sort_by_key(|sample| sample.t_ns);
            (role, samples)
        })
        .filter(|(_, samples)| !samples.is_empty())
        .collect()
}

fn told(stroke: LiveStroke) -> LiveSwing {
    LiveSwing {
        swing_id: u32::try_from(stroke.swing.number + 1).unwrap_or(u32::MAX),
        sensor: stroke.swing.sensor,
        start_ms: stroke.swing.start_ms,
        impact_ms: stroke.swing.impact_ms,
        end_ms: stroke.swing.end_ms,
        stroke: stroke.stroke,
        confidence: stroke.confidence,
        probabilities: stroke.probabilities,
    }
}

/// The median way from a told swing to the nearest of the result, as far as one is near at all; 0 for none.
fn shift_ms(told: &[LiveSwing], analysis: &Analysis) -> f64 {
    let way = |swing: &LiveSwing| {
        let place = analysis.strokes.partition_point(|stroke| stroke.impact_ms < swing.impact_ms);
        let near = [place.checked_sub(1), Some(place)].into_iter().flatten();
        let ways = near.filter_map(|place| Some(analysis.strokes.get(place)?.impact_ms - swing.impact_ms));
        ways.min_by(|a, b| a.abs().total_cmp(&b.abs())).filter(|way| way.abs() <= LARGEST_SHIFT_MS)
    };
    let mut ways: Vec<f64> = told.iter().filter_map(way).collect();
    ways.sort_by(f64::total_cmp);
    ways.get(ways.len() / 2).copied().unwrap_or(0.0)
}

/// What became of the swings that were told.
fn revise(told: &[LiveSwing], analysis: &Analysis) -> Revision {
    let shift_ms = shift_ms(told, analysis);
    let mut revision = Revision { shift_ms, ..Revision::default() };
    let mut taken = vec![false; analysis.strokes.len()];
    for swing in told {
        let expected_ms = swing.impact_ms + shift_ms;
        let from = analysis.strokes.partition_point(|stroke| stroke.impact_ms < expected_ms - SAME_SWING_MS);
        let near = analysis.strokes.iter().enumerate().skip(from);
        let found = near
            .take_while(|(_, stroke)| stroke.impact_ms <= expected_ms + SAME_SWING_MS)
            .filter(|(place, _)| !taken[*place])
            .min_by(|(_, a), (_, b)| {
                let distance = |stroke: &pipelines::Stroke| (stroke.impact_ms - expected_ms).abs();
                distance(a).total_cmp(&distance(b))
            });
        let Some((place, stroke)) = found else {
            revision.withdrawn.push(swing.swing_id);
            continue;
        };
        taken[place] = true;
        let moved = |before: f64, after: f64| (before + shift_ms - after).abs() > SAME_TIME_MS;
        let surer = stroke.confidence.zip(swing.confidence).map_or(0.0, |(after, before)| (after - before).abs());
        let same = stroke.stroke == swing.stroke
            && surer <= SAME_CONFIDENCE
            && !moved(swing.start_ms, stroke.start_ms)
            && !moved(swing.impact_ms, stroke.impact_ms)
            && !moved(swing.end_ms, stroke.end_ms);
        if same {
            revision.unchanged += 1;
        } else {
            revision.changed.push(LiveSwing {
                swing_id: swing.swing_id,
                sensor: stroke.sensor,
                start_ms: stroke.start_ms,
                impact_ms: stroke.impact_ms,
                end_ms: stroke.end_ms,
                stroke: stroke.stroke.clone(),
                confidence: stroke.confidence,
                probabilities: stroke.probabilities.clone(),
            });
        }
    }
    revision.added = taken.iter().filter(|taken| !**taken).count();
    revision
}

#[cfg(test)]
mod tests {
    use pipelines::{Model, Params, analyze, synth};

    use super::*;

    #[test]
    fn a_revision_names_what_changed_and_what_is_no_swing() {
        let mut spec = synth::SynthSpec::new(5);
        spec.duration_s = 20.0;
        let analysis = analyze(&synth::generate(&spec).track, Params::builtin(), Some(Model::builtin()));
        assert!(analysis.strokes.len() > 3);
        let mut told: Vec<LiveSwing> = analysis
            .strokes
            .iter()
            .zip(1..)
            .map(|(stroke, swing_id)| LiveSwing {
                swing_id,
                sensor: stroke.sensor,
                start_ms: stroke.start_ms,
                impact_ms: stroke.impact_ms,
                end_ms: stroke.end_ms,
                stroke: stroke.stroke.clone(),
                confidence: stroke.confidence,
                probabilities: stroke.probabilities.clone(),
            })
            .collect();
        let count = told.len();
        assert_eq!(revise(&told, &analysis), Revision { unchanged: count, ..Revision::default() });
        // A clock that is read anew moves all of them, and changes none.
        let moved: Vec<LiveSwing> = told
            .iter()
            .cloned()
            .map(|swing| LiveSwing {
                start_ms: swing.start_ms - 150.0,
                impact_ms: swing.impact_ms - 150.0,
                end_ms: swing.end_ms - 150.0,
                ..swing
            })
            .collect();
        let revision = revise(&moved, &analysis);
        assert_eq!((revision.unchanged, revision.shift_ms.round()), (count, 150.0));
        // A drill that was heard to its end is surer of its first strokes.
        let unsure: Vec<LiveSwing> = told
            .iter()
            .cloned()
            .map(|swing| LiveSwing { confidence: swing.confidence.map(|confidence| confidence - 0.2), ..swing })
            .collect();
        assert_eq!(revise(&unsure, &analysis).changed, told);
        "serve".clone_into(&mut told[0].stroke);
        told[1].impact_ms += 5000.0;
        told.remove(2);
        let revision = revise(&told, &analysis);
        assert_eq!(revision.unchanged + revision.changed.len() + revision.withdrawn.len(), told.len());
        assert_eq!((revision.changed[0].swing_id, &revision.changed[0].stroke), (1, &analysis.strokes[0].stroke));
        assert!(revision.withdrawn == [2] || revision.changed.iter().any(|swing| swing.swing_id == 2));
        assert!(revision.added >= 1);
    }
}
