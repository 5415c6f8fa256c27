//! The daemon's own file: what `[gaffer]` says is so, and a file that is applied again counts whole or not at all.

use gaffer_testkit::http::{Address, Connection};
use gaffer_testkit::{Node, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// Writes the daemon's file anew, and has it applied.
fn reload(node: &Node, text: &str) {
    std::fs::write(node.root().join("gaffer.toml"), text).expect("the file");
    node.signal(Signal::HUP);
}

/// An event of this name, from the beginning on.
fn wait_event(node: &mut Node, name: &str) -> Value {
    wait_for(SOON, name, || {
        let answer = node
            .request("GET", &format!("/v1/events?filter={name}"), None)
            .text();
        answer
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
    })
}

fn pid(node: &mut Node, job: &str) -> u64 {
    let job = node.wait_job("default", job, SOON, |job| job["state"] == "running");
    job["instances"][0]["pid"].as_u64().expect("a pid")
}

fn idle(node: &Node) -> String {
    format!("[job.web]\ncmd = [{:?}, \"idle\"]\n", node.fixture())
}

fn with_file(text: &str) -> Node {
    Node::builder()
        .config("gaffer.toml", text)
        .binds_of_file()
        .start()
}

#[test]
fn a_file_with_errors_changes_nothing_and_everybody_can_see_why() {
    let mut node = with_file("[gaffer]\nbind = []\n");
    let good = format!("[gaffer]\nbind = []\n{}", idle(&node));
    reload(&node, &good);
    wait_event(&mut node, "config.applied");
    let before = pid(&mut node, "web");
    reload(
        &node,
        "[gaffer]\nbind = []\nlog_level = \"debug\"\n[job.other]\ncmd = \"x\"\nnumprocs = 2\n",
    );
    let event = wait_event(&mut node, "config.refused");
    let reason = event["reason"]["text"].as_str().expect("a reason").to_owned();
    assert!(
        reason.contains("gaffer.toml:6:1: unknown key `numprocs`"),
        "{reason}"
    );
    let log = wait_for(SOON, "a line of the log", || {
        let log = node.log();
        let line = log.lines().find(|line| line.contains(" error config.refused "))?;
        Some(line.to_owned())
    });
    assert!(log.contains("unknown key `numprocs`"), "{log}");
    assert_eq!(node.get("/v1/node")["config_refused"], reason.as_str());
    let doctor = node.cli(&["doctor"]);
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(
        text.contains("was refused") && text.contains("unknown key `numprocs`"),
        "{text}"
    );
    let status = String::from_utf8_lossy(&node.cli(&["daemon", "status"]).stdout).into_owned();
    assert!(
        status.contains("nothing was changed") && status.contains("numprocs"),
        "{status}"
    );
    assert_eq!(
        (
            node.get("/v1/jobs").as_array().map(Vec::len),
            pid(&mut node, "web")
        ),
        (Some(1), before)
    );
    assert!(!node.log().contains(" debug "));
    // A place that cannot be opened is as bad as a wrong key.
    reload(
        &node,
        &good.replace("bind = []", "bind = []\nlog_to = \"file:/nonexistent/x.log\""),
    );
    wait_until(SOON, "the other reason", || {
        node.get("/v1/node")["config_refused"]
            .as_str()
            .is_some_and(|text| text.contains("/nonexistent/x.log"))
    });
    // What is right again is told as well.
    reload(&node, &good);
    wait_until(SOON, "nothing is wrong any more", || {
        node.get("/v1/node")["config_refused"].is_null()
    });
    assert_eq!(pid(&mut node, "web"), before);
}

#[test]
fn the_log_goes_elsewhere_and_says_more_after_a_reload_and_a_moved_file_is_made_anew() {
    let mut node = with_file("[gaffer]\nbind = []\n");
    let log = node.root().join("own.log");
    let text = format!(
        "[gaffer]\nbind = []\nlog_to = \"file:{}\"\nlog_level = \"debug\"\n",
        log.display()
    );
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    reload(&node, &text);
    wait_until(SOON, "the new log", || log.exists());
    wait_until(SOON, "debug lines", || {
        node.get("/v1/node");
        read(&log).contains(" debug ")
    });
    assert_eq!(
        std::fs::metadata(&log).expect("there").permissions().mode() & 0o777,
        0o600
    );
    let old = node.root().join("old.log");
    std::fs::rename(&log, &old).expect("moved");
    reload(&node, &text);
    wait_until(SOON, "another file", || log.exists());
    let before = node.log();
    let job = json!({ "cmd": ["true"], "restart": "never" });
    node.put_job("default", "one", &job);
    wait_until(SOON, "its line", || {
        read(&log).contains("run.exited subject=default.one.1")
    });
    assert_eq!(node.log(), before, "nothing goes to stderr any more");
    reload(&node, "[gaffer]\nbind = []\nlog_level = \"error\"\n");
    wait_until(SOON, "it is applied", || {
        node.get("/v1/doctor")["checks"][1]["state"] == "good"
    });
}

#[test]
fn addresses_and_metrics_change_with_a_reload_and_connections_stay() {
    let mut node = with_file("[gaffer]\nbind = [\"127.0.0.1:0\"]\n");
    let first = node.addresses()[0];
    let mut kept = Connection::new(Address::Tcp(first));
    let asks = |connection: &mut Connection| {
        connection
            .request("GET", "/metrics", &[], &[])
            .map(|answer| answer.status)
    };
    assert_eq!(asks(&mut kept).expect("served"), 200);
    reload(&node, "[gaffer]\nbind = [\"[::1]:0\"]\nmetrics = false\n");
    let second: SocketAddr = wait_for(SOON, "another address", || {
        let listen = node.get("/v1/node")["listen"].clone();
        let address = listen
            .as_array()?
            .iter()
            .find_map(|one| one.as_str()?.strip_prefix("http://[::1]:"))?
            .to_owned();
        format!("[::1]:{address}").parse().ok()
    });
    assert_eq!(
        asks(&mut Connection::new(Address::Tcp(second))).expect("served"),
        404
    );
    assert_eq!(asks(&mut kept).expect("still served"), 404);
    wait_until(SOON, "nobody is at the first address", || {
        std::net::TcpStream::connect(first).is_err()
    });
    // A port that somebody else has is refused, and the old address stays.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    reload(
        &node,
        &format!(
            "[gaffer]\nbind = [{:?}]\n",
            taken.local_addr().expect("bound").to_string()
        ),
    );
    let reason = wait_event(&mut node, "config.refused")["reason"]["text"].clone();
    assert!(
        reason.as_str().is_some_and(|text| text.contains("in use")),
        "{reason}"
    );
    assert_eq!(
        asks(&mut Connection::new(Address::Tcp(second))).expect("served"),
        404
    );
}

#[test]
fn what_counts_at_the_next_start_is_said_to_do_so() {
    let mut node = with_file("[gaffer]\nbind = []\n");
    reload(&node, "[gaffer]\nbind = []\numask = \"077\"\npidfile = \"pid\"\n");
    wait_event(&mut node, "config.applied");
    let check = wait_for(SOON, "a check", || {
        let check = node.get("/v1/doctor")["checks"][1].clone();
        (check["state"] == "limited").then_some(check)
    });
    assert!(
        check["text"]
            .as_str()
            .is_some_and(|text| text.contains("pidfile, umask")),
        "{check}"
    );
    assert!(!node.root().join("pid").exists());
    node.kill9();
    node.start_again();
    assert_eq!(node.get("/v1/doctor")["checks"][1]["state"], "good");
    let pid = std::fs::read_to_string(node.root().join("pid")).expect("beside the file that names it");
    assert_eq!(pid.trim().parse().ok(), node.daemon_pid());
    let mode = std::fs::metadata(node.root().join("pid"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "by its umask");
    assert_eq!(node.stop(SOON).code(), Some(0));
    assert!(!node.root().join("pid").exists());
}

#[test]
fn the_history_shrinks_to_what_a_reload_says() {
    let mut node = with_file("[gaffer]\nbind = []\n");
    node.put_job(
        "default",
        "short",
        &json!({ "cmd": ["true"], "retry": { "delay": "0s" } }),
    );
    let deaths = |node: &mut Node| {
        let list = node.get("/v1/jobs/default/short/deaths?limit=1000");
        list.as_array().map_or(0, Vec::len)
    };
    wait_until(SOON, "ten deaths", || deaths(&mut node) >= 10);
    node.http("POST", "/v1/jobs/default/short/stop?wait=20s", Some(&json!({})));
    reload(&node, "[gaffer]\nbind = []\nhistory.runs = 3\n");
    wait_until(SOON, "three deaths are left", || deaths(&mut node) == 3);
}

#[test]
fn logs_total_takes_the_oldest_segments_and_spares_what_is_written() {
    let mut node = with_file("[gaffer]\nbind = []\n");
    let fixture = node.fixture();
    let talk = json!({ "cmd": [fixture, "lines", "--count", "4000", "--every-us", "1", "--pad", "100", "--exit", "0"],
        "restart": "never", "logs": { "segment": "16K" } });
    for job in ["a", "b"] {
        node.put_job("default", job, &talk);
        node.wait_job("default", job, SOON, |job| job["state"] == "exited");
    }
    let size = |node: &Node| ["a", "b"].map(|job| node.logged("default", job, 1, "stdout").len());
    assert!(
        size(&node).into_iter().all(|size| size > 300_000),
        "{:?}",
        size(&node)
    );
    reload(&node, "[gaffer]\nbind = []\nlogs_total = \"200K\"\n");
    wait_until(SOON, "less is left", || {
        size(&node).iter().sum::<usize>() < 200 << 10
    });
    let [a, b] = size(&node);
    assert!(
        a > 0 && a <= 16 << 10,
        "of the older one what may be written: {a}"
    );
    assert!(b > a, "the newer one has what is left: {b}");
    // Readers are told, and what is there is still read.
    let text = node.request("GET", "/v1/jobs/default/b/logs", None).text();
    assert!(
        text.contains("rotated away") || text.lines().count() > 100,
        "{text}"
    );
    let log = node.log();
    assert!(log.contains(" info logs.pruned "), "{log}");
}

/// What a command prints.
fn said(node: &Node, words: &[&str]) -> String {
    let output = node.cli(words);
    assert!(output.status.success(), "gaffer {}", words.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// In the output of a job, and in nothing that shows it.
const CANARY: &str = "hunter2canary";

#[test]
fn secrets_in_output_are_masked_in_everything_that_shows_it_also_what_was_written_before() {
    let mut node = with_file("[gaffer]\nbind = []\n");
    let script =
        format!("printf 'hello\\n{{\"password\":\"{CANARY}\"}}\\nkey={CANARY} end'; exec sleep 1000");
    let spec = |redact: &[&str]| json!({ "cmd": script, "shell": true, "logs": { "redact": redact } });
    node.put_job("default", "web", &spec(&[]));
    let run = node.wait_job("default", "web", SOON, |job| job["state"] == "running")["instances"][0].clone();
    let path = format!("/v1/runs/{}/logs/stdout", run["run"].as_str().expect("a run"));
    wait_until(SOON, "its output", || {
        node.request("GET", &path, None).text().ends_with(" end")
    });
    assert!(node.request("GET", &path, None).text().contains(CANARY));
    let plain = node.request("GET", &path, None).body.len();
    node.put_job("default", "web", &spec(&["password", "key=[^ ]+"]));
    let after = node.get("/v1/jobs/default/web")["instances"][0].clone();
    assert_eq!(
        (&after["run"], &after["pid"]),
        (&run["run"], &run["pid"]),
        "live: no run is touched"
    );
    let shown = node.request("GET", &path, None);
    assert!(
        shown.text().contains("hello") && shown.text().contains("****"),
        "{}",
        shown.text()
    );
    assert_eq!(shown.body.len(), plain, "offsets stay");
    let from = plain - CANARY.len() - 2;
    let mut outputs = vec![
        shown.text(),
        node.request("GET", &format!("{path}?from={from}"), None).text(),
    ];
    wait_until(SOON, "the last line is old enough to be shown", || {
        node.request("GET", "/v1/jobs/default/web/logs", None)
            .text()
            .contains(" end")
    });
    for route in [
        "/v1/jobs/default/web/logs",
        "/v1/jobs/default/web/logs?tail=5",
        "/v1/jobs/default/web/logs?grep=hunter",
    ] {
        outputs.push(node.request("GET", route, None).text());
    }
    outputs.push(said(&node, &["logs", "web"]));
    outputs.push(said(&node, &["logs", "--format", "raw", "web"]));
    node.http("POST", "/v1/jobs/default/web/stop?wait=20s", Some(&json!({})));
    let deaths = wait_for(SOON, "a death with its last lines", || {
        let deaths = node.get("/v1/jobs/default/web/deaths");
        (!deaths[0]["last_lines"].is_null()).then_some(deaths)
    });
    assert!(deaths.to_string().contains("****"), "{deaths}");
    outputs.extend([deaths.to_string(), said(&node, &["why", "web"])]);
    for (number, output) in outputs.iter().enumerate() {
        assert!(
            !output.contains("hunter") && !output.contains("canary"),
            "{number}: {output}"
        );
    }
    let kept = node.logged("default", "web", 1, "stdout");
    assert!(
        String::from_utf8_lossy(&kept).contains(CANARY),
        "on disk it stays as it was written"
    );
}

#[test]
fn the_shell_of_the_daemon_is_that_of_all_its_jobs_from_their_next_start_on() {
    let mut node = with_file("[gaffer]\nbind = []\n");
    let shell = node.root().join("shell");
    std::fs::write(&shell, "#!/bin/sh\necho mine\nexec /bin/sh \"$@\"\n").expect("a shell");
    std::fs::set_permissions(&shell, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    node.put_job(
        "default",
        "web",
        &json!({ "cmd": "echo hello; exec sleep 1000", "shell": true }),
    );
    let first = pid(&mut node, "web");
    let logged =
        |node: &Node| String::from_utf8_lossy(&node.logged("default", "web", 1, "stdout")).into_owned();
    wait_until(SOON, "its output", || logged(&node) == "hello\n");
    reload(
        &node,
        &format!("[gaffer]\nbind = []\nshell = {:?}\n", shell.display().to_string()),
    );
    wait_event(&mut node, "config.applied");
    assert_eq!(pid(&mut node, "web"), first, "no run is touched");
    node.http("POST", "/v1/jobs/default/web/restart?wait=20s", Some(&json!({})));
    wait_until(SOON, "the other shell", || {
        logged(&node) == "hello\nmine\nhello\n"
    });
    // Also for a daemon that finds the job in its store.
    node.restart();
    node.http("POST", "/v1/jobs/default/web/restart?wait=20s", Some(&json!({})));
    wait_until(SOON, "still the other shell", || {
        logged(&node).matches("mine").count() == 2
    });
}

#[test]
fn the_control_socket_lets_in_whom_the_file_says_and_nobody_else() {
    // Only root may give a file away and act as somebody else.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    const OWNER: u32 = 65_534;
    let node = with_file(&format!(
        "[gaffer]\nbind = []\nsocket_mode = \"660\"\nsocket_owner = \"{OWNER}:{OWNER}\"\n"
    ));
    let file = std::fs::metadata(node.socket()).expect("there");
    assert_eq!(
        (file.mode() & 0o777, file.uid(), file.gid()),
        (0o660, OWNER, OWNER)
    );
    std::fs::set_permissions(node.root(), std::fs::Permissions::from_mode(0o711))
        .expect("a way to the socket");
    let program = node.root().join("gaffer");
    std::fs::copy(node.program("gaffer"), &program).expect("a program that anybody can reach");
    let ask = |uid: u32| {
        let mut command = std::process::Command::new(&program);
        command
            .arg("ps")
            .env_clear()
            .env("GAFFER_SOCKET", node.socket())
            .uid(uid)
            .gid(uid)
            .current_dir("/");
        command.output().expect("gaffer").status.code()
    };
    assert_eq!(ask(OWNER), Some(0));
    assert_eq!(ask(OWNER - 1), Some(69), "the kernel does not let it in");
}
