//! From the engine's types to the shapes of `/v1`.

use gaffer::Handle;
use gaffer::info::{
    DrainInfo, EventRecord, JobInfo, NodeInfo, ObjectChange, OperationInfo, OperationState, PlanAction,
    PlanInfo, RunInfo, RunStats, Rusage, ShimInfo,
};
use gaffer_api::types;
use gaffer_core::io::{Cause, InstanceView, Reason, State, Status, WishState};
use gaffer_core::name::{Place, Slot};
use gaffer_core::time::{Duration, Wall};
use serde_json::Value;
use std::collections::BTreeMap;

/// RFC 3339 in UTC with milliseconds.
pub fn time(wall: Wall) -> String {
    match jiff::Timestamp::from_millisecond(wall.0) {
        Ok(time) => format!("{time:.3}"),
        // Outside of what a calendar can say: a broken clock is shown as the epoch, not as a crash.
        Err(_) => "1970-01-01T00:00:00.000Z".to_owned(),
    }
}

/// Wall clock now.
pub fn now() -> Wall {
    Wall(jiff::Timestamp::now().as_millisecond())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros_to_ms(micros: u64) -> u64 {
    micros.div_ceil(1000)
}

/// `running stopped paused`.
pub fn wish(wish: WishState) -> &'static str {
    match wish {
        WishState::Running => "running",
        WishState::Stopped => "stopped",
        WishState::Paused => "paused",
    }
}

/// State in the words of ux.md 6.2.
pub fn state(state: State) -> &'static str {
    match state {
        State::Stopped => "stopped",
        State::Waiting => "waiting",
        State::Starting => "starting",
        State::Running => "running",
        State::Backoff => "backoff",
        State::Flapping => "flapping",
        State::Stopping => "stopping",
        State::StopStuck => "stop-stuck",
        State::Exited => "exited",
        State::Failed => "failed",
        State::Paused => "paused",
        State::Unreachable => "unreachable",
        State::Unknown => "unknown",
        State::Degraded => "degraded",
    }
}

/// Cause of a death in the words of ux.md 6.2.
pub fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Exit => "exit",
        Cause::Signal => "signal",
        Cause::Oom => "oom",
        Cause::Timeout => "timeout",
        Cause::Unhealthy => "unhealthy",
        Cause::Stopped => "stopped",
        Cause::Replaced => "replaced",
        Cause::ExecFailed => "exec-failed",
        Cause::SetupFailed => "setup-failed",
        Cause::Unknown => "unknown",
    }
}

fn reason_parts(reason: Option<&Reason>) -> (String, String) {
    reason.map_or_else(Default::default, |reason| {
        (reason.text.to_string(), reason.code.to_owned())
    })
}

fn exit_parts(status: Option<Status>) -> (Option<i32>, Option<String>) {
    match status {
        Some(Status::Code(code)) => (Some(code), None),
        Some(Status::Signal(signal, _)) => (None, Some(gaffer_core::signal::name(signal))),
        Some(Status::Unknown) | None => (None, None),
    }
}

/// `session.job.n`, `session.job/7` for a one-off.
pub fn subject(slot: &Slot) -> String {
    let (session, job) = (slot.job.session.as_str(), slot.job.job.as_str());
    match slot.place {
        Place::Instance { n, .. } => format!("{session}.{job}.{n}"),
        Place::OneOff(n) => format!("{session}.{job}/{n}"),
    }
}

/// A job; `one_offs` are in it too.
pub fn job(handle: &Handle, info: &JobInfo, now: Wall) -> types::Job {
    let view = &info.view;
    let (reason, reason_code) = reason_parts(view.reason.as_ref());
    let (instances, one_offs) = view
        .instances
        .iter()
        .map(|view| {
            (
                matches!(view.slot.place, Place::Instance { .. }),
                instance(handle, view, now),
            )
        })
        .partition::<Vec<_>, _>(|(is_instance, _)| *is_instance);
    let only = |list: Vec<(bool, types::Instance)>| list.into_iter().map(|(_, instance)| instance).collect();
    types::Job {
        session: view.job.session.as_str().to_owned(),
        job: view.job.job.as_str().to_owned(),
        wish: wish(view.wish).to_owned(),
        state: state(view.state).to_owned(),
        summary: view.summary.clone(),
        reason,
        reason_code,
        target: view.target,
        priority: info.spec.priority,
        revision: info.revision,
        file: info.file.as_deref().map(str::to_owned),
        line: info.line,
        description: info.spec.description.clone(),
        meta: info.spec.meta.clone(),
        instances: only(instances),
        one_offs: only(one_offs),
        spec: None,
    }
}

/// An instance or one-off.
pub fn instance(handle: &Handle, view: &InstanceView, now: Wall) -> types::Instance {
    let (reason, reason_code) = reason_parts(view.reason.as_ref());
    let instance = match view.slot.place {
        Place::Instance { n, .. } => u64::from(n),
        Place::OneOff(n) => n,
    };
    types::Instance {
        instance,
        run: view.run.map(|run| run.to_string()),
        number: view.run.map(|run| handle.pid_of(run)),
        pid: view.pid,
        state: state(view.state).to_owned(),
        wish: wish(view.wish).to_owned(),
        reason,
        reason_code,
        started_at: view.started.map(time),
        ready_at: view.ready.map(time),
        up_ms: view
            .started
            .map(|started| u64::try_from(now.0 - started.0).unwrap_or(0)),
        next_try_at: view.next_try.map(time),
        restarts: view.restarts,
        attempt: view.attempt,
        stats: None,
    }
}

/// A run, without last lines.
pub fn run(handle: &Handle, info: &RunInfo) -> types::Run {
    let (reason, reason_code) = reason_parts(info.reason.as_ref());
    let (exit_code, signal) = exit_parts(info.status);
    let state = match (info.ended, info.cause, info.pid) {
        (None, None, None) => "starting",
        (None, None, Some(_)) => "running",
        _ => "ended",
    };
    types::Run {
        run: info.run.to_string(),
        number: handle.pid_of(info.run),
        session: info.slot.job.session.as_str().to_owned(),
        job: info.slot.job.job.as_str().to_owned(),
        instance: match info.slot.place {
            Place::Instance { n, .. } => Some(n),
            Place::OneOff(_) => None,
        },
        attempt: info.attempt,
        state: state.to_owned(),
        pid: info.pid,
        started_at: info.started.map(time),
        ended_at: info.ended.map(time),
        lived_ms: info.lived.map(millis),
        exit_code,
        signal,
        cause: info.cause.map(|cause_is| cause(cause_is).to_owned()),
        reason,
        reason_code,
        rusage: info.rusage.map(rusage),
        logs: info
            .logs
            .iter()
            .map(|(stream, (from, to))| (stream.clone(), types::LogRange { from: *from, to: *to }))
            .collect(),
        last_lines: Vec::new(),
    }
}

fn rusage(rusage: Rusage) -> types::Rusage {
    types::Rusage {
        user_ms: micros_to_ms(rusage.user_us),
        system_ms: micros_to_ms(rusage.system_us),
        max_rss_bytes: rusage.max_rss_kib.saturating_mul(1024),
        minor_faults: rusage.minor_faults,
        major_faults: rusage.major_faults,
        blocks_in: rusage.blocks_in,
        blocks_out: rusage.blocks_out,
    }
}

/// A sample; with `children` the tree process by process.
pub fn stats(stats: &RunStats, children: bool) -> types::Stats {
    let tree = |process: &gaffer::info::ProcessStats| types::ProcessStats {
        pid: process.pid,
        parent_pid: process.parent,
        name: process.name.clone(),
        cpu_ms: millis(process.cpu),
        memory_bytes: process.memory_bytes,
    };
    types::Stats {
        at: time(stats.at),
        cpu_percent: stats.cpu_percent.map(|percent| (percent * 10.0).round() / 10.0),
        cpu_ms: millis(stats.cpu),
        memory_bytes: stats.memory_bytes,
        processes: u32::try_from(stats.processes.len()).unwrap_or(u32::MAX),
        threads: stats.threads,
        children: if children {
            stats.processes.iter().map(tree).collect()
        } else {
            Vec::new()
        },
    }
}

/// `epoch.seq`, opaque to clients.
pub fn cursor(cursor: gaffer::info::Cursor) -> String {
    format!("{}.{}", cursor.epoch, cursor.seq)
}

/// A cursor as given back.
pub fn parse_cursor(text: &str) -> Option<gaffer::info::Cursor> {
    let (epoch, seq) = text.split_once('.')?;
    Some(gaffer::info::Cursor {
        epoch: epoch.parse().ok()?,
        seq: seq.parse().ok()?,
    })
}

/// An event.
pub fn event(handle: &Handle, record: &EventRecord, node: &str) -> types::Event {
    let event = &record.event;
    let subject = match (&event.slot, &event.job) {
        (Some(slot), _) => subject(slot),
        (None, Some(job)) => job.to_string(),
        (None, None) => {
            let of = |kind: &str| {
                let found = event.data.iter().find(|(key, _)| *key == kind);
                found.map(|(_, name)| format!("{kind}:{name}"))
            };
            of("schedule").or_else(|| of("queue")).unwrap_or_default()
        }
    };
    types::Event {
        cursor: cursor(record.cursor),
        epoch: record.cursor.epoch,
        seq: record.cursor.seq,
        time: time(record.time),
        event: event.event.to_owned(),
        node: node.to_owned(),
        subject,
        run: event.run.map(|run| run.to_string()),
        number: event.run.map(|run| handle.pid_of(run)),
        by: event.by.as_deref().map(str::to_owned),
        reason: event.reason.as_ref().map(|reason| types::Reason {
            code: reason.code.to_owned(),
            text: reason.text.to_string(),
        }),
        data: event
            .data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Value::String(value.clone())))
            .collect(),
    }
}

/// An operation.
pub fn operation(info: &OperationInfo) -> types::Operation {
    let mut data = BTreeMap::new();
    let (exit_code, signal) = exit_parts(info.status);
    if let Some(code) = exit_code {
        data.insert("exit_code".to_owned(), code.into());
    }
    if let Some(signal) = signal {
        data.insert("signal".to_owned(), signal.into());
    }
    if let Some(Slot {
        place: Place::OneOff(n),
        ..
    }) = info.slot
    {
        data.insert("one_off".to_owned(), n.into());
    }
    let outcomes: Vec<types::Outcome> = info.outcomes.iter().map(outcome).collect();
    let failed = |outcome: &&types::Outcome| matches!(outcome.state.as_str(), "failed" | "refused");
    let (mut reason, mut reason_code) = reason_parts(info.reason.as_ref());
    if info.state == OperationState::Failed
        && let Some(first) = outcomes.iter().find(failed)
    {
        reason_code.clone_from(&first.reason_code);
        reason = match outcomes.len() {
            1 => first.reason.clone(),
            all => {
                let count = outcomes.iter().filter(failed).count();
                format!("{count} of {all} failed; {}: {}", first.target, first.reason)
            }
        };
    }
    types::Operation {
        operation: format!("op-{}", info.id.0),
        verb: info.verb.to_owned(),
        target: targets(&outcomes),
        state: operation_state(&info.state).to_owned(),
        reason,
        reason_code,
        created_at: time(info.created),
        ended_at: info.ended.map(time),
        outcomes,
        data,
    }
}

/// All names of a few, the first ones of many.
fn targets(outcomes: &[types::Outcome]) -> String {
    match outcomes {
        [first, second, _, more @ ..] if !more.is_empty() => {
            format!("{}, {} and {} more", first.target, second.target, more.len() + 1)
        }
        few => {
            let names: Vec<&str> = few.iter().map(|outcome| outcome.target.as_str()).collect();
            names.join(" ")
        }
    }
}

fn outcome(outcome: &gaffer::info::Outcome) -> types::Outcome {
    let target = match outcome.target.instance {
        Some(n) => format!("{}.{n}", outcome.target.job),
        None => outcome.target.job.to_string(),
    };
    if let Some(error) = &outcome.refused {
        let error = crate::refusal::Refusal::from(error.clone()).0;
        return types::Outcome {
            target,
            state: "refused".to_owned(),
            reason: error.message,
            reason_code: error.code,
            hint: error.hint,
        };
    }
    let (reason, reason_code) = reason_parts(outcome.reason.as_ref());
    types::Outcome {
        target,
        state: operation_state(&outcome.state).to_owned(),
        reason,
        reason_code,
        hint: None,
    }
}

fn operation_state(state: &OperationState) -> &'static str {
    match state {
        OperationState::Pending => "pending",
        OperationState::Done => "done",
        OperationState::Failed => "failed",
        OperationState::Cancelled => "cancelled",
    }
}

/// A plan.
pub fn plan(info: &PlanInfo, node: &str) -> types::Plan {
    let count = |wanted: PlanAction| {
        u32::try_from(
            info.changes
                .iter()
                .map(|change| change.action)
                .chain(info.tasks.iter().map(|change| change.action))
                .chain(info.schedules.iter().map(|change| change.action))
                .chain(info.webhooks.iter().map(|change| change.action))
                .filter(|action| *action == wanted)
                .count(),
        )
        .unwrap_or(u32::MAX)
    };
    types::Plan {
        hash: info.hash.clone(),
        file: info.file.clone(),
        node: node.to_owned(),
        session: info.session.clone(),
        changes: info
            .changes
            .iter()
            .map(plan_change)
            .chain(info.tasks.iter().map(task_change))
            .chain(info.queues.iter().map(queue_change))
            .chain(info.schedules.iter().map(schedule_change))
            .chain(info.webhooks.iter().map(hook_change))
            .collect(),
        unchanged: info.unchanged,
        added: count(PlanAction::Add),
        changed: count(PlanAction::Change),
        removed: count(PlanAction::Remove),
        runs_ended: info.runs_ended,
        warnings: info.warnings.clone(),
    }
}

fn action(action: PlanAction) -> &'static str {
    match action {
        PlanAction::Add => "add",
        PlanAction::Change => "change",
        PlanAction::Remove => "remove",
    }
}

/// A change of a task, queue or schedule: what it means, and since when.
fn object_change(kind: &str, change: &ObjectChange, effect: &str, says: [&str; 3]) -> types::PlanChange {
    let [added, changed, removed] = says;
    let summary = match change.action {
        PlanAction::Add => added,
        PlanAction::Change => changed,
        PlanAction::Remove => removed,
    };
    types::PlanChange {
        action: action(change.action).to_owned(),
        kind: kind.to_owned(),
        session: change.id.session.to_string(),
        name: change.id.job.to_string(),
        effect: effect.to_owned(),
        summary: summary.to_owned(),
        keys: change.keys.iter().map(plan_key).collect(),
    }
}

fn task_change(change: &ObjectChange) -> types::PlanChange {
    let says = [
        "can be started by its name",
        "counts from its next run",
        "cannot be started any more; what is active goes on",
    ];
    let says = match change.runs {
        true => ["runs by itself, once", "runs by itself, once more", says[2]],
        false => says,
    };
    object_change("task", change, if change.runs { "start" } else { "next" }, says)
}

fn queue_change(change: &ObjectChange) -> types::PlanChange {
    use gaffer_config::ChangeClass;
    let keys = |class| change.keys.iter().filter(move |key| key.class == class);
    let (live, daemon) = (keys(ChangeClass::Live).count(), keys(ChangeClass::Daemon).count());
    let is_change = change.action == PlanAction::Change;
    let (effect, says) = match change.keys.len() - live {
        0 if is_change => ("live", "counts from the next task"),
        rest if is_change && rest == daemon => (
            "daemon",
            if live > 0 {
                "counts from the next task; what needs it, from the next start of the daemon"
            } else {
                "counts from the next start of the daemon"
            },
        ),
        _ if daemon > 0 => (
            "next",
            "counts from the next task; what needs it, from the next start of the daemon",
        ),
        _ => ("next", "counts from the next task"),
    };
    let gone = "takes no tasks any more; those that wait stay in the store";
    object_change("queue", change, effect, ["takes tasks", says, gone])
}

fn schedule_change(change: &ObjectChange) -> types::PlanChange {
    let says = [
        "begins",
        "counts from its next time",
        "does nothing any more; what it began goes on",
    ];
    object_change("schedule", change, "live", says)
}

fn hook_change(change: &gaffer::info::HookChange) -> types::PlanChange {
    let summary = match change.action {
        PlanAction::Add => "gets what happens from now on",
        PlanAction::Change => "goes on with what it says now",
        PlanAction::Remove => "what still waits for it is forgotten",
    };
    types::PlanChange {
        action: action(change.action).to_owned(),
        kind: "webhook".to_owned(),
        session: change.session.clone(),
        name: change.name.clone(),
        effect: "live".to_owned(),
        summary: summary.to_owned(),
        keys: Vec::new(),
    }
}

fn plan_change(change: &gaffer::info::PlanChange) -> types::PlanChange {
    types::PlanChange {
        action: action(change.action).to_owned(),
        kind: "job".to_owned(),
        session: change.job.session.as_str().to_owned(),
        name: change.job.job.as_str().to_owned(),
        effect: change.effect.to_owned(),
        summary: change.summary.clone(),
        keys: change.keys.iter().map(plan_key).collect(),
    }
}

fn plan_key(change: &gaffer_config::Change) -> types::PlanKey {
    use gaffer_config::ChangeClass;
    types::PlanKey {
        path: change.path.clone(),
        old: change.old.clone(),
        new: change.new.clone(),
        class: match change.class {
            ChangeClass::Live => "live",
            ChangeClass::Reload => "reload",
            ChangeClass::NextStart => "next",
            ChangeClass::Daemon => "daemon",
        }
        .to_owned(),
    }
}

/// A shim.
fn shim(info: &ShimInfo) -> types::Shim {
    types::Shim {
        shim: info.n,
        session: info.group.clone(),
        pid: info.pid,
        guard_pid: info.guard_pid,
        version: info.version,
        runs: info.runs,
        state: info.state.to_owned(),
    }
}

/// State and reason of a node that is drained.
pub fn drain_state(drain: &DrainInfo) -> (&'static str, Option<String>) {
    let asked = format!("drained by {} since {}", drain.by, time(drain.since));
    if drain.over {
        return ("drained", Some(format!("{asked}; it takes nothing new")));
    }
    let deadline = drain.deadline.filter(|_| !drain.stops).map(time);
    let until = deadline.map_or_else(String::new, |at| format!(", until {at} at the latest"));
    let waits = match (drain.stops, drain.tasks) {
        (true, _) => "its jobs stop".to_owned(),
        (false, 1) => "1 task goes on".to_owned(),
        (false, tasks) => format!("{tasks} tasks go on"),
    };
    ("draining", Some(format!("{asked}; {waits}{until}")))
}

/// The node; `labels` and `listen` are the daemon's own knowledge.
pub fn node(info: &NodeInfo, labels: BTreeMap<String, String>, listen: Vec<String>) -> types::Node {
    let (state, reason) = match &info.drain {
        None => ("up", None),
        Some(drain) => drain_state(drain),
    };
    types::Node {
        node: info.name.clone(),
        state: state.to_owned(),
        reason,
        reason_code: info.drain.is_some().then(|| "drain".to_owned()),
        labels,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        epoch: info.epoch,
        started_at: time(info.started),
        up_ms: u64::try_from(now().0 - info.started.0).unwrap_or(0),
        state_dir: info.state_dir.display().to_string(),
        listen,
        jobs: info.jobs,
        runs: info.runs,
        shims: info.shims.iter().map(shim).collect(),
        containment: info.containment.to_owned(),
        config: None,
        config_refused: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc_with_milliseconds() {
        assert_eq!(time(Wall(1_795_355_000_012)), "2026-11-22T13:43:20.012Z");
        assert_eq!(time(Wall(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(Wall(i64::MAX)), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_cursor_is_read_back_as_it_was_written() {
        let given = gaffer::info::Cursor { epoch: 3, seq: 17 };
        assert_eq!(parse_cursor(&cursor(given)), Some(given));
        assert_eq!(parse_cursor("3"), None);
        assert_eq!(parse_cursor("-1.2"), None);
    }
}
