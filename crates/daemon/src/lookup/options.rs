//! What can be said on the command line of `gaffer-lookupd`, and the addresses it takes.

use crate::listen::Bind;
use clap::Parser;
use gaffer_api::lookup::DEFAULT_PORT;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The look-up service: nodes tell it what they run, and whoever looks for a job asks it where it is.
///
/// It keeps nothing on disk, and has no authority: it says where nodes claim to be.
#[derive(Debug, Parser)]
#[command(
    name = "gaffer-lookupd",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  gaffer-lookupd                                       on 127.0.0.1:5010
  gaffer-lookupd --bind 10.0.0.7:5010 --certfile lookup.pem --keyfile lookup.key
  gaffer-lookupd --bind 10.0.0.7:5010 --insecure       for a network that you trust
  gaffer-lookupd --bind unix:/run/gaffer/lookup.sock

Nodes name it in gaffer.toml: [gaffer] lookup = [\"http://10.0.0.7:5010\"]. Two of them need not know each other:
every node tells both. Signals: TERM, INT and QUIT end it, HUP is ignored."
)]
pub struct Options {
    /// Where to listen, repeatable: HOST:PORT (port 0: a free one) or unix:PATH [default: 127.0.0.1:5010]
    #[arg(long, value_name = "ADDR")]
    pub bind: Vec<String>,

    /// Connections that wait to be accepted
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub backlog: u32,

    /// Listen also where other machines reach it without TLS: whoever reaches it sees what runs, and can claim to be a node
    #[arg(long)]
    pub insecure: bool,

    /// PEM file of the certificate and its chain: HTTPS and WSS on all TCP addresses
    #[arg(long, value_name = "FILE", requires = "keyfile")]
    pub certfile: Option<PathBuf>,

    /// PEM file of the private key
    #[arg(long, value_name = "FILE", requires = "certfile")]
    pub keyfile: Option<PathBuf>,

    /// PEM file of authorities: only who has a certificate of one of them may connect
    #[arg(long, value_name = "FILE", requires = "certfile")]
    pub cacert: Option<PathBuf>,

    /// Further name by which clients may call it (Host header), repeatable
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,

    /// Origin of web pages that may read it (CORS), repeatable; none unless said
    #[arg(long, value_name = "URL")]
    pub allow_origin: Vec<String>,

    /// A node that says nothing for so long is gone, and so is a watcher that reads nothing
    #[arg(long, value_name = "D", default_value = "45s", value_parser = duration)]
    pub silent_after: Duration,

    /// Go to the background once it serves
    #[arg(long)]
    pub daemon: bool,

    /// Write the process id to this file, and remove it at the end
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,

    /// More in the log
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// `45s`, `500ms`, `2m`; at least 300 ms.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = gaffer_config::parse_duration(text).map_err(|error| error.to_string())?;
    if duration < Duration::from_millis(300) {
        return Err("less than 300ms would drop nodes that are there".to_owned());
    }
    Ok(duration)
}

/// Why an address is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BindError {
    /// Not an address.
    #[error("`{0}` is not an address to listen at; write 127.0.0.1:5010, [::1]:5010 or unix:/PATH")]
    NotAnAddress(String),
    /// Other machines would reach it.
    #[error(
        "cannot listen at {0}: other machines reach it there, and it would answer all of them without TLS; give it a certificate \
         (--certfile, --keyfile), say --insecure if you trust that network, or use 127.0.0.1"
    )]
    Open(SocketAddr),
}

/// Where to listen. An empty host is every address, a missing port 5010.
/// With TLS every address will do.
pub fn binds(texts: &[String], insecure: bool) -> Result<Vec<Bind>, BindError> {
    if texts.is_empty() {
        return Ok(vec![Bind::Tcp(SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)))]);
    }
    texts.iter().map(|text| bind(text, insecure)).collect()
}

fn bind(text: &str, insecure: bool) -> Result<Bind, BindError> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.strip_prefix("//").unwrap_or(path) {
            "" => Err(BindError::NotAnAddress(text.to_owned())),
            path => Ok(Bind::Unix(PathBuf::from(path))),
        };
    }
    let address = address(text).ok_or_else(|| BindError::NotAnAddress(text.to_owned()))?;
    match insecure || address.ip().to_canonical().is_loopback() {
        true => Ok(Bind::Tcp(address)),
        false => Err(BindError::Open(address)),
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    if text.is_empty() {
        return None;
    }
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(ip) = bare.unwrap_or(text).parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, DEFAULT_PORT));
    }
    let (host, port) = text.split_once(':').unwrap_or((text, "5010"));
    let ip = match host {
        "localhost" => Ipv4Addr::LOCALHOST,
        "" => Ipv4Addr::UNSPECIFIED,
        _ => return None,
    };
    Some(SocketAddr::new(ip.into(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s13_2_addresses_have_the_forms_of_the_original() {
        let tcp = |text: &str| Ok(Bind::Tcp(text.parse().expect("an address")));
        for (text, address) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1", "127.0.0.1:5010"),
            ("localhost:7", "127.0.0.1:7"),
            ("[::1]", "[::1]:5010"),
            (":5010", "0.0.0.0:5010"),
        ] {
            assert_eq!(bind(text, true), tcp(address), "{text}");
        }
        assert_eq!(bind("unix:/run/x", false), Ok(Bind::Unix("/run/x".into())));
        assert_eq!(bind("unix:///run/x", false), Ok(Bind::Unix("/run/x".into())));
        for text in ["", "unix:", "host:1", "1:2:3", "localhost:x"] {
            let refused = bind(text, true);
            assert!(
                matches!(refused, Err(BindError::NotAnAddress(_))),
                "{text}: {refused:?}"
            );
        }
    }

    #[test]
    fn hazard_b1_other_machines_reach_it_only_if_that_was_said() {
        for text in ["0.0.0.0:5010", ":5010", "[::]:5010", "10.0.0.7"] {
            assert!(matches!(bind(text, false), Err(BindError::Open(_))), "{text}");
            assert!(bind(text, true).is_ok(), "{text}");
        }
    }
}
