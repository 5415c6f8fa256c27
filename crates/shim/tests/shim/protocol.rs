//! Slots, epochs, requests: what a shim accepts from whom.

use crate::harness::*;
use gaffer_shim::client;
use gaffer_shim::journal::{Position, Reader, Record, RunIdWire, Status};
use gaffer_shim::message::{FromShim, RefusedCode, ReplyCode, Scope, Stdin, ToShim};

fn refused(shim: &mut Shim, wanted: RunIdWire) -> RefusedCode {
    loop {
        match shim.talk.hear().unwrap() {
            FromShim::Refused { run, code, .. } if run == wanted => return code,
            _ => continue,
        }
    }
}

#[test]
fn a_slot_is_a_compare_and_swap() {
    let mut shim = Shim::start();
    let first = shim.script("web.1", "exec sleep 1000");
    let first = shim.spawn(first);
    shim.started(first);
    let mut second = shim.script("web.1", "exit 0");
    second.after = Some(first);
    let second = shim.spawn(second);
    assert_eq!(refused(&mut shim, second), RefusedCode::SlotBusy);
    shim.kill_tree(first).unwrap();
    shim.exited(first);
    let third = shim.script("web.1", "exit 0");
    let third = shim.spawn(third);
    assert_eq!(refused(&mut shim, third), RefusedCode::Outdated);
    let mut fourth = shim.script("web.1", "exit 0");
    fourth.after = Some(first);
    let fourth = shim.spawn(fourth);
    assert_eq!(shim.status(fourth), Status::Code(0));
}

#[test]
fn a_spawn_said_twice_is_done_once() {
    let mut shim = Shim::start();
    let spawn = shim.script("web.1", "echo once");
    let run = shim.spawn(spawn.clone());
    shim.spawn(spawn.clone());
    shim.exited(run);
    shim.spawn(spawn);
    let after = shim.script("other.1", "exit 0");
    let after = shim.spawn(after);
    shim.exited(after);
    assert_eq!(shim.text("web.1", "stdout"), "once\n");
}

#[test]
fn hazard_57_an_unread_request_of_an_older_daemon_is_never_carried_out() {
    let mut shim = Shim::start();
    kill(shim.pid, libc::SIGSTOP);
    wait_for("the shim to stop", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", shim.pid)).unwrap();
        stat.contains(") T ").then_some(())
    });
    let marker = shim.scratch.0.join("marker");
    let spawn = shim.script("web.1", &format!("touch {}", marker.display()));
    let old = shim.spawn(spawn);
    let mut next = shim.connect();
    next.say(&ToShim::Hello {
        version: 1,
        epoch: 2,
        leash: None,
    });
    // Both are in socket buffers now, the older daemon's request first.
    kill(shim.pid, libc::SIGCONT);
    let FromShim::HelloReply { table, epoch, .. } = next.hear().unwrap() else {
        panic!("no HelloReply")
    };
    assert_eq!(epoch, 2);
    let known = table.iter().any(|live| live.run == old);
    let mut probe = shim.script("probe.1", "exit 0");
    probe.run = RunIdWire { epoch: 2, n: 1 };
    let probe_run = probe.run;
    next.say(&ToShim::Spawn(Box::new(probe)));
    shim.exited(probe_run);
    // Read before the fence: then it is in the table, and one spawner may be slower than the other. Otherwise never.
    if known {
        shim.exited(old);
    }
    assert_eq!(marker.exists(), known);
    // The older connection is closed, whatever it had to say.
    while shim.talk.hear().is_some() {}
}

#[test]
fn a_lower_epoch_is_refused_and_the_one_in_charge_stays() {
    let mut shim = Shim::start();
    let mut newer = shim.connect();
    assert!(matches!(newer.hello(5), FromShim::HelloReply { .. }));
    let mut older = shim.connect();
    assert_eq!(older.hello(4), FromShim::Fenced { epoch: 5 });
    assert_eq!(older.hear(), None);
    let mut spawn = shim.script("web.1", "exit 0");
    spawn.run = RunIdWire { epoch: 5, n: 1 };
    let run = spawn.run;
    newer.say(&ToShim::Spawn(Box::new(spawn)));
    assert!(matches!(newer.hear(), Some(FromShim::Bell { .. })));
    shim.exited(run);
}

#[test]
fn a_daemon_that_died_finds_its_runs_again() {
    let mut shim = Shim::start();
    let spawn = shim.script("web.1", "echo one; read x < /dev/null; exec sleep 1000");
    let run = shim.spawn(spawn);
    let pid = shim.started(run);
    shim.talk.stream.shutdown(std::net::Shutdown::Both).unwrap();
    let found = client::walk(&shim.scratch.0.join("shims")).unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].locked);
    let mut next = Talk::new(client::connect(&found[0].path).unwrap());
    let FromShim::HelloReply {
        table,
        position,
        slots,
        ..
    } = next.hello(2)
    else {
        panic!()
    };
    assert_eq!((table[0].run, table[0].pid, table[0].exited), (run, pid, false));
    assert_eq!(table[0].stamp, [7, 8]);
    assert_eq!(slots[0].run, run);
    let mut reader = Reader::open(&shim.dir, Position::default()).unwrap();
    let mut last = Position::default();
    while let Some((_, after)) = reader.read_next().unwrap() {
        last = after;
    }
    assert_eq!(last, position);
    next.say(&ToShim::Signal {
        req: 1,
        run,
        signal: libc::SIGTERM,
        scope: Scope::Main,
    });
    next.answer(1).unwrap();
    assert_eq!(shim.status(run), Status::Signal(libc::SIGTERM, false));
}

#[test]
fn requests_about_runs_that_are_over_are_answered_so() {
    let mut shim = Shim::start();
    let spawn = shim.script("web.1", "exit 0");
    let run = shim.spawn(spawn);
    shim.exited(run);
    let error = shim.signal(run, libc::SIGTERM, Scope::Main).unwrap_err();
    assert_eq!((error.code, error.errno), (ReplyCode::NoRun, libc::ESRCH));
}

#[test]
fn input_reaches_stdin_and_labelled_streams_and_ends() {
    let mut shim = Shim::start();
    let mut spawn = shim.script("web.1", "cat; head -n 1 <&3 >&3; echo done >&3");
    spawn.stdin = Stdin::Pipe;
    spawn.streams = vec!["side".to_owned()];
    let run = shim.spawn(spawn);
    shim.started(run);
    let big = vec![b'x'; 60 << 10];
    for _ in 0..8 {
        shim.input(run, "stdin", &big, false).unwrap();
    }
    shim.input(run, "stdin", b"end", true).unwrap();
    shim.input(run, "side", b"question\n", true).unwrap();
    let missing = shim.input(run, "nothing", b"", false).unwrap_err();
    assert!(matches!(missing.code, ReplyCode::NoSuch | ReplyCode::NoRun));
    assert_eq!(shim.status(run), Status::Code(0));
    assert_eq!(shim.output("web.1", "stdout").len(), 8 * (60 << 10) + 3);
    assert_eq!(shim.text("web.1", "side"), "question\ndone\n");
}

#[test]
fn a_shim_that_is_told_to_leave_does_so_with_its_last_run() {
    let mut shim = Shim::start();
    let spawn = shim.script("web.1", "exec sleep 1000");
    let run = shim.spawn(spawn);
    shim.started(run);
    shim.talk.say(&ToShim::Exit);
    let late = shim.script("late.1", "exit 0");
    let late = shim.spawn(late);
    assert_eq!(refused(&mut shim, late), RefusedCode::Leaving);
    shim.kill_tree(run).unwrap();
    shim.exited(run);
    assert!(shim.guard_ends().success());
    assert!(!client::is_locked(&shim.dir).unwrap());
    assert!(!shim.dir.join("sock").exists());
    shim.read_on();
    assert!(shim.records.len() > 3, "the journal is the daemon's to remove");
}

#[test]
fn hazard_45_a_second_shim_in_the_same_directory_ends_at_once() {
    let shim = Shim::start();
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_gaffer-shim"));
    let mut second = client::start_shim(binary, &shim.dir).unwrap();
    assert_eq!(second.guard.wait().unwrap().code(), Some(3));
    assert!(matches!(shim.connect().hello(2), FromShim::HelloReply { .. }));
}

#[test]
fn an_idle_shim_leaves() {
    let scratch = Scratch::new();
    let dir = scratch.0.join("1");
    std::fs::create_dir(&dir).unwrap();
    let binary = env!("CARGO_BIN_EXE_gaffer-shim");
    let dir_text = dir.to_str().unwrap();
    let mut guard = std::process::Command::new(binary)
        .args(["--dir", dir_text, "--idle-ms", "50"])
        .spawn()
        .unwrap();
    assert!(guard.wait().unwrap().success());
    assert!(!dir.join("sock").exists());
}

#[test]
fn a_leash_ends_the_runs_of_a_killed_daemon_as_told() {
    let mut shim = Shim::start();
    let mut spawn = shim.script(
        "web.1",
        "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done",
    );
    spawn.stop.scope = Scope::Main;
    let polite = shim.spawn(spawn);
    let mut spawn = shim.script("web.2", "trap '' TERM; echo up; while :; do sleep 0.05; done");
    spawn.stop.timeout_ms = 100;
    let stubborn = shim.spawn(spawn);
    wait_for("both traps", || {
        (shim.text("web.1", "stdout") == "up\n" && shim.text("web.2", "stdout") == "up\n").then_some(())
    });
    let leash = Some(gaffer_shim::message::Leash { wait_ms: 50 });
    let mut daemon = shim.connect();
    daemon.say(&ToShim::Hello {
        version: 1,
        epoch: 2,
        leash,
    });
    daemon.hear().unwrap();
    drop(daemon);
    assert_eq!(shim.status(polite), Status::Code(9));
    assert_eq!(shim.status(stubborn), Status::Signal(libc::SIGKILL, false));
    assert!(shim.guard_ends().success());
}

#[test]
fn bye_takes_the_leash_off() {
    let mut shim = Shim::start();
    let spawn = shim.script("web.1", "exec sleep 1000");
    let run = shim.spawn(spawn);
    shim.started(run);
    let leash = Some(gaffer_shim::message::Leash { wait_ms: 1 });
    let mut daemon = shim.connect();
    daemon.say(&ToShim::Hello {
        version: 1,
        epoch: 2,
        leash,
    });
    daemon.hear().unwrap();
    daemon.say(&ToShim::Bye);
    drop(daemon);
    // A round trip of a successor, and the run is still there.
    let FromShim::HelloReply { table, .. } = shim.connect().hello(3) else {
        panic!()
    };
    assert_eq!(table.len(), 1);
    assert!(
        !shim
            .records
            .iter()
            .any(|record| matches!(record, Record::Exited { .. }))
    );
}

/// A daemon reads the journal when any bell rings, so it may know of an end before the shim's own control
/// thread does.
#[test]
fn a_successor_asked_for_the_moment_the_end_is_on_file_is_not_refused() {
    let mut shim = Shim::start();
    let mut before = None;
    for round in 0..200 {
        let mut spawn = match round % 2 {
            0 => shim.script("web.1", "exit 0"),
            _ => shim.program("web.1", &["/no/such/program"]),
        };
        spawn.after = before;
        let run = shim.spawn(spawn);
        // Polls the file without a pause and without listening to bells.
        let start = std::time::Instant::now();
        while !shim.records.iter().any(|record| match record {
            Record::Exited { run: found, .. } | Record::StartFailed { run: found, .. } => *found == run,
            _ => false,
        }) {
            assert!(start.elapsed() < PATIENCE, "round {round} was refused");
            shim.read_on();
        }
        before = Some(run);
    }
}

#[test]
fn a_run_may_not_talk_to_its_own_shim() {
    let mut shim = Shim::start();
    if shim.cgroup.is_none() {
        // Without cgroups there is nothing to tell its processes by.
        return;
    }
    let script = format!(
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('{}')\ns.settimeout(10)\n\
         print('closed' if s.recv(1) == b'' else 'heard')\n",
        shim.dir.join("sock").display()
    );
    let spawn = shim.program("a.1", &["python3", "-c", &script]);
    let run = shim.spawn(spawn);
    assert_eq!(shim.status(run), Status::Code(0));
    assert_eq!(shim.text("a.1", "stdout"), "closed\n");
}

#[test]
fn what_is_no_request_ends_the_connection_and_nothing_else() {
    let mut shim = Shim::start();
    let spawn = shim.script("web.1", "exec sleep 1000");
    let run = shim.spawn(spawn);
    shim.started(run);
    for noise in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &gaffer_shim::frame::encode(b"\xff\xff\xff"),
    ] {
        let mut other = shim.connect();
        std::io::Write::write_all(&mut other.stream, noise).unwrap();
        assert_eq!(other.hear(), None);
    }
    // Nor may anybody ask for something before Hello.
    let mut other = shim.connect();
    other.say(&ToShim::KillTree { req: 1, run });
    assert_eq!(other.hear(), None);
    shim.signal(run, 0, Scope::Main).unwrap();
}

#[test]
fn what_is_asked_of_a_run_before_its_birth_waits_for_it() {
    let mut shim = Shim::start();
    for round in 0..20 {
        let spawn = shim.script(&format!("web.{round}"), "exec sleep 1000");
        let run = shim.spawn(spawn);
        shim.signal(run, libc::SIGTERM, Scope::Main).unwrap();
        assert_eq!(shim.status(run), Status::Signal(libc::SIGTERM, false));
    }
    let spawn = shim.program("none.1", &["/no/such/program"]);
    let run = shim.spawn(spawn);
    assert_eq!(shim.kill_tree(run).unwrap_err().code, ReplyCode::NoRun);
}

#[test]
fn hazard_57_a_request_that_arrives_after_the_fence_never_existed() {
    let mut shim = Shim::start();
    // Accepted, but silent.
    let mut next = shim.connect();
    let spawn = shim.script("first.1", "exit 0");
    let first = shim.spawn(spawn);
    shim.exited(first);
    kill(shim.pid, libc::SIGSTOP);
    wait_for("the shim to stop", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", shim.pid)).unwrap();
        stat.contains(") T ").then_some(())
    });
    next.say(&ToShim::Hello {
        version: 1,
        epoch: 2,
        leash: None,
    });
    let marker = shim.scratch.0.join("marker");
    let spawn = shim.script("web.1", &format!("touch {}", marker.display()));
    let late = shim.spawn(spawn);
    kill(shim.pid, libc::SIGCONT);
    let FromShim::HelloReply { table, .. } = next.hear().unwrap() else {
        panic!("no HelloReply")
    };
    assert!(!table.iter().any(|live| live.run == late));
    let mut probe = shim.script("web.1", "exit 0");
    probe.run = RunIdWire { epoch: 2, n: 1 };
    let probe_run = probe.run;
    next.say(&ToShim::Spawn(Box::new(probe)));
    shim.exited(probe_run);
    assert!(!marker.exists());
    assert!(
        !shim
            .records
            .iter()
            .any(|r| matches!(r, Record::Intent { run, .. } if *run == late))
    );
}
