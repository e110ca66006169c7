//! The real service on a port and in a folder of its own, and small clients for it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use volant::app::App;
use volant::clock::Clock;
use volant::config::Config;

/// How long a test waits for something that must happen. Far above what it takes; never a measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running service.
pub struct TestApp {
    app: App,
    folder: TempDir,
}

impl TestApp {
    /// With the default configuration.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With a configuration that differs from the default.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(folder, change).await
    }

    /// On a folder that has been used before.
    pub async fn start_in(folder: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_at(folder, Clock::system(), change).await
    }

    /// On a folder that has been used before, at a time of the caller's.
    pub async fn start_at(folder: TempDir, clock: Clock, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: folder.path().to_path_buf(),
            ..Config::default()
        };
        config.store.min_free_bytes = 0;
        change(&mut config);
        let app = App::start(config, clock).await.expect("the service starts");
        Self { app, folder }
    }

    pub fn app(&self) -> &App {
        &self.app
    }

    pub fn address(&self) -> SocketAddr {
        self.app.address()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub fn data_dir(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the service in order; the folder lives on.
    pub async fn stop(self) -> TempDir {
        let data_dir = self.app.rooms().paths.root().to_path_buf();
        self.app.stop().await.expect("the service stops");
        assert_documented(&data_dir);
        self.folder
    }

    /// A socket of the service.
    pub async fn socket(&self, path: &str) -> Socket {
        Socket::connect(self.address(), path).await
    }

    /// POST of a form; status and JSON.
    pub async fn post_form(&self, path: &str, form: &str) -> (u16, Value) {
        self.request("POST", path, "application/x-www-form-urlencoded", form).await
    }

    /// POST of JSON; status and JSON.
    pub async fn post_json(&self, path: &str, json: &Value) -> (u16, Value) {
        self.request("POST", path, "application/json", &json.to_string()).await
    }

    /// GET; status and JSON.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.request("GET", path, "", "").await
    }

    /// One request on a connection of its own; a body that is not JSON comes back as a JSON text.
    pub async fn request(&self, method: &str, path: &str, content_type: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.address()).await.expect("connect");
        let content = if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{content}Content-Length: {}\r\n\r\n{body}",
            self.address(),
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("receive");
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            dechunk(body)
        } else {
            body.to_owned()
        };
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// The rows of a statement, as JSON objects.
    pub async fn sql(&self, statement: &str) -> Vec<Value> {
        let (status, answer) =
            self.post_json("/api/v2/sql", &serde_json::json!({ "query": statement, "format": "json" })).await;
        assert_eq!(status, 200, "{statement}: {answer}");
        match answer {
            Value::Array(rows) => rows,
            other => panic!("{statement}: {other}"),
        }
    }

    /// The single number that a statement answers.
    pub async fn sql_count(&self, statement: &str) -> i64 {
        let rows = self.sql(statement).await;
        let value = rows.first().and_then(Value::as_object).and_then(|row| row.values().next().cloned());
        value.and_then(|value| value.as_i64()).unwrap_or_else(|| panic!("{statement}: {rows:?}"))
    }

    /// Starts a session of the test user on a device; its number.
    pub async fn start_session(&self, device: &str) -> i64 {
        let form = format!("openid=test_user_123456&device_group_code={device}&device_code={device}");
        let (status, answer) = self.post_form("/wxapp/start_session/", &form).await;
        assert_eq!(status, 200, "{answer}");
        answer["session_id"].as_i64().expect("a session number")
    }
}

/// Every file of a data folder is in the list of docs/data.md, which says whose it is and how it goes.
pub fn assert_documented(data_dir: &Path) {
    let document = include_str!("../../docs/data.md");
    let (_, rest) = document.split_once("## What lies in a data folder").expect("the section");
    let (section, _) = rest.split_once("\n## ").expect("its end");
    let first_cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let patterns: Vec<&str> = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(patterns.len() > 15, "{patterns:?}");
    let mut folders = vec![data_dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(data_dir).expect("below").to_str().expect("a text").to_owned();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert!(patterns.iter().any(|pattern| matches(pattern, &name)), "{name} is not in docs/data.md");
            }
        }
    }
}

/// `*` stands for anything within a name, `**` for anything below.
fn matches(pattern: &str, path: &str) -> bool {
    let mut names = path.split('/');
    for part in pattern.split('/') {
        let Some(name) = names.next() else { return false };
        if part == "**" {
            return true;
        }
        let fits = match part.split_once('*') {
            None => part == name,
            Some((start, end)) => match end.split_once('*') {
                None => name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end),
                Some((middle, end)) => {
                    let inside = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
                    inside.is_some_and(|inside| inside.contains(middle))
                }
            },
        };
        if !fits {
            return false;
        }
    }
    names.next().is_none()
}

pub fn dechunk(body: &str) -> String {
    let mut rest = body;
    let mut whole = String::new();
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole.push_str(&tail[..size]);
        rest = tail[size..].trim_start_matches("\r\n");
    }
    whole
}

/// A WebSocket client that reads and writes JSON.
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub async fn connect(address: SocketAddr, path: &str) -> Self {
        let (socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}{path}"))
            .await
            .unwrap_or_else(|error| panic!("connect to {path}: {error}"));
        Self(socket)
    }

    pub async fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.expect("send");
    }

    /// The next JSON message; pings are answered on the way. `None` when the socket is closed.
    pub async fn next(&mut self) -> Option<Value> {
        let wait = async {
            while let Some(message) = self.0.next().await {
                match message {
                    Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).expect("JSON")),
                    Ok(Message::Close(_)) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
            None
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("a message in time")
    }

    /// The next message of this type; others are passed over.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await.unwrap_or_else(|| panic!("closed while waiting for {kind}"));
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Waits until the server closes; with which code.
    pub async fn closed(&mut self) -> u16 {
        let wait = async {
            while let Some(message) = self.0.next().await {
                if let Ok(Message::Close(frame)) = message {
                    return frame.map(|frame| frame.code.into());
                }
            }
            None
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("a close in time").expect("a close with a code")
    }

    /// True if nothing but pings comes for this long. Only to show absence: never needed for a test to pass quickly.
    pub async fn is_silent_for(&mut self, duration: Duration) -> bool {
        let wait = async {
            while let Some(message) = self.0.next().await {
                if matches!(message, Ok(Message::Text(_))) {
                    return;
                }
            }
        };
        tokio::time::timeout(duration, wait).await.is_err()
    }

    /// True if no message of this kind comes for this long.
    pub async fn hears_no(&mut self, kind: &str, duration: Duration) -> bool {
        tokio::time::timeout(duration, self.next_of(kind)).await.is_err()
    }

    pub async fn close(mut self) {
        // The server may have closed first.
        drop(self.0.close(None).await);
    }
}
