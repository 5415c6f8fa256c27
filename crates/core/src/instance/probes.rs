//! Readiness and liveness of one run. Both belong to the run: they begin and end with it.
//!
//! Active kinds (http, tcp, cmd) are asked for one at a time; passive ones (log, notify, heartbeat) are
//! asked for once and report by themselves; `after` and the silence of a heartbeat are deadlines.

use super::{Cx, In, Life, Seat, Why};
use crate::io::{Command, ProbeRole};
use crate::job::{Probe, ProbeKind};
use crate::reason;
use crate::time::Mono;
use std::sync::Arc;

/// Probing of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes {
    ready: Track,
    health: Track,
    /// `ready.within` is over then.
    within: Option<Mono>,
    /// Newest bad answer of `ready`.
    pub last: Option<Arc<str>>,
}

#[derive(Clone, Debug, Default)]
struct Track {
    /// Ask (or judge) then.
    next: Option<Mono>,
    good: u32,
    bad: u32,
}

impl Probes {
    pub fn due(&self) -> Option<Mono> {
        [self.ready.next, self.health.next, self.within]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Is it asked for again and again?
fn active(probe: &Probe) -> bool {
    match probe.kind {
        ProbeKind::Http(_) | ProbeKind::Tcp(_) | ProbeKind::Cmd { .. } => true,
        ProbeKind::Log(_) | ProbeKind::Notify | ProbeKind::After(_) | ProbeKind::Heartbeat(_) => false,
    }
}

impl Seat {
    /// The process exists: ready at once, or begin to probe.
    pub(super) fn begin_ready(&mut self, cx: &mut Cx<'_>) {
        match &cx.spec.ready {
            Some(probe) if !self.one_off() => {
                let within = cx.now.mono.plus(cx.spec.ready_within);
                self.begin_ready_with(probe, within, cx);
            }
            _ => self.become_ready(None, cx),
        }
    }

    pub(super) fn begin_ready_with(&mut self, probe: &Probe, within: Mono, cx: &mut Cx<'_>) {
        let Life::Starting(live) = &mut self.life else {
            return;
        };
        let run = live.run;
        let mut probes = Box::new(Probes {
            within: Some(within),
            ..Probes::default()
        });
        probes.ready.next = match probe.kind {
            ProbeKind::After(long) => Some(live.started_mono.plus(long)),
            _ if active(probe) => Some(cx.now.mono.plus(probe.delay)),
            _ => None,
        };
        // Passive kinds are watched from the first byte on.
        if probes.ready.next.is_none() {
            cx.out.commands.push(Command::Probe {
                run,
                role: ProbeRole::Ready,
            });
        }
        live.probes = Some(probes);
        if probe.delay.is_zero() && active(probe) {
            self.due_ready(cx);
        }
    }

    pub(super) fn become_ready(&mut self, how: Option<&Arc<str>>, cx: &mut Cx<'_>) {
        let Some((mut live, _)) = self.life.take() else {
            return;
        };
        live.ready = Some((cx.now.mono, cx.now.wall));
        live.probes = None;
        let run = live.run;
        self.reason = None;
        self.life = Life::Running(live);
        // Without a probe "started" has said it.
        if let Some(how) = how {
            self.tell("run.ready", Some(run), None, vec![("probe", how.to_string())], cx);
        }
        self.begin_health(cx);
    }

    pub(super) fn begin_health(&mut self, cx: &mut Cx<'_>) {
        if self.one_off() {
            return;
        }
        let (Some(probe), Life::Running(live)) = (&cx.spec.health, &mut self.life) else {
            return;
        };
        let first = cx.now.mono.plus(probe.delay);
        let next = match probe.kind {
            ProbeKind::Heartbeat(silence) => Some(first.plus(silence)),
            // The first look comes after one interval: it has just proved ready.
            _ if active(probe) => Some(first.plus(probe.every)),
            _ => None,
        };
        if !active(probe) {
            cx.out.commands.push(Command::Probe {
                run: live.run,
                role: ProbeRole::Health,
            });
        }
        let probes = live.probes.get_or_insert_default();
        probes.health = Track {
            next,
            good: 0,
            bad: 0,
        };
    }

    /// After a pause or a silence: old deadlines say nothing, answers may have been lost.
    pub(super) fn probe_afresh(&mut self, cx: &mut Cx<'_>) {
        match &mut self.life {
            Life::Running(_) => self.begin_health(cx),
            Life::Starting(live) if live.pid != 0 => {
                live.probes = None;
                self.begin_ready(cx);
            }
            _ => {}
        }
    }

    pub(super) fn count_ready(&mut self, input: In, cx: &mut Cx<'_>) {
        let In::Probed(ProbeRole::Ready, result) = input else {
            return;
        };
        let (Some(probe), Life::Starting(live)) = (&cx.spec.ready, &mut self.life) else {
            return;
        };
        let Some(probes) = &mut live.probes else { return };
        match result {
            Ok(how) => {
                probes.ready.good += 1;
                if probes.ready.good >= probe.successes.max(1) {
                    return self.become_ready(Some(&how), cx);
                }
            }
            Err(why) => {
                probes.ready.good = 0;
                self.reason = reason::starting(Some(&why));
                probes.last = Some(why);
            }
        }
        if active(probe) {
            probes.ready.next = Some(cx.now.mono.plus(probe.every));
        }
    }

    pub(super) fn due_ready(&mut self, cx: &mut Cx<'_>) {
        let Some(probe) = &cx.spec.ready else {
            // A newer definition has no `ready` any more.
            return self.become_ready(None, cx);
        };
        let Life::Starting(live) = &mut self.life else {
            return;
        };
        let Some(probes) = &mut live.probes else { return };
        let due = |at: Option<Mono>| at.is_some_and(|at| at <= cx.now.mono);
        let within = cx.spec.ready_within;
        // This long past its deadline, it was us who slept (suspend, a frozen daemon), and the program with us.
        if probes
            .within
            .is_some_and(|at| !within.is_zero() && cx.now.mono.since(at) >= within)
        {
            probes.within = Some(cx.now.mono.plus(within));
        }
        if due(probes.within) && !(due(probes.ready.next) && matches!(probe.kind, ProbeKind::After(_))) {
            let note = reason::unready(cx.spec.ready_within, probes.last.as_deref(), None);
            return self.ask_end(Why::Unready, Some(note), cx);
        }
        if due(probes.ready.next) {
            probes.ready.next = None;
            match probe.kind {
                ProbeKind::After(long) => {
                    let how: Arc<str> = format!("alive for {}", reason::span(long)).into();
                    self.become_ready(Some(&how), cx);
                }
                _ => cx.out.commands.push(Command::Probe {
                    run: live.run,
                    role: ProbeRole::Ready,
                }),
            }
        }
    }

    pub(super) fn count_health(&mut self, input: In, cx: &mut Cx<'_>) {
        let In::Probed(ProbeRole::Health, result) = input else {
            return;
        };
        let (Some(probe), Life::Running(live)) = (&cx.spec.health, &mut self.life) else {
            return;
        };
        let Some(probes) = &mut live.probes else { return };
        let track = &mut probes.health;
        if let ProbeKind::Heartbeat(silence) = probe.kind {
            track.next = Some(cx.now.mono.plus(silence));
        } else if active(probe) {
            track.next = Some(cx.now.mono.plus(probe.every));
        }
        match result {
            Ok(_) if track.bad > 0 => {
                track.bad = 0;
                self.reason = None;
            }
            Ok(_) => {}
            Err(why) => {
                track.bad += 1;
                let bad = track.bad;
                if bad >= probe.failures.max(1) {
                    self.unhealthy(bad, &why, cx);
                } else {
                    self.reason = Some(reason::unhealthy(bad, &why, None));
                }
            }
        }
    }

    pub(super) fn due_health(&mut self, cx: &mut Cx<'_>) {
        let Life::Running(live) = &mut self.life else {
            return;
        };
        let Some(probe) = &cx.spec.health else {
            // A newer definition has no `health` any more.
            live.probes = None;
            return;
        };
        let run = live.run;
        let Some(track) = live.probes.as_mut().map(|probes| &mut probes.health) else {
            return;
        };
        let Some(at) = track.next.filter(|at| *at <= cx.now.mono) else {
            return;
        };
        let ProbeKind::Heartbeat(silence) = probe.kind else {
            track.next = None;
            cx.out.commands.push(Command::Probe {
                run,
                role: ProbeRole::Health,
            });
            return;
        };
        track.next = Some(cx.now.mono.plus(silence));
        // This long past its deadline, it was us who slept (suspend, a frozen daemon), so look once more.
        if cx.now.mono.since(at) < silence {
            self.unhealthy(1, &format!("no heartbeat for {}", reason::span(silence)), cx);
        }
    }

    fn unhealthy(&mut self, times: u32, why: &str, cx: &mut Cx<'_>) {
        if cx.spec.health_restarts {
            let note = reason::unhealthy(times, why, None);
            self.ask_end(Why::Unhealthy, Some(note), cx);
            return;
        }
        let note = reason::unhealthy(times, why, Some("only told, as `health.action` says"));
        // Told once per series, not at every further bad answer.
        if cx
            .spec
            .health
            .as_ref()
            .is_some_and(|probe| times == probe.failures.max(1))
            || times == 1
        {
            self.tell("run.unhealthy", self.run(), Some(note.clone()), Vec::new(), cx);
        }
        self.reason = Some(note);
    }
}
