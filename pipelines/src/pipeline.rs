//! The way from a recording to its analysis, in one place.

use std::collections::BTreeMap;
use std::f64::consts::SQRT_2;
use std::ops::RangeInclusive;

use rayon::prelude::*;
use schemas::{SensorRole, SensorTrack, Track};

use crate::advice::{Rules, advise};
use crate::analysis::{
    Analysis, Drill, Issue, IssueCode, PhaseDelay, Provenance, RangeOfMotion, Scores, SessionFigures, Severity, Stroke,
};
use crate::calibrate::{Signal, calibrate, median, norm, span_s};
use crate::correlate::repeatability;
use crate::definition::Stage;
use crate::drills::Together;
use crate::features::View;
use crate::kinetics::{Chain, Motion, of_swing, shaft_axis, unwrapped_range};
use crate::model::{Answer, Model, OTHER};
use crate::mounting::{Mounting, Suspicion, suspicion};
use crate::params::Params;
use crate::report::{
    PAIRS, Session, interval_ms, median_of, phase_delay, range_of_motion, recommendations, scores, session_delays,
    session_metrics,
};
use crate::segment::{Swing, choose_sensor, segment};
use crate::trend::{mann_kendall_p, theil_sen};

/// Name and version of the pipeline in every provenance. The version changes with every change of what is computed.
pub const PIPELINE: &str = concat!("volant-pipelines ", env!("CARGO_PKG_VERSION"), "+10");

/// Analyses a recording. Uses the rayon pool that it is called in; the result does not depend on its size.
///
/// ```
/// use volant_pipelines::{IssueCode, Params, analyze};
///
/// let analysis = analyze(&schemas::Track::default(), Params::builtin(), None);
/// assert!(analysis.strokes.is_empty());
/// assert_eq!(analysis.issues[0].code, IssueCode::NoData);
/// ```
#[must_use]
pub fn analyze(track: &Track, params: &Params, model: Option<&Model>) -> Analysis {
    analyze_stages(track, params, model, &Stage::ALL)
}

/// The same, with only these stages; what a stage that is left out would have found is absent.
pub(crate) fn analyze_stages(track: &Track, params: &Params, model: Option<&Model>, stages: &[Stage]) -> Analysis {
    let runs = |stage| stages.contains(&stage);
    let roles: Vec<SensorRole> = SensorRole::CHAIN.to_vec();
    let calibrated: Vec<Option<(Signal, Motion)>> = roles
        .par_iter()
        .map(|&role| {
            let samples = track.get(role)?;
            let signal = calibrate(role, samples, &params.calibrate)?;
            let motion = Motion::of(&signal, samples, params);
            Some((signal, motion))
        })
        .collect();
    let sensors: [Option<(&Signal, &Motion)>; 4] =
        std::array::from_fn(|i| calibrated[i].as_ref().map(|(signal, motion)| (signal, motion)));
    let signals = sensors.map(|sensor| sensor.map(|(signal, _)| signal));

    let mut issues = Issues::default();
    issues.of_sensors(&signals, track, params);

    let chosen = choose_sensor(&signals)
        .filter(|_| runs(Stage::Segment))
        .and_then(|signal| sensors[signal.role.chain_index()?]);
    let model = model.filter(|_| runs(Stage::Classify));
    let proposed = chosen.map(|(signal, _)| segment(signal, &params.segment)).unwrap_or_default();
    let usable_model = model.zip(chosen).and_then(|(model, (signal, _))| model.serves(signal).then_some(model));
    // What the model sees of a candidate, for its gate and for its name.
    let seen: Vec<(Swing, Option<Vec<View>>)> = match usable_model.zip(chosen) {
        Some((model, (signal, _))) => seen_by(model, &proposed, signal, params),
        None => proposed.iter().map(|swing| (*swing, None)).collect(),
    };
    let swings: Vec<Swing> = seen.iter().map(|(swing, _)| *swing).collect();
    let mut chain = Chain {
        sensors,
        clocks_s: clocks_s(track, params),
        params,
        shaft: sensors[3].and_then(|(racket, _)| shaft_axis(racket, &swings)),
    };
    let Named { answers, drills, suspicion } = match usable_model.zip(chosen) {
        Some((model, (signal, _))) => named(model, signal.role, &seen, params),
        None => Named { answers: vec![None; seen.len()], ..Named::default() },
    };
    let mut strokes: Vec<Stroke> = chosen.map_or_else(Vec::new, |(signal, motion)| {
        let measured = runs(Stage::Kinetics).then_some(motion);
        swings
            .par_iter()
            .zip(answers)
            .map(|(swing, answer)| stroke(swing, signal, measured, &chain, track, answer))
            .collect()
    });
    let drifts = drifts(&strokes, &chain);
    if let Some((signal, motion)) = chosen.filter(|_| runs(Stage::Kinetics)) {
        if let Some(worst_ms) = drifts.iter().map(|drift| drift.moved_ms.abs()).max_by(f64::total_cmp) {
            // Nobody knows when the clocks agreed: at worst at one end of the recording.
            let moved_s = 1e-3 * worst_ms / (params.kinetics.resolved_sigmas * SQRT_2);
            chain.clocks_s = chain.clocks_s.map(|error_s| error_s.hypot(moved_s));
            strokes.par_iter_mut().zip(&swings).for_each(|(stroke, swing)| {
                stroke.metrics = figures_of(swing, signal, motion, &chain, track);
            });
        }
        add_repeatability(signal, motion, &swings, &mut strokes);
    }
    // What nobody looked for is not missing.
    let mut unsaid = Issues::default();
    let said = if runs(Stage::Segment) { &mut issues } else { &mut unsaid };
    said.of_swings(&signals, chosen.map(|(signal, _)| signal), &strokes, params);
    if runs(Stage::Kinetics) {
        said.of_wearing(&strokes, &signals);
        said.of_drifts(&drifts);
    }
    said.of_gate(proposed.len() - swings.len(), chosen.map(|(signal, _)| signal));
    if runs(Stage::Classify) {
        said.of_model(model, usable_model, &strokes, chosen.map(|(signal, _)| signal));
        said.of_mounting(suspicion, usable_model, chosen.map(|(signal, _)| signal));
    }
    let mut session = figures(track, &sensors, &strokes, &chain, said);
    session.drills = drills;
    if runs(Stage::Report) {
        session.advice = advise(&strokes, &session, params, Rules::builtin());
    } else {
        session.scores = Scores::default();
        session.recommendations.clear();
    }
    Analysis {
        strokes,
        session,
        issues: issues.0,
        provenance: Provenance {
            name: params.name.clone(),
            pipeline: PIPELINE.to_owned(),
            params_sha256: params.sha256(),
            model: usable_model.map(|model| model.name().to_owned()),
            model_sha256: usable_model.map(|model| model.sha256().to_owned()),
        },
    }
}

/// The proposals that the model's gate takes for swings, each with what the model sees of it.
fn seen_by(model: &Model, proposed: &[Swing], signal: &Signal, params: &Params) -> Vec<(Swing, Option<Vec<View>>)> {
    proposed
        .par_iter()
        .filter_map(|swing| {
            let views = model.views(signal, &swing.span(), &params.classify);
            let gate = views.as_ref().filter(|_| params.classify.gate);
            let answer = gate.and_then(|views| model.gate(signal.role, views, swing.strength));
            answer.is_none_or(|answer| answer.kept).then_some((*swing, views))
        })
        .collect()
}

/// What a model says of all swings.
#[derive(Default)]
struct Named {
    answers: Vec<Option<Answer>>,
    drills: Vec<Drill>,
    suspicion: Option<Suspicion>,
}

/// What the model says of each swing: of each by itself, then of all together.
fn named(model: &Model, role: SensorRole, seen: &[(Swing, Option<Vec<View>>)], params: &Params) -> Named {
    let alone: Vec<Option<Vec<f64>>> =
        seen.par_iter().map(|(_, views)| model.probabilities(role, views.as_ref()?)).collect();
    let Together { values, drills } = model.together(&alone, &params.classify);
    let name = |values: Option<Vec<f64>>| Some(model.name_swing(&values?, params.classify.confidence_min));
    let answers: Vec<Option<Answer>> = values.into_iter().map(name).collect();
    let drill = |(class, run): (usize, RangeInclusive<usize>)| {
        let stroke = model.header().classes[class].clone();
        let named = answers[run.clone()].iter().flatten().filter(|answer| answer.stroke == stroke).count();
        let swings = &seen[run];
        Some(Drill {
            start_ms: swings.first()?.0.start_ns as f64 / 1e6,
            end_ms: swings.last()?.0.end_ns as f64 / 1e6,
            swings: swings.len(),
            stroke,
            named,
        })
    };
    let drills = drills.into_iter().filter_map(drill).collect();
    let known = seen.iter().zip(&alone).filter_map(|((_, views), alone)| Some((views.as_deref()?, alone.as_deref()?)));
    let suspicion = suspicion(model, role, &known.collect::<Vec<_>>());
    Named { answers, drills, suspicion }
}

fn add_repeatability(signal: &Signal, motion: &Motion, swings: &[Swing], strokes: &mut [Stroke]) {
    let impacts: Vec<(i64, &str)> =
        swings.iter().zip(strokes.iter()).map(|(swing, stroke)| (swing.impact_ns, stroke.stroke.as_str())).collect();
    let likeness = repeatability(signal, motion, &impacts);
    for (stroke, value) in strokes.iter_mut().zip(likeness) {
        if let Some(value) = value {
            stroke.metrics.insert("template_correlation".to_owned(), value);
        }
    }
}

/// Clock error of each sensor, one standard deviation, s: what the recording states; none if it states nothing but all
/// sensors have the same stamps, which only one clock gives; else what is assumed.
fn clocks_s(track: &Track, params: &Params) -> [f64; 4] {
    let stated_ns = SensorRole::CHAIN.map(|role| track.clock_error_ns(role));
    let unstated_s =
        if stated_ns.contains(&0) && !one_clock(track) { params.kinetics.sync_assumed_ms / 1e3 } else { 0.0 };
    stated_ns.map(|error_ns| if error_ns == 0 { unstated_s } else { error_ns.max(0) as f64 / 1e9 })
}

/// A delay that moves steadily over the recording, as clocks that drift apart move it.
struct Drift {
    pair: &'static str,
    /// From the first stroke to the last.
    moved_ms: f64,
    ppm: f64,
}

/// The delays that move by more than the clocks' error explains. Technique that tires moves them too, and cannot be told
/// apart without another clock.
fn drifts(strokes: &[Stroke], chain: &Chain<'_>) -> Vec<Drift> {
    const P_MAX: f64 = 0.001;
    let Some((first, last)) = strokes.first().zip(strokes.last()) else { return Vec::new() };
    let drift = |(pair, apart_s): (&'static str, f64)| {
        let middle = |stroke: &Stroke| {
            let (low, high) = interval_ms(stroke, pair)?;
            Some((stroke.impact_ms, f64::midpoint(low, high)))
        };
        let (times, delays): (Vec<f64>, Vec<f64>) = strokes.iter().filter_map(middle).unzip();
        let (slope, p) = theil_sen(&times, &delays).zip(mann_kendall_p(&times, &delays))?;
        let moved_ms = slope * (last.impact_ms - first.impact_ms);
        // Sensors on one clock cannot drift apart.
        let explained_ms = chain.params.kinetics.resolved_sigmas * apart_s * 1e3;
        let drifts = p < P_MAX && apart_s > 0.0 && moved_ms.abs() > explained_ms;
        drifts.then_some(Drift { pair, moved_ms, ppm: slope * 1e6 })
    };
    PAIRS.into_iter().zip(chain.neighbours_apart_s()).filter_map(drift).collect()
}

/// True if nine of ten stamps of each sensor are stamps of the next one too.
fn one_clock(track: &Track) -> bool {
    let sensors: Vec<&SensorTrack> = track.iter().map(|(_, sensor)| sensor).collect();
    sensors.len() > 1
        && sensors.windows(2).all(|pair| {
            let (a, b) = (&pair[0].t_ns, &pair[1].t_ns);
            let (mut i, mut j, mut same) = (0, 0, 0_usize);
            while i < a.len() && j < b.len() {
                match a[i].cmp(&b[j]) {
                    std::cmp::Ordering::Less => i += 1,
                    std::cmp::Ordering::Greater => j += 1,
                    std::cmp::Ordering::Equal => {
                        (i, j, same) = (i + 1, j + 1, same + 1);
                    }
                }
            }
            same * 10 >= a.len().min(b.len()) * 9 && same > 0
        })
}

fn figures_of(
    swing: &Swing,
    signal: &Signal,
    motion: &Motion,
    chain: &Chain<'_>,
    track: &Track,
) -> BTreeMap<String, f64> {
    let mut metrics = of_swing(swing, signal, motion, chain);
    for (name, role, component) in [
        ("rom_waist_deg", SensorRole::Waist, 2),
        ("rom_shoulder_deg", SensorRole::Shoulder, 1),
        ("rom_wrist_deg", SensorRole::Wrist, 0),
    ] {
        if let Some(range) = rom_of_swing(swing, track, role, component) {
            metrics.insert(name.to_owned(), range);
        }
    }
    metrics
}

fn stroke(
    swing: &Swing,
    signal: &Signal,
    measured: Option<&Motion>,
    chain: &Chain<'_>,
    track: &Track,
    answer: Option<Answer>,
) -> Stroke {
    let metrics = measured.map_or_else(BTreeMap::new, |motion| figures_of(swing, signal, motion, chain, track));
    let (stroke, confidence, probabilities, levels) = match answer {
        Some(answer) => (answer.stroke, Some(answer.confidence), answer.probabilities, answer.levels),
        // Something was swung; nobody can say what.
        None => (OTHER.to_owned(), None, BTreeMap::new(), BTreeMap::new()),
    };
    Stroke {
        start_ms: swing.start_ns as f64 / 1e6,
        impact_ms: swing.impact_ns as f64 / 1e6,
        end_ms: swing.end_ns as f64 / 1e6,
        sensor: signal.role,
        stroke,
        confidence,
        probabilities,
        levels,
        metrics,
    }
}

/// Range of one angle within a swing, °; `None` where the sensor sends none or its samples are not in order.
fn rom_of_swing(swing: &Swing, track: &Track, role: SensorRole, component: usize) -> Option<f64> {
    let sensor = track.get(role)?;
    let from = sensor.t_ns.partition_point(|&t| t < swing.start_ns);
    let to = sensor.t_ns.partition_point(|&t| t <= swing.end_ns);
    let angles = sensor.angle.get(from..to)?;
    unwrapped_range(angles.iter().map(|angle| angle[component]))
}

fn figures(
    track: &Track,
    sensors: &[Option<(&Signal, &Motion)>; 4],
    strokes: &[Stroke],
    chain: &Chain<'_>,
    issues: &mut Issues,
) -> SessionFigures {
    let params = chain.params;
    let signals = &sensors.map(|sensor| sensor.map(|(signal, _)| signal));
    let first = signals.iter().flatten().map(|signal| signal.raw_t_ns[0]).min();
    let last = signals.iter().flatten().filter_map(|signal| signal.raw_t_ns.last().copied()).max();
    let duration_s = first.zip(last).map_or(0.0, |(first, last)| span_s(first, last));
    let mut stroke_counts: BTreeMap<String, usize> = BTreeMap::new();
    for stroke in strokes {
        *stroke_counts.entry(stroke.stroke.clone()).or_default() += 1;
    }
    let delays = session_delays(strokes, chain.neighbours_apart_s(), params.kinetics.resolved_sigmas);
    let delay = phase_delay(&delays);
    let energy_ratio = median_of(strokes, "energy_ratio");
    let rom = range_of_motion(track);
    issues.of_figures(signals, strokes, &delay, energy_ratio, &rom);
    let advice =
        if strokes.is_empty() { Vec::new() } else { recommendations(&delay, energy_ratio, &rom, &params.report) };
    SessionFigures {
        duration_s,
        frame_count: track.len(),
        stroke_counts,
        drills: Vec::new(),
        phase_delay: delay,
        energy_ratio,
        rom_data: rom,
        scores: scores(&delay, energy_ratio, &rom, &params.report),
        metrics: session_metrics(strokes, &Session { duration_s, sensors: *sensors, delays, params: &params.kinetics }),
        recommendations: advice,
        advice: Vec::new(),
        sensors: signals.iter().flatten().map(|signal| (signal.role, signal.quality.clone())).collect(),
    }
}

const CHAIN_FIGURES: [&str; 3] = ["phase_delay", "energy_ratio", "scores"];

/// The issues in the order they were found: sensors, swings, model, figures.
#[derive(Default)]
struct Issues(Vec<Issue>);

impl Issues {
    fn add(
        &mut self,
        code: IssueCode,
        severity: Severity,
        sensor: Option<SensorRole>,
        [message, message_zh]: [String; 2],
        affects: &[&str],
    ) {
        let affects = affects.iter().map(|&name| name.to_owned()).collect();
        self.0.push(Issue { code, severity, sensor, message, message_zh, affects });
    }

    fn of_sensors(&mut self, signals: &[Option<&Signal>; 4], track: &Track, params: &Params) {
        if signals.iter().all(Option::is_none) {
            self.add(
                IssueCode::NoData,
                Severity::Error,
                None,
                ["The recording has no usable sample.".into(), "本次录制没有可用的数据。".into()],
                &["strokes", "phase_delay", "energy_ratio", "rom_data", "scores"],
            );
            return;
        }
        for (signal, role) in signals.iter().zip(SensorRole::CHAIN) {
            let zh = name_zh(role);
            let Some(signal) = signal else {
                let affects: &[&str] = match role {
                    SensorRole::Waist => &["phase_delay.waist_to_shoulder", "energy_ratio", "rom_data.waist", "scores"],
                    SensorRole::Shoulder => &["phase_delay", "rom_data.shoulder", "scores"],
                    SensorRole::Wrist => &["phase_delay", "energy_ratio", "rom_data.wrist", "scores"],
                    _ => &["phase_delay.wrist_to_racket", "racket_head_speed_mps"],
                };
                self.add(
                    IssueCode::SensorMissing,
                    Severity::Warning,
                    Some(role),
                    [format!("The {role} sensor sent nothing usable."), format!("{zh}传感器没有可用数据。")],
                    affects,
                );
                continue;
            };
            self.of_sensor(signal, zh, params);
            self.of_untimed(track.get(role), role);
        }
        self.of_clocks(signals, track, params);
    }

    /// Clocks that are off by more than delays are worth: those of single sensors, or of all.
    fn of_clocks(&mut self, signals: &[Option<&Signal>; 4], track: &Track, params: &Params) {
        let there: Vec<(SensorRole, f64)> = signals
            .iter()
            .flatten()
            .map(|signal| (signal.role, track.clock_error_ns(signal.role).max(0) as f64 / 1e6))
            .collect();
        let off = |&(_, error_ms): &(SensorRole, f64)| error_ms > params.kinetics.sync_warn_ms;
        if there.len() < 2 || !there.iter().any(off) {
            return;
        }
        if there.iter().all(off) {
            let sync_ms = there.iter().map(|(_, error_ms)| *error_ms).fold(0.0, f64::max);
            self.add(
                IssueCode::ClockUnsynced,
                Severity::Warning,
                None,
                [
                    format!(
                        "The sensors' clocks agree only within {sync_ms:.0} ms: shorter delays cannot be resolved."
                    ),
                    format!("各传感器时钟误差约 {sync_ms:.0} 毫秒，更短的延迟无法分辨。"),
                ],
                &["phase_delay"],
            );
            return;
        }
        for &(role, error_ms) in there.iter().filter(|clock| off(clock)) {
            let zh = name_zh(role);
            let affects: &[&str] = match role {
                SensorRole::Waist => &["phase_delay.waist_to_shoulder"],
                SensorRole::Shoulder => &["phase_delay.waist_to_shoulder", "phase_delay.shoulder_to_wrist"],
                SensorRole::Wrist => &["phase_delay.shoulder_to_wrist", "phase_delay.wrist_to_racket"],
                _ => &["phase_delay.wrist_to_racket"],
            };
            self.add(
                IssueCode::ClockUnsynced,
                Severity::Warning,
                Some(role),
                [
                    format!(
                        "The clock of the {role} sensor agrees with the others only within {error_ms:.0} ms: shorter delays \
                         to and from it cannot be resolved."
                    ),
                    format!("{zh}传感器的时钟与其他传感器相差约 {error_ms:.0} 毫秒，与其相关的更短延迟无法分辨。"),
                ],
                affects,
            );
        }
    }

    /// Frames that nobody knows the time of.
    fn of_untimed(&mut self, track: Option<&SensorTrack>, role: SensorRole) {
        // As many as of a link that is called lossy.
        const SHARE: f64 = 0.02;
        let Some(track) = track.filter(|track| track.untimed > 0) else { return };
        let (count, zh) = (track.untimed, name_zh(role));
        let lossy = count as f64 > SHARE * (track.len() + count) as f64;
        self.add(
            IssueCode::FramesUntimed,
            if lossy { Severity::Warning } else { Severity::Info },
            Some(role),
            [
                format!("Frames of the {role} sensor without a time of their own, left out: {count}."),
                format!("{zh}传感器有 {count} 帧没有时间，未参与分析。"),
            ],
            &["strokes", "phase_delay"],
        );
    }

    fn of_drifts(&mut self, drifts: &[Drift]) {
        for Drift { pair, moved_ms, ppm } in drifts {
            let name = pair.replace('_', " → ");
            self.add(
                IssueCode::ClockDriftSuspected,
                Severity::Warning,
                None,
                [
                    format!(
                        "The delay {name} moves steadily by {moved_ms:.0} ms over the session ({ppm:.0} ppm): clocks that drift \
                         apart look like this, and the delays' intervals are wide enough for it."
                    ),
                    format!(
                        "{name} 的延迟在全程内持续变化 {moved_ms:.0} 毫秒（{ppm:.0} ppm），疑似时钟漂移，延迟区间已相应放宽。"
                    ),
                ],
                &["phase_delay", "order_tau", "scores"],
            );
        }
    }

    fn of_sensor(&mut self, signal: &Signal, zh: &str, params: &Params) {
        let role = signal.role;
        let quality = &signal.quality;
        if quality.gaps > 0 {
            let (count, total_s) = (quality.gaps, quality.gap_s);
            let (text, text_zh) = if count == 1 {
                (format!("a gap of {total_s:.2} s"), format!("1 处中断，{total_s:.2} 秒"))
            } else {
                let mean_s = total_s / count as f64;
                (
                    format!("{count} gaps, {total_s:.2} s in all, {mean_s:.2} s on average"),
                    format!("{count} 处中断，共 {total_s:.2} 秒，平均 {mean_s:.2} 秒"),
                )
            };
            self.add(
                IssueCode::Gap,
                if quality.gap_s > 0.02 * signal.covered_s() { Severity::Warning } else { Severity::Info },
                Some(role),
                [format!("The {role} sensor has {text}."), format!("{zh}传感器数据有 {text_zh}。")],
                &["strokes", "phase_delay"],
            );
        }
        if quality.saturated_share > 0.0 {
            let percent = quality.saturated_share * 100.0;
            self.add(
                IssueCode::Saturation,
                if quality.saturated_share > 0.01 { Severity::Warning } else { Severity::Info },
                Some(role),
                [
                    format!(
                        "The {role} sensor was at its limit in {percent:.1}% of the samples: true peaks are higher."
                    ),
                    format!("{zh}传感器有 {percent:.1}% 的数据达到量程上限，实际峰值更高。"),
                ],
                &["peak_gyro_dps", "peak_accel_mps2", "racket_head_speed_mps", "energy_ratio"],
            );
        }
        if let Some(rate) = quality.rate_hz.filter(|&rate| rate < params.calibrate.rate_low_hz) {
            self.add(
                IssueCode::RateLow,
                Severity::Warning,
                Some(role),
                [
                    format!("The {role} sensor delivered {rate:.1} samples a second: too few for timing."),
                    format!("{zh}传感器采样率仅为每秒 {rate:.1} 次，不足以分析时序。"),
                ],
                &["impact_ms", "phase_delay", "smoothness_sparc"],
            );
        }
        if quality.acc_to_mps2.is_none() {
            self.add(
                IssueCode::UnitUndecided,
                Severity::Warning,
                Some(role),
                [
                    format!("At rest the {role} sensor reads neither 1 g nor 9.8 m/s²: its acceleration is not used."),
                    format!("{zh}传感器静止读数既非 1 g 也非 9.8 m/s²，未使用其加速度。"),
                ],
                &["peak_accel_mps2", "energy_ratio"],
            );
        }
        if signal.faults.unsorted || signal.faults.beyond_limit > 0 {
            let (text, text_zh) = if signal.faults.beyond_limit > 0 {
                let count = signal.faults.beyond_limit;
                (
                    format!("Samples of the {role} sensor beyond the longest recording, left out: {count}."),
                    format!("{zh}传感器有 {count} 个样本超出最长录制时间，未参与分析。"),
                )
            } else {
                (
                    format!("The times of the {role} sensor run backwards; samples were sorted."),
                    format!("{zh}传感器时间出现倒退，已重新排序。"),
                )
            };
            self.add(IssueCode::ClockJump, Severity::Warning, Some(role), [text, text_zh], &["strokes", "phase_delay"]);
        }
        if signal.faults.duplicates > 0 {
            let count = signal.faults.duplicates;
            self.add(
                IssueCode::DuplicateTimes,
                Severity::Info,
                Some(role),
                [
                    format!("Samples of the {role} sensor that repeat the time of another, left out: {count}."),
                    format!("{zh}传感器有 {count} 个时间重复的样本，已忽略。"),
                ],
                &[],
            );
        }
        if signal.faults.implausible > 0 {
            let count = signal.faults.implausible;
            self.add(
                IssueCode::Implausible,
                Severity::Warning,
                Some(role),
                [
                    format!("Samples of the {role} sensor with values that no sensor can measure, left out: {count}."),
                    format!("{zh}传感器有 {count} 个不可能的数值，已忽略。"),
                ],
                &[],
            );
        }
    }

    fn of_swings(
        &mut self,
        signals: &[Option<&Signal>; 4],
        chosen: Option<&Signal>,
        strokes: &[Stroke],
        _params: &Params,
    ) {
        if signals.iter().all(Option::is_none) || !strokes.is_empty() {
            return;
        }
        let [text, text_zh] = if chosen.is_some() {
            ["No swing was found.", "没有检测到挥拍。"]
        } else {
            [
                "Swings are found on racket, wrist or shoulder, and none of these sensors is there.",
                "缺少球拍、手腕或肩部传感器，无法检测挥拍。",
            ]
        };
        self.add(
            IssueCode::NoSwings,
            Severity::Warning,
            None,
            [text.into(), text_zh.into()],
            &["strokes", "phase_delay", "energy_ratio", "scores"],
        );
    }

    /// Sensors that are not where they are said to be. Outward in the chain segments turn faster; where most swings of a
    /// recording say otherwise, and clearly, somebody mixed the sensors up.
    fn of_wearing(&mut self, strokes: &[Stroke], signals: &[Option<&Signal>; 4]) {
        let Some(suspicion) = misplaced(strokes, signals) else { return };
        let affects = ["phase_delay", "order_tau", "energy_ratio", "rom_data", "stroke", "scores"];
        match suspicion {
            Misplaced::Swapped(a, b) => self.add(
                IssueCode::SensorSwapped,
                Severity::Warning,
                Some(a),
                [
                    format!("In most swings the {a} sensor turns as the {b} should and the other way round: were they swapped?"),
                    format!("多数挥拍中{}与{}传感器的转动相反：两个传感器是否互换？", name_zh(a), name_zh(b)),
                ],
                &affects,
            ),
            Misplaced::Elsewhere(role) => self.add(
                IssueCode::SensorMisplaced,
                Severity::Warning,
                Some(role),
                [
                    format!("In most swings the {role} sensor does not move as the {role} of the racket arm does: is it worn elsewhere?"),
                    format!("多数挥拍中{}传感器的运动与持拍侧不符：是否佩戴在其他位置？", name_zh(role)),
                ],
                &affects,
            ),
        }
    }

    fn of_gate(&mut self, rejected: usize, chosen: Option<&Signal>) {
        let Some(signal) = chosen.filter(|_| rejected > 0) else { return };
        self.add(
            IssueCode::CandidatesRejected,
            Severity::Info,
            Some(signal.role),
            [
                format!("{rejected} movements were left out: they look like the other movement that the model knows."),
                format!("有 {rejected} 次动作与模型所知的非挥拍动作相似，未计入。"),
            ],
            &["strokes"],
        );
    }

    fn of_mounting(&mut self, suspicion: Option<Suspicion>, model: Option<&Model>, chosen: Option<&Signal>) {
        let (Some(suspicion), Some(model), Some(signal)) = (suspicion, model, chosen) else { return };
        let Suspicion { mounting, as_it_is, otherwise } = suspicion;
        let (role, zh, axis, name) = (signal.role, name_zh(signal.role), mounting.axis(), model.name());
        let (code, [how, asks], [how_zh, asks_zh]) = match mounting {
            Mounting::Mirrored(_) => (
                IssueCode::OtherHandSuspected,
                ["mirrored across its axis", "is it the other hand?"],
                ["镜像", "是否为另一只手？"],
            ),
            Mounting::Turned(_) => (
                IssueCode::SensorTurnedSuspected,
                ["turned by half about its axis", "is it worn the other way round?"],
                ["旋转半周", "传感器是否戴反？"],
            ),
        };
        self.add(
            code,
            Severity::Warning,
            Some(role),
            [
                format!(
                    "The {role} sensor's swings are more like those that model {name} learned from when they are {how} {axis} \
                     ({otherwise:.2} standard deviations away instead of {as_it_is:.2}): {asks}"
                ),
                format!(
                    "{zh}传感器若沿 {axis} 轴{how_zh}，挥拍更接近模型 {name} 的训练数据（相距 {otherwise:.2} 个标准差，现为 {as_it_is:.2}）：{asks_zh}"
                ),
            ],
            &["stroke", "stroke_counts", "confidence"],
        );
    }

    fn of_model(&mut self, model: Option<&Model>, usable: Option<&Model>, strokes: &[Stroke], chosen: Option<&Signal>) {
        let Some(signal) = chosen.filter(|_| !strokes.is_empty() && usable.is_none()) else { return };
        let [text, text_zh] = match model {
            None => {
                ["No model ran: strokes have no names.".to_owned(), "未使用分类模型，无法判断击球类型。".to_owned()]
            }
            Some(model) => [
                format!(
                    "Model {} does not fit the {} sensor at {:.1} Hz: strokes have no names.",
                    model.name(),
                    signal.role,
                    signal.rate_hz
                ),
                format!("模型 {} 不适用于当前传感器，无法判断击球类型。", model.name()),
            ],
        };
        self.add(IssueCode::NoModel, Severity::Warning, Some(signal.role), [text, text_zh], &["stroke", "confidence"]);
    }

    fn of_figures(
        &mut self,
        signals: &[Option<&Signal>; 4],
        strokes: &[Stroke],
        delay: &PhaseDelay,
        energy_ratio: Option<f64>,
        rom: &RangeOfMotion,
    ) {
        for (value, role, zh, figure) in [
            (rom.waist, SensorRole::Waist, "腰部", "rom_data.waist"),
            (rom.shoulder, SensorRole::Shoulder, "肩部", "rom_data.shoulder"),
            (rom.wrist, SensorRole::Wrist, "手腕", "rom_data.wrist"),
        ] {
            let there = role.chain_index().is_some_and(|index| signals[index].is_some());
            if value.is_none() && there {
                self.add(
                    IssueCode::AnglesMissing,
                    Severity::Warning,
                    Some(role),
                    [
                        format!("The {role} sensor sent no angles: its range of motion cannot be computed."),
                        format!("{zh}传感器没有角度数据，无法计算活动幅度。"),
                    ],
                    &[figure, "scores"],
                );
            }
        }
        if strokes.is_empty() {
            return;
        }
        for (value, pair, zh, figure) in [
            (delay.waist_to_shoulder, [0, 1], "腰部到肩部", "phase_delay.waist_to_shoulder"),
            (delay.shoulder_to_wrist, [1, 2], "肩部到手腕", "phase_delay.shoulder_to_wrist"),
            (delay.wrist_to_racket, [2, 3], "手腕到球拍", "phase_delay.wrist_to_racket"),
        ] {
            if !pair.iter().all(|&index| signals[index].is_some()) {
                continue;
            }
            let [from, to] = pair.map(|index| SensorRole::CHAIN[index]);
            let resolved = strokes.iter().filter(|s| s.metrics.contains_key(&format!("delay_{from}_{to}_ms"))).count();
            let all = strokes.len();
            if value.is_none() {
                self.add(
                    IssueCode::NotResolved,
                    Severity::Warning,
                    None,
                    [
                        format!(
                            "The delay from {from} to {to} is smaller than the clocks and rates can resolve (resolved in \
                             {resolved} of {all} strokes)."
                        ),
                        format!("{zh}的延迟小于时钟与采样率可分辨的范围（{all} 次击球中 {resolved} 次可分辨）。"),
                    ],
                    &[figure, "scores.delay", "scores.overall"],
                );
            } else if 2 * resolved < all {
                self.add(
                    IssueCode::NotResolved,
                    Severity::Info,
                    None,
                    [
                        format!(
                            "The delay from {from} to {to} is resolved in {resolved} of {all} strokes only: elsewhere it is \
                             below twice its uncertainty, or a peak is missing."
                        ),
                        format!("{zh}的延迟仅在 {all} 次击球中的 {resolved} 次可分辨，其余小于其不确定度的两倍或缺少峰值。"),
                    ],
                    &[],
                );
            }
        }
        if energy_ratio.is_none() && signals[0].is_some() && signals[2].is_some() {
            self.add(
                IssueCode::NotResolved,
                Severity::Warning,
                None,
                [
                    "No swing has a whole acceleration phase on waist and wrist: no energy ratio.".into(),
                    "没有一次挥拍在腰部和手腕上有完整的加速段，无法计算能量比。".into(),
                ],
                &CHAIN_FIGURES[1..],
            );
        }
    }
}

/// What the rates of the sensors say about where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misplaced {
    Swapped(SensorRole, SensorRole),
    Elsewhere(SensorRole),
}

/// 99th percentile of the angular rate over at least half a minute, °/s; `None` for someone who does not play.
fn high_rate_dps(signal: &Signal) -> Option<f64> {
    const LEAST_DPS: f64 = 100.0;
    if !signal.has_gyro || signal.covered_s() < 30.0 {
        return None;
    }
    let mut rates: Vec<f64> = signal.grid.iter().step_by(4).map(|v| norm([v[3], v[4], v[5]])).collect();
    let rank = (rates.len() - 1) * 99 / 100;
    let high = *rates.select_nth_unstable_by(rank, f64::total_cmp).1;
    (high >= LEAST_DPS).then_some(high)
}

/// Compares the peak rates of every two sensors over all swings. An inner one that turns faster than an outer one by a third
/// (median) and in four of five of at least eight swings is out of place.
///
/// With the racket's sensor on the waist, hardly a swing is found; then the rates of the whole recording must do, its 99th
/// percentile, by half.
fn misplaced(strokes: &[Stroke], signals: &[Option<&Signal>; 4]) -> Option<Misplaced> {
    const SWINGS_MIN: usize = 8;
    const RATIO_MIN: f64 = 4.0 / 3.0;
    const WHOLE_RATIO_MIN: f64 = 1.5;
    let high = signals.map(|signal| signal.and_then(high_rate_dps));
    let whole = |inner: SensorRole, outer: SensorRole| {
        let of = |role: SensorRole| high[role.chain_index()?];
        of(inner).zip(of(outer)).is_some_and(|(inner, outer)| inner >= WHOLE_RATIO_MIN * outer)
    };
    let peak = |stroke: &Stroke, role: SensorRole| stroke.metrics.get(&format!("peak_gyro_{role}_dps")).copied();
    let inverted = |inner: SensorRole, outer: SensorRole| {
        let mut ratios: Vec<f64> =
            strokes.iter().filter_map(|s| Some(peak(s, inner)? / peak(s, outer)?)).filter(|r| r.is_finite()).collect();
        let over = ratios.iter().filter(|ratio| **ratio > 1.0).count();
        let (count, middle) = (ratios.len(), median(&mut ratios));
        if count < SWINGS_MIN {
            return whole(inner, outer);
        }
        over * 5 >= count * 4 && middle.is_some_and(|middle| middle >= RATIO_MIN)
    };
    let pairs: Vec<(SensorRole, SensorRole)> = (0..4)
        .flat_map(|i| (i + 1..4).map(move |j| (SensorRole::CHAIN[i], SensorRole::CHAIN[j])))
        .filter(|&(inner, outer)| inverted(inner, outer))
        .collect();
    // The pair furthest apart explains those between: waist against wrist also upsets both against the shoulder.
    let (inner, outer) =
        pairs.iter().copied().max_by_key(|(a, b)| b.chain_index().unwrap_or(0) - a.chain_index().unwrap_or(0))?;
    // A wrist that follows the racket in nothing is not a swapped one: it is on the other arm.
    let likeness = median_of(strokes, "xcorr_wrist_racket_strength");
    if outer == SensorRole::Wrist && likeness.is_some_and(|likeness| likeness < 0.6) {
        return Some(Misplaced::Elsewhere(SensorRole::Wrist));
    }
    Some(Misplaced::Swapped(inner, outer))
}

pub(crate) fn name_zh(role: SensorRole) -> &'static str {
    match role {
        SensorRole::Waist => "腰部",
        SensorRole::Shoulder => "肩部",
        SensorRole::Wrist => "手腕",
        SensorRole::Racket => "球拍",
        SensorRole::Unknown => "未知",
    }
}
