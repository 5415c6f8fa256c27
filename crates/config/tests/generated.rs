//! Files that are made of the table of keys are committed; `BLESS=1` writes them.

use gaffer_config::{reference_markdown, schema_json};
use std::path::{Path, PathBuf};

fn compare(path: &str, text: &str) {
    let place: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, text).unwrap();
    }
    let committed = std::fs::read_to_string(&place).unwrap_or_default();
    assert!(committed == text, "{path} is not as generated: cargo xtask gen");
}

#[test]
fn the_schema_is_committed() {
    compare("schema/gaffer.schema.json", &schema_json());
}

#[test]
fn the_reference_is_committed() {
    compare("docs/config.md", &reference_markdown());
}

#[test]
fn the_schema_knows_what_is_supported_only() {
    let schema: serde_json::Value = serde_json::from_str(&schema_json()).unwrap();
    let job = &schema["$defs"]["job"]["properties"];
    assert!(job["cmd"].is_object() && job["stop"]["anyOf"][1]["properties"]["timeout"].is_object());
    assert!(job["secrets"].is_null() && job["timeout"].is_null());
    assert!(schema["$defs"]["defaults"]["properties"]["instances"].is_null());
    assert!(schema["$defs"]["defaults"]["properties"]["job"]["properties"]["instances"].is_object());
    assert!(schema["properties"]["task"].is_object() && schema["properties"]["schedule"].is_object());
    assert!(schema["properties"]["socket"].is_null());
    assert!(schema["$defs"]["step"]["properties"]["outputs"].is_object());
}
