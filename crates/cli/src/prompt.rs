//! Questions on the terminal, answered with a line: names, and secrets that are not shown.

use crate::failure::Failure;
use crate::out::Out;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal, Read, Write};

/// Longest answer.
const ANSWER_BYTES_MAX: usize = 4096;

/// The terminal shows nothing and hands on every key, as long as it lives.
struct Quiet(Termios);

impl Quiet {
    fn enter() -> Result<Quiet, Failure> {
        let failed = |error| Failure::failed(format!("the terminal cannot be set: {error}"));
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet).map_err(failed)?;
        Ok(Quiet(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that is gone needs no care.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0);
        let _ = std::io::stderr().write_all(b"\n");
    }
}

/// A line; none at the end of the input.
pub fn line(out: &Out, prompt: &str) -> Result<Option<String>, Failure> {
    ask(out, prompt)?;
    read_line()
}

/// A line that is not shown while it is typed. From a pipe it is read as it is.
pub fn secret(out: &Out, prompt: &str) -> Result<Option<String>, Failure> {
    ask(out, prompt)?;
    if !std::io::stdin().is_terminal() {
        return read_line();
    }
    let _quiet = Quiet::enter()?;
    let mut typed = Vec::new();
    let mut byte = [0];
    while typed.len() < ANSWER_BYTES_MAX {
        let read = std::io::stdin().lock().read(&mut byte).map_err(unreadable)?;
        match (read, byte[0]) {
            // Ctrl-C, Ctrl-D: without an echo nobody else would put the terminal back.
            (_, 3) => return Err(Failure::new(130, "interrupted")),
            (0, _) | (_, 4) => return Ok(None),
            (_, b'\r' | b'\n') => break,
            (_, 8 | 127) => drop(typed.pop()),
            // Ctrl-U.
            (_, 21) => typed.clear(),
            (_, byte) => typed.push(byte),
        }
    }
    String::from_utf8(typed)
        .map(Some)
        .map_err(|_| Failure::usage("the answer is not UTF-8"))
}

/// A new password, asked for twice.
pub fn new_password(out: &Out) -> Result<String, Failure> {
    let first = needed(secret(out, "Password: ")?, "a password")?;
    let second = needed(secret(out, "Password (again): ")?, "a password")?;
    if first == second {
        Ok(first)
    } else {
        Err(Failure::failed("the two passwords differ"))
    }
}

/// The answer, which must be there and not empty.
pub fn needed(answer: Option<String>, what: &str) -> Result<String, Failure> {
    answer
        .filter(|answer| !answer.is_empty())
        .ok_or_else(|| Failure::usage(format!("{what} is needed, and nobody gave one")))
}

fn ask(out: &Out, prompt: &str) -> Result<(), Failure> {
    out.flush()?;
    if std::io::stdin().is_terminal() {
        // That nobody sees the question is no failure.
        let _ = std::io::stderr().write_all(prompt.as_bytes());
    }
    Ok(())
}

fn read_line() -> Result<Option<String>, Failure> {
    let mut text = String::new();
    let limit = ANSWER_BYTES_MAX as u64;
    // Locked for one line only: another question may follow, and what is buffered stays for it.
    let read = std::io::stdin()
        .lock()
        .take(limit)
        .read_line(&mut text)
        .map_err(unreadable)?;
    Ok((read > 0).then(|| text.trim_end_matches(['\n', '\r']).to_owned()))
}

fn unreadable(error: std::io::Error) -> Failure {
    Failure::failed(format!("standard input cannot be read: {error}"))
}
