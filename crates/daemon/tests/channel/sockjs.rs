//! Spec 8.1: SockJS over raw HTTP, each transport.

use crate::client::{SOON, Ws, connect, http, node, send};
use gaffer_testkit::{Node, wait_until};
use serde_json::json;
use std::io::Read;
use std::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

const JOBS: &str = r#"{"event":"CMD","data":{"identity":"1","name":"jobs"}}"#;

fn quoted(text: &str) -> String {
    json!([text]).to_string()
}

fn post(node: &Node, path: &str, body: &str) -> (u16, String) {
    let (status, _, body) = http(node, "POST", path, "", body);
    (status, body)
}

/// Reads a streaming answer up to this text.
fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let so_far = String::from_utf8_lossy(&seen).into_owned();
        if so_far.contains(text) {
            return so_far;
        }
        let read = stream.read(&mut buffer).expect("read");
        assert!(read > 0, "ended before {text}: {so_far}");
        seen.extend_from_slice(&buffer[..read]);
    }
}

#[test]
fn s8_1_greeting_info_and_helpers() {
    let node = node();
    for path in ["/channel", "/channel/"] {
        let (status, head, body) = http(&node, "GET", path, "", "");
        assert_eq!((status, body.as_str()), (200, "Welcome to SockJS!\n"), "{path}");
        assert!(head.contains("content-type: text/plain"), "{head}");
    }
    let (status, _, body) = http(&node, "GET", "/channel/info", "", "");
    let info: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        (status, &info["websocket"], &info["cookie_needed"]),
        (200, &json!(true), &json!(true))
    );
    assert_eq!(info["origins"], json!(["*:*"]));
    let other: serde_json::Value =
        serde_json::from_str(&http(&node, "GET", "/channel/info", "", "").2).expect("JSON");
    assert!(info["entropy"].is_u64() && info["entropy"] != other["entropy"]);
    let (status, head, body) = http(&node, "GET", "/channel/iframe-0.3.4.html", "", "");
    assert!(
        status == 200 && head.contains("text/html") && body.contains("SockJS hidden iframe"),
        "{head}"
    );
    let (_, _, body) = http(&node, "POST", "/channel/chunking_test", "", "");
    assert_eq!(body, format!("h\n{}h\n{}", " ".repeat(2048), "h\n".repeat(5)));
    for path in [
        "/channel/nothing",
        "/channel/a/b",
        "/channel/a.b/c/xhr",
        "/channel/a/b/smoke",
        "/channel/a/b/xhr/",
    ] {
        assert_eq!(http(&node, "GET", path, "", "").0, 404, "{path}");
    }
    assert_eq!(http(&node, "GET", "/channel/a/b/xhr", "", "").0, 405);
    assert_eq!(http(&node, "OPTIONS", "/channel/a/b/xhr", "", "").0, 204);
}

#[test]
fn s8_1_polling() {
    let node = node();
    let (status, head, body) = http(&node, "POST", "/channel/000/poll/xhr", "", "");
    assert_eq!((status, body.as_str()), (200, "o\n"));
    assert!(head.contains("set-cookie: jsessionid=dummy; path=/"), "{head}");
    assert!(
        head.contains("content-type: application/javascript; charset=utf-8"),
        "{head}"
    );
    let sent = http(
        &node,
        "POST",
        "/channel/000/poll/xhr_send",
        "Cookie: JSESSIONID=abc\r\n",
        &quoted(JOBS),
    );
    assert_eq!(sent.0, 204);
    assert!(
        sent.1.contains("set-cookie: jsessionid=abc; path=/"),
        "{}",
        sent.1
    );
    let (_, body) = post(&node, "/channel/000/poll/xhr", "");
    let frame: Vec<String> =
        serde_json::from_str(body.trim().strip_prefix('a').expect("messages")).expect("texts");
    let message: serde_json::Value = serde_json::from_str(&frame[0]).expect("JSON");
    assert_eq!(message["data"]["result"], json!({"jobs": []}));
    for (body, why) in [
        ("", "Payload expected."),
        ("[\"x", "Broken JSON encoding."),
        ("{}", "Broken JSON encoding."),
    ] {
        assert_eq!(
            post(&node, "/channel/000/poll/xhr_send", body),
            (400, why.to_owned())
        );
    }
    assert_eq!(post(&node, "/channel/000/none/xhr_send", &quoted(JOBS)).0, 404);
}

#[test]
fn s8_1_only_one_connection_receives_and_one_that_breaks_off_ends_the_session() {
    let node = node();
    assert_eq!(post(&node, "/channel/a/s/xhr", "").1, "o\n");
    let mut first = connect(&node);
    send(&mut first, &node, "POST", "/channel/a/s/xhr_streaming", "", "");
    read_until(&mut first, &"h".repeat(2048));
    assert_eq!(
        post(&node, "/channel/a/s/xhr", "").1,
        "c[2010,\"Another connection still open\"]\n"
    );
    drop(first);
    wait_until(SOON, "the session is interrupted", || {
        let (_, body) = post(&node, "/channel/a/s/xhr", "");
        body == "c[1002,\"Connection interrupted\"]\n"
    });
    // Five seconds later it is forgotten, and the name begins anew.
    wait_until(SOON, "the session is dead", || {
        post(&node, "/channel/a/s/xhr_send", &quoted(JOBS)).0 == 404
    });
}

#[test]
fn s8_1_streaming_transports_carry_the_same() {
    let node = node();
    for (name, query, before, frame) in [
        ("xhr_streaming", "", "o\n", "a["),
        ("eventsource", "", "data: o\r\n\r\n", "data: a["),
        ("htmlfile", "?c=cb", "p(\"o\");", "p(\"a["),
    ] {
        let method = if name == "xhr_streaming" { "POST" } else { "GET" };
        let mut stream = connect(&node);
        send(
            &mut stream,
            &node,
            method,
            &format!("/channel/x/{name}/{name}{query}"),
            "",
            "",
        );
        let head = read_until(&mut stream, before);
        if name == "htmlfile" {
            assert!(head.contains("var c = parent.cb;"), "{head}");
        }
        assert_eq!(
            post(&node, &format!("/channel/x/{name}/xhr_send"), &quoted(JOBS)).0,
            204,
            "{name}"
        );
        let text = read_until(&mut stream, "command_success");
        assert!(text.contains(frame), "{name}: {text}");
    }
    assert_eq!(http(&node, "GET", "/channel/x/h/htmlfile", "", "").0, 400);
    assert_eq!(
        http(&node, "GET", "/channel/x/h/htmlfile?c=%3Cscript%3E", "", "").0,
        400
    );
}

#[test]
fn s8_1_a_streaming_answer_ends_after_128_kib() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let more = json!({"redirect_output": ["out"], "redirect_input": true});
    let pid = ws.load(
        "a.b",
        "read x; head -c 300000 /dev/zero | tr '\\0' x; exec sleep 600",
        &more,
    )[0];
    let mut stream = connect(&node);
    send(&mut stream, &node, "POST", "/channel/x/big/xhr_streaming", "", "");
    read_until(&mut stream, "o\n");
    let subscribe = json!({"event": "SUB", "data": {"topic": format!("STREAM:{pid}")}}).to_string();
    assert_eq!(post(&node, "/channel/x/big/xhr_send", &quoted(&subscribe)).0, 204);
    read_until(&mut stream, "subscription_success");
    ws.command("send", &json!([pid, "go\n"]));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("it ends");
    assert!((100 << 10..250 << 10).contains(&rest.len()), "{}", rest.len());
    // The session goes on with the next connection.
    assert!(post(&node, "/channel/x/big/xhr", "").1.starts_with("a["));
}

#[test]
fn s8_1_jsonp() {
    let node = node();
    let (status, _, body) = http(&node, "GET", "/channel/x/j/jsonp?c=call", "", "");
    assert_eq!((status, body.as_str()), (200, "call(\"o\");\r\n"));
    let form = "Content-Type: application/x-www-form-urlencoded\r\nX-Gaffer: 1\r\n";
    let encoded: String = quoted(JOBS).bytes().map(|byte| format!("%{byte:02X}")).collect();
    let (status, _, body) = http(
        &node,
        "POST",
        "/channel/x/j/jsonp_send",
        form,
        &format!("d={encoded}"),
    );
    assert_eq!((status, body.as_str()), (200, "ok"));
    let (_, _, body) = http(&node, "GET", "/channel/x/j/jsonp?c=call", "", "");
    assert!(
        body.starts_with("call(\"a[") && body.contains("command_success"),
        "{body}"
    );
    assert_eq!(http(&node, "GET", "/channel/x/j/jsonp", "", "").0, 400);
}

#[test]
fn s8_1_websocket_with_frames() {
    let node = node();
    let mut ws = Ws::open(&node, "/channel/000/any/websocket");
    assert_eq!(ws.message(), Message::Text("o".into()));
    ws.text("");
    ws.text(&quoted(JOBS));
    let Message::Text(frame) = ws.message() else {
        panic!("no text")
    };
    assert!(
        frame.starts_with("a[\"") && frame.contains("command_success"),
        "{frame}"
    );
    ws.text(&json!(JOBS).to_string());
    assert!(matches!(ws.message(), Message::Text(_)));
    ws.text("[\"broken");
    ws.until_closed();
}
