//! A real `gaffer-lookupd` for a test, and a TCP proxy that can be told to stop forwarding.

use crate::http::{Address, Connection};
use crate::node::bin_dir;
use crate::wait_for;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the program may take to say that it is ready, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running look-up service; ended when dropped.
pub struct Lookupd {
    child: Option<Child>,
    dir: tempfile::TempDir,
    address: SocketAddr,
    arguments: Vec<String>,
}

impl Lookupd {
    /// On a free port, with further words of its command line.
    ///
    /// # Panics
    /// When it does not get ready.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Lookupd {
        let mut lookupd = Lookupd {
            child: None,
            dir: tempfile::Builder::new()
                .prefix("gaffer-test-")
                .tempdir()
                .expect("a directory for the test"),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        };
        lookupd.start_again();
        lookupd
    }

    /// The command that starts it, without an address.
    pub fn command() -> Command {
        let mut command = Command::new(bin_dir().join("gaffer-lookupd"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Starts it at the address that it had.
    ///
    /// # Panics
    /// When it does not get ready.
    #[track_caller]
    pub fn start_again(&mut self) {
        let path = self.dir.path().join("lookupd.log");
        let log = std::fs::File::create(&path).expect("its log");
        let mut command = Lookupd::command();
        command
            .arg("--bind")
            .arg(self.address.to_string())
            .args(&self.arguments)
            .stderr(log);
        let mut child = command.spawn().expect("gaffer-lookupd");
        let ready = wait_for(PATIENCE, "gaffer-lookupd ready", || {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let ready = log
                .split_inclusive('\n')
                .find(|line| line.contains("gaffer-lookupd ready") && line.ends_with('\n'));
            let ended = child.try_wait().expect("its status");
            assert!(ready.is_some() || ended.is_none(), "gaffer-lookupd ended: {log}");
            ready.map(str::to_owned)
        });
        let mut words = ready.split(|c: char| c.is_whitespace() || matches!(c, '=' | ','));
        self.address = words
            .find_map(|word| word.parse().ok())
            .expect("an address in its ready line");
        self.child = Some(child);
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("lookupd.log")).unwrap_or_default()
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// SIGKILL; returns when it is dead.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            let _status = child.wait();
        }
    }

    /// A signal, and how it ends.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn end_by(&mut self, signal: rustix::process::Signal) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        if let Some(handle) = crate::process::Handle::open(child.id()) {
            handle.signal(signal);
        }
        wait_for(PATIENCE, "the end of gaffer-lookupd", || {
            child.try_wait().expect("its status")
        })
    }

    /// A document of it, or null if nobody answers.
    pub fn get(&self, path: &str) -> Value {
        let mut connection =
            Connection::new(Address::Tcp(self.address)).with_timeout(Duration::from_secs(10));
        match connection.request("GET", path, &[], b"") {
            Ok(answer) => serde_json::from_slice(&answer.body).unwrap_or_default(),
            Err(_) => Value::Null,
        }
    }

    /// Names of its nodes.
    pub fn nodes(&self) -> Vec<String> {
        let nodes = self.get("/nodes");
        let nodes = nodes["nodes"].as_array().cloned().unwrap_or_default();
        nodes
            .iter()
            .map(|node| node["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// What it knows of a job: node name and number of processes, sorted.
    pub fn job(&self, name: &str) -> Vec<(String, usize)> {
        let found = self.get(&format!("/findJob?name={name}"));
        let sources = found["sources"].as_array().cloned().unwrap_or_default();
        let mut sources: Vec<(String, usize)> = sources
            .iter()
            .map(|source| {
                let name = source["node_info"]["name"].as_str().unwrap_or_default();
                (name.to_owned(), source["pids"].as_array().map_or(0, Vec::len))
            })
            .collect();
        sources.sort();
        sources
    }
}

impl Drop for Lookupd {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Forwards TCP connections; cut, it keeps them open and forwards nothing, as a network that is down does.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    cut: AtomicBool,
    ended: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// To this address.
    ///
    /// # Panics
    /// When there is no free port.
    #[track_caller]
    pub fn start(to: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            cut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let own = shared.clone();
        std::thread::spawn(move || {
            for inner in listener.incoming().flatten() {
                if own.ended.load(Ordering::SeqCst) {
                    return;
                }
                // Nobody there: the client sees its connection end.
                let Ok(outer) = TcpStream::connect(to) else {
                    continue;
                };
                forward(&own, &inner, &outer);
                forward(&own, &outer, &inner);
                own.keep(inner);
                own.keep(outer);
            }
        });
        Proxy { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing passes; what is sent meanwhile waits.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
    }

    /// Everything passes again.
    pub fn mend(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }
}

impl Shared {
    fn keep(&self, stream: TcpStream) {
        self.streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(stream);
    }
}

fn forward(shared: &Arc<Shared>, from: &TcpStream, to: &TcpStream) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
        return;
    };
    let shared = shared.clone();
    std::thread::spawn(move || {
        let mut bytes = [0u8; 16 << 10];
        loop {
            let count = from.read(&mut bytes).unwrap_or(0);
            while shared.cut.load(Ordering::SeqCst) && !shared.ended.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if count == 0 || to.write_all(&bytes[..count]).is_err() {
                let _gone = to.shutdown(Shutdown::Both);
                let _gone = from.shutdown(Shutdown::Both);
                return;
            }
        }
    });
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the listener, which sees that it has ended.
        let _woken = TcpStream::connect(self.address);
        let streams = self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in streams.iter() {
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }
}
