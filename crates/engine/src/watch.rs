//! What is watched for each run: probes under way, log patterns, and what programs say by `notify`.

use crate::logs::{Chunk, LogReader};
use crate::notify::{Note, Notify, foreign};
use crate::owner::Message;
use crate::probes;
use crate::state::State;
use gaffer_core::io::{Input, ProbeRole};
use gaffer_core::job::{Job, Probe, ProbeKind};
use gaffer_core::name::RunId;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// Longest line that a pattern is tried on; the rest of a longer one is not looked at.
const LINE_MAX: usize = 16 * 1024;

/// Tasks that watch runs.
#[derive(Default)]
pub(crate) struct Watches {
    tasks: HashMap<RunId, Vec<tokio::task::AbortHandle>>,
    /// Where programs send their notes.
    pub notify: Notify,
}

impl Drop for Watches {
    fn drop(&mut self) {
        for task in self.tasks.values().flatten() {
            task.abort();
        }
    }
}

impl Watches {
    /// Nothing about this run is of interest any more.
    pub fn end(&mut self, run: RunId) {
        for task in self.tasks.remove(&run).unwrap_or_default() {
            task.abort();
        }
    }

    /// A task that ends with the interest in a run.
    pub fn add(&mut self, run: RunId, task: tokio::task::AbortHandle) {
        let tasks = self.tasks.entry(run).or_default();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }

    /// Does the job speak sd_notify?
    pub fn wants_notify(&self, spec: Option<&Job>) -> bool {
        spec.is_some_and(|spec| spec.ready.iter().chain(&spec.health).any(is_notify))
    }

    /// `WATCHDOG_USEC` of a job with a heartbeat.
    pub fn watchdog_usec(&self, spec: Option<&Job>) -> Option<String> {
        match &spec?.health.as_ref()?.kind {
            ProbeKind::Heartbeat(silence) => Some(silence.as_micros().to_string()),
            _ => None,
        }
    }
}

fn is_notify(probe: &Probe) -> bool {
    matches!(probe.kind, ProbeKind::Notify | ProbeKind::Heartbeat(_))
}

impl State {
    /// Does, or begins, a probe. An answer that is known at once is returned.
    pub fn probe(&mut self, run: RunId, role: ProbeRole) -> Option<Input> {
        let spec = self
            .slot_of(run)
            .and_then(|slot| self.jobs.get(&slot.job))
            .map(|meta| meta.spec.clone())?;
        let probe = match role {
            ProbeRole::Ready => spec.ready.clone(),
            ProbeRole::Health => spec.health.clone(),
        }?;
        if let ProbeKind::Log(pattern) = &probe.kind {
            let dir = crate::logs::directory(&self.settings.logs_dir(), &self.slot_of(run)?);
            let result = Err(self.watch_lines(run, role, pattern, &dir).err()?);
            return Some(Input::Probed { run, role, result });
        }
        match self.question(run, &probe.kind) {
            Ok(Some(question)) => {
                let task = probes::ask(self.owner.clone(), run, role, question, probe.timeout);
                self.watches.add(run, task);
                None
            }
            // Passive: the notify socket rings, or the core counts time by itself.
            Ok(None) => None,
            Err(text) => Some(Input::Probed {
                run,
                role,
                result: Err(text.into()),
            }),
        }
    }

    /// Waits for a line in what a run writes into a folder.
    pub fn watch_lines(
        &mut self,
        run: RunId,
        role: ProbeRole,
        pattern: &str,
        dir: &Path,
    ) -> Result<(), Arc<str>> {
        let pattern = regex_lite::Regex::new(pattern);
        let pattern = pattern.map_err(|error| -> Arc<str> { format!("log pattern: {error}").into() })?;
        let Some(facts) = self.runs.runs.get(&run) else {
            return Ok(());
        };
        for (stream, from) in [("stdout", facts.out.0), ("stderr", facts.err.0)] {
            let reader = LogReader::open(dir, stream);
            let (owner, pattern) = (self.owner.clone(), pattern.clone());
            let task = tokio::spawn(find_line(reader, from, pattern, owner, run, role));
            self.watches.add(run, task.abort_handle());
        }
        Ok(())
    }

    /// An answer about a run, of a job or a worker.
    pub fn probed(&mut self, run: RunId, role: ProbeRole, result: Result<Arc<str>, Arc<str>>) {
        if self.queues.has_run(run) {
            return self.resident_probed(run, role, result);
        }
        self.feed(Input::Probed { run, role, result });
    }

    /// A note from a program: only from a process of a live run, by the socket that is its own, and only what its job declared.
    pub fn noted(&mut self, note: &Note) {
        let Some(run) = self.run_of_process(note.pid) else {
            return;
        };
        let Some((ready, health, user)) = self.speaks(run) else {
            return;
        };
        if user != note.user {
            return;
        }
        for line in note.text.lines() {
            let (role, probe) = match line {
                "READY=1" => (ProbeRole::Ready, &ready),
                "WATCHDOG=1" => (ProbeRole::Health, &health),
                _ => continue,
            };
            if probe.as_ref().is_some_and(is_notify) {
                self.probed(run, role, Ok(format!("notify {line}").into()));
            }
        }
    }

    /// What a run may say by `notify`, and as whom.
    fn speaks(&self, run: RunId) -> Option<(Option<Probe>, Option<Probe>, Option<u32>)> {
        if self.queues.has_run(run) {
            return self.resident_speaks(run);
        }
        let slot = self.slot_of(run)?;
        let spec = &self.jobs.get(&slot.job)?.spec;
        Some((spec.ready.clone(), spec.health.clone(), foreign(&spec.launch)))
    }

    /// The run that a process belongs to: by its cgroup, else by descent from a main process.
    fn run_of_process(&self, pid: u32) -> Option<RunId> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let own = text.lines().find_map(|line| line.strip_prefix("0::"));
        if let (Some(own), Some(_)) = (own, &self.cgroup_base)
            && let Some(run) = own.split('/').find_map(|part| {
                part.parse::<RunId>()
                    .ok()
                    .filter(|run| self.runs.runs.contains_key(run))
            })
        {
            return Some(run);
        }
        let mut pid = pid;
        for _ in 0..64 {
            if let Some(facts) = self
                .runs
                .runs
                .values()
                .find(|facts| facts.pid == pid && facts.exit.is_none())
            {
                return Some(facts.run);
            }
            let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            pid = text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            if pid <= 1 {
                return None;
            }
        }
        None
    }
}

async fn find_line(
    mut reader: LogReader,
    mut offset: u64,
    pattern: regex_lite::Regex,
    owner: UnboundedSender<Message>,
    run: RunId,
    role: ProbeRole,
) {
    let mut line = Vec::new();
    loop {
        match reader.read(offset, 64 * 1024) {
            Ok(Some(Chunk::Bytes { data, .. })) => {
                offset += data.len() as u64;
                for byte in data {
                    if byte != b'\n' {
                        if line.len() < LINE_MAX {
                            line.push(byte);
                        }
                        continue;
                    }
                    if pattern.is_match(&String::from_utf8_lossy(&line)) {
                        let verdict = Ok(format!("log {pattern}").into());
                        let _ended = owner.send(Message::Probed { run, role, verdict });
                        return;
                    }
                    line.clear();
                }
            }
            Ok(Some(Chunk::Gap { to, .. })) => offset = to,
            Ok(Some(Chunk::Dropped { .. })) => {}
            Ok(None) => {
                if reader.grown(offset).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let _ended = owner.send(Message::Probed {
                    run,
                    role,
                    verdict: Err(error.to_string().into()),
                });
                return;
            }
        }
    }
}
