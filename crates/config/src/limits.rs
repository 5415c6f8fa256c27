//! `limits`: limits of all processes of a run together.

use crate::kind::percent;
use crate::node::{Item, Node, Table};
use crate::units::parse_size;
use gaffer_core::job::{Amount, Limits};

/// What a table says that was checked; none if that is no limit.
pub(crate) fn limits(table: &Table) -> Option<Limits> {
    let text = |key| table.get(key).and_then(Node::as_str);
    let limits = Limits {
        memory: text("memory").and_then(amount),
        memory_high: text("memory_high").and_then(amount),
        memory_low: text("memory_low").and_then(amount),
        swap: text("swap").and_then(amount),
        cpu: text("cpu").and_then(percent),
        cpu_weight: number(table, "cpu_weight"),
        io_weight: number(table, "io_weight"),
        pids: number(table, "pids"),
        cpus: text("cpus").map(str::to_owned),
        mems: text("mems").map(str::to_owned),
        io: table.get("io").map(Node::texts).map_or_else(Vec::new, |lines| {
            lines.into_iter().map(|(line, _)| line.to_owned()).collect()
        }),
        one_process: text("oom") == Some("process"),
        required: text("enforce") == Some("require"),
    };
    let about = Limits {
        one_process: limits.one_process,
        required: limits.required,
        ..Limits::default()
    };
    (limits != about).then_some(limits)
}

fn amount(text: &str) -> Option<Amount> {
    match percent(text) {
        Some(share) => Some(Amount::Percent(share)),
        None => parse_size(text).ok().map(Amount::Bytes),
    }
}

fn number(table: &Table, key: &str) -> Option<u32> {
    match table.get(key)?.item {
        Item::Int(number) => u32::try_from(number).ok(),
        _ => None,
    }
}
