//! What snappea's folder of wake-up calls was for. Ours has none: the file is the truth, a notice of the kernel a hint, and every wait is bounded.

use super::poison::sql;
use super::*;

const NOTES: &str = r#"
[queue.q]
workers = 4
keep.done = "1h"
cmd = ["sh", "-c", "echo $$GAFFER_TASK >> begun"]
"#;

/// Another program puts so many tasks in, and dies without a word: what it wrote is in the log of the file only.
fn pushed_by_one_that_died(node: &Node, count: u32) {
    let script = "import os, sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\n\
                  c.executemany(\"INSERT INTO task (queue, payload) VALUES ('default.q', '1')\", [()] * int(sys.argv[2]))\n\
                  c.commit()\nos._exit(0)\n";
    let status = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(node.state_dir().join("queue.db"))
        .arg(count.to_string())
        .status();
    assert!(status.expect("python3").success());
}

/// A13.6: stale wake-up files at start are removed and the backlog is done once. Ours: what the dead left, of whatever kind, is no obstacle.
#[test]
fn a13_06_what_the_dead_left_is_no_obstacle_and_the_backlog_is_done_once() {
    let mut node = node(NOTES);
    let first = push(&node, &["q", "1"]);
    wait_state(&node, first, "done");
    let owner = node.state_dir().join("queue.db-owner");
    let dead = node.daemon_pid().expect("a daemon").to_string();
    node.kill9();
    pushed_by_one_that_died(&node, 50);
    let log = std::fs::metadata(node.state_dir().join("queue.db-wal")).expect("a log");
    assert!(log.len() > 0, "the tasks are nowhere else");
    assert!(node.socket().exists(), "a socket that nobody serves");
    assert_eq!(lines(&owner), [dead], "a lock that names the dead");
    node.start_again();
    for id in first + 1..=first + 50 {
        wait_state(&node, id, "done");
    }
    let mut begun: Vec<i64> = lines(&node.root().join("begun"))
        .iter()
        .filter_map(|line| line.parse().ok())
        .collect();
    begun.sort_unstable();
    let each: Vec<i64> = (first..=first + 50).collect();
    assert_eq!(begun, each, "each of them once");
    assert_eq!(lines(&owner), [node.daemon_pid().expect("a daemon").to_string()]);
    node.stop(SOON);
}

/// A13.26: the watched folder is removed and made anew. Ours: queued tasks start within the poll, and TERM works. What the kernel
/// watches for us is then a folder that nobody writes to any more.
#[test]
fn a13_26_a_folder_made_anew_hides_no_task_and_no_signal() {
    let mut node = node(NOTES);
    let first = push(&node, &["q", "1"]);
    wait_state(&node, first, "done");
    let (state_dir, old) = (node.state_dir(), node.root().join("old"));
    std::fs::rename(&state_dir, &old).expect("moved away");
    std::fs::create_dir(&state_dir).expect("made anew");
    for entry in std::fs::read_dir(&old).expect("a folder") {
        let entry = entry.expect("an entry");
        std::fs::rename(entry.path(), state_dir.join(entry.file_name())).expect("moved");
    }
    std::fs::remove_dir(&old).expect("removed");
    std::fs::remove_file(node.socket()).expect("nobody can say a word");
    for id in first + 1..=first + 5 {
        sql(
            &node,
            "INSERT INTO task (queue, payload) VALUES ('default.q', '1')",
        );
        let waited = format!("SELECT started_at - created_at FROM task WHERE id = {id} AND state = 'done'");
        wait_until(SOON, "it is done", || sql(&node, &waited) != "[]");
        let waited = sql(&node, &waited);
        let ms: i64 = waited
            .trim_matches(['[', '(', ',', ')', ']'])
            .parse()
            .expect("a number");
        // 250 ms on an idle machine.
        assert!((0..2_000).contains(&ms), "{ms} ms");
    }
    assert_eq!(node.stop(SOON).code(), Some(0));
}

/// A13.29: snappea warns of 301 waiting tasks, and of one that waits for 5 s. Ours: how many wait, and for how long, is where alerts are made from.
#[test]
fn a13_29_how_many_wait_and_for_how_long_is_told() {
    let mut node = node(NOTES);
    assert_eq!(code(&node.cli(&["queue", "pause", "q"])), 0);
    let told = |node: &mut Node, name: &str| {
        let metrics = String::from_utf8(node.request("GET", "/metrics", None).body).expect("text");
        let line = metrics.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.and_then(|value| value.parse::<f64>().ok())
    };
    let waiting = r#"gaffer_queue_tasks{session="default",queue="q",state="queued"}"#;
    let oldest = r#"gaffer_queue_oldest_age_seconds{session="default",queue="q"}"#;
    assert_eq!(
        (told(&mut node, waiting), told(&mut node, oldest)),
        (Some(0.0), Some(0.0)),
        "empty"
    );
    pushed_by_one_that_died(&node, 300);
    assert_eq!(told(&mut node, waiting), Some(300.0));
    assert!(
        told(&mut node, oldest).is_some_and(|age| age < 3_600.0),
        "fresh ones"
    );
    let hour = "INSERT INTO task (queue, payload, created_at) \
        SELECT 'default.q', '1', MIN(created_at) - 3600000 FROM task";
    sql(&node, hour);
    assert_eq!(told(&mut node, waiting), Some(301.0));
    assert!(
        told(&mut node, oldest).is_some_and(|age| age >= 3_600.0),
        "{:?}",
        told(&mut node, oldest)
    );
    let listed = text(&node.cli(&["queue", "ls"]));
    let row = listed.lines().find(|line| line.contains(" q "));
    assert!(
        row.is_some_and(|row| row.contains(" 301 ") && row.contains(" 1h ")),
        "{listed}"
    );
    node.stop(SOON);
}
