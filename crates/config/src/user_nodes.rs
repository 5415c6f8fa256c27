//! Nodes that a user has named: `[node.X]` of a `gaffer.toml`, or of the user's own file, `config.toml`.
//!
//! A person edits the own file too, so adding appends and removing takes out lines: everything else stays as it was
//! written. What comes out is read again before anybody is given it.

use crate::check::Checked;
use crate::diagnostic::Diagnostics;
use crate::diff::{quoted_key, toml_value};
use crate::keys::NODE;
use crate::kind;
use crate::node::{Node, Span, Table};
use crate::report::Report;
use crate::toml_text;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A node that a file names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserNode {
    /// `http://HOST:PORT`, `https://HOST:PORT`, `unix:PATH` or `ssh://USER@HOST:PORT/SOCKET`.
    pub url: String,
    /// File with the token that this node takes.
    pub token_file: Option<PathBuf>,
    /// PEM file of the authorities that its certificate is of; none: those of the system.
    pub ca: Option<PathBuf>,
    /// Labels to choose it by; what is not said here, the node itself says.
    pub labels: BTreeMap<String, String>,
}

/// Nodes by their names.
pub type UserNodes = BTreeMap<String, UserNode>;

/// Reads the user's file.
pub fn user_nodes(path: &Path, text: &str) -> Result<UserNodes, Diagnostics> {
    let mut report = Report::new(path.parent().unwrap_or(Path::new("/")));
    let file = report.add_file(path, text);
    let nodes = read(text, file, &mut report);
    let failed = report.has_errors();
    match nodes.filter(|_| !failed) {
        Some(nodes) => Ok(nodes),
        None => Err(report.finish()),
    }
}

/// `[node.X]` of a `gaffer.toml`, without a look at the rest of it: nodes can be asked also while that has errors.
pub fn project_nodes(path: &Path, text: &str) -> Result<UserNodes, Diagnostics> {
    let mut report = Report::new(path.parent().unwrap_or(Path::new("/")));
    let file = report.add_file(path, text);
    let nodes = toml_text::parse(text, file, &mut report).map(|table| tables(&table, &mut report));
    let failed = report.has_errors();
    nodes.filter(|_| !failed).ok_or_else(|| report.finish())
}

fn read(text: &str, file: u32, report: &mut Report) -> Option<UserNodes> {
    let table = toml_text::parse(text, file, report)?;
    // Logins are in it, too: who shows their keys reads them.
    let others = table.iter().filter(|(key, _)| *key != "node" && *key != "login");
    for (key, entry) in others {
        let message = format!("there is no `{key}` in this file");
        report.error(entry.key, key, message, "it has [node.X] and [login.X] only");
    }
    Some(tables(&table, report))
}

fn tables(table: &Table, report: &mut Report) -> UserNodes {
    let mut nodes = UserNodes::new();
    let Some(all) = table.get("node") else {
        return nodes;
    };
    let Some(all) = all.as_table() else {
        report.error(all.span, "node", "`node` is no table", "[node.alpha]");
        return nodes;
    };
    for (name, entry) in all.iter() {
        let place = format!("node.{name}");
        let Some(table) = entry.node.as_table() else {
            let message = format!("`{place}` is no table");
            report.error(entry.node.span, &place, message, "[node.alpha]");
            continue;
        };
        check_keys(table, &format!("{place}."), report);
        if let Some(node) = resolve(name, table, entry.key, report) {
            nodes.insert(name.to_owned(), node);
        }
    }
    nodes
}

fn check_keys(table: &Table, path: &str, report: &mut Report) {
    Checked {
        keys: NODE,
        path,
        what: "a node",
        without: None,
        written: false,
    }
    .check(table, report);
}

/// Known keys with values of the right kind.
pub(crate) fn check(table: &mut Table, path: &str, name: &str, report: &mut Report) {
    check_keys(table, &format!("{path}node.{name}."), report);
}

/// Gives a checked table its meaning.
pub(crate) fn resolve(name: &str, table: &Table, span: Span, report: &mut Report) -> Option<UserNode> {
    let place = format!("node.{name}");
    if !is_node_name(name) {
        let message = format!("`{}` is no name of a node", name.escape_debug());
        report.error(span, &place, message, "letters, digits, `.`, `-` and `_`");
        return None;
    }
    let word = |key: &str| table.get(key).and_then(Node::as_str);
    let url = word("url").unwrap_or_default();
    let url_span = table.get("url").map_or(span, |node: &Node| node.span);
    if url.is_empty() {
        report.error(
            url_span,
            &place,
            "a node needs a `url`",
            "url = \"https://10.0.1.1:5000\"",
        );
        return None;
    }
    if word("token_file").is_some() && is_in_clear(url) {
        let message = "`token_file` would be shown to everybody on the way to this `url`";
        let help = "write https:// (a token goes in clear to this machine only)";
        report.error(url_span, &format!("{place}.url"), message, help);
        return None;
    }
    let labels = table.get_table("labels").into_iter().flat_map(Table::iter);
    let labels = labels.filter_map(|(key, entry)| Some((key.to_owned(), kind::scalar(&entry.node)?)));
    Some(UserNode {
        url: url.to_owned(),
        token_file: file(table, "token_file", report),
        ca: file(table, "ca", report),
        labels: labels.collect(),
    })
}

fn file(table: &Table, key: &str, report: &Report) -> Option<PathBuf> {
    let node = table.get(key)?;
    let folder = report.folder_of(node.span).unwrap_or(Path::new("/"));
    Some(folder.join(node.as_str()?))
}

/// Would a credential leave this machine without TLS?
fn is_in_clear(url: &str) -> bool {
    let safe = ["unix:", "/", "https://", "ssh://"];
    if safe.iter().any(|start| url.starts_with(start)) {
        return false;
    }
    let authority = url.strip_prefix("http://").unwrap_or(url);
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split([':', '/']).next().unwrap_or_default(),
    };
    let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
    host != "localhost" && !host.parse::<IpAddr>().is_ok_and(is_loopback)
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
    if let Some(path) = &node.ca {
        text.push_str(&format!("ca = {}\n", value(&path.to_string_lossy())));
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
            url: "https://a:5000".to_owned(),
            token_file: Some("/c/token".into()),
            ca: Some("/c/ca.pem".into()),
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
    fn a_token_goes_without_tls_to_this_machine_only() {
        for url in [
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "localhost:1",
            "unix:/x",
            "/x",
            "https://a",
        ] {
            assert!(!is_in_clear(url), "{url}");
        }
        for url in [
            "http://a",
            "a:5000",
            "http://127.0.0.1.evil",
            "http://[fe80::1]:5000",
        ] {
            assert!(is_in_clear(url), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            ("[node.x]\n", "needs a `url`"),
            ("[node.x]\nurl = \"a\"\ntoken = \"b\"", "token"),
            ("[job.x]\ncmd = \"x\"", "there is no `job`"),
            (
                "[node.x]\nurl = \"http://10.0.0.1:5000\"\ntoken_file = \"t\"",
                "shown to everybody",
            ),
            ("[node.\"a b\"]\nurl = \"a\"", "no name of a node"),
        ] {
            let error = nodes(text).expect_err(text);
            assert!(error.contains(wanted), "{error}");
        }
    }
}
