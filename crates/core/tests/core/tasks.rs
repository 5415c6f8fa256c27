//! Jobs that come after tasks: what blocks them, in which words, and what becomes of a roll-out meanwhile.

use crate::bench::{Bench, id, s, spec};
use gaffer_core::io::{Command, Input, Progress, State, Status, TaskStanding};
use gaffer_core::job::{After, Condition, Job, Launch, ReloadHow};
use gaffer_core::task::record::TaskState;
use gaffer_core::time::Duration;
use std::sync::Arc;

fn worker(condition: Condition) -> Job {
    let mut job = spec();
    job.after_tasks.insert(id("shop.migrate"), condition);
    job
}

fn stands(bench: &mut Bench, state: Option<TaskState>, note: Option<&str>) {
    let standing = TaskStanding {
        state,
        since: bench.now.wall,
        note: note.map(Arc::from),
    };
    bench.feed(Input::TaskStood {
        task: id("shop.migrate"),
        standing: Some(standing),
    });
}

#[test]
fn a_job_waits_for_the_task_and_says_how_far_it_is() {
    let mut bench = Bench::new();
    bench.put("shop.worker", worker(Condition::Done));
    assert_eq!(
        bench.reason("shop.worker.1"),
        "waiting for migrate: there is no such task"
    );
    stands(&mut bench, None, None);
    assert_eq!(
        bench.reason("shop.worker.1"),
        "waiting for migrate: it has not run yet"
    );
    stands(&mut bench, Some(TaskState::Active), None);
    bench.pass(s(4)).feed(Input::Tick);
    assert_eq!(
        bench.reason("shop.worker.1"),
        "waiting for migrate: active for 4s"
    );
    assert_eq!(bench.view("shop.worker").progress, Progress::Pending);
    stands(&mut bench, Some(TaskState::Failed), Some("run it again"));
    bench.pass(s(2)).feed(Input::Tick);
    assert_eq!(
        bench.reason("shop.worker.1"),
        "waiting for migrate: failed 2s ago; run it again"
    );
    assert!(matches!(bench.view("shop.worker").progress, Progress::Failed(_)));
    assert_eq!(bench.spawns("shop.worker"), 0);
    stands(&mut bench, Some(TaskState::Success), None);
    assert_eq!(bench.state("shop.worker.1"), State::Running);
    // The condition is one of starts: what runs is left alone, and its next run waits again.
    stands(&mut bench, Some(TaskState::Active), None);
    assert_eq!(bench.state("shop.worker.1"), State::Running);
    bench.exits("shop.worker.1", Status::Code(1)).pass(s(5));
    assert_eq!(bench.state("shop.worker.1"), State::Waiting);
    assert_eq!(bench.spawns("shop.worker"), 1);
    assert!(
        !bench
            .commands
            .iter()
            .any(|command| matches!(command, Command::Stand { .. })),
        "no successor stands by for what may have to wait"
    );
}

#[test]
fn ended_is_any_end_and_done_only_success() {
    for (condition, state, runs) in [
        (Condition::Ended, TaskState::Failed, true),
        (Condition::Ended, TaskState::Killed, true),
        (Condition::Ended, TaskState::Lost, true),
        (Condition::Ended, TaskState::Cleaning, false),
        (Condition::Done, TaskState::Failed, false),
        (Condition::Done, TaskState::Lost, false),
        (Condition::Done, TaskState::Finalizing, false),
        (Condition::Done, TaskState::Success, true),
    ] {
        let mut bench = Bench::new();
        bench.put("shop.worker", worker(condition));
        stands(&mut bench, Some(state), None);
        assert_eq!(bench.spawns("shop.worker") == 1, runs, "{condition:?} {state:?}");
    }
}

#[test]
fn a_roll_out_waits_for_the_task_and_the_old_runs_serve() {
    for how in [ReloadHow::Rolling, ReloadHow::Surge, ReloadHow::Restart] {
        let mut bench = Bench::new();
        let version = |text: &str| {
            let mut job = worker(Condition::Done);
            job.launch = Arc::new(Launch::of(vec![text.into()]));
            job.reload.how = how;
            job
        };
        stands(&mut bench, Some(TaskState::Success), None);
        bench.put("shop.worker", version("one"));
        let old = bench.run("shop.worker.1");
        stands(&mut bench, Some(TaskState::Active), None);
        bench.put("shop.worker", version("two")).pass(s(60));
        assert_eq!(
            (bench.run("shop.worker.1"), bench.spawns("shop.worker")),
            (old, 1),
            "{how:?}"
        );
        assert_eq!(bench.state("shop.worker.1"), State::Running);
        stands(&mut bench, Some(TaskState::Success), None);
        if how != ReloadHow::Surge {
            assert_eq!(bench.state("shop.worker.1"), State::Stopping, "{how:?}");
            bench.exits("shop.worker.1", Status::Signal(15, false));
        }
        assert_eq!(bench.spawns("shop.worker"), 2, "{how:?}");
    }
}

#[test]
fn what_a_task_waits_for_is_told_in_the_same_words() {
    let mut bench = Bench::new();
    let jobs = After::from([(id("shop.db"), Condition::Ready)]);
    let tasks = After::from([(id("shop.migrate"), Condition::Done)]);
    let said = |bench: &Bench| {
        let session = id("shop.x").session;
        let reason = bench.node.waits_for(&session, &jobs, &tasks);
        reason.map(|reason| reason.text.to_string())
    };
    assert_eq!(
        said(&bench).as_deref(),
        Some("waiting for db: there is no such job")
    );
    bench.put("shop.db", spec());
    assert_eq!(
        said(&bench).as_deref(),
        Some("waiting for migrate: there is no such task")
    );
    stands(&mut bench, Some(TaskState::Active), Some("it cannot be led here"));
    assert_eq!(
        said(&bench).as_deref(),
        Some("waiting for migrate: active for 0s, it cannot be led here")
    );
    stands(&mut bench, Some(TaskState::Success), None);
    assert_eq!(said(&bench), None);
    bench.stop("shop.db");
    assert_eq!(said(&bench).as_deref(), Some("waiting for db: stopping"));
    bench.pass(Duration::ZERO);
}
