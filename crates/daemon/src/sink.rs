//! Where the lines of the daemon's log go: `[gaffer] log_to`.
//!
//! What a sink does not take goes to stderr. Only the thread of [`crate::writer`] writes, so that nothing else ever waits.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use tracing::Level;

/// Socket of journald (systemd-journald.service(8)).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Socket of the system logger (syslog(3)).
const SYSLOG: &str = "/dev/log";

/// Longest line that is sent to a socket: loggers take datagrams of a limited size.
const DATAGRAM_MAX: usize = 32 << 10;

/// Facility `daemon` of syslog.
const FACILITY: u8 = 3 << 3;

/// One place for lines.
#[derive(Debug)]
pub enum Sink {
    /// The descriptor that the daemon was started with.
    Stderr,
    /// A file that is appended to.
    File(File),
    /// journald, in its own protocol.
    Journal(Logger),
    /// The system logger.
    Syslog(Logger),
}

/// A logger behind a socket.
#[derive(Debug)]
pub struct Logger {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Sink {
    /// `stderr`, `journal`, `syslog` or `file:PATH`; the error says what cannot be opened and why.
    pub fn open(to: &str) -> Result<Sink, String> {
        match to {
            "stderr" => Ok(Sink::Stderr),
            "journal" => Logger::reach(Path::new(JOURNAL))
                .map(Sink::Journal)
                .map_err(|error| failed(to, JOURNAL, &error)),
            "syslog" => Logger::reach(Path::new(SYSLOG))
                .map(Sink::Syslog)
                .map_err(|error| failed(to, SYSLOG, &error)),
            _ => {
                let path = to.strip_prefix("file:").unwrap_or(to);
                let opened = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .mode(0o600)
                    .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                    .open(path);
                opened.map(Sink::File).map_err(|error| failed(to, path, &error))
            }
        }
    }

    /// Writes lines, which come without their line feeds: to a file or stderr all at once.
    pub fn write(&mut self, lines: &[(Level, String)]) {
        let send = |logger: &Logger, entry: fn(Level, &str) -> Vec<u8>| {
            for (level, line) in lines {
                if logger.send(&entry(*level, line)).is_err() {
                    to_stderr(&format!("{line}\n"));
                }
            }
        };
        match self {
            _ if lines.is_empty() => {}
            Sink::Stderr => to_stderr(&text(lines)),
            Sink::File(file) => {
                let text = text(lines);
                if file.write_all(text.as_bytes()).is_err() {
                    to_stderr(&text);
                }
            }
            Sink::Journal(logger) => send(logger, journal_entry),
            Sink::Syslog(logger) => send(logger, syslog_entry),
        }
    }
}

fn text(lines: &[(Level, String)]) -> String {
    let mut text = String::with_capacity(lines.iter().map(|(_, line)| line.len() + 1).sum());
    for (_, line) in lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn failed(to: &str, place: &str, error: &io::Error) -> String {
    format!("log_to = \"{to}\" cannot be used: {place}: {error}")
}

/// Whole lines, in one write.
pub(crate) fn to_stderr(text: &str) {
    // There is nobody left to tell if this fails.
    let _lost = io::stderr().lock().write_all(text.as_bytes());
}

impl Logger {
    fn reach(path: &Path) -> io::Result<Logger> {
        // Only to learn whether somebody listens: the logger may be restarted, so each line names it again.
        UnixDatagram::unbound()?.connect(path)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Logger {
            socket,
            path: path.to_owned(),
        })
    }

    fn send(&self, entry: &[u8]) -> io::Result<()> {
        self.socket.send_to(entry, &self.path).map(drop)
    }
}

/// Priorities of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

fn short(line: &str) -> &str {
    line.get(..line.floor_char_boundary(DATAGRAM_MAX)).unwrap_or(line)
}

/// Fields of a line each; ours have no line feeds, and one that had would become another field.
fn journal_entry(level: Level, line: &str) -> Vec<u8> {
    let text = short(line).replace('\n', "\\n");
    format!(
        "MESSAGE={text}\nPRIORITY={}\nSYSLOG_IDENTIFIER=gafferd\n",
        priority(level)
    )
    .into_bytes()
}

fn syslog_entry(level: Level, line: &str) -> Vec<u8> {
    let when = jiff::Zoned::now().strftime("%b %e %H:%M:%S").to_string();
    let text = short(line).replace('\n', "\\n");
    format!(
        "<{}>{when} gafferd[{}]: {text}",
        FACILITY | priority(level),
        std::process::id()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logger(dir: &Path) -> (UnixDatagram, Logger) {
        let path = dir.join("log");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let logger = Logger::reach(&path).expect("somebody listens");
        (socket, logger)
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0u8; 1024];
        let read = socket.recv(&mut bytes).expect("a line");
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    #[test]
    fn a_line_reaches_the_journal_as_one_entry() {
        let dir = tempfile::tempdir().expect("a directory");
        let (socket, logger) = logger(dir.path());
        Sink::Journal(logger).write(&[(Level::WARN, "run.oom subject=shop.web.1\nPRIORITY=0".to_owned())]);
        assert_eq!(
            heard(&socket),
            "MESSAGE=run.oom subject=shop.web.1\\nPRIORITY=0\nPRIORITY=4\nSYSLOG_IDENTIFIER=gafferd\n"
        );
    }

    #[test]
    fn a_line_reaches_the_system_logger_with_its_priority_and_our_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let (socket, logger) = logger(dir.path());
        Sink::Syslog(logger).write(&[(Level::INFO, "run.started".to_owned())]);
        let line = heard(&socket);
        let tail = format!(" gafferd[{}]: run.started", std::process::id());
        assert!(line.starts_with("<30>") && line.ends_with(&tail), "{line}");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let why = Sink::open("file:/nonexistent/gafferd.log").expect_err("there is no such folder");
        assert!(
            why.contains("/nonexistent/gafferd.log") && why.contains("No such file"),
            "{why}"
        );
    }
}
