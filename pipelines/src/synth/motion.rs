//! Moves the chain in steps of a millisecond and lets the sensors look at it.

use rand::Rng;
use schemas::{SensorTrack, StrokeKind, Track};

use super::background::{self, Background, Spell};
use super::plan::timetable;
use super::random::{Normals, stream};
use super::rotation::Rotation;
use super::strokes::{self, Hand, Pulse, Push, SEGMENTS};
use super::vector::{V3, add, cross, lerp, scale};
use super::{AccUnit, GRAVITY_MPS2, SensorSpec, SynthSession, SynthSpec, Truth, TruthSensor, TruthSpell, TruthStroke};

const STEP_S: f64 = 0.001;
/// How strongly a segment is drawn back to where it belongs between strokes, 1/s.
const RETURN_PER_S: f64 = 4.0;
/// That pull fades out before a planted movement and in after it, s.
const FADE_OUT_S: f64 = 0.2;
const FADE_IN_S: f64 = 0.35;
/// Joint to next joint along each segment, m: pelvis to shoulder, upper arm, forearm.
const TO_NEXT_JOINT_M: [V3; 3] = [[0.02, -0.18, 0.42], [0.30, 0.0, 0.0], [0.25, 0.0, 0.0]];
/// Where on its segment a sensor sits, from the near joint, m.
const SENSOR_PLACE_M: [V3; SEGMENTS] = [[-0.10, 0.0, 0.02], [0.12, 0.03, 0.0], [0.21, 0.0, 0.03], [0.06, 0.0, 0.01]];
/// How much of a hit reaches each sensor, and where it points.
const HIT_SHARE: [f64; SEGMENTS] = [0.015, 0.05, 0.3, 1.0];
const HIT_DIRECTION: V3 = [0.25, 0.35, 0.90];
/// A hit rings at this frequency and decays with this time constant: what is left behind a sensor's own filter.
const HIT_HZ: f64 = 70.0;
const HIT_DECAY_S: f64 = 0.012;
const HIT_ENDS_S: f64 = 0.12;

/// Planted movements of one segment in time order, walked through once.
struct Score {
    pulses: Vec<Pulse>,
    next: usize,
    active: Vec<Pulse>,
    /// When the pull back to the ready pose rests: disjoint, in order.
    free: Vec<(f64, f64)>,
    next_free: usize,
}

impl Score {
    fn new(mut pulses: Vec<Pulse>, mut free: Vec<(f64, f64)>) -> Self {
        pulses.sort_by(|a, b| a.start_s().total_cmp(&b.start_s()));
        free.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut merged: Vec<(f64, f64)> = Vec::with_capacity(free.len());
        for (from, to) in free {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Self { pulses, next: 0, active: Vec::with_capacity(8), free: merged, next_free: 0 }
    }

    fn planted_rate_rad(&mut self, t_s: f64) -> V3 {
        while let Some(pulse) = self.pulses.get(self.next).filter(|pulse| pulse.start_s() <= t_s) {
            self.active.push(*pulse);
            self.next += 1;
        }
        self.active.retain(|pulse| pulse.end_s() > t_s);
        self.active.iter().fold([0.0; 3], |sum, pulse| add(sum, pulse.at(t_s)))
    }

    /// 0 while a planted movement has the segment to itself, 1 far from any.
    fn pull(&mut self, t_s: f64) -> f64 {
        while self.free.get(self.next_free).is_some_and(|&(_, to)| to < t_s) {
            self.next_free += 1;
        }
        let smooth = |x: f64| {
            let x = x.clamp(0.0, 1.0);
            x * x * (3.0 - 2.0 * x)
        };
        let before = self.free.get(self.next_free).map_or(1.0, |&(from, _)| smooth((from - t_s) / FADE_OUT_S));
        let after = match self.next_free.checked_sub(1).map(|index| self.free[index]) {
            Some((_, to)) => smooth((t_s - to) / FADE_IN_S),
            None => 1.0,
        };
        before.min(after)
    }
}

/// Things with a start and an end, in order of their starts, of which few are on at a time.
struct Cues<T> {
    items: Vec<(f64, f64, T)>,
    next: usize,
    active: Vec<usize>,
}

impl<T> Cues<T> {
    fn new(mut items: Vec<(f64, f64, T)>) -> Self {
        items.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { items, next: 0, active: Vec::new() }
    }

    fn at(&mut self, t_s: f64) -> impl Iterator<Item = &T> {
        while self.items.get(self.next).is_some_and(|item| item.0 <= t_s) {
            self.active.push(self.next);
            self.next += 1;
        }
        self.active.retain(|&index| self.items[index].1 > t_s);
        self.active.iter().map(|&index| &self.items[index].2)
    }
}

struct Hit {
    impact_s: f64,
    accel_mps2: f64,
}

/// What is to be moved through, and what of it is truth.
struct Scenario {
    scores: [Score; SEGMENTS],
    pushes: Cues<Push>,
    spells: Cues<Spell>,
    hits: Cues<Hit>,
    truth_strokes: Vec<TruthStroke>,
    truth_spells: Vec<TruthSpell>,
}

fn compose(spec: &SynthSpec, hand: &Hand) -> Scenario {
    let plan = timetable(&spec.plan, spec.duration_s, spec.seed);
    let mut normals = Normals::new(stream(spec.seed, 2));
    let mut pulses: [Vec<Pulse>; SEGMENTS] = Default::default();
    let mut free: [Vec<(f64, f64)>; SEGMENTS] = Default::default();
    let mut pushes = Vec::new();
    let mut hits = Vec::new();
    let mut truth_strokes = Vec::new();
    let mut previous_s = f64::NEG_INFINITY;
    for stroke in &plan.strokes {
        let delays_s = spec.chain.delays_ms.map(|(mean, sd)| {
            let delay = 1e-3 * (mean + sd * normals.next().clamp(-2.5, 2.5));
            if spec.chain.reversed { -delay } else { delay }
        });
        let earliest_s = previous_s + 0.35;
        previous_s = stroke.impact_s;
        let motion =
            strokes::draw(stroke.kind, stroke.impact_s, earliest_s, delays_s, hand, stroke.backhand, &mut normals);
        for segment in 0..SEGMENTS {
            let parts = &motion.pulses[segment];
            pulses[segment].extend(parts);
            free[segment].push((parts[0].peak_s.min(parts[1].start_s()), parts[2].end_s().max(parts[1].end_s())));
        }
        pushes.extend(motion.pushes);
        let has_impact = stroke.has_impact && stroke.kind != StrokeKind::Other;
        if has_impact {
            let hit = Hit { impact_s: stroke.impact_s, accel_mps2: motion.impact_mps2 };
            hits.push((stroke.impact_s, stroke.impact_s + HIT_ENDS_S, hit));
        }
        truth_strokes.push(TruthStroke {
            start_ms: 1e3 * motion.start_s,
            impact_ms: 1e3 * stroke.impact_s,
            end_ms: 1e3 * motion.end_s,
            kind: stroke.kind,
            backhand: motion.backhand,
            has_impact,
            peak_ms: motion.peak_s.map(|peak_s| 1e3 * peak_s),
            peak_gyro_dps: motion.peak_dps,
        });
    }

    let mut normals = Normals::new(stream(spec.seed, 5));
    let mut spells = Vec::new();
    let mut truth_spells = Vec::new();
    for &(activity, start_s, end_s) in plan.spells.iter().filter(|&&(_, start_s, end_s)| end_s > start_s) {
        let (spell, turns, more_pushes) = background::draw(activity, start_s, end_s, hand, &mut normals);
        truth_spells.push(TruthSpell {
            activity: spell.activity,
            start_ms: 1e3 * spell.start_s,
            end_ms: 1e3 * spell.end_s,
        });
        spells.push((spell.start_s, spell.end_s, spell));
        for (segment, pulse) in turns {
            pulses[segment].push(pulse);
            free[segment].push((pulse.start_s(), pulse.end_s()));
        }
        pushes.extend(more_pushes);
    }

    let mut free = free.into_iter();
    Scenario {
        scores: pulses.map(|pulses| Score::new(pulses, free.next().unwrap_or_default())),
        pushes: Cues::new(
            pushes.into_iter().map(|push| (push.middle_s - push.half_s, push.middle_s + push.half_s, push)).collect(),
        ),
        spells: Cues::new(spells),
        hits: Cues::new(hits),
        truth_strokes,
        truth_spells,
    }
}

/// One segment at one instant, in its own axes.
#[derive(Clone, Copy)]
struct State {
    world_from_segment: Rotation,
    rate_rad: V3,
    /// Specific force at the sensor's place, m/s².
    force_mps2: V3,
}

/// A sensor as it is worn: what it does with what it feels.
struct Worn<'a> {
    spec: &'a SensorSpec,
    /// The next sample, and the time between samples, s on the session's clock.
    next_s: f64,
    step_s: f64,
    normals: Normals,
    segment_from_sensor: Rotation,
    track: SensorTrack,
    device_ms: Vec<f64>,
    truth: TruthSensor,
}

impl<'a> Worn<'a> {
    fn new(spec: &'a SynthSpec, segment: usize) -> Self {
        let sensor = &spec.sensors[segment];
        let rate_hz = spec.rate_hz.clamp(1.0, 1000.0);
        let mut rng = stream(spec.seed, 10 + segment as u64);
        let step_s = 1.0 / (rate_hz * (1.0 + 1e-6 * sensor.clock_drift_ppm));
        let capacity = (spec.duration_s.max(0.0) * rate_hz) as usize + 1;
        let mut track = SensorTrack::default();
        track.t_ns.reserve(capacity);
        track.acc.reserve(capacity);
        track.gyro.reserve(capacity);
        track.angle.reserve(capacity);
        Self {
            spec: sensor,
            next_s: step_s * rng.random::<f64>(),
            step_s,
            normals: Normals::new(rng),
            segment_from_sensor: sensor.sensor_from_segment.inverse(),
            track,
            device_ms: Vec::with_capacity(capacity),
            truth: TruthSensor { spec: *sensor, ..TruthSensor::default() },
        }
    }

    fn measure(&mut self, spec: &SynthSpec, t_s: f64, state: &State) {
        let noise = &spec.noise;
        let full = &spec.full_scale;
        let mount = self.spec.sensor_from_segment;
        let normals = &mut self.normals;

        let rate = mount.rotate(state.rate_rad.map(f64::to_degrees));
        let rate = add(add(rate, self.spec.gyro_bias_dps), normals.vector(noise.gyro_dps));
        let force = add(add(mount.rotate(state.force_mps2), self.spec.acc_bias_mps2), normals.vector(noise.acc_mps2));
        let force_g = scale(force, 1.0 / GRAVITY_MPS2);
        self.truth.gyro_saturated += usize::from(rate.iter().any(|value| value.abs() >= full.gyro_dps));
        self.truth.acc_saturated += usize::from(force_g.iter().any(|value| value.abs() >= full.acc_g));
        let gyro = rate.map(|value| express(value, full.gyro_dps, full.quantised) as f32);
        let to_unit = match spec.unit {
            AccUnit::G => 1.0,
            AccUnit::Mps2 => GRAVITY_MPS2,
        };
        let acc = force_g.map(|value| (to_unit * express(value, full.acc_g, full.quantised)) as f32);

        let angle = if spec.angles {
            let angles = state.world_from_segment.then_from(self.segment_from_sensor).roll_pitch_yaw_deg();
            add(angles, normals.vector(noise.angle_deg)).map(|angle| {
                let wrapped = angle - 360.0 * ((angle + 180.0) / 360.0).floor();
                express(wrapped, 180.0, full.quantised) as f32
            })
        } else {
            [f32::NAN; 3]
        };

        let stamp_ms = 1e3 * t_s * (1.0 + 1e-6 * self.spec.clock_drift_ppm)
            + self.spec.clock_offset_ms
            + noise.stamp_ms * normals.next();
        let stamp_ms = self.device_ms.last().map_or(stamp_ms, |&last| stamp_ms.max(last));
        self.device_ms.push(stamp_ms);
        self.track.push((t_s * 1e9).round() as i64, acc, gyro, angle);
        self.truth.measured += 1;
    }
}

/// A value within ±`limit`, in 65,536 steps if `quantised`.
fn express(value: f64, limit: f64, quantised: bool) -> f64 {
    if !limit.is_finite() {
        return value;
    }
    if !quantised {
        return value.clamp(-limit, limit);
    }
    let step = limit / 32768.0;
    (value / step).round().clamp(-32768.0, 32767.0) * step
}

pub(super) fn generate(spec: &SynthSpec) -> SynthSession {
    let hand = Hand::new(&mut Normals::new(stream(spec.style.seed, 0)), spec.style.left_handed, spec.style.spread);
    let mut scenario = compose(spec, &hand);
    let mut sensors: [Option<Worn<'_>>; SEGMENTS] =
        std::array::from_fn(|segment| spec.present[segment].then(|| Worn::new(spec, segment)));
    let to_next_joint_m = TO_NEXT_JOINT_M.map(|place| hand.mirror_place(place));
    let sensor_place_m = SENSOR_PLACE_M.map(|place| hand.mirror_place(place));
    let hit_direction = hand.mirror_place(HIT_DIRECTION);

    let steps = (spec.duration_s.max(0.0) / STEP_S).round() as u64;
    let mut states: [State; SEGMENTS] = std::array::from_fn(|segment| State {
        world_from_segment: hand.ready[segment],
        rate_rad: [0.0; 3],
        force_mps2: hand.ready[segment].inverse().rotate([0.0, 0.0, GRAVITY_MPS2]),
    });
    for step in 1..=steps {
        let t_s = step as f64 * STEP_S;
        let mut background = Background::default();
        for spell in scenario.spells.at(t_s) {
            spell.add_to(t_s, &mut background);
        }
        // Acceleration of the joint that the segment hangs on, in the world.
        let mut joint_mps2 = background.accel_mps2;
        for push in scenario.pushes.at(t_s) {
            joint_mps2 = add(joint_mps2, push.at(t_s));
        }
        let mut hit_mps2 = 0.0;
        for hit in scenario.hits.at(t_s) {
            let since_s = t_s - hit.impact_s;
            let ring = (std::f64::consts::TAU * HIT_HZ * since_s).sin();
            hit_mps2 += hit.accel_mps2 * ring * (-since_s / HIT_DECAY_S).exp();
        }
        for segment in 0..SEGMENTS {
            let before = states[segment];
            let score = &mut scenario.scores[segment];
            let mut rate = score.planted_rate_rad(t_s);
            let pull = score.pull(t_s);
            if pull > 0.0 {
                let target = hand.ready[segment].then_from(Rotation::from_vector_rad(background.turn_rad[segment]));
                let error = before.world_from_segment.inverse().then_from(target).to_vector_rad();
                rate = add(rate, scale(add(background.rate_rad[segment], scale(error, RETURN_PER_S)), pull));
            }
            let angular_accel = scale(add(rate, scale(before.rate_rad, -1.0)), 1.0 / STEP_S);
            let turned = Rotation::from_vector_rad(scale(add(rate, before.rate_rad), 0.5 * STEP_S));
            let world_from_segment = before.world_from_segment.then_from(turned).normalized();
            let accel_at = |place_m: V3| add(cross(angular_accel, place_m), cross(rate, cross(rate, place_m)));
            let mut force_mps2 = world_from_segment.inverse().rotate(add(joint_mps2, [0.0, 0.0, GRAVITY_MPS2]));
            force_mps2 = add(force_mps2, accel_at(sensor_place_m[segment]));
            if hit_mps2 != 0.0 {
                force_mps2 = add(force_mps2, scale(hit_direction, hit_mps2 * HIT_SHARE[segment]));
            }
            if segment < SEGMENTS - 1 {
                joint_mps2 = add(joint_mps2, world_from_segment.rotate(accel_at(to_next_joint_m[segment])));
            }
            let after = State { world_from_segment, rate_rad: rate, force_mps2 };
            states[segment] = after;
            let Some(sensor) = &mut sensors[segment] else { continue };
            while sensor.next_s <= t_s {
                let at_s = sensor.next_s;
                let share = (at_s - (t_s - STEP_S)) / STEP_S;
                let rate_rad = lerp(before.rate_rad, rate, share);
                let since_rad = scale(lerp(before.rate_rad, rate, 0.5 * share), share * STEP_S);
                let seen = State {
                    world_from_segment: before.world_from_segment.then_from(Rotation::from_vector_rad(since_rad)),
                    rate_rad,
                    force_mps2: lerp(before.force_mps2, force_mps2, share),
                };
                sensor.measure(spec, at_s, &seen);
                sensor.next_s += sensor.step_s;
            }
        }
    }

    lose(spec, &mut sensors);
    let mut track = Track::default();
    let mut device_ms: [Vec<f64>; SEGMENTS] = Default::default();
    let mut truth_sensors = spec.sensors.map(|spec| TruthSensor { spec, ..TruthSensor::default() });
    for (segment, sensor) in sensors.into_iter().enumerate() {
        if let Some(sensor) = sensor {
            track.sensors[segment] = Some(sensor.track);
            device_ms[segment] = sensor.device_ms;
            truth_sensors[segment] = sensor.truth;
        }
    }
    let truth = Truth { strokes: scenario.truth_strokes, spells: scenario.truth_spells, sensors: truth_sensors };
    SynthSession { track, device_ms, truth }
}

/// Takes the lost frames out of the tracks.
fn lose(spec: &SynthSpec, sensors: &mut [Option<Worn<'_>>; SEGMENTS]) {
    if spec.loss.frame <= 0.0 && spec.loss.block <= 0.0 {
        return;
    }
    // (time, segment, row) of every frame in the order of arrival.
    let mut frames: Vec<(i64, usize, usize)> = Vec::new();
    for (segment, sensor) in sensors.iter().enumerate() {
        if let Some(sensor) = sensor {
            frames.extend(sensor.track.t_ns.iter().enumerate().map(|(row, &t_ns)| (t_ns, segment, row)));
        }
    }
    frames.sort_unstable();
    let mut rng = stream(spec.seed, 20);
    let mut kept: [Vec<bool>; SEGMENTS] =
        std::array::from_fn(|segment| vec![true; sensors[segment].as_ref().map_or(0, |sensor| sensor.track.len())]);
    for block in frames.chunks(30) {
        let block_lost = rng.random::<f64>() < spec.loss.block;
        for &(_, segment, row) in block {
            let frame_lost = rng.random::<f64>() < spec.loss.frame;
            kept[segment][row] = !(block_lost || frame_lost);
        }
    }
    for (sensor, kept) in sensors.iter_mut().zip(&kept) {
        if let Some(sensor) = sensor {
            keep(&mut sensor.track.t_ns, kept);
            keep(&mut sensor.track.acc, kept);
            keep(&mut sensor.track.gyro, kept);
            keep(&mut sensor.track.angle, kept);
            keep(&mut sensor.device_ms, kept);
            sensor.truth.lost = kept.iter().filter(|&&kept| !kept).count();
        }
    }
}

fn keep<T>(values: &mut Vec<T>, kept: &[bool]) {
    let mut marks = kept.iter();
    values.retain(|_| marks.next().copied().unwrap_or(true));
}
