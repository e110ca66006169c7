//! Reports, peaks, pictures and `.mat` files, as the legacy clients ask for them.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use volant::accounts::Subject;
use volant::config::Auth;

use crate::packets::session_packets;
use crate::support::TestApp;

/// A MATLAB 5 file with `allData`: eleven columns of doubles.
fn mat_file(rows: &[[f64; 11]]) -> Vec<u8> {
    fn tagged(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }
    let mut file = b"MATLAB 5.0 MAT-file".to_vec();
    file.resize(124, b' ');
    file.extend([0x00, 0x01, b'I', b'M']);
    let values: Vec<u8> =
        (0..11).flat_map(|column| rows.iter().flat_map(move |row| row[column].to_le_bytes())).collect();
    let matrix = [
        tagged(6, &[6, 0, 0, 0, 0, 0, 0, 0]),
        tagged(5, &[(rows.len() as u32).to_le_bytes(), 11_u32.to_le_bytes()].concat()),
        tagged(1, b"allData"),
        tagged(9, &values),
    ]
    .concat();
    file.extend(tagged(14, &matrix));
    file
}

/// Ten swings, three seconds apart: each sensor turns fastest so many ms after the hips. The `.mat` wrist is sensor 4.
fn planted(delays_ms: [f64; 3]) -> Vec<u8> {
    let mut rows = Vec::new();
    for step in 0..6600 {
        let t_s = f64::from(step) * 0.005;
        for (sensor, (peak_dps, delay_ms)) in
            [1.0, 2.0, 4.0].into_iter().zip([500.0, 800.0, 1400.0].into_iter().zip(delays_ms))
        {
            let swing = |center_s: f64| (-(t_s - center_s).powi(2) / (2.0 * 0.045_f64.powi(2))).exp();
            let rate: f64 = (1..=10).map(|number| swing(3.0 * f64::from(number) + delay_ms / 1e3)).sum();
            let noise = f64::from((step * 7919 + sensor as i32 * 31) % 13) - 6.0;
            // Block after block, so that the order of the rows says nothing of time.
            rows.push([
                sensor,
                t_s,
                2.0 * rate,
                30.0 * rate,
                9.8,
                0.6 * peak_dps * rate + noise,
                0.8 * peak_dps * rate,
                2.0,
                10.0 * rate,
                20.0 * rate,
                30.0 * rate,
            ]);
        }
    }
    rows.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    mat_file(&rows)
}

/// A request with raw bytes; status, content type and body.
async fn exchange(app: &TestApp, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head =
        format!("{head}\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", app.address(), body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = head.split("content-type: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or_default().to_owned();
    (status, kind, answer[end + 4..].to_vec())
}

async fn upload_mat(app: &TestApp, openid: &str, file: &[u8]) -> (u16, Value) {
    upload_mat_with(app, "", openid, file).await
}

/// The same with a further header.
async fn upload_mat_with(app: &TestApp, header: &str, openid: &str, file: &[u8]) -> (u16, Value) {
    let mut body = format!("--edge\r\nContent-Disposition: form-data; name=\"openid\"\r\n\r\n{openid}\r\n--edge\r\nContent-Disposition: form-data; name=\"mat_file\"; filename=\"a.mat\"\r\nContent-Type: application/octet-stream\r\n\r\n").into_bytes();
    body.extend(file);
    body.extend(b"\r\n--edge--\r\n");
    let head = format!("POST /wxapp/upload_mat/ HTTP/1.1\r\n{header}Content-Type: multipart/form-data; boundary=edge");
    let (status, _, body) = exchange(app, &head, &body).await;
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mat_file_is_analysed_by_its_own_times() {
    let app = TestApp::start().await;
    let (status, taken) = upload_mat(&app, "player", &planted([0.0, 80.0, 130.0])).await;
    assert_eq!(status, 200, "{taken}");
    let summary = &taken["data_summary"];
    assert_eq!(
        (&summary["total_sensor_records"], summary["sensor_records"].as_array().unwrap().len()),
        (&json!(19_800), 3)
    );
    assert!(summary["analysis_id"].is_i64(), "{taken}");
    let session = taken["session_id"].as_i64().unwrap();

    let path = format!("/wxapp/get_mat_analysis/?session_id={session}&openid=player&lang=en");
    let (status, answer) = app.get(&path).await;
    assert_eq!(status, 200, "{answer}");
    let phases = &answer["report"]["phase_analysis"];
    for (name, planted_ms) in [("waist_to_shoulder_delay", 80.0), ("shoulder_to_wrist_delay", 50.0)] {
        let found_ms = phases[name].as_f64().unwrap_or_else(|| panic!("{name}: {answer}"));
        assert!((found_ms - planted_ms).abs() <= 4.0, "{name}: {found_ms} ms, planted {planted_ms}");
    }
    assert!(phases["wrist_to_racket_delay"].is_null(), "there is no racket: {phases}");
    let groups = &answer["report"]["angular_velocity_data"]["sensor_groups"];
    assert_eq!(groups.as_object().unwrap().keys().collect::<Vec<_>>(), ["shoulder", "waist", "wrist"]);

    // A long file with a hole in it keeps its times.
    let mut rows = Vec::new();
    for step in 0..30_000_i32 {
        let t_s = f64::from(step) * 0.02 + if step > 15_000 { 25.0 } else { 0.0 };
        rows.push([3.0, 1.5 + t_s, 0.0, 0.0, 9.8, f64::from(step % 7), 1.0, 1.0, 0.0, 0.0, 0.0]);
    }
    let long = mat_file(&rows);
    assert!(long.len() > 2 << 20, "larger than the framework takes by itself");
    let (status, taken) = upload_mat(&app, "player", &long).await;
    assert_eq!(status, 200, "{taken}");
    let spans = format!(
        "SELECT CAST((max(t_ns) - min(t_ns)) / 1000000 AS BIGINT) AS ms FROM frames WHERE session_id = {}",
        taken["session_id"]
    );
    assert_eq!(app.sql_count(&spans).await, 29_999 * 20 + 25_000);

    // Nobody else's business.
    let (status, stranger) = app.get(&path.replace("openid=player", "openid=stranger")).await;
    assert_eq!(status, 404, "{stranger}");
    for (file, code) in [
        (b"MATLAB 7.3 MAT-file, and the rest".to_vec(), "mat_version_73"),
        (b"no such thing".to_vec(), "mat_not_matlab"),
        (mat_file(&[])[..140].to_vec(), "mat_damaged"),
        (mat_file(&[[7.0; 11]]), "mat_no_rows"),
    ] {
        let (status, answer) = upload_mat(&app, "player", &file).await;
        assert_eq!((status, answer["code"].as_str()), (400, Some(code)), "{answer}");
    }
    app.stop().await;
}

/// A streamed session with four sensors, analysed.
async fn analysed(app: &TestApp) -> i64 {
    let mut player = app.socket("/ws/miniprogram/test_user_123456/").await;
    let mut device = app.socket("/ws/esp32/2025001/").await;
    let session = app.start_session("2025001").await;
    for packet in session_packets(&session.to_string(), "2025001", 7, 30.0) {
        device.send(&packet).await;
        device.next_of("batch_sensor_data_response").await;
    }
    app.post_form("/wxapp/end_session/", &format!("session_id={session}")).await;
    device.send(&json!({"type":"upload_complete","session_id":session.to_string(),"device_code":"2025001"})).await;
    player.next_of("analysis_complete_notification").await;
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn report_peaks_and_pictures_have_the_names_of_both_generations() {
    let app = TestApp::start().await;
    for path in ["generate_report", "get_sensor_peaks", "get_analysis"] {
        assert_eq!(app.get(&format!("/wxapp/{path}/?session_id=1")).await.0, 404, "{path}");
        assert_eq!(app.get(&format!("/wxapp/{path}/")).await.0, 400, "{path}");
    }
    let session = analysed(&app).await;
    let (status, report) = app.get(&format!("/wxapp/generate_report/?session_id={session}")).await;
    assert_eq!(status, 200, "{report}");
    let report = &report["report"];
    for part in
        ["summary", "phase_analysis", "energy_analysis", "rom_analysis", "angular_velocity_data", "recommendations"]
    {
        assert!(!report[part].is_null(), "{part}: {report}");
    }
    assert!(report["phase_analysis"]["wrist_to_racket_delay"].is_f64(), "the racket's delay is measured");
    let assessment = report["energy_analysis"]["energy_assessment"].as_str().unwrap();
    assert!(!assessment.is_ascii(), "Chinese unless asked otherwise: {assessment}");
    let (_, english) = app.post_form("/api/generate_report?lang=en", &format!("session_id={session}")).await;
    assert!(english["report"]["energy_analysis"]["energy_assessment"].as_str().unwrap().is_ascii());

    let (_, peaks) = app.get(&format!("/wxapp/get_sensor_peaks/?session_id={session}")).await;
    assert_eq!(peaks["sensor_types"], json!(["waist", "shoulder", "wrist", "racket"]));
    for sensor in ["waist", "shoulder", "wrist", "racket"] {
        let value = &peaks[format!("{sensor}_max")];
        assert!(value.as_f64().is_some_and(|value| value > 50.0), "{peaks}");
        assert!(
            *value == peaks[format!("{sensor}_peak")]
                && *value == peaks["max_velocities"][sensor]
                && *value == peaks["peaks"][sensor]
        );
    }
    assert_eq!(peaks["data"][2], peaks["wrist_max"]);
    let (_, times) = app.get(&format!("/wxapp/get_sensor_peak_timestamps/?session_id={session}")).await;
    assert!(times["racket_peak_time"].is_f64() && times["peak_timestamps"]["waist"] == times["data"][0], "{times}");

    let (status, latest) = app.get("/wxapp/latest_analysis_images/").await;
    assert_eq!((status, &latest["latest_analysis"]["session_id"]), (200, &json!(session)));
    let url = latest["images"][0]["image_url"].as_str().unwrap();
    assert!(url.starts_with(&format!("http://{}/images/analysis_session_{session}_", app.address())), "{url}");
    let (_, one) = app.get(&format!("/wxapp/miniprogram/get_images/?session_id={session}")).await;
    assert_eq!((&one["success"], &one["images"][0]["url"]), (&json!(true), &json!(url)));
    let (_, forced) = app.post_form("/wxapp/force_generate_image/", &format!("session_id={session}")).await;
    let analysis = url.rsplit('/').next().unwrap();
    for (name, kind) in [
        (analysis.to_owned(), "image/jpeg"),
        (forced["image"]["filename"].as_str().unwrap().to_owned(), "image/jpeg"),
        (format!("esp32_upload_session_{session}_1.jpg"), "image/jpeg"),
        (format!("session_{session}_auto_generated.png"), "image/png"),
        ("latest_multi_sensor_curve.jpg".to_owned(), "image/jpeg"),
        ("default_analysis.jpg".to_owned(), "image/jpeg"),
    ] {
        let (status, found, body) = exchange(&app, &format!("GET /images/{name} HTTP/1.1"), b"").await;
        assert_eq!((status, found.as_str()), (200, kind), "{name}");
        assert!(body.len() > 10_000, "{name}: {} bytes", body.len());
    }
    for name in ["session_999_forced.jpg", "../catalog.sqlite", "x.jpg", "analysis_session_1_1.exe", "session_.jpg"] {
        assert_eq!(exchange(&app, &format!("GET /images/{name} HTTP/1.1"), b"").await.0, 404, "{name}");
    }
    let (_, list) = app.get("/wxapp/list_images/").await;
    assert!(list["total_images"] == 1 && !list.to_string().contains(&app.data_dir().display().to_string()), "{list}");
    let (_, forgotten) = app.post_form("/wxapp/debug_images/", "action=cleanup").await;
    assert!(forgotten["count"].as_i64().unwrap() >= 1, "{forgotten}");
    assert_eq!(exchange(&app, &format!("GET /images/{analysis} HTTP/1.1"), b"").await.0, 200, "drawn again");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_a_picture_is_seen_by_whom_its_address_was_given() {
    let app = TestApp::start_with(|config| config.auth = Auth::Token).await;
    let accounts = app.app().rooms().accounts.clone();
    let owner = accounts.by_openid("owner").await.unwrap();
    let token = accounts.issue(&Subject::User(owner.user_id), None, None, "test").await.unwrap().token;
    let file = planted([0.0, 80.0, 130.0]);
    // A stranger's file is refused before it is read: it is announced and never sent.
    let mut stranger = TcpStream::connect(app.address()).await.unwrap();
    let head = "POST /wxapp/upload_mat/ HTTP/1.1\r\nHost: volant\r\nContent-Type: multipart/form-data; boundary=edge\r\nContent-Length: 1000000\r\n\r\n";
    stranger.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stranger.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 401");
    let (status, taken) = upload_mat_with(&app, &format!("Authorization: Bearer {token}\r\n"), "owner", &file).await;
    assert_eq!(status, 200, "{taken}");

    let head = format!("GET /wxapp/latest_analysis_images/ HTTP/1.1\r\nAuthorization: Bearer {token}");
    let (status, _, body) = exchange(&app, &head, b"").await;
    let latest: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status, 200, "{latest}");
    let url = latest["images"][0]["image_url"].as_str().unwrap();
    let path = url.strip_prefix(&format!("http://{}", app.address())).unwrap().to_owned();
    let status_of = async |path: &str| exchange(&app, &format!("GET {path} HTTP/1.1"), b"").await.0;
    assert_eq!(status_of(&path).await, 200, "an <image> sends no header: {path}");

    let (plain, query) = path.split_once('?').unwrap();
    let (until, signature) = query.split_once('&').unwrap();
    let other = format!("{}?{query}", plain.replace("analysis_session", "session"));
    for wrong in [
        plain.to_owned(),
        other,
        format!("{plain}?{until}&sig="),
        format!("{plain}?{until}&sig={}", "0".repeat(64)),
        format!("{plain}?until=1&{signature}"),
        format!("{plain}?until={}&{signature}", i64::MAX),
        format!("{plain}?until={}&{signature}", i64::MIN),
    ] {
        assert_eq!(status_of(&wrong).await, 401, "{wrong}");
    }
    app.stop().await;
}
