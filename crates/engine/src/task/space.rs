//! The disk that a task may take (`resources.disk` of a task file with `enforce`): measured now and then, and failed beyond it.

use super::gc::space;
use super::service;
use crate::owner::lock;
use crate::state::State;
use gaffer_config::format_size;
use gaffer_core::task::record::TaskState;
use gaffer_core::task::runner::Input;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Pause between two looks at all directories. They take at most a twentieth of the time.
const EVERY: Duration = Duration::from_secs(5);
const SHARE: u32 = 20;

/// A directory that has a bound.
struct Bound {
    id: Arc<str>,
    dir: Arc<str>,
    bytes: u64,
    grace: Duration,
}

/// Begins to look, until the engine is gone. Without such a task nothing wakes up.
pub(crate) fn begin(state: &Arc<Mutex<State>>) {
    let mut bell = lock(state).tasks.bell.subscribe();
    let state = Arc::downgrade(state);
    tokio::spawn(async move {
        loop {
            let Some(bounds) = state.upgrade().map(|state| bounds(&lock(&state))) else {
                return;
            };
            if bounds.is_empty() {
                if bell.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let begun = Instant::now();
            let measured = tokio::task::spawn_blocking(move || {
                let used = |bound: Bound| (space(Path::new(&*bound.dir)), bound);
                bounds.into_iter().map(used).collect::<Vec<_>>()
            });
            let beyond = measured.await.unwrap_or_default().into_iter();
            let Some(state) = state.upgrade() else { return };
            for (used, bound) in beyond.filter(|(used, bound)| *used > bound.bytes) {
                fail(&lock(&state), used, bound);
            }
            drop(state);
            tokio::time::sleep(EVERY.max(begun.elapsed() * SHARE)).await;
        }
    });
}

fn bounds(state: &State) -> Vec<Bound> {
    let active = state.tasks.active.iter();
    let all = active.filter_map(|(id, active)| {
        let history = active.runner.history();
        let goes_on = history.state() == TaskState::Active && history.forced.is_none();
        Some(Bound {
            id: id.clone(),
            dir: active.header.sandbox.clone(),
            bytes: active.definition.disk.filter(|_| goes_on)?,
            grace: active.definition.spec.stop_timeout,
        })
    });
    all.collect()
}

fn fail(state: &State, used: u64, bound: Bound) {
    let (used, most) = (format_size(used), format_size(bound.bytes));
    let input = Input::Kill {
        state: TaskState::Failed,
        grace: bound.grace,
        hard: false,
        reason: format!("its working directory takes {used}, and {most} are reserved (resources.disk)")
            .into(),
    };
    // The owner ends only with us.
    let _ended = state.owner.send(service::message(bound.id, input));
}
