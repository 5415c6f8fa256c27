//! `doctor --chaos`: on a private daemon with a directory of its own, the daemon and its shims are killed at random
//! moments for a while; afterwards what the programs themselves counted is compared with what was kept.
//!
//! Nothing of it touches another daemon: its processes, state and logs are gone when it is over.

use crate::context::Context;
use crate::failure::Failure;
use crate::private::Private;
use futures_util::StreamExt;
use gaffer_api::Client;
use gaffer_api::routes::LogQuery;
use gaffer_api::types::{Check, Doctor, JobsRequest, Operation};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::time::{Duration, Instant};

const SESSION: &str = "chaos";
/// Jobs that write without end.
const ENDLESS: u32 = 6;
/// Jobs that write, end with [`CODE`] and are started again.
const ENDING: u32 = 3;
const CODE: i32 = 3;
/// Runs begin again, and shims answer, within.
const SOON: Duration = Duration::from_secs(30);
/// Deaths that history keeps of a job.
const KEPT: usize = 200;

/// Writes numbered lines and counts each in a file of the run, a byte per line: `sh PROGRAM COUNT TALLY`.
const PROGRAM: &str = r#"n=0
while [ "$1" = 0 ] || [ "$n" -lt "$1" ]; do
  echo "@$GAFFER_RUN $n"
  echo >> "$2/$GAFFER_RUN"
  n=$((n + 1))
  sleep 0.05
done
exit 3
"#;

/// What was done, and what came of it.
#[derive(Default)]
struct Tally {
    daemon_kills: u32,
    shim_kills: u32,
    /// Runs that lived before and after a kill of the daemon alone.
    kept: usize,
    /// Runs that were lost by one.
    lost: BTreeSet<String>,
    /// Places that had two live runs.
    doubled: BTreeSet<String>,
    runs: usize,
    written: u64,
    faults: Vec<String>,
    deaths: usize,
    without_record: Vec<String>,
}

/// Does it for a while; exit 1 if anything was lost.
pub async fn chaos(ctx: &Context, within: Duration) -> Result<u8, Failure> {
    ctx.out.talk(&format!(
        "a private daemon and its shims are killed at random for {}; your own is not touched",
        crate::when::duration(within.as_secs() * 1000)
    ));
    let mut private = Private::start(&ctx.out).await?;
    let outcome = survive(&mut private, within).await;
    private.finish(&ctx.out).await;
    let doctor = report(&outcome?);
    if ctx.out.is_text() {
        crate::commands::doctor::show(ctx, &doctor)?;
    } else {
        ctx.out.json(&doctor)?;
    }
    Ok(u8::from(doctor.checks.iter().any(|check| check.state == "bad")))
}

async fn survive(private: &mut Private, within: Duration) -> Result<Tally, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", private.dir().display()));
    let (program, counts) = (private.dir().join("program.sh"), private.dir().join("counts"));
    std::fs::write(&program, PROGRAM).map_err(failed)?;
    std::fs::create_dir(&counts).map_err(failed)?;
    for job in jobs() {
        let count = if is_endless(&job) { "0" } else { "10" };
        let spec = serde_json::json!({
            "cmd": ["sh", program.to_string_lossy(), count, counts.to_string_lossy()], "cwd": "/",
            "retry": { "delay": "50ms", "factor": 1, "jitter": 0 }, "stop": { "timeout": "5s" },
        });
        private
            .client
            .job_put(SESSION, &job, &spec, None, Some(Duration::ZERO))
            .await?;
    }
    all_run(&private.client, &program).await?;
    let mut tally = Tally::default();
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        strike(private, &program, &mut tally).await?;
        tokio::time::sleep(Duration::from_millis(chance(400))).await;
    }
    stop(&private.client, &program).await?;
    compare(&private.client, &counts, &mut tally).await?;
    Ok(tally)
}

fn jobs() -> impl Iterator<Item = String> {
    let endless = (1..=ENDLESS).map(|n| format!("endless-{n}"));
    endless.chain((1..=ENDING).map(|n| format!("ending-{n}")))
}

fn is_endless(job: &str) -> bool {
    job.starts_with("endless")
}

/// Below a bound; nobody can foretell it.
fn chance(bound: u64) -> u64 {
    RandomState::new().build_hasher().finish() % bound
}

/// One blow: the daemon, a shim, or both; then the daemon is started again if it was hit.
async fn strike(private: &mut Private, program: &Path, tally: &mut Tally) -> Result<(), Failure> {
    let (daemon, shim) = match chance(6) {
        0..=3 => (true, false),
        4 => (false, true),
        _ => (true, true),
    };
    let shims = private.client.node().await?.shims;
    let victim = shims
        .iter()
        .find(|shim| shim.state == "connected")
        .map(|shim| shim.pid);
    // Read again before and after: what is gone by then ended by itself or is being replaced.
    let before = live(program);
    if daemon {
        private.kill().await;
        tally.daemon_kills += 1;
    }
    if shim && let Some(pid) = victim {
        kill(pid);
        tally.shim_kills += 1;
    }
    tokio::time::sleep(Duration::from_millis(chance(150))).await;
    if daemon {
        private.start_again().await?;
    }
    let after = live(program);
    for (job, run) in before.iter().filter(|(job, _)| is_endless(job) && !shim) {
        match after.contains(&(job.clone(), run.clone())) {
            true => tally.kept += 1,
            false => drop(tally.lost.insert(run.clone())),
        }
    }
    let mut places: BTreeMap<&String, Vec<&String>> = BTreeMap::new();
    for (job, run) in &after {
        places.entry(job).or_default().push(run);
    }
    // One may have ended and the next have begun while we looked: only those count that still live together.
    let now = live(program);
    for (job, runs) in places {
        let together = runs
            .iter()
            .filter(|run| now.contains(&(job.clone(), (**run).clone())));
        if together.count() > 1 {
            tally.doubled.insert(job.clone());
        }
    }
    if shim {
        all_run(&private.client, program).await?;
    }
    Ok(())
}

/// Live runs of our program: job and run.
fn live(program: &Path) -> BTreeSet<(String, String)> {
    let needle = program.as_os_str().as_encoded_bytes();
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if !command.split(|byte| *byte == 0).any(|word| word == needle) {
            continue;
        }
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let value = |key: &[u8]| {
            let mut all = environ.split(|byte| *byte == 0);
            let value = all.find_map(|entry| entry.strip_prefix(key));
            value.map(|value| String::from_utf8_lossy(value).into_owned())
        };
        if let (Some(job), Some(run)) = (value(b"GAFFER_JOB="), value(b"GAFFER_RUN=")) {
            found.insert((job, run));
        }
    }
    found
}

/// Kills a process of the private daemon: the number is one that it told us just now.
fn kill(pid: u32) {
    let pidfd = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(pidfd) = pidfd {
        // ESRCH: it ended by itself.
        let _ended = pidfd_send_signal(&pidfd, Signal::KILL);
    }
}

/// Waits until the endless ones live: those that a shim took with it are started again.
async fn all_run(client: &Client, program: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + SOON;
    loop {
        let jobs = live(program).into_iter().map(|(job, _)| job);
        let jobs: BTreeSet<String> = jobs.filter(|job| is_endless(job)).collect();
        if jobs.len() >= ENDLESS as usize && client.node().await.is_ok() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let missing = (1..=ENDLESS).map(|n| format!("endless-{n}"));
            let missing: Vec<String> = missing.filter(|job| !jobs.contains(job)).collect();
            return Err(Failure::failed(format!(
                "not running again: {}",
                missing.join(" ")
            )));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn stop(client: &Client, program: &Path) -> Result<(), Failure> {
    let request = JobsRequest {
        jobs: jobs().map(|job| format!("{SESSION}.{job}")).collect(),
        ..JobsRequest::default()
    };
    let operation: Operation = client.post("/v1/jobs/stop?wait=30s", &request).await?;
    match live(program).first() {
        None => Ok(()),
        Some((job, _)) => Err(Failure::failed(format!(
            "{job} did not stop: {}",
            operation.reason
        ))),
    }
}

/// Each line that was written is in the logs once, in order; each run has one record of its end.
async fn compare(client: &Client, counts: &Path, tally: &mut Tally) -> Result<(), Failure> {
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for entry in std::fs::read_dir(counts).into_iter().flatten().flatten() {
        let lines = entry.metadata().map_or(0, |metadata| metadata.len());
        counted.insert(entry.file_name().to_string_lossy().into_owned(), lines);
    }
    tally.runs = counted.len();
    tally.written = counted.values().sum();
    for job in jobs() {
        let kept = logged(client, &job, &mut tally.faults).await?;
        let deaths = client.deaths(SESSION, &job, None, 1000, 0).await?;
        for death in deaths
            .iter()
            .filter(|death| death.exit_code.is_some_and(|code| code != CODE))
        {
            tally
                .without_record
                .push(format!("{} has a code that nobody ended with", death.run));
        }
        let ended: Vec<String> = deaths
            .iter()
            .map(|death| death.run.trim_start_matches('@').to_owned())
            .collect();
        tally.deaths += ended.len();
        let full = ended.len() >= KEPT;
        for (run, lines) in kept {
            let wrote = counted.remove(&run).unwrap_or(0);
            // Killed between a line and its count: one more than was counted.
            if lines != wrote && lines != wrote + 1 {
                tally
                    .faults
                    .push(format!("{job} {run}: {wrote} written, {lines} kept"));
            }
            if ended.iter().filter(|ended| **ended == run).count() != 1 && !full {
                tally.without_record.push(format!("{run} has not one record"));
            }
        }
    }
    for (run, wrote) in counted {
        tally.faults.push(format!("{run}: {wrote} written, none kept"));
    }
    Ok(())
}

/// Runs of a job in its logs, with the number of their lines; what is out of order goes to `faults`.
async fn logged(
    client: &Client,
    job: &str,
    faults: &mut Vec<String>,
) -> Result<BTreeMap<String, u64>, Failure> {
    let wanted = LogQuery {
        stream: Some("stdout".to_owned()),
        ..LogQuery::default()
    };
    let mut lines = client.job_logs(SESSION, job, &wanted).await?;
    let mut runs: BTreeMap<String, u64> = BTreeMap::new();
    while let Some(line) = lines.next().await {
        let text = line?.text;
        let parts = text
            .trim_end()
            .strip_prefix('@')
            .and_then(|text| text.split_once(' '));
        let parts = parts.and_then(|(run, number)| Some((run, number.parse::<u64>().ok()?)));
        let Some((run, number)) = parts else {
            faults.push(format!("{job}: a line that nobody wrote: {text:?}"));
            continue;
        };
        let next = runs.entry(run.to_owned()).or_default();
        if number != *next {
            faults.push(format!("{job} {run}: line {number} where {next} should be"));
        }
        *next = number + 1;
    }
    Ok(runs)
}

fn report(tally: &Tally) -> Doctor {
    let check = |name: &str, faults: &[String], text: String| Check {
        name: name.to_owned(),
        state: if faults.is_empty() { "good" } else { "bad" }.to_owned(),
        text: match faults {
            [] => text,
            faults => {
                let shown = faults.iter().take(5).map(String::as_str);
                format!("{text}; but {}", shown.collect::<Vec<_>>().join("; "))
            }
        },
        hint: None,
    };
    let list = |set: &BTreeSet<String>, what: &str| -> Vec<String> {
        set.iter().map(|one| format!("{one} {what}")).collect()
    };
    let times = |kills: u32| {
        if kills == 1 {
            "once".to_owned()
        } else {
            format!("{kills} times")
        }
    };
    Doctor {
        checks: vec![
            check(
                "daemon",
                &list(&tally.lost, "did not live on"),
                format!(
                    "killed {}; {} times a run lived on as if nothing had happened",
                    times(tally.daemon_kills),
                    tally.kept
                ),
            ),
            check(
                "shims",
                &list(&tally.doubled, "ran twice at once"),
                format!(
                    "killed {}; their runs were ended and replaced, none was doubled",
                    times(tally.shim_kills)
                ),
            ),
            check(
                "lines",
                &tally.faults,
                format!(
                    "{} lines of {} runs, each in the logs once and in order",
                    tally.written, tally.runs
                ),
            ),
            check(
                "ends",
                &tally.without_record,
                format!("{} ends, each on record once", tally.deaths),
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_bad_and_named() {
        let mut tally = Tally::default();
        assert!(report(&tally).checks.iter().all(|check| check.state == "good"));
        tally.faults.push("endless-1 1115: 7 written, 6 kept".to_owned());
        tally.doubled.insert("endless-2".to_owned());
        let bad: Vec<Check> = report(&tally)
            .checks
            .into_iter()
            .filter(|check| check.state == "bad")
            .collect();
        assert_eq!(bad.len(), 2);
        assert!(
            bad[0].text.contains("endless-2 ran twice at once"),
            "{}",
            bad[0].text
        );
        assert!(bad[1].text.contains("7 written, 6 kept"), "{}", bad[1].text);
    }

    #[test]
    fn the_program_ends_with_the_code_that_is_expected() {
        assert!(PROGRAM.contains(&format!("exit {CODE}\n")));
    }
}
