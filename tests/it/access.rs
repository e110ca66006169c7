//! Who may do what: every route and socket, every kind of caller, with tokens; and what a stranger can do in legacy mode.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use volant::accounts::{Scope, Subject};
use volant::config::Auth;

use crate::packets::session_packets;
use crate::support::{PATIENCE, TestApp};

/// The callers of a row, in this order.
const CALLERS: [&str; 9] = [
    "stranger",
    "wrong token",
    "owner",
    "other user",
    "own device",
    "other device",
    "key sessions:read",
    "key devices:read",
    "admin",
];

/// What each may: `y` it is carried out (or refused for what it asks, not for who asks), else the status of the refusal
/// (`1` 401, `3` 403, `4` 404 as if it did not exist).
const PUBLIC: &str = "y1yyyyyyy";
const PLAYER: &str = "11y33333y";
const NOBODY_BY_NAME: &str = "313333333";
const BINDS: &str = "11333333y";
const SESSION_READ: &str = "11y4y4y3y";
const SESSION_CONTROL: &str = "11y4y433y";
const LABELS: &str = "11y43333y";
const ACTS_AS_DEVICE: &str = "1133y333y";
const SEES_DEVICE: &str = "11y3y33yy";
const COMMANDS_DEVICE: &str = "11y3y333y";
const ADMIN: &str = "11333333y";
const ADMIN_OR_USER: &str = "11yy3333y";
const USER: &str = "11yy3333y";
const LISTS_SESSIONS: &str = "11yy33y3y";
const LISTS_DEVICES: &str = "11yy333yy";
const READS_SESSIONS: &str = "113333y3y";
const OWNER_OR_ADMIN: &str = "11y33333y";
const WRITES_SESSIONS: &str = "11333333y";
const LOGIN: &str = "111111111";
const PLAYER_SOCKET: &str = "11y333333";

/// Method, path, body, and who may. `{s}` is the owner's session, `{o}` the owner's openid, `{u}` the owner's number.
const ROWS: &[(&str, &str, &str, &str)] = &[
    ("GET", "/", "", PUBLIC),
    ("GET", "/health/live", "", PUBLIC),
    ("GET", "/health/ready", "", PUBLIC),
    ("GET", "/metrics", "", PUBLIC),
    ("GET", "/sessions/{s}/report", "", SESSION_READ),
    ("GET", "/images/analysis_session_{s}_1.jpg", "", SESSION_READ),
    ("WS", "/", "", PUBLIC),
    ("WS", "/ws/esp32/d-own/", "", ACTS_AS_DEVICE),
    ("WS", "/ws/miniprogram/{o}/", "", PLAYER_SOCKET),
    ("WS", "/ws/miniprogram/{u}/", "", PLAYER_SOCKET),
    ("WS", "/ws/admin/", "", ADMIN),
    // The legacy routes.
    ("POST", "/wxapp/login/", "", PUBLIC),
    ("POST", "/wxapp/simple_login/", "", NOBODY_BY_NAME),
    ("POST", "/wxapp/bind_device/", "openid={o}&device_code=d-own", BINDS),
    ("POST", "/wxapp/start_session/", "openid={o}&device_group_code=d-own", PLAYER),
    ("POST", "/wxapp/start_data_collection/", "session_id={s}", SESSION_CONTROL),
    ("POST", "/wxapp/end_session/", "session_id={s}", SESSION_CONTROL),
    ("GET", "/wxapp/get_latest_session/?openid={o}", "", PLAYER),
    ("POST", "/wxapp/mark_complete/", "session_id={s}", SESSION_CONTROL),
    ("POST", "/wxapp/upload_sensor_data/", "device_code=d-own&sensor_type=waist&data=x", ACTS_AS_DEVICE),
    ("POST", "/wxapp/esp32/upload/", "device_code=d-own", ACTS_AS_DEVICE),
    ("POST", "/wxapp/esp32/batch_upload/", "device_code=d-own", ACTS_AS_DEVICE),
    ("POST", "/wxapp/esp32/mark_upload_complete/", "device_code=d-own&session_id=none", ACTS_AS_DEVICE),
    ("POST", "/wxapp/send_data1/", "openid={o}&type=1&content=x", PLAYER),
    ("POST", "/wxapp/send_data2/", "openid={o}&type=2&content=x", PLAYER),
    ("POST", "/wxapp/send_data3/", "openid={o}&type=3&content=x", PLAYER),
    ("POST", "/wxapp/esp32/poll_commands/", "device_code=d-own", ACTS_AS_DEVICE),
    ("POST", "/wxapp/esp32/status/", "device_code=d-own", SEES_DEVICE),
    (
        "POST",
        "/wxapp/esp32/status/",
        "device_code=d-own&status=START_COLLECTION_CONFIRMED&session_id={s}",
        ACTS_AS_DEVICE,
    ),
    ("POST", "/wxapp/esp32/heartbeat/", "device_code=d-own&session_id={s}", ACTS_AS_DEVICE),
    ("POST", "/wxapp/register_device_ip/", "device_code=d-own&ip_address=10.0.0.1", ACTS_AS_DEVICE),
    ("POST", "/wxapp/get_device_status/", "device_code=d-own", SEES_DEVICE),
    ("POST", "/wxapp/notify_esp32_start/", "session_id={s}", SESSION_CONTROL),
    ("POST", "/wxapp/notify_esp32_stop/", "session_id={s}", SESSION_CONTROL),
    ("POST", "/wxapp/notify_device_start/", "session_id={s}&device_code=d-own", SESSION_CONTROL),
    ("POST", "/wxapp/notify_device_stop/", "device_code=d-own", COMMANDS_DEVICE),
    ("POST", "/wxapp/test_udp_broadcast/", "message=x", ADMIN),
    ("POST", "/wxapp/test_udp_broadcast/", "message=x&device_code=d-own", COMMANDS_DEVICE),
    ("GET", "/wxapp/test_udp_broadcast/", "", ADMIN),
    ("GET", "/wxapp/websocket/status/", "", ADMIN),
    ("POST", "/wxapp/websocket/send_command/", "command_type=TEST", ADMIN),
    ("POST", "/wxapp/websocket/send_command/", "command_type=TEST&device_code=d-own", COMMANDS_DEVICE),
    ("POST", "/wxapp/websocket/send_command/", "command_type=STOP_COLLECTION&session_id={s}", SESSION_CONTROL),
    ("POST", "/wxapp/get_analysis/", "session_id={s}", SESSION_READ),
    ("GET", "/wxapp/generate_report/?session_id={s}", "", SESSION_READ),
    ("GET", "/wxapp/get_mat_analysis/?session_id={s}", "", SESSION_READ),
    ("GET", "/wxapp/get_sensor_peaks/?session_id={s}", "", SESSION_READ),
    ("GET", "/wxapp/get_sensor_peak_timestamps/?session_id={s}", "", SESSION_READ),
    ("POST", "/wxapp/upload_mat/", "openid={o}", PLAYER),
    ("GET", "/wxapp/latest_analysis_images/?openid={o}", "", PLAYER),
    ("GET", "/wxapp/miniprogram/get_images/?session_id={s}", "", SESSION_READ),
    ("POST", "/wxapp/force_generate_image/", "session_id={s}", SESSION_READ),
    ("GET", "/wxapp/list_images/?openid={o}", "", PLAYER),
    ("GET", "/wxapp/debug_images/?openid={o}", "", PLAYER),
    ("POST", "/wxapp/debug_images/", "action=regenerate", ADMIN),
    // The new API.
    ("GET", "/api/v2/status", "", READS_SESSIONS),
    ("POST", "/api/v2/login", r#"{"name":"nobody","password":"guessed"}"#, LOGIN),
    ("GET", "/api/v2/me", "", PUBLIC),
    ("PUT", "/api/v2/me/language", r#"{"language":"zh"}"#, USER),
    ("GET", "/api/v2/openapi.json", "", PUBLIC),
    ("GET", "/api/v2/asyncapi.json", "", PUBLIC),
    ("GET", "/api/v2/pipelines", "", READS_SESSIONS),
    ("GET", "/api/v2/pipelines/{pipeline}/analyses", "", READS_SESSIONS),
    ("POST", "/api/v2/pipelines/{pipeline}/analyses", "{}", WRITES_SESSIONS),
    ("DELETE", "/api/v2/pipelines/{pipeline}/analyses", "", WRITES_SESSIONS),
    ("POST", "/api/v2/pipelines/{pipeline}/publish", "", WRITES_SESSIONS),
    ("GET", "/api/v2/sessions/{session_id}/doctor", "", SESSION_READ),
    ("GET", "/api/v2/sessions/{session_id}/labels", "", SESSION_READ),
    ("POST", "/api/v2/sessions/{session_id}/labels", r#"{"labels":[{"impact_ms":0,"stroke":"x"}]}"#, LABELS),
    ("GET", "/api/v2/sessions/{session_id}/analyses", "", SESSION_READ),
    ("GET", "/api/v2/sessions/{session_id}/analyses/{pipeline}", "", SESSION_READ),
    ("POST", "/api/v2/sessions/{session_id}/analyses/{pipeline}/publish", "", WRITES_SESSIONS),
    (
        "POST",
        "/api/v2/players/{user_id}/calibration",
        r#"{"labels":[{"session_id":1,"impact_ms":0,"stroke":"x"}]}"#,
        OWNER_OR_ADMIN,
    ),
    ("PUT", "/api/v2/players/{user_id}/pipeline", r#"{"pipeline":null}"#, ADMIN),
    ("GET", "/api/v2/players", "", ADMIN),
    ("DELETE", "/api/v2/players/{user_id}?dry_run=true", "", ADMIN),
    ("GET", "/api/v2/tokens", "", ADMIN_OR_USER),
    ("POST", "/api/v2/tokens", r#"{"device_code":"x"}"#, ADMIN),
    ("DELETE", "/api/v2/tokens/{token_id}", "", ADMIN_OR_USER),
    ("GET", "/api/v2/audit", "", ADMIN),
    ("GET", "/api/v2/sessions", "", LISTS_SESSIONS),
    ("POST", "/api/v2/sessions", r#"{"device_code":"d-own","user_id":{u}}"#, PLAYER),
    ("GET", "/api/v2/sessions/{session_id}", "", SESSION_READ),
    ("POST", "/api/v2/sessions/{session_id}/stop", "", SESSION_CONTROL),
    ("POST", "/api/v2/sessions/{session_id}/complete", "", SESSION_CONTROL),
    ("GET", "/api/v2/sessions/{session_id}/result", "", SESSION_READ),
    ("GET", "/api/v2/sessions/{session_id}/strokes", "", SESSION_READ),
    ("GET", "/api/v2/devices", "", LISTS_DEVICES),
    ("POST", "/api/v2/devices/broadcast", r#"{"command":"check","device_codes":[]}"#, ADMIN),
    ("POST", "/api/v2/devices/claim", r#"{"pairing_code":"0000-0000"}"#, USER),
    ("GET", "/api/v2/devices/{device_code}", "", SEES_DEVICE),
    ("POST", "/api/v2/devices/{device_code}/stop", "", COMMANDS_DEVICE),
    ("POST", "/api/v2/devices/{device_code}/check", "", COMMANDS_DEVICE),
    ("POST", "/api/v2/devices/{device_code}/test", r#"{"message":"x"}"#, COMMANDS_DEVICE),
    ("POST", "/api/v2/devices/{device_code}/pairing-code", "", ADMIN),
    // The owner keeps the device: it is another one that is given back.
    ("DELETE", "/api/v2/devices/{device_code}-2/binding", "", USER),
    ("GET", "/api/v2/groups", "", ADMIN),
    ("PUT", "/api/v2/groups/{group_code}", r#"{"device_codes":[]}"#, ADMIN),
    ("GET", "/api/v2/notifications", "", USER),
    ("POST", "/api/v2/notifications/{notification_id}/ack", "", USER),
    ("GET", "/api/v2/webhooks", "", ADMIN_OR_USER),
    ("POST", "/api/v2/webhooks", r#"{"url":"nonsense"}"#, ADMIN_OR_USER),
    ("DELETE", "/api/v2/webhooks/{webhook_id}", "", ADMIN_OR_USER),
    ("POST", "/api/v2/wechat/grants", r#"{"template_id":"t"}"#, USER),
    ("POST", "/api/v2/sql", r#"{"query":"SELECT 1"}"#, ADMIN),
    ("GET", "/api/v2/export", "", ADMIN),
    ("POST", "/api/v2/imports/recordings?dry_run=true", "t_ms", WRITES_SESSIONS),
    ("POST", "/api/v2/imports/archives?dry_run=true", "none", ADMIN),
];

/// Operations without a row, and why.
const EXEMPT: &[(&str, &str)] = &[("POST /api/v2/logout", "ends the caller's own token; open to all, tested below")];

/// A request as it stands; status and body.
async fn ask(app: &TestApp, method: &str, path: &str, body: &str, token: Option<&str>) -> (u16, Value) {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let (method, connection, upgrade) =
        if method == "WS" { ("GET", "Upgrade", upgrade) } else { (method, "close", "") };
    let kind = if body.starts_with('{') { "application/json" } else { "application/x-www-form-urlencoded" };
    let content = if body.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n{upgrade}{authorization}{content}Content-Length: {}\r\n\r\n{body}",
        app.address(),
        body.len()
    );
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    // An upgraded connection stays open: its head is enough.
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") || connection == "close" {
        let length = tokio::time::timeout(PATIENCE, stream.read(&mut part)).await.unwrap().unwrap();
        if length == 0 {
            break;
        }
        answer.extend(&part[..length]);
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// Records a session of the owner and waits for its result; its number.
async fn recorded(app: &TestApp, owner: &str, device_token: &str) -> i64 {
    let start = "device_group_code=d-own";
    let (status, started) = ask(app, "POST", "/wxapp/start_session/", start, Some(owner)).await;
    assert_eq!(status, 200, "{started}");
    let session = started["session_id"].as_i64().unwrap();
    let mut device = app.socket(&format!("/ws/esp32/d-own/?token={device_token}")).await;
    for packet in session_packets(&session.to_string(), "d-own", 5, 6.0) {
        device.send(&packet).await;
        assert_eq!(device.next_of("batch_sensor_data_response").await["success"], true);
    }
    ask(app, "POST", &format!("/api/v2/sessions/{session}/complete"), "", Some(owner)).await;
    let done = async {
        while ask(app, "GET", &format!("/api/v2/sessions/{session}/result"), "", Some(owner)).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, done).await.expect("a result");
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_and_socket_serves_just_those_it_is_for() {
    let app = TestApp::start_with(|config| {
        config.auth = Auth::Token;
        config.gateway.failures_per_address_per_min = 1_000_000;
    })
    .await;
    let accounts = app.app().rooms().accounts.clone();
    accounts.set_admin("alice", "correct horse battery", "test").await.unwrap();
    let owner = accounts.by_openid("owner-openid").await.unwrap();
    let other = accounts.by_openid("other-openid").await.unwrap();
    accounts.bind(owner.user_id, &"d-own".parse().unwrap()).await.unwrap();
    let key = |scope| Subject::Key([scope].into_iter().collect());
    let mut tokens: Vec<Option<String>> = vec![None, Some("vu_0000000000000000000000000000000".to_owned())];
    for subject in [
        Subject::User(owner.user_id),
        Subject::User(other.user_id),
        Subject::Device("d-own".parse().unwrap()),
        Subject::Device("d-other".parse().unwrap()),
        key(Scope::SessionsRead),
        key(Scope::DevicesRead),
        Subject::Admin("alice".to_owned()),
    ] {
        tokens.push(Some(accounts.issue(&subject, None, None, "test").await.unwrap().token));
    }
    let session = recorded(&app, tokens[2].as_deref().unwrap(), tokens[4].as_deref().unwrap()).await;

    let fill = |text: &str| {
        text.replace("{s}", &session.to_string())
            .replace("{session_id}", &session.to_string())
            .replace("{o}", "owner-openid")
            .replace("{u}", &owner.user_id.to_string())
            .replace("{user_id}", &owner.user_id.to_string())
            .replace("{device_code}", "d-own")
            .replace("{token_id}", "t-none")
            .replace("{webhook_id}", "wh-none")
            .replace("{notification_id}", "none")
            .replace("{group_code}", "g")
            .replace("{pipeline}", "volant-default-1")
    };
    let mut wrong = Vec::new();
    for (method, path, body, expected) in ROWS {
        let (path, body) = (fill(path), fill(body));
        for ((caller, token), expected) in CALLERS.iter().zip(&tokens).zip(expected.chars()) {
            let (status, answer) = ask(&app, method, &path, &body, token.as_deref()).await;
            let hidden = status == 404 && answer["code"] == "session_not_found";
            let found = match status {
                401 => '1',
                403 => '3',
                404 if hidden => '4',
                500.. => '5',
                _ => 'y',
            };
            if found != expected {
                wrong.push(format!("{method} {path} [{body}] by {caller}: {status} {answer}, expected {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // The table names every route there is.
    let without_query = |path: &str| path.split('?').next().unwrap_or_default().to_owned();
    let rows: BTreeSet<String> =
        ROWS.iter().map(|(method, path, ..)| format!("{method} {}", without_query(path))).collect();
    let named = |name: &str| rows.iter().any(|row| row.split(['?', ' ']).any(|part| part == format!("/wxapp/{name}/")));
    let missing: Vec<_> = volant::gateway::legacy_route_names().into_iter().filter(|name| !named(name)).collect();
    assert!(missing.is_empty(), "legacy routes without a row: {missing:?}");
    let document: Value = serde_json::from_str(&volant::gateway::openapi_text()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let operation = format!("{} {path}", method.to_uppercase());
            let known = rows.contains(&operation)
                || rows.contains(&operation.replace("{device_code}/binding", "{device_code}-2/binding"))
                || EXEMPT.iter().any(|(exempt, _)| *exempt == operation);
            assert!(known, "{operation} has no row");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_logs_in_and_out_and_a_revoked_token_closes_its_sockets() {
    let app = TestApp::start_with(|config| {
        config.auth = Auth::Token;
        config.gateway.ping_interval_s = 1;
        config.gateway.failures_per_address_per_min = 3;
    })
    .await;
    let accounts = app.app().rooms().accounts.clone();
    accounts.set_admin("alice", "correct horse battery", "test").await.unwrap();
    let login = json!({ "name": "alice", "password": "correct horse battery" });
    let (status, answer) = app.post_json("/api/v2/login", &login).await;
    assert_eq!(status, 200, "{answer}");
    let token = answer["token"].as_str().unwrap().to_owned();
    assert_eq!(ask(&app, "GET", "/api/v2/audit", "", Some(&token)).await.0, 200);
    // A pairing code is the proof that a player holds a device.
    let (_, code) = ask(&app, "POST", "/api/v2/devices/d9/pairing-code", "", Some(&token)).await;
    let player = accounts.by_openid("p").await.unwrap().user_id;
    let user = accounts.issue(&Subject::User(player), None, None, "test").await.unwrap();
    let claim = format!("pairing_code={}", code["pairing_code"].as_str().unwrap());
    let (status, bound) = ask(&app, "POST", "/wxapp/bind_device/", &claim, Some(&user.token)).await;
    assert_eq!((status, &bound["device_code"]), (200, &json!("d9")), "{bound}");
    assert_eq!(ask(&app, "POST", "/wxapp/start_session/", "device_group_code=d9", Some(&user.token)).await.0, 200);

    let mut admin = app.socket(&format!("/ws/admin/?token={token}")).await;
    let mut phone = app.socket(&format!("/ws/miniprogram/p/?token={}", user.token)).await;
    admin.next_of("connection_established").await;
    phone.next_of("connection_established").await;
    assert_eq!(ask(&app, "POST", "/api/v2/logout", "", Some(&token)).await.0, 204);
    assert_eq!(ask(&app, "GET", "/api/v2/audit", "", Some(&token)).await.0, 401);
    while admin.next().await.is_some() {}
    accounts.revoke(&user.info.token_id, "test").await.unwrap();
    while phone.next().await.is_some() {}

    // Guessing is slowed down.
    let guess = json!({ "name": "alice", "password": "a wrong guess, again" });
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(app.post_json("/api/v2/login", &guess).await.0);
    }
    assert_eq!(statuses, [401, 401, 401, 429, 429, 429]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_foreign_sites_get_nothing_from_the_cookie_or_from_the_machine() {
    let app = TestApp::start().await;
    let send = async |head: &str| {
        let mut stream = TcpStream::connect(app.address()).await.unwrap();
        stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    let address = app.address();
    let own = format!("GET /api/v2/audit HTTP/1.1\r\nHost: {address}");
    assert_eq!(send(&own).await, 200, "the operator at the machine");
    assert_eq!(send(&format!("{own}\r\nOrigin: http://evil.example")).await, 401, "a foreign page opened there");
    assert_eq!(send(&format!("{own}\r\nX-Forwarded-For: 1.2.3.4")).await, 401, "somebody behind a proxy");
    assert_eq!(
        send("GET /api/v2/audit HTTP/1.1\r\nHost: rebound.example").await,
        401,
        "a name that was made to point here"
    );

    let accounts = app.app().rooms().accounts.clone();
    accounts.set_admin("alice", "correct horse battery", "test").await.unwrap();
    let token = accounts.issue(&Subject::Admin("alice".to_owned()), None, None, "test").await.unwrap().token;
    let cookie = format!("Cookie: other=1; volant-login={token}");
    let post =
        format!("POST /api/v2/devices/x/pairing-code HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n{cookie}");
    assert_eq!(send(&post).await, 403, "a form that says not where it is from");
    assert_eq!(send(&format!("{post}\r\nOrigin: http://evil.example")).await, 403);
    assert_eq!(send(&format!("{post}\r\nOrigin: http://{address}")).await, 201);
    app.stop().await;
}

/// In legacy mode an openid is enough to be its user, and to be nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_names_somebody_else_sees_nothing_of_a_session() {
    let app = TestApp::start().await;
    let session = app.start_session("2025001").await;
    for (method, path) in [
        ("GET", "/wxapp/get_analysis/"),
        ("GET", "/wxapp/generate_report/"),
        ("GET", "/wxapp/get_sensor_peaks/"),
        ("GET", "/wxapp/miniprogram/get_images/"),
        ("POST", "/wxapp/end_session/"),
        ("POST", "/wxapp/mark_complete/"),
        ("POST", "/wxapp/notify_esp32_stop/"),
        ("POST", "/wxapp/force_generate_image/"),
    ] {
        let path = format!("{path}?session_id={session}&openid=stranger");
        let (status, answer) = app.request(method, &path, "", "").await;
        assert_eq!((status, answer["code"].as_str()), (404, Some("session_not_found")), "{path}");
    }
    app.post_form("/wxapp/bind_device/", "openid=stranger&device_code=x").await;
    assert_eq!(app.get(&format!("/api/v2/sessions/{session}?openid=stranger")).await.0, 404);
    let (_, sessions) = app.get("/api/v2/sessions?openid=stranger").await;
    assert_eq!(sessions["sessions"], json!([]));
    assert_eq!(app.get("/wxapp/get_latest_session/?openid=stranger").await.0, 404);
    let (_, info) = app.get(&format!("/api/v2/sessions/{session}")).await;
    assert_eq!(info["session"]["status"], "calibrating", "nothing was stopped");
    app.stop().await;
}
