//! The machine: a store and workers are played by the test.

use crate::{mail, queue, row};
use gaffer_core::job::Scope;
use gaffer_core::queue::dispatch::{Command, Dispatch, Input, Output, Upkept};
use gaffer_core::queue::outcome::Outcome;
use gaffer_core::queue::spec::{By, Delivery, OnStop, Queue};
use gaffer_core::queue::task::{Claimed, Failure, Handle, TaskState};
use gaffer_core::time::{Duration, Mono, Now, Wall};
use std::sync::Arc;

/// A machine at a time.
struct Bench {
    machine: Dispatch,
    ms: u64,
}

impl Bench {
    fn new(queue: Queue) -> Bench {
        let mut bench = Bench {
            machine: Dispatch::new(1),
            ms: 1_000,
        };
        bench.tell(Input::Put {
            queue: mail(),
            spec: Arc::new(queue),
            paused: false,
        });
        bench
    }

    fn now(&self) -> Now {
        Now {
            mono: Mono(self.ms * 1_000_000),
            wall: Wall(i64::try_from(self.ms).expect("short")),
        }
    }

    fn tell(&mut self, input: Input) -> Output {
        let now = self.now();
        self.machine.handle(now, input)
    }

    /// Recovered, with the first claim asked for.
    fn up(queue: Queue) -> (Bench, u32) {
        let mut bench = Bench::new(queue);
        bench.tell(Input::Orphans(Vec::new()));
        let out = bench.tell(Input::Recovered);
        bench.tell(Input::Upkept(Some(Upkept::default())));
        let asked = claims(&out).first().copied().unwrap_or(0);
        (bench, asked)
    }

    fn claimed(&mut self, rows: Vec<Claimed>) -> Output {
        self.tell(Input::Claimed {
            queue: mail(),
            rows: Some(rows),
            again_at: None,
        })
    }

    fn done(&mut self, task: i64) -> Output {
        self.tell(Input::Ended {
            handle: Handle { task, token: 1 },
            outcome: Outcome::Done(None),
            gone: true,
        })
    }

    fn after(&mut self, ms: u64) -> Output {
        self.ms += ms;
        self.tell(Input::Tick)
    }
}

fn claims(out: &Output) -> Vec<u32> {
    let counts = out.commands.iter().filter_map(|command| match command {
        Command::Claim { count, .. } => Some(*count),
        _ => None,
    });
    counts.collect()
}

fn handed(out: &Output) -> Vec<(u32, i64)> {
    let all = out.commands.iter().filter_map(|command| match command {
        Command::Hand { seat, row } => Some((*seat, row.handle.task)),
        _ => None,
    });
    all.collect()
}

fn settled(out: &Output) -> Vec<(i64, TaskState)> {
    let all = out.commands.iter().filter_map(|command| match command {
        Command::Settle(settlement) => Some((settlement.handle.task, settlement.state)),
        _ => None,
    });
    all.collect()
}

#[test]
fn nothing_is_claimed_before_recovery_is_over() {
    let mut bench = Bench::new(queue());
    let out = bench.tell(Input::Hint(None));
    assert_eq!(claims(&out), [] as [u32; 0]);
}

/// A13.3: a backlog is read in batches, and no row twice.
#[test]
fn a13_03_as_many_are_claimed_as_there_are_free_workers_and_the_store_is_asked_once() {
    let (mut bench, asked) = Bench::up(queue());
    assert_eq!(asked, 4);
    assert_eq!(
        claims(&bench.tell(Input::Hint(None))),
        [] as [u32; 0],
        "it was asked"
    );
    let out = bench.claimed(vec![row(1), row(2)]);
    assert_eq!(handed(&out), [(0, 1), (1, 2)]);
    // The hint that came meanwhile is not forgotten.
    assert_eq!(claims(&out), [2]);
}

/// A13.4 (B5 rule 5): exactly as many rows as a claim takes: one more claim, without a wait or a word, which finds none.
#[test]
fn a13_04_who_got_as_many_as_asked_for_asks_again_at_once() {
    let mut queue = queue();
    queue.workers = 2_500;
    let (mut bench, asked) = Bench::up(queue);
    assert_eq!(asked, 1_000, "at once, however many are free");
    let rows = |tasks: std::ops::Range<i64>| tasks.map(row).collect();
    assert_eq!(claims(&bench.claimed(rows(0..1_000))), [1_000]);
    assert_eq!(claims(&bench.claimed(Vec::new())), [] as [u32; 0]);
    // Fewer than asked for: that was all.
    assert_eq!(claims(&bench.tell(Input::Hint(None))), [1_000]);
    assert_eq!(claims(&bench.claimed(rows(1_000..1_999))), [] as [u32; 0]);
}

#[test]
fn a_free_seat_is_filled_before_the_outcome_is_written() {
    let mut queue = queue();
    queue.workers = 1;
    queue.batch = Some(3);
    let (mut bench, asked) = Bench::up(queue);
    assert_eq!(asked, 3);
    let out = bench.claimed(vec![row(1), row(2), row(3)]);
    assert_eq!(handed(&out), [(0, 1)]);
    let out = bench.done(1);
    assert_eq!(handed(&out), [(0, 2)]);
    assert_eq!(settled(&out), [(1, TaskState::Done)]);
}

#[test]
fn a_worker_whose_tree_lives_on_is_cleared_before_its_task_is_settled() {
    let (mut bench, _) = Bench::up(queue());
    bench.claimed(vec![row(1)]);
    let handle = row(1).handle;
    let failed = Outcome::Failed(Failure::of("exit:1", "exit 1"));
    let out = bench.tell(Input::Ended {
        handle,
        outcome: failed,
        gone: false,
    });
    assert_eq!(out.commands, [Command::Kill(handle)]);
    let out = bench.tell(Input::Gone(handle));
    assert_eq!(settled(&out), [(1, TaskState::Scheduled)]);
}

#[test]
fn an_outcome_that_cannot_be_written_is_offered_again_and_nothing_new_is_claimed() {
    let mut queue = queue();
    queue.workers = 1;
    let (mut bench, _) = Bench::up(queue);
    bench.claimed(vec![row(1)]);
    bench.done(1);
    let handle = row(1).handle;
    bench.tell(Input::Settled {
        handle,
        written: None,
    });
    let out = bench.after(1_001);
    assert_eq!(settled(&out), [(1, TaskState::Done)], "once a second");
    let out = bench.tell(Input::Settled {
        handle,
        written: Some(true),
    });
    assert!(out.events.iter().any(|event| event.event == "queue.task.done"));
}

#[test]
fn an_outcome_that_somebody_else_was_given_is_stale() {
    let (mut bench, _) = Bench::up(queue());
    bench.claimed(vec![row(1)]);
    bench.done(1);
    let out = bench.tell(Input::Settled {
        handle: row(1).handle,
        written: Some(false),
    });
    assert!(out.events.iter().any(|event| event.event == "queue.task.stale"));
}

/// Scenario 10: what is due later is looked for at that very time, whoever said so: the push, or the store after a restart.
#[test]
fn scenario_10_what_is_due_is_looked_for_in_its_time() {
    let looks = |out: &Output| out.commands.contains(&Command::Upkeep);
    for restarted in [false, true] {
        let mut bench = Bench::new(queue());
        bench.tell(Input::Orphans(Vec::new()));
        bench.tell(Input::Recovered);
        // At no round time, which a look each second would meet.
        bench.ms += 137;
        let due = bench.now().wall.plus(Duration::from_secs(2));
        let known = Upkept {
            next_due: restarted.then_some(due),
            ..Upkept::default()
        };
        bench.tell(Input::Upkept(Some(known)));
        bench.claimed(Vec::new());
        if !restarted {
            assert!(!looks(&bench.tell(Input::Due(due))), "too early");
        }
        let now = bench.now().mono;
        assert_eq!(
            bench.machine.next_deadline(),
            Some(now.plus(Duration::from_secs(2)))
        );
        assert!(!looks(&bench.after(1_999)), "too early");
        assert!(looks(&bench.after(1)), "in time");
        let out = bench.tell(Input::Upkept(Some(Upkept {
            moved: vec![mail()],
            ..Upkept::default()
        })));
        assert_eq!(claims(&out), [4]);
    }
}

/// Scenario 26: a timeout of a task that forks children: the tree is gone, and the failure is `timeout`.
#[test]
fn scenario_26_a_task_that_takes_too_long_is_asked_to_end_and_then_killed() {
    let mut queue = queue();
    queue.work.timeout = Some(Duration::from_secs(1));
    queue.work.stop.timeout = Duration::from_secs(2);
    let (mut bench, _) = Bench::up(queue);
    bench.claimed(vec![row(1)]);
    let handle = row(1).handle;
    let out = bench.after(1_000);
    let term = Command::Signal {
        handle,
        signal: 15,
        to: Scope::Main,
    };
    assert!(out.commands.contains(&term), "{out:?}");
    let out = bench.after(2_000);
    assert!(out.commands.contains(&Command::Kill(handle)), "{out:?}");
    let killed = Outcome::Crashed(Failure::of("signal:9", "ended by KILL"));
    let out = bench.tell(Input::Ended {
        handle,
        outcome: killed,
        gone: true,
    });
    let failure = out.commands.iter().find_map(|command| match command {
        Command::Settle(settlement) => settlement.failure.clone(),
        _ => None,
    });
    assert_eq!(&*failure.expect("a failure").kind, "timeout");
}

#[test]
fn hazard_52_a_lease_that_cannot_be_renewed_ends_its_worker_before_it_ends() {
    let (mut bench, _) = Bench::up(queue());
    bench.claimed(vec![row(1)]);
    let handle = row(1).handle;
    let out = bench.after(10_000);
    assert!(
        out.commands
            .iter()
            .any(|command| matches!(command, Command::Renew(_))),
        "{out:?}"
    );
    // The store does not answer for long.
    let out = bench.after(13_999);
    assert!(!out.commands.contains(&Command::Kill(handle)));
    let out = bench.after(2);
    assert!(
        out.commands.contains(&Command::Kill(handle)),
        "a fifth of the lease is left: {out:?}"
    );
}

#[test]
fn hazard_52_a_lease_counts_from_when_its_claim_was_asked_for() {
    // Cut off for so long that somebody else may have the task in a moment: it is given back, and not begun.
    let (mut bench, _) = Bench::up(queue());
    bench.after(25_000);
    let out = bench.claimed(vec![row(1)]);
    assert_eq!(handed(&out), [], "{out:?}");
    assert_eq!(settled(&out), [(1, TaskState::Queued)]);
    // Not quite so long: it is begun, and its lease renewed at once.
    let (mut bench, _) = Bench::up(queue());
    bench.after(15_000);
    let out = bench.claimed(vec![row(1)]);
    assert_eq!(handed(&out), [(0, 1)]);
    let renews = out
        .commands
        .iter()
        .any(|command| matches!(command, Command::Renew(_)));
    assert!(renews, "{out:?}");
    // A row that went with its claim is nobody else's, however late the answer is.
    let mut most = queue();
    most.delivery = Delivery::AtMostOnce;
    let (mut bench, _) = Bench::up(most);
    bench.after(25_000);
    assert_eq!(handed(&bench.claimed(vec![row(1)])), [(0, 1)]);
    bench.after(20_000);
    assert!(bench.machine.held(1).is_some(), "no lease ends it");
}

#[test]
fn a_lease_that_somebody_else_took_ends_its_worker_at_once() {
    let (mut bench, _) = Bench::up(queue());
    bench.claimed(vec![row(1)]);
    bench.after(10_000);
    let asked = bench.now().mono;
    bench.ms += 1;
    let out = bench.tell(Input::Renewed {
        asked,
        kept: Some(Vec::new()),
    });
    assert!(out.commands.contains(&Command::Kill(row(1).handle)), "{out:?}");
}

#[test]
fn a_renewed_lease_counts_from_when_it_was_asked_for() {
    let (mut bench, _) = Bench::up(queue());
    bench.claimed(vec![row(1)]);
    let handle = row(1).handle;
    bench.after(10_000);
    let asked = bench.now().mono;
    bench.ms += 5_000;
    bench.tell(Input::Renewed {
        asked,
        kept: Some(vec![(handle, false)]),
    });
    // The next renewal is not answered: the fence is 24 s after the first was asked for.
    let out = bench.after(18_998);
    assert!(!out.commands.contains(&Command::Kill(handle)), "{out:?}");
    let out = bench.after(3);
    assert!(out.commands.contains(&Command::Kill(handle)), "{out:?}");
}

#[test]
fn what_an_earlier_daemon_had_is_adopted_settled_or_given_back() {
    let mut bench = Bench::new(queue());
    let found = |task, seat, ended| Input::Found {
        queue: mail(),
        seat,
        handle: Handle { task, token: 1 },
        ended,
    };
    bench.tell(found(1, 0, None));
    bench.tell(found(2, 1, Some(Outcome::Done(None))));
    let out = bench.tell(Input::Orphans(vec![row(1), row(2), row(3)]));
    let mut states = settled(&out);
    states.sort_unstable();
    assert_eq!(states, [(2, TaskState::Done), (3, TaskState::Queued)]);
    assert_eq!(bench.machine.busy(&mail()), 1, "the first one lives");
    // Its lease may be about to end: it is renewed at once.
    let out = bench.tell(Input::Recovered);
    assert!(
        out.commands
            .iter()
            .any(|command| matches!(command, Command::Renew(_))),
        "{out:?}"
    );
}

#[test]
fn a_handler_died_with_the_daemon_that_it_was_a_part_of() {
    let mut bench = Bench::new(Queue::of(By::Others));
    let out = bench.tell(Input::Orphans(vec![row(1)]));
    let Some(Command::Settle(settlement)) = out.commands.first() else {
        panic!("{out:?}");
    };
    assert_eq!((settlement.crashes, settlement.state), (1, TaskState::Scheduled));
}

/// Scenario 27: an unknown kind is dead with `unknown-kind`; with `wait` it stays queued and runs once the kind is there.
#[test]
fn scenario_27_an_unknown_kind_is_a_dead_letter_and_the_next_task_runs() {
    let mut queue = Queue::of(By::Others);
    queue.kinds.insert("known".into(), crate::queue().work);
    let (mut bench, _) = Bench::up(queue);
    let mut known = row(2);
    known.kind = Some("known".into());
    let mut unknown = row(1);
    unknown.kind = Some("new".into());
    let out = bench.claimed(vec![unknown, known]);
    assert_eq!(settled(&out), [(1, TaskState::Dead)]);
    assert_eq!(handed(&out), [(0, 2)]);
}

#[test]
fn a_paused_queue_claims_nothing_and_its_workers_can_be_frozen() {
    let (mut bench, _) = Bench::up(queue());
    bench.claimed(vec![row(1)]);
    let pause = |on, running| Input::Paused {
        queue: mail(),
        on,
        running,
    };
    let out = bench.tell(pause(true, true));
    let handle = row(1).handle;
    assert_eq!(out.commands, [Command::Freeze { handle, on: true }]);
    assert_eq!(claims(&bench.tell(Input::Hint(None))), [] as [u32; 0]);
    let out = bench.tell(pause(false, false));
    assert!(out.commands.contains(&Command::Freeze { handle, on: false }));
    assert_eq!(claims(&out), [3]);
}

#[test]
fn a_full_stop_waits_for_what_runs_then_kills_it() {
    let mut queue = queue();
    queue.work.stop.timeout = Duration::from_secs(5);
    let (mut bench, _) = Bench::up(queue);
    bench.claimed(vec![row(1), row(2)]);
    let out = bench.tell(Input::Shutdown);
    assert!(!out.commands.contains(&Command::ShutdownDone));
    let out = bench.done(1);
    assert_eq!(claims(&out), [] as [u32; 0], "nothing new begins");
    bench.tell(Input::Settled {
        handle: row(1).handle,
        written: Some(true),
    });
    let out = bench.after(5_000);
    assert!(out.commands.contains(&Command::Kill(row(2).handle)), "{out:?}");
    let out = bench.tell(Input::Gone(row(2).handle));
    assert_eq!(settled(&out), [(2, TaskState::Queued)], "given back, not counted");
    let out = bench.tell(Input::Settled {
        handle: row(2).handle,
        written: Some(true),
    });
    assert!(out.commands.contains(&Command::ShutdownDone), "{out:?}");
}

/// A13.22: a draining stop with 9 queued tasks: all 9 finish, then exit 0.
#[test]
fn a13_22_a_stop_that_drains_goes_on_claiming_until_the_queue_is_empty() {
    let mut queue = queue();
    queue.on_stop = OnStop::Drain;
    queue.workers = 1;
    let (mut bench, _) = Bench::up(queue);
    bench.claimed(vec![row(1)]);
    bench.tell(Input::Shutdown);
    let out = bench.done(1);
    assert_eq!(claims(&out), [1]);
    let out = bench.claimed(vec![row(2)]);
    assert_eq!(handed(&out), [(0, 2)]);
    bench.done(2);
    for task in [1, 2] {
        bench.tell(Input::Settled {
            handle: row(task).handle,
            written: Some(true),
        });
    }
    let out = bench.claimed(Vec::new());
    assert!(out.commands.contains(&Command::ShutdownDone), "{out:?}");
}

#[test]
fn a_lease_that_ended_elsewhere_counts_as_an_attempt() {
    let (mut bench, _) = Bench::up(queue());
    bench.tell(Input::Hint(None));
    let mut lost = row(7);
    lost.owner = "ext:far".into();
    let out = bench.tell(Input::Upkept(Some(Upkept {
        expired: vec![lost],
        ..Upkept::default()
    })));
    assert_eq!(settled(&out), [(7, TaskState::Scheduled)]);
}

#[test]
fn a_worker_is_free_since_all_of_them_were_last_busy() {
    let mut spec = queue();
    spec.workers = 2;
    let (mut bench, _) = Bench::up(spec);
    let start = bench.now().mono;
    bench.after(500);
    assert_eq!(bench.machine.free(&mail()), Some((2, start)));
    bench.claimed(vec![row(1)]);
    assert_eq!(bench.machine.free(&mail()), Some((1, start)), "one is left");
    bench.claimed(vec![row(2)]);
    assert_eq!(bench.machine.free(&mail()), None);
    bench.after(500);
    bench.done(1);
    let since = bench.now().mono;
    bench.after(500);
    assert_eq!(bench.machine.free(&mail()), Some((1, since)));
    let (bench, _) = Bench::up(Queue::of(By::Others));
    assert_eq!(bench.machine.free(&mail()), None, "whoever works is not here");
}
