//! `gaffer start`, `dev` and `run -- CMD`: a private daemon for as long as the command lasts, and nothing afterwards.

use gaffer_testkit::node::{assert_gone, bin_dir};
use gaffer_testkit::process::{Handle, of_node};
use gaffer_testkit::wait_until;
use rustix::process::Signal;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new(file: &str, text: &str) -> Place {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(root.path().join("run")).expect("a folder");
        std::fs::create_dir(root.path().join("shop")).expect("a folder");
        let fixture = bin_dir().join("gaffer-fixture").display().to_string();
        if !file.is_empty() {
            std::fs::write(
                root.path().join("shop").join(file),
                text.replace("FIXTURE", &fixture),
            )
            .expect("a file");
        }
        Place { root }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gaffer"));
        command.args(words).current_dir(self.root.path().join("shop"));
        for name in ["GAFFER_URL", "GAFFER_SESSION", "GAFFER_TOKEN", "GAFFER_PROFILE"] {
            command.env_remove(name);
        }
        command
            .env("XDG_RUNTIME_DIR", self.root.path().join("run"))
            .env("GAFFER_SOCKET", self.root.path().join("nobody.sock"))
            .env("GAFFER_GAFFERD", bin_dir().join("gafferd"))
            .env("GAFFER_TEST_ROOT", self.root.path());
        command
    }

    fn start(&self, words: &[&str]) -> Running<'_> {
        let file = |name: &str| std::fs::File::create(self.root.path().join(name)).expect("a file");
        let child = self
            .command(words)
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn();
        Running {
            place: self,
            child: child.expect("gaffer runs"),
        }
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words)
            .stdin(Stdio::null())
            .output()
            .expect("gaffer runs")
    }

    fn said(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.root.path().join(name)).unwrap_or_default();
        format!("{}{}", read("out"), read("err"))
    }

    /// Private directories that are left.
    fn private(&self) -> usize {
        std::fs::read_dir(self.root.path().join("run"))
            .expect("a folder")
            .count()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Only after a test that failed is anything left; nothing of it may stay.
        for process in of_node(self.root.path(), &self.root.path().join("state")) {
            if let Some(process) = Handle::open(process.pid) {
                process.signal(Signal::KILL);
            }
        }
    }
}

struct Running<'a> {
    place: &'a Place,
    child: Child,
}

impl Running<'_> {
    #[track_caller]
    fn until(&self, text: &str) {
        wait_until(SOON, text, || self.place.said().contains(text));
    }

    fn signal(&self, signal: Signal) {
        // It is our child and not waited for: its number is its own.
        assert!(
            Handle::open(self.child.id()).is_some_and(|process| process.signal(signal)),
            "it lives"
        );
    }

    #[track_caller]
    fn end(mut self) -> i32 {
        let mut status = None;
        wait_until(SOON, "the end of gaffer", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.and_then(|status| status.code()).unwrap_or(-1)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Only a test that fails gets here with a live child; its private daemon follows it.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            eprintln!("{}", self.place.said());
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_file_runs_until_ctrl_c_and_leaves_nothing() {
    let place = Place::new(
        "Procfile",
        "web: FIXTURE lines --count 3 --prefix hello --every-us 1000\nidle: FIXTURE idle\n",
    );
    let running = place.start(&["start"]);
    running.until("hello");
    running.until("idle.1");
    running.signal(Signal::INT);
    assert_eq!(running.end(), 0, "{}", place.said());
    let said = place.said();
    assert!(said.contains("shop · Procfile · private daemon"), "{said}");
    assert!(said.contains("● running   pid "), "{said}");
    assert!(said.contains("stopping  asked by Ctrl-C"), "{said}");
    assert!(said.contains("stopped   2 jobs in "), "{said}");
    assert_gone(place.root.path());
    assert_eq!(place.private(), 0);
}

#[test]
fn killing_the_command_line_stops_everything() {
    let place = Place::new("Procfile", "idle: FIXTURE idle\n");
    let running = place.start(&["start"]);
    running.until("running   pid ");
    running.signal(Signal::KILL);
    running.end();
    assert_gone(place.root.path());
}

impl Place {
    /// The private daemon.
    fn daemon(&self) -> u32 {
        let mut all = of_node(self.root.path(), &self.root.path().join("state")).into_iter();
        let is_daemon = |word: &String| word.ends_with("/gafferd");
        all.find(|process| process.command.first().is_some_and(is_daemon))
            .expect("a private daemon")
            .pid
    }

    /// Processes of jobs.
    fn jobs(&self) -> Vec<u32> {
        let all = of_node(self.root.path(), &self.root.path().join("state")).into_iter();
        let is_job = |word: &String| word.ends_with("/gaffer-fixture");
        all.filter(|process| process.command.first().is_some_and(is_job))
            .map(|process| process.pid)
            .collect()
    }
}

fn kill(pid: u32) {
    assert!(
        Handle::open(pid).is_some_and(|process| process.signal(Signal::KILL)),
        "it lives"
    );
}

/// SIGKILL for the command and its private daemon, so that neither sees the end of the other: the command stands still
/// when its daemon is killed. (Not the other way round: who is stopped in an orphaned process group is woken by the kernel.)
fn kill_both(place: &Place, running: Running<'_>) {
    let daemon = Handle::open(place.daemon()).expect("it lives");
    running.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", running.child.id());
    wait_until(SOON, "its stop", || {
        std::fs::read_to_string(&stat).is_ok_and(|text| text.contains(") T "))
    });
    assert!(daemon.signal(Signal::KILL));
    running.signal(Signal::KILL);
    running.end();
    wait_until(SOON, "the end of the daemon", || !daemon.signal(Signal::CONT));
}

#[test]
fn hazard_19_what_a_killed_command_and_its_killed_daemon_left_is_ended_by_the_next_start() {
    let place = Place::new("Procfile", "idle: FIXTURE idle\n");
    let running = place.start(&["start"]);
    running.until("running   pid ");
    let left = place.jobs();
    assert_eq!(left.len(), 1, "{}", place.said());
    kill_both(&place, running);
    assert_eq!(place.jobs(), left, "the shim keeps it for a while");
    let running = place.start(&["start"]);
    running.until("running   pid ");
    assert!(
        place
            .said()
            .contains("stopping what a killed gaffer left running"),
        "{}",
        place.said()
    );
    let now = place.jobs();
    assert_eq!(now.len(), 1, "the old one is gone");
    assert_ne!(now, left);
    assert_eq!(place.private(), 1, "its directory is gone too");
    running.signal(Signal::INT);
    assert_eq!(running.end(), 0, "{}", place.said());
    assert_gone(place.root.path());
    assert_eq!(place.private(), 0);
}

#[test]
fn hazard_19_without_a_next_start_the_shims_end_what_both_have_left() {
    let place = Place::new("Procfile", "idle: FIXTURE idle\n");
    let running = place.start(&["start"]);
    running.until("running   pid ");
    kill_both(&place, running);
    wait_until(SOON, "the leash of the shim", || place.jobs().is_empty());
    assert_gone(place.root.path());
}

#[test]
fn a_killed_private_daemon_leaves_nothing_behind() {
    let place = Place::new("Procfile", "idle: FIXTURE idle\n");
    let running = place.start(&["start"]);
    running.until("running   pid ");
    kill(place.daemon());
    assert_eq!(running.end(), 1, "{}", place.said());
    assert!(
        place.said().contains("the private daemon was killed"),
        "{}",
        place.said()
    );
    assert!(place.jobs().is_empty(), "{}", place.said());
    assert_gone(place.root.path());
    assert_eq!(place.private(), 0);
}

#[test]
fn a_file_without_jobs_is_not_run_for_ever() {
    let place = Place::new("gaffer.toml", "session = \"shop\"\n");
    let output = place.run(&["start"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("error: there is no job in gaffer.toml\n"),
        "{said}"
    );
}

#[test]
fn a_start_is_told_before_what_is_said_and_a_failure_once() {
    let place = Place::new(
        "gaffer.toml",
        "[job.bad]\ncmd = \"/no/such/program\"\nrestart = \"never\"\n[job.talk]\ncmd = \"FIXTURE lines --count 1 --prefix hello\"\n\
         restart = \"never\"\nafter = { slow = \"done\" }\n\
         [job.slow]\ncmd = \"FIXTURE exit 0 --after-ms 500\"\nrestart = \"never\"\n",
    );
    let running = place.start(&["start"]);
    assert_eq!(running.end(), 1, "{}", place.said());
    let said = place.said();
    assert_eq!(said.matches("cannot run /no/such/program").count(), 1, "{said}");
    let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("{what}: {said}"));
    let start =
        at("○ waiting   for slow\n") + said[at("○ waiting   for slow\n")..].rfind("  pid ").unwrap_or(0);
    assert!(start < at("talk.1   | hello"), "{said}");
    assert!(at("talk.1   ○ exited") < at("everything has ended"), "{said}");
}

#[test]
fn the_essential_job_ends_everything_with_its_code() {
    let text = "session = \"shop\"\n[job.main]\ncmd = \"FIXTURE exit 5 --after-ms 200\"\nrestart = \"never\"\nessential = true\n\
                [job.side]\ncmd = \"FIXTURE idle\"\n";
    let place = Place::new("gaffer.toml", text);
    let running = place.start(&["start"]);
    assert_eq!(running.end(), 5, "{}", place.said());
    assert_gone(place.root.path());
}

#[test]
fn stop_on_failure_ends_everything_with_the_code_that_failed() {
    let place = Place::new(
        "Procfile",
        "bad: FIXTURE exit 3 --after-ms 200\nside: FIXTURE idle\n",
    );
    let running = place.start(&["dev", "--stop-on", "failure"]);
    assert_eq!(running.end(), 3, "{}", place.said());
    assert_gone(place.root.path());
}

#[test]
fn only_some_jobs_of_a_file_can_run() {
    let place = Place::new("Procfile", "web: FIXTURE idle\nside: FIXTURE idle\n");
    let running = place.start(&["dev", "web"]);
    running.until("web.1");
    running.signal(Signal::TERM);
    assert_eq!(running.end(), 0, "{}", place.said());
    assert!(!place.said().contains("side.1"), "{}", place.said());
    let output = place.run(&["dev", "wbe"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        text(&output.stderr).contains("did you mean `web`?"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn the_second_ctrl_c_kills() {
    let place = Place::new(
        "gaffer.toml",
        "[job.deaf]\ncmd = \"FIXTURE ignore-term\"\nstop.timeout = \"1h\"\n",
    );
    let running = place.start(&["start"]);
    running.until("ignoring");
    running.signal(Signal::INT);
    running.until("asked by Ctrl-C");
    running.signal(Signal::INT);
    assert_eq!(running.end(), 0, "{}", place.said());
    assert_gone(place.root.path());
}

#[test]
fn without_a_file_it_says_what_to_do() {
    let place = Place::new("", "");
    let output = place.run(&["start"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("there is no gaffer.toml and no Procfile in ") && said.contains("gaffer init"),
        "{said}"
    );
}

#[test]
fn a_command_runs_here_with_its_input_output_and_code() {
    let place = Place::new("", "");
    let output = place.run(&["run", "--", "sh", "-c", "echo out; echo err >&2; exit 4"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        ("out\n".to_owned(), "err\n".to_owned())
    );
    let mut child = place
        .command(&["run", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gaffer runs");
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut input = child.stdin.take().expect("a pipe");
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || input.write_all(&sent));
    let output = child.wait_with_output().expect("gaffer runs");
    writer.join().expect("a thread").expect("all is taken");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == bytes, "{} bytes came back", output.stdout.len());
    assert_gone(place.root.path());
    assert_eq!(place.private(), 0);
}

#[test]
fn a_command_that_cannot_run_says_why() {
    let place = Place::new("", "");
    let output = place.run(&["run", "--", "/no/such/program"]);
    assert_eq!(output.status.code(), Some(127), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("/no/such/program"),
        "{}",
        text(&output.stderr)
    );
    let output = place.run(&["run", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(output.status.code(), Some(137), "{}", text(&output.stderr));
    assert!(!Path::new("/no/such").exists());
}

#[test]
fn many_jobs_share_one_stream_of_lines() {
    let jobs: String = (0..20)
        .map(|n| format!("[job.j{n}]\ncmd = [\"/bin/sh\", \"-c\", \"echo j{n} speaks; exec sleep 1000\"]\n"))
        .collect();
    let place = Place::new("gaffer.toml", &format!("session = \"shop\"\n{jobs}"));
    let running = place.start(&["start"]);
    for n in 0..20 {
        running.until(&format!("| j{n} speaks\n"));
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", running.child.id())).expect("it lives");
    let is_socket = |path: &std::path::PathBuf| path.to_string_lossy().starts_with("socket:");
    let sockets = open
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
        .filter(is_socket)
        .count();
    assert!(sockets < 15, "{sockets} sockets for 20 jobs");
    running.signal(Signal::INT);
    assert_eq!(running.end(), 0, "{}", place.said());
}

#[test]
fn a_task_comes_before_its_job_and_is_told_with_what_it_writes() {
    let text = "session = \"shop\"\n[task.migrate]\nshell = true\ncmd = \"echo step one; echo oh >&2; test -e go || exit 3\"\n\
                [job.worker]\ncmd = \"FIXTURE run\"\nafter = [\"migrate\"]\n";
    let place = Place::new("gaffer.toml", text);
    let running = place.start(&["start"]);
    running.until("migrate   | step one");
    running.until("✗ failed");
    running.until("exit 3");
    running.until("○ waiting   for migrate");
    running.signal(Signal::INT);
    assert_eq!(running.end(), 0, "{}", place.said());
    std::fs::write(place.root.path().join("shop/go"), "").expect("a file");
    let running = place.start(&["start"]);
    running.until("migrate   ● success");
    running.until("● running");
    running.signal(Signal::INT);
    assert_eq!(running.end(), 0, "{}", place.said());
    let said = place.said();
    let place_of = |text: &str| said.find(text).unwrap_or_else(|| panic!("{text}: {said}"));
    assert!(place_of("migrate   ! oh") < place_of("● success"), "{said}");
    assert!(place_of("● success") < place_of("● running"), "{said}");
    assert_eq!(place.private(), 0);
    assert_gone(place.root.path());
}

#[test]
fn a_file_of_tasks_ends_with_them_and_with_their_result() {
    let text =
        "[task.release]\nstart = true\nshell = true\ncmd = \"test -e go\"\n[task.other]\ncmd = \"true\"\n";
    let place = Place::new("gaffer.toml", text);
    let failed = place.run(&["start"]);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&failed.stdout),
        String::from_utf8_lossy(&failed.stderr)
    );
    assert_eq!(failed.status.code(), Some(1), "{text}");
    assert!(text.contains("task other does not start by itself"), "{text}");
    assert!(!text.contains("task release does not"), "{text}");
    std::fs::write(place.root.path().join("shop/go"), "").expect("a file");
    assert_eq!(place.run(&["start"]).status.code(), Some(0));
    assert_gone(place.root.path());
}

#[test]
fn ctrl_c_ends_a_task_in_order_and_a_second_time_kills_it() {
    let script = "trap 'echo asked; ENDS' TERM; echo up; while true; do sleep 0.05; done";
    let text =
        format!("[task.t]\nstart = true\nshell = true\ncmd = \"{script}\"\n[job.w]\ncmd = \"FIXTURE run\"\n");
    let place = Place::new("gaffer.toml", &text.replace("ENDS", "exit 0"));
    let running = place.start(&["start"]);
    running.until("| up");
    running.signal(Signal::INT);
    assert_eq!(running.end(), 0, "{}", place.said());
    assert!(place.said().contains("all"), "{}", place.said());
    assert_gone(place.root.path());
    let place = Place::new("gaffer.toml", &text.replace("ENDS", "true"));
    let running = place.start(&["start"]);
    running.until("| up");
    running.signal(Signal::INT);
    running.until("| asked");
    running.signal(Signal::INT);
    assert_eq!(running.end(), 0, "{}", place.said());
    assert_gone(place.root.path());
}

#[test]
fn a_killed_foreground_leaves_nothing_of_its_tasks() {
    let text = "[task.t]\nstart = true\nshell = true\ncmd = \"echo up; while true; do sleep 0.05; done\"\n";
    let place = Place::new("gaffer.toml", text);
    let running = place.start(&["start"]);
    running.until("| up");
    running.signal(Signal::KILL);
    running.end();
    wait_until(SOON, "nothing is left", || {
        of_node(place.root.path(), &place.root.path().join("state")).is_empty()
    });
}

#[test]
fn queues_and_schedules_work_in_the_foreground_and_keep_it_running() {
    let text = r#"
session = "shop"
[queue.mail]
cmd = ["sh", "-c", "cat; echo; test $$GAFFER_TASK != 2 || { echo oops >&2; exit 3; }"]
retry.attempts = 1
[schedule.tick]
every = "1s"
queue = "mail"
payload = { at = "now" }
[schedule.hello]
every = "1s"
cmd = "echo hello from the schedule"
[job.once]
cmd = "true"
restart = "never"
"#;
    let place = Place::new("gaffer.toml", text);
    let running = place.start(&["start"]);
    running.until("once.1   ○ exited");
    running.until("mail.1   | {\"at\":\"now\"}");
    running.until("hello    | hello from the schedule");
    running.until("mail     ✗ failed    task 2 is dead: exit 3");
    running.signal(Signal::INT);
    assert_eq!(running.end(), 0, "{}", place.said());
    let said = place.said();
    let place_of = |text: &str| said.find(text).unwrap_or_else(|| panic!("{text}: {said}"));
    assert!(place_of("! oops") < place_of("task 2 is dead"), "{said}");
    assert!(
        !said.contains("does not start by itself"),
        "a schedule starts it: {said}"
    );
}
