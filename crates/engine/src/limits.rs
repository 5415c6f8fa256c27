//! Limits of runs (`limits`): which files of which cgroups say them on this host.
//!
//! Where the runs' own groups (v2) can be given a controller, their files say it. On a hybrid host, whose controllers
//! are on v1, a run joins a further group for each controller that one of its limits needs. What neither can do is
//! named. A controller is switched on with the first limit that needs it: runs without limits pay nothing.

use crate::containment::{Containment, mounts, node_id};
use crate::state::{JobMeta, State};
use gaffer_core::job::{Amount, Launch, Limits};
use gaffer_core::name::{self, JobId, Slot};
use gaffer_core::queue::spec::By;
use gaffer_shim::message::{self, LimitFile, LimitGroup};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One file that a limit is said by.
struct Said {
    /// The key, `memory`; empty: it only goes with another one.
    key: &'static str,
    /// It is asked for; otherwise the text means no limit.
    asked: bool,
    controller: &'static str,
    /// v2: file, text, and the text that means no limit.
    v2: (&'static str, String, &'static str),
    /// The same of v1; none: it has no such limit.
    v1: Option<(&'static str, String, &'static str)>,
}

/// What is to be written for a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Planned {
    pub message: message::Limits,
    /// Keys that this host cannot enforce, and why.
    pub missing: Vec<String>,
}

/// Where limits go on this host. Found out controller by controller, when first asked for.
pub(crate) struct Host {
    /// Directory of the runs' own groups.
    base: Option<PathBuf>,
    /// Name of the node's directory below a controller of v1.
    name: String,
    /// Where a controller is.
    known: BTreeMap<&'static str, Place>,
    memory_total: u64,
}

/// Where a controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// In the runs' own groups.
    Own,
    /// Groups are made below this directory.
    Beside(PathBuf),
    Nowhere,
}

/// All controllers that a limit may need.
const CONTROLLERS: &[&str] = &["memory", "cpu", "pids", "cpuset", "io"];
const PERIOD_US: u64 = 100_000;

impl Host {
    /// Asks for nothing yet. `base` is where runs get their own groups.
    pub fn new(wanted: Containment, base: Option<PathBuf>, state_dir: &Path) -> Host {
        let nowhere = CONTROLLERS.iter().filter(|_| wanted == Containment::Off);
        Host {
            base,
            name: format!("gaffer-{}", node_id(state_dir)),
            known: nowhere.map(|controller| (*controller, Place::Nowhere)).collect(),
            memory_total: memory_total(),
        }
    }

    /// What says these limits, for a run to come.
    pub fn plan(&mut self, limits: &Limits) -> Planned {
        let said = self.said(limits);
        let asked = said.into_iter().filter(|one| one.asked).collect();
        self.files(limits, asked)
    }

    /// What says these limits to a run that was given others: what only those name is lifted.
    pub fn replan(&mut self, old: &Limits, new: &Limits) -> Planned {
        let before = self.said(old);
        let said = self.said(new).into_iter();
        let changed = said.filter(|one| {
            let had = |other: &Said| other.asked && other.v2.0 == one.v2.0;
            // To lift a list of processors means to name all there are: the next run has them.
            one.asked || (!one.v2.2.is_empty() && before.iter().any(had))
        });
        let changed = changed.collect();
        self.files(new, changed)
    }

    fn files(&mut self, limits: &Limits, said: Vec<Said>) -> Planned {
        let mut planned = Planned::default();
        planned.message.required = limits.required;
        let mut beside: BTreeMap<PathBuf, Vec<LimitFile>> = BTreeMap::new();
        for one in said {
            let place = self.place(one.controller);
            match (place, one.v1) {
                (Place::Own, _)
                    if self
                        .base
                        .as_ref()
                        .is_some_and(|base| base.join(one.v2.0).exists()) =>
                {
                    planned.message.own.push(file(one.v2.0, one.v2.1));
                }
                (Place::Beside(dir), Some((name, text, _))) if dir.join(name).exists() => {
                    beside.entry(dir).or_default().push(file(name, text));
                }
                _ if one.key.is_empty() || !one.asked => {}
                (Place::Own, _) => planned
                    .missing
                    .push(format!("limits.{}: this kernel has no {}", one.key, one.v2.0)),
                (Place::Beside(_), Some((name, ..))) => {
                    planned
                        .missing
                        .push(format!("limits.{}: this kernel has no {name}", one.key));
                }
                (Place::Beside(_), None) => {
                    let only = if one.key == "swap" {
                        " without limits.memory"
                    } else {
                        ""
                    };
                    let why = format!("limits.{}: cgroup v1 has no such limit{only}", one.key);
                    planned.missing.push(why);
                }
                (Place::Nowhere, _) => planned.missing.push(format!(
                    "limits.{}: no {} controller for runs here",
                    one.key, one.controller
                )),
            }
        }
        planned.message.groups = beside
            .into_iter()
            .map(|(dir, files)| LimitGroup {
                files: complete(&dir, files),
                dir: dir.to_string_lossy().into_owned(),
            })
            .collect();
        planned
    }

    /// Where a controller is; it is switched on there.
    fn place(&mut self, controller: &'static str) -> Place {
        // A directory that somebody removed while it was empty is made anew.
        let is_there = |place: &&Place| !matches!(place, Place::Beside(dir) if !dir.exists());
        if let Some(place) = self.known.get(controller).filter(is_there) {
            return place.clone();
        }
        let own = self
            .base
            .as_deref()
            .is_some_and(|base| switch_on(base, controller));
        let place = match own {
            true => Place::Own,
            false => beside(controller, &self.name).map_or(Place::Nowhere, Place::Beside),
        };
        self.known.insert(controller, place.clone());
        place
    }

    /// Removes groups beside the runs' own that hold nobody, of this life and earlier ones, but for those of `live` runs.
    pub fn sweep(&mut self, live: &HashSet<String>) {
        for controller in CONTROLLERS {
            if let Some(parent) = v1_parent(controller) {
                let base = parent.join(&self.name);
                crate::containment::sweep(&base, live);
                // Otherwise it is in use.
                if fs::remove_dir(&base).is_ok() {
                    self.known.remove(controller);
                }
            }
        }
    }

    /// All files there are, with what these limits write to them.
    fn said(&self, limits: &Limits) -> Vec<Said> {
        let mut list = self.memory(limits);
        list.extend(processors(limits));
        list.extend(disks(limits));
        for one in &mut list {
            one.asked = !one.v2.1.is_empty();
            if !one.asked {
                one.v2.1 = one.v2.2.to_owned();
                if let Some(v1) = &mut one.v1 {
                    v1.1 = v1.2.to_owned();
                }
            }
        }
        list
    }

    fn memory(&self, limits: &Limits) -> Vec<Said> {
        let bytes = |amount: Amount| match amount {
            Amount::Bytes(bytes) => bytes,
            Amount::Percent(share) => {
                u64::try_from(u128::from(self.memory_total) * u128::from(share) / 100).unwrap_or(u64::MAX)
            }
        };
        let text = |amount: Option<Amount>| amount.map_or_else(String::new, |one| bytes(one).to_string());
        // v1 counts memory and swap together.
        let both = match (limits.memory, limits.swap) {
            (Some(memory), Some(swap)) => {
                let sum = bytes(memory).saturating_add(bytes(swap)).to_string();
                Some(("memory.memsw.limit_in_bytes", sum, "-1"))
            }
            (None, Some(_)) => None,
            (_, None) => Some(("memory.memsw.limit_in_bytes", String::new(), "-1")),
        };
        let whole = limits.memory.is_some() && !limits.one_process;
        let memory = |key, v2, v1| Said {
            key,
            asked: false,
            controller: "memory",
            v2,
            v1,
        };
        vec![
            memory(
                "memory",
                ("memory.max", text(limits.memory), "max"),
                Some(("memory.limit_in_bytes", text(limits.memory), "-1")),
            ),
            memory(
                "memory_high",
                ("memory.high", text(limits.memory_high), "max"),
                None,
            ),
            memory("memory_low", ("memory.low", text(limits.memory_low), "0"), None),
            memory("swap", ("memory.swap.max", text(limits.swap), "max"), both),
            // v1 always kills one process: that is said in the documents, not of each run.
            memory(
                "",
                ("memory.oom.group", if whole { "1" } else { "" }.to_owned(), "0"),
                None,
            ),
        ]
    }
}

fn processors(limits: &Limits) -> Vec<Said> {
    let number = |value: Option<u32>| value.map_or_else(String::new, |value| value.to_string());
    let quota = limits.cpu.map(|share| PERIOD_US * u64::from(share) / 100);
    let list = |value: &Option<String>| value.clone().unwrap_or_default();
    vec![
        Said {
            key: "cpu",
            asked: false,
            controller: "cpu",
            v2: (
                "cpu.max",
                quota.map_or_else(String::new, |quota| format!("{quota} {PERIOD_US}")),
                "max 100000",
            ),
            v1: Some((
                "cpu.cfs_quota_us",
                quota.map_or_else(String::new, |quota| quota.to_string()),
                "-1",
            )),
        },
        Said {
            key: "cpu_weight",
            asked: false,
            controller: "cpu",
            v2: ("cpu.weight", number(limits.cpu_weight), "100"),
            v1: Some((
                "cpu.shares",
                // 100 and 1024 are the same, and 2 is the least.
                number(limits.cpu_weight.map(|weight| (weight * 1024 / 100).max(2))),
                "1024",
            )),
        },
        Said {
            key: "pids",
            asked: false,
            controller: "pids",
            v2: ("pids.max", number(limits.pids), "max"),
            v1: Some(("pids.max", number(limits.pids), "max")),
        },
        Said {
            key: "cpus",
            asked: false,
            controller: "cpuset",
            v2: ("cpuset.cpus", list(&limits.cpus), ""),
            v1: Some(("cpuset.cpus", list(&limits.cpus), "")),
        },
        Said {
            key: "mems",
            asked: false,
            controller: "cpuset",
            v2: ("cpuset.mems", list(&limits.mems), ""),
            v1: Some(("cpuset.mems", list(&limits.mems), "")),
        },
    ]
}

fn disks(limits: &Limits) -> Vec<Said> {
    let weight = limits
        .io_weight
        .map_or_else(String::new, |weight| format!("default {weight}"));
    let io = |key, v2| Said {
        key,
        asked: false,
        controller: "io",
        v2,
        v1: None,
    };
    let lines = limits
        .io
        .iter()
        .map(|line| io("io", ("io.max", line.clone(), "")));
    std::iter::once(io("io_weight", ("io.weight", weight, "default 100")))
        .chain(lines)
        .collect()
}

fn file(name: &str, text: String) -> LimitFile {
    LimitFile {
        name: name.to_owned(),
        text,
    }
}

/// Nobody may enter a group of v1 that has no processors or memory nodes: what is not limited is as above it.
fn complete(dir: &Path, mut files: Vec<LimitFile>) -> Vec<LimitFile> {
    if files.iter().any(|file| file.name.starts_with("cpuset.")) {
        for name in ["cpuset.cpus", "cpuset.mems"] {
            if !files.iter().any(|file| file.name == name) {
                let text = fs::read_to_string(dir.join(name)).unwrap_or_default();
                files.push(file(name, text.trim().to_owned()));
            }
        }
    }
    files
}

/// Lets the groups below `base` have a controller. False: they cannot.
fn switch_on(base: &Path, controller: &str) -> bool {
    let has = |dir: &Path, file: &str| {
        let list = fs::read_to_string(dir.join(file)).unwrap_or_default();
        list.split_ascii_whitespace().any(|word| word == controller)
    };
    // Fails where it must not be: then the list does not have it.
    let add = |dir: &Path| {
        drop(fs::write(
            dir.join("cgroup.subtree_control"),
            format!("+{controller}"),
        ))
    };
    if !has(base, "cgroup.controllers")
        && let Some(parent) = base.parent()
    {
        add(parent);
    }
    if !has(base, "cgroup.subtree_control") {
        add(base);
    }
    has(base, "cgroup.subtree_control")
}

/// The node's directory below a controller of v1, made.
fn beside(controller: &str, name: &str) -> Option<PathBuf> {
    let parent = v1_parent(controller)?;
    let dir = parent.join(name);
    match fs::create_dir(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return None,
        _ => {}
    }
    if controller == "cpuset" {
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let all = fs::read(parent.join(name)).ok()?;
            fs::write(dir.join(name), all).ok()?;
        }
    }
    // Not ours to write: a run could not be put there.
    let usable = rustix::fs::access(&dir, rustix::fs::Access::WRITE_OK).is_ok();
    usable.then_some(dir)
}

/// The daemon's own group of a controller of v1.
fn v1_parent(controller: &str) -> Option<PathBuf> {
    // v2 has another name for it, and none of its limits is the same.
    if controller == "io" {
        return None;
    }
    let listed = |list: &str| list.split(',').any(|word| word == controller);
    let (mount, ..) = mounts()
        .into_iter()
        .find(|(_, kind, options)| kind == "cgroup" && listed(options))?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        listed(names).then_some(path)
    })?;
    Some(mount.join(own.trim_start_matches('/')))
}

fn memory_total() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib.saturating_mul(1024))
}

/// Gives a live run other limits. The error names what was not taken.
pub(crate) fn rewrite(planned: &Planned, run: &str, own: Option<&Path>) -> Result<(), String> {
    let own_files = own.map(|own| (own.to_owned(), &planned.message.own));
    let groups = planned.message.groups.iter();
    let beside = groups.map(|group| (Path::new(&group.dir).join(run), &group.files));
    for (group, files) in own_files.into_iter().chain(beside) {
        if !group.is_dir() {
            return Err(format!("{} is not there", group.display()));
        }
        let write = |file: &&LimitFile| fs::write(group.join(&file.name), &file.text);
        // A limit within another can only be moved in the right order: what fails once is tried again after the rest.
        let failed: Vec<&LimitFile> = files.iter().filter(|file| write(file).is_err()).collect();
        for file in failed.into_iter().rev() {
            write(&file).map_err(|error| format!("{} = {}: {error}", file.name, file.text))?;
        }
    }
    Ok(())
}

impl State {
    /// Removes groups of runs that are over.
    pub(crate) fn sweep_groups(&self) {
        let runs = self.runs.runs.values();
        let live = runs.filter(|facts| !facts.is_over());
        let live = live.map(|facts| facts.run.to_string()).collect();
        if let Some(base) = &self.cgroup_base {
            crate::containment::sweep(base, &live);
        }
        self.host.borrow_mut().sweep(&live);
    }

    /// Limits that this host does not enforce, of all definitions in force: of whom, and which.
    pub(crate) fn unenforced(&self) -> Vec<(String, String)> {
        let jobs = self.jobs.iter();
        let jobs = jobs.map(|(id, meta)| (id.to_string(), meta.spec.launch.limits.clone()));
        let queues = self.queues.defined.iter().flat_map(|(id, defined)| {
            let works = std::iter::once(&defined.spec.work).chain(defined.spec.kinds.values());
            works.filter_map(move |work| match &work.by {
                By::Cmd(launch) => Some((format!("queue:{id}"), launch.limits.clone())),
                By::Others | By::Task(_) => None,
            })
        });
        let all = jobs.chain(queues).chain(self.limits_of_tasks());
        let mut host = self.host.borrow_mut();
        let missing = all.flat_map(|(who, limits)| {
            let missing = limits.map_or_else(Vec::new, |limits| host.plan(&limits).missing);
            missing.into_iter().map(move |one| (who.clone(), one))
        });
        let mut missing: Vec<_> = missing.collect();
        missing.dedup();
        missing
    }

    /// Gives the live runs of a job other limits. Where that cannot be done, the next ones have them.
    pub(crate) fn limit_again(&self, job: &JobId, old: Option<&JobMeta>, new: &Launch) {
        let Some(old) = old
            .map(|old| &old.spec.launch)
            .filter(|old| old.limits != new.limits)
        else {
            return;
        };
        let none = Limits::default();
        let (old, new) = (
            old.limits.as_deref().unwrap_or(&none),
            new.limits.as_deref().unwrap_or(&none),
        );
        let planned = self.host.borrow_mut().replan(old, new);
        for facts in self.runs.runs.values().filter(|facts| !facts.is_over()) {
            let slot = facts.slot.parse::<Slot>();
            if !slot.is_ok_and(|slot| slot.job == *job && matches!(slot.place, name::Place::Instance { .. }))
            {
                continue;
            }
            let run = facts.run.to_string();
            if let Err(why) = rewrite(&planned, &run, facts.cgroup.as_deref()) {
                tracing::warn!(%job, run, why, "a live run keeps its old limits; the next one has the new ones");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host whose groups have these files.
    fn host(v1: bool, files: &[&str]) -> (Host, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        for name in files {
            fs::write(dir.path().join(name), "").expect("a file");
        }
        let mut host = Host::new(Containment::Off, Some(dir.path().into()), Path::new("/nowhere"));
        host.memory_total = 1000 << 20;
        for found in host.known.values_mut() {
            *found = match v1 {
                true => Place::Beside(dir.path().into()),
                false => Place::Own,
            };
        }
        (host, dir)
    }

    const V2: [&str; 12] = [
        "memory.max",
        "memory.high",
        "memory.low",
        "memory.swap.max",
        "memory.oom.group",
        "cpu.max",
        "cpu.weight",
        "pids.max",
        "cpuset.cpus",
        "cpuset.mems",
        "io.weight",
        "io.max",
    ];

    fn everything() -> Limits {
        Limits {
            memory: Some(Amount::Percent(50)),
            memory_high: Some(Amount::Bytes(1)),
            memory_low: Some(Amount::Bytes(2)),
            swap: Some(Amount::Bytes(0)),
            cpu: Some(150),
            cpu_weight: Some(1),
            io_weight: Some(200),
            pids: Some(64),
            cpus: Some("0-3".to_owned()),
            mems: Some("0".to_owned()),
            io: vec!["8:0 rbps=1".to_owned()],
            one_process: false,
            required: true,
        }
    }

    fn texts(files: &[LimitFile]) -> Vec<String> {
        let texts = files.iter().map(|file| format!("{} = {}", file.name, file.text));
        texts.collect()
    }

    #[test]
    fn on_v2_every_limit_is_a_file_of_the_runs_own_group() {
        let planned = host(false, &V2).0.plan(&everything());
        let expected = [
            "memory.max = 524288000",
            "memory.high = 1",
            "memory.low = 2",
            "memory.swap.max = 0",
            "memory.oom.group = 1",
            "cpu.max = 150000 100000",
            "cpu.weight = 1",
            "pids.max = 64",
            "cpuset.cpus = 0-3",
            "cpuset.mems = 0",
            "io.weight = default 200",
            "io.max = 8:0 rbps=1",
        ];
        assert_eq!(texts(&planned.message.own), expected);
        assert_eq!(planned.message.groups, []);
        assert!(planned.message.required && planned.missing.is_empty());
    }

    #[test]
    fn on_v1_each_has_its_older_file_and_what_has_none_is_named() {
        let files = [
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "cpu.cfs_quota_us",
            "cpu.shares",
            "pids.max",
            "cpuset.cpus",
            "cpuset.mems",
        ];
        let (mut host, _dir) = host(true, &files);
        let planned = host.plan(&everything());
        let expected = [
            "memory.limit_in_bytes = 524288000",
            "memory.memsw.limit_in_bytes = 524288000",
            "cpu.cfs_quota_us = 150000",
            "cpu.shares = 10",
            "pids.max = 64",
            "cpuset.cpus = 0-3",
            "cpuset.mems = 0",
        ];
        assert_eq!(texts(&planned.message.groups[0].files), expected);
        assert_eq!(planned.message.own, []);
        let missing = |key: &str| format!("limits.{key}: cgroup v1 has no such limit");
        let keys = ["memory_high", "memory_low", "io_weight", "io"];
        assert_eq!(planned.missing, keys.map(missing));
    }

    #[test]
    fn a_limit_that_is_gone_is_lifted_and_one_that_never_was_is_not_touched() {
        let old = Limits {
            memory: Some(Amount::Bytes(1 << 30)),
            pids: Some(9),
            ..Limits::default()
        };
        let new = Limits {
            pids: Some(8),
            cpu: Some(50),
            ..Limits::default()
        };
        let (mut host, _dir) = host(false, &V2);
        let planned = host.replan(&old, &new);
        let expected = [
            "memory.max = max",
            "memory.oom.group = 0",
            "cpu.max = 50000 100000",
            "pids.max = 8",
        ];
        assert_eq!(texts(&planned.message.own), expected);
    }

    #[test]
    fn a_kernel_without_a_file_has_no_such_limit() {
        let (mut host, _dir) = host(true, &["memory.limit_in_bytes"]);
        let limits = Limits {
            memory: Some(Amount::Bytes(1 << 30)),
            swap: Some(Amount::Bytes(0)),
            ..Limits::default()
        };
        let planned = host.plan(&limits);
        assert_eq!(
            texts(&planned.message.groups[0].files),
            ["memory.limit_in_bytes = 1073741824"]
        );
        assert_eq!(
            planned.missing,
            ["limits.swap: this kernel has no memory.memsw.limit_in_bytes"]
        );
    }
}
