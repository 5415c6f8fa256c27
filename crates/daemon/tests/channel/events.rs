//! Spec 3.2, 3.3, 4 and 5.1: which events an operation is, in which order, with which members.

use crate::client::{Ws, node};
use serde_json::{Value, json};

/// A channel that gives commands, and one that follows everything.
fn setup() -> (gaffer_testkit::Node, Ws, Ws) {
    let node = node();
    let (ws, mut all) = (Ws::channel(&node), Ws::channel(&node));
    all.subscribe("EVENTS:.");
    (node, ws, all)
}

/// Events up to the first that is named so, which is the last of them.
fn until(all: &mut Ws, last: &str) -> Vec<Value> {
    let mut seen: Vec<Value> = Vec::new();
    while seen.last().is_none_or(|event| event["event"] != last) {
        seen.push(all.next()["data"].clone());
    }
    seen
}

fn names(seen: &[Value]) -> Vec<&str> {
    seen.iter()
        .map(|event| event["event"].as_str().expect("a name"))
        .collect()
}

#[test]
fn s3_2_load_and_unload() {
    let (_node, mut ws, mut all) = setup();
    let pid = ws.load("a.b", "sleep 600", &json!({}))[0];
    let (spawn, stop, exit) = (
        format!("proc.{pid}.spawn"),
        format!("proc.{pid}.stop_process"),
        format!("proc.{pid}.exit"),
    );
    let seen = until(&mut all, &spawn);
    assert_eq!(
        names(&seen),
        ["load", "start", "job.a.b.start", "spawn", "job.a.b.spawn", &spawn]
    );
    ws.command("unload", &json!(["a.b"]));
    let seen = until(&mut all, &exit);
    assert_eq!(
        names(&seen),
        [
            "unload",
            "stop",
            "job.a.b.stop",
            "stop_process",
            "job.a.b.stop_process",
            &stop,
            "exit",
            "job.a.b.exit",
            &exit
        ]
    );
    let last = &seen[6];
    let os_pid = last["os_pid"].as_u64().expect("a number");
    assert_eq!(
        *last,
        json!({"event": "exit", "topic": "EVENTS:.", "name": "a.b", "pid": pid, "os_pid": os_pid,
            "exit_status": 0, "term_signal": 15, "once": false})
    );
    assert_eq!(
        (&seen[3]["pid"], &seen[3]["os_pid"]),
        (&json!(pid), &json!(os_pid))
    );
}

#[test]
fn s3_2_start_stop_and_reload() {
    let (_node, mut ws, mut all) = setup();
    let config = json!({"name": "b", "cmd": "sleep", "args": ["600"], "start": false});
    let loaded = ws.try_command("load", &json!([config]), &json!({"sessionid": "a"}));
    assert!(loaded.is_ok(), "{loaded:?}");
    assert_eq!(names(&until(&mut all, "load")), ["load"]);
    ws.command("start_job", &json!(["a.b"]));
    let seen = until(&mut all, "job.a.b.spawn");
    assert_eq!(names(&seen), ["start", "job.a.b.start", "spawn", "job.a.b.spawn"]);
    ws.command("reload", &json!(["a.b"]));
    let seen = until(&mut all, "job.a.b.spawn");
    // No start, no stop of the job: its processes are replaced.
    let told: Vec<&str> = names(&seen)
        .into_iter()
        .filter(|name| !name.starts_with("proc."))
        .collect();
    assert_eq!(
        told,
        [
            "stop_process",
            "job.a.b.stop_process",
            "exit",
            "job.a.b.exit",
            "spawn",
            "job.a.b.spawn"
        ]
    );
    ws.command("stop_job", &json!(["a.b"]));
    let seen = until(&mut all, "job.a.b.exit");
    let told: Vec<&str> = names(&seen)
        .into_iter()
        .filter(|name| !name.starts_with("proc."))
        .collect();
    assert_eq!(
        told,
        [
            "stop",
            "job.a.b.stop",
            "stop_process",
            "job.a.b.stop_process",
            "exit",
            "job.a.b.exit"
        ]
    );
}

#[test]
fn s3_2_update_and_scale() {
    let (_node, mut ws, mut all) = setup();
    ws.load("a.b", "sleep 600", &json!({}));
    until(&mut all, "job.a.b.spawn");
    ws.command("scale", &json!(["a.b", 1]));
    let seen = until(&mut all, "job.a.b.spawn");
    let told: Vec<&str> = names(&seen)
        .into_iter()
        .filter(|name| !name.starts_with("proc."))
        .collect();
    assert_eq!(told, ["update", "spawn", "job.a.b.spawn"]);
    ws.command("scale", &json!(["a.b", -1]));
    let seen = until(&mut all, "job.a.b.exit");
    let told: Vec<&str> = names(&seen)
        .into_iter()
        .filter(|name| !name.starts_with("proc."))
        .collect();
    assert_eq!(told, ["update", "reap", "job.a.b.reap", "exit", "job.a.b.exit"]);
    let reap = seen.iter().find(|event| event["event"] == "reap").expect("one");
    assert!(reap["pid"].is_u64() && reap["os_pid"].is_u64(), "{reap}");
    assert!(
        seen.iter()
            .any(|event| event["event"] == format!("proc.{}.reap", reap["pid"]))
    );
    let config = json!({"name": "b", "cmd": "sleep", "args": ["700"]});
    ws.try_command(
        "update",
        &json!([config]),
        &json!({"sessionid": "a", "start": true}),
    )
    .expect("updated");
    let seen = until(&mut all, "job.a.b.spawn");
    let told: Vec<&str> = names(&seen)
        .into_iter()
        .filter(|name| !name.starts_with("proc."))
        .collect();
    assert_eq!(told[0], "update", "D5: {told:?}");
    assert!(
        told.contains(&"stop_process") && told.contains(&"exit"),
        "{told:?}"
    );
}

#[test]
fn s3_2_d59_signals_are_told_of_the_job_and_of_each_process() {
    let (_node, mut ws, mut all) = setup();
    let pid = ws.load("a.b", "trap : USR1; while :; do sleep 0.05; done", &json!({}))[0];
    until(&mut all, &format!("proc.{pid}.spawn"));
    ws.command("kill", &json!([pid, "CONT"]));
    let seen = until(&mut all, &format!("proc.{pid}.kill"));
    assert_eq!(names(&seen), [format!("proc.{pid}.kill")]);
    assert_eq!(
        (&seen[0]["pid"], &seen[0]["signum"], &seen[0]["name"]),
        (&json!(pid), &json!(18), &json!("a.b"))
    );
    let commit = ws.command("commit", &json!(["a.b"]))["pid"].clone();
    until(&mut all, &format!("proc.{commit}.spawn"));
    ws.command("killall", &json!(["a.b", "CONT"]));
    let last = format!("proc.{commit}.kill");
    let mut seen = until(&mut all, "job.a.b.kill");
    assert_eq!(seen[0]["signum"], 18, "the job comes first");
    seen.extend(until(&mut all, &last));
    assert_eq!(names(&seen), ["job.a.b.kill", &format!("proc.{pid}.kill"), &last]);
}

#[test]
fn s3_2_killall_of_a_job_that_has_commits_only_is_told_too() {
    let (_node, mut ws, mut all) = setup();
    ws.load("a.b", "exec sleep 600", &json!({"numprocesses": 0}));
    let pid = ws.command("commit", &json!(["a.b"]))["pid"].clone();
    until(&mut all, &format!("proc.{pid}.spawn"));
    ws.command("killall", &json!(["a.b", "KILL"]));
    let seen = until(&mut all, &format!("proc.{pid}.exit"));
    let exit = format!("proc.{pid}.exit");
    assert_eq!(
        names(&seen),
        [
            "job.a.b.kill",
            &format!("proc.{pid}.kill"),
            "exit",
            "job.a.b.exit",
            &exit
        ]
    );
    assert_eq!(
        (&seen[2]["once"], &seen[2]["term_signal"]),
        (&json!(true), &json!(9))
    );
}

#[test]
fn s3_2_s3_3_a_commit_is_told_and_d16_also_its_end_with_its_job() {
    let (_node, mut ws, mut all) = setup();
    ws.load("a.b", "exec sleep 600", &json!({"numprocesses": 0}));
    until(&mut all, "job.a.b.start");
    let pid = ws.command("commit", &json!(["a.b"]))["pid"].clone();
    let seen = until(&mut all, &format!("proc.{pid}.spawn"));
    assert_eq!(
        names(&seen),
        ["spawn", "job.a.b.spawn", &format!("proc.{pid}.spawn")]
    );
    ws.command("unload", &json!(["a.b"]));
    let seen = until(&mut all, &format!("proc.{pid}.exit"));
    let exit = seen.iter().find(|event| event["event"] == "exit").expect("D16");
    assert_eq!((&exit["pid"], &exit["once"]), (&pid, &json!(true)));
}

#[test]
fn s3_4_d17_a_graceful_timeout_is_in_seconds_and_has_fractions() {
    let (_node, mut ws, mut all) = setup();
    let deaf = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let more = json!({"graceful_timeout": 0.3, "redirect_output": ["out"]});
    let pid = ws.load("a.b", deaf, &more)[0];
    // It says so once it is deaf; what is followed later does not have that line, so the files are asked.
    let heard = |ws: &mut Ws, pid: &Value| {
        let topic = format!("STREAM:{pid}");
        ws.subscribe(&topic);
        gaffer_testkit::wait_until(crate::client::SOON, "its trap", || {
            let status = ws.command("process_info", &json!([pid]))["info"]["os_pid"].clone();
            let status = std::fs::read_to_string(format!("/proc/{status}/status")).unwrap_or_default();
            let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
            let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            mask.is_some_and(|mask| mask & (1 << 14) != 0)
        });
    };
    heard(&mut ws, &json!(pid));
    ws.command("stop_job", &json!(["a.b"]));
    let exit = until(&mut all, "exit").pop().expect("one");
    assert_eq!((&exit["pid"], &exit["term_signal"]), (&json!(pid), &json!(9)));
    // A commit's own.
    let commit = ws.command("commit", &json!(["a.b", 0.2]))["pid"].clone();
    heard(&mut ws, &commit);
    ws.command("stop_process", &json!([commit]));
    let exit = until(&mut all, "exit").pop().expect("one");
    assert_eq!((&exit["pid"], &exit["term_signal"]), (&commit, &json!(9)));
}

#[test]
fn s4_d1_d2_flapping_pauses_tries_again_and_gives_up() {
    let (_node, mut ws, mut all) = setup();
    // D2: detected although max_retry is less than attempts. D1: given up although retry_in is longer than window.
    let flapping = json!({"attempts": 3, "window": 2.0, "retry_in": 2.5, "max_retry": 1});
    let config = json!({"name": "b", "cmd": "false", "flapping": flapping, "os_env": true});
    ws.try_command("load", &json!([config]), &json!({"sessionid": "a"}))
        .expect("loaded");
    let seen = until(&mut all, "flap");
    assert_eq!(seen.iter().filter(|event| event["event"] == "exit").count(), 3);
    assert_eq!(seen.last().expect("one")["name"], "a.b");
    // 4.6: while it waits.
    let info = ws.command("info", &json!(["a.b"]))["info"].clone();
    assert_eq!(
        (&info["active"], &info["running"], &info["max_processes"]),
        (&json!(false), &json!(0), &json!(1))
    );
    let seen = until(&mut all, "flap");
    assert_eq!(seen.iter().filter(|event| event["event"] == "exit").count(), 3);
    // It has given up until it is started by hand, and then it counts anew.
    ws.command("start_job", &json!(["a.b"]));
    let seen = until(&mut all, "flap");
    assert_eq!(names(&seen)[..2], ["start", "job.a.b.start"]);
    // D4: nothing brings back what is unloaded while it waits.
    ws.command("unload", &json!(["a.b"]));
    until(&mut all, "unload");
    ws.load("a.other", "sleep 600", &json!({}));
    let seen = until(&mut all, "job.a.other.spawn");
    assert!(
        seen.iter()
            .all(|event| event["event"] != "spawn" || event["name"] == "a.other"),
        "{seen:?}"
    );
    assert_eq!(ws.command("jobs", &json!([])), json!({"jobs": ["a.other"]}));
}

#[test]
fn s4_d3_ends_that_were_asked_for_do_not_count() {
    let (_node, mut ws, mut all) = setup();
    let flapping = json!({"attempts": 2, "window": 60.0, "retry_in": 600.0, "max_retry": 1});
    ws.load("a.b", "exec sleep 600", &json!({"flapping": flapping}));
    for _ in 0..4 {
        ws.command("reload", &json!(["a.b"]));
        let pid = ws.pids("a.b")[0];
        ws.command("stop_process", &json!([pid]));
        until(&mut all, "exit");
        gaffer_testkit::wait_until(crate::client::SOON, "the next", || {
            ws.pids("a.b").first().is_some_and(|next| *next != pid)
        });
    }
    ws.command("unload", &json!(["a.b"]));
    let seen = until(&mut all, "unload");
    assert!(seen.iter().all(|event| event["event"] != "flap"), "{seen:?}");
}
