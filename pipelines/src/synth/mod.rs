//! Generated sessions of four sensors with planted truth, for tests, benches, demonstrations and training.
//!
//! A player is four rigid segments in a row (pelvis, upper arm, forearm, racket). Each stroke turns every segment back,
//! forth and on (three pulses about axes of its class), with peak rates that grow outward and peak times that are
//! planted; between strokes there is footwork, walking, fidgeting and picking up shuttles. Orientation is integrated from the
//! angular velocity, specific force follows from gravity, the body's acceleration, the lever arms along the chain and
//! the hit. Each sensor then sees that through its mounting, bias, noise, full scale, resolution and clock, and frames
//! get lost.
//!
//! Everything is a function of the [`SynthSpec`]: no clock, no other randomness. Changing one part of a specification
//! (mounting, noise, clock, loss, sensors present) leaves the planted motion and its truth as they were.
//!
//! What is absent: the body has no left half, segments do not bend, the shuttle does not fly, and nobody gets tired.
//!
//! ```
//! use volant_pipelines::synth::{SynthSpec, generate};
//!
//! let session = generate(&SynthSpec { duration_s: 20.0, ..SynthSpec::new(7) });
//! assert!(!session.truth.strokes.is_empty());
//! assert_eq!(session.track.iter().count(), 4);
//! ```

mod background;
mod motion;
mod plan;
mod random;
mod rotation;
mod strokes;
#[cfg(test)]
mod tests;
mod vector;

use schemas::{StrokeKind, Track};

pub use self::background::Activity;
pub use self::plan::PlannedStroke;
use self::random::{Normals, stream};
pub use self::rotation::Rotation;

/// Standard gravity, m/s².
pub const GRAVITY_MPS2: f64 = 9.80665;

/// The unit of generated accelerations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccUnit {
    /// As the real sensors send it.
    G,
    /// As recording files have it.
    Mps2,
}

/// What is played.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Rallies with rests between them, drawn from the seed.
    Rallies(Rallies),
    /// Exactly these strokes, and stillness between them. Leave at least 0.9 s between impacts: closer swings run into
    /// each other and their planted peaks are not the peaks of the sum any more.
    Strokes(Vec<PlannedStroke>),
}

/// How rallies are drawn. Ranges are (lowest, highest), evenly drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Rallies {
    /// The classes that come up, each equally often.
    pub kinds: Vec<StrokeKind>,
    /// Own strokes in a rally.
    pub strokes: (u32, u32),
    /// From one own impact to the next, s. At least 0.9.
    pub gap_s: (f64, f64),
    /// From the last impact of a rally to the first of the next, s.
    pub rest_s: (f64, f64),
    /// The first impact, s.
    pub lead_in_s: f64,
    /// Share of strokes that meet no shuttle, 0 to 1.
    pub shadow_share: f64,
    /// How often a rest has a shuttle picked up, 0 to 1.
    pub pick_ups: f64,
}

impl Default for Rallies {
    /// Club play: three to eight own strokes of every kind, 1.2 to 2 s apart, rests of 5 to 11 s.
    fn default() -> Self {
        Self {
            kinds: StrokeKind::ALL.into_iter().filter(|&kind| kind != StrokeKind::Other).collect(),
            strokes: (3, 8),
            gap_s: (1.2, 2.0),
            rest_s: (5.0, 11.0),
            lead_in_s: 3.0,
            shadow_share: 0.04,
            pick_ups: 0.35,
        }
    }
}

/// Who plays. The same style gives the same habits in every session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    /// The player.
    pub seed: u64,
    /// Mirrors left and right.
    pub left_handed: bool,
    /// How far players differ from the textbook and from each other: 0 not at all, 1 as people do.
    pub spread: f64,
}

/// The kinetic chain: delays between the peaks of angular velocity of neighbouring segments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chain {
    /// Waist to shoulder, shoulder to wrist, wrist to racket: mean and standard deviation over strokes, ms.
    pub delays_ms: [(f64, f64); 3],
    /// True: the racket leads and the waist comes last, with the same delays.
    pub reversed: bool,
}

impl Default for Chain {
    fn default() -> Self {
        Self { delays_ms: [(60.0, 9.0), (45.0, 7.0), (28.0, 5.0)], reversed: false }
    }
}

/// One sensor: how it is worn and how it errs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SensorSpec {
    /// How it is strapped on: turns vectors of the segment's axes into the sensor's.
    pub sensor_from_segment: Rotation,
    /// Constant error of the gyroscope, °/s, in the sensor's axes.
    pub gyro_bias_dps: [f64; 3],
    /// Constant error of the accelerometer, m/s², in the sensor's axes.
    pub acc_bias_mps2: [f64; 3],
    /// The sensor's clock shows this much more than the session's at its start, ms.
    pub clock_offset_ms: f64,
    /// And runs this much faster, parts per million.
    pub clock_drift_ppm: f64,
}

impl Default for SensorSpec {
    /// Aligned with its segment, without errors.
    fn default() -> Self {
        Self {
            sensor_from_segment: Rotation::IDENTITY,
            gyro_bias_dps: [0.0; 3],
            acc_bias_mps2: [0.0; 3],
            clock_offset_ms: 0.0,
            clock_drift_ppm: 0.0,
        }
    }
}

/// Random errors of every sensor: standard deviations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// °/s.
    pub gyro_dps: f64,
    /// m/s².
    pub acc_mps2: f64,
    /// Of the device's own angles, °.
    pub angle_deg: f64,
    /// Of the time stamps, ms. Stamps never decrease all the same.
    pub stamp_ms: f64,
}

/// What a sensor can express.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FullScale {
    /// Accelerations are clipped at ± this, g. Infinite: not at all.
    pub acc_g: f64,
    /// Angular velocities are clipped at ± this, °/s. Infinite: not at all.
    pub gyro_dps: f64,
    /// Values are rounded to 16 bits of the full scale (angles: of ±180°). Without effect on an infinite one.
    pub quantised: bool,
}

/// How frames get lost, as probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Of each single frame.
    pub frame: f64,
    /// Of each run of 30 frames over all sensors, as the firmware throws blocks away.
    pub block: f64,
}

/// A session to generate. Sensor arrays are in the order of [`schemas::SensorRole::CHAIN`].
#[derive(Clone, Debug, PartialEq)]
pub struct SynthSpec {
    /// Of everything that is drawn, except the player's style.
    pub seed: u64,
    /// Length, s.
    pub duration_s: f64,
    /// Which sensors are worn.
    pub present: [bool; 4],
    /// Samples a second and sensor on the sensor's own clock, 50 to 400; taken within 1 to 1000.
    pub rate_hz: f64,
    /// Of the generated accelerations.
    pub unit: AccUnit,
    /// What is played.
    pub plan: Plan,
    /// Who plays.
    pub style: Style,
    /// How the segments follow each other.
    pub chain: Chain,
    /// The four sensors.
    pub sensors: [SensorSpec; 4],
    /// Random errors.
    pub noise: Noise,
    /// Limits and resolution.
    pub full_scale: FullScale,
    /// Lost frames.
    pub loss: Loss,
    /// Whether the devices send angles; without, they are NaN.
    pub angles: bool,
}

impl SynthSpec {
    /// Ten minutes of club play as real sensors see it: four at 100 Hz, strapped on by hand (up to 20° off), with bias,
    /// noise, ±16 g and ±2000 °/s in 16 bits, clocks a few ms and tens of ppm apart, little loss. Accelerations in m/s².
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut normals = Normals::new(stream(seed, 3));
        let mut sensor = || SensorSpec {
            sensor_from_segment: Rotation::from_vector_rad(
                normals.vector(1.0).map(|draw| (9.0 * draw.clamp(-2.0, 2.0)).to_radians()),
            ),
            gyro_bias_dps: normals.vector(0.6),
            acc_bias_mps2: normals.vector(0.05),
            clock_offset_ms: 3.0 * normals.next(),
            clock_drift_ppm: 15.0 * normals.next(),
        };
        Self {
            sensors: std::array::from_fn(|_| sensor()),
            noise: Noise { gyro_dps: 0.25, acc_mps2: 0.03, angle_deg: 0.05, stamp_ms: 0.25 },
            full_scale: FullScale { acc_g: 16.0, gyro_dps: 2000.0, quantised: true },
            loss: Loss { frame: 0.0003, block: 0.0007 },
            ..Self::ideal(seed)
        }
    }

    /// The same session through perfect sensors, aligned with their segments.
    #[must_use]
    pub fn ideal(seed: u64) -> Self {
        Self {
            seed,
            duration_s: 600.0,
            present: [true; 4],
            rate_hz: 100.0,
            unit: AccUnit::Mps2,
            plan: Plan::Rallies(Rallies::default()),
            style: Style { seed, left_handed: false, spread: 1.0 },
            chain: Chain::default(),
            sensors: [SensorSpec::default(); 4],
            noise: Noise { gyro_dps: 0.0, acc_mps2: 0.0, angle_deg: 0.0, stamp_ms: 0.0 },
            full_scale: FullScale { acc_g: f64::INFINITY, gyro_dps: f64::INFINITY, quantised: false },
            loss: Loss { frame: 0.0, block: 0.0 },
            angles: true,
        }
    }

    /// With every sensor strapped on in a random orientation, drawn from `seed`.
    #[must_use]
    pub fn with_random_mounting(mut self, seed: u64) -> Self {
        let mut rng = stream(seed, 4);
        for sensor in &mut self.sensors {
            sensor.sensor_from_segment = Rotation::random(&mut rng);
        }
        self
    }
}

/// What really happened in one stroke. Times are ms on the session's clock; arrays are in chain order and filled for
/// absent sensors too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TruthStroke {
    /// The racket arm begins its backswing.
    pub start_ms: f64,
    /// The racket is fastest and, with `has_impact`, meets the shuttle.
    pub impact_ms: f64,
    /// The racket arm ends its follow-through.
    pub end_ms: f64,
    /// What was played.
    pub kind: StrokeKind,
    /// Played on the backhand.
    pub backhand: bool,
    /// False for a shadow stroke.
    pub has_impact: bool,
    /// When each segment's angular rate is largest within the stroke.
    pub peak_ms: [f64; 4],
    /// That rate, °/s, before clipping, bias and noise.
    pub peak_gyro_dps: [f64; 4],
}

/// A spell of movement that is no stroke.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TruthSpell {
    /// What it was.
    pub activity: Activity,
    /// ms on the session's clock.
    pub start_ms: f64,
    /// ms on the session's clock.
    pub end_ms: f64,
}

/// What one sensor really did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TruthSensor {
    /// Its mounting, bias and clock, as specified.
    pub spec: SensorSpec,
    /// Frames measured.
    pub measured: usize,
    /// Frames lost of these.
    pub lost: usize,
    /// Frames (lost ones included) with an axis at the limit of the gyroscope.
    pub gyro_saturated: usize,
    /// Frames (lost ones included) with an axis at the limit of the accelerometer.
    pub acc_saturated: usize,
}

/// What was planted.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// In time order.
    pub strokes: Vec<TruthStroke>,
    /// In the order of their starts; a rally's footwork covers its strokes.
    pub spells: Vec<TruthSpell>,
    /// In chain order; zero counts for absent sensors.
    pub sensors: [TruthSensor; 4],
}

/// A generated session.
#[derive(Clone, Debug, PartialEq)]
pub struct SynthSession {
    /// The samples at their true instants on the session's clock.
    pub track: Track,
    /// The same samples' time stamps on each sensor's own clock, ms; empty for absent sensors.
    pub device_ms: [Vec<f64>; 4],
    /// What was planted.
    pub truth: Truth,
}

impl SynthSession {
    /// The samples at the times that their sensors claim: with offset, drift and jitter.
    #[must_use]
    pub fn device_track(&self) -> Track {
        let mut track = self.track.clone();
        for (sensor, device_ms) in track.sensors.iter_mut().zip(&self.device_ms) {
            if let Some(sensor) = sensor {
                sensor.t_ns = device_ms.iter().map(|ms| (ms * 1e6).round() as i64).collect();
            }
        }
        track
    }
}

/// Generates a session. Ten minutes of four sensors at 200 Hz take well under two seconds.
#[must_use]
pub fn generate(spec: &SynthSpec) -> SynthSession {
    motion::generate(spec)
}
