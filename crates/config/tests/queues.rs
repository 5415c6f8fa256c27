//! `[queue.X]`: what it means, what is wrong with it, and that what is kept means the same.

mod fixture;

use fixture::toml;
use gaffer_config::{LoadedQueue, StoredHost, load_queue_json};
use gaffer_core::job::ProbeKind;
use gaffer_core::queue::schema::Kind;
use gaffer_core::queue::spec::{By, Conflict, Delivery, OnStop, PayloadBy, Unknown};
use gaffer_core::queue::vigil::Probing;
use std::time::Duration;

fn loaded(text: &str) -> Vec<LoadedQueue> {
    let config = toml(text).unwrap_or_else(|errors| panic!("{}", errors.render(false)));
    config.queues.into_values().collect()
}

fn one(text: &str) -> LoadedQueue {
    let mut all = loaded(text);
    assert_eq!(all.len(), 1, "one queue");
    all.remove(0)
}

fn wrong(text: &str) -> String {
    match toml(text) {
        Ok(_) => panic!("it was taken: {text}"),
        Err(errors) => errors.render(false),
    }
}

const FULL: &str = r#"
session = "media"
[queue.thumbs]
cmd = "./thumbs {{payload.file}} --queue {{queue}}"
workers = 2
input = "env"
result = "stdout"
delivery = "at-most-once"
lease = "20s"
batch = 8
fifo = true
aging = "10s"
expires = "1h"
keep = { done = "1h", dead = "14d", result = "2h" }
unique = { by = ["file"], for = "1h", while = ["running"], conflict = "debounce", max_delay = "5m" }
throttle = { total = 9, per_kind = 3, key = "customer", per_key = 2, rate = "100/min" }
max_payload = "1M"
redact = ["card.number"]
schema = { type = "object", required = ["file"], properties = { n = { enum = [1, "a"] } } }
unknown_kind = "wait"
durability = "relaxed"
on_stop = "drain"
drain_timeout = "2m"
timeout = "5m"
retry = { attempts = 8, delay = "5s", crashes = 2 }
exit = { fatal = [3], snooze = [9] }
stop = "3s"

[queue.thumbs.kind.video]
cmd = ["./thumbs", "--video"]
schema = { type = "string" }
timeout = "30m"
"#;

#[test]
fn every_key_has_its_meaning() {
    let queue = one(FULL);
    assert_eq!(queue.id.to_string(), "media.thumbs");
    let spec = &queue.spec;
    assert_eq!((spec.workers, spec.batch, spec.fifo), (2, Some(8), true));
    assert_eq!(spec.delivery, Delivery::AtMostOnce);
    assert_eq!((spec.input, spec.result_stdout), (PayloadBy::Env, true));
    assert_eq!(spec.lease, Duration::from_secs(20));
    assert_eq!(spec.aging, Some(Duration::from_secs(10)));
    assert_eq!(spec.expires, Some(Duration::from_secs(3600)));
    assert_eq!(spec.keep.dead, Duration::from_secs(14 * 86_400));
    let unique = spec.unique.as_ref().expect("unique");
    assert_eq!(
        (unique.conflict, unique.while_running, unique.while_done),
        (Conflict::Debounce, true, false)
    );
    assert_eq!(spec.throttle.rate, Some((100, Duration::from_secs(60))));
    assert_eq!(spec.max_payload, 1 << 20);
    assert_eq!(spec.redact, ["card.number"]);
    let schema = spec.work.schema.as_ref().expect("a schema");
    assert_eq!(
        (&*schema.kinds, &*schema.required),
        ([Kind::Object].as_slice(), ["file".into()].as_slice())
    );
    assert_eq!(
        (spec.unknown, spec.full, spec.on_stop),
        (Unknown::Wait, false, OnStop::Drain)
    );
    assert_eq!(spec.work.timeout, Some(Duration::from_secs(300)));
    assert_eq!((spec.work.retry.attempts, spec.work.crashes), (Some(8), 2));
    let video = spec.work(Some("video"));
    assert_eq!(video.timeout, Some(Duration::from_secs(1800)));
    let own = video.schema.as_ref().expect("a schema of its own");
    assert_eq!((&*own.kinds, own.required.len()), ([Kind::String].as_slice(), 0));
    assert_eq!(
        video.retry.attempts,
        Some(8),
        "a kind inherits what it does not say"
    );
    let By::Cmd(launch) = &video.by else {
        panic!("a command");
    };
    assert_eq!(launch.cmd, ["./thumbs", "--video"]);
}

#[test]
fn what_is_kept_means_the_same() {
    let queue = one(FULL);
    let again = load_queue_json("media", "thumbs", &queue.typed, &StoredHost);
    let again = again.unwrap_or_else(|errors| panic!("{}", errors.render(false)));
    assert_eq!(again.spec, queue.spec);
    assert_eq!(again.typed, queue.typed);
}

#[test]
fn resident_workers_are_asked_and_others_inherit_nothing_of_it() {
    let text = "[defaults]\nhealth = { tcp = \"localhost:1\", failures = 9 }\n\
        [queue.q]\ncmd = \"a\"\nresident = true\nready = { http = \"http://127.0.0.1:$PORT/up\", within = \"5s\" }\nport = \"auto\"\n";
    let queue = one(text);
    let probing = &queue.spec.probing;
    assert_eq!(probing.within, Duration::from_secs(5));
    assert!(matches!(&probing.ready, Some(probe) if matches!(probe.kind, ProbeKind::Http(_))));
    assert!(matches!(&probing.health, Some(probe) if probe.failures == 9));
    let again = load_queue_json("default", "q", &queue.typed, &StoredHost).expect("kept");
    assert_eq!(again.spec, queue.spec);
    let plain = one("[defaults]\nhealth.tcp = \"localhost:1\"\n[queue.q]\ncmd = \"a\"\n");
    assert_eq!(plain.spec.probing, Probing::default());
}

#[test]
fn a_queue_without_work_is_for_workers_outside() {
    let queue = one("[queue.ext]\n");
    assert_eq!(queue.spec.work.by, By::Others);
    assert!(!queue.spec.is_ours());
    let again = load_queue_json("default", "ext", &queue.typed, &StoredHost).expect("kept");
    assert_eq!(again.spec, queue.spec);
}

#[test]
fn a_kind_that_is_a_task_does_not_take_over_the_command() {
    let queue = one("[queue.q]\ncmd = \"a\"\n[queue.q.kind.k]\ntask = \"nightly\"\n");
    assert_eq!(queue.spec.work(Some("k")).by, By::Task("nightly".into()));
    assert!(matches!(queue.spec.work(None).by, By::Cmd(_)));
}

#[test]
fn defaults_and_templates_are_inherited() {
    let queue = one(
        "[defaults]\nnice = 5\n[defaults.queue]\nworkers = 9\n[template.t]\nlease = \"1m\"\n[queue.q]\nextends = \"t\"\ncmd = \"a\"\n",
    );
    assert_eq!(
        (queue.spec.workers, queue.spec.lease),
        (9, Duration::from_secs(60))
    );
    let By::Cmd(launch) = &queue.spec.work.by else {
        panic!("a command");
    };
    assert_eq!(launch.nice, 5);
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let cases = [
        ("cmd = \"a\"\ntask = \"b\"", "the work is one of them"),
        ("cmd = \"a\"\nlease = \"10ms\"", "at least a second"),
        ("resident = true", "it needs `cmd`"),
        ("cmd = \"a\"\nslots = 4", "add resident = true"),
        ("cmd = \"a\"\nthrottle.rate = \"many\"", "100/min"),
        (
            "cmd = \"a\"\nunique = { while = [\"sleeping\"] }",
            "scheduled, queued, running, done",
        ),
        ("cmd = \"a\"\nunique = { while = [\"done\"] }", "add unique.for"),
        (
            "cmd = \"echo {{payload.x}}\"\nshell = true",
            "must not become a part of a script",
        ),
        ("cmd = \"a {{steps.x.exit_code}}\"", "steps of tasks only"),
        ("cmd = \"a\"\ndelivery = \"exactly-once\"", "at-least-once"),
        ("cmd = \"a\"\ninstances = 3", "unknown key `instances`"),
        ("cmd = \"a\"\nkind.k.nice = 100", "nice"),
        (
            "cmd = \"a\"\nready.notify = true",
            "`ready` is of resident workers",
        ),
        (
            "cmd = \"a\"\nresident = true\nhealth = { every = \"1s\" }",
            "`health` has no probe",
        ),
        ("redact = [\"card..number\"]", "write names with dots"),
        (
            "schema = \"none.json\"",
            "`schema` names none.json: there is no such file",
        ),
        ("schema = 7", "`schema` is a file or a JSON Schema, not a number"),
        (
            "schema.properties.a.pattern = \"x\"",
            "`properties.a.pattern` is not understood",
        ),
    ];
    for (lines, expected) in cases {
        let said = wrong(&format!("[queue.q]\n{lines}\n"));
        assert!(said.contains(expected), "{lines}\n{said}");
    }
}

#[test]
fn only_queues_name_payloads() {
    let said = wrong("[job.web]\ncmd = \"a {{payload.x}}\"\n");
    assert!(said.contains("workers of queues only"), "{said}");
    let said = wrong("[job.web]\ncmd = \"a\"\nexit.snooze = [75]\n");
    assert!(said.contains("only queued tasks are put off"), "{said}");
}

#[test]
fn queues_share_a_pool_by_weight() {
    let all = loaded("[queue.a]\npool = \"heavy\"\nweight = 3\n[queue.b]\npool = \"heavy\"\n[queue.c]");
    let shares: Vec<_> = all
        .iter()
        .map(|one| (one.spec.pool.as_deref(), one.spec.weight))
        .collect();
    assert_eq!(shares, [(Some("heavy"), 3), (Some("heavy"), 1), (None, 1)]);
    let alone = wrong("[queue.a]\nweight = 3\n");
    assert!(
        alone.contains("`weight` is a share of a pool") && alone.contains("add pool ="),
        "{alone}"
    );
    let heavy = wrong("[queue.a]\npool = \"p\"\nweight = 0\n");
    assert!(heavy.contains("`weight` must be at least 1"), "{heavy}");
}

#[test]
fn another_store_counts_from_the_next_start_of_the_daemon_and_its_password_is_not_told() {
    let queue = |store: &str| serde_json::json!({ "cmd": ["x"], "store": store });
    let long = "x".repeat(200);
    let one = format!("postgres://gaffer:S3CRET{long}@db/queue");
    let said = |old: &str, new: &str| {
        let changes = gaffer_config::diff_queue(&queue(old), &queue(new));
        assert_eq!(changes.len(), 1, "{changes:?}");
        let change = changes.into_iter().next().expect("one");
        assert_eq!(
            (change.path.as_str(), change.class),
            ("store", gaffer_config::ChangeClass::Daemon)
        );
        [change.old, change.new].map(Option::unwrap_or_default)
    };
    let masked = "\"postgres://gaffer:***@db/queue\"";
    assert_eq!(said("sqlite", &one), ["\"sqlite\"", masked]);
    let other = one.replace("S3CRET", "ANOTHER");
    assert_eq!(said(&one, &other), ["old password", "new password"]);
}
