//! How an engine is set up.

use crate::containment::Containment;
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

/// Settings of an engine. `Settings::new(dir)` has defaults for everything else.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Store, shims and logs; made (0700) if missing.
    pub state_dir: PathBuf,
    /// Name of the node.
    pub node: String,
    /// The `gaffer-shim` program; none: `$GAFFER_SHIM`, else beside this program, else in `PATH`.
    pub shim: Option<PathBuf>,
    /// How runs are grouped.
    pub grouping: Grouping,
    /// Cgroups.
    pub containment: Containment,
    /// Death records kept per job.
    pub history_runs: u32,
    /// Age of the oldest.
    pub history_age: Duration,
    /// If set: when this engine is killed and no successor comes within this time, the shims stop all runs.
    pub leash: Option<Duration>,
    /// Starts in progress at once.
    pub start_at_once: Option<u32>,
    /// The daemon's own file: `[gaffer]` counts there and is an error in any other. None: nobody's file is checked.
    pub config_file: Option<PathBuf>,
    /// Total time of an orderly shutdown.
    pub stop_within: Duration,
}

impl Settings {
    /// Defaults, with everything below `state_dir`.
    pub fn new(state_dir: impl Into<PathBuf>) -> Settings {
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Settings {
            state_dir: state_dir.into(),
            node,
            shim: None,
            grouping: Grouping::default(),
            containment: Containment::default(),
            history_runs: 200,
            history_age: Duration::from_secs(30 * 86_400),
            leash: None,
            start_at_once: None,
            config_file: None,
            stop_within: Duration::from_secs(90),
        }
    }

    pub(crate) fn shims_dir(&self) -> PathBuf {
        self.state_dir.join("shims")
    }

    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.state_dir.join("logs")
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
