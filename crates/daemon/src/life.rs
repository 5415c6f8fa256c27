//! The life of the daemon: bind, open the engine, apply the file, serve, and end in order.
//!
//! The order matters: everything that can fail for a reason of the caller's (file, port, socket) comes before the
//! engine is opened, so that a daemon that cannot start has touched nothing. Then the engine adopts what runs, the file is
//! applied as a client would, and only then is `gafferd ready` said.

use crate::access::keyring::{Keyring, KeyringError};
use crate::bound::Bound;
use crate::console;
use crate::http::idempotency::Answers;
use crate::http::router::router;
use crate::http::{App, DaemonWish, Shared};
use crate::journal;
use crate::listen;
use crate::lookup::registrar::{self, Registrar};
use crate::notify::Manager;
use crate::peer::{Uid, user_name};
use crate::pidfile::{self, PidFile};
use crate::reload;
use crate::setup::{File, Plan, SetupError};
use crate::tls;
use crate::view;
use crate::writer;
use gaffer::info::{ApplyOptions, ApplySource, Error};
use gaffer::{Engine, Handle, OpenError, TasksLed};
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// How long answers and streams may take to end.
const GOODBYE: Duration = Duration::from_secs(1);

/// What an orderly end takes at most beyond `stop_within`: killing, shims that leave, the store, goodbyes.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

/// Why the daemon ends with an exit code other than that of an essential job.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// Options and file.
    #[error("{0}")]
    Setup(#[from] SetupError),
    /// Listening.
    #[error("{0}")]
    Listen(#[from] listen::ListenError),
    /// The engine.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// Certificates.
    #[error("{0}")]
    Tls(#[from] gaffer_api::tls::TlsError),
    /// Credentials and users.
    #[error("{0}")]
    Keyring(#[from] KeyringError),
    /// The file was read, but not applied.
    #[error("{path} cannot be applied: {source}", path = .path.display())]
    Apply {
        /// File.
        path: PathBuf,
        /// Why.
        source: Error,
    },
    /// The pidfile belongs to somebody else.
    #[error("{0}")]
    Pidfile(#[from] pidfile::PidFileError),
    /// The operating system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
}

impl LifeError {
    /// 2: wrong usage or input; 1: anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            LifeError::Setup(_)
            | LifeError::Tls(_)
            | LifeError::Apply {
                source: Error::Config(_),
                ..
            } => 2,
            LifeError::Listen(
                listen::ListenError::OffLoopback { .. } | listen::ListenError::NotAnAddress(_),
            ) => 2,
            _ => 1,
        }
    }
}

fn system(what: &str) -> impl FnOnce(std::io::Error) -> LifeError + use<'_> {
    move |source| LifeError::System {
        what: what.to_owned(),
        source,
    }
}

/// What there is to keep others out.
type Secured = (Keyring, Option<Arc<rustls::ServerConfig>>);

/// Reads credentials and certificates, and sees that they are enough for where it listens.
fn secure(plan: &Plan) -> Result<Secured, LifeError> {
    let keyring = Keyring::open(&plan.engine.state_dir)?;
    listen::check_reach(&plan.binds, plan.daemon.tls.is_some(), keyring.has_any())?;
    Ok((keyring, plan.daemon.tls.as_ref().map(tls::config).transpose()?))
}

/// Lives until it is asked to end; the exit code. `ready` is called once it serves.
pub async fn live(plan: Plan, leash: Option<OwnedFd>, ready: impl FnOnce()) -> Result<u8, LifeError> {
    let manager = Manager::from_env();
    let began = view::time(view::now());
    let mut signals = Signals::new().map_err(system("signals cannot be watched"))?;
    let leash = leash
        .map(watch_leash)
        .transpose()
        .map_err(system("the leash cannot be watched"))?;
    if let Some(path) = &plan.pidfile {
        pidfile::refuse_second(path)?;
    }
    let secured = secure(&plan)?;
    let mut bound = Bound::open(&plan.binds, plan.daemon.backlog, &plan.socket, &plan.access())?;
    let engine = Engine::open(plan.engine.clone()).await?;
    let handle = engine.handle();
    let lines = tokio::spawn(journal::follow(handle.clone()));
    if let Some(file) = &plan.file
        && let Err(source) = apply(&handle, file).await
    {
        handle.shutdown(false, true, actor_of(file)).await;
        return Err(LifeError::Apply {
            path: file.path.clone(),
            source,
        });
    }
    let _pidfile = plan.pidfile.as_deref().map(PidFile::write).transpose()?;
    let (closing_tx, closing) = watch::channel(false);
    let (wishes_tx, mut wishes) = mpsc::channel(4);
    let app = Arc::new(app(&plan, &handle, secured, &bound, closing, wishes_tx));
    let router = router(app.clone());
    bound.serve(&app, &router);
    gaffer::give_back();
    crate::plugins::load(&app).await;
    let hooks = tokio::spawn(crate::webhooks::follow(app.clone()));
    let resting = tokio::spawn(crate::rest::watch(handle.clone()));
    console::begin(&plan, began);
    let mut registrar = Registrar::new(handle.clone(), plan.lookup_ping);
    registrar.serve(&plan.daemon.lookup, &origin(&plan.daemon, &bound, &plan.socket));
    say_ready(&bound.addresses(), &plan.socket);
    if let Some(manager) = &manager {
        manager.tell(&format!("READY=1\nMAINPID={}", std::process::id()));
    }
    ready();

    let mut life = Life {
        plan,
        handle: handle.clone(),
        app: app.clone(),
        router,
        bound,
        registrar,
        manager,
        wishes: &mut wishes,
        signals: &mut signals,
        leash,
    };
    let end = life.until_end().await;
    life.say_stopping();
    tracing::info!(by = %end.by, how = end.how(), "daemon.stopping");
    let code = life.stop(&end).await;
    // Told to everyone who listens, then the streams end.
    closing_tx.send_replace(true);
    let mut connections = app.connections.subscribe();
    let _late = tokio::time::timeout(GOODBYE, connections.wait_for(|count| *count == 0)).await;
    lines.abort();
    resting.abort();
    hooks.abort();
    drop(engine);
    Ok(code)
}

/// The URL under which others reach this node.
pub(crate) fn origin(daemon: &gaffer_config::DaemonSettings, bound: &Bound, socket: &Path) -> String {
    let said = daemon.advertise.clone();
    said.unwrap_or_else(|| registrar::origin(bound, socket, daemon.tls.is_some()))
}

fn app(
    plan: &Plan,
    handle: &Handle,
    (keyring, tls): Secured,
    bound: &Bound,
    closing: watch::Receiver<bool>,
    wishes: mpsc::Sender<DaemonWish>,
) -> App {
    let node = handle.node().name;
    let origin = origin(&plan.daemon, bound, &plan.socket);
    App {
        handle: handle.clone(),
        keyring,
        live: RwLock::new(Arc::new(reload::live(&plan.daemon, &node, bound, origin, tls))),
        node: node.into(),
        config: plan.file.as_ref().map(|file| file.path.clone()),
        answers: Answers::default(),
        closing,
        wishes,
        connections: watch::Sender::new(0),
        runs_group: handle
            .cgroup_base()
            .and_then(|base| Some(base.file_name()?.to_str()?.to_owned())),
        requests: AtomicU64::new(0),
        fleet: crate::fleet::Fleet::default(),
        plugins: crate::plugins::Plugins::new(plugins_dir(plan)),
        setup: crate::doctor::Setup {
            state_dir: plan.engine.state_dir.clone(),
            socket: plan.socket.clone(),
            require_token: plan.daemon.require_token,
        },
    }
}

/// Where plugins are, if anywhere.
fn plugins_dir(plan: &Plan) -> Option<PathBuf> {
    let beside = || Some(plan.file.as_ref()?.path.parent()?.join("plugins")).filter(|dir| dir.is_dir());
    plan.daemon.plugins_dir.clone().or_else(beside)
}

pub(crate) fn actor_of(file: &File) -> gaffer::info::Actor {
    file.path
        .file_name()
        .map_or_else(|| "the file".into(), |name| name.to_string_lossy().into())
}

/// Applies a file; was there anything to change?
pub(crate) async fn apply(handle: &Handle, file: &File) -> Result<bool, Error> {
    let (plan, _) = handle
        .apply(
            ApplySource::Files(Box::new(file.bundle.clone())),
            ApplyOptions::default(),
            actor_of(file),
        )
        .await?;
    for warning in &plan.warnings {
        tracing::warn!(text = %warning, "config.warning");
    }
    Ok(!plan.is_empty())
}

/// The one line that programs wait for.
fn say_ready(addresses: &[SocketAddr], socket: &Path) {
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let listen = if addresses.is_empty() {
        "none".to_owned()
    } else {
        addresses.join(",")
    };
    let line = format!(
        "gafferd ready pid={} listen={listen} socket={}",
        std::process::id(),
        socket.display()
    );
    writer::say(line);
    // In the background stderr becomes another file now.
    writer::flush();
}

struct Signals {
    term: Signal,
    int: Signal,
    quit: Signal,
    hup: Signal,
    child: Option<Signal>,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        // Only as PID 1 are strangers our children.
        let child = (std::process::id() == 1)
            .then(|| signal(SignalKind::child()))
            .transpose()?;
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hup: signal(SignalKind::hangup())?,
            child,
        })
    }

    /// The next signal.
    async fn next(&mut self) -> Heard {
        let child = async {
            match &mut self.child {
                Some(child) => child.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.term.recv() => Heard::End("SIGTERM"),
            _ = self.int.recv() => Heard::End("SIGINT"),
            _ = self.quit.recv() => Heard::End("SIGQUIT"),
            _ = self.hup.recv() => Heard::Reload,
            _ = child => Heard::Strangers,
        }
    }
}

/// What a signal asks for.
enum Heard {
    End(&'static str),
    Reload,
    Strangers,
}

/// Why and how the daemon ends.
struct End {
    by: gaffer::info::Actor,
    wish: DaemonWish,
    /// The engine has ended by itself with this exit code.
    code: Option<i32>,
}

impl End {
    fn how(&self) -> &'static str {
        match (self.code, self.wish) {
            (Some(_), _) => "essential job ended",
            (None, DaemonWish::Leave) => "all jobs go on",
            (None, DaemonWish::StopAll) => "all jobs stop",
            (None, DaemonWish::Stop | DaemonWish::Reload) => "jobs stop, save those with keep_running",
        }
    }
}

pub(crate) struct Life<'a> {
    pub plan: Plan,
    pub handle: Handle,
    pub app: Shared,
    pub router: axum::Router,
    pub bound: Bound,
    pub registrar: Registrar,
    pub manager: Option<Manager>,
    wishes: &'a mut mpsc::Receiver<DaemonWish>,
    signals: &'a mut Signals,
    leash: Option<tokio::io::unix::AsyncFd<OwnedFd>>,
}

impl Life<'_> {
    fn say_stopping(&self) {
        if let Some(manager) = &self.manager {
            manager.tell("STOPPING=1");
            // What ends in order may take as long as it was told; a manager that knows this waits.
            let within = self.handle.tuning().stop_within + ENDS_WITHIN;
            manager.tell(&format!("EXTEND_TIMEOUT_USEC={}", within.as_micros()));
        }
    }

    async fn until_end(&mut self) -> End {
        let watchdog = self.manager.as_ref().and_then(Manager::watchdog);
        // The task whose end is ours, when nobody waits for it.
        let mut alone: Option<String> = None;
        loop {
            let end = |by: &str, wish| End {
                by: by.into(),
                wish,
                code: None,
            };
            tokio::select! {
                heard = self.signals.next() => match heard {
                    Heard::End(name) => return end(name, DaemonWish::Stop),
                    Heard::Reload => self.reload().await,
                    Heard::Strangers => reap(),
                },
                () = leash_end(self.leash.as_ref()) => match &self.plan.engine.tasks_led {
                    // What it runs belongs to its task, and goes on until that is over.
                    TasksLed::Only(id) => {
                        self.leash = None;
                        alone = Some(id.clone());
                    }
                    TasksLed::All | TasksLed::Nothing => {
                        return end("the end of gaffer start", DaemonWish::StopAll);
                    }
                },
                () = task_over(&self.handle, alone.as_deref()) => {
                    return end("the end of the task", DaemonWish::Stop);
                }
                code = self.handle.ended() => {
                    return End { by: "an essential job".into(), wish: DaemonWish::StopAll, code: Some(code) };
                }
                Some(wish) = self.wishes.recv() => match wish {
                    DaemonWish::Reload => self.reload().await,
                    wish => return end(&user_name(Uid(rustix::process::geteuid().as_raw())), wish),
                },
                () = beat(watchdog), if watchdog.is_some() => {
                    if let Some(manager) = &self.manager {
                        manager.tell("WATCHDOG=1");
                    }
                }
            }
        }
    }

    /// Ends the engine as wished; a second signal stops everything at once.
    async fn stop(&mut self, end: &End) -> u8 {
        let leave = end.wish == DaemonWish::Leave;
        let all = end.wish == DaemonWish::StopAll;
        let handle = self.handle.clone();
        let shutdown = handle.shutdown(all, leave, end.by.clone());
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = shutdown.as_mut() => break,
                heard = self.signals.next() => match heard {
                    Heard::End(name) if !leave => {
                        tracing::warn!(by = name, "daemon.killing");
                        self.handle.kill_ending(all);
                    }
                    Heard::End(_) | Heard::Reload => {}
                    Heard::Strangers => reap(),
                },
            }
        }
        u8::try_from(end.code.unwrap_or(0)).unwrap_or(1)
    }
}

/// Resolves when a task is not led any more.
async fn task_over(handle: &Handle, id: Option<&str>) {
    let Some(id) = id else {
        return std::future::pending().await;
    };
    handle.task_ended(id).await;
}

async fn beat(every: Option<Duration>) {
    match every {
        Some(every) => tokio::time::sleep(every).await,
        None => std::future::pending().await,
    }
}

/// Collects children that are not ours: as PID 1 every orphan becomes a child of this process.
fn reap() {
    use rustix::process::{WaitOptions, wait};
    while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
}

/// Takes a descriptor that was inherited for this purpose.
pub fn leash(number: i32) -> Result<OwnedFd, LifeError> {
    // SAFETY: fcntl on a number is harmless whatever it is.
    let there = number > 2 && unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
    if !there {
        return Err(LifeError::Setup(SetupError::Wrong(format!(
            "--leash-fd {number} is not an inherited descriptor"
        ))));
    }
    // SAFETY: it is open, and whoever started us gave it to us and to nothing else in this process.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn watch_leash(fd: OwnedFd) -> std::io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    // SAFETY: an `OwnedFd` is one descriptor for all its life, and the registration goes before it.
    Ok(unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }?)
}

/// Resolves when the other end of the leash is gone.
async fn leash_end(leash: Option<&tokio::io::unix::AsyncFd<OwnedFd>>) {
    let Some(leash) = leash else {
        return std::future::pending().await;
    };
    loop {
        let Ok(mut ready) = leash.readable().await else {
            return;
        };
        let mut bytes = [0u8; 64];
        match rustix::io::read(leash.get_ref(), &mut bytes) {
            Ok(0) => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            Err(_) => return,
        }
    }
}
