//! The sockets as an AsyncAPI 3.0 document, made from the message types.

use serde_json::{Map, Value, json};

use super::schema::wire_schemas;

/// A message of each kind that a program is likely to write or wait for.
const EXAMPLES: &str = include_str!("examples.json");

/// A socket: its name in the document, address, parameter, and the messages that only it takes or gives.
struct Channel {
    name: &'static str,
    address: &'static str,
    parameter: Option<(&'static str, &'static str)>,
    about: &'static str,
    from_client: &'static [&'static str],
    from_server: &'static [&'static str],
}

const CHANNELS: [Channel; 4] = [
    Channel {
        name: "device",
        address: "/ws/esp32/{device_code}/",
        parameter: Some(("device_code", "Code of the device: letters, digits, '_', '.' and '-', 1 to 64.")),
        about: "A gateway streams frames and takes commands. With tokens: ?token= or Authorization: Bearer.",
        from_client: &[
            "ack",
            "batch_sensor_data",
            "heartbeat",
            "poll_commands",
            "sensor_data",
            "status_response",
            "status_update",
            "upload_complete",
        ],
        from_server: &[
            "batch_sensor_data_response",
            "command_response",
            "connection_established",
            "error",
            "get_status",
            "heartbeat_response",
            "sensor_data_response",
            "start_collection",
            "status_update_response",
            "stop_collection",
            "test_message",
            "upload_complete_response",
        ],
    },
    Channel {
        name: "player",
        address: "/ws/miniprogram/{user_id}/",
        parameter: Some(("user_id", "Any id of the player: openid, user number, WeChat-user number.")),
        about: "A player hears of finished analyses.",
        from_client: &["session_status"],
        from_server: &[
            "analysis_complete_notification",
            "connection_established",
            "error",
            "session_status_response",
            "swing_detected",
            "swings_revised",
        ],
    },
    Channel {
        name: "admin",
        address: "/ws/admin/",
        parameter: None,
        about: "Admins hear of devices and sessions.",
        from_client: &["get_device_list", "get_system_status"],
        from_server: &[
            "connection_established",
            "device_list",
            "error",
            "swing_detected",
            "swings_revised",
            "system_event",
            "system_notification",
            "system_status",
        ],
    },
    Channel {
        name: "elsewhere",
        address: "/",
        parameter: None,
        about: "Whoever lost their way is told where to go. Takes any JSON.",
        from_client: &[],
        from_server: &["error", "usage_guide", "welcome"],
    },
];

/// The document as committed and served: `schemas/asyncapi.json`.
///
/// # Panics
/// Never: schemas are plain JSON.
#[must_use]
pub fn asyncapi_text() -> String {
    let mut examples: Map<String, Value> = serde_json::from_str(EXAMPLES).expect("a test reads them");
    let mut messages = Map::new();
    for schema in wire_schemas() {
        let mut parts = schema.file_name.split('.');
        let (Some(direction), Some(kind)) = (parts.next(), parts.next()) else { continue };
        let mut payload: Value = serde_json::from_str(&schema.text).expect("a schema is plain JSON");
        if let Some(payload) = payload.as_object_mut() {
            // The document says once which dialect its schemas are in.
            payload.remove("$schema");
        }
        let summary = payload["description"].clone();
        let name = format!("{direction}.{kind}");
        let mut message = json!({
            "name": kind, "title": kind, "summary": summary, "contentType": "application/json",
            "payload": { "schemaFormat": "application/schema+json;version=draft-2020-12", "schema": payload },
        });
        if let Some(example) = examples.remove(&name) {
            message["examples"] = json!([{ "payload": example }]);
        }
        messages.insert(name, message);
    }
    let (mut channels, mut operations) = (Map::new(), Map::new());
    for channel in &CHANNELS {
        let named = |direction: &str, kinds: &[&str]| -> Map<String, Value> {
            let reference = |kind: &&str| {
                let name = format!("{direction}.{kind}");
                (name.clone(), json!({ "$ref": format!("#/components/messages/{name}") }))
            };
            kinds.iter().map(reference).collect()
        };
        let (client, server) = (named("client", channel.from_client), named("server", channel.from_server));
        let references = |of: &Map<String, Value>| -> Vec<Value> {
            let reference = |name: &String| json!({ "$ref": format!("#/channels/{}/messages/{name}", channel.name) });
            of.keys().map(reference).collect()
        };
        let at = json!({ "$ref": format!("#/channels/{}", channel.name) });
        for (verb, action, of) in [("receive", "receive", &client), ("send", "send", &server)] {
            if !of.is_empty() {
                operations.insert(
                    format!("{verb}_{}", channel.name),
                    json!({ "action": action, "channel": at, "messages": references(of) }),
                );
            }
        }
        let mut described = json!({
            "address": channel.address,
            "description": channel.about,
            "messages": client.into_iter().chain(server).collect::<Map<_, _>>(),
        });
        if let Some((name, about)) = channel.parameter {
            described["parameters"] = json!({ name: { "description": about } });
        }
        channels.insert(channel.name.to_owned(), described);
    }
    let document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Volant sockets",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "JSON objects with a text field `type`, one a WebSocket text frame. Fields may be added.",
            "license": { "name": "Apache-2.0" },
        },
        "servers": {
            "service": { "host": "localhost:8000", "protocol": "ws", "description": "The firmware has port 8000 compiled in." },
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages },
    });
    serde_json::to_string_pretty(&document).expect("plain JSON") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Endpoint, decode};

    #[test]
    fn examples_are_messages_as_the_schemas_have_them_and_the_server_reads_them() {
        let schemas: std::collections::BTreeMap<String, Value> = wire_schemas()
            .into_iter()
            .map(|schema| {
                let name = schema.file_name.trim_end_matches(".schema.json").to_owned();
                (name, serde_json::from_str(&schema.text).unwrap())
            })
            .collect();
        let examples: Map<String, Value> = serde_json::from_str(EXAMPLES).unwrap();
        for (name, example) in examples {
            let schema = &schemas[&name];
            let fields = example.as_object().unwrap();
            for required in schema["required"].as_array().unwrap() {
                assert!(fields.contains_key(required.as_str().unwrap()), "{name} lacks {required}");
            }
            for field in fields.keys() {
                assert!(schema["properties"].get(field).is_some(), "{name} has no field {field}");
            }
            if name.starts_with("client.") {
                let ends = [Endpoint::Device, Endpoint::User, Endpoint::Admin];
                assert!(ends.into_iter().any(|end| decode(end, &example.to_string()).is_ok()), "{name}");
            }
        }
    }

    #[test]
    fn every_message_has_a_channel_and_every_channel_its_messages() {
        let document: Value = serde_json::from_str(&asyncapi_text()).unwrap();
        let defined: std::collections::BTreeSet<String> =
            document["components"]["messages"].as_object().unwrap().keys().cloned().collect();
        let used: std::collections::BTreeSet<String> = CHANNELS
            .iter()
            .flat_map(|channel| {
                let client = channel.from_client.iter().map(|kind| format!("client.{kind}"));
                client.chain(channel.from_server.iter().map(|kind| format!("server.{kind}")))
            })
            .collect();
        assert_eq!(defined, used);
    }
}
