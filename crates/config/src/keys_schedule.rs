//! Keys of `[schedule.X]`: its own, and with `cmd` those of a task of one step.

use crate::diff::ChangeClass::{Live as L, NextStart as N};
use crate::keys::{Key, Use, key};
use crate::keys_task::step_keys;
use crate::kind::Type;
use std::sync::LazyLock;

/// Only schedules have them.
#[rustfmt::skip] // A table reads better as one.
const SCHEDULE_ONLY: &[Key] = &[
    key("cron", Type::Text, "", L, Use::Run, "five or six fields (seconds first), names, ranges, steps; `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`"),
    key("every", Type::Duration, "", L, Use::Run, "an interval, counted from when the schedule was first seen"),
    key("at", Type::Text, "", L, Use::Run, "one instant: `\"2026-12-24T18:00:00Z\"`, or a local time of `zone`"),
    key("zone", Type::Text, "\"UTC\"", L, Use::Run, "time zone of `cron` and `at`: `\"Europe/Berlin\"`"),
    key("task", Type::Name, "", L, Use::Run, "starts a run of `[task.NAME]`"),
    key("params", Type::Map, "{}", L, Use::Run, "of the task; `{{tick}}` and `{{tick.date}}` are the time it is for"),
    key("queue", Type::Text, "", L, Use::Run, "pushes a task to `[queue.NAME]`"),
    key("kind", Type::Text, "", L, Use::Run, "of the pushed task"),
    key("payload", Type::Any, "null", L, Use::Run, "of the pushed task; `{{tick}}` and `{{tick.date}}` in texts"),
    key("job", Type::Text, "", L, Use::Run, "does `action` to `[job.NAME]`"),
    key("action", Type::Word(&["restart", "reload", "start", "stop", "run"]), "\"restart\"", L, Use::Run, "what is done to the job; `run` is one more run beside its instances"),
    key("missed", Type::Word(&["skip", "last", "all"]), "\"skip\"", L, Use::Run, "what becomes of ticks while the node was down or the schedule paused"),
    key("missed_max", Type::Int(1, 10_000), "100", L, Use::Run, "most ticks that `missed = \"all\"` makes up for: the newest"),
    key("overlap", Type::Word(&["skip", "allow", "queue", "replace"]), "\"skip\"", L, Use::Run, "what a tick does while what the one before it began goes on: nothing, the same as always, it waits, it ends the other first"),
    key("jitter", Type::Duration, "\"0s\"", L, Use::Run, "ticks are delayed by up to this, each by its own share"),
    key("once_per", Type::Word(&["node", "fleet"]), "\"node\"", L, Use::Run, "`node`: every node that has the schedule acts; `fleet`: one of those that share the store of its queue pushes"),
    key("start", Type::Bool, "true", L, Use::Run, "`false`: paused until `gaffer schedule resume`"),
    key("description", Type::Text, "", L, Use::Run, "free text"),
    key("meta", Type::Map, "{}", L, Use::Run, "free table of texts: shown, no effect"),
    key("profiles", Type::Texts, "", L, Use::File, "exists only under one of these profiles"),
    key("session", Type::Name, "of the file", L, Use::File, "session of this object"),
];

/// Of steps among others, and without a meaning here.
const NOT_OF_COMMANDS: &[&str] = &["after", "background", "final", "restart"];

static SCHEDULE: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let first = |path: &'static str| path.split('.').next().unwrap_or_default();
    let mut keys = SCHEDULE_ONLY.to_vec();
    let of_cmd = step_keys()
        .iter()
        .filter(|key| !is_schedule_only(first(key.path)) && !NOT_OF_COMMANDS.contains(&first(key.path)));
    keys.extend(of_cmd.map(|key| Key { class: N, ..*key }));
    keys
});

/// Keys of `[schedule.X]`.
pub(crate) fn schedule_keys() -> &'static [Key] {
    &SCHEDULE
}

/// Keys that are the schedule's, and not of the command that it runs.
pub(crate) fn is_schedule_only(name: &str) -> bool {
    SCHEDULE_ONLY.iter().any(|key| key.path == name)
}
