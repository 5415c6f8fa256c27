//! One level of a definition laid over another.

use crate::node::{Entry, Item, Node, Table};

/// Kinds of probes: a later one replaces an inherited one of another kind.
const PROBES: &[&str] = &["http", "tcp", "cmd", "log", "notify", "after", "heartbeat"];

/// Lays a level over: as any table, but a probe of one kind replaces a probe of another.
pub(crate) fn overlay_job(table: &mut Table, level: &Table) {
    // Half of one schema and half of another is none.
    if level.get("schema").is_some() {
        table.remove("schema");
    }
    for key in ["ready", "health"] {
        let Some(new) = level.get_table(key) else { continue };
        if !new.iter().any(|(name, _)| PROBES.contains(&name)) {
            continue;
        }
        if let Some(Entry {
            node: Node {
                item: Item::Table(old),
                ..
            },
            ..
        }) = table.0.get_mut(key)
        {
            old.0
                .retain(|name, _| !PROBES.contains(&name.as_str()) && name != "shell");
        }
    }
    table.overlay(level);
}
