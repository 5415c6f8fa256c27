//! The table that heads each segment of the journal: last run of each slot and what is known of it.

use gaffer_shim::journal::{HeadEntry, Life, Record, RunIdWire};
use std::collections::HashMap;

/// Slots without a live run that are remembered.
const GONE_MAX: usize = 4096;

/// Follows the records.
#[derive(Default)]
pub struct Table {
    /// Boxed, as half of the table is empty.
    entries: HashMap<RunIdWire, Box<HeadEntry>>,
    by_slot: HashMap<Box<str>, RunIdWire>,
}

impl Table {
    /// All of it.
    pub fn entries(&self) -> Vec<HeadEntry> {
        self.entries.values().map(|entry| (**entry).clone()).collect()
    }

    /// A record was (or is being) appended.
    pub fn note(&mut self, record: &Record) {
        match record {
            Record::Head { entries, .. } => {
                for entry in entries {
                    self.insert(entry.clone());
                }
            }
            Record::Intent { .. } => self.intend(record),
            Record::Born { run, pid } => self.change(run, |entry| entry.pid = *pid),
            Record::Started { .. } => self.start(record),
            Record::Exited { run, survivors, .. } => {
                let life = if *survivors == 0 { Life::Gone } else { Life::Exited };
                self.change(run, |entry| entry.life = life);
            }
            Record::StartFailed { run, .. } | Record::TreeGone { run, .. } => {
                self.change(run, |entry| entry.life = Life::Gone);
            }
            Record::Dropped { .. } => {}
        }
    }

    fn intend(&mut self, record: &Record) {
        if let Record::Intent {
            run,
            slot,
            stamp,
            attempt,
            label,
            log_dir,
            cgroup,
            streams,
            ..
        } = record
        {
            self.insert(HeadEntry {
                run: *run,
                slot: slot.clone(),
                life: Life::Intended,
                stamp: *stamp,
                attempt: *attempt,
                pid: 0,
                start_ticks: 0,
                pidfd_inode: 0,
                cgroup: cgroup.clone(),
                started_wall_ms: 0,
                started_mono_ns: 0,
                label: label.clone(),
                log_dir: log_dir.clone(),
                streams: streams.clone(),
            });
            self.forget_some();
        }
    }

    fn start(&mut self, record: &Record) {
        if let Record::Started {
            run,
            pid,
            start_ticks,
            pidfd_inode,
            cgroup,
            wall_ms,
            mono_ns,
            ..
        } = record
        {
            self.change(run, |entry| {
                entry.life = Life::Alive;
                entry.pid = *pid;
                entry.start_ticks = *start_ticks;
                entry.pidfd_inode = *pidfd_inode;
                entry.cgroup.clone_from(cgroup);
                entry.started_wall_ms = *wall_ms;
                entry.started_mono_ns = *mono_ns;
            });
        }
    }

    fn insert(&mut self, entry: HeadEntry) {
        let run = entry.run;
        match self.by_slot.get_mut(entry.slot.as_str()) {
            Some(last) => {
                let before = std::mem::replace(last, run);
                self.entries.remove(&before);
            }
            None => {
                self.by_slot.insert(entry.slot.as_str().into(), run);
            }
        }
        self.entries.insert(run, Box::new(entry));
    }

    fn change(&mut self, run: &RunIdWire, how: impl FnOnce(&mut HeadEntry)) {
        if let Some(entry) = self.entries.get_mut(run) {
            how(entry);
        }
    }

    /// One-off slots come and go for ever; what is long over need not head every segment.
    fn forget_some(&mut self) {
        if self.by_slot.len() < GONE_MAX * 2 {
            return;
        }
        let over = self.entries.values().filter(|entry| entry.life == Life::Gone);
        let mut gone: Vec<RunIdWire> = over.map(|entry| entry.run).collect();
        gone.sort_unstable();
        let surplus = gone.len().saturating_sub(GONE_MAX);
        for run in &gone[..surplus] {
            if let Some(entry) = self.entries.remove(run) {
                self.by_slot.remove(entry.slot.as_str());
            }
        }
    }
}
