//! Session figures: medians over swings, legacy scores, advice, rhythm and trend.

use std::collections::BTreeMap;

use schemas::{SensorRole, Track};

use crate::analysis::{PhaseDelay, RangeOfMotion, Scores, Stroke};
use crate::calibrate::{Signal, median};
use crate::kinetics::{DELAYS, smallest_arc, theil_sen};
use crate::params::{KineticsParams, ReportParams};

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

/// Median of the resolved delays, s.
pub(crate) fn phase_delay(strokes: &[Stroke]) -> PhaseDelay {
    let [waist_to_shoulder, shoulder_to_wrist, wrist_to_racket] =
        DELAYS.map(|name| median_of(strokes, name).map(|ms| ms / 1e3));
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

/// Medians, spreads, rhythm, load and trend of the session.
pub(crate) fn session_metrics(
    strokes: &[Stroke],
    duration_s: f64,
    waist: Option<&Signal>,
    params: &KineticsParams,
) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: Option<f64>| {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            metrics.insert(name.to_owned(), value);
        }
    };
    put("stroke_count", Some(strokes.len() as f64));
    if duration_s > 0.0 {
        put("strokes_per_min", Some(strokes.len() as f64 * 60.0 / duration_s));
    }
    for name in [
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
        "acceleration_phase_ms",
        "rom_waist_deg",
        "rom_shoulder_deg",
        "rom_wrist_deg",
        "delay_uncertainty_ms",
    ] {
        put(&format!("{name}_median"), median_of(strokes, name));
    }
    let largest = |name: &str| strokes.iter().filter_map(|s| s.metrics.get(name).copied()).reduce(f64::max);
    put("racket_head_speed_mps_max", largest("racket_head_speed_mps"));
    put("peak_gyro_dps_max", largest("peak_gyro_dps"));
    // Consistency, within each class: strokes of different kinds are meant to differ.
    for (name, figure) in [
        ("delay_waist_shoulder_ms_spread", DELAYS[0]),
        ("delay_shoulder_wrist_ms_spread", DELAYS[1]),
        ("delay_wrist_racket_ms_spread", DELAYS[2]),
    ] {
        put(name, spread_within_classes(strokes, figure).map(|(spread, _)| spread));
    }
    put(
        "peak_gyro_variation",
        spread_within_classes(strokes, "peak_gyro_dps").and_then(|(spread, mean)| (mean > 0.0).then(|| spread / mean)),
    );
    for (name, count) in DELAYS.map(|name| (name, strokes.iter().filter(|s| s.metrics.contains_key(name)).count())) {
        if !strokes.is_empty() {
            put(&format!("{}_resolved_share", name.trim_end_matches("_ms")), Some(count as f64 / strokes.len() as f64));
        }
    }
    rhythm(strokes, params, &mut put);
    // Tiring shows as a falling share of the player's own median, per ten minutes.
    for (name, figure) in
        [("trend_peak_gyro_per_10min", "peak_gyro_dps"), ("trend_racket_head_speed_per_10min", "racket_head_speed_mps")]
    {
        let (times, values): (Vec<f64>, Vec<f64>) =
            strokes.iter().filter_map(|s| Some((s.impact_ms / 600_000.0, *s.metrics.get(figure)?))).unzip();
        let mut copy = values.clone();
        let slope = theil_sen(&times, &values);
        put(name, slope.zip(median(&mut copy)).and_then(|(slope, middle)| (middle > 0.0).then(|| slope / middle)));
    }
    if let Some(waist) = waist.filter(|signal| signal.has_acc) {
        put("player_load", Some(player_load(waist)));
    }
    metrics
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
    let mut rallies: Vec<(usize, f64, f64)> = Vec::new();
    for stroke in strokes {
        match rallies.last_mut() {
            Some((count, _, last)) if stroke.impact_ms - *last <= params.rally_gap_s * 1e3 => {
                *count += 1;
                *last = stroke.impact_ms;
            }
            _ => rallies.push((1, stroke.impact_ms, stroke.impact_ms)),
        }
    }
    put("rally_count", Some(rallies.len() as f64));
    put("strokes_per_rally", Some(strokes.len() as f64 / rallies.len() as f64));
    put("longest_rally_strokes", rallies.iter().map(|rally| rally.0 as f64).reduce(f64::max));
    let played: f64 = rallies.iter().map(|(_, first, last)| last - first).sum();
    let whole = strokes[strokes.len() - 1].impact_ms - strokes[0].impact_ms;
    if whole > played && played > 0.0 {
        put("work_rest_ratio", Some(played / (whole - played)));
    }
    let mut within: Vec<f64> = strokes
        .windows(2)
        .map(|pair| pair[1].impact_ms - pair[0].impact_ms)
        .filter(|gap| *gap <= params.rally_gap_s * 1e3)
        .collect();
    put("stroke_interval_ms_median", median(&mut within));
}

/// PlayerLoad of the waist: Σ √(Δax² + Δay² + Δaz²) / 100 with acceleration in g over steps of 10 ms.
fn player_load(waist: &Signal) -> f64 {
    let mut sum = 0.0;
    for island in &waist.islands {
        for pair in waist.grid[island.start..island.end()].windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            sum += crate::calibrate::norm([b[0] - a[0], b[1] - a[1], b[2] - a[2]]);
        }
    }
    sum / crate::calibrate::G / 100.0
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
    fn every_code_has_two_texts() {
        for (code, english, chinese) in ADVICE {
            assert_eq!(advice_text(code), Some((english, chinese)));
        }
        assert_eq!(advice_text("dance"), None);
    }
}
