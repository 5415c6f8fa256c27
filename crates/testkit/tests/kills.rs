//! The kill matrix: daemon, shim, guard and all of them are killed behind every step of the spawn table (ARCHITECTURE.md)
//! and around an exit, with a real node. Who is to be killed stands still at the step, so each case is the same each time.

use gaffer_testkit::{Node, process, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Victims {
    daemon: bool,
    shim: bool,
    guard: bool,
}

const DAEMON: Victims = Victims {
    daemon: true,
    shim: false,
    guard: false,
};
const SHIM: Victims = Victims {
    daemon: false,
    shim: true,
    guard: false,
};
const DAEMON_AND_SHIM: Victims = Victims {
    daemon: true,
    shim: true,
    guard: false,
};
const SHIM_AND_GUARD: Victims = Victims {
    daemon: false,
    shim: true,
    guard: true,
};
const ALL: Victims = Victims {
    daemon: true,
    shim: true,
    guard: true,
};

/// A node that stands still at a step once it is armed.
struct Scene {
    node: Node,
    files: tempfile::TempDir,
    shim: process::Process,
    guard: process::Process,
}

impl Scene {
    /// With a job `other` that runs already, so that its session has a shim.
    fn prepare(step: u32) -> Scene {
        let files = tempfile::tempdir().expect("a directory");
        let who = if step < 2 {
            "GAFFER_DAEMON_HALT"
        } else {
            "GAFFER_SHIM_HALT"
        };
        let value = format!("{step}:{}", files.path().join("armed").display());
        let mut node = Node::builder().env(who, &value).start();
        let fixture = node.fixture();
        node.put_job("default", "other", &json!({ "cmd": [fixture, "idle"] }));
        node.wait_job("default", "other", SOON, |job| job["state"] == "running");
        let info = node.get("/v1/node");
        let read = |key: &str| {
            let pid = info["shims"][0][key]
                .as_u64()
                .and_then(|pid| u32::try_from(pid).ok());
            pid.and_then(process::Process::read).expect("it lives")
        };
        let (shim, guard) = (read("pid"), read("guard_pid"));
        Scene {
            node,
            files,
            shim,
            guard,
        }
    }

    /// Each copy of the job writes one line here before it becomes its program.
    fn marker(&self) -> PathBuf {
        self.files.path().join("copies")
    }

    fn copies(&self) -> usize {
        let text = std::fs::read_to_string(self.marker()).unwrap_or_default();
        text.lines().count()
    }

    /// Empty cgroups are removed, not only left alone.
    fn wait_for_groups(&self) {
        wait_until(SOON, "no cgroup but that of the live run", || {
            groups(&self.node).len() <= 1
        });
    }

    fn arm(&self) {
        std::fs::write(self.files.path().join("armed"), "").expect("the stop is armed");
    }

    /// Asks for a job and returns when somebody stands still, or at once when nobody is armed.
    fn put(&mut self, spec: &Value, arm: bool) -> UnixStream {
        if arm {
            self.arm();
        }
        let stream = put_unanswered(&self.node, "web", spec);
        if arm {
            wait_until(SOON, "somebody stands still", || !self.stopped().is_empty());
        }
        stream
    }

    /// Those who stand still.
    fn stopped(&self) -> Vec<process::Process> {
        let mut all = self.node.pids();
        all.retain(|one| one.state == 'T');
        all
    }

    fn kill(&mut self, victims: Victims) {
        if victims.shim && victims.guard {
            // Neither may see the other die.
            signal(&self.guard, Signal::STOP);
        }
        if victims.daemon {
            self.node.kill9();
        }
        if victims.shim {
            process::kill(&self.shim);
        }
        if victims.guard {
            process::kill(&self.guard);
        }
    }

    fn go_on(&mut self, victims: Victims) {
        self.stopped().iter().for_each(|one| signal(one, Signal::CONT));
        if victims.daemon {
            self.node.start_again();
        }
    }

    /// The end of every case: what is wished for runs once, and every copy before it has an end on record.
    fn check(&mut self, victims: Victims, case: &str) {
        if victims.shim {
            // All runs of a dead shim are ended in one go: when the end of this one is on record, no copy that it began by an order
            // is about to be.
            let deadline = Instant::now() + SOON;
            while self.deaths("other").is_empty() {
                assert!(
                    Instant::now() < deadline,
                    "{case}: the end of other is not on record"
                );
            }
        }
        for job in ["web", "other"] {
            self.node
                .wait_job("default", job, SOON, |job| job["state"] == "running");
        }
        let (before, copies) = (self.deaths("web"), self.marker());
        wait_until(SOON, "the program", || copies.exists());
        self.wait_for_processes(2, case);
        assert!(
            self.copies() <= before.len() + 1,
            "{case}: {} copies, ends on record: {before:#?}",
            self.copies()
        );
        for death in &before {
            assert_ne!(death["exit_code"], json!(0), "{case}: an invented status");
        }
        let (status, answer) = self
            .node
            .http("POST", "/v1/jobs/default/web/stop?wait=20s", Some(&json!({})));
        assert_eq!(
            (status, &answer["state"]),
            (200, &json!("done")),
            "{case}: {answer:#}"
        );
        assert_eq!(self.node.job_processes().len(), 1, "{case}");
        let runs: BTreeSet<String> = self
            .deaths("web")
            .iter()
            .map(|death| death["run"].to_string())
            .collect();
        assert_eq!(runs.len(), before.len() + 1, "{case}: one record for each run");
    }

    /// Of jobs. Says which there are when it waits in vain.
    fn wait_for_processes(&self, wanted: usize, case: &str) {
        let deadline = Instant::now() + SOON;
        wait_until(2 * SOON, "the processes", || {
            let all = self.node.job_processes();
            assert!(Instant::now() < deadline, "{case}: {all:#?}");
            all.len() == wanted
        });
    }

    fn deaths(&mut self, job: &str) -> Vec<Value> {
        let list = self
            .node
            .get(&format!("/v1/jobs/default/{job}/deaths?limit=1000"));
        list.as_array().cloned().unwrap_or_default()
    }
}

fn signal(one: &process::Process, signal: Signal) {
    if let Some(handle) = process::Handle::open(one.pid) {
        handle.signal(signal);
    }
}

/// Groups of runs that exist.
fn groups(node: &Node) -> Vec<PathBuf> {
    let base = process::cgroup_base(&node.state_dir());
    let entries = base.map(std::fs::read_dir).into_iter().flatten().flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(|path| path.is_dir()).collect()
}

/// A `PUT` whose answer is not waited for: the daemon may stand still before it.
fn put_unanswered(node: &Node, job: &str, spec: &Value) -> UnixStream {
    let mut stream = UnixStream::connect(node.socket()).expect("the daemon");
    let body = spec.to_string();
    let head = format!(
        "PUT /v1/jobs/default/{job} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    );
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("it is sent");
    stream
}

/// A program that counts itself before it idles.
fn counted(node: &Node, marker: &Path) -> Value {
    let script = format!("echo $$ >> {}; exec {} idle", marker.display(), node.fixture());
    json!({ "cmd": ["/bin/sh", "-c", script], "retry": { "delay": "50ms", "jitter": 0 } })
}

fn spawn_matrix(victims: Victims) {
    for step in 0..=8 {
        let case = format!("step {step}, {victims:?}");
        println!("{case}");
        let mut scene = Scene::prepare(step);
        let spec = counted(&scene.node, &scene.marker());
        let _unanswered = scene.put(&spec, true);
        scene.kill(victims);
        scene.go_on(victims);
        scene.check(victims, &case);
        scene.wait_for_groups();
        if victims == DAEMON {
            assert_eq!(scene.copies(), 1, "{case}: nothing that runs is disturbed");
        }
    }
}

#[test]
fn hazard_04_the_daemon_is_killed_behind_every_step_of_a_spawn() {
    spawn_matrix(DAEMON);
}

#[test]
fn hazard_04_the_shim_is_killed_behind_every_step_of_a_spawn() {
    spawn_matrix(SHIM);
}

#[test]
fn hazard_04_daemon_and_shim_are_killed_behind_every_step_of_a_spawn() {
    spawn_matrix(DAEMON_AND_SHIM);
}

#[test]
fn hazard_04_shim_and_guard_are_killed_behind_every_step_of_a_spawn() {
    spawn_matrix(SHIM_AND_GUARD);
}

#[test]
fn hazard_04_everything_is_killed_behind_every_step_of_a_spawn() {
    spawn_matrix(ALL);
}

/// The next run is started by the shim itself, by an order that the daemon left beside the run before: from the peek at
/// the end of that one (9, 10) to the successor's own start.
fn order_matrix(victims: Victims) {
    for step in [9, 10, 2, 3, 4, 5, 6, 7, 8] {
        let case = format!("order, step {step}, {victims:?}");
        println!("{case}");
        let mut scene = Scene::prepare(step);
        let mut spec = counted(&scene.node, &scene.marker());
        spec["retry"] = json!({ "delay": "0s", "jitter": 0 });
        let _unanswered = scene.put(&spec, false);
        wait_until(SOON, "the first run", || {
            let (_, job) = scene.node.http("GET", "/v1/jobs/default/web", None);
            job["state"] == "running" && scene.copies() == 1
        });
        let job = scene.node.get("/v1/jobs/default/web");
        let pid = job["instances"][0]["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok());
        let first = pid.and_then(process::Process::read).expect("it lives");
        scene.arm();
        process::kill(&first);
        wait_until(SOON, "somebody stands still", || !scene.stopped().is_empty());
        scene.kill(victims);
        scene.go_on(victims);
        wait_until(SOON, "the second run", || scene.copies() >= 2);
        scene.check(victims, &case);
        // One that was made for an order of a dead shim is on no file: the next daemon sweeps it.
        scene.node.restart();
        scene.wait_for_groups();
    }
}

#[test]
fn hazard_04_the_daemon_is_killed_behind_every_step_of_a_standing_order() {
    order_matrix(DAEMON);
}

#[test]
fn hazard_04_the_shim_is_killed_behind_every_step_of_a_standing_order() {
    order_matrix(SHIM);
}

#[test]
fn hazard_04_daemon_and_shim_are_killed_behind_every_step_of_a_standing_order() {
    order_matrix(DAEMON_AND_SHIM);
}

#[test]
fn hazard_04_shim_and_guard_are_killed_behind_every_step_of_a_standing_order() {
    order_matrix(SHIM_AND_GUARD);
}

#[test]
fn hazard_04_everything_is_killed_behind_every_step_of_a_standing_order() {
    order_matrix(ALL);
}

/// The shim is frozen, so that the `Spawn` stays in its socket buffer.
#[test]
fn hazard_57_a_spawn_that_was_sent_but_not_read_is_never_a_second_copy() {
    for victims in [DAEMON, SHIM, DAEMON_AND_SHIM, SHIM_AND_GUARD, ALL] {
        let mut scene = Scene::prepare(99);
        let spec = counted(&scene.node, &scene.marker());
        signal(&scene.shim, Signal::STOP);
        let _unanswered = scene.put(&spec, false);
        wait_until(SOON, "the start is decided", || {
            let (status, job) = scene.node.http("GET", "/v1/jobs/default/web", None);
            status == 200 && job["state"] == "starting"
        });
        scene.kill(victims);
        if victims.daemon {
            // Before the shim goes on: the new daemon must be in charge when the old request is read.
            scene.node.start_again();
        }
        scene.go_on(Victims {
            daemon: false,
            ..victims
        });
        scene.check(victims, &format!("unread, {victims:?}"));
        if victims == DAEMON {
            assert_eq!(scene.copies(), 1);
        }
    }
}

/// Behind the peek (9), and behind the record but before the reaping (10).
#[test]
fn hazard_58_whoever_is_killed_around_an_exit_it_is_on_record_once_and_true() {
    for step in [9, 10] {
        for victims in [DAEMON, SHIM, DAEMON_AND_SHIM, SHIM_AND_GUARD, ALL] {
            let case = format!("step {step}, {victims:?}");
            let mut scene = Scene::prepare(step);
            let fixture = scene.node.fixture();
            let spec = json!({ "cmd": [fixture, "exit", "7"], "restart": "never" });
            let _unanswered = scene.put(&spec, true);
            scene.kill(victims);
            scene.go_on(victims);
            let deaths = wait_for(SOON, "the death", || {
                Some(scene.deaths("web")).filter(|list| !list.is_empty())
            });
            assert_eq!(deaths.len(), 1, "{case}: {deaths:#?}");
            let unseen = step == 9 && victims.guard;
            let (code, cause) = (&deaths[0]["exit_code"], &deaths[0]["cause"]);
            let seen = (code, cause) == (&json!(7), &json!("exit"));
            let unknown = (code, cause) == (&Value::Null, &json!("unknown"));
            assert!(seen || (unseen && unknown), "{case}: {:#}", deaths[0]);
            wait_until(SOON, "one process is left", || {
                scene.node.job_processes().len() == 1
            });
        }
    }
}
