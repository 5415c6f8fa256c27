//! JSON job files of the original: one job object, or `{"jobs": […]}`.

use crate::json_text;
use crate::legacy::{Dialect, Jobs};
use crate::node::{Item, Table};
use crate::report::Report;

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
