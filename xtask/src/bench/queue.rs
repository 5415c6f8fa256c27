//! Queues: handlers of one process, programs that the daemon keeps or starts, the time from a push to its work, a backlog of a million.

use super::tasks::bare_rate;
use super::{Plan, Table, median};
use crate::shell::cargo;
use anyhow::{Context, Result, bail};
use gaffer_testkit::postgres::Postgres;
use gaffer_testkit::{Node, wait_until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
/// Tasks of one push.
const BATCH: usize = 1_000;

/// All rows of queues.
pub fn queue(plan: &Plan, table: &mut Table) -> Result<()> {
    handlers(plan, table)?;
    database(plan, table)?;
    residents(plan, table)?;
    commands(plan, table)?;
    wake(plan, table)
}

/// The benchmark of the library: `cargo bench -p gaffer --bench queue`.
fn library(words: &[&str]) -> Result<Vec<f64>> {
    let mut all = vec![
        "bench", "--quiet", "--locked", "-p", "gaffer", "--bench", "queue", "--",
    ];
    all.extend(words);
    let output = cargo(&all).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("the benchmark of the library failed");
    }
    let text = String::from_utf8(output.stdout)?;
    let numbers = text.split_whitespace().map(str::parse::<f64>);
    numbers.collect::<Result<_, _>>().context("no numbers")
}

fn one(words: &[&str]) -> Result<f64> {
    library(words)?.first().copied().context("no number")
}

fn handlers(plan: &Plan, table: &mut Table) -> Result<()> {
    let count = plan.many(50_000).to_string();
    let (mut relaxed, mut full) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        relaxed.push(one(&["rate", &count, "relaxed"])?);
        full.push(one(&["rate", &count, "full"])?);
    }
    let what = "tasks by handlers, push to end";
    table.floor_of(&format!("{what}, `relaxed`"), "/s", median(&relaxed), 10_000.0);
    table.floor_of(&format!("{what}, `full`"), "/s", median(&full), 3_000.0);
    table.absolute(
        "push to the beginning of its handler, median",
        "ms",
        one(&["wake", "500"])?,
        1.0,
    );
    let large = plan.many(1_000_000).to_string();
    let (mut small, mut behind, mut memory) = (Vec::new(), Vec::new(), 0.0f64);
    for _ in 0..plan.rounds {
        small.push(one(&["backlog", "1000"])?);
        let found = library(&["backlog", &large])?;
        behind.push(found[0]);
        memory = memory.max(found.get(1).copied().unwrap_or_default());
    }
    let what = format!("tasks by handlers with {large} waiting, by those with 1,000");
    table.at_least(&what, "/s", median(&small), median(&behind), 0.8);
    table.absolute("memory of that program", "MiB", memory, 64.0);
    // Four looks of the store's thread in a second, and what little else wakes up.
    table.absolute("switches in ten seconds of rest", "", one(&["rest"])?, 100.0);
    Ok(())
}

/// A server as it is after `initdb`, on this machine, with a database for each round.
fn database(plan: &Plan, table: &mut Table) -> Result<()> {
    let server = Postgres::start();
    let count = plan.many(50_000).to_string();
    let (mut relaxed, mut full) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        for (durability, rates) in [("relaxed", &mut relaxed), ("full", &mut full)] {
            let database = format!("{durability}{round}");
            server.sql_in("postgres", &format!("CREATE DATABASE {database}"));
            rates.push(one(&["rate", &count, durability, &server.url_of(&database)])?);
        }
    }
    let what = "tasks by handlers on PostgreSQL, push to end";
    table.floor_of(&format!("{what}, `relaxed`"), "/s", median(&relaxed), 5_000.0);
    table.floor_of(&format!("{what}, `full`"), "/s", median(&full), 5_000.0);
    Ok(())
}

fn node(plan: &Plan, queue: &str) -> Result<Node> {
    let node = plan.node();
    let file = node.root().join("gaffer.toml");
    std::fs::write(
        &file,
        format!("session = \"bench\"\n[queue.q]\ndurability = \"relaxed\"\n{queue}"),
    )?;
    let output = node.cli(&["apply", "-y", "-q", "-f", &file.to_string_lossy()]);
    anyhow::ensure!(
        output.status.success(),
        "gaffer apply: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(node)
}

/// Tasks per second from the first push until the queue is empty.
fn rate(node: &mut Node, count: usize) -> Result<f64> {
    let one = json!({ "payload": { "n": 1 } });
    let begun = Instant::now();
    let mut left = count;
    while left > 0 {
        let size = left.min(BATCH);
        let body = Value::Array(vec![one.clone(); size]);
        let (status, answer) = node.http("POST", "/v1/queues/bench/q/tasks", Some(&body));
        anyhow::ensure!(status == 201, "{answer}");
        left -= size;
    }
    wait_until(PATIENCE, "all are done", || {
        let queue = node.get("/v1/queues/bench/q");
        queue["waiting"] == 0 && queue["running"] == 0
    });
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// This very program as a worker: it says done to everything.
fn residents(plan: &Plan, table: &mut Table) -> Result<()> {
    let me = std::env::current_exe()?;
    let keys = format!(
        "cmd = [{:?}, \"bench\", \"bare\", \"resident\"]\nresident = true\nslots = 64\nworkers = 128\n",
        me.to_string_lossy()
    );
    let mut node = node(plan, &keys)?;
    let mut rates = Vec::new();
    for _ in 0..=plan.rounds {
        rates.push(rate(&mut node, plan.many(20_000))?);
    }
    // The first one started the workers.
    rates.remove(0);
    table.floor_of(
        "tasks by two resident workers, push to end",
        "/s",
        median(&rates),
        5_000.0,
    );
    Ok(())
}

fn commands(plan: &Plan, table: &mut Table) -> Result<()> {
    let count = plan.many(5_000);
    let mut node = node(plan, "cmd = [\"/bin/true\"]\nworkers = 64\n")?;
    rate(&mut node, 200)?;
    let (mut bare, mut gaffer) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        bare.push(bare_rate(count)?);
        gaffer.push(rate(&mut node, count)?);
    }
    let what = "tasks by command workers (`/bin/true`), 64 at once, by a bare spawn/wait loop";
    table.at_least(what, "/s", median(&bare), median(&gaffer), 0.7);
    Ok(())
}

/// From before the push of another process to the moment at which a resident worker has read its line.
fn wake(plan: &Plan, table: &mut Table) -> Result<()> {
    let me = std::env::current_exe()?;
    let keys = format!(
        "cmd = [{:?}, \"bench\", \"bare\", \"resident\"]\nresident = true\nworkers = 1\nkeep.result = \"1h\"\n",
        me.to_string_lossy()
    );
    let mut node = node(plan, &keys)?;
    let mut took = Vec::new();
    for number in 0..plan.many(300) + 10 {
        let asked = nanoseconds();
        let (_, pushed) = node.http("POST", "/v1/queues/bench/q/tasks", Some(&json!({ "payload": 1 })));
        let path = format!("/v1/tasks/{}/wait?wait=5s", pushed[0]["id"]);
        let outcome = node.get(&path);
        let read = outcome["result"]
            .as_u64()
            .with_context(|| format!("no result: {outcome}"))?;
        if number >= 10 {
            took.push(read.saturating_sub(asked) as f64 / 1e6);
        }
    }
    table.absolute(
        "push of another process to its worker, median",
        "ms",
        median(&took),
        2.0,
    );
    Ok(())
}

fn nanoseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// A worker that says done to everything, with the time at which it read it.
pub fn resident() -> Result<()> {
    let mut input = BufReader::new(std::io::stdin());
    let mut output = BufWriter::new(std::io::stdout().lock());
    let mut line = String::new();
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(output.flush()?);
        }
        let read = nanoseconds();
        let task: Value = serde_json::from_str(&line)?;
        if task["type"] == "task" {
            let done = json!({ "type": "done", "id": task["id"], "token": task["token"], "result": read });
            writeln!(output, "{done}")?;
        }
        // As long as there are whole lines, answers are gathered.
        if !input.buffer().contains(&b'\n') {
            output.flush()?;
        }
    }
}
