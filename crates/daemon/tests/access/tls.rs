//! HTTPS: real certificates, the real client.

use crate::node::{Node, gafferd, refused, temp_dir, until};
use crate::{create_admin, token};
use gaffer_api::tls::TlsOptions;
use gaffer_api::{Client, Endpoint};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use std::path::Path;

type Authority = CertifiedIssuer<'static, KeyPair>;

/// An authority, its certificate in `NAME-ca.pem`.
fn authority(dir: &Path, name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    std::fs::write(dir.join(format!("{name}-ca.pem")), authority.pem()).expect("written");
    authority
}

/// A certificate of the authority for a host, in `NAME.pem` and `NAME.key`.
fn certificate(dir: &Path, name: &str, host: &str, by: &Authority) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
    let made = params.signed_by(&key, by).expect("signed");
    std::fs::write(dir.join(format!("{name}.pem")), made.pem()).expect("written");
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("written");
}

fn client(node: &Node, token: &str, dir: &Path, ca: &str, cert: Option<&str>) -> Client {
    let port = node.address.expect("listens").port();
    let options = TlsOptions {
        ca: Some(dir.join(format!("{ca}-ca.pem"))),
        cert: cert.map(|name| dir.join(format!("{name}.pem"))),
        key: cert.map(|name| dir.join(format!("{name}.key"))),
    };
    let endpoint = Endpoint::Tls("localhost".to_owned(), port);
    Client::with_tls(endpoint, Some(token.to_owned()), options)
}

fn arguments(dir: &Path) -> [String; 4] {
    let file = |name: &str| dir.join(name).display().to_string();
    [
        "--certfile".to_owned(),
        file("a.pem"),
        "--keyfile".to_owned(),
        file("a.key"),
    ]
}

fn start(dir: &std::sync::Arc<tempfile::TempDir>, more: &[&str]) -> Node {
    let tls = arguments(dir.path());
    let mut all: Vec<&str> = tls.iter().map(String::as_str).collect();
    all.extend(more);
    Node::start_in(dir.clone(), &all)
}

#[tokio::test]
async fn s14_6_https_and_wss_are_served_on_the_same_port_and_plain_http_is_told_so() {
    let dir = temp_dir();
    let ca = authority(dir.path(), "x");
    authority(dir.path(), "y");
    certificate(dir.path(), "a", "localhost", &ca);
    let node = start(&dir, &["--bind", "127.0.0.1:0"]);
    let text = token(&node, &json!({"name": "t", "scope": "read"}));
    let good = client(&node, &text, dir.path(), "x", None);
    assert!(
        good.tokens().await.is_err_and(|error| error.code().is_some()),
        "read is not enough"
    );
    good.node().await.expect("served over TLS");
    good.stream().await.expect("a WebSocket over TLS");
    let stranger = client(&node, &text, dir.path(), "y", None)
        .node()
        .await
        .expect_err("not believed");
    assert_eq!(stranger.exit_code(), 69, "{stranger}");
    let port = node.address.expect("listens").port();
    let options = TlsOptions {
        ca: Some(dir.path().join("x-ca.pem")),
        ..TlsOptions::default()
    };
    let other = Client::with_tls(Endpoint::Tls("127.0.0.1".to_owned(), port), None, options);
    other
        .node()
        .await
        .expect_err("the certificate names another host");
    let plain = node.over_tcp("GET", "/v1/node", "host: localhost\r\n", b"");
    assert_eq!(plain.status, 400);
    assert!(
        String::from_utf8_lossy(&plain.body).contains("https"),
        "{plain:?}"
    );
    assert!(
        node.get("/v1/node")
            .json()
            .to_string()
            .contains("https://127.0.0.1:")
    );
}

#[tokio::test]
async fn certificates_are_read_again_and_a_broken_one_changes_nothing() {
    let dir = temp_dir();
    let (x, y) = (authority(dir.path(), "x"), authority(dir.path(), "y"));
    certificate(dir.path(), "a", "localhost", &x);
    let config = dir.path().join("gaffer.toml");
    let text = "[gaffer]\nbind = [\"127.0.0.1:0\"]\ntls = {cert = \"a.pem\", key = \"a.key\"}\n[job.a]\ncmd = \"sleep 1000\"\n";
    std::fs::write(&config, text).expect("written");
    let node = Node::start_in(dir.clone(), &["-c", config.to_str().expect("text")]);
    let text = token(&node, &json!({"name": "t", "scope": "read"}));
    client(&node, &text, dir.path(), "x", None)
        .node()
        .await
        .expect("the first");
    std::fs::write(dir.path().join("a.pem"), "nonsense").expect("written");
    assert!(node.post("/v1/node/reload").status < 300);
    node.until_logged("config.refused");
    client(&node, &text, dir.path(), "x", None)
        .node()
        .await
        .expect("still the first");
    certificate(dir.path(), "a", "localhost", &y);
    assert!(node.post("/v1/node/reload").status < 300);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        until("the second", || {
            let second = client(&node, &text, dir.path(), "y", None);
            runtime.block_on(second.node()).is_ok()
        });
    })
    .await
    .expect("done");
}

#[tokio::test]
async fn with_client_ca_a_certificate_is_needed_beside_the_token() {
    let dir = temp_dir();
    let (x, y) = (authority(dir.path(), "x"), authority(dir.path(), "y"));
    certificate(dir.path(), "a", "localhost", &x);
    certificate(dir.path(), "c", "client", &x);
    certificate(dir.path(), "d", "client", &y);
    let config = dir.path().join("gaffer.toml");
    let text = "[gaffer]\nbind = [\"127.0.0.1:0\"]\nrequire_token = true\n\
                tls = {cert = \"a.pem\", key = \"a.key\", client_ca = \"x-ca.pem\"}\n[job.a]\ncmd = \"sleep 1000\"\n";
    std::fs::write(&config, text).expect("written");
    let node = Node::start_in(dir.clone(), &["-c", config.to_str().expect("text")]);
    let text = token(&node, &json!({"name": "t", "scope": "read"}));
    client(&node, &text, dir.path(), "x", Some("c"))
        .node()
        .await
        .expect("with both");
    client(&node, &text, dir.path(), "x", None)
        .node()
        .await
        .expect_err("without a certificate");
    client(&node, &text, dir.path(), "x", Some("d"))
        .node()
        .await
        .expect_err("of another authority");
    let error = client(&node, "wrong", dir.path(), "x", Some("c"))
        .node()
        .await
        .expect_err("without a token");
    assert_eq!(error.exit_code(), 5, "{error}");
}

#[test]
fn k4_off_loopback_it_starts_with_tls_and_a_credential_only() {
    let dir = temp_dir();
    let ca = authority(dir.path(), "x");
    certificate(dir.path(), "a", "localhost", &ca);
    let tried = |tls: bool| {
        let mut command = gafferd(dir.path());
        command.args(["--bind", "0.0.0.0:0"]);
        if tls {
            command.args(arguments(dir.path()));
        }
        refused(command)
    };
    let (code, said) = tried(false);
    assert!(
        code == 2 && said.contains("--certfile") && said.contains("--create-admin-user"),
        "{code} {said}"
    );
    let (code, said) = tried(true);
    assert!(
        code == 2 && !said.contains("--certfile") && said.contains("--create-admin-user"),
        "{code} {said}"
    );
    create_admin(dir.path(), "root");
    let (code, said) = tried(false);
    assert!(
        code == 2 && said.contains("--certfile") && !said.contains("--create-admin-user"),
        "{code} {said}"
    );
    let node = start(&dir, &["--bind", "0.0.0.0:0"]);
    assert!(node.address.is_some());
}
