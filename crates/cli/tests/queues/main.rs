//! Queues end to end: a daemon, a store on disk, programs that work, and everything that can be killed.

mod alerts;
mod dag;
mod kills;
mod outbox;
mod output;
mod payloads;
mod poison;
mod pool;
mod postgres;
mod resident;
mod scale;
mod scarce;
mod scenarios;
mod snappea;
mod stores;
mod wakeup;

use gaffer_testkit::node::Node;
use gaffer_testkit::process::Handle;
use gaffer_testkit::wait_until;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// A daemon with a file.
fn node(text: &str) -> Node {
    Node::builder().config("gaffer.toml", text).start()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn counted(output: &Output) -> u64 {
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    value["count"]
        .as_u64()
        .unwrap_or_else(|| panic!("a count: {}", errors(output)))
}

fn push(node: &Node, words: &[&str]) -> i64 {
    let pushed = node.cli(&[&["push"], words].concat());
    assert_eq!(code(&pushed), 0, "{}", errors(&pushed));
    text(&pushed)
        .parse()
        .unwrap_or_else(|_| panic!("a number: {}", text(&pushed)))
}

fn show(node: &Node, id: i64) -> Value {
    let shown = node.cli(&["queue", "show", &id.to_string(), "--json"]);
    serde_json::from_slice(&shown.stdout).unwrap_or(Value::Null)
}

fn state(node: &Node, id: i64) -> String {
    show(node, id)["state"].as_str().unwrap_or("unknown").to_owned()
}

fn wait_state(node: &Node, id: i64, wanted: &str) {
    wait_until(SOON, &format!("task {id} is {wanted}"), || {
        state(node, id) == wanted
    });
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_task_is_worked_off_and_its_result_comes_back() {
    let mut node = node(
        r#"
[queue.sum]
cmd = ["sh", "-c", "read line; echo working >&2; echo \"{\\\"got\\\": $$line, \\\"attempt\\\": $$GAFFER_ATTEMPT}\""]
result = "stdout"
keep.result = "1h"
"#,
    );
    let waited = node.cli(&["push", "sum", "--wait", "[1, 2]"]);
    assert_eq!(
        (code(&waited), text(&waited)),
        (0, r#"{"got":[1,2],"attempt":1}"#.to_owned())
    );
    let shown = show(&node, 1);
    assert_eq!(
        (&shown["state"], &shown["result"]["got"]),
        (&json!("done"), &json!([1, 2]))
    );
    let (status, queue) = node.http("GET", "/v1/queues/default/sum?spec=true", None);
    assert_eq!((status, &queue["spec"]["result"]), (200, &json!("stdout")));
    assert_eq!(queue["done_per_min"], 1);
    node.stop(SOON);
}

#[test]
fn payloads_come_in_words_variables_and_files() {
    let mut node = node(
        r#"
[defaults]
cwd = "{{file.dir}}"
[queue.words]
cmd = ["sh", "-c", "echo \"$$1 $$GAFFER_QUEUE $$GAFFER_TASK $$GAFFER_KIND\" > words", "sh", "{{payload.a.b}}"]
[queue.env]
cmd = ["sh", "-c", "echo \"$$GAFFER_PAYLOAD\" > env"]
input = "env"
[queue.file]
cmd = ["sh", "-c", "echo \"$$GAFFER_PAYLOAD_FILE\" > path; cat \"$$GAFFER_PAYLOAD_FILE\" > file"]
input = "file"
"#,
    );
    let nasty = r#"{"a": {"b": "x y; $(touch /tmp/never) {{queue}}"}}"#;
    push(&node, &["words", "--kind", "k", nasty]);
    push(&node, &["env", "[1]"]);
    push(&node, &["file", "[2]"]);
    let root = node.root().to_owned();
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default();
    wait_until(SOON, "words", || !read("words").is_empty());
    assert_eq!(read("words"), "x y; $(touch /tmp/never) {{queue}} words 1 k\n");
    wait_until(SOON, "env", || read("env") == "[1]\n");
    wait_until(SOON, "file", || read("file") == "[2]");
    wait_until(SOON, "no payload left behind", || {
        !std::path::Path::new(read("path").trim()).exists()
    });
    node.stop(SOON);
}

/// A13.8: two workers and three tasks: the third starts when the first ends; its row exists until then.
#[test]
fn a13_08_no_more_run_at_once_than_there_are_workers() {
    let mut node = node(
        r#"
[queue.q]
workers = 3
cmd = ["sh", "-c", "mkdir run.$$GAFFER_TASK; ls -d run.* | wc -l >> counts; sleep 0.05; rmdir run.$$GAFFER_TASK"]
"#,
    );
    for _ in 0..24 {
        push(&node, &["q", "1"]);
    }
    let counts = node.root().join("counts");
    wait_until(SOON, "all of them", || lines(&counts).len() == 24);
    let most = lines(&counts)
        .iter()
        .filter_map(|line| line.trim().parse::<u32>().ok())
        .max();
    assert!(most.is_some_and(|most| (2..=3).contains(&most)), "{most:?}");
    node.stop(SOON);
}

#[test]
fn a_failing_task_is_a_dead_letter_that_can_be_tried_again() {
    let mut node = node(
        r#"
[queue.q]
cmd = ["sh", "-c", "echo broken pipe to mars >&2; test -e good"]
retry = { attempts = 2, delay = "50ms" }
"#,
    );
    let id = push(&node, &["q", "1"]);
    wait_state(&node, id, "dead");
    let dead = show(&node, id);
    assert_eq!(dead["error"]["kind"], "exit:1");
    assert_eq!(dead["error"]["output"], "broken pipe to mars\n");
    assert_eq!(dead["attempts"].as_array().map(Vec::len), Some(2));
    let listed = node.cli(&["queue", "tasks", "q", "--state", "dead"]);
    assert!(
        text(&listed).contains("given up after 2 attempts"),
        "{}",
        text(&listed)
    );
    let waited = node.cli(&["push", "q", "--wait", "2"]);
    assert_eq!(code(&waited), 1);
    assert!(errors(&waited).contains("is dead: exit 1"), "{}", errors(&waited));
    std::fs::write(node.root().join("good"), "").expect("a file");
    let again = node.cli(&["queue", "retry", "q", "--state", "dead", "--json"]);
    assert_eq!(counted(&again), 2);
    wait_state(&node, id, "done");
    node.stop(SOON);
}

/// Scenario 24: a queued task that is cancelled never runs; of one that runs the tree is gone within the stop timeout, and the state is
/// cancelled.
#[test]
fn scenario_24_a_cancel_ends_the_whole_tree() {
    let mut node = node(
        r#"
[queue.q]
cmd = ["sh", "-c", "trap '' TERM; sleep 300 & sleep 300 & touch begun; wait; wait; wait"]
stop = "300ms"
"#,
    );
    let waits = {
        let id = push(&node, &["q", "--in", "1h", "1"]);
        let cancelled = node.cli(&["queue", "cancel", &id.to_string()]);
        assert_eq!(code(&cancelled), 0);
        id
    };
    assert_eq!(state(&node, waits), "cancelled");
    let again = node.cli(&["queue", "cancel", &waits.to_string()]);
    assert_eq!(code(&again), 4);
    assert!(
        errors(&again).contains("is over already: cancelled"),
        "{}",
        errors(&again)
    );
    let id = push(&node, &["q", "1"]);
    wait_until(SOON, "begun", || node.root().join("begun").exists());
    let cancelled = node.cli(&["queue", "cancel", &id.to_string()]);
    assert_eq!(code(&cancelled), 0);
    wait_state(&node, id, "cancelled");
    node.assert_no_job_processes();
    assert_eq!(code(&node.cli(&["queue", "cancel", "4711"])), 3);
    node.stop(SOON);
}

/// Scenario 26: a timeout of a task that forks children: the tree is gone, and the failure is `timeout`.
#[test]
fn scenario_26_a_task_that_takes_too_long_is_gone_with_its_children() {
    let mut node = node(
        r#"
[queue.q]
cmd = ["sh", "-c", "sleep 300 & sleep 300 & wait"]
timeout = "200ms"
stop = "5s"
retry = 1
"#,
    );
    let id = push(&node, &["q", "1"]);
    wait_state(&node, id, "dead");
    assert_eq!(show(&node, id)["error"]["kind"], "timeout");
    node.assert_no_job_processes();
    node.stop(SOON);
}

/// Scenario 21: paused, five pushed, restarted: still paused and queued; resumed they run.
#[test]
fn scenario_21_a_pause_outlives_the_daemon() {
    let mut node = node("[queue.q]\ncmd = \"true\"\n");
    assert_eq!(code(&node.cli(&["queue", "pause", "q"])), 0);
    let ids: Vec<i64> = (0..5).map(|_| push(&node, &["q", "1"])).collect();
    node.restart();
    wait_until(SOON, "the queue", || {
        code(&node.cli(&["queue", "show", "q"])) == 0
    });
    let (_, queue) = node.http("GET", "/v1/queues/default/q", None);
    assert_eq!(
        (&queue["state"], &queue["waiting"]),
        (&json!("paused"), &json!(5))
    );
    let drained = node.cli(&["queue", "drain", "q", "--deadline", "5s"]);
    assert_eq!(code(&drained), 4, "{}", errors(&drained));
    assert_eq!(code(&node.cli(&["queue", "open", "q"])), 0);
    assert_eq!(code(&node.cli(&["queue", "resume", "q"])), 0);
    for id in ids {
        wait_state(&node, id, "done");
    }
    node.stop(SOON);
}

/// Scenario 22: a pause of what runs stops its CPU time; resumed it finishes, and no lease is lost.
#[test]
fn scenario_22_what_runs_can_be_frozen() {
    let mut node = node(
        r#"
[queue.q]
cmd = ["sh", "-c", "while :; do echo x >> ticks; sleep 0.02; test -e enough && exit 0; done"]
"#,
    );
    let id = push(&node, &["q", "1"]);
    let ticks = node.root().join("ticks");
    wait_until(SOON, "ticks", || lines(&ticks).len() > 2);
    assert_eq!(code(&node.cli(&["queue", "pause", "q", "--running"])), 0);
    let mut before = 0;
    wait_until(SOON, "no more ticks", || {
        let now = lines(&ticks).len();
        std::mem::replace(&mut before, now) == now
    });
    std::fs::write(node.root().join("enough"), "").expect("a file");
    assert_eq!(state(&node, id), "running");
    assert_eq!(code(&node.cli(&["queue", "resume", "q"])), 0);
    wait_state(&node, id, "done");
    node.stop(SOON);
}

/// Scenario 23: a drain that reaches its deadline leaves the rest queued, and its exit code tells it.
#[test]
fn scenario_23_a_drain_ends_when_all_is_done_or_says_what_is_left() {
    let mut node = node(
        "[queue.quick]\ncmd = \"true\"\n[queue.slow]\ncmd = \"sleep 300\"\nworkers = 1\nstop = \"100ms\"\non_stop = \"release\"\n",
    );
    for _ in 0..10 {
        push(&node, &["quick", "1"]);
    }
    let drained = node.cli(&["queue", "drain", "quick"]);
    assert_eq!(code(&drained), 0, "{}", errors(&drained));
    let refused = node.cli(&["push", "quick", "1"]);
    assert_eq!(code(&refused), 4);
    assert!(errors(&refused).contains("closed"), "{}", errors(&refused));
    for _ in 0..3 {
        push(&node, &["slow", "1"]);
    }
    let late = node.cli(&["queue", "drain", "slow", "--deadline", "300ms"]);
    assert_eq!(code(&late), 1);
    assert!(
        errors(&late).contains("2 waiting and 1 running are left"),
        "{}",
        errors(&late)
    );
    node.stop(SOON);
}

/// Scenario 25: TERM in the default mode: what runs finishes or is given back as interrupted, and no attempt is used up.
#[test]
fn scenario_25_tasks_of_a_daemon_that_stops_are_given_back_uncounted() {
    let mut node = node(
        r#"
[queue.q]
cmd = ["sh", "-c", "echo $$GAFFER_ATTEMPT >> begun; test -e go || sleep 300"]
on_stop = "release"
stop = "100ms"
"#,
    );
    let id = push(&node, &["q", "1"]);
    let begun = node.root().join("begun");
    wait_until(SOON, "begun", || lines(&begun).len() == 1);
    node.stop(SOON);
    std::fs::write(node.root().join("go"), "").expect("a file");
    node.start_again();
    wait_state(&node, id, "done");
    assert_eq!(lines(&begun), ["1", "1"], "the attempt did not count");
    assert_eq!(show(&node, id)["attempts"][0]["outcome"], "interrupted");
    node.stop(SOON);
}

/// A13.20: TERM with a task that needs a while: it finishes, then exit.
#[test]
fn a13_20_a_finishing_stop_waits_for_what_runs() {
    let mut node = node("[queue.q]\ncmd = [\"sh\", \"-c\", \"touch begun; sleep 0.5; touch done\"]\n");
    push(&node, &["q", "1"]);
    wait_until(SOON, "begun", || node.root().join("begun").exists());
    node.stop(SOON);
    assert!(node.root().join("done").exists(), "it could finish");
}

/// Scenario 2: at least once: after a SIGKILL the task runs again, with its attempt counted only if a worker had it.
#[test]
fn scenario_02_a_worker_outlives_a_killed_daemon_and_runs_once() {
    let mut node = node(
        r#"
[queue.q]
cmd = ["sh", "-c", "echo $$GAFFER_TASK >> begun; while ! test -e go; do sleep 0.02; done; echo $$GAFFER_TASK >> ended; exit 3"]
exit.ok = [3]
"#,
    );
    let ids: Vec<i64> = (0..4).map(|_| push(&node, &["q", "1"])).collect();
    let begun = node.root().join("begun");
    wait_until(SOON, "all begun", || lines(&begun).len() == 4);
    node.kill9();
    node.start_again();
    std::fs::write(node.root().join("go"), "").expect("a file");
    for id in &ids {
        wait_state(&node, *id, "done");
    }
    assert_eq!(lines(&begun).len(), 4, "none began twice");
    node.stop(SOON);
}

#[test]
fn an_end_that_no_daemon_saw_is_taken_over() {
    let mut node = node(
        r#"
[queue.q]
cmd = ["sh", "-c", "echo x >> begun; while ! test -e go; do sleep 0.02; done; echo '{\"a\": 1}'; touch ended"]
result = "stdout"
keep.result = "1h"
"#,
    );
    let id = push(&node, &["q", "1"]);
    wait_until(SOON, "begun", || node.root().join("begun").exists());
    node.kill9();
    std::fs::write(node.root().join("go"), "").expect("a file");
    wait_until(SOON, "ended", || node.root().join("ended").exists());
    node.start_again();
    wait_state(&node, id, "done");
    assert_eq!(show(&node, id)["result"], json!({"a": 1}));
    assert_eq!(lines(&node.root().join("begun")).len(), 1);
    node.stop(SOON);
}

#[test]
fn hazard_51_a_killed_worker_is_known_at_once() {
    let mut node = node(
        r#"
[queue.q]
cmd = ["sh", "-c", "echo $$$$ >> pids; test -e second || exec sleep 300"]
retry = { delay = "10ms" }
"#,
    );
    let id = push(&node, &["q", "1"]);
    let pids = node.root().join("pids");
    wait_until(SOON, "a pid", || lines(&pids).len() == 1);
    std::fs::write(node.root().join("second"), "").expect("a file");
    let pid: u32 = lines(&pids)[0].parse().expect("a pid");
    let killed = Instant::now();
    let worker = Handle::open(pid).expect("a worker");
    assert!(worker.signal(Signal::KILL), "it lives");
    wait_state(&node, id, "done");
    assert!(killed.elapsed() < Duration::from_secs(25), "no lease had to end");
    let task = show(&node, id);
    assert_eq!(
        (&task["crashes"], &task["attempts"][0]["outcome"]),
        (&json!(1), &json!("crashed"))
    );
    node.stop(SOON);
}

/// Scenario 3: a worker that ignores its lost lease is refused as stale; the second run's result stands.
#[test]
fn scenario_03_workers_outside_claim_renew_and_settle() {
    let mut node = node("[queue.ext]\nlease = \"1s\"\nretry = { delay = \"10ms\" }\nkeep.result = \"1h\"\n");
    let id = push(&node, &["ext", "{\"n\": 1}"]);
    let claim = |node: &mut Node| {
        let body = json!({"worker": "far-1", "wait": "10s"});
        let (status, claimed) = node.http("POST", "/v1/queues/default/ext/claim", Some(&body));
        assert_eq!(status, 200, "{claimed}");
        claimed
    };
    let first = claim(&mut node);
    assert_eq!(
        (&first[0]["id"], &first[0]["payload"]),
        (&json!(id), &json!({"n": 1}))
    );
    let token = first[0]["token"].clone();
    let path = |verb: &str| format!("/v1/tasks/{id}/{verb}");
    let (status, renewed) = node.http("POST", &path("renew"), Some(&json!({"token": token})));
    assert_eq!((status, &renewed["lease_ms"]), (200, &json!(1000)));
    // Nothing is heard any more: the task is offered to the next one.
    let second = claim(&mut node);
    assert_eq!((&second[0]["id"], &second[0]["attempt"]), (&json!(id), &json!(2)));
    let stale = json!({"token": token, "outcome": "done", "result": 1});
    let (status, refused) = node.http("POST", &path("settle"), Some(&stale));
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("wrong-state")));
    let done = json!({"token": second[0]["token"], "outcome": "done", "result": {"ok": true}});
    let (status, settled) = node.http("POST", &path("settle"), Some(&done));
    assert_eq!((status, &settled["state"]), (200, &json!("done")));
    assert_eq!(show(&node, id)["result"], json!({"ok": true}));
    assert_eq!(show(&node, id)["attempts"][0]["error"]["kind"], "lease-expired");
    let (status, wrong) = node.http(
        "POST",
        &path("settle"),
        Some(&json!({"token": 1, "outcome": "maybe"})),
    );
    assert_eq!(
        (status, &wrong["error"]["hint"]),
        (400, &json!("done fail fatal snooze cancelled release"))
    );
    node.stop(SOON);
}

/// A13.14: arguments that cannot be queued: whoever calls gets the error, and nothing is queued.
#[test]
fn a13_14_a_push_that_cannot_be_is_refused_with_what_to_do() {
    let mut node = node("[queue.q]\ncmd = \"true\"\nmax_payload = \"1K\"\n");
    let big = format!("\"{}\"", "x".repeat(2_000));
    let cases: [(&[&str], i32, &str); 6] = [
        (&["q", "not json"], 2, "the payload is not JSON"),
        (&["q", &big], 2, "takes at most 1024 (max_payload)"),
        (&["p", "1"], 3, "did you mean `q`?"),
        (&["q"], 2, "which payload?"),
        (&["q", "--at", "tomorrow", "1"], 2, "is no time"),
        (&["q", "--priority", "99999", "1"], 2, "-32768 to 32767"),
    ];
    for (words, exit, said) in cases {
        let refused = node.cli(&[&["push"], words].concat());
        assert_eq!(code(&refused), exit, "{words:?}: {}", errors(&refused));
        assert!(errors(&refused).contains(said), "{words:?}: {}", errors(&refused));
    }
    let (status, refused) = node.http(
        "POST",
        "/v1/queues/default/q/tasks",
        Some(&json!([{"payload": 1}, {"payload": 2, "in": "soon"}])),
    );
    assert_eq!(status, 400);
    assert!(
        refused["error"]["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("task 1: ")),
        "{refused}"
    );
    let (status, refused) = node.http("POST", "/v1/queues/default/q/tasks", Some(&json!({"paylod": 1})));
    assert_eq!(status, 400, "{refused}");
    let (_, queue) = node.http("GET", "/v1/queues/default/q", None);
    assert_eq!(
        (&queue["waiting"], &queue["done_per_min"]),
        (&json!(0), &json!(0)),
        "nothing was taken"
    );
    node.stop(SOON);
}

#[test]
fn many_lines_are_many_tasks() {
    let mut node = node("[queue.q]\nworkers = 0\ncmd = \"true\"\n");
    let mut command = node.cli_command(&["push", "q", "--lines", "-"]);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("started");
    let all: String = (0..2_500).map(|n| format!("{{\"n\": {n}}}\n")).collect();
    std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), all.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("ended");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2_500);
    let (_, queue) = node.http("GET", "/v1/queues/default/q", None);
    assert_eq!(queue["waiting"], 2_500);
    let purged = node.cli(&["queue", "purge", "q", "--state", "queued", "-y", "--json"]);
    assert_eq!(counted(&purged), 2_500);
    node.stop(SOON);
}

#[test]
fn a_file_adds_changes_and_removes_queues() {
    let mut node = node("[queue.a]\ncmd = \"true\"\n");
    let id = push(&node, &["a", "1"]);
    wait_state(&node, id, "done");
    let file = node.root().join("gaffer.toml");
    std::fs::write(
        &file,
        "[queue.a]\ncmd = \"false\"\nretry = 1\n[queue.b]\ncmd = \"true\"\n",
    )
    .expect("written");
    let path = file.to_string_lossy().into_owned();
    let plan = node.cli(&["plan", &path]);
    assert!(text(&plan).contains("+ queue b"), "{}", text(&plan));
    assert!(text(&plan).contains("~ queue a"), "{}", text(&plan));
    assert_eq!(code(&node.cli(&["apply", "-y", &path])), 0);
    let id = push(&node, &["a", "1"]);
    wait_state(&node, id, "dead");
    let id = push(&node, &["b", "1"]);
    wait_state(&node, id, "done");
    std::fs::write(&file, "[queue.b]\ncmd = \"true\"\n").expect("written");
    assert_eq!(code(&node.cli(&["apply", "-y", &path])), 0);
    assert_eq!(code(&node.cli(&["push", "a", "1"])), 3);
    assert_eq!(code(&node.cli(&["apply", "--rollback", "-y", &path])), 0);
    let id = push(&node, &["a", "1"]);
    wait_state(&node, id, "dead");
    node.stop(SOON);
}

/// Kills what the dice say, at a moment that the dice say, while tasks are pushed and worked off.
#[test]
fn hazard_48_nothing_is_lost_and_at_most_once_is_kept_whatever_is_killed() {
    let mut node = node(
        r#"
[queue.least]
workers = 4
cmd = ["sh", "-c", "read n; echo $$n >> least; sleep 0.0$$((n % 5))"]
retry = { attempts = 50, delay = "10ms", crashes = 50 }
[queue.most]
workers = 2
delivery = "at-most-once"
cmd = ["sh", "-c", "read n; echo $$n >> most; sleep 0.0$$((n % 3))"]
"#,
    );
    let work = node.root().to_owned();
    let mut dice = 0x9e37_79b9_u32;
    let mut throw = move |sides: u32| {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (dice >> 8) % sides
    };
    let mut least = Vec::new();
    let mut most = Vec::new();
    for round in 0..12 {
        for _ in 0..6 {
            let n = (least.len() + most.len()).to_string();
            if throw(3) == 0 {
                push(&node, &["most", &n]);
                most.push(n);
            } else {
                least.push((push(&node, &["least", &n]), n));
            }
        }
        let moment = Duration::from_millis(u64::from(throw(120)));
        let then = Instant::now() + moment;
        wait_until(SOON, "the moment", || Instant::now() >= then);
        match throw(3) {
            0 => node.kill9(),
            1 => kill_shims(&node),
            _ => {
                node.kill9();
                kill_shims(&node);
            }
        }
        if node.daemon_pid().is_none() {
            node.start_again();
        }
        wait_until(SOON, &format!("the queues after round {round}"), || {
            code(&node.cli(&["queue", "show", "least"])) == 0
        });
    }
    for (id, _) in &least {
        wait_state(&node, *id, "done");
    }
    let ran = lines(&work.join("least"));
    for (_, n) in &least {
        assert!(ran.contains(n), "{n} was lost");
    }
    wait_until(SOON, "the other queue", || {
        let shown = node.cli(&["queue", "show", "most", "--json"]);
        let queue: Value = serde_json::from_slice(&shown.stdout).unwrap_or(Value::Null);
        queue["waiting"] == 0 && queue["busy"] == 0
    });
    let ran = lines(&work.join("most"));
    for n in &most {
        let times = ran.iter().filter(|line| *line == n).count();
        assert!(times <= 1, "{n} ran {times} times");
    }
    node.stop(SOON);
}

fn kill_shims(node: &Node) {
    for shim in node.shims() {
        if let Some(handle) = Handle::open(shim.pid) {
            // It may have left by itself.
            let _gone = handle.signal(Signal::KILL);
        }
    }
}

#[test]
fn a_queue_is_waited_for_until_it_is_empty_and_the_metrics_say_how_full_it_is() {
    let mut node = node("[queue.sum]\ncmd = [\"cat\"]\n");
    assert_eq!(code(&node.cli(&["queue", "pause", "sum"])), 0);
    push(&node, &["sum", "[1]"]);
    push(&node, &["sum", "--in", "1h", "[2]"]);
    let waited = node.cli(&["wait", "queue:sum=empty", "--timeout", "100ms"]);
    assert_eq!(code(&waited), 1);
    let why = errors(&waited);
    assert!(
        why.contains("queue default.sum has 1 waiting, 1 scheduled, and is paused"),
        "{why}"
    );

    let metrics =
        |node: &mut Node| String::from_utf8(node.request("GET", "/metrics", None).body).expect("text");
    let full = metrics(&mut node);
    for line in [
        r#"gaffer_queue_tasks{session="default",queue="sum",state="queued"} 1"#,
        r#"gaffer_queue_tasks{session="default",queue="sum",state="scheduled"} 1"#,
        r#"gaffer_queue_paused{session="default",queue="sum"} 1"#,
    ] {
        assert!(full.contains(line), "{line} in {full}");
    }

    assert_eq!(code(&node.cli(&["queue", "cancel", "2"])), 0);
    assert_eq!(code(&node.cli(&["queue", "resume", "sum"])), 0);
    let waited = node.cli(&["wait", "queue:sum", "--timeout", "20s"]);
    assert_eq!((code(&waited), errors(&waited)), (0, String::new()));
    assert_eq!(state(&node, 1), "done");
    let empty = metrics(&mut node);
    for line in [
        r#"gaffer_queue_tasks{session="default",queue="sum",state="queued"} 0"#,
        r#"gaffer_queue_finished_total{session="default",queue="sum",state="done"} 1"#,
        r#"gaffer_queue_leases_lost_total{session="default",queue="sum"} 0"#,
        r#"gaffer_queue_wait_seconds_count{session="default",queue="sum"} 1"#,
        r#"gaffer_queue_run_seconds_bucket{le="3600.0",session="default",queue="sum"} 1"#,
        r#"gaffer_queue_run_seconds_bucket{le="+Inf",session="default",queue="sum"} 1"#,
    ] {
        assert!(empty.contains(line), "{line} in {empty}");
    }
    let unknown = node.cli(&["wait", "queue:none=empty"]);
    assert_ne!(code(&unknown), 0);
    assert!(errors(&unknown).contains("none"), "{}", errors(&unknown));
    node.stop(SOON);
}

#[test]
fn a_task_that_has_waited_long_comes_before_a_more_urgent_one() {
    let order = |aging: &str| {
        let mut node = node(&format!(
            "[queue.q]\ncmd = [\"sh\", \"-c\", \"echo $$GAFFER_TASK >> order\"]\nworkers = 1\n{aging}"
        ));
        assert_eq!(code(&node.cli(&["queue", "pause", "q"])), 0);
        push(
            &node,
            &["q", "--priority", "10", "--at", "2020-01-01T00:00:00Z", "1"],
        );
        push(&node, &["q", "1"]);
        assert_eq!(code(&node.cli(&["queue", "resume", "q"])), 0);
        let order = node.root().join("order");
        wait_until(SOON, "both", || lines(&order).len() == 2);
        node.stop(SOON);
        lines(&order)
    };
    assert_eq!(order(""), ["2", "1"]);
    assert_eq!(order("aging = \"1m\"\n"), ["1", "2"]);
}
