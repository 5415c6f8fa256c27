//! The table of an instance: what each input means in each state under each wish.
//!
//! [`rule`] is one exhaustive match; no wildcard hides a case. What a rule does is in
//! [`super::Seat`], where it may go is in [`Rule::leads_to`], and both are held to each other on every
//! step of a debug build. `docs/states.md` is generated from here.

/// State of an instance without its data: exactly the words of ux.md 6.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Down as wished.
    Stopped,
    /// Wants to start; waits for a dependency or its turn.
    Waiting,
    /// Pause before the next attempt.
    Backoff,
    /// Crash loop, longer pause.
    Flapping,
    /// Spawn asked for; not ready yet.
    Starting,
    /// Up, and ready.
    Running,
    /// Frozen.
    Paused,
    /// Being asked to end, or its last processes are.
    Stopping,
    /// KILL did not help for 10 s.
    StopStuck,
    /// Ended, and the restart policy says that is fine.
    Exited,
    /// Ended for good, not fine.
    Failed,
    /// Its shim is silent.
    Unreachable,
}

/// The wish for an instance, without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Be up.
    Up,
    /// Be down.
    Down,
    /// Be frozen.
    Frozen,
}

/// Kind of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cue {
    /// The wish changed (it is in force already).
    Wish,
    /// Its turn to start has come.
    Go,
    /// The shim has begun the next run by a standing order.
    Succeeded,
    /// The run is outdated and its turn to be replaced has come.
    Replace,
    /// The whole job pauses as a crash loop, or gives up.
    Halt,
    /// The process exists.
    Started,
    /// The start failed at a named stage.
    StartFailed,
    /// The run never came to be.
    NotStarted,
    /// The main process ended.
    Exited,
    /// Nothing of the tree is left.
    TreeGone,
    /// A probe has news.
    Probed,
    /// The shim is silent.
    Silent,
    /// The shim answers again.
    Answered,
    /// A deadline passed.
    Due,
    /// Recovery found a run of this slot.
    Found,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Nothing: repeated, late or without meaning here.
    Stay,
    /// Nothing but to begin counting afresh, if the wish was renewed by hand.
    Refresh,
    /// Wait for dependencies and turn, past failures forgotten.
    Wait,
    /// The same, but only if the wish was renewed by hand since.
    WaitIfRenewed,
    /// The pause is over: wait for dependencies and turn.
    TryAgain,
    /// Give up what was intended; nothing runs.
    Rest,
    /// Ask the shim for a new run.
    Spawn,
    /// The next run has begun already; the wish is asked again.
    Succeed,
    /// Note the pid; ready at once if nothing has to be probed.
    Born,
    /// A start that failed: settle, count, decide.
    FailStart,
    /// A start that failed while it was to be stopped: settle, do not count.
    FailStartAsked,
    /// Decide again, as if it had not been asked for.
    Unasked,
    /// Count a result of `ready`; enough of them make it running.
    CountReady,
    /// Count a result of `health`; enough bad ones end the run.
    CountHealth,
    /// Ended by itself: settle, count, decide; survivors are ended first.
    OwnEnd,
    /// Ended as asked: settle; done when the tree is gone.
    AskedEnd,
    /// As OwnEnd or AskedEnd, whichever it was when the shim fell silent.
    HiddenEnd,
    /// The tree is gone: on to what was decided; before the end itself is known, only noted.
    Cleared,
    /// `stop.signal` (or `stop.cmd`), KILL after the grace.
    AskEnd,
    /// Thaw, then as AskEnd.
    ThawAskEnd,
    /// A newer stop: a shorter grace or KILL now.
    Sharpen,
    /// Freeze the tree (as soon as it exists).
    Freeze,
    /// Thaw the tree.
    Thaw,
    /// Pause or give up with the whole job.
    HaltIdle,
    /// End the run, then pause or give up with the whole job.
    HaltLive,
    /// A deadline of `ready`: probe, be ready, or end the run as unready.
    DueReady,
    /// A deadline of `health`: probe, or end the run as unhealthy.
    DueHealth,
    /// The grace is over: KILL; 10 s after that, stuck.
    Escalate,
    /// KILL once more.
    KillAgain,
    /// Touch nothing until the shim answers or the kernel tells.
    Hide,
    /// Go on where it was; what the shim may have missed is said again.
    Regain,
    /// Take charge of what was found.
    Adopt,
}

impl Phase {
    /// All of them, in the order of the documents.
    pub const ALL: [Phase; 12] = [
        Phase::Stopped,
        Phase::Waiting,
        Phase::Backoff,
        Phase::Flapping,
        Phase::Starting,
        Phase::Running,
        Phase::Paused,
        Phase::Stopping,
        Phase::StopStuck,
        Phase::Exited,
        Phase::Failed,
        Phase::Unreachable,
    ];

    /// Is there a run, or may there be one?
    pub fn live(self) -> bool {
        match self {
            Phase::Starting | Phase::Running | Phase::Paused => true,
            Phase::Stopping | Phase::StopStuck | Phase::Unreachable => true,
            Phase::Stopped | Phase::Waiting | Phase::Backoff | Phase::Flapping => false,
            Phase::Exited | Phase::Failed => false,
        }
    }

    /// No run, and none will come by itself.
    pub fn at_rest(self) -> bool {
        matches!(self, Phase::Stopped | Phase::Exited | Phase::Failed)
    }
}

impl Cue {
    /// All of them.
    pub const ALL: [Cue; 15] = [
        Cue::Wish,
        Cue::Go,
        Cue::Succeeded,
        Cue::Replace,
        Cue::Halt,
        Cue::Started,
        Cue::StartFailed,
        Cue::NotStarted,
        Cue::Exited,
        Cue::TreeGone,
        Cue::Probed,
        Cue::Silent,
        Cue::Answered,
        Cue::Due,
        Cue::Found,
    ];
}

impl Level {
    /// All of them.
    pub const ALL: [Level; 3] = [Level::Up, Level::Down, Level::Frozen];

    /// One of three, by wish.
    fn pick(self, up: Rule, down: Rule, frozen: Rule) -> Rule {
        match self {
            Level::Up => up,
            Level::Down => down,
            Level::Frozen => frozen,
        }
    }
}

/// The table.
pub fn rule(phase: Phase, cue: Cue, wish: Level) -> Rule {
    use Cue as C;
    use Phase::*;
    use Rule::*;
    match (cue, phase) {
        (C::Wish, Stopped) => wish.pick(Wait, Stay, Stay),
        (C::Wish, Waiting) => wish.pick(Refresh, Rest, Rest),
        (C::Wish, Backoff | Flapping) => wish.pick(WaitIfRenewed, Rest, Rest),
        (C::Wish, Exited | Failed) => wish.pick(WaitIfRenewed, Rest, Stay),
        (C::Wish, Starting | Running) => wish.pick(Refresh, AskEnd, Freeze),
        (C::Wish, Paused) => wish.pick(Thaw, ThawAskEnd, Stay),
        (C::Wish, Stopping | StopStuck) => wish.pick(Refresh, Sharpen, Stay),
        // The wish is kept and acted upon when the shim answers.
        (C::Wish, Unreachable) => Stay,

        (C::Go, Waiting) => wish.pick(Spawn, Stay, Stay),
        (C::Go, Stopped | Backoff | Flapping | Exited | Failed) => Stay,
        (C::Succeeded, Stopped | Waiting | Backoff | Flapping | Exited | Failed) => Succeed,
        (C::Go | C::Succeeded, Starting | Running | Paused) => Stay,
        (C::Go | C::Succeeded, Stopping | StopStuck | Unreachable) => Stay,

        (C::Replace, Backoff | Flapping | Exited | Failed) => wish.pick(Wait, Stay, Stay),
        (C::Replace, Starting | Running) => wish.pick(AskEnd, Stay, Stay),
        (C::Replace, Stopped | Waiting | Paused | Stopping | StopStuck | Unreachable) => Stay,

        (C::Halt, Waiting | Backoff | Flapping) => wish.pick(HaltIdle, Stay, Stay),
        (C::Halt, Starting | Running) => wish.pick(HaltLive, Stay, Stay),
        (C::Halt, Stopped | Paused | Stopping | StopStuck | Exited | Failed | Unreachable) => Stay,

        (C::Started, Starting | Stopping | StopStuck | Unreachable) => Born,
        (C::Started, Stopped | Waiting | Backoff | Flapping | Running | Paused | Exited | Failed) => Stay,

        (C::StartFailed, Starting | Unreachable) => FailStart,
        (C::StartFailed, Stopping | StopStuck) => FailStartAsked,
        (C::StartFailed, Stopped | Waiting | Backoff | Flapping | Running | Paused | Exited | Failed) => Stay,

        (C::NotStarted, Starting | Stopping | StopStuck | Unreachable) => Unasked,
        (C::NotStarted, Stopped | Waiting | Backoff | Flapping | Running | Paused | Exited | Failed) => Stay,

        (C::Exited, Starting | Running | Paused) => OwnEnd,
        (C::Exited, Stopping | StopStuck) => AskedEnd,
        (C::Exited, Unreachable) => HiddenEnd,
        (C::Exited, Stopped | Waiting | Backoff | Flapping | Exited | Failed) => Stay,

        (C::TreeGone, Starting | Running | Paused | Stopping | StopStuck | Unreachable) => Cleared,
        (C::TreeGone, Stopped | Waiting | Backoff | Flapping | Exited | Failed) => Stay,

        (C::Probed, Starting) => CountReady,
        (C::Probed, Running) => CountHealth,
        (C::Probed, Stopped | Waiting | Backoff | Flapping | Paused | Stopping | StopStuck) => Stay,
        (C::Probed, Exited | Failed | Unreachable) => Stay,

        (C::Silent, Starting | Running | Paused | Stopping | StopStuck) => Hide,
        (C::Silent, Stopped | Waiting | Backoff | Flapping | Exited | Failed | Unreachable) => Stay,

        (C::Answered, Unreachable) => Regain,
        (C::Answered, Stopped | Waiting | Backoff | Flapping | Starting | Running) => Stay,
        (C::Answered, Paused | Stopping | StopStuck | Exited | Failed) => Stay,

        (C::Due, Backoff | Flapping) => wish.pick(TryAgain, Stay, Stay),
        (C::Due, Starting) => DueReady,
        (C::Due, Running) => DueHealth,
        (C::Due, Stopping) => Escalate,
        (C::Due, StopStuck) => KillAgain,
        (C::Due, Stopped | Waiting | Paused | Exited | Failed | Unreachable) => Stay,

        (C::Found, Stopped | Waiting | Backoff | Flapping | Exited | Failed | Unreachable) => Adopt,
        (C::Found, Starting | Running | Paused | Stopping | StopStuck) => Stay,
    }
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 32] = [
        Rule::Stay,
        Rule::Refresh,
        Rule::Wait,
        Rule::WaitIfRenewed,
        Rule::TryAgain,
        Rule::Rest,
        Rule::Spawn,
        Rule::Succeed,
        Rule::Born,
        Rule::FailStart,
        Rule::FailStartAsked,
        Rule::Unasked,
        Rule::CountReady,
        Rule::CountHealth,
        Rule::OwnEnd,
        Rule::AskedEnd,
        Rule::HiddenEnd,
        Rule::Cleared,
        Rule::AskEnd,
        Rule::ThawAskEnd,
        Rule::Sharpen,
        Rule::Freeze,
        Rule::Thaw,
        Rule::HaltIdle,
        Rule::HaltLive,
        Rule::DueReady,
        Rule::DueHealth,
        Rule::Escalate,
        Rule::KillAgain,
        Rule::Hide,
        Rule::Regain,
        Rule::Adopt,
    ];

    /// What it does, for the documents.
    pub fn words(self) -> &'static str {
        match self {
            Rule::Stay => "Nothing: repeated, late or without meaning here.",
            Rule::Refresh => "Nothing but to begin counting afresh, if the wish was renewed by hand.",
            Rule::Wait => "Wait for dependencies and turn, past failures forgotten.",
            Rule::WaitIfRenewed => "The same, but only if the wish was renewed by hand since.",
            Rule::TryAgain => "The pause is over: wait for dependencies and turn.",
            Rule::Rest => "Give up what was intended; nothing runs.",
            Rule::Spawn => "Ask the shim for a new run.",
            Rule::Succeed => {
                "The shim has begun the next run already (standing order); the wish is asked again."
            }
            Rule::Born => "Note the pid; ready at once if nothing has to be probed.",
            Rule::FailStart => "A start that failed: settle, count, decide.",
            Rule::FailStartAsked => "A start that failed while it was to be stopped: settle, do not count.",
            Rule::Unasked => "Decide again, as if it had not been asked for.",
            Rule::CountReady => "Count a result of `ready`; enough of them make it running.",
            Rule::CountHealth => "Count a result of `health`; enough bad ones end the run.",
            Rule::OwnEnd => "Ended by itself: settle, count, decide; survivors are ended first.",
            Rule::AskedEnd => "Ended as asked: settle; done when the tree is gone.",
            Rule::HiddenEnd => "As OwnEnd or AskedEnd, whichever it was when the shim fell silent.",
            Rule::Cleared => {
                "The tree is gone: on to what was decided; before the end itself is known, only noted."
            }
            Rule::AskEnd => "`stop.signal` (or `stop.cmd`), KILL after the grace.",
            Rule::ThawAskEnd => "Thaw, then as AskEnd.",
            Rule::Sharpen => "A newer stop: a shorter grace or KILL now.",
            Rule::Freeze => "Freeze the tree (as soon as it exists).",
            Rule::Thaw => "Thaw the tree.",
            Rule::HaltIdle => "Pause or give up with the whole job.",
            Rule::HaltLive => "End the run, then pause or give up with the whole job.",
            Rule::DueReady => "A deadline of `ready`: probe, be ready, or end the run as unready.",
            Rule::DueHealth => "A deadline of `health`: probe, or end the run as unhealthy.",
            Rule::Escalate => "The grace is over: KILL; 10 s after that, stuck.",
            Rule::KillAgain => "KILL once more.",
            Rule::Hide => "Touch nothing until the shim answers or the kernel tells.",
            Rule::Regain => "Go on where it was; what the shim may have missed is said again.",
            Rule::Adopt => "Take charge of what was found.",
        }
    }

    /// Other states it may lead to; where none is listed, it stays.
    pub fn leads_to(self, from: Phase) -> &'static [Phase] {
        use Phase::*;
        match self {
            Rule::Stay | Rule::Refresh | Rule::Sharpen | Rule::KillAgain => &[],
            Rule::Wait | Rule::TryAgain | Rule::WaitIfRenewed => &[Waiting],
            Rule::Rest => &[Stopped],
            Rule::Spawn | Rule::Succeed => &[Starting],
            Rule::Born if from == Starting => &[Running, Paused],
            Rule::Born => &[],
            Rule::FailStart => &[Backoff, Flapping, Failed, Stopped, Waiting],
            Rule::FailStartAsked => &[Waiting, Stopped, Flapping, Failed],
            Rule::Unasked => &[Waiting, Backoff, Stopped],
            Rule::CountReady => &[Running],
            Rule::OwnEnd | Rule::HiddenEnd => {
                &[Waiting, Backoff, Flapping, Exited, Failed, Stopped, Stopping]
            }
            Rule::AskedEnd => &[Waiting, Backoff, Flapping, Failed, Stopped, Stopping],
            // Before the end itself is known, it is only noted.
            Rule::Cleared if matches!(from, Starting | Running | Paused) => &[],
            Rule::Cleared => &[Waiting, Backoff, Flapping, Exited, Failed, Stopped],
            Rule::AskEnd | Rule::ThawAskEnd | Rule::HaltLive | Rule::CountHealth | Rule::DueHealth => {
                &[Stopping]
            }
            Rule::Freeze => &[Paused],
            Rule::Thaw => &[Starting, Running],
            Rule::HaltIdle => &[Flapping, Failed],
            Rule::DueReady => &[Running, Stopping],
            Rule::Escalate => &[StopStuck],
            Rule::Hide => &[Unreachable],
            Rule::Regain => &[Starting, Running, Paused, Stopping],
            Rule::Adopt => &[
                Starting,
                Running,
                Paused,
                Stopping,
                Unreachable,
                Stopped,
                Waiting,
                Backoff,
                Flapping,
                Exited,
                Failed,
            ],
        }
    }
}
