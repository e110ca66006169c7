//! What the sensors of a device measure: frames in the order in which they reach the gateway.

use std::sync::Arc;

use pipelines::synth::{AccUnit, GRAVITY_MPS2, SynthSession};
use schemas::Track;

use crate::recordings::Recording;

/// One frame from one sensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceFrame {
    /// When it reaches the gateway, ms from the first frame.
    pub at_ms: f64,
    /// The sensor's own clock, ms, on the same scale.
    pub stamp_ms: f64,
    /// 1 waist, 2 shoulder, 3 wrist, 4 racket.
    pub sensor_id: u8,
    /// In g, as the sensors send it.
    pub acc: [f32; 3],
    /// °/s.
    pub gyro: [f32; 3],
    /// Roll, pitch, yaw, °.
    pub angle: [f32; 3],
}

/// The frames of a recording or of a generated session. Cheap to clone: devices share it.
#[derive(Clone, Debug)]
pub struct Source {
    frames: Arc<[SourceFrame]>,
}

impl Source {
    /// The frames of a recording, turned back into g; the sensors' clocks agree.
    #[must_use]
    pub fn from_recording(recording: &Recording) -> Self {
        Self::build(&recording.track, &Default::default(), 1.0 / GRAVITY_MPS2)
    }

    /// The frames of a generated session with the clocks that were planted. `unit` is the one it was generated in.
    #[must_use]
    pub fn from_synth(session: &SynthSession, unit: AccUnit) -> Self {
        let to_g = match unit {
            AccUnit::G => 1.0,
            AccUnit::Mps2 => 1.0 / GRAVITY_MPS2,
        };
        Self::build(&session.track, &session.device_ms, to_g)
    }

    fn build(track: &Track, device_ms: &[Vec<f64>; 4], to_g: f64) -> Self {
        let mut frames = Vec::with_capacity(track.len());
        for (role, sensor) in track.iter() {
            let stamps = &device_ms[role.chain_index().unwrap_or_default()];
            for row in 0..sensor.len() {
                let at_ms = sensor.t_ns[row] as f64 * 1e-6;
                frames.push(SourceFrame {
                    at_ms,
                    stamp_ms: stamps.get(row).copied().unwrap_or(at_ms),
                    sensor_id: role.to_byte(),
                    acc: sensor.acc[row].map(|value| (f64::from(value) * to_g) as f32),
                    gyro: sensor.gyro[row],
                    angle: sensor.angle[row],
                });
            }
        }
        frames.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
        let first_ms = frames.first().map_or(0.0, |frame| frame.at_ms);
        for frame in &mut frames {
            frame.at_ms -= first_ms;
            frame.stamp_ms -= first_ms;
        }
        Self { frames: frames.into() }
    }

    /// All frames in order of arrival.
    #[must_use]
    pub fn frames(&self) -> &[SourceFrame] {
        &self.frames
    }

    /// From the first to the last frame, ms.
    #[must_use]
    pub fn duration_ms(&self) -> f64 {
        self.frames.last().map_or(0.0, |frame| frame.at_ms)
    }
}

/// What happens when the recording is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeat {
    /// The sensors stand still until the block with the last frame is full, so that it can be sent, and then are silent.
    #[default]
    Once,
    /// It starts again, for load.
    Forever,
}

/// A source being played.
#[derive(Debug)]
pub(super) struct Player {
    source: Source,
    repeat: Repeat,
    next: usize,
    /// Rounds of the recording that are over.
    laps: u32,
    /// Still frames that fill the last block.
    padding: Vec<SourceFrame>,
    padded: usize,
    interval_ms: f64,
}

impl Player {
    pub(super) fn new(source: Source, repeat: Repeat) -> Self {
        let frames = source.frames.len().max(2);
        let interval_ms = (source.duration_ms() / (frames - 1) as f64).max(0.001);
        Self { source, repeat, next: 0, laps: 0, padding: Vec::new(), padded: 0, interval_ms }
    }

    pub(super) fn restart(&mut self) {
        self.next = 0;
        self.laps = 0;
        self.padding.clear();
        self.padded = 0;
    }

    /// `count` still frames that were measured before the recording begins: its first ones, held.
    pub(super) fn held_before(&self, count: usize) -> Vec<SourceFrame> {
        let mut sensors = Vec::with_capacity(4);
        for frame in self.source.frames.iter().take(400) {
            if !sensors.iter().any(|other: &SourceFrame| other.sensor_id == frame.sensor_id) {
                sensors.push(*frame);
            }
        }
        if sensors.is_empty() {
            return Vec::new();
        }
        (0..count)
            .map(|index| {
                let earlier_ms = (count - index) as f64 * self.interval_ms;
                // The sensors take turns, so that the last held frame is the last sensor's.
                let which = (sensors.len() - 1) - (count - 1 - index) % sensors.len();
                let frame = sensors[which];
                SourceFrame { at_ms: -earlier_ms, stamp_ms: -earlier_ms, ..frame }
            })
            .collect()
    }

    /// The next frame that has arrived by `elapsed_ms` after the start. `in_block` frames wait in the block already.
    pub(super) fn next(&mut self, elapsed_ms: f64, in_block: usize) -> Option<SourceFrame> {
        if self.next == self.source.frames.len() && self.repeat == Repeat::Forever && self.next > 0 {
            self.next = 0;
            self.laps += 1;
        }
        if let Some(frame) = self.source.frames.get(self.next) {
            let lap_ms = f64::from(self.laps) * (self.source.duration_ms() + self.interval_ms);
            let at_ms = frame.at_ms + lap_ms;
            if at_ms > elapsed_ms {
                return None;
            }
            self.next += 1;
            return Some(SourceFrame { at_ms, stamp_ms: frame.stamp_ms + lap_ms, ..*frame });
        }
        // The recording is over: hold each sensor's last frame until the block is full.
        if in_block == 0 {
            return None;
        }
        if self.padding.is_empty() {
            for frame in self.source.frames.iter().rev().take(400) {
                if !self.padding.iter().any(|other| other.sensor_id == frame.sensor_id) {
                    self.padding.push(*frame);
                }
            }
            self.padding.reverse();
        }
        let last_ms = self.source.duration_ms();
        let frame = *self.padding.get(self.padded % self.padding.len().max(1))?;
        let at_ms = last_ms + (self.padded + 1) as f64 * self.interval_ms;
        if at_ms > elapsed_ms {
            return None;
        }
        self.padded += 1;
        Some(SourceFrame { at_ms, stamp_ms: at_ms + (frame.stamp_ms - frame.at_ms), ..frame })
    }

    /// True when every recorded frame has been handed out.
    pub(super) fn is_over(&self) -> bool {
        self.next == self.source.frames.len() && self.repeat == Repeat::Once
    }
}

#[cfg(test)]
mod tests {
    use pipelines::synth::{SynthSpec, generate};

    use super::*;

    fn source(duration_s: f64) -> Source {
        Source::from_synth(&generate(&SynthSpec { duration_s, ..SynthSpec::new(1) }), AccUnit::Mps2)
    }

    #[test]
    fn frames_come_in_order_of_arrival_in_g_with_their_own_clocks() {
        let source = source(3.0);
        assert!(source.frames().is_sorted_by(|a, b| a.at_ms <= b.at_ms));
        for sensor_id in 1..=4 {
            let frames = source.frames().iter().filter(|frame| frame.sensor_id == sensor_id);
            assert!((280..=301).contains(&frames.clone().count()));
            let ahead = frames.map(|frame| frame.stamp_ms - frame.at_ms).fold(0.0_f64, |a, b| a.max(b.abs()));
            assert!(ahead > 0.01 && ahead < 30.0);
        }
        let length = source.frames()[0].acc.iter().map(|value| value * value).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < 0.2, "{length}");
    }

    #[test]
    fn the_last_block_is_filled_with_stillness_and_no_more() {
        let source = source(1.0);
        let recorded = source.frames().len();
        let mut player = Player::new(source, Repeat::Once);
        let mut handed = Vec::new();
        while let Some(frame) = player.next(f64::INFINITY, handed.len() % 30) {
            handed.push(frame);
        }
        assert_eq!(handed.len(), recorded.div_ceil(30) * 30);
        assert!(player.is_over());
        let held = |frame: &SourceFrame| (frame.sensor_id, frame.acc.map(f32::to_bits));
        assert!(handed.is_sorted_by(|a, b| a.at_ms <= b.at_ms));
        assert!(handed[recorded..].iter().all(|frame| handed[..recorded].iter().any(|old| held(old) == held(frame))));
        player.restart();
        assert_eq!(player.next(0.0, 0), Some(handed[0]));
        assert_eq!(player.next(0.0, 0), None);
    }

    #[test]
    fn a_repeated_source_goes_on_in_time() {
        let source = source(1.0);
        let recorded = source.frames().len();
        let mut player = Player::new(source, Repeat::Forever);
        let frames: Vec<_> = (0..3 * recorded).map_while(|_| player.next(f64::INFINITY, 1)).collect();
        assert_eq!(frames.len(), 3 * recorded);
        assert!(frames.is_sorted_by(|a, b| a.at_ms <= b.at_ms));
        assert!(!player.is_over());
    }

    #[test]
    fn what_was_measured_before_the_start_is_older() {
        let player = Player::new(source(1.0), Repeat::Once);
        let held = player.held_before(29);
        assert_eq!(held.len(), 29);
        assert!(held.iter().all(|frame| frame.at_ms < 0.0) && held.is_sorted_by(|a, b| a.at_ms < b.at_ms));
        assert!((1..=4).all(|id| held.iter().any(|frame| frame.sensor_id == id)));
    }
}
