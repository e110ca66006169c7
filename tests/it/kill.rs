//! The real process is killed at many instants under load, and started again on the same folder: every frame that was
//! acknowledged is there exactly once, no frame is there twice or was never sent, every session gets its result, every
//! notice arrives. In `ends.rs` what else ends a service: a full disk, a second process, a lost catalog, a torn log.
//!
//! Instants are counted in acknowledgements and steps of the protocol, with a random delay behind them, from a fixed
//! seed. What the process was doing then depends on the machine; the claim does not.

mod ends;
pub mod process;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use volant::store::catalog::Catalog;
use volant::store::paths::Paths;

use crate::support::PATIENCE;
use process::{
    Address, FRAMES_A_PACKET, Gone, Line, PLAYER, Server, current, frame_time, packet, post_form, sql, sql_on_folder,
    still, verified,
};

/// How often the ordinary test kills the process.
const KILLS: usize = 30;
const SEED: u64 = 20_261_123;
const DEVICES: usize = 3;
/// Packets a device sends before it waits for an answer.
const WINDOW: usize = 12;
/// A kill whose occasion does not come is made after this long all the same.
const OCCASION_LIMIT: Duration = Duration::from_secs(3);

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
