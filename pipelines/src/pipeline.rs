//! The way from a recording to its analysis, in one place.

use std::collections::BTreeMap;
use std::f64::consts::SQRT_2;
use std::ops::RangeInclusive;

use rayon::prelude::*;
use schemas::{SensorRole, SensorTrack, Track};

use crate::advice::{Rules, advise};
use crate::analysis::{Analysis, Drill, Provenance, Scores, SessionFigures, Stroke};
use crate::calibrate::{Signal, calibrate, span_s};
use crate::correlate::repeatability;
use crate::definition::Stage;
use crate::drills::Together;
use crate::features::View;
use crate::issues::Issues;
use crate::kinetics::{Chain, Motion, of_swing, shaft_axis, unwrapped_range};
use crate::model::{Answer, Model, OTHER};
use crate::mounting::{Suspicion, suspicion};
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
pub(crate) struct Drift {
    pub(crate) pair: &'static str,
    /// From the first stroke to the last.
    pub(crate) moved_ms: f64,
    pub(crate) ppm: f64,
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
