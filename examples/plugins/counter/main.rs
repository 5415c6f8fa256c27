//! A plugin in Rust: counts events by their names and prints the count of each as it grows.
//!
//! Build it with `cargo build --example plugin-counter`, and put it beside its `plugin.toml`.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::BufRead;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for line in std::io::stdin().lock().lines() {
        let event: Value = serde_json::from_str(&line?)?;
        let name = event["event"].as_str().unwrap_or_default().to_owned();
        let count = counts.entry(name.clone()).or_default();
        *count += 1;
        println!("{name} {count}");
    }
    Ok(())
}
