//! Queues without any store: the policy of outcomes, and the machine that claims, renews and settles.

mod dispatch;
mod outcome;
mod pool;

use gaffer_core::name::JobId;
use gaffer_core::queue::spec::{By, Queue, QueueId};
use gaffer_core::queue::task::{Claimed, Handle};
use gaffer_core::time::Wall;
use std::sync::Arc;

/// `default.mail`.
fn mail() -> QueueId {
    JobId::parse("mail").expect("a name")
}

/// A queue whose work is a program.
fn queue() -> Queue {
    Queue::of(By::Cmd(Arc::new(gaffer_core::job::Launch::of(vec![
        "true".to_owned(),
    ]))))
}

/// A claimed task, in its first attempt.
fn row(task: i64) -> Claimed {
    Claimed {
        handle: Handle { task, token: 1 },
        queue: mail(),
        kind: None,
        payload: "{}".into(),
        meta: None,
        attempt: 1,
        attempts_max: None,
        crashes: 0,
        interrupts: 0,
        timeout_ms: None,
        created: Wall(0),
        runnable: Wall(0),
        cancelled: false,
        owner: "a:1".into(),
    }
}
