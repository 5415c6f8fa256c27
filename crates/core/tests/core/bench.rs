//! A node on a bench: a fake clock, a shim that does at once what it is told, and a transcript.

use gaffer_core::io::*;
use gaffer_core::job::{Job, Launch, Probe, ProbeKind, ReloadHow};
use gaffer_core::name::{JobId, RunId, Slot};
use gaffer_core::time::{Duration, Mono, Now, Wall};
use gaffer_core::{Node, NodeLimits};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

pub struct Bench {
    pub node: Node,
    pub now: Now,
    pub lines: String,
    pub commands: Vec<Command>,
    pub seq: u64,
    pub specs: BTreeMap<JobId, Arc<Job>>,
    /// Spawn and settle as they came.
    pub spawned: Vec<(RunId, Slot, Stamp)>,
    pub settled: Vec<(Slot, Death, Reason)>,
    /// Processes come to be as soon as they are asked for.
    pub obliging: bool,
    births: VecDeque<RunId>,
}

pub fn id(text: &str) -> JobId {
    JobId::parse(text).expect("a name")
}

pub fn spec() -> Job {
    let mut spec = Job::of(Launch::of(vec!["program".into()]));
    spec.retry.jitter = 0.0;
    spec
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

pub fn tcp() -> Probe {
    Probe {
        kind: ProbeKind::Tcp("127.0.0.1:6379".into()),
        every: ms(500),
        timeout: s(2),
        delay: Duration::ZERO,
        successes: 1,
        failures: 1,
    }
}

/// 14:02:00 UTC.
const START: i64 = 20_000 * 86_400_000 + (14 * 60 + 2) * 60_000;

impl Bench {
    pub fn new() -> Bench {
        let mut bench = Bench::unrecovered(1);
        bench.feed(Input::Recovered);
        bench
    }

    pub fn unrecovered(epoch: u32) -> Bench {
        Bench {
            node: Node::with_limits(epoch, 7, NodeLimits::default()),
            now: Now {
                mono: Mono(1_000_000_000_000),
                wall: Wall(START),
            },
            lines: String::new(),
            commands: Vec::new(),
            seq: 0,
            specs: BTreeMap::new(),
            spawned: Vec::new(),
            settled: Vec::new(),
            obliging: true,
            births: VecDeque::new(),
        }
    }

    pub fn feed(&mut self, input: Input) -> &mut Bench {
        let out = self.node.handle(self.now, input);
        self.take(out);
        while let Some(run) = self.births.pop_front() {
            if self.obliging {
                let out = self.node.handle(
                    self.now,
                    Input::Started {
                        run,
                        pid: 4_000 + run.n,
                    },
                );
                self.take(out);
            }
        }
        self
    }

    fn take(&mut self, out: Output) {
        for event in out.events {
            let place = event
                .slot
                .map_or_else(|| event.job.to_string(), |slot| slot.to_string());
            let reason = event
                .reason
                .map(|reason| format!("  {}", reason.text))
                .unwrap_or_default();
            self.line(&format!("{} {place}{reason}", event.event));
        }
        for command in out.commands {
            match &command {
                Command::Spawn {
                    run,
                    slot,
                    stamp,
                    attempt,
                    ..
                } => {
                    self.line(&format!("  spawn {slot} attempt {attempt}"));
                    self.spawned.push((*run, slot.clone(), *stamp));
                    self.births.push_back(*run);
                }
                Command::Stand { slot, attempt, .. } => {
                    self.line(&format!("  leave an order for {slot}, attempt {attempt}"));
                }
                Command::Withdraw { .. } => self.line("  withdraw the order"),
                Command::Signal { signal: 18, .. } | Command::Settle { .. } => {
                    if let Command::Settle { slot, death, reason } = &command {
                        self.settled.push((slot.clone(), death.clone(), reason.clone()));
                    }
                }
                Command::Signal { signal, to, run } => {
                    let place = self
                        .node
                        .instance_of(*run)
                        .map(|slot| slot.to_string())
                        .unwrap_or_default();
                    self.line(&format!("  signal {signal} to {to:?} of {place}"));
                }
                Command::KillTree { run } => {
                    let place = self
                        .node
                        .instance_of(*run)
                        .map(|slot| slot.to_string())
                        .unwrap_or_default();
                    self.line(&format!("  kill the tree of {place}"));
                }
                Command::Freeze { on, .. } => self.line(if *on { "  freeze" } else { "  thaw" }),
                Command::Probe { role, .. } => self.line(&format!("  probe {role:?}")),
                Command::ProbeEnd { .. } => self.line("  end of probing"),
                Command::RunStopCmd { cmd, .. } => self.line(&format!("  run {}", cmd.join(" "))),
                Command::Forget { slot, job } => {
                    let what = slot
                        .as_ref()
                        .map_or_else(|| job.to_string(), |slot| slot.to_string());
                    self.line(&format!("  forget {what}"));
                }
                Command::EndNode { code, job } => {
                    self.line(&format!("  end the node with {code} because of {job}"))
                }
                Command::ShutdownDone => self.line("  shutdown is done"),
                Command::Drained => self.line("  drained"),
            }
            self.commands.push(command);
        }
    }

    fn line(&mut self, text: &str) {
        let passed = (self.now.mono.0 - 1_000_000_000_000) / 1_000_000;
        let _ = writeln!(self.lines, "{:>3}.{:03} {text}", passed / 1_000, passed % 1_000);
    }

    /// The clock goes on, deadline by deadline.
    pub fn pass(&mut self, by: Duration) -> &mut Bench {
        let end = self.now.mono.plus(by);
        while let Some(at) = self.node.next_deadline().filter(|at| *at <= end) {
            let at = at.max(self.now.mono);
            self.go_to(at);
            self.feed(Input::Tick);
        }
        self.go_to(end);
        self
    }

    fn go_to(&mut self, at: Mono) {
        let by = at.since(self.now.mono);
        self.now = Now {
            mono: at,
            wall: self.now.wall.plus(by),
        };
    }

    pub fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    pub fn put(&mut self, job: &str, spec: Job) -> &mut Bench {
        let digest = spec
            .launch
            .cmd
            .iter()
            .flat_map(|word| word.bytes())
            .map(u64::from)
            .sum();
        let state = if spec.start {
            WishState::Running
        } else {
            WishState::Stopped
        };
        self.put_with(job, spec, digest, state)
    }

    pub fn put_with(&mut self, job: &str, spec: Job, digest: u64, state: WishState) -> &mut Bench {
        let seq = if self.specs.contains_key(&id(job)) {
            0
        } else {
            self.next_seq()
        };
        let wish = Wish {
            state,
            seq,
            restart: 0,
        };
        let spec = Arc::new(spec);
        self.specs.insert(id(job), spec.clone());
        self.feed(Input::JobPut {
            job: id(job),
            spec,
            launch_digest: digest,
            wish,
            scaled: None,
            by: "gaffer.toml".into(),
        })
    }

    pub fn wish(&mut self, job: &str, state: WishState) -> &mut Bench {
        self.ask(job, None, state, false, How::default())
    }

    pub fn stop(&mut self, job: &str) -> &mut Bench {
        self.wish(job, WishState::Stopped)
    }

    pub fn start(&mut self, job: &str) -> &mut Bench {
        self.wish(job, WishState::Running)
    }

    pub fn restart(&mut self, job: &str) -> &mut Bench {
        self.ask(job, None, WishState::Running, true, How::default())
    }

    pub fn ask(
        &mut self,
        job: &str,
        instance: Option<u32>,
        state: WishState,
        restart: bool,
        how: How,
    ) -> &mut Bench {
        let seq = self.next_seq();
        let wish = Wish {
            state,
            seq,
            restart: if restart { seq } else { 0 },
        };
        self.feed(Input::Wished {
            job: id(job),
            instance,
            wish,
            how,
            by: "ana".into(),
        })
    }

    pub fn scale(&mut self, job: &str, to: u32) -> &mut Bench {
        self.feed(Input::Scaled {
            job: id(job),
            to: Some(to),
            by: "ana".into(),
        })
    }

    pub fn reload(&mut self, job: &str, how: Option<ReloadHow>) -> &mut Bench {
        let seq = self.next_seq();
        self.feed(Input::Reloaded {
            job: id(job),
            instance: None,
            how,
            seq,
            by: "ana".into(),
        })
    }

    pub fn started(&mut self, run: RunId) -> &mut Bench {
        self.feed(Input::Started {
            run,
            pid: 4_000 + run.n,
        })
    }

    pub fn view(&self, job: &str) -> JobView {
        self.node.job_view(&id(job)).expect("known")
    }

    pub fn instance(&self, slot: &str) -> InstanceView {
        let slot = Slot::parse(slot).expect("a slot");
        let view = self.node.job_view(&slot.job).expect("known");
        view.instances
            .into_iter()
            .find(|one| one.slot == slot)
            .expect("shown")
    }

    pub fn state(&self, slot: &str) -> State {
        self.instance(slot).state
    }

    /// Live run of a slot.
    pub fn run(&self, slot: &str) -> RunId {
        self.instance(slot).run.expect("a run")
    }

    pub fn end(status: Status, at: Now, lived: Duration) -> End {
        End {
            status,
            oom: false,
            at: at.wall,
            lived,
        }
    }

    pub fn exits(&mut self, slot: &str, status: Status) -> &mut Bench {
        self.exits_with(slot, status, 0)
    }

    pub fn exits_with(&mut self, slot: &str, status: Status, survivors: u32) -> &mut Bench {
        let one = self.instance(slot);
        let lived = one
            .started
            .map_or(Duration::ZERO, |started| self.now.wall.since(started));
        let end = Bench::end(status, self.now, lived);
        self.feed(Input::Exited {
            run: one.run.expect("a run"),
            end,
            survivors,
            successor: None,
        })
    }

    pub fn start_fails(&mut self, slot: &str) -> &mut Bench {
        let run = self.run(slot);
        let text = "cannot run bin/web: no such file (exec, ENOENT)".into();
        self.feed(Input::StartFailed {
            run,
            stage: "exec".into(),
            errno: 2,
            text,
        })
    }

    pub fn probed(&mut self, slot: &str, role: ProbeRole, result: Result<&str, &str>) -> &mut Bench {
        let run = self.run(slot);
        let result = result.map(Arc::from).map_err(Arc::from);
        self.feed(Input::Probed { run, role, result })
    }

    pub fn reason(&self, slot: &str) -> String {
        self.instance(slot)
            .reason
            .map(|reason| reason.text.to_string())
            .unwrap_or_default()
    }

    /// The transcript since the last time, without its times.
    pub fn told(&mut self) -> Vec<String> {
        let lines = std::mem::take(&mut self.lines);
        lines.lines().map(|line| line[8..].to_owned()).collect()
    }

    pub fn spawns(&self, job: &str) -> usize {
        self.spawned
            .iter()
            .filter(|(_, slot, _)| slot.job == id(job))
            .count()
    }

    pub fn compare(&self, expected: &str) {
        let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
        let got: Vec<&str> = self.lines.trim().lines().map(str::trim).collect();
        assert_eq!(got, expected, "\n{}", self.lines);
    }
}
