//! A badly behaved program, for the end-to-end tests.
//!
//! It has no `main` of Rust: the runtime of the standard library ignores SIGPIPE, catches SIGSEGV and opens
//! what is missing of 0 to 2 before the first line of a program. Here everything must stay as it was inherited,
//! or `dump` would show the runtime's doing instead of the supervisor's.
//!
//! `gaffer-fixture WHAT [--option value]…`; what there is, is said by [`USAGE`].

#![no_main]

mod arguments;
mod dump;
mod output;
mod serve;
mod tree;

use arguments::Arguments;
use std::ffi::{c_char, c_int};
use std::time::Duration;

const USAGE: &str = "\
gaffer-fixture lines [--count N (0: endless)] [--every-us U] [--prefix P] [--pad BYTES] [--stderr] [--exit CODE] [--tally DIR]
               pour [--block B] [--bytes N] --report FILE
               dump [--to FILE] [--then-idle]         what it inherited, as JSON
               tree [--depth D] [--setsid] [--double-fork] [--ignore-term] [--hold-stdout] [--leader-exits CODE]
               exit CODE [--after-ms MS]              kill-self SIGNAL-NUMBER [--after-ms MS]
               ignore-term                            burst BYTES
               bomb                                   forks without end, deaf to TERM: only with a limit
               endless-line BYTES (0: endless)        hang
               eat-memory [--mib N (0: endless)]      echo-stdin
               ready-after MS [--watchdog-ms MS]      http --port P [--status S] [--status-file FILE] [--delay-ms MS]
               first-byte [--to FILE]                 idle
";

#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _values: *const *const c_char) -> c_int {
    let mut arguments = Arguments::new(std::env::args().skip(1));
    match run(&mut arguments) {
        Ok(code) => code,
        Err(text) => {
            output::write_all(2, format!("gaffer-fixture: {text}\n{USAGE}").as_bytes());
            2
        }
    }
}

fn run(arguments: &mut Arguments) -> Result<c_int, String> {
    let what = arguments.word().ok_or("what?")?;
    match what.as_str() {
        "lines" => output::lines(arguments),
        "pour" => output::pour(arguments),
        "burst" => output::burst(arguments),
        "endless-line" => output::endless_line(arguments),
        "first-byte" => output::first_byte(arguments),
        "echo-stdin" => output::echo_stdin(),
        "dump" => dump::dump(arguments),
        "tree" => tree::tree(arguments),
        "ready-after" => serve::ready_after(arguments),
        "http" => serve::http(arguments),
        "exit" => {
            let code = arguments.required_number()?;
            pause_for(arguments.number("--after-ms")?.unwrap_or(0));
            c_int::try_from(code).map_err(|error| error.to_string())
        }
        "kill-self" => {
            let signal = arguments.required_number()?;
            pause_for(arguments.number("--after-ms")?.unwrap_or(0));
            let signal = c_int::try_from(signal).map_err(|error| error.to_string())?;
            // SAFETY: raise takes a number and touches nothing of ours.
            unsafe { libc::raise(signal) };
            Err("the signal did not end it".to_owned())
        }
        "ignore-term" => {
            tree::ignore_polite_signals();
            output::write_all(1, b"ignoring\n");
            idle()
        }
        "bomb" => tree::bomb(),
        "eat-memory" => eat_memory(arguments.number("--mib")?.unwrap_or(0)),
        "hang" | "idle" => idle(),
        other => Err(format!("there is no `{other}`")),
    }
}

/// Waits for signals, for ever.
fn idle() -> ! {
    loop {
        // SAFETY: no arguments, no memory.
        unsafe { libc::pause() };
    }
}

fn pause_for(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn eat_memory(mib: u64) -> Result<c_int, String> {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    while mib == 0 || (eaten.len() as u64) < mib {
        // Ones, because untouched zeroes cost nothing.
        eaten.push(vec![1; 1 << 20]);
    }
    output::write_all(1, format!("ate {} MiB\n", eaten.len()).as_bytes());
    idle()
}
