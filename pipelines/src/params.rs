//! Parameters of the pipeline: every number that a person may want to tune, in one file with its unit in its name.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::definition::Pipeline;
use crate::features::Mirror;

/// Parameters of a pipeline: the sections of its file, see [`crate::Pipeline`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Name of the pipeline.
    pub name: String,
    /// From samples as sent to the working grid.
    pub calibrate: CalibrateParams,
    /// From the grid to swings.
    pub segment: SegmentParams,
    /// From swings to strokes.
    pub classify: ClassifyParams,
    /// From swings to the kinetic chain.
    pub kinetics: KineticsParams,
    /// From figures to scores and advice.
    pub report: ReportParams,
}

/// From samples as sent to the working grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrateParams {
    /// Rate of the working grid, Hz.
    pub grid_hz: u32,
    /// Longest hole that is bridged, s.
    pub bridge_s: f64,
    /// Longest hole inside a swing that is not flagged, ms.
    pub gap_flag_ms: f64,
    /// A gap is a hole of more than this many sample periods.
    pub gap_periods: f64,
    /// Largest believable acceleration component, in the unit as sent.
    pub acc_limit: f32,
    /// Largest believable angular velocity component, °/s.
    pub gyro_limit_dps: f32,
    /// Rate below which timing is coarse, Hz.
    pub rate_low_hz: f64,
    /// Time constant of the gravity estimate, s.
    pub gravity_tau_s: f64,
    /// Most points of the working grid for one sensor.
    pub grid_points_max: usize,
    /// Factor from acceleration as sent to m/s², where the format says it; never in a file. Without, each sensor's rest
    /// decides.
    #[serde(skip)]
    pub acc_to_mps2: Option<f32>,
}

/// From the grid to swings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentParams {
    /// Dynamic acceleration that counts 1 in the score, g.
    pub acc_scale_g: f64,
    /// Angular rate that counts 1 in the score, °/s.
    pub gyro_scale_dps: f64,
    /// First moving average, s.
    pub smooth_s: f64,
    /// Second moving average, s.
    pub smooth_again_s: f64,
    /// Least score of a swing's peak.
    pub floor: f64,
    /// Score above which a peak is a swing however strong its neighbours are.
    pub ceiling: f64,
    /// Share of the recent percentile that a peak must reach.
    pub fraction: f64,
    /// Which percentile, 0 to 100.
    pub percentile: f64,
    /// How far back the percentile looks, s.
    pub history_s: f64,
    /// Least prominence of a peak as a share of its height.
    pub prominence: f64,
    /// How long a valley that is no rest must last to end a swing, s.
    pub settle_s: f64,
    /// Least distance between peaks while the pace is unknown, s.
    pub spacing_s: f64,
    /// Least distance between peaks at the fastest pace, s.
    pub spacing_s_min: f64,
    /// Least distance between peaks at a slow pace, s.
    pub spacing_s_max: f64,
    /// Share of the local median distance that the next swing must keep.
    pub pace_fraction: f64,
    /// Share of the peak at which a swing starts and ends.
    pub edge_fraction: f64,
    /// Score at which a swing starts and ends at the latest.
    pub edge_level: f64,
    /// Longest time from start to peak, s.
    pub reach_before_s: f64,
    /// Longest time from peak to end, s.
    pub reach_after_s: f64,
    /// How far from the peak of the score the fastest rotation is sought, s.
    pub fastest_reach_s: f64,
    /// Jerk of a hit over the median jerk of its swing.
    pub impact_factor: f64,
    /// How far from the peak a hit is sought, s.
    pub impact_reach_s: f64,
    /// Rate below which no hit is sought, Hz.
    pub impact_rate_hz_min: f64,
    /// Least change of acceleration of a hit that makes a gentle movement a swing, m/s³.
    pub hit_jerk_min: f64,
    /// Share of `floor` that the top of a swing with such a hit must reach.
    pub hit_fraction: f64,
}

/// From swings to strokes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifyParams {
    /// Probability below which the answer is `other`.
    pub confidence_min: f64,
    /// Whether a model's gate may reject movements that the detector proposes.
    pub gate: bool,
    /// Whether the swings around one say more of its name: in drills, where the same stroke is played over and over.
    pub drills: bool,
    /// For a player of the other hand: the axis across the body.
    pub mirror: Mirror,
}

/// From swings to the kinetic chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KineticsParams {
    /// Low-pass of the angular velocity, Hz.
    pub lowpass_hz: f64,
    /// How long before the impact peaks are sought, s.
    pub before_s: f64,
    /// How long after the impact peaks are sought, s.
    pub after_s: f64,
    /// Least angular rate of a peak, °/s.
    pub peak_dps_min: f64,
    /// Standard deviations a delay needs to be resolved.
    pub resolved_sigmas: f64,
    /// Clock error above which delays are doubtful, ms.
    pub sync_warn_ms: f64,
    /// Clock error of a sensor (one standard deviation) where the recording states none, ms.
    pub sync_assumed_ms: f64,
    /// Inertia of the trunk in the energy figures, kg·m².
    pub waist_inertia_kgm2: f64,
    /// Mass that the wrist moves in the energy figures, kg.
    pub wrist_mass_kg: f64,
    /// Racket sensor to the centre of the strings, m.
    pub racket_radius_m: f64,
    /// Highest frequency of the spectral arc length, Hz.
    pub sparc_cutoff_hz: f64,
    /// Amplitude below which the spectrum ends, share of its maximum.
    pub sparc_threshold: f64,
    /// Pause that ends a rally, s.
    pub rally_gap_s: f64,
}

/// From figures to scores and advice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportParams {
    /// Ideal delay waist to shoulder, s.
    pub ideal_waist_to_shoulder_s: f64,
    /// Ideal delay shoulder to wrist, s.
    pub ideal_shoulder_to_wrist_s: f64,
    /// Ideal energy ratio.
    pub ideal_energy_ratio: f64,
    /// Ideal range of the waist, °.
    pub ideal_rom_waist_deg: f64,
    /// Ideal range of the shoulder, °.
    pub ideal_rom_shoulder_deg: f64,
    /// Ideal range of the wrist, °.
    pub ideal_rom_wrist_deg: f64,
}

/// Why a parameter file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ParamsError {
    /// Not TOML, or a key that is unknown, missing or of the wrong type.
    #[error("read the parameters: {source}")]
    Syntax {
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value outside its range.
    #[error("take {key} = {value}: it must be between {min} and {max}")]
    Range {
        /// Section and key.
        key: &'static str,
        /// The value given.
        value: f64,
        /// Least value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// Two values that contradict each other.
    #[error("take {low} above {high}")]
    Order {
        /// The key that must be the smaller.
        low: &'static str,
        /// The key that must be the larger.
        high: &'static str,
    },
}

impl Params {
    /// The parameters that ship with the product.
    #[must_use]
    pub fn builtin() -> &'static Self {
        &Pipeline::builtin().params
    }

    /// Reads the name and the sections of a pipeline file.
    ///
    /// # Errors
    /// A key that is unknown or missing, a value out of range.
    pub(crate) fn from_table(table: toml::Table) -> Result<Self, ParamsError> {
        let params: Self = table.try_into().map_err(|source| ParamsError::Syntax { source: Box::new(source) })?;
        params.validate()?;
        Ok(params)
    }

    /// SHA-256, hex, of the values in canonical form: compact JSON in the order of the fields. Comments, blanks and the
    /// order of keys in the file do not change it.
    #[must_use]
    pub fn sha256(&self) -> String {
        let canonical = serde_json::to_vec(self).expect("a struct of numbers and one text always serialises");
        hex(&Sha256::digest(&canonical))
    }

    fn validate(&self) -> Result<(), ParamsError> {
        let Self { calibrate: c, segment: s, classify: y, kinetics: k, report: r, .. } = self;
        let ranges: [(&'static str, f64, f64, f64); 53] = [
            ("calibrate.grid_hz", f64::from(c.grid_hz), 50.0, 400.0),
            ("calibrate.bridge_s", c.bridge_s, 0.02, 3.0),
            ("calibrate.gap_flag_ms", c.gap_flag_ms, 1.0, 1000.0),
            ("calibrate.gap_periods", c.gap_periods, 1.5, 100.0),
            ("calibrate.acc_limit", f64::from(c.acc_limit), 20.0, 100_000.0),
            ("calibrate.gyro_limit_dps", f64::from(c.gyro_limit_dps), 2000.0, 1_000_000.0),
            ("calibrate.rate_low_hz", c.rate_low_hz, 1.0, 1000.0),
            ("calibrate.gravity_tau_s", c.gravity_tau_s, 0.05, 60.0),
            ("calibrate.grid_points_max", c.grid_points_max as f64, 1000.0, 50_000_000.0),
            ("segment.acc_scale_g", s.acc_scale_g, 0.05, 20.0),
            ("segment.gyro_scale_dps", s.gyro_scale_dps, 10.0, 5000.0),
            ("segment.smooth_s", s.smooth_s, 0.0, 2.0),
            ("segment.smooth_again_s", s.smooth_again_s, 0.0, 2.0),
            ("segment.floor", s.floor, 0.01, 20.0),
            ("segment.ceiling", s.ceiling, 0.01, 100.0),
            ("segment.fraction", s.fraction, 0.0, 1.0),
            ("segment.percentile", s.percentile, 50.0, 100.0),
            ("segment.history_s", s.history_s, 1.0, 600.0),
            ("segment.prominence", s.prominence, 0.0, 0.95),
            ("segment.settle_s", s.settle_s, 0.0, 1.0),
            ("segment.spacing_s", s.spacing_s, 0.1, 10.0),
            ("segment.spacing_s_min", s.spacing_s_min, 0.1, 10.0),
            ("segment.spacing_s_max", s.spacing_s_max, 0.1, 10.0),
            ("segment.pace_fraction", s.pace_fraction, 0.0, 1.0),
            ("segment.edge_fraction", s.edge_fraction, 0.0, 0.9),
            ("segment.edge_level", s.edge_level, 0.0, 10.0),
            ("segment.reach_before_s", s.reach_before_s, 0.05, 10.0),
            ("segment.reach_after_s", s.reach_after_s, 0.05, 10.0),
            ("segment.fastest_reach_s", s.fastest_reach_s, 0.0, 2.0),
            ("segment.impact_factor", s.impact_factor, 1.0, 1000.0),
            ("segment.impact_reach_s", s.impact_reach_s, 0.005, 1.0),
            ("segment.impact_rate_hz_min", s.impact_rate_hz_min, 1.0, 10_000.0),
            ("segment.hit_jerk_min", s.hit_jerk_min, 0.0, 1_000_000.0),
            ("segment.hit_fraction", s.hit_fraction, 0.0, 1.0),
            ("classify.confidence_min", y.confidence_min, 0.0, 1.0),
            ("kinetics.lowpass_hz", k.lowpass_hz, 1.0, 0.45 * f64::from(c.grid_hz)),
            ("kinetics.before_s", k.before_s, 0.05, 5.0),
            ("kinetics.after_s", k.after_s, 0.0, 2.0),
            ("kinetics.peak_dps_min", k.peak_dps_min, 0.0, 5000.0),
            ("kinetics.resolved_sigmas", k.resolved_sigmas, 0.5, 10.0),
            ("kinetics.sync_warn_ms", k.sync_warn_ms, 0.0, 1000.0),
            ("kinetics.sync_assumed_ms", k.sync_assumed_ms, 0.0, 100.0),
            ("kinetics.waist_inertia_kgm2", k.waist_inertia_kgm2, 0.01, 50.0),
            ("kinetics.wrist_mass_kg", k.wrist_mass_kg, 0.01, 10.0),
            ("kinetics.racket_radius_m", k.racket_radius_m, 0.1, 1.0),
            ("kinetics.sparc_cutoff_hz", k.sparc_cutoff_hz, 2.0, 0.45 * f64::from(c.grid_hz)),
            ("kinetics.sparc_threshold", k.sparc_threshold, 0.0, 0.9),
            ("kinetics.rally_gap_s", k.rally_gap_s, 0.5, 600.0),
            ("report.ideal_waist_to_shoulder_s", r.ideal_waist_to_shoulder_s, 0.001, 1.0),
            ("report.ideal_shoulder_to_wrist_s", r.ideal_shoulder_to_wrist_s, 0.001, 1.0),
            ("report.ideal_energy_ratio", r.ideal_energy_ratio, 0.01, 1.0),
            ("report.ideal_rom_waist_deg", r.ideal_rom_waist_deg, 1.0, 360.0),
            ("report.ideal_rom_shoulder_deg", r.ideal_rom_shoulder_deg, 1.0, 360.0),
        ];
        let last = ("report.ideal_rom_wrist_deg", r.ideal_rom_wrist_deg, 1.0, 360.0);
        for (key, value, min, max) in ranges.into_iter().chain([last]) {
            if !(min..=max).contains(&value) {
                return Err(ParamsError::Range { key, value, min, max });
            }
        }
        for (low, high, fits) in [
            ("segment.floor", "segment.ceiling", s.floor <= s.ceiling),
            ("segment.spacing_s_min", "segment.spacing_s", s.spacing_s_min <= s.spacing_s),
            ("segment.spacing_s", "segment.spacing_s_max", s.spacing_s <= s.spacing_s_max),
        ] {
            if !fits {
                return Err(ParamsError::Order { low, high });
            }
        }
        Ok(())
    }
}

/// Bytes as lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::DEFAULT;

    fn read(text: &str) -> Result<Params, crate::PipelineError> {
        Pipeline::from_toml(text, |_| None).map(|pipeline| pipeline.params)
    }

    fn refusal(text: &str) -> ParamsError {
        match read(text).unwrap_err() {
            crate::PipelineError::Params(error) => error,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_shipped_file_is_accepted_and_its_hash_ignores_layout() {
        let shipped = read(DEFAULT).unwrap();
        assert_eq!(Params::builtin(), &shipped);
        let without_comments: String =
            DEFAULT.lines().filter(|line| !line.starts_with('#')).fold(String::new(), |text, line| text + line + "\n");
        assert_eq!(read(&without_comments).unwrap().sha256(), shipped.sha256());
        let mut other = shipped.clone();
        other.segment.floor += 0.01;
        assert_ne!(other.sha256(), shipped.sha256());
        assert_eq!(shipped.sha256().len(), 64);
    }

    #[test]
    fn unknown_missing_and_absurd_keys_are_refused_by_name() {
        let unknown = DEFAULT.replace("floor = ", "flor = ");
        let message = refusal(&unknown).to_string();
        assert!(message.contains("flor"), "{message}");
        let absurd = DEFAULT.replace("grid_hz = 100", "grid_hz = 4");
        assert!(matches!(refusal(&absurd), ParamsError::Range { key: "calibrate.grid_hz", .. }));
        let not_a_number = DEFAULT.replace("bridge_s = 1.0", "bridge_s = nan");
        assert!(matches!(refusal(&not_a_number), ParamsError::Range { .. }));
        let crossed = DEFAULT.replace("ceiling = 2.0", "ceiling = 0.1");
        assert!(matches!(refusal(&crossed), ParamsError::Order { .. }));
        assert!(read("").is_err());
    }
}
