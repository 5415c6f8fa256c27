//! `[task.X]` of a `gaffer.toml`: parameters, outputs from step to step, and what a kill may not take away.

use super::{Place, said};
use gaffer_testkit::node::Node;
use gaffer_testkit::wait_until;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PIPELINE: &str = r#"
session = "etl"
[task.nightly]
params = { day = "yesterday" }
order = ["extract", "load"]
[task.nightly.step.extract]
shell = true
cmd = '''
echo "rows=first" >> $GAFFER_OUTPUT
echo started >> log
while test ! -e go; do sleep 0.02; done
echo "rows=18 of {{params.day}}" >> $GAFFER_OUTPUT
'''
outputs = ["rows"]
[task.nightly.step.load]
cmd = ["sh", "-c", "printf '%s|' \"$$@\" >> got", "sh", "{{steps.extract.outputs.rows}}", "{{steps.extract.exit_code}}", "$GAFFER_STEP"]
[task.nightly.step.tidy]
cmd = "sh -c 'echo {{task.name}} {{step}} >> log'"
final = true
"#;

fn place(text: &str) -> Place {
    let place = Place::new();
    std::fs::write(place.work().join("gaffer.toml"), text).expect("a file");
    place
}

fn step<'v>(task: &'v Value, name: &str) -> &'v Value {
    let steps = task["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["name"] == name).expect("the step")
}

#[test]
fn outputs_go_from_step_to_step_by_name() {
    let place = place(PIPELINE);
    place.touch("go");
    let (code, task) = place.json(&["run", "gaffer.toml", "--id", "n1", "-E", "day=today"]);
    assert_eq!((code, &task["state"]), (0, &Value::from("success")), "{task}");
    assert_eq!(place.read("got"), "18 of today|0|load|", "a value is one word");
    assert_eq!(place.read("log"), "started\nnightly tidy\n");
    assert_eq!(step(&task, "extract")["outputs"]["rows"], "18 of today");
    assert_eq!(
        (&task["name"], &task["session"]),
        (&Value::from("nightly"), &Value::from("etl"))
    );
    // By its name, from the file in front of us; the id of a finished task stays what it was.
    let (code, again) = place.json(&["run", "nightly", "--id", "n1", "-E", "day=today"]);
    assert_eq!((code, &again["state"]), (0, &Value::from("success")));
    assert_eq!(
        place.read("got"),
        "18 of today|0|load|",
        "nothing finished is run again"
    );
    let left = place.tasks().join("checkpoints/n1/outputs");
    let files = std::fs::read_dir(left).map_or(0, Iterator::count);
    assert_eq!(files, 0, "files of outputs go with the task");
}

#[test]
fn what_a_step_has_said_survives_its_runner() {
    let place = place(PIPELINE);
    let running = place.start(&["run", "nightly", "--id", "n1"]);
    place.until("log");
    place.kill_both(running, "n1");
    // It ends while nobody watches.
    place.touch("go");
    let shim = place.tasks().join("checkpoints/n1/outputs/extract.1");
    wait_until(Duration::from_secs(60), "its output", || {
        std::fs::read_to_string(&shim).is_ok_and(|text| text.contains("18 of yesterday"))
    });
    let (code, task) = place.json(&["run", "nightly", "--id", "n1"]);
    assert_eq!((code, &task["state"]), (0, &Value::from("success")), "{task}");
    assert_eq!(place.read("got"), "18 of yesterday|0|load|");
    assert_eq!(place.read("log").matches("started").count(), 1, "it ran once");
}

#[test]
fn a_step_without_its_output_has_failed_and_says_why() {
    for (script, why) in [
        ("true", "without its output `n`"),
        (
            "echo x=1 > $GAFFER_OUTPUT",
            "output `x`, which is not declared (n)",
        ),
        (
            "echo hello > $GAFFER_OUTPUT",
            "line 1 of its outputs is not name=value",
        ),
        (
            "head -c 70000 /dev/zero | tr '\\\\0' n > $GAFFER_OUTPUT",
            "longer than 64K",
        ),
    ] {
        let place = place(&format!(
            "[task.t]\n[task.t.step.s]\nshell = true\ncmd = \"{script}\"\noutputs = [\"n\"]\n"
        ));
        let (code, task) = place.json(&["run", "t", "--id", "t1"]);
        assert_eq!((code, &task["state"]), (1, &Value::from("failed")), "{task}");
        let said = step(&task, "s")["runs"][0]["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn a_wrong_word_on_the_command_line_is_said() {
    let place =
        place("[task.a]\ncmd = \"true\"\nparams = { day = { required = true } }\n[task.b]\ncmd = \"true\"\n");
    let wrong = |words: &[&str], code: i32, text: &str| {
        let output = place.run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
        assert!(said(&output).contains(text), "{words:?}: {}", said(&output));
    };
    wrong(
        &["run", "gaffer.toml"],
        2,
        "several tasks in gaffer.toml: default.a, default.b",
    );
    wrong(&["run", "gaffer.toml", "--task", "c"], 3, "there is no task `c`");
    wrong(&["run", "a"], 2, "needs a value for parameter `day`");
    wrong(
        &["run", "a", "-E", "day=1", "-E", "dya=2"],
        2,
        "`dya` is neither a parameter of task a nor a variable",
    );
    wrong(&["run", "nobody"], 3, "there is no task `nobody`");
    assert!(!place.tasks().exists(), "nothing was begun");
}

/// A daemon and a file that defines `hello`.
struct Applied {
    node: Node,
    work: PathBuf,
    file: String,
}

impl Applied {
    fn new() -> Applied {
        let node = Node::start();
        let work = node.root().join("work");
        std::fs::create_dir(&work).expect("a folder");
        let file = work.join("gaffer.toml").to_string_lossy().into_owned();
        Applied { node, work, file }
    }

    fn write(&self, word: &str) {
        let text = format!(
            "session = \"etl\"\n[task.hello]\nparams = {{ who = \"you\" }}\n\
             cmd = [\"sh\", \"-c\", \"echo {word} {{{{params.who}}}} >> log; while test ! -e go; do sleep 0.02; done\"]\n"
        );
        std::fs::write(&self.file, text).expect("a file");
    }

    #[track_caller]
    fn ends(&self, code: i32, words: &[&str]) -> String {
        let output = self.node.cli(&[&["--session", "etl"], words].concat());
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
        said(&output)
    }

    fn next_daemon(&mut self) {
        self.node.kill9();
        self.node.start_again();
    }
}

#[test]
fn a_task_of_an_applied_file_is_started_by_its_name() {
    let mut applied = Applied::new();
    applied.write("hi");
    let file = applied.file.clone();
    let plan = applied.ends(0, &["plan", &file]);
    assert!(
        plan.contains("+ task hello  next      can be started by its name"),
        "{plan}"
    );
    applied.ends(0, &["apply", &file]);
    assert!(!applied.ends(0, &["plan", &file]).contains("task hello"));
    assert!(
        applied
            .ends(3, &["task", "start", "helo"])
            .contains("did you mean etl.hello?")
    );
    assert!(
        applied
            .ends(2, &["task", "start", "hello", "-E", "ho=1"])
            .contains("it has who")
    );
    applied.next_daemon();
    applied.ends(0, &["task", "start", "hello", "--id", "h1", "-E", "who=me"]);
    wait_until(Duration::from_secs(60), "the first", || {
        applied.work.join("log").exists()
    });
    // A run keeps what it was started with; the next one is new.
    applied.write("bye");
    let plan = applied.ends(0, &["apply", &file]);
    assert!(plan.contains("step.hello.cmd"), "{plan}");
    applied.next_daemon();
    std::fs::write(applied.work.join("go"), "").expect("a file");
    applied.ends(0, &["wait", "task:h1=done"]);
    applied.ends(2, &["wait", "task:h1=ready"]);
    applied.ends(2, &["logs", "task:h1", "web"]);
    assert!(applied.ends(0, &["why", "task:h1"]).contains("h1"));
    applied.ends(0, &["logs", "step:h1/hello"]);
    applied.ends(3, &["task", "kill", "--match", "^h"]);
    applied.ends(0, &["task", "start", "hello", "--id", "h2", "--wait"]);
    let log = std::fs::read_to_string(applied.work.join("log")).expect("a log");
    assert_eq!(log, "hi me\nbye you\n");
    std::fs::write(&file, "session = \"etl\"\n").expect("a file");
    applied.ends(0, &["apply", "-y", &file]);
    applied.ends(3, &["task", "start", "hello"]);
    applied.node.stop(Duration::from_secs(60));
}

#[test]
fn the_example_runs() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/etl/gaffer.toml");
    let place = place(&std::fs::read_to_string(example).expect("the example"));
    let (code, task) = place.json(&["run", "nightly", "--id", "monday", "-E", "day=monday"]);
    assert_eq!((code, &task["state"]), (0, &Value::from("success")), "{task}");
    assert_eq!(step(&task, "extract")["outputs"]["rows"], "1000");
    let said = said(&place.run(&["logs", "monday", "load"]));
    assert!(said.contains("loaded 1000 rows"), "{said}");
    let dir = place.tasks().join("sandboxes/monday");
    assert_eq!(std::fs::read_dir(dir).map_or(0, Iterator::count), 0, "tidied up");
}

const HALF: &str = r#"
session = "etl"
[task.t]
order = ["a", "b", "c"]
[task.t.step.a]
cmd = "sh -c 'echo a >> log; echo n=7 > $GAFFER_OUTPUT'"
outputs = ["n"]
[task.t.step.b]
cmd = "sh -c 'echo b >> log; test -e good'"
[task.t.step.c]
cmd = "sh -c 'echo c{{steps.a.outputs.n}} >> log'"
[task.t.step.other]
cmd = "sh -c 'echo o >> log'"
after = { b = "failed" }
[task.t.step.end]
cmd = "sh -c 'echo end >> log'"
final = true
"#;

#[test]
fn a_part_of_a_task_runs_again_as_a_task_of_its_own() {
    let mut applied = Applied::new();
    std::fs::write(&applied.file, HALF).expect("a file");
    let file = applied.file.clone();
    let path = applied.work.join("log");
    let log = || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::remove_file(&path).expect("a log");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    applied.ends(0, &["apply", &file]);
    applied.ends(3, &["task", "retry", "t-1"]);
    applied.ends(1, &["task", "start", "t", "--id", "t-1", "--wait"]);
    assert_eq!(
        log(),
        "a b o end",
        "a failure that is handled does not hide itself"
    );
    applied.ends(2, &["task", "retry", "t-1", "--from", "d"]);
    std::fs::write(applied.work.join("good"), "").expect("a file");
    // What succeeded counts as done, with its output.
    let said = applied.ends(0, &["task", "retry", "t-1", "--wait"]);
    assert_eq!(said.trim(), "t-1~2");
    assert_eq!(log(), "b c7 end");
    let status = applied.ends(0, &["task", "status", "t-1~2"]);
    assert!(status.contains("done before, in t-1"), "{status}");
    let said = applied.ends(4, &["task", "retry", "t-1~2"]);
    assert!(said.contains("--from STEP"), "{said}");
    applied.ends(0, &["task", "retry", "t-1~2", "--from", "c", "--wait"]);
    assert_eq!(log(), "c7 end");
    let first = applied.ends(0, &["task", "status", "t-1"]);
    assert!(
        first.contains("t-1   failed"),
        "the first one stays as it was: {first}"
    );
    applied.node.stop(Duration::from_secs(60));
}

#[test]
fn a_task_is_drawn_over_time_and_as_a_graph() {
    let place = place(HALF);
    place.run(&["run", "t", "--id", "t1"]);
    let drawn = said(&place.run(&["status", "t1", "--timeline"]));
    let lines: Vec<&str> = drawn.lines().collect();
    assert!(lines[0].starts_with("t1     failed in "), "{drawn}");
    assert!(lines[1].trim_start().starts_with('0'), "{drawn}");
    assert!(
        lines[2].starts_with("a ") && lines[2].contains('●') && lines[2].contains("success"),
        "{drawn}"
    );
    assert!(lines[3].contains('✗') && lines[3].contains("exit 1"), "{drawn}");
    assert!(lines.iter().all(|line| line.chars().count() <= 100), "{drawn}");
    let ascii = place
        .command(&["status", "t1", "--timeline"])
        .env("LC_ALL", "C")
        .output()
        .expect("gaffer runs");
    assert!(
        !said(&ascii).contains('●') && said(&ascii).lines().nth(2).is_some_and(|line| line.contains('*'))
    );
    let graph = said(&place.run(&["show", "t1", "--graph", "dot"]));
    assert!(
        graph.contains("\"a\" -> \"b\";") && graph.contains("\"b\" -> \"other\" [label=\"failed\""),
        "{graph}"
    );
    let graph = said(&place.run(&["show", "t1", "--graph", "mermaid"]));
    assert!(graph.starts_with("flowchart LR\n"), "{graph}");
}

#[test]
fn u02_what_is_collected_goes_whole_and_nothing_else() {
    let place = place("[task.t]\ncmd = \"sh -c 'echo said; touch {{task.dir}}/file'\"\n");
    for id in ["t1", "t2", "t3"] {
        assert_eq!(place.json(&["run", "t", "--id", id]).0, 0);
    }
    let work = place.work().to_string_lossy().into_owned();
    assert_eq!(place.json(&["run", "t", "--id", "mine", "--cwd", &work]).0, 0);
    let output = place.run(&["gc"]);
    assert_eq!(
        output.status.code(),
        Some(2),
        "nothing goes unasked: {}",
        said(&output)
    );
    let (code, found) = place.json(&["gc", "--count", "2", "--dry-run"]);
    let ids: Vec<&str> = found
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["id"].as_str())
        .collect();
    assert_eq!((code, &ids[..]), (0, &["t1", "t2"][..]), "the oldest");
    let output = place.run(&["gc", "--count", "2"]);
    assert_eq!(
        output.status.code(),
        Some(2),
        "nobody is there to answer: {}",
        said(&output)
    );
    // One removal was interrupted behind its first step.
    let finished = place.tasks().join("tasks/finished");
    std::fs::rename(finished.join("t3"), finished.join(".t3.gone")).expect("renamed");
    let output = place.run(&["gc", "t1", "t2", "mine", "-y"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for folder in ["tasks/finished", "checkpoints", "logs", "sandboxes"] {
        let left: Vec<_> = std::fs::read_dir(place.tasks().join(folder))
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
    assert!(
        place.has("file") && place.has("gaffer.toml"),
        "a folder that was named stays"
    );
    assert_eq!(place.run(&["gc", "t1"]).status.code(), Some(3));
}

/// Of a task of Thermos: its steps, in a folder that is theirs. What is above it must let them through.
#[test]
fn steps_run_as_the_user_that_is_named() {
    let place = Place::new();
    let output = place.run(&["run", "--user", "no-such-user", "--id", "u0", "--", "true"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(
        said(&output).contains("there is no user `no-such-user`"),
        "{}",
        said(&output)
    );
    assert!(
        !place.tasks().join("tasks/active/u0").exists(),
        "nothing was begun"
    );
    let run = [
        "run", "--user", "nobody", "--id", "u1", "--", "id", "-un;", "touch", "mine;", "echo", "$HOME",
        "$USER",
    ];
    let output = place.run(&run);
    if !rustix::process::geteuid().is_root() {
        assert!(
            said(&output).contains("only root may run a task as `nobody`"),
            "{}",
            said(&output)
        );
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let sandbox = place.tasks().join("sandboxes/u1");
    let log = said(&place.run(&["logs", "u1"]));
    let words: Vec<&str> = log
        .split_whitespace()
        .filter(|word| !word.contains('|') && *word != "simple")
        .collect();
    assert_eq!(words, ["nobody", &*sandbox.to_string_lossy(), "nobody"], "{log}");
    let owner = std::fs::metadata(sandbox.join("mine")).expect("a file");
    assert_ne!(std::os::unix::fs::MetadataExt::uid(&owner), 0);
}

#[test]
fn an_apply_can_be_taken_back_and_that_too() {
    let mut applied = Applied::new();
    let file = applied.file.clone();
    let job = |word: &str| {
        format!("[job.j]\ncmd = \"sleep 1000\"\nmeta = {{ say = \"{word}\" }}\nenv_file = [\"vars\"]\n")
    };
    let write = |text: String| std::fs::write(&file, format!("session = \"etl\"\n{text}")).expect("a file");
    std::fs::write(applied.work.join("vars"), "SECRET=canary-1\n").expect("a file");
    let said = applied.ends(4, &["apply", "--rollback", &file]);
    assert!(said.contains("nothing is known of what"), "{said}");
    write(job("one") + "[task.t]\ncmd = \"true\"\n");
    applied.ends(0, &["apply", &file]);
    applied.ends(4, &["apply", "--rollback", &file]);
    write(job("two") + "[job.k]\ncmd = \"sleep 1000\"\n");
    applied.ends(0, &["apply", "-y", &file]);
    applied.next_daemon();
    let meta = |applied: &Applied| {
        let shown = applied.ends(0, &["--json", "job", "show", "j"]);
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        shown["spec"]["meta"]["say"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(meta(&applied), "two");
    applied.ends(3, &["task", "start", "t"]);
    let plan = applied.ends(0, &["plan", "--rollback", &file]);
    assert!(plan.contains("- job k") && plan.contains("+ task t"), "{plan}");
    // The file need not be there any more.
    std::fs::remove_file(&file).expect("removed");
    applied.ends(2, &["apply", "--rollback", &file]);
    applied.ends(0, &["apply", "--rollback", "-y", &file]);
    applied.next_daemon();
    assert_eq!(meta(&applied), "one");
    applied.ends(3, &["job", "show", "k"]);
    applied.ends(0, &["task", "start", "t", "--wait"]);
    applied.ends(0, &["apply", "--rollback", "-y", &file]);
    assert_eq!(meta(&applied), "two");
    applied.ends(0, &["job", "show", "k"]);
    let store = std::fs::read(applied.node.state_dir().join("gaffer.db")).expect("the store");
    let wal = std::fs::read(applied.node.state_dir().join("gaffer.db-wal")).unwrap_or_default();
    let has = |bytes: &[u8]| bytes.windows(8).any(|window| window == b"canary-1");
    assert!(
        !has(&store) && !has(&wal),
        "values of files of variables are never kept"
    );
    applied.node.stop(Duration::from_secs(60));
}
