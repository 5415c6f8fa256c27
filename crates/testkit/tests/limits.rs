//! Limits of runs by real cgroups: v2 where it is delegated, v1 on a hybrid host.

use gaffer_testkit::process::{self, Handle};
use gaffer_testkit::{Node, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn running(job: &Value) -> bool {
    job["state"] == "running"
}

fn pid(job: &Value) -> u32 {
    let pid = job["instances"][0]["pid"].as_u64().expect("a pid");
    u32::try_from(pid).expect("a pid")
}

/// A process reads its limits where the kernel says that it is.
fn limit(pid: u32, controller: &str, v1: &str, v2: &str) -> String {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let of = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
    };
    let mount = |wanted: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (place, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            let has = option.is_empty() || options.split(',').any(|word| word == option);
            (kind == wanted && has).then(|| PathBuf::from(place))
        })
    };
    let all: Vec<_> = groups.lines().filter_map(of).collect();
    let (place, name, path) = match all
        .iter()
        .find(|(names, _)| names.split(',').any(|name| name == controller))
    {
        Some((_, path)) => (mount("cgroup", controller), v1, path),
        None => {
            let (_, path) = all
                .iter()
                .find(|(names, _)| names.is_empty())
                .expect("a v2 group");
            (mount("cgroup2", ""), v2, path)
        }
    };
    let file = place
        .expect("a mount")
        .join(path.trim_start_matches('/'))
        .join(name);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.trim().to_owned()
}

fn pids_max(pid: u32) -> String {
    limit(pid, "pids", "pids.max", "pids.max")
}

fn deaths(node: &mut Node, job: &str) -> Vec<Value> {
    let list = node.get(&format!("/v1/jobs/default/{job}/deaths"));
    list.as_array().cloned().unwrap_or_default()
}

#[test]
fn hazard_39_a_run_beyond_its_memory_is_told_from_one_that_was_killed() {
    let mut node = Node::start();
    let fixture = node.fixture();
    node.put_job(
        "default",
        "fat",
        &json!({
            "cmd": [fixture, "eat-memory", "--mib", "200"],
            "limits": { "memory": "32M", "swap": "0B", "enforce": "require" },
            "retry": { "attempts": 1 },
        }),
    );
    node.wait_job("default", "fat", SOON, |job| job["state"] == "failed");
    let list = deaths(&mut node, "fat");
    assert_eq!(
        (&list[0]["cause"], &list[0]["signal"]),
        (&json!("oom"), &json!("SIGKILL")),
        "{list:?}"
    );
    let why = node.cli(&["why", "fat"]);
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(why.contains("out of memory, killed by the kernel"), "{why}");
    // A value that the kernel refuses is no start with another one.
    let limits = json!({ "cpus": "4000" });
    let fixture = node.fixture();
    node.put_job(
        "default",
        "odd",
        &json!({ "cmd": [fixture, "idle"], "limits": limits, "retry": { "attempts": 1 } }),
    );
    node.wait_job("default", "odd", SOON, |job| job["state"] == "failed");
    let list = deaths(&mut node, "odd");
    let reason = list[0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("cpuset.cpus = 4000"), "{list:?}");
}

#[test]
fn a_run_is_born_with_its_limits_and_they_go_with_it() {
    let mut node = Node::start();
    let fixture = node.fixture();
    node.put_job(
        "default",
        "web",
        &json!({
            "cmd": [fixture, "idle"],
            "limits": { "memory": "64M", "cpu": "150%", "cpu_weight": 200, "pids": 20, "cpus": "0", "enforce": "require" },
        }),
    );
    let first = pid(&node.wait_job("default", "web", SOON, running));
    let memory = limit(first, "memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(memory, (64 << 20).to_string());
    assert!(limit(first, "cpu", "cpu.cfs_quota_us", "cpu.max").starts_with("150000"));
    assert_eq!(pids_max(first), "20");
    assert_eq!(limit(first, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    // Also the run that follows by a standing order.
    Handle::open(first).expect("it lives").signal(Signal::KILL);
    let second = wait_for(SOON, "its successor", || {
        let job = node.get("/v1/jobs/default/web");
        (running(&job) && pid(&job) != first).then(|| pid(&job))
    });
    assert_eq!(pids_max(second), "20");
    let groups = process::cgroups(&node.state_dir());
    assert!(!groups.is_empty());
    node.stop(SOON);
    wait_until(SOON, "no group is left", || {
        process::cgroups(&node.state_dir()).is_empty()
    });
}

#[test]
fn other_limits_are_given_to_a_run_that_goes_on() {
    let mut node = Node::start();
    let fixture = node.fixture();
    let mut spec = json!({ "cmd": [fixture, "idle"], "limits": { "pids": 20, "cpu": "50%" } });
    node.put_job("default", "web", &spec);
    let first = pid(&node.wait_job("default", "web", SOON, running));
    let quota = |pid| limit(pid, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota(first).starts_with("50000"), "{}", quota(first));
    spec["limits"] = json!({ "pids": 30 });
    node.put_job("default", "web", &spec);
    wait_until(SOON, "other limits", || pids_max(first) == "30");
    assert!(["-1", "max 100000"].contains(&&*quota(first)), "{}", quota(first));
    let job = node.get("/v1/jobs/default/web");
    assert_eq!(pid(&job), first, "the run goes on: {job}");
    Handle::open(first).expect("it lives").signal(Signal::KILL);
    let second = wait_for(SOON, "its successor", || {
        let job = node.get("/v1/jobs/default/web");
        (running(&job) && pid(&job) != first).then(|| pid(&job))
    });
    assert_eq!(pids_max(second), "30", "a standing order has the limits in force");
}

#[test]
fn what_was_left_by_a_daemon_and_its_shim_is_removed() {
    let mut node = Node::start();
    let fixture = node.fixture();
    node.put_job(
        "default",
        "web",
        &json!({ "cmd": [fixture, "idle"], "limits": { "pids": 20 }, "retry": { "delay": "1h", "max_delay": "1h" } }),
    );
    node.wait_job("default", "web", SOON, running);
    let groups = |dir: &Path| {
        let bases = process::cgroups(dir).into_iter().flat_map(std::fs::read_dir);
        let entries = bases.flatten().flatten();
        entries.filter(|entry| entry.path().is_dir()).count()
    };
    assert!(groups(&node.state_dir()) > 0);
    node.kill9();
    for shim in node.shims() {
        Handle::open(shim.pid).expect("it lives").signal(Signal::KILL);
    }
    node.start_again();
    node.wait_job("default", "web", SOON, |job| job["state"] == "backoff");
    wait_until(SOON, "its groups are gone", || groups(&node.state_dir()) == 0);
}

#[test]
fn a_limit_that_cannot_be_had_is_named() {
    let mut node = Node::builder()
        .config("gaffer.toml", "[gaffer]\ncontainment = \"off\"\n")
        .start();
    let fixture = node.fixture();
    let limits = json!({ "memory": "64M", "enforce": "require" });
    let retry = json!({ "attempts": 1 });
    node.put_job(
        "default",
        "strict",
        &json!({ "cmd": [&fixture, "idle"], "limits": limits, "retry": retry }),
    );
    node.wait_job("default", "strict", SOON, |job| job["state"] == "failed");
    let list = deaths(&mut node, "strict");
    let reason = list[0]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(
        reason.contains("limits.memory: no memory controller for runs here"),
        "{list:?}"
    );
    // Without that word it runs, and the doctor says what is missing.
    node.put_job(
        "default",
        "web",
        &json!({ "cmd": [&fixture, "idle"], "limits": { "pids": 9 } }),
    );
    node.wait_job("default", "web", SOON, running);
    let doctor = node.cli(&["doctor"]);
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(text.contains("limits.pids: no pids controller"), "{text}");
}
