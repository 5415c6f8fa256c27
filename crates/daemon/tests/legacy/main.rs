//! The APIs of the original gaffer, 0.5 and 0.4, against a real daemon over raw HTTP. Tests are named by the row of the
//! specification that they are about.

mod defects;
mod feeds;
mod five;
mod four;
mod lasting;
mod rows;
mod template;

use gaffer_testkit::http::{Answer, Connection};
use gaffer_testkit::node::Node;
use gaffer_testkit::wait_until;
use serde_json::{Value, json};
use std::time::Duration;

/// Within which something that is asked for has come about.
pub const SOON: Duration = Duration::from_secs(30);

/// A node that listens on TCP, as old clients want it.
pub struct Old {
    /// The node.
    pub node: Node,
    http: Connection,
}

impl Old {
    /// Starts it.
    pub fn start() -> Old {
        Old::of(Node::builder().bind("127.0.0.1:0").start())
    }

    /// Of a node.
    pub fn of(node: Node) -> Old {
        let http = node.tcp();
        Old { node, http }
    }

    /// After the daemon was started again.
    pub fn connect_again(&mut self) {
        self.http = self.node.tcp();
    }

    /// One request with a raw body.
    pub fn raw(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        let answer = self.http.request(method, path, &[], body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.node.log()))
    }

    /// One request with JSON, or nothing.
    pub fn ask(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let answer = self.raw(method, path, &body);
        let value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| Value::String(answer.text()));
        (answer.status, value)
    }

    /// A `GET`.
    pub fn get(&mut self, path: &str) -> (u16, Value) {
        self.ask("GET", path, &Value::Null)
    }

    /// A `GET` that must succeed.
    pub fn shown(&mut self, path: &str) -> Value {
        let (status, value) = self.get(path);
        assert_eq!(status, 200, "GET {path}: {value}");
        value
    }

    /// Loads a job that sleeps, into the session `s`.
    pub fn sleeper(&mut self, name: &str, more: &Value) {
        let mut template = json!({"name": name, "cmd": "sleep", "args": ["1000"]});
        for (key, value) in more.as_object().into_iter().flatten() {
            template[key] = value.clone();
        }
        let loaded = self.ask("POST", "/jobs/s", &template);
        assert_eq!(loaded, (200, json!({"ok": true})), "{template}");
    }

    /// Numbers of the kept-alive processes of a job.
    pub fn pids(&mut self, job: &str) -> Vec<u64> {
        let shown = self.shown(&format!("/jobs/s/{job}/pids"));
        shown["pids"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(Value::as_u64)
            .collect()
    }

    /// Waits until a job has so many, and gives them.
    pub fn wait_pids(&mut self, job: &str, count: usize) -> Vec<u64> {
        wait_until(SOON, &format!("{count} processes of {job}"), || {
            self.pids(job).len() == count
        });
        self.pids(job)
    }
}
