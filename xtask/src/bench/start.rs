//! Starting and stopping many.

use super::announce::Announcer;
use super::{Plan, Table, median};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// What a bare loop took, in milliseconds.
struct Bare {
    start: f64,
    stop: f64,
}

/// Times of gaffer, in milliseconds; the ends of the row only for starts.
struct Times {
    whole: f64,
    first_hundred: f64,
    last_hundred: f64,
}

/// 1,000 instances, 1,000 jobs from one file, 5,000 instances.
pub fn start(plan: &Plan, table: &mut Table) -> Result<()> {
    let thousand = plan.many(1000);
    let floors = [
        (&["floor"][..], "only what the kernel does for it"),
        (&["floor", "ahead"], "that, with cgroups made before"),
        (&["floor", "none"], "that, without cgroups"),
    ];
    let (mut bare, mut instances, mut jobs) = (Vec::new(), Vec::new(), Vec::new());
    let mut floor = floors.map(|_| Vec::new());
    for _ in 0..plan.rounds {
        bare.push(bare_loop(&["spawn"], thousand)?.start);
        for (times, (kind, _)) in floor.iter_mut().zip(floors) {
            times.push(bare_loop(kind, thousand)?.start);
        }
        instances.push(start_instances(plan, thousand)?.whole);
        bare.push(bare_loop(&["spawn"], thousand)?.start);
        jobs.push(start_jobs(plan, thousand)?.0);
    }
    for (times, (_, what)) in floor.iter().zip(floors) {
        table.floor(
            &format!("start {thousand}: {what}"),
            "ms",
            median(&bare),
            median(times),
        );
    }
    table.at_most(
        &format!("start {thousand} instances"),
        "ms",
        median(&bare),
        median(&instances),
        1.3,
    );
    table.at_most(
        &format!("start {thousand} jobs of one file"),
        "ms",
        median(&bare),
        median(&jobs),
        1.6,
    );
    many(plan, table)
}

/// 5,000 instances, in at most four rounds.
fn many(plan: &Plan, table: &mut Table) -> Result<()> {
    let many = plan.many(5000);
    let (mut bare, mut all) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds.min(4) {
        bare.push(bare_loop(&["spawn"], many)?.start);
        all.push(start_instances(plan, many)?);
    }
    let of = |part: fn(&Times) -> f64| median(&all.iter().map(part).collect::<Vec<_>>());
    table.at_most(
        &format!("start {many} instances"),
        "ms",
        median(&bare),
        of(|times| times.whole),
        1.3,
    );
    table.at_most(
        &format!("of {many}: last hundred by first hundred"),
        "ms",
        of(|times| times.first_hundred),
        of(|times| times.last_hundred),
        1.0,
    );
    Ok(())
}

/// 1,000 that obey TERM.
pub fn stop(plan: &Plan, table: &mut Table) -> Result<()> {
    let thousand = plan.many(1000);
    let (mut bare, mut floor, mut instances, mut jobs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        bare.push(bare_loop(&["spawn"], thousand)?.stop);
        floor.push(bare_loop(&["floor"], thousand)?.stop);
        instances.push(stop_instances(plan, thousand)?);
        bare.push(bare_loop(&["spawn"], thousand)?.stop);
        jobs.push(start_jobs(plan, thousand)?.1);
    }
    let what = format!("stop {thousand}: only what the kernel does for it");
    table.floor(&what, "ms", median(&bare), median(&floor));
    table.at_most(
        &format!("stop {thousand} instances"),
        "ms",
        median(&bare),
        median(&instances),
        1.5,
    );
    table.at_most(
        &format!("stop {thousand} jobs"),
        "ms",
        median(&bare),
        median(&jobs),
        1.5,
    );
    Ok(())
}

/// The bare loop is told by the same reader as gaffer: the stopwatch ends with the last announcement.
fn bare_loop(kind: &[&str], count: usize) -> Result<Bare> {
    let mut announcer = Announcer::new()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([
            "bench",
            "bare",
            kind.first().context("a loop")?,
            &count.to_string(),
        ])
        .arg(&announcer.program)
        .args(kind.get(1..).unwrap_or_default());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    announcer.wait(count, PATIENCE)?;
    let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
    lines.next().context("the loop's word")??;
    child.stdin.take().context("a pipe")?.write_all(b".")?;
    let numbers: Vec<f64> = lines
        .map(|line| Ok(line?.parse::<f64>()? / 1000.0))
        .collect::<Result<_>>()?;
    child.wait()?;
    match numbers.as_slice() {
        [start, .., stop] => Ok(Bare {
            start: *start,
            stop: *stop,
        }),
        other => bail!("the bare loop said {other:?}"),
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn times(begun: Instant, told: &[(u32, Instant)]) -> Result<Times> {
    let at = |place: usize| told.get(place).map(|(_, at)| *at).context("an announcement");
    let last = told.len().checked_sub(1).context("announcements")?;
    let few = 100.min(last);
    Ok(Times {
        whole: ms(at(last)? - begun),
        first_hundred: ms(at(few)? - at(0)?),
        last_hundred: ms(at(last)? - at(last - few)?),
    })
}

fn start_instances(plan: &Plan, count: usize) -> Result<Times> {
    let mut announcer = Announcer::new()?;
    let mut node = plan.node_that_keeps();
    node.put_job(
        "bench",
        "many",
        &json!({"cmd": [announcer.program], "instances": count, "start": false}),
    );
    // The session's shim, started by a single run, is no part of a start.
    warm_up(&mut node);
    let begun = Instant::now();
    let (status, answer) = node.http("POST", "/v1/jobs/bench/many/start", Some(&json!({})));
    if status >= 300 {
        bail!("start: {status} {answer}");
    }
    times(begun, &announcer.wait(count, PATIENCE)?)
}

fn warm_up(node: &mut gaffer_testkit::Node) {
    let idle = node.fixture();
    node.put_job("bench", "first", &json!({"cmd": [idle, "idle"]}));
    node.wait_job("bench", "first", PATIENCE, |job| job["state"] == "running");
}

fn stop_instances(plan: &Plan, count: usize) -> Result<f64> {
    let mut announcer = Announcer::new()?;
    let mut node = plan.node_that_keeps();
    node.put_job(
        "bench",
        "many",
        &json!({"cmd": [announcer.program], "instances": count}),
    );
    announcer.wait(count, PATIENCE)?;
    node.wait_job("bench", "many", PATIENCE, |job| job["state"] == "running");
    let begun = Instant::now();
    let (status, answer) = node.http("POST", "/v1/jobs/bench/many/stop?wait=120s", Some(&json!({})));
    let took = ms(begun.elapsed());
    if status >= 300 || !node.job_processes().is_empty() {
        bail!(
            "stop: {status} {answer}; {} processes are left",
            node.job_processes().len()
        );
    }
    Ok(took)
}

/// Milliseconds from `gaffer apply` to the last announcement, and of `gaffer stop --all`.
fn start_jobs(plan: &Plan, count: usize) -> Result<(f64, f64)> {
    let mut announcer = Announcer::new()?;
    let mut node = plan.node_that_keeps();
    warm_up(&mut node);
    let program = announcer.program.to_string_lossy().into_owned();
    let jobs: String = (1..=count)
        .map(|number| format!("[job.j{number}]\ncmd = [{program:?}]\n"))
        .collect();
    let file = node.root().join("gaffer.toml");
    std::fs::write(&file, format!("session = \"bench\"\n{jobs}"))?;
    let begun = Instant::now();
    let mut command = Command::new(node.program("gaffer"));
    command
        .args(["apply", "-y", "-q", "-f"])
        .arg(&file)
        .env("GAFFER_SOCKET", node.socket())
        .env_remove("GAFFER_URL");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let told = announcer.wait(count, PATIENCE);
    let status = child.wait()?;
    let started = times(begun, &told?)?.whole;
    if !status.success() {
        bail!("gaffer apply: {status}");
    }
    let begun = Instant::now();
    let output = node.cli(&["stop", "--all", "--session", "bench", "-q"]);
    let stopped = ms(begun.elapsed());
    if !output.status.success() {
        bail!("gaffer stop: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok((started, stopped))
}
