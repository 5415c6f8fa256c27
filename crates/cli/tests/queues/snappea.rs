//! The file of a snappea queue, taken as it is (B7): `examples/snappea`, with a module of its own.

use super::*;

const WORKER: &str = include_str!("../../../../examples/snappea/worker.py");

/// What a Django project has: the table as its migration makes it, and what `.delay` inserts.
const FILE: &str = r#"
import json, sqlite3, sys
c = sqlite3.connect("snappea.sqlite3")
c.execute("PRAGMA journal_mode = WAL")
c.execute('''CREATE TABLE IF NOT EXISTS "snappea_task" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT,
    "created_at" datetime NOT NULL, "task_name" varchar(255) NOT NULL, "args" text NOT NULL, "kwargs" text NOT NULL)''')
def delay(name, args, kwargs="{}"):
    c.execute("INSERT INTO snappea_task (created_at, task_name, args, kwargs) VALUES ('2026-01-02 03:04:05.678901', ?, ?, ?)",
        (name, args, kwargs))
for n in range(int(sys.argv[1]), int(sys.argv[2])):
    delay("mine.note", json.dumps([n]), json.dumps({"mark": "x"}))
if sys.argv[3:] == ["bad"]:
    delay("mine.note", "[1")
    delay("mine.note", "{}")
    delay("mine.never", "[]")
    delay("mine.fails", "[]")
c.commit()
"#;

const MODULE: &str = r#"
def note(n, mark):
    with open("noted", "a") as file:
        file.write(f"{n} {mark}\n")

def fails():
    raise RuntimeError("so it is")
"#;

fn delay(node: &Node, words: &[&str]) {
    let status = std::process::Command::new("python3")
        .args(["-c", FILE])
        .args(words)
        .current_dir(node.root())
        .status();
    assert!(status.expect("python3").success());
}

#[test]
fn the_file_of_a_snappea_queue_is_worked_off_once_over_kills_and_in_its_order() {
    let text = r#"
[defaults]
cwd = "{{file.dir}}"
[queue.tasks]
outbox = "snappea.sqlite3"
cmd = "python3 -B worker.py"
resident = true
workers = 1
retry.attempts = 1
"#;
    let mut node = Node::builder().config("gaffer.toml", text).prepare();
    std::fs::write(node.root().join("worker.py"), WORKER).expect("the worker");
    std::fs::write(node.root().join("mine.py"), MODULE).expect("its module");
    delay(&node, &["0", "300", "bad"]);
    node.start_again();
    let noted = node.root().join("noted");
    for part in [40, 160] {
        wait_until(SOON, "some of them", || lines(&noted).len() >= part);
        node.kill9();
        node.start_again();
    }
    // The program goes on as before.
    delay(&node, &["300", "320"]);
    let empty = || code(&node.cli(&["wait", "queue:tasks=empty", "--timeout", "1s"])) == 0;
    wait_until(SOON, "all of them", || lines(&noted).len() >= 320 && empty());
    let expected: Vec<String> = (0..320).map(|n| format!("{n} x")).collect();
    assert_eq!(lines(&noted), expected, "each once, first in, first out");
    let dead = node.cli(&["queue", "tasks", "tasks", "--state", "dead", "--json"]);
    let dead: Value = serde_json::from_slice(&dead.stdout).unwrap_or(Value::Null);
    let mut why: Vec<(&str, &str, &str)> = dead
        .as_array()
        .expect("a list")
        .iter()
        .map(|task| {
            let text = |value: &'static str| task[value].as_str().unwrap_or_default();
            (
                text("kind"),
                task["error"]["kind"].as_str().unwrap_or_default(),
                text("created_at"),
            )
        })
        .collect();
    why.sort_unstable();
    let pushed = "2026-01-02T03:04:05.679Z";
    assert_eq!(
        why,
        [
            ("mine.fails", "RuntimeError", pushed),
            ("mine.never", "unknown-kind", pushed),
            ("mine.note", "bad-arguments", pushed),
            ("mine.note", "bad-arguments", pushed),
        ]
    );
    node.stop(SOON);
}

#[test]
fn only_one_queue_can_take_from_a_file_whose_rows_say_no_queue() {
    let text = r#"
[queue.one]
outbox = "snappea.sqlite3"
[queue.two]
outbox = "snappea.sqlite3"
"#;
    let mut node = Node::builder().config("gaffer.toml", text).prepare();
    delay(&node, &["0", "3"]);
    node.start_again();
    wait_until(SOON, "it says so", || {
        let shown = node.cli(&["queue", "show", "one"]);
        super::text(&shown).contains("only one queue can take from it")
    });
    node.stop(SOON);
}
