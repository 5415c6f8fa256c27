//! `apps`, `ps`, `ps:info`, `ps:scale`, `ps:start`, `ps:stop`, `ps:kill`.

use super::names::{Process, is_number, live, number};
use super::{App, HOLD, done, refused};
use crate::failure::Failure;
use gaffer_api::Endpoint;
use gaffer_api::types::{ActionRequest, Job, ScaleRequest, SignalRequest};
use serde_json::Value;

/// The signal that only asks whether there is somebody.
const NOTHING: &str = "0";

/// `ps:start`, `ps:stop`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    Start,
    Stop,
}

impl Switch {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Switch::Start => ("start", "started"),
            Switch::Stop => ("stop", "stopped"),
        }
    }
}

/// `apps`.
pub async fn apps(app: &App) -> Result<u8, Failure> {
    for session in app.ctx.client.sessions().await.map_err(refused)? {
        app.ctx.out.line(&session.session)?;
    }
    Ok(0)
}

/// `ps`.
pub async fn ps(app: &App, name: Option<&str>) -> Result<u8, Failure> {
    let name = name.unwrap_or(&app.name);
    let jobs = app.ctx.client.jobs(Some(name), true).await.map_err(refused)?;
    if jobs.is_empty() {
        app.ctx.out.say(&format!("'{name}' not loaded"));
        return Ok(1);
    }
    let total = memory_of_node(app);
    for job in jobs.iter().filter(|job| live(job).next().is_some()) {
        let full = app
            .ctx
            .client
            .job(&job.session, &job.job, true)
            .await
            .map_err(refused)?;
        let out = &app.ctx.out;
        let title = format!("=== {}: `{}`", job.job, command_line(full.spec.as_ref()));
        out.line(&out.paint.name(&job.job, &title))?;
        let stats = || live(job).filter_map(|instance| instance.stats.as_ref());
        let cpu: f64 = stats().filter_map(|stats| stats.cpu_percent).sum();
        let bytes: u64 = stats().map(|stats| stats.memory_bytes).sum();
        let memory = total.map_or("N/A".to_owned(), |total| {
            format!("{:.2}", bytes as f64 * 100.0 / total as f64)
        });
        out.line(&format!("Total CPU: {cpu:.2} Total MEM: {memory}"))?;
        out.line("")?;
        for instance in live(job) {
            let time = instance.stats.as_ref().map_or(0, |stats| stats.cpu_ms);
            let number = number(instance).unwrap_or_default();
            out.line(&format!("{}.{number}: up for {}", job.job, cpu_time(time)))?;
        }
        out.line("")?;
    }
    Ok(0)
}

/// `M:SS.hh`.
fn cpu_time(ms: u64) -> String {
    format!("{}:{:02}.{:02}", ms / 60_000, ms / 1000 % 60, ms / 10 % 100)
}

/// Memory of the machine, if it is this one: only the daemon's own machine tells what a share of it is.
fn memory_of_node(app: &App) -> Option<u64> {
    if !matches!(app.ctx.client.endpoint(), Endpoint::Unix(_)) {
        return None;
    }
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The command of a definition as one line.
fn command_line(spec: Option<&Value>) -> String {
    match spec.and_then(|spec| spec.get("cmd")) {
        Some(Value::String(line)) => line.clone(),
        Some(Value::Array(words)) => {
            let words: Vec<String> = words
                .iter()
                .filter_map(Value::as_str)
                .map(gaffer_config::shell_quote)
                .collect();
            words.join(" ")
        }
        _ => String::new(),
    }
}

/// `ps:info`.
pub async fn info(app: &App, target: &str) -> Result<u8, Failure> {
    if is_number(target) {
        return match app.process(target).await? {
            Some(process) => process_info(app, &process).await,
            None => Ok(app.not_found(target)),
        };
    }
    let Some(job) = app.job(target, false).await? else {
        return Ok(app.not_found(target));
    };
    let numbers: Vec<String> = live(&job)
        .filter_map(number)
        .map(|number| number.to_string())
        .collect();
    let out = &app.ctx.out;
    out.line(&format!("active: {}", truth(!numbers.is_empty())))?;
    out.line(&format!("running: {}", numbers.len()))?;
    out.line(&format!("num_processes: {}", wanted(&job)))?;
    out.line(&format!("pids: {}", numbers.join(",")))?;
    Ok(0)
}

/// A stopped job shows that it wants none.
fn wanted(job: &Job) -> u32 {
    if job.wish == "stopped" { 0 } else { job.target }
}

/// As the original prints them.
fn truth(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

async fn process_info(app: &App, process: &Process) -> Result<u8, Failure> {
    let job = &process.job;
    let full = app
        .ctx
        .client
        .job(&job.session, &job.job, true)
        .await
        .map_err(refused)?;
    let spec = full.spec.unwrap_or_default();
    let text = |key: &str| match spec.get(key) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => "None".to_owned(),
        Some(value) => value.to_string(),
    };
    let out = &app.ctx.out;
    let number = number(&process.instance).unwrap_or_default();
    let os_pid = process.instance.pid.unwrap_or_default();
    let lines = [
        ("pid", number.to_string()),
        ("name", format!("{}.{}", job.session, job.job)),
        ("cmd", command_line(Some(&spec))),
        ("uid", text("user")),
        ("gid", text("group")),
        ("os_pid", os_pid.to_string()),
        (
            "create_time",
            process
                .instance
                .started_at
                .clone()
                .unwrap_or_else(|| "None".to_owned()),
        ),
        ("commited", truth(process.is_one_off).to_owned()),
        (
            "redirect_input",
            truth(spec.get("stdin").and_then(Value::as_str) == Some("pipe")).to_owned(),
        ),
        (
            "custom_streams",
            spec.get("streams").map_or("[]".to_owned(), Value::to_string),
        ),
        ("run", process.run.clone()),
        ("active", truth(true).to_owned()),
    ];
    for (key, value) in lines {
        out.line(&format!("{key}: {value}"))?;
    }
    Ok(0)
}

/// `job=3`, `job+2`, `job-1`; the sign is the last one that is followed by digits only.
fn change(text: &str) -> Option<(&str, String)> {
    let at = text.rfind(['=', '+', '-'])?;
    let (name, by) = text.split_at(at);
    if name.is_empty() || !is_number(&by[1..]) {
        return None;
    }
    // `a=+2` and `a=-2` as today.
    Some((name.strip_suffix('=').unwrap_or(name), by.to_owned()))
}

/// `ps:scale`.
pub async fn scale(app: &App, changes: &[String]) -> Result<u8, Failure> {
    let mut wanted = Vec::new();
    for text in changes {
        let change = change(text)
            .ok_or_else(|| Failure::usage(format!("`{text}` is neither job=N nor job+N nor job-N")))?;
        wanted.push(change);
    }
    let mut worst = 0;
    for (name, to) in wanted {
        let Some(job) = app.job(name, false).await? else {
            app.ctx.out.say(&format!("'{}' not found", full_name(app, name)));
            worst = 1;
            continue;
        };
        let request = ScaleRequest { to, force: false };
        let scaled = app.ctx.client.scale(&job.session, &job.job, &request, Some(HOLD));
        done(scaled.await.map_err(refused)?)?;
        let now = app.ctx.client.job(&job.session, &job.job, false).await;
        let now = now.map_err(refused)?.target;
        app.ctx.out.line(&format!(
            "Scaling {}.{} processes... done, now running {now}",
            job.session, job.job
        ))?;
    }
    Ok(worst)
}

fn full_name(app: &App, name: &str) -> String {
    let (session, job) = super::names::split(&app.name, name);
    format!("{session}.{job}")
}

/// `ps:start`, `ps:stop`.
pub async fn switch(app: &App, switch: Switch, targets: &[String]) -> Result<u8, Failure> {
    let (verb, past) = switch.words();
    if targets.is_empty() {
        let jobs = app.jobs(false).await?;
        if jobs.is_empty() {
            app.ctx.out.say(&format!("'{}' not found", app.name));
            return Ok(1);
        }
        for job in &jobs {
            act(app, job, None, verb).await?;
        }
        app.ctx
            .out
            .line(&format!("==> all jobs in '{}' {past}", app.name))?;
        return Ok(0);
    }
    let mut worst = 0;
    for target in targets {
        if is_number(target) && switch == Switch::Stop {
            let Some(process) = app.process(target).await? else {
                worst = app.not_found(target);
                continue;
            };
            stop_process(app, &process).await?;
        } else {
            let Some(job) = app.job(target, false).await? else {
                worst = app.not_found(target);
                continue;
            };
            act(app, &job, None, verb).await?;
        }
        app.ctx.out.line(&format!("'{target}' {past}"))?;
    }
    Ok(worst)
}

async fn act(app: &App, job: &Job, instance: Option<u32>, verb: &str) -> Result<(), Failure> {
    let request = ActionRequest::default();
    let acted = app
        .ctx
        .client
        .act(&job.session, &job.job, instance, verb, &request, Some(HOLD));
    done(acted.await.map_err(refused)?)
}

/// One process ends; the job starts another in its place.
async fn stop_process(app: &App, process: &Process) -> Result<(), Failure> {
    if process.is_one_off {
        let request = SignalRequest {
            signal: "TERM".to_owned(),
            to: None,
        };
        return app
            .ctx
            .client
            .run_signal(&process.run, &request)
            .await
            .map_err(refused);
    }
    let instance = u32::try_from(process.instance.instance).ok();
    act(app, &process.job, instance, "restart").await
}

/// `ps:kill`.
pub async fn kill(app: &App, target: &str, signal: &str) -> Result<u8, Failure> {
    let request = SignalRequest {
        signal: signal.to_owned(),
        to: None,
    };
    let client = &app.ctx.client;
    if is_number(target) {
        let Some(process) = app.process(target).await? else {
            return Ok(app.not_found(target));
        };
        if signal != NOTHING {
            client.run_signal(&process.run, &request).await.map_err(refused)?;
        }
    } else {
        let Some(job) = app.job(target, false).await? else {
            return Ok(app.not_found(target));
        };
        if signal != NOTHING {
            let signalled = client.signal(&job.session, &job.job, None, &request).await;
            done(signalled.map_err(refused)?)?;
        }
    }
    app.ctx.out.line(&format!("'{signal}' sent to '{target}'"))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s13_4_changes_are_written_in_three_ways() {
        for (text, wanted) in [
            ("a=3", Some(("a", "=3"))),
            ("b+2", Some(("b", "+2"))),
            ("c-1", Some(("c", "-1"))),
            ("my-job-1", Some(("my-job", "-1"))),
            ("a=+2", Some(("a", "+2"))),
            ("shop.a=0", Some(("shop.a", "=0"))),
            ("a", None),
            ("a=x", None),
            ("=3", None),
        ] {
            let found = change(text);
            let found = found.as_ref().map(|(name, by)| (*name, by.as_str()));
            assert_eq!(found, wanted, "{text}");
        }
    }

    #[test]
    fn s3_5_cpu_time_is_minutes_seconds_hundredths() {
        assert_eq!(cpu_time(200), "0:00.20");
        assert_eq!(cpu_time(3_723_450), "62:03.45");
    }
}
