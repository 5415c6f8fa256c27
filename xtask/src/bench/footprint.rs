//! What gaffer costs when nothing happens.

use super::{Plan, Table};
use anyhow::{Context, Result};
use gaffer_testkit::{Node, elf};
use serde_json::json;
use std::time::Duration;

/// Memory of daemon, guard and shim with 1,000 idle jobs, and switches while nothing happens.
pub fn footprint(plan: &Plan, table: &mut Table) -> Result<()> {
    let count = plan.many(1000);
    let mut node = plan.node();
    let program = node.root().join("idle");
    elf::install(&program, elf::First::Nothing)?;
    let file = node.root().join("gaffer.toml");
    let jobs: String = (1..=count)
        .map(|number| format!("[job.j{number}]\ncmd = [{program:?}]\n"))
        .collect();
    std::fs::write(&file, format!("session = \"bench\"\n{jobs}"))?;
    let output = node.cli(&["apply", "-y", "-q", "-f", &file.to_string_lossy()]);
    anyhow::ensure!(
        output.status.success(),
        "gaffer apply: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    gaffer_testkit::wait_until(Duration::from_secs(60), "all run", || {
        node.job_processes().len() == count
    });
    let last = format!("j{count}");
    node.wait_job("bench", &last, Duration::from_secs(60), |job| {
        job["state"] == "running"
    });
    // What has to settle, settles: trimmed memory, the shims' one-shot timers, and the connection that was used
    // above, which the daemon closes after ten idle seconds.
    std::thread::sleep(Duration::from_secs(13));
    let ours = ours(&node)?;
    let mut sum = 0.0;
    for (name, pid) in &ours {
        let pss = pss_kib(*pid)?;
        println!("  {name} {pid}: {pss} KiB");
        sum += pss as f64 / 1024.0;
    }
    table.absolute(&format!("memory (PSS) with {count} idle jobs"), "MiB", sum, 12.0);
    let before = switches(&ours)?;
    std::thread::sleep(Duration::from_secs(10));
    table.absolute(
        "context switches in 10 s at rest",
        "",
        (switches(&ours)? - before) as f64,
        0.0,
    );
    // A job that runs is part of the promise: nothing of the above was an empty node.
    node.put_job("bench", "late", &json!({"cmd": [program]}));
    node.wait_job("bench", "late", Duration::from_secs(30), |job| {
        job["state"] == "running"
    });
    Ok(())
}

fn ours(node: &Node) -> Result<Vec<(String, u32)>> {
    let daemon = node.daemon_pid().context("a daemon")?;
    let shims = node
        .shims()
        .into_iter()
        .map(|process| ("gaffer-shim".to_owned(), process.pid));
    Ok(std::iter::once(("gafferd".to_owned(), daemon))
        .chain(shims)
        .collect())
}

fn pss_kib(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .context("Pss")?;
    line.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .context("a number")
}

fn switches(processes: &[(String, u32)]) -> Result<u64> {
    let mut sum = 0;
    for (_, pid) in processes {
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = std::fs::read_to_string(task?.path().join("status"))?;
            let lines = status
                .lines()
                .filter_map(|line| line.split_once("_ctxt_switches:"));
            sum += lines
                .filter_map(|(_, number)| number.trim().parse::<u64>().ok())
                .sum::<u64>();
        }
    }
    Ok(sum)
}
