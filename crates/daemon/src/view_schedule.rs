//! Schedules, as the API shows them.

use crate::view::time;
use gaffer::schedule::ScheduleInfo;
use gaffer_api::types::schedule::{Schedule, ScheduleTick};
use gaffer_config::Calendar;
use gaffer_core::name::JobId;
use gaffer_core::schedule::Does;
use gaffer_core::time::Wall;

/// A schedule.
pub fn schedule(info: &ScheduleInfo, spec: bool) -> Schedule {
    let row = info.row.clone().unwrap_or_default();
    let calendar = &info.loaded.calendar;
    let state = match (row.paused, info.active || row.waiting.is_some(), info.next) {
        (true, ..) => "paused",
        (_, true, _) => "active",
        (_, _, Some(_)) => "waiting",
        (_, _, None) if info.row.is_none() => "waiting",
        _ => "over",
    };
    let summary = match (state, &row.became) {
        ("paused", _) if row.changed_by.is_empty() => "paused from the beginning".to_owned(),
        ("paused", _) => format!("paused by {}", row.changed_by),
        ("active", Some(became)) if row.waiting.is_some() => format!("one more waits for {became}"),
        ("active", Some(became)) => format!("{became} goes on"),
        _ => String::new(),
    };
    Schedule {
        session: info.loaded.id.session.to_string(),
        schedule: info.loaded.id.job.to_string(),
        state: state.to_owned(),
        summary,
        when: calendar.text().to_owned(),
        zone: calendar.zone_name().to_owned(),
        does: does(&info.loaded.id, &info.loaded.spec.does),
        next_at: info.next.map(time),
        next_local: info.next.map(|at| calendar.local(at)),
        last_tick_at: row.fired.map(time),
        last_at: row.fired_at.map(time),
        last_became: row.became,
        last_skipped: row.note,
        waiting_at: row.waiting.map(time),
        active: info.active,
        paused: row.paused,
        changed_by: row.changed.map(|_| row.changed_by),
        changed_at: row.changed.map(time),
        file: info.file.clone(),
        spec: spec.then(|| info.loaded.typed.clone()),
    }
}

/// `task nightly`; a target of another session with its session.
fn does(id: &JobId, does: &Does) -> String {
    let name = |target: &JobId| match target.session == id.session {
        true => target.job.to_string(),
        false => target.to_string(),
    };
    match does {
        Does::Push { queue, kind, .. } => match kind {
            Some(kind) => format!("queue {} {kind}", name(queue)),
            None => format!("queue {}", name(queue)),
        },
        Does::Task { task, .. } => format!("task {}", name(task)),
        Does::Job { job, action } => format!("job {} {}", name(job), action.word()),
    }
}

/// A tick to come.
pub fn tick(calendar: &Calendar, at: Wall) -> ScheduleTick {
    ScheduleTick {
        at: time(at),
        local: calendar.local(at),
    }
}
