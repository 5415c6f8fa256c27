//! Standing orders: left where the decision is certain, taken back when it is not, settled when both cross.

use crate::bench::{Bench, ms, s, spec, tcp};
use gaffer_core::io::{Command, Input, State, Status, Successor, WishState};
use gaffer_core::job::{Condition, ExitMatch, Flapping, Job, Port, ReloadHow, Restart};
use gaffer_core::name::RunId;
use gaffer_core::time::Duration;

fn at_once() -> Job {
    let mut spec = spec();
    spec.retry.delay = vec![Duration::ZERO];
    spec
}

/// The order that stands, as the newest command about one says.
fn order(bench: &Bench) -> Option<Successor> {
    let about = |command: &&Command| matches!(command, Command::Stand { .. } | Command::Withdraw { .. });
    match bench.commands.iter().rfind(about)? {
        Command::Stand { run, stamp, .. } => Some(Successor {
            run: *run,
            stamp: *stamp,
        }),
        _ => None,
    }
}

/// The run ends, and its shim has carried out this order.
fn ends_followed(bench: &mut Bench, run: RunId, by: Successor) {
    let end = Bench::end(Status::Code(1), bench.now, s(1));
    bench.feed(Input::Exited {
        run,
        end,
        survivors: 0,
        successor: Some(by),
    });
}

#[test]
fn a_successor_needs_no_spawn_and_gets_an_order_of_its_own() {
    let mut bench = Bench::new();
    bench.put("shop.web", at_once());
    let (run, first) = (bench.run("shop.web.1"), order(&bench).expect("an order"));
    bench.pass(s(5));
    ends_followed(&mut bench, run, first);
    assert_eq!(bench.run("shop.web.1"), first.run);
    assert_eq!(bench.spawned.len(), 1, "nothing was asked for again");
    assert_eq!(order(&bench), Some(first), "not before it is up");
    bench.started(first.run);
    assert_eq!(bench.state("shop.web.1"), State::Running);
    let second = order(&bench).expect("the next one");
    assert!(second.run > first.run);
    assert_eq!(bench.instance("shop.web.1").restarts, 1);
    assert_eq!(bench.instance("shop.web.1").attempt, 2);
    // Carried out or not: an end without a successor is decided as ever.
    bench.exits("shop.web.1", Status::Code(0));
    assert_eq!(bench.spawned.len(), 2);
    assert_eq!(bench.state("shop.web.1"), State::Running);
}

#[test]
fn where_anything_else_has_a_say_there_is_no_order() {
    let fatal = Job {
        exit: gaffer_core::job::ExitClass {
            fatal: vec![ExitMatch::Code(3)],
            ..spec().exit
        },
        ..at_once()
    };
    let mut auto = at_once();
    let mut launch = (*auto.launch).clone();
    launch.ports.insert(String::new(), Port::Auto);
    auto.launch = launch.into();
    let mut after = at_once();
    after.after.insert(crate::bench::id("shop.db"), Condition::Ready);
    let common = Flapping {
        exits: 5,
        window: s(30),
        pause: s(7),
        rounds: None,
        whole_job: true,
    };
    let one_attempt = Job {
        retry: gaffer_core::job::Retry {
            attempts: Some(1),
            ..at_once().retry
        },
        ..at_once()
    };
    let others = [
        spec(),
        fatal,
        auto,
        after,
        one_attempt,
        Job {
            restart: Restart::OnFailure,
            ..at_once()
        },
        Job {
            start_spacing: ms(1),
            ..at_once()
        },
        Job {
            flapping: Some(common),
            ..at_once()
        },
    ];
    for (number, job) in others.into_iter().enumerate() {
        let mut bench = Bench::new();
        bench.put("shop.db", spec()).put("shop.web", job);
        assert_eq!(bench.state("shop.web.1"), State::Running, "{number}");
        assert_eq!(order(&bench), None, "{number}");
    }
}

#[test]
fn an_order_waits_for_readiness_and_for_the_last_exit_before_flapping() {
    let mut bench = Bench::new();
    bench.put(
        "shop.web",
        Job {
            ready: Some(tcp()),
            ..at_once()
        },
    );
    assert_eq!(order(&bench), None);
    let run = bench.run("shop.web.1");
    let good = Ok("tcp".into());
    bench.feed(Input::Probed {
        run,
        role: gaffer_core::io::ProbeRole::Ready,
        result: good,
    });
    assert!(order(&bench).is_some());

    let mut bench = Bench::new();
    let flapping = Flapping {
        exits: 2,
        window: s(30),
        pause: s(7),
        rounds: None,
        whole_job: false,
    };
    bench.put(
        "shop.web",
        Job {
            flapping: Some(flapping),
            ..at_once()
        },
    );
    let (run, first) = (
        bench.run("shop.web.1"),
        order(&bench).expect("the first exit is no crash loop"),
    );
    ends_followed(&mut bench, run, first);
    bench.started(first.run);
    assert_eq!(order(&bench), Some(first), "the second one would be");
    bench.exits("shop.web.1", Status::Code(1));
    assert_eq!(bench.state("shop.web.1"), State::Flapping);
}

#[test]
fn what_changes_the_decision_takes_the_order_back_or_renews_it() {
    let mut bench = Bench::new();
    bench.put("shop.web", at_once());
    let first = order(&bench).expect("an order");
    bench.wish("shop.web", WishState::Paused);
    assert_eq!(order(&bench), None);
    bench.start("shop.web");
    let second = order(&bench).expect("again");
    assert!(second.run > first.run);
    // A live key: no run is touched, the order goes.
    bench.put("shop.web", spec());
    assert_eq!(order(&bench), None);
    bench.put("shop.web", at_once());
    let third = order(&bench).expect("again");
    bench.reload("shop.web", Some(ReloadHow::Signal));
    let fourth = order(&bench).expect("void by the signal, so it is left anew");
    assert!(fourth.run > third.run && fourth.stamp.restart > third.stamp.restart);
    bench.stop("shop.web");
    assert_eq!(order(&bench), None);
}

#[test]
fn a_stop_that_crosses_the_end_stops_the_successor() {
    let mut bench = Bench::new();
    bench.put("shop.web", at_once());
    let (run, next) = (bench.run("shop.web.1"), order(&bench).expect("an order"));
    bench.stop("shop.web");
    ends_followed(&mut bench, run, next);
    assert_eq!(bench.run("shop.web.1"), next.run);
    assert_eq!(bench.state("shop.web.1"), State::Stopping);
    bench.commands.clear();
    bench.started(next.run);
    let term =
        |command: &Command| matches!(command, Command::Signal { run, signal: 15, .. } if *run == next.run);
    assert!(bench.commands.iter().any(term), "{:?}", bench.commands);
    bench.exits("shop.web.1", Status::Signal(15, false));
    assert_eq!(bench.state("shop.web.1"), State::Stopped);
    assert_eq!(bench.spawned.len(), 1);
}

#[test]
fn a_pause_that_crosses_the_end_freezes_the_successor_and_a_restart_replaces_it() {
    let mut bench = Bench::new();
    bench.put("shop.web", at_once());
    let (run, next) = (bench.run("shop.web.1"), order(&bench).expect("an order"));
    bench.wish("shop.web", WishState::Paused);
    ends_followed(&mut bench, run, next);
    bench.started(next.run);
    assert_eq!(bench.state("shop.web.1"), State::Paused);

    let mut bench = Bench::new();
    bench.put("shop.web", at_once());
    let (run, next) = (bench.run("shop.web.1"), order(&bench).expect("an order"));
    bench.restart("shop.web");
    ends_followed(&mut bench, run, next);
    bench.started(next.run);
    assert_eq!(
        bench.state("shop.web.1"),
        State::Stopping,
        "it was born under the old number"
    );
    bench.exits("shop.web.1", Status::Signal(15, false));
    assert_eq!(bench.spawned.len(), 2);
    assert_eq!(bench.state("shop.web.1"), State::Running);
}

#[test]
fn a_removed_job_is_forgotten_only_when_the_successor_is_gone() {
    let mut bench = Bench::new();
    bench.put("shop.web", at_once());
    let (run, next) = (bench.run("shop.web.1"), order(&bench).expect("an order"));
    let job = crate::bench::id("shop.web");
    bench.feed(Input::JobRemoved {
        job: job.clone(),
        by: "ana".into(),
    });
    ends_followed(&mut bench, run, next);
    let forgotten = |bench: &Bench| {
        bench
            .commands
            .iter()
            .any(|command| matches!(command, Command::Forget { .. }))
    };
    assert!(!forgotten(&bench));
    bench.started(next.run);
    bench.exits("shop.web.1", Status::Signal(15, false));
    assert!(forgotten(&bench));
}

#[test]
fn news_of_a_successor_that_come_twice_change_nothing() {
    let mut bench = Bench::new();
    bench.put("shop.web", at_once());
    let (run, next) = (bench.run("shop.web.1"), order(&bench).expect("an order"));
    ends_followed(&mut bench, run, next);
    bench.started(next.run);
    let before = bench.commands.len();
    ends_followed(&mut bench, run, next);
    assert_eq!(bench.commands.len(), before);
    assert_eq!(bench.state("shop.web.1"), State::Running);
}
