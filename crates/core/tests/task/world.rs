//! A fake world around a runner: a disk that keeps what was written, shims that keep what runs, a clock, and an
//! executioner who may end the runner behind any record, command or fact.

use gaffer_core::io::Status;
use gaffer_core::name::RunId;
use gaffer_core::task::record::{Header, Record, TaskState};
use gaffer_core::task::runner::{Command, Found, Input, Leader, Output, RunEnd, Runner};
use gaffer_core::task::spec::Task;
use gaffer_core::time::{Duration, Mono, Now, Wall};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a program does.
#[derive(Clone, Copy, Debug)]
pub struct Act {
    /// Lives so long, if nobody ends it.
    pub lasts_ms: u64,
    /// And ends so.
    pub status: Status,
    /// What TERM does: none: nothing.
    pub on_term: Option<Status>,
    /// It cannot be started at all.
    pub unstartable: bool,
}

/// Ends with a code at once.
pub fn exits(code: i32) -> Act {
    lasts(10, code)
}

/// Ends with a code after a while.
pub fn lasts(ms: u64, code: i32) -> Act {
    Act {
        lasts_ms: ms,
        status: Status::Code(code),
        on_term: Some(Status::Signal(15, false)),
        unstartable: false,
    }
}

/// A process in the world.
#[derive(Clone, Debug)]
struct Process {
    attempt: u32,
    run: RunId,
    act: Act,
    born: Option<Wall>,
    ends_at: u64,
    ended: Option<(Status, Wall)>,
    frozen: bool,
    told_born: bool,
    told_end: bool,
}

/// Decides what the n-th run of a step does.
pub type Script = fn(&str, u32) -> Act;

/// The world.
pub struct World {
    pub spec: Arc<Task>,
    script: Script,
    /// The runner stream.
    pub stream: Vec<Record>,
    pub runner: Option<Runner>,
    processes: BTreeMap<usize, Process>,
    /// Successful ends by step.
    pub successes: BTreeMap<Arc<str>, u32>,
    /// Starts by step and time.
    pub starts: Vec<(Arc<str>, u64)>,
    pub ms: u64,
    leaders: u32,
    runs: u32,
    /// The runner dies after so many further records, commands and facts.
    pub fuse: Option<u32>,
    /// The shims die with it.
    pub shims_die: bool,
    pub finished: Option<TaskState>,
    pub finishes: u32,
    /// Most live processes at once.
    pub at_once: usize,
}

impl World {
    pub fn new(spec: Task, script: Script) -> World {
        spec.check().expect("a graph that can be walked");
        World {
            spec: Arc::new(spec),
            script,
            stream: Vec::new(),
            runner: None,
            processes: BTreeMap::new(),
            successes: BTreeMap::new(),
            starts: Vec::new(),
            ms: 1_000_000,
            leaders: 0,
            runs: 0,
            fuse: None,
            shims_die: false,
            finished: None,
            finishes: 0,
            at_once: 0,
        }
    }

    pub fn now(&self) -> Now {
        Now {
            mono: Mono(self.ms * 1_000_000),
            wall: Wall(i64::try_from(self.ms).expect("a small time")),
        }
    }

    fn wall(&self) -> Wall {
        self.now().wall
    }

    /// Does the runner die here?
    fn burn(&mut self) -> bool {
        match &mut self.fuse {
            None => false,
            Some(0) => {
                self.fuse = None;
                self.runner = None;
                if self.shims_die {
                    self.processes.clear();
                }
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    fn header(&self) -> Header {
        Header {
            task_id: "t-1".into(),
            launched: self.wall(),
            sandbox: "/sandbox".into(),
            hostname: "host".into(),
            user: "user".into(),
            uid: None,
            ports: Vec::new(),
            log_dir: "/sandbox/.logs".into(),
            retry_of: None,
        }
    }

    /// A new runner takes charge of what is on the disk and in the shims.
    pub fn lead(&mut self) {
        self.leaders += 1;
        let leader = Leader {
            pid: self.leaders,
            uid: 0,
        };
        let runner = Runner::replay(self.spec.clone(), leader, 1, self.now(), &self.stream)
            .expect("what was written can be read");
        let folded = gaffer_core::task::fold::History::replay(&self.stream).expect("can be folded");
        assert_eq!(
            runner.history(),
            &folded,
            "a runner knows what its stream says, and nothing else"
        );
        self.runner = Some(runner);
        let found: Vec<(usize, u32, RunId, Found)> = self
            .processes
            .iter_mut()
            .map(|(step, process)| {
                process.told_born = true;
                process.told_end = process.ended.is_some();
                let what = match (process.born, process.ended) {
                    (None, _) => Found::StartFailed {
                        text: "no such file".into(),
                        code: 127,
                    },
                    (Some(at), None) => Found::Alive {
                        pid: 100,
                        parent_pid: 99,
                        at,
                    },
                    (Some(at), Some((status, ended))) => Found::Ended {
                        born: Some((100, 99, at)),
                        end: end(status, ended),
                        tree_gone: true,
                    },
                };
                (*step, process.attempt, process.run, what)
            })
            .collect();
        for (step, attempt, run, what) in found {
            self.feed(Input::Found {
                step,
                attempt,
                run,
                what,
            });
        }
        let header = self.header();
        self.feed(Input::Lead(Box::new(header)));
    }

    /// One input, and all that follows from it, in the order that the contract demands.
    pub fn feed(&mut self, input: Input) {
        let now = self.now();
        let Some(runner) = self.runner.as_mut() else {
            return;
        };
        let (epoch, runs) = (self.leaders, &mut self.runs);
        let mut ids = || {
            *runs += 1;
            RunId { epoch, n: *runs }
        };
        let Output {
            records, commands, ..
        } = runner.handle(now, input, &mut ids);
        for record in records {
            if self.burn() {
                return;
            }
            self.stream.push(record);
        }
        for command in commands {
            if self.burn() {
                return;
            }
            self.carry_out(command);
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Spawn {
                step,
                run,
                attempt,
                after,
            } => self.spawn(step, run, attempt, after),
            Command::Signal { run, signal, .. } => {
                if let Some(process) = self.living(run)
                    && signal == 15
                    && let Some(status) = process.act.on_term
                {
                    self.end(run, status);
                }
            }
            Command::KillTree { run } => {
                if self.living(run).is_some() {
                    self.end(run, Status::Signal(9, false));
                }
            }
            Command::Freeze { run, on } => {
                if let Some(process) = self.living(run) {
                    process.frozen = on;
                }
            }
            Command::Finish { state } => {
                assert!(
                    self.processes
                        .values()
                        .all(|process| process.ended.is_some() || process.born.is_none())
                );
                self.finished = Some(state);
                self.finishes += 1;
            }
        }
    }

    /// The shim's compare-and-swap.
    fn spawn(&mut self, step: usize, run: RunId, attempt: u32, after: Option<RunId>) {
        let name = self.spec.steps[step].name.clone();
        if let Some(last) = self.processes.get(&step) {
            assert!(
                last.ended.is_some() || last.born.is_none(),
                "{name}: a second live run"
            );
            assert_eq!(after, Some(last.run), "{name}: the run before is named");
        }
        let act = (self.script)(&name, attempt);
        let born = (!act.unstartable).then(|| self.wall());
        self.starts.push((name, self.ms));
        self.processes.insert(
            step,
            Process {
                attempt,
                run,
                act,
                born,
                ends_at: self.ms + act.lasts_ms,
                ended: None,
                frozen: false,
                told_born: false,
                told_end: false,
            },
        );
        let live = self
            .processes
            .values()
            .filter(|process| process.ended.is_none() && process.born.is_some());
        self.at_once = self.at_once.max(live.count());
    }

    fn living(&mut self, run: RunId) -> Option<&mut Process> {
        let living =
            |process: &&mut Process| process.run == run && process.ended.is_none() && process.born.is_some();
        self.processes.values_mut().find(living)
    }

    fn end(&mut self, run: RunId, status: Status) {
        let wall = self.wall();
        let found = self.processes.iter_mut().find(|(_, process)| process.run == run);
        let Some((step, process)) = found else {
            return;
        };
        process.ended = Some((status, wall));
        if status == Status::Code(0) {
            let name = self.spec.steps[*step].name.clone();
            *self.successes.entry(name).or_default() += 1;
        }
    }

    /// Somebody ends a step's main process from outside.
    pub fn strike(&mut self, name: &str, signal: i32) {
        let step = self.spec.step(name).expect("a step");
        let run = self.processes[&step].run;
        self.end(run, Status::Signal(signal, false));
    }

    /// Tells the runner one fact that it has not been told; false: there is none.
    fn tell(&mut self) -> bool {
        if self.runner.is_none() {
            return false;
        }
        let mut fact = None;
        for process in self.processes.values_mut() {
            let run = process.run;
            if !process.told_born {
                process.told_born = true;
                fact = Some(match process.born {
                    Some(at) => Input::Started {
                        run,
                        pid: 100,
                        parent_pid: 99,
                        at,
                    },
                    None => Input::StartFailed {
                        run,
                        text: "no such file".into(),
                        code: 127,
                    },
                });
                break;
            }
            if let Some((status, at)) = process.ended.filter(|_| !process.told_end) {
                process.told_end = true;
                fact = Some(Input::Ended {
                    run,
                    end: end(status, at),
                    tree_gone: true,
                });
                break;
            }
        }
        let Some(fact) = fact else {
            return false;
        };
        if !self.burn() {
            self.feed(fact);
        }
        true
    }

    /// Lets the world go on until nothing more happens before `until_ms` from now. A runner that died is replaced.
    pub fn go(&mut self, for_ms: u64) {
        let until = self.ms + for_ms;
        for _ in 0..200_000 {
            if self.runner.is_none() {
                self.lead();
                continue;
            }
            if self.tell() {
                continue;
            }
            let next_end = self
                .processes
                .values()
                .filter(|process| process.born.is_some() && process.ended.is_none() && !process.frozen)
                .map(|process| process.ends_at)
                .min();
            let deadline = self.runner.as_ref().and_then(Runner::next_deadline);
            let deadline = deadline.map(|at| at.0.div_ceil(1_000_000).max(self.ms));
            let Some(next) = next_end
                .into_iter()
                .chain(deadline)
                .min()
                .filter(|next| *next <= until)
            else {
                self.ms = until;
                return;
            };
            self.ms = next.max(self.ms);
            let due: Vec<(RunId, Status)> = self
                .processes
                .values()
                .filter(|process| process.born.is_some() && process.ended.is_none() && !process.frozen)
                .filter(|process| process.ends_at <= self.ms)
                .map(|process| (process.run, process.act.status))
                .collect();
            for (run, status) in due {
                self.end(run, status);
            }
            if deadline.is_some_and(|at| at <= self.ms) {
                self.feed(Input::Tick);
            }
        }
        panic!("the world does not come to rest: {:?}", self.stream.last());
    }

    /// From the first record to the end.
    pub fn run(&mut self) -> TaskState {
        self.lead();
        self.go(24 * 3_600_000);
        self.state()
    }

    pub fn state(&self) -> TaskState {
        self.runner.as_ref().expect("a runner").history().state()
    }

    /// Ends of a step's runs, in upper case; the code in brackets where it is not 0.
    pub fn story(&self, name: &str) -> String {
        let history = self.runner.as_ref().expect("a runner").history();
        let runs = history.steps.get(name).map_or(&[][..], |runs| &runs[..]);
        let runs = runs.iter().map(|run| match run.code {
            Some(code) if code < 0 => format!("{}{code}", run.state.upper()),
            _ => run.state.upper().to_owned(),
        });
        runs.collect::<Vec<_>>().join(" ")
    }

    /// States of the task in order, without repeats.
    pub fn stages(&self) -> String {
        let history = self.runner.as_ref().expect("a runner").history();
        let mut words: Vec<&str> = history
            .statuses
            .iter()
            .map(|status| status.state.upper())
            .collect();
        words.dedup();
        words.join(" ")
    }

    /// Asks for an end.
    pub fn kill(&mut self, state: TaskState, grace_s: u64, hard: bool) {
        self.feed(Input::Kill {
            state,
            grace: Duration::from_secs(grace_s),
            hard,
            reason: "killed by ana".into(),
        });
    }

    /// Is any process left?
    pub fn living_count(&self) -> usize {
        let alive = |process: &&Process| process.born.is_some() && process.ended.is_none();
        self.processes.values().filter(alive).count()
    }
}

fn end(status: Status, at: Wall) -> RunEnd {
    RunEnd {
        status,
        oom: false,
        at,
        outputs: Ok(Vec::new()),
        usage: None,
    }
}
