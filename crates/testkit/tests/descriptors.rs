//! Descriptors run out: what supervision needs is kept, nothing is started that could not be supervised, and there is no storm.

use gaffer_testkit::http::{Address, Connection};
use gaffer_testkit::{Node, wait_for, wait_until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// What the jobs of these tests may cost in requests: far below the seconds that a storm took.
const QUICK: Duration = Duration::from_secs(2);

fn limit_daemon(node: &Node, soft: u64, hard: u64) -> Rlimit {
    let pid = node.daemon_pid().and_then(|pid| Pid::from_raw(pid as i32));
    let limit = Rlimit {
        current: Some(soft),
        maximum: Some(hard),
    };
    prlimit(pid, Resource::Nofile, limit).expect("a limit may be lowered")
}

fn shims(node: &Node) -> usize {
    std::fs::read_dir(node.state_dir().join("shims")).map_or(0, Iterator::count)
}

fn open_files(pid: u32) -> u64 {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .count() as u64
}

fn reason(job: &Value) -> String {
    job["instances"][0]["reason"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn hazard_36_a_daemon_with_a_limit_too_low_to_supervise_anything_refuses_to_start() {
    let node = Node::builder().open_files(64, 64).prepare();
    let said = node.root().join("refusal");
    let mut command = node.daemon_command();
    command.stderr(std::fs::File::create(&said).expect("a file"));
    let mut child = command.spawn().expect("gafferd");
    wait_until(SOON, "its end", || {
        child.try_wait().expect("its status").is_some()
    });
    let text = std::fs::read_to_string(&said).expect("its words");
    assert_eq!(child.wait().expect("its status").code(), Some(1), "{text}");
    for word in [
        "limit of open files is 64",
        "needs 256",
        "LimitNOFILE=",
        "ulimit -Hn",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(shims(&node), 0);
}

#[test]
fn hazard_36_a_hundred_jobs_under_a_small_limit_run_over_a_few_shims_and_requests_are_quick() {
    let mut node = Node::builder().open_files(64, 320).start();
    let cmd = [node.fixture(), "idle".to_owned()];
    for n in 0..100 {
        node.put_job("default", &format!("web{n}"), &json!({ "cmd": cmd }));
    }
    let mut slowest = Duration::ZERO;
    let jobs = wait_for(SOON, "a hundred running jobs", || {
        let asked = Instant::now();
        let jobs = node.get("/v1/jobs?limit=1000");
        slowest = slowest.max(asked.elapsed());
        let all = jobs
            .as_array()
            .is_some_and(|jobs| jobs.len() == 100 && jobs.iter().all(|job| job["state"] == "running"));
        all.then_some(jobs)
    });
    assert!(slowest < QUICK, "{slowest:?}");
    let opened = shims(&node);
    // 320 less 192 hold 42 runs of three descriptors each.
    assert!((3..=4).contains(&opened), "{opened} shims");
    let log = node.log();
    assert!(!log.contains("the shim was killed"), "{log}");
    let pid = jobs[0]["instances"][0]["pid"].as_u64().or_else(|| {
        let job = node.get("/v1/jobs/default/web0");
        job["instances"][0]["pid"].as_u64()
    });
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", pid.expect("a pid"))).expect("limits");
    let files: Vec<&str> = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .map(|line| line.split_whitespace().skip(3).take(2).collect())
        .unwrap_or_default();
    assert_eq!(
        files,
        ["64", "320"],
        "programs get what the daemon was started with"
    );
}

#[test]
fn hazard_36_a_shim_that_was_full_takes_runs_again_when_some_of_its_are_gone() {
    let mut node = Node::builder().open_files(64, 320).start();
    let idle = json!({ "cmd": [node.fixture(), "idle"] });
    let start = |node: &mut Node, range: std::ops::Range<u32>| {
        for n in range.clone() {
            node.put_job("default", &format!("web{n}"), &idle);
        }
        for n in range {
            node.wait_job("default", &format!("web{n}"), SOON, |job| {
                job["state"] == "running"
            });
        }
    };
    // 42 in the first, which is full then, and 18 in the second.
    start(&mut node, 0..60);
    assert_eq!(shims(&node), 2);
    for n in 0..30 {
        let path = format!("/v1/jobs/default/web{n}/stop?wait=20s");
        let (status, answer) = node.http("POST", &path, Some(&json!({})));
        assert_eq!(status, 200, "{answer:#}");
    }
    start(&mut node, 60..100);
    assert_eq!(shims(&node), 2, "room that came free is used");
}

#[test]
fn hazard_36_a_daemon_whose_limit_was_lowered_starts_no_shim_that_would_die_and_its_jobs_go_on() {
    let mut node = Node::start();
    let cmd = json!({ "cmd": [node.fixture(), "idle"] });
    node.put_job("shop", "web", &cmd);
    let before = node.wait_job("shop", "web", SOON, |job| job["state"] == "running");
    let old = limit_daemon(&node, 100, 100);
    for n in 0..20 {
        node.put_job("other", &format!("late{n}"), &cmd);
    }
    let late = node.wait_job("other", "late7", SOON, |job| job["state"] == "backoff");
    let why = reason(&late);
    assert!(
        why.contains("limit of open files is 100") && why.contains("LimitNOFILE="),
        "{why}"
    );
    assert_eq!(shims(&node), 1, "no other was begun");
    let web = node.get("/v1/jobs/shop/web");
    assert_eq!(web["instances"][0]["pid"], before["instances"][0]["pid"]);
    let pid = node.daemon_pid().and_then(|pid| Pid::from_raw(pid as i32));
    if prlimit(pid, Resource::Nofile, old).is_err() {
        // Only root may raise it again.
        return;
    }
    for n in 0..20 {
        node.wait_job("other", &format!("late{n}"), SOON, |job| {
            job["state"] == "running"
        });
    }
}

#[test]
fn hazard_36_shims_that_cannot_begin_are_tried_at_a_slow_pace_and_say_why() {
    let place = tempfile::tempdir().expect("a directory");
    let (wrapper, relief) = (place.path().join("shim"), place.path().join("relief"));
    let real = gaffer_testkit::node::bin_dir().join("gaffer-shim");
    let script = format!(
        "#!/bin/sh\necho begun >> {0}/begun\n[ -e {0}/relief ] || ulimit -n 100\nexec {1} \"$@\"\n",
        place.path().display(),
        real.display()
    );
    std::fs::write(&wrapper, script).expect("the wrapper");
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    let mut node = Node::builder()
        .env("GAFFER_SHIM", &wrapper.to_string_lossy())
        .start();
    let begun = Instant::now();
    let cmd = json!({ "cmd": [node.fixture(), "idle"], "retry": { "delay": "20ms", "factor": 1 } });
    for n in 0..20 {
        node.put_job("default", &format!("web{n}"), &cmd);
    }
    let web = node.wait_job("default", "web3", SOON, |job| job["state"] == "backoff");
    assert!(reason(&web).contains("limit of open files is 100"), "{web:#}");
    wait_until(SOON, "a third attempt", || {
        std::fs::read_to_string(place.path().join("begun")).is_ok_and(|text| text.lines().count() >= 3)
    });
    let attempts = std::fs::read_to_string(place.path().join("begun"))
        .expect("attempts")
        .lines()
        .count();
    // Each job tries every 20 ms; pauses of 200 ms and more lie between shims.
    let most = 2 + begun.elapsed().as_millis() as usize / 200;
    assert!(attempts <= most, "{attempts} shims in {:?}", begun.elapsed());
    std::fs::write(&relief, "").expect("relief");
    for n in 0..20 {
        node.wait_job("default", &format!("web{n}"), SOON, |job| {
            job["state"] == "running"
        });
    }
    assert!(!node.log().contains("the shim was killed"), "{}", node.log());
}

#[test]
fn hazard_36_without_descriptors_for_connections_the_daemon_waits_instead_of_spinning() {
    let node = Node::start();
    let daemon = node.daemon_pid().expect("a daemon");
    let used = open_files(daemon);
    let hard = 4096;
    limit_daemon(&node, used + 2, hard);
    let crowd: Vec<UnixStream> = (0..20)
        .map(|_| UnixStream::connect(node.socket()).expect("the backlog has room"))
        .collect();
    let failures = || node.log().matches("accept.failed").count();
    wait_until(SOON, "a failed accept", || failures() > 0);
    let since = Instant::now();
    wait_until(SOON, "seven more", || failures() >= 8);
    // 20 ms, 40 ms, 80 ms… lie between them.
    let (waited, seen) = (since.elapsed(), failures());
    assert!(
        waited > Duration::from_millis(600) && seen < 12,
        "{seen} in {waited:?}"
    );
    limit_daemon(&node, hard, hard);
    let mut late = Connection::new(Address::Unix(node.socket()));
    wait_until(SOON, "an answer", || {
        late.request("GET", "/v1/node", &[], b"")
            .is_ok_and(|answer| answer.status == 200)
    });
    drop(crowd);
}
