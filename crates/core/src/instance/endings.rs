//! How runs end: asked for or not, and what follows. Every end is settled exactly once by the machine
//! that sees it, with a cause, and the reason travels with it: an intended end is never a failure.

use super::stopping::{asked_reason, intended_reason};
use super::table::Level;
use super::{After, Cx, Ending, In, Life, Live, SIGCONT, SURVIVOR_GRACE_MAX, Seat, Why};
use crate::io::{Cause, Command, Death, End, Reason, Status};
use crate::job::{ExitMatch, Job, ReloadHow, Restart, Scope};
use crate::name::RunId;
use crate::reason;
use crate::retry::{Ended, Verdict};
use crate::time::{Duration, Mono};

/// Class of an end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Ok,
    Fatal,
    Failure,
}

pub(super) fn classify(end: &End, spec: &Job) -> Class {
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
pub(super) fn shell_code(end: Option<&End>) -> i32 {
    match end.map(|end| end.status) {
        Some(Status::Code(code)) => code,
        Some(Status::Signal(signal, _)) => 128 + signal,
        Some(Status::Unknown) => 1,
        None => 127,
    }
}

/// What is known about an end that calls for a decision.
pub(super) struct Judged<'a> {
    pub at: Mono,
    pub class: Class,
    pub never_ran: bool,
    pub healthy: Duration,
    /// `exit 1`, for the sentence.
    pub what: &'a str,
}

/// A decision, and its two sentences.
pub(super) struct Decision {
    pub after: After,
    /// For the death record: `attempt 8 in 12s`.
    pub follows: Option<String>,
    /// Of the seat from now on.
    pub reason: Option<Reason>,
    /// Told behind the end that it follows from, with that reason.
    pub event: Option<&'static str>,
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
        self.tell_decided(decision.event, self.reason.clone(), cx);
        self.end_survivors(live, survivors, Some(decision.after), words, cx);
    }

    /// An end nobody reported as asked for, of a run that was to end anyway: the daemon that asked is
    /// gone, or the end was faster than the request.
    pub(super) fn already_intended(&self, stamp: &crate::io::Stamp, cx: &Cx<'_>) -> Option<Why> {
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
    pub(super) fn decide(&mut self, judged: &Judged<'_>, cx: &mut Cx<'_>) -> Decision {
        self.failing = judged.class != Class::Ok;
        let done = |after, reason| Decision {
            after,
            follows: None,
            reason,
            event: None,
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
        if let (true, Some(_), Some(reason)) = (whole_job, event, &reason) {
            let until = if let After::Flapping(until, _) = after {
                Some(until)
            } else {
                None
            };
            *cx.halt = Some((until, reason.clone()));
        }
        Decision {
            after,
            follows,
            reason,
            event,
        }
    }

    /// What was decided, once its cause has been told.
    pub(super) fn tell_decided(&self, event: Option<&'static str>, reason: Option<Reason>, cx: &mut Cx<'_>) {
        if let Some(event) = event {
            self.tell(event, None, reason, Vec::new(), cx);
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
        self.tell_decided(decision.event, self.reason.clone(), cx);
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
        // The main process is gone, others of its tree still have to hear of it. That is the same request: it has been
        // told already.
        if !killed {
            cx.out.commands.push(Command::Signal {
                run,
                signal: cx.spec.stop.signal,
                to: Scope::All,
            });
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
        self.tell_decided(decision.event, decision.reason, cx);
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
        self.order = None;
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
pub(super) fn cause_of(why: Why, end: &End) -> Cause {
    match why {
        Why::Stop | Why::Remove | Why::Shutdown | Why::With => Cause::Stopped,
        Why::Scale | Why::Restart | Why::Reload | Why::Lane => Cause::Replaced,
        Why::Halt => Cause::Stopped,
        Why::Unready | Why::Unhealthy => Cause::Unhealthy,
        Why::Survivors => own_cause(end),
    }
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
