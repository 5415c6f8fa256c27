//! The routes of `/v1` as methods of the client, one per route, so that no caller writes a path.

use crate::client::{Client, ClientError, ItemStream, WebSocket};
use crate::types::{
    ActionRequest, ApplyRequest, Doctor, DrainRequest, Event, Health, Instance, Job, JobsRequest, KnownNode,
    LogLine, Node, OfNode, Operation, Plan, Run, RunRequest, RunStats, ScaleRequest, Session,
    ShutdownRequest, SignalRequest, Stats,
};
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

mod queue;
mod schedule;
mod task;

pub use queue::QueueTasksQuery;

type Result<T> = std::result::Result<T, ClientError>;

/// Escapes a text for a path segment or a query value.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte))
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Joins parameters to a query with its `?`; those without a value are left out.
pub fn query(parameters: &[(&str, Option<String>)]) -> String {
    let mut text = String::new();
    for (name, value) in parameters {
        if let Some(value) = value {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(&format!("{name}={}", escape(value)));
        }
    }
    text
}

fn of_nodes(path_and_query: &str, pattern: &str) -> String {
    let sign = if path_and_query.contains('?') { '&' } else { '?' };
    format!("{path_and_query}{sign}node={}", escape(pattern))
}

/// `?wait=`: how long the daemon may hold the answer until the operation is over; none: it answers at once.
fn wait(wait: Option<Duration>) -> String {
    query(&[("wait", wait.map(|wait| format!("{}ms", wait.as_millis())))])
}

/// Path of a job, or of one of its instances.
pub fn job_path(session: &str, job: &str, instance: Option<u32>) -> String {
    let base = format!("/v1/jobs/{}/{}", escape(session), escape(job));
    match instance {
        None => base,
        Some(n) => format!("{base}/instances/{n}"),
    }
}

/// What of a log is wanted: `GET /v1/jobs/{session}/{job}/logs` and, but for `instance` and `run`, `GET /v1/logs`.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// Stay and send what comes.
    pub follow: bool,
    /// Only so many of the newest lines (of all instances together).
    pub tail: Option<u32>,
    /// RFC 3339 time, or a duration back from now, `10m`.
    pub since: Option<String>,
    /// RFC 3339 time, or a duration back from now.
    pub until: Option<String>,
    /// Regular expression on the text.
    pub grep: Option<String>,
    /// `stdout`, `stderr` or a label; none: all.
    pub stream: Option<String>,
    /// One instance.
    pub instance: Option<u32>,
    /// One run.
    pub run: Option<String>,
    /// Marks of life between the lines.
    pub events: bool,
}

impl LogQuery {
    fn parameters(&self) -> [(&'static str, Option<String>); 9] {
        let yes = |flag: bool| flag.then(|| "true".to_owned());
        [
            ("follow", yes(self.follow)),
            ("tail", self.tail.map(|n| n.to_string())),
            ("since", self.since.clone()),
            ("until", self.until.clone()),
            ("grep", self.grep.clone()),
            ("stream", self.stream.clone()),
            ("instance", self.instance.map(|n| n.to_string())),
            ("run", self.run.clone()),
            ("events", yes(self.events)),
        ]
    }
}

impl Client {
    /// All sessions.
    pub async fn sessions(&self) -> Result<Vec<Session>> {
        self.get_list("/v1/sessions").await
    }

    /// Jobs, of one session or of all; with `stats` their live runs are sampled.
    pub async fn jobs(&self, session: Option<&str>, stats: bool) -> Result<Vec<Job>> {
        let query = query(&[
            ("session", session.map(str::to_owned)),
            ("stats", stats.then(|| "true".to_owned())),
            ("limit", Some("1000".to_owned())),
        ]);
        self.get_list(&format!("/v1/jobs{query}")).await
    }

    /// One job; with `spec` its definition as in the file too.
    pub async fn job(&self, session: &str, job: &str, spec: bool) -> Result<Job> {
        let query = query(&[("spec", spec.then(|| "true".to_owned()))]);
        self.get(&format!("{}{query}", job_path(session, job, None)))
            .await
    }

    /// One instance.
    pub async fn instance(&self, session: &str, job: &str, instance: u32) -> Result<Instance> {
        self.get(&job_path(session, job, Some(instance))).await
    }

    /// Adds a job or replaces its definition (as in the file); `if_match` 0: only if it is new.
    pub async fn job_put(
        &self,
        session: &str,
        job: &str,
        spec: &Value,
        if_match: Option<u64>,
        within: Option<Duration>,
    ) -> Result<Operation> {
        self.put(
            &format!("{}{}", job_path(session, job, None), wait(within)),
            spec,
            if_match,
        )
        .await
    }

    /// Stops and forgets a job.
    pub async fn job_delete(&self, session: &str, job: &str, within: Option<Duration>) -> Result<Operation> {
        self.delete(&format!("{}{}", job_path(session, job, None), wait(within)))
            .await
    }

    /// `start stop restart reload pause resume` of a job or instance.
    pub async fn act(
        &self,
        session: &str,
        job: &str,
        instance: Option<u32>,
        verb: &str,
        request: &ActionRequest,
        within: Option<Duration>,
    ) -> Result<Operation> {
        let path = job_path(session, job, instance);
        self.post(&format!("{path}/{}{}", escape(verb), wait(within)), request)
            .await
    }

    /// `start stop restart reload pause resume scale signal remove` of many jobs and instances: one request, one
    /// operation with an outcome for each.
    pub async fn act_each(
        &self,
        verb: &str,
        request: &JobsRequest,
        within: Option<Duration>,
    ) -> Result<Operation> {
        self.post(&format!("/v1/jobs/{}{}", escape(verb), wait(within)), request)
            .await
    }

    /// Changes the number of instances.
    pub async fn scale(
        &self,
        session: &str,
        job: &str,
        request: &ScaleRequest,
        within: Option<Duration>,
    ) -> Result<Operation> {
        self.post(
            &format!("{}/scale{}", job_path(session, job, None), wait(within)),
            request,
        )
        .await
    }

    /// Sends a signal to every live run of a job or instance.
    pub async fn signal(
        &self,
        session: &str,
        job: &str,
        instance: Option<u32>,
        request: &SignalRequest,
    ) -> Result<Operation> {
        let path = job_path(session, job, instance);
        self.post(
            &format!("{path}/signal{}", wait(Some(Duration::from_secs(10)))),
            request,
        )
        .await
    }

    /// Starts a one-off; the operation's `data.run` names its run once there is one.
    pub async fn one_off(
        &self,
        session: &str,
        job: &str,
        request: &RunRequest,
        within: Option<Duration>,
    ) -> Result<Operation> {
        self.post(
            &format!("{}/run{}", job_path(session, job, None), wait(within)),
            request,
        )
        .await
    }

    /// The newest deaths, newest first; the first `lines` of them with their last lines.
    pub async fn deaths(
        &self,
        session: &str,
        job: &str,
        instance: Option<u32>,
        limit: u32,
        lines: u32,
    ) -> Result<Vec<Run>> {
        self.get(&format!(
            "{}/deaths?limit={limit}&lines={lines}",
            job_path(session, job, instance)
        ))
        .await
    }

    /// Samples of all live runs, of one session or of all.
    pub async fn stats(&self, session: Option<&str>) -> Result<Vec<RunStats>> {
        let query = query(&[
            ("session", session.map(str::to_owned)),
            ("limit", Some("1000".to_owned())),
        ]);
        self.get_list(&format!("/v1/stats{query}")).await
    }

    /// Log lines of a job, merged by time.
    pub async fn job_logs(&self, session: &str, job: &str, wanted: &LogQuery) -> Result<ItemStream<LogLine>> {
        self.stream_lines(&format!(
            "{}/logs{}",
            job_path(session, job, None),
            query(&wanted.parameters())
        ))
        .await
    }

    /// Log lines of many jobs, merged by time: of those that are named (`session.job[.n]`), else of the session, else of
    /// all. Those that are not named by themselves come with jobs that are added later.
    pub async fn logs(
        &self,
        session: Option<&str>,
        jobs: Option<&[String]>,
        wanted: &LogQuery,
    ) -> Result<ItemStream<LogLine>> {
        let whose = [
            ("session", session.map(str::to_owned)),
            ("jobs", jobs.map(|jobs| jobs.join(","))),
        ];
        let query = query(&[whose.as_slice(), wanted.parameters().as_slice()].concat());
        self.stream_lines(&format!("/v1/logs{query}")).await
    }

    /// A run.
    pub async fn run(&self, run: &str) -> Result<Run> {
        self.get(&format!("/v1/runs/{}", escape(run))).await
    }

    /// Runs whose id begins so.
    pub async fn runs_by_prefix(&self, prefix: &str) -> Result<Vec<Run>> {
        self.get(&format!("/v1/runs?prefix={}", escape(prefix))).await
    }

    /// Bytes of a run's stream; `from` is an offset, `start` or `end`. The header `gaffer-from` names the first byte's
    /// offset; without `follow`, `gaffer-offset` the one to go on with.
    pub async fn run_log(
        &self,
        run: &str,
        stream: &str,
        from: &str,
        follow: bool,
    ) -> Result<(HeaderMap, ItemStream<Bytes>)> {
        let query = query(&[
            ("from", Some(from.to_owned())),
            ("follow", follow.then(|| "true".to_owned())),
        ]);
        self.stream_bytes(&format!(
            "/v1/runs/{}/logs/{}{query}",
            escape(run),
            escape(stream)
        ))
        .await
    }

    /// Samples a run.
    pub async fn run_stats(&self, run: &str) -> Result<Stats> {
        self.get(&format!("/v1/runs/{}/stats", escape(run))).await
    }

    /// Sends a signal to a run.
    pub async fn run_signal(&self, run: &str, request: &SignalRequest) -> Result<()> {
        self.post(&format!("/v1/runs/{}/signal", escape(run)), request)
            .await
    }

    /// Writes to a pipe of a run; returns when the pipe took all bytes.
    pub async fn run_input(&self, run: &str, stream: Option<&str>, bytes: Vec<u8>, eof: bool) -> Result<()> {
        let query = query(&[
            ("stream", stream.map(str::to_owned)),
            ("eof", eof.then(|| "true".to_owned())),
        ]);
        self.post_bytes(&format!("/v1/runs/{}/input{query}", escape(run)), bytes)
            .await
    }

    /// Joins a run: binary messages are its output and its input, text messages are [`crate::types::AttachMessage`].
    pub async fn run_attach(&self, run: &str, read_only: bool) -> Result<WebSocket> {
        let query = query(&[("read_only", read_only.then(|| "true".to_owned()))]);
        self.websocket(&format!("/v1/runs/{}/attach{query}", escape(run)))
            .await
    }

    /// Events behind a cursor (none: all that are kept); with `follow` also those that come.
    pub async fn events(
        &self,
        after: Option<&str>,
        follow: bool,
        filter: Option<&str>,
    ) -> Result<ItemStream<Event>> {
        let query = query(&[
            ("after", after.map(str::to_owned)),
            ("follow", follow.then(|| "true".to_owned())),
            ("filter", filter.map(str::to_owned)),
        ]);
        self.stream_lines(&format!("/v1/events{query}")).await
    }

    /// Many subscriptions over one WebSocket: [`crate::types::StreamRequest`] up, [`crate::types::StreamItem`] down.
    pub async fn stream(&self) -> Result<WebSocket> {
        self.websocket("/v1/stream").await
    }

    /// This node.
    pub async fn node(&self) -> Result<Node> {
        self.get("/v1/node").await
    }

    /// The nodes that are known here.
    pub async fn nodes(&self) -> Result<Vec<KnownNode>> {
        self.get_list("/v1/nodes").await
    }

    /// A node by its name.
    pub async fn node_named(&self, node: &str) -> Result<KnownNode> {
        self.get(&format!("/v1/nodes/{}", escape(node))).await
    }

    /// Does the daemon serve?
    pub async fn health(&self) -> Result<Health> {
        self.get("/healthz").await
    }

    /// Metrics in the text form of Prometheus.
    pub async fn metrics(&self) -> Result<Bytes> {
        self.get_bytes("/metrics").await.map(|(_, text)| text)
    }

    /// How far the node is drained; waits at most `within` for the end of it.
    pub async fn node_drained(&self, within: Option<Duration>) -> Result<KnownNode> {
        self.get(&format!("/v1/node/drain{}", wait(within))).await
    }

    /// Drains the node.
    pub async fn node_drain(&self, request: &DrainRequest, within: Option<Duration>) -> Result<KnownNode> {
        self.post(&format!("/v1/node/drain{}", wait(within)), request)
            .await
    }

    /// Undoes it.
    pub async fn node_undrain(&self) -> Result<KnownNode> {
        self.delete("/v1/node/drain").await
    }

    /// Drains a node that the daemon's file names.
    pub async fn node_drain_at(
        &self,
        node: &str,
        request: &DrainRequest,
        within: Option<Duration>,
    ) -> Result<KnownNode> {
        let path = format!("/v1/nodes/{}/drain{}", escape(node), wait(within));
        self.post(&path, request).await
    }

    /// Undoes it there.
    pub async fn node_undrain_at(&self, node: &str) -> Result<KnownNode> {
        self.delete(&format!("/v1/nodes/{}/drain", escape(node))).await
    }

    /// GET at all nodes that the pattern chooses: what came of it at each. The daemon that is asked asks the others, with
    /// the tokens of its own file; only an admin may have that done.
    pub async fn get_of_nodes(&self, path_and_query: &str, pattern: &str) -> Result<Vec<OfNode>> {
        self.get(&of_nodes(path_and_query, pattern)).await
    }

    /// The same for a POST.
    pub async fn post_of_nodes<B: Serialize + ?Sized>(
        &self,
        path_and_query: &str,
        body: &B,
        pattern: &str,
    ) -> Result<Vec<OfNode>> {
        self.post(&of_nodes(path_and_query, pattern), body).await
    }

    /// What is defined on the node, as a `gaffer.toml`.
    pub async fn config_toml(&self) -> Result<Bytes> {
        self.get_bytes("/v1/config?format=toml")
            .await
            .map(|(_, text)| text)
    }

    /// The same as JSON.
    pub async fn config(&self) -> Result<Value> {
        self.get("/v1/config?format=json").await
    }

    /// What applying would do.
    pub async fn plan(&self, request: &ApplyRequest) -> Result<Plan> {
        self.post("/v1/plan", request).await
    }

    /// Applies; the operation's `data.plan` is the plan that was carried out.
    pub async fn apply(&self, request: &ApplyRequest, within: Option<Duration>) -> Result<Operation> {
        self.post(&format!("/v1/apply{}", wait(within)), request).await
    }

    /// An operation; waits at most `within` for its end.
    pub async fn operation(&self, operation: &str, within: Option<Duration>) -> Result<Operation> {
        self.get(&format!("/v1/operations/{}{}", escape(operation), wait(within)))
            .await
    }

    /// Stops waiting for an operation; what was asked for stays.
    pub async fn operation_cancel(&self, operation: &str) -> Result<Operation> {
        self.delete(&format!("/v1/operations/{}", escape(operation)))
            .await
    }

    /// Checks of the node.
    pub async fn doctor(&self) -> Result<Doctor> {
        self.get("/v1/doctor").await
    }

    /// Ends the daemon: `stop` (jobs stop save `keep_running` ones), `stop-all`, `leave` (all go on), `reload` the file.
    pub async fn shutdown(&self, mode: &str) -> Result<Health> {
        self.post(
            "/v1/node/shutdown",
            &ShutdownRequest {
                mode: mode.to_owned(),
            },
        )
        .await
    }

    /// Applies the daemon's own file again.
    pub async fn reload(&self) -> Result<Health> {
        self.post("/v1/node/reload", &serde_json::json!({})).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_hold_names_with_any_character() {
        assert_eq!(
            job_path("a", "b/c d", Some(2)),
            "/v1/jobs/a/b%2Fc%20d/instances/2"
        );
        assert_eq!(
            query(&[("a", None), ("b", Some("x&y".into())), ("c", Some("1".into()))]),
            "?b=x%26y&c=1"
        );
    }
}
