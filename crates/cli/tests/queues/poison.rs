//! Tasks and workers that do harm: rows that no program of ours would write, workers that break the protocol, payloads that kill.

use super::*;

/// What another program does to the file: a statement of SQL.
pub fn sql(node: &Node, statement: &str) -> String {
    let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], timeout=30)\n\
                  print(c.execute(sys.argv[2]).fetchall())\nc.commit()\n";
    let output = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(node.state_dir().join("queue.db"))
        .arg(statement)
        .output()
        .expect("python3");
    assert!(output.status.success(), "{statement}: {}", errors(&output));
    text(&output)
}

const KINDS: &str = r#"
[queue.q]
workers = 2
retry = { attempts = 2, delay = "10ms" }
[queue.q.kind.good]
cmd = ["sh", "-c", "read line; echo \"$$line\" >> ran"]
"#;

/// Values of columns that are wrong, and what becomes of the row.
const BAD_ROWS: [(&str, &str); 7] = [
    ("payload) VALUES ('default.q', 'good', 'no json'", "bad-arguments"),
    ("payload) VALUES ('default.q', 'good', ''", "bad-arguments"),
    ("payload) VALUES ('default.q', 'good', x'ff00'", "bad-arguments"),
    (
        "payload) VALUES ('default.q', 'good', CAST(x'22ff22' AS TEXT)",
        "bad-arguments",
    ),
    (
        "payload) VALUES ('default.q', 'nothing like it', '1'",
        "unknown-kind",
    ),
    ("payload) VALUES ('default.q', x'ff', '1'", "bad-arguments"),
    ("payload) VALUES ('default.q', NULL, '1'", "unknown-kind"),
];

/// A13.11: a kind or a payload that is none: as A13.10. Scenario 28: a payload that is none is refused at the push, or dead with `bad-
/// arguments` if it came by SQL; nobody else is concerned.
#[test]
fn scenario_28_a13_11_rows_that_nobody_can_work_on_are_dead_letters_and_hold_nobody_up() {
    let mut node = node(KINDS);
    for (id, (row, kind)) in (1..).zip(BAD_ROWS) {
        sql(&node, &format!("INSERT INTO task (queue, kind, {row})"));
        wait_state(&node, id, "dead");
        assert_eq!(show(&node, id)["error"]["kind"], kind, "{row}");
    }
    let id = push(&node, &["q", "--kind", "good", "7"]);
    wait_state(&node, id, "done");
    assert_eq!(lines(&node.root().join("ran")), ["7"]);
    let listed = node.cli(&["queue", "tasks", "q", "--state", "dead", "--json"]);
    let dead: Value = serde_json::from_slice(&listed.stdout).unwrap_or(Value::Null);
    assert_eq!(
        dead.as_array().map(Vec::len),
        Some(BAD_ROWS.len()),
        "{}",
        errors(&listed)
    );
    node.stop(SOON);
}

/// Scenario 28: a payload that is none is refused at the push, or dead with `bad-arguments` if it came by SQL; nobody else is concerned.
/// Numbers that are none, or out of all bounds, in the other columns.
#[test]
fn scenario_28_columns_of_the_wrong_type_hold_nobody_up() {
    let columns = [
        ("max_attempts", "'many'"),
        ("timeout_ms", "-1"),
        ("attempt", "-3"),
        ("created_at", "'yesterday'"),
        ("run_at", "'soon'"),
        ("meta", "x'ff'"),
        ("priority", "'high'"),
        ("lease_token", "-1"),
        ("limit_key", "x'ff'"),
        ("begin_by", "'never'"),
        ("cancel", "'maybe'"),
    ];
    let mut node = node(
        "[queue.q]\nworkers = 1\ncmd = [\"sh\", \"-c\", \"read n; echo $$n >> ran\"]\nthrottle = { total = 5 }\n",
    );
    for (id, (column, value)) in (1..).zip(columns) {
        sql(
            &node,
            &format!("INSERT INTO task (queue, payload, {column}) VALUES ('default.q', '1', {value})"),
        );
        let over = || ["done", "dead", "cancelled"].contains(&state(&node, id).as_str());
        wait_until(SOON, &format!("the row with {column} {value} is over"), over);
    }
    let id = push(&node, &["q", "7"]);
    wait_state(&node, id, "done");
    assert_eq!(code(&node.cli(&["queue", "tasks", "q"])), 0);
    node.stop(SOON);
}

/// A13.10: an unknown kind is a dead letter and the next task runs, also after one more of them than there are workers.
#[test]
fn a13_10_more_unknown_kinds_than_workers_stop_nobody() {
    let mut node = node(KINDS);
    let bad: Vec<i64> = (0..3)
        .map(|_| push(&node, &["q", "--kind", "bad", "1"]))
        .collect();
    let good = push(&node, &["q", "--kind", "good", "2"]);
    for id in bad {
        wait_state(&node, id, "dead");
        assert_eq!(show(&node, id)["error"]["kind"], "unknown-kind");
    }
    wait_state(&node, good, "done");
    node.stop(SOON);
}

/// A13.13: what does a task is not there yet: it runs once it is. Scenario 27: an unknown kind is dead with `unknown-kind`; with `wait` it
/// stays queued and runs once the kind is there.
#[test]
fn a13_13_scenario_27_an_unknown_kind_waits_until_a_file_defines_it() {
    let mut node = node(&KINDS.replace("workers = 2", "workers = 2\nunknown_kind = \"wait\""));
    let new = push(&node, &["q", "--kind", "new", "1"]);
    let good = push(&node, &["q", "--kind", "good", "2"]);
    wait_state(&node, good, "done");
    assert_eq!(state(&node, new), "queued");
    let more = "[queue.q.kind.new]\ncmd = [\"sh\", \"-c\", \"echo new >> ran\"]\n";
    let text = KINDS.replace("workers = 2", "workers = 2\nunknown_kind = \"wait\"") + more;
    std::fs::write(node.root().join("gaffer.toml"), text).expect("written");
    assert_eq!(code(&node.cli(&["apply", "-y"])), 0);
    wait_state(&node, new, "done");
    assert_eq!(lines(&node.root().join("ran")), ["2", "new"]);
    assert_eq!(show(&node, new)["attempt"], 1);
    node.stop(SOON);
}

#[test]
fn a_payload_that_kills_its_worker_is_parked_and_the_others_run() {
    let mut node = node(
        r#"
[queue.q]
workers = 2
retry = { delay = "10ms", max_delay = "20ms", crashes = 3 }
cmd = ["sh", "-c", "read n; echo $$n >> ran; test $$n != poison || kill -KILL $$$$"]
input = "stdin"
"#,
    );
    let poison = push(&node, &["q", "\"x\""]);
    wait_state(&node, poison, "done");
    sql(
        &node,
        "INSERT INTO task (queue, payload) VALUES ('default.q', '1')",
    );
    std::fs::write(
        node.root().join("gaffer.toml"),
        r#"
[queue.q]
workers = 2
retry = { delay = "10ms", max_delay = "20ms", crashes = 3 }
cmd = ["sh", "-c", "echo $$1 >> ran; test $$1 != poison || kill -KILL $$$$", "sh", "{{payload}}"]
"#,
    )
    .expect("written");
    assert_eq!(code(&node.cli(&["apply", "-y"])), 0);
    let poison = push(&node, &["q", "\"poison\""]);
    let good: Vec<i64> = (0..5).map(|n| push(&node, &["q", &n.to_string()])).collect();
    for id in good {
        wait_state(&node, id, "done");
    }
    wait_state(&node, poison, "dead");
    let dead = show(&node, poison);
    assert_eq!(
        (&dead["crashes"], &dead["error"]["kind"]),
        (&json!(3), &json!("signal:9"))
    );
    let ran = lines(&node.root().join("ran"));
    assert_eq!(ran.iter().filter(|line| *line == "poison").count(), 3);
    node.stop(SOON);
}

/// A worker that says everything that is no answer, then the answer.
const RUDE: &str = r#"
import json, sys
def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
for line in sys.stdin:
    task = json.loads(line)
    if task["type"] != "task":
        continue
    id, token = task["id"], task["token"]
    for text in ["", "{", "{}", "[]", "null", "{\"type\": 7}", "{\"type\": \"done\"}", "{\"type\": \"done\", \"id\": \"x\"}",
                 json.dumps({"type": "done", "id": -1, "token": 1}), json.dumps({"type": "done", "id": 2**63, "token": 1}),
                 json.dumps({"type": "done", "id": id + 1000, "token": token}), json.dumps({"type": "dance", "id": id, "token": token}),
                 json.dumps({"type": "fail", "id": id, "token": token + 1, "fatal": True}), "{" * 100000, "\0\0\0"]:
        say(text)
    sys.stdout.buffer.write(b"{\xff\xfe}\n{" + b"x" * 3000000 + b"\n")
    sys.stdout.flush()
    say(json.dumps({"type": "done", "id": id, "token": token, "result": "first"}))
    say(json.dumps({"type": "fail", "id": id, "token": token, "fatal": True}))
    say(json.dumps({"type": "done", "id": id, "token": token, "result": "second"}))
"#;

#[test]
fn a_resident_worker_that_breaks_the_protocol_harms_nobody() {
    let mut node = Node::builder()
        .config(
            "gaffer.toml",
            "[queue.r]\ncmd = \"python3 rude.py\"\nresident = true\nworkers = 1\nkeep.result = \"1h\"\n",
        )
        .prepare();
    std::fs::write(node.root().join("rude.py"), RUDE).expect("a file");
    node.start_again();
    let ids: Vec<i64> = (0..5).map(|_| push(&node, &["r", "1"])).collect();
    for id in ids {
        wait_state(&node, id, "done");
        let task = show(&node, id);
        assert_eq!((&task["result"], &task["attempt"]), (&json!("first"), &json!(1)));
    }
    node.stop(SOON);
}

/// It neither answers nor beats: it is killed when its lease is over, and its task is tried again.
#[test]
fn a_resident_worker_that_says_nothing_is_replaced() {
    let mut node = Node::builder()
        .config(
            "gaffer.toml",
            "[queue.r]\ncmd = [\"sh\", \"-c\", \"echo x >> begun; exec sleep 1000\"]\nresident = true\nworkers = 1\nlease = \"1s\"\nstop = \"300ms\"\nretry = { attempts = 2, delay = \"10ms\" }\n",
        )
        .start();
    let id = push(&node, &["r", "1"]);
    wait_state(&node, id, "dead");
    assert_eq!(show(&node, id)["error"]["kind"], "heartbeat");
    assert!(
        lines(&node.root().join("begun")).len() >= 2,
        "each attempt had a worker of its own"
    );
    node.stop(SOON);
    node.assert_no_job_processes();
}

/// The fixture takes 200 MiB, and is allowed 32: once as a worker of a kind with limits, once without.
#[test]
fn a_worker_beyond_its_limits_is_ended_by_the_kernel_and_its_task_says_so() {
    let fixture = gaffer_testkit::node::bin_dir().join("gaffer-fixture");
    let mut node = node(&format!(
        r#"
[queue.q]
retry.attempts = 1
[queue.q.kind.tight]
cmd = ["sh", "-c", "exec {fixture} eat-memory --mib 200"]
limits = {{ memory = "32M", swap = "0B", enforce = "require" }}
[queue.q.kind.free]
cmd = "true"
"#,
        fixture = fixture.display()
    ));
    let tight = push(&node, &["q", "--kind", "tight", "1"]);
    wait_state(&node, tight, "dead");
    let error = show(&node, tight)["error"].to_string();
    assert!(error.contains("killed by the kernel for memory"), "{error}");
    let free = push(&node, &["q", "--kind", "free", "1"]);
    wait_state(&node, free, "done");
    node.stop(Duration::from_secs(20));
}
