//! A receiver of webhooks: keeps what it was sent and answers as it is told.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What it was sent.
#[derive(Clone, Debug)]
pub struct Post {
    pub path: String,
    /// Lower-case names.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Post {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a body of JSON")
    }

    pub fn event(&self) -> String {
        self.headers["gaffer-event"].clone()
    }

    pub fn id(&self) -> String {
        self.headers["gaffer-event-id"].clone()
    }
}

struct Inner {
    posts: Mutex<Vec<Post>>,
    status: Mutex<u16>,
    /// Answers are held back while this is true.
    held: Mutex<bool>,
    released: Condvar,
}

pub struct Receiver {
    origin: &'static str,
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

impl Receiver {
    pub fn start() -> Receiver {
        Receiver::listen("http://127.0.0.1", None)
    }

    /// With a certificate, PEM, for `localhost`.
    pub fn start_tls(chain: &str, key: &str) -> Receiver {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.expect("a certificate"), key)
            .expect("they belong together");
        Receiver::listen("https://localhost", Some(Arc::new(config)))
    }

    fn listen(origin: &'static str, tls: Option<Arc<ServerConfig>>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let inner = Arc::new(Inner {
            posts: Mutex::default(),
            status: Mutex::new(204),
            held: Mutex::new(false),
            released: Condvar::new(),
        });
        let own = inner.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (own, tls) = (own.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => answer(&own, stream),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).ok()?;
                        answer(&own, StreamOwned::new(connection, stream))
                    }
                });
            }
        });
        Receiver {
            origin,
            address,
            inner,
        }
    }

    pub fn url(&self) -> String {
        format!("{}:{}/hook", self.origin, self.address.port())
    }

    /// What it answers from now on.
    pub fn answers(&self, status: u16) {
        *self.inner.status.lock().expect("lock") = status;
    }

    /// Holds all answers back, or lets them go.
    pub fn hold(&self, held: bool) {
        *self.inner.held.lock().expect("lock") = held;
        self.inner.released.notify_all();
    }

    pub fn posts(&self) -> Vec<Post> {
        self.inner.posts.lock().expect("lock").clone()
    }

    /// All posts, once one of them is as wanted.
    #[track_caller]
    pub fn wait(&self, what: &str, wanted: impl Fn(&Post) -> bool) -> Vec<Post> {
        gaffer_testkit::wait_for(Duration::from_secs(60), what, || {
            let posts = self.posts();
            posts.iter().any(&wanted).then_some(posts)
        })
    }
}

fn answer(inner: &Inner, stream: impl Read + Write) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    let post = Post { path, headers, body };
    inner.posts.lock().ok()?.push(post);
    let mut held = inner.held.lock().ok()?;
    while *held {
        held = inner.released.wait_timeout(held, Duration::from_secs(60)).ok()?.0;
    }
    drop(held);
    let status = *inner.status.lock().ok()?;
    let stream = reader.get_mut();
    write!(
        stream,
        "HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    stream.flush().ok()
}
