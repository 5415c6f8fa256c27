//! WebSockets, through the client that the command line uses.

use crate::node::{Node, SOON};
use futures_util::{SinkExt, StreamExt};
use gaffer_api::client::{Message, WebSocket};
use gaffer_api::types::{AttachMessage, StreamItem};
use gaffer_api::{Client, Endpoint};
use serde_json::{Value, json};

fn client(node: &Node) -> Client {
    Client::new(Endpoint::Unix(node.socket()), None)
}

async fn next(socket: &mut WebSocket) -> Message {
    let message = tokio::time::timeout(SOON, socket.next()).await;
    message.expect("in time").expect("not over").expect("not broken")
}

async fn item(socket: &mut WebSocket) -> StreamItem {
    loop {
        if let Message::Text(text) = next(socket).await {
            return serde_json::from_str(&text).expect("an item");
        }
    }
}

async fn say(socket: &mut WebSocket, message: &Value) {
    socket
        .send(Message::Text(message.to_string().into()))
        .await
        .expect("taken");
}

#[tokio::test]
async fn one_connection_carries_events_lines_and_samples() {
    let node = Node::start();
    node.put(
        "web",
        "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.02; done",
        &json!({}),
    );
    let mut socket = client(&node).stream().await.expect("connects");
    say(
        &mut socket,
        &json!({"type": "subscribe", "id": 1, "topic": {"kind": "events", "after": "start"}}),
    )
    .await;
    let logs = json!({"kind": "logs", "session": "default", "job": "web"});
    say(&mut socket, &json!({"type": "subscribe", "id": 2, "topic": logs})).await;
    say(
        &mut socket,
        &json!({"type": "subscribe", "id": 3, "topic": {"kind": "stats"}}),
    )
    .await;
    say(
        &mut socket,
        &json!({"type": "subscribe", "id": 3, "topic": {"kind": "stats"}}),
    )
    .await;
    say(
        &mut socket,
        &json!({"type": "subscribe", "id": 4, "topic": {"kind": "logs", "session": "default", "job": "no"}}),
    )
    .await;
    let (mut events, mut lines, mut samples, mut refused) = (0, Vec::new(), 0, 0);
    let mut cursor = String::new();
    while events < 2 || lines.len() < 5 || samples < 1 || refused < 2 {
        match item(&mut socket).await {
            StreamItem::Event { id: 1, .. } => events += 1,
            StreamItem::Log {
                id: 2,
                line,
                cursor: at,
            } if line.stream == "stdout" => {
                lines.push(line.text);
                cursor = at;
            }
            StreamItem::Stats { id: 3, runs } => samples += runs.len(),
            StreamItem::Error { .. } => refused += 1,
            _ => {}
        }
    }
    drop(socket);
    let numbers: Vec<u32> = lines.iter().map(|text| number(text)).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{numbers:?}"
    );

    resume(&node, &cursor, numbers.last().copied().expect("lines came")).await;
}

/// The number in `line 7`.
fn number(text: &str) -> u32 {
    text.strip_prefix("line ")
        .and_then(|n| n.parse().ok())
        .expect("a number")
}

async fn resume(node: &Node, cursor: &str, last: u32) {
    // Resumed behind the last line: nothing twice, nothing lost.
    let mut socket = client(node).stream().await.expect("connects");
    let logs = json!({"kind": "logs", "session": "default", "job": "web", "after": cursor});
    say(&mut socket, &json!({"type": "subscribe", "id": 1, "topic": logs})).await;
    loop {
        if let StreamItem::Log { line, .. } = item(&mut socket).await
            && line.stream == "stdout"
        {
            assert_eq!(number(&line.text), last + 1);
            return;
        }
    }
}

#[tokio::test]
async fn joining_a_run_shows_its_output_takes_input_and_tells_the_end() {
    let node = Node::start();
    let script = "echo hello; read line; echo got $line; exit 4";
    node.put("cat", script, &json!({"stdin": "pipe", "restart": "never"}));
    let client = client(&node);
    let job = client.job("default", "cat", false).await.expect("it is there");
    let run = job.instances[0].run.clone().expect("an id");
    let mut socket = client.run_attach(&run, false).await.expect("connects");
    socket
        .send(Message::Binary(b"word\n".to_vec().into()))
        .await
        .expect("taken");
    let mut output = Vec::new();
    let ended = loop {
        match next(&mut socket).await {
            Message::Binary(bytes) => output.extend_from_slice(&bytes),
            Message::Text(text) => match serde_json::from_str(&text).expect("a message") {
                AttachMessage::Ended { exit_code, .. } => break exit_code,
                AttachMessage::Error { error } => panic!("{error:?}"),
                _ => {}
            },
            _ => {}
        }
    };
    assert_eq!(
        (String::from_utf8_lossy(&output).as_ref(), ended),
        ("hello\ngot word\n", Some(4))
    );
    assert_eq!(
        client
            .run_attach("zzzz", false)
            .await
            .err()
            .map(|error| error.exit_code()),
        Some(3)
    );
}

#[tokio::test]
async fn the_client_keeps_its_connection_and_survives_a_daemon_that_was_replaced() {
    let node = Node::start();
    let client = client(&node);
    for _ in 0..3 {
        assert_eq!(client.node().await.expect("it answers").epoch, 1);
    }
    let dir = node.kill9();
    let error = client.node().await.expect_err("it is gone");
    assert_eq!(error.exit_code(), 69);
    let _node = Node::start_in(dir, &["--bind", "none"]);
    assert_eq!(client.node().await.expect("it answers").epoch, 2);
    let missing = client
        .job("default", "none", false)
        .await
        .expect_err("no such job");
    assert_eq!(missing.exit_code(), 3);
}

#[tokio::test]
async fn a_followed_run_ends_with_it() {
    let node = Node::start();
    node.put(
        "once",
        "echo a; sleep 0.3; printf b; exit 1",
        &json!({"restart": "never"}),
    );
    let client = client(&node);
    let job = client.job("default", "once", false).await.expect("it is there");
    let run = job.instances[0].run.clone().expect("an id");
    let (_, mut bytes) = client
        .run_log(&run, "stdout", "start", true)
        .await
        .expect("opens");
    let mut all = Vec::new();
    while let Some(piece) = tokio::time::timeout(SOON, bytes.next()).await.expect("in time") {
        all.extend_from_slice(&piece.expect("not broken"));
    }
    assert_eq!(all, b"a\nb");
    let wanted = gaffer_api::routes::LogQuery {
        follow: true,
        run: Some(run),
        ..Default::default()
    };
    let lines = client.job_logs("default", "once", &wanted).await.expect("opens");
    let lines: Vec<String> =
        tokio::time::timeout(SOON, lines.map(|line| line.expect("a line").text).collect())
            .await
            .expect("it ends");
    assert_eq!(lines, ["a", "b"]);
}
