//! The daemon as a client of look-up services: what it tells, and that it is right again after every outage.

use crate::peer::SOON;
use gaffer_testkit::{Builder, Lookupd, Node, Proxy, wait_until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Instant;

fn node(name: &str, urls: &[String]) -> Builder {
    let text = format!("[gaffer]\nname = \"{name}\"\nlookup = {}\n", json!(urls));
    Node::builder()
        .bind("127.0.0.1:0")
        .config("gaffer.toml", &text)
        .arg("--lookup-ping")
        .arg("300ms")
}

fn idle(node: &Node) -> Value {
    json!({ "cmd": [node.fixture(), "idle"], "cwd": "/", "stop": { "timeout": "5s" } })
}

fn put(node: &mut Node, job: &str) {
    let spec = idle(node);
    node.put_job("shop", job, &spec);
}

#[track_caller]
fn knows(lookupd: &Lookupd, job: &str, node: &str) {
    wait_until(SOON, &format!("{job} at {node}"), || {
        lookupd.job(job).iter().any(|(name, _)| name == node)
    });
}

/// For SPECIFICATION.md, with `--no-capture`.
fn measured(what: &str, since: Instant) {
    eprintln!("measured: {what} after {:?}", since.elapsed());
}

/// How long an outage lasts beyond what was waited for: nothing, but `cargo xtask outage` says a minute.
fn lasts() {
    let seconds = std::env::var("GAFFER_TEST_OUTAGE_S")
        .ok()
        .and_then(|text| text.parse().ok());
    if let Some(outage) = seconds.map(std::time::Duration::from_secs) {
        let since = Instant::now();
        wait_until(outage + SOON, "the end of the outage", || {
            since.elapsed() >= outage
        });
    }
}

#[track_caller]
fn forgets(lookupd: &Lookupd, job: &str) {
    wait_until(SOON, &format!("nobody has {job}"), || lookupd.job(job).is_empty());
}

#[test]
fn s10_4_d48_what_is_loaded_and_what_happens_is_told() {
    let lookupd = Lookupd::start(&[]);
    let mut alpha = node("alpha", &[lookupd.url()]).start();
    wait_until(SOON, "the node", || lookupd.nodes() == ["alpha"]);
    put(&mut alpha, "web");
    knows(&lookupd, "shop.web", "alpha");
    let nodes = lookupd.get("/nodes");
    assert_eq!(
        nodes["nodes"][0],
        json!({"name": "alpha", "origin": format!("http://{}", alpha.addresses()[0]), "version": "0.1"})
    );
    wait_until(SOON, "its process", || {
        lookupd.job("shop.web") == [("alpha".to_owned(), 1)]
    });
    let pid = &lookupd.get("/findJob?name=shop.web")["sources"][0]["pids"][0];
    assert!(
        pid.as_u64().is_some_and(|pid| pid < 100),
        "{pid} is a small number"
    );
    let (status, _) = alpha.http("POST", "/v1/jobs/shop/web/stop?wait=20s", None);
    assert_eq!(status, 200);
    wait_until(SOON, "its end", || {
        lookupd.job("shop.web") == [("alpha".to_owned(), 0)]
    });
    let (status, _) = alpha.http("DELETE", "/v1/jobs/shop/web?wait=20s", None);
    assert_eq!(status, 200);
    forgets(&lookupd, "shop.web");
}

#[test]
fn s10_4_d48_a_service_that_was_away_learns_everything_again() {
    let mut lookupd = Lookupd::start(&[]);
    let url = lookupd.url();
    lookupd.kill9();
    let mut alpha = node("alpha", &[url]).start();
    put(&mut alpha, "before");
    lookupd.start_again();
    knows(&lookupd, "shop.before", "alpha");
    lookupd.kill9();
    put(&mut alpha, "meanwhile");
    let (status, _) = alpha.http("DELETE", "/v1/jobs/shop/before?wait=20s", None);
    assert_eq!(status, 200);
    lasts();
    let since = Instant::now();
    lookupd.start_again();
    knows(&lookupd, "shop.meanwhile", "alpha");
    measured("service restarted: right again", since);
    assert!(lookupd.job("shop.before").is_empty());
}

#[test]
fn of_two_services_one_may_die_and_the_other_stays_right() {
    let mut one = Lookupd::start(&[]);
    let two = Lookupd::start(&[]);
    let mut alpha = node("alpha", &[one.url(), two.url()]).start();
    put(&mut alpha, "web");
    knows(&one, "shop.web", "alpha");
    knows(&two, "shop.web", "alpha");
    one.kill9();
    put(&mut alpha, "api");
    knows(&two, "shop.api", "alpha");
    assert_eq!(two.nodes(), ["alpha"]);
    one.start_again();
    knows(&one, "shop.api", "alpha");
}

#[test]
fn a_node_behind_a_dead_network_is_removed_and_comes_back_by_itself() {
    let lookupd = Lookupd::start(&["--silent-after", "900ms"]);
    let proxy = Proxy::start(lookupd.address());
    let mut alpha = node("alpha", &[format!("http://{}", proxy.address())]).start();
    put(&mut alpha, "web");
    knows(&lookupd, "shop.web", "alpha");
    let since = Instant::now();
    proxy.cut();
    forgets(&lookupd, "shop.web");
    measured("network cut, silent-after 900ms: node gone", since);
    assert!(lookupd.nodes().is_empty());
    put(&mut alpha, "api");
    lasts();
    let since = Instant::now();
    proxy.mend();
    knows(&lookupd, "shop.api", "alpha");
    measured("network mended: node back", since);
    knows(&lookupd, "shop.web", "alpha");
    assert_eq!(lookupd.nodes(), ["alpha"]);
}

#[test]
fn a_killed_node_is_gone_and_its_successor_is_there_with_what_it_adopted() {
    let lookupd = Lookupd::start(&[]);
    let mut alpha = node("alpha", &[lookupd.url()]).start();
    put(&mut alpha, "web");
    knows(&lookupd, "shop.web", "alpha");
    let since = Instant::now();
    alpha.kill9();
    forgets(&lookupd, "shop.web");
    measured("daemon killed: node gone", since);
    assert!(lookupd.nodes().is_empty());
    alpha.start_again();
    knows(&lookupd, "shop.web", "alpha");
}

#[test]
fn a_reload_changes_who_is_told_and_under_which_url() {
    let one = Lookupd::start(&[]);
    let two = Lookupd::start(&[]);
    let mut alpha = node("alpha", &[one.url()]).start();
    put(&mut alpha, "web");
    knows(&one, "shop.web", "alpha");
    let text = format!(
        "[gaffer]\nname = \"alpha\"\nadvertise = \"http://alpha.test:9\"\nlookup = [{:?}]\n",
        two.url()
    );
    std::fs::write(alpha.root().join("gaffer.toml"), text).expect("its file");
    alpha.signal(Signal::HUP);
    knows(&two, "shop.web", "alpha");
    assert_eq!(two.get("/nodes")["nodes"][0]["origin"], "http://alpha.test:9");
    forgets(&one, "shop.web");
}

#[test]
fn s12_2_the_originals_file_and_options_name_services_too() {
    let one = Lookupd::start(&[]);
    let two = Lookupd::start(&[]);
    let text = format!(
        "[gaffer]\nlookupd_address = {}\nlookupd_address2 = {}\nbroadcast_address = http://me.test:5000\n",
        one.url(),
        two.url()
    );
    let _alpha = Node::builder().config("gaffer.ini", &text).start();
    for lookupd in [&one, &two] {
        wait_until(SOON, "the node", || {
            lookupd.get("/nodes")["nodes"][0]["origin"] == "http://me.test:5000"
        });
    }
    let _beta = Node::builder()
        .arg("--lookupd-address")
        .arg(&one.url())
        .arg("--broadcast-address")
        .arg("http://beta.test:1")
        .start();
    wait_until(SOON, "the other node", || {
        lookupd_origins(&one).contains("beta.test")
    });
}

fn lookupd_origins(lookupd: &Lookupd) -> String {
    lookupd.get("/nodes").to_string()
}

#[test]
fn a_service_that_cannot_be_used_is_refused_with_what_to_write() {
    for (url, said) in [
        ("etcd://10.0.0.7", "etcd is not yet supported; gaffer-lookupd is"),
        ("10.0.0.7:5010", "it must begin with http://"),
        ("http://a/b", "a host and a port"),
    ] {
        let node = node("alpha", &[url.to_owned()]).prepare();
        let output = node.daemon_command().output().expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.contains(said) && stderr.contains("gaffer.toml"),
            "{stderr}"
        );
    }
}

#[test]
fn a_service_may_speak_https_and_nodes_must_trust_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let made = CertificateParams::new(vec!["localhost".to_owned()])
        .expect("a name")
        .signed_by(&key, &authority);
    std::fs::write(file("ca.pem"), authority.pem()).expect("written");
    std::fs::write(file("own.pem"), made.expect("signed").pem()).expect("written");
    std::fs::write(file("own.key"), key.serialize_pem()).expect("written");
    let lookupd = Lookupd::start(&["--certfile", &file("own.pem"), "--keyfile", &file("own.key")]);
    let url = format!("https://localhost:{}", lookupd.address().port());
    let mut alpha = node("alpha", std::slice::from_ref(&url))
        .env("SSL_CERT_FILE", &file("ca.pem"))
        .start();
    let _stranger = node("stranger", std::slice::from_ref(&url)).start();
    put(&mut alpha, "web");
    let nodes = |words: &[&str]| {
        let output = alpha.cli(&[&["--json", "-L", &url], words, &["lookup", "ls"]].concat());
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let trusted = ["--cacert", &file("ca.pem")].map(str::to_owned);
    let trusted: Vec<&str> = trusted.iter().map(String::as_str).collect();
    wait_until(SOON, "the node to be told", || {
        nodes(&trusted).1.contains("alpha")
    });
    let (code, said) = nodes(&trusted);
    assert!(code == Some(0) && !said.contains("stranger"), "{said}");
    let (code, said) = nodes(&[]);
    assert!(code != Some(0) && said.contains("certificate"), "{said}");
    // Whoever speaks plain HTTP is told so.
    let plain = format!("http://localhost:{}", lookupd.address().port());
    let output = alpha.cli(&["-L", &plain, "lookup", "ls"]);
    assert_ne!(output.status.code(), Some(0));
}
