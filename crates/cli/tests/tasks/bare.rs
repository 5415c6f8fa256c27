//! Tasks whose definition cannot be read: ended by what their checkpoint says.

use crate::{Place, SOON, WAITS, pid_of, said, story, task, wait_running};
use gaffer_testkit::node::assert_gone;
use gaffer_testkit::process::Handle;
use gaffer_testkit::wait_until;
use serde_json::json;
use std::path::PathBuf;

/// A task with a step that runs, one that waits for it and one for the end, which nobody leads any more.
fn left_alone(id: &str) -> (Place, u32) {
    let place = Place::new();
    let processes = json!([
        {"name": "a", "cmdline": WAITS}, {"name": "b", "cmdline": "echo x >> after"},
        {"name": "c", "cmdline": "echo x >> last", "final": true},
    ]);
    place.write(
        "t.json",
        &task(processes, json!({"constraints": [{"order": ["a", "b"]}]})),
    );
    let running = place.start(&["run", "t.json", "--id", id]);
    place.until("begun");
    let pid = pid_of(&wait_running(&place, id, "a"), "a");
    place.kill_both(running, id);
    (place, pid)
}

fn active(place: &Place, id: &str) -> PathBuf {
    place.tasks().join("tasks/active").join(id)
}

#[test]
fn k13_what_lives_is_killed_by_the_checkpoint_alone() {
    for lost in [false, true] {
        let (place, pid) = left_alone("k13");
        match lost {
            false => std::fs::write(active(&place, "k13"), "{ half of it").expect("written"),
            true => std::fs::remove_file(active(&place, "k13")).expect("removed"),
        }
        let (code, killed) = place.json(&["kill", "k13"]);
        assert_eq!(code, 0, "{killed}");
        assert_eq!(
            killed[0]["state"].as_str().or(killed["state"].as_str()),
            Some("killed"),
            "{killed}"
        );
        let killed = if killed.is_array() {
            killed[0].clone()
        } else {
            killed
        };
        assert_eq!(story(&killed, "a"), "killed:SIGKILL", "{killed}");
        assert!(
            killed["reason"]
                .as_str()
                .is_some_and(|why| why.contains("without its definition")),
            "{killed}"
        );
        let statuses = killed["statuses"].as_array().expect("states").iter();
        let states: Vec<&str> = statuses.filter_map(|one| one["state"].as_str()).collect();
        assert_eq!(states, ["active", "active", "killed"]);
        wait_until(SOON, "the end of the step", || Handle::open(pid).is_none());
        assert!(
            !place.has("after") && !place.has("last"),
            "nothing of it is begun"
        );
        assert!(!active(&place, "k13").exists());
        assert!(place.tasks().join("tasks/finished/k13").exists());
        assert_gone(place.root.path());
    }
}

#[test]
fn k14_an_end_that_nobody_saw_is_taken_over_first() {
    let (place, pid) = left_alone("k14");
    place.touch("go");
    wait_until(SOON, "the end of the step", || Handle::open(pid).is_none());
    std::fs::write(active(&place, "k14"), "").expect("written");
    let killed = place.run(&["kill", "k14"]);
    assert_eq!(killed.status.code(), Some(0), "{}", said(&killed));
    let (_, task) = place.json(&["status", "k14"]);
    assert_eq!(
        (task["state"].as_str(), story(&task, "a")),
        (Some("killed"), "success:0".into())
    );
    assert!(!place.has("after") && !place.has("last"));
    assert_gone(place.root.path());
}

#[test]
fn k12_a_task_that_is_led_is_not_taken_away_from_its_leader() {
    let place = Place::new();
    place.write(
        "t.json",
        &task(json!([{"name": "a", "cmdline": WAITS}]), json!({})),
    );
    let running = place.start(&["run", "t.json", "--id", "k12"]);
    place.until("begun");
    std::fs::write(active(&place, "k12"), "nonsense").expect("written");
    // Its leader has read it long ago, and ends it in order.
    let (code, _) = place.json(&["kill", "k12"]);
    assert!(code < 2);
    assert_eq!(running.end(), 1);
    let (_, task) = place.json(&["status", "k12"]);
    assert_eq!(
        (task["state"].as_str(), story(&task, "a")),
        (Some("killed"), "killed:SIGTERM".into())
    );
}
