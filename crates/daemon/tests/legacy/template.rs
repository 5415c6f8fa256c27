//! Section 2: the properties of a template, as the process sees them.

use crate::{Old, SOON};
use gaffer_testkit::node::Node;
use gaffer_testkit::wait_until;
use serde_json::{Value, json};

/// Loads a job that is run once, by a commit, and gives all that it has written to its output.
fn said(old: &mut Old, name: &str, template: &Value) -> String {
    said_with(old, name, template, &json!({}))
}

fn said_with(old: &mut Old, name: &str, template: &Value, env: &Value) -> String {
    let mut whole = json!({"name": name, "numprocesses": 0, "redirect_output": ["out", "err"]});
    for (key, value) in template.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    let loaded = old.ask("POST", "/jobs/s", &whole);
    assert_eq!(loaded, (200, json!({"ok": true})), "{whole}");
    committed(old, name, env)
}

/// What one more run has written: to its output, then to its errors.
fn committed(old: &mut Old, name: &str, env: &Value) -> String {
    let [out, err] = written(old, name, env);
    out + &err
}

fn written(old: &mut Old, name: &str, env: &Value) -> [String; 2] {
    let (status, commit) = old.ask("POST", &format!("/jobs/s/{name}/commit"), &json!({ "env": env }));
    assert_eq!(status, 200, "{commit}");
    let pid = &commit["pid"];
    wait_until(SOON, "its end", || old.get(&format!("/{pid}")).0 == 404);
    let mut deaths = Value::Null;
    wait_until(SOON, "its record", || {
        deaths = old.shown(&format!("/v1/jobs/s/{name}/deaths"));
        deaths[0]["run"].is_string()
    });
    let run = deaths[0]["run"].as_str().expect("an id").to_owned();
    ["stdout", "stderr"].map(|stream| {
        old.raw("GET", &format!("/v1/runs/{run}/logs/{stream}"), b"")
            .text()
    })
}

#[test]
fn s2_args_are_a_list_or_a_text_and_stand_behind_those_of_cmd() {
    let mut old = Old::start();
    let text = json!({"cmd": "printf '%s,' one", "args": "a 'b c' \"d\""});
    assert_eq!(said(&mut old, "text", &text), "one,a,b c,d,");
    let list = json!({"cmd": "printf %s,", "args": ["a", "b c", ""]});
    assert_eq!(said(&mut old, "list", &list), "a,b c,,");
}

#[test]
fn s2_d24_variables_are_filled_in_from_the_final_environment() {
    let mut old = Old::start();
    let template = json!({"cmd": "echo $WHO", "args": ["${WHO}", "$$x"], "env": {"WHO": "ana"}});
    assert_eq!(said(&mut old, "job", &template), "ana ana $x\n");
    assert_eq!(committed(&mut old, "job", &json!({"WHO": "bob"})), "bob bob $x\n");
    let lone = old.ask(
        "POST",
        "/jobs/s",
        &json!({"name": "lone", "cmd": "echo", "args": ["5 $"]}),
    );
    assert_eq!(lone.0, 400, "a lone dollar: {lone:?}");
}

#[test]
fn s2_os_env_decides_about_the_environment_of_the_node() {
    let node = Node::builder().bind("127.0.0.1:0").env("FROM_NODE", "yes");
    let mut old = Old::of(node.start());
    let bare = said(&mut old, "bare", &json!({"cmd": "env", "env": {"OWN": "1"}}));
    assert!(bare.contains("OWN=1") && !bare.contains("FROM_NODE"), "{bare}");
    let full = said(
        &mut old,
        "full",
        &json!({"cmd": "env", "os_env": true, "env": {"OWN": "1"}}),
    );
    assert!(full.contains("OWN=1") && full.contains("FROM_NODE=yes"), "{full}");
    let shown = old.shown("/jobs/s/full");
    assert_eq!(shown["config"]["env"], json!({"OWN": "1"}), "D19: {shown}");
}

#[test]
fn s2_cwd_is_where_it_runs() {
    let mut old = Old::start();
    assert_eq!(
        said(&mut old, "usr", &json!({"cmd": "pwd", "cwd": "/usr"})),
        "/usr\n"
    );
    let missing = json!({"name": "gone", "cmd": "pwd", "cwd": "/no/such/place"});
    assert_eq!(old.ask("POST", "/jobs/s", &missing).0, 400);
    assert_eq!(
        old.raw("HEAD", "/jobs/s/gone", b"").status,
        404,
        "nothing is loaded"
    );
}

#[test]
fn d21_d22_uid_and_gid_take_effect_as_names_numbers_and_digits() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let mut old = Old::start();
    for (name, uid, gid) in [
        ("names", json!("nobody"), json!("nogroup")),
        ("numbers", json!(65534), json!(65534)),
        ("digits", json!("65534"), json!("65534")),
    ] {
        let template =
            json!({"cmd": "id -u; id -g", "shell": true, "os_env": true, "uid": uid, "gid": gid, "cwd": "/"});
        assert_eq!(said(&mut old, name, &template), "65534\n65534\n", "{name}");
    }
    let nobody = json!({"name": "x", "cmd": "id", "gid": "no-such-group"});
    assert_eq!(old.ask("POST", "/jobs/s", &nobody).0, 400);
}

#[test]
fn s2_redirect_output_names_what_is_kept_and_the_rest_is_thrown_away() {
    let mut old = Old::start();
    let script = json!({"cmd": "echo out; echo err >&2", "shell": true, "os_env": true});
    let with = |labels: Value| {
        let mut template = script.clone();
        template["redirect_output"] = labels;
        template
    };
    assert_eq!(said(&mut old, "first", &with(json!(["o"]))), "out\n");
    assert_eq!(said(&mut old, "none", &with(json!([]))), "");
    assert_eq!(
        said(&mut old, "both", &with(json!(["o", "e", "ignored"]))),
        "out\nerr\n"
    );
    // One label for both: one feed, which is the output's.
    said(&mut old, "merged", &with(json!(["all", "all"])));
    let merged = written(&mut old, "merged", &json!({}));
    assert_eq!(merged, ["out\nerr\n".to_owned(), String::new()]);
}

#[test]
fn s2_nothing_is_inherited_but_0_1_2_and_the_custom_streams() {
    let mut old = Old::start();
    let template = json!({"cmd": "ls /proc/self/fd", "os_env": true, "custom_streams": ["a", "b"]});
    // The last is that with which ls reads the directory.
    assert_eq!(said(&mut old, "fds", &template), "0\n1\n2\n3\n4\n5\n");
    // Without redirect_input there is nothing to read.
    let cat = json!({"cmd": "cat; echo end", "shell": true, "os_env": true});
    assert_eq!(said(&mut old, "cat", &cat), "end\n");
}

#[test]
fn s2_custom_channels_are_dropped_and_what_nobody_knows_is_kept() {
    let mut old = Old::start();
    old.sleeper(
        "web",
        &json!({"custom_channels": [], "group": "g", "colour": {"is": "red"}}),
    );
    let config = old.shown("/jobs/s/web")["config"].clone();
    assert_eq!(config.get("custom_channels"), None, "{config}");
    assert_eq!(
        (&config["group"], &config["colour"]),
        (&json!("g"), &json!({"is": "red"}))
    );
}

#[test]
fn k5_a_detached_process_is_not_killed_by_the_end_of_the_node() {
    let mut old = Old::start();
    old.sleeper("free", &json!({"detach": true}));
    old.sleeper("bound", &json!({}));
    let free = old.shown("/jobs/s/free/pids")["pids"][0].clone();
    let os_pid = old.shown(&format!("/{free}"))["os_pid"].clone();
    let status = old.node.stop(SOON);
    assert_eq!(
        status.code(),
        Some(0),
        "s3_2: a manager that is stopped ends with 0"
    );
    let left: Vec<u32> = old.node.job_processes().iter().map(|one| one.pid).collect();
    assert_eq!(json!(left), json!([os_pid]));
    // The next one takes charge of it.
    old.node.start_again();
    old.connect_again();
    assert_eq!(old.shown("/jobs/s/free/pids")["pids"], json!([free]));
    assert_eq!(old.ask("DELETE", "/jobs/s/free", &Value::Null).0, 200);
    wait_until(SOON, "it is gone", || {
        old.node
            .job_processes()
            .iter()
            .all(|one| json!(one.pid) != os_pid)
    });
}

#[test]
fn d38_d40_a_commit_needs_the_job_and_a_session_has_no_dot() {
    let mut old = Old::start();
    old.sleeper("web", &json!({}));
    let commit = old.ask("POST", "/jobs/s/nope/commit", &json!({}));
    assert_eq!((commit.0, &commit.1["error"]), (404, &json!("not_found")));
    let dotted = old.ask("POST", "/jobs/a.b", &json!({"name": "x", "cmd": "sleep 1000"}));
    assert_eq!(dotted.0, 400, "{dotted:?}");
}
