//! Devices that stream: as fast as they are acknowledged, or at their own pace.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::data::{PACKET_FRAMES, Packets};
use super::device::{Device, Message, broken, start_session};
use super::target::{Kind, Target};

/// Four sensors at 200 Hz fill a packet so often.
const PACKET_INTERVAL: Duration = Duration::from_micros(37_500);

/// Devices get a code of their own in every round, so that each streams into a session of its own.
static NEXT_DEVICE: AtomicUsize = AtomicUsize::new(1);

/// What a round showed.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) frames: u64,
    pub(crate) wall_s: f64,
    pub(crate) cpu_s: f64,
    /// From sending a packet to its acknowledgement, µs.
    pub(crate) acks_us: Histogram<u64>,
}

/// Each device keeps `window` packets in flight until it has sent `count`.
pub(crate) async fn closed(
    target: &Target,
    packets: &Packets,
    devices: usize,
    window: usize,
    count: usize,
) -> io::Result<Run> {
    measure(target, devices, |mut device, session| async move {
        let mut acks_us = histogram();
        let mut in_flight = VecDeque::with_capacity(window);
        let mut sent = 0;
        while sent < count || !in_flight.is_empty() {
            while sent < count && in_flight.len() < window {
                in_flight.push_back(Instant::now());
                device.send_packet(packets, sent, &session).await?;
                sent += 1;
            }
            if let Message::Acked = device.next().await? {
                note(&mut acks_us, in_flight.pop_front());
            }
        }
        Ok((device, acks_us))
    })
    .await
}

/// Each device sends a packet whenever its sensors have filled one, whether the last was acknowledged or not.
pub(crate) async fn paced(target: &Target, packets: &Packets, devices: usize, length: Duration) -> io::Result<Run> {
    let next_phase = AtomicUsize::new(0);
    let next_phase = &next_phase;
    measure(target, devices, |mut device, session| async move {
        let mut acks_us = histogram();
        let mut in_flight = VecDeque::new();
        // Devices are not in step.
        let phase = PACKET_INTERVAL * next_phase.fetch_add(1, Ordering::Relaxed) as u32 / devices as u32;
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + phase, PACKET_INTERVAL);
        let count = (length.as_secs_f64() / PACKET_INTERVAL.as_secs_f64()) as usize;
        let mut sent = 0;
        while sent < count || !in_flight.is_empty() {
            tokio::select! {
                _ = tick.tick(), if sent < count => {
                    in_flight.push_back(Instant::now());
                    device.send_packet(packets, sent, &session).await?;
                    sent += 1;
                }
                message = device.next() => {
                    if let Message::Acked = message? {
                        note(&mut acks_us, in_flight.pop_front());
                    }
                }
            }
        }
        Ok((device, acks_us))
    })
    .await
}

/// Connects the devices, lets them stream, and reads the target's CPU time before and after.
async fn measure<F>(target: &Target, devices: usize, stream: impl Fn(Device, String) -> F) -> io::Result<Run>
where
    F: Future<Output = io::Result<(Device, Histogram<u64>)>>,
{
    let mut ready = Vec::with_capacity(devices);
    for _ in 0..devices {
        let code = format!("load-{}", NEXT_DEVICE.fetch_add(1, Ordering::Relaxed));
        let mut device = Device::connect(target.address(), &code).await?;
        let session = match target.kind() {
            Kind::Control => "1".to_owned(),
            Kind::Server => {
                let session = start_session(target.address(), &code).await?;
                device.next_of("start_collection").await?;
                session
            }
        };
        ready.push((device, session));
    }
    let cpu_s = target.cpu_s()?;
    let started = Instant::now();
    let ended =
        futures::future::try_join_all(ready.into_iter().map(|(device, session)| stream(device, session))).await?;
    let (wall_s, cpu_s) = (started.elapsed().as_secs_f64(), target.cpu_s()? - cpu_s);
    let mut acks_us = histogram();
    for (_device, of_device) in &ended {
        acks_us.add(of_device).map_err(io::Error::other)?;
    }
    let frames = acks_us.len() * PACKET_FRAMES as u64;
    if frames == 0 {
        return Err(broken("nothing was acknowledged"));
    }
    Ok(Run { frames, wall_s, cpu_s, acks_us })
}

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds")
}

fn note(acks_us: &mut Histogram<u64>, sent: Option<Instant>) {
    if let Some(sent) = sent {
        acks_us.saturating_record(sent.elapsed().as_micros() as u64);
    }
}
