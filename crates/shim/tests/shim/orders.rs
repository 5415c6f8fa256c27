//! Standing orders: carried out once, void as soon as anything else is said.

use crate::harness::*;
use gaffer_shim::journal::{Record, RunIdWire, Status};
use gaffer_shim::message::{FromShim, LogBounds, Scope, Spawn, ToShim};

/// A run that lives, and an order for its slot that the shim has read.
fn standing(shim: &mut Shim, script: &str) -> (RunIdWire, u32, Spawn) {
    let spawn = shim.script("web.1", script);
    let run = shim.spawn(spawn);
    let pid = shim.started(run);
    let mut next = shim.script("web.1", "echo next; exec sleep 1000");
    next.after = Some(run);
    next.stamp = [3, 4];
    shim.talk.say(&ToShim::Stand(Box::new(next.clone())));
    heard(shim);
    (run, pid, next)
}

/// Waits until the shim has read everything that was said: about a directory that nobody has.
fn heard(shim: &mut Shim) {
    let bounds = LogBounds {
        size: 1 << 20,
        segment: 1 << 20,
        block_when_full: false,
    };
    shim.talk.say(&ToShim::LogsPolicy {
        req: 4711,
        log_dir: "/nobody".to_owned(),
        bounds,
    });
    shim.talk.answer(4711).unwrap();
}

fn successor(shim: &mut Shim, run: RunIdWire) -> Option<RunIdWire> {
    match shim.exited(run) {
        Record::Exited { successor, .. } => successor.map(|next| next.run),
        other => unreachable!("{other:?}"),
    }
}

/// The order is gone: the run ends, and its slot is free for whoever asks.
fn is_void(shim: &mut Shim, run: RunIdWire, pid: u32) {
    kill(pid, libc::SIGKILL);
    assert_eq!(successor(shim, run), None);
    let mut other = shim.script("web.1", "exit 5");
    other.after = Some(run);
    let other = shim.spawn(other);
    assert_eq!(shim.status(other), Status::Code(5));
}

#[test]
fn an_order_is_carried_out_at_the_end_of_the_run_and_once_only() {
    let mut shim = Shim::start();
    let (run, pid, next) = standing(&mut shim, "echo first; exec sleep 1000");
    kill(pid, libc::SIGKILL);
    let Record::Exited {
        successor: Some(told),
        out_offset,
        ..
    } = shim.exited(run)
    else {
        panic!("no successor")
    };
    assert_eq!((told.run, told.stamp), (next.run, [3, 4]));
    let pid = shim.started(next.run);
    let place = |wanted: fn(&Record) -> bool, records: &[Record]| records.iter().position(wanted).unwrap();
    let ended = place(|record| matches!(record, Record::Exited { .. }), &shim.records);
    let Record::Intent {
        run: intended,
        out_offset: begin,
        ..
    } = &shim.records[ended + 1]
    else {
        panic!("{:?}", shim.records[ended + 1])
    };
    assert_eq!((*intended, *begin), (next.run, out_offset));
    wait_for("its output", || {
        (shim.text("web.1", "stdout") == "first\nnext\n").then_some(())
    });
    kill(pid, libc::SIGTERM);
    assert_eq!(successor(&mut shim, next.run), None);
    assert_eq!(shim.status(next.run), Status::Signal(libc::SIGTERM, false));
}

#[test]
fn the_newest_order_counts() {
    let mut shim = Shim::start();
    let (run, pid, first) = standing(&mut shim, "exec sleep 1000");
    let mut second = shim.script("web.1", "exit 7");
    second.after = Some(run);
    shim.talk.say(&ToShim::Stand(Box::new(second.clone())));
    heard(&mut shim);
    kill(pid, libc::SIGKILL);
    assert_eq!(successor(&mut shim, run), Some(second.run));
    assert_eq!(shim.status(second.run), Status::Code(7));
    shim.read_on();
    let born = |record: &Record| matches!(record, Record::Intent { run, .. } if *run == first.run);
    assert!(!shim.records.iter().any(born));
    // Its cgroup was made for nothing, and goes.
    if let Some(base) = shim.cgroup.clone() {
        let left = std::path::Path::new(&base).join(first.run.to_string());
        wait_for("the removal of its cgroup", || (!left.exists()).then_some(()));
    }
}

#[test]
fn whatever_else_is_said_about_a_run_makes_its_order_void() {
    type About = fn(RunIdWire) -> ToShim;
    let said: [About; 3] = [
        |run| ToShim::Withdraw { run },
        |run| ToShim::Signal {
            req: 1,
            run,
            signal: libc::SIGWINCH,
            scope: Scope::Main,
        },
        |run| ToShim::Freeze {
            req: 1,
            run,
            on: false,
        },
    ];
    for message in said {
        let mut shim = Shim::start();
        let (run, pid, _) = standing(&mut shim, "exec sleep 1000");
        shim.talk.say(&message(run));
        heard(&mut shim);
        is_void(&mut shim, run, pid);
    }
}

#[test]
fn a_new_daemon_makes_all_orders_void() {
    let mut shim = Shim::start();
    let (run, pid, _) = standing(&mut shim, "exec sleep 1000");
    let mut newer = shim.connect();
    assert!(matches!(newer.hello(2), FromShim::HelloReply { .. }));
    kill(pid, libc::SIGKILL);
    assert_eq!(successor(&mut shim, run), None);
}

#[test]
fn a_daemon_that_is_killed_leaves_its_orders_standing() {
    let mut shim = Shim::start();
    let (run, pid, next) = standing(&mut shim, "exec sleep 1000");
    shim.talk.stream.shutdown(std::net::Shutdown::Both).unwrap();
    kill(pid, libc::SIGKILL);
    assert_eq!(successor(&mut shim, run), Some(next.run));
    let pid = shim.started(next.run);
    // Whoever comes next finds it in the table, and its predecessor in the journal.
    let mut newer = shim.connect();
    let FromShim::HelloReply { table, .. } = newer.hello(2) else {
        panic!("no HelloReply")
    };
    let found: Vec<_> = table
        .iter()
        .map(|live| (live.run, live.pid, live.stamp))
        .collect();
    assert_eq!(found, [(next.run, pid, [3, 4])]);
}

#[test]
fn an_order_is_not_carried_out_while_others_of_the_tree_live() {
    let mut shim = Shim::start();
    let (run, pid, _) = standing(&mut shim, "sleep 1000 & echo two; exec sleep 1000");
    wait_for("both", || (shim.text("web.1", "stdout") == "two\n").then_some(()));
    kill(pid, libc::SIGKILL);
    assert_eq!(successor(&mut shim, run), None);
    shim.kill_tree(run).unwrap();
    shim.tree_gone(run);
}

#[test]
fn an_order_that_comes_after_the_end_is_not_carried_out() {
    let mut shim = Shim::start();
    let spawn = shim.script("web.1", "exit 0");
    let run = shim.spawn(spawn);
    shim.exited(run);
    let mut late = shim.script("web.1", "exit 1");
    late.after = Some(run);
    shim.talk.say(&ToShim::Stand(Box::new(late.clone())));
    heard(&mut shim);
    let mut next = shim.script("web.1", "exit 2");
    next.after = Some(run);
    let next = shim.spawn(next);
    assert_eq!(shim.status(next), Status::Code(2));
    shim.read_on();
    let intended = |record: &Record| matches!(record, Record::Intent { run, .. } if *run == late.run);
    assert!(!shim.records.iter().any(intended));
}

#[test]
fn a_successor_that_cannot_start_is_told_like_any_other() {
    let mut shim = Shim::start();
    let spawn = shim.script("web.1", "exec sleep 1000");
    let run = shim.spawn(spawn);
    let pid = shim.started(run);
    let mut next = shim.program("web.1", &["/nowhere"]);
    next.after = Some(run);
    let wanted = next.run;
    shim.talk.say(&ToShim::Stand(Box::new(next)));
    heard(&mut shim);
    kill(pid, libc::SIGKILL);
    assert_eq!(successor(&mut shim, run), Some(wanted));
    assert_eq!(shim.failed(wanted).0, "exec");
}
