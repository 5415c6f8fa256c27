//! Samples of process trees from /proc, taken only when somebody asks.

use crate::clock;
use crate::info::{ProcessStats, RunStats};
use gaffer_core::name::RunId;
use gaffer_core::time::{Duration, Mono};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The last sample of each run that somebody samples.
#[derive(Default)]
pub(crate) struct Sampler {
    before: HashMap<RunId, (Mono, RunStats)>,
}

impl Sampler {
    /// Samples the tree of a run: everything in its cgroup, or else the descendants of its main process.
    /// A sample that is younger than `every` is given again: how many ask does not change the load, nor the time that a
    /// share is taken over.
    pub fn sample(&mut self, run: RunId, pid: u32, cgroup: Option<&Path>, every: Duration) -> RunStats {
        let now = clock::mono();
        if let Some((at, stats)) = self.before.get(&run)
            && u128::from(now.0.saturating_sub(at.0)) < every.as_nanos()
        {
            return stats.clone();
        }
        let pids = match cgroup.and_then(members) {
            Some(pids) => pids,
            None => descendants(pid),
        };
        let mut stats = RunStats {
            at: clock::wall(),
            ..RunStats::default()
        };
        for one in pids.iter().filter_map(|pid| process(*pid)) {
            stats.cpu += one.cpu;
            stats.memory_bytes += one.memory_bytes;
            stats.threads += one.threads;
            stats.processes.push(one);
        }
        stats
            .processes
            .sort_by_key(|process| (process.pid != pid, process.pid));
        if let Some((at, before)) = self.before.get(&run) {
            let wall = now.0.saturating_sub(at.0);
            let used = stats.cpu.saturating_sub(before.cpu).as_nanos();
            if wall > 0 {
                stats.cpu_percent = Some(used as f64 * 100.0 / wall as f64);
            }
        }
        self.before.insert(run, (now, stats.clone()));
        stats
    }

    /// A run has ended.
    pub fn forget(&mut self, run: RunId) {
        self.before.remove(&run);
    }
}

/// Processes of a cgroup and the groups below it.
fn members(cgroup: &Path) -> Option<Vec<u32>> {
    let text = std::fs::read_to_string(cgroup.join("cgroup.procs")).ok()?;
    let mut pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in std::fs::read_dir(cgroup).ok()?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(members(&entry.path()).unwrap_or_default());
        }
    }
    Some(pids)
}

/// A process and all that it or its children started and that still has a parent among them.
fn descendants(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return vec![root];
    };
    for pid in entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
    {
        if let Some(process) = process(pid) {
            children.entry(process.parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(children.remove(&pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// One process, from `/proc/PID/stat` (proc_pid_stat(5)).
fn process(pid: u32) -> Option<ProcessStats> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, parentheses included.
    let (head, rest) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| {
        fields
            .get(number - 3)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };
    if fields.first() == Some(&"Z") {
        return None;
    }
    let ticks = setting(libc::_SC_CLK_TCK).max(1);
    Some(ProcessStats {
        pid,
        parent: u32::try_from(field(4)).unwrap_or(0),
        name,
        cpu: Duration::from_nanos((field(14) + field(15)) * 1_000_000_000 / ticks),
        memory_bytes: field(24) * setting(libc::_SC_PAGESIZE),
        threads: u32::try_from(field(20)).unwrap_or(0),
    })
}

/// A constant of the host, by sysconf(3).
fn setting(name: libc::c_int) -> u64 {
    // SAFETY: sysconf takes a number and touches no memory of ours.
    u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_has_memory_threads_and_a_second_sample_has_a_share() {
        let mut sampler = Sampler::default();
        let run = RunId { epoch: 1, n: 1 };
        let mut sample = |every| sampler.sample(run, std::process::id(), None, every);
        let first = sample(Duration::ZERO);
        assert!(first.memory_bytes > 100_000 && first.threads >= 1 && first.cpu_percent.is_none());
        assert_eq!(first.processes[0].pid, std::process::id());
        let second = sample(Duration::ZERO);
        assert!(second.cpu_percent.is_some());
        let again = sample(Duration::from_secs(3600));
        assert_eq!(
            (again.at, again.cpu),
            (second.at, second.cpu),
            "young enough to be given again"
        );
    }

    #[test]
    fn m05_a_process_that_is_gone_uses_nothing() {
        let mut sampler = Sampler::default();
        let run = RunId { epoch: 1, n: 1 };
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("a child");
        let lives = sampler.sample(run, child.id(), None, Duration::ZERO);
        assert_eq!(lives.processes.len(), 1);
        child.kill().expect("its end");
        child.wait().expect("its end");
        let gone = sampler.sample(run, child.id(), None, Duration::ZERO);
        assert_eq!((gone.processes.len(), gone.memory_bytes, gone.threads), (0, 0, 0));
        assert_eq!((gone.cpu, gone.cpu_percent), (Duration::ZERO, Some(0.0)));
    }
}
