//! What a plugin's program is told: events as JSON lines on its standard input.
//!
//! The first line is `plugin.start`, with the cursor behind which the events that follow are. Nothing is queued for a program:
//! one that reads slowly keeps its place in the log of events, and what the log has overwritten is told as one `gap`.

use crate::http::Shared;
use crate::view;
use gaffer::info::EventRecord;
use gaffer_core::name::{JobId, RunId};
use serde_json::json;
use std::time::Duration;

/// Events sent at once.
const BATCH: usize = 64;

/// How long a program that does not read is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Feeds the runs of a plugin's job, until it is aborted.
pub async fn run(app: Shared, job: JobId, patterns: Vec<String>) {
    let log = app.handle.events();
    let mut cursor = log.newest();
    let mut fed: Option<RunId> = None;
    loop {
        let live = live_run(&app, &job);
        if let Some(run) = live.filter(|run| fed != Some(*run)) {
            // Whoever begins hears of what comes from now on, and may ask for what was before.
            cursor = log.newest();
            let first =
                json!({"event": "plugin.start", "plugin": job.job.as_str(), "cursor": view::cursor(cursor)});
            if write(&app, run, &format!("{first}\n")).await {
                fed = live;
            }
            continue;
        }
        let records = log.read(cursor, BATCH);
        let Some(last) = records.last().map(|record| record.cursor) else {
            log.wait(cursor).await;
            continue;
        };
        let text = lines(&app, &job, &patterns, &records);
        if let Some(run) = live.filter(|_| !text.is_empty())
            && !write(&app, run, &text).await
        {
            continue;
        }
        cursor = last;
    }
}

fn live_run(app: &Shared, job: &JobId) -> Option<RunId> {
    let info = app.handle.job(job)?;
    let instance = info.view.instances.first()?;
    instance.pid.and(instance.run)
}

/// The records that are wanted; not those of the plugin itself, which would never end.
fn lines(app: &Shared, job: &JobId, patterns: &[String], records: &[EventRecord]) -> String {
    let wanted = |record: &&EventRecord| {
        let event = &record.event;
        let named = || {
            patterns
                .iter()
                .any(|pattern| gaffer::events::matches(pattern, event.event))
        };
        event.job.as_ref() != Some(job) && (event.event == "gap" || named())
    };
    records
        .iter()
        .filter(wanted)
        .map(|record| {
            let event = view::event(&app.handle, record, &app.node);
            // Texts, numbers and maps always have a JSON form.
            serde_json::to_string(&event).unwrap_or_default() + "\n"
        })
        .collect()
}

/// Writes to a run; false: it has to be written again, to this run or to the next.
async fn write(app: &Shared, run: RunId, text: &str) -> bool {
    match app
        .handle
        .run_input(run, "stdin", text.as_bytes().to_vec(), false)
        .await
    {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%run, %error, "plugin.not-read");
            tokio::time::sleep(PAUSE).await;
            false
        }
    }
}
