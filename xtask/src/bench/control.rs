//! Taking charge again, and answering.

use super::{Plan, Table, median, percentile};
use anyhow::{Result, bail};
use gaffer_testkit::{Node, elf, wait_until};
use serde_json::json;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn node_with_jobs(plan: &Plan, count: usize) -> Result<Node> {
    let node = plan.node();
    let program = node.root().join("idle");
    elf::install(&program, elf::First::Nothing)?;
    let jobs: String = (1..=count)
        .map(|number| format!("[job.j{number}]\ncmd = [{program:?}]\n"))
        .collect();
    let file = node.root().join("gaffer.toml");
    std::fs::write(&file, format!("session = \"bench\"\n{jobs}"))?;
    let output = node.cli(&["apply", "-y", "-q", "-f", &file.to_string_lossy()]);
    anyhow::ensure!(
        output.status.success(),
        "gaffer apply: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    wait_until(PATIENCE, "all run", || node.job_processes().len() == count);
    Ok(node)
}

/// From the start of `gafferd` until the last of 1,000 live runs is known to be running again.
pub fn adopt(plan: &Plan, table: &mut Table) -> Result<()> {
    let count = plan.many(1000);
    let mut node = node_with_jobs(plan, count)?;
    let before = node.job_processes();
    let mut took = Vec::new();
    for _ in 0..plan.rounds {
        node.kill9();
        let begun = Instant::now();
        node.start_again();
        // Ready means that recovery is over; the last job is asked for to be sure.
        node.wait_job("bench", &format!("j{count}"), PATIENCE, |job| {
            job["state"] == "running"
        });
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    let after = node.job_processes();
    let pids = |list: &[gaffer_testkit::process::Process]| {
        list.iter().map(|process| process.pid).collect::<Vec<_>>()
    };
    if pids(&before) != pids(&after) {
        bail!(
            "{} processes before, {} after, and not the same",
            before.len(),
            after.len()
        );
    }
    table.absolute(&format!("{count} live runs adopted"), "ms", median(&took), 300.0);
    Ok(())
}

/// `GET` of one job over a kept connection while 1,000 jobs are loaded.
pub fn control(plan: &Plan, table: &mut Table) -> Result<()> {
    let count = plan.many(1000);
    let mut node = node_with_jobs(plan, count)?;
    let mut took = Vec::new();
    for number in 0..plan.many(5000) + 100 {
        let begun = Instant::now();
        let answer = node.request("GET", &format!("/v1/jobs/bench/j{}", number % count + 1), None);
        let elapsed = begun.elapsed();
        anyhow::ensure!(answer.status == 200, "{}", answer.text());
        // The first ones find cold caches, and no user ever waits for a thousandth of that.
        if number >= 100 {
            took.push(elapsed.as_secs_f64() * 1e6);
        }
    }
    table.absolute("GET of one job, median", "µs", median(&took), 100.0);
    table.absolute("GET of one job, p99", "µs", percentile(&took, 99.0), 300.0);
    // Nothing may be wrong with the body either.
    let job = node.get("/v1/jobs/bench/j1");
    anyhow::ensure!(job["job"] == json!("j1"), "{job}");
    Ok(())
}
