//! A hand-made node and a watcher: what they send is what a test says.

use futures_util::{SinkExt, StreamExt};
use gaffer_api::client::{Message, WebSocket};
use gaffer_api::{Client, Endpoint};
use gaffer_testkit::Lookupd;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest time for anything that should happen soon.
pub const SOON: Duration = Duration::from_secs(30);

/// One end of a WebSocket to the service.
pub struct Socket(WebSocket);

pub fn client(lookupd: &Lookupd) -> Client {
    Client::new(Endpoint::parse(&lookupd.url()).expect("an address"), None)
}

impl Socket {
    /// To this path.
    pub async fn open(lookupd: &Lookupd, path: &str) -> Socket {
        let opened = tokio::time::timeout(SOON, client(lookupd).websocket(path)).await;
        Socket(opened.expect("in time").expect("a websocket"))
    }

    /// A node that has named itself.
    pub async fn node(lookupd: &Lookupd, name: &str) -> Socket {
        let mut socket = Socket::open(lookupd, "/ws").await;
        let reply = socket.ask(identify(name)).await;
        assert_eq!(reply, json!({"ok": true, "msgid": "m"}));
        socket
    }

    /// Sends a text.
    pub async fn send(&mut self, text: &str) {
        self.0.send(Message::Text(text.into())).await.expect("it is sent");
    }

    /// Sends a text that may be too much: the other end may be gone before it has all of it.
    pub async fn send_or_be_cut_off(&mut self, text: &str) {
        let _cut_off = self.0.send(Message::Text(text.into())).await;
    }

    /// The next JSON text; none if the connection ends.
    pub async fn next(&mut self) -> Option<Value> {
        let text = self.text().await?;
        Some(serde_json::from_str(&text).expect("JSON"))
    }

    /// The next text; none if the connection ends.
    pub async fn text(&mut self) -> Option<String> {
        loop {
            let message = tokio::time::timeout(SOON, self.0.next()).await.expect("in time");
            match message {
                Some(Ok(Message::Text(text))) => return Some(text.to_string()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Sends a document with the id `m`, and gives the answer.
    pub async fn ask(&mut self, mut say: Value) -> Value {
        say["msgid"] = json!("m");
        self.send(&say.to_string()).await;
        self.next().await.expect("a reply")
    }

    /// The same, which must be done.
    pub async fn done(&mut self, say: Value) {
        let shown = say.to_string();
        assert_eq!(self.ask(say).await, json!({"ok": true, "msgid": "m"}), "{shown}");
    }
}

pub fn identify(name: &str) -> Value {
    json!({"type": "IDENTIFY", "name": name, "origin": format!("http://{name}:5000"), "version": "0.1"})
}

pub fn job(kind: &str, name: &str) -> Value {
    json!({"type": kind, "job_name": name})
}

pub fn process(kind: &str, name: &str, pid: u64) -> Value {
    json!({"type": kind, "job_name": name, "pid": pid})
}
