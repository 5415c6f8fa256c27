//! The routes of queues and their tasks.

use super::{LogQuery, Result, escape, query};
use crate::client::{Client, ItemStream};
use crate::types::queue::{
    ClaimRequest, ClaimedTask, Count, PushBody, PushedTask, Queue, QueueMinute, QueuePause, QueueState,
    QueuedOutcome, QueuedTask, RenewRequest, Renewed, SettleRequest, TaskEdit,
};
use crate::types::{LogLine, ScaleRequest};
use serde_json::json;
use std::time::Duration;

fn path(session: &str, queue: &str) -> String {
    format!("/v1/queues/{}/{}", escape(session), escape(queue))
}

/// Which tasks are listed.
#[derive(Clone, Debug, Default)]
pub struct QueueTasksQuery {
    /// In this state.
    pub state: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
    /// RFC 3339 time, or a duration back from now.
    pub since: Option<String>,
    /// So many at most.
    pub limit: Option<usize>,
    /// Only those with smaller numbers: the last one of the page before.
    pub cursor: Option<i64>,
}

impl Client {
    /// All queues, in the order of their names.
    pub async fn queues(&self) -> Result<Vec<Queue>> {
        self.get_list("/v1/queues").await
    }

    /// One queue; with `spec` its definition too.
    pub async fn queue(&self, session: &str, queue: &str, spec: bool) -> Result<Queue> {
        let query = query(&[("spec", spec.then(|| "true".to_owned()))]);
        self.get(&format!("{}{query}", path(session, queue))).await
    }

    /// Puts tasks in, all or none. They are in the store when this returns.
    pub async fn queue_push(&self, session: &str, queue: &str, tasks: &PushBody) -> Result<Vec<PushedTask>> {
        self.post(&format!("{}/tasks", path(session, queue)), tasks).await
    }

    /// What a queue did in the last `window` (`1h`), by minute and kind, oldest first.
    pub async fn queue_stats(&self, session: &str, queue: &str, window: &str) -> Result<Vec<QueueMinute>> {
        let query = query(&[("window", Some(window.to_owned()))]);
        self.get(&format!("{}/stats{query}", path(session, queue))).await
    }

    /// What the workers of a queue wrote, of all its tasks or of one, each line with the number of its task. `instance` has no meaning here.
    pub async fn queue_logs(
        &self,
        session: &str,
        queue: &str,
        task: Option<i64>,
        wanted: &LogQuery,
    ) -> Result<ItemStream<LogLine>> {
        let mut parameters = vec![("task", task.map(|task| task.to_string()))];
        parameters.extend(wanted.parameters());
        self.stream_lines(&format!("{}/logs{}", path(session, queue), query(&parameters)))
            .await
    }

    /// Tasks of a queue, newest first.
    pub async fn queue_tasks(
        &self,
        session: &str,
        queue: &str,
        which: &QueueTasksQuery,
    ) -> Result<Vec<QueuedTask>> {
        let query = query(&[
            ("state", which.state.clone()),
            ("kind", which.kind.clone()),
            ("since", which.since.clone()),
            ("limit", which.limit.map(|limit| limit.to_string())),
            ("cursor", which.cursor.map(|id| id.to_string())),
        ]);
        self.get(&format!("{}/tasks{query}", path(session, queue))).await
    }

    /// Nothing is claimed any more; with `running` workers are frozen.
    pub async fn queue_pause(&self, session: &str, queue: &str, pause: &QueuePause) -> Result<Queue> {
        self.post(&format!("{}/pause", path(session, queue)), pause).await
    }

    /// Changes the number of workers.
    pub async fn queue_scale(&self, session: &str, queue: &str, scale: &ScaleRequest) -> Result<Queue> {
        self.post(&format!("{}/scale", path(session, queue)), scale).await
    }

    /// `resume`, `close` or `open`.
    pub async fn queue_act(&self, session: &str, queue: &str, verb: &str) -> Result<Queue> {
        self.post(&format!("{}/{}", path(session, queue), escape(verb)), &json!({}))
            .await
    }

    /// Removes tasks of a state.
    pub async fn queue_purge(&self, session: &str, queue: &str, which: &QueueState) -> Result<Count> {
        self.post(&format!("{}/purge", path(session, queue)), which).await
    }

    /// Has tasks of a final state run again.
    pub async fn queue_retry(&self, session: &str, queue: &str, which: &QueueState) -> Result<Count> {
        self.post(&format!("{}/retry", path(session, queue)), which).await
    }

    /// Takes tasks, for a worker that is not one of the daemon's.
    pub async fn queue_claim(
        &self,
        session: &str,
        queue: &str,
        claim: &ClaimRequest,
    ) -> Result<Vec<ClaimedTask>> {
        self.post(&format!("{}/claim", path(session, queue)), claim).await
    }

    /// A queued task with its attempts.
    pub async fn queued_task(&self, id: i64) -> Result<QueuedTask> {
        self.get(&format!("/v1/tasks/{id}")).await
    }

    /// How a queued task ended, or its state when `within` has passed.
    pub async fn queued_wait(&self, id: i64, within: Duration) -> Result<QueuedOutcome> {
        let query = query(&[("wait", Some(format!("{}ms", within.as_millis())))]);
        self.get(&format!("/v1/tasks/{id}/wait{query}")).await
    }

    /// Withdraws a queued task; one that runs is asked to end.
    pub async fn queued_cancel(&self, id: i64) -> Result<QueuedTask> {
        self.post(&format!("/v1/tasks/{id}/cancel"), &json!({})).await
    }

    /// Has a queued task that is over run again.
    pub async fn queued_retry(&self, id: i64) -> Result<QueuedTask> {
        self.post(&format!("/v1/tasks/{id}/retry"), &json!({})).await
    }

    /// Gives a queued task another payload; one that is over becomes a new one.
    pub async fn queued_edit(&self, id: i64, edit: &TaskEdit) -> Result<QueuedTask> {
        self.post(&format!("/v1/tasks/{id}/edit"), edit).await
    }

    /// Removes a queued task that does not run.
    pub async fn queued_remove(&self, id: i64) -> Result<QueuedTask> {
        self.delete(&format!("/v1/tasks/{id}")).await
    }

    /// Extends the lease of a claimed task.
    pub async fn queued_renew(&self, id: i64, renew: &RenewRequest) -> Result<Renewed> {
        self.post(&format!("/v1/tasks/{id}/renew"), renew).await
    }

    /// Says how an attempt went.
    pub async fn queued_settle(&self, id: i64, settle: &SettleRequest) -> Result<QueuedTask> {
        self.post(&format!("/v1/tasks/{id}/settle"), settle).await
    }
}
