//! A blocking HTTP/1.1 client over one kept connection: enough for tests and benchmarks, no runtime needed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where to connect.
#[derive(Clone, Debug)]
pub enum Address {
    /// Path of a unix socket.
    Unix(PathBuf),
    /// Host and port.
    Tcp(SocketAddr),
}

trait Stream: Read + Write + Send {}
impl Stream for UnixStream {}
impl Stream for TcpStream {}

/// A kept connection.
pub struct Connection {
    address: Address,
    timeout: Duration,
    stream: Option<BufReader<Box<dyn Stream>>>,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `200`…
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Without transfer coding.
    pub body: Vec<u8>,
}

impl Answer {
    /// First value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Connection {
    /// Connects with the first request.
    pub fn new(address: Address) -> Connection {
        Connection {
            address,
            timeout: Duration::from_secs(60),
            stream: None,
        }
    }

    /// A connection to a unix socket.
    pub fn unix(path: &Path) -> Connection {
        Connection::new(Address::Unix(path.to_owned()))
    }

    /// How long a read or write may take; a minute unless said.
    pub fn with_timeout(mut self, timeout: Duration) -> Connection {
        self.timeout = timeout;
        self
    }

    /// Sends a request and reads the answer. A kept connection that the other side has closed meanwhile is
    /// opened anew, once, and only when no byte of an answer was seen.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let kept = self.stream.is_some();
        let first = self
            .send(method, path, headers, body)
            .and_then(|()| self.receive(method));
        match first {
            Err(error) if kept && is_closed(&error) => {
                self.stream = None;
                self.send(method, path, headers, body)?;
                self.receive(method)
            }
            Err(error) => {
                self.stream = None;
                Err(error)
            }
            Ok(answer) => Ok(answer),
        }
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(self.timeout))?;
                stream.set_write_timeout(Some(self.timeout))?;
                Ok(Box::new(stream))
            }
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, self.timeout)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(self.timeout))?;
                stream.set_write_timeout(Some(self.timeout))?;
                Ok(Box::new(stream))
            }
        }
    }

    fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        if self.stream.is_none() {
            self.stream = Some(BufReader::new(self.connect()?));
        }
        let host = match &self.address {
            Address::Unix(_) => "localhost".to_owned(),
            Address::Tcp(address) => address.to_string(),
        };
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {host}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method != "GET" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(body);
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        stream.get_mut().write_all(&bytes)?;
        stream.get_mut().flush()
    }

    fn receive(&mut self, method: &str) -> io::Result<Answer> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let mut answer = loop {
            let answer = read_head(stream)?;
            // 100 Continue and its like stand before the answer.
            if answer.status >= 200 {
                break answer;
            }
        };
        let empty = method == "HEAD" || matches!(answer.status, 204 | 304);
        let chunked = answer
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = answer
            .header("content-length")
            .and_then(|value| value.parse().ok());
        let mut close = answer
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        match (empty, chunked, length) {
            (true, _, _) => {}
            (_, true, _) => answer.body = read_chunks(stream)?,
            (_, _, Some(length)) => {
                answer.body = vec![0; length];
                stream.read_exact(&mut answer.body)?;
            }
            (_, _, None) => {
                stream.read_to_end(&mut answer.body)?;
                close = true;
            }
        }
        if close {
            self.stream = None;
        }
        Ok(answer)
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn read_head(stream: &mut impl BufRead) -> io::Result<Answer> {
    let bad = |line: &str| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not an HTTP answer: {line:?}"),
        )
    };
    let line = read_line(stream)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| bad(&line))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            return Ok(Answer {
                status,
                headers,
                body: Vec::new(),
            });
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad(&line))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let wrong = |_| io::Error::new(io::ErrorKind::InvalidData, format!("not a chunk: {line:?}"));
        let size = usize::from_str_radix(digits, 16).map_err(wrong)?;
        if size == 0 {
            // Trailers, to the empty line.
            while !read_line(stream)?.is_empty() {}
            return Ok(body);
        }
        let start = body.len();
        body.resize(start + size, 0);
        stream.read_exact(body.get_mut(start..).unwrap_or_default())?;
        read_line(stream)?;
    }
}
