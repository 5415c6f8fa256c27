//! What runs out: room on the disk, descriptors, the right to write. Jobs do not notice, and people are told.

use gaffer_testkit::Node;
use serde_json::{Value, json};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// A small disk, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None: we may not mount.
    fn mount(at: &Path, options: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).expect("a directory");
        let path = CString::new(at.as_os_str().as_bytes()).expect("a path");
        let options = CString::new(options).expect("options");
        // SAFETY: all are texts that end with NUL and outlive the call.
        let done = unsafe {
            libc::mount(
                c"gaffer-test".as_ptr(),
                path.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        };
        (done == 0).then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let path = CString::new(self.0.as_os_str().as_bytes()).expect("a path");
        // SAFETY: a valid path.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

fn idle(node: &mut Node, job: &str) -> Value {
    let cmd = [node.fixture(), "idle".to_owned()];
    node.put_job("default", job, &json!({ "cmd": cmd }));
    node.wait_job("default", job, SOON, |job| job["state"] == "running")["instances"][0].clone()
}

#[test]
fn hazard_41_on_a_full_disk_nothing_can_be_asked_for_nothing_is_lost_and_jobs_go_on() {
    let mut node = Node::builder().prepare();
    let Some(disk) = SmallDisk::mount(&node.state_dir(), "size=2m,mode=700") else {
        return;
    };
    node.start_again();
    let before = idle(&mut node, "web");
    let ballast = node.state_dir().join("ballast");
    let filled = std::fs::write(&ballast, vec![0; 4 << 20]);
    assert!(filled.is_err(), "the disk is full");
    let cmd = json!({ "cmd": [node.fixture(), "idle"], "description": "x".repeat(100_000) });
    let (status, refused) = node.http("PUT", "/v1/jobs/default/other", Some(&cmd));
    assert!(status >= 500, "{status} {refused:#}");
    assert!(
        refused["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("full")),
        "{refused:#}"
    );
    assert_eq!(
        node.http("GET", "/v1/jobs/default/other", None).0,
        404,
        "it was not half done"
    );
    let web = node.get("/v1/jobs/default/web");
    assert_eq!(
        (&web["state"], &web["instances"][0]["pid"]),
        (&json!("running"), &before["pid"])
    );
    let disk_check = node.get("/v1/doctor")["checks"].to_string();
    assert!(disk_check.contains("output may be dropped soon"), "{disk_check}");
    std::fs::remove_file(&ballast).expect("room again");
    node.put_job("default", "other", &cmd);
    node.wait_job("default", "other", SOON, |job| job["state"] == "running");
    node.restart();
    let web = node.wait_job("default", "web", SOON, |job| job["state"] == "running");
    assert_eq!(web["instances"][0]["pid"], before["pid"]);
    node.stop(SOON);
    drop(node);
    drop(disk);
}

/// What a daemon says that does not start. One that does is ended, and the test with it.
fn refusal(node: &Node) -> String {
    let said = node.root().join("refusal");
    let mut command = node.daemon_command();
    command.stderr(std::fs::File::create(&said).expect("a file"));
    let mut child = command.spawn().expect("gafferd");
    let deadline = Instant::now() + SOON;
    let status = loop {
        match child.try_wait().expect("its status") {
            None if Instant::now() < deadline => std::thread::yield_now(),
            status => break status,
        }
    };
    if status.is_none() {
        let _ended = child.kill();
        let _status = child.wait();
    }
    let text = std::fs::read_to_string(&said).unwrap_or_default();
    assert_eq!(status.and_then(|status| status.code()), Some(1), "{text}");
    text
}

#[test]
fn hazard_41_a_store_that_was_damaged_is_refused_named_and_left_as_it_is_and_its_jobs_go_on() {
    let mut node = Node::start();
    let before = idle(&mut node, "web");
    // An orderly end puts everything into the one file; what is flipped there counts.
    let leave = json!({ "mode": "leave" });
    node.http("POST", "/v1/node/shutdown", Some(&leave));
    assert_eq!(node.wait_ended(SOON).code(), Some(0));
    let store = node.state_dir().join("gaffer.db");
    let good = std::fs::read(&store).expect("the store");
    // The header, the first page, and a letter within the definition of the job.
    let letter = good
        .windows(6)
        .position(|text| text == b"\"idle\"")
        .expect("its command")
        + 1;
    for place in [0, 16, 100, 105, letter] {
        let mut bytes = good.clone();
        bytes[place] ^= if place == letter { 1 } else { 0xff };
        std::fs::write(&store, &bytes).expect("damaged");
        let text = refusal(&node);
        assert!(text.contains("gaffer.db"), "byte {place}: {text}");
        let names_row = text.contains("row default web of table job is not as it was written");
        assert_eq!(names_row, place == letter, "byte {place}: {text}");
        assert_eq!(
            std::fs::read(&store).expect("there"),
            bytes,
            "byte {place}: it was written to"
        );
    }
    std::fs::write(&store, &good).expect("restored");
    node.start_again();
    let web = node.wait_job("default", "web", SOON, |job| job["state"] == "running");
    assert_eq!(web["instances"][0]["pid"], before["pid"]);
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named_at_the_start() {
    let node = Node::builder().prepare();
    let Some(disk) = SmallDisk::mount(&node.state_dir(), "size=1m,mode=700,ro") else {
        return;
    };
    let text = refusal(&node);
    assert!(
        text.contains("cannot use the state directory") && text.contains("Read-only"),
        "{text}"
    );
    drop(disk);
}
