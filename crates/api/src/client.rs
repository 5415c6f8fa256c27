//! A client of the daemon over its unix socket, TCP or `ssh`.
//!
//! One kept connection is used again for request after request; a stream or a WebSocket takes a
//! connection of its own. A kept connection that the daemon has closed meanwhile is replaced once, unseen by
//! the caller, as long as the request had not left.

use crate::endpoint::Endpoint;
use crate::error::{ApiError, Code, ErrorBody};
use crate::tls::{Tls, TlsOptions};
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LINK};
use hyper::http::response;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
pub use tokio_tungstenite::tungstenite::Message;

/// Largest answer that is read into memory; streams have no bound of this kind.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Longest line of a stream.
const LINE_BYTES_MAX: usize = 1 << 20;

/// A connection of either kind.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A WebSocket to the daemon.
pub type WebSocket = tokio_tungstenite::WebSocketStream<Box<dyn Io>>;

/// A stream of items of which each may fail; it ends behind the first failure.
pub type ItemStream<T> = BoxStream<'static, Result<T, ClientError>>;

type Sender = SendRequest<Full<Bytes>>;

/// Why a request brought no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("no daemon answers at {endpoint}: {}", plain(source))]
    Unreachable {
        /// Where.
        endpoint: Endpoint,
        /// Why not.
        source: io::Error,
    },
    /// The daemon refused, with the HTTP status.
    #[error("{0}")]
    Api(Box<ApiError>, u16),
    /// What came back is not what the contract says.
    #[error("the daemon's answer cannot be understood: {0}")]
    Protocol(String),
}

impl ClientError {
    /// Exit code of a program that ends because of this: 69, the code of the error table, or 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            ClientError::Unreachable { .. } => 69,
            ClientError::Api(error, status) => match Code::from_word(&error.code) {
                Some(code) => code.exit(),
                None => exit_of_status(*status),
            },
            ClientError::Protocol(_) => 1,
        }
    }

    /// The code of the daemon's error, if it gave one that this version knows.
    pub fn code(&self) -> Option<Code> {
        match self {
            ClientError::Api(error, _) => Code::from_word(&error.code),
            _ => None,
        }
    }
}

/// `Connection refused (os error 111)` as people say it.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::NotFound => "no such socket".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Exit code for a status whose code word is unknown here: a newer daemon.
fn exit_of_status(status: u16) -> u8 {
    match status {
        400 | 405 | 413 | 422 => 2,
        404 => 3,
        409 | 412 => 4,
        401 | 403 => 5,
        _ => 1,
    }
}

/// Name of the header of credentials.
const AUTHORIZATION_NAME: &str = "authorization";

/// Talks to one daemon. Clones share the kept connection.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    token: Option<String>,
    tls: TlsOptions,
    /// Made of the options when it is first needed.
    made: OnceLock<Tls>,
    kept: Mutex<Option<Sender>>,
}

/// A request before it is sent: kept apart from hyper's type so that it can be sent twice.
struct Call {
    method: Method,
    path: String,
    accept: &'static str,
    body: Option<(&'static str, Bytes)>,
    headers: Vec<(&'static str, String)>,
    /// Headers of somebody else's request, which say themselves what is accepted and what the body is.
    passed: Option<Vec<(HeaderName, String)>>,
}

/// A request as somebody else made it, to be sent on with the credential of this client.
#[derive(Clone, Debug)]
pub struct RawCall {
    /// Method.
    pub method: Method,
    /// With the query, as it stands in a request.
    pub path: String,
    /// Headers; none of them is a credential.
    pub headers: Vec<(HeaderName, String)>,
    /// Body.
    pub body: Bytes,
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    /// Status, also of a refusal.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Call {
    fn new(method: Method, path: &str) -> Call {
        Call {
            method,
            path: path.to_owned(),
            accept: "application/json",
            body: None,
            headers: Vec::new(),
            passed: None,
        }
    }

    fn json<B: Serialize + ?Sized>(mut self, body: &B) -> Result<Call, ClientError> {
        let text = serde_json::to_vec(body).map_err(|error| ClientError::Protocol(error.to_string()))?;
        self.body = Some(("application/json", text.into()));
        Ok(self)
    }
}

impl Client {
    /// A client; connects with the first request. Over TLS it believes the authorities of the system.
    pub fn new(endpoint: Endpoint, token: Option<String>) -> Client {
        Client::with_tls(endpoint, token, TlsOptions::default())
    }

    /// A client that has authorities or a certificate of its own.
    pub fn with_tls(endpoint: Endpoint, token: Option<String>, tls: TlsOptions) -> Client {
        Client {
            inner: Arc::new(Inner {
                endpoint,
                token,
                tls,
                made: OnceLock::new(),
                kept: Mutex::new(None),
            }),
        }
    }

    /// Where it connects to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// GET of a JSON document.
    pub async fn get<T: DeserializeOwned>(&self, path_and_query: &str) -> Result<T, ClientError> {
        self.document(Call::new(Method::GET, path_and_query)).await
    }

    /// GET of a JSON document with credentials of its own.
    pub(crate) async fn get_as<T: DeserializeOwned>(
        &self,
        path: &str,
        authorization: String,
    ) -> Result<T, ClientError> {
        let mut call = Call::new(Method::GET, path);
        call.headers.push((AUTHORIZATION_NAME, authorization));
        self.document(call).await
    }

    /// GET of a JSON list, all pages of it.
    pub async fn get_list<T: DeserializeOwned>(&self, path_and_query: &str) -> Result<Vec<T>, ClientError> {
        let mut all = Vec::new();
        let mut next = Some(path_and_query.to_owned());
        while let Some(path) = next {
            let (head, body) = self.answer(Call::new(Method::GET, &path)).await?;
            all.extend(read::<Vec<T>>(&body)?);
            next = head.get(LINK).and_then(|link| next_link(link.to_str().ok()?));
        }
        Ok(all)
    }

    /// POST of a JSON body.
    pub async fn post<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        path_and_query: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.document(Call::new(Method::POST, path_and_query).json(body)?)
            .await
    }

    /// POST that the daemon carries out once, however often it arrives within ten minutes.
    pub async fn post_once<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        path_and_query: &str,
        body: &B,
        key: &str,
    ) -> Result<T, ClientError> {
        let mut call = Call::new(Method::POST, path_and_query).json(body)?;
        call.headers.push(("idempotency-key", key.to_owned()));
        self.document(call).await
    }

    /// POST of bytes.
    pub async fn post_bytes<T: DeserializeOwned>(
        &self,
        path_and_query: &str,
        bytes: Vec<u8>,
    ) -> Result<T, ClientError> {
        let mut call = Call::new(Method::POST, path_and_query);
        call.body = Some(("application/octet-stream", bytes.into()));
        self.document(call).await
    }

    /// PUT of a JSON body; `if_match` is the revision that is replaced.
    pub async fn put<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        path_and_query: &str,
        body: &B,
        if_match: Option<u64>,
    ) -> Result<T, ClientError> {
        let mut call = Call::new(Method::PUT, path_and_query).json(body)?;
        if let Some(revision) = if_match {
            call.headers.push(("if-match", format!("\"{revision}\"")));
        }
        self.document(call).await
    }

    /// DELETE.
    pub async fn delete<T: DeserializeOwned>(&self, path_and_query: &str) -> Result<T, ClientError> {
        self.document(Call::new(Method::DELETE, path_and_query)).await
    }

    /// GET of any text or bytes, read whole.
    pub async fn get_bytes(&self, path_and_query: &str) -> Result<(HeaderMap, Bytes), ClientError> {
        let mut call = Call::new(Method::GET, path_and_query);
        call.accept = "*/*";
        self.answer(call).await
    }

    /// GET of `application/jsonl`, item by item as they come; heartbeats (empty lines) are skipped.
    pub async fn stream_lines<T: DeserializeOwned + Send + 'static>(
        &self,
        path_and_query: &str,
    ) -> Result<ItemStream<T>, ClientError> {
        let mut call = Call::new(Method::GET, path_and_query);
        call.accept = "application/jsonl";
        let (_, body) = self.open_stream(call).await?;
        Ok(lines(body))
    }

    /// GET of bytes as they come, with the headers of the answer (`gaffer-offset`).
    pub async fn stream_bytes(
        &self,
        path_and_query: &str,
    ) -> Result<(HeaderMap, ItemStream<Bytes>), ClientError> {
        let mut call = Call::new(Method::GET, path_and_query);
        call.accept = "*/*";
        let (headers, body) = self.open_stream(call).await?;
        let stream = stream::try_unfold(body, |mut body| async move {
            loop {
                match body.frame().await {
                    None => return Ok(None),
                    Some(Err(error)) => {
                        return Err(ClientError::Protocol(format!("the stream broke off: {error}")));
                    }
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Ok(Some((data, body)));
                        }
                    }
                }
            }
        });
        Ok((headers, stream.boxed()))
    }

    /// Opens a WebSocket.
    pub async fn websocket(&self, path_and_query: &str) -> Result<WebSocket, ClientError> {
        use tokio_tungstenite::tungstenite::{Error, client::IntoClientRequest};
        let url = format!("ws://{}{path_and_query}", self.inner.endpoint.authority());
        let mut request = url
            .into_client_request()
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        if let Some(value) = self.bearer()? {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let io = self.connect().await?;
        match tokio_tungstenite::client_async(request, io).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(answer)) => {
                let status = answer.status().as_u16();
                Err(refusal(status, answer.body().as_deref().unwrap_or_default()))
            }
            Err(Error::Io(source)) => Err(self.unreachable(source)),
            Err(error) => Err(ClientError::Protocol(error.to_string())),
        }
    }

    /// Sends a request on; its answer may have so many bytes.
    pub async fn raw(&self, raw: RawCall, bytes_max: usize) -> Result<RawAnswer, ClientError> {
        let mut call = Call::new(raw.method, &raw.path);
        call.body = Some(("", raw.body));
        call.passed = Some(raw.headers);
        let (head, body) = self.answered(call, bytes_max).await?;
        Ok(RawAnswer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }

    async fn document<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let (_, body) = self.answer(call).await?;
        read(&body)
    }

    /// Sends and reads the whole answer; the connection is kept.
    async fn answer(&self, call: Call) -> Result<(HeaderMap, Bytes), ClientError> {
        let (head, body) = self.answered(call, ANSWER_BYTES_MAX).await?;
        match head.status.is_success() {
            true => Ok((head.headers, body)),
            false => Err(refusal(head.status.as_u16(), &body)),
        }
    }

    async fn answered(&self, call: Call, bytes_max: usize) -> Result<(response::Parts, Bytes), ClientError> {
        let (sender, response) = self.send(&call).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, bytes_max)
            .collect()
            .await
            .map_err(|error| ClientError::Protocol(format!("the answer broke off: {error}")))?
            .to_bytes();
        *self.inner.kept.lock().await = Some(sender);
        Ok((head, body))
    }

    /// Sends on a connection of its own and leaves the body to the caller.
    async fn open_stream(&self, call: Call) -> Result<(HeaderMap, Incoming), ClientError> {
        let mut sender = self.open().await?;
        let response = sender
            .send_request(self.request(&call)?)
            .await
            .map_err(|error| self.broken(error))?;
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            return Ok((head.headers, body));
        }
        let text = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map(|body| body.to_bytes());
        Err(refusal(head.status.as_u16(), &text.unwrap_or_default()))
    }

    async fn send(&self, call: &Call) -> Result<(Sender, Response<Incoming>), ClientError> {
        let kept = self.inner.kept.lock().await.take();
        if let Some(mut sender) = kept
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(self.request(call)?).await {
                Ok(response) => return Ok((sender, response)),
                // It never left: the daemon had closed the connection. Otherwise only looking may be repeated.
                Err(mut error) => {
                    if error.take_message().is_none() && call.method != Method::GET {
                        return Err(self.broken(error.into_error()));
                    }
                }
            }
        }
        let mut sender = self.open().await?;
        let response = sender
            .send_request(self.request(call)?)
            .await
            .map_err(|error| self.broken(error))?;
        Ok((sender, response))
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut builder = Request::builder()
            .method(call.method.clone())
            .uri(&call.path)
            .header(HOST, self.inner.endpoint.authority())
            // A form on a foreign page cannot send this header.
            .header("x-gaffer", "1");
        for (name, value) in &call.headers {
            builder = builder.header(*name, value);
        }
        match &call.passed {
            None => builder = builder.header(ACCEPT, call.accept),
            Some(passed) => {
                for (name, value) in passed {
                    builder = builder.header(name, value);
                }
            }
        }
        let has_own = call.headers.iter().any(|(name, _)| *name == AUTHORIZATION_NAME);
        if !has_own && let Some(value) = self.bearer()? {
            builder = builder.header(AUTHORIZATION, value);
        }
        let body = match &call.body {
            None => Bytes::new(),
            Some((kind, bytes)) => {
                if call.passed.is_none() {
                    builder = builder.header(CONTENT_TYPE, *kind);
                }
                bytes.clone()
            }
        };
        builder
            .body(Full::new(body))
            .map_err(|error| ClientError::Protocol(error.to_string()))
    }

    fn bearer(&self) -> Result<Option<HeaderValue>, ClientError> {
        let Some(token) = &self.inner.token else {
            return Ok(None);
        };
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
            ClientError::Protocol("the token has characters that no header can hold".to_owned())
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn open(&self) -> Result<Sender, ClientError> {
        let io = self.connect().await?;
        let (sender, connection) = http1::handshake(TokioIo::new(io))
            .await
            .map_err(|error| self.broken(error))?;
        // Ends with the sender; a failure shows in the request that it serves.
        tokio::spawn(async move {
            let _broken = connection.await;
        });
        Ok(sender)
    }

    async fn connect(&self) -> Result<Box<dyn Io>, ClientError> {
        let connected: io::Result<Box<dyn Io>> = match &self.inner.endpoint {
            Endpoint::Unix(path) => UnixStream::connect(path)
                .await
                .map(|io| Box::new(io) as Box<dyn Io>),
            Endpoint::Tcp(host, port) => tcp(host, *port).await.map(|io| Box::new(io) as Box<dyn Io>),
            Endpoint::Tls(host, port) => self.tls(host, *port).await,
            Endpoint::Ssh(target) => crate::ssh::connect(target)
                .await
                .map(|io| Box::new(io) as Box<dyn Io>),
        };
        connected.map_err(|source| self.unreachable(source))
    }

    async fn tls(&self, host: &str, port: u16) -> io::Result<Box<dyn Io>> {
        let tls = match self.inner.made.get() {
            Some(tls) => tls.clone(),
            None => {
                let tls = Tls::new(&self.inner.tls).map_err(io::Error::other)?;
                self.inner.made.get_or_init(|| tls).clone()
            }
        };
        Ok(Box::new(tls.connect(host, tcp(host, port).await?).await?))
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        ClientError::Unreachable {
            endpoint: self.inner.endpoint.clone(),
            source,
        }
    }

    fn broken(&self, error: hyper::Error) -> ClientError {
        if error.is_parse() {
            return ClientError::Protocol(error.to_string());
        }
        self.unreachable(io::Error::other(format!(
            "the connection ended before an answer came ({error})"
        )))
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let io = TcpStream::connect((host, port)).await?;
    // Small requests and answers follow each other: waiting for more to send only delays them.
    io.set_nodelay(true)?;
    Ok(io)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    // An empty answer (204) reads as null, which units and options accept.
    let text = if body.is_empty() { b"null" } else { body };
    serde_json::from_slice(text).map_err(|error| ClientError::Protocol(error.to_string()))
}

/// The error in a body, or one made of its status where a body is not ours.
pub fn refusal(status: u16, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error }) => ClientError::Api(Box::new(error), status),
        Err(_) => {
            if let Ok(of_old) = serde_json::from_slice::<OldError>(body) {
                return of_old.into_error(status);
            }
            let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
            ClientError::Protocol(format!(
                "status {status} without a known error: {}",
                text.escape_debug()
            ))
        }
    }
}

/// The form of an error on the routes of the original's API: a number or a word, and its reason.
#[derive(serde::Deserialize)]
struct OldError {
    error: serde_json::Value,
    reason: String,
}

impl OldError {
    /// It has no code word; its status says what it is.
    fn into_error(self, status: u16) -> ClientError {
        let error = ApiError {
            code: self
                .error
                .as_str()
                .map_or_else(|| self.error.to_string(), str::to_owned),
            message: self.reason,
            hint: None,
            details: Vec::new(),
            request: String::new(),
        };
        ClientError::Api(Box::new(error), status)
    }
}

/// The target of `rel="next"` in a `Link` header.
pub fn next_link(text: &str) -> Option<String> {
    text.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        parameters.contains("rel=\"next\"").then(|| target.to_owned())
    })
}

/// Splits a body into lines and reads each as JSON.
fn lines<T: DeserializeOwned + Send + 'static>(body: Incoming) -> ItemStream<T> {
    let state = (body, Vec::<u8>::new());
    stream::try_unfold(state, |(mut body, mut pending)| async move {
        loop {
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let rest = pending.split_off(end + 1);
                let line = std::mem::replace(&mut pending, rest);
                if !line.trim_ascii().is_empty() {
                    return read(&line).map(|item| Some((item, (body, pending))));
                }
            }
            if pending.len() > LINE_BYTES_MAX {
                return Err(ClientError::Protocol(
                    "a line of the stream is too long".to_owned(),
                ));
            }
            match body.frame().await {
                None if pending.trim_ascii().is_empty() => return Ok(None),
                None => {
                    return Err(ClientError::Protocol("the stream ends within a line".to_owned()));
                }
                Some(Err(error)) => {
                    return Err(ClientError::Protocol(format!("the stream broke off: {error}")));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        pending.extend_from_slice(&data);
                    }
                }
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_the_link_header() {
        let link = "</v1/jobs?cursor=a>; rel=\"first\", </v1/jobs?cursor=b>; rel=\"next\"";
        assert_eq!(next_link(link).as_deref(), Some("/v1/jobs?cursor=b"));
        assert_eq!(next_link("</x>; rel=\"prev\""), None);
    }

    #[test]
    fn every_refusal_has_an_exit_code_also_from_a_newer_daemon() {
        let newer = br#"{"error":{"code":"brand-new","message":"no"}}"#;
        assert_eq!(refusal(404, newer).exit_code(), 3);
        let ours = br#"{"error":{"code":"plan-stale","message":"no"}}"#;
        assert_eq!(refusal(409, ours).exit_code(), 4);
        assert_eq!(refusal(502, b"<html>").exit_code(), 1);
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_exit_69() {
        let client = Client::new(Endpoint::Unix("/nonexistent/gaffer.sock".into()), None);
        let error = client.get::<()>("/v1/node").await.expect_err("nobody is there");
        assert_eq!(error.exit_code(), 69);
        assert_eq!(
            error.to_string(),
            "no daemon answers at /nonexistent/gaffer.sock: no such socket"
        );
    }
}
