//! Rows of hazards.md A3 and A5 that concern the core, each by its number.

use crate::bench::{Bench, id, ms, s, spec, tcp};
use gaffer_core::NodeLimits;
use gaffer_core::io::{Input, ProbeRole, State, Status, WishState};
use gaffer_core::job::{AfterChange, Condition};
use gaffer_core::time::Wall;
use std::collections::BTreeSet;
use std::sync::Arc;

#[test]
fn hazard_22_a_stop_counts_while_backing_off_or_waiting() {
    let mut bench = Bench::new();
    bench.put("shop.web", spec()).exits("shop.web.1", Status::Code(1));
    assert_eq!(bench.state("shop.web.1"), State::Backoff);
    bench.stop("shop.web").pass(s(999));
    assert_eq!(
        (bench.state("shop.web.1"), bench.spawns("shop.web")),
        (State::Stopped, 1)
    );

    let mut late = spec();
    late.after.insert(id("shop.none"), Condition::Ready);
    bench.put("shop.late", late);
    assert_eq!(bench.state("shop.late.1"), State::Waiting);
    bench.stop("shop.late").put("shop.none", spec()).pass(s(999));
    assert_eq!(
        (bench.state("shop.late.1"), bench.spawns("shop.late")),
        (State::Stopped, 0)
    );
}

#[test]
fn hazard_23_two_hundred_jobs_that_lose_one_dependency_come_back_spread() {
    let mut bench = Bench::new();
    bench.put("shop.db", spec());
    for n in 0..200 {
        let mut job = spec();
        job.retry.jitter = 0.2;
        job.retry.delay = vec![s(1)];
        bench.put(&format!("shop.w{n}x"), job);
    }
    for n in 0..200 {
        bench.exits(&format!("shop.w{n}x.1"), Status::Code(1));
    }
    let before = bench.spawned.len();
    let next: BTreeSet<_> = (0..200)
        .map(|n| bench.instance(&format!("shop.w{n}x.1")).next_try)
        .collect();
    assert!(next.len() > 120, "{} different moments", next.len());
    bench.pass(ms(799));
    assert_eq!(bench.spawned.len(), before, "none before 0.8 s");
    bench.pass(ms(201));
    let half = bench.spawned.len() - before;
    assert!((60..140).contains(&half), "{half} of 200 after 1 s");
    bench.pass(ms(201));
    assert_eq!(bench.spawned.len() - before, 200, "all after 1.2 s");
}

#[test]
fn hazard_23_starts_that_have_to_become_ready_are_bounded() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.instances = 200;
    job.ready = Some(tcp());
    bench.put("shop.web", job);
    assert_eq!(bench.spawned.len(), 64);
    assert_eq!(
        bench.reason("shop.web.100"),
        "waiting for its turn: 64 starts in progress"
    );
    bench.probed("shop.web.1", ProbeRole::Ready, Ok("tcp"));
    assert_eq!(bench.spawned.len(), 65);
    let mut plain = spec();
    plain.instances = 1_000;
    bench.put("shop.many", plain);
    assert_eq!(
        bench.spawns("shop.many"),
        1_000,
        "nothing to wait for, nothing to bound"
    );
}

#[test]
fn hazard_24_after_an_outage_it_runs_again_and_forgets() {
    let mut bench = Bench::new();
    bench.put("shop.web", spec());
    for _ in 0..40 {
        bench.exits("shop.web.1", Status::Code(1)).pass(s(31));
        assert_eq!(bench.state("shop.web.1"), State::Running);
    }
    bench.pass(s(60)).exits("shop.web.1", Status::Code(1));
    assert!(
        bench.reason("shop.web.1").contains("failure 1 in a row"),
        "{}",
        bench.reason("shop.web.1")
    );
}

#[test]
fn hazard_26_readiness_belongs_to_a_run() {
    let mut bench = Bench::new();
    let mut db = spec();
    db.ready = Some(tcp());
    let mut web = spec();
    web.after.insert(id("shop.db"), Condition::Ready);
    web.start = false;
    bench.put("shop.db", db).put("shop.web", web);
    let first = bench.run("shop.db.1");
    bench
        .probed("shop.db.1", ProbeRole::Ready, Ok("tcp"))
        .exits("shop.db.1", Status::Code(1))
        .pass(ms(100));
    assert_eq!(bench.state("shop.db.1"), State::Starting);
    bench.feed(Input::Probed {
        run: first,
        role: ProbeRole::Ready,
        result: Ok(Arc::from("READY=1")),
    });
    assert_eq!(
        bench.state("shop.db.1"),
        State::Starting,
        "the old run's word counts for nothing"
    );
    bench.start("shop.web");
    assert_eq!(
        bench.state("shop.web.1"),
        State::Waiting,
        "and dependents wait for the new run"
    );
}

#[test]
fn hazard_42_the_wall_clock_may_jump_a_year_either_way_in_every_state() {
    let year = 365 * 86_400_000;
    for jump in [year, -year] {
        let mut job = spec();
        job.ready = Some(tcp());
        let mut bench = Bench::new();
        bench.put("shop.web", job);
        let calm = |bench: &mut Bench, expected: State| {
            let before = bench.commands.len();
            bench.now.wall = Wall(bench.now.wall.0 + jump);
            bench.feed(Input::Tick);
            assert_eq!(bench.state("shop.web.1"), expected);
            assert_eq!(
                bench.commands.len(),
                before,
                "{expected:?}: nothing is done because of it"
            );
        };
        calm(&mut bench, State::Starting);
        bench.probed("shop.web.1", ProbeRole::Ready, Ok("tcp"));
        calm(&mut bench, State::Running);
        bench.wish("shop.web", WishState::Paused);
        calm(&mut bench, State::Paused);
        bench.start("shop.web").exits("shop.web.1", Status::Code(1));
        calm(&mut bench, State::Backoff);
        bench.pass(ms(99));
        assert_eq!(bench.state("shop.web.1"), State::Backoff);
        bench.pass(ms(1));
        assert_eq!(bench.state("shop.web.1"), State::Starting, "on time");
        bench.stop("shop.web");
        calm(&mut bench, State::Stopping);
        bench.pass(s(30));
        calm(&mut bench, State::Stopping);
        bench.pass(s(10));
        calm(&mut bench, State::StopStuck);
    }
}

#[test]
fn hazard_43_after_a_suspend_a_heartbeat_is_given_one_more_interval() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.health = Some(gaffer_core::job::Probe {
        kind: gaffer_core::job::ProbeKind::Heartbeat(s(5)),
        ..tcp()
    });
    bench.put("shop.web", job);
    // Nobody ran for ten minutes, neither the program nor we.
    bench.now.mono = bench.now.mono.plus(s(600));
    bench.feed(Input::Tick);
    assert_eq!(bench.state("shop.web.1"), State::Running);
    bench.pass(s(5));
    assert_eq!(bench.state("shop.web.1"), State::Stopping);
}

#[test]
fn hazard_43_after_a_suspend_a_start_is_given_its_time_again() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.ready = Some(tcp());
    bench.put("shop.web", job);
    let within = spec().ready_within;
    bench.now.mono = bench.now.mono.plus(s(600)).plus(within);
    bench.feed(Input::Tick);
    assert_eq!(bench.state("shop.web.1"), State::Starting);
    bench.pass(within);
    assert_eq!(bench.state("shop.web.1"), State::Stopping);
}

#[test]
fn hazard_42_the_wall_clock_may_jump_while_waiting_flapping_failed_ended_or_stopped() {
    let year = 365 * 86_400_000;
    for jump in [year, -year] {
        let mut bench = Bench::new();
        let mut late = spec();
        late.after.insert(id("shop.none"), Condition::Ready);
        let mut flapping = spec();
        flapping.retry.delay = vec![s(0)];
        flapping.flapping = Some(gaffer_core::job::Flapping {
            exits: 1,
            window: s(30),
            pause: s(7),
            rounds: Some(1),
            whole_job: false,
        });
        let mut once = spec();
        once.restart = gaffer_core::job::Restart::Never;
        bench
            .put("shop.waiting", late)
            .put("shop.flapping", flapping.clone());
        bench.put("shop.ended", once.clone()).put("shop.failed", once);
        bench.put("shop.stopped", spec()).stop("shop.stopped");
        bench
            .exits("shop.stopped.1", Status::Code(0))
            .exits("shop.flapping.1", Status::Code(1))
            .exits("shop.ended.1", Status::Code(0))
            .exits("shop.failed.1", Status::Code(1));
        let states = |bench: &Bench| {
            ["waiting", "flapping", "ended", "failed", "stopped"]
                .map(|job| bench.state(&format!("shop.{job}.1")))
        };
        let before = states(&bench);
        assert_eq!(
            before,
            [
                State::Waiting,
                State::Flapping,
                State::Exited,
                State::Failed,
                State::Stopped
            ]
        );
        let commands = bench.commands.len();
        bench.now.wall = Wall(bench.now.wall.0 + jump);
        bench.feed(Input::Tick);
        assert_eq!(
            (states(&bench), bench.commands.len()),
            (before, commands),
            "nothing is done because of it"
        );
        bench.pass(ms(6_900));
        assert_eq!(bench.state("shop.flapping.1"), State::Flapping);
        bench.pass(ms(200));
        assert_eq!(bench.state("shop.flapping.1"), State::Running, "on time");
    }
}

#[test]
fn what_stops_with_its_dependency_comes_back_with_it() {
    let mut bench = Bench::new();
    let mut web = spec();
    web.after.insert(id("shop.db"), Condition::Started);
    web.after_change = AfterChange::Stop;
    bench
        .put("shop.db", spec())
        .put("shop.web", web)
        .stop("shop.db")
        .exits("shop.db.1", Status::Code(0));
    assert_eq!(bench.state("shop.web.1"), State::Stopping);
    bench.exits("shop.web.1", Status::Code(0)).pass(s(99));
    assert_eq!(bench.state("shop.web.1"), State::Waiting);
    assert_eq!(bench.reason("shop.web.1"), "waiting for db: stopped");
    bench.start("shop.db");
    assert_eq!(bench.state("shop.web.1"), State::Running);
}

#[test]
fn what_restarts_with_its_dependency_restarts_when_that_is_back() {
    let mut bench = Bench::new();
    let mut web = spec();
    web.after.insert(id("shop.db"), Condition::Started);
    web.after_change = AfterChange::Restart;
    bench
        .put("shop.db", spec())
        .put("shop.web", web)
        .exits("shop.db.1", Status::Code(1));
    assert_eq!(bench.state("shop.web.1"), State::Running);
    bench.pass(ms(100));
    assert_eq!(
        (bench.state("shop.db.1"), bench.state("shop.web.1")),
        (State::Running, State::Stopping)
    );
    bench.exits("shop.web.1", Status::Code(0)).pass(s(99));
    assert_eq!(
        (bench.state("shop.web.1"), bench.spawns("shop.web")),
        (State::Running, 2)
    );
}

#[test]
fn five_thousand_idle_instances_set_no_deadline() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.instances = 5_000;
    bench.put("shop.web", job);
    assert_eq!(bench.spawned.len(), 5_000);
    assert_eq!(bench.node.next_deadline(), None);
}

#[test]
fn hazard_23_jobs_start_apart_by_start_spacing_and_a_job_that_crashes_keeps_no_other_out() {
    let mut bench = Bench::new();
    let spaced = |spacing| {
        Input::Limits(NodeLimits {
            start_spacing: spacing,
            ..NodeLimits::default()
        })
    };
    bench.feed(spaced(s(2)));
    let mut two = spec();
    two.instances = 2;
    for job in ["shop.a", "shop.b", "shop.c"] {
        bench.put(job, two.clone());
    }
    let counts = |bench: &Bench| ["shop.a", "shop.b", "shop.c"].map(|job| bench.spawns(job));
    assert_eq!(counts(&bench), [2, 0, 0], "instances of one job need no pause");
    assert_eq!(
        bench.reason("shop.b.1"),
        "waiting for its turn: 2s between starts of jobs"
    );
    // A crash loop of the first job does not push the others back.
    bench.exits("shop.a.1", Status::Code(1)).pass(s(1));
    assert_eq!(counts(&bench), [3, 0, 0]);
    bench.pass(s(1));
    assert_eq!(counts(&bench), [3, 2, 0]);
    bench.pass(ms(1_999));
    assert_eq!(counts(&bench), [3, 2, 0]);
    bench.pass(ms(1));
    assert_eq!(counts(&bench), [3, 2, 2]);
    // Less from now on, and at once: the pause that is under way ends with it.
    bench.put("shop.d", two.clone());
    assert_eq!(bench.spawns("shop.d"), 0);
    bench.feed(spaced(s(0)));
    assert_eq!(bench.spawns("shop.d"), 2);
    assert!(bench.node.next_deadline().is_none_or(|at| at > bench.now.mono));
}

#[test]
fn the_number_of_starts_at_once_may_change_while_they_wait() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.instances = 9;
    job.ready = Some(tcp());
    let limits = |most| {
        Input::Limits(NodeLimits {
            start_at_once: most,
            ..NodeLimits::default()
        })
    };
    bench.feed(limits(2)).put("shop.web", job);
    assert_eq!(bench.spawned.len(), 2);
    bench.feed(limits(5));
    assert_eq!(bench.spawned.len(), 5);
}
