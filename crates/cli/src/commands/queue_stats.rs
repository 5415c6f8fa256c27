//! `queue stats`: what a queue did lately.

use crate::commands::queue::find;
use crate::context::Context;
use crate::escape::escape;
use crate::failure::Failure;
use crate::table::{Cell, Column};
use crate::when;
use gaffer_api::types::queue::QueueMinute;
use std::collections::BTreeMap;

/// Minutes as they are in JSON, added up for people.
pub async fn stats(ctx: &Context, queue: &str, window: &str) -> Result<u8, Failure> {
    let (session, queue) = find(ctx, queue).await?;
    let minutes = ctx.client.queue_stats(&session, &queue, window).await?;
    if !ctx.out.is_text() {
        ctx.out.json_list(&minutes)?;
        return Ok(0);
    }
    if minutes.is_empty() {
        ctx.out.say(&format!("nothing was done in the last {window}"));
        return Ok(0);
    }
    let mut kinds: BTreeMap<Option<String>, QueueMinute> = BTreeMap::new();
    for minute in &minutes {
        add(kinds.entry(minute.kind.clone()).or_default(), minute);
    }
    let columns = [
        ("KIND", false),
        ("DONE", true),
        ("RETRIED", true),
        ("DEAD", true),
        ("WAIT", true),
        ("WAIT MAX", true),
        ("RUN", true),
        ("RUN MAX", true),
    ];
    let columns = columns.map(|(title, right)| Column {
        title: title.to_owned(),
        right,
    });
    let rows = kinds
        .iter()
        .map(|(kind, all)| row(kind.as_deref(), all))
        .collect();
    ctx.out.table(&columns, rows)?;
    Ok(0)
}

fn add(all: &mut QueueMinute, one: &QueueMinute) {
    all.begun += one.begun;
    all.done += one.done;
    all.retried += one.retried;
    all.dead += one.dead;
    all.waited_ms += one.waited_ms;
    all.waited_max_ms = all.waited_max_ms.max(one.waited_max_ms);
    all.took_ms += one.took_ms;
    all.took_max_ms = all.took_max_ms.max(one.took_max_ms);
}

fn row(kind: Option<&str>, all: &QueueMinute) -> Vec<Cell> {
    let ended = all.done + all.retried + all.dead;
    let mean = |sum: u64, count: u64| when::duration(sum / count.max(1));
    vec![
        Cell::plain(escape(kind.unwrap_or("-")).into_owned()),
        Cell::plain(all.done.to_string()),
        Cell::plain(all.retried.to_string()),
        Cell::plain(all.dead.to_string()),
        Cell::plain(mean(all.waited_ms, all.begun)),
        Cell::plain(mean(all.waited_max_ms, 1)),
        Cell::plain(mean(all.took_ms, ended)),
        Cell::plain(mean(all.took_max_ms, 1)),
    ]
}
