//! TOML text to nodes, with the place of every key and value.

use crate::node::{Entry, Item, Node, Span, Table};
use crate::report::Report;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Depth of tables and lists beyond which a file is refused instead of exhausting the stack.
const DEPTH_MAX: usize = 64;

/// The tree of a file. Mistakes of syntax go to the report; then there is none.
pub(crate) fn parse(text: &str, file: u32, report: &mut Report) -> Option<Table> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(convert_table(table.into_inner(), file, 0));
    }
    let mut last: Option<usize> = None;
    for error in &errors {
        let range = error.span().unwrap_or(0..0);
        let line = text
            .get(..range.start)
            .map_or(0, |before| before.matches('\n').count());
        // What follows at once is mostly a consequence.
        if last.is_some_and(|last| line <= last + 1) {
            last = Some(line);
            continue;
        }
        last = Some(line);
        let message = error.message().lines().next().unwrap_or("this is not TOML");
        let at = Span::new(file, range);
        report.error(
            at,
            "",
            format!("this is not TOML: {message}"),
            &repair(text, at, message),
        );
    }
    None
}

/// What people of other formats write.
fn repair(text: &str, at: Span, message: &str) -> String {
    let line_start = text
        .get(..at.start as usize)
        .map_or(0, |before| before.rfind('\n').map_or(0, |i| i + 1));
    let line = text
        .get(line_start..)
        .unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default()
        .trim();
    if message.contains("duplicate key") {
        return "it stands there already; each key once".to_owned();
    }
    if let Some((key, value)) = line.split_once('=') {
        let (key, value) = (key.trim(), value.trim());
        let bare = value.starts_with(|c: char| c.is_ascii_alphabetic() || "/.~$".contains(c));
        if bare && !value.contains(['"', '\'']) && !["true", "false"].contains(&value) {
            return format!("a text needs quotes: {key} = \"{value}\"");
        }
    } else if let Some((key, value)) = line.split_once(':')
        && !line.starts_with('[')
    {
        return format!(
            "TOML writes {} = \"{}\"",
            key.trim(),
            value.trim().replace('"', "'")
        );
    }
    String::new()
}

fn convert_table(table: DeTable<'_>, file: u32, depth: usize) -> Table {
    let entries = table.into_iter().map(|(key, value)| {
        let key_span = Span::new(file, key.span());
        let node = convert(value, file, depth + 1);
        (key.into_inner().into_owned(), Entry { key: key_span, node })
    });
    Table(entries.collect())
}

fn convert(value: Spanned<DeValue<'_>>, file: u32, depth: usize) -> Node {
    let span = Span::new(file, value.span());
    if depth > DEPTH_MAX {
        return Node::new(Item::Other("nested too deeply"), span);
    }
    let item = match value.into_inner() {
        DeValue::String(text) => Item::Str(text.into_owned()),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            match i64::from_str_radix(&digits, number.radix()) {
                Ok(number) => Item::Int(number),
                Err(_) => Item::Other("a number that is too large"),
            }
        }
        DeValue::Float(number) => match number.as_str().replace('_', "").parse::<f64>() {
            Ok(number) if number.is_finite() => Item::Float(number),
            _ => Item::Other("not a finite number"),
        },
        DeValue::Boolean(value) => Item::Bool(value),
        DeValue::Datetime(_) => Item::Other("a date"),
        DeValue::Array(list) => Item::List(
            list.into_iter()
                .map(|one| convert(one, file, depth + 1))
                .collect(),
        ),
        DeValue::Table(table) => Item::Table(convert_table(table, file, depth)),
    };
    Node { item, span }
}
