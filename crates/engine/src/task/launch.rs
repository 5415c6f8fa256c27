//! From a step to a shim's `Spawn`.

use super::output;
use super::service::Active;
use crate::launch::{bounds_of, message_of};
use crate::state::State;
use gaffer_config::RunContext;
use gaffer_core::job::{Output, User};
use gaffer_core::name::{JobId, JobName, Name, RunId};
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
    let job = JobId::new(Name::default_session(), task_job());
    let text = run.to_string();
    let ports: BTreeMap<String, u16> = header
        .ports
        .iter()
        .map(|(name, port)| (name.to_string(), *port))
        .collect();
    let added = environment(state, active, &spec.name, spec.launch.user.as_ref());
    let context = RunContext {
        node: &state.settings.node,
        job: &job,
        instance: None,
        run: &text,
        attempt,
        ports: &ports,
        base_env: &state.base_env,
        shell: &state.tuning.shell,
        added: &added,
    };
    let expanded = gaffer_config::expand(&spec.launch, &context).map_err(|error| error.to_string())?;
    let log_dir = output::directory(&header.log_dir, &spec.name, attempt);
    if spec.launch.stdout != Output::Null {
        output::link_first(&log_dir).map_err(|error| format!("{}: {error}", log_dir.display()))?;
    }
    let mut message = message_of(state, &spec.launch, expanded);
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

/// All tasks have runs of one name where only jobs have names.
fn task_job() -> JobName {
    // A text that follows the grammar.
    JobName::parse("task").unwrap_or_else(|_| unreachable!("`task` is a name"))
}

/// What a command is given, and nothing else of ours.
fn environment(state: &State, active: &Active, step: &str, user: Option<&User>) -> Vec<(String, String)> {
    let header = &active.header;
    let name = user.map_or_else(|| header.user.to_string(), |user| user.name.clone());
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut env = vec![
        pair("GAFFER_NODE_ID", &state.node_id),
        pair("GAFFER_TASK", &header.task_id),
        pair("GAFFER_STEP", step),
        pair("HOME", &header.sandbox),
        pair("USER", &name),
        pair("LOGNAME", &name),
    ];
    if let Some(path) = state.base_env.get("PATH") {
        env.push(pair("PATH", path));
    }
    let profile = Path::new(&*header.sandbox).join(PROFILE);
    if profile.exists() {
        env.push(pair("BASH_ENV", &profile.to_string_lossy()));
    }
    env
}
