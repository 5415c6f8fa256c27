//! Payloads: what nobody is shown of them, and what they have to look like.

use super::poison::sql;
use super::*;

const CARDS: &str = r#"
[queue.pay]
cmd = ["sh", "-c", "cat >> ran; echo >> ran; exit 3"]
retry = { attempts = 1 }
redact = ["card.number", "cards.n"]
unique = { by = ["card.number"], conflict = "error" }
"#;

const SECRET: &str = "4111222233334444";

fn card() -> String {
    format!(r#"{{"card":{{"number":"{SECRET}","name":"ana"}},"cards":[{{"n":"{SECRET}"}}]}}"#)
}

/// All that people and programs can see of a task, and what happened to it.
fn nobody_is_shown(node: &mut Node, id: i64) {
    let number = id.to_string();
    let mut seen = String::new();
    for words in [
        vec!["queue", "show", &number],
        vec!["queue", "show", &number, "--json"],
        vec!["queue", "tasks", "pay"],
        vec!["queue", "tasks", "pay", "--json"],
        vec!["queue", "show", "pay", "--json"],
        vec!["events", "--json"],
    ] {
        let output = node.cli(&words);
        assert_eq!(code(&output), 0, "{words:?}: {}", errors(&output));
        seen += &text(&output);
    }
    for path in [
        "/v1/tasks/1",
        "/v1/queues/default/pay/tasks",
        "/v1/tasks/1?wait=1s",
    ] {
        seen += &node.http("GET", path, None).1.to_string();
    }
    assert!(seen.contains("[redacted]"));
    assert!(!seen.contains(SECRET), "{seen}");
}

#[test]
fn what_is_redacted_gets_to_workers_and_to_nobody_else() {
    let mut node = node(CARDS);
    assert_eq!(code(&node.cli(&["queue", "pause", "pay"])), 0);
    let id = push(&node, &["pay", &card()]);
    let (status, refused) = node.http(
        "POST",
        "/v1/queues/default/pay/tasks",
        Some(&json!({ "payload": serde_json::from_str::<Value>(&card()).expect("JSON") })),
    );
    assert_eq!(status, 409, "{refused}");
    let why = refused["error"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        why.contains("with the key `[redacted]` is there already"),
        "{why}"
    );
    assert_eq!(code(&node.cli(&["queue", "resume", "pay"])), 0);
    wait_state(&node, id, "dead");
    assert_eq!(
        lines(&node.root().join("ran")),
        [card()],
        "the worker got all of it"
    );

    let shown = show(&node, id);
    assert_eq!(
        shown["payload"],
        json!({ "card": { "number": "[redacted]", "name": "ana" }, "cards": [{ "n": "[redacted]" }] })
    );
    assert_eq!(shown["unique"], "[redacted]");
    nobody_is_shown(&mut node, id);
    let number = id.to_string();
    let edited = node.cli(&["queue", "edit", &number, &shown["payload"].to_string()]);
    assert_eq!(code(&edited), 2);
    let why = errors(&edited);
    assert!(
        why.contains("the payload has \"[redacted]\" at card.number: "),
        "{why}"
    );
    let pushed = node.cli(&["push", "pay", &shown["payload"].to_string()]);
    assert_eq!(
        (code(&pushed), show(&node, id + 1)),
        (2, Value::Null),
        "nor is it pushed"
    );
    let again = node.cli(&["queue", "edit", &number, &card()]);
    assert_eq!(code(&again), 0, "{}", errors(&again));
    assert_eq!(code(&node.cli(&["queue", "retry", &number])), 0);
    wait_until(SOON, "it ran twice more", || {
        lines(&node.root().join("ran")) == [card(), card(), card()]
    });

    // Nobody knows any more what may be shown.
    std::fs::write(node.root().join("gaffer.toml"), "[queue.other]\n").expect("written");
    assert_eq!(code(&node.cli(&["apply", "-y"])), 0);
    assert_eq!(show(&node, id)["payload"], "[redacted]");
    node.stop(SOON);
}

#[test]
fn redact_counts_at_once_for_what_is_there_already() {
    let mut node = node("[queue.q]\n");
    let id = push(&node, &["q", "{\"a\": 1, \"b\": 2}"]);
    assert_eq!(show(&node, id)["payload"], json!({ "a": 1, "b": 2 }));
    std::fs::write(node.root().join("gaffer.toml"), "[queue.q]\nredact = [\"a\"]\n").expect("written");
    assert_eq!(code(&node.cli(&["apply", "-y"])), 0);
    assert_eq!(show(&node, id)["payload"], json!({ "a": "[redacted]", "b": 2 }));
    // What is no JSON cannot be told apart.
    sql(&node, "UPDATE task SET payload = 'a=1' WHERE id = 1");
    assert_eq!(show(&node, id)["payload"], "[redacted]");
    let body = json!({ "worker": "far-1" });
    let (_, claimed) = node.http("POST", "/v1/queues/default/q/claim", Some(&body));
    assert_eq!(claimed[0]["payload"], "a=1", "a worker gets what is there");
    node.stop(SOON);
}

const SHAPED: &str = r#"
[queue.q]
cmd = ["sh", "-c", "cat >> ran; echo >> ran"]
schema = "shape.json"
[queue.q.kind.small]
schema = { type = "integer", maximum = 9 }
[queue.out]
schema = { required = ["to"] }
"#;

const SHAPE: &str = r#"{"type": "object", "required": ["file"], "properties": {"file": {"type": "string"}}}"#;

/// A daemon that applied the queues; the file with the schema is gone.
fn shaped() -> Node {
    let node = Node::start();
    let write = |name: &str, text: &str| std::fs::write(node.root().join(name), text).expect("written");
    write("shape.json", r#"{"type": "object", "format": "x"}"#);
    write("gaffer.toml", SHAPED);
    let file = node.root().join("gaffer.toml").to_string_lossy().into_owned();
    let refused = node.cli(&["apply", "-y", &file]);
    assert_eq!(code(&refused), 2, "{}", errors(&refused));
    let why = errors(&refused);
    assert!(why.contains("shape.json: `format` is not understood"), "{why}");
    write("shape.json", SHAPE);
    let applied = node.cli(&["apply", "-y", &file]);
    assert_eq!(code(&applied), 0, "{}", errors(&applied));
    std::fs::remove_file(node.root().join("shape.json")).expect("it was read");
    node
}

/// Scenario 28: a payload that does not match the schema is refused at the push, or dead with `bad-arguments` if it came by SQL.
#[test]
fn scenario_28_what_does_not_match_the_schema_is_refused_or_a_dead_letter() {
    let mut node = shaped();
    let refused = node.cli(&["push", "q", "{\"file\": 7}"]);
    assert_eq!(code(&refused), 2);
    let why = errors(&refused);
    assert!(
        why.contains(
            "the payload does not fit the schema of its queue: `file` is a number, and has to be a text"
        ),
        "{why}"
    );
    let many = json!([{ "payload": { "file": "a" } }, { "payload": {} }]);
    let (status, refused) = node.http("POST", "/v1/queues/default/q/tasks", Some(&many));
    assert_eq!(status, 400, "{refused}");
    let why = refused["error"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        why.starts_with("task 1: ") && why.ends_with("`file` is missing"),
        "{why}"
    );
    assert_eq!(code(&node.cli(&["push", "q", "--kind", "small", "10"])), 2);

    let good = push(&node, &["q", "{\"file\": \"a\"}"]);
    assert_eq!(good, 1, "nothing else was taken");
    let small = push(&node, &["q", "--kind", "small", "9"]);
    sql(
        &node,
        "INSERT INTO task (queue, payload) VALUES ('default.q', '{\"file\": 7}')",
    );
    wait_state(&node, small + 1, "dead");
    let error = show(&node, small + 1)["error"].clone();
    assert_eq!(
        (&error["kind"], &error["message"]),
        (
            &json!("bad-arguments"),
            &json!("`file` is a number, and has to be a text")
        )
    );
    let edited = node.cli(&["queue", "edit", &(small + 1).to_string(), "{\"file\": 8}"]);
    assert_eq!(code(&edited), 2, "{}", errors(&edited));

    sql(
        &node,
        "INSERT INTO task (queue, payload) VALUES ('default.out', '{}')",
    );
    let out = push(&node, &["out", "{\"to\": 1}"]);
    let body = json!({ "worker": "far-1", "count": 5, "wait": "10s" });
    let (_, claimed) = node.http("POST", "/v1/queues/default/out/claim", Some(&body));
    let ids: Vec<&Value> = claimed
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| &row["id"])
        .collect();
    assert_eq!(ids, [&json!(out)], "what nobody can work on is not given out");
    assert_eq!(show(&node, out - 1)["error"]["kind"], "bad-arguments");

    // A daemon that starts again has the schema still.
    wait_state(&node, good, "done");
    wait_state(&node, small, "done");
    node.restart();
    assert_eq!(code(&node.cli(&["push", "q", "{}"])), 2);
    node.stop(SOON);
}
