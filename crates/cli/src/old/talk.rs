//! `run`, `send`, `recv` and `logs --events`.

use super::args::OldRunArgs;
use super::load::variables;
use super::names::{self, Process, is_number};
use super::{App, HOLD, done, refused};
use crate::args::{FileArgs, RunArgs};
use crate::ask::interrupted;
use crate::failure::Failure;
use futures_util::StreamExt;
use gaffer_api::ClientError;
use gaffer_api::error::Code;
use gaffer_api::types::{Event, Operation, RunRequest};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::BufRead;

/// `run`: a job of the application once more on the node; anything else is a command that runs here, once.
pub async fn run(app: &App, args: &OldRunArgs) -> Result<u8, Failure> {
    let Some((name, rest)) = args.words.split_first() else {
        return Err(Failure::usage("nothing to run"));
    };
    let job = match app.job(name, false).await {
        Ok(job) => job,
        // Without a daemon there are no jobs, and a command needs none.
        Err(failure) if failure.exit == crate::connect::EXIT_UNREACHABLE && !rest.is_empty() => None,
        Err(failure) => return Err(failure),
    };
    let Some(job) = job else {
        return here(app, args).await;
    };
    let mut env: BTreeMap<String, String> = variables(app)?.into_iter().collect();
    let behind = Behind::read(rest);
    for pair in args.params.iter().chain(&behind.params) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("`{pair}` is no K=V")))?;
        env.insert(key.to_owned(), value.to_owned());
    }
    let grace = behind.graceful_timeout.as_deref();
    let grace = grace.or(args.graceful_timeout.as_deref());
    let request = RunRequest {
        env,
        args: behind.words,
        grace_ms: grace.map(grace_ms).transpose()?,
        ..RunRequest::default()
    };
    let asked = app
        .ctx
        .client
        .one_off(&job.session, &job.job, &request, Some(std::time::Duration::ZERO));
    let run = begun(app, asked.await.map_err(refused)?).await?;
    let number = number_of(app, &run).await?;
    app.ctx.out.line(&format!(
        "'{}.{}': new process {number} launched",
        job.session, job.job
    ))?;
    Ok(0)
}

/// `-p K=V` and `--graceful-timeout T` may stand behind the job, too.
#[derive(Default)]
struct Behind {
    params: Vec<String>,
    graceful_timeout: Option<String>,
    words: Vec<String>,
}

impl Behind {
    fn read(words: &[String]) -> Behind {
        let mut found = Behind::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match (word.as_str(), word.split_once('=')) {
                ("-p" | "--param", _) => found.params.extend(words.next().cloned()),
                ("--graceful-timeout", _) => found.graceful_timeout = words.next().cloned(),
                (_, Some(("--param", pair))) => found.params.push(pair.to_owned()),
                (_, Some(("--graceful-timeout", text))) => found.graceful_timeout = Some(text.to_owned()),
                _ => found.words.push(word.clone()),
            }
        }
        found
    }
}

/// Seconds, as the original has them, or a duration with a unit.
fn grace_ms(text: &str) -> Result<u64, Failure> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .map(std::time::Duration::try_from_secs_f64);
    let duration = match seconds {
        Some(duration) => duration.ok(),
        None => crate::when::parse_duration(text).ok(),
    };
    duration
        .and_then(|duration| u64::try_from(duration.as_millis()).ok())
        .ok_or_else(|| Failure::usage(format!("`{text}` is no number of seconds")))
}

/// The run of a one-off, as soon as it has one.
async fn begun(app: &App, mut operation: Operation) -> Result<String, Failure> {
    loop {
        if let Some(run) = operation.data.get("run").and_then(Value::as_str) {
            return Ok(run.to_owned());
        }
        if operation.state != "pending" {
            done(operation)?;
            return Err(Failure::failed("the daemon did not say which process it is"));
        }
        let next = app.ctx.client.operation(&operation.operation, Some(HOLD));
        operation = next.await.map_err(refused)?;
    }
}

async fn number_of(app: &App, run: &str) -> Result<u64, Failure> {
    Ok(app.ctx.client.run(run).await.map_err(refused)?.number)
}

async fn here(app: &App, args: &OldRunArgs) -> Result<u8, Failure> {
    let today = RunArgs {
        job: None,
        args: args.words.clone(),
        params: args.params.clone(),
        attach: false,
        grace: None,
        wait: crate::args::WaitOptions::default(),
        file: FileArgs {
            dir: app.old.root.clone(),
            env_files: app.old.env.clone(),
            ..FileArgs::default()
        },
    };
    crate::commands::run::run(&app.ctx, &today).await
}

/// `17` or `17.err`, with the stream.
fn split(target: &str) -> (&str, Option<&str>) {
    match target.split_once('.') {
        Some((number, stream)) => (number, Some(stream)),
        None => (target, None),
    }
}

/// `send`.
pub async fn send(app: &App, target: &str, stream: Option<&str>, data: &[String]) -> Result<u8, Failure> {
    let (number, of_target) = split(target);
    let Some(process) = process(app, number).await? else {
        return Ok(1);
    };
    let stream = stream.or(of_target).filter(|stream| *stream != "stdin");
    if data != ["-"] {
        return write(app, &process, stream, &data.join(" ")).await;
    }
    app.ctx.out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line =
            line.map_err(|error| Failure::failed(format!("standard input cannot be read: {error}")))?;
        if line == "." {
            break;
        }
        if write(app, &process, stream, &line).await? != 0 {
            return Ok(1);
        }
    }
    Ok(0)
}

async fn process(app: &App, number: &str) -> Result<Option<Process>, Failure> {
    if !is_number(number) {
        return Err(Failure::usage(format!("`{number}` is no number of a process")));
    }
    let found = app.process(number).await?;
    if found.is_none() {
        app.ctx.out.say("Error (404): not_found");
    }
    Ok(found)
}

async fn write(app: &App, process: &Process, stream: Option<&str>, line: &str) -> Result<u8, Failure> {
    let bytes = format!("{line}\n").into_bytes();
    let sent = app.ctx.client.run_input(&process.run, stream, bytes, false).await;
    match sent {
        Ok(()) => Ok(0),
        Err(error) => {
            let said = match (error.code(), stream) {
                (Some(Code::NotWritable), None) => "Error (403): EPERM".to_owned(),
                (Some(Code::NotWritable | Code::StreamNotFound), Some(_)) => "Error (404): ENOENT".to_owned(),
                _ => match &error {
                    ClientError::Api(api, status) => format!("Error ({status}): {}", api.message),
                    _ => return Err(refused(error)),
                },
            };
            app.ctx.out.say(&said);
            Ok(1)
        }
    }
}

/// `recv`.
pub async fn recv(app: &App, target: &str, stream: Option<&str>) -> Result<u8, Failure> {
    let (number, of_target) = split(target);
    let Some(process) = process(app, number).await? else {
        return Ok(1);
    };
    let spec = app
        .ctx
        .client
        .job(&process.job.session, &process.job.job, true)
        .await
        .map_err(refused)?
        .spec
        .unwrap_or_default();
    let stream = stream_name(&spec, stream.or(of_target));
    let opened = app.ctx.client.run_log(&process.run, &stream, "end", true).await;
    let mut bytes = match opened {
        Ok((_, bytes)) => bytes,
        Err(error) if error.code() == Some(Code::StreamNotFound) => {
            app.ctx.out.say("Error (404): ENOENT");
            return Ok(1);
        }
        Err(error) => return Err(refused(error)),
    };
    loop {
        app.ctx.out.flush()?;
        let chunk = tokio::select! {
            chunk = bytes.next() => chunk,
            () = interrupted() => return Ok(0),
        };
        match chunk {
            Some(chunk) => app.ctx.out.bytes(&chunk.map_err(refused)?)?,
            None => return Ok(0),
        }
    }
}

/// Labels of a job are names for its outputs; none: the first.
fn stream_name(spec: &Value, wanted: Option<&str>) -> String {
    let Some(wanted) = wanted else {
        return "stdout".to_owned();
    };
    let labels = spec.pointer("/logs/labels").and_then(Value::as_array);
    let at = labels
        .into_iter()
        .flatten()
        .position(|label| label.as_str() == Some(wanted));
    match at {
        Some(0) => "stdout".to_owned(),
        Some(_) => "stderr".to_owned(),
        None => wanted.to_owned(),
    }
}

/// `logs --events`: what happens to the application, as it comes.
pub async fn events(app: &App, only: Option<&str>) -> Result<u8, Failure> {
    let only = only.map(|name| {
        let (session, job) = names::split(&app.name, name);
        format!("{session}.{job}")
    });
    let mut events = app
        .ctx
        .client
        .events(Some("end"), true, None)
        .await
        .map_err(refused)?;
    loop {
        app.ctx.out.flush()?;
        let event = tokio::select! {
            event = events.next() => event,
            () = interrupted() => return Ok(0),
        };
        let Some(event) = event.transpose().map_err(refused)? else {
            return Ok(0);
        };
        let Some(topic) = topic(&event) else { continue };
        let job = job_of(&event);
        let wanted = match &only {
            Some(only) => *only == job,
            None => job.starts_with(&format!("{}.", app.name)),
        };
        if wanted {
            app.ctx.out.line(&line(app, &event, &job, topic))?;
        }
    }
}

fn line(app: &App, event: &Event, job: &str, topic: &str) -> String {
    let what = match event.number {
        Some(pid) => format!("{topic} process with pid {pid}"),
        None => format!("{topic} {job}"),
    };
    let name = app.ctx.out.paint.name(job, job);
    format!("{} {name} | {what}", crate::when::clock(&event.time))
}

/// The topic that the original has for an event.
fn topic(event: &Event) -> Option<&'static str> {
    Some(match event.event.as_str() {
        "job.added" => "load",
        "job.removed" => "unload",
        "job.started" => "start",
        "job.stopped" => "stop",
        "job.scaled" | "job.changed" => "update",
        "job.flapping" => "flap",
        "run.started" => "spawn",
        "run.exited" => "exit",
        "run.signalled" => "kill",
        _ => return None,
    })
}

/// `session.job` of a subject; the last part of an instance's is its number.
fn job_of(event: &Event) -> String {
    if !event.event.starts_with("run.") {
        return event.subject.clone();
    }
    match event.subject.rsplit_once('.') {
        Some((job, last)) if job.contains('.') && is_number(last.trim_start_matches('+')) => job.to_owned(),
        _ => event.subject.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s13_4_labels_are_names_of_the_outputs() {
        let spec = serde_json::json!({ "logs": { "labels": ["out", "err"] } });
        assert_eq!(stream_name(&spec, None), "stdout");
        assert_eq!(stream_name(&spec, Some("out")), "stdout");
        assert_eq!(stream_name(&spec, Some("err")), "stderr");
        assert_eq!(stream_name(&spec, Some("ctl")), "ctl");
        assert_eq!(split("17.err"), ("17", Some("err")));
    }
}
