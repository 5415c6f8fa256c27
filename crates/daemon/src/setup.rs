//! From options, environment and file to what the daemon does: option over variable over file.

use crate::listen::{self, Bind};
use crate::options::Options;
use gaffer::{Containment, Settings, TasksLed, Tuning};
use gaffer_config::{Bundle, DaemonSettings, Diagnostics, GatherOptions, LogLevel, RealHost};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::Level;

/// How long shims of a private daemon wait for a successor when it is killed.
const LEASH: Duration = Duration::from_secs(10);

/// Names of a folder's file, best first.
const IN_FOLDER: &[&str] = &["gaffer.toml", "gafferd.ini", "gaffer.ini", "Procfile"];
/// The same where nobody named the folder: `gaffer.ini` is the client's there, and a `Procfile` nobody's.
const OWN: &[&str] = &["gaffer.toml", "gafferd.ini"];
/// What errors call the options of the command line.
const OPTIONS: &str = "/options of gafferd";

/// Why the daemon does not start. Runs of an earlier one are untouched.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file has errors; they are printed as `gaffer check` does.
    #[error("{}", .0.render(false))]
    Config(Diagnostics),
    /// No file in the folder.
    #[error("there is no gaffer.toml, Procfile or gaffer.ini in {}", .0.display())]
    NoFile(PathBuf),
    /// Addresses.
    #[error("{0}")]
    Listen(#[from] listen::ListenError),
    /// A setting that cannot be.
    #[error("{0}")]
    Wrong(String),
}

/// All that is settled before anything is opened.
#[derive(Debug)]
pub struct Plan {
    /// The daemon's file and what came from it.
    pub file: Option<File>,
    /// Of the engine.
    pub engine: Settings,
    /// Where to listen.
    pub binds: Vec<Bind>,
    /// Control socket.
    pub socket: PathBuf,
    /// `[gaffer]` of the file, or its defaults.
    pub daemon: DaemonSettings,
    /// How much is logged.
    pub level: Level,
    /// What programs write is written into the log too.
    pub shows_output: bool,
    /// What options say stays when the file changes.
    pub fixed: Fixed,
    /// Written and removed.
    pub pidfile: Option<PathBuf>,
    /// How often look-up services hear from us; none: as usual.
    pub lookup_ping: Option<Duration>,
}

/// What was said by an option, which wins over the file.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    /// `--bind`.
    pub bind: bool,
    /// `--log-level`, `-v`.
    pub level: bool,
}

/// The daemon's own file.
#[derive(Clone, Debug)]
pub struct File {
    /// Absolute.
    pub path: PathBuf,
    /// To read it again.
    pub profiles: Vec<String>,
    /// As it is now.
    pub bundle: Bundle,
    /// Keys of `[gaffer]` that options said, as the text of a file that is laid over this one.
    pub options: String,
}

impl Plan {
    /// Whom the control socket lets in.
    pub fn access(&self) -> listen::Access {
        listen::Access {
            mode: self.daemon.socket_mode,
            owner: self.daemon.socket_owner,
        }
    }
}

impl File {
    /// Reads a file, checking it whole, with what options say laid over `[gaffer]`.
    pub fn read(path: &Path, profiles: &[String], keys: &str) -> Result<(File, DaemonSettings), SetupError> {
        let options = GatherOptions {
            profiles: profiles.to_vec(),
            ..GatherOptions::default()
        };
        let bundle = gaffer_config::gather(&[path.to_owned()], &options).map_err(SetupError::Config)?;
        let daemon = settings(bundle.clone(), keys)?;
        let file = File {
            path: path.to_owned(),
            profiles: profiles.to_vec(),
            bundle,
            options: keys.to_owned(),
        };
        Ok((file, daemon))
    }
}

/// `[gaffer]` of these files, and above it what options say.
fn settings(mut bundle: Bundle, keys: &str) -> Result<DaemonSettings, SetupError> {
    let options = PathBuf::from(OPTIONS);
    if !keys.is_empty() {
        match bundle.root.as_os_str().is_empty() {
            true => bundle.root.clone_from(&options),
            false => bundle.overlays.push(options.clone()),
        }
        bundle.files.insert(options, keys.to_owned());
    }
    gaffer_config::load(&bundle, &RealHost)
        .map(|config| config.daemon)
        .map_err(SetupError::Config)
}

/// Settles everything.
pub fn plan(options: &Options) -> Result<Plan, SetupError> {
    let keys = options
        .keys
        .as_file(options.verbose > 0)
        .map_err(SetupError::Wrong)?;
    let named = options.config.clone().or_else(|| options.file.clone());
    let path = match named {
        Some(path) => Some(find(&path, IN_FOLDER)?),
        // A private daemon has what it is told, and nothing else.
        None if options.leash_fd.is_some() || options.task_root.is_some() => None,
        None => found()?,
    };
    let (file, daemon) = match path {
        None if keys.is_empty() => (None, DaemonSettings::default()),
        None => (None, settings(Bundle::default(), &keys)?),
        Some(path) => {
            let (file, daemon) = File::read(&path, &options.profile, &keys)?;
            (Some(file), daemon)
        }
    };
    let config_file = file.as_ref().map(|file: &File| file.bundle.root.clone());
    let texts = if options.bind.is_empty() {
        &daemon.bind
    } else {
        &options.bind
    };
    let binds = binds(texts)?;
    let socket = match options.socket.clone().or_else(|| daemon.socket.clone()) {
        Some(socket) => socket,
        None => listen::default_socket()?,
    };
    let state_dir = match options.state_dir.clone().or_else(|| daemon.state_dir.clone()) {
        Some(dir) => dir,
        None => default_state_dir()?,
    };
    let level = match options.verbose {
        0 => options.log_level.unwrap_or_else(|| level_of(daemon.log_level)),
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    Ok(Plan {
        file,
        engine: Settings {
            config_file,
            ..engine(
                &absolute(&state_dir)?,
                &daemon,
                options.leash_fd.is_some() && options.task.is_none(),
                &tasks(options)?,
            )
        },
        binds,
        socket: absolute(&socket)?,
        level,
        shows_output: options.verbose > 1,
        fixed: Fixed {
            bind: !options.bind.is_empty(),
            level: options.verbose > 0 || options.log_level.is_some(),
        },
        pidfile: options.pidfile.clone().or_else(|| daemon.pidfile.clone()),
        lookup_ping: options.lookup_ping,
        daemon,
    })
}

/// Where to listen; `none` is nothing.
pub fn binds(texts: &[String]) -> Result<Vec<Bind>, listen::ListenError> {
    let mut binds = Vec::new();
    for text in texts {
        binds.extend(listen::parse_bind(text)?);
    }
    Ok(binds)
}

/// From the file's word.
pub fn level_of(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    }
}

/// Root of the tasks and which of them are led.
fn tasks(options: &Options) -> Result<(Option<PathBuf>, TasksLed), SetupError> {
    let root = options.task_root.as_deref().map(absolute).transpose()?;
    let led = match (&root, &options.task) {
        (None, _) => TasksLed::All,
        (Some(_), Some(id)) => TasksLed::Only(id.clone()),
        (Some(_), None) => TasksLed::Nothing,
    };
    Ok((root, led))
}

fn engine(
    state_dir: &Path,
    daemon: &DaemonSettings,
    leashed: bool,
    (tasks_root, tasks_led): &(Option<PathBuf>, TasksLed),
) -> Settings {
    let mut settings = Settings::new(state_dir);
    settings.tasks_root.clone_from(tasks_root);
    settings.tasks_led.clone_from(tasks_led);
    if let Some(name) = &daemon.name {
        settings.node.clone_from(name);
    }
    settings.containment = match daemon.containment {
        gaffer_config::Containment::Auto => Containment::Auto,
        gaffer_config::Containment::Require => Containment::Require,
        gaffer_config::Containment::Off => Containment::Off,
    };
    settings.queue_store.clone_from(&daemon.queue_store);
    settings.tuning = Tuning::from(daemon);
    settings.leash = leashed.then_some(LEASH);
    settings
}

/// A file, or the one that lies in a folder.
fn find(path: &Path, names: &[&str]) -> Result<PathBuf, SetupError> {
    let path = absolute(path)?;
    if !path.is_dir() {
        return Ok(path);
    }
    let found = names
        .iter()
        .map(|name| path.join(name))
        .find(|file| file.is_file());
    found.ok_or(SetupError::NoFile(path))
}

/// The file of a daemon that is told of none: `$GAFFERD_CONFIG`, else where the original looks.
fn found() -> Result<Option<PathBuf>, SetupError> {
    if let Some(path) = std::env::var_os("GAFFERD_CONFIG").filter(|path| !path.is_empty()) {
        return find(Path::new(&path), IN_FOLDER).map(Some);
    }
    let folders = match rustix::process::getuid().is_root() {
        true => vec![
            PathBuf::from("/usr/local/etc/gaffer"),
            PathBuf::from("/etc/gaffer"),
        ],
        false => Vec::new(),
    };
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.map(|home| PathBuf::from(home).join(".gaffer"));
    let mut files = folders
        .into_iter()
        .chain(home)
        .flat_map(|folder| OWN.iter().map(move |name| folder.join(name)));
    Ok(files.find(|file| file.is_file()))
}

fn absolute(path: &Path) -> Result<PathBuf, SetupError> {
    std::path::absolute(path).map_err(|error| SetupError::Wrong(format!("{}: {error}", path.display())))
}

fn default_state_dir() -> Result<PathBuf, SetupError> {
    if rustix::process::getuid().is_root() {
        return Ok(PathBuf::from("/var/lib/gaffer"));
    }
    let var = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(dir) = var("XDG_STATE_HOME") {
        return Ok(dir.join("gaffer"));
    }
    var("HOME")
        .map(|home| home.join(".local/state/gaffer"))
        .ok_or_else(|| {
            SetupError::Wrong(
                "neither XDG_STATE_HOME nor HOME is set: say where the state belongs with --state-dir"
                    .to_owned(),
            )
        })
}
