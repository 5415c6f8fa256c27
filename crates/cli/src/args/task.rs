//! `task …`.

use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// `task`.
#[derive(Args, Debug)]
pub struct TaskArgs {
    #[command(subcommand)]
    pub verb: TaskCommand,
}

/// `task …`.
#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Run a task here, without a daemon
    #[command(after_help = crate::help_task::RUN)]
    Run(TaskRunArgs),
    /// Hand a task to the daemon
    #[command(after_help = crate::help_task::START)]
    Start(TaskStartArgs),
    /// List tasks
    #[command(after_help = crate::help_task::LS)]
    Ls(TaskLsArgs),
    /// Show steps and runs of tasks; without ID the list
    #[command(after_help = crate::help_task::STATUS)]
    Status(TaskStatusArgs),
    /// Show a task with its definition, or replay a checkpoint file
    #[command(after_help = crate::help_task::SHOW)]
    Show(TaskShowArgs),
    /// Show what steps wrote
    #[command(after_help = crate::help_task::LOGS)]
    Logs(TaskLogsArgs),
    /// Tell why tasks are as they are
    #[command(after_help = crate::help_task::WHY)]
    Why(TaskLookArgs),
    /// Wait until tasks are over
    #[command(after_help = crate::help_task::WAIT)]
    Wait(TaskLookArgs),
    /// End tasks
    #[command(after_help = crate::help_task::KILL)]
    Kill(TaskKillArgs),
    /// Run parts of tasks that are over again
    #[command(after_help = crate::help_task::RETRY)]
    Retry(TaskRetryArgs),
    /// Remove tasks that are over
    #[command(after_help = crate::help_task::GC)]
    Gc(TaskGcArgs),
    /// Freeze tasks
    #[command(after_help = crate::help_task::PAUSE)]
    Pause(TaskIds),
    /// Thaw tasks
    #[command(after_help = crate::help_task::RESUME)]
    Resume(TaskIds),
}

/// Which task, and what it is filled in with.
#[derive(Args, Clone, Debug)]
pub struct TaskFileArgs {
    /// Task file, gaffer.toml or Thermos JSON; or the name of a task of the gaffer.toml here
    #[arg(value_name = "FILE|NAME", required_unless_present = "command")]
    pub file: Option<PathBuf>,
    /// A command instead of a file: a task of one step
    #[arg(last = true, value_name = "CMD", conflicts_with = "file")]
    pub command: Vec<String>,
    /// Id of the task [default: its name and the time]
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Which of several tasks of the file
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Port by name: {{ports.NAME}}, {{thermos.ports[NAME]}}
    #[arg(short = 'P', long = "port", value_name = "NAME=N", value_parser = port)]
    pub ports: Vec<(String, u16)>,
    /// Value of {{params.N}} or {{vars.N}}; of {{N}} in Thermos JSON
    #[arg(short = 'E', long = "var", value_name = "N=V", value_parser = pair)]
    pub vars: Vec<(String, String)>,
    /// Profile laid over gaffer.toml
    #[arg(
        long,
        value_name = "P",
        env = "GAFFER_PROFILE",
        hide_env = true,
        value_delimiter = ','
    )]
    pub profile: Vec<String>,
    /// User its steps run as
    #[arg(long, value_name = "U")]
    pub user: Option<String>,
    /// Working directory of its steps [default: this one; a fresh one for CMD]
    #[arg(long, value_name = "D")]
    pub cwd: Option<PathBuf>,
}

/// `task run`.
#[derive(Args, Clone, Debug)]
pub struct TaskRunArgs {
    #[command(flatten)]
    pub file: TaskFileArgs,
    /// Checkpoint root
    #[arg(long, value_name = "DIR", env = "GAFFER_TASK_ROOT", hide_env = true)]
    pub root: Option<PathBuf>,
    /// Print the id and leave; its runner stays until the task is over
    #[arg(long)]
    pub detach: bool,
    /// A line for each change, also on a terminal
    #[arg(long)]
    pub plain: bool,
}

/// `task start`.
#[derive(Args, Clone, Debug)]
pub struct TaskStartArgs {
    #[command(flatten)]
    pub file: TaskFileArgs,
    /// Put it into this queue: its workers run it when its turn comes
    #[arg(long, value_name = "Q")]
    pub queue: Option<String>,
    /// With --queue: not before so much time has passed
    #[arg(long = "in", value_name = "D", value_parser = crate::when::parse_duration, conflicts_with = "at")]
    pub delay: Option<Duration>,
    /// With --queue: not before this time (RFC 3339)
    #[arg(long, value_name = "T")]
    pub at: Option<String>,
    /// Wait for its end: the exit code is its result
    #[arg(long)]
    pub wait: bool,
}

/// `--root`.
#[derive(Args, Clone, Debug, Default)]
pub struct TaskRoot {
    /// Tasks of this checkpoint root, without a daemon
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

/// `task ls`.
#[derive(Args, Clone, Debug, Default)]
pub struct TaskLsArgs {
    /// Only those that are not over
    #[arg(long, conflicts_with = "finished")]
    pub active: bool,
    /// Only those that are over
    #[arg(long)]
    pub finished: bool,
    #[command(flatten)]
    pub root: TaskRoot,
}

/// `task status`, `why`, `wait`.
#[derive(Args, Clone, Debug)]
pub struct TaskLookArgs {
    /// Tasks
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    pub root: TaskRoot,
}

/// `task status`.
#[derive(Args, Clone, Debug)]
pub struct TaskStatusArgs {
    #[command(flatten)]
    pub look: TaskLookArgs,
    /// Its runs over time
    #[arg(long)]
    pub timeline: bool,
}

/// `task retry`.
#[derive(Args, Clone, Debug)]
pub struct TaskRetryArgs {
    /// Tasks that are over
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// This step, and all that waits for it [default: what did not succeed]
    #[arg(long, value_name = "STEP")]
    pub from: Option<String>,
    /// Wait for their end: the exit code is the worst result
    #[arg(long)]
    pub wait: bool,
}

/// `task gc`.
#[derive(Args, Clone, Debug)]
pub struct TaskGcArgs {
    /// Tasks, by their whole ids, whatever their age
    #[arg(value_name = "ID", required_unless_present_any = ["age", "count", "size"])]
    pub ids: Vec<String>,
    /// Those that were not written to for longer
    #[arg(long, visible_alias = "max_age", value_name = "D", value_parser = crate::when::parse_duration)]
    pub age: Option<Duration>,
    /// The oldest, until so many are left
    #[arg(long, visible_alias = "max_tasks", value_name = "N")]
    pub count: Option<usize>,
    /// The oldest, until the rest takes so much space: 20G
    #[arg(long, visible_alias = "max_space", value_name = "S", value_parser = size)]
    pub size: Option<u64>,
    /// Only say which
    #[arg(long, visible_alias = "dryrun")]
    pub dry_run: bool,
    #[command(flatten)]
    pub root: TaskRoot,
}

fn size(text: &str) -> Result<u64, String> {
    gaffer_config::parse_size(text).map_err(|error| error.to_string())
}

/// `task show`.
#[derive(Args, Clone, Debug)]
pub struct TaskShowArgs {
    /// Task
    #[arg(value_name = "ID", required_unless_present = "raw")]
    pub id: Option<String>,
    /// Its steps as a graph, for Graphviz or Mermaid
    #[arg(long, value_name = "FORM", value_parser = ["dot", "mermaid"], conflicts_with = "raw")]
    pub graph: Option<String>,
    /// A checkpoint file instead
    #[arg(long, value_name = "FILE", conflicts_with = "id")]
    pub raw: Option<PathBuf>,
    #[command(flatten)]
    pub root: TaskRoot,
}

/// `task logs`.
#[derive(Args, Clone, Debug)]
pub struct TaskLogsArgs {
    /// Task
    #[arg(value_name = "ID")]
    pub id: String,
    /// One step
    #[arg(value_name = "STEP")]
    pub step: Option<String>,
    /// Stay and show what comes, until the task is over
    #[arg(short, long)]
    pub follow: bool,
    /// Which run of each step, from 1 [default: the newest]
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
    /// Only stdout or stderr
    #[arg(short = 's', long, value_name = "S", value_parser = ["stdout", "stderr"])]
    pub stream: Option<String>,
    #[command(flatten)]
    pub root: TaskRoot,
}

/// `task kill`.
#[derive(Args, Clone, Debug)]
pub struct TaskKillArgs {
    /// Tasks, by their whole ids
    #[arg(value_name = "ID", required_unless_present = "matching")]
    pub ids: Vec<String>,
    /// All active tasks whose ids match
    #[arg(long = "match", value_name = "RE", conflicts_with = "ids")]
    pub matching: Option<String>,
    /// Time for an orderly end
    #[arg(long, value_name = "D", value_parser = crate::when::parse_duration)]
    pub grace: Option<Duration>,
    /// KILL now, no final steps
    #[arg(long)]
    pub force: bool,
    /// Ask only; do not wait for the end
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub root: TaskRoot,
}

/// `task pause`, `task resume`.
#[derive(Args, Clone, Debug)]
pub struct TaskIds {
    /// Tasks
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
}

/// `NAME=N`, or `NAME:N` as Thermos has it.
fn port(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("`{text}` is no NAME=PORT");
    let (name, number) = text.split_once(['=', ':']).ok_or_else(wrong)?;
    let number = number.parse().map_err(|_| wrong())?;
    if name.is_empty() {
        Err(wrong())
    } else {
        Ok((name.to_owned(), number))
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is no NAME=VALUE")),
    }
}
