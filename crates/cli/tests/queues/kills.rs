//! The crash table: whatever is killed, what was promised is kept.

use super::*;
use gaffer_testkit::process::Process;

/// What gets a SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Worker,
    Shim,
    Daemon,
    DaemonAndWorker,
    All,
}

const VICTIMS: [Victim; 5] = [
    Victim::Worker,
    Victim::Shim,
    Victim::Daemon,
    Victim::DaemonAndWorker,
    Victim::All,
];

fn kill_pid(pid: u32) {
    let handle = Handle::open(pid).expect("a process");
    assert!(handle.signal(Signal::KILL), "it lives");
}

fn first_pid(path: &Path) -> u32 {
    let all = lines(path);
    let first = all.first().expect("a worker has begun");
    first.parse().unwrap_or_else(|_| panic!("a pid: {first}"))
}

fn strike(node: &mut Node, victim: Victim) {
    let worker = first_pid(&node.root().join("pids"));
    if matches!(victim, Victim::Daemon | Victim::DaemonAndWorker | Victim::All) {
        node.kill9();
    }
    if matches!(victim, Victim::Worker | Victim::DaemonAndWorker | Victim::All) {
        kill_pid(worker);
    }
    if matches!(victim, Victim::Shim | Victim::All) {
        kill_shims(node);
    }
    if node.daemon_pid().is_none() {
        node.start_again();
    }
    if victim != Victim::Daemon {
        // The daemon ends what its shim left; until then it could still be told to go.
        let is_gone = || Process::read(worker).is_none_or(|process| process.is_zombie());
        wait_until(SOON, "the worker is gone", is_gone);
    }
    std::fs::write(node.root().join("go"), "").expect("a file");
}

/// A node whose worker runs and does not end before it is told to; one more task waits behind it. Both are there when the queue opens.
fn at_work(keys: &str) -> (Node, i64, i64) {
    let node = node(&format!(
        r#"
[queue.q]
workers = 1
retry = {{ delay = "10ms" }}
stop = "300ms"
cmd = ["sh", "-c", "echo $$$$ >> pids; echo $$GAFFER_TASK >> begun; until test -e go; do sleep 0.02; done; echo $$GAFFER_TASK >> ended"]
{keys}
"#
    ));
    assert_eq!(code(&node.cli(&["queue", "pause", "q"])), 0);
    let first = push(&node, &["q", "1"]);
    let second = push(&node, &["q", "2"]);
    assert_eq!(code(&node.cli(&["queue", "resume", "q"])), 0);
    let pids = node.root().join("pids");
    wait_until(SOON, "begun", || lines(&pids).len() == 1 && first_is_whole(&pids));
    (node, first, second)
}

fn first_is_whole(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'))
}

fn times(node: &Node, name: &str, id: i64) -> usize {
    let id = id.to_string();
    let all = lines(&node.root().join(name));
    all.iter().filter(|line| **line == id).count()
}

/// Scenario 2: at least once: after a SIGKILL the task runs again, with its attempt counted only if a worker had it. A worker that lives is
/// never given up: only its own death, or that of its shim, makes the task run again.
#[test]
fn scenario_02_b4_at_least_once_whatever_is_killed() {
    for victim in VICTIMS {
        let (mut node, first, second) = at_work("keep.done = \"1h\"");
        strike(&mut node, victim);
        for id in [first, second] {
            wait_state(&node, id, "done");
        }
        let begun = if victim == Victim::Daemon { 1 } else { 2 };
        assert_eq!(times(&node, "begun", first), begun, "{victim:?}");
        assert_eq!(times(&node, "ended", first), 1, "{victim:?}");
        assert_eq!(times(&node, "begun", second), 1, "{victim:?}");
        let task = show(&node, first);
        assert_eq!(
            (&task["attempt"], &task["crashes"]),
            (&json!(begun), &json!(begun - 1)),
            "{victim:?}: {task}"
        );
        node.stop(SOON);
        node.assert_no_job_processes();
    }
}

/// Scenario 1: at most once: after a SIGKILL of the daemon the task is not run again; `lost` if it is kept, else gone.
#[test]
fn scenario_01_b4_at_most_once_whatever_is_killed() {
    for victim in VICTIMS {
        for keeps in [true, false] {
            let keep = if keeps { "keep.done = \"1h\"" } else { "" };
            let (mut node, first, second) = at_work(&format!("delivery = \"at-most-once\"\n{keep}"));
            let before = state(&node, first);
            assert_eq!(
                before == "running",
                keeps,
                "a row that is not kept went with the claim"
            );
            strike(&mut node, victim);
            let ended = node.root().join("ended");
            wait_until(SOON, "the next task", || {
                lines(&ended).contains(&second.to_string())
            });
            let lives = victim == Victim::Daemon;
            assert_eq!(times(&node, "begun", first), 1, "{victim:?}: it began once");
            assert_eq!(times(&node, "ended", first), usize::from(lives), "{victim:?}");
            if keeps {
                wait_state(&node, first, if lives { "done" } else { "lost" });
            } else {
                assert_eq!(show(&node, first)["state"], Value::Null, "{victim:?}");
            }
            node.stop(SOON);
            node.assert_no_job_processes();
        }
    }
}

/// A13.23: SIGKILL during a task: it is lost, queued rows survive, and the lock that names the dead is taken over.
#[test]
fn a13_23_a_task_dies_with_everything_and_what_waits_survives() {
    let (mut node, first, second) = at_work("delivery = \"at-most-once\"");
    let owner = node.state_dir().join("queue.db-owner");
    let dead = node.daemon_pid().expect("a daemon").to_string();
    let worker = first_pid(&node.root().join("pids"));
    node.kill9();
    kill_pid(worker);
    kill_shims(&node);
    let rows = super::poison::sql(&node, "SELECT id, state FROM task");
    assert_eq!(rows, format!("[({second}, 'queued')]"));
    assert_eq!(lines(&owner), [dead]);
    std::fs::write(node.root().join("go"), "").expect("a file");
    node.start_again();
    assert_eq!(lines(&owner), [node.daemon_pid().expect("a daemon").to_string()]);
    wait_until(SOON, "the other task", || times(&node, "ended", second) == 1);
    assert_eq!(
        (times(&node, "begun", first), times(&node, "ended", first)),
        (1, 0)
    );
    node.stop(SOON);
    assert_eq!(super::poison::sql(&node, "SELECT id, state FROM task"), "[]");
}

/// Scenario 2: at least once: after a SIGKILL the task runs again, with its attempt counted only if a worker had it. Who is not handed to a
/// worker is given back uncounted, with everything dead.
#[test]
fn scenario_02_b4_what_no_worker_got_is_given_back_uncounted() {
    let (mut node, first, second) = at_work("keep.done = \"1h\"\nbatch = 5");
    // The second one is claimed with the first, and waits for its seat.
    wait_state(&node, second, "running");
    strike(&mut node, Victim::All);
    for id in [first, second] {
        wait_state(&node, id, "done");
    }
    assert_eq!(show(&node, second)["attempt"], 1);
    assert_eq!(times(&node, "begun", second), 1);
    node.stop(SOON);
}

/// Scenario 19: SIGKILL while limited tasks run: afterwards limits allow exactly their number. A key's limit is counted in rows that run:
/// no death of anybody leaves one behind, or frees one too early.
#[test]
fn scenario_19_limits_hold_over_kills() {
    for victim in [Victim::Daemon, Victim::All] {
        let mut node = node(
            r#"
[queue.q]
workers = 4
keep.done = "1h"
retry = { delay = "10ms", crashes = 50 }
throttle = { key = "who", per_key = 1 }
cmd = ["sh", "-c", "echo $$$$ >> pids; mkdir busy.$$1 || echo twice >> wrong; until test -e go; do sleep 0.02; done; rmdir busy.$$1", "sh", "{{payload.who}}"]
"#,
        );
        let mut ids = Vec::new();
        for n in 0..10 {
            let who = if n % 2 == 0 {
                "{\"who\": \"a\"}"
            } else {
                "{\"who\": \"b\"}"
            };
            ids.push(push(&node, &["q", who]));
        }
        let pids = node.root().join("pids");
        wait_until(SOON, "one of each key", || lines(&pids).len() == 2);
        node.kill9();
        if victim == Victim::All {
            for pid in lines(&pids) {
                kill_pid(pid.parse().expect("a pid"));
            }
            kill_shims(&node);
            for key in ["busy.a", "busy.b"] {
                std::fs::remove_dir(node.root().join(key)).expect("a key of the dead");
            }
        }
        node.start_again();
        let twice = if victim == Victim::All { 4 } else { 2 };
        wait_until(SOON, "one of each key again", || lines(&pids).len() == twice);
        // A new daemon answers before it has taken charge of what it found.
        let queue = gaffer_testkit::wait_for(SOON, "the daemon knows of both", || {
            let queue = node.get("/v1/queues/default/q");
            (queue["busy"] == 2).then_some(queue)
        });
        // Those that were killed may be between two attempts.
        let left = queue["waiting"].as_i64().zip(queue["scheduled"].as_i64());
        assert_eq!(
            left.map(|(waiting, scheduled)| waiting + scheduled),
            Some(8),
            "{queue}"
        );
        std::fs::write(node.root().join("go"), "").expect("a file");
        for id in ids {
            wait_state(&node, id, "done");
        }
        assert!(!node.root().join("wrong").exists(), "{victim:?}");
        node.stop(SOON);
    }
}
