//! `gafferctl`: the commands of the original's first versions, said to today's API where it has them.
//!
//! Names are `session.job`, or a job of session `default`. A true answer prints `ok`, any other its value; the exit
//! code is 1 for what is not found or in the way, 2 for wrong use.

use crate::args::{ColorChoice, Globals};
use crate::connect;
use crate::failure::Failure;
use crate::file;
use crate::out::Out;
use gaffer_api::types::{ActionRequest, Job, ScaleRequest, SignalRequest};
use gaffer_api::{Client, Endpoint};
use gaffer_config::nearest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Session of names without one.
const SESSION: &str = "default";
/// The daemon holds answers so long.
const HOLD: Duration = Duration::from_secs(30);

/// What `gafferctl help` prints.
const HELP: &str = "\
usage: gafferctl [--version] [--connect=URL] [--help] COMMAND [ARGS]

The commands of gaffer 0.4, on today's daemon. Everything else: gaffer help

  processes [--running]           names of all jobs, or of those that run
  get_process NAME                a job, as JSON
  add_process [--start] NAME CMD  add a job
  load_process [--start] FILE     add the jobs of a JSON file
  update_process NAME CMD         change the command of a job
  del_process NAME                stop and remove a job
  start NAME, stop NAME
  add NAME N, sub NAME N          more or fewer instances; prints the number
  kill NAME SIGNAL
  status NAME                     active or stopped
  running NAME, numprocesses NAME, pids NAME
  watch [PATTERN]                 events as they come
";

/// Commands, for typos.
const COMMANDS: [&str; 17] = [
    "processes",
    "get_process",
    "add_process",
    "load_process",
    "update_process",
    "del_process",
    "start",
    "stop",
    "add",
    "sub",
    "kill",
    "status",
    "running",
    "numprocesses",
    "pids",
    "watch",
    "help",
];

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
        token_file: None,
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

async fn command(out: &Out, globals: Globals, words: &[String]) -> Result<u8, Failure> {
    let mut client = connect::client(&globals)?;
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(option) = words.next_if(|word| word.starts_with('-')) {
        let url = match (option, option.split_once('=')) {
            ("--version", _) => {
                return out
                    .line(&format!("gafferctl {}", env!("CARGO_PKG_VERSION")))
                    .map(|()| 0);
            }
            ("-h" | "--help", _) => return out.bytes(HELP.as_bytes()).map(|()| 0),
            ("--connect", _) => words.next().unwrap_or_default(),
            (_, Some(("--connect", url))) => url,
            _ => {
                return Err(Failure::usage(format!("there is no option `{option}`"))
                    .hint("all of them:  gafferctl help"));
            }
        };
        let endpoint = Endpoint::parse(url).map_err(|error| Failure::usage(error.to_string()))?;
        client = Client::new(endpoint, std::env::var("GAFFER_TOKEN").ok());
    }
    let Some(verb) = words.next() else {
        return out.bytes(HELP.as_bytes()).map(|()| 2);
    };
    let (flags, rest): (Vec<&str>, Vec<&str>) = match verb {
        "add_process" | "update_process" => words.partition(|word| *word == "--start"),
        _ => words.partition(|word| word.starts_with("--")),
    };
    match (verb, rest.as_slice()) {
        ("help", _) => out.bytes(HELP.as_bytes())?,
        ("processes", []) => processes(out, &client, flags.contains(&"--running")).await?,
        ("watch", pattern) => return watch(out, &client, pattern.first().copied()).await,
        ("load_process", [path]) => load(out, &client, path, flags.contains(&"--start")).await?,
        (_, [name, rest @ ..]) if COMMANDS.contains(&verb) => {
            of_job(out, &client, verb, name, rest, flags.contains(&"--start")).await?
        }
        _ if COMMANDS.contains(&verb) => {
            return Err(Failure::usage(format!("`{verb}` needs other arguments"))
                .hint("all of them:  gafferctl help"));
        }
        _ => {
            let guess = nearest(verb, COMMANDS)
                .map(|near| format!("did you mean `gafferctl {near}`?"))
                .unwrap_or_default();
            return Err(Failure::usage(format!("there is no command `gafferctl {verb}`"))
                .hint_pair(&guess, "all commands:  gafferctl help"));
        }
    }
    Ok(0)
}

fn split(name: &str) -> (String, String) {
    match name.replacen('/', ".", 1).split_once('.') {
        Some((session, job)) => (session.to_owned(), job.to_owned()),
        None => (SESSION.to_owned(), name.to_owned()),
    }
}

async fn processes(out: &Out, client: &Client, running: bool) -> Result<(), Failure> {
    for job in client.jobs(None, false).await? {
        if !running || live(&job) > 0 {
            out.line(&format!("{}.{}", job.session, job.job))?;
        }
    }
    Ok(())
}

fn live(job: &Job) -> usize {
    job.instances
        .iter()
        .filter(|instance| instance.pid.is_some())
        .count()
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
        ("get_process", []) => return out.json(&client.job(&session, &job, true).await?),
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
        _ => {
            return Err(Failure::usage(format!("`{verb}` needs other arguments"))
                .hint("all of them:  gafferctl help"));
        }
    }
    out.line("ok")
}

/// What a question about a job is answered with.
fn value(verb: &str, job: &Job) -> String {
    match verb {
        "status" if job.wish == "stopped" => "stopped".to_owned(),
        "status" => "active".to_owned(),
        "running" => live(job).to_string(),
        "numprocesses" => job.target.to_string(),
        _ => {
            let pids: Vec<String> = job
                .instances
                .iter()
                .filter_map(|one| Some(one.pid?.to_string()))
                .collect();
            pids.join(",")
        }
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
async fn watch(out: &Out, client: &Client, pattern: Option<&str>) -> Result<u8, Failure> {
    use futures_util::StreamExt;
    let mut events = client.events(Some("end"), true, pattern).await?;
    loop {
        out.flush()?;
        let event = tokio::select! {
            event = events.next() => event,
            () = crate::ask::interrupted() => return Ok(0),
        };
        let Some(event) = event.transpose()? else {
            return Ok(0);
        };
        let data: BTreeMap<&String, &Value> = event.data.iter().collect();
        let pid = data
            .get(&"pid".to_owned())
            .map(|pid| format!(" pid {}", pid.as_str().unwrap_or_default()))
            .unwrap_or_default();
        out.line(&format!(
            "{} {} | {}{pid}",
            crate::when::clock(&event.time),
            event.subject,
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
        assert_eq!(split("shop/web"), ("shop".to_owned(), "web".to_owned()));
        assert_eq!(split("shop.b.c"), ("shop".to_owned(), "b.c".to_owned()));
    }

    #[test]
    fn every_command_is_in_the_help() {
        for command in COMMANDS.iter().filter(|command| **command != "help") {
            assert!(HELP.contains(command), "{command}");
        }
    }
}
