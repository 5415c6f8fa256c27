//! Nodes that a command can go to: those that look-up services know, else those of the user's own file and of the
//! `gaffer.toml` in front of the user.
//!
//! A look-up service says only where nodes claim to be, so a token goes to nobody but this machine: elsewhere it would
//! be handed to whoever registered. What the user's file says of a node is the user's own word. A `gaffer.toml` is what
//! somebody has checked out: its nodes get tokens from its own folder only.

use crate::commands::lookup::Services;
use crate::context::Context;
use crate::failure::Failure;
use crate::out::Out;
use futures_util::future::join_all;
use gaffer_api::lookup::matches_name;
use gaffer_api::types::Node;
use gaffer_api::{Client, Endpoint};
use gaffer_config::{UserNode, UserNodes, project_nodes, user_nodes};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a node may take to say what it has.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// A node that can be asked.
pub struct Known {
    /// Its name, fit for a terminal.
    pub name: String,
    /// Where it is said to be.
    pub url: String,
    /// Talks to it.
    pub client: Client,
    /// Its labels as a file says them; none: it is to be asked.
    pub labels: Option<BTreeMap<String, String>>,
}

/// The user's file: `$GAFFER_CONFIG`, else `gaffer/config.toml` where the user's configuration is.
pub fn file() -> Option<PathBuf> {
    let of = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    // A file of the original holds keys only.
    let is_old = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "ini");
    of("GAFFER_CONFIG").filter(|path| !is_old(path)).or_else(|| {
        let config = of("XDG_CONFIG_HOME").filter(|dir| dir.is_absolute());
        let config = config.or_else(|| Some(of("HOME")?.join(".config")))?;
        Some(config.join("gaffer/config.toml"))
    })
}

/// Its text and its nodes; a file that is missing is empty.
pub fn read(out: &Out, path: &Path) -> Result<(String, UserNodes), Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(Failure::usage(format!(
                "{} cannot be read: {error}",
                path.display()
            )));
        }
    };
    let nodes = user_nodes(path, &text).map_err(|wrong| crate::file::invalid(out, &wrong))?;
    Ok((text, nodes))
}

/// All nodes: of the look-up services that are named, else of files.
pub async fn all(here: &Context) -> Result<Vec<Known>, Failure> {
    match here.globals.fleet.lookup.as_slice() {
        [] => of_file(here),
        urls => of_services(here, &Services::of(&here.globals, urls)?).await,
    }
}

fn of_file(here: &Context) -> Result<Vec<Known>, Failure> {
    let mut known = Vec::new();
    let mut own = UserNodes::new();
    if let Some(path) = file() {
        own = read(&here.out, &path)?.1;
        for (name, node) in &own {
            let token = crate::connect::token(&here.globals)?;
            known.push(named(here, &path, name, node, token)?);
        }
    }
    let Some(path) = project() else {
        return Ok(known);
    };
    for (name, node) in of_project(&here.out, &path)? {
        // What the user has said himself counts more than what lies in a folder.
        if !own.contains_key(&name) {
            known.push(named(here, &path, &name, &node, None)?);
        }
    }
    known.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(known)
}

/// A node of a file; `token` is that of the options, for nodes on this machine.
fn named(
    here: &Context,
    path: &Path,
    name: &str,
    node: &UserNode,
    token: Option<String>,
) -> Result<Known, Failure> {
    let endpoint = Endpoint::parse(&node.url)
        .map_err(|error| Failure::usage(format!("{}: [node.{name}]: {error}", path.display())))?;
    let token = match &node.token_file {
        Some(file) => crate::connect::token_in(file)?,
        None => token.filter(|_| is_here(&endpoint)),
    };
    Ok(Known {
        client: crate::connect::client_of(&here.globals, endpoint, token, node.ca.clone())?,
        url: node.url.clone(),
        labels: Some(node.labels.clone()).filter(|labels| !labels.is_empty()),
        name: name.to_owned(),
    })
}

/// The `gaffer.toml` in front of the user.
pub fn project() -> Option<PathBuf> {
    let is_toml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    crate::file::find(None).filter(is_toml)
}

/// The nodes of a `gaffer.toml`. It may come from anybody, so it cannot have files from elsewhere sent away as tokens.
pub fn of_project(out: &Out, path: &Path) -> Result<UserNodes, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))?;
    let nodes = project_nodes(path, &text).map_err(|wrong| crate::file::invalid(out, &wrong))?;
    let folder = path.parent().map(std::fs::canonicalize);
    for (name, node) in &nodes {
        let Some(file) = &node.token_file else { continue };
        let real = std::fs::canonicalize(file);
        let inside = match (&folder, &real) {
            (Some(Ok(folder)), Ok(real)) => real.starts_with(folder),
            _ => false,
        };
        if !inside {
            let message = format!(
                "{}: [node.{name}]: token_file is not a file below this folder",
                path.display()
            );
            return Err(Failure::usage(message).hint("name such a node in your own file:  gaffer node add"));
        }
    }
    Ok(nodes)
}

async fn of_services(here: &Context, services: &Services) -> Result<Vec<Known>, Failure> {
    let nodes = services.nodes(here).await?;
    let mut known = Vec::new();
    for node in &nodes {
        let namesakes = nodes.iter().filter(|other| other.name == node.name).count();
        let name = match namesakes {
            1 => node.name.clone(),
            _ => format!("{} ({})", node.name, node.origin),
        };
        let name = crate::escape::escape(&name).into_owned();
        match Endpoint::parse(&node.origin) {
            // What anybody may have registered makes nobody log in anywhere.
            Ok(Endpoint::Ssh(_)) => here.out.talk(&format!(
                "warning: {name} cannot be asked: a look-up service names an ssh:// address; a file of yours may"
            )),
            Ok(endpoint) => {
                let token = crate::connect::token(&here.globals)?.filter(|_| is_here(&endpoint));
                known.push(Known {
                    name,
                    url: node.origin.clone(),
                    client: crate::connect::client_at(&here.globals, endpoint, token)?,
                    labels: None,
                });
            }
            Err(error) => here
                .out
                .talk(&format!("warning: {name} cannot be asked: {error}")),
        }
    }
    Ok(known)
}

/// The nodes that `--node` and `--label` choose, at least one.
pub async fn chosen(here: &Context) -> Result<Vec<Known>, Failure> {
    let fleet = &here.globals.fleet;
    let known = all(here).await?;
    let names: Vec<String> = known.iter().map(|node| node.name.clone()).collect();
    let is_named = |node: &Known| {
        fleet.node.is_empty()
            || fleet.node.iter().any(|pattern| {
                let bare = node.name.split(" (").next().unwrap_or_default();
                matches_name(pattern, bare)
            })
    };
    let named: Vec<Known> = known.into_iter().filter(is_named).collect();
    let chosen = labelled(here, named).await?;
    if chosen.is_empty() {
        return Err(none(here, &names));
    }
    Ok(chosen)
}

fn none(here: &Context, names: &[String]) -> Failure {
    let fleet = &here.globals.fleet;
    match (names, fleet.node.as_slice(), fleet.label.as_slice()) {
        ([], ..) if fleet.lookup.is_empty() => Failure::not_found("no node is known")
            .hint_pair("name one:  gaffer node add NAME URL", "or ask:  -L URL"),
        ([], ..) => Failure::not_found("the look-up service knows no node")
            .hint("nodes name it in gaffer.toml:  [gaffer] lookup = [\"http://…\"]"),
        (_, patterns, []) => Failure::not_found(format!("no node `{}`", patterns.join("`, `")))
            .hint(format!("there are: {}", names.join(" "))),
        (_, _, labels) => Failure::not_found(format!("no node has the label {}", labels.join(" ")))
            .hint(format!("there are: {}", names.join(" "))),
    }
}

/// Those that have all labels that are asked for.
async fn labelled(here: &Context, nodes: Vec<Known>) -> Result<Vec<Known>, Failure> {
    let mut wanted = Vec::new();
    for label in &here.globals.fleet.label {
        wanted.push(pair(label)?);
    }
    if wanted.is_empty() {
        return Ok(nodes);
    }
    let told = nodes.iter().map(|node| async {
        match &node.labels {
            Some(labels) => Ok(labels.clone()),
            None => about(node).await.map(|about| about.labels),
        }
    });
    let mut chosen = Vec::new();
    for (told, node) in join_all(told).await.into_iter().zip(nodes) {
        match told {
            Ok(labels)
                if wanted
                    .iter()
                    .all(|(key, value)| labels.get(*key).is_some_and(|has| has == value)) =>
            {
                chosen.push(node);
            }
            Ok(_) => {}
            Err(failure) => here.out.talk(&format!(
                "warning: {} does not say its labels: {}",
                node.name, failure.message
            )),
        }
    }
    Ok(chosen)
}

/// `zone=eu`
pub fn pair(label: &str) -> Result<(&str, &str), Failure> {
    label
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| {
            Failure::usage(format!("`{label}` is no label")).hint("write KEY=VALUE, as in zone=eu")
        })
}

/// What a node says of itself.
pub async fn about(node: &Known) -> Result<Node, Failure> {
    let answer = tokio::time::timeout(ANSWER_TIME_MAX, node.client.node()).await;
    Ok(answer.map_err(|_| Failure::new(69, "no answer within 10s"))??)
}

/// Whether it is on this machine.
fn is_here(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Unix(_) => true,
        Endpoint::Ssh(_) => false,
        Endpoint::Tcp(host, _) | Endpoint::Tls(host, _) => {
            host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
    }
}
