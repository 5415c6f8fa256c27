//! One request for many jobs.

use crate::node::{Node, until};
use serde_json::{Value, json};

const LOOP: &str = "while :; do sleep 1; done";

fn ask(node: &Node, verb: &str, body: &Value) -> Value {
    let answer = node.ask("POST", &format!("/v1/jobs/{verb}?wait=20s"), Some(body));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Target and state of each outcome.
fn outcomes(operation: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = operation["outcomes"].as_array().expect("outcomes");
    list.iter()
        .map(|outcome| (text(&outcome["target"]), text(&outcome["state"])))
        .collect()
}

fn expect(list: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(target, state): &(&str, &str)| ((*target).to_owned(), (*state).to_owned());
    list.iter().map(own).collect()
}

fn commits(node: &Node) -> u64 {
    let text = String::from_utf8(node.get("/metrics").body).expect("text");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("gaffer_store_commits_total "));
    line.and_then(|count| count.parse().ok()).expect("a count")
}

#[test]
fn many_jobs_are_asked_in_one_request_and_each_has_its_outcome() {
    let node = Node::start();
    node.put("a", LOOP, &json!({}));
    node.put("b", LOOP, &json!({"instances": 2}));
    let jobs = json!([
        "default.a",
        "default.nope",
        "default.b.2",
        "default.b.7",
        "default.a"
    ]);
    let stopped = ask(&node, "stop", &json!({ "jobs": jobs }));
    assert_eq!(
        outcomes(&stopped),
        expect(&[
            ("default.a", "done"),
            ("default.nope", "refused"),
            ("default.b.2", "done"),
            ("default.b.7", "refused"),
        ])
    );
    assert_eq!(
        (stopped["verb"].as_str(), stopped["state"].as_str()),
        (Some("stop"), Some("failed"))
    );
    assert_eq!(stopped["outcomes"][1]["reason_code"], "job-not-found");
    assert_eq!(stopped["outcomes"][3]["reason_code"], "instance-not-found");
    assert_eq!(
        stopped["reason"], "2 of 4 failed; default.nope: no job `nope` in session default",
        "{stopped}"
    );
    assert_eq!(node.job("a")["state"], "stopped");
    let states = |job: &Value| {
        [
            job["instances"][0]["state"].clone(),
            job["instances"][1]["state"].clone(),
        ]
    };
    assert_eq!(states(&node.job("b")), ["running", "stopped"]);

    let started = ask(&node, "start", &json!({"jobs": ["default.a", "default.b"]}));
    assert_eq!(started["state"], "done", "{started}");
    assert_eq!(node.job("b")["state"], "running");
    // Named twice is meant once.
    let scaled = ask(
        &node,
        "scale",
        &json!({"jobs": ["default.a", "default.b", "default.a"], "to": "+1"}),
    );
    assert_eq!(scaled["state"], "done", "{scaled}");
    assert_eq!(
        [node.job("a")["target"].clone(), node.job("b")["target"].clone()],
        [2, 3]
    );
    let signalled = ask(
        &node,
        "signal",
        &json!({"jobs": ["default.a", "default.nope"], "signal": "CONT"}),
    );
    assert_eq!(
        outcomes(&signalled),
        expect(&[("default.a", "done"), ("default.nope", "refused")])
    );
    let removed = ask(&node, "remove", &json!({"jobs": ["default.a", "default.b"]}));
    assert_eq!(removed["state"], "done", "{removed}");
    assert_eq!(node.get("/v1/jobs").json(), json!([]));
}

#[test]
fn many_wishes_are_one_commit() {
    let node = Node::start();
    let jobs: Vec<String> = (0..20).map(|n| format!("default.j{n}")).collect();
    for n in 0..20 {
        node.put(&format!("j{n}"), LOOP, &json!({"start": false}));
    }
    let before = commits(&node);
    // They are stopped already: nothing ends, so that nothing else is committed.
    let stopped = ask(&node, "stop", &json!({ "jobs": jobs }));
    assert_eq!(stopped["state"], "done", "{stopped}");
    assert_eq!(commits(&node) - before, 1);
}

#[test]
fn wishes_for_many_outlive_a_kill_right_behind_the_answer() {
    let node = Node::start();
    for name in ["a", "b", "c"] {
        node.put(name, LOOP, &json!({}));
    }
    let body = json!({"jobs": ["default.a", "default.b", "default.c"]});
    let asked = node.ask("POST", "/v1/jobs/stop", Some(&body));
    assert_eq!(asked.status, 202, "{asked:?}");
    let node = Node::start_in(node.kill9(), &["--bind", "none"]);
    for name in ["a", "b", "c"] {
        until("it is stopped", || {
            let job = node.job(name);
            job["wish"] == "stopped" && job["state"] == "stopped"
        });
    }
}

#[test]
fn a_request_for_many_that_cannot_be_meant_is_refused_whole() {
    let node = Node::start();
    node.put("a", LOOP, &json!({}));
    let refusal = |verb: &str, body: Value| node.ask("POST", &format!("/v1/jobs/{verb}"), Some(&body)).code();
    assert_eq!(refusal("stop", json!({"jobs": []})), "bad-value");
    assert_eq!(refusal("stop", json!({})), "bad-request");
    assert_eq!(
        refusal("stop", json!({"jobs": vec!["default.a"; 10_001]})),
        "bad-value"
    );
    for name in ["a", "default.a/1", "default.", ".a", "default.a.99999999999"] {
        assert_eq!(
            refusal("stop", json!({"jobs": ["default.a", name]})),
            "bad-name",
            "{name}"
        );
    }
    assert_eq!(
        refusal("explode", json!({"jobs": ["default.a"]})),
        "route-not-found"
    );
    for (verb, more) in [
        ("start", json!({"force": true})),
        ("stop", json!({"to": "+1"})),
        ("scale", json!({"to": "+1", "how": "surge"})),
        ("scale", json!({})),
        ("signal", json!({"signal": "HUP", "grace_ms": 1})),
        ("signal", json!({"to": "all"})),
        ("remove", json!({"force": true})),
        ("stop", json!({"color": "red"})),
    ] {
        let mut body = more.clone();
        body["jobs"] = json!(["default.a"]);
        assert_eq!(refusal(verb, body), "bad-request", "{verb} {more}");
    }
    assert_eq!(node.job("a")["wish"], "running");
}
