//! The commands of the original gaffer: its words, its options before the command, its sentences, its exit codes (0, or 1
//! for what could not be done), said to today's API.
//!
//! `words` decides what is meant: most old words are today's with other names and are only translated; those whose output
//! scripts read have a command here. Where one word means two things, today's meaning wins, unless an option says that the
//! old one is meant.

pub mod args;
mod load;
mod names;
mod ps;
mod talk;
mod users;
mod words;

use crate::context::Context;
use crate::failure::Failure;
use crate::out::Out;
use args::{OldCli, OldCommand};
use clap::Parser;
use gaffer_api::ClientError;
use std::time::Duration;

pub use words::{Said, translate};

/// The daemon holds answers so long; what is not over then goes on.
const HOLD: Duration = Duration::from_secs(30);

/// An application, and who is asked about it.
pub struct App {
    pub ctx: Context,
    pub name: String,
    pub old: args::OldGlobals,
}

/// Reads the words of an old command; the exit code of help and of wrong use.
pub fn parse(words: &[String]) -> Result<OldCli, u8> {
    OldCli::try_parse_from(words).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { 2 } else { 0 }
    })
}

/// One old command.
pub async fn run(mut cli: OldCli) -> Result<u8, Failure> {
    if matches!(cli.command, OldCommand::KeyCreate(_)) {
        // Here the option is the key's own.
        cli.globals.fleet.label.clear();
    }
    if cli.globals.fleet.is_used() {
        return Err(
            Failure::usage("this command of the original has to do with one node only")
                .hint("what to write today:  gaffer help old-commands"),
        );
    }
    let name = names::app_name(&cli.globals, &cli.old)?;
    let mut globals = cli.globals;
    globals.session = Some(name.clone());
    if matches!(&cli.command, OldCommand::Logs { no_color: true, .. }) {
        globals.color = crate::args::ColorChoice::Never;
    }
    let app = App {
        ctx: Context::new(&globals, Out::new(&globals))?,
        name,
        old: cli.old,
    };
    let result = command(&app, cli.command).await;
    app.ctx.out.flush()?;
    // The original knows one code for what cannot be done.
    result.map_err(|failure| Failure {
        exit: if matches!(failure.exit, 3..=5) {
            1
        } else {
            failure.exit
        },
        ..failure
    })
}

async fn command(app: &App, command: OldCommand) -> Result<u8, Failure> {
    match command {
        OldCommand::Load(args) => load::load(app, &args).await,
        OldCommand::Unload(args) => load::many(app, load::Verb::Unload, &args).await,
        OldCommand::Reload(args) => load::many(app, load::Verb::Reload, &args).await,
        OldCommand::Apps => ps::apps(app).await,
        OldCommand::Ps { name } => ps::ps(app, name.as_deref()).await,
        OldCommand::PsInfo { target } => ps::info(app, &target).await,
        OldCommand::PsScale { changes } => ps::scale(app, &changes).await,
        OldCommand::PsStart { jobs } => ps::switch(app, ps::Switch::Start, &jobs).await,
        OldCommand::PsStop { targets } => ps::switch(app, ps::Switch::Stop, &targets).await,
        OldCommand::PsKill { target, signal } => ps::kill(app, &target, &signal).await,
        OldCommand::Run(args) => talk::run(app, &args).await,
        OldCommand::Logs { ps, .. } => talk::events(app, ps.as_deref()).await,
        OldCommand::Send { stream, target, data } => talk::send(app, &target, stream.as_deref(), &data).await,
        OldCommand::User { name } => users::show(app, &name).await,
        OldCommand::UserAdd(args) => users::add(app, &args).await,
        OldCommand::UserDel { name } => users::delete(app, &name).await,
        OldCommand::UserSetPassword { name, password } => {
            users::set_password(app, &name, password.as_ref()).await
        }
        OldCommand::UserSetKey { name, key } => users::set_key(app, &name, key.as_ref()).await,
        OldCommand::Key { key } => users::key(app, &key).await,
        OldCommand::KeyCreate(args) => users::create_key(app, &args).await,
        OldCommand::KeyDelete { key } => users::delete_key(app, &key).await,
        OldCommand::Recv { target, stream } => talk::recv(app, &target, stream.as_deref()).await,
    }
}

/// The original's sentences for who may not.
fn refused(error: ClientError) -> Failure {
    match error {
        ClientError::Api(_, 401) => Failure::new(5, "Unauthorized access. You need an API key"),
        ClientError::Api(error, 403) => {
            let failure = Failure::new(5, "Forbidden access. API key permissions aren't enough");
            match error.message.as_str() {
                // The original's reasons are one word.
                "forbidden" => failure,
                why => failure.hint(crate::escape::escape(why)),
            }
        }
        error => error.into(),
    }
}

/// An operation that is over and did not do it.
fn done(operation: gaffer_api::types::Operation) -> Result<(), Failure> {
    match operation.state.as_str() {
        "failed" | "cancelled" => Err(Failure::failed(format!(
            "{}: {}",
            operation.target, operation.reason
        ))),
        _ => Ok(()),
    }
}
