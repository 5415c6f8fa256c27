//! `plugin.toml`: the manifest of a plugin with a program.

use crate::check::Checked;
use crate::diagnostic::Diagnostics;
use crate::keys::PLUGIN;
use crate::node::{Node, Span};
use crate::report::Report;
use crate::toml_text;
use gaffer_core::name::Name;
use serde_json::Value;
use std::path::Path;

/// A manifest, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginManifest {
    /// Of the plugin: the name of its folder.
    pub name: String,
    /// Free text.
    pub version: String,
    /// Free text.
    pub description: String,
    /// Plugins that must be there.
    pub requires: Vec<String>,
    /// What runs, as `cmd` of a job; none: it has pages only.
    pub command: Option<Value>,
    /// Patterns of the events it is sent.
    pub events: Vec<String>,
    /// `read operate admin`: what its token allows.
    pub scope: String,
    /// On which jobs.
    pub jobs: Vec<String>,
}

/// Reads the manifest of the plugin in a folder of that name.
pub fn plugin_manifest(path: &Path, text: &str, folder: &str) -> Result<PluginManifest, Diagnostics> {
    let mut report = Report::new(path.parent().unwrap_or(Path::new("/")));
    let file = report.add_file(path, text);
    let manifest = read(text, file, folder, &mut report);
    let failed = report.has_errors();
    match manifest.filter(|_| !failed) {
        Some(manifest) => Ok(manifest),
        None => Err(report.finish()),
    }
}

fn read(text: &str, file: u32, folder: &str, report: &mut Report) -> Option<PluginManifest> {
    let table = toml_text::parse(text, file, report)?;
    let start = Span::new(file, 0..0);
    Checked {
        keys: PLUGIN,
        path: "",
        what: "a plugin",
        without: None,
        written: false,
    }
    .check(&table, report);
    let word = |key: &str| {
        table
            .get(key)
            .and_then(Node::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let texts = |key: &str| table.get(key).map(Node::texts).unwrap_or_default();
    match table.get("name") {
        None => report.error(
            start,
            "name",
            "a plugin needs a `name`",
            &format!("name = \"{folder}\""),
        ),
        Some(node) if node.as_str() != Some(folder) => {
            let message = format!("`name` is not that of the folder, `{folder}`");
            report.error(node.span, "name", message, "rename one of them");
        }
        Some(_) => {}
    }
    for (name, span) in texts("requires") {
        if let Err(error) = Name::parse(name) {
            report.error(span, "requires", error.to_string(), "names of plugins");
        }
    }
    for (event, span) in texts("events") {
        let word = |part: &str| {
            part == "*" || (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase()))
        };
        if !event.split('.').all(word) {
            let message = format!("`events` has {event:?}, which is no pattern of events");
            report.error(span, "events", message, "run.exited, run.*, or *");
        }
    }
    let owned =
        |key: &str| -> Vec<String> { texts(key).into_iter().map(|(text, _)| text.to_owned()).collect() };
    let (events, jobs, scope) = (owned("events"), owned("for"), word("scope"));
    Some(PluginManifest {
        name: folder.to_owned(),
        version: word("version"),
        description: word("description"),
        requires: owned("requires"),
        command: table.get("command").map(Node::to_json),
        events: match events.is_empty() {
            true => vec!["*".to_owned()],
            false => events,
        },
        scope: match scope.is_empty() {
            true => "read".to_owned(),
            false => scope,
        },
        jobs: match jobs.is_empty() {
            true => vec!["*".to_owned()],
            false => jobs,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Result<PluginManifest, String> {
        plugin_manifest(Path::new("/p/x/plugin.toml"), text, "x").map_err(|error| error.render(false))
    }

    #[test]
    fn a_manifest_has_a_name_and_may_have_a_command() {
        let read = manifest("name = \"x\"\ncommand = [\"./x\"]\nrequires = [\"y\"]\n").expect("good");
        assert_eq!(
            (read.requires, read.events),
            (vec!["y".to_owned()], vec!["*".to_owned()])
        );
        for (text, wanted) in [
            ("", "needs a `name`"),
            ("name = \"z\"", "not that of the folder"),
            ("name = \"x\"\nmandatory = [\"y\"]", "use `requires`"),
            ("name = \"x\"\nevents = [\"Run\"]", "no pattern of events"),
        ] {
            let error = manifest(text).expect_err(text);
            assert!(error.contains(wanted), "{error}");
        }
    }
}
