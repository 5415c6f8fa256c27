//! A real node for a test: `gafferd` on a state directory of its own, ended with everything it started.

use crate::http::{Address, Answer, Connection};
use crate::process::{self, Process};
use crate::{wait_for, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take to say that it is ready, and a command to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a node is started with.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    binds: Vec<String>,
    config: Option<(String, String)>,
    arguments: Vec<String>,
    env: Vec<(String, String)>,
    bin_dir: Option<PathBuf>,
    binds_of_file: bool,
    open_files: Option<(u64, u64)>,
    below: Option<PathBuf>,
}

impl Builder {
    /// Soft and hard limit of the daemon's open files.
    pub fn open_files(mut self, soft: u64, hard: u64) -> Builder {
        self.open_files = Some((soft, hard));
        self
    }

    /// Says nothing about addresses: those of the file count.
    pub fn binds_of_file(mut self) -> Builder {
        self.binds_of_file = true;
        self
    }

    /// Adds `--bind`; without any the node has its unix socket only.
    pub fn bind(mut self, address: &str) -> Builder {
        self.binds.push(address.to_owned());
        self
    }

    /// Writes this file into the node's directory and passes it as `-c`.
    pub fn config(mut self, name: &str, text: &str) -> Builder {
        self.config = Some((name.to_owned(), text.to_owned()));
        self
    }

    /// One more word for `gafferd`.
    pub fn arg(mut self, word: &str) -> Builder {
        self.arguments.push(word.to_owned());
        self
    }

    /// One more variable for `gafferd` (its environment is empty but for `PATH` otherwise).
    pub fn env(mut self, name: &str, value: &str) -> Builder {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Programs from this directory instead of the one beside the test.
    pub fn bin_dir(mut self, dir: &Path) -> Builder {
        self.bin_dir = Some(dir.to_owned());
        self
    }

    /// Its files are made below this directory, and are left there.
    pub fn files_below(mut self, dir: &Path) -> Builder {
        self.below = Some(dir.to_owned());
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When the programs are not built, or the daemon ends or says nothing for a minute.
    #[track_caller]
    pub fn start(self) -> Node {
        let mut node = self.prepare();
        node.start_again();
        node
    }

    /// Everything but the start: for tests of daemons that refuse to.
    #[track_caller]
    pub fn prepare(self) -> Node {
        let bins = self.bin_dir.clone().unwrap_or_else(bin_dir);
        let mut root = tempfile::Builder::new();
        root.prefix("gaffer-test-").disable_cleanup(self.below.is_some());
        let root = match &self.below {
            Some(dir) => root.tempdir_in(dir),
            None => root.tempdir(),
        };
        let root = root.expect("a directory for the test");
        if let Some((name, text)) = &self.config {
            std::fs::write(root.path().join(name), text).expect("the test's configuration");
        }
        let connection = Connection::unix(&root.path().join("gaffer.sock"));
        process::sweep_cgroups();
        Node {
            builder: self,
            bins,
            root,
            daemon: None,
            addresses: Vec::new(),
            connection,
        }
    }
}

/// Directory with the programs of this build: beside the test, or one above.
///
/// # Panics
/// When there is no `gafferd`: cargo does not build programs of other packages for a test.
#[track_caller]
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("GAFFER_TEST_BINS") {
        return PathBuf::from(dir);
    }
    let own = std::env::current_exe().expect("the path of this program");
    let found = own
        .ancestors()
        .skip(1)
        .take(3)
        .find(|dir| dir.join("gafferd").is_file());
    found.map(Path::to_owned).unwrap_or_else(|| {
        panic!(
            "no gafferd beside {}: run `cargo build --workspace --bins` first",
            own.display()
        )
    })
}

fn limit_open_files(command: &mut Command, soft: u64, hard: u64) {
    use std::os::unix::process::CommandExt;
    let limit = rustix::process::Rlimit {
        current: Some(soft),
        maximum: Some(hard),
    };
    let set = move || {
        let limit = rustix::process::Rlimit { ..limit };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).map_err(Into::into)
    };
    // SAFETY: one system call.
    unsafe { command.pre_exec(set) };
}

/// A running node.
pub struct Node {
    builder: Builder,
    bins: PathBuf,
    root: tempfile::TempDir,
    daemon: Option<Child>,
    addresses: Vec<SocketAddr>,
    connection: Connection,
}

impl Node {
    /// What may be said before the start.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A node with nothing to do, reached by its unix socket only.
    #[track_caller]
    pub fn start() -> Node {
        Node::builder().start()
    }

    /// Directory of everything that belongs to this node.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// `--state-dir`.
    pub fn state_dir(&self) -> PathBuf {
        self.root().join("state")
    }

    /// `--socket`.
    pub fn socket(&self) -> PathBuf {
        self.root().join("gaffer.sock")
    }

    /// What the daemons of this node wrote to stderr, all of them.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.root().join("gafferd.log")).unwrap_or_default()
    }

    /// TCP addresses of the `ready` line.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Path of a program of this build.
    pub fn program(&self, name: &str) -> String {
        self.bins.join(name).to_string_lossy().into_owned()
    }

    /// Path of the badly behaved program.
    pub fn fixture(&self) -> String {
        self.program("gaffer-fixture")
    }

    /// Pid of the live daemon.
    pub fn daemon_pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// The command that starts the daemon, for tests that want to see it fail.
    pub fn daemon_command(&self) -> Command {
        let mut command = Command::new(self.bins.join("gafferd"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // Inherited by shims: whoever has it in its environment belongs to this test.
        command.env("GAFFER_TEST_ROOT", self.root());
        command.envs(self.builder.env.iter().map(|(name, value)| (name, value)));
        command
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--socket")
            .arg(self.socket());
        if self.builder.binds.is_empty() && !self.builder.binds_of_file {
            command.args(["--bind", "none"]);
        }
        for bind in &self.builder.binds {
            command.args(["--bind", bind]);
        }
        if let Some((name, _)) = &self.builder.config {
            command.arg("-c").arg(self.root().join(name));
        }
        if let Some((soft, hard)) = self.builder.open_files {
            limit_open_files(&mut command, soft, hard);
        }
        command
            .args(&self.builder.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .current_dir(self.root());
        command
    }

    /// Starts a daemon on this node's directory.
    ///
    /// # Panics
    /// When one is there, or the new one does not get ready.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.daemon.is_none(), "there is a daemon already");
        let before = self.log().len();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.root().join("gafferd.log"));
        let mut command = self.daemon_command();
        // A file, not a pipe: nobody may die of a test that does not read.
        command.stderr(log.expect("the daemon's log"));
        let mut child = command.spawn().expect("gafferd");
        let ready = wait_for(PATIENCE, "gafferd ready", || {
            let log = self.log();
            let news = log.get(before..).unwrap_or_default();
            // The last line may be half written.
            let ready = news
                .split_inclusive('\n')
                .find(|line| line.contains("gafferd ready") && line.ends_with('\n'));
            let ended = child.try_wait().expect("the daemon's status");
            assert!(
                ready.is_some() || ended.is_none(),
                "gafferd ended ({ended:?}):\n{news}"
            );
            ready.map(str::to_owned)
        });
        let words =
            ready.split(|c: char| c.is_whitespace() || matches!(c, ',' | '=' | '"' | '[' | ']' | '/'));
        self.addresses = words.filter_map(|word| word.parse().ok()).collect();
        self.daemon = Some(child);
        self.connection = Connection::unix(&self.socket());
    }

    /// The daemon's exit status, once it has ended by itself.
    ///
    /// # Panics
    /// When it does not end within `within`.
    #[track_caller]
    pub fn wait_ended(&mut self, within: Duration) -> ExitStatus {
        let mut child = self.daemon.take().expect("a daemon");
        let status = wait_end(&mut child, within);
        if status.is_none() {
            // Still ours to end, with everything else.
            self.daemon = Some(child);
        }
        status.unwrap_or_else(|| panic!("gafferd did not end within {within:?}:\n{}", self.log()))
    }

    /// SIGKILL for the daemon, and for it alone. Returns when it is dead.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ended = child.kill();
            let _status = child.wait();
        }
    }

    /// SIGKILL, and a new daemon.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill9();
        self.start_again();
    }

    /// A signal for the daemon.
    pub fn signal(&self, signal: Signal) {
        if let Some(handle) = self.daemon_pid().and_then(process::Handle::open) {
            handle.signal(signal);
        }
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it does not end within `within`.
    #[track_caller]
    pub fn stop(&mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut child = self.daemon.take().expect("a daemon");
        let status = wait_end(&mut child, within);
        status.unwrap_or_else(|| {
            let _ended = child.kill();
            let _status = child.wait();
            panic!("gafferd did not stop within {within:?}:\n{}", self.log())
        })
    }

    /// One request over the kept connection to the unix socket. The body of the answer is null when it is empty,
    /// and a string when it is not JSON.
    ///
    /// # Panics
    /// When the daemon cannot be reached.
    #[track_caller]
    pub fn http(&mut self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let answer = self.request(method, path, body);
        let value = match answer.body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&answer.body).unwrap_or_else(|_| Value::String(answer.text())),
        };
        (answer.status, value)
    }

    /// The same, with headers and bytes.
    ///
    /// # Panics
    /// When the daemon cannot be reached.
    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let json = [("Content-Type", "application/json")];
        let headers: &[(&str, &str)] = if body.is_some() { &json } else { &[] };
        match self.connection.request(method, path, headers, &bytes) {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: {error}\n{}", self.log()),
        }
    }

    /// The same, when the daemon may be dead: the body as JSON, null if it is none.
    pub fn try_http(&mut self, method: &str, path: &str, body: &Value) -> std::io::Result<(u16, Value)> {
        let headers = [("Content-Type", "application/json")];
        let answer = self
            .connection
            .request(method, path, &headers, body.to_string().as_bytes())?;
        Ok((
            answer.status,
            serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
        ))
    }

    /// `GET` that must succeed.
    ///
    /// # Panics
    /// When the answer is not 200.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Value {
        let (status, value) = self.http("GET", path, None);
        assert_eq!(status, 200, "GET {path}: {value:#}");
        value
    }

    /// Stores a job (`PUT`); the definition is as in `gaffer.toml`.
    ///
    /// # Panics
    /// When the daemon refuses it.
    #[track_caller]
    pub fn put_job(&mut self, session: &str, job: &str, spec: &Value) -> Value {
        let (status, value) = self.http("PUT", &format!("/v1/jobs/{session}/{job}"), Some(spec));
        assert!(
            (200..300).contains(&status),
            "PUT {session}.{job}: {status} {value:#}"
        );
        value
    }

    /// A job, as soon as `condition` holds for it.
    ///
    /// # Panics
    /// When `within` has passed; says what the job looked like last.
    #[track_caller]
    pub fn wait_job(
        &mut self,
        session: &str,
        job: &str,
        within: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = Instant::now() + within;
        loop {
            let value = self.get(&format!("/v1/jobs/{session}/{job}"));
            if condition(&value) {
                return value;
            }
            assert!(
                Instant::now() < deadline,
                "waited {within:?} in vain for {session}.{job}:\n{value:#}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A command of `gaffer` against this node. Its streams go through files, so that no pipe can fill.
    ///
    /// # Panics
    /// When it does not end within a minute.
    #[track_caller]
    pub fn cli<S: AsRef<OsStr>>(&self, words: &[S]) -> Output {
        let scratch = tempfile::tempdir_in(self.root()).expect("a directory for the command");
        let file =
            |name: &str| std::fs::File::create(scratch.path().join(name)).expect("a file for the command");
        let mut command = self.cli_command(words);
        command
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"));
        let mut child = command.spawn().expect("gaffer");
        let status = wait_end(&mut child, PATIENCE).unwrap_or_else(|| {
            let _ended = child.kill();
            let _status = child.wait();
            let words: Vec<_> = words
                .iter()
                .map(|word| word.as_ref().to_string_lossy().into_owned())
                .collect();
            panic!("gaffer {} did not end within {PATIENCE:?}", words.join(" "))
        });
        let read = |name: &str| std::fs::read(scratch.path().join(name)).expect("output of the command");
        Output {
            status,
            stdout: read("out"),
            stderr: read("err"),
        }
    }

    /// The same command, not yet started.
    pub fn cli_command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new(self.bins.join("gaffer"));
        command
            .args(words)
            .env_remove("GAFFER_URL")
            .env_remove("GAFFER_TOKEN")
            .env_remove("GAFFER_SESSION");
        command
            .env("GAFFER_SOCKET", self.socket())
            .env("GAFFER_TEST_ROOT", self.root())
            .env("NO_COLOR", "1")
            .current_dir(self.root());
        command
    }

    /// Live processes of this node: daemon, guards, shims, and everything that runs started.
    pub fn pids(&self) -> Vec<Process> {
        process::of_node(self.root(), &self.state_dir())
    }

    /// Of those, what is no part of gaffer.
    pub fn job_processes(&self) -> Vec<Process> {
        let ours = |process: &Process| {
            let program = process.command.first().map(Path::new).and_then(Path::file_name);
            program.is_some_and(|name| name == "gafferd" || name == "gaffer-shim" || name == "gaffer")
        };
        self.pids().into_iter().filter(|process| !ours(process)).collect()
    }

    /// Guards and shims.
    pub fn shims(&self) -> Vec<Process> {
        let is_shim = |process: &Process| {
            process
                .command
                .first()
                .is_some_and(|word| word.ends_with("gaffer-shim"))
        };
        self.pids().into_iter().filter(is_shim).collect()
    }

    /// The bytes that an instance wrote, straight from its segments.
    pub fn logged(&self, session: &str, job: &str, instance: u32, stream: &str) -> Vec<u8> {
        let dir = self
            .state_dir()
            .join("logs")
            .join(session)
            .join(job)
            .join(instance.to_string());
        let mut segments: Vec<PathBuf> = std::fs::read_dir(&dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        let prefix = format!("{stream}.");
        segments.retain(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&prefix) && name.ends_with(".log")
        });
        // Names hold the first offset in twenty digits: their order is that of the bytes.
        segments.sort();
        segments
            .iter()
            .flat_map(|path| std::fs::read(path).unwrap_or_default())
            .collect()
    }

    /// Asserts that nothing but gaffer's own processes is left.
    ///
    /// # Panics
    /// When something still lives after ten seconds; names it.
    #[track_caller]
    pub fn assert_no_job_processes(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.job_processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "still alive: {left:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A TCP client for the first address.
    ///
    /// # Panics
    /// When the node was started without `bind`.
    #[track_caller]
    pub fn tcp(&self) -> Connection {
        Connection::new(Address::Tcp(*self.addresses.first().expect("a TCP address")))
    }

    fn end_everything(&mut self) {
        // The daemon first, so that it starts nothing while the rest is being ended. A test may be unwinding from
        // anything, hence no asking: every process of this node, and no other, gets SIGKILL.
        self.kill9();
        let state_dir = self.state_dir();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            // Listed first: a group whose last process was just dying could not be removed, and there is a next round.
            let left = self.pids();
            let groups = process::cgroups(&state_dir);
            let removed = groups.iter().all(|group| process::end_cgroup(group));
            if left.is_empty() && removed {
                return;
            }
            if Instant::now() >= deadline {
                eprintln!("left behind by the test: {left:#?}, {groups:?}");
                return;
            }
            // Jobs before shims and guards: an orphan of a dead guard would have no relation to us any more.
            let shims = self.shims();
            let jobs: Vec<&Process> = left.iter().filter(|process| !shims.contains(process)).collect();
            match jobs.is_empty() {
                true => shims.iter().for_each(process::kill),
                false => jobs.into_iter().for_each(process::kill),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the node ---\n{}", self.log());
        }
        self.end_everything();
        // A test may have mounted a small disk here, which it takes away later: what is mounted on cannot be removed.
        if let Ok(path) = std::ffi::CString::new(self.state_dir().into_os_string().into_encoded_bytes()) {
            // SAFETY: a valid path. That nothing is mounted is no fault.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

/// None: it is still alive after `within`.
fn wait_end(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait().expect("the status of a child") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Asserts that no process mentions `root` (a directory that belonged to a node) any more.
///
/// # Panics
/// When one still does after ten seconds.
#[track_caller]
pub fn assert_gone(root: &Path) {
    wait_until(Duration::from_secs(10), "everything of the node is gone", || {
        process::of_node(root, &root.join("state")).is_empty()
    });
}
