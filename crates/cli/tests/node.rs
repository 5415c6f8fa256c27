//! The command line against a real daemon, from outside: what is printed, what it exits with, what is left behind.

use gaffer_testkit::{Node, wait_until};
use serde_json::{Value, json};
use std::process::Output;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must succeed; its standard output.
#[track_caller]
fn ok(node: &Node, words: &[&str]) -> String {
    let output = node.cli(words);
    assert!(
        output.status.success(),
        "{words:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs a command that must fail with this code; its standard error.
#[track_caller]
fn fails(node: &Node, code: i32, words: &[&str]) -> String {
    let output: Output = node.cli(words);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{words:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stderr)
}

fn json_of(node: &Node, words: &[&str]) -> Value {
    let mut words = words.to_vec();
    words.push("--json");
    serde_json::from_str(&ok(node, &words)).expect("JSON")
}

fn idle(node: &Node) -> Value {
    json!({ "cmd": [node.fixture(), "idle"], "cwd": "/", "stop": { "timeout": "5s" } })
}

#[test]
fn ps_shows_each_instance_with_the_fields_that_scripts_read() {
    let mut node = Node::start();
    let mut spec = idle(&node);
    spec["instances"] = json!(2);
    node.put_job("shop", "web", &spec);
    ok(&node, &["wait", "shop.web", "--timeout", "20s"]);
    let list = json_of(&node, &["ps", "--session", "shop"]);
    assert_eq!(list.as_array().map(Vec::len), Some(2));
    for field in [
        "session",
        "job",
        "instance",
        "run",
        "pid",
        "state",
        "wish",
        "reason",
        "started_at",
        "restarts",
    ] {
        assert!(!list[0][field].is_null(), "{field} is missing: {list:#}");
    }
    let table = ok(&node, &["ps", "--session", "shop"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["JOB", "STATE", "PID", "UP", "CPU", "MEM", "RESTARTS", "REASON"]
    );
    assert!(
        lines[1].starts_with("web.1 ") && lines[1].contains("running"),
        "{table}"
    );
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_stop_ends_when_all_is_gone_and_holds() {
    let mut node = Node::start();
    let spec = idle(&node);
    node.put_job("default", "web", &spec);
    ok(&node, &["wait", "web", "--timeout", "20s"]);
    let said = ok(&node, &["stop", "web"]);
    assert!(said.contains("web") && said.contains("stopped"), "{said}");
    node.assert_no_job_processes();
    assert_eq!(json_of(&node, &["ps", "web"])[0]["wish"], "stopped");
    ok(&node, &["start", "web"]);
    assert_eq!(json_of(&node, &["ps", "web"])[0]["state"], "running");
}

#[test]
fn a_name_that_is_not_there_is_answered_with_the_nearest() {
    let mut node = Node::start();
    let spec = idle(&node);
    node.put_job("default", "web", &spec);
    let said = fails(&node, 3, &["stop", "wbe"]);
    assert_eq!(
        said,
        "error: no job `wbe` in session default\n  did you mean `web`?                     all jobs:  gaffer ps\n"
    );
    assert!(fails(&node, 2, &["stop"]).starts_with("error: no target is named\n"));
}

#[test]
fn several_targets_are_all_tried_and_the_worst_code_counts() {
    let mut node = Node::start();
    let spec = idle(&node);
    node.put_job("default", "web", &spec);
    ok(&node, &["wait", "web", "--timeout", "20s"]);
    fails(&node, 3, &["stop", "nobody", "web"]);
    node.assert_no_job_processes();
}

#[test]
fn one_that_refuses_does_not_hide_what_came_of_the_others() {
    let mut node = Node::start();
    let spec = idle(&node);
    for job in ["a", "b", "c"] {
        node.put_job("default", job, &spec);
    }
    ok(&node, &["wait", "a", "b", "c", "--timeout", "20s"]);
    ok(&node, &["pause", "a", "c"]);
    let output = node.cli(&["resume", "a", "b", "c"]);
    let (said, talked) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(4), "{said}{talked}");
    assert!(talked.contains("default.b is not paused"), "{talked}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].contains("a  running") && lines[1].contains("c  running"),
        "{said}"
    );
    // A document for each, as if each had been asked for alone.
    let list = json_of(&node, &["stop", "--all"]);
    let told: Vec<_> = list
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| (&one["target"], &one["state"]))
        .collect();
    assert_eq!(
        json!(told),
        json!([
            ["default.a", "done"],
            ["default.b", "done"],
            ["default.c", "done"]
        ])
    );
    node.assert_no_job_processes();
    ok(&node, &["job", "rm", "--all", "-y"]);
    assert_eq!(json_of(&node, &["ps"]), json!([]));
}

#[test]
fn of_many_that_are_waited_for_only_those_that_are_late_are_failures() {
    let mut node = Node::start();
    let quick = idle(&node);
    node.put_job("default", "quick", &quick);
    let mut slow = idle(&node);
    slow["cmd"] = json!([
        "/bin/sh",
        "-c",
        "trap '' TERM; echo deaf; while :; do sleep 1; done"
    ]);
    slow["stop"] = json!({ "timeout": "1h" });
    slow["ready"] = json!({ "log": "deaf" });
    node.put_job("default", "slow", &slow);
    ok(&node, &["wait", "quick", "slow", "--timeout", "20s"]);
    let output = node.cli(&["stop", "--all", "--timeout", "1500ms"]);
    let (said, talked) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}{talked}");
    assert!(
        said.contains("quick  stopped") && said.lines().count() == 1,
        "{said}"
    );
    assert!(
        talked.contains("stop of default.slow is not done after 1.5s"),
        "{talked}"
    );
    assert!(talked.contains("1 of 2, waiting for default.slow"), "{talked}");
    ok(&node, &["stop", "slow", "--force"]);
}

#[test]
fn scaling_is_told_in_numbers_and_in_changes() {
    let mut node = Node::start();
    let spec = idle(&node);
    node.put_job("default", "web", &spec);
    ok(&node, &["scale", "web=3"]);
    assert_eq!(node.job_processes().len(), 3);
    ok(&node, &["scale", "web=-2"]);
    assert_eq!(node.job_processes().len(), 1);
    ok(&node, &["ps:scale", "web+1"]);
    assert_eq!(node.job_processes().len(), 2);
    fails(&node, 2, &["scale", "web"]);
}

#[test]
fn raw_logs_are_the_bytes_of_the_program() {
    let mut node = Node::start();
    let cmd = json!([node.fixture(), "lines", "--count", "5000", "--prefix", "x"]);
    node.put_job(
        "default",
        "talk",
        &json!({ "cmd": cmd, "cwd": "/", "restart": "never" }),
    );
    ok(&node, &["wait", "talk=done", "--timeout", "20s"]);
    let raw = node.cli(&["logs", "talk", "--format", "raw"]).stdout;
    assert_eq!(raw, node.logged("default", "talk", 1, "stdout"));
    assert_eq!(raw.iter().filter(|byte| **byte == b'\n').count(), 5000);
    let last: Vec<u8> = raw
        .split_inclusive(|byte| *byte == b'\n')
        .skip(4998)
        .flatten()
        .copied()
        .collect();
    assert_eq!(
        node.cli(&["logs", "talk", "--format", "raw", "-n", "2"]).stdout,
        last
    );
}

#[test]
fn log_lines_have_time_name_and_sign_and_nothing_steers_the_terminal() {
    let mut node = Node::start();
    let cmd = "printf 'plain\\n\\033[2Jclear\\n'; printf 'bad\\n' >&2";
    node.put_job(
        "default",
        "talk",
        &json!({ "cmd": cmd, "shell": true, "cwd": "/", "restart": "never" }),
    );
    ok(&node, &["wait", "talk=done", "--timeout", "20s"]);
    let said = ok(&node, &["logs", "talk"]);
    assert!(said.contains(" talk.1 | plain\n"), "{said}");
    assert!(said.contains(" talk.1 | \\e[2Jclear\n"), "{said}");
    assert!(said.contains(" talk.1 ! bad\n"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
    assert_eq!(ok(&node, &["logs", "talk", "--grep", "bad"]).lines().count(), 1);
    assert_eq!(
        ok(&node, &["logs", "talk", "--stream", "stdout"]).lines().count(),
        2
    );
    assert_eq!(
        json_of(&node, &["logs", "talk", "-n", "1"])
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}

#[test]
fn lines_of_several_jobs_stand_in_the_order_of_time() {
    let mut node = Node::start();
    for (session, job) in [("shop", "a"), ("shop", "b"), ("mail", "c")] {
        let cmd = format!("echo {job} speaks");
        let spec = json!({ "cmd": cmd, "shell": true, "cwd": "/", "restart": "never" });
        node.put_job(session, job, &spec);
        ok(
            &node,
            &["wait", &format!("{session}.{job}=done"), "--timeout", "20s"],
        );
    }
    let texts = |words: &[&str]| -> Vec<String> {
        let text = |line: &str| line.split_once("| ").map(|(_, text)| text.to_owned());
        ok(&node, words).lines().filter_map(text).collect()
    };
    assert_eq!(texts(&["logs", "--session", "shop"]), ["a speaks", "b speaks"]);
    assert_eq!(texts(&["logs", "mail.c", "shop.b"]), ["b speaks", "c speaks"]);
    assert_eq!(
        texts(&["logs", "--session", "*", "-n", "2"]),
        ["b speaks", "c speaks"]
    );
    assert_eq!(texts(&["logs"]), ["a speaks", "b speaks", "c speaks"]);
    fails(&node, 3, &["logs", "--session", "nobody"]);
}

#[test]
fn why_tells_how_runs_ended() {
    let mut node = Node::start();
    node.put_job(
        "default",
        "bad",
        &json!({ "cmd": [node.fixture(), "exit", "3"], "cwd": "/", "restart": "never" }),
    );
    node.put_job(
        "default",
        "dead",
        &json!({ "cmd": [node.fixture(), "kill-self", "11"], "cwd": "/", "restart": "never" }),
    );
    fails(&node, 1, &["wait", "bad=done", "--timeout", "20s"]);
    fails(&node, 1, &["wait", "dead=done", "--timeout", "20s"]);
    let deaths = json_of(&node, &["why", "bad"]);
    let death = &deaths[0];
    assert_eq!(
        (&death["exit_code"], &death["signal"], &death["cause"]),
        (&json!(3), &Value::Null, &json!("exit"))
    );
    for field in ["run", "started_at", "ended_at", "rusage", "reason"] {
        assert!(!death[field].is_null(), "{field} is missing: {death:#}");
    }
    assert_eq!(json_of(&node, &["why", "dead"])[0]["signal"], "SIGSEGV");
    let said = ok(&node, &["why", "bad"]);
    assert!(
        said.contains("bad.1 has failed") && said.contains("code 3"),
        "{said}"
    );
    let run = death["run"].as_str().expect("a run");
    assert!(
        ok(&node, &["why", &format!("@{run}")]).contains("exit code 3"),
        "{run}"
    );
}

#[test]
fn a_one_off_passes_its_output_and_its_exit_code() {
    let mut node = Node::start();
    let cmd = json!([node.fixture(), "exit"]);
    node.put_job(
        "default",
        "job",
        &json!({ "cmd": cmd, "cwd": "/", "start": false }),
    );
    assert_eq!(node.cli(&["run", "job", "--", "7"]).status.code(), Some(7));
    assert_eq!(node.cli(&["run", "job", "--", "0"]).status.code(), Some(0));
    let spec = json!({ "cmd": "echo \"$WHO $0\"; kill -9 $$", "shell": true, "cwd": "/", "start": false });
    node.put_job("default", "killed", &spec);
    let output = node.cli(&["run", "killed", "-p", "WHO=me"]);
    assert_eq!(output.status.code(), Some(137));
    assert!(
        text(&output.stdout).starts_with("me "),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn jobs_can_be_made_changed_and_removed_without_a_file() {
    let node = Node::start();
    let fixture = node.fixture();
    ok(
        &node,
        &[
            "job", "add", "tool", "-n", "2", "--env", "A=1", "--", &fixture, "idle",
        ],
    );
    assert_eq!(node.job_processes().len(), 2);
    fails(&node, 4, &["job", "add", "tool", "--", &fixture, "idle"]);
    ok(&node, &["job", "set", "tool", "instances=1", "env.A=2"]);
    let shown = json_of(&node, &["job", "show", "tool"]);
    assert_eq!(
        (&shown["spec"]["instances"], &shown["spec"]["env"]["A"]),
        (&json!(1), &json!("2"))
    );
    assert!(ok(&node, &["job", "show", "tool"]).contains("[job.tool]\n"));
    assert!(fails(&node, 2, &["job", "rm", "tool"]).contains("-y"));
    ok(&node, &["job", "rm", "tool", "-y"]);
    node.assert_no_job_processes();
    fails(&node, 3, &["job", "show", "tool"]);
}

#[test]
fn plan_says_what_apply_does() {
    let node = Node::start();
    let file = node.root().join("gaffer.toml");
    let fixture = node.fixture();
    let write = |text: &str| std::fs::write(&file, text.replace("FIXTURE", &fixture)).expect("a file");
    write("session = \"shop\"\n[job.web]\ncmd = \"FIXTURE idle\"\n[job.old]\ncmd = \"FIXTURE idle\"\n");
    let plan = json_of(&node, &["plan"]);
    assert_eq!((&plan["added"], &plan["removed"]), (&json!(2), &json!(0)));
    let hash = plan["hash"].as_str().expect("a hash");
    fails(&node, 4, &["apply", "--plan", "00000000"]);
    ok(&node, &["apply", "--plan", hash]);
    assert_eq!(node.job_processes().len(), 2);
    assert!(ok(&node, &["apply"]).contains("Nothing to change."));
    write("session = \"shop\"\n[job.web]\ncmd = \"FIXTURE idle\"\ninstances = 2\n");
    let said = ok(&node, &["plan"]);
    assert!(
        said.contains("~ job web") && said.contains("- job old") && said.contains("instances"),
        "{said}"
    );
    assert_eq!(node.cli(&["plan", "--exit-code"]).status.code(), Some(1));
    fails(&node, 2, &["apply"]);
    assert_eq!(node.job_processes().len(), 2, "nobody said yes");
    ok(&node, &["apply", "-y"]);
    assert_eq!(json_of(&node, &["ps"]).as_array().map(Vec::len), Some(2));
}

#[test]
fn an_invalid_file_is_shown_with_its_place_and_changes_nothing() {
    let node = Node::start();
    let text = "[job.web]\ncmd = \"true\"\nnumprocesses = 3\n";
    std::fs::write(node.root().join("gaffer.toml"), text).expect("a file");
    for words in [
        &["check"][..],
        &["plan"],
        &["apply", "-y"],
        &["start"],
        &["export"],
    ] {
        let said = fails(&node, 2, words);
        assert!(
            said.contains("gaffer.toml:3:1") && said.contains("instances"),
            "{words:?}: {said}"
        );
        assert!(
            said.ends_with("1 error; nothing was changed\n"),
            "{words:?}: {said}"
        );
    }
}

#[test]
fn events_are_lines_and_documents() {
    let mut node = Node::start();
    let spec = idle(&node);
    node.put_job("default", "web", &spec);
    ok(&node, &["wait", "web", "--timeout", "20s"]);
    let events = json_of(&node, &["events", "--filter", "run.*", "web"]);
    let names: Vec<&str> = events
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect();
    assert!(names.contains(&"run.started"), "{names:?}");
    let line = ok(&node, &["events", "--filter", "run.started"]);
    assert!(
        line.contains("run.started") && line.contains("default.web.1"),
        "{line}"
    );
}

#[test]
fn a_wait_ends_with_its_time() {
    let mut node = Node::start();
    node.put_job(
        "default",
        "slow",
        &json!({ "cmd": [node.fixture(), "idle"], "cwd": "/", "ready": { "after": "1h", "within": "2h" }, "stop": "1s" }),
    );
    let said = fails(&node, 1, &["wait", "slow", "--timeout", "300ms"]);
    assert!(said.contains("slow is "), "{said}");
    ok(&node, &["wait", "slow=running", "--timeout", "20s"]);
}

#[test]
fn a_daemon_that_ends_with_keep_running_leaves_all() {
    let mut node = Node::start();
    let spec = idle(&node);
    node.put_job("default", "web", &spec);
    ok(&node, &["wait", "web", "--timeout", "20s"]);
    let pid = json_of(&node, &["ps", "web"])[0]["pid"].clone();
    ok(&node, &["daemon", "stop", "--keep-running"]);
    fails(&node, 69, &["ps"]);
    // It has ended by itself; this only lets go of it.
    node.kill9();
    node.start_again();
    assert_eq!(json_of(&node, &["ps", "web"])[0]["pid"], pid);
    assert!(ok(&node, &["daemon", "status"]).contains("gafferd"));
}

#[test]
fn a_line_can_be_sent_to_a_program() {
    let mut node = Node::start();
    node.put_job(
        "default",
        "echo",
        &json!({ "cmd": [node.fixture(), "echo-stdin"], "cwd": "/", "stdin": "pipe", "stop": "1s" }),
    );
    ok(&node, &["wait", "echo", "--timeout", "20s"]);
    ok(&node, &["send", "echo", "hello", "there"]);
    wait_until(SOON, "the line comes back", || {
        text(&node.logged("default", "echo", 1, "stdout")).contains("hello there\n")
    });
}

#[test]
fn a_signal_reaches_the_program() {
    let mut node = Node::start();
    let spec = json!({ "cmd": [node.fixture(), "idle"], "cwd": "/", "restart": "never" });
    node.put_job("default", "web", &spec);
    ok(&node, &["wait", "web", "--timeout", "20s"]);
    ok(&node, &["signal", "KILL", "web"]);
    fails(&node, 1, &["wait", "web=done", "--timeout", "20s"]);
    assert_eq!(json_of(&node, &["why", "web"])[0]["signal"], "SIGKILL");
    fails(&node, 2, &["signal", "NOSUCH", "web"]);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let mut node = Node::start();
    let cmd = json!([node.fixture(), "lines", "--count", "20000", "--prefix", "x"]);
    node.put_job(
        "default",
        "talk",
        &json!({ "cmd": cmd, "cwd": "/", "restart": "never" }),
    );
    ok(&node, &["wait", "talk=done", "--timeout", "20s"]);
    let gaffer = node.program("gaffer");
    let script = format!("'{gaffer}' logs talk --format raw | head -n 1; echo \"${{PIPESTATUS[0]}}\"");
    let mut command = std::process::Command::new("bash");
    let output = command
        .args(["-c", &script])
        .env("GAFFER_SOCKET", node.socket())
        .output()
        .expect("bash");
    assert_eq!(text(&output.stderr), "");
    assert!(
        text(&output.stdout).ends_with("\n0\n"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn a_node_is_drained_and_opened_again() {
    let mut node = Node::builder()
        .config(
            "gaffer.toml",
            r#"
[job.web]
cmd = "sleep 1000"
[queue.q]
cwd = "{{file.dir}}"
cmd = ["sh", "-c", "touch begun; while ! test -e go; do sleep 0.05; done"]
"#,
        )
        .start();
    let root = node.root().to_owned();
    ok(&node, &["wait", "web", "--timeout", "20s"]);
    ok(&node, &["push", "q", "1"]);
    wait_until(SOON, "the task has begun", || root.join("begun").exists());
    let told = ok(&node, &["node", "drain", "--no-wait"]);
    assert_eq!(told.split_whitespace().nth(1), Some("draining"), "{told}");
    let refused = fails(&node, 4, &["restart", "web"]);
    assert!(
        refused.contains("drain") && refused.contains("--undo"),
        "{refused}"
    );
    let waited = fails(&node, 1, &["node", "drain", "--timeout", "300ms"]);
    assert!(waited.contains("the node goes on draining"), "{waited}");
    assert!(!node.job_processes().is_empty(), "tasks may need its jobs");
    std::fs::write(root.join("go"), "").expect("a file");
    let told = ok(&node, &["node", "drain"]);
    assert_eq!(told.split_whitespace().nth(1), Some("drained"), "{told}");
    assert_eq!(node.job_processes().len(), 0);
    let told = ok(&node, &["node", "drain", "--undo"]);
    assert_eq!(told.split_whitespace().nth(1), Some("up"), "{told}");
    ok(&node, &["wait", "web", "--timeout", "20s"]);
    node.stop(SOON);
}
