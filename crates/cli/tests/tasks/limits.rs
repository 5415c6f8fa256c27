//! What steps may take: limits of native ones, resources of Thermos.

use super::{Place, said, story};
use serde_json::{Value, json};

/// The fixture takes 200 MiB, and is allowed 32.
#[test]
fn a_step_beyond_its_limits_is_ended_by_the_kernel_and_said_so() {
    let place = Place::new();
    let text = format!(
        r#"
[task.t.step.fat]
cmd = [{:?}, "eat-memory", "--mib", "200"]
limits = {{ memory = "32M", swap = "0B", enforce = "require" }}
[task.t.step.beside]
cmd = "sh -c 'echo ran > beside'"
"#,
        gaffer_testkit::node::bin_dir().join("gaffer-fixture")
    );
    std::fs::write(place.work().join("gaffer.toml"), text).expect("a file");
    let (code, task) = place.json(&["run", "gaffer.toml", "--id", "t1"]);
    assert_eq!((code, &task["state"]), (1, &Value::from("failed")), "{task}");
    let step = |name: &str| {
        let steps = task["steps"].as_array().expect("steps");
        steps.iter().find(|step| step["name"] == name).expect("the step")
    };
    let fat = step("fat");
    assert_eq!(fat["state"], "failed", "{fat}");
    assert!(fat.to_string().contains("out of memory"), "{fat}");
    assert_eq!(step("beside")["state"], "success");
    assert_eq!(place.read("beside"), "ran\n", "another step has no such limit");
}

/// 17: what a task asks for is enforced where its file says so, and the reason is on record.
#[test]
fn resources_are_enforced_where_a_task_says_so() {
    let place = Place::new();
    let fixture = gaffer_testkit::node::bin_dir().join("gaffer-fixture");
    let eats = format!("exec {} eat-memory --mib 200", fixture.display());
    let resources = |disk: u64| json!({ "cpu": 1.5, "ram": 32 << 20, "disk": disk });
    let enforced = |script: &str, disk: u64| {
        let process = json!({ "name": "a", "cmdline": script, "max_failures": 1 });
        json!({ "name": "t", "processes": [process], "resources": resources(disk), "enforce": true })
    };
    place.write("memory.json", &enforced(&eats, 1 << 30));
    let (code, task) = place.json(&["run", "memory.json", "--id", "memory"]);
    assert_eq!(
        (code, story(&task, "a").as_str()),
        (1, "failed:SIGKILL"),
        "{task}"
    );
    assert!(task.to_string().contains("out of memory"), "{task}");
    place.write(
        "disk.json",
        &enforced("head -c 3000000 /dev/zero > fat; exec sleep 1000", 1 << 20),
    );
    let (code, task) = place.json(&["run", "disk.json", "--id", "disk"]);
    assert_eq!((code, &task["state"]), (1, &json!("failed")), "{task}");
    let reason = task["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("1M are reserved (resources.disk)"), "{task}");
    // Off by default.
    let mut free = enforced("head -c 3000000 /dev/zero > fat", 1 << 20);
    free["enforce"] = json!(false);
    place.write("free.json", &free);
    let (code, task) = place.json(&["run", "free.json", "--id", "free"]);
    assert_eq!((code, &task["state"]), (0, &json!("success")), "{task}");
    let mut nothing = enforced("true", 1);
    nothing.as_object_mut().expect("a task").remove("resources");
    place.write("nothing.json", &nothing);
    let refused = place.run(&["run", "nothing.json", "--id", "nothing"]);
    assert!(
        said(&refused).contains("there is nothing to enforce"),
        "{}",
        said(&refused)
    );
}
