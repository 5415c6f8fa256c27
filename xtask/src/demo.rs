//! The main job, shown: the example app is launched, a worker is killed, the daemon is killed, nothing is lost.

use crate::shell::{cargo, programs, root, run};
use anyhow::{Context, Result, bail};
use gaffer_testkit::{Node, process};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Builds (debug: it is there sooner), shows, and leaves nothing behind.
pub fn demo() -> Result<()> {
    println!("building (debug, the first time takes some minutes)…");
    run(&mut cargo(&["build", "--workspace", "--bins", "--locked"]))?;
    let app = root().join("examples/shop");
    let bins = programs("debug")?;
    // A node of its own in a temporary directory: a daemon of this host is not touched.
    let mut node = Node::builder().bin_dir(&bins).start();
    let gaffer = |node: &Node, words: &[&str]| -> Result<()> {
        println!("\n\x1b[1m$ gaffer {}\x1b[0m", words.join(" "));
        let mut command = Command::new(bins.join("gaffer"));
        command
            .args(words)
            .current_dir(&app)
            .env("GAFFER_SOCKET", node.socket())
            .env_remove("GAFFER_URL");
        // Not everything that is shown must succeed; what it prints says so.
        command
            .status()
            .with_context(|| format!("gaffer {}", words.join(" ")))?;
        Ok(())
    };

    say("A daemon runs on a socket of its own. The example app: web, two workers, a clock.");
    gaffer(&node, &["apply", "-y"])?;
    for job in ["web", "worker", "clock"] {
        node.wait_job("shop", job, PATIENCE, |job| job["state"] == "running");
    }
    gaffer(&node, &["ps"])?;

    let worker = pid(&node.get("/v1/jobs/shop/worker"), 0)?;
    say(&format!("A worker is killed: kill -9 {worker}"));
    kill(worker)?;
    node.wait_job("shop", "worker", PATIENCE, |job| {
        pid(job, 0).is_ok_and(|now| now != worker) && job["state"] == "running"
    });
    gaffer(&node, &["ps"])?;
    gaffer(&node, &["why", "worker"])?;

    let daemon = node.daemon_pid().context("the daemon's pid")?;
    let before = pids(&mut node)?;
    say(&format!(
        "Now the daemon itself: kill -9 {daemon}. Its programs go on; a new one takes charge of them."
    ));
    node.kill9();
    gaffer(&node, &["ps"])?;
    node.start_again();
    gaffer(&node, &["ps"])?;
    let after = pids(&mut node)?;
    if before != after {
        bail!("the programs were {before:?} and are {after:?}: they should be the same");
    }
    say("The same processes, and not a line of their output is missing:");
    gaffer(&node, &["logs", "-n", "12"])?;
    gaffer(&node, &["stop", "--all"])?;
    node.assert_no_job_processes();
    say("All stopped; nothing is left.  Your turn:  cd examples/shop && gaffer start");
    println!("(programs: {})", bins.display());
    Ok(())
}

fn say(text: &str) {
    println!("\n\x1b[36m── {text}\x1b[0m");
}

fn pid(job: &Value, instance: usize) -> Result<u32> {
    let pid = job["instances"][instance]["pid"]
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok());
    pid.with_context(|| format!("no pid in {job}"))
}

fn pids(node: &mut Node) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for (job, instances) in [("web", 1), ("worker", 2), ("clock", 1)] {
        let value = node.get(&format!("/v1/jobs/shop/{job}"));
        for instance in 0..instances {
            found.push(pid(&value, instance)?);
        }
    }
    Ok(found)
}

fn kill(pid: u32) -> Result<()> {
    let handle = process::Handle::open(pid).context("the worker is gone already")?;
    handle.signal(rustix::process::Signal::KILL);
    Ok(())
}
