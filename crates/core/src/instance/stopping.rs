//! How a run is asked to end: signal or command, the grace, KILL, and what is done when even that does not help.

use super::After;
use super::table::Level;
use super::{Cx, Ending, In, Life, SIGCONT, SIGKILL, STUCK_AFTER, Seat, Want, Why};
use crate::io::{Actor, Command, End, Reason};
use crate::job::{Job, Scope};
use crate::name::RunId;
use crate::reason;
use crate::time::{Duration, Now};

impl Seat {
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
            true => {
                if let Some(run) = self.run().filter(|_| born) {
                    self.tell_asked(run, ("signal", "KILL".into()), why, cx);
                }
                self.kill(cx);
            }
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
        let (run, survivors, why) = (live.run, ending.ended, ending.why);
        if ending.killed {
            cx.out.commands.push(Command::KillTree { run });
            return;
        }
        if let (Some(cmd), false) = (&cx.spec.stop.cmd, survivors) {
            self.tell_asked(run, ("cmd", cmd.join(" ")), why, cx);
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
        cx.out.commands.push(Command::Signal { run, signal, to });
        self.tell_asked(run, ("signal", reason::signal_name(signal)), why, cx);
        if signal != SIGKILL {
            cx.out.commands.push(Command::Signal {
                run,
                signal: SIGCONT,
                to,
            });
        }
    }

    /// A run is asked to end, and why.
    fn tell_asked(&self, run: RunId, by: (&'static str, String), why: Why, cx: &mut Cx<'_>) {
        let data = vec![by, ("why", why_word(why).to_owned())];
        self.tell("run.signalled", Some(run), None, data, cx);
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
}

/// `stop scale restart reload …`: why a run is asked to end.
fn why_word(why: Why) -> &'static str {
    match why {
        Why::Stop => "stop",
        Why::Remove => "remove",
        Why::Shutdown => "shutdown",
        Why::With => "dependency",
        Why::Scale => "scale",
        Why::Restart => "restart",
        Why::Reload | Why::Lane => "reload",
        Why::Halt => "flapping",
        Why::Unready => "unready",
        Why::Unhealthy => "unhealthy",
        Why::Survivors => "survivors",
    }
}

pub(super) fn stop_words(spec: &Job) -> String {
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

pub(super) fn asked_reason(why: Why, ending: &Ending, end: &End, took: Duration, cx: &Cx<'_>) -> Reason {
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

pub(super) fn intended_reason(why: Why, by: &Actor, how: &str, cx: &Cx<'_>) -> Reason {
    Wanted { by, at: cx.now }.reason(why, how, cx)
}
