//! One POST: a connection of its own, all of it within one timeout, nothing followed, little read.

use gaffer_api::tls::{Tls, TlsOptions};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What is read of an answer, and thrown away.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Posts JSON; the status of the answer, or why there is none.
pub async fn post(
    url: &str,
    headers: &[(String, String)],
    body: String,
    within: Duration,
) -> Result<u16, String> {
    match tokio::time::timeout(within, exchange(url, headers, body)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!(
            "no answer within {}",
            gaffer_config::format_duration(within)
        )),
    }
}

async fn exchange(url: &str, headers: &[(String, String)], body: String) -> Result<u16, String> {
    let uri: Uri = url.parse().map_err(|_| "the URL cannot be read".to_owned())?;
    let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
        return Err("the URL names no host".to_owned());
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::post(path)
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("gafferd/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| "a header has a value that cannot be sent".to_owned())?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((bare, port))
        .await
        .map_err(|error| format!("cannot connect to {authority}: {}", plain(&error)))?;
    if !secure {
        return send(stream, request).await;
    }
    let stream = tls().await?.connect(bare, stream).await;
    let stream = stream.map_err(|error| format!("no secure connection to {authority}: {error}"))?;
    send(stream, request).await
}

/// The system's authorities (or those of `$SSL_CERT_FILE`), read once, when they are needed first.
async fn tls() -> Result<Tls, String> {
    static KNOWN: OnceLock<Tls> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known.clone());
    }
    let made = tokio::task::spawn_blocking(|| Tls::new(&TlsOptions::default())).await;
    let made = made.map_err(|_| "the authorities of this system cannot be read".to_owned())?;
    let made = made.map_err(|error| error.to_string())?;
    Ok(KNOWN.get_or_init(|| made).clone())
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<u16, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |error: hyper::Error| match error.is_incomplete_message() {
        true => "the receiver closed the connection without an answer".to_owned(),
        false => format!("the exchange with the receiver failed: {error}"),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status().as_u16();
        // What it says does not matter, only that it may be said.
        let _said = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok(status)
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    let mut open = true;
    loop {
        tokio::select! {
            outcome = &mut exchange => return outcome,
            _ended = &mut connection, if open => open = false,
        }
    }
}

fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}
