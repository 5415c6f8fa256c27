//! Jobs over HTTP, with real processes.

use crate::node::{Node, until};
use serde_json::{Value, json};

#[test]
fn a_job_is_added_looked_at_changed_and_removed() {
    let node = Node::start();
    node.put("web", "while :; do sleep 1; done", &json!({}));
    let shown = node.get("/v1/jobs/default/web?spec=true");
    let job = shown.json();
    assert_eq!(
        (job["state"].as_str(), job["wish"].as_str()),
        (Some("running"), Some("running")),
        "{job}"
    );
    assert_eq!(job["spec"]["shell"], true, "{job}");
    let instance = &job["instances"][0];
    assert!(
        instance["pid"].as_u64().is_some()
            && instance["run"].as_str().is_some()
            && instance["started_at"].as_str().is_some()
    );
    let etag = shown.header("etag").expect("an ETag");

    let spec = json!({"cmd": ["/bin/sh", "-c", "sleep 1000"], "instances": 2}).to_string();
    let put = |condition: &str| {
        let headers = format!("host: localhost\r\ncontent-type: application/json\r\n{condition}\r\n");
        node.over_unix("PUT", "/v1/jobs/default/web?wait=20s", &headers, spec.as_bytes())
    };
    assert_eq!(put("if-match: \"999\"").code(), "revision-mismatch");
    assert_eq!(put("if-none-match: *").status, 409);
    assert_eq!(put(&format!("if-match: {etag}")).status, 200);
    assert_eq!(node.job("web")["instances"].as_array().map(Vec::len), Some(2));

    let removed = node.ask("DELETE", "/v1/jobs/default/web?wait=20s", None);
    assert_eq!(
        (removed.status, removed.json()["state"].as_str()),
        (200, Some("done"))
    );
    assert_eq!(node.get("/v1/jobs/default/web").code(), "job-not-found");
}

#[test]
fn verbs_change_the_wish_and_answer_with_an_operation() {
    let node = Node::start();
    node.put("web", "while :; do sleep 1; done", &json!({}));
    let now = node.post("/v1/jobs/default/web/stop");
    assert_eq!(now.status, 202);
    let operation = now.json()["operation"].as_str().expect("an id").to_owned();
    let over = node.get(&format!("/v1/operations/{operation}?wait=20s")).json();
    assert_eq!(
        (over["state"].as_str(), over["verb"].as_str()),
        (Some("done"), Some("stop")),
        "{over}"
    );
    assert_eq!(node.job("web")["state"], "stopped");
    let done = node.post("/v1/jobs/default/web/start?wait=20s");
    assert_eq!((done.status, done.json()["state"].as_str()), (200, Some("done")));
    let before = node.job("web")["instances"][0]["run"].clone();
    assert_eq!(node.post("/v1/jobs/default/web/restart?wait=20s").status, 200);
    assert_ne!(node.job("web")["instances"][0]["run"], before);
    let scaled = node.ask(
        "POST",
        "/v1/jobs/default/web/scale?wait=20s",
        Some(&json!({"to": "+2"})),
    );
    assert_eq!(scaled.status, 200);
    assert_eq!(node.job("web")["target"], 3);
    assert_eq!(
        node.get("/v1/jobs/default/web/instances/9").code(),
        "instance-not-found"
    );
    let similar = node.get("/v1/jobs/default/wbe").json();
    assert!(
        similar["error"]["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("`web`")),
        "{similar}"
    );
    let signal = node.ask(
        "POST",
        "/v1/jobs/default/web/signal?wait=20s",
        Some(&json!({"signal": "NOPE"})),
    );
    assert_eq!(signal.code(), "bad-value");
}

#[test]
fn a_request_with_a_key_is_carried_out_once() {
    let node = Node::start();
    node.put("web", "while :; do sleep 1; done", &json!({}));
    let post = |path: &str| {
        let headers = "host: localhost\r\nidempotency-key: abc\r\ncontent-type: application/json\r\n";
        node.over_unix("POST", path, headers, b"{\"to\":\"+1\"}")
    };
    let first = post("/v1/jobs/default/web/scale?wait=20s");
    let again = post("/v1/jobs/default/web/scale?wait=20s");
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(node.job("web")["target"], 2, "scaled once");
    assert_eq!(
        post("/v1/jobs/default/web/stop").code(),
        "key-reused",
        "the key is taken"
    );
    let other = node.over_unix(
        "POST",
        "/v1/jobs/default/web/scale?wait=20s",
        "host: localhost\r\nidempotency-key: abc\r\ncontent-type: application/json\r\n",
        b"{\"to\":\"+2\"}",
    );
    assert_eq!((other.status, other.code()), (409, "key-reused".to_owned()));
    assert!(
        other.json()["error"]["message"]
            .to_string()
            .contains("`abc` was used for POST")
    );
    assert_eq!(node.job("web")["target"], 2, "nothing was done");
}

#[test]
fn an_end_is_told_with_its_cause_and_last_lines() {
    let node = Node::start();
    let script = "echo booting; echo 'cannot bind' >&2; exit 3";
    let spec = json!({"cmd": ["/bin/sh", "-c", script], "restart": "never"});
    node.ask("PUT", "/v1/jobs/default/once?wait=20s", Some(&spec));
    let deaths = || node.get("/v1/jobs/default/once/deaths").json();
    until("its end is told", || {
        deaths().as_array().is_some_and(|deaths| !deaths.is_empty())
    });
    let death = deaths()[0].clone();
    assert_eq!(
        (death["exit_code"].as_i64(), death["cause"].as_str()),
        (Some(3), Some("exit")),
        "{death}"
    );
    let lines: Vec<&str> = death["last_lines"]
        .as_array()
        .expect("lines")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        lines.contains(&"cannot bind") && lines.contains(&"booting"),
        "{death}"
    );
    let run = death["run"].as_str().expect("an id");
    assert_eq!(node.get(&format!("/v1/runs/{run}")).json()["exit_code"], 3);
    assert_eq!(node.get(&format!("/v1/runs?prefix={run}")).json()[0]["run"], run);
    let raw = node.get(&format!("/v1/runs/{run}/logs/stderr"));
    assert_eq!(raw.body, b"cannot bind\n");
    assert_eq!(raw.header("gaffer-offset").as_deref(), Some("12"));
    assert_eq!(
        node.get(&format!("/v1/runs/{run}/logs/nope")).code(),
        "stream-not-found"
    );
    assert_eq!(node.get(&format!("/v1/runs/{run}/stats")).code(), "wrong-state");
}

#[test]
fn what_is_written_to_a_run_arrives_and_a_signal_too() {
    let node = Node::start();
    let script = "trap 'echo got-hup' HUP; while read line; do echo \"read $line\"; done; echo end";
    node.put("cat", script, &json!({"stdin": "pipe", "restart": "never"}));
    let run = node.job("cat")["instances"][0]["run"]
        .as_str()
        .expect("an id")
        .to_owned();
    let headers = "host: localhost\r\ncontent-type: application/octet-stream\r\nx-gaffer: 1\r\n";
    let log = || node.get(&format!("/v1/runs/{run}/logs/stdout")).body;
    let written = node.over_unix("POST", &format!("/v1/runs/{run}/input"), headers, b"one\n");
    assert_eq!(written.status, 204, "{written:?}");
    until("it is read", || log() == b"read one\n");
    let last = node.over_unix(
        "POST",
        &format!("/v1/runs/{run}/input?eof=true"),
        headers,
        b"two\n",
    );
    assert_eq!(last.status, 204, "{last:?}");
    until("it has ended", || log().ends_with(b"read two\nend\n"));
    let late = || node.over_unix("POST", &format!("/v1/runs/{run}/input"), headers, b"x");
    until("its end is known", || late().status == 409);
    assert_eq!(late().code(), "not-writable");
}

#[test]
fn a_one_off_has_a_run_and_an_exit_code() {
    let node = Node::start();
    node.put("web", "echo \"$0 $*\"; exit 7", &json!({"start": false}));
    let began = node.ask("POST", "/v1/jobs/default/web/run?wait=20s", Some(&json!({})));
    let operation = began.json();
    assert_eq!(began.status, 200, "{operation}");
    assert_eq!(operation["data"]["exit_code"], 7, "{operation}");
    let run = operation["data"]["run"].as_str().expect("an id");
    let lines = node.get(&format!("/v1/jobs/default/web/logs?run={run}")).lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[test]
fn a_one_off_has_a_terminal_of_the_asked_size_from_its_start() {
    let node = Node::start();
    node.put("web", "stty size", &json!({"start": false}));
    let printed = |request: &serde_json::Value| {
        let operation = node
            .ask("POST", "/v1/jobs/default/web/run?wait=20s", Some(request))
            .json();
        assert_eq!(operation["data"]["exit_code"], 0, "{operation}");
        let run = operation["data"]["run"].as_str().expect("an id");
        node.get(&format!("/v1/jobs/default/web/logs?run={run}")).lines()
    };
    let sized = printed(&json!({"pty": true, "cols": 91, "rows": 33}));
    assert!(sized[0].to_string().contains("33 91"), "{sized:?}");
    let plain = printed(&json!({"pty": true}));
    assert!(plain[0].to_string().contains("24 80"), "{plain:?}");
    let refused = node.ask(
        "POST",
        "/v1/jobs/default/web/run",
        Some(&json!({"pty": true, "cols": 0})),
    );
    assert_eq!(
        (refused.status, refused.code()),
        (400, "bad-value".to_owned()),
        "{refused:?}"
    );
}

#[test]
fn lists_come_in_pages() {
    let node = Node::start();
    for name in ["a", "b", "c"] {
        node.put(name, "sleep 1000", &json!({"start": false}));
    }
    let mut path = "/v1/jobs?limit=2".to_owned();
    let mut names = Vec::new();
    loop {
        let page = node.get(&path);
        names.extend(
            page.json()
                .as_array()
                .expect("a list")
                .iter()
                .map(|job| job["job"].to_string()),
        );
        let Some(link) = page.header("link") else { break };
        path = link.split(['<', '>']).nth(1).expect("a target").to_owned();
    }
    assert_eq!(names, ["\"a\"", "\"b\"", "\"c\""]);
}
