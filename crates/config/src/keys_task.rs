//! Keys of `[task.X]` and `[task.X.step.Y]`: the run keys, as the table of jobs has them, with other defaults, and what
//! only steps and tasks have.

use crate::diff::ChangeClass::NextStart as N;
use crate::keys::{JOB, Key, Use, key, table};
use crate::kind::Type;
use std::sync::LazyLock;

/// What is said of jobs only, or of what lives long.
const NOT_OF_STEPS: &[&str] = &[
    "ready",
    "health",
    "streams",
    "idle_stop",
    "recycle",
    "watch",
    "scale",
    "events",
    "timeout",
    "profiles",
    "session",
    "keep_running",
];

/// Other defaults than a job's.
const DEFAULTS: &[(&str, &str)] = &[
    ("retry.attempts", "1"),
    ("retry.delay", "\"5s\""),
    ("retry.max_delay", "\"5m\""),
];

/// Only steps have them.
#[rustfmt::skip] // A table reads better as one.
const STEP_ONLY: &[Key] = &[
    key("timeout", Type::Duration, "", N, Use::Run, "longest life of one run; then it is asked to end, and has failed"),
    key("after", Type::AfterStep, "[]", N, Use::Run, "names of steps, or name → `done`, `ended`, `failed`"),
    key("restart", Type::Word(&["on-failure", "always", "never"]), "\"on-failure\"", N, Use::Run, "`always`: success does not finish it, it runs until the task ends; `never`: one attempt"),
    key("background", Type::Bool, "false", N, Use::Run, "does not keep the task alive nor fail it"),
    key("final", Type::Bool, "false", N, Use::Run, "runs at the end, whatever the result"),
    key("outputs", Type::Texts, "[]", N, Use::Run, "names; the program writes lines `name=value` to `$GAFFER_OUTPUT`, later steps read `{{steps.STEP.outputs.NAME}}`; a missing one fails the step"),
];

/// Only tasks have them.
#[rustfmt::skip] // A table reads better as one.
const TASK_ONLY: &[Key] = &[
    key("start", Type::Bool, "", N, Use::Run, "runs by itself, once for each definition: when the session starts, and when it has changed. `true` where a job comes after it"),
    key("params", Type::Params, "{}", N, Use::Run, "names and defaults of `{{params.NAME}}`; `{ required = true }` has none"),
    key("order", Type::Order, "[]", N, Use::Run, "names of steps, each after the one before it; or several such lists"),
    key("concurrency", Type::Count(1), "\"unlimited\"", N, Use::Run, "steps at once"),
    key("failures", Type::Count(1), "1", N, Use::Run, "steps that fail for good before the task fails"),
    key("finalize_timeout", Type::Duration, "\"30s\"", N, Use::Run, "one budget for clean-up and final steps"),
    key("timeout", Type::Duration, "", N, Use::Run, "longest life of the whole; then the task is ended, and has failed"),
    table("stop", Some("timeout"), N, Use::Run, "how it is ended"),
    key("stop.timeout", Type::Duration, "\"60s\"", N, Use::Run, "budget of `gaffer task kill`"),
    key("unique", Type::Text, "\"none\"", N, Use::Run, "`task`, or a text with templates: at most one active run per key"),
    table("keep", None, N, Use::Run, "how long the daemon keeps runs that are over; then checkpoint, output and working directory go"),
    key("keep.done", Type::Duration, "\"7d\"", N, Use::Run, "those that succeeded"),
    key("keep.failed", Type::Duration, "\"30d\"", N, Use::Run, "those that failed, were killed or lost"),
    key("keep.count", Type::Count(1), "\"unlimited\"", N, Use::Run, "at most so many, the newest"),
    key("keep.size", Type::Size, "", N, Use::Run, "at most so large together: the oldest go"),
    key("after", Type::After, "[]", N, Use::Run, "jobs and tasks, or name → `started`, `ready`, `done`, `ended`: no step begins before"),
    key("priority", Type::Int(-1_000_000_000, 1_000_000_000), "0", N, Use::Run, "of tasks that start by themselves at once, lower starts first"),
    key("description", Type::Text, "", N, Use::Run, "free text"),
    key("meta", Type::Map, "{}", N, Use::Run, "free table of texts: shown, no effect"),
    table("step", None, N, Use::Run, "`[task.X.step.Y]`; without any the task is one step, and takes its keys"),
    key("profiles", Type::Texts, "", N, Use::File, "exists only under one of these profiles"),
    key("session", Type::Name, "of the file", N, Use::File, "session of this object"),
];

fn first(path: &str) -> &str {
    path.split('.').next().unwrap_or_default()
}

static STEP: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let shared = JOB.iter().filter(|key| {
        let own = STEP_ONLY.iter().any(|own| own.path == key.path);
        !own && key.used != Use::Job && !NOT_OF_STEPS.contains(&first(key.path))
    });
    let mut keys: Vec<Key> = shared
        .map(|key| Key {
            class: N,
            default: DEFAULTS
                .iter()
                .find_map(|(path, default)| (*path == key.path).then_some(*default))
                .unwrap_or(key.default),
            ..*key
        })
        .collect();
    keys.extend(STEP_ONLY);
    keys
});

/// A task of one step takes the step's keys too; `stop.timeout` and `timeout` are the task's.
static TASK: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys = TASK_ONLY.to_vec();
    let not_one_step = ["after", "restart", "background", "final", "outputs", "timeout"];
    let shared = STEP.iter().filter(|key| {
        let own = TASK_ONLY.iter().any(|own| own.path == key.path);
        !own && !not_one_step.contains(&key.path)
    });
    keys.extend(shared.copied());
    keys
});

/// A template is taken over by jobs and by steps.
static TEMPLATE: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let of_step = |key: &&Key| ["timeout", "background", "final", "outputs"].contains(&key.path);
    let mut keys: Vec<Key> = JOB.iter().filter(|key| key.path != "timeout").copied().collect();
    keys.extend(STEP_ONLY.iter().filter(of_step));
    let known = |key: &&Key| {
        !keys
            .iter()
            .any(|known| known.path == key.path && known.used != Use::NotYet)
    };
    let of_queues: Vec<Key> = crate::keys_queue::of_templates().filter(known).copied().collect();
    keys.retain(|key| !of_queues.iter().any(|own| own.path == key.path));
    keys.extend(of_queues);
    keys
});

/// Keys of `[task.X.step.Y]`.
pub(crate) fn step_keys() -> &'static [Key] {
    &STEP
}

/// Keys of `[task.X]`.
pub(crate) fn task_keys() -> &'static [Key] {
    &TASK
}

/// Keys that only a task has, with or without steps.
pub(crate) fn is_task_only(name: &str) -> bool {
    TASK_ONLY.iter().any(|key| key.path == name) && !["extends", "unset"].contains(&name)
}

/// Keys of `[template.T]`.
pub(crate) fn template_keys() -> &'static [Key] {
    &TEMPLATE
}
