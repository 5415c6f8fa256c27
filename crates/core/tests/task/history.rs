//! The fold over records: C01 to C13, C20, C21.

use gaffer_core::task::fold::{FoldError, History};
use gaffer_core::task::record::{Change, Header, Record, Status, StepRecord, StepState, TaskState};
use gaffer_core::time::Wall;

fn header() -> Record {
    Record::Header(Header {
        task_id: "t-1".into(),
        launched: Wall(1_000),
        sandbox: "/s".into(),
        hostname: "h".into(),
        user: "u".into(),
        uid: Some(7),
        ports: vec![("http".into(), 8080)],
        log_dir: "/s/.logs".into(),
        retry_of: None,
    })
}

fn status(state: TaskState, pid: u32) -> Record {
    Record::Status(Status {
        state,
        at: Wall(2_000),
        runner_pid: pid,
        runner_uid: 0,
    })
}

fn step(seq: u64, change: Change) -> Record {
    Record::Step(StepRecord {
        step: "a".into(),
        seq,
        change,
    })
}

fn forked(seq: u64) -> Record {
    step(
        seq,
        Change::Forked {
            at: Wall(10),
            parent_pid: 5,
            run: None,
        },
    )
}

fn running(seq: u64) -> Record {
    step(seq, Change::Running { at: Wall(11), pid: 6 })
}

fn ended(seq: u64, state: StepState, code: i32) -> Record {
    step(
        seq,
        Change::Ended {
            state,
            at: Some(Wall(12)),
            code: Some(code),
            reason: None,
            outputs: Vec::new(),
            fatal: false,
            usage: None,
        },
    )
}

fn run(first: u64, state: StepState, code: i32) -> Vec<Record> {
    vec![
        step(first, Change::Waiting),
        forked(first + 1),
        running(first + 2),
        ended(first + 3, state, code),
    ]
}

fn replay(records: &[Record]) -> History {
    History::replay(records).expect("a stream that fits")
}

#[test]
fn c01_a_complete_stream_gives_header_states_and_one_entry_a_run() {
    let mut records = vec![header(), status(TaskState::Active, 1)];
    records.extend(run(0, StepState::Success, 0));
    records.extend(
        [TaskState::Cleaning, TaskState::Finalizing, TaskState::Success].map(|state| status(state, 1)),
    );
    let history = replay(&records);
    assert_eq!(
        history.header.as_ref().map(|header| &*header.task_id),
        Some("t-1")
    );
    assert_eq!(history.statuses.len(), 4);
    assert_eq!(history.state(), TaskState::Success);
    let runs = &history.steps["a"];
    assert_eq!(runs.len(), 1);
    assert_eq!(
        (runs[0].pid, runs[0].parent_pid, runs[0].code),
        (Some(6), Some(5), Some(0))
    );
}

#[test]
fn c02_two_failures_and_a_success_are_three_runs() {
    let mut records = run(0, StepState::Failed, 1);
    records.extend(run(4, StepState::Failed, 1));
    records.extend(run(8, StepState::Success, 0));
    let history = replay(&records);
    let seqs: Vec<u64> = history.steps["a"].iter().map(|run| run.seq).collect();
    assert_eq!(seqs, [3, 7, 11]);
}

#[test]
fn c03_a_second_header_is_an_error() {
    let mut history = replay(&[header()]);
    let wrong = history.apply(&header(), false);
    assert_eq!(wrong, Err(FoldError::SecondHeader("t-1".into())));
}

#[test]
fn c05_a_wrong_number_is_an_error_and_changes_nothing() {
    let mut records = run(0, StepState::Success, 0);
    records.truncate(3);
    let mut history = replay(&records);
    let before = history.clone();
    for seq in [2, 4] {
        let wrong = history.apply(&ended(seq, StepState::Success, 0), false);
        assert!(matches!(
            wrong,
            Err(FoldError::InvalidSequenceNumber { last: 2, .. })
        ));
        assert_eq!(history, before);
    }
}

#[test]
fn c06_while_recovering_it_is_passed_over() {
    let mut records = run(0, StepState::Success, 0);
    records.truncate(3);
    let mut history = replay(&records);
    let before = history.clone();
    for seq in [2, 4] {
        assert_eq!(history.apply(&ended(seq, StepState::Success, 0), true), Ok(false));
    }
    assert_eq!(history, before);
}

#[test]
fn c07_running_does_not_follow_waiting() {
    let mut history = replay(&[step(0, Change::Waiting)]);
    let wrong = history.apply(&running(1), false);
    assert!(matches!(wrong, Err(FoldError::InvalidTransition { .. })));
}

#[test]
fn c08_a_new_run_needs_the_end_of_the_last() {
    let mut history = replay(&run(0, StepState::Success, 0)[..3]);
    let wrong = history.apply(&step(3, Change::Waiting), false);
    assert!(matches!(wrong, Err(FoldError::InvalidTransition { .. })));
}

#[test]
fn c10_a_stream_without_its_beginning_is_incomplete() {
    let wrong = History::default().apply(&forked(0), false);
    assert_eq!(wrong, Err(FoldError::Incomplete("a".into())));
}

#[test]
fn c11_a_new_run_is_one_more() {
    let mut history = replay(&run(0, StepState::Failed, 1));
    assert_eq!(history.apply(&step(4, Change::Waiting), false), Ok(true));
    assert_eq!(history.steps["a"].len(), 2);
}

#[test]
fn c12_what_is_news() {
    let history = replay(&run(0, StepState::Success, 0));
    assert!(!history.would_update(&ended(3, StepState::Success, 0)));
    assert!(history.would_update(&step(4, Change::Waiting)));
    let other = Record::Step(StepRecord {
        step: "b".into(),
        seq: 0,
        change: Change::Waiting,
    });
    assert!(history.would_update(&other));
    assert!(!history.would_update(&status(TaskState::Active, 1)));
}

#[test]
fn c13_a_failed_run_keeps_its_code_and_time() {
    let history = replay(&run(0, StepState::Failed, 3));
    let run = &history.steps["a"][0];
    assert_eq!((run.code, run.ended), (Some(3), Some(Wall(12))));
}

#[test]
fn c20_the_header_may_be_first_or_second() {
    let first = replay(&[header(), status(TaskState::Active, 1)]);
    let second = replay(&[status(TaskState::Active, 1), header()]);
    assert_eq!(first, second);
}

#[test]
fn c21_a_record_that_is_read_twice_is_applied_once() {
    let mut records = vec![step(0, Change::Waiting), forked(1)];
    let once = replay(&records);
    records.push(forked(1));
    assert_eq!(replay(&records), once);
}

#[test]
fn the_table_of_a_run_has_ten_arrows() {
    use StepState::*;
    let all = [Waiting, Forked, Running, Success, Failed, Killed, Lost];
    let arrows = all
        .iter()
        .flat_map(|from| all.iter().filter(|to| from.may_become(**to)))
        .count();
    assert_eq!(arrows, 10, "waiting 2, forked 4, running 4");
    assert!(
        all.iter()
            .filter(|state| state.is_terminal())
            .all(|from| !all.iter().any(|to| from.may_become(*to)))
    );
}
