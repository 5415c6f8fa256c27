//! Hazards A2: exits, orphans, signals, and the death of the shim itself.

use crate::harness::*;
use gaffer_shim::client;
use gaffer_shim::journal::{Record, RunIdWire, Status};
use gaffer_shim::message::{Scope, Spawn, ToShim};

#[test]
fn hazard_11_500_exits_in_a_moment_are_500_records_and_no_zombie() {
    let mut shim = Shim::start();
    // Blocked on one FIFO: opening its other end releases all at once.
    let fifo = shim.scratch.0.join("gate");
    let path = std::ffi::CString::new(fifo.to_str().unwrap()).unwrap();
    // SAFETY: a valid path.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let mut runs = Vec::new();
    for place in 0..500 {
        let mut spawn = shim.script(
            &format!("a.{place}"),
            &format!("read x < {}; exit 7", fifo.display()),
        );
        spawn.log_dir = shim.scratch.0.join("logs/all").to_str().unwrap().to_owned();
        runs.push(shim.spawn(spawn));
    }
    for run in &runs {
        shim.started(*run);
    }
    let mut gate = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo)
        .unwrap();
    std::io::Write::write_all(&mut gate, &[b'\n'; 500]).unwrap();
    for run in &runs {
        assert_eq!(shim.status(*run), Status::Code(7));
    }
    shim.read_on();
    let exits = shim
        .records
        .iter()
        .filter(|record| matches!(record, Record::Exited { .. }))
        .count();
    assert_eq!(exits, 500);
    wait_for("no zombie", || children(shim.pid).is_empty().then_some(()));
}

/// Starts so many programs one after the other and gives how long that took.
fn time_of_starts(shim: &mut Shim, from: usize, count: usize) -> std::time::Duration {
    let begun = std::time::Instant::now();
    let runs: Vec<_> = (from..from + count)
        .map(|place| {
            let mut spawn = shim.program(&format!("a.{place}"), &["/bin/sleep", "1000"]);
            spawn.log_dir = shim.scratch.0.join("logs/all").to_str().unwrap().to_owned();
            shim.spawn(spawn)
        })
        .collect();
    shim.started(runs[count - 1]);
    begun.elapsed()
}

#[test]
fn hazard_56_the_thousandth_start_takes_no_longer_than_the_first() {
    let mut shim = Shim::start();
    let times: Vec<_> = (0..20)
        .map(|batch| time_of_starts(&mut shim, batch * 60, 60))
        .collect();
    // Least of five, as the machine may be busy; a table that is copied makes it seven times as long.
    let least = |times: &[std::time::Duration]| times.iter().min().copied().unwrap();
    let (first, last) = (least(&times[..5]), least(&times[15..]));
    assert!(
        last < 3 * first,
        "{first:?} for the first, {last:?} for the last: {times:?}"
    );
}

fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().map(|word| word.parse::<u32>().unwrap()));
    }
    found
}

/// Double fork, own session, deaf to TERM, standard streams closed.
const STUBBORN: &str = "(setsid sh -c 'trap \"\" TERM HUP; echo $$ > PIDFILE; \
    while :; do sleep 0.05; done' </dev/null >/dev/null 2>&1 &) ; \
    while [ ! -s PIDFILE ]; do sleep 0.01; done; exit 0";

fn nothing_remains(mut shim: Shim) {
    let pidfile = shim.scratch.0.join("pid");
    let spawn = shim.script("a.1", &STUBBORN.replace("PIDFILE", pidfile.to_str().unwrap()));
    let run = shim.spawn(spawn);
    let Record::Exited {
        status, survivors, ..
    } = shim.exited(run)
    else {
        unreachable!()
    };
    assert_eq!(status, Status::Code(0));
    assert!(survivors >= 1, "the survivor was not counted");
    let survivor: u32 = std::fs::read_to_string(pidfile).unwrap().trim().parse().unwrap();
    assert!(!is_over(survivor));
    // Nothing starts in its slot while the tree lives.
    let mut next = shim.script("a.1", "exit 0");
    next.after = Some(run);
    let next = shim.spawn(next);
    while !matches!(shim.talk.hear().unwrap(),
        gaffer_shim::message::FromShim::Refused { run, .. } if run == next)
    {}
    shim.signal(run, libc::SIGTERM, Scope::All).unwrap();
    assert!(!is_over(survivor));
    shim.kill_tree(run).unwrap();
    shim.tree_gone(run);
    wait_for("the survivor's end", || is_over(survivor).then_some(()));
    wait_for("no zombie", || children(shim.pid).is_empty().then_some(()));
}

#[test]
fn hazard_13_nothing_remains_of_a_tree_in_a_cgroup() {
    nothing_remains(Shim::start());
}

#[test]
fn hazard_13_nothing_remains_of_a_tree_without_cgroups() {
    nothing_remains(Shim::start_without_cgroups());
}

#[test]
fn hazard_12_orphans_are_reaped_and_do_not_take_a_status_that_belongs_to_a_run() {
    let mut shim = Shim::start_without_cgroups();
    let storm =
        "i=0; while [ $i -lt 40 ]; do (sh -c 'sleep 0.0$(( $$ % 9 )); exit 5' &) ; i=$((i+1)); done; exit 6";
    let mut runs = Vec::new();
    for place in 0..10 {
        let spawn = shim.script(&format!("a.{place}"), storm);
        runs.push(shim.spawn(spawn));
    }
    for run in runs {
        assert_eq!(shim.status(run), Status::Code(6));
    }
    wait_for("no zombie and no orphan", || {
        children(shim.pid).is_empty().then_some(())
    });
}

#[test]
fn hazard_14_a_leader_that_leaves_its_stdout_to_a_child_is_recorded_at_once() {
    let mut shim = Shim::start();
    let spawn = shim.script("a.1", "(sleep 1000; echo never) & echo leader; exit 0");
    let run = shim.spawn(spawn);
    let Record::Exited {
        survivors,
        out_offset,
        drained,
        ..
    } = shim.exited(run)
    else {
        unreachable!()
    };
    assert_eq!((out_offset, drained), (7, true));
    assert!(survivors >= 1);
    shim.kill_tree(run).unwrap();
    shim.tree_gone(run);
}

#[test]
fn hazard_15_a_stopped_run_ends_on_term() {
    let mut shim = Shim::start();
    let spawn = shim.script("a.1", "exec sleep 1000");
    let run = shim.spawn(spawn);
    let pid = shim.started(run);
    shim.signal(run, libc::SIGSTOP, Scope::Main).unwrap();
    wait_for("the stop", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.contains(") T ").then_some(())
    });
    shim.signal(run, libc::SIGTERM, Scope::Main).unwrap();
    assert_eq!(shim.status(run), Status::Signal(libc::SIGTERM, false));
}

#[test]
fn scopes_reach_whom_they_name() {
    let mut shim = Shim::start();
    let script = "trap 'echo leader' USR1; sh -c 'trap \"echo child\" USR1; echo up; \
        while :; do sleep 0.02; done' & while :; do sleep 0.02; done";
    let spawn = shim.script("a.1", script);
    let run = shim.spawn(spawn);
    wait_for("both traps", || {
        (shim.text("a.1", "stdout") == "up\n").then_some(())
    });
    shim.signal(run, libc::SIGUSR1, Scope::Main).unwrap();
    wait_for("the leader", || {
        (shim.text("a.1", "stdout") == "up\nleader\n").then_some(())
    });
    shim.kill_tree(run).unwrap();
    assert_eq!(shim.status(run), Status::Signal(libc::SIGKILL, false));
}

/// Waits until ten looks in a row find the same bytes, and gives their number.
fn wait_for_silence(shim: &Shim, slot: &str) -> usize {
    let mut looks: Vec<usize> = Vec::new();
    wait_for("silence", || {
        let found = shim.output(slot, "stdout").len();
        if looks.last().is_some_and(|last| *last != found) {
            looks.clear();
        }
        looks.push(found);
        (looks.len() == 10).then_some(found)
    })
}

#[test]
fn a_frozen_run_stands_still_until_it_is_thawed() {
    let mut shim = Shim::start();
    let spawn = shim.script("a.1", "while :; do echo x; sleep 0.002; done");
    let run = shim.spawn(spawn);
    wait_for("output", || {
        (!shim.output("a.1", "stdout").is_empty()).then_some(())
    });
    shim.talk.say(&ToShim::Freeze {
        req: 900,
        run,
        on: true,
    });
    shim.talk.answer(900).unwrap();
    if let Some(base) = shim.cgroup.clone() {
        wait_for("the freeze", || {
            let events = std::fs::read_to_string(format!("{base}/{run}/cgroup.events")).unwrap();
            events.contains("frozen 1").then_some(())
        });
    }
    let count = wait_for_silence(&shim, "a.1");
    shim.talk.say(&ToShim::Freeze {
        req: 901,
        run,
        on: false,
    });
    shim.talk.answer(901).unwrap();
    wait_for("output again", || {
        (shim.output("a.1", "stdout").len() > count).then_some(())
    });
    shim.kill_tree(run).unwrap();
    shim.exited(run);
}

// ── the death of the shim ──

fn guard_records(mut shim: Shim) {
    let mut runs = Vec::new();
    for place in 0..20 {
        let spawn = shim.script(&format!("a.{place}"), &format!("read x; exit {}", 20 + place));
        let mut spawn = spawn;
        spawn.stdin = gaffer_shim::message::Stdin::File(gate(&shim));
        runs.push(shim.spawn(spawn));
    }
    // A FIFO as stdin holds the starts until there is a writer, so this one comes first.
    let mut gate = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(gate(&shim))
        .unwrap();
    for run in &runs {
        shim.started(*run);
    }
    shim.kill_shim();
    // The daemon sees the end of its connection although the guard shares the table.
    while shim.talk.hear().is_some() {}
    assert!(client::is_locked(&shim.dir).unwrap(), "the guard holds the lock");
    assert!(client::connect(&shim.dir).is_err());
    std::io::Write::write_all(&mut gate, &[b'\n'; 20]).unwrap();
    for (place, wanted) in runs.iter().enumerate() {
        let Record::Exited { status, by_guard, .. } = shim.exited(*wanted) else {
            unreachable!()
        };
        assert_eq!(status, Status::Code(20 + place as i32));
        assert!(by_guard);
    }
    shim.guard_ends();
    assert!(!client::is_locked(&shim.dir).unwrap());
}

fn gate(shim: &Shim) -> String {
    let path = shim.scratch.0.join("gate");
    let text = path.to_str().unwrap().to_owned();
    let c_path = std::ffi::CString::new(text.clone()).unwrap();
    // It may exist already.
    // SAFETY: a valid path.
    unsafe { libc::mkfifo(c_path.as_ptr(), 0o600) };
    text
}

#[test]
fn hazard_17_the_guard_records_the_exits_of_a_killed_shims_runs() {
    guard_records(Shim::start());
}

#[test]
fn hazard_17_the_guard_records_exits_without_cgroups_too() {
    guard_records(Shim::start_without_cgroups());
}

#[test]
fn hazard_17_the_guard_tells_when_the_last_of_a_tree_is_gone() {
    let mut shim = Shim::start();
    let spawn = shim.script("a.1", "sleep 1000 & echo two; exec sleep 1000");
    let run = shim.spawn(spawn);
    let pid = shim.started(run);
    wait_for("both", || (shim.text("a.1", "stdout") == "two\n").then_some(()));
    shim.kill_shim();
    wait_for("the shim's end", || is_over(shim.pid).then_some(()));
    kill(pid, libc::SIGKILL);
    let Record::Exited {
        status,
        survivors,
        by_guard,
        ..
    } = shim.exited(run)
    else {
        unreachable!()
    };
    assert_eq!((status, by_guard), (Status::Signal(libc::SIGKILL, false), true));
    if shim.cgroup.is_some() {
        assert_eq!(survivors, 1);
        std::fs::write(
            format!("{}/{run}/cgroup.kill", shim.cgroup.as_ref().unwrap()),
            "1",
        )
        .unwrap();
        shim.tree_gone(run);
    }
}

fn killed_at(step: u32) -> (Shim, RunIdWire, std::path::PathBuf) {
    let mut shim = Shim::start_with(|binary, dir| {
        let wrapper = dir.parent().unwrap().parent().unwrap().join("failing");
        let text = format!(
            "#!/bin/sh\nGAFFER_SHIM_FAIL={step} exec {} \"$@\"\n",
            binary.display()
        );
        std::fs::write(&wrapper, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&wrapper, mode).unwrap();
        client::start_shim(&wrapper, dir).unwrap()
    });
    let marker = shim.scratch.0.join("marker");
    let script = format!("echo $$ >> {}; exec sleep 1000", marker.display());
    let spawn: Spawn = shim.script("a.1", &script);
    let run = shim.spawn(spawn);
    wait_for("the shim's end", || is_over(shim.pid).then_some(()));
    (shim, run, marker)
}

/// Steps as in the spawn table: killed before the clone (2), in the child's setup (3, 4), before its
/// `Born` (5), after it (6), without death signal (7), after the clone (8).
#[test]
fn hazard_04_a_shim_killed_between_any_two_steps_of_a_spawn_leaves_no_unknown_copy() {
    for step in 2..=8 {
        let (mut shim, run, marker) = killed_at(step);
        shim.read_on();
        // What a daemon does: empty the cgroup, wait for the lock, read the journal again.
        let born = |shim: &Shim| {
            shim.records.iter().find_map(|record| match record {
                Record::Born { run: found, pid } if *found == run => Some(*pid),
                _ => None,
            })
        };
        if step <= 5 {
            // Killed by its death signal before it could be born.
            shim.guard_ends();
            shim.read_on();
            assert_eq!(born(&shim), None, "step {step}");
            assert!(!marker.exists(), "step {step}");
            continue;
        }
        let pid = born(&shim).expect("a child that was born");
        if step == 8 {
            // It had executed: one copy, and it lives on.
            wait_for("the program", || marker.exists().then_some(()));
            assert!(!is_over(pid));
        }
        kill(pid, libc::SIGKILL);
        let Record::Exited { by_guard, status, .. } = shim.exited(run) else {
            unreachable!()
        };
        assert_eq!(
            (by_guard, status),
            (true, Status::Signal(libc::SIGKILL, false)),
            "step {step}"
        );
        shim.guard_ends();
        let copies = std::fs::read_to_string(&marker)
            .unwrap_or_default()
            .lines()
            .count();
        assert!(
            copies <= 1 && (step > 6 || copies == 0),
            "step {step}: {copies} copies"
        );
    }
}

#[test]
fn hazard_60_a_child_that_is_held_before_its_exec_dies_with_the_shim_and_holds_no_lock() {
    let mut shim = Shim::start();
    let fifo = gate(&shim);
    let mut held = shim.script("a.1", "exit 0");
    held.stdin = gaffer_shim::message::Stdin::File(fifo);
    shim.spawn(held);
    let child = wait_for("a child before its exec", || children(shim.pid).first().copied());
    shim.kill_shim();
    wait_for("the end of the child", || is_over(child).then_some(()));
    shim.guard_ends();
    assert!(
        !client::is_locked(&shim.dir).unwrap(),
        "a copy of the lock lives on"
    );
    assert!(
        client::connect(&shim.dir).is_err(),
        "a copy of the listener lives on"
    );
}

#[test]
fn hazard_58_an_exit_is_recorded_once_whoever_is_killed_around_it() {
    for _ in 0..30 {
        let mut shim = Shim::start();
        let spawn = shim.script("a.1", "exit 5");
        let run = shim.spawn(spawn);
        shim.started(run);
        shim.kill_shim();
        assert_eq!(shim.status(run), Status::Code(5));
        shim.guard_ends();
        shim.read_on();
        let exits = shim
            .records
            .iter()
            .filter(|r| matches!(r, Record::Exited { .. }))
            .count();
        assert_eq!(exits, 1);
    }
}

#[test]
fn hazard_59_no_byte_is_missing_when_the_shim_is_killed_as_programs_begin() {
    for _ in 0..30 {
        let mut shim = Shim::start();
        let runs: Vec<_> = (0..10)
            .map(|place| {
                let spawn = shim.script(&format!("a.{place}"), "echo one; sleep 0.02; echo two >&2");
                shim.spawn(spawn)
            })
            .collect();
        shim.started(runs[3]);
        shim.kill_shim();
        shim.guard_ends();
        shim.read_on();
        for (place, run) in runs.iter().enumerate() {
            let ended = |record: &Record| matches!(record, Record::Exited { run: of, status: Status::Code(0), .. } if of == run);
            if shim.records.iter().any(ended) {
                let slot = format!("a.{place}");
                assert_eq!(
                    (shim.text(&slot, "stdout"), shim.text(&slot, "stderr")),
                    ("one\n".into(), "two\n".into())
                );
            }
        }
    }
}

#[test]
fn hazard_59_no_byte_is_missing_when_the_shim_is_killed_under_load() {
    for round in 0..20 {
        let mut shim = Shim::start();
        let mut spawn = shim.script("a.1", "seq 1 200000; echo done >&2");
        spawn.bounds.segment = 64 << 10;
        let run = shim.spawn(spawn);
        let wanted = 1000 + round * 60_000;
        wait_for("some output", || {
            let dir = shim.scratch.0.join("logs/a.1");
            let (_, end) = gaffer_shim::stream::StreamReader::open(&dir, "stdout")
                .range()
                .unwrap();
            (end > wanted).then_some(())
        });
        shim.kill_shim();
        let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
        let Record::Exited {
            status,
            out_offset,
            drained,
            ..
        } = shim.exited(run)
        else {
            unreachable!()
        };
        assert_eq!((status, drained), (Status::Code(0), true));
        assert_eq!(out_offset as usize, expected.len());
        assert!(shim.text("a.1", "stdout") == expected, "round {round}");
        assert_eq!(shim.text("a.1", "stderr"), "done\n");
        shim.guard_ends();
    }
}
