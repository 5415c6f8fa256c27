//! What runs out or stands in the way of the store: a full disk, a lock that somebody holds, a damaged file.

use super::*;
use std::io::BufRead;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A small disk, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None: we may not mount.
    fn mount(at: &Path) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m,mode=700", "gaffer-test"])
            .arg(at)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Fills the disk to its last byte.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("a file");
    for size in [64 << 10, 4 << 10, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

const PATIENT: &str = r#"
[queue.q]
workers = 2
keep.done = "1h"
cmd = ["sh", "-c", "echo $$GAFFER_TASK >> ../begun; until test -e ../go; do sleep 0.02; done; echo $$GAFFER_TASK >> ../ended"]
"#;

const WORK: &str = r#"
[queue.heap]
workers = 0
[queue.q]
workers = 2
keep.done = "1h"
cmd = ["sh", "-c", "echo $$GAFFER_TASK >> begun; until test -e go; do sleep 0.02; done; echo $$GAFFER_TASK >> ended"]
"#;

/// Two tasks run and two wait when there is no room any more; what may be promised then, and what becomes of them when there is.
fn nothing_is_lost(node: &mut Node, fill: impl FnOnce(&Node), room: impl FnOnce(&Node), said: &str) {
    let ids: Vec<i64> = (0..4).map(|_| push(node, &["q", "1"])).collect();
    let (begun, ended) = (node.root().join("begun"), node.root().join("ended"));
    wait_until(SOON, "two begin", || lines(&begun).len() == 2);
    fill(node);
    let big = format!("\"{}\"", "x".repeat(100_000));
    let refused = node.cli(&["push", "q", &big]);
    assert_ne!(code(&refused), 0, "nothing is taken that cannot be kept");
    assert!(errors(&refused).contains(said), "{}", errors(&refused));
    // What runs finishes; its end cannot be written, and nothing new begins.
    std::fs::write(node.root().join("go"), "").expect("a file");
    wait_until(SOON, "both end", || lines(&ended).len() == 2);
    let refusals = || node.log().matches("the queue store cannot write").count();
    let before = refusals();
    wait_until(SOON, "it is tried again and again", || refusals() >= before + 3);
    assert_eq!(lines(&begun).len(), 2, "nothing is claimed meanwhile");
    let known: Vec<String> = ids.iter().map(|id| state(node, *id)).collect();
    assert_eq!(known, ["running", "running", "queued", "queued"]);
    room(node);
    for id in &ids {
        wait_state(node, *id, "done");
    }
    let mut all = lines(&begun);
    all.sort();
    let each: Vec<String> = ids.iter().map(i64::to_string).collect();
    assert_eq!(all, each, "each began once");
    let next = push(node, &["q", "1"]);
    wait_state(node, next, "done");
    node.stop(SOON);
}

/// No file of the daemon may grow beyond so many bytes, as if its disk had no more; none: any size. Needs no right.
fn most_bytes(node: &Node, most: Option<u64>) {
    let pid = node
        .daemon_pid()
        .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    let limit = rustix::process::Rlimit {
        current: most,
        maximum: None,
    };
    rustix::process::prlimit(pid, rustix::process::Resource::Fsize, limit).expect("a limit");
}

/// Scenario 34: the disk is full while outcomes are to be written: no crash, no task runs twice, and all goes on when there is room again.
#[test]
fn scenario_34_without_room_nothing_is_lost_and_nothing_runs_twice() {
    let mut node = node(WORK);
    let heap = format!("\"{}\"", "x".repeat(100_000));
    for _ in 0..10 {
        push(&node, &["heap", &heap]);
    }
    // While somebody reads, the log of the file only grows; it is larger than all else that the daemon writes.
    let reader = Holder::of(&node, "BEGIN; SELECT COUNT(*) FROM task");
    let log = node.state_dir().join("queue.db-wal");
    let fill = |node: &Node| {
        let size = std::fs::metadata(&log).expect("a log").len();
        assert!(size > 1_000_000, "{size}");
        most_bytes(node, Some(size));
    };
    let room = |node: &Node| {
        most_bytes(node, None);
        reader.let_go();
    };
    nothing_is_lost(
        &mut node,
        fill,
        room,
        "the queue store cannot do it: disk I/O error",
    );
}

/// The same on a disk that is really full, where the test may mount one.
#[test]
fn a_full_disk_is_called_so() {
    let mut node = Node::builder().config("gaffer.toml", WORK).prepare();
    let Some(disk) = SmallDisk::mount(&node.state_dir()) else {
        eprintln!("skipped: no right to mount; scenario 34 does without");
        return;
    };
    node.start_again();
    let ballast = node.state_dir().join("ballast");
    let room = |_: &Node| std::fs::remove_file(&ballast).expect("room again");
    nothing_is_lost(&mut node, |_| fill(&ballast), room, "full");
    drop(node);
    drop(disk);
}

/// Another program amid a transaction, until its stdin is closed.
struct Holder(Child);

impl Holder {
    fn of(node: &Node, statements: &str) -> Holder {
        let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n\
                      for one in sys.argv[2].split(';'):\n    c.execute(one).fetchall()\n\
                      print('held', flush=True)\nsys.stdin.read()\nc.execute('ROLLBACK')\n";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(node.state_dir().join("queue.db"))
            .arg(statements)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut said = String::new();
        let out = child.stdout.take().expect("its output");
        std::io::BufReader::new(out).read_line(&mut said).expect("a line");
        assert_eq!(said, "held\n");
        Holder(child)
    }

    fn let_go(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("its end");
    }
}

#[test]
fn a_locked_file_refuses_pushes_and_loses_no_outcome() {
    let mut node = node(&PATIENT.replace("../", ""));
    let ids: Vec<i64> = (0..3).map(|_| push(&node, &["q", "1"])).collect();
    let (begun, ended) = (node.root().join("begun"), node.root().join("ended"));
    wait_until(SOON, "two begin", || lines(&begun).len() == 2);
    let holder = Holder::of(&node, "BEGIN IMMEDIATE");
    std::fs::write(node.root().join("go"), "").expect("a file");
    wait_until(SOON, "both end", || lines(&ended).len() == 2);
    let refused = node.cli(&["push", "q", "2"]);
    assert_ne!(code(&refused), 0);
    assert!(errors(&refused).contains("locked"), "{}", errors(&refused));
    assert_eq!(lines(&begun).len(), 2);
    holder.let_go();
    for id in &ids {
        wait_state(&node, *id, "done");
    }
    assert_eq!(
        lines(&begun).len(),
        3,
        "none began twice, and what was refused is not there"
    );
    node.stop(SOON);
}

#[test]
fn a_damaged_file_is_named_and_left_alone_and_jobs_go_on() {
    let mut node = node(&format!(
        "[job.web]\ncmd = \"sleep 1000\"\n{}",
        PATIENT.replace("../", "")
    ));
    std::fs::write(node.root().join("go"), "").expect("a file");
    let id = push(&node, &["q", "1"]);
    wait_state(&node, id, "done");
    let web = |node: &mut Node| {
        node.wait_job("default", "web", SOON, |job| job["state"] == "running")["instances"][0]["pid"].clone()
    };
    let before = web(&mut node);
    node.kill9();
    let file = node.state_dir().join("queue.db");
    let wal = node.state_dir().join("queue.db-wal");
    let good = (
        std::fs::read(&file).expect("read"),
        std::fs::read(&wal).unwrap_or_default(),
    );
    let garbage = "this is no database, and long enough to be looked at".repeat(100);
    std::fs::write(&file, &garbage).expect("written");
    std::fs::write(&wal, "").expect("written");
    node.start_again();
    assert_eq!(web(&mut node), before, "jobs do not depend on it");
    wait_until(SOON, "it says why", || node.log().contains("restore a copy"));
    let refused = node.cli(&["push", "q", "1"]);
    assert_ne!(code(&refused), 0);
    assert!(
        errors(&refused).contains("not a database"),
        "{}",
        errors(&refused)
    );
    assert_eq!(
        std::fs::read(&file).expect("read"),
        garbage.as_bytes(),
        "it is left alone"
    );
    // The copy comes back, under the running daemon.
    std::fs::write(&wal, &good.1).expect("written");
    let copy = node.root().join("copy");
    std::fs::write(&copy, &good.0).expect("written");
    std::fs::rename(&copy, &file).expect("put in place");
    wait_until(SOON, "it is opened", || {
        code(&node.cli(&["queue", "show", &id.to_string()])) == 0
    });
    assert_eq!(state(&node, id), "done");
    let next = push(&node, &["q", "1"]);
    wait_state(&node, next, "done");
    node.stop(SOON);
}
