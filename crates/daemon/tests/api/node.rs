//! A real `gafferd` with its own state directory, and an HTTP client so plain that it can send anything.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest time for anything that should happen soon.
pub const SOON: Duration = Duration::from_secs(20);

/// A running daemon; all it started ends with it.
pub struct Node {
    child: Child,
    pub dir: Arc<TempDir>,
    pub address: Option<SocketAddr>,
    log: Arc<Mutex<String>>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Code of the error in the body.
    pub fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    /// The body as JSON lines.
    pub fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8_lossy(&self.body);
        text.lines()
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).expect("a JSON line"))
            .collect()
    }
}

pub fn gafferd(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gafferd"));
    for name in [
        "GAFFER_SOCKET",
        "GAFFER_STATE_DIR",
        "GAFFER_PROFILE",
        "NOTIFY_SOCKET",
        "INVOCATION_ID",
    ] {
        command.env_remove(name);
    }
    command
        .arg("--state-dir")
        .arg(dir.join("state"))
        .arg("--socket")
        .arg(dir.join("run/sock"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub fn temp_dir() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().expect("a temporary directory"))
}

impl Node {
    /// Starts with a free port.
    pub fn start() -> Node {
        Node::start_in(temp_dir(), &["--bind", "127.0.0.1:0"])
    }

    pub fn start_in(dir: Arc<TempDir>, arguments: &[&str]) -> Node {
        let mut child = gafferd(dir.path())
            .args(arguments)
            .spawn()
            .expect("gafferd starts");
        let log = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is a pipe")).lines();
        let mut ready = None;
        for line in lines.by_ref() {
            let line = line.expect("text");
            if line.starts_with("gafferd ready ") {
                ready = Some(line);
                break;
            }
            log.lock().expect("not poisoned").push_str(&(line + "\n"));
        }
        let ready = ready.unwrap_or_else(|| panic!("not ready: {}", log.lock().expect("not poisoned")));
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().expect("not poisoned").push_str(&(line + "\n"));
            }
        });
        let listen = ready
            .split(' ')
            .find_map(|word| word.strip_prefix("listen="))
            .expect("listen=");
        Node {
            child,
            dir,
            address: listen.parse().ok(),
            log,
        }
    }

    /// Waits for a text in the daemon's log.
    pub fn until_logged(&self, text: &str) {
        until(text, || self.log().contains(text));
    }

    /// Of the daemon.
    /// All that it has logged.
    pub fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("run/sock")
    }

    /// A request over the control socket.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let text = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_some() {
            "content-type: application/json\r\n"
        } else {
            ""
        };
        let head = format!("host: localhost\r\n{kind}");
        self.over_unix(method, path, &head, text.as_bytes())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None)
    }

    pub fn post(&self, path: &str) -> Answer {
        self.ask("POST", path, None)
    }

    pub fn over_unix(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let stream = UnixStream::connect(self.socket()).expect("connects");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        exchange(stream, method, path, headers, body)
    }

    pub fn over_tcp(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let stream = TcpStream::connect(self.address.expect("listens on TCP")).expect("connects");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        exchange(stream, method, path, headers, body)
    }

    /// Puts a job that runs a shell script, and waits until it is up.
    pub fn put(&self, job: &str, script: &str, more: &Value) {
        let mut spec = serde_json::json!({"cmd": script, "shell": true});
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let answer = self.ask("PUT", &format!("/v1/jobs/default/{job}?wait=20s"), Some(&spec));
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    pub fn job(&self, job: &str) -> Value {
        self.get(&format!("/v1/jobs/default/{job}")).json()
    }

    /// SIGKILL, as an accident would.
    pub fn kill9(mut self) -> Arc<TempDir> {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it is ours");
        self.dir.clone()
    }

    /// Ends it as asked; jobs go on with `leave`.
    pub fn end(mut self, mode: &str) -> (Arc<TempDir>, ExitStatus) {
        let body = serde_json::json!({"mode": mode});
        assert_eq!(self.ask("POST", "/v1/node/shutdown", Some(&body)).status, 202);
        let status = wait(&mut self.child);
        (self.dir.clone(), status)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        if let Ok(mut stream) = UnixStream::connect(self.socket()) {
            let body = "{\"mode\":\"stop-all\"}";
            let head = format!(
                "host: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
                body.len()
            );
            let _asked = write!(
                stream,
                "POST /v1/node/shutdown HTTP/1.1\r\n{head}connection: close\r\n\r\n{body}"
            );
            let mut answer = Vec::new();
            let _read = stream.read_to_end(&mut answer);
        }
        wait_or_kill(&mut self.child);
    }
}

/// Waits for the end of a child; one that takes too long is killed.
fn wait_or_kill(child: &mut Child) {
    let deadline = Instant::now() + SOON;
    while child.try_wait().is_ok_and(|status| status.is_none()) {
        if Instant::now() > deadline {
            let _killed = child.kill();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for the end of a child, bounded.
pub fn wait(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("the daemon ends", || {
        status = child.try_wait().expect("it is ours");
        status.is_some()
    });
    status.expect("it has ended")
}

/// Runs to the end, bounded: exit code and stderr.
pub fn refused(mut command: Command) -> (i32, String) {
    let mut child = command.spawn().expect("gafferd starts");
    let mut stderr = child.stderr.take().expect("stderr is a pipe");
    let status = wait(&mut child);
    let mut text = String::new();
    stderr.read_to_string(&mut text).expect("text");
    (status.code().unwrap_or(-1), text)
}

/// Waits for a condition.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Answer {
    let length = if body.is_empty() && method == "GET" {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len())
    };
    let head = format!("{method} {path} HTTP/1.1\r\n{headers}{length}connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("the head is taken");
    // A refusal may come before the body was taken.
    let _refused = stream.write_all(body);
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert!(!bytes.is_empty(), "{method} {path}: no answer: {error}");
    }
    parse(&bytes)
}

pub fn parse(bytes: &[u8]) -> Answer {
    let split = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8(bytes[..split].to_vec()).expect("text");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    let rest = &bytes[split + 4..];
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { dechunk(rest) } else { rest.to_vec() };
    Answer { status, head, body }
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end])
            .ok()
            .and_then(|text| usize::from_str_radix(text, 16).ok());
        let Some(size) = size.filter(|size| *size > 0 && rest.len() >= end + 2 + size) else {
            break;
        };
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
    body
}
