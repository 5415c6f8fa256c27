//! Process trees that do not want to go away.

use crate::arguments::Arguments;
use crate::{idle, output};
use std::ffi::c_int;

/// TERM, INT, HUP, QUIT, USR1 and USR2 do nothing any more.
pub fn ignore_polite_signals() {
    for signal in [
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ] {
        // SAFETY: sets a disposition; no handler of ours can run.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

struct Manners {
    setsid: bool,
    double_fork: bool,
    ignore_term: bool,
    hold_stdout: bool,
}

/// A chain of processes below this one; each says `pid N` on stdout and stays.
pub fn tree(arguments: &mut Arguments) -> Result<c_int, String> {
    let depth = arguments.number("--depth")?.unwrap_or(1);
    let leader_exits = arguments.number("--leader-exits")?;
    let manners = Manners {
        setsid: arguments.flag("--setsid"),
        double_fork: arguments.flag("--double-fork"),
        ignore_term: arguments.flag("--ignore-term"),
        hold_stdout: arguments.flag("--hold-stdout"),
    };
    if manners.ignore_term {
        ignore_polite_signals();
    }
    output::write_all(1, format!("pid {} level 0\n", std::process::id()).as_bytes());
    let down = readiness_pipe()?;
    if fork()? == 0 {
        descend(1, depth, &manners, down.1)?;
        idle();
    }
    // The whole chain stands before the leader does anything else.
    wait_for_byte(down.0);
    output::write_all(1, b"grown\n");
    match leader_exits {
        Some(code) => c_int::try_from(code).map_err(|error| error.to_string()),
        None => idle(),
    }
}

/// Forks for as long as it lives. Half of the descendants go as soon as they have a child, so that no list of them is
/// true for long.
pub fn bomb() -> ! {
    ignore_polite_signals();
    let leader = std::process::id();
    loop {
        let own = std::process::id();
        // Refused: there are as many as may be.
        let forked = fork().is_ok();
        if forked && own != leader && own.is_multiple_of(2) && std::process::id() == own {
            // SAFETY: ends the process; its child goes on.
            unsafe { libc::_exit(0) }
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn descend(level: u64, depth: u64, manners: &Manners, ready: c_int) -> Result<(), String> {
    if level > depth {
        output::write_all(ready, b".");
        // SAFETY: this process only existed to tell that the chain is complete.
        unsafe { libc::_exit(0) }
    }
    if manners.setsid {
        // SAFETY: no arguments; fails harmlessly for a group leader.
        unsafe { libc::setsid() };
    }
    if manners.double_fork && fork()? != 0 {
        // SAFETY: the one in between goes, so that the child loses its parent.
        unsafe { libc::_exit(0) }
    }
    output::write_all(
        1,
        format!("pid {} level {level}\n", std::process::id()).as_bytes(),
    );
    if fork()? == 0 {
        return descend(level + 1, depth, manners, ready);
    }
    // Only now: the one below still had to say its pid.
    if !manners.hold_stdout {
        let_go_of_streams()?;
    }
    idle()
}

fn let_go_of_streams() -> Result<(), String> {
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|error| error.to_string())?;
    for descriptor in 0..3 {
        // SAFETY: both descriptors are open; the old one is closed by the call.
        unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), descriptor) };
    }
    Ok(())
}

fn fork() -> Result<libc::pid_t, String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this program has one thread, so the child may go on as usual"
    )]
    // SAFETY: as the reason says.
    match unsafe { libc::fork() } {
        -1 => Err(format!("fork: {}", std::io::Error::last_os_error())),
        pid => Ok(pid),
    }
}

fn readiness_pipe() -> Result<(c_int, c_int), String> {
    let mut ends = [0; 2];
    // SAFETY: the array has the two places that the call fills.
    match unsafe { libc::pipe(ends.as_mut_ptr()) } {
        0 => Ok((ends[0], ends[1])),
        _ => Err(format!("pipe: {}", std::io::Error::last_os_error())),
    }
}

fn wait_for_byte(descriptor: c_int) {
    let mut byte = [0_u8; 1];
    // SAFETY: the pointer and length are those of a live array.
    while unsafe { libc::read(descriptor, byte.as_mut_ptr().cast(), 1) } < 0
        && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
    {}
}
