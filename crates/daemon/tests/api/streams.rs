//! Events and lines that are followed, resumed, and read too slowly.

use crate::node::{Node, SOON, until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

/// Opens a stream and gives its lines (chunk sizes left out).
pub fn follow(node: &Node, path: &str, accept: &str) -> impl Iterator<Item = String> + use<> {
    let mut stream = UnixStream::connect(node.socket()).expect("connects");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n"
    )
    .expect("taken");
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(lines.by_ref().next().is_some_and(|line| line.contains("200")));
    lines
        .by_ref()
        .find(String::is_empty)
        .expect("the end of the head");
    lines.filter(|line| !line.is_empty() && !line.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn events(node: &Node, query: &str) -> Vec<Value> {
    node.get(&format!("/v1/events{query}")).lines()
}

#[test]
fn events_resume_behind_a_cursor_without_loss_or_repeat() {
    let node = Node::start();
    node.put("web", "while :; do sleep 1; done", &json!({}));
    let all = events(&node, "");
    assert!(all.len() >= 2, "{all:?}");
    let cursor = all[0]["cursor"].as_str().expect("a cursor");
    let rest = events(&node, &format!("?after={cursor}"));
    assert_eq!(&rest[..all.len() - 1], &all[1..]);
    let only = events(&node, "?filter=run.*");
    assert!(
        !only.is_empty()
            && only.iter().all(|event| event["event"]
                .as_str()
                .is_some_and(|name| name.starts_with("run.")))
    );
}

#[test]
fn a_cursor_of_a_daemon_that_is_gone_gets_one_gap_and_then_what_is_kept() {
    let node = Node::start();
    node.put("web", "while :; do sleep 1; done", &json!({}));
    let last = events(&node, "").pop().expect("an event");
    let cursor = last["cursor"].as_str().expect("a cursor").to_owned();
    let before = node.job("web")["instances"][0]["run"].clone();
    let node = Node::start_in(node.kill9(), &["--bind", "none"]);
    until("it is adopted", || {
        node.job("web")["instances"][0]["pid"].as_u64().is_some()
    });
    assert_eq!(
        node.job("web")["instances"][0]["run"],
        before,
        "adopted, not started again"
    );
    let resumed = events(&node, &format!("?after={cursor}"));
    assert_eq!(resumed[0]["event"], "gap", "{resumed:?}");
    assert!(
        resumed[1..]
            .iter()
            .all(|event| event["event"] != "gap" && event["epoch"] == 2)
    );
    assert!(
        resumed.iter().any(|event| event["event"] == "run.adopted"),
        "{resumed:?}"
    );
}

#[test]
fn server_sent_events_carry_their_cursor() {
    let node = Node::start();
    let mut lines = follow(&node, "/v1/events?follow=true&after=start", "text/event-stream");
    node.put("web", "while :; do sleep 1; done", &json!({}));
    let id = lines
        .by_ref()
        .find_map(|line| line.strip_prefix("id: ").map(str::to_owned))
        .expect("an id");
    let data = lines
        .by_ref()
        .find_map(|line| line.strip_prefix("data: ").map(str::to_owned))
        .expect("data");
    let event: Value = serde_json::from_str(&data).expect("JSON");
    assert_eq!(event["cursor"], id.as_str());
}

#[test]
fn a_reader_that_never_reads_costs_nothing_and_is_told_what_it_missed() {
    let node = Node::start();
    node.put("web", "sleep 1000", &json!({"start": false}));
    let slow = follow(&node, "/v1/events?follow=true&after=start", "application/jsonl");
    // More than the ring and the socket keep, while nobody reads.
    let mut newest = 0;
    for round in 0..20 {
        for n in 0..500 {
            let to = if n % 2 == 0 { "2" } else { "1" };
            assert_eq!(
                node.ask("POST", "/v1/jobs/default/web/scale", Some(&json!({"to": to})))
                    .status,
                202,
                "{round}"
            );
        }
        newest = events(&node, "").pop().expect("an event")["seq"]
            .as_u64()
            .expect("a number");
        if newest > 5500 {
            break;
        }
    }
    assert!(newest > 5500, "{newest}");
    let mut gaps = 0;
    for line in slow {
        let event: Value = serde_json::from_str(&line).expect("JSON");
        gaps += u32::from(event["event"] == "gap");
        if event["seq"].as_u64() == Some(newest) {
            break;
        }
    }
    assert_eq!(gaps, 1, "it fell behind once");
}

#[test]
fn lines_of_all_instances_and_streams_come_in_the_order_of_time() {
    let node = Node::start();
    let script =
        "echo out $INSTANCE; sleep 0.05; echo err $INSTANCE >&2; sleep 0.05; printf unfinished; sleep 1000";
    node.put("web", script, &json!({"instances": 2}));
    let lines = || node.get("/v1/jobs/default/web/logs").lines();
    until("all have written", || lines().len() == 6);
    let lines = lines();
    let times: Vec<&str> = lines.iter().filter_map(|line| line["time"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(
        lines.iter().all(|line| line["run"].as_str().is_some()),
        "{lines:?}"
    );
    assert_eq!(node.get("/v1/jobs/default/web/logs?tail=2").lines(), lines[4..]);
    let only = node
        .get("/v1/jobs/default/web/logs?stream=stderr&instance=2")
        .lines();
    assert_eq!(only.len(), 1);
    assert_eq!(
        (only[0]["text"].as_str(), only[0]["subject"].as_str()),
        (Some("err 2"), Some("default.web.2"))
    );
    let found = node.get("/v1/jobs/default/web/logs?grep=%5Eout").lines();
    assert_eq!(found.len(), 2);
    assert_eq!(node.get("/v1/jobs/default/web/logs?grep=(").code(), "bad-value");
    assert_eq!(
        node.get("/v1/jobs/default/web/logs?stream=nope").code(),
        "stream-not-found"
    );
}

#[test]
fn following_lines_goes_on_through_a_restart_of_the_job() {
    let node = Node::start();
    node.put("web", "echo first-$GAFFER_RUN; sleep 1000", &json!({}));
    let run = |node: &Node| {
        node.job("web")["instances"][0]["run"]
            .as_str()
            .expect("an id")
            .to_owned()
    };
    let old = run(&node);
    let mut lines = follow(
        &node,
        "/v1/jobs/default/web/logs?follow=true&events=true",
        "application/jsonl",
    )
    .map(|line| serde_json::from_str::<Value>(&line).expect("JSON"));
    let text = |run: &str| format!("first-{run}");
    lines
        .by_ref()
        .find(|line| line["text"] == text(&old).as_str())
        .expect("the first line");
    node.post("/v1/jobs/default/web/restart?wait=20s");
    let new = run(&node);
    assert_ne!(old, new);
    let seen: Vec<Value> = {
        let mut seen = Vec::new();
        for line in lines.by_ref() {
            let done = line["text"] == text(&new).as_str();
            seen.push(line);
            if done {
                break;
            }
        }
        seen
    };
    assert!(
        seen.iter()
            .any(|line| line["stream"] == "event" && line["run"] == old.as_str()),
        "{seen:?}"
    );
}
