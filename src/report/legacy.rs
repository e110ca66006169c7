//! The report and the peaks as the legacy service named them, computed as they should have been.
//!
//! Names, units and rounding are the clients'; what could not be measured is null, never an ideal, and rates as nothing.

use pipelines::{Analysis, PhaseDelay};
use schemas::{SensorRole, Track};
use serde_json::{Value, json};

use super::Curve;
use crate::texts::{self, Lang};

/// The ideals of the legacy service: delays in s, energy ratio, ranges in degrees.
const IDEAL_DELAYS_S: [f64; 3] = [0.080, 0.050, 0.030];
const IDEAL_ENERGY_RATIO: f64 = 0.65;
const IDEAL_ROM_DEG: [f64; 3] = [45.0, 120.0, 45.0];

/// Seconds of a day.
const DAY_S: f64 = 86_400.0;
/// Seconds that the legacy clients' clock, UTC+8, is ahead.
const LOCAL_AHEAD_S: f64 = 8.0 * 3600.0;

/// `report` of `generate_report/` and `get_mat_analysis/`.
#[must_use]
pub fn legacy_report(analysis: &Analysis, track: &Track, started_at_us: i64, lang: Lang) -> Value {
    let figures = &analysis.session;
    let tenth = |value: f64| (value * 10.0).round() / 10.0;
    let ms = |delay: Option<f64>| delay.map(|s| tenth(s * 1e3));
    let PhaseDelay { waist_to_shoulder, shoulder_to_wrist, wrist_to_racket } = figures.phase_delay;
    let rom = &figures.rom_data;
    let say = |key| texts::message(lang, key, &[]);
    let advice: Vec<&str> = figures.recommendations.iter().map(|code| texts::advice(lang, code)).collect();
    json!({
        "summary": {
            "overall_score": figures.scores.overall,
            "delay_score": figures.scores.delay,
            "energy_score": figures.scores.energy,
            "rom_score": figures.scores.rom,
        },
        "phase_analysis": {
            "waist_to_shoulder_delay": ms(waist_to_shoulder),
            "shoulder_to_wrist_delay": ms(shoulder_to_wrist),
            "wrist_to_racket_delay": ms(wrist_to_racket),
            "ideal_waist_to_shoulder": IDEAL_DELAYS_S[0] * 1e3,
            "ideal_shoulder_to_wrist": IDEAL_DELAYS_S[1] * 1e3,
            "ideal_wrist_to_racket": IDEAL_DELAYS_S[2] * 1e3,
            "delay_assessment": say(delay_assessment(waist_to_shoulder, shoulder_to_wrist)),
        },
        "energy_analysis": {
            "energy_ratio": figures.energy_ratio.map(|ratio| tenth(ratio * 100.0)),
            "ideal_ratio": IDEAL_ENERGY_RATIO * 100.0,
            "energy_assessment": say(energy_assessment(figures.energy_ratio)),
        },
        "rom_analysis": {
            "waist_rotation": rom.waist.map(tenth),
            "shoulder_flexion": rom.shoulder.map(tenth),
            "wrist_extension": rom.wrist.map(tenth),
            "ideal_waist": IDEAL_ROM_DEG[0],
            "ideal_shoulder": IDEAL_ROM_DEG[1],
            "ideal_wrist": IDEAL_ROM_DEG[2],
            "rom_assessment": say(rom_assessment([rom.waist, rom.shoulder, rom.wrist])),
        },
        "angular_velocity_data": angular_velocity(track, started_at_us),
        "recommendations": advice,
    })
}

/// Three levels, and a fourth for what was not measured: the legacy service rated "no data" best.
fn delay_assessment(first_s: Option<f64>, second_s: Option<f64>) -> &'static str {
    let (Some(first_s), Some(second_s)) = (first_s, second_s) else { return "not_measured" };
    let within = |factor: f64| first_s <= factor * IDEAL_DELAYS_S[0] && second_s <= factor * IDEAL_DELAYS_S[1];
    match (within(1.0), within(1.2)) {
        (true, _) => "delay_good",
        (false, true) => "delay_fair",
        (false, false) => "delay_poor",
    }
}

fn energy_assessment(ratio: Option<f64>) -> &'static str {
    match ratio {
        None => "not_measured",
        Some(ratio) if ratio >= IDEAL_ENERGY_RATIO => "energy_good",
        Some(ratio) if ratio >= 0.5 => "energy_fair",
        Some(_) => "energy_poor",
    }
}

fn rom_assessment(measured: [Option<f64>; 3]) -> &'static str {
    let [Some(waist), Some(shoulder), Some(wrist)] = measured else { return "not_measured" };
    let errors = [waist, shoulder, wrist].into_iter().zip(IDEAL_ROM_DEG).map(|(is, ideal)| (is - ideal).abs() / ideal);
    let mean_error = errors.sum::<f64>() / 3.0;
    match mean_error {
        error if error <= 0.1 => "rom_good",
        error if error <= 0.2 => "rom_fair",
        _ => "rom_poor",
    }
}

/// The earliest sample of any sensor, ns since session start.
fn first_ns(track: &Track) -> Option<i64> {
    track.iter().filter_map(|(_, samples)| samples.t_ns.first().copied()).min()
}

/// The curves on one time axis: s since the earliest sample, which is `master_start` s after local midnight (UTC+8). A
/// session over midnight goes on counting. Long sessions are thinned to columns of which the largest value is kept.
fn angular_velocity(track: &Track, started_at_us: i64) -> Value {
    let Some(first_ns) = first_ns(track) else {
        return json!({ "time_labels": [], "sensor_groups": {}, "master_start": null, "master_end": null });
    };
    let first_s = first_ns as f64 / 1e9;
    let milli = |value: f64| (value * 1e3).round() / 1e3;
    let mut groups = serde_json::Map::new();
    let (mut labels, mut end_s) = (Vec::new(), 0.0_f64);
    for curve in Curve::of_track(track) {
        let points: Vec<_> = curve.runs.iter().flatten().collect();
        let times: Vec<f64> = points.iter().map(|point| milli(point.t_s - first_s)).collect();
        end_s = times.iter().copied().fold(end_s, f64::max);
        if times.len() > labels.len() {
            labels.clone_from(&times);
        }
        let magnitudes: Vec<f64> = points.iter().map(|point| milli(point.max_dps)).collect();
        groups.insert(curve.sensor.as_str().to_owned(), json!({ "times": times, "gyro_magnitudes": magnitudes }));
    }
    let master_start = (started_at_us as f64 / 1e6 + first_s + LOCAL_AHEAD_S).rem_euclid(DAY_S);
    json!({
        "time_labels": labels,
        "sensor_groups": groups,
        "master_start": milli(master_start),
        "master_end": milli(master_start + end_s),
    })
}

/// The largest |ω| of a sensor, °/s, and when it was, s since the earliest sample of any sensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    pub sensor: SensorRole,
    pub rate_dps: f64,
    pub time_s: f64,
}

/// The peak of each place of the chain that was recorded, proximal first.
#[must_use]
pub fn peaks(track: &Track) -> Vec<Peak> {
    let Some(first_ns) = first_ns(track) else { return Vec::new() };
    let of = |sensor: SensorRole| {
        let samples = track.get(sensor)?;
        let rates = samples.gyro.iter().map(|gyro| gyro.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt());
        let (t_ns, rate_dps) =
            samples.t_ns.iter().zip(rates).filter(|(_, rate)| rate.is_finite()).max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(Peak { sensor, rate_dps, time_s: (t_ns - first_ns) as f64 / 1e9 })
    };
    SensorRole::CHAIN.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_rates_as_nothing() {
        assert_eq!(delay_assessment(None, Some(0.05)), "not_measured");
        assert_eq!(delay_assessment(Some(0.08), Some(0.05)), "delay_good");
        assert_eq!(delay_assessment(Some(0.09), Some(0.05)), "delay_fair");
        assert_eq!(delay_assessment(Some(0.2), Some(0.05)), "delay_poor");
        assert_eq!(energy_assessment(None), "not_measured");
        assert_eq!(
            [0.65, 0.5, 0.49].map(|ratio| energy_assessment(Some(ratio))),
            ["energy_good", "energy_fair", "energy_poor"]
        );
        assert_eq!(rom_assessment([Some(45.0), None, Some(45.0)]), "not_measured");
        assert_eq!(rom_assessment([Some(45.0), Some(120.0), Some(45.0)]), "rom_good");
        assert_eq!(rom_assessment([Some(90.0), Some(120.0), Some(45.0)]), "rom_poor");
    }

    fn track(offset_ms: i64) -> Track {
        let mut track = Track::default();
        for (role, peak_at) in [(SensorRole::Waist, 40), (SensorRole::Wrist, 60)] {
            let samples = track.get_or_insert(role).unwrap();
            for step in 0..100_i64 {
                samples.t_ns.push((offset_ms + 10 * step) * 1_000_000);
                samples.gyro.push([if step == peak_at { 500.0 } else { 3.0 }, 4.0, 0.0]);
                samples.acc.push([0.0; 3]);
                samples.angle.push([0.0; 3]);
            }
        }
        track
    }

    #[test]
    fn peaks_stand_on_the_axis_of_the_curves() {
        let found = peaks(&track(250));
        assert_eq!(found.iter().map(|peak| peak.sensor).collect::<Vec<_>>(), [SensorRole::Waist, SensorRole::Wrist]);
        assert!(
            (found[1].time_s - 0.6).abs() < 1e-9
                && (found[1].rate_dps - (500.0_f64.powi(2) + 16.0).sqrt()).abs() < 1e-6
        );
    }

    #[test]
    fn a_session_over_midnight_goes_on_counting() {
        // 15:59:59.5 UTC is half a second before midnight in UTC+8.
        let started_at_us = (20_000 * 86_400 + 15 * 3600 + 59 * 60 + 59) * 1_000_000 + 500_000;
        let data = angular_velocity(&track(0), started_at_us);
        assert_eq!((&data["master_start"], &data["master_end"]), (&json!(86_399.5), &json!(86_400.49)));
        assert_eq!(data["sensor_groups"]["waist"]["times"].as_array().unwrap().len(), 100);
        assert!(angular_velocity(&Track::default(), 0)["master_start"].is_null());
    }
}
