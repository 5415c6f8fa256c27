//! What a journal says of runs: records folded to one picture per run.
//!
//! The same fold serves recovery (a whole journal) and live reading (one record after the other).

use gaffer_core::io::{End, Status};
use gaffer_core::name::RunId;
use gaffer_core::time::{Duration, Mono, Wall};
use gaffer_shim::journal::{self, HeadEntry, Life, Position, Reader, Record, Usage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::info::Rusage;
use crate::shims::unwire;

/// A run, as far as its journal goes.
#[derive(Clone, Debug)]
pub(crate) struct RunFacts {
    pub run: RunId,
    /// Slot text, as given to the shim.
    pub slot: String,
    pub stamp: [u64; 2],
    pub attempt: u32,
    pub pid: u32,
    pub start_ticks: u64,
    /// Of its pidfd; 0: not known.
    pub pidfd_inode: u64,
    pub cgroup: Option<PathBuf>,
    pub started: Option<(Wall, Mono)>,
    pub out: (u64, Option<u64>),
    pub err: (u64, Option<u64>),
    pub born: bool,
    /// Boxed, as those that live have neither.
    pub failed: Option<Box<StartFailure>>,
    pub exit: Option<Box<Exit>>,
    pub gone: bool,
    /// The shim that has it.
    pub shim: u64,
    /// Ports chosen at its start (`name=port,…`), kept in the shim's opaque label.
    pub label: String,
    /// Its `Intent` is on file.
    pub intended: bool,
    /// Its death is in the history.
    pub settled: bool,
}

/// A start that failed before the program ran.
#[derive(Clone, Debug)]
pub(crate) struct StartFailure {
    pub stage: String,
    pub errno: i32,
    pub text: String,
    pub at: Wall,
}

/// The end of a main process.
#[derive(Clone, Debug)]
pub(crate) struct Exit {
    pub status: Status,
    pub rusage: Rusage,
    pub oom: bool,
    pub survivors: u32,
    pub at: Wall,
    pub mono: Mono,
}

impl Exit {
    /// Of a run that is gone, and nobody can tell how.
    pub fn unseen() -> Exit {
        Exit {
            status: Status::Unknown,
            rusage: Rusage::default(),
            oom: false,
            survivors: 0,
            at: crate::clock::wall(),
            mono: crate::clock::mono(),
        }
    }
}

impl RunFacts {
    pub fn begin(run: RunId, slot: &str, stamp: [u64; 2], attempt: u32, shim: u64) -> RunFacts {
        RunFacts {
            run,
            slot: slot.to_owned(),
            stamp,
            attempt,
            pid: 0,
            start_ticks: 0,
            pidfd_inode: 0,
            cgroup: None,
            started: None,
            out: (0, None),
            err: (0, None),
            born: false,
            failed: None,
            exit: None,
            gone: false,
            shim,
            label: String::new(),
            intended: false,
            settled: false,
        }
    }

    fn from_head(entry: &HeadEntry, shim: u64) -> RunFacts {
        let mut facts = RunFacts::begin(unwire(entry.run), &entry.slot, entry.stamp, entry.attempt, shim);
        facts.intended = true;
        facts.label = entry.label.clone();
        facts.pid = entry.pid;
        facts.start_ticks = entry.start_ticks;
        facts.pidfd_inode = entry.pidfd_inode;
        facts.cgroup = entry.cgroup.as_ref().map(PathBuf::from);
        facts.born = entry.pid != 0;
        if entry.started_mono_ns != 0 {
            facts.started = Some((Wall(entry.started_wall_ms), Mono(entry.started_mono_ns)));
        }
        facts.gone = entry.life == Life::Gone;
        facts
    }

    /// Over, and nothing of it left.
    pub fn is_over(&self) -> bool {
        self.failed.is_some() || self.gone
    }

    /// How it ended, for the core.
    pub fn end(&self) -> Option<End> {
        let exit = self.exit.as_ref()?;
        let lived = self
            .started
            .map_or(0, |(_, started)| exit.mono.0.saturating_sub(started.0));
        Some(End {
            status: exit.status,
            oom: exit.oom,
            at: exit.at,
            lived: Duration::from_nanos(lived),
        })
    }
}

/// Runs of a journal, by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fold {
    /// Boxed: a map's nodes are half empty, and a thousand runs should not pay for that twice.
    pub runs: BTreeMap<RunId, Box<RunFacts>>,
}

impl Fold {
    /// Takes one record in. Returns the run it is about; `None` for heads and records of unknown runs.
    pub fn take(&mut self, shim: u64, record: &Record) -> Option<RunId> {
        match record {
            Record::Head { entries, .. } => {
                for entry in entries {
                    // What is known from its own records is more than the head says.
                    self.runs
                        .entry(unwire(entry.run))
                        .or_insert_with(|| Box::new(RunFacts::from_head(entry, shim)));
                }
                None
            }
            Record::Intent {
                run,
                slot,
                stamp,
                attempt,
                out_offset,
                err_offset,
                cgroup,
                label,
                ..
            } => {
                let mut facts = RunFacts::begin(unwire(*run), slot, *stamp, *attempt, shim);
                facts.intended = true;
                facts.label = label.clone();
                facts.out.0 = *out_offset;
                facts.err.0 = *err_offset;
                facts.cgroup = cgroup.as_ref().map(PathBuf::from);
                self.runs.insert(facts.run, Box::new(facts));
                Some(unwire(*run))
            }
            Record::Born { run, pid } => self.with(*run, |facts| {
                facts.born = true;
                facts.pid = *pid;
            }),
            Record::Started { .. } => self.started(record),
            Record::StartFailed {
                run,
                stage,
                errno,
                text,
                wall_ms,
                ..
            } => self.with(*run, |facts| {
                facts.failed = Some(Box::new(StartFailure {
                    stage: stage.clone(),
                    errno: *errno,
                    text: text.clone(),
                    at: Wall(*wall_ms),
                }));
            }),
            Record::Exited { .. } => self.exited(record),
            Record::TreeGone { run, .. } => self.with(*run, |facts| facts.gone = true),
            Record::Dropped { run, .. } => self.with(*run, |_| {}),
        }
    }

    fn started(&mut self, record: &Record) -> Option<RunId> {
        let Record::Started {
            run,
            pid,
            start_ticks,
            pidfd_inode,
            cgroup,
            wall_ms,
            mono_ns,
            ..
        } = record
        else {
            return None;
        };
        self.with(*run, |facts| {
            facts.born = true;
            facts.pid = *pid;
            facts.start_ticks = *start_ticks;
            facts.pidfd_inode = *pidfd_inode;
            facts.cgroup = cgroup.as_ref().map(PathBuf::from);
            facts.started = Some((Wall(*wall_ms), Mono(*mono_ns)));
        })
    }

    fn exited(&mut self, record: &Record) -> Option<RunId> {
        let Record::Exited {
            run,
            status,
            rusage,
            oom,
            survivors,
            out_offset,
            err_offset,
            wall_ms,
            mono_ns,
            ..
        } = record
        else {
            return None;
        };
        self.with(*run, |facts| {
            // The shim and, after its death, the guard may both have seen it: the first word counts.
            if facts.exit.is_some() {
                return;
            }
            facts.exit = Some(Box::new(Exit {
                status: status_of(*status),
                rusage: usage(rusage),
                oom: *oom,
                survivors: *survivors,
                at: Wall(*wall_ms),
                mono: Mono(*mono_ns),
            }));
            facts.out.1 = Some(*out_offset);
            facts.err.1 = Some(*err_offset);
            facts.gone = *survivors == 0;
        })
    }

    /// A standing order was carried out: the core hears of its run now, and may have something to say about it, before its
    /// `Intent`, the next record, is read.
    pub fn expect_successor(&mut self, shim: u64, record: &Record) {
        let Record::Exited {
            run,
            successor: Some(next),
            ..
        } = record
        else {
            return;
        };
        let (run, next_run) = (unwire(*run), unwire(next.run));
        if let (Some(before), false) = (self.runs.get(&run), self.runs.contains_key(&next_run)) {
            let facts = RunFacts::begin(next_run, &before.slot, next.stamp, before.attempt + 1, shim);
            self.runs.insert(next_run, Box::new(facts));
        }
    }

    fn with(&mut self, run: journal::RunIdWire, change: impl FnOnce(&mut RunFacts)) -> Option<RunId> {
        let run = unwire(run);
        change(self.runs.get_mut(&run)?);
        Some(run)
    }
}

/// The cgroups that a shim's journal speaks of.
pub(crate) fn groups(dir: &Path) -> Vec<PathBuf> {
    let mut fold = Fold::default();
    if let Ok(mut reader) = Reader::open(dir, Position::default()) {
        while let Ok(Some((record, _))) = reader.read_next() {
            fold.take(0, &record);
        }
    }
    let groups = fold.runs.into_values().filter_map(|facts| facts.cgroup);
    groups.collect()
}

fn status_of(status: journal::Status) -> Status {
    match status {
        journal::Status::Code(code) => Status::Code(code),
        journal::Status::Signal(signal, core) => Status::Signal(signal, core),
        journal::Status::Unknown => Status::Unknown,
    }
}

fn usage(usage: &Usage) -> Rusage {
    Rusage {
        user_us: usage.utime_us,
        system_us: usage.stime_us,
        max_rss_kib: usage.maxrss_kb,
        minor_faults: usage.minflt,
        major_faults: usage.majflt,
        blocks_in: usage.inblock,
        blocks_out: usage.oublock,
    }
}
