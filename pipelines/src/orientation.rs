//! How each sensor is turned, and what follows from it: gravity, trunk separation, ranges of motion.
//!
//! A 6-axis filter in the manner of VQF (Laidig and Seel 2023): the gyro is integrated to an almost inertial space, in which
//! specific force is low-passed over seconds. Whatever a body does, its acceleration averages out there, because a sensor
//! that swings comes back to rest; what is left points up and corrects the tilt. Heading is not observable without a
//! magnetometer, so figures use turns since the swing's start, or turns about the vertical, which an unknown heading leaves
//! as they are. So does an unknown mounting: it cancels in q(t) q(start)⁻¹.
//!
//! The device's own angles take the filter's place in the turns of swings where they are good: at rest within 5° of where gravity points (median),
//! and within 10° (median) of what the gyro says a swing turned the sensor.

use schemas::SensorTrack;

use crate::calibrate::{G, GAP, Signal, median, norm};
use crate::filter::Lanes;
use crate::wide::wide;

/// A unit quaternion w, x, y, z.
pub(crate) type Quat = [f64; 4];

pub(crate) const IDENTITY: Quat = [1.0, 0.0, 0.0, 0.0];

/// First `b`, then `a`.
#[inline(always)]
pub(crate) fn multiply(a: Quat, b: Quat) -> Quat {
    [
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    ]
}

pub(crate) fn conjugate(q: Quat) -> Quat {
    [q[0], -q[1], -q[2], -q[3]]
}

/// A quaternion that is nearly of unit length made so: one step of Newton's iteration, without root or division.
#[inline(always)]
fn normalized(q: Quat) -> Quat {
    let factor = 1.5 - 0.5 * (q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    q.map(|c| c * factor)
}

#[inline(always)]
pub(crate) fn rotate(q: Quat, v: [f64; 3]) -> [f64; 3] {
    let [w, x, y, z] = q;
    let t = [2.0 * (y * v[2] - z * v[1]), 2.0 * (z * v[0] - x * v[2]), 2.0 * (x * v[1] - y * v[0])];
    [
        v[0] + w * t[0] + y * t[2] - z * t[1],
        v[1] + w * t[1] + z * t[0] - x * t[2],
        v[2] + w * t[2] + x * t[1] - y * t[0],
    ]
}

/// The turn of a rotation vector, rad, of less than a radian: what a gyro turns in one step. Series to 1e-8, no division.
#[inline(always)]
fn from_small_vector_rad(v: [f64; 3]) -> Quat {
    const BY: [f64; 6] = [1.0 / 6.0, 1.0 / 20.0, 1.0 / 42.0, 1.0 / 2.0, 1.0 / 12.0, 1.0 / 30.0];
    let half2 = 0.25 * (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    let s = 0.5 * (1.0 - half2 * BY[0] * (1.0 - half2 * BY[1] * (1.0 - half2 * BY[2])));
    let c = 1.0 - half2 * BY[3] * (1.0 - half2 * BY[4] * (1.0 - half2 * BY[5]));
    [c, s * v[0], s * v[1], s * v[2]]
}

/// The smallest turn that carries the unit vector `v` to +z.
#[inline(always)]
fn to_vertical(v: [f64; 3]) -> Quat {
    let w = (0.5 * (v[2] + 1.0)).max(0.0).sqrt();
    if w > 1e-6 { [w, 0.5 * v[1] / w, -0.5 * v[0] / w, 0.0] } else { [0.0, 1.0, 0.0, 0.0] }
}

/// The orientation of roll, pitch, yaw in ° (about x, y, z; yaw first), as the devices send them; `None` where one is missing
/// or beyond two turns.
pub(crate) fn from_roll_pitch_yaw(angle: [f32; 3]) -> Option<Quat> {
    if !angle.iter().all(|a| a.abs() <= 720.0) {
        return None;
    }
    let [r, p, y] = angle.map(|a| 0.5 * f64::from(a).to_radians());
    let about = |axis: usize, half: f64| {
        let mut q = [half.cos(), 0.0, 0.0, 0.0];
        q[axis + 1] = half.sin();
        q
    };
    Some(multiply(about(2, y), multiply(about(1, p), about(0, r))))
}

/// Angle of a turn, rad, 0 to π.
fn angle_rad(q: Quat) -> f64 {
    2.0 * (q[1] * q[1] + q[2] * q[2] + q[3] * q[3]).sqrt().atan2(q[0].abs())
}

/// The part of a turn about the unit vector `axis`, rad, −π to π (swing-twist decomposition).
pub(crate) fn twist_rad(q: Quat, axis: [f64; 3]) -> f64 {
    let along = q[1] * axis[0] + q[2] * axis[1] + q[3] * axis[2];
    let twist = 2.0 * along.atan2(q[0]);
    if twist > std::f64::consts::PI {
        twist - std::f64::consts::TAU
    } else if twist < -std::f64::consts::PI {
        twist + std::f64::consts::TAU
    } else {
        twist
    }
}

/// world_from_sensor of every grid point; the heading of each island is its own. Empty without acceleration or gyro.
pub(crate) fn orientation(signal: &Signal, tau_s: f64) -> Vec<Quat> {
    if !signal.has_acc || !signal.has_gyro {
        return Vec::new();
    }
    let dt = signal.step_s();
    let mut out = Vec::with_capacity(signal.grid.len());
    for island in &signal.islands {
        let points = &signal.grid[island.start..island.end()];
        wide(
            #[inline(always)]
            || follow(points, dt, tau_s, &mut out),
        );
    }
    out
}

/// Points that go through a step of the filter together, and those of them that correct the tilt together: what is averaged over
/// seconds is averaged often enough a dozen times a second.
const BLOCK: usize = 64;
const TOGETHER: usize = 8;

#[inline(always)]
fn follow(points: &[Lanes], dt: f64, tau_s: f64, out: &mut Vec<Quat>) {
    let Some(first) = points.first() else { return };
    let settle = ((tau_s / dt).ceil() as usize).clamp(1, points.len());
    let section = LowPass::new(tau_s, dt * TOGETHER as f64);
    let mut gyro = Gyro::new(first, dt);
    // The first seconds are looked at twice: once for a tilt to begin with, so that the first swing has one too.
    let mut first_sum = [0.0; 3];
    for block in points[..settle].chunks(BLOCK) {
        for force in &gyro.forces(block)[..block.len()] {
            (0..3).for_each(|c| first_sum[c] += force[c]);
        }
    }
    let mut tilt = unit(first_sum).map_or(IDENTITY, to_vertical);
    let mut state = first_sum.map(|sum| section.settled(sum / settle as f64));
    let mut gyro = Gyro::new(first, dt);
    let mut seen = 0;
    for block in points.chunks(BLOCK) {
        let forces = gyro.forces(block);
        let groups = block.chunks(TOGETHER).zip(forces.chunks(TOGETHER)).zip(gyro.turned.chunks(TOGETHER));
        for ((group, forces), turned) in groups {
            let (mut sum, mut count) = ([0.0; 3], 0_u32);
            for (k, (v, force)) in group.iter().zip(forces).enumerate() {
                // Until the low-pass has a past, the mean of the first seconds stands; interpolated samples say nothing new.
                if seen + k >= settle && v[GAP] == 0.0 {
                    (0..3).for_each(|c| sum[c] += force[c]);
                    count += 1;
                }
            }
            if count > 0 {
                let smooth = std::array::from_fn(|c| section.run(&mut state[c], sum[c] / f64::from(count)));
                if let Some(up) = unit(rotate(tilt, smooth)) {
                    tilt = normalized(multiply(to_vertical(up), tilt));
                }
            }
            out.extend(turned.iter().take(group.len()).map(|&inertial| multiply(tilt, inertial)));
            seen += group.len();
        }
    }
}

/// The integrated gyro: where the sensor is turned to in a space that drifts by the gyro's bias only.
struct Gyro {
    inertial: Quat,
    before: [f64; 3],
    /// Half a step, in radians for each °/s.
    half: f64,
    /// Where it was turned to at the points of the last block.
    turned: [Quat; BLOCK],
}

impl Gyro {
    fn new(first: &Lanes, dt: f64) -> Self {
        Self { inertial: IDENTITY, before: rates(first), half: 0.5 * dt.to_radians(), turned: [IDENTITY; BLOCK] }
    }

    /// Integrates a block and gives the specific force at its points, in the space integrated in.
    #[inline(always)]
    fn forces(&mut self, block: &[Lanes]) -> [[f64; 3]; BLOCK] {
        let mut steps = [IDENTITY; BLOCK];
        for (step, v) in steps.iter_mut().zip(block) {
            let now = rates(v);
            *step = from_small_vector_rad(std::array::from_fn(|c| (self.before[c] + now[c]) * self.half));
            self.before = now;
        }
        let mut inertial = self.inertial;
        for (turned, step) in self.turned.iter_mut().zip(&steps).take(block.len()) {
            inertial = multiply(inertial, *step);
            *turned = inertial;
        }
        self.inertial = normalized(inertial);
        let mut forces = [[0.0; 3]; BLOCK];
        for ((force, v), &turned) in forces.iter_mut().zip(block).zip(&self.turned) {
            *force = rotate(turned, [f64::from(v[0]), f64::from(v[1]), f64::from(v[2])]);
        }
        forces
    }
}

#[inline(always)]
fn rates(v: &Lanes) -> [f64; 3] {
    [f64::from(v[3]), f64::from(v[4]), f64::from(v[5])]
}

#[inline(always)]
fn unit(v: [f64; 3]) -> Option<[f64; 3]> {
    let length = (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).sqrt();
    (length > 0.0).then(|| v.map(|c| c / length))
}

/// A second-order Butterworth low-pass in f64: its cut-off lies four decades below the sampling rate.
struct LowPass {
    b: [f64; 3],
    a: [f64; 2],
}

impl LowPass {
    /// With the time constant that VQF uses: cut-off √2/(2π τ).
    fn new(tau_s: f64, dt: f64) -> Self {
        let relative = (std::f64::consts::SQRT_2 / (std::f64::consts::TAU * tau_s) * dt).min(0.45);
        let k = (std::f64::consts::PI * relative).tan();
        let norm = 1.0 / (1.0 + std::f64::consts::SQRT_2 * k + k * k);
        let b0 = k * k * norm;
        Self {
            b: [b0, 2.0 * b0, b0],
            a: [2.0 * (k * k - 1.0) * norm, (1.0 - std::f64::consts::SQRT_2 * k + k * k) * norm],
        }
    }

    /// The state of a filter that has always seen `value`.
    fn settled(&self, value: f64) -> [f64; 2] {
        let s2 = (self.b[2] - self.a[1]) * value;
        [(self.b[1] - self.a[0]) * value + s2, s2]
    }

    #[inline(always)]
    fn run(&self, state: &mut [f64; 2], x: f64) -> f64 {
        let y = self.b[0] * x + state[0];
        state[0] = self.b[1] * x - self.a[0] * y + state[1];
        state[1] = self.b[2] * x - self.a[1] * y;
        y
    }
}

/// Specific force of gravity at each grid point, m/s², in sensor space.
pub(crate) fn gravity(orientation: &[Quat]) -> Vec<[f32; 3]> {
    // The third row of the rotation matrix.
    let up = |&[w, x, y, z]: &Quat| [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)];
    orientation.iter().map(|q| up(q).map(|c| (G * c) as f32)).collect()
}

/// The device's own angles at each grid point, NaN where it sent none, if they are good (see the module's text).
pub(crate) fn device_angles(signal: &Signal, track: &SensorTrack, filter: &[Quat]) -> Option<Vec<[f32; 3]>> {
    const REST_DEG: f64 = 5.0;
    const TURN_DEG: f64 = 10.0;
    const RESTS_MIN: usize = 20;
    const TURNS_MIN: usize = 20;
    // How far apart two instants lie whose turn is compared, s.
    const TURN_S: f64 = 0.2;
    // One point in so many is looked at: a recording has tens of thousands.
    const EVERY: usize = 4;
    let none_sent = || track.angle.iter().all(|angle| angle.iter().any(|a| a.is_nan()));
    if filter.is_empty() || track.angle.len() != track.t_ns.len() || none_sent() || !track.t_ns.is_sorted() {
        return None;
    }
    let own = on_grid(signal, track);
    let (mut rests, mut turns): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let stride = ((TURN_S / signal.step_s()) as usize).max(1);
    for island in &signal.islands {
        for index in (island.start..island.end()).step_by(EVERY) {
            let v = &signal.grid[index];
            let rate = norm([v[3], v[4], v[5]]);
            let force = [f64::from(v[0]), f64::from(v[1]), f64::from(v[2])];
            let magnitude = norm([v[0], v[1], v[2]]);
            let still = v[GAP] == 0.0 && rate < 15.0 && (magnitude / G - 1.0).abs() < 0.04;
            let later = (rate > 200.0 && index + stride < island.end()).then_some(index + stride);
            if !still && later.is_none() {
                continue;
            }
            let Some(q) = from_roll_pitch_yaw(own[index]) else { continue };
            if still {
                let up = rotate(q, force)[2] / magnitude;
                rests.push(up.clamp(-1.0, 1.0).acos().to_degrees());
            }
            if let Some((later, device_later)) = later.and_then(|later| Some((later, from_roll_pitch_yaw(own[later])?)))
            {
                let device = multiply(conjugate(q), device_later);
                let gyro = multiply(conjugate(filter[index]), filter[later]);
                turns.push(angle_rad(multiply(conjugate(gyro), device)).to_degrees());
            }
        }
    }
    let (enough_rests, enough_turns) = (rests.len() >= RESTS_MIN, turns.len() >= TURNS_MIN);
    let good = enough_rests
        && median(&mut rests).is_some_and(|off| off <= REST_DEG)
        && (!enough_turns || median(&mut turns).is_some_and(|off| off <= TURN_DEG));
    good.then_some(own)
}

/// The angles of the sample nearest to each grid point, within two periods.
fn on_grid(signal: &Signal, track: &SensorTrack) -> Vec<[f32; 3]> {
    let reach_ns = (2.0 * signal.sample_period_s() * 1e9) as i64;
    let away = |at: usize, t_ns: i64| track.t_ns[at].saturating_sub(t_ns).saturating_abs();
    let mut at = 0;
    let mut own = Vec::with_capacity(signal.grid.len());
    for island in &signal.islands {
        for index in island.start..island.end() {
            let t_ns = signal.time_ns(island, index);
            while at + 1 < track.t_ns.len() && away(at + 1, t_ns) <= away(at, t_ns) {
                at += 1;
            }
            let near = at < track.t_ns.len() && away(at, t_ns) <= reach_ns;
            own.push(if near { track.angle[at] } else { [f32::NAN; 3] });
        }
    }
    own
}

/// What a movement did to the angle between a first orientation and later ones, unwrapped: largest minus smallest, °. Turns
/// are in rad, −π to π.
pub(crate) fn twist_range_deg(turns: impl Iterator<Item = f64>) -> f64 {
    let bounds = unwrapped(turns).fold((0.0_f64, 0.0_f64), |(low, high), turn| (low.min(turn), high.max(turn)));
    (bounds.1 - bounds.0).to_degrees()
}

/// Angles about the vertical since the first orientation, rad, unwrapped.
pub(crate) fn headings_rad(orientation: &[Quat]) -> Vec<f64> {
    let Some(&first) = orientation.first() else { return Vec::new() };
    let back = conjugate(first);
    unwrapped(orientation.iter().map(|&q| twist_rad(multiply(q, back), [0.0, 0.0, 1.0]))).collect()
}

/// Turns between −π and π with a whole turn added wherever they jump.
fn unwrapped(turns: impl Iterator<Item = f64>) -> impl Iterator<Item = f64> {
    use std::f64::consts::{PI, TAU};
    let (mut before, mut sum) = (0.0, 0.0);
    turns.map(move |turn| {
        let step = turn - before;
        before = turn;
        sum += if step > PI {
            step - TAU
        } else if step < -PI {
            step + TAU
        } else {
            step
        };
        sum
    })
}

/// The largest tilt, °, of the vertical since the first orientation: the part of the turn that is not about it.
pub(crate) fn largest_tilt_deg(orientation: &[Quat]) -> f64 {
    let Some(&first) = orientation.first() else { return 0.0 };
    let least =
        orientation.iter().map(|&q| rotate(multiply(q, conjugate(first)), [0.0, 0.0, 1.0])[2]).fold(1.0, f64::min);
    least.clamp(-1.0, 1.0).acos().to_degrees()
}

/// The largest turn of a joint, °, since the first orientation of its two segments, whose headings must be comparable.
pub(crate) fn largest_joint_turn_deg(inner: &[Quat], outer: &[Quat]) -> Option<f64> {
    let mut joint = inner.iter().zip(outer).map(|(&a, &b)| multiply(conjugate(a), b));
    let first = joint.next()?;
    Some(joint.map(|q| angle_rad(multiply(conjugate(first), q))).fold(0.0, f64::max).to_degrees())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Params;
    use crate::calibrate::calibrate;
    use crate::synth::{Plan, Rallies, SynthSpec, generate};
    use schemas::SensorRole;

    fn turned(v: [f64; 3]) -> Quat {
        let angle = (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).sqrt();
        let s = if angle < 1e-9 { 0.5 } else { (0.5 * angle).sin() / angle };
        [(0.5 * angle).cos(), s * v[0], s * v[1], s * v[2]]
    }

    #[test]
    fn turns_compose_and_split() {
        let small = [0.3, -0.2, 0.25];
        assert!(from_small_vector_rad(small).iter().zip(turned(small)).all(|(a, b)| (a - b).abs() < 1e-9));
        let z = [0.0, 0.0, 1.0];
        let yaw = turned([0.0, 0.0, 0.7]);
        let pitch = turned([0.0, 0.4, 0.0]);
        assert!((twist_rad(multiply(yaw, pitch), z) - 0.7).abs() < 1e-9);
        assert!((angle_rad(multiply(conjugate(yaw), yaw))).abs() < 1e-9);
        let up = rotate(to_vertical([0.6, 0.0, 0.8]), [0.6, 0.0, 0.8]);
        assert!((up[2] - 1.0).abs() < 1e-12);
        // One and a half turns about the vertical are that, not half a turn back.
        let turning: Vec<Quat> =
            (0..100).map(|i| turned([0.0, 0.0, f64::from(i) * 0.03 * std::f64::consts::PI])).collect();
        let headings = headings_rad(&turning);
        assert!((headings[99] - 99.0 * 0.03 * std::f64::consts::PI).abs() < 1e-6);
        assert!(largest_tilt_deg(&turning) < 1e-6);
    }

    #[test]
    fn the_vertical_is_found_through_swings_and_mountings() {
        let plan = Plan::Rallies(Rallies::default());
        let spec = SynthSpec { duration_s: 60.0, plan, ..SynthSpec::new(61) }.with_random_mounting(2);
        let session = generate(&spec);
        for (role, worst_deg) in [(SensorRole::Waist, 6.0), (SensorRole::Wrist, 10.0), (SensorRole::Racket, 14.0)] {
            let track = session.track.get(role).unwrap();
            let signal = calibrate(role, track, &Params::builtin().calibrate).unwrap();
            let filter = orientation(&signal, Params::builtin().calibrate.gravity_tau_s);
            // The generator's angles are the truth, and good.
            let truth = device_angles(&signal, track, &filter).unwrap();
            let mut tilts: Vec<f64> = filter
                .iter()
                .zip(&truth)
                .filter_map(|(&q, &angle)| Some((q, from_roll_pitch_yaw(angle)?)))
                .map(|(q, t)| {
                    let up = rotate(q, rotate(conjugate(t), [0.0, 0.0, 1.0]));
                    up[2].clamp(-1.0, 1.0).acos().to_degrees()
                })
                .collect();
            tilts.sort_by(f64::total_cmp);
            let most = tilts[tilts.len() * 95 / 100];
            assert!(most < worst_deg, "{role}: nine of ten within {most}°, median {}°", tilts[tilts.len() / 2]);
        }
    }

    #[test]
    fn wide_vectors_give_the_same_bits() {
        let session = generate(&SynthSpec { duration_s: 20.0, ..SynthSpec::new(63) });
        let signal =
            calibrate(SensorRole::Racket, session.track.get(SensorRole::Racket).unwrap(), &Params::builtin().calibrate)
                .unwrap();
        let mut narrow = Vec::new();
        for island in &signal.islands {
            follow(&signal.grid[island.start..island.end()], signal.step_s(), 3.0, &mut narrow);
        }
        assert_eq!(orientation(&signal, 3.0), narrow);
    }

    #[test]
    fn angles_that_are_not_the_sensors_are_not_used() {
        let session = generate(&SynthSpec { duration_s: 30.0, ..SynthSpec::new(62) });
        let mut track = session.track.get(SensorRole::Wrist).unwrap().clone();
        let signal = calibrate(SensorRole::Wrist, &track, &Params::builtin().calibrate).unwrap();
        let filter = orientation(&signal, 3.0);
        assert!(device_angles(&signal, &track, &filter).is_some());
        track.angle.iter_mut().for_each(|angle| angle[0] += 30.0);
        assert!(device_angles(&signal, &track, &filter).is_none());
        track.angle.iter_mut().for_each(|angle| *angle = [f32::NAN; 3]);
        assert!(device_angles(&signal, &track, &filter).is_none());
    }
}
