//! `/v1/nodes` and `?node=` over real nodes: those of the file, those of a look-up service, and such as only say that they
//! are nodes.

use crate::peer::{SOON, Socket};
use gaffer_api::{Client, Endpoint};
use gaffer_testkit::{Lookupd, Node, wait_until};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// What looks like a node from outside: it takes requests, and remembers them.
struct Fake {
    url: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let own = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.push(byte[0]);
                }
                own.lock()
                    .expect("a lock")
                    .push(String::from_utf8_lossy(&head).to_lowercase());
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\
                              connection: close\r\n\r\n[42]";
                let _gone = stream.write_all(answer.as_bytes());
            }
        });
        Fake { url, heard }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("a lock").clone()
    }
}

fn url(node: &Node) -> String {
    format!("http://{}", node.addresses()[0])
}

fn named(name: &str, more: &str) -> Node {
    let text = format!("[gaffer]\nname = \"{name}\"\n{more}");
    Node::builder()
        .bind("127.0.0.1:0")
        .config("gaffer.toml", &text)
        .start()
}

fn put(node: &mut Node, job: &str) {
    let spec = json!({ "cmd": [node.fixture(), "idle"], "cwd": "/", "stop": { "timeout": "5s" } });
    node.put_job("shop", job, &spec);
}

fn of<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut items = list.as_array().into_iter().flatten();
    items.find(|item| item["node"] == name).unwrap_or(&Value::Null)
}

fn names(list: &Value) -> Vec<&str> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(|item| item["node"].as_str()).collect()
}

#[test]
fn the_list_of_nodes_has_those_of_the_file_and_of_look_up_services_and_how_each_is() {
    let lookupd = Lookupd::start(&[]);
    let mut beta = named("beta", "labels = { zone = \"b\" }\n");
    let lookup = format!("lookup = [{:?}]\n", lookupd.url());
    let mut gamma = named("gamma", &lookup);
    let nodes = format!(
        "{lookup}[node.beta]\nurl = {:?}\n[node.alpha]\nurl = \"http://127.0.0.1:1\"\n\
         [node.dead]\nurl = \"http://127.0.0.1:1\"\nlabels = {{ zone = \"d\" }}\n",
        url(&beta)
    );
    let mut alpha = named("alpha", &nodes);
    wait_until(SOON, "both are registered", || {
        lookupd.nodes() == ["alpha", "gamma"]
    });
    let list = alpha.get("/v1/nodes");
    // Its own name in its own file is itself, once.
    assert_eq!(names(&list), ["alpha", "beta", "dead", "gamma"], "{list:#}");
    let known = |list: &Value, name: &str| {
        let node = of(list, name);
        ["known_by", "state"].map(|key| node[key].as_str().unwrap_or("-").to_owned())
    };
    assert_eq!(known(&list, "alpha"), ["self", "up"]);
    assert_eq!(known(&list, "beta"), ["file", "up"]);
    assert_eq!(known(&list, "gamma"), ["lookup", "up"]);
    assert_eq!(known(&list, "dead"), ["file", "unreachable"]);
    assert_eq!(of(&list, "gamma")["url"], url(&gamma));
    assert_eq!(of(&list, "beta")["labels"], json!({"zone": "b"}));
    let dead = of(&list, "dead");
    assert!(dead["age_ms"].is_null() && dead["version"].is_null(), "{dead}");
    assert_eq!(dead["labels"], json!({"zone": "d"}));
    assert_eq!(names(&alpha.get("/v1/nodes?label=zone=d")), ["dead"]);
    assert_eq!(
        names(&alpha.get("/v1/nodes?node=*a,dead&limit=2")),
        ["alpha", "beta"]
    );
    // Both fall silent: one is only forgotten by whom it told, the other is in the file.
    beta.kill9();
    gamma.kill9();
    wait_until(SOON, "gamma is forgotten", || lookupd.nodes() == ["alpha"]);
    let list = alpha.get("/v1/nodes");
    assert_eq!(names(&list), ["alpha", "beta", "dead"]);
    let beta_now = alpha.get("/v1/nodes/beta");
    assert_eq!(beta_now["state"], "unreachable", "{beta_now}");
    assert!(
        beta_now["age_ms"].is_u64() && beta_now["version"].is_string(),
        "{beta_now}"
    );
    let (status, error) = alpha.http("GET", "/v1/nodes/gamma", None);
    assert_eq!((status, &error["error"]["code"]), (404, &json!("node-not-found")));
    // Whoever dropped them is to find them again.
    beta.start_again();
    gamma.start_again();
}

#[test]
fn a_request_over_nodes_is_answered_for_each_and_one_that_is_dead_is_an_entry() {
    let mut beta = named("beta", "");
    let nodes = format!(
        "[node.beta]\nurl = {:?}\n[node.dead]\nurl = \"http://127.0.0.1:1\"\n",
        url(&beta)
    );
    let mut alpha = named("alpha", &nodes);
    put(&mut alpha, "web");
    put(&mut beta, "web");
    put(&mut beta, "only");
    let list = alpha.get("/v1/jobs?node=*&session=shop");
    assert_eq!(names(&list), ["alpha", "beta", "dead"], "{list:#}");
    assert_eq!(of(&list, "alpha")["result"].as_array().map(Vec::len), Some(1));
    assert_eq!(of(&list, "beta")["result"].as_array().map(Vec::len), Some(2));
    assert!(of(&list, "beta")["age_ms"].is_u64());
    let dead = of(&list, "dead");
    assert_eq!(
        (&dead["status"], &dead["error"]["code"]),
        (&json!("unreachable"), &json!("node-unreachable"))
    );
    assert!(dead["result"].is_null() && dead["age_ms"].is_null(), "{dead}");
    // What a page leaves out is said.
    let pages = alpha.get("/v1/jobs?limit=1&node=beta");
    assert!(
        of(&pages, "beta")["next"]
            .as_str()
            .is_some_and(|next| next.starts_with("/v1/jobs?")),
        "{pages}"
    );
    // A change goes to those that are chosen, and each says what came of it.
    let (status, stopped) = alpha.http(
        "POST",
        "/v1/jobs/shop/only/stop?wait=20s&node=alpha,beta",
        Some(&json!({})),
    );
    assert_eq!(status, 200, "{stopped}");
    assert_eq!(of(&stopped, "alpha")["error"]["code"], "job-not-found");
    assert_eq!(of(&stopped, "beta")["status"], "ok");
    assert_eq!(beta.get("/v1/jobs/shop/only")["wish"], "stopped");
    assert_eq!(beta.get("/v1/jobs/shop/web")["wish"], "running");
    // Text that is no JSON is a text.
    let config = alpha.get("/v1/config?format=toml&node=beta");
    assert!(
        of(&config, "beta")["result"]
            .as_str()
            .is_some_and(|text| text.contains("[job.only]")),
        "{config}"
    );
    for (path, code) in [
        ("/v1/jobs?node=nobody", "node-not-found"),
        ("/v1/events?follow=true&node=*", "bad-request"),
    ] {
        assert_eq!(alpha.http("GET", path, None).1["error"]["code"], code, "{path}");
    }
}

/// A client of a node with a token that it made.
async fn with_token(node: &Node, scope: &str) -> (Client, String) {
    let endpoint = Endpoint::parse(&url(node)).expect("an address");
    let admin = Client::new(endpoint.clone(), None);
    let made: Value = admin
        .post("/v1/tokens", &json!({"name": scope, "scope": scope}))
        .await
        .expect("a token");
    let token = made["token"].as_str().expect("a token").to_owned();
    (Client::new(endpoint, Some(token.clone())), token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_shown_the_token_of_the_file_and_never_that_of_the_caller() {
    let lookupd = Lookupd::start(&[]);
    let (of_file, claimed) = (Fake::start(), Fake::start());
    let mut socket = Socket::open(&lookupd, "/ws").await;
    let origin = claimed.url.clone();
    socket
        .done(json!({"type": "IDENTIFY", "name": "claimed", "origin": origin, "version": "0.1"}))
        .await;
    // A name of the file is not taken over by somebody who registers under it.
    let mut thief = Socket::open(&lookupd, "/ws").await;
    thief
        .done(json!({"type": "IDENTIFY", "name": "named", "origin": origin, "version": "0.1"}))
        .await;
    let tokens = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(tokens.path(), "the-token-of-the-file\n").expect("written");
    let alpha = named(
        "alpha",
        &format!(
            "lookup = [{:?}]\n[node.named]\nurl = {:?}\ntoken_file = {:?}\n",
            lookupd.url(),
            of_file.url,
            tokens.path()
        ),
    );
    let (admin, shown) = with_token(&alpha, "admin").await;
    let list = admin.get_of_nodes("/v1/jobs", "*").await.expect("a list");
    let result = |name: &str| {
        let entry = list.iter().find(|one| one.node == name);
        entry.and_then(|one| one.result.clone())
    };
    assert_eq!(result("named"), Some(json!([42])), "{list:?}");
    assert_eq!(result("claimed"), Some(json!([42])), "{list:?}");
    let changed = admin
        .post_of_nodes("/v1/node/reload", &json!({}), "claimed,named")
        .await
        .expect("a list");
    assert_eq!(
        (changed[0].node.as_str(), changed[0].status.as_str()),
        ("claimed", "failed")
    );
    assert_eq!(changed[1].status, "ok");
    let (file, other) = (of_file.heard(), claimed.heard());
    assert_eq!((file.len(), other.len()), (2, 1), "{file:?}{other:?}");
    assert!(
        file.iter()
            .all(|head| head.contains("authorization: bearer the-token-of-the-file\r\n")),
        "{file:?}"
    );
    assert!(file[1].starts_with("post /v1/node/reload http"), "{file:?}");
    assert!(other[0].starts_with("get /v1/jobs http"), "{other:?}");
    assert!(
        !other[0].contains("authorization") && !other[0].contains("x-api-key"),
        "{other:?}"
    );
    let all = format!("{file:?}{other:?}");
    assert!(!all.contains(&shown.to_lowercase()), "{all}");
    a_reader_asks_this_node_alone(&alpha, [&of_file, &claimed]).await;
}

/// Who is no admin here cannot borrow the daemon's tokens.
async fn a_reader_asks_this_node_alone(alpha: &Node, others: [&Fake; 2]) {
    let (reader, _) = with_token(alpha, "read").await;
    let refused = reader.get_of_nodes("/v1/jobs", "*").await.expect_err("refused");
    assert_eq!(refused.code().map(|code| code.word()), Some("forbidden"));
    assert_eq!(
        reader
            .get_of_nodes("/v1/jobs", "alpha")
            .await
            .map(|list| list.len())
            .ok(),
        Some(1)
    );
    assert_eq!(others.map(|other| other.heard().len()), [2, 1]);
    let nodes = reader.nodes().await.expect("a list");
    let states: Vec<(&str, &str)> = nodes
        .iter()
        .map(|one| (one.node.as_str(), one.state.as_str()))
        .collect();
    assert_eq!(
        states,
        [("alpha", "up"), ("claimed", "unknown"), ("named", "unknown")]
    );
}
