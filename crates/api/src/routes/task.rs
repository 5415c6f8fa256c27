//! The routes of tasks.

use super::{Result, escape, query};
use crate::client::Client;
use crate::types::task::{
    Task, TaskFiles, TaskGc, TaskGcRequest, TaskItem, TaskKillRequest, TaskRequest, TaskRetryRequest,
    TaskStep,
};
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use std::time::Duration;

fn path(id: &str) -> String {
    format!("/v1/tasks/{}", escape(id))
}

impl Client {
    /// All tasks, or those that are `active` or `finished`, in the order of their ids.
    pub async fn tasks(&self, location: Option<&str>) -> Result<Vec<TaskItem>> {
        let query = query(&[
            ("location", location.map(str::to_owned)),
            ("limit", Some("1000".to_owned())),
        ]);
        self.get_list(&format!("/v1/tasks{query}")).await
    }

    /// Accepts a task: it is on disk when this returns.
    pub async fn task_start(&self, request: &TaskRequest) -> Result<Task> {
        self.post("/v1/tasks", request).await
    }

    /// A task, with what its working directory takes on the disk.
    pub async fn task_with_disk(&self, id: &str) -> Result<Task> {
        self.get(&format!("{}?disk=true", path(id))).await
    }

    /// A step of a task, with what its runs use.
    pub async fn task_step(&self, id: &str, step: &str) -> Result<TaskStep> {
        self.get(&format!("{}/steps/{}", path(id), escape(step))).await
    }

    /// A task; with `spec` its definition too.
    pub async fn task(&self, id: &str, spec: bool) -> Result<Task> {
        let query = query(&[("spec", spec.then(|| "true".to_owned()))]);
        self.get(&format!("{}{query}", path(id))).await
    }

    /// The task when it is over, or, with `since`, when its revision is another; as it is when `within` has passed.
    pub async fn task_wait(&self, id: &str, since: Option<u64>, within: Duration) -> Result<Task> {
        let query = query(&[
            ("since", since.map(|since| since.to_string())),
            ("wait", Some(format!("{}ms", within.as_millis()))),
        ]);
        self.get(&format!("{}/wait{query}", path(id))).await
    }

    /// A directory below the working directory of a task; empty: itself.
    pub async fn task_files(&self, id: &str, dir: &str) -> Result<TaskFiles> {
        let query = query(&[("path", Some(dir.to_owned()).filter(|dir| !dir.is_empty()))]);
        self.get(&format!("{}/files{query}", path(id))).await
    }

    /// At most a mebibyte of a file below the working directory of a task; `gaffer-offset` is the offset to go on with.
    pub async fn task_file(&self, id: &str, file: &str, from: u64) -> Result<(HeaderMap, Bytes)> {
        let query = query(&[("path", Some(file.to_owned())), ("from", Some(from.to_string()))]);
        self.get_bytes(&format!("{}/files/content{query}", path(id)))
            .await
    }

    /// Asks for the end of a task.
    pub async fn task_kill(&self, id: &str, request: &TaskKillRequest) -> Result<Task> {
        self.post(&format!("{}/kill", path(id)), request).await
    }

    /// Runs a part of a task that is over again; gives the new task.
    pub async fn task_retry(&self, id: &str, request: &TaskRetryRequest) -> Result<Task> {
        self.post(&format!("{}/retry", path(id)), request).await
    }

    /// Removes tasks that are over; gives them, the oldest first.
    pub async fn tasks_gc(&self, request: &TaskGcRequest) -> Result<Vec<TaskGc>> {
        self.post("/v1/tasks/gc", request).await
    }

    /// Freezes a task.
    pub async fn task_pause(&self, id: &str) -> Result<Task> {
        let nothing = serde_json::json!({});
        self.post(&format!("{}/pause", path(id)), &nothing).await
    }

    /// Lets a task go on.
    pub async fn task_resume(&self, id: &str) -> Result<Task> {
        let nothing = serde_json::json!({});
        self.post(&format!("{}/resume", path(id)), &nothing).await
    }

    /// Output of a run of a step (its attempt; none: the newest) from an offset, or `end`. The header `gaffer-offset`
    /// names the offset to go on with.
    pub async fn task_log(
        &self,
        id: &str,
        step: &str,
        stream: &str,
        attempt: Option<u32>,
        from: &str,
    ) -> Result<(HeaderMap, Bytes)> {
        let query = query(&[
            ("attempt", attempt.map(|attempt| attempt.to_string())),
            ("from", Some(from.to_owned())),
        ]);
        let (step, stream) = (escape(step), escape(stream));
        self.get_bytes(&format!("{}/steps/{step}/logs/{stream}{query}", path(id)))
            .await
    }
}
