//! A daemon that is killed a hundred times, at random instants, over tasks of many shapes: what comes of them is what comes of them
//! undisturbed.

use crate::SOON;
use gaffer_testkit::node::Node;
use gaffer_testkit::wait_until;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const KILLS: u32 = 100;

/// A step that tells its end once it has worked for a moment.
fn works(name: &str) -> Value {
    json!({"name": name, "cmdline": format!("sleep 0.0{}; echo {name} >> effects", name.len() % 4 + 1), "min_duration": 0})
}

/// One that fails so often first, and tells each of its runs.
fn fails(name: &str, times: u32, attempts: u32) -> Value {
    let script = format!(
        "echo {name} >> effects; for n in $(seq {times}); do mkdir {name}.$n 2>/dev/null && exit 3; done; exit 0"
    );
    json!({"name": name, "cmdline": script, "max_failures": attempts, "min_duration": 0})
}

/// It ends only when the step without an end of its own has told that it runs.
fn sees_e(mut step: Value) -> Value {
    let script = step["cmdline"].as_str().unwrap_or_default();
    step["cmdline"] = json!(format!(
        "until grep -qs '^e$' effects; do sleep 0.01; done; {script}"
    ));
    step
}

fn with(mut step: Value, key: &str) -> Value {
    step[key] = json!(true);
    step
}

fn dag(steps: Vec<Value>, orders: &[&[&str]], more: Value) -> Value {
    let constraints: Vec<Value> = orders.iter().map(|order| json!({ "order": order })).collect();
    crate::task(
        json!(steps),
        json!({"constraints": constraints, "max_concurrency": more["max_concurrency"].as_u64().unwrap_or(0),
               "max_failures": more["max_failures"].as_u64().unwrap_or(1)}),
    )
}

/// Twenty shapes.
fn dags() -> Vec<Value> {
    let mut all = Vec::new();
    let plain = || json!({});
    for length in 2..=5 {
        let names: Vec<String> = (0..length).map(|n| format!("c{n}")).collect();
        let order: Vec<&str> = names.iter().map(String::as_str).collect();
        all.push(dag(
            names.iter().map(|name| works(name)).collect(),
            &[&order],
            plain(),
        ));
    }
    for width in 2..=4 {
        let names: Vec<String> = (0..width).map(|n| format!("m{n}")).collect();
        let mut steps = vec![works("top"), works("end")];
        steps.extend(names.iter().map(|name| works(name)));
        let orders: Vec<Vec<&str>> = names.iter().map(|name| vec!["top", name, "end"]).collect();
        let orders: Vec<&[&str]> = orders.iter().map(Vec::as_slice).collect();
        all.push(dag(steps.clone(), &orders, plain()));
        all.push(dag(steps, &orders, json!({"max_concurrency": 1})));
    }
    for times in 1..=3 {
        let steps = vec![fails("f", times, 4), works("then")];
        all.push(dag(steps, &[&["f", "then"]], plain()));
        // Once too often: the task fails, and nothing comes after it.
        let steps = vec![
            fails("f", times, times),
            works("then"),
            with(works("last"), "final"),
        ];
        all.push(dag(steps, &[&["f", "then"]], plain()));
    }
    let finals = || vec![with(works("z1"), "final"), with(works("z2"), "final")];
    let mut steps = vec![works("a"), works("b")];
    steps.extend(finals());
    all.push(dag(steps, &[&["a", "b"], &["z1", "z2"]], plain()));
    let mut steps = vec![fails("f", 1, 1), works("a")];
    steps.extend(finals());
    all.push(dag(steps, &[&["a", "f"], &["z1", "z2"]], plain()));
    let forever = json!({"name": "e", "cmdline": "echo e >> effects; exec sleep 1000", "ephemeral": true});
    all.push(dag(
        vec![forever.clone(), sees_e(works("a")), works("b")],
        &[&["a", "b"]],
        plain(),
    ));
    all.push(dag(
        vec![forever, sees_e(fails("f", 2, 3)), with(works("z"), "final")],
        &[],
        plain(),
    ));
    all
}

/// How a task ended, each step of it, and what all of them have told, sorted.
type Ending = (String, Vec<(String, String)>, Vec<String>);

struct Batch {
    node: Node,
    ids: Vec<String>,
}

impl Batch {
    fn begin(mut node: Node, prefix: &str) -> Batch {
        let mut ids = Vec::new();
        for (number, dag) in dags().iter().enumerate() {
            let id = format!("{prefix}-{number}");
            let work = node.root().join("work").join(&id);
            std::fs::create_dir_all(&work).expect("a folder");
            let body = json!({"id": id, "task": dag, "sandbox": work});
            let (status, answer) = node.http("POST", "/v1/tasks", Some(&body));
            assert_eq!(status, 201, "{answer}");
            ids.push(id);
        }
        Batch { node, ids }
    }

    fn root(&self) -> PathBuf {
        self.node.state_dir().join("tasks")
    }

    fn over(&self) -> bool {
        self.ids
            .iter()
            .all(|id| self.root().join("tasks/finished").join(id).exists())
    }

    /// Bytes of all checkpoints: they grow with every record.
    fn progress(&self) -> u64 {
        let size = |id: &String| {
            let stream = self.root().join("checkpoints").join(id).join("runner");
            std::fs::metadata(stream).map_or(0, |data| data.len())
        };
        self.ids.iter().map(size).sum()
    }

    fn endings(&mut self) -> Vec<Ending> {
        let ids = std::mem::take(&mut self.ids);
        ids.iter().map(|id| self.ending(id)).collect()
    }

    fn ending(&mut self, id: &str) -> Ending {
        let task = self.node.get(&format!("/v1/tasks/{id}"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let steps = task["steps"].as_array().expect("steps").iter();
        let story = |step: &Value| {
            let runs = step["runs"].as_array().expect("runs").iter();
            let words: Vec<String> = runs
                .map(|run| format!("{} {}", text(&run["state"]), run["exit_code"]))
                .collect();
            (text(&step["name"]), words.join(", "))
        };
        let steps = steps.map(story).collect();
        (
            text(&task["state"]),
            steps,
            effects(&self.node.root().join("work").join(id)),
        )
    }
}

fn effects(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("effects")).unwrap_or_default();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// xorshift64: a run can be had again by its seed.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most + 1
    }
}

fn seed() -> u64 {
    let given = std::env::var("GAFFER_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let now = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| u64::from(now.subsec_nanos()))
    };
    given.unwrap_or_else(now).max(1)
}

#[test]
fn a_hundred_random_kills_change_nothing_of_what_comes_of_tasks() {
    let seed = seed();
    println!("GAFFER_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let mut calm = Batch::begin(Node::start(), "calm");
    wait_until(SOON, "the undisturbed runs", || calm.over());
    let expected = calm.endings();
    let states: BTreeMap<&str, usize> = expected.iter().fold(BTreeMap::new(), |mut all, (state, ..)| {
        *all.entry(state.as_str()).or_default() += 1;
        all
    });
    assert!(states["success"] > 10 && states["failed"] > 3, "{states:?}");
    let mut node = calm.node;
    let mut kills = 0;
    for round in 0.. {
        if kills >= KILLS {
            break;
        }
        let mut batch = Batch::begin(node, &format!("wild{round}"));
        while !batch.over() {
            if kills < KILLS {
                let goal = batch.progress() + dice.up_to(500);
                wait_until(SOON, "progress", || batch.progress() >= goal || batch.over());
                batch.node.kill9();
                batch.node.start_again();
                kills += 1;
            } else {
                wait_until(SOON, "the end", || batch.over());
            }
        }
        for (number, (ending, expected)) in batch.endings().into_iter().zip(&expected).enumerate() {
            assert_eq!(&ending, expected, "task {number} of round {round}, seed {seed}");
        }
        node = batch.node;
    }
    node.stop(SOON);
}
