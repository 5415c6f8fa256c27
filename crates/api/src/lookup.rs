//! What `gaffer-lookupd` speaks: its lists, the messages of nodes, the events of watchers, and a client for it.
//!
//! The shapes are those of the original's look-up service, field by field; they differ from `/v1` where that one does.
//! A job's name keeps the form in which its node registered it; without a session it belongs to `default`.

use crate::client::{Client, ClientError, WebSocket};
use crate::endpoint::Endpoint;
use crate::tls::TlsOptions;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Version of the protocol between nodes and the look-up service.
pub const PROTOCOL: &str = "0.1";

/// Port of the look-up service where an address names none.
pub const DEFAULT_PORT: u16 = 5010;

/// A node that has named itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name; two nodes may have the same one at different origins.
    pub name: String,
    /// URL of its API.
    pub origin: String,
    /// Of the protocol it speaks.
    pub version: String,
}

/// `GET /nodes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    /// Nodes that have named themselves, by name.
    pub nodes: Vec<NodeInfo>,
}

/// A node that has a job, and the job's processes there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Name of the job.
    pub name: String,
    /// Its processes: gaffer's small integers, not those of the operating system.
    pub pids: Vec<u64>,
    /// Where.
    pub node_info: NodeInfo,
}

/// A job and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundJob {
    /// Its name.
    pub name: String,
    /// The nodes that have it.
    pub sources: Vec<Source>,
}

/// `GET /jobs` and `GET /findSession`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jobs {
    /// How many.
    pub nb_jobs: usize,
    /// By name.
    pub jobs: Vec<FoundJob>,
}

/// `GET /findJob`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Empty if nobody has the job.
    pub sources: Vec<Source>,
}

/// A session and its jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its name.
    pub sessionid: String,
    /// Sources by the job's name.
    pub jobs: BTreeMap<String, Vec<Source>>,
}

/// `GET /sessions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// How many.
    pub nb_sessions: usize,
    /// By name.
    pub sessions: Vec<Session>,
}

/// What watchers are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A node has connected; it has not named itself, so all is null.
    AddNode(Named),
    /// It has named itself.
    Identify(Named),
    /// Its connection is gone, and with it its jobs and processes.
    RemoveNode(Named),
    /// A node has a job.
    AddJob {
        /// Which node.
        node: NodeInfo,
        /// Which job.
        job_name: String,
    },
    /// It has it no more.
    RemoveJob {
        /// Which node.
        node: NodeInfo,
        /// Which job.
        job_name: String,
    },
    /// A process of the job runs there.
    AddProcess {
        /// Which node.
        node: NodeInfo,
        /// Which job.
        job_name: String,
        /// gaffer's number of it.
        pid: u64,
    },
    /// It runs no more.
    RemoveProcess {
        /// Which node.
        node: NodeInfo,
        /// Which job.
        job_name: String,
        /// gaffer's number of it.
        pid: u64,
    },
    /// This watcher read too slowly and has missed so many events: the connection ends here.
    Missed {
        /// How many.
        count: u64,
    },
}

/// A node in an event; nulls before it has named itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// As in [`NodeInfo`].
    pub name: Option<String>,
    /// As in [`NodeInfo`].
    pub origin: Option<String>,
    /// As in [`NodeInfo`].
    pub version: Option<String>,
}

impl From<Option<&NodeInfo>> for Named {
    fn from(node: Option<&NodeInfo>) -> Named {
        node.map_or_else(Named::default, |node| Named {
            name: Some(node.name.clone()),
            origin: Some(node.origin.clone()),
            version: Some(node.version.clone()),
        })
    }
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Say {
    /// Names the node, once in a connection.
    Identify {
        /// Its name.
        name: String,
        /// URL of its API.
        origin: String,
        /// Of the protocol.
        version: String,
        /// Of this life of the daemon: the same node may replace a connection of its own that has died unseen. None in
        /// the original.
        #[serde(skip_serializing_if = "Option::is_none")]
        life: Option<String>,
    },
    /// It is still there.
    Ping,
    /// It has a job.
    RegisterJob {
        /// Its name.
        job_name: String,
    },
    /// It has it no more.
    UnregisterJob {
        /// Its name.
        job_name: String,
    },
    /// A process runs.
    RegisterProcess {
        /// Of this job.
        job_name: String,
        /// gaffer's number of it.
        pid: u64,
    },
    /// It runs no more.
    UnregisterProcess {
        /// Of this job.
        job_name: String,
        /// gaffer's number of it.
        pid: u64,
    },
}

/// A message of a node, as it is sent.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    /// Echoed in the reply.
    pub msgid: String,
    /// What it says.
    #[serde(flatten)]
    pub say: Say,
}

/// Why a message is refused; the number is an HTTP status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `errno` of the reply.
    pub errno: u16,
    /// `reason` of the reply.
    pub reason: String,
}

impl Refused {
    /// A refusal.
    pub fn new(errno: u16, reason: impl Into<String>) -> Refused {
        Refused {
            errno,
            reason: reason.into(),
        }
    }
}

/// Reads a node's message: its id as far as there is one, and what it says.
pub fn read_message(text: &str) -> (Value, Result<Say, Refused>) {
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return (Value::Null, Err(Refused::new(400, "invalid_json")));
    };
    let id = match value.get("msgid") {
        Some(id @ (Value::String(_) | Value::Number(_))) => id.clone(),
        _ => Value::Null,
    };
    let say = say(&value, &id);
    (id, say)
}

fn say(value: &Value, id: &Value) -> Result<Say, Refused> {
    let invalid = || Refused::new(400, "invalid_message");
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let kind = text("type").filter(|_| !id.is_null()).ok_or_else(invalid)?;
    let job_name = || text("job_name").ok_or_else(invalid);
    let pid = || value.get("pid").and_then(Value::as_u64).ok_or_else(invalid);
    Ok(match kind.as_str() {
        "IDENTIFY" => Say::Identify {
            name: text("name").ok_or_else(invalid)?,
            origin: text("origin").ok_or_else(invalid)?,
            version: text("version").ok_or_else(invalid)?,
            life: text("life"),
        },
        "PING" => Say::Ping,
        "REGISTER_JOB" => Say::RegisterJob {
            job_name: job_name()?,
        },
        "UNREGISTER_JOB" => Say::UnregisterJob {
            job_name: job_name()?,
        },
        "REGISTER_PROCESS" => Say::RegisterProcess {
            job_name: job_name()?,
            pid: pid()?,
        },
        "UNREGISTER_PROCESS" => Say::UnregisterProcess {
            job_name: job_name()?,
            pid: pid()?,
        },
        _ => return Err(Refused::new(400, "invalid_message_type")),
    })
}

/// The answer to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// True, or missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ok: bool,
    /// As an HTTP status, if it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<u16>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of the message, null if it had none.
    #[serde(default)]
    pub msgid: Value,
}

impl Reply {
    /// To a message with this id.
    pub fn to(msgid: Value, done: Result<(), Refused>) -> Reply {
        let refused = done.err();
        Reply {
            ok: refused.is_none(),
            errno: refused.as_ref().map(|refused| refused.errno),
            reason: refused.map(|refused| refused.reason),
            msgid,
        }
    }
}

/// The full name of a job: `session.job`, the session `default` where none is named.
pub fn full_name(name: &str) -> String {
    let (session, job) = split_name(name);
    format!("{session}.{job}")
}

/// Session and job of a name as nodes write it.
pub fn split_name(name: &str) -> (&str, &str) {
    name.split_once('.')
        .or_else(|| name.split_once('/'))
        .unwrap_or(("default", name))
}

/// One segment or value of a URL: everything but letters, digits, `-`, `.`, `_` and `~` is escaped.
fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

/// Does a pattern name a node? A star stands for any text.
pub fn matches_name(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Asks one look-up service.
#[derive(Clone)]
pub struct Lookup {
    client: Client,
}

impl Lookup {
    /// Connects with the first request.
    pub fn new(endpoint: Endpoint) -> Lookup {
        // It takes no credential, and whoever answers there should not get one.
        Lookup {
            client: Client::new(endpoint, None),
        }
    }

    /// With other authorities than the system's, or a certificate of our own.
    pub fn with_tls(endpoint: Endpoint, tls: TlsOptions) -> Lookup {
        Lookup {
            client: Client::with_tls(endpoint, None, tls),
        }
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        self.client.endpoint()
    }

    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, ClientError> {
        Ok(self.client.get::<Nodes>("/nodes").await?.nodes)
    }

    /// All jobs.
    pub async fn jobs(&self) -> Result<Vec<FoundJob>, ClientError> {
        Ok(self.client.get::<Jobs>("/jobs").await?.jobs)
    }

    /// All sessions, or those of the nodes with this name.
    pub async fn sessions(&self, node: Option<&str>) -> Result<Vec<Session>, ClientError> {
        let path = node.map_or_else(
            || "/sessions".to_owned(),
            |node| format!("/sessions/{}", segment(node)),
        );
        Ok(self.client.get::<Sessions>(&path).await?.sessions)
    }

    /// Where a job is.
    pub async fn job(&self, name: &str) -> Result<Vec<Source>, ClientError> {
        let path = format!("/findJob?name={}", segment(name));
        Ok(self.client.get::<Sources>(&path).await?.sources)
    }

    /// The jobs of a session.
    pub async fn session(&self, session: &str) -> Result<Vec<FoundJob>, ClientError> {
        let path = format!("/findSession?sessionid={}", segment(session));
        Ok(self.client.get::<Jobs>(&path).await?.jobs)
    }

    /// A WebSocket with an [`Event`] in each text message, from now on.
    pub async fn watch(&self) -> Result<WebSocket, ClientError> {
        self.client.websocket("/lookup/websocket").await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (Value, u16, String) {
        let (id, say) = read_message(text);
        let refused = say.expect_err("a refusal");
        (id, refused.errno, refused.reason)
    }

    #[test]
    fn s10_2_a_message_that_is_none_is_refused_with_its_id() {
        assert_eq!(refused("{"), (Value::Null, 400, "invalid_json".into()));
        for text in ["{}", "[]", "3", r#"{"type":"PING"}"#] {
            assert_eq!(
                refused(text),
                (Value::Null, 400, "invalid_message".into()),
                "{text}"
            );
        }
        let missing = r#"{"type":"REGISTER_JOB","msgid":"7"}"#;
        assert_eq!(refused(missing), ("7".into(), 400, "invalid_message".into()));
        let unknown = r#"{"type":"DANCE","msgid":"7"}"#;
        assert_eq!(refused(unknown), ("7".into(), 400, "invalid_message_type".into()));
    }

    #[test]
    fn s10_2_what_a_node_writes_is_what_the_service_reads() {
        let says = [
            Say::Identify {
                name: "a".into(),
                origin: "http://a:5000".into(),
                version: PROTOCOL.into(),
                life: None,
            },
            Say::Ping,
            Say::RegisterJob {
                job_name: "s.j".into(),
            },
            Say::UnregisterProcess {
                job_name: "s.j".into(),
                pid: 3,
            },
        ];
        for say in says {
            let message = Message {
                msgid: "9".into(),
                say: say.clone(),
            };
            let text = serde_json::to_string(&message).expect("JSON");
            assert_eq!(read_message(&text), ("9".into(), Ok(say)), "{text}");
        }
    }

    #[test]
    fn s10_3_events_have_the_shapes_of_the_original() {
        let text = |event: &Event| serde_json::to_string(event).expect("JSON");
        assert_eq!(
            text(&Event::AddNode(Named::default())),
            r#"{"event":"add_node","name":null,"origin":null,"version":null}"#
        );
        let node = NodeInfo {
            name: "a".into(),
            origin: "http://a:1".into(),
            version: "0.1".into(),
        };
        assert_eq!(
            text(&Event::AddProcess {
                node,
                job_name: "s.j".into(),
                pid: 1
            }),
            r#"{"event":"add_process","node":{"name":"a","origin":"http://a:1","version":"0.1"},"job_name":"s.j","pid":1}"#
        );
    }

    #[test]
    fn a_name_without_session_belongs_to_the_default_one() {
        assert_eq!(
            ["web", "s.web", "s/web", "a.b.c"].map(full_name),
            ["default.web", "s.web", "s.web", "a.b.c"]
        );
    }

    #[test]
    fn nodes_are_chosen_by_name_or_pattern() {
        for (pattern, name, fits) in [
            ("alpha", "alpha", true),
            ("alpha", "alpha2", false),
            ("al*", "alpha", true),
            ("*pha", "alpha", true),
            ("a*p*a", "alpha", true),
            ("a*x*a", "alpha", false),
            ("*", "", true),
        ] {
            assert_eq!(matches_name(pattern, name), fits, "{pattern} {name}");
        }
    }
}
