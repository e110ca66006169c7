//! What is wrong with a recording, as an analysis meets it on its way: each issue with its figures, in both languages, and the figures
//! that it removes or weakens. The doctor adds what only a look at the whole shows.

use schemas::{SensorRole, SensorTrack, Track};

use crate::analysis::{Issue, IssueCode, PhaseDelay, RangeOfMotion, Severity, Stroke};
use crate::calibrate::{Signal, median, norm};
use crate::features::Mounting;
use crate::model::Model;
use crate::mounting::Suspicion;
use crate::params::Params;
use crate::pipeline::Drift;
use crate::report::median_of;

const CHAIN_FIGURES: [&str; 3] = ["phase_delay", "energy_ratio", "scores"];

/// The issues in the order they were found: sensors, swings, model, figures.
#[derive(Default)]
pub(crate) struct Issues(pub(crate) Vec<Issue>);

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

    pub(crate) fn of_sensors(&mut self, signals: &[Option<&Signal>; 4], track: &Track, params: &Params) {
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
    pub(crate) fn of_clocks(&mut self, signals: &[Option<&Signal>; 4], track: &Track, params: &Params) {
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
    pub(crate) fn of_untimed(&mut self, track: Option<&SensorTrack>, role: SensorRole) {
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

    pub(crate) fn of_drifts(&mut self, drifts: &[Drift]) {
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

    pub(crate) fn of_sensor(&mut self, signal: &Signal, zh: &str, params: &Params) {
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

    pub(crate) fn of_swings(
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
    pub(crate) fn of_wearing(&mut self, strokes: &[Stroke], signals: &[Option<&Signal>; 4]) {
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

    pub(crate) fn of_gate(&mut self, rejected: usize, chosen: Option<&Signal>) {
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

    pub(crate) fn of_mounting(&mut self, suspicion: Option<Suspicion>, model: Option<&Model>, chosen: Option<&Signal>) {
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

    pub(crate) fn of_model(
        &mut self,
        model: Option<&Model>,
        usable: Option<&Model>,
        strokes: &[Stroke],
        chosen: Option<&Signal>,
    ) {
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

    pub(crate) fn of_figures(
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
