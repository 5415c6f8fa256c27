//! Lists and their pages and filters, the configuration, samples.

use crate::node::{Node, temp_dir, until};
use crate::streams::follow;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const LOOP: &str = "while :; do sleep 1; done";

/// All pages, joined.
fn pages(node: &Node, path: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let page = node.get(&path);
        assert!(pages.len() < 100 && page.status == 200, "{path}: {page:?}");
        pages.push(page.json().as_array().expect("a bare array").clone());
        let link = page.header("link");
        next = link.and_then(|link| Some(link.split(['<', '>']).nth(1)?.to_owned()));
    }
    pages
}

fn texts(items: &[Value], field: &str) -> Vec<String> {
    let text = |item: &Value| item[field].as_str().map(str::to_owned);
    items.iter().filter_map(text).collect()
}

#[test]
fn every_list_has_pages_and_refuses_a_limit_that_is_none() {
    let node = Node::start();
    for session in ["a", "b", "c"] {
        let spec = json!({"cmd": ["/bin/sleep", "1000"], "start": false});
        node.ask("PUT", &format!("/v1/jobs/{session}/web?wait=20s"), Some(&spec));
    }
    let sessions = pages(&node, "/v1/sessions?limit=2");
    assert_eq!(sessions.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(texts(&sessions.concat(), "session"), ["a", "b", "c"]);
    for list in [
        "/v1/jobs",
        "/v1/sessions",
        "/v1/nodes",
        "/v1/stats",
        "/v1/jobs/a/web/deaths",
    ] {
        for limit in ["0", "1001"] {
            assert_eq!(
                node.get(&format!("{list}?limit={limit}")).code(),
                "bad-value",
                "{list}"
            );
        }
    }
}

#[test]
fn deaths_have_pages_and_the_newest_have_their_last_lines() {
    let node = Node::start();
    let spec = json!({"cmd": "echo line; exit 3", "shell": true, "instances": 2,
        "retry": {"attempts": 5, "delay": "1ms", "max_delay": "1ms"}});
    node.ask("PUT", "/v1/jobs/default/web", Some(&spec));
    let all = || {
        node.get("/v1/jobs/default/web/deaths?limit=100")
            .json()
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    until("both gave up", || all().len() == 10);
    let runs = texts(&all(), "run");
    let pages = |path: &str| pages(&node, path);
    let of_job = pages("/v1/jobs/default/web/deaths?limit=4&lines=1");
    assert_eq!(of_job.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
    assert_eq!(texts(&of_job.concat(), "run"), runs);
    let with_lines = |page: &Vec<Value>| {
        page.iter()
            .map(|death| !death["last_lines"].is_null())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        with_lines(&of_job[1]),
        [true, false, false, false],
        "of each page the newest one"
    );
    assert!(with_lines(&all()).iter().all(|has| *has), "ten are fewer than 20");
    let of_instance = pages("/v1/jobs/default/web/instances/2/deaths?limit=2&lines=0");
    assert_eq!(of_instance.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    assert!(
        of_instance
            .concat()
            .iter()
            .all(|death| death["instance"] == 2 && death["last_lines"].is_null())
    );
    assert_eq!(
        node.get("/v1/jobs/default/web/deaths?cursor=x").code(),
        "bad-value"
    );
}

#[test]
fn labels_are_those_of_the_node_and_of_the_job() {
    let dir = temp_dir();
    let file = dir.path().join("gaffer.toml");
    let write = |zone: &str| {
        let text = format!(
            "[gaffer]\nlabels = {{ zone = \"{zone}\" }}\n[job.own]\ncmd = \"sleep 1000\"\nmeta.zone = \"asia\"\n\
             [job.plain]\ncmd = \"sleep 1000\"\n"
        );
        std::fs::write(&file, text).expect("writable");
    };
    write("eu");
    let node = Node::start_in(
        dir.clone(),
        &["--bind", "none", "-c", file.to_str().expect("text")],
    );
    let jobs = |label: &str| {
        texts(
            node.get(&format!("/v1/jobs?label={label}"))
                .json()
                .as_array()
                .expect("a list"),
            "job",
        )
    };
    assert_eq!(
        (jobs("zone=eu"), jobs("zone=asia")),
        (vec!["plain".to_owned()], vec!["own".to_owned()])
    );
    assert!(jobs("zone=us").is_empty() && jobs("zone=eu,tier=x").is_empty());
    assert_eq!(node.get("/v1/node").json()["labels"], json!({"zone": "eu"}));
    let nodes = |label: &str| {
        node.get(&format!("/v1/nodes?label={label}"))
            .json()
            .as_array()
            .map(Vec::len)
    };
    assert_eq!((nodes("zone=eu"), nodes("zone=us")), (Some(1), Some(0)));
    let session = node.get("/v1/sessions?label=zone=asia").json();
    assert_eq!(session[0]["jobs"], 1, "{session}");
    assert_eq!(node.get("/v1/jobs?label=zone").code(), "bad-value");
    // A change of the file counts without a new daemon.
    write("us");
    assert_eq!(node.post("/v1/node/reload").status, 202);
    until("the labels are those of the file", || {
        jobs("zone=us") == ["plain"]
    });
}

#[test]
fn the_configuration_is_a_file_that_changes_nothing_when_it_is_applied() {
    let node = Node::start();
    node.put(
        "web",
        LOOP,
        &json!({"env": {"A": "x \"y\" $$z"}, "stop": {"timeout": "7s"}, "instances": 2}),
    );
    node.put("b.c", LOOP, &json!({"start": false, "retry": {"attempts": 3}}));
    let answer = node.get("/v1/config");
    assert_eq!(answer.header("content-type").as_deref(), Some("application/toml"));
    let dir = temp_dir();
    let file = dir.path().join("gaffer.toml");
    std::fs::write(&file, &answer.body).expect("writable");
    let bundle =
        gaffer_config::gather(&[file], &gaffer_config::GatherOptions::default()).expect("it is read");
    let plan = node
        .ask("POST", "/v1/plan", Some(&json!({ "bundle": bundle })))
        .json();
    let changes = plan["changes"].as_array().expect("changes");
    let touched = |change: &&Value| change["action"] != "change" || change["keys"] != json!([]);
    assert!(!changes.iter().any(|change| touched(&change)), "{plan:#}");
    assert_eq!(plan["runs_ended"], 0, "{plan:#}");

    let by_format = node.get("/v1/config?format=json").json();
    assert_eq!(
        by_format["default"]["job"]["web"]["stop"]["timeout"], "7s",
        "{by_format}"
    );
    let by_accept = node.over_unix(
        "GET",
        "/v1/config",
        "host: localhost\r\naccept: application/json\r\n",
        b"",
    );
    assert_eq!(by_accept.json(), by_format);
    assert_eq!(node.get("/v1/config?format=yaml").code(), "bad-value");

    let spec = json!({"cmd": ["/bin/sleep", "1000"], "start": false});
    node.ask("PUT", "/v1/jobs/other/web?wait=20s", Some(&spec));
    assert_eq!(
        node.get("/v1/config").code(),
        "wrong-state",
        "one file cannot hold both"
    );
    let other = String::from_utf8(node.get("/v1/config?session=other").body).expect("text");
    assert!(
        other.starts_with("session = \"other\"\n") && other.contains("[job.web]"),
        "{other}"
    );
}

#[test]
fn samples_of_all_live_runs_come_as_a_list_and_as_a_stream() {
    let node = Node::start();
    node.put("web", LOOP, &json!({"instances": 2, "meta": {"tier": "front"}}));
    node.put("db", LOOP, &json!({}));
    node.put("off", LOOP, &json!({"start": false}));
    let all = pages(&node, "/v1/stats?limit=2");
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    let all = all.concat();
    let runs: BTreeSet<String> = texts(&all, "run").into_iter().collect();
    assert_eq!(runs.len(), 3, "{all:?}");
    assert!(
        all.iter()
            .all(|one| one["memory_bytes"].as_u64() > Some(0) && one["processes"].as_u64() >= Some(1))
    );
    let count = |query: &str| {
        node.get(&format!("/v1/stats?{query}"))
            .json()
            .as_array()
            .map(Vec::len)
    };
    assert_eq!(
        (
            count("job=web"),
            count("label=tier=front"),
            count("session=nobody")
        ),
        (Some(2), Some(2), Some(0))
    );
    assert_eq!(
        (count("state=running"), count("state=paused")),
        (Some(3), Some(0))
    );
    let stream = follow(&node, "/v1/stats?follow=true&job=web", "application/jsonl");
    let lines: Vec<Value> = stream
        .take(4)
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect();
    assert_eq!(lines.len(), 4);
    assert!(
        lines[2]["cpu_percent"].is_number(),
        "a share since the sample before: {lines:?}"
    );
    let sse: Vec<String> = follow(&node, "/v1/stats?follow=true&job=db", "text/event-stream")
        .take(3)
        .collect();
    assert!(
        sse[0].starts_with("id: ") && sse[1] == "event: stats" && sse[2].starts_with("data: {"),
        "{sse:?}"
    );
}

const WORK: &str = r#"
env_file = [".env"]
[task.etl]
params.day = "today"
[task.etl.step.b]
cmd = "true {{params.day}}"
[task.etl.step.a]
cmd = "true"
after = ["b"]
[queue.mail]
cmd = "true"
retry.attempts = 3
kind.etl.task = "etl"
[schedule.nightly]
cron = "30 3 * * *"
queue = "mail"
payload = { to = "{{tick.date}}" }
[webhook.chat]
url = "http://127.0.0.1:9/x?token=hidden"
headers = { X-Key = "hidden" }
"#;

#[test]
fn tasks_queues_and_schedules_are_in_the_configuration_too() {
    let node = Node::start();
    let dir = temp_dir();
    let file = dir.path().join("gaffer.toml");
    std::fs::write(dir.path().join(".env"), "TOKEN=canary\n").expect("writable");
    std::fs::write(&file, WORK).expect("writable");
    let bundle = |file: &std::path::Path| {
        gaffer_config::gather(&[file.to_owned()], &gaffer_config::GatherOptions::default())
            .expect("it is read")
    };
    let applied = node.ask(
        "POST",
        "/v1/apply?wait=20s",
        Some(&json!({ "bundle": bundle(&file) })),
    );
    assert!(applied.status < 300, "{:#}", applied.json());
    let toml = String::from_utf8(node.get("/v1/config").body).expect("text");
    let json = node.get("/v1/config?format=json").json();
    for hidden in ["canary", "hidden", "env_digest"] {
        assert!(
            !toml.contains(hidden) && !json.to_string().contains(hidden),
            "{toml}\n{json}"
        );
    }
    let of = &json["default"];
    assert_eq!(of["queue"]["mail"]["retry"]["attempts"], 3, "{json}");
    assert_eq!(of["task"]["etl"]["step"]["a"]["cmd"], json!(["true"]), "{json}");
    assert_eq!(
        of["schedule"]["nightly"]["payload"]["to"], "{{tick.date}}",
        "{json}"
    );
    assert_eq!(of["webhook"]["chat"]["url"], "http://127.0.0.1:9/x?***", "{json}");
    let queue = node.get("/v1/queues/default/mail?spec=true").json();
    assert!(
        queue["spec"]["cmd"].is_array() && queue["spec"].get("env_digest").is_none(),
        "{queue}"
    );

    // In the place of the file it changes nothing; the webhook in it is a comment.
    std::fs::write(&file, &toml).expect("writable");
    let plan = node
        .ask("POST", "/v1/plan", Some(&json!({ "bundle": bundle(&file) })))
        .json();
    let changes = plan["changes"].as_array().expect("changes");
    let others: Vec<&Value> = changes
        .iter()
        .filter(|change| change["kind"] != "webhook")
        .collect();
    assert!(others.is_empty(), "{plan:#}");
}
