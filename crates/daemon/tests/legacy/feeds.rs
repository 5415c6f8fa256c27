//! 0.4: feeds of section 11.2, and writing to stdin.

use crate::Old;
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A feed that is read as it comes, without its transfer coding.
struct Feed(BufReader<TcpStream>);

impl Feed {
    fn open(old: &Old, path: &str) -> Feed {
        let mut stream = TcpStream::connect(old.node.addresses()[0]).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").expect("a request");
        let mut feed = Feed(BufReader::new(stream));
        let status = feed.line();
        assert!(status.contains(" 200 "), "{path}: {status}");
        while !feed.line().trim().is_empty() {}
        feed
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        line
    }

    /// The next chunk as text.
    fn chunk(&mut self) -> String {
        let size = usize::from_str_radix(self.line().trim(), 16).expect("a size");
        let mut bytes = vec![0; size + 2];
        self.0.read_exact(&mut bytes).expect("a chunk");
        String::from_utf8_lossy(&bytes[..size]).into_owned()
    }
}

fn echo(old: &mut Old) {
    let template = json!({"name": "cat", "cmd": "cat", "redirect_output": ["out"], "redirect_input": true});
    assert_eq!(old.ask("POST", "/processes", &template).0, 200);
}

#[test]
fn s11_2_output_is_followed_and_stdin_written() {
    let mut old = Old::start();
    echo(&mut old);
    let mut plain = Feed::open(&old, "/streams/1/out?feed=continuous");
    let mut events = Feed::open(&old, "/streams/1/out?feed=eventsource");
    let mut first = Feed::open(&old, "/streams/1/out");
    assert_eq!(old.raw("POST", "/streams/1/stdin", b"hello\n").status, 200);
    assert_eq!(plain.chunk(), "hello\n");
    assert_eq!(first.chunk(), "hello\n");
    assert_eq!(first.chunk(), "", "longpoll ends after the first");
    assert_eq!(events.chunk(), "event: out\r\ndata: hello\r\n\r\n");
    assert_eq!(old.raw("POST", "/streams/1/ttin", b"more\n").status, 200, "K13");
    assert_eq!(plain.chunk(), "more\n");
    assert_eq!(old.get("/streams/1/nope").1["error"], "io_not_found");
    assert_eq!(old.get("/streams/99/out").0, 404);
}

#[test]
fn s11_1_what_is_not_redirected_cannot_be_read_or_written() {
    let mut old = Old::start();
    old.ask("POST", "/processes", &json!({"name": "web", "cmd": "sleep 1000"}));
    assert_eq!(old.get("/streams/1/out").1["error"], "io_not_redirected");
    let (status, body) = old.ask("POST", "/streams/1/stdin", &json!("x"));
    assert_eq!((status, &body["error"]), (403, &json!("forbidden_write")));
}

#[test]
fn s11_2_events_are_watched_in_each_form() {
    let mut old = Old::start();
    let mut all = Feed::open(&old, "/watch?feed=eventsource");
    let mut ends = Feed::open(&old, "/watch/exit?feed=continuous");
    let mut own = Feed::open(&old, "/watch/proc/web/spawn");
    old.ask("POST", "/processes", &json!({"name": "web", "cmd": "sleep 1000"}));
    assert!(all.chunk().starts_with("event: create\r\ndata: {"));
    let spawn = own.chunk();
    assert!(
        spawn.contains("\"event\":\"proc.web.spawn\"") && spawn.ends_with("\r\n"),
        "{spawn}"
    );
    assert_eq!(own.chunk(), "", "longpoll ends after the first");
    old.ask("DELETE", "/processes/web", &serde_json::Value::Null);
    let exit: serde_json::Value = serde_json::from_str(&ends.chunk()).expect("JSON");
    assert_eq!(
        (&exit["name"], &exit["term_signal"], &exit["pid"]),
        (&json!("web"), &json!(15), &json!(1))
    );
    assert_eq!(old.get("/watch/nonsense").1["error"], "bad_event_type");
    assert_eq!(old.get("/watch?feed=nonsense").0, 400);
}

#[test]
fn s11_2_a_quiet_feed_beats() {
    let old = Old::start();
    let mut plain = Feed::open(&old, "/watch?feed=continuous&heartbeat=0.2");
    let mut events = Feed::open(&old, "/watch?feed=eventsource&heartbeat=0.2");
    assert_eq!(plain.chunk(), "\n");
    assert_eq!(events.chunk(), ":\r\n\r\n");
}
