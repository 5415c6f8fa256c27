//! The one retry policy: how long until the next attempt, when to pause, when to give up — and the
//! numbers that say why.
//!
//! [`History`] is all that is remembered between attempts. It is a function of deaths, so that a new
//! daemon folds it again from what the store knows ([`History::recall`]).
//!
//! | ended | counts as failure | delays the next attempt | counts for flapping |
//! |---|---|---|---|
//! | asked for (stop, restart, reload, scale-down, shutdown) | no | no | no |
//! | by itself, success | no | yes | yes |
//! | by itself, otherwise; or unhealthy | yes | yes | yes |
//! | could not be started | yes | yes, at least 100 ms | yes |

use crate::job::{Flapping, Retry};
use crate::time::{Duration, Mono};
use std::collections::VecDeque;

/// Least pause after a start that failed before the program ran, whatever the configuration says:
/// otherwise a missing file is a busy loop.
pub const LEAST_AFTER_FAILED_START: Duration = Duration::from_millis(100);
/// Most exit times kept for `flapping`.
pub const EXITS_KEPT_MAX: usize = 1_000;

/// What is remembered between attempts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Unasked ends in a row since the last healthy spell: drives the delay.
    pub streak: u32,
    /// Failures in a row among them: drives `attempts`.
    pub failures: u32,
    /// Flapping, if the job has it.
    crashes: Option<Box<Crashes>>,
}

/// For `flapping`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Crashes {
    exits: VecDeque<Mono>,
    /// Pauses taken since the last good spell.
    pub rounds: u32,
}

/// An end nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Mono,
    /// Success by `exit.ok` (and not before ready).
    pub ok: bool,
    /// The program never ran.
    pub never_ran: bool,
    /// How long it was up and ready.
    pub healthy: Duration,
}

/// What follows, with the numbers that explain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Another attempt.
    Again {
        /// After this pause.
        after: Duration,
        /// Failures in a row so far.
        failures: u32,
    },
    /// Crash loop: a longer pause.
    Pause {
        /// Exits counted …
        exits: u32,
        /// … within this.
        window: Duration,
        /// This long.
        pause: Duration,
        /// This is pause number …
        round: u32,
        /// … of so many.
        rounds: Option<u32>,
    },
    /// No further attempt.
    GiveUp {
        /// Failures in a row, or exits of a crash loop.
        failures: u32,
        /// By `flapping.rounds` and not by `retry.attempts`.
        flapping: bool,
    },
}

impl History {
    /// Takes note of an end nobody asked for and decides. `dice` is in `0.0..1.0`.
    pub fn ended(&mut self, ended: Ended, retry: &Retry, flapping: Option<&Flapping>, dice: f64) -> Verdict {
        if ended.healthy >= retry.reset_after {
            self.streak = 0;
            self.failures = 0;
        }
        self.streak = self.streak.saturating_add(1);
        if !ended.ok {
            self.failures = self.failures.saturating_add(1);
        }
        if retry
            .attempts
            .is_some_and(|most| !ended.ok && self.failures >= most.max(1))
        {
            return Verdict::GiveUp {
                failures: self.failures,
                flapping: false,
            };
        }
        if let Some(flapping) = flapping {
            let crashes = self.crashes.get_or_insert_default();
            if let Some(verdict) = crashes.ended(ended, flapping) {
                return verdict;
            }
        }
        let after = delay(retry, self.streak, dice);
        let after = if ended.never_ran {
            after.max(LEAST_AFTER_FAILED_START)
        } else {
            after
        };
        Verdict::Again {
            after,
            failures: self.failures,
        }
    }

    /// Folds in a death that an earlier daemon decided about. Tells nothing new.
    pub fn recall(&mut self, ended: Ended, retry: &Retry, flapping: Option<&Flapping>) {
        self.ended(ended, retry, flapping, 0.5);
    }
}

impl Crashes {
    /// Counts one exit; some verdict if that makes it a crash loop.
    pub fn ended(&mut self, ended: Ended, flapping: &Flapping) -> Option<Verdict> {
        if ended.healthy > flapping.window {
            self.rounds = 0;
        }
        let exits = flapping.exits.clamp(1, EXITS_KEPT_MAX as u32);
        self.exits.push_back(ended.at);
        while self.exits.len() > exits as usize {
            self.exits.pop_front();
        }
        let oldest = *self.exits.front()?;
        if self.exits.len() < exits as usize || ended.at.since(oldest) > flapping.window {
            return None;
        }
        self.exits.clear();
        if flapping.rounds.is_some_and(|rounds| self.rounds >= rounds) {
            return Some(Verdict::GiveUp {
                failures: exits,
                flapping: true,
            });
        }
        self.rounds += 1;
        Some(Verdict::Pause {
            exits,
            window: flapping.window,
            pause: flapping.pause,
            round: self.rounds,
            rounds: flapping.rounds,
        })
    }
}

/// Pause before the attempt that follows `streak` ends in a row. Jitter spreads it by ± its share of the
/// delay, but never above `max_delay`: at the cap the spread lies below it.
pub fn delay(retry: &Retry, streak: u32, dice: f64) -> Duration {
    let further = streak.saturating_sub(1);
    let listed = retry.delay.len() > 1;
    let first = retry.delay.first().copied().unwrap_or_default().as_secs_f64();
    let plain = if listed {
        let at = (further as usize).min(retry.delay.len() - 1);
        retry.delay[at].as_secs_f64()
    } else if let Some(increment) = retry.increment {
        first + increment.as_secs_f64() * f64::from(further)
    } else {
        first
            * retry
                .factor
                .max(1.0)
                .powi(i32::try_from(further).unwrap_or(i32::MAX))
    };
    let cap = retry.max_delay.as_secs_f64();
    let plain = if plain.is_finite() { plain.min(cap) } else { cap };
    let jitter = retry.jitter.clamp(0.0, 1.0);
    let least = plain * (1.0 - jitter);
    let most = (plain * (1.0 + jitter)).min(cap);
    Duration::try_from_secs_f64(least + (most - least) * dice.clamp(0.0, 1.0)).unwrap_or(retry.max_delay)
}

/// Pause before asking again after a spawn that never came to be: at once, then growing to 5 s. It says
/// nothing about the program, so it is no failure, but it must not become a loop either.
pub fn delay_after_not_started(times: u32) -> Duration {
    match times {
        0 | 1 => Duration::ZERO,
        _ => Duration::from_millis(100 << (times - 2).min(6)).min(Duration::from_secs(5)),
    }
}

/// Deterministic randomness from a seed (splitmix64): the core has no other.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same throws.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0.0..1.0`.
    pub fn share(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}
