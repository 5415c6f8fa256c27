//! Schedules: which ticks of a calendar are acted upon, which were missed, and when to look again.
//!
//! A *tick* is a time at which a schedule wants something done. Ticks are dealt with in their order, each once: [`look`] says what
//! is to be done with all of them up to now, and whoever does it keeps [`Look::seen`] with what was done.
//!
//! **On time or missed.** The newest tick is on time for [`ON_TIME`] after it is due, so that a daemon that was killed just before it
//! still acts when it is back. Everything else that was not seen when it came was *missed*: the node was down, the schedule was
//! paused, the machine slept, the clock was set.

use crate::name::JobId;
use crate::queue::spec::QueueId;
use crate::time::{Duration, Wall};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The newest tick counts as on time for so long.
pub const ON_TIME: Duration = Duration::from_secs(10);
/// Missed ticks are counted up to this.
pub const COUNT_MAX: usize = 1_000;
/// Ticks that are further in the future than this were dealt with under a clock that was wrong.
const CLOCK_BACK: Duration = Duration::from_secs(3_600);

/// A schedule without its calendar.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// What a tick does.
    pub does: Does,
    /// What becomes of missed ticks.
    pub missed: Missed,
    /// At most so many are made up for, the newest ones (`missed = "all"`).
    pub missed_max: u32,
    /// What a tick does while what the one before it began goes on.
    pub overlap: Overlap,
    /// Ticks are delayed by up to this, each by its own share.
    pub jitter: Duration,
    /// Of all nodes that share a store, one acts.
    pub fleet: bool,
    /// It is not paused from the beginning.
    pub start: bool,
}

/// What a tick does.
#[derive(Clone, Debug, PartialEq)]
pub enum Does {
    /// Puts a task into a queue.
    Push {
        /// Where.
        queue: QueueId,
        /// What is to be done.
        kind: Option<Arc<str>>,
        /// JSON.
        payload: Arc<str>,
    },
    /// Starts a run of a task (a DAG of steps).
    Task {
        /// Which.
        task: JobId,
        /// Values of its parameters.
        params: BTreeMap<String, String>,
    },
    /// Does something to a job.
    Job {
        /// Which.
        job: JobId,
        /// What.
        action: JobAction,
    },
}

/// What is done to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobAction {
    /// New runs.
    Restart,
    /// New runs, one after the other.
    Reload,
    /// Wish it up.
    Start,
    /// Wish it down.
    Stop,
    /// One more run, beside the instances.
    Run,
}

impl JobAction {
    /// `restart reload start stop run`.
    pub fn word(self) -> &'static str {
        match self {
            JobAction::Restart => "restart",
            JobAction::Reload => "reload",
            JobAction::Start => "start",
            JobAction::Stop => "stop",
            JobAction::Run => "run",
        }
    }
}

/// What becomes of missed ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// Nothing.
    Skip,
    /// The newest one is made up for.
    Last,
    /// All of them are, up to `missed_max`.
    All,
}

/// What a tick does while what the one before it began goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// Nothing, and that is recorded.
    Skip,
    /// The same as always.
    Allow,
    /// It waits for the other's end; one waits, further ones are skipped.
    Queue,
    /// The other is ended first.
    Replace,
}

/// A calendar.
pub trait Ticks {
    /// The first tick after this time; none: there will be none.
    fn next(&self, after: Wall) -> Option<Wall>;
}

/// What was dealt with so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// All ticks up to this one.
    pub tick: Wall,
    /// Nothing was to be done until then: the end of a pause.
    pub awake: Option<Wall>,
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Ticks to act upon, oldest first.
    pub fire: Vec<Wall>,
    /// Ticks that are given up.
    pub skipped: Option<Skipped>,
    /// All ticks up to this one are dealt with then.
    pub seen: Wall,
    /// When to look again; none: never.
    pub next: Option<Wall>,
}

/// Ticks that are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// How many; [`COUNT_MAX`] or a little more stands for any number above.
    pub count: usize,
    /// The oldest of those that were counted.
    pub first: Wall,
    /// The newest.
    pub last: Wall,
}

/// What is to be done with the ticks that have come. `name`, of the schedule and its node, is what spreads them with `jitter`.
pub fn look(name: &str, schedule: &Schedule, ticks: &dyn Ticks, seen: Seen, now: Wall) -> Look {
    let mut from = seen.tick;
    if from > now.plus(CLOCK_BACK) {
        // It was seen under a clock that was far ahead: waiting for that time would be silence for years.
        from = now;
    }
    let due = |tick: Wall| tick.plus(delay(name, tick, schedule.jitter));
    let keep = COUNT_MAX.max(schedule.missed_max as usize);
    let come = newest(ticks, from, now, keep);
    let ready: Vec<Wall> = come.into_iter().take_while(|tick| due(*tick) <= now).collect();
    let newest = ready.last().copied();
    let next = ticks.next(newest.unwrap_or(from)).map(due);
    let on_time = newest.filter(|tick| {
        // One that is yet to come was noted under a clock that was ahead.
        let awake = seen.awake.filter(|awake| *awake <= now);
        let awake = awake.is_none_or(|awake| *tick > awake);
        awake && now.since(due(*tick)) <= ON_TIME
    });
    let missed = &ready[..ready.len() - usize::from(on_time.is_some())];
    let made_up = match schedule.missed {
        Missed::Skip => 0,
        // One on time does for them.
        Missed::Last => usize::from(on_time.is_none()),
        Missed::All => schedule.missed_max as usize,
    };
    let (skipped, made_up) = missed.split_at(missed.len().saturating_sub(made_up));
    Look {
        fire: made_up.iter().copied().chain(on_time).collect(),
        skipped: skipped.first().zip(skipped.last()).map(|(first, last)| Skipped {
            count: skipped.len(),
            first: *first,
            last: *last,
        }),
        seen: newest.unwrap_or(from),
        next,
    }
}

/// The newest ticks after `from` up to `now`, oldest first, at most `keep`. A calendar only looks forward: what came last is looked for in
/// ever longer times before now.
fn newest(ticks: &dyn Ticks, from: Wall, now: Wall, keep: usize) -> Vec<Wall> {
    let mut back = 60_000i64;
    loop {
        let begin = Wall(from.0.max(now.0.saturating_sub(back)));
        let mut found = VecDeque::new();
        let mut at = begin;
        while let Some(tick) = ticks.next(at).filter(|tick| *tick <= now) {
            found.push_back(tick);
            if found.len() > keep {
                found.pop_front();
            }
            at = tick;
        }
        if begin == from || found.len() >= keep {
            return found.into();
        }
        back = back.saturating_mul(8);
    }
}

/// The share of `jitter` that a tick is delayed by: always the same, whoever asks.
fn delay(name: &str, tick: Wall, jitter: Duration) -> Duration {
    let most = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
    if most == 0 {
        return Duration::ZERO;
    }
    // FNV-1a, and a mix of its bits: neighbours get different shares.
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in name.bytes().chain(tick.0.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    Duration::from_millis(hash % most.saturating_add(1))
}
