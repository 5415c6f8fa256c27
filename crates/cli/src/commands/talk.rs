//! `signal`, `send`, `attach`: talking to programs that run.

use crate::args::{AttachArgs, SendArgs, SignalArgs};
use crate::ask::Patience;
use crate::commands::act::{ask_each, finish};
use crate::context::Context;
use crate::failure::Failure;
use crate::target::Selected;
use crate::terminal;
use futures_util::{SinkExt, StreamExt};
use gaffer_api::Client;
use gaffer_api::client::{ClientError, Message};
use gaffer_api::types::{AttachMessage, JobsRequest, SignalRequest};
use std::io::{IsTerminal, Write};

/// Bytes of one write; the daemon bounds bodies.
const WRITE_BYTES: usize = 1 << 20;

/// `signal`.
pub async fn signal(ctx: &Context, args: &SignalArgs) -> Result<u8, Failure> {
    let to = match (args.group, args.all_processes) {
        (true, _) => Some("group".to_owned()),
        (_, true) => Some("all".to_owned()),
        _ => args.main.then(|| "main".to_owned()),
    };
    let request = SignalRequest {
        signal: args.signal.clone(),
        to,
    };
    let (selected, worst) = ctx.changed(&args.targets, args.all).await?;
    let patience = Patience::new(ctx, false);
    let mut worst = worst;
    let mut jobs = Vec::new();
    for one in selected {
        let Some(run) = &one.run else {
            jobs.push(one);
            continue;
        };
        match ctx.client.run_signal(run, &request).await {
            Ok(()) if ctx.out.is_text() && !ctx.globals.quiet => ctx
                .out
                .line(&format!("{} @{run}  signalled", ctx.out.glyph("running")))?,
            Ok(()) => {}
            Err(error) => {
                let failure = Failure::from(error);
                worst = worst.max(failure.exit);
                ctx.out.fail(&failure);
            }
        }
    }
    if jobs.is_empty() {
        return Ok(worst);
    }
    let request = JobsRequest {
        signal: Some(request.signal),
        to: request.to,
        ..JobsRequest::default()
    };
    let asked = ask_each(ctx, "signal", jobs, &request, &patience).await?;
    finish(ctx, asked, &patience, worst).await
}

/// `send`.
pub async fn send(ctx: &Context, args: &SendArgs) -> Result<u8, Failure> {
    let (selected, run) = ctx.one_run(&args.target).await?;
    let stream = args.stream.as_deref();
    if args.text != ["-"] {
        let line = format!("{}\n", args.text.join(" "));
        let sent = ctx
            .client
            .run_input(&run, stream, line.into_bytes(), args.eof)
            .await;
        return sent
            .map(|()| 0)
            .map_err(|error| refused(ctx, &selected, stream, error));
    }
    let mut input = crate::stdin::chunks();
    while let Some(mut bytes) = input.recv().await {
        while bytes.len() < WRITE_BYTES
            && let Ok(more) = input.try_recv()
        {
            bytes.extend(more);
        }
        let sent = ctx.client.run_input(&run, stream, bytes, false).await;
        sent.map_err(|error| refused(ctx, &selected, stream, error))?;
    }
    if args.eof {
        ctx.client.run_input(&run, stream, Vec::new(), true).await?;
    }
    Ok(0)
}

/// Why a text did not arrive, and what to do about it.
fn refused(ctx: &Context, selected: &Selected, stream: Option<&str>, error: ClientError) -> Failure {
    if error.code() != Some(gaffer_api::error::Code::NotWritable) {
        return error.into();
    }
    let (name, job) = (selected.shown(&ctx.scope), &selected.job);
    match stream {
        Some(stream) => Failure::conflict(format!("{name} has no stream `{stream}`, or it is closed"))
            .hint(format!("what it has:  `streams` in gaffer job show {job}")),
        None => Failure::conflict(format!("{name} takes no input, or has closed it")).hint(format!(
            "to give it one:  stdin = \"pipe\" in job `{job}`, then gaffer apply and gaffer restart {job}"
        )),
    }
}

/// `attach`.
pub async fn attach(ctx: &Context, args: &AttachArgs) -> Result<u8, Failure> {
    let (selected, run) = ctx.one_run(&args.target).await?;
    let spec = ctx
        .client
        .job(&selected.session, &selected.job, true)
        .await?
        .spec
        .unwrap_or_default();
    let pty = spec.get("pty").and_then(serde_json::Value::as_bool) == Some(true);
    let stdin = spec.get("stdin").and_then(serde_json::Value::as_str) == Some("pipe");
    // A one-off may have been given what the definition does not say.
    let one_off = selected.instance.is_none();
    let name = selected.shown(&ctx.scope);
    let joined = Joined {
        pty: pty || one_off && std::io::stdin().is_terminal(),
        input: (pty || stdin || one_off) && !args.read_only,
        greeting: true,
    };
    if !joined.input && !args.read_only && std::io::stdin().is_terminal() {
        ctx.out.talk(&format!(
            "{name} takes no input (neither `pty` nor `stdin = \"pipe\"`): you only look"
        ));
    }
    let parted = join(ctx, &ctx.client, &name, &run, &joined).await?;
    Ok(parted.code())
}

/// How a run was parted from.
pub enum Parted {
    /// It has ended, with this code.
    Ended(u8),
    /// It goes on; our own exit code.
    Left(u8),
}

impl Parted {
    /// Exit code of the command.
    pub fn code(self) -> u8 {
        let (Parted::Ended(code) | Parted::Left(code)) = self;
        code
    }
}

/// How a run is joined.
pub struct Joined {
    /// It has a terminal of its own.
    pub pty: bool,
    /// It takes input.
    pub input: bool,
    /// Say how to leave it, and how it was left.
    pub greeting: bool,
}

/// Joins a run until it ends or the user leaves it.
pub async fn join(
    ctx: &Context,
    client: &Client,
    name: &str,
    run: &str,
    how: &Joined,
) -> Result<Parted, Failure> {
    let on_terminal = std::io::stdin().is_terminal();
    let mut socket = client.run_attach(run, !how.input).await?;
    if on_terminal && how.greeting {
        greet(ctx, name, how);
    }
    // Only a program with a terminal of its own draws and echoes by itself.
    let raw = (on_terminal && how.pty).then(terminal::Raw::enter).transpose()?;
    let mut keys = terminal::Keys::new(on_terminal);
    // Also who only looks types the keys that leave.
    let mut input = (how.input || on_terminal).then(crate::stdin::chunks);
    let mut resized = terminal::resizes()?;
    let mut ends = terminal::Ends::watch()?;
    if raw.is_some() {
        socket.send(size()?).await.map_err(broken)?;
    }
    let mut output = Output {
        ctx,
        to_stderr: false,
    };
    let (said, parted) = loop {
        let typed = async {
            match &mut input {
                Some(input) => input.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = socket.next() => match message.transpose().map_err(broken)? {
                Some(message) => if let Some((said, code)) = output.take(message)? {
                    break (said, Parted::Ended(code));
                },
                None => return Err(closed()),
            },
            bytes = typed => match bytes {
                None => {
                    input = None;
                    if how.input {
                        socket.send(text(&AttachMessage::Eof)?).await.map_err(broken)?;
                    }
                }
                Some(bytes) => {
                    let (bytes, leave) = keys.typed(&bytes);
                    if !bytes.is_empty() && how.input {
                        socket.send(Message::Binary(bytes.into())).await.map_err(broken)?;
                    }
                    if leave {
                        break ("left; it runs on".to_owned(), Parted::Left(0));
                    }
                }
            },
            // Not by the default action: the terminal has to be as it was.
            code = ends.next() => break ("left; it runs on".to_owned(), Parted::Left(code)),
            _ = resized.recv(), if raw.is_some() => socket.send(size()?).await.map_err(broken)?,
        }
    };
    drop(raw);
    if how.greeting {
        ctx.out.talk(&format!("{name}: {said}"));
    }
    Ok(parted)
}

fn greet(ctx: &Context, name: &str, how: &Joined) {
    let way_out = if how.pty {
        "Ctrl-] d leaves it"
    } else {
        "Ctrl-] d and Enter, or Ctrl-C, leaves it"
    };
    ctx.out.talk(&format!("attached to {name}; {way_out}"));
}

/// Where the bytes of a run go.
struct Output<'a> {
    ctx: &'a Context,
    to_stderr: bool,
}

impl Output<'_> {
    /// Takes a message; at the end of the run its reason and exit code.
    fn take(&mut self, message: Message) -> Result<Option<(String, u8)>, Failure> {
        match message {
            Message::Binary(bytes) if self.to_stderr => {
                // Nobody reads it: the program goes on all the same.
                let _ = std::io::stderr().write_all(&bytes);
            }
            Message::Binary(bytes) => {
                self.ctx.out.bytes(&bytes)?;
                self.ctx.out.flush()?;
            }
            Message::Text(text) => match message_of(&text)? {
                AttachMessage::Stream { stream } => self.to_stderr = stream == "stderr",
                AttachMessage::Ended {
                    exit_code,
                    signal,
                    reason,
                } => {
                    return Ok(Some((reason, exit_code_of(exit_code, signal.as_deref()))));
                }
                AttachMessage::Gap { bytes } => self
                    .ctx
                    .out
                    .talk(&format!("{} are missing here", crate::when::size(bytes))),
                AttachMessage::Error { error } => return Err(Failure::failed(error.message)),
                AttachMessage::Resize { .. } | AttachMessage::Eof => {}
            },
            Message::Close(_) => return Err(closed()),
            _ => {}
        }
        Ok(None)
    }
}

fn closed() -> Failure {
    Failure::failed("the daemon closed the connection")
}

/// The code of the program, or 128 + its signal, as a shell has it.
pub fn exit_code_of(exit_code: Option<i32>, signal: Option<&str>) -> u8 {
    match (exit_code, signal) {
        (Some(code), _) => u8::try_from(code & 0xff).unwrap_or(1),
        (None, Some(name)) => {
            let number = gaffer_config::parse_signal(name).and_then(|number| u8::try_from(number).ok());
            number.map_or(1, |number| 128u8.saturating_add(number))
        }
        (None, None) => 1,
    }
}

fn size() -> Result<Message, Failure> {
    let (cols, rows) = terminal::size().unwrap_or((80, 24));
    text(&AttachMessage::Resize { cols, rows })
}

fn text(message: &AttachMessage) -> Result<Message, Failure> {
    serde_json::to_string(message)
        .map(|text| Message::Text(text.into()))
        .map_err(|error| Failure::failed(error.to_string()))
}

fn message_of(text: &str) -> Result<AttachMessage, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::failed(format!("the daemon's message cannot be understood: {error}")))
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("the connection broke off: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_what_a_shell_would_give() {
        assert_eq!(exit_code_of(Some(3), None), 3);
        assert_eq!(exit_code_of(None, Some("SIGKILL")), 137);
        assert_eq!(exit_code_of(None, Some("TERM")), 143);
        assert_eq!(exit_code_of(None, None), 1);
    }
}
