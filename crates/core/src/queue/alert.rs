//! What is wrong with a queue, in words: a rule over what is counted anyway.
//!
//! | code | tells that | since |
//! |---|---|---|
//! | `unknown-kind` | a task waits for its kind to be defined (`unknown_kind = "wait"`) | it has waited [`KIND_WAITS`] |
//! | `oldest` | a task waits although a worker is free | both are so for [`TASK_WAITS`] |
//! | `stalled` | tasks wait and none is finished | [`NONE_FINISHED`] |
//! | `unhealthy` | a resident worker is not well (`health.action = "alert"`) | it is so |
//! | `backlog` | more wait with every minute | [`BACKLOG_GROWS`] |
//! | `dead` | tasks were given up | the first of the last hour was |
//! | `wal` | the log of the store's file is not emptied | it was first seen above [`LOG_BYTES`] |
//!
//! Nothing is remembered and nothing is timed: whoever looks gets what holds now, and when it began to hold. A queue that is paused waits
//! because somebody wants it to, and one with `throttle` because its file says so.

use crate::time::{Duration, Wall};
use std::sync::Arc;

/// Longest time that a task waits beside a free worker.
pub const TASK_WAITS: Duration = Duration::from_secs(60);
/// Longest time that a task waits for its kind.
pub const KIND_WAITS: Duration = Duration::from_secs(60);
/// Longest time in which nothing is finished while tasks wait.
pub const NONE_FINISHED: Duration = Duration::from_secs(300);
/// Longest time in which the backlog grows.
pub const BACKLOG_GROWS: Duration = Duration::from_secs(600);
/// Samples of a backlog that are further apart tell nothing about the time between them.
const SAMPLES_APART: Duration = Duration::from_secs(180);
/// Largest log of a store's file: 64 MiB.
pub const LOG_BYTES: u64 = 64 << 20;

/// All codes, in the order in which they are told.
pub const CODES: [&str; 7] = [
    "unknown-kind",
    "oldest",
    "stalled",
    "unhealthy",
    "backlog",
    "dead",
    "wal",
];

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// One of [`CODES`].
    pub code: &'static str,
    /// One sentence.
    pub text: String,
    /// From then on it held.
    pub since: Wall,
}

/// What the rule looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Nothing is claimed, because somebody said so.
    pub paused: bool,
    /// Tasks may be held back by their number.
    pub throttled: bool,
    /// When an operator last said something about the queue.
    pub said: Option<Wall>,
    /// Tasks that may begin.
    pub waiting: u64,
    /// Where counting stops: as many mean so many or more.
    pub waiting_max: u64,
    /// When the oldest of them could have begun, without those of unknown kinds.
    pub oldest: Option<Wall>,
    /// The kind of the oldest task that nothing is defined for, and when it could have begun.
    pub unknown: Option<(String, Wall)>,
    /// Workers of this node that have nothing to do, and since when there is one; none: all are busy, or others do the work.
    pub free: Option<(u32, Wall)>,
    /// When a task was last finished, or when somebody began to look.
    pub finished: Wall,
    /// Since when a resident worker is not well, and why.
    pub unwell: Option<(Wall, Arc<str>)>,
    /// How many waited at some times, oldest first.
    pub samples: Vec<(Wall, u64)>,
    /// Tasks given up in the last hour, and when the first of them was.
    pub died: Option<(u64, Wall)>,
    /// Size of the log of the store's file, and since when it is above [`LOG_BYTES`].
    pub log: Option<(u64, Wall)>,
}

/// What holds now, in the order of [`CODES`].
pub fn alerts(signs: &Signs, now: Wall) -> Vec<Alert> {
    let all = [
        unknown_kind(signs, now),
        oldest(signs, now),
        stalled(signs, now),
        unhealthy(signs),
        backlog(signs, now),
        dead(signs),
        wal(signs),
    ];
    all.into_iter().flatten().collect()
}

/// The time after `began` that something may take is over.
fn over(began: Wall, longest: Duration, now: Wall) -> Option<Wall> {
    let since = began.plus(longest);
    (since <= now).then_some(since)
}

fn unknown_kind(signs: &Signs, now: Wall) -> Option<Alert> {
    let (kind, at) = signs.unknown.as_ref().filter(|_| !signs.paused)?;
    Some(Alert {
        code: "unknown-kind",
        text: format!(
            "nothing is defined for kind `{kind}`: a task of it waits for {}",
            words(now.since(*at))
        ),
        since: over(*at, KIND_WAITS, now)?,
    })
}

fn oldest(signs: &Signs, now: Wall) -> Option<Alert> {
    let at = signs.oldest.filter(|_| !signs.paused && !signs.throttled)?;
    let (free, free_since) = signs.free?;
    let began = at.max(free_since).max(signs.said.unwrap_or(at));
    Some(Alert {
        code: "oldest",
        text: format!(
            "a task waits for {} while {free} {} free",
            words(now.since(at)),
            if free == 1 { "worker is" } else { "workers are" }
        ),
        since: over(began, TASK_WAITS, now)?,
    })
}

fn stalled(signs: &Signs, now: Wall) -> Option<Alert> {
    let at = signs.oldest.filter(|_| !signs.paused)?;
    let began = signs.finished.max(at).max(signs.said.unwrap_or(at));
    Some(Alert {
        code: "stalled",
        text: format!(
            "nothing was finished for {} while tasks wait",
            words(now.since(began))
        ),
        since: over(began, NONE_FINISHED, now)?,
    })
}

fn unhealthy(signs: &Signs) -> Option<Alert> {
    let (since, why) = signs.unwell.as_ref().filter(|_| !signs.paused)?;
    Some(Alert {
        code: "unhealthy",
        text: format!("a resident worker is not well: {why}"),
        since: *since,
    })
}

fn backlog(signs: &Signs, now: Wall) -> Option<Alert> {
    if signs.paused {
        return None;
    }
    // Backwards from now, as long as each sample is smaller than the one after it.
    let (mut began, mut after) = (now, signs.waiting);
    for (at, waiting) in signs.samples.iter().rev() {
        let is_full = *waiting >= signs.waiting_max && after >= signs.waiting_max;
        if *waiting >= after && !is_full || began.since(*at) > SAMPLES_APART {
            break;
        }
        (began, after) = (*at, *waiting);
    }
    Some(Alert {
        code: "backlog",
        text: format!(
            "the backlog grows for {}: {}{} wait",
            words(now.since(began)),
            signs.waiting,
            if signs.waiting >= signs.waiting_max {
                " or more"
            } else {
                ""
            }
        ),
        since: over(began, BACKLOG_GROWS, now)?,
    })
}

fn dead(signs: &Signs) -> Option<Alert> {
    let (count, since) = signs.died?;
    Some(Alert {
        code: "dead",
        text: format!("{count} dead in the last hour"),
        since,
    })
}

fn wal(signs: &Signs) -> Option<Alert> {
    let (bytes, since) = signs.log.filter(|(bytes, _)| *bytes > LOG_BYTES)?;
    Some(Alert {
        code: "wal",
        text: format!(
            "the log of the queue store has {}M and is not emptied",
            bytes >> 20
        ),
        since,
    })
}

/// As people say it: whole minutes are enough for what is longer than some of them.
fn words(time: Duration) -> String {
    match time.as_secs() {
        secs @ 0..300 => format!("{secs}s"),
        secs @ 300..7_200 => format!("{}m", secs / 60),
        secs => format!("{}h", secs / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Wall = Wall(1_800_000_000_000);

    fn at(secs: u64) -> Wall {
        START.plus(Duration::from_secs(secs))
    }

    /// One task waits since the start, all workers are busy, something was finished just then.
    fn one_waits() -> Signs {
        Signs {
            waiting: 1,
            waiting_max: 100_000,
            oldest: Some(START),
            finished: START,
            ..Signs::default()
        }
    }

    fn codes(signs: &Signs, now: Wall) -> Vec<&'static str> {
        alerts(signs, now).into_iter().map(|alert| alert.code).collect()
    }

    #[test]
    fn a_task_that_waits_beside_a_free_worker_is_told_after_a_minute_of_both() {
        let mut signs = Signs {
            free: Some((3, at(30))),
            ..one_waits()
        };
        assert!(alerts(&signs, at(89)).is_empty());
        let told = alerts(&signs, at(90));
        assert_eq!((told[0].code, told[0].since), ("oldest", at(90)));
        assert_eq!(told[0].text, "a task waits for 90s while 3 workers are free");
        assert_eq!(alerts(&signs, at(200))[0].since, at(90), "since then");
        signs.said = Some(at(150));
        assert!(alerts(&signs, at(209)).is_empty(), "it was just resumed");
        assert_eq!(codes(&signs, at(210)), ["oldest"]);
        signs.throttled = true;
        assert!(alerts(&signs, at(210)).is_empty());
        signs.throttled = false;
        signs.free = None;
        assert!(alerts(&signs, at(210)).is_empty(), "no worker is free");
    }

    #[test]
    fn nothing_finished_for_five_minutes_counts_from_when_a_task_waits() {
        let mut signs = Signs {
            oldest: Some(at(1_000)),
            ..one_waits()
        };
        assert!(
            alerts(&signs, at(1_299)).is_empty(),
            "an hour without tasks is none without an end"
        );
        assert_eq!(codes(&signs, at(1_300)), ["stalled"]);
        signs.finished = at(1_200);
        assert!(alerts(&signs, at(1_499)).is_empty());
        let told = alerts(&signs, at(1_560));
        assert_eq!(told[0].since, at(1_500));
        assert_eq!(told[0].text, "nothing was finished for 6m while tasks wait");
        signs.oldest = None;
        assert!(alerts(&signs, at(9_999)).is_empty(), "nothing waits");
    }

    #[test]
    fn a_backlog_that_grows_with_every_minute_is_told_after_ten() {
        let sample = |minute: u64| (at(minute * 60), 10 + minute);
        let mut signs = Signs {
            waiting: 21,
            samples: (0..11).map(sample).collect(),
            finished: at(620),
            ..one_waits()
        };
        let told = alerts(&signs, at(630));
        assert_eq!((told[0].code, told[0].since), ("backlog", at(600)));
        assert_eq!(told[0].text, "the backlog grows for 10m: 21 wait");
        assert!(alerts(&signs, at(599)).is_empty());
        signs.samples[5].1 = 14;
        assert!(alerts(&signs, at(630)).is_empty(), "it once stood still");
        signs.samples[5].1 = 15;
        signs.samples.drain(4..8);
        assert!(
            alerts(&signs, at(630)).is_empty(),
            "nobody knows what was between"
        );
    }

    #[test]
    fn a_backlog_that_is_not_counted_further_may_still_grow() {
        let mut signs = Signs {
            waiting: 100_000,
            samples: (0..11).map(|minute| (at(minute * 60), 100_000)).collect(),
            finished: at(620),
            ..one_waits()
        };
        assert_eq!(
            alerts(&signs, at(630))[0].text,
            "the backlog grows for 10m: 100000 or more wait"
        );
        signs.waiting = 99_999;
        assert!(alerts(&signs, at(630)).is_empty());
    }

    #[test]
    fn a_kind_that_nobody_defines_is_told_after_a_minute() {
        let signs = Signs {
            oldest: None,
            unknown: Some(("new".to_owned(), at(10))),
            ..one_waits()
        };
        assert!(alerts(&signs, at(69)).is_empty());
        let told = alerts(&signs, at(70));
        assert_eq!((told[0].code, told[0].since), ("unknown-kind", at(70)));
        assert_eq!(
            told[0].text,
            "nothing is defined for kind `new`: a task of it waits for 60s"
        );
    }

    #[test]
    fn who_pauses_a_queue_knows_that_its_tasks_wait() {
        let signs = Signs {
            paused: true,
            unknown: Some(("new".to_owned(), START)),
            free: Some((1, START)),
            unwell: Some((at(9), "no heartbeat for 5s".into())),
            waiting: 99,
            samples: (0..20).map(|minute| (at(minute * 60), minute)).collect(),
            died: Some((2, at(7))),
            log: Some((LOG_BYTES + 1, at(8))),
            ..one_waits()
        };
        assert_eq!(codes(&signs, at(1_200)), ["dead", "wal"]);
        let awake = Signs {
            paused: false,
            ..signs
        };
        assert_eq!(codes(&awake, at(1_200)), CODES, "all of them, in this order");
    }

    #[test]
    fn a_log_of_64_mib_is_not_too_large() {
        let mut signs = Signs {
            log: Some((LOG_BYTES, at(8))),
            ..Signs::default()
        };
        assert!(alerts(&signs, at(9)).is_empty());
        signs.log = Some((80 << 20, at(8)));
        assert_eq!(
            alerts(&signs, at(9))[0].text,
            "the log of the queue store has 80M and is not emptied"
        );
    }
}
