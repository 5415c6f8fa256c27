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

#[test]
fn a_worker_gets_nothing_before_it_is_ready() {
    let mut node = resident(
        "workers = 1\nready = { cmd = [\"sh\", \"-c\", \"echo asked >> asked; test -e open && test $$PORT -gt 0\"], every = \"20ms\" }\n\
         port = \"auto\"\n",
    );
    let root = node.root().to_owned();
    let id = push(&node, &["r", r#"{"n": 4}"#]);
    wait_until(SOON, "it was asked", || lines(&root.join("asked")).len() >= 3);
    assert_eq!(
        (state(&node, id), root.join("begun").exists()),
        ("queued".to_owned(), false)
    );
    std::fs::write(root.join("open"), "").expect("written");
    wait_state(&node, id, "done");
    let asked = lines(&root.join("asked")).len();
    let id = push(&node, &["r", r#"{"n": 5}"#]);
    wait_state(&node, id, "done");
    assert_eq!(lines(&root.join("asked")).len(), asked, "it is ready once");
    node.stop(SOON);
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_replaced() {
    let mut node = resident(
        "workers = 1\nready = { log = \"^a worker begins$\", within = \"2s\" }\n\
         stop.timeout = \"100ms\"\nretry = { attempts = 1 }\n",
    );
    let file = node.root().join("worker.py");
    let good = std::fs::read_to_string(&file).expect("a file");
    let id = push(&node, &["r", r#"{"n": 4}"#]);
    wait_state(&node, id, "done");
    std::fs::write(&file, good.replace("a worker begins", "nothing of the kind")).expect("written");
    push(&node, &["r", r#"{"die": true}"#]);
    wait_until(SOON, "it is told in the log", || {
        node.log().contains("not ready within 2")
    });
    std::fs::write(&file, good).expect("written");
    let id = push(&node, &["r", r#"{"n": 5}"#]);
    wait_state(&node, id, "done");
    node.stop(SOON);
}

#[test]
fn a_worker_that_is_not_well_is_replaced_and_its_task_runs_again() {
    let mut node = resident(
        "workers = 1\nhealth = { cmd = [\"sh\", \"-c\", \"test ! -e sick\"], every = \"50ms\", failures = 2 }\n\
         stop.timeout = \"100ms\"\nretry = { delay = \"20ms\" }\n",
    );
    let root = node.root().to_owned();
    let id = push(&node, &["r", r#"{"wait": "go", "n": 1}"#]);
    wait_until(SOON, "it began", || !lines(&root.join("begun")).is_empty());
    std::fs::write(root.join("sick"), "").expect("written");
    wait_until(SOON, "an attempt is over", || {
        show(&node, id)["attempts"][0].is_object()
    });
    std::fs::remove_file(root.join("sick")).expect("removed");
    let first = show(&node, id)["attempts"][0].clone();
    assert_eq!(
        (&first["outcome"], &first["error"]["kind"]),
        (&json!("crashed"), &json!("unhealthy"))
    );
    let why = first["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(why.starts_with("health check failed 2 times: cmd sh "), "{why}");
    std::fs::write(root.join("go"), "").expect("written");
    wait_state(&node, id, "done");
    node.stop(SOON);
}

#[test]
fn a_worker_without_a_heartbeat_may_only_be_told() {
    let mut node = resident(
        "workers = 1\nready.notify = true\nhealth = { heartbeat = \"200ms\", action = \"alert\" }\n",
    );
    let root = node.root().to_owned();
    let id = push(&node, &["r", r#"{"n": 1}"#]);
    let speaks = "import os, socket\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])\nassert os.environ['WATCHDOG_USEC'] == '200000'\n";
    std::fs::write(root.join("worker.py"), format!("{speaks}{WORKER}")).expect("written");
    // The first one says nothing, and is not ready in a minute.
    wait_until(SOON, "a worker lives", || !node.job_processes().is_empty());
    assert_eq!(state(&node, id), "queued");
    node.job_processes()
        .iter()
        .for_each(gaffer_testkit::process::kill);
    wait_state(&node, id, "done");
    wait_until(SOON, "an alert", || {
        let (_, queue) = node.http("GET", "/v1/queues/default/r", None);
        queue["alerts"][0]["text"] == "a resident worker is not well: no heartbeat for 0.2s"
    });
    let id = push(&node, &["r", r#"{"n": 2}"#]);
    wait_state(&node, id, "done");
    node.stop(SOON);
}
