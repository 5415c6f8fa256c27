//! Spec 8.4 and 5.2: what can be followed.

use crate::client::{Ws, node};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn reason(answer: &Value) -> &str {
    assert_eq!(answer["event"], "gaffer:subscription_error", "{answer}");
    answer["data"]["reason"].as_str().expect("a reason")
}

fn is_success(answer: &Value) {
    assert_eq!(answer["event"], "gaffer:subscription_success", "{answer}");
}

#[test]
fn s8_4_events_come_in_order_under_the_topic_as_it_was_asked_for() {
    let node = node();
    let mut ws = Ws::channel(&node);
    is_success(&ws.subscribe("events:."));
    let pid = ws.load("a.b", "sleep 600", &json!({}))[0];
    let mut names = Vec::new();
    while names
        .last()
        .is_none_or(|name| name != &format!("proc.{pid}.spawn"))
    {
        let message = ws.next();
        assert_eq!(message["event"], "gaffer:event", "{message}");
        assert_eq!(
            (&message["data"]["topic"], &message["data"]["name"]),
            (&json!("events:."), &json!("a.b"))
        );
        names.push(message["data"]["event"].as_str().expect("a name").to_owned());
    }
    let own = format!("proc.{pid}.spawn");
    assert_eq!(
        names,
        ["load", "start", "job.a.b.start", "spawn", "job.a.b.spawn", &own]
    );
}

#[test]
fn s5_2_a_pattern_is_a_prefix_of_whole_parts_and_each_event_comes_once() {
    let node = node();
    let mut ws = Ws::channel(&node);
    // D30: once, also on the first part. D31: a trailing dot is the same and can be unsubscribed.
    for topic in ["EVENTS:job", "EVENTS:job.a.b.", "EVENTS:job.a.b.c", "EVENTS:jo"] {
        is_success(&ws.subscribe(topic));
    }
    ws.load("a.b", "sleep 600", &json!({}));
    ws.load("a.bc", "sleep 600", &json!({}));
    ws.subscribe("EVENTS:unload");
    ws.command("unload", &json!(["a.bc"]));
    let mut seen = Vec::new();
    loop {
        let data = ws.next()["data"].clone();
        if data["event"] == "unload" {
            break;
        }
        seen.push((
            data["topic"].as_str().expect("a topic").to_owned(),
            data["event"].as_str().expect("a name").to_owned(),
        ));
    }
    let of = |topic: &str| -> Vec<&str> {
        let own = seen.iter().filter(|(known, _)| known == topic);
        own.map(|(_, name)| name.as_str()).collect()
    };
    assert_eq!(
        of("EVENTS:job"),
        [
            "job.a.b.start",
            "job.a.b.spawn",
            "job.a.bc.start",
            "job.a.bc.spawn"
        ]
    );
    assert_eq!(of("EVENTS:job.a.b."), ["job.a.b.start", "job.a.b.spawn"]);
    assert!(
        of("EVENTS:job.a.b.c").is_empty() && of("EVENTS:jo").is_empty(),
        "{seen:?}"
    );
}

#[test]
fn d31_what_was_subscribed_can_be_unsubscribed_and_twice_counts_twice() {
    let node = node();
    let mut ws = Ws::channel(&node);
    for topic in ["EVENTS:.", "EVENTS:load."] {
        is_success(&ws.subscribe(topic));
        is_success(&ws.subscribe(topic));
        is_success(&ws.unsubscribe(topic));
    }
    ws.load("a.one", "sleep 600", &json!({"start": false}));
    assert_eq!(ws.event("EVENTS:.", "load")["name"], "a.one");
    let next = ws.next();
    assert_eq!(next["data"]["topic"], "EVENTS:load.", "one copy each: {next}");
    for topic in ["EVENTS:.", "EVENTS:load."] {
        is_success(&ws.unsubscribe(topic));
        // Also when it is not followed.
        is_success(&ws.unsubscribe(topic));
    }
    ws.load("a.two", "sleep 600", &json!({"start": false}));
    is_success(&ws.subscribe("EVENTS:unload"));
    ws.command("unload", &json!(["a.two"]));
    let next = ws.next();
    assert_eq!(
        next["data"]["topic"], "EVENTS:unload",
        "nothing else came: {next}"
    );
}

#[test]
fn d28_job_and_process_topics_have_relative_names() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let pid = ws.load("Shop.Web", "sleep 600", &json!({}))[0];
    // D32: capitals stay.
    is_success(&ws.subscribe("JOB:Shop.Web"));
    let process = format!("PROCESS:{pid}");
    is_success(&ws.subscribe(&process));
    ws.command("kill", &json!([pid, "KILL"]));
    let exit = ws.event("JOB:Shop.Web", "exit");
    assert_eq!(
        (&exit["pid"], &exit["term_signal"], &exit["exit_status"]),
        (&json!(pid), &json!(9), &json!(0))
    );
    // D29: also the process's own.
    let exit = ws.event(&process, "exit");
    assert_eq!(
        (&exit["name"], &exit["once"]),
        (&json!("Shop.Web"), &json!(false))
    );
    assert_ne!(ws.event("JOB:Shop.Web", "spawn")["pid"], pid);
}

#[test]
fn s8_4_statistics_of_a_process_and_of_all_of_a_job() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let pid = ws.load("a.b", "sleep 600", &json!({}))[0];
    let topic = format!("STATS:{pid}");
    let asked = Instant::now();
    is_success(&ws.subscribe(&topic));
    let sample = ws.event(&topic, "stat");
    // The client's own tests wait 0.4 s; here only that it is not the second one.
    assert!(asked.elapsed() < Duration::from_secs(10));
    assert_eq!((&sample["pid"], &sample["name"]), (&json!(pid), &json!("a.b")));
    for key in ["mem_info1", "mem_info2", "cpu", "mem", "ctime", "os_pid"] {
        assert!(!sample[key].is_null(), "{key}: {sample}");
    }
    assert_eq!(ws.event(&topic, "stat")["pid"], pid, "again");
    is_success(&ws.unsubscribe(&topic));
    is_success(&ws.subscribe("STATS:a.b"));
    ws.event("STATS:a.b", "stat");
    ws.command("scale", &json!(["a.b", 1]));
    let other = ws
        .pids("a.b")
        .into_iter()
        .find(|other| *other != pid)
        .expect("a second");
    // A process that came later joins.
    while ws.event("STATS:a.b", "stat")["pid"] != other {}
}

#[test]
fn s8_4_streams_are_followed_by_label() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let more = json!({"redirect_output": ["out", "err"], "redirect_input": true});
    let script =
        "read x; echo o$x; echo e$x >&2; printf '\\342\\202'; read y; printf '\\254\\377'; exec sleep 600";
    let pid = ws.load("a.b", script, &more)[0];
    let (first, second) = (format!("STREAM:{pid}"), format!("stream:{pid}.err"));
    is_success(&ws.subscribe(&first));
    is_success(&ws.subscribe(&second));
    ws.command("send", &json!([pid, "1\n"]));
    let error = ws.event(&second, "err");
    assert_eq!(
        (&error["data"], &error["name"], &error["pid"]),
        (&json!("e1\n"), &json!("a.b"), &json!(pid))
    );
    ws.command("send", &json!([pid, "2\n"]));
    let mut output = String::new();
    while !output.ends_with('\u{fffd}') {
        output.push_str(ws.event(&first, "out")["data"].as_str().expect("text"));
    }
    // A character in two pieces is one; a byte that is no text is replaced.
    assert!(output.ends_with("€\u{fffd}"), "{output}");
}

#[test]
fn s8_4_custom_streams_are_followed_too() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let more = json!({"custom_streams": ["side"]});
    let pid = ws.load("a.b", "read x <&3; echo got $x >&3; exec sleep 600", &more)[0];
    let topic = format!("STREAM:{pid}.side");
    is_success(&ws.subscribe(&topic));
    ws.command("send", &json!([pid, "it\n", "side"]));
    assert_eq!(ws.event(&topic, "READ")["data"], "got it\n");
}

#[test]
fn d28_what_cannot_be_followed_is_told_and_the_connection_stays() {
    let node = node();
    let mut ws = Ws::channel(&node);
    let pid = ws.load("a.b", "sleep 600", &json!({"redirect_output": ["out"]}))[0];
    for (topic, why) in [
        ("NEWS:1".to_owned(), "invalid_topic"),
        ("JOB".to_owned(), "invalid_topic"),
        ("STREAM:x".to_owned(), "invalid_topic"),
        ("PROCESS:x".to_owned(), "invalid_topic"),
        (format!("STREAM:{pid}.err"), "stream_not_found"),
        ("STREAM:9999".to_owned(), "not_found"),
        ("STATS:9999".to_owned(), "not_found"),
        ("STATS:a.none".to_owned(), "not_found"),
        ("PROCESS:9999".to_owned(), "not_found"),
        ("JOB:a.none".to_owned(), "not_found"),
    ] {
        assert_eq!(reason(&ws.subscribe(&topic)), why, "{topic}");
    }
    let quiet = ws.load("a.quiet", "sleep 600", &json!({}))[0];
    assert_eq!(
        reason(&ws.subscribe(&format!("STREAM:{quiet}"))),
        "stream_not_found"
    );
    is_success(&ws.subscribe(&format!("STREAM:{pid}")));
}
