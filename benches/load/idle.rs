//! What a connected and silent device costs.

use std::io;
use std::time::Duration;

use super::device::Device;
use super::target::{Kind, Target};

/// Connected before the measurement begins, so that what the first connections bring with them is not counted.
const WARM_UP: usize = 100;
/// Connections made at a time.
const AT_ONCE: usize = 20;
/// Until greetings, questions and answers of the last connection are through.
const SETTLE: Duration = Duration::from_secs(3);

/// Growth of resident memory for each of `count` idle connections, bytes.
pub(crate) async fn bytes_per_connection(target: &Target, count: usize) -> io::Result<f64> {
    let mut devices = Vec::with_capacity(WARM_UP + count);
    connect(target, &mut devices, WARM_UP).await?;
    let before = target.resident_bytes()?;
    connect(target, &mut devices, count).await?;
    let after = target.resident_bytes()?;
    Ok((after as f64 - before as f64) / count as f64)
}

async fn connect(target: &Target, devices: &mut Vec<tokio::task::JoinHandle<()>>, count: usize) -> io::Result<()> {
    let (first, address) = (devices.len(), target.address());
    for begin in (0..count).step_by(AT_ONCE) {
        let numbers = first + begin..first + (begin + AT_ONCE).min(count);
        // The server asks each device how it is. Waiting for that keeps the catalog's queue short: what is measured is
        // a connection at rest, not the crowd at the door.
        let connecting = numbers.map(|number| async move {
            let mut device = Device::connect(address, &format!("idle-{number}")).await?;
            if target.kind() == Kind::Server {
                device.next_of("get_status").await?;
            }
            Ok::<_, io::Error>(device)
        });
        for mut device in futures::future::try_join_all(connecting).await? {
            // Listens, answers commands and pings, says nothing by itself.
            devices.push(tokio::spawn(async move { while device.next().await.is_ok() {} }));
        }
    }
    tokio::time::sleep(SETTLE).await;
    if devices.iter().any(tokio::task::JoinHandle::is_finished) {
        return Err(super::device::broken("idle connections were closed"));
    }
    Ok(())
}
