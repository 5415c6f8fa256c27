//! 0.4: section 11.1 route by route.

use crate::{Old, SOON};
use gaffer_testkit::wait_until;
use serde_json::{Value, json};

const OK: fn() -> (u16, Value) = || (200, json!({"ok": true}));

#[test]
fn s11_1_processes_are_added_listed_shown_changed_and_deleted() {
    let mut old = Old::start();
    let template = json!({"name": "web", "cmd": "sleep", "args": ["1000"]});
    assert_eq!(old.ask("POST", "/processes", &template), OK());
    let conflict = old.ask("POST", "/processes", &template);
    assert_eq!((conflict.0, &conflict.1["error"]), (409, &json!("conflict")));
    assert!(
        old.raw("POST", "/processes", b"{")
            .text()
            .contains("invalid_json")
    );
    assert_eq!(
        old.ask("POST", "/processes", &json!({"name": "x"})).1["error"],
        "invalid_process_info"
    );
    assert_eq!(old.shown("/processes"), json!(["web"]));
    assert_eq!(old.shown("/processes?running=true"), json!([1]));
    assert_eq!(old.shown("/processes/web")["cmd"], "sleep");
    assert_eq!(old.shown("/processes/1")["name"], "web");
    assert_eq!(old.raw("HEAD", "/processes/web", b"").status, 200);
    assert_eq!(old.get("/processes/nope").1["error"], "not_found");
    let update = json!({"name": "web", "cmd": "sleep 2000", "numprocesses": 2});
    assert_eq!(old.ask("POST", "/processes/web", &update), OK(), "K12");
    assert_eq!(old.ask("PUT", "/processes/web", &update), OK(), "K12");
    assert_eq!(old.shown("/status/web")["max_processes"], 2);
    assert_eq!(old.ask("DELETE", "/processes/web", &Value::Null), OK());
    assert_eq!(old.get("/processes/web").0, 404);
}

#[test]
fn s11_1_actions_of_a_process() {
    let mut old = Old::start();
    old.ask(
        "POST",
        "/processes",
        &json!({"name": "web", "cmd": "sleep", "args": ["1000"]}),
    );
    assert_eq!(
        old.shown("/processes/web/_pids"),
        json!({"ok": true, "pids": [1]})
    );
    let mut post = |path: &str| old.ask("POST", path, &Value::Null);
    assert_eq!(
        post("/processes/web/_add/2"),
        (200, json!({"ok": true, "numprocesses": 3}))
    );
    assert_eq!(
        post("/processes/web/_sub"),
        (200, json!({"ok": true, "numprocesses": 2}))
    );
    assert_eq!(post("/processes/web/_add/many").0, 400);
    assert_eq!(post("/processes/web/_signal/0"), OK());
    assert_eq!(post("/processes/1/_signal/CONT"), OK());
    assert_eq!(post("/processes/web/_signal").1["error"], "no_signal_number");
    assert_eq!(post("/processes/web/_signal/NOPE").1["error"], "bad_value");
    assert_eq!(post("/processes/web/_nothing").1["error"], "resource_not_found");
    assert_eq!(post("/processes/web/_stop"), OK());
    wait_until(SOON, "it is down", || old.shown("/status/web")["active"] == false);
    assert_eq!(old.ask("POST", "/processes/web/_start", &Value::Null), OK());
    let status = old.shown("/status/web");
    assert_eq!(
        status,
        json!({"active": true, "running": 1, "max_processes": 1, "numprocesses": 1})
    );
    assert_eq!(old.ask("POST", "/processes/web/_restart", &Value::Null), OK());
    assert_eq!(old.ask("POST", "/processes/nope/_start", &Value::Null).0, 404);
}

#[test]
fn s11_1_groups() {
    let mut old = Old::start();
    for name in ["shop:web", "shop:worker", "alone"] {
        assert_eq!(
            old.ask("POST", "/processes", &json!({"name": name, "cmd": "sleep 1000"})),
            OK(),
            "{name}"
        );
    }
    assert_eq!(old.shown("/groups"), json!(["shop"]));
    assert_eq!(old.shown("/groups/shop"), json!(["shop:web", "shop:worker"]));
    assert_eq!(old.get("/groups/nope").0, 404);
    assert_eq!(old.shown("/processes/shop:web")["group"], "shop");
    assert_eq!(old.ask("POST", "/groups/shop/_stop", &Value::Null), OK());
    wait_until(SOON, "it is down", || {
        old.shown("/status/shop:web")["active"] == false
    });
    assert_eq!(old.ask("POST", "/groups/shop/_start", &Value::Null), OK());
    assert_eq!(old.shown("/status/shop:web")["active"], true);
    assert_eq!(old.ask("DELETE", "/groups/shop", &Value::Null), OK());
    assert_eq!(old.shown("/processes"), json!(["alone"]));
}

#[test]
fn s11_1_stats_have_the_old_numbers() {
    let mut old = Old::start();
    old.ask("POST", "/processes", &json!({"name": "web", "cmd": "sleep 1000"}));
    let one = old.shown("/stats/web/1");
    assert_eq!((&one["id"], &one["cmdline"]), (&json!(1), &json!("sleep")));
    assert!(one["pid"].as_u64().is_some_and(|pid| pid > 1), "K8: {one}");
    assert_eq!(old.shown("/stats")[0]["name"], "web");
    assert_eq!(old.shown("/stats/web")["stats"][0]["id"], 1);
    assert_eq!(old.get("/stats/nope").0, 404);
}
