//! The least of a daemon: starts a shim, asks, reads its journal when the bell rings.

use gaffer_shim::client::{self, StartedShim};
use gaffer_shim::journal::{Position, Reader, Record, RunIdWire};
use gaffer_shim::message::{FromShim, LogBounds, Output, Scope, Spawn, Stdin, Stop, ToShim, VERSION};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that is gone afterwards.
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// A new one.
    pub fn new() -> io::Result<Scratch> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gaffer-measure-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is found in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What is known of a run.
#[derive(Default)]
pub struct Seen {
    /// Its process, once it has started.
    pub pid: u32,
    /// Boot-time clock of its start.
    pub started_ns: u64,
    /// Its end is on file.
    pub exited: bool,
}

/// A shim and who talks to it.
pub struct Client {
    /// Its directory, the program, the logs.
    pub scratch: Scratch,
    /// The shim proper.
    pub pid: u32,
    /// What its journal has told.
    pub runs: HashMap<RunIdWire, Seen>,
    /// How many have started, and how many have ended.
    pub counts: (usize, usize),
    /// Boot-time clocks of the starts, in the order of the journal.
    pub starts_ns: Vec<u64>,
    shim: StartedShim,
    reader: Reader,
    cgroup: Option<String>,
    n: u32,
}

impl Client {
    /// Starts one beside this program and greets it.
    pub fn start() -> io::Result<Client> {
        let scratch = Scratch::new()?;
        let dir = scratch.0.join("shims/1");
        let own = std::env::current_exe()?;
        let bin = own
            .parent()
            .and_then(Path::parent)
            .map(|dir| dir.join("gaffer-shim"));
        let shim = client::start_shim(&bin.unwrap_or_default(), &dir)?;
        let reader = Reader::open(&dir, Position::default())?;
        let mut client = Client {
            pid: 0,
            runs: HashMap::new(),
            counts: (0, 0),
            starts_ns: Vec::new(),
            shim,
            reader,
            cgroup: make_cgroup(),
            n: 0,
            scratch,
        };
        client.say(&ToShim::Hello {
            version: VERSION,
            epoch: 1,
            leash: None,
        })?;
        let mut frame = vec![0; 65536];
        let count = client.shim.stream.read(&mut frame)?;
        let mut decoder = gaffer_shim::frame::Decoder::new();
        decoder.push(&frame[..count]);
        let body = decoder
            .next_frame()
            .map_err(io::Error::other)?
            .unwrap_or_default();
        if let Ok(gaffer_shim::message::Heard::Message(FromShim::HelloReply { pid, .. })) =
            FromShim::from_body(&body)
        {
            client.pid = pid;
        }
        client.shim.stream.set_read_timeout(Some(PATIENCE))?;
        Ok(client)
    }

    /// The guard.
    pub fn guard_pid(&self) -> u32 {
        self.shim.guard.id()
    }

    /// Sends a request.
    pub fn say(&mut self, message: &ToShim) -> io::Result<()> {
        self.send(&message.to_frame())
    }

    /// Sends frames.
    pub fn send(&mut self, frames: &[u8]) -> io::Result<()> {
        self.shim.stream.write_all(frames)
    }

    /// A spawn with captured output, in a cgroup of its own.
    pub fn spawn(&mut self, slot: &str, argv: &[&str]) -> Spawn {
        self.n += 1;
        let env = (0..12).map(|n| {
            format!("A_VARIABLE_{n}=with a value of some length {n}")
                .into_bytes()
                .into()
        });
        Spawn {
            run: RunIdWire { epoch: 1, n: self.n },
            slot: slot.to_owned(),
            after: None,
            stamp: [1, 2],
            attempt: 1,
            label: String::new(),
            argv: argv.iter().map(|word| word.as_bytes().to_vec().into()).collect(),
            argv0: None,
            env: env.collect(),
            path_fallback: None,
            cwd: "/".to_owned(),
            user: None,
            umask: 0o022,
            nice: 0,
            oom_score: 0,
            no_new_privs: false,
            rlimits: Vec::new(),
            own_session: false,
            pty: None,
            stdin: Stdin::Null,
            streams: Vec::new(),
            stdout: Output::Keep,
            stderr: Output::Keep,
            log_dir: self
                .scratch
                .0
                .join("logs/bench")
                .join(slot)
                .to_string_lossy()
                .into_owned(),
            bounds: LogBounds {
                size: 96 << 20,
                segment: 8 << 20,
                block_when_full: false,
            },
            cgroup: self.cgroup.clone(),
            start_deadline_ms: 0,
            stop: Stop {
                signal: libc::SIGTERM,
                scope: Scope::Group,
                timeout_ms: 1000,
            },
            sync: false,
            root: None,
            limits: None,
        }
    }

    /// Reads what the journal has.
    pub fn read_on(&mut self) -> io::Result<()> {
        while let Some((record, _)) = self.reader.read_next()? {
            match record {
                Record::Started {
                    run, pid, mono_ns, ..
                } => {
                    let seen = self.runs.entry(run).or_default();
                    (seen.pid, seen.started_ns) = (pid, mono_ns);
                    self.starts_ns.push(mono_ns);
                    self.counts.0 += 1;
                }
                Record::StartFailed {
                    stage, errno, text, ..
                } => {
                    return Err(io::Error::other(format!("start failed: {stage} {errno} {text}")));
                }
                Record::Exited { run, .. } => {
                    self.runs.entry(run).or_default().exited = true;
                    self.counts.1 += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Until the journal has what is wanted, sleeping for the bell.
    pub fn until(&mut self, done: impl Fn(&Client) -> bool) -> io::Result<Instant> {
        let mut bells = [0; 65536];
        loop {
            self.read_on()?;
            if done(self) {
                return Ok(Instant::now());
            }
            if self.shim.stream.read(&mut bells)? == 0 {
                return Err(io::Error::other("the shim has left"));
            }
        }
    }

    /// CPU seconds of guard and shim so far.
    pub fn cpu(&self) -> io::Result<f64> {
        let mut sum = 0.0;
        for pid in [self.pid, self.guard_pid()] {
            for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
                let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
                sum += text
                    .split(' ')
                    .next()
                    .and_then(|word| word.parse::<f64>().ok())
                    .unwrap_or(0.0)
                    / 1e9;
            }
        }
        Ok(sum)
    }
}

impl Drop for Client {
    /// Nothing stays: runs are killed by their cgroup, the shim is told to leave.
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            let _ = std::fs::write(format!("{cgroup}/cgroup.kill"), "1");
        }
        let _ = self.say(&ToShim::Exit);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && self.shim.guard.try_wait().is_ok_and(|status| status.is_none()) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.shim.guard.kill();
        let _ = self.shim.guard.wait();
        if let Some(cgroup) = &self.cgroup {
            for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(entry.path());
            }
            let _ = std::fs::remove_dir(cgroup);
        }
    }
}

fn make_cgroup() -> Option<String> {
    let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .find(|root| Path::new(root).join("cgroup.procs").exists())?;
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = format!("{root}/gaffer-measure-{}-{n}", std::process::id());
    std::fs::create_dir(&path).ok()?;
    Some(path)
}
