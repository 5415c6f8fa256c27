//! Reasons in words (ux.md 6.1), all in one place: **what happened** (of what, how long) **; what
//! follows** (when) (because). Lower case, no full stop, numbers with units.

use crate::io::{Actor, Cause, Death, End, Reason, Status};
use crate::job::{Batch, ReloadHow};
use crate::name::JobId;
use crate::retry::Verdict;
use crate::signal;
use crate::time::{Duration, Wall};
use std::fmt::Write as _;

fn reason(code: &'static str, text: String) -> Reason {
    Reason {
        code,
        text: text.into(),
    }
}

/// `0.1s`, `1.1s`, `12s`, `4m12s`, `2h10m`, `3d 4h`; `40ms` below a tenth.
pub fn span(span: Duration) -> String {
    let ms = span.as_millis();
    let seconds = span.as_secs();
    match seconds {
        0 if ms == 0 => "0s".into(),
        0 if ms < 100 => format!("{ms}ms"),
        0..10 => match (ms + 50) / 100 {
            tenths if tenths % 10 == 0 => format!("{}s", tenths / 10),
            tenths => format!("{}.{}s", tenths / 10, tenths % 10),
        },
        10..=60 => format!("{seconds}s"),
        61..3_600 => two(seconds / 60, "m", seconds % 60, "s", ""),
        3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "m", ""),
        _ => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h", " "),
    }
}

fn two(high: u64, high_unit: &str, low: u64, low_unit: &str, between: &str) -> String {
    if low == 0 {
        format!("{high}{high_unit}")
    } else {
        format!("{high}{high_unit}{between}{low}{low_unit}")
    }
}

/// What turns wall time into the hour that people read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Seconds east of UTC.
    pub offset_s: i32,
}

impl Zone {
    fn of_day(self, at: Wall) -> (i64, i64, i64) {
        let seconds = (at.0.div_euclid(1000) + i64::from(self.offset_s)).rem_euclid(86_400);
        (seconds / 3_600, seconds / 60 % 60, seconds % 60)
    }

    /// `14:02:31`.
    pub fn clock(self, at: Wall) -> String {
        let (h, m, s) = self.of_day(at);
        format!("{h:02}:{m:02}:{s:02}")
    }

    /// `14:02`.
    pub fn minute(self, at: Wall) -> String {
        let (h, m, _) = self.of_day(at);
        format!("{h:02}:{m:02}")
    }
}

/// `TERM` for 15; `34` for what has no name.
pub fn signal_name(signal: i32) -> String {
    signal::short(signal).map_or_else(|| signal.to_string(), str::to_owned)
}

/// `exit 1 after 1.1s`, `ended by SIGSEGV after 4m`, `ended while nobody could watch: exit status unknown`.
pub fn ended(end: &End) -> String {
    let lived = span(end.lived);
    match end.status {
        _ if end.oom => format!("out of memory, killed by the kernel after {lived}"),
        Status::Code(code) => format!("exit {code} after {lived}"),
        Status::Signal(signal, core) => {
            let dumped = if core { ", core dumped" } else { "" };
            format!("ended by {} after {lived}{dumped}", signal::name(signal))
        }
        Status::Unknown => "ended while nobody could watch: exit status unknown".into(),
    }
}

/// `exit 1`, `SIGSEGV`: for use inside another sentence.
pub fn ended_short(end: &End) -> String {
    match end.status {
        _ if end.oom => "out of memory".into(),
        Status::Code(code) => format!("exit {code}"),
        Status::Signal(signal, _) => signal::name(signal),
        Status::Unknown => "exit status unknown".into(),
    }
}

/// `ended by SIGSEGV`, `out of memory`: without how long it lived.
fn ended_by(end: &End) -> String {
    if end.oom {
        ended_short(end)
    } else {
        format!("ended by {}", ended_short(end))
    }
}

/// Code of a reason about an end by itself.
fn end_code(end: &End) -> &'static str {
    match end.status {
        _ if end.oom => "oom",
        Status::Code(_) => "exit",
        Status::Signal(..) => "signal",
        Status::Unknown => "unknown",
    }
}

/// An end by itself, and what follows.
pub fn own_end(end: &End, before_ready: bool, follows: Option<&str>) -> Reason {
    let mut text = ended(end);
    if before_ready {
        text.push_str(", before it was ready");
    }
    reason(end_code(end), with(text, follows))
}

fn with(mut text: String, follows: Option<&str>) -> String {
    if let Some(follows) = follows {
        let _ = write!(text, "; {follows}");
    }
    text
}

/// `attempt 8 in 12s`, `pause of 7s, round 2 of 5`, `gave up: …`.
pub fn follows(verdict: &Verdict, attempt: u32) -> String {
    match verdict {
        Verdict::Again { after, .. } if after.is_zero() => format!("attempt {attempt} now"),
        Verdict::Again { after, .. } => format!("attempt {attempt} in {}", span(*after)),
        Verdict::Pause {
            pause, round, rounds, ..
        } => pause_text(*pause, *round, *rounds),
        Verdict::GiveUp { .. } => "gave up".into(),
    }
}

fn pause_text(pause: Duration, round: u32, rounds: Option<u32>) -> String {
    let of = rounds.map(|rounds| format!(" of {rounds}")).unwrap_or_default();
    format!("pause of {}, round {round}{of}", span(pause))
}

/// `backing off: exit 1, failure 8 in a row; next try 14:02:31`.
pub fn backoff(what: &str, failures: u32, next: Wall, zone: Zone) -> Reason {
    let row = if failures > 0 {
        format!(", failure {failures} in a row")
    } else {
        String::new()
    };
    reason(
        "backoff",
        format!("backing off: {what}{row}; next try {}", zone.clock(next)),
    )
}

/// `5 exits in 30s; pause of 7s, round 2 of 5`.
pub fn flapping(exits: u32, window: Duration, pause: Duration, round: u32, rounds: Option<u32>) -> Reason {
    reason(
        "flapping",
        format!(
            "{exits} exits in {}; {}",
            span(window),
            pause_text(pause, round, rounds)
        ),
    )
}

/// `gave up: 5 attempts failed, last exit 1; start it again by hand`.
pub fn gave_up(failures: u32, flapping: bool, last: &str) -> Reason {
    let what = match (flapping, failures) {
        (true, _) => format!("still {failures} exits in a row after the last pause"),
        (false, 1) => "1 attempt failed".into(),
        (false, _) => format!("{failures} attempts failed"),
    };
    reason(
        "gave-up",
        format!("gave up: {what}, last {last}; start it again by hand"),
    )
}

/// `stopped by ana from 10.0.0.7 at 14:02; ended on TERM in 0.8s`.
pub fn stopped(by: &Actor, at: Wall, how: &str, zone: Zone) -> Reason {
    reason("stopped", format!("stopped by {by} at {}{how}", zone.minute(at)))
}

/// `stopped by ana`: asked for, nothing was running.
pub fn stopped_idle(by: &Actor) -> Reason {
    reason("stopped", format!("stopped by {by}"))
}

/// `paused by ana`.
pub fn paused(by: &Actor) -> Reason {
    reason("paused", format!("paused by {by}"))
}

/// `; ended on TERM in 0.8s`: how an asked end came about.
pub fn how_it_ended(asked_with: &str, took: Duration, end: &End) -> String {
    match end.status {
        Status::Code(code) if code != 0 => format!("; exit {code} on {asked_with} in {}", span(took)),
        Status::Unknown => "; exit status unknown".into(),
        // Somebody else was faster, or the program hit a wall on its way out: not what was asked with ended it.
        Status::Signal(signal, _) if signal_name(signal) != asked_with => {
            format!("; {} {} after {asked_with}", ended_by(end), span(took))
        }
        _ => format!("; ended on {asked_with} in {}", span(took)),
    }
}

/// `killed: still alive 30s after TERM`.
pub fn stop_killed(after: Duration, asked_with: &str) -> Reason {
    reason(
        "stop-killed",
        format!("killed: still alive {} after {asked_with}", span(after)),
    )
}

/// `killed by ana at 14:02, as asked`.
pub fn stop_forced(by: &Actor, at: Wall, zone: Zone) -> Reason {
    reason(
        "stop-killed",
        format!("killed at once at {}, asked by {by}", zone.minute(at)),
    )
}

/// `still there 10s after KILL; killing again every 10s`.
pub fn stop_stuck(since: Duration) -> Reason {
    reason(
        "stop-stuck",
        format!(
            "still there {} after KILL; it may hang in the kernel",
            span(since)
        ),
    )
}

/// `asked to end by ana; KILL in 30s`.
pub fn stopping(what: &str, kill_in: Option<Duration>) -> Reason {
    let follows = kill_in.map_or_else(
        || "KILL sent".into(),
        |after| format!("KILL after {}", span(after)),
    );
    reason("stopping", format!("{what}; {follows}"))
}

/// `replaced by reload of ana; ended on TERM in 0.8s`.
pub fn replaced(what: &str, by: &Actor, how: &str) -> Reason {
    reason("replaced", format!("replaced by {what} of {by}{how}"))
}

/// `scaled down by ana; ended on TERM in 0.8s`.
pub fn scaled_down(by: &Actor, how: &str) -> Reason {
    reason("scaled", format!("scaled down by {by}{how}"))
}

/// `scaled up 2 → 3 by ana`.
pub fn scaled(from: u32, to: u32, by: &Actor) -> Reason {
    let way = if to >= from { "up" } else { "down" };
    reason("scaled", format!("scaled {way} {from} → {to} by {by}"))
}

/// `waiting for redis: starting for 3s, tcp 127.0.0.1:6379 refused`.
pub fn waiting_for(job: &JobId, same_session: bool, what: &str) -> Reason {
    let name = if same_session {
        job.job.to_string()
    } else {
        job.to_string()
    };
    reason("dependency", format!("waiting for {name}: {what}"))
}

/// `waiting for its turn: 64 starts in progress`.
pub fn waiting_turn(in_progress: u32) -> Reason {
    reason(
        "turn",
        format!("waiting for its turn: {in_progress} starts in progress"),
    )
}

/// `waiting for its turn: 2s between starts of jobs`.
pub fn waiting_pause(spacing: Duration) -> Reason {
    let spacing = span(spacing);
    reason(
        "turn",
        format!("waiting for its turn: {spacing} between starts of jobs"),
    )
}

/// `waiting for the daemon to find what still runs`.
pub fn waiting_recovery() -> Reason {
    reason("recovery", "waiting until it is known what still runs".into())
}

/// `stopped with redis, which is gone`.
pub fn stopped_with(job: &str, how: &str) -> Reason {
    reason("dependency", format!("stopped with {job}, which is gone{how}"))
}

/// `not ready within 60s: http /up answered 503`.
pub fn unready(within: Duration, last: Option<&str>, follows: Option<&str>) -> Reason {
    let why = last.map(|last| format!(": {last}")).unwrap_or_default();
    reason(
        "unready",
        with(format!("not ready within {}{why}", span(within)), follows),
    )
}

/// `health check failed 3 times: no answer in 5s; restarting`.
pub fn unhealthy(times: u32, last: &str, follows: Option<&str>) -> Reason {
    let plural = if times == 1 {
        "once".to_owned()
    } else {
        format!("{times} times")
    };
    reason(
        "unhealthy",
        with(format!("health check failed {plural}: {last}"), follows),
    )
}

/// `cannot run bin/web: no such file (exec, ENOENT)`: the shim's words, and what follows.
pub fn exec_failed(text: &str, follows: Option<&str>) -> Reason {
    reason("exec-failed", with(text.to_owned(), follows))
}

/// `adopted by a new daemon: running for 3d 4h`.
pub fn adopted(lived: Duration) -> Reason {
    reason(
        "adopted",
        format!("adopted by a new daemon: running for {}", span(lived)),
    )
}

/// `the shim does not answer; nothing is started in its place`.
pub fn unreachable() -> Reason {
    reason(
        "unreachable",
        "its shim does not answer; nothing is started in its place".into(),
    )
}

/// `never started: the request was refused as outdated; trying again`.
pub fn not_started(text: &str) -> Reason {
    reason("not-started", format!("it was not started: {text}; trying again"))
}

/// `starting: http /up answered 503`.
pub fn starting(last: Option<&str>) -> Option<Reason> {
    last.map(|last| reason("starting", format!("not ready yet: {last}")))
}

/// `exit 3 after 1s is final by exit.fatal; start it again by hand`.
pub fn final_end(what: &str, rule: &str) -> Reason {
    reason("gave-up", format!("{what}; not started again because {rule}"))
}

/// `success: exit 0 after 3s`.
pub fn done(end: &End) -> Reason {
    reason("exit", ended(end))
}

/// `reload stopped: web.1 …; 2 runs keep the old definition`.
pub fn reload_aborted(instance: u32, what: &str, kept: usize) -> Reason {
    let runs = if kept == 1 {
        "1 run keeps".to_owned()
    } else {
        format!("{kept} runs keep")
    };
    reason(
        "reload-aborted",
        format!("reload ended at instance {instance}: {what}; {runs} the old definition"),
    )
}

/// A survivor of the main process is being ended.
pub fn survivors(end: &End, survivors: u32) -> Reason {
    let plural = if survivors == 1 {
        "1 process of it is".to_owned()
    } else {
        format!("{survivors} processes of it are")
    };
    reason(
        end_code(end),
        format!("{}; {plural} still there and being ended", ended(end)),
    )
}

/// `surge reload of …`, for events.
pub fn reload_words(how: ReloadHow, batch: Batch) -> String {
    let batch = match batch {
        Batch::Count(n) => n.to_string(),
        Batch::Percent(n) => format!("{n}%"),
    };
    match how {
        ReloadHow::Surge => format!("new ones ready first, {batch} at once"),
        ReloadHow::Rolling => format!("one after the other, {batch} at once"),
        ReloadHow::Restart => "all at once".into(),
        ReloadHow::Signal => "by signal".into(),
    }
}

/// What an earlier daemon's death record says, for a slot found dead.
pub fn of_death(death: &Death) -> Reason {
    let code = match death.cause {
        Cause::Exit => "exit",
        Cause::Signal => "signal",
        Cause::Oom => "oom",
        Cause::Timeout => "timeout",
        Cause::Unhealthy => "unhealthy",
        Cause::Stopped => "stopped",
        Cause::Replaced => "replaced",
        Cause::ExecFailed | Cause::SetupFailed => "exec-failed",
        Cause::Unknown => "unknown",
    };
    let text = match &death.end {
        Some(end) if matches!(death.cause, Cause::Stopped | Cause::Replaced) => {
            format!("{code}; {}", ended(end))
        }
        Some(end) => ended(end),
        None => "it could not be started".into(),
    };
    reason(code, text)
}
