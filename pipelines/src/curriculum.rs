//! Generated players to train on: sessions of the generator with their truth as marks.
//!
//! No public recordings with a permissive licence hold all strokes of badminton with sensors on wrist and racket. What
//! a model learns here is what the generator believes about strokes; its card must say so.

use schemas::Track;

use crate::synth::{AccUnit, FullScale, Plan, Rallies, Style, SynthSpec, generate};
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

fn thinned(track: &Track, every: usize) -> Track {
    let mut out = Track { sync_error_ns: track.sync_error_ns, ..Track::default() };
    for (role, sensor) in track.iter() {
        if let Some(kept) = out.get_or_insert(role) {
            for i in (0..sensor.len()).step_by(every.max(1)) {
                kept.push(sensor.t_ns[i], sensor.acc[i], sensor.gyro[i], sensor.angle[i]);
            }
        }
    }
    out
}
