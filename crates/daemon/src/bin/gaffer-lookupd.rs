//! `gaffer-lookupd`: the look-up service of many nodes.

use clap::Parser;
use gafferd::lookup::options::Options;
use gafferd::lookup::service;
use std::process::ExitCode;

fn main() -> ExitCode {
    match service::run(&Options::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
