//! Options, files and the pidfile of the original's `gafferd`.

use crate::node::{Node, gafferd, refused, temp_dir, until};
use serde_json::json;
use std::process::Stdio;

#[test]
fn s13_1_options_of_the_original_are_keys_of_the_daemon() {
    let dir = temp_dir();
    let config = dir.path().join("gafferd.ini");
    std::fs::write(&config, "[gaffer]\nbacklog = 7\n[job:idle]\ncmd = sleep 1000\n").expect("written");
    let log = dir.path().join("error.log");
    let pidfile = dir.path().join("pid");
    let text = |path: &std::path::Path| path.display().to_string();
    // A positional file, and options over it.
    let node = Node::start_in(
        dir.clone(),
        &[
            &text(&config),
            "--bind",
            "127.0.0.1:0",
            "--backlog",
            "9",
            "--log-level",
            "warning",
            "--pidfile",
            &text(&pidfile),
        ],
    );
    assert_eq!(node.get("/v1/jobs/default/idle").status, 200);
    let pid = std::fs::read_to_string(&pidfile).expect("a pidfile");
    assert_eq!(pid, format!("{}\n", node.pid()));
    // A second one of the same pidfile says whose it is, and leaves it.
    let other = temp_dir();
    let mut second = gafferd(other.path());
    second.args(["--bind", "none", "--pidfile", &text(&pidfile)]);
    let (code, said) = refused(second);
    assert_eq!(code, 1, "{said}");
    let wanted = format!(
        "Already running on PID {} (or pid file '{}' is stale)",
        node.pid(),
        text(&pidfile)
    );
    assert!(said.contains(&wanted), "{said}");
    let (_, status) = node.end("stop");
    assert_eq!(status.code(), Some(0));
    assert!(!pidfile.exists(), "our own is removed");
    // A stale one is replaced; the log goes where it was told.
    std::fs::write(&pidfile, "999999999\n").expect("written");
    let node = Node::start_in(
        dir.clone(),
        &[
            "--bind",
            "none",
            "--pidfile",
            &text(&pidfile),
            "--error-log",
            &text(&log),
        ],
    );
    let pid = std::fs::read_to_string(&pidfile).expect("a pidfile");
    assert_eq!(pid, format!("{}\n", node.pid()));
    crate::node::until("the log file", || {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("run.started"))
    });
}

#[test]
fn s13_1_an_option_without_its_feature_is_refused_and_named() {
    let dir = temp_dir();
    let mut command = gafferd(dir.path());
    command.args(["--bind", "none", "--backlog", "0"]);
    let (code, said) = refused(command);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("backlog") && said.contains("options of gafferd"),
        "{said}"
    );
    assert!(!dir.path().join("state").exists(), "nothing was begun");
}

#[test]
fn s12_1_the_file_is_looked_for_where_the_original_does() {
    let dir = temp_dir();
    let home = dir.path().join("home/.gaffer");
    std::fs::create_dir_all(&home).expect("made");
    // The client's file is not the daemon's.
    std::fs::write(
        home.join("gaffer.ini"),
        "[node \"http://127.0.0.1:5000\"]\nkey = k\n",
    )
    .expect("written");
    std::fs::write(home.join("gafferd.ini"), "[gaffer]\nnonsense = 1\n").expect("written");
    let mut command = gafferd(dir.path());
    command
        .args(["--bind", "none"])
        .env("HOME", dir.path().join("home"));
    command.env_remove("GAFFERD_CONFIG").stdin(Stdio::null());
    let (code, said) = refused(command);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("gafferd.ini:2:1") && said.contains("nonsense"),
        "{said}"
    );

    // A variable names the folder, or the file.
    let folder = dir.path().join("etc");
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::write(folder.join("gafferd.ini"), "[gaffer]\nother = 1\n").expect("written");
    for config in [folder.clone(), folder.join("gafferd.ini")] {
        let mut command = gafferd(dir.path());
        command.args(["--bind", "none"]).env("GAFFERD_CONFIG", config);
        let (code, said) = refused(command);
        assert_eq!(code, 2, "{said}");
        assert!(
            said.contains("gafferd.ini:2:1") && said.contains("other"),
            "{said}"
        );
    }
}

#[test]
fn s13_1_s14_3_vv_writes_what_the_programs_write() {
    let node = Node::start_in(temp_dir(), &["--bind", "none", "-vv"]);
    node.put(
        "web",
        "echo one; printf 'two\\033[2J\\n' >&2; exec sleep 1000",
        &json!({}),
    );
    node.until_logged("default.web.1 | one");
    node.until_logged("default.web.1 ! two\\u{1b}[2J");
    let quiet = Node::start_in(temp_dir(), &["--bind", "none", "-v"]);
    quiet.put("web", "echo one; exec sleep 1000", &json!({}));
    quiet.until_logged("run.started");
    until("its line is kept", || {
        String::from_utf8_lossy(&quiet.get("/v1/jobs/default/web/logs").body).contains("one")
    });
    assert!(!quiet.log().contains("| one"), "-v: events, no output");
}
