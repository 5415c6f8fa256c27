//! Tasks that an application keeps in a file of its own.

use super::*;

pub(super) const TABLE: &str = "CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, kind TEXT, payload TEXT NOT NULL, \
    priority INTEGER, run_at INTEGER, unique_key TEXT, limit_key TEXT, max_attempts INTEGER, timeout_ms INTEGER, meta TEXT)";

const HEAD: &str =
    "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n";

/// Runs Python with `c`, a connection to the application's file.
pub(super) fn app(node: &Node, script: &str) -> String {
    let ran = std::process::Command::new("python3")
        .args(["-c", &format!("{HEAD}{script}")])
        .arg(node.root().join("app.db"))
        .output()
        .expect("python3");
    assert!(ran.status.success(), "{}", errors(&ran));
    text(&ran)
}

fn left(node: &Node) -> String {
    app(
        node,
        "print(c.execute('SELECT count(*) FROM outbox').fetchone()[0])",
    )
}

fn moved(node: &Node) -> usize {
    node.log().matches("queue.task.queued").count()
}

fn applied(node: &Node, more: &str) {
    let text = format!(
        "session = \"s\"\n[queue.mail]\ncmd = \"true\"\nkeep = {{ done = \"1h\" }}\noutbox = \"app.db\"\n{more}"
    );
    std::fs::write(node.root().join("gaffer.toml"), text).expect("written");
    let applied = node.cli(&["apply"]);
    assert_eq!(code(&applied), 0, "{}", errors(&applied));
}

fn payloads(node: &Node, state: &str) -> Vec<String> {
    let listed = node.cli(&["queue", "tasks", "mail", "--state", state, "-n", "2000", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap_or(Value::Null);
    let rows = listed.as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| row["payload"].to_string()).collect()
}

/// A13.15 and A13.16: a task that is queued in a transaction that rolls back does not run; after the commit it does. Scenario 31: an outbox is
/// moved exactly once across a SIGKILL of the daemon.
#[test]
fn a13_15_a13_16_scenario_31_an_outbox_is_moved_exactly_once_across_kills() {
    let mut node = node("session = \"s\"\n");
    app(
        &node,
        &format!("c.execute('PRAGMA journal_mode = WAL')\nc.execute('''{TABLE}''')"),
    );
    applied(&node, "workers = 2\n");
    for round in 0..8 {
        let fill = format!(
            "for t in range(12):\n  c.execute('BEGIN IMMEDIATE')\n  for i in range(20):\n    \
             c.execute('INSERT INTO outbox (queue, payload) VALUES (?, ?)', ('mail' if i % 2 else 's.mail', str({round} * 1000 + t * 20 + i)))\n  \
             c.execute('ROLLBACK' if t % 3 == 2 else 'COMMIT')"
        );
        let before = moved(&node);
        let filling = std::process::Command::new("python3")
            .args(["-c", &format!("{HEAD}{fill}")])
            .arg(node.root().join("app.db"))
            .spawn();
        let mut filling = filling.expect("python3");
        // Amid the work: between what is in the store and what is still in the file.
        let more = 1 + round * 17;
        wait_until(SOON, "some are moved", || moved(&node) > before + more);
        node.kill9();
        assert!(filling.wait().expect("waited for").success(), "the application");
        node.start_again();
    }
    wait_until(SOON, "the outbox is empty", || left(&node) == "0");
    wait_until(SOON * 3, "all are done", || {
        payloads(&node, "done").len() >= 8 * 160
    });
    let mut done = payloads(&node, "done");
    done.sort();
    let all = done.len();
    done.dedup();
    assert_eq!((all, done.len()), (8 * 160, 8 * 160), "each of them once");
}

/// What a row says is what the task is; what is wrong with it is told where the operator looks.
#[test]
fn an_outbox_says_what_is_wrong_and_goes_on_when_it_is_mended() {
    let node = node("session = \"s\"\n");
    applied(&node, "");
    let summary = |node: &Node| {
        let shown = node.cli(&["queue", "show", "mail", "--json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap_or(Value::Null);
        shown["summary"].as_str().unwrap_or_default().to_owned()
    };
    wait_until(SOON, "a missing file is told", || {
        summary(&node).contains("app.db: No such file")
    });
    app(
        &node,
        "c.execute('CREATE TABLE outbox (id INTEGER PRIMARY KEY, queue TEXT, payload TEXT)')",
    );
    wait_until(SOON, "numbers that come again are told", || {
        summary(&node).contains("AUTOINCREMENT")
    });
    // Made anew under the same name, as a restored copy would be.
    std::fs::remove_file(node.root().join("app.db")).expect("removed");
    app(&node, &format!("c.execute('''{TABLE}''')"));
    let rows = "c.execute(\"INSERT INTO outbox (queue, payload) VALUES ('mail', 'no json'), ('mial', '1')\")\n\
        c.execute(\"INSERT INTO outbox (queue, payload, kind, priority, meta) VALUES ('mail', '7', 'k', -3, '[1]')\")";
    app(&node, rows);
    wait_until(SOON, "7 is done", || payloads(&node, "done") == ["7"]);
    wait_until(SOON, "what is no JSON is dead", || {
        payloads(&node, "dead") == ["\"no json\""]
    });
    wait_until(SOON, "a wrong name is told", || {
        summary(&node).contains("queue `mial`")
    });
    assert_eq!(left(&node), "1", "a row that is nobody's stays");
    app(&node, "c.execute(\"UPDATE outbox SET queue = 'mail'\")");
    wait_until(SOON, "it is done under the right name", || {
        payloads(&node, "done").len() == 2 && summary(&node) == "1 dead in the last hour"
    });
    assert_eq!(code(&node.cli(&["queue", "close", "mail"])), 0);
    app(
        &node,
        "c.execute(\"INSERT INTO outbox (queue, payload) VALUES ('mail', '8')\")",
    );
    wait_until(SOON, "a closed queue is told", || {
        summary(&node).contains("closed")
    });
    assert_eq!(left(&node), "1", "a closed queue takes nothing");
    assert_eq!(code(&node.cli(&["queue", "open", "mail"])), 0);
    wait_until(SOON, "an open one takes it", || {
        payloads(&node, "done").len() == 3
    });
    assert_eq!(left(&node), "0");
}
