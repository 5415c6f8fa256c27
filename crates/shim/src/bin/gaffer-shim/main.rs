//! The shim process: `gaffer-shim --dir state/shims/<n> --fd 3`, started by a daemon.
//!
//! It becomes two processes with one descriptor table: the guard, which sleeps ([`guard`]), and the shim
//! with six threads: control ([`control`]), disk ([`disk`]) and four spawners ([`spawner`]).

mod child;
mod conn;
mod control;
mod disk;
mod guard;
mod limit;
mod log;
mod mailbox;
mod orders;
mod plan;
mod pump;
mod requests;
mod runs;
mod segments;
mod setup;
mod share;
mod spawner;
mod stop;
mod sys;
mod table;
mod timers;
mod tree;

fn main() -> std::process::ExitCode {
    match setup::start(std::env::args_os().skip(1)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // Nobody listens once stderr is /dev/null; by hand this says what is wrong.
            eprintln!("gaffer-shim: {error}");
            std::process::ExitCode::from(error.code())
        }
    }
}
