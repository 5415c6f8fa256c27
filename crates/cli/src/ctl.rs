//! `gafferctl`: the commands of the original's first versions, said to today's API where it has them.
//!
//! Names are `session:job`, or a job of session `default`; digits are the number of a process. A true answer prints `ok`, any other its value; the exit
//! code is 1 for what is not found or in the way, 2 for wrong use.

use crate::access::Credentials;
use crate::args::{ColorChoice, Globals};
use crate::connect;
use crate::failure::Failure;
use crate::file;
use crate::out::Out;
use crate::paint::Paint;
use gaffer_api::Client;
use gaffer_api::types::{ActionRequest, Job, ScaleRequest, SignalRequest};
use gaffer_config::nearest;
use serde_json::{Value, json};
use std::time::Duration;

/// Session of names without one.
const SESSION: &str = "default";
/// Nothing happened for so long: `watch --heartbeat`.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The daemon holds answers so long.
const HOLD: Duration = Duration::from_secs(30);

/// What `gafferctl help` prints in front of the commands.
const HELP: &str = "\
usage: gafferctl [--version] [--connect=URL] [--certfile F] [--keyfile F] [--help] COMMAND [ARGS]

The commands of gaffer 0.4, on today's daemon. Everything else: gaffer help

";

/// What it prints behind them.
const HELP_END: &str = "
A NAME is a job of session default, or session:job. Also before the command: --cacert F, --api-key KEY.
";

/// Commands: arguments, what they do, more about it.
const COMMANDS: [(&str, &str, &str, &str); 17] = [
    (
        "processes",
        "[--running]",
        "names of all jobs, or the pids of what runs",
        "Pids are small numbers, as gaffer ps --columns job,number,pid shows them.",
    ),
    ("get_process", "NAME", "a job, as JSON", ""),
    (
        "add_process",
        "[--start] NAME CMD [ARG…]",
        "add a job",
        "It works in the folder that the command is given in.",
    ),
    (
        "load_process",
        "[--start] FILE",
        "add the jobs of a JSON file",
        "",
    ),
    (
        "update_process",
        "NAME CMD [ARG…]",
        "change the command of a job",
        "",
    ),
    ("del_process", "NAME", "stop and remove a job", ""),
    ("start", "NAME", "start a job", ""),
    ("stop", "NAME", "stop a job", ""),
    ("add", "NAME N", "more instances; prints the new number", ""),
    ("sub", "NAME N", "fewer instances; prints the new number", ""),
    (
        "kill",
        "NAME|PID SIGNAL",
        "send a signal to a job or one process",
        "HUP, SIGHUP or 1.",
    ),
    ("status", "NAME", "active or stopped", ""),
    ("running", "NAME", "number of processes that run", ""),
    ("numprocesses", "NAME", "number of processes that should run", ""),
    ("pids", "NAME", "numbers of the processes that run", ""),
    (
        "watch",
        "[PATTERN] [--heartbeat[=N]] [--colorize]",
        "events as they come",
        "Patterns: start, stop, spawn, reap, exit, stop_pid, proc.NAME.EVENT. With --heartbeat an empty line every N\nseconds (15) says that there is nothing; --colorize gives each job a colour, also in a pipe.",
    ),
    ("help", "[COMMAND]", "this, or more about a command", ""),
];

/// The help, of all commands or of one.
fn help(command: Option<&str>) -> Result<String, Failure> {
    let Some(wanted) = command else {
        let width = COMMANDS
            .iter()
            .map(|(name, args, ..)| name.len() + args.chars().count())
            .filter(|width| *width < 36)
            .max();
        let width = width.unwrap_or_default() + 3;
        let lines = COMMANDS.iter().map(|(name, args, what, _)| {
            let usage = format!("{name} {args}");
            format!(
                "  {usage:<width$}{}{what}\n",
                if usage.chars().count() >= width { "  " } else { "" }
            )
        });
        return Ok(format!("{HELP}{}{HELP_END}", lines.collect::<String>()));
    };
    let found = COMMANDS.iter().find(|(name, ..)| *name == wanted);
    let (name, args, what, more) = found.ok_or_else(|| unknown(wanted))?;
    let more = if more.is_empty() {
        String::new()
    } else {
        format!("\n\n{more}")
    };
    Ok(format!("usage: gafferctl {name} {args}\n\n{what}{more}\n"))
}

fn unknown(verb: &str) -> Failure {
    let guess = nearest(verb, COMMANDS.map(|(name, ..)| name))
        .map(|near| format!("did you mean `gafferctl {near}`?"))
        .unwrap_or_default();
    Failure::usage(format!("there is no command `gafferctl {verb}`"))
        .hint_pair(&guess, "all commands:  gafferctl help")
}

fn other_arguments(verb: &str) -> Failure {
    Failure::usage(format!("`{verb}` needs other arguments"))
        .hint(format!("what it takes:  gafferctl help {verb}"))
}

/// One command line, the program's name left out.
pub async fn run(words: &[String]) -> (Out, Result<u8, Failure>) {
    let globals = globals();
    let out = Out::new(&globals);
    let result = command(&out, globals, words).await;
    let flushed = out.flush();
    // The original knows 1 and 2 only, and 1 is for what it cannot do.
    let result = flushed.and(result).map_err(|failure| {
        let exit = if matches!(failure.exit, 3..=5) {
            1
        } else {
            failure.exit
        };
        Failure { exit, ..failure }
    });
    (out, result)
}

fn globals() -> Globals {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Globals {
        session: None,
        url: variable("GAFFER_URL"),
        socket: variable("GAFFER_SOCKET").map(Into::into),
        credentials: Credentials::default(),
        format: None,
        json: false,
        color: ColorChoice::Auto,
        quiet: false,
        verbose: 0,
        yes: true,
        timeout: None,
        fleet: crate::fleet::FleetArgs::default(),
    }
}

/// Reads the options before the command; the exit code if one of them was all that was asked.
fn options<'a>(
    out: &Out,
    globals: &mut Globals,
    words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
) -> Result<Option<u8>, Failure> {
    while let Some(option) = words.next_if(|word| word.starts_with('-')) {
        match option {
            "--version" => out.line(&format!("gafferctl {}", env!("CARGO_PKG_VERSION")))?,
            "-h" | "--help" => out.bytes(help(None)?.as_bytes())?,
            _ => {
                let (name, value) = match option.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (option, words.next()),
                };
                let value = value
                    .filter(|value| !value.is_empty())
                    .ok_or_else(|| Failure::usage(format!("`{name}` needs a value")))?;
                match name {
                    "--connect" => globals.url = Some(value.to_owned()),
                    "--certfile" => globals.credentials.certfile = Some(value.into()),
                    "--keyfile" => globals.credentials.keyfile = Some(value.into()),
                    "--cacert" => globals.credentials.cacert = Some(value.into()),
                    "--api-key" => globals.credentials.api_key = Some(value.to_owned()),
                    _ => {
                        return Err(Failure::usage(format!("there is no option `{option}`"))
                            .hint("all of them:  gafferctl help"));
                    }
                }
                continue;
            }
        }
        return Ok(Some(0));
    }
    Ok(None)
}

async fn command(out: &Out, mut globals: Globals, words: &[String]) -> Result<u8, Failure> {
    let mut words = words.iter().map(String::as_str).peekable();
    if let Some(code) = options(out, &mut globals, &mut words)? {
        return Ok(code);
    }
    let client = connect::client(&globals)?;
    let Some(verb) = words.next() else {
        return out.bytes(help(None)?.as_bytes()).map(|()| 2);
    };
    let (flags, rest): (Vec<&str>, Vec<&str>) = match verb {
        "add_process" | "update_process" => words.partition(|word| *word == "--start"),
        _ => words.partition(|word| word.starts_with("--")),
    };
    let known = COMMANDS.iter().any(|(name, ..)| *name == verb);
    match (verb, rest.as_slice()) {
        ("help", words) if words.len() < 2 => out.bytes(help(words.first().copied())?.as_bytes())?,
        _ if flags.contains(&"--help") && known => out.bytes(help(Some(verb))?.as_bytes())?,
        ("processes", []) => processes(out, &client, flags.contains(&"--running")).await?,
        ("watch", [] | [_]) => return watch(out, &client, rest.first().copied(), &flags).await,
        ("load_process", [path]) => load(out, &client, path, flags.contains(&"--start")).await?,
        ("kill", [pid, signal]) if pid.bytes().all(|byte| byte.is_ascii_digit()) => {
            kill_one(out, &client, pid, signal).await?;
        }
        (_, [name, rest @ ..]) if known => {
            of_job(out, &client, verb, name, rest, flags.contains(&"--start")).await?
        }
        _ if known => return Err(other_arguments(verb)),
        _ => return Err(unknown(verb)),
    }
    Ok(0)
}

/// `job` of session `default`, or `session:job` as in 0.4; also as today's commands have it.
fn split(name: &str) -> (String, String) {
    let at = name.find(':').or_else(|| name.find(['.', '/']));
    match at {
        Some(at) => (name[..at].to_owned(), name[at + 1..].to_owned()),
        None => (SESSION.to_owned(), name.to_owned()),
    }
}

/// As 0.4 has it.
fn old_name(session: &str, job: &str) -> String {
    match session {
        SESSION => job.to_owned(),
        session => format!("{session}:{job}"),
    }
}

async fn processes(out: &Out, client: &Client, running: bool) -> Result<(), Failure> {
    for job in client.jobs(None, false).await? {
        if running {
            for number in numbers(&job) {
                out.line(&number)?;
            }
        } else {
            out.line(&old_name(&job.session, &job.job))?;
        }
    }
    Ok(())
}

/// Numbers of the live processes of a job.
fn numbers(job: &Job) -> Vec<String> {
    let live = job.instances.iter().filter(|instance| instance.pid.is_some());
    live.filter_map(|instance| Some(instance.number?.to_string()))
        .collect()
}

async fn kill_one(out: &Out, client: &Client, pid: &str, signal: &str) -> Result<(), Failure> {
    let jobs = client.jobs(None, false).await?;
    let places = jobs
        .iter()
        .flat_map(|job| job.instances.iter().chain(&job.one_offs));
    let live = places.filter(|place| place.pid.is_some());
    let run = live
        .filter(|place| place.number.is_some_and(|number| number.to_string() == pid))
        .find_map(|place| place.run.as_deref());
    let run = run.ok_or_else(|| Failure::not_found(format!("no process has the number {pid} now")))?;
    let request = SignalRequest {
        signal: signal.to_owned(),
        to: None,
    };
    client.run_signal(run, &request).await?;
    out.line("ok")
}

async fn of_job(
    out: &Out,
    client: &Client,
    verb: &str,
    name: &str,
    rest: &[&str],
    start: bool,
) -> Result<(), Failure> {
    let (session, job) = split(name);
    let look = || client.job(&session, &job, false);
    match (verb, rest) {
        ("get_process", []) => {
            // Looked at first: its error names what is near.
            look().await?;
            return out.json(&client.process_04(&old_name(&session, &job)).await?);
        }
        ("start" | "stop", []) => {
            client
                .act(&session, &job, None, verb, &ActionRequest::default(), Some(HOLD))
                .await?;
        }
        ("add" | "sub", [number]) => {
            let number: u32 = number
                .parse()
                .map_err(|_| Failure::usage(format!("`{number}` is no number")))?;
            let sign = if verb == "add" { '+' } else { '-' };
            let request = ScaleRequest {
                to: format!("{sign}{number}"),
                force: false,
            };
            client.scale(&session, &job, &request, Some(HOLD)).await?;
            return out.line(&look().await?.target.to_string());
        }
        ("kill", [signal]) => {
            client
                .signal(
                    &session,
                    &job,
                    None,
                    &SignalRequest {
                        signal: (*signal).to_owned(),
                        to: None,
                    },
                )
                .await?;
        }
        ("status" | "running" | "numprocesses" | "pids", []) => {
            return out.line(&value(verb, &look().await?));
        }
        ("del_process", []) => {
            client.job_delete(&session, &job, Some(HOLD)).await?;
        }
        ("add_process", [_, ..]) => add(client, &session, &job, rest, start).await?,
        ("update_process", [_, ..]) => {
            let now = client.job(&session, &job, true).await?;
            let mut spec = now.spec.unwrap_or_else(|| json!({}));
            spec["cmd"] = command_of(rest);
            client
                .job_put(&session, &job, &spec, Some(now.revision), Some(HOLD))
                .await?;
        }
        _ => return Err(other_arguments(verb)),
    }
    out.line("ok")
}

/// What a question about a job is answered with.
fn value(verb: &str, job: &Job) -> String {
    match verb {
        "status" if job.wish == "stopped" => "stopped".to_owned(),
        "status" => "active".to_owned(),
        "running" => numbers(job).len().to_string(),
        "numprocesses" => job.target.to_string(),
        _ => numbers(job).join(","),
    }
}

/// One word is a command line, several are its words.
fn command_of(words: &[&str]) -> Value {
    if let [line] = words {
        json!(line)
    } else {
        json!(words)
    }
}

async fn add(client: &Client, session: &str, job: &str, cmd: &[&str], start: bool) -> Result<(), Failure> {
    if client.job(session, job, false).await.is_ok() {
        return Err(Failure::conflict(format!(
            "job `{job}` exists already in session {session}"
        )));
    }
    let here = std::env::current_dir()
        .map_err(|error| Failure::failed(format!("this folder cannot be named: {error}")))?;
    let spec = json!({ "cmd": command_of(cmd), "cwd": here.to_string_lossy(), "start": start });
    client.job_put(session, job, &spec, None, Some(HOLD)).await?;
    Ok(())
}

async fn load(out: &Out, client: &Client, path: &str, start: bool) -> Result<(), Failure> {
    let args = crate::args::FileArgs {
        files: vec![path.into()],
        ..Default::default()
    };
    let bundle = file::gather(out, &[], &args)?;
    let config = file::load(out, &bundle)?;
    for (id, loaded) in &config.jobs {
        let (session, job) = (id.session.to_string(), id.job.to_string());
        if client.job(&session, &job, false).await.is_ok() {
            return Err(Failure::conflict(format!(
                "job `{job}` exists already in session {session}"
            )));
        }
        let mut spec = loaded.typed.clone();
        if start {
            spec["start"] = json!(true);
        }
        client.job_put(&session, &job, &spec, None, Some(HOLD)).await?;
    }
    out.line("ok")
}

/// `HH:MM:SS name | event …` until interrupted.
async fn watch(out: &Out, client: &Client, pattern: Option<&str>, flags: &[&str]) -> Result<u8, Failure> {
    use futures_util::StreamExt;
    let mut paint = out.paint;
    let mut beat = None;
    for flag in flags {
        match flag.split_once('=') {
            None if *flag == "--colorize" => paint = Paint::new(true),
            None if *flag == "--heartbeat" => beat = Some(HEARTBEAT),
            Some(("--heartbeat", "true")) => beat = Some(HEARTBEAT),
            Some(("--heartbeat", text)) if text.parse::<u32>().is_ok_and(|seconds| seconds > 0) => {
                beat = text.parse().ok().map(Duration::from_secs);
            }
            _ => {
                return Err(
                    Failure::usage(format!("there is no option `{flag}`")).hint("gafferctl help watch")
                );
            }
        }
    }
    let mut events = client.watch_04(pattern).await?;
    loop {
        out.flush()?;
        let event = tokio::select! {
            event = events.next() => event,
            () = crate::ask::interrupted() => return Ok(0),
            () = tokio::time::sleep(beat.unwrap_or(Duration::MAX)), if beat.is_some() => {
                out.line("")?;
                continue;
            }
        };
        let Some(event) = event.transpose()? else {
            return Ok(0);
        };
        let pid = event
            .pid
            .map(|pid| format!(" process with pid {pid}"))
            .unwrap_or_default();
        let name = crate::escape::escape(&event.name);
        let now = crate::when::clock(&jiff::Timestamp::now().to_string());
        out.line(&format!(
            "{now} {} | {}{pid}",
            paint.name(&name, &name),
            event.event
        ))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_session_are_of_the_default_one() {
        assert_eq!(split("web"), ("default".to_owned(), "web".to_owned()));
        assert_eq!(split("shop:b.c"), ("shop".to_owned(), "b.c".to_owned()));
        assert_eq!(old_name("default", "web"), "web");
        assert_eq!(split("shop/web"), ("shop".to_owned(), "web".to_owned()));
        assert_eq!(split("shop.b.c"), ("shop".to_owned(), "b.c".to_owned()));
    }

    #[test]
    fn s13_5_every_command_has_help() {
        let all = help(None).unwrap();
        for (name, args, what, _) in COMMANDS {
            assert!(
                all.contains(&format!("  {name} {args}")) && all.contains(what),
                "{all}"
            );
            assert!(
                help(Some(name))
                    .unwrap()
                    .starts_with(&format!("usage: gafferctl {name}"))
            );
        }
        assert_eq!(
            help(Some("stpo")).unwrap_err().hints[0].split("   ").next(),
            Some("did you mean `gafferctl stop`?")
        );
    }
}
