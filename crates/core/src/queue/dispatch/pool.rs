//! Queues that share workers.
//!
//! A pool has as many workers as the one of its queues with the most; each queue keeps its own bound beside that. A worker that
//! becomes free goes to a queue that has something to do, by turns in proportion to `weight` (smooth weighted round robin): what a queue
//! could not use is not saved for later, so that one that was empty for an hour does not take all workers afterwards.

use super::{Dispatch, Lane};
use crate::queue::spec::QueueId;
use crate::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A pool as a queue of it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: Arc<str>,
    /// Tasks at once on this node, over all its queues.
    pub workers: u32,
    /// Tasks that its workers have, and those that are just being claimed for them.
    pub busy: u32,
}

impl Lane {
    fn taken(&self) -> u32 {
        let tasks = self.seats.len() + self.ahead.len();
        let tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
        tasks.saturating_add(self.asked).saturating_add(self.kept)
    }
}

/// A queue whose turn it may be.
struct Turn {
    queue: QueueId,
    weight: i64,
    /// How many it can take.
    most: u32,
    /// The store has not answered yet: what is its turn is kept for it.
    waits: bool,
    granted: u32,
}

impl Dispatch {
    /// The pool of a queue.
    pub fn pool(&self, queue: &QueueId) -> Option<Pool> {
        let name = self.lanes.get(queue)?.spec.pool.clone()?;
        let mut pool = Pool {
            name: name.clone(),
            workers: 0,
            busy: 0,
        };
        for lane in self.members(queue, &name).map(|(_, lane)| lane) {
            pool.busy = pool.busy.saturating_add(lane.taken());
            if !lane.removed {
                pool.workers = pool.workers.max(lane.spec.workers);
            }
        }
        Some(pool)
    }

    fn members<'a>(
        &'a self,
        queue: &'a QueueId,
        pool: &'a Arc<str>,
    ) -> impl Iterator<Item = (&'a QueueId, &'a Lane)> {
        let is_of = |(id, lane): &(&QueueId, &Lane)| {
            id.session == queue.session && lane.spec.pool.as_ref() == Some(pool)
        };
        self.lanes.iter().filter(is_of)
    }

    /// Leaves of what queues could take what their pools have for them.
    pub(super) fn share(&mut self, wanted: &mut BTreeMap<QueueId, u32>) {
        for (id, lane) in &mut self.lanes {
            if lane.asked == 0 && !wanted.contains_key(id) {
                lane.kept = 0;
            }
        }
        let mut seen: BTreeSet<QueueId> = BTreeSet::new();
        for queue in wanted.keys().cloned().collect::<Vec<_>>() {
            let Some(pool) = self.pool(&queue).filter(|_| !seen.contains(&queue)) else {
                continue;
            };
            let mut turns: Vec<Turn> = self
                .members(&queue, &pool.name)
                .filter_map(|(id, lane)| {
                    let most = wanted.get(id).copied();
                    let free = lane.spec.workers.saturating_sub(lane.taken());
                    let turn = |most, waits| Turn {
                        queue: id.clone(),
                        weight: i64::from(lane.spec.weight),
                        most,
                        waits,
                        granted: 0,
                    };
                    let hungry = lane.asked > 0 && !lane.removed && !lane.paused;
                    most.map(|most| turn(most, false))
                        .or(hungry.then(|| turn(free, true)))
                })
                .collect();
            self.take_turns(&mut turns, pool.workers.saturating_sub(pool.busy));
            for turn in turns.into_iter().filter(|turn| !turn.waits) {
                wanted.insert(turn.queue.clone(), turn.granted);
                seen.insert(turn.queue);
            }
        }
    }

    /// Gives free workers to those that want some, one by one; first those that were kept.
    fn take_turns(&mut self, turns: &mut [Turn], mut free: u32) {
        for turn in turns.iter_mut().filter(|turn| !turn.waits) {
            let Some(lane) = self.lanes.get_mut(&turn.queue) else {
                continue;
            };
            let kept = std::mem::take(&mut lane.kept);
            turn.granted = kept.min(turn.most);
            free += kept - turn.granted;
        }
        for _ in 0..free {
            let mut best: Option<(i64, usize)> = None;
            let mut total = 0;
            for (place, turn) in turns.iter().enumerate() {
                let Some(lane) = self
                    .lanes
                    .get_mut(&turn.queue)
                    .filter(|_| turn.granted < turn.most)
                else {
                    continue;
                };
                total += turn.weight;
                lane.credit += turn.weight;
                if best.is_none_or(|(credit, _)| lane.credit > credit) {
                    best = Some((lane.credit, place));
                }
            }
            let Some((_, place)) = best else { break };
            let turn = &mut turns[place];
            turn.granted += 1;
            if let Some(lane) = self.lanes.get_mut(&turn.queue) {
                lane.credit -= total;
                lane.kept += u32::from(turn.waits);
            }
        }
    }

    /// Remembers since when a worker is free: one of the queue's own, and of its pool.
    pub(super) fn note_free(&mut self, now: Mono) {
        let full: BTreeSet<QueueId> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.spec.pool.is_some())
            .filter(|(id, _)| self.pool(id).is_some_and(|pool| pool.busy >= pool.workers))
            .map(|(id, _)| id.clone())
            .collect();
        for (id, lane) in &mut self.lanes {
            let is_free = lane.has_free() && !full.contains(id);
            lane.free_since = is_free.then(|| lane.free_since.unwrap_or(now));
        }
    }
}
