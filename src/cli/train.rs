//! `volant train`: recording sets in, a model file out.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use pipelines::{
    EvaluateOptions, Example, LabelledTrack, Mark, MarkQuality, Model, TrainOptions, generated_player, generated_swings,
};

use super::analyze::{load_model, load_pipeline};
use crate::recordings::{RecordingSet, read_set};

/// Trains a model on recording sets, or calibrates one for a player.
///
/// The same sets and options give the same bytes. The figures printed are of players that were left out in turn.
///
/// With --calibrate the swings of the sets move the heads of a model that is there: a handful of labelled swings of a
/// new player, or of a new way to wear the sensor, is worth more than any other change.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Recording sets: folders with samples.parquet (or .csv) and labels.csv
    #[arg(value_name = "SET", required_unless_present = "generated")]
    pub sets: Vec<PathBuf>,
    /// Where the model goes
    #[arg(long, value_name = "MODEL")]
    pub out: PathBuf,
    /// Name of the model; without, the name of its file
    #[arg(long)]
    pub name: Option<String>,
    /// Sets whose strokes only teach the gate what a swing is; their names are not learned
    #[arg(long, value_name = "SET")]
    pub gate_only: Vec<PathBuf>,
    /// Calibrate this model with the swings of the sets instead of training a new one
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["generated", "gate_only"])]
    pub calibrate: Option<PathBuf>,
    /// Use only the first so many swings of each class of a player to calibrate; 0 is all
    #[arg(long, value_name = "K", default_value_t = 0, requires = "calibrate")]
    pub swings: usize,
    /// How much a calibrating swing counts against one that the model was trained on
    #[arg(long, default_value_t = EvaluateOptions::CALIBRATION_WEIGHT, requires = "calibrate")]
    pub weight: f64,
    /// Make the gate reject only what is surely no swing: for a model that will meet players of all kinds
    #[arg(long)]
    pub careful_gate: bool,
    /// Also train on this many generated players, five minutes each
    #[arg(long, value_name = "PLAYERS", default_value_t = 0)]
    pub generated: u32,
    /// Of everything that is drawn
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Convolution features
    #[arg(long, default_value_t = 1512, value_parser = clap::value_parser!(u32).range(84..=20_000))]
    pub features: u32,
    /// Ridge penalty as a multiple of the number of features; less for many examples
    #[arg(long, default_value_t = TrainOptions::default().penalty)]
    pub penalty: f64,
    /// Shrinkage of the discriminant's covariance, 0 to 1
    #[arg(long, default_value_t = TrainOptions::default().shrinkage)]
    pub shrinkage: f64,
    /// A pipeline file instead of the one that ships
    #[arg(long, alias = "params", value_name = "FILE")]
    pub pipeline: Option<PathBuf>,
    /// Print the model's header as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Minutes that each generated player plays.
const GENERATED_MINUTES: f64 = 5.0;

/// Runs the command.
///
/// # Errors
/// A set that cannot be read, sets that do not go together, a file that cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.penalty > 0.0 && args.penalty.is_finite(), "--penalty must be above 0");
    anyhow::ensure!((0.0..=1.0).contains(&args.shrinkage), "--shrinkage must be between 0 and 1");
    anyhow::ensure!(args.weight > 0.0 && args.weight.is_finite(), "--weight must be above 0");
    let params = load_pipeline(args.pipeline.as_deref())?.pipeline.params.clone();
    let progress = bar((args.sets.len() + args.gate_only.len()) as u64 + u64::from(args.generated) + 1);
    let mut examples: Vec<Example> = Vec::new();
    for (path, named) in args.sets.iter().map(|set| (set, true)).chain(args.gate_only.iter().map(|set| (set, false))) {
        progress.set_message(format!("reading {}", path.display()));
        let set = LoadedSet::read(path)?;
        for recording in set.tracks() {
            examples.extend(pipelines::examples(&recording, &params).into_iter().map(|mut example| {
                example.named = named;
                example
            }));
        }
        progress.inc(1);
    }
    let default_name = args.out.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
    let name = args.name.clone().unwrap_or_else(|| default_name.into_owned());
    if let Some(base) = &args.calibrate {
        progress.set_message(format!("calibrating {}", base.display()));
        let base = load_model(base)?;
        let swings = first_of_each(examples, args.swings);
        let model = pipelines::adapt(&base, &swings, args.weight, &name).context("calibrate")?;
        progress.finish_and_clear();
        return write(&model, args);
    }
    for player in 0..args.generated {
        progress.set_message(format!("generating player {} of {}", player + 1, args.generated));
        progress.inc(1);
        // Beside each player a recording of swings that are like no player's: what they are only the gate learns.
        for (recording, named) in [
            (generated_player(player, GENERATED_MINUTES, args.seed), true),
            (generated_swings(player, args.seed), false),
        ] {
            let track = LabelledTrack {
                set: "generated",
                name: &recording.name,
                track: &recording.track,
                marks: &recording.marks,
                acc_to_mps2: None,
            };
            examples.extend(pipelines::examples(&track, &params).into_iter().filter_map(|mut example| {
                // What follows a generated swing and is none is an artefact of its shape.
                let artefact = !named && example.stroke == pipelines::OTHER;
                example.named = named;
                (!artefact).then_some(example)
            }));
        }
    }
    progress.set_message(format!("training on {} swings", examples.len()));
    let gate = if args.careful_gate { TrainOptions::careful() } else { TrainOptions::default() };
    let options = TrainOptions {
        name,
        seed: args.seed,
        features: args.features as usize,
        penalty: args.penalty,
        shrinkage: args.shrinkage,
        ..gate
    };
    let model = pipelines::train(&examples, &options).context("train")?;
    progress.finish_and_clear();
    write(&model, args)
}

/// The first `count` swings of each class, player and sensor, in the order of the recordings; all of them for 0.
fn first_of_each(examples: Vec<Example>, count: usize) -> Vec<Example> {
    let mut seen: BTreeMap<(String, String, &'static str), usize> = BTreeMap::new();
    examples
        .into_iter()
        .filter(|example| {
            let seen = seen.entry((example.player.clone(), example.stroke.clone(), example.role.as_str())).or_default();
            *seen += 1;
            count == 0 || *seen <= count
        })
        .collect()
}

/// Writes the model's file and what it says about itself.
fn write(model: &Model, args: &Args) -> anyhow::Result<ExitCode> {
    let bytes = model.to_bytes().context("write the model")?;
    std::fs::write(&args.out, &bytes).with_context(|| format!("write model {}", args.out.display()))?;

    let header = model.header();
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, header)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{}: {} bytes, sha256 {}", args.out.display(), bytes.len(), model.sha256())?;
    writeln!(out, "  classes   {}", header.classes.join(", "))?;
    let mut roles: Vec<&str> = header.heads.iter().map(|head| head.role.as_str()).collect();
    // Each has a head for every window.
    roles.dedup();
    writeln!(out, "  sensors   {}, {:.1} Hz and faster", roles.join(", "), header.rate_hz[0])?;
    writeln!(out, "  examples  {} of {} players", header.training.examples, header.training.players)?;
    match &header.leave_one_player_out {
        Some(figures) => writeln!(
            out,
            "  on players left out: accuracy {:.3}, macro-F1 {:.3}, calibration error {:.3} ({} swings)",
            figures.accuracy, figures.macro_f1, figures.calibration_error, figures.examples
        )?,
        None => writeln!(out, "  not judged: no player could be left out")?,
    }
    for gate in &header.gates {
        writeln!(
            out,
            "  gate      {}: kept {:.1}% of {} swings and rejected {:.1}% of {} other movements that it had not seen",
            gate.role,
            100.0 * gate.swings_kept,
            gate.examples[0],
            100.0 * gate.others_rejected,
            gate.examples[1]
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A bar of so many steps on a terminal, nothing elsewhere.
pub(super) fn bar(steps: u64) -> ProgressBar {
    let progress = if std::io::stderr().is_terminal() { ProgressBar::new(steps) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}") {
        progress.set_style(style);
    }
    progress.enable_steady_tick(Duration::from_millis(200));
    progress
}

/// A recording set as the pipelines take it.
pub(super) struct LoadedSet {
    pub(super) name: String,
    set: RecordingSet,
    marks: Vec<Vec<Mark>>,
}

impl LoadedSet {
    /// Reads a folder.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let set = read_set(path)?;
        let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        let marks = set
            .recordings
            .iter()
            .map(|recording| {
                set.labels
                    .iter()
                    .filter(|label| label.recording == recording.name)
                    .map(|label| Mark {
                        player: label.player.clone(),
                        start_ms: Some(label.start_ms).filter(|ms| ms.is_finite()),
                        peak_ms: label.peak_ms,
                        end_ms: Some(label.end_ms).filter(|ms| ms.is_finite()),
                        stroke: label.stroke.clone(),
                        quality: MarkQuality::from_name(&label.quality),
                    })
                    .collect()
            })
            .collect();
        Ok(Self { name, set, marks })
    }

    /// Its recordings with their marks.
    pub(super) fn tracks(&self) -> Vec<LabelledTrack<'_>> {
        self.set
            .recordings
            .iter()
            .zip(&self.marks)
            .map(|(recording, marks)| LabelledTrack {
                set: &self.name,
                name: &recording.name,
                track: &recording.track,
                marks,
                // What the format of recording sets says.
                acc_to_mps2: Some(1.0),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recordings::{Label, Recording, write_labels, write_recording};

    /// A set of generated players in a folder, as a person would have it.
    pub(crate) fn write_generated_set(folder: &Path, players: u32) {
        write_generated_players(folder, 0..players);
    }

    fn write_generated_players(folder: &Path, players: std::ops::Range<u32>) {
        let mut recordings = Vec::new();
        let mut labels = Vec::new();
        for player in players {
            let generated = generated_player(player, 1.0, 3);
            // Recording sets hold m/s²; generated players may send g.
            let mut track = generated.track;
            if player.is_multiple_of(2) {
                for sensor in track.sensors.iter_mut().flatten() {
                    sensor.acc.iter_mut().flatten().for_each(|c| *c *= 9.80665);
                }
            }
            labels.extend(generated.marks.into_iter().map(|mark| Label {
                recording: generated.name.clone(),
                player: mark.player,
                start_ms: mark.start_ms.unwrap(),
                peak_ms: mark.peak_ms,
                end_ms: mark.end_ms.unwrap(),
                stroke: mark.stroke,
                quality: "clean".to_owned(),
            }));
            recordings.push(Recording { name: generated.name, track, ..Recording::default() });
        }
        write_recording(&folder.join("samples.parquet"), &recordings).unwrap();
        write_labels(&folder.join("labels.csv"), &labels).unwrap();
    }

    fn args(set: &Path, out: PathBuf) -> Args {
        Args {
            sets: vec![set.to_owned()],
            out,
            name: None,
            gate_only: Vec::new(),
            calibrate: None,
            swings: 0,
            weight: 8.0,
            careful_gate: false,
            generated: 0,
            seed: 1,
            features: 420,
            penalty: 0.2,
            shrinkage: 0.3,
            pipeline: None,
            json: false,
        }
    }

    #[test]
    fn a_trained_file_is_read_again_and_training_twice_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        write_generated_set(folder.path(), 3);
        let (first, second) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
        run(&Args { name: Some("same".to_owned()), ..args(folder.path(), first.clone()) }).unwrap();
        run(&Args { name: Some("same".to_owned()), ..args(folder.path(), second.clone()) }).unwrap();
        let bytes = std::fs::read(&first).unwrap();
        assert_eq!(bytes, std::fs::read(&second).unwrap());
        let model = pipelines::Model::from_bytes(&bytes).unwrap();
        assert_eq!(model.name(), "same");
        assert!(model.header().classes.iter().any(|class| class == "smash"));

        let evaluation = super::super::evaluate::evaluation(&super::super::evaluate::Args {
            sets: vec![folder.path().to_owned()],
            model: Some(first),
            leave_one_player_out: false,
            calibrate: 0,
            mountings: false,
            tolerance_ms: 250.0,
            seed: 1,
            features: 420,
            penalty: 0.2,
            shrinkage: 0.3,
            pipeline: None,
            json: true,
        })
        .unwrap();
        let judged = evaluation.whole.classification.unwrap();
        assert!(judged.accuracy > 0.9, "on its own training set: {}", judged.accuracy);
        assert!(evaluation.whole.segmentation.unwrap().f1.unwrap() > 0.8);
    }

    #[test]
    fn a_calibrated_model_names_its_player_better_and_says_what_it_came_from() {
        let folder = tempfile::tempdir().unwrap();
        let (others, own) = (folder.path().join("others"), folder.path().join("own"));
        std::fs::create_dir_all(&others).unwrap();
        std::fs::create_dir_all(&own).unwrap();
        write_generated_set(&others, 3);
        write_generated_players(&own, 40..41);
        let (base, fitted) = (folder.path().join("base.safetensors"), folder.path().join("fitted.safetensors"));
        run(&args(&others, base.clone())).unwrap();
        let calibrate = Args { calibrate: Some(base.clone()), swings: 2, ..args(&own, fitted.clone()) };
        run(&calibrate).unwrap();
        let read = |path: &Path| pipelines::Model::from_bytes(&std::fs::read(path).unwrap()).unwrap();
        let (base, fitted) = (read(&base), read(&fitted));
        assert_eq!(fitted.header().training.adapted_from.as_deref(), Some(base.sha256()));
        let set = LoadedSet::read(&own).unwrap();
        let accuracy = |model: &Model| {
            let judge = pipelines::Judge::Model(model);
            let options = EvaluateOptions::default();
            let judged = pipelines::evaluate(&set.tracks(), pipelines::Params::builtin(), judge, &options).unwrap();
            judged.classification.unwrap().accuracy
        };
        assert!(accuracy(&fitted) > accuracy(&base), "{} {}", accuracy(&fitted), accuracy(&base));
    }

    #[test]
    fn a_folder_that_is_no_set_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = format!("{:#}", run(&args(folder.path(), folder.path().join("m"))).unwrap_err());
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
    }
}
