//! The daemon's life among others: service managers above it, init below it, and ends that take too long.

use gaffer_testkit::{Node, process, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// A service manager: the socket that the daemon is told to talk to.
struct Manager {
    socket: UnixDatagram,
    dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> Manager {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        Manager { socket, dir }
    }

    fn path(&self) -> String {
        self.dir.path().join("notify").display().to_string()
    }

    /// The next message that is not a sign of life.
    fn hears(&self) -> String {
        loop {
            let text = self.hears_all();
            if text != "WATCHDOG=1" {
                return text;
            }
        }
    }

    fn hears_all(&self) -> String {
        let mut bytes = [0u8; 512];
        let read = self.socket.recv(&mut bytes).expect("news");
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }
}

/// A job that ignores TERM and may do so for an hour.
fn put_stubborn(node: &mut Node, job: &str, keep_running: bool) {
    let cmd = [node.fixture(), "ignore-term".to_owned()];
    let spec = json!({ "cmd": cmd, "stop": "1h", "keep_running": keep_running });
    node.put_job("default", job, &spec);
    node.wait_job("default", job, SOON, |job| job["state"] == "running");
    // It is deaf as soon as it says so.
    wait_until(SOON, "it ignores TERM", || {
        node.job_processes().iter().all(|one| ignores_term(one.pid))
    });
}

fn ignores_term(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (libc::SIGTERM - 1)) != 0)
}

#[test]
fn hazard_47_a_second_term_ends_at_once_what_does_not_want_to() {
    let mut node = Node::builder()
        .config("gaffer.toml", "[gaffer]\nstop_within = \"1h\"\n")
        .start();
    put_stubborn(&mut node, "web", false);
    node.signal(Signal::TERM);
    wait_until(SOON, "it is being stopped", || {
        node.get("/v1/jobs/default/web")["state"] == "stopping"
    });
    node.signal(Signal::TERM);
    assert_eq!(node.wait_ended(SOON).code(), Some(0));
    node.assert_no_job_processes();
    assert!(node.log().contains("daemon.killing by=SIGTERM"), "{}", node.log());
}

#[test]
fn hazard_47_an_orderly_end_takes_no_longer_than_stop_within_and_says_so_to_the_manager() {
    let manager = Manager::new();
    let mut node = Node::builder()
        .config("gaffer.toml", "[gaffer]\nstop_within = \"700ms\"\n")
        .env("NOTIFY_SOCKET", &manager.path())
        .start();
    assert!(manager.hears().starts_with("READY=1\nMAINPID="));
    put_stubborn(&mut node, "web", false);
    put_stubborn(&mut node, "kept", true);
    let kept = node.get("/v1/jobs/default/kept")["instances"][0]["pid"].as_u64();
    let begun = Instant::now();
    node.signal(Signal::TERM);
    assert_eq!(manager.hears(), "STOPPING=1");
    let asked = manager.hears();
    let micros: u64 = asked
        .strip_prefix("EXTEND_TIMEOUT_USEC=")
        .and_then(|micros| micros.parse().ok())
        .expect("how long it may take");
    assert_eq!(node.wait_ended(SOON).code(), Some(0));
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(700),
        "not before its time: {took:?}"
    );
    assert!(took < Duration::from_micros(micros), "{took:?} of {micros} µs");
    let left: Vec<u64> = node
        .job_processes()
        .iter()
        .map(|one| u64::from(one.pid))
        .collect();
    assert_eq!(left, Vec::from_iter(kept), "keep_running holds here too");
}

#[test]
fn a_manager_with_a_watchdog_hears_signs_of_life_also_while_a_reload_fails() {
    let manager = Manager::new();
    let node = Node::builder()
        .config("gaffer.toml", "[gaffer]\n")
        .env("NOTIFY_SOCKET", &manager.path())
        .env("WATCHDOG_USEC", "200000")
        .start();
    assert!(manager.hears().starts_with("READY=1"));
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(manager.hears_all(), "WATCHDOG=1");
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "five half intervals: {took:?}");
    std::fs::write(node.root().join("gaffer.toml"), "nonsense").expect("the file");
    node.signal(Signal::HUP);
    assert!(manager.hears().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(manager.hears(), "READY=1");
    assert_eq!(manager.hears_all(), "WATCHDOG=1");
}

#[test]
fn a_watchdog_that_is_meant_for_another_process_is_not_answered() {
    let manager = Manager::new();
    let mut node = Node::builder()
        .env("NOTIFY_SOCKET", &manager.path())
        .env("WATCHDOG_USEC", "1000")
        .env("WATCHDOG_PID", "1")
        .start();
    assert!(manager.hears_all().starts_with("READY=1"));
    node.stop(SOON);
    assert_eq!(manager.hears_all(), "STOPPING=1");
}

/// Can this test make a namespace of processes?
fn may_unshare() -> bool {
    let tried = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "true"])
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

#[test]
fn hazard_20_as_init_it_reaps_strangers_and_ends_in_time_with_the_code_of_the_essential_job() {
    if !may_unshare() {
        return;
    }
    let node = Node::builder().prepare();
    let inner = node.daemon_command();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    command.arg(inner.get_program()).args(inner.get_args());
    command
        .env_clear()
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let log = std::fs::File::create(node.root().join("gafferd.log")).expect("a log");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .current_dir(node.root())
        .spawn()
        .expect("unshare");
    wait_until(SOON, "it serves", || node.log().contains("gafferd ready pid=1 "));
    let mut connection = gaffer_testkit::http::Connection::unix(&node.socket());
    let mut put = |job: &str, spec: &serde_json::Value| {
        let headers = [("Content-Type", "application/json")];
        let path = format!("/v1/jobs/default/{job}");
        let answer = connection.request("PUT", &path, &headers, spec.to_string().as_bytes());
        assert!(answer.expect("served").status < 300);
    };
    put("web", &json!({ "cmd": [node.fixture(), "idle"] }));
    let known = wait_for(SOON, "the guard of the shim", || {
        Some(children_of_init(child.id()).len()).filter(|count| *count > 0)
    });
    start_stranger(child.id());
    assert!(
        children_of_init(child.id()).len() > known,
        "the stranger is there"
    );
    wait_until(SOON, "the stranger is reaped", || {
        children_of_init(child.id()).len() == known
    });
    let main = json!({ "cmd": "sleep 0.3; exit 23", "shell": true, "essential": true, "restart": "never" });
    put("main", &main);
    let status = wait_for(SOON, "the end of the essential job", || {
        child.try_wait().expect("its status")
    });
    assert_eq!(status.code(), Some(23), "{}", node.log());
    assert!(node.pids().is_empty(), "{:#?}", node.pids());
}

/// Processes whose parent is the daemon that `unshare` started.
fn children_of_init(unshare: u32) -> Vec<process::Process> {
    let children = |pid: u32| -> Vec<process::Process> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let pids = text.unwrap_or_default();
        pids.split_whitespace()
            .filter_map(|pid| process::Process::read(pid.parse().ok()?))
            .collect()
    };
    let daemons = children(unshare);
    daemons.iter().flat_map(|daemon| children(daemon.pid)).collect()
}

/// A process that comes from outside and loses its parent becomes a child of init.
fn start_stranger(unshare: u32) {
    let text = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
    let daemon = text.expect("the daemon").trim().to_owned();
    let status = Command::new("nsenter")
        .args(["--pid", "--target", &daemon, "sh", "-c", "sleep 0.3 & exit 0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("nsenter").success());
}

/// Mode and owner of a file.
fn access(path: &std::path::Path) -> (u32, u32) {
    let meta = std::fs::metadata(path).expect("there");
    (meta.mode() & 0o777, meta.uid())
}

#[test]
fn a_program_with_a_user_of_its_own_reaches_a_notify_socket_that_is_its_alone_and_knows_who_it_is() {
    // Only root may run a job as somebody else.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut node = Node::start();
    std::fs::set_permissions(node.root(), std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .expect("a way");
    let program = node.root().join("fixture");
    std::fs::copy(node.fixture(), &program).expect("a program that anybody can run");
    // A send that meets no daemon fails, and is tried again.
    let script = format!(
        "env; while :; do timeout 0.5 {} ready-after 0 --watchdog-ms 100; done",
        program.display()
    );
    let spec = json!({
        "cmd": script, "shell": true, "cwd": "/", "user": "nobody", "retry": { "delay": "1h", "max_delay": "1h" },
        "ready": { "notify": true }, "health": { "heartbeat": "2s" },
    });
    node.put_job("default", "web", &spec);
    let running = |job: &serde_json::Value| job["state"] == "running";
    let before = node.wait_job("default", "web", SOON, running)["instances"][0].clone();
    let output = String::from_utf8_lossy(&node.logged("default", "web", 1, "stdout")).into_owned();
    let variable = |name: &str| {
        let line = output
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.map(str::to_owned)
    };
    assert_eq!(
        (variable("USER").as_deref(), variable("LOGNAME").as_deref()),
        (Some("nobody"), Some("nobody"))
    );
    assert!(
        variable("HOME").is_some() && variable("SHELL").is_some(),
        "{output}"
    );
    let path = std::path::PathBuf::from(variable("NOTIFY_SOCKET").expect("a socket"));
    assert_eq!(
        (access(&path), access(path.parent().expect("a directory"))),
        ((0o600, 65_534), (0o711, 0))
    );
    // What somebody else says by the same socket is nobody's word; signs of life are heard by the next daemon too.
    let mut other = spec.clone();
    other["cmd"] = json!("exec sleep 1000");
    node.put_job("default", "mute", &other);
    let outside = UnixDatagram::unbound().expect("a socket");
    outside
        .send_to(b"READY=1", &path)
        .expect("root may write anywhere");
    node.restart();
    let begun = Instant::now();
    wait_until(SOON, "longer than the heartbeat", || {
        begun.elapsed() > Duration::from_secs(3)
    });
    let after = node.wait_job("default", "web", SOON, running)["instances"][0].clone();
    assert_eq!(
        (&after["run"], &after["pid"], &after["restarts"]),
        (&before["run"], &before["pid"], &before["restarts"])
    );
    assert_eq!(node.get("/v1/jobs/default/mute")["state"], "starting");
    assert_eq!(node.stop(SOON).code(), Some(0));
    assert!(
        !path.exists() && !path.parent().expect("a directory").exists(),
        "nothing is left in /run"
    );
}

/// Lines of the daemon's log that found no room, as the metrics count them.
fn dropped_lines(asked: &mut gaffer_testkit::http::Connection) -> u64 {
    let text = asked
        .request("GET", "/metrics", &[], b"")
        .expect("metrics")
        .text();
    let name = "gaffer_daemon_log_dropped_lines_total ";
    let number = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.parse().ok());
    number.expect("the counter")
}

/// Reads up to the line that has `word`, and gives what stands behind it.
fn wait_line(pipe: &mut impl std::io::BufRead, said: &mut String, word: &str) -> String {
    loop {
        let before = said.len();
        assert!(pipe.read_line(said).expect("its words") > 0, "no {word}");
        if let Some((_, rest)) = said[before..].split_once(word) {
            return rest.to_owned();
        }
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_what_it_lost_is_told_when_somebody_reads_again() {
    use std::io::Read;
    let node = Node::builder().arg("--log-level").arg("debug").prepare();
    let (reading, writing) = rustix::pipe::pipe().expect("a pipe");
    rustix::pipe::fcntl_setpipe_size(&writing, 4096).expect("a small one");
    let mut command = node.daemon_command();
    command.stderr(writing);
    let mut child = command.spawn().expect("gafferd");
    drop(command);
    let mut pipe = std::io::BufReader::new(std::fs::File::from(reading));
    let mut said = String::new();
    wait_line(&mut pipe, &mut said, "gafferd ready");
    // Nobody reads from here on.
    let mut asked = gaffer_testkit::http::Connection::unix(&node.socket()).with_timeout(SOON);
    assert_eq!(dropped_lines(&mut asked), 0);
    for _ in 0..6000 {
        let answer = asked.request("GET", "/healthz", &[], b"").expect("an answer");
        assert_eq!(answer.status, 200);
    }
    let lost = dropped_lines(&mut asked);
    assert!(lost > 1000, "{lost}");
    // Somebody reads again. The line of the last request itself was lost as well.
    let told = wait_line(&mut pipe, &mut said, "daemon.log-dropped lines=");
    let told: Option<u64> = told.split(' ').next().and_then(|number| number.parse().ok());
    assert!(
        told.is_some_and(|told| (lost..lost + 3).contains(&told)),
        "{told:?} of {lost}"
    );
    let times: Vec<&str> = said.lines().filter_map(|line| line.split(' ').next()).collect();
    let times: Vec<&str> = times.into_iter().filter(|word| word.ends_with('Z')).collect();
    assert!(
        times.len() > 4000 && times.is_sorted(),
        "{} lines in order",
        times.len()
    );
    let daemon = gaffer_testkit::process::Handle::open(child.id()).expect("the daemon");
    assert!(daemon.signal(rustix::process::Signal::TERM));
    let mut rest = String::new();
    pipe.read_to_string(&mut rest).expect("its last words");
    assert!(rest.contains("daemon.stopping"), "{rest}");
    assert!(child.wait().expect("its status").success());
}
