//! How long an instance is gone when it was killed.

use super::announce::Announcer;
use super::{Plan, Table, median, percentile};
use anyhow::{Context, Result};
use gaffer_testkit::process::Handle;
use rustix::process::Signal;
use serde_json::json;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// Each lives so long before it is killed.
const LIFE: Duration = Duration::from_millis(30);

/// Kill to first byte of the successor: a bare kill-wait-spawn loop, and a job with zero delay.
pub fn respawn(plan: &Plan, table: &mut Table) -> Result<()> {
    let count = plan.many(100);
    let (mut bare, mut gaffer) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        bare.extend(bare_loop(count)?);
        gaffer.extend(job(plan, count)?);
    }
    table.at_most(
        "replaced after a kill, median",
        "µs",
        median(&bare),
        median(&gaffer),
        2.0,
    );
    table.at_most(
        "replaced after a kill, p99",
        "µs",
        percentile(&bare, 99.0),
        percentile(&gaffer, 99.0),
        3.0,
    );
    Ok(())
}

fn kill_again_and_again(announcer: &mut Announcer, count: usize) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    let mut pid = announcer.wait(1, PATIENCE)?.first().context("an announcement")?.0;
    for _ in 0..count {
        let handle = Handle::open(pid).context("the program is gone already")?;
        std::thread::sleep(LIFE);
        let begun = Instant::now();
        handle.signal(Signal::KILL);
        let (next, at) = *announcer.wait(1, PATIENCE)?.first().context("an announcement")?;
        took.push((at - begun).as_secs_f64() * 1e6);
        pid = next;
    }
    Ok(took)
}

fn bare_loop(count: usize) -> Result<Vec<f64>> {
    let mut announcer = Announcer::new()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["bench", "bare", "respawn"])
        .arg(&announcer.program)
        .stdin(Stdio::null());
    let mut child = command.spawn()?;
    let took = kill_again_and_again(&mut announcer, count);
    child.kill()?;
    child.wait()?;
    // The last one lost its parent, and nobody else knows it.
    for process in gaffer_testkit::process::Process::all().into_values() {
        if process
            .command
            .first()
            .is_some_and(|word| *word == announcer.program.to_string_lossy())
        {
            gaffer_testkit::process::kill(&process);
        }
    }
    took
}

fn job(plan: &Plan, count: usize) -> Result<Vec<f64>> {
    let mut announcer = Announcer::new()?;
    let mut node = plan.node();
    let retry = json!({"delay": "0s", "jitter": 0});
    node.put_job(
        "bench",
        "again",
        &json!({"cmd": [announcer.program], "restart": "always", "retry": retry}),
    );
    kill_again_and_again(&mut announcer, count)
}
