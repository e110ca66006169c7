//! Session figures: medians over swings, legacy scores, advice, rhythm and trend.

use std::collections::BTreeMap;

use schemas::{SensorRole, Track};

use crate::analysis::{PhaseDelay, RangeOfMotion, Scores, Stroke};
use crate::calibrate::{Signal, median};
use crate::kinetics::{DELAYS, Motion, smallest_arc};
use crate::load::{Rally, by_second, player_load, rallies, rally_gap_s, zones};
use crate::params::{KineticsParams, ReportParams};
use crate::trend::{cusum, mann_kendall_p, theil_sen};

/// Neighbours in the chain, as the names of figures have them.
pub(crate) const PAIRS: [&str; 3] = ["waist_shoulder", "shoulder_wrist", "wrist_racket"];

/// Every advice code with its English and its Chinese text.
pub const ADVICE: [(&str, &str, &str); 8] = [
    (
        "faster_waist_to_shoulder",
        "Let the shoulder follow the hips sooner: the delay from waist to shoulder is longer than ideal.",
        "缩短腰部到肩部的发力间隔：转髋之后肩部应更快跟上。",
    ),
    (
        "faster_shoulder_to_wrist",
        "Let the wrist follow the shoulder sooner: the delay from shoulder to wrist is longer than ideal.",
        "缩短肩部到手腕的发力间隔：肩部之后手腕应更快跟上。",
    ),
    (
        "better_energy_transfer",
        "Carry more of the body's turn into the arm: swing in one smooth motion.",
        "提高能量传递效率：动作更连贯，把身体的转动传到手臂。",
    ),
    ("more_waist_rotation", "Turn the hips further in the backswing.", "加大腰部的转动幅度。"),
    ("more_shoulder_range", "Open the shoulder further in the backswing.", "加大肩部的活动幅度。"),
    ("more_wrist_range", "Use more of the wrist's range.", "加大手腕的活动幅度。"),
    ("keep_it_up", "All figures reach their ideals: keep it up.", "各项指标均达到理想值，继续保持。"),
    (
        "check_sensors",
        "Some figures could not be computed: check that every sensor is worn, charged and connected.",
        "部分指标无法计算：请检查各传感器的佩戴、电量和连接。",
    ),
];

/// The text of an advice code: English, Chinese. `None` for a code that is not ours.
///
/// ```
/// let (english, chinese) = volant_pipelines::advice_text("more_waist_rotation").unwrap();
/// assert!(english.contains("hips") && chinese.contains("腰"));
/// ```
#[must_use]
pub fn advice_text(code: &str) -> Option<(&'static str, &'static str)> {
    ADVICE.iter().find(|(known, ..)| *known == code).map(|&(_, english, chinese)| (english, chinese))
}

/// The median of a figure over the strokes that have it.
pub(crate) fn median_of(strokes: &[Stroke], name: &str) -> Option<f64> {
    let mut values: Vec<f64> = strokes.iter().filter_map(|stroke| stroke.metrics.get(name).copied()).collect();
    median(&mut values)
}

/// The interval of a stroke's delay between two neighbours of the chain, ms.
pub(crate) fn interval_ms(stroke: &Stroke, pair: &str) -> Option<(f64, f64)> {
    let end = |end: &str| stroke.metrics.get(&format!("delay_{pair}_{end}_ms")).copied();
    end("low").zip(end("high"))
}

/// The delay of a session between two neighbours of the chain, ms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SessionDelay {
    pub(crate) median_ms: f64,
    /// Half of the 95% interval of the median.
    pub(crate) reach_ms: f64,
}

/// Medians over every delay that was measured, resolved or not: a median of the resolved ones alone would leave the short
/// ones out and come out long. The interval adds to the spread's own (1.2533 σ/√n for a median) what all swings share: the
/// clocks, and half of one swing's uncertainty for what the shape of this player's pulses does to every one of them.
pub(crate) fn session_delays(strokes: &[Stroke], apart_s: [f64; 3], sigmas: f64) -> [Option<SessionDelay>; 3] {
    std::array::from_fn(|at| {
        let (pair, clocks) = (PAIRS[at], apart_s[at] * 1e3);
        let intervals: Vec<(f64, f64)> = strokes.iter().filter_map(|stroke| interval_ms(stroke, pair)).collect();
        let mut middles: Vec<f64> = intervals.iter().map(|(low, high)| f64::midpoint(*low, *high)).collect();
        let mut sigma_ms: Vec<f64> = intervals.iter().map(|(low, high)| (high - low) / (2.0 * sigmas)).collect();
        let n = middles.len() as f64;
        let mean = middles.iter().sum::<f64>() / n;
        let spread =
            if n > 1.0 { (middles.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt() } else { 0.0 };
        let own = median(&mut sigma_ms)?;
        // What one swing's uncertainty has beyond the clocks.
        let shape = 0.25 * (own * own - clocks * clocks).max(0.0);
        let sampling = if n > 1.0 { (1.2533 * spread).powi(2) / n } else { own * own };
        let sigma = (sampling + shape + clocks * clocks).sqrt();
        Some(SessionDelay { median_ms: median(&mut middles)?, reach_ms: sigmas * sigma })
    })
}

/// The session's delays, s; `None` where 0 lies inside the interval.
pub(crate) fn phase_delay(delays: &[Option<SessionDelay>; 3]) -> PhaseDelay {
    let [waist_to_shoulder, shoulder_to_wrist, wrist_to_racket] =
        delays.map(|delay| delay.filter(|d| d.median_ms.abs() >= d.reach_ms).map(|d| d.median_ms / 1e3));
    PhaseDelay { waist_to_shoulder, shoulder_to_wrist, wrist_to_racket }
}

/// Range over the whole session of waist yaw, shoulder pitch and wrist roll, with ±180° no border.
pub(crate) fn range_of_motion(track: &Track) -> RangeOfMotion {
    let range = |role: SensorRole, component: usize| {
        let sensor = track.get(role)?;
        smallest_arc(sensor.angle.iter().map(|angle| angle[component]))
    };
    RangeOfMotion {
        waist: range(SensorRole::Waist, 2),
        shoulder: range(SensorRole::Shoulder, 1),
        wrist: range(SensorRole::Wrist, 0),
    }
}

/// The legacy scores; a score of which any part is absent is absent.
pub(crate) fn scores(
    delay: &PhaseDelay,
    energy_ratio: Option<f64>,
    rom: &RangeOfMotion,
    params: &ReportParams,
) -> Scores {
    let closeness = |value: f64, ideal: f64| (100.0 - 100.0 * (value - ideal).abs() / ideal).max(0.0);
    let tenth = |score: f64| (score * 10.0).round() / 10.0;
    let delay_score = delay.waist_to_shoulder.zip(delay.shoulder_to_wrist).map(|(first, second)| {
        f64::midpoint(
            closeness(first, params.ideal_waist_to_shoulder_s),
            closeness(second, params.ideal_shoulder_to_wrist_s),
        )
    });
    let energy_score = energy_ratio.map(|ratio| (100.0 * ratio / params.ideal_energy_ratio).clamp(0.0, 100.0));
    let rom_score = match (rom.waist, rom.shoulder, rom.wrist) {
        (Some(waist), Some(shoulder), Some(wrist)) => Some(
            (closeness(waist, params.ideal_rom_waist_deg)
                + closeness(shoulder, params.ideal_rom_shoulder_deg)
                + closeness(wrist, params.ideal_rom_wrist_deg))
                / 3.0,
        ),
        _ => None,
    };
    let overall = match (delay_score, energy_score, rom_score) {
        (Some(delay), Some(energy), Some(rom)) => Some((delay + energy + rom) / 3.0),
        _ => None,
    };
    Scores {
        overall: overall.map(tenth),
        delay: delay_score.map(tenth),
        energy: energy_score.map(tenth),
        rom: rom_score.map(tenth),
    }
}

/// The codes of the advice that applies. Praise needs every figure; without strokes there is nothing to advise on.
pub(crate) fn recommendations(
    delay: &PhaseDelay,
    energy_ratio: Option<f64>,
    rom: &RangeOfMotion,
    params: &ReportParams,
) -> Vec<String> {
    let above = |value: Option<f64>, ideal: f64| value.is_some_and(|value| value > ideal);
    let below = |value: Option<f64>, ideal: f64| value.is_some_and(|value| value < ideal);
    let mut codes: Vec<&str> = [
        ("faster_waist_to_shoulder", above(delay.waist_to_shoulder, params.ideal_waist_to_shoulder_s)),
        ("faster_shoulder_to_wrist", above(delay.shoulder_to_wrist, params.ideal_shoulder_to_wrist_s)),
        ("better_energy_transfer", below(energy_ratio, params.ideal_energy_ratio)),
        ("more_waist_rotation", below(rom.waist, params.ideal_rom_waist_deg)),
        ("more_shoulder_range", below(rom.shoulder, params.ideal_rom_shoulder_deg)),
        ("more_wrist_range", below(rom.wrist, params.ideal_rom_wrist_deg)),
    ]
    .into_iter()
    .filter_map(|(code, applies)| applies.then_some(code))
    .collect();
    let figures = [delay.waist_to_shoulder, delay.shoulder_to_wrist, energy_ratio, rom.waist, rom.shoulder, rom.wrist];
    if figures.iter().any(Option::is_none) {
        codes.push("check_sensors");
    } else if codes.is_empty() {
        codes.push("keep_it_up");
    }
    codes.into_iter().map(str::to_owned).collect()
}

/// Figures of a stroke whose median over the session is a figure of the session, `<name>_median`.
pub(crate) const MEDIANS: [&str; 30] = [
    "order_tau",
    "peak_gyro_dps",
    "peak_accel_mps2",
    "racket_head_speed_mps",
    "wrist_speed_mps",
    "smoothness_sparc",
    "smoothness_ldlj",
    "speedup_waist_shoulder",
    "speedup_shoulder_wrist",
    "speedup_wrist_racket",
    "braking_waist_shoulder",
    "braking_shoulder_wrist",
    "braking_wrist_racket",
    "energy_step_waist_shoulder",
    "energy_step_shoulder_wrist",
    "energy_step_wrist_racket",
    "acceleration_phase_ms",
    "rom_waist_deg",
    "rom_shoulder_deg",
    "rom_wrist_deg",
    "turn_waist_deg",
    "turn_shoulder_deg",
    "tilt_shoulder_deg",
    "tilt_wrist_deg",
    "racket_roll_deg",
    "separation_waist_shoulder_deg",
    "separation_waist_shoulder_dps",
    "delay_uncertainty_ms",
    "impact_jerk_mps3",
    "template_correlation",
];

/// What the session's figures are computed from, besides the strokes.
pub(crate) struct Session<'a> {
    pub(crate) duration_s: f64,
    pub(crate) sensors: [Option<(&'a Signal, &'a Motion)>; 4],
    pub(crate) delays: [Option<SessionDelay>; 3],
    pub(crate) params: &'a KineticsParams,
}

/// Medians, spreads, rhythm, load and trends of the session.
pub(crate) fn session_metrics(strokes: &[Stroke], session: &Session<'_>) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: Option<f64>| {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            metrics.insert(name.to_owned(), value);
        }
    };
    put("stroke_count", Some(strokes.len() as f64));
    if session.duration_s > 0.0 {
        put("strokes_per_min", Some(strokes.len() as f64 * 60.0 / session.duration_s));
    }
    for name in MEDIANS {
        put(&format!("{name}_median"), median_of(strokes, name));
    }
    let largest = |name: &str| strokes.iter().filter_map(|s| s.metrics.get(name).copied()).reduce(f64::max);
    put("racket_head_speed_mps_max", largest("racket_head_speed_mps"));
    put("peak_gyro_dps_max", largest("peak_gyro_dps"));
    for (delay, pair) in session.delays.iter().zip(PAIRS) {
        put(&format!("delay_{pair}_session_low_ms"), delay.map(|d| d.median_ms - d.reach_ms));
        put(&format!("delay_{pair}_session_high_ms"), delay.map(|d| d.median_ms + d.reach_ms));
    }
    // Consistency, within each class: strokes of different kinds are meant to differ.
    for (name, figure) in [
        ("delay_waist_shoulder_ms_spread", DELAYS[0]),
        ("delay_shoulder_wrist_ms_spread", DELAYS[1]),
        ("delay_wrist_racket_ms_spread", DELAYS[2]),
    ] {
        put(name, spread_within_classes(strokes, figure).map(|(spread, _)| spread));
    }
    for (name, figure) in
        [("peak_gyro_variation", "peak_gyro_dps"), ("racket_head_speed_variation", "racket_head_speed_mps")]
    {
        let spread = spread_within_classes(strokes, figure);
        put(name, spread.and_then(|(spread, mean)| (mean > 0.0).then(|| spread / mean)));
    }
    for (name, pair) in DELAYS.into_iter().zip(PAIRS) {
        let measured = strokes.iter().filter(|s| s.metrics.contains_key(&format!("delay_{pair}_low_ms"))).count();
        let resolved = strokes.iter().filter(|s| s.metrics.contains_key(name)).count();
        // Without both sensors there is nothing to resolve.
        if measured > 0 {
            put(&format!("delay_{pair}_resolved_share"), Some(resolved as f64 / measured as f64));
        }
    }
    if !strokes.is_empty() && strokes.iter().any(|s| s.metrics.contains_key("impact_felt")) {
        let felt = strokes.iter().filter(|s| s.metrics.get("impact_felt").is_some_and(|felt| *felt > 0.0)).count();
        put("impact_felt_share", Some(felt as f64 / strokes.len() as f64));
    }
    rhythm(strokes, session.params, &mut put);
    trends(strokes, &mut put);
    symmetry(strokes, &mut put);
    load(session, &mut put);
    metrics
}

/// Trends as a share of the class's own median, so that a change of strokes is no trend; per ten minutes, with the
/// probability that chance made them, and the stroke at which a CUSUM against the first twenty alarms.
fn trends(strokes: &[Stroke], put: &mut impl FnMut(&str, Option<f64>)) {
    let ten_minutes = |index: usize| strokes[index].impact_ms / 600_000.0;
    let share = |value: f64, middle: f64| (middle != 0.0).then(|| value / middle);
    for (name, figure) in [
        ("peak_gyro", "peak_gyro_dps"),
        ("racket_head_speed", "racket_head_speed_mps"),
        ("smoothness_sparc", "smoothness_sparc"),
        ("acceleration_phase", "acceleration_phase_ms"),
    ] {
        let points = against_class(strokes, &of_strokes(strokes, figure), share);
        let times: Vec<f64> = points.iter().map(|&(index, _)| ten_minutes(index)).collect();
        let values: Vec<f64> = points.iter().map(|&(_, value)| value).collect();
        put(&format!("trend_{name}_per_10min"), theil_sen(&times, &values));
        put(&format!("trend_{name}_p"), mann_kendall_p(&times, &values));
        if let Some((at, way)) = cusum(&values) {
            put(&format!("change_{name}_stroke"), Some(points[at].0 as f64));
            put(&format!("change_{name}_direction"), Some(way));
        }
    }
    // How far delays stray from their class's median: timing that gets less even.
    for (pair, figure) in PAIRS.into_iter().zip(DELAYS) {
        let mut strayed = vec![None; strokes.len()];
        for (index, off) in against_class(strokes, &of_strokes(strokes, figure), |v, middle| Some((v - middle).abs())) {
            strayed[index] = Some(off);
        }
        let (times, values): (Vec<f64>, Vec<f64>) = against_class(strokes, &strayed, share)
            .into_iter()
            .map(|(index, value)| (ten_minutes(index), value))
            .unzip();
        put(&format!("trend_delay_{pair}_spread_per_10min"), theil_sen(&times, &values));
        put(&format!("trend_delay_{pair}_spread_p"), mann_kendall_p(&times, &values));
    }
}

fn of_strokes(strokes: &[Stroke], figure: &str) -> Vec<Option<f64>> {
    strokes.iter().map(|stroke| stroke.metrics.get(figure).copied()).collect()
}

/// Each stroke's value set against the median of its class, of classes with five values or more: its index and what `set`
/// makes of value and median.
fn against_class(
    strokes: &[Stroke],
    values: &[Option<f64>],
    set: impl Fn(f64, f64) -> Option<f64>,
) -> Vec<(usize, f64)> {
    let mut classes: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (stroke, value) in strokes.iter().zip(values) {
        classes.entry(stroke.stroke.as_str()).or_default().extend(value);
    }
    let middles: BTreeMap<&str, f64> = classes
        .iter_mut()
        .filter(|(_, values)| values.len() >= 5)
        .filter_map(|(class, values)| Some((*class, median(values)?)))
        .collect();
    let of = |(stroke, value): (&Stroke, &Option<f64>)| set((*value)?, *middles.get(stroke.stroke.as_str())?);
    strokes.iter().zip(values).map(of).enumerate().filter_map(|(index, value)| Some((index, value?))).collect()
}

/// (L − R)/(½(L + R)) of the trunk's turn to either side, and the like of forehand and backhand where classes name them.
fn symmetry(strokes: &[Stroke], put: &mut impl FnMut(&str, Option<f64>)) {
    const SWINGS_MIN: usize = 5;
    let compare = |mut one: Vec<f64>, mut other: Vec<f64>| {
        if one.len() < SWINGS_MIN || other.len() < SWINGS_MIN {
            return None;
        }
        let (one, other) = (median(&mut one)?, median(&mut other)?);
        (one + other > 0.0).then(|| (one - other) / (0.5 * (one + other)))
    };
    let turns = || strokes.iter().filter_map(|s| s.metrics.get("turn_rate_waist_dps").copied());
    let left: Vec<f64> = turns().filter(|turn| *turn > 0.0).collect();
    let right: Vec<f64> = turns().filter(|turn| *turn < 0.0).map(f64::abs).collect();
    put("symmetry_waist_left_right", compare(left, right));
    let of_side = |side: &str| -> Vec<f64> {
        strokes
            .iter()
            .filter(|s| s.stroke.contains(side))
            .filter_map(|s| s.metrics.get("peak_gyro_dps").copied())
            .collect()
    };
    put("symmetry_forehand_backhand", compare(of_side("forehand"), of_side("backhand")));
}

/// Load on the waist, intensity on whichever sensor is nearest to the trunk.
fn load(session: &Session<'_>, put: &mut impl FnMut(&str, Option<f64>)) {
    if let Some((waist, motion)) = session.sensors[0].filter(|(signal, _)| signal.has_acc) {
        put("player_load", Some(player_load(waist)));
        let seconds = by_second(waist, motion);
        if !seconds.is_empty() {
            put("load_dynamic_g_s", Some(seconds.iter().sum()));
        }
        if let Some((high, shares)) = zones(&seconds) {
            put("intensity_p95_g", Some(high));
            for (zone, share) in shares.into_iter().enumerate() {
                put(&format!("intensity_zone_{}_share", zone + 1), Some(share));
            }
        }
    }
}

/// Pooled standard deviation within classes and the mean of all, over classes with three strokes or more.
fn spread_within_classes(strokes: &[Stroke], figure: &str) -> Option<(f64, f64)> {
    let mut classes: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for stroke in strokes {
        if let Some(&value) = stroke.metrics.get(figure) {
            classes.entry(stroke.stroke.as_str()).or_default().push(value);
        }
    }
    let (mut squares, mut freedom, mut sum, mut count) = (0.0, 0_usize, 0.0, 0_usize);
    for values in classes.values().filter(|values| values.len() >= 3) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        squares += values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        freedom += values.len() - 1;
        sum += values.iter().sum::<f64>();
        count += values.len();
    }
    (freedom > 0).then(|| ((squares / freedom as f64).sqrt(), sum / count as f64))
}

fn rhythm(strokes: &[Stroke], params: &KineticsParams, put: &mut impl FnMut(&str, Option<f64>)) {
    if strokes.is_empty() {
        return;
    }
    let gap_s = rally_gap_s(strokes, params.rally_gap_s);
    let rallies = rallies(strokes, gap_s);
    put("rally_gap_s", Some(gap_s));
    put("rally_count", Some(rallies.len() as f64));
    put("strokes_per_rally", Some(strokes.len() as f64 / rallies.len() as f64));
    put("longest_rally_strokes", rallies.iter().map(|rally| rally.strokes as f64).reduce(f64::max));
    let lasting = |rally: &Rally| (rally.last_ms - rally.first_ms) / 1e3;
    let mut lengths: Vec<f64> = rallies.iter().filter(|rally| rally.strokes > 1).map(lasting).collect();
    let played: f64 = lengths.iter().sum();
    put("longest_rally_s", lengths.iter().copied().reduce(f64::max));
    put("rally_s_median", median(&mut lengths));
    let whole = (strokes[strokes.len() - 1].impact_ms - strokes[0].impact_ms) / 1e3;
    if whole > played && played > 0.0 {
        put("work_rest_ratio", Some(played / (whole - played)));
    }
    let mut within: Vec<f64> = strokes
        .windows(2)
        .map(|pair| pair[1].impact_ms - pair[0].impact_ms)
        .filter(|gap| *gap <= gap_s * 1e3)
        .collect();
    put("stroke_interval_ms_median", median(&mut within));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Params;

    fn report() -> &'static ReportParams {
        &Params::builtin().report
    }

    #[test]
    fn ideal_figures_score_a_hundred_and_are_praised() {
        let delay =
            PhaseDelay { waist_to_shoulder: Some(0.08), shoulder_to_wrist: Some(0.05), wrist_to_racket: Some(0.03) };
        let rom = RangeOfMotion { waist: Some(45.0), shoulder: Some(120.0), wrist: Some(45.0) };
        let all = scores(&delay, Some(0.65), &rom, report());
        assert_eq!(all, Scores { overall: Some(100.0), delay: Some(100.0), energy: Some(100.0), rom: Some(100.0) });
        assert_eq!(recommendations(&delay, Some(0.65), &rom, report()), ["keep_it_up"]);
    }

    #[test]
    fn absent_figures_have_no_score_and_are_not_praised() {
        let (delay, rom) = (PhaseDelay::default(), RangeOfMotion::default());
        assert_eq!(scores(&delay, None, &rom, report()), Scores::default());
        assert_eq!(recommendations(&delay, None, &rom, report()), ["check_sensors"]);
    }

    #[test]
    fn the_legacy_formula_is_kept() {
        let delay = PhaseDelay { waist_to_shoulder: Some(0.096), shoulder_to_wrist: Some(0.04), wrist_to_racket: None };
        let rom = RangeOfMotion { waist: Some(36.0), shoulder: Some(130.0), wrist: Some(200.0) };
        let all = scores(&delay, Some(0.325), &rom, report());
        assert_eq!((all.delay, all.energy), (Some(80.0), Some(50.0)));
        // 80, 91.67 and 0.
        assert_eq!(all.rom, Some(57.2));
        assert_eq!(all.overall, Some(62.4));
        assert_eq!(
            recommendations(&delay, Some(0.325), &rom, report()),
            ["faster_waist_to_shoulder", "better_energy_transfer", "more_waist_rotation"]
        );
    }

    #[test]
    fn a_timing_that_gets_uneven_is_a_trend_and_an_even_one_is_none() {
        let session = |growth: f64| -> Vec<Stroke> {
            (0..60)
                .map(|at| {
                    // Two classes, each with its own delay; off it by one of eight steps in turn.
                    let class = at % 2;
                    let off = (f64::from((at * 5) % 8) - 3.5) * (1.0 + growth * f64::from(at) / 60.0);
                    let delay = 25.0 + 20.0 * f64::from(class) + off;
                    let metrics = BTreeMap::from([
                        (DELAYS[2].to_owned(), delay),
                        ("racket_head_speed_mps".to_owned(), 30.0 + f64::from(at % 3)),
                    ]);
                    let impact_ms = 10_000.0 * f64::from(at);
                    Stroke {
                        start_ms: impact_ms - 300.0,
                        impact_ms,
                        end_ms: impact_ms + 200.0,
                        sensor: SensorRole::Wrist,
                        stroke: ["clear", "drop"][class as usize].to_owned(),
                        confidence: None,
                        probabilities: BTreeMap::new(),
                        levels: BTreeMap::new(),
                        metrics,
                    }
                })
                .collect()
        };
        let figures = |strokes: &[Stroke]| {
            let mut all: BTreeMap<String, f64> = BTreeMap::new();
            trends(strokes, &mut |name, value| all.extend(value.map(|value| (name.to_owned(), value))));
            all
        };
        let (even, uneven) = (figures(&session(0.0)), figures(&session(6.0)));
        let name = "trend_delay_wrist_racket_spread";
        assert!(even[&format!("{name}_p")] > 0.5 && even[&format!("{name}_per_10min")].abs() < 0.05, "{even:?}");
        assert!(uneven[&format!("{name}_p")] < 0.001 && uneven[&format!("{name}_per_10min")] > 0.5, "{uneven:?}");
        // Speed drifts in neither, and what was not measured has no trend.
        assert!(uneven["trend_racket_head_speed_p"] > 0.5, "{uneven:?}");
        assert!(!uneven.contains_key("trend_delay_waist_shoulder_spread_p"));
    }

    #[test]
    fn every_code_has_two_texts() {
        for (code, english, chinese) in ADVICE {
            assert_eq!(advice_text(code), Some((english, chinese)));
        }
        assert_eq!(advice_text("dance"), None);
    }
}
