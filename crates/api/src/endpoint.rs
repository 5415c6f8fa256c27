//! Where a daemon answers: a unix socket, host and port, or a machine that `ssh` reaches.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Address of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Path of its control socket.
    Unix(PathBuf),
    /// Host (name or address, without brackets) and port.
    Tcp(String, u16),
    /// The same over TLS.
    Tls(String, u16),
    /// Its control socket, through a login on its machine.
    Ssh(SshTarget),
}

/// A login that `ssh` can make, and the control socket there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshTarget {
    /// None: what `ssh` takes.
    pub user: Option<String>,
    /// Name, address or alias of its configuration; without brackets, never with a `-` in front.
    pub host: String,
    /// None: what `ssh` takes.
    pub port: Option<u16>,
    /// None: where the login's own `gaffer` looks.
    pub socket: Option<PathBuf>,
}

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address of a daemon: {why}")]
pub struct EndpointError {
    /// As given.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Port of the daemon where an address names none.
pub const DEFAULT_PORT: u16 = 5000;

impl Endpoint {
    /// Reads `unix:/path`, `/path`, `http://host:port`, `https://host:port`, `host:port`, `[v6]:port`, where the port may
    /// be missing, and `ssh://user@host:port/socket`, where only the host must be there.
    pub fn parse(text: &str) -> Result<Endpoint, EndpointError> {
        let wrong = |why| EndpointError {
            text: text.to_owned(),
            why,
        };
        if let Some(path) = text
            .strip_prefix("unix://")
            .or_else(|| text.strip_prefix("unix:"))
        {
            return match path {
                "" => Err(wrong("the path is missing")),
                path => Ok(Endpoint::Unix(PathBuf::from(path))),
            };
        }
        if text.starts_with('/') {
            return Ok(Endpoint::Unix(PathBuf::from(text)));
        }
        if let Some(rest) = text.strip_prefix("ssh://") {
            return SshTarget::parse(rest).map(Endpoint::Ssh).map_err(wrong);
        }
        let secure = text.strip_prefix("https://");
        let rest = secure.unwrap_or_else(|| text.strip_prefix("http://").unwrap_or(text));
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('/') {
            return Err(wrong("a path behind the host is not supported"));
        }
        let (host, port) =
            split_host(rest).ok_or_else(|| wrong("write http://HOST:PORT, ssh://USER@HOST or unix:PATH"))?;
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port
                .parse()
                .map_err(|_| wrong("the port is not a number up to 65535"))?,
        };
        Ok(match secure {
            Some(_) => Endpoint::Tls(host.to_owned(), port),
            None => Endpoint::Tcp(host.to_owned(), port),
        })
    }

    /// What goes into the `Host` header.
    pub fn authority(&self) -> String {
        match self {
            Endpoint::Unix(_) | Endpoint::Ssh(_) => "localhost".to_owned(),
            Endpoint::Tcp(host, port) | Endpoint::Tls(host, port) if host.contains(':') => {
                format!("[{host}]:{port}")
            }
            Endpoint::Tcp(host, port) | Endpoint::Tls(host, port) => format!("{host}:{port}"),
        }
    }
}

impl SshTarget {
    fn parse(text: &str) -> Result<SshTarget, &'static str> {
        let (login, socket) = match text.find('/') {
            None => (text, None),
            Some(at) => (&text[..at], Some(&text[at..]).filter(|path| *path != "/")),
        };
        let (user, host) = match login.rsplit_once('@') {
            None => (None, login),
            Some((user, host)) => (Some(user), host),
        };
        let (host, port) = split_host(host).ok_or("write ssh://USER@HOST:PORT/SOCKET")?;
        // What stands in a command line must not be taken for an option of it, nor for anything else.
        let is_plain = |word: &str| {
            !word.is_empty()
                && !word.starts_with('-')
                && word.chars().all(|c| c.is_alphanumeric() || "._-+%:".contains(c))
        };
        if !is_plain(host) {
            return Err("the host is missing, or is none");
        }
        if !user.is_none_or(is_plain) {
            return Err("the user is no name");
        }
        let port = port.map(|port| port.parse().map_err(|_| "the port is not a number up to 65535"));
        Ok(SshTarget {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port: port.transpose()?,
            socket: socket.map(PathBuf::from),
        })
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match &self.host {
            host if host.contains(':') => write!(f, "[{host}]")?,
            host => f.write_str(host)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match &self.socket {
            None => Ok(()),
            Some(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Host without brackets, and the text of the port.
fn split_host(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            None if rest.is_empty() => Some((host, None)),
            None => None,
            Some(port) => Some((host, Some(port))),
        };
    }
    match text.split_once(':') {
        None => Some((text, None)),
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "{}", path.display()),
            Endpoint::Tcp(..) => write!(f, "http://{}", self.authority()),
            Endpoint::Tls(..) => write!(f, "https://{}", self.authority()),
            Endpoint::Ssh(target) => target.fmt(f),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        Endpoint::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_form_that_people_write() {
        let tcp = |host: &str, port| Ok(Endpoint::Tcp(host.to_owned(), port));
        assert_eq!(
            Endpoint::parse("unix:/run/x.sock"),
            Ok(Endpoint::Unix("/run/x.sock".into()))
        );
        assert_eq!(
            Endpoint::parse("/run/x.sock"),
            Ok(Endpoint::Unix("/run/x.sock".into()))
        );
        assert_eq!(Endpoint::parse("http://127.0.0.1:5001/"), tcp("127.0.0.1", 5001));
        assert_eq!(Endpoint::parse("localhost"), tcp("localhost", 5000));
        assert_eq!(Endpoint::parse("[::1]:80"), tcp("::1", 80));
        let tls = Endpoint::Tls("gaffer.example".to_owned(), 443);
        assert_eq!(Endpoint::parse("https://gaffer.example:443"), Ok(tls.clone()));
        assert_eq!(tls.to_string(), "https://gaffer.example:443");
    }

    #[test]
    fn a_login_has_a_host_and_perhaps_more() {
        let target = |user: Option<&str>, host: &str, port, socket: Option<&str>| {
            Ok(Endpoint::Ssh(SshTarget {
                user: user.map(str::to_owned),
                host: host.to_owned(),
                port,
                socket: socket.map(PathBuf::from),
            }))
        };
        for (text, wanted) in [
            ("ssh://alpha", target(None, "alpha", None, None)),
            (
                "ssh://ana@10.0.0.7:2222/run/x.sock",
                target(Some("ana"), "10.0.0.7", Some(2222), Some("/run/x.sock")),
            ),
            ("ssh://ana@[fe80::1]", target(Some("ana"), "fe80::1", None, None)),
        ] {
            let read = Endpoint::parse(text);
            assert_eq!(read, wanted);
            assert_eq!(read.map(|endpoint| endpoint.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(Endpoint::parse("ssh://alpha/"), Endpoint::parse("ssh://alpha"));
        for text in [
            "ssh://",
            "ssh://@alpha",
            "ssh://-oProxyCommand=x",
            "ssh://a@-oProxyCommand=x",
            "ssh://-l@alpha",
            "ssh://alpha:x",
            "ssh://al pha",
            "ssh://a$(x)",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for text in [
            "",
            "unix:",
            "http://",
            "host:x",
            "host:1:2",
            "http://h:1/path",
            "[::1",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
