//! One place of a job and the run in it: the instance machine.
//!
//! **Wish and state are two variables.** [`Want`] is set by the job's machine; [`Life`] moves by the
//! table in [`table`] and nowhere else. A seat never decides *whether* it may start (dependencies, turn,
//! roll-out): it says `Waiting` and is told `Go`, or is told `Replace`.
//!
//! **Interruptions.** A newer wish wins at once while nothing runs, and after the tree is gone while a
//! run is being ended: what ends is never taken back, so there is never a moment with two runs. A stop
//! asked for before the process exists is kept until `Started`, then sent. A stop of a frozen run thaws it.
//!
//! **What is lost with the daemon** is found again: the run and its [`Stamp`] by `SlotFound`, the pace of
//! retries by the deaths in it, everything else by the wishes.

mod adopt;
mod docs;
mod endings;
mod probes;
mod stopping;
pub mod table;

pub use docs::state_table_markdown;

use crate::io::{Actor, Command, End, Event, Found, How, Input, Output, ProbeRole, Reason, Stamp, Successor};
use crate::job::{Job, Launch, Scope};
use crate::name::{JobId, Place, RunId, Slot};
use crate::reason::{self, Zone};
use crate::retry::{Crashes, Dice, History, delay_after_not_started};
use crate::time::{Duration, Mono, Now, Wall};
use probes::Probes;
use std::sync::Arc;
use table::{Cue, Level, Phase, Rule};

/// SIGCONT on Linux: follows a stop signal, since a stopped process cannot obey it.
const SIGCONT: i32 = 18;
/// SIGKILL.
const SIGKILL: i32 = 9;
/// How long after KILL a run counts as stuck, and how often KILL is repeated then.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);
/// Longest grace for what a main process left behind.
const SURVIVOR_GRACE_MAX: Duration = Duration::from_secs(5);

/// What is wished for a seat, and what explains it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Want {
    /// Up, down or frozen.
    pub level: Level,
    /// Why down.
    pub why: Why,
    /// Intent number of the wish: a greater one renews it.
    pub seq: u64,
    /// Runs born under a smaller number are outdated.
    pub restart: u64,
    /// Whose doing.
    pub by: Actor,
    /// Details of the stop.
    pub how: How,
}

/// Why a run is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Wish.
    Stop,
    /// Fewer instances.
    Scale,
    /// The job goes.
    Remove,
    /// The node goes.
    Shutdown,
    /// A job that it depends on is gone.
    With,
    /// `restart`.
    Restart,
    /// `reload`, or a new definition.
    Reload,
    /// The other lane took over, or was given up.
    Lane,
    /// `ready.within`.
    Unready,
    /// `health`.
    Unhealthy,
    /// Crash loop of the whole job.
    Halt,
    /// Nobody asked: the main process ended and left others behind.
    Survivors,
}

/// What a seat is told. Facts carry no run: whoever tells has checked that it is the seat's.
#[derive(Clone, Debug)]
pub(crate) enum In {
    /// `Seat::want` has been set; `renewed`: its number grew.
    Wish,
    /// Start as this run.
    Go(RunId),
    /// The shim has begun this run already.
    Succeeded(Successor),
    /// End this run, start another.
    Replace(Why),
    /// The whole job pauses until then, or gave up.
    Halt(Option<Mono>, Reason),
    /// Pid.
    Started(u32),
    /// Stage, errno, words.
    StartFailed(Arc<str>, i32, Arc<str>),
    /// Why.
    NotStarted(Arc<str>),
    /// How, and how many are left.
    Exited(End, u32),
    /// All gone.
    TreeGone,
    /// Result of a probe.
    Probed(ProbeRole, Result<Arc<str>, Arc<str>>),
    /// No answer.
    Silent,
    /// An answer again.
    Answered,
    /// A deadline passed.
    Due,
    /// By recovery.
    Found(Box<FoundRun>),
}

/// What recovery found.
#[derive(Clone, Debug)]
pub(crate) struct FoundRun {
    pub run: RunId,
    pub stamp: Stamp,
    pub found: Found,
    pub past: Vec<crate::io::Death>,
}

/// The state with its data.
#[derive(Clone, Debug)]
pub(crate) enum Life {
    Stopped,
    Waiting { since: Now },
    Backoff { until: Mono, at: Wall },
    Flapping { until: Mono, at: Wall },
    Starting(Live),
    Running(Live),
    Paused(Live),
    Stopping(Live, Box<Ending>),
    StopStuck(Live, Box<Ending>),
    Exited,
    Failed,
    Unreachable(Live, Option<Box<Ending>>),
}

/// A run that exists or may exist.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub run: RunId,
    pub stamp: Stamp,
    /// 0 until `Started`.
    pub pid: u32,
    /// Wall time of the start; of the spawn until then.
    pub started: Wall,
    pub started_mono: Mono,
    /// Since when it is ready.
    pub ready: Option<(Mono, Wall)>,
    /// `TreeGone` came before `Exited`.
    pub tree_gone: bool,
    pub probes: Option<Box<Probes>>,
}

/// A run on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub why: Why,
    pub by: Actor,
    pub asked: Now,
    /// KILL then; after KILL: stuck then.
    pub due: Mono,
    pub killed: bool,
    pub forced: bool,
    /// The signal or command went out (it waits for the pid).
    pub sent: bool,
    /// What is said about it: of `Unready`, `Unhealthy`.
    pub note: Option<Reason>,
    /// The main process ended.
    pub ended: bool,
    /// Decided at its end; none: by wish.
    pub after: Option<After>,
}

/// What comes after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The next run, as soon as it may.
    Again,
    /// After a pause.
    Backoff(Mono, Wall),
    /// After a longer one.
    Flapping(Mono, Wall),
    /// None: fine.
    Exited,
    /// None: not fine.
    Failed,
}

/// A place and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub place: Place,
    pub life: Life,
    pub want: Want,
    /// The slot's last run for the compare-and-swap of `Spawn`.
    pub last: Option<RunId>,
    /// Ordinal of the newest run.
    pub attempt: u32,
    /// Unasked new runs since the wish was last set to running by hand.
    pub restarts: u32,
    pub history: History,
    /// Spawns in a row that never came to be.
    pub not_started: u32,
    /// Why it is as it is.
    pub reason: Option<Reason>,
    /// Number of the wish it last acted upon.
    pub seq: u64,
    /// Counts for the job. In a surge, the lane that serves.
    pub primary: bool,
    /// The newest run ended by itself badly, or did not start.
    pub failing: bool,
    /// The newest start failed before the program ran.
    pub unborn: bool,
    /// Exit code of the newest end, shell-like.
    pub code: i32,
    /// Where its deadline stands in the node's heap.
    pub armed: Option<Mono>,
    /// One-offs only.
    pub launch: Option<Arc<Launch>>,
    /// What the shim was told to start at the end of the live run.
    pub order: Option<Box<Successor>>,
}

/// What a step may look at and write to.
pub(crate) struct Cx<'a> {
    pub now: Now,
    pub zone: Zone,
    pub job: &'a JobId,
    pub spec: &'a Job,
    /// Digest of the current launch.
    pub digest: u64,
    /// Newest number of an explicit reload of this instance.
    pub reload: u64,
    /// Exits of the whole job, if `flapping.scope` says so.
    pub crashes: Option<&'a mut Crashes>,
    /// Set when the whole job has to pause or give up.
    pub halt: &'a mut Option<(Option<Mono>, Reason)>,
    pub dice: &'a mut Dice,
    pub out: &'a mut Output,
}

impl In {
    fn cue(&self) -> Cue {
        match self {
            In::Wish => Cue::Wish,
            In::Go(_) => Cue::Go,
            In::Succeeded(_) => Cue::Succeeded,
            In::Replace(_) => Cue::Replace,
            In::Halt(..) => Cue::Halt,
            In::Started(_) => Cue::Started,
            In::StartFailed(..) => Cue::StartFailed,
            In::NotStarted(_) => Cue::NotStarted,
            In::Exited(..) => Cue::Exited,
            In::TreeGone => Cue::TreeGone,
            In::Probed(..) => Cue::Probed,
            In::Silent => Cue::Silent,
            In::Answered => Cue::Answered,
            In::Due => Cue::Due,
            In::Found(_) => Cue::Found,
        }
    }

    /// The run that an input speaks of, and what it says.
    pub fn of_fact(input: Input) -> Option<(RunId, In)> {
        match input {
            Input::Started { run, pid } => Some((run, In::Started(pid))),
            Input::StartFailed {
                run,
                stage,
                errno,
                text,
            } => Some((run, In::StartFailed(stage, errno, text))),
            Input::NotStarted { run, text } => Some((run, In::NotStarted(text))),
            Input::Exited {
                run, end, survivors, ..
            } => Some((run, In::Exited(end, survivors))),
            Input::TreeGone { run } => Some((run, In::TreeGone)),
            Input::Probed { run, role, result } => Some((run, In::Probed(role, result))),
            Input::Unreachable { run, silent: true } => Some((run, In::Silent)),
            Input::Unreachable { run, silent: false } => Some((run, In::Answered)),
            Input::Tick
            | Input::Recovered
            | Input::Shutdown { .. }
            | Input::Drain { .. }
            | Input::Undrain
            | Input::SlotFound { .. } => None,
            Input::JobPut { .. } | Input::JobRemoved { .. } | Input::Wished { .. } => None,
            Input::Scaled { .. } | Input::Reloaded { .. } | Input::Limits(_) | Input::TaskStood { .. } => {
                None
            }
            Input::OneOffPut { .. } | Input::OneOffStopped { .. } => None,
        }
    }
}

impl Live {
    /// Asked for, not born yet.
    fn asked(run: RunId, stamp: Stamp, now: Now) -> Live {
        Live {
            run,
            stamp,
            pid: 0,
            started: now.wall,
            started_mono: now.mono,
            ready: None,
            tree_gone: false,
            probes: None,
        }
    }
}

impl Life {
    pub fn phase(&self) -> Phase {
        match self {
            Life::Stopped => Phase::Stopped,
            Life::Waiting { .. } => Phase::Waiting,
            Life::Backoff { .. } => Phase::Backoff,
            Life::Flapping { .. } => Phase::Flapping,
            Life::Starting(_) => Phase::Starting,
            Life::Running(_) => Phase::Running,
            Life::Paused(_) => Phase::Paused,
            Life::Stopping(..) => Phase::Stopping,
            Life::StopStuck(..) => Phase::StopStuck,
            Life::Exited => Phase::Exited,
            Life::Failed => Phase::Failed,
            Life::Unreachable(..) => Phase::Unreachable,
        }
    }

    pub fn live(&self) -> Option<&Live> {
        match self {
            Life::Starting(live) | Life::Running(live) | Life::Paused(live) => Some(live),
            Life::Stopping(live, _) | Life::StopStuck(live, _) | Life::Unreachable(live, _) => Some(live),
            Life::Stopped | Life::Waiting { .. } | Life::Backoff { .. } | Life::Flapping { .. } => None,
            Life::Exited | Life::Failed => None,
        }
    }

    fn live_mut(&mut self) -> Option<&mut Live> {
        match self {
            Life::Starting(live) | Life::Running(live) | Life::Paused(live) => Some(live),
            Life::Stopping(live, _) | Life::StopStuck(live, _) | Life::Unreachable(live, _) => Some(live),
            Life::Stopped | Life::Waiting { .. } | Life::Backoff { .. } | Life::Flapping { .. } => None,
            Life::Exited | Life::Failed => None,
        }
    }

    /// Takes run and ending out; the caller puts the next state in.
    fn take(&mut self) -> Option<(Live, Option<Box<Ending>>)> {
        match std::mem::replace(self, Life::Stopped) {
            Life::Starting(live) | Life::Running(live) | Life::Paused(live) => Some((live, None)),
            Life::Stopping(live, ending) | Life::StopStuck(live, ending) => Some((live, Some(ending))),
            Life::Unreachable(live, ending) => Some((live, ending)),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl Seat {
    pub fn new(place: Place, want: Want) -> Seat {
        Seat {
            place,
            life: Life::Stopped,
            want,
            last: None,
            attempt: 0,
            restarts: 0,
            history: History::default(),
            not_started: 0,
            reason: None,
            seq: 0,
            primary: true,
            failing: false,
            unborn: false,
            code: 0,
            armed: None,
            launch: None,
            order: None,
        }
    }

    pub fn phase(&self) -> Phase {
        self.life.phase()
    }

    pub fn run(&self) -> Option<RunId> {
        self.life.live().map(|live| live.run)
    }

    /// On its way out, or out of reach.
    pub fn is_ending(&self) -> bool {
        matches!(
            self.phase(),
            Phase::Stopping | Phase::StopStuck | Phase::Unreachable
        )
    }

    /// It is starting and has a process.
    pub fn is_born(&self) -> bool {
        matches!(&self.life, Life::Starting(live) if live.pid != 0)
    }

    pub fn one_off(&self) -> bool {
        matches!(self.place, Place::OneOff(_))
    }

    /// When it has to be told `Due`.
    pub fn due(&self) -> Option<Mono> {
        match &self.life {
            Life::Backoff { until, .. } | Life::Flapping { until, .. } => Some(*until),
            Life::Starting(live) | Life::Running(live) => {
                live.probes.as_ref().and_then(|probes| probes.due())
            }
            Life::Stopping(_, ending) | Life::StopStuck(_, ending) => Some(ending.due),
            Life::Stopped | Life::Waiting { .. } | Life::Paused(_) | Life::Exited | Life::Failed => None,
            Life::Unreachable(..) => None,
        }
    }

    /// One input: looks up the rule, does it.
    pub fn step(&mut self, input: In, cx: &mut Cx<'_>) {
        let before = self.phase();
        let rule = table::rule(before, input.cue(), self.want.level);
        self.perform(rule, input, cx);
        let after = self.phase();
        debug_assert!(
            before == after || rule.leads_to(before).contains(&after),
            "{rule:?} led from {before:?} to {after:?}"
        );
    }

    fn perform(&mut self, rule: Rule, input: In, cx: &mut Cx<'_>) {
        match rule {
            Rule::Stay => {}
            Rule::Refresh => self.refresh(),
            Rule::Wait => self.wait(true, cx),
            Rule::WaitIfRenewed if self.want.seq > self.seq => self.wait(true, cx),
            Rule::WaitIfRenewed => {}
            Rule::TryAgain => self.wait(false, cx),
            Rule::Rest => self.rest(),
            Rule::Spawn => self.spawn(&input, cx),
            Rule::Succeed => self.succeed(&input, cx),
            Rule::Born => self.born(&input, cx),
            Rule::FailStart => self.fail_start(input, cx),
            Rule::FailStartAsked => self.fail_start_asked(input, cx),
            Rule::Unasked => self.unasked(&input, cx),
            Rule::CountReady => self.count_ready(input, cx),
            Rule::CountHealth => self.count_health(input, cx),
            Rule::OwnEnd => self.own_end(input, cx),
            Rule::AskedEnd => self.asked_end(input, cx),
            Rule::HiddenEnd if matches!(&self.life, Life::Unreachable(_, Some(_))) => {
                self.asked_end(input, cx)
            }
            Rule::HiddenEnd => self.own_end(input, cx),
            Rule::Cleared => self.cleared(cx),
            Rule::AskEnd | Rule::HaltLive => self.ask_end_for(input, cx),
            Rule::ThawAskEnd => {
                self.freeze_command(false, cx);
                self.ask_end_for(input, cx);
            }
            Rule::Sharpen => self.sharpen(cx),
            Rule::Freeze => self.freeze(cx),
            Rule::Thaw => self.thaw(cx),
            Rule::HaltIdle => self.halt_idle(input, cx),
            Rule::DueReady => self.due_ready(cx),
            Rule::DueHealth => self.due_health(cx),
            Rule::Escalate => self.escalate(cx),
            Rule::KillAgain => self.kill_again(cx),
            Rule::Hide => self.hide(),
            Rule::Regain => self.regain(cx),
            Rule::Adopt => self.adopt(input, cx),
        }
    }

    // ── without a run ──

    fn refresh(&mut self) {
        if self.want.seq > self.seq && self.want.level == Level::Up {
            self.seq = self.want.seq;
            self.restarts = 0;
            self.history = History::default();
        }
    }

    fn wait(&mut self, afresh: bool, cx: &Cx<'_>) {
        if afresh {
            self.history = History::default();
            self.not_started = 0;
            self.failing = false;
            if self.want.seq > self.seq {
                self.restarts = 0;
            }
        }
        self.seq = self.seq.max(self.want.seq);
        self.life = Life::Waiting { since: cx.now };
        self.reason = None;
    }

    fn rest(&mut self) {
        self.life = Life::Stopped;
        self.failing = false;
        self.reason = match self.want.level {
            Level::Frozen => Some(reason::paused(&self.want.by)),
            Level::Up | Level::Down => Some(reason::stopped_idle(&self.want.by)),
        };
    }

    fn spawn(&mut self, input: &In, cx: &mut Cx<'_>) {
        let In::Go(run) = *input else { return };
        let stamp = self.stamp(cx.reload, cx.digest);
        self.attempt = self.attempt.saturating_add(1);
        let launch = self.launch.as_ref().unwrap_or(&cx.spec.launch).clone();
        cx.out.commands.push(Command::Spawn {
            run,
            slot: self.slot(cx),
            after: self.last,
            launch,
            attempt: self.attempt,
            stamp,
        });
        self.life = Life::Starting(Live::asked(run, stamp, cx.now));
    }

    /// What a run that is born now is born under: smaller than a restart asked for later, not smaller than one before.
    pub fn stamp(&self, reload: u64, digest: u64) -> Stamp {
        Stamp {
            restart: self.want.restart.max(self.want.seq).max(reload),
            launch: digest,
        }
    }

    /// A standing order was carried out. Whether it is still wanted is asked next.
    fn succeed(&mut self, input: &In, cx: &Cx<'_>) {
        let In::Succeeded(Successor { run, stamp }) = *input else {
            return;
        };
        self.attempt = self.attempt.saturating_add(1);
        self.life = Life::Starting(Live::asked(run, stamp, cx.now));
    }

    fn halt_idle(&mut self, input: In, cx: &Cx<'_>) {
        let In::Halt(until, reason) = input else { return };
        self.reason = Some(reason);
        self.life = match until {
            Some(until) => Life::Flapping {
                until,
                at: cx.now.wall.plus(until.since(cx.now.mono)),
            },
            None => Life::Failed,
        };
    }

    // ── birth ──

    fn born(&mut self, input: &In, cx: &mut Cx<'_>) {
        let In::Started(pid) = *input else { return };
        let Some(live) = self.life.live_mut() else { return };
        if live.pid != 0 {
            return;
        }
        live.pid = pid;
        live.started = cx.now.wall;
        live.started_mono = cx.now.mono;
        let run = live.run;
        self.last = Some(run);
        self.not_started = 0;
        self.unborn = false;
        self.tell("run.started", Some(run), None, vec![("pid", pid.to_string())], cx);
        match &self.life {
            Life::Starting(_) => self.begin_ready(cx),
            // A stop came first: now there is something to send it to.
            Life::Stopping(..) | Life::StopStuck(..) => self.send_stop(cx),
            _ => {}
        }
        if self.want.level == Level::Frozen {
            self.freeze(cx);
        }
    }

    fn unasked(&mut self, input: &In, cx: &mut Cx<'_>) {
        let In::NotStarted(text) = input else { return };
        if self.life.live().is_none_or(|live| live.pid != 0) || self.life.take().is_none() {
            return;
        }
        self.not_started += 1;
        self.attempt = self.attempt.saturating_sub(1);
        self.reason = Some(reason::not_started(text));
        let pause = delay_after_not_started(self.not_started);
        self.life = match self.want.level {
            Level::Down | Level::Frozen => Life::Stopped,
            Level::Up if pause.is_zero() => Life::Waiting { since: cx.now },
            Level::Up => Life::Backoff {
                until: cx.now.mono.plus(pause),
                at: cx.now.wall.plus(pause),
            },
        };
        if self.want.level != Level::Up {
            self.rest();
        }
    }

    // ── freezing ──

    fn freeze(&mut self, cx: &mut Cx<'_>) {
        // A run without a process cannot be frozen; `born` comes back here.
        if !matches!(&self.life, Life::Starting(live) | Life::Running(live) if live.pid != 0) {
            return;
        }
        self.freeze_command(true, cx);
        let Some((live, _)) = self.life.take() else { return };
        self.reason = Some(reason::paused(&self.want.by));
        self.life = Life::Paused(live);
    }

    fn thaw(&mut self, cx: &mut Cx<'_>) {
        self.freeze_command(false, cx);
        let Some((live, _)) = self.life.take() else { return };
        self.reason = None;
        self.refresh();
        self.life = if live.ready.is_some() {
            Life::Running(live)
        } else {
            Life::Starting(live)
        };
        self.probe_afresh(cx);
    }

    fn freeze_command(&self, on: bool, cx: &mut Cx<'_>) {
        if let Some(run) = self.run() {
            cx.out.commands.push(Command::Freeze { run, on });
        }
    }

    // ── silence ──

    fn hide(&mut self) {
        let Some((live, ending)) = self.life.take() else {
            return;
        };
        self.reason = Some(reason::unreachable());
        self.life = Life::Unreachable(live, ending);
    }

    fn regain(&mut self, cx: &mut Cx<'_>) {
        let Some((live, ending)) = self.life.take() else {
            return;
        };
        self.reason = None;
        match ending {
            // The shim may have missed it; a signal twice does no harm.
            Some(mut ending) => {
                ending.sent = false;
                let grace = ending.due.since(ending.asked.mono);
                ending.asked = cx.now;
                ending.due = cx.now.mono.plus(if ending.killed { STUCK_AFTER } else { grace });
                let killed = ending.killed;
                let run = live.run;
                self.life = Life::Stopping(live, ending);
                if killed {
                    cx.out.commands.push(Command::KillTree { run });
                } else {
                    self.send_stop(cx);
                }
                // A stop that was asked for in the meantime could not reach it.
                if self.want.level == Level::Down {
                    self.sharpen(cx);
                }
            }
            None if live.ready.is_some() => self.life = Life::Running(live),
            None => self.life = Life::Starting(live),
        }
        if matches!(self.life, Life::Starting(_) | Life::Running(_)) {
            self.probe_afresh(cx);
        }
    }

    // ── telling ──

    pub fn slot(&self, cx: &Cx<'_>) -> Slot {
        Slot {
            job: cx.job.clone(),
            place: self.place,
        }
    }

    fn tell(
        &self,
        event: &'static str,
        run: Option<RunId>,
        reason: Option<Reason>,
        data: Vec<(&'static str, String)>,
        cx: &mut Cx<'_>,
    ) {
        let slot = Some(self.slot(cx));
        cx.out.events.push(Event {
            event,
            job: cx.job.clone(),
            slot,
            run,
            by: None,
            reason,
            data,
        });
    }

    fn signal(&self, run: RunId, signal: i32, to: Scope, cx: &mut Cx<'_>) {
        cx.out.commands.push(Command::Signal { run, signal, to });
        self.tell(
            "run.signalled",
            Some(run),
            None,
            vec![("signal", reason::signal_name(signal))],
            cx,
        );
    }

    /// Sends `reload.signal`, instead of replacing the run.
    pub fn reload_signal(&self, cx: &mut Cx<'_>) {
        if let Life::Starting(live) | Life::Running(live) = &self.life
            && live.pid != 0
        {
            self.signal(live.run, cx.spec.reload.signal, Scope::Main, cx);
        }
    }

    /// Was the run born under another launch, or before an explicit reload?
    pub fn outdated(&self, digest: u64, reload: u64) -> bool {
        let (Life::Starting(live) | Life::Running(live)) = &self.life else {
            return false;
        };
        live.stamp.launch != digest || live.stamp.restart < reload
    }

    /// Was it born before the restart that is wanted?
    pub fn before_restart(&self) -> bool {
        self.life
            .live()
            .is_some_and(|live| live.stamp.restart < self.want.restart)
    }
}

#[cfg(test)]
mod tests {
    use super::{Ending, Seat};

    #[test]
    fn an_idle_instance_takes_well_below_500_bytes() {
        let seat = size_of::<Seat>();
        assert!(seat <= 320, "{seat} bytes, to which the indexes add about 60");
        assert!(size_of::<Ending>() <= 160, "{} bytes", size_of::<Ending>());
    }
}
