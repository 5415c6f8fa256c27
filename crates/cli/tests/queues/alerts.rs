//! What an operator is told without asking for it.

use super::poison::sql;
use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const KINDS: &str = r#"
[queue.q]
workers = 2
unknown_kind = "wait"
retry = { attempts = 1 }
[queue.q.kind.good]
cmd = ["true"]
[queue.q.kind.bad]
cmd = ["false"]
"#;

/// So many milliseconds ago, as SQLite says it.
fn ago(ms: u64) -> String {
    format!("CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) - {ms}")
}

fn queue(node: &mut Node) -> Value {
    node.http("GET", "/v1/queues/default/q", None).1
}

fn codes(node: &mut Node) -> Vec<String> {
    let queue = queue(node);
    let alerts = queue["alerts"].as_array().cloned().unwrap_or_default();
    let code = |alert: &Value| alert["code"].as_str().map(str::to_owned);
    alerts.iter().filter_map(code).collect()
}

fn metric(node: &mut Node, code: &str) -> String {
    let page = String::from_utf8(node.request("GET", "/metrics", None).body).expect("text");
    let start = format!(r#"gaffer_queue_alert{{session="default",queue="q",code="{code}"}} "#);
    let line = page.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("{start} in {page}")).to_owned()
}

#[test]
fn a_kind_that_nobody_defines_and_dead_letters_are_alerts() {
    let mut node = node(KINDS);
    wait_until(SOON, "an answer", || queue(&mut node)["alerts"] == json!([]));
    assert_eq!(metric(&mut node, "unknown-kind"), "0");
    let old = ago(61_000);
    sql(
        &node,
        &format!(
            "INSERT INTO task (queue, kind, payload, created_at) VALUES ('default.q', 'new', '1', {old})"
        ),
    );
    wait_until(SOON, "an alert", || codes(&mut node) == ["unknown-kind"]);
    let shown = queue(&mut node);
    let text = shown["alerts"][0]["text"].as_str().unwrap_or_default().to_owned();
    assert!(text.starts_with("nothing is defined for kind `new`: "), "{text}");
    assert_eq!(shown["state"], "working");
    let listed = self::text(&node.cli(&["queue", "ls"]));
    assert!(listed.contains("nothing is defined for kind `new`"), "{listed}");
    assert_eq!(metric(&mut node, "unknown-kind"), "1");

    let id = push(&node, &["q", "--kind", "bad", "1"]);
    wait_state(&node, id, "dead");
    assert_eq!(codes(&mut node), ["unknown-kind", "dead"]);
    let summary = queue(&mut node)["summary"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(summary.ends_with("; and 1 more"), "{summary}");
    let page = self::text(&node.cli(&["queue", "show", "q"]));
    assert!(
        page.contains("alert      1 dead in the last hour  since "),
        "{page}"
    );

    assert_eq!(code(&node.cli(&["queue", "pause", "q"])), 0);
    assert_eq!(
        codes(&mut node),
        ["dead"],
        "whoever paused it knows that tasks wait"
    );
    assert_eq!(code(&node.cli(&["queue", "resume", "q"])), 0);
    assert_eq!(code(&node.cli(&["queue", "rm", "-y", &id.to_string()])), 0);
    assert_eq!(codes(&mut node), ["unknown-kind"], "somebody dealt with it");
    let file = node.root().join("gaffer.toml");
    std::fs::write(&file, format!("{KINDS}[queue.q.kind.new]\ncmd = [\"true\"]\n")).expect("written");
    let applied = node.cli(&["apply", "-y", &file.to_string_lossy()]);
    assert_eq!(code(&applied), 0, "{}", errors(&applied));
    wait_state(&node, 1, "done");
    assert_eq!(queue(&mut node)["alerts"], json!([]));
    assert_eq!(metric(&mut node, "dead"), "0");
    node.stop(SOON);
}

#[test]
fn a_backlog_that_grew_for_ten_minutes_is_an_alert() {
    let mut node = node(KINDS);
    for _ in 0..15 {
        sql(
            &node,
            "INSERT INTO task (queue, kind, payload) VALUES ('default.q', 'new', '1')",
        );
    }
    assert!(codes(&mut node).is_empty());
    for minute in 0..12_u64 {
        let at = format!("({}) / 60000 * 60000", ago((12 - minute) * 60_000));
        let row = format!("'default.q', {at}, '', 1, 0, 0, 0, 0, 0, 0, 0, {}", minute + 1);
        sql(&node, &format!("INSERT INTO minute VALUES ({row})"));
    }
    assert_eq!(codes(&mut node), ["backlog"]);
    node.stop(SOON);
}

/// A program that holds a snapshot keeps the log from being emptied.
#[test]
fn a_log_that_is_not_emptied_is_an_alert() {
    let mut node = node(KINDS);
    wait_until(SOON, "an answer", || queue(&mut node)["alerts"] == json!([]));
    let script = "import sqlite3, sys\nheld = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)\n\
        held.execute('BEGIN')\nheld.execute('SELECT COUNT(*) FROM task').fetchall()\n\
        other = sqlite3.connect(sys.argv[1], timeout=30)\nother.execute('CREATE TABLE large (x)')\n\
        other.execute('INSERT INTO large VALUES (zeroblob(70000000))')\nother.commit()\nprint('held', flush=True)\n\
        sys.stdin.read()\n";
    let mut holder = Command::new("python3")
        .args(["-c", script])
        .arg(node.state_dir().join("queue.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut said = String::new();
    let out = holder.stdout.take().expect("piped");
    BufReader::new(out).read_line(&mut said).expect("read");
    assert_eq!(said, "held\n");
    assert_eq!(codes(&mut node), ["wal"]);
    let first = queue(&mut node)["alerts"][0].clone();
    assert_eq!(queue(&mut node)["alerts"][0]["since_at"], first["since_at"]);
    drop(holder.stdin.take());
    assert!(holder.wait().expect("waited").success());
    // Whoever commits next empties it.
    wait_until(SOON, "the log is small again", || {
        push(&node, &["q", "--kind", "good", "1"]);
        codes(&mut node).is_empty()
    });
    node.stop(SOON);
}
