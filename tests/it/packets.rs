//! Packets as the firmware makes them, from generated sessions.

use pipelines::synth::{SynthSpec, generate};
use schemas::{SensorRole, Track};
use serde_json::{Value, json};
use volant::clock::Clock;

/// The packets of a generated four-sensor session of `duration_s`, under one session and device, 30 frames each, the
/// sensors mixed by time. Time stamps are calibrated times of day from now on.
pub fn session_packets(session: &str, device: &str, seed: u64, duration_s: f64) -> Vec<Value> {
    let mut spec = SynthSpec::new(seed);
    spec.duration_s = duration_s;
    packets_of(&generate(&spec).track, session, device)
}

/// The packets of a track.
pub fn packets_of(track: &Track, session: &str, device: &str) -> Vec<Value> {
    let now_ms = Clock::system().now_us() / 1000;
    let mut frames: Vec<(i64, Value)> = Vec::new();
    for (role, samples) in track.iter() {
        for row in 0..samples.len() {
            let t_ms = samples.t_ns[row].div_euclid(1_000_000);
            let numbers = |values: [f32; 3]| json!(values);
            frames.push((
                samples.t_ns[row],
                json!({
                    "acc": numbers(samples.acc[row]),
                    "gyro": numbers(samples.gyro[row]),
                    "angle": numbers(samples.angle[row]),
                    "sensor_id": role.to_byte(),
                    "timestamp": time_of_day(now_ms + t_ms),
                }),
            ));
        }
    }
    frames.sort_by_key(|(t_ns, _)| *t_ns);
    frames
        .chunks_exact(30)
        .enumerate()
        .map(|(index, block)| {
            let first = block[0].1["sensor_id"].as_i64().unwrap_or(0);
            json!({
                "type": "batch_sensor_data",
                "device_code": device,
                "sensor_type": SensorRole::from_wire_id(first).as_str(),
                "timestamp": 100_000 + index * 75,
                "data": block.iter().map(|(_, frame)| frame.clone()).collect::<Vec<_>>(),
                "session_id": session,
            })
        })
        .collect()
}

/// HHMMSSmmm in UTC+8.
pub fn time_of_day(unix_ms: i64) -> i64 {
    let ms = (unix_ms + 8 * 3_600_000).rem_euclid(86_400_000);
    let (hour, minute, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
    hour * 10_000_000 + minute * 100_000 + rest
}
