//! What a task costs without any process: `cargo run --profile bench -p gaffer-core --example planning`.
//!
//! Prints a line for each number of steps: nanoseconds of decision per step, then the records of the largest task and the
//! milliseconds in which they are replayed. `cargo xtask bench tasks` reads them.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "it measures: it has a clock"
)]

use gaffer_core::job::Launch;
use gaffer_core::name::RunId;
use gaffer_core::task::record::{Header, Record};
use gaffer_core::task::runner::{Command, Input, Leader, RunEnd, Runner};
use gaffer_core::task::spec::{Step, Task, When};
use gaffer_core::time::{Mono, Now, Wall};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Steps at once.
const WIDTH: u32 = 64;

fn main() {
    for steps in [1_000, 10_000, 50_000] {
        let (records, took) = run(steps);
        println!("steps {steps} {:.0}", took / steps as f64);
        if steps == 50_000 {
            let records = &records[..records.len().min(100_000)];
            let begun = Instant::now();
            let leader = Leader { pid: 1, uid: 0 };
            let replayed = Runner::replay(spec(steps), leader, 1, now(), records);
            let ms = begun.elapsed().as_secs_f64() * 1e3;
            assert!(replayed.is_ok(), "its own records are understood");
            println!("records {} {ms:.1}", records.len());
        }
    }
}

fn now() -> Now {
    Now {
        mono: Mono(1_000_000_000),
        wall: Wall(1_700_000_000_000),
    }
}

/// Each tenth step waits for the one before it.
fn spec(steps: usize) -> Arc<Task> {
    let launch = Launch::of(vec!["true".to_owned()]);
    let steps = (0..steps)
        .map(|at| {
            let mut step = Step::of(format!("s{at}"), launch.clone());
            if at % 10 == 9 {
                step.after = vec![(at - 1, When::Done)];
            }
            step
        })
        .collect();
    let mut task = Task::of("many", steps);
    task.concurrency = Some(WIDTH);
    Arc::new(task)
}

/// All records, and the nanoseconds spent in the machine.
fn run(steps: usize) -> (Vec<Record>, f64) {
    let leader = Leader { pid: 1, uid: 0 };
    let mut runner = Runner::replay(spec(steps), leader, 1, now(), &[]).expect("an empty stream");
    let mut n = 0;
    let mut ids = || {
        n += 1;
        RunId { epoch: 1, n }
    };
    let text = || Arc::<str>::from("");
    let header = Header {
        task_id: text(),
        launched: now().wall,
        sandbox: text(),
        hostname: text(),
        user: text(),
        uid: None,
        ports: Vec::new(),
        log_dir: text(),
        retry_of: None,
    };
    let mut inputs = VecDeque::from([Input::Lead(Box::new(header))]);
    let mut records = Vec::new();
    let begun = Instant::now();
    while let Some(input) = inputs.pop_front() {
        let output = runner.handle(now(), input, &mut ids);
        records.extend(output.records);
        for command in output.commands {
            if let Command::Spawn { run, .. } = command {
                let at = now().wall;
                inputs.push_back(Input::Started {
                    run,
                    pid: 2,
                    parent_pid: 1,
                    at,
                });
                let end = RunEnd {
                    status: gaffer_core::io::Status::Code(0),
                    oom: false,
                    at,
                    outputs: Ok(Vec::new()),
                    usage: None,
                };
                inputs.push_back(Input::Ended {
                    run,
                    end,
                    tree_gone: true,
                });
            }
        }
    }
    assert!(runner.is_finished(), "it ran to its end");
    (records, begun.elapsed().as_secs_f64() * 1e9)
}
