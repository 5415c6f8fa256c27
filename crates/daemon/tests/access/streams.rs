//! What is revoked or expires ends at once, also in the middle of a stream.

use crate::node::Node;
use crate::{guarded, read_token, token, with_token};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Opens a stream and reads its head.
fn open(node: &Node, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.address.expect("listens")).expect("connects");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").expect("sent");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(
            stream.read(&mut byte).expect("a head"),
            1,
            "{}",
            String::from_utf8_lossy(&head)
        );
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    assert!(
        head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 101"),
        "{head}"
    );
    stream
}

/// Reads to the end; a reset is one, a timeout is none.
fn ends(mut stream: TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn b9_a_token_that_is_revoked_ends_its_streams_and_no_others() {
    let (node, _) = guarded();
    let (gone, stays) = (read_token(&node, "gone"), read_token(&node, "stays"));
    let with = |token: &str, more: &str| format!("authorization: Bearer {token}\r\n{more}");
    let follow = "/v1/events?follow=true";
    let lines = open(&node, follow, &with(&gone, ""));
    let sse = open(&node, follow, &with(&gone, "accept: text/event-stream\r\n"));
    let socket = open(&node, "/v1/stream", &with(&gone, UPGRADE));
    let logs = open(&node, "/v1/logs?follow=true", &with(&gone, ""));
    let mut other = open(&node, follow, &with(&stays, ""));
    assert_eq!(node.ask("DELETE", "/v1/tokens/gone", None).status, 204);
    for (what, stream) in [
        ("lines", lines),
        ("events", sse),
        ("socket", socket),
        ("logs", logs),
    ] {
        assert!(ends(stream), "{what} goes on");
    }
    assert_eq!(with_token(&node, "GET", "/v1/jobs", &gone).status, 401);
    node.put("canary", "exec sleep 1000", &json!({}));
    let mut byte = [0];
    assert_eq!(
        other.read(&mut byte).expect("an event"),
        1,
        "the other stream goes on"
    );
}

#[test]
fn b9_a_token_that_expires_ends_its_streams() {
    let (node, _) = guarded();
    let short = token(&node, &json!({"name": "short", "scope": "read", "expires": "3s"}));
    let stream = open(
        &node,
        "/v1/events?follow=true",
        &format!("authorization: Bearer {short}\r\n"),
    );
    assert!(ends(stream));
    assert_eq!(with_token(&node, "GET", "/v1/jobs", &short).status, 401);
}

#[test]
fn a_token_may_revoke_itself_and_is_answered() {
    let (node, _) = guarded();
    let own = read_token(&node, "own");
    assert_eq!(with_token(&node, "DELETE", "/v1/tokens/own", &own).status, 204);
    assert_eq!(with_token(&node, "GET", "/v1/tokens/own", &own).status, 401);
}
