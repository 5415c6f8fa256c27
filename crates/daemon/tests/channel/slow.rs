//! Hazard 35: a client that does not read costs nothing but itself, and is told what it missed.

use crate::client::{SOON, Ws, node};
use gaffer_testkit::{Node, wait_until};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

fn memory_kib(node: &Node) -> u64 {
    let pid = node.daemon_pid().expect("it lives");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.trim().parse().ok())
        .expect("a size")
}

#[test]
fn hazard_35_a_channel_that_is_not_read_delays_nobody_and_catches_up() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let more = json!({"redirect_output": ["out"], "redirect_input": true, "numprocesses": 0});
    let script = "read x; seq 1 1500000; exit 0";
    ws.load("a.b", script, &more);
    let pid = &ws.command("commit", &json!(["a.b"]))["pid"];
    let (mut stalled, mut quick) = (
        Ws::open(&node, &format!("/{pid}/channel?mode=1")),
        Ws::open(&node, &format!("/{pid}/channel?mode=1")),
    );
    let mut subscribed = Ws::channel(&node);
    subscribed.subscribe(&format!("STREAM:{pid}"));
    let before = memory_kib(&node);
    ws.command("send", &json!([pid, "go\n"]));
    // More than ten megabytes, which one reads and two do not.
    let all = drain(&mut quick);
    let expected: u64 = (1..=1_500_000u64).map(|n| n.to_string().len() as u64 + 1).sum();
    assert_eq!(all, expected);
    let grown = memory_kib(&node).saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB for two readers that stand still");
    // They read on, and nothing is missing: it was in the files.
    assert_eq!(drain(&mut stalled), expected);
    let mut seen = 0;
    while seen < expected {
        let message = subscribed.next();
        assert_ne!(message["data"]["event"], "gap", "{message}");
        seen += message["data"]["data"].as_str().expect("text").len() as u64;
    }
}

/// Bytes of output until the close.
fn drain(channel: &mut Ws) -> u64 {
    let mut all = 0;
    loop {
        let message = channel.message();
        let bytes = match &message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
            Message::Close(frame) => {
                assert_eq!(frame.as_ref().map(|frame| u16::from(frame.code)), Some(1000));
                return all;
            }
            other => panic!("{other:?}"),
        };
        assert!(bytes.starts_with(b"V1 message "), "{message:?}");
        let nul = bytes.iter().position(|byte| *byte == 0).expect("a NUL");
        all += (bytes.len() - nul - 1) as u64;
    }
}

#[test]
fn hazard_35_output_that_is_not_kept_is_told_as_a_gap() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let more = json!({"redirect_output": ["out"], "redirect_input": true, "numprocesses": 0,
        "logs": {"size": "1M", "segment": "64K"}});
    ws.load(
        "a.b",
        "read x; head -c 30000000 /dev/zero | tr '\\0' z; exit 0",
        &more,
    );
    let pid = &ws.command("commit", &json!(["a.b"]))["pid"];
    let mut stalled = Ws::channel(&node);
    let topic = format!("STREAM:{pid}");
    stalled.subscribe(&topic);
    let mut channel = Ws::open(&node, &format!("/{pid}/channel?mode=1"));
    ws.subscribe("EVENTS:exit");
    ws.command("send", &json!([pid, "go\n"]));
    ws.event("EVENTS:exit", "exit");
    let (mut seen, mut missed) = (0, 0);
    while seen + missed < 30_000_000 {
        let data = stalled.next()["data"].clone();
        match data["event"].as_str() {
            Some("gap") => missed += data["missed"].as_u64().expect("a number"),
            _ => seen += data["data"].as_str().expect("text").len() as u64,
        }
    }
    assert!(seen + missed == 30_000_000 && missed > 0, "{seen} {missed}");
    // The same on a pid channel, and it goes on afterwards to its end.
    let mut told = false;
    loop {
        match channel.message() {
            Message::Text(text) if text.starts_with("V1 error gaffer_gap\0") => {
                let body = text.split_once('\0').expect("a body").1;
                let body: Value = serde_json::from_str(body).expect("JSON");
                assert_eq!((&body["error"], &body["errno"]), (&json!("GAP"), &json!(410)));
                told = true;
            }
            Message::Close(frame) => {
                assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(1000));
                break;
            }
            _ => {}
        }
    }
    assert!(told);
}

#[test]
fn hazard_35_events_that_are_not_kept_are_told_as_a_gap() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let pid = ws.load("a.b", "sleep 600", &json!({}))[0];
    let mut stalled = Ws::channel(&node);
    stalled.subscribe("EVENTS:.");
    // The ring holds 4,096 events; sockets and queues hold some more.
    for _ in 0..30_000 {
        ws.say(&json!({"event": "CMD", "data": {"identity": 1, "name": "kill", "args": [pid, "CONT"]}}));
        assert_eq!(ws.fresh()["event"], "gaffer:command_success");
    }
    let gap = stalled.event("EVENTS:.", "gap");
    assert!(gap["missed"].as_u64().expect("a number") > 0, "{gap}");
    ws.command("unload", &json!(["a.b"]));
    stalled.event("EVENTS:.", "unload");
}

#[test]
fn d28b_a_connection_that_ends_leaves_nothing_behind() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let pid = ws.load(
        "a.b",
        "while :; do echo x; sleep 0.05; done",
        &json!({"redirect_output": ["out"]}),
    )[0];
    let fds = |node: &Node| {
        let dir = format!("/proc/{}/fd", node.daemon_pid().expect("it lives"));
        std::fs::read_dir(dir).expect("readable").count()
    };
    let before = fds(&node);
    for _ in 0..5 {
        let mut others: Vec<Ws> = (0..20).map(|_| Ws::channel(&node)).collect();
        for other in &mut others {
            for topic in ["EVENTS:.", "JOB:a.b", "STATS:a.b", &format!("STREAM:{pid}")] {
                other.subscribe(topic);
            }
        }
        drop(others);
    }
    wait_until(SOON, "descriptors are given back", || fds(&node) <= before + 2);
    assert_eq!(ws.command("jobs", &json!([])), json!({"jobs": ["a.b"]}));
}
