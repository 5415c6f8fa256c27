//! Queued tasks whose work is a task of steps.

use super::*;

const FILE: &str = r#"
[queue.imports]
task = "import"
keep.done = "1h"
retry.attempts = 1
stop.timeout = "1s"
[task.import]
params = { file = { required = true } }
[task.import.step.read]
cmd = ["sh", "-c", "echo {{params.file}} >> read"]
[task.import.step.load]
after = ["read"]
cmd = ["sh", "-c", "until test -e go; do sleep 0.02; done; echo {{params.file}} >> load"]
"#;

/// Both of them are killed: the daemon while a step runs, and what it left is found again.
#[test]
fn a_run_of_steps_survives_the_daemon_and_is_shown_as_one() {
    let mut node = node(FILE);
    let id = push(&node, &["imports", "{\"file\": \"a.csv\"}"]);
    let read = node.root().join("read");
    wait_until(SOON, "the first step", || lines(&read) == ["a.csv"]);
    node.kill9();
    node.start_again();
    assert_eq!(state(&node, id), "running");
    let run = format!("import-q{id}-1");
    let shown = node.cli(&["task", "show", &run, "--json"]);
    assert_eq!(code(&shown), 0, "{}", errors(&shown));
    std::fs::write(node.root().join("go"), "").expect("written");
    wait_state(&node, id, "done");
    assert_eq!(lines(&read), ["a.csv"]);
    assert_eq!(lines(&node.root().join("load")), ["a.csv"]);
    assert_eq!(show(&node, id)["attempt"], 1);
    node.stop(SOON);
}

/// A13.12: arguments that are none are a dead letter `bad-arguments`.
#[test]
fn a13_12_a_payload_that_is_no_parameters_is_dead_and_says_why() {
    let mut node = node(FILE);
    for (payload, why) in [
        ("{}", "file"),
        ("[1]", "object"),
        ("{\"file\": \"a\", \"x\": 1}", "x"),
    ] {
        let id = push(&node, &["imports", payload]);
        wait_state(&node, id, "dead");
        let error = show(&node, id)["error"].clone();
        assert_eq!(error["kind"], "bad-arguments");
        assert!(
            error["message"].as_str().is_some_and(|text| text.contains(why)),
            "{error}"
        );
    }
    // An orderly stop gives the task back, and its run has ended with it.
    let id = push(&node, &["imports", "{\"file\": \"b.csv\"}"]);
    let read = node.root().join("read");
    wait_until(SOON, "the first step", || lines(&read) == ["b.csv"]);
    node.signal(Signal::TERM);
    node.wait_ended(SOON + SOON);
    std::fs::write(node.root().join("go"), "").expect("written");
    node.start_again();
    wait_state(&node, id, "done");
    assert_eq!(lines(&node.root().join("load")), ["b.csv"]);
    node.stop(SOON);
}

/// With `keep_running` an orderly stop is to a run of steps what a kill is: nothing.
#[test]
fn a_run_that_is_kept_goes_on_over_a_stop() {
    let mut node = node(&FILE.replace("retry.attempts = 1", "retry.attempts = 1\nkeep_running = true"));
    let id = push(&node, &["imports", "{\"file\": \"c.csv\"}"]);
    let read = node.root().join("read");
    wait_until(SOON, "the first step", || lines(&read) == ["c.csv"]);
    node.signal(Signal::TERM);
    node.wait_ended(SOON);
    node.start_again();
    assert_eq!(state(&node, id), "running");
    std::fs::write(node.root().join("go"), "").expect("written");
    wait_state(&node, id, "done");
    assert_eq!(lines(&read), ["c.csv"]);
    assert_eq!(lines(&node.root().join("load")), ["c.csv"]);
    node.stop(SOON);
}
