//! From a socket to the acknowledgement that says "on disk".

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use criterion::{Criterion, Throughput};
use schemas::DeviceCode;
use tokio::runtime::Runtime;
use volant::app::App;
use volant::clock::Clock;
use volant::config::Config;
use volant::ingest::Packet;
use volant::protocol::{ClientMessage, Endpoint, decode};

use super::data::{PACKET_FRAMES, Packets, session};
use super::decode::text;
use super::device::{Device, Message, start_session};

/// Bytes of a logged packet of 30 frames: 32 of record header, 40 of body header, 63 a frame.
const RECORD_BYTES: usize = 2_000;
const DEVICES: usize = 8;
const WINDOW: usize = 8;

pub(super) fn bench(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let clock = Clock::system();
    let packets = Packets::of(&session(200.0, 60.0), clock.now_us() / 1000);
    let folder = super::folder();
    let mut config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        data_dir: folder.path().join("data"),
        ..Config::default()
    };
    // The limits are not what is measured.
    config.gateway.device_messages_per_s = 1_000_000;
    config.gateway.device_frames_per_s = 30_000_000;
    let app = runtime.block_on(App::start(config, clock.clone())).expect("the service starts");

    let mut group = c.benchmark_group("ingest");
    group.sample_size(30);

    floor(&mut group, folder.path());
    group.throughput(Throughput::Elements(PACKET_FRAMES as u64));
    group.bench_function("1_device_append_to_synced_30_frames", |b| {
        let device: DeviceCode = "append-1".parse().expect("letters, digits and a hyphen");
        let session = runtime.block_on(start_session(app.address(), device.as_str())).expect("a session");
        let mut number = 0;
        b.iter_custom(|iterations| {
            // Decoded outside the measured time.
            let prepared: Vec<Packet> = (0..iterations)
                .map(|_| {
                    number += 1;
                    packet(&text(&packets, number, device.as_str(), &session), clock.now_us())
                })
                .collect();
            let ingest = app.rooms().ingest.clone();
            runtime.block_on(async {
                let started = Instant::now();
                for packet in prepared {
                    let accepted = ingest.append(&device, packet).await.expect("a live session");
                    accepted.durable.await.expect("a disk with room");
                }
                started.elapsed()
            })
        });
    });
    group.bench_function("1_device_socket_to_synced_ack_30_frames", |b| {
        let (mut device, session) = runtime.block_on(connected(app.address(), "socket-1"));
        let mut number = 0;
        b.iter_custom(|iterations| {
            runtime.block_on(async {
                let started = Instant::now();
                for _ in 0..iterations {
                    number += 1;
                    device.send_packet(&packets, number, &session).await.expect("a connected device");
                    acks(&mut device, 1).await;
                }
                started.elapsed()
            })
        });
    });
    group.throughput(Throughput::Elements((DEVICES * WINDOW * PACKET_FRAMES) as u64));
    group.bench_function("8_devices_64_packets_socket_to_synced_ack_1920_frames", |b| {
        let mut devices: Vec<(Device, String)> = (0..DEVICES)
            .map(|index| runtime.block_on(connected(app.address(), &format!("socket-8-{index}"))))
            .collect();
        let mut number = 0;
        b.iter_custom(|iterations| {
            runtime.block_on(async {
                let started = Instant::now();
                for _ in 0..iterations {
                    let first = number;
                    number += WINDOW;
                    let packets = &packets;
                    let sending = devices.iter_mut().map(|(device, session)| async move {
                        for number in first..first + WINDOW {
                            device.send_packet(packets, number, session).await.expect("a connected device");
                        }
                        acks(device, WINDOW).await;
                    });
                    futures::future::join_all(sending).await;
                }
                started.elapsed()
            })
        });
    });
    group.finish();
    runtime.block_on(app.stop()).expect("the log closes");
}

/// What the disk alone takes for one record: the floor under every acknowledgement.
fn floor(group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>, folder: &std::path::Path) {
    group.throughput(Throughput::Elements(PACKET_FRAMES as u64));
    group.bench_function("floor_write_and_fdatasync_2.0kB", |b| {
        let file = File::create_new(folder.join("floor")).expect("the folder is new");
        let record = vec![0x5A; RECORD_BYTES];
        let mut offset = 0;
        b.iter(|| {
            file.write_all_at(&record, offset).expect("a disk with room");
            file.sync_data().expect("a disk that syncs");
            offset += RECORD_BYTES as u64;
        });
        drop(std::fs::remove_file(folder.join("floor")));
    });
}

fn packet(text: &str, received_at_us: i64) -> Packet {
    let Ok(ClientMessage::Batch(packet)) = decode(Endpoint::Device, text) else {
        unreachable!("the text is a packet of frames")
    };
    Packet {
        claimed_session: packet.claimed_session,
        packet_ms: packet.packet_ms,
        content_hash: packet.content_hash,
        frames: packet.frames,
        received_at_us,
    }
}

async fn connected(address: SocketAddr, code: &str) -> (Device, String) {
    let mut device = Device::connect(address, code).await.expect("the service listens");
    let session = start_session(address, code).await.expect("a session");
    device.next_of("start_collection").await.expect("the start command");
    (device, session)
}

/// Waits until so many packets were acknowledged.
async fn acks(device: &mut Device, count: usize) {
    let mut acked = 0;
    while acked < count {
        acked += usize::from(matches!(device.next().await.expect("an acknowledgement"), Message::Acked));
    }
}
