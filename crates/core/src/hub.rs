//! What all jobs of a node share: deadlines, the queue of those who want to start, the index of runs,
//! and what goes out. Everything here is ordered, so the same inputs give the same outputs.

use crate::instance::Seat;
use crate::instance::table::Phase;
use crate::io::{Actor, Output};
use crate::job::Job;
use crate::name::{Place, RunId};
use crate::reason::Zone;
use crate::retry::Dice;
use crate::time::{Duration, Mono, Now};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bounds and settings of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimits {
    /// `[gaffer] start_at_once`: starts that wait for a readiness probe at the same time. Starts without
    /// one are over as soon as the process exists and are not counted.
    pub start_at_once: u32,
    /// `[gaffer] start_spacing`: between the start of an instance of one job and that of another job. One-offs are asked
    /// for by somebody who waits, and do not.
    pub start_spacing: Duration,
    /// For the hours in reasons.
    pub zone: Zone,
}

impl Default for NodeLimits {
    fn default() -> NodeLimits {
        NodeLimits {
            start_at_once: 64,
            start_spacing: Duration::ZERO,
            zone: Zone::default(),
        }
    }
}

/// Number of a job in the node, by order of arrival.
pub(crate) type Key = u32;

/// Whose deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The pause between the starts of jobs is over.
    Node,
    /// A job's own: spacing of starts, end of a common pause.
    Job(Key),
    /// Of a seat.
    Seat(Key, Place),
}

/// Turn of one who wants to start: lower priority first, then by arrival of the job, then by number.
pub(crate) type Turn = (i32, Key, Place);

/// An orderly end under way.
#[derive(Clone, Debug)]
pub(crate) struct Shutdown {
    pub all: bool,
    pub by: Actor,
    pub done: bool,
    /// The node goes on, and wishes count again one day.
    pub drain: bool,
}

pub(crate) struct Hub {
    pub now: Now,
    pub limits: NodeLimits,
    pub out: Output,
    pub epoch: u32,
    pub runs_made: u32,
    pub dice: Dice,
    pub recovered: bool,
    pub shutdown: Option<Shutdown>,
    /// New jobs stay down: the node is drained, and by whom.
    pub drain: Option<Actor>,
    pub timers: BTreeSet<(Mono, Timer)>,
    pub runs: BTreeMap<RunId, (Key, Place)>,
    /// Those who may start now; apart those whose starts are bounded.
    pub queue: BTreeSet<Turn>,
    pub queue_bounded: BTreeSet<Turn>,
    /// Bounded starts in progress.
    pub starting: BTreeSet<(Key, Place)>,
    /// The job that started last, and when another one may.
    pub spaced: Option<(Key, Mono)>,
    /// Jobs whose view may have changed.
    pub touched: BTreeSet<Key>,
    /// Jobs of which an instance changed its state: conditions of others may have.
    pub moved: BTreeSet<Key>,
    /// For slots whose job nobody knows any more.
    pub bare: Arc<Job>,
}

impl Hub {
    pub fn next_run(&mut self) -> RunId {
        self.runs_made += 1;
        RunId {
            epoch: self.epoch,
            n: self.runs_made,
        }
    }

    /// Who may start next.
    pub fn next_turn(&mut self) -> Option<Turn> {
        if self.shutdown.is_some() || !self.recovered {
            return None;
        }
        let free = (self.starting.len() as u64) < u64::from(self.limits.start_at_once.max(1));
        let next = |queue: &BTreeSet<Turn>| queue.iter().find(|turn| !self.is_held(turn)).copied();
        let bounded = if free { next(&self.queue_bounded) } else { None };
        let turn = match (next(&self.queue), bounded) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        match turn {
            Some(turn) => self.dequeue(&turn),
            None => self.wake_after_pause(),
        }
        turn
    }

    /// Does the pause between jobs hold this one back?
    pub fn is_held(&self, turn: &Turn) -> bool {
        let (_, key, place) = turn;
        self.spaced
            .is_some_and(|(last, until)| last != *key && until > self.now.mono && place.number().is_some())
    }

    /// An instance starts. Only a change from one job to another begins a pause: a job that starts again and again
    /// must not keep the others out.
    pub fn note_start(&mut self, key: Key) {
        let spacing = self.limits.start_spacing;
        if !spacing.is_zero() && self.spaced.is_none_or(|(last, _)| last != key) {
            self.spaced = Some((key, self.now.mono.plus(spacing)));
        }
    }

    fn wake_after_pause(&mut self) {
        let waiting = !(self.queue.is_empty() && self.queue_bounded.is_empty());
        if let Some((_, until)) = self.spaced.filter(|(_, until)| waiting && *until > self.now.mono) {
            self.timers.insert((until, Timer::Node));
        }
    }

    pub fn dequeue(&mut self, turn: &Turn) {
        if !self.queue.remove(turn) {
            self.queue_bounded.remove(turn);
        }
    }

    /// Brings the indexes up to date with a seat that made a step.
    pub fn index(&mut self, key: Key, seat: &mut Seat, run_before: Option<RunId>, bounded: bool) {
        let run = seat.run();
        if run != run_before {
            if let Some(run) = run_before {
                self.runs.remove(&run);
            }
            if let Some(run) = run {
                self.runs.insert(run, (key, seat.place));
            }
        }
        let due = seat.due();
        if due != seat.armed {
            if let Some(at) = seat.armed {
                self.timers.remove(&(at, Timer::Seat(key, seat.place)));
            }
            if let Some(at) = due {
                self.timers.insert((at, Timer::Seat(key, seat.place)));
            }
            seat.armed = due;
        }
        if bounded && seat.phase() == Phase::Starting {
            self.starting.insert((key, seat.place));
        } else {
            self.starting.remove(&(key, seat.place));
        }
        self.touched.insert(key);
    }
}
