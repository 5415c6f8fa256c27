//! Scenarios of Thermos with real programs that have no other place: launch, identity, output.

use crate::{Place, SOON, WAITS, ends, said, step, story, task, wait_running};
use gaffer_testkit::Node;
use gaffer_testkit::node::{assert_gone, bin_dir};
use gaffer_testkit::process::{Handle, of_node};
use gaffer_testkit::wait_until;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;

fn one(cmdline: &str, more: Value) -> Value {
    let mut process = json!({"name": "a", "cmdline": cmdline});
    for (key, value) in more.as_object().expect("an object") {
        process[key] = value.clone();
    }
    task(json!([process]), json!({}))
}

/// Where the only run of `a` has its output.
fn logs(place: &Place, id: &str) -> PathBuf {
    place.tasks().join("logs").join(id).join("a/0")
}

#[track_caller]
fn run(place: &Place, id: &str, task: &Value) -> Value {
    place.write("t.json", task);
    let (code, done) = place.json(&["run", "t.json", "--id", id]);
    assert_eq!(code, 0, "{done:#}");
    done
}

#[test]
fn g01_x01_output_of_both_streams_is_kept_as_it_is() {
    let place = Place::new();
    let script = "echo hello world; for i in $(seq 30); do echo out $i; echo err $i >&2; done; echo last >&2";
    run(&place, "g01", &one(script, json!({})));
    let read = |name: &str| std::fs::read_to_string(logs(&place, "g01").join(name)).expect("output");
    let lines = |word: &str| (1..=30).map(|i| format!("{word} {i}\n")).collect::<String>();
    assert_eq!(read("stdout"), format!("hello world\n{}", lines("out")));
    assert_eq!(read("stderr"), format!("{}last\n", lines("err")));
}

#[test]
fn g02_without_rotation_a_file_grows() {
    let place = Place::new();
    run(&place, "g02", &one("head -c 200000000 /dev/zero", json!({})));
    let size = |name: &str| {
        std::fs::metadata(logs(&place, "g02").join(name))
            .expect("a file")
            .len()
    };
    assert_eq!((size("stdout"), size("stderr")), (200_000_000, 0));
    assert!(!logs(&place, "g02").join("stdout.1").exists());
}

#[test]
fn g03_rotation_counts_bytes_and_keeps_as_many_files_as_it_says() {
    let place = Place::new();
    let script =
        "for i in $(seq 10 40); do for c in l i n e $(echo $i | fold -w1); do printf $c; done; echo; done";
    let logger = json!({"mode": "rotate", "rotate": {"log_size": 70, "backups": 2}});
    run(&place, "g03", &one(script, json!({ "logger": logger })));
    let lines = |name: &str| {
        let text = std::fs::read_to_string(logs(&place, "g03").join(name)).expect("a file");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines("stdout"), ["line40"]);
    let all = |from: u32| (from..from + 10).map(|i| format!("line{i}")).collect::<Vec<_>>();
    assert_eq!((lines("stdout.1"), lines("stdout.2")), (all(30), all(20)));
    assert!(!logs(&place, "g03").join("stdout.3").exists());
}

#[test]
fn g05_g04_one_backup_where_there_is_enough_for_one() {
    let place = Place::new();
    let logger = json!({"mode": "rotate", "rotate": {"log_size": 1 << 20, "backups": 1}});
    let logger = json!({ "logger": logger });
    run(&place, "little", &one("echo little", logger.clone()));
    assert!(!logs(&place, "little").join("stdout.1").exists());
    run(&place, "much", &one("head -c 2500000 /dev/zero", logger));
    assert!(logs(&place, "much").join("stdout.1").exists());
    assert!(!logs(&place, "much").join("stdout.2").exists());
}

#[test]
fn g07_nothing_is_kept_of_what_goes_nowhere() {
    let place = Place::new();
    let done = run(
        &place,
        "g07",
        &one("echo gone", json!({"logger": {"destination": "none"}})),
    );
    assert_eq!(story(&done, "a"), "success:0");
    assert_eq!(said(&place.run(&["logs", "g07"])), "");
}

#[test]
fn g08_g09_the_console_shows_what_a_step_writes_while_it_runs() {
    for destination in ["console", "both"] {
        let place = Place::new();
        let script = "echo one; printf 'err\\n' >&2; until test -e go; do sleep 0.02; done; printf two";
        let logger = json!({"logger": {"destination": destination, "mode": "rotate"}});
        place.write("t.json", &one(script, logger));
        let running = place.start(&["run", "t.json", "--id", destination]);
        let screen = || std::fs::read_to_string(place.root.path().join("said")).expect("a file");
        wait_until(SOON, "its first lines", || {
            let screen = screen();
            let has = |wanted: &str| screen.lines().any(|line| line == wanted);
            has("one") && has("err")
        });
        place.touch("go");
        assert_eq!(running.end(), 0);
        assert!(screen().contains("\ntwo"), "{}", screen());
        let read =
            |name: &str| std::fs::read_to_string(logs(&place, destination).join(name)).expect("output");
        assert_eq!(
            (read("stdout").as_str(), read("stderr").as_str()),
            ("one\ntwo", "err\n")
        );
        assert_gone(place.root.path());
    }
    // More than is read at once, and no line of it missing.
    let place = Place::new();
    let much = one("seq 1000000", json!({"logger": {"destination": "console"}}));
    place.write("t.json", &much);
    let output = place.run(&["run", "t.json", "--id", "much"]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers = shown.lines().filter_map(|line| line.parse::<u32>().ok());
    assert!(numbers.eq(1..=1_000_000), "{}", shown.len());
    let place = Place::new();
    place.write(
        "t.json",
        &one("echo out", json!({"logger": {"destination": "console"}})),
    );
    let output = place.run(&["run", "t.json", "--id", "doc", "--json"]);
    let _document: Value = serde_json::from_slice(&output.stdout).expect("a document and nothing else");
    assert!(String::from_utf8_lossy(&output.stderr).contains("out"));
}

#[test]
fn g12_k06_an_end_does_not_wait_for_children_and_leaves_none() {
    let place = Place::new();
    let script = "(trap '' TERM; echo $BASHPID > child; while :; do sleep 0.1; done) & until test -s child; do sleep 0.02; done; echo done";
    let done = run(&place, "g12", &one(script, json!({})));
    assert_eq!(story(&done, "a"), "success:0");
    let child = place.read("child").trim().to_owned();
    assert!(
        !std::path::Path::new("/proc").join(&child).join("cwd").exists(),
        "{child} lives"
    );
    let stdout = std::fs::read_to_string(logs(&place, "g12").join("stdout")).expect("output");
    assert_eq!(stdout, "done\n");
    assert_gone(place.root.path());
}

#[test]
fn k17_a_child_in_a_session_of_its_own_is_gone_with_the_task() {
    let place = Place::new();
    let script = "setsid sh -c 'trap \"\" TERM; echo $$ > child; while :; do sleep 0.1; done' & until test -s child; do sleep 0.02; done";
    run(&place, "k17", &one(script, json!({})));
    let child = place.read("child").trim().to_owned();
    assert!(!std::path::Path::new("/proc").join(child).join("cwd").exists());
    assert_gone(place.root.path());
}

#[test]
fn r04_a_profile_that_a_step_writes_is_read_by_those_behind_it() {
    let place = Place::new();
    let processes = json!([
        {"name": "first", "cmdline": "echo export FOO=bar > .thermos_profile"},
        {"name": "then", "cmdline": "echo $FOO > seen"},
    ]);
    run(
        &place,
        "r04",
        &task(processes, json!({"constraints": [{"order": ["first", "then"]}]})),
    );
    assert_eq!(place.read("seen"), "bar\n");
}

#[test]
fn r18_a_shell_whose_child_was_killed_has_failed() {
    let script = one("sh -c 'kill -KILL $$'; exit $?", json!({}));
    ends("r18", &script, 1, "failed", &[("a", "failed:137")]);
}

#[test]
fn x04_x08_x09_a_command_gets_no_descriptor_no_input_and_default_signals() {
    let place = Place::new();
    let script = "ls /proc/self/fd > fds; cat > input; grep -E 'SigIgn|SigBlk' /proc/self/status > signals";
    run(&place, "x04", &one(script, json!({})));
    // Its own and the directory that it lists.
    assert_eq!(place.read("fds"), "0\n1\n2\n3\n");
    assert_eq!(place.read("input"), "");
    for line in place.read("signals").lines() {
        let mask = u64::from_str_radix(line.split_whitespace().nth(1).expect("a mask"), 16).expect("a mask");
        assert_eq!(mask, 0, "{line}");
    }
}

#[test]
fn x05_only_what_is_said_is_in_the_environment() {
    let place = Place::new();
    place.write(
        "t.json",
        &one("echo \"${TEST-none} ${PATH:+path}\" > env", json!({})),
    );
    let mut command = place.command(&["run", "t.json", "--id", "x05"]);
    let status = command
        .env("TEST", "of the runner")
        .output()
        .expect("gaffer")
        .status;
    assert!(status.success());
    assert_eq!(place.read("env"), "none path\n");
}

#[test]
fn x06_an_unknown_user_is_told_before_anything_begins() {
    let place = Place::new();
    place.write("t.json", &one("true", json!({})));
    let output = place.run(&["run", "t.json", "--id", "x06", "--user", "nobody-of-that-name"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("nobody-of-that-name"), "{}", said(&output));
    assert!(!place.tasks().join("tasks/active/x06").exists());
}

#[test]
fn r20_a_chain_is_not_waited_for_step_by_step() {
    let place = Place::new();
    let names: Vec<String> = (0..20).map(|i| format!("s{i}")).collect();
    let processes: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "cmdline": "true"}))
        .collect();
    let done = run(
        &place,
        "r20",
        &task(json!(processes), json!({"constraints": [{"order": names}]})),
    );
    let at = |name: &str, key: &str| {
        step(&done, name)["runs"][0][key]
            .as_str()
            .expect("a time")
            .to_owned()
    };
    for pair in names.windows(2) {
        assert!(at(&pair[0], "ended_at") <= at(&pair[1], "forked_at"));
    }
}

/// A server that takes notes of what it is asked, and ends when it is asked for `ENDS_AT`.
const SERVER: &str = r#"
import http.server, os, sys
class Ask(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        with open("asked", "a") as notes:
            notes.write(self.path + "\n")
        self.send_response(204)
        self.end_headers()
        if self.path == sys.argv[2]:
            os._exit(0)
    def log_message(self, *words):
        pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ask)
open("serves", "w")
server.serve_forever()
"#;

/// Runs the server under a lifecycle, and kills the task. What it was asked, and how its step ended.
fn asked(ends_at: &str, port_name: &str) -> (Vec<String>, String) {
    let place = Place::new();
    std::fs::write(place.work().join("server.py"), SERVER).expect("a file");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let mut server = one(
        &format!("exec python3 server.py {{{{thermos.ports[{port_name}]}}}} {ends_at}"),
        json!({}),
    );
    server["lifecycle"] = json!({"http": {"graceful_shutdown_wait_secs": 1, "shutdown_wait_secs": 1}});
    place.write("t.json", &server);
    let running = place.start(&[
        "run",
        "t.json",
        "--id",
        "h",
        "--port",
        &format!("{port_name}={port}"),
    ]);
    place.until("serves");
    let killed = place.run(&["kill", "h"]);
    assert!(killed.status.success(), "{}", said(&killed));
    running.end();
    let told = place.read("asked").lines().map(str::to_owned).collect();
    let story = story(&place.status("h"), "a");
    assert_gone(place.root.path());
    (told, story)
}

#[test]
fn h01_without_the_port_nobody_is_asked() {
    assert_eq!(asked("/never", "other"), (vec![], "killed:SIGTERM".to_owned()));
}

#[test]
fn h02_one_that_ends_when_it_is_asked_is_asked_once() {
    assert_eq!(
        asked("/quitquitquit", "health"),
        (vec!["/quitquitquit".to_owned()], "success:0".to_owned())
    );
}

#[test]
fn h03_one_that_only_answers_is_asked_twice_and_signalled() {
    let both = ["/quitquitquit", "/abortabortabort"].map(str::to_owned).to_vec();
    assert_eq!(asked("/never", "health"), (both, "killed:SIGTERM".to_owned()));
}

/// A task whose step runs, of which nothing lives any more: command, runner, shim, step.
fn all_dead(id: &str) -> Place {
    let place = Place::new();
    place.write("t.json", &one(WAITS, json!({})));
    let running = place.start(&["run", "t.json", "--id", id]);
    place.until("begun");
    wait_running(&place, id, "a");
    running.kill();
    wait_until(SOON, "the end of everything", || {
        let left = of_node(place.root.path(), &place.root.path().join("state"));
        for process in &left {
            Handle::open(process.pid).map(|process| process.signal(Signal::KILL));
        }
        left.is_empty()
    });
    place
}

#[test]
fn r09_a_run_that_died_with_all_that_watched_it_is_lost_and_run_again() {
    let place = all_dead("r09");
    place.touch("go");
    let (code, done) = place.json(&["run", "t.json", "--id", "r09"]);
    assert_eq!(
        (code, story(&done, "a").as_str()),
        (0, "lost:- success:0"),
        "{done:#}"
    );
    assert_gone(place.root.path());
}

#[test]
fn k04_what_is_dead_already_is_lost_in_a_killed_task() {
    let place = all_dead("k04");
    let killed = place.run(&["kill", "k04", "--force"]);
    assert!(killed.status.success(), "{}", said(&killed));
    let task = place.status("k04");
    assert_eq!(task["state"], "killed", "{task:#}");
    assert_eq!(story(&task, "a"), "lost:-");
    assert_gone(place.root.path());
}

#[test]
fn k16_o03_o04_o06_what_is_asked_over_http_is_answered_or_refused() {
    let mut node = Node::start();
    let processes = json!([
        {"name": "a", "cmdline": "printf 0123456789abcdef; echo err >&2"}, {"name": "b", "cmdline": "exec sleep 600"},
    ]);
    let file = node.root().join("t.json");
    std::fs::write(&file, task(processes, json!({})).to_string()).expect("a file");
    let started = node.cli(&["task", "start", &file.to_string_lossy(), "--id", "o"]);
    assert!(started.status.success(), "{}", said(&started));
    wait_until(SOON, "the end of a", || {
        let (_, now) = node.http("GET", "/v1/tasks/o", None);
        let state = |name: &str| step(&now, name)["state"].clone();
        state("a") == "success" && state("b") == "running"
    });
    let (_, now) = node.http("GET", "/v1/tasks/o", None);
    assert_eq!(step(&now, "a")["runs"][0]["exit_code"], json!(0), "O06");
    let mut read = |stream: &str, from: &str| {
        let path = format!("/v1/tasks/o/steps/a/logs/{stream}?from={from}");
        let answer = node.request("GET", &path, None);
        let next = answer.header("gaffer-offset").map(str::to_owned);
        (
            answer.status,
            String::from_utf8_lossy(&answer.body).into_owned(),
            next,
        )
    };
    let at = |offset: &str| Some(offset.to_owned());
    assert_eq!(read("stdout", "10"), (200, "abcdef".to_owned(), at("16")));
    assert_eq!(read("stdout", "end"), (200, String::new(), at("16")));
    assert_eq!(read("stdout", "99"), (200, String::new(), at("99")));
    assert_eq!(read("stderr", "0"), (200, "err\n".to_owned(), at("4")));
    assert_eq!(read("other", "0").0, 404);
    assert_eq!(
        node.http("GET", "/v1/tasks/o/steps/b/logs/stdout?attempt=2", None)
            .0,
        404
    );
    // K16: what a kill makes of a task is not a success.
    let (status, refused) = node.http("POST", "/v1/tasks/o/kill", Some(&json!({"state": "success"})));
    assert_eq!(
        (status, &refused["error"]["hint"]),
        (400, &json!("killed or lost"))
    );
    let (_, now) = node.http("GET", "/v1/tasks/o", None);
    assert_eq!(now["state"], "active");
    let (status, _) = node.http(
        "POST",
        "/v1/tasks/o/kill",
        Some(&json!({"state": "lost", "force": true})),
    );
    assert_eq!(status, 202);
    node.stop(SOON);
}

#[test]
fn x02_only_root_runs_steps_as_somebody_else() {
    use std::os::unix::fs::chown;
    use std::os::unix::process::CommandExt;
    let place = Place::new();
    place.write("t.json", &one("true", json!({})));
    // Where we were built may be nobody else's to enter.
    let programs = place.root.path();
    for name in ["gaffer", "gafferd", "gaffer-shim"] {
        std::fs::copy(bin_dir().join(name), programs.join(name)).expect("a copy");
    }
    let like = place.command(&["run", "t.json", "--id", "x02", "--user", "root"]);
    let mut command = std::process::Command::new(programs.join("gaffer"));
    command
        .args(like.get_args())
        .current_dir(place.work())
        .env_clear();
    command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("GAFFER_CONFIG", place.work().join("config.toml"));
    command.env("GAFFER_GAFFERD", programs.join("gafferd"));
    if rustix::process::getuid().is_root() {
        let nobody = 65534;
        for path in [
            place.root.path().to_owned(),
            place.work(),
            place.root.path().join("run"),
        ] {
            chown(path, Some(nobody), Some(nobody)).expect("theirs");
        }
        command.uid(nobody).gid(nobody);
    }
    let output = command.output().expect("gaffer runs");
    assert!(
        output.status.code().is_some_and(|code| [2, 5].contains(&code)),
        "{}",
        said(&output)
    );
    assert!(said(&output).contains("only root may run"), "{}", said(&output));
    assert!(!place.tasks().join("tasks/active/x02").exists());
}

#[test]
fn k03_k02_a_killed_shim_a_killed_run_and_a_killed_runner_are_told_apart() {
    let place = Place::new();
    let script = "trap '' TERM; echo $$ >> pids; until test -e go; do sleep 0.02; done";
    place.write("t.json", &one(script, json!({"min_duration": 0})));
    let words = ["run", "t.json", "--id", "k03"];
    let running = place.start(&words);
    let pids = || -> Vec<u32> {
        place
            .read("pids")
            .lines()
            .map(|pid| pid.parse().expect("a pid"))
            .collect()
    };
    wait_until(SOON, "the first run", || pids().len() == 1);
    wait_running(&place, "k03", "a");
    let shim = pids()[0];
    let shim = gaffer_testkit::process::Process::all()[&shim].parent;
    assert!(Handle::open(shim).is_some_and(|shim| shim.signal(Signal::KILL)));
    wait_until(SOON, "the second run", || pids().len() == 2);
    assert!(
        Handle::open(pids()[0]).is_none(),
        "the old one is gone before the new one begins"
    );
    let second = pids()[1];
    wait_until(SOON, "the second run on file", || {
        crate::pid_of(&place.status("k03"), "a") == second
    });
    assert!(Handle::open(second).is_some_and(|run| run.signal(Signal::KILL)));
    wait_until(SOON, "the third run", || pids().len() == 3);
    wait_until(SOON, "the third run on file", || {
        crate::pid_of(&place.status("k03"), "a") == pids()[2]
    });
    place.kill_both(running, "k03");
    let story_now = story(&place.status("k03"), "a");
    let stories = [
        "lost:- killed:SIGKILL running:-",
        "killed:SIGKILL killed:SIGKILL running:-",
    ];
    assert!(stories.contains(&story_now.as_str()), "{story_now}");
    place.touch("go");
    assert_eq!(place.run(&words).status.code(), Some(0));
    assert_gone(place.root.path());
}

#[test]
fn b07_a_stream_that_ends_anywhere_is_shown_as_far_as_it_goes() {
    let place = Place::new();
    run(&place, "b07", &one("true", json!({})));
    let whole = std::fs::read(place.stream("b07")).expect("a stream");
    for end in (0..whole.len()).step_by(5) {
        std::fs::write(place.work().join("cut"), &whole[..end]).expect("a file");
        let output = place.run(&["show", "--raw", "cut"]);
        assert!(
            output.status.code().is_some_and(|code| code <= 1),
            "{end}: {}",
            said(&output)
        );
        std::fs::write(place.stream("b07"), &whole[..end]).expect("a file");
        let output = place.run(&["status", "b07"]);
        // A panic is 101.
        assert!(
            output.status.code().is_some_and(|code| code != 101),
            "{end}: {}",
            said(&output)
        );
        assert!(said(&output).contains("b07"), "{end}: {}", said(&output));
    }
}

#[test]
fn k15_a_task_without_a_header_is_ended_by_force_only() {
    for (id, stream) in [("k15", &b""[..]), ("k15-torn", b"GF"), ("k15-bad", &[0x5a; 300])] {
        let place = all_dead(id);
        std::fs::write(place.stream(id), stream).expect("a file");
        let asked = place.run(&["kill", id]);
        assert!(!asked.status.success(), "{id}: {}", said(&asked));
        assert!(place.tasks().join("tasks/active").join(id).exists());
        let (code, killed) = place.json(&["kill", id, "--force"]);
        assert_eq!((code, &killed["state"]), (0, &json!("killed")), "{id}: {killed}");
        assert!(place.tasks().join("tasks/finished").join(id).exists());
        assert!(!place.tasks().join("tasks/active").join(id).exists());
        let (_, shown) = place.json(&["status", id]);
        assert_eq!(shown["state"], "killed", "{shown}");
    }
}

#[test]
fn k15_what_lives_of_it_goes_too() {
    let place = Place::new();
    place.write("t.json", &one(WAITS, json!({})));
    let running = place.start(&["run", "t.json", "--id", "k15"]);
    place.until("begun");
    wait_running(&place, "k15", "a");
    // The runner first, so that its step outlives it.
    let (_, task) = place.json(&["status", "k15"]);
    Handle::open(super::runner_of(&task))
        .expect("a runner")
        .signal(Signal::KILL);
    running.kill();
    std::fs::write(place.stream("k15"), "").expect("a file");
    let (code, killed) = place.json(&["kill", "k15", "--force"]);
    assert_eq!((code, &killed["state"]), (0, &json!("killed")), "{killed}");
    assert_gone(place.root.path());
}

/// Runs task `o`, in whose folder are a file, a pipe, a link to that file, and one out of it.
fn task_with_files(node: &Node) {
    let root = node.root().to_owned();
    let (work, beside) = (root.join("work"), root.join("work-2"));
    for folder in [work.join("sub"), beside.clone()] {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    std::fs::write(beside.join("secret"), "secret").expect("a file");
    std::os::unix::fs::symlink("../work-2/secret", work.join("out")).expect("a link");
    std::os::unix::fs::symlink("sub/in", work.join("within")).expect("a link");
    let file = root.join("t.json");
    let script = "printf 0123456789 > sub/in; mkfifo pipe";
    std::fs::write(&file, one(script, json!({})).to_string()).expect("a file");
    let (file, cwd) = (
        file.to_string_lossy().into_owned(),
        work.to_string_lossy().into_owned(),
    );
    let started = node.cli(&["task", "start", &file, "--id", "o", "--cwd", &cwd, "--wait"]);
    assert!(started.status.success(), "{}", said(&started));
}

#[test]
fn o05_files_of_a_task_are_read_and_none_beside_them() {
    let mut node = Node::start();
    task_with_files(&node);
    let (_, listed) = node.http("GET", "/v1/tasks/o/files", None);
    let entries: Vec<(&str, &str)> = listed["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|entry| {
            (
                entry["name"].as_str().expect("a name"),
                entry["kind"].as_str().expect("a kind"),
            )
        })
        .collect();
    let expected = [
        ("out", "link"),
        ("pipe", "other"),
        ("sub", "directory"),
        ("within", "link"),
    ];
    assert_eq!(entries, expected, "{listed:#}");
    let (_, listed) = node.http("GET", "/v1/tasks/o/files?path=sub", None);
    assert_eq!(listed["entries"][0]["size_bytes"], json!(10));
    let mut read = |query: &str| {
        let answer = node.request("GET", &format!("/v1/tasks/o/files/content?{query}"), None);
        let next = answer
            .header("gaffer-offset")
            .map(str::to_owned)
            .unwrap_or_default();
        (
            answer.status,
            String::from_utf8_lossy(&answer.body).into_owned(),
            next,
        )
    };
    let good = |text: &str, next: &str| (200, text.to_owned(), next.to_owned());
    assert_eq!(read("path=sub/in&from=2&length=3"), good("234", "5"));
    assert_eq!(read("path=within"), good("0123456789", "10"));
    assert_eq!(read("path=sub/in&from=end"), good("", "10"));
    assert_eq!(read("path=sub/in&from=99"), good("", "99"));
    for (path, why) in [
        ("../work-2/secret", "not below"),
        ("sub/../../work-2/secret", "not below"),
        ("/etc/passwd", "not below"),
        ("out", "not below"),
        ("sub", "a directory"),
        ("pipe", "no file that can be read"),
        ("none", "is not there"),
    ] {
        let (status, text, _) = read(&format!("path={path}"));
        assert!(status == 404 && text.contains(why), "{path}: {status} {text}");
    }
    assert_eq!(node.http("GET", "/v1/tasks/o/files?path=../work-2", None).0, 404);
    node.stop(SOON);
}

#[test]
fn h04_a_runner_that_hangs_is_killed_and_its_task_from_outside() {
    let place = Place::new();
    place.write("t.json", &one(WAITS, json!({})));
    let running = place.start(&["run", "t.json", "--id", "h04", "--detach"]);
    assert_eq!(running.end(), 0);
    place.until("begun");
    let now = wait_running(&place, "h04", "a");
    let (step, runner) = (crate::pid_of(&now, "a"), crate::runner_of(&now));
    assert!(Handle::open(runner).is_some_and(|runner| runner.signal(Signal::STOP)));
    let killed = place.run(&["kill", "h04", "--force"]);
    assert!(killed.status.success(), "{}", said(&killed));
    assert!(said(&killed).contains("does not answer"), "{}", said(&killed));
    // A zombie is left to init.
    wait_until(SOON, "the end of both", || {
        Handle::open(step).is_none() && Handle::open(runner).is_none()
    });
    let done = place.status("h04");
    assert_eq!(
        (&done["state"], story(&done, "a").as_str()),
        (&json!("killed"), "killed:SIGKILL")
    );
    assert_gone(place.root.path());
}

/// Names of the events of a task, in order, each with its step.
fn told(node: &Node, id: &str) -> Vec<String> {
    let output = node.cli(&["events", "--since", "1h", "--format", "jsonl"]);
    let events = String::from_utf8_lossy(&output.stdout).into_owned();
    let events = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an event"));
    events
        .filter(|event| event["data"]["task"] == id)
        .map(|event| {
            let name = event["event"].as_str().expect("a name");
            match event["data"]["step"].as_str() {
                Some(step) => format!("{name} {step}"),
                None => name.to_owned(),
            }
        })
        .collect()
}

#[test]
fn o01_every_turn_of_a_task_is_told_once() {
    let mut node = Node::start();
    let file = node.root().join("t.json");
    let retried = "echo x >> n; test $(wc -l < n) -ge 2";
    let processes = json!([
        {"name": "a", "cmdline": retried, "max_failures": 2, "min_duration": 0},
        {"name": "f", "cmdline": "true", "final": true},
    ]);
    std::fs::write(&file, task(processes, json!({})).to_string()).expect("a file");
    let started = node.cli(&["task", "start", &file.to_string_lossy(), "--id", "o1", "--wait"]);
    assert!(started.status.success(), "{}", said(&started));
    let expected = [
        "task.accepted",
        "task.started",
        "step.started a",
        "step.retried a",
        "step.started a",
        "step.finished a",
        "step.started f",
        "step.finished f",
        "task.finished",
    ];
    assert_eq!(told(&node, "o1"), expected);
    node.stop(SOON);
}

#[test]
fn m06_the_disk_that_a_sandbox_takes_follows_its_files() {
    let mut node = Node::start();
    let work = node.root().join("work");
    std::fs::create_dir(&work).expect("a folder");
    let file = node.root().join("t.json");
    std::fs::write(&file, one(WAITS, json!({})).to_string()).expect("a file");
    let (file, cwd) = (
        file.to_string_lossy().into_owned(),
        work.to_string_lossy().into_owned(),
    );
    let started = node.cli(&["task", "start", &file, "--id", "m", "--cwd", &cwd]);
    assert!(started.status.success(), "{}", said(&started));
    wait_until(SOON, "the step", || work.join("begun").exists());
    let mut disk = || {
        node.http("GET", "/v1/tasks/m?disk=true", None).1["disk_bytes"]
            .as_u64()
            .expect("a size")
    };
    let before = disk();
    std::fs::write(work.join("big"), vec![1; 10_000_000]).expect("a file");
    let grown = disk();
    assert!(
        (10_000_000..11_000_000).contains(&(grown - before)),
        "{before} {grown}"
    );
    std::fs::remove_file(work.join("big")).expect("removed");
    assert_eq!(disk(), before);
    std::fs::write(work.join("go"), "").expect("a file");
    node.stop(SOON);
}

#[test]
fn u01_what_is_not_there_is_not_collected() {
    let place = Place::new();
    run(&place, "there", &one("true", json!({})));
    let output = place.run(&["gc", "none", "-y"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("none"), "{}", said(&output));
    assert_eq!(place.status("there")["state"], "success");
}

/// The shell and its libraries, where a program sees them whose root this is.
fn shell_below(root: &std::path::Path) {
    let ldd = std::process::Command::new("ldd")
        .arg("/bin/bash")
        .output()
        .expect("ldd");
    let libraries = String::from_utf8_lossy(&ldd.stdout).into_owned();
    let files = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for file in files.chain(["/bin/bash"]) {
        let there = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(there.parent().expect("a folder")).expect("a folder");
        std::fs::copy(file, there).expect("copied");
    }
}

#[test]
fn a_task_whose_sandbox_is_its_root_sees_nothing_else() {
    let place = Place::new();
    shell_below(&place.work());
    let script = "echo \"$PWD $HOME\" > /seen; test ! -e /etc/passwd || echo outside >> seen";
    let mut jailed = one(script, json!({}));
    jailed["chroot"] = json!(true);
    place.write("t.json", &jailed);
    let (code, done) = place.json(&["run", "t.json", "--id", "jail"]);
    if !rustix::process::getuid().is_root() {
        assert!(code == 1 && done.to_string().contains("the root"), "{done:#}");
        return;
    }
    assert_eq!((code, story(&done, "a").as_str()), (0, "success:0"), "{done:#}");
    assert_eq!(place.read("seen"), "/ /root\n");
    // A root without a shell: told as what it is, and counted.
    std::fs::remove_file(place.work().join("bin/bash")).expect("removed");
    let (code, done) = place.json(&["run", "t.json", "--id", "empty"]);
    assert_eq!(code, 1);
    assert!(done.to_string().contains("cannot run /bin/bash"), "{done:#}");
    assert_gone(place.root.path());
}
