//! Draining: nothing new, tasks to their end, jobs in order, and all of it over restarts and kills.

use crate::peer::SOON;
use gaffer_testkit::{Node, wait_until};
use serde_json::{Value, json};
use std::path::Path;

/// A queue whose worker goes on until a file is there, a job that another one needs, and a schedule of every second.
fn start(dir: &Path) -> Node {
    let text = format!(
        "[gaffer]\nname = \"alpha\"\n\
         [queue.slow]\ncmd = [\"/bin/sh\", \"-c\", \"touch {0}/working; while ! [ -e {0}/go ]; do sleep 0.05; done\"]\nworkers = 1\nstop = \"2s\"\n\
         [schedule.often]\nevery = \"1s\"\nqueue = \"slow\"\nstart = false\n\
         [job.db]\ncmd = [\"/bin/sh\", \"-c\", \"trap 'echo db >> {0}/ended; exit' TERM; while :; do sleep 0.05; done\"]\n\
         [job.web]\ncmd = [\"/bin/sh\", \"-c\", \"trap 'echo web >> {0}/ended; exit' TERM; while :; do sleep 0.05; done\"]\nafter = [\"db\"]\n\
         [job.once]\ncmd = [\"/bin/sh\", \"-c\", \"echo x >> {0}/once\"]\nrestart = \"never\"\n",
        dir.display()
    );
    let mut node = Node::builder().config("gaffer.toml", &text).start();
    is(&mut node, "web", "running");
    is(&mut node, "once", "exited");
    node
}

#[track_caller]
fn is(node: &mut Node, job: &str, state: &str) {
    wait_until(SOON, &format!("{job} is {state}"), || {
        node.get(&format!("/v1/jobs/default/{job}"))["state"] == state
    });
}

fn push(node: &mut Node, count: usize) {
    let tasks: Vec<Value> = (0..count).map(|n| json!({ "payload": n })).collect();
    let (status, answer) = node.http("POST", "/v1/queues/default/slow/tasks", Some(&json!(tasks)));
    assert_eq!(status, 201, "{answer}");
}

fn state(node: &mut Node) -> String {
    let node = node.get("/v1/node");
    node["state"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn refused(node: &mut Node, path: &str, body: &Value) {
    let (status, error) = node.http("POST", path, Some(body));
    let message = error["error"]["message"].as_str().unwrap_or_default();
    assert!(
        status == 409 && message.contains("gaffer node drain --undo"),
        "{path}: {status} {error}"
    );
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_drained_node_ends_its_tasks_then_its_jobs_in_order_and_works_again_once_that_is_undone() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = start(dir.path());
    push(&mut node, 3);
    wait_until(SOON, "a task is worked on", || {
        dir.path().join("working").exists()
    });
    let (status, answer) = node.http("POST", "/v1/node/drain", Some(&json!({})));
    assert_eq!((status, &answer["state"]), (202, &json!("draining")), "{answer}");
    assert!(
        answer["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("1 task goes on")),
        "{answer}"
    );
    // Nothing new begins; what may be needed by the task goes on.
    for (path, body) in [
        ("/v1/jobs/default/once/start", json!({})),
        ("/v1/jobs/default/web/restart", json!({})),
        ("/v1/jobs/default/web/run", json!({})),
        ("/v1/queues/default/slow/claim", json!({"worker": "w"})),
        ("/v1/schedules/default/often/trigger", json!({})),
    ] {
        refused(&mut node, path, &body);
    }
    push(&mut node, 1);
    assert_eq!(node.get("/v1/jobs/default/web")["state"], "running");
    let doctor = node.get("/v1/doctor");
    let checks = doctor["checks"].as_array().cloned().unwrap_or_default();
    assert!(
        checks
            .iter()
            .any(|check| check["name"] == "drain" && check["state"] == "limited"),
        "{doctor}"
    );
    // A daemon that is killed goes on draining.
    node.kill9();
    node.start_again();
    assert_eq!(state(&mut node), "draining");
    assert_eq!(read(&dir.path().join("ended")), "");
    std::fs::write(dir.path().join("go"), "").expect("written");
    let (status, drained) = node.http("GET", "/v1/node/drain?wait=30s", None);
    assert_eq!((status, &drained["state"]), (200, &json!("drained")), "{drained}");
    assert_eq!(read(&dir.path().join("ended")), "web\ndb\n");
    node.assert_no_job_processes();
    // The others wait, and so they do for the next daemon.
    let waiting = |node: &mut Node| node.get("/v1/queues/default/slow")["waiting"].clone();
    assert_eq!(waiting(&mut node), 3);
    let web = node.get("/v1/jobs/default/web");
    assert_eq!(
        (&web["wish"], &web["state"]),
        (&json!("running"), &json!("stopped")),
        "{web}"
    );
    node.kill9();
    node.start_again();
    wait_until(SOON, "it is drained again", || state(&mut node) == "drained");
    node.assert_no_job_processes();
    assert_eq!(waiting(&mut node), 3);
    let (status, answer) = node.http("DELETE", "/v1/node/drain", None);
    assert_eq!((status, &answer["state"]), (200, &json!("up")), "{answer}");
    is(&mut node, "web", "running");
    wait_until(SOON, "the queue is worked off", || waiting(&mut node) == 0);
    node.kill9();
    node.start_again();
    assert_eq!(state(&mut node), "up");
}

#[test]
fn when_the_time_is_over_tasks_of_queues_are_given_back_and_jobs_stop_all_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut node = start(dir.path());
    push(&mut node, 1);
    wait_until(SOON, "a task is worked on", || {
        dir.path().join("working").exists()
    });
    let path = "/v1/nodes/alpha/drain?wait=30s";
    let (status, drained) = node.http("POST", path, Some(&json!({"deadline": "300ms"})));
    assert_eq!((status, &drained["state"]), (200, &json!("drained")), "{drained}");
    node.assert_no_job_processes();
    let queue = node.get("/v1/queues/default/slow");
    assert_eq!(
        (&queue["waiting"], &queue["running"]),
        (&json!(1), &json!(0)),
        "{queue}"
    );
    // A job that is defined now stays down, and comes up when that is undone.
    let spec = json!({ "cmd": [node.fixture(), "idle"], "cwd": "/", "stop": { "timeout": "5s" } });
    node.put_job("default", "late", &spec);
    assert_eq!(node.get("/v1/jobs/default/late")["state"], "stopped");
    let events = node.request("GET", "/v1/events?filter=node.*", None).text();
    let told: Vec<Value> = events
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let told: Vec<&str> = told.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(told, ["node.closed", "node.drained"]);
    assert_eq!(node.http("DELETE", "/v1/nodes/alpha/drain", None).0, 200);
    is(&mut node, "late", "running");
}
