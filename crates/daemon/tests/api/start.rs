//! Starting, failing to start, and ending.

use crate::node::{Node, gafferd, refused, temp_dir, wait};
use std::net::TcpListener;
use std::process::Stdio;

#[test]
fn a_port_in_use_is_named_and_nothing_is_begun() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let dir = temp_dir();
    let mut command = gafferd(dir.path());
    command.args(["--bind", &address]);
    let (code, text) = refused(command);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains(&address) && text.contains("in use") && text.contains("--bind"),
        "{text}"
    );
    assert!(!dir.path().join("state").exists(), "the engine was not opened");
}

#[test]
fn a_second_daemon_on_the_same_state_directory_is_refused_and_the_first_goes_on() {
    let node = Node::start();
    let other = temp_dir();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gafferd"));
    command.env("GAFFER_STATE_DIR", node.dir.path().join("state"));
    command
        .arg("--socket")
        .arg(other.path().join("sock"))
        .args(["--bind", "none"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.env_remove("NOTIFY_SOCKET");
    let (code, text) = refused(command);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("another daemon uses the state directory"), "{text}");
    assert_eq!(node.get("/healthz").status, 200);
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_and_the_first_keeps_it() {
    let node = Node::start();
    let other = temp_dir();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gafferd"));
    command
        .arg("--state-dir")
        .arg(other.path())
        .arg("--socket")
        .arg(node.socket())
        .args(["--bind", "none"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (code, text) = refused(command);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("another daemon answers"), "{text}");
    assert_eq!(node.get("/healthz").status, 200);
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    let dir = temp_dir();
    // A file in its place: even root cannot make a directory there.
    std::fs::write(dir.path().join("state"), "").expect("writable");
    let mut command = gafferd(dir.path());
    command.args(["--bind", "none"]);
    let (code, text) = refused(command);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("state directory") && text.contains("state"),
        "{text}"
    );
}

#[test]
fn addresses_that_others_could_reach_are_refused() {
    let dir = temp_dir();
    for (bind, said) in [("0.0.0.0:0", "TLS"), ("nonsense", "not an address")] {
        let mut command = gafferd(dir.path());
        command.args(["--bind", bind]);
        let (code, text) = refused(command);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn the_socket_of_a_daemon_that_was_killed_is_taken_over() {
    let dir = Node::start().kill9();
    assert!(dir.path().join("run/sock").exists());
    let node = Node::start_in(dir, &["--bind", "none"]);
    assert_eq!(node.get("/v1/node").json()["epoch"], 2);
}

#[test]
fn a_file_that_cannot_be_read_is_refused_before_anything_is_begun() {
    let dir = temp_dir();
    let file = dir.path().join("gaffer.toml");
    std::fs::write(&file, "[job.web]\ncmdd = \"sleep 1\"\n").expect("writable");
    for config in [file, dir.path().join("none.toml"), dir.path().join("run")] {
        let mut command = gafferd(dir.path());
        command.args(["--bind", "none", "-c"]).arg(&config);
        let (code, text) = refused(command);
        assert_eq!(code, 2, "{text}");
        assert!(text.starts_with("error: "), "{text}");
        assert!(!dir.path().join("state").exists(), "the engine was not opened");
    }
}

#[test]
fn every_event_is_one_line_of_the_log() {
    let node = Node::start();
    node.put("web", "while :; do sleep 1; done", &serde_json::json!({}));
    node.until_logged(" info job.added subject=default.web ");
    node.until_logged(" info run.started subject=default.web.1 run=");
}

#[test]
fn an_orderly_end_leaves_no_socket_and_no_pidfile() {
    let dir = temp_dir();
    let pidfile = dir.path().join("pid");
    let node = Node::start_in(
        dir,
        &["--bind", "none", "--pidfile", pidfile.to_str().expect("text")],
    );
    let pid = std::fs::read_to_string(&pidfile).expect("written");
    assert_eq!(node.get("/v1/node").json()["pid"].to_string(), pid.trim());
    let socket = node.socket();
    let (_dir, status) = node.end("stop");
    assert_eq!(status.code(), Some(0));
    assert!(!pidfile.exists() && !socket.exists());
}

#[test]
fn the_end_of_the_leash_ends_the_daemon() {
    let dir = temp_dir();
    let (mine, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let mut command = gafferd(dir.path());
    // The child's standard input is a descriptor that it can name: 0 is too small, so a copy is made by the shell.
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
    command = std::process::Command::new("/bin/sh");
    command
        .args(["-c", "exec \"$0\" \"$@\" --leash-fd 9 9<&0 </dev/null"])
        .arg(program)
        .args(arguments);
    command
        .args(["--bind", "none"])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("starts");
    drop(command);
    crate::node::until("it serves", || dir.path().join("run/sock").exists());
    assert!(child.try_wait().expect("ours").is_none());
    drop(mine);
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn a_service_manager_hears_when_it_is_ready_and_when_it_ends() {
    let dir = temp_dir();
    let path = dir.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).expect("binds");
    manager
        .set_read_timeout(Some(crate::node::SOON))
        .expect("a timeout");
    let mut command = gafferd(dir.path());
    command
        .env("NOTIFY_SOCKET", &path)
        .args(["--bind", "none"])
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("starts");
    let hear = || {
        let mut bytes = [0u8; 512];
        let read = manager.recv(&mut bytes).expect("news");
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    };
    assert!(hear().starts_with("READY=1"));
    let pid = rustix::process::Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("it lives");
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::TERM).expect("it lives");
    assert_eq!(hear(), "STOPPING=1");
    assert_eq!(wait(&mut child).code(), Some(0));
}
