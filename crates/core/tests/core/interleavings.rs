//! Hazards 21 and 22: every order of two and three commands, begun in every state, with the shim answering
//! between them or only at the end. The newest wish wins, and there is never a second run.

use crate::bench::{Bench, ms, s, spec, tcp};
use gaffer_core::io::{Command, How, Input, ProbeRole, State, Status, WishState};
use gaffer_core::job::{Condition, Flapping, Job, ReloadHow};
use gaffer_core::name::{RunId, Slot};
use std::collections::BTreeMap;

const JOB: &str = "shop.web";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Do {
    Start,
    Stop,
    Force,
    Restart,
    Pause,
    ScaleUp,
    ScaleDown,
    Reload,
    Surge,
    NewDefinition,
}

const ALL: [Do; 10] = [
    Do::Start,
    Do::Stop,
    Do::Force,
    Do::Restart,
    Do::Pause,
    Do::ScaleUp,
    Do::ScaleDown,
    Do::Reload,
    Do::Surge,
    Do::NewDefinition,
];

const BEGINNINGS: [State; 10] = [
    State::Stopped,
    State::Waiting,
    State::Starting,
    State::Running,
    State::Backoff,
    State::Flapping,
    State::Stopping,
    State::StopStuck,
    State::Paused,
    State::Failed,
];

/// A shim that obeys, and notes what lives where.
#[derive(Default)]
struct Shim {
    live: BTreeMap<Slot, RunId>,
    done: usize,
}

fn job() -> Job {
    let mut job = spec();
    job.flapping = Some(Flapping {
        exits: 2,
        window: s(30),
        pause: s(7),
        rounds: Some(9),
        whole_job: false,
    });
    job.retry.attempts = Some(3);
    job.ready = Some(tcp());
    job
}

impl Shim {
    /// Carries out what has been asked, until nothing new is.
    fn answer(&mut self, bench: &mut Bench, all: bool) {
        while let Some(command) = bench.commands.get(self.done).cloned() {
            self.done += 1;
            match command {
                Command::Spawn { run, slot, .. } => {
                    let other = self.live.insert(slot.clone(), run);
                    assert_eq!(other, None, "a second run in {slot}");
                    if all {
                        bench.started(run);
                    }
                }
                Command::Signal { run, signal: 15, .. } | Command::KillTree { run } if all => {
                    self.end(bench, run)
                }
                Command::Probe {
                    run,
                    role: ProbeRole::Ready,
                } if all => {
                    bench.feed(Input::Probed {
                        run,
                        role: ProbeRole::Ready,
                        result: Ok("tcp".into()),
                    });
                }
                _ => {}
            }
        }
    }

    fn end(&mut self, bench: &mut Bench, run: RunId) {
        self.live.retain(|_, live| *live != run);
        let end = Bench::end(Status::Signal(15, false), bench.now, s(1));
        bench.feed(Input::Exited {
            run,
            end,
            survivors: 0,
            successor: None,
        });
    }
}

fn begin(state: State) -> (Bench, Shim) {
    let mut bench = Bench::new();
    bench.obliging = false;
    let mut shim = Shim::default();
    let mut first = job();
    first.start = state != State::Stopped;
    if state == State::Waiting {
        first
            .after
            .insert(crate::bench::id("shop.db"), Condition::Started);
    }
    bench.put(JOB, first);
    let fails = match state {
        State::Backoff => 1,
        State::Flapping => 2,
        State::Failed => 3,
        _ => 0,
    };
    for _ in 0..fails {
        shim.answer(&mut bench, true);
        let run = bench.run("shop.web.1");
        shim.end(&mut bench, run);
        if bench.state("shop.web.1") == State::Backoff && fails > 1 {
            bench.pass(ms(100));
        }
        if bench.state("shop.web.1") == State::Flapping && fails > 2 {
            bench.pass(s(7));
        }
    }
    if state == State::Starting {
        shim.answer(&mut bench, false);
    } else {
        shim.answer(&mut bench, true);
    }
    match state {
        State::Stopping | State::StopStuck => {
            bench.stop(JOB);
            shim.answer(&mut bench, false);
            bench.pass(if state == State::StopStuck { s(40) } else { s(1) });
            shim.answer(&mut bench, false);
        }
        State::Paused => {
            bench.wish(JOB, WishState::Paused);
        }
        _ => {}
    }
    assert_eq!(bench.state("shop.web.1"), state);
    (bench, shim)
}

fn act(bench: &mut Bench, what: Do, version: u64) {
    let force = How {
        grace: None,
        force: true,
    };
    match what {
        Do::Start => bench.start(JOB),
        Do::Stop => bench.stop(JOB),
        Do::Force => bench.ask(JOB, None, WishState::Stopped, false, force),
        Do::Restart => bench.restart(JOB),
        Do::Pause => bench.wish(JOB, WishState::Paused),
        Do::ScaleUp => bench.scale(JOB, 2),
        Do::ScaleDown => bench.scale(JOB, 0),
        Do::Reload => bench.reload(JOB, None),
        Do::Surge => bench.reload(JOB, Some(ReloadHow::Surge)),
        Do::NewDefinition => {
            let wish = bench.view(JOB).wish;
            bench.put_with(JOB, job(), 1_000 + version, wish)
        }
    };
}

fn finish(bench: &mut Bench, shim: &mut Shim) {
    if bench
        .view(JOB)
        .instances
        .iter()
        .any(|one| one.state == State::Waiting)
    {
        bench.put("shop.db", spec());
    }
    // Enough for a grace, KILL, a pause of a crash loop and every delay.
    for _ in 0..80 {
        if bench
            .view(JOB)
            .instances
            .iter()
            .any(|one| matches!(one.state, State::Stopping | State::StopStuck))
        {
            let dying: Vec<RunId> = bench
                .view(JOB)
                .instances
                .iter()
                .filter(|one| matches!(one.state, State::Stopping | State::StopStuck) && one.pid.is_some())
                .filter_map(|one| one.run)
                .collect();
            for run in dying {
                shim.end(bench, run);
            }
        }
        // Births that were held back so far.
        let unborn: Vec<RunId> = bench
            .view(JOB)
            .instances
            .iter()
            .filter(|one| one.pid.is_none())
            .filter_map(|one| one.run)
            .collect();
        for run in unborn {
            bench.started(run);
        }
        shim.answer(bench, true);
        bench.pass(s(1));
    }
}

fn check(bench: &Bench, shim: &Shim, beginning: State, acts: &[Do]) {
    let view = bench.view(JOB);
    let live = shim
        .live
        .keys()
        .filter(|slot| slot.job == crate::bench::id(JOB))
        .count() as u32;
    let states: Vec<State> = view.instances.iter().map(|one| one.state).collect();
    let context = || {
        format!(
            "from {beginning:?} by {acts:?}: {states:?}, {live} live\n{}",
            bench.lines
        )
    };
    match view.wish {
        WishState::Running => {
            let failed = states.iter().filter(|state| **state == State::Failed).count() as u32;
            let untouched = failed == 0 || beginning == State::Failed;
            assert!(untouched && live + failed == view.target, "{}", context());
            let fine = |state: &State| matches!(state, State::Running | State::Failed);
            assert!(states.iter().all(fine), "{}", context());
        }
        WishState::Stopped => assert_eq!(live, 0, "{}", context()),
        WishState::Paused => {
            let fine = |state: &State| matches!(state, State::Paused | State::Failed);
            assert!(states.iter().all(fine), "{}", context());
        }
    }
}

fn run(beginning: State, acts: &[Do], answers_between: bool) {
    let (mut bench, mut shim) = begin(beginning);
    for (version, what) in acts.iter().enumerate() {
        act(&mut bench, *what, version as u64);
        shim.answer(&mut bench, answers_between);
        bench.pass(ms(10));
    }
    finish(&mut bench, &mut shim);
    check(&bench, &shim, beginning, acts);
}

#[test]
fn hazard_21_every_two_commands_in_every_state() {
    for beginning in BEGINNINGS {
        for a in ALL {
            for b in ALL {
                for between in [false, true] {
                    run(beginning, &[a, b], between);
                }
            }
        }
    }
}

#[test]
fn hazard_21_every_three_commands_in_every_state() {
    for beginning in BEGINNINGS {
        for a in ALL {
            for b in ALL {
                for c in ALL {
                    run(beginning, &[a, b, c], (a as u8 + b as u8).is_multiple_of(2));
                }
            }
        }
    }
}
