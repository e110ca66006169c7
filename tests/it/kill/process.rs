//! The real binary as a process, and clients that outlive it.

use std::path::Path;
use std::process::Stdio;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::support::{PATIENCE, assert_documented, dechunk};

pub const PLAYER: &str = "test_user_123456";
pub const FRAMES_A_PACKET: usize = 30;

/// `volant serve` as a process of its own.
pub struct Server {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
}

/// What a start came to.
pub enum Started {
    /// It listens here.
    Listening(String),
    /// It ended without listening.
    Ended(i32),
}

pub fn volant(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volant"));
    command.args(arguments).arg("--data-dir").arg(folder).env_remove("VOLANT_CONFIG").kill_on_drop(true);
    command
}

impl Server {
    /// Starts the process; its log goes to `server.log` beside the data folder.
    pub fn spawn(folder: &Path, flags: &[&str]) -> Self {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(folder.with_extension("log"))
            .expect("a file for the log");
        let mut command = volant(&["serve", "--listen", "127.0.0.1:0"], folder);
        command.env("VOLANT_STORE_MIN_FREE_BYTES", "0").args(flags).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("its output");
        Self { child, stdout: BufReader::new(stdout).lines() }
    }

    pub async fn started(&mut self) -> Started {
        let line = async {
            while let Some(line) = self.stdout.next_line().await.expect("its output") {
                if let Some(address) = line.strip_prefix("listening on http://") {
                    return Started::Listening(address.to_owned());
                }
            }
            Started::Ended(self.child.wait().await.expect("its end").code().unwrap_or(-1))
        };
        tokio::time::timeout(PATIENCE, line).await.expect("it starts in time")
    }

    pub async fn listening(&mut self) -> String {
        match self.started().await {
            Started::Listening(address) => address,
            Started::Ended(code) => panic!("the service ended with {code} instead of listening"),
        }
    }

    /// SIGKILL, and waits until the process is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// SIGTERM, and waits for the end; the exit status.
    pub async fn terminate(mut self) -> i32 {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().await.expect("kill runs");
        assert!(sent.success());
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends in time");
        ended.expect("its end").code().unwrap_or(-1)
    }
}

/// Runs a command of the binary to its end: success and what it printed on both outputs.
pub async fn run(arguments: &[&str], folder: &Path) -> (bool, String, String) {
    let output = volant(arguments, folder).output().await.expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// `volant sql` on the folder; the rows.
pub async fn sql_on_folder(folder: &Path, statement: &str) -> Vec<Value> {
    let (success, out, errors) = run(&["sql", statement, "--format", "json"], folder).await;
    assert!(success, "{statement}: {errors}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{statement}: {error}: {out}"))
}

/// `volant verify` must find everything whole; its report.
pub async fn verified(folder: &Path) -> Value {
    let (success, out, errors) = run(&["verify", "--json"], folder).await;
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {errors}"));
    assert!(success, "{report}");
    assert_documented(folder);
    report
}

/// Anything that a client meets when the process dies under it.
pub struct Gone;

/// Where the service is now; `None` while it is down.
pub type Address = watch::Receiver<Option<String>>;

pub async fn current(address: &mut Address) -> String {
    let found = address.wait_for(Option::is_some).await.expect("the test holds the sender");
    found.clone().expect("waited for it")
}

pub async fn request(
    address: &str,
    method: &str,
    path: &str,
    content_type: &str,
    body: &str,
) -> Result<(u16, Value), Gone> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.map_err(|_| Gone)?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + body).as_bytes()).await.map_err(|_| Gone)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.map_err(|_| Gone)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(Gone)?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(Gone)?;
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { dechunk(body) } else { body.to_owned() };
        // An answer that was cut off is none.
        Ok((status, serde_json::from_str(&body).map_err(|_| Gone)?))
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
}

pub async fn post_form(address: &str, path: &str, form: &str) -> Result<(u16, Value), Gone> {
    request(address, "POST", path, "application/x-www-form-urlencoded", form).await
}

/// The rows of a statement, from the service.
pub async fn sql(address: &str, statement: &str) -> Result<Vec<Value>, Gone> {
    let body = json!({ "query": statement, "format": "json" }).to_string();
    let (status, answer) = request(address, "POST", "/api/v2/sql", "application/json", &body).await?;
    assert_eq!(status, 200, "{statement}: {answer}");
    match answer {
        Value::Array(rows) => Ok(rows),
        other => panic!("{statement}: {other}"),
    }
}

/// A socket that may end at any time.
pub struct Line(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Line {
    pub async fn open(address: &str, path: &str) -> Result<Self, Gone> {
        let opened = tokio_tungstenite::connect_async(format!("ws://{address}{path}"));
        match tokio::time::timeout(PATIENCE, opened).await.expect("an answer in time") {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(_) => Err(Gone),
        }
    }

    pub async fn send(&mut self, text: &str) -> Result<(), Gone> {
        self.0.send(Message::text(text)).await.map_err(|_| Gone)
    }

    /// The next JSON message; `Gone` with the close code, if there was one.
    pub async fn next_or_code(&mut self) -> Result<Value, Option<u16>> {
        let wait = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).expect("JSON")),
                    Some(Ok(Message::Close(close))) => return Err(close.map(|close| close.code.into())),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(None),
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("a message in time")
    }

    pub async fn next(&mut self) -> Result<Value, Gone> {
        self.next_or_code().await.map_err(|_| Gone)
    }
}

/// What is answered by a service that nobody kills.
pub fn still<T>(result: Result<T, Gone>) -> T {
    result.unwrap_or_else(|Gone| panic!("the service is gone"))
}

/// The time stamp of the frame `place` of packet `packet`: a counter in ms, another one for each frame of a session.
pub fn frame_time(packet: i64, place: usize) -> i64 {
    1_000_000 + (packet * FRAMES_A_PACKET as i64 + place as i64) * 5
}

/// A packet as the firmware sends it. Its frames are told apart by their times.
pub fn packet(session: i64, device: &str, number: i64) -> String {
    let frames: Vec<Value> = (0..FRAMES_A_PACKET)
        .map(|place| {
            let t = frame_time(number, place);
            let swing = (t as f64 / 180.0).sin();
            json!({
                "acc": [0.1 * swing, 0.2, 9.8 + 20.0 * swing],
                "gyro": [300.0 * swing, 12.5, -40.0 * swing],
                "angle": [10.0 * swing, 20.0, 30.0],
                "sensor_id": 1 + place % 4,
                "timestamp": t,
            })
        })
        .collect();
    json!({
        "type": "batch_sensor_data",
        "device_code": device,
        "sensor_type": "waist",
        "timestamp": 100_000 + number * 75,
        "data": frames,
        "session_id": session.to_string(),
    })
    .to_string()
}
