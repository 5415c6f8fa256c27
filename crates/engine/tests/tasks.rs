//! Tasks on a real engine with real processes; an engine that is dropped leaves everything as a killed daemon does.

use gaffer::task::layout::Place;
use gaffer::task::{Definition, NewTask, TaskInfo, TaskKill};
use gaffer::{Engine, Handle, Settings, TasksLed};
use gaffer_config::{ThermosContext, load_thermos_json};
use gaffer_core::task::record::{Record, TaskState};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

struct Node {
    dir: tempfile::TempDir,
    engine: Option<Engine>,
}

impl Node {
    async fn new() -> Node {
        let dir = tempfile::tempdir().expect("a directory");
        let mut node = Node { dir, engine: None };
        node.open().await;
        node
    }

    async fn open(&mut self) {
        let settings = Settings::new(self.dir.path().join("state"));
        self.engine = Some(Engine::open(settings).await.expect("an engine"));
    }

    /// As a SIGKILL would: no word to anybody.
    async fn crash_and_open(&mut self) {
        drop(self.engine.take());
        self.open().await;
    }

    fn handle(&self) -> Handle {
        self.engine.as_ref().expect("open").handle()
    }

    fn sandbox(&self) -> String {
        self.dir.path().join("sandbox").to_string_lossy().into_owned()
    }

    fn new_task(&self, id: &str, task: &Value) -> NewTask {
        let context = ThermosContext {
            task_id: id.into(),
            user: "root".into(),
            sandbox: self.sandbox(),
            ..ThermosContext::default()
        };
        let definition: Definition = load_thermos_json(task, &context).expect("a task").into();
        NewTask {
            retry: None,
            id: id.into(),
            definition,
            sandbox: self.sandbox(),
            user: "root".into(),
            log_dir: None,
            ports: Vec::new(),
        }
    }

    async fn start(&self, id: &str, task: &Value) {
        let new = self.new_task(id, task);
        self.handle()
            .task_start(new, "a test".into())
            .await
            .expect("accepted");
    }

    async fn over(&self, id: &str) -> TaskInfo {
        let info = self.handle().task_wait(id, LONG).await.expect("a task");
        assert_eq!(info.place, Place::Finished, "{:?}", info.view);
        info
    }

    /// Waits until a step's last run is in a state.
    async fn step_is(&self, id: &str, step: &str, state: &str) -> TaskInfo {
        let wait = async {
            loop {
                let info = self.handle().task(id).await.expect("a task");
                if info
                    .history
                    .last(step)
                    .is_some_and(|run| run.state.word() == state)
                {
                    return info;
                }
                let _late =
                    tokio::time::timeout(Duration::from_millis(200), self.handle().tasks_changed()).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.expect("in time")
    }

    async fn kill(&self, id: &str, hard: bool) {
        let kill = TaskKill {
            state: TaskState::Killed,
            grace: None,
            hard,
        };
        self.handle()
            .task_kill(id, kill, &"ana".into())
            .await
            .expect("asked");
    }

    async fn end(mut self) {
        self.handle().shutdown(false, false, "a test".into()).await;
        drop(self.engine.take());
    }
}

fn task(processes: Value, constraints: Value) -> Value {
    json!({ "name": "t", "processes": processes, "constraints": constraints })
}

fn story(info: &TaskInfo, step: &str) -> String {
    let runs = info.history.steps.get(step).map_or(&[][..], |runs| &runs[..]);
    let code = |code: Option<i32>| code.map_or("-".into(), |code| code.to_string());
    let words: Vec<String> = runs
        .iter()
        .map(|run| format!("{}:{}", run.state.upper(), code(run.code)))
        .collect();
    words.join(" ")
}

#[tokio::test]
async fn r01_steps_run_in_order_and_the_task_succeeds() {
    let node = Node::new().await;
    let steps = json!([
        {"name": "a", "cmdline": "echo a >> order"},
        {"name": "b", "cmdline": "echo b >> order"},
        {"name": "c", "cmdline": "echo c >> order; echo out; echo err >&2"},
        {"name": "f", "cmdline": "echo f >> order", "final": true},
    ]);
    node.start("t-1", &task(steps, json!([{"order": ["a", "b", "c"]}])))
        .await;
    let info = node.over("t-1").await;
    assert_eq!(info.view.state, TaskState::Success);
    let order = std::fs::read_to_string(Path::new(&node.sandbox()).join("order")).expect("written");
    assert_eq!(order, "a\nb\nc\nf\n");
    for step in ["a", "b", "c", "f"] {
        assert_eq!(story(&info, step), "SUCCESS:0");
        let run = &info.history.steps[step][0];
        assert!(run.forked <= run.started && run.started <= run.ended && run.pid.is_some());
    }
    let states: Vec<&str> = info
        .history
        .statuses
        .iter()
        .map(|status| status.state.upper())
        .collect();
    assert_eq!(states, ["ACTIVE", "CLEANING", "FINALIZING", "SUCCESS"]);
    node.end().await;
}

#[tokio::test]
async fn r05_failures_are_tried_again_and_fail_the_task_when_they_are_used_up() {
    let node = Node::new().await;
    let once = "test -e mark && exit 0; touch mark; exit 3";
    let steps = json!([{"name": "a", "cmdline": once, "max_failures": 2, "min_duration": 0}]);
    node.start("good", &task(steps, json!([]))).await;
    let info = node.over("good").await;
    assert_eq!(info.view.state, TaskState::Success);
    assert_eq!(story(&info, "a"), "FAILED:3 SUCCESS:0");

    let steps = json!([
        {"name": "a", "cmdline": "exit 4"},
        {"name": "b", "cmdline": "true"},
        {"name": "s", "cmdline": "sleep 600"},
    ]);
    node.start("bad", &task(steps, json!([{"order": ["a", "b"]}])))
        .await;
    let info = node.over("bad").await;
    assert_eq!(info.view.state, TaskState::Failed);
    assert_eq!(
        (story(&info, "a"), story(&info, "b")),
        ("FAILED:4".into(), String::new())
    );
    assert_eq!(story(&info, "s"), "KILLED:-15");
    node.end().await;
}

#[tokio::test]
async fn r07_a_run_outlives_its_runner_and_is_adopted() {
    let mut node = Node::new().await;
    let steps = json!([
        {"name": "a", "cmdline": "while ! test -e go; do sleep 0.05; done; exit 0"},
        {"name": "b", "cmdline": "echo b >> done"},
    ]);
    node.start("t", &task(steps, json!([{"order": ["a", "b"]}])))
        .await;
    let before = node.step_is("t", "a", "running").await;
    node.crash_and_open().await;
    std::fs::write(Path::new(&node.sandbox()).join("go"), "").expect("written");
    let info = node.over("t").await;
    assert_eq!(info.view.state, TaskState::Success);
    assert_eq!(story(&info, "a"), "SUCCESS:0");
    assert_eq!(
        info.history.steps["a"][0].started,
        before.history.steps["a"][0].started
    );
    let active = info
        .history
        .statuses
        .iter()
        .filter(|status| status.state == TaskState::Active);
    assert_eq!(active.count(), 2);
    node.end().await;
}

#[tokio::test]
async fn r08_what_ended_while_nobody_led_is_taken_over_and_not_run_again() {
    let mut node = Node::new().await;
    let cmd = "while ! test -e go; do sleep 0.05; done; echo a >> ran; exit 5";
    let steps = json!([{"name": "a", "cmdline": cmd}]);
    node.start("t", &task(steps, json!([]))).await;
    node.step_is("t", "a", "running").await;
    drop(node.engine.take());
    let sandbox = node.sandbox();
    std::fs::write(Path::new(&sandbox).join("go"), "").expect("written");
    let ran = Path::new(&sandbox).join("ran");
    gaffer_testkit::wait_until(LONG, "it runs on", || ran.exists());
    node.open().await;
    let info = node.over("t").await;
    assert_eq!(info.view.state, TaskState::Failed);
    assert_eq!(story(&info, "a"), "FAILED:5");
    assert_eq!(std::fs::read_to_string(&ran).expect("read"), "a\n");
    node.end().await;
}

#[tokio::test]
async fn r08_an_end_between_recovery_and_the_lead_is_not_missed() {
    let mut node = Node::new().await;
    let cmd = "while ! test -e go; do sleep 0.05; done; echo a >> ran; exit 5";
    let steps = task(json!([{"name": "a", "cmdline": cmd}]), json!([]));
    node.start("t", &steps).await;
    node.step_is("t", "a", "running").await;
    drop(node.engine.take());
    // A node that leads a task only when it is asked to.
    let mut settings = Settings::new(node.dir.path().join("state"));
    settings.tasks_led = TasksLed::Only("t".into());
    node.engine = Some(Engine::open(settings).await.expect("an engine"));
    std::fs::write(Path::new(&node.sandbox()).join("go"), "").expect("written");
    let read = async {
        while !node.handle().live_runs().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, read).await.expect("its end is read");
    let ran = Path::new(&node.sandbox()).join("ran");
    gaffer_testkit::wait_until(LONG, "it ran", || ran.exists());
    node.start("t", &steps).await;
    let info = node.over("t").await;
    assert_eq!(story(&info, "a"), "FAILED:5");
    node.end().await;
}

#[tokio::test]
async fn the_runs_of_a_task_that_cannot_be_read_are_left_alone() {
    let mut node = Node::new().await;
    let cmd = "while ! test -e go; do sleep 0.05; done";
    node.start("t", &task(json!([{"name": "a", "cmdline": cmd}]), json!([])))
        .await;
    let before = node.step_is("t", "a", "running").await;
    let pid = before.history.steps["a"][0].pid.expect("a pid");
    let file = node.handle().tasks_root().task("t", Place::Active);
    let definition = std::fs::read(&file).expect("a definition");
    std::fs::write(&file, "not a task").expect("written");
    node.crash_and_open().await;
    assert!(node.handle().task("t").await.is_err());
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "it lives on");
    std::fs::write(&file, definition).expect("written");
    node.crash_and_open().await;
    std::fs::write(Path::new(&node.sandbox()).join("go"), "").expect("written");
    let info = node.over("t").await;
    assert_eq!(story(&info, "a"), "SUCCESS:0");
    node.end().await;
}

#[tokio::test]
async fn k07_a_kill_ends_the_steps_and_runs_the_final_ones() {
    let node = Node::new().await;
    let steps = json!([
        {"name": "a", "cmdline": "sleep 600 & wait"},
        {"name": "f", "cmdline": "echo f >> final", "final": true},
    ]);
    node.start("t", &task(steps, json!([]))).await;
    node.step_is("t", "a", "running").await;
    node.kill("t", false).await;
    let info = node.over("t").await;
    assert_eq!(info.view.state, TaskState::Killed);
    assert_eq!(story(&info, "a"), "KILLED:-15");
    assert_eq!(story(&info, "f"), "SUCCESS:0");
    assert_eq!(info.view.reason.as_deref(), Some("killed by ana"));
    node.end().await;
}

#[tokio::test]
async fn r13_the_same_id_with_another_definition_is_refused() {
    let node = Node::new().await;
    let steps = |cmd: &str| task(json!([{"name": "a", "cmdline": cmd}]), json!([]));
    node.start("t", &steps("sleep 600")).await;
    node.step_is("t", "a", "running").await;
    let other = node.new_task("t", &steps("true"));
    let refused = node.handle().task_start(other, "a test".into()).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("another definition")));
    node.kill("t", true).await;
    let info = node.over("t").await;
    assert_eq!(story(&info, "a"), "KILLED:-9");
    node.end().await;
}

#[tokio::test]
async fn x07_what_cannot_be_started_fails_with_a_reason() {
    let node = Node::new().await;
    let steps = json!([{"name": "a", "cmdline": "true", "max_failures": 2, "min_duration": 0}]);
    let mut new = node.new_task("t", &task(steps, json!([])));
    new.sandbox = node.dir.path().join("other").to_string_lossy().into_owned();
    node.handle()
        .task_start(new, "a test".into())
        .await
        .expect("accepted");
    let info = node.over("t").await;
    assert_eq!(story(&info, "a"), "FAILED:126 FAILED:126");
    let reason = info.history.steps["a"][0].reason.as_deref().expect("a reason");
    assert!(reason.contains("cannot enter"), "{reason}");
    node.end().await;
}

/// What is accepted can be led by whoever comes next, whatever becomes of this daemon: its header is on disk by then.
#[tokio::test]
async fn an_accepted_task_has_its_header_on_disk() {
    let node = Node::new().await;
    for n in 0..20 {
        let id = format!("t-{n}");
        let new = node.new_task(&id, &task(json!([{"name": "a", "cmdline": "true"}]), json!([])));
        let stream = node.handle().tasks_root().runner(&id);
        node.handle()
            .task_start(new, "a test".into())
            .await
            .expect("accepted");
        let records = gaffer::task::stream::read(&stream).expect("a stream").records;
        assert!(
            matches!(records.first(), Some(Record::Header(_))),
            "{id}: {records:?}"
        );
        node.over(&id).await;
    }
    node.end().await;
}
