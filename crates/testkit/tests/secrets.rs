//! What files of variables say is in the environment of the programs, and nowhere else.

use gaffer_testkit::{Node, wait_for};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const CANARY: &str = "canary-7f3a9c";

/// Files below a folder that hold the canary.
fn holding(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("its kind"));
        if kind.is_dir() {
            found.extend(holding(&path));
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).expect("a file");
            if bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

fn assert_nowhere(node: &mut Node) {
    assert_eq!(holding(&node.state_dir()), Vec::<PathBuf>::new());
    for path in [
        "/v1/jobs/default/web",
        "/v1/jobs/default/web?spec=true",
        "/v1/jobs",
        "/v1/config",
        "/v1/config?format=json",
        "/v1/events?from=begin",
        "/v1/operations",
        "/v1/deaths",
        "/v1/metrics",
        "/metrics",
    ] {
        let text = node.request("GET", path, None).text();
        assert!(!text.contains(CANARY), "{path}: {text}");
    }
    assert!(!node.log().contains(CANARY), "{}", node.log());
}

/// The one run of `web`: its pid, and `TOKEN` of its environment.
fn token(node: &mut Node, before: Option<u64>) -> (u64, String) {
    let job = node.wait_job("default", "web", SOON, |job| {
        let pid = job["instances"][0]["pid"].as_u64();
        job["state"] == "running" && pid.is_some() && pid != before
    });
    let pid = job["instances"][0]["pid"].as_u64().expect("a pid");
    let environ = std::fs::read(format!("/proc/{pid}/environ")).expect("its environment");
    let text = String::from_utf8_lossy(&environ).into_owned();
    let value = text.split('\0').find_map(|pair| pair.strip_prefix("TOKEN="));
    (pid, value.unwrap_or("none").to_owned())
}

struct Place {
    node: Node,
    file: PathBuf,
    secret: PathBuf,
}

/// A node, and a file beside a file of variables.
fn place() -> Place {
    let node = Node::start();
    let dir = node.root().join("app");
    std::fs::create_dir(&dir).expect("a folder");
    let (file, secret) = (dir.join("gaffer.toml"), dir.join("secret.env"));
    let text = format!(
        "session = \"default\"\nenv_file = [\"secret.env\", \"?missing.env\"]\n[job.web]\ncmd = [{:?}, \"idle\"]\nretry.delay = \"50ms\"\n",
        node.fixture()
    );
    std::fs::write(&file, text).expect("the file");
    Place { node, file, secret }
}

impl Place {
    fn say(&self, value: &str) {
        std::fs::write(&self.secret, format!("TOKEN={value}\n")).expect("the file of variables");
    }

    fn cli(&self, words: &[&str]) -> (i32, String) {
        let output = self.node.cli(words);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!text.contains(CANARY), "{words:?}: {text}");
        (output.status.code().unwrap_or(-1), text)
    }

    fn apply(&self) -> (i32, String) {
        self.cli(&["apply", "--yes", &self.file.to_string_lossy()])
    }
}

#[test]
fn hazard_b7_what_a_file_of_variables_says_is_in_no_file_and_no_answer() {
    let mut place = place();
    let first = format!("{CANARY}-1");
    place.say(&first);
    let (code, text) = place.apply();
    assert_eq!(code, 0, "{text}");
    let (pid, value) = token(&mut place.node, None);
    assert_eq!(value, first);
    assert_nowhere(&mut place.node);
    let job = place.node.get("/v1/jobs/default/web?spec=true");
    assert_eq!(job["spec"]["env_file"][0], json!(place.secret), "{job}");

    // The next daemon reads it again, and finds nothing outdated.
    place.node.kill9();
    place.node.start_again();
    assert_eq!(token(&mut place.node, None), (pid, first));
    assert_eq!(place.apply().1.matches("Nothing to change.").count(), 1);
    assert_nowhere(&mut place.node);

    // Another value is a change, which is told without the value, and replaces the run.
    let second = format!("{CANARY}-2");
    place.say(&second);
    let (_, text) = place.cli(&["plan", &place.file.to_string_lossy()]);
    assert!(text.contains("env_file"), "{text}");
    let (code, text) = place.apply();
    assert_eq!(code, 0, "{text}");
    let (pid, value) = token(&mut place.node, Some(pid));
    assert_eq!(value, second);

    // As does a reload.
    let third = format!("{CANARY}-3");
    place.say(&third);
    let (code, text) = place.cli(&["reload", "web"]);
    assert_eq!(code, 0, "{text}");
    let (pid, value) = token(&mut place.node, Some(pid));
    assert_eq!(value, third);
    let (_, text) = place.cli(&["plan", &place.file.to_string_lossy()]);
    assert!(text.contains("Nothing to change."), "{text}");
    place.node.restart();
    assert_eq!(token(&mut place.node, None), (pid, third));
    assert_nowhere(&mut place.node);
}

#[test]
fn a_start_without_its_file_of_variables_fails_with_the_path_and_a_run_that_lives_is_left_alone() {
    let mut place = place();
    place.say("one");
    place.apply();
    let (pid, _) = token(&mut place.node, None);
    place.node.kill9();
    std::fs::remove_file(&place.secret).expect("removed");
    place.node.start_again();
    assert_eq!(token(&mut place.node, None).0, pid);

    // A reload that cannot be is refused, before it ends anything.
    let (code, text) = place.cli(&["reload", "web"]);
    assert!(code != 0 && text.contains("secret.env"), "{code} {text}");
    assert_eq!(token(&mut place.node, None).0, pid);

    place.cli(&["restart", "web", "--no-wait"]);
    let path = place.secret.to_string_lossy().into_owned();
    let reason: String = wait_for(SOON, "the reason", || {
        let job = place.node.get("/v1/jobs/default/web");
        let reason = job["instances"][0]["reason"]["text"]
            .as_str()
            .or(job["instances"][0]["reason"].as_str());
        reason.filter(|text| text.contains(&path)).map(str::to_owned)
    });
    assert!(reason.contains("no such file or directory"), "{reason}");

    // It is there again, with the same words: whoever applies or reloads has it started.
    place.say("one");
    let (code, text) = place.apply();
    assert_eq!(code, 0, "{text}");
    assert_eq!(token(&mut place.node, Some(pid)).1, "one");
    let gone: Value = place.node.get("/v1/jobs/default/web");
    assert_eq!(gone["state"], "running");
}

#[test]
fn a_file_of_variables_that_is_not_there_is_told_when_it_is_applied() {
    let place = place();
    let (code, text) = place.apply();
    assert!(
        code != 0 && text.contains("`env_file` names secret.env, which does not exist"),
        "{code} {text}"
    );
}
