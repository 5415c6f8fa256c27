//! The harness itself, against a stand-in for the daemon: what it must do when a test goes wrong must be sure.

use gaffer_testkit::node::assert_gone;
use gaffer_testkit::{Node, wait_until};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// A `gafferd` that says that it is ready and starts a tree without manners, which outlives it.
fn stand_in(dir: &Path) {
    let fixture = env!("CARGO_BIN_EXE_gaffer-fixture");
    let text = format!(
        "#!/bin/sh\n\
         {fixture} tree --depth 2 --setsid --double-fork --ignore-term --leader-exits 0 >/dev/null\n\
         echo \"2026-11-22T14:02:19.012Z info gafferd ready pid=$$ addresses=127.0.0.1:4321 socket=/x\" >&2\n\
         exec {fixture} idle\n"
    );
    let path = dir.join("gafferd");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn started_tree(node: &Node) {
    wait_until(Duration::from_secs(10), "two processes of the tree", || {
        let tree = node.job_processes();
        tree.iter()
            .filter(|process| process.command.get(1).is_some_and(|word| word == "tree"))
            .count()
            == 2
    });
}

#[test]
fn a_node_is_ready_when_its_line_is_complete_and_its_address_is_known() {
    let bins = tempfile::tempdir().unwrap();
    stand_in(bins.path());
    let node = Node::builder().bin_dir(bins.path()).start();
    assert_eq!(node.addresses(), ["127.0.0.1:4321".parse().unwrap()]);
    assert!(node.daemon_pid().is_some() && node.log().contains("gafferd ready"));
}

#[test]
fn what_a_killed_daemon_left_is_seen_and_ends_with_the_node() {
    let bins = tempfile::tempdir().unwrap();
    stand_in(bins.path());
    let mut node = Node::builder().bin_dir(bins.path()).start();
    let root = node.root().to_owned();
    started_tree(&node);
    node.kill9();
    started_tree(&node);
    node.start_again();
    drop(node);
    assert_gone(&root);
}

#[test]
fn a_panicking_test_leaves_nothing_behind_either() {
    let bins = tempfile::tempdir().unwrap();
    stand_in(bins.path());
    let (tell, told) = std::sync::mpsc::channel();
    let bin_dir = bins.path().to_owned();
    let panicked = std::thread::spawn(move || {
        let node = Node::builder().bin_dir(&bin_dir).start();
        started_tree(&node);
        tell.send(node.root().to_owned()).unwrap();
        panic!("as a failing test does");
    });
    assert!(panicked.join().is_err());
    assert_gone(&told.recv().unwrap());
}
