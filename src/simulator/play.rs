//! A whole session as the mini-program makes it: start, play, stop, wait for the analysis.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::http::post_form;
use super::{Address, Error, Handle, Progress};

/// What `get_analysis/` and the push call the result.
pub const NOTIFICATION: &str = "analysis_complete_notification";

/// How long each step of a session may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlayLimits {
    /// Until the device is connected.
    pub connect: Duration,
    /// Of an HTTP request; the mini-program's own limit is not known.
    pub request: Duration,
    /// From the start until the device streams.
    pub start: Duration,
    /// Until the whole recording was sent and answered.
    pub stream: Duration,
    /// From the stop until `upload_complete`.
    pub upload: Duration,
    /// From there until the notification.
    pub analysis: Duration,
}

impl PlayLimits {
    /// Limits for a recording of this length at this speed.
    #[must_use]
    pub fn for_recording(duration_s: f64, factor: f64) -> Self {
        let second = Duration::from_secs;
        Self {
            connect: second(20),
            request: second(10),
            start: second(20),
            stream: Duration::from_secs_f64(60.0 + 3.0 * duration_s / factor.max(0.01)),
            upload: second(20),
            analysis: second(120),
        }
    }
}

/// What has been reached.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The server made a session.
    Started { session_id: String },
    /// The device sends data.
    Streaming,
    /// Everything was sent, and the stop requested.
    Stopping,
    /// The device reported its upload complete.
    Uploaded,
    /// The notification is here.
    Notified,
}

/// A session that was played to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// As the server gave it.
    pub session_id: String,
    /// The whole notification message.
    pub notification: Value,
    /// From `upload_complete` to the notification.
    pub analysis_took: Duration,
    /// The device at that moment.
    pub device: Progress,
}

/// The user's socket.
struct UserSocket {
    user: String,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl UserSocket {
    async fn open(address: &Address, openid: &str) -> Result<Self, Error> {
        let failed = |source| Error::UserSocket { user: openid.to_owned(), source: Box::new(source) };
        let url = format!("ws://{address}/ws/miniprogram/{openid}/");
        let (socket, _) = tokio_tungstenite::connect_async(url).await.map_err(failed)?;
        Ok(Self { user: openid.to_owned(), socket })
    }

    /// Waits for the notification of a session; everything else that comes is passed over.
    async fn notification(&mut self, session_id: &str) -> Result<Value, Error> {
        while let Some(message) = self.socket.next().await {
            let message =
                message.map_err(|source| Error::UserSocket { user: self.user.clone(), source: Box::new(source) })?;
            let Message::Text(text) = message else { continue };
            let Ok(message) = serde_json::from_str::<Value>(&text) else { continue };
            let about = match &message["session_id"] {
                Value::String(id) => id.clone(),
                id => id.to_string(),
            };
            if message["type"] == NOTIFICATION && about == session_id {
                return Ok(message);
            }
        }
        Err(Error::UserSocketClosed { user: self.user.clone() })
    }
}

/// Plays a session with a device that is switched on: connects the user's socket, starts, waits until the recording is
/// streamed, stops, and waits for the notification. Says each step to `reached`.
///
/// # Errors
/// Whatever step did not happen; the session is ended if it was started and the stream failed.
pub async fn play_session(
    device: &Handle,
    address: &Address,
    openid: &str,
    limits: PlayLimits,
    mut reached: impl FnMut(Step),
) -> Result<Played, Error> {
    let before = device.wait_until("a connection", limits.connect, |now| now.connected).await?;
    let device_code = before.device_code.clone();
    let mut user = UserSocket::open(address, openid).await?;
    let form = [("openid", openid), ("device_group_code", &*device_code)];
    let started = post_form(address, "/wxapp/start_session/", &form, limits.request).await?;
    let session_id = match &started["session_id"] {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => return Err(Error::Answer { address: address.to_string(), path: "/wxapp/start_session/".to_owned() }),
    };
    reached(Step::Started { session_id: session_id.clone() });

    let stop = async || post_form(address, "/wxapp/end_session/", &[("session_id", &session_id)], limits.request).await;
    let stream = async {
        device.wait_until("streaming", limits.start, |now| now.streaming && now.session_id == session_id).await?;
        reached(Step::Streaming);
        device.wait_streamed(limits.stream).await
    };
    if let Err(error) = stream.await {
        // The session must not stay open on the server; why it failed matters more than whether it ended well.
        drop(stop().await);
        return Err(error);
    }
    stop().await?;
    reached(Step::Stopping);
    // The device also reports by itself when the server stops it for another reason.
    let device_now = device
        .wait_until("upload_complete", limits.upload, |now| {
            now.uploads_completed > before.uploads_completed && now.upload_session_id == session_id
        })
        .await?;
    let uploaded = Instant::now();
    reached(Step::Uploaded);
    let notification = match tokio::time::timeout(limits.analysis, user.notification(&session_id)).await {
        Ok(notification) => notification?,
        Err(_) => {
            return Err(Error::Timeout {
                what: "the notification of the analysis",
                device_code,
                limit: limits.analysis,
                hint: String::new(),
            });
        }
    };
    let analysis_took = uploaded.elapsed();
    reached(Step::Notified);
    // A polite end; the result is here whatever becomes of it.
    drop(user.socket.send(Message::Close(None)).await);
    Ok(Played { session_id, notification, analysis_took, device: device_now })
}
