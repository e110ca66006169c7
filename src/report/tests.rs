//! Reports of a made-up analysis: whole pages as snapshots, and the rules that hold for every page.

use std::collections::BTreeMap;

use pipelines::{
    Advice, Analysis, Drill, Evidence, Issue, IssueCode, PhaseDelay, Provenance, RangeOfMotion, Scores, SensorQuality,
    SessionFigures, Severity, Stroke,
};
use schemas::{SensorRole, Track};

use super::{Context, Curve, html, text};
use crate::texts::Lang;

/// Twelve strokes of five classes in 48 s, with one delay that was not resolved and one figure that was not computed.
fn analysis() -> Analysis {
    let classes =
        ["clear", "smash", "clear", "drop", "smash", "clear", "net_shot", "drop", "smash", "clear", "other", "clear"];
    let strokes: Vec<Stroke> = classes
        .iter()
        .enumerate()
        .map(|(index, class)| {
            let wave = (index as f64 * 1.7).sin();
            let impact_ms = 2500.0 + 3800.0 * index as f64;
            let mut metrics = BTreeMap::from([
                ("peak_gyro_dps".to_owned(), 1240.0 + 260.0 * wave),
                ("peak_accel_mps2".to_owned(), 96.0 + 20.0 * wave),
                ("racket_head_speed_mps".to_owned(), 31.4 + 6.0 * wave),
                ("delay_waist_shoulder_ms".to_owned(), 84.0 + 9.0 * wave),
                ("delay_wrist_racket_ms".to_owned(), 29.0 - 5.0 * wave),
                ("order_tau".to_owned(), 1.0),
                ("peak_before_impact_waist_ms".to_owned(), 171.0 + 4.0 * wave),
                ("peak_before_impact_shoulder_ms".to_owned(), 87.0 - 5.0 * wave),
                ("peak_before_impact_wrist_ms".to_owned(), 35.0 + 2.0 * wave),
                ("peak_before_impact_racket_ms".to_owned(), 6.0 + 7.0 * wave),
            ]);
            if index != 3 {
                metrics.insert("delay_shoulder_wrist_ms".to_owned(), 52.0 - 7.0 * wave);
            }
            if *class == "other" {
                metrics.clear();
            }
            Stroke {
                start_ms: impact_ms - 420.0,
                impact_ms,
                end_ms: impact_ms + 310.0,
                sensor: SensorRole::Racket,
                stroke: (*class).to_owned(),
                confidence: Some(0.83 + 0.14 * wave),
                // Not sure, and nearest to a drop.
                probabilities: if *class == "other" {
                    [("drop", 0.34), ("clear", 0.31), ("other", 0.2)].map(|(name, p)| (name.to_owned(), p)).into()
                } else {
                    BTreeMap::new()
                },
                levels: BTreeMap::new(),
                metrics,
            }
        })
        .collect();
    let mut stroke_counts = BTreeMap::new();
    for class in classes {
        *stroke_counts.entry(class.to_owned()).or_default() += 1;
    }
    let sensors = SensorRole::CHAIN
        .into_iter()
        .enumerate()
        .map(|(index, role)| {
            let quality = SensorQuality {
                samples: 9600 - 120 * index,
                rate_hz: Some(200.0 - 0.04 * index as f64),
                gap_s: 0.6 * index as f64,
                gaps: index,
                saturated_share: 0.004 * index as f64,
                acc_to_mps2: Some(9.80665),
            };
            (role, quality)
        })
        .collect();
    Analysis {
        strokes,
        session: SessionFigures {
            duration_s: 48.0,
            frame_count: 37_680,
            stroke_counts,
            drills: vec![Drill {
                stroke: "smash".to_owned(),
                start_ms: 3120.0,
                end_ms: 31_400.0,
                swings: 12,
                named: 11,
            }],
            phase_delay: PhaseDelay {
                waist_to_shoulder: Some(0.0842),
                shoulder_to_wrist: Some(0.0518),
                wrist_to_racket: Some(0.0287),
            },
            energy_ratio: None,
            rom_data: RangeOfMotion { waist: Some(43.2), shoulder: Some(111.8), wrist: Some(47.5) },
            scores: Scores { overall: None, delay: Some(95.6), energy: None, rom: Some(94.9) },
            metrics: [
                ("delay_waist_shoulder_session_low_ms", 81.3),
                ("delay_waist_shoulder_session_high_ms", 87.1),
                ("racket_head_speed_mps_median", 31.6),
                ("order_tau_median", 1.0),
                ("rally_count", 3.0),
                ("trend_peak_gyro_per_10min", -0.081),
                ("trend_peak_gyro_p", 0.0123),
            ]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
            recommendations: vec!["faster_waist_to_shoulder".to_owned(), "more_shoulder_range".to_owned()],
            advice: vec![Advice {
                code: "faster_waist_to_shoulder".to_owned(),
                text: "Let the shoulder follow the hips sooner.".to_owned(),
                text_zh: "转髋之后肩部应更快跟上。".to_owned(),
                reason: "From waist to shoulder pass 84 ms; the ideal is 80 ms.".to_owned(),
                reason_zh: "腰到肩的延迟为 84 ms，理想值为 80 ms。".to_owned(),
                evidence: Evidence {
                    figure: "phase_delay.waist_to_shoulder".to_owned(),
                    value: 0.0842,
                    unit: "s".to_owned(),
                    against: 0.08,
                    compared_with: "ideal".to_owned(),
                    stroke: None,
                    strokes: vec![1, 4, 7],
                },
            }],
            sensors,
        },
        issues: vec![
            Issue {
                code: IssueCode::Saturation,
                severity: Severity::Warning,
                sensor: Some(SensorRole::Racket),
                message: "racket: 1.2 % of the samples are at the sensor's limit".to_owned(),
                message_zh: "球拍：1.2 % 的样本达到传感器量程上限".to_owned(),
                affects: vec!["energy_ratio".to_owned(), "scores".to_owned()],
            },
            Issue {
                code: IssueCode::Gap,
                severity: Severity::Info,
                sensor: Some(SensorRole::Wrist),
                message: "wrist: 2 gaps, 1.20 s in all".to_owned(),
                message_zh: "腕：2 处缺口，共 1.20 s".to_owned(),
                affects: vec![],
            },
        ],
        provenance: Provenance {
            name: String::new(),
            pipeline: "volant-pipelines 0.1.0".to_owned(),
            params_sha256: "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0".to_owned(),
            model: Some("shuttle-1".to_owned()),
            model_sha256: Some("abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789".to_owned()),
        },
    }
}

/// A pulse on every sensor at each stroke, a slow sway between, and a hole in the wrist's data.
fn track(analysis: &Analysis, rate_hz: f64) -> Track {
    let mut track = Track::default();
    for (index, role) in SensorRole::CHAIN.into_iter().enumerate() {
        let sensor = track.get_or_insert(role).unwrap();
        for step in 0..(48.0 * rate_hz) as usize {
            let t_s = step as f64 / rate_hz;
            if role == SensorRole::Wrist && (20.0..21.5).contains(&t_s) {
                continue;
            }
            let pulses: f64 = analysis
                .strokes
                .iter()
                .map(|stroke| {
                    let peak_s = stroke.impact_ms / 1e3 - 0.16 + 0.05 * index as f64;
                    (-((t_s - peak_s) / 0.07).powi(2)).exp()
                })
                .sum();
            let sway = 12.0 + 8.0 * (t_s * 2.1 + index as f64).sin();
            let rate_dps = sway + pulses * 280.0 * (index + 1) as f64;
            sensor.push((t_s * 1e9) as i64, [0.0, 0.0, 9.8], [rate_dps as f32, 0.0, 0.0], [f32::NAN; 3]);
        }
    }
    track
}

fn context(analysis: &Analysis, rate_hz: f64) -> Context {
    Context {
        session_id: Some("3".to_owned()),
        device: Some("2025001".to_owned()),
        started_at_us: Some(1_795_424_400_000_000),
        curves: Curve::of_track(&track(analysis, rate_hz)),
        ..Context::default()
    }
}

/// An analysis that could compute nothing.
fn empty() -> Analysis {
    Analysis {
        strokes: Vec::new(),
        session: SessionFigures::default(),
        issues: vec![Issue {
            code: IssueCode::NoData,
            severity: Severity::Error,
            sensor: None,
            message: "no sensor sent a sample".to_owned(),
            message_zh: "没有任何传感器发送样本".to_owned(),
            affects: ["phase_delay", "energy_ratio", "rom_data", "scores"].map(str::to_owned).to_vec(),
        }],
        provenance: Provenance {
            name: String::new(),
            pipeline: "volant-pipelines 0.1.0".to_owned(),
            params_sha256: String::new(),
            model: None,
            model_sha256: None,
        },
    }
}

#[test]
fn text_in_english() {
    insta::assert_snapshot!(text(&analysis(), Lang::En));
}

#[test]
fn text_in_chinese() {
    insta::assert_snapshot!(text(&analysis(), Lang::Zh));
}

#[test]
fn text_of_nothing() {
    insta::assert_snapshot!(text(&empty(), Lang::En));
}

#[test]
fn page_in_english() {
    let analysis = analysis();
    // Ten samples a second keep the snapshot short enough to read; the style is a file of its own.
    let page = html(&analysis, &context(&analysis, 10.0), Lang::En);
    insta::assert_snapshot!(page.replace(include_str!("style.css"), ""));
}

#[test]
fn absent_figures_are_explained_and_never_zero() {
    let page = html(&empty(), &Context::default(), Lang::En);
    assert_eq!(page.matches("not computed: no sensor sent a sample").count(), 7, "three delays, ratio, three ranges");
    assert_eq!(page.matches("<small>no sensor sent a sample</small>").count(), 4, "four scores");
    assert!(!page.contains("<b>0 ms</b>") && !page.contains("<b>0.00</b>") && !page.contains("<b>0°</b>"));
    // The word of the issue, where the analysis gives none, is ours.
    let mut unexplained = empty();
    unexplained.issues.clear();
    assert!(html(&unexplained, &Context::default(), Lang::Zh).contains("未计算: 本次记录缺少所需数据"));
}

#[test]
fn what_takes_data_away_explains_better_than_what_weakens_them() {
    let mut analysis = empty();
    let issue = |code, message: &str| Issue { code, message: message.to_owned(), ..empty().issues.remove(0) };
    analysis.issues = vec![issue(IssueCode::SensorMissing, "no waist"), issue(IssueCode::Saturation, "at its limit")];
    assert!(
        text(&analysis, Lang::En)
            .contains("energy ratio, waist rotation, shoulder flexion, wrist extension): no waist")
    );
}

#[test]
fn figures_that_are_not_finite_are_absent() {
    let mut analysis = analysis();
    analysis.session.phase_delay.waist_to_shoulder = Some(f64::NAN);
    analysis.strokes[0].metrics.insert("racket_head_speed_mps".to_owned(), f64::INFINITY);
    for output in [html(&analysis, &context(&analysis, 10.0), Lang::En), text(&analysis, Lang::En)] {
        assert!(!output.contains("NaN") && !output.contains(">inf") && !output.contains(" inf "));
    }
}

#[test]
fn hostile_texts_stay_text() {
    let mut analysis = analysis();
    let hostile = "<script>alert('&\"')</script>";
    analysis.strokes[0].stroke = hostile.to_owned();
    analysis.session.stroke_counts.insert(hostile.to_owned(), 1);
    analysis.session.recommendations.push(hostile.to_owned());
    analysis.issues[0].message = hostile.to_owned();
    analysis.provenance.pipeline = hostile.to_owned();
    analysis.provenance.model = Some(hostile.to_owned());
    let context = Context {
        title: Some(hostile.to_owned()),
        session_id: Some(hostile.to_owned()),
        device: Some(hostile.to_owned()),
        player: Some(hostile.to_owned()),
        ..context(&analysis, 10.0)
    };
    let page = html(&analysis, &context, Lang::En);
    assert!(!page.contains("<script"), "markup got through");
    assert!(page.matches("&lt;script&gt;alert(&#39;&amp;&quot;&#39;)").count() >= 9);
}

#[test]
fn the_page_stands_alone_and_repeats() {
    let analysis = analysis();
    let context = context(&analysis, 200.0);
    let page = html(&analysis, &context, Lang::Zh);
    for outside in ["http://", "https://", "src=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!(page, html(&analysis, &context, Lang::Zh));
    assert!(page.len() < 400_000, "{} bytes", page.len());
}

#[test]
fn curves_are_thinned_but_keep_every_peak_and_gap() {
    let analysis = analysis();
    let full = track(&analysis, 200.0);
    let curves = Curve::of_track(&full);
    for (curve, (role, samples)) in curves.iter().zip(full.iter()) {
        let largest = samples.gyro.iter().map(|gyro| f64::from(gyro[0])).fold(0.0, f64::max);
        assert!((curve.peak_dps() - largest).abs() < 1e-6, "{role}");
        assert!(curve.runs.iter().map(Vec::len).sum::<usize>() <= 910, "{role}");
        assert_eq!(curve.runs.len(), if role == SensorRole::Wrist { 2 } else { 1 }, "{role}");
    }
    // A slow recording keeps each sample.
    let slow = Curve::of_track(&track(&analysis, 2.5));
    assert_eq!(slow[0].runs.iter().map(Vec::len).sum::<usize>(), 120);
}

#[test]
fn the_picture_shows_every_sensor_in_its_colour_and_repeats() {
    let analysis = analysis();
    let curves = Curve::of_track(&track(&analysis, 200.0));
    let png = super::picture("Session 7", &curves, Some(&analysis), super::PictureFormat::Png).unwrap();
    let pixmap = resvg::tiny_skia::Pixmap::decode_png(&png).unwrap();
    assert_eq!((pixmap.width(), pixmap.height()), (1800, 900));
    // The legend's swatches are opaque.
    for (role, rgb) in [
        (SensorRole::Waist, [0xff, 0x63, 0x84]),
        (SensorRole::Shoulder, [0x36, 0xa2, 0xeb]),
        (SensorRole::Wrist, [0xff, 0xce, 0x56]),
        (SensorRole::Racket, [0x4b, 0xc0, 0xc0]),
    ] {
        let found = pixmap.pixels().iter().filter(|pixel| [pixel.red(), pixel.green(), pixel.blue()] == rgb).count();
        assert!(found > 100, "{role}: {found} pixels");
    }
    let dark = pixmap.pixels().iter().filter(|pixel| pixel.red() < 0x60 && pixel.green() < 0x60).count();
    assert!(dark > 2000, "the font drew {dark} pixels");
    let jpeg = super::picture("Session 7", &curves, Some(&analysis), super::PictureFormat::Jpeg).unwrap();
    assert!(jpeg.starts_with(&[0xff, 0xd8, 0xff]) && jpeg.len() < 600_000, "{} bytes", jpeg.len());
    assert_eq!(jpeg, super::picture("Session 7", &curves, Some(&analysis), super::PictureFormat::Jpeg).unwrap());
    // A device that begins late does not move the curves: the earliest sample is at 0, as in the answers with the peaks.
    let mut late = curves.clone();
    for point in late.iter_mut().flat_map(|curve| curve.runs.iter_mut().flatten()) {
        point.t_s += 16.0;
    }
    let of = |curves: &[Curve]| super::picture("Session 7", curves, None, super::PictureFormat::Jpeg).unwrap();
    assert!(of(&late) == of(&curves));
    let nothing = super::picture("<nothing> & \"more\"", &[], None, super::PictureFormat::Jpeg).unwrap();
    assert!(nothing.starts_with(&[0xff, 0xd8, 0xff]));
}
