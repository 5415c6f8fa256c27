//! Every route of the old APIs × every kind of key (specification, 6.2 and 11.1).
//!
//! The daemon's gate does not stand before these routes: each handler asks what the sender may do.

use crate::node::{Answer, Node, until};
use crate::{guarded, with_key};
use Need::{Admin, All, CreateKey, CreateUser, Job, Nothing, Read, Session, Write};
use gafferd::legacy::http::ROUTES;
use serde_json::{Value, json};

/// What a route needs, in the words of section 7.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// Nothing.
    Nothing,
    /// `read(s.j)`.
    Read,
    /// `write(s.j)`.
    Write,
    /// `manage(s.j)`.
    Job,
    /// `manage(s)`.
    Session,
    /// `manage_all`.
    All,
    /// `create_key`, or the own key.
    CreateKey,
    /// `create_user`, or the own user.
    CreateUser,
    /// `admin`.
    Admin,
}

const SCALE: &str = r#"{"scale": "=1"}"#;
const SIGNAL: &str = r#"{"signal": 18}"#;
const PUT: &str = r#"{"cmd": "sleep", "args": ["1000"]}"#;
const NEW: &str = r#"{"name": "fresh", "cmd": "sleep", "args": ["1000"]}"#;
const NEW_OLD: &str = r#"{"name": "shop:old", "cmd": "sleep", "args": ["1000"]}"#;
const USER: &str = r#"{"username": "eva", "password": "pw"}"#;

/// The route as the daemon has it, a method, a path that it takes, a body, and what it needs. `PID` is a process of the job.
#[rustfmt::skip] // A table reads better as one.
const TABLE: &[(&str, &str, &str, &str, Need)] = &[
    ("/", "GET", "/", "", Nothing),
    ("/version", "GET", "/version", "", Nothing),
    ("/ping", "GET", "/ping", "", Nothing),
    ("/sessions", "GET", "/sessions", "", All),
    ("/jobs", "GET", "/jobs", "", All),
    ("/pids", "GET", "/pids", "", All),
    ("/jobs/:session", "GET", "/jobs/shop", "", Session),
    ("/jobs/:session", "POST", "/jobs/shop", NEW, Session),
    ("/jobs/:session/:job", "HEAD", "/jobs/shop/web", "", Read),
    ("/jobs/:session/:job", "GET", "/jobs/shop/web", "", Read),
    ("/jobs/:session/:job", "PUT", "/jobs/shop/web", PUT, Job),
    ("/jobs/:session/:job", "DELETE", "/jobs/shop/web", "", Job),
    ("/jobs/:session/:job/stats", "GET", "/jobs/shop/web/stats", "", Read),
    ("/jobs/:session/:job/numprocesses", "GET", "/jobs/shop/web/numprocesses", "", Read),
    ("/jobs/:session/:job/numprocesses", "POST", "/jobs/shop/web/numprocesses", SCALE, Job),
    ("/jobs/:session/:job/signal", "POST", "/jobs/shop/web/signal", SIGNAL, Job),
    ("/jobs/:session/:job/state", "GET", "/jobs/shop/web/state", "", Read),
    ("/jobs/:session/:job/state", "POST", "/jobs/shop/web/state", "0", Job),
    ("/jobs/:session/:job/state", "POST", "/jobs/shop/web/state", "1", Job),
    ("/jobs/:session/:job/state", "POST", "/jobs/shop/web/state", "2", Job),
    ("/jobs/:session/:job/pids", "GET", "/jobs/shop/web/pids", "", Read),
    ("/jobs/:session/:job/commit", "POST", "/jobs/shop/web/commit", "{}", Job),
    ("/:pid", "HEAD", "/PID", "", Read),
    ("/:pid", "GET", "/PID", "", Read),
    ("/:pid", "DELETE", "/PID", "", Job),
    ("/:pid/signal", "POST", "/PID/signal", SIGNAL, Job),
    ("/:pid/stats", "GET", "/PID/stats", "", Read),
    ("/:pid/:other", "GET", "/PID/34", "", Nothing),
    ("/processes", "GET", "/processes", "", All),
    ("/processes", "GET", "/processes?running=true", "", All),
    ("/processes", "POST", "/processes", NEW_OLD, Session),
    ("/processes/:name", "HEAD", "/processes/shop:web", "", Read),
    ("/processes/:name", "GET", "/processes/shop:web", "", Read),
    ("/processes/:name", "PUT", "/processes/shop:web", PUT, Job),
    ("/processes/:name", "POST", "/processes/shop:web", PUT, Job),
    ("/processes/:name", "DELETE", "/processes/shop:web", "", Job),
    ("/processes/:name", "HEAD", "/processes/PID", "", Read),
    ("/processes/:name", "GET", "/processes/PID", "", Read),
    ("/processes/:name", "DELETE", "/processes/PID", "", Job),
    ("/processes/:name/:action", "GET", "/processes/shop:web/_pids", "", Read),
    ("/processes/:name/:action", "POST", "/processes/shop:web/_start", "", Job),
    ("/processes/:name/:action", "POST", "/processes/shop:web/_stop", "", Job),
    ("/processes/:name/:action", "POST", "/processes/shop:web/_restart", "", Job),
    ("/processes/:name/:action", "POST", "/processes/shop:web/_add", "", Job),
    ("/processes/:name/:action", "POST", "/processes/shop:web/_sub", "", Job),
    ("/processes/:name/:action", "POST", "/processes/PID/_stop", "", Job),
    ("/processes/:name/:action/:value", "POST", "/processes/shop:web/_add/1", "", Job),
    ("/processes/:name/:action/:value", "POST", "/processes/shop:web/_sub/1", "", Job),
    ("/processes/:name/:action/:value", "POST", "/processes/shop:web/_signal/18", "", Job),
    ("/processes/:name/:action/:value", "POST", "/processes/PID/_signal/18", "", Job),
    ("/status/:name", "GET", "/status/shop:web", "", Read),
    ("/groups", "GET", "/groups", "", All),
    ("/groups/:group", "GET", "/groups/shop", "", Session),
    ("/groups/:group", "DELETE", "/groups/shop", "", Session),
    ("/groups/:group/:action", "POST", "/groups/shop/_start", "", Session),
    ("/groups/:group/:action", "POST", "/groups/shop/_stop", "", Session),
    ("/groups/:group/:action", "POST", "/groups/shop/_restart", "", Session),
    ("/stats", "GET", "/stats", "", All),
    ("/stats/:name", "GET", "/stats/shop:web", "", Read),
    // A feed that there is not: who may is told so at once.
    ("/stats/:name", "GET", "/stats/shop:web?feed=none", "", Read),
    ("/stats/:name/:pid", "GET", "/stats/shop:web/PID", "", Read),
    ("/stats/:name/:pid", "GET", "/stats/shop:web/PID?feed=none", "", Read),
    ("/watch", "GET", "/watch?feed=none", "", All),
    ("/watch/:a", "GET", "/watch/start?feed=none", "", All),
    ("/watch/:a/:b", "GET", "/watch/proc/shop?feed=none", "", All),
    ("/watch/:a/:b/:c", "GET", "/watch/proc/shop/start?feed=none", "", All),
    ("/streams/:pid/:label", "GET", "/streams/PID/stdout?feed=none", "", Read),
    ("/streams/:pid/:label", "POST", "/streams/PID/stdin", "text", Write),
    // Routes of the router itself.
    ("", "GET", "/keys", "", Admin),
    ("", "GET", "/keys?include_keys=true", "", Admin),
    ("", "POST", "/keys", r#"{"permissions": {}}"#, CreateKey),
    ("", "HEAD", "/keys/nosuch", "", CreateKey),
    ("", "GET", "/keys/nosuch", "", CreateKey),
    ("", "DELETE", "/keys/nosuch", "", CreateKey),
    ("", "GET", "/users", "", Admin),
    ("", "POST", "/users", USER, CreateUser),
    ("", "HEAD", "/users/nosuch", "", CreateUser),
    ("", "GET", "/users/nosuch", "", CreateUser),
    ("", "PUT", "/users/nosuch", USER, CreateUser),
    ("", "DELETE", "/users/nosuch", "", CreateUser),
    ("", "PUT", "/users/nosuch/password", USER, CreateUser),
    ("", "PUT", "/users/nosuch/key", r#"{"key": null}"#, CreateUser),
];

/// Keys, by what they are enough for.
fn keys(node: &Node, admin: &str) -> Vec<(&'static str, String, Vec<Need>)> {
    let kinds = [
        ("nothing", json!({}), vec![]),
        (
            "another's",
            json!({"manage": ["bank", "shop.webs", "shop.we"], "read": ["web", "default"]}),
            vec![],
        ),
        ("read(s.j)", json!({"read": ["shop.web"]}), vec![Read]),
        ("write(s.j)", json!({"write": ["shop.web"]}), vec![Read, Write]),
        (
            "manage(s.j)",
            json!({"manage": ["shop.web"]}),
            vec![Read, Write, Job],
        ),
        (
            "manage(s)",
            json!({"manage": ["shop"]}),
            vec![Read, Write, Job, Session],
        ),
        (
            "write_all",
            json!({"write": ["*"], "read": ["*"]}),
            vec![Read, Write],
        ),
        (
            "manage_all",
            json!({"manage": ["*"]}),
            vec![Read, Write, Job, Session, All],
        ),
        ("create_key", json!({"create_key": true}), vec![CreateKey]),
        ("create_user", json!({"create_user": true}), vec![CreateUser]),
        (
            "admin",
            json!({"admin": true}),
            vec![Read, Write, Job, Session, All, CreateKey, CreateUser, Admin],
        ),
    ];
    let made = kinds.into_iter().map(|(name, permissions, enough)| {
        let answer = with_key(node, "POST", "/keys", admin, &json!({"permissions": permissions}));
        let key = answer.json()["api_key"].as_str().expect("a key").to_owned();
        (name, key, enough)
    });
    made.collect()
}

fn ask(node: &Node, method: &str, path: &str, key: Option<&str>, body: &str) -> Answer {
    let key = key.map(|key| format!("x-api-key: {key}\r\n")).unwrap_or_default();
    node.over_tcp(
        method,
        path,
        &format!("host: localhost\r\n{key}"),
        body.as_bytes(),
    )
}

/// The job as it was, running; the number of its process.
fn ready(node: &Node, admin: &str) -> String {
    let spec =
        json!({"cmd": "sleep", "args": ["1000"], "redirect_input": true, "redirect_output": ["stdout"]});
    let shown = ask(node, "GET", "/jobs/shop/web", Some(admin), "");
    let (method, path, body) = match shown.status {
        200 => ("PUT", "/jobs/shop/web", spec),
        _ => {
            let mut named = spec;
            named["name"] = "web".into();
            ("POST", "/jobs/shop", named)
        }
    };
    let put = ask(node, method, path, Some(admin), &body.to_string());
    assert!([200, 201].contains(&put.status), "{put:?}");
    for other in ["fresh", "old"] {
        ask(node, "DELETE", &format!("/jobs/shop/{other}"), Some(admin), "");
    }
    ask(node, "POST", "/jobs/shop/web/state", Some(admin), "1");
    let mut pid = String::new();
    until("it runs", || {
        let pids = ask(node, "GET", "/jobs/shop/web/pids", Some(admin), "").json();
        pid = pids["pids"][0]
            .as_u64()
            .map(|pid| pid.to_string())
            .unwrap_or_default();
        !pid.is_empty()
    });
    pid
}

fn state(node: &Node, admin: &str) -> (Value, Value) {
    let job = ask(node, "GET", "/jobs/shop/web", Some(admin), "").json();
    let all = ask(node, "GET", "/jobs", Some(admin), "").json();
    (job["processes"].clone(), all)
}

#[test]
fn s6_2_every_route_of_the_old_apis_is_closed_to_every_key_that_is_not_enough() {
    let (node, admin) = guarded();
    let keys = keys(&node, &admin);
    let pid = ready(&node, &admin);
    let before = state(&node, &admin);
    for (_, method, path, body, need) in TABLE {
        if *need == Nothing {
            continue;
        }
        let path = path.replace("PID", &pid);
        let none = ask(&node, method, &path, None, body);
        assert_eq!(none.status, 401, "{method} {path}");
        let unknown = ask(
            &node,
            method,
            &path,
            Some("0123456789abcdef0123456789abcdef"),
            body,
        );
        assert_eq!(unknown.status, 403, "{method} {path}");
        if *method != "HEAD" {
            let (none, unknown) = (none.json(), unknown.json());
            assert_eq!(
                (&none["error"], &none["reason"]),
                (&json!(401), &json!("unauthorized"))
            );
            assert_eq!(
                (&unknown["error"], &unknown["reason"]),
                (&json!(403), &json!("forbidden"))
            );
        }
        for (who, key, enough) in &keys {
            if !enough.contains(need) {
                let answer = ask(&node, method, &path, Some(key), body);
                assert_eq!(
                    answer.status, 403,
                    "{who}: {method} {path} needs {need:?}: {answer:?}"
                );
            }
        }
    }
    assert_eq!(state(&node, &admin), before, "nothing of it has happened");
}

#[test]
fn s6_2_every_route_of_the_old_apis_is_open_to_every_key_that_is_enough() {
    let (node, admin) = guarded();
    let keys = keys(&node, &admin);
    for (_, method, path, body, need) in TABLE {
        let open = || {
            keys.iter()
                .filter(|(.., enough)| *need == Nothing || enough.contains(need))
        };
        // A change is made by the weakest only.
        let changes = !["GET", "HEAD"].contains(method);
        let count = if changes { 1 } else { usize::MAX };
        for (who, key, _) in open().take(count) {
            let path = path.replace("PID", &ready(&node, &admin));
            let answer = ask(&node, method, &path, Some(key), body);
            let fine = ![401, 403, 405].contains(&answer.status) && answer.status < 500;
            assert!(fine, "{who}: {method} {path} needs {need:?}: {answer:?}");
        }
    }
}

/// A route that is added without a row here is found.
#[test]
fn every_route_of_the_old_apis_is_in_the_table() {
    for (route, methods) in ROUTES {
        for method in methods.split(' ') {
            let known = TABLE.iter().any(|(own, by, ..)| own == route && *by == method);
            assert!(known, "{method} {route}");
        }
    }
}
