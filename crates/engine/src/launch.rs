//! From a resolved launch to a shim's `Spawn`: templates filled in, environment built, ports chosen.

use crate::logs;
use crate::probes::{Program, Question};
use crate::requests::ports_of;
use crate::shims::wire;
use crate::state::State;
use gaffer_config::{Expanded, RunContext};
use gaffer_core::io::Stamp;
use gaffer_core::job::{Job, Launch, Output, Port, ProbeKind, Scope, Stdin};
use gaffer_core::name::{Place, RunId, Slot};
use gaffer_shim::message::{self, LogBounds, PtySize, Rlimit, Spawn};
use std::collections::BTreeMap;
use std::net::TcpListener;

/// The daemon's own environment, read once: what `env_inherit` chooses from.
pub(crate) type BaseEnv = BTreeMap<String, String>;

/// A start, as the core asked for it.
pub(crate) struct Request<'a> {
    pub run: RunId,
    pub slot: &'a Slot,
    pub after: Option<RunId>,
    pub launch: &'a Launch,
    pub attempt: u32,
    pub stamp: Stamp,
}

/// The environment of this process, without what is not text.
pub(crate) fn base_env() -> BaseEnv {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The message, and the label that lets a later daemon know the ports. The error is a sentence.
pub(crate) fn spawn(state: &State, request: &Request<'_>) -> Result<(Spawn, String), String> {
    let Request {
        run,
        slot,
        after,
        launch,
        attempt,
        stamp,
    } = request;
    let ports = choose_ports(launch, instance_of(slot).map_or(0, |n| n.saturating_sub(1)))?;
    let label: Vec<String> = ports
        .iter()
        .map(|(name, port)| format!("{name}={port}"))
        .collect();
    let label = label.join(",");
    let expanded = expand(state, launch, slot, *run, *attempt, &ports)?;
    let spec = state.jobs.get(&slot.job).map(|meta| &*meta.spec);
    let mut spawn = message_of(state, launch, expanded)?;
    spawn.run = wire(*run);
    spawn.slot = slot.to_string();
    spawn.after = after.map(wire);
    spawn.stamp = [stamp.restart, stamp.launch];
    spawn.attempt = *attempt;
    spawn.label.clone_from(&label);
    spawn.log_dir = logs::directory(&state.settings.logs_dir(), slot)
        .to_string_lossy()
        .into_owned();
    spawn.bounds = spec.map_or(DEFAULT_BOUNDS, bounds);
    spawn.stop = spec.map_or(DEFAULT_STOP, |spec| stop_of(&spec.stop));
    Ok((spawn, label))
}

/// What follows from a launch alone; run, slot and places are the caller's to fill in.
/// An error names a limit that is insisted on and cannot be had.
pub(crate) fn message_of(state: &State, launch: &Launch, expanded: Expanded) -> Result<Spawn, String> {
    let bytes = |text: String| text.into_bytes().into();
    let limits = limits(state, launch)?;
    Ok(Spawn {
        run: wire(RunId { epoch: 0, n: 0 }),
        slot: String::new(),
        after: None,
        stamp: [0, 0],
        attempt: 0,
        label: String::new(),
        argv: expanded.argv.into_iter().map(bytes).collect(),
        argv0: expanded.argv0.map(bytes),
        env: expanded
            .env
            .iter()
            .map(|(key, value)| bytes(format!("{key}={value}")))
            .collect(),
        path_fallback: state.base_env.get("PATH").map(|path| bytes(path.clone())),
        cwd: expanded.cwd,
        user: launch.user.as_ref().map(user),
        umask: launch.umask,
        nice: launch.nice,
        oom_score: launch.oom_score,
        no_new_privs: launch.no_new_privs,
        rlimits: launch
            .rlimits
            .iter()
            .map(|&(resource, soft, hard)| Rlimit { resource, soft, hard })
            .collect(),
        own_session: launch.pty,
        pty: launch.pty.then_some(PtySize {
            cols: launch.pty_size.0,
            rows: launch.pty_size.1,
        }),
        stdin: stdin(&expanded.stdin),
        streams: launch.streams.clone(),
        stdout: output(launch.stdout),
        stderr: output(launch.stderr),
        log_dir: String::new(),
        bounds: DEFAULT_BOUNDS,
        cgroup: state
            .cgroup_base
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned()),
        start_deadline_ms: 0,
        stop: DEFAULT_STOP,
        sync: false,
        root: launch.root.clone(),
        limits,
    })
}

fn limits(state: &State, launch: &Launch) -> Result<Option<message::Limits>, String> {
    let Some(limits) = &launch.limits else {
        return Ok(None);
    };
    let planned = state.host.borrow_mut().plan(limits);
    if limits.required && !planned.missing.is_empty() {
        return Err(planned.missing.join("; "));
    }
    Ok(Some(planned.message))
}

/// For a run whose job is gone already.
const DEFAULT_BOUNDS: LogBounds = LogBounds {
    size: 100 << 20,
    segment: 8 << 20,
    block_when_full: false,
};
const DEFAULT_STOP: message::Stop = message::Stop {
    signal: libc::SIGTERM,
    scope: message::Scope::Main,
    timeout_ms: 30_000,
};

/// How a run is asked to end, for the shim.
pub(crate) fn stop_of(stop: &gaffer_core::job::Stop) -> message::Stop {
    message::Stop {
        signal: stop.signal,
        scope: scope(stop.to),
        timeout_ms: u64::try_from(stop.timeout.as_millis()).unwrap_or(u64::MAX),
    }
}

fn user(user: &gaffer_core::job::User) -> message::User {
    message::User {
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
    }
}

fn stdin(stdin: &Stdin) -> message::Stdin {
    match stdin {
        Stdin::Null => message::Stdin::Null,
        Stdin::Pipe => message::Stdin::Pipe,
        Stdin::File(path) => message::Stdin::File(path.clone()),
    }
}

/// Log bounds of a job, for the shim.
pub(crate) fn bounds(spec: &Job) -> LogBounds {
    bounds_of(&spec.logs)
}

/// Log bounds, for the shim.
pub(crate) fn bounds_of(logs: &gaffer_core::job::Logs) -> LogBounds {
    LogBounds {
        size: logs.size,
        segment: logs.segment,
        block_when_full: logs.block_when_full,
    }
}

fn output(output: Output) -> message::Output {
    match output {
        Output::Keep => message::Output::Keep,
        Output::Null => message::Output::Null,
        Output::Stdout => message::Output::Merge,
    }
}

/// Who of a run, for the shim.
pub(crate) fn scope(scope: Scope) -> message::Scope {
    match scope {
        Scope::Main => message::Scope::Main,
        Scope::Children => message::Scope::Children,
        Scope::Group => message::Scope::Group,
        Scope::All => message::Scope::All,
    }
}

fn expand(
    state: &State,
    launch: &Launch,
    slot: &Slot,
    run: RunId,
    attempt: u32,
    ports: &BTreeMap<String, u16>,
) -> Result<Expanded, String> {
    let run = run.to_string();
    // What a shim that died left behind is known by its run and its node.
    let mut added = vec![("GAFFER_NODE_ID".to_owned(), state.node_id.clone())];
    if state
        .watches
        .wants_notify(state.jobs.get(&slot.job).map(|meta| &*meta.spec))
    {
        let path = state.watches.notify.path(crate::notify::foreign(launch))?;
        added.push(("NOTIFY_SOCKET".to_owned(), path));
        if let Some(usec) = state
            .watches
            .watchdog_usec(state.jobs.get(&slot.job).map(|meta| &*meta.spec))
        {
            added.push(("WATCHDOG_USEC".to_owned(), usec));
        }
    }
    let context = RunContext {
        node: &state.settings.node,
        job: &slot.job,
        instance: instance_of(slot),
        run: &run,
        attempt,
        ports,
        base_env: &state.base_env,
        shell: &state.tuning.shell,
        task: None,
        queue: None,
        added: &added,
    };
    gaffer_config::expand(launch, &context).map_err(|error| error.to_string())
}

fn instance_of(slot: &Slot) -> Option<u32> {
    match slot.place {
        Place::Instance { n, .. } => Some(n),
        Place::OneOff(_) => None,
    }
}

/// `port` goes by the name of the empty string. `auto`: the kernel names one that is free now. `offset` is added to fixed ones.
pub(crate) fn choose_ports(launch: &Launch, offset: u32) -> Result<BTreeMap<String, u16>, String> {
    let mut chosen = BTreeMap::new();
    let named = launch.ports.iter().map(|(name, port)| (name.as_str(), *port));
    for (name, port) in launch.port.map(|port| ("", port)).into_iter().chain(named) {
        let number = match port {
            Port::Auto => free_port().map_err(|error| format!("no free port: {error}"))?,
            Port::Fixed(first) => u32::from(first)
                .checked_add(offset)
                .and_then(|port| u16::try_from(port).ok())
                .ok_or_else(|| format!("port {first} + {offset} is beyond 65535"))?,
        };
        chosen.insert(name.to_owned(), number);
    }
    Ok(chosen)
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Other words for the environment of a run.
pub(crate) struct Asked<'a> {
    cmd: &'a [String],
    shell: Option<&'a str>,
}

impl Asked<'_> {
    /// A launch with these words.
    pub(crate) fn of(&self, launch: &Launch) -> Launch {
        let mut launch = launch.clone();
        launch.cmd = self.cmd.to_vec();
        launch.shell = self.shell.map(str::to_owned);
        launch.wrap.clear();
        launch.argv0 = None;
        launch
    }
}

/// An active probe, filled in by whoever knows the run.
pub(crate) fn question_of(
    kind: &ProbeKind,
    program: &dyn Fn(&Asked<'_>) -> Result<Program, String>,
) -> Result<Option<Question>, String> {
    let one = |text: &String| -> Result<String, String> {
        let asked = Asked {
            cmd: std::slice::from_ref(text),
            shell: None,
        };
        let mut words = program(&asked)?.argv.into_iter();
        words.next().ok_or_else(|| "it is empty".to_owned())
    };
    Ok(match kind {
        ProbeKind::Http(url) => Some(Question::Http(one(url)?)),
        ProbeKind::Tcp(address) => Some(Question::Tcp(one(address)?)),
        ProbeKind::Cmd { cmd, shell } => {
            let shell = shell.as_deref();
            Some(Question::Cmd(program(&Asked { cmd, shell })?))
        }
        ProbeKind::Log(_) | ProbeKind::Notify | ProbeKind::After(_) | ProbeKind::Heartbeat(_) => None,
    })
}

impl State {
    /// The environment and words of a run, made again: for probes and `stop.cmd`.
    fn program_for(&self, run: RunId, asked: &Asked<'_>) -> Result<Program, String> {
        let facts = self.runs.runs.get(&run).ok_or("the run is not known")?;
        let slot: Slot = facts
            .slot
            .parse()
            .map_err(|_| "the slot is not known".to_owned())?;
        let meta = self.jobs.get(&slot.job).ok_or("the job is not known")?;
        let launch = asked.of(&meta.spec.launch);
        let ports = ports_of(&facts.label);
        let expanded = expand(self, &launch, &slot, run, facts.attempt, &ports)?;
        let mut env = expanded.env;
        if facts.pid != 0 {
            env.push(("GAFFER_PID".to_owned(), facts.pid.to_string()));
        }
        // A probe is not part of the run's tree: it must not be found by the run's mark.
        env.retain(|(key, _)| key != "GAFFER_RUN");
        Ok(Program {
            argv: expanded.argv,
            env,
            cwd: expanded.cwd.clone(),
            user: launch.user,
        })
    }

    /// An active probe of a run, filled in.
    pub(crate) fn question(&self, run: RunId, kind: &ProbeKind) -> Result<Option<Question>, String> {
        question_of(kind, &|asked| self.program_for(run, asked))
    }

    /// `stop.cmd`: run beside the run, bounded by the stop's own timeout.
    pub(crate) fn run_stop_cmd(&mut self, run: RunId, cmd: Vec<String>) {
        let timeout = self
            .slot_of(run)
            .and_then(|slot| self.jobs.get(&slot.job))
            .map_or(std::time::Duration::from_secs(30), |meta| meta.spec.stop.timeout);
        let asked = Asked {
            cmd: &cmd,
            shell: None,
        };
        match self.program_for(run, &asked) {
            Ok(program) => crate::probes::run_beside(program, timeout),
            Err(text) => tracing::warn!(run = %run, text, "stop.cmd cannot be run"),
        }
    }
}

/// A failed start in words: what, why, and where it happened.
pub(crate) fn start_failure(stage: &str, errno: i32, text: &str) -> String {
    let why = if errno == 0 {
        String::new()
    } else {
        let said = std::io::Error::from_raw_os_error(errno).to_string();
        let said = said.split(" (os error").next().unwrap_or_default().to_lowercase();
        format!(": {said}")
    };
    let name = errno_name(errno)
        .map(|name| format!(", {name}"))
        .unwrap_or_default();
    match stage {
        "exec" => format!("cannot run {text}{why} ({stage}{name})"),
        "exec-stuck" => {
            format!("cannot run {text}: its program was not executed in time (exec-stuck)")
        }
        "cwd" => format!("cannot enter {text}{why} ({stage}{name})"),
        "chroot" => format!("cannot make {text} the root{why} ({stage}{name})"),
        "shim" | "template" => text.to_owned(),
        _ if text.is_empty() => format!("cannot set up the run{why} ({stage}{name})"),
        _ => format!("cannot set up {text}{why} ({stage}{name})"),
    }
}

fn errno_name(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::ENOENT => "ENOENT",
        libc::EACCES => "EACCES",
        libc::EPERM => "EPERM",
        libc::ENOEXEC => "ENOEXEC",
        libc::ETXTBSY => "ETXTBSY",
        libc::E2BIG => "E2BIG",
        libc::ENOTDIR => "ENOTDIR",
        libc::ELOOP => "ELOOP",
        libc::EINVAL => "EINVAL",
        libc::ENOMEM => "ENOMEM",
        libc::EAGAIN => "EAGAIN",
        libc::EMFILE => "EMFILE",
        libc::ENFILE => "ENFILE",
        libc::ENOSPC => "ENOSPC",
        libc::EISDIR => "EISDIR",
        libc::ENAMETOOLONG => "ENAMETOOLONG",
        _ => return None,
    })
}
