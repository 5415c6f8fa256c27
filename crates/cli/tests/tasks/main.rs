//! `gaffer task`: with and without a daemon, killed at will; scenarios of thermos.md by their numbers.

mod after;
mod bare;
mod chaos;
mod keep;
mod limits;
mod native;
mod node;
mod thermos;
mod usage;

use gaffer_testkit::node::{assert_gone, bin_dir};
use gaffer_testkit::process::{Handle, of_node};
use gaffer_testkit::wait_until;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A folder with a checkpoint root, and nothing else that is ours.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["run", "work"] {
            std::fs::create_dir(root.path().join(folder)).expect("a folder");
        }
        Place { root }
    }

    fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    fn tasks(&self) -> PathBuf {
        self.root.path().join("tasks")
    }

    fn write(&self, name: &str, task: &Value) {
        std::fs::write(self.work().join(name), task.to_string()).expect("a file");
    }

    /// `--root` goes to every command.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gaffer"));
        let (ours, theirs) =
            words.split_at(words.iter().position(|word| *word == "--").unwrap_or(words.len()));
        command.arg("task").args(ours);
        if !ours.contains(&"--raw") {
            command.arg("--root").arg(self.tasks());
        }
        command.args(theirs).current_dir(self.work());
        for name in [
            "GAFFER_URL",
            "GAFFER_SESSION",
            "GAFFER_TOKEN",
            "GAFFER_PROFILE",
            "GAFFER_TASK_ROOT",
        ] {
            command.env_remove(name);
        }
        command
            .env("XDG_RUNTIME_DIR", self.root.path().join("run"))
            .env("GAFFER_SOCKET", self.root.path().join("nobody.sock"))
            .env("GAFFER_GAFFERD", bin_dir().join("gafferd"))
            .env("GAFFER_TEST_ROOT", self.root.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("gaffer runs")
    }

    /// Runs it to its end: its exit code and its document.
    #[track_caller]
    fn json(&self, words: &[&str]) -> (i32, Value) {
        let output = self.run(&[&["--json"], words].concat());
        let code = output.status.code().unwrap_or(-1);
        let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        assert!(code > 1 || !document.is_null(), "{words:?}: {}", said(&output));
        (code, document)
    }

    fn start(&self, words: &[&str]) -> Running {
        let log = std::fs::File::create(self.root.path().join("said")).expect("a file");
        let errors = log.try_clone().expect("a file");
        let child = self.command(words).stdout(log).stderr(errors).spawn();
        Running(child.expect("gaffer runs"))
    }

    fn status(&self, id: &str) -> Value {
        self.json(&["status", id]).1
    }

    fn stream(&self, id: &str) -> PathBuf {
        self.tasks().join("checkpoints").join(id).join("runner")
    }

    fn has(&self, file: &str) -> bool {
        self.work().join(file).exists()
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.work().join(file)).unwrap_or_default()
    }

    #[track_caller]
    fn until(&self, file: &str) {
        wait_until(SOON, file, || self.has(file));
    }

    fn touch(&self, file: &str) {
        std::fs::write(self.work().join(file), "").expect("a file");
    }

    /// SIGKILL for the command and for the runner that it has started.
    #[track_caller]
    fn kill_both(&self, running: Running, id: &str) {
        let runner = runner_of(&self.status(id));
        running.kill();
        let runner = Handle::open(runner).expect("the runner lives");
        assert!(runner.signal(Signal::KILL));
        let lock = self.tasks().join("checkpoints").join(id).join("node/lock");
        wait_until(SOON, "the end of the runner", || {
            let lock = std::fs::File::open(&lock).expect("a lock");
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).is_ok()
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for process in of_node(self.root.path(), &self.root.path().join("state")) {
            if let Some(process) = Handle::open(process.pid) {
                process.signal(Signal::KILL);
            }
        }
    }
}

struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        assert!(Handle::open(self.0.id()).is_some_and(|process| process.signal(signal)));
    }

    fn kill(mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("waited for");
    }

    #[track_caller]
    fn end(mut self) -> i32 {
        let mut status = None;
        wait_until(SOON, "the end of gaffer", || {
            status = self.0.try_wait().expect("a child");
            status.is_some()
        });
        status.and_then(|status| status.code()).unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn runner_of(task: &Value) -> u32 {
    let last = task["statuses"].as_array().and_then(|all| all.last());
    u32::try_from(last.expect("a status")["runner_pid"].as_u64().expect("a pid")).expect("a pid")
}

fn task(processes: Value, more: Value) -> Value {
    let mut task = json!({ "name": "t", "processes": processes });
    for (key, value) in more.as_object().expect("an object") {
        task[key] = value.clone();
    }
    task
}

fn step<'a>(task: &'a Value, name: &str) -> &'a Value {
    let steps = task["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["name"] == name).expect("a step")
}

/// `failed:3 success:0` of a step's runs.
fn story(task: &Value, name: &str) -> String {
    let runs = step(task, name)["runs"].as_array().expect("runs");
    let word = |run: &Value| match (&run["exit_code"], &run["signal"]) {
        (Value::Null, Value::Null) => "-".to_owned(),
        (Value::Null, signal) => signal.as_str().unwrap_or_default().to_owned(),
        (code, _) => code.to_string(),
    };
    let words: Vec<String> = runs
        .iter()
        .map(|run| format!("{}:{}", run["state"].as_str().unwrap_or_default(), word(run)))
        .collect();
    words.join(" ")
}

/// Waits for `go`, and says that it does.
const WAITS: &str = "echo x >> begun; until test -e go; do sleep 0.02; done; echo x >> done";

#[test]
fn r01_layers_run_with_a_port_and_the_answer_has_its_shape() {
    let place = Place::new();
    let port = "echo {{thermos.ports[named_port]}} {{thermos.task_id}} > port";
    let processes = json!([
        {"name": "t1", "cmdline": "true"}, {"name": "t2", "cmdline": port}, {"name": "t3", "cmdline": "echo out; echo err >&2"},
        {"name": "t4", "cmdline": "true"}, {"name": "t5", "cmdline": "true"}, {"name": "t6", "cmdline": "true"},
    ]);
    let order =
        json!([{"order": ["t1", "t3", "t5"]}, {"order": ["t2", "t4", "t6"]}, {"order": ["t1", "t4"]}]);
    place.write("t.json", &task(processes, json!({ "constraints": order })));
    let (code, done) = place.json(&["run", "t.json", "--id", "r01", "--port", "named_port=8123"]);
    assert_eq!(
        (code, &done["state"], &done["id"]),
        (0, &json!("success"), &json!("r01"))
    );
    assert_eq!(place.read("port"), "8123 r01\n");
    for name in ["t1", "t2", "t3", "t4", "t5", "t6"] {
        assert_eq!(story(&done, name), "success:0");
        let run = &step(&done, name)["runs"][0];
        assert_eq!(run["attempt"], 1);
        assert!(run["run"].is_string() && run["signal"].is_null(), "{run}");
        // R02: in this order.
        let at = |key: &str| run[key].as_str().expect("a time").to_owned();
        assert!(at("forked_at") <= at("started_at") && at("started_at") <= at("ended_at"));
    }
    assert_eq!(done["ports"], json!({"named_port": 8123}));
    assert_eq!(done["sandbox"], json!(place.work()));
    let root = std::fs::canonicalize(place.tasks()).expect("a root");
    assert_eq!(done["root"], json!(root));
    assert!(root.join("tasks/finished/r01").is_file() && !root.join("tasks/active/r01").exists());
    let run = root.join("logs/r01/t3/0");
    assert_eq!(
        std::fs::read_to_string(run.join("stdout")).expect("output"),
        "out\n"
    );
    assert_eq!(
        std::fs::read_to_string(run.join("stderr")).expect("output"),
        "err\n"
    );
    let mut status = place.status("r01");
    let disk = status
        .as_object_mut()
        .and_then(|status| status.remove("disk_bytes"));
    assert!(disk.is_some_and(|disk| disk.as_u64() > Some(0)));
    assert_eq!(status, done);
    assert_eq!(said(&place.run(&["logs", "r01", "t3", "-s", "stdout"])), "out\n");
    assert!(said(&place.run(&["logs", "r01"])).contains("t3 ! err"));
    let (_, listed) = place.json(&["ls"]);
    assert_eq!(
        (&listed[0]["id"], &listed[0]["location"]),
        (&json!("r01"), &json!("finished"))
    );
    assert_gone(place.root.path());
}

/// Runs a task to its end and compares its result and the stories of its steps.
#[track_caller]
fn ends(name: &str, task: &Value, code: i32, state: &str, stories: &[(&str, &str)]) {
    let place = Place::new();
    place.write("t.json", task);
    let (exit, done) = place.json(&["run", "t.json", "--id", name]);
    assert_eq!(
        (exit, done["state"].as_str()),
        (code, Some(state)),
        "{name}: {done:#}"
    );
    for (one, expected) in stories {
        assert_eq!(story(&done, one), *expected, "{name} {one}: {done:#}");
    }
}

#[test]
fn r05_failures_are_tried_again() {
    let nth = |name: &str, n: u32| {
        let cmdline = format!("echo x >> {name}; test $(wc -l < {name}) -ge {n}");
        json!({"name": name, "cmdline": cmdline, "max_failures": 5, "min_duration": 0})
    };
    let stories = [
        ("a", "success:0"),
        ("b", "failed:1 success:0"),
        ("c", "failed:1 failed:1 success:0"),
    ];
    let processes = json!([nth("a", 1), nth("b", 2), nth("c", 3)]);
    ends("r05", &task(processes, json!({})), 0, "success", &stories);
}

#[test]
fn r15_r16_only_a_finalizer_or_only_an_ephemeral() {
    let finalizer = json!([{"name": "f", "cmdline": "true", "final": true}]);
    ends(
        "r15",
        &task(finalizer, json!({})),
        0,
        "success",
        &[("f", "success:0")],
    );
    let ephemeral = json!([{"name": "e", "cmdline": "sleep 600", "ephemeral": true}]);
    ends("r16", &task(ephemeral, json!({})), 0, "success", &[("e", "")]);
}

#[test]
fn r17_a_signal_is_no_failure() {
    let cmdline = "echo x >> n; test $(wc -l < n) -ge 3 || kill -KILL $$";
    let processes = json!([{"name": "a", "cmdline": cmdline, "min_duration": 0}]);
    let story = "killed:SIGKILL killed:SIGKILL success:0";
    ends("r17", &task(processes, json!({})), 0, "success", &[("a", story)]);
}

#[test]
fn e01_f01_f05_l04_ends_of_tasks() {
    let processes = json!([
        {"name": "a", "cmdline": "true"}, {"name": "e", "cmdline": "sleep 600", "ephemeral": true},
    ]);
    ends(
        "e01",
        &task(processes, json!({})),
        0,
        "success",
        &[("a", "success:0"), ("e", "killed:SIGTERM")],
    );
    let with_final =
        |main: &str| json!([{"name": "a", "cmdline": main}, {"name": "f", "cmdline": "true", "final": true}]);
    ends(
        "f01",
        &task(with_final("true"), json!({})),
        0,
        "success",
        &[("a", "success:0"), ("f", "success:0")],
    );
    ends(
        "f05",
        &task(with_final("exit 3"), json!({})),
        1,
        "failed",
        &[("a", "failed:3"), ("f", "success:0")],
    );
    let ready = "until test -e s1 -a -e s2; do sleep 0.02; done; exit 1";
    let sleeper = |name: &str| json!({"name": name, "cmdline": format!("touch {name}; exec sleep 600")});
    let processes = json!([
        {"name": "f1", "cmdline": ready}, {"name": "f2", "cmdline": ready}, sleeper("s1"), sleeper("s2"),
    ]);
    let stories = [
        ("f1", "failed:1"),
        ("f2", "failed:1"),
        ("s1", "killed:SIGTERM"),
        ("s2", "killed:SIGTERM"),
    ];
    ends(
        "l04",
        &task(processes, json!({"max_failures": 2})),
        1,
        "failed",
        &stories,
    );
}

#[test]
fn r07_r08_killed_runners_lose_nothing_and_run_nothing_twice() {
    let place = Place::new();
    let processes = json!([{"name": "a", "cmdline": WAITS}, {"name": "b", "cmdline": "echo x >> after"}]);
    place.write(
        "t.json",
        &task(processes, json!({"constraints": [{"order": ["a", "b"]}]})),
    );
    let words = ["run", "t.json", "--id", "r07"];
    let first = place.start(&words);
    place.until("begun");
    let before = wait_running(&place, "r07", "a");
    place.kill_both(first, "r07");
    assert!(Handle::open(pid_of(&before, "a")).is_some(), "the step goes on");
    let failure = place.run(&["wait", "r07"]);
    assert_eq!(failure.status.code(), Some(1), "{}", said(&failure));
    assert!(said(&failure).contains("nobody leads it"), "{}", said(&failure));

    // R07: adopted as it runs. Then killed once more, and it ends while nobody looks (R08).
    let second = place.start(&words);
    wait_until(SOON, "the second runner", || {
        runner_of(&place.status("r07")) != runner_of(&before)
    });
    place.kill_both(second, "r07");
    place.touch("go");
    place.until("done");
    wait_until(SOON, "the end of the step", || {
        Handle::open(pid_of(&before, "a")).is_none()
    });
    let (code, done) = place.json(&words);
    assert_eq!(
        (code, story(&done, "a"), story(&done, "b")),
        (0, "success:0".into(), "success:0".into())
    );
    assert_eq!(
        step(&done, "a")["runs"][0]["started_at"],
        step(&before, "a")["runs"][0]["started_at"]
    );
    assert_eq!(
        (place.read("begun"), place.read("done"), place.read("after")),
        ("x\n".into(), "x\n".into(), "x\n".into())
    );
    let mut runners: Vec<u64> = done["statuses"]
        .as_array()
        .expect("statuses")
        .iter()
        .filter_map(|one| one["runner_pid"].as_u64())
        .collect();
    runners.dedup();
    assert_eq!(runners.len(), 3, "{done:#}");
    assert_gone(place.root.path());
}

#[track_caller]
fn wait_running(place: &Place, id: &str, name: &str) -> Value {
    let mut task = Value::Null;
    wait_until(SOON, "a running step", || {
        task = place.status(id);
        step(&task, name)["state"] == "running"
    });
    task
}

fn pid_of(task: &Value, name: &str) -> u32 {
    let runs = step(task, name)["runs"].as_array().expect("runs");
    u32::try_from(runs.last().expect("a run")["pid"].as_u64().expect("a pid")).expect("a pid")
}

#[test]
fn r08_a_failure_that_nobody_saw_counts() {
    let place = Place::new();
    let cmdline = format!("{WAITS}; exit 7");
    place.write(
        "t.json",
        &task(json!([{"name": "a", "cmdline": cmdline}]), json!({})),
    );
    let words = ["run", "t.json", "--id", "r08"];
    let first = place.start(&words);
    place.until("begun");
    let before = wait_running(&place, "r08", "a");
    place.kill_both(first, "r08");
    place.touch("go");
    wait_until(SOON, "the end of the step", || {
        Handle::open(pid_of(&before, "a")).is_none()
    });
    let (code, done) = place.json(&words);
    assert_eq!(
        (code, done["state"].as_str(), story(&done, "a")),
        (1, Some("failed"), "failed:7".into())
    );
    assert_eq!(place.read("begun"), "x\n");
}

#[test]
fn r12_r13_a_second_runner_and_another_task_are_refused() {
    let place = Place::new();
    place.write(
        "t.json",
        &task(json!([{"name": "a", "cmdline": WAITS}]), json!({})),
    );
    place.write(
        "other.json",
        &task(json!([{"name": "a", "cmdline": "touch other"}]), json!({})),
    );
    let first = place.start(&["run", "t.json", "--id", "r12"]);
    place.until("begun");
    wait_running(&place, "r12", "a");
    let stream = std::fs::read(place.stream("r12")).expect("a stream");
    let second = place.run(&["run", "t.json", "--id", "r12"]);
    assert_eq!(second.status.code(), Some(4), "{}", said(&second));
    assert!(
        said(&second).contains("another runner leads task r12"),
        "{}",
        said(&second)
    );
    assert_eq!(std::fs::read(place.stream("r12")).expect("a stream"), stream);
    place.kill_both(first, "r12");
    // R13: with nobody in charge, another task of the same id touches nothing.
    let other = place.run(&["run", "other.json", "--id", "r12"]);
    assert_eq!(other.status.code(), Some(4), "{}", said(&other));
    assert!(said(&other).contains("another definition"), "{}", said(&other));
    assert_eq!(std::fs::read(place.stream("r12")).expect("a stream"), stream);
    assert!(!place.has("other"));
    place.touch("go");
    let (code, done) = place.json(&["run", "t.json", "--id", "r12"]);
    assert_eq!((code, story(&done, "a")), (0, "success:0".into()));
    // R14: over is over, with the same result.
    let stream = std::fs::read(place.stream("r12")).expect("a stream");
    assert_eq!(place.json(&["run", "t.json", "--id", "r12"]), (0, done));
    assert_eq!(std::fs::read(place.stream("r12")).expect("a stream"), stream);
    assert_eq!(place.read("begun"), "x\n");
    assert_eq!(place.run(&["kill", "r12"]).status.code(), Some(4));
}

#[test]
fn r14_a_failed_task_keeps_its_exit_code() {
    let place = Place::new();
    place.write(
        "t.json",
        &task(
            json!([{"name": "a", "cmdline": "echo x >> n; exit 3"}]),
            json!({}),
        ),
    );
    for _ in 0..2 {
        let (code, done) = place.json(&["run", "t.json", "--id", "r14"]);
        assert_eq!((code, story(&done, "a")), (1, "failed:3".into()));
    }
    assert_eq!(place.read("n"), "x\n");
    assert!(said(&place.run(&["why", "r14"])).contains("exit 3"));
}

#[test]
fn k07_a_kill_is_orderly_and_b05_takes_whole_ids() {
    let place = Place::new();
    let processes = json!([
        {"name": "a", "cmdline": "touch begun; exec sleep 600"}, {"name": "f", "cmdline": "touch final", "final": true},
    ]);
    place.write("t.json", &task(processes, json!({})));
    let running = place.start(&["run", "t.json", "--id", "web-2"]);
    place.until("begun");
    wait_running(&place, "web-2", "a");
    assert_eq!(place.run(&["kill", "web"]).status.code(), Some(3));
    assert_eq!(place.status("web-2")["state"], "active");
    let (code, killed) = place.json(&["kill", "web-2"]);
    assert_eq!((code, &killed["state"]), (0, &json!("killed")));
    assert_eq!(
        (story(&killed, "a"), story(&killed, "f")),
        ("killed:SIGTERM".into(), "success:0".into())
    );
    assert!(place.has("final"));
    assert_eq!(running.end(), 1);
    assert_gone(place.root.path());
}

#[test]
fn k05_k09_a_grace_that_is_over_kills_whoever_leads() {
    let place = Place::new();
    let cmdline = "trap '' TERM; touch begun; while :; do sleep 0.1; done";
    place.write(
        "t.json",
        &task(
            json!([{"name": "a", "cmdline": cmdline}]),
            json!({"finalization_wait": 1}),
        ),
    );
    let running = place.start(&["run", "t.json", "--id", "k05"]);
    place.until("begun");
    wait_running(&place, "k05", "a");
    // Nobody leads it any more: the kill does.
    place.kill_both(running, "k05");
    let (code, killed) = place.json(&["kill", "k05", "--grace", "500ms"]);
    assert_eq!(
        (
            code,
            killed["state"].as_str(),
            step(&killed, "a")["state"].as_str()
        ),
        (0, Some("killed"), Some("killed"))
    );
    let (code, again) = place.json(&["run", "t.json", "--id", "k05"]);
    assert_eq!((code, &again["state"]), (1, &json!("killed")));
    assert_gone(place.root.path());
}

#[test]
fn ctrl_c_once_ends_in_order_and_twice_kills() {
    let place = Place::new();
    let cmdline = "trap 'touch asked' TERM; touch begun; while :; do sleep 0.1; done";
    let processes = json!([
        {"name": "a", "cmdline": cmdline}, {"name": "f", "cmdline": "touch final", "final": true},
    ]);
    place.write("t.json", &task(processes, json!({})));
    let running = place.start(&["run", "t.json", "--id", "c"]);
    place.until("begun");
    wait_running(&place, "c", "a");
    running.signal(Signal::INT);
    place.until("asked");
    running.signal(Signal::INT);
    assert_eq!(running.end(), 1);
    let task = place.status("c");
    assert_eq!(
        (&task["state"], story(&task, "a"), place.has("final")),
        (&json!("killed"), "killed:SIGKILL".into(), false)
    );
    assert_gone(place.root.path());
}

#[test]
fn a_runner_that_is_killed_alone_is_replaced_at_once() {
    let place = Place::new();
    place.write(
        "t.json",
        &task(json!([{"name": "a", "cmdline": WAITS}]), json!({})),
    );
    let running = place.start(&["run", "t.json", "--id", "x"]);
    place.until("begun");
    let before = wait_running(&place, "x", "a");
    assert!(Handle::open(runner_of(&before)).is_some_and(|runner| runner.signal(Signal::KILL)));
    wait_until(SOON, "the second runner", || {
        runner_of(&place.status("x")) != runner_of(&before)
    });
    place.touch("go");
    assert_eq!(running.end(), 0);
    assert_eq!(
        (story(&place.status("x"), "a"), place.read("begun")),
        ("success:0".into(), "x\n".into())
    );
}

#[test]
fn detached_it_goes_on_and_can_be_waited_for() {
    let place = Place::new();
    place.write(
        "t.json",
        &task(json!([{"name": "a", "cmdline": WAITS}]), json!({})),
    );
    let output = place.run(&["run", "t.json", "--detach"]);
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(
        output.status.success() && id.starts_with("t-2"),
        "{}",
        said(&output)
    );
    place.until("begun");
    let waiting = place.start(&["wait", &id]);
    place.touch("go");
    assert_eq!(waiting.end(), 0);
    wait_until(SOON, "the end of its runner", || {
        of_node(place.root.path(), &place.root.path().join("state")).is_empty()
    });
}

#[test]
fn b01_b02_b04_which_task_and_what_is_wrong() {
    let place = Place::new();
    let named =
        |name: &str| json!({"name": name, "processes": [{"name": "a", "cmdline": format!("touch {name}")}]});
    place.write("two.json", &json!({"tasks": [named("one"), named("two")]}));
    assert_eq!(
        place.json(&["run", "two.json", "--task", "two", "--id", "b01"]).0,
        0
    );
    assert!(place.has("two") && !place.has("one"));
    place.write("none.json", &json!({"tasks": []}));
    place.write(
        "port.json",
        &json!({"name": "p", "processes": [{"name": "a", "cmdline": "{{thermos.ports[http]}}"}]}),
    );
    std::fs::write(place.work().join("broken.json"), "{").expect("a file");
    let wrong: [(&[&str], &str); 9] = [
        (&["run"], "FILE"),
        (&["run", "two.json"], "--task"),
        (&["run", "two.json", "--task", "three"], "three"),
        (&["run", "none.json"], "no task"),
        (&["run", "broken.json"], "broken.json"),
        (&["run", "absent.json"], "absent.json"),
        (&["run", "port.json"], "http"),
        (&["run", "two.json", "--port", "x"], "NAME=PORT"),
        (&["run", "two.json", "-E", "a"], "NAME=VALUE"),
    ];
    for (words, text) in wrong {
        let output = place.run(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", said(&output));
        assert!(said(&output).contains(text), "{words:?}: {}", said(&output));
    }
    let bad = place.run(&["run", "two.json", "--task", "one", "--id", "../x"]);
    assert_eq!(bad.status.code(), Some(2), "{}", said(&bad));
}

#[test]
fn b03_a_command_is_a_task_of_one_step_and_b06_no_tasks() {
    let place = Place::new();
    let missing = place.run(&["status"]);
    assert_eq!(missing.status.code(), Some(3), "{}", said(&missing));
    std::fs::create_dir(place.tasks()).expect("a root");
    let empty = place.run(&["status"]);
    assert_eq!(
        (empty.status.code(), said(&empty).contains("no tasks")),
        (Some(1), true),
        "{}",
        said(&empty)
    );
    let (code, done) = place.json(&["run", "--id", "b03", "--", "echo", "hello", "world"]);
    assert_eq!((code, story(&done, "simple")), (0, "success:0".into()));
    assert_ne!(done["sandbox"], json!(place.work()));
    assert_eq!(said(&place.run(&["logs", "b03", "simple"])), "hello world\n");
}

#[test]
fn a_damaged_checkpoint_is_told_as_far_as_it_goes() {
    let place = Place::new();
    place.write(
        "t.json",
        &task(json!([{"name": "a", "cmdline": "true"}]), json!({})),
    );
    assert_eq!(place.json(&["run", "t.json", "--id", "d"]).0, 0);
    let bytes = std::fs::read(place.stream("d")).expect("a stream");
    let raw = |bytes: &[u8]| {
        let file = place.work().join("stream");
        std::fs::write(&file, bytes).expect("a file");
        let output = place.run(&["--json", "show", "--raw", "stream"]);
        let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
        (output.status.code(), document)
    };
    let (code, whole) = raw(&bytes);
    assert_eq!(
        (code, &whole["state"], &whole["header"]["id"]),
        (Some(0), &json!("success"), &json!("d"))
    );
    let (code, torn) = raw(&bytes[..bytes.len() - 3]);
    assert_eq!(code, Some(1));
    assert_eq!(
        torn["records"].as_u64(),
        whole["records"].as_u64().map(|count| count - 1)
    );
    assert!(torn["stops"]["offset"].is_u64(), "{torn}");
    let mut flipped = bytes.clone();
    let middle = bytes.len() / 2;
    flipped[middle] ^= 0x40;
    let (code, corrupt) = raw(&flipped);
    assert!(
        code == Some(1) && corrupt["stops"]["offset"].as_u64().expect("a place") <= middle as u64,
        "{corrupt}"
    );
    std::fs::write(place.stream("d"), &flipped).expect("written");
    assert_eq!(place.json(&["ls"]).1[0]["state"], "corrupt");
    assert_eq!(place.run(&["status", "d"]).status.code(), Some(4));
}
