//! JSON Schemas of every wire message, one file each, generated from the types.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{ClientWire, ServerMessage};

/// The schema of one message.
#[derive(Clone, Debug)]
pub struct WireSchema {
    /// File below `schemas/wire/`: direction and type, such as `server.error.schema.json`.
    pub file_name: String,
    /// The schema, JSON Schema draft 2020-12, ending in a newline.
    pub text: String,
}

/// The schemas of all messages, by file name.
///
/// # Panics
/// Never: the types derive their schemas, whose shape is fixed.
#[must_use]
pub fn wire_schemas() -> Vec<WireSchema> {
    let generator =
        || SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
    let client = generator().into_root_schema_for::<ClientWire>();
    let server = generator().into_root_schema_for::<ServerMessage>();
    let mut schemas = split("client", client.as_value());
    schemas.extend(split("server", server.as_value()));
    schemas.sort_by(|a, b| a.file_name.cmp(&b.file_name));
    schemas
}

/// A schema for each variant of an enumeration tagged by `type`.
fn split(direction: &str, root: &Value) -> Vec<WireSchema> {
    let variants = root["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    variants
        .iter()
        .map(|variant| {
            let kind = variant["properties"]["type"]["const"].as_str().unwrap_or_default();
            let mut schema = Map::new();
            schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
            schema.insert("title".to_owned(), json!(kind));
            if let Some(members) = variant.as_object() {
                schema.extend(members.clone());
            }
            let text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
            WireSchema { file_name: format!("{direction}.{kind}.schema.json"), text: text + "\n" }
        })
        .collect()
}
