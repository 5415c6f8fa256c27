//! Tasks of many steps: the rate of real runs by a bare loop, and what planning and replaying cost.

use super::{Plan, Table, median};
use crate::shell::cargo;
use anyhow::{Context, Result, bail};
use serde_json::{Map, json};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Steps at once.
const WIDTH: usize = 64;
/// What every step runs.
const PROGRAM: &str = "/bin/true";
const PATIENCE: Duration = Duration::from_secs(120);

/// A task of 10,000 steps, and planning with up to 50,000.
pub fn tasks(plan: &Plan, table: &mut Table) -> Result<()> {
    let steps = plan.many(10_000);
    let (mut bare, mut gaffer) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        bare.push(bare_rate(steps)?);
        gaffer.push(task_rate(plan, steps)?);
    }
    let what = format!("steps per second of a task of {steps}, {WIDTH} at once");
    table.at_least(&what, "/s", median(&bare), median(&gaffer), 0.6);
    planning(table)
}

pub(super) fn bare_rate(steps: usize) -> Result<f64> {
    let words = ["bench", "bare", "steps", &steps.to_string()];
    let output = Command::new(std::env::current_exe()?)
        .args(words)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        bail!(
            "the bare loop failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// The bare loop: start as many as may, wait for any.
pub fn bare_steps(steps: usize) -> Result<()> {
    let begun = Instant::now();
    let (mut started, mut ended) = (0, 0);
    while ended < steps {
        while started < steps && started - ended < WIDTH {
            // Waited for by number, below.
            drop(
                Command::new(PROGRAM)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()?,
            );
            started += 1;
        }
        let mut status = 0;
        // SAFETY: the status is ours.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if pid < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        if !std::process::ExitStatus::from_raw(status).success() {
            bail!("{PROGRAM} failed");
        }
        ended += 1;
    }
    println!("{}", steps as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

fn task_rate(plan: &Plan, steps: usize) -> Result<f64> {
    let mut node = plan.node_that_keeps();
    let step = json!({ "cmd": [PROGRAM], "cwd": "/" });
    let all: Map<String, serde_json::Value> = (0..steps).map(|at| (format!("s{at}"), step.clone())).collect();
    let body = json!({
        "id": "many", "name": "many", "task": { "concurrency": WIDTH, "step": all },
    });
    let begun = Instant::now();
    let (status, answer) = node.http("POST", "/v1/tasks", Some(&body));
    if status != 201 {
        bail!("the task was refused: {answer}");
    }
    let deadline = Instant::now() + PATIENCE;
    // Looked for where it costs the daemon nothing.
    let finished = node.state_dir().join("tasks/tasks/finished/many");
    while !finished.exists() {
        if Instant::now() > deadline {
            bail!("the task did not end in time");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = begun.elapsed();
    let (_, task) = node.http("GET", "/v1/tasks/many", None);
    if task["state"] != "success" {
        bail!("the task is {}: {}", task["state"], task["reason"]);
    }
    node.stop(PATIENCE);
    Ok(steps as f64 / took.as_secs_f64())
}

/// Of the core alone, in a program of its own: this one is not optimised.
fn planning(table: &mut Table) -> Result<()> {
    let words = [
        "run",
        "--quiet",
        "--profile",
        "bench",
        "--locked",
        "-p",
        "gaffer-core",
        "--example",
        "planning",
    ];
    let output = cargo(&words).output()?;
    let text = String::from_utf8(output.stdout)?;
    let number = |prefix: &str| -> Result<f64> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(prefix))
            .with_context(|| format!("no `{prefix}` in {text}"))?;
        Ok(line.trim().parse()?)
    };
    let first = number("steps 1000 ")?;
    for steps in [10_000, 50_000] {
        let what = format!("decisions per step of a task of {steps}, by those of one of 1,000");
        table.at_most(&what, "ns", first, number(&format!("steps {steps} "))?, 1.5);
    }
    table.absolute(
        "replay of a checkpoint of 100,000 records",
        "ms",
        number("records 100000 ")?,
        1000.0,
    );
    Ok(())
}
