//! Queues that share workers, with real ones.

use crate::{SOON, lines, node};
use gaffer_testkit::wait_until;
use std::path::Path;

const WORK: &str = r#"
[queue.much]
pool = "heavy"
weight = 3
workers = 2
[queue.little]
pool = "heavy"
workers = 2
[defaults]
cwd = "{{file.dir}}"
[defaults.queue]
cmd = ["sh", "-c", "mkdir run.$$GAFFER_TASK; ls -d run.* | wc -l >> counts; echo $$GAFFER_QUEUE >> order; sleep 0.05; rmdir run.$$GAFFER_TASK"]
"#;

#[test]
fn b3_6_two_queues_share_two_workers_three_to_one() {
    let mut node = node(WORK);
    for queue in ["much", "little"] {
        assert!(node.cli(&["queue", "pause", queue]).status.success());
        for _ in 0..40 {
            crate::push(&node, &[queue, "1"]);
        }
    }
    for queue in ["much", "little"] {
        assert!(node.cli(&["queue", "resume", queue]).status.success());
    }
    let at = |name: &str| node.root().join(name);
    let (order, counts) = (at("order"), at("counts"));
    wait_until(SOON, "forty of them", || lines(&order).len() >= 40);
    let shown = node.cli(&["queue", "show", "much"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("workers busy, weight 3"), "{shown}");
    wait_until(SOON, "all of them", || lines(&order).len() == 80);
    let begun = lines(&order);
    let much = begun.iter().take(40).filter(|name| *name == "much").count();
    assert!((26..=34).contains(&much), "{much} of 40: {begun:?}");
    assert!(most(&counts) <= 2, "{:?}", lines(&counts));
    node.stop(SOON);
}

fn most(counts: &Path) -> u32 {
    let counts = lines(counts);
    counts
        .iter()
        .filter_map(|line| line.trim().parse().ok())
        .max()
        .unwrap_or(u32::MAX)
}
