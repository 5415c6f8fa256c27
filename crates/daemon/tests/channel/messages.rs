//! Spec 8.1 to 8.3 and 17: the handshake, and what can be said.

use crate::client::{Ws, connect, node};
use serde_json::{Value, json};
use std::io::{Read, Write};
use tokio_tungstenite::tungstenite::Message;

#[test]
fn s17_the_handshake_answers_exactly_what_the_stock_client_checks() {
    let node = node();
    let mut stream = connect(&node);
    let host = node.addresses()[0];
    write!(
        stream,
        "GET /channel/websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let header = |name: &str| {
        let found = head.lines().filter_map(|line| line.split_once(": "));
        let values: Vec<&str> = found
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect();
        values.join("|")
    };
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(header("connection"), "Upgrade");
    assert_eq!(header("upgrade"), "websocket");
    assert_eq!(header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(
        header("sec-websocket-extensions") + &header("sec-websocket-protocol"),
        ""
    );
    // A close is answered, unmasked, and then the connection ends.
    stream
        .write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8])
        .expect("sent");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("it ends");
    assert_eq!(rest, [0x88, 0x02, 0x03, 0xe8]);
}

#[test]
fn s8_1_what_is_no_handshake_is_refused() {
    let node = node();
    let status = |headers: &str| crate::client::http(&node, "GET", "/channel/websocket", headers, "").0;
    assert_eq!(status(""), 400);
    let all = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    assert_eq!(
        status(&format!(
            "{all}Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: eA==\r\n"
        )),
        400
    );
    assert_eq!(status(&format!("{all}Sec-WebSocket-Version: 13\r\n")), 400);
    assert_eq!(
        crate::client::http(&node, "POST", "/channel/websocket", "", "").0,
        405
    );
}

#[test]
fn s17_a_ping_is_answered() {
    let node = node();
    let mut ws = Ws::channel(&node);
    ws.socket
        .send(Message::Ping(b"there?".to_vec().into()))
        .expect("sent");
    let answer = ws.socket.read().expect("an answer");
    assert_eq!(answer, Message::Pong(b"there?".to_vec().into()));
}

#[test]
fn s8_3_a_malformed_message_is_told_and_the_connection_stays() {
    let node = node();
    let mut ws = Ws::channel(&node);
    for (text, reason) in [
        ("hello", "invalid_json"),
        ("{}", "event_missing"),
        (r#"{"event":"SUB"}"#, "data_missing"),
        (r#"{"event":"SUB","data":{}}"#, "topic_missing"),
        (r#"{"event":"CMD","data":{"identity":"1"}}"#, "cmd_name_missing"),
        (
            r#"{"event":"CMD","data":{"name":"jobs"}}"#,
            "cmd_identity_missing",
        ),
        (r#"{"event":"JUMP"}"#, "unknown_cmd"),
    ] {
        ws.text(text);
        let answer = ws.next();
        assert_eq!(answer["event"], "gaffer:error", "{answer}");
        assert_eq!(
            answer["data"],
            json!({"error": "invalid_msg", "reason": reason}),
            "{text}"
        );
    }
    // A text frame that is no text: the stock client sends such.
    ws.raw_frame(1, b"\xff\xfe");
    assert_eq!(ws.next()["data"]["reason"], "invalid_json");
    // No answer to a sign of life: the next message answers the next request.
    ws.say(&json!({"event": "NOP"}));
    assert_eq!(ws.command("jobs", &json!([])), json!({"jobs": []}));
}

#[test]
fn s8_2_an_identity_is_given_back_as_it_was() {
    let node = node();
    let mut ws = Ws::channel(&node);
    for id in [json!("a"), json!(7), json!({"x": 1})] {
        ws.say(&json!({"event": "CMD", "data": {"identity": id, "name": "sessions"}}));
        let answer: Value = ws.next();
        assert_eq!(
            answer,
            json!({"event": "gaffer:command_success", "data": {"id": id, "result": {"sessions": []}}})
        );
    }
}

#[test]
fn b5_a_message_that_is_too_large_ends_the_connection_with_its_code() {
    let node = node();
    let mut ws = Ws::channel(&node);
    // Its own end may be seen before all of it is sent.
    let _sent = ws.socket.send(Message::Text("x".repeat(300 << 10).into()));
    loop {
        match ws.socket.read() {
            Ok(Message::Close(frame)) => {
                assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(1009));
                return;
            }
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
