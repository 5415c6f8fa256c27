//! Operations: has what was asked for come about?
//!
//! An operation is a question about wishes and states, not a job of its own: it is lost with the daemon and
//! nothing depends on it. Ended ones are remembered for ten minutes.

use crate::clock;
use crate::info::{OperationId, OperationInfo, OperationState, Target};
use gaffer_core::io::{InstanceView, JobView, Progress, Reason, State, Status, WishState};
use gaffer_core::name::{JobId, Place, Slot};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;

/// How long an ended operation is remembered, in milliseconds.
const REMEMBERED_MS: i64 = 600_000;
/// Operations kept at most; the oldest ended ones go first.
const KEPT: usize = 10_000;

/// All operations of this daemon start.
pub(crate) struct Operations {
    all: BTreeMap<OperationId, Operation>,
    pending: BTreeMap<JobId, BTreeSet<OperationId>>,
    changed: watch::Sender<u64>,
}

struct Operation {
    info: OperationInfo,
    /// Jobs not yet settled.
    open: BTreeSet<JobId>,
}

impl Operations {
    pub fn new() -> Operations {
        Operations {
            all: BTreeMap::new(),
            pending: BTreeMap::new(),
            changed: watch::channel(0).0,
        }
    }

    /// Rings when any operation ends.
    pub fn bell(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn begin(&mut self, id: OperationId, verb: &'static str, targets: Vec<Target>, slot: Option<Slot>) {
        self.prune();
        let open: BTreeSet<JobId> = targets.iter().map(|target| target.job.clone()).collect();
        for job in &open {
            self.pending.entry(job.clone()).or_default().insert(id);
        }
        let done = open.is_empty();
        let info = OperationInfo {
            id,
            verb,
            targets,
            state: if done {
                OperationState::Done
            } else {
                OperationState::Pending
            },
            reason: None,
            created: clock::wall(),
            ended: done.then(clock::wall),
            slot,
            status: None,
        };
        self.all.insert(id, Operation { info, open });
    }

    pub fn get(&self, id: OperationId) -> Option<OperationInfo> {
        self.all.get(&id).map(|operation| operation.info.clone())
    }

    /// Is anybody interested in this job?
    pub fn concerns(&self, job: &JobId) -> bool {
        self.pending.contains_key(job)
    }

    /// A job may have changed: `view` is none once it is forgotten.
    pub fn look(&mut self, job: &JobId, view: Option<&JobView>) {
        let Some(ids) = self.pending.get(job).cloned() else {
            return;
        };
        for id in ids {
            let Some(operation) = self.all.get_mut(&id) else {
                continue;
            };
            let outcome = verdict(&operation.info, job, view);
            if outcome == Progress::Pending {
                continue;
            }
            operation.open.remove(job);
            if let Progress::Failed(reason) = outcome {
                operation.info.state = OperationState::Failed;
                operation.info.reason.get_or_insert(reason);
            }
            let ended = operation.open.is_empty();
            if ended {
                self.end(id);
            }
            self.forget_pending(job, id);
        }
    }

    /// A one-off ended.
    pub fn one_off_ended(&mut self, slot: &Slot, status: Option<Status>, reason: &Reason) {
        let Some(ids) = self.pending.get(&slot.job).cloned() else {
            return;
        };
        for id in ids {
            let Some(operation) = self.all.get_mut(&id) else {
                continue;
            };
            if operation.info.slot.as_ref() == Some(slot) {
                operation.info.status = status;
                operation.info.reason = Some(reason.clone());
                operation.open.clear();
                self.end(id);
                self.forget_pending(&slot.job, id);
            }
        }
    }

    /// Ends an operation from outside.
    pub fn finish(&mut self, id: OperationId, state: OperationState, reason: Option<Reason>) -> bool {
        let Some(operation) = self.all.get_mut(&id) else {
            return false;
        };
        if operation.info.state != OperationState::Pending {
            return false;
        }
        operation.info.state = state;
        operation.info.reason = reason;
        let jobs = std::mem::take(&mut operation.open);
        self.end(id);
        for job in jobs {
            self.forget_pending(&job, id);
        }
        true
    }

    fn end(&mut self, id: OperationId) {
        let Some(operation) = self.all.get_mut(&id) else {
            return;
        };
        operation.info.ended = Some(clock::wall());
        if operation.info.state == OperationState::Pending {
            operation.info.state = OperationState::Done;
        }
        self.changed.send_modify(|count| *count += 1);
    }

    fn forget_pending(&mut self, job: &JobId, id: OperationId) {
        if let Some(ids) = self.pending.get_mut(job) {
            ids.remove(&id);
            if ids.is_empty() {
                self.pending.remove(job);
            }
        }
    }

    fn prune(&mut self) {
        let before = clock::wall().0 - REMEMBERED_MS;
        self.all
            .retain(|_, operation| operation.info.ended.is_none_or(|ended| ended.0 >= before));
        while self.all.len() >= KEPT {
            let oldest = self
                .all
                .iter()
                .find(|(_, operation)| operation.info.ended.is_some())
                .map(|(id, _)| *id);
            let Some(oldest) = oldest else { return };
            self.all.remove(&oldest);
        }
    }
}

/// What an operation's verb makes of a job's state.
fn verdict(info: &OperationInfo, job: &JobId, view: Option<&JobView>) -> Progress {
    let Some(view) = view else {
        // Forgotten: the end of `remove`, and of whatever else was under way.
        return Progress::Done;
    };
    if info.verb == "remove" || info.slot.is_some() {
        return Progress::Pending;
    }
    let instance = info
        .targets
        .iter()
        .find(|target| target.job == *job)
        .and_then(|target| target.instance);
    match instance {
        None => view.progress.clone(),
        Some(n) => instance_verdict(view.instances.iter().filter(|one| is_instance(one, n))),
    }
}

fn is_instance(view: &InstanceView, number: u32) -> bool {
    matches!(view.slot.place, Place::Instance { n, .. } if n == number)
}

fn instance_verdict<'a>(lanes: impl Iterator<Item = &'a InstanceView>) -> Progress {
    let mut verdict = Progress::Done;
    for one in lanes {
        let done = match (one.wish, one.state) {
            (WishState::Running, State::Running | State::Exited) => true,
            (WishState::Stopped, State::Stopped | State::Exited | State::Failed) => true,
            (WishState::Paused, State::Paused | State::Stopped | State::Exited) => true,
            (_, State::Failed | State::Flapping | State::StopStuck) => {
                let reason = one.reason.clone();
                return Progress::Failed(reason.unwrap_or_else(|| Reason {
                    code: "unknown",
                    text: "it did not come about".into(),
                }));
            }
            _ => false,
        };
        if !done {
            verdict = Progress::Pending;
        }
    }
    verdict
}
