//! Hazard B7 and B9.6: a secret is searched for in everything that the old API, its channels, the native API and the log say.

use crate::client::{Ws, guarded, http, make_key};
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

#[test]
fn b7_b9_no_secret_is_in_anything_that_is_said() {
    let (mut node, admin) = guarded();
    apply(&mut node);
    let mut said: Vec<(String, String)> = Vec::new();
    let header = format!("X-Api-Key: {admin}\r\n");
    let mut ask = |method: &str, path: &str, headers: &str, body: &str| {
        let (_, head, text) = http(&node, method, path, headers, body);
        said.push((format!("{method} {path}"), head + &text));
    };
    // What is presented and wrong.
    ask("GET", "/jobs", &format!("X-Api-Key: {}\r\n", SECRETS[1]), "");
    ask(
        "GET",
        "/v1/jobs",
        &format!("Authorization: Bearer {}\r\n", SECRETS[3]),
        "",
    );
    let user = json!({"username": "eva", "password": SECRETS[2], "mail": "e@x"}).to_string();
    ask("POST", "/users", &header, &user);
    let change = json!({"password": SECRETS[2]}).to_string();
    ask("PUT", "/users/eva/password", &header, &change);
    ask("POST", "/users", &header, &user);
    // Every list and every thing of the old API.
    let mut ws = Ws::with_key(&node, &admin);
    let pid = ws.pids("shop.web")[0];
    for (route, methods) in ROUTES {
        let path = route
            .replace(":session", "shop")
            .replace(":group", "shop")
            .replace(":job", "web")
            .replace(":name", "shop:web")
            .replace(":pid", &pid.to_string())
            .replace(":action", "_pids");
        if methods.contains("GET")
            && !path.contains("/watch")
            && !path.contains("/streams")
            && !path.contains(':')
        {
            ask("GET", &path, &header, "");
        }
    }
    for path in [
        "/processes/shop:web",
        "/status/shop:web",
        "/stats/shop:web",
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
        ask("GET", path, &header, "");
    }
    // Bodies that are wrong, with the secret in them: what is refused is not told back.
    ask(
        "POST",
        "/users",
        &header,
        &format!("{{\"username\": \"x\", \"password\": \"{}\"", SECRETS[2]),
    );
    // Channels: a wrong key, then everything that shows a job, and its events.
    for path in ["/channel/websocket", &format!("/{pid}/channel")] {
        let mut wrong = Ws::open(&node, path);
        let hello = match path.ends_with("/websocket") {
            true => format!("AUTH:{}", SECRETS[1]),
            false => format!("V1 message 1\0AUTH:{}", SECRETS[1]),
        };
        wrong.text(&hello);
        if let Message::Text(text) = wrong.message() {
            said.push((path.to_owned(), text.to_string()));
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
        said.push((name.to_owned(), ws.command(name, &args).to_string()));
    }
    loop {
        let event: Value = ws.next();
        said.push(("an event".to_owned(), event.to_string()));
        if event["data"]["event"] == "job.shop.web.spawn" {
            break;
        }
    }
    make_key(&node, &admin, &json!({}));
    wait_until(crate::client::SOON, "the log", || {
        node.log().contains("user.created")
    });
    said.push(("the log".to_owned(), node.log()));
    assert!(said.len() > 60, "{}", said.len());
    // The process itself has it: the search would find it.
    let os_pid =
        ws.command("process_info", &json!([ws_pid(&mut Ws::with_key(&node, &admin))]))["info"]["os_pid"]
            .clone();
    let environ = std::fs::read(format!("/proc/{os_pid}/environ")).expect("readable");
    let environ = String::from_utf8_lossy(&environ).into_owned();
    assert!(environ.contains(SECRETS[0]), "{environ}");
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
