//! Spec 9, and `/wstreams` of 11.1: channels to one process.

use crate::client::{Ws, http, node};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// `V1 kind id`, body.
fn parts(message: &Message) -> (String, String, Vec<u8>) {
    let bytes = match message {
        Message::Text(text) => text.as_bytes().to_vec(),
        Message::Binary(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    };
    let nul = bytes.iter().position(|byte| *byte == 0).expect("a NUL");
    let header = String::from_utf8(bytes[..nul].to_vec()).expect("ASCII");
    let words: Vec<&str> = header.split(' ').collect();
    assert_eq!((words.len(), words[0]), (3, "V1"), "{header}");
    (
        words[1].to_owned(),
        words[2].to_owned(),
        bytes[nul + 1..].to_vec(),
    )
}

fn frame(id: &str, body: &str) -> Message {
    Message::Text(format!("V1 message {id}\0{body}").into())
}

/// Output until it is this long.
fn output(ws: &mut Ws, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        let (kind, id, body) = parts(&ws.message());
        if kind == "message" {
            assert!(!id.is_empty() && !id.contains(' '));
            all.extend(body);
        }
    }
    all
}

fn error(ws: &mut Ws) -> (String, Value) {
    loop {
        let (kind, id, body) = parts(&ws.message());
        if kind == "error" {
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(body["error"], body["reason"], "{body}");
            return (id, body);
        }
    }
}

/// How opening it fails; it is closed then.
fn refused(node: &gaffer_testkit::Node, path: &str) -> (u64, String) {
    let mut ws = Ws::open(node, path);
    let (id, body) = error(&mut ws);
    assert_eq!(id, "gaffer_error");
    ws.until_closed();
    let word = body["error"].as_str().expect("a word").to_owned();
    (body["errno"].as_u64().expect("a number"), word)
}

#[test]
fn s9_2_output_and_input_of_a_process_and_the_close_at_its_end() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let more = json!({"redirect_output": ["out"], "redirect_input": true, "numprocesses": 0});
    ws.load(
        "a.b",
        "while read x; do echo got $x; done; printf last; exit 3",
        &more,
    );
    let pid = &ws.command("commit", &json!(["a.b"]))["pid"];
    let mut channel = Ws::open(&node, &format!("/{pid}/channel"));
    channel.socket.send(frame("0af1", "one\n")).expect("sent");
    let (kind, id, body) = loop {
        let parts = parts(&channel.message());
        if parts.0 != "message" {
            break parts;
        }
    };
    assert_eq!(
        (kind.as_str(), id.as_str(), body),
        ("response", "0af1", b"OK".to_vec())
    );
    // Also a binary frame is one.
    let second = Message::Binary(b"V1 message 2\0two\n".to_vec().into());
    channel.socket.send(second).expect("sent");
    let mut all = Vec::new();
    while !all.ends_with(b"got two\n") {
        let (kind, _, body) = parts(&channel.message());
        if kind == "message" {
            all.extend(body);
        }
    }
    ws.command("kill", &json!([pid, "TERM"]));
    assert_eq!(channel.until_closed(), Some(1000), "D29: it is closed");
}

#[test]
fn s9_2_what_is_left_of_the_output_comes_before_the_close() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let more = json!({"redirect_output": ["out"], "redirect_input": true, "numprocesses": 0});
    ws.load(
        "a.b",
        "read x; head -c 3000000 /dev/zero | tr '\\0' y; exit 0",
        &more,
    );
    let pid = &ws.command("commit", &json!(["a.b"]))["pid"];
    let mut channel = Ws::open(&node, &format!("/{pid}/channel?mode=3"));
    channel.socket.send(frame("1", "go\n")).expect("sent");
    let all = output(&mut channel, 3_000_000);
    assert!(all.len() == 3_000_000 && all.iter().all(|byte| *byte == b'y'));
    assert_eq!(channel.until_closed(), Some(1000));
}

#[test]
fn s9_2_modes() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let more = json!({"redirect_output": ["out"], "redirect_input": true});
    let pid = ws.load("a.cat", "exec cat", &more)[0];
    let mut reader = Ws::open(&node, &format!("/{pid}/channel?mode=1"));
    let mut writer = Ws::open(&node, &format!("/{pid}/channel?mode=2"));
    writer.socket.send(frame("w", "to all\n")).expect("sent");
    assert_eq!(parts(&writer.message()).0, "response");
    assert_eq!(output(&mut reader, 7), b"to all\n");
    reader.socket.send(frame("r", "x")).expect("sent");
    let (id, body) = error(&mut reader);
    assert_eq!(
        (id.as_str(), &body["errno"], &body["error"]),
        ("r", &json!(403), &json!("EPERM"))
    );
    // A write-only channel gets no output: the next frame answers the next one.
    writer.socket.send(frame("w2", "y\n")).expect("sent");
    assert_eq!(parts(&writer.message()).1, "w2");
    assert_eq!(
        http(&node, "GET", &format!("/{pid}/channel?mode=7"), "", "").0,
        400
    );
}

#[test]
fn s9_1_bytes_that_are_no_text_go_both_ways() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let more = json!({"redirect_output": ["out"], "redirect_input": true});
    let pid = ws.load("a.cat", "exec cat", &more)[0];
    let mut channel = Ws::open(&node, &format!("/{pid}/channel"));
    // A text frame with bytes that are no text, and NULs in the body (D44).
    channel.raw_frame(1, b"V1 message 1\0\xff\0\xfe\0");
    let mut seen = Vec::new();
    while seen != b"\xff\0\xfe\0" {
        let message = channel.message();
        let (kind, _, body) = parts(&message);
        if kind == "message" {
            assert!(matches!(message, Message::Binary(_)), "{message:?}");
            seen.extend(body);
        }
    }
    channel.raw_frame(1, b"no frame");
    assert_eq!(error(&mut channel).1["error"], "EINVAL");
}

#[test]
fn s9_1_named_and_custom_streams() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let more = json!({"redirect_output": ["out", "err"], "redirect_input": true, "custom_streams": ["side"]});
    let script = "while read x; do echo $x; echo e$x >&2; read y <&3; echo s$y >&3; done";
    let pid = ws.load("a.b", script, &more)[0];
    let mut error = Ws::open(&node, &format!("/{pid}/channel/err"));
    let mut side = Ws::open(&node, &format!("/{pid}/channel/side"));
    error.socket.send(frame("1", "in\n")).expect("sent");
    assert_eq!(output(&mut error, 4), b"ein\n");
    side.socket.send(frame("1", "by\n")).expect("sent");
    assert_eq!(output(&mut side, 4), b"sby\n");
}

#[test]
fn s9_1_what_cannot_be_opened() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let deaf = ws.load("a.deaf", "sleep 600", &json!({"redirect_output": ["out"]}))[0];
    let mute = ws.load("a.mute", "sleep 600", &json!({"redirect_input": true}))[0];
    assert_eq!(refused(&node, "/9999/channel"), (404, "not_found".to_owned()));
    let not_allowed = (403, "EPERM".to_owned());
    assert_eq!(refused(&node, &format!("/{deaf}/channel?mode=2")), not_allowed);
    assert_eq!(refused(&node, &format!("/{deaf}/channel")), not_allowed);
    assert_eq!(refused(&node, &format!("/{mute}/channel?mode=1")), not_allowed);
    assert_eq!(
        refused(&node, &format!("/{deaf}/channel/none")),
        (404, "ENOENT".to_owned())
    );
    assert_eq!(
        refused(&node, &format!("/{mute}/channel/none?mode=2")),
        (404, "ENOENT".to_owned())
    );
    // Each has what it has.
    let mut channel = Ws::open(&node, &format!("/{mute}/channel?mode=2"));
    channel.socket.send(frame("1", "x")).expect("sent");
    assert_eq!(parts(&channel.message()).0, "response");
}

#[test]
fn s11_1_wstreams_carries_bare_data() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let more = json!({"redirect_output": ["out"], "redirect_input": true, "numprocesses": 0});
    ws.load("a.cat", "read x; echo got $x; exit 0", &more);
    let pid = &ws.command("commit", &json!(["a.cat"]))["pid"];
    let mut bare = Ws::open(&node, &format!("/wstreams/{pid}"));
    bare.text("hello\n");
    assert_eq!(bare.message(), Message::Text("got hello\n".into()));
    assert_eq!(bare.until_closed(), Some(1000));
    for (path, word) in [("/wstreams/9999", "not_found"), ("/wstreams/x", "bad_value")] {
        let mut bare = Ws::open(&node, path);
        assert_eq!(bare.fresh()["error"], word);
        bare.until_closed();
    }
    let deaf = ws.load("a.deaf", "sleep 600", &json!({"redirect_output": ["out"]}))[0];
    let mut bare = Ws::open(&node, &format!("/wstreams/{deaf}"));
    bare.text("x");
    assert_eq!(bare.fresh()["error"], "forbidden_write");
    bare.until_closed();
}
