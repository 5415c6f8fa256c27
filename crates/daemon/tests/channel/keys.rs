//! Spec 8.2, 8.3, 9.1: without a key nothing is said but that one is needed.

use crate::client::Ws;
use gaffer_testkit::Node;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// Nobody is served over TCP without a key, and there is none.
fn locked() -> Node {
    Node::builder()
        .bind("127.0.0.1:0")
        .config("gaffer.toml", "[gaffer]\nrequire_token = true\n")
        .start()
}

#[test]
fn s8_3_a_message_before_a_key_ends_the_connection() {
    let node = locked();
    for (first, error, errno) in [
        (json!({"event": "NOP"}).to_string(), "unauthorized", 401),
        (
            "AUTH:0123456789abcdef0123456789abcdef".to_owned(),
            "forbidden",
            403,
        ),
        ("AUTH:".to_owned(), "forbidden", 403),
    ] {
        let mut ws = Ws::channel(&node);
        ws.text(&first);
        let answer = ws.fresh();
        assert_eq!(
            (&answer["event"], &answer["data"]["error"]),
            (&json!("gaffer:error"), &json!("AUTH_REQUIRED"))
        );
        let reason = answer["data"]["reason"].as_str().expect("JSON in a text");
        let reason: Value = serde_json::from_str(reason).expect("JSON");
        assert_eq!(reason, json!({"error": error, "errno": errno}), "{first}");
        ws.until_closed();
    }
}

#[test]
fn s9_1_a_pid_channel_listens_to_nothing_but_a_key() {
    let node = locked();
    for body in ["data", "AUTH:nope"] {
        let mut ws = Ws::open(&node, "/1/channel");
        let frame = Message::Text(format!("V1 message 7\0{body}").into());
        ws.socket.send(frame).expect("sent");
        let Message::Text(answer) = ws.message() else {
            panic!("no text")
        };
        let (header, body) = answer.split_once('\0').expect("a frame");
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(header, "V1 error gaffer_error");
        assert_eq!(
            (&body["error"], &body["errno"]),
            (&json!("AUTH_REQUIRED"), &json!(403))
        );
        ws.until_closed();
    }
}
