//! How fast output moves, and what that costs.

use super::{Plan, Table, median};
use anyhow::{Context, Result, bail};
use gaffer_testkit::{Node, wait_until};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(300);

/// What one side did.
struct Outcome {
    /// MiB per second, all writers together.
    rate: f64,
    /// CPU seconds of whoever pumped.
    cpu: f64,
}

/// Blocks of 64 KiB and lines of 100 bytes, one writer and eight; a late line; a line without an end.
pub fn logs(plan: &Plan, table: &mut Table) -> Result<()> {
    for (what, block, bytes) in [
        ("64 KiB", 65_536, plan.many(1024) << 20),
        ("100 B", 100, plan.many(100) << 20),
    ] {
        for writers in [1, 8] {
            let each = bytes / writers;
            let (mut bare, mut gaffer) = (Vec::new(), Vec::new());
            for _ in 0..plan.rounds {
                bare.push(bare_pump(plan, writers, block, each)?);
                gaffer.push(jobs(plan, writers, block, each)?);
            }
            let middle =
                |side: &[Outcome], of: fn(&Outcome) -> f64| median(&side.iter().map(of).collect::<Vec<_>>());
            let name = format!(
                "{what} writes, {writers} writer{}",
                if writers == 1 { "" } else { "s" }
            );
            let bound = if block == 100 { 1.0 } else { 0.95 };
            let rates = [middle(&bare, |side| side.rate), middle(&gaffer, |side| side.rate)];
            table.at_least(&name, "MiB/s", rates[0], rates[1], bound);
            if block == 100 {
                let cpu = [
                    middle(&bare, |side| side.cpu * 1000.0),
                    middle(&gaffer, |side| side.cpu * 1000.0),
                ];
                table.at_most(&format!("{name}: CPU"), "ms", cpu[0], cpu[1], 0.7);
            }
        }
    }
    late_line(plan, table)?;
    endless_line(plan, table)
}

/// All reports of the writers: nanoseconds from the first write to the last.
fn rate(dir: &Path, writers: usize, each: usize) -> Result<f64> {
    let mut longest = 0.0_f64;
    for writer in 0..writers {
        let text = std::fs::read_to_string(dir.join(format!("report-{writer}")))?;
        longest = longest.max(text.trim().parse::<f64>()? / 1e9);
    }
    Ok((writers * each) as f64 / f64::from(1 << 20) / longest)
}

fn writer(node_bin: &Path, dir: &Path, number: &str, block: usize, bytes: usize) -> Vec<String> {
    let report = dir.join(format!("report-{number}"));
    let words = [
        "pour",
        "--block",
        &block.to_string(),
        "--bytes",
        &bytes.to_string(),
        "--report",
        &report.to_string_lossy(),
    ]
    .map(str::to_owned);
    std::iter::once(node_bin.join("gaffer-fixture").to_string_lossy().into_owned())
        .chain(words)
        .collect()
}

fn bare_pump(plan: &Plan, writers: usize, block: usize, each: usize) -> Result<Outcome> {
    let dir = tempfile::Builder::new().prefix("gaffer-bench-").tempdir()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["bench", "bare", "pump", &writers.to_string()])
        .arg(dir.path())
        .arg("--");
    command
        .args(writer(&plan.bins, dir.path(), "%n", block, each))
        .stdin(Stdio::null());
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("the bare pump: {}", output.status);
    }
    let cpu_us: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(Outcome {
        rate: rate(dir.path(), writers, each)?,
        cpu: cpu_us / 1e6,
    })
}

fn jobs(plan: &Plan, writers: usize, block: usize, each: usize) -> Result<Outcome> {
    let mut node = plan.node();
    let idle = node.fixture();
    // The shim is there before the stopwatch runs.
    node.put_job("bench", "first", &json!({"cmd": [idle, "idle"]}));
    node.wait_job("bench", "first", PATIENCE, |job| job["state"] == "running");
    let before = shim_cpu(&node)?;
    for number in 0..writers {
        let cmd = writer(&plan.bins, node.root(), &number.to_string(), block, each);
        node.put_job(
            "bench",
            &format!("w{number}"),
            &json!({"cmd": cmd, "restart": "never"}),
        );
    }
    for number in 0..writers {
        let report = node.root().join(format!("report-{number}"));
        wait_until(PATIENCE, "the writer's report", || report.exists());
        node.wait_job("bench", &format!("w{number}"), PATIENCE, |job| {
            job["state"] == "exited"
        });
    }
    Ok(Outcome {
        rate: rate(node.root(), writers, each)?,
        cpu: shim_cpu(&node)? - before,
    })
}

/// CPU seconds of guard and shim. Nanoseconds from the scheduler, because ticks of 10 ms are too coarse.
fn shim_cpu(node: &Node) -> Result<f64> {
    let mut sum = 0.0;
    for process in node.shims() {
        for task in std::fs::read_dir(format!("/proc/{}/task", process.pid))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            sum += text
                .split_whitespace()
                .next()
                .context("a number")?
                .parse::<f64>()?
                / 1e9;
        }
    }
    Ok(sum)
}

/// A line after silence is in the segment within 5 ms.
fn late_line(plan: &Plan, table: &mut Table) -> Result<()> {
    let mut node = plan.node();
    let fixture = node.fixture();
    node.put_job(
        "bench",
        "late",
        &json!({"cmd": [fixture, "echo-stdin"], "stdin": "pipe"}),
    );
    let job = node.wait_job("bench", "late", PATIENCE, |job| job["state"] == "running");
    let run = job["instances"][0]["run"].as_str().context("a run")?.to_owned();
    let mut took = Vec::new();
    for round in 1..=plan.many(50) {
        std::thread::sleep(Duration::from_millis(50));
        let begun = Instant::now();
        let answer = node.request("POST", &format!("/v1/runs/{run}/input"), Some(&json!("x")));
        anyhow::ensure!(answer.status < 300, "input: {}", answer.text());
        // `"x"`, three bytes each time.
        while node.logged("bench", "late", 1, "stdout").len() < 3 * round {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "the line does not come");
            std::thread::yield_now();
        }
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    table.absolute(
        "a line after silence, from request to segment, median",
        "ms",
        median(&took),
        5.0,
    );
    Ok(())
}

/// Memory of the shim does not grow with a line that never ends.
fn endless_line(plan: &Plan, table: &mut Table) -> Result<()> {
    let mut node = plan.node();
    let fixture = node.fixture();
    let bytes = plan.many(1000) << 20;
    node.put_job(
        "bench",
        "endless",
        &json!({"cmd": [fixture, "endless-line", bytes.to_string()], "restart": "never"}),
    );
    node.wait_job("bench", "endless", PATIENCE, |job| {
        job["instances"][0]["pid"].is_u64() || job["state"] == "exited"
    });
    let before = shim_memory(&node)?;
    node.wait_job("bench", "endless", PATIENCE, |job| job["state"] == "exited");
    let grown = shim_memory(&node)? - before;
    table.absolute(
        &format!("memory of the shim, grown by a line of {} MiB", bytes >> 20),
        "KiB",
        grown,
        1024.0,
    );
    Ok(())
}

fn shim_memory(node: &Node) -> Result<f64> {
    let mut sum = 0.0;
    for process in node.shims() {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .context("Pss")?;
        sum += line
            .split_whitespace()
            .next()
            .context("a number")?
            .parse::<f64>()?;
    }
    Ok(sum)
}
