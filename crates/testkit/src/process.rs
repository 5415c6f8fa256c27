//! Who is who in `/proc`, and signals that cannot hit a stranger.

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A process that stays this process: the number cannot be given to another while it is held.
#[derive(Debug)]
pub struct Handle {
    /// Its number.
    pub pid: u32,
    pidfd: OwnedFd,
}

impl Handle {
    /// None: there is no such process.
    pub fn open(pid: u32) -> Option<Handle> {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        Some(Handle {
            pid,
            pidfd: pidfd_open(number, PidfdFlags::empty()).ok()?,
        })
    }

    /// False: it has ended.
    pub fn signal(&self, signal: Signal) -> bool {
        pidfd_send_signal(&self.pidfd, signal).is_ok()
    }
}

/// A process as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// `R S D T Z`…
    pub state: char,
    /// Field 22 of `/proc/PID/stat`: with the pid it names one process since boot.
    pub start_ticks: u64,
    /// Words of its command line.
    pub command: Vec<String>,
}

impl Process {
    /// None: there is no such process (any more).
    pub fn read(pid: u32) -> Option<Process> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = command.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        Some(Process {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            state: fields.first()?.chars().next()?,
            start_ticks: fields.get(19)?.parse().ok()?,
            command: words
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
        })
    }

    /// All processes that can be seen, by number.
    pub fn all() -> BTreeMap<u32, Process> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid| Some((pid, Process::read(pid)?))).collect()
    }

    /// Ended, but not yet waited for.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// One variable of the environment it was started with. None: unset, or not ours to see.
    pub fn env(&self, name: &str) -> Option<String> {
        let environ = std::fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        let text = environ.split(|byte| *byte == 0).find_map(|entry| {
            let value = entry.strip_prefix(name.as_bytes())?;
            value.strip_prefix(b"=")
        })?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn mentions(&self, root: &str) -> bool {
        let environ = std::fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        let inside =
            std::fs::read_link(format!("/proc/{}/cwd", self.pid)).is_ok_and(|cwd| cwd.starts_with(root));
        inside
            || self.command.iter().any(|word| word.contains(root))
            || String::from_utf8_lossy(&environ).contains(root)
    }
}

/// The group of cgroup v2 below which `gafferd` puts the runs of a state directory, if it exists.
///
/// Its name has the FNV-1a digest of the directory's path in it (`containment.rs` of the engine).
pub fn cgroup_base(state_dir: &Path) -> Option<PathBuf> {
    Some(cgroup_parent()?.join(node_name(state_dir))).filter(|base| base.is_dir())
}

/// All groups of a node that there are: that of its runs, and those of their limits on v1.
pub fn cgroups(state_dir: &Path) -> Vec<PathBuf> {
    let name = node_name(state_dir);
    let parents = cgroup_parent().into_iter().chain(limit_parents());
    let all = parents.map(|parent| parent.join(&name));
    all.filter(|group| group.is_dir()).collect()
}

fn node_name(state_dir: &Path) -> String {
    let path = std::fs::canonicalize(state_dir).unwrap_or_else(|_| state_dir.to_owned());
    format!("gaffer-{:08x}", digest(&path))
}

/// Where the groups of limits are on v1: beside us, in each of its hierarchies.
fn limit_parents() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut parents = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(names), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (place, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            let here = !names.is_empty()
                && options
                    .split(',')
                    .any(|word| names.split(',').any(|name| name == word));
            (kind == "cgroup" && here).then_some(place)
        });
        parents.extend(mount.map(|mount| Path::new(mount).join(path.trim_start_matches('/'))));
    }
    parents
}

fn digest(path: &Path) -> u32 {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// Where the groups of nodes are.
pub fn cgroup_parent() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    })?;
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let own = own.trim_start_matches('/');
    Some(mount.join(own.strip_suffix("/daemon").unwrap_or(own)))
}

/// Kills what lives in a group and below it, and removes both. False: not yet.
pub fn end_cgroup(group: &Path) -> bool {
    // Absent on an old kernel, or the group is gone already.
    let _absent = std::fs::write(group.join("cgroup.kill"), "1");
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            end_cgroup(&entry.path());
        }
    }
    std::fs::remove_dir(group).is_ok() || !group.exists()
}

/// Removes empty groups of nodes that no longer run: those of tests that were killed. A daemon that has lost an empty
/// group makes it anew.
pub fn sweep_cgroups() {
    let parents = cgroup_parent().into_iter().chain(limit_parents());
    let all = Process::all();
    let words = all.values().flat_map(|process| &process.command);
    let ends = words.filter_map(|word| {
        let path = Path::new(word);
        // `--state-dir DIR` of a daemon, `--dir DIR/shims/N` of a shim.
        path.is_absolute()
            .then_some([Some(path), path.parent().and_then(Path::parent)])
    });
    let live: Vec<String> = ends
        .flatten()
        .flatten()
        .map(|path| format!("gaffer-{:08x}", digest(path)))
        .collect();
    for entry in parents.flat_map(std::fs::read_dir).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_node = name
            .strip_prefix("gaffer-")
            .is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if is_node && !live.contains(&name) {
            // Only if it is empty.
            let _busy = std::fs::remove_dir(entry.path());
        }
    }
}

/// Live processes of a node whose files are all below `root`, with everything they started, zombies left out.
///
/// Known by a path below `root` in command line, environment or working directory, by the node's cgroup,
/// or as descendants of those.
pub fn of_node(root: &Path, state_dir: &Path) -> Vec<Process> {
    let all = Process::all();
    let root = root.to_string_lossy();
    let grouped = cgroup_base(state_dir)
        .map(|base| in_cgroup(&base))
        .unwrap_or_default();
    let own = std::process::id();
    let mut found: BTreeMap<u32, Process> = BTreeMap::new();
    let named = all
        .values()
        .filter(|process| grouped.contains(&process.pid) || process.mentions(&root));
    found.extend(
        named
            .filter(|process| process.pid != own)
            .map(|process| (process.pid, process.clone())),
    );
    loop {
        let more: Vec<&Process> = all
            .values()
            .filter(|process| found.contains_key(&process.parent) && !found.contains_key(&process.pid))
            .filter(|process| process.pid != own)
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more.into_iter().map(|process| (process.pid, process.clone())));
    }
    found
        .into_values()
        .filter(|process| !process.is_zombie())
        .collect()
}

/// Processes in a group and all groups below it.
pub fn in_cgroup(group: &Path) -> Vec<u32> {
    let own = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<u32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(in_cgroup(&entry.path()));
        }
    }
    pids
}

/// Kills a process if it is still the one that was seen.
pub fn kill(process: &Process) {
    let Some(handle) = Handle::open(process.pid) else {
        return;
    };
    if Process::read(process.pid).is_some_and(|now| now.start_ticks == process.start_ticks) {
        handle.signal(Signal::KILL);
    }
}
