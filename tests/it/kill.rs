//! The real process is killed at many instants under load, and started again on the same folder: every frame that was
//! acknowledged is there exactly once, no frame is there twice or was never sent, every session gets its result, every
//! notice arrives. Beside it what else ends a service: a full disk, a second process, a lost catalog, a torn log.
//!
//! Instants are counted in acknowledgements and steps of the protocol, with a random delay behind them, from a fixed
//! seed. What the process was doing then depends on the machine; the claim does not.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use volant::store::catalog::Catalog;
use volant::store::paths::Paths;

use crate::support::{PATIENCE, dechunk};

/// How often the ordinary test kills the process.
const KILLS: usize = 30;
const SEED: u64 = 20_261_123;
const DEVICES: usize = 3;
const PLAYER: &str = "test_user_123456";
const FRAMES_A_PACKET: usize = 30;
/// Packets a device sends before it waits for an answer.
const WINDOW: usize = 12;
/// A kill whose occasion does not come is made after this long all the same.
const OCCASION_LIMIT: Duration = Duration::from_secs(3);

// ---- the process ---------------------------------------------------------------------------------------------------

/// `volant serve` as a process of its own.
struct Server {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
}

/// What a start came to.
enum Started {
    /// It listens here.
    Listening(String),
    /// It ended without listening.
    Ended(i32),
}

fn volant(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volant"));
    command.args(arguments).arg("--data-dir").arg(folder).env_remove("VOLANT_CONFIG").kill_on_drop(true);
    command
}

impl Server {
    /// Starts the process; its log goes to `server.log` beside the data folder.
    fn spawn(folder: &Path, flags: &[&str]) -> Self {
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

    async fn started(&mut self) -> Started {
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

    async fn listening(&mut self) -> String {
        match self.started().await {
            Started::Listening(address) => address,
            Started::Ended(code) => panic!("the service ended with {code} instead of listening"),
        }
    }

    /// SIGKILL, and waits until the process is gone.
    async fn kill(mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// SIGTERM, and waits for the end; the exit status.
    async fn terminate(mut self) -> i32 {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().await.expect("kill runs");
        assert!(sent.success());
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends in time");
        ended.expect("its end").code().unwrap_or(-1)
    }
}

/// Runs a command of the binary to its end: success and what it printed on both outputs.
async fn run(arguments: &[&str], folder: &Path) -> (bool, String, String) {
    let output = volant(arguments, folder).output().await.expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// `volant sql` on the folder; the rows.
async fn sql_on_folder(folder: &Path, statement: &str) -> Vec<Value> {
    let (success, out, errors) = run(&["sql", statement, "--format", "json"], folder).await;
    assert!(success, "{statement}: {errors}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{statement}: {error}: {out}"))
}

/// `volant verify` must find everything whole; its report.
async fn verified(folder: &Path) -> Value {
    let (success, out, errors) = run(&["verify", "--json"], folder).await;
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {errors}"));
    assert!(success, "{report}");
    report
}

// ---- clients that live through restarts -------------------------------------------------------------------------------

/// Anything that a client meets when the process dies under it.
struct Gone;

/// Where the service is now; `None` while it is down.
type Address = watch::Receiver<Option<String>>;

async fn current(address: &mut Address) -> String {
    let found = address.wait_for(Option::is_some).await.expect("the test holds the sender");
    found.clone().expect("waited for it")
}

async fn request(
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

async fn post_form(address: &str, path: &str, form: &str) -> Result<(u16, Value), Gone> {
    request(address, "POST", path, "application/x-www-form-urlencoded", form).await
}

/// The rows of a statement, from the service.
async fn sql(address: &str, statement: &str) -> Result<Vec<Value>, Gone> {
    let body = json!({ "query": statement, "format": "json" }).to_string();
    let (status, answer) = request(address, "POST", "/api/v2/sql", "application/json", &body).await?;
    assert_eq!(status, 200, "{statement}: {answer}");
    match answer {
        Value::Array(rows) => Ok(rows),
        other => panic!("{statement}: {other}"),
    }
}

/// A socket that may end at any time.
struct Line(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Line {
    async fn open(address: &str, path: &str) -> Result<Self, Gone> {
        let opened = tokio_tungstenite::connect_async(format!("ws://{address}{path}"));
        match tokio::time::timeout(PATIENCE, opened).await.expect("an answer in time") {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(_) => Err(Gone),
        }
    }

    async fn send(&mut self, text: &str) -> Result<(), Gone> {
        self.0.send(Message::text(text)).await.map_err(|_| Gone)
    }

    /// The next JSON message; `Gone` with the close code, if there was one.
    async fn next_or_code(&mut self) -> Result<Value, Option<u16>> {
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

    async fn next(&mut self) -> Result<Value, Gone> {
        self.next_or_code().await.map_err(|_| Gone)
    }
}

/// What the clients did and were told, for the comparison and for choosing instants.
#[derive(Default)]
struct Ledger {
    packets_acked: AtomicU64,
    /// Steps of the protocol: sessions started, ended, uploads completed, notices received.
    steps: AtomicU64,
    resent: AtomicU64,
    duplicates: AtomicU64,
    /// No session is started any more.
    closing: AtomicBool,
    sessions: Mutex<Vec<SessionLedger>>,
    notices: Mutex<HashMap<i64, HashSet<String>>>,
    notices_seen: AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct SessionLedger {
    session: i64,
    /// Packets that were acknowledged with success; all their frames must be there, once.
    acked: HashSet<i64>,
    /// Packets that were sent and of which nobody knows: there in whole or not at all.
    doubtful: HashSet<i64>,
}

/// The time stamp of the frame `place` of packet `packet`: a counter in ms, another one for each frame of a session.
fn frame_time(packet: i64, place: usize) -> i64 {
    1_000_000 + (packet * FRAMES_A_PACKET as i64 + place as i64) * 5
}

/// A packet as the firmware sends it. Its frames are told apart by their times.
fn packet(session: i64, device: &str, number: i64) -> String {
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

/// Plays one device through session after session until the ledger closes.
struct DeviceClient {
    code: String,
    address: Address,
    ledger: Arc<Ledger>,
    rng: ChaCha8Rng,
}

impl DeviceClient {
    async fn run(mut self) {
        while !self.ledger.closing.load(Ordering::Relaxed) {
            self.session().await;
        }
    }

    /// Repeats an HTTP request until it is answered.
    async fn ask(&mut self, path: &str, form: &str) -> Value {
        loop {
            let address = current(&mut self.address).await;
            match post_form(&address, path, form).await {
                Ok((200, answer)) => return answer,
                Ok((status, answer)) => panic!("{path}: {status} {answer}"),
                Err(Gone) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// A socket, when there is a service.
    async fn line(&mut self) -> Line {
        loop {
            let address = current(&mut self.address).await;
            match Line::open(&address, &format!("/ws/esp32/{}/", self.code)).await {
                Ok(line) => return line,
                Err(Gone) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    async fn session(&mut self) {
        let form = format!("openid={PLAYER}&device_group_code={0}&device_code={0}", self.code);
        let started = self.ask("/wxapp/start_session/", &form).await;
        let session = started["session_id"].as_i64().expect("a session number");
        self.ledger.steps.fetch_add(1, Ordering::Relaxed);
        let mut book = SessionLedger { session, ..SessionLedger::default() };
        let packets = self.rng.random_range(10..60);
        let mut line = self.line().await;
        self.stream(&mut line, &mut book, 0..packets, false).await;

        self.ask("/wxapp/end_session/", &format!("session_id={session}")).await;
        self.ledger.steps.fetch_add(1, Ordering::Relaxed);
        self.complete(&mut line, session).await;
        // Some packets come late, by themselves and after the analysis has begun: they make a new revision.
        if self.rng.random_bool(0.3) {
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..400))).await;
            self.stream(&mut line, &mut book, packets..packets + 3, true).await;
        }
        self.ledger.sessions.lock().unwrap().push(book);
    }

    /// Sends packets with a window in flight until each is acknowledged, given up, or (late ones) refused.
    async fn stream(&mut self, line: &mut Line, book: &mut SessionLedger, numbers: std::ops::Range<i64>, late: bool) {
        let mut waiting: VecDeque<i64> = numbers.collect();
        let mut in_flight: VecDeque<i64> = VecDeque::new();
        loop {
            if in_flight.is_empty() && waiting.is_empty() {
                return;
            }
            let step = self.stream_step(line, book, &mut waiting, &mut in_flight, late).await;
            if step.is_err() {
                // What was not acknowledged is sent again, in order; now and then a device forgets a packet.
                if !in_flight.is_empty() && self.rng.random_bool(0.2) {
                    book.doubtful.extend(in_flight.pop_front());
                }
                self.ledger.resent.fetch_add(in_flight.len() as u64, Ordering::Relaxed);
                while let Some(number) = in_flight.pop_back() {
                    waiting.push_front(number);
                }
                *line = self.line().await;
            }
        }
    }

    async fn stream_step(
        &mut self,
        line: &mut Line,
        book: &mut SessionLedger,
        waiting: &mut VecDeque<i64>,
        in_flight: &mut VecDeque<i64>,
        late: bool,
    ) -> Result<(), Gone> {
        while in_flight.len() < WINDOW
            && let Some(number) = waiting.pop_front()
        {
            // Before the sending: a packet may arrive although the sending failed.
            in_flight.push_back(number);
            line.send(&packet(book.session, &self.code, number)).await?;
        }
        loop {
            let answer = line.next().await?;
            if answer["type"] == "batch_sensor_data_response" {
                let number = in_flight.pop_front().expect("an answer for each packet");
                if answer["success"] == true {
                    assert_eq!(answer["failed_items"], 0, "{answer}");
                    book.acked.insert(number);
                    book.doubtful.remove(&number);
                    self.ledger.packets_acked.fetch_add(1, Ordering::Relaxed);
                    if answer["duplicate"] == true {
                        self.ledger.duplicates.fetch_add(1, Ordering::Relaxed);
                    }
                } else {
                    assert!(late && answer["error"].is_string(), "{answer}");
                    // It may have been taken before a restart whose answer did not come.
                    book.doubtful.insert(number);
                }
                tokio::time::sleep(Duration::from_micros(self.rng.random_range(0..2000))).await;
                return Ok(());
            }
            obey(line, &answer).await?;
        }
    }

    /// Says `upload_complete` until it is answered.
    async fn complete(&mut self, line: &mut Line, session: i64) {
        let message = json!({"type":"upload_complete","session_id":session.to_string(),"timestamp":2}).to_string();
        loop {
            if self.complete_once(line, &message).await.is_ok() {
                self.ledger.steps.fetch_add(1, Ordering::Relaxed);
                return;
            }
            *line = self.line().await;
        }
    }

    async fn complete_once(&self, line: &mut Line, message: &str) -> Result<(), Gone> {
        line.send(message).await?;
        self.ledger.steps.fetch_add(1, Ordering::Relaxed);
        loop {
            let answer = line.next().await?;
            if answer["type"] == "upload_complete_response" {
                return Ok(());
            }
            obey(line, &answer).await?;
        }
    }
}

/// Acknowledges a command as the firmware does.
async fn obey(line: &mut Line, message: &Value) -> Result<(), Gone> {
    match message["type"].as_str() {
        Some("start_collection" | "stop_collection") => {
            let ack = json!({"type":"ack","command_id":message["command_id"],"success":true,"timestamp":1});
            line.send(&ack.to_string()).await
        }
        _ => Ok(()),
    }
}

/// Listens for the player's notices through all restarts.
async fn play(mut address: Address, ledger: Arc<Ledger>) {
    loop {
        let at = current(&mut address).await;
        let Ok(mut line) = Line::open(&at, &format!("/ws/miniprogram/{PLAYER}/")).await else {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        };
        loop {
            // Silence is no fault here, so no patience either.
            let message = match line.0.next().await {
                Some(Ok(Message::Text(text))) => serde_json::from_str::<Value>(&text).expect("JSON"),
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => continue,
            };
            if message["type"] == "analysis_complete_notification" {
                let session = message["session_id"].as_i64().expect("a number");
                let id = message["notification_id"].as_str().expect("an id").to_owned();
                ledger.notices.lock().unwrap().entry(session).or_default().insert(id);
                ledger.notices_seen.fetch_add(1, Ordering::Relaxed);
                ledger.steps.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Asks the same of every session again and again: at no instant may a frame show twice, or a statement fail.
async fn question(mut address: Address, asked: Arc<AtomicU64>) {
    let statement = "SELECT session_id, count(*) AS n, count(DISTINCT device_time_raw) AS d, sum(sensor_id) AS s \
                     FROM frames GROUP BY session_id";
    loop {
        let at = current(&mut address).await;
        if let Ok(rows) = sql(&at, statement).await {
            for row in rows {
                assert_eq!(row["n"], row["d"], "a frame shows twice: {row}");
            }
            asked.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

// ---- the campaign -----------------------------------------------------------------------------------------------------

/// Small segments, so that the log turns over; short grace, so that sessions are closed and the log forgets them.
const FLAGS: [&str; 6] =
    ["--store-segment-limit-bytes", "65536", "--sessions-late-grace-s", "1", "--sessions-command-resend-ms", "300"];

/// Waits for the occasion of the next kill.
async fn occasion(ledger: &Ledger, rng: &mut ChaCha8Rng) {
    let (counter, more) = if rng.random_bool(0.5) {
        (&ledger.packets_acked, rng.random_range(1..150))
    } else {
        (&ledger.steps, rng.random_range(1..8))
    };
    let due = counter.load(Ordering::Relaxed) + more;
    let reached = async {
        while counter.load(Ordering::Relaxed) < due {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    // Clients may have to wait for something else first.
    drop(tokio::time::timeout(OCCASION_LIMIT, reached).await);
    // Behind an acknowledgement a commit of the log takes under a ms; behind a step sealing, analysis and notice follow.
    let behind_us = if rng.random_bool(0.5) { 900 } else { 60_000 };
    tokio::time::sleep(Duration::from_micros(rng.random_range(0..behind_us))).await;
}

/// What a campaign came to.
#[derive(Debug, Default)]
struct Figures {
    kills: usize,
    kills_before_listening: usize,
    sessions: usize,
    packets_acked: u64,
    resent: u64,
    duplicates: u64,
    doubtful: usize,
    doubtful_kept: usize,
    frames: usize,
    notices: u64,
    statements: u64,
}

async fn campaign(kills: usize, seed: u64) -> Figures {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("data");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let ledger = Arc::new(Ledger::default());
    let (tell, address) = watch::channel(None);
    let player = tokio::spawn(play(address.clone(), Arc::clone(&ledger)));
    let asked = Arc::new(AtomicU64::new(0));
    let asker = tokio::spawn(question(address.clone(), Arc::clone(&asked)));
    let mut devices = tokio::task::JoinSet::new();
    for index in 0..DEVICES {
        let client = DeviceClient {
            code: format!("kill{index}"),
            address: address.clone(),
            ledger: Arc::clone(&ledger),
            rng: ChaCha8Rng::seed_from_u64(seed ^ (index as u64 + 1)),
        };
        devices.spawn(client.run());
    }

    let mut figures = Figures::default();
    while figures.kills < kills {
        let mut server = Server::spawn(&folder, &FLAGS);
        figures.kills += 1;
        // Recovery is interrupted too.
        if rng.random_bool(0.15) {
            let before = Duration::from_micros(rng.random_range(0..80_000));
            if tokio::time::timeout(before, server.started()).await.is_err() {
                server.kill().await;
                figures.kills_before_listening += 1;
                continue;
            }
            server.kill().await;
            continue;
        }
        tell.send_replace(Some(server.listening().await));
        occasion(&ledger, &mut rng).await;
        server.kill().await;
        tell.send_replace(None);
        while let Some(ended) = devices.try_join_next() {
            ended.expect("a device goes on");
        }
    }

    let mut server = Server::spawn(&folder, &FLAGS);
    let at = server.listening().await;
    ledger.closing.store(true, Ordering::Relaxed);
    tell.send_replace(Some(at.clone()));
    while let Some(ended) = devices.join_next().await {
        ended.expect("a device ends in order");
    }
    settled(&at).await;
    let books = ledger.sessions.lock().unwrap().clone();
    compare(&at, &books, &mut figures).await;

    // The notices: one id a result, each received.
    let unannounced = || {
        let notices = ledger.notices.lock().unwrap();
        books.iter().filter(|book| !book.acked.is_empty() && !notices.contains_key(&book.session)).count()
    };
    let catalog = Catalog::open_read_only(&Paths::new(&folder).catalog()).await.expect("the catalog");
    let all_told = async {
        while unannounced() > 0 || catalog.owed_count().await.expect("the outbox") > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, all_told).await.is_err() {
        let owed = catalog.owed_count().await.expect("the outbox");
        panic!("{} sessions were not announced, {owed} notices are owed", unannounced());
    }
    catalog.close().await;

    // Beside the server, and after it, the folder tells the same.
    let count = "SELECT count(*) AS n, count(DISTINCT device_time_raw) AS d FROM frames";
    let told = still(sql(&at, count).await);
    assert_eq!(sql_on_folder(&folder, count).await, told);
    verified(&folder).await;
    assert_eq!(server.terminate().await, 0);
    assert_eq!(sql_on_folder(&folder, count).await, told);
    let report = verified(&folder).await;
    assert_eq!(report["unfinished_files"], 0, "{report}");
    player.abort();
    assert!(!asker.is_finished(), "the questions asked meanwhile: {:?}", asker.await);
    asker.abort();

    figures.sessions = books.len();
    figures.packets_acked = ledger.packets_acked.load(Ordering::Relaxed);
    figures.resent = ledger.resent.load(Ordering::Relaxed);
    figures.duplicates = ledger.duplicates.load(Ordering::Relaxed);
    figures.notices = ledger.notices_seen.load(Ordering::Relaxed);
    figures.statements = asked.load(Ordering::Relaxed);
    figures
}

/// Waits until every session that holds frames is completed, in its last revision.
async fn settled(address: &str) {
    let open = "SELECT session_id, status, frame_count, revision FROM sessions \
                WHERE status NOT IN ('completed', 'stopped') ORDER BY session_id";
    let wait = async {
        loop {
            let rows = still(sql(address, open).await);
            if rows.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        let rows = still(sql(address, open).await);
        panic!("sessions do not end: {rows:?}");
    }
}

/// Holds what SQL answers against what the clients were told.
async fn compare(address: &str, books: &[SessionLedger], figures: &mut Figures) {
    let rows = |statement: String| async move { still(sql(address, &statement).await) };
    let numbers: HashSet<i64> = books.iter().map(|book| book.session).collect();
    // Late frames are sealed a second after they came; until then no file answers for them.
    let held = rows("SELECT session_id, count(*) AS n FROM frames GROUP BY session_id".to_owned()).await;
    for row in &held {
        assert!(numbers.contains(&row["session_id"].as_i64().unwrap()), "frames of a session nobody started: {row}");
    }
    for book in books {
        let session = book.session;
        let wanted = book.acked.len() * FRAMES_A_PACKET;
        let frames = format!(
            "SELECT seq, sensor_id, device_time_raw FROM frames WHERE session_id = {session} ORDER BY device_time_raw"
        );
        let mut found = rows(frames.clone()).await;
        let mut waits = 0;
        while found.len() < wanted && waits < 100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            found = rows(frames.clone()).await;
            waits += 1;
        }
        let mut kept: HashMap<i64, usize> = HashMap::new();
        let mut times = HashSet::new();
        let mut seqs = HashSet::new();
        for row in &found {
            let time = row["device_time_raw"].as_i64().unwrap();
            assert!(times.insert(time), "session {session} holds a frame twice: {row}");
            assert!(seqs.insert(row["seq"].as_i64().unwrap()), "session {session} numbers two frames alike: {row}");
            let index = (time - 1_000_000) / 5;
            let (number, place) = (index / FRAMES_A_PACKET as i64, (index % FRAMES_A_PACKET as i64) as usize);
            assert_eq!(frame_time(number, place), time, "session {session} holds a frame that nobody sent: {row}");
            assert_eq!(row["sensor_id"], 1 + place % 4, "session {session} holds a changed frame: {row}");
            *kept.entry(number).or_default() += 1;
        }
        for number in &book.acked {
            let frames = kept.remove(number).unwrap_or(0);
            assert_eq!(frames, FRAMES_A_PACKET, "session {session} has lost acknowledged packet {number}");
        }
        for (number, frames) in kept {
            assert!(book.doubtful.contains(&number), "session {session} holds packet {number}, which nobody sent");
            assert_eq!(frames, FRAMES_A_PACKET, "session {session} holds packet {number} in part");
            figures.doubtful_kept += 1;
        }
        figures.doubtful += book.doubtful.len();
        figures.frames += found.len();
        if found.is_empty() {
            continue;
        }
        let state = rows(format!(
            "SELECT s.status, s.frame_count, s.sealed, r.frame_count AS analysed FROM sessions s \
             JOIN results r ON r.session_id = s.session_id WHERE s.session_id = {session}"
        ))
        .await;
        assert_eq!(state.len(), 1, "session {session} has one result: {state:?}");
        assert_eq!(state[0]["status"], "completed", "{state:?}");
        assert_eq!(state[0]["frame_count"], found.len(), "{state:?}");
        assert_eq!(state[0]["analysed"], found.len(), "{state:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kills_at_any_instant() {
    let figures = campaign(KILLS, SEED).await;
    println!("{figures:?}");
    assert!(figures.sessions > DEVICES && figures.resent > 0, "the campaign must meet what it is for: {figures:?}");
}

// ---- other ends ---------------------------------------------------------------------------------------------------------

const DEVICE: &str = "2025001";

/// What is answered by a service that nobody kills.
fn still<T>(result: Result<T, Gone>) -> T {
    result.unwrap_or_else(|Gone| panic!("the service is gone"))
}

/// A session of the test user on the device, and the device's socket.
async fn begin(at: &str) -> (Line, i64) {
    let form = format!("openid={PLAYER}&device_group_code={DEVICE}&device_code={DEVICE}");
    let (status, started) = still(post_form(at, "/wxapp/start_session/", &form).await);
    assert_eq!(status, 200, "{started}");
    let line = still(Line::open(at, &format!("/ws/esp32/{DEVICE}/")).await);
    (line, started["session_id"].as_i64().expect("a session number"))
}

/// Sends packets and takes their answers.
async fn send(line: &mut Line, session: i64, numbers: std::ops::Range<i64>) -> Vec<Value> {
    for number in numbers.clone() {
        still(line.send(&packet(session, DEVICE, number)).await);
    }
    let mut answers = Vec::new();
    while answers.len() < numbers.clone().count() {
        let message = still(line.next().await);
        if message["type"] == "batch_sensor_data_response" {
            answers.push(message);
        }
    }
    answers
}

async fn send_good(line: &mut Line, session: i64, numbers: std::ops::Range<i64>) {
    for answer in send(line, session, numbers).await {
        assert_eq!(answer["success"], true, "{answer}");
    }
}

/// The packets of a session that SQL shows, each with all its frames and no frame twice.
async fn packets_in(at: &str, session: i64) -> Vec<i64> {
    let statement = format!("SELECT device_time_raw FROM frames WHERE session_id = {session} ORDER BY device_time_raw");
    let times: Vec<i64> =
        still(sql(at, &statement).await).iter().map(|row| row["device_time_raw"].as_i64().unwrap()).collect();
    let packets = times.chunks(FRAMES_A_PACKET).map(|times| {
        let number = (times[0] - 1_000_000) / 5 / FRAMES_A_PACKET as i64;
        let whole: Vec<i64> = (0..FRAMES_A_PACKET).map(|place| frame_time(number, place)).collect();
        assert_eq!(times, whole, "packet {number} of session {session}");
        number
    });
    packets.collect()
}

/// Ends a session in order and waits for its result.
async fn finish(at: &str, line: &mut Line, session: i64) {
    still(post_form(at, "/wxapp/end_session/", &format!("session_id={session}")).await);
    let message = json!({"type":"upload_complete","session_id":session.to_string(),"timestamp":2}).to_string();
    still(line.send(&message).await);
    while still(line.next().await)["type"] != "upload_complete_response" {}
    wait_for(at, session, "completed").await;
}

async fn wait_for(at: &str, session: i64, status: &str) {
    let statement = format!("SELECT status FROM sessions WHERE session_id = {session}");
    let wait = async {
        while still(sql(at, &statement).await)[0]["status"] != status {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let reached = tokio::time::timeout(PATIENCE, wait).await.is_ok();
    assert!(reached, "session {session} is not {status}: {:?}", still(sql(at, &statement).await));
}

/// What the process wrote to its log.
fn log_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.with_extension("log")).expect("the log")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_never_a_second_process_writes_the_same_folder() {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("data");
    let mut server = Server::spawn(&folder, &[]);
    let at = server.listening().await;
    let (mut line, session) = begin(&at).await;
    send_good(&mut line, session, 0..5).await;

    let mut second = Server::spawn(&folder, &[]);
    let Started::Ended(code) = second.started().await else { panic!("two processes serve one folder") };
    assert_ne!(code, 0);
    assert!(log_of(&folder).contains("another process"), "{}", log_of(&folder));
    // `recover` repairs, so it keeps off too; who only reads does not disturb.
    let (recovered, _, errors) = run(&["recover"], &folder).await;
    assert!(!recovered && errors.contains("another process"), "{errors}");
    assert_eq!(sql_on_folder(&folder, "SELECT count(*) AS n FROM frames").await[0]["n"], 150);

    send_good(&mut line, session, 5..10).await;
    assert_eq!(packets_in(&at, session).await, (0..10).collect::<Vec<_>>());
    assert_eq!(server.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_by_sigterm_the_service_says_goodbye_and_keeps_what_it_acknowledged() {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("data");
    let mut server = Server::spawn(&folder, &[]);
    let at = server.listening().await;
    let (mut line, session) = begin(&at).await;
    send_good(&mut line, session, 0..20).await;
    // Packets are on their way while it is told to end.
    for number in 20..60 {
        still(line.send(&packet(session, DEVICE, number)).await);
    }
    let ended = tokio::spawn(server.terminate());
    let mut answers = 0;
    let code = loop {
        match line.next_or_code().await {
            Ok(message) if message["type"] == "batch_sensor_data_response" => {
                assert_eq!(message["success"], true, "{message}");
                answers += 1;
            }
            Ok(_) => {}
            Err(code) => break code,
        }
    };
    assert_eq!(code, Some(1012), "service restart, so that clients come back");
    assert_eq!(ended.await.expect("the end"), 0);

    let mut server = Server::spawn(&folder, &[]);
    let at = server.listening().await;
    let found = packets_in(&at, session).await;
    assert!(found.len() >= 20 + answers, "{} packets for {answers} answers", found.len());
    let mut line = still(Line::open(&at, &format!("/ws/esp32/{DEVICE}/")).await);
    send_good(&mut line, session, 20 + answers as i64..60).await;
    assert_eq!(packets_in(&at, session).await, (0..60).collect::<Vec<_>>());
    finish(&at, &mut line, session).await;
    assert_eq!(packets_in(&at, session).await, (0..60).collect::<Vec<_>>());
    assert_eq!(server.terminate().await, 0);
    verified(&folder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_with_a_torn_log_only_the_torn_packet_is_missing() {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("data");
    let mut server = Server::spawn(&folder, &[]);
    let at = server.listening().await;
    let (mut line, session) = begin(&at).await;
    // One after the other, so that the log ends with the last.
    for number in 0..8 {
        send_good(&mut line, session, number..number + 1).await;
    }
    server.kill().await;
    let segments = std::fs::read_dir(Paths::new(&folder).wal()).expect("the log").map(|entry| entry.unwrap().path());
    let newest = segments.filter(|path| path.extension().is_some_and(|end| end == "wal")).max().expect("a segment");
    let segment = std::fs::File::options().write(true).open(&newest).expect("the segment");
    segment.set_len(segment.metadata().expect("its length").len() - 7).expect("cut it");
    drop(segment);
    verified(&folder).await;

    let mut server = Server::spawn(&folder, &[]);
    let at = server.listening().await;
    assert_eq!(packets_in(&at, session).await, (0..7).collect::<Vec<_>>());
    let mut line = still(Line::open(&at, &format!("/ws/esp32/{DEVICE}/")).await);
    // What was whole is known, what was torn is not.
    let answers = send(&mut line, session, 6..9).await;
    assert_eq!(answers.iter().map(|answer| answer["duplicate"] == true).collect::<Vec<_>>(), [true, false, false]);
    finish(&at, &mut line, session).await;
    assert_eq!(packets_in(&at, session).await, (0..9).collect::<Vec<_>>());
    assert_eq!(server.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_robbed_of_its_catalog_the_service_keeps_the_frames() {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("data");
    let flags = ["--sessions-idle-timeout-s", "1", "--sessions-late-grace-s", "1"];
    let mut server = Server::spawn(&folder, &flags);
    let at = server.listening().await;
    // One session that is over; one that is sealed, a segment of the log holding both; one that is open.
    let (mut line, over) = begin(&at).await;
    send_good(&mut line, over, 0..4).await;
    finish(&at, &mut line, over).await;
    // A repeat is known until the session is closed.
    while send(&mut line, over, 0..1).await[0]["success"] == true {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (mut line, sealed) = begin(&at).await;
    send_good(&mut line, sealed, 0..6).await;
    finish(&at, &mut line, sealed).await;
    let (mut line, open) = begin(&at).await;
    send_good(&mut line, open, 0..10).await;
    server.kill().await;
    for entry in std::fs::read_dir(&folder).expect("the folder") {
        let path = entry.unwrap().path();
        if path.is_file() && path.to_string_lossy().contains("catalog") {
            std::fs::remove_file(path).expect("delete the catalog");
        }
    }

    let mut server = Server::spawn(&folder, &flags);
    let at = server.listening().await;
    for (session, packets) in [(over, 4), (sealed, 6), (open, 10)] {
        assert_eq!(packets_in(&at, session).await, (0..packets).collect::<Vec<_>>());
        wait_for(&at, session, "completed").await;
        assert_eq!(packets_in(&at, session).await, (0..packets).collect::<Vec<_>>());
    }
    // Numbers are not given twice.
    let (mut line, new) = begin(&at).await;
    assert!(new > open, "{new} after {open}");
    send_good(&mut line, new, 0..3).await;
    assert_eq!(packets_in(&at, new).await, [0, 1, 2]);
    assert_eq!(server.terminate().await, 0);
    assert_eq!(verified(&folder).await["unlisted_files"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_by_no_lack_of_space_the_service_refuses_frames_until_there_is_room() {
    let parent = tempfile::tempdir().expect("a temporary folder");
    let folder = parent.path().join("data");
    let mut server = Server::spawn(&folder, &[]);
    let at = server.listening().await;
    let (mut line, session) = begin(&at).await;
    send_good(&mut line, session, 0..4).await;
    assert_eq!(server.terminate().await, 0);

    // No disk has so much room.
    let mut server = Server::spawn(&folder, &["--store-min-free-bytes", "9000000000000000000"]);
    let at = server.listening().await;
    let mut line = still(Line::open(&at, &format!("/ws/esp32/{DEVICE}/")).await);
    for answer in send(&mut line, session, 3..8).await {
        if answer["duplicate"] == true {
            assert_eq!(answer["success"], true, "{answer}");
            continue;
        }
        assert_eq!(answer["success"], false, "{answer}");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains("could not be stored")), "{answer}");
    }
    // Everything else goes on, and what was refused shows nowhere.
    assert_eq!(packets_in(&at, session).await, [0, 1, 2, 3]);
    still(line.send(&json!({"type":"heartbeat","timestamp":1}).to_string()).await);
    while still(line.next().await)["type"] != "heartbeat_response" {}
    finish(&at, &mut line, session).await;
    assert_eq!(packets_in(&at, session).await, [0, 1, 2, 3]);
    let (mut line, empty) = begin(&at).await;
    assert_eq!(send(&mut line, empty, 0..2).await.iter().filter(|answer| answer["success"] == false).count(), 2);
    assert_eq!(server.terminate().await, 0);

    let mut server = Server::spawn(&folder, &[]);
    let at = server.listening().await;
    let mut line = still(Line::open(&at, &format!("/ws/esp32/{DEVICE}/")).await);
    send_good(&mut line, empty, 0..5).await;
    finish(&at, &mut line, empty).await;
    assert_eq!(packets_in(&at, empty).await, (0..5).collect::<Vec<_>>());
    assert_eq!(server.terminate().await, 0);
    verified(&folder).await;
}
