//! The machine with a real store, a world of workers that is made up, and a daemon that is killed between any two steps.
//!
//! A step is one answer of the store taken, one command carried out, one thing that happens to a worker, or the time going on.
//! Workers outlive the daemon; what became of them is found by the next one, as journals tell it. The same seed gives the same story.

use gaffer_core::name::JobId;
use gaffer_core::queue::dispatch::{Command, Dispatch, Input};
use gaffer_core::queue::outcome::Outcome;
use gaffer_core::queue::spec::{By, Delivery, Queue, QueueId};
use gaffer_core::queue::task::{Failure, Handle, TaskId};
use gaffer_core::retry::Dice;
use gaffer_core::time::{Duration, Mono, Now, Wall};
use gaffer_queue::Store;
use gaffer_queue::port::{Answer, Claim, NewTask, Request};
use gaffer_queue::rows::Filter;
use gaffer_queue::sqlite::Sqlite;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Tasks of one story.
const TASKS: u64 = 12;
/// Steps after which a story has to be over.
const STEPS_MAX: u32 = 60_000;

/// A process of the world.
struct Worker {
    queue: QueueId,
    seat: u32,
    handle: Handle,
    /// Its main process ended so; the tree may live on.
    ended: Option<Outcome>,
    gone: bool,
    /// The daemon has taken note of its end: the store has it.
    settled: bool,
}

struct World {
    dice: Dice,
    store: Store,
    runtime: tokio::runtime::Runtime,
    now: Now,
    epoch: u32,
    machine: Dispatch,
    inputs: VecDeque<Input>,
    commands: VecDeque<Command>,
    workers: Vec<Worker>,
    /// What was acknowledged, with its queue.
    accepted: BTreeMap<TaskId, QueueId>,
    begun: BTreeMap<TaskId, u32>,
    /// Ends that a daemon told of.
    told: BTreeMap<TaskId, u32>,
    /// What is over, whether anybody told of it or not.
    finals: BTreeMap<TaskId, u32>,
    crashes: u32,
    story: Vec<String>,
}

fn least() -> QueueId {
    JobId::parse("least").expect("a name")
}

fn most() -> QueueId {
    JobId::parse("most").expect("a name")
}

fn spec(queue: &QueueId) -> Queue {
    let launch = gaffer_core::job::Launch::of(vec!["true".to_owned()]);
    let mut spec = Queue::of(By::Cmd(Arc::new(launch)));
    spec.workers = 3;
    spec.full = false;
    spec.work.retry.attempts = Some(6);
    spec.work.retry.delay = vec![Duration::from_millis(500)];
    spec.work.crashes = 4;
    spec.work.timeout = Some(Duration::from_secs(8));
    spec.work.stop.timeout = Duration::from_secs(1);
    if *queue == most() {
        spec.delivery = Delivery::AtMostOnce;
    }
    spec
}

impl World {
    fn new(seed: u64, store: Store, runtime: tokio::runtime::Runtime) -> World {
        let mut world = World {
            dice: Dice::new(seed),
            store,
            runtime,
            now: Now {
                mono: Mono(1_000_000_000),
                wall: Wall(1_800_000_000_000),
            },
            epoch: 0,
            machine: Dispatch::new(seed),
            inputs: VecDeque::new(),
            commands: VecDeque::new(),
            workers: Vec::new(),
            accepted: BTreeMap::new(),
            begun: BTreeMap::new(),
            told: BTreeMap::new(),
            finals: BTreeMap::new(),
            crashes: 0,
            story: Vec::new(),
        };
        world.start();
        world
    }

    fn throw(&mut self, sides: u64) -> u64 {
        self.dice.next_u64() % sides
    }

    fn owner(&self) -> Arc<str> {
        format!("a:{}", self.epoch).into()
    }

    fn ask(&mut self, request: Request) -> Answer {
        let store = self.store.clone();
        self.runtime
            .block_on(async move { store.get(request).await })
            .expect("an answer")
    }

    fn tell(&mut self, line: String) {
        self.story
            .push(format!("{:>9.3} {line}", self.now.mono.0 as f64 / 1e9));
    }

    /// A daemon begins: what it finds, then what the store has of its earlier incarnations.
    fn start(&mut self) {
        self.epoch += 1;
        self.tell(format!("daemon {} begins", self.epoch));
        self.machine = Dispatch::new(u64::from(self.epoch));
        self.inputs.clear();
        self.commands.clear();
        for queue in [least(), most()] {
            self.inputs.push_back(Input::Put {
                spec: Arc::new(spec(&queue)),
                queue,
                paused: false,
            });
        }
        for worker in self.workers.iter().filter(|worker| !worker.settled) {
            self.inputs.push_back(Input::Found {
                queue: worker.queue.clone(),
                seat: worker.seat,
                handle: worker.handle,
                ended: worker.ended.clone().filter(|_| worker.gone),
            });
        }
        let orphans = self.ask(Request::Orphans {
            node: "a:".into(),
            owner: self.owner(),
        });
        let Answer::Orphans(rows) = orphans else {
            panic!("orphans");
        };
        // In one go, as the engine does it.
        while let Some(input) = self.inputs.pop_front() {
            self.feed(input);
        }
        self.feed(Input::Orphans(rows));
        for (handle, queue, seat) in self.machine.strangers() {
            if spec(&queue).forgets_at_claim() {
                self.machine.adopt_forgotten(self.forgotten(handle, queue), seat);
            } else {
                self.kill(handle);
            }
        }
        self.feed(Input::Recovered);
        // Whatever ended meanwhile with something left of its tree is cleared, as journals tell of it again.
        let left: Vec<Handle> = self
            .workers
            .iter()
            .filter(|worker| !worker.settled && !worker.gone && worker.ended.is_some())
            .map(|worker| worker.handle)
            .collect();
        for handle in left {
            let worker = self.worker(handle).expect("there");
            let outcome = worker.ended.clone().expect("ended");
            self.inputs.push_back(Input::Ended {
                handle,
                outcome,
                gone: false,
            });
        }
    }

    fn forgotten(&self, handle: Handle, queue: QueueId) -> gaffer_core::queue::task::Claimed {
        gaffer_core::queue::task::Claimed {
            handle,
            queue,
            kind: None,
            payload: "null".into(),
            meta: None,
            attempt: 1,
            attempts_max: None,
            crashes: 0,
            interrupts: 0,
            timeout_ms: None,
            created: self.now.wall,
            runnable: self.now.wall,
            cancelled: false,
            owner: "".into(),
        }
    }

    fn worker(&mut self, handle: Handle) -> Option<&mut Worker> {
        self.workers
            .iter_mut()
            .find(|worker| worker.handle == handle && !worker.settled)
    }

    fn feed(&mut self, input: Input) {
        let settled = match &input {
            Input::Settled {
                handle,
                written: Some(_),
            } => Some(*handle),
            _ => None,
        };
        let output = self.machine.handle(self.now, input);
        self.commands.extend(output.commands);
        for event in output.events {
            if let Some(settlement) = &event.settlement {
                if settlement.state.is_final() && event.event != "queue.task.stale" {
                    *self.told.entry(event.task).or_default() += 1;
                    self.finals.insert(event.task, 1);
                }
                if let Some(worker) = self.worker(settlement.handle) {
                    worker.settled = true;
                }
            }
        }
        if let Some(worker) = settled.and_then(|handle| self.worker(handle)) {
            worker.settled = true;
        }
    }

    fn kill(&mut self, handle: Handle) {
        let killed = Outcome::Crashed(Failure::of("signal:9", "ended by KILL"));
        let Some(worker) = self.worker(handle) else {
            self.inputs.push_back(Input::Gone(handle));
            return;
        };
        let first = worker.ended.is_none();
        worker.ended.get_or_insert(killed);
        worker.gone = true;
        let outcome = worker.ended.clone().expect("ended");
        if first {
            self.inputs.push_back(Input::Ended {
                handle,
                outcome,
                gone: true,
            });
        } else {
            self.inputs.push_back(Input::Gone(handle));
        }
    }

    fn claim(&mut self, queue: QueueId, count: u32) {
        let claim = Claim {
            count,
            owner: self.owner(),
            now: self.now.wall,
            lease: Duration::from_secs(30),
            kinds: None,
            throttle: Default::default(),
            forget: spec(&queue).forgets_at_claim(),
            queue: queue.clone(),
        };
        let Answer::Claimed(rows, again_at) = self.ask(Request::Claim(Box::new(claim))) else {
            panic!("claimed");
        };
        self.inputs.push_back(Input::Claimed {
            queue,
            rows: Some(rows),
            again_at,
        });
    }

    fn hand(&mut self, seat: u32, row: gaffer_core::queue::task::Claimed) {
        let live = self.workers.iter().filter(|worker| !worker.gone);
        let same = live.clone().any(|worker| worker.handle.task == row.handle.task);
        assert!(
            !same,
            "two workers have task {}\n{}",
            row.handle.task,
            self.story.join("\n")
        );
        let busy = live
            .clone()
            .any(|worker| worker.queue == row.queue && worker.seat == seat);
        assert!(!busy, "two workers on seat {seat}\n{}", self.story.join("\n"));
        *self.begun.entry(row.handle.task).or_default() += 1;
        self.tell(format!(
            "task {} begins, attempt {}",
            row.handle.task, row.attempt
        ));
        self.workers.push(Worker {
            queue: row.queue,
            seat,
            handle: row.handle,
            ended: None,
            gone: false,
            settled: false,
        });
    }

    /// Carries one command out. What the store has done is done, whether anybody hears of it or not.
    fn perform(&mut self, command: Command) {
        match command {
            Command::Claim { queue, count } => self.claim(queue, count),
            Command::Hand { seat, row } => self.hand(seat, row),
            Command::Signal { handle, .. } => {
                if self.throw(2) == 0 {
                    self.end(
                        handle,
                        Outcome::Crashed(Failure::of("signal:15", "ended by TERM")),
                    );
                }
            }
            Command::Kill(handle) => self.kill(handle),
            Command::Settle(settlement) => {
                let handle = settlement.handle;
                self.tell(format!(
                    "task {} becomes {}",
                    handle.task,
                    settlement.state.word()
                ));
                let Answer::Settled(written) = self.ask(Request::Settle(settlement, self.now.wall)) else {
                    panic!("settled");
                };
                self.inputs.push_back(Input::Settled {
                    handle,
                    written: Some(written),
                });
            }
            Command::Renew(handles) => {
                let asked = self.now.mono;
                let Answer::Renewed(kept) = self.ask(Request::Renew(handles, self.now.wall)) else {
                    panic!("renewed");
                };
                self.inputs.push_back(Input::Renewed {
                    asked,
                    kept: Some(kept),
                });
            }
            Command::Upkeep => {
                let request = Request::Upkeep {
                    owner: self.owner(),
                    now: self.now.wall,
                };
                let Answer::Upkept(upkept) = self.ask(request) else {
                    panic!("upkept");
                };
                self.inputs.push_back(Input::Upkept(Some(upkept)));
            }
            Command::Freeze { .. } | Command::ShutdownDone => {}
        }
    }

    fn end(&mut self, handle: Handle, outcome: Outcome) {
        let leaves_some = self.throw(4) == 0;
        let Some(worker) = self.worker(handle).filter(|worker| worker.ended.is_none()) else {
            return;
        };
        worker.ended = Some(outcome.clone());
        worker.gone = !leaves_some;
        self.inputs.push_back(Input::Ended {
            handle,
            outcome,
            gone: !leaves_some,
        });
    }

    /// Something happens to one of the workers.
    fn happen(&mut self) {
        let live: Vec<Handle> = self
            .workers
            .iter()
            .filter(|worker| worker.ended.is_none())
            .map(|worker| worker.handle)
            .collect();
        if live.is_empty() {
            return;
        }
        let at = usize::try_from(self.throw(live.len() as u64)).unwrap_or(0);
        let outcome = match self.throw(6) {
            0 => Outcome::Failed(Failure::of("exit:1", "exit 1")),
            1 => Outcome::Crashed(Failure::of("signal:9", "ended by KILL")),
            2 => Outcome::Snooze(Duration::from_secs(1)),
            _ => Outcome::Done(None),
        };
        self.end(live[at], outcome);
    }

    fn push(&mut self) {
        let queue = if self.throw(3) == 0 { most() } else { least() };
        let due = self.throw(3) == 0;
        let task = NewTask {
            run_at: due.then(|| self.now.wall.plus(Duration::from_secs(2))),
            full: false,
            ..NewTask::new(queue.clone(), "1")
        };
        let Answer::Pushed(pushed) = self.ask(Request::Push(vec![task], self.now.wall)) else {
            panic!("pushed");
        };
        self.accepted.insert(pushed[0].id, queue.clone());
        self.tell(format!("task {} is pushed to {queue}", pushed[0].id));
        // The hint may be lost with the daemon; a poll stands behind it.
        self.inputs.push_back(match pushed[0].due {
            Some(at) => Input::Due(at),
            None => Input::Hint(Some(queue)),
        });
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.tell("the daemon is killed".to_owned());
        if self.throw(4) == 0 {
            // With everything else.
            for worker in self.workers.iter_mut().filter(|worker| !worker.gone) {
                let killed = Outcome::Crashed(Failure::of("unknown", "ended while nobody could watch"));
                worker.ended.get_or_insert(killed);
                worker.gone = true;
            }
        } else {
            // What ended with something of its tree left is cleared by nobody until the next one comes.
            let moment = Duration::from_millis(self.throw(3_000));
            self.pass(moment);
        }
        self.start();
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono.plus(time);
        self.now.wall = self.now.wall.plus(time);
    }

    fn step(&mut self) {
        match self.throw(10) {
            0..=3 => {
                if let Some(input) = self.inputs.pop_front() {
                    self.feed(input);
                }
            }
            4..=6 => {
                if let Some(command) = self.commands.pop_front() {
                    self.perform(command);
                }
            }
            7 => self.happen(),
            8 => {
                let moment = Duration::from_millis(self.throw(400));
                self.pass(moment);
                self.feed(Input::Tick);
            }
            _ => {
                if self.throw(30) == 0 {
                    self.feed(Input::Hint(None));
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        let over = |id: &TaskId| self.finals.contains_key(id);
        self.accepted.len() as u64 >= TASKS && self.accepted.keys().all(over)
    }

    /// At-most-once tasks of which only the worker knew: no end is told of one that died with everything.
    fn forget_lost(&mut self) {
        let gone: Vec<TaskId> = self
            .accepted
            .iter()
            .filter(|(id, queue)| **queue == most() && !self.finals.contains_key(id))
            .map(|(id, _)| *id)
            .collect();
        let there = self.ask(Request::Tasks(Filter {
            limit: 1_000,
            ..Filter::default()
        }));
        let Answer::Tasks(rows) = there else {
            panic!("tasks");
        };
        for id in gone {
            let working = self
                .workers
                .iter()
                .any(|worker| worker.handle.task == id && !worker.settled && !worker.gone);
            let known = self.machine.held(id).is_some();
            let waits = self
                .inputs
                .iter()
                .any(|input| format!("{input:?}").contains(&format!("task: {id},")));
            let handed = self
                .commands
                .iter()
                .any(|command| format!("{command:?}").contains(&format!("task: {id},")));
            if !rows.iter().any(|row| row.id == id) && !working && !known && !waits && !handed {
                self.finals.insert(id, 1);
            }
        }
    }

    /// The sentences.
    fn check(&mut self) {
        let story = self.story.join("\n");
        for (id, queue) in self.accepted.clone() {
            let begun = self.begun.get(&id).copied().unwrap_or(0);
            if queue == most() {
                assert!(begun <= 1, "at-most-once ran twice: task {id}\n{story}");
                continue;
            }
            assert!(begun >= 1, "at-least-once never ran: task {id}\n{story}");
            let ends = self.told.get(&id).copied().unwrap_or(0);
            // The store has it once; a daemon that was killed before it heard of it may never tell.
            assert!(ends <= 1, "task {id} ended {ends} times\n{story}");
            let Answer::Task(Some(found)) = self.ask(Request::Task(id)) else {
                panic!("task {id} is lost\n{story}");
            };
            assert!(
                found.0.state.is_final(),
                "task {id} is {:?}\n{story}",
                found.0.state
            );
        }
    }
}

fn story(seed: u64) -> u32 {
    let dir = tempfile::tempdir().expect("a directory");
    let sqlite = Sqlite::open(&dir.path().join("queue.db"), Box::new(|| {})).expect("opened");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let mut world = World::new(seed, Store::Sqlite(sqlite), runtime);
    let mut steps = 0;
    while !world.is_over() {
        steps += 1;
        assert!(
            steps < STEPS_MAX,
            "seed {seed} does not end\n{}",
            world.story.join("\n")
        );
        if (world.accepted.len() as u64) < TASKS && world.throw(12) == 0 {
            world.push();
        }
        // Often while there is much to lose, never for ever.
        if world.crashes < 40 && world.throw(9) == 0 {
            world.crash();
        }
        world.step();
        if steps % 200 == 0 {
            world.ends_in_the_store();
            world.forget_lost();
        }
    }
    world.check();
    world.crashes
}

impl World {
    /// Ends that a killed daemon could not tell of any more.
    fn ends_in_the_store(&mut self) {
        for id in self.accepted.clone().into_keys() {
            if let Answer::Task(Some(found)) = self.ask(Request::Task(id))
                && found.0.state.is_final()
            {
                self.finals.entry(id).or_insert(1);
            }
        }
    }
}

#[test]
fn ten_thousand_crashes_lose_nothing_and_run_nothing_twice() {
    let (mut crashes, mut seed) = (0, 0);
    while crashes < 10_000 {
        seed += 1;
        crashes += story(seed);
    }
}
