//! What the original did wrong, by the number of the defect: it is not done here.

use crate::{Old, SOON};
use gaffer_testkit::wait_until;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::time::Duration;

fn update(old: &mut Old, more: &Value) {
    let mut template = json!({"name": "web", "cmd": "sleep", "args": ["1000"]});
    for (key, value) in more.as_object().into_iter().flatten() {
        template[key] = value.clone();
    }
    let (status, answer) = old.ask("PUT", "/jobs/s/web", &template);
    assert_eq!(status, 201, "{answer}");
}

#[test]
fn d13_an_update_with_start_starts_a_job_that_is_stopped() {
    let mut old = Old::start();
    old.sleeper("web", &json!({"start": false}));
    assert!(old.pids("web").is_empty());
    update(&mut old, &json!({"start": true}));
    old.wait_pids("web", 1);
}

#[test]
fn d14_an_update_can_make_a_job_smaller() {
    let mut old = Old::start();
    old.sleeper("web", &json!({"numprocesses": 3}));
    old.wait_pids("web", 3);
    update(&mut old, &json!({"numprocesses": 1}));
    old.wait_pids("web", 1);
    assert_eq!(old.shown("/jobs/s/web/numprocesses"), json!({"numprocesses": 1}));
}

#[test]
fn d18_the_end_of_the_node_ends_what_was_committed_to_a_stopped_job() {
    let mut old = Old::start();
    old.sleeper("web", &json!({"start": false}));
    let (status, commit) = old.ask("POST", "/jobs/s/web/commit", &json!({}));
    assert_eq!(status, 200, "{commit}");
    let pid = commit["pid"].as_u64().expect("a number");
    wait_until(SOON, "it runs", || {
        old.shown(&format!("/{pid}"))["os_pid"]
            .as_u64()
            .is_some_and(|os| os > 0)
    });
    assert!(old.node.stop(Duration::from_secs(30)).success());
    old.node.assert_no_job_processes();
}

#[test]
fn d42_only_the_address_that_is_named_is_listened_at() {
    let old = Old::start();
    let port = old.node.addresses()[0].port();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    for other in ["127.0.0.2", "::1"] {
        assert!(TcpStream::connect((other, port)).is_err(), "{other}");
    }
}
