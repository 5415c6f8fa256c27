//! Readiness and health of one resident worker: when it is asked, and what follows from the answers. Both belong to the run; a worker that is
//! adopted by another daemon is on its way out and is not asked any more.
//!
//! Active kinds (http, tcp, cmd) are asked for one at a time; passive ones (log, notify, heartbeat) are asked for once and report by
//! themselves; `after` and the silence of a heartbeat are deadlines.

use super::spec::Queue;
use crate::io::ProbeRole;
use crate::job::{Probe, ProbeKind};
use crate::reason;
use crate::time::{Duration, Mono};
use std::sync::Arc;

/// How workers of a queue are asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Probing {
    /// When a worker can be given tasks.
    pub ready: Option<Probe>,
    /// Else its start has failed.
    pub within: Duration,
    /// Whether it still works.
    pub health: Option<Probe>,
    /// One that does not is replaced; else it is only told.
    pub restarts: bool,
}

impl Default for Probing {
    fn default() -> Probing {
        Probing {
            ready: None,
            within: Duration::from_secs(60),
            health: None,
            restarts: true,
        }
    }
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Ask, or begin to listen.
    Ask(ProbeRole),
    /// It can be given tasks.
    Ready,
    /// Its start has failed: why.
    Unready(Arc<str>),
    /// It does not work any more: why.
    Unhealthy(Arc<str>),
    /// It works again.
    Healthy,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Vigil {
    spec: Arc<Queue>,
    is_ready: bool,
    /// The start has failed then.
    until: Mono,
    /// Ask, or judge, then.
    next: Option<Mono>,
    good: u32,
    bad: u32,
    last: Option<Arc<str>>,
}

/// Is it asked for again and again?
fn is_active(probe: &Probe) -> bool {
    match probe.kind {
        ProbeKind::Http(_) | ProbeKind::Tcp(_) | ProbeKind::Cmd { .. } => true,
        ProbeKind::Log(_) | ProbeKind::Notify | ProbeKind::After(_) | ProbeKind::Heartbeat(_) => false,
    }
}

impl Vigil {
    /// The process exists.
    pub fn begin(spec: Arc<Queue>, now: Mono) -> (Vigil, Vec<Finding>) {
        let mut vigil = Vigil {
            until: now.plus(spec.probing.within),
            is_ready: false,
            next: None,
            good: 0,
            bad: 0,
            last: None,
            spec,
        };
        let mut found = Vec::new();
        match &vigil.spec.probing.ready {
            None => vigil.become_ready(now, &mut found),
            Some(probe) => {
                vigil.next = match probe.kind {
                    ProbeKind::After(long) => Some(now.plus(long)),
                    _ if is_active(probe) => Some(now.plus(probe.delay)),
                    // Watched from the first byte on.
                    _ => {
                        found.push(Finding::Ask(ProbeRole::Ready));
                        None
                    }
                };
            }
        }
        (vigil, found)
    }

    /// It has shown that it can be given tasks.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// When it has to be looked at.
    pub fn deadline(&self) -> Option<Mono> {
        let until = (!self.is_ready).then_some(self.until);
        until.into_iter().chain(self.next).min()
    }

    fn become_ready(&mut self, now: Mono, found: &mut Vec<Finding>) {
        self.is_ready = true;
        self.bad = 0;
        found.push(Finding::Ready);
        self.next = None;
        let Some(probe) = &self.spec.probing.health else {
            return;
        };
        let first = now.plus(probe.delay);
        match probe.kind {
            ProbeKind::Heartbeat(silence) => self.next = Some(first.plus(silence)),
            // It has just proved that it works.
            _ => self.next = Some(first.plus(probe.every)),
        }
    }

    /// After a pause nothing that was asked or awaited before it counts.
    pub fn afresh(&mut self, now: Mono) {
        self.bad = 0;
        self.until = now.plus(self.spec.probing.within);
        let probing = &self.spec.probing;
        let probe = if self.is_ready {
            &probing.health
        } else {
            &probing.ready
        };
        if let Some(probe) = probe {
            self.next = match probe.kind {
                ProbeKind::Heartbeat(silence) => Some(now.plus(silence)),
                ProbeKind::After(long) => Some(now.plus(long)),
                _ => is_active(probe).then(|| now.plus(probe.every)),
            };
        }
    }

    /// A deadline may have passed.
    pub fn tick(&mut self, now: Mono) -> Vec<Finding> {
        let mut found = Vec::new();
        let is_due = self.next.is_some_and(|at| at <= now);
        let probing = &self.spec.probing;
        match (self.is_ready, &probing.ready, &probing.health) {
            (false, Some(probe), _) => match probe.kind {
                ProbeKind::After(_) if is_due => self.become_ready(now, &mut found),
                _ if self.until <= now => {
                    let why = reason::unready(probing.within, self.last.as_deref(), None).text;
                    // Told once; it is on its way out.
                    (self.until, self.next) = (Mono(u64::MAX), None);
                    found.push(Finding::Unready(why));
                }
                _ if is_due => {
                    self.next = None;
                    found.push(Finding::Ask(ProbeRole::Ready));
                }
                _ => {}
            },
            (true, _, Some(probe)) if is_due => match probe.kind {
                ProbeKind::Heartbeat(silence) => {
                    let at = self.next.replace(now.plus(silence)).unwrap_or(now);
                    // This long past its deadline, it was us who slept: look once more.
                    if now.since(at) < silence {
                        self.bad = self.bad.saturating_add(1);
                        let why = format!("no heartbeat for {}", reason::span(silence));
                        found.push(Finding::Unhealthy(why.into()));
                    }
                }
                _ => {
                    self.next = None;
                    found.push(Finding::Ask(ProbeRole::Health));
                }
            },
            _ => {}
        }
        found
    }

    /// An answer.
    pub fn probed(&mut self, now: Mono, role: ProbeRole, result: Result<Arc<str>, Arc<str>>) -> Vec<Finding> {
        let mut found = Vec::new();
        let probing = &self.spec.probing;
        match (role, self.is_ready, &probing.ready, &probing.health) {
            (ProbeRole::Ready, false, Some(probe), _) => {
                self.next = is_active(probe).then(|| now.plus(probe.every));
                match result {
                    Ok(_) => {
                        self.good += 1;
                        if self.good >= probe.successes.max(1) {
                            self.become_ready(now, &mut found);
                        }
                    }
                    Err(why) => (self.good, self.last) = (0, Some(why)),
                }
            }
            (ProbeRole::Health, true, _, Some(probe)) => {
                self.next = Some(match probe.kind {
                    ProbeKind::Heartbeat(silence) => now.plus(silence),
                    _ => now.plus(probe.every),
                });
                let failures = probe.failures.max(1);
                match result {
                    Ok(_) => {
                        if std::mem::take(&mut self.bad) >= failures
                            || matches!(probe.kind, ProbeKind::Heartbeat(_))
                        {
                            found.push(Finding::Healthy);
                        }
                    }
                    Err(why) => {
                        self.bad = self.bad.saturating_add(1);
                        // Told once per series.
                        if self.bad == failures {
                            let text = reason::unhealthy(self.bad, &why, None).text;
                            found.push(Finding::Unhealthy(text));
                        }
                    }
                }
            }
            _ => {}
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::spec::By;

    fn probe(kind: ProbeKind) -> Probe {
        Probe {
            kind,
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            delay: Duration::ZERO,
            successes: 1,
            failures: 2,
        }
    }

    fn at(secs: u64) -> Mono {
        Mono(1_000_000_000 * (100 + secs))
    }

    fn vigil(ready: Option<ProbeKind>, health: Option<ProbeKind>) -> (Vigil, Vec<Finding>) {
        let spec = Queue {
            probing: Probing {
                ready: ready.map(probe),
                within: Duration::from_secs(10),
                health: health.map(probe),
                restarts: true,
            },
            ..Queue::of(By::Others)
        };
        Vigil::begin(Arc::new(spec), at(0))
    }

    fn tcp() -> ProbeKind {
        ProbeKind::Tcp("localhost:1".to_owned())
    }

    fn bad() -> Result<Arc<str>, Arc<str>> {
        Err("refused".into())
    }

    fn good() -> Result<Arc<str>, Arc<str>> {
        Ok("accepted".into())
    }

    #[test]
    fn without_a_probe_it_is_ready_when_it_runs() {
        let (vigil, found) = vigil(None, None);
        assert_eq!(found, [Finding::Ready]);
        assert_eq!(vigil.deadline(), None);
    }

    #[test]
    fn it_is_ready_when_its_probe_says_so() {
        let (mut vigil, found) = vigil(Some(tcp()), None);
        assert_eq!((found, vigil.deadline()), (Vec::new(), Some(at(0))));
        assert_eq!(vigil.tick(at(0)), [Finding::Ask(ProbeRole::Ready)]);
        assert_eq!(vigil.tick(at(0)), [], "one at a time");
        assert_eq!(vigil.probed(at(1), ProbeRole::Ready, bad()), []);
        assert_eq!(vigil.deadline(), Some(at(2)));
        assert_eq!(vigil.tick(at(2)), [Finding::Ask(ProbeRole::Ready)]);
        assert_eq!(vigil.probed(at(2), ProbeRole::Ready, good()), [Finding::Ready]);
        assert_eq!(vigil.deadline(), None);
    }

    #[test]
    fn a_start_that_is_not_ready_in_time_has_failed() {
        let (mut late, _) = vigil(Some(tcp()), None);
        late.tick(at(0));
        late.probed(at(1), ProbeRole::Ready, bad());
        let found = late.tick(at(10));
        assert_eq!(found, [Finding::Unready("not ready within 10s: refused".into())]);
        assert_eq!(late.tick(at(11)), [], "once");
        let (mut silent, found) = vigil(Some(ProbeKind::Notify), None);
        assert_eq!(found, [Finding::Ask(ProbeRole::Ready)]);
        assert_eq!(silent.deadline(), Some(at(10)));
        assert_eq!(silent.probed(at(9), ProbeRole::Ready, good()), [Finding::Ready]);
        let (mut after, _) = vigil(Some(ProbeKind::After(Duration::from_secs(3))), None);
        assert_eq!(after.tick(at(2)), []);
        assert_eq!(after.tick(at(3)), [Finding::Ready]);
    }

    #[test]
    fn bad_answers_in_a_row_are_told_once_and_a_good_one_ends_them() {
        let (mut vigil, _) = vigil(None, Some(tcp()));
        assert_eq!(
            vigil.deadline(),
            Some(at(1)),
            "the first look comes after one interval"
        );
        assert_eq!(vigil.tick(at(1)), [Finding::Ask(ProbeRole::Health)]);
        assert_eq!(vigil.probed(at(1), ProbeRole::Health, bad()), []);
        assert_eq!(vigil.probed(at(2), ProbeRole::Health, good()), []);
        assert_eq!(vigil.probed(at(3), ProbeRole::Health, bad()), []);
        let told = [Finding::Unhealthy("health check failed 2 times: refused".into())];
        assert_eq!(vigil.probed(at(4), ProbeRole::Health, bad()), told);
        assert_eq!(vigil.probed(at(5), ProbeRole::Health, bad()), []);
        assert_eq!(vigil.probed(at(6), ProbeRole::Health, good()), [Finding::Healthy]);
    }

    #[test]
    fn a_heartbeat_that_does_not_come_is_told_unless_it_was_us_who_slept() {
        let beat = ProbeKind::Heartbeat(Duration::from_secs(5));
        let (mut vigil, _) = vigil(None, Some(beat));
        assert_eq!(vigil.deadline(), Some(at(5)));
        vigil.probed(at(4), ProbeRole::Health, good());
        assert_eq!(vigil.tick(at(5)), []);
        assert_eq!(vigil.tick(at(30)), [], "nobody looked for so long");
        let told = [Finding::Unhealthy("no heartbeat for 5s".into())];
        assert_eq!(vigil.tick(at(35)), told);
        vigil.afresh(at(40));
        assert_eq!(vigil.tick(at(44)), []);
    }
}
