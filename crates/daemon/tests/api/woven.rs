//! The lines of several jobs in one answer.

use crate::node::{Node, until};
use crate::streams::follow;
use serde_json::{Value, json};

/// Subject and text of each line.
fn said(lines: &[Value]) -> Vec<(&str, &str)> {
    lines
        .iter()
        .map(|line| {
            (
                line["subject"].as_str().unwrap_or_default(),
                line["text"].as_str().unwrap_or_default(),
            )
        })
        .collect()
}

fn put(node: &Node, session: &str, job: &str, script: &str) {
    let spec = json!({"cmd": script, "shell": true, "restart": "never"});
    let answer = node.ask("PUT", &format!("/v1/jobs/{session}/{job}?wait=20s"), Some(&spec));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// A job that has said one line.
fn speaker(node: &Node, session: &str, job: &str) {
    put(node, session, job, &format!("echo {job}; sleep 1000"));
    let path = format!("/v1/jobs/{session}/{job}/logs");
    until("its line is kept", || node.get(&path).lines().len() == 1);
}

#[test]
fn lines_of_many_jobs_are_in_the_order_of_time() {
    let node = Node::start();
    for (session, job) in [("a", "one"), ("b", "two"), ("a", "three"), ("b", "four")] {
        speaker(&node, session, job);
    }
    let lines = |query: &str| node.get(&format!("/v1/logs?{query}")).lines();
    assert_eq!(
        said(&lines("")),
        [
            ("a.one.1", "one"),
            ("b.two.1", "two"),
            ("a.three.1", "three"),
            ("b.four.1", "four")
        ]
    );
    assert_eq!(
        said(&lines("tail=2")),
        [("a.three.1", "three"), ("b.four.1", "four")]
    );
    assert_eq!(
        said(&lines("session=a")),
        [("a.one.1", "one"), ("a.three.1", "three")]
    );
    assert_eq!(
        said(&lines("jobs=b.four,a.one.1")),
        [("a.one.1", "one"), ("b.four.1", "four")]
    );
    assert_eq!(
        said(&lines("grep=^t")),
        [("b.two.1", "two"), ("a.three.1", "three")]
    );
    assert!(lines("session=nobody").is_empty() && lines("stream=stderr").is_empty());
    let code = |query: &str| node.get(&format!("/v1/logs?{query}")).code();
    assert_eq!(code("jobs=a.one,a.nope"), "job-not-found");
    assert_eq!(code("jobs=a.one.7"), "instance-not-found");
    assert_eq!(code("jobs=one"), "bad-name");
    assert_eq!(code("jobs=a.one&session=a"), "bad-request");
    assert_eq!(code("stream=nope"), "stream-not-found");
}

#[test]
fn a_followed_filter_takes_up_jobs_that_are_added_later() {
    let node = Node::start();
    speaker(&node, "a", "one");
    let mut lines = follow(&node, "/v1/logs?session=a&follow=true", "application/jsonl");
    let mut next = || -> Value { serde_json::from_str(&lines.next().expect("a line")).expect("JSON") };
    assert_eq!(next()["text"], "one");
    put(&node, "b", "other", "echo other; sleep 1000");
    put(&node, "a", "two", "echo two; sleep 1000");
    assert_eq!(next()["text"], "two");
    // What a job of the same name said in an earlier life is not said again, what it says in the new one is.
    node.ask("DELETE", "/v1/jobs/a/two?wait=20s", None);
    put(&node, "a", "two", "echo again; sleep 1000");
    assert_eq!(next()["text"], "again");
    put(&node, "a", "three", "echo three");
    assert_eq!(next()["text"], "three");
}

#[test]
fn many_jobs_are_followed_to_the_end_of_the_daemon_over_one_connection() {
    let node = Node::start();
    let lines = follow(&node, "/v1/logs?follow=true&events=true", "application/jsonl");
    for n in 0..30 {
        put(
            &node,
            "a",
            &format!("j{n}"),
            &format!("trap 'echo bye {n}; exit 0' TERM; while :; do sleep 0.05; done"),
        );
    }
    let (_dir, status) = node.end("stop");
    assert_eq!(status.code(), Some(0));
    let lines: Vec<Value> = lines
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect();
    for n in 0..30 {
        let subject = format!("a.j{n}.1");
        let of_job: Vec<&str> = said(&lines)
            .into_iter()
            .filter(|(who, _)| *who == subject)
            .map(|(_, text)| text)
            .collect();
        let bye = of_job.iter().position(|text| *text == format!("bye {n}"));
        assert!(
            bye.is_some_and(|at| at + 1 < of_job.len()),
            "its end comes behind its last line: {of_job:?}"
        );
    }
}
