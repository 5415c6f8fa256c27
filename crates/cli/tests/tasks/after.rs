//! Jobs that come after tasks, tasks that start by themselves, and daemons that are killed meanwhile.

use crate::{SOON, said};
use gaffer_testkit::node::Node;
use gaffer_testkit::process::Handle;
use gaffer_testkit::wait_until;
use rustix::process::Signal;
use serde_json::Value;
use std::path::PathBuf;

/// A node with a folder for a file and for what its programs write.
pub(crate) struct Shop {
    pub node: Node,
    pub work: PathBuf,
}

impl Shop {
    pub fn new() -> Shop {
        let node = Node::start();
        let work = node.root().join("work");
        std::fs::create_dir(&work).expect("a folder");
        Shop { node, work }
    }

    pub fn write(&self, text: &str) -> String {
        let file = self.work.join("gaffer.toml");
        let text = text.replace("WORK", &self.work.to_string_lossy());
        std::fs::write(&file, text).expect("a file");
        file.to_string_lossy().into_owned()
    }

    /// Applies a file and does not wait for what comes of it.
    #[track_caller]
    pub fn apply(&self, text: &str) -> String {
        let file = self.write(text);
        let output = self.node.cli(&["apply", "-f", &file, "-y", "--no-wait"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        said(&output)
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.work.join(file)).unwrap_or_default()
    }

    pub fn touch(&self, file: &str) {
        std::fs::write(self.work.join(file), "").expect("a file");
    }

    /// The only instance of a job.
    fn instance(&mut self, job: &str) -> Value {
        let job = self.node.get(&format!("/v1/jobs/default/{job}"));
        job["instances"][0].clone()
    }

    fn state(&mut self, job: &str) -> (String, String) {
        let instance = self.instance(job);
        let text = |key: &str| instance[key].as_str().unwrap_or_default().to_owned();
        (text("state"), text("reason"))
    }

    #[track_caller]
    fn until(&mut self, job: &str, state: &str, reason: &str) {
        let mut last = Default::default();
        wait_until(SOON, &format!("{job} {state} {reason}"), || {
            last = self.state(job);
            last.0 == state && last.1.contains(reason)
        });
    }

    pub fn again(&mut self) {
        self.node.kill9();
        self.node.start_again();
    }

    /// The newest run of the task, as `task ls` has it.
    fn newest(&self) -> Value {
        let output = self.node.cli(&["task", "--json", "ls"]);
        let all: Value = serde_json::from_slice(&output.stdout).expect("a list");
        all.as_array()
            .and_then(|all| all.last().cloned())
            .unwrap_or_default()
    }
}

/// A task that tells each of its runs, and waits for a file; and a job that comes after it.
const RELEASE: &str = r#"
[job.worker]
cmd = "sleep 1000"
after = ["migrate"]
[task.migrate]
cmd = ["sh", "-c", "echo V1 >> WORK/begun; until test -e WORK/go; do sleep 0.02; done; echo V1 >> WORK/done"]
"#;

#[test]
fn a_job_waits_for_its_task_and_no_killed_daemon_makes_it_run_again() {
    let mut shop = Shop::new();
    let told = shop.apply(RELEASE);
    assert!(
        told.contains("migrate") && told.contains("runs by itself, once"),
        "{told}"
    );
    wait_until(SOON, "the task", || shop.read("begun") == "V1\n");
    shop.until("worker", "waiting", "waiting for migrate: active for");
    let (_, plan) = shop.node.http("GET", "/v1/jobs/default/worker", None);
    assert_eq!(plan["instances"][0]["reason_code"], "dependency");
    let why = said(&shop.node.cli(&["why", "worker"]));
    assert!(why.contains("waiting for migrate: active for"), "{why}");
    shop.again();
    shop.until("worker", "waiting", "waiting for migrate: active for");
    shop.touch("go");
    shop.until("worker", "running", "");
    let pid = shop.instance("worker")["pid"].clone();
    for _ in 0..2 {
        shop.again();
        shop.until("worker", "running", "");
    }
    assert_eq!(shop.instance("worker")["pid"], pid, "it was adopted");
    let told = shop.apply(RELEASE);
    assert!(!told.contains("migrate"), "nothing has changed: {told}");
    assert_eq!(
        (shop.read("begun"), shop.read("done")),
        ("V1\n".into(), "V1\n".into())
    );
    // Whatever becomes of its job: it is done.
    let output = shop.node.cli(&["restart", "worker"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(shop.read("begun"), "V1\n");
    shop.node.stop(SOON);
}

#[test]
fn every_definition_is_run_once_however_soon_the_daemon_is_killed() {
    let mut shop = Shop::new();
    shop.touch("go");
    let mut expected = String::new();
    for n in 0..6 {
        shop.apply(&RELEASE.replace("V1", &format!("n{n}")));
        if n % 3 != 2 {
            shop.again();
        }
        expected.push_str(&format!("n{n}\n"));
        wait_until(SOON, "its run", || shop.read("done") == expected);
        shop.again();
        shop.until("worker", "running", "");
    }
    assert_eq!(shop.read("begun"), expected, "each began once");
    // Back to what there was: that is a change too.
    shop.apply(&RELEASE.replace("V1", "n0"));
    wait_until(SOON, "one more", || {
        shop.read("done") == format!("{expected}n0\n")
    });
    shop.node.stop(SOON);
}

#[test]
fn a_task_that_failed_holds_its_job_back_until_somebody_runs_it_again() {
    let mut shop = Shop::new();
    let text = r#"
[job.worker]
cmd = "sleep 1000"
after = { "task:migrate" = "done" }
[job.cleaner]
cmd = "sleep 1000"
after = { "task:migrate" = "ended" }
[task.migrate]
cmd = "test -e WORK/good"
"#;
    let file = shop.write(text);
    let applied = shop.node.cli(&["apply", "-f", &file, "-y"]);
    assert_eq!(applied.status.code(), Some(1), "{}", said(&applied));
    assert!(
        said(&applied).contains("waiting for migrate: failed"),
        "{}",
        said(&applied)
    );
    shop.until("cleaner", "running", "");
    let id = shop.newest()["id"].as_str().unwrap_or_default().to_owned();
    let hint = format!("ago; run it again: gaffer task retry {id}");
    shop.until("worker", "waiting", &hint);
    shop.again();
    shop.until("worker", "waiting", &hint);
    shop.touch("good");
    let again = shop.node.cli(&["task", "retry", &id]);
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    shop.until("worker", "running", "");
    shop.node.stop(SOON);
}

#[test]
fn the_old_runs_serve_until_the_new_definition_of_the_task_is_done() {
    let mut shop = Shop::new();
    shop.touch("go");
    shop.apply(RELEASE);
    shop.until("worker", "running", "");
    let old = shop.instance("worker")["pid"].clone();
    std::fs::remove_file(shop.work.join("go")).expect("it is there");
    let next = RELEASE.replace("V1", "V2").replace("sleep 1000", "sleep 2000");
    shop.apply(&next);
    wait_until(SOON, "the new run of the task", || {
        shop.read("begun") == "V1\nV2\n"
    });
    assert_eq!(shop.instance("worker")["pid"], old);
    shop.again();
    wait_until(SOON, "the daemon", || shop.state("worker").0 == "running");
    assert_eq!(shop.instance("worker")["pid"], old, "still");
    shop.touch("go");
    wait_until(SOON, "the new run of the job", || {
        let now = shop.instance("worker");
        now["state"] == "running" && now["pid"] != old
    });
    assert_eq!(shop.read("done"), "V1\nV2\n");
    shop.node.stop(SOON);
}

#[test]
fn a_task_comes_after_a_job_and_a_job_after_that() {
    let mut shop = Shop::new();
    let text = RELEASE.replace("[task.migrate]", "[task.migrate]\nafter = [\"redis\"]")
        + "[job.redis]\ncmd = \"sleep 1000\"\nready.cmd = \"test -e WORK/up\"\nready.every = \"50ms\"\n";
    shop.touch("go");
    shop.apply(&text);
    shop.until("worker", "waiting", "waiting for migrate: active for");
    let newest = shop.newest();
    let reason = newest["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("waiting for redis: starting for"), "{newest}");
    assert_eq!(shop.read("begun"), "", "no step begins");
    shop.again();
    assert_eq!(shop.read("begun"), "");
    shop.touch("up");
    shop.until("worker", "running", "");
    assert_eq!(shop.read("begun"), "V1\n");
    shop.node.stop(SOON);
}

#[test]
fn a_task_that_waits_can_be_killed_and_does_nothing() {
    let mut shop = Shop::new();
    let text = RELEASE.replace("[task.migrate]", "[task.migrate]\nafter = [\"redis\"]")
        + "[job.redis]\ncmd = \"sleep 1000\"\nstart = false\n";
    shop.apply(&text);
    shop.until("worker", "waiting", "waiting for migrate: active for");
    let id = shop.newest()["id"].as_str().unwrap_or_default().to_owned();
    let killed = shop.node.cli(&["task", "kill", &id]);
    assert_eq!(killed.status.code(), Some(0), "{}", said(&killed));
    shop.until("worker", "waiting", "waiting for migrate: killed");
    assert_eq!(shop.read("begun"), "");
    shop.node.stop(SOON);
}

#[test]
fn a_run_of_the_old_definition_is_waited_for_before_the_new_one_begins() {
    let mut shop = Shop::new();
    shop.apply(RELEASE);
    wait_until(SOON, "the task", || shop.read("begun") == "V1\n");
    shop.apply(&RELEASE.replace("V1", "V2"));
    shop.until("worker", "waiting", "waiting for migrate: about to start");
    assert_eq!(shop.read("begun"), "V1\n", "never two at once");
    shop.again();
    shop.until("worker", "waiting", "waiting for migrate: about to start");
    shop.touch("go");
    shop.until("worker", "running", "");
    assert_eq!(shop.read("begun"), "V1\nV2\n");
    shop.node.stop(SOON);
}

#[test]
fn without_start_a_task_is_started_by_hand() {
    let mut shop = Shop::new();
    shop.touch("go");
    shop.apply(&RELEASE.replace("[task.migrate]", "[task.migrate]\nstart = false"));
    shop.until("worker", "waiting", "waiting for migrate: it has not run yet");
    shop.again();
    shop.until("worker", "waiting", "waiting for migrate: it has not run yet");
    let started = shop.node.cli(&["task", "start", "migrate"]);
    assert_eq!(started.status.code(), Some(0), "{}", said(&started));
    shop.until("worker", "running", "");
    // A step that is killed is not the job's business.
    let pid = shop.instance("worker")["pid"].as_u64().unwrap_or_default();
    let worker = Handle::open(u32::try_from(pid).unwrap_or_default()).expect("it lives");
    assert!(worker.signal(Signal::KILL));
    wait_until(SOON, "its next run", || shop.instance("worker")["restarts"] == 1);
    shop.until("worker", "running", "");
    assert_eq!(shop.read("begun"), "V1\n");
    shop.node.stop(SOON);
}

#[test]
fn tasks_that_start_by_themselves_start_in_the_order_of_their_priorities() {
    let mut shop = Shop::new();
    let task = |name: &str, priority: i32| {
        format!("[task.{name}]\ncmd = \"sleep 1000\"\nstart = true\npriority = {priority}\n")
    };
    shop.apply(&[task("a", 2), task("b", -1), task("c", 1), task("d", 0)].concat());
    let subjects = |shop: &mut Shop, event: &str| {
        let text = shop
            .node
            .request("GET", &format!("/v1/events?filter={event}"), None)
            .text();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines = lines.filter(|line| line["event"] == event);
        let first = |line: Value| line["data"]["task"].as_str()?.get(..1).map(str::to_owned);
        lines.filter_map(first).collect::<Vec<_>>()
    };
    wait_until(SOON, "all run", || subjects(&mut shop, "step.started").len() == 4);
    assert_eq!(subjects(&mut shop, "task.accepted"), ["b", "d", "c", "a"]);
    // The order is no part of what a task is: nothing runs again.
    let plan = shop.apply(&[task("a", -5), task("b", -1), task("c", 1), task("d", 0)].concat());
    assert!(plan.contains("priority"), "{plan}");
    assert_eq!(subjects(&mut shop, "task.accepted").len(), 4);
    shop.node.stop(SOON);
}
