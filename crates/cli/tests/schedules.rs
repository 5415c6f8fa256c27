//! Schedules end to end: a daemon, a clock, and everything that can be killed.

use gaffer_testkit::node::Node;
use gaffer_testkit::wait_until;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::BufRead;
use std::process::Output;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

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

fn json_of(node: &Node, words: &[&str]) -> Value {
    let shown = node.cli(&[words, &["--json"]].concat());
    assert_eq!(code(&shown), 0, "{}", errors(&shown));
    serde_json::from_slice(&shown.stdout).unwrap_or(Value::Null)
}

fn schedule(node: &Node, name: &str) -> Value {
    json_of(node, &["schedule", "show", name])
}

/// The ticks that the tasks of a queue are for, each with how many tasks there are.
fn ticks(node: &Node, queue: &str) -> Vec<String> {
    let tasks = json_of(node, &["queue", "tasks", queue, "-n", "500"]);
    let mut all: Vec<String> = tasks
        .as_array()
        .into_iter()
        .flatten()
        .map(|task| task["meta"]["tick"].as_str().unwrap_or("none").to_owned())
        .collect();
    all.sort();
    all
}

fn seconds(tick: &str) -> i64 {
    tick.parse::<jiff::Timestamp>()
        .map_or(0, jiff::Timestamp::as_second)
}

/// Ticks of `* * * * * *` in a row: none is missing, none is there twice.
fn assert_every_second(ticks: &[String]) {
    for pair in ticks.windows(2) {
        assert_eq!(seconds(&pair[1]) - seconds(&pair[0]), 1, "{ticks:?}");
    }
}

#[test]
fn a_schedule_pushes_starts_and_restarts() {
    let mut node = node(
        r#"
[job.web]
cmd = "sleep 1000"
[queue.mail]
cmd = "cat"
keep.done = "1h"
[task.report]
cmd = ["sh", "-c", "echo {{params.day}}"]
params = { day = "none" }
[schedule.mail]
cron = "* * * * * *"
queue = "mail"
kind = "note"
payload = { at = "{{tick}}" }
[schedule.report]
every = "1s"
task = "report"
params = { day = "{{tick.date}}" }
[schedule.fresh]
every = "1s"
job = "web"
[schedule.tidy]
every = "1s"
cmd = "true"
"#,
    );
    wait_until(SOON, "two mails", || ticks(&node, "mail").len() >= 2);
    let tasks = json_of(&node, &["queue", "tasks", "mail"]);
    assert_eq!(tasks[0]["kind"], "note");
    assert_eq!(tasks[0]["payload"]["at"], tasks[0]["meta"]["tick"]);
    for name in ["report", "fresh", "tidy"] {
        wait_until(SOON, &format!("{name} acted"), || {
            schedule(&node, name)["last_became"].is_string()
        });
    }
    let became = schedule(&node, "report")["last_became"].clone();
    let id = became.as_str().and_then(|became| became.strip_prefix("task:"));
    let id = id.expect("a task").to_owned();
    assert_eq!(code(&node.cli(&["wait", &format!("task:{id}")])), 0);
    let log = text(&node.cli(&["task", "logs", &id]));
    let today = jiff::Timestamp::now().to_string();
    assert!(log.contains(&today[..8]), "{log}");
    // The job got new runs, by the schedule.
    wait_until(SOON, "a restart", || {
        let deaths = node.get("/v1/jobs/default/web/deaths");
        deaths.to_string().contains("schedule default.fresh")
    });
    let events = json_of(&node, &["events", "--filter", "schedule.fired"]).to_string();
    assert!(
        events.contains("\"subject\":\"schedule:default.mail\""),
        "{events}"
    );
    node.stop(SOON);
}

/// Until the clock shows so many milliseconds after a full second.
fn wait_within_second(ms: i64) {
    let now = || jiff::Timestamp::now().as_millisecond();
    let at = (now() - ms).div_euclid(1_000) * 1_000 + 1_000 + ms;
    wait_until(SOON, "that part of a second", || now() >= at);
}

#[test]
fn ticks_are_done_once_however_often_the_daemon_is_killed() {
    let mut node = node(
        r#"
[queue.q]
keep.done = "1h"
[schedule.s]
cron = "* * * * * *"
queue = "q"
overlap = "allow"
missed = "all"
"#,
    );
    // Twenty kills around the tick: from 50 ms before the second is full to 45 ms after it.
    for round in 0..20 {
        let before = ticks(&node, "q").len();
        wait_until(SOON, &format!("ticks of round {round}"), || {
            ticks(&node, "q").len() > before
        });
        let within = (950 + 5 * round) % 1_000;
        wait_within_second(within);
        node.kill9();
        node.start_again();
    }
    // Also those that came while it was down.
    let before = ticks(&node, "q").len();
    node.kill9();
    let down = Instant::now();
    wait_until(SOON, "two ticks pass", || {
        down.elapsed() > Duration::from_millis(2_200)
    });
    node.start_again();
    wait_until(SOON, "what was missed", || ticks(&node, "q").len() >= before + 2);
    let all = ticks(&node, "q");
    assert_every_second(&all);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    node.stop(SOON);
}

/// Scenario 13: a tick that meets the task of the one before it is skipped and recorded.
#[test]
fn scenario_13_a_tick_is_skipped_while_the_one_before_it_goes_on() {
    let mut node = node(
        r#"
[queue.q]
cmd = ["sh", "-c", "until test -e go; do sleep 0.02; done"]
keep.done = "1h"
[schedule.s]
every = "1s"
queue = "q"
"#,
    );
    wait_until(SOON, "a skipped tick", || {
        schedule(&node, "s")["last_skipped"].is_string()
    });
    assert_eq!(ticks(&node, "q").len(), 1);
    assert_eq!(schedule(&node, "s")["state"], "active");
    // By hand it is the same, and said.
    let refused = node.cli(&["schedule", "trigger", "s"]);
    assert_eq!(code(&refused), 4, "{}", errors(&refused));
    assert!(errors(&refused).contains("1 goes on"), "{}", errors(&refused));
    std::fs::write(node.root().join("go"), "").expect("written");
    wait_until(SOON, "the next one", || ticks(&node, "q").len() > 1);
    let events = json_of(&node, &["events", "--filter", "schedule.skipped"]).to_string();
    assert!(events.contains("\"overlap\""), "{events}");
    node.stop(SOON);
}

#[test]
fn a_tick_waits_for_the_one_before_it_or_ends_it() {
    let mut node = node(
        r#"
[schedule.waits]
every = "1s"
overlap = "queue"
cmd = ["sh", "-c", "until test -e go; do sleep 0.02; done"]
[schedule.ends]
every = "1s"
overlap = "replace"
cmd = "sleep 1000"
stop.timeout = "1s"
"#,
    );
    wait_until(SOON, "one waits", || {
        schedule(&node, "waits")["waiting_at"].is_string()
    });
    let first = schedule(&node, "waits")["last_became"].clone();
    // It waits over a restart, too.
    node.kill9();
    node.start_again();
    wait_until(SOON, "it waits still", || {
        schedule(&node, "waits")["waiting_at"].is_string()
    });
    assert_eq!(schedule(&node, "waits")["last_became"], first);
    std::fs::write(node.root().join("go"), "").expect("written");
    wait_until(SOON, "the next one", || {
        schedule(&node, "waits")["last_became"] != first
    });
    let first = schedule(&node, "ends")["last_became"].clone();
    wait_until(SOON, "another one", || {
        let now = schedule(&node, "ends")["last_became"].clone();
        now.is_string() && now != first
    });
    let id = first.as_str().unwrap_or_default().replace("task:", "");
    let ended = json_of(&node, &["task", "show", &id]);
    assert_eq!(ended["state"], "killed");
    assert_eq!(code(&node.cli(&["schedule", "pause", "ends"])), 0);
    node.stop(SOON);
}

#[test]
fn a_pause_holds_over_a_restart_and_a_trigger_acts_all_the_same() {
    let mut node = node(
        r#"
[queue.q]
[schedule.s]
every = "1s"
queue = "q"
overlap = "allow"
[schedule.off]
every = "1s"
queue = "q"
start = false
"#,
    );
    wait_until(SOON, "a tick", || !ticks(&node, "q").is_empty());
    assert_eq!(code(&node.cli(&["schedule", "pause", "s"])), 0);
    node.kill9();
    node.start_again();
    let paused = schedule(&node, "s");
    assert_eq!(
        (&paused["state"], &paused["next_at"]),
        (&json!("paused"), &Value::Null)
    );
    assert_eq!(schedule(&node, "off")["summary"], "paused from the beginning");
    let since = Instant::now();
    wait_until(SOON, "a tick is missed", || {
        since.elapsed() > Duration::from_millis(1_500)
    });
    let before = ticks(&node, "q").len();
    let triggered = node.cli(&["schedule", "trigger", "s"]);
    assert_eq!(code(&triggered), 0, "{}", errors(&triggered));
    assert!(text(&triggered).parse::<i64>().is_ok());
    assert_eq!(ticks(&node, "q").len(), before + 1);
    assert_eq!(code(&node.cli(&["schedule", "resume", "s"])), 0);
    wait_until(SOON, "it goes on", || ticks(&node, "q").len() > before + 1);
    // What was missed in the pause was skipped, and that is said.
    let events = json_of(&node, &["events", "--filter", "schedule.*"]).to_string();
    assert!(
        events.contains("\"schedule.resumed\"") && events.contains("\"missed\""),
        "{events}"
    );
    node.stop(SOON);
}

#[test]
fn a_target_that_is_not_there_is_said_and_the_schedule_goes_on() {
    let mut node = node(
        r#"
[schedule.s]
every = "1s"
queue = "nobody"
[schedule.t]
every = "1s"
task = "nobody"
"#,
    );
    for (name, why) in [("s", "no queue `nobody`"), ("t", "no task `default.nobody`")] {
        wait_until(SOON, &format!("{name} says it"), || {
            let said = schedule(&node, name)["last_skipped"].clone();
            said.as_str().is_some_and(|said| said.contains(why))
        });
    }
    let missing = node.cli(&["schedule", "show", "nope"]);
    assert_eq!(code(&missing), 3, "{}", errors(&missing));
    assert!(
        errors(&missing).contains("no schedule `nope` in session default"),
        "{}",
        errors(&missing)
    );
    node.stop(SOON);
}

#[test]
fn what_a_file_says_next_counts_and_what_it_drops_is_forgotten() {
    let every = |every: &str| {
        format!("[queue.q]\n[schedule.s]\nevery = \"{every}\"\nqueue = \"q\"\noverlap = \"allow\"\n")
    };
    let mut node = node(&every("1h"));
    assert_eq!(schedule(&node, "s")["when"], "every 1h");
    let file = node.root().join("gaffer.toml");
    std::fs::write(&file, every("1s")).expect("written");
    let applied = node.cli(&["apply", "-y"]);
    assert_eq!(code(&applied), 0, "{}", errors(&applied));
    assert!(text(&applied).contains("schedule s"), "{}", text(&applied));
    wait_until(SOON, "a tick", || !ticks(&node, "q").is_empty());
    std::fs::write(&file, "[queue.q]\n").expect("written");
    assert_eq!(code(&node.cli(&["apply", "-y", "--prune"])), 0);
    assert_eq!(json_of(&node, &["schedule", "ls"]), json!([]));
    let (status, _) = node.http("GET", "/v1/schedules/default/s", None);
    assert_eq!(status, 404);
    // The list and `next` work without a daemon, from the file.
    node.signal(Signal::TERM);
    node.wait_ended(SOON);
    std::fs::write(
        &file,
        "[schedule.n]\ncron = \"30 3 * * *\"\nzone = \"Europe/Berlin\"\ncmd = \"true\"\n",
    )
    .expect("written");
    let words = [
        "schedule",
        "next",
        "n",
        "-n",
        "2",
        "--from",
        "2026-03-28T12:00:00Z",
    ];
    let next = node.cli(&words);
    assert_eq!(
        text(&next),
        "2026-03-29T03:30:00+02:00\n2026-03-30T03:30:00+02:00"
    );
}

/// Scenario 10, of ticks: none is early, and most are there within 100 ms.
#[test]
fn scenario_10_a_tick_comes_in_its_time() {
    let mut node =
        node("[queue.q]\n[schedule.s]\ncron = \"* * * * * *\"\nqueue = \"q\"\noverlap = \"allow\"\n");
    wait_until(SOON, "five ticks", || ticks(&node, "q").len() >= 5);
    let (_, tasks) = node.http("GET", "/v1/queues/default/q/tasks", None);
    let of = |value: &Value| value.as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let late: Vec<i64> = tasks
        .as_array()
        .into_iter()
        .flatten()
        .map(|task| {
            let late = of(&task["created_at"]).zip(of(&task["meta"]["tick"]));
            let (at, tick) = late.unwrap_or_else(|| panic!("two times in {task}"));
            at.as_millisecond() - tick.as_millisecond()
        })
        .collect();
    let punctual = late.iter().filter(|ms| **ms <= 100).count();
    assert!(late.iter().all(|ms| *ms >= 0), "none is early: {late:?}");
    assert!(punctual * 2 > late.len(), "most are punctual: {late:?} ms late");
    node.stop(SOON);
}

/// Somebody holds the file of the queues for longer than a tick may be late.
#[test]
fn a_tick_that_came_in_time_waits_for_the_store() {
    let mut node = node(
        r#"
[queue.q]
keep.done = "1h"
[schedule.s]
cron = "* * * * * *"
queue = "q"
overlap = "allow"
"#,
    );
    wait_until(SOON, "two ticks", || ticks(&node, "q").len() >= 2);
    let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n\
                  c.execute('BEGIN IMMEDIATE')\nprint('held', flush=True)\nsys.stdin.read()\nc.execute('ROLLBACK')\n";
    let mut holder = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(node.state_dir().join("queue.db"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    let mut said = String::new();
    let out = holder.stdout.take().expect("its output");
    std::io::BufReader::new(out).read_line(&mut said).expect("a line");
    assert_eq!(said, "held\n");
    let before = ticks(&node, "q");
    let held = Instant::now();
    wait_until(SOON, "no tick is on time any more", || {
        held.elapsed() > Duration::from_secs(12)
    });
    assert_eq!(ticks(&node, "q"), before);
    drop(holder.stdin.take());
    holder.wait().expect("its end");
    wait_until(SOON, "it goes on", || ticks(&node, "q").len() >= before.len() + 2);
    let after = ticks(&node, "q");
    // The one that came first is there, those behind it were missed.
    assert_every_second(&after[..=before.len()]);
    let why = json_of(&node, &["events", "--filter", "schedule.skipped"]).to_string();
    assert!(why.contains("\"missed\""), "{why}");
    node.stop(SOON);
}
