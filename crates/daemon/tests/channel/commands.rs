//! Spec 8.5: the twenty commands, success and failure.

use crate::client::{Ws, node};
use gaffer_testkit::Node;
use serde_json::{Value, json};

fn setup() -> (Node, Ws) {
    let node = node();
    let ws = Ws::channel(&node);
    (node, ws)
}

fn refused(ws: &mut Ws, name: &str, args: &Value) -> (u64, String) {
    match ws.try_command(name, args, &json!({})) {
        Ok(result) => panic!("{name} {args}: {result}"),
        Err(error) => error,
    }
}

#[test]
fn s8_5_load_sessions_jobs_pids_and_unload() {
    let (_node, mut ws) = setup();
    let config = json!({"name": "web", "cmd": "sleep", "args": ["600"], "numprocesses": 2, "os_env": true});
    let kwargs = json!({"sessionid": "shop", "env": {"WHO": "ana"}, "start": true});
    let loaded = ws.try_command("load", &json!([config]), &kwargs);
    assert_eq!(loaded, Ok(json!({"ok": true})));
    assert_eq!(ws.command("sessions", &json!([])), json!({"sessions": ["shop"]}));
    assert_eq!(ws.command("jobs", &json!([])), json!({"jobs": ["shop.web"]}));
    let of_session = json!({"sessionid": "shop", "jobs": ["shop.web"]});
    assert_eq!(ws.command("jobs", &json!(["shop"])), of_session);
    let pids = ws.command("pids", &json!(["shop.web"]));
    assert_eq!(pids["sessionid"], "shop.web");
    assert_eq!(pids["pids"].as_array().map(Vec::len), Some(2));
    assert_eq!(ws.command("pids", &json!([]))["pids"], pids["pids"]);
    let info = ws.command("process_info", &json!([pids["pids"][0]]));
    assert_eq!(
        (&info["info"]["env"]["WHO"], &info["info"]["name"]),
        (&json!("ana"), &json!("shop.web"))
    );
    let again = ws.try_command("load", &json!([config]), &kwargs);
    assert_eq!(again, Err((409, "process_conflict".to_owned())));
    let gone = ws.try_command("unload", &json!(["web"]), &json!({"sessionid": "shop"}));
    assert_eq!(gone, Ok(json!({"ok": true})));
    assert_eq!(ws.command("jobs", &json!([])), json!({"jobs": []}));
    assert_eq!(
        refused(&mut ws, "jobs", &json!(["shop"])),
        (404, "not_found".to_owned())
    );
}

#[test]
fn s8_5_unload_takes_a_dotted_name() {
    let (_node, mut ws) = setup();
    ws.load("a.one", "sleep 600", &json!({}));
    assert_eq!(ws.command("unload", &json!(["a.one"])), json!({"ok": true}));
    ws.load("a.two", "sleep 600", &json!({}));
    let named_twice = ws.try_command("unload", &json!(["a.two"]), &json!({"sessionid": "a"}));
    assert_eq!(named_twice, Ok(json!({"ok": true})));
}

#[test]
fn s8_5_start_stop_reload_and_stopall() {
    let (_node, mut ws) = setup();
    let first = ws.load("a.b", "sleep 600", &json!({}));
    assert_eq!(ws.command("reload", &json!(["a.b"])), json!({"ok": true}));
    let second = ws.pids("a.b");
    assert!(
        first.len() == 1 && second.len() == 1 && first != second,
        "{first:?} {second:?}"
    );
    assert_eq!(ws.command("stop_job", &json!(["a.b"])), json!({"ok": true}));
    assert_eq!(ws.command("info", &json!(["a.b"]))["info"]["active"], false);
    assert_eq!(ws.command("start_job", &json!(["a.b"])), json!({"ok": true}));
    let third = ws.pids("a.b");
    assert_eq!(third.len(), 1);
    ws.subscribe("JOB:a.b");
    assert_eq!(ws.command("stopall", &json!(["a.b"])), json!({"ok": true}));
    ws.event("JOB:a.b", "exit");
    ws.event("JOB:a.b", "spawn");
    assert_ne!(ws.pids("a.b"), third);
}

#[test]
fn s8_5_scale_info_and_stats() {
    let (_node, mut ws) = setup();
    ws.load("a.b", "sleep 600", &json!({}));
    assert_eq!(
        ws.command("scale", &json!(["a.b", 2])),
        json!({"numprocesses": 3})
    );
    assert_eq!(
        ws.command("scale", &json!(["a.b", "-1"])),
        json!({"numprocesses": 2})
    );
    assert_eq!(
        ws.command("scale", &json!(["a.b", "=1"])),
        json!({"numprocesses": 1})
    );
    assert_eq!(refused(&mut ws, "scale", &json!(["a.b", "many"])).0, 400);
    let info = ws.command("info", &json!(["a.b"]));
    assert_eq!(
        (&info["info"]["name"], &info["info"]["max_processes"]),
        (&json!("a.b"), &json!(1))
    );
    let stats = ws.command("stats", &json!(["a.b"]));
    assert_eq!(stats["stats"]["name"], "a.b", "{stats}");
    let pid = ws.pids("a.b")[0];
    let stats = ws.command("process_stats", &json!([pid]));
    assert_eq!(stats["stats"]["pid"], pid, "{stats}");
    assert!(stats["stats"]["mem_info1"].is_string(), "{stats}");
}

#[test]
fn s8_5_update_replaces_the_template() {
    let (_node, mut ws) = setup();
    ws.load("a.b", "sleep 600", &json!({}));
    let config = json!({"name": "b", "cmd": "sleep", "args": ["700"], "os_env": true});
    let updated = ws.try_command("update", &json!([config]), &json!({"sessionid": "a"}));
    assert_eq!(updated, Ok(json!({"ok": true})));
    let info = ws.command("info", &json!(["a.b"]));
    assert_eq!(info["info"]["config"]["args"], json!(["700"]), "{info}");
    let missing = json!({"name": "none", "cmd": "sleep 1"});
    assert_eq!(refused(&mut ws, "update", &json!([missing])).0, 404);
}

#[test]
fn s8_5_commit_runs_beside_and_stop_process_ends_it() {
    let (_node, mut ws) = setup();
    ws.load("a.b", "sleep 600", &json!({"numprocesses": 0}));
    ws.subscribe("EVENTS:exit");
    let done = ws.command("commit", &json!(["a.b", 10.0, {"X": "1"}]));
    let pid = done["pid"].as_u64().expect("a number");
    assert_eq!(done["ok"], true);
    let info = ws.command("process_info", &json!([pid.to_string()]));
    assert_eq!(
        (&info["info"]["commited"], &info["info"]["env"]["X"]),
        (&json!(true), &json!("1"))
    );
    assert_eq!(ws.command("stop_process", &json!([pid])), json!({"ok": true}));
    let exit = ws.event("EVENTS:exit", "exit");
    assert_eq!((&exit["pid"], &exit["once"]), (&json!(pid), &json!(true)));
    assert_eq!(
        refused(&mut ws, "process_info", &json!([pid])),
        (404, "not_found".to_owned())
    );
}

#[test]
fn s8_5_kill_and_killall_send_signals() {
    let (_node, mut ws) = setup();
    let script = "trap 'echo got' USR1; echo up; while :; do sleep 0.05; done";
    let pid = ws.load("a.b", script, &json!({"redirect_output": ["out"]}))[0];
    ws.subscribe(&format!("STREAM:{pid}"));
    let topic = format!("STREAM:{pid}");
    for (name, target, signal) in [
        ("kill", json!(pid), json!(10)),
        ("kill", json!(pid.to_string()), json!("usr1")),
        ("killall", json!("a.b"), json!("SIGUSR1")),
    ] {
        // The shell may not have come to its trap: then the signal would end it.
        if name == "kill" && signal == json!(10) {
            ws.unsubscribe(&topic);
            ws.subscribe(&topic);
        }
        assert_eq!(ws.command(name, &json!([target, signal])), json!({"ok": true}));
        let mut output = String::new();
        while !output.contains("got") {
            output.push_str(ws.event(&topic, "out")["data"].as_str().expect("text"));
        }
    }
    assert_eq!(refused(&mut ws, "kill", &json!([pid, "NOPE"])).0, 400);
    assert_eq!(ws.command("kill", &json!([pid, 0])), json!({"ok": true}));
}

#[test]
fn d43_send_reaches_the_process_as_utf_8() {
    let (_node, mut ws) = setup();
    let more = json!({"redirect_input": true, "redirect_output": ["out"]});
    let pid = ws.load("a.cat", "exec cat", &more)[0];
    let topic = format!("STREAM:{pid}.out");
    ws.subscribe(&topic);
    assert_eq!(ws.command("send", &json!([pid, "grün €\n"])), json!({"ok": true}));
    assert_eq!(
        ws.command("send", &json!([pid, ["a", "b\n"]])),
        json!({"ok": true})
    );
    let mut output = String::new();
    while output.len() < "grün €\nab\n".len() {
        output.push_str(ws.event(&topic, "out")["data"].as_str().expect("text"));
    }
    assert_eq!(output, "grün €\nab\n");
    assert_eq!(
        refused(&mut ws, "send", &json!([pid, "x", "no"])),
        (404, "stream_not_found".to_owned())
    );
    assert_eq!(
        refused(&mut ws, "send", &json!([pid])),
        (400, "bad_command".to_owned())
    );
    let deaf = ws.load("a.deaf", "sleep 600", &json!({}))[0];
    assert_eq!(refused(&mut ws, "send", &json!([deaf, "x"])).0, 403);
}

#[test]
fn s8_5_errors_have_their_numbers_and_words() {
    let (_node, mut ws) = setup();
    let not_found = (404, "not_found".to_owned());
    assert_eq!(
        refused(&mut ws, "fly", &json!([])),
        (404, "command_not_found".to_owned())
    );
    for name in [
        "unload",
        "reload",
        "start_job",
        "stop_job",
        "stopall",
        "info",
        "stats",
        "pids",
    ] {
        assert_eq!(refused(&mut ws, name, &json!(["a.none"])), not_found, "{name}");
        if name != "pids" {
            assert_eq!(
                refused(&mut ws, name, &json!([])),
                (400, "bad_command".to_owned()),
                "{name}"
            );
        }
    }
    for (name, args) in [
        ("scale", json!(["a.none", 1])),
        ("killall", json!(["a.none", 9])),
        ("commit", json!(["a.none"])),
        ("process_info", json!([99])),
        ("process_stats", json!(["99"])),
        ("stop_process", json!([99])),
        ("kill", json!([99, 9])),
        ("send", json!([99, "x"])),
    ] {
        assert_eq!(refused(&mut ws, name, &args), not_found, "{name}");
    }
    for name in ["load", "update"] {
        assert_eq!(
            refused(&mut ws, name, &json!([])),
            (400, "config_missing".to_owned())
        );
        assert_eq!(
            refused(&mut ws, name, &json!(["x"])),
            (400, "invalid_config".to_owned())
        );
        assert_eq!(refused(&mut ws, name, &json!([{"name": "x"}])).0, 400);
        assert_eq!(refused(&mut ws, name, &json!([{"cmd": "x"}])).0, 400);
    }
    assert_eq!(ws.command("jobs", &json!([])), json!({"jobs": []}));
}
