use schemas::{SensorRole, SensorTrack, StrokeKind};

use super::*;

fn norm(v: [f32; 3]) -> f64 {
    v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// The sample with the largest angular rate between two times: (time ms, rate °/s).
fn argmax(track: &SensorTrack, from_ms: f64, to_ms: f64) -> (f64, f64) {
    track
        .t_ns
        .iter()
        .zip(&track.gyro)
        .map(|(&t_ns, &gyro)| (t_ns as f64 * 1e-6, norm(gyro)))
        .filter(|(t_ms, _)| (from_ms..=to_ms).contains(t_ms))
        .fold((0.0, -1.0), |best, next| if next.1 > best.1 { next } else { best })
}

fn short(seed: u64) -> SynthSpec {
    SynthSpec { duration_s: 60.0, ..SynthSpec::new(seed) }
}

#[test]
fn the_seed_decides_everything() {
    let once = generate(&short(5));
    let debug = |session: &SynthSession| format!("{session:?}");
    assert_eq!(debug(&once), debug(&generate(&short(5))));
    assert_ne!(once.truth.strokes, generate(&short(6)).truth.strokes);
}

#[test]
fn planted_peaks_are_the_peaks_of_the_samples() {
    for (seed, rate_hz) in [(1, 100.0), (2, 200.0), (3, 400.0)] {
        let spec = SynthSpec { duration_s: 120.0, rate_hz, ..SynthSpec::ideal(seed) };
        let session = generate(&spec);
        assert!(session.truth.strokes.len() > 20);
        for stroke in &session.truth.strokes {
            for (segment, role) in SensorRole::CHAIN.into_iter().enumerate() {
                let track = session.track.get(role).unwrap();
                let from_ms = stroke.start_ms.min(stroke.peak_ms[segment] - 50.0);
                let (at_ms, rate) = argmax(track, from_ms, stroke.end_ms);
                let planted = (stroke.peak_ms[segment], stroke.peak_gyro_dps[segment]);
                assert!((at_ms - planted.0).abs() <= 1e3 / rate_hz, "{stroke:?} {role}: found at {at_ms}");
                assert!((rate / planted.1 - 1.0).abs() < 0.06, "{stroke:?} {role}: {rate}");
            }
        }
    }
}

#[test]
fn the_chain_runs_outward_or_when_asked_inward() {
    for reversed in [false, true] {
        let chain = Chain { delays_ms: [(50.0, 4.0), (40.0, 4.0), (30.0, 3.0)], reversed };
        let session = generate(&SynthSpec { chain, ..SynthSpec { duration_s: 60.0, ..SynthSpec::ideal(9) } });
        let mut sums = [0.0; 3];
        for stroke in &session.truth.strokes {
            assert!((stroke.peak_ms[3] - stroke.impact_ms).abs() < 1e-9);
            for (sum, pair) in sums.iter_mut().zip(stroke.peak_ms.windows(2)) {
                *sum += pair[1] - pair[0];
            }
        }
        for (sum, mean) in sums.iter().zip([50.0, 40.0, 30.0]) {
            let planted = if reversed { -mean } else { mean };
            assert!((sum / session.truth.strokes.len() as f64 - planted).abs() < 4.0);
        }
    }
}

#[test]
fn a_sensor_at_rest_feels_gravity_alone() {
    let spec = SynthSpec { duration_s: 5.0, plan: Plan::Strokes(Vec::new()), ..SynthSpec::ideal(1) };
    for unit in [AccUnit::G, AccUnit::Mps2] {
        let session = generate(&SynthSpec { unit, ..spec.clone() }.with_random_mounting(3));
        let expected = if unit == AccUnit::G { 1.0 } else { GRAVITY_MPS2 };
        for (_, track) in session.track.iter() {
            assert!(track.acc.iter().all(|&acc| (norm(acc) - expected).abs() < 1e-5));
            assert!(track.gyro.iter().all(|&gyro| norm(gyro) < 1e-6));
        }
    }
}

#[test]
fn the_angles_are_those_of_gravity_when_still() {
    let spec = SynthSpec { duration_s: 2.0, plan: Plan::Strokes(Vec::new()), ..SynthSpec::ideal(4) };
    let session = generate(&spec.with_random_mounting(8));
    for (_, track) in session.track.iter() {
        let [roll, pitch, _] = track.angle[10].map(|angle| f64::from(angle).to_radians());
        let up = [-pitch.sin(), pitch.cos() * roll.sin(), pitch.cos() * roll.cos()];
        for (acc, up) in track.acc[10].into_iter().zip(up) {
            assert!((f64::from(acc) - GRAVITY_MPS2 * up).abs() < 1e-4);
        }
    }
}

#[test]
fn rates_counts_and_clocks_are_as_specified() {
    for rate_hz in [50.0, 100.0, 250.0, 400.0] {
        let mut spec = SynthSpec { rate_hz, duration_s: 30.0, ..SynthSpec::ideal(2) };
        spec.sensors[2].clock_offset_ms = 40.0;
        spec.sensors[2].clock_drift_ppm = 200.0;
        let session = generate(&spec);
        for (segment, (_, track)) in session.track.iter().enumerate() {
            assert!((track.len() as f64 - 30.0 * rate_hz).abs() <= 4.0);
            assert!(track.t_ns.is_sorted());
            let device_ms = &session.device_ms[segment];
            assert_eq!(device_ms.len(), track.len());
            // The sensor ticks evenly on its own clock.
            let ticks = device_ms.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(ticks.into_iter().all(|tick| (tick - 1e3 / rate_hz).abs() < 1e-6));
            let ahead = |row: usize| device_ms[row] - track.t_ns[row] as f64 * 1e-6;
            let last = track.len() - 1;
            let (offset, gained) = if segment == 2 { (40.0, 200e-6 * 30e3) } else { (0.0, 0.0) };
            assert!((ahead(0) - offset).abs() < 0.1);
            assert!((ahead(last) - offset - gained).abs() < 0.1);
        }
        assert_eq!(
            session.device_track().get(SensorRole::Wrist).unwrap().t_ns[0],
            (session.device_ms[2][0] * 1e6).round() as i64
        );
    }
}

#[test]
fn lost_frames_are_counted_and_missing() {
    let whole = SynthSpec { duration_s: 120.0, loss: Loss { frame: 0.0, block: 0.0 }, ..SynthSpec::new(3) };
    let lossy = SynthSpec { loss: Loss { frame: 0.02, block: 0.05 }, ..whole.clone() };
    let (whole, lossy) = (generate(&whole), generate(&lossy));
    for (segment, role) in SensorRole::CHAIN.into_iter().enumerate() {
        let truth = &lossy.truth.sensors[segment];
        let (all, left) = (whole.track.get(role).unwrap(), lossy.track.get(role).unwrap());
        assert_eq!(truth.measured, all.len());
        assert_eq!(left.len() + truth.lost, truth.measured);
        let share = truth.lost as f64 / truth.measured as f64;
        assert!((0.04..0.10).contains(&share), "{share}");
        // What is left is unchanged.
        let mut rows = all.t_ns.iter().zip(&all.gyro);
        assert!(left.t_ns.iter().zip(&left.gyro).all(|kept| rows.any(|row| row == kept)));
    }
}

#[test]
fn truth_does_not_depend_on_how_it_is_measured() {
    let spec = short(11);
    let plain = generate(&spec);
    let mut other = spec.with_random_mounting(99);
    other.unit = AccUnit::G;
    other.rate_hz = 200.0;
    other.angles = false;
    other.present = [false, false, true, true];
    other.loss = Loss { frame: 0.1, block: 0.0 };
    let other = generate(&other);
    assert_eq!(plain.truth.strokes, other.truth.strokes);
    assert_eq!(plain.truth.spells, other.truth.spells);
    assert!(other.track.get(SensorRole::Waist).is_none() && other.device_ms[0].is_empty());
    assert!(other.track.get(SensorRole::Racket).unwrap().angle.iter().flatten().all(|angle| angle.is_nan()));
}

#[test]
fn a_mounting_only_turns_what_is_measured() {
    let spec = SynthSpec { duration_s: 20.0, ..SynthSpec::ideal(12) };
    let (plain, turned) = (generate(&spec), generate(&spec.clone().with_random_mounting(5)));
    for (role, track) in plain.track.iter() {
        let other = turned.track.get(role).unwrap();
        for row in 0..track.len() {
            assert!((norm(track.gyro[row]) - norm(other.gyro[row])).abs() < 1e-2);
            assert!((norm(track.acc[row]) - norm(other.acc[row])).abs() < 1e-2);
        }
    }
}

#[test]
fn hard_strokes_saturate_and_say_so() {
    let strokes = (0..10).map(|i| PlannedStroke::new(3.0 + 3.0 * f64::from(i), StrokeKind::Smash)).collect();
    let mut spec = SynthSpec { duration_s: 35.0, plan: Plan::Strokes(strokes), ..SynthSpec::new(1) };
    spec.full_scale = FullScale { acc_g: 4.0, gyro_dps: 500.0, quantised: true };
    let session = generate(&spec);
    let racket = &session.truth.sensors[3];
    assert!(racket.gyro_saturated > 20 && racket.acc_saturated > 20, "{racket:?}");
    let limit = (4.0 * GRAVITY_MPS2) as f32 + 1e-3;
    let track = session.track.get(SensorRole::Racket).unwrap();
    assert!(track.gyro.iter().flatten().all(|rate| rate.abs() <= 500.0));
    assert!(track.acc.iter().flatten().all(|acc| acc.abs() <= limit));
}

#[test]
fn sixteen_bits_are_all_that_is_used() {
    let session = generate(&SynthSpec { unit: AccUnit::G, duration_s: 10.0, ..SynthSpec::new(4) });
    for (_, track) in session.track.iter() {
        let whole = |value: f32, step: f64| (f64::from(value) / step - (f64::from(value) / step).round()).abs() < 1e-2;
        assert!(track.acc.iter().flatten().all(|&value| whole(value, 16.0 / 32768.0)));
        assert!(track.gyro.iter().flatten().all(|&value| whole(value, 2000.0 / 32768.0)));
        assert!(track.angle.iter().flatten().all(|&value| whole(value, 180.0 / 32768.0) && value.abs() <= 180.0));
    }
}

#[test]
fn a_hit_is_felt_on_the_racket_and_a_shadow_stroke_is_not() {
    let at = |has_impact: bool| {
        let stroke = PlannedStroke { has_impact, ..PlannedStroke::new(3.0, StrokeKind::Clear) };
        let plan = Plan::Strokes(vec![stroke]);
        let session = generate(&SynthSpec { duration_s: 5.0, rate_hz: 400.0, plan, ..SynthSpec::ideal(1) });
        let track = session.track.get(SensorRole::Racket).unwrap().clone();
        let steps = track.acc.windows(2).map(|pair| norm(std::array::from_fn(|i| pair[1][i] - pair[0][i])));
        steps.fold(0.0, f64::max)
    };
    assert!(at(true) > 3.0 * at(false));
}

#[test]
fn every_class_is_played_and_every_rest_is_filled() {
    let session = generate(&SynthSpec { duration_s: 300.0, ..SynthSpec::new(21) });
    for kind in StrokeKind::ALL {
        let count = session.truth.strokes.iter().filter(|stroke| stroke.kind == kind).count();
        assert_eq!(count > 0, kind != StrokeKind::Other, "{kind}: {count}");
    }
    for activity in [Activity::Footwork, Activity::Walking, Activity::Fidgeting, Activity::PickUp] {
        assert!(session.truth.spells.iter().any(|spell| spell.activity == activity), "{activity:?}");
    }
    assert!(session.truth.strokes.windows(2).all(|pair| pair[1].impact_ms - pair[0].impact_ms >= 900.0));
    assert!(
        session
            .truth
            .strokes
            .iter()
            .all(|stroke| stroke.start_ms < stroke.impact_ms && stroke.impact_ms < stroke.end_ms)
    );
}

#[test]
fn a_left_hander_is_a_right_hander_in_the_mirror() {
    let spec = SynthSpec { duration_s: 30.0, ..SynthSpec::ideal(6) };
    let mut mirrored = spec.clone();
    mirrored.style.left_handed = true;
    mirrored.style.spread = 0.0;
    let mut plain = spec;
    plain.style.spread = 0.0;
    let (plain, mirrored) = (generate(&plain), generate(&mirrored));
    let stroke = plain.truth.strokes[0];
    let row = |session: &SynthSession| {
        let track = session.track.get(SensorRole::Racket).unwrap();
        let row = track.t_ns.partition_point(|&t_ns| (t_ns as f64) * 1e-6 < stroke.impact_ms);
        track.gyro[row]
    };
    let (right, left) = (row(&plain), row(&mirrored));
    // Equal but for the sign of x and z, up to this stroke's own chance.
    assert!((norm(right) / norm(left) - 1.0).abs() < 0.1);
    let turned = f64::from(-right[0] * left[0] + right[1] * left[1] - right[2] * left[2]);
    assert!(turned / (norm(right) * norm(left)) > 0.9);
}
