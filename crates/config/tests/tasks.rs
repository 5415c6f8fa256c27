//! `[task.X]`: what it means, what is inherited, and every mistake with its place.

mod fixture;

use fixture::{ROOT, bundle, toml};
use gaffer_config::{LoadedTask, RunContext, TaskRun, Unique, expand, load, load_task_json};
use gaffer_core::task::spec::{Step, When};
use std::collections::BTreeMap;
use std::time::Duration;

/// The pipeline of the manual.
const ETL: &str = r#"
session = "etl"

[task.nightly]
params = { day = "yesterday", table = { required = true } }
concurrency = 2
timeout = "2h"
order = ["extract", "clean", "load"]
[task.nightly.step.extract]
cmd = "./extract.py --day {{params.day}} --out {{task.dir}}/raw.csv"
retry = { attempts = 5, delay = "10s", max_delay = "5m" }
outputs = ["rows"]
[task.nightly.step.clean]
cmd = "./clean.py {{task.dir}}/raw.csv"
[task.nightly.step.load]
cmd = ["./load.py", "--expect", "{{steps.extract.outputs.rows}}", "$GAFFER_STEP"]
exit.fatal = [64]
[task.nightly.step.notify]
cmd = "./notify.sh {{task.id}}"
final = true
"#;

fn only(text: &str) -> LoadedTask {
    let config = toml(text).unwrap_or_else(|errors| panic!("{}", errors.render(false)));
    config.tasks.into_values().next().expect("a task")
}

/// Message, what is marked, and hint of each error.
fn said(text: &str) -> Vec<String> {
    let errors = match toml(text) {
        Ok(_) => return vec!["no error".to_owned()],
        Err(errors) => errors,
    };
    let one = |one: &gaffer_config::Diagnostic| {
        let marked = one.excerpt.as_ref().map_or(String::new(), |excerpt| {
            let chars = excerpt
                .text
                .chars()
                .skip(excerpt.start as usize)
                .take(excerpt.len as usize);
            chars.collect()
        });
        let help = one.help.as_deref().unwrap_or_default();
        format!("{} [{marked}] {help}", one.message).trim_end().to_owned()
    };
    errors.iter().map(one).collect()
}

#[test]
fn a_pipeline_means_what_it_says() {
    let task = only(ETL);
    assert_eq!(task.id.to_string(), "etl.nightly");
    let names: Vec<&str> = task.spec.steps.iter().map(|step| &*step.name).collect();
    assert_eq!(
        names,
        ["extract", "clean", "load", "notify"],
        "in the order of the file"
    );
    let [extract, clean, load, notify] = &task.spec.steps[..] else {
        panic!("four steps")
    };
    assert!(extract.after.is_empty() && notify.after.is_empty());
    assert_eq!(clean.after, [(0, When::Done)]);
    assert_eq!(load.after, [(1, When::Done)]);
    assert!(notify.is_final && !load.is_final);
    assert_eq!(extract.retry.attempts, Some(5));
    assert_eq!(
        clean.retry,
        Step::of("", gaffer_core::job::Launch::of(Vec::new())).retry
    );
    assert_eq!(extract.outputs.len(), 1);
    assert_eq!(task.spec.concurrency, Some(2));
    assert_eq!(task.spec.timeout, Some(Duration::from_secs(7200)));
    assert_eq!(task.spec.failures, Some(1));
    assert_eq!(task.params["day"].as_deref(), Some("yesterday"));
    assert_eq!(task.params["table"], None);
    assert!(load.signals_count, "a native step that is killed has failed");
}

#[test]
fn what_is_kept_means_the_same() {
    let task = only(ETL);
    let again = load_task_json("etl", "nightly", &task.typed, &ROOT).expect("understood");
    assert_eq!((&again.spec, &again.typed), (&task.spec, &task.typed));
    let config = toml(
        "[task.one]\ncmd = \"x a\"\nstop = { timeout = \"5s\", signal = \"INT\" }\nunique = \"task\"\nenv = { A = 1 }\n",
    );
    let one = config.expect("good").tasks.into_values().next().expect("a task");
    let again = load_task_json("default", "one", &one.typed, &ROOT).expect("understood");
    assert_eq!(
        (&again.spec, &again.typed, &again.unique),
        (&one.spec, &one.typed, &Unique::Task)
    );
}

#[test]
fn a_task_without_steps_is_one() {
    let task =
        only("[task.migrate]\ncmd = \"bin/migrate --all\"\ntimeout = \"1m\"\nstop = \"7s\"\nretry = 3\n");
    let [step] = &task.spec.steps[..] else {
        panic!("one step")
    };
    assert_eq!(
        (&*step.name, &step.launch.cmd[..]),
        ("migrate", &["bin/migrate".to_owned(), "--all".to_owned()][..])
    );
    assert_eq!(
        (step.timeout, task.spec.timeout),
        (None, Some(Duration::from_secs(60)))
    );
    assert_eq!(task.spec.stop_timeout, Duration::from_secs(7));
    assert_eq!(step.retry.attempts, Some(3));
}

#[test]
fn steps_inherit_like_jobs() {
    let text = r#"
        [env]
        A = "low"
        [defaults.step]
        timeout = "9s"
        nice = 5
        [template.big]
        nice = 7
        env = { A = "mid-$A" }
        background = true
        [task.t.step.a]
        cmd = "x"
        [task.t.step.b]
        extends = "big"
        cmd = "x"
        unset = ["timeout"]
        [profile.p]
        task.t.step.a.nice = 1
    "#;
    let mut files = bundle(&[("gaffer.toml", text)]);
    files.profiles = vec!["p".to_owned()];
    let config = load(&files, &ROOT).unwrap_or_else(|errors| panic!("{}", errors.render(false)));
    let task = config.tasks.into_values().next().expect("a task");
    let [a, b] = &task.spec.steps[..] else {
        panic!("two steps")
    };
    assert_eq!(
        (a.timeout, a.launch.nice, a.background),
        (Some(Duration::from_secs(9)), 1, false)
    );
    assert_eq!((b.timeout, b.launch.nice, b.background), (None, 7, true));
    assert_eq!(b.launch.env.len(), 2);
}

#[test]
fn texts_of_a_step_are_filled_in_when_it_starts() {
    let task = only(ETL);
    let step = &task.spec.steps[2];
    let job = task.id.clone();
    let (ports, base_env) = (BTreeMap::new(), BTreeMap::new());
    let params = BTreeMap::new();
    let run = TaskRun {
        name: "nightly",
        id: "nightly-1",
        dir: "/work/$HOME",
        step: "load",
        params: &params,
        said: &|step, name| {
            ((step, name) == ("extract", Some("rows"))).then(|| "18 230 $X {{job}}".to_owned())
        },
    };
    let context = RunContext {
        node: "alpha",
        job: &job,
        instance: None,
        run: "1.1",
        attempt: 1,
        ports: &ports,
        base_env: &base_env,
        shell: "/bin/sh",
        task: Some(&run),
        queue: None,
        added: &[],
    };
    let expanded = expand(&step.launch, &context).expect("expanded");
    assert_eq!(
        expanded.argv,
        ["./load.py", "--expect", "18 230 $X {{job}}", "load"],
        "a value is one word"
    );
    let value = |name: &str| {
        expanded
            .env
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(
        (value("GAFFER_TASK"), value("GAFFER_STEP")),
        (Some("nightly-1"), Some("load"))
    );
    assert_eq!((value("INSTANCE"), value("GAFFER_JOB")), (None, None));
}

#[test]
fn conditions_are_those_of_ends() {
    let task = only(
        "[task.t.step.a]\ncmd = \"x\"\n[task.t.step.b]\ncmd = \"x\"\nafter = { a = \"failed\" }\n[task.t.step.c]\ncmd = \"x\"\nafter = { a = \"ended\" }\n",
    );
    assert_eq!(task.spec.steps[1].after, [(0, When::Failed)]);
    assert_eq!(task.spec.steps[2].after, [(0, When::Ended)]);
}

/// Two steps, with more lines; or a whole file.
fn file(text: &str) -> String {
    match text.strip_prefix('+') {
        Some(lines) => format!("[task.t.step.a]\ncmd = \"x\"\n[task.t.step.b]\ncmd = \"x\"\n{lines}\n"),
        None => text.to_owned(),
    }
}

#[rustfmt::skip] // A table reads better as one.
const MISTAKES: &[(&str, &str)] = &[
        (
            "[task.t]\n",
            "step `t` has no `cmd` [t] write what to run: cmd = \"…\"",
        ),
        (
            "[task.t.step]\n",
            "task `t` has no step [t] give it a `cmd`, or steps",
        ),
        (
            "+after = [\"A\"]",
            "`after` of step `b` names step `A`, which does not exist [\"A\"] did you mean `a`?",
        ),
        (
            "+after = { a = \"ready\" }",
            "`after` cannot be \"ready\" [\"ready\"] one of \"done\", \"ended\", \"failed\"",
        ),
        (
            "+[task.t]\norder = [\"a\", \"c\"]",
            "`order` names step `c`, which does not exist [\"c\"]",
        ),
        (
            "+after = [\"b\"]",
            "steps wait for each other: b → b [\"b\"]",
        ),
        (
            "+after = [\"a\"]\n[task.t]\norder = [\"b\", \"a\"]",
            "steps wait for each other: a → b → a [\"a\"]",
        ),
        (
            "+final = true\nafter = [\"a\"]",
            "step `b` cannot wait for `a`: one of them is final and the other is not [\"a\"]",
        ),
        (
            "+max_failures = 2",
            "unknown key `max_failures` in step `b` [max_failures] use `retry.attempts`",
        ),
        (
            "+instances = 2",
            "unknown key `instances` in step `b` [instances]",
        ),
        (
            "+timeout = 5",
            "`timeout` is a duration and needs a unit [5] write \"5s\"",
        ),
        (
            "+outputs = [\"a b\"]",
            "`outputs` names `a b`: use letters, digits, `_` and `-` [\"a b\"]",
        ),
        (
            "+[task.t]\ncmd = \"y\"",
            "`cmd` at task `t`, which has steps [cmd] put it into the steps, or into [defaults.step] for all",
        ),
        (
            "+env.X = \"{{params.day}}\"",
            "`{{params.day}}` names a parameter that the task does not have (in `env.X`) [\"{{params.day}}\"] declare it in `params` of the task",
        ),
        (
            "+env.X = \"{{steps.a.outputs.n}}\"",
            "`{{steps.a.outputs.n}}` names an output that step `a` does not have (in `env.X`) [\"{{steps.a.outputs.n}}\"] declare it: outputs = [\"n\"]",
        ),
        (
            "+env.X = \"{{steps.a.exit_code}}\"",
            "`{{steps.a.exit_code}}` has no value: this step does not wait for the success of `a` (in `env.X`) [\"{{steps.a.exit_code}}\"] write after = [\"a\"]",
        ),
        (
            "+env.X = \"{{job}}\"",
            "`{{job}}` is not a reference (in `env.X`) [\"{{job}}\"] literally it is written {{&job}}",
        ),
        ("[task.\"a.b\"]\ncmd = \"x\"\n", "`a.b` is not a name"),
        (
            "[job.w]\ncmd = \"{{task.id}}\"\n",
            "`{{task.id}}` has a value in steps of tasks only (in `cmd`) [\"{{task.id}}\"]",
        ),
        (
            "[template.x]\nbackground = true\n[job.w]\nextends = \"x\"\ncmd = \"x\"\n",
            "`background` has no meaning in job `w` [background] it comes with a template",
        ),
        (
            "[task.t]\ncmd = \"x\"\nparams = { day = [] }\n",
            "`params` takes texts: `day` is a list [[]]",
        ),
    ];

#[test]
fn every_mistake_has_its_place() {
    let wrong: Vec<String> = MISTAKES
        .iter()
        .map(|(text, expected)| (file(text), expected))
        .filter(|(text, expected)| !said(text).iter().any(|said| said.starts_with(*expected)))
        .map(|(text, expected)| {
            format!(
                "{text}\n  said     {}\n  expected {expected}",
                said(&text).join("\n           ")
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
