//! Tasks that the daemon leads.

use crate::{SOON, WAITS, said, story, task};
use gaffer_testkit::node::Node;
use gaffer_testkit::wait_until;
use serde_json::{Value, json};
use std::path::Path;

fn node_json(node: &Node, words: &[&str]) -> (i32, Value) {
    let output = node.cli(&[&["task", "--json"], words].concat());
    (
        output.status.code().unwrap_or(-1),
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
    )
}

fn write(dir: &Path, task: &Value) -> String {
    let file = dir.join("t.json");
    std::fs::write(&file, task.to_string()).expect("a file");
    file.to_string_lossy().into_owned()
}

#[test]
fn the_daemon_leads_tasks_and_the_next_one_adopts_them() {
    let mut node = Node::start();
    let work = node.root().join("work");
    std::fs::create_dir(&work).expect("a folder");
    let file = write(&work, &task(json!([{"name": "a", "cmdline": WAITS}]), json!({})));
    let cwd = work.to_string_lossy().into_owned();
    let started = node.cli(&["task", "start", &file, "--id", "n-1", "--cwd", &cwd]);
    assert_eq!(said(&started), "n-1\n");
    wait_until(SOON, "the step", || work.join("begun").exists());
    node.kill9();
    node.start_again();
    let (_, listed) = node_json(&node, &["ls", "--active"]);
    assert_eq!(listed[0]["id"], "n-1");
    std::fs::write(work.join("go"), "").expect("a file");
    let (code, done) = node_json(&node, &["wait", "n-1"]);
    assert_eq!((code, story(&done, "a")), (0, "success:0".into()));
    assert_eq!(std::fs::read_to_string(work.join("begun")).expect("read"), "x\n");
    let (status, again) = node.http("GET", "/v1/tasks/n-1?spec=true", None);
    assert_eq!((status, &again["spec"]["name"]), (200, &json!("t")));
    assert_eq!(node.http("GET", "/v1/tasks/none", None).0, 404);
    let (status, wrong) = node.http("POST", "/v1/tasks", Some(&json!({"task": {"name": "x"}})));
    assert_eq!((status, &wrong["error"]["code"]), (422, &json!("invalid-config")));
    assert_eq!(node.http("POST", "/v1/tasks/n-1/kill", None).0, 409);
    node.stop(SOON);
}

#[test]
fn the_daemon_pauses_and_kills_tasks() {
    let mut node = Node::start();
    let work = node.root().join("work");
    std::fs::create_dir(&work).expect("a folder");
    let file = write(&work, &task(json!([{"name": "a", "cmdline": WAITS}]), json!({})));
    let cwd = work.to_string_lossy().into_owned();
    assert_eq!(
        node.cli(&["task", "start", &file, "--id", "p", "--cwd", &cwd])
            .status
            .code(),
        Some(0)
    );
    wait_until(SOON, "the step", || work.join("begun").exists());
    let (code, _) = node_json(&node, &["pause", "p"]);
    assert_eq!(code, 0);
    wait_until(SOON, "paused", || {
        node_json(&node, &["status", "p"]).1["paused"] == true
    });
    assert_eq!(node_json(&node, &["resume", "p"]).0, 0);
    wait_until(SOON, "no more", || {
        node_json(&node, &["status", "p"]).1["paused"] == false
    });
    let (code, killed) = node_json(&node, &["kill", "p", "--force"]);
    assert_eq!(
        (code, &killed["state"], story(&killed, "a")),
        (0, &json!("killed"), "killed:SIGKILL".into())
    );
    assert_eq!(node_json(&node, &["wait", "p"]).0, 1);
    assert_eq!(node.cli(&["task", "kill", "nobody"]).status.code(), Some(3));
    node.stop(SOON);
}

/// The answer says that it is accepted: from then on it may not be lost, however soon the daemon is killed.
#[test]
fn a_task_that_was_accepted_is_led_by_the_next_daemon() {
    let mut node = Node::start();
    for n in 0..8 {
        let id = format!("t-{n}");
        let body = json!({"id": id, "name": "t", "task": {"cmd": ["true"], "cwd": "/"}});
        assert_eq!(node.http("POST", "/v1/tasks", Some(&body)).0, 201);
        node.kill9();
        node.start_again();
        let (code, done) = node_json(&node, &["wait", &id, "--timeout", "60s"]);
        assert_eq!((code, &done["state"]), (0, &json!("success")), "{id}");
    }
    node.stop(SOON);
}
