//! `volant evaluate`: how good swings and names are, on labelled recording sets.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use pipelines::{Classification, EvaluateOptions, Evaluation, Judge, Model, TrainOptions, merge};
use serde::Serialize;

use super::analyze::{load_model, load_pipeline};
use super::train::{LoadedSet, bar};

/// Judges the pipeline on recording sets.
///
/// Without --model and --leave-one-player-out, the model that ships names the strokes.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Recording sets: folders with samples.parquet (or .csv) and labels.csv
    #[arg(required = true, value_name = "SET")]
    pub sets: Vec<PathBuf>,
    /// A model file
    #[arg(long, value_name = "MODEL", conflicts_with = "leave_one_player_out")]
    pub model: Option<PathBuf>,
    /// For each player of a set, train on its other players and judge on this one
    #[arg(long)]
    pub leave_one_player_out: bool,
    /// Let training see this many swings of each class of the player who is judged, or calibrate the model with them;
    /// they are not judged
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub calibrate: usize,
    /// Also read each player's swings as if the sensor sat on the other hand or half a turn round, and see whether that is
    /// noticed
    #[arg(long)]
    pub mountings: bool,
    /// Largest distance of a label's peak and a swing's impact, ms; 600 suits recordings below 8 Hz
    #[arg(long, value_name = "MS", default_value_t = 250.0)]
    pub tolerance_ms: f64,
    /// Of everything that training draws
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Convolution features of training
    #[arg(long, default_value_t = 1512, value_parser = clap::value_parser!(u32).range(84..=20_000))]
    pub features: u32,
    /// Ridge penalty of training
    #[arg(long, default_value_t = TrainOptions::default().penalty)]
    pub penalty: f64,
    /// Shrinkage of training
    #[arg(long, default_value_t = TrainOptions::default().shrinkage)]
    pub shrinkage: f64,
    /// A pipeline file instead of the one that ships
    #[arg(long, alias = "params", value_name = "FILE")]
    pub pipeline: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The answer of the command: all sets together, then each.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// Who named the strokes: a model's name, or `leave-one-player-out`.
    judge: String,
    #[serde(flatten)]
    pub(super) whole: Evaluation,
    sets: Vec<OfSet>,
}

#[derive(Debug, Serialize)]
struct OfSet {
    set: String,
    #[serde(flatten)]
    evaluation: Evaluation,
}

/// Runs the command.
///
/// # Errors
/// A set or model that cannot be read, a training that fails.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let answer = evaluation(args)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &answer)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "strokes named by {}", answer.judge)?;
    for OfSet { set, evaluation } in &answer.sets {
        print(&mut out, set, evaluation)?;
    }
    if answer.sets.len() > 1 {
        print(&mut out, "all sets", &answer.whole)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the command answers.
pub(super) fn evaluation(args: &Args) -> anyhow::Result<Answer> {
    anyhow::ensure!(
        args.tolerance_ms.is_finite() && args.tolerance_ms >= 0.0,
        "--tolerance-ms must be a time of 0 ms or more"
    );
    let params = load_pipeline(args.pipeline.as_deref())?.pipeline.params.clone();
    let model: Option<Model> = match &args.model {
        Some(path) => Some(load_model(path)?),
        None if args.leave_one_player_out => None,
        None => Some(Model::builtin().clone()),
    };
    let training = TrainOptions {
        name: "left-out".to_owned(),
        seed: args.seed,
        features: args.features as usize,
        penalty: args.penalty,
        shrinkage: args.shrinkage,
        ..TrainOptions::default()
    };
    let judge = model.as_ref().map_or(Judge::LeaveOnePlayerOut(&training), Judge::Model);
    let options =
        EvaluateOptions { tolerance_ms: args.tolerance_ms, calibrate: args.calibrate, mountings: args.mountings };
    let progress = bar(args.sets.len() as u64);
    let mut sets = Vec::new();
    for path in &args.sets {
        progress.set_message(format!("judging on {}", path.display()));
        let set = LoadedSet::read(path)?;
        let evaluation = pipelines::evaluate(&set.tracks(), &params, judge, &options)
            .with_context(|| format!("evaluate on {}", path.display()))?;
        sets.push(OfSet { set: set.name, evaluation });
        progress.inc(1);
    }
    progress.finish_and_clear();
    let parts: Vec<(&str, &Evaluation)> = sets.iter().map(|part| (part.set.as_str(), &part.evaluation)).collect();
    let whole = match parts.as_slice() {
        [(_, only)] => (*only).clone(),
        several => merge(several),
    };
    let judge = model.map_or_else(|| "leave-one-player-out".to_owned(), |model| model.name().to_owned());
    Ok(Answer { judge, whole, sets })
}

fn print(out: &mut impl std::io::Write, name: &str, evaluation: &Evaluation) -> std::io::Result<()> {
    let share = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
    writeln!(out, "\n{name}")?;
    if let Some(s) = &evaluation.segmentation {
        writeln!(
            out,
            "  swings      precision {}, recall {}, F1 {} at ±{:.0} ms ({} of {} found, {} false, {} a minute, \
             median error {} ms)",
            share(s.precision),
            share(s.recall),
            share(s.f1),
            s.tolerance_ms,
            s.found,
            s.marks,
            s.false_alarms,
            s.false_alarms_per_min.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.2}")),
            s.peak_error_ms_median.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.0}")),
        )?;
        if let Some(rejected) = s.rejected_swings {
            let before = &s.before_gate;
            writeln!(
                out,
                "  before gate precision {}, recall {}, F1 {} ({} found, {} false, {} a minute); the gate rejected {} \
                 false and {rejected} true",
                share(before.precision),
                share(before.recall),
                share(before.f1),
                before.found,
                before.false_alarms,
                before.false_alarms_per_min.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.2}")),
                before.false_alarms.saturating_sub(s.false_alarms),
            )?;
        }
        if let (Some(right), Some(false_alarms)) = (s.found_and_named, s.named_false_alarms) {
            writeln!(
                out,
                "  end to end  {right} found and named right, {false_alarms} false alarms named a stroke, F1 {}",
                share(s.named_f1)
            )?;
        }
    }
    if let Some(idle) = &evaluation.idle {
        let rate = |rate: Option<f64>| rate.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.2}"));
        writeln!(
            out,
            "  idle        {} swings in {:.1} min without any ({} a minute; before the gate {}, {} a minute){}",
            idle.false_alarms,
            idle.minutes,
            rate(idle.false_alarms_per_min),
            idle.before_gate,
            rate(idle.before_gate_per_min),
            idle.named_false_alarms.map_or_else(String::new, |n| format!(", {n} named a stroke")),
        )?;
    }
    if let Some(c) = &evaluation.classification {
        print_names(out, c)?;
    }
    for note in &evaluation.notes {
        writeln!(out, "  note        {note}")?;
    }
    Ok(())
}

fn print_names(out: &mut impl std::io::Write, c: &Classification) -> std::io::Result<()> {
    let share = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
    writeln!(
        out,
        "  names       accuracy {:.3}, macro-F1 {:.3} of {} swings; sure of {:.0}%, accuracy there {}",
        c.accuracy,
        c.macro_f1,
        c.examples,
        c.coverage * 100.0,
        share(c.accuracy_when_sure)
    )?;
    if let Some(alone) = c.alone {
        writeln!(
            out,
            "    each swing by itself: accuracy {:.3}, calibration error {:.3}; in a drawn order, as in open play: {:.3}",
            alone.accuracy, alone.calibration_error, alone.accuracy_in_drawn_order
        )?;
    }
    for (level, figures) in &c.levels {
        writeln!(
            out,
            "    {level:<9} accuracy {:.3} of {}; sure of {:.0}%, accuracy there {}; calibration error {:.3}",
            figures.accuracy,
            figures.examples,
            figures.coverage * 100.0,
            share(figures.accuracy_when_sure),
            figures.calibration_error
        )?;
    }
    for (player, figures) in &c.players {
        let mounting = figures.mounting.map_or_else(String::new, |mounting| {
            let suspected = if mounting.suspected { "suspected" } else { "not suspected" };
            format!("; mounting {suspected} as it is, {} of 6 others found", mounting.found)
        });
        writeln!(
            out,
            "    {player:<20} accuracy {:.3}, macro-F1 {:.3} of {}{mounting}",
            figures.accuracy, figures.macro_f1, figures.examples
        )?;
    }
    let width = c.classes.iter().map(|class| class.chars().count()).max().unwrap_or(0);
    writeln!(out, "    confusion, rows true, columns answered in the same order; recall and precision of each class")?;
    for (class, row) in c.classes.iter().zip(&c.confusion) {
        let cells: Vec<String> = row.iter().map(|count| format!("{count:>5}")).collect();
        let figures = c.by_class.get(class).copied().unwrap_or_default();
        let (recall, precision) = (share(figures.recall), share(figures.precision));
        writeln!(out, "    {class:<width$} {}  {recall:>6} {precision:>6}", cells.join(""))?;
    }
    writeln!(out, "    reliability: expected calibration error {:.3}", c.calibration_error)?;
    for bin in c.reliability.iter().filter(|bin| bin.examples > 0) {
        writeln!(
            out,
            "    {:.1}–{:.1} {:>5} swings, confidence {:.3}, accuracy {:.3}  {}",
            bin.from,
            bin.to,
            bin.examples,
            bin.confidence,
            bin.accuracy,
            "▪".repeat((bin.accuracy * 20.0).round() as usize)
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_printed() {
        let generated = pipelines::generated_player(0, 1.0, 9);
        let recording = pipelines::LabelledTrack {
            set: "g",
            name: &generated.name,
            track: &generated.track,
            marks: &generated.marks,
            acc_to_mps2: None,
        };
        let judge = Judge::Model(Model::builtin());
        let evaluation = pipelines::evaluate(
            std::slice::from_ref(&recording),
            pipelines::Params::builtin(),
            judge,
            &EvaluateOptions::default(),
        )
        .unwrap();
        let mut text = Vec::new();
        print(&mut text, "g", &evaluation).unwrap();
        let text = String::from_utf8(text).unwrap();
        for word in [
            "swings",
            "precision",
            "before gate",
            "end to end",
            "names",
            "height",
            "confusion",
            "macro-F1",
            "reliability",
        ] {
            assert!(text.contains(word), "{word} in {text}");
        }
    }
}
