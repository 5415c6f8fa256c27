//! The steps of a task as a graph, for Graphviz and Mermaid.

use gaffer_api::types::task::{Task, TaskStep};
use std::collections::BTreeMap;

/// `dot` or `mermaid`.
pub fn text(task: &Task, form: &str) -> String {
    match form {
        "dot" => dot(task),
        _ => mermaid(task),
    }
}

/// Fill colour of a state.
fn colour(state: &str) -> &'static str {
    match state {
        "success" => "#d5f0d5",
        "failed" | "killed" | "lost" => "#f6d0d0",
        "running" | "starting" => "#d3e3f8",
        _ => "#eeeeee",
    }
}

/// What a line to a step says; nothing where it is the usual.
fn said(condition: &str) -> &str {
    if condition == "done" { "" } else { condition }
}

fn dot(task: &Task) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut out = format!(
        "digraph {} {{\n  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\"];\n",
        quoted(&task.id)
    );
    for step in &task.steps {
        let style = if step.is_final { ", peripheries=2" } else { "" };
        let fill = colour(&step.state);
        out.push_str(&format!(
            "  {} [fillcolor=\"{fill}\"{style}];\n",
            quoted(&step.name)
        ));
    }
    for step in &task.steps {
        for (on, condition) in &step.after {
            let label = match said(condition) {
                "" => String::new(),
                said => format!(" [label={}, style=dashed]", quoted(said)),
            };
            out.push_str(&format!("  {} -> {}{label};\n", quoted(on), quoted(&step.name)));
        }
    }
    out.push_str("}\n");
    out
}

fn mermaid(task: &Task) -> String {
    let ids: BTreeMap<&str, usize> = task
        .steps
        .iter()
        .enumerate()
        .map(|(at, step)| (step.name.as_str(), at))
        .collect();
    let text = |step: &TaskStep| step.name.replace('"', "#quot;");
    let mut out = "flowchart LR\n".to_owned();
    for (at, step) in task.steps.iter().enumerate() {
        let (open, close) = if step.is_final { ("[[", "]]") } else { ("(", ")") };
        out.push_str(&format!("  s{at}{open}\"{}\"{close}\n", text(step)));
        out.push_str(&format!("  style s{at} fill:{}\n", colour(&step.state)));
    }
    for (at, step) in task.steps.iter().enumerate() {
        for (on, condition) in &step.after {
            let Some(on) = ids.get(on.as_str()) else { continue };
            let line = match said(condition) {
                "" => "-->".to_owned(),
                said => format!("-. {said} .->"),
            };
            out.push_str(&format!("  s{on} {line} s{at}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Task {
        let step = |name: &str, state: &str, after: &[(&str, &str)], is_final: bool| {
            let after: BTreeMap<&str, &str> = after.iter().copied().collect();
            serde_json::json!({
                "name": name, "state": state, "reason": "", "attempts": 1, "next_ms": null, "final": is_final,
                "background": false, "after": after, "runs": [],
            })
        };
        let steps = [
            step("a", "success", &[], false),
            step("b \"x\"", "failed", &[("a", "done")], false),
            step("c", "waiting", &[("b \"x\"", "failed")], false),
            step("end", "waiting", &[], true),
        ];
        serde_json::from_value(serde_json::json!({
            "id": "t-1", "root": "/r", "state": "active", "location": "active", "paused": false, "summary": "", "reason": "",
            "revision": 1, "steps": steps, "user": "", "hostname": "", "sandbox": "", "log_dir": "", "ports": {},
            "launched_at": null, "ended_at": null, "statuses": [], "spec": null,
        }))
        .expect("a task")
    }

    #[test]
    fn graphviz_has_every_step_and_line() {
        let text = text(&task(), "dot");
        assert!(text.contains("\"a\" -> \"b \\\"x\\\"\";"), "{text}");
        assert!(
            text.contains("\"b \\\"x\\\"\" -> \"c\" [label=\"failed\", style=dashed];"),
            "{text}"
        );
        assert!(
            text.contains("\"end\" [fillcolor=\"#eeeeee\", peripheries=2];"),
            "{text}"
        );
    }

    #[test]
    fn mermaid_has_every_step_and_line() {
        let text = text(&task(), "mermaid");
        assert!(text.contains("s1(\"b #quot;x#quot;\")"), "{text}");
        assert!(
            text.contains("s0 --> s1") && text.contains("s1 -. failed .-> s2"),
            "{text}"
        );
        assert!(text.contains("s3[[\"end\"]]"), "{text}");
    }
}
