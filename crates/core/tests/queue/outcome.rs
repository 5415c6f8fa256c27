//! What an attempt becomes (spec/snappea.md B3.1, B3.3, B3.4, B3.10).

use crate::{queue, row};
use gaffer_core::io::{End, Status};
use gaffer_core::job::ExitMatch;
use gaffer_core::queue::outcome::{INTERRUPTS_MAX, Outcome, settle};
use gaffer_core::queue::spec::{Delivery, LEAST_KEPT};
use gaffer_core::queue::task::{Failure, TaskState};
use gaffer_core::time::{Duration, Wall};

const NOW: Wall = Wall(1_000_000);

fn failed() -> Outcome {
    Outcome::Failed(Failure::of("exit:1", "exit 1"))
}

fn end(status: Status, oom: bool) -> End {
    End {
        status,
        oom,
        at: NOW,
        lived: Duration::from_secs(1),
    }
}

/// Scenario 6: a failing task with delay 1 s, factor 2, 4 attempts starts at 0, 1, 3 and 7 s, then it is dead with 4 entries in its log.
#[test]
fn scenario_06_a_failing_task_is_tried_after_1_2_and_4_seconds_and_then_dead() {
    let mut queue = queue();
    queue.work.retry.attempts = Some(4);
    queue.work.retry.delay = vec![Duration::from_secs(1)];
    queue.work.retry.jitter = 0.0;
    let mut row = row(1);
    let mut waits = Vec::new();
    for attempt in 1..=4 {
        row.attempt = attempt;
        let settled = settle(&queue, &row, failed(), NOW, 0.7);
        assert_eq!(settled.attempt, attempt, "every one of them counts");
        match settled.state {
            TaskState::Scheduled => waits.push(settled.run_at.expect("a time").since(NOW).as_secs()),
            other => assert_eq!((other, attempt), (TaskState::Dead, 4)),
        }
    }
    assert_eq!(waits, [1, 2, 4]);
}

/// Scenario 7: jitter 0.2: 200 first retries lie in [0.8, 1.2] of the delay and are not all equal.
#[test]
fn scenario_07_jitter_spreads_the_first_retries() {
    let queue = queue();
    let waits: std::collections::BTreeSet<u64> = (0..200)
        .map(|dice| {
            let settled = settle(&queue, &row(1), failed(), NOW, f64::from(dice) / 200.0);
            u64::try_from(settled.run_at.expect("a time").since(NOW).as_millis()).expect("short")
        })
        .collect();
    assert!(
        waits.iter().all(|wait| (1_600..=2_400).contains(wait)),
        "{waits:?}"
    );
    assert!(waits.len() > 100, "they are not all equal");
}

/// Scenario 8: a fatal code is dead after one attempt; three times snoozed is no attempt.
#[test]
fn scenario_08_a_fatal_code_is_dead_at_once_and_a_snooze_does_not_count() {
    let mut queue = queue();
    queue.work.exit.fatal = vec![ExitMatch::Code(3)];
    let fatal = Outcome::of_end(&queue.work, &end(Status::Code(3), false));
    let settled = settle(&queue, &row(1), fatal, NOW, 0.5);
    assert_eq!((settled.state, settled.attempt), (TaskState::Dead, 1));
    let mut row = row(1);
    for _ in 0..3 {
        let snooze = Outcome::of_end(&queue.work, &end(Status::Code(75), false));
        let settled = settle(&queue, &row, snooze, NOW, 0.5);
        assert_eq!((settled.state, settled.attempt), (TaskState::Scheduled, 0));
        assert_eq!(settled.run_at, Some(NOW.plus(Duration::from_secs(2))));
        row.attempt = settled.attempt + 1;
    }
}

#[test]
fn hazard_53_deaths_are_counted_apart_and_park_the_task() {
    let queue = queue();
    let mut row = row(1);
    for crash in 1..=5 {
        let oom = Outcome::of_end(&queue.work, &end(Status::Signal(9, false), true));
        let settled = settle(&queue, &row, oom, NOW, 0.5);
        assert_eq!(settled.crashes, crash);
        let expected = if crash < 5 {
            TaskState::Scheduled
        } else {
            TaskState::Dead
        };
        assert_eq!(settled.state, expected, "crash {crash}");
        assert_eq!(
            settled.failure.as_ref().map(|failure| &*failure.kind),
            Some("oom")
        );
        (row.crashes, row.attempt) = (settled.crashes, settled.attempt + 1);
    }
}

#[test]
fn a_signal_that_exit_ok_names_is_a_success() {
    let mut queue = queue();
    queue.work.exit.ok.push(ExitMatch::Signal(15));
    assert_eq!(
        Outcome::of_end(&queue.work, &end(Status::Signal(15, false), false)),
        Outcome::Done(None)
    );
}

#[test]
fn at_most_once_never_runs_again_whatever_happens() {
    let mut queue = queue();
    queue.delivery = Delivery::AtMostOnce;
    queue.keep.done = Duration::from_secs(60);
    let outcomes = [
        (failed(), TaskState::Dead),
        (Outcome::Crashed(Failure::of("oom", "oom")), TaskState::Lost),
        (Outcome::NotHanded, TaskState::Lost),
        (Outcome::Interrupted, TaskState::Lost),
        (Outcome::Snooze(Duration::from_secs(1)), TaskState::Lost),
        (Outcome::Done(None), TaskState::Done),
    ];
    for (outcome, state) in outcomes {
        let said = format!("{outcome:?}");
        assert_eq!(settle(&queue, &row(1), outcome, NOW, 0.5).state, state, "{said}");
    }
}

#[test]
fn a_task_that_no_worker_got_is_given_back_as_it_was() {
    let mut row = row(1);
    row.attempt = 4;
    let settled = settle(&queue(), &row, Outcome::NotHanded, NOW, 0.5);
    assert_eq!((settled.state, settled.attempt), (TaskState::Queued, 3));
    assert_eq!(settled.failure, None);
}

/// Scenario 25: TERM in the default mode: what runs finishes or is given back as interrupted, and no attempt is used up.
#[test]
fn scenario_25_an_interruption_does_not_count_until_it_was_the_sixth_in_a_row() {
    let queue = queue();
    let mut row = row(1);
    for time in 1..=INTERRUPTS_MAX + 1 {
        let settled = settle(&queue, &row, Outcome::Interrupted, NOW, 0.5);
        assert_eq!(settled.state, TaskState::Queued);
        let expected = if time <= INTERRUPTS_MAX { 0 } else { 1 };
        assert_eq!(settled.attempt, expected, "time {time}");
        (row.interrupts, row.attempt) = (settled.interrupts, settled.attempt + 1);
    }
}

/// Scenario 24: a queued task that is cancelled never runs; of one that runs the tree is gone within the stop timeout, and the state is
/// cancelled.
#[test]
fn scenario_24_a_cancelled_task_is_cancelled_whatever_its_worker_says() {
    let mut row = row(1);
    row.cancelled = true;
    let settled = settle(&queue(), &row, Outcome::Done(Some("1".into())), NOW, 0.5);
    assert_eq!(settled.state, TaskState::Cancelled);
}

#[test]
fn rows_are_kept_at_least_for_whoever_looks_a_moment_later() {
    let settled = settle(&queue(), &row(1), Outcome::Done(None), NOW, 0.5);
    assert_eq!(settled.expires, Some(NOW.plus(LEAST_KEPT)));
}
