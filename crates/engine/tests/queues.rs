//! Handlers of this process on a real engine; an engine that is dropped leaves everything as a killed program does.

use gaffer::queue::{HandlerError, NewPush, QueueTask, TaskOutcome};
use gaffer::{Engine, Handle, Settings};
use gaffer_core::name::JobId;
use gaffer_core::queue::task::{TaskId, TaskState};
use gaffer_testkit::wait_until;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

struct Node {
    dir: tempfile::TempDir,
    engine: Option<Engine>,
}

impl Node {
    async fn new(queue: &str) -> Node {
        let dir = tempfile::tempdir().expect("a directory");
        let mut node = Node { dir, engine: None };
        node.open().await;
        node.apply(queue).await;
        node
    }

    async fn open(&mut self) {
        let settings = Settings::new(self.dir.path().join("state"));
        self.engine = Some(Engine::open(settings).await.expect("an engine"));
    }

    /// As a SIGKILL would: no word to anybody.
    async fn crash_and_open(&mut self) {
        drop(self.engine.take());
        // The threads of the store end with the last handle; the lock of the file says when.
        let lock = self.dir.path().join("state/queue.db-owner");
        let free = || {
            let file = std::fs::File::open(&lock).expect("the lock");
            rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
        };
        until("the file of the queues is free", free);
        self.open().await;
    }

    async fn apply(&self, queue: &str) {
        let root = self.dir.path().join("gaffer.toml");
        let bundle = gaffer_config::Bundle {
            files: BTreeMap::from([(
                root.clone(),
                format!("[queue.q]\nretry.delay = \"10ms\"\n{queue}"),
            )]),
            root,
            ..gaffer_config::Bundle::default()
        };
        let source = gaffer::info::ApplySource::Files(Box::new(bundle));
        let options = gaffer::info::ApplyOptions::default();
        self.handle()
            .apply(source, options, "test".into())
            .await
            .expect("applied");
    }

    fn handle(&self) -> Handle {
        self.engine.as_ref().expect("open").handle()
    }

    async fn push(&self, payload: Value) -> TaskId {
        let push = NewPush {
            payload,
            ..NewPush::default()
        };
        let pushed = self.handle().queue_push(&queue(), &[push], "test".into()).await;
        pushed.expect("pushed")[0].id
    }

    async fn ended(&self, id: TaskId) -> TaskOutcome {
        let ended = self.handle().queue_wait(id, LONG).await.expect("a task");
        ended.expect("it has ended")
    }
}

/// Waits on this thread, which the runtime replaces meanwhile.
fn until(what: &str, is_so: impl Fn() -> bool) {
    tokio::task::block_in_place(|| wait_until(LONG, what, is_so));
}

fn queue() -> JobId {
    JobId::parse("q").expect("a name")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_gets_what_was_pushed_and_its_result_is_kept() {
    let node = Node::new("keep.result = \"1h\"").await;
    let early = node.push(json!({ "n": 1 })).await;
    let handler = |task: QueueTask| async move {
        let n = task.payload["n"]
            .as_i64()
            .ok_or(HandlerError::Fatal("no n".to_owned()))?;
        Ok(json!({ "twice": n * 2, "attempt": task.attempt }))
    };
    node.handle().queue_handler(&queue(), handler).expect("taken");
    let late = node.push(json!({ "n": 21 })).await;
    assert_eq!(
        node.ended(early).await.result.as_deref(),
        Some(r#"{"twice":2,"attempt":1}"#)
    );
    assert_eq!(
        node.ended(late).await.result.as_deref(),
        Some(r#"{"twice":42,"attempt":1}"#)
    );
    let wrong = node.push(json!([])).await;
    let wrong = node.ended(wrong).await;
    assert_eq!((wrong.state, wrong.attempt), (TaskState::Dead, 1));
    assert_eq!(wrong.failure.map(|failure| failure.message), Some("no n".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_and_panics_are_tried_again() {
    let node = Node::new("retry.attempts = 5").await;
    let tried = Arc::new(AtomicUsize::new(0));
    let count = tried.clone();
    let handler = move |task: QueueTask| {
        let count = count.clone();
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            match task.attempt {
                1 => Err("x".parse::<u32>().expect_err("no number").into()),
                2 => panic!("oh no"),
                3 => Err(HandlerError::RetryAfter(
                    "later".to_owned(),
                    Duration::from_millis(20),
                )),
                _ => Ok(Value::Null),
            }
        }
    };
    node.handle().queue_handler(&queue(), handler).expect("taken");
    let id = node.push(json!(1)).await;
    let ended = node.ended(id).await;
    assert_eq!((ended.state, ended.attempt), (TaskState::Done, 4));
    assert_eq!(tried.load(Ordering::SeqCst), 4);
    let task = node.handle().queue_task(id).await.expect("kept for a minute");
    let said: Vec<String> = task
        .attempts
        .iter()
        .filter_map(|attempt| attempt.error.as_ref())
        .map(|error| format!("{}: {}", error.kind, error.message))
        .collect();
    assert_eq!(
        said,
        [
            "handler: invalid digit found in string",
            "panic: oh no",
            "handler: later"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_are_at_work_than_there_are_workers() {
    let node = Node::new("workers = 3").await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (at_work, seen) = (now.clone(), most.clone());
    let meet = Arc::new(tokio::sync::Barrier::new(3));
    let handler = move |_task| {
        let (at_work, seen, meet) = (at_work.clone(), seen.clone(), meet.clone());
        async move {
            let count = at_work.fetch_add(1, Ordering::SeqCst) + 1;
            seen.fetch_max(count, Ordering::SeqCst);
            // Three have to be here at once, or none goes on.
            meet.wait().await;
            at_work.fetch_sub(1, Ordering::SeqCst);
            Ok(Value::Null)
        }
    };
    node.handle().queue_handler(&queue(), handler).expect("taken");
    let mut all = Vec::new();
    for n in 0..30 {
        all.push(node.push(json!(n)).await);
    }
    for id in all {
        assert_eq!(node.ended(id).await.state, TaskState::Done);
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_asked_to_end_and_then_dropped() {
    let node = Node::new("stop.timeout = \"200ms\"").await;
    let said = Arc::new(Mutex::new(Vec::new()));
    let notes = said.clone();
    let handler = move |task: QueueTask| {
        let notes = notes.clone();
        async move {
            let note = |text: &str| notes.lock().expect("no panic").push(text.to_owned());
            note("begun");
            task.cancelled().await;
            note("asked");
            if task.payload == json!("polite") {
                return Err(HandlerError::Cancelled);
            }
            std::future::pending::<()>().await;
            Ok(Value::Null)
        }
    };
    node.handle().queue_handler(&queue(), handler).expect("taken");
    for payload in ["polite", "stubborn"] {
        let id = node.push(json!(payload)).await;
        let begun = |said: &Mutex<Vec<String>>| {
            said.lock()
                .expect("no panic")
                .last()
                .is_some_and(|last| last == "begun")
        };
        until("the handler has begun", || begun(&said));
        node.handle().queue_cancel(id).await.expect("asked");
        assert_eq!(node.ended(id).await.state, TaskState::Cancelled, "{payload}");
    }
    assert_eq!(
        *said.lock().expect("no panic"),
        ["begun", "asked", "begun", "asked"]
    );
    assert_eq!(node.handle().queue_handling(), 0);
}

/// What handlers had when the program was killed runs again, or never, as the queue says.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_program_keeps_the_promise_of_the_queue() {
    for (delivery, state) in [
        ("at-least-once", TaskState::Done),
        ("at-most-once", TaskState::Lost),
    ] {
        let mut node = Node::new(&format!("delivery = \"{delivery}\"\nkeep.done = \"1h\"")).await;
        let begun = Arc::new(AtomicUsize::new(0));
        let count = begun.clone();
        let stuck = move |_task| {
            count.fetch_add(1, Ordering::SeqCst);
            std::future::pending()
        };
        node.handle().queue_handler(&queue(), stuck).expect("taken");
        let id = node.push(json!(1)).await;
        until("the handler has begun", || begun.load(Ordering::SeqCst) > 0);
        node.crash_and_open().await;
        let again = |task: QueueTask| async move { Ok(json!(task.attempt)) };
        node.handle().queue_handler(&queue(), again).expect("taken");
        assert_eq!(node.ended(id).await.state, state, "{delivery}");
        assert_eq!(begun.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_do_no_handler_does() {
    let node = Node::new("cmd = \"true\"").await;
    let handler = |_task: QueueTask| async { Ok(Value::Null) };
    let refused = node
        .handle()
        .queue_handler(&queue(), handler)
        .expect_err("refused");
    assert!(refused.to_string().contains("leave out its `cmd`"), "{refused}");
    let other = JobId::parse("other").expect("a name");
    assert!(node.handle().queue_handler(&other, handler).is_err());
}

/// A13.17: inline, the handler runs at once, what it says reaches the caller, and a payload that is too large is refused as a push does it.
#[test]
fn a13_17_inline_the_handler_runs_at_once_and_its_error_reaches_the_caller() {
    let gaffer = gaffer::Gaffer::temporary().expect("an engine");
    gaffer
        .apply("[queue.mail]\nmax_payload = \"1K\"\n[queue.ours]\ncmd = \"true\"")
        .expect("applied");
    let mail = gaffer.queue("mail").expect("a queue");
    let refused = |done: Result<Value, gaffer::EmbedError>| done.expect_err("refused").to_string();
    assert!(refused(mail.inline(1)).contains("has no handler in this program"));
    let ours = gaffer.queue("ours").expect("a queue");
    assert!(refused(ours.inline(1)).contains("has no handler in this program"));
    let caller = std::thread::current().id();
    mail.handler(move |task| async move {
        assert_eq!(std::thread::current().id(), caller, "in the caller's thread");
        assert_eq!((task.id, task.attempt, task.is_cancelled()), (0, 1, false));
        match task.payload["fails"].as_str() {
            Some(text) => Err(HandlerError::Fatal(text.to_owned())),
            None => Ok(json!({ "got": task.payload })),
        }
    })
    .expect("taken");
    // However many there are: no worker has to be free.
    for n in 0..20 {
        let done = mail.inline(json!({ "n": n })).expect("done");
        assert_eq!(done, json!({ "got": { "n": n } }));
    }
    let said = mail.inline(json!({ "fails": "no such address" }));
    assert!(
        matches!(&said, Err(gaffer::EmbedError::Handler(HandlerError::Fatal(_)))),
        "{said:?}"
    );
    assert_eq!(refused(said), "no such address");
    let big = || json!("x".repeat(2_000));
    let pushed = mail.push(big()).expect_err("refused").to_string();
    assert!(pushed.contains("takes at most 1024 (max_payload)"), "{pushed}");
    assert_eq!(refused(mail.inline(big())), pushed);
    let panics = gaffer.queue("mail").expect("a queue");
    panics.handler(|_task| async { panic!("oh no") }).expect("taken");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| panics.inline(1)));
    assert!(panicked.is_err(), "it is the caller's");
    assert_eq!(mail.push(1).expect("pushed"), 1, "none of them was in the store");
    gaffer.stop().expect("stopped");
}

/// A13.13: tasks wait for the function that does them, also over the end of the program, and lose nothing by it.
#[tokio::test(flavor = "multi_thread")]
async fn a13_13_tasks_wait_for_the_handler_of_their_queue() {
    let mut node = Node::new("keep.result = \"1h\"").await;
    let mut all = Vec::new();
    for n in 0..3 {
        all.push(node.push(json!(n)).await);
    }
    node.crash_and_open().await;
    all.push(node.push(json!(3)).await);
    let info = node.handle().queue(&queue()).await.expect("a queue");
    assert_eq!((info.counts.queued, info.busy), (4, 0));
    let handler = |task: QueueTask| async move { Ok(json!([task.payload, task.attempt])) };
    node.handle().queue_handler(&queue(), handler).expect("taken");
    for (n, id) in all.into_iter().enumerate() {
        let ended = node.ended(id).await;
        assert_eq!(ended.state, TaskState::Done);
        assert_eq!(ended.result.as_deref(), Some(format!("[{n},1]").as_str()));
    }
}

// ── tasks of steps ──

fn dag(script: &str) -> String {
    format!(
        "task = \"t\"\nkeep.result = \"1h\"\nretry.attempts = 2\n[task.t]\nparams = {{ who = \"nobody\" }}\n\
         [task.t.step.first]\ncmd = [\"sh\", \"-c\", \"echo {{{{params.who}}}} >> first\"]\n\
         [task.t.step.then]\nafter = [\"first\"]\ncmd = [\"sh\", \"-c\", \"{script}\"]\n"
    )
}

impl Node {
    async fn with_dag(script: &str) -> Node {
        let node = Node::new("").await;
        node.apply(&dag(script)).await;
        node
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_task_may_be_a_task_of_steps() {
    let node = Node::with_dag("test ! -e bad").await;
    let id = node.push(json!({ "who": "ana" })).await;
    let ended = node.ended(id).await;
    assert_eq!(ended.state, TaskState::Done);
    assert_eq!(ended.result.as_deref(), Some(r#"{"task":"t-q1-1"}"#));
    assert_eq!(node.read("first"), "ana\n");
    let run = node.handle().task("t-q1-1").await.expect("the run");
    assert_eq!(run.view.state, gaffer_core::task::record::TaskState::Success);
    // A run that fails is an attempt that failed; each attempt has a run of its own.
    std::fs::write(node.dir.path().join("bad"), "").expect("written");
    let id = node.push(json!({})).await;
    let ended = node.ended(id).await;
    assert_eq!((ended.state, ended.attempt), (TaskState::Dead, 2));
    assert_eq!(node.read("first"), "ana\nnobody\nnobody\n");
    // Parameters that the task does not have, and payloads that are none, are not tried again.
    for wrong in [json!({ "whom": "ana" }), json!([1])] {
        let id = node.push(wrong).await;
        let ended = node.ended(id).await;
        assert_eq!((ended.state, ended.attempt), (TaskState::Dead, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_of_a_queued_task_is_found_again() {
    for delivery in ["at-least-once", "at-most-once"] {
        let mut node = Node::with_dag("until test -e go; do sleep 0.02; done").await;
        let text = dag("until test -e go; do sleep 0.02; done");
        node.apply(&format!("delivery = \"{delivery}\"\nkeep.done = \"1h\"\n{text}"))
            .await;
        let id = node.push(json!({ "who": "ana" })).await;
        until("the first step", || !node.read("first").is_empty());
        for _ in 0..2 {
            node.crash_and_open().await;
        }
        std::fs::write(node.dir.path().join("go"), "").expect("written");
        let ended = node.ended(id).await;
        assert_eq!((ended.state, ended.attempt), (TaskState::Done, 1), "{delivery}");
        let runs = node.handle().tasks(None).await.expect("a list");
        assert_eq!(runs.len(), 1, "{runs:?}");
        assert_eq!(node.read("first"), "ana\n", "{delivery}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_task_of_steps_is_withdrawn_with_its_run() {
    let node = Node::with_dag("sleep 1000").await;
    let id = node.push(json!({})).await;
    until("the first step", || !node.read("first").is_empty());
    node.handle().queue_cancel(id).await.expect("asked");
    assert_eq!(node.ended(id).await.state, TaskState::Cancelled);
    let run = node.handle().task("t-q1-1").await.expect("the run");
    assert_eq!(run.view.state, gaffer_core::task::record::TaskState::Killed);
}
