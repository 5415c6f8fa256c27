//! How an engine is set up.

use crate::containment::Containment;
use gaffer_config::LogsTotal;
use gaffer_core::time::Duration;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// How runs are grouped under shims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    /// One shim for all runs of a session.
    #[default]
    Session,
    /// One per job.
    Job,
    /// One per run.
    Run,
}

/// Which tasks of its root a node leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TasksLed {
    /// All.
    #[default]
    All,
    /// One, when it is asked for; the others belong to runners of their own.
    Only(String),
    /// None: it looks, and touches nothing.
    Nothing,
}

impl TasksLed {
    /// Is this one led here?
    pub fn has(&self, id: &str) -> bool {
        match self {
            TasksLed::All => true,
            TasksLed::Only(own) => own == id,
            TasksLed::Nothing => false,
        }
    }
}

/// Settings of an engine. `Settings::new(dir)` has defaults for everything else.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Store, shims and logs; made (0700) if missing.
    pub state_dir: PathBuf,
    /// Name of the node.
    pub node: String,
    /// The `gaffer-shim` program; none: `$GAFFER_SHIM`, else beside this program, else in `PATH`.
    pub shim: Option<PathBuf>,
    /// Cgroups.
    pub containment: Containment,
    /// If set: when this engine is killed and no successor comes within this time, the shims stop all runs.
    pub leash: Option<Duration>,
    /// URL of the PostgreSQL database of the queues (`postgres://USER@HOST/DATABASE`), which nodes share; none: a file in the state
    /// directory.
    pub queue_store: Option<String>,
    /// Checkpoint root of the tasks; none: `tasks` in the state directory.
    pub tasks_root: Option<PathBuf>,
    /// Which tasks of that root are led here.
    pub tasks_led: TasksLed,
    /// The daemon's own file: `[gaffer]` counts there and is an error in any other. None: nobody's file is checked.
    pub config_file: Option<PathBuf>,
    /// What may change later, as it is at first.
    pub tuning: Tuning,
}

/// What may change while the engine runs: [`crate::Handle::tune`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// How runs are grouped; counts for runs that start from now on.
    pub grouping: Grouping,
    /// Death records kept per job.
    pub history_runs: u32,
    /// Age of the oldest.
    pub history_age: Duration,
    /// Starts in progress at once; none: 2 × cores.
    pub start_at_once: Option<u32>,
    /// Pause between the starts of different jobs.
    pub start_spacing: Duration,
    /// Total time of an orderly shutdown; what is left then is killed.
    pub stop_within: Duration,
    /// A run is sampled at most so often.
    pub stats_every: Duration,
    /// Budget of all logs.
    pub logs_total: LogsTotal,
    /// What `shell = true` is; counts for runs that start from now on.
    pub shell: String,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            grouping: Grouping::default(),
            history_runs: 200,
            history_age: Duration::from_secs(30 * 86_400),
            start_at_once: None,
            start_spacing: Duration::ZERO,
            stop_within: Duration::from_secs(90),
            stats_every: Duration::from_secs(1),
            logs_total: LogsTotal::Percent(10),
            shell: gaffer_config::DEFAULT_SHELL.to_owned(),
        }
    }
}

impl From<&gaffer_config::DaemonSettings> for Tuning {
    fn from(daemon: &gaffer_config::DaemonSettings) -> Tuning {
        Tuning {
            grouping: match daemon.shim {
                gaffer_config::ShimGrouping::Session => Grouping::Session,
                gaffer_config::ShimGrouping::Job => Grouping::Job,
                gaffer_config::ShimGrouping::Run => Grouping::Run,
            },
            history_runs: daemon.history.runs,
            history_age: daemon.history.age,
            start_at_once: daemon.start_at_once,
            start_spacing: daemon.start_spacing,
            stop_within: daemon.stop_within,
            stats_every: daemon.stats_every,
            logs_total: daemon.logs_total,
            shell: daemon.shell.clone(),
        }
    }
}

impl Settings {
    /// Defaults, with everything below `state_dir`.
    pub fn new(state_dir: impl Into<PathBuf>) -> Settings {
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Settings {
            state_dir: state_dir.into(),
            node,
            shim: None,
            containment: Containment::default(),
            leash: None,
            queue_store: None,
            tasks_root: None,
            tasks_led: TasksLed::default(),
            config_file: None,
            tuning: Tuning::default(),
        }
    }

    pub(crate) fn shims_dir(&self) -> PathBuf {
        self.state_dir.join("shims")
    }

    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.state_dir.join("logs")
    }

    /// Checkpoint root of this node's tasks.
    pub(crate) fn tasks_dir(&self) -> PathBuf {
        match &self.tasks_root {
            Some(root) => root.clone(),
            None => self.state_dir.join("tasks"),
        }
    }

    pub(crate) fn leash(&self) -> Option<gaffer_shim::message::Leash> {
        let wait_ms = u64::try_from(self.leash?.as_millis()).unwrap_or(u64::MAX);
        Some(gaffer_shim::message::Leash { wait_ms })
    }

    /// Where the shim program is.
    pub(crate) fn shim_binary(&self) -> std::io::Result<PathBuf> {
        if let Some(path) = self
            .shim
            .clone()
            .or_else(|| std::env::var_os("GAFFER_SHIM").map(PathBuf::from))
        {
            // The shim is started in `/`: a relative path would mean something else there.
            return std::path::absolute(path);
        }
        let mut places: Vec<PathBuf> = Vec::new();
        if let Ok(own) = std::env::current_exe() {
            // `../` of a test program or an example is where cargo puts binaries.
            places.extend(own.ancestors().skip(1).take(2).map(Path::to_owned));
        }
        places.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
        let found = places
            .into_iter()
            .map(|place| place.join("gaffer-shim"))
            .find(|path| path.is_file());
        found.ok_or_else(|| {
            std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "gaffer-shim is neither beside this program nor in PATH; set GAFFER_SHIM",
            )
        })
    }
}

/// Makes a directory that only we can enter. It is private from its first moment.
pub(crate) fn private_dir(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}
