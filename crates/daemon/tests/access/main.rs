//! Who may do what: the real program, its credentials, its certificates.

mod keys;
mod legacy;
mod matrix;
#[path = "../api/node.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod node;
mod secrets;
mod streams;
mod tls;

use crate::node::{Answer, Node, gafferd, temp_dir};
use serde_json::{Value, json};

/// Password of the first admin in these tests.
const PASSWORD: &str = "correct:horse";

/// A daemon that requires keys, with an admin `root`; its key.
fn guarded() -> (Node, String) {
    let dir = temp_dir();
    let key = create_admin(dir.path(), "root");
    let node = Node::start_in(dir, &["--bind", "127.0.0.1:0", "--require-key"]);
    (node, key)
}

fn create_admin(dir: &std::path::Path, name: &str) -> String {
    let mut command = gafferd(dir);
    command.args(["--create-admin-user", "--username", name, "--password", PASSWORD]);
    let output = command.output().expect("gafferd runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.starts_with(&format!("User '{name}' created.\n")), "{text}");
    let key = text.lines().find_map(|line| line.strip_prefix("API Key: "));
    key.expect("a key").to_owned()
}

/// A request of the original's client: over TCP, with a key.
fn with_key(node: &Node, method: &str, path: &str, key: &str, body: &Value) -> Answer {
    let headers = format!("host: localhost\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n");
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    node.over_tcp(method, path, &headers, text.as_bytes())
}

/// A request over TCP with a token.
fn with_token(node: &Node, method: &str, path: &str, token: &str) -> Answer {
    let headers =
        format!("host: localhost\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n");
    node.over_tcp(method, path, &headers, b"{}")
}

/// Makes a token over the control socket; its text.
fn token(node: &Node, request: &Value) -> String {
    let answer = node.ask("POST", "/v1/tokens", Some(request));
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["token"].as_str().expect("a text").to_owned()
}

fn read_token(node: &Node, name: &str) -> String {
    token(node, &json!({"name": name, "scope": "read"}))
}
