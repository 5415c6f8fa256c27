//! The command line of the original's first versions, as a thin alias.

use std::process::ExitCode;

fn main() -> ExitCode {
    gaffer_cli::gafferctl(std::env::args_os())
}
