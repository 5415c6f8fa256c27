//! Hazard B7 and B9.6: a secret is searched for in everything that the old API, its channels, the native API and the log say.

use crate::client::{Ws, guarded, http};
use gaffer_testkit::{Node, wait_until};
use gafferd::legacy::http::ROUTES;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// In a file of variables, presented as a key, as a password, and as a token.
const SECRETS: [&str; 4] = [
    "canary-of-a-file-of-variables",
    "cafecafecafecafecafecafecafecafe",
    "canary-of-a-password",
    "gaffer_canary0123456789canary0123456789canary",
];

fn apply(node: &mut Node) {
    let root = node.root().to_owned();
    std::fs::write(root.join("vars"), format!("HIDDEN={}\n", SECRETS[0])).expect("written");
    let vars = root.join("vars");
    let file = format!(
        "session = \"shop\"\n[job.web]\ncmd = \"sleep 600\"\nenv_file = \"{}\"\n",
        vars.display()
    );
    let path = root.join("shop.toml");
    std::fs::write(&path, file).expect("written");
    let done = node.cli(&["apply", "-f", &path.display().to_string(), "-y"]);
    assert!(done.status.success(), "{done:?}");
    node.wait_job("shop", "web", crate::client::SOON, |job| {
        job["state"] == "running"
    });
}

/// Everything that was answered, with what it answers to.
struct Heard<'a> {
    node: &'a Node,
    header: String,
    said: Vec<(String, String)>,
}

impl Heard<'_> {
    fn ask(&mut self, method: &str, path: &str, headers: &str, body: &str) {
        let (_, head, text) = http(self.node, method, path, headers, body);
        self.said.push((format!("{method} {path}"), head + &text));
    }

    fn get(&mut self, path: &str) {
        let header = self.header.clone();
        self.ask("GET", path, &header, "");
    }

    fn post(&mut self, path: &str, body: &str) {
        let header = self.header.clone();
        self.ask("POST", path, &header, body);
    }
}

/// What is presented and wrong, and what is set and never shown.
fn presented(heard: &mut Heard<'_>) {
    heard.ask("GET", "/jobs", &format!("X-Api-Key: {}\r\n", SECRETS[1]), "");
    heard.ask(
        "GET",
        "/v1/jobs",
        &format!("Authorization: Bearer {}\r\n", SECRETS[3]),
        "",
    );
    let user = json!({"username": "eva", "password": SECRETS[2], "mail": "e@x"}).to_string();
    heard.post("/users", &user);
    heard.post("/users", &user);
    // A body that is wrong, with the secret in it: what is refused is not told back.
    heard.post("/users", user.trim_end_matches('}'));
}

/// Every list and every thing.
fn lists(heard: &mut Heard<'_>, pid: u64) {
    for (route, methods) in ROUTES {
        let path = route
            .replace(":session", "shop")
            .replace(":group", "shop")
            .replace(":job", "web")
            .replace(":name", "shop:web")
            .replace(":pid", &pid.to_string())
            .replace(":action", "_pids");
        let follows = ["/watch", "/streams"].iter().any(|feed| path.starts_with(feed));
        if methods.contains("GET") && !follows {
            heard.get(&path);
        }
    }
    for path in [
        "/keys?include_keys=true",
        "/users?include_user=true",
        "/users/eva",
        "/v1/jobs?spec=true",
        "/v1/jobs/shop/web?spec=true",
        "/v1/jobs/shop/web/instances/1",
        "/v1/jobs/shop/web/deaths",
        "/v1/runs?prefix=",
        "/v1/events",
        "/v1/logs",
        "/v1/stats",
        "/v1/node",
        "/v1/doctor",
        "/v1/config",
        "/v1/config?format=json",
        "/v1/sessions",
        "/v1/tokens",
        "/v1/users",
        "/v1/webhooks",
        "/v1/plugins",
        "/metrics",
    ] {
        heard.get(path);
    }
}

/// A wrong key on channels, then everything that shows a job, and its events.
fn channels(heard: &mut Heard<'_>, ws: &mut Ws, pid: u64) {
    let frame = format!("V1 message 1\0AUTH:{}", SECRETS[1]);
    for (path, hello) in [
        ("/channel/websocket".to_owned(), format!("AUTH:{}", SECRETS[1])),
        (format!("/{pid}/channel"), frame),
    ] {
        let mut wrong = Ws::open(heard.node, &path);
        wrong.text(&hello);
        if let Message::Text(text) = wrong.message() {
            heard.said.push((path, text.to_string()));
        }
    }
    ws.subscribe("EVENTS:.");
    for (name, args) in [
        ("info", json!(["shop.web"])),
        ("stats", json!(["shop.web"])),
        ("process_info", json!([pid])),
        ("process_stats", json!([pid])),
        ("reload", json!(["shop.web"])),
    ] {
        heard
            .said
            .push((name.to_owned(), ws.command(name, &args).to_string()));
    }
    let mut event = Value::Null;
    while event["data"]["event"] != "job.shop.web.spawn" {
        event = ws.next();
        heard.said.push(("an event".to_owned(), event.to_string()));
    }
}

#[test]
fn b7_b9_no_secret_is_in_anything_that_is_said() {
    let (mut node, admin) = guarded();
    apply(&mut node);
    let mut ws = Ws::with_key(&node, &admin);
    let pid = ws.pids("shop.web")[0];
    let mut heard = Heard {
        node: &node,
        header: format!("X-Api-Key: {admin}\r\n"),
        said: Vec::new(),
    };
    presented(&mut heard);
    lists(&mut heard, pid);
    channels(&mut heard, &mut ws, pid);
    wait_until(crate::client::SOON, "the log", || {
        node.log().contains("user.created")
    });
    let mut said = heard.said;
    said.push(("the log".to_owned(), node.log()));
    assert!(said.len() > 60, "{}", said.len());
    // The process itself has it: the search would find it.
    let pid = ws_pid(&mut ws);
    let os_pid = ws.command("process_info", &json!([pid]))["info"]["os_pid"].clone();
    let environ = std::fs::read(format!("/proc/{os_pid}/environ")).expect("readable");
    assert!(String::from_utf8_lossy(&environ).contains(SECRETS[0]));
    for secret in SECRETS {
        for (what, text) in &said {
            assert!(!text.contains(secret), "{what} has {secret}: {text}");
        }
    }
}

fn ws_pid(ws: &mut Ws) -> u64 {
    wait_until(crate::client::SOON, "a process", || {
        !ws.pids("shop.web").is_empty()
    });
    ws.pids("shop.web")[0]
}
