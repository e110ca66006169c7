//! What each stroke looks like in the four segments, and how a player and chance vary it.
//!
//! Segment axes, for a right-handed player in the ready pose: x along the segment to its far end, y to the left, z up.
//! About +y an arm comes forward and down, about +z it swings to the left, about +x it rolls.

use schemas::StrokeKind;

use super::random::Normals;
use super::rotation::Rotation;
use super::vector::{V3, add, scale, unit};

/// Waist, shoulder, wrist, racket.
pub(super) const SEGMENTS: usize = 4;

/// A turn of one segment: from rest up to `peak_dps` about `axis` at `peak_s`, and back to rest; smooth, nothing outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    pub(super) peak_s: f64,
    pub(super) rise_s: f64,
    pub(super) fall_s: f64,
    /// Unit vector times the peak rate, rad/s, in the segment's axes.
    pub(super) rate_rad: V3,
}

impl Pulse {
    pub(super) fn start_s(&self) -> f64 {
        self.peak_s - self.rise_s
    }

    pub(super) fn end_s(&self) -> f64 {
        self.peak_s + self.fall_s
    }

    /// The angular velocity at `t_s`, rad/s.
    pub(super) fn at(&self, t_s: f64) -> V3 {
        let since = t_s - self.peak_s;
        let u = if since < 0.0 { since / self.rise_s } else { since / self.fall_s };
        if u.abs() >= 1.0 {
            return [0.0; 3];
        }
        let cos = (0.5 * std::f64::consts::PI * u).cos();
        scale(self.rate_rad, cos * cos)
    }
}

/// A push of the whole body: an acceleration in the world (x to the net, y left, z up), raised-cosine in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Push {
    pub(super) middle_s: f64,
    pub(super) half_s: f64,
    pub(super) accel_mps2: V3,
}

impl Push {
    pub(super) fn at(&self, t_s: f64) -> V3 {
        let u = (t_s - self.middle_s) / self.half_s;
        if u.abs() >= 1.0 {
            return [0.0; 3];
        }
        let cos = (0.5 * std::f64::consts::PI * u).cos();
        scale(self.accel_mps2, cos * cos)
    }
}

/// How the field teaches a stroke, before any player's hand.
struct Template {
    /// Peak rates, °/s, waist to racket.
    peak_dps: [f64; SEGMENTS],
    /// Rise and fall of the racket's pulse, s.
    rise_s: f64,
    fall_s: f64,
    /// Backswing: duration, s, and its peak as a share of the stroke's peak.
    backswing_s: f64,
    backswing_share: f64,
    /// Follow-through as a share of the stroke's peak.
    follow_share: f64,
    /// Acceleration at the string bed when the shuttle is hit, m/s² at the handle.
    impact_mps2: f64,
    /// How often it is played on the backhand.
    backhand: f64,
    /// Directions of the forehand and of the backhand: waist, shoulder, wrist, racket.
    forehand_axes: [V3; SEGMENTS],
    backhand_axes: [V3; SEGMENTS],
    /// Pushes of the body: time from impact (s), half duration (s), acceleration (m/s²).
    pushes: &'static [(f64, f64, V3)],
}

const OVERHEAD: [V3; SEGMENTS] = [[0.1, 0.25, 0.95], [0.45, 0.85, -0.2], [0.5, 0.8, -0.25], [0.4, 0.85, -0.3]];
const OVERHEAD_BACK: [V3; SEGMENTS] = [[-0.1, 0.1, -0.95], [-0.5, 0.55, -0.6], [-0.7, 0.6, -0.3], [-0.5, 0.7, -0.45]];
const SIDE: [V3; SEGMENTS] = [[0.05, 0.1, 0.95], [0.3, 0.15, 0.9], [0.45, 0.15, 0.85], [0.3, 0.2, 0.93]];
const SIDE_BACK: [V3; SEGMENTS] = [[0.0, 0.1, -0.9], [-0.25, 0.1, -0.95], [-0.5, 0.1, -0.85], [-0.35, 0.15, -0.92]];
const UNDER: [V3; SEGMENTS] = [[0.1, -0.45, 0.6], [0.2, -0.9, 0.3], [0.35, -0.9, 0.25], [0.25, -0.92, 0.3]];
const UNDER_BACK: [V3; SEGMENTS] = [[0.0, -0.4, -0.6], [-0.2, -0.85, -0.4], [-0.45, -0.8, -0.35], [-0.3, -0.85, -0.4]];

/// Jump off before a smash, in the air, landing.
const JUMP: &[(f64, f64, V3)] =
    &[(-0.38, 0.12, [1.0, 0.0, 12.0]), (-0.05, 0.2, [0.5, 0.0, -8.5]), (0.28, 0.06, [2.0, 0.0, 24.0])];
/// A step back and the push forward.
const SCISSOR: &[(f64, f64, V3)] = &[(-0.45, 0.12, [-3.0, 0.0, 4.0]), (0.2, 0.08, [4.0, 0.0, 9.0])];
/// The long step to the net: braking as the foot lands, then back.
const LUNGE: &[(f64, f64, V3)] =
    &[(-0.35, 0.12, [5.0, 0.0, 2.0]), (-0.06, 0.06, [-13.0, 0.0, 9.0]), (0.4, 0.15, [-4.0, 0.0, 2.0])];
const SIDE_STEP: &[(f64, f64, V3)] = &[(-0.2, 0.1, [0.5, 3.0, 2.5]), (0.2, 0.1, [0.5, -3.0, 3.0])];
const STAND: &[(f64, f64, V3)] = &[];

fn template(kind: StrokeKind) -> Template {
    let base = Template {
        peak_dps: [260.0, 560.0, 1050.0, 1550.0],
        rise_s: 0.11,
        fall_s: 0.10,
        backswing_s: 0.50,
        backswing_share: 0.5,
        follow_share: 0.3,
        impact_mps2: 160.0,
        backhand: 0.12,
        forehand_axes: OVERHEAD,
        backhand_axes: OVERHEAD_BACK,
        pushes: SCISSOR,
    };
    match kind {
        StrokeKind::Clear => base,
        StrokeKind::Drop => Template {
            peak_dps: [215.0, 440.0, 760.0, 1020.0],
            rise_s: 0.135,
            fall_s: 0.085,
            follow_share: 0.18,
            impact_mps2: 60.0,
            forehand_axes: [[0.1, 0.25, 0.95], [0.3, 0.9, -0.1], [0.15, 0.95, -0.15], [0.1, 0.97, -0.15]],
            ..base
        },
        StrokeKind::Smash => Template {
            peak_dps: [310.0, 640.0, 1230.0, 1720.0],
            rise_s: 0.09,
            fall_s: 0.11,
            backswing_s: 0.45,
            follow_share: 0.42,
            impact_mps2: 230.0,
            backhand: 0.05,
            forehand_axes: [[0.1, 0.45, 0.88], [0.6, 0.75, -0.15], [0.78, 0.58, -0.2], [0.6, 0.75, -0.2]],
            pushes: JUMP,
            ..base
        },
        StrokeKind::Drive => Template {
            peak_dps: [160.0, 380.0, 860.0, 1340.0],
            rise_s: 0.075,
            fall_s: 0.085,
            backswing_s: 0.28,
            backswing_share: 0.4,
            follow_share: 0.25,
            impact_mps2: 130.0,
            backhand: 0.5,
            forehand_axes: SIDE,
            backhand_axes: SIDE_BACK,
            pushes: SIDE_STEP,
        },
        StrokeKind::Lift => Template {
            peak_dps: [140.0, 360.0, 810.0, 1240.0],
            rise_s: 0.10,
            fall_s: 0.11,
            backswing_s: 0.35,
            backswing_share: 0.4,
            follow_share: 0.38,
            impact_mps2: 120.0,
            backhand: 0.45,
            forehand_axes: UNDER,
            backhand_axes: UNDER_BACK,
            pushes: LUNGE,
        },
        StrokeKind::NetShot => Template {
            peak_dps: [65.0, 150.0, 320.0, 500.0],
            rise_s: 0.11,
            fall_s: 0.12,
            backswing_s: 0.32,
            backswing_share: 0.32,
            follow_share: 0.15,
            impact_mps2: 35.0,
            backhand: 0.45,
            forehand_axes: [[0.1, 0.3, 0.5], [0.3, -0.5, 0.4], [0.75, -0.5, 0.4], [0.6, -0.45, 0.65]],
            backhand_axes: [[0.1, 0.3, -0.5], [-0.3, -0.5, -0.4], [-0.75, -0.45, -0.45], [-0.6, -0.4, -0.68]],
            pushes: LUNGE,
        },
        StrokeKind::Push => Template {
            peak_dps: [90.0, 230.0, 570.0, 920.0],
            rise_s: 0.07,
            fall_s: 0.08,
            backswing_s: 0.22,
            backswing_share: 0.32,
            follow_share: 0.2,
            impact_mps2: 85.0,
            backhand: 0.4,
            forehand_axes: [[0.1, 0.2, 0.6], [0.25, 0.55, 0.6], [0.3, 0.65, 0.6], [0.2, 0.6, 0.75]],
            backhand_axes: [[0.1, 0.2, -0.6], [-0.25, 0.5, -0.65], [-0.35, 0.6, -0.65], [-0.2, 0.55, -0.8]],
            pushes: LUNGE,
        },
        StrokeKind::Kill => Template {
            peak_dps: [105.0, 300.0, 810.0, 1300.0],
            rise_s: 0.055,
            fall_s: 0.06,
            backswing_s: 0.18,
            backswing_share: 0.3,
            follow_share: 0.12,
            impact_mps2: 135.0,
            backhand: 0.35,
            forehand_axes: [[0.1, 0.4, 0.4], [0.3, 0.9, 0.1], [0.3, 0.94, 0.05], [0.2, 0.97, 0.1]],
            backhand_axes: [[0.1, 0.4, -0.4], [-0.35, 0.85, -0.25], [-0.4, 0.88, -0.2], [-0.3, 0.9, -0.25]],
            pushes: LUNGE,
        },
        StrokeKind::Block => Template {
            peak_dps: [70.0, 170.0, 380.0, 590.0],
            rise_s: 0.085,
            fall_s: 0.10,
            backswing_s: 0.2,
            backswing_share: 0.25,
            follow_share: 0.1,
            impact_mps2: 75.0,
            backhand: 0.65,
            forehand_axes: [[0.0, 0.2, 0.7], [0.1, -0.2, 0.9], [0.15, -0.3, 0.92], [0.1, -0.25, 0.95]],
            backhand_axes: [[0.0, 0.2, -0.7], [-0.1, -0.25, -0.9], [-0.2, -0.3, -0.9], [-0.15, -0.25, -0.93]],
            pushes: SIDE_STEP,
        },
        StrokeKind::ShortServe => Template {
            peak_dps: [48.0, 115.0, 290.0, 460.0],
            rise_s: 0.12,
            fall_s: 0.11,
            backswing_s: 0.55,
            backswing_share: 0.3,
            follow_share: 0.15,
            impact_mps2: 40.0,
            backhand: 0.8,
            forehand_axes: [[0.0, -0.2, 0.5], [0.1, -0.85, 0.2], [0.1, -0.95, 0.2], [0.1, -0.95, 0.25]],
            backhand_axes: [[0.0, 0.1, -0.4], [-0.1, -0.55, -0.6], [-0.15, -0.6, -0.75], [-0.1, -0.6, -0.78]],
            pushes: STAND,
        },
        StrokeKind::LongServe => Template {
            peak_dps: [225.0, 480.0, 910.0, 1360.0],
            rise_s: 0.15,
            fall_s: 0.14,
            backswing_s: 0.62,
            backswing_share: 0.42,
            follow_share: 0.45,
            impact_mps2: 125.0,
            backhand: 0.0,
            forehand_axes: [[0.05, -0.15, 0.95], [0.3, -0.8, 0.5], [0.5, -0.75, 0.45], [0.35, -0.8, 0.5]],
            backhand_axes: UNDER_BACK,
            pushes: STAND,
        },
        StrokeKind::Other => Template {
            peak_dps: [60.0, 220.0, 520.0, 700.0],
            rise_s: 0.25,
            fall_s: 0.25,
            backswing_s: 0.4,
            backswing_share: 0.6,
            follow_share: 0.6,
            impact_mps2: 0.0,
            backhand: 0.3,
            forehand_axes: [[0.2, 0.6, 0.3], [0.9, 0.2, -0.3], [0.9, -0.3, 0.3], [0.95, 0.2, 0.2]],
            backhand_axes: [[0.2, 0.6, -0.3], [-0.9, 0.2, 0.3], [-0.9, -0.3, -0.3], [-0.95, 0.2, -0.2]],
            pushes: STAND,
        },
    }
}

/// How one player plays: drawn once a player.
#[derive(Clone, Debug)]
pub(super) struct Hand {
    /// −1 mirrors left and right.
    side: f64,
    amplitude: f64,
    tempo: f64,
    backswing: f64,
    segment_gain: [f64; SEGMENTS],
    kind_gain: [f64; 12],
    kind_tempo: [f64; 12],
    kind_turn: [[Rotation; SEGMENTS]; 12],
    /// The ready pose: world from segment.
    pub(super) ready: [Rotation; SEGMENTS],
    pub(super) stride_hz: f64,
}

impl Hand {
    pub(super) fn new(normals: &mut Normals, left_handed: bool, spread: f64) -> Self {
        let y = [0.0, 1.0, 0.0];
        let z = [0.0, 0.0, 1.0];
        let side = if left_handed { -1.0 } else { 1.0 };
        let pose = |pitch_deg: f64, yaw_deg: f64| {
            Rotation::about_deg(z, side * yaw_deg).then_from(Rotation::about_deg(y, pitch_deg))
        };
        let typical = [pose(12.0, 10.0), pose(62.0, 15.0), pose(-12.0, 25.0), pose(-42.0, 30.0)];
        let ready =
            typical.map(|pose| pose.then_from(Rotation::from_vector_rad(normals.vector((9.0 * spread).to_radians()))));
        Self {
            side,
            ready,
            amplitude: normals.factor(0.11 * spread),
            tempo: normals.factor(0.10 * spread),
            backswing: normals.factor(0.18 * spread),
            segment_gain: std::array::from_fn(|_| normals.factor(0.07 * spread)),
            kind_gain: std::array::from_fn(|_| normals.factor(0.06 * spread)),
            kind_tempo: std::array::from_fn(|_| normals.factor(0.06 * spread)),
            kind_turn: std::array::from_fn(|_| {
                std::array::from_fn(|_| Rotation::from_vector_rad(normals.vector((9.0 * spread).to_radians())))
            }),
            stride_hz: 1.8 * normals.factor(0.08 * spread),
        }
    }

    /// A direction of rotation as this player's hand has it (an axial vector: mirroring left and right keeps y).
    pub(super) fn mirror_turn(&self, axis: V3) -> V3 {
        [self.side * axis[0], axis[1], self.side * axis[2]]
    }

    /// A place or a push as this player's hand has it.
    pub(super) fn mirror_place(&self, place: V3) -> V3 {
        [place[0], self.side * place[1], place[2]]
    }
}

/// One stroke, ready to be moved through.
#[derive(Clone, Debug)]
pub(super) struct Motion {
    pub(super) start_s: f64,
    pub(super) end_s: f64,
    pub(super) backhand: bool,
    pub(super) peak_s: [f64; SEGMENTS],
    pub(super) peak_dps: [f64; SEGMENTS],
    pub(super) impact_mps2: f64,
    /// Backswing, stroke, follow-through of each segment.
    pub(super) pulses: [[Pulse; 3]; SEGMENTS],
    pub(super) pushes: Vec<Push>,
}

/// Draws one stroke. `delays_s` are the delays waist to shoulder, shoulder to wrist, wrist to racket of this very stroke; the
/// racket peaks at `impact_s`. The backswing does not begin before `earliest_s`.
pub(super) fn draw(
    kind: StrokeKind,
    impact_s: f64,
    earliest_s: f64,
    delays_s: [f64; 3],
    hand: &Hand,
    backhand: Option<bool>,
    normals: &mut Normals,
) -> Motion {
    let form = template(kind);
    let index = kind as usize;
    let drawn = { rand::Rng::random::<f64>(normals.rng()) < form.backhand };
    let backhand = backhand.unwrap_or(drawn);
    let axes = if backhand { form.backhand_axes } else { form.forehand_axes };
    let vigour = hand.amplitude * hand.kind_gain[index] * normals.factor(0.06);
    let tempo = hand.tempo * hand.kind_tempo[index] * normals.factor(0.05);
    let backswing_share = (form.backswing_share * hand.backswing * normals.factor(0.08)).min(0.62);
    let follow_share = (form.follow_share * normals.factor(0.15)).min(0.5);
    let backswing_s = form.backswing_s * tempo * normals.factor(0.08);

    let mut peak_s = [impact_s; SEGMENTS];
    for segment in (0..SEGMENTS - 1).rev() {
        peak_s[segment] = peak_s[segment + 1] - delays_s[segment];
    }
    // Nearer the trunk the same turn takes longer.
    let slower = [2.0, 1.5, 1.15, 1.0];
    let mut peak_dps = [0.0; SEGMENTS];
    let pulses = std::array::from_fn(|segment| {
        let turn =
            hand.kind_turn[index][segment].then_from(Rotation::from_vector_rad(normals.vector(6.0_f64.to_radians())));
        let axis = turn.rotate(hand.mirror_turn(unit(axes[segment])));
        peak_dps[segment] = form.peak_dps[segment] * vigour * hand.segment_gain[segment] * normals.factor(0.04);
        let rate = peak_dps[segment].to_radians();
        let peak = peak_s[segment];
        let (rise, fall) = (form.rise_s * tempo * slower[segment], form.fall_s * tempo * slower[segment]);
        // The way back is not the way forth mirrored: it leans to the side by up to a third.
        let back_axis = unit(add(scale(axis, -1.0), normals.vector(0.12)));
        let follow_axis = unit(add(axis, normals.vector(0.25)));
        // It ends while the stroke already accelerates, and well before its peak, so that the peak stays where it is
        // planted. In a crowded rally it is shortened.
        let back_end = peak - 0.45 * rise;
        let back_start = (back_end - backswing_s * (0.6 + 0.4 * slower[segment])).max(earliest_s).min(back_end - 0.08);
        let back_half = 0.5 * (back_end - back_start);
        let follow_half = (0.16 * tempo * slower[segment].sqrt()).max(0.1);
        [
            Pulse {
                peak_s: back_start + back_half,
                rise_s: back_half,
                fall_s: back_half,
                rate_rad: scale(back_axis, rate * backswing_share),
            },
            Pulse { peak_s: peak, rise_s: rise, fall_s: fall, rate_rad: scale(axis, rate) },
            Pulse {
                peak_s: peak + 0.3 * fall + follow_half,
                rise_s: follow_half,
                fall_s: follow_half,
                rate_rad: scale(follow_axis, rate * follow_share),
            },
        ]
    });
    let effort = vigour * normals.factor(0.15);
    let pushes = form
        .pushes
        .iter()
        .map(|&(from_impact_s, half_s, accel)| Push {
            middle_s: impact_s + from_impact_s * tempo,
            half_s,
            accel_mps2: scale(hand.mirror_place(accel), effort),
        })
        .collect();
    let arm = &pulses[2..];
    Motion {
        start_s: arm.iter().map(|parts: &[Pulse; 3]| parts[0].start_s()).fold(f64::INFINITY, f64::min),
        end_s: arm.iter().map(|parts: &[Pulse; 3]| parts[2].end_s()).fold(f64::NEG_INFINITY, f64::max),
        backhand,
        peak_s,
        peak_dps,
        impact_mps2: form.impact_mps2 * vigour * normals.factor(0.12),
        pulses,
        pushes,
    }
}

/// Angular rate of a sum of pulses, °/s; what the truth of a stroke is checked against.
#[cfg(test)]
pub(super) fn rate_dps(pulses: &[Pulse], t_s: f64) -> f64 {
    super::vector::norm(pulses.iter().fold([0.0; 3], |sum, pulse| add(sum, pulse.at(t_s)))).to_degrees()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::random::stream;

    #[test]
    fn a_planted_peak_is_the_peak_of_the_segment() {
        for player in 0..12 {
            let mut normals = Normals::new(stream(player, 0));
            let hand = Hand::new(&mut normals, player % 2 == 0, 1.0);
            for kind in StrokeKind::ALL {
                let motion = draw(kind, 5.0, 0.0, [0.06, 0.045, 0.025], &hand, None, &mut normals);
                assert!(motion.start_s < 5.0 && motion.end_s > 5.0);
                for (segment, pulses) in motion.pulses.iter().enumerate() {
                    let (at, rate) = (0..60_000)
                        .map(|i| f64::from(i) * 1e-4 + 1.5)
                        .map(|t_s| (t_s, rate_dps(pulses, t_s)))
                        .fold((0.0, 0.0), |best, next| if next.1 > best.1 { next } else { best });
                    assert!((at - motion.peak_s[segment]).abs() < 2e-4, "{kind} segment {segment}: {at}");
                    assert!((rate - motion.peak_dps[segment]).abs() < 1e-3 * rate);
                }
            }
        }
    }
}
