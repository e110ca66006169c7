//! A disk with less room than the service leaves free: said at once and in words, nothing lost, and over as soon as there is room.

use serde_json::json;

use crate::packets::session_packets;
use crate::reanalysis::eventually;
use crate::support::TestApp;

const DEVICE: &str = "2025001";
const START: (&str, &str) =
    ("/wxapp/start_session/", "openid=test_user_123456&device_group_code=2025002&device_code=2025002");

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_to_everybody_who_needs_room() {
    let app = TestApp::start().await;
    let reserve = app.data_dir().join("_reserve");
    eventually(async || reserve.is_file()).await;
    let mut device = app.socket(&format!("/ws/esp32/{DEVICE}/")).await;
    let session = app.start_session(DEVICE).await;
    device.next_of("start_collection").await;
    let packets = session_packets(&session.to_string(), DEVICE, 4, 2.0);
    device.send(&packets[0]).await;
    assert_eq!(device.next_of("batch_sensor_data_response").await["success"], true);
    let folder = app.stop().await;

    // No disk has so much room, which is all that a full one shows.
    let app = TestApp::start_in(folder, |config| config.store.min_free_bytes = u64::MAX / 2).await;
    let (status, not_ready) = app.get("/health/ready").await;
    assert_eq!(
        (status, &not_ready["code"]),
        (503, &json!("log_unavailable")),
        "before any frame was refused: {not_ready}"
    );
    let mut device = app.socket(&format!("/ws/esp32/{DEVICE}/")).await;
    device.send(&packets[1]).await;
    let refused = device.next_of("batch_sensor_data_response").await;
    assert_eq!(refused["success"], false, "{refused}");
    assert!(refused["error"].as_str().is_some_and(|error| error.contains("disk is full")), "{refused}");
    let (status, refused) = app.post_form(START.0, START.1).await;
    assert_eq!((status, &refused["code"]), (507, &json!("disk_full")), "{refused}");
    let (status, refused) = app.request("POST", "/api/v2/imports/recordings", "text/csv", "t_ms,ax\n").await;
    assert_eq!((status, &refused["code"]), (507, &json!("disk_full")), "{refused}");
    assert_eq!(app.sql_count("SELECT count(*) FROM frames").await, 30, "reading goes on");
    assert_eq!(app.sql_count("SELECT count(*) FROM sessions").await, 1, "nothing was begun");
    let folder = app.stop().await;

    let app = TestApp::start_in(folder, |_| {}).await;
    assert_eq!(app.get("/health/ready").await.0, 200);
    let mut device = app.socket(&format!("/ws/esp32/{DEVICE}/")).await;
    device.send(&packets[1]).await;
    assert_eq!(device.next_of("batch_sensor_data_response").await["success"], true);
    assert_eq!(app.post_form(START.0, START.1).await.0, 200);
    app.stop().await;
}
