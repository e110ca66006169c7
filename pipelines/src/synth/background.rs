//! What players do between strokes: footwork, walking, fidgeting, picking up shuttles.

use rand::Rng;

use super::random::Normals;
use super::strokes::{Hand, Pulse, Push, SEGMENTS};
use super::vector::{V3, scale};

/// What somebody does who is not playing a stroke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Steps between the strokes of a rally.
    Footwork,
    /// Walking over the court between rallies.
    Walking,
    /// Standing, twirling the racket, wiping, loosening the arm.
    Fidgeting,
    /// Bending down and scooping a shuttle up with the racket.
    PickUp,
}

/// A swaying about the ready pose with one frequency: angles (rad) and the body's acceleration.
#[derive(Clone, Copy, Debug)]
struct Sway {
    omega_rad_s: f64,
    phase: f64,
    turn_rad: [V3; SEGMENTS],
    accel_mps2: V3,
}

/// One spell of one activity.
#[derive(Clone, Debug)]
pub(super) struct Spell {
    pub(super) activity: Activity,
    pub(super) start_s: f64,
    pub(super) end_s: f64,
    sways: Vec<Sway>,
}

/// What the background asks of the segments at one instant.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Background {
    /// Where each segment is to be, as a rotation vector (rad) from its ready pose, in its own axes.
    pub(super) turn_rad: [V3; SEGMENTS],
    /// And how fast that moves, rad/s.
    pub(super) rate_rad: [V3; SEGMENTS],
    pub(super) accel_mps2: V3,
}

impl Spell {
    pub(super) fn add_to(&self, t_s: f64, background: &mut Background) {
        let fade = |from_s: f64| (from_s / 0.4).clamp(0.0, 1.0);
        let share = fade(t_s - self.start_s).min(fade(self.end_s - t_s));
        let share = share * share * (3.0 - 2.0 * share);
        if share <= 0.0 {
            return;
        }
        for sway in &self.sways {
            let (sin, cos) = (sway.omega_rad_s * t_s + sway.phase).sin_cos();
            for segment in 0..SEGMENTS {
                for axis in 0..3 {
                    let turn = share * sway.turn_rad[segment][axis];
                    background.turn_rad[segment][axis] += turn * sin;
                    background.rate_rad[segment][axis] += turn * sway.omega_rad_s * cos;
                }
            }
            for axis in 0..3 {
                background.accel_mps2[axis] += share * sway.accel_mps2[axis] * sin;
            }
        }
    }
}

fn deg(turns: [V3; SEGMENTS]) -> [V3; SEGMENTS] {
    turns.map(|turn| turn.map(f64::to_radians))
}

/// A spell of `activity`, with its single movements: turns of a segment, pushes of the body.
pub(super) fn draw(
    activity: Activity,
    start_s: f64,
    end_s: f64,
    hand: &Hand,
    normals: &mut Normals,
) -> (Spell, Vec<(usize, Pulse)>, Vec<Push>) {
    let tau = std::f64::consts::TAU;
    let mut sway = |hz: f64, turn_deg: [V3; SEGMENTS], accel_mps2: V3| {
        let (vigour, hz) = (normals.factor(0.2), hz * normals.factor(0.06));
        Sway {
            omega_rad_s: tau * hz,
            phase: tau * normals.rng().random::<f64>(),
            turn_rad: deg(turn_deg).map(|turn| hand.mirror_turn(scale(turn, vigour))),
            accel_mps2: scale(hand.mirror_place(accel_mps2), vigour),
        }
    };
    let stride = hand.stride_hz;
    let sways = match activity {
        Activity::Footwork => vec![
            sway(1.35 * stride, [[0.6, 1.0, 1.2], [2.0, 5.0, 4.0], [3.0, 5.0, 4.0], [4.0, 6.0, 5.0]], [1.5, 2.0, 4.5]),
            sway(0.6, [[2.0, 3.0, 6.0], [4.0, 8.0, 12.0], [8.0, 8.0, 12.0], [10.0, 9.0, 14.0]], [1.0, 1.5, 0.0]),
            sway(2.7 * stride, [[0.15, 0.3, 0.3], [0.6, 1.0, 1.0], [0.8, 1.4, 1.2], [1.2, 2.0, 1.5]], [1.0, 0.6, 2.0]),
        ],
        Activity::Walking => vec![
            sway(stride, [[1.0, 1.5, 1.0], [1.0, 1.5, 1.0], [1.0, 2.0, 1.0], [1.5, 2.5, 1.5]], [0.8, 0.3, 2.2]),
            sway(
                0.5 * stride,
                [[2.0, 1.0, 6.0], [2.0, 13.0, 3.0], [4.0, 17.0, 5.0], [5.0, 17.0, 6.0]],
                [0.3, 0.8, 0.0],
            ),
        ],
        Activity::Fidgeting => vec![
            sway(0.35, [[1.0, 2.0, 5.0], [4.0, 7.0, 6.0], [9.0, 8.0, 8.0], [12.0, 9.0, 10.0]], [0.1, 0.2, 0.05]),
            sway(1.6, [[0.2, 0.2, 0.5], [1.0, 1.0, 1.0], [6.0, 2.0, 3.0], [11.0, 4.0, 4.0]], [0.05, 0.1, 0.1]),
        ],
        Activity::PickUp => {
            vec![sway(0.4, [[1.0, 1.0, 2.0], [1.0, 2.0, 2.0], [2.0, 2.0, 2.0], [2.0, 3.0, 3.0]], [0.2; 3])]
        }
    };
    let spell = Spell { activity, start_s, end_s, sways };

    let mut pulses = Vec::new();
    let mut pushes = Vec::new();
    let mut turn = |segment: usize, middle_s: f64, half_s: f64, axis: V3, angle_deg: f64| {
        // A raised-cosine pulse of unit height and half width h has the integral h.
        let rate = angle_deg.to_radians() / half_s;
        pulses.push((
            segment,
            Pulse { peak_s: middle_s, rise_s: half_s, fall_s: half_s, rate_rad: scale(hand.mirror_turn(axis), rate) },
        ));
    };
    match activity {
        // The racket is twirled about its shaft, the forearm rolled: quick, on the spot, no stroke.
        Activity::Fidgeting => {
            let mut t_s = start_s + 0.6;
            while t_s + 1.2 < end_s {
                let quick = normals.factor(0.25);
                match normals.rng().random_range(0..4) {
                    0 => {
                        turn(3, t_s, 0.22 / quick, [1.0, 0.05, 0.0], 95.0 * quick);
                        turn(3, t_s + 0.5, 0.22 / quick, [1.0, 0.0, 0.05], -95.0 * quick);
                    }
                    1 => {
                        turn(2, t_s, 0.25 / quick, [0.9, 0.3, 0.2], 55.0 * quick);
                        turn(3, t_s + 0.02, 0.25 / quick, [0.8, 0.4, 0.2], 65.0 * quick);
                        turn(2, t_s + 0.6, 0.28 / quick, [0.9, 0.3, 0.2], -55.0 * quick);
                        turn(3, t_s + 0.62, 0.28 / quick, [0.8, 0.4, 0.2], -65.0 * quick);
                    }
                    2 => {
                        turn(1, t_s, 0.4 / quick, [0.1, -0.9, 0.1], 38.0);
                        turn(2, t_s, 0.4 / quick, [0.2, -1.0, 0.1], 50.0);
                        turn(3, t_s, 0.42 / quick, [0.2, -1.0, 0.1], 55.0);
                        turn(1, t_s + 0.9, 0.4 / quick, [0.1, -0.9, 0.1], -38.0);
                        turn(2, t_s + 0.9, 0.4 / quick, [0.2, -1.0, 0.1], -50.0);
                        turn(3, t_s + 0.9, 0.42 / quick, [0.2, -1.0, 0.1], -55.0);
                    }
                    _ => {}
                }
                t_s += 1.6 + 1.8 * normals.rng().random::<f64>();
            }
        }
        Activity::PickUp => {
            let middle_s = 0.5 * (start_s + end_s);
            let (down, up) = (middle_s - 0.65, middle_s + 0.75);
            for (segment, angle) in [(0, 48.0), (1, 30.0), (2, 26.0), (3, 34.0)] {
                turn(segment, down, 0.5, [0.05, 1.0, 0.15], angle);
                turn(segment, up, 0.55, [0.05, 1.0, 0.15], -angle);
            }
            turn(2, middle_s, 0.18, [0.8, -0.5, 0.2], 38.0);
            turn(3, middle_s + 0.02, 0.15, [0.8, -0.5, 0.2], 58.0);
            pushes.push(Push { middle_s: down, half_s: 0.4, accel_mps2: [0.5, 0.0, -2.0] });
            pushes.push(Push { middle_s: up, half_s: 0.4, accel_mps2: [-0.5, 0.0, 2.0] });
        }
        Activity::Footwork | Activity::Walking => {}
    }
    (spell, pulses, pushes)
}
