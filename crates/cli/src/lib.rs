//! The command line of gaffer. It speaks only the HTTP API: what the daemon says is shown, nothing is derived here.
//!
//! What was typed (`args`) is kept apart from what it means (`commands`). Data goes to standard output, talk to standard
//! error (`out`); every failure is one sentence with a way out and one of a few exit codes (`failure`).

mod access;
mod args;
mod args_shell;
mod ask;
mod commands;
mod connect;
mod context;
mod credentials;
mod ctl;
mod escape;
mod failure;
mod file;
mod fleet;
mod foreground;
mod help;
mod help_queue;
mod help_task;
mod nodes;
mod old;
mod out;
mod paint;
mod private;
mod prompt;
mod runner;
mod stdin;
mod table;
mod target;
mod terminal;
mod when;

use args::{Cli, Command, Globals, JobCommand};
use clap::{ArgMatches, FromArgMatches};
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
    let words = match old::translate(words) {
        old::Said::Today(words) => words,
        old::Said::Old(words) => return run_old(&words),
    };
    let parsed = help::command()
        .try_get_matches_from(words)
        .and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            if let Some(failure) = help::later_option(&error) {
                let _ = std::io::Write::write_all(
                    &mut std::io::stderr(),
                    failure.render(&paint::Paint::new(false)).as_bytes(),
                );
                return ExitCode::from(failure.exit);
            }
            // Help and version are asked for and go to standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    run(cli, &matches)
}

/// `gafferctl`: the same for the original's first command line.
pub fn gafferctl(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = words
        .into_iter()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(_) => return ExitCode::FAILURE,
    };
    let (out, result) = runtime.block_on(ctl::run(&words));
    result.map_or_else(
        |failure| {
            out.fail(&failure);
            ExitCode::from(failure.exit)
        },
        ExitCode::from,
    )
}

fn run_old(words: &[String]) -> ExitCode {
    let cli = match old::parse(words) {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    let out = Out::new(&cli.globals);
    ended(&out, |runtime| runtime.block_on(old::run(cli)))
}

fn run(cli: Cli, matches: &ArgMatches) -> ExitCode {
    let out = Out::new(&cli.globals);
    ended(&out, |runtime| {
        runtime.block_on(dispatch(cli.command, matches, &cli.globals))
    })
}

/// Runs a command; says why it failed.
fn ended(out: &Out, command: impl FnOnce(&tokio::runtime::Runtime) -> Result<u8, Failure>) -> ExitCode {
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime does not start: {error}")));
    match result.and_then(|runtime| command(&runtime)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            out.fail(&failure);
            ExitCode::from(failure.exit)
        }
    }
}

async fn dispatch(command: Option<Command>, matches: &ArgMatches, globals: &Globals) -> Result<u8, Failure> {
    let out = Out::new(globals);
    let Some(mut command) = command else {
        out.bytes(help::MAIN.as_bytes())?;
        out.flush()?;
        return Ok(2);
    };
    if let Some(result) = about_itself(&out, &command) {
        out.flush()?;
        return result;
    }
    if globals.fleet.is_used() && !matches!(command, Command::Lookup(_) | Command::Node(_)) {
        return fleet::run(matches, &mut command, globals).await;
    }
    let ctx = Context::new(globals, out)?;
    let result = daily(&ctx, command).await;
    // What was printed before a failure is data all the same.
    ctx.out.flush()?;
    result
}

/// Commands that need neither a daemon nor a session.
fn about_itself(out: &Out, command: &Command) -> Option<Result<u8, Failure>> {
    use commands::shell;
    Some(match command {
        Command::Completions(args) => shell::completions(out, args),
        Command::Man => shell::man(out),
        Command::Help(args) => shell::help(out, args),
        Command::Version => shell::version(out),
        Command::Other(words) => Err(help::unknown_command(
            &words
                .first()
                .map(|word| word.to_string_lossy())
                .unwrap_or_default(),
        )),
        _ => return None,
    })
}

async fn daily(ctx: &Context, command: Command) -> Result<u8, Failure> {
    use commands::task::target;
    use commands::{act, logs, ps, scale, talk, wait, why};
    let plain = gaffer_api::types::JobsRequest::default;
    match command {
        Command::Start(args) if args.targets.is_empty() && !args.all => {
            foreground::dev(
                ctx,
                &args::DevArgs {
                    jobs: Vec::new(),
                    foreground: args.foreground,
                },
            )
            .await
        }
        Command::Start(args) => {
            let targets = args::TargetArgs {
                targets: args.targets,
                all: args.all,
                wait: args.wait,
            };
            act::act(ctx, "start", &targets, &plain()).await
        }
        Command::Dev(args) => foreground::dev(ctx, &args).await,
        Command::Run(args) => commands::run::run(ctx, &args).await,
        Command::Stop(args) => act::stop(ctx, "stop", &args).await,
        Command::Restart(args) => act::stop(ctx, "restart", &args).await,
        Command::Reload(args) => act::reload(ctx, &args).await,
        Command::Pause(args) => act::act(ctx, "pause", &args, &plain()).await,
        Command::Resume(args) => act::act(ctx, "resume", &args, &plain()).await,
        Command::Scale(args) => scale::scale(ctx, &args).await,
        Command::Signal(args) => talk::signal(ctx, &args).await,
        Command::Send(args) => talk::send(ctx, &args).await,
        Command::Attach(args) => talk::attach(ctx, &args).await,
        Command::Ps(args) => ps::ps(ctx, &args).await,
        Command::Logs(args) => match target::named(&args.targets)? {
            Some(named) => target::logs(ctx, &args, named).await,
            None => logs::logs(ctx, &args).await,
        },
        Command::Why(args) => match target::named(&args.targets)? {
            Some(tasks) => target::why(ctx, &args, &tasks).await,
            None => why::why(ctx, &args).await,
        },
        Command::Wait(args) => match target::awaited(&args)? {
            Some(tasks) => target::until(ctx, &args, &tasks).await,
            None => wait::wait(ctx, &args).await,
        },
        Command::Job(args) => job(ctx, args.verb).await,
        Command::Task(args) => commands::task::task(ctx, args.verb).await,
        other => rare(ctx, other).await,
    }
}

async fn job(ctx: &Context, verb: JobCommand) -> Result<u8, Failure> {
    use commands::{act, job, ps};
    match verb {
        JobCommand::Ls(args) => ps::ps(ctx, &args).await,
        JobCommand::Show { target } => job::show(ctx, &target).await,
        JobCommand::Add(args) => job::add(ctx, &args).await,
        JobCommand::Set {
            target,
            changes,
            wait,
        } => job::set(ctx, &target, &changes, &wait).await,
        JobCommand::Rm(args) => job::rm(ctx, &args).await,
        JobCommand::Start(args) => {
            act::act(ctx, "start", &args, &gaffer_api::types::JobsRequest::default()).await
        }
        JobCommand::Stop(args) => act::stop(ctx, "stop", &args).await,
        JobCommand::Restart(args) => act::stop(ctx, "restart", &args).await,
        JobCommand::Reload(args) => act::reload(ctx, &args).await,
    }
}

async fn rare(ctx: &Context, command: Command) -> Result<u8, Failure> {
    use commands::{apply, convert};
    match command {
        Command::Events(args) => commands::events::events(ctx, &args).await,
        Command::Push(args) => commands::queue::push(ctx, &args).await,
        Command::Queue(args) => commands::queue::queue(ctx, args).await,
        Command::Schedule(args) => commands::schedule::schedule(ctx, &args.verb).await,
        Command::Webhook(args) => commands::webhook::webhook(ctx, &args.verb).await,
        Command::Check(args) => apply::check(ctx, &args),
        Command::Plan(args) => apply::plan(ctx, &args).await,
        Command::Apply(args) => apply::apply(ctx, &args).await,
        Command::Init(args) => convert::init(ctx, &args),
        Command::Export(args) => convert::export(ctx, &args),
        Command::Doctor(args) => commands::doctor::doctor(ctx, &args).await,
        Command::Node(args) => commands::node::node(ctx, &args).await,
        Command::Lookup(args) => commands::lookup::lookup(ctx, &args).await,
        Command::Login(args) => commands::access::login(ctx, &args).await,
        Command::Token(args) => commands::access::token(ctx, &args.verb).await,
        Command::User(args) => commands::access::user(ctx, &args.verb).await,
        Command::Daemon(args) => commands::daemon::daemon(ctx, &args.verb).await,
        // All others have been dispatched.
        other => Err(Failure::failed(format!("no code for {other:?}"))),
    }
}
