//! The terminal of the user: raw mode that is always left again, the keys that leave a program, sizes, signal names.

use crate::failure::Failure;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{stdin, stdout};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-].
const LEAVE_PREFIX: u8 = 0x1d;

/// Raw mode as long as it lives.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Every key goes to the program.
    pub fn enter() -> Result<Raw, Failure> {
        let failed = |error| Failure::failed(format!("the terminal cannot be set: {error}"));
        let before = tcgetattr(stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no care.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
        let _ = rustix::io::write(stdout(), b"\r\n");
    }
}

/// Columns and rows of the terminal; `None`: there is none, or it does not know.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdin()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Changes of the terminal's size.
pub fn resizes() -> Result<Signal, Failure> {
    signal(SignalKind::window_change())
        .map_err(|error| Failure::failed(format!("signals cannot be watched: {error}")))
}

/// What ends this program from outside while the terminal is in raw mode.
pub struct Ends {
    terminate: Signal,
    hangup: Signal,
}

impl Ends {
    /// From now on.
    pub fn watch() -> Result<Ends, Failure> {
        let watch = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("signals cannot be watched: {error}")))
        };
        Ok(Ends {
            terminate: watch(SignalKind::terminate())?,
            hangup: watch(SignalKind::hangup())?,
        })
    }

    /// The exit code of who is ended so.
    pub async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 143,
            _ = self.hangup.recv() => 129,
        }
    }
}

/// Finds `Ctrl-] d` in what is typed; `Ctrl-]` twice is one for the program.
pub struct Keys {
    on: bool,
    prefixed: bool,
}

impl Keys {
    /// Nothing is looked for unless somebody types.
    pub fn new(on: bool) -> Keys {
        Keys { on, prefixed: false }
    }

    /// What goes to the program, and whether the user leaves.
    pub fn typed(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        if !self.on {
            return (bytes.to_vec(), false);
        }
        let mut passed = Vec::with_capacity(bytes.len());
        for byte in bytes {
            match (self.prefixed, *byte) {
                (true, b'd') => return (passed, true),
                (true, LEAVE_PREFIX) => passed.push(LEAVE_PREFIX),
                (true, other) => passed.extend([LEAVE_PREFIX, other]),
                (false, LEAVE_PREFIX) => {
                    self.prefixed = true;
                    continue;
                }
                (false, other) => passed.push(other),
            }
            self.prefixed = false;
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_that_leave_are_found_across_reads() {
        let mut keys = Keys::new(true);
        assert_eq!(keys.typed(b"ab\x1d"), (b"ab".to_vec(), false));
        assert_eq!(keys.typed(b"d"), (Vec::new(), true));
        let mut keys = Keys::new(true);
        assert_eq!(keys.typed(b"\x1d\x1d\x1dx"), (b"\x1d\x1dx".to_vec(), false));
    }

    #[test]
    fn a_pipe_may_hold_any_byte() {
        assert_eq!(Keys::new(false).typed(b"\x1dd"), (b"\x1dd".to_vec(), false));
    }
}
