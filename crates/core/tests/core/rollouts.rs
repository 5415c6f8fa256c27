//! Roll-outs: a new definition, or an explicit reload, over the instances.

use crate::bench::{Bench, s, spec, tcp};
use gaffer_core::io::{Cause, Command, ProbeRole, Progress, State, Status};
use gaffer_core::job::{Job, Launch, ReloadHow};
use std::sync::Arc;

fn version(text: &str, how: ReloadHow) -> Job {
    let mut job = spec();
    job.launch = Arc::new(Launch::of(vec![text.into()]));
    job.instances = 3;
    job.reload.how = how;
    job.ready = Some(tcp());
    job
}

fn ready(bench: &mut Bench, slot: &str) {
    bench.probed(slot, ProbeRole::Ready, Ok("tcp"));
}

fn three(how: ReloadHow) -> Bench {
    let mut bench = Bench::new();
    bench.put("shop.web", version("one", how));
    for n in 1..=3 {
        ready(&mut bench, &format!("shop.web.{n}"));
    }
    bench.told();
    bench
}

fn states(bench: &Bench) -> Vec<(String, State)> {
    bench
        .view("shop.web")
        .instances
        .iter()
        .map(|one| (one.slot.to_string(), one.state))
        .collect()
}

#[test]
fn rolling_replaces_one_after_the_other_when_the_one_before_is_ready() {
    let mut bench = three(ReloadHow::Rolling);
    bench.put("shop.web", version("two", ReloadHow::Rolling));
    for n in 1..=3 {
        let slot = format!("shop.web.{n}");
        let busy: Vec<_> = states(&bench)
            .into_iter()
            .filter(|(_, state)| *state != State::Running)
            .collect();
        assert_eq!(busy, [(slot.clone(), State::Stopping)]);
        assert_eq!(bench.view("shop.web").progress, Progress::Pending);
        bench.exits(&slot, Status::Signal(15, false));
        assert_eq!(bench.state(&slot), State::Starting);
        ready(&mut bench, &slot);
    }
    assert_eq!(bench.view("shop.web").progress, Progress::Done);
    assert_eq!(bench.spawns("shop.web"), 6);
    assert!(
        bench
            .settled
            .iter()
            .all(|(_, death, _)| death.cause == Cause::Replaced)
    );
    assert_eq!(
        bench.settled[0].2.text.as_ref(),
        "replaced by reload of gaffer.toml; ended on TERM in 0s"
    );
}

#[test]
fn a_new_run_that_fails_ends_the_roll_out_and_the_old_ones_stay() {
    let mut bench = three(ReloadHow::Rolling);
    bench
        .put("shop.web", version("two", ReloadHow::Rolling))
        .exits("shop.web.1", Status::Code(0));
    bench.exits("shop.web.1", Status::Code(1)).pass(s(50));
    assert_eq!(
        (bench.state("shop.web.2"), bench.state("shop.web.3")),
        (State::Running, State::Running)
    );
    let view = bench.view("shop.web");
    let reason = view.reason.expect("a reason").text;
    assert!(reason.starts_with("reload ended at instance 1: "), "{reason}");
    assert!(reason.ends_with("2 runs keep the old definition"), "{reason}");
    assert!(
        !bench
            .settled
            .iter()
            .any(|(slot, ..)| slot.to_string() != "shop.web.1")
    );
}

#[test]
fn a_surge_has_the_new_one_ready_before_the_old_one_stops() {
    let mut bench = three(ReloadHow::Surge);
    bench.put("shop.web", version("two", ReloadHow::Surge));
    for n in 1..=3 {
        let (old, new) = (format!("shop.web.{n}"), format!("shop.web.{n}~1"));
        assert_eq!(
            (bench.state(&old), bench.state(&new)),
            (State::Running, State::Starting)
        );
        ready(&mut bench, &new);
        assert_eq!(
            (bench.state(&old), bench.state(&new)),
            (State::Stopping, State::Running)
        );
    }
    for n in 1..=3 {
        bench.exits(&format!("shop.web.{n}"), Status::Code(0));
    }
    let all = [1, 2, 3].map(|n| (format!("shop.web.{n}~1"), State::Running));
    assert_eq!(states(&bench), all);
    assert_eq!(bench.view("shop.web").progress, Progress::Done);
    bench.put("shop.web", version("three", ReloadHow::Surge));
    assert_eq!(bench.state("shop.web.1"), State::Starting, "the lanes alternate");
}

#[test]
fn a_surge_whose_new_run_fails_leaves_every_old_one_alone() {
    let mut bench = three(ReloadHow::Surge);
    bench
        .put("shop.web", version("two", ReloadHow::Surge))
        .exits("shop.web.1~1", Status::Code(1))
        .pass(s(99));
    assert_eq!(
        states(&bench),
        [1, 2, 3].map(|n| (format!("shop.web.{n}"), State::Running))
    );
    assert!(matches!(bench.view("shop.web").progress, Progress::Failed(_)));
    bench.reload("shop.web", None);
    assert_eq!(
        bench.state("shop.web.1~1"),
        State::Starting,
        "asked again, it tries again"
    );
}

#[test]
fn a_signal_is_all_that_a_reload_by_signal_does() {
    let mut bench = three(ReloadHow::Signal);
    bench.put("shop.web", version("two", ReloadHow::Signal));
    let signals = bench
        .told()
        .into_iter()
        .filter(|line| line.contains("signal 1 to Main"))
        .count();
    assert_eq!((signals, bench.spawns("shop.web")), (3, 3));
    bench.pass(s(99));
    assert_eq!(bench.told(), Vec::<String>::new(), "once");
}

#[test]
fn restart_replaces_all_at_once() {
    let mut bench = three(ReloadHow::Rolling);
    bench.restart("shop.web");
    assert!(states(&bench).iter().all(|(_, state)| *state == State::Stopping));
    for n in 1..=3 {
        bench.exits(&format!("shop.web.{n}"), Status::Code(0));
    }
    assert_eq!(bench.spawns("shop.web"), 6);
    assert_eq!(
        bench.settled[0].2.text.as_ref(),
        "replaced by restart of ana; ended on TERM in 0s"
    );
}

#[test]
fn a_reload_without_a_change_replaces_too() {
    let mut bench = three(ReloadHow::Rolling);
    bench.reload("shop.web", Some(ReloadHow::Restart));
    assert!(states(&bench).iter().all(|(_, state)| *state == State::Stopping));
}

#[test]
fn hazard_27_putting_the_same_definition_again_touches_no_run() {
    let mut bench = three(ReloadHow::Rolling);
    let before = bench.commands.len();
    for _ in 0..100 {
        bench.put("shop.web", version("one", ReloadHow::Rolling));
    }
    assert_eq!(bench.commands.len(), before);
    assert_eq!(bench.told(), Vec::<String>::new());
    let mut live = version("one", ReloadHow::Rolling);
    live.retry.attempts = Some(9);
    bench.put("shop.web", live);
    assert_eq!(
        bench.told(),
        ["job.changed shop.web"],
        "a live change touches no run either"
    );
    assert!(
        bench.commands[before..]
            .iter()
            .all(|command| !matches!(command, Command::Signal { .. }))
    );
}
