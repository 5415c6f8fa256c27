//! The syntax of ini files, as Python's `ConfigParser` reads them, with places.

use crate::node::{Entry, Node, Span, Table};
use crate::report::Report;
use std::collections::{BTreeMap, BTreeSet};

/// A section; values are texts, interpolated, with what `[DEFAULT]` gives.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub name: String,
    pub span: Span,
    pub table: Table,
    /// Keys that come from `[DEFAULT]`: there for `%(key)s`, perhaps not meant for this section.
    pub inherited: BTreeSet<String>,
}

/// References of references of ….
const INTERPOLATION_DEPTH_MAX: usize = 10;
/// Longest value after interpolation.
const VALUE_MAX: usize = 1 << 20;

/// Sections in the order of the file. Mistakes go to the report.
pub(crate) fn parse(text: &str, file: u32, report: &mut Report) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut index: BTreeMap<String, usize> = BTreeMap::new();
    let mut key: Option<String> = None;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let start = offset;
        offset += line.len();
        let content = line.trim_end();
        let trimmed = content.trim_start();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        let indent = content.len() - trimmed.len();
        let span = Span::new(file, start + indent..start + content.len());
        if indent > 0
            && let (Some(key), Some(section)) = (&key, sections.last_mut())
        {
            continue_value(section, key, trimmed, span);
            continue;
        }
        if let Some(rest) = trimmed.strip_prefix('[') {
            key = None;
            let Some(end) = rest.find(']') else {
                report.error(span, "", "a section is not closed", "write [name]");
                continue;
            };
            let name = rest[..end].trim().to_owned();
            if let Some(&first) = index.get(&name) {
                let help = format!("first in {}", report.place(sections[first].span));
                report.error(span, "", format!("section [{name}] comes twice"), &help);
            }
            index.insert(name.clone(), sections.len());
            sections.push(Section {
                name,
                span,
                table: Table::default(),
                inherited: BTreeSet::new(),
            });
            continue;
        }
        key = None;
        let Some(section) = sections.last_mut() else {
            report.error(
                span,
                "",
                "a key stands before the first section",
                "write [gaffer] or [job:NAME] above it",
            );
            continue;
        };
        let Some(at) = trimmed.find(['=', ':']) else {
            report.error(
                span,
                "",
                "this line has neither `=` nor `:`",
                "write key = value; an indented line continues a value",
            );
            continue;
        };
        key = entry(section, trimmed, at, start + indent, file, report);
    }
    finish(sections, report)
}

fn entry(
    section: &mut Section,
    line: &str,
    at: usize,
    start: usize,
    file: u32,
    report: &mut Report,
) -> Option<String> {
    let name = match section.name.as_str() {
        // Events there name jobs, whose case counts.
        "webhooks" => line[..at].trim().to_owned(),
        _ => line[..at].trim().to_lowercase(),
    };
    let value = line[at + 1..].trim();
    let key_span = Span::new(file, start..start + line[..at].trim_end().len());
    if name.is_empty() {
        report.error(
            Span::new(file, start..start + line.len()),
            "",
            "there is no key before the sign",
            "",
        );
        return None;
    }
    let value_start = start + line.len() - line[at + 1..].trim_start().len();
    let value_span = Span::new(file, value_start..value_start + value.len());
    // `env:NAME = value` inside of a job: the key ends at the colon.
    if name == "env" && line.as_bytes()[at] == b':' && section.name.contains(':') {
        if let Some((variable, value)) = value.split_once('=') {
            let variable = variable.trim().to_uppercase();
            let node = Node::str(value.trim(), value_span);
            let env = section.table.0.entry("env".to_owned()).or_insert_with(|| Entry {
                key: key_span,
                node: Node::table(Table::default(), key_span),
            });
            if let crate::node::Item::Table(env) = &mut env.node.item {
                env.0.insert(variable, Entry { key: key_span, node });
            }
        }
        return None;
    }
    if let Some(first) = section.table.0.get(&name) {
        let help = format!("first in {}", report.place(first.key));
        report.error(
            key_span,
            "",
            format!("`{name}` comes twice in [{}]", section.name),
            &help,
        );
        return None;
    }
    section.table.0.insert(
        name.clone(),
        Entry {
            key: key_span,
            node: Node::str(value, value_span),
        },
    );
    Some(name)
}

fn continue_value(section: &mut Section, key: &str, more: &str, span: Span) {
    if let Some(Entry { node, .. }) = section.table.0.get_mut(key)
        && let crate::node::Item::Str(text) = &mut node.item
    {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(more);
        node.span.end = span.end;
    }
}

/// `[DEFAULT]` and `%`.
fn finish(mut sections: Vec<Section>, report: &mut Report) -> Vec<Section> {
    let mut defaults = Table::default();
    sections.retain(|section| {
        let is_default = section.name == "DEFAULT";
        if is_default {
            defaults.overlay(&section.table);
        }
        !is_default
    });
    for section in &mut sections {
        let mut all = defaults.clone();
        all.overlay(&section.table);
        let raw = all.clone();
        for (name, entry) in &mut all.0 {
            if let crate::node::Item::Str(text) = &mut entry.node.item
                && text.contains('%')
            {
                match interpolate(text, &raw, 0) {
                    Ok(value) => *text = value,
                    Err(why) => report.error(
                        entry.node.span,
                        name,
                        format!("{why} in `{name}`"),
                        "a percent sign is written %%",
                    ),
                }
            }
        }
        let own = std::mem::replace(&mut section.table, all);
        section.inherited = section
            .table
            .0
            .keys()
            .filter(|key| own.get(key).is_none())
            .cloned()
            .collect();
    }
    sections
}

fn interpolate(text: &str, raw: &Table, depth: usize) -> Result<String, String> {
    if depth > INTERPOLATION_DEPTH_MAX {
        return Err("references go in a circle".to_owned());
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(next) = after.strip_prefix('%') {
            out.push('%');
            rest = next;
        } else if let Some(inside) = after.strip_prefix('(') {
            let end = inside.find(")s").ok_or("`%(` is not closed by `)s`")?;
            let name = inside[..end].to_lowercase();
            let value = raw
                .get(&name)
                .and_then(Node::as_str)
                .ok_or_else(|| format!("`%({name})s` names no key of the section"))?;
            out.push_str(&interpolate(value, raw, depth + 1)?);
            rest = &inside[end + 2..];
        } else {
            return Err("a lone `%`".to_owned());
        }
        if out.len() > VALUE_MAX {
            return Err("a value longer than 1M".to_owned());
        }
    }
    out.push_str(rest);
    Ok(out)
}
