//! `run JOB` on the node and `run -- CMD` here: one run, its output, its exit code.

use crate::args::RunArgs;
use crate::ask::{Patience, goes_on};
use crate::commands::talk::{Joined, Parted, exit_code_of, join};
use crate::context::Context;
use crate::failure::Failure;
use crate::private::Private;
use crate::target::{Selected, Target, parse};
use crate::terminal;
use futures_util::StreamExt;
use gaffer_api::Client;
use gaffer_api::types::{Operation, Run, RunRequest, SignalRequest};
use gaffer_config::escape_templates;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Session and job of a command that is run here.
const HERE: (&str, &str) = ("run", "run");
/// The daemon may hold an answer so long.
const HOLD: Duration = Duration::from_secs(10);
/// A run whose output has ended is asked for its end so often.
const END_EVERY: Duration = Duration::from_millis(10);
/// Whether it could be started at all is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Exit code of a program that could not be started, as a shell has it.
const EXIT_NO_PROGRAM: u8 = 127;

/// `run`.
pub async fn run(ctx: &Context, args: &RunArgs) -> Result<u8, Failure> {
    match &args.job {
        Some(job) => on_node(ctx, args, job).await,
        None if args.args.is_empty() => Err(Failure::usage("nothing to run").hint_pair(
            "a job, once:  gaffer run JOB",
            "a command here:  gaffer run -- CMD",
        )),
        None => here(ctx, args).await,
    }
}

async fn on_node(ctx: &Context, args: &RunArgs, job: &str) -> Result<u8, Failure> {
    if matches!(parse(job)?, Target::Run(_)) {
        return Err(Failure::usage(format!("`{job}` is a run; name the job")));
    }
    let (selected, _) = ctx.changed(std::slice::from_ref(&job.to_owned()), false).await?;
    let [one] = selected.as_slice() else {
        return Err(Failure::usage(format!(
            "`{job}` names {} jobs; one is run at a time",
            selected.len()
        )));
    };
    let env = variables(&args.params)?;
    // A program behind a pipe shall see one.
    let pty = args.attach && std::io::stdin().is_terminal();
    let (cols, rows) = pty.then(terminal::size).flatten().unzip();
    let request = RunRequest {
        env,
        args: args.args.clone(),
        stdin: args.attach,
        pty,
        cols,
        rows,
        grace_ms: args
            .grace
            .map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
    };
    let patience = Patience::new(ctx, args.wait.no_wait);
    let mut operation = ctx
        .client
        .one_off(&one.session, &one.job, &request, patience.first())
        .await?;
    if args.wait.no_wait {
        if ctx.out.is_text() {
            ctx.out.line(&goes_on(&operation))?;
        } else {
            ctx.out.json(&operation)?;
        }
        return Ok(0);
    }
    let run = loop {
        if let Some(run) = run_of(&operation) {
            break run;
        }
        if operation.state != "pending" {
            return Err(Failure::failed(format!(
                "run of {}: {}",
                operation.target, operation.reason
            )));
        }
        operation = ctx.client.operation(&operation.operation, Some(HOLD)).await?;
    };
    if args.attach {
        let selected = Selected {
            instance: None,
            run: Some(run.clone()),
            ..one.clone()
        };
        let joined = Joined {
            pty: request.pty,
            input: true,
            greeting: true,
        };
        let name = selected.shown(&ctx.scope);
        return Ok(join(ctx, &ctx.client, &name, &run, &joined).await?.code());
    }
    follow(ctx, &ctx.client, &run, false).await
}

fn variables(pairs: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pairs = pairs.iter().map(|pair| {
        pair.split_once('=')
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .ok_or_else(|| Failure::usage(format!("`{pair}` is no K=V")))
    });
    pairs.collect()
}

fn run_of(operation: &Operation) -> Option<String> {
    operation.data.get("run")?.as_str().map(str::to_owned)
}

/// A command on a private daemon, with this program's standard input.
async fn here(ctx: &Context, args: &RunArgs) -> Result<u8, Failure> {
    if args.attach || args.wait.no_wait {
        return Err(Failure::usage(
            "--attach and --no-wait are for jobs of the daemon",
        ));
    }
    let dir = crate::file::folder(&args.file)?;
    let mut env_files: Vec<String> = args
        .file
        .env_files
        .iter()
        .map(|path| escape_templates(&dir.join(path).to_string_lossy()))
        .collect();
    if env_files.is_empty() && crate::file::find(Some(&dir)).is_some_and(|path| path.ends_with("Procfile")) {
        env_files.push(format!(
            "?{}",
            escape_templates(&dir.join(".env").to_string_lossy())
        ));
    }
    let mut env = BTreeMap::new();
    for pair in &args.params {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("`{pair}` is no K=V")))?;
        env.insert(key, escape_templates(value));
    }
    // What was typed is meant as it stands: a shell has expanded it already.
    let cmd: Vec<String> = args.args.iter().map(|word| escape_templates(word)).collect();
    // In front of a terminal it gets one, as if it had been started there.
    let pty = std::io::stdin().is_terminal() && ctx.out.terminal && std::io::stderr().is_terminal();
    let mut spec = json!({
        "cmd": cmd, "cwd": escape_templates(&dir.to_string_lossy()), "env_inherit": "all", "env_file": env_files, "env": env,
        "restart": "never", "instances": 1,
    });
    if pty {
        spec["pty"] = json!(true);
    } else {
        spec["stdin"] = json!("pipe");
    }
    let private = Private::start(&ctx.out).await?;
    let result = once(ctx, &private.client, &spec).await;
    private.finish(&ctx.out).await;
    result
}

async fn once(ctx: &Context, client: &Client, spec: &serde_json::Value) -> Result<u8, Failure> {
    let mut operation = client
        .job_put(HERE.0, HERE.1, spec, None, Some(Duration::ZERO))
        .await?;
    let run = loop {
        if let Some(run) = client
            .instance(HERE.0, HERE.1, 1)
            .await
            .ok()
            .and_then(|instance| instance.run)
        {
            break run;
        }
        if operation.state == "failed" {
            return Err(Failure::new(EXIT_NO_PROGRAM, operation.reason));
        }
        operation = client
            .operation(&operation.operation, Some(Duration::from_millis(20)))
            .await?;
    };
    if spec["pty"] == json!(true) {
        let joined = Joined {
            pty: true,
            input: true,
            greeting: false,
        };
        return match join(ctx, client, "it", &run, &joined).await {
            Ok(Parted::Ended(_)) => outcome(end(client, &run).await?),
            // Its daemon ends with us.
            Ok(Parted::Left(code)) => {
                ctx.out.talk("left; it is being stopped");
                Ok(code)
            }
            // There may be nothing to join.
            Err(_) if never_began(client, &run).await => outcome(end(client, &run).await?),
            Err(failure) => Err(failure),
        };
    }
    follow(ctx, client, &run, true).await
}

/// Copies the output of a run until its end; its exit code. Interrupts are handed on: first TERM, then KILL.
async fn follow(ctx: &Context, client: &Client, run: &str, with_input: bool) -> Result<u8, Failure> {
    let watch =
        |kind| signal(kind).map_err(|error| Failure::failed(format!("signals cannot be watched: {error}")));
    let (mut interrupt, mut terminate, mut hangup) = (
        watch(SignalKind::interrupt())?,
        watch(SignalKind::terminate())?,
        watch(SignalKind::hangup())?,
    );
    let mut input = with_input.then(crate::stdin::chunks);
    let mut asked = 0;
    let output =
        async { tokio::try_join!(copy(ctx, client, run, "stdout"), copy(ctx, client, run, "stderr")) };
    tokio::pin!(output);
    loop {
        let typed = async {
            match &mut input {
                Some(input) => input.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = &mut output => {
                done?;
                break;
            }
            bytes = typed => match bytes {
                // A program that reads no more is no failure of ours.
                Some(bytes) => if client.run_input(run, None, bytes, false).await.is_err() { input = None },
                None => {
                    input = None;
                    let _ = client.run_input(run, None, Vec::new(), true).await;
                }
            },
            () = tokio::time::sleep(LOOK_EVERY) => if never_began(client, run).await { break },
            _ = interrupt.recv() => asked = stop(ctx, client, run, asked).await,
            _ = terminate.recv() => asked = stop(ctx, client, run, asked).await,
            _ = hangup.recv() => asked = stop(ctx, client, run, asked).await,
        }
    }
    outcome(end(client, run).await?)
}

/// What a run that has ended means for our own end.
fn outcome(run: Run) -> Result<u8, Failure> {
    if run.cause.as_deref() == Some("exec-failed") || run.cause.as_deref() == Some("setup-failed") {
        return Err(Failure::new(EXIT_NO_PROGRAM, run.reason));
    }
    if run.exit_code.is_none() && run.signal.is_none() {
        return Err(Failure::failed(run.reason));
    }
    Ok(exit_code_of(run.exit_code, run.signal.as_deref()))
}

/// A run whose program could not be started has no output that could end.
async fn never_began(client: &Client, run: &str) -> bool {
    client
        .run(run)
        .await
        .is_ok_and(|run| matches!(run.cause.as_deref(), Some("exec-failed" | "setup-failed")))
}

async fn stop(ctx: &Context, client: &Client, run: &str, asked: u32) -> u32 {
    let (name, to) = if asked == 0 {
        ("TERM", "group")
    } else {
        ("KILL", "all")
    };
    let request = SignalRequest {
        signal: name.to_owned(),
        to: Some(to.to_owned()),
    };
    if let Err(error) = client.run_signal(run, &request).await {
        ctx.out.fail(&Failure::from(error));
    }
    asked + 1
}

/// One stream of a run, from its first byte to its last.
async fn copy(ctx: &Context, client: &Client, run: &str, stream: &str) -> Result<(), Failure> {
    let mut bytes = match client.run_log(run, stream, "start", true).await {
        Ok((_, bytes)) => bytes,
        Err(error) if error.code() == Some(gaffer_api::error::Code::StreamNotFound) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk?;
        if stream == "stderr" {
            let _ = std::io::stderr().write_all(&chunk);
        } else {
            ctx.out.bytes(&chunk)?;
            ctx.out.flush()?;
        }
    }
    Ok(())
}

/// The record of its end, which comes right after its output has ended.
async fn end(client: &Client, run: &str) -> Result<Run, Failure> {
    loop {
        let record = client.run(run).await?;
        if record.ended_at.is_some() || record.cause.is_some() {
            return Ok(record);
        }
        tokio::time::sleep(END_EVERY).await;
    }
}
