//! Listeners and the life of `gaffer-lookupd`: bind, serve, end on a signal. There is nothing to save.

use crate::background::{self, Side, Waiter};
use crate::journal;
use crate::listen::{self, Access, Bind, ListenError};
use crate::lookup::http::{SOCKETS_MAX, Service, Shared, answer, router};
use crate::lookup::options::{self, BindError, Options};
use crate::lookup::registry::Registry;
use crate::pidfile::{self, PidFile, PidFileError};
use crate::sink::Sink;
use crate::writer;
use axum::Router;
use gaffer_api::tls::TlsError;
use gaffer_config::TlsFiles;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

/// Longest header.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// From the first byte of a connection, or the end of a request, to the end of the next header.
const HEADER_TIME_MAX: Duration = Duration::from_secs(10);

/// Connections at once, of all kinds, if descriptors allow.
const CONNECTIONS_MAX: u64 = 4_096;

/// How long goodbyes may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Options.
    #[error("{0}")]
    Bind(#[from] BindError),
    /// Listening.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// The certificate.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The pid file.
    #[error("{0}")]
    PidFile(#[from] PidFileError),
    /// The log.
    #[error("{0}")]
    Log(String),
    /// The operating system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl ServiceError {
    /// 2: wrong usage; 1: anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            ServiceError::Bind(_) => 2,
            _ => 1,
        }
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ServiceError {
    move |source| ServiceError::System { what, source }
}

/// The whole program.
pub fn run(options: &Options) -> Result<u8, ServiceError> {
    let tls = tls_of(options)?;
    let binds = options::binds(&options.bind, options.insecure || tls.is_some())?;
    if let Some(path) = &options.pidfile {
        pidfile::refuse_second(path)?;
    }
    // What cannot be raised is as it is.
    let _raised = gaffer::raise_open_files();
    let waiter = match options.daemon {
        false => None,
        true => match background::split().map_err(system("cannot go to the background"))? {
            Side::Foreground(code) => return Ok(code),
            Side::Background(waiter) => Some(waiter),
        },
    };
    let level = match options.verbose {
        0 => tracing::Level::INFO,
        1 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    let sink = Sink::open("stderr").map_err(ServiceError::Log)?;
    journal::begin(level, sink).map_err(system("the log cannot be written"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("the runtime cannot be made"))?;
    let mut waiter = waiter;
    let lived = runtime.block_on(live(options, &binds, tls, &mut waiter));
    writer::flush();
    match (waiter, lived) {
        (Some(waiter), Err(error)) => {
            let code = error.exit_code();
            writer::say(format!("error: {error}"));
            writer::flush();
            waiter.failed(code);
            Ok(code)
        }
        (_, lived) => lived.map(|()| 0),
    }
}

/// What HTTPS is spoken with, if it is.
fn tls_of(options: &Options) -> Result<Option<Arc<ServerConfig>>, ServiceError> {
    let (Some(cert), Some(key)) = (&options.certfile, &options.keyfile) else {
        return Ok(None);
    };
    let files = TlsFiles {
        cert: cert.clone(),
        key: key.clone(),
        client_ca: options.cacert.clone(),
    };
    Ok(Some(crate::tls::config(&files)?))
}

async fn live(
    options: &Options,
    binds: &[Bind],
    tls: Option<Arc<ServerConfig>>,
    waiter: &mut Option<Waiter>,
) -> Result<(), ServiceError> {
    let watched = system("signals cannot be watched");
    let signals = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::quit(),
        SignalKind::hangup(),
    ];
    let [mut term, mut int, mut quit, mut hup] = match signals.map(signal) {
        [Ok(term), Ok(int), Ok(quit), Ok(hup)] => [term, int, quit, hup],
        _ => return Err(watched(io::Error::last_os_error())),
    };
    let (closing_tx, closing) = watch::channel(false);
    let service: Shared = Arc::new(Service {
        registry: Arc::new(Registry::default()),
        silent_after: options.silent_after,
        allow_hosts: options.allow_host.clone(),
        allow_origins: options.allow_origin.clone(),
        host: host_name(),
        sockets: Arc::new(Semaphore::new(SOCKETS_MAX)),
        closing,
    });
    let mut addresses = Vec::new();
    let limit = Arc::new(Semaphore::new(connections_max()));
    let router = router(service.clone());
    for bind in binds {
        let listener = Listener::open(bind, options, tls.clone())?;
        addresses.push(listener.shown.clone());
        tokio::spawn(listener.serve(service.clone(), router.clone(), limit.clone()));
    }
    let _pidfile = options.pidfile.as_deref().map(PidFile::write).transpose()?;
    let line = format!(
        "gaffer-lookupd ready pid={} listen={}",
        std::process::id(),
        addresses.join(",")
    );
    writer::say(line);
    writer::flush();
    if let Some(waiter) = waiter.take() {
        waiter
            .ready(std::path::Path::new("/dev/null"))
            .map_err(system("cannot go to the background"))?;
    }
    let by = loop {
        tokio::select! {
            _ = term.recv() => break "SIGTERM",
            _ = int.recv() => break "SIGINT",
            _ = quit.recv() => break "SIGQUIT",
            _ = hup.recv() => {}
        }
    };
    tracing::info!(by, "lookup.stopping");
    closing_tx.send_replace(true);
    // WebSockets have one permit each: with all of them nobody is left.
    let all = u32::try_from(SOCKETS_MAX).unwrap_or(u32::MAX);
    let _late = tokio::time::timeout(GOODBYE, service.sockets.acquire_many(all)).await;
    Ok(())
}

/// Name of this machine.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn connections_max() -> usize {
    let soft = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(u64::MAX);
    usize::try_from(soft.saturating_sub(64).clamp(16, CONNECTIONS_MAX)).unwrap_or(16)
}

struct Listener {
    /// None: plain HTTP.
    tls: Option<Arc<ServerConfig>>,
    socket: Socket,
    shown: String,
    /// How long a client may take nothing of what is sent to it.
    unread_max: Duration,
}

enum Socket {
    Tcp(TcpListener),
    Unix(listen::ControlSocket),
}

impl Listener {
    fn open(
        bind: &Bind,
        options: &Options,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Listener, ServiceError> {
        Ok(match bind {
            Bind::Tcp(address) => {
                let listener = listen::tcp(*address, options.backlog)?;
                let bound = listener
                    .local_addr()
                    .map_err(system("a listener has no address"))?;
                Listener {
                    tls,
                    socket: Socket::Tcp(listener),
                    shown: bound.to_string(),
                    unread_max: options.silent_after,
                }
            }
            Bind::Unix(path) => Listener {
                tls: None,
                socket: Socket::Unix(listen::unix(path, &Access::default())?),
                shown: format!("unix:{}", path.display()),
                unread_max: options.silent_after,
            },
        })
    }

    async fn serve(self, service: Shared, router: Router, limit: Arc<Semaphore>) {
        let mut pause = Duration::from_millis(10);
        loop {
            // The permit comes first: what we cannot serve stays in the backlog.
            let Ok(permit) = limit.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = service.closed() => return,
            };
            match accepted {
                Ok((stream, ends)) => {
                    pause = Duration::from_millis(10);
                    let (service, router, tls) = (service.clone(), router.clone(), self.tls.clone());
                    tokio::spawn(async move {
                        if let Some(stream) = secured(stream, tls).await {
                            connection(service, router, stream, ends).await;
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(error = %error, "accept.failed");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<(Accepted, Ends)> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                // Small answers follow small requests: holding them back only delays.
                let _still_works = stream.set_nodelay(true);
                let _lives_longer = listen::end_unread(&stream, self.unread_max);
                let ends = Ends {
                    local: stream.local_addr().ok(),
                    from: Some(from),
                };
                (Accepted::Tcp(stream), ends)
            }
            Socket::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                (Accepted::Unix(stream), Ends::default())
            }
        })
    }
}

/// A connection before anything was said.
enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Shakes hands where HTTPS is spoken; none: it was not TLS, or not with us, or took too long.
async fn secured(accepted: Accepted, tls: Option<Arc<ServerConfig>>) -> Option<Box<dyn Io>> {
    let stream = match accepted {
        Accepted::Unix(stream) => return Some(Box::new(stream)),
        Accepted::Tcp(stream) => stream,
    };
    match tls {
        None => Some(Box::new(stream)),
        Some(config) => {
            let hands = crate::tls::accept(config, stream);
            let stream = tokio::time::timeout(HEADER_TIME_MAX, hands).await.ok()??;
            Some(Box::new(stream))
        }
    }
}

/// Both ends of a TCP connection.
#[derive(Clone, Copy, Default)]
struct Ends {
    local: Option<SocketAddr>,
    from: Option<SocketAddr>,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

async fn connection(service: Shared, router: Router, stream: Box<dyn Io>, ends: Ends) {
    let guard = Arc::new(service.guard(ends.local));
    let one = service_fn(move |request| {
        let (guard, router) = (guard.clone(), router.clone());
        async move { Ok::<_, Infallible>(answer(&guard, router, ends.from, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), one)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // How a connection ends is the client's affair.
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = service.closed() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ended = tokio::time::timeout(GOODBYE, connection).await;
}
