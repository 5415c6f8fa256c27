//! The command line of gaffer. It speaks only the HTTP API: what the daemon says is shown, nothing is derived here.
//!
//! What was typed (`args`) is kept apart from what it means (`commands`). Data goes to standard output, talk to standard
//! error (`out`); every failure is one sentence with a way out and one of a few exit codes (`failure`).

mod args;
mod ask;
mod commands;
mod connect;
mod context;
mod escape;
mod failure;
mod file;
mod help;
mod old_names;
mod out;
mod paint;
mod table;
mod target;
mod when;

use args::{Cli, Command, Globals};
use clap::FromArgMatches;
use context::Context;
use failure::Failure;
use out::Out;
use std::ffi::OsString;
use std::process::ExitCode;

/// `gaffer`: runs one command line, the program's name first.
pub fn gaffer(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = words
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words = old_names::translate(words);
    let parsed = help::command()
        .try_get_matches_from(words)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for and go to standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    run(cli)
}

fn run(cli: Cli) -> ExitCode {
    let out = Out::new(&cli.globals);
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime does not start: {error}")));
    let result = result.and_then(|runtime| runtime.block_on(dispatch(cli.command, &cli.globals)));
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            out.fail(&failure);
            ExitCode::from(failure.exit)
        }
    }
}

async fn dispatch(command: Option<Command>, globals: &Globals) -> Result<u8, Failure> {
    let out = Out::new(globals);
    let Some(command) = command else {
        out.bytes(help::MAIN.as_bytes())?;
        out.flush()?;
        return Ok(2);
    };
    let ctx = Context::new(globals, out)?;
    let code = online(&ctx, command).await?;
    ctx.out.flush()?;
    Ok(code)
}

async fn online(ctx: &Context, command: Command) -> Result<u8, Failure> {
    use commands::{act, logs, ps, scale, why};
    let plain = gaffer_api::types::ActionRequest::default;
    match command {
        Command::Stop(args) => act::stop(ctx, "stop", &args).await,
        Command::Restart(args) => act::stop(ctx, "restart", &args).await,
        Command::Reload(args) => act::reload(ctx, &args).await,
        Command::Pause(args) => act::act(ctx, "pause", &args, &plain()).await,
        Command::Resume(args) => act::act(ctx, "resume", &args, &plain()).await,
        Command::Scale(args) => scale::scale(ctx, &args).await,
        Command::Ps(args) => ps::ps(ctx, &args).await,
        Command::Logs(args) => logs::logs(ctx, &args).await,
        Command::Why(args) => why::why(ctx, &args).await,
        _ => Err(Failure::usage("x")),
    }
}
