//! 0.5: section 6.2 route by route, and the defects that are not copied.

use crate::{Old, SOON};
use gaffer_testkit::wait_until;
use serde_json::{Value, json};

#[test]
fn s6_2_get_root_version_and_ping() {
    let mut old = Old::start();
    assert_eq!(
        old.get("/"),
        (200, json!({"welcome": "gaffer", "version": "0.5.2"}))
    );
    assert_eq!(old.shown("/version")["name"], "gaffer");
    let ping = old.raw("GET", "/ping", b"");
    assert_eq!((ping.status, ping.text().as_str()), (200, "OK"));
    assert!(
        ping.header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain"))
    );
    let kind = old.raw("GET", "/", b"").header("content-type").map(str::to_owned);
    assert_eq!(kind.as_deref(), Some("application/json; charset=UTF-8"));
}

#[test]
fn s6_1_unknown_paths_other_methods_and_options() {
    let mut old = Old::start();
    assert_eq!(old.get("/jobs/").0, 404);
    assert_eq!(old.get("/nothing").0, 404);
    let (status, body) = old.ask("POST", "/sessions", &json!({}));
    assert_eq!(
        (status, &body["error"], &body["errno"]),
        (405, &json!(405), &json!(405))
    );
    assert_eq!(old.raw("HEAD", "/jobs", b"").status, 405);
    let options = old.raw("OPTIONS", "/jobs/s", b"");
    assert_eq!((options.status, options.body.len()), (204, 0));
    assert_eq!(
        options.header("access-control-allow-origin"),
        None,
        "CORS is off by default"
    );
    assert_eq!(old.get("/12/34").0, 400);
}

#[test]
fn s6_2_sessions_jobs_and_pids_are_listed() {
    let mut old = Old::start();
    assert_eq!(old.shown("/sessions"), json!({"sessions": []}));
    assert_eq!(old.get("/jobs/s").0, 404);
    old.sleeper("web", &json!({"numprocesses": 2}));
    assert_eq!(old.shown("/sessions"), json!({"sessions": ["s"]}));
    assert_eq!(old.shown("/jobs"), json!({"jobs": ["s.web"]}));
    assert_eq!(old.shown("/jobs/s"), json!({"sessionid": "s", "jobs": ["s.web"]}));
    assert_eq!(old.shown("/pids"), json!({"pids": [1, 2]}));
}

#[test]
fn s6_2_post_job_loads_and_echoes_what_nobody_knows() {
    let mut old = Old::start();
    let template = json!({"name": "web", "cmd": "sleep 1000", "owner": {"team": [1, 2]}, "start": true});
    assert_eq!(old.ask("POST", "/jobs/s", &template), (200, json!({"ok": true})));
    let info = old.shown("/jobs/s/web");
    assert_eq!(
        (&info["name"], &info["active"], &info["running"]),
        (&json!("s.web"), &json!(true), &json!(1))
    );
    assert_eq!(
        (&info["max_processes"], &info["processes"]),
        (&json!(1), &json!([1]))
    );
    let wanted = json!({"name": "web", "cmd": "sleep 1000", "owner": {"team": [1, 2]}});
    assert_eq!(info["config"], wanted, "as loaded, without start");
    let (status, body) = old.ask("POST", "/jobs/s", &template);
    assert_eq!(
        (status, &body["error"], &body["errno"]),
        (409, &json!("process_conflict"), &json!(409))
    );
}

#[test]
fn d12_a_bad_template_is_400_and_loads_nothing() {
    let mut old = Old::start();
    assert_eq!(old.raw("POST", "/jobs/s", b"{").status, 400);
    for bad in [
        json!({"cmd": "sleep 1"}),
        json!({"name": "x"}),
        json!([]),
        json!({"name": "x", "cmd": "sleep $NOBODY_HAS_THIS"}),
        json!({"name": "x", "cmd": "sleep 1", "uid": "nobody-is-named-so"}),
        json!({"name": "x", "cmd": "/no/such/program"}),
        json!({"name": "x", "cmd": "sleep 1", "flapping": {"attemps": 2}}),
        json!({"name": "x", "cmd": "sleep 1", "numprocesses": -1}),
        json!({"name": "17", "cmd": "sleep 1"}),
    ] {
        let (status, body) = old.ask("POST", "/jobs/s", &bad);
        assert_eq!(
            (status, body["error"].as_str()),
            (400, Some("bad_request")),
            "{bad}: {body}"
        );
    }
    wait_until(SOON, "nothing is loaded", || {
        old.shown("/jobs") == json!({"jobs": []})
    });
}

#[test]
fn s6_2_head_get_put_and_delete_of_a_job() {
    let mut old = Old::start();
    for method in ["HEAD", "GET", "DELETE"] {
        assert_eq!(old.raw(method, "/jobs/s/web", b"").status, 404, "{method}");
    }
    old.sleeper("web", &json!({}));
    assert_eq!(old.raw("HEAD", "/jobs/s/web", b"").status, 200);
    let bad = old.ask("PUT", "/jobs/s/web", &json!({"name": "other", "cmd": "sleep 1"}));
    assert_eq!(
        (bad.0, &bad.1["reason"]),
        (400, &json!("template name conflict with the path"))
    );
    let before = old.pids("web");
    let put = old.ask(
        "PUT",
        "/jobs/s/web",
        &json!({"cmd": "sleep 2000", "numprocesses": 2}),
    );
    assert_eq!(put, (201, json!({"ok": true})));
    let after = old.wait_pids("web", 2);
    assert!(
        after.iter().all(|pid| !before.contains(pid)),
        "{before:?} {after:?}"
    );
    assert_eq!(
        old.ask("DELETE", "/jobs/s/web", &Value::Null),
        (200, json!({"ok": true}))
    );
    assert_eq!(old.get("/jobs/s/web").0, 404);
    assert_eq!(old.shown("/sessions"), json!({"sessions": []}));
}

#[test]
fn s6_2_numprocesses_are_shown_and_scaled() {
    let mut old = Old::start();
    old.sleeper("web", &json!({}));
    assert_eq!(old.shown("/jobs/s/web/numprocesses"), json!({"numprocesses": 1}));
    let mut scale = |to: Value| old.ask("POST", "/jobs/s/web/numprocesses", &json!({"scale": to}));
    assert_eq!(scale(json!(2)), (200, json!({"numprocesses": 3})));
    assert_eq!(scale(json!("-1")), (200, json!({"numprocesses": 2})));
    assert_eq!(scale(json!("=1")), (200, json!({"numprocesses": 1})));
    assert_eq!(scale(json!(-9)), (200, json!({"numprocesses": 0})), "D10");
    for bad in [json!("many"), json!(null), json!("+")] {
        assert_eq!(scale(bad).0, 400, "D11");
    }
    old.wait_pids("web", 0);
    assert_eq!(
        old.ask("POST", "/jobs/s/nope/numprocesses", &json!({"scale": 1}))
            .0,
        404
    );
}

#[test]
fn s6_2_state_is_0_or_1_and_starts_stops_reloads() {
    let mut old = Old::start();
    old.sleeper("web", &json!({"numprocesses": 2}));
    let state = |old: &mut Old| old.raw("GET", "/jobs/s/web/state", b"").text();
    assert_eq!(state(&mut old), "1");
    assert_eq!(old.raw("POST", "/jobs/s/web/state", b"0").status, 202);
    wait_until(SOON, "it is down", || state(&mut old) == "0");
    assert_eq!(
        old.shown("/jobs/s/web/numprocesses"),
        json!({"numprocesses": 0}),
        "K6"
    );
    assert_eq!(old.raw("POST", "/jobs/s/web/state", b"1").status, 202);
    let before = old.wait_pids("web", 2);
    assert_eq!(old.raw("POST", "/jobs/s/web/state", b"2").status, 202);
    let after = old.wait_pids("web", 2);
    assert!(
        after.iter().all(|pid| !before.contains(pid)),
        "{before:?} {after:?}"
    );
    assert_eq!(old.raw("POST", "/jobs/s/web/state", b"9").status, 400);
    assert_eq!(old.raw("POST", "/jobs/s/nope/state", b"1").status, 404);
}

#[test]
fn s3_1_a_job_loaded_without_start_starts_when_it_is_scaled() {
    let mut old = Old::start();
    old.sleeper("web", &json!({"start": false}));
    assert_eq!(old.pids("web"), Vec::<u64>::new());
    assert_eq!(old.shown("/jobs/s/web")["max_processes"], 1);
    let scaled = old.ask("POST", "/jobs/s/web/numprocesses", &json!({"scale": 1}));
    assert_eq!(scaled, (200, json!({"numprocesses": 2})));
    old.wait_pids("web", 2);
}

#[test]
fn d08_signal_of_a_job_reaches_every_process() {
    let mut old = Old::start();
    old.sleeper("web", &json!({"numprocesses": 2}));
    let before = old.pids("web");
    let sent = old.ask("POST", "/jobs/s/web/signal", &json!({"signal": "kill"}));
    assert_eq!(sent, (202, json!({"ok": true})));
    wait_until(SOON, "D15: they are started again", || {
        let now = old.pids("web");
        now.len() == 2 && now.iter().all(|pid| !before.contains(pid))
    });
    assert_eq!(
        old.ask("POST", "/jobs/s/web/signal", &json!({"signal": "NOPE"}))
            .0,
        400
    );
    assert_eq!(
        old.ask("POST", "/jobs/s/nope/signal", &json!({"signal": 9})).0,
        404
    );
}

#[test]
fn s6_2_commit_runs_once_beside_the_others() {
    let mut old = Old::start();
    old.sleeper(
        "web",
        &json!({"numprocesses": 0, "env": {"A": "job", "B": "job"}}),
    );
    let body = json!({"graceful_timeout": 10.0, "env": {"A": "commit"}});
    let (status, commit) = old.ask("POST", "/jobs/s/web/commit", &body);
    assert_eq!(status, 200, "{commit}");
    let pid = commit["pid"].as_u64().expect("a number");
    let shown = old.shown(&format!("/{pid}"));
    assert_eq!(
        (&shown["commited"], &shown["name"]),
        (&json!(true), &json!("s.web"))
    );
    assert_eq!(
        (&shown["env"]["A"], &shown["env"]["B"]),
        (&json!("commit"), &json!("job"))
    );
    let info = old.shown("/jobs/s/web");
    assert_eq!(
        (&info["running"], &info["running_out"], &info["processes"]),
        (&json!(1), &json!(1), &json!([pid]))
    );
    assert_eq!(info["config"]["env"], json!({"A": "job", "B": "job"}), "D19");
    assert_eq!(old.pids("web"), Vec::<u64>::new(), "kept-alive ones only");
    assert_eq!(
        old.ask("DELETE", &format!("/{pid}"), &Value::Null),
        (202, json!({"ok": true}))
    );
    wait_until(SOON, "it is gone", || old.get(&format!("/{pid}")).0 == 404);
    assert_eq!(old.shown("/pids"), json!({"pids": []}));
}

#[test]
fn s6_2_a_process_is_shown_stopped_and_comes_back() {
    let mut old = Old::start();
    old.sleeper(
        "web",
        &json!({"redirect_output": ["out"], "redirect_input": true}),
    );
    let shown = old.shown("/1");
    assert_eq!(
        (&shown["pid"], &shown["cmd"], &shown["args"]),
        (&json!(1), &json!("sleep"), &json!(["1000"]))
    );
    assert_eq!(
        (&shown["redirect_output"], &shown["redirect_input"]),
        (&json!(["out"]), &json!(true))
    );
    assert!(shown["os_pid"].as_u64().is_some_and(|pid| pid > 1) && shown["create_time"].as_f64().is_some());
    assert_eq!(old.raw("HEAD", "/1", b"").status, 200);
    assert!(old.shown("/1/stats")["stats"]["mem_info1"].as_str().is_some());
    assert!(old.shown("/jobs/s/web/stats")["stats"][0]["os_pid"] == shown["os_pid"]);
    assert_eq!(old.ask("POST", "/1/signal", &json!({"signal": 0})).0, 202);
    assert_eq!(
        old.ask("POST", "/1/signal", &json!({"signal": "X"})).1["error"],
        "bad_signal"
    );
    assert_eq!(old.ask("DELETE", "/1", &Value::Null), (202, json!({"ok": true})));
    assert_eq!(old.get("/1").0, 404, "invisible at once");
    wait_until(SOON, "another one", || {
        old.pids("web").first().is_some_and(|pid| *pid > 1)
    });
    for (method, path) in [
        ("GET", "/99"),
        ("HEAD", "/99"),
        ("DELETE", "/99"),
        ("GET", "/99/stats"),
    ] {
        assert_eq!(old.raw(method, path, b"").status, 404, "{method} {path}");
    }
    assert_eq!(old.ask("POST", "/99/signal", &json!({"signal": 9})).0, 404);
}

#[test]
fn d26_statistics_of_an_idle_job_are_not_available() {
    let mut old = Old::start();
    old.sleeper("web", &json!({"numprocesses": 0}));
    let stats = old.shown("/jobs/s/web/stats");
    assert_eq!(
        (&stats["stats"], &stats["mem"], &stats["max_cpu"]),
        (&json!([]), &json!("N/A"), &json!("N/A"))
    );
}

#[test]
fn d20_d23_the_jobs_own_variables_win_and_shell_takes_the_whole_line() {
    let mut old = Old::start();
    let template = json!({"name": "web", "cmd": "echo $HOME; exec sleep 1000", "shell": true, "os_env": true,
        "env": {"HOME": "/mine"}, "redirect_output": ["out"]});
    assert_eq!(old.ask("POST", "/jobs/s", &template).0, 200);
    let node = &old.node;
    wait_until(SOON, "its output", || {
        node.logged("s", "web", 1, "stdout") == b"/mine\n"
    });
}

#[test]
fn guard_a_page_of_another_origin_is_refused_unless_it_is_listed() {
    let config = "[gaffer]\nlegacy_origins = [\"https://ok.test\"]\n";
    let node = gaffer_testkit::node::Node::builder()
        .bind("127.0.0.1:0")
        .config("gaffer.toml", config);
    let old = Old::of(node.start());
    let from = |origin: &str| {
        old.node
            .tcp()
            .request("GET", "/sessions", &[("Origin", origin)], b"")
            .expect("an answer")
    };
    assert_eq!(from("https://evil.test").status, 403);
    let listed = from("https://ok.test");
    assert_eq!(listed.status, 200);
    assert_eq!(
        listed.header("access-control-allow-origin"),
        Some("https://ok.test")
    );
    assert_eq!(listed.header("access-control-allow-credentials"), Some("true"));
}

#[test]
fn s6_it_can_be_switched_off() {
    let config = "[gaffer]\nlegacy_api = false\n";
    let node = gaffer_testkit::node::Node::builder()
        .bind("127.0.0.1:0")
        .config("gaffer.toml", config);
    let mut old = Old::of(node.start());
    assert_eq!(old.get("/sessions").0, 404);
    assert_eq!(old.get("/v1/jobs").0, 200);
}
