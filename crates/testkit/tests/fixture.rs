//! The badly behaved program does what its options say; a test that leans on it must be able to trust it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use gaffer_testkit::process::{Handle, Process};
use gaffer_testkit::wait_until;

fn fixture(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gaffer-fixture"));
    command.args(words).stdin(Stdio::null());
    command
}

fn output(words: &[&str]) -> String {
    let output = fixture(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn lines_are_numbered_padded_and_counted() {
    assert_eq!(
        output(&["lines", "--count", "3", "--prefix", "a ", "--pad", "2"]),
        "a 00000000 xx\na 00000001 xx\na 00000002 xx\n"
    );
    let other = fixture(&["lines", "--count", "1", "--stderr", "--exit", "7"])
        .output()
        .unwrap();
    assert_eq!(
        (other.status.code(), other.stdout.len(), other.stderr.len()),
        (Some(7), 0, 9)
    );
}

#[test]
fn a_burst_is_written_whole_before_the_exit() {
    assert_eq!(output(&["burst", "200000"]).len(), 200_000);
    assert_eq!(output(&["endless-line", "200000"]).matches('e').count(), 200_000);
}

#[test]
fn exits_and_signals_are_as_asked() {
    assert_eq!(fixture(&["exit", "42"]).status().unwrap().code(), Some(42));
    assert_eq!(fixture(&["kill-self", "9"]).status().unwrap().signal(), Some(9));
    assert_eq!(
        fixture(&["no-such-thing"])
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .code(),
        Some(2)
    );
}

#[test]
fn dump_shows_what_was_inherited_and_not_what_a_runtime_made_of_it() {
    let text = output(&["dump"]);
    let dump: serde_json::Value = serde_json::from_str(&text).unwrap();
    // The standard library resets SIGPIPE in children, and nothing else of ours is caught.
    assert_eq!(dump["signals"]["caught"], "0000000000000000", "{text}");
    assert!(
        dump["fds"]["0"]["target"] == "/dev/null" && dump["fds"]["1"]["terminal"] == false,
        "{text}"
    );
    assert!(
        dump["rlimits"]["nofile"][0].is_u64() && dump["env"]["PATH"].is_string(),
        "{text}"
    );
}

#[test]
fn a_tree_without_manners_survives_its_leader_and_ignores_term() {
    let mut leader = fixture(&[
        "tree",
        "--depth",
        "2",
        "--setsid",
        "--double-fork",
        "--ignore-term",
        "--leader-exits",
        "3",
    ])
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let lines: Vec<String> = BufReader::new(leader.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .collect();
    assert_eq!(leader.wait().unwrap().code(), Some(3));
    // The end of the stream was reached, so nobody below holds it.
    let pids: Vec<u32> = lines
        .iter()
        .filter_map(|line| line.split(' ').nth(1)?.parse().ok())
        .collect();
    assert_eq!(
        (pids.len(), lines.last().map(String::as_str)),
        (3, Some("grown")),
        "{lines:?}"
    );
    let below: Vec<Process> = pids
        .iter()
        .skip(1)
        .filter_map(|pid| Process::read(*pid))
        .collect();
    assert_eq!(below.len(), 2, "{lines:?}");
    for process in &below {
        let handle = Handle::open(process.pid).unwrap();
        handle.signal(rustix::process::Signal::TERM);
        assert!(!Process::read(process.pid).unwrap().is_zombie());
        gaffer_testkit::process::kill(process);
        wait_until(Duration::from_secs(10), "KILL ends it", || {
            Process::read(process.pid)
                .is_none_or(|now| now.is_zombie() || now.start_ticks != process.start_ticks)
        });
    }
}

#[test]
fn what_comes_in_goes_out() {
    let mut child = fixture(&["echo-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"hello\neof\n");
}

#[test]
fn the_server_answers_with_the_status_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("status");
    std::fs::write(&file, "503").unwrap();
    let mut child = fixture(&["http", "--port", "0", "--status-file", file.to_str().unwrap()])
        .env_remove("PORT")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line.trim().strip_prefix("listening ").unwrap().parse().unwrap();
    let mut client = gaffer_testkit::http::Connection::new(gaffer_testkit::http::Address::Tcp(address));
    assert_eq!(client.request("GET", "/up", &[], b"").unwrap().status, 503);
    std::fs::write(&file, "200").unwrap();
    assert_eq!(client.request("GET", "/up", &[], b"").unwrap().status, 200);
    child.kill().unwrap();
    child.wait().unwrap();
}
