//! Queues that share workers. The store has as many tasks as it is given, and answers at once, or when two tasks have ended.

use crate::queue;
use gaffer_core::name::JobId;
use gaffer_core::queue::dispatch::{Command, Dispatch, Input, Output, Upkept};
use gaffer_core::queue::outcome::Outcome;
use gaffer_core::queue::spec::{Queue, QueueId};
use gaffer_core::queue::task::Handle;
use gaffer_core::time::{Mono, Now, Wall};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

fn id(name: &str) -> QueueId {
    JobId::parse(name).expect("a name")
}

fn member(workers: u32, weight: u32) -> Queue {
    Queue {
        workers,
        weight,
        pool: Some("heavy".into()),
        ..queue()
    }
}

struct World {
    machine: Dispatch,
    ms: u64,
    /// Tasks that wait.
    waiting: BTreeMap<QueueId, u32>,
    /// Tasks that are worked on, oldest first.
    running: VecDeque<(QueueId, i64)>,
    started: BTreeMap<QueueId, u32>,
    most: usize,
    next: i64,
    /// The store takes its time.
    slow: bool,
    late: Vec<Input>,
}

impl World {
    fn new(queues: &[(&str, Queue)]) -> World {
        let mut world = World {
            machine: Dispatch::new(1),
            ms: 1_000,
            waiting: BTreeMap::new(),
            running: VecDeque::new(),
            started: BTreeMap::new(),
            most: 0,
            next: 0,
            slow: false,
            late: Vec::new(),
        };
        for (name, spec) in queues {
            world.tell(Input::Put {
                queue: id(name),
                spec: Arc::new(spec.clone()),
                paused: false,
            });
        }
        world.tell(Input::Orphans(Vec::new()));
        world.tell(Input::Upkept(Some(Upkept::default())));
        world.tell(Input::Recovered);
        world
    }

    fn push(&mut self, name: &str, count: u32) {
        *self.waiting.entry(id(name)).or_default() += count;
        self.tell(Input::Hint(Some(id(name))));
    }

    fn tell(&mut self, input: Input) {
        let now = Now {
            mono: Mono(self.ms * 1_000_000),
            wall: Wall(1),
        };
        let mut open = VecDeque::from([input]);
        while let Some(input) = open.pop_front() {
            let Output { commands, .. } = self.machine.handle(now, input);
            for command in commands {
                open.extend(self.answer(command));
            }
        }
        self.most = self.most.max(self.running.len());
    }

    fn answer(&mut self, command: Command) -> Option<Input> {
        match command {
            Command::Claim { queue, count } => {
                let waiting = self.waiting.entry(queue.clone()).or_default();
                let count = count.min(*waiting);
                *waiting -= count;
                let rows = (0..count).map(|_| {
                    self.next += 1;
                    let mut row = crate::row(self.next);
                    row.queue = queue.clone();
                    row
                });
                let rows = Some(rows.collect());
                let answer = Input::Claimed {
                    queue,
                    rows,
                    again_at: None,
                };
                if self.slow {
                    self.late.push(answer);
                    return None;
                }
                Some(answer)
            }
            Command::Hand { row, .. } => {
                *self.started.entry(row.queue.clone()).or_default() += 1;
                self.running.push_back((row.queue, row.handle.task));
                None
            }
            Command::Settle(settlement) => Some(Input::Settled {
                handle: settlement.handle,
                written: Some(true),
            }),
            _ => None,
        }
    }

    /// The oldest that runs is done.
    fn done(&mut self) -> bool {
        // Two tasks end before the store has answered.
        if self.ms.is_multiple_of(2) || self.running.is_empty() {
            for answer in std::mem::take(&mut self.late) {
                self.tell(answer);
            }
        }
        let Some((_, task)) = self.running.pop_front() else {
            return false;
        };
        self.ms += 1;
        self.tell(Input::Ended {
            handle: Handle { task, token: 1 },
            outcome: Outcome::Done(None),
            gone: true,
        });
        true
    }

    fn started(&self, name: &str) -> u32 {
        self.started.get(&id(name)).copied().unwrap_or(0)
    }
}

/// B3.6: critical 6, default 3, low 1.
#[test]
fn b3_6_workers_of_a_pool_are_shared_by_weight() {
    shared_by_weight(false);
}

#[test]
fn a_queue_whose_claim_is_on_its_way_keeps_its_turn() {
    shared_by_weight(true);
}

fn shared_by_weight(slow: bool) {
    let mut world = World::new(&[
        ("critical", member(4, 6)),
        ("usual", member(2, 3)),
        ("low", member(4, 1)),
    ]);
    for name in ["critical", "usual", "low"] {
        world.push(name, 10_000);
    }
    world.slow = slow;
    for _ in 0..1_000 {
        assert!(world.done());
    }
    assert_eq!(world.most, 4, "as many as the largest of the queues has");
    let [critical, usual, low] = ["critical", "usual", "low"].map(|name| world.started(name));
    let total = f64::from(critical + usual + low);
    let share = |count: u32| (f64::from(count) / total * 100.0).round();
    assert_eq!([share(critical), share(usual), share(low)], [60.0, 30.0, 10.0]);
}

#[test]
fn what_a_queue_cannot_use_is_the_others_now_and_not_its_own_later() {
    let mut world = World::new(&[("a", member(3, 1)), ("b", member(3, 1))]);
    world.push("a", 600);
    for _ in 0..300 {
        world.done();
    }
    assert_eq!((world.started("a"), world.most), (303, 3));
    // It was empty for long; now it gets its half, no more.
    world.push("b", 600);
    for _ in 0..100 {
        world.done();
    }
    let since = world.started("a") - 303;
    assert!((49..=51).contains(&since), "{since}");
    assert!((49..=51).contains(&world.started("b")));
    while world.done() {}
    assert_eq!((world.started("a"), world.started("b")), (600, 600));
    assert_eq!(world.most, 3);
}

#[test]
fn a_queue_keeps_its_own_bound_and_one_without_a_pool_its_own_workers() {
    let mut world = World::new(&[
        ("wide", member(5, 1)),
        ("narrow", member(1, 100)),
        (
            "alone",
            Queue {
                workers: 2,
                ..queue()
            },
        ),
    ]);
    for name in ["narrow", "wide", "alone"] {
        world.push(name, 100);
    }
    let now = |world: &World, name: &str| {
        world
            .running
            .iter()
            .filter(|(queue, _)| *queue == id(name))
            .count()
    };
    for _ in 0..50 {
        assert_eq!(now(&world, "narrow"), 1);
        assert_eq!(now(&world, "wide"), 4);
        assert_eq!(now(&world, "alone"), 2);
        assert_eq!(world.machine.free(&id("narrow")), None);
        assert_eq!(world.machine.free(&id("wide")), None, "its pool is busy");
        world.done();
    }
    let pool = world.machine.pool(&id("wide")).expect("a pool");
    assert_eq!((&*pool.name, pool.workers, pool.busy), ("heavy", 5, 5));
    assert_eq!(world.machine.pool(&id("alone")), None);
}
