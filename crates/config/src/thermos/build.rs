//! Making tasks of Thermos from parts: the helper constructors of the original, over tasks as JSON.
//!
//! ```
//! use gaffer_config::thermos::build::{concat, sequential, simple};
//! use serde_json::{Map, json};
//!
//! let fetch = simple("fetch", "curl -O https://example.org/data");
//! let work = json!({ "name": "work", "processes": [
//!     { "name": "unpack", "cmdline": "tar xf data" }, { "name": "count", "cmdline": "wc -l *" },
//! ]});
//! let whole = concat(&[fetch, sequential(work)?], Map::new());
//! assert_eq!(whole["constraints"][1], json!({ "order": ["fetch", "unpack"] }));
//! # Ok::<(), gaffer_config::thermos::build::BuildError>(())
//! ```
//!
//! What comes out is checked when it is loaded, not here: a [`concat()`] of tasks with final, background or lasting steps makes
//! orders that are refused then.

use serde_json::{Map, Value, json};

/// An argument that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Neither a process nor the name of one.
    #[error("an order is of processes and names of processes, not of {0}")]
    NoProcess(String),
    /// The order is there already.
    #[error("a sequential task has no constraints of its own")]
    Constrained,
}

/// What a task without `finalization_wait` waits, in seconds.
const WAIT: u64 = 30;
const RESOURCES: [&str; 4] = ["cpu", "ram", "disk", "gpu"];

/// One order of processes, each given whole or by its name, as the list that `constraints` takes.
pub fn order(processes: &[Value]) -> Result<Value, BuildError> {
    let name = |process: &Value| {
        let name = process.as_str().or_else(|| process.get("name")?.as_str());
        name.map(str::to_owned)
            .ok_or_else(|| BuildError::NoProcess(process.to_string()))
    };
    let names = processes.iter().map(name).collect::<Result<Vec<_>, _>>()?;
    Ok(json!([{ "order": names }]))
}

/// The task, with its processes one after the other as they are listed.
pub fn sequential(mut task: Value) -> Result<Value, BuildError> {
    if !list(&task, "constraints").is_empty() {
        return Err(BuildError::Constrained);
    }
    let processes = list(&task, "processes");
    if !processes.is_empty() {
        task["constraints"] = order(&processes)?;
    }
    Ok(task)
}

/// One process with the name of its task; a core, a gibibyte of memory and one of disk.
pub fn simple(name: &str, command: &str) -> Value {
    let gib = 1 << 30;
    json!({
        "name": name,
        "processes": [{ "name": name, "cmdline": command }],
        "resources": { "cpu": 1.0, "ram": gib, "disk": gib },
    })
}

/// All processes and constraints of several tasks in one: they run side by side. Resources add up, the longest
/// `finalization_wait` holds, everything else is the last task's; `over` is laid over all that.
pub fn combine(tasks: &[Value], over: Map<String, Value>) -> Value {
    merge(tasks, over, |a, b| a + b, |waits| waits.into_iter().max())
}

/// All processes and constraints of several tasks in one: those of a task run after those of the task before. The largest
/// resources hold, `finalization_wait` adds up, everything else is the last task's; `over` is laid over all that.
pub fn concat(tasks: &[Value], over: Map<String, Value>) -> Value {
    let mut whole = merge(tasks, Map::new(), f64::max, |waits| Some(waits.into_iter().sum()));
    let names = |task: &Value| {
        let processes = list(task, "processes").into_iter();
        processes.filter_map(|process| Some(process.get("name")?.as_str()?.to_owned()))
    };
    let mut orders = list(&whole, "constraints");
    for pair in tasks.windows(2) {
        for first in names(&pair[0]) {
            for second in names(&pair[1]).filter(|second| *second != first) {
                add(&mut orders, json!({ "order": [first, second] }));
            }
        }
    }
    if !orders.is_empty() {
        whole["constraints"] = orders.into();
    }
    lay(&mut whole, over);
    whole
}

fn merge(
    tasks: &[Value],
    over: Map<String, Value>,
    resources: impl Fn(f64, f64) -> f64,
    wait: impl Fn(Vec<u64>) -> Option<u64>,
) -> Value {
    let mut whole = match tasks {
        [] => json!({ "processes": [] }),
        [.., last] => last.clone(),
    };
    if tasks.len() > 1 {
        for key in ["processes", "constraints"] {
            let mut all = Vec::new();
            tasks
                .iter()
                .flat_map(|task| list(task, key))
                .for_each(|one| add(&mut all, one));
            if !all.is_empty() {
                whole[key] = all.into();
            }
        }
        if tasks.iter().any(|task| task.get("resources").is_some()) {
            whole["resources"] = merged(tasks, resources);
        }
        let waits = tasks
            .iter()
            .map(|task| task["finalization_wait"].as_u64().unwrap_or(WAIT));
        if let Some(wait) = wait(waits.collect()) {
            whole["finalization_wait"] = wait.into();
        }
    }
    lay(&mut whole, over);
    whole
}

/// Resources field by field; what is not there is nothing.
fn merged(tasks: &[Value], with: impl Fn(f64, f64) -> f64) -> Value {
    let field = |name: &str| {
        let values = tasks
            .iter()
            .map(|task| task["resources"][name].as_f64().unwrap_or(0.0));
        values.reduce(&with).unwrap_or(0.0)
    };
    let mut merged = Map::new();
    for name in RESOURCES {
        let value = field(name);
        let value = match name {
            "cpu" => json!(value),
            _ => json!(value as u64),
        };
        merged.insert(name.to_owned(), value);
    }
    merged.into()
}

fn lay(task: &mut Value, over: Map<String, Value>) {
    for (key, value) in over {
        task[key] = value;
    }
}

/// Adds what is not there.
fn add(all: &mut Vec<Value>, one: Value) {
    if !all.contains(&one) {
        all.push(one);
    }
}

fn list(task: &Value, key: &str) -> Vec<Value> {
    task.get(key)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

/// Options for a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Options<'a> {
    /// One without a value.
    Flag(&'a str),
    /// Names with or without values, in this order.
    Pairs(Vec<(&'a str, Option<String>)>),
}

/// Options as Java takes them: one dash, a value after a blank.
pub fn java_options(options: &[Options<'_>]) -> String {
    render(options, |_| "-")
}

/// Options as Python programs take them: one dash before one letter, otherwise two; a value after a blank.
pub fn python_options(options: &[Options<'_>]) -> String {
    render(options, |name| if name.chars().count() == 1 { "-" } else { "--" })
}

fn render(options: &[Options<'_>], dash: impl Fn(&str) -> &'static str) -> String {
    let mut words = Vec::new();
    let mut option = |name: &str, value: Option<&str>| {
        words.push(format!("{}{name}", dash(name)));
        words.extend(value.map(str::to_owned));
    };
    for one in options {
        match one {
            Options::Flag(name) => option(name, None),
            Options::Pairs(pairs) => {
                for (name, value) in pairs {
                    option(name, value.as_deref());
                }
            }
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thermos::{ThermosContext, load_thermos};
    use std::path::Path;

    fn process(name: &str) -> Value {
        json!({ "name": name, "cmdline": "true" })
    }

    fn task(name: &str, processes: &[&str], wait: u64) -> Value {
        let processes: Vec<Value> = processes.iter().map(|name| process(name)).collect();
        json!({ "name": name, "processes": processes, "finalization_wait": wait })
    }

    fn names(task: &Value) -> Vec<String> {
        let processes = list(task, "processes").into_iter();
        let name = |one: Value| one["name"].as_str().map(str::to_owned);
        processes.filter_map(name).collect()
    }

    /// What was built is a task that can be loaded.
    fn loads(task: &Value) {
        let context = ThermosContext {
            task_id: "t".to_owned(),
            user: "root".to_owned(),
            sandbox: "/".to_owned(),
            ..ThermosContext::default()
        };
        let loaded = load_thermos(&task.to_string(), Path::new("/t.json"), &context);
        assert!(
            loaded.is_ok(),
            "{task}: {:?}",
            loaded.err().map(|errors| errors.render(false))
        );
    }

    #[test]
    fn s01_orders_of_processes_and_names_in_any_mix() {
        let whole = order(&[process("a"), json!("b"), process("c")]);
        assert_eq!(whole, order(&[json!("a"), process("b"), json!("c")]));
        assert_eq!(whole, Ok(json!([{ "order": ["a", "b", "c"] }])));
        for wrong in [json!(["a"]), Value::Null, json!({ "cmdline": "x" })] {
            assert_eq!(
                order(&[json!("a"), wrong.clone()]),
                Err(BuildError::NoProcess(wrong.to_string()))
            );
        }
    }

    #[test]
    fn s02_resources_are_summed_or_the_largest_field_by_field() {
        let mut a = task("a", &["a"], 30);
        a["resources"] = json!({ "cpu": 1.5, "ram": 10, "disk": 3, "gpu": 1 });
        let mut b = task("b", &["b"], 30);
        b["resources"] = json!({ "cpu": 0.5, "ram": 20, "disk": 3 });
        let tasks = [a, task("none", &["c"], 30), b];
        let sum = combine(&tasks, Map::new());
        assert_eq!(
            sum["resources"],
            json!({ "cpu": 2.0, "ram": 30, "disk": 6, "gpu": 1 })
        );
        let largest = concat(&tasks, Map::new());
        assert_eq!(
            largest["resources"],
            json!({ "cpu": 1.5, "ram": 20, "disk": 3, "gpu": 1 })
        );
        loads(&sum);
    }

    #[test]
    fn s03_combined_tasks_run_side_by_side() {
        let (mut one, mut two) = (task("one", &["a", "b"], 60), task("two", &["c", "d"], 45));
        one["constraints"] = json!([{ "order": ["a", "b"] }]);
        two["constraints"] = json!([{ "order": ["c", "d"] }]);
        one["max_failures"] = json!(9);
        let over = Map::from_iter([("max_concurrency".to_owned(), json!(2))]);
        let whole = combine(&[one, two], over);
        assert_eq!(
            (&whole["name"], &whole["finalization_wait"]),
            (&json!("two"), &json!(60))
        );
        assert_eq!(
            whole["constraints"],
            json!([{ "order": ["a", "b"] }, { "order": ["c", "d"] }])
        );
        assert_eq!(whole["max_concurrency"], 2);
        assert!(whole.get("max_failures").is_none(), "that of the last one");
        loads(&whole);
    }

    #[test]
    fn s04_concatenated_tasks_run_one_after_the_other() {
        let (mut one, two) = (task("one", &["a", "b"], 60), task("two", &["c", "a"], 45));
        one["constraints"] = json!([{ "order": ["a", "b"] }]);
        let whole = concat(&[one, two], Map::new());
        assert_eq!(
            (&whole["name"], &whole["finalization_wait"]),
            (&json!("two"), &json!(105))
        );
        let orders = [["a", "b"], ["a", "c"], ["b", "c"], ["b", "a"]];
        let orders: Vec<Value> = orders.iter().map(|pair| json!({ "order": pair })).collect();
        assert_eq!(
            list(&whole, "constraints"),
            orders,
            "no process comes before itself"
        );
    }

    #[test]
    fn s05_of_no_task_and_of_one() {
        let one = task("one", &["a"], 60);
        for build in [combine, concat] {
            assert_eq!(build(&[], Map::new()), json!({ "processes": [] }));
            assert_eq!(build(std::slice::from_ref(&one), Map::new()), one);
        }
    }

    #[test]
    fn s06_a_simple_task_is_one_process() {
        let whole = simple("hello", "echo hello");
        assert_eq!(
            whole["processes"],
            json!([{ "name": "hello", "cmdline": "echo hello" }])
        );
        assert_eq!(
            whole["resources"],
            json!({ "cpu": 1.0, "ram": 1 << 30, "disk": 1 << 30 })
        );
        assert!(whole.get("constraints").is_none());
        loads(&whole);
    }

    #[test]
    fn s07_a_process_that_tasks_share_is_there_once() {
        let chain = |name: &str| sequential(task(name, &["shared", name], 30)).expect("a task");
        let side_by_side = combine(&[chain("a"), chain("b"), chain("c")], Map::new());
        assert_eq!(names(&side_by_side), ["shared", "a", "b", "c"]);
        let whole = concat(&[side_by_side, task("after", &["last"], 30)], Map::new());
        assert_eq!(names(&whole), ["shared", "a", "b", "c", "last"]);
        loads(&whole);
    }

    #[test]
    fn s08_a_sequential_task_has_no_constraints_of_its_own() {
        let mut one = task("one", &["a", "b"], 30);
        one["constraints"] = json!([{ "order": ["b", "a"] }]);
        assert_eq!(sequential(one), Err(BuildError::Constrained));
        let nothing = json!({ "name": "empty" });
        assert_eq!(sequential(nothing.clone()), Ok(nothing));
    }

    #[test]
    fn s09_options_of_command_lines() {
        let value = |text: &str| Some(text.to_owned());
        let options = [
            Options::Flag("server"),
            Options::Pairs(vec![("z", value("1")), ("classpath", value("a:b")), ("a", None)]),
        ];
        assert_eq!(java_options(&options), "-server -z 1 -classpath a:b -a");
        assert_eq!(python_options(&options), "--server -z 1 --classpath a:b -a");
        assert_eq!(python_options(&[]), "");
    }
}
