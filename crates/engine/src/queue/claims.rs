//! Workers that are not ours: they claim, renew and settle by themselves.

use super::handle::{QueueSelf, TaskOutcome, astray, no_task};
use super::push::fits;
use crate::clock;
use crate::handle::{Handle, Result};
use crate::info::Error;
use crate::owner::lock;
use gaffer_core::name::JobId;
use gaffer_core::queue::dispatch::Input;
use gaffer_core::queue::outcome::{Outcome, settle};
use gaffer_core::queue::spec::{Queue, QueueId};
use gaffer_core::queue::task::{Claimed, Failure, TaskId, TaskState};
use gaffer_core::retry::Dice;
use gaffer_core::time::{Duration, Wall};
use gaffer_queue::port::{Answer, Claim, Request};
use serde_json::Value;

/// A claim is looked for again so often, if nothing rings.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a renewal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// From now on.
    pub length: Duration,
    /// The end of the task was asked for.
    pub cancelled: bool,
}

impl Handle {
    /// Takes at most `count` tasks for a worker outside; waits so long for the first one.
    pub async fn queue_claim(
        &self,
        queue: &QueueId,
        worker: &str,
        count: u32,
        within: Duration,
    ) -> Result<(Vec<Claimed>, Duration)> {
        let spec = self.queue_spec(queue)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
        if worker.is_empty() || worker.len() > 128 || !worker.chars().all(plain) {
            return Err(Error::Invalid(
                "a worker has a name of letters, digits and ._-@".to_owned(),
            ));
        }
        let store = self.queue_store(queue).await?;
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let paused = lock(&self.state)
                .queues
                .modes
                .get(&queue.to_string())
                .is_some_and(|mode| mode.paused);
            if !paused {
                let claim = Claim {
                    queue: queue.clone(),
                    count: count.clamp(1, 1_000),
                    owner: format!("ext:{worker}").into(),
                    now: clock::wall(),
                    lease: spec.lease,
                    kinds: None,
                    throttle: spec.throttle.clone(),
                    forget: spec.forgets_at_claim(),
                };
                let Answer::Claimed(rows, _) = store.get(Request::Claim(Box::new(claim))).await? else {
                    return astray();
                };
                let rows = self.workable(&spec, rows).await;
                if !rows.is_empty() {
                    // Its lease is looked at when it ends, at the latest.
                    self.queue_due(queue, clock::wall().plus(spec.lease));
                    return Ok((rows, spec.lease));
                }
            }
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                return Ok((Vec::new(), spec.lease));
            }
            let mut bell = lock(&self.state).queues.bell.subscribe();
            let _rung = tokio::time::timeout(left.min(LOOK_EVERY), bell.changed()).await;
        }
    }

    /// Tasks that a worker outside can do something with. The others are dead letters at once, as they are for workers of this node.
    async fn workable(&self, spec: &Queue, rows: Vec<Claimed>) -> Vec<Claimed> {
        let mut good = Vec::with_capacity(rows.len());
        for row in rows {
            let kind = row.kind.as_deref();
            // What is no JSON is given as the text that it is, unless somebody said what it has to be.
            let payload = serde_json::from_str(&row.payload);
            let payload = payload.unwrap_or_else(|_| Value::from(&*row.payload));
            match fits(spec, kind, &payload) {
                Ok(()) => good.push(row),
                Err(why) => {
                    let outcome = Outcome::Fatal(Failure::of("bad-arguments", why));
                    // A row that went with its claim is dead already; one that cannot be written now comes again after its lease.
                    let _again = self.settle_outside(spec, &row, outcome).await;
                }
            }
        }
        good
    }

    /// Extends the lease of a task that was claimed from outside.
    pub async fn queue_renew(&self, id: TaskId, token: u64) -> Result<Lease> {
        let found = self.queue_row(id).await?;
        let row = claimed(&found, token)?;
        let spec = self.queue_spec(&row.queue)?;
        let store = self.queue_store(&row.queue).await?;
        let request = Request::Renew(vec![(row.handle, spec.lease)], clock::wall());
        match store.get(request).await? {
            Answer::Renewed(kept) => match kept.first() {
                Some((_, cancelled)) => Ok(Lease {
                    length: spec.lease,
                    cancelled: *cancelled,
                }),
                None => Err(stale(id, token)),
            },
            _ => astray(),
        }
    }

    /// Says how an attempt went that was claimed from outside. It is in the store when this returns.
    pub async fn queue_settle(&self, id: TaskId, token: u64, outcome: Outcome) -> Result<()> {
        let found = self.queue_row(id).await?;
        let row = claimed(&found, token)?;
        let spec = self.queue_spec(&row.queue)?;
        self.settle_outside(&spec, &row, outcome).await
    }

    async fn settle_outside(&self, spec: &Queue, row: &Claimed, outcome: Outcome) -> Result<()> {
        let (id, token) = (row.handle.task, row.handle.token);
        let dice = Dice::new(clock::mono().0 ^ token).share();
        let settlement = settle(spec, row, outcome, clock::wall(), dice);
        let store = self.queue_store(&row.queue).await?;
        let request = Request::Settle(Box::new(settlement.clone()), clock::wall());
        match store.get(request).await? {
            Answer::Settled(true) => {}
            Answer::Settled(false) => return Err(stale(id, token)),
            _ => return astray(),
        }
        if let Some(at) = settlement
            .run_at
            .filter(|_| settlement.state == TaskState::Scheduled)
        {
            self.queue_due(&row.queue, at);
        }
        self.queue_input(Input::Hint(Some(row.queue.clone())));
        let mut state = lock(&self.state);
        state
            .queues
            .count(&row.queue, row.kind.as_ref(), &settlement, false);
        if settlement.state.is_final() {
            for waiter in state.queues.waiting.remove(&id).unwrap_or_default() {
                let _gone = waiter.send(TaskOutcome {
                    state: settlement.state,
                    attempt: settlement.attempt,
                    result: settlement.result.clone(),
                    failure: settlement.failure.clone(),
                });
            }
        }
        state.tell_settled(row, &settlement);
        Ok(())
    }
}

fn stale(id: TaskId, token: u64) -> Error {
    Error::WrongState(format!(
        "task {id} is not yours any more: the claim with token {token} is not its newest, or it was settled"
    ))
}

/// A row as it was claimed from outside; refused if the claim is another one, or one of a node.
fn claimed(found: &QueueSelf, token: u64) -> Result<Claimed> {
    let row = &found.row;
    let outside = row
        .owner
        .as_deref()
        .is_some_and(|owner| owner.starts_with("ext:"));
    if row.state != TaskState::Running || row.token != token || !outside {
        return Err(stale(row.id, token));
    }
    let queue = JobId::parse(&row.queue).map_err(|_| no_task(row.id))?;
    Ok(Claimed {
        handle: gaffer_core::queue::task::Handle { task: row.id, token },
        queue,
        kind: row.kind.as_deref().map(Into::into),
        payload: row.payload.as_str().into(),
        meta: row.meta.as_deref().map(Into::into),
        attempt: row.attempt,
        attempts_max: row.attempts_max,
        crashes: row.crashes,
        interrupts: row.interrupts,
        timeout_ms: row.timeout_ms,
        created: row.created,
        runnable: row.run_at.unwrap_or(Wall(row.created.0)),
        cancelled: row.cancelled,
        owner: row.owner.as_deref().unwrap_or_default().into(),
    })
}
