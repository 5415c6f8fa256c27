//! What runs of steps use, and that a stream says that its task is led.

use crate::after::Shop;
use crate::{Place, SOON, WAITS, said, task};
use gaffer_testkit::wait_until;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

#[test]
fn what_a_step_uses_is_shown_while_it_runs_and_when_it_has_ended() {
    let mut shop = Shop::new();
    let busy = "head -c 2000000 /dev/zero > {{task.dir}}/big; while ! test -e WORK/go; do :; done";
    shop.apply(&format!(
        "[task.t]\n[task.t.step.busy]\nshell = true\ncmd = \"{busy}\"\n[task.t.step.idle]\ncmd = \"sleep 1000\"\nbackground = true\n"
    ));
    let started = shop.node.cli(&["task", "start", "t", "--id", "u-1"]);
    assert_eq!(said(&started), "u-1\n");
    let mut task = Value::Null;
    wait_until(SOON, "a share of the CPU", || {
        task = shop.node.get("/v1/tasks/u-1?disk=true");
        let used = &task["steps"][0]["runs"][0]["usage"];
        used["cpu_percent"].as_f64().is_some_and(|share| share > 5.0)
    });
    assert!(
        task["disk_bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes >= 2_000_000),
        "{task}"
    );
    let step = shop.node.get("/v1/tasks/u-1/steps/busy");
    let used = &step["runs"][0]["usage"];
    assert!(
        used["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 100_000),
        "{step}"
    );
    let idle = shop.node.get("/v1/tasks/u-1/steps/idle");
    let rests = idle["runs"][0]["usage"]["cpu_ms"].as_u64().expect("known");
    assert!(rests < used["cpu_ms"].as_u64().unwrap_or_default(), "{idle}");
    let status = said(&shop.node.cli(&["task", "status", "u-1"]));
    assert!(status.contains("cpu ") && status.contains("disk "), "{status}");
    assert_eq!(shop.node.http("GET", "/v1/tasks/u-1/steps/none", None).0, 404);
    shop.touch("go");
    let ended = shop.node.cli(&["task", "wait", "u-1"]);
    assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
    // It is in the checkpoint: the next daemon knows it too.
    shop.again();
    let step = shop.node.get("/v1/tasks/u-1/steps/busy");
    let used = &step["runs"][0]["usage"];
    assert!(used["cpu_ms"].as_u64().is_some_and(|ms| ms > 0), "{step}");
    assert!(
        used["memory_peak_bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 100_000),
        "{step}"
    );
    assert_eq!(used["memory_bytes"], Value::Null);
    shop.node.stop(SOON);
}

#[test]
fn the_stream_of_a_led_task_is_stamped_and_that_of_a_task_nobody_leads_is_not() {
    let place = Place::new();
    place.write(
        "t.json",
        &task(json!([{"name": "a", "cmdline": WAITS}]), json!({})),
    );
    let running = place.start(&["run", "t.json", "--id", "s"]);
    place.until("begun");
    let stream = place.stream("s");
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    let set_back = || {
        let file = std::fs::File::options()
            .append(true)
            .open(&stream)
            .expect("a stream");
        file.set_modified(long_ago).expect("set back");
    };
    let age = || {
        let modified = std::fs::metadata(&stream).and_then(|data| data.modified());
        modified.expect("a time").elapsed().unwrap_or_default()
    };
    set_back();
    wait_until(SOON, "its stamp", || age() < Duration::from_secs(60));
    place.kill_both(running, "s");
    set_back();
    assert_eq!(place.status("s")["state"], "active");
    assert!(age() > Duration::from_secs(60), "nothing is led by looking");
    place.touch("go");
    assert_eq!(place.json(&["run", "t.json", "--id", "s"]).0, 0);
}
