//! Small process numbers: what people type (`17`) and what the API of the original calls `pid`.
//!
//! A run's number is *derived*, not handed out: `base(epoch) + n`, where `n` is the count in its [`RunId`]. So it costs
//! nothing on the way to a new run, is known before the run is born, needs no table, and a daemon that comes back after a
//! SIGKILL finds the same numbers for the runs it adopts, because their ids are in the journals. Numbers grow from 1, one
//! count for all jobs and one-offs, and are never given twice; a start that came to nothing leaves a gap.
//!
//! Only the base of each epoch is kept: one synced commit at a daemon's start, before it may start anything. It lies above
//! every run that the store or a journal knows: the store keeps the highest settled count of each epoch with the settled
//! deaths themselves, and runs that are not settled are in journals. Where a shim is silent its journal may still grow by
//! starts that the daemon before asked for, and room is left for those.

use crate::facts::Fold;
use crate::store::Change;
use gaffer_core::name::RunId;
use std::collections::{BTreeMap, BTreeSet};

/// Room for the starts that a silent shim may still have in its socket.
const SILENT_ROOM: u64 = 10_000;

/// Bases by epoch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pids {
    bases: BTreeMap<u32, u64>,
}

/// What the store knows of earlier daemons.
#[derive(Clone, Debug, Default)]
pub struct PidsKept {
    /// Base of each epoch.
    pub bases: BTreeMap<u32, u64>,
    /// Highest settled count of each epoch.
    pub highest: BTreeMap<u32, u32>,
}

impl Pids {
    /// Bases for every epoch that left something, and for this one; with what is to be committed before anything starts.
    pub fn begin<'a>(
        epoch: u32,
        kept: &PidsKept,
        folds: impl Iterator<Item = &'a Fold>,
        silent: bool,
    ) -> (Pids, Change) {
        let mut highest = kept.highest.clone();
        let mut live = BTreeSet::from([epoch]);
        for run in folds.flat_map(|fold| fold.runs.keys()) {
            live.insert(run.epoch);
            let most = highest.entry(run.epoch).or_default();
            *most = run.n.max(*most);
        }
        highest.entry(epoch).or_default();
        for epoch in kept.bases.keys() {
            highest.entry(*epoch).or_default();
        }
        let (mut bases, mut new, mut next) = (BTreeMap::new(), Vec::new(), 0u64);
        for (one, most) in highest {
            let base = match kept.bases.get(&one) {
                Some(base) => *base,
                None => {
                    let room = if one == epoch && silent { SILENT_ROOM } else { 0 };
                    new.push((one, next + room));
                    next + room
                }
            };
            bases.insert(one, base);
            next = next.max(base + u64::from(most));
        }
        // The base of this epoch lies above theirs.
        let forget = bases.keys().filter(|one| !live.contains(one)).copied().collect();
        bases.retain(|one, _| live.contains(one));
        new.retain(|(one, _)| live.contains(one));
        (Pids { bases }, Change::Pids { bases: new, forget })
    }

    /// The number of a run.
    pub fn of(&self, run: RunId) -> u64 {
        let base = self.bases.range(..=run.epoch).next_back();
        base.map_or(0, |(_, base)| *base) + u64::from(run.n)
    }

    /// The run that has a number, if there was one. None: no run can have it.
    pub fn run(&self, pid: u64) -> Option<RunId> {
        let (epoch, base) = self.bases.iter().rev().find(|(_, base)| **base < pid)?;
        let n = u32::try_from(pid - base).ok()?;
        Some(RunId { epoch: *epoch, n })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::RunFacts;

    fn fold(runs: &[(u32, u32)]) -> Fold {
        let mut fold = Fold::default();
        for &(epoch, n) in runs {
            let run = RunId { epoch, n };
            let facts = RunFacts::begin(run, "default.a.1", [0, 0], 1, 1);
            fold.runs.insert(run, Box::new(facts));
        }
        fold
    }

    fn kept(bases: &[(u32, u64)], highest: &[(u32, u32)]) -> PidsKept {
        PidsKept {
            bases: bases.iter().copied().collect(),
            highest: highest.iter().copied().collect(),
        }
    }

    fn committed(change: &Change) -> (Vec<(u32, u64)>, Vec<u32>) {
        match change {
            Change::Pids { bases, forget } => (bases.clone(), forget.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_begin_at_one_and_both_ways_agree() {
        let (pids, change) = Pids::begin(1, &PidsKept::default(), std::iter::empty(), false);
        assert_eq!(committed(&change), (vec![(1, 0)], vec![]));
        assert_eq!(pids.of(RunId { epoch: 1, n: 1 }), 1);
        assert_eq!(pids.run(7), Some(RunId { epoch: 1, n: 7 }));
        assert_eq!(pids.run(0), None);
    }

    #[test]
    fn a_new_daemon_counts_on_above_what_lives_and_what_has_ended() {
        let seen = [fold(&[(1, 3), (1, 5)])];
        let (pids, change) = Pids::begin(2, &kept(&[(1, 0)], &[(1, 4)]), seen.iter(), false);
        assert_eq!(committed(&change), (vec![(2, 5)], vec![]));
        assert_eq!(pids.of(RunId { epoch: 1, n: 3 }), 3);
        assert_eq!(pids.of(RunId { epoch: 2, n: 1 }), 6);
        assert_eq!(pids.run(5), Some(RunId { epoch: 1, n: 5 }));
        assert_eq!(pids.run(6), Some(RunId { epoch: 2, n: 1 }));
        let (pids, _) = Pids::begin(2, &kept(&[(1, 0)], &[(1, 40)]), seen.iter(), false);
        assert_eq!(pids.of(RunId { epoch: 2, n: 1 }), 41, "settled deaths count too");
    }

    #[test]
    fn a_base_once_kept_stays_and_what_has_nothing_alive_is_forgotten() {
        let bases = kept(&[(1, 0), (2, 50), (3, 90)], &[(3, 2)]);
        let seen = [fold(&[(2, 1)])];
        let (pids, change) = Pids::begin(4, &bases, seen.iter(), false);
        assert_eq!(committed(&change), (vec![(4, 92)], vec![1, 3]));
        assert_eq!(pids.of(RunId { epoch: 2, n: 1 }), 51);
        // Epochs from before numbers were kept do not share them.
        let seen = [fold(&[(1, 9), (3, 9)])];
        let (pids, _) = Pids::begin(5, &PidsKept::default(), seen.iter(), false);
        let numbers = [(1, 9), (3, 9), (5, 1)].map(|(epoch, n)| pids.of(RunId { epoch, n }));
        assert_eq!(numbers, [9, 18, 19]);
    }

    #[test]
    fn a_silent_shim_leaves_room() {
        let seen = [fold(&[(1, 9)])];
        let (pids, _) = Pids::begin(2, &kept(&[(1, 0)], &[]), seen.iter(), true);
        assert_eq!(pids.of(RunId { epoch: 2, n: 1 }), 10_010);
        assert_eq!(pids.run(12), Some(RunId { epoch: 1, n: 12 }));
    }
}
