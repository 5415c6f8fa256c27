//! Opening an engine: everything that must hold before the first command is performed.

use crate::clock;
use crate::containment;
use crate::events;
use crate::handle::Handle;
use crate::notify;
use crate::owner;
use crate::recovery;
use crate::scarce;
use crate::settings::{Settings, private_dir};
use crate::state::{Ends, State};
use crate::store::{Store, StoreError};
use gaffer_queue::Numbered;
use rustix::fs::FlockOperation;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};

/// Deaths of each slot that backoff and flapping can depend on.
const PAST_DEATHS: usize = 16;

/// Why an engine cannot be opened. Nothing was changed, and runs of an earlier one live on.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The limit of open files leaves no room to supervise anything.
    #[error(
        "the hard limit of open files is {limit}, which is too low to supervise anything: the daemon needs {needed}; raise \
         LimitNOFILE= of the unit, or ulimit -Hn, before it is started"
    )]
    OpenFiles {
        /// As it is.
        limit: u64,
        /// At least.
        needed: u64,
    },
    /// Another daemon has it.
    #[error("another daemon uses the state directory {path}{}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// Directory.
        path: PathBuf,
        /// As the other one noted it.
        pid: Option<u32>,
    },
    /// Cannot be made, entered or written.
    #[error("cannot use the state directory {path}: {source}")]
    StateDir {
        /// Directory or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Locks and the write-ahead log do not work there.
    #[error(
        "the state directory {path} is on a {kind} file system, where locks cannot be trusted: choose a local one"
    )]
    FileSystem {
        /// Directory.
        path: PathBuf,
        /// `network`, `FUSE`.
        kind: &'static str,
    },
    /// Damaged, newer, full or read-only.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// `containment = "require"` cannot be had.
    #[error("{0}")]
    Containment(String),
    /// The journals or shims cannot be read.
    #[error("cannot take charge of what runs: {0}")]
    Recovery(std::io::Error),
}

/// A running engine. Dropping it leaves all runs to their shims, as a crash would; see [`Handle::shutdown`].
pub struct Engine {
    handle: Handle,
    owner: tokio::task::JoinHandle<()>,
    schedules: tokio::task::JoinHandle<()>,
    starts: tokio::task::JoinHandle<()>,
    /// Held for life: two engines never share a state directory.
    _lock: File,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.owner.abort();
        self.schedules.abort();
        self.starts.abort();
        let queues = {
            let mut state = owner::lock(&self.handle.state);
            state.drop_handlers();
            let homes = state.queues.homes.all_mut();
            homes.filter_map(|home| home.store.take()).collect::<Vec<_>>()
        };
        // The file is for the next engine, perhaps in this very program.
        queues.iter().for_each(Numbered::end);
    }
}

/// Removes what earlier lives left and nobody needs.
fn sweep(state: &State) {
    state.prune_history();
    state.sweep_groups();
}

/// A store of queues that had no number yet (it was the node's own until now) has one before a task is put into it.
async fn keep_store_numbers(state: &Mutex<State>) -> Result<(), StoreError> {
    let written = {
        let mut state = owner::lock(state);
        let defined = std::mem::take(&mut state.queues.defined);
        let changes = state.queues.homes.keep_numbers(&defined);
        state.queues.defined = defined;
        (!changes.is_empty()).then(|| state.store.begin_commit(changes))
    };
    match written {
        None => Ok(()),
        Some(written) => written
            .await
            .unwrap_or_else(|_| Err(StoreError::Failed("the store has ended".to_owned()))),
    }
}

impl Engine {
    /// Locks the state directory, opens the store, adopts what runs, and goes on from there.
    pub async fn open(settings: Settings) -> Result<Engine, OpenError> {
        enough_open_files()?;
        let settings = Arc::new(settings);
        let lock = take_lock(&settings.state_dir)?;
        let (store, mut loaded) = Store::open(&settings.state_dir.join("gaffer.db"))?;
        let cgroup_base = containment::prepare(settings.containment, &settings.state_dir)
            .map_err(OpenError::Containment)?;
        let (events_tx, events) = events::log(loaded.epoch);
        let (owner_tx, mut rx) = mpsc::unbounded_channel();
        let (ended_tx, ended) = watch::channel(None);
        let state = State::new(
            settings.clone(),
            &loaded,
            Ends {
                store: store.clone(),
                events: events_tx,
                owner: owner_tx.clone(),
                ended: ended_tx,
            },
            cgroup_base,
        );
        let state = Arc::new(Mutex::new(state));
        notify::open(&state, &settings.state_dir).map_err(|source| OpenError::StateDir {
            path: settings.state_dir.join("notify"),
            source,
        })?;
        let history = store.recent_deaths(PAST_DEATHS).await?;
        let pids = std::mem::take(&mut loaded.pids);
        {
            let mut state = owner::lock(&state);
            loaded
                .jobs
                .sort_by(|a, b| (&a.session, &a.job).cmp(&(&b.session, &b.job)));
            recovery::load_intent(&mut state, loaded);
        }
        recovery::recover(&state, &mut rx, history, &pids)
            .await
            .map_err(OpenError::Recovery)?;
        sweep(&owner::lock(&state));
        crate::task::service::resume(&state).await;
        let handle = Handle {
            state: state.clone(),
            owner: owner_tx,
            events,
            store,
            ended,
            settings,
            started: clock::wall(),
            host: Arc::new(gaffer_config::RealHost),
        };
        keep_store_numbers(&state).await?;
        owner::lock(&state).queues.runner = Some(crate::queue::runner(&handle));
        owner::lock(&state).resume_queues();
        let owner = tokio::spawn(owner::run(state.clone(), rx));
        crate::budget::begin(&state);
        let schedules = crate::schedule::begin(&handle);
        let starts = crate::task::begin(&handle);
        Ok(Engine {
            handle,
            owner,
            schedules,
            starts,
            _lock: lock,
        })
    }

    /// For talking to it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

fn enough_open_files() -> Result<(), OpenError> {
    let needed = scarce::OPEN_FILES_MIN;
    match scarce::too_low() {
        Some(limit) => Err(OpenError::OpenFiles { limit, needed }),
        None => Ok(()),
    }
}

/// Makes the directory private, and ours for as long as the file is open.
fn take_lock(dir: &Path) -> Result<File, OpenError> {
    use std::os::unix::fs::OpenOptionsExt;
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::StateDir { path, source }
    };
    private_dir(dir).map_err(unusable(dir))?;
    if let Some(kind) = untrusted_file_system(dir) {
        return Err(OpenError::FileSystem {
            path: dir.to_owned(),
            kind,
        });
    }
    let path = dir.join("lock");
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(unusable(&path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            // A hint for people; the lock itself is the truth.
            let pid = std::fs::read_to_string(&path)
                .ok()
                .and_then(|text| text.trim().parse().ok());
            return Err(OpenError::Locked {
                path: dir.to_owned(),
                pid,
            });
        }
        Err(error) => return Err(unusable(&path)(error.into())),
    }
    file.set_len(0).map_err(unusable(&path))?;
    rustix::io::write(&file, format!("{}\n", std::process::id()).as_bytes())
        .map_err(|error| unusable(&path)(error.into()))?;
    Ok(file)
}

/// Magic numbers of statfs(2).
fn untrusted_file_system(dir: &Path) -> Option<&'static str> {
    let kind = rustix::fs::statfs(dir).ok()?.f_type as u64 & 0xffff_ffff;
    match kind {
        0x6969 | 0x517b | 0xff53_4d42 | 0xfe53_4d42 | 0x0102_1997 | 0x00c3_6400 | 0x5346_414f => {
            Some("network")
        }
        0x6573_5546 => Some("FUSE"),
        _ => None,
    }
}
