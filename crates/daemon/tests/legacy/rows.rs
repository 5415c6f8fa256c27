//! Section 6.2 and 11.1: what each route answers to what cannot be. Never a fault of the server, always the one form.

use crate::Old;
use serde_json::{Value, json};

/// A method, a path, a body, and the status. `web` is a job of `s` whose process has the number 1; `default.flat` is another.
#[rustfmt::skip] // A table reads better as one.
const REFUSED: &[(&str, &str, &str, u16)] = &[
    // Unknown targets.
    ("GET", "/jobs/none", "", 404),
    ("GET", "/jobs/s/none", "", 404),
    ("HEAD", "/jobs/s/none", "", 404),
    ("PUT", "/jobs/s/none", r#"{"cmd": "sleep 1"}"#, 404),
    ("DELETE", "/jobs/s/none", "", 404),
    ("GET", "/jobs/s/none/stats", "", 404),
    ("GET", "/jobs/s/none/numprocesses", "", 404),
    ("POST", "/jobs/s/none/numprocesses", r#"{"scale": 1}"#, 404),
    ("POST", "/jobs/s/none/signal", r#"{"signal": 15}"#, 404),
    ("GET", "/jobs/s/none/state", "", 404),
    ("POST", "/jobs/s/none/state", "1", 404),
    ("GET", "/jobs/s/none/pids", "", 404),
    ("POST", "/jobs/s/none/commit", "{}", 404),
    ("HEAD", "/999", "", 404),
    ("GET", "/999", "", 404),
    ("DELETE", "/999", "", 404),
    ("POST", "/999/signal", r#"{"signal": 15}"#, 404),
    ("GET", "/999/stats", "", 404),
    // Wrong bodies.
    ("POST", "/jobs/s", "", 400),
    ("POST", "/jobs/s", "{", 400),
    ("POST", "/jobs/s", "[]", 400),
    ("POST", "/jobs/s", r#"{"name": "x"}"#, 400),
    ("POST", "/jobs/s", r#"{"cmd": "sleep 1"}"#, 400),
    ("POST", "/jobs/s", r#"{"name": 5, "cmd": "sleep 1"}"#, 400),
    ("POST", "/jobs/s", r#"{"name": "x", "cmd": 5}"#, 400),
    ("POST", "/jobs/s", r#"{"name": "x", "cmd": ""}"#, 400),
    ("POST", "/jobs/s", r#"{"name": "x", "cmd": "sleep 'open"}"#, 400),
    ("POST", "/jobs/s", r#"{"name": "x", "cmd": "sleep", "args": 7}"#, 400),
    ("POST", "/jobs/s", r#"{"name": "x", "cmd": "sleep 1", "env": []}"#, 400),
    ("POST", "/jobs/s", r#"{"name": "x", "cmd": "sleep 1", "numprocesses": "two"}"#, 400),
    ("POST", "/jobs/s", r#"{"name": "x", "cmd": "sleep 1", "graceful_timeout": "soon"}"#, 400),
    ("POST", "/jobs/s", r#"{"name": "web", "cmd": "sleep 1"}"#, 409),
    ("PUT", "/jobs/s/web", "{", 400),
    ("PUT", "/jobs/s/web", "{}", 400),
    ("PUT", "/jobs/s/web", r#"{"name": "other", "cmd": "sleep 1"}"#, 400),
    ("POST", "/jobs/s/web/numprocesses", "", 400),
    ("POST", "/jobs/s/web/numprocesses", "{", 400),
    ("POST", "/jobs/s/web/numprocesses", "{}", 400),
    ("POST", "/jobs/s/web/numprocesses", r#"{"scale": "x"}"#, 400),
    ("POST", "/jobs/s/web/numprocesses", r#"{"scale": 1.5}"#, 400),
    ("POST", "/jobs/s/web/numprocesses", r#"{"scale": 99999999999}"#, 400),
    ("POST", "/jobs/s/web/signal", "{", 400),
    ("POST", "/jobs/s/web/signal", "{}", 400),
    ("POST", "/jobs/s/web/signal", r#"{"signal": "NONE"}"#, 400),
    ("POST", "/jobs/s/web/signal", r#"{"signal": 200}"#, 400),
    ("POST", "/jobs/s/web/state", "", 400),
    ("POST", "/jobs/s/web/state", "3", 400),
    ("POST", "/jobs/s/web/state", "start", 400),
    ("POST", "/jobs/s/web/commit", "{", 400),
    ("POST", "/jobs/s/web/commit", r#"{"env": [1]}"#, 400),
    ("POST", "/jobs/s/web/commit", r#"{"graceful_timeout": "x"}"#, 400),
    ("POST", "/jobs/s/web/commit", r#"{"graceful_timeout": -1}"#, 400),
    ("POST", "/1/signal", "{", 400),
    ("POST", "/1/signal", "{}", 400),
    ("POST", "/1/signal", r#"{"signal": "NONE"}"#, 400),
    ("GET", "/1/2", "", 400),
    ("GET", "/1/channel", "", 400),
    ("GET", "/1/channel?mode=9", "", 400),
    // Methods that there are not.
    ("PUT", "/jobs", "", 405),
    ("HEAD", "/sessions", "", 405),
    ("DELETE", "/jobs/s/web/state", "", 405),
    ("GET", "/jobs/s/web/commit", "", 405),
    ("POST", "/1", "", 405),
    ("PUT", "/processes", "", 405),
    // Names that there cannot be.
    ("POST", "/jobs/s", r#"{"name": "a/b", "cmd": "sleep 1"}"#, 400),
    ("POST", "/jobs/s", r#"{"name": "-x", "cmd": "sleep 1"}"#, 400),
    ("POST", "/jobs/%20", r#"{"name": "x", "cmd": "sleep 1"}"#, 400),
    // 0.4.
    ("GET", "/processes/none", "", 404),
    ("HEAD", "/processes/none", "", 404),
    ("DELETE", "/processes/none", "", 404),
    ("POST", "/processes/none", r#"{"name": "none", "cmd": "sleep 1"}"#, 404),
    ("PUT", "/processes/none", r#"{"name": "none", "cmd": "sleep 1"}"#, 404),
    ("GET", "/processes/999", "", 404),
    ("HEAD", "/processes/999", "", 404),
    ("DELETE", "/processes/999", "", 404),
    ("GET", "/processes/none/_pids", "", 404),
    ("POST", "/processes/none/_start", "", 404),
    ("POST", "/processes/none/_stop", "", 404),
    ("POST", "/processes/none/_restart", "", 404),
    ("POST", "/processes/none/_add", "", 404),
    ("POST", "/processes/none/_sub/2", "", 404),
    ("POST", "/processes/none/_signal/15", "", 404),
    ("POST", "/processes/999/_signal/15", "", 404),
    ("POST", "/processes/999/_stop", "", 404),
    ("POST", "/processes/flat/_fly", "", 404),
    ("POST", "/processes/flat/_add/x", "", 400),
    ("POST", "/processes/flat/_sub/-1", "", 400),
    ("POST", "/processes/flat/_signal", "", 400),
    ("POST", "/processes/flat/_signal/NONE", "", 400),
    ("POST", "/processes", "{", 400),
    ("POST", "/processes", "{}", 400),
    ("POST", "/processes", r#"{"name": "flat", "cmd": "sleep 1"}"#, 409),
    ("POST", "/processes/flat", "{", 400),
    ("GET", "/status/none", "", 404),
    ("GET", "/status/999", "", 404),
    ("GET", "/groups/none", "", 404),
    ("DELETE", "/groups/none", "", 404),
    ("POST", "/groups/none/_start", "", 404),
    ("POST", "/groups/s/_fly", "", 404),
    ("GET", "/stats/none", "", 404),
    ("GET", "/stats/s:web/999", "", 404),
    ("GET", "/stats/s:web/x", "", 400),
    ("GET", "/stats/s:web?feed=none", "", 400),
    ("GET", "/watch/none", "", 404),
    ("GET", "/watch?feed=none", "", 400),
    ("GET", "/watch?feed=continuous&heartbeat=often", "", 400),
    ("GET", "/streams/999/out", "", 404),
    ("GET", "/streams/x/out", "", 400),
    ("POST", "/streams/999/stdin", "x", 404),
    ("POST", "/streams/1/stdin", "x", 403),
    ("POST", "/streams/1/ttin", "x", 403),
];

#[test]
fn s6_2_s11_1_d12_what_cannot_be_is_refused_in_one_form_and_changes_nothing() {
    let mut old = Old::start();
    old.sleeper("web", &json!({"redirect_output": ["out"]}));
    let flat = json!({"name": "flat", "cmd": "sleep 1000"});
    assert_eq!(old.ask("POST", "/processes", &flat).0, 200);
    let before = (old.shown("/jobs"), old.shown("/pids"), old.shown("/jobs/s/web"));
    for (method, path, body, wanted) in REFUSED {
        let answer = old.raw(method, path, body.as_bytes());
        let text = answer.text();
        assert_eq!(answer.status, *wanted, "{method} {path} {body}: {text}");
        // SockJS's and WebSocket's own refusals are texts.
        if *method == "HEAD" || path.contains("/channel") {
            continue;
        }
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        assert_eq!(value["errno"], *wanted, "{method} {path} {body}: {text}");
        assert!(value["reason"].is_string(), "{method} {path} {body}: {text}");
        // The number for what the original's framework refuses, the word elsewhere.
        let numeric = *wanted == 405 || *wanted == 401;
        assert_eq!(value["error"].is_number(), numeric, "{method} {path}: {text}");
    }
    let after = (old.shown("/jobs"), old.shown("/pids"), old.shown("/jobs/s/web"));
    assert_eq!(after, before);
}

#[test]
fn s11_1_processes_by_their_number() {
    let mut old = Old::start();
    old.sleeper("web", &json!({}));
    assert_eq!(old.raw("HEAD", "/processes/1", b"").status, 200);
    let shown = old.shown("/processes/1");
    assert_eq!((&shown["name"], &shown["group"]), (&json!("s:web"), &json!("s")));
    let ok = (200, json!({"ok": true}));
    assert_eq!(old.ask("POST", "/processes/1/_signal/CONT", &Value::Null), ok);
    assert_eq!(old.ask("POST", "/processes/1/_stop", &Value::Null), ok);
    assert_eq!(
        old.raw("HEAD", "/processes/1", b"").status,
        404,
        "invisible at once"
    );
    let next = old.wait_pids("web", 1)[0];
    assert_eq!(old.ask("DELETE", &format!("/processes/{next}"), &Value::Null), ok);
    assert_ne!(old.wait_pids("web", 1), [next]);
}

#[test]
fn s11_1_a_group_is_restarted() {
    let mut old = Old::start();
    old.sleeper("web", &json!({}));
    old.sleeper("api", &json!({}));
    let before = (old.pids("web"), old.pids("api"));
    let restarted = old.ask("POST", "/groups/s/_restart", &Value::Null);
    assert_eq!(restarted, (200, json!({"ok": true})));
    let after = (old.wait_pids("web", 1), old.wait_pids("api", 1));
    assert!(before.0 != after.0 && before.1 != after.1, "{before:?} {after:?}");
}

#[test]
fn s11_3_old_stats_have_user_nice_and_the_tree_of_children() {
    let mut old = Old::start();
    let template = json!({"name": "tree", "cmd": "sh -c 'sleep 1000 & sleep 1000; true'", "os_env": true});
    assert_eq!(old.ask("POST", "/processes", &template).0, 200);
    let mut one = Value::Null;
    gaffer_testkit::wait_until(crate::SOON, "both of its children", || {
        one = old.shown("/stats/tree")["stats"][0].clone();
        one["children"].as_array().is_some_and(|all| all.len() == 2)
    });
    for shown in [&one, &one["children"][0], &one["children"][1]] {
        for key in [
            "username",
            "nice",
            "nicce",
            "cmdline",
            "ctime",
            "mem_info1",
            "cpu",
            "mem",
        ] {
            assert!(!shown[key].is_null(), "{key}: {shown}");
        }
    }
    assert_eq!(one["children"][0]["cmdline"], "sleep");
    assert_eq!(one["children"][0].get("id"), None, "{one}");
    assert_ne!(one["children"][0]["pid"], one["children"][1]["pid"]);
}

#[test]
fn s6_2_answers_have_all_members_of_the_objects() {
    let mut old = Old::start();
    old.sleeper("web", &json!({"numprocesses": 2}));
    let keys = |value: &Value| {
        let mut keys: Vec<String> = value.as_object().expect("an object").keys().cloned().collect();
        keys.sort();
        keys.join(" ")
    };
    assert_eq!(
        keys(&old.shown("/jobs/s/web")),
        "active config max_processes name processes running running_out"
    );
    assert_eq!(
        keys(&old.shown("/1")),
        "active args cmd commited create_time custom_streams cwd env gid name os_pid pid redirect_input redirect_output uid"
            .replace(" cwd", "")
    );
    let stats = old.shown("/jobs/s/web/stats");
    assert_eq!(keys(&stats), "cpu max_cpu max_mem mem min_cpu min_mem name stats");
    assert_eq!(
        keys(&stats["stats"][0]),
        "cpu ctime mem mem_info1 mem_info2 os_pid pid"
    );
    let one = old.shown("/1/stats")["stats"].clone();
    assert!(
        keys(&one).starts_with("cpu ctime mem mem_info1 mem_info2"),
        "{one}"
    );
    let time = one["ctime"].as_str().expect("a text");
    let (minutes, rest) = time.split_once(':').expect("M:SS.hh");
    assert!(
        minutes.parse::<u32>().is_ok() && rest.len() == 5 && rest.as_bytes()[2] == b'.',
        "{time}"
    );
    let stats = old.shown("/jobs/s/web/stats");
    let sum: f64 = stats["stats"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one["mem"].as_f64())
        .sum();
    assert!(
        (stats["mem"].as_f64().expect("a number") - sum).abs() < 0.15,
        "{stats}"
    );
}
