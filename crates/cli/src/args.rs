//! What was typed: the grammar of the command line, without its meaning.

use crate::access::{Credentials, LoginArgs, TokenArgs, UserArgs};
use crate::args_shell::{CompletionsArgs, HelpArgs};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub mod queue;
pub mod task;

/// `gaffer …`.
#[derive(Debug, Parser)]
#[command(
    name = "gaffer",
    version,
    about = "Launches programs, keeps them alive, and loses nothing",
    disable_help_subcommand = true,
    subcommand_required = false,
    max_term_width = 110
)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options that every command takes.
#[derive(Args, Clone, Debug)]
pub struct Globals {
    /// Session of short names; `*` for all
    #[arg(
        long,
        global = true,
        hide = true,
        value_name = "S",
        env = "GAFFER_SESSION",
        hide_env = true
    )]
    pub session: Option<String>,
    /// Daemon to talk to: http[s]://HOST:PORT, ssh://USER@HOST or unix:PATH
    #[arg(
        long,
        global = true,
        hide = true,
        value_name = "U",
        env = "GAFFER_URL",
        hide_env = true
    )]
    pub url: Option<String>,
    /// Its control socket
    #[arg(
        long,
        global = true,
        hide = true,
        value_name = "PATH",
        env = "GAFFER_SOCKET",
        hide_env = true
    )]
    pub socket: Option<PathBuf>,
    #[command(flatten)]
    pub credentials: Credentials,
    /// text, json, jsonl or raw
    #[arg(long, global = true, hide = true, value_name = "F")]
    pub format: Option<Format>,
    /// Short for --format json
    #[arg(long, global = true, hide = true)]
    pub json: bool,
    /// auto, always or never
    #[arg(
        long,
        global = true,
        hide = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true
    )]
    pub color: ColorChoice,
    /// Say nothing but errors
    #[arg(short, long, global = true, hide = true)]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, global = true, hide = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Answer yes to questions
    #[arg(short, long, global = true, hide = true)]
    pub yes: bool,
    /// How long to wait for the outcome
    #[arg(long, global = true, hide = true, value_name = "D", value_parser = crate::when::parse_duration)]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub fleet: crate::fleet::FleetArgs,
}

/// Forms of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    // For people.
    Text,
    // One document.
    Json,
    // One document a line.
    Jsonl,
    // The bytes of the program.
    Raw,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    // On a terminal without `NO_COLOR`.
    Auto,
    // Also in a pipe.
    Always,
    // Not at all.
    Never,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the file in front of you here, or start jobs on the daemon
    #[command(after_help = crate::help::START)]
    Start(StartArgs),
    /// Run jobs of the file here, in the foreground
    #[command(after_help = crate::help::DEV)]
    Dev(DevArgs),
    /// Run a job once on the node, or a command here
    #[command(after_help = crate::help::RUN)]
    Run(RunArgs),
    /// Stop jobs; they stay stopped
    #[command(after_help = crate::help::STOP)]
    Stop(StopArgs),
    /// Stop and start jobs
    #[command(after_help = crate::help::RESTART)]
    Restart(StopArgs),
    /// Replace the runs of jobs without a gap
    #[command(after_help = crate::help::RELOAD)]
    Reload(ReloadArgs),
    /// Change the number of instances
    #[command(after_help = crate::help::SCALE)]
    Scale(ScaleArgs),
    /// Send a signal
    #[command(after_help = crate::help::SIGNAL)]
    Signal(SignalArgs),
    /// Freeze jobs
    #[command(after_help = crate::help::PAUSE)]
    Pause(TargetArgs),
    /// Thaw jobs
    #[command(after_help = crate::help::RESUME)]
    Resume(TargetArgs),
    /// Write to the standard input of a run
    #[command(after_help = crate::help::SEND)]
    Send(SendArgs),
    /// Connect the terminal to a run; Ctrl-] d leaves it
    #[command(after_help = crate::help::ATTACH)]
    Attach(AttachArgs),
    /// List jobs
    #[command(after_help = crate::help::PS)]
    Ps(PsArgs),
    /// Show, add, change and remove single jobs
    #[command(after_help = crate::help::JOB)]
    Job(JobArgs),
    /// Show what jobs wrote
    #[command(after_help = crate::help::LOGS)]
    Logs(LogsArgs),
    /// Tell why jobs are as they are: state, last ends, last lines
    #[command(after_help = crate::help::WHY)]
    Why(WhyArgs),
    /// Wait until something is so
    #[command(after_help = crate::help::WAIT)]
    Wait(WaitArgs),
    /// Run, watch and end tasks: steps that run to their end
    #[command(after_help = crate::help_task::TASK)]
    Task(task::TaskArgs),
    /// Put a task into a queue
    #[command(after_help = crate::help_queue::PUSH)]
    Push(queue::PushArgs),
    /// Look at queues and their tasks, hold them back, try them again
    #[command(after_help = crate::help_queue::QUEUE)]
    Queue(queue::QueueArgs),
    /// Look at schedules, hold them back, act now
    #[command(after_help = crate::help_queue::SCHEDULE)]
    Schedule(crate::commands::schedule::ScheduleArgs),
    /// Show what happened on the node
    #[command(after_help = crate::help::EVENTS)]
    Events(EventsArgs),
    /// Look at webhooks, and test them
    #[command(after_help = crate::help::WEBHOOK)]
    Webhook(crate::commands::webhook::WebhookArgs),
    /// Check a file, offline
    #[command(after_help = crate::help::CHECK)]
    Check(CheckArgs),
    /// Show what applying a file would do
    #[command(after_help = crate::help::PLAN)]
    Plan(PlanArgs),
    /// Make the node as the file says
    #[command(after_help = crate::help::APPLY)]
    Apply(ApplyArgs),
    /// Write a gaffer.toml from what is here
    #[command(after_help = crate::help::INIT)]
    Init(InitArgs),
    /// Write the jobs of a file in another form
    #[command(after_help = crate::help::EXPORT)]
    Export(ExportArgs),
    /// Find nodes by look-up services
    #[command(after_help = crate::help::LOOKUP)]
    Lookup(crate::commands::lookup::LookupArgs),
    /// Nodes that you can name: look at them, add one, forget one
    #[command(after_help = crate::help::NODE)]
    Node(crate::commands::node::NodeArgs),
    /// Check the node and this machine
    #[command(after_help = crate::help::DOCTOR)]
    Doctor(crate::commands::doctor::DoctorArgs),
    /// Start, stop and look after the daemon
    #[command(after_help = crate::help::DAEMON)]
    Daemon(DaemonArgs),
    /// Log in to a daemon; later commands for its URL show the key
    #[command(after_help = crate::access::LOGIN)]
    Login(LoginArgs),
    /// Make, list and revoke tokens
    #[command(after_help = crate::access::TOKEN)]
    Token(TokenArgs),
    /// Make, list and remove users
    #[command(after_help = crate::access::USER)]
    User(UserArgs),
    /// Print completions for a shell
    #[command(after_help = crate::help::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print the manual page
    #[command(after_help = crate::help::MAN)]
    Man,
    /// Explain a command or a topic
    #[command(after_help = crate::help::HELP_CMD)]
    Help(HelpArgs),
    /// Print the version
    Version,
    /// Anything else.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// Which file, and what to change about it.
#[derive(Args, Clone, Debug, Default)]
pub struct FileArgs {
    /// File; several are laid over each other
    #[arg(short, long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Folder to work in
    #[arg(short, long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// File with environment variables, instead of .env
    #[arg(short = 'e', long = "env-file", value_name = "ENVFILE")]
    pub env_files: Vec<PathBuf>,
    /// Number of instances of a job
    #[arg(short, long = "count", value_name = "JOB=N")]
    pub counts: Vec<String>,
    /// Variable of the file: {{vars.N}}
    #[arg(short = 'E', long = "var", value_name = "N=V")]
    pub vars: Vec<String>,
    /// Profile laid over the file
    #[arg(
        long,
        value_name = "P",
        env = "GAFFER_PROFILE",
        hide_env = true,
        value_delimiter = ','
    )]
    pub profile: Vec<String>,
    /// First port of Procfile jobs
    #[arg(long, value_name = "BASE")]
    pub port: Option<u16>,
}

/// Options of running a file in the foreground.
#[derive(Args, Clone, Debug, Default)]
pub struct ForegroundArgs {
    #[command(flatten)]
    pub file: FileArgs,
    /// End everything when one job ends, or only when one fails
    #[arg(long, value_name = "WHEN")]
    pub stop_on: Option<StopOn>,
    /// Also if a daemon runs this session
    #[arg(long)]
    pub anyway: bool,
}

/// `--stop-on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StopOn {
    // Any end of any run.
    Exit,
    // An end that is not a success.
    Failure,
}

/// Options of waiting.
#[derive(Args, Clone, Debug, Default)]
pub struct WaitOptions {
    /// Ask only; do not wait for the outcome
    #[arg(long)]
    pub no_wait: bool,
}

/// `start`.
#[derive(Args, Clone, Debug)]
pub struct StartArgs {
    /// Jobs to start on the daemon; none: run the file here
    #[arg(value_name = "T")]
    pub targets: Vec<String>,
    /// All jobs of the session
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub wait: WaitOptions,
    #[command(flatten)]
    pub foreground: ForegroundArgs,
}

/// `dev`.
#[derive(Args, Clone, Debug)]
pub struct DevArgs {
    /// Only these jobs, and what they wait for
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    #[command(flatten)]
    pub foreground: ForegroundArgs,
}

/// `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Job whose definition is run once on the node
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    /// Arguments added to the job's; without JOB: the command to run here
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
    /// Environment variable of this run
    #[arg(short, long = "param", value_name = "K=V")]
    pub params: Vec<String>,
    /// Connect the terminal to it
    #[arg(long)]
    pub attach: bool,
    /// Between the signal of a stop and KILL, instead of the job's stop.timeout
    #[arg(long, value_name = "D", value_parser = crate::when::parse_duration)]
    pub grace: Option<Duration>,
    #[command(flatten)]
    pub wait: WaitOptions,
    #[command(flatten)]
    pub file: FileArgs,
}

/// Targets of a changing command.
#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// Jobs, instances, sessions, patterns: gaffer help targets
    #[arg(value_name = "T")]
    pub targets: Vec<String>,
    /// All jobs of the session
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub wait: WaitOptions,
}

/// `stop`, `restart`.
#[derive(Args, Clone, Debug)]
pub struct StopArgs {
    #[command(flatten)]
    pub targets: TargetArgs,
    /// Time before KILL, instead of stop.timeout
    #[arg(long, value_name = "D", value_parser = crate::when::parse_duration)]
    pub grace: Option<Duration>,
    /// KILL now
    #[arg(long)]
    pub force: bool,
}

/// `reload`.
#[derive(Args, Clone, Debug)]
pub struct ReloadArgs {
    #[command(flatten)]
    pub targets: TargetArgs,
    /// surge, rolling, signal or restart, instead of reload.how
    #[arg(long, value_name = "HOW", value_parser = ["surge", "rolling", "signal", "restart"])]
    pub how: Option<String>,
}

/// `scale`.
#[derive(Args, Clone, Debug)]
pub struct ScaleArgs {
    /// web=3, web=+2, web=-1; queue:mail=3 for the workers of a queue
    #[arg(value_name = "JOB=N", required = true)]
    pub changes: Vec<String>,
    /// Back to the number in the file; takes jobs and queues without a number
    #[arg(long)]
    pub auto: bool,
    /// Beyond scale.min and scale.max
    #[arg(long)]
    pub force: bool,
    /// So many over the chosen nodes, spread evenly; takes jobs without a number
    #[arg(long, value_name = "N", conflicts_with = "auto")]
    pub total: Option<u32>,
    #[command(flatten)]
    pub wait: WaitOptions,
}

/// `signal`.
#[derive(Args, Clone, Debug)]
pub struct SignalArgs {
    /// HUP, SIGHUP or 1
    #[arg(value_name = "SIG")]
    pub signal: String,
    /// Jobs, instances, runs
    #[arg(value_name = "T")]
    pub targets: Vec<String>,
    /// All jobs of the session
    #[arg(long)]
    pub all: bool,
    /// Only the main process (default)
    #[arg(long, conflicts_with_all = ["group", "all_processes"])]
    pub main: bool,
    /// Its process group
    #[arg(long, conflicts_with = "all_processes")]
    pub group: bool,
    /// Everything it started
    #[arg(long)]
    pub all_processes: bool,
}

/// `send`.
#[derive(Args, Clone, Debug)]
pub struct SendArgs {
    /// Instance or run
    #[arg(value_name = "T")]
    pub target: String,
    /// A line to write, or - for standard input
    #[arg(value_name = "TEXT", required = true)]
    pub text: Vec<String>,
    /// A stream of `streams` instead of standard input
    #[arg(short, long, value_name = "STREAM")]
    pub stream: Option<String>,
    /// Close it afterwards
    #[arg(long)]
    pub eof: bool,
}

/// `attach`.
#[derive(Args, Clone, Debug)]
pub struct AttachArgs {
    /// Instance or run
    #[arg(value_name = "T")]
    pub target: String,
    /// Only look
    #[arg(long)]
    pub read_only: bool,
}

/// `ps`.
#[derive(Args, Clone, Debug)]
pub struct PsArgs {
    /// Jobs, instances, sessions, patterns
    #[arg(value_name = "T")]
    pub targets: Vec<String>,
    /// Redraw when something changes
    #[arg(short, long)]
    pub watch: bool,
    /// Also one-off runs
    #[arg(short, long)]
    pub all: bool,
    /// Columns to show, as job,state,pid,run
    #[arg(long, value_name = "C", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Column to sort by; -C for the reverse
    #[arg(long, value_name = "C", allow_hyphen_values = true)]
    pub sort: Option<String>,
}

/// `job`.
#[derive(Args, Debug)]
pub struct JobArgs {
    #[command(subcommand)]
    pub verb: JobCommand,
}

/// `job …`.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// List jobs
    #[command(after_help = crate::help::JOB_LS)]
    Ls(PsArgs),
    /// Show a job with its definition
    #[command(after_help = crate::help::JOB_SHOW)]
    Show {
        /// Job
        #[arg(value_name = "T")]
        target: String,
    },
    /// Add a job without a file
    #[command(after_help = crate::help::JOB_ADD)]
    Add(JobAddArgs),
    /// Change a job that was made without a file
    #[command(after_help = crate::help::JOB_SET)]
    Set {
        /// Job
        #[arg(value_name = "T")]
        target: String,
        /// instances=3, env.LOG=debug, stop.timeout=20s; KEY= removes it
        #[arg(value_name = "KEY=VALUE", required = true)]
        changes: Vec<String>,
        #[command(flatten)]
        wait: WaitOptions,
    },
    /// Stop and forget jobs
    #[command(after_help = crate::help::JOB_RM)]
    Rm(TargetArgs),
    /// Start jobs
    #[command(after_help = crate::help::START_JOB)]
    Start(TargetArgs),
    /// Stop jobs
    #[command(after_help = crate::help::STOP)]
    Stop(StopArgs),
    /// Restart jobs
    #[command(after_help = crate::help::RESTART)]
    Restart(StopArgs),
    /// Reload jobs
    #[command(after_help = crate::help::RELOAD)]
    Reload(ReloadArgs),
}

/// `job add`.
#[derive(Args, Clone, Debug)]
pub struct JobAddArgs {
    /// Its name, with or without session
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The command
    #[arg(last = true, value_name = "CMD", required = true)]
    pub cmd: Vec<String>,
    /// Number of instances
    #[arg(short = 'n', long, value_name = "N")]
    pub instances: Option<u32>,
    /// Folder to run in; this one if not given
    #[arg(long, value_name = "D")]
    pub cwd: Option<PathBuf>,
    /// Environment variable
    #[arg(long = "env", value_name = "K=V")]
    pub env: Vec<String>,
    /// Any other key, as stop.timeout=20s
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Do not start it
    #[arg(long)]
    pub no_start: bool,
    #[command(flatten)]
    pub wait: WaitOptions,
}

/// `logs`.
#[derive(Args, Clone, Debug)]
pub struct LogsArgs {
    /// Jobs, instances, runs, sessions
    #[arg(value_name = "T")]
    pub targets: Vec<String>,
    /// Go on with what comes
    #[arg(short, long)]
    pub follow: bool,
    /// Last lines only; all of them with --since, --run or --format raw
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<usize>,
    /// From then on: 10m, 14:02, 2026-11-22T14:02
    #[arg(long, value_name = "T")]
    pub since: Option<String>,
    /// Until then
    #[arg(long, value_name = "T")]
    pub until: Option<String>,
    /// Only lines that match
    #[arg(long, value_name = "RE")]
    pub grep: Option<String>,
    /// stdout, stderr or a label
    #[arg(long, value_name = "S")]
    pub stream: Option<String>,
    /// Only this run
    #[arg(long, value_name = "R")]
    pub run: Option<String>,
    /// Also what happened to it
    #[arg(long)]
    pub events: bool,
}

/// `why`.
#[derive(Args, Clone, Debug)]
pub struct WhyArgs {
    /// Jobs, instances, sessions
    #[arg(value_name = "T")]
    pub targets: Vec<String>,
    /// How many ends to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    pub count: usize,
    /// Only this run
    #[arg(long, value_name = "R")]
    pub run: Option<String>,
}

/// `wait`.
#[derive(Args, Clone, Debug)]
pub struct WaitArgs {
    /// web, web=running, web.2=stopped, op-12
    #[arg(value_name = "T[=STATE]", required = true)]
    pub conditions: Vec<String>,
    /// One of them is enough
    #[arg(long)]
    pub any: bool,
}

/// `events`.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// Go on with what comes
    #[arg(short, long)]
    pub follow: bool,
    /// Only these: 'run.*', job.failed
    #[arg(long, value_name = "PATTERN")]
    pub filter: Vec<String>,
    /// From then on: 10m, 14:02
    #[arg(long, value_name = "T")]
    pub since: Option<String>,
    /// Behind this one
    #[arg(long, value_name = "C")]
    pub cursor: Option<String>,
    /// Only of these jobs
    #[arg(value_name = "T")]
    pub targets: Vec<String>,
}

/// `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Files; the one found here if none is given
    #[arg(value_name = "FILE")]
    pub paths: Vec<PathBuf>,
    /// Warnings are errors
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub file: FileArgs,
}

/// `plan`.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    /// Files; the one found here if none is given
    #[arg(value_name = "FILE")]
    pub paths: Vec<PathBuf>,
    /// Exit 1 if there is something to do
    #[arg(long)]
    pub exit_code: bool,
    /// Also remove jobs that came from no file
    #[arg(long)]
    pub prune: bool,
    /// What the file said before it was applied last, instead of what it says
    #[arg(long)]
    pub rollback: bool,
    #[command(flatten)]
    pub file: FileArgs,
}

/// `apply`.
#[derive(Args, Clone, Debug)]
pub struct ApplyArgs {
    /// Files; the one found here if none is given
    #[arg(value_name = "FILE")]
    pub paths: Vec<PathBuf>,
    /// Exactly the plan with this hash
    #[arg(long, value_name = "HASH")]
    pub plan: Option<String>,
    /// Also remove jobs that came from no file
    #[arg(long)]
    pub prune: bool,
    /// Forget scaling done by hand
    #[arg(long)]
    pub reset_scale: bool,
    /// Do not start what is new
    #[arg(long)]
    pub no_start: bool,
    /// Go back to what the file said before it was applied last; once more goes forth again
    #[arg(long)]
    pub rollback: bool,
    #[command(flatten)]
    pub wait: WaitOptions,
    #[command(flatten)]
    pub file: FileArgs,
}

/// `init`.
#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// Folder
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Print it instead
    #[arg(long)]
    pub print: bool,
}

/// `export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// Only this job
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// procfile, ini, json, systemd or toml
    #[arg(long, value_name = "KIND", default_value = "toml", value_parser = ["procfile", "ini", "json", "systemd", "toml"])]
    pub to: String,
    /// File to write
    #[arg(short, long, value_name = "FILE", visible_alias = "out")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub file: FileArgs,
}

/// `daemon`.
#[derive(Args, Debug)]
pub struct DaemonArgs {
    #[command(subcommand)]
    pub verb: DaemonCommand,
}

/// `daemon …`.
#[derive(Debug, Subcommand)]
pub enum DaemonCommand {
    /// Start the daemon in the background
    #[command(after_help = crate::help::DAEMON_START)]
    Start(DaemonStartArgs),
    /// Stop it and its jobs
    #[command(after_help = crate::help::DAEMON_STOP)]
    Stop {
        /// Leave all jobs running for the next daemon
        #[arg(long)]
        keep_running: bool,
    },
    /// Start a new daemon that takes charge of everything that runs
    #[command(after_help = crate::help::DAEMON_RESTART)]
    Restart(DaemonStartArgs),
    /// Apply its file again
    #[command(after_help = crate::help::DAEMON_RELOAD)]
    Reload,
    /// Restart it with the program that is installed now
    #[command(after_help = crate::help::DAEMON_UPGRADE)]
    Upgrade(DaemonStartArgs),
    /// Show what it is and does
    #[command(after_help = crate::help::DAEMON_STATUS)]
    Status,
    /// Carry bytes between the standard streams and its socket
    #[command(after_help = crate::help::DAEMON_DIAL)]
    Dial,
    /// Write a systemd unit
    #[command(after_help = crate::help::DAEMON_INSTALL)]
    Install {
        /// Print it instead
        #[arg(long)]
        print: bool,
        /// For this user, without root
        #[arg(long)]
        user: bool,
    },
}

/// `daemon start`.
#[derive(Args, Clone, Debug)]
pub struct DaemonStartArgs {
    /// File that it applies
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address for HTTP; `none` for the socket only
    #[arg(long, value_name = "A")]
    pub bind: Vec<String>,
    /// Where it keeps its state
    #[arg(long, value_name = "P", env = "GAFFER_STATE_DIR", hide_env = true)]
    pub state_dir: Option<PathBuf>,
    /// Profile of the file
    #[arg(
        long,
        value_name = "P",
        env = "GAFFER_PROFILE",
        hide_env = true,
        value_delimiter = ','
    )]
    pub profile: Vec<String>,
}
