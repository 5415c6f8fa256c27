//! Hazards B1 and B2 on the old API: switched off nothing of it is there, and no web page elsewhere can use it.

use crate::client::{Ws, http, node};
use gaffer_testkit::Node;
use gafferd::legacy::http::ROUTES;
use serde_json::{Value, json};

/// Paths of channels, and the methods that open them.
const CHANNELS: &[(&str, &str)] = &[
    ("GET", "/channel"),
    ("GET", "/channel/"),
    ("GET", "/channel/info"),
    ("GET", "/channel/iframe.html"),
    ("POST", "/channel/chunking_test"),
    ("GET", "/channel/websocket"),
    ("GET", "/channel/0/one/websocket"),
    ("POST", "/channel/0/one/xhr"),
    ("POST", "/channel/0/one/xhr_send"),
    ("POST", "/channel/0/one/xhr_streaming"),
    ("GET", "/channel/0/one/eventsource"),
    ("GET", "/channel/0/one/htmlfile?c=x"),
    ("GET", "/channel/0/one/jsonp?c=x"),
    ("POST", "/channel/0/one/jsonp_send"),
    ("GET", "/1/channel"),
    ("GET", "/1/channel/out?mode=1"),
    ("GET", "/wstreams/1"),
];

const KEYS: &[(&str, &str)] = &[
    ("GET", "/auth"),
    ("HEAD", "/auth"),
    ("GET", "/keys"),
    ("POST", "/keys"),
    ("GET", "/keys/k"),
    ("DELETE", "/keys/k"),
    ("GET", "/users"),
    ("POST", "/users"),
    ("PUT", "/users/u"),
    ("PUT", "/users/u/password"),
    ("PUT", "/users/u/key"),
];

/// Every method of every path of the old API, with something in place of each part.
fn all() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (route, methods) in ROUTES {
        let path = route
            .replace(":session", "s")
            .replace(":job", "web")
            .replace(":pid", "1");
        let path: Vec<&str> = path
            .split('/')
            .map(|part| part.strip_prefix(':').map_or(part, |_| "x"))
            .collect();
        let path = path.join("/");
        all.extend(methods.split(' ').map(|method| (method.to_owned(), path.clone())));
    }
    let fixed = CHANNELS.iter().chain(KEYS);
    all.extend(fixed.map(|(method, path)| ((*method).to_owned(), (*path).to_owned())));
    assert!(all.len() > 70, "{}", all.len());
    all
}

const UPGRADE: &str =
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn s6_legacy_api_false_hides_every_route_and_every_channel() {
    let node = Node::builder()
        .bind("127.0.0.1:0")
        .config("gaffer.toml", "[gaffer]\nlegacy_api = false\n")
        .start();
    for (method, path) in all() {
        for headers in ["", UPGRADE] {
            let (status, ..) = http(&node, &method, &path, headers, "");
            assert_eq!(status, 404, "{method} {path} {headers}");
        }
        let (status, ..) = http(&node, "OPTIONS", &path, "", "");
        assert_eq!(status, 404, "OPTIONS {path}");
    }
    assert_eq!(http(&node, "GET", "/v1/jobs", "", "").0, 200);
}

/// As `http`, for a host and with headers of somebody's choice.
fn from(node: &Node, (method, path): (&str, &str), headers: &str, body: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = crate::client::connect(node);
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.expect("a status"), text.to_lowercase())
}

#[test]
fn b9_b2_a_foreign_web_page_gets_nothing_from_any_old_route_or_channel() {
    let node = node();
    let mut ws = Ws::channel(&node);
    ws.load("s.web", "exec sleep 600", &json!({}));
    let before: Value = ws.command("info", &json!(["s.web"]));
    let own = node.addresses()[0];
    for (method, path) in all() {
        for foreign in [
            "Host: evil.test\r\n".to_owned(),
            "Host: evil.test\r\nOrigin: http://evil.test\r\n".to_owned(),
            format!("Host: {own}\r\nOrigin: http://evil.test\r\n"),
            format!("Host: {own}\r\nOrigin: null\r\n"),
            format!("Host: {own}\r\nSec-Fetch-Site: cross-site\r\n"),
        ] {
            for more in ["", "Connection: Upgrade\r\n"] {
                let upgrade = if more.is_empty() { "" } else { UPGRADE };
                let headers = format!("{foreign}{more}{upgrade}");
                let (status, text) = from(&node, (&method, &path), &headers, "");
                assert_eq!(status, 403, "{method} {path} {headers}");
                assert!(
                    !text.contains("access-control-allow-origin"),
                    "{method} {path}: {text}"
                );
            }
        }
    }
    assert_eq!(
        ws.command("info", &json!(["s.web"])),
        before,
        "nothing of it has happened"
    );
}

#[test]
fn b2_a_form_of_a_page_cannot_change_anything_by_a_text_that_browsers_send_unasked() {
    let node = node();
    let own = node.addresses()[0];
    let template = r#"{"name": "x", "cmd": "sleep 600"}"#;
    // What a page may send without asking first: a form, text/plain, and SockJS's own xhr_send.
    for (path, body) in [
        ("/jobs/s", template),
        ("/processes", template),
        ("/channel/0/one/xhr_send", r#"["{}"]"#),
        ("/channel/0/one/jsonp_send", r#"["{}"]"#),
    ] {
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
        ] {
            for site in [
                "Origin: http://evil.test",
                "Sec-Fetch-Site: cross-site",
                "Sec-Fetch-Site: same-site",
            ] {
                let headers = format!("Host: {own}\r\n{site}\r\nContent-Type: {kind}\r\n");
                let (status, _) = from(&node, ("POST", path), &headers, body);
                assert_eq!(status, 403, "{path} {headers}");
            }
        }
    }
    assert_eq!(
        Ws::channel(&node).command("jobs", &json!([])),
        json!({"jobs": []})
    );
}

#[test]
fn d36_a_page_that_is_listed_may_ask_first_and_is_answered_with_its_origin_everywhere() {
    let node = Node::builder()
        .bind("127.0.0.1:0")
        .config(
            "gaffer.toml",
            "[gaffer]\nlegacy_origins = [\"https://ok.test\"]\n",
        )
        .start();
    let own = node.addresses()[0];
    let listed = format!("Host: {own}\r\nOrigin: https://ok.test\r\nSec-Fetch-Site: cross-site\r\n");
    for path in [
        "/jobs",
        "/jobs/s",
        "/auth",
        "/keys",
        "/processes",
        "/ping",
        "/channel/info",
    ] {
        let asks = format!("{listed}Access-Control-Request-Method: POST\r\n");
        let (status, text) = from(&node, ("OPTIONS", path), &asks, "");
        assert_eq!(status, 204, "{path}");
        for header in [
            "access-control-allow-origin: https://ok.test",
            "access-control-allow-methods: post, get, put, delete, options",
            "access-control-max-age: 86400",
            "x-api-key",
            "access-control-allow-credentials: true",
        ] {
            assert!(text.contains(header), "{path}: {header} in {text}");
        }
    }
    let (status, text) = from(&node, ("GET", "/jobs"), &listed, "");
    assert_eq!(status, 200);
    assert!(
        text.contains("access-control-allow-origin: https://ok.test"),
        "{text}"
    );
    // The native API is not for it.
    assert_eq!(from(&node, ("GET", "/v1/jobs"), &listed, "").0, 403);
    // Also a channel.
    let upgrade = format!("{listed}{UPGRADE}Connection: Upgrade\r\n").replace("Connection: close\r\n", "");
    let mut stream = crate::client::connect(&node);
    use std::io::{Read, Write};
    write!(stream, "GET /channel/websocket HTTP/1.1\r\n{upgrade}\r\n").expect("sent");
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("a head");
    assert_eq!(&head, b"HTTP/1.1 101");
}
