//! A daemon for tests: starts a shim in a temporary directory, talks to it, reads its journal.

use gaffer_shim::client::{self, StartedShim};
use gaffer_shim::frame::Decoder;
use gaffer_shim::journal::{Position, Reader, Record, RunIdWire, Status};
use gaffer_shim::message::{
    FromShim, Heard, LogBounds, Output, ReplyError, Scope, Spawn, Stdin, Stop, ToShim, VERSION,
};
use gaffer_shim::stream::{ReadAt, StreamReader};
use gaffer_testkit::process;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `what` gives something.
pub fn wait_for<T>(name: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = what() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {name}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Name of what belongs to a test: `PREFIX PID - N`, of its directory and of its group of cgroups.
const PREFIX: &str = "gaffer-shim-test-";

/// A directory that is gone afterwards, and the processes that have to do with it.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEPT: std::sync::Once = std::sync::Once::new();
        SWEPT.call_once(sweep);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{PREFIX}{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    /// Its group of cgroups, which need not exist.
    fn group(&self) -> Option<PathBuf> {
        Some(group_root()?.join(self.0.file_name()?))
    }

    /// Ends what runs in its group or was started with its path, and what those started. True: nothing is left.
    fn end_processes(&self) -> bool {
        let ended = self.group().is_none_or(|group| process::end_cgroup(&group));
        // With a slash at its end: `…-1` is no part of `…-12`.
        let root = self.0.join("");
        let left = process::of_node(&root, &root);
        left.iter().for_each(process::kill);
        ended && left.is_empty()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let start = Instant::now();
        while !self.end_processes() && start.elapsed() < Duration::from_secs(5) {
            wait_between_looks();
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Ends and removes what tests left that were killed themselves.
pub fn sweep() {
    let groups = group_root().and_then(|root| std::fs::read_dir(root).ok());
    let folders = std::fs::read_dir(std::env::temp_dir()).ok();
    for entry in groups.into_iter().chain(folders).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse().ok());
        if owner.is_some_and(|owner| process::Process::read(owner).is_none()) {
            drop(Scratch(std::env::temp_dir().join(name)));
        }
    }
}

/// A connection.
pub struct Talk {
    pub stream: UnixStream,
    decoder: Decoder,
}

impl Talk {
    pub fn new(stream: UnixStream) -> Talk {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Talk {
            stream,
            decoder: Decoder::new(),
        }
    }

    pub fn say(&mut self, message: &ToShim) {
        self.stream.write_all(&message.to_frame()).unwrap();
    }

    /// The next message; `None`: the connection has ended.
    pub fn hear(&mut self) -> Option<FromShim> {
        loop {
            if let Some(body) = self.decoder.next_frame().unwrap() {
                match FromShim::from_body(&body).unwrap() {
                    Heard::Message(message) => return Some(message),
                    Heard::Unknown => continue,
                }
            }
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.decoder.push(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no word from the shim: {error}"),
            }
        }
    }

    /// Says `Hello`, gives the reply.
    pub fn hello(&mut self, epoch: u32) -> FromShim {
        self.say(&ToShim::Hello {
            version: VERSION,
            epoch,
            leash: None,
        });
        self.hear().expect("an answer to Hello")
    }

    /// Waits for the answer to a request, passing over bells.
    pub fn answer(&mut self, wanted: u64) -> Result<(), ReplyError> {
        loop {
            match self.hear().expect("an answer") {
                FromShim::Reply { req, error } if req == wanted => {
                    return error.map_or(Ok(()), Err);
                }
                _ => {}
            }
        }
    }
}

/// A shim under test.
pub struct Shim {
    pub scratch: Scratch,
    pub dir: PathBuf,
    pub talk: Talk,
    pub guard: std::process::Child,
    pub pid: u32,
    pub reader: Reader,
    pub records: Vec<Record>,
    n: u32,
    req: u64,
    pub cgroup: Option<String>,
}

impl Shim {
    /// Started and greeted with epoch 1; runs in cgroups if this machine lets us.
    pub fn start() -> Shim {
        Shim::start_with(|shim, dir| client::start_shim(shim, dir).unwrap())
    }

    /// As [`Shim::start`], but runs have no cgroup.
    pub fn start_without_cgroups() -> Shim {
        let mut shim = Shim::start();
        if let Some(cgroup) = shim.cgroup.take() {
            std::fs::remove_dir(cgroup).unwrap();
        }
        shim
    }

    pub fn start_with(how: impl FnOnce(&Path, &Path) -> StartedShim) -> Shim {
        let scratch = Scratch::new();
        let dir = scratch.0.join("shims/1");
        let started = how(Path::new(env!("CARGO_BIN_EXE_gaffer-shim")), &dir);
        let mut talk = Talk::new(started.stream);
        let FromShim::HelloReply { pid, .. } = talk.hello(1) else {
            panic!("no HelloReply")
        };
        let reader = Reader::open(&dir, Position::default()).unwrap();
        let cgroup = make_cgroup(&scratch);
        Shim {
            scratch,
            dir,
            talk,
            guard: started.guard,
            pid,
            reader,
            records: Vec::new(),
            n: 0,
            req: 0,
            cgroup,
        }
    }

    /// A spawn of `sh -c script` with everything else plain.
    pub fn script(&mut self, slot: &str, script: &str) -> Spawn {
        self.program(slot, &["/bin/sh", "-c", script])
    }

    pub fn program(&mut self, slot: &str, argv: &[&str]) -> Spawn {
        self.n += 1;
        Spawn {
            run: RunIdWire { epoch: 1, n: self.n },
            slot: slot.to_owned(),
            after: None,
            stamp: [7, 8],
            attempt: 1,
            label: "a label".to_owned(),
            argv: argv.iter().map(|word| word.as_bytes().to_vec().into()).collect(),
            argv0: None,
            env: vec![b"PATH=/usr/local/bin:/usr/bin:/bin".to_vec().into()],
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
                .join("logs")
                .join(slot)
                .to_str()
                .unwrap()
                .to_owned(),
            bounds: LogBounds {
                size: 64 << 20,
                segment: 8 << 20,
                block_when_full: false,
            },
            cgroup: self.cgroup.clone(),
            start_deadline_ms: 0,
            stop: Stop {
                signal: libc::SIGTERM,
                scope: Scope::All,
                timeout_ms: 1000,
            },
            sync: false,
            root: None,
            limits: None,
        }
    }

    pub fn spawn(&mut self, spawn: Spawn) -> RunIdWire {
        let run = spawn.run;
        self.talk.say(&ToShim::Spawn(Box::new(spawn)));
        run
    }

    /// Reads what the journal has by now.
    pub fn read_on(&mut self) {
        while let Some((record, _)) = self.reader.read_next().unwrap() {
            self.records.push(record);
        }
    }

    /// Waits for a record that `pick` likes.
    pub fn record<T>(&mut self, name: &str, pick: impl Fn(&Record) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(value) = self.records.iter().find_map(&pick) {
                return value;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "waited for {name} in vain: {:#?}",
                self.records
            );
            self.read_on();
            wait_between_looks();
        }
    }

    pub fn started(&mut self, wanted: RunIdWire) -> u32 {
        self.record("Started", |record| match record {
            Record::Started { run, pid, .. } if *run == wanted => Some(*pid),
            Record::StartFailed {
                run,
                stage,
                errno,
                text,
                ..
            } if *run == wanted => {
                panic!("start failed: {stage} {errno} {text}")
            }
            _ => None,
        })
    }

    /// `(stage, errno, text)`.
    pub fn failed(&mut self, wanted: RunIdWire) -> (String, i32, String) {
        self.record("StartFailed", |record| match record {
            Record::StartFailed {
                run,
                stage,
                errno,
                text,
                ..
            } if *run == wanted => Some((stage.clone(), *errno, text.clone())),
            Record::Exited { run, .. } if *run == wanted => panic!("it ran: {record:?}"),
            _ => None,
        })
    }

    pub fn exited(&mut self, wanted: RunIdWire) -> Record {
        self.record("Exited", |record| match record {
            Record::Exited { run, .. } if *run == wanted => Some(record.clone()),
            Record::StartFailed {
                run,
                stage,
                errno,
                text,
                ..
            } if *run == wanted => {
                panic!("start failed: {stage} {errno} {text}")
            }
            _ => None,
        })
    }

    pub fn status(&mut self, wanted: RunIdWire) -> Status {
        let Record::Exited { status, .. } = self.exited(wanted) else {
            unreachable!()
        };
        status
    }

    pub fn tree_gone(&mut self, wanted: RunIdWire) {
        self.record("TreeGone", |record| match record {
            Record::TreeGone { run, .. } if *run == wanted => Some(()),
            _ => None,
        });
    }

    pub fn signal(&mut self, run: RunIdWire, signal: i32, scope: Scope) -> Result<(), ReplyError> {
        self.req += 1;
        let req = self.req;
        self.talk.say(&ToShim::Signal {
            req,
            run,
            signal,
            scope,
        });
        self.talk.answer(req)
    }

    pub fn kill_tree(&mut self, run: RunIdWire) -> Result<(), ReplyError> {
        self.req += 1;
        let req = self.req;
        self.talk.say(&ToShim::KillTree { req, run });
        self.talk.answer(req)
    }

    pub fn input(&mut self, run: RunIdWire, stream: &str, data: &[u8], eof: bool) -> Result<(), ReplyError> {
        self.req += 1;
        let req = self.req;
        let (stream, data) = (stream.to_owned(), data.to_vec());
        self.talk.say(&ToShim::Input {
            req,
            run,
            stream,
            data,
            eof,
        });
        self.talk.answer(req)
    }

    /// Everything a stream of a slot holds.
    pub fn output(&self, slot: &str, stream: &str) -> Vec<u8> {
        read_all(&self.scratch.0.join("logs").join(slot), stream)
    }

    pub fn text(&self, slot: &str, stream: &str) -> String {
        String::from_utf8_lossy(&self.output(slot, stream)).into_owned()
    }

    /// Runs a script to its end and gives what it printed.
    pub fn outcome(&mut self, slot: &str, change: impl FnOnce(&mut Spawn), script: &str) -> String {
        let mut spawn = self.script(slot, script);
        change(&mut spawn);
        let run = self.spawn(spawn);
        self.exited(run);
        self.text(slot, "stdout")
    }

    pub fn connect(&self) -> Talk {
        Talk::new(client::connect(&self.dir).unwrap())
    }

    /// Waits for the end of the guard, which is the end of everything.
    pub fn guard_ends(&mut self) -> std::process::ExitStatus {
        wait_for("the guard's end", || self.guard.try_wait().unwrap())
    }

    /// SIGKILL to the shim itself.
    pub fn kill_shim(&self) {
        kill(self.pid, libc::SIGKILL);
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // Runs whose shim and guard are dead are nobody's: only the journal knows them.
        while let Ok(Some((record, _))) = self.reader.read_next() {
            self.records.push(record);
        }
        for record in &self.records {
            if let Record::Started { pid, .. } = record
                && let Some(found) = process::Process::read(*pid)
                && found.env("GAFFER_RUN").is_some()
            {
                process::kill(&found);
            }
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            let ended = self.scratch.end_processes();
            // Ours to wait for; it may have been already.
            if ended && self.guard.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            wait_between_looks();
        }
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

/// Between two looks at a condition.
fn wait_between_looks() {
    std::thread::sleep(Duration::from_millis(1));
}

fn group_root() -> Option<&'static Path> {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .map(Path::new)
        .find(|root| root.join("cgroup.procs").exists())
}

fn make_cgroup(scratch: &Scratch) -> Option<String> {
    let path = scratch.group()?;
    std::fs::create_dir(&path).ok()?;
    path.join("cgroup.kill")
        .exists()
        .then(|| path.to_string_lossy().into_owned())
}

pub fn kill(pid: u32, signal: i32) {
    // Gone already is as good.
    let Ok(fd) = client::pidfd(pid) else { return };
    let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
    let _ = rustix::process::pidfd_send_signal(fd, signal);
}

/// Gone, or a zombie.
pub fn is_over(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    matches!(state, Some('Z' | 'X') | None)
}

pub fn read_all(dir: &Path, stream: &str) -> Vec<u8> {
    let mut reader = StreamReader::open(dir, stream);
    let (mut at, end) = reader.range().unwrap();
    let mut all = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    while at < end {
        match reader.read_at(at, &mut buffer).unwrap() {
            ReadAt::Bytes(0) => break,
            ReadAt::Bytes(count) => {
                all.extend_from_slice(&buffer[..count]);
                at += count as u64;
            }
            ReadAt::Gap(next) => at = next,
        }
    }
    all
}
