//! Nodes as another node sees them, and answers of many nodes.

use super::{Node, Shim};
use crate::error::ApiError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A node as the node that was asked knows it. What is not known is missing.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct KnownNode {
    /// Name.
    pub node: String,
    /// Where it is.
    #[serde(default)]
    pub url: String,
    /// `self`; `file`: `[node.X]` of the daemon's file; `lookup`: a look-up service says so.
    #[serde(default)]
    pub known_by: String,
    /// `up`, `draining`, `drained`; `unreachable`: it does not answer; `unknown`: what answers cannot be understood, or it
    /// was not asked.
    #[serde(default)]
    pub state: String,
    /// Why it is so, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Stable word for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
    /// How long ago it answered last; missing if it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// Labels: of the file that names it, else its own.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Version of the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// OS pid of the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Daemon starts so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// Since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// Age when it answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_ms: Option<u64>,
    /// Directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<String>,
    /// Where it listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<Vec<String>>,
    /// Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<u32>,
    /// Live runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u32>,
    /// Shims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shims: Option<Vec<Shim>>,
    /// `cgroup2`, `process-groups`: what contains the runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containment: Option<String>,
    /// Configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Why it could not be applied the last time: what was in force before still is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_refused: Option<String>,
}

impl From<Node> for KnownNode {
    fn from(node: Node) -> KnownNode {
        KnownNode {
            node: node.node,
            state: node.state,
            reason: node.reason,
            reason_code: node.reason_code,
            labels: node.labels,
            version: Some(node.version),
            pid: Some(node.pid),
            epoch: Some(node.epoch),
            started_at: Some(node.started_at),
            up_ms: Some(node.up_ms),
            state_dir: Some(node.state_dir),
            listen: Some(node.listen),
            jobs: Some(node.jobs),
            runs: Some(node.runs),
            shims: Some(node.shims),
            containment: Some(node.containment),
            config: node.config,
            config_refused: node.config_refused,
            ..KnownNode::default()
        }
    }
}

/// Body of `POST /v1/node/drain`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// How long tasks may go on: `10m`. Then those of queues are given back and others are killed. Unless given, they may
    /// take as long as they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
}

/// What came of a request with `?node=PATTERN` at one node.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct OfNode {
    /// Name.
    pub node: String,
    /// `ok`, `failed` or `unreachable`.
    pub status: String,
    /// Its answer: JSON as it is, other text as a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
    /// Path of the next page at that node, if its answer was one page of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How long ago it said so; of one that is unreachable: how long ago it answered last, missing if it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}
