//! JSON job files of the original: one job object, or `{"jobs": […]}`.

use crate::json_text;
use crate::legacy::{Dialect, Jobs, is_property};
use crate::node::{Item, Node, Span, Table};
use crate::report::Report;
use crate::{Diagnostic, Diagnostics};
use serde_json::Value;
use std::path::Path;

/// The file in the shape of a `gaffer.toml`.
pub(crate) fn tree(text: &str, file: u32, report: &mut Report) -> Option<Table> {
    let node = json_text::parse(text, file, report)?;
    let span = node.span;
    let mut jobs = Jobs::new(Dialect::Json);
    match node.item {
        Item::Table(mut table) => match table.remove("jobs") {
            Some(list) => {
                let Some(objects) = list.as_list() else {
                    report.error(list.span, "jobs", "`jobs` is a list of jobs", "");
                    return None;
                };
                for one in objects {
                    match one.as_table() {
                        Some(job) => jobs.add_object(job, one.span, report),
                        None => report.error(
                            one.span,
                            "jobs",
                            format!("a job is an object, not {}", one.kind()),
                            "",
                        ),
                    }
                }
                if let Some((key, entry)) = table.iter().next() {
                    report.error(entry.key, key, format!("unknown key `{key}` beside `jobs`"), "");
                }
            }
            None => jobs.add_object(&table, span, report),
        },
        Item::List(list) => {
            for one in &list {
                match one.as_table() {
                    Some(job) => jobs.add_object(job, one.span, report),
                    None => report.error(
                        one.span,
                        "jobs",
                        format!("a job is an object, not {}", one.kind()),
                        "",
                    ),
                }
            }
        }
        _ => {
            report.error(span, "", "a job file is an object, or {\"jobs\": […]}", "");
            return None;
        }
    }
    Some(jobs.into_tree(span))
}

/// A job object of the original's API in the keys of `[job.X]`, as [`crate::load_job_json`] takes them.
///
/// What the original did where its API says nothing is made explicit: a stream that `redirect_output` does not list is
/// discarded, and a job that ended is started again after a short, constant pause. Members without a meaning are left out.
pub fn legacy_job(name: &str, object: &Value) -> Result<Value, Diagnostics> {
    let mut report = Report::new(Path::new("/"));
    let Item::Table(mut table) = Node::from_json(object).item else {
        return Err(Diagnostic::error("a job is an object").into());
    };
    table.0.retain(|key, _| is_property(key));
    for key in ["name", "session"] {
        table.remove(key);
    }
    check_kinds(&table, &mut report);
    let labels = table.get("redirect_output").map_or(0, |node| node.texts().len());
    table.put("name", Node::str(name, Span::NONE));
    let mut jobs = Jobs::new(Dialect::Json);
    jobs.add_object(&table, Span::NONE, &mut report);
    let tree = jobs.into_tree(Span::NONE);
    let job = tree
        .get_table("job")
        .and_then(|jobs| jobs.iter().next())
        .map(|(_, entry)| entry.node.to_json());
    let (false, Some(Value::Object(mut job))) = (report.has_errors(), job) else {
        return Err(report.finish());
    };
    job.remove("session");
    if let Some(logs) = job
        .entry("logs")
        .or_insert_with(|| Value::Object(Default::default()))
        .as_object_mut()
    {
        for (number, stream) in ["stdout", "stderr"].into_iter().enumerate() {
            if labels <= number && !logs.contains_key(stream) {
                logs.insert(stream.to_owned(), "null".into());
            }
        }
    }
    if !job.contains_key("retry") {
        let retry = serde_json::json!({ "delay": RESPAWN_PAUSE, "factor": 1, "jitter": 0 });
        job.insert("retry".to_owned(), retry);
    }
    Ok(Value::Object(job))
}

/// The original started again at once, and spun; its clients expect the next process within 0.2 s.
const RESPAWN_PAUSE: &str = "20ms";

/// Kinds that the reader of files takes as they come.
fn check_kinds(table: &Table, report: &mut Report) {
    let mut wrong = |key: &str, what: &str| {
        report.error(Span::NONE, key, format!("`{key}` is {what}"), "");
    };
    for key in ["redirect_output", "custom_streams"] {
        let texts = |node: &Node| match &node.item {
            Item::List(list) => list.iter().all(|one| one.as_str().is_some()),
            Item::Str(_) | Item::Other("null") => true,
            _ => false,
        };
        if table.get(key).is_some_and(|node| !texts(node)) {
            wrong(key, "a list of labels");
        }
    }
    let count = |node: &Node| matches!(&node.item, Item::Int(0..) | Item::Other("null"));
    if table.get("numprocesses").is_some_and(|node| !count(node)) {
        wrong("numprocesses", "a number, at least 0");
    }
}
