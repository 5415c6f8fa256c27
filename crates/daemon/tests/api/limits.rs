//! Everything has a bound, and says so.

use crate::node::{Node, SOON, parse};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

#[test]
fn a_body_of_10_mib_is_refused_and_the_daemon_goes_on() {
    let node = Node::start();
    let headers = "host: localhost\r\ncontent-type: application/json\r\n";
    let body = vec![b' '; 10 << 20];
    for answer in [
        node.over_unix("POST", "/v1/apply", headers, &body),
        node.over_tcp("PUT", "/v1/jobs/default/web", headers, &body),
    ] {
        assert_eq!((answer.status, answer.code().as_str()), (413, "body-too-large"));
    }
    assert_eq!(node.get("/healthz").status, 200);
}

#[test]
fn a_body_without_an_announced_length_is_bounded_too() {
    let node = Node::start();
    let mut stream = UnixStream::connect(node.socket()).expect("connects");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    let head = "POST /v1/apply HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("the head is taken");
    let piece = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    for _ in 0..6 {
        stream.write_all(piece.as_bytes()).expect("it is read away");
    }
    stream.write_all(b"0\r\n\r\n").expect("the end is taken");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    assert_eq!(parse(&bytes).code(), "body-too-large");
}

#[test]
fn a_header_that_never_ends_is_cut_off_and_others_are_served_meanwhile() {
    let node = Node::start();
    let address = node.address.expect("listens");
    let mut slow: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("connects");
            stream
                .write_all(b"GET /v1/jobs HTTP/1.1\r\nhost: loc")
                .expect("taken");
            stream.set_read_timeout(Some(SOON)).expect("a timeout");
            stream
        })
        .collect();
    assert_eq!(
        node.over_tcp("GET", "/healthz", "host: localhost\r\n", b"")
            .status,
        200
    );
    let began = Instant::now();
    for stream in &mut slow {
        let mut rest = Vec::new();
        // Closed or reset: either way it is over.
        let _closed = stream.read_to_end(&mut rest);
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn a_header_that_is_too_large_is_refused() {
    let node = Node::start();
    let headers = format!("host: localhost\r\nx-long: {}\r\n", "x".repeat(64 << 10));
    let answer = node.over_unix("GET", "/healthz", &headers, b"");
    assert!((400..=431).contains(&answer.status), "{}", answer.head);
    assert_eq!(node.get("/healthz").status, 200);
}

#[test]
fn deep_json_is_refused_not_followed() {
    let node = Node::start();
    let body = "[".repeat(100_000);
    let headers = "host: localhost\r\ncontent-type: application/json\r\n";
    let answer = node.over_unix("PUT", "/v1/jobs/default/web", headers, body.as_bytes());
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad-request"));
}

#[test]
fn errors_have_one_shape_also_those_of_the_router() {
    let node = Node::start();
    let cases = [
        ("GET", "/nonsense", 404, "route-not-found"),
        ("GET", "/v1/nonsense", 404, "route-not-found"),
        ("DELETE", "/v1/jobs", 405, "method-not-allowed"),
        ("OPTIONS", "/v1/jobs", 405, "method-not-allowed"),
        ("GET", "/v1/jobs/default/..%2f..%2fetc", 400, "bad-name"),
        ("GET", "/v1/jobs/default/%00", 400, "bad-name"),
        ("GET", "/v1/jobs/default/17", 400, "bad-name"),
        ("GET", "/v1/jobs/default/none", 404, "job-not-found"),
        ("GET", "/v1/jobs?limit=0", 400, "bad-value"),
        ("GET", "/v1/jobs?what=1", 400, "bad-request"),
        ("GET", "/v1/jobs/default/none/instances/x", 400, "bad-name"),
        ("POST", "/v1/jobs/default/none/explode", 404, "route-not-found"),
        (
            "POST",
            "/v1/jobs/default/none/stop?wait=soon",
            404,
            "job-not-found",
        ),
        ("GET", "/v1/nodes/nobody", 404, "node-not-found"),
        ("GET", "/v1/runs/zzzz", 404, "run-not-found"),
        ("GET", "/v1/runs/..%2f..", 404, "run-not-found"),
        ("GET", "/v1/runs?prefix=a", 400, "bad-value"),
        ("GET", "/v1/operations/op-99", 404, "operation-not-found"),
        ("GET", "/v1/operations/99", 404, "operation-not-found"),
        ("GET", "/v1/events?after=x", 400, "bad-value"),
        ("GET", "/v1/events?filter=Run", 400, "bad-value"),
        ("GET", "/v1/stream", 400, "bad-request"),
        ("POST", "/v1/node/reload", 409, "wrong-state"),
    ];
    for (method, path, status, code) in cases {
        let answer = node.ask(method, path, None);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{method} {path} {answer:?}"
        );
        let error = &answer.json()["error"];
        assert!(
            error["message"].as_str().is_some_and(|text| !text.is_empty()),
            "{path}"
        );
        assert!(
            error["request"]
                .as_str()
                .is_some_and(|text| text.starts_with("req-")),
            "{path}"
        );
    }
    let wrong = node.ask(
        "POST",
        "/v1/jobs/default/none/stop",
        Some(&serde_json::json!({"graze_ms": 1})),
    );
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "bad-request"));
}

#[test]
fn the_committed_document_is_the_one_that_is_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/gaffer.json");
    let node = Node::start();
    let served = node.get("/v1/openapi.json");
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi")).expect("a folder");
        std::fs::write(path, &served.body).expect("writable");
    }
    let committed = std::fs::read(path).expect("openapi/gaffer.json is committed");
    assert!(
        committed == served.body,
        "openapi/gaffer.json is old: gafferd --print-openapi > openapi/gaffer.json"
    );
}
