//! TLS of clients: whom to believe, and what to show.
//!
//! Certificates and names are always checked. Without a file of authorities those of the system count.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What a client's TLS is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// PEM file of the authorities that are believed, instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM file of the client's own certificate and its chain.
    pub cert: Option<PathBuf>,
    /// PEM file of its private key; none: in the same file.
    pub key: Option<PathBuf>,
}

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or has not what it should.
    #[error("{}: {why}", path.display())]
    File {
        /// File.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The parts do not go together.
    #[error("{0}")]
    Wrong(String),
}

/// Makes TLS connections. Cheap to clone.
#[derive(Clone)]
pub struct Tls(TlsConnector);

impl Tls {
    /// Reads the files.
    pub fn new(options: &TlsOptions) -> Result<Tls, TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Wrong(error.to_string()))?
            .with_root_certificates(roots(options.ca.as_deref())?);
        let config = match &options.cert {
            None if options.key.is_some() => {
                return Err(TlsError::Wrong(
                    "a private key is of no use without its certificate".to_owned(),
                ));
            }
            None => builder.with_no_client_auth(),
            Some(cert) => builder
                .with_client_auth_cert(
                    certificates(cert)?,
                    private_key(options.key.as_deref().unwrap_or(cert))?,
                )
                .map_err(|error| TlsError::Wrong(format!("{}: {error}", cert.display())))?,
        };
        Ok(Tls(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands with the host of this name or address at the other end.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::other(format!("`{host}` is no name of a host")))?;
        self.0.connect(name, stream).await
    }
}

/// Authorities of a file, or the system's.
fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| file(path, &error))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    if roots.is_empty() {
        let why = "this system has no list of authorities (on Debian: the package ca-certificates): name one";
        return Err(TlsError::Wrong(why.to_owned()));
    }
    Ok(roots)
}

/// All certificates of a PEM file, at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| file(path, &error))?
        .collect();
    match found {
        Ok(found) if found.is_empty() => Err(file(path, &"there is no certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(file(path, &error)),
    }
}

/// The private key in a PEM file.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| file(path, &error))
}

fn file(path: &Path, why: &dyn std::fmt::Display) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_missing_or_no_certificates_are_named() {
        let missing = TlsOptions {
            ca: Some("/nonexistent/ca.pem".into()),
            ..TlsOptions::default()
        };
        let error = Tls::new(&missing).err().expect("refused").to_string();
        assert!(error.starts_with("/nonexistent/ca.pem: "), "{error}");
        let none = TlsOptions {
            ca: Some("/dev/null".into()),
            ..TlsOptions::default()
        };
        let error = Tls::new(&none).err().expect("refused").to_string();
        assert!(error.contains("no certificate"), "{error}");
    }
}
