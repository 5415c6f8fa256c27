//! The other nodes that this one knows: those that `[node.X]` of its file names, and those that its look-up services tell.
//!
//! A file is the operator's word. A look-up service has no authority: whoever registers there says what he likes. So a
//! node that only it knows is never shown a credential, is sent nothing but questions, and is not looked for on a socket of
//! this machine. What was heard of a node last is remembered, so that one that does not answer is still described, with
//! the age of that knowledge. Nobody is asked unless somebody asks us: at rest nothing runs here.

pub mod relay;

use crate::http::{App, Live};
use crate::lookup::registrar::with_port;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use gaffer_api::lookup::Lookup;
use gaffer_api::tls::TlsOptions;
use gaffer_api::types::{KnownNode, Node};
use gaffer_api::{Client, ClientError, Endpoint};
use gaffer_config::UserNode;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Nodes that are asked at once.
const AT_ONCE: usize = 16;

/// Nodes that are known at most: the bound of a look-up service.
const NODES_MAX: usize = 1024;

/// How long a node may take to say how it is.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a look-up service may take to say whom it knows.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(3);

/// Largest token file.
const TOKEN_BYTES_MAX: u64 = 4096;

/// What a node said last, and when; none: it did not answer.
type Heard = (Instant, Option<Node>);

/// What is remembered of other nodes.
pub struct Fleet {
    /// By name and URL: what a node said last, and when.
    heard: Mutex<BTreeMap<(String, String), Heard>>,
    /// What each look-up service said last.
    told: Mutex<BTreeMap<String, Vec<(String, String)>>>,
    /// Requests over nodes that are carried out at once.
    relays: Semaphore,
}

impl Default for Fleet {
    fn default() -> Fleet {
        Fleet {
            heard: Mutex::default(),
            told: Mutex::default(),
            relays: Semaphore::new(relay::AT_ONCE_MAX),
        }
    }
}

/// Another node.
#[derive(Clone, Debug, PartialEq)]
pub struct Other {
    /// As the file or the look-up service calls it.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// What the file says of it; none: a look-up service told of it.
    pub own: Option<UserNode>,
}

impl Other {
    /// A client for it, with the credential that the file has for it and no other; the error is a sentence.
    pub fn client(&self) -> Result<Client, String> {
        let endpoint = Endpoint::parse(&self.url).map_err(|error| error.to_string())?;
        if matches!(endpoint, Endpoint::Ssh(_)) {
            return Err("only the command line logs in to a node by ssh://".to_owned());
        }
        let Some(own) = &self.own else {
            return match endpoint {
                Endpoint::Unix(_) => Err("it says that it is at a socket of its own machine".to_owned()),
                endpoint => Ok(Client::new(endpoint, None)),
            };
        };
        let token = own.token_file.as_deref().map(token_in).transpose()?;
        let tls = TlsOptions {
            ca: own.ca.clone(),
            ..TlsOptions::default()
        };
        Ok(Client::with_tls(endpoint, token, tls))
    }
}

/// The token in a file, read for every request: it may be renewed.
fn token_in(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text));
    match read {
        Err(error) => Err(format!("its token_file cannot be read: {error}")),
        Ok(_) if text.trim().is_empty() => Err("its token_file is empty".to_owned()),
        Ok(_) => Ok(text.trim().to_owned()),
    }
}

/// All nodes but this one, by name: those of the file, then those of look-up services that the file does not name.
pub async fn others(app: &App) -> Vec<Other> {
    let live = app.live();
    let mut others = of_file(&app.node, &live);
    let own = others.len();
    for (name, url) in told(app, &live).await {
        let is_self = *app.node == *name && is_same_place(&url, &live.origin);
        // What the file names is never taken over by somebody's claim.
        let of_file = &others[..own];
        if !is_self
            && !of_file
                .iter()
                .any(|one| one.name == name || is_same_place(&one.url, &url))
        {
            others.push(Other { name, url, own: None });
        }
    }
    others.truncate(NODES_MAX);
    others.sort_by(|a, b| (&a.name, &a.url).cmp(&(&b.name, &b.url)));
    others
}

/// One file may name all nodes and be used by each of them: then it names its reader, too.
fn of_file(own_name: &str, live: &Live) -> Vec<Other> {
    let named = live.nodes.iter();
    let others = named.filter(|(name, node)| *name != own_name && !is_same_place(&node.url, &live.origin));
    others
        .map(|(name, node)| Other {
            name: name.clone(),
            url: node.url.clone(),
            own: Some(node.clone()),
        })
        .collect()
}

fn is_same_place(one: &str, other: &str) -> bool {
    one == other
        || matches!((Endpoint::parse(one), Endpoint::parse(other)), (Ok(one), Ok(other)) if one == other)
}

/// Names and origins from all look-up services; one that does not answer is believed to know what it knew.
async fn told(app: &App, live: &Live) -> Vec<(String, String)> {
    let asked = live.lookup.iter().map(|url| async move {
        let endpoint = Endpoint::parse(&with_port(url)).ok()?;
        let nodes = timeout(LOOKUP_TIME_MAX, Lookup::new(endpoint).nodes())
            .await
            .ok()?
            .ok()?;
        let nodes = nodes.into_iter().take(NODES_MAX);
        Some((url.clone(), nodes.map(|node| (node.name, node.origin)).collect()))
    });
    let answers: Vec<(String, Vec<(String, String)>)> = join_all(asked).await.into_iter().flatten().collect();
    let mut told = app.fleet.told.lock().unwrap_or_else(PoisonError::into_inner);
    told.retain(|url, _| live.lookup.contains(url));
    told.extend(answers);
    let mut all: Vec<(String, String)> = told.values().flatten().cloned().collect();
    all.sort();
    all.dedup();
    all
}

impl Fleet {
    /// Remembers what a node said, or that it said something.
    fn hears(&self, other: &Other, node: Option<Node>) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = heard.entry((other.name.clone(), other.url.clone()));
        let known = entry.or_insert((Instant::now(), None));
        known.0 = Instant::now();
        if node.is_some() {
            known.1 = node;
        }
    }

    /// What it said last, and how long ago that was.
    fn last(&self, other: &Other) -> (Option<u64>, Option<Node>) {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match heard.get(&(other.name.clone(), other.url.clone())) {
            None => (None, None),
            Some((at, node)) => (Some(age_ms(*at)), node.clone()),
        }
    }

    /// Forgets those that are not known any more.
    fn keep_only(&self, others: &[Other]) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|(name, url), _| others.iter().any(|one| one.name == *name && one.url == *url));
    }
}

fn age_ms(at: Instant) -> u64 {
    u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// How these nodes are, in the order in which they were given.
pub async fn look_at(app: &App, others: Vec<Other>) -> Vec<KnownNode> {
    app.fleet.keep_only(&others);
    stream::iter(others)
        .map(|other| async move { look(app, &other).await })
        .buffered(AT_ONCE)
        .collect()
        .await
}

async fn look(app: &App, other: &Other) -> KnownNode {
    let answer = match other.client() {
        Err(why) => Err(("unknown", "not-asked", why)),
        Ok(client) => match timeout(ANSWER_TIME_MAX, client.node()).await {
            Err(_) => Err(("unreachable", "unreachable", "no answer within 5s".to_owned())),
            Ok(Ok(node)) => Ok(node),
            Ok(Err(error)) => Err(state_of(&error)),
        },
    };
    let mut reason = None;
    let state = match answer {
        Ok(node) => {
            let state = node.state.clone();
            app.fleet.hears(other, Some(node));
            if state.is_empty() { "up".to_owned() } else { state }
        }
        Err((state, code, why)) => {
            if state == "up" {
                app.fleet.hears(other, None);
            }
            reason = Some((code, why));
            state.to_owned()
        }
    };
    let (age_ms, last) = app.fleet.last(other);
    let mut known = KnownNode {
        state,
        reason_code: reason.as_ref().map(|(code, _)| (*code).to_owned()),
        reason: reason.map(|(_, why)| why),
        age_ms,
        ..last.map(KnownNode::from).unwrap_or_default()
    };
    known.node.clone_from(&other.name);
    known.url.clone_from(&other.url);
    known.known_by = if other.own.is_some() { "file" } else { "lookup" }.to_owned();
    // Labels of the file go before what the node says of itself.
    if let Some(own) = other.own.as_ref().filter(|own| !own.labels.is_empty()) {
        known.labels.clone_from(&own.labels);
    }
    known
}

/// State, code and reason.
fn state_of(error: &ClientError) -> (&'static str, &'static str, String) {
    match error {
        ClientError::Unreachable { .. } => ("unreachable", "unreachable", error.to_string()),
        // It lives; what it is like it tells others only.
        ClientError::Api(api, 401 | 403) => {
            ("up", "refused", format!("it does not say more: {}", api.message))
        }
        ClientError::Api(api, _) => ("unknown", "failed", api.message.clone()),
        ClientError::Protocol(why) => (
            "unknown",
            "no-gaffer",
            format!("what answers is no gafferd: {why}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_only_a_look_up_service_knows_gets_no_credential_and_is_no_local_socket() {
        let claimed = |url: &str| Other {
            name: "x".to_owned(),
            url: url.to_owned(),
            own: None,
        };
        let why = claimed("unix:/run/docker.sock").client().err();
        assert_eq!(
            why.as_deref(),
            Some("it says that it is at a socket of its own machine")
        );
        assert!(claimed("http://10.0.0.1:5000").client().is_ok());
        let of_file = Other {
            own: Some(UserNode {
                url: "unix:/x".to_owned(),
                token_file: Some("/does/not/exist".into()),
                ..UserNode::default()
            }),
            ..claimed("unix:/x")
        };
        let why = of_file.client().err().unwrap_or_default();
        assert!(why.starts_with("its token_file cannot be read"), "{why}");
    }
}
