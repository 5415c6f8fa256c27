//! Whether resident workers are ready, and well: what the machine of the core asks for is done, and what follows is carried out.

use super::resident::Residents;
use super::worker::{expand_worker, log_dir};
use crate::clock;
use crate::launch::{Asked, question_of};
use crate::probes::{self, Program};
use crate::requests::ports_of;
use crate::state::State;
use gaffer_config::QueueRun;
use gaffer_core::io::ProbeRole;
use gaffer_core::job::{Launch, Probe, ProbeKind};
use gaffer_core::name::RunId;
use gaffer_core::queue::spec::{By, Queue, QueueId};
use gaffer_core::queue::vigil::{Finding, Vigil};
use gaffer_core::time::{Mono, Wall};
use std::sync::Arc;

/// Outcome of a probe.
type Verdict = Result<Arc<str>, Arc<str>>;

/// Do workers of a queue speak sd_notify?
fn wants_notify(spec: &Queue) -> bool {
    let probes = spec.probing.ready.iter().chain(&spec.probing.health);
    probes
        .into_iter()
        .any(|probe| matches!(probe.kind, ProbeKind::Notify | ProbeKind::Heartbeat(_)))
}

/// What a worker is told of how it is asked.
pub(super) fn variables(
    state: &State,
    spec: &Queue,
    launch: &Launch,
) -> Result<Vec<(String, String)>, String> {
    if !wants_notify(spec) {
        return Ok(Vec::new());
    }
    let path = state.watches.notify.path(crate::notify::foreign(launch))?;
    let mut added = vec![("NOTIFY_SOCKET".to_owned(), path)];
    if let Some(ProbeKind::Heartbeat(silence)) = spec.probing.health.as_ref().map(|probe| &probe.kind) {
        added.push(("WATCHDOG_USEC".to_owned(), silence.as_micros().to_string()));
    }
    Ok(added)
}

fn probe_of(spec: &Queue, role: ProbeRole) -> Option<&Probe> {
    match role {
        ProbeRole::Ready => spec.probing.ready.as_ref(),
        ProbeRole::Health => spec.probing.health.as_ref(),
    }
}

impl Residents {
    /// A worker of a queue that is not well, which is only told: since when, and why.
    pub fn unwell(&self, queue: &QueueId) -> Option<(Wall, Arc<str>)> {
        let own = self.places.iter().filter(|((of, _), _)| of == queue);
        own.filter_map(|(_, place)| place.current.as_ref()?.unwell.clone())
            .min()
    }

    /// The definition that a worker runs by, if it is asked.
    pub fn definition_of(&self, run: RunId) -> Option<Arc<Queue>> {
        let place = self.places.get(self.by_run.get(&run)?)?;
        let current = place.current.as_ref().filter(|one| one.run == run)?;
        current.vigil.as_ref().map(|_| current.definition.clone())
    }
}

impl State {
    /// The process of a worker exists: it gets tasks when it is ready.
    pub(super) fn watch_resident(&mut self, run: RunId) {
        let Some(resident) = self.queues.residents.at(run) else {
            return;
        };
        let (vigil, found) = Vigil::begin(resident.definition.clone(), clock::mono());
        resident.vigil = Some(vigil);
        self.take_findings(run, found);
    }

    /// Makes the notify socket of the user that a worker is started as, if it needs one.
    pub(super) fn open_worker_notify(&mut self, spec: &Queue, launch: &Launch) -> Result<(), String> {
        let Some(uid) = crate::notify::foreign(launch).filter(|_| wants_notify(spec)) else {
            return Ok(());
        };
        let made = self.watches.notify.open_for(uid);
        made.map_err(|error| format!("cannot make a notify socket for uid {uid}: {error}"))
    }

    /// What a worker may say by `notify`, and as whom.
    pub(crate) fn resident_speaks(&self, run: RunId) -> Option<(Option<Probe>, Option<Probe>, Option<u32>)> {
        let queue = self.queues.residents.definition_of(run)?;
        let By::Cmd(launch) = &queue.work.by else {
            return None;
        };
        let user = crate::notify::foreign(launch);
        Some((queue.probing.ready.clone(), queue.probing.health.clone(), user))
    }

    /// An answer about a worker.
    pub(crate) fn resident_probed(&mut self, run: RunId, role: ProbeRole, verdict: Verdict) {
        if self.is_frozen(run) {
            // Who sleeps does not answer.
            return;
        }
        let resident = self.queues.residents.at(run);
        let Some(vigil) = resident.and_then(|resident| resident.vigil.as_mut()) else {
            return;
        };
        let found = vigil.probed(clock::mono(), role, verdict);
        self.take_findings(run, found);
    }

    /// Deadlines of what is asked have passed.
    pub(super) fn tick_vigils(&mut self, now: Mono) {
        let all = self.queues.residents.places.values();
        let due: Vec<RunId> = all
            .filter_map(|place| place.current.as_ref())
            .filter(|resident| resident.asked_at().is_some_and(|at| at <= now))
            .map(|resident| resident.run)
            .collect();
        for run in due {
            let frozen = self.is_frozen(run);
            let resident = self.queues.residents.at(run);
            let Some(vigil) = resident.and_then(|resident| resident.vigil.as_mut()) else {
                continue;
            };
            let found = if frozen {
                vigil.afresh(now);
                Vec::new()
            } else {
                vigil.tick(now)
            };
            self.take_findings(run, found);
        }
    }

    fn is_frozen(&self, run: RunId) -> bool {
        let place = self.queues.residents.by_run.get(&run);
        let mode = place.and_then(|(queue, _)| self.queues.modes.get(&queue.to_string()));
        mode.is_some_and(|mode| mode.frozen)
    }

    fn take_findings(&mut self, run: RunId, found: Vec<Finding>) {
        let Some((queue, n)) = self.queues.residents.by_run.get(&run).cloned() else {
            return;
        };
        for finding in found {
            let Some(resident) = self.queues.residents.at(run) else {
                return;
            };
            let restarts = resident.definition.probing.restarts;
            match finding {
                Finding::Ask(role) => {
                    if let Some(verdict) = self.ask_resident(run, role) {
                        self.resident_probed(run, role, verdict);
                    }
                }
                Finding::Ready => self.resident_up(&queue, n, run),
                Finding::Healthy => resident.unwell = None,
                Finding::Unhealthy(why) if !restarts => {
                    tracing::warn!(%queue, worker = n + 1, %why, "a resident worker is not well");
                    resident.unwell.get_or_insert((clock::wall(), why));
                }
                Finding::Unready(why) => {
                    resident.given_up = Some(("unready", why.clone()));
                    tracing::warn!(%queue, worker = n + 1, %why, "a resident worker is not ready; it is replaced");
                    self.send_away(&queue, n);
                }
                Finding::Unhealthy(why) => {
                    resident.given_up = Some(("unhealthy", why.clone()));
                    tracing::warn!(%queue, worker = n + 1, %why, "a resident worker is not well; it is replaced");
                    self.send_away(&queue, n);
                }
            }
        }
    }

    /// Asks, or begins to listen. What is known at once is the answer.
    fn ask_resident(&mut self, run: RunId, role: ProbeRole) -> Option<Verdict> {
        let (queue, n) = self.queues.residents.by_run.get(&run).cloned()?;
        let definition = self.queues.residents.definition_of(run)?;
        let probe = probe_of(&definition, role)?;
        if let ProbeKind::Log(pattern) = &probe.kind {
            let dir = log_dir(&self.settings.logs_dir(), &queue, &format!("r{}", n + 1));
            return self.watch_lines(run, role, pattern, &dir).err().map(Err);
        }
        let filled = question_of(&probe.kind, &|asked| self.worker_program(run, asked));
        match filled {
            Ok(Some(question)) => {
                let task = probes::ask(self.owner.clone(), run, role, question, probe.timeout);
                self.watches.add(run, task);
                None
            }
            // It says so by itself.
            Ok(None) => None,
            Err(text) => Some(Err(text.into())),
        }
    }

    /// The environment and words of a worker, made again for what is asked of it.
    fn worker_program(&self, run: RunId, asked: &Asked<'_>) -> Result<Program, String> {
        let unknown = || "the run is not known".to_owned();
        let facts = self.runs.runs.get(&run).ok_or_else(unknown)?;
        let (queue, _) = self.queues.residents.by_run.get(&run).ok_or_else(unknown)?;
        let definition = self.queues.residents.definition_of(run).ok_or_else(unknown)?;
        let By::Cmd(launch) = &definition.work.by else {
            return Err(unknown());
        };
        let launch = asked.of(launch);
        let known = QueueRun {
            name: queue.job.as_str(),
            id: None,
            kind: None,
            token: 0,
            payload: &|_| None,
        };
        let mut added = variables(self, &definition, &launch)?;
        if facts.pid != 0 {
            added.push(("GAFFER_PID".to_owned(), facts.pid.to_string()));
        }
        let ports = ports_of(&facts.label);
        let mut expanded = expand_worker(self, queue, &launch, run, (1, &ports), &added, &known)?;
        // A probe is not part of the run's tree: it must not be found by the run's mark.
        expanded.env.retain(|(key, _)| key != "GAFFER_RUN");
        Ok(Program {
            argv: expanded.argv,
            env: expanded.env,
            cwd: expanded.cwd,
            user: launch.user,
        })
    }
}
