//! Nodes that a user has named: `[node.X]` of the user's own file, `config.toml`.
//!
//! A person edits that file too, so adding appends and removing takes out lines: everything else stays as it was
//! written. What comes out is read again before anybody is given it.

use crate::check::Checked;
use crate::diagnostic::Diagnostics;
use crate::diff::{quoted_key, toml_value};
use crate::keys::NODE;
use crate::node::Node;
use crate::report::Report;
use crate::toml_text;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A node of the user's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserNode {
    /// `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`.
    pub url: String,
    /// File with the token that this node takes.
    pub token_file: Option<PathBuf>,
    /// Labels to choose it by; what is not said here, the node itself says.
    pub labels: BTreeMap<String, String>,
}

/// Nodes by their names.
pub type UserNodes = BTreeMap<String, UserNode>;

/// Reads the user's file.
pub fn user_nodes(path: &Path, text: &str) -> Result<UserNodes, Diagnostics> {
    let mut report = Report::new(path.parent().unwrap_or(Path::new("/")));
    let file = report.add_file(path, text);
    let nodes = read(text, file, path, &mut report);
    let failed = report.has_errors();
    match nodes.filter(|_| !failed) {
        Some(nodes) => Ok(nodes),
        None => Err(report.finish()),
    }
}

fn read(text: &str, file: u32, path: &Path, report: &mut Report) -> Option<UserNodes> {
    let table = toml_text::parse(text, file, report)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    // Logins are in it, too: who shows their keys reads them.
    let others = table.iter().filter(|(key, _)| *key != "node" && *key != "login");
    for (key, entry) in others {
        let message = format!("there is no `{key}` in this file");
        report.error(entry.key, key, message, "it has [node.X] and [login.X] only");
    }
    let mut nodes = UserNodes::new();
    let Some(all) = table.get("node") else {
        return Some(nodes);
    };
    let Some(all) = all.as_table() else {
        report.error(all.span, "node", "`node` is no table", "[node.alpha]");
        return None;
    };
    for (name, entry) in all.iter() {
        let place = format!("node.{name}");
        if !is_node_name(name) {
            let message = format!("`{}` is no name of a node", name.escape_debug());
            report.error(entry.key, &place, message, "letters, digits, `.`, `-` and `_`");
        }
        let Some(one) = entry.node.as_table() else {
            let message = format!("`{place}` is no table");
            report.error(entry.node.span, &place, message, "[node.alpha]");
            continue;
        };
        Checked {
            keys: NODE,
            path: &place,
            what: "a node",
            without: None,
            written: false,
        }
        .check(one, report);
        let word = |key: &str| one.get(key).and_then(Node::as_str);
        if word("url").is_none_or(str::is_empty) {
            let span = one.get("url").map_or(entry.key, |node: &Node| node.span);
            report.error(
                span,
                &place,
                "a node needs a `url`",
                "url = \"http://10.0.1.1:5000\"",
            );
        }
        let labels = one
            .get_table("labels")
            .into_iter()
            .flat_map(|labels| labels.iter());
        let labels =
            labels.filter_map(|(key, entry)| Some((key.to_owned(), entry.node.as_str()?.to_owned())));
        let node = UserNode {
            url: word("url").unwrap_or_default().to_owned(),
            token_file: word("token_file").map(|path| folder.join(path)),
            labels: labels.collect(),
        };
        nodes.insert(name.to_owned(), node);
    }
    Some(nodes)
}

/// Letters, digits, `.`, `-`, `_`: what a name of a node in this file is made of.
pub fn is_node_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

/// The file with one more node.
pub fn with_node(text: &str, name: &str, node: &UserNode) -> String {
    let value = |text: &str| toml_value(&Value::from(text));
    let mut text = text.to_owned();
    if !text.is_empty() {
        text.push_str(if text.ends_with('\n') { "\n" } else { "\n\n" });
    }
    text.push_str(&format!(
        "[node.{}]\nurl = {}\n",
        quoted_key(name),
        value(&node.url)
    ));
    if let Some(path) = &node.token_file {
        text.push_str(&format!("token_file = {}\n", value(&path.to_string_lossy())));
    }
    if !node.labels.is_empty() {
        let labels: Vec<String> = node
            .labels
            .iter()
            .map(|(key, label)| format!("{} = {}", quoted_key(key), value(label)))
            .collect();
        text.push_str(&format!("labels = {{ {} }}\n", labels.join(", ")));
    }
    text
}

/// The file without the tables of this node; none: it is written in a way that only its author should edit.
pub fn without_node(path: &Path, text: &str, name: &str) -> Option<String> {
    let mut wanted = user_nodes(path, text).ok()?;
    wanted.remove(name)?;
    let own = [quoted_key(name), format!("\"{name}\"")];
    let is_own = |line: &str| {
        own.iter().any(|key| {
            line.strip_prefix(&format!("[node.{key}"))
                .is_some_and(|rest| rest.starts_with(']') || rest.starts_with('.'))
        })
    };
    let (mut left, mut inside) = (String::new(), false);
    for line in text.split_inclusive('\n') {
        let start = line.trim_start();
        if start.starts_with('[') {
            inside = is_own(start);
        }
        if !inside {
            left.push_str(line);
        }
    }
    (user_nodes(path, &left) == Ok(wanted)).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/c/config.toml";

    fn nodes(text: &str) -> Result<UserNodes, String> {
        user_nodes(Path::new(PATH), text).map_err(|error| error.render(false))
    }

    fn alpha() -> UserNode {
        UserNode {
            url: "http://a:5000".to_owned(),
            token_file: Some("/c/token".into()),
            labels: [("zone".to_owned(), "eu".to_owned())].into(),
        }
    }

    #[test]
    fn what_is_added_is_read_again_and_can_be_taken_out() {
        let before = "# mine\n[node.beta]\nurl = \"unix:/b\" # here\n";
        let text = with_node(before, "a.lpha", &alpha());
        let read = nodes(&text).expect("good");
        assert_eq!(read.get("a.lpha"), Some(&alpha()));
        assert_eq!(read.len(), 2);
        let path = Path::new(PATH);
        let left = without_node(path, &text, "a.lpha").expect("removed");
        assert_eq!(left.trim_end(), before.trim_end());
        assert_eq!(without_node(path, &text, "gamma"), None);
        assert_eq!(
            without_node(path, "node.x = { url = \"unix:/x\" }", "x"),
            None,
            "not ours to edit"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            ("[node.x]\n", "needs a `url`"),
            ("[node.x]\nurl = \"a\"\ntoken = \"b\"", "token"),
            ("[job.x]\ncmd = \"x\"", "there is no `job`"),
            ("[node.\"a b\"]\nurl = \"a\"", "no name of a node"),
        ] {
            let error = nodes(text).expect_err(text);
            assert!(error.contains(wanted), "{error}");
        }
    }
}
