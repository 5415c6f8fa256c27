//! From a claimed task to a run, and from its end to an outcome.

use super::opening::slot;
use super::push::fits;
use super::service::{Worker, ended};
use crate::facts::RunFacts;
use crate::launch::{bounds_of, choose_ports, message_of, stop_of};
use crate::owner::Message;
use crate::state::State;
use gaffer_config::{Expanded, QueueRun, Redaction, RunContext};
use gaffer_core::io::End;
use gaffer_core::job::Launch;
use gaffer_core::name::RunId;
use gaffer_core::queue::outcome::Outcome;
use gaffer_core::queue::spec::{By, PayloadBy, Queue, QueueId, Work};
use gaffer_core::queue::task::{Claimed, Failure};
use gaffer_shim::message::{Spawn, Stdin, ToShim};
use gaffer_shim::stream::{ReadAt, StreamReader};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most bytes of stderr kept with a failure.
const OUTPUT: u64 = 4 << 10;
/// Most bytes of a result.
const RESULT: usize = 64 << 10;

/// Directory of a seat's streams. No job has a name with a colon.
pub(super) fn log_dir(logs: &Path, queue: &QueueId, seat: &str) -> PathBuf {
    logs.join(queue.session.as_str())
        .join(format!("queue:{}", queue.job))
        .join(seat)
}

/// The value at a path of a payload, as words of a command have it: texts without quotes, all else as JSON.
pub(super) fn payload_at(payload: &Value, path: &str) -> Option<String> {
    let mut value = payload;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        value = match value {
            Value::Array(list) => list.get(part.parse::<usize>().ok()?)?,
            _ => value.get(part)?,
        };
    }
    Some(match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

impl State {
    /// Gives a task to whoever does its work; if that cannot be, the outcome.
    pub(super) fn hand(&mut self, seat: u32, row: Claimed) -> Result<(), Outcome> {
        let fatal = |kind: &str, text: String| Outcome::Fatal(Failure::of(kind, text));
        let taken = |taken: bool| match taken {
            true => Ok(()),
            false => Err(fatal("unknown-kind", "nobody here does it".to_owned())),
        };
        let payload: Value = serde_json::from_str(&row.payload)
            .map_err(|error| fatal("bad-arguments", format!("the payload is not JSON: {error}")))?;
        let Some(spec) = self.queues.spec(&row.queue).cloned() else {
            return Err(Outcome::NotHanded);
        };
        fits(&spec, row.kind.as_deref(), &payload).map_err(|why| fatal("bad-arguments", why))?;
        match spec.work(row.kind.as_deref()).by.clone() {
            By::Cmd(_) if spec.resident => self.hand_resident(seat, &spec, &row, &payload),
            By::Cmd(launch) => {
                let start = Start {
                    spec: &spec,
                    launch: &launch,
                    row: &row,
                    payload: &payload,
                    seat,
                };
                self.start_worker(&start)
                    .map_err(|text| Outcome::Failed(Failure::of("start-failed", text)))
            }
            By::Others => taken(self.hand_to_handler(&row, payload)),
            By::Task(name) => taken(self.hand_to_dag(&row, payload, &name)),
        }
    }

    fn start_worker(&mut self, start: &Start<'_>) -> Result<(), String> {
        let Start { row, seat, .. } = start;
        let queue = &row.queue;
        let slot = slot(queue, *seat);
        let run = self.node.make_run_id();
        let note = |state: &mut State, shim| {
            let stamp = [row.handle.task.cast_unsigned(), row.handle.token];
            let facts = RunFacts::begin(run, &slot, stamp, row.attempt, shim);
            state.runs.runs.insert(run, Box::new(facts));
            let worker = Worker {
                handle: row.handle,
                queue: queue.clone(),
                seat: *seat,
            };
            state.queues.runs.insert(run, worker);
            state.queues.by_task.insert(row.handle.task, run);
        };
        if let Some(silent) = self.shims.silent(&group(queue)) {
            tracing::warn!(shim = silent, %slot, "the start waits for a shim that does not answer");
            note(self, silent);
            return Ok(());
        }
        let shim = self.worker_shim(queue)?;
        let after = self.queues.seats.get(&slot).copied();
        let message = start.message(self, run, &slot, after)?;
        self.queues.seats.insert(slot.clone(), run);
        note(self, shim);
        let connection = self
            .shims
            .all
            .get(&shim)
            .and_then(|shim| shim.connection.as_ref());
        if let Some(connection) = connection {
            connection.send(&ToShim::Spawn(Box::new(message)));
        }
        Ok(())
    }

    /// The shim that takes new workers of a queue.
    pub(super) fn worker_shim(&mut self, queue: &QueueId) -> Result<u64, String> {
        let group = group(queue);
        if let Some(silent) = self.shims.silent(&group) {
            return Err(format!("shim {silent} does not answer"));
        }
        match self.shims.serving(&group) {
            Some(shim) => Ok(shim),
            None => self.open_shim(&group),
        }
    }

    /// The main process of a worker ended. What it wrote is read where nobody waits for it.
    pub(super) fn worker_exited(&mut self, run: RunId, worker: &Worker, end: &End, gone: bool) {
        let Some(spec) = self.queues.spec(&worker.queue).cloned() else {
            return self.feed_queue(ended(worker.handle, Outcome::NotHanded, gone));
        };
        let Some(facts) = self.runs.runs.get(&run) else {
            return;
        };
        let plain = Outcome::of_end(self.work_of(&spec, worker), end);
        // Nothing to read and nothing to remove.
        let is_all = !spec.result_stdout && spec.input != PayloadBy::File;
        if plain == Outcome::Done(None) && is_all {
            self.feed_queue(ended(worker.handle, plain, gone));
            return self.drop_stranger_if(gone, run, worker);
        }
        let (facts, end, logs) = ((**facts).clone(), end.clone(), self.settings.logs_dir());
        let (owner, worker) = (self.owner.clone(), worker.clone());
        let kind = self
            .queues
            .held(worker.handle.task)
            .and_then(|(row, _)| row.kind.clone());
        tokio::task::spawn_blocking(move || {
            let work = spec.work(kind.as_deref());
            let outcome = told(
                &spec,
                work,
                &facts,
                &end,
                &log_dir(&logs, &worker.queue, &(worker.seat + 1).to_string()),
            );
            let input = ended(worker.handle, outcome, gone);
            let _ended = owner.send(Message::Queue(super::service::QueueNews::Input(input)));
        });
    }

    fn drop_stranger_if(&mut self, gone: bool, run: RunId, worker: &Worker) {
        if gone {
            self.drop_stranger(run, worker.handle);
        }
    }

    fn work_of<'a>(&self, spec: &'a Queue, worker: &Worker) -> &'a Work {
        let row = self.queues.held(worker.handle.task);
        spec.work(row.and_then(|(row, _)| row.kind.as_deref()))
    }
}

/// A worker that is to be started.
struct Start<'a> {
    spec: &'a Arc<Queue>,
    launch: &'a Launch,
    row: &'a Claimed,
    payload: &'a Value,
    seat: u32,
}

impl Start<'_> {
    fn message(&self, state: &State, run: RunId, slot: &str, after: Option<RunId>) -> Result<Spawn, String> {
        let Start {
            spec,
            launch,
            row,
            payload,
            seat,
        } = self;
        let dir = log_dir(&state.settings.logs_dir(), &row.queue, &(seat + 1).to_string());
        let task = Some((*row, *payload));
        let mut message = spawn_message(
            state,
            &row.queue,
            spec,
            launch,
            (run, slot, after),
            &dir,
            task,
            *seat,
        )?;
        message.stamp = [row.handle.task.cast_unsigned(), row.handle.token];
        message.attempt = row.attempt;
        if spec.input == PayloadBy::Stdin {
            message.stdin = Stdin::Data(row.payload.as_bytes().to_vec().into());
        }
        Ok(message)
    }
}

/// What workers are grouped by under shims.
fn group(queue: &QueueId) -> String {
    format!("queue:{}", queue.session)
}

/// The message that starts a worker: for one task, or for those that it will be told of.
#[expect(clippy::too_many_arguments, reason = "each is a part of one message")]
pub(super) fn spawn_message(
    state: &State,
    queue: &QueueId,
    spec: &Queue,
    launch: &Launch,
    (run, slot, after): (RunId, &str, Option<RunId>),
    dir: &Path,
    task: Option<(&Claimed, &Value)>,
    seat: u32,
) -> Result<Spawn, String> {
    let ports = choose_ports(launch, seat)?;
    let mut added = match task {
        Some(_) => Vec::new(),
        None => super::vigil::variables(state, spec, launch)?,
    };
    if let Some((row, _)) = task {
        payload_variables(spec, launch, dir, row, &mut added)?;
    }
    let row = task.map(|(row, _)| row);
    let known = QueueRun {
        name: queue.job.as_str(),
        id: row.map(|row| row.handle.task),
        kind: row.and_then(|row| row.kind.as_deref()),
        token: row.map_or(0, |row| row.handle.token),
        payload: &|path| payload_at(task?.1, path),
    };
    let attempt = row.map_or(1, |row| row.attempt);
    let expanded = expand_worker(state, queue, launch, run, (attempt, &ports), &added, &known)?;
    let mut message = message_of(state, launch, expanded)?;
    let label: Vec<String> = ports
        .iter()
        .map(|(name, port)| format!("{name}={port}"))
        .collect();
    message.label = label.join(",");
    message.run = crate::shims::wire(run);
    slot.clone_into(&mut message.slot);
    message.after = after.map(crate::shims::wire);
    message.attempt = attempt;
    message.log_dir = dir.to_string_lossy().into_owned();
    message.bounds = bounds_of(&spec.logs);
    message.stop = stop_of(&spec.work(known.kind).stop);
    Ok(message)
}

/// Words and environment of a worker.
pub(super) fn expand_worker(
    state: &State,
    queue: &QueueId,
    launch: &Launch,
    run: RunId,
    (attempt, ports): (u32, &BTreeMap<String, u16>),
    more: &[(String, String)],
    known: &QueueRun<'_>,
) -> Result<Expanded, String> {
    let mut added = vec![("GAFFER_NODE_ID".to_owned(), state.node_id.clone())];
    added.extend_from_slice(more);
    let context = RunContext {
        node: &state.settings.node,
        job: queue,
        instance: None,
        run: &run.to_string(),
        attempt,
        ports,
        base_env: &state.base_env,
        shell: &state.tuning.shell,
        task: None,
        queue: Some(known),
        added: &added,
    };
    gaffer_config::expand(launch, &context).map_err(|error| error.to_string())
}

fn payload_variables(
    spec: &Queue,
    launch: &Launch,
    dir: &Path,
    row: &Claimed,
    added: &mut Vec<(String, String)>,
) -> Result<(), String> {
    match spec.input {
        PayloadBy::Stdin => {}
        PayloadBy::Env => added.push(("GAFFER_PAYLOAD".to_owned(), row.payload.to_string())),
        PayloadBy::File => {
            let file = payload_file(dir, launch, &row.payload)
                .map_err(|error| format!("the payload cannot be written: {error}"))?;
            added.push(("GAFFER_PAYLOAD_FILE".to_owned(), file));
        }
    }
    Ok(())
}

/// In a seat's directory, while its worker has a task.
const PAYLOAD: &str = "payload.json";

/// One file per seat, private to the user that the worker runs as, and removed when the attempt ends.
fn payload_file(dir: &Path, launch: &Launch, payload: &str) -> std::io::Result<String> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::create_dir_all(dir)?;
    let path = dir.join(PAYLOAD);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::io::Write::write_all(&mut file, payload.as_bytes())?;
    if let Some(user) = &launch.user {
        std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid))?;
    }
    Ok(path.to_string_lossy().into_owned())
}

/// How a run that is over ended, with what it said.
pub(super) fn outcome_of(
    spec: &Queue,
    kind: Option<&str>,
    facts: &RunFacts,
    end: &End,
    logs: &Path,
    queue: &QueueId,
) -> Outcome {
    let seat = super::opening::of_slot(&facts.slot).map_or(0, |(_, seat)| seat);
    told(
        spec,
        spec.work(kind),
        facts,
        end,
        &log_dir(logs, queue, &(seat + 1).to_string()),
    )
}

/// What an end means; the file with the payload has served.
fn told(spec: &Queue, work: &Work, facts: &RunFacts, end: &End, dir: &Path) -> Outcome {
    if spec.input == PayloadBy::File {
        // Left behind, it is only a file too many: the next task of the seat replaces it.
        let _ = std::fs::remove_file(dir.join(PAYLOAD));
    }
    match Outcome::of_end(work, end) {
        Outcome::Done(_) if spec.result_stdout => match result(dir, facts.out) {
            Ok(result) => Outcome::Done(result),
            Err(text) => Outcome::Failed(Failure::of("bad-result", text)),
        },
        Outcome::Done(result) => Outcome::Done(result),
        other => other.with_output(tail(spec, dir, facts.err).into()),
    }
}

/// The last line of a run's stdout that is JSON.
fn result(dir: &Path, (from, to): (u64, Option<u64>)) -> Result<Option<Arc<str>>, String> {
    let text = bytes(dir, "stdout", (from, to), RESULT as u64 + (4 << 10));
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().rev().find(|line| {
        let line = line.trim();
        !line.is_empty() && serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok()
    });
    match line.map(str::trim) {
        Some(line) if line.len() > RESULT => Err(format!(
            "the result has {} bytes, at most {RESULT} are kept",
            line.len()
        )),
        line => Ok(line.map(Into::into)),
    }
}

/// The last of what a run wrote to stderr, masked as all output is.
fn tail(spec: &Queue, dir: &Path, (from, to): (u64, Option<u64>)) -> String {
    let mut all = bytes(dir, "stderr", (from, to), OUTPUT);
    if !spec.logs.redact.is_empty() {
        let is_cut = to.is_none_or(|to| to.saturating_sub(from) > all.len() as u64);
        let entries = spec.logs.redact.iter().map(String::as_str);
        let redaction = Redaction::new(entries).unwrap_or_else(|_| Redaction::everything());
        for (index, line) in all.split_mut(|byte| *byte == b'\n').enumerate() {
            match index == 0 && is_cut {
                // A pattern sees whole lines only.
                true => line.fill(b'*'),
                false => redaction.mask(line),
            }
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// At most the last so many bytes of a run's part of a stream.
fn bytes(dir: &Path, stream: &str, (from, to): (u64, Option<u64>), most: u64) -> Vec<u8> {
    let mut reader = StreamReader::open(dir, stream);
    let Some(to) = to.or_else(|| reader.range().ok().map(|(_, end)| end)) else {
        return Vec::new();
    };
    let mut at = from.max(to.saturating_sub(most));
    let mut all = Vec::new();
    while at < to {
        let mut buffer = vec![0; usize::try_from((to - at).min(64 << 10)).unwrap_or(64 << 10)];
        match reader.read_at(at, &mut buffer) {
            Ok(ReadAt::Bytes(0)) | Err(_) => break,
            Ok(ReadAt::Bytes(count)) => {
                all.extend_from_slice(&buffer[..count]);
                at += count as u64;
            }
            Ok(ReadAt::Gap(next)) => at = next,
        }
    }
    all
}
