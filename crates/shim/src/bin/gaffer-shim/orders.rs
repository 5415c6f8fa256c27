//! Standing orders: what follows the end of a run without asking anybody.
//!
//! The daemon decided beforehand; nothing is chosen here. An order is good for one end of the run it stands
//! beside, and void as soon as anything else is said about that run. It is carried out only when nothing is left
//! of the run's tree: then `Exited`, which names the successor, and the successor's `Intent` are one append, and the
//! disk thread wakes a spawner. Otherwise `Exited` names none, and whoever reads that decides.

use crate::control::{Control, Live, Phase};
use crate::disk::DiskJob;
use crate::requests::nonsense;
use crate::runs::cost;
use crate::spawner::{InFlight, SpawnJob, own_cgroup};
use gaffer_shim::journal::RunIdWire;
use gaffer_shim::message::Spawn;
use std::sync::Arc;

impl Control {
    /// Keeps an order. One for a run that has ended comes too late, and its end says so.
    pub fn on_stand(&mut self, spawn: Box<Spawn>) {
        let Some(run) = spawn.after else { return };
        self.void(run);
        let key = self.keys.get(&run).copied();
        let Some(live) = key.and_then(|key| self.runs.get_mut(&key)) else {
            return;
        };
        let lives = matches!(live.phase, Phase::Alive | Phase::Starting(_));
        if !lives
            || live.slot != spawn.slot
            || self.keys.contains_key(&spawn.run)
            || nonsense(&spawn).is_some()
        {
            return;
        }
        let cgroup = own_cgroup(&spawn);
        live.order = Some(spawn);
        if let Some(path) = cgroup {
            // Made while nobody waits for it.
            self.disk.send(DiskJob::MakeCgroup { path });
        }
    }

    /// The order beside this run is void.
    pub fn void(&mut self, run: RunIdWire) {
        let key = self.keys.get(&run).copied();
        let order = key
            .and_then(|key| self.runs.get_mut(&key))
            .and_then(|live| live.order.take());
        self.drop_order(order.as_deref());
    }

    /// Orders of runs that log there are void.
    pub fn void_in(&mut self, log_dir: &str) {
        let runs: Vec<RunIdWire> = self
            .runs
            .values()
            .filter(|live| live.order.is_some() && live.log_dir == log_dir)
            .map(|live| live.run)
            .collect();
        for run in runs {
            self.void(run);
        }
    }

    /// All orders are void.
    pub fn void_all(&mut self) {
        for run in self.keys.keys().copied().collect::<Vec<_>>() {
            self.void(run);
        }
    }

    /// Nobody will be born in its cgroup.
    pub fn drop_order(&self, order: Option<&Spawn>) {
        if let Some(cgroup) = order.and_then(own_cgroup) {
            self.disk.send(DiskJob::Sweep { cgroup });
        }
    }

    /// The run has ended: its order, ready for the disk thread, if there is room for it.
    pub fn take_order(&mut self, key: u64) -> Option<Box<SpawnJob>> {
        let live = self.runs.get_mut(&key)?;
        let spawn = live.order.take()?;
        if self.leaving || self.stopping || self.used + cost(&spawn) > self.nofile {
            self.drop_order(Some(&spawn));
            return None;
        }
        let inflight = Arc::new(InFlight::default());
        let next = Box::new(Live::starting(&spawn, inflight.clone()));
        self.used += next.cost;
        self.next_key += 1;
        let next_key = self.next_key;
        live.next = Some((next_key, next));
        Some(Box::new(SpawnJob {
            key: next_key,
            spawn,
            inflight,
            begins: [0; 2],
        }))
    }

    /// The end of a run is on file, with or without its successor.
    pub fn end_order(&mut self, key: u64, succeeded: bool) {
        let next = self.runs.get_mut(&key).and_then(|live| live.next.take());
        let Some((next_key, next)) = next else { return };
        if succeeded {
            self.begin(next_key, next);
        } else {
            self.used -= next.cost;
        }
    }
}
