//! What outlives what: daemons, shims and guards are killed or frozen one by one, and all together.

use gaffer_shim::journal::{Record, RunIdWire};
use gaffer_testkit::{Node, process, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn running(job: &Value) -> bool {
    job["state"] == "running"
}

fn pid(job: &Value) -> u32 {
    let pid = job["instances"][0]["pid"].as_u64().expect("a live pid");
    u32::try_from(pid).expect("a pid")
}

fn deaths(node: &mut Node, job: &str) -> Vec<Value> {
    let list = node.get(&format!("/v1/jobs/default/{job}/deaths?limit=1000"));
    list.as_array().cloned().unwrap_or_default()
}

fn idle(node: &mut Node, instances: u32) -> Value {
    let fixture = node.fixture();
    node.put_job(
        "default",
        "web",
        &json!({ "cmd": [fixture, "idle"], "instances": instances }),
    );
    node.wait_job("default", "web", SOON, running)
}

fn signal(one: &process::Process, signal: Signal) {
    if let Some(handle) = process::Handle::open(one.pid) {
        handle.signal(signal);
    }
}

/// SIGKILL for the shim proper (or its guard), found by the daemon's own word.
fn kill_of_shim(node: &mut Node, who: &str) {
    let info = node.get("/v1/node");
    let pid = info["shims"][0][who].as_u64().expect("its pid");
    let handle = process::Handle::open(u32::try_from(pid).expect("a pid")).expect("it lives");
    handle.signal(Signal::KILL);
}

#[test]
fn a_daemon_that_is_killed_finds_its_runs_again_with_pid_age_and_restart_count() {
    let mut node = Node::start();
    let before = idle(&mut node, 2);
    node.restart();
    let after = node.wait_job("default", "web", SOON, running);
    for n in 0..2 {
        for key in ["run", "pid", "started_at", "restarts"] {
            assert_eq!(before["instances"][n][key], after["instances"][n][key], "{key}");
        }
    }
    assert!(deaths(&mut node, "web").is_empty());
}

#[test]
fn an_exit_while_no_daemon_lives_is_recorded_with_its_code_and_the_job_goes_on() {
    let mut node = Node::start();
    let fixture = node.fixture();
    let retry = json!({ "delay": "1h", "max_delay": "1h" });
    let spec = json!({ "cmd": [fixture, "exit", "23", "--after-ms", "300"], "retry": retry });
    node.put_job("default", "short", &spec);
    let job = node.wait_job("default", "short", SOON, running);
    let pid = pid(&job);
    node.kill9();
    wait_until(SOON, "the program has ended", || {
        process::Process::read(pid).is_none_or(|one| one.is_zombie())
    });
    node.start_again();
    let list = wait_for(SOON, "the death is settled", || {
        Some(deaths(&mut node, "short")).filter(|list| !list.is_empty())
    });
    assert_eq!(
        (list.len(), &list[0]["exit_code"], &list[0]["cause"]),
        (1, &json!(23), &json!("exit"))
    );
    node.wait_job("default", "short", SOON, |job| job["state"] == "backoff");
}

#[test]
fn a_job_that_was_stopped_by_hand_stays_stopped_across_a_kill() {
    let mut node = Node::start();
    idle(&mut node, 1);
    node.http("POST", "/v1/jobs/default/web/stop?wait=20s", Some(&json!({})));
    node.restart();
    let job = node.wait_job("default", "web", SOON, |job| job["state"] == "stopped");
    assert_eq!(job["wish"], "stopped");
    node.assert_no_job_processes();
}

#[test]
fn a_paused_job_is_still_paused_after_a_kill_and_goes_on_when_resumed() {
    let mut node = Node::start();
    let before = idle(&mut node, 1);
    node.http("POST", "/v1/jobs/default/web/pause?wait=20s", Some(&json!({})));
    node.wait_job("default", "web", SOON, |job| job["state"] == "paused");
    node.restart();
    node.wait_job("default", "web", SOON, |job| job["state"] == "paused");
    node.http("POST", "/v1/jobs/default/web/resume?wait=20s", Some(&json!({})));
    let after = node.wait_job("default", "web", SOON, running);
    assert_eq!(pid(&before), pid(&after));
}

/// A tree that does everything to stay is stopped; when the stop has ended, nothing of it is left.
fn stop_of_a_stubborn_tree(mut node: Node) {
    let fixture = node.fixture();
    let cmd = json!([
        fixture,
        "tree",
        "--depth",
        "3",
        "--setsid",
        "--double-fork",
        "--ignore-term"
    ]);
    node.put_job(
        "default",
        "bad",
        &json!({ "cmd": cmd, "stop": { "timeout": "300ms" } }),
    );
    node.wait_job("default", "bad", SOON, running);
    wait_until(SOON, "the tree has grown", || node.job_processes().len() >= 3);
    let (status, answer) = node.http("POST", "/v1/jobs/default/bad/stop?wait=30s", Some(&json!({})));
    assert_eq!((status, &answer["state"]), (200, &json!("done")), "{answer:#}");
    // At once, not "soon": the stop has ended, so the tree is gone.
    assert!(node.job_processes().is_empty(), "{:#?}", node.job_processes());
}

#[test]
fn hazard_13_a_tree_that_forks_twice_leaves_its_session_and_ignores_term_is_gone_after_stop() {
    stop_of_a_stubborn_tree(Node::start());
}

#[test]
fn hazard_13_without_cgroups_the_same_tree_is_gone_as_well() {
    let config = "[gaffer]\ncontainment = \"off\"\n";
    stop_of_a_stubborn_tree(Node::builder().config("gaffer.toml", config).start());
}

#[test]
fn hazard_17_a_killed_shim_ends_its_runs_with_what_the_guard_saw_and_never_with_zero() {
    let mut node = Node::start();
    let before = idle(&mut node, 3);
    let runs: Vec<Value> = before["instances"]
        .as_array()
        .expect("instances")
        .iter()
        .map(|one| one["run"].clone())
        .collect();
    kill_of_shim(&mut node, "pid");
    node.wait_job("default", "web", SOON, |job| {
        let all = job["instances"].as_array().cloned().unwrap_or_default();
        running(job) && all.len() == 3 && all.iter().all(|one| !runs.contains(&one["run"]))
    });
    let list = wait_for(SOON, "three deaths", || {
        Some(deaths(&mut node, "web")).filter(|list| list.len() >= 3)
    });
    assert_eq!(list.len(), 3, "{list:#?}");
    for death in list {
        assert_ne!(death["exit_code"], json!(0), "{death:#}");
        assert!(
            death["signal"] == "SIGKILL" || death["cause"] == "unknown",
            "{death:#}"
        );
    }
    assert_eq!(node.job_processes().len(), 3, "{:#?}", node.job_processes());
}

#[test]
fn hazard_17_a_killed_guard_does_not_disturb_the_runs() {
    let mut node = Node::start();
    let before = idle(&mut node, 1);
    kill_of_shim(&mut node, "guard_pid");
    let warned = "the guard was killed";
    wait_until(SOON, "the daemon has seen it", || node.log().contains(warned));
    let after = node.wait_job("default", "web", SOON, running);
    assert_eq!(pid(&before), pid(&after));
    assert!(deaths(&mut node, "web").is_empty());
    // The next run is born under a shim that has a guard.
    let (status, answer) = node.http("POST", "/v1/jobs/default/web/restart?wait=20s", Some(&json!({})));
    assert_eq!((status, &answer["state"]), (200, &json!("done")), "{answer:#}");
    let last = node.wait_job("default", "web", SOON, running);
    assert_ne!(pid(&before), pid(&last));
    assert_eq!(node.job_processes().len(), 1);
}

/// Runs of one place go from shim to shim and back: the stream goes on where the last one ended it.
#[test]
fn hazard_59_a_shim_that_gets_a_place_back_writes_behind_what_others_wrote_there() {
    let mut node = Node::start();
    let fixture = node.fixture();
    // Keeps the first shim alive.
    node.put_job("default", "other", &json!({ "cmd": [fixture, "idle"] }));
    let script = format!("for n in 1 2 3 4 5; do echo $$GAFFER_RUN $$n; done; exec {fixture} idle");
    node.put_job("default", "web", &json!({ "cmd": ["/bin/sh", "-c", script] }));
    node.wait_job("default", "web", SOON, running);
    let lines = |node: &Node, wanted: usize| {
        let deadline = std::time::Instant::now() + SOON;
        wait_until(2 * SOON, "its lines", || {
            let text = node.logged("default", "web", 1, "stdout");
            let count = text.iter().filter(|byte| **byte == b'\n').count();
            let late = std::time::Instant::now() > deadline;
            assert!(!late, "{wanted} wanted: {}", String::from_utf8_lossy(&text));
            count == wanted
        });
    };
    lines(&node, 5);
    kill_of_shim(&mut node, "guard_pid");
    wait_until(SOON, "the daemon has seen it", || {
        node.log().contains("the guard was killed")
    });
    node.http("POST", "/v1/jobs/default/web/restart?wait=20s", Some(&json!({})));
    lines(&node, 10);
    // The second shim goes, and a new daemon knows nothing of the missing guard: the first one gets the place back.
    node.restart();
    let info = node.get("/v1/node");
    let second = info["shims"][1]["pid"]
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok());
    process::Handle::open(second.expect("a second shim"))
        .expect("it lives")
        .signal(Signal::KILL);
    lines(&node, 15);
    let text = String::from_utf8(node.logged("default", "web", 1, "stdout")).expect("text");
    let numbers: Vec<&str> = text.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(numbers, ["1", "2", "3", "4", "5"].repeat(3), "{text}");
}

#[test]
fn hazard_17_shim_guard_and_daemon_killed_together_leave_one_copy_each() {
    let mut node = Node::start();
    idle(&mut node, 3);
    node.kill9();
    // All shims and guards are frozen first, so that none sees the other die.
    for shim in node.shims() {
        signal(&shim, Signal::STOP);
    }
    for shim in node.shims() {
        signal(&shim, Signal::KILL);
    }
    node.start_again();
    node.wait_job("default", "web", SOON, running);
    wait_until(SOON, "three copies", || node.job_processes().len() == 3);
    for death in deaths(&mut node, "web") {
        assert_eq!(
            (&death["exit_code"], &death["cause"]),
            (&Value::Null, &json!("unknown")),
            "{death:#}"
        );
    }
}

/// What a shim that was killed together with its guard leaves behind: a run was born, and nothing more is known.
fn grave(node: &Node, n: u64, run: RunIdWire) {
    let dir = node.state_dir().join("shims").join(n.to_string());
    std::fs::create_dir_all(&dir).expect("a directory");
    let world = gaffer_shim::identity::World::current().expect("our world");
    let records = [
        Record::Head {
            segment: 1,
            world: world.to_string(),
            entries: Vec::new(),
            more: false,
        },
        Record::Intent {
            run,
            slot: "default.web.1".to_owned(),
            stamp: [1, 1],
            attempt: 1,
            out_offset: 0,
            err_offset: 0,
            wall_ms: 1_800_000_000_000,
            mono_ns: 5_000_000_000,
            label: String::new(),
            cgroup: None,
            log_dir: String::new(),
            streams: Vec::new(),
        },
        Record::Born {
            run,
            pid: u32::MAX >> 2,
        },
    ];
    let encode = |record: &Record| gaffer_shim::frame::encode(&minicbor::to_vec(record).expect("a record"));
    let bytes: Vec<u8> = records.iter().flat_map(encode).collect();
    std::fs::write(dir.join(gaffer_shim::journal::segment_name(1)), bytes).expect("the journal");
    for (name, text) in [("group", "default"), ("lock", "")] {
        std::fs::write(dir.join(name), text).expect("a file");
    }
}

#[test]
fn hazard_17_ends_that_nobody_saw_and_no_daemon_lived_to_settle_are_on_record() {
    let mut node = Node::start();
    let fixture = node.fixture();
    let spec = json!({ "cmd": [fixture, "idle"], "start": false });
    node.put_job("default", "web", &spec);
    node.kill9();
    // Two daemons were killed right behind the start of the next run, each before it wrote down the end of the last one.
    for n in 1..=3 {
        grave(&node, u64::from(40 + n), RunIdWire { epoch: 1, n });
    }
    node.start_again();
    let list = wait_for(SOON, "three deaths", || {
        Some(deaths(&mut node, "web")).filter(|list| list.len() >= 3)
    });
    assert_eq!(list.len(), 3, "{list:#?}");
    for death in &list {
        let status = (&death["exit_code"], &death["signal"]);
        assert_eq!(status, (&Value::Null, &Value::Null), "{death:#}");
    }
    let unknown = list.iter().filter(|death| death["cause"] == "unknown").count();
    // The newest one ended as was wished.
    assert_eq!(unknown, 2, "{list:#?}");
    node.assert_no_job_processes();
}

#[test]
fn hazard_18_a_frozen_shim_is_unreachable_not_dead_and_nothing_is_started_in_its_place() {
    let mut node = Node::start();
    let before = idle(&mut node, 1);
    node.kill9();
    let shims = node.shims();
    for shim in &shims {
        signal(shim, Signal::STOP);
    }
    node.start_again();
    node.wait_job("default", "web", SOON, |job| job["state"] == "unreachable");
    assert_eq!(node.job_processes().len(), 1);
    for shim in &shims {
        signal(shim, Signal::CONT);
    }
    let after = node.wait_job("default", "web", SOON, running);
    assert_eq!(pid(&before), pid(&after));
}

#[test]
fn hazard_18_a_frozen_shim_that_is_killed_is_buried_and_its_jobs_start_again() {
    for with_guard in [false, true] {
        let mut node = Node::start();
        let before = idle(&mut node, 1);
        let info = node.get("/v1/node");
        let shims = node.shims();
        let shim = shims
            .iter()
            .find(|one| info["shims"][0]["pid"] == json!(one.pid))
            .expect("the shim");
        node.kill9();
        for one in &shims {
            signal(one, Signal::STOP);
        }
        node.start_again();
        node.wait_job("default", "web", SOON, |job| job["state"] == "unreachable");
        // A start of the same group waits as well: the frozen shim may have one in its socket.
        let fixture = node.fixture();
        node.put_job("default", "next", &json!({ "cmd": [fixture, "idle"] }));
        assert_eq!(node.job_processes().len(), 1);
        match with_guard {
            true => shims.iter().for_each(process::kill),
            false => {
                process::kill(shim);
                shims.iter().for_each(|one| signal(one, Signal::CONT));
            }
        }
        let after = node.wait_job("default", "web", SOON, running);
        node.wait_job("default", "next", SOON, running);
        assert_ne!(pid(&before), pid(&after));
        wait_until(SOON, "one copy of each", || node.job_processes().len() == 2);
        let list = deaths(&mut node, "web");
        assert_eq!(list.len(), 1, "{list:#?}");
        assert_ne!(list[0]["exit_code"], json!(0));
    }
}

#[test]
fn hazard_34_no_writer_sees_a_broken_pipe_when_the_daemon_or_the_shim_is_killed() {
    let mut node = Node::start();
    let fixture = node.fixture();
    let cmd = json!([fixture, "lines", "--every-us", "500", "--prefix", "x "]);
    node.put_job("default", "talk", &json!({ "cmd": cmd }));
    node.wait_job("default", "talk", SOON, running);
    node.restart();
    kill_of_shim(&mut node, "pid");
    let list = wait_for(SOON, "a death", || {
        Some(deaths(&mut node, "talk")).filter(|list| !list.is_empty())
    });
    for death in list {
        // A writer that gets EPIPE dies of SIGPIPE or, here, says so by its exit code.
        assert!(
            death["signal"] == "SIGKILL" || death["cause"] == "unknown",
            "{death:#}"
        );
    }
}

#[test]
fn hazard_45_of_twenty_daemons_on_one_state_directory_one_serves_and_the_others_say_who() {
    let mut node = Node::start();
    let before = idle(&mut node, 1);
    let state_dir = node.state_dir();
    let other = |n: usize| {
        // Half of them would even use another socket: the directory alone must tell them.
        let mut command = match n % 2 {
            0 => node.daemon_command(),
            _ => {
                let mut command = std::process::Command::new(node.program("gafferd"));
                command.args(["--bind", "none", "--state-dir"]).arg(&state_dir);
                command
                    .arg("--socket")
                    .arg(node.root().join(format!("other-{n}.sock")));
                command
            }
        };
        command
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("gafferd")
    };
    let others: Vec<_> = (0..20).map(other).collect();
    for other in others {
        let output = other.wait_with_output().expect("its end");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{text}");
        assert!(text.contains("another daemon"), "{text}");
    }
    let after = node.wait_job("default", "web", SOON, running);
    assert_eq!(pid(&before), pid(&after));
}
