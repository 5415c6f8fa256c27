//! The grammar of the original's commands: its names, its options, its order.

use crate::args::Globals;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// `gaffer …` with a command of the original.
#[derive(Debug, Parser)]
#[command(
    name = "gaffer",
    disable_help_subcommand = true,
    max_term_width = 110,
    after_help = "What they do, and what to write today: gaffer help old-commands"
)]
pub struct OldCli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(flatten)]
    pub old: OldGlobals,
    #[command(subcommand)]
    pub command: OldCommand,
}

/// Options of the original that every command takes.
#[derive(Args, Clone, Debug, Default)]
pub struct OldGlobals {
    /// Procfile
    #[arg(short = 'f', long = "file", global = true, hide = true, value_name = "FILE")]
    pub procfile: Option<PathBuf>,
    /// Root of the application
    #[arg(short = 'd', long = "dir", global = true, hide = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// File of variables, repeatable
    #[arg(
        short = 'e',
        long = "env",
        alias = "env-file",
        global = true,
        hide = true,
        value_name = "FILE"
    )]
    pub env: Vec<PathBuf>,
}

/// Commands of the original.
#[derive(Debug, Subcommand)]
pub enum OldCommand {
    /// Load a JSON file, or the Procfile
    Load(LoadArgs),
    /// Unload jobs, or the whole application
    Unload(ManyArgs),
    /// Reload jobs, or the whole application
    Reload(ManyArgs),
    /// Sessions, one a line
    Apps,
    /// Running jobs of the application
    Ps {
        /// Application
        #[arg(value_name = "APP")]
        name: Option<String>,
    },
    /// Show a job or a process
    #[command(name = "ps:info")]
    PsInfo {
        /// Job or process
        #[arg(value_name = "JOB_OR_PID")]
        target: String,
    },
    /// Change the number of processes
    #[command(name = "ps:scale")]
    PsScale {
        /// job=3, job+2, job-1
        #[arg(value_name = "JOB=N", required = true, allow_hyphen_values = true)]
        changes: Vec<String>,
    },
    /// Start jobs, or the whole application
    #[command(name = "ps:start")]
    PsStart {
        /// Jobs
        #[arg(value_name = "JOB")]
        jobs: Vec<String>,
    },
    /// Stop jobs or processes, or the whole application
    #[command(name = "ps:stop")]
    PsStop {
        /// Jobs or processes
        #[arg(value_name = "JOB_OR_PID")]
        targets: Vec<String>,
    },
    /// Send a signal
    #[command(name = "ps:kill")]
    PsKill {
        /// Job or process
        #[arg(value_name = "JOB_OR_PID")]
        target: String,
        /// HUP, SIGHUP or 1
        #[arg(value_name = "SIGNAL")]
        signal: String,
    },
    /// Run a job once more on the node; a command that is no job runs here
    Run(OldRunArgs),
    /// Events of the application as they come
    Logs {
        /// Events (what was written: gaffer logs)
        #[arg(long)]
        events: bool,
        /// Only of this job
        #[arg(long, value_name = "JOB")]
        ps: Option<String>,
        /// Without colours
        #[arg(long)]
        no_color: bool,
    },
    /// Write to a process
    Send {
        /// Stream instead of standard input
        #[arg(short, long, value_name = "STREAM")]
        stream: Option<String>,
        /// Process, or process.stream
        #[arg(value_name = "PID")]
        target: String,
        /// What to write; - reads lines until a lone dot
        #[arg(value_name = "DATA", required = true, allow_hyphen_values = true)]
        data: Vec<String>,
    },
    /// Read from a process until interrupted
    Recv {
        /// Process, or process.stream
        #[arg(value_name = "PID")]
        target: String,
        /// Stream
        #[arg(value_name = "STREAM")]
        stream: Option<String>,
    },
    /// Show a user and its key
    User {
        /// Name
        #[arg(value_name = "USER")]
        name: String,
    },
    /// Make a user
    #[command(name = "user:add")]
    UserAdd(UserAddArgs),
    /// Remove a user
    #[command(name = "user:del")]
    UserDel {
        /// Name
        #[arg(value_name = "USER")]
        name: String,
    },
    /// Give a user another password
    #[command(name = "user:setpassword")]
    UserSetPassword {
        /// Name
        #[arg(value_name = "USER")]
        name: String,
        /// Password; asked for if it is missing
        #[arg(short, long, value_name = "TEXT")]
        password: Option<String>,
    },
    /// Give a user another key
    #[command(name = "user:setkey")]
    UserSetKey {
        /// Name
        #[arg(value_name = "USER")]
        name: String,
        /// Key; asked for if it is missing
        #[arg(short, long, value_name = "KEY")]
        key: Option<String>,
    },
    /// Show what a key allows
    Key {
        /// Key
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// Make a key
    #[command(name = "key:create")]
    KeyCreate(KeyCreateArgs),
    /// Revoke a key
    #[command(name = "key:delete")]
    KeyDelete {
        /// Key
        #[arg(value_name = "KEY")]
        key: String,
    },
}

/// `user:add`.
#[derive(Args, Clone, Debug)]
pub struct UserAddArgs {
    /// Name; asked for if it is missing
    #[arg(value_name = "USER")]
    pub name: Option<String>,
    /// Password; asked for if it is missing
    #[arg(short, long, value_name = "TEXT")]
    pub password: Option<String>,
    /// The key that a login gives
    #[arg(short, long, value_name = "KEY")]
    pub key: Option<String>,
    /// 0: an admin, 1: an application [default: 1]
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    pub kind: Option<i64>,
}

/// `key:create`.
#[derive(Args, Clone, Debug)]
pub struct KeyCreateArgs {
    /// +a admin, +u create_user, +k create_key, +m manage all, SESSION[.JOB]+rwm
    #[arg(value_name = "PERMISSION")]
    pub permissions: Vec<String>,
    /// What it is for
    #[arg(short, long, value_name = "TEXT")]
    pub label: Option<String>,
}

/// `load`.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// JSON file, - for standard input; none: the Procfile
    #[arg(value_name = "FILE")]
    pub file: Option<String>,
    /// Number of processes of a job
    #[arg(short, long = "concurrency", value_name = "JOB=N")]
    pub counts: Vec<String>,
    /// Do not start them
    #[arg(long)]
    pub nostart: bool,
}

/// `unload`, `reload`.
#[derive(Args, Clone, Debug)]
pub struct ManyArgs {
    /// Jobs; none: the whole application
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// The jobs of this JSON file
    #[arg(long, value_name = "JSON")]
    pub from_file: Option<PathBuf>,
}

/// `run`.
#[derive(Args, Clone, Debug)]
pub struct OldRunArgs {
    /// Variable of the process
    #[arg(short, long = "param", value_name = "K=V")]
    pub params: Vec<String>,
    /// Seconds between the signal of a stop and KILL
    #[arg(long, value_name = "T")]
    pub graceful_timeout: Option<String>,
    /// Job, or a command
    #[arg(value_name = "JOB", required = true, trailing_var_arg = true)]
    pub words: Vec<String>,
}
