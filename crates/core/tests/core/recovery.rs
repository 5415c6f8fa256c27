//! A new daemon: everything is derived again from the store's wishes and what the journals know.

use crate::bench::{Bench, id, ms, s, spec};
use gaffer_core::io::*;
use gaffer_core::job::{Batch, Launch, ReloadHow};
use gaffer_core::name::{RunId, Slot};
use gaffer_core::time::{Duration, Wall};
use std::sync::Arc;

fn run(n: u32) -> RunId {
    RunId { epoch: 1, n }
}

fn slot(text: &str) -> Slot {
    Slot::parse(text).expect("a slot")
}

impl Bench {
    fn found(&mut self, text: &str, n: u32, stamp: (u64, u64), found: Found, past: Vec<Death>) -> &mut Bench {
        let stamp = Stamp {
            restart: stamp.0,
            launch: stamp.1,
        };
        self.feed(Input::SlotFound {
            slot: slot(text),
            run: run(n),
            stamp,
            found,
            past,
        })
    }

    fn alive(&self, lived: Duration) -> Found {
        let started = Wall(self.now.wall.0 - lived.as_millis() as i64);
        Found::Alive {
            pid: 42,
            started,
            lived,
            paused: false,
            ended: None,
        }
    }

    fn death(&self, n: u32, ago: Duration, cause: Cause, status: Status) -> Death {
        let at = Wall(self.now.wall.0 - ago.as_millis() as i64);
        let end = End {
            status,
            oom: false,
            at,
            lived: ms(500),
        };
        Death {
            run: run(n),
            end: Some(end),
            cause,
            at,
        }
    }
}

const DIGEST: u64 = 7;

fn known(wish: WishState, job: gaffer_core::job::Job) -> Bench {
    let mut bench = Bench::unrecovered(2);
    bench.put_with("shop.web", job, DIGEST, wish);
    bench
}

#[test]
fn nothing_is_done_before_it_is_known_what_still_runs() {
    let mut bench = known(WishState::Running, spec());
    bench.pass(s(9)).feed(Input::Tick);
    assert!(bench.commands.is_empty());
    let alive = bench.alive(s(200_000));
    bench
        .found("shop.web.1", 1, (1, DIGEST), alive, vec![])
        .feed(Input::Recovered);
    assert!(bench.commands.is_empty(), "{:?}", bench.commands);
    assert_eq!(
        bench.told(),
        ["run.adopted shop.web.1  adopted by a new daemon: running for 2d 7h"]
    );
    assert_eq!(bench.state("shop.web.1"), State::Running);
}

#[test]
fn a_stop_that_was_asked_of_the_old_daemon_is_carried_out_by_the_new_one() {
    let mut bench = known(WishState::Stopped, spec());
    let alive = bench.alive(s(9));
    bench
        .found("shop.web.1", 1, (0, DIGEST), alive, vec![])
        .feed(Input::Recovered);
    assert!(matches!(bench.commands[0], Command::Signal { signal: 15, .. }));
}

#[test]
fn an_exit_while_no_daemon_ran_is_settled_and_followed_by_the_next_run() {
    let mut bench = known(WishState::Running, spec());
    let alive = bench.alive(s(9));
    bench.found("shop.web.1", 1, (1, DIGEST), alive, vec![]);
    let end = Bench::end(Status::Code(1), bench.now, s(3));
    bench
        .feed(Input::Exited {
            run: run(1),
            end,
            survivors: 0,
            successor: None,
        })
        .feed(Input::Recovered)
        .pass(ms(100));
    assert_eq!(bench.settled[0].1.cause, Cause::Exit);
    let Some(Command::Spawn { after, run, .. }) =
        bench.commands.iter().find(|c| matches!(c, Command::Spawn { .. }))
    else {
        panic!("no spawn")
    };
    assert_eq!((*after, run.epoch), (Some(self::run(1)), 2));
}

#[test]
fn the_backoff_goes_on_where_it_was() {
    let mut bench = known(WishState::Running, spec());
    let past = (1..=5)
        .map(|n| bench.death(n, s(60), Cause::Exit, Status::Code(1)))
        .collect();
    let death = bench.death(6, s(1), Cause::Exit, Status::Code(1));
    bench
        .found("shop.web.1", 6, (1, DIGEST), Found::Dead(death), past)
        .feed(Input::Recovered);
    assert_eq!(bench.state("shop.web.1"), State::Backoff);
    // The sixth failure waits 3.2 s, one of which has passed.
    bench.pass(ms(2_199));
    assert!(bench.spawned.is_empty());
    bench.pass(ms(1));
    assert_eq!(bench.spawned.len(), 1);
}

#[test]
fn a_job_that_had_given_up_stays_so_until_it_is_started_by_hand() {
    let mut job = spec();
    job.retry.attempts = Some(3);
    let mut bench = known(WishState::Running, job);
    let past = (1..=2)
        .map(|n| bench.death(n, s(60), Cause::Exit, Status::Code(1)))
        .collect();
    let death = bench.death(3, s(1), Cause::Exit, Status::Code(1));
    bench
        .found("shop.web.1", 3, (1, DIGEST), Found::Dead(death), past)
        .feed(Input::Recovered)
        .pass(s(999));
    assert_eq!(
        (bench.state("shop.web.1"), bench.spawned.len()),
        (State::Failed, 0)
    );
    bench.start("shop.web");
    assert_eq!(bench.spawned.len(), 1);
}

#[test]
fn a_start_by_hand_that_the_old_daemon_took_and_did_not_carry_out_is_carried_out() {
    let mut job = spec();
    job.restart = gaffer_core::job::Restart::Never;
    let mut bench = Bench::unrecovered(2);
    bench.seq = 8;
    bench.put_with("shop.web", job, DIGEST, WishState::Running);
    let death = bench.death(1, s(1), Cause::Exit, Status::Code(0));
    bench
        .found("shop.web.1", 1, (8, DIGEST), Found::Dead(death), vec![])
        .feed(Input::Recovered);
    assert_eq!(bench.spawned.len(), 1);
}

#[test]
fn hazard_27_an_interrupted_roll_out_goes_on_with_those_that_are_left() {
    let mut job = spec();
    job.instances = 3;
    job.reload.how = ReloadHow::Rolling;
    job.reload.batch = Batch::Count(1);
    let mut bench = known(WishState::Running, job);
    for (n, digest) in [(1, DIGEST), (2, 3), (3, 3)] {
        let alive = bench.alive(s(9));
        bench.found(&format!("shop.web.{n}"), n, (1, digest), alive, vec![]);
    }
    bench.feed(Input::Recovered);
    assert_eq!(bench.state("shop.web.2"), State::Stopping);
    assert_eq!(bench.state("shop.web.3"), State::Running);
    bench
        .exits("shop.web.2", Status::Code(0))
        .exits("shop.web.3", Status::Code(0));
    assert_eq!(
        bench
            .spawned
            .iter()
            .map(|(_, slot, _)| slot.to_string())
            .collect::<Vec<_>>(),
        ["shop.web.2", "shop.web.3"]
    );
}

#[test]
fn a_slot_whose_job_nobody_knows_is_ended_and_forgotten() {
    let mut bench = Bench::unrecovered(2);
    let alive = bench.alive(s(9));
    bench
        .found("shop.old.1", 1, (1, 1), alive, vec![])
        .feed(Input::Recovered);
    assert!(
        bench
            .commands
            .iter()
            .any(|command| matches!(command, Command::Signal { .. }))
    );
    bench.exits("shop.old.1", Status::Code(0));
    assert!(
        bench
            .commands
            .iter()
            .any(|command| matches!(command, Command::Forget { slot: None, .. }))
    );
    assert_eq!(bench.node.jobs().count(), 0);
}

#[test]
fn hazard_18_a_silent_shim_holds_back_its_own_slots_only() {
    let mut job = spec();
    job.instances = 2;
    let mut bench = known(WishState::Running, job);
    bench
        .found("shop.web.1", 1, (1, DIGEST), Found::Unreachable, vec![])
        .feed(Input::Recovered)
        .pass(s(999));
    assert_eq!(
        (bench.state("shop.web.1"), bench.state("shop.web.2")),
        (State::Unreachable, State::Running)
    );
    assert_eq!(bench.spawned.len(), 1);
    bench
        .restart("shop.web")
        .stop("shop.web")
        .start("shop.web")
        .pass(s(999));
    assert_eq!(bench.state("shop.web.1"), State::Unreachable);
    let alive = bench.alive(s(9));
    bench.found("shop.web.1", 1, (1, DIGEST), alive, vec![]);
    assert_eq!(
        bench.state("shop.web.1"),
        State::Stopping,
        "the restart is carried out as soon as it answers"
    );
}

#[test]
fn a_one_off_is_not_run_a_second_time_by_a_new_daemon() {
    let mut bench = known(WishState::Stopped, spec());
    for n in 1..=2 {
        let launch = Arc::new(Launch::of(vec!["once".into()]));
        bench.feed(Input::OneOffPut {
            job: id("shop.web"),
            n,
            launch,
            grace: None,
            by: "ana".into(),
        });
    }
    let death = bench.death(1, s(1), Cause::Exit, Status::Code(0));
    bench
        .found("shop.web/1", 1, (0, DIGEST), Found::Dead(death), vec![])
        .feed(Input::Recovered);
    let started: Vec<String> = bench
        .spawned
        .iter()
        .map(|(_, slot, _)| slot.to_string())
        .collect();
    assert_eq!(started, ["shop.web/2"], "only the one that had not begun");
}

#[test]
fn facts_and_wishes_that_come_twice_do_nothing_twice() {
    let mut bench = Bench::new();
    bench.put("shop.web", spec());
    let first = bench.run("shop.web.1");
    let end = Bench::end(Status::Code(1), bench.now, s(1));
    for _ in 0..3 {
        bench.started(first);
    }
    for _ in 0..3 {
        bench.feed(Input::Exited {
            run: first,
            end: end.clone(),
            survivors: 0,
            successor: None,
        });
        bench.feed(Input::TreeGone { run: first });
    }
    bench
        .pass(s(1))
        .feed(Input::Exited {
            run: first,
            end,
            survivors: 0,
            successor: None,
        })
        .feed(Input::Started { run: first, pid: 9 });
    assert_eq!((bench.settled.len(), bench.spawned.len()), (1, 2));
    assert_eq!(bench.state("shop.web.1"), State::Running);
}

#[test]
fn an_end_that_the_old_daemon_had_asked_for_is_no_failure() {
    let mut job = spec();
    job.retry.attempts = Some(1);
    let mut bench = Bench::unrecovered(2);
    bench.put_with("shop.web", job, DIGEST, WishState::Running);
    let wish = Wish {
        state: WishState::Running,
        seq: 5,
        restart: 5,
    };
    bench.feed(Input::Wished {
        job: id("shop.web"),
        instance: Some(1),
        wish,
        how: How::default(),
        by: "ana".into(),
    });
    let alive = bench.alive(s(9));
    bench.found("shop.web.1", 1, (1, DIGEST), alive, vec![]);
    let end = Bench::end(Status::Signal(15, false), bench.now, s(3));
    bench
        .feed(Input::Exited {
            run: run(1),
            end,
            survivors: 0,
            successor: None,
        })
        .feed(Input::Recovered);
    assert_eq!(bench.settled[0].1.cause, Cause::Replaced);
    assert_eq!(bench.settled[0].2.text.as_ref(), "replaced by restart of ana");
    assert_eq!(bench.state("shop.web.1"), State::Running, "and not `gave up`");
}

#[test]
fn a_run_found_before_its_birth_is_neither_running_nor_started_again() {
    let mut bench = known(WishState::Running, spec());
    let unborn = Found::Alive {
        pid: 0,
        started: Wall(0),
        lived: s(0),
        paused: false,
        ended: None,
    };
    bench
        .found("shop.web.1", 1, (1, DIGEST), unborn, vec![])
        .feed(Input::Recovered)
        .pass(s(1));
    assert_eq!(
        (bench.state("shop.web.1"), bench.spawned.len()),
        (State::Starting, 0)
    );
    bench.start_fails("shop.web.1").pass(ms(100));
    assert_eq!(bench.spawned.len(), 1);
    assert_eq!(bench.settled[0].1.cause, Cause::ExecFailed);
}

#[test]
fn an_old_death_without_a_stamp_starts_nothing_again() {
    let mut job = spec();
    job.restart = gaffer_core::job::Restart::Never;
    let mut bench = known(WishState::Running, job);
    let death = bench.death(1, s(99), Cause::Exit, Status::Code(0));
    let stamp = Stamp::default();
    bench.feed(Input::SlotFound {
        slot: slot("shop.web.1"),
        run: run(1),
        stamp,
        found: Found::Dead(death),
        past: vec![],
    });
    bench.feed(Input::Recovered).pass(s(99));
    assert_eq!(
        (bench.state("shop.web.1"), bench.spawned.len()),
        (State::Exited, 0)
    );
}
