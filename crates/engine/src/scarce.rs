//! What is done when descriptors run out: nothing is started that could not be supervised.
//!
//! | who | is short of | what follows |
//! |---|---|---|
//! | engine, at its start | [`OPEN_FILES_MIN`] | it does not open |
//! | engine, later | what a further shim takes | the start fails and is tried again at the pace of its job |
//! | a shim | its reserve | it refuses with numbers, a further shim is opened |
//! | a shim without runs | its reserve | the start fails: a further shim would have no more |
//! | a shim that is just beginning | anything | it says why and ends; no other is begun for a while |

use crate::clock;
use gaffer_core::time::{Duration, Mono};
use gaffer_shim::limit::{self, SHIM_MIN};
use std::io;

/// The least limit of open files that an engine opens with: store, listeners, connections, and what it holds of a few
/// shims. A shim needs less.
pub const OPEN_FILES_MIN: u64 = 256;
const _: () = assert!(SHIM_MIN <= OPEN_FILES_MIN);

/// Descriptors that beginning a shim takes for a moment, and some for whatever happens meanwhile.
const FOR_A_SHIM: usize = 16;

/// Pause after a shim that could not begin, and its end.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The limit of open files, if an engine cannot work with it.
pub(crate) fn too_low() -> Option<u64> {
    let (_, hard) = limit::now().ok()?;
    (hard < OPEN_FILES_MIN).then_some(hard)
}

/// Is there room for one more shim? Says in numbers what is missing.
pub(crate) fn room_for_a_shim() -> Result<(), String> {
    let Ok((soft, hard)) = limit::now() else {
        return Ok(());
    };
    if hard < SHIM_MIN {
        return Err(format!(
            "cannot start a shim: the hard limit of open files is {hard}, and a shim needs {SHIM_MIN}; raise LimitNOFILE= of \
             the unit, or ulimit -Hn, and start the daemon again"
        ));
    }
    // The kernel's own word: counting would be as long a list, and out of date.
    let mut probes = Vec::with_capacity(FOR_A_SHIM);
    for _ in 0..FOR_A_SHIM {
        match rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC) {
            Ok(probe) => probes.push(probe),
            Err(error) => {
                let error = io::Error::from(error);
                return Err(format!(
                    "cannot start a shim: {error}; the daemon may open {soft} files, {} are free, and a shim takes \
                     {FOR_A_SHIM} of them; raise LimitNOFILE= of the unit, or ulimit -Hn",
                    probes.len()
                ));
            }
        }
    }
    Ok(())
}

/// Shims that could not begin their work: until when no other is begun, and why.
#[derive(Default)]
pub(crate) struct Misfires {
    times: u32,
    until: Option<Mono>,
    why: String,
}

impl Misfires {
    /// One more, for this reason.
    pub fn note(&mut self, why: &str) {
        let pause = (PAUSE_MIN * (1 << self.times.min(6))).min(PAUSE_MAX);
        self.times += 1;
        self.until = Some(clock::mono().plus(pause));
        self.why = why.to_owned();
    }

    /// One has begun its work: whatever it was is over.
    pub fn clear(&mut self) {
        *self = Misfires::default();
    }

    /// Why no shim is begun now.
    pub fn holds(&self) -> Option<&str> {
        self.until
            .filter(|until| clock::mono() < *until)
            .map(|_| self.why.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_could_not_begin_holds_the_next_back_until_one_has_begun() {
        let mut misfires = Misfires::default();
        assert_eq!(misfires.holds(), None);
        for _ in 0..100 {
            misfires.note("no room");
        }
        assert_eq!(misfires.holds(), Some("no room"));
        misfires.clear();
        assert_eq!(misfires.holds(), None);
    }
}
