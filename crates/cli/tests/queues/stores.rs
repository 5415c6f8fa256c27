//! A node with several stores of queues: its own file, and a database that a queue names.

use super::*;
use gaffer_testkit::postgres::Postgres;

/// Number of task 1 of the first store that queues name.
const FAR: i64 = 1_000_000_000_001;

/// With a password, which the server does not ask for and nobody is to see.
fn url(server: &Postgres) -> String {
    server.url().replace("gaffer@", "gaffer:S3CRET@")
}

fn both(server: &Postgres) -> String {
    let far = url(server);
    format!(
        r#"
[defaults.queue]
workers = 2
keep.done = "1h"
result = "stdout"
keep.result = "1h"
retry.delay = "10ms"
stop = "200ms"
cmd = ["sh", "-c", "echo $$GAFFER_TASK >> begun; read n; until test -e go; do sleep 0.02; done; echo $$GAFFER_TASK >> ended; echo $$n"]
[queue.near]
[queue.far]
store = "{far}"
[queue.far2]
store = "{far}"
"#
    )
}

fn go(node: &Node) {
    std::fs::write(node.root().join("go"), "").expect("a file");
}

fn begun(node: &Node) -> Vec<i64> {
    numbers(node, "begun")
}

fn numbers(node: &Node, file: &str) -> Vec<i64> {
    let mut all: Vec<i64> = lines(&node.root().join(file))
        .iter()
        .map(|line| line.parse().expect("a number"))
        .collect();
    all.sort_unstable();
    all
}

fn listed(node: &Node, queue: &str) -> Value {
    let all = node.cli(&["queue", "ls", "--json"]);
    assert_eq!(code(&all), 0, "{}", errors(&all));
    let all: Value = serde_json::from_slice(&all.stdout).expect("JSON");
    let found = all
        .as_array()
        .and_then(|all| all.iter().find(|one| one["queue"] == queue));
    found
        .cloned()
        .unwrap_or_else(|| panic!("no queue {queue}: {all}"))
}

#[test]
fn a_queue_may_have_a_store_of_its_own_and_everything_reaches_the_right_one() {
    let server = Postgres::start();
    let mut node = node(&both(&server));
    let near = push(&node, &["near", "1"]);
    let far = push(&node, &["far", "2"]);
    let far2 = push(&node, &["far2", "3"]);
    assert_eq!((near, far, far2), (1, FAR, FAR + 1), "the two share a database");
    wait_until(SOON, "all have begun", || begun(&node) == [near, far, far2]);
    assert_eq!(server.sql("SELECT COUNT(*) FROM gaffer.task"), "2");
    go(&node);
    for (id, queue, result) in [(near, "near", 1), (far, "far", 2), (far2, "far2", 3)] {
        wait_state(&node, id, "done");
        let shown = show(&node, id);
        assert_eq!(
            (&shown["queue"], &shown["result"], &shown["id"]),
            (&json!(queue), &json!(result), &json!(id))
        );
        let listed = node.cli(&["queue", "tasks", queue, "--json"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
        assert_eq!(listed[0]["id"], id, "{listed}");
        let stats = node.get(&format!("/v1/queues/default/{queue}/stats"));
        assert_eq!(stats[0]["done"], 1, "{stats}");
    }
    // By the number that it has in its store nobody means it.
    let unknown = node.cli(&["queue", "show", "2"]);
    assert_eq!(code(&unknown), 3, "{}", errors(&unknown));
    let unknown = node.cli(&["queue", "show", "7000000000001"]);
    assert_eq!(code(&unknown), 3, "{}", errors(&unknown));
    let later = push(&node, &["far", "--in", "1h", "4"]);
    assert_eq!(code(&node.cli(&["queue", "cancel", &later.to_string()])), 0);
    assert_eq!(state(&node, later), "cancelled");
    let edited = node.cli(&["queue", "edit", &later.to_string(), "5"]);
    assert_eq!(code(&edited), 0, "{}", errors(&edited));
    let anew: i64 = text(&edited).parse().expect("a number");
    assert_eq!(show(&node, anew)["meta"]["from"], later);
    wait_state(&node, anew, "done");
    assert_eq!(code(&node.cli(&["queue", "retry", &far.to_string()])), 0);
    wait_state(&node, far, "done");
    let waited = node.cli(&["push", "far", "--wait", "6"]);
    assert_eq!((code(&waited), text(&waited)), (0, "6".to_owned()));
    assert_eq!(code(&node.cli(&["queue", "rm", "-y", &far.to_string()])), 0);
    assert_eq!(state(&node, far), "unknown");
    assert_eq!(code(&node.cli(&["queue", "pause", "far"])), 0);
    assert_eq!(
        server.sql("SELECT paused FROM gaffer.queue_state WHERE queue = 'default.far'"),
        "t"
    );
    node.stop(SOON);
}

#[test]
fn the_password_of_a_store_is_shown_to_nobody_and_another_one_counts_from_the_next_start() {
    let server = Postgres::start();
    let text = both(&server);
    let mut node = node(&text);
    push(&node, &["far", "1"]);
    let mut seen = Vec::new();
    for path in [
        "/v1/queues",
        "/v1/queues/default/far?spec=true",
        "/v1/config",
        "/v1/events",
    ] {
        let (status, said) = node.http("GET", path, None);
        assert_eq!(status, 200, "{path}: {said}");
        seen.push(said.to_string());
    }
    assert!(seen[0].contains("\"store\":\"sqlite\""), "{}", seen[0]);
    assert!(seen[1].contains("gaffer:***@"), "{}", seen[1]);
    // The password, then the database, then the file of the node.
    let others = [
        text.replace("S3CRET", "S3CRET2"),
        text.replacen("/queue\"", "/S3another\"", 1),
        text.replacen(&format!("store = \"{}\"", url(&server)), "store = \"sqlite\"", 1),
    ];
    for (other, said) in others.iter().zip(["new password", "S3another", "store"]) {
        std::fs::write(node.root().join("gaffer.toml"), other).expect("written");
        let plan = node.cli(&["plan", "--format", "json"]);
        assert_eq!(code(&plan), 0, "{}", errors(&plan));
        let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
        assert!(
            plan.contains("\"class\": \"daemon\"") && plan.contains(said),
            "{plan}"
        );
        seen.push(plan);
        let shown = node.cli(&["plan"]);
        let words = "counts from the next start of the daemon";
        assert!(super::text(&shown).contains(words), "{}", super::text(&shown));
        seen.push(String::from_utf8_lossy(&shown.stdout).into_owned());
        seen.push(errors(&shown));
    }
    let applied = node.cli(&["apply", "-y"]);
    assert_eq!(code(&applied), 0, "{}", errors(&applied));
    seen.push(String::from_utf8_lossy(&applied.stdout).into_owned());
    assert_eq!(push(&node, &["far", "1"]), FAR + 1, "as before");
    wait_until(SOON, "both have begun", || begun(&node).len() == 2);
    node.kill9();
    node.start_again();
    assert_eq!(push(&node, &["far", "1"]), 1, "now in the file of the node");
    // What was at work is led to its end in the other one, which is there for far2.
    go(&node);
    for id in [FAR, FAR + 1, 1] {
        wait_state(&node, id, "done");
    }
    assert_eq!(numbers(&node, "ended"), [1, FAR, FAR + 1]);
    seen.push(node.log());
    for said in seen {
        assert!(!said.contains("S3CRET"), "{said}");
    }
    node.stop(SOON);
}

#[test]
fn hazard_50_a_node_with_two_stores_is_killed_and_nothing_of_either_is_lost() {
    let server = Postgres::start();
    let mut node = node(&both(&server));
    let near = push(&node, &["near", "1"]);
    let far = push(&node, &["far", "2"]);
    wait_until(SOON, "both have begun", || begun(&node).len() == 2);
    let waiting: Vec<i64> = ["near", "far", "near", "far"]
        .iter()
        .map(|queue| push(&node, &[queue, "--in", "1s", "7"]))
        .collect();
    // The daemon alone: its workers live on, and are adopted where they belong.
    node.kill9();
    go(&node);
    wait_until(SOON, "both have ended meanwhile", || {
        numbers(&node, "ended") == [near, far]
    });
    node.start_again();
    for id in [near, far].iter().chain(&waiting) {
        wait_state(&node, *id, "done");
    }
    assert_eq!(
        (
            show(&node, near)["attempt"].as_u64(),
            show(&node, far)["attempt"].as_u64()
        ),
        (Some(1), Some(1))
    );
    // Everything: what ran runs again, at once, though the lease is half a minute.
    std::fs::remove_file(node.root().join("go")).expect("it was there");
    let near = push(&node, &["near", "1"]);
    let far = push(&node, &["far", "2"]);
    wait_until(SOON, "both have begun", || begun(&node).len() == 8);
    node.kill9();
    kill_shims(&node);
    for process in node.job_processes() {
        if let Some(worker) = Handle::open(process.pid) {
            let _gone = worker.signal(Signal::KILL);
        }
    }
    go(&node);
    node.start_again();
    for id in [near, far] {
        wait_state(&node, id, "done");
        assert_eq!(
            numbers(&node, "ended").iter().filter(|one| **one == id).count(),
            1
        );
    }
    node.stop(SOON);
}

#[test]
fn a_store_that_does_not_answer_holds_back_its_own_queues_only() {
    let mut server = Postgres::start();
    let schedules = r#"
[schedule.nearby]
cron = "* * * * * *"
queue = "near"
overlap = "allow"
[schedule.faraway]
cron = "* * * * * *"
queue = "far"
overlap = "allow"
"#;
    let mut node = node(&(both(&server) + schedules));
    go(&node);
    let pushed = |node: &Node, name: &str| {
        let ended = numbers(node, "ended").into_iter();
        ended.filter(|id| (*id > FAR - 1) == (name == "far")).count()
    };
    wait_until(SOON, "both schedules push", || {
        pushed(&node, "near") > 0 && pushed(&node, "far") > 0
    });
    server.crash();
    let refused = node.cli(&["push", "far", "2"]);
    assert_ne!(code(&refused), 0);
    assert!(errors(&refused).contains("database"), "{}", errors(&refused));
    // The other one does all that it did, also by the clock.
    let id = push(&node, &["near", "1"]);
    wait_state(&node, id, "done");
    let before = pushed(&node, "near");
    wait_until(SOON, "its schedule goes on", || {
        pushed(&node, "near") > before + 1
    });
    assert_eq!(listed(&node, "near")["state"], json!("idle"));
    let far = listed(&node, "far");
    assert_eq!(far["state"], "unreachable");
    let summary = far["summary"].as_str().expect("words");
    assert!(summary.contains("database"), "{summary}");
    let table = text(&node.cli(&["queue", "ls"]));
    assert!(table.contains("far ") && table.contains("database"), "{table}");
    let metrics = node.request("GET", "/metrics", None).text();
    assert!(
        metrics.contains("gaffer_queue_tasks{session=\"default\",queue=\"near\""),
        "{metrics}"
    );
    assert!(
        !metrics.contains("gaffer_queue_tasks{session=\"default\",queue=\"far\""),
        "{metrics}"
    );
    // A daemon that starts while it is away does the same.
    node.restart();
    let id = push(&node, &["near", "1"]);
    wait_state(&node, id, "done");
    assert_eq!(listed(&node, "far")["state"], "unreachable");
    let before = pushed(&node, "far");
    server.start_again();
    wait_until(SOON, "its schedule goes on", || pushed(&node, "far") > before);
    wait_until(SOON, "it is there again", || {
        listed(&node, "far")["state"] != "unreachable"
    });
    let id = push(&node, &["far", "1"]);
    wait_state(&node, id, "done");
    node.stop(SOON);
}

#[test]
fn an_outbox_feeds_a_queue_whose_tasks_are_in_a_database() {
    let server = Postgres::start();
    let text = both(&server).replace("[queue.far]\n", "[queue.far]\noutbox = \"app.db\"\n");
    let mut node = node(&text);
    let rows = "INSERT INTO outbox (queue, payload) VALUES ('far', '1'), ('far', '2')";
    outbox::app(
        &node,
        &format!(
            "c.execute('PRAGMA journal_mode = WAL')\nc.execute('''{}''')\nc.execute(\"{rows}\")",
            outbox::TABLE
        ),
    );
    go(&node);
    for id in [FAR, FAR + 1] {
        wait_state(&node, id, "done");
    }
    assert_eq!(server.sql("SELECT COUNT(*) FROM gaffer.task"), "2");
    node.stop(SOON);
}
