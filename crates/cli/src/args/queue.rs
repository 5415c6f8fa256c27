//! `push …` and `queue …`.

use clap::{Args, Subcommand};
use std::time::Duration;

/// `push`.
#[derive(Args, Clone, Debug)]
pub struct PushArgs {
    /// Queue: NAME or SESSION.NAME
    #[arg(value_name = "QUEUE")]
    pub queue: String,
    /// The payload; `-` reads it from standard input
    #[arg(value_name = "JSON|-")]
    pub payload: Option<String>,
    /// What is to be done, if the queue tells kinds apart
    #[arg(long, value_name = "K")]
    pub kind: Option<String>,
    /// Not before so much time has passed
    #[arg(long = "in", value_name = "D", value_parser = crate::when::parse_duration, conflicts_with = "at")]
    pub delay: Option<Duration>,
    /// Not before this time (RFC 3339)
    #[arg(long, value_name = "T")]
    pub at: Option<String>,
    /// Smaller runs first
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub priority: Option<i32>,
    /// At most one waiting task of the queue has this key
    #[arg(long, value_name = "KEY", conflicts_with = "lines")]
    pub unique: Option<String>,
    /// Longest life of an attempt
    #[arg(long, value_name = "D", value_parser = crate::when::parse_duration)]
    pub task_timeout: Option<Duration>,
    /// Wait for its end: the result is printed, the exit code says how it went
    #[arg(long)]
    pub wait: bool,
    /// Standard input has one payload a line; all of them are pushed
    #[arg(long, conflicts_with = "wait")]
    pub lines: bool,
}

/// `queue`.
#[derive(Args, Debug)]
pub struct QueueArgs {
    #[command(subcommand)]
    pub verb: QueueCommand,
}

/// `queue …`.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// List queues
    #[command(after_help = crate::help_queue::LS)]
    Ls,
    /// Show a queue, or a task by its number
    #[command(after_help = crate::help_queue::SHOW)]
    Show {
        /// QUEUE, SESSION.QUEUE or the number of a task
        #[arg(value_name = "QUEUE|ID")]
        what: String,
    },
    /// List tasks of a queue, newest first
    #[command(after_help = crate::help_queue::TASKS)]
    Tasks(QueueTasksArgs),
    /// Show what a queue did lately, by kind
    #[command(after_help = crate::help_queue::STATS)]
    Stats {
        /// Queue
        #[arg(value_name = "QUEUE")]
        queue: String,
        /// So far back
        #[arg(long, value_name = "D", default_value = "1h")]
        window: String,
    },
    /// Hold tasks back, also over a restart of the daemon
    #[command(after_help = crate::help_queue::PAUSE)]
    Pause {
        /// Queue
        #[arg(value_name = "QUEUE")]
        queue: String,
        /// Freeze what runs, too
        #[arg(long)]
        running: bool,
    },
    /// Go on
    #[command(after_help = crate::help_queue::RESUME)]
    Resume(QueueName),
    /// Take no tasks; work off what is there
    #[command(after_help = crate::help_queue::CLOSE)]
    Close(QueueName),
    /// Take tasks again
    #[command(after_help = crate::help_queue::OPEN)]
    Open(QueueName),
    /// Close a queue and wait until it is empty
    #[command(after_help = crate::help_queue::DRAIN)]
    Drain {
        /// Queue
        #[arg(value_name = "QUEUE")]
        queue: String,
        /// Longest time to wait; what is left stays queued, and the exit code is 1
        #[arg(long, value_name = "D", value_parser = crate::when::parse_duration)]
        deadline: Option<Duration>,
    },
    /// Withdraw tasks; what runs is asked to end
    #[command(after_help = crate::help_queue::CANCEL)]
    Cancel {
        #[command(flatten)]
        numbers: TaskNumbers,
        #[command(flatten)]
        wait: crate::args::WaitOptions,
    },
    /// Run tasks again that are over
    #[command(after_help = crate::help_queue::RETRY)]
    Retry {
        /// Numbers of tasks; with --state the queue
        #[arg(value_name = "ID|QUEUE", required = true)]
        what: Vec<String>,
        /// All tasks of the queue in this state
        #[arg(long, value_name = "S")]
        state: Option<String>,
    },
    /// Give a task another payload
    #[command(after_help = crate::help_queue::EDIT)]
    Edit {
        /// Number of a task that does not run
        #[arg(value_name = "ID")]
        id: i64,
        /// The payload; `-` reads it from standard input
        #[arg(value_name = "JSON|-")]
        payload: String,
    },
    /// Remove tasks that do not run
    #[command(after_help = crate::help_queue::RM)]
    Rm(TaskNumbers),
    /// Remove all tasks of a state
    #[command(after_help = crate::help_queue::PURGE)]
    Purge {
        /// Queue
        #[arg(value_name = "QUEUE")]
        queue: String,
        /// scheduled, queued, done, dead, cancelled or lost
        #[arg(long, value_name = "S")]
        state: String,
    },
}

/// A queue.
#[derive(Args, Clone, Debug)]
pub struct QueueName {
    /// NAME or SESSION.NAME
    #[arg(value_name = "QUEUE")]
    pub queue: String,
}

/// Tasks by number.
#[derive(Args, Clone, Debug)]
pub struct TaskNumbers {
    /// Numbers
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<i64>,
}

/// `queue tasks`.
#[derive(Args, Clone, Debug)]
pub struct QueueTasksArgs {
    /// NAME or SESSION.NAME
    #[arg(value_name = "QUEUE")]
    pub queue: String,
    /// Only those in this state
    #[arg(long, value_name = "S")]
    pub state: Option<String>,
    /// Only those of this kind
    #[arg(long, value_name = "K")]
    pub kind: Option<String>,
    /// Pushed since: a time, or 10m for ten minutes ago
    #[arg(long, value_name = "D")]
    pub since: Option<String>,
    /// So many at most
    #[arg(short, default_value_t = 50, value_name = "N")]
    pub n: usize,
}
