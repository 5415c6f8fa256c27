//! Standing orders with real processes: a job that restarts at once does so without the daemon, and none is lost or doubled.

use gaffer_testkit::{Node, process, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn at_once(node: &mut Node) -> u32 {
    let fixture = node.fixture();
    let retry = json!({ "delay": "0s", "jitter": 0 });
    node.put_job(
        "default",
        "web",
        &json!({ "cmd": [fixture, "idle"], "restart": "always", "retry": retry }),
    );
    pid(&node.wait_job("default", "web", SOON, |job| job["state"] == "running"))
}

fn pid(job: &Value) -> u32 {
    let pid = job["instances"][0]["pid"].as_u64().expect("a live pid");
    u32::try_from(pid).expect("a pid")
}

fn deaths(node: &mut Node) -> Vec<Value> {
    let list = node.get("/v1/jobs/default/web/deaths?limit=1000");
    list.as_array().cloned().unwrap_or_default()
}

/// Kills the one copy there is, and waits until there is another one.
fn replaced(node: &Node, old: u32) -> u32 {
    let handle = process::Handle::open(old).expect("it lives");
    handle.signal(Signal::KILL);
    wait_for(SOON, "a successor", || {
        let live: Vec<u32> = node
            .job_processes()
            .iter()
            .filter(|one| !one.is_zombie())
            .map(|one| one.pid)
            .filter(|pid| *pid != old)
            .collect();
        assert!(live.len() <= 1, "two copies: {live:?}");
        live.first().copied()
    })
}

#[test]
fn each_end_of_a_run_is_followed_by_one_start_and_has_one_record() {
    let mut node = Node::start();
    let mut live = at_once(&mut node);
    for _ in 0..30 {
        live = replaced(&node, live);
    }
    wait_until(SOON, "all ends are settled", || deaths(&mut node).len() == 30);
    for death in deaths(&mut node) {
        assert_eq!(
            (&death["cause"], &death["signal"]),
            (&json!("signal"), &json!("SIGKILL")),
            "{death}"
        );
    }
    let job = node.wait_job("default", "web", SOON, |job| job["state"] == "running");
    assert_eq!((pid(&job), &job["instances"][0]["restarts"]), (live, &json!(30)));
}

#[test]
fn without_a_daemon_the_next_run_starts_and_a_new_daemon_takes_charge_of_it() {
    let mut node = Node::start();
    let old = at_once(&mut node);
    node.kill9();
    let live = replaced(&node, old);
    node.start_again();
    let job = node.wait_job("default", "web", SOON, |job| job["state"] == "running");
    assert_eq!(pid(&job), live);
    let list = wait_for(SOON, "the death is settled", || {
        Some(deaths(&mut node)).filter(|list| !list.is_empty())
    });
    assert_eq!((list.len(), &list[0]["signal"]), (1, &json!("SIGKILL")));
    // It has an order of its own again.
    let next = replaced(&node, live);
    node.wait_job("default", "web", SOON, |job| {
        job["state"] == "running" && pid(job) == next
    });
}

#[test]
fn a_stop_leaves_nothing_however_often_the_runs_end_meanwhile() {
    let mut node = Node::start();
    let fixture = node.fixture();
    let retry = json!({ "delay": "0s", "jitter": 0 });
    let spec = json!({ "cmd": [fixture, "exit", "1"], "instances": 4, "retry": retry });
    for _ in 0..10 {
        node.put_job("default", "web", &spec);
        wait_until(SOON, "some have ended", || deaths(&mut node).len() > 20);
        let (status, answer) = node.http("POST", "/v1/jobs/default/web/stop?wait=20s", Some(&json!({})));
        assert!(status < 300, "{status} {answer}");
        node.assert_no_job_processes();
        node.http("DELETE", "/v1/jobs/default/web?wait=20s", None);
    }
}
