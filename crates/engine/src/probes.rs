//! Doing probes: the core says when, this says what came of it.

use crate::owner::Message;
use gaffer_core::io::ProbeRole;
use gaffer_core::name::RunId;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::UnboundedSender;

/// Outcome: what was good, or what was not, in a few words.
type Verdict = Result<Arc<str>, Arc<str>>;

/// An active probe with all templates filled in.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    Http(String),
    Tcp(String),
    Cmd(Program),
}

/// A program to ask, with the environment of the run it is about.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub user: Option<gaffer_core::job::User>,
}

/// Asks, and reports to the owner when it knows. The handle cancels it.
pub(crate) fn ask(
    owner: UnboundedSender<Message>,
    run: RunId,
    role: ProbeRole,
    question: Question,
    timeout: Duration,
) -> tokio::task::AbortHandle {
    let asking = async move {
        let verdict = match tokio::time::timeout(timeout, answer(&question)).await {
            Ok(verdict) => verdict,
            Err(_) => Err(format!(
                "{}: no answer in {}",
                name(&question),
                gaffer_config::format_duration(timeout)
            )
            .into()),
        };
        // The owner is gone only when everything is.
        let _ended = owner.send(Message::Probed { run, role, verdict });
    };
    tokio::spawn(asking).abort_handle()
}

fn name(question: &Question) -> String {
    match question {
        Question::Http(url) => format!("http {}", path_of(url)),
        Question::Tcp(address) => format!("tcp {address}"),
        Question::Cmd(program) => {
            format!("cmd {}", program.argv.first().map_or("", String::as_str))
        }
    }
}

fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |start| &rest[start..])
}

async fn answer(question: &Question) -> Verdict {
    match question {
        Question::Http(url) => http(url).await,
        Question::Tcp(address) => tcp(address).await,
        Question::Cmd(program) => command(program).await,
    }
}

async fn tcp(address: &str) -> Verdict {
    let outcome = match address.strip_prefix("unix:") {
        Some(path) => UnixStream::connect(path).await.map(drop),
        None => TcpStream::connect(address).await.map(drop),
    };
    match outcome {
        Ok(()) => Ok(format!("tcp {address}").into()),
        Err(error) => Err(format!("tcp {address} {}", in_words(&error)).into()),
    }
}

fn in_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        _ => error
            .to_string()
            .split(" (os error")
            .next()
            .unwrap_or("failed")
            .to_lowercase(),
    }
}

/// GET; good is 2xx and 3xx.
async fn http(url: &str) -> Verdict {
    let path = path_of(url).to_owned();
    let failed = |what: String| -> Arc<str> { format!("http {path} {what}").into() };
    let uri: hyper::Uri = url.parse().map_err(|_| failed("is not a URL".to_owned()))?;
    let authority = uri
        .authority()
        .ok_or_else(|| failed("names no host".to_owned()))?
        .clone();
    let address = (
        authority.host().trim_matches(['[', ']']),
        authority.port_u16().unwrap_or(80),
    );
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| failed(in_words(&error)))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let driver = tokio::spawn(connection);
    let request = hyper::Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header("host", authority.as_str())
        .header("user-agent", "gaffer")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(error.to_string()))?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| failed(error.to_string()));
    driver.abort();
    let status = answer?.status();
    if status.is_success() || status.is_redirection() {
        Ok(format!("http {path} {}", status.as_u16()).into())
    } else {
        Err(failed(format!("answered {}", status.as_u16())))
    }
}

/// Runs the program with the environment, folder and user of the run; dropping the future kills it.
async fn command(asked: &Program) -> Verdict {
    let Some((program, arguments)) = asked.argv.split_first() else {
        return Err("cmd is empty".into());
    };
    let failed = |what: String| -> Arc<str> { format!("cmd {program} {what}").into() };
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(asked.env.iter().map(|(key, value)| (key, value)))
        .current_dir(&asked.cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    // SAFETY: two system calls, both async-signal-safe.
    unsafe { command.pre_exec(gaffer_shim::limit::restore) };
    if let Some(user) = &asked.user {
        command.uid(user.uid).gid(user.gid);
    }
    let status = command.status().await.map_err(|error| failed(in_words(&error)))?;
    if status.success() {
        Ok(format!("cmd {program}").into())
    } else {
        Err(failed(format!("ended with {status}")))
    }
}

/// Runs `stop.cmd` beside its run; at the end of the stop's timeout it is killed like the run itself.
pub(crate) fn run_beside(program: Program, timeout: Duration) {
    tokio::spawn(async move {
        let outcome = tokio::time::timeout(timeout, command(&program)).await;
        if let Ok(Err(text)) = outcome {
            tracing::warn!(%text, "stop.cmd");
        }
    });
}
