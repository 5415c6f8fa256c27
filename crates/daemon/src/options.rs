//! What can be said on the command line of `gafferd`.

use clap::Parser;
use std::path::PathBuf;

/// The daemon of a node: launches jobs, keeps them alive, and serves the API.
///
/// An option wins over its environment variable, and that over the file.
#[derive(Debug, Parser)]
#[command(
    name = "gafferd",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  gafferd                              start empty, or with what the store remembers
  gafferd -c gaffer.toml               apply a file, then serve
  gafferd -c . --bind 127.0.0.1:0      the file in this folder; a free port, printed when it serves
  gafferd --bind none                  control socket only

Signals: TERM, INT and QUIT stop all jobs in order, save those with keep_running, and a second one kills;
HUP applies the file again. If gafferd is killed, its jobs go on, and the next gafferd takes charge of them."
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub struct Options {
    /// File (gaffer.toml, Procfile, gaffer.ini, …) to apply at the start, or its folder
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where to listen, repeatable: HOST:PORT (port 0: a free one), unix:PATH, or none [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDR")]
    pub bind: Vec<String>,

    /// Path of the control socket
    #[arg(long, value_name = "PATH", env = "GAFFER_SOCKET")]
    pub socket: Option<PathBuf>,

    /// Directory of the store, the shims and the logs
    #[arg(long, value_name = "DIR", env = "GAFFER_STATE_DIR")]
    pub state_dir: Option<PathBuf>,

    /// How much is written to the log: error, warn, info, debug, trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<tracing::Level>,

    /// Profile of the file, repeatable
    #[arg(long, value_name = "NAME", env = "GAFFER_PROFILE", value_delimiter = ',')]
    pub profile: Vec<String>,

    /// Go to the background once it serves; the log goes to gafferd.log in the state directory
    #[arg(long)]
    pub daemon: bool,

    /// Write the process id to this file, and remove it at the end
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,

    /// More in the log: -v debug, -vv trace
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Print the OpenAPI document and end
    #[arg(long, hide = true)]
    pub print_openapi: bool,

    /// Print a systemd unit for this program and end
    #[arg(long, hide = true)]
    pub print_unit: bool,

    /// Check what can be checked without serving, print it as JSON and end
    #[arg(long, hide = true)]
    pub doctor: bool,

    /// Stop all jobs and end when this descriptor reaches its end: the private daemon of `gaffer start`
    #[arg(long, value_name = "N", hide = true)]
    pub leash_fd: Option<i32>,
}
