//! Secrets are in no output, and what is on disk is private.

use crate::node::{Node, until};
use crate::{PASSWORD, guarded, read_token, with_key, with_token};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

fn files(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

#[test]
fn hazard_b7_a_credential_is_in_no_file_no_list_no_event_and_no_log() {
    let (node, admin) = guarded();
    let token = read_token(&node, "canary");
    let wrong = "gaffer_0123456789wrong-but-secret";
    assert_eq!(with_token(&node, "GET", "/v1/jobs", wrong).status, 401);
    assert_eq!(with_key(&node, "GET", "/keys", &admin, &Value::Null).status, 200);
    node.put("canary", "env; echo done", &json!({"restart": "never"}));
    until("it has run", || {
        String::from_utf8_lossy(&node.get("/v1/jobs/default/canary/logs").body).contains("done")
    });
    let mut outputs: Vec<(String, Vec<u8>)> = Vec::new();
    for path in [
        "/v1/tokens",
        "/v1/users",
        "/v1/events",
        "/v1/jobs",
        "/v1/logs",
        "/v1/node",
        "/v1/doctor",
        "/v1/config",
        "/metrics",
        "/v1/tokens/canary",
        "/v1/users/root",
        "/v1/jobs/default/canary",
    ] {
        let answer = node.get(path);
        assert_eq!(answer.status, 200, "{path}");
        outputs.push((path.to_owned(), answer.body));
    }
    node.until_logged("token.created");
    outputs.push(("the log".to_owned(), node.log().into_bytes()));
    let mut paths = Vec::new();
    files(node.dir.path(), &mut paths);
    assert!(paths.iter().any(|path| path.ends_with("access.db")), "{paths:?}");
    for path in paths {
        outputs.push((path.display().to_string(), std::fs::read(&path).expect("read")));
    }
    for secret in [&token[7..], &admin, wrong, PASSWORD] {
        for (what, bytes) in &outputs {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{what} has {secret}");
        }
    }
}

#[test]
fn b9_another_user_reaches_neither_the_socket_nor_the_state() {
    let (node, _) = guarded();
    let state = node.dir.path().join("state");
    for name in ["access.db", "access.key"] {
        let mode = std::fs::metadata(state.join(name))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    if !rustix::process::getuid().is_root() {
        return;
    }
    // Whoever is let into the directory above is stopped by the modes below it.
    std::fs::set_permissions(node.dir.path(), PermissionsExt::from_mode(0o755)).expect("open");
    for name in ["state/access.db", "state/access.key", "state", "run/sock"] {
        let path = node.dir.path().join(name);
        let tried = Command::new("head")
            .arg("-c1")
            .arg(&path)
            .uid(65534)
            .gid(65534)
            .output()
            .expect("runs");
        assert!(!tried.status.success(), "{name} can be read");
    }
}

/// Ids that are none: each is refused, nothing is looked up, nothing breaks.
#[test]
fn b9_hostile_ids_are_refused_everywhere() {
    let node = Node::start();
    let corpus = [
        "..",
        "%2e%2e",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "a%00b",
        "a%0d%0ab",
        "%F0%9F%92%A9",
        "-rf",
        "a%20b",
        "%25",
        "'%3Bdrop%20table%20user%3B--",
        "%3Cscript%3E",
        "a.b.c.d.",
        "~",
        "*",
        "%5C%5Cx",
    ];
    for id in corpus.map(str::to_owned).into_iter().chain(["x".repeat(5000)]) {
        for (method, path) in [
            ("GET", format!("/v1/jobs/{id}/x")),
            ("GET", format!("/v1/jobs/default/{id}")),
            ("GET", format!("/v1/runs/{id}")),
            ("GET", format!("/v1/operations/{id}")),
            ("GET", format!("/v1/tokens/{id}")),
            ("DELETE", format!("/v1/tokens/{id}")),
            ("GET", format!("/v1/users/{id}")),
            ("DELETE", format!("/v1/users/{id}")),
            ("GET", format!("/keys/{id}")),
            ("GET", format!("/users/{id}")),
        ] {
            let status = node.over_unix(method, &path, "host: localhost\r\n", b"").status;
            assert!((400..=405).contains(&status), "{method} {path}: {status}");
        }
    }
    for name in ["", "a b", "../x", "a/b", "a\u{0}", "<b>"] {
        let request = json!({"name": name, "scope": "read"});
        assert_eq!(
            node.ask("POST", "/v1/tokens", Some(&request)).status,
            400,
            "{name:?}"
        );
        let request = json!({"name": "x", "scope": "read", "for": [name]});
        assert_eq!(
            node.ask("POST", "/v1/tokens", Some(&request)).status,
            400,
            "{name:?}"
        );
    }
    assert_eq!(node.get("/v1/tokens").json(), json!([]));
}
