//! Death records: from facts to a row of the history, and back to what readers see.

use crate::facts::RunFacts;
use crate::info::{RunInfo, Rusage};
use crate::logs;
use crate::store::{RunRow, Settled};
use gaffer_core::io::{Cause, Death, End, Reason, Status};
use gaffer_core::name::{RunId, Slot};
use gaffer_core::time::{Duration, Wall};
use std::collections::BTreeMap;
use std::path::Path;

/// The row of a death.
pub(crate) fn row(facts: &RunFacts, slot: &Slot, death: &Death, reason: &Reason) -> Settled {
    let status = death.end.as_ref().map(|end| status_text(end.status));
    let rusage = facts.exit.as_ref().map(|exit| rusage_text(&exit.rusage));
    let row = RunRow {
        epoch: death.run.epoch,
        n: death.run.n,
        slot: slot.to_string(),
        session: slot.job.session.to_string(),
        job: slot.job.job.to_string(),
        attempt: facts.attempt,
        pid: (facts.pid != 0).then_some(facts.pid),
        started: facts.started.map(|(wall, _)| wall.0),
        ended: death.at.0,
        lived_ms: death
            .end
            .as_ref()
            .map(|end| u64::try_from(end.lived.as_millis()).unwrap_or(u64::MAX)),
        status,
        cause: cause_word(death.cause).to_owned(),
        reason_code: reason.code.to_owned(),
        reason: reason.text.to_string(),
        rusage,
        logs: ranges_text(facts),
    };
    Settled {
        row,
        id: death.run.to_string(),
        tell: None,
    }
}

/// What readers see of a settled run.
pub(crate) fn info(row: &RunRow, logs_dir: &Path) -> Option<RunInfo> {
    let slot: Slot = row.slot.parse().ok()?;
    Some(RunInfo {
        run: RunId {
            epoch: row.epoch,
            n: row.n,
        },
        log_dir: logs::directory(logs_dir, &slot),
        slot,
        attempt: row.attempt,
        pid: row.pid,
        started: row.started.map(Wall),
        ended: Some(Wall(row.ended)),
        lived: row.lived_ms.map(Duration::from_millis),
        status: row.status.as_deref().and_then(parse_status),
        cause: parse_cause(&row.cause),
        reason: Some(Reason {
            code: static_code(&row.reason_code),
            text: row.reason.as_str().into(),
        }),
        rusage: row.rusage.as_deref().and_then(parse_rusage),
        logs: serde_json::from_str(&row.logs).unwrap_or_default(),
    })
}

/// What readers see of a run that lives or is not settled yet.
pub(crate) fn live(facts: &RunFacts, reason: Option<Reason>, now: Wall, logs_dir: &Path) -> Option<RunInfo> {
    let slot: Slot = facts.slot.parse().ok()?;
    let end = facts.end();
    let lived = match (&end, facts.started) {
        (Some(end), _) => Some(end.lived),
        (None, Some((_, mono))) => Some(Duration::from_nanos(
            crate::clock::mono().0.saturating_sub(mono.0),
        )),
        (None, None) => None,
    };
    let ended = end
        .as_ref()
        .map(|end| end.at)
        .or(facts.failed.as_ref().map(|_| now));
    Some(RunInfo {
        run: facts.run,
        log_dir: logs::directory(logs_dir, &slot),
        slot,
        attempt: facts.attempt,
        pid: (facts.pid != 0).then_some(facts.pid),
        started: facts.started.map(|(wall, _)| wall),
        ended,
        lived,
        status: end.map(|end| end.status),
        cause: None,
        reason,
        rusage: facts.exit.as_ref().map(|exit| exit.rusage),
        logs: ranges(facts),
    })
}

/// A death whose decision was lost with the daemon that made it: only what the kernel said is left.
pub(crate) fn unexplained(facts: &RunFacts) -> (Death, Reason) {
    let end = facts.end();
    let (cause, code, text, at) = match (&facts.failed, &end) {
        (Some(failed), _) => {
            let cause = if failed.stage.starts_with("exec") {
                Cause::ExecFailed
            } else {
                Cause::SetupFailed
            };
            let text = crate::launch::start_failure(&failed.stage, failed.errno, &failed.text);
            (cause, "exec-failed", text, failed.at)
        }
        (None, Some(end)) if end.oom => (Cause::Oom, "oom", "out of memory".to_owned(), end.at),
        (None, Some(end)) => match end.status {
            Status::Code(code) => (Cause::Exit, "exit", format!("exit {code}"), end.at),
            Status::Signal(signal, _) => (
                Cause::Signal,
                "signal",
                format!("ended by signal {signal}"),
                end.at,
            ),
            Status::Unknown => (
                Cause::Unknown,
                "unknown",
                "exit status unknown".to_owned(),
                end.at,
            ),
        },
        (None, None) => (
            Cause::Unknown,
            "unknown",
            "exit status unknown".to_owned(),
            crate::clock::wall(),
        ),
    };
    let text = format!("{text}; settled by a later daemon");
    (
        Death {
            run: facts.run,
            end,
            cause,
            at,
        },
        Reason {
            code,
            text: text.into(),
        },
    )
}

/// A death as the core needs it for backoff and flapping.
pub(crate) fn death(row: &RunRow) -> Option<Death> {
    let at = Wall(row.ended);
    let end = row.status.as_deref().and_then(parse_status).map(|status| End {
        status,
        oom: row.cause == "oom",
        at,
        lived: Duration::from_millis(row.lived_ms.unwrap_or(0)),
    });
    Some(Death {
        run: RunId {
            epoch: row.epoch,
            n: row.n,
        },
        end,
        cause: parse_cause(&row.cause)?,
        at,
    })
}

fn ranges(facts: &RunFacts) -> BTreeMap<String, (u64, Option<u64>)> {
    // A start that failed wrote nothing: its range is empty, not open.
    let closed = |(from, to): (u64, Option<u64>)| (from, to.or(facts.failed.as_ref().map(|_| from)));
    BTreeMap::from([
        ("stdout".to_owned(), closed(facts.out)),
        ("stderr".to_owned(), closed(facts.err)),
    ])
}

fn ranges_text(facts: &RunFacts) -> String {
    // A settled run writes no more: what has no known end ends where it began.
    let end = |(from, to): (u64, Option<u64>)| format!("[{from},{}]", to.unwrap_or(from));
    format!(r#"{{"stdout":{},"stderr":{}}}"#, end(facts.out), end(facts.err))
}

fn status_text(status: Status) -> String {
    match status {
        Status::Code(code) => format!("code:{code}"),
        Status::Signal(signal, false) => format!("signal:{signal}"),
        Status::Signal(signal, true) => format!("signal:{signal}:core"),
        Status::Unknown => "unknown".to_owned(),
    }
}

pub(crate) fn parse_status(text: &str) -> Option<Status> {
    let mut parts = text.split(':');
    let (kind, number) = (parts.next()?, parts.next().and_then(|number| number.parse().ok()));
    match kind {
        "code" => Some(Status::Code(number?)),
        "signal" => Some(Status::Signal(number?, parts.next() == Some("core"))),
        "unknown" => Some(Status::Unknown),
        _ => None,
    }
}

fn rusage_text(rusage: &Rusage) -> String {
    let Rusage {
        user_us,
        system_us,
        max_rss_kib,
        minor_faults,
        major_faults,
        blocks_in,
        blocks_out,
    } = rusage;
    format!("{user_us} {system_us} {max_rss_kib} {minor_faults} {major_faults} {blocks_in} {blocks_out}")
}

fn parse_rusage(text: &str) -> Option<Rusage> {
    let numbers: Vec<u64> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
    let [
        user_us,
        system_us,
        max_rss_kib,
        minor_faults,
        major_faults,
        blocks_in,
        blocks_out,
    ] = numbers[..]
    else {
        return None;
    };
    Some(Rusage {
        user_us,
        system_us,
        max_rss_kib,
        minor_faults,
        major_faults,
        blocks_in,
        blocks_out,
    })
}

const CAUSES: &[(Cause, &str)] = &[
    (Cause::Exit, "exit"),
    (Cause::Signal, "signal"),
    (Cause::Oom, "oom"),
    (Cause::Timeout, "timeout"),
    (Cause::Unhealthy, "unhealthy"),
    (Cause::Stopped, "stopped"),
    (Cause::Replaced, "replaced"),
    (Cause::ExecFailed, "exec-failed"),
    (Cause::SetupFailed, "setup-failed"),
    (Cause::Unknown, "unknown"),
];

/// The word of ux.md 6.2.
pub fn cause_word(cause: Cause) -> &'static str {
    CAUSES
        .iter()
        .find(|(one, _)| *one == cause)
        .map_or("unknown", |(_, word)| word)
}

pub(crate) fn parse_cause(word: &str) -> Option<Cause> {
    CAUSES
        .iter()
        .find(|(_, one)| *one == word)
        .map(|(cause, _)| *cause)
}

/// Codes of ux.md 6.1; a newer version's code is kept readable as `unknown`.
pub(crate) fn static_code(code: &str) -> &'static str {
    const CODES: &[&str] = &[
        "exit",
        "signal",
        "backoff",
        "flapping",
        "gave-up",
        "oom",
        "stopped",
        "stop-killed",
        "scaled",
        "scale-blocked",
        "dependency",
        "unready",
        "unhealthy",
        "exec-failed",
        "setup-failed",
        "replaced",
        "adopted",
        "unknown",
        "lease-lost",
    ];
    CODES
        .iter()
        .find(|one| **one == code)
        .copied()
        .unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_causes_survive_the_store() {
        for status in [
            Status::Code(0),
            Status::Code(-3),
            Status::Signal(9, false),
            Status::Signal(11, true),
            Status::Unknown,
        ] {
            assert_eq!(parse_status(&status_text(status)), Some(status));
        }
        for (cause, _) in CAUSES {
            assert_eq!(parse_cause(cause_word(*cause)), Some(*cause));
        }
        let rusage = Rusage {
            user_us: 1,
            system_us: 2,
            max_rss_kib: 3,
            minor_faults: 4,
            major_faults: 5,
            blocks_in: 6,
            blocks_out: 7,
        };
        assert_eq!(parse_rusage(&rusage_text(&rusage)), Some(rusage));
    }
}
