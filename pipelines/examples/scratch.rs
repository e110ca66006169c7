use schemas::*;
use volant_pipelines::*;
pub fn load(dir: &str) -> Vec<(String, Track, Vec<Mark>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().unwrap() == "bin")
        .collect();
    files.sort();
    let labels = std::fs::read_to_string(format!("{dir}/labels.csv")).unwrap();
    files
        .into_iter()
        .map(|f| {
            let name = f.file_stem().unwrap().to_str().unwrap().to_owned();
            let b = std::fs::read(&f).unwrap();
            let v: Vec<f64> = b.chunks_exact(8).map(|c| f64::from_le_bytes(c.try_into().unwrap())).collect();
            let mut track = Track::default();
            let s = track.get_or_insert(SensorRole::Wrist).unwrap();
            for r in v.chunks_exact(7) {
                s.push(
                    (r[0] * 1e6) as i64,
                    [r[1] as f32, r[2] as f32, r[3] as f32],
                    [r[4] as f32, r[5] as f32, r[6] as f32],
                    [f32::NAN; 3],
                );
            }
            let marks = labels
                .lines()
                .skip(1)
                .map(|l| l.split(',').collect::<Vec<_>>())
                .filter(|c| c[0] == name)
                .map(|c| Mark {
                    player: c[1].into(),
                    start_ms: c[2].parse().ok(),
                    peak_ms: c[3].parse().unwrap(),
                    end_ms: c[4].parse().ok(),
                    stroke: c[5].into(),
                    quality: MarkQuality::from_name(c[6]),
                })
                .collect();
            (name, track, marks)
        })
        .collect()
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let p = Params::builtin();
    match a[1].as_str() {
        "seg" => {
            for dir in &a[3..] {
                let r = load(dir);
                let l: Vec<_> =
                    r.iter().map(|(n, t, m)| LabelledTrack { set: "s", name: n, track: t, marks: m }).collect();
                let e = evaluate(
                    &l,
                    p,
                    Judge::Nobody,
                    &EvaluateOptions { tolerance_ms: a[2].parse().unwrap(), calibrate: 0 },
                )
                .unwrap();
                println!("{dir} {:?}\n   {:?}", e.segmentation.unwrap(), e.idle);
            }
        }
        "lopo" => {
            let r = load(&a[2]);
            let l: Vec<_> = r.iter().map(|(n, t, m)| LabelledTrack { set: "s", name: n, track: t, marks: m }).collect();
            for (pen, sh) in [(0.2, 0.1), (0.2, 0.3), (1.0, 0.2)] {
                {
                    let o = TrainOptions { penalty: pen, shrinkage: sh, seed: 1, ..TrainOptions::default() };
                    let t = std::time::Instant::now();
                    let e = evaluate(
                        &l,
                        p,
                        Judge::LeaveOnePlayerOut(&o),
                        &EvaluateOptions { tolerance_ms: 600.0, calibrate: a.get(3).map_or(0, |k| k.parse().unwrap()) },
                    )
                    .unwrap();
                    let c = e.classification.unwrap();
                    println!(
                        "pen {pen} sh {sh} acc {:.3} f1 {:.3} cover {:.3} sure {:.3} {:?} {:?} {:?}",
                        c.accuracy,
                        c.macro_f1,
                        c.coverage,
                        c.accuracy_when_sure.unwrap(),
                        c.players.values().map(|p| (p.accuracy * 1000.0).round()).collect::<Vec<_>>(),
                        t.elapsed(),
                        e.notes
                    );
                    if pen == 0.5 && sh == 0.3 {
                        println!("{:?} {:?}\n{:?}", c.classes, c.confusion, e.segmentation);
                    }
                }
            }
        }
        "synth" => {
            let g: Vec<_> = (0..a[2].parse().unwrap()).map(|i| generated_player(i, 5.0, 77)).collect();
            let l: Vec<_> =
                g.iter().map(|g| LabelledTrack { set: "g", name: &g.name, track: &g.track, marks: &g.marks }).collect();
            let e = evaluate(&l, p, Judge::Nobody, &EvaluateOptions::default()).unwrap();
            println!("{:?}", e.segmentation);
            for (g, l) in g.iter().zip(&l) {
                let e = evaluate(std::slice::from_ref(l), p, Judge::Nobody, &EvaluateOptions::default())
                    .unwrap()
                    .segmentation
                    .unwrap();
                let an = analyze(&g.track, p, None);
                let mut miss = std::collections::BTreeMap::<&str, (usize, usize)>::new();
                for m in &g.marks {
                    let c = miss.entry(&m.stroke).or_default();
                    c.1 += 1;
                    if !an.strokes.iter().any(|s| (s.impact_ms - m.peak_ms).abs() < 250.0) {
                        c.0 += 1;
                    }
                }
                println!(
                    "{} P {:.3} R {:.3} fa/min {:.2} err {:?} miss {:?}",
                    g.name,
                    e.precision.unwrap(),
                    e.recall.unwrap(),
                    e.false_alarms_per_min.unwrap(),
                    e.peak_error_ms_median,
                    miss.iter().filter(|m| m.1.0 > 0).collect::<Vec<_>>()
                );
            }
            let mut ex = Vec::new();
            for r in &l {
                ex.extend(examples(r, p));
            }
            println!("examples {}", ex.len());
            for pen in [0.05, 0.5] {
                let t = std::time::Instant::now();
                let m = train(&ex, &TrainOptions { penalty: pen, ..TrainOptions::default() }).unwrap();
                println!(
                    "pen {pen} {:?} conf {} bytes {} {:?} T {:?}",
                    m.header().leave_one_player_out,
                    m.header().confidence_min,
                    m.to_bytes().unwrap().len(),
                    t.elapsed(),
                    m.header().heads
                );
            }
        }
        "time" => {
            let mut s = synth::SynthSpec::new(5);
            s.rate_hz = 200.0;
            let g = synth::generate(&s);
            let m = if a.len() > 2 { Some(Model::from_bytes(&std::fs::read(&a[2]).unwrap()).unwrap()) } else { None };
            for _ in 0..8 {
                let t = std::time::Instant::now();
                let an = analyze(&g.track, p, m.as_ref());
                println!(
                    "{:?} strokes {} of {} n {}",
                    t.elapsed(),
                    an.strokes.len(),
                    g.truth.strokes.len(),
                    g.track.len()
                );
            }
            let an = analyze(&g.track, p, m.as_ref());
            println!(
                "{:#?} {:?} {:?} {:?} {:#?}",
                an.session.metrics, an.session.phase_delay, an.session.energy_ratio, an.session.rom_data, an.strokes[3]
            );
            for i in an.issues {
                println!("{:?} {}", i.code, i.message);
            }
        }
        "make" => {
            let r = load("/tmp/dump/badminton-wrist-10hz");
            let mut l: Vec<_> = r
                .iter()
                .map(|(n, t, m)| LabelledTrack { set: "badminton-wrist-10hz", name: n, track: t, marks: m })
                .collect();
            let g: Vec<_> = (0..a[3].parse().unwrap()).map(|i| generated_player(i, 5.0, 1)).collect();
            l.extend(g.iter().map(|g| LabelledTrack {
                set: "generated",
                name: &g.name,
                track: &g.track,
                marks: &g.marks,
            }));
            let mut ex = Vec::new();
            for r in &l {
                ex.extend(examples(r, p));
            }
            let m = train(
                &ex,
                &TrainOptions {
                    name: "volant-strokes-1".into(),
                    penalty: a[4].parse().unwrap(),
                    ..TrainOptions::default()
                },
            )
            .unwrap();
            println!("{:?}", m.header());
            std::fs::write(&a[2], m.to_bytes().unwrap()).unwrap();
        }
        "judge" => {
            let m = Model::from_bytes(&std::fs::read(&a[2]).unwrap()).unwrap();
            let g: Vec<_> = (1000..1008).map(|i| generated_player(i, 5.0, 999)).collect();
            let l: Vec<_> =
                g.iter().map(|g| LabelledTrack { set: "g", name: &g.name, track: &g.track, marks: &g.marks }).collect();
            let e = evaluate(&l, p, Judge::Model(&m), &EvaluateOptions::default()).unwrap();
            println!("{:?}\n{:?}", e.segmentation, e.classification);
            for dir in ["badminton-wrist-10hz", "tennis-wrist-100hz", "tennis-wrist-100hz-loss"] {
                let r = load(&format!("/tmp/dump/{dir}"));
                let l: Vec<_> =
                    r.iter().map(|(n, t, m)| LabelledTrack { set: "s", name: n, track: t, marks: m }).collect();
                let e = evaluate(&l, p, Judge::Model(&m), &EvaluateOptions::default()).unwrap();
                println!(
                    "{dir} {:?}\n {:?}\n  {:?}",
                    e.segmentation,
                    e.idle,
                    e.classification.map(|c| (c.accuracy, c.coverage, c.classes, c.confusion))
                );
            }
        }
        "gen" => {
            let g = generated_player(a[2].parse().unwrap(), 5.0, 77);
            let an = analyze(&g.track, p, None);
            for m in &g.marks {
                let d = an
                    .strokes
                    .iter()
                    .map(|s| s.impact_ms - m.peak_ms)
                    .min_by(|a, b| a.abs().total_cmp(&b.abs()))
                    .unwrap();
                println!(
                    "{:>10.0} {:12} nearest {:.0} {}",
                    m.peak_ms,
                    m.stroke,
                    d,
                    if d.abs() > 250.0 { "MISS" } else { "" }
                );
            }
            for s in &an.strokes {
                let d =
                    g.marks.iter().map(|k| s.impact_ms - k.peak_ms).min_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
                if d.abs() > 250.0 {
                    println!("swing {} strength {} nearest {d}", s.impact_ms, s.metrics["swing_strength"]);
                }
            }
        }
        "list" => {
            for (n, t, m) in load(&a[2]) {
                let an = analyze(&t, p, None);
                let s: Vec<f64> = an.strokes.iter().map(|s| s.impact_ms).collect();
                for mk in &m {
                    let d = s.iter().map(|x| (x - mk.peak_ms).abs()).fold(1e9, f64::min);
                    if d > 250.0 && mk.quality == MarkQuality::Counted {
                        println!("{n} mark {} nearest {d}", mk.peak_ms);
                    }
                }
                for x in &s {
                    let d = m.iter().map(|k| (x - k.peak_ms).abs()).fold(1e9, f64::min);
                    if d > 250.0 {
                        println!("{n} swing {x} nearest {d}");
                    }
                }
            }
        }
        _ => {}
    }
}
