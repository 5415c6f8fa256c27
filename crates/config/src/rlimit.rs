//! `rlimits`: limits of a process by name, one number or `"SOFT:HARD"`.

use crate::kind::{Problem, Read, problem};
use crate::node::{Item, Node};
use crate::units::{UnitError, parse_duration, parse_size};

/// What is counted.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Count,
    Bytes,
    Seconds,
    Micros,
}

/// Name in the file, number of the kernel (the same on x86-64 and aarch64), unit.
const RLIMITS: &[(&str, u32, Unit)] = &[
    ("cpu", 0, Unit::Seconds),
    ("fsize", 1, Unit::Bytes),
    ("data", 2, Unit::Bytes),
    ("stack", 3, Unit::Bytes),
    ("core", 4, Unit::Bytes),
    ("rss", 5, Unit::Bytes),
    ("nproc", 6, Unit::Count),
    ("nofile", 7, Unit::Count),
    ("memlock", 8, Unit::Bytes),
    ("as", 9, Unit::Bytes),
    ("locks", 10, Unit::Count),
    ("sigpending", 11, Unit::Count),
    ("msgqueue", 12, Unit::Bytes),
    ("nice", 13, Unit::Count),
    ("rtprio", 14, Unit::Count),
    ("rttime", 15, Unit::Micros),
];

/// Name of a limit, for exports.
pub(crate) fn name(number: u32) -> Option<&'static str> {
    RLIMITS
        .iter()
        .find(|(_, known, _)| *known == number)
        .map(|(name, ..)| *name)
}

/// `(number, soft, hard)`, by number; `u64::MAX` is unlimited.
pub(crate) fn rlimits(node: &Node) -> Read<Vec<(u32, u64, u64)>> {
    let Some(table) = node.as_table() else {
        return problem(
            node,
            format!("is a table, not {}", node.kind()),
            "write rlimits.nofile = 4096",
        );
    };
    let mut limits = Vec::new();
    for (key, entry) in table.in_order() {
        let Some(&(name, number, unit)) = RLIMITS.iter().find(|(name, ..)| *name == key) else {
            let near = crate::suggest::nearest(key, RLIMITS.iter().map(|(name, ..)| *name));
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => RLIMITS
                    .iter()
                    .map(|(name, ..)| *name)
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            return Err(Problem {
                says: format!("has no limit named `{key}`"),
                help,
                span: entry.key,
            });
        };
        let (soft, hard) = both(&entry.node, name, unit)?;
        if soft > hard {
            let says = format!("has a soft limit above the hard one for `{name}`");
            return problem(&entry.node, says, "write \"SOFT:HARD\"");
        }
        limits.push((number, soft, hard));
    }
    limits.sort_unstable();
    Ok(limits)
}

fn both(node: &Node, name: &str, unit: Unit) -> Read<(u64, u64)> {
    match &node.item {
        Item::Int(value) => {
            let value = one(node, name, unit, &value.to_string())?;
            Ok((value, value))
        }
        Item::Str(text) => match text.split_once(':') {
            Some((soft, hard)) => Ok((one(node, name, unit, soft)?, one(node, name, unit, hard)?)),
            None => {
                let value = one(node, name, unit, text)?;
                Ok((value, value))
            }
        },
        _ => problem(
            node,
            format!(
                "takes numbers, sizes and \"unlimited\": `{name}` is {}",
                node.kind()
            ),
            "",
        ),
    }
}

fn one(node: &Node, name: &str, unit: Unit, text: &str) -> Read<u64> {
    let text = text.trim();
    if text == "unlimited" {
        return Ok(u64::MAX);
    }
    let millis = |text| parse_duration(text).map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let (read, example) = match unit {
        Unit::Count => (text.parse().map_err(|_| UnitError::NoNumber), "4096"),
        // Zero needs no unit.
        Unit::Bytes if text == "0" => (Ok(0), ""),
        Unit::Bytes => (parse_size(text), "\"64M\""),
        Unit::Seconds => (millis(text).map(|millis| millis.div_ceil(1_000)), "\"30s\""),
        Unit::Micros => (
            millis(text).map(|millis| millis.saturating_mul(1_000)),
            "\"500ms\"",
        ),
    };
    read.or_else(|error| {
        let says = match error {
            UnitError::NoUnit => format!("needs a unit for `{name}`"),
            UnitError::Negative => format!("must not be negative for `{name}`"),
            _ => format!("cannot have {text:?} for `{name}`"),
        };
        problem(
            node,
            says,
            format!("write {example}, \"SOFT:HARD\" or \"unlimited\""),
        )
    })
}
