//! Rows of the hazards that need a real node and a hostile world: full disks, limits, other namespaces, bombs. A world that
//! this machine does not let a test make (no right to mount, to limit, to unshare) is left out, and the test says so.

use gaffer_testkit::{Node, process, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

fn running(job: &Value) -> bool {
    job["state"] == "running"
}

fn pid(job: &Value) -> u32 {
    let pid = job["instances"][0]["pid"].as_u64().expect("a live pid");
    u32::try_from(pid).expect("a pid")
}

fn deaths(node: &mut Node, job: &str) -> Vec<Value> {
    let list = node.get(&format!("/v1/jobs/default/{job}/deaths?limit=1000"));
    list.as_array().cloned().unwrap_or_default()
}

/// Events of one name.
fn events(node: &mut Node, name: &str) -> Vec<Value> {
    let text = node
        .request("GET", &format!("/v1/events?filter={name}"), None)
        .text();
    let all = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    all.filter(|event: &Value| event["event"] == name).collect()
}

/// A number of `/metrics`.
fn metric(node: &mut Node, name: &str) -> u64 {
    let text = node.request("GET", "/metrics", None).text();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    let value = line.and_then(|line| line.split(' ').nth(1));
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{name}: {text}"))
}

fn left_out(why: &str) {
    eprintln!("left out: {why}");
}

// ── a small disk ──

struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None: we may not mount.
    fn mount(at: &Path, bytes: u64) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).expect("a directory");
        mount_with(at, 0, bytes).then(|| SmallDisk(at.to_owned()))
    }

    fn grow(&self, bytes: u64) {
        assert!(mount_with(&self.0, libc::MS_REMOUNT, bytes));
    }
}

fn mount_with(at: &Path, flags: libc::c_ulong, bytes: u64) -> bool {
    let at = std::ffi::CString::new(at.as_os_str().as_encoded_bytes()).expect("a path");
    let data = std::ffi::CString::new(format!("size={bytes}")).expect("options");
    let kind = c"tmpfs".as_ptr();
    // SAFETY: valid strings.
    unsafe { libc::mount(kind, at.as_ptr(), kind, flags, data.as_ptr().cast()) == 0 }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let at = std::ffi::CString::new(self.0.as_os_str().as_encoded_bytes()).expect("a path");
        // SAFETY: a valid path.
        unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn hazard_29_what_a_full_disk_did_not_take_is_counted_told_and_over_when_there_is_room() {
    for size in [64 << 10, 1 << 20] {
        let mut node = Node::start();
        let logs = node.state_dir().join("logs/default/chatty/1");
        let Some(disk) = SmallDisk::mount(&logs, size) else {
            return left_out("mounting is not permitted");
        };
        let (first, then) = (3_000_000_usize, 50_000_usize);
        let gate = node.root().join("go");
        let script = format!(
            "yes 0123456789 | head -c {first}; while [ ! -e {} ]; do sleep 0.02; done; \
             yes abcdefg | head -c {then}; exec {} idle",
            gate.display(),
            node.fixture()
        );
        node.put_job("default", "chatty", &json!({ "cmd": ["/bin/sh", "-c", script] }));
        let before = node.wait_job("default", "chatty", SOON, running);
        let stored = |node: &Node| node.logged("default", "chatty", 1, "stdout").len();
        let count = "gaffer_log_dropped_bytes_total";
        wait_until(SOON, "each byte is stored or counted", || {
            stored(&node) + usize::try_from(metric(&mut node, count)).unwrap_or(0) == first
        });
        let kept = stored(&node);
        let dropped = metric(&mut node, count);
        assert!(dropped > 0 && kept > 32 << 10, "{dropped} dropped, {kept} kept");
        let told: u64 = events(&mut node, "log.dropped")
            .iter()
            .map(|event| {
                assert_eq!(event["subject"], "default.chatty.1", "{event:#}");
                let bytes = &event["data"]["bytes"];
                bytes
                    .as_u64()
                    .or_else(|| bytes.as_str()?.parse().ok())
                    .expect("a number of bytes")
            })
            .sum();
        assert_eq!(told, dropped);
        disk.grow(8 << 20);
        std::fs::write(&gate, "").expect("the gate");
        wait_until(SOON, "what comes later is stored", || {
            stored(&node) == kept + then
        });
        assert!(
            node.logged("default", "chatty", 1, "stdout")
                .ends_with(b"abcdefg\n")
        );
        assert_eq!(metric(&mut node, count), dropped, "nothing was lost any more");
        let after = node.wait_job("default", "chatty", SOON, running);
        assert_eq!(pid(&before), pid(&after), "nobody had to be started again");
    }
}

// ── limits ──

/// A group of the pids controller, with this node's daemon in it.
struct PidsGroup(PathBuf);

impl PidsGroup {
    /// None: there is no such controller here, or it is not ours to use.
    fn around(pid: u32) -> Option<PidsGroup> {
        let parents = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
        let parent = parents.iter().map(Path::new).find(|dir| {
            let text = std::fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
            dir.ends_with("pids") && dir.join("cgroup.procs").exists() || text.contains("pids")
        })?;
        let group = parent.join(format!("gaffer-test-pids-{pid}"));
        std::fs::create_dir(&group).ok()?;
        let group = PidsGroup(group);
        std::fs::write(group.0.join("cgroup.procs"), pid.to_string()).ok()?;
        Some(group)
    }

    fn now(&self) -> u64 {
        let text = std::fs::read_to_string(self.0.join("pids.current")).expect("pids.current");
        text.trim().parse().expect("a number")
    }

    fn limit(&self, max: &str) {
        std::fs::write(self.0.join("pids.max"), max).expect("pids.max");
    }
}

impl Drop for PidsGroup {
    fn drop(&mut self) {
        // Its processes are the node's, which is dropped first.
        let deadline = Instant::now() + Duration::from_secs(5);
        while std::fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            wait_between_looks();
        }
    }
}

fn wait_between_looks() {
    std::thread::sleep(Duration::from_millis(3));
}

#[test]
fn hazard_37_a_fork_that_fails_is_tried_again_and_disturbs_nobody() {
    // Dropped last: the node's processes are in it.
    let group;
    let mut node = Node::start();
    let fixture = node.fixture();
    match PidsGroup::around(node.daemon_pid().expect("a daemon")) {
        Some(made) => group = made,
        None => return left_out("no pids controller"),
    }
    node.put_job("default", "old", &json!({ "cmd": [fixture, "idle"] }));
    let before = node.wait_job("default", "old", SOON, running);
    group.limit(&group.now().to_string());
    let retry = json!({ "delay": "100ms", "factor": 1, "jitter": 0 });
    let begun = Instant::now();
    node.put_job(
        "default",
        "new",
        &json!({ "cmd": [fixture, "idle"], "retry": retry }),
    );
    let list = wait_for(SOON, "three failed starts", || {
        Some(deaths(&mut node, "new")).filter(|list| list.len() >= 3)
    });
    assert!(
        begun.elapsed() >= Duration::from_millis(200),
        "no pause between attempts"
    );
    for death in &list {
        assert_eq!(death["exit_code"], Value::Null, "{death:#}");
        let text = death.to_string();
        assert!(
            text.contains("clone") || text.contains("process"),
            "what failed is named: {death:#}"
        );
    }
    group.limit("max");
    node.wait_job("default", "new", SOON, running);
    let after = node.wait_job("default", "old", SOON, running);
    assert_eq!(pid(&before), pid(&after));
    assert_eq!(node.job_processes().len(), 2);
    drop(node);
    drop(group);
}

fn oom_score(pid: u32) -> i32 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("its score");
    text.trim().parse().expect("a number")
}

#[test]
fn hazard_38_daemon_shim_and_guard_have_a_lower_score_than_any_job() {
    let mut node = Node::start();
    let fixture = node.fixture();
    node.put_job("default", "web", &json!({ "cmd": [fixture, "idle"] }));
    node.put_job(
        "default",
        "hog",
        &json!({ "cmd": [fixture, "idle"], "oom_score": 500 }),
    );
    let web = pid(&node.wait_job("default", "web", SOON, running));
    let hog = pid(&node.wait_job("default", "hog", SOON, running));
    assert_eq!((oom_score(web), oom_score(hog)), (0, 500));
    // Without the privilege a score cannot be lowered: then it is no higher.
    let probe = "echo -900 > /proc/self/oom_score_adj";
    let permitted = Command::new("/bin/sh")
        .args(["-c", probe])
        .stderr(Stdio::null())
        .status();
    let most = match permitted.is_ok_and(|status| status.success()) {
        true => -1,
        false => 0,
    };
    let ours: Vec<u32> = node
        .shims()
        .iter()
        .map(|one| one.pid)
        .chain(node.daemon_pid())
        .collect();
    assert_eq!(ours.len(), 3);
    for one in ours {
        assert!(oom_score(one) <= most, "{}", oom_score(one));
    }
}

#[test]
fn hazard_39_a_plain_kill_is_no_lack_of_memory() {
    let mut node = Node::start();
    let fixture = node.fixture();
    node.put_job(
        "default",
        "web",
        &json!({ "cmd": [fixture, "idle"], "retry": { "delay": "1h", "max_delay": "1h" } }),
    );
    let victim = pid(&node.wait_job("default", "web", SOON, running));
    process::Handle::open(victim)
        .expect("it lives")
        .signal(Signal::KILL);
    let list = wait_for(SOON, "its death", || {
        Some(deaths(&mut node, "web")).filter(|list| !list.is_empty())
    });
    assert_eq!(
        (&list[0]["cause"], &list[0]["signal"]),
        (&json!("signal"), &json!("SIGKILL"))
    );
    assert!(events(&mut node, "run.oom").is_empty());
}

#[test]
fn hazard_40_a_fork_bomb_is_bounded_and_stopped_within_a_second() {
    if !rustix::process::geteuid().is_root() {
        return left_out("a bomb needs a user of its own, so that its limit bounds nobody else");
    }
    let mut node = Node::start();
    let fixture = node.fixture();
    node.put_job("default", "calm", &json!({ "cmd": [fixture, "idle"] }));
    // Where any user can reach it.
    let dir = tempfile::tempdir().expect("a directory");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), mode).expect("its mode");
    let program = dir.path().join("bomb");
    std::fs::copy(&fixture, &program).expect("a copy");
    let bomb = json!({
        "cmd": [program, "bomb"], "user": "nobody", "cwd": "/", "rlimits": { "nproc": 200 },
        "stop": { "timeout": "100ms" }
    });
    node.put_job("default", "bomb", &bomb);
    node.wait_job("default", "bomb", SOON, running);
    wait_until(SOON, "the bomb has gone off", || node.job_processes().len() > 50);
    assert!(node.job_processes().len() <= 210, "the limit bounds it");
    let begun = Instant::now();
    let (status, answer) = node.http("POST", "/v1/jobs/default/bomb/stop?wait=20s", Some(&json!({})));
    let took = begun.elapsed();
    assert_eq!((status, &answer["state"]), (200, &json!("done")), "{answer:#}");
    assert!(took < Duration::from_millis(1100), "stopped after {took:?}");
    assert_eq!(node.job_processes().len(), 1, "the calm one");
}

#[test]
fn hazard_15_a_frozen_tree_ends_with_its_stop_and_others_meanwhile() {
    let mut node = Node::start();
    let fixture = node.fixture();
    let spec = json!({ "cmd": [fixture, "idle"], "stop": { "timeout": "2s" } });
    node.put_job("default", "ice", &spec);
    node.put_job("default", "web", &spec);
    let frozen = node.wait_job("default", "ice", SOON, running);
    node.wait_job("default", "web", SOON, running);
    let run = frozen["instances"][0]["run"]
        .as_str()
        .expect("a run")
        .trim_start_matches('@')
        .to_owned();
    let base = process::cgroup_base(&node.state_dir());
    let switch = base.map(|base| base.join(&run).join("cgroup.freeze"));
    match switch.filter(|path| path.exists()) {
        // Frozen by somebody else: TERM waits for the thaw, KILL does not.
        Some(path) => std::fs::write(path, "1").expect("frozen"),
        None => drop(
            process::Handle::open(pid(&frozen))
                .expect("it lives")
                .signal(Signal::STOP),
        ),
    }
    let (status, _) = node.http("POST", "/v1/jobs/default/ice/stop", Some(&json!({})));
    assert_eq!(status, 202);
    let begun = Instant::now();
    let (_, answer) = node.http("POST", "/v1/jobs/default/web/stop?wait=20s", Some(&json!({})));
    assert_eq!(answer["state"], "done", "{answer:#}");
    assert!(
        begun.elapsed() < Duration::from_millis(1500),
        "the frozen one held it up"
    );
    node.wait_job("default", "ice", SOON, |job| job["state"] == "stopped");
    node.assert_no_job_processes();
}

// ── other worlds ──

/// Runs a test again as the first process of a pid namespace, unless this is that run already.
fn is_in_own_namespace(test: &str) -> bool {
    const MARK: &str = "GAFFER_TEST_NAMESPACE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let unshare = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(words)
            .env(MARK, "1");
        command.stdin(Stdio::null()).status()
    };
    if !unshare(&["true"]).is_ok_and(|status| status.success()) {
        left_out("namespaces are not permitted");
        return false;
    }
    let own = std::env::current_exe().expect("the path of this test");
    let own = own.to_str().expect("a path of text");
    assert!(
        unshare(&[own, "--exact", test, "--nocapture"])
            .expect("unshare")
            .success()
    );
    false
}

/// Waits for a dead process that came to us as the first of the namespace, so that its number is free.
fn wait_for_orphan(pid: u32) {
    let number = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    let _not_ours = rustix::process::waitpid(number, rustix::process::WaitOptions::empty());
}

/// A process that has this number.
fn stranger_with(pid: u32, program: &str) -> std::process::Child {
    for _ in 0..50 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("ns_last_pid");
        let mut child = Command::new(program).arg("idle").spawn().expect("a stranger");
        if child.id() == pid {
            return child;
        }
        let _ended = (child.kill(), child.wait());
    }
    panic!("no process got the number {pid}");
}

/// Since Linux 6.9 each pidfd has an inode of its process.
fn kernel_tells_apart(pids: [u32; 2]) -> bool {
    let [one, other] = pids.map(|pid| {
        let pidfd = gaffer_shim::client::pidfd(pid).expect("it lives");
        gaffer_shim::identity::pidfd_inode(pidfd)
    });
    one != other
}

#[test]
fn hazard_10_a_stranger_that_got_the_number_of_a_dead_run_lives() {
    if !is_in_own_namespace("hazard_10_a_stranger_that_got_the_number_of_a_dead_run_lives") {
        return;
    }
    for containment in ["auto", "off"] {
        let config = format!("[gaffer]\ncontainment = \"{containment}\"\n");
        let mut node = Node::builder().config("gaffer.toml", &config).start();
        let fixture = node.fixture();
        node.put_job("default", "web", &json!({ "cmd": [fixture, "idle"] }));
        let number = pid(&node.wait_job("default", "web", SOON, running));
        let begun = std::time::Instant::now();
        let shims = node.shims();
        let job = process::Process::read(number).expect("it lives");
        let tells_apart = kernel_tells_apart([number, std::process::id()]);
        node.kill9();
        for one in &shims {
            process::Handle::open(one.pid)
                .expect("it lives")
                .signal(Signal::STOP);
        }
        for one in shims.iter().chain([&job]) {
            process::kill(one);
        }
        for one in shims.iter().chain([&job]) {
            wait_for_orphan(one.pid);
        }
        wait_until(SOON, "the number is free", || {
            process::Process::read(number).is_none()
        });
        if !tells_apart {
            // Then who has the number and the start time of another one is that one, in hundredths of a second.
            wait_until(SOON, "another start time", || {
                begun.elapsed() > Duration::from_millis(30)
            });
        }
        let mut stranger = stranger_with(number, &fixture);
        node.start_again();
        let after = node.wait_job("default", "web", SOON, running);
        assert_ne!(pid(&after), number);
        node.http("POST", "/v1/jobs/default/web/stop?wait=20s", Some(&json!({})));
        assert_eq!(
            stranger.try_wait().expect("its status"),
            None,
            "{containment}: the stranger was killed"
        );
        let _ended = (stranger.kill(), stranger.wait());
    }
}

/// Programs of this build, with a `gafferd` that starts in a pid namespace of its own while the file `elsewhere` is there.
fn namespaced_bins(dir: &Path) {
    let bins = gaffer_testkit::node::bin_dir();
    for name in ["gaffer", "gaffer-shim", "gaffer-fixture"] {
        std::os::unix::fs::symlink(bins.join(name), dir.join(name)).expect("a link");
    }
    let daemon = bins.join("gafferd");
    let daemon = daemon.display();
    let text = format!(
        "#!/bin/sh\n[ -e \"$GAFFER_TEST_ROOT/elsewhere\" ] || exec {daemon} \"$@\"\n\
         exec unshare --pid --fork --kill-child --mount-proc {daemon} \"$@\"\n"
    );
    let path = dir.join("gafferd");
    std::fs::write(&path, text).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// The process that was started is `unshare`: the daemon ends a moment after it.
fn restart_elsewhere(node: &mut Node) {
    node.kill9();
    let is_daemon =
        |one: &process::Process| one.command.first().is_some_and(|word| word.ends_with("/gafferd"));
    wait_until(SOON, "the end of the daemon", || {
        !node.pids().iter().any(is_daemon)
    });
    node.start_again();
}

fn may_unshare() -> bool {
    let words = ["--pid", "--fork", "--kill-child", "--mount-proc", "true"];
    Command::new("unshare")
        .args(words)
        .status()
        .is_ok_and(|status| status.success())
}

#[test]
fn hazard_62_a_shim_of_another_pid_namespace_is_not_judged_by_its_number() {
    if !may_unshare() {
        return left_out("namespaces are not permitted");
    }
    let bins = tempfile::tempdir().expect("a directory");
    namespaced_bins(bins.path());
    let mut node = Node::builder().bin_dir(bins.path()).start();
    let fixture = node.fixture();
    node.put_job("default", "web", &json!({ "cmd": [fixture, "idle"] }));
    let before = node.wait_job("default", "web", SOON, running);
    let elsewhere = node.root().join("elsewhere");
    std::fs::write(&elsewhere, "").expect("a file");
    restart_elsewhere(&mut node);
    node.wait_job("default", "web", SOON, |job| job["state"] == "unreachable");
    let all = node.job_processes();
    assert_eq!(
        all.iter()
            .filter(|one| one.command.last().is_some_and(|word| word == "idle"))
            .count(),
        1,
        "{all:#?}"
    );
    std::fs::remove_file(&elsewhere).expect("it was there");
    restart_elsewhere(&mut node);
    let after = node.wait_job("default", "web", SOON, running);
    assert_eq!(
        (pid(&before), &before["instances"][0]["run"]),
        (pid(&after), &after["instances"][0]["run"])
    );
}

#[test]
fn hazard_62_a_container_that_is_started_again_on_its_volume_has_one_copy_of_each() {
    if !may_unshare() {
        return left_out("namespaces are not permitted");
    }
    let bins = tempfile::tempdir().expect("a directory");
    namespaced_bins(bins.path());
    let mut node = Node::builder().bin_dir(bins.path()).prepare();
    std::fs::write(node.root().join("elsewhere"), "").expect("a file");
    node.start_again();
    let fixture = node.fixture();
    node.put_job(
        "default",
        "web",
        &json!({ "cmd": [fixture, "idle"], "instances": 3 }),
    );
    let is_idle = |one: &process::Process| one.command.get(1).is_some_and(|word| word == "idle");
    for round in 1..=3 {
        node.wait_job("default", "web", SOON, running);
        wait_until(SOON, "three copies", || {
            node.job_processes().iter().filter(|one| is_idle(one)).count() == 3
        });
        // The first process of the namespace goes, and with it everything in it.
        restart_elsewhere(&mut node);
        let list = wait_for(SOON, "the ends", || {
            Some(deaths(&mut node, "web")).filter(|list| list.len() >= 3 * round)
        });
        for death in list {
            assert_eq!(
                (&death["exit_code"], &death["cause"]),
                (&Value::Null, &json!("unknown")),
                "{death:#}"
            );
        }
    }
}

#[test]
fn hazard_46_a_live_shim_of_another_version_is_left_alone_and_new_runs_go_beside_it() {
    let bins = tempfile::tempdir().expect("a directory");
    let real = gaffer_testkit::node::bin_dir();
    for name in ["gaffer", "gafferd", "gaffer-fixture"] {
        std::os::unix::fs::symlink(real.join(name), bins.path().join(name)).expect("a link");
    }
    let shim = real.join("gaffer-shim");
    let text = format!(
        "#!/bin/sh\n[ -e \"$GAFFER_TEST_ROOT/new\" ] || export GAFFER_SHIM_VERSION=0\nexec {} \"$@\"\n",
        shim.display()
    );
    let wrapper = bins.path().join("gaffer-shim-of-two-versions");
    std::fs::write(&wrapper, text).expect("a script");
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    let wrapper = wrapper.to_str().expect("a path of text");
    let mut node = Node::builder()
        .bin_dir(bins.path())
        .env("GAFFER_SHIM", wrapper)
        .start();
    let fixture = node.fixture();
    let spec = json!({ "cmd": [fixture, "idle"] });
    node.put_job("default", "old", &spec);
    let before = node.wait_job("default", "old", SOON, running);
    std::fs::write(node.root().join("new"), "").expect("a file");
    node.restart();
    let after = node.wait_job("default", "old", SOON, running);
    assert_eq!(pid(&before), pid(&after), "adopted as it is");
    node.put_job("default", "next", &spec);
    node.wait_job("default", "next", SOON, running);
    let versions = |node: &mut Node| -> Vec<u64> {
        let info = node.get("/v1/node");
        let shims = info["shims"].as_array().cloned().unwrap_or_default();
        shims.iter().filter_map(|shim| shim["version"].as_u64()).collect()
    };
    let now = u64::from(gaffer_shim::message::VERSION);
    assert_eq!(versions(&mut node), [0, now]);
    // A stop and a start of the old one: its next run is born under the new shim.
    let (_, answer) = node.http("POST", "/v1/jobs/default/old/restart?wait=20s", Some(&json!({})));
    assert_eq!(answer["state"], "done", "{answer:#}");
    let last = node.wait_job("default", "old", SOON, running);
    assert_ne!(pid(&last), pid(&before));
    let parent = |pid: u32| process::Process::read(pid).expect("it lives").parent;
    let next = node.wait_job("default", "next", SOON, running);
    assert_eq!(parent(pid(&last)), parent(pid(&next)));
    assert_eq!(node.job_processes().len(), 2);
}

// ── clients and files ──

#[test]
fn hazard_35_a_client_that_never_reads_stalls_neither_job_nor_others() {
    let mut node = Node::start();
    let fixture = node.fixture();
    let report = node.root().join("report");
    let cmd = json!([fixture, "pour", "--bytes", "30000000", "--report", report]);
    let mut greedy: Vec<_> = Vec::new();
    for _ in 0..10 {
        let mut stream = std::os::unix::net::UnixStream::connect(node.socket()).expect("the daemon");
        let path = "/v1/events?follow=true&after=start";
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is sent");
        greedy.push(stream);
    }
    node.put_job("default", "pour", &json!({ "cmd": cmd, "restart": "never" }));
    for _ in 0..10 {
        let mut stream = std::os::unix::net::UnixStream::connect(node.socket()).expect("the daemon");
        let path = "/v1/jobs/default/pour/instances/1/logs?follow=true";
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is sent");
        greedy.push(stream);
    }
    wait_until(SOON, "the program has written everything", || report.exists());
    let begun = Instant::now();
    node.wait_job("default", "pour", SOON, |job| job["state"] == "exited");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(
        node.logged("default", "pour", 1, "stdout").len() / 65_536,
        30_000_000 / 65_536
    );
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.daemon_pid().expect("a daemon")));
    let status = status.expect("its status");
    let anon = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .expect("its memory");
    let kib: u64 = anon
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .expect("a number");
    assert!(
        kib < 32 << 10,
        "the daemon keeps {kib} KiB for clients that do not read"
    );
    drop(greedy);
}

#[test]
fn hazard_27_files_that_are_swapped_while_they_are_applied_disturb_nothing_that_is_the_same() {
    let first = "[job.same]\ncmd = \"FIXTURE idle\"\n[job.one]\ncmd = \"FIXTURE idle\"\n";
    let second = "[job.same]\ncmd = \"FIXTURE idle\"\n[job.two]\ncmd = \"FIXTURE idle\"\n";
    let half = "[job.same]\ncmd = \"FIXTURE idle\"\n[job.two]\ncmd = \"FIX";
    let mut node = Node::start();
    let fixture = node.fixture();
    let file = node.root().join("gaffer.toml");
    let swap = |text: &str| {
        let draft = file.with_extension("new");
        std::fs::write(&draft, text.replace("FIXTURE", &fixture)).expect("a draft");
        std::fs::rename(&draft, &file).expect("it is swapped");
    };
    swap(first);
    let apply = |node: &Node| node.cli(&["apply", "-y", "--no-wait"]).status.code();
    assert_eq!(apply(&node), Some(0));
    let before = node.wait_job("default", "same", SOON, running);
    let mut refused = 0;
    for round in 0..60 {
        let wanted = match round % 4 {
            3 => {
                swap(half);
                refused += 1;
                2
            }
            1 => {
                swap(second);
                0
            }
            _ => {
                swap(first);
                0
            }
        };
        assert_eq!(apply(&node), Some(wanted), "round {round}");
    }
    assert_eq!(refused, 15);
    swap(second);
    assert_eq!(apply(&node), Some(0));
    let after = node.wait_job("default", "same", SOON, running);
    assert_eq!(
        (pid(&before), &before["revision"]),
        (pid(&after), &after["revision"])
    );
    node.wait_job("default", "two", SOON, running);
    wait_until(SOON, "what the file no longer names is gone", || {
        node.http("GET", "/v1/jobs/default/one", None).0 == 404
    });
    assert_eq!(node.job_processes().len(), 2);
    assert!(deaths(&mut node, "same").is_empty());
}
