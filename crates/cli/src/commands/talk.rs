//! `signal`, `send`, `attach`: talking to programs that run.

use crate::args::{AttachArgs, SendArgs, SignalArgs};
use crate::ask::Patience;
use crate::commands::act::{ask_each, finish};
use crate::context::Context;
use crate::failure::Failure;
use crate::target::Selected;
use crate::terminal;
use futures_util::{SinkExt, StreamExt};
use gaffer_api::client::Message;
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
    let (_, run) = ctx.one_run(&args.target).await?;
    let stream = args.stream.as_deref();
    if args.text != ["-"] {
        let line = format!("{}\n", args.text.join(" "));
        ctx.client
            .run_input(&run, stream, line.into_bytes(), args.eof)
            .await?;
        return Ok(0);
    }
    let mut input = crate::stdin::chunks();
    while let Some(mut bytes) = input.recv().await {
        while bytes.len() < WRITE_BYTES
            && let Ok(more) = input.try_recv()
        {
            bytes.extend(more);
        }
        ctx.client.run_input(&run, stream, bytes, false).await?;
    }
    if args.eof {
        ctx.client.run_input(&run, stream, Vec::new(), true).await?;
    }
    Ok(0)
}

/// `attach`.
pub async fn attach(ctx: &Context, args: &AttachArgs) -> Result<u8, Failure> {
    let (selected, run) = ctx.one_run(&args.target).await?;
    join(ctx, &selected, &run, args.read_only).await
}

/// Joins a run until it ends (its exit code) or the user leaves it (0).
pub async fn join(ctx: &Context, selected: &Selected, run: &str, read_only: bool) -> Result<u8, Failure> {
    let spec = ctx
        .client
        .job(&selected.session, &selected.job, true)
        .await?
        .spec
        .unwrap_or_default();
    let has_pty = spec
        .get("pty")
        .and_then(serde_json::Value::as_bool)
        .unwrap_or(false);
    let on_terminal = std::io::stdin().is_terminal();
    let mut socket = ctx.client.run_attach(run, read_only).await?;
    let name = selected.shown(&ctx.scope);
    if on_terminal {
        let way_out = if has_pty {
            "Ctrl-] d leaves it"
        } else {
            "Ctrl-] d and Enter, or Ctrl-C, leaves it"
        };
        ctx.out.talk(&format!("attached to {name}; {way_out}"));
    }
    // Only a program with a terminal of its own draws and echoes by itself.
    let raw = (on_terminal && has_pty).then(terminal::Raw::enter).transpose()?;
    let mut keys = terminal::Keys::new(on_terminal);
    let mut input = (!read_only).then(crate::stdin::chunks);
    let mut resized = terminal::resizes()?;
    if raw.is_some() {
        socket.send(size()?).await.map_err(broken)?;
    }
    let mut output = Output {
        ctx,
        to_stderr: false,
    };
    let (said, code) = loop {
        let typed = async {
            match &mut input {
                Some(input) => input.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = socket.next() => match message.transpose().map_err(broken)? {
                Some(message) => if let Some(end) = output.take(message)? { break end },
                None => return Err(closed()),
            },
            bytes = typed => match bytes {
                None => {
                    input = None;
                    socket.send(text(&AttachMessage::Eof)?).await.map_err(broken)?;
                }
                Some(bytes) => {
                    let (bytes, leave) = keys.typed(&bytes);
                    if !bytes.is_empty() {
                        socket.send(Message::Binary(bytes.into())).await.map_err(broken)?;
                    }
                    if leave {
                        break ("left; it runs on".to_owned(), 0);
                    }
                }
            },
            _ = resized.recv(), if raw.is_some() => socket.send(size()?).await.map_err(broken)?,
        }
    };
    drop(raw);
    ctx.out.talk(&format!("{name}: {said}"));
    Ok(code)
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
    let size = rustix::termios::tcgetwinsize(std::io::stdin()).ok();
    let (cols, rows) = size.map_or((80, 24), |size| (size.ws_col, size.ws_row));
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
