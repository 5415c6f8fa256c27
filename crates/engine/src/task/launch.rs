//! From a step to a shim's `Spawn`.

use super::output;
use super::outputs::OutputFile;
use super::service::Active;
use crate::launch::{bounds_of, choose_ports, message_of};
use crate::state::State;
use gaffer_config::{Host, RunContext, SystemHost, TaskRun};
use gaffer_core::job::User;
use gaffer_core::name::{JobId, JobName, Name, RunId};
use gaffer_core::task::fold::History;
use gaffer_core::task::spec::Step;
use gaffer_shim::message::Spawn;
use std::collections::BTreeMap;
use std::path::Path;

/// Prepares the environment of later steps, if an earlier one wrote it (a habit of the original).
const PROFILE: &str = ".thermos_profile";

/// Slot of a step: what may have one live run.
pub(super) fn slot(id: &str, step: &str) -> String {
    format!("task:{id}/{step}")
}

/// Task and step of a slot.
pub(super) fn of_slot(slot: &str) -> Option<(&str, &str)> {
    slot.strip_prefix("task:")?.split_once('/')
}

/// The message for one run of a step; the error is a sentence.
pub(super) fn spawn(
    state: &State,
    active: &Active,
    step: usize,
    run: RunId,
    attempt: u32,
    after: Option<RunId>,
) -> Result<Spawn, String> {
    let spec = &active.definition.spec.steps[step];
    let header = &active.header;
    let native = active.definition.native.as_deref();
    let job = match native {
        Some(native) => native.id.clone(),
        None => JobId::new(Name::default_session(), task_job()),
    };
    let text = run.to_string();
    let mut ports = choose_ports(&spec.launch, 0)?;
    ports.extend(header.ports.iter().map(|(name, port)| (name.to_string(), *port)));
    let mut added = match native {
        Some(_) => vec![("GAFFER_NODE_ID".to_owned(), state.node_id.clone())],
        None => environment(state, active, spec),
    };
    if let Some(file) = output_file(state, active, step, attempt) {
        file.make()
            .map_err(|error| format!("{}: {error}", file.path.display()))?;
        added.push((
            "GAFFER_OUTPUT".to_owned(),
            file.path.to_string_lossy().into_owned(),
        ));
    }
    let nothing = BTreeMap::new();
    let task = TaskRun {
        name: &active.definition.spec.name,
        id: &header.task_id,
        dir: &header.sandbox,
        step: &spec.name,
        params: native.map_or(&nothing, |native| &native.params),
        said: &|step, name| said(active.runner.history(), step, name),
    };
    let context = RunContext {
        node: &state.settings.node,
        job: &job,
        instance: None,
        run: &text,
        attempt,
        ports: &ports,
        base_env: &state.base_env,
        shell: &state.tuning.shell,
        task: Some(&task),
        queue: None,
        added: &added,
    };
    let expanded = gaffer_config::expand(&spec.launch, &context).map_err(|error| error.to_string())?;
    let log_dir = output::directory(&header.log_dir, &spec.name, attempt);
    let mut message = message_of(state, &spec.launch, expanded)?;
    message.run = crate::shims::wire(run);
    message.slot = slot(&header.task_id, &spec.name);
    message.after = after.map(crate::shims::wire);
    message.attempt = attempt;
    message.log_dir = log_dir.to_string_lossy().into_owned();
    message.bounds = bounds_of(&spec.logs);
    message.stop = crate::launch::stop_of(&spec.stop);
    // An exit that is on file decides what follows: it is durable before anybody hears of it.
    message.sync = true;
    Ok(message)
}

/// Where a run of a step writes its outputs; none: it declares none.
pub(super) fn output_file(state: &State, active: &Active, step: usize, attempt: u32) -> Option<OutputFile> {
    let spec = &active.definition.spec.steps[step];
    let id = &active.header.task_id;
    OutputFile::of(&active.root.checkpoint(id), &state.node_id, id, spec, attempt)
}

/// An output of a step that succeeded, or its exit code.
fn said(history: &History, step: &str, name: Option<&str>) -> Option<String> {
    match name {
        Some(name) => history.output(step, name).map(|value| value.to_string()),
        None if history.carried.contains_key(step) => Some("0".to_owned()),
        None => Some(history.last(step)?.code?.to_string()),
    }
}

/// All Thermos tasks have runs of one name where only jobs have names.
fn task_job() -> JobName {
    // A text that follows the grammar.
    JobName::parse("task").unwrap_or_else(|_| unreachable!("`task` is a name"))
}

/// What a command is given, and nothing else of ours.
fn environment(state: &State, active: &Active, step: &Step) -> Vec<(String, String)> {
    let header = &active.header;
    let user = step.launch.user.as_ref();
    let name = user.map_or_else(|| header.user.to_string(), |user| user.name.clone());
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    // Under a root of its own the sandbox is `/`, and home is where the list of users has it.
    let (home, sandbox) = match step.launch.root {
        None => (header.sandbox.to_string(), &*header.sandbox),
        Some(_) => (home_of(user, &name), "/"),
    };
    let mut env = vec![
        pair("GAFFER_NODE_ID", &state.node_id),
        pair("GAFFER_TASK", &header.task_id),
        pair("GAFFER_STEP", &step.name),
        pair("HOME", &home),
        pair("USER", &name),
        pair("LOGNAME", &name),
    ];
    if let Some(path) = state.base_env.get("PATH") {
        env.push(pair("PATH", path));
    }
    if Path::new(&*header.sandbox).join(PROFILE).exists() {
        env.push(pair(
            "BASH_ENV",
            &Path::new(sandbox).join(PROFILE).to_string_lossy(),
        ));
    }
    env
}

fn home_of(user: Option<&User>, name: &str) -> String {
    let known = user.cloned().or_else(|| SystemHost::new().user_named(name));
    known.map_or_else(|| "/".to_owned(), |user| user.home)
}
