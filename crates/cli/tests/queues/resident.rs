//! Resident workers: kept, fed, listened to.

use super::*;

/// A resident worker: it does what the payload says, in as many threads as it is given tasks.
const WORKER: &str = r#"
import json, sys, threading, time, os
lock = threading.Lock()
def say(what):
    with lock:
        print(json.dumps(what), flush=True)
def work(task):
    do = task["payload"]
    with open("begun", "a") as begun:
        begun.write("%d\n" % task["id"])
    own = {"id": task["id"], "token": task["token"]}
    if do.get("wait"):
        while not os.path.exists(do["wait"]):
            time.sleep(0.01)
            if task["id"] in cancelled:
                return say({"type": "cancelled", **own})
    if do.get("die"):
        os._exit(3)
    if do.get("fail"):
        return say({"type": "fail", "error": {"kind": "sad", "message": do["fail"]}, "fatal": do.get("fatal", False), **own})
    say({"type": "done", "result": {"twice": do.get("n", 0) * 2}, **own})
cancelled = set()
threads = []
print("a worker begins", flush=True)
for line in sys.stdin:
    task = json.loads(line)
    if task["type"] == "cancel":
        cancelled.add(task["id"])
    else:
        threads.append(threading.Thread(target=work, args=(task,)))
        threads[-1].start()
for thread in threads:
    thread.join()
"#;

fn resident(text: &str) -> Node {
    let node = Node::builder()
        .config(
            "gaffer.toml",
            &format!("[queue.r]\ncmd = \"python3 worker.py\"\nresident = true\nkeep.result = \"1h\"\n{text}"),
        )
        .prepare();
    std::fs::write(node.root().join("worker.py"), WORKER).expect("a file");
    let mut node = node;
    node.start_again();
    node
}

#[test]
fn a_resident_worker_is_kept_and_fed() {
    let mut node = resident("workers = 4\nslots = 2\nretry = { attempts = 2, delay = \"20ms\" }\n");
    for n in 0..40 {
        push(&node, &["r", &json!({"n": n}).to_string()]);
    }
    for n in 1..=40 {
        wait_state(&node, n, "done");
    }
    assert_eq!(show(&node, 40)["result"], json!({"twice": 78}));
    let workers = node
        .job_processes()
        .iter()
        .filter(|one| one.command.iter().any(|word| word == "worker.py"))
        .count();
    assert_eq!(workers, 2, "two of two slots");
    let failed = push(&node, &["r", r#"{"fail": "no milk"}"#]);
    wait_state(&node, failed, "dead");
    assert_eq!(
        (
            &show(&node, failed)["error"]["kind"],
            &show(&node, failed)["attempt"]
        ),
        (&json!("sad"), &json!(2))
    );
    let fatal = push(&node, &["r", r#"{"fail": "no cow", "fatal": true}"#]);
    wait_state(&node, fatal, "dead");
    assert_eq!(show(&node, fatal)["attempt"], 1);
    node.stop(SOON);
}

#[test]
fn a_resident_worker_that_dies_fails_what_it_had_and_is_replaced() {
    let mut node = resident("workers = 1\nretry = { attempts = 2, delay = \"20ms\" }\n");
    let id = push(&node, &["r", r#"{"die": true}"#]);
    wait_state(&node, id, "dead");
    assert_eq!(show(&node, id)["error"]["kind"], "exit:3");
    let next = push(&node, &["r", r#"{"n": 4}"#]);
    wait_state(&node, next, "done");
    node.stop(SOON);
}

#[test]
fn a_task_of_a_resident_worker_can_be_cancelled_and_time_out() {
    let mut node = resident("workers = 2\nslots = 2\nstop = \"300ms\"\nretry = { delay = \"20ms\" }\n");
    let id = push(&node, &["r", r#"{"wait": "never"}"#]);
    wait_state(&node, id, "running");
    wait_until(SOON, "begun", || !lines(&node.root().join("begun")).is_empty());
    node.cli(&["queue", "cancel", &id.to_string()]);
    wait_state(&node, id, "cancelled");
    let late = push(&node, &["r", "--task-timeout", "200ms", r#"{"wait": "never"}"#]);
    wait_until(SOON, "a time-out", || {
        show(&node, late)["error"]["kind"] == "timeout"
    });
    node.cli(&["queue", "cancel", &late.to_string()]);
    node.stop(SOON);
}

#[test]
fn what_a_resident_worker_did_is_not_lost_with_the_daemon() {
    let mut node = resident("workers = 2\nslots = 2\n");
    let first = push(&node, &["r", r#"{"wait": "go", "n": 1}"#]);
    let second = push(&node, &["r", r#"{"wait": "go", "n": 2}"#]);
    let begun = node.root().join("begun");
    wait_until(SOON, "both begun", || lines(&begun).len() == 2);
    node.kill9();
    std::fs::write(node.root().join("go"), "").expect("a file");
    // One answer is written while nobody reads, and one when it is read again.
    node.start_again();
    wait_state(&node, first, "done");
    wait_state(&node, second, "done");
    assert_eq!(lines(&begun).len(), 2, "none began twice");
    assert_eq!(show(&node, second)["result"], json!({"twice": 4}));
    let next = push(&node, &["r", r#"{"n": 4}"#]);
    wait_state(&node, next, "done");
    node.stop(SOON);
}
