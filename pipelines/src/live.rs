//! Strokes while they are played.
//!
//! A [`Live`] takes the samples of one sensor as they arrive and says which swings it sees and what they are; a
//! [`LiveSession`] does so for all sensors of a recording and listens to the one that the analysis will. Swings, windows
//! and names come from the code that analyses the whole recording afterwards, on the same samples.
//!
//! What the analysis may know better, because it has heard the recording to its end:
//!
//! - the unit of acceleration, the rate and the gyro's bias, which here come from the first seconds (a recording that
//!   begins in full play has its unit late, and what was swung until then is said then);
//! - samples that arrived too late (this passes over what is older than what it has seen), and a clock that was read
//!   anew;
//! - values that are no measurements: here the sample is left out, there it is bridged;
//! - which sensor has more of the recording, if racket and wrist both have holes;
//! - the strokes after one: that a drill has begun is known when some of it was played.
//!
//! Everything held is bounded: the first seconds until the unit is known, then the last seconds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use schemas::SensorRole;

use crate::calibrate::{acc_to_mps2, median, span_s};
use crate::drills::Drills;
use crate::features::Window;
use crate::filter::Lanes;
use crate::model::{LevelAnswer, Model, OTHER};
use crate::params::{ClassifyParams, Params};
use crate::segment::{Segmenter, SensorKind, Swing};

/// Time after which the unit and the rate are first asked for, s.
const WARM_UP_S: f64 = 2.0;
/// Time after which an undecided unit stays so, s, and most samples until then.
const WARM_UP_MOST_S: f64 = 12.0;
const WARM_UP_SAMPLES: usize = 10_000;
/// Time for which calibrated samples are kept, s: the longest swing, the longest window and the latency.
const KEPT_S: f64 = 9.0;
/// Samples of one stretch of rest, and the stretches that the bias is read from.
const STRETCH: usize = 16;
const STRETCHES: usize = 64;

/// One sample as the sensor sent it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LiveSample {
    /// Since session start, ns.
    pub t_ns: i64,
    /// Specific force, g or m/s².
    pub acc: [f32; 3],
    /// Angular velocity, °/s.
    pub gyro: [f32; 3],
}

/// What is seen while recording, in the order in which it becomes known.
#[derive(Clone, Debug, PartialEq)]
pub enum LiveEvent {
    /// A swing, at most [`crate::LATENCY_S`] after its end. It will be named or rejected, most often at once.
    Swing(LiveSwing),
    /// What the swing was; without a model, or one for this sensor, `other` without confidence.
    Stroke(LiveStroke),
    /// The model's gate took the swing of this number for other movement.
    Rejected {
        /// Number of the swing.
        number: u64,
    },
}

/// A swing that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LiveSwing {
    /// Counts the swings of the recording from 0.
    pub number: u64,
    /// The sensor it was seen on.
    pub sensor: SensorRole,
    /// ms since session start.
    pub start_ms: f64,
    /// Impact, or the fastest moment where none was felt, ms since session start.
    pub impact_ms: f64,
    /// ms since session start.
    pub end_ms: f64,
}

/// A swing and what it was; the fields mean what those of [`crate::Stroke`] mean.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveStroke {
    /// The swing.
    pub swing: LiveSwing,
    /// Class name, or `other`.
    pub stroke: String,
    /// Probability of `stroke`; absent when no model ran.
    pub confidence: Option<f64>,
    /// Every class with its probability.
    pub probabilities: BTreeMap<String, f64>,
    /// Side and height.
    pub levels: BTreeMap<String, LevelAnswer>,
}

/// Names strokes of one sensor while it records.
#[derive(Clone, Debug)]
pub struct Live {
    role: SensorRole,
    params: Params,
    model: Option<Arc<Model>>,
    last_ns: Option<i64>,
    state: State,
    swings: u64,
}

#[derive(Clone, Debug)]
enum State {
    /// Unit and rate are not known yet.
    WarmUp(Vec<LiveSample>),
    Running(Box<Running>),
}

impl Live {
    /// For the sensor at `role`. Without a model swings have no names.
    #[must_use]
    pub fn new(role: SensorRole, params: &Params, model: Option<Arc<Model>>) -> Self {
        Self { role, params: params.clone(), model, last_ns: None, state: State::WarmUp(Vec::new()), swings: 0 }
    }

    /// Takes the next samples, in time order. A sample that is not later than the one before is passed over.
    pub fn push(&mut self, samples: &[LiveSample]) -> Vec<LiveEvent> {
        let mut events = Vec::new();
        for sample in samples {
            // No session lasts a century.
            if self.last_ns.is_some_and(|last| sample.t_ns <= last) || sample.t_ns.unsigned_abs() > 1 << 61 {
                continue;
            }
            self.last_ns = Some(sample.t_ns);
            self.take(sample, &mut events);
        }
        events
    }

    /// Says that the recording has ended.
    pub fn finish(&mut self) -> Vec<LiveEvent> {
        let mut events = Vec::new();
        if let State::WarmUp(samples) = &mut self.state {
            let samples = std::mem::take(samples);
            self.start(&samples, &mut events);
        }
        if let State::Running(running) = &mut self.state {
            running.end(&mut self.swings, &mut events);
        }
        self.state = State::WarmUp(Vec::new());
        events
    }

    fn take(&mut self, sample: &LiveSample, events: &mut Vec<LiveEvent>) {
        match &mut self.state {
            State::Running(running) => running.take(sample, &mut self.swings, events),
            State::WarmUp(samples) => {
                samples.push(*sample);
                let heard_s = span_s(samples[0].t_ns, sample.t_ns);
                // Asking is not free; ten times a second is often enough.
                let ask = heard_s >= WARM_UP_S && (samples.len() % 16 == 0 || heard_s > WARM_UP_MOST_S);
                let last = heard_s > WARM_UP_MOST_S || samples.len() >= WARM_UP_SAMPLES;
                if last || (ask && unit(samples, &self.params).is_some()) {
                    let samples = std::mem::take(samples);
                    self.start(&samples, events);
                }
            }
        }
    }

    fn start(&mut self, samples: &[LiveSample], events: &mut Vec<LiveEvent>) {
        let mut running = Running::of(self.role, samples, &self.params, self.model.clone());
        for sample in samples {
            running.take(sample, &mut self.swings, events);
        }
        self.state = State::Running(Box::new(running));
    }

    /// Samples held, for tests of the bound.
    #[cfg(test)]
    fn held(&self) -> usize {
        match &self.state {
            State::WarmUp(samples) => samples.len(),
            State::Running(running) => running.t_ns.len() + running.segmenter.held() + running.bias.stretches.len(),
        }
    }
}

/// The factor to m/s² that these samples show.
fn unit(samples: &[LiveSample], params: &Params) -> Option<f32> {
    let usable = |acc: &[f32; 3]| acc.iter().all(|c| c.abs() <= params.calibrate.acc_limit);
    let acc: Vec<[f32; 3]> = samples.iter().map(|sample| sample.acc).filter(usable).collect();
    acc_to_mps2(&acc)
}

/// A sensor whose unit and rate are known, as far as they ever will be.
#[derive(Clone, Debug)]
struct Running {
    role: SensorRole,
    kind: SensorKind,
    model: Option<Arc<Model>>,
    classify: ClassifyParams,
    acc_limit: f32,
    gyro_limit_dps: f32,
    factor: f32,
    bias: Bias,
    bridge_ns: i64,
    segmenter: Segmenter,
    /// The calibrated samples of the last seconds since the last hole.
    t_ns: VecDeque<i64>,
    samples: VecDeque<Lanes>,
    /// Swings whose windows are not complete.
    pending: VecDeque<(LiveSwing, Swing)>,
    /// What the names so far say of the next one.
    drills: Drills,
}

impl Running {
    fn of(role: SensorRole, samples: &[LiveSample], params: &Params, model: Option<Arc<Model>>) -> Self {
        let factor = unit(samples, params);
        let mut steps: Vec<f64> = samples.windows(2).map(|w| span_s(w[0].t_ns, w[1].t_ns)).collect();
        let in_order = steps.clone();
        let period_s = median(&mut steps).unwrap_or(0.0);
        // As the analysis measures it: over what is no gap.
        let limit = params.calibrate.gap_periods * period_s;
        let (count, covered) =
            in_order.iter().filter(|&&step| step <= limit).fold((0_usize, 0.0), |(n, sum), step| (n + 1, sum + step));
        let rate_hz = if covered > 0.0 { count as f64 / covered } else { 0.0 };
        let measures = |of: fn(&LiveSample) -> [f32; 3]| {
            samples
                .iter()
                .any(|sample| of(sample).iter().all(|c| c.is_finite()) && of(sample).iter().any(|c| *c != 0.0))
        };
        let kind = SensorKind {
            rate_hz,
            has_acc: factor.is_some() && measures(|sample| sample.acc),
            has_gyro: measures(|sample| sample.gyro),
        };
        let model = model.filter(|model| model.serves_kind(role, &kind));
        let drills = Drills::new(model.as_ref().and_then(|model| model.other()));
        let mut bias = Bias::default();
        for sample in samples {
            bias.hear(sample.gyro);
        }
        Self {
            role,
            kind,
            model,
            classify: params.classify.clone(),
            acc_limit: params.calibrate.acc_limit,
            gyro_limit_dps: params.calibrate.gyro_limit_dps,
            factor: factor.unwrap_or(0.0),
            bias,
            bridge_ns: crate::segment::bridge_ns(period_s, &params.calibrate),
            segmenter: Segmenter::new(kind, params),
            t_ns: VecDeque::new(),
            samples: VecDeque::new(),
            pending: VecDeque::new(),
            drills,
        }
    }

    fn take(&mut self, sample: &LiveSample, swings: &mut u64, events: &mut Vec<LiveEvent>) {
        let Some(lanes) = self.calibrated(sample) else { return };
        if self.t_ns.back().is_some_and(|&last| sample.t_ns.saturating_sub(last) > self.bridge_ns) {
            self.end(swings, events);
        }
        self.t_ns.push_back(sample.t_ns);
        self.samples.push_back(lanes);
        let oldest = sample.t_ns.saturating_sub((KEPT_S * 1e9) as i64);
        while self.t_ns.front().is_some_and(|&front| front < oldest) {
            self.t_ns.pop_front();
            self.samples.pop_front();
        }
        let found = self.segmenter.take(sample.t_ns, &lanes);
        self.announce(found, swings, events);
        self.name(Some(sample.t_ns), events);
    }

    /// Nothing follows, or not before a long hole.
    fn end(&mut self, swings: &mut u64, events: &mut Vec<LiveEvent>) {
        let found = self.segmenter.finish();
        self.announce(found, swings, events);
        self.name(None, events);
        self.t_ns.clear();
        self.samples.clear();
    }

    fn calibrated(&mut self, sample: &LiveSample) -> Option<Lanes> {
        let within = |v: [f32; 3], limit: f32| v.iter().all(|c| c.abs() <= limit);
        let acc_there = within(sample.acc, self.acc_limit) && sample.acc.iter().any(|c| *c != 0.0);
        let gyro_there = within(sample.gyro, self.gyro_limit_dps);
        if (self.kind.has_acc && !acc_there) || (self.kind.has_gyro && !gyro_there) {
            return None;
        }
        let mut lanes: Lanes = [0.0; 8];
        for c in 0..3 {
            if self.kind.has_acc {
                lanes[c] = sample.acc[c] * self.factor;
            }
            if self.kind.has_gyro {
                lanes[3 + c] = sample.gyro[c] - self.bias.dps[c];
            }
        }
        if self.kind.has_gyro {
            self.bias.hear(sample.gyro);
        }
        Some(lanes)
    }

    fn announce(&mut self, found: Vec<Swing>, swings: &mut u64, events: &mut Vec<LiveEvent>) {
        for swing in found {
            let live = LiveSwing {
                number: *swings,
                sensor: self.role,
                start_ms: swing.start_ns as f64 / 1e6,
                impact_ms: swing.impact_ns as f64 / 1e6,
                end_ms: swing.end_ns as f64 / 1e6,
            };
            *swings += 1;
            events.push(LiveEvent::Swing(live));
            self.pending.push_back((live, swing));
        }
    }

    /// Names the swings whose windows are complete at `now_ns`; all of them without it.
    fn name(&mut self, now_ns: Option<i64>, events: &mut Vec<LiveEvent>) {
        while let Some(&(live, swing)) = self.pending.front() {
            let after_s = self.model.as_ref().map_or(0.0, |model| model.header().reach_after_s());
            let complete_ns = swing.peak_ns.saturating_add((after_s * 1e9) as i64);
            if now_ns.is_some_and(|now| now < complete_ns) {
                return;
            }
            self.pending.pop_front();
            events.push(self.judge(live, &swing));
        }
    }

    fn judge(&mut self, live: LiveSwing, swing: &Swing) -> LiveEvent {
        let unnamed = LiveStroke {
            swing: live,
            stroke: OTHER.to_owned(),
            confidence: None,
            probabilities: BTreeMap::new(),
            levels: BTreeMap::new(),
        };
        let Some(model) = self.model.clone() else { return LiveEvent::Stroke(unnamed) };
        let (t_ns, samples) = (&*self.t_ns.make_contiguous(), &*self.samples.make_contiguous());
        let span = swing.span();
        let views =
            model.views_by(&self.classify, |spec| Window::of_samples(t_ns, samples, self.kind.rate_hz, &span, spec));
        let Some(views) = views else { return LiveEvent::Stroke(unnamed) };
        if self.classify.gate && model.gate(self.role, &views, swing.strength).is_some_and(|answer| !answer.kept) {
            return LiveEvent::Rejected { number: live.number };
        }
        let Some(alone) = model.probabilities(self.role, &views) else { return LiveEvent::Stroke(unnamed) };
        let values = if self.classify.drills { self.drills.hear(&alone) } else { alone };
        let answer = model.name_swing(&values, self.classify.confidence_min);
        LiveEvent::Stroke(LiveStroke {
            swing: live,
            stroke: answer.stroke,
            confidence: Some(answer.confidence),
            probabilities: answer.probabilities,
            levels: answer.levels,
        })
    }
}

/// What the gyro reads at rest: the median of the stretches that are quiet enough, as in the analysis.
#[derive(Clone, Debug, Default)]
struct Bias {
    dps: [f32; 3],
    stretch: Vec<[f32; 3]>,
    stretches: VecDeque<[f32; 3]>,
}

impl Bias {
    fn hear(&mut self, gyro: [f32; 3]) {
        const BIAS_MAX_DPS: f32 = 12.0;
        const SPREAD_MAX_DPS: f32 = 4.0;
        if gyro.iter().any(|c| !c.is_finite()) {
            return;
        }
        self.stretch.push(gyro);
        if self.stretch.len() < STRETCH {
            return;
        }
        let mean: [f32; 3] = std::array::from_fn(|c| self.stretch.iter().map(|v| v[c]).sum::<f32>() / STRETCH as f32);
        let spread = self.stretch.iter().flat_map(|v| (0..3).map(|c| (v[c] - mean[c]).abs())).fold(0.0, f32::max);
        self.stretch.clear();
        if spread >= SPREAD_MAX_DPS || mean.iter().any(|c| c.abs() >= BIAS_MAX_DPS) {
            return;
        }
        self.stretches.push_back(mean);
        if self.stretches.len() > STRETCHES {
            self.stretches.pop_front();
        }
        if self.stretches.len() >= 3 {
            self.dps = std::array::from_fn(|c| {
                let mut means: Vec<f64> = self.stretches.iter().map(|mean| f64::from(mean[c])).collect();
                median(&mut means).unwrap_or(0.0) as f32
            });
        }
    }
}

/// Names strokes of a whole recording while it is made.
///
/// It listens to racket, wrist and upper arm, and speaks of the one that the analysis will find swings on: the racket,
/// unless it was away for more than a fifth of the wrist's time; the upper arm only where nothing else is heard.
#[derive(Clone, Debug)]
pub struct LiveSession {
    sensors: [(Live, f64); 3],
    /// End of the last swing spoken of, ms, so that no swing is told twice when the sensor changes.
    told_until_ms: f64,
    /// Which swing of which sensor has which number.
    numbers: BTreeMap<(u8, u64), u64>,
    next: u64,
}

impl LiveSession {
    /// A session that has heard nothing. The model is asked about those of its sensors that it knows.
    #[must_use]
    pub fn new(params: &Params, model: Option<&Arc<Model>>) -> Self {
        let sensors = [SensorRole::Racket, SensorRole::Wrist, SensorRole::Shoulder]
            .map(|role| (Live::new(role, params, model.cloned()), 0.0));
        Self { sensors, told_until_ms: f64::NEG_INFINITY, numbers: BTreeMap::new(), next: 0 }
    }

    /// Takes the next samples of one sensor; those of the waist say nothing about swings.
    pub fn push(&mut self, role: SensorRole, samples: &[LiveSample]) -> Vec<LiveEvent> {
        let Some(place) = self.sensors.iter().position(|(live, _)| live.role == role) else { return Vec::new() };
        let (live, heard_s) = &mut self.sensors[place];
        let before = live.last_ns.or_else(|| samples.first().map(|sample| sample.t_ns));
        let events = live.push(samples);
        if let (Some(before), Some(after)) = (before, live.last_ns) {
            // Time without samples is not heard.
            *heard_s += span_s(before, after).min(1.0 + samples.len() as f64 * 0.5);
        }
        let speaks = self.speaker() == place;
        self.tell(place, speaks, events)
    }

    /// Says that the recording has ended.
    pub fn finish(&mut self) -> Vec<LiveEvent> {
        let speaker = self.speaker();
        let mut told = Vec::new();
        for place in 0..self.sensors.len() {
            let events = self.sensors[place].0.finish();
            told.extend(self.tell(place, place == speaker, events));
        }
        told
    }

    fn speaker(&self) -> usize {
        let [racket, wrist, _] = self.sensors.each_ref().map(|(_, heard_s)| *heard_s);
        match (racket > 0.0, wrist > 0.0) {
            // Packets of the two do not arrive together.
            (true, true) if racket < 0.8 * wrist - 3.0 => 1,
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        }
    }

    /// What of a sensor's events is told, with the numbers of the session. A swing that was told is also named.
    fn tell(&mut self, place: usize, speaks: bool, events: Vec<LiveEvent>) -> Vec<LiveEvent> {
        let mut told = Vec::new();
        for event in events {
            match event {
                LiveEvent::Swing(swing) if speaks && swing.start_ms > self.told_until_ms => {
                    self.told_until_ms = swing.end_ms;
                    self.numbers.insert((place as u8, swing.number), self.next);
                    told.push(LiveEvent::Swing(LiveSwing { number: self.next, ..swing }));
                    self.next += 1;
                }
                LiveEvent::Swing(_) => {}
                LiveEvent::Stroke(mut stroke) => {
                    if let Some(number) = self.numbers.remove(&(place as u8, stroke.swing.number)) {
                        stroke.swing.number = number;
                        told.push(LiveEvent::Stroke(stroke));
                    }
                }
                LiveEvent::Rejected { number } => {
                    told.extend(
                        self.numbers.remove(&(place as u8, number)).map(|number| LiveEvent::Rejected { number }),
                    );
                }
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::SensorTrack;

    use super::*;
    use crate::synth::{AccUnit, Loss, SynthSession, SynthSpec, generate};
    use crate::{Stroke, analyze};

    fn session(seed: u64, seconds: f64, rate_hz: f64, unit: AccUnit) -> SynthSession {
        let loss = Loss { frame: 0.0, block: 0.0 };
        generate(&SynthSpec { duration_s: seconds, rate_hz, unit, loss, ..SynthSpec::new(seed) })
    }

    fn samples(track: &SensorTrack) -> Vec<LiveSample> {
        (0..track.len()).map(|i| LiveSample { t_ns: track.t_ns[i], acc: track.acc[i], gyro: track.gyro[i] }).collect()
    }

    fn model() -> Arc<Model> {
        Arc::new(Model::builtin().clone())
    }

    /// Share of the analysis' strokes that were told live with the same name and impact. Where movement ebbs away slowly,
    /// the end is where it passes a low level, which half a degree a second of bias moves far.
    fn agreement(events: &[LiveEvent], strokes: &[Stroke]) -> f64 {
        let told: Vec<&LiveStroke> = events
            .iter()
            .filter_map(|event| if let LiveEvent::Stroke(stroke) = event { Some(stroke) } else { None })
            .collect();
        let same = strokes
            .iter()
            .filter(|stroke| {
                told.iter().any(|live| {
                    (live.swing.impact_ms - stroke.impact_ms).abs() < 40.0
                        && (live.swing.end_ms - stroke.end_ms).abs() < 800.0
                        && live.stroke == stroke.stroke
                })
            })
            .count();
        assert!(told.len() <= strokes.len() + strokes.len() / 20 + 1, "{} told of {}", told.len(), strokes.len());
        same as f64 / strokes.len().max(1) as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

        #[test]
        fn what_is_told_live_is_what_the_analysis_finds(
            seed in 0_u64..1000,
            rate_hz in prop::sample::select(vec![50.0, 100.0, 200.0]),
            unit in prop::sample::select(vec![AccUnit::G, AccUnit::Mps2]),
            chunk in 1_usize..200,
        ) {
            let session = session(seed, 90.0, rate_hz, unit);
            let analysis = analyze(&session.track, Params::builtin(), Some(Model::builtin()));
            let mut live = LiveSession::new(Params::builtin(), Some(&model()));
            let mut events = Vec::new();
            let tracks: Vec<(SensorRole, Vec<LiveSample>)> =
                session.track.iter().map(|(role, track)| (role, samples(track))).collect();
            let longest = tracks.iter().map(|(_, samples)| samples.len()).max().unwrap_or(0);
            for from in (0..longest).step_by(chunk) {
                for (role, samples) in &tracks {
                    let part = &samples[from.min(samples.len())..(from + chunk).min(samples.len())];
                    events.extend(live.push(*role, part));
                }
            }
            events.extend(live.finish());
            let agreement = agreement(&events, &analysis.strokes);
            // What the first seconds did not know (unit, bias) moves a stroke or two of a short recording.
            prop_assert!(agreement >= 0.9, "{agreement} of {}", analysis.strokes.len());
        }
    }

    #[test]
    fn a_swing_is_told_in_time_and_named_once() {
        let session = session(5, 240.0, 100.0, AccUnit::Mps2);
        let samples = samples(session.track.get(SensorRole::Racket).unwrap());
        let mut live = Live::new(SensorRole::Racket, Params::builtin(), Some(model()));
        let (mut told, mut settled, mut most) = (0, Vec::new(), 0);
        // From the fastest rotation to the top, from there to the longest end, and what a swing takes to be known.
        let segment = &Params::builtin().segment;
        let longest_ms = 1e3 * (segment.fastest_reach_s + segment.reach_after_s + crate::LATENCY_S) + 10.0;
        for sample in &samples {
            for event in live.push(std::slice::from_ref(sample)) {
                let now_ms = sample.t_ns as f64 / 1e6;
                match event {
                    LiveEvent::Swing(swing) => {
                        assert_eq!(swing.number, told);
                        told += 1;
                        // The first seconds wait for the unit.
                        let late_ms = now_ms - swing.end_ms;
                        assert!(
                            now_ms < 4000.0 || late_ms <= 1e3 * crate::LATENCY_S + 10.0,
                            "{late_ms} ms at {now_ms}"
                        );
                    }
                    LiveEvent::Stroke(stroke) => {
                        assert!(now_ms < 4000.0 || now_ms - stroke.swing.impact_ms <= longest_ms);
                        settled.push(stroke.swing.number);
                    }
                    LiveEvent::Rejected { number } => settled.push(number),
                }
            }
            most = most.max(live.held());
        }
        for event in live.finish() {
            match event {
                LiveEvent::Swing(_) => told += 1,
                LiveEvent::Stroke(stroke) => settled.push(stroke.swing.number),
                LiveEvent::Rejected { number } => settled.push(number),
            }
        }
        assert!(told > 50);
        assert_eq!(settled, (0..told).collect::<Vec<_>>());
        assert!(most < 4000, "{most} held");
    }

    #[test]
    fn a_stroke_is_named_by_what_was_played_before_it() {
        let session = session(8, 60.0, 100.0, AccUnit::Mps2);
        let samples = samples(session.track.get(SensorRole::Racket).unwrap());
        let named = |drills: bool| -> Vec<Vec<f64>> {
            let classify = ClassifyParams { drills, ..Params::builtin().classify.clone() };
            let params = Params { classify, ..Params::builtin().clone() };
            let mut live = Live::new(SensorRole::Racket, &params, Some(model()));
            let mut events = live.push(&samples);
            events.extend(live.finish());
            let probabilities = |event: &LiveEvent| match event {
                LiveEvent::Stroke(stroke) => Some(stroke.probabilities.values().copied().collect()),
                _ => None,
            };
            events.iter().filter_map(probabilities).collect()
        };
        let mut drills = Drills::new(model().other());
        let alone = named(false);
        assert!(alone.len() > 10);
        let heard: Vec<Vec<f64>> = alone.iter().map(|alone| drills.hear(alone)).collect();
        assert!(heard != alone && heard == named(true));
    }

    #[test]
    fn hostile_samples_do_no_harm() {
        let mut live = LiveSession::new(Params::builtin(), Some(&model()));
        let values = [f32::NAN, f32::INFINITY, 0.0, 1e20, -3.0, 9.8];
        for i in 0..4000_i64 {
            let v = |k: i64| values[((i * 7 + k * 5) % 6) as usize];
            let t_ns = match i % 97 {
                0 => i64::MIN,
                1 => i64::MAX,
                2 => -1,
                _ => i * 10_000_000,
            };
            let sample = LiveSample { t_ns, acc: [v(0), v(1), v(2)], gyro: [v(3), v(4), v(5)] };
            live.push(SensorRole::CHAIN[(i % 4) as usize], &[sample]);
        }
        live.finish();
    }

    #[test]
    fn without_a_model_swings_have_no_names() {
        let session = session(6, 30.0, 100.0, AccUnit::G);
        let mut live = LiveSession::new(Params::builtin(), None);
        let mut events = live.push(SensorRole::Wrist, &samples(session.track.get(SensorRole::Wrist).unwrap()));
        events.extend(live.finish());
        let strokes: Vec<&LiveStroke> = events
            .iter()
            .filter_map(|event| if let LiveEvent::Stroke(stroke) = event { Some(stroke) } else { None })
            .collect();
        assert!(!strokes.is_empty());
        assert!(strokes.iter().all(|stroke| stroke.stroke == OTHER && stroke.confidence.is_none()));
    }
}
