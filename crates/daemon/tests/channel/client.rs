//! A WebSocket client that blocks, and can also send what none should.

use gaffer_testkit::Node;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

/// Longest time for anything that should happen soon.
pub const SOON: Duration = Duration::from_secs(30);

/// A node that listens on TCP.
pub fn node() -> Node {
    Node::builder().bind("127.0.0.1:0").start()
}

/// A node that requires keys, and the key of its admin.
pub fn guarded() -> (Node, String) {
    let mut node = Node::builder().bind("127.0.0.1:0").arg("--require-key").prepare();
    let mut command = node.daemon_command();
    command.args(["--create-admin-user", "--username", "root", "--password", "pw"]);
    command.stdout(std::process::Stdio::piped());
    let said = command.output().expect("gafferd runs").stdout;
    let said = String::from_utf8(said).expect("text");
    let key = said.lines().find_map(|line| line.strip_prefix("API Key: "));
    let key = key.expect("a key").to_owned();
    node.start_again();
    (node, key)
}

/// Makes a key.
pub fn make_key(node: &Node, admin: &str, permissions: &Value) -> String {
    let body = json!({ "permissions": permissions }).to_string();
    let (status, _, text) = http(node, "POST", "/keys", &format!("X-Api-Key: {admin}\r\n"), &body);
    assert_eq!(status, 200, "{text}");
    let made: Value = serde_json::from_str(&text).expect("JSON");
    made["api_key"].as_str().expect("a key").to_owned()
}

/// A connection to it.
pub fn connect(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.addresses()[0]).expect("connects");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    stream.set_write_timeout(Some(SOON)).expect("a timeout");
    stream
}

/// An open WebSocket.
pub struct Ws {
    pub socket: WebSocket<TcpStream>,
    /// Came while something else was waited for.
    kept: VecDeque<Value>,
    commands: u64,
}

impl Ws {
    pub fn open(node: &Node, path: &str) -> Ws {
        let stream = connect(node);
        let address = node.addresses()[0];
        let request = format!("ws://{address}{path}").into_client_request();
        let (socket, _) = client::client(request.expect("a request"), stream).expect("a handshake");
        Ws {
            socket,
            kept: VecDeque::new(),
            commands: 0,
        }
    }

    /// The channel.
    pub fn channel(node: &Node) -> Ws {
        Ws::open(node, "/channel/websocket")
    }

    /// The channel, for whoever has this key.
    pub fn with_key(node: &Node, key: &str) -> Ws {
        let mut ws = Ws::channel(node);
        ws.text(&format!("AUTH:{key}"));
        ws
    }

    pub fn text(&mut self, text: &str) {
        self.socket.send(Message::Text(text.into())).expect("taken");
    }

    pub fn say(&mut self, value: &Value) {
        self.text(&value.to_string());
    }

    /// The next message that is no ping.
    pub fn message(&mut self) -> Message {
        loop {
            match self.socket.read().expect("not broken") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// Its code, or none if it was closed without one.
    pub fn until_closed(&mut self) -> Option<u16> {
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => {
                    let code = frame.map(|frame| frame.code.into());
                    // The answer is flushed, then TCP ends.
                    let end = self.socket.read();
                    assert!(matches!(end, Err(Error::ConnectionClosed)), "{end:?}");
                    return code;
                }
                Ok(_) => {}
                Err(error) => panic!("no close: {error}"),
            }
        }
    }

    /// The next message, as JSON.
    pub fn fresh(&mut self) -> Value {
        match self.message() {
            Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("{other:?}"),
        }
    }

    pub fn next(&mut self) -> Value {
        match self.kept.pop_front() {
            Some(kept) => kept,
            None => self.fresh(),
        }
    }

    /// The first message for which this holds; those before are dropped.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            let message = self.next();
            if holds(&message) {
                return message;
            }
        }
        panic!("never: {what}");
    }

    /// The data of the next event of a topic with this name.
    pub fn event(&mut self, topic: &str, name: &str) -> Value {
        let message = self.until(&format!("{name} of {topic}"), |message| {
            message["event"] == "gaffer:event"
                && message["data"]["topic"] == topic
                && message["data"]["event"] == name
        });
        message["data"].clone()
    }

    /// Follows a topic: the answer.
    pub fn subscribe(&mut self, topic: &str) -> Value {
        self.say(&json!({"event": "SUB", "data": {"topic": topic}}));
        self.answer(topic)
    }

    pub fn unsubscribe(&mut self, topic: &str) -> Value {
        self.say(&json!({"event": "UNSUB", "data": {"topic": topic}}));
        self.answer(topic)
    }

    fn answer(&mut self, topic: &str) -> Value {
        loop {
            let message = self.fresh();
            let event = message["event"].as_str().unwrap_or_default();
            if event.starts_with("gaffer:subscription_") {
                assert_eq!(message["topic"], topic, "{message}");
                return message;
            }
            self.kept.push_back(message);
        }
    }

    /// Gives a command: its result, or number and reason.
    pub fn try_command(&mut self, name: &str, args: &Value, kwargs: &Value) -> Result<Value, (u64, String)> {
        self.commands += 1;
        let id = format!("c{}", self.commands);
        let data = json!({"identity": id, "name": name, "args": args, "kwargs": kwargs});
        self.say(&json!({"event": "CMD", "data": data}));
        loop {
            let message = self.fresh();
            if message["data"]["id"] != id.as_str() {
                self.kept.push_back(message);
                continue;
            }
            let error = &message["data"]["error"];
            return match message["event"].as_str() {
                Some("gaffer:command_success") => Ok(message["data"]["result"].clone()),
                Some("gaffer:command_error") => {
                    let reason = error["reason"].as_str().expect("a reason").to_owned();
                    Err((error["errno"].as_u64().expect("a number"), reason))
                }
                _ => panic!("{message}"),
            };
        }
    }

    pub fn command(&mut self, name: &str, args: &Value) -> Value {
        let result = self.try_command(name, args, &json!({}));
        result.unwrap_or_else(|error| panic!("{name} {args}: {error:?}"))
    }

    /// Loads a job that runs a shell script: the numbers of its processes.
    pub fn load(&mut self, name: &str, script: &str, more: &Value) -> Vec<u64> {
        // What the shell is to see of a dollar is written as two.
        let script = script.replace('$', "$$");
        let mut config = json!({"name": name, "cmd": "sh", "args": ["-c", script], "os_env": true});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        self.command("load", &json!([config]));
        self.pids(name)
    }

    pub fn pids(&mut self, name: &str) -> Vec<u64> {
        let result = self.command("pids", &json!([name]));
        let pids = result["pids"].as_array().expect("a list");
        pids.iter().filter_map(Value::as_u64).collect()
    }

    /// A masked frame of any kind, whatever is in it.
    pub fn raw_frame(&mut self, kind: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | kind];
        match u16::try_from(payload.len()).expect("not that long") {
            length @ 0..126 => frame.push(0x80 | u8::try_from(length).expect("short")),
            length => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.socket.get_mut().write_all(&frame).expect("sent");
    }
}

/// A request over a connection of its own, and all of the answer: head and body as they came.
pub fn http(node: &Node, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = connect(node);
    send(&mut stream, node, method, path, headers, body);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("read");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (status(head), head.to_ascii_lowercase(), dechunked(head, body))
}

/// Sends a request.
pub fn send(stream: &mut TcpStream, node: &Node, method: &str, path: &str, headers: &str, body: &str) {
    let (host, length) = (node.addresses()[0], body.len());
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}");
    let length = if method == "POST" {
        format!("Content-Length: {length}\r\n")
    } else {
        String::new()
    };
    write!(stream, "{head}{length}\r\n{body}").expect("sent");
}

fn status(head: &str) -> u16 {
    let word = head.split(' ').nth(1).expect("a status");
    word.parse().expect("a number")
}

fn dechunked(head: &str, body: &str) -> String {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut whole, mut rest) = (String::new(), body);
    while let Some((size, more)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        whole.push_str(&more[..size]);
        rest = more[size..].trim_start_matches("\r\n");
        if size == 0 {
            break;
        }
    }
    whole
}
