//! How a command fails: one sentence, what to do about it, and an exit code.
//!
//! The codes are fixed (ux.md 4.4): 1 failed, 2 usage or invalid file, 3 not found, 4 conflict, 5 not allowed,
//! 69 no daemon. A failure is printed once, in `lib.rs`, on standard error.

use crate::paint::{Paint, Role};
use std::fmt::Write as _;
use std::io;

/// Width of the first of two hints on one line.
const HINT_COLUMN: usize = 40;

/// Longest line of two hints, so that it fits a terminal of 80 columns behind its indentation.
const HINT_WIDTH: usize = 77;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// Exit code of the program.
    pub exit: u8,
    /// One sentence, lower case, no full stop; empty if everything has been said already.
    pub message: String,
    /// Lines below it, each a hint.
    pub hints: Vec<String>,
    /// Printed verbatim instead of `error: message` (diagnostics with excerpts).
    pub rendered: Option<String>,
}

impl Failure {
    /// A failure with one of the fixed codes.
    pub fn new(exit: u8, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
            hints: Vec::new(),
            rendered: None,
        }
    }

    /// Exit 1.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::new(1, message)
    }

    /// Exit 2.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(2, message)
    }

    /// Exit 3.
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(3, message)
    }

    /// Exit 4.
    pub fn conflict(message: impl Into<String>) -> Failure {
        Failure::new(4, message)
    }

    /// Only an exit code: what there is to say has been said.
    pub fn silent(exit: u8) -> Failure {
        Failure::new(exit, "")
    }

    /// Adds a line below.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hints.push(hint.into());
        self
    }

    /// Adds two hints on one line.
    #[must_use]
    pub fn hint_pair(self, first: &str, second: &str) -> Failure {
        if first.is_empty() {
            return self.hint(second);
        }
        let both = format!("{first:HINT_COLUMN$}{second}");
        // A line that the terminal breaks in the middle of a command cannot be copied.
        if first.chars().count() >= HINT_COLUMN || both.chars().count() > HINT_WIDTH {
            return self.hint(first).hint(second);
        }
        self.hint(both)
    }

    /// The text for standard error, with a newline at the end; empty if there is nothing to say.
    pub fn render(&self, paint: &Paint) -> String {
        if let Some(rendered) = &self.rendered {
            return rendered.clone();
        }
        if self.message.is_empty() {
            return String::new();
        }
        let mut text = format!("{}: {}\n", paint.role(Role::Bad, "error"), self.message);
        for hint in &self.hints {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "  {hint}");
        }
        text
    }
}

/// The reader of our output went away: nobody is left to tell, and nothing went wrong.
pub fn output(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::silent(0);
    }
    Failure::failed(format!("standard output cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hints_stand_in_columns() {
        let failure = Failure::not_found("no job `wbe` in session shop")
            .hint_pair("did you mean `web`?", "all jobs:  gaffer ps");
        let expected = "error: no job `wbe` in session shop\n  did you mean `web`?                     all jobs:  gaffer ps\n";
        assert_eq!(failure.render(&Paint::off()), expected);
    }

    #[test]
    fn two_hints_that_do_not_fit_stand_below_each_other() {
        let failure = Failure::conflict("no").hint_pair(
            "look at it:  gaffer ps",
            "a second copy here:  gaffer dev --anyway -f some/gaffer.toml",
        );
        assert_eq!(failure.hints.len(), 2);
    }

    #[test]
    fn a_closed_pipe_is_not_a_failure() {
        let closed = output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((closed.exit, closed.message.as_str()), (0, ""));
    }
}
