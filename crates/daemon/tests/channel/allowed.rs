//! Spec 7.3, 8.4, 8.5 and 9.2: what a key allows on channels, topic by topic and command by command (D27, D45), and that its
//! end is theirs.

use crate::client::{SOON, Ws, connect, guarded, http, make_key, send};
use gaffer_testkit::{Node, wait_until};
use serde_json::{Value, json};
use std::io::Read;
use tokio_tungstenite::tungstenite::Message;

/// Strengths of a key on `shop.web`, weakest first.
const KINDS: [&str; 6] = [
    "nothing",
    "read",
    "write",
    "manage job",
    "manage session",
    "manage all",
];

fn permissions(kind: &str) -> Value {
    match kind {
        "read" => json!({"read": ["shop.web"]}),
        "write" => json!({"write": ["shop.web"]}),
        "manage job" => json!({"manage": ["shop.web"]}),
        "manage session" => json!({"manage": ["shop"]}),
        "manage all" => json!({"manage": ["*"]}),
        _ => json!({"manage": ["bank", "shop.we"], "read": ["web"]}),
    }
}

/// A node with a job that reads and writes, and a key of every kind.
struct Shop {
    node: Node,
    admin: String,
    keys: Vec<(&'static str, String)>,
    root: Ws,
    pid: u64,
}

impl Shop {
    fn open() -> Shop {
        let (node, admin) = guarded();
        let keys = KINDS
            .iter()
            .map(|kind| (*kind, make_key(&node, &admin, &permissions(kind))))
            .collect();
        let mut root = Ws::with_key(&node, &admin);
        let more = json!({"redirect_output": ["out"], "redirect_input": true, "custom_streams": ["side"]});
        let pid = root.load("shop.web", "exec cat", &more)[0];
        Shop {
            node,
            admin,
            keys,
            root,
            pid,
        }
    }

    fn key(&self, kind: &str) -> &str {
        let found = self.keys.iter().find(|(own, _)| *own == kind);
        &found.expect("a kind").1
    }

    fn pid(&mut self) -> u64 {
        let root = &mut self.root;
        wait_until(SOON, "a process", || !root.pids("shop.web").is_empty());
        self.root.pids("shop.web")[0]
    }
}

/// Is a kind at least as strong as another?
fn enough(kind: &str, need: &str) -> bool {
    let at = |kind: &str| KINDS.iter().position(|one| *one == kind);
    at(kind) >= at(need)
}

#[test]
fn d27_s8_4_every_topic_is_followed_by_every_key_that_is_enough_and_by_no_other() {
    let shop = Shop::open();
    let pid = shop.pid;
    for (topic, need) in [
        ("EVENTS".to_owned(), "manage all"),
        ("EVENTS:.".to_owned(), "manage all"),
        ("EVENTS:job.shop.web".to_owned(), "manage all"),
        ("JOB:shop.web".to_owned(), "manage job"),
        (format!("PROCESS:{pid}"), "manage job"),
        (format!("STATS:{pid}"), "read"),
        ("STATS:shop.web".to_owned(), "read"),
        (format!("STREAM:{pid}"), "read"),
        (format!("STREAM:{pid}.out"), "read"),
        (format!("STREAM:{pid}.side"), "read"),
    ] {
        for (kind, key) in &shop.keys {
            let mut ws = Ws::with_key(&shop.node, key);
            let answer = ws.subscribe(&topic);
            let wanted = match enough(kind, need) {
                true => json!({"event": "gaffer:subscription_success", "topic": topic}),
                false => {
                    json!({"event": "gaffer:subscription_error", "topic": topic, "data": {"reason": "forbidden"}})
                }
            };
            assert_eq!(answer, wanted, "{kind} on {topic}");
            // What was refused is no hole: nothing comes of it.
            assert!(ws.try_command("sessions", &json!([]), &json!({})).is_ok() == enough(kind, "manage all"));
        }
    }
}

#[test]
fn d27_s8_5_every_command_is_refused_to_every_key_that_is_not_enough_and_does_nothing() {
    let mut shop = Shop::open();
    let pid = shop.pid;
    let fresh = json!({"name": "fresh", "cmd": "sleep", "args": ["600"]});
    let web = json!({"name": "web", "cmd": "sleep", "args": ["600"]});
    let before = shop.root.command("info", &json!(["shop.web"]));
    for (name, args, need) in [
        ("sessions", json!([]), "manage all"),
        ("jobs", json!([]), "manage all"),
        ("jobs", json!(["shop"]), "manage session"),
        ("pids", json!([]), "manage all"),
        ("pids", json!(["shop.web"]), "read"),
        ("load", json!([fresh, "shop"]), "manage session"),
        ("update", json!([web, "shop"]), "manage job"),
        ("unload", json!(["shop.web"]), "manage job"),
        ("reload", json!(["shop.web"]), "manage job"),
        ("start_job", json!(["shop.web"]), "manage job"),
        ("stop_job", json!(["shop.web"]), "manage job"),
        ("stopall", json!(["shop.web"]), "manage job"),
        ("scale", json!(["shop.web", 1]), "manage job"),
        ("info", json!(["shop.web"]), "read"),
        ("stats", json!(["shop.web"]), "read"),
        ("killall", json!(["shop.web", 9]), "manage job"),
        ("commit", json!(["shop.web"]), "manage job"),
        ("process_info", json!([pid]), "read"),
        ("process_stats", json!([pid]), "read"),
        ("stop_process", json!([pid]), "manage job"),
        ("kill", json!([pid, 9]), "manage job"),
        ("send", json!([pid, "x\n"]), "write"),
        ("send", json!([pid, "x\n", "side"]), "write"),
    ] {
        for (kind, key) in &shop.keys {
            if enough(kind, need) {
                continue;
            }
            let mut ws = Ws::with_key(&shop.node, key);
            let refused = ws.try_command(name, &args, &json!({}));
            assert_eq!(
                refused,
                Err((403, "forbidden".to_owned())),
                "{kind}: {name} {args}"
            );
        }
    }
    assert_eq!(shop.root.command("info", &json!(["shop.web"])), before);
    assert_eq!(
        shop.root.command("jobs", &json!([])),
        json!({"jobs": ["shop.web"]})
    );
}

#[test]
fn k15_s8_5_every_command_is_done_for_the_weakest_key_that_is_enough() {
    let mut shop = Shop::open();
    let (reader, writer) = (shop.key("read").to_owned(), shop.key("write").to_owned());
    let (manager, owner) = (
        shop.key("manage job").to_owned(),
        shop.key("manage session").to_owned(),
    );
    let all = shop.key("manage all").to_owned();
    let fresh = json!({"name": "fresh", "cmd": "sleep", "args": ["600"]});
    let web = json!({"name": "web", "cmd": "cat", "redirect_input": true, "os_env": true});
    for (key, name, args) in [
        (&reader, "info", json!(["shop.web"])),
        (&reader, "stats", json!(["shop.web"])),
        (&reader, "pids", json!(["shop.web"])),
        (&reader, "process_info", json!(["PID"])),
        (&reader, "process_stats", json!(["PID"])),
        (&writer, "send", json!(["PID", "x\n"])),
        (&manager, "scale", json!(["shop.web", 1])),
        (&manager, "scale", json!(["shop.web", -1])),
        (&manager, "commit", json!(["shop.web"])),
        (&manager, "kill", json!(["PID", 0])),
        (&manager, "killall", json!(["shop.web", 18])),
        (&manager, "stop_process", json!(["PID"])),
        (&manager, "reload", json!(["shop.web"])),
        (&manager, "stopall", json!(["shop.web"])),
        (&manager, "stop_job", json!(["shop.web"])),
        (&manager, "start_job", json!(["shop.web"])),
        (&manager, "update", json!([web, "shop", null, true])),
        (&owner, "jobs", json!(["shop"])),
        (&owner, "load", json!([fresh, "shop"])),
        (&owner, "unload", json!(["shop.fresh"])),
        (&all, "sessions", json!([])),
        (&all, "jobs", json!([])),
        (&all, "pids", json!([])),
        (&manager, "unload", json!(["shop.web"])),
    ] {
        let args: Value = match args[0] == "PID" {
            true => {
                let mut args = args;
                args[0] = shop.pid().into();
                args
            }
            false => args,
        };
        let mut ws = Ws::with_key(&shop.node, key);
        let done = ws.try_command(name, &args, &json!({}));
        assert!(done.is_ok(), "{name} {args}: {done:?}");
    }
}

/// How a pid channel begins: `OK`, then nothing or the reason that it is closed for.
fn opened(node: &Node, path: &str, key: &str) -> Result<Ws, (String, u64)> {
    let mut ws = Ws::open(node, path);
    let hello = Message::Text(format!("V1 message k\0AUTH:{key}").into());
    ws.socket.send(hello).expect("sent");
    let frame = |ws: &mut Ws| match ws.message() {
        Message::Text(text) => text.to_string(),
        other => panic!("{other:?}"),
    };
    let first = frame(&mut ws);
    let error = |text: &str| {
        let (_, body) = text.split_once('\0').expect("a frame");
        let body: Value = serde_json::from_str(body).expect("JSON");
        let word = body["error"].as_str().expect("a word").to_owned();
        (word, body["errno"].as_u64().expect("a number"))
    };
    if first != "V1 response k\0OK" {
        return Err(error(&first));
    }
    // A write that is answered says that it is open; where none is allowed it is refused by its own id.
    ws.socket
        .send(Message::Text("V1 message w\0".into()))
        .expect("sent");
    let next = frame(&mut ws);
    match next.starts_with("V1 error gaffer_error") {
        true => Err(error(&next)),
        false => Ok(ws),
    }
}

#[test]
fn d45_s9_2_pid_channels_ask_for_read_and_write_on_every_kind_of_stream() {
    let shop = Shop::open();
    let pid = shop.pid;
    for stream in ["", "/out", "/side"] {
        for (mode, need) in [(1, "read"), (2, "write"), (3, "write")] {
            for (kind, key) in &shop.keys {
                let path = format!("/{pid}/channel{stream}?mode={mode}");
                let opened = opened(&shop.node, &path, key).map(drop);
                let wanted = match enough(kind, need) {
                    true => Ok(()),
                    false => Err(("FORBIDDEN".to_owned(), 403)),
                };
                assert_eq!(opened, wanted, "{kind}: {path}");
            }
        }
    }
    let nobody = opened(
        &shop.node,
        &format!("/{pid}/channel"),
        "0123456789abcdef0123456789abcdef",
    );
    assert_eq!(nobody.map(drop), Err(("AUTH_REQUIRED".to_owned(), 403)));
}

#[test]
fn b9_a_key_that_is_revoked_ends_what_it_has_opened_and_nothing_else() {
    let shop = Shop::open();
    let pid = shop.pid;
    let key = make_key(&shop.node, &shop.admin, &json!({"manage": ["*"]}));
    let header = format!("X-Api-Key: {key}\r\n");
    let mut channel = Ws::with_key(&shop.node, &key);
    channel.subscribe("EVENTS:.");
    let mut pipe = opened(&shop.node, &format!("/{pid}/channel"), &key).expect("open");
    let mut other = Ws::with_key(&shop.node, shop.key("manage all"));
    other.subscribe("EVENTS:load");
    // Feeds of 0.4, which say something at once.
    let mut feeds = Vec::new();
    for path in [
        "/watch?feed=continuous&heartbeat=0.1".to_owned(),
        format!("/streams/{pid}/out?feed=continuous&heartbeat=0.1"),
        "/stats/shop:web?feed=continuous".to_owned(),
    ] {
        let mut stream = connect(&shop.node);
        send(&mut stream, &shop.node, "GET", &path, &header, "");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("a head");
        assert_eq!(&head, b"HTTP/1.1 200", "{path}");
        feeds.push((path, stream));
    }
    // A session of SockJS.
    let (status, _, text) = http(&shop.node, "POST", "/channel/0/one/xhr", "", "");
    assert_eq!((status, text.as_str()), (200, "o\n"));
    let hello = json!([format!("AUTH:{key}")]).to_string();
    assert_eq!(
        http(&shop.node, "POST", "/channel/0/one/xhr_send", "", &hello).0,
        204
    );
    let ask = json!([json!({"event": "SUB", "data": {"topic": "EVENTS"}}).to_string()]).to_string();
    assert_eq!(
        http(&shop.node, "POST", "/channel/0/one/xhr_send", "", &ask).0,
        204
    );
    let (_, _, text) = http(&shop.node, "POST", "/channel/0/one/xhr", "", "");
    assert!(text.contains("subscription_success"), "{text}");

    let path = format!("/keys/{key}");
    let admin = format!("X-Api-Key: {}\r\n", shop.admin);
    assert_eq!(http(&shop.node, "DELETE", &path, &admin, "").0, 200);

    channel.until_closed();
    pipe.until_closed();
    for (path, mut stream) in feeds {
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(
            ended.as_ref().is_ok() || ended.as_ref().is_err_and(reset),
            "{path}: {ended:?}"
        );
    }
    let mut said = String::new();
    wait_until(SOON, "the end of the session", || {
        said = http(&shop.node, "POST", "/channel/0/one/xhr", "", "").2;
        said.starts_with("c[") || said.contains("AUTH_REQUIRED")
    });
    // Another key's goes on.
    let mut root = Ws::with_key(&shop.node, &shop.admin);
    root.load("bank.till", "sleep 600", &json!({}));
    assert_eq!(other.event("EVENTS:load", "load")["name"], "bank.till");
}
