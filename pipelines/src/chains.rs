//! Chains with planted peaks, made differently from [`crate::synth`] on purpose: what a pipeline is tuned on must not be all
//! that it is judged by.
//!
//! No body, no timetable, no classes: four points that turn. A pulse is a bump of one of six shapes about axes of its own;
//! orientation is integrated in quaternions, specific force is gravity plus what a lever arm feels. The planted peak is the
//! numerically found maximum of the true |ω|, before bias, noise, clipping, stamps and loss.

use std::f64::consts::TAU;
use std::fmt::Write as _;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemas::{SensorRole, Track};

use crate::{Params, analyze};

/// How a bump rises and falls, with its maximum 1 at 0 and `width` roughly its half-width at half height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Gauss,
    RaisedCosine,
    /// Two half Gaussians, one wider than the other.
    Split,
    /// Fast up, slow down (or mirrored): a gamma density.
    Skewed,
    Sech,
    /// A second, lower hump before or after.
    TwoHumps,
    /// A top without curvature, in no mixture: a little slope moves its summit far.
    Flat,
}

const SHAPES: [Shape; 6] =
    [Shape::Gauss, Shape::RaisedCosine, Shape::Split, Shape::Skewed, Shape::Sech, Shape::TwoHumps];

#[derive(Clone, Copy, Debug)]
struct Bump {
    shape: Shape,
    at_s: f64,
    width_s: f64,
    /// How much wider one half is than the other, or its inverse.
    lean: f64,
    /// Height and place of the second hump, in widths.
    second: (f64, f64),
    rate_dps: f64,
    axis: [f64; 3],
    /// How fast the axis itself turns about `turn`, rad/s.
    turn: [f64; 3],
}

impl Bump {
    fn height(&self, t_s: f64) -> f64 {
        let x = (t_s - self.at_s) / self.width_s;
        if x.abs() > 12.0 {
            return 0.0;
        }
        let gauss = |x: f64| (-std::f64::consts::LN_2 * x * x).exp();
        match self.shape {
            Shape::Gauss => gauss(x),
            Shape::RaisedCosine => {
                if x.abs() >= 2.0 {
                    0.0
                } else {
                    (0.25 * std::f64::consts::PI * x).cos().powi(2)
                }
            }
            Shape::Split => gauss(if x < 0.0 { x * self.lean.sqrt() } else { x / self.lean.sqrt() }),
            Shape::Skewed => {
                let x = if self.lean < 1.0 { -x } else { x };
                // k = 5: maximum at x = 0 after shifting by k θ.
                let (k, theta) = (5.0, 0.38);
                let u = x / (k * theta) + 1.0;
                if u <= 0.0 { 0.0 } else { (u * (1.0 - u).exp()).powf(k) }
            }
            Shape::Sech => 1.0 / (1.317 * x).cosh(),
            Shape::Flat => gauss(x * x),
            Shape::TwoHumps => gauss(x) + self.second.0 * gauss(x - self.second.1),
        }
    }

    fn rate(&self, t_s: f64) -> [f64; 3] {
        let angle = self.turn.map(|w| w * (t_s - self.at_s));
        let axis = rotate(exp_map(angle), self.axis);
        let rate = self.rate_dps * self.height(t_s);
        axis.map(|c| c * rate)
    }
}

type Quat = [f64; 4];

fn multiply(a: Quat, b: Quat) -> Quat {
    [
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    ]
}

fn exp_map(v: [f64; 3]) -> Quat {
    let angle = (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).sqrt();
    let s = if angle < 1e-9 { 0.5 } else { (0.5 * angle).sin() / angle };
    [(0.5 * angle).cos(), s * v[0], s * v[1], s * v[2]]
}

fn rotate(q: Quat, v: [f64; 3]) -> [f64; 3] {
    let r = multiply(multiply(q, [0.0, v[0], v[1], v[2]]), [q[0], -q[1], -q[2], -q[3]]);
    [r[1], r[2], r[3]]
}

fn length(v: [f64; 3]) -> f64 {
    (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).sqrt()
}

fn gauss(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random::<f64>().max(1e-12), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

fn direction(rng: &mut ChaCha8Rng) -> [f64; 3] {
    loop {
        let v = [gauss(rng), gauss(rng), gauss(rng)];
        let l = length(v);
        if l > 1e-3 {
            return v.map(|c| c / l);
        }
    }
}

/// What the sensors and their clocks do to the truth.
#[derive(Clone, Copy, Debug)]
struct Conditions {
    rate_hz: f64,
    /// Only this shape; `None` for a mixture.
    shape: Option<Shape>,
    noise_dps: f64,
    bias_dps: f64,
    limit_dps: f64,
    jitter_ms: f64,
    /// Stamps in whole milliseconds.
    whole_ms: bool,
    loss: f64,
    /// Bursts of lost samples: how many a minute, and how long, s.
    bursts: (f64, f64),
    /// One standard deviation of each sensor's clock, ms; the track says so.
    sync_ms: f64,
    /// The same for the shoulder's clock beyond the others'; its track says so.
    shoulder_off_ms: f64,
    /// One standard deviation, ms, of an error that the track does not mention.
    unsaid_ms: f64,
    drift_ppm: f64,
    /// Peaks of the racket, °/s.
    fastest_dps: (f64, f64),
    /// Half-width of pulses, ms.
    width_ms: (f64, f64),
    /// How much wider one half of a lopsided bump is than the other.
    lean: (f64, f64),
    /// Share of bumps whose axis turns, and of sensors with a second bump about another axis.
    turning: bool,
    impact: bool,
    /// From the racket's peak to the hit, s.
    hit_after_s: f64,
    /// What the hit makes ring in the racket, °/s, and two fifths of it in the wrist.
    ring_dps: f64,
}

const PLAIN: Conditions = Conditions {
    rate_hz: 100.0,
    shape: None,
    noise_dps: 0.3,
    bias_dps: 1.0,
    limit_dps: 2000.0,
    jitter_ms: 0.2,
    whole_ms: false,
    loss: 0.002,
    bursts: (0.0, 0.0),
    sync_ms: 0.0,
    shoulder_off_ms: 0.0,
    unsaid_ms: 0.0,
    drift_ppm: 0.0,
    fastest_dps: (900.0, 1800.0),
    width_ms: (35.0, 80.0),
    lean: (1.2, 2.0),
    turning: true,
    impact: true,
    hit_after_s: 0.0,
    ring_dps: 0.0,
};

/// Planted peaks of one swing, ms of true time, in chain order.
type Planted = [f64; 4];

struct Session {
    track: Track,
    planted: Vec<Planted>,
}

/// `swings` swings, two seconds and a bit apart.
fn session(seed: u64, swings: usize, c: &Conditions) -> Session {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let between = |rng: &mut ChaCha8Rng, (low, high): (f64, f64)| low + (high - low) * rng.random::<f64>();
    let mut bumps: [Vec<Bump>; 4] = Default::default();
    let mut main_at: Vec<[f64; 4]> = Vec::new();
    let mut t_s = 4.0;
    for _ in 0..swings {
        // Waist first, racket at t.
        let delays =
            [between(&mut rng, (0.025, 0.1)), between(&mut rng, (0.02, 0.08)), between(&mut rng, (0.012, 0.05))];
        let at = [t_s - delays[0] - delays[1] - delays[2], t_s - delays[1] - delays[2], t_s - delays[2], t_s];
        main_at.push(at);
        let fastest = between(&mut rng, c.fastest_dps);
        for (segment, bumps) in bumps.iter_mut().enumerate() {
            let share = [0.16, 0.32, 0.62, 1.0][segment] * between(&mut rng, (0.85, 1.15));
            let shape = c.shape.unwrap_or_else(|| SHAPES[rng.random_range(0..SHAPES.len())]);
            let lean = between(&mut rng, c.lean);
            let side = if rng.random::<bool>() { 1.0 } else { -1.0 };
            let axis = direction(&mut rng);
            let turning = c.turning && rng.random::<f64>() < 0.5;
            let main = Bump {
                shape,
                at_s: at[segment],
                width_s: between(&mut rng, c.width_ms) * 1e-3,
                lean: if rng.random::<bool>() { lean } else { 1.0 / lean },
                second: (between(&mut rng, (0.3, 0.75)), side * between(&mut rng, (1.8, 3.0))),
                rate_dps: fastest * share,
                axis,
                turn: if turning { direction(&mut rng).map(|d| d * 6.0) } else { [0.0; 3] },
            };
            bumps.push(main);
            // A backswing the other way, and what swings on.
            bumps.push(Bump {
                shape: Shape::RaisedCosine,
                at_s: at[segment] - between(&mut rng, (0.38, 0.5)),
                width_s: 0.11,
                rate_dps: main.rate_dps * between(&mut rng, (0.2, 0.45)),
                axis: if turning { direction(&mut rng) } else { axis.map(|c| -c) },
                turn: [0.0; 3],
                ..main
            });
            if c.turning && rng.random::<f64>() < 0.3 {
                bumps.push(Bump {
                    shape: Shape::Gauss,
                    at_s: at[segment] + between(&mut rng, (-0.06, 0.06)),
                    rate_dps: main.rate_dps * between(&mut rng, (0.1, 0.35)),
                    axis: direction(&mut rng),
                    ..main
                });
            }
        }
        t_s += between(&mut rng, (1.9, 2.6));
    }
    let duration_s = t_s + 3.0;

    let mut planted: Vec<Planted> = vec![[0.0; 4]; swings];
    let mut track = Track { sync_error_ns: (c.sync_ms * 1e6) as i64, ..Track::default() };
    for (segment, bumps) in bumps.iter().enumerate() {
        let by_swing: Vec<&[Bump]> = split(bumps, &main_at, segment);
        let rate = |t: f64| -> [f64; 3] {
            let swing = main_at.partition_point(|at| at[segment] < t - 1.0).min(swings.saturating_sub(1));
            let mut sum = [0.0; 3];
            for bump in by_swing[swing].iter().chain(by_swing.get(swing + 1).copied().unwrap_or_default()) {
                let r = bump.rate(t);
                (0..3).for_each(|i| sum[i] += r[i]);
            }
            sum
        };
        for (swing, planted) in planted.iter_mut().enumerate() {
            let around = main_at[swing][segment];
            let highest = |middle: f64, reach: i32, step: f64| {
                (-reach..=reach)
                    .map(|i| middle + f64::from(i) * step)
                    .max_by(|&a, &b| length(rate(a)).total_cmp(&length(rate(b))))
                    .unwrap()
            };
            let best = highest(highest(around, 250, 1e-3), 40, 5e-5);
            planted[segment] = best * 1e3;
        }
        let role = SensorRole::CHAIN[segment];
        let bias: [f64; 3] = std::array::from_fn(|_| c.bias_dps * gauss(&mut rng));
        let acc_bias: [f64; 3] = std::array::from_fn(|_| 0.05 * gauss(&mut rng));
        let error_ms = if role == SensorRole::Shoulder { c.sync_ms.hypot(c.shoulder_off_ms) } else { c.sync_ms };
        let offset_s = 1e-3 * (error_ms + c.unsaid_ms) * gauss(&mut rng);
        let drift = 1e-6 * c.drift_ppm * gauss(&mut rng);
        let lever = direction(&mut rng).map(|d| d * [0.08, 0.12, 0.22, 0.3][segment]);
        let mut q: Quat = {
            let d = direction(&mut rng);
            exp_map(d.map(|c| c * 2.0))
        };
        let period_s = 1.0 / c.rate_hz;
        let mut t = period_s * rng.random::<f64>();
        let mut last_stamp = i64::MIN;
        let mut lost_until = -1.0;
        let sensor = track.get_or_insert(role).unwrap();
        sensor.clock_error_ns = (c.shoulder_off_ms > 0.0).then_some((error_ms * 1e6) as i64);
        while t < duration_s {
            // Substeps, so that orientation stays true at 50 Hz.
            let steps = (period_s / 0.0025).ceil() as usize;
            for k in 0..steps {
                let w = rate(t + period_s * k as f64 / steps as f64);
                q = multiply(q, exp_map(w.map(|c| c.to_radians() * period_s / steps as f64)));
            }
            t += period_s;
            if rng.random::<f64>() < c.bursts.0 / 60.0 * period_s {
                lost_until = t + c.bursts.1;
            }
            let w = rate(t);
            let w_rad = w.map(f64::to_radians);
            let cross = |a: [f64; 3], b: [f64; 3]| {
                [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
            };
            let radial = cross(w_rad, cross(w_rad, lever));
            let up = rotate([q[0], -q[1], -q[2], -q[3]], [0.0, 0.0, 9.80665]);
            let since_hit_s = main_at
                .get(main_at.partition_point(|at| at[3] + c.hit_after_s + 0.05 < t))
                .map(|at| t - at[3] - c.hit_after_s);
            let since_hit_s = since_hit_s.filter(|since| c.impact && (0.0..0.05).contains(since));
            let hit = since_hit_s.map_or(0.0, |since| (-since / 0.008).exp());
            let ring = since_hit_s.map_or(0.0, |since| (-since / 0.015).exp() * (TAU * 55.0 * since).sin());
            let ring = ring * c.ring_dps * [0.0, 0.0, 0.4, 1.0][segment] / length(lever);
            let hit = hit * [0.5, 2.0, 25.0, 120.0][segment];
            let acc: [f32; 3] = std::array::from_fn(|i| {
                let value = up[i] + radial[i] + acc_bias[i] + 0.04 * gauss(&mut rng) + if i == 0 { hit } else { 0.0 };
                value.clamp(-16.0 * 9.80665, 16.0 * 9.80665) as f32
            });
            let step = c.limit_dps / 32768.0;
            let gyro: [f32; 3] = std::array::from_fn(|i| {
                let value = w[i] + ring * lever[i] + bias[i] + c.noise_dps * gauss(&mut rng);
                ((value.clamp(-c.limit_dps, c.limit_dps) / step).round() * step) as f32
            });
            let stamp_s = t * (1.0 + drift) + offset_s + 1e-3 * c.jitter_ms * gauss(&mut rng);
            let stamp_s = if c.whole_ms { (stamp_s * 1e3).round() / 1e3 } else { stamp_s };
            let stamp = ((stamp_s * 1e9) as i64).max(last_stamp);
            if rng.random::<f64>() < c.loss || t < lost_until {
                continue;
            }
            last_stamp = stamp;
            sensor.push(stamp, acc, gyro, [f32::NAN; 3]);
        }
    }
    Session { track, planted }
}

/// The bumps of each swing: they were pushed swing by swing, the main one first.
fn split<'a>(bumps: &'a [Bump], main_at: &[[f64; 4]], segment: usize) -> Vec<&'a [Bump]> {
    let mut starts: Vec<usize> = main_at
        .iter()
        .map(|at| bumps.iter().position(|bump| (bump.at_s - at[segment]).abs() < 1e-12).unwrap())
        .collect();
    starts.push(bumps.len());
    starts.windows(2).map(|w| &bumps[w[0]..w[1]]).collect()
}

/// What the intervals were worth.
#[derive(Clone, Debug, Default)]
struct Tally {
    planted: usize,
    found: usize,
    /// Planted delays of swings that were found.
    delays: usize,
    stated: usize,
    inside: usize,
    resolved: usize,
    wrong_sign: usize,
    errors_ms: Vec<f64>,
    widths_ms: Vec<f64>,
}

impl Tally {
    fn add(&mut self, session: &Session) {
        let found = analyze(&session.track, Params::builtin(), None);
        for planted in &session.planted {
            self.planted += 1;
            let Some(stroke) = found.strokes.iter().find(|s| (s.impact_ms - planted[3]).abs() < 200.0) else {
                continue;
            };
            self.found += 1;
            for (i, name) in ["waist_shoulder", "shoulder_wrist", "wrist_racket"].iter().enumerate() {
                self.delays += 1;
                let truth = planted[i + 1] - planted[i];
                let figure = |key: String| stroke.metrics.get(&key).copied();
                let resolved = figure(format!("delay_{name}_ms"));
                if let Some(delay) = resolved {
                    self.resolved += 1;
                    self.wrong_sign += usize::from(delay * truth < 0.0);
                    self.errors_ms.push((delay - truth).abs());
                }
                let low = figure(format!("delay_{name}_low_ms"));
                let high = figure(format!("delay_{name}_high_ms"));
                if let Some((low, high)) = low.zip(high) {
                    self.stated += 1;
                    self.widths_ms.push(high - low);
                    let inside = (low..=high).contains(&truth);
                    self.inside += usize::from(inside);
                }
            }
        }
    }

    fn coverage(&self) -> f64 {
        self.inside as f64 / self.stated.max(1) as f64
    }

    fn median(values: &[f64]) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Every condition with its name.
fn conditions() -> Vec<(String, Conditions)> {
    let mut all: Vec<(String, Conditions)> = Vec::new();
    for rate_hz in [50.0, 100.0, 200.0, 250.0] {
        all.push((format!("mixture, {rate_hz} Hz"), Conditions { rate_hz, ..PLAIN }));
    }
    for shape in SHAPES {
        for rate_hz in [100.0, 250.0] {
            let c = Conditions { rate_hz, shape: Some(shape), turning: false, ..PLAIN };
            all.push((format!("{shape:?}, {rate_hz} Hz"), c));
        }
    }
    for rate_hz in [100.0, 250.0] {
        let at = Conditions { rate_hz, ..PLAIN };
        let mut more = |name: &str, c: Conditions| all.push((format!("{name}, {rate_hz} Hz"), c));
        more("noise 3 °/s, bias 5 °/s", Conditions { noise_dps: 3.0, bias_dps: 5.0, ..at });
        more("noise 8 °/s, bias 10 °/s", Conditions { noise_dps: 8.0, bias_dps: 10.0, ..at });
        more("jitter 2 ms", Conditions { jitter_ms: 2.0, ..at });
        more("whole ms", Conditions { whole_ms: true, ..at });
        more("loss 5 %", Conditions { loss: 0.05, ..at });
        more("bursts of 70 ms", Conditions { bursts: (20.0, 0.07), ..at });
        more("bursts of 300 ms", Conditions { bursts: (8.0, 0.3), ..at });
        more("clocks 3 ms, said", Conditions { sync_ms: 3.0, ..at });
        // Stated to be perfect: nothing but the peaks' own uncertainty is left.
        more("perfect clocks, said", Conditions { sync_ms: 1e-6, ..at });
        more("perfect clocks, split", Conditions { sync_ms: 1e-6, shape: Some(Shape::Split), ..at });
        more("perfect clocks, noise 3 °/s", Conditions { sync_ms: 1e-6, noise_dps: 3.0, ..at });
        more("perfect clocks, narrow", Conditions { sync_ms: 1e-6, width_ms: (20.0, 40.0), ..at });
        more("perfect clocks, clipped", Conditions { sync_ms: 1e-6, fastest_dps: (2200.0, 4000.0), ..at });
        more("clocks 2 ms, unsaid", Conditions { unsaid_ms: 2.0, ..at });
        more("drift 20 ppm, unsaid", Conditions { drift_ppm: 20.0, ..at });
        more("clipped at 2000 °/s", Conditions { fastest_dps: (2200.0, 4000.0), ..at });
        more("clipped at 500 °/s", Conditions { limit_dps: 500.0, ..at });
        more("narrow pulses", Conditions { width_ms: (20.0, 40.0), ..at });
        more("wide pulses", Conditions { width_ms: (80.0, 140.0), ..at });
        more("slow swings", Conditions { fastest_dps: (350.0, 700.0), ..at });
    }
    // Behind the others: seeds go by place.
    for rate_hz in [100.0, 200.0, 250.0] {
        for ring_dps in [200.0, 400.0] {
            let c = Conditions { rate_hz, ring_dps, hit_after_s: 0.008, ..PLAIN };
            all.push((format!("a hit rings at {ring_dps} °/s, {rate_hz} Hz"), c));
        }
        let c = Conditions { rate_hz, shape: Some(Shape::Split), lean: (2.2, 3.0), ..PLAIN };
        all.push((format!("steep on one side, {rate_hz} Hz"), c));
        all.push((format!("perfect clocks, steep on one side, {rate_hz} Hz"), Conditions { sync_ms: 1e-6, ..c }));
        let c = Conditions { rate_hz, shape: Some(Shape::Flat), ..PLAIN };
        all.push((format!("flat tops, {rate_hz} Hz"), c));
        all.push((format!("perfect clocks, flat tops, {rate_hz} Hz"), Conditions { sync_ms: 1e-6, ..c }));
        for ring_dps in [300.0, 800.0] {
            let c = Conditions { rate_hz, ring_dps, hit_after_s: 0.005, sync_ms: 1e-6, ..PLAIN };
            all.push((format!("perfect clocks, a hit rings at {ring_dps} °/s, {rate_hz} Hz"), c));
        }
    }
    for rate_hz in [100.0, 200.0, 250.0] {
        let c = Conditions { rate_hz, sync_ms: 3.0, shoulder_off_ms: 15.0, ..PLAIN };
        all.push((format!("one clock off by 15 ms, said, {rate_hz} Hz"), c));
    }
    all
}

/// Prints the coverage of every condition:
/// `cargo test --release -p volant-pipelines coverage_table -- --ignored --nocapture`.
#[test]
#[ignore = "a table for people; the tests beside it hold what it shows"]
#[expect(clippy::disallowed_methods, reason = "a table for people, who choose its rows")]
fn coverage_table() {
    let sessions: u64 = std::env::var("SESSIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    eprintln!(
        "{:<34} {:>6} {:>6} {:>7} {:>7} {:>9} {:>7} {:>7} {:>9}",
        "condition", "found", "stated", "covered", "width", "resolved", "median", "p95", "wrong way"
    );
    let only = std::env::var("ONLY").unwrap_or_default();
    for (name, c) in conditions().into_iter().filter(|(name, _)| name.contains(&only)) {
        let mut tally = Tally::default();
        for seed in 0..sessions {
            tally.add(&session(1000 + seed, 25, &c));
        }
        let mut errors = tally.errors_ms.clone();
        errors.sort_by(f64::total_cmp);
        let mut line = String::new();
        write!(
            line,
            "{name:<34} {:>5.1}% {:>5.1}% {:>6.1}% {:>7.1} {:>8.1}% {:>7.2} {:>7.2} {:>9}",
            100.0 * tally.found as f64 / tally.planted as f64,
            100.0 * tally.stated as f64 / tally.delays.max(1) as f64,
            100.0 * tally.coverage(),
            Tally::median(&tally.widths_ms),
            100.0 * tally.resolved as f64 / tally.delays.max(1) as f64,
            Tally::median(&tally.errors_ms),
            errors.get(errors.len() * 95 / 100).copied().unwrap_or(f64::NAN),
            tally.wrong_sign,
        )
        .unwrap();
        eprintln!("{line}");
    }
}

/// What is promised for every condition: 95% of the planted delays lie in their stated intervals, no resolved delay points
/// the wrong way more than once in two hundred, and intervals are not wide for nothing.
#[test]
fn intervals_hold_what_they_state() {
    use rayon::prelude::*;
    let judged: Vec<(String, Conditions, Tally)> = conditions()
        .into_par_iter()
        .enumerate()
        .map(|(index, (name, c))| {
            let mut tally = Tally::default();
            tally.add(&session(7000 + index as u64, 12, &c));
            (name, c, tally)
        })
        .collect();
    let mut all = Tally::default();
    for (name, c, tally) in &judged {
        assert!(tally.stated * 10 >= tally.delays * 7, "{name}: {} of {}", tally.stated, tally.delays);
        // Clocks are drawn once a session: three differences say little about one condition alone.
        let clocks = c.sync_ms > 0.1 || c.unsaid_ms > 0.0;
        // A flat top's summit is hardly anywhere: 93 % of larger numbers (docs/intervals.md).
        let flat = c.shape == Some(Shape::Flat);
        let least = match (clocks, flat) {
            (true, _) => 0.6,
            (false, true) => 0.88,
            (false, false) => 0.95,
        };
        assert!(tally.coverage() >= least, "{name}: {} of {} inside", tally.inside, tally.stated);
        let wide = name.contains("clipped") || c.noise_dps > 5.0 || c.rate_hz < 100.0 || c.shoulder_off_ms > 0.0;
        let width = Tally::median(&tally.widths_ms);
        let periods = if c.lean.1 > 2.0 || flat { 5.0 } else { 4.0 };
        assert!(wide || width < periods * f64::max(1e3 / c.rate_hz, 6.0), "{name}: {width} ms wide");
        // Slow ones are no faster than what an idle hand does with a racket.
        if !name.contains("slow") {
            all.planted += tally.planted;
            all.found += tally.found;
        }
        all.stated += tally.stated;
        all.inside += tally.inside;
        all.resolved += tally.resolved;
        all.wrong_sign += tally.wrong_sign;
    }
    assert!(all.found * 100 >= all.planted * 97, "{} of {} found", all.found, all.planted);
    assert!(all.stated > 1200 && all.coverage() >= 0.97, "{} of {}", all.inside, all.stated);
    assert!(all.wrong_sign * 200 <= all.resolved, "{} of {}", all.wrong_sign, all.resolved);
}

/// A recording of a single swing has as much to say about it as a long one.
#[test]
fn one_swing_is_enough() {
    let mut tally = Tally::default();
    for seed in 0..15 {
        let rate_hz = [100.0, 200.0, 250.0][seed as usize % 3];
        tally.add(&session(9000 + seed, 1, &Conditions { rate_hz, ..PLAIN }));
    }
    assert!(tally.found * 10 >= tally.planted * 9, "{} of {} found", tally.found, tally.planted);
    assert!(tally.stated * 10 >= tally.delays * 9 && tally.coverage() >= 0.95, "{} of {}", tally.inside, tally.stated);
}

/// The session's interval holds the median of the planted delays.
#[test]
fn the_sessions_interval_holds_the_median() {
    let (mut inside, mut all) = (0, 0);
    for seed in 0..12 {
        let c = Conditions {
            rate_hz: [100.0, 200.0][seed as usize % 2],
            sync_ms: [1e-6, 2.0][seed as usize / 2 % 2],
            ..PLAIN
        };
        let session = session(9500 + seed, 15, &c);
        let found = analyze(&session.track, Params::builtin(), None);
        for (i, pair) in crate::report::PAIRS.iter().enumerate() {
            let mut planted: Vec<f64> = session.planted.iter().map(|peaks| peaks[i + 1] - peaks[i]).collect();
            let truth = crate::calibrate::median(&mut planted).unwrap();
            let end = |end: &str| found.session.metrics[&format!("delay_{pair}_session_{end}_ms")];
            all += 1;
            inside += usize::from((end("low")..=end("high")).contains(&truth));
        }
    }
    assert!(inside * 100 >= all * 94, "{inside} of {all}");
}
