//! Tasks as the API shows them.

use crate::view::time;
use gaffer::info::{Error, RunStats};
use gaffer::task::TaskInfo;
use gaffer::task::layout::Place;
use gaffer_api::types::task::{Task, TaskGc, TaskItem, TaskRun, TaskStatus, TaskStep, TaskUsage};
use gaffer_core::name::RunId;
use gaffer_core::task::fold::{History, Run};
use gaffer_core::task::runner::StepView;
use gaffer_core::task::spec::When;
use std::collections::BTreeMap;

fn location(place: Place) -> String {
    match place {
        Place::Active => "active".to_owned(),
        Place::Finished => "finished".to_owned(),
    }
}

fn ended_at(history: &History) -> Option<String> {
    let last = history.statuses.last()?;
    last.state.is_terminal().then(|| time(last.at))
}

/// A task in a list, also one whose files cannot be read.
pub fn item(id: &str, place: Place, info: Result<&TaskInfo, &Error>) -> TaskItem {
    let info = match info {
        Ok(info) => info,
        Err(error) => {
            return TaskItem {
                id: id.to_owned(),
                state: "corrupt".to_owned(),
                location: location(place),
                summary: error.to_string(),
                reason: error.to_string(),
                user: String::new(),
                launched_at: None,
                ended_at: None,
            };
        }
    };
    let header = info.history.header.as_ref();
    TaskItem {
        id: id.to_owned(),
        state: info.view.state.word().to_owned(),
        location: location(info.place),
        summary: info.view.summary.clone(),
        reason: info.view.reason.as_deref().unwrap_or_default().to_owned(),
        user: header.map(|header| header.user.to_string()).unwrap_or_default(),
        launched_at: header.map(|header| time(header.launched)),
        ended_at: ended_at(&info.history),
    }
}

/// A task, whole; with its definition if asked.
pub fn task(info: &TaskInfo, root: &str, spec: bool, stats: &BTreeMap<RunId, RunStats>) -> Task {
    let (view, history) = (&info.view, &info.history);
    let header = history.header.as_ref();
    let text =
        |text: &dyn Fn(&gaffer_core::task::record::Header) -> String| header.map(text).unwrap_or_default();
    let ports = header.map_or(&[][..], |header| &header.ports[..]);
    Task {
        id: info.id.clone(),
        name: info.name.to_string(),
        session: info.session.clone(),
        root: root.to_owned(),
        state: view.state.word().to_owned(),
        location: location(info.place),
        paused: view.paused,
        summary: view.summary.clone(),
        reason: view.reason.as_deref().unwrap_or_default().to_owned(),
        revision: info.revision(),
        steps: view.steps.iter().map(|one| step(one, history, stats)).collect(),
        retry_of: header.and_then(|header| header.retry_of.as_deref().map(str::to_owned)),
        user: text(&|header| header.user.to_string()),
        hostname: text(&|header| header.hostname.to_string()),
        sandbox: text(&|header| header.sandbox.to_string()),
        log_dir: text(&|header| header.log_dir.to_string()),
        ports: ports
            .iter()
            .map(|(name, port)| (name.to_string(), *port))
            .collect(),
        launched_at: header.map(|header| time(header.launched)),
        ended_at: ended_at(history),
        statuses: statuses(history),
        disk_bytes: None,
        spec: spec.then(|| info.definition.clone()),
    }
}

/// A task that goes, or went.
pub fn collected(one: &gaffer::task::Collected) -> TaskGc {
    TaskGc {
        id: one.id.clone(),
        age_ms: u64::try_from(one.age.as_millis()).unwrap_or(u64::MAX),
        metadata_bytes: one.metadata,
        logs_bytes: one.logs,
        data_bytes: one.data,
    }
}

/// States of a task in order.
pub fn statuses(history: &History) -> Vec<TaskStatus> {
    let shown = history.statuses.iter().map(|status| TaskStatus {
        state: status.state.word().to_owned(),
        at: time(status.at),
        runner_pid: status.runner_pid,
        runner_uid: status.runner_uid,
    });
    shown.collect()
}

fn step(view: &StepView, history: &History, stats: &BTreeMap<RunId, RunStats>) -> TaskStep {
    TaskStep {
        name: view.name.to_string(),
        state: view.state.to_owned(),
        reason: view.reason.clone().unwrap_or_default(),
        attempts: view.attempts,
        next_ms: view
            .next_in
            .map(|next| u64::try_from(next.as_millis()).unwrap_or(u64::MAX)),
        is_final: view.is_final,
        after: view
            .after
            .iter()
            .map(|(on, when)| (on.to_string(), condition(*when)))
            .collect(),
        background: view.background,
        console: view.console,
        outputs: outputs(&view.name, history),
        runs: history
            .steps
            .get(&view.name)
            .map_or_else(Vec::new, |all| runs(all, stats)),
    }
}

/// Outputs of a step that has succeeded, here or in the task that this one runs again.
fn outputs(step: &str, history: &History) -> BTreeMap<String, String> {
    let ran = history
        .last(step)
        .map(|run| &run.outputs)
        .filter(|outputs| !outputs.is_empty());
    let outputs = ran.or_else(|| history.carried.get(step));
    let pairs = outputs.into_iter().flatten();
    pairs
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

fn condition(when: When) -> String {
    match when {
        When::Done => "done",
        When::Ended => "ended",
        When::Failed => "failed",
    }
    .to_owned()
}

/// Runs of a step in order.
pub fn runs(all: &[Run], stats: &BTreeMap<RunId, RunStats>) -> Vec<TaskRun> {
    let one = |(attempt, one): (u32, &Run)| {
        let now = one.run.and_then(|run| stats.get(&run));
        run(attempt, one, now)
    };
    (1..).zip(all).map(one).collect()
}

/// What a run has used, or uses now.
fn usage(run: &Run, now: Option<&RunStats>) -> Option<TaskUsage> {
    if let Some(usage) = run.usage {
        return Some(TaskUsage {
            cpu_ms: usage.cpu_ms,
            cpu_percent: None,
            memory_bytes: None,
            memory_peak_bytes: Some(usage.memory_peak),
        });
    }
    let now = now?;
    Some(TaskUsage {
        cpu_ms: u64::try_from(now.cpu.as_millis()).unwrap_or(u64::MAX),
        cpu_percent: now.cpu_percent.map(|share| (share * 10.0).round() / 10.0),
        memory_bytes: Some(now.memory_bytes),
        memory_peak_bytes: None,
    })
}

fn run(attempt: u32, run: &Run, now: Option<&RunStats>) -> TaskRun {
    let reason = run.reason.as_deref().unwrap_or_default();
    // -1 is also what is written of a run that was left over and killed with the task.
    let signal = run
        .code
        .filter(|code| *code < -1 || (*code == -1 && reason.contains("SIGHUP")))
        .map(|code| gaffer_core::signal::name(-code));
    TaskRun {
        attempt,
        run: run.run.map(|run| run.to_string()),
        state: run.state.word().to_owned(),
        exit_code: run.code.filter(|code| *code >= 0),
        signal,
        pid: run.pid,
        forked_at: run.forked.map(time),
        started_at: run.started.map(time),
        ended_at: run.ended.map(time),
        reason: reason.to_owned(),
        usage: usage(run, now),
    }
}
