//! What the benches measure with: generated sessions, and the packets a device would send of them.

use std::fmt::Write;
use std::ops::Range;

use pipelines::synth::{AccUnit, Loss, SynthSpec, generate};
use schemas::{SensorRole, Track};
use volant::simulator::push_float;

/// Frames of a packet; the firmware sends no other number.
pub(crate) const PACKET_FRAMES: usize = 30;
/// Of everything that is drawn.
const SEED: u64 = 20_261_123;
/// Device clocks show UTC+8.
const UTC_PLUS_8_MS: i64 = 8 * 3_600_000;
const DAY_MS: i64 = 86_400_000;

/// Four sensors as they are worn in reality: mounted by hand, with bias, noise and 16-bit steps, ±16 g and ±2000 °/s.
/// Nothing is lost, so that a size means the same in every bench.
pub(crate) fn session(rate_hz: f64, duration_s: f64) -> Track {
    let spec = SynthSpec {
        rate_hz,
        duration_s,
        unit: AccUnit::G,
        loss: Loss { frame: 0.0, block: 0.0 },
        ..SynthSpec::new(SEED)
    };
    generate(&spec).device_track()
}

/// The samples of all sensors by time, as they reach the gateway: sensor and row in its track.
pub(crate) fn interleaved(track: &Track) -> Vec<(i64, SensorRole, usize)> {
    let mut samples: Vec<(i64, SensorRole, usize)> = track
        .iter()
        .flat_map(|(role, sensor)| sensor.t_ns.iter().enumerate().map(move |(row, &t_ns)| (t_ns, role, row)))
        .collect();
    samples.sort_unstable();
    samples
}

/// Time of day as the firmware writes it: HHMMSSmmm as a number.
pub(crate) fn stamp(started_at_ms: i64, t_ns: i64) -> i64 {
    let of_day = (started_at_ms + UTC_PLUS_8_MS + t_ns / 1_000_000).rem_euclid(DAY_MS);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    ((hour * 100 + minute) * 100 + second) * 1000 + of_day % 1000
}

/// The packets of a session: what lies between the brackets of `data`, printed once and shared by all devices.
pub(crate) struct Packets {
    text: String,
    packets: Vec<(SensorRole, Range<usize>)>,
}

impl Packets {
    /// Prints the whole packets of a session; up to 29 frames at the end are left out, as the firmware does.
    pub(crate) fn of(track: &Track, started_at_ms: i64) -> Self {
        let samples = interleaved(track);
        let mut text = String::with_capacity(samples.len() * 180);
        let mut packets = Vec::with_capacity(samples.len() / PACKET_FRAMES);
        for block in samples.chunks_exact(PACKET_FRAMES) {
            let begin = text.len();
            for &(t_ns, role, row) in block {
                let sensor = track.get(role).expect("the sample came from this track");
                text.push_str(if text.len() == begin { r#"{"acc":["# } else { r#",{"acc":["# });
                push_triple(&mut text, sensor.acc[row]);
                text.push_str(r#"],"gyro":["#);
                push_triple(&mut text, sensor.gyro[row]);
                text.push_str(r#"],"angle":["#);
                push_triple(&mut text, sensor.angle[row]);
                let (id, stamp) = (role.to_byte(), stamp(started_at_ms, t_ns));
                write!(text, r#"],"sensor_id":{id},"timestamp":{stamp}}}"#).expect("a string takes everything");
            }
            packets.push((block[0].1, begin..text.len()));
        }
        Self { text, packets }
    }

    /// Number of packets.
    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    /// A packet in three parts: what differs between devices and packets, the frames, and the session. After the last
    /// packet the first follows again, still told apart by its time.
    pub(crate) fn parts(&self, number: usize, device: &str, session: &str) -> (String, &str, String) {
        let (role, range) = &self.packets[number % self.packets.len()];
        let uptime_ms = 90_000 + number * 38;
        let head = format!(
            r#"{{"type":"batch_sensor_data","device_code":"{device}","sensor_type":"{role}","timestamp":{uptime_ms},"data":["#
        );
        (head, &self.text[range.clone()], format!(r#"],"session_id":"{session}"}}"#))
    }
}

fn push_triple(out: &mut String, [x, y, z]: [f32; 3]) {
    push_float(out, x);
    out.push(',');
    push_float(out, y);
    out.push(',');
    push_float(out, z);
}
