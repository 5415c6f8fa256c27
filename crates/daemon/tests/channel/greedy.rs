//! Hazard B5 and B9.3 on the old API: many connections, headers and bodies that never end, peers that are silent.

use crate::client::{SOON, Ws, connect, http, node};
use gaffer_testkit::Node;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;

#[test]
fn b9_more_connections_than_are_served_wait_and_harm_nobody() {
    let mut node = Node::builder().bind("127.0.0.1:0").open_files(512, 512).start();
    let address = node.addresses()[0];
    // More than a daemon with so few descriptors serves at once; the rest is in the queue of the kernel.
    let mut idle: Vec<TcpStream> = Vec::new();
    for _ in 0..1_500 {
        match TcpStream::connect_timeout(&address, std::time::Duration::from_millis(200)) {
            Ok(stream) => idle.push(stream),
            // The queue is full too.
            Err(_) => break,
        }
    }
    assert!(idle.len() > 300, "{}", idle.len());
    // Those who come by the control socket are served, and jobs are kept.
    let spec = json!({"cmd": [node.fixture(), "idle"], "cwd": "/"});
    node.put_job("s", "web", &spec);
    node.wait_job("s", "web", SOON, |job| job["state"] == "running");
    drop(idle);
    assert_eq!(http(&node, "GET", "/ping", "", "").0, 200, "and the others again");
}

#[test]
fn b9_hundreds_of_channels_at_once_are_served() {
    let node = node();
    let mut first = Ws::channel(&node);
    let mut all: Vec<Ws> = (0..300).map(|_| Ws::channel(&node)).collect();
    for ws in &mut all {
        ws.subscribe("EVENTS:load");
    }
    first.load("a.b", "sleep 600", &json!({"start": false}));
    for ws in &mut all {
        assert_eq!(ws.event("EVENTS:load", "load")["name"], "a.b");
    }
}

/// Sends this and no more: how it is ended.
fn starve(mut stream: TcpStream, sent: &str) -> String {
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(60)))
        .expect("a timeout");
    stream.write_all(sent.as_bytes()).expect("sent");
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _reset = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn b9_slowloris_headers_bodies_and_silent_peers_are_ended_and_load_nothing() {
    let node = node();
    let host = node.addresses()[0];
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n{{\"name\":")
    };
    let cases = [
        ("nothing at all", String::new()),
        (
            "half a header",
            format!("POST /jobs/s HTTP/1.1\r\nHost: {host}\r\nX-"),
        ),
        ("half a body", head("/jobs/s")),
        ("half a body of 0.4", head("/processes")),
        ("half of what SockJS sends", head("/channel/0/one/xhr_send")),
        (
            "a chunk that does not end",
            format!("POST /jobs/s HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{{"),
        ),
    ];
    std::thread::scope(|scope| {
        let ended: Vec<_> = cases
            .iter()
            .map(|(what, sent)| {
                let stream = connect(&node);
                (what, scope.spawn(move || starve(stream, sent)))
            })
            .collect();
        assert_eq!(
            http(&node, "GET", "/ping", "", "").0,
            200,
            "others are served meanwhile"
        );
        for (what, ended) in ended {
            let answer = ended.join().expect("an end");
            let fine = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
            assert!(fine, "{what}: {answer}");
        }
    });
    assert_eq!(
        Ws::channel(&node).command("jobs", &json!([])),
        json!({"jobs": []})
    );
}
