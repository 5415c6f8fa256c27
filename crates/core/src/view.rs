//! What anyone may see of a job, made when somebody looks. Clients derive nothing.

use crate::group::{Blocked, Group};
use crate::hub::Hub;
use crate::instance::table::{Level, Phase};
use crate::instance::{Life, Seat, Why};
use crate::io::{InstanceView, JobView, Progress, Reason, State, WishState};
use crate::job::{Condition, ProbeKind};
use crate::name::{JobId, Slot};
use crate::node::Node;
use crate::reason;
use crate::time::Now;

/// The node as far as a view needs it.
pub(crate) struct Around<'a> {
    pub node: &'a Node,
    pub hub: &'a Hub,
    pub now: Now,
}

impl Around<'_> {
    /// How a job stands that is waited for: `starting for 3s, tcp 127.0.0.1:6379 refused`.
    pub fn job_words(&self, on: &JobId, condition: Option<Condition>) -> String {
        let Some(other) = self.node.group_of(on) else {
            return "there is no such job".into();
        };
        let counted = other.seats.iter().filter(|seat| other.counts_in(seat));
        let worst =
            counted.min_by_key(|seat| TROUBLE_FIRST.iter().position(|state| *state == state_of(seat)));
        let Some(seat) = worst else {
            return "it has no instances".into();
        };
        let since = match &seat.life {
            Life::Starting(live) | Life::Running(live) | Life::Paused(live) => Some(live.started),
            Life::Waiting { since } => Some(since.wall),
            _ => None,
        };
        let word = word(state_of(seat));
        let long = since.map(|since| format!(" for {}", reason::span(self.now.wall.since(since))));
        let long = long.unwrap_or_default();
        let last = seat
            .life
            .live()
            .and_then(|live| live.probes.as_ref())
            .and_then(|probes| probes.last.clone());
        let last = match (&seat.life, last) {
            (Life::Starting(_), Some(last)) => format!(", {last}"),
            (Life::Starting(_), None) => other.probe_words(),
            _ => String::new(),
        };
        match condition {
            Some(Condition::Done) if seat.phase() == Phase::Failed => format!("{word}, it did not succeed"),
            _ => format!("{word}{long}{last}"),
        }
    }

    /// How a task stands that is waited for: `active for 4s`.
    pub fn task_words(&self, on: &JobId) -> String {
        let Some(standing) = self.node.tasks.get(on) else {
            return "there is no such task".into();
        };
        let note = |before: &str| match &standing.note {
            Some(note) => format!("{before}{note}"),
            None => String::new(),
        };
        let long = reason::span(self.now.wall.since(standing.since));
        match standing.state {
            None if standing.note.is_none() => "it has not run yet".into(),
            None => note(""),
            Some(state) if state.is_terminal() => format!("{} {long} ago{}", state.word(), note("; ")),
            Some(state) => format!("{} for {long}{}", state.word(), note(", ")),
        }
    }
}

fn state_of(seat: &Seat) -> State {
    match seat.phase() {
        Phase::Stopped if seat.want.level == Level::Frozen => State::Paused,
        // It starts again with what it was stopped with.
        Phase::Stopped if seat.want.why == Why::With => State::Waiting,
        Phase::Stopped => State::Stopped,
        Phase::Waiting => State::Waiting,
        Phase::Backoff => State::Backoff,
        Phase::Flapping => State::Flapping,
        Phase::Starting => State::Starting,
        Phase::Running => State::Running,
        Phase::Paused => State::Paused,
        Phase::Stopping => State::Stopping,
        Phase::StopStuck => State::StopStuck,
        Phase::Exited => State::Exited,
        Phase::Failed => State::Failed,
        Phase::Unreachable => State::Unreachable,
    }
}

/// Lower-case word of a state.
fn word(state: State) -> &'static str {
    match state {
        State::Stopped => "stopped",
        State::Waiting => "waiting",
        State::Starting => "starting",
        State::Running => "running",
        State::Backoff => "backing off",
        State::Flapping => "flapping",
        State::Stopping => "stopping",
        State::StopStuck => "stop stuck",
        State::Exited => "exited",
        State::Failed => "failed",
        State::Paused => "paused",
        State::Unreachable => "unreachable",
        State::Unknown => "unknown",
        State::Degraded => "degraded",
    }
}

/// What is worth showing first, when instances differ. The last ones are no trouble.
const TROUBLE_FIRST: [State; 12] = [
    State::StopStuck,
    State::Unreachable,
    State::Failed,
    State::Flapping,
    State::Backoff,
    State::Stopping,
    State::Waiting,
    State::Starting,
    State::Paused,
    State::Exited,
    State::Stopped,
    State::Running,
];

fn is_trouble(state: State) -> bool {
    TROUBLE_FIRST[..5].contains(&state)
}

impl Group {
    pub fn view(&self, around: &Around<'_>) -> JobView {
        let target = self.target();
        let shown = |seat: &&Seat| seat.phase().live() || seat.one_off() || self.counts_in(seat);
        let instances: Vec<InstanceView> = self
            .seats
            .iter()
            .filter(shown)
            .map(|seat| self.instance_view(seat, around))
            .collect();
        let counted: Vec<&Seat> = self.seats.iter().filter(|seat| self.counts_in(seat)).collect();
        let running = counted
            .iter()
            .filter(|seat| seat.phase() == Phase::Running)
            .count();
        let worst = |states: &mut dyn Iterator<Item = State>| {
            states.min_by_key(|state| TROUBLE_FIRST.iter().position(|other| other == state))
        };
        let everyone = self
            .seats
            .iter()
            .filter(|seat| self.counts_in(seat) || seat.phase().live());
        let worst =
            worst(&mut everyone.filter(|seat| !seat.one_off()).map(state_of)).unwrap_or(State::Stopped);
        let wish = self.asked.wish.state;
        let state = match worst {
            trouble if is_trouble(trouble) && running > 0 && wish == WishState::Running => State::Degraded,
            State::Exited | State::Stopped if running > 0 && wish == WishState::Running => State::Degraded,
            other => other,
        };
        let summary = match (wish, target) {
            (WishState::Running, 2..) => format!("{running} of {target} running"),
            (WishState::Running, 0) => "scaled to 0".into(),
            _ => word(state).into(),
        };
        let reason = self.job_reason(&counted, worst, around);
        let progress = self.progress(around);
        JobView {
            job: self.id.clone(),
            wish,
            state,
            summary,
            reason,
            target,
            instances,
            progress,
        }
    }

    fn job_reason(&self, counted: &[&Seat], worst: State, around: &Around<'_>) -> Option<Reason> {
        if let Some(aborted) = &self.aborted {
            return Some(aborted.clone());
        }
        let seat = counted.iter().find(|seat| state_of(seat) == worst)?;
        self.seat_reason(seat, around)
    }

    fn instance_view(&self, seat: &Seat, around: &Around<'_>) -> InstanceView {
        let live = seat.life.live();
        let next_try = match &seat.life {
            Life::Backoff { at, .. } | Life::Flapping { at, .. } => Some(*at),
            _ => None,
        };
        let wish = match (seat.place.number(), seat.want.level) {
            _ if self.removed.is_some() => WishState::Stopped,
            (Some(n), _) if n <= self.target() => self.effective(n).0.wish.state,
            (_, Level::Up) => WishState::Running,
            (_, Level::Frozen) => WishState::Paused,
            (_, Level::Down) => WishState::Stopped,
        };
        let born = live.filter(|live| live.pid != 0);
        InstanceView {
            slot: Slot {
                job: self.id.clone(),
                place: seat.place,
            },
            run: live.map(|live| live.run).or(seat.last),
            pid: born.map(|live| live.pid),
            state: state_of(seat),
            wish,
            reason: self.seat_reason(seat, around),
            started: born.map(|live| live.started),
            ready: live.and_then(|live| live.ready).map(|(_, wall)| wall),
            next_try,
            restarts: seat.restarts,
            attempt: seat.attempt,
        }
    }

    fn seat_reason(&self, seat: &Seat, around: &Around<'_>) -> Option<Reason> {
        if state_of(seat) != State::Waiting {
            return seat.reason.clone();
        }
        if !around.hub.recovered {
            return Some(reason::waiting_recovery());
        }
        if let (Some(on), false) = (&self.footing.blocked, seat.one_off()) {
            return Some(self.blocked_reason(on, around));
        }
        let busy = around.hub.starting.len();
        let full = busy as u64 >= u64::from(around.hub.limits.start_at_once);
        if full {
            Some(reason::waiting_turn(busy as u32))
        } else if around.hub.is_held(&(0, self.key, seat.place)) {
            Some(reason::waiting_pause(around.hub.limits.start_spacing))
        } else {
            seat.reason.clone()
        }
    }

    /// `waiting for redis: starting for 3s, tcp 127.0.0.1:6379 refused`.
    fn blocked_reason(&self, blocked: &Blocked, around: &Around<'_>) -> Reason {
        let (on, words) = match blocked {
            Blocked::Job(on) => {
                let condition = self.spec.as_ref().and_then(|spec| spec.after.get(on).copied());
                (on, around.job_words(on, condition))
            }
            Blocked::Task { task, .. } => (task, around.task_words(task)),
        };
        reason::waiting_for(on, on.session == self.id.session, &words)
    }

    fn probe_words(&self) -> String {
        match self
            .spec
            .as_ref()
            .and_then(|spec| spec.ready.as_ref())
            .map(|probe| &probe.kind)
        {
            // What was written may hold `$PORT`, which means something else for each run: only what is the same for
            // all of them is told.
            Some(ProbeKind::Http(url)) => format!(", http {} has not answered yet", path_of(url)),
            Some(ProbeKind::Tcp(address)) if !address.contains(['$', '{']) => {
                format!(", nothing accepts yet at {address}")
            }
            Some(ProbeKind::Tcp(_)) => ", nothing accepts yet at its port".into(),
            Some(ProbeKind::Cmd { .. }) => ", its ready command has not succeeded yet".into(),
            Some(ProbeKind::Log(_)) => ", the line it waits for is not there yet".into(),
            Some(ProbeKind::Notify) => ", READY=1 has not come yet".into(),
            Some(ProbeKind::After(_) | ProbeKind::Heartbeat(_)) | None => String::new(),
        }
    }

    /// Has the newest request come about?
    fn progress(&self, around: &Around<'_>) -> Progress {
        if self.removed.is_some() || !around.hub.recovered {
            return Progress::Pending;
        }
        let mut progress = Progress::Done;
        for seat in self.seats.iter().filter(|seat| !seat.one_off()) {
            match self.seat_progress(seat, around) {
                Progress::Done => {}
                Progress::Pending => progress = Progress::Pending,
                failed => return failed,
            }
        }
        match (&self.aborted, progress, &self.footing.blocked) {
            (Some(aborted), Progress::Done, _) => Progress::Failed(aborted.clone()),
            // The task is over, and not as this job needs it: nothing comes about until somebody runs it again.
            (_, Progress::Pending, Some(on @ Blocked::Task { over: true, .. })) => {
                Progress::Failed(self.blocked_reason(on, around))
            }
            (_, progress, _) => progress,
        }
    }

    fn seat_progress(&self, seat: &Seat, around: &Around<'_>) -> Progress {
        let failed = || {
            let reason = self.seat_reason(seat, around);
            Progress::Failed(reason.unwrap_or(Reason {
                code: "unknown",
                text: "it did not come about".into(),
            }))
        };
        let outdated =
            seat.before_restart() || (self.rollout && seat.outdated(self.digest, self.reload_of(seat.place)));
        match (seat.want.level, seat.phase()) {
            (_, Phase::StopStuck) => failed(),
            (Level::Up, Phase::Running) if outdated => Progress::Pending,
            (Level::Up, Phase::Running | Phase::Exited) => Progress::Done,
            (Level::Up, Phase::Failed | Phase::Flapping) => failed(),
            // Nothing ran at all: waiting for the next attempt tells nobody anything new.
            (Level::Up, Phase::Backoff) if seat.unborn => failed(),
            (Level::Up, _) => Progress::Pending,
            (Level::Down, phase) if phase.live() => Progress::Pending,
            (Level::Down, _) => Progress::Done,
            (Level::Frozen, Phase::Paused) => Progress::Done,
            (Level::Frozen, phase) if phase.live() => Progress::Pending,
            (Level::Frozen, _) => Progress::Done,
        }
    }
}
/// `/up` of `http://127.0.0.1:$PORT/up`.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |start| &rest[start..])
}
