//! Which daemon a command talks to, and what it says when there is none.
//!
//! Order: `--url`, `--socket`, their variables, then the control socket of this user. Nothing here starts a daemon.

use crate::args::Globals;
use crate::credentials;
use crate::failure::Failure;
use gaffer_api::tls::TlsOptions;
use gaffer_api::{Client, ClientError, Endpoint};
use std::path::{Path, PathBuf};

/// Exit code without a daemon.
pub const EXIT_UNREACHABLE: u8 = 69;

/// The daemon's control socket where nothing else is said: the same rule as the daemon's own.
pub fn default_socket() -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    if uid == 0 {
        return PathBuf::from("/run/gaffer/gaffer.sock");
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => PathBuf::from(dir).join("gaffer/gaffer.sock"),
        None => PathBuf::from(format!("/tmp/gaffer-{uid}/gaffer.sock")),
    }
}

/// Where the options say the daemon is.
pub fn endpoint(globals: &Globals) -> Result<Endpoint, Failure> {
    // A socket named on the command line wins over a URL of the environment.
    let socket_typed = globals.socket.is_some() && std::env::var_os("GAFFER_SOCKET").is_none();
    if let Some(url) = globals
        .url
        .as_deref()
        .filter(|url| !url.is_empty() && !socket_typed)
    {
        return Endpoint::parse(url).map_err(|error| {
            Failure::usage(error.to_string())
                .hint("write http://HOST:PORT, https://HOST:PORT, ssh://USER@HOST or unix:PATH")
        });
    }
    Ok(Endpoint::Unix(
        globals.socket.clone().unwrap_or_else(default_socket),
    ))
}

/// A client for it; connects with the first request.
pub fn client(globals: &Globals) -> Result<Client, Failure> {
    client_with(globals, None)
}

/// The same, which shows this credential. None: that of the options, of `$GAFFER_TOKEN`, or of a login.
pub fn client_with(globals: &Globals, credential: Option<String>) -> Result<Client, Failure> {
    let typed = match credential {
        None => token(globals)?,
        credential => credential,
    };
    client_at(globals, endpoint(globals)?, typed)
}

/// A client for another daemon: with this credential, else with that of a login there.
pub fn client_at(globals: &Globals, endpoint: Endpoint, token: Option<String>) -> Result<Client, Failure> {
    client_of(globals, endpoint, token, None)
}

/// The same, for a daemon whose certificate is of these authorities unless an option names others.
pub fn client_of(
    globals: &Globals,
    endpoint: Endpoint,
    token: Option<String>,
    ca: Option<PathBuf>,
) -> Result<Client, Failure> {
    let typed = &globals.credentials;
    let (stored, folder) = credentials::find(&endpoint)?;
    let token = token.or_else(|| stored.key.clone());
    let kept = stored.tls(&folder);
    // A certificate and its key belong together.
    let (cert, key) = match &typed.certfile {
        Some(cert) => (Some(cert.clone()), typed.keyfile.clone()),
        None => (kept.cert, typed.keyfile.clone().or(kept.key)),
    };
    let tls = TlsOptions {
        ca: typed.cacert.clone().or(ca).or(kept.ca),
        cert,
        key,
    };
    Ok(Client::with_tls(endpoint, token, tls))
}

/// The credential that the options or the environment name.
pub fn token(globals: &Globals) -> Result<Option<String>, Failure> {
    let token = match (&globals.credentials.token_file, &globals.credentials.api_key) {
        (Some(path), _) => token_in(path)?,
        (None, Some(key)) => Some(key.clone()),
        (None, None) => std::env::var("GAFFER_TOKEN").ok(),
    };
    Ok(token.filter(|token| !token.is_empty()))
}

/// The token in a file.
pub fn token_in(path: &Path) -> Result<Option<String>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))?;
    Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty()))
}

/// Asks a daemon to end: `stop`, `stop-all` or `leave`. The answer comes before the end.
pub async fn shutdown(client: &Client, mode: &str) -> Result<(), ClientError> {
    let body = serde_json::json!({ "mode": mode });
    client
        .post::<_, serde_json::Value>("/v1/node/shutdown", &body)
        .await
        .map(drop)
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let exit = error.exit_code();
        match error {
            ClientError::Unreachable { ref endpoint, .. } => {
                unreachable_daemon(endpoint, &crate::escape::escape(&error.to_string()))
            }
            ClientError::Api(api, _) => {
                let mut failure = Failure::new(exit, crate::escape::escape(&api.message).into_owned());
                failure.hints.extend(api.hint);
                let rendered: Vec<&str> = api
                    .details
                    .iter()
                    .filter_map(|detail| detail.rendered.as_deref())
                    .collect();
                if !rendered.is_empty() {
                    failure.rendered = Some(diagnostics(&rendered));
                } else {
                    failure.hints.extend(api.details.iter().map(detail_line));
                }
                failure
            }
            ClientError::Protocol(text) => {
                Failure::new(exit, format!("the daemon's answer cannot be used: {text}"))
            }
        }
    }
}

/// Diagnostics that the daemon rendered, and the sentence under them.
fn diagnostics(rendered: &[&str]) -> String {
    let mut text = String::new();
    for diagnostic in rendered {
        text.push_str(diagnostic.trim_end());
        text.push('\n');
    }
    let plural = if rendered.len() == 1 { "" } else { "s" };
    text.push_str(&format!(
        "{} error{plural}; nothing was changed\n",
        rendered.len()
    ));
    text
}

fn detail_line(detail: &gaffer_api::error::Detail) -> String {
    let place = match (&detail.file, detail.line, detail.column) {
        (Some(file), Some(line), Some(column)) => format!("{file}:{line}:{column}: "),
        _ => detail
            .path
            .as_ref()
            .map(|path| format!("{path}: "))
            .unwrap_or_default(),
    };
    let hint = detail
        .hint
        .as_ref()
        .map(|hint| format!("; {hint}"))
        .unwrap_or_default();
    format!("{place}{}{hint}", detail.message)
}

/// ux.md §5, last sketches: what it means, and the two ways out.
fn unreachable_daemon(endpoint: &Endpoint, message: &str) -> Failure {
    let failure = Failure::new(EXIT_UNREACHABLE, message.to_owned());
    // Whoever named an address is not helped by a daemon that listens elsewhere.
    if !matches!(endpoint, Endpoint::Unix(_)) {
        return failure.hint_pair(
            "is the address right? --url, GAFFER_URL",
            "there:  gaffer daemon status",
        );
    }
    let failure = failure.hint("jobs it started may still be running; a new daemon will take charge of them");
    let here = crate::file::find(None);
    match here {
        Some(_) => failure.hint_pair(
            "start it:  gaffer daemon start",
            "run this file here:  gaffer start",
        ),
        None => failure.hint("start it:  gaffer daemon start"),
    }
}
