//! What workers write: whose it is, over kills and over each other; and what is asked for by name.

use super::*;
use std::process::Stdio;

/// `queue:NAME` or `task:ID`, as objects.
fn logged(node: &Node, words: &[&str]) -> Vec<Value> {
    let shown = node.cli(&[&["logs", "--json", "-n", "100000"], words].concat());
    assert_eq!(code(&shown), 0, "{}", errors(&shown));
    match serde_json::from_slice(&shown.stdout) {
        Ok(Value::Array(lines)) => lines,
        other => panic!("a list: {other:?}"),
    }
}

/// Whatever is killed, each line is the line of its task, none is missing, and none comes twice.
#[test]
fn each_line_is_its_tasks_also_over_kills_of_the_daemon() {
    let mut node = node(
        r#"
[queue.q]
workers = 3
cmd = ["sh", "-c", "read n; for i in 1 2 3; do echo line $$n $$i; sleep 0.02; done; echo end $$n >&2"]
"#,
    );
    let ids: Vec<i64> = (1..=40).map(|n| push(&node, &["q", &n.to_string()])).collect();
    for part in [8, 20, 32] {
        let seen = || logged(&node, &["queue:q", "--stream", "stderr"]).len() >= part;
        wait_until(SOON, "some of them", seen);
        node.kill9();
        node.start_again();
    }
    let empty = node.cli(&["wait", "queue:q=empty", "--timeout", "20s"]);
    assert_eq!(code(&empty), 0, "{}", errors(&empty));
    let lines = logged(&node, &["queue:q"]);
    let mut found: Vec<(i64, String)> = lines
        .iter()
        .map(|line| {
            let text = line["text"].as_str().unwrap_or_default().to_owned();
            (line["task"].as_i64().unwrap_or(-1), text)
        })
        .collect();
    found.sort();
    let mut expected: Vec<(i64, String)> = Vec::new();
    for (id, n) in ids.iter().zip(1..) {
        expected.push((*id, format!("end {n}")));
        expected.extend((1..=3).map(|i| (*id, format!("line {n} {i}"))));
    }
    expected.sort();
    assert_eq!(found, expected);
    let of_one = logged(&node, &["task:17"]);
    let texts: Vec<&str> = of_one.iter().filter_map(|line| line["text"].as_str()).collect();
    assert_eq!(texts, ["line 17 1", "line 17 2", "line 17 3", "end 17"]);
    node.stop(SOON);
}

/// Who follows sees each line with its task, however soon the next task of the same worker comes.
#[test]
fn lines_that_are_followed_are_of_the_task_that_wrote_them() {
    let mut node = node(
        r#"
[queue.q]
workers = 2
cmd = ["sh", "-c", "read n; echo of $$n"]
"#,
    );
    let first = push(&node, &["q", "1"]);
    wait_until(SOON, "a line", || logged(&node, &["queue:q"]).len() == 1);
    let mut follower = node
        .cli_command(&["logs", "-f", "queue:q", "--format", "jsonl", "-n", "10"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("gaffer logs");
    let out = follower.stdout.take().expect("its output");
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let lines = std::io::BufRead::lines(std::io::BufReader::new(out));
        lines.map_while(Result::ok).try_for_each(|line| tx.send(line))
    });
    let next = || -> Value {
        let line = rx.recv_timeout(SOON).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    };
    // It is there when it shows what was.
    while next()["stream"] != json!("stdout") {}
    let mut pushing = node
        .cli_command(&["push", "q", "--lines", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("gaffer push");
    let numbers: String = (2..=150).map(|n| format!("{n}\n")).collect();
    std::io::Write::write_all(&mut pushing.stdin.take().expect("stdin"), numbers.as_bytes())
        .expect("numbers");
    assert!(pushing.wait().expect("its end").success());
    let mut seen = 1;
    while seen < 150 {
        let line = next();
        if line["stream"] != json!("stdout") {
            continue;
        }
        let n: i64 = line["text"]
            .as_str()
            .and_then(|text| text.strip_prefix("of "))
            .and_then(|n| n.parse().ok())
            .unwrap_or_else(|| panic!("a line of ours: {line}"));
        assert_eq!(line["task"].as_i64(), Some(first + n - 1), "{line}");
        seen += 1;
    }
    follower.kill().expect("it is there");
    follower.wait().expect("its end");
    node.stop(SOON);
}

/// Following a task ends with it, and shows all of it, its second attempt too.
#[test]
fn following_a_task_ends_when_it_is_over() {
    let mut node = node(
        r#"
[queue.q]
workers = 1
retry = { attempts = 2, delay = "200ms", jitter = 0 }
cmd = ["sh", "-c", "echo attempt $$GAFFER_ATTEMPT; sleep 0.2; echo last >&2; exit 3"]

[queue.others]
"#,
    );
    let id = push(&node, &["q", "null"]);
    let followed = node.cli(&["logs", "-f", &format!("task:{id}")]);
    assert_eq!(code(&followed), 0, "{}", errors(&followed));
    let shown = text(&followed);
    for wanted in ["| attempt 1", "| attempt 2", "! last", "dead: exit 3"] {
        assert!(shown.contains(wanted), "{wanted} in\n{shown}");
    }
    assert!(shown.contains(&format!("q#{id} ")), "{shown}");
    let why = node.cli(&["why", "queue:q"]);
    assert_eq!(code(&why), 0, "{}", errors(&why));
    assert!(
        text(&why).contains("q is idle: ")
            && text(&why).contains("0 waiting")
            && text(&why).contains("exit 3; given up after 2 attempts"),
        "{}",
        text(&why)
    );
    let unknown = node.cli(&["logs", "task:4711"]);
    assert_eq!(code(&unknown), 3, "{}", errors(&unknown));
    let others = node.cli(&["logs", "queue:others"]);
    assert_eq!(code(&others), 2);
    assert!(
        errors(&others).contains("its workers are not programs of this node"),
        "{}",
        errors(&others)
    );
    let stream = node.cli(&["logs", "queue:q", "--stream", "stdlog"]);
    assert_eq!(code(&stream), 3);
    assert!(errors(&stream).contains("stdout, stderr"), "{}", errors(&stream));
    node.stop(SOON);
}

/// `logs.redact` of a queue masks what its workers write, wherever it is shown.
#[test]
fn what_is_to_be_masked_is_masked_in_the_output_of_workers() {
    let mut node = node(
        r#"
[queue.q]
cmd = ["sh", "-c", "echo token=s3cret of $$GAFFER_TASK >&2; exit 1"]
retry.attempts = 1
logs.redact = ['token=\S+']
"#,
    );
    let id = push(&node, &["q", "null"]);
    wait_state(&node, id, "dead");
    let lines = logged(&node, &["queue:q"]);
    let shown = lines[0]["text"].as_str().unwrap_or_default();
    assert_eq!(shown, "************ of 1");
    assert_eq!(show(&node, id)["error"]["output"], json!("************ of 1\n"));
    node.stop(SOON);
}

/// A cancel waits for the end, says how it came, and leaves what is over alone.
#[test]
fn a_cancel_waits_until_nothing_of_the_worker_is_left() {
    let mut node = node(
        r#"
[queue.q]
stop.timeout = "700ms"
cmd = ["sh", "-c", "trap '' TERM; echo $$$$ > pid; while :; do sleep 0.1; done"]

[queue.fast]
cmd = "true"
keep.done = "1h"
"#,
    );
    let pid_file = node.root().join("pid");
    let pid = || lines(&pid_file).first().and_then(|pid| pid.parse::<i32>().ok());
    let id = push(&node, &["q", "null"]);
    wait_until(SOON, "it runs", || pid().is_some());
    let asked = node.cli(&["queue", "cancel", "--no-wait", &id.to_string()]);
    assert_eq!((code(&asked), text(&asked)), (0, format!("{id}  running")));
    let impatient = node.cli(&["queue", "cancel", "--timeout", "50ms", &id.to_string()]);
    assert_eq!(code(&impatient), 1, "{}", errors(&impatient));
    assert!(
        errors(&impatient).contains("was asked to end and is not over yet"),
        "{}",
        errors(&impatient)
    );
    let patient = node.cli(&["queue", "cancel", &id.to_string()]);
    assert_eq!((code(&patient), text(&patient)), (0, format!("{id}  cancelled")));
    let gone = rustix::process::Pid::from_raw(pid().expect("a pid")).expect("a pid");
    assert!(
        rustix::process::test_kill_process(gone).is_err(),
        "nothing of it is left"
    );
    let done = push(&node, &["fast", "null"]);
    wait_state(&node, done, "done");
    let (status, answer) = node.http("POST", &format!("/v1/tasks/{done}/cancel"), None);
    assert_eq!(
        (status, &answer["error"]["code"]),
        (409, &json!("already-finished"))
    );
    let both = node.cli(&["queue", "cancel", &done.to_string(), &id.to_string()]);
    assert_eq!(code(&both), 4);
    assert_eq!(state(&node, done), "done");
    node.stop(SOON);
}

/// `task start NAME --queue Q` is a push of its parameters; what a schedule did last is found by its name.
#[test]
fn tasks_of_steps_go_through_a_queue_by_their_name() {
    let mut node = node(
        r#"
[task.build]
params = { of = "nothing" }
cmd = "echo built {{params.of}}"

[queue.builds]
task = "build"

[queue.other]
cmd = "echo other"

[schedule.often]
every = "1h"
queue = "other"
payload = 1
"#,
    );
    let built = node.cli(&[
        "task", "start", "build", "--queue", "builds", "-E", "of=this", "--wait",
    ]);
    assert_eq!(code(&built), 0, "{}", errors(&built));
    let shown = node.cli(&["logs", "task:1"]);
    assert!(text(&shown).contains("built this"), "{}", text(&shown));
    let later = node.cli(&["task", "start", "build", "--queue", "builds", "--in", "1h"]);
    assert_eq!((code(&later), text(&later)), (0, "2".to_owned()));
    assert_eq!(state(&node, 2), "scheduled");
    for (words, exit, said) in [
        (
            &["task", "start", "build", "--in", "1h"] as &[&str],
            2,
            "--in is for tasks that wait in a queue",
        ),
        (
            &["task", "start", "build", "--queue", "other"],
            4,
            "does not run task build",
        ),
        (
            &["task", "start", "build", "--queue", "builds", "--id", "x"],
            2,
            "parameters (-E) and nothing else",
        ),
        (&["wait", "schedule:often"], 2, "a schedule is never done"),
        (&["logs", "schedule:often"], 3, "has done nothing yet"),
    ] {
        let refused = node.cli(words);
        assert_eq!(code(&refused), exit, "{words:?}: {}", errors(&refused));
        assert!(errors(&refused).contains(said), "{words:?}: {}", errors(&refused));
    }
    assert_eq!(code(&node.cli(&["schedule", "trigger", "often"])), 0);
    wait_until(SOON, "its output", || {
        text(&node.cli(&["logs", "schedule:often"])).contains("| other")
    });
    node.stop(SOON);
}
