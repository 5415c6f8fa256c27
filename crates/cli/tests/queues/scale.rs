//! Workers of a queue, as many as an operator wants.

use super::*;

#[test]
fn a_queue_is_scaled_by_hand_also_over_a_restart_until_the_file_counts_again() {
    let text = "[job.web]\ncmd = \"sleep 1000\"\n[queue.q]\nworkers = 1\n\
        cmd = [\"sh\", \"-c\", \"echo $$GAFFER_TASK >> begun; until test -e go; do sleep 0.02; done\"]\n";
    let mut node = node(text);
    for n in 0..5 {
        push(&node, &["q", &n.to_string()]);
    }
    let begun = |node: &Node| lines(&node.root().join("begun")).len();
    wait_until(SOON, "one", || begun(&node) == 1);
    let scaled = node.cli(&["scale", "queue:q=+2", "web=2"]);
    assert_eq!(code(&scaled), 0, "{}", errors(&scaled));
    wait_until(SOON, "three", || begun(&node) == 3);
    assert_eq!(
        node.get("/v1/jobs/default/web")["instances"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    let is = |node: &mut Node| {
        let queue = node.get("/v1/queues/default/q");
        (queue["workers"].as_u64(), queue["scaled"].as_u64())
    };
    let (status, answer) = node.http("POST", "/v1/queues/default/q/scale", Some(&json!({ "to": "-1" })));
    assert_eq!((status, answer["workers"].as_u64()), (200, Some(2)), "{answer}");
    let events = text_of(&node, "queue.scaled");
    let first: Value = serde_json::from_str(&events).expect("JSON");
    assert!(
        first[0]["event"] == "queue.scaled" && events.contains("\"to\""),
        "{events}"
    );
    node.kill9();
    node.start_again();
    assert_eq!(is(&mut node), (Some(2), Some(2)));
    // Another definition leaves what the operator wants.
    std::fs::write(
        node.root().join("gaffer.toml"),
        text.replace("workers = 1", "workers = 7"),
    )
    .expect("written");
    assert_eq!(code(&node.cli(&["apply"])), 0);
    assert_eq!(is(&mut node), (Some(2), Some(2)));
    let auto = node.cli(&["scale", "queue:default.q", "--auto"]);
    assert_eq!(code(&auto), 0, "{}", errors(&auto));
    assert_eq!(is(&mut node), (Some(7), None));
    wait_until(SOON, "all of them", || begun(&node) == 5);
    node.restart();
    assert_eq!(is(&mut node), (Some(7), None));
    // One that its file drops begins anew when it comes back.
    assert_eq!(code(&node.cli(&["scale", "queue:q=9"])), 0);
    for text in ["[job.web]\ncmd = \"sleep 1000\"\n", text] {
        std::fs::write(node.root().join("gaffer.toml"), text).expect("written");
        assert_eq!(code(&node.cli(&["apply", "-y", "--prune"])), 0);
    }
    assert_eq!(is(&mut node), (Some(1), None));
    assert_eq!(code(&node.cli(&["scale", "queue:none=1"])), 3);
    assert_eq!(code(&node.cli(&["scale", "queue:q=x"])), 2);
    assert_eq!(code(&node.cli(&["scale", "queue:q=200000"])), 4);
    std::fs::write(node.root().join("go"), "").expect("a file");
    node.stop(SOON);
}

fn text_of(node: &Node, event: &str) -> String {
    text(&node.cli(&["events", "--filter", event, "--json"]))
}
