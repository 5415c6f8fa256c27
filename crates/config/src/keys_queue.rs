//! Keys of `[queue.X]` and `[queue.X.kind.K]`: the run keys of a step, with other defaults, and what only queues have.

use crate::diff::ChangeClass::{Daemon as D, Live as L, NextStart as N};
use crate::keys::{JOB, Key, Use, key, not_yet, table};
use crate::keys_task::step_keys;
use crate::kind::Type;
use std::sync::LazyLock;

/// What is said of steps only.
const NOT_OF_WORK: &[&str] = &[
    "after",
    "restart",
    "background",
    "final",
    "outputs",
    "stdin",
    "description",
    "meta",
    "extends",
    "unset",
];

/// Other defaults than a step's.
const DEFAULTS: &[(&str, &str)] = &[
    ("retry.attempts", "20"),
    ("retry.delay", "\"2s\""),
    ("retry.max_delay", "\"1h\""),
];

/// Of whatever does the work: the queue itself, or one of its kinds.
#[rustfmt::skip] // A table reads better as one.
const WORK_ONLY: &[Key] = &[
    key("task", Type::Name, "", N, Use::Run, "instead of `cmd`: a task (`[task.NAME]`) is started for each; the payload's fields are its `params`"),
    key("schema", Type::Any, "", L, Use::Run, "what a payload has to look like: a file with a JSON Schema, read when the definition is applied, or the schema itself; see docs/queues.md"),
    key("exit.snooze", Type::Ends, "[75]", L, Use::Run, "later, not counted"),
    key("retry.crashes", Type::Count(1), "5", L, Use::Run, "ends by signal or for memory that park a task, counted apart from failures"),
    key("keep_running", Type::Bool, "false", L, Use::Run, "an orderly stop of the daemon leaves workers running for the next daemon"),
];

/// Only queues have them.
#[rustfmt::skip] // A table reads better as one.
const QUEUE_ONLY: &[Key] = &[
    key("workers", Type::Int(0, 100_000), "4", L, Use::Run, "tasks at once on this node; `gaffer scale queue:X=N` moves it"),
    key("resident", Type::Bool, "false", N, Use::Run, "workers are kept and fed lines of JSON"),
    key("slots", Type::Int(1, 10_000), "1", N, Use::Run, "tasks at once in each resident worker"),
    key("input", Type::Word(&["stdin", "env", "file"]), "\"stdin\"", N, Use::Run, "how a command worker gets the payload: on stdin, in `$GAFFER_PAYLOAD`, in the file `$GAFFER_PAYLOAD_FILE`"),
    key("result", Type::Word(&["none", "stdout"]), "\"none\"", N, Use::Run, "`stdout`: its last line of JSON is the result"),
    key("delivery", Type::Word(&["at-least-once", "at-most-once"]), "\"at-least-once\"", L, Use::Run, "what happens to a task whose worker dies: it runs again, or never does"),
    key("lease", Type::Duration, "\"30s\"", L, Use::Run, "a holder that is silent for so long loses its tasks"),
    key("batch", Type::Int(1, 1_000), "free workers", L, Use::Run, "tasks taken from the store at once"),
    key("fifo", Type::Bool, "false", L, Use::Run, "ignore priorities"),
    key("aging", Type::Duration, "", L, Use::Run, "waiting that is worth one step of priority"),
    key("expires", Type::Duration, "", L, Use::Run, "not begun by then: dead"),
    table("keep", None, L, Use::Run, "how long tasks are kept that are over"),
    key("keep.done", Type::Duration, "\"0s\"", L, Use::Run, "done and cancelled ones; who waits for them has a minute in any case"),
    key("keep.dead", Type::Duration, "\"7d\"", L, Use::Run, "dead and lost ones"),
    key("keep.result", Type::Duration, "\"0s\"", L, Use::Run, "results"),
    key("keep.stats", Type::Duration, "\"7d\"", L, Use::Run, "statistics per minute"),
    table("unique", None, L, Use::Run, "tasks that exclude each other"),
    key("unique.by", Type::Texts, "[]", L, Use::Run, "paths in the payload whose values make the key of a task that brings none"),
    key("unique.for", Type::Duration, "", L, Use::Run, "a key counts for so long, in buckets of that length"),
    key("unique.while", Type::Texts, "[\"scheduled\", \"queued\"]", L, Use::Run, "states in which a task excludes others; also `running`, `done`"),
    key("unique.conflict", Type::Word(&["return", "replace", "debounce", "keep-earliest", "error"]), "\"return\"", L, Use::Run, "what a second one does: the first one's id is the answer, it is replaced, moved later, keeps the earlier time, the push is refused"),
    key("unique.max_delay", Type::Duration, "", L, Use::Run, "`debounce` moves at most so far from the first push"),
    table("throttle", None, L, Use::Run, "how many may run, and how often"),
    key("throttle.total", Type::Int(1, 1_000_000), "", L, Use::Run, "over all nodes"),
    key("throttle.per_kind", Type::Int(1, 1_000_000), "", L, Use::Run, "of each kind"),
    key("throttle.key", Type::Text, "", L, Use::Run, "path in the payload whose value is the key"),
    key("throttle.per_key", Type::Int(1, 1_000_000), "", L, Use::Run, "of each key"),
    key("throttle.rate", Type::Text, "", L, Use::Run, "starts: `\"100/min\"`, `\"5/s\"`, `\"1000/h\"`; of each key if there is one"),
    key("pool", Type::Name, "", L, Use::Run, "workers that queues of the session with this pool share: as many as the one of them with the most"),
    key("weight", Type::Int(1, 1_000), "1", L, Use::Run, "share of the pool, by those of its queues with something to do"),
    not_yet("scale", "automatic scaling"),
    key("redact", Type::Texts, "[]", L, Use::Run, "paths in the payload whose values nobody is shown but workers: `\"card.number\"`; of all entries of a list, unless the path has a number"),
    key("max_payload", Type::Size, "\"256K\"", L, Use::Run, "larger ones are refused"),
    key("unknown_kind", Type::Word(&["dead", "wait", "drop"]), "\"dead\"", L, Use::Run, "what becomes of kinds that nothing is defined for"),
    key("durability", Type::Word(&["full", "relaxed"]), "\"full\"", D, Use::Run, "`full`: what was acknowledged survives a loss of power"),
    key("on_stop", Type::Word(&["finish", "drain", "release"]), "\"finish\"", L, Use::Run, "when the daemon stops: running tasks finish, the backlog is worked off, or tasks are given back at once"),
    key("drain_timeout", Type::Duration, "\"10m\"", L, Use::Run, "longest time of `on_stop = \"drain\"`"),
    key("outbox", Type::Path, "", L, Use::Run, "SQLite file of an application: tasks in its table `outbox` are moved into the queue, each exactly once"),
    key("store", Type::Text, "`[gaffer] queue_store`", D, Use::Run, "where its tasks are: `sqlite` is the file in the state dir, `postgres://USER@HOST/DATABASE` a database; queues that name the same one share it"),
    key("description", Type::Text, "", L, Use::Run, "free text"),
    key("meta", Type::Map, "{}", L, Use::Run, "free table of texts: shown, no effect"),
    table("kind", None, L, Use::Run, "`[queue.X.kind.K]`: work of its own for one kind of task"),
    key("extends", Type::Name, "", L, Use::File, "takes over a template"),
    key("unset", Type::Texts, "", L, Use::File, "paths of keys that are not inherited"),
    key("profiles", Type::Texts, "", L, Use::File, "exists only under one of these profiles"),
    key("session", Type::Name, "of the file", L, Use::File, "session of this object"),
];

static KIND: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let first = |path: &'static str| path.split('.').next().unwrap_or_default();
    let own = |path: &str| WORK_ONLY.iter().any(|own| own.path == path);
    let shared = step_keys()
        .iter()
        .filter(|key| !NOT_OF_WORK.contains(&first(key.path)) && !own(key.path));
    let mut keys: Vec<Key> = shared
        .map(|key| Key {
            default: DEFAULTS
                .iter()
                .find_map(|(path, default)| (*path == key.path).then_some(*default))
                .unwrap_or(key.default),
            ..*key
        })
        .collect();
    keys.extend(WORK_ONLY);
    keys
});

static QUEUE: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys = QUEUE_ONLY.to_vec();
    keys.extend(KIND.iter());
    // Of resident workers.
    let probes = JOB.iter().filter(|key| {
        let first = key.path.split('.').next();
        matches!(first, Some("ready" | "health"))
    });
    keys.extend(probes);
    keys
});

/// Keys of `[queue.X]`.
pub(crate) fn queue_keys() -> &'static [Key] {
    &QUEUE
}

/// Keys of what a queue, or a kind of it, runs.
pub(crate) fn work_keys(is_resident: bool) -> &'static [Key] {
    if is_resident { &QUEUE } else { &KIND }
}

/// Keys of `[queue.X.kind.K]`.
pub(crate) fn kind_keys() -> &'static [Key] {
    &KIND
}

/// Keys that a queue has, and no kind of it.
pub(crate) fn is_queue_only(name: &str) -> bool {
    QUEUE_ONLY.iter().any(|key| key.path == name)
}

/// Keys that a template can have for queues.
pub(crate) fn of_templates() -> impl Iterator<Item = &'static Key> {
    let own = [
        "kind",
        "extends",
        "unset",
        "profiles",
        "session",
        "description",
        "meta",
    ];
    QUEUE_ONLY
        .iter()
        .filter(move |key| !own.contains(&key.path))
        .chain(WORK_ONLY)
}
