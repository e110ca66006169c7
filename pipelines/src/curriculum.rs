//! Generated players to train on: sessions of the generator with their truth as marks.
//!
//! No public recordings with a permissive licence hold all strokes of badminton with sensors on wrist and racket. What
//! a model learns here is what the generator believes about strokes; its card must say so.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use schemas::{SensorRole, Track};

use crate::synth::{AccUnit, FullScale, GRAVITY_MPS2, Plan, Rallies, Style, SynthSpec, generate};
use crate::train::{Mark, MarkQuality};

/// One generated session with its marks.
#[derive(Clone, Debug)]
pub struct GeneratedRecording {
    /// Name of the recording, which is also the player's.
    pub name: String,
    /// The samples.
    pub track: Track,
    /// One for each planted stroke.
    pub marks: Vec<Mark>,
}

/// The session of generated player number `player`, `minutes` long.
///
/// Players differ in style, hand (every eighth is left-handed), mounting, noise and rest habits; sensors in rate (50 to
/// 200 Hz, every sixth player 10 or 20 Hz), unit and range. The same arguments give the same bytes.
#[must_use]
pub fn generated_player(player: u32, minutes: f64, seed: u64) -> GeneratedRecording {
    let own = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(u64::from(player) + 1);
    let mut spec = SynthSpec::new(own);
    spec.duration_s = minutes * 60.0;
    spec.rate_hz = [100.0, 200.0, 100.0, 50.0][player as usize % 4];
    spec.unit = if player.is_multiple_of(2) { AccUnit::G } else { AccUnit::Mps2 };
    spec.style = Style { seed: own, left_handed: player % 8 == 7, spread: 1.0 };
    if player % 5 == 4 {
        // The cheaper sensors on the market.
        spec.full_scale = FullScale { acc_g: 8.0, gyro_dps: 1000.0, quantised: true };
    }
    spec.plan = Plan::Rallies(Rallies { shadow_share: [0.04, 1.0, 0.04][player as usize % 3], ..Rallies::default() });
    let mut session = generate(&spec);
    if player % 6 == 5 {
        // Loggers that keep one sample in so many: 10 to 20 a second.
        session.track = thinned(&session.track, (spec.rate_hz / if player % 12 == 5 { 10.0 } else { 20.0 }) as usize);
    }
    let name = format!("generated-{player}");
    let marks = session
        .truth
        .strokes
        .iter()
        .map(|stroke| Mark {
            player: name.clone(),
            start_ms: Some(stroke.start_ms),
            peak_ms: stroke.impact_ms,
            end_ms: Some(stroke.end_ms),
            stroke: stroke.kind.as_str().to_owned(),
            quality: MarkQuality::Counted,
        })
        .collect();
    GeneratedRecording { name, track: session.track, marks }
}

/// A minute of plain swings for the gate, on all four sensors: turns of many shapes, more or less like a stroke, with
/// strengths from a block to a smash. What they would be called nobody can say; that they are swings is all they teach.
///
/// Other simulators, and players who were never thought of, move unlike the players of [`generated_player`], and a gate
/// that knows those alone takes everybody else for a fidget.
#[must_use]
pub fn generated_swings(number: u32, seed: u64) -> GeneratedRecording {
    const SWINGS: usize = 20;
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (u64::from(number) << 20) ^ 0x5357_494e_4753);
    let rate_hz = [100.0, 200.0, 50.0, 250.0][number as usize % 4];
    let mut at_s = 3.0;
    let strokes: Vec<PlainSwing> = (0..SWINGS)
        .map(|_| {
            at_s += rng.random_range(1.6..3.2);
            PlainSwing {
                at_s,
                width_s: rng.random_range(0.035..0.14),
                top_dps: 600.0 * 3.5_f64.powf(rng.random_range(0.0..1.0)),
                backswing: rng.random_range(0.0..0.6) * f64::from(u8::from(rng.random_bool(0.5))),
                follow_through: rng.random_range(0.0..0.5) * f64::from(u8::from(rng.random_bool(0.5))),
                sharpness: rng.random_range(1.0..4.0),
                hit_mps2: rng.random_range(20.0..120.0) * f64::from(u8::from(rng.random_bool(0.3))),
            }
        })
        .collect();
    let turning = rng.random_bool(0.5);
    let noise = [0.0, 0.3, 2.0][number as usize % 3];
    let mut track = Track::default();
    for (place, role) in SensorRole::CHAIN.into_iter().enumerate() {
        let mut direction = || {
            let v: [f64; 3] = std::array::from_fn(|_| rng.random_range(-1.0..1.0));
            let length = v.iter().map(|c| c * c).sum::<f64>().sqrt().max(1e-2);
            v.map(|c| c / length)
        };
        let (axis, out) = (direction(), direction());
        let mut down = direction();
        let share = [0.3, 0.45, 0.75, 1.0][place];
        let lead_s = [0.13, 0.075, 0.03, 0.0][place];
        let lever_m = rng.random_range(0.0..0.5) * share;
        let Some(sensor) = track.get_or_insert(role) else { continue };
        for i in 0..((at_s + 3.0) * rate_hz) as usize {
            let t_s = i as f64 / rate_hz;
            let dps: f64 = strokes.iter().map(|stroke| share * stroke.rate_dps(t_s + lead_s)).sum();
            let rate = dps.to_radians();
            if turning {
                // Gravity turns the other way in the sensor's axes.
                let cross = [
                    axis[1] * down[2] - axis[2] * down[1],
                    axis[2] * down[0] - axis[0] * down[2],
                    axis[0] * down[1] - axis[1] * down[0],
                ];
                let turned: [f64; 3] = std::array::from_fn(|c| down[c] - rate / rate_hz * cross[c]);
                let length = turned.iter().map(|c| c * c).sum::<f64>().sqrt();
                down = turned.map(|c| c / length);
            }
            let hit: f64 =
                strokes.iter().map(|s| s.hit_mps2 * share * (-((t_s + lead_s - s.at_s) / 0.008).powi(2)).exp()).sum();
            let mut jitter = || noise * (rng.random_range(-1.0..1.0) + rng.random_range(-1.0..1.0));
            let acc = std::array::from_fn(|c| {
                (GRAVITY_MPS2 * down[c] + (rate * rate * lever_m + hit) * out[c] + 0.1 * jitter()) as f32
            });
            let gyro = std::array::from_fn(|c| (dps * axis[c] + jitter()) as f32);
            sensor.push((t_s * 1e9) as i64, acc, gyro, [f32::NAN; 3]);
        }
    }
    let name = format!("generated-swings-{number}");
    let marks = strokes
        .iter()
        .map(|stroke| Mark {
            player: name.clone(),
            start_ms: None,
            peak_ms: 1e3 * stroke.at_s,
            end_ms: None,
            stroke: "swing".to_owned(),
            quality: MarkQuality::Counted,
        })
        .collect();
    GeneratedRecording { name, track, marks }
}

/// One turn about one axis.
struct PlainSwing {
    at_s: f64,
    width_s: f64,
    top_dps: f64,
    /// Shares of the top rate that lead up to it the other way, and that follow.
    backswing: f64,
    follow_through: f64,
    /// 1 is a bell, more is flatter on top.
    sharpness: f64,
    hit_mps2: f64,
}

impl PlainSwing {
    fn rate_dps(&self, t_s: f64) -> f64 {
        let bell = |centre: f64, width: f64| (-(((t_s - centre) / width).abs() / 1.4).powf(1.0 + self.sharpness)).exp();
        let back = self.backswing * bell(self.at_s - 3.5 * self.width_s, 1.6 * self.width_s);
        let follow = self.follow_through * bell(self.at_s + 2.5 * self.width_s, 1.3 * self.width_s);
        self.top_dps * (bell(self.at_s, self.width_s) - back + follow)
    }
}

fn thinned(track: &Track, every: usize) -> Track {
    let mut out = Track { sync_error_ns: track.sync_error_ns, ..Track::default() };
    for (role, sensor) in track.iter() {
        if let Some(kept) = out.get_or_insert(role) {
            kept.clock_error_ns = sensor.clock_error_ns;
            for i in (0..sensor.len()).step_by(every.max(1)) {
                kept.push(sensor.t_ns[i], sensor.acc[i], sensor.gyro[i], sensor.angle[i]);
            }
        }
    }
    out
}
