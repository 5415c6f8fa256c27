//! The HTTP side: connections, what every request passes, and the routes.

pub mod attach;
pub mod body;
pub mod events;
pub mod idempotency;
pub mod jobs;
pub mod lines;
pub mod logs;
pub mod merge;
pub mod metrics;
pub mod nodes;
pub mod operations;
pub mod page;
pub mod query;
pub mod router;
pub mod runs;
pub mod server;
pub mod stats;
pub mod stream;
pub mod weave;

use crate::guard::Guard;
use crate::refusal::Refusal;
use gaffer::Handle;
use gaffer_api::error::Code;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, watch};

/// What handlers share.
pub struct App {
    /// The engine.
    pub handle: Handle,
    /// Who may ask.
    pub guard: Guard,
    /// Name of the node.
    pub node: Arc<str>,
    /// `[gaffer] labels`, as the file says now.
    pub labels: watch::Receiver<BTreeMap<String, String>>,
    /// Where we listen, as shown.
    pub listen: Vec<String>,
    /// The daemon's own file.
    pub config: Option<PathBuf>,
    /// Answers to requests with an `Idempotency-Key`.
    pub answers: idempotency::Answers,
    /// True once the daemon ends: streams end then.
    pub closing: watch::Receiver<bool>,
    /// Wishes about the daemon itself, for `life`.
    pub wishes: mpsc::Sender<DaemonWish>,
    /// `[gaffer] metrics`.
    pub metrics: bool,
    /// Name of the cgroup below which our runs live.
    pub runs_group: Option<String>,
    /// Connections that are open now.
    pub connections: watch::Sender<usize>,
    /// Numbers requests.
    pub requests: AtomicU64,
    /// What doctor needs to know of how we were started.
    pub setup: crate::doctor::Setup,
}

/// The state that axum hands to handlers.
pub type Shared = Arc<App>;

/// What is asked of the daemon itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonWish {
    /// End, jobs are stopped save `keep_running` ones.
    Stop,
    /// End, all jobs are stopped.
    StopAll,
    /// End, all jobs go on.
    Leave,
    /// Apply the file again.
    Reload,
}

impl App {
    /// Labels of the node.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.labels.borrow().clone()
    }

    /// Resolves when the daemon ends.
    pub async fn closed(&self) {
        let mut closing = self.closing.clone();
        // An error means the sender is gone, which is the end too.
        let _ended = closing.wait_for(|closing| *closing).await;
    }

    /// Id for the next request.
    pub fn request_id(&self) -> String {
        format!("req-{}", self.requests.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Asks something of the daemon itself.
    pub fn wish(&self, wish: DaemonWish) -> Result<(), Refusal> {
        self.wishes.try_send(wish).map_err(|_| {
            Refusal::new(
                Code::Busy,
                "the daemon is carrying out another request of this kind",
            )
        })
    }
}
