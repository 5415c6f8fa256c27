//! The harness itself: what a test leaves behind when it is killed is ended by the next one.

use crate::harness::{Scratch, Shim, is_over, wait_for};
use std::path::Path;

/// Set in the copy of this program that is killed: the file for what it knows.
const VICTIM: &str = "GAFFER_SHIM_TEST_VICTIM";

#[test]
fn a_test_that_is_killed_leaves_nothing_for_long() {
    if let Some(file) = std::env::var_os(VICTIM) {
        victim(Path::new(&file));
    }
    let scratch = Scratch::new();
    let file = scratch.0.join("victim");
    let mut test = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "leftovers::a_test_that_is_killed_leaves_nothing_for_long",
        ])
        .env(VICTIM, &file)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let known = wait_for("the victim's run", || std::fs::read_to_string(&file).ok());
    let lines: Vec<&str> = known.lines().collect();
    let [folder, group, shim, run] = lines[..] else {
        panic!("{known}")
    };
    let (shim, run): (u32, u32) = (shim.parse().unwrap(), run.parse().unwrap());
    test.kill().unwrap();
    test.wait().unwrap();
    crate::harness::sweep();
    assert!(is_over(shim), "the shim");
    assert!(is_over(run), "the run");
    assert!(!Path::new(folder).exists(), "{folder}");
    assert!(group.is_empty() || !Path::new(group).exists(), "{group}");
}

/// A test with a run that no polite word ends, waiting for its own death.
fn victim(file: &Path) -> ! {
    let mut shim = Shim::start();
    let spawn = shim.script("job.1", "trap '' TERM HUP; while :; do sleep 1000; done");
    let run = shim.spawn(spawn);
    let pid = shim.started(run);
    let group = shim.cgroup.clone().unwrap_or_default();
    let text = format!("{}\n{group}\n{}\n{pid}\n", shim.scratch.0.display(), shim.pid);
    let part = file.with_extension("part");
    std::fs::write(&part, text).unwrap();
    std::fs::rename(&part, file).unwrap();
    loop {
        std::thread::park();
    }
}
