//! The daemon's log: `2026-11-22T14:02:19.012Z info run.exited subject=shop.web.2 run=01k9f code=1`.
//!
//! One line per event of the engine, and of ours. The name of the event is the message; a value that
//! is not one plain word is quoted, so that no value can look like another field or another line.

use crate::sink::Sink;
use crate::view;
use crate::writer;
use gaffer::Handle;
use gaffer::info::EventRecord;
use std::fmt::Write as _;
use std::sync::OnceLock;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, Registry, reload};

/// Hands lines to the writer.
struct Lines;

/// Changes what is written.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        let word = match level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let line = format!(
            "{} {word} {}{}",
            view::time(view::now()),
            fields.message,
            fields.rest
        );
        writer::line(level, line);
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn push(&mut self, name: &str, value: &str) {
        if name == "message" {
            self.message = value.to_owned();
        } else {
            self.rest.push_str(&field(name, value));
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.push(field.name(), &format!("{value:?}"));
    }
}

/// ` name=value`, quoted where it must be.
fn field(name: &str, value: &str) -> String {
    let plain = !value.is_empty()
        && value
            .chars()
            .all(|char| char.is_ascii_graphic() && !matches!(char, '"' | '=' | '\\'));
    match plain {
        true => format!(" {name}={value}"),
        false => format!(" {name}={value:?}"),
    }
}

/// Begins to write the log.
pub fn begin(level: Level, sink: Sink) -> std::io::Result<()> {
    writer::begin()?;
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
    let subscriber = tracing_subscriber::registry().with(filter).with(Lines);
    writer::write_to(sink);
    // A second beginning (in tests) keeps the first.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _already = LEVEL.set(handle);
    }
    std::panic::set_hook(Box::new(|panic| {
        // In one line like all others, and before whatever the panic may end.
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(thread, text = %panic, "daemon.panicked");
        writer::flush();
    }));
    Ok(())
}

/// So much is written from now on.
pub fn write_up_to(level: Level) {
    if let Some(handle) = LEVEL.get() {
        // It fails only when the subscriber is gone, and with it the log.
        let _gone = handle.reload(LevelFilter::from_level(level));
    }
}

/// An event of the engine as one line, without time and level.
pub fn line(record: &EventRecord) -> String {
    let event = &record.event;
    let mut line = event.event.to_owned();
    let mut push = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _written = write!(line, "{}", field(name, value));
    };
    match (&event.slot, &event.job) {
        (Some(slot), _) => push("subject", &view::subject(slot)),
        (None, Some(job)) => push("subject", &job.to_string()),
        (None, None) => {}
    }
    if let Some(run) = event.run {
        push("run", &run.to_string());
    }
    if let Some(by) = &event.by {
        push("by", by);
    }
    for (name, value) in &event.data {
        push(name, value);
    }
    if let Some(reason) = &event.reason {
        push("reason", &reason.text);
    }
    line
}

/// Writes every event of the engine to the log, until the engine ends.
pub async fn follow(handle: Handle) {
    let log = handle.events();
    let mut cursor = log.oldest();
    loop {
        for record in log.read(cursor, 256) {
            cursor = record.cursor;
            match record.event.event {
                "config.refused" => tracing::error!("{}", line(&record)),
                "job.failed" | "run.oom" | "job.flapping" | "log.dropped" => {
                    tracing::warn!("{}", line(&record));
                }
                _ => tracing::info!("{}", line(&record)),
            }
        }
        log.wait(cursor).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_look_like_another_field_or_line() {
        assert_eq!(field("code", "1"), " code=1");
        assert_eq!(field("by", "ana from 10.0.0.7"), " by=\"ana from 10.0.0.7\"");
        assert_eq!(
            field("reason", "x\ninfo run.exited"),
            " reason=\"x\\ninfo run.exited\""
        );
        assert_eq!(field("a", "b=c"), " a=\"b=c\"");
    }
}
