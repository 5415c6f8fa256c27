//! The simulator: the real core in a fake world, from a seed.
//!
//! Between any two steps the daemon may be killed; then a new core is built from the store and the journal.
//! The shim may be killed or fall silent, requests linger in the socket, commands and facts come twice,
//! bells are lost, starts fail, processes leave others behind, ignore signals or sleep uninterruptibly,
//! the wall clock jumps, and an operator does whatever comes to mind.
//!
//! What has to hold, whatever happens:
//!
//! 1. A slot never has two live runs, and none is ever asked for.
//! 2. What is to be down is down within its grace, KILL included, while somebody is there to see to it.
//! 3. A wish to be up, within policy, ends running.
//! 4. Every end of a process is settled exactly once.
//! 5. An end that was asked for is never taken for a failure.
//! 6. The same seed gives the same transcript.

#[path = "sim_check.rs"]
mod check;
#[path = "sim_engine.rs"]
mod engine;
#[path = "sim_operator.rs"]
mod operator;
#[path = "sim_world.rs"]
mod world;

use engine::Engine;
use gaffer_core::io::Input;
use gaffer_core::time::{Duration, Mono, Wall};
use std::collections::VecDeque;
use std::fmt;
use world::{Later, World};

/// How long and how hard.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Steps of chaos; then everything calms down and has to come right.
    pub steps: u64,
    /// One step in so many kills the daemon; 0: never.
    pub kill_one_in: u64,
    /// Keep every line, not only the newest ones.
    pub whole_transcript: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            steps: 1_500,
            kill_one_in: 60,
            whole_transcript: false,
        }
    }
}

/// What a seed did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Steps of the world.
    pub steps: u64,
    /// Times the daemon was killed.
    pub kills: u64,
    /// Runs started.
    pub spawns: u64,
    /// Of these, started by a standing order.
    pub succeeded: u64,
    /// Digest of the transcript.
    pub digest: u64,
}

/// A sentence that did not hold, and how it came to that.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Of this seed.
    pub seed: u64,
    /// Which sentence, about what.
    pub what: String,
    /// The newest lines of the transcript.
    pub transcript: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.transcript {
            writeln!(f, "{line}")?;
        }
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

/// Lines kept of a transcript.
const LINES_KEPT: usize = 300;
/// Longest the world may take to come right once it is calm.
const CALM: Duration = Duration::from_secs(400);
/// Most steps for that.
const CALM_STEPS: u64 = 60_000;

/// The transcript: all of it as a digest, its end as lines.
pub(crate) struct Transcript {
    lines: VecDeque<String>,
    keep: usize,
    digest: u64,
}

impl Transcript {
    fn new(whole: bool) -> Transcript {
        Transcript {
            lines: VecDeque::new(),
            keep: if whole { usize::MAX } else { LINES_KEPT },
            digest: 0xcbf2_9ce4_8422_2325,
        }
    }

    fn line(&mut self, at: Mono, text: &str) {
        let line = format!("{:>10}ms {text}", at.0 / 1_000_000);
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.lines.push_back(line);
        if self.lines.len() > self.keep {
            self.lines.pop_front();
        }
    }
}

pub(crate) struct Sim {
    pub world: World,
    pub engine: Option<Engine>,
    pub log: Transcript,
    pub stats: Stats,
    /// The next daemon comes then.
    pub restart_at: Option<Mono>,
    pub next_operator: Mono,
    pub one_offs: u64,
}

/// One seed. The same seed and options do the same on every machine.
pub fn run(seed: u64, options: Options) -> Result<Stats, Failure> {
    let world = World::new(seed);
    let mut sim = Sim {
        next_operator: world.now.mono,
        restart_at: Some(world.now.mono),
        world,
        engine: None,
        log: Transcript::new(options.whole_transcript),
        stats: Stats::default(),
        one_offs: 0,
    };
    match sim.live(options) {
        Ok(()) => {
            sim.stats.spawns = sim.world.spawns;
            sim.stats.succeeded = sim.world.succeeded;
            sim.stats.digest = sim.log.digest;
            Ok(sim.stats)
        }
        Err(what) => Err(Failure {
            seed,
            what,
            transcript: sim.log.lines.into(),
        }),
    }
}

/// Seeds `0..seeds`, with a line for every hundredth; stops at the first that fails.
pub fn run_many(seeds: u64, mut print: impl FnMut(&str)) -> Result<Stats, Box<Failure>> {
    let mut all = Stats::default();
    for seed in 0..seeds {
        let stats = run(seed, Options::default()).map_err(|mut failure| {
            failure
                .transcript
                .push(format!("again: cargo xtask sim --seed {seed}"));
            Box::new(failure)
        })?;
        all.steps += stats.steps;
        all.kills += stats.kills;
        all.spawns += stats.spawns;
        all.succeeded += stats.succeeded;
        all.digest = all.digest.rotate_left(7) ^ stats.digest;
        if (seed + 1) % 100 == 0 || seed + 1 == seeds {
            let Stats {
                steps, kills, spawns, ..
            } = all;
            print(&format!(
                "{} seeds, {steps} steps, {kills} daemons killed, {spawns} runs",
                seed + 1
            ));
        }
    }
    Ok(all)
}

impl Sim {
    fn live(&mut self, options: Options) -> Result<(), String> {
        while self.stats.steps < options.steps {
            self.step()?;
            self.chaos(options);
        }
        self.calm_down()?;
        self.say("calm: only the programs' own ways from now on");
        let end = self.world.now.mono.plus(CALM);
        let limit = self.stats.steps + CALM_STEPS;
        while self.world.now.mono < end && !self.quiet() {
            self.step()?;
            if self.stats.steps > limit {
                return Err("it never comes to rest".into());
            }
        }
        self.check_calm()?;
        self.end_of_node(end)
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.log.line(self.world.now.mono, text);
    }

    /// Nothing will happen any more by itself.
    fn quiet(&self) -> bool {
        let Some(engine) = &self.engine else { return false };
        let next = engine.node.next_deadline();
        let busy = !engine.is_quiet() || !self.world.socket.is_empty() || self.world.bell;
        !busy && self.world.later.is_empty() && next.is_none()
    }

    /// One step: something small, or the clock goes on.
    fn step(&mut self) -> Result<(), String> {
        self.stats.steps += 1;
        self.check_step()?;
        if self.engine.is_none() {
            if self.restart_at.is_some_and(|at| at <= self.world.now.mono) {
                return self.start_daemon();
            }
        } else if self.engine_step()? {
            return Ok(());
        }
        let reads = !self.world.socket.is_empty() && !self.world.frozen_shim;
        if reads && (self.world.below(3) > 0 || self.engine.is_none()) {
            if let Some(line) = self.world.shim_reads()? {
                self.say(&line);
            }
            return Ok(());
        }
        self.time_goes_on()
    }

    fn time_goes_on(&mut self) -> Result<(), String> {
        let deadline = self
            .engine
            .as_ref()
            .and_then(|engine| engine.node.next_deadline());
        let happening = self.world.later.first().map(|(at, _, _)| *at);
        let operator = (!self.world.temper.calm).then_some(self.next_operator);
        let restart = self.restart_at.filter(|_| self.engine.is_none());
        let nothing = self.world.now.mono.plus(Duration::from_secs(60));
        let next = [deadline, happening, operator, restart]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(nothing);
        // Requests and bells under way take milliseconds, not as long as the next thing is away.
        let under_way = !self.world.socket.is_empty() && !self.world.frozen_shim
            || self.world.bell && self.engine.is_some();
        let soon = self.world.ms(0, 3);
        let next = if under_way {
            next.min(self.world.now.mono.plus(soon))
        } else {
            next
        };
        self.world.advance(next);
        if deadline.is_some_and(|at| at <= self.world.now.mono) {
            self.feed(Input::Tick);
            return Ok(());
        }
        let due = self
            .world
            .later
            .first()
            .is_some_and(|(at, _, _)| *at <= self.world.now.mono);
        if due && let Some((_, _, what)) = self.world.later.pop_first() {
            let thaw = what == Later::Thaw;
            if let Some(line) = self.world.happen(what) {
                self.say(&line);
            }
            if thaw {
                self.tell_silence(false);
            }
            return Ok(());
        }
        if operator.is_some_and(|at| at <= self.world.now.mono) {
            let pause = if self.world.below(3) == 0 {
                self.world.ms(0, 20)
            } else {
                self.world.ms(20, 20_000)
            };
            self.next_operator = self.world.now.mono.plus(pause);
            self.operate();
        }
        Ok(())
    }

    fn chaos(&mut self, options: Options) {
        if options.kill_one_in > 0 && self.engine.is_some() && self.world.below(options.kill_one_in) == 0 {
            self.say("KILL daemon");
            self.stats.kills += 1;
            self.engine = None;
            self.world.refused.clear();
            self.forget_intentions();
            let pause = if self.world.below(2) == 0 {
                Duration::ZERO
            } else {
                self.world.ms(0, 20_000)
            };
            self.restart_at = Some(self.world.now.mono.plus(pause));
        }
        if self.world.below(700) == 0 {
            let line = self.world.kill_shim();
            self.say(&line);
            self.tell_silence(false);
        }
        if self.world.below(300) == 0 && !self.world.frozen_shim {
            self.say("shim: falls silent");
            self.world.frozen_shim = true;
            let pause = self.world.ms(10, 40_000);
            self.world.at(pause, Later::Thaw);
            self.forget_down_times();
            self.tell_silence(true);
        }
        if self.world.below(200) == 0 {
            let by = self.world.below(2 * 365 * 86_400_000) as i64 - 365 * 86_400_000;
            self.world.now.wall = Wall(self.world.now.wall.0 + by);
            self.say("the wall clock jumps");
        }
    }

    fn calm_down(&mut self) -> Result<(), String> {
        self.world.temper.calm = true;
        if self.world.frozen_shim {
            self.world.frozen_shim = false;
            self.tell_silence(false);
        }
        for proc in self.world.procs.values_mut() {
            proc.sick = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Options, run};

    #[test]
    fn two_hundred_seeds_keep_every_promise() {
        for seed in 0..200 {
            if let Err(failure) = run(seed, Options::default()) {
                panic!("{failure}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_transcript() {
        for seed in [3, 77] {
            let first = run(seed, Options::default()).expect("holds");
            let second = run(seed, Options::default()).expect("holds");
            assert_eq!(first, second);
        }
    }

    #[test]
    fn without_kills_the_promises_hold_as_well() {
        for seed in 1_000..1_030 {
            let options = Options {
                kill_one_in: 0,
                ..Options::default()
            };
            if let Err(failure) = run(seed, options) {
                panic!("{failure}");
            }
        }
    }
}
