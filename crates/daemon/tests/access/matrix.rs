//! Every route × every kind of credential.

use crate::node::Node;
use crate::{token, with_token};
use gafferd::access::routes::{Need, TABLE, need};
use hyper::Method;
use serde_json::json;

/// What a credential of each kind is enough for.
fn is_enough(who: &str, need: Need) -> Option<bool> {
    use Need::{Credential, Nothing, Operate, OperateAll, Read, ReadAll, ReadSession, Write};
    let enough: &[Need] = match who {
        "read" => &[Nothing, Credential, Read, ReadAll, ReadSession],
        "operate" => &[
            Nothing,
            Credential,
            Read,
            ReadAll,
            ReadSession,
            Write,
            Operate,
            OperateAll,
        ],
        "read on another job" => &[Nothing, Credential],
        "read on the job" => &[Nothing, Credential, Read],
        "operate on the session" => &[Nothing, Credential, Read, ReadSession, Write, Operate],
        "nobody" => &[Nothing],
        _ => return None,
    };
    Some(enough.contains(&need))
}

/// Something in place of each parameter: the job is there, and has a run.
fn filled(path: &str, run: &str) -> String {
    path.replace("/v1/runs/{}", &format!("/v1/runs/{run}"))
        .replace("/v1/jobs/{}/{}", "/v1/jobs/default/canary")
        .replace("/jobs/{}/{}", "/jobs/default/canary")
        .replace("/instances/{}", "/instances/1")
        .replace("/logs/{}", "/logs/stdout")
        .replace("/**", "/x")
        .replace("{}", "default")
}

#[test]
fn every_route_is_closed_to_every_credential_that_is_not_enough() {
    let node = Node::start_in(crate::temp_dir(), &["--bind", "127.0.0.1:0", "--require-key"]);
    node.put("canary", "exec sleep 1000", &json!({}));
    let mut run = String::new();
    crate::node::until("it runs", || {
        let job = node.job("canary");
        run = job["instances"][0]["run"].as_str().unwrap_or_default().to_owned();
        !run.is_empty()
    });
    let whos = [
        ("read", json!({"name": "a", "scope": "read"})),
        ("operate", json!({"name": "b", "scope": "operate"})),
        (
            "read on another job",
            json!({"name": "c", "scope": "read", "for": ["default.other"]}),
        ),
        (
            "read on the job",
            json!({"name": "d", "scope": "read", "for": ["default.can*"]}),
        ),
        (
            "operate on the session",
            json!({"name": "e", "scope": "operate", "for": ["default.*"]}),
        ),
    ];
    let mut tokens: Vec<(&str, String)> = whos
        .iter()
        .map(|(who, request)| (*who, token(&node, request)))
        .collect();
    tokens.push(("nobody", String::new()));
    for (methods, path, need) in TABLE {
        if *need == Need::Handler {
            continue;
        }
        for method in methods.split(' ') {
            for (who, text) in &tokens {
                if is_enough(who, *need) == Some(true) {
                    continue;
                }
                let path = filled(path, &run);
                let answer = if text.is_empty() {
                    node.over_tcp(
                        method,
                        &path,
                        "host: localhost\r\ncontent-type: application/json\r\n",
                        b"{}",
                    )
                } else {
                    with_token(&node, method, &path, text)
                };
                let closed = [401, 403, 404, 405].contains(&answer.status);
                assert!(
                    closed,
                    "{who}: {method} {path} needs {need:?}, got {}",
                    answer.status
                );
                if text.is_empty() {
                    assert_eq!(answer.status, 401, "{method} {path}");
                }
            }
        }
    }
    assert_eq!(
        node.job("canary")["instances"][0]["run"],
        json!(run),
        "nothing of it reached the job"
    );
}

#[test]
fn a_credential_that_is_enough_is_served() {
    let node = Node::start_in(crate::temp_dir(), &["--bind", "127.0.0.1:0", "--require-key"]);
    node.put("canary", "exec sleep 1000", &json!({}));
    let read = token(
        &node,
        &json!({"name": "r", "scope": "read", "for": ["default.canary"]}),
    );
    let operate = token(&node, &json!({"name": "o", "scope": "operate"}));
    for (text, method, path, status) in [
        (&read, "GET", "/v1/jobs/default/canary", 200),
        (&read, "GET", "/v1/jobs/default/canary/deaths", 200),
        (&read, "GET", "/v1/node", 200),
        (&read, "GET", "/v1/tokens/r", 200),
        (&read, "GET", "/v1/tokens/o", 403),
        (&read, "GET", "/v1/tokens", 403),
        (&read, "POST", "/v1/tokens", 403),
        (&read, "GET", "/v1/users", 403),
        (&read, "POST", "/v1/jobs/default/canary/stop", 403),
        (&read, "GET", "/v1/jobs/default/unknown", 403),
        (&operate, "GET", "/v1/jobs", 200),
        (&operate, "POST", "/v1/jobs/default/canary/restart?wait=30s", 200),
        (&operate, "PUT", "/v1/jobs/default/canary", 403),
        (&operate, "POST", "/v1/jobs/default/canary/run", 403),
        (&operate, "POST", "/v1/node/shutdown", 403),
        (&operate, "GET", "/v1/jobs/default/unknown", 404),
    ] {
        let answer = with_token(&node, method, path, text);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    }
    // Reasons name the token.
    let job = with_token(&node, "POST", "/v1/jobs/default/canary/stop?wait=30s", &operate);
    assert_eq!(job.status, 200);
    assert!(
        node.job("canary").to_string().contains("token o"),
        "{}",
        node.job("canary")
    );
}

/// The committed document is what a client sees; each of its routes is in the table.
#[test]
fn every_route_of_the_document_has_a_need() {
    let node = Node::start();
    let document = node.get("/v1/openapi.json").json();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
            assert!(need(&method, path).is_some(), "{method} {path}");
        }
    }
}
