//! Task files of the original: what is understood, and what each mistake is told as (S10 to S14, B01, B02, G11).

use super::*;
use serde_json::json;

fn context() -> ThermosContext {
    ThermosContext {
        task_id: "t-1".into(),
        user: "ana".into(),
        ports: BTreeMap::from([("http".into(), 8080)]),
        sandbox: "/sandbox".into(),
        ..ThermosContext::default()
    }
}

fn load(json: &Value) -> Result<ThermosTask, Diagnostics> {
    let text = serde_json::to_string_pretty(json).expect("a text");
    load_thermos(&text, Path::new("/f/task.json"), &context())
}

/// The first mistake, as a text.
fn mistake(json: &Value) -> String {
    let Err(Diagnostics(found)) = load(json) else {
        panic!("{json} was accepted");
    };
    let first = found.first().expect("a diagnostic");
    assert!(first.line.is_some(), "it has a place: {first:?}");
    first.message.clone()
}

fn one(process: Value) -> Value {
    json!({ "processes": [process] })
}

#[test]
fn b01_a_task_with_every_default() {
    let loaded = load(&one(json!({"name": "a", "cmdline": "echo hi"}))).expect("a task");
    assert_eq!(&*loaded.spec.name, "a");
    assert_eq!((loaded.spec.failures, loaded.spec.concurrency), (Some(1), None));
    let step = &loaded.spec.steps[0];
    assert_eq!(
        (step.retry.attempts, step.signals_count, step.background),
        (Some(1), false, false)
    );
    assert_eq!(step.launch.shell.as_deref(), Some("/bin/bash"));
    assert_eq!(
        loaded.json,
        json!({"name": "a", "constraints": [], "max_failures": 1, "max_concurrency": 0, "finalization_wait": 30,
            "processes": [{"name": "a", "cmdline": "echo hi", "max_failures": 1, "daemon": false, "ephemeral": false,
            "min_duration": 5, "final": false}]})
    );
    let again = load_thermos_json(&loaded.json, &context()).expect("what is kept is understood");
    assert_eq!((again.spec, again.json), (loaded.spec, loaded.json));
}

#[test]
fn b02_one_of_several_tasks_is_named() {
    let two = json!({"tasks": [one(json!({"name": "a", "cmdline": "x"})), one(json!({"name": "b", "cmdline": "y"}))]});
    assert!(mistake(&two).contains("several tasks in this file (a, b)"));
    let text = two.to_string();
    let mut context = context();
    context.task = Some("b".into());
    let loaded = load_thermos(&text, Path::new("/f"), &context).expect("named");
    assert_eq!(&*loaded.spec.name, "b");
    context.task = Some("c".into());
    assert!(load_thermos(&text, Path::new("/f"), &context).is_err());
    assert!(mistake(&json!({"tasks": []})).contains("no task"));
    assert!(mistake(&json!({"processes": []})).contains("at least one process"));
}

#[test]
fn orders_become_conditions() {
    let loaded = load(&json!({
        "processes": [{"name": "a", "cmdline": "x"}, {"name": "b", "cmdline": "x"}, {"name": "c", "cmdline": "x"}],
        "constraints": [{"order": ["a", "b", "c"]}, {"order": ["a", "b"]}, {"order": ["c"]}],
    }))
    .expect("a task");
    let after: Vec<Vec<usize>> = loaded
        .spec
        .steps
        .iter()
        .map(|step| step.after.iter().map(|(on, _)| *on).collect())
        .collect();
    assert_eq!(after, [vec![], vec![0], vec![1]]);
}

#[test]
fn s10_names_that_are_no_names_of_files() {
    for name in ["a/b", ".a", "", "..", "a\0b", "a\nb", &"x".repeat(201)] {
        let text = mistake(&one(json!({"name": name, "cmdline": "x"})));
        assert!(
            text.contains("cannot be the name of a process"),
            "{name:?}: {text}"
        );
    }
    let twice = json!({"processes": [{"name": "a", "cmdline": "x"}, {"name": "a", "cmdline": "y"}]});
    assert!(mistake(&twice).contains("two processes are called `a`"));
}

#[test]
fn s11_fields_that_are_missing_or_of_the_wrong_kind() {
    let wrong = [
        (json!({"name": "a"}), "process[a].cmdline is required"),
        (
            json!({"name": "a", "cmdline": "x", "max_failures": "many"}),
            "process[a].max_failures is a whole number",
        ),
        (
            json!({"name": "a", "cmdline": "x", "daemon": "perhaps"}),
            "process[a].daemon is true or false",
        ),
        (
            json!({"name": "a", "cmdline": "x", "min_duration": -1}),
            "process[a].min_duration is a number from 0",
        ),
        (
            json!({"name": "a", "cmdline": "x", "resources": {"cpu": 1}}),
            "resources.ram is required",
        ),
        (
            json!({"name": "a", "cmdline": "x", "logger": {"destination": "moon"}}),
            "logger.destination is one of",
        ),
        (
            json!({"name": "a", "cmdline": "x", "colour": 1}),
            "unknown field `process[a].colour`",
        ),
    ];
    for (process, text) in wrong {
        let told = mistake(&one(process));
        assert!(told.contains(text), "{told}");
    }
    let also = json!({"processes": [{"name": "a", "cmdline": "x"}], "max_concurency": 1});
    assert!(mistake(&also).contains("unknown field `max_concurency`"));
}

#[test]
fn g11_rotation_is_checked_before_anything_runs() {
    for rotate in [
        json!({"log_size": 0}),
        json!({"backups": 0}),
        json!({"log_size": -5}),
    ] {
        let told = mistake(&one(
            json!({"name": "a", "cmdline": "x", "logger": {"mode": "rotate", "rotate": rotate}}),
        ));
        assert!(told.contains("is at least 1"), "{told}");
    }
    let loaded = load(&one(
        json!({"name": "a", "cmdline": "x", "logger": {"mode": "rotate"}}),
    ))
    .expect("defaults");
    let logs = &loaded.spec.steps[0].logs;
    assert_eq!(
        (logs.segment, logs.size),
        (100 << 20, 600 << 20),
        "g06: six files"
    );
}

#[test]
fn s12_references_without_a_value() {
    for (cmdline, text) in [
        ("{{foo}}", "`{{foo}}` has no value"),
        ("{{thermos.zzz}}", "`{{thermos.zzz}}` has no value"),
        ("{{thermos.ports.http}}", "`{{thermos.ports.http}}` has no value"),
        ("{{thermos.ports[admin]}}", "port `admin` has no number"),
        ("{{ name }}", "`{{ name }}` has no value"),
    ] {
        let told = mistake(&one(json!({"name": "a", "cmdline": cmdline})));
        assert!(told.contains(text), "{told}");
    }
}

#[test]
fn s13_and_s14_what_is_filled_in() {
    let mut context = context();
    context.bindings = BTreeMap::from([("zz".into(), "name=of it".into())]);
    let json = one(json!({
        "name": "a", "max_failures": "{{tries}}",
        "cmdline": "echo {{name}} {{zz}} {{&foo}} ${x} {{thermos.task_id}} {{thermos.user}} {{thermos.ports[http]}}",
    }));
    context.bindings.insert("tries".into(), "3".into());
    let loaded = load_thermos(&json.to_string(), Path::new("/f"), &context).expect("filled in");
    let process = &loaded.json["processes"][0];
    assert_eq!(process["cmdline"], "echo a name=of it {{foo}} ${x} t-1 ana 8080");
    assert_eq!(process["max_failures"], 3);
    assert!(loaded.ports.contains("http"));
}

#[test]
fn impossible_graphs_are_told_with_their_names() {
    let graph =
        |a: Value, b: Value, order: Value| json!({"processes": [a, b], "constraints": [{"order": order}]});
    let p = |name: &str, more: &str| json!({"name": name, "cmdline": "x", more: true});
    let plain = |name: &str| json!({"name": name, "cmdline": "x"});
    for (json, text) in [
        (
            graph(p("a", "daemon"), plain("b"), json!(["a", "b"])),
            "run again whenever it ends",
        ),
        (
            graph(p("a", "ephemeral"), plain("b"), json!(["a", "b"])),
            "runs in the background",
        ),
        (
            graph(p("a", "final"), plain("b"), json!(["a", "b"])),
            "one of them is final",
        ),
        (
            graph(plain("a"), plain("b"), json!(["a", "b", "a"])),
            "wait for each other: ",
        ),
        (
            graph(plain("a"), plain("b"), json!(["a", "bb"])),
            "names `bb`, which is no process",
        ),
        (graph(plain("a"), plain("b"), json!([])), "at least one process"),
    ] {
        let told = mistake(&json);
        assert!(told.contains(text), "{told}");
    }
}

#[test]
fn a_task_is_told_from_a_job_file() {
    assert!(is_thermos(r#"{"processes": []}"#));
    assert!(is_thermos(r#"{"tasks": [{"processes": []}]}"#));
    assert!(!is_thermos(r#"{"jobs": []}"#));
    assert!(!is_thermos("session = 'x'"));
}

#[test]
fn a_lifecycle_has_its_defaults_and_says_what_is_wrong() {
    let with = |http: Value| json!({"name": "t", "processes": [{"name": "a", "cmdline": "x"}], "lifecycle": {"http": http}});
    let loaded = load(&with(json!({}))).expect("defaults").lifecycle.expect("one");
    assert_eq!(loaded.port, "health");
    let calls = loaded.calls.map(|call| (call.endpoint, call.wait.as_secs()));
    assert_eq!(
        calls,
        [
            ("/quitquitquit".to_owned(), 5),
            ("/abortabortabort".to_owned(), 5)
        ]
    );
    for (http, text) in [
        (
            json!({"shutdown_endpoint": "abort"}),
            "shutdown_endpoint is a path",
        ),
        (
            json!({"shutdown_endpoint": "/a b"}),
            "shutdown_endpoint is a path",
        ),
        (
            json!({"graceful_shutdown_wait_secs": -1}),
            "graceful_shutdown_wait_secs",
        ),
        (json!({"ports": "x"}), "unknown field `lifecycle.http.ports`"),
    ] {
        let told = mistake(&with(http));
        assert!(told.contains(text), "{told}");
    }
    assert!(
        mistake(&json!({"processes": [{"name": "a", "cmdline": "x"}], "lifecycle": 5})).contains("object")
    );
}
