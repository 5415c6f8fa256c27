//! TLS to the database: asked for by `sslmode` of the URL, and then verified in any case.
//!
//! | `sslmode` | |
//! |---|---|
//! | not said, `disable`, `allow`, `prefer` | no TLS |
//! | `require`, `verify-ca`, `verify-full` | TLS; the certificate is of an authority that is trusted, and names the host |
//!
//! `sslrootcert=FILE` names the authorities, instead of the system's. (libpq verifies nothing with `require`, which is no use against
//! whoever can stand in between.)

use crate::port::StoreError;
use percent_encoding::percent_decode_str;
use rustls_native_certs::load_native_certs;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A database: where it is, and how the way there is protected.
#[derive(Clone)]
pub(super) struct Target {
    pub config: tokio_postgres::Config,
    pub tls: Tls,
}

/// None: not at all.
#[derive(Clone)]
pub(super) struct Tls(Option<TlsConnector>);

/// What a URL says. An error is a sentence.
pub(super) fn target(url: &str) -> Result<Target, StoreError> {
    let wrong = |why: String| StoreError::Unavailable(format!("its URL: {why}"));
    let (rest, mode, roots) = taken_apart(url);
    let is_on = match mode.as_deref() {
        None | Some("disable" | "allow" | "prefer") => false,
        Some("require" | "verify-ca" | "verify-full") => true,
        Some(other) => {
            let known = "disable, require or verify-full";
            return Err(wrong(format!("sslmode={other} is none of {known}")));
        }
    };
    if roots.is_some() && !is_on {
        return Err(wrong(
            "sslrootcert without TLS: add sslmode=verify-full".to_owned(),
        ));
    }
    let config: Result<tokio_postgres::Config, _> = rest.parse();
    let mut config = config.map_err(|error| wrong(super::words(&error)))?;
    config.ssl_mode(if is_on { SslMode::Require } else { SslMode::Disable });
    let tls = match is_on {
        false => Tls(None),
        true => Tls(Some(connector(roots.as_deref()).map_err(wrong)?)),
    };
    Ok(Target { config, tls })
}

/// The URL without what is said about TLS; `sslmode`; `sslrootcert`.
fn taken_apart(url: &str) -> (String, Option<String>, Option<String>) {
    let Some((before, words)) = url.split_once('?') else {
        return (url.to_owned(), None, None);
    };
    let (mut mode, mut roots, mut rest) = (None, None, Vec::new());
    for word in words.split('&') {
        match word.split_once('=') {
            Some(("sslmode", value)) => mode = Some(decoded(value)),
            Some(("sslrootcert", value)) => roots = Some(decoded(value)),
            _ => rest.push(word),
        }
    }
    match rest.is_empty() {
        true => (before.to_owned(), mode, roots),
        false => (format!("{before}?{}", rest.join("&")), mode, roots),
    }
}

/// `%2F` is `/`.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn connector(roots: Option<&str>) -> Result<TlsConnector, String> {
    let mut trusted = RootCertStore::empty();
    match roots {
        Some(file) => {
            let of_file = |why: &dyn std::fmt::Display| format!("sslrootcert {file}: {why}");
            let found = CertificateDer::pem_file_iter(Path::new(file)).map_err(|error| of_file(&error))?;
            for certificate in found {
                let certificate = certificate.map_err(|error| of_file(&error))?;
                trusted.add(certificate).map_err(|error| of_file(&error))?;
            }
            if trusted.is_empty() {
                return Err(of_file(&"there is no certificate in it"));
            }
        }
        None => drop(trusted.add_parsable_certificates(load_native_certs().certs)),
    }
    if trusted.is_empty() {
        let why = "this system has no list of authorities (on Debian: the package ca-certificates): name one, sslrootcert=FILE";
        return Err(why.to_owned());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let config = builder.with_root_certificates(trusted).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// For one host.
pub(super) struct ToHost {
    tls: Tls,
    host: String,
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Stream;
    type TlsConnect = ToHost;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<ToHost, io::Error> {
        Ok(ToHost {
            tls: self.clone(),
            host: host.to_owned(),
        })
    }
}

impl TlsConnect<Socket> for ToHost {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let Tls(Some(connector)) = self.tls else {
                return Err(io::Error::other("no TLS was asked for"));
            };
            let name = ServerName::try_from(self.host.clone());
            let name = name.map_err(|_| {
                io::Error::other(format!(
                    "`{}` is no name that a certificate could have",
                    self.host
                ))
            })?;
            connector.connect(name, socket).await.map(Stream)
        })
    }
}

/// What is said through TLS.
pub(super) struct Stream(tokio_rustls::client::TlsStream<Socket>);

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        match target(url) {
            Ok(_) => panic!("{url} was taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_a_url_says_of_tls_is_understood_or_refused_in_words() {
        let parts =
            taken_apart("postgres://a@b/c?connect_timeout=3&sslmode=verify-full&sslrootcert=%2Fa%20b.pem");
        let expected = (
            "postgres://a@b/c?connect_timeout=3",
            Some("verify-full"),
            Some("/a b.pem"),
        );
        assert_eq!((&*parts.0, parts.1.as_deref(), parts.2.as_deref()), expected);
        assert_eq!(
            taken_apart("postgres://a@b/c?sslmode=require").0,
            "postgres://a@b/c"
        );
        for url in ["postgres://a@b/c", "postgres://a@b/c?sslmode=disable"] {
            assert!(target(url).is_ok_and(|target| target.tls.0.is_none()), "{url}");
        }
        assert!(refused("postgres://a@b/c?sslmode=always").contains("sslmode=always is none of"));
        assert!(refused("postgres://a@b/c?sslrootcert=/x").contains("add sslmode=verify-full"));
        let missing = refused("postgres://a@b/c?sslmode=require&sslrootcert=/nonexistent.pem");
        assert!(missing.contains("sslrootcert /nonexistent.pem: "), "{missing}");
    }
}
