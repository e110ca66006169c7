//! Other ends of a process: SIGTERM, a second process, a torn log, a lost catalog, a full disk.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use volant::store::paths::Paths;

use super::process::{
    FRAMES_A_PACKET, Line, PLAYER, Server, Started, frame_time, packet, post_form, run, sql, sql_on_folder, still,
    verified, volant,
};
use crate::support::PATIENCE;

const DEVICE: &str = "2025001";

fn start_form() -> String {
    format!("openid={PLAYER}&device_group_code={DEVICE}&device_code={DEVICE}")
}

/// A session of the test user on the device, and the device's socket.
async fn begin(at: &str) -> (Line, i64) {
    let (status, started) = still(post_form(at, "/wxapp/start_session/", &start_form()).await);
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
        assert!(answer["error"].as_str().is_some_and(|error| error.contains("disk is full")), "{answer}");
    }
    // Everything else goes on, and what was refused shows nowhere.
    assert_eq!(packets_in(&at, session).await, [0, 1, 2, 3]);
    still(line.send(&json!({"type":"heartbeat","timestamp":1}).to_string()).await);
    while still(line.next().await)["type"] != "heartbeat_response" {}
    finish(&at, &mut line, session).await;
    assert_eq!(packets_in(&at, session).await, [0, 1, 2, 3]);
    let (status, refused) = still(post_form(&at, "/wxapp/start_session/", &start_form()).await);
    assert_eq!((status, &refused["code"]), (507, &json!("disk_full")), "{refused}");
    assert_eq!(server.terminate().await, 0);

    let mut server = Server::spawn(&folder, &[]);
    let at = server.listening().await;
    let (mut line, next) = begin(&at).await;
    assert_eq!(next, session + 1, "what was refused began nothing");
    send_good(&mut line, next, 0..5).await;
    finish(&at, &mut line, next).await;
    assert_eq!(packets_in(&at, next).await, (0..5).collect::<Vec<_>>());
    assert_eq!(server.terminate().await, 0);
    verified(&folder).await;
}

/// `volant serve | head -1` reads the address and goes; a supervisor may close the log. The service has devices to serve.
#[tokio::test(flavor = "multi_thread")]
async fn killed_by_nobody_who_stops_reading_what_it_prints() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = volant(&["serve", "--listen", "127.0.0.1:0"], &data);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Nobody reads the addresses; the log tells them too.
    drop(child.stdout.take());
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = async {
        loop {
            let line = log.next_line().await.unwrap().expect("the service goes on");
            if let Some((_, address)) = line.split_once("listening on http://") {
                return address.split_whitespace().next().unwrap().to_owned();
            }
        }
    };
    let address = tokio::time::timeout(PATIENCE, address).await.expect("it starts in time");
    drop(log);
    let (mut line, session) = begin(&address).await;
    send_good(&mut line, session, 0..3).await;
    assert_eq!(child.try_wait().unwrap(), None, "it serves on");
    child.kill().await.unwrap();
}
