//! No event that is covered is lost or put twice, whenever the daemon is killed.

use crate::receiver::{Post, Receiver};
use gaffer_testkit::{Node, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A node whose daemon stands still once at a step, when it is armed.
fn halting(receiver: &Receiver, step: u32) -> Node {
    let arm = std::env::temp_dir().join(format!("gaffer-hooks-{}-{step}", std::process::id()));
    let text = format!(
        "[webhook.ops]\nurl = \"{}\"\nretry.delay = \"50ms\"\n",
        receiver.url()
    );
    Node::builder()
        .config("gaffer.toml", &text)
        .env("GAFFER_DAEMON_HALT", &format!("{step}:{}", arm.display()))
        .start()
}

fn arm(step: u32) {
    let path = std::env::temp_dir().join(format!("gaffer-hooks-{}-{step}", std::process::id()));
    std::fs::write(path, "").expect("armed");
}

fn stands_still(node: &Node) -> bool {
    let pid = node.daemon_pid().expect("a daemon");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('T'))
}

/// Sends a request and does not wait for its answer.
fn ask(socket: &Path, method: &str, path: &str, body: &Value) -> UnixStream {
    let body = body.to_string();
    let mut stream = UnixStream::connect(socket).expect("the daemon's socket");
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("sent");
    stream
}

/// Ids of all events of a name about a subject.
fn ids(posts: &[Post], event: &str, subject: &str) -> BTreeSet<String> {
    posts
        .iter()
        .filter(|post| post.event() == event && post.json()["subject"] == subject)
        .map(Post::id)
        .collect()
}

#[test]
fn killed_between_the_commit_of_a_request_and_its_event() {
    let receiver = Receiver::start();
    let mut node = halting(&receiver, 0);
    node.put_job("shop", "web", &json!({"cmd": ["sleep", "600"], "instances": 1}));
    receiver.wait("added", |post| post.event() == "job.added");
    arm(0);
    let _asked = ask(
        &node.socket(),
        "POST",
        "/v1/jobs/shop/web/scale",
        &json!({"to": "3"}),
    );
    wait_until(SOON, "the daemon stands still", || stands_still(&node));
    node.restart();
    receiver.wait("scaled", |post| post.event() == "job.scaled");
    node.wait_job("shop", "web", SOON, |job| job["summary"] == "3 of 3 running");
    node.restart();
    node.put_job("shop", "last", &json!({"cmd": ["true"], "restart": "never"}));
    let posts = receiver.wait("the last", |post| post.event() == "run.exited");
    assert_eq!(ids(&posts, "job.scaled", "shop.web").len(), 1, "once");
    assert_eq!(ids(&posts, "job.added", "shop.web").len(), 1, "once");
    for n in 1..=3 {
        assert_eq!(
            ids(&posts, "run.started", &format!("shop.web.{n}")).len(),
            1,
            "instance {n} once"
        );
    }
}

#[test]
fn killed_between_a_death_and_the_store() {
    let receiver = Receiver::start();
    let mut node = halting(&receiver, 2);
    let file = node.root().join("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done; exit 7", file.display());
    node.put_job(
        "shop",
        "once",
        &json!({"cmd": ["/bin/sh", "-c", script], "restart": "never"}),
    );
    receiver.wait("started", |post| post.event() == "run.started");
    arm(2);
    std::fs::write(&file, "").expect("go");
    wait_until(SOON, "the daemon stands still", || stands_still(&node));
    assert!(receiver.posts().iter().all(|post| post.event() != "run.exited"));
    node.restart();
    let posts = receiver.wait("exited", |post| post.event() == "run.exited");
    let exited = posts
        .iter()
        .find(|post| post.event() == "run.exited")
        .expect("an exit");
    assert_eq!(exited.json()["data"]["code"], "7");
    node.restart();
    node.put_job("shop", "last", &json!({"cmd": ["true"], "restart": "never"}));
    let posts = receiver.wait("the last", |post| {
        post.event() == "run.exited" && post.json()["subject"] == "shop.last.1"
    });
    assert_eq!(ids(&posts, "run.exited", "shop.once.1").len(), 1, "once");
    assert_eq!(ids(&posts, "run.started", "shop.once.1").len(), 1, "once");
}

#[test]
fn what_ends_while_there_is_no_daemon_is_told_by_the_next_one() {
    let receiver = Receiver::start();
    let text = format!("[webhook.ops]\nurl = \"{}\"\n", receiver.url());
    let mut node = Node::builder().config("gaffer.toml", &text).start();
    node.put_job(
        "shop",
        "web",
        &json!({"cmd": ["sleep", "600"], "retry": {"delay": "1ms"}}),
    );
    let job = node.wait_job("shop", "web", SOON, |job| job["instances"][0]["pid"].is_u64());
    let pid = job["instances"][0]["pid"].as_u64().expect("a pid");
    receiver.wait("started", |post| post.event() == "run.started");
    node.kill9();
    let handle = gaffer_testkit::process::Handle::open(u32::try_from(pid).expect("a pid")).expect("alive");
    handle.signal(Signal::KILL);
    wait_until(SOON, "its end is in the journal", || {
        gaffer_testkit::process::Process::read(u32::try_from(pid).expect("a pid")).is_none()
    });
    node.start_again();
    let posts = receiver.wait("exited", |post| post.event() == "run.exited");
    let exited = posts
        .iter()
        .find(|post| post.event() == "run.exited")
        .expect("an exit");
    assert_eq!(exited.json()["data"]["signal"], "KILL", "{:#}", exited.json());
}

#[test]
fn killed_before_the_answer_came_the_same_event_is_sent_again() {
    let receiver = Receiver::start();
    receiver.hold(true);
    let text = format!(
        "[webhook.ops]\nurl = \"{}\"\nevents = [\"job.added\"]\n",
        receiver.url()
    );
    let mut node = Node::builder().config("gaffer.toml", &text).start();
    node.put_job("shop", "web", &json!({"cmd": ["true"], "start": false}));
    let first = receiver.wait("the first attempt", |_| true);
    node.kill9();
    receiver.hold(false);
    node.start_again();
    wait_until(SOON, "sent again", || receiver.posts().len() > 1);
    assert_eq!(receiver.posts()[1].id(), first[0].id());
    wait_until(SOON, "delivered", || {
        node.get("/v1/webhooks/default/ops")["delivered"] == 1
    });
}

#[test]
fn a_daemon_that_is_killed_again_and_again_tells_every_start_and_end_once() {
    let receiver = Receiver::start();
    let text = format!(
        "[webhook.ops]\nurl = \"{}\"\nevents = [\"run.started\", \"run.exited\"]\nretry.delay = \"10ms\"\n",
        receiver.url()
    );
    let mut node = Node::builder().config("gaffer.toml", &text).start();
    let crashing = json!({
        "cmd": ["/bin/sh", "-c", "sleep 0.05; exit 1"], "instances": 3,
        "retry": {"attempts": "unlimited", "delay": "20ms", "max_delay": "40ms"},
    });
    node.put_job("shop", "crash", &crashing);
    for round in 1..=6 {
        let exits = |receiver: &Receiver| {
            receiver
                .posts()
                .iter()
                .filter(|post| post.event() == "run.exited")
                .count()
        };
        let before = exits(&receiver);
        wait_until(SOON, "more exits", || exits(&receiver) >= before + 4 + round % 3);
        node.restart();
    }
    let (status, answer) = node.http("POST", "/v1/jobs/shop/crash/stop?wait=60s", Some(&json!({})));
    assert_eq!(status, 200, "{answer:#}");
    wait_until(SOON, "the outbox is empty", || {
        node.get("/v1/webhooks/default/ops")["waiting"] == 0
    });
    let posts = receiver.posts();
    // Deliveries may repeat, events may not.
    let mut told: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for post in &posts {
        let run = post.json()["run"].as_str().unwrap_or_default().to_owned();
        told.entry((post.event(), run)).or_default().insert(post.id());
    }
    for ((event, run), ids) in &told {
        assert_eq!(ids.len(), 1, "{event} of {run} was put {} times", ids.len());
    }
    let deaths = node.get("/v1/jobs/shop/crash/deaths?limit=1000");
    let deaths = deaths.as_array().expect("deaths");
    assert!(deaths.len() >= 20, "{}", deaths.len());
    for death in deaths {
        let run = death["run"].as_str().expect("a run").to_owned();
        let exited = told.contains_key(&("run.exited".to_owned(), run.clone()));
        assert!(exited, "the end of {run} was not told: {death:#}");
        if death["pid"].is_u64() {
            assert!(
                told.contains_key(&("run.started".to_owned(), run.clone())),
                "the start of {run} was not told"
            );
        }
    }
}
