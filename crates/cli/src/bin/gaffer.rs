//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    gaffer_cli::gaffer(std::env::args_os())
}
