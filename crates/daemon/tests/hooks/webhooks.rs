//! Delivery: what is sent, in which order, how often, and what is shown of it.

use crate::receiver::Receiver;
use gaffer_testkit::{Node, wait_until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ring::hmac;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Writes the daemon's file and starts it.
pub fn node(text: &str) -> Node {
    Node::builder().config("gaffer.toml", text).start()
}

fn hook(receiver: &Receiver, more: &str) -> String {
    format!("[webhook.ops]\nurl = \"{}\"\n{more}\n", receiver.url())
}

fn webhook(node: &mut Node, name: &str) -> Value {
    node.get(&format!("/v1/webhooks/default/{name}"))
}

#[test]
fn events_are_posted_signed_and_in_their_order() {
    let receiver = Receiver::start();
    let mut node = Node::builder()
        .config(
            "gaffer.toml",
            &hook(
                &receiver,
                "events = [\"run.*\"]\nsecret_file = \"key\"\nheaders = { X-Team = \"ops\", Authorization = \"file:auth\" }",
            ),
        )
        .prepare();
    std::fs::write(node.root().join("key"), "k1\n").expect("a key");
    std::fs::write(node.root().join("auth"), "Bearer canary-7\n").expect("a header");
    node.start_again();
    node.put_job(
        "shop",
        "once",
        &json!({"cmd": ["/bin/sh", "-c", "exit 3"], "restart": "never"}),
    );
    let posts = receiver.wait("run.exited", |post| post.event() == "run.exited");
    let names: Vec<String> = posts.iter().map(|post| post.event()).collect();
    assert_eq!(names, ["run.started", "run.exited"].map(str::to_owned).as_slice());
    let last = posts.last().expect("a post");
    let body = last.json();
    assert_eq!(last.path, "/hook");
    assert_eq!(body["subject"], "shop.once.1", "{body:#}");
    assert_eq!(body["data"]["code"], "3", "{body:#}");
    assert_eq!(body["id"], last.id().as_str());
    assert_eq!(last.headers["content-type"], "application/json");
    assert_eq!(last.headers["gaffer-attempt"], "1");
    assert_eq!(last.headers["x-team"], "ops");
    assert_eq!(last.headers["authorization"], "Bearer canary-7");
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"k1");
    let signed = format!("{}.{}", last.headers["gaffer-timestamp"], last.body);
    let tag: String = hmac::sign(&key, signed.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(last.headers["gaffer-signature"], format!("v1={tag}"));
    wait_until(SOON, "both deliveries written down", || {
        webhook(&mut node, "ops")["delivered"] == 2
    });
    let shown = webhook(&mut node, "ops");
    assert_eq!((&shown["state"], &shown["waiting"]), (&json!("idle"), &json!(0)));
    assert_eq!(shown["deliveries"][0]["status"], 204, "{shown:#}");
    // B7: no secret in any answer, in the log, in the store.
    let text = shown.to_string();
    let stored: Vec<u8> = ["gaffer.db", "gaffer.db-wal"]
        .iter()
        .flat_map(|name| std::fs::read(node.state_dir().join(name)).unwrap_or_default())
        .collect();
    let stored = String::from_utf8_lossy(&stored).into_owned();
    for place in [&text, &node.log(), &stored] {
        assert!(
            !place.contains("canary-7") && !place.contains("k1\n"),
            "a secret is in {place:.200}"
        );
    }
}

#[test]
fn what_fails_is_tried_again_in_order_and_given_up_in_the_end() {
    let receiver = Receiver::start();
    receiver.answers(500);
    let mut node = node(&hook(
        &receiver,
        "events = [\"job.started\", \"job.stopped\"]\nretry = { attempts = 3, delay = \"1ms\" }",
    ));
    node.put_job("shop", "web", &json!({"cmd": ["sleep", "600"]}));
    let (status, answer) = node.http("POST", "/v1/jobs/shop/web/stop?wait=30s", Some(&json!({})));
    assert_eq!(status, 200, "{answer:#}");
    let (status, answer) = node.http("POST", "/v1/jobs/shop/web/start", Some(&json!({})));
    assert!(status < 300, "{answer:#}");
    wait_until(SOON, "both given up", || {
        webhook(&mut node, "ops")["given_up"] == 2
    });
    let posts = receiver.posts();
    let said: Vec<(String, String)> = posts
        .iter()
        .map(|post| (post.event(), post.headers["gaffer-attempt"].clone()))
        .collect();
    let wanted: Vec<(String, String)> = ["job.stopped", "job.started"]
        .iter()
        .flat_map(|event| ["1", "2", "3"].map(|attempt| ((*event).to_owned(), attempt.to_owned())))
        .collect();
    assert_eq!(said, wanted);
    assert_eq!(posts[0].id(), posts[2].id(), "an attempt more is the same event");
    let shown = webhook(&mut node, "ops");
    assert_eq!(shown["state"], "failing", "{shown:#}");
    assert_eq!(shown["deliveries"][0]["error"], "the receiver answered 500");
    // It works again: what comes next is delivered.
    receiver.answers(200);
    let (status, _) = node.http("POST", "/v1/jobs/shop/web/stop", Some(&json!({})));
    assert!(status < 300);
    wait_until(SOON, "delivered", || webhook(&mut node, "ops")["delivered"] == 1);
}

#[test]
fn b5_a_receiver_that_does_not_answer_delays_nobody_else() {
    let (dead, good) = (Receiver::start(), Receiver::start());
    dead.hold(true);
    let text = format!(
        "[webhook.dead]\nurl = \"{}\"\n[webhook.good]\nurl = \"{}\"\n",
        dead.url(),
        good.url()
    );
    let mut node = node(&text);
    for n in 0..5 {
        node.put_job(
            "shop",
            &format!("job{n}"),
            &json!({"cmd": ["true"], "restart": "never"}),
        );
    }
    wait_until(SOON, "all exits at the good one", || {
        good.posts()
            .iter()
            .filter(|post| post.event() == "run.exited")
            .count()
            == 5
    });
    assert_eq!(dead.posts().len(), 1, "one after the other");
    let shown = webhook(&mut node, "dead");
    assert_eq!(shown["state"], "waiting", "{shown:#}");
    assert!(
        shown["waiting"].as_u64().is_some_and(|waiting| waiting >= 15),
        "{shown:#}"
    );
    dead.hold(false);
}

#[test]
fn d55_webhooks_are_added_changed_and_removed_by_a_reload() {
    let (first, second) = (Receiver::start(), Receiver::start());
    let mut node = node("session = \"default\"\n");
    assert_eq!(node.get("/v1/webhooks"), json!([]));
    let file = node.root().join("gaffer.toml");
    let reload = |node: &mut Node, text: &str, wanted: &str| {
        std::fs::write(&file, text).expect("the file");
        node.signal(Signal::HUP);
        wait_until(SOON, "the file in force", || {
            let urls = node.get("/v1/webhooks");
            let urls: Vec<&str> = urls
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|hook| hook["url"].as_str())
                .collect();
            urls.join(" ") == wanted
        });
    };
    std::fs::write(&file, hook(&first, "")).expect("the file");
    let planned = node.cli(&["plan", &file.display().to_string()]);
    let planned = String::from_utf8_lossy(&planned.stdout).into_owned();
    assert!(
        planned.contains("+ webhook ops") && planned.contains("1 added"),
        "{planned}"
    );
    reload(&mut node, &hook(&first, "events = [\"job.added\"]"), &first.url());
    node.put_job("shop", "a", &json!({"cmd": ["true"], "start": false}));
    first.wait("a", |post| post.json()["subject"] == "shop.a");
    reload(
        &mut node,
        &hook(&second, "events = [\"job.added\"]\ntargets = [\"shop.*\"]"),
        &second.url(),
    );
    node.put_job("other", "b", &json!({"cmd": ["true"], "start": false}));
    node.put_job("shop", "c", &json!({"cmd": ["true"], "start": false}));
    let posts = second.wait("c", |post| post.json()["subject"] == "shop.c");
    assert_eq!(posts.len(), 1, "other.b is no target");
    reload(&mut node, "session = \"default\"\n", "");
    node.put_job("shop", "d", &json!({"cmd": ["true"], "start": false}));
    reload(
        &mut node,
        &hook(&second, "events = [\"job.added\"]"),
        &second.url(),
    );
    node.put_job("shop", "e", &json!({"cmd": ["true"], "start": false}));
    let posts = second.wait("e", |post| post.json()["subject"] == "shop.e");
    assert!(
        posts.iter().all(|post| post.json()["subject"] != "shop.d"),
        "nobody listened then"
    );
    assert_eq!(first.posts().len(), 1);
    // A file with an error changes nothing.
    std::fs::write(&file, "[webhook.ops]\nurl = \"ftp://x\"\n").expect("the file");
    node.signal(Signal::HUP);
    wait_until(SOON, "refused", || node.log().contains("config.refused"));
    assert_eq!(node.get("/v1/webhooks")[0]["url"], second.url());
}

#[test]
fn the_command_line_lists_shows_and_tests_webhooks() {
    let receiver = Receiver::start();
    let node = node(&hook(
        &receiver,
        "events = [\"job.added\"]\nheaders = { X-Team = \"canary-8\" }",
    ));
    let run = |words: &[&str]| {
        let output = node.cli(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (
            output.status.code(),
            text,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, text, error) = run(&["webhook", "test", "ops"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(text.contains("204"), "{text}");
    assert_eq!(receiver.posts()[0].event(), "webhook.test");
    let (code, text, _) = run(&["webhook", "ls"]);
    assert!(
        code == Some(0) && text.contains("ops") && text.contains(&receiver.url()),
        "{text}"
    );
    let (code, text, _) = run(&["webhook", "show", "default.ops"]);
    assert!(
        code == Some(0) && text.contains("X-Team") && !text.contains("canary-8"),
        "{text}"
    );
    let (code, _, error) = run(&["webhook", "show", "opps"]);
    assert_eq!(code, Some(3));
    assert!(error.contains("did you mean `ops`?"), "{error}");
    receiver.answers(503);
    let (code, text, error) = run(&["webhook", "test", "ops"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(error.contains("503"), "{error}");
}

#[test]
fn a_receiver_may_speak_https_and_must_be_who_it_says() {
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
    };
    let ours = authority("ours");
    let receiver = |host: &str, by: &CertifiedIssuer<'static, KeyPair>| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        let made = params.signed_by(&key, by).expect("signed");
        Receiver::start_tls(&made.pem(), &key.serialize_pem())
    };
    let good = receiver("localhost", &ours);
    let (stranger, other_name) = (
        receiver("localhost", &authority("theirs")),
        receiver("example.org", &ours),
    );
    let text = format!(
        "[webhook.good]\nurl = \"{}\"\n[webhook.stranger]\nurl = \"{}\"\n[webhook.name]\nurl = \"{}\"\n",
        good.url(),
        stranger.url(),
        other_name.url()
    );
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, ours.pem()).expect("written");
    let file = file.to_string_lossy().into_owned();
    let node = Node::builder()
        .config("gaffer.toml", &text)
        .env("SSL_CERT_FILE", &file)
        .start();
    let run = |name: &str| {
        let output = node.cli(&["webhook", "test", name]);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(run("good").0, Some(0), "{}", run("good").1);
    good.wait("the test", |post| post.event() == "webhook.test");
    let (code, error) = run("stranger");
    assert!(code == Some(1) && error.contains("UnknownIssuer"), "{error}");
    let (code, error) = run("name");
    assert!(code == Some(1) && error.contains("not valid for name"), "{error}");
    assert!(stranger.posts().is_empty() && other_name.posts().is_empty());
}

#[test]
fn metrics_and_the_configuration_tell_of_webhooks() {
    let receiver = Receiver::start();
    let silent = "[webhook.silent]\nurl = \"http://127.0.0.1:1/hook?key=canary-9\"\nevents = [\"run.*\"]\n";
    let mut node = node(&format!(
        "{}{silent}",
        hook(&receiver, "events = [\"run.exited\"]")
    ));
    let once = json!({"cmd": ["/bin/sh", "-c", "exit 3"], "restart": "never"});
    node.put_job("shop", "once", &once);
    receiver.wait("run.exited", |post| post.event() == "run.exited");
    let says = |node: &mut Node, line: &str| {
        wait_until(SOON, line, || {
            let text = node.request("GET", "/metrics", None).text();
            text.lines().any(|one| one == line)
        });
    };
    says(
        &mut node,
        "gaffer_webhook_deliveries_total{session=\"default\",webhook=\"ops\",result=\"delivered\"} 1",
    );
    says(
        &mut node,
        "gaffer_webhook_waiting{session=\"default\",webhook=\"ops\"} 0",
    );
    says(
        &mut node,
        "gaffer_webhook_waiting{session=\"default\",webhook=\"silent\"} 2",
    );
    says(
        &mut node,
        "gaffer_webhook_oldest_seconds{session=\"default\",webhook=\"silent\"} 1",
    );
    let config = node.request("GET", "/v1/config?format=toml", None).text();
    assert!(
        config.contains("\n[webhook.ops]\n") && config.contains("run.exited"),
        "{config}"
    );
    assert!(
        config.contains("\n# [webhook.silent]\n") && !config.contains("canary-9"),
        "{config}"
    );
}

#[test]
fn without_webhooks_nothing_is_written_for_them() {
    let mut node = node("session = \"default\"\n");
    node.put_job("shop", "web", &json!({"cmd": ["true"], "restart": "never"}));
    node.wait_job("shop", "web", SOON, |job| job["state"] == "exited");
    let (status, error) = node.http("GET", "/v1/webhooks/default/none", None);
    assert_eq!(
        (status, &error["error"]["code"]),
        (404, &json!("webhook-not-found"))
    );
    let (status, _) = node.http("POST", "/v1/webhooks/default/none/test", Some(&json!({})));
    assert_eq!(status, 404);
}

#[test]
fn s14_1_webhooks_of_the_original_get_its_messages() {
    let receiver = Receiver::start();
    let url = |path: &str| format!("http://{}/{path}", receiver.address);
    let text = format!(
        "[webhooks]\nspawn = {}\njob.shop.web.exit = {}\ncreate = {}\nproc.web.spawn = {}\nflap = {}\n",
        url("spawn"),
        url("exit"),
        url("create"),
        url("old"),
        url("flap"),
    );
    let mut node = Node::builder().config("gaffer.ini", &text).start();
    let once = json!({"cmd": ["/bin/sh", "-c", "exit 3"], "restart": "never"});
    node.put_job("shop", "web", &once);
    node.put_job("default", "web", &once);
    wait_until(SOON, "all of them", || {
        let posts = receiver.posts();
        let count = |path: &str| posts.iter().filter(|post| post.path == path).count();
        (count("/spawn"), count("/exit"), count("/create"), count("/old")) == (2, 1, 2, 1)
    });
    let posts = receiver.posts();
    let of = |path: &str| {
        posts
            .iter()
            .find(|post| post.path == path)
            .expect("a post")
            .json()
    };
    let spawn = of("/spawn");
    assert_eq!(
        (&spawn["event"], &spawn["name"]),
        (&json!("spawn"), &json!("shop.web")),
        "{spawn:#}"
    );
    assert!(spawn["pid"].is_u64() && spawn["os_pid"].is_u64(), "{spawn:#}");
    let exit = of("/exit");
    assert_eq!(
        (&exit["exit_status"], &exit["term_signal"]),
        (&json!(3), &json!(0)),
        "{exit:#}"
    );
    assert_eq!(exit["name"], "shop.web");
    assert_eq!(of("/create")["event"], "create");
    let old = of("/old");
    assert_eq!(
        (&old["event"], &old["name"]),
        (&json!("proc.web.spawn"), &json!("web")),
        "{old:#}"
    );
    assert!(posts.iter().all(|post| post.path != "/flap"));
}
