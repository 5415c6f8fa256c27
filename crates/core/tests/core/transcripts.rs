//! Transcripts: one behaviour each, as an operator would read it. Seconds since the beginning; `spawn`, `signal`
//! and so on are what is asked of the shim, everything else is an event.

use crate::bench::{Bench, id, ms, s, spec, tcp};
use gaffer_core::io::{ProbeRole, State, Status};
use gaffer_core::job::{Condition, Flapping, ProbeKind, Restart};

#[test]
fn a_job_starts_and_stops() {
    let mut bench = Bench::new();
    bench
        .put("shop.web", spec())
        .pass(s(60))
        .stop("shop.web")
        .pass(ms(800));
    bench.exits("shop.web.1", Status::Signal(15, false));
    bench.compare(
        "0.000 job.added shop.web
         0.000   spawn shop.web.1 attempt 1
         0.000 run.started shop.web.1
        60.000 job.stopped shop.web
        60.000 run.signalled shop.web.1
        60.000   signal 15 to Main of shop.web.1
        60.800 run.exited shop.web.1  stopped by ana at 14:03; ended on TERM in 0.8s",
    );
    assert_eq!(bench.state("shop.web.1"), State::Stopped);
    assert_eq!(
        bench.reason("shop.web.1"),
        "stopped by ana at 14:03; ended on TERM in 0.8s"
    );
}

#[test]
fn a_crash_is_followed_by_a_pause_that_doubles() {
    let mut bench = Bench::new();
    bench
        .put("shop.web", spec())
        .pass(ms(1_100))
        .exits("shop.web.1", Status::Code(1));
    assert_eq!(
        bench.reason("shop.web.1"),
        "backing off: exit 1, failure 1 in a row; next try 14:02:01"
    );
    bench
        .pass(ms(1_100))
        .exits("shop.web.1", Status::Signal(11, true))
        .pass(ms(200));
    bench.compare(
        "0.000 job.added shop.web
         0.000   spawn shop.web.1 attempt 1
         0.000 run.started shop.web.1
         1.100 run.exited shop.web.1  exit 1 after 1.1s; attempt 2 in 0.1s
         1.200   spawn shop.web.1 attempt 2
         1.200 run.started shop.web.1
         2.200 run.exited shop.web.1  ended by SIGSEGV after 1s, core dumped; attempt 3 in 0.2s
         2.400   spawn shop.web.1 attempt 3
         2.400 run.started shop.web.1",
    );
    assert_eq!(bench.instance("shop.web.1").restarts, 2);
}

#[test]
fn a_program_that_cannot_run_is_no_exit_and_no_busy_loop() {
    let mut bench = Bench::new();
    bench.obliging = false;
    let mut job = spec();
    job.retry.delay = vec![ms(0)];
    bench.put("shop.web", job).start_fails("shop.web.1").pass(ms(99));
    assert_eq!(bench.state("shop.web.1"), State::Backoff);
    bench.pass(ms(1));
    bench.compare(
        "0.000 job.added shop.web
         0.000   spawn shop.web.1 attempt 1
         0.000 run.exited shop.web.1  cannot run bin/web: no such file (exec, ENOENT); attempt 2 in 0.1s
         0.100   spawn shop.web.1 attempt 2",
    );
}

#[test]
fn a_stop_that_is_not_obeyed_ends_with_kill() {
    let mut bench = Bench::new();
    bench.put("shop.web", spec()).stop("shop.web").pass(s(30));
    bench
        .exits_with("shop.web.1", Status::Signal(9, false), 2)
        .pass(s(10));
    assert_eq!(bench.state("shop.web.1"), State::StopStuck);
    let run = bench.run("shop.web.1");
    bench.feed(gaffer_core::io::Input::TreeGone { run });
    assert_eq!(bench.state("shop.web.1"), State::Stopped);
    bench.compare(
        "0.000 job.added shop.web
         0.000   spawn shop.web.1 attempt 1
         0.000 run.started shop.web.1
         0.000 job.stopped shop.web
         0.000 run.signalled shop.web.1
         0.000   signal 15 to Main of shop.web.1
        30.000 run.signalled shop.web.1  killed: still alive 30s after TERM
        30.000   kill the tree of shop.web.1
        30.000 run.exited shop.web.1  killed: still alive 30s after TERM
        40.000   kill the tree of shop.web.1",
    );
}

#[test]
fn an_end_by_a_kill_from_elsewhere_is_not_told_as_obedience_and_the_stop_is_told_once() {
    let mut bench = Bench::new();
    bench.put("shop.web", spec()).stop("shop.web").pass(s(4)).told();
    bench
        .exits_with("shop.web.1", Status::Signal(9, false), 1)
        .pass(s(1));
    assert_eq!(
        bench.told(),
        [
            "run.exited shop.web.1  stopped by ana at 14:02; ended by SIGKILL 4s after TERM",
            "  signal 15 to All of shop.web.1",
        ]
    );
    let run = bench.run("shop.web.1");
    bench.feed(gaffer_core::io::Input::TreeGone { run });
    assert_eq!(
        bench.reason("shop.web.1"),
        "stopped by ana at 14:02; ended by SIGKILL 4s after TERM"
    );
}

#[test]
fn who_waits_is_told_no_address_that_only_a_run_can_fill_in() {
    for (kind, expected) in [
        (
            ProbeKind::Http("http://127.0.0.1:$PORT/up".into()),
            "waiting for db: starting for 0s, http /up has not answered yet",
        ),
        (
            ProbeKind::Tcp("127.0.0.1:$PORT".into()),
            "waiting for db: starting for 0s, nothing accepts yet at its port",
        ),
        (
            ProbeKind::Tcp("127.0.0.1:6379".into()),
            "waiting for db: starting for 0s, nothing accepts yet at 127.0.0.1:6379",
        ),
    ] {
        let mut db = spec();
        db.ready = Some(gaffer_core::job::Probe { kind, ..tcp() });
        let mut web = spec();
        web.after.insert(id("shop.db"), Condition::Ready);
        let mut bench = Bench::new();
        bench.put("shop.db", db).put("shop.web", web);
        assert_eq!(bench.reason("shop.web.1"), expected);
    }
}

#[test]
fn a_program_is_running_when_its_probe_says_so() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.ready = Some(tcp());
    bench
        .put("shop.db", job)
        .probed("shop.db.1", ProbeRole::Ready, Err("tcp 127.0.0.1:6379 refused"));
    assert_eq!(bench.state("shop.db.1"), State::Starting);
    assert_eq!(
        bench.reason("shop.db.1"),
        "not ready yet: tcp 127.0.0.1:6379 refused"
    );
    bench
        .pass(ms(500))
        .probed("shop.db.1", ProbeRole::Ready, Ok("tcp 127.0.0.1:6379"));
    assert_eq!(bench.state("shop.db.1"), State::Running);
    bench.pass(s(100));
    bench.compare(
        "0.000 job.added shop.db
         0.000   spawn shop.db.1 attempt 1
         0.000 run.started shop.db.1
         0.000   probe Ready
         0.500   probe Ready
         0.500 run.ready shop.db.1",
    );
}

#[test]
fn a_program_that_is_never_ready_is_ended_and_tried_again() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.ready = Some(tcp());
    bench.put("shop.db", job);
    for _ in 0..119 {
        bench
            .probed("shop.db.1", ProbeRole::Ready, Err("http /up answered 503"))
            .pass(ms(500));
    }
    bench.told();
    bench
        .probed("shop.db.1", ProbeRole::Ready, Err("http /up answered 503"))
        .pass(ms(500));
    bench.exits("shop.db.1", Status::Signal(15, false));
    assert_eq!(
        bench.told(),
        [
            "run.signalled shop.db.1",
            "  end of probing",
            "  signal 15 to Main of shop.db.1",
            "run.exited shop.db.1  not ready within 60s: http /up answered 503; attempt 2 in 0.1s",
        ]
    );
}

#[test]
fn a_failing_health_check_restarts_after_three_bad_answers() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.health = Some(gaffer_core::job::Probe {
        every: s(10),
        failures: 3,
        ..tcp()
    });
    bench.put("shop.web", job).pass(s(10)).told();
    for _ in 0..3 {
        bench
            .probed("shop.web.1", ProbeRole::Health, Err("no answer in 5s"))
            .pass(s(10));
    }
    bench.exits("shop.web.1", Status::Code(0));
    assert_eq!(
        bench.told(),
        [
            "  probe Health",
            "  probe Health",
            "run.signalled shop.web.1",
            "  end of probing",
            "  signal 15 to Main of shop.web.1",
            "run.exited shop.web.1  health check failed 3 times: no answer in 5s; attempt 2 in 0.1s",
        ]
    );
}

#[test]
fn a_silent_heartbeat_is_unhealthy_and_beats_keep_it_running() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.health = Some(gaffer_core::job::Probe {
        kind: ProbeKind::Heartbeat(s(5)),
        ..tcp()
    });
    bench.put("shop.web", job);
    for _ in 0..10 {
        bench
            .pass(s(4))
            .probed("shop.web.1", ProbeRole::Health, Ok("WATCHDOG=1"));
    }
    assert_eq!(bench.state("shop.web.1"), State::Running);
    bench.pass(s(5));
    assert_eq!(bench.state("shop.web.1"), State::Stopping);
    assert!(
        bench
            .reason("shop.web.1")
            .starts_with("health check failed once: no heartbeat for 5s")
    );
}

#[test]
fn one_waits_for_another_to_be_ready() {
    let mut bench = Bench::new();
    let mut web = spec();
    web.after.insert(crate::bench::id("shop.db"), Condition::Ready);
    let mut db = spec();
    db.ready = Some(tcp());
    bench.put("shop.web", web);
    assert_eq!(bench.reason("shop.web.1"), "waiting for db: there is no such job");
    bench.put("shop.db", db).pass(ms(400));
    bench.probed("shop.db.1", ProbeRole::Ready, Err("tcp 127.0.0.1:6379 refused"));
    assert_eq!(bench.state("shop.web.1"), State::Waiting);
    assert_eq!(
        bench.reason("shop.web.1"),
        "waiting for db: starting for 0.4s, tcp 127.0.0.1:6379 refused"
    );
    bench
        .pass(ms(600))
        .probed("shop.db.1", ProbeRole::Ready, Ok("tcp"));
    assert_eq!(bench.state("shop.web.1"), State::Running);
}

#[test]
fn a_crash_loop_pauses_and_gives_up_after_its_rounds() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.retry.delay = vec![ms(0)];
    job.flapping = Some(Flapping {
        exits: 2,
        window: s(30),
        pause: s(7),
        rounds: Some(1),
        whole_job: false,
    });
    bench
        .put("shop.web", job)
        .exits("shop.web.1", Status::Code(3))
        .exits("shop.web.1", Status::Code(3));
    assert_eq!(bench.state("shop.web.1"), State::Flapping);
    assert_eq!(
        bench.reason("shop.web.1"),
        "2 exits in 30s; pause of 7s, round 1 of 1"
    );
    bench
        .pass(s(7))
        .exits("shop.web.1", Status::Code(3))
        .exits("shop.web.1", Status::Code(3));
    assert_eq!(bench.state("shop.web.1"), State::Failed);
    assert!(
        bench.reason("shop.web.1").starts_with("gave up: "),
        "{}",
        bench.reason("shop.web.1")
    );
    bench.start("shop.web");
    assert_eq!(
        bench.state("shop.web.1"),
        State::Running,
        "a start by hand begins afresh"
    );
}

#[test]
fn giving_up_says_how_to_go_on() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.retry.attempts = Some(2);
    job.retry.delay = vec![ms(0)];
    bench
        .put("shop.web", job)
        .exits("shop.web.1", Status::Code(1))
        .exits("shop.web.1", Status::Code(1))
        .pass(s(999));
    assert_eq!(
        bench.reason("shop.web.1"),
        "gave up: 2 attempts failed, last exit 1; start it again by hand"
    );
    assert_eq!(bench.spawns("shop.web"), 2);
}

#[test]
fn what_may_end_well_is_not_started_again() {
    let mut bench = Bench::new();
    let mut job = spec();
    job.restart = Restart::OnFailure;
    bench
        .put("shop.migrate", job)
        .pass(s(3))
        .exits("shop.migrate.1", Status::Code(0))
        .pass(s(999));
    assert_eq!(bench.state("shop.migrate.1"), State::Exited);
    assert_eq!(bench.reason("shop.migrate.1"), "exit 0 after 3s");
    assert_eq!(bench.spawns("shop.migrate"), 1);
}

#[test]
fn a_pause_freezes_and_a_stop_of_a_frozen_run_thaws_it_first() {
    use gaffer_core::io::WishState;
    let mut bench = Bench::new();
    bench.put("shop.web", spec()).told();
    bench.wish("shop.web", WishState::Paused);
    assert_eq!(bench.state("shop.web.1"), State::Paused);
    bench.start("shop.web");
    assert_eq!(bench.state("shop.web.1"), State::Running);
    bench.wish("shop.web", WishState::Paused).stop("shop.web");
    assert_eq!(
        bench.told(),
        [
            "  freeze",
            "job.started shop.web",
            "  thaw",
            "  freeze",
            "job.stopped shop.web",
            "run.signalled shop.web.1",
            "  thaw",
            "  signal 15 to Main of shop.web.1",
        ]
    );
    assert_eq!(bench.spawns("shop.web"), 1);
}

#[test]
fn what_a_main_process_leaves_behind_is_ended_before_the_next_run() {
    let mut bench = Bench::new();
    bench.put("shop.web", spec()).told();
    bench.exits_with("shop.web.1", Status::Code(1), 2).pass(s(4));
    assert_eq!(bench.state("shop.web.1"), State::Stopping);
    assert_eq!(
        bench.reason("shop.web.1"),
        "exit 1 after 0s; 2 processes of it are still there and being ended"
    );
    let run = bench.run("shop.web.1");
    bench
        .pass(s(1))
        .feed(gaffer_core::io::Input::TreeGone { run })
        .pass(s(1));
    assert_eq!(
        bench.told(),
        [
            "run.exited shop.web.1  exit 1 after 0s; attempt 2 in 0.1s",
            "run.signalled shop.web.1",
            "  signal 15 to All of shop.web.1",
            "run.signalled shop.web.1  killed: still alive 5s after TERM",
            "  kill the tree of shop.web.1",
            "  spawn shop.web.1 attempt 2",
            "run.started shop.web.1",
        ]
    );
}
