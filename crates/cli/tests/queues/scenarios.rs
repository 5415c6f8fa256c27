//! The numbered scenarios of the durable queue, and of one that runs tasks at most once as snappea does.

use super::poison::sql;
use super::*;

fn events(node: &Node, filter: &str) -> Vec<Value> {
    let shown = node.cli(&["events", "--filter", filter, "--json"]);
    serde_json::from_slice(&shown.stdout).unwrap_or_default()
}

fn at(task: &Value, field: &str) -> i64 {
    let text = task[field].as_str().unwrap_or_default();
    text.parse::<jiff::Timestamp>()
        .unwrap_or_else(|_| panic!("{field} of {task}"))
        .as_millisecond()
}

/// A13.1: an idle queue: a task that is queued starts within milliseconds, and its row is gone before it starts.
#[test]
fn a13_01_a_row_is_gone_before_its_task_starts() {
    let mut node = node(
        r#"
[queue.q]
delivery = "at-most-once"
cmd = ["python3", "-c", """
import sqlite3, os
c = sqlite3.connect("state/queue.db", timeout=30)
n = c.execute("SELECT COUNT(*) FROM task WHERE id = ?", [int(os.environ["GAFFER_TASK"])]).fetchone()[0]
open("seen", "a").write(f"{n}\\n")
"""]
"#,
    );
    push(&node, &["q", "1"]);
    let seen = node.root().join("seen");
    wait_until(SOON, "it ran", || lines(&seen).len() == 1);
    assert_eq!(lines(&seen), ["0"]);
    node.stop(SOON);
}

/// A13.2: 1 000 queued rows and nobody there: at the start all run, no more at once than there are workers, in the order of their numbers.
#[test]
fn a13_02_what_was_queued_while_nobody_was_there_runs_in_order() {
    let mut node = node(
        r#"
[queue.q]
workers = 4
delivery = "at-most-once"
keep.done = "1h"
cmd = ["sh", "-c", "mkdir run.$$GAFFER_TASK; ls -d run.* | wc -l >> counts; rmdir run.$$GAFFER_TASK"]
"#,
    );
    let id = push(&node, &["q", "1"]);
    wait_state(&node, id, "done");
    node.stop(SOON);
    sql(
        &node,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
         INSERT INTO task (queue, payload) SELECT 'default.q', i FROM n",
    );
    node.start_again();
    let left = || sql(&node, "SELECT COUNT(*) FROM task WHERE state <> 'done'");
    wait_until(SOON * 6, "all are done", || left() == "[(0,)]");
    let counts: Vec<u32> = lines(&node.root().join("counts"))
        .iter()
        .filter_map(|line| line.trim().parse().ok())
        .collect();
    assert_eq!(counts.len(), 1_001, "none twice");
    assert!(counts.iter().all(|count| *count <= 4), "four at most");
    let disorder =
        "SELECT COUNT(*) FROM task a JOIN task b ON b.id = a.id + 1 WHERE b.started_at < a.started_at";
    assert_eq!(sql(&node, disorder), "[(0,)]");
    node.stop(SOON);
}

/// A13.5: rows that another program inserts without a wake-up run within the poll. Scenario 29: rows of plain SQL, of which nobody told,
/// start within the poll: 250 ms, or 5 s on PostgreSQL.
#[test]
fn a13_05_scenario_29_a_row_of_another_program_starts_without_a_word() {
    let mut node = node("[queue.q]\nkeep.done = \"1h\"\ncmd = \"cat\"\n");
    for id in 1..=5 {
        sql(
            &node,
            "INSERT INTO task (queue, payload) VALUES ('default.q', '{}')",
        );
        wait_state(&node, id, "done");
        let task = show(&node, id);
        let waited = at(&task, "started_at") - at(&task, "created_at");
        // 250 ms on an idle machine.
        assert!((0..2_000).contains(&waited), "{waited} ms");
    }
    node.stop(SOON);
}

/// A13.8: two workers and three tasks: the third starts when the first ends; its row exists until then.
#[test]
fn a13_08_a_third_task_waits_in_its_row_for_two_workers() {
    let mut node = node(
        r#"
[queue.q]
workers = 2
delivery = "at-most-once"
cmd = ["sh", "-c", "echo $$GAFFER_TASK >> begun; until test -e go.$$GAFFER_TASK; do sleep 0.02; done"]
"#,
    );
    let ids: Vec<i64> = (0..3).map(|_| push(&node, &["q", "1"])).collect();
    let begun = node.root().join("begun");
    wait_until(SOON, "two begin", || lines(&begun).len() == 2);
    assert_eq!(state(&node, ids[2]), "queued");
    std::fs::write(node.root().join(format!("go.{}", ids[1])), "").expect("a file");
    wait_until(SOON, "the third", || lines(&begun).len() == 3);
    assert_eq!(
        show(&node, ids[2])["state"],
        Value::Null,
        "its row went with its claim"
    );
    for id in ids {
        std::fs::write(node.root().join(format!("go.{id}")), "").expect("a file");
    }
    node.stop(SOON);
}

/// A13.9: a task that raises is told of with what it said and counted, and the next task runs.
#[test]
fn a13_09_a_task_that_fails_is_not_repeated_and_the_next_one_runs() {
    let mut node = node(
        r#"
[queue.q]
workers = 1
delivery = "at-most-once"
keep.done = "1h"
cmd = ["sh", "-c", "read n; echo $$n >> ran; echo trouble >&2; exit $$n"]
retry = { attempts = 5, delay = "10ms" }
"#,
    );
    let bad = push(&node, &["q", "3"]);
    let good = push(&node, &["q", "0"]);
    wait_state(&node, good, "done");
    let dead = show(&node, bad);
    assert_eq!(dead["state"], "dead");
    assert_eq!(
        (&dead["error"]["kind"], &dead["error"]["output"]),
        (&json!("exit:3"), &json!("trouble\n"))
    );
    assert_eq!(lines(&node.root().join("ran")), ["3", "0"]);
    node.stop(SOON);
}

const STUBBORN: &str = r#"
[queue.q]
workers = 2
delivery = "at-most-once"
stop.timeout = "700ms"
cmd = ["sh", "-c", "trap '' TERM; echo $$GAFFER_TASK >> begun; until test -e go; do sleep 0.02; done; echo $$GAFFER_TASK >> ended"]
"#;

/// A13.18: TERM while idle: exit 0 at once, and nothing holds the lock.
#[test]
fn a13_18_an_idle_daemon_ends_at_once_and_leaves_no_lock() {
    let mut node = node(STUBBORN);
    push(&node, &["q", "--in", "1h", "1"]);
    assert_eq!(node.stop(SOON).code(), Some(0));
    node.start_again();
    assert_eq!(state(&node, 1), "scheduled");
    node.stop(SOON);
}

/// A13.19: TERM with two tasks that outlast the grace and one queued: exit 0 after it, both killed, one row left. A13.21: TERM while a
/// worker is waited for: the row that was about to be taken stays.
#[test]
fn a13_19_a13_21_what_outlasts_the_grace_is_killed_and_what_waits_stays() {
    let mut node = node(STUBBORN);
    let ids: Vec<i64> = (0..3).map(|_| push(&node, &["q", "1"])).collect();
    let begun = node.root().join("begun");
    wait_until(SOON, "two begin", || lines(&begun).len() == 2);
    assert_eq!(node.stop(SOON).code(), Some(0));
    node.assert_no_job_processes();
    assert_eq!(lines(&begun).len(), 2, "the third never began");
    assert_eq!(
        sql(&node, "SELECT id, state FROM task"),
        format!("[({}, 'queued')]", ids[2])
    );
    std::fs::write(node.root().join("go"), "").expect("a file");
    node.start_again();
    let ended = node.root().join("ended");
    wait_until(SOON, "the third", || lines(&ended) == [ids[2].to_string()]);
    assert_eq!(lines(&begun).len(), 3, "those that were killed never run again");
    node.stop(SOON);
}

/// A13.22: a draining stop with 9 queued tasks: all 9 finish, then exit 0.
#[test]
fn a13_22_a_draining_stop_works_the_backlog_off() {
    let mut node = node(
        "[queue.q]\nworkers = 2\ndelivery = \"at-most-once\"\non_stop = \"drain\"\ncmd = [\"sh\", \"-c\", \"until test -e go; do sleep 0.02; done; echo x >> ran\"]\n",
    );
    for _ in 0..9 {
        push(&node, &["q", "1"]);
    }
    node.signal(Signal::TERM);
    std::fs::write(node.root().join("go"), "").expect("a file");
    assert_eq!(node.wait_ended(SOON).code(), Some(0));
    assert_eq!(lines(&node.root().join("ran")).len(), 9);
    assert_eq!(sql(&node, "SELECT COUNT(*) FROM task"), "[(0,)]");
}

/// A13.24: the lock of a live process: exit 1, and the file is untouched. Scenario 4: two daemons on one file: the second refuses to start
/// and names the first's pid.
#[test]
fn a13_24_scenario_04_a_second_daemon_is_refused_and_harms_nobody() {
    let mut node = node("[queue.q]\ncmd = \"true\"\n");
    let pid = node.daemon_pid().expect("a daemon").to_string();
    let owner = node.state_dir().join("queue.db-owner");
    let id = push(&node, &["q", "1"]);
    wait_state(&node, id, "done");
    let said = node.root().join("refusal");
    let mut second = std::process::Command::new(node.program("gafferd"));
    let socket = node.root().join("other.sock");
    second
        .arg("--state-dir")
        .arg(node.state_dir())
        .arg("--socket")
        .arg(socket);
    second
        .args(["--bind", "none"])
        .env("GAFFER_TEST_ROOT", node.root());
    second.stderr(std::fs::File::create(&said).expect("a file"));
    let mut second = second.spawn().expect("gafferd");
    let mut status = None;
    wait_until(SOON, "it ends", || {
        status = second.try_wait().expect("its status");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(1));
    let said = std::fs::read_to_string(&said).unwrap_or_default();
    assert!(said.contains(&pid), "{said}");
    assert_eq!(lines(&owner), [pid]);
    let id = push(&node, &["q", "1"]);
    wait_state(&node, id, "done");
    node.stop(SOON);
}

/// A13.25: garbage in the file of the lock: a normal start.
#[test]
fn a13_25_garbage_in_the_file_of_the_lock_is_no_obstacle() {
    let mut node = node("[queue.q]\ncmd = \"true\"\n");
    let id = push(&node, &["q", "1"]);
    wait_state(&node, id, "done");
    node.kill9();
    let owner = node.state_dir().join("queue.db-owner");
    std::fs::write(&owner, b"\xff\xfe what is this\n1\n".repeat(50)).expect("written");
    node.start_again();
    let id = push(&node, &["q", "1"]);
    wait_state(&node, id, "done");
    assert_eq!(lines(&owner), [node.daemon_pid().expect("a daemon").to_string()]);
    node.stop(SOON);
}

/// A13.30: at rest the log of the file is small.
#[test]
fn a13_30_at_rest_the_log_of_the_file_is_empty() {
    let mut node = node("[queue.q]\ncmd = \"true\"\n");
    let ids: Vec<i64> = (0..20).map(|_| push(&node, &["q", "1"])).collect();
    for id in ids {
        wait_state(&node, id, "done");
    }
    let wal = node.state_dir().join("queue.db-wal");
    let size = || std::fs::metadata(&wal).map_or(0, |meta| meta.len());
    wait_until(SOON, "the log is emptied", || size() == 0);
    node.stop(SOON);
}

/// Scenario 8: a fatal code is dead after one attempt; three times snoozed is no attempt.
#[test]
fn scenario_08_codes_of_a_worker_say_never_again_or_later() {
    let mut node = node(
        r#"
[queue.q]
keep.done = "1h"
exit.fatal = [42]
retry = { attempts = 5, delay = "10ms", max_delay = "20ms" }
cmd = ["sh", "-c", "read n; test $$n = 1 && exit 42; echo x >> snoozed; test $$(wc -l < snoozed) -gt 3 || exit 75"]
"#,
    );
    let fatal = push(&node, &["q", "1"]);
    let snoozing = push(&node, &["q", "2"]);
    wait_state(&node, fatal, "dead");
    assert_eq!(show(&node, fatal)["attempt"], 1);
    wait_state(&node, snoozing, "done");
    let done = show(&node, snoozing);
    assert_eq!(done["attempt"], 1, "three times later do not count");
    let said: Vec<&Value> = done["attempts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| &one["outcome"])
        .collect();
    assert_eq!(said[..3], [&json!("snoozed"); 3]);
    node.stop(SOON);
}

/// Scenario 10: `--in 2s` starts between 2.0 and 2.1 s later, also when the daemon is restarted in between. None may be early; of ten with
/// different times most have to be punctual, so that a timer that is late, or a look now and then in its place, does not pass for a busy machine.
#[test]
fn scenario_10_a_delayed_task_starts_in_its_time_also_over_a_restart() {
    for restart in [false, true] {
        let mut node = node("[queue.q]\nworkers = 10\nkeep.done = \"1h\"\ncmd = \"true\"\n");
        let mut ids = Vec::new();
        for n in 0..10 {
            let delay = 2_000 + n * 170;
            let id = push(&node, &["q", "--in", &format!("{delay}ms"), "1"]);
            let task = show(&node, id);
            assert_eq!(task["state"], "scheduled");
            let ahead = at(&task, "run_at") - at(&task, "created_at");
            assert!((delay - 100..=delay).contains(&ahead), "{task}");
            ids.push((id, at(&task, "run_at")));
        }
        if restart {
            node.restart();
        }
        let mut late = Vec::new();
        for (id, due) in ids {
            wait_state(&node, id, "done");
            late.push(at(&show(&node, id), "started_at") - due);
        }
        let punctual = late.iter().filter(|ms| **ms <= 100).count();
        assert!(late.iter().all(|ms| *ms >= 0), "none is early: {late:?}");
        assert!(punctual > 5, "most are punctual: {late:?} ms late");
        node.stop(SOON);
    }
}

/// Scenario 14: a more urgent task behind 1 000 others, with all workers busy, is the next one started.
#[test]
fn scenario_14_an_urgent_task_is_the_next_one_behind_a_thousand() {
    let mut node = node(
        r#"
[queue.q]
workers = 4
stop = "100ms"
on_stop = "release"
cmd = ["sh", "-c", "echo $$GAFFER_TASK >> begun; until test -e go.$$GAFFER_TASK; do sleep 0.02; done"]
"#,
    );
    let thousand: Vec<Value> = (0..1_004).map(|n| json!({"payload": n})).collect();
    let (status, _) = node.http("POST", "/v1/queues/default/q/tasks", Some(&json!(thousand)));
    assert_eq!(status, 201);
    let begun = node.root().join("begun");
    wait_until(SOON, "all four are busy", || lines(&begun).len() == 4);
    let urgent = push(&node, &["q", "--priority", "-5", "1"]);
    let first = lines(&begun)[0].clone();
    std::fs::write(node.root().join(format!("go.{first}")), "").expect("a file");
    wait_until(SOON, "the next one", || lines(&begun).len() == 5);
    assert_eq!(lines(&begun)[4], urgent.to_string());
    node.stop(SOON);
}

/// Scenario 22: a pause of what runs stops its CPU time; resumed it finishes, and no lease is lost.
#[test]
fn scenario_22_a_frozen_task_uses_no_time_and_keeps_its_lease() {
    let mut node = node(
        r#"
[queue.q]
lease = "1s"
keep.done = "1h"
cmd = ["sh", "-c", "echo $$$$ >> pids; until test -e go; do :; done"]
"#,
    );
    let id = push(&node, &["q", "1"]);
    let pids = node.root().join("pids");
    wait_until(SOON, "begun", || lines(&pids).len() == 1);
    let pid = lines(&pids)[0].clone();
    let used = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap_or(0) + fields[12].parse::<u64>().unwrap_or(0)
    };
    wait_until(SOON, "it uses time", || used() > 5);
    assert_eq!(code(&node.cli(&["queue", "pause", "q", "--running"])), 0);
    let frozen = used();
    // Three leases long.
    let since = Instant::now();
    wait_until(SOON, "leases pass", || since.elapsed() > Duration::from_secs(3));
    assert!(used() <= frozen + 1, "it used time while it was frozen");
    assert_eq!(code(&node.cli(&["queue", "resume", "q"])), 0);
    wait_until(SOON, "it goes on", || used() > frozen + 5);
    std::fs::write(node.root().join("go"), "").expect("a file");
    wait_state(&node, id, "done");
    assert_eq!(lines(&pids).len(), 1);
    assert_eq!(show(&node, id)["attempt"], 1);
    let metrics = String::from_utf8(node.request("GET", "/metrics", None).body).expect("text");
    let lost = r#"gaffer_queue_leases_lost_total{session="default",queue="q"} 0"#;
    assert!(metrics.contains(lost), "{metrics}");
    node.stop(SOON);
}

/// Scenario 23: a drain that reaches its deadline leaves the rest queued, and its exit code tells it.
#[test]
fn scenario_23_a_drain_that_is_too_late_leaves_the_rest_queued() {
    let mut node = node(
        r#"
[queue.q]
workers = 4
keep.done = "1h"
cmd = ["sh", "-c", "read n; echo x >> begun; test $$n -lt 20 || until test -e go; do sleep 0.02; done"]
"#,
    );
    let hundred: Vec<Value> = (0..100).map(|n| json!({"payload": n})).collect();
    let (status, _) = node.http("POST", "/v1/queues/default/q/tasks", Some(&json!(hundred)));
    assert_eq!(status, 201);
    let begun = node.root().join("begun");
    wait_until(SOON, "twenty are done", || lines(&begun).len() == 24);
    let drained = node.cli(&["queue", "drain", "q", "--deadline", "300ms"]);
    assert_eq!(code(&drained), 1);
    assert!(
        errors(&drained).contains("76 waiting and 4 running are left"),
        "{}",
        errors(&drained)
    );
    // What is left is worked off all the same.
    std::fs::write(node.root().join("go"), "").expect("a file");
    let drained = node.cli(&["queue", "drain", "q", "--deadline", "60s"]);
    assert_eq!(code(&drained), 0, "{}", errors(&drained));
    assert_eq!(lines(&begun).len(), 100);
    node.stop(SOON);
}

/// Scenario 25: TERM in the default mode: what runs finishes or is given back as interrupted, and no attempt is used up. The default of
/// `on_stop`: what can finish does, what cannot is given back uncounted.
#[test]
fn scenario_25_a_stop_in_its_default_mode_gives_back_what_cannot_finish() {
    let mut node = node(
        r#"
[queue.q]
keep.done = "1h"
stop = "700ms"
cmd = ["sh", "-c", "trap '' TERM; read n; echo $$n.$$GAFFER_ATTEMPT >> begun; until test -e go.$$n; do sleep 0.02; done; echo $$n >> ended"]
"#,
    );
    let (quick, slow) = (push(&node, &["q", "1"]), push(&node, &["q", "2"]));
    let begun = node.root().join("begun");
    wait_until(SOON, "both begin", || lines(&begun).len() == 2);
    node.signal(Signal::TERM);
    std::fs::write(node.root().join("go.1"), "").expect("a file");
    assert_eq!(node.wait_ended(SOON).code(), Some(0));
    node.assert_no_job_processes();
    assert_eq!(lines(&node.root().join("ended")), ["1"]);
    std::fs::write(node.root().join("go.2"), "").expect("a file");
    node.start_again();
    wait_state(&node, slow, "done");
    wait_state(&node, quick, "done");
    assert_eq!(lines(&begun)[2], "2.1", "the attempt did not count");
    assert_eq!(show(&node, slow)["attempts"][0]["outcome"], "interrupted");
    node.stop(SOON);
}

/// Scenario 26: a timeout of a task that forks children: the tree is gone, and the failure is `timeout`. A child that left the session and
/// ignores every signal is a part of the tree, too.
#[test]
fn scenario_26_children_that_hide_are_gone_with_the_task() {
    let mut node = node(
        r#"
[queue.q]
timeout = "1s"
stop = "200ms"
retry = 1
cmd = ["sh", "-c", "trap '' TERM; setsid sh -c 'trap \"\" TERM HUP; echo $$$$ > hidden; while :; do sleep 0.1; done' & while :; do sleep 0.1; done"]
"#,
    );
    let id = push(&node, &["q", "1"]);
    let hidden = node.root().join("hidden");
    wait_until(SOON, "a hidden child", || lines(&hidden).len() == 1);
    wait_state(&node, id, "dead");
    let dead = show(&node, id);
    assert_eq!(dead["error"]["kind"], "timeout");
    let took = at(&dead, "finished_at") - at(&dead, "started_at");
    assert!(took >= 1_000, "{took} ms");
    node.assert_no_job_processes();
    node.stop(SOON);
}

/// Scenario 24: a queued task that is cancelled never runs; of one that runs the tree is gone within the stop timeout, and the state is
/// cancelled.
#[test]
fn scenario_24_a_cancelled_task_tells_its_end_once() {
    let mut node =
        node("[queue.q]\nstop = \"200ms\"\ncmd = [\"sh\", \"-c\", \"echo x >> begun; exec sleep 1000\"]\n");
    let id = push(&node, &["q", "1"]);
    let begun = node.root().join("begun");
    wait_until(SOON, "begun", || lines(&begun).len() == 1);
    assert_eq!(code(&node.cli(&["queue", "cancel", &id.to_string()])), 0);
    wait_state(&node, id, "cancelled");
    node.restart();
    assert_eq!(state(&node, id), "cancelled");
    assert_eq!(lines(&begun).len(), 1);
    assert_eq!(events(&node, "queue.task.dead").len(), 0);
    node.stop(SOON);
}

/// A13.27: tasks that finish in two minutes: a row of statistics for each kind and minute. A13.28: no retention, no statistics.
#[test]
fn a13_27_28_what_was_done_is_counted_by_the_minute_and_survives_the_daemon() {
    let mut node = node(
        r#"
[queue.q]
workers = 1
retry = { attempts = 2, delay = "1ms" }
cmd = ["sh", "-c", "read n; exit $$n"]
[queue.dark]
keep.stats = "0s"
cmd = ["true"]
"#,
    );
    for (kind, code) in [("a", "0"), ("a", "0"), ("b", "1")] {
        push(&node, &["q", "--kind", kind, code]);
    }
    push(&node, &["dark", "1"]);
    wait_state(&node, 3, "dead");
    wait_state(&node, 4, "done");
    wait_state(&node, 2, "done");
    node.stop(SOON);
    node.start_again();
    let sum = |node: &mut Node, kind: &str, what: &str| {
        let minutes = node.get("/v1/queues/default/q/stats?window=1h");
        let minutes = minutes.as_array().expect("a list").clone();
        let of_kind = minutes.iter().filter(|minute| minute["kind"] == kind);
        of_kind
            .map(|minute| minute[what].as_u64().unwrap_or(0))
            .sum::<u64>()
    };
    assert_eq!(sum(&mut node, "a", "done"), 2);
    assert_eq!(sum(&mut node, "a", "begun"), 2);
    assert_eq!(
        (sum(&mut node, "b", "retried"), sum(&mut node, "b", "dead")),
        (1, 1)
    );
    assert!(sum(&mut node, "a", "took_ms") >= sum(&mut node, "a", "took_max_ms"));
    let dark = node.cli(&["queue", "stats", "dark"]);
    assert_eq!(text(&dark) + &errors(&dark), "nothing was done in the last 1h");
    let shown = text(&node.cli(&["queue", "stats", "q"]));
    let row = shown
        .lines()
        .find(|line| line.starts_with("b "))
        .unwrap_or_default();
    assert_eq!(
        row.split_whitespace().take(4).collect::<Vec<_>>(),
        ["b", "0", "1", "1"],
        "{shown}"
    );
    node.stop(SOON);
}
