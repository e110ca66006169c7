//! How long a player waits after the last packet: `upload_complete` to the notice, for ten minutes of four sensors.

use std::io;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use super::data::{PACKET_FRAMES, Packets};
use super::device::{Device, Message, broken, post, start_session};
use super::target::Target;

/// Packets in flight while the session is uploaded.
const WINDOW: usize = 32;
/// The log has so long to tell what happened.
const LOG_PATIENCE: Duration = Duration::from_secs(20);

/// One session's wait and what it was spent on, ms. The parts are read from the server's log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announced {
    pub(crate) frames: usize,
    /// `upload_complete` sent, notice received.
    pub(crate) total_ms: f64,
    /// Until the answer to `upload_complete`.
    pub(crate) answered_ms: f64,
    /// Until the file is sealed and committed.
    pub(crate) sealed_ms: f64,
    /// From there until the result is published.
    pub(crate) analyzed_ms: f64,
    /// From there until the player has the notice.
    pub(crate) delivered_ms: f64,
}

pub(crate) async fn session(target: &Target, packets: &Packets, number: usize) -> io::Result<Announced> {
    let address = target.address();
    let code = format!("announce-{number}");
    let mut device = Device::connect(address, &code).await?;
    let session = start_session(address, &code).await?;
    device.next_of("start_collection").await?;
    let mut player = Device::connect_to(address, "/ws/miniprogram/test_user_123456/", "player").await?;
    player.next_of("connection_established").await?;

    let (mut sent, mut acked) = (0, 0);
    while acked < packets.len() {
        while sent < packets.len() && sent - acked < WINDOW {
            device.send_packet(packets, sent, &session).await?;
            sent += 1;
        }
        acked += usize::from(matches!(device.next().await?, Message::Acked));
    }
    post(address, "/wxapp/end_session/", &format!("session_id={session}")).await?;
    device.next_of("stop_collection").await?;

    let clock = volant::clock::Clock::system();
    let (began, began_us) = (Instant::now(), clock.now_us());
    let complete =
        format!(r#"{{"type":"upload_complete","session_id":"{session}","device_code":"{code}","timestamp":900000}}"#);
    device.send_text(&complete).await?;
    // The device's answer and the player's notice come on their own.
    let answered = async {
        let answer = device.next_of("upload_complete_response").await?;
        Ok::<_, io::Error>((answer, began.elapsed()))
    };
    let announced = async {
        // A notice of an earlier session may come again.
        let of_session = format!(r#""session_id":{session},"#);
        while !player.next_of("analysis_complete_notification").await?.contains(&of_session) {}
        Ok::<_, io::Error>((began.elapsed(), clock.now_us()))
    };
    let ((_, answered), (total, noticed_us)) = tokio::try_join!(answered, announced)?;
    // The pong that proves the delivery; without it the notice stays owed.
    drop(tokio::time::timeout(Duration::from_millis(500), player.next()).await);

    // The log comes through a pipe and may be later than the notice.
    let (sealed_us, analyzed_us) = loop {
        let log = target.log();
        let logged = |what: &str| logged_us(&log, &format!("session {session} {what}"));
        if let Some(times) = logged("sealed").zip(logged("analyzed")) {
            break times;
        }
        if began.elapsed() > LOG_PATIENCE {
            return Err(broken(&format!("no log lines of session {session}:\n{}", log.join("\n"))));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let ms = |from_us: i64, to_us: i64| (to_us - from_us) as f64 / 1e3;
    Ok(Announced {
        frames: packets.len() * PACKET_FRAMES,
        total_ms: total.as_secs_f64() * 1e3,
        answered_ms: answered.as_secs_f64() * 1e3,
        sealed_ms: ms(began_us, sealed_us),
        analyzed_ms: ms(sealed_us, analyzed_us),
        delivered_ms: ms(analyzed_us, noticed_us),
    })
}

/// When the line whose message begins so was logged, µs since 1970 UTC.
fn logged_us(log: &[String], message: &str) -> Option<i64> {
    log.iter().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let text = line.get("fields")?.get("message")?.as_str()?;
        let at: Timestamp = line.get("timestamp")?.as_str()?.parse().ok()?;
        text.starts_with(message).then(|| at.as_microsecond())
    })
}
