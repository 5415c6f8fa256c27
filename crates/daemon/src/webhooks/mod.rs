//! Webhooks: one task for each, which delivers what is in its outbox, in order, for as long as it takes.
//!
//! The engine puts events into the outbox; here they are sent. A receiver that is dead or slow keeps only its own task
//! busy. Without webhooks there is no task but the one that waits for the first.

mod deliver;
mod message;
mod post;

pub use deliver::{TEST, attempt, test_event};

use crate::http::Shared;
use gaffer::outbox::Hook;
use std::collections::BTreeMap;
use tokio::task::JoinHandle;

/// Keeps a task for every webhook that is in force, until the engine ends.
pub async fn follow(app: Shared) {
    let mut changed = app.handle.hooks_changed();
    let mut tasks: BTreeMap<String, Task> = BTreeMap::new();
    loop {
        changed.borrow_and_update();
        let hooks = app.handle.hooks();
        tasks.retain(|id, task| {
            // One that has changed begins anew with what it says now; what was being sent is sent again.
            let same = hooks
                .iter()
                .any(|hook| hook.webhook.id() == *id && hook.webhook == task.hook.webhook);
            if !same {
                task.work.abort();
            }
            same
        });
        for hook in hooks.iter() {
            tasks.entry(hook.webhook.id()).or_insert_with(|| Task {
                hook: hook.clone(),
                work: tokio::spawn(deliver::run(app.clone(), hook.webhook.clone())),
            });
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

struct Task {
    hook: Hook,
    work: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.work.abort();
    }
}
