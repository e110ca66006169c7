//! Every figure of an analysis: its unit, formula, source and when it holds. `docs/figures.md` is made from this table, a
//! test keeps the two and the code in step, and rules of advice may name nothing else.

use std::fmt::Write as _;

/// What a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// One stroke: in `strokes[].metrics`.
    Stroke,
    /// The session: in `session.metrics`, or where the name has a dot, at that path of `session`.
    Session,
}

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its name in JSON. `{role}` stands for waist, shoulder, wrist, racket; `{pair}` for two neighbours of the chain
    /// (`waist_shoulder`, `shoulder_wrist`, `wrist_racket`); `{trend}` and `{zone}` for the words of its formula.
    pub name: &'static str,
    /// What it is of.
    pub per: Per,
    /// Unit; 1 for a plain number.
    pub unit: &'static str,
    /// What it says and how it is computed.
    pub formula: &'static str,
    /// Where the formula or its reading comes from.
    pub source: &'static str,
    /// When it is there; else it is absent.
    pub valid: &'static str,
}

const fn stroke(
    name: &'static str,
    unit: &'static str,
    formula: &'static str,
    source: &'static str,
    valid: &'static str,
) -> Figure {
    Figure { name, per: Per::Stroke, unit, formula, source, valid }
}

const fn session(
    name: &'static str,
    unit: &'static str,
    formula: &'static str,
    source: &'static str,
    valid: &'static str,
) -> Figure {
    Figure { name, per: Per::Session, unit, formula, source, valid }
}

const SEQUENCE: &str = "kinematic-sequence practice; Lopez de Subijana & Navarro (tennis serve)";
const OWN: &str = "own definition";
const PEAKS: &str =
    "both sensors have a gyro and a peak: inside the window, in no hole longer than calibrate.gap_flag_ms";
const TURNED: &str = "the sensor has acceleration and gyro, no hole in the swing";
const TRENDS: &str = "ten strokes of classes with five or more";
const RIGID: &str = "rigid body; Phomsoupha et al. 2022 accept such speeds as relative";

/// Every figure, in the order of the page.
pub const FIGURES: &[Figure] = &[
    stroke("duration_ms", "ms", "end − start of the swing", OWN, "always"),
    stroke(
        "acceleration_phase_ms",
        "ms",
        "from the last change of sign of the rotation about the swing's axis (first principal axis of ω over the 0.15 s before \
         impact) to impact",
        "Miller et al. 2020 (jump smash: a shorter phase goes with a faster racket)",
        "gyro on the swing's sensor; that axis holds 60% of the rotation; no hole; at most 0.8 s",
    ),
    stroke("swing_strength", "1", "smoothed energy score e at the swing's peak", OWN, "always"),
    stroke(
        "impact_felt",
        "0 or 1",
        "the jerk near the fastest rotation stands out of the swing's median jerk",
        OWN,
        "always",
    ),
    stroke(
        "impact_jerk_mps3",
        "m/s³",
        "largest ‖Δa‖/Δt near the fastest rotation",
        "BadminSense locates impact by vibration",
        "impact_felt is 1: a shadow stroke or a miss has none",
    ),
    stroke("saturated_share", "share", "samples of the swing with a component at the sensor's limit", OWN, "always"),
    stroke("gap_share", "share", "grid points of the swing interpolated across a hole", OWN, "always"),
    stroke(
        "peak_gyro_dps",
        "°/s",
        "largest ‖ω‖ of the swing's sensor",
        OWN,
        "gyro on it; a lower bound when saturated",
    ),
    stroke(
        "peak_accel_mps2",
        "m/s²",
        "largest ‖a − g⃗‖ of the swing's sensor, g⃗ from the orientation filter; without a gyro the largest |‖a‖ − g|",
        OWN,
        "acceleration of known unit; a lower bound when saturated",
    ),
    stroke("mean_dynamic_accel_mps2", "m/s²", "mean ‖a − g⃗‖ over the swing", OWN, "acceleration and gyro"),
    stroke(
        "smoothness_sparc",
        "1",
        "−arc length of the normalised spectrum of ‖ω‖ from the swing's start to 20 ms before impact, up to \
         kinetics.sparc_cutoff_hz and kinetics.sparc_threshold; nearer 0 is smoother",
        "Balasubramanian et al. 2015",
        "gyro at twice the cut-off or more",
    ),
    stroke(
        "smoothness_ldlj",
        "1",
        "−ln(T³/ω_peak² ∫ (d²ω/dt²)² dt) over the same stretch; nearer 0 is smoother",
        "Balasubramanian et al. 2015; Melendez-Calderon et al. 2021 on its limits with IMUs",
        "as smoothness_sparc",
    ),
    stroke(
        "smoothness_sparc_accel",
        "1",
        "the same arc length of |‖a‖ − g|",
        "Balasubramanian et al. 2015 (for accelerometers)",
        "acceleration of known unit and no gyro, at twice the cut-off or more",
    ),
    stroke(
        "smoothness_ldlj_accel",
        "1",
        "−ln(T/a_peak² ∫ ‖da/dt‖² dt), a_peak the largest |‖a‖ − g|",
        "Melendez-Calderon et al. 2021",
        "as smoothness_sparc_accel",
    ),
    stroke(
        "peak_gyro_{role}_dps",
        "°/s",
        "height of the summit of ‖ω‖: weighted parabola on the samples",
        SEQUENCE,
        "gyro; a summit above kinetics.peak_dps_min",
    ),
    stroke("peak_before_impact_{role}_ms", "ms", "impact − time of that summit", SEQUENCE, "as peak_gyro_{role}_dps"),
    stroke(
        "peak_clipped_{role}",
        "0 or 1",
        "the gyro stood at its limit at the summit: its time is the plateau's middle, or where the other components show it; the interval is widened by the plateau",
        OWN,
        "as peak_gyro_{role}_dps",
    ),
    stroke(
        "delay_{pair}_ms",
        "ms",
        "difference of the two summits' times; positive: the outer segment is later",
        SEQUENCE,
        "both summits, and resolved: at least kinetics.resolved_sigmas (2) standard deviations from 0",
    ),
    stroke(
        "delay_{pair}_share",
        "share",
        "the same as a share of the time from the swing's start to its impact",
        SEQUENCE,
        "as delay_{pair}_ms",
    ),
    stroke(
        "delay_{pair}_low_ms",
        "ms",
        "lower end of the delay's 95% interval, delay − 2σ with σ² = σ_a² + σ_b² + sync_a² + sync_b²; σ of a summit: dt²/12, noise through \
         the fit, jitter, move under a wider fit, plateau²/12, hole²/12, and an equally high hill",
        "√(2(dt²/12 + sync²)) is its least value; measured coverage: `docs/intervals.md`",
        PEAKS,
    ),
    stroke(
        "delay_{pair}_high_ms",
        "ms",
        "upper end of the same interval; also stated when 0 lies inside",
        "as the lower end",
        PEAKS,
    ),
    stroke(
        "delay_uncertainty_ms",
        "ms",
        "largest σ of the swing's delays (one standard deviation)",
        "as the interval",
        PEAKS,
    ),
    stroke(
        "xcorr_{pair}_ms",
        "ms",
        "shift at which the two curves ‖ω‖ are most alike: argmax of Pearson's r within ±200 ms, refined by a parabola; reads \
         flanks, so it survives saturation",
        "standard signal practice",
        "r at least 0.7, resolved as delay_{pair}_ms, no hole around the swing",
    ),
    stroke(
        "xcorr_{pair}_strength",
        "−1 to 1",
        "r at that shift",
        "standard signal practice",
        "both gyros, no hole around the swing",
    ),
    stroke(
        "order_tau",
        "−1 to 1",
        "Kendall's τ between the order of the summits and the chain: (outward − inward)/all pairs; a pair that is not resolved \
         is a tie and counts for neither",
        SEQUENCE,
        "one resolved pair",
    ),
    stroke(
        "speedup_{pair}",
        "1",
        "peak rate of the outer by that of the inner segment; above 1 going outward",
        "Uplift speed-up metrics",
        "both summits; a bound when one is clipped",
    ),
    stroke(
        "braking_{pair}",
        "1",
        "1 − rate of the inner segment at the outer's summit by its own peak: how far it has braked",
        OWN,
        "both summits",
    ),
    stroke(
        "energy_index_{role}",
        "index (J)",
        "½ I ω_peak² with textbook moments of inertia (kinetics.waist_inertia_kgm2, 0.35, 0.06, 0.012 kg·m²)",
        "Lopez de Subijana & Navarro; Brocherie & Dinu 2022",
        "the segment's summit; an index, not joules handed over",
    ),
    stroke(
        "energy_step_{pair}",
        "1",
        "energy index of the outer by that of the inner segment",
        "as the index",
        "both summits",
    ),
    stroke(
        "energy_waist_j",
        "J",
        "½ I max‖ω_waist‖² up to 20 ms before impact",
        "legacy report",
        "gyro on the waist, no hole",
    ),
    stroke("energy_wrist_j", "J", "½ m max‖v_wrist‖² up to 20 ms before impact", "legacy report", "as wrist_speed_mps"),
    stroke(
        "wrist_speed_mps",
        "m/s",
        "largest ‖∫(a − g⃗)dt‖ from rest at the swing's start, in axes carried along by the gyro",
        OWN,
        "acceleration and gyro on the wrist, no hole, at most 2 s",
    ),
    stroke("energy_ratio", "0 to 1", "min(energy_wrist_j / energy_waist_j, 1)", "legacy report", "both energies"),
    stroke(
        "turn_{role}_deg",
        "°",
        "range of the turn about the vertical since the swing's start, unwrapped (twist of q(t) q(start)⁻¹)",
        "swing-twist decomposition; filter after VQF (Laidig & Seel 2023)",
        TURNED,
    ),
    stroke(
        "tilt_{role}_deg",
        "°",
        "largest tilt against the swing's start (swing of q(t) q(start)⁻¹)",
        "as the turn",
        TURNED,
    ),
    stroke(
        "racket_roll_deg",
        "°",
        "range of the racket's turn about its shaft in the swing: forearm pronation and supination",
        "swing-twist decomposition",
        "as turn_racket_deg, and the shaft is known (racket_shaft_known)",
    ),
    stroke(
        "joint_{pair}_deg",
        "°",
        "largest turn of the outer against the inner segment since the swing's start, from relative quaternions",
        "swing-twist decomposition",
        "the devices' own angles are good on both sensors: headings must be comparable",
    ),
    stroke(
        "separation_waist_shoulder_deg",
        "°",
        "X-factor: range of (shoulder's − waist's turn about the vertical) from the swing's start to impact",
        "King et al. 2020 (larger separation, faster shuttle)",
        "turns of both; a trunk figure only if the shoulder sensor sits on the trunk, not on the arm",
    ),
    stroke(
        "separation_waist_shoulder_dps",
        "°/s",
        "fastest change of that separation",
        "King et al. 2020",
        "as the separation",
    ),
    stroke(
        "turn_rate_waist_dps",
        "°/s",
        "vertical component of the pelvis' rotation at its summit; positive to the left",
        OWN,
        "acceleration and gyro on the waist, its summit",
    ),
    stroke(
        "racket_head_speed_mps",
        "m/s",
        "largest ‖ω − (ω·s)s‖ · kinetics.racket_radius_m, s the shaft; the whole rotation where the shaft is unknown",
        RIGID,
        "gyro on the racket, no hole; a lower bound when racket_speed_clipped is 1",
    ),
    stroke(
        "racket_head_speed_low_mps",
        "m/s",
        "least believable speed: radius −4%, gyro scale −2%, and 40% off where the shaft is unknown",
        OWN,
        "as the speed",
    ),
    stroke(
        "racket_head_speed_high_mps",
        "m/s",
        "largest believable speed: radius +6%, gyro scale +2%, and when clipped both flanks drawn on to the plateau's middle",
        OWN,
        "as the speed",
    ),
    stroke(
        "racket_shaft_known",
        "0 or 1",
        "the racket's acceleration around the swings has one direction (75% of its square)",
        OWN,
        "as the speed",
    ),
    stroke("racket_speed_clipped", "0 or 1", "the racket's gyro stood at its limit in the swing", OWN, "as the speed"),
    stroke(
        "rom_waist_deg",
        "°",
        "range of the device's yaw in the swing, unwrapped",
        "legacy report",
        "the device sends angles",
    ),
    stroke(
        "rom_shoulder_deg",
        "°",
        "range of the device's pitch in the swing",
        "legacy report",
        "the device sends angles",
    ),
    stroke(
        "rom_wrist_deg",
        "°",
        "range of the device's roll in the swing, unwrapped",
        "legacy report",
        "the device sends angles",
    ),
    stroke(
        "template_correlation",
        "−1 to 1",
        "Pearson's r of ‖ω‖, 0.4 s before to 0.2 s after impact, with the mean curve of the player's other strokes of the class",
        "own-template practice",
        "five strokes of a class with a name, gyro, no hole",
    ),
    session(
        "phase_delay.{legacy_pair}",
        "s",
        "median of the delays of all strokes, resolved or not",
        "legacy report",
        "0 outside of delay_{pair}_session_low_ms to _high_ms",
    ),
    session(
        "delay_{pair}_session_low_ms",
        "ms",
        "lower end of the 95% interval of that median: spread (1.2533 σ/√n), clocks, and half of one stroke's uncertainty",
        OWN,
        "one stroke with the delay",
    ),
    session("delay_{pair}_session_high_ms", "ms", "upper end", OWN, "one stroke with the delay"),
    session("delay_{pair}_ms_spread", "ms", "standard deviation within classes", SEQUENCE, "three strokes of a class"),
    session(
        "delay_{pair}_resolved_share",
        "share",
        "resolved among the strokes with both peaks",
        OWN,
        "one stroke with both peaks",
    ),
    session("energy_ratio", "0 to 1", "median of the strokes' energy ratios", "legacy report", "one stroke with it"),
    session(
        "rom_data.{legacy_role}",
        "°",
        "smallest arc that holds the device's angle over the session: waist yaw, shoulder pitch, wrist roll",
        "legacy report",
        "the device sends angles",
    ),
    session(
        "scores.{score}",
        "0 to 100",
        "closeness to the ideals of [report]",
        "legacy report",
        "every figure of the score",
    ),
    session("stroke_count", "1", "strokes", OWN, "always"),
    session("strokes_per_min", "1/min", "strokes by duration", OWN, "a duration"),
    session("racket_head_speed_mps_max", "m/s", "largest of the strokes", RIGID, "one stroke with it"),
    session("peak_gyro_dps_max", "°/s", "largest of the strokes", OWN, "one stroke with it"),
    session("peak_gyro_variation", "1", "standard deviation within classes by mean", OWN, "three strokes of a class"),
    session(
        "racket_head_speed_variation",
        "1",
        "standard deviation within classes by mean",
        OWN,
        "three strokes of a class with a racket-head speed",
    ),
    session("impact_felt_share", "share", "strokes with a felt impact", OWN, "one stroke"),
    session(
        "rally_gap_s",
        "s",
        "pause that parts rallies: valley of the density of log gaps; else kinetics.rally_gap_s",
        OWN,
        "one stroke",
    ),
    session("rally_count", "1", "rallies", OWN, "one stroke"),
    session("strokes_per_rally", "1", "strokes by rallies", OWN, "one stroke"),
    session("longest_rally_strokes", "1", "strokes of the longest rally", OWN, "one stroke"),
    session("longest_rally_s", "s", "first to last impact of the longest rally", OWN, "a rally of two strokes"),
    session("rally_s_median", "s", "median of first to last impact", OWN, "a rally of two strokes"),
    session("work_rest_ratio", "1", "time inside rallies by time between them", "common load practice", "both above 0"),
    session(
        "stroke_interval_ms_median",
        "ms",
        "median time from impact to impact inside rallies",
        OWN,
        "a rally of two strokes",
    ),
    session(
        "trend_{trend}_per_10min",
        "share",
        "Theil-Sen slope over ten minutes of peak_gyro, racket_head_speed, smoothness_sparc, acceleration_phase, each as a \
         share of its class's median",
        "Theil 1950, Sen 1968",
        TRENDS,
    ),
    session(
        "trend_{trend}_p",
        "0 to 1",
        "Mann-Kendall: how probable such a trend is by chance",
        "Mann 1945, Kendall 1975",
        TRENDS,
    ),
    session(
        "trend_delay_{pair}_spread_per_10min",
        "share",
        "Theil-Sen slope over ten minutes of a delay's distance from its class's median, as a share of the median distance; \
         above 0: the timing gets less even",
        "Theil 1950, Sen 1968",
        TRENDS,
    ),
    session(
        "trend_delay_{pair}_spread_p",
        "0 to 1",
        "Mann-Kendall: how probable such a trend is by chance",
        "Mann 1945, Kendall 1975",
        TRENDS,
    ),
    session(
        "change_{trend}_stroke",
        "index",
        "stroke (from 0) at which a CUSUM against the first twenty alarms (slack ½σ, threshold 5σ)",
        "Page 1954",
        "thirty strokes, and an alarm",
    ),
    session("change_{trend}_direction", "−1 or 1", "fell or rose", "Page 1954", "thirty strokes, and an alarm"),
    session(
        "symmetry_waist_left_right",
        "−2 to 2",
        "(L − R)/(½(L + R)) of the medians of turn_rate_waist_dps to either side",
        "symmetry index practice",
        "five strokes on either side; limbs cannot be compared with one arm instrumented",
    ),
    session(
        "symmetry_forehand_backhand",
        "−2 to 2",
        "the same of peak_gyro_dps of classes named forehand and backhand",
        "symmetry index practice",
        "five strokes of either, and a model that names sides",
    ),
    session(
        "player_load",
        "1",
        "Σ‖Δa‖/100 of the waist, a in g, steps of the working grid",
        "PlayerLoad (Catapult)",
        "acceleration on the waist",
    ),
    session(
        "load_dynamic_g_s",
        "g·s",
        "Σ of the mean ‖a − g⃗‖ of every second of the waist",
        "overall dynamic body acceleration (ODBA)",
        "acceleration and gyro on the waist",
    ),
    session("intensity_p95_g", "g", "95th percentile of those seconds", "common load practice", "a minute of them"),
    session(
        "intensity_zone_{zone}_share",
        "share",
        "seconds below 50%, to 70%, to 85% and above 85% of the own 95th percentile (zones 1 to 4)",
        "common load practice",
        "as the percentile",
    ),
];

const ROLES: [&str; 4] = ["waist", "shoulder", "wrist", "racket"];
const TREND_NAMES: [&str; 4] = ["peak_gyro", "racket_head_speed", "smoothness_sparc", "acceleration_phase"];

/// The names that a figure of the table stands for.
#[must_use]
pub fn names(figure: &Figure) -> Vec<String> {
    let words: (&str, &[&str]) = if figure.name.contains("{role}") {
        ("{role}", &ROLES)
    } else if figure.name.contains("{pair}") {
        ("{pair}", &crate::report::PAIRS)
    } else if figure.name.contains("{trend}") {
        ("{trend}", &TREND_NAMES)
    } else if figure.name.contains("{zone}") {
        ("{zone}", &["1", "2", "3", "4"])
    } else if figure.name.contains("{legacy_pair}") {
        ("{legacy_pair}", &["waist_to_shoulder", "shoulder_to_wrist", "wrist_to_racket"])
    } else if figure.name.contains("{legacy_role}") {
        ("{legacy_role}", &["waist", "shoulder", "wrist"])
    } else if figure.name.contains("{score}") {
        ("{score}", &["overall", "delay", "energy", "rom"])
    } else {
        return vec![figure.name.to_owned()];
    };
    words.1.iter().map(|word| figure.name.replace(words.0, word)).collect()
}

/// The entry of a figure's name, also of its median over the session (`…_median`) and of its percentile among the player's
/// earlier strokes (`…_percentile`, `…_percentile_median`).
///
/// ```
/// use volant_pipelines::{Per, figure};
///
/// assert_eq!(figure("delay_wrist_racket_ms", Per::Stroke).unwrap().unit, "ms");
/// assert_eq!(figure("order_tau_median", Per::Session).unwrap().name, "order_tau");
/// assert!(figure("happiness", Per::Stroke).is_none());
/// ```
#[must_use]
pub fn figure(name: &str, per: Per) -> Option<&'static Figure> {
    let exact = |name: &str, per: Per| {
        FIGURES.iter().find(|figure| figure.per == per && names(figure).iter().any(|known| known == name))
    };
    match per {
        Per::Stroke => exact(name, per).or_else(|| exact(name.strip_suffix("_percentile")?, Per::Stroke)),
        Per::Session => exact(name, per).or_else(|| {
            let of_strokes = name.strip_suffix("_median")?;
            figure(of_strokes, Per::Stroke)
        }),
    }
}

/// The page `docs/figures.md`.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Figures\n\n\
         Every figure of an analysis, made from the table in `pipelines/src/figures.rs`. A figure whose condition does not \
         hold is absent; `issues` says why. Intervals are stated at 95% and are `±2σ`.\n\n\
         `{role}` is waist, shoulder, wrist or racket; `{pair}` two neighbours of the chain: `waist_shoulder`, \
         `shoulder_wrist`, `wrist_racket`. Medians over the session end in `_median`, percentiles among the player's earlier \
         strokes of the same class in `_percentile` (0 to 100, from 20 earlier strokes on).\n\n\
         None of the chain's figures has been checked against motion capture: no public recording has all four sensors. They \
         are checked against simulated chains with planted truth.\n",
    );
    for (per, heading) in [(Per::Stroke, "Of one stroke"), (Per::Session, "Of the session")] {
        // Writing to a String cannot fail.
        write!(page, "\n## {heading}\n\n| figure | unit | what it is | source | there when |\n|---|---|---|---|---|\n")
            .expect("writing to a String cannot fail");
        for f in FIGURES.iter().filter(|figure| figure.per == per) {
            let cell = |text: &str| text.replace('|', "\\|");
            writeln!(
                page,
                "| `{}` | {} | {} | {} | {} |",
                f.name,
                f.unit,
                cell(f.formula),
                cell(f.source),
                cell(f.valid)
            )
            .expect("writing to a String cannot fail");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::MEDIANS;
    use crate::synth::{Plan, Rallies, SynthSpec, generate};
    use crate::{Model, Params, analyze};

    #[test]
    fn names_are_unique_and_every_cell_is_filled() {
        let mut seen = BTreeSet::new();
        for figure in FIGURES {
            for name in names(figure) {
                assert!(!name.contains('{'), "{name}");
                assert!(seen.insert((name.clone(), figure.per == Per::Stroke)), "{name} twice");
            }
            for cell in [figure.unit, figure.formula, figure.source, figure.valid] {
                assert!(!cell.is_empty() && !cell.contains("  "), "{}: {cell}", figure.name);
            }
        }
        for name in MEDIANS {
            assert!(figure(name, Per::Stroke).is_some(), "{name}");
        }
    }

    #[test]
    fn every_figure_of_an_analysis_is_in_the_table_and_the_other_way_round() {
        let mut seen: BTreeSet<(String, bool)> = BTreeSet::new();
        let rallies = Rallies { gap_s: (1.0, 1.6), rest_s: (6.0, 9.0), ..Rallies::default() };
        for (seed, angles) in [(81, true), (82, false)] {
            let plan = Plan::Rallies(rallies.clone());
            let spec = SynthSpec { duration_s: 240.0, plan, angles, ..SynthSpec::new(seed) };
            let mut track = generate(&spec).track;
            let found = analyze(&track, Params::builtin(), Some(Model::builtin()));
            track.sensors.iter_mut().flatten().for_each(|sensor| sensor.gyro.fill([f32::NAN; 3]));
            let without_gyro = analyze(&track, Params::builtin(), None);
            for name in found.strokes.iter().chain(&without_gyro.strokes).flat_map(|stroke| stroke.metrics.keys()) {
                assert!(figure(name, Per::Stroke).is_some(), "{name} of a stroke is not in the table");
                seen.insert((name.clone(), true));
            }
            for stroke in &found.strokes {
                for pair in crate::report::PAIRS {
                    let figure = |end: &str| stroke.metrics.get(&format!("delay_{pair}_{end}")).copied();
                    let share = figure("ms").map(|delay_ms| delay_ms / (stroke.impact_ms - stroke.start_ms));
                    let differ = share.zip(figure("share")).map(|(expected, found)| (expected - found).abs());
                    assert!(share.is_none() && figure("share").is_none() || differ.is_some_and(|off| off < 1e-6));
                }
            }
            // Players differ from stroke to stroke, but not by as much as they reach.
            assert!((0.001..0.5).contains(&found.session.metrics["racket_head_speed_variation"]));
            for name in found.session.metrics.keys() {
                assert!(figure(name, Per::Session).is_some(), "{name} of the session is not in the table");
                seen.insert((name.clone(), false));
            }
        }
        // What two good sessions cannot show: alarms of change, sides that this model does not name, paths outside of the
        // maps, and the shaft, which the generator's players turn too little about one point to show.
        let elsewhere =
            ["change_", "symmetry_forehand", "phase_delay.", "rom_data.", "scores.", "energy_ratio", "racket_roll_deg"];
        for figure in FIGURES {
            let known = names(figure);
            let shown = known.iter().any(|name| seen.contains(&(name.clone(), figure.per == Per::Stroke)));
            assert!(
                shown || elsewhere.iter().any(|start| figure.name.starts_with(start)),
                "{} was never seen",
                figure.name
            );
        }
    }

    /// `cargo test -p volant-pipelines the_page_is_written -- --ignored`.
    #[test]
    #[ignore = "writes docs/figures.md"]
    fn the_page_is_written() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/figures.md"), page()).unwrap();
    }

    #[test]
    fn the_page_is_the_table() {
        let stored = include_str!("../../docs/figures.md");
        assert!(stored == page(), "docs/figures.md is out of step: run the test that writes it");
    }
}
