//! Who may ask: every route, every transport.

use crate::node::Node;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// All routes of the committed document, with something in place of each parameter.
fn routes(node: &Node) -> Vec<(String, String)> {
    let document = node.get("/v1/openapi.json").json();
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let path = path
            .replace("{session}", "default")
            .replace("{job}", "canary")
            .replace("{instance}", "1")
            .replace("{verb}", "stop")
            .replace("{stream}", "stdout")
            .replace(['{', '}'], "");
        for method in methods.as_object().expect("methods").keys() {
            routes.push((method.to_uppercase(), path.clone()));
        }
    }
    assert!(routes.len() > 30, "{routes:?}");
    routes
}

#[test]
fn a_foreign_web_page_gets_nothing_from_any_route_on_any_transport() {
    let node = Node::start();
    let port = node.address.expect("listens").port();
    let foreign = [
        ("host: evil.test\r\n".to_owned(), "bad-host"),
        (
            "host: evil.test:80\r\norigin: http://evil.test:80\r\n".to_owned(),
            "bad-host",
        ),
        (
            format!("host: localhost:{port}\r\norigin: http://evil.test\r\n"),
            "forbidden",
        ),
        (
            format!(
                "host: localhost:{port}\r\norigin: http://localhost:{}\r\n",
                port ^ 1
            ),
            "forbidden",
        ),
        (format!("host: localhost:{port}\r\norigin: null\r\n"), "forbidden"),
        (
            format!("host: localhost:{port}\r\nsec-fetch-site: cross-site\r\n"),
            "forbidden",
        ),
        (
            format!("host: localhost:{port}\r\nsec-fetch-site: same-site\r\n"),
            "forbidden",
        ),
    ];
    for (method, path) in routes(&node) {
        for (headers, code) in &foreign {
            for (transport, answer) in [
                ("unix", node.over_unix(&method, &path, headers, b"")),
                ("tcp", node.over_tcp(&method, &path, headers, b"")),
            ] {
                assert_eq!(
                    (answer.status, answer.code().as_str()),
                    (403, *code),
                    "{transport} {method} {path} {headers}"
                );
            }
        }
    }
    assert_eq!(node.get("/healthz").status, 200, "nothing of it ended the daemon");
}

#[test]
fn a_form_on_a_web_page_cannot_change_anything() {
    let node = Node::start();
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ] {
        let headers = format!("host: localhost\r\ncontent-type: {kind}\r\n");
        let answer = node.over_tcp("POST", "/v1/node/shutdown", &headers, b"{}");
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "forbidden"),
            "{kind}"
        );
    }
    assert_eq!(node.get("/healthz").status, 200);
}

#[test]
fn every_answer_tells_browsers_to_keep_their_hands_off() {
    let node = Node::start();
    for path in ["/v1/jobs", "/nonsense", "/metrics"] {
        let answer = node.get(path);
        assert_eq!(
            answer.header("x-content-type-options").as_deref(),
            Some("nosniff"),
            "{path}"
        );
        assert!(
            answer
                .header("content-security-policy")
                .is_some_and(|policy| policy.contains("default-src 'none'"))
        );
        assert!(answer.header("access-control-allow-origin").is_none());
        assert!(answer.header("gaffer-request").is_some());
    }
}

#[test]
fn loopback_serves_the_daemons_own_user_and_nobody_else() {
    let node = Node::start();
    assert_eq!(
        node.over_tcp("GET", "/v1/jobs", "host: localhost\r\n", b"")
            .status,
        200
    );
    if !rustix_is_root() {
        return;
    }
    let port = node.address.expect("listens").port();
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; \
         printf 'GET /v1/jobs HTTP/1.1\\r\\nhost: localhost\\r\\nconnection: close\\r\\n\\r\\n' >&3; cat <&3"
    );
    let asked = Command::new("bash")
        .args(["-c", &script])
        .uid(65534)
        .gid(65534)
        .stdin(Stdio::null())
        .output();
    let asked = asked.expect("bash runs");
    let answer = crate::node::parse(&asked.stdout);
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
    assert!(
        answer.json()["error"]["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("gaffer token create"))
    );
}

#[test]
fn the_control_socket_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let node = Node::start();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&node.socket()), 0o600);
    assert_eq!(mode(node.socket().parent().expect("a folder")), 0o700);
    assert_eq!(mode(&node.dir.path().join("state")), 0o700);
}

fn rustix_is_root() -> bool {
    rustix::process::geteuid().is_root()
}
