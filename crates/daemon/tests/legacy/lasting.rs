//! What a killed daemon must not change.

use crate::{Old, SOON};
use gaffer_testkit::wait_until;
use serde_json::json;

#[test]
fn s1_numbers_and_templates_survive_a_killed_daemon() {
    let mut old = Old::start();
    old.sleeper("web", &json!({"numprocesses": 2, "owner": "ana"}));
    let (_, commit) = old.ask("POST", "/jobs/s/web/commit", &json!({}));
    let before = (
        old.shown("/pids"),
        old.shown("/jobs/s/web"),
        old.shown("/1")["os_pid"].clone(),
    );
    assert_eq!(before.0, json!({"pids": [1, 2, commit["pid"]]}));
    old.node.kill9();
    old.node.start_again();
    old.connect_again();
    wait_until(SOON, "they are adopted", || old.shown("/pids") == before.0);
    assert_eq!(old.shown("/jobs/s/web"), before.1);
    assert_eq!(old.shown("/1")["os_pid"], before.2);
    // None is given twice.
    let most = commit["pid"].as_u64().expect("a number");
    old.ask("DELETE", "/1", &serde_json::Value::Null);
    wait_until(SOON, "a new number", || {
        old.pids("web").iter().any(|pid| *pid > most)
    });
}
