//! The session doctor: what is wrong with a recording, which figures it affects, and what to do.
//!
//! The issues of an analysis are what it met on its way. The doctor adds what only a look at the whole shows (sensors that
//! join late, rates that differ, an accelerometer that reads no 1 g at rest, delays that drift as clocks do), and gives
//! every finding a remedy.

use schemas::{ClockNote, SensorRole, Track};
use serde::{Deserialize, Serialize};

use crate::analysis::{Analysis, IssueCode, Severity};
use crate::calibrate::{G, median, span_s};
use crate::issues::name_zh;

/// One thing wrong with a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable, `snake_case`: an issue's code, or one of the doctor's own.
    pub code: String,
    /// How much it matters.
    pub severity: Severity,
    /// The sensor that it is about; absent: the recording.
    pub sensor: Option<SensorRole>,
    /// What is wrong, with the figures.
    pub text: String,
    /// The same in Chinese.
    pub text_zh: String,
    /// Names of the figures that it removes or weakens.
    pub affects: Vec<String>,
    /// What to do.
    pub remedy: String,
    /// The same in Chinese.
    pub remedy_zh: String,
}

/// What is wrong with this recording, the gravest first. Empty: nothing was found.
///
/// `analysis` must be the analysis of `track`. Pure: the same arguments give the same findings.
///
/// ```
/// use volant_pipelines::{Params, analyze, diagnose};
///
/// let track = schemas::Track::default();
/// let findings = diagnose(&track, &analyze(&track, Params::builtin(), None));
/// assert_eq!(findings[0].code, "no_data");
/// ```
#[must_use]
pub fn diagnose(track: &Track, analysis: &Analysis) -> Vec<Finding> {
    let mut findings: Vec<Finding> = analysis
        .issues
        .iter()
        .map(|issue| {
            let [remedy, remedy_zh] = remedy(issue.code);
            Finding {
                code: code_name(issue.code),
                severity: issue.severity,
                sensor: issue.sensor,
                text: issue.message.clone(),
                text_zh: issue.message_zh.clone(),
                affects: issue.affects.clone(),
                remedy: remedy.to_owned(),
                remedy_zh: remedy_zh.to_owned(),
            }
        })
        .collect();
    let mut own = Own(&mut findings);
    own.presence(track);
    own.clocks(track);
    own.rates(analysis);
    own.stuck(track);
    own.rest(track, analysis);
    own.radians(track, analysis);
    own.losses(analysis);
    own.names(analysis);
    own.few(analysis);
    // Stable: among equals the order of discovery.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// The code as JSON has it.
fn code_name(code: IssueCode) -> String {
    match serde_json::to_value(code) {
        Ok(serde_json::Value::String(name)) => name,
        // A unit variant serialises to its name; anything else would be another type.
        _ => String::new(),
    }
}

/// What to do about an issue: English, Chinese.
fn remedy(code: IssueCode) -> [&'static str; 2] {
    match code {
        IssueCode::NoData => [
            "Check that the sensors are charged, paired and sending before the session starts; record again.",
            "开始前确认各传感器已充电、已配对并正在发送数据，然后重新录制。",
        ],
        IssueCode::SensorMissing => [
            "Charge and pair this sensor and watch for its samples on the device page before playing; the other figures stand.",
            "给该传感器充电并配对，开始前在设备页确认有数据；其余指标不受影响。",
        ],
        IssueCode::Gap => [
            "Bring the gateway nearer (within 10 m, not behind the body), and fewer radios beside it; swings inside a hole are left out.",
            "将网关靠近球员（10 米内、不被身体遮挡），减少附近无线干扰；中断期间的挥拍不参与计算。",
        ],
        IssueCode::Saturation => [
            "Set the sensor to a larger range (±2000 °/s, ±16 g or more); until then read speeds as lower bounds.",
            "将传感器量程调大（±2000 °/s、±16 g 或以上）；在此之前速度类指标只是下限。",
        ],
        IssueCode::ClockJump => [
            "Do not restart or press the button of a sensor while recording; update its firmware if it happens by itself.",
            "录制时不要重启或按动传感器；若自行发生请升级固件。",
        ],
        IssueCode::ClockUnsynced => [
            "Let every sensor set its clock before the session (wait for the calibration of the gateway); delays below the clocks' error stay unresolved.",
            "开始前等待各传感器完成校时；小于时钟误差的延迟无法分辨。",
        ],
        IssueCode::RateLow => [
            "Set the sensor to 100 samples a second or more; classes and counts stand, timing does not.",
            "将采样率设为每秒 100 次或以上；当前的类型与次数可用，时序不可用。",
        ],
        IssueCode::UnitUndecided => [
            "Lay the sensor still for five seconds at the start; if it then does not read 1 g, recalibrate or replace it.",
            "开始时将传感器静置五秒；若读数仍不是 1 g，请重新校准或更换。",
        ],
        IssueCode::NoSwings => [
            "Wear at least the wrist or racket sensor and play full strokes; soft practice swings may stay below the threshold.",
            "至少佩戴手腕或球拍传感器并完整挥拍；过轻的动作可能低于检测阈值。",
        ],
        IssueCode::NotResolved => [
            "Record at a higher rate and with set clocks; a delay that is truly near zero stays unresolved, and that is the finding.",
            "提高采样率并先校时；若实际延迟接近零，则本来就无法分辨先后。",
        ],
        IssueCode::NoModel => [
            "Choose a model that was trained for this sensor and rate, or train one from labelled swings.",
            "选用适合该传感器与采样率的模型，或用已标注的挥拍训练一个。",
        ],
        IssueCode::AnglesMissing => [
            "Switch the sensor's own angles on; turns and tilts computed from its gyro stand in for them in the further figures.",
            "开启传感器的角度输出；其他指标已改用陀螺仪推算的转动与倾斜。",
        ],
        IssueCode::DuplicateTimes => [
            "Nothing to do for a few; many mean that the firmware sends blocks twice.",
            "少量无需处理；大量重复说明固件重复发送了数据。",
        ],
        IssueCode::FramesUntimed => [
            "Nothing to do for a few; many mean that the firmware sends frames before their time is known: update it.",
            "少量无需处理；大量出现说明固件在获得时间之前就发送了数据，请升级固件。",
        ],
        IssueCode::Implausible => [
            "Nothing to do for a few; many mean a loose cable or a damaged sensor.",
            "少量无需处理；大量出现说明接线松动或传感器损坏。",
        ],
        IssueCode::CandidatesRejected => [
            "Nothing to do where they were no strokes; if strokes are missing, calibrate the model with a few labelled swings of this player.",
            "若确非击球则无需处理；若漏计击球，请用该球员的少量已标注挥拍校准模型。",
        ],
        IssueCode::SensorSwapped => [
            "Check which sensor is worn where; if they were exchanged, correct the assignment and analyse the session again.",
            "核对各传感器的佩戴位置；若互换，请更正后重新分析。",
        ],
        IssueCode::SensorMisplaced => [
            "Check that this sensor sits on the arm that holds the racket, tight enough not to turn on it.",
            "确认该传感器佩戴在持拍手一侧，并固定牢靠。",
        ],
        IssueCode::OtherHandSuspected => [
            "If this player holds the racket in the other hand, let a pipeline with classify.mirror set to that axis (or to none, where it is set) analyse the player's sessions (docs/pipelines.md); else calibrate the model with a few labelled swings.",
            "若该球员为另一只手持拍，请用 classify.mirror 设为该轴（若已设置则改为 none）的流程分析其训练（见 docs/pipelines.md）；否则请用少量已标注的挥拍校准模型。",
        ],
        IssueCode::SensorTurnedSuspected => [
            "Wear the sensor the other way round, as in the recordings that the model learned from, or calibrate the model with a few labelled swings of this player.",
            "请将传感器反过来佩戴，与模型训练时一致；或用该球员的少量已标注挥拍校准模型。",
        ],
        IssueCode::ClockDriftSuspected => [
            "Do not read the chain's delays as technique; let the gateway set the sensors' clocks again during long sessions.",
            "暂勿将动力链延迟视为技术特点；长时间训练中应让网关重新校时。",
        ],
        IssueCode::Imported | IssueCode::ImportedConstants => {
            ["Analyse the session again here if its frames were imported too.", "若原始数据也已导入，可在此重新分析。"]
        }
    }
}

const CHAIN: &[&str] = &["phase_delay", "order_tau", "scores"];

/// Collects what the doctor finds itself.
struct Own<'a>(&'a mut Vec<Finding>);

impl Own<'_> {
    fn add(
        &mut self,
        code: &str,
        severity: Severity,
        sensor: Option<SensorRole>,
        [text, text_zh]: [String; 2],
        affects: &[&str],
        [remedy, remedy_zh]: [&str; 2],
    ) {
        self.0.push(Finding {
            code: code.to_owned(),
            severity,
            sensor,
            text,
            text_zh,
            affects: affects.iter().map(|&name| name.to_owned()).collect(),
            remedy: remedy.to_owned(),
            remedy_zh: remedy_zh.to_owned(),
        });
    }

    /// Sensors that join late or leave early.
    fn presence(&mut self, track: &Track) {
        // A tenth of the session, and more than a few seconds of it.
        const SHARE: f64 = 0.1;
        const LEAST_S: f64 = 5.0;
        let bounds = |t_ns: &[i64]| Some((t_ns.iter().min().copied()?, t_ns.iter().max().copied()?));
        let spans: Vec<(SensorRole, i64, i64)> = track
            .iter()
            .filter_map(|(role, sensor)| bounds(&sensor.t_ns).map(|(first, last)| (role, first, last)))
            .collect();
        let (Some(first), Some(last)) = (spans.iter().map(|s| s.1).min(), spans.iter().map(|s| s.2).max()) else {
            return;
        };
        let whole_s = span_s(first, last);
        for (role, from, to) in spans {
            let (late_s, early_s) = (span_s(first, from), span_s(to, last));
            let missed_s = late_s + early_s;
            if missed_s > LEAST_S && missed_s > SHARE * whole_s {
                let zh = name_zh(role);
                self.add(
                    "sensor_partly_there",
                    Severity::Warning,
                    Some(role),
                    [
                        format!(
                            "The {role} sensor starts {late_s:.0} s after the first and ends {early_s:.0} s before the \
                             last of {whole_s:.0} s."
                        ),
                        format!("{zh}传感器晚开始 {late_s:.0} 秒、早结束 {early_s:.0} 秒（全程 {whole_s:.0} 秒）。"),
                    ],
                    CHAIN,
                    [
                        "Switch every sensor on before starting the session; strokes outside its time have no figures of it.",
                        "开始前打开全部传感器；缺失时段的击球没有该传感器的指标。",
                    ],
                );
            }
        }
    }

    /// Clocks that were put right before the analysis: each sensor once, by the worst that was found.
    fn clocks(&mut self, track: &Track) {
        for role in SensorRole::CHAIN {
            let notes: Vec<&ClockNote> = track.clocks.iter().filter(|note| note.sensor == role).collect();
            let Some(worst) = notes.iter().max_by(|a, b| a.ahead_ms.abs().total_cmp(&b.ahead_ms.abs())) else {
                continue;
            };
            let zh = name_zh(role);
            let text = if worst.calibrated {
                let (ahead_ms, ppm) = (worst.ahead_ms, worst.drift_ppm);
                [
                    format!(
                        "The {role} sensor's clock was {ahead_ms:+.0} ms off and drifted by {ppm:+.0} ppm against the others; its \
                         times were put right by the order in which samples arrived."
                    ),
                    format!(
                        "{zh}传感器的时钟偏差 {ahead_ms:+.0} 毫秒、漂移 {ppm:+.0} ppm；已按样本到达顺序校正其时间。"
                    ),
                ]
            } else {
                [
                    format!(
                        "The {role} sensor's clock was never set; its times come from the order in which samples arrived."
                    ),
                    format!("{zh}传感器未校时；其时间由样本到达顺序推定。"),
                ]
            };
            self.add(
                "clock_put_right",
                Severity::Info,
                Some(role),
                text,
                CHAIN,
                [
                    "Nothing to do for this recording: the delays' intervals hold what is left. Switch the gateway off and on \
                     before long sessions, so that it sets the clocks anew.",
                    "本次无需处理，延迟区间已包含剩余误差。长时间训练前请重启网关以重新校时。",
                ],
            );
        }
    }

    /// Sensors at different rates.
    fn rates(&mut self, analysis: &Analysis) {
        let rates: Vec<(SensorRole, f64)> = analysis
            .session
            .sensors
            .iter()
            .filter_map(|(role, quality)| quality.rate_hz.map(|rate| (*role, rate)))
            .collect();
        let (Some(slow), Some(fast)) = (
            rates.iter().min_by(|a, b| a.1.total_cmp(&b.1)).copied(),
            rates.iter().max_by(|a, b| a.1.total_cmp(&b.1)).copied(),
        ) else {
            return;
        };
        if slow.1 < 0.8 * fast.1 {
            self.add(
                "rates_differ",
                Severity::Info,
                Some(slow.0),
                [
                    format!(
                        "The {} sensor delivers {:.0} samples a second, the {} sensor {:.0}.",
                        slow.0, slow.1, fast.0, fast.1
                    ),
                    format!(
                        "{}传感器每秒 {:.0} 次，{}传感器每秒 {:.0} 次。",
                        name_zh(slow.0),
                        slow.1,
                        name_zh(fast.0),
                        fast.1
                    ),
                ],
                &["phase_delay", "delay_uncertainty_ms"],
                [
                    "Set all sensors to the same rate: delays are as uncertain as the slower of two makes them.",
                    "将各传感器设为相同采样率：延迟精度取决于较慢的一个。",
                ],
            );
        }
    }

    /// Sensors that send the same values over and over.
    fn stuck(&mut self, track: &Track) {
        const SHARE: f64 = 0.2;
        for (role, sensor) in track.iter() {
            let same = |a: &[f32; 3], b: &[f32; 3]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
            let repeats = sensor
                .gyro
                .windows(2)
                .zip(sensor.acc.windows(2))
                .filter(|(gyro, acc)| {
                    gyro[0].iter().all(|c| c.is_finite()) && same(&gyro[0], &gyro[1]) && same(&acc[0], &acc[1])
                })
                .count();
            let share = repeats as f64 / sensor.len().max(1) as f64;
            if sensor.len() > 100 && share > SHARE {
                self.add(
                    "values_repeat",
                    Severity::Warning,
                    Some(role),
                    [
                        format!("{:.0}% of the {role} sensor's samples repeat the one before, digit for digit.", share * 100.0),
                        format!("{}传感器有 {:.0}% 的样本与前一个完全相同。", name_zh(role), share * 100.0),
                    ],
                    &["phase_delay", "smoothness_sparc", "peak_gyro_dps"],
                    [
                        "The chip measures more slowly than it is read, or hangs: raise its output rate, or restart it.",
                        "芯片的输出速率低于读取速率或已卡住：提高输出速率或重启传感器。",
                    ],
                );
            }
        }
    }

    /// Accelerometers that do not read 1 g when still.
    fn rest(&mut self, track: &Track, analysis: &Analysis) {
        const OFF_G: f64 = 0.05;
        const STRETCH: usize = 20;
        for (role, sensor) in track.iter() {
            let Some(factor) = analysis.session.sensors.get(&role).and_then(|quality| quality.acc_to_mps2) else {
                continue;
            };
            let length = |v: &[f32; 3]| v.iter().map(|c| f64::from(*c).powi(2)).sum::<f64>().sqrt();
            let mut still: Vec<f64> = sensor
                .acc
                .chunks_exact(STRETCH)
                .zip(sensor.gyro.chunks_exact(STRETCH))
                .filter(|(_, gyro)| gyro.iter().all(|w| length(w) < 15.0))
                .filter_map(|(acc, _)| {
                    let lengths: Vec<f64> = acc.iter().map(|a| length(a) * f64::from(factor) / G).collect();
                    let mean = lengths.iter().sum::<f64>() / STRETCH as f64;
                    lengths.iter().all(|l| (l - mean).abs() < 0.03).then_some(mean)
                })
                .collect();
            if still.len() < 5 {
                continue;
            }
            let Some(reads) = median(&mut still) else { continue };
            if (reads - 1.0).abs() > OFF_G {
                self.add(
                    "accelerometer_off",
                    Severity::Warning,
                    Some(role),
                    [
                        format!("At rest the {role} sensor reads {reads:.2} g instead of 1 g."),
                        format!("{}传感器静止时读数为 {reads:.2} g，应为 1 g。", name_zh(role)),
                    ],
                    &["peak_accel_mps2", "wrist_speed_mps", "energy_ratio"],
                    ["Recalibrate the accelerometer (six positions, at rest).", "重新校准加速度计（六面静置法）。"],
                );
            }
        }
    }

    /// Angular velocity that looks like rad/s.
    fn radians(&mut self, track: &Track, analysis: &Analysis) {
        for (role, sensor) in track.iter() {
            let Some(factor) = analysis.session.sensors.get(&role).and_then(|quality| quality.acc_to_mps2) else {
                continue;
            };
            let fastest = sensor.gyro.iter().flatten().filter(|c| c.is_finite()).fold(0.0_f32, |m, c| m.max(c.abs()));
            let strongest = sensor.acc.iter().flatten().filter(|c| c.is_finite()).fold(0.0_f32, |m, c| m.max(c.abs()));
            // A hand that reaches 4 g turns faster than 60 °/s; 60 rad/s are 3400 °/s, beyond most gyros.
            if fastest > 0.0 && fastest < 60.0 && f64::from(strongest * factor) > 4.0 * G {
                self.add(
                    "gyro_in_radians",
                    Severity::Warning,
                    Some(role),
                    [
                        format!("The {role} sensor never exceeds {fastest:.0} °/s while it feels more than 4 g: is it in rad/s?"),
                        format!("{}传感器受力超过 4 g 而角速度不超过 {fastest:.0} °/s：单位是否为 rad/s？", name_zh(role)),
                    ],
                    &["strokes", "phase_delay", "peak_gyro_dps", "racket_head_speed_mps"],
                    [
                        "Send angular velocity in °/s (multiply rad/s by 57.296) and analyse again.",
                        "角速度应以 °/s 发送（rad/s 乘以 57.296），然后重新分析。",
                    ],
                );
            }
        }
    }

    /// Samples that never came.
    fn losses(&mut self, analysis: &Analysis) {
        for (role, quality) in &analysis.session.sensors {
            let Some(rate) = quality.rate_hz else { continue };
            let expected = rate * analysis.session.duration_s;
            let lost = 1.0 - quality.samples as f64 / expected.max(1.0);
            if lost > 0.02 && expected > 100.0 {
                self.add(
                    "samples_lost",
                    if lost > 0.1 { Severity::Warning } else { Severity::Info },
                    Some(*role),
                    [
                        format!("About {:.0}% of the {role} sensor's samples are missing.", lost * 100.0),
                        format!("{}传感器约有 {:.0}% 的样本缺失。", name_zh(*role), lost * 100.0),
                    ],
                    &["strokes", "phase_delay", "player_load"],
                    [
                        "Check the radio link and the sensor's battery; strokes inside the missing stretches are not found.",
                        "检查无线连接与电量；缺失时段内的击球无法检测。",
                    ],
                );
            }
        }
    }

    /// Strokes that got no name.
    fn names(&mut self, analysis: &Analysis) {
        let named = analysis.strokes.iter().filter(|stroke| stroke.confidence.is_some()).count();
        let other = analysis.strokes.iter().filter(|s| s.confidence.is_some() && s.stroke == crate::OTHER).count();
        if named >= 10 && other * 2 > named {
            self.add(
                "strokes_unnamed",
                Severity::Info,
                None,
                [
                    format!("{other} of {named} swings look like no stroke that the model knows."),
                    format!("{named} 次挥拍中有 {other} 次与模型已知的击球都不相似。"),
                ],
                &["stroke", "stroke_counts"],
                [
                    "Label a few of this player's swings of each class and calibrate the model with them.",
                    "为该球员每类击球标注几次挥拍，并用其校准模型。",
                ],
            );
        }
    }

    /// Too few strokes for medians and trends.
    fn few(&mut self, analysis: &Analysis) {
        let count = analysis.strokes.len();
        if (1..10).contains(&count) {
            self.add(
                "few_strokes",
                Severity::Info,
                None,
                [
                    format!("{count} strokes are few: medians move with each of them, and trends need ten."),
                    format!("仅有 {count} 次击球：中位数不稳定，趋势至少需要十次。"),
                ],
                &["scores", "trend_peak_gyro_per_10min", "template_correlation"],
                ["Record at least 20 strokes of each class.", "每类击球至少录制 20 次。"],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::{SynthSpec, generate};
    use crate::{Params, analyze};

    fn found(track: &Track) -> Vec<Finding> {
        diagnose(track, &analyze(track, Params::builtin(), None))
    }

    fn has(findings: &[Finding], code: &str, sensor: Option<SensorRole>) -> bool {
        findings.iter().any(|finding| finding.code == code && finding.sensor == sensor)
    }

    #[test]
    fn what_was_done_to_a_recording_is_found() {
        let good = generate(&SynthSpec { duration_s: 60.0, ..SynthSpec::new(71) }).track;
        let healthy = found(&good);
        for code in [
            "sensor_partly_there",
            "rates_differ",
            "values_repeat",
            "accelerometer_off",
            "gyro_in_radians",
            "samples_lost",
            "clock_drift_suspected",
        ] {
            assert!(healthy.iter().all(|finding| finding.code != code), "{code}: {healthy:?}");
        }

        let mut bad = good.clone();
        let waist = bad.sensors[0].as_mut().unwrap();
        for part in [&mut waist.acc, &mut waist.gyro, &mut waist.angle] {
            part.drain(..1500);
        }
        waist.t_ns.drain(..1500);
        let shoulder = bad.sensors[1].as_mut().unwrap();
        shoulder.acc.iter_mut().flatten().for_each(|c| *c *= 1.1);
        let wrist = bad.sensors[2].as_mut().unwrap();
        wrist.gyro.iter_mut().flatten().for_each(|c| *c = c.to_radians());
        let racket = bad.sensors[3].as_mut().unwrap();
        for i in (1..racket.len()).step_by(2) {
            racket.acc[i] = racket.acc[i - 1];
            racket.gyro[i] = racket.gyro[i - 1];
        }
        let findings = found(&bad);
        for (code, role) in [
            ("sensor_partly_there", SensorRole::Waist),
            ("accelerometer_off", SensorRole::Shoulder),
            ("gyro_in_radians", SensorRole::Wrist),
            ("values_repeat", SensorRole::Racket),
        ] {
            assert!(has(&findings, code, Some(role)), "{code}: {findings:?}");
        }
        for finding in &findings {
            assert!(!finding.text.is_empty() && !finding.text_zh.is_empty());
            assert!(!finding.remedy.is_empty() && !finding.remedy_zh.is_empty());
        }
        assert!(findings.windows(2).all(|pair| pair[0].severity >= pair[1].severity));
    }

    #[test]
    fn a_clock_that_was_put_right_is_told_once() {
        let mut track = generate(&SynthSpec { duration_s: 30.0, ..SynthSpec::new(73) }).track;
        let note =
            ClockNote { sensor: SensorRole::Wrist, calibrated: true, from_s: 0.0, ahead_ms: -3.0, drift_ppm: 4.0 };
        track.clocks = vec![note.clone(), ClockNote { ahead_ms: 41.6, from_s: 12.0, ..note }];
        track.clocks.push(ClockNote { sensor: SensorRole::Waist, calibrated: false, ..track.clocks[0].clone() });
        let findings = found(&track);
        let told: Vec<&Finding> = findings.iter().filter(|finding| finding.code == "clock_put_right").collect();
        assert_eq!(
            told.iter().map(|f| f.sensor).collect::<Vec<_>>(),
            [Some(SensorRole::Waist), Some(SensorRole::Wrist)]
        );
        assert!(told[0].text.contains("never set") && told[1].text.contains("+42 ms"), "{told:?}");
    }

    #[test]
    fn a_clock_that_drifts_is_suspected() {
        let mut track = generate(&SynthSpec { duration_s: 240.0, ..SynthSpec::new(72) }).track;
        // 150 ppm on the wrist: 36 ms over four minutes.
        let wrist = track.sensors[2].as_mut().unwrap();
        wrist.t_ns.iter_mut().for_each(|t| *t += *t / 1_000_000 * 150);
        assert!(has(&found(&track), "clock_drift_suspected", None));
    }
}
