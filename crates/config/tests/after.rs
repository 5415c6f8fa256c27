//! `after` of jobs and tasks: what names mean, what starts by itself, and every mistake with its place.

mod fixture;

use fixture::{ROOT, toml};
use gaffer_config::{Config, load_job_json, load_task_json};
use gaffer_core::job::Condition;
use gaffer_core::name::JobId;

fn config(text: &str) -> Config {
    toml(text).unwrap_or_else(|errors| panic!("{}", errors.render(false)))
}

fn said(text: &str) -> String {
    toml(text)
        .err()
        .map_or_else(|| "no error".to_owned(), |errors| errors.render(false))
}

fn id(name: &str) -> JobId {
    JobId::parse(name).expect("a name")
}

const SHOP: &str = "
session = \"shop\"
[job.redis]
cmd = \"redis\"
[job.worker]
cmd = \"worker\"
after = { redis = \"ready\", migrate = \"done\" }
[task.migrate]
cmd = \"migrate\"
after = [\"redis\"]
[task.other]
cmd = \"x\"
";

#[test]
fn a_job_comes_after_a_task_and_a_task_after_a_job() {
    let config = config(SHOP);
    let worker = &config.jobs[&id("shop.worker")];
    assert_eq!(worker.spec.after[&id("shop.redis")], Condition::Ready);
    assert_eq!(worker.spec.after_tasks[&id("shop.migrate")], Condition::Done);
    assert_eq!(
        worker.typed["after"],
        serde_json::json!(["redis", "task:migrate"])
    );
    let migrate = &config.tasks[&id("shop.migrate")];
    assert_eq!(migrate.after[&id("shop.redis")], Condition::Ready);
    assert!(migrate.start, "a job comes after it");
    assert!(!config.tasks[&id("shop.other")].start);
    let again = load_job_json("shop", "worker", &worker.typed, &ROOT).expect("understood");
    assert_eq!((&again.spec, &again.typed), (&worker.spec, &worker.typed));
    let again = load_task_json("shop", "migrate", &migrate.typed, &ROOT).expect("understood");
    assert_eq!(
        (again.start, &again.after, &again.typed),
        (true, &migrate.after, &migrate.typed)
    );
}

#[test]
fn a_list_means_the_usual_of_each_and_a_word_something_else() {
    let text =
        "[job.w]\ncmd = \"w\"\nafter = [\"task:t\", \"j\"]\n[job.j]\ncmd = \"j\"\n[task.t]\ncmd = \"t\"\n";
    let found = config(text);
    let spec = &found.jobs[&id("default.w")].spec;
    assert_eq!(spec.after[&id("default.j")], Condition::Ready);
    assert_eq!(spec.after_tasks[&id("default.t")], Condition::Done);
    let ended = config(&text.replace("[\"task:t\", \"j\"]", "{ \"task:t\" = \"ended\" }"));
    let spec = &ended.jobs[&id("default.w")].spec;
    assert_eq!(spec.after_tasks[&id("default.t")], Condition::Ended);
}

#[test]
fn start_can_be_said_and_passes_through_tasks_that_start() {
    let text = "[job.w]\ncmd = \"w\"\nafter = [\"b\"]\n[task.a]\ncmd = \"a\"\n[task.b]\ncmd = \"b\"\nafter = [\"a\"]\n";
    let found = config(text);
    assert!(
        found.tasks.values().all(|task| task.start),
        "a is waited for by b, which starts"
    );
    let by_hand = config(&text.replace("cmd = \"b\"\n", "cmd = \"b\"\nstart = false\n"));
    let start = |name| by_hand.tasks[&id(name)].start;
    assert_eq!((start("default.b"), start("default.a")), (false, true));
}

#[test]
fn every_mistake_has_its_place_and_a_hint() {
    let cases = [
        (
            SHOP.replace("migrate = \"done\"", "migrat = \"done\""),
            "job `worker` waits for `migrat`, which does not exist",
            "did you mean task `migrate`?",
        ),
        (
            SHOP.replace("migrate = \"done\"", "\"task:redis\" = \"done\""),
            "job `worker` waits for `task:redis`, which does not exist",
            "did you mean `redis`?",
        ),
        (
            SHOP.replace("migrate = \"done\"", "migrate = \"ready\""),
            "job `worker` waits for task `migrate` to be ready, which a task never is",
            "write \"done\" or \"ended\"",
        ),
        (
            SHOP.replace("after = [\"redis\"]", "after = [\"worker\"]"),
            "jobs and tasks wait for each other in a circle: `worker` → `migrate` → `worker`",
            "one of them has to start first",
        ),
        (
            SHOP.replace("[task.other]", "[task.redis]"),
            "`redis` is a job and a task",
            "write \"task:redis\" for the task",
        ),
        (
            SHOP.replace(
                "cmd = \"migrate\"",
                "cmd = \"migrate\"\nparams = { to = { required = true } }",
            ),
            "task `migrate` starts by itself, and its parameter `to` has no value",
            "give it a default",
        ),
        (
            SHOP.replace("after = [\"redis\"]", "after = { redis = \"ended\" }"),
            "task `migrate` waits for `redis` to end, which is always restarted",
            "on-failure",
        ),
    ];
    for (text, message, help) in cases {
        let said = said(&text);
        assert!(
            said.contains(message) && said.contains(help),
            "{said}\nexpected {message} / {help}"
        );
        assert!(said.contains("gaffer.toml:"), "{said}");
    }
}
