//! `volant train`: recording sets in, a model file out.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;
use pipelines::{Example, LabelledTrack, Mark, MarkQuality, TrainOptions, generated_player};

use super::analyze::load_pipeline;
use crate::recordings::{RecordingSet, read_set};

/// Trains a model on recording sets.
///
/// The same sets and options give the same bytes. The figures printed are of players that were left out in turn.
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
    let params = load_pipeline(args.pipeline.as_deref())?.pipeline.params.clone();
    let progress = spinner();
    let mut examples: Vec<Example> = Vec::new();
    for path in &args.sets {
        progress.set_message(format!("reading {}", path.display()));
        let set = LoadedSet::read(path)?;
        for recording in set.tracks() {
            examples.extend(pipelines::examples(&recording, &params));
        }
    }
    for player in 0..args.generated {
        progress.set_message(format!("generating player {} of {}", player + 1, args.generated));
        let recording = generated_player(player, GENERATED_MINUTES, args.seed);
        examples.extend(pipelines::examples(
            &LabelledTrack {
                set: "generated",
                name: &recording.name,
                track: &recording.track,
                marks: &recording.marks,
            },
            &params,
        ));
    }
    progress.set_message(format!("training on {} swings", examples.len()));
    let default_name = args.out.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
    let options = TrainOptions {
        name: args.name.clone().unwrap_or_else(|| default_name.into_owned()),
        seed: args.seed,
        features: args.features as usize,
        penalty: args.penalty,
        shrinkage: args.shrinkage,
    };
    let model = pipelines::train(&examples, &options).context("train")?;
    let bytes = model.to_bytes().context("write the model")?;
    std::fs::write(&args.out, &bytes).with_context(|| format!("write model {}", args.out.display()))?;
    progress.finish_and_clear();

    let header = model.header();
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, header)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{}: {} bytes, sha256 {}", args.out.display(), bytes.len(), model.sha256())?;
    writeln!(out, "  classes   {}", header.classes.join(", "))?;
    let roles: Vec<&str> = header.heads.iter().map(|head| head.role.as_str()).collect();
    writeln!(out, "  sensors   {}, {:.1} Hz and faster", roles.join(", "), header.rate_hz[0])?;
    writeln!(out, "  examples  {} of {} players", header.training.examples, header.training.players)?;
    match &header.leave_one_player_out {
        Some(figures) => writeln!(
            out,
            "  on players left out: accuracy {:.3}, macro-F1 {:.3} ({} swings)",
            figures.accuracy, figures.macro_f1, figures.examples
        )?,
        None => writeln!(out, "  not judged: all examples are of one player")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A spinner on a terminal, nothing elsewhere.
pub(super) fn spinner() -> ProgressBar {
    let progress = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
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
        let mut recordings = Vec::new();
        let mut labels = Vec::new();
        for player in 0..players {
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
            recordings.push(Recording { name: generated.name, track, unsorted: 0 });
        }
        write_recording(&folder.join("samples.parquet"), &recordings).unwrap();
        write_labels(&folder.join("labels.csv"), &labels).unwrap();
    }

    fn args(set: &Path, out: PathBuf) -> Args {
        Args {
            sets: vec![set.to_owned()],
            out,
            name: None,
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
    fn a_folder_that_is_no_set_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = format!("{:#}", run(&args(folder.path(), folder.path().join("m"))).unwrap_err());
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
    }
}
