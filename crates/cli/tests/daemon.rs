//! The commands that look after the daemon, from outside, as somebody uses them for the first time; and `gafferctl`.

use gaffer_testkit::node::{assert_gone, bin_dir};
use gaffer_testkit::process::{Handle, of_node};
use gaffer_testkit::wait_until;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// A folder with a file, and a daemon that is not there yet.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let root = tempfile::tempdir().expect("a folder");
        Place { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let fixture = bin_dir().join("gaffer-fixture").display().to_string();
        std::fs::write(self.path(name), text.replace("FIXTURE", &fixture)).expect("a file");
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(words).current_dir(self.root.path());
        for name in ["GAFFER_URL", "GAFFER_SESSION", "GAFFER_TOKEN", "GAFFER_PROFILE"] {
            command.env_remove(name);
        }
        command
            .env("GAFFER_SOCKET", self.path("sock"))
            .env("GAFFER_STATE_DIR", self.path("state"))
            .env("GAFFER_GAFFERD", bin_dir().join("gafferd"))
            .env("GAFFER_TEST_ROOT", self.root.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_gaffer"), words)
            .output()
            .expect("gaffer runs")
    }

    /// A command that must succeed: everything it said.
    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let said = said(&output);
        assert!(output.status.success(), "{words:?}: {}\n{said}", output.status);
        said
    }

    /// A command that must fail with this code: everything it said.
    #[track_caller]
    fn fails(&self, code: i32, words: &[&str]) -> String {
        let output = self.run(words);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        said
    }

    #[track_caller]
    fn ctl(&self, code: i32, words: &[&str]) -> String {
        let output = self
            .command(env!("CARGO_BIN_EXE_gafferctl"), words)
            .output()
            .expect("gafferctl runs");
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        said
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.ok(&["daemon", "status", "--json"])).expect("JSON")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Only after a test that failed is anything left; nothing of it may stay.
        for process in of_node(self.root.path(), &self.path("state")) {
            if let Some(process) = Handle::open(process.pid) {
                process.signal(Signal::KILL);
            }
        }
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

const FILE: &str = "session = \"shop\"\n[job.web]\ncmd = \"FIXTURE idle\"\nstop.timeout = \"5s\"\n";

#[test]
fn a_daemon_is_started_looked_at_reloaded_restarted_and_stopped() {
    let place = Place::new();
    place.write("gaffer.toml", FILE);
    let started = place.ok(&["daemon", "start", "--bind", "none", "-c", "gaffer.toml"]);
    assert!(started.starts_with("● gafferd "), "{started}");
    let again = place.ok(&["daemon", "start", "--bind", "none"]);
    assert!(again.contains("gafferd runs already: pid "), "{again}");
    place.ok(&["wait", "web", "--timeout", "20s"]);
    let shown = place.ok(&["daemon", "status"]);
    for line in [
        "listens",
        "state",
        "file",
        "1 job, 1 live run, 1 daemon start",
        "for session shop: 1 run, connected",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let same = place.ok(&["daemon", "reload", "--timeout", "20s"]);
    assert!(
        same.contains("its file is applied: nothing had changed"),
        "{same}"
    );
    place.write("gaffer.toml", &format!("{FILE}instances = 2\n"));
    let changed = place.ok(&["daemon", "reload", "--timeout", "20s"]);
    assert_eq!(changed, "● its file is applied\n");
    place.ok(&["wait", "web.2", "--timeout", "20s"]);
    place.write("gaffer.toml", "[job.web]\ncmd = 3\n");
    let wrong = place.fails(2, &["daemon", "reload", "--timeout", "20s"]);
    assert!(wrong.contains("gaffer.toml:2:"), "{wrong}");
    // A restart applies its file again.
    place.write("gaffer.toml", &format!("{FILE}instances = 2\n"));

    let (runs, pid) = (
        place.ok(&["ps", "--columns", "job,pid"]),
        place.status()["pid"].clone(),
    );
    // What the environment says of other daemons is no reason to leave the state of this one.
    let restarted = place
        .command(
            env!("CARGO_BIN_EXE_gaffer"),
            &["daemon", "restart", "--bind", "none"],
        )
        .env("GAFFER_STATE_DIR", place.path("another"))
        .output()
        .expect("gaffer runs");
    assert!(restarted.status.success(), "{}", said(&restarted));
    assert!(
        said(&restarted).contains("took charge of 2 of 2 runs"),
        "{}",
        said(&restarted)
    );
    assert!(!place.path("another").exists());
    assert_ne!(place.status()["pid"], pid);
    place.ok(&["wait", "web.1=running", "--timeout", "20s"]);
    assert!(
        place
            .ok(&["ps", "--columns", "job,pid"])
            .starts_with(runs.lines().take(2).collect::<Vec<_>>().join("\n").as_str())
    );

    let stopped = place.ok(&["daemon", "stop"]);
    assert!(stopped.contains("gafferd has ended"), "{stopped}");
    assert_gone(place.root.path());
    let gone = place.fails(69, &["daemon", "status"]);
    assert!(gone.starts_with("error: no daemon answers at "), "{gone}");
}

#[test]
fn a_daemon_that_cannot_start_says_why_and_what_to_do() {
    let place = Place::new();
    place.ok(&["daemon", "start", "--bind", "none"]);
    let second = place.fails(
        1,
        &["daemon", "start", "--bind", "none", "--socket", "other.sock"],
    );
    assert!(
        second.starts_with("error: another daemon uses the state directory "),
        "{second}"
    );
    let pid = place.status()["pid"].to_string();
    assert!(second.contains(&format!("(pid {pid})")), "{second}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let bind = taken.local_addr().expect("its address").to_string();
    let other = [
        "daemon",
        "start",
        "--socket",
        "other.sock",
        "--state-dir",
        "other",
        "--bind",
        &bind,
    ];
    let port = place.fails(1, &other);
    assert!(
        port.contains(&format!("cannot listen at {bind}: the port is in use")) && port.contains("--bind"),
        "{port}"
    );
    let other = [
        "daemon",
        "start",
        "--socket",
        "other.sock",
        "--state-dir",
        "other",
        "--bind",
        "none",
        "-c",
        "no.toml",
    ];
    let file = place.fails(2, &other);
    assert!(
        file.contains("no.toml") && file.contains("no such file"),
        "{file}"
    );
    let reload = place.fails(4, &["daemon", "reload"]);
    assert!(
        reload.contains("started without a file") && reload.contains("gaffer apply FILE"),
        "{reload}"
    );
    place.ok(&["daemon", "stop"]);
    assert_gone(place.root.path());
}

#[test]
fn a_unit_for_systemd_is_printed() {
    let place = Place::new();
    let unit = place.ok(&["daemon", "install", "--print"]);
    for line in ["[Unit]", "[Service]", "KillMode=process", "[Install]"] {
        assert!(unit.contains(line), "{line}: {unit}");
    }
}

#[test]
fn a_session_that_the_daemon_runs_is_not_run_twice_by_mistake() {
    let place = Place::new();
    place.write("gaffer.toml", FILE);
    place.ok(&["daemon", "start", "--bind", "none"]);
    place.ok(&["apply"]);
    let refused = place.fails(4, &["start"]);
    assert!(
        refused.starts_with("error: the daemon runs session shop already (1 job)\n"),
        "{refused}"
    );
    assert!(refused.contains("gaffer dev --anyway"), "{refused}");
    let log = std::fs::File::create(place.path("log")).expect("a file");
    let mut second = place
        .command(env!("CARGO_BIN_EXE_gaffer"), &["dev", "--anyway"])
        .stdout(log)
        .spawn()
        .expect("gaffer runs");
    let shown = || std::fs::read_to_string(place.path("log")).unwrap_or_default();
    wait_until(SOON, "the second copy", || shown().contains("web.1    ● running"));
    assert!(Handle::open(second.id()).is_some_and(|process| process.signal(Signal::INT)));
    assert_eq!(second.wait().expect("a child").code(), Some(0), "{}", shown());
    assert!(place.ok(&["ps"]).contains("running"), "the first one goes on");
    place.ok(&["daemon", "stop"]);
    assert_gone(place.root.path());
}

#[test]
fn a_failed_apply_names_the_job() {
    let place = Place::new();
    place.write(
        "gaffer.toml",
        &format!("{FILE}[job.bad]\ncmd = \"/no/such/program\"\n"),
    );
    place.ok(&["daemon", "start", "--bind", "none"]);
    let failed = place.fails(1, &["apply"]);
    assert!(
        failed.contains("error: applied, but: 1 of 2 failed; shop.bad: "),
        "{failed}"
    );
    assert!(failed.contains("/no/such/program"), "{failed}");
    let scaled = place.ok(&["scale", "web=+1"]);
    assert_eq!(scaled, "● web  scaled to 2\n");
    place.ok(&["daemon", "stop"]);
}

#[test]
fn a_file_of_ten_mebibytes_is_refused_with_a_reason() {
    let place = Place::new();
    place.ok(&["daemon", "start", "--bind", "none"]);
    place.write(
        "gaffer.toml",
        &format!("{FILE}env.X = \"{}\"\n", "x".repeat(10 << 20)),
    );
    let refused = place.fails(2, &["apply"]);
    assert!(
        refused.starts_with("error: the request is larger than 4M\n"),
        "{refused}"
    );
    assert!(refused.contains("leave large values in a file"), "{refused}");
    place.ok(&["daemon", "stop"]);
}

#[test]
fn s13_5_the_first_command_line_of_the_original_still_works() {
    let place = Place::new();
    place.ok(&["daemon", "start", "--bind", "none"]);
    let fixture = bin_dir().join("gaffer-fixture").display().to_string();
    assert_eq!(
        place.ctl(0, &["add_process", "--start", "web", &fixture, "idle"]),
        "ok\n"
    );
    wait_until(SOON, "it runs", || {
        place.ctl(0, &["processes", "--running"]) == place.ctl(0, &["pids", "web"])
    });
    assert_eq!(place.ctl(0, &["running", "web"]), "1\n");
    let pid = place.ctl(0, &["pids", "web"]).trim().to_owned();
    assert!(pid.parse::<u32>().is_ok_and(|pid| pid < 100), "{pid}");
    assert_eq!(place.ctl(0, &["kill", &pid, "HUP"]), "ok\n");
    assert!(
        place
            .ctl(1, &["kill", "999", "HUP"])
            .contains("no process has the number 999")
    );
    assert_eq!(place.ctl(0, &["status", "web"]), "active\n");
    assert_eq!(place.ctl(0, &["add", "web", "2"]).trim(), "3");
    assert_eq!(place.ctl(0, &["sub", "web", "1"]).trim(), "2");
    assert_eq!(place.ctl(0, &["numprocesses", "web"]), "2\n");
    let pids = || place.ctl(0, &["pids", "web"]);
    wait_until(SOON, "two processes", || pids().trim().split(',').count() == 2);
    let job: serde_json::Value = serde_json::from_str(&place.ctl(0, &["get_process", "web"])).expect("JSON");
    assert_eq!(
        (job["name"].as_str(), &job["args"][0]),
        (Some("web"), &serde_json::json!("idle"))
    );
    let more = place.ctl(0, &["help", "watch"]);
    assert!(
        more.starts_with("usage: gafferctl watch [PATTERN] [--heartbeat"),
        "{more}"
    );
    assert!(
        place
            .ctl(2, &["add", "web"])
            .contains("what it takes:  gafferctl help add")
    );
    assert!(
        place
            .ctl(2, &["--certfile"])
            .contains("`--certfile` needs a value")
    );
    assert_eq!(place.ctl(0, &["kill", "web", "HUP"]), "ok\n");
    assert_eq!(place.ctl(0, &["stop", "web"]), "ok\n");
    assert_eq!(place.ctl(0, &["status", "web"]), "stopped\n");
    assert!(place.ctl(1, &["status", "wbe"]).contains("did you mean `web`?"));
    assert!(
        place
            .ctl(2, &["proceses"])
            .contains("did you mean `gafferctl processes`?")
    );
    assert_eq!(place.ctl(0, &["del_process", "web"]), "ok\n");
    assert_eq!(
        place.ctl(0, &["add_process", "shop:web", &fixture, "idle"]),
        "ok\n"
    );
    assert_eq!(place.ctl(0, &["processes"]), "shop:web\n");
    assert_eq!(place.ctl(0, &["running", "shop:web"]), "0\n");
    assert_eq!(place.ctl(0, &["del_process", "shop:web"]), "ok\n");
    assert_eq!(place.ctl(0, &["processes"]), "");
    place.ok(&["daemon", "stop"]);
    assert_gone(Path::new(place.root.path()));
    assert!(place.ctl(69, &["processes"]).contains("no daemon answers"));
}

#[test]
fn doctor_chaos_kills_a_private_daemon_and_its_shims_and_says_what_was_kept() {
    let place = Place::new();
    let mut command = place.command(
        env!("CARGO_BIN_EXE_gaffer"),
        &["doctor", "--chaos", "--seconds", "3", "--json"],
    );
    let output = command
        .env("XDG_RUNTIME_DIR", place.root.path())
        .output()
        .expect("gaffer runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let doctor: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = doctor["checks"].as_array().expect("checks");
    let names: Vec<&str> = checks.iter().filter_map(|check| check["name"].as_str()).collect();
    assert_eq!(names, ["daemon", "shims", "lines", "ends"]);
    assert!(checks.iter().all(|check| check["state"] == "good"), "{doctor:#}");
    let text = checks[2]["text"].as_str().unwrap_or_default();
    let lines: u32 = text
        .split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .expect("a number of lines");
    assert!(lines > 20, "{text}");
    // Neither a process nor a directory is left; the daemon of this place was never there.
    wait_until(SOON, "the end of all of it", || {
        of_node(place.root.path(), &place.path("state")).is_empty()
    });
    let left: Vec<_> = std::fs::read_dir(place.root.path())
        .expect("the folder")
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn s13_5_gafferctl_watch_follows_a_pattern() {
    use std::io::BufRead;
    let place = Place::new();
    place.ok(&["daemon", "start", "--bind", "none"]);
    let fixture = bin_dir().join("gaffer-fixture").display().to_string();
    place.ctl(0, &["add_process", "--start", "web", &fixture, "idle"]);
    place.ctl(0, &["add_process", "--start", "other", &fixture, "idle"]);
    let mut command = place.command(env!("CARGO_BIN_EXE_gafferctl"), &["watch", "proc.web"]);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("gafferctl runs");
    let lines = std::io::BufReader::new(child.stdout.take().expect("its output")).lines();
    let (heard, hear) = std::sync::mpsc::channel();
    let listener = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if heard.send(line).is_err() {
                return;
            }
        }
    });
    // It may not follow yet: what is done again is told.
    let mut line = None;
    wait_until(SOON, "an event", || {
        place.ctl(0, &["add", "other", "1"]);
        place.ctl(0, &["add", "web", "1"]);
        line = hear.recv_timeout(std::time::Duration::from_millis(300)).ok();
        line.is_some()
    });
    let line = line.expect("a line");
    let (time, rest) = line.split_once(' ').expect("a time");
    assert!(time.len() == 8 && time.matches(':').count() == 2, "{line}");
    assert!(
        rest.starts_with("web | proc.web.spawn process with pid "),
        "{line}"
    );
    assert!(
        place
            .ctl(2, &["watch", "--nothing"])
            .contains("there is no option")
    );
    assert!(place.ctl(1, &["watch", "nonsense"]).contains("nonsense"));
    child.kill().expect("ended");
    child.wait().expect("its end");
    listener.join().expect("it heard");
    place.ok(&["daemon", "stop"]);
}

/// The original made itself the umask 0, so that everybody could write what its programs made.
#[test]
fn d57_a_daemon_in_the_background_has_the_usual_umask_and_nothing_of_the_terminal() {
    let place = Place::new();
    place.write(
        "gaffer.toml",
        "[job.once]\ncmd = [\"sh\", \"-c\", \"umask > umask; touch made\"]\nrestart = \"never\"\n",
    );
    let gaffer = env!("CARGO_BIN_EXE_gaffer");
    let line = format!("umask 0; exec {gaffer} daemon start --bind none -c gaffer.toml 9>held");
    let started = place
        .command("/bin/sh", &["-c", &line])
        .output()
        .expect("sh runs");
    assert!(started.status.success(), "{}", said(&started));
    wait_until(SOON, "the job has run", || place.path("made").exists());
    assert_eq!(
        std::fs::read_to_string(place.path("umask")).expect("written"),
        "0022\n"
    );
    let pid = place.status()["pid"].as_u64().expect("a pid");
    let open = |number: u32| std::fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap_or_default();
    for number in [0, 1] {
        assert_eq!(open(number), Path::new("/dev/null"));
    }
    let all = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
    let held = all
        .flatten()
        .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.ends_with("held")));
    assert!(!held, "a file of whoever started it is let go of");
    let session = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let fields: Vec<&str> = session
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    // State, parent, group, session, terminal.
    assert_eq!(
        (fields[3], fields[4]),
        (&*pid.to_string(), "0"),
        "a session of its own, no terminal"
    );
    place.ok(&["daemon", "stop"]);
    assert_gone(place.root.path());
}
