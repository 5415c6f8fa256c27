//! What a worker says, and what follows from it.

use super::spec::{Delivery, Queue, Work};
use super::task::{Claimed, Failure, Settlement, TaskState};
use crate::io::{End, Status};
use crate::job::ExitMatch;
use crate::retry;
use crate::time::{Duration, Wall};
use std::sync::Arc;

/// Times in a row that the end of a node gives a task back without counting.
pub const INTERRUPTS_MAX: u32 = 5;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Worked off, perhaps with a result (JSON).
    Done(Option<Arc<str>>),
    /// Again, if attempts are left.
    Failed(Failure),
    /// Never again.
    Fatal(Failure),
    /// Again after this long, if attempts are left.
    RetryAfter(Failure, Duration),
    /// Not now; does not count.
    Snooze(Duration),
    /// It is not wanted any more.
    Cancelled,
    /// The worker was killed, by a signal or for memory, or nobody saw how it ended.
    Crashed(Failure),
    /// No worker ever got it.
    NotHanded,
    /// The node stopped, and it with it.
    Interrupted,
}

impl Outcome {
    /// What the end of a worker's process says.
    pub fn of_end(work: &Work, end: &End) -> Outcome {
        if end.oom {
            return Outcome::Crashed(Failure::of("oom", "killed by the kernel for memory"));
        }
        let matches = |list: &[ExitMatch]| {
            list.iter().any(|one| match (one, end.status) {
                (ExitMatch::Code(code), Status::Code(is)) => *code == is,
                (ExitMatch::Signal(signal), Status::Signal(is, _)) => *signal == is,
                _ => false,
            })
        };
        if matches(&work.exit.ok) {
            return Outcome::Done(None);
        }
        if matches(&work.snooze) {
            return Outcome::Snooze(retry::delay(&work.retry, 1, 0.5));
        }
        let failure = failure_of(end.status);
        if matches(&work.exit.fatal) {
            return Outcome::Fatal(failure);
        }
        match end.status {
            Status::Code(_) => Outcome::Failed(failure),
            Status::Signal(..) | Status::Unknown => Outcome::Crashed(failure),
        }
    }

    /// The same, with the last of what the worker wrote.
    pub fn with_output(mut self, output: Arc<str>) -> Outcome {
        if let Outcome::Failed(failure)
        | Outcome::Fatal(failure)
        | Outcome::RetryAfter(failure, _)
        | Outcome::Crashed(failure) = &mut self
            && failure.output.is_empty()
        {
            failure.output = output;
        }
        self
    }

    /// The same, with a result if it went well.
    pub fn with_result(self, result: Option<Arc<str>>) -> Outcome {
        match self {
            Outcome::Done(None) => Outcome::Done(result),
            other => other,
        }
    }
}

fn failure_of(status: Status) -> Failure {
    match status {
        Status::Code(code) => Failure::of(format!("exit:{code}"), format!("exit {code}")),
        Status::Signal(signal, _) => {
            let name = crate::signal::short(signal).map_or_else(|| signal.to_string(), str::to_owned);
            Failure::of(format!("signal:{signal}"), format!("ended by {name}"))
        }
        Status::Unknown => Failure::of("unknown", "ended while nobody could watch"),
    }
}

/// What an attempt that ended becomes. `dice` is in `0.0..1.0`.
pub fn settle(queue: &Queue, row: &Claimed, outcome: Outcome, now: Wall, dice: f64) -> Settlement {
    let work = queue.work(row.kind.as_deref());
    let mut settled = blank(queue, row);
    let outcome = if row.cancelled {
        Outcome::Cancelled
    } else {
        outcome
    };
    match outcome {
        Outcome::Done(result) => {
            let keep = queue.keep.result.max(super::spec::LEAST_KEPT);
            settled.result_until = result.as_ref().map(|_| now.plus(keep));
            settled.result = result;
            settled.holds_key = queue.unique.as_ref().is_some_and(|unique| unique.while_done);
        }
        Outcome::Cancelled => (settled.state, settled.outcome) = (TaskState::Cancelled, "cancelled"),
        Outcome::Fatal(failure) => dead(&mut settled, "failed", failure),
        Outcome::Failed(failure) => failed(&mut settled, queue, work, row, (failure, None), now, dice),
        Outcome::RetryAfter(failure, after) => {
            failed(&mut settled, queue, work, row, (failure, Some(after)), now, dice);
        }
        Outcome::Snooze(after) => {
            settled.attempt = row.attempt.saturating_sub(1);
            again(
                &mut settled,
                queue,
                "snoozed",
                Failure::of("snooze", "later"),
                Some(now.plus(after)),
            );
            settled.failure = None;
        }
        Outcome::Crashed(failure) => {
            settled.crashes = row.crashes.saturating_add(1);
            crashed(&mut settled, queue, work, row, failure, now, dice);
        }
        Outcome::NotHanded => {
            settled.attempt = row.attempt.saturating_sub(1);
            settled.interrupts = row.interrupts;
            again(
                &mut settled,
                queue,
                "released",
                Failure::of("not-handed", "no worker got it"),
                None,
            );
            settled.failure = None;
        }
        Outcome::Interrupted => {
            settled.interrupts = row.interrupts.saturating_add(1);
            if settled.interrupts <= INTERRUPTS_MAX {
                settled.attempt = row.attempt.saturating_sub(1);
            }
            let failure = Failure::of("interrupted", "the daemon stopped");
            if settled.interrupts > INTERRUPTS_MAX && row.attempt >= attempts_of(work, row) {
                dead(&mut settled, "interrupted", failure);
            } else {
                again(&mut settled, queue, "interrupted", failure, None);
            }
        }
    }
    settled.expires = expires(queue, &settled, now);
    settled
}

/// As if it was done.
fn blank(queue: &Queue, row: &Claimed) -> Settlement {
    Settlement {
        handle: row.handle,
        queue: row.queue.clone(),
        state: TaskState::Done,
        run_at: None,
        attempt: row.attempt,
        crashes: row.crashes,
        interrupts: 0,
        failure: None,
        result: None,
        expires: None,
        result_until: None,
        outcome: "done",
        ordinal: row.attempt,
        full: queue.full,
        holds_key: false,
    }
}

/// When the row of a task that is over may go.
fn expires(queue: &Queue, settled: &Settlement, now: Wall) -> Option<Wall> {
    match settled.state {
        TaskState::Done | TaskState::Cancelled => {
            let keep = queue.keep.done.max(super::spec::LEAST_KEPT);
            let result = settled
                .result
                .as_ref()
                .map_or(Duration::ZERO, |_| queue.keep.result);
            Some(now.plus(keep.max(result)))
        }
        TaskState::Dead | TaskState::Lost => Some(now.plus(queue.keep.dead.max(super::spec::LEAST_KEPT))),
        TaskState::Scheduled | TaskState::Queued | TaskState::Running => None,
    }
}

fn attempts_of(work: &Work, row: &Claimed) -> u32 {
    row.attempts_max.or(work.retry.attempts).unwrap_or(u32::MAX)
}

fn dead(settled: &mut Settlement, outcome: &'static str, failure: Failure) {
    settled.state = TaskState::Dead;
    settled.outcome = outcome;
    settled.failure = Some(failure);
}

/// To be run again, at once or later; never, if it may run but once.
fn again(settled: &mut Settlement, queue: &Queue, outcome: &'static str, failure: Failure, at: Option<Wall>) {
    settled.outcome = outcome;
    settled.failure = Some(failure);
    settled.run_at = at;
    settled.state = match (queue.delivery, at) {
        (Delivery::AtMostOnce, _) => TaskState::Lost,
        (Delivery::AtLeastOnce, Some(_)) => TaskState::Scheduled,
        (Delivery::AtLeastOnce, None) => TaskState::Queued,
    };
}

fn failed(
    settled: &mut Settlement,
    queue: &Queue,
    work: &Work,
    row: &Claimed,
    (failure, after): (Failure, Option<Duration>),
    now: Wall,
    dice: f64,
) {
    if queue.delivery == Delivery::AtMostOnce || row.attempt >= attempts_of(work, row) {
        return dead(settled, "failed", failure);
    }
    let streak = row.attempt.saturating_sub(row.crashes).max(1);
    let after = after.unwrap_or_else(|| retry::delay(&work.retry, streak, dice));
    again(settled, queue, "failed", failure, Some(now.plus(after)));
}

fn crashed(
    settled: &mut Settlement,
    queue: &Queue,
    work: &Work,
    row: &Claimed,
    failure: Failure,
    now: Wall,
    dice: f64,
) {
    if queue.delivery == Delivery::AtMostOnce {
        return again(settled, queue, "crashed", failure, None);
    }
    if settled.crashes >= work.crashes || row.attempt >= attempts_of(work, row) {
        return dead(settled, "crashed", failure);
    }
    let after = retry::delay(&work.retry, settled.crashes, dice);
    again(settled, queue, "crashed", failure, Some(now.plus(after)));
}
