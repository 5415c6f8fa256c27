//! The HTTP side: connections, what every request passes, and the routes.

pub mod attach;
pub mod body;
pub mod config;
pub mod drain;
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
pub mod plugins;
pub mod query;
pub mod queue_lines;
pub mod queues;
pub mod router;
pub mod runs;
pub mod schedules;
pub mod server;
pub mod sorted;
pub mod stats;
pub mod stream;
pub mod task_files;
pub mod tasks;
pub mod weave;
pub mod webhooks;

use crate::guard::Guard;
use crate::refusal::Refusal;
use gaffer::Handle;
use gaffer_api::error::Code;
use gaffer_core::time::Wall;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{mpsc, watch};

/// What handlers share.
pub struct App {
    /// The engine.
    pub handle: Handle,
    /// Credentials and users.
    pub keyring: crate::access::keyring::Keyring,
    /// What a reload of the daemon's file may change.
    pub live: RwLock<Arc<Live>>,
    /// Name of the node.
    pub node: Arc<str>,
    /// The daemon's own file.
    pub config: Option<PathBuf>,
    /// Answers to requests with an `Idempotency-Key`.
    pub answers: idempotency::Answers,
    /// True once the daemon ends: streams end then.
    pub closing: watch::Receiver<bool>,
    /// Wishes about the daemon itself, for `life`.
    pub wishes: mpsc::Sender<DaemonWish>,
    /// Name of the cgroup below which our runs live.
    pub runs_group: Option<String>,
    /// Connections that are open now.
    pub connections: watch::Sender<usize>,
    /// Numbers requests.
    pub requests: AtomicU64,
    /// What is remembered of other nodes.
    pub fleet: crate::fleet::Fleet,
    /// Plugins.
    pub plugins: crate::plugins::Plugins,
    /// What doctor needs to know of how we were started.
    pub setup: crate::doctor::Setup,
}

/// What a reload of the daemon's file may change.
#[derive(Clone, Debug)]
pub struct Live {
    /// Who may ask.
    pub guard: Guard,
    /// TLS of the TCP listeners.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Where we listen, as shown.
    pub listen: Vec<String>,
    /// `[node.X]`: other nodes.
    pub nodes: gaffer_config::UserNodes,
    /// `[gaffer] lookup`.
    pub lookup: Vec<String>,
    /// URL under which others reach this node.
    pub origin: String,
    /// `[gaffer] labels`.
    pub labels: BTreeMap<String, String>,
    /// `[gaffer] metrics`.
    pub metrics: bool,
    /// `[gaffer] legacy_api`.
    pub legacy_api: bool,
    /// `[gaffer] require_token`.
    pub require_token: bool,
    /// Keys of `[gaffer]` that have changed and count at the next start only.
    pub later: Vec<&'static str>,
    /// The last reload was refused: nothing of it counts.
    pub refused: Option<RefusedFile>,
}

/// A file that could not be applied.
#[derive(Clone, Debug)]
pub struct RefusedFile {
    /// When.
    pub at: Wall,
    /// Why, in one line.
    pub reason: String,
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
        self.live().labels.clone()
    }

    /// Resolves when the daemon ends.
    pub async fn closed(&self) {
        let mut closing = self.closing.clone();
        // An error means the sender is gone, which is the end too.
        let _ended = closing.wait_for(|closing| *closing).await;
    }

    /// What is in force now.
    pub fn live(&self) -> Arc<Live> {
        // Nothing panics while it writes.
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is in force.
    pub fn change(&self, change: impl FnOnce(&mut Live)) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut live));
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
