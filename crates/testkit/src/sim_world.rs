//! The fake world: what is durable (store, journal), what lives beside the daemon (shim, processes), and the
//! clock. It obeys the rules of the real one (compare-and-swap per slot, fence by epoch, facts on file
//! before anyone is told) and is as nasty as they allow.

use gaffer_core::io::{Command, Death, End, Stamp, Status, Successor, Wish};
use gaffer_core::job::{Job, Launch, ReloadHow};
use gaffer_core::name::{JobId, RunId, Slot};
use gaffer_core::retry::Dice;
use gaffer_core::time::{Duration, Mono, Now, Wall};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A job as the store has it.
#[derive(Clone, Debug)]
pub struct StoredJob {
    pub spec: Arc<Job>,
    pub digest: u64,
    pub wish: Wish,
    pub scaled: Option<u32>,
    pub overrides: BTreeMap<u32, Wish>,
    pub reload: Option<(u64, Option<ReloadHow>)>,
    pub removed: bool,
    /// Some definition so far allowed it to end for good.
    pub may_end: bool,
}

/// Intent and history. Survives everything.
#[derive(Default)]
pub struct Store {
    pub jobs: BTreeMap<JobId, StoredJob>,
    pub one_offs: BTreeMap<Slot, Arc<Launch>>,
    pub history: BTreeMap<RunId, (Slot, Death)>,
    pub seq: u64,
    pub epoch: u32,
}

/// A fact on file.
#[derive(Clone, Debug)]
pub enum Record {
    Intent {
        run: RunId,
        slot: Slot,
        stamp: Stamp,
    },
    Started {
        run: RunId,
        pid: u32,
    },
    StartFailed {
        run: RunId,
    },
    NotStarted {
        run: RunId,
    },
    Exited {
        run: RunId,
        end: End,
        survivors: u32,
        successor: Option<Successor>,
    },
    TreeGone {
        run: RunId,
    },
}

impl Record {
    pub fn run(&self) -> RunId {
        match self {
            Record::Intent { run, .. } | Record::Started { run, .. } | Record::StartFailed { run } => *run,
            Record::NotStarted { run } | Record::Exited { run, .. } | Record::TreeGone { run } => *run,
        }
    }
}

/// A process, or what is left of it.
#[derive(Clone, Debug)]
pub struct Proc {
    pub slot: Slot,
    pub born: Option<Now>,
    pub frozen: bool,
    /// Processes of its tree beside the main one.
    pub others: u32,
    pub main_ended: bool,
    pub over: bool,
    /// A stop reached it.
    pub asked: bool,
    /// KILL reached it, or rather its shim.
    pub kill_asked: bool,
    pub obeys: bool,
    pub ready_after: Duration,
    pub sick: bool,
    /// When it should have been gone, if it should be.
    pub down_since: Option<Mono>,
}

/// What happens later in the world.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Later {
    Birth(RunId),
    EndOfMain(RunId, i32, bool),
    EndOfOthers(RunId),
    Killed(RunId),
    Thaw,
    ShimReads,
}

/// How nasty it is.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// Everything goes well from now on.
    pub calm: bool,
}

pub struct World {
    pub now: Now,
    pub dice: Dice,
    pub temper: Temper,
    pub store: Store,
    pub journal: Vec<Record>,
    pub procs: BTreeMap<RunId, Proc>,
    /// Last run of each slot that had an intent and was not taken back.
    pub last: BTreeMap<Slot, RunId>,
    /// Requests written by the daemon and not read by the shim.
    pub socket: VecDeque<Command>,
    /// Standing orders, by the live run they stand beside.
    pub orders: BTreeMap<RunId, (Successor, Slot)>,
    /// Orders that were carried out.
    pub succeeded: u64,
    pub frozen_shim: bool,
    pub later: BTreeSet<(Mono, u64, Later)>,
    /// Runs that were refused; the answer goes to the daemon if it lives.
    pub refused: Vec<(RunId, String)>,
    /// Refused once, refused for ever.
    turned_away: BTreeSet<RunId>,
    /// A bell rang.
    pub bell: bool,
    pub ended: BTreeMap<RunId, EndedHow>,
    pub spawns: u64,
    counter: u64,
    next_pid: u32,
}

/// What the checker has to know about an end.
#[derive(Clone, Debug)]
pub struct EndedHow {
    pub intended: bool,
}

impl World {
    pub fn new(seed: u64) -> World {
        World {
            now: Now {
                mono: Mono(1_000_000_000),
                wall: Wall(1_795_000_000_000),
            },
            dice: Dice::new(seed),
            temper: Temper { calm: false },
            store: Store::default(),
            journal: Vec::new(),
            procs: BTreeMap::new(),
            last: BTreeMap::new(),
            socket: VecDeque::new(),
            orders: BTreeMap::new(),
            succeeded: 0,
            frozen_shim: false,
            later: BTreeSet::new(),
            refused: Vec::new(),
            turned_away: BTreeSet::new(),
            bell: false,
            ended: BTreeMap::new(),
            spawns: 0,
            counter: 0,
            next_pid: 100,
        }
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.dice.next_u64() % n.max(1)
    }

    /// True `percent` times in a hundred; never when calm.
    pub fn chance(&mut self, percent: u64) -> bool {
        let thrown = self.below(100) < percent;
        thrown && !self.temper.calm
    }

    pub fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }

    pub fn at(&mut self, after: Duration, what: Later) {
        self.counter += 1;
        self.later.insert((self.now.mono.plus(after), self.counter, what));
    }

    pub fn advance(&mut self, to: Mono) {
        let by = to.since(self.now.mono);
        self.now = Now {
            mono: self.now.mono.max(to),
            wall: self.now.wall.plus(by),
        };
    }

    fn append(&mut self, record: Record) {
        self.journal.push(record);
        self.bell = true;
    }

    /// What was written and read by the shim before it was fenced.
    pub fn shim_reads(&mut self) -> Result<Option<String>, String> {
        if self.frozen_shim {
            return Ok(None);
        }
        let Some(command) = self.socket.pop_front() else {
            return Ok(None);
        };
        match command {
            Command::Spawn {
                run,
                slot,
                after,
                stamp,
                ..
            } => self.spawn(run, slot, after, stamp).map(Some),
            Command::Stand {
                after,
                run,
                slot,
                stamp,
                ..
            } => {
                self.orders.remove(&after);
                if self
                    .procs
                    .get(&after)
                    .is_some_and(|proc| !proc.main_ended && !proc.over)
                {
                    self.orders.insert(after, (Successor { run, stamp }, slot));
                }
                Ok(None)
            }
            Command::Withdraw { run } => {
                self.orders.remove(&run);
                Ok(None)
            }
            Command::Signal { run, signal, .. } => {
                self.orders.remove(&run);
                self.signal(run, signal);
                Ok(None)
            }
            Command::RunStopCmd { run, .. } => {
                self.signal(run, 15);
                Ok(None)
            }
            Command::KillTree { run } => {
                self.orders.remove(&run);
                self.kill_tree(run);
                Ok(None)
            }
            Command::Freeze { run, on } => {
                self.orders.remove(&run);
                if let Some(proc) = self.procs.get_mut(&run) {
                    proc.frozen = on;
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn spawn(
        &mut self,
        run: RunId,
        slot: Slot,
        after: Option<RunId>,
        stamp: Stamp,
    ) -> Result<String, String> {
        if self.procs.contains_key(&run) || self.turned_away.contains(&run) {
            return Ok(format!("shim: {run} is known already"));
        }
        let last = self.last.get(&slot).copied();
        if let Some(live) = last.filter(|last| !self.procs[last].over) {
            return Err(format!(
                "a second run of {slot} was asked for: {run} beside {live}"
            ));
        }
        if last != after {
            return Err(format!(
                "spawn of {slot} after {after:?}, but the last run is {last:?}"
            ));
        }
        if self.chance(2) {
            self.turned_away.insert(run);
            self.refused.push((run, "no descriptors left".into()));
            return Ok(format!("shim: refuses {run}"));
        }
        self.begin(run, slot.clone(), stamp);
        Ok(format!("shim: accepts {run} in {slot}"))
    }

    fn begin(&mut self, run: RunId, slot: Slot, stamp: Stamp) {
        self.spawns += 1;
        self.last.insert(slot.clone(), run);
        let obeys = !self.chance(15);
        let ready_after = if self.chance(20) {
            self.ms(0, 90_000)
        } else {
            self.ms(0, 400)
        };
        let sick = self.chance(5);
        self.procs.insert(
            run,
            Proc {
                slot: slot.clone(),
                born: None,
                frozen: false,
                others: 0,
                main_ended: false,
                over: false,
                asked: false,
                kill_asked: false,
                obeys,
                ready_after,
                sick,
                down_since: None,
            },
        );
        self.append(Record::Intent { run, slot, stamp });
        let soon = self.ms(0, 3);
        self.at(soon, Later::Birth(run));
    }

    fn signal(&mut self, run: RunId, signal: i32) {
        // HUP and CONT do nothing to these programs.
        let Some(proc) = self
            .procs
            .get_mut(&run)
            .filter(|proc| !proc.over && proc.born.is_some())
        else {
            return;
        };
        if signal != 15 {
            return;
        }
        proc.asked = true;
        if !proc.obeys {
            return;
        }
        let (main_ended, others) = (proc.main_ended, proc.others);
        if !main_ended {
            let soon = self.ms(0, 3_000);
            let (code, by_signal) = if self.below(2) == 0 {
                (0, false)
            } else {
                (15, true)
            };
            self.at(soon, Later::EndOfMain(run, code, by_signal));
        } else if others > 0 {
            let soon = self.ms(0, 2_000);
            self.at(soon, Later::EndOfOthers(run));
        }
    }

    fn kill_tree(&mut self, run: RunId) {
        let Some(proc) = self.procs.get_mut(&run).filter(|proc| !proc.over) else {
            return;
        };
        proc.asked = true;
        proc.kill_asked = true;
        // Uninterruptible sleep.
        let soon = if self.chance(3) {
            self.ms(1_000, 25_000)
        } else {
            self.ms(0, 40)
        };
        self.at(soon, Later::Killed(run));
    }

    /// Something that was planned happens, if it still can.
    pub fn happen(&mut self, what: Later) -> Option<String> {
        if self.frozen_shim && !matches!(what, Later::Thaw) {
            let soon = self.ms(50, 500);
            self.at(soon, what);
            return None;
        }
        match what {
            Later::Birth(run) => self.birth(run),
            Later::EndOfMain(run, code, by_signal) => self.end_of_main(run, code, by_signal),
            Later::EndOfOthers(run) => self.end_of_others(run),
            Later::Killed(run) => {
                if !self.procs[&run].main_ended && self.procs[&run].born.is_some() {
                    if let Some(proc) = self.procs.get_mut(&run) {
                        proc.others = 0;
                        proc.frozen = false;
                    }
                    return self.end_of_main(run, 9, true);
                }
                if self.procs[&run].born.is_none() {
                    return self.fail_birth(run, "killed");
                }
                self.end_of_others(run)
            }
            Later::Thaw => {
                self.frozen_shim = false;
                Some("shim: answers again".into())
            }
            Later::ShimReads => None,
        }
    }

    fn fail_birth(&mut self, run: RunId, why: &str) -> Option<String> {
        let proc = self.procs.get_mut(&run).filter(|proc| !proc.over)?;
        proc.over = true;
        self.append(Record::StartFailed { run });
        self.ended.insert(run, EndedHow { intended: false });
        Some(format!("shim: {run} does not start: {why}"))
    }

    fn birth(&mut self, run: RunId) -> Option<String> {
        if self.procs[&run].over || self.procs[&run].born.is_some() {
            return None;
        }
        if self.chance(6) {
            return self.fail_birth(run, "no such file");
        }
        let now = self.now;
        let lives = match self.chance(60) {
            true => Some(if self.chance(40) {
                self.ms(0, 300)
            } else {
                self.ms(300, 100_000)
            }),
            false => None,
        };
        let code = if self.chance(60) { 1 } else { 0 };
        let segv = self.chance(10);
        self.next_pid += 1;
        let pid = self.next_pid;
        if let Some(proc) = self.procs.get_mut(&run) {
            proc.born = Some(now);
        }
        self.append(Record::Started { run, pid });
        if let Some(lives) = lives {
            let how = if segv { (11, true) } else { (code, false) };
            self.at(lives, Later::EndOfMain(run, how.0, how.1));
        }
        Some(format!("{run}: is born, pid {pid}"))
    }

    fn end_of_main(&mut self, run: RunId, code: i32, by_signal: bool) -> Option<String> {
        let leaves = self.chance(10);
        let others = if leaves && code != 9 {
            1 + self.below(3) as u32
        } else {
            0
        };
        let now = self.now;
        let proc = self.procs.get_mut(&run)?;
        if proc.over || proc.main_ended {
            return None;
        }
        if proc.frozen && code != 9 {
            self.at(Duration::from_secs(1), Later::EndOfMain(run, code, by_signal));
            return None;
        }
        let born = proc.born?;
        proc.main_ended = true;
        proc.others = others;
        proc.over = others == 0;
        let intended = proc.asked && proc.down_since.is_some();
        let status = if by_signal {
            Status::Signal(code, false)
        } else {
            Status::Code(code)
        };
        let end = End {
            status,
            oom: false,
            at: now.wall,
            lived: now.mono.since(born.mono),
        };
        self.ended.insert(run, EndedHow { intended });
        let order = self.orders.remove(&run).filter(|_| others == 0);
        self.append(Record::Exited {
            run,
            end,
            survivors: others,
            successor: order.as_ref().map(|(successor, _)| *successor),
        });
        if let Some((Successor { run: next, stamp }, slot)) = order {
            self.succeeded += 1;
            self.begin(next, slot, stamp);
            return Some(format!("{run}: ends with {status:?}; {next} follows by order"));
        }
        if others > 0 && self.chance(30) {
            let soon = self.ms(0, 8_000);
            self.at(soon, Later::EndOfOthers(run));
        }
        Some(format!("{run}: ends with {status:?}, {others} left"))
    }

    fn end_of_others(&mut self, run: RunId) -> Option<String> {
        let proc = self
            .procs
            .get_mut(&run)
            .filter(|proc| !proc.over && proc.main_ended)?;
        proc.over = true;
        proc.others = 0;
        self.append(Record::TreeGone { run });
        Some(format!("{run}: its tree is gone"))
    }

    /// The shim is killed, with all it had: the guard (or nobody) saw the ends.
    pub fn kill_shim(&mut self) -> String {
        for command in std::mem::take(&mut self.socket) {
            if let Command::Spawn { run, .. } = command
                && !self.procs.contains_key(&run)
            {
                self.refused.push((run, "lost with its shim".into()));
            }
        }
        self.frozen_shim = false;
        self.orders.clear();
        let seen = self.below(2) == 0;
        let runs: Vec<RunId> = self
            .procs
            .iter()
            .filter(|(_, proc)| !proc.over)
            .map(|(run, _)| *run)
            .collect();
        for run in &runs {
            let proc = &self.procs[run];
            if proc.born.is_none() {
                self.take_back(*run);
            } else if proc.main_ended {
                self.end_of_others(*run);
            } else {
                let (now, born) = (self.now, proc.born.map_or(self.now.mono, |born| born.mono));
                let status = if seen {
                    Status::Signal(9, false)
                } else {
                    Status::Unknown
                };
                let intended = proc.asked && proc.down_since.is_some();
                if let Some(proc) = self.procs.get_mut(run) {
                    proc.main_ended = true;
                    proc.over = true;
                }
                self.ended.insert(*run, EndedHow { intended });
                let end = End {
                    status,
                    oom: false,
                    at: now.wall,
                    lived: now.mono.since(born),
                };
                self.append(Record::Exited {
                    run: *run,
                    end,
                    survivors: 0,
                    successor: None,
                });
            }
        }
        format!("KILL shim: {} runs end", runs.len())
    }

    /// An intent without a birth: it never was, and the slot's last run is the one before.
    fn take_back(&mut self, run: RunId) {
        let Some(proc) = self.procs.get_mut(&run) else {
            return;
        };
        proc.over = true;
        let slot = proc.slot.clone();
        self.append(Record::NotStarted { run });
        let taken_back: BTreeSet<RunId> = self
            .journal
            .iter()
            .filter(|record| matches!(record, Record::NotStarted { .. }))
            .map(Record::run)
            .collect();
        let before = self.journal.iter().filter_map(|record| match record {
            Record::Intent { run, slot: of, .. } if *of == slot && !taken_back.contains(run) => Some(*run),
            _ => None,
        });
        match before.max() {
            Some(before) => self.last.insert(slot, before),
            None => self.last.remove(&slot),
        };
    }
}
