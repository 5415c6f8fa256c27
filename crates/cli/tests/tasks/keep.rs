//! `keep` of a task: runs that are over go by themselves.

use crate::after::Shop;
use crate::{SOON, said};
use gaffer_testkit::wait_until;
use serde_json::Value;
use std::path::PathBuf;

fn root(shop: &Shop) -> PathBuf {
    shop.node.state_dir().join("tasks")
}

fn names(dir: PathBuf) -> Vec<String> {
    let all = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = all
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[track_caller]
fn run(shop: &Shop, words: &[&str]) -> i32 {
    let output = shop.node.cli(&[&["task"], words].concat());
    let code = output.status.code().unwrap_or(-1);
    assert!(code < 2, "{words:?}: {}", said(&output));
    code
}

#[test]
fn only_the_newest_runs_stay_and_a_killed_daemon_goes_on_removing() {
    let mut shop = Shop::new();
    shop.apply("[task.t]\ncmd = \"true\"\nkeep.count = 1\n[task.other]\ncmd = \"true\"\n");
    for name in ["t", "t", "other", "other", "t"] {
        assert_eq!(run(&shop, &["start", name]), 0);
    }
    wait_until(SOON, "all over", || {
        names(root(&shop).join("tasks/finished")).len() == 5
    });
    let newest = names(root(&shop).join("tasks/finished")).pop().expect("five");
    // A removal that was interrupted behind its first step.
    let mine = names(root(&shop).join("tasks/finished"));
    let first = mine.iter().find(|id| id.starts_with("t-")).expect("of t").clone();
    shop.node.kill9();
    let finished = root(&shop).join("tasks/finished");
    std::fs::rename(finished.join(&first), finished.join(format!(".{first}.gone"))).expect("renamed");
    shop.node.start_again();
    wait_until(SOON, "removed", || names(finished.clone()).len() == 3);
    let left = names(finished);
    assert!(left.contains(&newest), "{left:?}");
    assert_eq!(
        left.iter().filter(|id| id.starts_with("other-")).count(),
        2,
        "{left:?}"
    );
    for folder in ["checkpoints", "logs", "sandboxes"] {
        assert_eq!(names(root(&shop).join(folder)), left, "{folder}");
    }
    shop.node.stop(SOON);
}

#[test]
fn a_run_again_in_the_folder_of_the_first_leaves_nothing_either() {
    let mut shop = Shop::new();
    shop.apply("[task.t]\ncmd = \"false\"\nkeep.failed = \"0s\"\n");
    assert_eq!(run(&shop, &["start", "t"]), 0);
    let finished = root(&shop).join("tasks/finished");
    wait_until(SOON, "its end", || names(finished.clone()).len() == 1);
    let id = names(finished.clone()).pop().expect("one");
    assert_eq!(run(&shop, &["retry", &id]), 0);
    let output = shop.node.cli(&["task", "--json", "wait", &format!("{id}~2")]);
    let again: Value = serde_json::from_slice(&output.stdout).expect("the task");
    assert_eq!(again["state"], "failed", "who waits has the time to ask");
    for folder in ["tasks/finished", "checkpoints", "logs", "sandboxes"] {
        wait_until(SOON, folder, || names(root(&shop).join(folder)).is_empty());
    }
    shop.node.stop(SOON);
}
