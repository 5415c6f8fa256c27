//! Ending what a dead shim left behind: by cgroup, else by identity and environment.
//!
//! Only for runs whose shim is gone; a living shim does this itself.

use gaffer_core::name::RunId;
use gaffer_shim::identity::is_the_same;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is known of a run whose shim died.
#[derive(Clone, Debug)]
pub(crate) struct Orphan {
    pub run: RunId,
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat` at its start; 0: unknown, then the number alone proves nothing.
    pub start_ticks: u64,
    /// Of its pidfd; 0: not known.
    pub pidfd_inode: u64,
    pub cgroup: Option<PathBuf>,
    /// `GAFFER_NODE_ID` of this node: run ids are unique on a node, not on a host.
    pub node_id: String,
}

/// Kills everything of the run that can be found. Harmless when there is nothing.
pub(crate) fn kill(orphan: &Orphan) {
    if let Some(cgroup) = orphan.cgroup.as_deref() {
        // Absent: the group was never made, or is gone already.
        let _absent = std::fs::write(cgroup.join("cgroup.kill"), "1");
    }
    for pid in processes(orphan) {
        signal_verified(pid, orphan);
    }
}

/// Is anything of the run alive?
pub(crate) fn is_gone(orphan: &Orphan) -> bool {
    if let Some(cgroup) = orphan.cgroup.as_deref()
        && let Ok(events) = std::fs::read_to_string(cgroup.join("cgroup.events"))
        && events.lines().any(|line| line == "populated 1")
    {
        return false;
    }
    processes(orphan).is_empty()
}

/// Kills until nothing is left, at most `within`. True if it is gone.
pub(crate) async fn kill_and_wait(orphan: &Orphan, within: Duration) -> bool {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        kill(orphan);
        if is_gone(orphan) {
            if let Some(cgroup) = orphan.cgroup.as_deref() {
                let _absent = std::fs::remove_dir(cgroup);
            }
            return true;
        }
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Live processes of the run: in its cgroup; without one, those that carry its id in their environment, and its main process.
fn processes(orphan: &Orphan) -> Vec<u32> {
    if let Some(cgroup) = orphan.cgroup.as_deref()
        && let Ok(text) = std::fs::read_to_string(cgroup.join("cgroup.procs"))
    {
        return text
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter(|pid| !is_zombie(*pid))
            .collect();
    }
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
        .filter(|pid| belongs(*pid, orphan) && !is_zombie(*pid))
        .collect()
}

fn belongs(pid: u32, orphan: &Orphan) -> bool {
    if pid == orphan.pid
        && orphan.start_ticks != 0
        && gaffer_shim::client::pidfd(pid)
            .is_ok_and(|pidfd| is_the_same(pid, pidfd, orphan.start_ticks, orphan.pidfd_inode))
    {
        return true;
    }
    let Ok(environ) = std::fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    let run = format!("GAFFER_RUN={}", orphan.run);
    let node = format!("GAFFER_NODE_ID={}", orphan.node_id);
    let has = |wanted: &str| {
        environ
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted.as_bytes())
    };
    has(&run) && has(&node)
}

/// Opens the process first, then asks again who it is: a number alone is never signalled.
fn signal_verified(pid: u32, orphan: &Orphan) {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    let Ok(pidfd) = pidfd_open(raw, PidfdFlags::empty()) else {
        return;
    };
    let still = match orphan.cgroup.as_deref() {
        Some(cgroup) if cgroup.exists() => in_cgroup(pid, cgroup),
        _ => belongs(pid, orphan),
    };
    if still {
        // ESRCH: it ended meanwhile, which is what was wanted.
        let _ended = pidfd_send_signal(&pidfd, Signal::KILL);
    }
}

fn in_cgroup(pid: u32, cgroup: &Path) -> bool {
    std::fs::read_to_string(cgroup.join("cgroup.procs"))
        .is_ok_and(|text| text.lines().any(|line| line.parse() == Ok(pid)))
}

fn stat_field(pid: u32, number: usize) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(number - 3).map(str::to_owned)
}

fn is_zombie(pid: u32) -> bool {
    matches!(stat_field(pid, 3).as_deref(), Some("Z" | "X") | None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_10_who_was_born_in_the_same_hundredth_of_a_second_is_told_apart_by_the_inode() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .env_clear()
            .spawn()
            .expect("a process");
        let pid = child.id();
        let pidfd = gaffer_shim::client::pidfd(pid).expect("it lives");
        let mut orphan = Orphan {
            run: RunId { epoch: 1, n: 1 },
            pid,
            start_ticks: gaffer_shim::identity::start_ticks(pid).expect("it lives"),
            pidfd_inode: gaffer_shim::identity::pidfd_inode(pidfd),
            cgroup: None,
            node_id: "a-node".to_owned(),
        };
        assert!(belongs(pid, &orphan));
        orphan.pidfd_inode += 1;
        assert!(!belongs(pid, &orphan), "another inode is another process");
        orphan.pidfd_inode = 0;
        assert!(belongs(pid, &orphan), "what an older shim wrote has none");
        orphan.start_ticks += 1;
        assert!(!belongs(pid, &orphan));
        let _ended = (child.kill(), child.wait());
    }
}
