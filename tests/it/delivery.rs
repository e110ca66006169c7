//! Login by WeChat, WeChat subscribe messages, and webhooks, against local servers that speak the documented protocols.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use base64::Engine as _;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::packets::session_packets;
use crate::support::{PATIENCE, TestApp};

const APP_ID: &str = "wx1234567890abcdef";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const TEMPLATE: &str = "tmpl-1";

/// WeChat's servers, as their documentation has them: `sns/jscode2session`, `cgi-bin/stable_token`,
/// `cgi-bin/message/subscribe/send`. Codes count once, tokens can be ended, answers can be made to fail.
#[derive(Clone, Default)]
struct WeChat(Arc<Mutex<WeChatState>>);

#[derive(Default)]
struct WeChatState {
    used_codes: Vec<String>,
    tokens: Vec<String>,
    token_calls: usize,
    sent: Vec<Value>,
    /// Answers to the next messages, instead of success.
    failures: VecDeque<Value>,
    /// Statuses of the next logins, instead of an answer.
    broken_logins: VecDeque<StatusCode>,
}

async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

impl WeChat {
    async fn start() -> (Self, SocketAddr) {
        let wechat = Self::default();
        let router = Router::new()
            .route("/sns/jscode2session", get(Self::session))
            .route("/cgi-bin/stable_token", post(Self::token))
            .route("/cgi-bin/message/subscribe/send", post(Self::send))
            .with_state(wechat.clone());
        (wechat, serve(router).await)
    }

    #[expect(clippy::unused_async, reason = "a handler is async")]
    async fn session(
        State(wechat): State<Self>,
        Query(query): Query<std::collections::HashMap<String, String>>,
    ) -> axum::response::Response {
        let mut state = wechat.0.lock().unwrap();
        if let Some(status) = state.broken_logins.pop_front() {
            return status.into_response();
        }
        let refusal =
            |errcode: i64, errmsg: &str| axum::Json(json!({ "errcode": errcode, "errmsg": errmsg })).into_response();
        let value = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        if (value("appid"), value("secret"), value("grant_type")) != (APP_ID, SECRET, "authorization_code") {
            return refusal(40_013, "invalid appid");
        }
        let code = value("js_code").to_owned();
        match code.strip_prefix("code-of-") {
            None => refusal(40_029, "invalid code, rid: 1"),
            Some(_) if state.used_codes.contains(&code) => refusal(40_163, "code been used, rid: 1"),
            Some(openid) => {
                let openid = openid.to_owned();
                state.used_codes.push(code);
                axum::Json(json!({ "session_key": "tiihtNczf5v6AKRyjwEUhQ==", "openid": openid })).into_response()
            }
        }
    }

    #[expect(clippy::unused_async, reason = "a handler is async")]
    async fn token(State(wechat): State<Self>, body: Bytes) -> axum::Json<Value> {
        let asked: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&asked["appid"], &asked["secret"]), (&json!(APP_ID), &json!(SECRET)));
        let mut state = wechat.0.lock().unwrap();
        state.token_calls += 1;
        let token = format!("token-{}", state.token_calls);
        state.tokens.push(token.clone());
        axum::Json(json!({ "access_token": token, "expires_in": 7200 }))
    }

    #[expect(clippy::unused_async, reason = "a handler is async")]
    async fn send(
        State(wechat): State<Self>,
        Query(query): Query<std::collections::HashMap<String, String>>,
        body: Bytes,
    ) -> axum::Json<Value> {
        let mut state = wechat.0.lock().unwrap();
        if !query.get("access_token").is_some_and(|token| state.tokens.contains(token)) {
            return axum::Json(json!({ "errcode": 40_001, "errmsg": "invalid credential, access_token is invalid" }));
        }
        if let Some(failure) = state.failures.pop_front() {
            return axum::Json(failure);
        }
        state.sent.push(serde_json::from_slice(&body).unwrap());
        axum::Json(json!({ "errcode": 0, "errmsg": "ok" }))
    }
}

/// Passes connections on to `behind`, with TLS towards the caller; its address, and the authority that vouches for it as
/// `localhost`, as PEM.
async fn tls_in_front_of(behind: SocketAddr) -> (SocketAddr, String) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A caller that does not trust us ends it here.
                let Ok(mut caller) = acceptor.accept(stream).await else { return };
                let mut server = tokio::net::TcpStream::connect(behind).await.unwrap();
                tokio::io::copy_bidirectional(&mut caller, &mut server).await.ok();
            });
        }
    });
    (address, authority_pem)
}

/// A service whose WeChat is at this address.
async fn app_with(wechat: SocketAddr, folder: &tempfile::TempDir) -> TestApp {
    app_with_url(format!("http://{wechat}"), "", folder).await
}

async fn app_with_url(base_url: String, ca_file: &str, folder: &tempfile::TempDir) -> TestApp {
    let secret = folder.path().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    TestApp::start_with(|config| {
        APP_ID.clone_into(&mut config.wechat.app_id);
        config.wechat.app_secret_file = secret.display().to_string();
        config.wechat.base_url = base_url;
        ca_file.clone_into(&mut config.wechat.ca_file);
        config.notify.wechat_after_s = 0;
        config.notify.webhooks_allow_private = true;
    })
    .await
}

/// A session of a player from start to result; its number.
async fn play(app: &TestApp, openid: &str, device_code: &str) -> i64 {
    let mut device = app.socket(&format!("/ws/esp32/{device_code}/")).await;
    let form = format!("openid={openid}&device_group_code={device_code}");
    let (_, started) = app.post_form("/wxapp/start_session/", &form).await;
    let session = started["session_id"].as_i64().unwrap();
    for packet in session_packets(&session.to_string(), device_code, 3, 6.0) {
        device.send(&packet).await;
        device.next_of("batch_sensor_data_response").await;
    }
    app.post_form("/wxapp/esp32/mark_upload_complete/", &format!("session_id={session}&device_code={device_code}"))
        .await;
    session
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn wechat_is_reached_by_https_and_only_where_its_certificate_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let (_, address) = WeChat::start().await;
    let (front, authority) = tls_in_front_of(address).await;
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority).unwrap();
    let ca_file = ca_file.display().to_string();
    let by_name = format!("https://localhost:{}", front.port());
    let by_address = format!("https://127.0.0.1:{}", front.port());
    for (url, ca_file, status) in [(&by_name, ca_file.as_str(), 200), (&by_name, "", 503), (&by_address, &ca_file, 503)]
    {
        let app = app_with_url(url.clone(), ca_file, &folder).await;
        let form = format!("code=code-of-oTLS-{}", app.address().port());
        let (got, answer) = app.post_form("/wxapp/login/", &form).await;
        assert_eq!(got, status, "{url} {ca_file}: {answer}");
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_logs_in_by_wechat_and_is_one_person_under_every_id() {
    let folder = tempfile::tempdir().unwrap();
    let (wechat, address) = WeChat::start().await;
    let app = app_with(address, &folder).await;
    wechat.0.lock().unwrap().broken_logins.extend([StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE]);
    let (status, login) = app.post_form("/wxapp/login/", "code=code-of-oABC-123_x").await;
    assert_eq!((status, &login["openid"]), (200, &json!("oABC-123_x")), "two broken answers are tried again: {login}");
    let (user, token) = (login["user_id"].as_i64().unwrap(), login["token"].as_str().unwrap().to_owned());
    let (_, me) = app.get(&format!("/api/v2/me?token={token}")).await;
    assert_eq!((&me["kind"], &me["user_id"]), (&json!("user"), &json!(user)));
    let (_, started) = app.post_form("/wxapp/start_session/", "openid=oABC-123_x&device_group_code=d1").await;
    let (_, info) = app.get(&format!("/api/v2/sessions/{}?token={token}", started["session_id"])).await;
    assert_eq!(info["session"]["user_id"], user);

    for (form, expected, code) in [
        ("", 400, "missing_parameter"),
        ("code=code-of-oABC-123_x", 400, "wechat_refused"),
        ("code=unknown", 400, "wechat_refused"),
        ("code=%00", 400, "wechat_refused"),
    ] {
        let (status, refused) = app.post_form("/wxapp/login/", form).await;
        assert_eq!((status, refused["code"].as_str()), (expected, Some(code)), "{form}: {refused}");
        assert!(code == "missing_parameter" || refused["detail"].is_string(), "{refused}");
        assert!(!refused.to_string().contains(SECRET));
    }
    wechat.0.lock().unwrap().broken_logins.extend([StatusCode::BAD_GATEWAY; 3]);
    let (status, away) = app.post_form("/wxapp/login/", "code=code-of-x").await;
    assert_eq!((status, away["code"].as_str()), (503, Some("wechat_unreachable")), "{away}");
    app.stop().await;
    let plain = TestApp::start().await;
    assert_eq!(plain.post_form("/wxapp/login/", "code=code-of-x").await.0, 503, "not configured");
    plain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_player_gets_one_wechat_message_for_each_grant() {
    let folder = tempfile::tempdir().unwrap();
    let (wechat, address) = WeChat::start().await;
    let app = app_with(address, &folder).await;
    // Known to the service by a first visit.
    app.post_form("/wxapp/bind_device/", "openid=absent&device_code=d1").await;
    let grant = json!({ "template_id": TEMPLATE });
    for left in 1..=2 {
        let (status, grants) = app.post_json("/api/v2/wechat/grants?openid=absent", &grant).await;
        assert_eq!((status, &grants["left"]), (201, &json!(left)), "{grants}");
    }
    // The token is ended behind our back, and the first answers fail: sent all the same, for one grant.
    wechat.0.lock().unwrap().failures.push_back(json!({ "errcode": -1, "errmsg": "system error" }));
    let session = play(&app, "absent", "d1").await;
    eventually("a message", async || (wechat.0.lock().unwrap().sent.len() == 1).then_some(())).await;
    {
        let mut state = wechat.0.lock().unwrap();
        let message = &state.sent[0];
        assert_eq!((&message["touser"], &message["template_id"]), (&json!("absent"), &json!(TEMPLATE)));
        assert_eq!(message["data"]["thing1"]["value"], "训练分析已完成");
        assert!(message["data"]["number2"]["value"].as_str().unwrap().parse::<u32>().is_ok(), "{message}");
        state.tokens.clear();
    }
    let second = play(&app, "absent", "d1").await;
    assert_ne!(session, second);
    eventually("a second message", async || (wechat.0.lock().unwrap().sent.len() == 2).then_some(())).await;
    assert_eq!(wechat.0.lock().unwrap().token_calls, 2, "a token that no longer counts is replaced once");
    // No grant is left; the notice waits for a socket as ever.
    let third = play(&app, "absent", "d1").await;
    let mut player = app.socket("/ws/miniprogram/absent/").await;
    let mut told = Vec::new();
    while told.len() < 3 {
        told.push(player.next_of("analysis_complete_notification").await["session_id"].as_i64().unwrap());
    }
    assert_eq!(told, [session, second, third]);
    assert_eq!(wechat.0.lock().unwrap().sent.len(), 2);

    // Who is there gets no message, and keeps the grant.
    app.post_json("/api/v2/wechat/grants?openid=absent", &grant).await;
    let app_rooms = app.app().rooms().clone();
    let fourth = play(&app, "absent", "d1").await;
    let notice = player.next_of("analysis_complete_notification").await;
    assert_eq!(notice["session_id"], fourth);
    let user = app_rooms.accounts.find("absent").await.unwrap().unwrap().user_id;
    let notices = app_rooms.notify.since(user, "", 10).await.unwrap();
    assert_eq!(notices.len(), 4);
    let (_, listed) =
        app.get(&format!("/api/v2/notifications?openid=absent&after={}", notices[2].notification_id)).await;
    assert_eq!(listed["notifications"][0]["session_id"], fourth, "{listed}");
    app.stop().await;
}

/// What came to a webhook: headers and body.
type Posted = Arc<Mutex<Vec<(HeaderMap, String)>>>;

async fn receiver(answers: Vec<StatusCode>) -> (Posted, SocketAddr) {
    let posted = Posted::default();
    let (kept, answers) = (Arc::clone(&posted), Arc::new(Mutex::new(VecDeque::from(answers))));
    let router = Router::new().route(
        "/hook",
        post(move |headers: HeaderMap, body: String| {
            kept.lock().unwrap().push((headers, body));
            let answer = answers.lock().unwrap().pop_front().unwrap_or(StatusCode::NO_CONTENT);
            async move { answer }
        }),
    );
    (posted, serve(router).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_get_signed_notices_and_one_that_is_gone_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (_, address) = WeChat::start().await;
    let app = app_with(address, &folder).await;
    app.post_form("/wxapp/bind_device/", "openid=player&device_code=d1").await;
    let (good, good_address) = receiver(vec![]).await;
    let (gone, gone_address) = receiver(vec![StatusCode::GONE]).await;
    let (mine, mine_address) = receiver(vec![]).await;
    let hook = |address: SocketAddr| json!({ "url": format!("http://{address}/hook") });
    let (status, created) = app.post_json("/api/v2/webhooks", &hook(good_address)).await;
    assert_eq!(status, 201, "{created}");
    let secret = created["secret"].as_str().unwrap().to_owned();
    app.post_json("/api/v2/webhooks", &hook(gone_address)).await;
    let (_, own) = app.post_json("/api/v2/webhooks?openid=player", &hook(mine_address)).await;
    // Nobody is there.
    app.post_json("/api/v2/webhooks", &json!({ "url": "http://127.0.0.1:9/hook" })).await;
    for url in ["ftp://example.com/", "nonsense", "http://user:pass@example.com/"] {
        assert_eq!(app.post_json("/api/v2/webhooks", &json!({ "url": url })).await.0, 422, "{url}");
    }
    let (_, listed) = app.get("/api/v2/webhooks?openid=player").await;
    assert_eq!(listed["webhooks"].as_array().unwrap().len(), 1, "a player sees their own: {listed}");
    assert!(!listed.to_string().contains("whsec_"), "a secret is shown once");

    let session = play(&app, "player", "d1").await;
    let (headers, body) = eventually("a notice", async || good.lock().unwrap().first().cloned()).await;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let key = base64::engine::general_purpose::STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    let expected = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(header("webhook-signature"), format!("v1,{expected}"));
    let notice: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&notice["session_id"], &notice["notification_id"]), (&json!(session), &json!(header("webhook-id"))));
    assert!(notice["analysis_result"]["phase_delay"].is_object(), "{notice}");
    eventually("the player's own", async || (mine.lock().unwrap().len() == 1).then_some(())).await;
    eventually("the end of a webhook", async || {
        let (_, listed) = app.get("/api/v2/webhooks").await;
        let hooks = listed["webhooks"].as_array().unwrap().clone();
        hooks.iter().any(|hook| !hook["disabled_at_us"].is_null()).then_some(())
    })
    .await;
    // Taken away: nothing more goes there; the others go on.
    let id = own["webhook"]["webhook_id"].as_str().unwrap();
    assert_eq!(app.request("DELETE", &format!("/api/v2/webhooks/{id}?openid=player"), "", "").await.0, 204);
    assert_eq!(app.request("DELETE", &format!("/api/v2/webhooks/{id}?openid=player"), "", "").await.0, 404);
    play(&app, "player", "d1").await;
    eventually("a second notice", async || (good.lock().unwrap().len() == 2).then_some(())).await;
    assert_eq!((gone.lock().unwrap().len(), mine.lock().unwrap().len()), (1, 1));
    app.stop().await;
}
