//! How good swings and names are, against labelled recordings.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use schemas::SensorRole;

use crate::adapt::adapt;
use crate::calibrate::{Signal, span_s};
use crate::evaluation::{
    Alone, Classification, Evaluation, Idle, LevelFigures, MountingFigures, PlayerFigures, Tally, by_class,
};
use crate::features::{Mounting, Span, View};
use crate::levels::LEVELS;
use crate::model::{Model, OTHER};
use crate::mounting::{LEAST, suspicion, worn};
use crate::params::{ClassifyParams, Params};
use crate::reliability::{calibration_error, expected_error, reliability};
use crate::segment::Swing;
use crate::train::{
    Example, LabelledTrack, Mark, MarkQuality, Prepared, TrainError, TrainOptions, accuracy_and_macro_f1, argmax,
    examples, is_ignored, marked_examples, match_marks, ns, train,
};

/// Seed of the order that swings are put into to see what names are worth in open play.
const DRAWN_ORDER: u64 = 1;

/// Who names the swings.
#[derive(Clone, Copy, Debug)]
pub enum Judge<'a> {
    /// Nobody: swings are found and counted only.
    Nobody,
    /// This model.
    Model(&'a Model),
    /// For each player a model trained on the others.
    LeaveOnePlayerOut(&'a TrainOptions),
}

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluateOptions {
    /// Largest distance of a mark's peak and a swing's impact, ms.
    pub tolerance_ms: f64,
    /// Labelled swings of each class of the player being judged that training may see, at weight
    /// [`EvaluateOptions::CALIBRATION_WEIGHT`]; they are not judged. A judge that is a model is adapted to each player.
    pub calibrate: usize,
    /// Also read each player's swings as if the sensor sat otherwise, and see whether that is noticed.
    pub mountings: bool,
}

impl EvaluateOptions {
    /// How much a calibrating swing counts against one of another player.
    pub const CALIBRATION_WEIGHT: f64 = 8.0;
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self { tolerance_ms: 250.0, calibrate: 0, mountings: false }
    }
}

/// What a judge said about one marked swing.
#[derive(Clone, Debug)]
struct Named {
    player: String,
    truth: String,
    best: String,
    confidence: f64,
    sure: bool,
    /// Of each level that the true class has: told right, its probability, sure.
    levels: Vec<(&'static str, bool, f64, bool)>,
    /// What the model says without the swings around it, where they were used.
    alone: Option<Vec<f64>>,
    /// The true class in the model's list.
    class: Option<usize>,
}

/// What a judge says about one place in a recording.
struct Verdict {
    best: String,
    confidence: f64,
    sure: bool,
    values: Vec<f64>,
    /// The values without the swings around it, where they were used.
    alone: Option<Vec<f64>>,
}

impl Verdict {
    fn of(values: Vec<f64>, alone: Option<Vec<f64>>, model: &Model, params: &ClassifyParams) -> Self {
        let best = argmax(&values);
        let confidence = values[best];
        let sure = confidence >= params.confidence_min.max(model.header().confidence_min);
        Self { best: model.header().classes[best].clone(), confidence, sure, values, alone }
    }

    fn is_stroke(&self) -> bool {
        self.sure && self.best != OTHER
    }

    fn named(self, model: &Model, mark: &Mark) -> Named {
        let truth = model.header().classes.binary_search(&mark.stroke).ok();
        let answers = model.levels(&self.values);
        let levels = LEVELS
            .iter()
            .filter_map(|&level| {
                let truth = model.header().levels[truth?].at(level)?;
                let said = answers.get(level)?;
                let best = said.probabilities.iter().reduce(|best, next| if next.1 > best.1 { next } else { best })?;
                Some((level, best.0 == truth, *best.1, said.answer.is_some()))
            })
            .collect();
        Named {
            alone: self.alone,
            class: truth,
            player: mark.player.clone(),
            truth: mark.stroke.clone(),
            best: self.best,
            confidence: self.confidence,
            sure: self.sure,
            levels,
        }
    }
}

/// Judges swings, and names if somebody gives any, against the marks of `recordings`.
///
/// Matching is one to one, nearest first. Swings near or inside a mark that is ambiguous are neither right nor wrong. A
/// model's gate decides which proposals are swings; names are judged at every mark, found or not.
///
/// # Errors
/// Training for a left-out player fails.
pub fn evaluate(
    recordings: &[LabelledTrack<'_>],
    params: &Params,
    judge: Judge<'_>,
    options: &EvaluateOptions,
) -> Result<Evaluation, TrainError> {
    let prepared: Vec<Prepared> = recordings.par_iter().map(|r| Prepared::of(r, params)).collect();
    let mut notes = Vec::new();
    let models = models(recordings, params, judge, options, &mut notes)?;
    let judged = !matches!(judge, Judge::Nobody);
    let parts: Vec<OfRecording> = recordings
        .par_iter()
        .zip(&prepared)
        .map(|(recording, prepared)| of_recording(recording, prepared, &models, params, options))
        .collect();
    let mut found = Tally::default();
    let mut idle = Idle::default();
    let mut named: Vec<Named> = Vec::new();
    let mut seen: BTreeMap<String, Vec<(SensorRole, Vec<View>)>> = BTreeMap::new();
    for part in parts {
        named.extend(part.named);
        for (player, role, views) in part.seen {
            seen.entry(player).or_default().push((role, views));
        }
        match part.swings {
            Some((tally, true)) => found.add(tally),
            Some((tally, false)) => {
                idle.minutes += tally.minutes;
                idle.false_alarms += tally.alarms;
                idle.before_gate += tally.proposed_alarms;
                if judged {
                    *idle.named_false_alarms.get_or_insert(0) += tally.named_alarms;
                }
            }
            None => {}
        }
    }
    if judged && named.is_empty() {
        notes.push("no swing could be named: the model serves no sensor of these recordings at their rate".to_owned());
    }
    let mut classification = (!named.is_empty())
        .then(|| Classification { alone: alone(&named, &models, &params.classify), ..classification(&named) });
    for (player, swings) in seen {
        let figures = classification.as_mut().and_then(|all| all.players.get_mut(&player));
        if let (Some(figures), Some(model)) = (figures, models.for_player(&player)) {
            figures.mounting = mounting(model, &swings);
        }
    }
    Ok(Evaluation {
        segmentation: (found.marks > 0).then(|| found.figures(options.tolerance_ms, judged)),
        idle: (idle.minutes > 0.0).then(|| {
            idle.false_alarms_per_min = Some(idle.false_alarms as f64 / idle.minutes);
            idle.before_gate_per_min = Some(idle.before_gate as f64 / idle.minutes);
            idle
        }),
        classification,
        notes,
    })
}

/// What a model says of the swings of a recording, each by itself and all together.
struct Said {
    alone: Vec<Option<Vec<f64>>>,
    together: Vec<Option<Vec<f64>>>,
}

/// What one recording adds to the figures.
struct OfRecording {
    named: Vec<Named>,
    /// The swings that were named: player, sensor, what the model saw. Only where mountings are asked for.
    seen: Vec<(String, SensorRole, Vec<View>)>,
    /// Counts of swings, and whether the recording has marks; absent where the whole is one example.
    swings: Option<(Tally, bool)>,
}

fn of_recording(
    recording: &LabelledTrack<'_>,
    prepared: &Prepared,
    models: &Models<'_>,
    params: &Params,
    options: &EvaluateOptions,
) -> OfRecording {
    let tolerance_ns = ns(options.tolerance_ms);
    let of = |quality: MarkQuality| -> Vec<&Mark> {
        recording.marks.iter().filter(|mark| mark.quality == quality).collect()
    };
    let (counted, whole, ignored) = (of(MarkQuality::Counted), of(MarkQuality::Window), of(MarkQuality::Ignored));
    let model_for = |player: &str| -> Option<(&Model, &Signal)> {
        let model = models.for_player(player)?;
        prepared.signal().filter(|signal| model.serves(signal)).map(|signal| (model, signal))
    };
    let values = |span: &Span, player: &str| -> Option<Vec<f64>> {
        let (model, signal) = model_for(player)?;
        model.probabilities(signal.role, &model.views(signal, span, &params.classify)?)
    };
    let mut named: Vec<Named> = Vec::new();
    let mut seen = Vec::new();
    let mut name = |verdict: Verdict, mark: &Mark, span: &Span| {
        if let Some((model, signal)) = model_for(&mark.player) {
            named.push(verdict.named(model, mark));
            let views = options.mountings.then(|| model.views(signal, span, &params.classify)).flatten();
            seen.extend(views.map(|views| (mark.player.clone(), signal.role, views)));
        }
    };
    for mark in whole.iter().filter(|mark| !models.is_spent(mark)) {
        if let (Some(values), Some(model)) = (values(&mark.span(), &mark.player), models.for_player(&mark.player)) {
            name(Verdict::of(values, None, model, &params.classify), mark, &mark.span());
        }
    }
    if !whole.is_empty() {
        return OfRecording { named, seen, swings: None };
    }
    let player = recording.marks.first().map_or(recording.name, |mark| mark.player.as_str());
    let passes = |swing: &Swing| -> Option<bool> {
        let (model, signal) = model_for(player)?;
        let views = model.views(signal, &swing.span(), &params.classify)?;
        model.gate(signal.role, &views, swing.strength).map(|answer| answer.kept)
    };
    let gated: Vec<Option<bool>> = prepared.swings.iter().map(passes).collect();
    let has_gate = gated.iter().any(Option::is_some);
    let kept: Vec<Swing> = prepared
        .swings
        .iter()
        .zip(&gated)
        .filter(|(_, passed)| passed.unwrap_or(true))
        .map(|(swing, _)| *swing)
        .collect();
    let mut tally = Tally {
        minutes: prepared
            .signal()
            .map_or(0.0, |signal| span_s(signal.raw_t_ns[0], signal.raw_t_ns[signal.raw_t_ns.len() - 1]) / 60.0),
        marks: counted.len(),
        ..Tally::default()
    };
    let alarms = |swings: &[Swing], pairs: &[(usize, usize)]| -> Vec<Swing> {
        let free = |s: usize| !pairs.iter().any(|pair| pair.1 == s);
        let alarms =
            swings.iter().enumerate().filter(|(s, swing)| free(*s) && !is_ignored(swing, &ignored, tolerance_ns));
        alarms.map(|(_, swing)| *swing).collect()
    };
    let proposed = match_marks(&counted, &prepared.swings, tolerance_ns);
    tally.proposed = proposed.len();
    tally.proposed_alarms = alarms(&prepared.swings, &proposed).len();
    tally.rejected = has_gate.then(|| proposed.iter().filter(|pair| gated[pair.1] == Some(false)).count());
    let pairs = match_marks(&counted, &kept, tolerance_ns);
    tally.found = pairs.len();
    let false_alarms = alarms(&kept, &pairs);
    tally.alarms = false_alarms.len();
    // Marks without a swing have a name too, as if they had been found.
    let at_mark = |m: usize, mark: &Mark| {
        let proposal = proposed.iter().find(|pair| pair.0 == m).map(|pair| &prepared.swings[pair.1]);
        proposal.map_or_else(|| mark.span(), Swing::span)
    };
    let marked: Vec<Span> = counted.iter().enumerate().map(|(m, mark)| at_mark(m, mark)).collect();
    let mut spans: Vec<Span> = kept.iter().map(Swing::span).chain(marked.iter().copied()).collect();
    spans.sort_by_key(|span| (span.peak_ns, span.start_ns, span.end_ns));
    spans.dedup();
    // Of each player whose marks are here the names by the model that is his judge: alone, and together.
    let say = |player: &str| -> Option<Said> {
        let (model, _) = model_for(player)?;
        let alone: Vec<Option<Vec<f64>>> = spans.par_iter().map(|span| values(span, player)).collect();
        Some(Said { together: model.together(&alone, &params.classify).values, alone })
    };
    let players: BTreeSet<&str> = counted.iter().map(|mark| mark.player.as_str()).chain([player]).collect();
    let said: BTreeMap<&str, Said> = players.into_iter().filter_map(|player| Some((player, say(player)?))).collect();
    let verdict = |span: &Span, player: &str| -> Option<Verdict> {
        let (model, _) = model_for(player)?;
        let Said { alone, together } = said.get(player)?;
        let at = spans.iter().position(|other| other == span)?;
        let alone = alone[at].clone().filter(|_| params.classify.drills);
        Some(Verdict::of(together[at].clone()?, alone, model, &params.classify))
    };
    tally.named_alarms = false_alarms
        .iter()
        .filter(|swing| verdict(&swing.span(), player).is_some_and(|verdict| verdict.is_stroke()))
        .count();
    for (m, (mark, span)) in counted.iter().zip(&marked).enumerate() {
        let swing = pairs.iter().find(|pair| pair.0 == m).map(|pair| &kept[pair.1]);
        if let Some(swing) = swing {
            tally.errors_ms.push((swing.impact_ns - ns(mark.peak_ms)).abs() as f64 / 1e6);
        }
        if models.is_spent(mark) {
            continue;
        }
        if let Some(verdict) = verdict(span, &mark.player) {
            if swing.is_some() && verdict.sure {
                tally.answered += usize::from(verdict.best != OTHER);
                tally.right += usize::from(verdict.best == mark.stroke);
            }
            name(verdict, mark, span);
        }
    }
    OfRecording { named, seen, swings: Some((tally, !recording.marks.is_empty())) }
}

/// The models that name the swings of each player.
enum Models<'a> {
    None,
    One(&'a Model),
    /// By player, and the marks that calibrated: player, stroke, peak.
    PerPlayer(BTreeMap<String, Model>, BTreeSet<(String, String, i64)>),
}

impl Models<'_> {
    fn for_player(&self, player: &str) -> Option<&Model> {
        match self {
            Self::None => None,
            Self::One(model) => Some(model),
            // Recordings without marks belong to nobody; any model that never saw them will do.
            Self::PerPlayer(models, _) => models.get(player).or_else(|| models.values().next()),
        }
    }

    fn is_spent(&self, mark: &Mark) -> bool {
        match self {
            Self::PerPlayer(_, spent) => spent.contains(&(mark.player.clone(), mark.stroke.clone(), ns(mark.peak_ms))),
            _ => false,
        }
    }
}

fn models<'a>(
    recordings: &[LabelledTrack<'_>],
    params: &Params,
    judge: Judge<'a>,
    options: &EvaluateOptions,
    notes: &mut Vec<String>,
) -> Result<Models<'a>, TrainError> {
    let train_options = match judge {
        Judge::Nobody => return Ok(Models::None),
        Judge::Model(model) if options.calibrate == 0 => return Ok(Models::One(model)),
        Judge::Model(model) => return Ok(adapted(recordings, params, model, options, notes)),
        Judge::LeaveOnePlayerOut(options) => options,
    };
    let players: BTreeSet<&str> = recordings
        .iter()
        .flat_map(|r| r.marks)
        .filter(|m| m.quality != MarkQuality::Ignored)
        .map(|m| m.player.as_str())
        .collect();
    if players.len() < 2 {
        notes.push(format!("no player can be left out: the marks are of {} player(s)", players.len()));
        return Ok(Models::None);
    }
    // A recording of one player only ever trains the others; recordings without marks train nobody.
    let marked: Vec<&LabelledTrack<'_>> = recordings.iter().filter(|r| !r.marks.is_empty()).collect();
    let cut: Vec<Vec<Example>> = marked.par_iter().map(|recording| examples(recording, params)).collect();
    let all: Vec<&Example> = cut.iter().flatten().collect();
    let mut per_player = BTreeMap::new();
    let mut spent = BTreeSet::new();
    for &player in &players {
        let mut training: Vec<Example> =
            all.iter().filter(|example| example.player != player).map(|example| (*example).clone()).collect();
        if options.calibrate > 0 {
            for recording in &marked {
                let own: Vec<Mark> = calibrating(recording.marks, player, options.calibrate, &mut spent);
                if own.is_empty() {
                    continue;
                }
                let own = LabelledTrack { marks: &own, ..(*recording).clone() };
                let examples = marked_examples(&own, params).into_iter();
                training
                    .extend(examples.map(|example| Example { weight: EvaluateOptions::CALIBRATION_WEIGHT, ..example }));
            }
        }
        match train(&training, train_options) {
            Ok(model) => {
                per_player.insert(player.to_owned(), model);
            }
            Err(TrainError::TooFewClasses { .. }) => {
                notes.push(format!("{player} is not judged: the others show fewer than two classes"));
            }
            Err(other) => return Err(other),
        }
    }
    Ok(Models::PerPlayer(per_player, spent))
}

/// The model, adapted to each player by the first swings of each class.
fn adapted<'a>(
    recordings: &[LabelledTrack<'_>],
    params: &Params,
    model: &'a Model,
    options: &EvaluateOptions,
    notes: &mut Vec<String>,
) -> Models<'a> {
    let players: BTreeSet<&str> = recordings.iter().flat_map(|r| r.marks).map(|m| m.player.as_str()).collect();
    let (mut per_player, mut spent) = (BTreeMap::new(), BTreeSet::new());
    for player in players {
        let mut own: Vec<Example> = Vec::new();
        for recording in recordings {
            let marks = calibrating(recording.marks, player, options.calibrate, &mut spent);
            if !marks.is_empty() {
                own.extend(marked_examples(&LabelledTrack { marks: &marks, ..recording.clone() }, params));
            }
        }
        let adapted = match adapt(model, &own, EvaluateOptions::CALIBRATION_WEIGHT, model.name()) {
            Ok(adapted) => adapted,
            Err(error) => {
                notes.push(format!("{player} is judged by the model as it is: {error}"));
                model.clone()
            }
        };
        per_player.insert(player.to_owned(), adapted);
    }
    Models::PerPlayer(per_player, spent)
}

/// The first `count` marks of each class of a player that are not spent yet; spends them.
fn calibrating(marks: &[Mark], player: &str, count: usize, spent: &mut BTreeSet<(String, String, i64)>) -> Vec<Mark> {
    let mut out = Vec::new();
    for mark in marks.iter().filter(|m| m.player == player && m.quality != MarkQuality::Ignored) {
        let used = spent.iter().filter(|(p, stroke, _)| p == player && *stroke == mark.stroke).count();
        if used < count && spent.insert((player.to_owned(), mark.stroke.clone(), ns(mark.peak_ms))) {
            out.push(mark.clone());
        }
    }
    out
}

fn classification(named: &[Named]) -> Classification {
    let classes: Vec<String> =
        named.iter().flat_map(|n| [n.truth.clone(), n.best.clone()]).collect::<BTreeSet<_>>().into_iter().collect();
    let index = |name: &String| classes.binary_search(name).unwrap_or(0);
    let confusion_of = |rows: &mut dyn Iterator<Item = &Named>| {
        let mut confusion = vec![vec![0_usize; classes.len()]; classes.len()];
        for n in rows {
            confusion[index(&n.truth)][index(&n.best)] += 1;
        }
        confusion
    };
    let confusion = confusion_of(&mut named.iter());
    let (accuracy, macro_f1) = accuracy_and_macro_f1(&confusion);
    let sure = named.iter().filter(|n| n.sure).count();
    let right = named.iter().filter(|n| n.sure && n.best == n.truth).count();
    let mut players = BTreeMap::new();
    for player in named.iter().map(|n| n.player.as_str()).collect::<BTreeSet<_>>() {
        let confusion = confusion_of(&mut named.iter().filter(|n| n.player == player));
        let (accuracy, macro_f1) = accuracy_and_macro_f1(&confusion);
        let examples = confusion.iter().flatten().sum();
        players.insert(player.to_owned(), PlayerFigures { examples, accuracy, macro_f1, mounting: None });
    }
    let mut levels = BTreeMap::new();
    for level in LEVELS {
        let told: Vec<(bool, f64, bool)> = named
            .iter()
            .flat_map(|n| &n.levels)
            .filter(|of| of.0 == level)
            .map(|&(_, right, probability, sure)| (right, probability, sure))
            .collect();
        if told.is_empty() {
            continue;
        }
        let count = |wanted: &dyn Fn(&(bool, f64, bool)) -> bool| told.iter().filter(|one| wanted(one)).count();
        let (sure, right) = (count(&|one| one.2), count(&|one| one.2 && one.0));
        let figures = LevelFigures {
            examples: told.len(),
            accuracy: count(&|one| one.0) as f64 / told.len() as f64,
            coverage: sure as f64 / told.len() as f64,
            accuracy_when_sure: (sure > 0).then(|| right as f64 / sure as f64),
            calibration_error: calibration_error(told.iter().map(|one| (one.0, one.1))),
        };
        levels.insert(level.to_owned(), figures);
    }
    let diagram = reliability(named.iter().map(|n| (n.best == n.truth, n.confidence)));
    Classification {
        by_class: by_class(&classes, &confusion),
        calibration_error: expected_error(&diagram),
        reliability: diagram,
        levels,
        examples: named.len(),
        accuracy,
        macro_f1,
        coverage: sure as f64 / named.len() as f64,
        accuracy_when_sure: (sure > 0).then(|| right as f64 / sure as f64),
        classes,
        confusion,
        players,
        alone: None,
    }
}

/// How the swings that were named together are named without each other.
fn alone(named: &[Named], models: &Models<'_>, params: &ClassifyParams) -> Option<Alone> {
    let said = |n: &Named| n.alone.as_ref().map(|values| (Some(argmax(values)) == n.class, values[argmax(values)]));
    let by_itself: Vec<(bool, f64)> =
        named.iter().map(|n| said(n).unwrap_or((n.best == n.truth, n.confidence))).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(DRAWN_ORDER);
    let mut right = named.iter().filter(|n| n.alone.is_none() && n.best == n.truth).count();
    for player in named.iter().map(|n| n.player.as_str()).collect::<BTreeSet<_>>() {
        let mut drawn: Vec<&Named> = named.iter().filter(|n| n.player == player && n.alone.is_some()).collect();
        drawn.shuffle(&mut rng);
        let values: Vec<Option<Vec<f64>>> = drawn.iter().map(|n| n.alone.clone()).collect();
        let together = models.for_player(player)?.together(&values, params).values;
        right += drawn.iter().zip(&together).filter(|(n, values)| values.as_deref().map(argmax) == n.class).count();
    }
    named.iter().any(|n| n.alone.is_some()).then(|| Alone {
        accuracy: by_itself.iter().filter(|said| said.0).count() as f64 / named.len() as f64,
        calibration_error: calibration_error(by_itself.iter().copied()),
        accuracy_in_drawn_order: right as f64 / named.len() as f64,
    })
}

/// Whether it is noticed that a sensor sits otherwise, on these swings of a player.
fn mounting(model: &Model, swings: &[(SensorRole, Vec<View>)]) -> Option<MountingFigures> {
    let role = swings.first()?.0;
    let specs = &model.header().windows;
    let suspected = |mounting: Option<Mounting>| {
        let read: Vec<(Vec<View>, Vec<f64>)> = swings
            .par_iter()
            .filter(|swing| swing.0 == role)
            .filter_map(|(_, views)| {
                let views = match mounting {
                    Some(mounting) => worn(views, specs, mounting),
                    None => views.clone(),
                };
                let values = model.probabilities(role, &views)?;
                Some((views, values))
            })
            .collect();
        let read: Vec<(&[View], &[f64])> = read.iter().map(|(views, values)| (&views[..], &values[..])).collect();
        suspicion(model, role, &read).map(|suspicion| suspicion.mounting)
    };
    // Read so a second time the swings are as they were.
    let found = || Mounting::ALL.into_iter().filter(|&mounting| suspected(Some(mounting)) == Some(mounting)).count();
    (swings.len() >= LEAST).then(|| MountingFigures { suspected: suspected(None).is_some(), found: found() })
}
