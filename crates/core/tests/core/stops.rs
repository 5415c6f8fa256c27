//! Stops, scale, removal and the orderly end.

use crate::bench::{Bench, id, ms, s, spec};
use gaffer_core::io::{Cause, Command, How, Input, Progress, State, Status, WishState};
use gaffer_core::job::{Condition, Launch, Restart};
use std::sync::Arc;

fn forget(bench: &Bench, job: &str) -> bool {
    bench
        .commands
        .iter()
        .any(|command| matches!(command, Command::Forget { slot: None, job: gone } if *gone == id(job)))
}

#[test]
fn a_newer_stop_may_make_it_sooner_and_never_later() {
    let mut bench = Bench::new();
    bench.put("shop.web", spec()).stop("shop.web").pass(s(5)).told();
    let how = How {
        grace: Some(s(2)),
        force: false,
    };
    bench.ask("shop.web", None, WishState::Stopped, false, how);
    bench.ask(
        "shop.web",
        None,
        WishState::Stopped,
        false,
        How {
            grace: Some(s(90)),
            force: false,
        },
    );
    bench.pass(ms(1_999));
    assert!(!bench.told().contains(&"  kill the tree of shop.web.1".to_owned()));
    bench.pass(ms(1));
    assert!(bench.told().contains(&"  kill the tree of shop.web.1".to_owned()));
}

#[test]
fn force_kills_at_once() {
    let mut bench = Bench::new();
    bench.put("shop.web", spec()).stop("shop.web").told();
    bench.ask(
        "shop.web",
        None,
        WishState::Stopped,
        false,
        How {
            grace: None,
            force: true,
        },
    );
    assert!(bench.told().contains(&"  kill the tree of shop.web.1".to_owned()));
    bench.exits("shop.web.1", Status::Signal(9, false));
    assert_eq!(bench.settled[0].2.code, "stop-killed");
}

#[test]
fn a_stop_before_the_process_exists_is_sent_when_it_does() {
    let mut bench = Bench::new();
    bench.obliging = false;
    bench.put("shop.web", spec()).stop("shop.web");
    assert!(
        !bench
            .commands
            .iter()
            .any(|command| matches!(command, Command::Signal { .. }))
    );
    let run = bench.run("shop.web.1");
    bench.started(run);
    assert!(
        bench
            .commands
            .iter()
            .any(|command| matches!(command, Command::Signal { signal: 15, .. }))
    );
}

#[test]
fn scaling_down_stops_the_highest_numbers_and_counts_as_no_failure() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.instances = 3;
    bench.put("shop.web", job).scale("shop.web", 1);
    assert_eq!(bench.state("shop.web.1"), State::Running);
    for slot in ["shop.web.3", "shop.web.2"] {
        assert_eq!(bench.state(slot), State::Stopping);
        bench.exits(slot, Status::Code(1));
    }
    assert!(
        bench
            .settled
            .iter()
            .all(|(_, death, _)| death.cause == Cause::Replaced)
    );
    assert_eq!(bench.view("shop.web").instances.len(), 1);
    assert_eq!(bench.view("shop.web").progress, Progress::Done);
    bench.scale("shop.web", 2);
    let Some(Command::Spawn { after, attempt, .. }) = bench
        .commands
        .iter()
        .rev()
        .find(|command| matches!(command, Command::Spawn { .. }))
    else {
        panic!("it starts again")
    };
    assert_eq!(
        (after.is_some(), *attempt),
        (true, 2),
        "after the run that was there before"
    );
}

#[test]
fn a_removed_job_is_forgotten_when_nothing_of_it_is_left() {
    let mut bench = Bench::new();
    bench.put("shop.web", spec()).feed(Input::JobRemoved {
        job: id("shop.web"),
        by: "ana".into(),
    });
    assert!(!forget(&bench, "shop.web"));
    let run = bench.run("shop.web.1");
    bench.exits_with("shop.web.1", Status::Code(0), 1);
    assert!(!forget(&bench, "shop.web"));
    bench.feed(Input::TreeGone { run });
    assert!(forget(&bench, "shop.web"));
    assert!(bench.node.job_view(&id("shop.web")).is_none());
    assert!(bench.node.is_idle());
    // The shim still knows the slot, and the new job of that name has to say so.
    bench.specs.clear();
    bench.put("shop.web", spec());
    let Some(Command::Spawn { after, .. }) = bench
        .commands
        .iter()
        .rfind(|c| matches!(c, Command::Spawn { .. }))
    else {
        panic!("it starts")
    };
    assert_eq!(*after, Some(run));
}

#[test]
fn a_one_off_runs_once_and_is_forgotten() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.start = false;
    bench.put("shop.web", job);
    let launch = Arc::new(Launch::of(vec!["migrate".into()]));
    bench.feed(Input::OneOffPut {
        job: id("shop.web"),
        n: 7,
        launch,
        grace: None,
        by: "ana".into(),
    });
    assert_eq!(bench.state("shop.web/7"), State::Running);
    bench.exits("shop.web/7", Status::Code(3)).pass(s(999));
    assert_eq!(bench.spawned.len(), 1);
    assert!(
        bench.commands.iter().any(
            |c| matches!(c, Command::Forget { slot: Some(slot), .. } if slot.to_string() == "shop.web/7")
        )
    );
}

#[test]
fn the_orderly_end_stops_dependents_first_and_keeps_what_is_to_be_kept() {
    let mut bench = Bench::new();
    let mut web = spec();
    web.after.insert(id("shop.db"), Condition::Started);
    let mut kept = spec();
    kept.keep_running = true;
    let mut low = spec();
    low.priority = -5;
    bench
        .put("shop.db", spec())
        .put("shop.web", web)
        .put("shop.kept", kept)
        .put("shop.low", low)
        .told();
    bench.feed(Input::Shutdown {
        all: false,
        by: "systemd".into(),
    });
    let signals: Vec<String> = bench
        .told()
        .into_iter()
        .filter(|line| line.starts_with("  signal"))
        .collect();
    assert_eq!(
        signals,
        [
            "  signal 15 to Main of shop.web.1",
            "  signal 15 to Main of shop.low.1"
        ]
    );
    bench.exits("shop.web.1", Status::Code(0));
    assert!(
        bench
            .told()
            .contains(&"  signal 15 to Main of shop.db.1".to_owned())
    );
    bench
        .exits("shop.db.1", Status::Code(0))
        .exits("shop.low.1", Status::Code(0));
    assert!(bench.told().contains(&"  shutdown is done".to_owned()));
    assert_eq!(bench.state("shop.kept.1"), State::Running);
    bench.exits("shop.kept.1", Status::Code(1)).pass(s(99));
    assert_eq!(bench.spawns("shop.kept"), 1, "nothing starts any more");
}

#[test]
fn jobs_in_a_circle_wait_with_a_reason_and_do_not_hold_up_the_end() {
    let mut bench = Bench::new();
    let (mut a, mut b) = (spec(), spec());
    a.after.insert(id("shop.b"), Condition::Started);
    b.after.insert(id("shop.a"), Condition::Started);
    bench
        .put("shop.a", spec())
        .put("shop.b", b)
        .put("shop.a", a)
        .told();
    assert_eq!(bench.state("shop.b.1"), State::Running);
    bench.feed(Input::Shutdown {
        all: true,
        by: "ana".into(),
    });
    for slot in ["shop.a.1", "shop.b.1"] {
        bench.exits(slot, Status::Code(0));
    }
    assert!(bench.told().contains(&"  shutdown is done".to_owned()));
}

#[test]
fn hazard_25_a_restart_of_an_essential_job_ends_nothing_else() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.essential = true;
    job.restart = Restart::Never;
    bench
        .put("shop.web", job)
        .restart("shop.web")
        .exits("shop.web.1", Status::Code(143));
    assert_eq!(bench.settled[0].1.cause, Cause::Replaced);
    assert_eq!(bench.state("shop.web.1"), State::Running);
    assert!(
        !bench
            .commands
            .iter()
            .any(|command| matches!(command, Command::EndNode { .. }))
    );
    bench.exits("shop.web.1", Status::Code(3));
    assert!(
        bench
            .commands
            .iter()
            .any(|command| matches!(command, Command::EndNode { code: 3, .. }))
    );
}

#[test]
fn an_instance_of_its_own_wish_follows_the_newer_of_both() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.instances = 2;
    bench
        .put("shop.web", job)
        .ask("shop.web", Some(2), WishState::Stopped, false, How::default());
    bench.exits("shop.web.2", Status::Code(0)).pass(s(99));
    assert_eq!(
        (bench.state("shop.web.1"), bench.state("shop.web.2")),
        (State::Running, State::Stopped)
    );
    bench.start("shop.web");
    assert_eq!(
        (bench.state("shop.web.1"), bench.state("shop.web.2")),
        (State::Running, State::Running)
    );
    assert_eq!(bench.spawns("shop.web"), 3, "the first one was left alone");
}

#[test]
fn a_forced_stop_before_the_process_exists_kills_it_when_it_does() {
    let mut bench = Bench::new();
    bench.obliging = false;
    bench.put("shop.web", spec());
    bench.ask(
        "shop.web",
        None,
        WishState::Stopped,
        false,
        How {
            grace: None,
            force: true,
        },
    );
    let run = bench.run("shop.web.1");
    bench.told();
    bench.started(run);
    assert!(bench.told().contains(&"  kill the tree of shop.web.1".to_owned()));
}

#[test]
fn a_forced_stop_asked_for_while_the_shim_was_silent_is_carried_out_when_it_answers() {
    let mut bench = Bench::new();
    bench.put("shop.web", spec()).restart("shop.web");
    let run = bench.run("shop.web.1");
    bench.feed(Input::Unreachable { run, silent: true });
    bench
        .ask(
            "shop.web",
            None,
            WishState::Stopped,
            false,
            How {
                grace: None,
                force: true,
            },
        )
        .pass(s(99));
    assert!(!bench.told().contains(&"  kill the tree of shop.web.1".to_owned()));
    bench.feed(Input::Unreachable { run, silent: false });
    assert!(bench.told().contains(&"  kill the tree of shop.web.1".to_owned()));
    bench.exits("shop.web.1", Status::Signal(9, false));
    assert_eq!(bench.settled[0].1.cause, Cause::Stopped);
}

fn drained(bench: &mut Bench) {
    bench
        .feed(Input::Drain {
            stop: true,
            by: "ana".into(),
        })
        .exits("shop.web.1", Status::Code(0));
    assert!(bench.told().contains(&"  drained".to_owned()));
}

#[test]
fn what_had_ended_by_itself_does_not_run_again_when_a_drain_is_undone() {
    let mut bench = Bench::new();
    let (mut once, mut bad) = (spec(), spec());
    once.restart = Restart::Never;
    bad.restart = Restart::Never;
    bench
        .put("shop.once", once)
        .put("shop.bad", bad)
        .put("shop.web", spec())
        .exits("shop.once.1", Status::Code(0))
        .exits("shop.bad.1", Status::Code(3));
    let ended = [bench.state("shop.once.1"), bench.state("shop.bad.1")];
    drained(&mut bench);
    assert_eq!([bench.state("shop.once.1"), bench.state("shop.bad.1")], ended);
    bench.feed(Input::Undrain).pass(s(99));
    assert_eq!(bench.state("shop.web.1"), State::Running);
    assert_eq!([bench.state("shop.once.1"), bench.state("shop.bad.1")], ended);
    assert_eq!([bench.spawns("shop.once"), bench.spawns("shop.bad")], [1, 1]);
}

#[test]
fn what_is_asked_of_an_ended_job_while_its_node_is_drained_is_done_when_that_is_undone() {
    for ask in [Bench::start, Bench::restart] {
        let mut bench = Bench::new();
        let mut once = spec();
        once.restart = Restart::Never;
        bench
            .put("shop.once", once)
            .put("shop.web", spec())
            .exits("shop.once.1", Status::Code(0));
        drained(&mut bench);
        ask(&mut bench, "shop.once").pass(s(99));
        assert_eq!(bench.spawns("shop.once"), 1, "the node is drained");
        bench.feed(Input::Undrain).pass(s(99));
        assert_eq!(bench.spawns("shop.once"), 2);
    }
}
