//! Queues of several nodes, on a real server.

use super::*;
use gaffer_testkit::postgres::Postgres;
use gaffer_testkit::process::Process;
use gaffer_testkit::wait_for;
use std::collections::BTreeSet;

/// A node that shares the database.
fn shared(server: &Postgres, name: &str, text: &str) -> Node {
    node(&format!(
        "[gaffer]\nname = \"{name}\"\nqueue_store = \"{}\"\n{text}",
        server.url()
    ))
}

fn begun(node: &Node) -> Vec<String> {
    lines(&node.root().join("begun"))
}

const NOTES: &str = r#"
[queue.q]
workers = 4
keep.done = "1h"
cmd = ["sh", "-c", "echo $$GAFFER_TASK >> begun; sleep 0.02"]
"#;

/// Scenario 5: two nodes on PostgreSQL: each task runs exactly once, and both get some.
#[test]
fn scenario_05_two_nodes_share_a_queue() {
    let server = Postgres::start();
    let mut one = shared(&server, "one", NOTES);
    let mut two = shared(&server, "two", NOTES);
    let many = json!(vec![json!({ "payload": 1 }); 300]);
    let (status, pushed) = one.http("POST", "/v1/queues/default/q/tasks", Some(&many));
    assert_eq!(status, 201, "{pushed}");
    let waited = two.cli(&["wait", "queue:q=empty", "--timeout", "60s"]);
    assert_eq!(code(&waited), 0, "{}", errors(&waited));
    let (first, second) = (begun(&one), begun(&two));
    assert!(
        !first.is_empty() && !second.is_empty(),
        "{} and {}",
        first.len(),
        second.len()
    );
    let all: BTreeSet<&String> = first.iter().chain(&second).collect();
    assert_eq!((all.len(), first.len() + second.len()), (300, 300), "each once");
    one.stop(SOON);
    two.stop(SOON);
}

#[test]
fn what_an_operator_says_on_one_node_counts_on_all() {
    let server = Postgres::start();
    let long = r#"
[queue.q]
workers = 1
lease = "10m"
stop = "1s"
cmd = ["sh", "-c", "echo $$GAFFER_TASK >> begun; exec sleep 1000"]
"#;
    let mut one = shared(&server, "one", "[queue.q]\nworkers = 0\n");
    let mut two = shared(&server, "two", long);
    let id = push(&one, &["q", "1"]);
    wait_until(SOON, "begun", || begun(&two).len() == 1);
    assert_eq!(code(&one.cli(&["queue", "pause", "q"])), 0);
    wait_until(SOON, "paused on the other", || {
        two.get("/v1/queues/default/q")["paused"] == true
    });
    let waits = push(&two, &["q", "2"]);
    assert_eq!(code(&one.cli(&["queue", "cancel", &id.to_string()])), 0);
    wait_state(&one, id, "cancelled");
    assert_eq!(state(&two, waits), "queued");
    assert_eq!(code(&two.cli(&["queue", "resume", "q"])), 0);
    wait_until(SOON, "begun", || begun(&two).len() == 2);
    one.stop(SOON);
    two.stop(SOON);
}

const HELD: &str = r#"
[queue.q]
workers = 1
lease = "3s"
retry.delay = "10ms"
stop = "200ms"
keep.done = "1h"
cmd = ["sh", "-c", "echo $$$$ >> begun; until test -e go; do sleep 0.02; done; echo $$GAFFER_TASK >> ended"]
"#;

/// Scenario 30: a short cut of the connection: tasks go on, leases are renewed in time, nothing is doubled; a long one: workers are stopped
/// before their tasks can run elsewhere.
#[test]
fn scenario_30_a_short_outage_of_the_server_is_waited_out() {
    let mut server = Postgres::start();
    // The server is back long before this is over, also on a busy machine.
    let mut node = shared(&server, "one", &HELD.replace("lease = \"3s\"", "lease = \"12s\""));
    let id = push(&node, &["q", "1"]);
    wait_until(SOON, "begun", || begun(&node).len() == 1);
    server.crash();
    let refused = node.cli(&["push", "q", "2"]);
    assert_ne!(code(&refused), 0);
    assert!(errors(&refused).contains("database"), "{}", errors(&refused));
    server.start_again();
    let lease = || {
        let until = server.sql("SELECT lease_until FROM gaffer.task WHERE state = 'running'");
        until.parse::<i64>().expect("it runs")
    };
    let before = lease();
    wait_until(SOON, "the lease is renewed", || lease() > before);
    std::fs::write(node.root().join("go"), "").expect("a file");
    wait_state(&node, id, "done");
    assert_eq!(
        (begun(&node).len(), show(&node, id)["attempt"].as_u64()),
        (1, Some(1))
    );
    let after = push(&node, &["q", "3"]);
    wait_state(&node, after, "done");
    assert_eq!(
        server.sql("SELECT COUNT(*) FROM gaffer.task"),
        "2",
        "what was refused is not there"
    );
    node.stop(SOON);
}

/// Scenario 30: a short cut of the connection: tasks go on, leases are renewed in time, nothing is doubled; a long one: workers are stopped
/// before their tasks can run elsewhere.
#[test]
fn scenario_30_after_a_long_outage_the_worker_has_ended_before_its_task_runs_again() {
    let mut server = Postgres::start();
    let mut one = shared(&server, "one", HELD);
    let id = push(&one, &["q", "1"]);
    wait_until(SOON, "begun", || begun(&one).len() == 1);
    let worker: u32 = begun(&one)[0].parse().expect("a pid");
    // Just renewed, so that it is the last one: nobody else may have the task before this.
    let lease_until = wait_for(SOON, "a fresh lease", || {
        let fresh = "SELECT lease_until FROM gaffer.task WHERE lease_until - gaffer.now_ms() > 2500";
        server.sql(fresh).parse::<i64>().ok()
    });
    server.crash();
    wait_until(SOON, "the worker has ended", || {
        Process::read(worker).is_none_or(|process| process.is_zombie())
    });
    let left = lease_until - jiff::Timestamp::now().as_millisecond();
    assert!(left > 0, "{left} ms before its lease was over");
    server.start_again();
    std::fs::write(one.root().join("go"), "").expect("a file");
    wait_state(&one, id, "done");
    assert_eq!(
        (begun(&one).len(), lines(&one.root().join("ended")).len()),
        (2, 1)
    );
    one.stop(SOON);
}

#[test]
fn hazard_50_the_node_is_killed_and_its_task_runs_again_on_the_other() {
    let server = Postgres::start();
    let mut one = shared(&server, "one", HELD);
    let id = push(&one, &["q", "1"]);
    wait_until(SOON, "begun", || begun(&one).len() == 1);
    let worker: u32 = begun(&one)[0].parse().expect("a pid");
    one.kill9();
    kill_shims(&one);
    if let Some(worker) = Handle::open(worker) {
        worker.signal(Signal::KILL);
    }
    let mut two = shared(&server, "two", HELD);
    std::fs::write(two.root().join("go"), "").expect("a file");
    wait_state(&two, id, "done");
    assert_eq!(lines(&two.root().join("ended")).len(), 1);
    two.stop(SOON);
}

/// A lease that no test waits for.
fn long_held() -> String {
    HELD.replace("lease = \"3s\"", "lease = \"10m\"")
}

/// B2: the lease of a task is ten minutes, and its node does not wait for it: nobody else can be the one that comes back.
#[test]
fn hazard_50_a_node_that_comes_back_has_its_own_tasks_at_once() {
    let server = Postgres::start();
    let mut one = shared(&server, "one", &long_held());
    let mut two = shared(&server, "two", "[queue.q]\nworkers = 0\n");
    let id = push(&two, &["q", "1"]);
    wait_until(SOON, "begun", || begun(&one).len() == 1);
    let worker: u32 = begun(&one)[0].parse().expect("a pid");
    one.kill9();
    kill_shims(&one);
    if let Some(worker) = Handle::open(worker) {
        worker.signal(Signal::KILL);
    }
    assert_eq!(state(&two, id), "running", "nobody knows it yet");
    std::fs::write(one.root().join("go"), "").expect("a file");
    one.start_again();
    wait_state(&one, id, "done");
    assert_eq!(lines(&one.root().join("ended")).len(), 1);
    one.stop(SOON);
    two.stop(SOON);
}

/// B2: who leaves in order gives back what he has: others need not wait for the lease, and the attempt does not count.
#[test]
fn a_node_that_leaves_in_order_gives_its_tasks_back_at_once() {
    let server = Postgres::start();
    let mut one = shared(&server, "one", &long_held());
    let id = push(&one, &["q", "1"]);
    let next = push(&one, &["q", "2"]);
    wait_until(SOON, "begun", || begun(&one).len() == 1);
    let mut two = shared(&server, "two", &long_held().replace("workers = 1", "workers = 2"));
    wait_until(SOON, "the other one has what waits", || begun(&two).len() == 1);
    one.stop(SOON);
    wait_until(SOON, "the other one has both", || begun(&two).len() == 2);
    std::fs::write(two.root().join("go"), "").expect("a file");
    for id in [id, next] {
        wait_state(&two, id, "done");
        assert_eq!(show(&two, id)["attempt"], 1);
    }
    assert_eq!(lines(&one.root().join("ended")).len(), 0);
    two.stop(SOON);
}

/// Scenario 11: a daemon that was down for 3 ticks: none is made up for, the last, or all, as it says, and none of them twice with two
/// nodes.
#[test]
fn scenario_11_a_schedule_of_the_fleet_pushes_each_tick_once() {
    let server = Postgres::start();
    let text = r#"
[queue.q]
workers = 1
keep.done = "1h"
cmd = ["true"]
[schedule.all]
cron = "* * * * * *"
queue = "q"
kind = "fleet"
overlap = "allow"
once_per = "fleet"
[schedule.rare]
cron = "0 0 1 1 *"
queue = "q"
once_per = "fleet"
[schedule.each]
cron = "* * * * * *"
queue = "q"
kind = "node"
overlap = "allow"
"#;
    let mut one = shared(&server, "one", text);
    let mut two = shared(&server, "two", text);
    assert_eq!(code(&one.cli(&["queue", "ls"])), 0, "the store is open");
    let ticks = |kind: &str| {
        let sql = format!("SELECT COUNT(*), COUNT(DISTINCT meta) FROM gaffer.task WHERE kind = '{kind}'");
        let answer = server.sql(&sql);
        let (all, distinct) = answer.split_once('|').expect("two numbers");
        let number = |text: &str| text.parse::<u32>().expect("a number");
        (number(all), number(distinct))
    };
    wait_until(SOON, "ticks of both nodes", || {
        let (all, distinct) = ticks("node");
        distinct >= 4 && all > distinct
    });
    let (all, distinct) = ticks("fleet");
    assert!(distinct >= 3, "{distinct}");
    assert_eq!(all, distinct, "each tick once");
    // One that ticks would be looked up with its next tick; one that does not is told of.
    for schedule in ["all", "rare"] {
        assert_eq!(code(&one.cli(&["schedule", "pause", schedule])), 0);
        wait_until(SOON, "paused on the other", || {
            two.get(&format!("/v1/schedules/default/{schedule}"))["paused"] == true
        });
    }
    assert_eq!(two.get("/v1/schedules/default/each")["paused"], false);
    one.stop(SOON);
    two.stop(SOON);
}

#[test]
fn what_is_wrong_with_the_url_is_said() {
    let wrong = "[gaffer]\nqueue_store = \"mysql://root:secret@h/x\"\n";
    let refused = Node::builder()
        .config("gaffer.toml", &format!("{wrong}{NOTES}"))
        .prepare();
    let said = refused.root().join("said");
    let mut daemon = refused.daemon_command();
    daemon.stderr(std::fs::File::create(&said).expect("a file"));
    let mut daemon = daemon.spawn().expect("gafferd");
    wait_until(SOON, "it is refused", || {
        daemon.try_wait().expect("its status").is_some()
    });
    let said = lines(&said).join("\n");
    assert!(said.contains("neither `sqlite` nor the URL"), "{said}");
    // A database that is not there yet is waited for: the daemon does all else.
    let mut node = node(&format!(
        "[gaffer]\nqueue_store = \"postgres://gaffer@%2Fnowhere/queue\"\n{NOTES}"
    ));
    let pushed = node.cli(&["push", "q", "1"]);
    assert_ne!(code(&pushed), 0);
    assert!(errors(&pushed).contains("the database"), "{}", errors(&pushed));
    node.stop(SOON);
}
