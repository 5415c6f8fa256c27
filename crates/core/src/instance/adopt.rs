//! Recovery: taking charge of what an earlier daemon left, so that nothing looks as if it had not been away.

use super::After;
use super::endings::{Class, Judged, cause_of, classify, shell_code};
use super::table::Level;
use super::{Cx, FoundRun, In, Life, Live, Seat};
use crate::io::{Cause, Command, Death, End, Found, Reason, Stamp};
use crate::name::RunId;
use crate::reason;
use crate::retry::Ended;
use crate::time::{Duration, Mono, Now, Wall};

impl Seat {
    pub(super) fn adopt(&mut self, input: In, cx: &mut Cx<'_>) {
        let In::Found(found) = input else { return };
        if self.life.live().is_some_and(|live| live.run != found.run) {
            return;
        }
        let FoundRun {
            run,
            stamp,
            found,
            past,
        } = *found;
        let live = self.begin_adopting(run, stamp, &past, cx);
        match found {
            Found::Alive {
                pid,
                started,
                lived,
                paused,
                ended,
            } => {
                let started_mono = cx.now.mono.minus(lived);
                let live = Live {
                    pid,
                    started,
                    started_mono,
                    ..live
                };
                if pid == 0 && ended.is_none() {
                    // Asked for by an earlier daemon, not born yet: `Started` or `StartFailed` is still to come.
                    self.last = past.last().map(|death| death.run);
                    self.life = Life::Starting(live);
                    return;
                }
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

    /// What holds whatever became of the run: its ordinal, its stamp, the failures before it.
    fn begin_adopting(&mut self, run: RunId, stamp: Stamp, past: &[Death], cx: &mut Cx<'_>) -> Live {
        self.last = Some(run);
        self.attempt = self
            .attempt
            .max(u32::try_from(past.len()).unwrap_or(u32::MAX).saturating_add(1));
        // Without a stamp (its shim and journal are long gone) it counts as current: it was settled before.
        let stamp = if stamp == Stamp::default() {
            Stamp {
                restart: self.want.restart.max(self.want.seq).max(cx.reload),
                launch: cx.digest,
            }
        } else {
            stamp
        };
        self.seq = self.seq.max(stamp.restart);
        for death in past {
            self.recall(death, cx);
        }
        Live {
            run,
            stamp,
            pid: 0,
            started: cx.now.wall,
            started_mono: cx.now.mono,
            ready: None,
            tree_gone: false,
            probes: None,
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
        self.tell_decided(decision.event, self.reason.clone(), cx);
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
        match death.cause {
            // The count of new runs nobody asked for begins anew with a stop by hand.
            Cause::Stopped => {
                self.restarts = 0;
                return;
            }
            Cause::Replaced => return,
            _ => self.restarts += 1,
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

fn sooner(until: Mono, at: Wall, by: Duration, now: Now) -> Option<(Mono, Wall)> {
    let until = until.minus(by);
    let at = Wall(at.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)));
    (until > now.mono).then_some((until, at))
}
