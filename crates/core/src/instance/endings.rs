//! How runs end: asked for or not, and what follows. Every end is settled exactly once by the machine
//! that sees it, with a cause, and the reason travels with it: an intended end is never a failure.

use super::table::Level;
use super::{
    After, Cx, Ending, In, Life, Live, SIGCONT, SIGKILL, STUCK_AFTER, SURVIVOR_GRACE_MAX, Seat, Want, Why,
};
use crate::io::{Actor, Cause, Command, Death, End, Found, Reason, Status};
use crate::job::{ExitMatch, Job, ReloadHow, Restart, Scope};
use crate::name::RunId;
use crate::reason;
use crate::retry::{Ended, Verdict};
use crate::time::{Duration, Mono, Now};

/// Class of an end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Ok,
    Fatal,
    Failure,
}

fn classify(end: &End, spec: &Job) -> Class {
    let found = match end.status {
        _ if end.oom => return Class::Failure,
        Status::Code(code) => ExitMatch::Code(code),
        Status::Signal(signal, _) => ExitMatch::Signal(signal),
        Status::Unknown => return Class::Failure,
    };
    if spec.exit.fatal.contains(&found) {
        Class::Fatal
    } else if spec.exit.ok.contains(&found) {
        Class::Ok
    } else {
        Class::Failure
    }
}

fn own_cause(end: &End) -> Cause {
    match end.status {
        _ if end.oom => Cause::Oom,
        Status::Code(_) => Cause::Exit,
        Status::Signal(..) => Cause::Signal,
        Status::Unknown => Cause::Unknown,
    }
}

/// Exit code as a shell would say it.
fn shell_code(end: Option<&End>) -> i32 {
    match end.map(|end| end.status) {
        Some(Status::Code(code)) => code,
        Some(Status::Signal(signal, _)) => 128 + signal,
        Some(Status::Unknown) => 1,
        None => 127,
    }
}

/// What is known about an end that calls for a decision.
struct Judged<'a> {
    at: Mono,
    class: Class,
    never_ran: bool,
    healthy: Duration,
    /// `exit 1`, for the sentence.
    what: &'a str,
}

/// A decision, and its two sentences.
struct Decision {
    after: After,
    /// For the death record: `attempt 8 in 12s`.
    follows: Option<String>,
    /// Of the seat from now on.
    reason: Option<Reason>,
}

impl Seat {
    // ── by itself ──

    pub(super) fn own_end(&mut self, input: In, cx: &mut Cx<'_>) {
        let In::Exited(end, survivors) = input else { return };
        let Some((live, _)) = self.life.take() else { return };
        if let Some(intended) = self.already_intended(&live.stamp, cx) {
            let reason = intended_reason(intended, &self.want.by, "", cx);
            let cause = cause_of(intended, &end);
            self.settle(live.run, Some(end), cause, reason, cx);
            return self.end_survivors(live, survivors, None, None, cx);
        }
        let before_ready = live.ready.is_none() && cx.spec.ready.is_some() && !self.one_off();
        let healthy = healthy_for(&live, &end);
        let class = if before_ready {
            Class::Failure
        } else {
            classify(&end, cx.spec)
        };
        let what = reason::ended_short(&end);
        let judged = Judged {
            at: cx.now.mono,
            class,
            never_ran: false,
            healthy,
            what: &what,
        };
        let decision = self.decide(&judged, cx);
        let told = reason::own_end(&end, before_ready, decision.follows.as_deref());
        if end.oom {
            self.tell("run.oom", Some(live.run), Some(told.clone()), Vec::new(), cx);
        }
        let cause = own_cause(&end);
        self.reason = decision.reason.or_else(|| Some(told.clone()));
        let words = (survivors > 0).then(|| reason::survivors(&end, survivors));
        self.settle(live.run, Some(end), cause, told, cx);
        self.end_survivors(live, survivors, Some(decision.after), words, cx);
    }

    /// An end nobody reported as asked for, of a run that was to end anyway: the daemon that asked is
    /// gone, or the end was faster than the request.
    fn already_intended(&self, stamp: &crate::io::Stamp, cx: &Cx<'_>) -> Option<Why> {
        if self.want.level == Level::Down {
            return Some(self.want.why);
        }
        if stamp.restart < self.want.restart {
            return Some(Why::Restart);
        }
        let replaced = stamp.launch != cx.digest && cx.spec.reload.how != ReloadHow::Signal;
        (!self.one_off() && (replaced || stamp.restart < cx.reload)).then_some(Why::Reload)
    }

    /// Ends what the main process left behind, or goes on at once.
    fn end_survivors(
        &mut self,
        live: Live,
        survivors: u32,
        after: Option<After>,
        words: Option<Reason>,
        cx: &mut Cx<'_>,
    ) {
        if survivors == 0 || live.tree_gone {
            return self.go_on(after, cx);
        }
        let run = live.run;
        let grace = cx.spec.stop.timeout.min(SURVIVOR_GRACE_MAX);
        let ending = Ending {
            why: Why::Survivors,
            by: self.want.by.clone(),
            asked: cx.now,
            due: cx.now.mono.plus(grace),
            killed: false,
            forced: false,
            sent: true,
            note: None,
            ended: true,
            after,
        };
        self.life = Life::Stopping(live, Box::new(ending));
        self.reason = words.or_else(|| self.reason.take());
        self.signal(run, cx.spec.stop.signal, Scope::All, cx);
        cx.out.commands.push(Command::Signal {
            run,
            signal: SIGCONT,
            to: Scope::All,
        });
    }

    /// What follows an end that nobody asked for.
    fn decide(&mut self, judged: &Judged<'_>, cx: &mut Cx<'_>) -> Decision {
        self.failing = judged.class != Class::Ok;
        let done = |after, reason| Decision {
            after,
            follows: None,
            reason,
        };
        if self.want.level == Level::Frozen {
            return done(After::Again, None);
        }
        let policy = if self.one_off() {
            Restart::Never
        } else {
            cx.spec.restart
        };
        match (judged.class, policy) {
            (Class::Fatal, _) => {
                let reason = reason::final_end(judged.what, "`exit.fatal` lists it");
                return done(After::Failed, Some(reason));
            }
            (Class::Ok, Restart::OnFailure | Restart::Never) => return done(After::Exited, None),
            (Class::Failure, Restart::Never) if self.one_off() => return done(After::Failed, None),
            (Class::Failure, Restart::Never) => {
                let reason = reason::final_end(judged.what, "`restart` is never");
                return done(After::Failed, Some(reason));
            }
            (Class::Ok | Class::Failure, Restart::Always) | (Class::Failure, Restart::OnFailure) => {}
        }
        let ended = Ended {
            at: judged.at,
            ok: judged.class == Class::Ok,
            never_ran: judged.never_ran,
            healthy: judged.healthy,
        };
        self.verdict(ended, judged.what, cx)
    }

    fn verdict(&mut self, ended: Ended, what: &str, cx: &mut Cx<'_>) -> Decision {
        let flapping = cx.spec.flapping.as_ref();
        let own = flapping.filter(|flapping| !flapping.whole_job);
        let mut verdict = self.history.ended(ended, &cx.spec.retry, own, cx.dice.share());
        let shared = match (flapping, cx.crashes.as_deref_mut()) {
            (Some(flapping), Some(crashes)) if flapping.whole_job => crashes.ended(ended, flapping),
            _ => None,
        };
        let whole_job = shared.is_some();
        verdict = shared.unwrap_or(verdict);
        let follows = Some(reason::follows(&verdict, self.attempt + 1));
        let (after, reason, event) = match verdict {
            Verdict::Again { after, .. } if after.is_zero() => (After::Again, None, None),
            Verdict::Again { after, failures } => {
                let at = cx.now.wall.plus(after);
                let reason = reason::backoff(what, failures, at, cx.zone);
                (After::Backoff(cx.now.mono.plus(after), at), Some(reason), None)
            }
            Verdict::Pause {
                exits,
                window,
                pause,
                round,
                rounds,
            } => {
                let reason = reason::flapping(exits, window, pause, round, rounds);
                let after = After::Flapping(cx.now.mono.plus(pause), cx.now.wall.plus(pause));
                (after, Some(reason), Some("job.flapping"))
            }
            Verdict::GiveUp { failures, flapping } => (
                After::Failed,
                Some(reason::gave_up(failures, flapping, what)),
                Some("job.failed"),
            ),
        };
        if let (Some(event), Some(reason)) = (event, &reason) {
            self.tell(event, None, Some(reason.clone()), Vec::new(), cx);
            if whole_job {
                let until = if let After::Flapping(until, _) = after {
                    Some(until)
                } else {
                    None
                };
                *cx.halt = Some((until, reason.clone()));
            }
        }
        Decision {
            after,
            follows,
            reason,
        }
    }

    // ── starts that failed ──

    pub(super) fn fail_start(&mut self, input: In, cx: &mut Cx<'_>) {
        let In::StartFailed(stage, errno, text) = input else {
            return;
        };
        if self.life.live().is_none_or(|live| live.pid != 0) {
            return;
        }
        let Some((live, ending)) = self.life.take() else {
            return;
        };
        if let Some(ending) = ending {
            self.life = Life::Stopping(live, ending);
            return self.fail_start_asked(In::StartFailed(stage, errno, text), cx);
        }
        self.last = Some(live.run);
        self.unborn = true;
        let judged = Judged {
            at: cx.now.mono,
            class: Class::Failure,
            never_ran: true,
            healthy: Duration::ZERO,
            what: &text,
        };
        let decision = self.decide(&judged, cx);
        let told = reason::exec_failed(&text, decision.follows.as_deref());
        self.reason = decision.reason.or_else(|| Some(told.clone()));
        self.settle(live.run, None, start_cause(&stage), told, cx);
        self.go_on(Some(decision.after), cx);
    }

    pub(super) fn fail_start_asked(&mut self, input: In, cx: &mut Cx<'_>) {
        let In::StartFailed(stage, _, text) = input else {
            return;
        };
        if self.life.live().is_none_or(|live| live.pid != 0) {
            return;
        }
        let Some((live, ending)) = self.life.take() else {
            return;
        };
        self.last = Some(live.run);
        self.settle(
            live.run,
            None,
            start_cause(&stage),
            reason::exec_failed(&text, None),
            cx,
        );
        self.reason = Some(reason::exec_failed(&text, None));
        self.go_on(ending.and_then(|ending| ending.after), cx);
    }

    // ── as asked ──

    pub(super) fn ask_end_for(&mut self, input: In, cx: &mut Cx<'_>) {
        match input {
            In::Replace(why) => self.ask_end(why, None, cx),
            In::Halt(until, reason) => {
                self.ask_end(Why::Halt, Some(reason), cx);
                if let Life::Stopping(_, ending) = &mut self.life {
                    ending.after = Some(match until {
                        Some(until) => After::Flapping(until, cx.now.wall.plus(until.since(cx.now.mono))),
                        None => After::Failed,
                    });
                }
            }
            _ => self.ask_end(self.want.why, None, cx),
        }
    }

    pub(super) fn ask_end(&mut self, why: Why, note: Option<Reason>, cx: &mut Cx<'_>) {
        let Some((live, _)) = self.life.take() else { return };
        let how = if self.want.level == Level::Down {
            self.want.how
        } else {
            Default::default()
        };
        let grace = how.grace.unwrap_or(cx.spec.stop.timeout);
        if live.probes.is_some() {
            cx.out.commands.push(Command::ProbeEnd { run: live.run });
        }
        let ending = Ending {
            why,
            by: self.want.by.clone(),
            asked: cx.now,
            due: cx.now.mono.plus(grace),
            killed: false,
            forced: how.force,
            sent: false,
            note,
            ended: false,
            after: None,
        };
        let words = ending_words(&ending, cx);
        self.reason = Some(reason::stopping(&words, (!how.force).then_some(grace)));
        let born = live.pid != 0;
        self.life = Life::Stopping(live, Box::new(ending));
        match how.force {
            true => self.kill(cx),
            false if born => self.send_stop(cx),
            // Nothing to signal yet: `born` sends it.
            false => {}
        }
    }

    pub(super) fn send_stop(&mut self, cx: &mut Cx<'_>) {
        let (Life::Stopping(live, ending) | Life::StopStuck(live, ending)) = &mut self.life else {
            return;
        };
        if ending.sent || live.pid == 0 {
            return;
        }
        ending.sent = true;
        let (run, survivors) = (live.run, ending.ended);
        if ending.killed {
            cx.out.commands.push(Command::KillTree { run });
            return;
        }
        if let (Some(cmd), false) = (&cx.spec.stop.cmd, survivors) {
            cx.out.commands.push(Command::RunStopCmd {
                run,
                cmd: cmd.clone(),
            });
            return;
        }
        let (signal, to) = (
            cx.spec.stop.signal,
            if survivors { Scope::All } else { cx.spec.stop.to },
        );
        self.signal(run, signal, to, cx);
        if signal != SIGKILL {
            cx.out.commands.push(Command::Signal {
                run,
                signal: SIGCONT,
                to,
            });
        }
    }

    fn kill(&mut self, cx: &mut Cx<'_>) {
        let (Life::Stopping(live, ending) | Life::StopStuck(live, ending)) = &mut self.life else {
            return;
        };
        ending.killed = true;
        ending.sent = live.pid != 0;
        ending.due = cx.now.mono.plus(STUCK_AFTER);
        cx.out.commands.push(Command::KillTree { run: live.run });
    }

    /// A newer stop while one is under way. It may only make it sooner.
    pub(super) fn sharpen(&mut self, cx: &mut Cx<'_>) {
        let Want { how, why, ref by, .. } = self.want;
        let (Life::Stopping(_, ending) | Life::StopStuck(_, ending)) = &mut self.life else {
            return;
        };
        // From now on it is a stop, whatever it began as: nothing follows it.
        if !ending.ended {
            ending.why = why;
            ending.by = by.clone();
            ending.after = None;
        }
        if how.force && !ending.killed {
            ending.forced = true;
            self.kill(cx);
            return;
        }
        if how.force {
            return self.kill_again(cx);
        }
        let due = cx.now.mono.plus(how.grace.unwrap_or(cx.spec.stop.timeout));
        if !ending.killed && due < ending.due {
            ending.due = due;
        }
    }

    pub(super) fn escalate(&mut self, cx: &mut Cx<'_>) {
        let Life::Stopping(live, ending) = &mut self.life else {
            return;
        };
        if ending.due > cx.now.mono {
            return;
        }
        if !ending.killed {
            let after = cx.now.mono.since(ending.asked.mono);
            let run = live.run;
            self.reason = Some(reason::stop_killed(after, &stop_words(cx.spec)));
            self.tell(
                "run.signalled",
                Some(run),
                self.reason.clone(),
                vec![("signal", "KILL".into())],
                cx,
            );
            return self.kill(cx);
        }
        let Some((live, Some(mut ending))) = self.life.take() else {
            return;
        };
        cx.out.commands.push(Command::KillTree { run: live.run });
        ending.due = cx.now.mono.plus(STUCK_AFTER);
        self.life = Life::StopStuck(live, ending);
        self.reason = Some(reason::stop_stuck(STUCK_AFTER));
    }

    pub(super) fn kill_again(&mut self, cx: &mut Cx<'_>) {
        let (Life::Stopping(live, ending) | Life::StopStuck(live, ending)) = &mut self.life else {
            return;
        };
        ending.due = cx.now.mono.plus(STUCK_AFTER);
        cx.out.commands.push(Command::KillTree { run: live.run });
    }

    pub(super) fn asked_end(&mut self, input: In, cx: &mut Cx<'_>) {
        let In::Exited(end, survivors) = input else { return };
        let Some((mut live, Some(mut ending))) = self.life.take() else {
            return;
        };
        if ending.ended {
            self.life = Life::Stopping(live, ending);
            return;
        }
        live.pid = live.pid.max(1);
        let run = live.run;
        let took = cx.now.mono.since(ending.asked.mono);
        let told = match ending.why {
            Why::Unready | Why::Unhealthy => self.failed_check(&live, &mut ending, &end, cx),
            why => asked_reason(why, &ending, &end, took, cx),
        };
        let cause = match ending.why {
            Why::Unready | Why::Unhealthy => Cause::Unhealthy,
            why => cause_of(why, &end),
        };
        self.reason = Some(told.clone());
        self.settle(run, Some(end), cause, told, cx);
        if survivors == 0 || live.tree_gone {
            return self.go_on(ending.after, cx);
        }
        ending.ended = true;
        let killed = ending.killed;
        self.life = Life::Stopping(live, ending);
        // The main process obeyed, others of its tree still have to hear of it.
        if !killed {
            self.signal(run, cx.spec.stop.signal, Scope::All, cx);
        }
    }

    /// A run ended because it was unready or unhealthy: a failure like any other.
    fn failed_check(&mut self, live: &Live, ending: &mut Ending, end: &End, cx: &mut Cx<'_>) -> Reason {
        let note = ending.note.clone().unwrap_or_else(reason::unreachable);
        let judged = Judged {
            at: cx.now.mono,
            class: Class::Failure,
            never_ran: false,
            healthy: healthy_for(live, end),
            what: &note.text,
        };
        // A wish that changed meanwhile decides at the end of the tree; the count is taken anyway.
        let decision = self.decide(&judged, cx);
        ending.after = Some(decision.after);
        let follows = decision.follows.unwrap_or_else(|| "not started again".into());
        Reason {
            code: note.code,
            text: format!("{}; {follows}", note.text).into(),
        }
    }

    pub(super) fn cleared(&mut self, cx: &mut Cx<'_>) {
        let ended = match &mut self.life {
            Life::Stopping(_, ending) | Life::StopStuck(_, ending) => ending.ended,
            Life::Unreachable(_, Some(ending)) => ending.ended,
            _ => false,
        };
        if !ended {
            // The news of the end itself is still on its way.
            if let Some(live) = self.life.live_mut() {
                live.tree_gone = true;
            }
            return;
        }
        let Some((_, Some(ending))) = self.life.take() else {
            return;
        };
        self.go_on(ending.after, cx);
    }

    /// The tree is gone and the end is settled: the wish first, then what was decided.
    fn go_on(&mut self, after: Option<After>, cx: &mut Cx<'_>) {
        if self.want.level != Level::Up {
            self.life = Life::Stopped;
            self.seq = self.seq.max(self.want.seq);
            return;
        }
        // A start by hand since then overrules a pause.
        let renewed = self.want.seq > self.seq;
        match after {
            None => self.wait(renewed, cx),
            Some(_) if renewed => self.wait(true, cx),
            Some(After::Again) => {
                self.restarts += 1;
                self.life = Life::Waiting { since: cx.now };
            }
            Some(After::Backoff(until, at)) => {
                self.restarts += 1;
                self.life = Life::Backoff { until, at };
            }
            Some(After::Flapping(until, at)) => {
                self.restarts += 1;
                self.life = Life::Flapping { until, at };
            }
            Some(After::Exited) => self.life = Life::Exited,
            Some(After::Failed) => self.life = Life::Failed,
        }
    }

    /// Writes a death down and tells it.
    fn settle(&mut self, run: RunId, end: Option<End>, cause: Cause, reason: Reason, cx: &mut Cx<'_>) {
        self.last = Some(run);
        self.code = shell_code(end.as_ref());
        let at = end.as_ref().map_or(cx.now.wall, |end| end.at);
        let mut data = vec![("cause", cause_word(cause).to_owned())];
        if let Some(end) = &end {
            match end.status {
                Status::Code(code) => data.push(("code", code.to_string())),
                Status::Signal(signal, _) => data.push(("signal", reason::signal_name(signal))),
                Status::Unknown => {}
            }
            data.push(("lived", reason::span(end.lived)));
        }
        self.tell("run.exited", Some(run), Some(reason.clone()), data, cx);
        let death = Death { run, end, cause, at };
        cx.out.commands.push(Command::Settle {
            slot: self.slot(cx),
            death,
            reason,
        });
    }

    // ── recovery ──

    pub(super) fn adopt(&mut self, input: In, cx: &mut Cx<'_>) {
        let In::Found(found) = input else { return };
        if self.life.live().is_some_and(|live| live.run != found.run) {
            return;
        }
        let super::FoundRun {
            run,
            stamp,
            found,
            past,
        } = *found;
        self.last = Some(run);
        self.attempt = self
            .attempt
            .max(u32::try_from(past.len()).unwrap_or(u32::MAX).saturating_add(1));
        self.seq = self.seq.max(stamp.restart);
        for death in &past {
            self.recall(death, cx);
        }
        let live = Live {
            run,
            stamp,
            pid: 0,
            started: cx.now.wall,
            started_mono: cx.now.mono,
            ready: None,
            tree_gone: false,
            probes: None,
        };
        match found {
            Found::Alive {
                pid,
                started,
                lived,
                paused,
                ended,
            } => {
                let live = Live {
                    pid: pid.max(1),
                    started,
                    started_mono: cx.now.mono.minus(lived),
                    ..live
                };
                self.reason = Some(reason::adopted(lived));
                self.tell(
                    "run.adopted",
                    Some(run),
                    self.reason.clone(),
                    vec![("pid", pid.to_string())],
                    cx,
                );
                self.adopt_alive(live, lived, paused, ended, cx);
            }
            Found::Dead(death) => self.adopt_dead(&live, death, cx),
            Found::Unreachable => {
                // Whether it ever was is not known yet; `born` and `settle` say so.
                self.last = past.last().map(|death| death.run);
                self.reason = Some(reason::unreachable());
                self.life = Life::Unreachable(live, None);
            }
            Found::NotStarted => {
                // It never was: the slot's last run is still the one before.
                self.last = past.last().map(|death| death.run);
                self.attempt = self.attempt.saturating_sub(1);
                self.life = Life::Stopped;
            }
        }
        if matches!(self.life, Life::Stopped) && self.want.level == Level::Up {
            self.life = Life::Waiting { since: cx.now };
        }
    }

    fn adopt_alive(
        &mut self,
        live: Live,
        lived: Duration,
        paused: bool,
        ended: Option<(End, u32)>,
        cx: &mut Cx<'_>,
    ) {
        // Whoever outlived `ready.within` has been ready, or an earlier daemon would have ended it.
        let probe = cx
            .spec
            .ready
            .as_ref()
            .filter(|_| lived < cx.spec.ready_within && !self.one_off());
        let started = live.started_mono;
        if probe.is_none() {
            let ready = Some((started, live.started));
            self.life = Life::Running(Live { ready, ..live });
        } else {
            self.life = Life::Starting(live);
        }
        if let Some((end, survivors)) = ended {
            return self.own_end(In::Exited(end, survivors.max(1)), cx);
        }
        match (paused, probe) {
            (true, _) => {
                let Some((live, _)) = self.life.take() else { return };
                self.life = Life::Paused(live);
            }
            (false, Some(probe)) => self.begin_ready_with(probe, started.plus(cx.spec.ready_within), cx),
            (false, None) => self.begin_health(cx),
        }
    }

    /// A death that nobody has decided about yet, or that an earlier daemon did: both come out the same.
    fn adopt_dead(&mut self, live: &Live, death: Death, cx: &mut Cx<'_>) {
        let by_itself = !matches!(death.cause, Cause::Stopped | Cause::Replaced);
        let intended = self.already_intended(&live.stamp, cx).filter(|_| by_itself);
        self.code = shell_code(death.end.as_ref());
        self.reason = Some(reason::of_death(&death));
        if !by_itself || intended.is_some() {
            let cause = match (intended, &death.end) {
                (Some(why), Some(end)) => cause_of(why, end),
                _ => death.cause,
            };
            let reason = reason::of_death(&Death {
                cause,
                ..death.clone()
            });
            self.put_down(Death { cause, ..death }, reason, cx);
            self.life = Life::Stopped;
            return;
        }
        let (ended, class) = self.judge(&death, cx);
        let what = death
            .end
            .as_ref()
            .map_or_else(|| "the start failed".to_owned(), reason::ended_short);
        let judged = Judged {
            at: ended.at,
            class,
            never_ran: ended.never_ran,
            healthy: ended.healthy,
            what: &what,
        };
        let decision = self.decide(&judged, cx);
        let reason = reason::of_death(&death);
        // The pause began at the death, not now.
        let gone = cx.now.wall.since(death.at);
        self.reason = decision.reason.or_else(|| Some(reason.clone()));
        let after = match decision.after {
            After::Backoff(until, at) => {
                sooner(until, at, gone, cx.now).map(|(until, at)| After::Backoff(until, at))
            }
            After::Flapping(until, at) => {
                sooner(until, at, gone, cx.now).map(|(until, at)| After::Flapping(until, at))
            }
            other => Some(other),
        };
        self.put_down(death, reason, cx);
        self.go_on_found(after.unwrap_or(After::Again), cx);
    }

    fn go_on_found(&mut self, after: After, cx: &Cx<'_>) {
        self.life = match after {
            After::Again => Life::Waiting { since: cx.now },
            After::Backoff(until, at) => Life::Backoff { until, at },
            After::Flapping(until, at) => Life::Flapping { until, at },
            After::Exited => Life::Exited,
            After::Failed => Life::Failed,
        };
        if self.want.level != Level::Up && !matches!(self.life, Life::Exited | Life::Failed) {
            self.life = Life::Stopped;
        }
    }

    /// Settles a found death; the store keeps the first word it had on a run.
    fn put_down(&self, death: Death, reason: Reason, cx: &mut Cx<'_>) {
        cx.out.commands.push(Command::Settle {
            slot: self.slot(cx),
            death,
            reason,
        });
    }

    fn judge(&self, death: &Death, cx: &Cx<'_>) -> (Ended, Class) {
        // Wall distances stand in for the monotonic times, which did not survive.
        let at = cx.now.mono.minus(cx.now.wall.since(death.at));
        let class = match (&death.end, death.cause) {
            (None, _) | (_, Cause::Unhealthy | Cause::Timeout) => Class::Failure,
            (Some(end), _) => classify(end, cx.spec),
        };
        let healthy = death.end.as_ref().map_or(Duration::ZERO, |end| end.lived);
        (
            Ended {
                at,
                ok: class == Class::Ok,
                never_ran: death.end.is_none(),
                healthy,
            },
            class,
        )
    }

    fn recall(&mut self, death: &Death, cx: &mut Cx<'_>) {
        if matches!(death.cause, Cause::Stopped | Cause::Replaced) {
            return;
        }
        let (ended, _) = self.judge(death, cx);
        let flapping = cx.spec.flapping.as_ref();
        self.history.recall(
            ended,
            &cx.spec.retry,
            flapping.filter(|flapping| !flapping.whole_job),
        );
        if let (Some(flapping), Some(crashes)) = (flapping, cx.crashes.as_deref_mut())
            && flapping.whole_job
        {
            crashes.ended(ended, flapping);
        }
    }
}

fn sooner(until: Mono, at: crate::time::Wall, by: Duration, now: Now) -> Option<(Mono, crate::time::Wall)> {
    let until = until.minus(by);
    let at = crate::time::Wall(at.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)));
    (until > now.mono).then_some((until, at))
}

/// Time it was up and ready.
fn healthy_for(live: &Live, end: &End) -> Duration {
    let Some((ready, _)) = live.ready else {
        return Duration::ZERO;
    };
    end.lived.saturating_sub(ready.since(live.started_mono))
}

fn start_cause(stage: &str) -> Cause {
    if stage.starts_with("exec") {
        Cause::ExecFailed
    } else {
        Cause::SetupFailed
    }
}

/// Cause of an end that was asked for.
fn cause_of(why: Why, end: &End) -> Cause {
    match why {
        Why::Stop | Why::Remove | Why::Shutdown | Why::With => Cause::Stopped,
        Why::Scale | Why::Restart | Why::Reload | Why::Lane => Cause::Replaced,
        Why::Halt => Cause::Stopped,
        Why::Unready | Why::Unhealthy => Cause::Unhealthy,
        Why::Survivors => own_cause(end),
    }
}

fn stop_words(spec: &Job) -> String {
    match spec.stop.cmd {
        Some(_) => "its stop command".into(),
        None => reason::signal_name(spec.stop.signal),
    }
}

fn ending_words(ending: &Ending, cx: &Cx<'_>) -> String {
    let by = &ending.by;
    match (ending.why, &ending.note) {
        (_, Some(note)) => note.text.to_string(),
        (Why::Stop | Why::Shutdown, None) => format!("asked to end by {by}"),
        (Why::Remove, None) => format!("its job was removed by {by}"),
        (Why::Scale, None) => format!("scaled down by {by}"),
        (Why::With, None) => format!("stopping with what it depends on ({})", cx.job),
        (Why::Restart, None) => format!("restart asked by {by}"),
        (Why::Reload, None) => format!("reload asked by {by}"),
        (Why::Lane, None) => "the other lane serves".into(),
        (Why::Unready | Why::Unhealthy | Why::Halt | Why::Survivors, None) => "ending".into(),
    }
}

fn asked_reason(why: Why, ending: &Ending, end: &End, took: Duration, cx: &Cx<'_>) -> Reason {
    if ending.forced {
        return reason::stop_forced(&ending.by, ending.asked.wall, cx.zone);
    }
    if ending.killed {
        return reason::stop_killed(took, &stop_words(cx.spec));
    }
    let how = reason::how_it_ended(&stop_words(cx.spec), took, end);
    let at = Wanted {
        by: &ending.by,
        at: ending.asked,
    };
    match (why, &ending.note) {
        (Why::Halt, Some(note)) => note.clone(),
        _ => at.reason(why, &how, cx),
    }
}

struct Wanted<'a> {
    by: &'a Actor,
    at: Now,
}

impl Wanted<'_> {
    fn reason(&self, why: Why, how: &str, cx: &Cx<'_>) -> Reason {
        match why {
            Why::Scale => reason::scaled_down(self.by, how),
            Why::Restart => reason::replaced("restart", self.by, how),
            Why::Reload | Why::Lane => reason::replaced("reload", self.by, how),
            Why::With => reason::stopped_with("what it depends on", how),
            Why::Stop | Why::Remove | Why::Shutdown => reason::stopped(self.by, self.at.wall, how, cx.zone),
            Why::Halt | Why::Unready | Why::Unhealthy | Why::Survivors => {
                reason::stopped(self.by, self.at.wall, how, cx.zone)
            }
        }
    }
}

fn intended_reason(why: Why, by: &Actor, how: &str, cx: &Cx<'_>) -> Reason {
    Wanted { by, at: cx.now }.reason(why, how, cx)
}

/// Word of a cause (ux.md 6.2).
pub(crate) fn cause_word(cause: Cause) -> &'static str {
    match cause {
        Cause::Exit => "exit",
        Cause::Signal => "signal",
        Cause::Oom => "oom",
        Cause::Timeout => "timeout",
        Cause::Unhealthy => "unhealthy",
        Cause::Stopped => "stopped",
        Cause::Replaced => "replaced",
        Cause::ExecFailed => "exec-failed",
        Cause::SetupFailed => "setup-failed",
        Cause::Unknown => "unknown",
    }
}
