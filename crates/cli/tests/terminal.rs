//! In front of a terminal: what is drawn, what is typed, and that the terminal is given back as it was.

use gaffer_testkit::node::bin_dir;
use gaffer_testkit::process::Handle;
use gaffer_testkit::{Node, Terminal, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// Ctrl-].
const LEAVE: &str = "\x1d";

/// A node with a shell on a terminal, a program that reads lines, and one that takes no input.
fn node() -> Node {
    let mut node = Node::start();
    let shell = [
        "sh",
        "-c",
        "printf 'ready> '; while read -r line; do echo \"got $$line\"; stty size; done",
    ];
    node.put_job(
        "default",
        "shell",
        &json!({ "cmd": shell, "cwd": "/", "pty": true, "stop": "1s" }),
    );
    let echo = json!({ "cmd": [node.fixture(), "echo-stdin"], "cwd": "/", "stdin": "pipe", "stop": "1s" });
    node.put_job("default", "echo", &echo);
    let deaf = json!({ "cmd": ["sh", "-c", "echo here; exec sleep 1000"], "cwd": "/", "stop": "1s" });
    node.put_job("default", "deaf", &deaf);
    for job in ["shell", "echo", "deaf"] {
        let waited = node.cli(&["wait", job, "--timeout", "20s"]);
        assert!(waited.status.success(), "{job}");
    }
    node
}

#[test]
fn a_program_with_a_terminal_can_be_joined_and_left_running() {
    let node = node();
    let mut terminal = Terminal::start(node.cli_command(&["attach", "shell"]), 91, 33);
    terminal.until("attached to shell.1; Ctrl-] d leaves it");
    terminal.until("ready> ");
    assert!(!terminal.is_cooked(), "keys go to the program one by one");
    terminal.types("hello\r");
    terminal.until("got hello");
    terminal.until("33 91");
    terminal.types(LEAVE);
    terminal.types("d");
    assert_eq!(terminal.end().code(), Some(0));
    assert!(terminal.is_cooked(), "{}", terminal.seen());
    terminal.until("shell.1: left; it runs on");
    assert!(
        node.cli(&["wait", "shell=running", "--timeout", "1s"])
            .status
            .success()
    );
}

#[test]
fn who_joins_and_is_ended_gives_the_terminal_back() {
    let node = node();
    let mut terminal = Terminal::start(node.cli_command(&["attach", "shell"]), 80, 24);
    terminal.until("ready> ");
    wait_until(SOON, "raw mode", || !terminal.is_cooked());
    let process = Handle::open(terminal.pid()).expect("it lives");
    assert!(process.signal(Signal::TERM));
    assert_eq!(terminal.end().code(), Some(143));
    assert!(terminal.is_cooked());
}

#[test]
fn lines_go_to_a_program_that_reads_a_pipe() {
    let node = node();
    let mut terminal = Terminal::start(node.cli_command(&["attach", "echo"]), 80, 24);
    // With its end: the echo of what is typed stands between a line and its end when it comes too early.
    terminal.until("attached to echo.1; Ctrl-] d and Enter, or Ctrl-C, leaves it\r\n");
    assert!(
        terminal.is_cooked(),
        "the terminal edits lines for a program that has none"
    );
    terminal.types("one line\n");
    terminal.until("one line\r\none line");
    terminal.types(LEAVE);
    terminal.types("d\n");
    assert_eq!(terminal.end().code(), Some(0));
}

#[test]
fn who_only_looks_types_nothing_and_can_leave() {
    let node = node();
    for words in [vec!["attach", "shell", "--read-only"], vec!["attach", "deaf"]] {
        let mut terminal = Terminal::start(node.cli_command(&words), 80, 24);
        terminal.until(if words.len() == 3 {
            "ready> "
        } else {
            "deaf.1 takes no input"
        });
        terminal.types("nothing of this\r");
        terminal.types(LEAVE);
        terminal.types("d\r");
        assert_eq!(terminal.end().code(), Some(0), "{}", terminal.seen());
        assert!(!terminal.seen().contains("got nothing"), "{}", terminal.seen());
        assert!(terminal.is_cooked());
    }
    // In a pipe it is a copy of the output; the end of the input is no failure.
    let refused = node.cli(&["send", "deaf", "x"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4));
    assert!(
        said.starts_with("error: deaf.1 takes no input, or has closed it\n"),
        "{said}"
    );
    assert!(said.contains("stdin = \"pipe\""), "{said}");
}

#[test]
fn a_one_off_of_a_job_can_be_had_on_the_terminal() {
    let node = node();
    let words = ["run", "echo", "--attach"];
    let mut terminal = Terminal::start(node.cli_command(&words), 80, 24);
    terminal.until("attached to echo @");
    terminal.types("to a one-off\r");
    terminal.until("to a one-off\r\nto a one-off");
    // The end of the input, as the terminal of the program has it.
    terminal.types("\x04");
    assert_eq!(terminal.end().code(), Some(0), "{}", terminal.seen());
    assert!(terminal.is_cooked());
    terminal.until("exit 0 after ");
}

#[test]
fn a_one_off_on_the_terminal_begins_with_its_size() {
    let mut node = node();
    // What the program sees first, before anybody can have told it more.
    let program = json!({ "cmd": ["sh", "-c", "stty size; read -r line"], "cwd": "/", "start": false });
    node.put_job("default", "sized", &program);
    let mut terminal = Terminal::start(node.cli_command(&["run", "sized", "--attach"]), 97, 31);
    terminal.until("31 97");
    terminal.types("\r");
    assert_eq!(terminal.end().code(), Some(0), "{}", terminal.seen());
}

/// A command without any daemon, in a folder of its own.
fn alone(root: &std::path::Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gaffer"));
    command.args(words).current_dir(root);
    for name in [
        "GAFFER_URL",
        "GAFFER_SESSION",
        "GAFFER_TOKEN",
        "GAFFER_PROFILE",
        "NO_COLOR",
    ] {
        command.env_remove(name);
    }
    command
        .env("XDG_RUNTIME_DIR", root)
        .env("GAFFER_SOCKET", root.join("nobody.sock"))
        .env("GAFFER_GAFFERD", bin_dir().join("gafferd"))
        .env("GAFFER_TEST_ROOT", root);
    command
}

#[test]
fn a_command_that_is_run_on_a_terminal_has_one() {
    let root = tempfile::tempdir().expect("a folder");
    // The size follows the start at once; a program that draws hears of it by SIGWINCH.
    let script = "test -t 0 && test -t 1 && test -t 2 && echo terminal; read -r name; stty size; echo \"hello $name\"; exit 6";
    let mut terminal = Terminal::start(alone(root.path(), &["run", "--", "sh", "-c", script]), 77, 22);
    terminal.until("terminal\r\n");
    terminal.types("anna\r");
    terminal.until("22 77");
    terminal.until("hello anna");
    assert_eq!(terminal.end().code(), Some(6), "{}", terminal.seen());
    assert!(terminal.is_cooked());
    let mut terminal = Terminal::start(alone(root.path(), &["run", "--", "/no/such/program"]), 80, 24);
    assert_eq!(terminal.end().code(), Some(127), "{}", terminal.seen());
    assert!(terminal.is_cooked());
    let mut terminal = Terminal::start(
        alone(root.path(), &["run", "--", "sh", "-c", "echo on; sleep 1000"]),
        80,
        24,
    );
    terminal.until("on\r\n");
    terminal.types("\x03");
    assert_eq!(
        terminal.end().code(),
        Some(130),
        "Ctrl-C is the program's: {}",
        terminal.seen()
    );
    gaffer_testkit::node::assert_gone(root.path());
}

#[test]
fn ps_watches_and_fits_the_screen() {
    let node = node();
    let mut command = node.cli_command(&["ps", "-w"]);
    command.env_remove("NO_COLOR");
    let mut terminal = Terminal::start(command, 60, 10);
    terminal.until("3 of 3 instances running");
    assert!(
        terminal.seen().contains("\x1b[32m"),
        "colours: {}",
        terminal.seen()
    );
    assert!(node.cli(&["stop", "deaf"]).status.success());
    terminal.until("2 of 3 instances running");
    let process = Handle::open(terminal.pid()).expect("it lives");
    assert!(process.signal(Signal::INT));
    assert_eq!(terminal.end().code(), Some(0));
    for width in [40, 80] {
        let mut terminal = Terminal::start(node.cli_command(&["ps"]), width, 24);
        terminal.end();
        wait_until(SOON, "the last line", || terminal.seen().contains("default on "));
        for line in terminal.seen().lines() {
            let long = line.trim_end().chars().count();
            assert!(long <= usize::from(width), "{long} columns of {width}: {line:?}");
            assert!(!line.contains('\x1b'), "NO_COLOR is set: {line:?}");
        }
    }
}

#[test]
fn without_utf_8_every_sign_is_ascii() {
    let node = node();
    for words in [
        vec!["ps"],
        vec!["why"],
        vec!["doctor"],
        vec!["logs", "-n", "3", "--events"],
    ] {
        let mut command = node.cli_command(&words);
        command.env("LC_ALL", "C");
        let mut terminal = Terminal::start(command, 80, 40);
        terminal.end();
        wait_until(SOON, "something", || !terminal.seen().is_empty());
        assert!(terminal.seen().is_ascii(), "{words:?}: {}", terminal.seen());
    }
}
