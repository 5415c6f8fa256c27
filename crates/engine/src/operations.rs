//! Operations: has what was asked for come about?
//!
//! An operation is a question about wishes and states, not a job of its own: it is lost with the daemon and
//! nothing depends on it. Ended ones are remembered for ten minutes.

use crate::clock;
use crate::info::{OperationId, OperationInfo, OperationState, Outcome};
use gaffer_core::io::{InstanceView, JobView, Progress, Reason, State, Status, WishState};
use gaffer_core::name::{JobId, Place, Slot};
use std::collections::BTreeMap;
use tokio::sync::watch;

/// How long an ended operation is remembered, in milliseconds.
const REMEMBERED_MS: i64 = 600_000;
/// Outcomes of operations kept at most; the oldest ended operations go first.
const KEPT: usize = 100_000;

/// All operations of this daemon start.
pub(crate) struct Operations {
    all: BTreeMap<OperationId, Operation>,
    /// By job: which operations wait for it, and the places of their outcomes that do.
    pending: BTreeMap<JobId, BTreeMap<OperationId, Vec<usize>>>,
    changed: watch::Sender<u64>,
    /// Size of `all`, see [`Operation::size`].
    kept: usize,
}

struct Operation {
    info: OperationInfo,
    /// Outcomes that are still to come.
    open: usize,
}

impl Operation {
    /// What it takes of [`KEPT`].
    fn size(&self) -> usize {
        self.info.outcomes.len().max(1)
    }

    /// One of its jobs may have changed: what of `places` is still to come.
    fn look(&mut self, mut places: Vec<usize>, view: Option<&JobView>) -> Vec<usize> {
        places.retain(|place| {
            let verdict = verdict(&self.info, self.info.outcomes[*place].target.instance, view);
            let outcome = &mut self.info.outcomes[*place];
            match verdict {
                Progress::Pending => return true,
                Progress::Done => outcome.state = OperationState::Done,
                Progress::Failed(reason) => {
                    outcome.state = OperationState::Failed;
                    outcome.reason = Some(reason.clone());
                    self.info.reason.get_or_insert(reason);
                }
            }
            self.open -= 1;
            false
        });
        places
    }
}

impl Operations {
    pub fn new() -> Operations {
        Operations {
            all: BTreeMap::new(),
            pending: BTreeMap::new(),
            changed: watch::channel(0).0,
            kept: 0,
        }
    }

    /// Rings when any operation ends.
    pub fn bell(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn begin(&mut self, id: OperationId, verb: &'static str, outcomes: Vec<Outcome>, slot: Option<Slot>) {
        self.prune();
        let mut open = 0;
        for (place, outcome) in outcomes.iter().enumerate() {
            if outcome.state == OperationState::Pending {
                open += 1;
                let waiting = self.pending.entry(outcome.target.job.clone()).or_default();
                waiting.entry(id).or_default().push(place);
            }
        }
        let info = OperationInfo {
            id,
            verb,
            outcomes,
            state: OperationState::Pending,
            reason: None,
            created: clock::wall(),
            ended: None,
            slot,
            status: None,
        };
        let operation = Operation { info, open };
        self.kept += operation.size();
        self.all.insert(id, operation);
        if open == 0 {
            self.end(id);
        }
    }

    pub fn get(&self, id: OperationId) -> Option<OperationInfo> {
        self.all.get(&id).map(|operation| operation.info.clone())
    }

    /// Is it still to come about?
    pub fn is_pending(&self, id: OperationId) -> bool {
        let operation = self.all.get(&id);
        operation.is_some_and(|operation| operation.info.state == OperationState::Pending)
    }

    /// Is anybody interested in this job?
    pub fn concerns(&self, job: &JobId) -> bool {
        self.pending.contains_key(job)
    }

    /// A job may have changed: `view` is none once it is forgotten.
    pub fn look(&mut self, job: &JobId, view: Option<&JobView>) {
        let mut left = BTreeMap::new();
        for (id, places) in self.pending.remove(job).unwrap_or_default() {
            let Some(operation) = self.all.get_mut(&id) else {
                continue;
            };
            let places = operation.look(places, view);
            if !places.is_empty() {
                left.insert(id, places);
            } else if operation.open == 0 {
                self.end(id);
            }
        }
        if !left.is_empty() {
            self.pending.insert(job.clone(), left);
        }
    }

    /// A one-off ended.
    pub fn one_off_ended(&mut self, slot: &Slot, status: Option<Status>, reason: &Reason) {
        let Some(ids) = self.pending.get(&slot.job) else {
            return;
        };
        let is_it = |id: &&OperationId| {
            let operation = self.all.get(id);
            operation.is_some_and(|operation| operation.info.slot.as_ref() == Some(slot))
        };
        let Some(id) = ids.keys().find(is_it).copied() else {
            return;
        };
        if let Some(operation) = self.all.get_mut(&id) {
            operation.info.status = status;
            operation.info.reason = Some(reason.clone());
        }
        self.close(id, OperationState::Done);
    }

    /// Nobody waits for it any more. False: it is over already, or forgotten.
    pub fn cancel(&mut self, id: OperationId) -> bool {
        self.is_pending(id) && self.close(id, OperationState::Cancelled)
    }

    /// Ends an operation from outside: what is still to come of it is `state`.
    fn close(&mut self, id: OperationId, state: OperationState) -> bool {
        let Some(operation) = self.all.get_mut(&id) else {
            return false;
        };
        for outcome in &mut operation.info.outcomes {
            if outcome.state != OperationState::Pending {
                continue;
            }
            outcome.state = state.clone();
            if let Some(waiting) = self.pending.get_mut(&outcome.target.job) {
                waiting.remove(&id);
                if waiting.is_empty() {
                    self.pending.remove(&outcome.target.job);
                }
            }
        }
        operation.open = 0;
        operation.info.state = state;
        self.end(id);
        true
    }

    fn end(&mut self, id: OperationId) {
        let Some(operation) = self.all.get_mut(&id) else {
            return;
        };
        let info = &mut operation.info;
        info.ended = Some(clock::wall());
        if info.state == OperationState::Pending {
            let failed = |outcome: &Outcome| outcome.state == OperationState::Failed;
            info.state = match info.outcomes.iter().any(failed) {
                true => OperationState::Failed,
                false => OperationState::Done,
            };
        }
        self.changed.send_modify(|count| *count += 1);
    }

    fn prune(&mut self) {
        let before = clock::wall().0 - REMEMBERED_MS;
        let mut over = self.kept.saturating_sub(KEPT);
        let mut gone = 0;
        self.all.retain(|_, operation| {
            let Some(ended) = operation.info.ended else {
                return true;
            };
            if ended.0 >= before && over == 0 {
                return true;
            }
            over = over.saturating_sub(operation.size());
            gone += operation.size();
            false
        });
        self.kept -= gone;
    }
}

/// What an operation's verb makes of a job's state.
fn verdict(info: &OperationInfo, instance: Option<u32>, view: Option<&JobView>) -> Progress {
    let Some(view) = view else {
        // Forgotten: the end of `remove`, and of whatever else was under way.
        return Progress::Done;
    };
    if info.verb == "remove" || info.slot.is_some() {
        return Progress::Pending;
    }
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
