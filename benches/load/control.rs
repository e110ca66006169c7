//! The control: the least that an axum service can do with a packet. Receive, parse, acknowledge, forget.

use std::io;
use std::io::Write;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::routing::get;
use serde_json::Value;

/// Serves until it is killed; says where on stdout, as the server does.
pub(crate) fn run() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let upgrade = |ws: WebSocketUpgrade| async { ws.on_upgrade(life) };
        let router = Router::new().route("/ws/esp32/{device_code}/", get(upgrade));
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        writeln!(io::stdout(), "listening on http://{}", listener.local_addr()?)?;
        io::stdout().flush()?;
        axum::serve(listener, router).await
    })
}

async fn life(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Text(text) = message else { continue };
        let answer = match serde_json::from_str::<Value>(&text) {
            Ok(packet) => match packet.get("data").and_then(Value::as_array) {
                Some(frames) => taken(frames.len()),
                None => continue,
            },
            Err(_) => r#"{"type":"error"}"#.to_owned(),
        };
        if socket.send(Message::text(answer)).await.is_err() {
            return;
        }
    }
}

fn taken(items: usize) -> String {
    format!(
        r#"{{"type":"batch_sensor_data_response","success":true,"total_items":{items},"successful_items":{items},"failed_items":0}}"#
    )
}
